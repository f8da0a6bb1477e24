"""Memory over time: over many transfers through one daemon, and over one long stream, there and back.

The peak is the kernel's high-water mark, read and reset at each interval. So a leak shows as a column that grows.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench import report
from bench.data import LARGE_RECORD, MIB
from bench.fullsend_hosts import Receiver, Sender
from bench.measure import BenchError, Child, Service, new_peak, written

from fullsend_protocol.shared.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.report import Results
    from bench.scenarios import Streams

_TRANSFERS: Final = 1000
_TRANSFERS_QUICK: Final = 20
_LONG: Final = 50 << 30
_LONG_QUICK: Final = 2 << 30
#: Lines of a table.
_INTERVALS: Final = 10
#: Seconds between two looks at the progress.
_LOOK_EVERY: Final = 0.1
_PRODUCER: Final = Path(__file__).with_name("long_stream.py")
_COLUMNS: Final = ("", "ZFS host: peak, MiB", "storage host: peak, MiB", "and then")


def many_transfers(
    results: Results, streams: Streams, folder: Path, say: Callable[[str], None], *, quick: bool
) -> None:
    """Push a small stream many times, from one host to one daemon."""
    transfers = _TRANSFERS_QUICK if quick else _TRANSFERS
    each = transfers // _INTERVALS
    receiver = Receiver(folder / "many")
    rows = []
    with receiver.service() as daemon:
        sender = Sender(folder / "many-sender", receiver, "alpha")
        new_peak(daemon.pid)
        for number in range(each, transfers + 1, each):
            peak = max(sender.push(streams.tiny, daemon).zfs_host.peak for _ in range(each))
            # Each push resets the daemon's mark, so the peak is that of the interval's last one.
            rows.append([f"{number:,} transfers", _mib(peak), _mib(new_peak(daemon.pid)), _mib(daemon.resident())])
            say(f"{', '.join(rows[-1])} MiB")
    legend = (
        "Pushes of 1 MiB, each a process of its own. The peak of the ZFS host is the highest of the interval, that of"
        " the storage host belongs to the interval's last push; the last column is what fullsendd holds after it."
    )
    results.tables.append(report.Table(f"Memory over {transfers:,} transfers", _COLUMNS, rows, legend))


def long_stream(results: Results, folder: Path, say: Callable[[str], None], *, quick: bool) -> None:
    """Push one long stream, and restore it."""
    size = _LONG_QUICK if quick else _LONG
    receiver = Receiver(folder / "long")
    producer: list[str | Path] = [sys.executable, _PRODUCER, str(size)]
    with receiver.service() as daemon:
        sender = Sender(folder / "long-sender", receiver, "alpha")
        child = Child(sender.push_command(), source=producer)
        assert child.producer_pid is not None
        rows = _watch("pushed", child, child.producer_pid, daemon=daemon, size=size, say=say)
        stored = sender.stored()
        if not size <= int(stored["raw_bytes"]) < size + size // 100 + LARGE_RECORD:
            msg = f"the long stream of {size} bytes was stored as {stored}"
            raise BenchError(msg)
        child = Child(sender.cat_command())
        rows += _watch("restored", child, child.pid, daemon=daemon, size=size, say=say)
    legend = (
        f"One stream of {format_size(size)}, generated meanwhile; {format_size(int(stored['stored_bytes']))} of it are"
        " stored. Peaks of each interval; the last column is what fullsendd holds at its end."
    )
    results.tables.append(report.Table("Memory over a long stream", _COLUMNS, rows, legend))


def _watch(
    what: str, child: Child, counted: int, *, daemon: Service, size: int, say: Callable[[str], None]
) -> list[Sequence[str]]:
    """Wait for a command's end, and note the memory at each interval. `counted`: the process whose output is the
    progress. Raises: BenchError.
    """
    rows: list[Sequence[str]] = []
    new_peak(daemon.pid)
    peak = 0
    try:
        while child.running:
            time.sleep(_LOOK_EVERY)
            peak = max(peak, new_peak(child.pid))
            done = written(counted)
            if done >= (len(rows) + 1) * size // _INTERVALS:
                row = [f"{format_size(done)} {what}", _mib(peak), _mib(new_peak(daemon.pid)), _mib(daemon.resident())]
                rows.append(row)
                say(f"{', '.join(row)} MiB")
                peak = 0
    except BaseException:
        child.kill()
        raise
    child.wait()
    return rows


def _mib(size: int) -> str:
    return f"{size / MIB:.0f}"
