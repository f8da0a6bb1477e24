"""The speed of a merge: .venv/bin/python bench/merge.py

Made-up streams, in memory: a full volume, and an increment that replaces a hundredth of its blocks. Each stage is
measured alone, on one core, as processor time.

Then `fullsendd prune --merge-only`, as the daemon runs it: a full and seven increments of a quarter of it each become
one full, in a store in memory (/dev/shm). That reads, proves, merges, compresses, writes and reads back.
"""

from __future__ import annotations

import hashlib
import math
import random
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

sys.path[0] = str(Path(__file__).resolve().parent.parent)

import zstandard  # noqa: E402 - the path comes first
from tests import resumed, streams  # noqa: E402 - the path comes first
from tests.receiver.helpers import store_stream  # noqa: E402

from fullsend_protocol.stream.chunks import LEVEL_DEFAULT, Compressor  # noqa: E402
from fullsend_protocol.stream.merge import MergeInput, merge  # noqa: E402
from fullsend_protocol.stream.records import Walker  # noqa: E402
from fullsend_protocol.stream.running_sums import RunningSums  # noqa: E402
from fullsend_receiver.store.local import make_store  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MIB: Final = 1 << 20
GIB: Final = 1 << 30
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


def in_chunks(raw: bytes) -> list[bytes]:
    return [raw[at : at + CHUNK] for at in range(0, len(raw), CHUNK)]


def walk(raw: bytes) -> None:
    walker = Walker()
    for at in range(0, len(raw), CHUNK):
        walker.walk(raw, at, min(at + CHUNK, len(raw)), len(raw) + 1)
    walker.finish()


def sums_of(raw: bytes) -> None:
    sums = RunningSums("it")
    for piece in pieces(raw):
        sums.feed(piece)
    sums.finish()


def stages(block: int) -> dict[str, tuple[Callable[[], object], int]]:
    """Each stage of a merge, and the raw bytes that go through it."""
    count = RAW // block
    full = volume(block, range(count), RAW, guid=1, base=0, seed=1)
    changed = sorted(random.Random(2).sample(range(count), max(count // 100, 1)))
    newer = volume(block, changed, RAW, guid=2, base=1, seed=3)
    compressor, decompressor = Compressor(LEVEL_DEFAULT), zstandard.ZstdDecompressor()
    frames = [compressor.compress(bytearray(each)) for each in in_chunks(full)]
    inputs = [(name, pieces(raw)) for name, raw in (("full", full), ("newer", newer))]
    return {
        "decode the inputs": (lambda: [decompressor.decompress(each) for each in frames], len(full)),
        "SHA-256 of the inputs": (lambda: hashlib.sha256(full), len(full)),
        "merge": (lambda: sum(len(each) for each in merge([MergeInput(*each) for each in inputs])), len(full)),
        "walk the result": (lambda: walk(full), len(full)),
        "SHA-256 of the result": (lambda: hashlib.sha256(full), len(full)),
        "zstd, level 3": (lambda: [compressor.compress(bytearray(each)) for each in in_chunks(full)], len(full)),
        "read back: decode, SHA-256": (
            lambda: [hashlib.sha256(decompressor.decompress(each)) for each in frames],
            len(full),
        ),
        "checksums, of an input without a known SHA-256": (lambda: sums_of(newer), len(newer)),
    }


def measure(block: int) -> None:
    """Print a line for each stage: processor seconds for each GiB, the best of some rounds."""
    print(f"{block >> 10} KiB records:")
    for name, (stage, size) in stages(block).items():
        best = math.inf
        for _round in range(ROUNDS):
            start = time.process_time()
            stage()
            best = min(best, time.process_time() - start)
        per_record = f"  {best / (size / block) * 1e6:.1f} us a record" if name == "merge" else ""
        print(f"    {name:48}{best * GIB / size:7.2f} s for each GiB {size / best / 1e6:7.0f} MB/s{per_record}")


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
