"""A daemon and an enrolled sender, each its own process with its own configuration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.programs import Receiver, Sender, serving


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    """A daemon that serves a new store on loopback."""
    # What is tested runs as processes of its own; what only leads there does not, which is faster.
    with serving(Receiver(tmp_path / "receiver", inside=True)) as daemon:
        daemon.inside = False
        yield daemon


@pytest.fixture
def sender(tmp_path: Path, receiver: Receiver) -> Sender:
    """A sender that is enrolled there."""
    host = Sender(tmp_path / "sender", "alpha", inside=True)
    receiver.inside = True
    host.join(receiver)
    receiver.inside = False
    return replace(host, inside=False)
