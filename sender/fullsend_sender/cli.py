"""`fullsend`: the command line, and what happens around every command.

Nothing heavy is imported here: `fullsend --version` and a mistyped option answer within 0.15 s, so pydantic, ssl,
asyncio and zstandard are imported inside the commands.

stdout carries results only; stderr everything else. Exit codes: fullsend_protocol.exits.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Final, NoReturn

from fullsend_cli.output import write_line, writing_output
from fullsend_cli.running import run
from fullsend_protocol import __version__
from fullsend_protocol.errors import FullsendError, OutputFailed, UsageError
from fullsend_protocol.exits import Exit
from fullsend_protocol.units import parse_duration, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fullsend_cli.running import Complain
    from fullsend_sender.config import SenderSettings
    from fullsend_sender.identity import Identity
    from fullsend_sender.job import Request
    from fullsend_sender.link import Endpoint
    from fullsend_sender.transfer import Pushed

CONFIG: Final = "/etc/fullsend/sender.toml"

#: What `status` exits with where it cannot tell: of Nagios' four.
_UNKNOWN: Final = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (without the program's name; None: that of the process). Returns: the exit code."""
    return run(make_parser, argv, _begin)


def _begin(args: argparse.Namespace) -> Complain:
    """Log as the command line or the environment says, until the configuration is read."""
    from fullsend_sender.log import configure, log

    style = args.log_format or os.environ.get("FULLSEND_LOG_FORMAT")
    configure("json" if style == "json" else "text", verbose=args.verbose)

    def complain(error: Exception | KeyboardInterrupt, /) -> None:
        match error:
            case KeyboardInterrupt():
                log.error("interrupted by SIGINT")
            case FullsendError():
                log.error("%s", error, exc_info=args.debug)
            case _:
                log.error("%s: %s (--debug shows more)", type(error).__name__, error, exc_info=args.debug)

    return complain


# --- the parser -----------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:  # type: ignore[explicit-override]  # typing.override is younger than Python 3.11
        self.exit(self.get_default("troubled") or Exit.USAGE, f"fullsend: {message} (see {self.prog} --help)\n")


_PUSHES: Final = """\
  fullsend push                               all that the configuration names; the line for cron
  fullsend push -r tank --exclude 'tank/tmp'  a tree, each dataset by itself
  fullsend push tank/home@monday              one snapshot that is there
  fullsend push -n -r tank                    the commands and sizes; nothing is done
  fullsend push -R tank                       a tree as one package, always a full one
  zfs send -R tank@monday | fullsend push --stdin"""

_STATUS: Final = """\
  fullsend status                             all that is stored and still here, a line each
  fullsend status --max-age 26h               exit 2 where a backup is older than that
  fullsend status 'tank/vm/*'                 some of them"""

_RESTORES: Final = """\
  fullsend restore tank/home --into tank/back              its newest snapshot, and all that it takes
  fullsend restore tank/home@monday --into tank/back       that snapshot
  fullsend restore -r tank@monday --into new/tank          a tree, as of that snapshot's time
  fullsend restore -n tank/home --into tank/back           the commands and sizes; nothing is done"""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; man pages and completion are made of it, too (docs/generate.py)."""
    parser = _Parser(
        prog="fullsend",
        description="Stream ZFS snapshots to a host without ZFS: verified, encrypted, readable with zstd alone.",
        parents=[_everywhere()],
    )
    parser.set_defaults(
        config=os.environ.get("FULLSEND_CONFIG") or CONFIG,
        debug=False,
        verbose=False,
        log_format=None,
        receiver=None,
        troubled=None,
    )
    parser.add_argument("--version", action="version", version=f"fullsend {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(
        name: str, run: Callable[[argparse.Namespace], int], text: str, examples: str = ""
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=examples and f"examples:\n{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            parents=[_everywhere()],
        )
        sub.set_defaults(run=run)
        return sub

    def receiver(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--receiver", metavar="NAME", help="which one, where several are configured")

    def retry_for(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--retry-for", metavar="TIME", help="how long to wait for a receiver that went away meanwhile; default 1h"
        )

    sub = command("join", _join, "pair with a receiver, by the line that `fullsendd invite` printed")
    sub.add_argument("invitation", metavar="INVITATION")
    sub.add_argument("--as", dest="name", metavar="NAME", help="what to call the receiver here; default: its host")

    sub = command("push", _push, "send what is new, and return when the receiver has it proven and durable", _PUSHES)
    sub.add_argument(
        "dataset",
        nargs="*",
        metavar="DATASET[@SNAPSHOT]",
        help="a name, or a pattern such as 'tank/vm/*'; default: all that the configuration names",
    )
    sub.add_argument("--stdin", action="store_true", help="read the output of `zfs send` from stdin instead")
    sub.add_argument("-r", dest="recursive", action="store_true", help="and all datasets below, each by itself")
    sub.add_argument(
        "--exclude", action="append", default=[], metavar="PATTERN", help="but not these, nor what is below them"
    )
    sub.add_argument("-R", dest="package", action="store_true", help="and all below, as one package; always a full one")
    sub.add_argument("--full", action="store_true", help="fulls, whatever is stored")
    sub.add_argument(
        "-w", dest="raw", action="store_const", const=True, help="raw; encrypted datasets are always sent so"
    )
    sub.add_argument("--decrypt", action="store_const", const=True, help="send encrypted datasets plain")
    sub.add_argument(
        "-c", dest="compressed", action="store_const", const=True, help="blocks as they are compressed in the pool"
    )
    sub.add_argument(
        "-e",
        dest="embedded",
        action="store_const",
        const=True,
        help="embedded blocks as they are in the pool; off by default, see openzfs issue 18239",
    )
    sub.add_argument(
        "--no-size-check",
        dest="size_check",
        action="store_const",
        const=False,
        help="do not announce the size, so that the receiver takes the stream as long as there is room",
    )
    sub.add_argument("--keep", type=int, metavar="N", help="how many snapshots taken by us to keep; default 2")
    sub.add_argument("--jobs", type=int, metavar="N", help="how many datasets to send at a time; default 1")
    sub.add_argument("-n", dest="dry_run", action="store_true", help="print the commands and sizes, and change nothing")
    sub.add_argument("--level", type=int, metavar="N", help="zstd level, -7 to 22; default 3")
    sub.add_argument("--threads", type=int, metavar="N", help="threads that compress; default: one a CPU, 4 at most")
    sub.add_argument("--bwlimit", metavar="RATE", help="bytes a second on the wire, such as 10M; for each job")
    retry_for(sub)
    sub.add_argument(
        "--size", type=_size, metavar="N", help="with --stdin: raw bytes to expect, for progress and the receiver"
    )
    sub.add_argument("--progress", choices=["auto", "always", "never"], help="the live line; auto: on a terminal")
    sub.add_argument(
        "--allow-orphan",
        action="store_const",
        const=True,
        help="with --stdin: no failure where the base of an increment is not stored",
    )
    sub.add_argument("--json", action="store_true", help="one JSON object a stream on stdout")
    receiver(sub)

    sub = command("list", _list, "show what is stored of this host")
    sub.add_argument("dataset", nargs="?", metavar="DATASET")
    sub.add_argument("--partial", action="store_true", help="what has arrived in part, and the next push goes on with")
    sub.add_argument("--json", action="store_true", help="one JSON object a line")
    receiver(sub)

    sub = command(
        "status", _status, "tell how old the backups are, for a person or for Nagios (exit 0, 1, 2 or 3)", _STATUS
    )
    sub.set_defaults(troubled=_UNKNOWN)
    sub.add_argument(
        "dataset",
        nargs="*",
        metavar="DATASET",
        help="a name or a pattern; default: all that is stored and still here, and all that the configuration names",
    )
    sub.add_argument("--max-age", type=_duration, metavar="AGE", help="critical is what is older, such as 26h")
    sub.add_argument("--json", action="store_true", help="one JSON object a dataset on stdout")
    receiver(sub)

    sub = command(
        "restore", _restore, "bring a dataset back, by all streams that it takes, through `zfs receive`", _RESTORES
    )
    sub.add_argument(
        "what",
        metavar="DATASET[@SNAPSHOT]",
        help="its newest snapshot, or that one; also guid:N, or a file name as `list` shows it",
    )
    sub.add_argument("--into", metavar="TARGET", help="the dataset to make, or to go on with; default: the same name")
    sub.add_argument("-r", dest="recursive", action="store_true", help="and all that is stored below it")
    sub.add_argument(
        "--exclude", action="append", default=[], metavar="PATTERN", help="but not these, nor what is below them"
    )
    sub.add_argument(
        "-F",
        dest="rollback",
        action="store_true",
        help="give up what was written to TARGET since its newest snapshot, where that is in the way",
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
    sub.add_argument("-n", dest="dry_run", action="store_true", help="print the commands and sizes, and change nothing")
    sub.add_argument("--progress", choices=["auto", "always", "never"], help="the live line; auto: on a terminal")
    retry_for(sub)
    sub.add_argument("--json", action="store_true", help="one JSON object a dataset on stdout")
    receiver(sub)

    sub = command("cat", _cat, "write one stored stream to stdout, decoded and checked")
    sub.add_argument("stream", metavar="STREAM", help="DATASET@SNAPSHOT, guid:N, or a file name as `list` shows it")
    retry_for(sub)
    receiver(sub)

    sub = command("show", _show, "show all that `list` knows of one stream, or how it is restored without fullsend")
    sub.add_argument("stream", metavar="STREAM", help="DATASET@SNAPSHOT, guid:N, or a file name as `list` shows it")
    form = sub.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as one JSON object")
    form.add_argument(
        "--commands", action="store_true", help="the shell lines that restore its chain, for the store's folder"
    )
    receiver(sub)

    sub = command("verify", _verify, "have the receiver read and check what it stores of this host")
    sub.add_argument("dataset", nargs="?", metavar="DATASET")
    sub.add_argument("--json", action="store_true", help="one JSON object a line")
    receiver(sub)

    sub = command("check", _check, "see whether a push would work")
    sub.add_argument("--json", action="store_true", help="one JSON object a line")
    receiver(sub)
    return parser


def _everywhere() -> _Parser:
    """Return the options taken both before and after the command: `fullsend -v push` and `fullsend push -v`.

    Made anew for each parser: set_defaults reaches into actions that are shared, and the subcommand's defaults would
    overwrite what stood before it.
    """
    options = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    options.add_argument("--config", metavar="FILE", help=f"default: $FULLSEND_CONFIG, else {CONFIG}")
    options.add_argument("--debug", action="store_true", help="show a traceback with an error")
    options.add_argument("-v", "--verbose", action="store_true", help="say more on stderr")
    options.add_argument("--log-format", choices=["text", "json"], help="how stderr is written")
    return options


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


# --- the commands ---------------------------------------------------------------------------------------------------


def _settings(args: argparse.Namespace) -> SenderSettings:
    """Read the configuration; log as it says. Raises: UsageError."""
    from fullsend_sender import config
    from fullsend_sender.log import configure

    settings = config.load(args.config, os.environ, vars(args))
    configure(settings.log_format, verbose=args.verbose)
    return settings


def _setup(args: argparse.Namespace) -> tuple[SenderSettings, Endpoint, Identity]:
    """Read the configuration, and choose the receiver. Raises: UsageError."""
    from fullsend_sender.identity import Identity

    settings = _settings(args)
    return settings, settings.endpoint(), Identity.beside(args.config)


def _join(args: argparse.Namespace) -> int:
    from fullsend_sender.enrol import join
    from fullsend_sender.runtime import run

    paired = run(join(args.config, args.invitation, args.name))
    write_line(
        f"paired: receiver {paired.receiver!r} knows this host as {paired.sender!r} (written to {paired.config})"
    )
    return Exit.OK


def _push(args: argparse.Namespace) -> int:
    if args.stdin:
        return _push_stdin(args)
    settings, requests = _requests(args)
    from fullsend_protocol.exits import worst
    from fullsend_sender.failures import as_failure
    from fullsend_sender.identity import Identity
    from fullsend_sender.job import Job, Summary
    from fullsend_sender.log import log
    from fullsend_sender.push import push
    from fullsend_sender.rehearse import rehearse
    from fullsend_sender.runtime import run
    from fullsend_sender.zfs import Zfs

    identity, zfs = Identity.beside(args.config), Zfs(settings.zfs_command)

    async def show() -> int:
        codes = []
        for name, request in requests:
            job = Job(request, settings, settings.endpoint(name), identity, zfs, debug=args.debug)
            try:
                if args.dry_run:
                    plan, lines = await rehearse(job)
                    summary = Summary(unchanged=len(plan.unchanged), failures=plan.failures)
                    _print_commands(lines, as_json=args.json)
                    for failed, error in plan.failures:
                        log.error("%s: %s", failed, error)
                else:
                    summary = await push(job, _report(settings, as_json=args.json))
            except (OutputFailed, BrokenPipeError):
                raise
            except Exception as error:  # noqa: BLE001 - of two receivers one may be away: the other is served
                failure = as_failure(error)
                log.error("%s", failure, exc_info=args.debug)
                codes.append(failure.exit_code)
                continue
            log.info("%s", summary.line(job.endpoint.name))
            codes += [error.exit_code for _name, error in summary.failures]
        return worst(codes)

    return run(show())


def _requests(args: argparse.Namespace) -> tuple[SenderSettings, list[tuple[str | None, Request]]]:
    """Return what is to be pushed to which receivers: as the command line says, else as the configuration does."""
    settings = _settings(args)
    from fullsend_sender.job import Request, Target
    from fullsend_sender.selection import Selection

    targets: dict[str | None, list[Target]] = {}
    for named in args.dataset:
        dataset, at, snapshot = named.partition("@")
        if not dataset or (at and not snapshot) or "@" in snapshot or "#" in named:
            raise UsageError(f"{named!r} is no DATASET or DATASET@SNAPSHOT")
        selection = Selection((dataset,), args.recursive, tuple(args.exclude))
        targets.setdefault(None, []).append(Target(selection, snapshot or None))
    if not args.dataset:
        if args.recursive or args.package or args.exclude:
            raise UsageError("-r, -R and --exclude want a DATASET; for all others the configuration says it")
        for table in settings.push:
            receiver = table.receiver or settings.receiver
            if args.receiver in {None, receiver}:
                targets.setdefault(receiver, []).append(Target(table.selection, None, table))
        if not targets:
            raise UsageError(f"nothing to push: name a DATASET, or what to push in a table [[push]] of {args.config}")
    if args.package and args.recursive:
        raise UsageError("-R brings all below in one stream, -r each by itself: choose one")
    return settings, [(name, Request(tuple(each), args.full, args.package)) for name, each in targets.items()]


def _print_commands(lines: Sequence[str], *, as_json: bool) -> None:
    """Print what `-n` says."""
    import json

    for line in lines:
        command, _, about = line.partition("  # ")
        write_line(json.dumps({"command": command, "about": about or None}, ensure_ascii=False) if as_json else line)


def _clear(settings: SenderSettings) -> str:
    """Return what makes room for a line where the live line of the progress may stand; "" where there is none."""
    from fullsend_sender.progress import CLEAR

    live = settings.progress == "always" or (settings.progress == "auto" and sys.stderr.isatty())
    return CLEAR if live else ""


def _report(settings: SenderSettings, *, as_json: bool) -> Callable[[Pushed], None]:
    """Return what says of each stream that it is stored."""
    import json

    from fullsend_protocol.lost_spills import warnings
    from fullsend_protocol.units import printable
    from fullsend_sender.log import log

    clear = _clear(settings)

    def say(pushed: Pushed) -> None:
        if as_json:
            write_line(json.dumps(pushed.to_dict(), ensure_ascii=False), flush=True)
        if clear and not as_json:
            # One push has a line of its own, which has ended; several share one that goes on.
            print((clear if settings.jobs > 1 else "") + printable(pushed.line()), file=sys.stderr)
        else:
            log.info("%s", pushed.line())
        for line in warnings(pushed.receipt.lost_spills):
            log.warning("%s", line)

    return say


def _push_stdin(args: argparse.Namespace) -> int:
    if args.dataset or args.recursive or args.package or args.full or args.dry_run:
        raise UsageError("--stdin takes the stream as it comes: no DATASET, -r, -R, --full or -n beside it")
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("stdin is no pipe: pipe a stream into it, as in `zfs send ... | fullsend push --stdin`")
    settings, endpoint, identity = _setup(args)
    from fullsend_sender.push_stdin import push_stdin
    from fullsend_sender.runtime import run
    from fullsend_sender.transfer import Options

    how = settings.how(None)
    options = Options(how.level, settings.threads, settings.bwlimit, settings.retry_for)
    sizes = {"size": args.size, "size_check": how.size_check}
    where = sys.stdin.fileno(), endpoint, identity
    pushed = run(push_stdin(*where, options, sys.stderr, show=settings.progress, **sizes))
    _report(settings, as_json=args.json)(pushed)
    receipt = pushed.receipt
    if not receipt.restorable and not settings.allow_orphan:
        base = f"guid {receipt.base_guid}" if receipt.base_guid else "its base"
        raise FullsendError(
            f"{receipt.dataset}@{receipt.snapshot} was kept, but cannot be restored: a stream that it builds on is not"
            f" stored, or damaged ({base}); push that too, or say --allow-orphan"
        )
    return Exit.OK


def _list(args: argparse.Namespace) -> int:
    _settings, endpoint, identity = _setup(args)
    from fullsend_protocol.listing import partials_table, table
    from fullsend_sender.link import connect
    from fullsend_sender.listing import entries, partials
    from fullsend_sender.runtime import run

    async def show_partials() -> None:
        async with connect(endpoint, identity) as (link, _name):
            found = [each for each in await partials(link) if args.dataset in {None, each.dataset}]
        lines = [each.model_dump_json() for each in found]
        for line in lines if args.json else partials_table(found, with_sender=False):
            write_line(line)

    async def show() -> None:
        listed = []
        async with connect(endpoint, identity) as (link, _name):
            async for entry in entries(link, args.dataset):
                if args.json:
                    write_line(entry.model_dump_json(by_alias=True))
                else:
                    listed.append(entry)
        for line in table(listed, with_sender=False):
            write_line(line)

    run(show_partials() if args.partial else show())
    return Exit.OK


def _status(args: argparse.Namespace) -> int:
    import json

    from fullsend_protocol.units import printable
    from fullsend_sender.runtime import run
    from fullsend_sender.status import headline, status, worst
    from fullsend_sender.zfs import Zfs

    try:
        settings, endpoint, identity = _setup(args)
        zfs = Zfs(settings.zfs_command)
        judged = run(status(settings, endpoint, identity, zfs, args.dataset, max_age=args.max_age))
    except FullsendError as error:
        # A monitoring system reads stdout alone.
        said = json.dumps({"state": "UNKNOWN", "why": str(error)}, ensure_ascii=False)
        write_line(said if args.json else printable(f"UNKNOWN: {error}"))
        return _UNKNOWN
    if args.json:
        lines = [json.dumps(each.to_dict(), ensure_ascii=False) for each in judged]
    else:
        lines = [headline(judged), *(each.line() for each in judged)]
    for line in lines:
        write_line(line)
    return worst(judged)


def _restore(args: argparse.Namespace) -> int:
    settings, endpoint, identity = _setup(args)
    import json

    from fullsend_protocol.exits import worst
    from fullsend_protocol.units import printable
    from fullsend_sender.log import log
    from fullsend_sender.restore import Job, Restored, rehearse, restore
    from fullsend_sender.restore_plan import Wanted
    from fullsend_sender.runtime import run
    from fullsend_sender.zfs import Zfs

    wanted = Wanted(
        *(args.what, args.into, args.recursive, tuple(args.exclude), args.rollback, args.mountable),
        quotas=not args.no_quotas,
        unencrypted=args.unencrypted,
    )
    job = Job(wanted, endpoint, identity, Zfs(settings.zfs_command), settings.progress, settings.retry_for)

    cautious: list[Restored] = []
    clear = _clear(settings)

    def say(restored: Restored) -> None:
        if restored.undo:
            cautious.append(restored)
        print(clear, end="", file=sys.stderr, flush=True)
        said = json.dumps(restored.to_dict(), ensure_ascii=False) if args.json else printable(restored.line())
        write_line(said, flush=True)

    async def show() -> int:
        if args.dry_run:
            plan, lines = await rehearse(job)
            _print_commands(lines, as_json=args.json)
            for name, error in plan.failures:
                log.error("%s: %s", name, error)
            return worst(error.exit_code for _name, error in plan.failures)
        try:
            failures = await restore(job, say)
        finally:  # also where it is interrupted
            if cautious and not args.json:
                package = any(each.package for each in cautious)
                undo = job.undo_all([each.target for each in cautious], package=package)
                write_line(f"not mounted, and not to be by itself (canmount=noauto); to undo that: {undo}")
        return worst(error.exit_code for _name, error in failures)

    return run(show())


def _show(args: argparse.Namespace) -> int:
    import json

    from fullsend_protocol.byhand import restore_lines
    from fullsend_protocol.listing import details
    from fullsend_sender.chain import Library, NotRestorable
    from fullsend_sender.link import connect
    from fullsend_sender.listing import entries
    from fullsend_sender.runtime import run

    _settings, endpoint, identity = _setup(args)

    async def ask() -> Library:
        async with connect(endpoint, identity) as (link, _name):
            return Library([entry async for entry in entries(link, None)])

    library = run(ask())
    entry = library.find(args.stream)
    facts = entry.model_dump(mode="json", by_alias=True)
    lines = [json.dumps(facts, ensure_ascii=False)] if args.json else list(details(facts))
    if args.commands:
        chain = library.chain(entry)
        if chain is None:
            raise NotRestorable(f"{args.stream}: cannot be restored: {library.obstacle(entry)}")
        lines = restore_lines(chain)
    for line in lines:
        write_line(line)
    return Exit.OK


def _cat(args: argparse.Namespace) -> int:
    if sys.stdout is None or sys.stdout.isatty():
        raise UsageError("stdout is no pipe: a send stream is binary; pipe it into `zfs receive` or a file")
    settings, endpoint, identity = _setup(args)
    from fullsend_sender.cat import cat
    from fullsend_sender.progress import Progress
    from fullsend_sender.runtime import run

    where = endpoint, identity, args.stream, sys.stdout.fileno()
    with writing_output():  # the only OSError that cat raises is of the descriptor
        run(cat(*where, Progress(0.0), retry_for=settings.retry_for))
    return Exit.OK


def _verify(args: argparse.Namespace) -> int:
    _settings, endpoint, identity = _setup(args)
    from fullsend_protocol.units import format_size, plural
    from fullsend_sender.link import connect
    from fullsend_sender.runtime import run
    from fullsend_sender.verify import describe, verdicts

    whole = damaged = size = 0

    async def show() -> None:
        nonlocal whole, damaged, size
        async with connect(endpoint, identity) as (link, _name):
            async for verdict in verdicts(link, args.dataset):
                size += verdict.raw_bytes
                whole += not verdict.damage
                damaged += bool(verdict.damage)
                if args.json:
                    write_line(verdict.model_dump_json(exclude={"type"}), flush=True)
                for line in () if args.json else describe(verdict):
                    write_line(line, flush=True)

    run(show())
    if damaged:
        raise FullsendError(f"damaged: {damaged} of {plural(whole + damaged, 'stream')}")
    if not args.json and (args.verbose or sys.stdout.isatty()):
        verb = "is" if whole == 1 else "are"
        write_line(f"{plural(whole, 'stream')} {verb} whole, {format_size(size)} raw")
    return Exit.OK


def _check(args: argparse.Namespace) -> int:
    import json

    from fullsend_sender.check import check
    from fullsend_sender.runtime import run

    async def show() -> int:
        worst = Exit.OK
        async for finding in check(args.config, os.environ, vars(args)):
            write_line(json.dumps(finding.to_dict(), ensure_ascii=False) if args.json else finding.line(), flush=True)
            worst = worst or finding.outcome
        return worst

    return run(show())
