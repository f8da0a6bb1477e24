"""Throughput and stored bytes of a push by level and by record size, for a table and two charts.

Pushed once at each level: the shape of a curve is what counts here, not a ratio.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from bench import data, report
from bench.data import LARGE_RECORD, MIB, SMALL_RECORD
from bench.fullsend_hosts import Receiver, Sender
from bench.plot import Chart, Line

from fullsend_protocol.shared.limits import CHUNK_MIN
from fullsend_protocol.shared.units import format_size
from fullsend_protocol.stream.chunks import LEVEL_DEFAULT, LIGHT, Compressor, Level

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.report import Results
    from bench.scenarios import Streams

_LEVELS: Final = (-5, -3, -1, 1, 2, 3, 4, 5, 6, 7, 9)
_RECORDS: Final = (SMALL_RECORD, LARGE_RECORD, MIB)
#: What one thread compresses at each level, without a push around it.
_ALONE: Final = 32 * MIB
_ALONE_LEVELS: Final[tuple[Level, ...]] = (LIGHT, 1, 2, LEVEL_DEFAULT, 4, 5, 6, 7, 9)


def by_level(results: Results, streams: Streams, folder: Path, say: Callable[[str], None]) -> None:
    """Push compressible streams of each record size at each level."""
    receiver = Receiver(folder / "receiver")
    speeds: dict[int, list[float]] = {}
    stored: dict[int, list[float]] = {}
    size = 0
    with receiver.service() as daemon:
        sender = Sender(folder / "alpha", receiver, "alpha")
        for record in _RECORDS:
            stream = streams.of_records(record)
            size = stream.size
            runs = []
            for level in _LEVELS:
                run = sender.push(stream, daemon, str(level))
                runs.append(run)
                say(f"{_named(record)}, level {level}: {run.seconds:.2f} s")
            stream.path.unlink()
            speeds[record] = [stream.size / run.seconds / 1e6 for run in runs]
            stored[record] = [100 * run.stored / stream.size for run in runs]
    rows = [
        [
            f"level {level}",
            *(f"{speeds[record][number]:.0f}" for record in _RECORDS),
            *(f"{stored[record][number]:.1f}" for record in _RECORDS),
        ]
        for number, level in enumerate(_LEVELS)
    ]
    columns = ["", *(f"{_named(each)}, MB/s" for each in _RECORDS), *(f"{_named(each)}, %" for each in _RECORDS)]
    legend = (
        f"A compressible stream of {format_size(size)}, pushed once; both ends share all cores, and the start of Python"
        " counts. %: stored bytes, of the raw ones."
    )
    results.tables.append(report.Table("Throughput and stored bytes, by level and record size", columns, rows, legend))
    results.charts["throughput"] = _chart("Throughput of a push", "MB/s of raw stream", speeds)
    results.charts["stored"] = _chart("Stored bytes of a push", "% of the raw stream", stored)


def zstd_alone(results: Results) -> None:
    """Compress chunks of two kinds of data at each level in one thread; note processor time and size beside level 3."""
    kinds = {"compressible": data.compressible_pool(), "mix": data.mix_pool()}
    found: dict[Level, list[str]] = {level: [] for level in _ALONE_LEVELS}
    for pool in kinds.values():
        chunks = [pool[start : start + CHUNK_MIN] for start in range(0, _ALONE, CHUNK_MIN)]
        spent: dict[Level, tuple[float, int]] = {}
        for level in _ALONE_LEVELS:
            compressor = Compressor(level)
            tries = []
            for _ in range(3):
                start = time.thread_time()
                size = sum(len(compressor.compress(chunk)) for chunk in chunks)
                tries.append(time.thread_time() - start)
            spent[level] = min(tries), size
        usual, bytes_usual = spent[LEVEL_DEFAULT]
        for level, (seconds, size) in spent.items():
            found[level] += [f"{_ALONE / seconds / 1e6:.0f}", f"{usual / seconds:.2f}", f"{size / bytes_usual:.3f}"]
    columns = ["level", *(f"{kind}, {what}" for kind in kinds for what in ("MB/s", "speed", "bytes"))]
    rows = [[str(level), *cells] for level, cells in found.items()]
    legend = "One thread, processor time, the best of three. Speed and bytes: as multiples of those of level 3."
    results.tables.append(report.Table("zstd by itself, by level", columns, rows, legend))


def _chart(title: str, y: str, figures: dict[int, list[float]]) -> Chart:
    lines = [Line(_named(record), list(zip(_LEVELS, values, strict=True))) for record, values in figures.items()]
    return Chart(f"{title}, by level and record size", "zstd level", y, lines)


def _named(record: int) -> str:
    return f"{record >> 10} KiB" if record < MIB else f"{record // MIB} MiB"
