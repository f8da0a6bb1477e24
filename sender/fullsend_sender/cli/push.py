"""`fullsend push`: send what is new."""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared.errors import Interrupted, OutputFailed, UsageError
from fullsend_protocol.shared.exit_codes import Exit, worst
from fullsend_sender.cli import arguments
from fullsend_sender.cli.configuration import read_settings

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.running import Commands
    from fullsend_sender.cli.arguments import Parser
    from fullsend_sender.host.config import SenderSettings
    from fullsend_sender.monitor.metrics import RunMetrics
    from fullsend_sender.push.job import PushRequest
    from fullsend_sender.push.outcome import RunOutcome
    from fullsend_sender.transfer.send import Pushed

    #: What to push to which receivers, by name; None: the configured one.
    _Requests = list[tuple[str | None, PushRequest]]

_EXAMPLES: Final = """\
  fullsend push                               all that the configuration names; the line for cron
  fullsend push -r tank --exclude 'tank/tmp'  a tree, each dataset by itself
  fullsend push tank/home@monday              one existing snapshot
  fullsend push -n -r tank                    print the commands and sizes, change nothing
  fullsend push -R tank                       a tree as one package, always a full one
  zfs send -R tank@monday | fullsend push --stdin"""


def add(commands: Commands[Parser]) -> None:
    """Add the parser of the command."""
    text = "send what is new, and return when the receiver has proven it and made it durable"
    sub = arguments.command(commands, "push", run, text, _EXAMPLES)
    sub.add_argument(
        "dataset",
        nargs="*",
        metavar="DATASET[@SNAPSHOT]",
        help="a name, or a pattern such as 'tank/vm/*'; default: all that the configuration names",
    )
    sub.add_argument("--stdin", action="store_true", help="read the output of `zfs send` from stdin instead")
    sub.add_argument("-r", dest="recursive", action="store_true", help="and all datasets below, each by itself")
    arguments.exclude(sub)
    sub.add_argument("-R", dest="package", action="store_true", help="and all below, as one package; always a full one")
    sub.add_argument("--full", action="store_true", help="fulls, whatever is stored; the next push builds on them")
    keys = sub.add_mutually_exclusive_group()
    keys.add_argument(
        "-w", dest="raw", action="store_const", const=True, help="raw; encrypted datasets are sent so by default"
    )
    keys.add_argument("--decrypt", action="store_const", const=True, help="send encrypted datasets decrypted")
    sub.add_argument(
        "-c",
        dest="compressed",
        action="store_const",
        const=True,
        help="send blocks compressed, as they are in the pool",
    )
    sub.add_argument(
        "-e",
        dest="embedded",
        action="store_const",
        const=True,
        help="send embedded blocks as they are in the pool; off by default, see openzfs issue 18239",
    )
    sub.add_argument(
        "--no-size-check",
        dest="size_check",
        action="store_const",
        const=False,
        help="do not announce the size: the receiver takes the stream as long as there is room",
    )
    sub.add_argument("--keep", type=int, metavar="N", help="how many snapshots taken by fullsend to keep; default 2")
    sub.add_argument("--jobs", type=int, metavar="N", help="how many datasets to send at a time; default 1")
    arguments.dry_run(sub)
    sub.add_argument("--level", metavar="N", help="zstd level, -7 to 22, or auto (default): what the wire needs")
    sub.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="threads that compress; default: one a CPU, up to 4, or up to 16 where there is memory",
    )
    sub.add_argument("--bwlimit", metavar="RATE", help="bytes a second on the wire, such as 10M; of all jobs together")
    arguments.retry_for(sub)
    sub.add_argument(
        "--size",
        type=arguments.size,
        metavar="N",
        help="with --stdin: expected raw bytes, for progress and the receiver",
    )
    arguments.progress(sub)
    sub.add_argument(
        "--allow-orphan",
        action="store_const",
        const=True,
        help="with --stdin: no error if the base of an increment is not stored",
    )
    sub.add_argument("--json", action="store_true", help="one JSON object a stream on stdout")
    arguments.receiver(sub)


def run(args: argparse.Namespace) -> int:
    """Push, and run the hook for how it ended. Returns: the exit code. Raises: FullsendError."""
    began = time.monotonic()
    if args.stdin:
        _check_stdin(args)
    settings = read_settings(args)
    from fullsend_sender.host.hooks import leave_mark, run_own_hook
    from fullsend_sender.push.outcome import RunOutcome

    outcome = RunOutcome()

    def report(code: Exit) -> None:
        if not args.dry_run:
            ok = code is Exit.OK
            facts = outcome.facts(code, time.monotonic() - began)
            if run_own_hook(settings.hooks, "on-success" if ok else "on-failure", facts) and not ok:
                leave_mark()

    push = _push_stdin if args.stdin else _push_datasets
    try:
        code = push(args, settings, outcome)
    except Interrupted:  # a person, or the end of the system, wanted it
        raise
    except Exception as error:
        from fullsend_sender.host.failures import as_failure

        failure = as_failure(error)
        outcome.add_failure("", "", failure)
        report(failure.exit_code)
        raise
    report(code)
    return code


def _push_datasets(args: argparse.Namespace, settings: SenderSettings, outcome: RunOutcome) -> Exit:
    import asyncio

    from fullsend_cli.output import ResultOutput
    from fullsend_sender.cli.results import print_commands, pushed_printer
    from fullsend_sender.host import runtime
    from fullsend_sender.host.failures import as_failure
    from fullsend_sender.host.identity import Identity
    from fullsend_sender.host.log import log
    from fullsend_sender.monitor.metrics import recorded
    from fullsend_sender.push.job import PushJob, PushSummary
    from fullsend_sender.push.run import push
    from fullsend_sender.zfs.commands import Zfs
    from fullsend_transport.throttle import Throttle

    identity, zfs = Identity.beside(args.config), Zfs(settings.zfs_command)
    say = ResultOutput(pushed_printer(settings, as_json=args.json))

    async def rehearsed(job: PushJob) -> PushSummary:
        from fullsend_sender.push.dry_run import dry_run

        plan, lines = await dry_run(job)
        print_commands(lines, as_json=args.json)
        for failed, error in plan.failures:
            log.error("%s: %s", failed, error)
        return PushSummary(unchanged=len(plan.unchanged), failures=plan.failures)

    async def prove_merged(job: PushJob) -> list[Exit]:
        """Prove what the receiver has merged. Nothing of this undoes a push. Returns: FAILED if something differs."""
        from fullsend_sender.monitor.prove import Prover

        prover = Prover(job.endpoint, identity, zfs, retry_for=settings.retry_for)
        different = False
        try:
            async for proven in prover.prove(await prover.merged()):
                if proven.result == "different":
                    different = True
                    log.error("%s", proven.line())
                    outcome.failures.append(f"{job.endpoint.name}: {proven.line()}")
                else:
                    log.log(logging.WARNING if proven.is_wrong else logging.INFO, "%s", proven.line())
        except Exception as error:  # noqa: BLE001 - of any class, it is no failure of the push
            log.warning("what was merged is not proven: %s", as_failure(error), exc_info=args.debug)
        return [Exit.FAILED] if different else []

    async def push_to(job: PushJob, metrics: RunMetrics) -> list[Exit]:
        """Push to one receiver. Returns: the exit codes of what has failed."""
        receiver, summary = job.endpoint.name, PushSummary()

        def done(pushed: Pushed) -> None:
            metrics.sent(receiver, pushed)
            outcome.add_pushed(receiver, pushed)
            say(pushed)

        try:
            summary = await rehearsed(job) if args.dry_run else await push(job, done, summary)
        except (OutputFailed, BrokenPipeError):  # of a dry run, which does nothing but print
            raise
        except asyncio.CancelledError:
            metrics.pushed(receiver, summary, Interrupted("interrupted"))
            raise
        except Exception as error:  # noqa: BLE001 - if one receiver is away, the others are still served
            failure = as_failure(error)
            log.error("%s", failure, exc_info=args.debug)
            metrics.pushed(receiver, summary, failure)
            outcome.add_failure(receiver, "", failure)
            return [failure.exit_code]
        log.info("%s", summary.line(receiver))
        metrics.pushed(receiver, summary)
        outcome.add_summary(receiver, summary)
        codes = [error.exit_code for _name, error in summary.failures]
        if settings.prove_after_push and not (args.dataset or args.dry_run):
            codes += await prove_merged(job)
        return codes

    async def push_all(requests: _Requests, metrics: RunMetrics) -> Exit:
        codes = []
        wrong: UsageError | None = None
        throttle = Throttle.limited(settings.bwlimit)
        for name, request in requests:
            try:
                endpoint = settings.endpoint(name)
            except UsageError as error:  # the other receivers are still served
                wrong = wrong or error
                continue
            job = PushJob(request, settings, endpoint, identity, zfs, throttle, debug=args.debug)
            with metrics.part(endpoint.name) as part:
                part.extend(await push_to(job, metrics))
            codes += part
        if wrong is not None:
            raise wrong
        say.check()
        return worst(codes)

    with recorded(settings, "push", when=not args.dry_run) as metrics:
        if args.receiver is not None:
            metrics.meant = frozenset([args.receiver])
        requests = _requests(args, settings)
        metrics.meant = frozenset(settings.meant(name for name, _request in requests))
        return runtime.run(push_all(requests, metrics))


def _requests(args: argparse.Namespace, settings: SenderSettings) -> _Requests:
    """Return what to push to which receivers: from the command line, or else from the configuration."""
    from fullsend_sender.push.job import PushRequest, PushTarget
    from fullsend_sender.zfs.selection import Selection

    targets: dict[str | None, list[PushTarget]] = {}
    for named in args.dataset:
        dataset, at, snapshot = named.partition("@")
        if not dataset or (at and not snapshot) or "@" in snapshot or "#" in named:
            raise UsageError(f"{named!r} is not DATASET or DATASET@SNAPSHOT")
        selection = Selection((dataset,), args.recursive, tuple(args.exclude), settings.drill_into)
        targets.setdefault(None, []).append(PushTarget(selection, snapshot or None))
    if not args.dataset:
        if args.recursive or args.package or args.exclude:
            raise UsageError("-r, -R and --exclude need a DATASET; without one the configuration decides")
        for table in settings.push:
            receiver = settings.receiver_name(table.receiver)
            if args.receiver in {None, receiver}:
                targets.setdefault(receiver, []).append(PushTarget(table.selection, None, table))
        if not targets:
            raise UsageError(f"nothing to push: name a DATASET, or what to push in a table [[push]] of {args.config}")
    if args.package and args.exclude:
        raise UsageError("-R sends all below in one stream, so --exclude can leave nothing out: use -r")
    if args.package and args.recursive:
        raise UsageError("-R sends all below in one stream, -r each in its own: choose one")
    return [(name, PushRequest(tuple(each), args.full, args.package)) for name, each in targets.items()]


def _check_stdin(args: argparse.Namespace) -> None:
    if args.dataset or args.recursive or args.package or args.full or args.dry_run:
        raise UsageError("--stdin takes the stream as it comes: it excludes DATASET, -r, -R, --full and -n")
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("stdin is not a pipe: pipe a stream into it, as in `zfs send ... | fullsend push --stdin`")


def _push_stdin(args: argparse.Namespace, settings: SenderSettings, outcome: RunOutcome) -> Exit:
    from fullsend_sender.host.identity import Identity

    identity = Identity.beside(args.config)
    from fullsend_sender.cli.results import pushed_printer
    from fullsend_sender.host import runtime
    from fullsend_sender.monitor.metrics import recorded
    from fullsend_sender.push.stdin import push_stdin
    from fullsend_sender.transfer.send import TransferOptions
    from fullsend_transport.throttle import Throttle

    chosen = settings.send_options(None)
    throttle = Throttle.limited(settings.bwlimit)
    options = TransferOptions(chosen.level, settings.threads, throttle, settings.retry_for)
    sizes = {"size": args.size, "size_check": chosen.size_check}
    with recorded(settings, "push") as metrics:
        metrics.meant = frozenset(settings.meant([None]))
        endpoint = settings.endpoint()
        where = sys.stdin.fileno(), endpoint, identity
        with metrics.part(endpoint.name):
            pushed = runtime.run(push_stdin(*where, options, sys.stderr, show=settings.progress, **sizes))
            receipt = pushed.receipt
            metrics.sent(endpoint.name, pushed)
            lost = None if settings.allow_orphan else pushed.orphan("push that too, or use --allow-orphan")
            metrics.tried(endpoint.name, receipt.dataset, Exit.OK if lost is None else lost.exit_code)
            outcome.add_pushed(endpoint.name, pushed)
            pushed_printer(settings, as_json=args.json)(pushed)
            if lost is not None:
                raise lost
    return Exit.OK
