"""`fullsend show`: all that `list` has of one stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fullsend_protocol.shared.exit_codes import Exit
from fullsend_sender.cli import arguments
from fullsend_sender.cli.configuration import read_all

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.running import Commands
    from fullsend_sender.cli.arguments import Parser
    from fullsend_sender.restore.chains import Library


def add(commands: Commands[Parser]) -> None:
    """Add the parser of the command."""
    text = "show all that `list` has of one stream, or how to restore it without fullsend"
    sub = arguments.command(commands, "show", run, text)
    sub.add_argument("stream", metavar="STREAM", help="DATASET@SNAPSHOT, guid:N, or a file name as `list` shows it")
    form = sub.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as one JSON object")
    form.add_argument(
        "--commands", action="store_true", help="the shell lines that restore its chain, for the store's folder"
    )
    arguments.receiver(sub)


def run(args: argparse.Namespace) -> int:
    """Show the stream. Returns: the exit code. Raises: FullsendError."""
    from fullsend_protocol.format.restore_commands import restore_lines
    from fullsend_sender.cli.results import print_lines, print_stream
    from fullsend_sender.host import runtime
    from fullsend_sender.restore.chains import Library, NotRestorable
    from fullsend_sender.transfer.link import connect
    from fullsend_sender.transfer.listing import all_stored

    _settings, endpoint, identity = read_all(args)

    async def ask() -> Library:
        async with connect(endpoint, identity) as (link, _name):
            return Library(*await all_stored(link))

    library = runtime.run(ask())
    entry = library.find(args.stream)
    if not args.commands:
        print_stream(entry, as_json=args.json)
        return Exit.OK
    chain = library.chain(entry)
    if chain is None:
        raise NotRestorable(f"{args.stream}: cannot be restored: {library.obstacle(entry)}")
    print_lines(restore_lines(chain))
    return Exit.OK
