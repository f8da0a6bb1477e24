"""`fullsendd hooks`: run the hooks of receiver.toml for what happens, beside the daemon."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

from fullsend_protocol.shared.exit_codes import Exit
from fullsend_receiver.cli.configuration import open_store

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from fullsend_cli.running import Commands
    from fullsend_receiver.access.config import ReceiverSettings
    from fullsend_receiver.access.hook_settings import HookSettings
    from fullsend_receiver.store.api import Store


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the parser of the command."""
    sub = commands.add_parser("hooks", help="run the hooks of receiver.toml for what happens; beside the daemon")
    sub.add_argument("--test", metavar="HOOK", help="run this hook once, for an event `test`, and say how it ended")
    sub.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run hooks until SIGTERM or SIGINT. Returns: the exit code. Raises: FullsendError, OSError."""
    from fullsend_protocol.shared.errors import UsageError
    from fullsend_receiver.access import config
    from fullsend_receiver.access.hook_settings import HOOK_NAMES
    from fullsend_receiver.cli import results  # noqa: F401 - before `open_store`: its owner may not be able to read it
    from fullsend_receiver.cli.hook_running import Reread, follow
    from fullsend_receiver.daemon import log

    if options.test is not None:
        return _test(options.test, open_store(options)[0].hooks)
    file = config.config_file(options.config).absolute()
    settings = config.load(file)
    log.set_up(options.log_format or settings.log_format, verbose=options.verbose)
    if not any(settings.hooks.command(name) for name in HOOK_NAMES):
        msg = f"{file}: no hook is configured: write one into a table [hooks] (docs/hooks.md)"
        raise UsageError(msg)
    told: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: told.append(number))  # takes no lock: this thread may hold it
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    reread = Reread(file, settings)
    ended_well = follow(lambda: _claimed(reread.settings()), reread.current, lambda: bool(told))
    return Exit.OK if ended_well else Exit.FAILED


@contextlib.contextmanager
def _claimed(settings: ReceiverSettings) -> Iterator[Store]:
    """Open the store, become its owner, and be the only process that runs its hooks. Raises: HooksRunning, StoreError,
    OSError.
    """
    from fullsend_receiver.access import identity, opening
    from fullsend_receiver.cli.hook_running import HooksRunning
    from fullsend_receiver.store.event_recorder import recording

    store = opening.open_store(settings)
    identity.become_owner(store)
    # Of a store that is mounted read-only the hooks tell, too.
    with store.alone("hooks", read_only=True) as alone:
        if not alone:
            msg = f"{store.where}: another `fullsendd hooks` runs for this store"
            raise HooksRunning(msg)
        with recording(store):
            yield store


def _test(named: str, settings: HookSettings) -> int:
    """Run a hook once. Returns: the exit code. Raises: UsageError."""
    from fullsend_hooks.commands import HookError
    from fullsend_protocol.shared.errors import UsageError
    from fullsend_protocol.shared.units import printable
    from fullsend_receiver.access.hook_settings import HOOK_NAMES
    from fullsend_receiver.cli.hook_running import run_test
    from fullsend_receiver.cli.results import complain, print_note

    hook = next((each for each in HOOK_NAMES if each == named), None)
    if hook is None:
        msg = f"there is no hook {named!r}: there are {', '.join(HOOK_NAMES)}"
        raise UsageError(msg)
    command = settings.command(hook)
    if command is None:
        msg = f"receiver.toml has no {hook} in its table [hooks] (docs/hooks.md)"
        raise UsageError(msg)
    try:
        run_test(hook, command, settings.time_limit)
    except HookError as error:
        complain(printable(str(error)))
        return Exit.FAILED
    print_note(f"{hook}: succeeded")
    return Exit.OK
