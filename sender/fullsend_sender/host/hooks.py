"""Runs this host's hooks: what sender.toml says in its table [hooks].

A hook never changes the exit code of the run that it reports. Under systemd a run leaves a mark once its hook
`on-failure` has succeeded: the unit that systemd starts after a failure is for runs that could not say so themselves.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from fullsend_hooks.commands import VERSION, HookError, run_hook
from fullsend_protocol import __version__
from fullsend_protocol.shared.units import format_time
from fullsend_sender.host.log import log

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fullsend_sender.host.config import RunHooks

RunHookName = Literal["on-success", "on-failure"]
#: systemd.exec(5).
_FOLDER: Final = "RUNTIME_DIRECTORY"
_RUN: Final = "INVOCATION_ID"
#: Of the unit that failed (systemd 251).
_FAILED_RUN: Final = "MONITOR_INVOCATION_ID"


def run_own_hook(hooks: RunHooks, name: RunHookName, facts: Mapping[str, object]) -> bool:
    """Run a hook, if there is one. Blocks for `time-limit` at most. A hook that fails is logged.

    `facts`: with `event`, `level` and `text`. Returns: whether it was run, and has succeeded.
    """
    command = hooks.on_success if name == "on-success" else hooks.on_failure
    if command is None:
        return False
    now = time.time()
    head = {"version": VERSION, "time": format_time(now), "program": f"fullsend {__version__}"}
    tail = {"id": f"{int(now)}-{secrets.token_hex(4)}", "hook": name, "host": socket.gethostname()}
    try:
        run_hook(command, {**head, **facts, **tail}, time_limit=hooks.time_limit)
    except HookError as error:
        log.error("%s: %s; this does not change the exit code", name, error)
        return False
    return True


def leave_mark() -> None:
    """Note that the failure of this run was reported, where systemd has started it."""
    mark = _mark(os.environ.get(_RUN))
    if mark is not None:
        with contextlib.suppress(OSError):  # it is reported twice then
            mark.touch(mode=0o600)


def take_mark() -> bool:
    """Whether the failure for which systemd has started this process was reported by the run itself."""
    mark = _mark(os.environ.get(_FAILED_RUN))
    if mark is None:
        return False
    try:
        mark.unlink()
    except OSError:
        return False
    return True


def _mark(run: str | None) -> Path | None:
    folder = os.environ.get(_FOLDER, "").partition(":")[0]
    return Path(folder) / f"reported-{run}" if folder and run and run.isalnum() else None
