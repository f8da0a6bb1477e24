"""What is being read, how fast, and what is left: by a clock that the test sets."""

from __future__ import annotations

from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from fullsend_protocol.shared.stages import StageWaits
from fullsend_receiver.maintenance.progress import ReadPlace, ReadProgress, WorkLeft
from fullsend_receiver.maintenance.schedule import Survey

if TYPE_CHECKING:
    from fullsend_receiver.maintenance.scrub import StreamCheck

FILE = "alpha/tank/@now.zst"


class Hand:
    """A clock."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def check(read: int = 0) -> StreamCheck:
    reading, waits = SimpleNamespace(stored_bytes=read), StageWaits("disk", clock=Hand())
    return cast("StreamCheck", SimpleNamespace(file=PurePosixPath(FILE), reading=reading, waits=waits))


def test_the_place_is_that_of_the_check_that_runs() -> None:
    progress, running = ReadProgress(), check(30)
    assert progress.place is None
    with progress.reading(running, 90):
        running.reading.stored_bytes = 60
        assert progress.place == ReadPlace(FILE, 60, 90, None)
        running.reading.stored_bytes = 100  # the file is longer than its manifest says
        assert progress.place == ReadPlace(FILE, 90, 90, None)
    assert progress.place is None
    with progress.reading(running, 200, "alpha"):
        assert progress.place == ReadPlace(FILE, 100, 200, "alpha")


def test_what_top_is_told_of_a_check_counts_from_its_beginning() -> None:
    hand = Hand()
    progress, running = ReadProgress(hand), check(30)
    running.waits._clock = hand
    assert progress.live is None
    with progress.reading(running, 90, what="tank@now"):
        hand.now += 2
        running.waits.head("hash")
        hand.now += 3
        running.reading.stored_bytes = 60
        found = progress.live
        assert found is not None
        assert (found.activity, found.peer, found.what) == ("scrub", "alpha", "tank@now")
        assert (found.raw_bytes, found.before, found.size, found.seconds) == (60, 30, 90, 5.0)
        assert found.waited == {"disk": 2.0, "hash": 3.0}
    assert progress.live is None
    hand.now += 1000  # nothing is read
    with progress.reading(running, 90, "alpha"):
        hand.now += 1
        second = progress.live
        assert second is not None
        assert (second.activity, second.what, second.before) == ("verify", FILE, 60)
        assert {stage: seconds for stage, seconds in second.waited.items() if seconds} == {"disk": 1.0}
        assert second.id != found.id


def test_a_check_that_is_interrupted_is_none() -> None:
    progress = ReadProgress()
    with pytest.raises(KeyError), progress.reading(check(), 90):
        raise KeyError
    assert progress.place is None


def test_all_bytes_that_are_read_are_counted_once() -> None:
    progress, running = ReadProgress(), check(1000)  # an earlier process has read so much
    progress.count()
    assert progress.read_bytes == 0
    with progress.reading(running, 5000):
        running.reading.stored_bytes = 1300
        progress.count()
        progress.count()
        assert progress.read_bytes == 300
        running.reading.stored_bytes = 200  # a second pass
        progress.count()
        assert progress.read_bytes == 500
        running.reading.stored_bytes = 5000
    assert progress.read_bytes == 5300
    with progress.reading(check(), 90, "alpha"):
        pass
    assert progress.read_bytes == 5300


def test_the_rate_is_that_of_the_daemons_own_checks() -> None:
    hand = Hand()
    progress, running = ReadProgress(hand), check(1000)  # an earlier process has read so much
    assert progress.rate is None
    with progress.reading(running, 5000):
        hand.now += 0.5
        running.reading.stored_bytes += 300
        assert progress.rate is None, "half a second tells nothing"
        hand.now += 2.5
        assert progress.rate == 100.0
    hand.now += 1000.0  # nothing is read
    assert progress.rate == 100.0
    with progress.reading(running, 5000, "alpha"):  # which goes as fast as it can
        hand.now += 1.0
        running.reading.stored_bytes += 3000
        assert progress.rate == 100.0
    assert progress.rate == 100.0
    with progress.reading(running, 5000):
        running.reading.stored_bytes = 0  # it begins again, for a second look
        hand.now += 3.0
        assert progress.rate == 50.0


def test_what_was_read_long_ago_counts_less_and_less() -> None:
    hand = Hand()
    progress = ReadProgress(hand)
    for size in (10_000, 0):
        running = check()
        with progress.reading(running, 10_000):
            running.reading.stored_bytes = size
            hand.now += 1000.0
    assert progress.rate == 5000.0 / 1500.0


def test_what_is_left_is_what_was_due_less_what_was_checked() -> None:
    standing = Survey(now=1000.0, every=10.0, streams=5, stored_bytes=500, due_streams=2, due_bytes=150)
    left = WorkLeft.of(standing)
    assert left == WorkLeft(5, 500, 2, 150, None)
    assert left.less(1, 100) == WorkLeft(5, 500, 1, 50, None)
    assert left.less(3, 200) == WorkLeft(5, 500, 0, 0, None)
