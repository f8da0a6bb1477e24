"""`fullsend report`: the state of this host's backups as one HTML page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fullsend_protocol.shared.exit_codes import Exit
from fullsend_sender.cli import arguments
from fullsend_sender.cli.configuration import read_all

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.running import Commands
    from fullsend_report.facts import ReportFacts
    from fullsend_sender.cli.arguments import Parser


def add(commands: Commands[Parser]) -> None:
    """Add the parser of the command."""
    sub = arguments.command(commands, "report", run, "write the state of this host's backups as one HTML page")
    sub.add_argument("--html", required=True, metavar="FILE", help="is replaced as a whole; -: stdout")
    arguments.receiver(sub)


def run(args: argparse.Namespace) -> int:
    """Write the page. Returns: the exit code. Raises: FullsendError, OSError."""
    settings, endpoint, identity = read_all(args)
    from fullsend_cli.documents import write_document
    from fullsend_report.page import render
    from fullsend_sender.host import durable, runtime
    from fullsend_sender.monitor.report import ask, report_facts
    from fullsend_sender.monitor.status import look_here, status
    from fullsend_sender.zfs.commands import Zfs

    async def find() -> ReportFacts:
        zfs = Zfs(settings.zfs_command)
        where = settings, endpoint, identity, zfs, await look_here(zfs)
        judged, receiver = await status(*where, patterns=[], max_age=None)
        return report_facts(await ask(endpoint, identity), judged, receiver)

    page = render(runtime.run(find()))
    write_document(args.html, page, lambda path, data: durable.replace(path, data.decode()))
    return Exit.OK
