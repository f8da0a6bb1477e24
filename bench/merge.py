"""The speed of a merge: .venv/bin/python bench/merge.py

Made-up streams, in memory: a full volume, and an increment that replaces a hundredth of its blocks. Each stage is
measured alone, on one core, as processor time: the merge; the proof of an input by its running checksums; the
compression of the result.

Then `fullsendd prune --merge-only`, as the daemon runs it: a full and seven increments of a quarter of it each become
one full, in a store in memory (/dev/shm). That reads, proves, merges, compresses, writes and reads back.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from tests import resumed, streams  # noqa: E402 - the path comes first
from tests.receiver.helpers import store_stream  # noqa: E402

from fullsend_protocol.stream.chunks import LEVEL_DEFAULT, Compressor  # noqa: E402
from fullsend_protocol.stream.merge import MergeInput, merge  # noqa: E402
from fullsend_protocol.stream.running_sums import RunningSums  # noqa: E402
from fullsend_receiver.store.local import make_store  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterable

MIB: Final = 1 << 20
PIECE: Final = MIB
CHUNK: Final = 4 * MIB
RAW: Final = 128 * MIB
ROUNDS: Final = 3
#: As many as one merge takes.
INPUTS: Final = 8
#: Runs a program, and prints its processor seconds and its peak of memory in KiB.
_MEASURE: Final = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss)
"""
_VOLUME: Final = 23  # DMU_OT_ZVOL


def volume(block: int, blocks: Iterable[int], size: int, *, guid: int, base: int, seed: int) -> bytes:
    """Return a stream of one volume of `size` bytes, with these blocks. Half of each block compresses."""
    r = random.Random(seed)
    opening = bytearray(streams.object_(1))
    opening[16:20] = _VOLUME.to_bytes(4, "little")
    opening[24:28] = block.to_bytes(4, "little")
    opening[34] = 1
    records = [bytes(opening), streams.free(1, size, (1 << 64) - 1)]
    records += [streams.write(1, number * block, r.randbytes(block // 2) + bytes(block // 2)) for number in blocks]
    begin = streams.begin("tank/volume@now", guid, base, flags=12)
    return resumed.summed(begin, [*(streams.marked(record, guid) for record in records), streams.end(guid)])


def pieces(raw: bytes) -> list[memoryview]:
    return [memoryview(raw)[at : at + PIECE] for at in range(0, len(raw), PIECE)]


def measure(block: int) -> None:
    """Print a line for each stage."""
    count = RAW // block
    full = volume(block, range(count), RAW, guid=1, base=0, seed=1)
    changed = sorted(random.Random(2).sample(range(count), max(count // 100, 1)))
    newer = volume(block, changed, RAW, guid=2, base=1, seed=3)
    best = {"merge": 1e9, "checksums": 1e9, "zstd": 1e9}
    for _round in range(ROUNDS):
        start = time.process_time()
        size = sum(map(len, merge([MergeInput("full", pieces(full)), MergeInput("newer", pieces(newer))])))
        best["merge"] = min(best["merge"], time.process_time() - start)
        start = time.process_time()
        sums = RunningSums("newer")
        for piece in pieces(newer):
            sums.feed(piece)
        sums.finish()
        best["checksums"] = min(best["checksums"], time.process_time() - start)
        start = time.process_time()
        compressor = Compressor(LEVEL_DEFAULT)
        for at in range(0, len(full), CHUNK):
            compressor.compress(full[at : at + CHUNK])
        best["zstd"] = min(best["zstd"], time.process_time() - start)
    name, cost = f"{block >> 10:4} KiB", best["merge"] / count * 1e6
    print(f"{name}  merge      {size / best['merge'] / 1e6:7.0f} MB/s  {cost:.0f} us a record")
    print(f"          checksums  {len(newer) / best['checksums'] / 1e6:7.0f} MB/s of an input without a known SHA-256")
    print(f"          zstd       {len(full) / best['zstd'] / 1e6:7.0f} MB/s, the result's compression")


def measure_store(block: int, folder: Path) -> None:
    """Print what a merge in a store takes, the process as a whole."""
    count = RAW // block
    store, store_id = make_store(folder / "store", lambda _store: None)
    config = folder / "receiver.toml"
    lines = (f'store = "{store.root}"', f'store-id = "{store_id}"', 'rebase-after = "0%"', 'merge-rate = "0"')
    policy = ("[retention]", "last = 0", "minimum-count = 0", 'minimum-age = "0s"')
    config.write_text("\n".join([*lines, *policy]), encoding="utf-8")
    raw_bytes = 0
    # The two newest are not touched.
    for number in range(1, INPUTS + 3):
        some = range(count) if number == 1 else sorted(random.Random(number).sample(range(count), count // 4))
        raw = volume(block, some, RAW, guid=number, base=number - 1, seed=number)
        store_stream(store, "alpha", raw)
        raw_bytes += len(raw) * (number <= INPUTS)
    start = time.perf_counter()
    command = [sys.executable, "-m", "fullsend_receiver", "--config", str(config), "prune", "--merge-only"]
    # Beside a small process: a child's peak of memory begins with that of its parent.
    done = subprocess.run([sys.executable, "-c", _MEASURE, *command], check=True, stdout=subprocess.PIPE)
    seconds, (cpu, peak) = time.perf_counter() - start, map(float, done.stdout.split())
    (full,) = (each for each in store.objects() if ".full." in each.file.name)
    size = store.manifest(full.file).raw_bytes
    gib, speed = raw_bytes / 1024 / MIB, raw_bytes / seconds / 1e6
    print(f"{block >> 10:4} KiB  in a store {speed:7.0f} MB/s of {INPUTS} inputs with {raw_bytes / MIB:.0f} MiB")
    print(f"          processor  {cpu / gib:7.1f} s for each GiB read; the result has {size / MIB:.0f} MiB")
    print(f"          memory     {peak / 1024:7.0f} MiB at its peak")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--store"]:
        with TemporaryDirectory(dir="/dev/shm") as temporary:
            measure_store(int(sys.argv[2]), Path(temporary))
        sys.exit()
    for each in (128 << 10, 8 << 10):
        measure(each)
    for each in (128 << 10, 8 << 10):  # each in a process: the peak of memory is that of all children
        subprocess.run([sys.executable, __file__, "--store", str(each)], check=True)
