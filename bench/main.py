"""`make bench`: compares fullsend with what it replaces, in one run on the same data; prints tables, draws charts.

The parts named in `_OPT_IN` run only where they are asked for: all others together should take half an hour at most.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from bench import (
    buckets,
    files,
    increments,
    levels,
    long_run,
    nightly,
    parts_at_once,
    pinned,
    programs,
    prune,
    questions,
    report,
    samples,
    scenarios,
    stream_index,
    wires,
    year,
)
from bench.data import MIB
from bench.measure import BenchError

from fullsend_protocol.shared.errors import UsageError
from fullsend_protocol.shared.units import format_size, parse_size

if TYPE_CHECKING:
    from bench.report import Results
    from bench.scenarios import Streams

_SHM: Final = Path("/dev/shm")
#: Room for the streams, the files of both sides, and files that are not removed yet; in sizes of a stream.
_ROOM: Final = 8
#: Where charts go that no document shows.
_CHARTS: Final = Path(__file__).resolve().parent / "results"


class _Part(Protocol):
    """A part of the benchmark. `folder`: for its files; removed afterwards."""

    def __call__(self, results: Results, streams: Streams, folder: Path, *, quick: bool) -> None: ...


def _transfers(results: Results, streams: Streams, folder: Path, *, quick: bool) -> None:
    scenarios.transfers(results, streams, folder, _say)


def _pinned(results: Results, streams: Streams, folder: Path, *, quick: bool) -> None:
    pinned.on_own_cores(results, streams, folder, _say)


def _many(results: Results, streams: Streams, folder: Path, *, quick: bool) -> None:
    scenarios.many_senders(results, streams.short, folder, _say)


def _nightly(results: Results, streams: Streams, folder: Path, *, quick: bool) -> None:
    nightly.nothing_new(results, folder, _say)


def _increments(results: Results, streams: Streams, folder: Path, *, quick: bool) -> None:
    increments.many(results, folder, _say, datasets=100 if quick else increments.DATASETS)


def _questions(results: Results, streams: Streams, folder: Path, *, quick: bool) -> None:
    questions.ask_at_once(results, folder, _say, quick=quick)


def _prune(results: Results, streams: Streams, folder: Path, *, quick: bool) -> None:
    prune.prune_many(results, folder, _say, quick=quick)


def _stages(results: Results, streams: Streams, folder: Path, *, quick: bool) -> None:
    scenarios.inside(results, streams, folder)


def _samples(results: Results, streams: Streams, folder: Path, *, quick: bool) -> None:
    samples.take(results, streams, folder, _say)


def _levels(results: Results, streams: Streams, folder: Path, *, quick: bool) -> None:
    levels.zstd_alone(results)
    levels.by_level(results, streams, folder, _say)


def _wires(results: Results, streams: Streams, folder: Path, *, quick: bool) -> None:
    wires.auto_and_fixed(results, streams, folder, _say, quick=quick)


def _year(results: Results, streams: Streams, folder: Path, *, quick: bool) -> None:
    year.count_a_year(results, folder, _say, quick=quick)


def _long(results: Results, streams: Streams, folder: Path, *, quick: bool) -> None:
    long_run.many_transfers(results, streams, folder, _say, quick=quick)
    long_run.long_stream(results, folder, _say, quick=quick)


def _files(results: Results, streams: Streams, folder: Path, *, quick: bool) -> None:
    files.file_reading(results, folder, _say, quick=quick)


def _bucket(results: Results, streams: Streams, folder: Path, *, quick: bool) -> None:
    buckets.transfers(results, streams, folder, _say)


def _bucket_many(results: Results, streams: Streams, folder: Path, *, quick: bool) -> None:
    buckets.many(results, streams, folder, _say, quick=quick)


def _bucket_parts(results: Results, streams: Streams, folder: Path, *, quick: bool) -> None:
    parts_at_once.measure(results, folder, _say, quick=quick)


def _bucket_list(results: Results, streams: Streams, folder: Path, *, quick: bool) -> None:
    stream_index.list_many(results, folder, _say, quick=quick)


#: In their order: `stages` compares with what the parts before it have measured.
_PARTS: Final[dict[str, _Part]] = {
    "transfers": _transfers,
    "pinned": _pinned,
    "many": _many,
    "nightly": _nightly,
    "increments": _increments,
    "questions": _questions,
    "prune": _prune,
    "stages": _stages,
    "samples": _samples,
    "levels": _levels,
    "wires": _wires,
    "year": _year,
    "files": _files,
    "bucket": _bucket,
    "bucket-many": _bucket_many,
    "bucket-parts": _bucket_parts,
    "bucket-list": _bucket_list,
    "long": _long,
}
_OPT_IN: Final = (
    *("prune", "samples", "wires", "files"),
    *("bucket", "bucket-many", "bucket-parts", "bucket-list", "long"),
)


def main() -> int:
    """Run the benchmark. Returns: the exit code; a budget that is not met is a result, not a failure."""
    args = arguments()
    # Installed programs find their modules compiled. With this variable each start would compile them again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
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
    charts = _CHARTS if args.write is None else args.write.parent / "plots"
    for file in report.write_charts(charts, results):
        _say(f"written to {file}")
    if args.write is not None:
        report.write(args.write, text + report.chart_links(charts.name, results))
        _say(f"written to {args.write}")
    return 0


def _run(args: argparse.Namespace, folder: Path) -> report.Results:
    began = report.load()
    _say(f"streams of {format_size(args.size)}, {args.repetitions} repetitions, load {began}")
    in_memory = folder.is_relative_to(_SHM)
    place = "memory (/dev/shm): no disk is measured" if in_memory else "a disk"
    results = report.Results(args.size, args.repetitions, place)
    left_out = [f"{name}{' (opt-in)' * (name in _OPT_IN)}" for name in _PARTS if name not in args.only]
    _say(f"parts left out: {', '.join(left_out) or 'none'}")
    streams = scenarios.Streams(folder, args.size)
    scenarios.start_up(results)
    took = []
    for name, part in _PARTS.items():
        if name in args.only:
            _say(f"part: {name}")
            work = folder / name
            work.mkdir()
            start = time.monotonic()
            part(results, streams, work, quick=args.quick)
            took.append(f"{name} {time.monotonic() - start:.0f}")
            shutil.rmtree(work)
    results.facts = [
        ("date", dt.datetime.now(dt.UTC).date().isoformat()),
        *report.machine(programs.versions()),
        ("streams", f"{format_size(args.size)} raw, {args.repetitions} repetitions in turns; all files in {place}"),
        ("load average", f"{began} before, {report.load()} after (1, 5, 15 minutes)"),
        ("parts, seconds", ", ".join(took)),
        *([("parts left out", ", ".join(left_out))] if left_out else []),
    ]
    return results


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Return the options. `words`: the command line; None: that of this process."""
    parser = argparse.ArgumentParser(prog="bench/run.py", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="256 MiB and one repetition: shows that it works, no more")
    parser.add_argument("--size", type=_size, metavar="N", help="raw bytes of a stream; default 1G")
    parser.add_argument("--repetitions", type=int, metavar="N", help="default 3")
    default = [name for name in _PARTS if name not in _OPT_IN]
    parser.add_argument("--only", nargs="+", choices=_PARTS, metavar="PART", help=f"some parts of {', '.join(_PARTS)}")
    parser.add_argument(
        "--long", action="store_true", help="memory over 1,000 transfers and over 50 GiB, too; ten minutes more"
    )
    parser.add_argument(
        "--scratch", type=Path, metavar="DIR", help="where files go; default /dev/shm, so no disk counts"
    )
    parser.add_argument(
        "--write",
        type=Path,
        metavar="FILE",
        help="put the tables between the markers of FILE, and the charts into the folder plots beside it",
    )
    args = parser.parse_args(words)
    args.only = [*(args.only or default), *(["long"] if args.long else [])]
    args.size = args.size or (256 * MIB if args.quick else 1024 * MIB)
    args.repetitions = args.repetitions or (1 if args.quick else 3)
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
        if _SHM.is_dir() and min(shutil.disk_usage(_SHM).free, _available()) >= wanted:
            return _SHM
        scratch = Path(tempfile.gettempdir())
        _say(f"{_SHM} has no room for {format_size(wanted)}: the disk of {scratch} will be part of what is measured")
    if shutil.disk_usage(scratch).free < wanted:
        msg = f"{scratch} has no room for {format_size(wanted)}; --size makes the streams smaller"
        raise BenchError(msg)
    return scratch


def _available() -> int:
    """Return the bytes of memory that can be used without swapping: not only the free ones, but caches too."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) << 10
    return 0


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)
