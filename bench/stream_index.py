"""How a reader finds the streams of a sender in a bucket: by the index, and by a look at everything.

The streams have names, manifests and almost no data. The look at everything is in a bucket in memory: only its
processor time counts. The index that it makes is then read from a real Ceph, request by request.
"""

from __future__ import annotations

import os
import time
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final, cast

from bench.measure import BenchError
from bench.object_store import Ceph
from bench.questions import plant_many
from bench.report import Table
from tests.receiver.buckets import MemoryBucket

from fullsend_receiver.catalogue.object_search import ObjectSearch
from fullsend_receiver.store.local import LocalStore
from fullsend_receiver.store_s3 import keys, stream_index
from fullsend_receiver.store_s3.stores import BucketStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from bench.report import Results

    from fullsend_receiver.store_s3.probe import ProbedBucket

_STREAMS: Final = 100_000
_QUICK: Final = 2_000
_SENDER: Final = "alpha"
#: Questions of a kind. The last one is told: the first ones open connections.
_TURNS: Final = 5


class _Counted:
    """A bucket that counts its requests. `requests`: since the last `take`, by their names."""

    def __init__(self, bucket: ProbedBucket) -> None:
        self._bucket = bucket
        self._requests: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._bucket, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self._requests[name] = self._requests.get(name, 0) + 1
            return real(*arguments, **named)

        return call if callable(real) else real

    def take(self) -> str:
        """Return what was counted since the last call."""
        found, self._requests = self._requests, {}
        return ", ".join(f"{count} {name}" for name, count in found.items()) or "none"


def list_many(results: Results, folder: Path, say: Callable[[str], None], *, quick: bool) -> None:
    """Make the index of so many streams, and read it."""
    count = _QUICK if quick else _STREAMS
    say(f"making {count} streams")
    memory = _in_memory(folder / "planted", count)
    rows = []

    def measured(what: str, bucket: _Counted, run: Callable[[], object]) -> None:
        began, cpu = time.monotonic(), time.process_time()
        run()
        seconds, used = time.monotonic() - began, time.process_time() - cpu
        rows.append([what, f"{seconds:.3f}", f"{used:.3f}", bucket.take()])
        say(f"{what}: {seconds:.3f} s")

    counted = _Counted(cast("ProbedBucket", memory))
    everything = _search(counted, folder)
    measured("a look at everything, in memory: each manifest is read", counted, everything.run)
    everything.distrust()
    measured("the same again: no manifest has changed", counted, everything.run)
    found = len(everything.summaries)
    if found != count:
        msg = f"{found} of {count} streams are in the index"
        raise BenchError(msg)
    with Ceph(folder / "ceph") as ceph:
        place = ceph.part("index")
        kept = sorted(key for key in memory.objects if key.startswith(keys.STREAMS))
        for key in kept:
            place.put(key, memory.objects[key][0])
        counted = _Counted(place)
        search = _search(counted, folder)
        measured("a process that starts reads the index", counted, search.run)
        if len(search.summaries) != count:
            msg = "the index of Ceph has other streams"
            raise BenchError(msg)
        for _turn in range(_TURNS):
            measured("a question where nothing has changed", counted, search.run)
        del rows[-_TURNS:-1]
        gone = PurePosixPath(search.summaries[0].path).with_name("@gone.zfs.zst")
        for _turn in range(_TURNS):
            stream_index.note(place, [gone])
            measured("a question behind a change", counted, search.run)
        del rows[-_TURNS:-1]
    results.tables.append(
        Table(
            f"{count:,} streams of one sender in a bucket",
            ["", "seconds", "CPU s", "requests"],
            rows,
            f"The rows in the index have {sum(len(memory.objects[key][0]) for key in kept) / 1e6:.1f} MB."
            f" One LIST (entries) is {-(-3 * count // 1000):,} requests of 1,000 keys in a real bucket."
            f" CPU s: of the reader alone, in one process with {os.cpu_count()} cores.",
        )
    )


def _search(bucket: _Counted, folder: Path) -> ObjectSearch:
    return ObjectSearch(BucketStore(cast("ProbedBucket", bucket), folder), _SENDER)


def _in_memory(folder: Path, count: int) -> MemoryBucket:
    """Return a bucket with so many streams, as a program copies them out of a folder."""
    folder.mkdir(parents=True)
    store = LocalStore(folder)
    plant_many(store, count)
    bucket = MemoryBucket(least_part=0)
    for file in (folder / _SENDER).rglob("*"):
        if file.is_file():
            bucket.put(str(file.relative_to(folder)), file.read_bytes())
    return bucket
