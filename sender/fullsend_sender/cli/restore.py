"""`fullsend restore`: restore a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared.exit_codes import worst
from fullsend_sender.cli import arguments
from fullsend_sender.cli.configuration import read_all

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.running import Commands
    from fullsend_sender.cli.arguments import Parser

_EXAMPLES: Final = """\
  fullsend restore tank/home --into tank/back              its newest snapshot, with the chain that it needs
  fullsend restore tank/home@monday --into tank/back       that snapshot
  fullsend restore -r tank@monday --into new/tank          a tree, as of that snapshot's time
  fullsend restore -n tank/home --into tank/back           print the commands and sizes, change nothing"""


def add(commands: Commands[Parser]) -> None:
    """Add the parser of the command."""
    text = "restore a dataset, with all streams that it needs, through `zfs receive`"
    sub = arguments.command(commands, "restore", run, text, _EXAMPLES)
    sub.add_argument(
        "what",
        metavar="DATASET[@SNAPSHOT]",
        help="its newest snapshot, or that one; also guid:N, or a file name as `list` shows it",
    )
    sub.add_argument("--into", metavar="TARGET", help="the dataset to create, or to continue; default: the same name")
    sub.add_argument("-r", dest="recursive", action="store_true", help="and all that is stored below it")
    arguments.exclude(sub)
    sub.add_argument(
        "-F",
        dest="rollback",
        action="store_true",
        help="discard what was written to TARGET since its newest snapshot, if that prevents the restore",
    )
    sub.add_argument("--mountable", action="store_true", help="leave `canmount` as it was backed up; default: noauto")
    sub.add_argument(
        "--no-quotas",
        action="store_true",
        help="leave quotas and reservations out; default: set them when all is restored",
    )
    sub.add_argument(
        "--unencrypted",
        action="store_true",
        help="below an encrypted dataset, leave unencrypted what was so at home; default: encrypt it, too",
    )
    arguments.dry_run(sub)
    arguments.progress(sub)
    arguments.retry_for(sub)
    sub.add_argument("--json", action="store_true", help="one JSON object a dataset on stdout")
    arguments.receiver(sub)


def run(args: argparse.Namespace) -> int:
    """Restore. Returns: the exit code. Raises: FullsendError."""
    settings, endpoint, identity = read_all(args)
    from fullsend_cli.output import ResultOutput
    from fullsend_sender.cli.results import RestorePrinter, print_commands
    from fullsend_sender.host import runtime
    from fullsend_sender.host.log import log
    from fullsend_sender.host.restoring import restoring
    from fullsend_sender.restore.plan import RestoreRequest
    from fullsend_sender.restore.run import RestoreJob, dry_run, restore
    from fullsend_sender.zfs.commands import Zfs

    wanted = RestoreRequest(
        *(args.what, args.into, args.recursive, tuple(args.exclude), args.rollback, args.mountable),
        quotas=not args.no_quotas,
        unencrypted=args.unencrypted,
    )
    job = RestoreJob(wanted, endpoint, identity, Zfs(settings.zfs_command), settings.progress, settings.retry_for)

    async def rehearsed() -> int:
        plan, lines = await dry_run(job)
        print_commands(lines, as_json=args.json)
        for name, error in plan.failures:
            log.error("%s: %s", name, error)
        return worst(error.exit_code for _name, error in plan.failures)

    async def restored() -> int:
        restores = RestorePrinter(settings, as_json=args.json)
        done, end = ResultOutput(restores.add), ResultOutput(restores.end)
        left_out = ResultOutput(restores.left_out)
        try:
            with restoring(job.zfs.line(), wanted.top, below=wanted.recursive):
                failures = await restore(job, done)
        finally:  # also if it is interrupted
            left_out(job.notes)
            end(job)
        done.check()
        left_out.check()
        end.check()
        return worst(error.exit_code for _name, error in failures)

    return runtime.run(rehearsed() if args.dry_run else restored())
