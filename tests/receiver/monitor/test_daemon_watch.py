from __future__ import annotations

import contextlib
import logging
import resource
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.receiver.buckets import MemoryBucket
from tests.receiver.helpers import make_store

from fullsend_receiver.events.emit import event_of
from fullsend_receiver.events.records import Event
from fullsend_receiver.monitor.daemon_watch import DaemonWatch
from fullsend_receiver.monitor.outage import Outage
from fullsend_receiver.store.api import DiskSpace
from fullsend_receiver.store.local import LocalStore, open_store
from fullsend_receiver.store.marker import read_id
from fullsend_receiver.store_s3.stores import BucketStore


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """An empty store that knows its id."""
    root = make_store(tmp_path).root
    return open_store(root, read_id(root))


@dataclass
class Watched:
    """A watch whose time the test sets."""

    store: LocalStore | BucketStore
    answers: bool = True
    now: float = 0.0
    told: list[Event] = field(default_factory=list)
    tries: list[tuple[Event, float]] = field(default_factory=list)
    reached: bool = True
    retry_for: float = 3600.0

    def __post_init__(self) -> None:
        self.outage = Outage(self.tell, retry_for=lambda: self.retry_for, clock=lambda: self.now, patience=600)
        self.watch = DaemonWatch(self.store, self.outage, lambda: self.answers, clock=lambda: self.now, patience=600)

    def tell(self, event: Event, at: float) -> bool:
        self.tries.append((event, at))
        if self.reached:
            self.told.append(event)
        return self.reached

    def look(self, now: float) -> None:
        self.now = now
        self.watch.look()


def names(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [event.name for record in caplog.records if (event := event_of(record)) is not None]


def test_a_daemon_that_is_silent_for_long_is_said_once_and_that_it_is_back(
    store: LocalStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    watched = Watched(store)
    watched.look(0)
    watched.answers = False
    watched.look(60)
    watched.look(659)
    assert names(caplog) == []
    watched.look(660)
    watched.look(900)
    assert names(caplog) == ["daemon-silent"]
    watched.answers = True
    watched.look(960)
    watched.look(1020)
    assert names(caplog) == ["daemon-silent", "daemon-answers"]
    assert watched.told == []  # the event journal has it


def test_a_restart_is_nothing_to_tell(store: LocalStore, caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched(store, answers=False)
    watched.look(0)
    watched.answers = True
    watched.look(500)
    watched.answers = False
    watched.look(560)
    watched.look(1100)
    assert names(caplog) == []


def test_a_store_that_is_away_is_told_past_the_journal(store: LocalStore, caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched(store)
    away = store.marker.rename(store.root / "away")
    watched.look(0)
    watched.look(599)
    assert watched.told == []
    watched.look(600)
    watched.look(2000)
    (event,) = watched.told
    assert event.name == "store-away"
    assert "cannot be written to" in event.text
    away.rename(store.marker)
    watched.look(2060)
    assert [each.name for each in watched.told] == ["store-away", "store-back"]
    assert names(caplog) == []


def away_for(watched: Watched, store: LocalStore, *times: float) -> Path:
    """Take the store away, and look at these times. Returns: where its marker is."""
    away = store.marker.rename(store.root / "away")
    for now in (0.0, *times):
        watched.look(now)
    return away


def test_a_hook_that_fails_is_run_again_for_the_same_event_until_it_succeeds(store: LocalStore) -> None:
    """What took the store away may have taken the mail server, too."""
    watched = Watched(store, reached=False)
    away = away_for(watched, store, 600, 660)
    assert len(watched.tries) == 2
    assert watched.tries[0] == watched.tries[1]  # so its id is the same
    watched.reached = True
    for now in (720, 780, 840):
        watched.look(now)
    assert [each.name for each in watched.told] == ["store-away"]
    assert len(watched.tries) == 3
    watched.reached = False
    away.rename(store.marker)
    watched.look(900)
    watched.reached = True
    for now in (960, 1020):
        watched.look(now)
    assert [each.name for each in watched.told] == ["store-away", "store-back"]


def test_a_hook_that_never_succeeds_is_given_up(store: LocalStore, caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched(store, reached=False, retry_for=120)
    away = away_for(watched, store, *range(600, 1200, 60))
    assert len(watched.tries) == 3
    assert "on-failure: given up, and nobody was told: for 0:10:00 the store" in caplog.text
    watched.reached = True
    away.rename(store.marker)
    watched.look(1200)
    watched.look(1260)
    assert [each.name for each in watched.told] == ["store-back"]


def test_a_store_that_goes_again_before_anybody_was_told_that_it_is_back_is_told_again(store: LocalStore) -> None:
    watched = Watched(store)
    away = away_for(watched, store, 600)
    away.rename(store.marker)
    watched.reached = False
    watched.look(660)
    store.marker.rename(away)
    watched.look(720)
    watched.reached = True
    watched.look(1320)
    assert [each.name for each in watched.told] == ["store-away", "store-away"]


def test_a_hang_is_told_in_as_many_tries_as_it_takes(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(store, reached=False)

    def hang(_store: LocalStore) -> None:
        for watched.now in (600, 660):
            watched.outage.look_for_hang()
        watched.reached = True
        for watched.now in (720, 780):
            watched.outage.look_for_hang()

    monkeypatch.setattr(LocalStore, "check_mounted", hang)
    watched.look(0)
    assert len(watched.tries) == 4
    assert [each.name for each in watched.told] == ["store-away", "store-back"]


def test_a_full_disk_that_takes_no_event_is_told_past_the_journal(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(store)
    free = [4096]
    monkeypatch.setattr(LocalStore, "space", lambda _store: DiskSpace(free[0], 1 << 40))
    watched.look(0)
    watched.look(600)
    (event,) = watched.told
    assert (event.name, "is full" in event.text) == ("store-away", True)
    free[0] = 1 << 30
    watched.look(660)
    assert [each.name for each in watched.told] == ["store-away", "store-back"]


@contextlib.contextmanager
def no_byte() -> Iterator[None]:
    """Let this process write not a byte into any file, as a quota does that statvfs does not show. Names are free."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_quota_that_leaves_no_room_for_an_event_is_told_past_the_journal(store: LocalStore) -> None:
    watched = Watched(store)
    watched.look(0)
    assert list(store.event_folder.iterdir()) == []
    with no_byte():
        watched.look(60)
        watched.look(660)
    (event,) = watched.told
    assert event.name == "store-away"
    assert f"no event can be written, so no other hook is run: {store.event_folder}: is full (File too" in event.text
    watched.look(720)
    assert [each.name for each in watched.told] == ["store-away", "store-back"]


def test_of_a_store_in_a_bucket_the_journal_on_this_host_is_tried(tmp_path: Path) -> None:
    """The bucket has room without end, and tells nothing of the disk with the events."""
    bucket_store = BucketStore(MemoryBucket(), tmp_path)
    watched = Watched(bucket_store)
    with no_byte():
        watched.look(0)
        watched.look(600)
    (event,) = watched.told
    assert f"{tmp_path}/events: is full" in event.text


def test_a_disk_that_never_answers_is_told_by_another_thread(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(store)
    hanging, answer = threading.Event(), threading.Event()

    def hang(_store: LocalStore) -> None:
        hanging.set()
        answer.wait()

    monkeypatch.setattr(LocalStore, "check_mounted", hang)
    thread = threading.Thread(target=watched.look, args=(0,))
    thread.start()
    hanging.wait()
    for now in (599, 600, 900):
        watched.now = now
        watched.outage.look_for_hang()
    (event,) = watched.told
    assert (event.name, "does not answer" in event.text) == ("store-away", True)
    answer.set()
    thread.join()
    assert [each.name for each in watched.told] == ["store-away", "store-back"]
    watched.outage.look_for_hang()
    assert len(watched.told) == 2
