"""One part of an upload at a time, against two: what a store in a bucket would gain by a second PUT in flight.

The bytes go from memory through one gateway of a Ceph on this machine, straight, and over a wire with latency. A batch
of the receiver is 32 MiB: it is one part, or would be two of half of it.
"""

from __future__ import annotations

import random
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from bench.data import MIB
from bench.latency import Delay
from bench.object_store import Ceph
from bench.report import Table

from fullsend_receiver.arrival.receive import BATCH_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bench.report import Results

    from fullsend_receiver.store_s3.client import BotoBucket

_BATCHES: Final = 16
_BATCHES_QUICK: Final = 4
#: Seconds for a way and back.
_ROUND_TRIPS: Final = (0.0, 0.02)
_KEY: Final = "parts"


@dataclass(frozen=True, slots=True)
class Way:
    """One way to store a batch: `count` parts at the same time, over a wire with this `round_trip` in seconds.

    `seconds`: of each repetition.
    """

    count: int
    round_trip: float
    seconds: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What the table calls it."""
        wire = f"{self.round_trip * 1000:.0f} ms for a way and back" if self.round_trip else "no latency"
        return f"{wire}: {self.count} x {BATCH_BYTES // self.count / MIB:.0f} MiB"

    @property
    def median(self) -> float:
        """Seconds, of all repetitions."""
        return statistics.median(self.seconds)


def measure(results: Results, folder: Path, say: Callable[[str], None], *, quick: bool) -> None:
    """Store the same bytes in both ways, in turns."""
    batches = _BATCHES_QUICK if quick else _BATCHES
    data = random.Random(0).randbytes(BATCH_BYTES)
    found: list[tuple[Way, BotoBucket]] = []
    with Ceph(folder / "ceph") as ceph:
        for round_trip in _ROUND_TRIPS:
            endpoint = ceph.endpoints[0]
            if round_trip:
                endpoint = f"http://127.0.0.1:{Delay(urlsplit(endpoint).port or 80, round_trip / 2).port}"
            found += [(Way(count, round_trip), ceph.part("", endpoint)) for count in (1, 2)]
        for repetition in range(results.repetitions):
            for way, bucket in found:
                way.seconds.append(_store(bucket, data, batches, way.count))
                say(f"{repetition + 1}/{results.repetitions} {way.name}: {way.seconds[-1]:.2f} s")
                ceph.collect()
    results.tables.append(table([way for way, _bucket in found], batches * BATCH_BYTES))


def _store(bucket: BotoBucket, data: bytes, batches: int, count: int) -> float:
    """Store so many batches of these bytes, each in `count` parts at the same time. Returns: seconds."""
    size = len(data) // count
    upload = bucket.begin_parts(_KEY)
    began = time.monotonic()
    with ThreadPoolExecutor(count) as threads:
        for batch in range(batches):
            pieces = [data[at : at + size] for at in range(0, len(data), size)]
            numbers = range(batch * count + 1, batch * count + 1 + count)
            # The next batch begins when this one is stored: the journal names it, and it is acknowledged.
            list(threads.map(lambda number, piece: bucket.put_part(_KEY, upload, number, piece), numbers, pieces))
    seconds = time.monotonic() - began
    bucket.abort(_KEY, upload)
    return seconds


def table(ways: Sequence[Way], size: int) -> Table:
    """Return the table of what was measured. `size`: bytes stored in each repetition."""
    rows = [
        [
            way.name,
            f"{way.median:.2f}",
            f"{min(way.seconds):.2f} - {max(way.seconds):.2f}",
            f"{size / way.median / 1e6:.0f}",
        ]
        for way in ways
    ]
    legend = (
        f"{size / MIB:.0f} MiB in batches of {BATCH_BYTES / MIB:.0f} MiB, one after the other. MB: a million bytes."
    )
    return Table("Parts that are stored at the same time", ["", "seconds", "min - max", "MB/s"], rows, legend)
