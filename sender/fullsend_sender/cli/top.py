"""`fullsend top`: the transfers of this host that are under way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fullsend_sender.cli import arguments

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.running import Commands
    from fullsend_cli.top import LiveLook
    from fullsend_sender.cli.arguments import Parser

_EXAMPLES: Final = """\
  fullsend top                 pushes and restores of this user, drawn anew each second; q ends it
  fullsend top --once          the same once, as lines
  fullsend top --json --once   the same for a program"""


def add(commands: Commands[Parser]) -> None:
    """Add the parser of the command."""
    text = "show the transfers that are under way, each second; q ends it"
    sub = arguments.command(commands, "top", run, text, _EXAMPLES)
    sub.add_argument("--once", action="store_true", help="print them once, as without a terminal")
    sub.add_argument("--json", action="store_true", help="one JSON object each second, on one line")


def run(args: argparse.Namespace) -> int:
    """Show them. Returns: the exit code. Raises: OutputFailed."""
    from fullsend_cli.top import run_top

    return run_top(look, peer="receiver", once=args.once, as_json=args.json)


def look(folder: str | None = None) -> LiveLook:
    """Return what processes of this user transfer now. `folder`: of their files, None: the usual one."""
    import socket

    from fullsend_cli.top import LiveLook
    from fullsend_protocol.shared.errors import FullsendError, reason
    from fullsend_sender.host.live import read_live

    name = socket.gethostname()
    title, facts = f"fullsend top: {name}", {"host": name}
    try:
        found = sorted(read_live(folder), key=lambda each: -each.seconds)
    except (FullsendError, OSError) as error:
        return LiveLook(title, facts, trouble=f"what is under way cannot be read: {reason(error)}")
    return LiveLook(title, facts, found)
