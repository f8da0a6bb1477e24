from __future__ import annotations

import secrets

import pytest
from tests.receiver.buckets import gateways


@pytest.fixture(scope="session", autouse=True)
def ceph() -> None:
    """These tests have a real Ceph, or fail."""
    assert len(gateways()) == 2, "no object store runs: start these tests with tests/s3/run"


@pytest.fixture
def prefix() -> str:
    """A place in the bucket that no other test has."""
    return secrets.token_hex(8)
