from __future__ import annotations

import contextlib
import errno
import logging
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.receiver.running import wait_until

from fullsend_receiver.events.emit import emit
from fullsend_receiver.events.records import DaemonStarted, DaemonStopped
from fullsend_receiver.store.errors import StoreMissing
from fullsend_receiver.store.event_journal import EventJournal, EventPlace
from fullsend_receiver.store.event_recorder import EventRecorder, recording, recording_command
from fullsend_receiver.store.local import LocalStore

START = EventPlace(0, 0)


class Full(EventJournal):
    """A journal on a disk that is full until `room` is set. `tried`: an append has failed."""

    room = threading.Event()
    tried = threading.Event()

    def append(self, lines: Iterable[bytes]) -> None:  # type: ignore[explicit-override]  # typing.override is younger
        if not self.room.is_set():
            self.tried.set()
            raise OSError(errno.ENOSPC, "No space left on device")
        super().append(lines)


@dataclass
class Site:
    """A store as a recorder sees it."""

    events: EventJournal
    mounted: threading.Event = field(default_factory=threading.Event)

    def check_mounted(self) -> None:
        if not self.mounted.is_set():
            raise StoreMissing("the store is away")


def names(journal: EventJournal) -> list[str]:
    return [said["event"] for _place, said in journal.read(START).events]


@contextlib.contextmanager
def attached(recorder: EventRecorder) -> Iterator[None]:
    log = logging.getLogger("fullsendd")
    log.addHandler(recorder)
    try:
        yield
    finally:
        log.removeHandler(recorder)
        recorder.close()


def test_events_are_written_and_other_lines_are_not(store: LocalStore, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with recording(store):
        emit(DaemonStarted(text="listening", listen=":1", store="/x"))
        logging.getLogger("fullsendd").info("only a line")
        emit(DaemonStopped(text="stopped"), logging.WARNING)
    first, second = (said for _place, said in store.events.read(START).events)
    assert (first["event"], first["level"], first["listen"]) == ("started", "info", ":1")
    assert (second["event"], second["level"], second["text"]) == ("stopped", "warning", "stopped")
    emit(DaemonStopped(text="again"))
    assert names(store.events) == ["started", "stopped"]


def test_on_a_full_disk_events_wait_and_nobody_waits_for_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    journal = Full(tmp_path / "events")
    journal.room.clear()
    place = Site(journal)
    place.mounted.set()
    recorder = EventRecorder(place, most=5, again=0.01)
    with attached(recorder):
        for _ in range(8):
            emit(DaemonStopped(text="x"))
        wait_until(journal.tried.is_set, "a failed write")
        assert names(journal) == []
        journal.room.set()
        wait_until(lambda: "events-lost" in names(journal), "what waited is written")
    assert names(journal) == [*["stopped"] * 5, "events-lost"]
    assert journal.read(START).events[-1][1]["count"] == 3
    assert caplog.text.count("cannot be written to the event journal") == 1
    assert "No space left" in caplog.text


def test_while_the_store_is_away_nothing_is_written_in_its_place(tmp_path: Path) -> None:
    place = Site(EventJournal(tmp_path / "events"))
    recorder = EventRecorder(place, again=0.01)
    with attached(recorder):
        emit(DaemonStopped(text="x"), logging.ERROR)
        logging.getLogger("fullsendd").error("a line between")
        assert not place.events.folder.exists()
        place.mounted.set()
        wait_until(lambda: names(place.events) == ["stopped"], "it is written once the store is back")


def test_the_end_does_not_wait_for_a_disk_that_is_full(tmp_path: Path) -> None:
    journal = Full(tmp_path / "events")
    journal.room.clear()
    place = Site(journal)
    place.mounted.set()
    recorder = EventRecorder(place, again=1e6)
    with attached(recorder):
        emit(DaemonStopped(text="x"), logging.ERROR)
    assert not recorder._thread.is_alive()


def test_a_command_prints_warnings_as_before_and_no_events(
    store: LocalStore, capsys: pytest.CaptureFixture[str]
) -> None:
    log = logging.getLogger("fullsendd")
    before = log.level
    with recording_command(store):
        log.info("a detail")
        log.warning("a warning")
        emit(DaemonStopped(text="an event"), logging.ERROR)
    assert capsys.readouterr().err == "a warning\n"
    assert names(store.events) == ["stopped"]
    assert log.level == before
