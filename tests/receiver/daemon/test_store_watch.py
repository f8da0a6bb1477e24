from __future__ import annotations

import errno
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from fullsend_protocol.shared.settings import SizeOrShare
from fullsend_receiver.arrival.bounds import Fill
from fullsend_receiver.arrival.free_space import Room
from fullsend_receiver.daemon.store_watch import FillWarnings, StoreWatch
from fullsend_receiver.store.api import DiskSpace
from fullsend_receiver.store.errors import StoreMissing

if TYPE_CHECKING:
    from collections.abc import Iterator


class Disk:
    """A store whose disk comes and goes."""

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.read_only = False
        self.silent = False  # it writes no more, and only a write shows that
        self.free = 100

    def check_mounted(self) -> None:
        if self.fault is not None:
            raise self.fault

    def is_read_only(self, *, by_writing: bool = False) -> bool:
        return self.read_only or (by_writing and self.silent)

    async def space(self) -> DiskSpace:
        self.check_mounted()
        return DiskSpace(self.free, 100)


class Opened:
    """What a daemon has open in a store."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.ready = True

    async def release(self) -> None:
        self.calls.append("release")

    async def reopen(self, *, writable: bool) -> bool:
        self.calls.append(f"reopen {writable}")
        return self.ready


class Watched:
    def __init__(self, threads: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture) -> None:
        self.disk, self.opened = Disk(), Opened()
        room = Room(SizeOrShare(0), self.disk.space)
        self.watch = StoreWatch(self.disk, room, 0.85, threads, self.opened)  # type: ignore[arg-type]
        self._caplog = caplog

    async def look(self) -> list[str]:
        """Look. Returns: what is logged for it."""
        self._caplog.clear()
        await self.watch.look()
        return [record.getMessage() for record in self._caplog.records]


@pytest.fixture
def watched(caplog: pytest.LogCaptureFixture) -> Iterator[Watched]:
    caplog.set_level(logging.INFO)
    with ThreadPoolExecutor(1) as threads:
        yield Watched(threads, caplog)


async def test_a_disk_that_is_well_is_not_mentioned(watched: Watched) -> None:
    assert await watched.look() == []
    assert watched.opened.calls == []


async def test_a_disk_that_goes_is_released_and_one_that_comes_back_is_opened_again(watched: Watched) -> None:
    watched.disk.fault = StoreMissing("/srv: no store here")
    assert await watched.look() == ["/srv: no store here; nothing is served until it is back"]
    assert await watched.look() == []  # once
    watched.disk.fault = None
    watched.opened.ready = False
    assert await watched.look() == []  # not yet
    watched.opened.ready = True
    assert await watched.look() == ["the store's disk is back, and can be written to"]
    assert await watched.look() == []
    assert watched.opened.calls == ["release", "reopen True", "reopen True"]


async def test_a_disk_that_becomes_read_only_stays_open(watched: Watched) -> None:
    watched.disk.read_only = True
    assert await watched.look() == [
        "the store's disk is mounted read-only: remount it; until then the store can be read, and pushes are refused"
    ]
    watched.disk.fault = OSError(errno.EIO, os.strerror(errno.EIO), "/srv/.fullsend")
    (said,) = await watched.look()
    assert said.startswith("the store's disk fails (Input/output error, /srv/.fullsend): ")
    watched.disk.fault = None
    assert len(await watched.look()) == 1
    watched.disk.read_only = False
    assert await watched.look() == ["the store's disk is back, and can be written to"]
    assert watched.opened.calls == ["reopen False", "release", "reopen False", "reopen True"]


async def test_a_disk_that_writes_no_more_and_does_not_say_so_is_found_out_after_a_write(watched: Watched) -> None:
    watched.disk.silent = True
    assert await watched.look() == []
    watched.watch.suspect_read_only()
    assert len(await watched.look()) == 1
    assert await watched.look() == []
    watched.disk.silent = False
    assert await watched.look() == ["the store's disk is back, and can be written to"]
    watched.disk.silent = True
    assert await watched.look() == []  # nobody writes without need


async def test_how_full_it_is_is_looked_at_where_that_is_possible(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    watched.disk.free = 10
    watched.disk.fault = StoreMissing("/srv: no store here")
    await watched.watch.look_at_fills()
    assert caplog.messages == []
    watched.disk.fault = None
    await watched.watch.look_at_fills()
    assert caplog.messages == [
        "the store's disk: 90% used (90 B of 100 B): free space soon, or pushes will be refused (warn-at)"
    ]


def test_a_warning_comes_once_until_less_is_used(caplog: pytest.LogCaptureFixture) -> None:
    warnings = FillWarnings(0.85)
    caplog.set_level(logging.INFO)
    said = []
    for used in (85, 86, 99, 85, 84, 85, 86):
        caplog.clear()
        warnings.note([Fill("the disk", used, 100), Fill("the quota of alpha", 0, 100)])
        said.append([record.levelname for record in caplog.records])
    assert said == [[], ["WARNING"], [], [], ["INFO"], [], ["WARNING"]]


def test_a_warning_that_begins_elsewhere_from_now_on(caplog: pytest.LogCaptureFixture) -> None:
    warnings = FillWarnings(0.85)
    disk, quota = Fill("the disk", 80, 100), Fill("the quota of alpha", 90, 100)
    warnings.note([disk, quota])
    assert [each.partition(":")[0] for each in caplog.messages] == ["the quota of alpha"]
    warnings.share = 0.7
    warnings.note([disk, quota])
    assert [each.partition(":")[0] for each in caplog.messages] == ["the quota of alpha", "the disk"]


def test_a_quota_that_was_gone_is_warned_of_again(caplog: pytest.LogCaptureFixture) -> None:
    warnings = FillWarnings(0.85)
    quota = Fill("the quota of alpha", 90, 100)
    for fills in ([quota], [], [quota]):
        warnings.note(fills)
    assert len(caplog.messages) == 2
