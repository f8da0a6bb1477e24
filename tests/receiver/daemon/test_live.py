from __future__ import annotations

import os

from fullsend_protocol.shared.stages import TransferCount
from fullsend_protocol.wire.live import LiveTransfer
from fullsend_receiver.daemon.live import LiveTransfers


def test_a_transfer_is_listed_while_it_runs() -> None:
    live = LiveTransfers(lambda: 12.0)
    count = TransferCount(10.0, 9)
    assert live.all() == []
    with live.running("push", "alpha", "tank/a@1", count), live.running("restore", "beta", "x@1", TransferCount(11.0)):
        count.add(5, 3)
        first, second = live.all()
        assert (first.activity, first.peer, first.what, first.raw_bytes, first.seconds) == (
            *("push", "alpha", "tank/a@1", 5, 2.0),
        )
        assert first.id == f"{os.getpid()}.1"
        assert second.id == f"{os.getpid()}.2"
    assert live.all() == []


def test_what_a_command_tells_counts_until_it_tells_something_else_or_leaves() -> None:
    live = LiveTransfers(lambda: 12.0)
    told = LiveTransfer.of("9.1", "merge", "alpha", "tank/a@1", TransferCount(0.0), 1.0)
    one, other = object(), object()
    live.tell(one, told)
    live.tell(other, told.model_copy(update={"id": "9.2"}))
    live.tell(one, told.model_copy(update={"raw_bytes": 7}))
    assert [(each.id, each.raw_bytes) for each in live.all()] == [("9.1", 7), ("9.2", 0)]
    live.tell(one, None)
    live.tell(one, None)
    assert [each.id for each in live.all()] == ["9.2"]
