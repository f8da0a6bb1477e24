from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import pytest

from fullsend_receiver.daemon.monitoring import Monitoring
from fullsend_receiver.events.emit import event_of
from fullsend_receiver.monitor.overview import Overview, ScrubOverview
from fullsend_receiver.store.errors import StoreMissing

if TYPE_CHECKING:
    from collections.abc import Iterator

OVERVIEW: Final = Overview(at=0.0, program="x", store="/s", free=1, size=2, min_free=0, scrub=ScrubOverview(every=0))


class Surveys:
    """A store that can be surveyed, or not."""

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.taken = 0
        self.closed = threading.Event()

    def take(self) -> Overview:
        self.taken += 1
        if self.fault is not None:
            raise self.fault
        return OVERVIEW

    def close(self) -> None:
        self.closed.set()


class Shown:
    """A consumer that works, or does not."""

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.seen: list[Overview] = []

    def show(self, overview: Overview) -> None:
        if self.fault is not None:
            raise self.fault
        self.seen.append(overview)


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as thread:
        yield thread


def test_each_overview_goes_to_each_consumer(thread: ThreadPoolExecutor) -> None:
    one, other = Shown(), Shown()
    monitoring = Monitoring(Surveys(), thread, [one.show, other.show])
    monitoring.look()
    monitoring.look()
    assert one.seen == other.seen == [OVERVIEW, OVERVIEW]


def test_a_consumer_that_fails_is_named_once_and_stops_no_other(
    thread: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bad, good = Shown(), Shown()
    monitoring = Monitoring(Surveys(), thread, [bad.show, good.show])
    bad.fault = OSError(28, "No space left on device")
    monitoring.look()
    monitoring.look()
    assert len(good.seen) == 2
    bad.fault = ZeroDivisionError("bug")
    monitoring.look()
    bad.fault = None
    monitoring.look()
    assert [record.getMessage() for record in caplog.records] == [
        "Shown: [Errno 28] No space left on device",
        "Shown: ZeroDivisionError: bug",
        "Shown: works again",
    ]
    assert len(bad.seen) == 1


def test_a_store_that_cannot_be_surveyed_is_named_once(
    thread: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    surveys, shown = Surveys(), Shown()
    monitoring = Monitoring(surveys, thread, [shown.show])
    surveys.fault = StoreMissing("/srv: no store here")
    monitoring.look()
    monitoring.look()
    surveys.fault = None
    monitoring.look()
    assert [record.getMessage() for record in caplog.records] == [
        "the store cannot be surveyed: /srv: no store here",
        "the store is surveyed again",
    ]
    assert len(shown.seen) == 1


async def test_it_looks_until_it_is_cancelled_and_then_writes_what_it_has_learnt(thread: ThreadPoolExecutor) -> None:
    surveys = Surveys()
    thrice = asyncio.Event()
    loop = asyncio.get_running_loop()

    def count(_overview: Overview) -> None:
        if surveys.taken == 3:
            loop.call_soon_threadsafe(thrice.set)

    task = asyncio.create_task(Monitoring(surveys, thread, [count]).run(every=0.0))
    await thrice.wait()
    assert not surveys.closed.is_set()
    task.cancel()
    await asyncio.wait([task])
    thread.shutdown()
    assert surveys.closed.is_set()


async def test_a_look_that_does_not_end_is_told_and_that_it_has_ended(
    thread: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    """The daemon answers, its disk does, too, and the file of a report is on another one, which does not."""
    goes_on = threading.Event()

    def hang(_overview: Overview) -> None:
        goes_on.wait()

    def said() -> list[str]:
        return [event.name for record in caplog.records if (event := event_of(record)) is not None]

    task = asyncio.create_task(Monitoring(Surveys(), thread, [hang]).run(every=1000.0, patience=0.0))
    try:
        async with asyncio.timeout(30):
            while not said():
                await asyncio.sleep(0)
            assert said() == ["daemon-silent"]
            goes_on.set()
            while len(said()) < 2:
                await asyncio.sleep(0)
        assert said() == ["daemon-silent", "daemon-answers"]
    finally:
        goes_on.set()
        task.cancel()
        await asyncio.wait([task])


def test_a_store_that_stays_unsurveyed_is_told_and_not_only_logged(thread: ThreadPoolExecutor) -> None:
    surveys = Surveys()
    told: list[str] = []
    monitoring = Monitoring(surveys, thread, [], told.append)
    surveys.fault = OSError(5, "Input/output error")
    monitoring.look()
    assert told == []  # a remount takes a moment
    for _ in range(5):
        monitoring.look()
    assert told
    assert all("cannot be surveyed: [Errno 5] Input/output error: " in each for each in told)
    told.clear()
    surveys.fault = None
    monitoring.look()
    surveys.fault = OSError(5, "Input/output error")
    monitoring.look()
    assert told == []
