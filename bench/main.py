"""`make bench`: compares fullsend with what it replaces, in one run on the same data; prints tables."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Final

from bench import nightly, programs, prune, questions, report, scenarios
from bench.data import MIB
from bench.measure import BenchError

from fullsend_protocol.shared.errors import UsageError
from fullsend_protocol.shared.units import format_size, parse_size

_SHM: Final = Path("/dev/shm")
#: Room for the streams, the files of both sides, and files that are not removed yet; in sizes of a stream.
_ROOM: Final = 6
_PARTS: Final = ("transfers", "many", "nightly", "questions", "prune", "stages")


def main() -> int:
    """Run the benchmark. Returns: the exit code; a budget that is not met is a result, not a failure."""
    args = _arguments()
    signal.signal(
        signal.SIGTERM, lambda number, _frame: sys.exit(128 + number)
    )  # as an exception, so that daemons end and files are removed
    try:
        programs.need()
        with tempfile.TemporaryDirectory(prefix="fullsend-bench-", dir=_place(args.scratch, args.size)) as name:
            results = _run(args, Path(name))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    text = report.render(results)
    print(text, end="")
    if args.write is not None:
        report.write(args.write, text)
        _say(f"written to {args.write}")
    return 0


def _run(args: argparse.Namespace, folder: Path) -> report.Results:
    began = report.load()
    _say(f"streams of {format_size(args.size)}, {args.repetitions} repetitions, load {began}")
    in_memory = folder.is_relative_to(_SHM)
    place = "memory (/dev/shm): no disk is measured" if in_memory else "a disk"
    results = report.Results(args.size, args.repetitions, place)
    streams = scenarios.make_streams(folder, args.size)
    scenarios.start_up(results)
    if "transfers" in args.only:
        scenarios.transfers(results, streams, folder, _say)
    if "many" in args.only:
        scenarios.many_senders(results, streams.short, folder, _say)
    if "nightly" in args.only:
        nightly.nothing_new(results, folder, _say)
    if "questions" in args.only:
        questions.ask_at_once(results, folder, _say, quick=args.quick)
    if "prune" in args.only:
        prune.prune_many(results, folder, _say, quick=args.quick)
    if "stages" in args.only:
        scenarios.inside(results, streams, folder)
    results.facts = [
        ("date", dt.datetime.now(dt.UTC).date().isoformat()),
        *report.machine(programs.versions()),
        ("streams", f"{format_size(args.size)} raw, {args.repetitions} repetitions in turns; all files in {place}"),
        ("load average", f"{began} before, {report.load()} after (1, 5, 15 minutes)"),
    ]
    return results


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/run.py", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="256 MiB and one repetition: shows that it works, no more")
    parser.add_argument("--size", type=_size, metavar="N", help="raw bytes of a stream; default 1G")
    parser.add_argument("--repetitions", type=int, metavar="N", help="default 5")
    parser.add_argument("--only", nargs="+", choices=_PARTS, default=_PARTS, help="some parts of it")
    parser.add_argument(
        "--scratch", type=Path, metavar="DIR", help="where files go; default /dev/shm, so no disk counts"
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables between the markers of FILE")
    args = parser.parse_args()
    args.size = args.size or (256 * MIB if args.quick else 1024 * MIB)
    args.repetitions = args.repetitions or (1 if args.quick else 5)
    return args


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _place(scratch: Path | None, size: int) -> Path:
    """Return the folder for files. Raises: BenchError if there is no room."""
    wanted = _ROOM * size
    if scratch is None:
        pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
        if _SHM.is_dir() and min(shutil.disk_usage(_SHM).free, pages) >= wanted:
            return _SHM
        scratch = Path(tempfile.gettempdir())
        _say(f"{_SHM} has no room for {format_size(wanted)}: the disk of {scratch} will be part of what is measured")
    if shutil.disk_usage(scratch).free < wanted:
        msg = f"{scratch} has no room for {format_size(wanted)}; --size makes the streams smaller"
        raise BenchError(msg)
    return scratch


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)
