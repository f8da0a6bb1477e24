"""What the daemon counts."""

from __future__ import annotations

import contextlib
import errno

import pytest

from fullsend_protocol.shared.errors import ConnectionLost, ErrorCode, PeerError, StreamError, Unreachable
from fullsend_protocol.shared.stages import StageWaits, TransferCount
from fullsend_receiver.arrival.counters import FAILURES, Counters
from fullsend_receiver.catalogue.streams import NoBase


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unreachable("silent"), "lost"),
        (ConnectionLost("cut"), "lost"),
        (PeerError(ErrorCode.STREAM, "zfs send has failed"), "stopped"),
        (OSError(errno.ENOSPC, "full"), "space"),
        (OSError(errno.EIO, "error"), "store"),
        (NoBase("none"), "base"),
        (StreamError("cut"), "stream"),
        (KeyError("a bug"), "internal"),
    ],
)
def test_a_push_fails_by_one_code(error: Exception, code: str) -> None:
    counters = Counters()
    counters.push_failed(error)
    assert {name: count for name, count in counters.push_failures.items() if count} == {code: 1}


def test_all_codes_are_there_from_the_start() -> None:
    """A counter that begins with its first failure shows no increase, and no alarm."""
    assert tuple(Counters().push_failures) == FAILURES
    assert set(ErrorCode) < set(FAILURES)


class Waits(StageWaits):
    """Has waited for so long."""

    def __init__(self, **seconds: float) -> None:
        super().__init__("wire")
        self.said = seconds

    def seconds(self) -> dict[str, float]:  # type: ignore[explicit-override]
        return self.said


def test_waits_add_up_while_a_stream_arrives_and_afterwards() -> None:
    counters = Counters()
    first, second = Waits(wire=2.0, disk=1.0), Waits(wire=1.0)
    with contextlib.suppress(KeyError), counters.receiving(TransferCount(0.0, None, first)):
        with counters.receiving(TransferCount(0.0, None, second)):
            assert counters.waited() == {"wire": 3.0, "decode": 0.0, "hash": 0.0, "disk": 1.0}
        assert counters.waited()["wire"] == 3.0
        first.said["wire"] = 7.0
        assert counters.waited()["wire"] == 8.0
        raise KeyError
    assert counters.waited() == {"wire": 8.0, "decode": 0.0, "hash": 0.0, "disk": 1.0}
