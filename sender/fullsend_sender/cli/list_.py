"""`fullsend list`: what is stored of this host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fullsend_protocol.shared.exit_codes import Exit
from fullsend_sender.cli import arguments
from fullsend_sender.cli.configuration import read_all

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.running import Commands
    from fullsend_sender.cli.arguments import Parser


def add(commands: Commands[Parser]) -> None:
    """Add the parser of the command."""
    sub = arguments.command(commands, "list", run, "show what is stored of this host")
    sub.add_argument("dataset", nargs="?", metavar="DATASET")
    sub.add_argument(
        "--partial", action="store_true", help="streams that have arrived in part; the next push resumes them"
    )
    sub.add_argument("--json", action="store_true", help="one JSON object a line")
    arguments.receiver(sub)


def run(args: argparse.Namespace) -> int:
    """List. Returns: the exit code, FAILED if the receiver cannot list all that it has. Raises: FullsendError."""
    _settings, endpoint, identity = read_all(args)
    from fullsend_protocol.shared.errors import UsageError
    from fullsend_protocol.shared.units import printable
    from fullsend_sender.cli.results import EntryPrinter, print_partials
    from fullsend_sender.host import runtime
    from fullsend_sender.host.log import log
    from fullsend_sender.transfer.link import connect
    from fullsend_sender.transfer.listing import entries, partials, statuses, unlisted, why_unlisted, without_removed

    async def list_partials() -> int:
        async with connect(endpoint, identity) as (link, _name):
            found = [each for each in await partials(link) if args.dataset in {None, each.dataset}]
        print_partials(found, as_json=args.json)
        return Exit.OK

    async def list_entries() -> int:
        listed = EntryPrinter(as_json=args.json)
        async with connect(endpoint, identity) as (link, _name):
            _now, stored = await statuses(link)
            async for entry in entries(link, args.dataset):
                listed.add(entry)
            chosen = {name: about for name, about in stored.items() if args.dataset in {None, name}}
            missing = unlisted(chosen, listed.counts)
            if missing:
                missing = unlisted(await without_removed(link, chosen), listed.counts)
        if args.dataset is not None and not listed.counts and not missing:
            raise UsageError(f"{printable(args.dataset)}: nothing of that name is stored (see `fullsend list`)")
        listed.end()
        for name, count in missing.items():
            log.warning("%s is not listed whole: %s", name, why_unlisted(count))
        return Exit.FAILED if missing else Exit.OK

    return runtime.run(list_partials() if args.partial else list_entries())
