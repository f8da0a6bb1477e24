"""What is made of a pack: all of it, or nothing."""

from __future__ import annotations

import logging
from typing import Final

import pytest

from fullsend_protocol.shared.errors import OutputFailed, RemoteProtocolError
from fullsend_protocol.wire.messages import Files
from fullsend_sender.restore.unpack import Unpacking

REMOVED: Final = "out: what was written there is not whole, and is removed"


class Making:
    """Takes a pack, which ends with `end`, and what is made of it."""

    def __init__(self) -> None:
        self.data = b""
        self.done: list[str] = []

    @property
    def ended(self) -> bool:
        return self.data.endswith(b"end")

    def feed(self, data: bytes) -> None:
        self.data += data

    def publish(self) -> None:
        self.done.append("published")

    def discard(self) -> None:
        self.done.append("discarded")


@pytest.mark.parametrize(
    ("data", "code", "may_lack", "done", "said"),
    [
        (b"end", 0, True, "published", []),
        (b"end", 0, False, "published", []),
        (b"end", 1, True, "published", ["out is not whole: it lacks what the lines above name"]),
        (b"end", 1, False, "discarded", [REMOVED]),
        (b"end", 2, True, "discarded", [REMOVED]),
        (b"half", 1, True, "discarded", [REMOVED]),
        (b"", 1, True, "discarded", []),
    ],
)
def test_what_counts(  # noqa: PLR0917 - a table
    data: bytes, code: int, may_lack: bool, done: str, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    making = Making()
    with caplog.at_level(logging.ERROR), Unpacking(making, making, "out") as unpacking:
        if data:
            unpacking.write(data)
        unpacking.finish()
        unpacking.stop()
        unpacking.close()
        unpacking.settle(Files(code=code, said=[]), may_lack=may_lack)
    assert making.done == [done]
    assert caplog.messages == said


def test_a_success_without_the_end_is_none() -> None:
    making = Making()
    with Unpacking(making, making, "o") as unpacking:
        unpacking.write(b"half")
        with pytest.raises(RemoteProtocolError, match="the end is not there"):
            unpacking.settle(Files(code=0, said=[]))
    assert making.done == ["discarded"]


def test_an_error_discards_once() -> None:
    making = Making()
    with pytest.raises(KeyboardInterrupt), Unpacking(making, making, "out"):
        raise KeyboardInterrupt
    assert making.done == ["discarded"]


def test_what_could_not_be_published_is_not_discarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is proven, and its error says where it is."""
    making = Making()

    def fail() -> None:
        raise OutputFailed("the files are elsewhere")

    monkeypatch.setattr(making, "publish", fail)
    with Unpacking(making, making, "out") as unpacking:
        unpacking.write(b"end")
        with pytest.raises(OutputFailed):
            unpacking.settle(Files(code=0, said=[]))
    assert making.done == []
