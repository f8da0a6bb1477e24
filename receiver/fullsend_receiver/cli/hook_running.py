"""The threads of `fullsendd hooks`: one a hook follows the event journal, and two watch the daemon and the disk.

A store that is away when the process starts is waited for: this process alone tells a person that it does not come.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Final

from fullsend_hooks.commands import HookError, HookStopped, run_hook
from fullsend_protocol.shared.errors import FullsendError, PeerError, RemoteProtocolError
from fullsend_protocol.shared.units import format_time
from fullsend_protocol.wire.local import ScrubProgress, ScrubWanted
from fullsend_receiver.access import config
from fullsend_receiver.access.config import ReceiverSettings
from fullsend_receiver.access.hook_settings import HOOK_NAMES, HookName, HookSettings
from fullsend_receiver.cli import asking
from fullsend_receiver.events.records import PROGRAM, VERSION, Event, facts_of
from fullsend_receiver.monitor.daemon_watch import EVERY, DaemonWatch
from fullsend_receiver.monitor.hook_follower import HookFollower, payload
from fullsend_receiver.monitor.outage import PATIENCE, Away, Outage
from fullsend_receiver.store.api import Store
from fullsend_receiver.store.durable import signature
from fullsend_receiver.store.errors import StoreError, disk_error

log: Final = logging.getLogger("fullsendd")

#: Seconds that hooks have to end after SIGTERM to this process: more than it takes to kill their processes.
_END_WITHIN: Final = 15.0
#: Seconds between two looks whether a signal came.
_LOOK_EVERY: Final = 0.2


class HooksRunning(FullsendError):  # noqa: N818 - reads as what it says
    """Another process runs the hooks of this store."""


class Reread:
    """receiver.toml, as it is now. Thread-safe."""

    def __init__(self, file: Path, settings: ReceiverSettings) -> None:
        """`settings`: as just read from the file."""
        self._file = file
        self._lock = threading.Lock()
        self._settings = settings
        self._signature = signature(file)
        self._fault = ""

    def settings(self) -> ReceiverSettings:
        """Return all of it; the last good one if the file is wrong, which is logged once. Reads a file that has
        changed, and one that was wrong: its mode may have been corrected, which changes no signature.
        """
        with self._lock:
            try:
                found = signature(self._file)
                if found != self._signature:
                    self._settings = config.load(self._file)
                    self._signature = found
                self._fault = ""
            except (FullsendError, OSError) as error:
                if str(error) != self._fault:
                    log.error("the hooks stay as they were: %s", error)  # noqa: TRY400 - where says nothing
                self._fault = str(error)
            return self._settings

    def current(self) -> HookSettings:
        """Return the table [hooks]. As `settings`."""
        return self.settings().hooks


def follow(
    claim: Callable[[], AbstractContextManager[Store]],
    settings: Callable[[], HookSettings],
    told_to_stop: Callable[[], bool],
) -> bool:
    """Run all hooks for what happens, until told to stop. Blocks.

    `claim`: opens the store for this process alone; after a StoreError or an OSError it is called again, since the disk
    may come later; `settings`: returns the present ones. Returns: whether it has ended well. Raises: what else `claim`
    raises.
    """
    stop, failed = threading.Event(), threading.Event()

    def stopping() -> bool:
        return told_to_stop() or stop.is_set()

    def started(work: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except Exception:
                log.exception("a bug in fullsendd")
                failed.set()
                stop.set()

        # A disk that never answers must not keep the process.
        thread = threading.Thread(target=guarded, daemon=True)
        thread.start()
        return thread

    outage = Outage(
        lambda event, at: _tell(event, at, settings(), stopping),
        retry_for=lambda: settings().retry_for,
        patience=PATIENCE,
    )
    with contextlib.ExitStack() as stack:
        stack.callback(stop.set)
        threads = [started(lambda: _repeat(outage.look_for_hang, stop))]
        store = _wait_for_store(lambda: stack.enter_context(claim()), outage, stopping, stop)
        if store is not None:
            watch = DaemonWatch(store, outage, partial(_answers, store))
            followers = [HookFollower(name, store, settings, stop) for name in HOOK_NAMES]
            threads += [started(each.follow) for each in followers]
            threads.append(started(lambda: _repeat(watch.look, stop)))
            log.info("following the events of store %s", store.where)
        # Not without a limit: the kernel may give the signal to another thread, which does not wake this one.
        while not told_to_stop() and not stop.wait(_LOOK_EVERY):
            pass
        stop.set()
        deadline = time.monotonic() + _END_WITHIN
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
    return not failed.is_set()


def _wait_for_store(
    claim: Callable[[], Store], outage: Outage, stopping: Callable[[], bool], stop: threading.Event
) -> Store | None:
    """Return the store as soon as it can be opened; None: this process stops. Blocks. Raises: as `claim`."""
    said = ""
    while not stopping():
        try:
            with outage.asking():
                return claim()
        except (StoreError, OSError) as error:
            why = str(disk_error(error) if isinstance(error, OSError) else error)
        if why != said:
            log.warning("the hooks wait for the store: %s", why)
            said = why
        outage.note_away(Away(why))
        again = time.monotonic() + EVERY
        while not stopping() and (left := again - time.monotonic()) > 0:
            stop.wait(min(left, _LOOK_EVERY))
    return None


def run_test(hook: HookName, command: Sequence[str], time_limit: float) -> None:
    """Run a hook once, for an event `test`. Blocks. `time_limit`: seconds. Raises: HookError."""
    now = time.time()
    facts = {"version": VERSION, "time": format_time(now), "program": PROGRAM, "event": "test", "level": "info"}
    facts["text"] = f"a test of the hook {hook}: nothing has happened"
    run_hook(command, payload(facts, hook, f"test-{int(now)}"), time_limit=time_limit)


def _repeat(look: Callable[[], None], stop: threading.Event) -> None:
    look()
    while not stop.wait(EVERY):
        look()


def _answers(store: Store) -> bool:
    """Whether the daemon answers a question. One that answers with an error lives, such as one of another version.
    Raises nothing that would end the hooks.
    """
    try:
        connection = asking.connect(store)
        if connection is None:
            return False
        with connection:
            asking.ask(connection, ScrubWanted(), ScrubProgress)
    except (RemoteProtocolError, PeerError):
        return True
    except (FullsendError, OSError):
        return False
    return True


def _tell(event: Event, at: float, settings: HookSettings, stopping: Callable[[], bool]) -> bool:
    """Run `on-failure` once for an event that the event journal cannot have. `at`: when it happened, in seconds since
    the epoch; `stopping`: whether to end it early. Returns: whether the hook succeeded; without a hook nobody wants to
    know, so it did.
    """
    command = settings.command("on-failure")
    if command is None:
        return True
    facts = payload(facts_of(event, at=at, level="error"), "on-failure", f"direct-{int(at)}")
    try:
        run_hook(command, facts, time_limit=settings.time_limit, stopping=stopping)
    except (HookError, HookStopped) as error:
        log.error("on-failure: %s", error)  # noqa: TRY400 - where says nothing
        return False
    return True
