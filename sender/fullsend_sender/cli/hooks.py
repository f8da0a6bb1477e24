"""`fullsend hooks`: run a hook of sender.toml, to try it, or for a unit that has failed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared.errors import UsageError
from fullsend_protocol.shared.exit_codes import Exit
from fullsend_sender.cli import arguments
from fullsend_sender.cli.configuration import read_settings

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.running import Commands
    from fullsend_sender.cli.arguments import Parser

_EXAMPLES: Final = """\
  fullsend hooks --test on-failure
  fullsend hooks --unit fullsend-push.service     what fullsend-failed@.service does"""


def add(commands: Commands[Parser]) -> None:
    """Add the parser of the command."""
    text = "run a hook of the configuration: to try it, or for a unit that has failed"
    sub = arguments.command(commands, "hooks", run, text, _EXAMPLES)
    which = sub.add_mutually_exclusive_group(required=True)
    which.add_argument("--test", choices=["on-success", "on-failure"], help="run this hook for an event `test`")
    which.add_argument(
        "--unit", metavar="NAME", help="run on-failure for this unit of systemd, unless its run has done so itself"
    )


def run(args: argparse.Namespace) -> int:
    """Run the hook. Returns: the exit code. Raises: UsageError."""
    settings = read_settings(args)
    from fullsend_sender.host.hooks import run_own_hook, take_mark
    from fullsend_sender.host.log import log

    hooks = settings.hooks
    if args.test is not None:
        if (hooks.on_success if args.test == "on-success" else hooks.on_failure) is None:
            raise UsageError(f"{args.config} has no {args.test} in a table [hooks] (docs/hooks.md)")
        text = f"a test of the hook {args.test}: nothing has happened"
        done = run_own_hook(hooks, args.test, {"event": "test", "level": "info", "text": text})
        return Exit.OK if done else Exit.FAILED
    if take_mark():
        log.info("%s: its run has reported the failure itself", args.unit)
        return Exit.OK
    if hooks.on_failure is None:
        log.warning("%s has failed, and nobody is told: %s has no on-failure in [hooks]", args.unit, args.config)
        return Exit.OK
    how = {name: value for name in ("RESULT", "EXIT_CODE", "EXIT_STATUS") if (value := _monitored(name))}
    words = f" ({', '.join(how.values())})" if how else ""
    text = f"{args.unit} has failed{words}: see `journalctl -u {args.unit}`"
    facts = {"event": "unit-failed", "level": "error", "text": text, "unit": args.unit}
    facts |= {name.lower(): value for name, value in how.items()}
    return Exit.OK if run_own_hook(hooks, "on-failure", facts) else Exit.FAILED


def _monitored(name: str) -> str:
    """Return what systemd says of the unit that has failed (systemd.exec(5)); empty: nothing."""
    return os.environ.get("MONITOR_SERVICE_RESULT" if name == "RESULT" else f"MONITOR_{name}", "")
