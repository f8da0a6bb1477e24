"""A prune that really removes streams from a store of many: time, memory and syncs of `fullsendd prune`.

The streams have names and manifests, and almost no data: a prune reads no data. Each dataset has a new full in every
tenth night, so that the oldest fifth of its streams can go. That is more than `prune-at-most` allows by its bytes, so
the prune runs with --yes-more. It is measured twice: with many datasets, and with all streams in one.
"""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bench.measure import TIMEOUT, BenchError
from bench.report import Budget
from tests.receiver.helpers import plant
from tests.receiver.running import Receiver

from fullsend_protocol.shared.units import format_time
from fullsend_receiver.store.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.report import Results

_STREAMS: Final = 100_000
_QUICK: Final = 5_000
_A_DATASET: Final = 100
#: Streams of a chain; and one stream of so many goes.
_CHAIN: Final = 10
_GOES: Final = 5
#: Seconds from one stream of a dataset to the next: a night, and where all streams are in one dataset.
_NIGHT: Final = 86_400
_OFTEN: Final = 900
_MIB: Final = 1 << 20
#: Runs a program as `python -m` does, counts its syncs, and writes what it took to a file.
_COUNTED: Final = """\
import json, os, runpy, sys, time
syncs = 0
def counted(real):
    def sync(descriptor):
        global syncs
        syncs += 1
        return real(descriptor)
    return sync
os.fsync, os.fdatasync = counted(os.fsync), counted(os.fdatasync)
result, module = sys.argv[1:3]
sys.argv[1:] = sys.argv[3:]
began = time.monotonic()
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
finally:
    seconds = time.monotonic() - began
    with open("/proc/self/status") as status:
        peak = next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM:"))
    with open(result, "w") as file:
        json.dump({"seconds": seconds, "cpu": time.process_time(), "peak": peak, "syncs": syncs}, file)
"""


@dataclass(frozen=True, slots=True)
class _Took:
    """What one run of a command took. `cpu`: seconds of processor time; `peak`: bytes of memory."""

    seconds: float
    cpu: float
    peak: int
    syncs: int


def prune_many(results: Results, folder: Path, say: Callable[[str], None], *, quick: bool) -> None:
    """Store the streams, prune a fifth of them, and report what that took."""
    streams = _QUICK if quick else _STREAMS
    for datasets in (streams // _A_DATASET, 1):
        goes = streams // _GOES
        among = f"{goes:,} of {streams:,} streams of {datasets:,} dataset{'s' * (datasets > 1)}"
        host = _Host(folder / f"prune-{datasets}", datasets, streams)
        say(f"storing {streams} streams")
        host.plant()
        host.fullsendd("prune", "--dry-run", "--yes-more")  # the summaries exist from now on
        told = host.fullsendd("prune", "--dry-run", "--yes-more")
        took = host.fullsendd("prune", "--yes-more")
        host.check(streams - goes)

        for text, value, unit in (
            (f"prune, {among}: dry run", told.seconds, " s"),
            (f"prune, {among}", took.seconds, " s"),
            ("its processor time", took.cpu, " s"),
            ("its memory, at its peak", took.peak / _MIB, " MiB"),
            ("its syncs", took.syncs, ""),
        ):
            say(f"{text}: {value:.1f}{unit}")
            results.budgets.append(Budget(text, None, [value], unit, at_least=False))


class _Host:
    """A storage host with so many streams. Its daemon does not run."""

    def __init__(self, folder: Path, datasets: int, streams: int) -> None:
        self._folder = folder
        self._datasets = datasets
        self._each = streams // datasets
        self._receiver = Receiver(folder)
        self._receiver.init()
        keeps = self._each - self._each // _GOES
        with self._receiver.config.open("a", encoding="utf-8") as file:
            file.write(f"[retention]\nlast = {keeps}\n")

    def plant(self) -> None:
        """Store the streams: for each dataset fulls, each with increments. All were received by now."""
        store = LocalStore(self._receiver.store)
        chance = random.Random(1)
        every = _NIGHT if self._datasets > 1 else _OFTEN
        first = int(time.time()) - (self._each + 1) * every
        last: dict[int, int] = {}
        for number in range(self._each * self._datasets):
            night, place = divmod(number, self._datasets)
            at = first + night * every + place * every // (2 * self._datasets)
            guid = chance.randrange(1, 1 << 64)
            plant(
                store,
                f"fullsend-0123abcd-{format_time(at).replace('-', '').replace(':', '')}",
                guid,
                last[place] if night % _CHAIN else None,
                dataset=f"tank/home/user-{place:04}",
                flags="Lp",
                created=format_time(at),
                begun=format_time(at),
                received=format_time(at + 1),
                sequence=1 + number,
                raw_bytes=chance.randrange(10**6, 10**10),
                sha256=hashlib.sha256(number.to_bytes(8)).hexdigest(),
            )
            last[place] = guid

    def fullsendd(self, *arguments: str) -> _Took:
        """Run a command. Returns: what it took. Raises: BenchError."""
        result = self._folder / "took.json"
        command = [sys.executable, "-c", _COUNTED, str(result), "fullsend_receiver"]
        config = ["--config", str(self._receiver.config)]
        with (self._folder / "said").open("wb") as said:
            done = subprocess.run(
                [*command, *config, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.PIPE,
                check=False,
                timeout=TIMEOUT,
            )
        if done.returncode:
            msg = f"fullsendd {' '.join(arguments)}: exit {done.returncode}: {done.stderr.decode(errors='replace')}"
            raise BenchError(msg)
        return _Took(**json.loads(result.read_bytes()))

    def check(self, streams: int) -> None:
        """Check that so many streams are left, each with its files. Raises: BenchError."""
        store = self._receiver.store
        found = [sum(1 for _ in store.rglob(f"@*.zfs.zst{suffix}")) for suffix in ("", ".json", ".sha256")]
        if found != [streams] * 3:
            msg = f"a prune should have left {streams} streams, and left {found}"
            raise BenchError(msg)
