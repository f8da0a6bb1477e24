"""Follows the event journal for one hook, and runs it for its events: in order, each at least once.

The place that a hook has reached is a document, hooks.HOOK.json, written after each run. A process that is killed
between the run and the document runs the hook again for that event. Each hook has its own place: one that fails does
not delay the others.

A hook that fails is run again, with growing pauses, for `retry-for`. Then its event is given up: the log and the event
`hook-failed` say so, and the next event is taken. Until the hook succeeds again, each event has one try: otherwise a
night's events would wait for hours behind each other.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from fullsend_hooks.commands import HookError, HookStopped, run_hook
from fullsend_protocol.shared.units import format_duration, printable
from fullsend_receiver.access.hook_settings import HookName, HookSettings
from fullsend_receiver.events.emit import emit
from fullsend_receiver.events.records import HookGaveUp
from fullsend_receiver.monitor.hook_events import hook_of
from fullsend_receiver.store.api import Store, update
from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store.event_journal import EventPlace

log: Final = logging.getLogger("fullsendd")

#: Seconds between two looks for new events.
LOOK_EVERY: Final = 1.0
#: Seconds until the second try; each pause is twice the last one, up to the longest.
_PAUSE_FIRST: Final = 5.0
_PAUSE_LONGEST: Final = 300.0
#: Seconds between two records of a place that was reached without a run.
_SAVE_EVERY: Final = 60.0
#: The document of a hook that is not configured any more.
_NO_PLACE: Final = b"{}\n"


class RunHook(Protocol):
    """Runs a hook. See `run_hook`."""

    def __call__(
        self,
        command: tuple[str, ...],
        facts: Mapping[str, object],
        *,
        time_limit: float,
        stopping: Callable[[], bool],
    ) -> None: ...


def payload(facts: Mapping[str, Any], hook: HookName, event_id: str) -> dict[str, Any]:
    """Return what a hook reads: the event, and `id` (no other event of this store has it), `hook` and `host`."""
    return {**facts, "text": str(facts.get("text", "")), "id": event_id, "hook": hook, "host": socket.gethostname()}


class HookFollower:
    """Follows the event journal for one hook."""

    def __init__(
        self,
        hook: HookName,
        store: Store,
        settings: Callable[[], HookSettings],
        stop: threading.Event,
        *,
        run: RunHook = run_hook,
        pause: float = _PAUSE_FIRST,
    ) -> None:
        """`settings`: returns the present ones, often; `stop`: ends it; `pause`: seconds until the second try."""
        self._hook: Final = hook
        self._store = store
        self._settings = settings
        self._stop = stop
        self._run = run
        self._pause = pause
        self._place: EventPlace | None = None  # None: not read yet
        self._recorded: EventPlace | None = None
        self._recorded_at = 0.0
        self._failing = False  # the last event was given up
        self._fault = ""

    def follow(self) -> None:
        """Run the hook for all events that come, until told to stop. Blocks. Errors of the disk are logged."""
        while not self._stop.is_set():
            try:
                more = self.step()
                self._fault = ""
            except (StoreError, OSError) as error:
                more = False
                self._complain(f"cannot read the event journal: {error}")
            if not more:
                self._stop.wait(LOOK_EVERY)

    def step(self) -> bool:
        """Take some of the events that wait. Returns: whether there were any. Raises: StoreError, OSError."""
        if self._settings().command(self._hook) is None:
            self._forget()
            return False
        self._store.check_mounted()
        begun = self._place if self._place is not None else self._begin()
        found = self._store.events.read(begun)
        if found.lost:
            log.error("%s: events are lost: they were deleted before the hook was run for them", self._hook)
        try:
            for place, facts in found.events:
                if hook_of(facts) == self._hook:
                    self._deliver(place, facts)
                    self._place = place
                    self._record()
        except HookStopped:
            return False
        self._place = found.end
        if self._place != self._recorded and time.monotonic() - self._recorded_at > _SAVE_EVERY:
            self._record()
        return found.end != begun

    def _deliver(self, place: EventPlace, facts: Mapping[str, Any]) -> None:
        """Run the hook for an event until it succeeds, or is given up. Raises: HookStopped."""
        began, pause, tries = time.monotonic(), self._pause, 0
        said = payload(facts, self._hook, place.id)
        while True:
            settings = self._settings()  # a person may have corrected it
            command = settings.command(self._hook)
            if command is None:
                return
            tries += 1
            try:
                self._run(command, said, time_limit=settings.time_limit, stopping=self._stop.is_set)
            except HookError as error:
                left = began + settings.retry_for - time.monotonic()
                if self._failing or left <= 0:
                    self._give_up(place, said, tries, str(error))
                    return
                log.warning("%s: %s; next try in %s", self._hook, error, format_duration(min(pause, left)))
                if self._stop.wait(min(pause, left)):
                    msg = "stopped between two tries"
                    raise HookStopped(msg) from None
                pause = min(2 * pause, _PAUSE_LONGEST)
            else:
                if self._failing:
                    log.info("%s: succeeds again", self._hook)
                self._failing = False
                return

    def _give_up(self, place: EventPlace, said: Mapping[str, Any], tries: int, why: str) -> None:
        self._failing = True
        what = printable(str(said["text"]))
        often = "1 try" if tries == 1 else f"{tries} tries"
        text = f"{self._hook}: given up after {often}: {why}; it was for: {what}"
        emit(HookGaveUp(text=text, failed_hook=self._hook, of=place.id, tries=tries, why=why), logging.ERROR)

    # --- the place

    @property
    def _document(self) -> str:
        return f"hooks.{self._hook}.json"

    def _begin(self) -> EventPlace:
        """Return the recorded place; the end of the journal, which is recorded, if the hook is new."""
        found = self._store.documents.get(self._document)
        try:
            said = json.loads(found.data) if found is not None else {}
            self._recorded = _place(int(said["segment"]), int(said["offset"]))
        except (ValueError, OverflowError, KeyError, TypeError):
            if found is not None and found.data != _NO_PLACE:
                log.error("%s: its place is lost: it begins at the journal's end", self._hook)  # noqa: TRY400
            self._place = self._store.events.end()
            self._record()
            return self._place
        return self._recorded

    def _record(self) -> None:
        """Record the place. On a full disk the hook continues, and a later process repeats what it has done since."""
        place = self._place
        if place is None:
            return
        data = json.dumps({"format": 1, "segment": place.segment, "offset": place.offset}).encode() + b"\n"
        try:
            update(self._store.documents, self._document, lambda _before: data)
        except OSError as error:
            self._complain(f"its place in the event journal cannot be recorded: {error}")
            return
        self._recorded, self._recorded_at = place, time.monotonic()

    def _forget(self) -> None:
        """There is no such hook: if there is one again, it begins with the events of that time."""
        self._place = self._recorded = None
        found = self._store.documents.get(self._document)
        if found is not None and found.data != _NO_PLACE:
            update(self._store.documents, self._document, lambda _before: _NO_PLACE)

    def _complain(self, fault: str) -> None:
        if fault != self._fault:
            log.warning("%s: %s", self._hook, fault)
        self._fault = fault


def _place(segment: int, offset: int) -> EventPlace:
    """Return a place. Raises: ValueError if there is no such one."""
    if min(segment, offset) < 0:
        msg = "it is negative"
        raise ValueError(msg)
    return EventPlace(segment, offset)
