from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest
from tests.programs import Sender, started
from tests.receiver.buckets import gateways
from tests.s3.hosts import BucketReceiver, made

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session", autouse=True)
def ceph() -> None:
    """These tests have a real Ceph, or fail."""
    assert len(gateways()) == 2, "no object store runs: start these tests with tests/s3/run"


@pytest.fixture
def prefix() -> str:
    """A place in the bucket that no other test has."""
    return secrets.token_hex(8)


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[BucketReceiver]:
    receiver = made(tmp_path)
    with started(receiver):
        yield receiver


@pytest.fixture
def sender(receiver: BucketReceiver, tmp_path: Path) -> Sender:
    sender = Sender(tmp_path / "sender", "alpha")
    sender.join(receiver)
    return sender
