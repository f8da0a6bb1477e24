"""`fullsend cat`: one stored stream on stdout."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from fullsend_cli.output import writing_output
from fullsend_protocol.shared.errors import UsageError
from fullsend_protocol.shared.exit_codes import Exit
from fullsend_protocol.shared.units import plural
from fullsend_sender.cli import arguments
from fullsend_sender.cli.configuration import read_all

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.running import Commands
    from fullsend_sender.cli.arguments import Parser


def add(commands: Commands[Parser]) -> None:
    """Add the parser of the command."""
    sub = arguments.command(commands, "cat", run, "write one stored stream to stdout, decoded and checked")
    sub.add_argument("stream", metavar="STREAM", help="DATASET@SNAPSHOT, guid:N, or a file name as `list` shows it")
    sub.add_argument(
        "--skip-damaged",
        action="store_true",
        help="write what is whole of a damaged stream, and name each hole; also of aside:NAME, which was replaced",
    )
    arguments.retry_for(sub)
    arguments.receiver(sub)


def run(args: argparse.Namespace) -> int:
    """Write the stream. Returns: the exit code, FAILED if something was skipped. Raises: FullsendError,
    BrokenPipeError.
    """
    if sys.stdout is None or sys.stdout.isatty():
        raise UsageError("stdout is not a pipe: a send stream is binary; pipe it into `zfs receive` or a file")
    settings, endpoint, identity = read_all(args)
    from fullsend_cli.progress import Progress
    from fullsend_protocol.shared.stages import StageWaits
    from fullsend_sender.host import runtime
    from fullsend_sender.host.log import log
    from fullsend_sender.restore.cat import cat
    from fullsend_sender.restore.salvage import Salvage
    from fullsend_sender.transfer.progress import publishing

    where = endpoint, identity, args.stream, sys.stdout.fileno()
    salvage = Salvage(lambda hole: log.error("%s: %s", args.stream, hole)) if args.skip_damaged else None
    progress = Progress(time.monotonic(), waits=StageWaits("wire", "target"))
    progress.stream = args.stream

    async def write() -> None:
        async with publishing(progress, "restore", endpoint.name):
            await cat(*where, progress, retry_for=settings.retry_for, salvage=salvage)

    with writing_output():  # cat raises an OSError only for the descriptor
        runtime.run(write())
    if salvage is None or not salvage.holes:
        return Exit.OK
    log.error(
        "%s: %s; %d raw bytes behind it are proven by their checksums alone; `zfs receive` refuses the stream there",
        args.stream,
        plural(salvage.holes, "hole"),
        salvage.unproven,
    )
    return Exit.FAILED
