"""Runs one hook: a command with facts as JSON on stdin, within a time limit.

No pipe leads to or from the command. It may leave stdin unread, and a process that it has started may keep stdout open:
neither delays the caller.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from fullsend_protocol.shared.errors import FullsendError
from fullsend_protocol.shared.units import printable

#: Of the JSON on stdin. A field is added without a new version.
VERSION: Final = 1
#: Seconds that the processes of a hook have between SIGTERM and SIGKILL.
_GRACE: Final = 5.0
#: Seconds between two looks whether the caller stops.
_LOOK_EVERY: Final = 0.2
#: Characters of one environment variable: Linux refuses those of 128 KiB.
_VARIABLE_MAX: Final = 4096


class HookError(FullsendError):
    """A hook could not be run, was not successful, or has used up its time."""


class HookStopped(FullsendError):  # noqa: N818 - no fault of anything
    """A hook was ended because the program stops."""


def never_stops() -> bool:
    """The caller never stops before the hook has ended."""
    return False


def run_hook(
    command: Sequence[str],
    facts: Mapping[str, object],
    *,
    time_limit: float,
    stopping: Callable[[], bool] = never_stops,
) -> None:
    """Run a hook to its end. What it prints goes to stderr of this process. Blocks.

    `command`: the program and its arguments, no shell; `facts`: its stdin, with at least `hook`, `event` and `text`;
    `time_limit`: seconds, after which all processes of its group are killed; `stopping`: whether to end it early.
    What a hook that succeeds leaves running stays. Raises: HookError, HookStopped.
    """
    name = shlex.join(command)
    try:
        process = _start(command, facts)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        msg = f"`{name}` cannot be started: {why}"
        raise HookError(msg) from None
    ended = False
    try:
        ended = _wait(process.pid, time_limit, stopping)
    finally:
        killed = ended or _kill_group(process.pid)
        code = process.wait() if killed else 0
        if not killed:
            _reap_later(process)
    if not ended:
        if stopping():
            how = "was ended" if killed else "cannot be killed, and stays"
            msg = f"`{name}` {how}, because the program stops"
            raise HookStopped(msg)
        how = "was killed" if killed else "cannot be killed, and stays"
        msg = f"`{name}` has run for {time_limit:g} s and {how} (time-limit)"
        raise HookError(msg)
    if code:
        how = f"exit code {code}" if code > 0 else f"signal {-code}"
        msg = f"`{name}` has failed: {how}"
        raise HookError(msg)


def variables(facts: Mapping[str, object]) -> dict[str, str]:
    """Return the environment variables for these facts: FULLSEND_EVENT is the event's name, FULLSEND_EVENT_TEXT its
    text, and so on for every fact that is text, a number or a truth value. Control characters are escaped.
    """
    found = {"FULLSEND_EVENT": _variable(facts["event"])}
    for key, value in facts.items():
        if key != "event" and isinstance(value, str | int | float):  # bool is an int
            found[f"FULLSEND_EVENT_{key.upper()}"] = _variable(value)
    return found


def _variable(value: object) -> str:
    if isinstance(value, bool):
        return str(int(value))
    return printable(str(value))[:_VARIABLE_MAX]


def _start(command: Sequence[str], facts: Mapping[str, object]) -> subprocess.Popen[bytes]:
    # A file in memory, not a pipe: nobody has to feed it while the hook runs.
    stdin = os.memfd_create("event")
    try:
        with open(stdin, "wb", closefd=False) as file:
            file.write(json.dumps(facts).encode("ascii") + b"\n")
        os.lseek(stdin, 0, os.SEEK_SET)
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=2,  # for people: stdout of this process may be a result
            env={**os.environ, **variables(facts)},
            start_new_session=True,
        )
    finally:
        os.close(stdin)


def _wait(pid: int, time_limit: float, stopping: Callable[[], bool]) -> bool:
    """Wait until a child has ended, without reaping it. Returns: whether it has, in time."""
    deadline = time.monotonic() + time_limit
    with _watching(pid) as poll:
        while (left := deadline - time.monotonic()) > 0 and not stopping():
            if poll.poll(1000 * min(left, _LOOK_EVERY)):
                return True
        return bool(poll.poll(0))


def _kill_group(pid: int) -> bool:
    """End all processes of a group. Its leader is not reaped yet, so that the group's id is still its own.

    Returns: whether the leader has ended. It has not if another user owns it, as with `sudo`, or the kernel holds it.
    """
    with _watching(pid) as poll:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, number)
            gone = bool(poll.poll(1000 * _GRACE))
    return gone


def _reap_later(process: subprocess.Popen[bytes]) -> None:
    """Leave no zombie of a process that cannot be killed now. The thread delays no exit of this program."""
    threading.Thread(target=process.wait, name="reap", daemon=True).start()


@contextlib.contextmanager
def _watching(pid: int) -> Iterator[select.poll]:
    """Yield what can be polled for the end of a child."""
    descriptor = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        yield poll
    finally:
        os.close(descriptor)
