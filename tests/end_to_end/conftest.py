"""A daemon and an enrolled sender, each its own process with its own configuration."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.programs import Receiver, Sender, serving


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    """A daemon that serves a new store on loopback."""
    with serving(tmp_path / "receiver") as daemon:
        yield daemon


@pytest.fixture
def sender(tmp_path: Path, receiver: Receiver) -> Sender:
    """A sender that is enrolled there."""
    host = Sender(tmp_path / "sender", "alpha")
    host.join(receiver)
    return host
