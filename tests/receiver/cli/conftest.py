"""What the tests of the commands share: a store, empty or filled."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from tests import streams
from tests.receiver.helpers import SENDER, store_stream
from tests.receiver.running import Receiver

from fullsend_receiver.store.local import LocalStore


@pytest.fixture(autouse=True)
def _time_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A time server has set the clock, whatever the machine of these tests has."""
    monkeypatch.setattr("fullsend_receiver.maintenance.clock.is_synchronised", lambda: True)


@pytest.fixture
def receiver(tmp_path: Path) -> Receiver:
    """A store with its configuration; no daemon."""
    receiver = Receiver(tmp_path)
    receiver.init()
    return receiver


@pytest.fixture
def filled(receiver: Receiver) -> tuple[Receiver, PurePosixPath, PurePosixPath]:
    """A store that holds a full and its increment."""
    store = LocalStore(receiver.store)
    full = store_stream(store, SENDER, streams.named("full").read())
    return receiver, full, store_stream(store, SENDER, streams.named("incr").read())
