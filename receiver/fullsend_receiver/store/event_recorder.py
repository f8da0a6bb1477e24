"""Writes the events of a process to the event journal, in a thread of its own.

A handler of the log: what `events.emit` says arrives here. Nobody waits for the disk, and nothing fails if it is full:
events wait in memory then, up to a limit, and are written once there is room. What a killed process has not written
yet is lost; the log has it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Final, Protocol

from fullsend_receiver.events.emit import event_of, level_name
from fullsend_receiver.events.records import Event, EventsLost, facts_of
from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store.event_journal import EventJournal

log: Final = logging.getLogger("fullsendd")

#: Events that wait in memory: some 4 MiB.
WAITING_MAX: Final = 10_000
#: Events that are written, and made durable, at once. Together they are shorter than a segment.
_BATCH: Final = 1000
#: Seconds after a failed write until the next one.
_AGAIN: Final = 10.0
#: Seconds that the end of a process waits for the disk.
_END_WITHIN: Final = 10.0
#: Seconds that a caller waits for the disk, who wants to know.
_SETTLE_WITHIN: Final = 10.0


class RecordingStore(Protocol):
    """What a recorder needs of a store."""

    @property
    def events(self) -> EventJournal: ...

    def check_mounted(self) -> None: ...


class EventRecorder(logging.Handler):
    """Takes events from the log, and writes them. `close` ends it."""

    def __init__(self, store: RecordingStore, *, most: int = WAITING_MAX, again: float = _AGAIN) -> None:
        """Starts the thread. `most`: events that wait at most; `again`: seconds until a failed write is repeated."""
        super().__init__()
        self._store = store
        self._most = most
        self._again = again
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._lost = 0
        self._closing = False
        self._fault = ""
        # It must not keep the process alive: a disk may never answer.
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:  # type: ignore[explicit-override]  # typing.override is younger than Python 3.11
        event = event_of(record)
        if event is not None:
            line = _line(event, record.created, level_name(record))
            with self._changed:
                if len(self._waiting) < self._most:
                    self._waiting.append(line)
                else:
                    self._lost += 1
                self._changed.notify_all()

    def settle(self, within: float) -> bool:
        """Wait until all events are durable. Blocks. `within`: seconds at most. Returns: whether they are."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, within)

    def close(self) -> None:  # type: ignore[explicit-override]  # as above
        """Write what waits, if the disk takes it soon, and end."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(_END_WITHIN)
        super().close()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closing:
                    self._changed.wait()
                batch = list(islice(self._waiting, _BATCH))
            if not batch:
                return
            try:
                self._store.check_mounted()
                self._store.events.append(batch)
            except (StoreError, OSError) as error:
                self._complain(str(error))
                if not self._wait():
                    return
                continue
            self._written(len(batch))

    def _written(self, count: int) -> None:
        if self._fault:
            log.info("events are written to the event journal again")
            self._fault = ""
        with self._changed:
            for _ in range(count):
                self._waiting.popleft()
            lost, self._lost = self._lost, 0
            if lost:
                text = f"{lost} events could not be written to the event journal, and are lost"
                self._waiting.append(_line(EventsLost(text=text, count=lost), time.time(), "error"))
            self._changed.notify_all()

    def _wait(self) -> bool:
        """Wait until the next try. Returns: whether there is one; at the end there is none."""
        with self._changed:
            return not self._changed.wait_for(lambda: self._closing, self._again)

    def _complain(self, fault: str) -> None:
        if fault != self._fault:
            log.warning("events cannot be written to the event journal, and wait: %s", fault)
        self._fault = fault


def _line(event: Event, at: float, level: str) -> bytes:
    return json.dumps(facts_of(event, at=at, level=level)).encode("ascii") + b"\n"


def settle_events(within: float = _SETTLE_WITHIN) -> bool:
    """Wait until all events of this process are durable. Blocks. `within`: seconds at most. Returns: whether they are;
    without a recorder nobody wants them, so they are.
    """
    return all(each.settle(within) for each in log.handlers if isinstance(each, EventRecorder))


@contextlib.contextmanager
def recording(store: RecordingStore) -> Iterator[None]:
    """Write the events of this process to the event journal while the context lasts."""
    recorder = EventRecorder(store)
    log.addHandler(recorder)
    try:
        yield
    finally:
        log.removeHandler(recorder)
        recorder.close()


@contextlib.contextmanager
def recording_command(store: RecordingStore) -> Iterator[None]:
    """The same, for a command: its log has no handler otherwise. Warnings are printed to stderr, as they are then."""
    before = log.level
    printing = logging.StreamHandler()
    printing.setLevel(logging.WARNING)
    printing.addFilter(lambda record: event_of(record) is None)  # of these the command says more itself
    log.setLevel(logging.INFO)
    log.addHandler(printing)
    try:
        with recording(store):
            yield
    finally:
        log.setLevel(before)
        log.removeHandler(printing)
