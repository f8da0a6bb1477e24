"""A command that tells the daemon what it does; that another command sees it: daemon/test_local_session.py."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.receiver.helpers import make_store
from tests.receiver.running import serving, wait_until

from fullsend_protocol.shared.stages import TransferCount
from fullsend_protocol.wire.live import LiveTransfer
from fullsend_protocol.wire.local import Transfers, TransfersWanted
from fullsend_receiver.cli import asking
from fullsend_receiver.cli.working import told
from fullsend_receiver.store.local import LocalStore

LIVE = LiveTransfer.of("7.1", "merge", "alpha", "tank/data@s3", TransferCount(0.0, 9), 1.0)


def seen(store: LocalStore) -> list[LiveTransfer]:
    connection = asking.connect(store)
    assert connection is not None
    with connection:
        return [each for page in asking.pages(connection, TransfersWanted(), Transfers) for each in page.transfers]


def test_it_is_told_again_and_again_and_then_forgotten(tmp_path: Path) -> None:
    with serving(tmp_path) as receiver:
        store = LocalStore(receiver.store)
        present: dict[str, LiveTransfer | None] = {"now": LIVE}
        with told(store, lambda: present["now"], every=0.01):
            wait_until(lambda: seen(store) == [LIVE], "what is told")
            present["now"] = LIVE.model_copy(update={"raw_bytes": 5})
            wait_until(lambda: seen(store) == [present["now"]], "what is told later")
            present["now"] = None
            wait_until(lambda: seen(store) == [], "that nothing is done")
            present["now"] = LIVE
            wait_until(lambda: seen(store) == [LIVE], "what is told last")
        wait_until(lambda: seen(store) == [], "that the command has ended")
        assert not any(each.name == "telling" for each in threading.enumerate())


def test_a_daemon_that_stops_ends_nothing(tmp_path: Path) -> None:
    asked = threading.Event()

    def look() -> LiveTransfer:
        asked.set()
        return LIVE

    with serving(tmp_path) as receiver, told(LocalStore(receiver.store), look, every=0.01):
        assert asked.wait(60)
        assert receiver.stop() == 0
    assert not any(each.name == "telling" for each in threading.enumerate())


def test_without_a_daemon_nothing_is_told(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    with told(store, lambda: LIVE, every=0.0):
        pass
    assert not any(each.name == "telling" for each in threading.enumerate())
