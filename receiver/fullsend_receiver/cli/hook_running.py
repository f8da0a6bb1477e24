"""The threads of `fullsendd hooks`: one a hook follows the event journal, and two watch the daemon and the disk."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
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
from fullsend_receiver.store.api import Store
from fullsend_receiver.store.durable import signature

log: Final = logging.getLogger("fullsendd")

#: Seconds that hooks have to end after SIGTERM to this process: more than it takes to kill their processes.
_END_WITHIN: Final = 15.0
#: Seconds between two looks whether a signal came.
_LOOK_EVERY: Final = 0.2


class Reread:
    """The table [hooks], as receiver.toml has it now. Thread-safe."""

    def __init__(self, file: Path, settings: ReceiverSettings) -> None:
        """`settings`: as just read from the file."""
        self._file = file
        self._lock = threading.Lock()
        self._hooks = settings.hooks
        self._signature = signature(file)
        self._fault = ""

    def current(self) -> HookSettings:
        """Return the table; the last good one if the file is wrong, which is logged once. Reads a file that has
        changed, and one that was wrong: its mode may have been corrected, which changes no signature.
        """
        with self._lock:
            try:
                found = signature(self._file)
                if found != self._signature:
                    self._hooks = config.load(self._file).hooks
                    self._signature = found
                self._fault = ""
            except (FullsendError, OSError) as error:
                if str(error) != self._fault:
                    log.error("the hooks stay as they were: %s", error)  # noqa: TRY400 - where says nothing
                self._fault = str(error)
            return self._hooks


def follow(store: Store, settings: Callable[[], HookSettings], told_to_stop: Callable[[], bool]) -> bool:
    """Run all hooks for what happens, until told to stop. Blocks. `settings`: returns the present ones.

    Returns: whether it has ended well.
    """
    stop, failed = threading.Event(), threading.Event()

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:
            log.exception("a bug in fullsendd")
            failed.set()
            stop.set()

    watch = DaemonWatch(
        store,
        partial(_answers, store),
        lambda event, at: _tell(event, at, settings(), stop),
        retry_for=lambda: settings().retry_for,
    )
    works: list[Callable[[], None]] = [HookFollower(name, store, settings, stop).follow for name in HOOK_NAMES]
    works += [lambda: _repeat(watch.look, stop), lambda: _repeat(watch.look_for_hang, stop)]
    # A disk that never answers must not keep the process.
    threads = [threading.Thread(target=guarded, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    log.info("following the events of store %s", store.where)
    # Not without a limit: the kernel may give the signal to another thread, which does not wake this one.
    while not told_to_stop() and not stop.wait(_LOOK_EVERY):
        pass
    stop.set()
    deadline = time.monotonic() + _END_WITHIN
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return not failed.is_set()


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


def _tell(event: Event, at: float, settings: HookSettings, stop: threading.Event) -> bool:
    """Run `on-failure` once for an event that the event journal cannot have. `at`: when it happened, in seconds since
    the epoch. Returns: whether the hook succeeded; without a hook nobody wants to know, so it did.
    """
    command = settings.command("on-failure")
    if command is None:
        return True
    facts = payload(facts_of(event, at=at, level="error"), "on-failure", f"direct-{int(at)}")
    try:
        run_hook(command, facts, time_limit=settings.time_limit, stopping=stop.is_set)
    except (HookError, HookStopped) as error:
        log.error("on-failure: %s", error)  # noqa: TRY400 - where says nothing
        return False
    return True
