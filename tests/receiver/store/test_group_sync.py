from __future__ import annotations

import errno
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from fullsend_receiver.store.group_sync import GroupSync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE: Final = Path("/store/.partial")
ELSEWHERE: Final = Path("/store/alpha")
WITHIN: Final = 30.0


class SlowDisk:
    """Syncs that run until the test lets them end. `seen`: for each, how much had been written when it began."""

    def __init__(self) -> None:
        self.written = 0
        self.seen: list[int] = []
        self.began = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)
        self.fault: Callable[[], None] = lambda: None

    def sync(self, path: Path) -> None:
        assert path == HERE
        self.seen.append(self.written)
        self.began.release()
        assert self.may_end.acquire(timeout=WITHIN)
        self.fault()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as made:
        yield made


class TellingLock:
    """A lock that tells those who wait for it when it was held."""

    def __init__(self) -> None:
        self.condition = threading.Condition()

    def __enter__(self) -> None:
        self.condition.acquire()

    def __exit__(self, *_error: object) -> None:
        self.condition.notify_all()
        self.condition.release()


def watched(sync: Callable[[Path], None]) -> tuple[GroupSync, Callable[[int], None]]:
    """Returns: the object under test, and a function that waits until so many threads sync HERE, or wait for it."""
    group, lock = GroupSync(sync), TellingLock()
    group._lock = lock  # type: ignore[assignment]

    def wait_until_asked(users: int) -> None:
        def asked() -> bool:
            shared = group._paths.get(HERE)
            return shared is not None and shared.users == users

        with lock.condition:
            assert lock.condition.wait_for(asked, WITHIN)

    return group, wait_until_asked


def test_threads_that_ask_while_a_sync_runs_share_the_next_one(pool: ThreadPoolExecutor) -> None:
    disk = SlowDisk()
    group, wait_until_asked = watched(disk.sync)
    first = pool.submit(group.sync, HERE)
    assert disk.began.acquire(timeout=WITHIN)
    disk.written = 1
    others = [pool.submit(group.sync, HERE) for _ in range(10)]
    wait_until_asked(11)
    disk.may_end.release()
    first.result(WITHIN)
    assert disk.began.acquire(timeout=WITHIN)
    assert not any(each.done() for each in others)  # the one that ran when they asked does not serve them
    disk.may_end.release()
    for each in others:
        each.result(WITHIN)
    assert disk.seen == [0, 1]


def test_request_that_comes_during_the_shared_sync_gets_another_one(pool: ThreadPoolExecutor) -> None:
    disk = SlowDisk()
    group, wait_until_asked = watched(disk.sync)
    asked: list[Future[None]] = []
    for number in range(3):
        disk.written = number
        asked.append(pool.submit(group.sync, HERE))
        if number:
            wait_until_asked(2)
            disk.may_end.release()
            asked[number - 1].result(WITHIN)
        assert disk.began.acquire(timeout=WITHIN)
    disk.may_end.release()
    asked[-1].result(WITHIN)
    assert disk.seen == [0, 1, 2]


def test_error_reaches_all_that_were_served_and_no_other(pool: ThreadPoolExecutor) -> None:
    disk = SlowDisk()
    group, wait_until_asked = watched(disk.sync)

    def fail() -> None:
        if len(disk.seen) == 2:
            raise OSError(errno.EIO, "Input/output error", str(HERE))

    disk.fault = fail
    first = pool.submit(group.sync, HERE)
    assert disk.began.acquire(timeout=WITHIN)
    others = [pool.submit(group.sync, HERE) for _ in range(5)]
    wait_until_asked(6)
    disk.may_end.release(2)
    first.result(WITHIN)
    errors = [each.exception(WITHIN) for each in others]
    assert [(type(each), getattr(each, "errno", 0), str(each)) for each in errors] == 5 * [
        (OSError, errno.EIO, f"[Errno 5] Input/output error: '{HERE}'")
    ]
    assert len({id(each) for each in errors}) == 5
    disk.may_end.release()
    group.sync(HERE)  # the next one is tried again
    assert len(disk.seen) == 3


def test_waiting_threads_sync_themselves_if_the_one_that_leads_is_interrupted(pool: ThreadPoolExecutor) -> None:
    disk = SlowDisk()
    group, wait_until_asked = watched(disk.sync)

    def interrupt() -> None:
        if len(disk.seen) == 2:
            raise KeyboardInterrupt

    disk.fault = interrupt
    first = pool.submit(group.sync, HERE)
    assert disk.began.acquire(timeout=WITHIN)
    others = [pool.submit(group.sync, HERE) for _ in range(4)]
    wait_until_asked(5)
    disk.may_end.release(9)
    first.result(WITHIN)
    ended = [each.exception(WITHIN) for each in others]
    assert sorted(type(each).__name__ for each in ended) == ["KeyboardInterrupt", *3 * ["NoneType"]]
    assert len(disk.seen) > 2


def test_paths_do_not_wait_for_each_other_and_nothing_is_kept(pool: ThreadPoolExecutor) -> None:
    disk = SlowDisk()
    synced: list[Path] = []

    def sync(path: Path) -> None:
        if path == HERE:
            disk.sync(path)
        synced.append(path)

    group = GroupSync(sync)
    slow = pool.submit(group.sync, HERE)
    assert disk.began.acquire(timeout=WITHIN)
    group.sync(ELSEWHERE)
    assert synced == [ELSEWHERE]
    disk.may_end.release()
    slow.result(WITHIN)
    assert synced == [ELSEWHERE, HERE]
    assert not group._paths


def test_every_request_of_many_threads_is_served_by_a_sync_that_began_after_it(pool: ThreadPoolExecutor) -> None:
    lock = threading.Lock()
    written = durable = syncs = 0

    def sync(_path: Path) -> None:
        nonlocal durable, syncs
        with lock:
            seen = written
            syncs += 1
        durable = max(durable, seen)

    group = GroupSync(sync)
    ready = threading.Barrier(16)

    def work() -> bool:
        nonlocal written
        good = True
        for _ in range(100):
            ready.wait(WITHIN)
            with lock:
                written += 1
                mine = written
            group.sync(HERE)
            good = good and durable >= mine
        return good

    working = [pool.submit(work) for _ in range(16)]
    assert all(each.result(WITHIN) for each in working)
    assert syncs <= written == 1600
