"""How long the daemon's event loop is blocked while many streams arrive: .venv/bin/python bench/loop_lag.py

The daemon runs as `fullsendd serve` runs it, in a process of this script, with a task on its loop that wakes every few
milliseconds and notes how late it is. 64 senders push at once, in memory, all in one other process.

A wake is late because the loop's thread computed, or was ready and the kernel gave the processor to others (its time in
the run queue, /proc/self/schedstat), or waited: for a thread that held the interpreter, or in a call that blocks. What
the daemon itself is to blame for is at most what it computed: that of the loop's thread, and of the time in which that
waited no more than the other threads computed. While the loop is late, a thread notes where it is.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import os
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

sys.path[0] = str(Path(__file__).resolve().parent.parent)

import uvloop  # noqa: E402 - the path comes first
from bench import data  # noqa: E402
from bench.data import MIB  # noqa: E402
from bench.fullsend_hosts import Receiver, Sender  # noqa: E402
from bench.measure import Measurement, Service  # noqa: E402

from fullsend_cli.memory import keep_blocks  # noqa: E402
from fullsend_receiver.access import config  # noqa: E402
from fullsend_receiver.cli.configuration import open_store  # noqa: E402
from fullsend_receiver.daemon.server import Daemon  # noqa: E402
from fullsend_receiver.store.event_recorder import recording  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

_MANY: Final = 64
_SIZE: Final = 32 * MIB
_EVERY: Final = 0.005
#: Seconds. A wake that is later than this is noted, with its parts, and the loop's place is looked at.
_LATE: Final = 0.02
#: What the daemon should stay below.
_BUDGET: Final = 0.05


@dataclass(slots=True)
class Wake:
    """A late wake, in seconds: how late; since the wake before, the thread computed, and was in the run queue, and all
    threads computed. `places`: where the loop was.
    """

    late: float
    computed: float
    queued: float
    process: float
    places: list[str] = field(default_factory=list)

    @property
    def own(self) -> float:
        """Seconds that are the daemon's, at most."""
        waited = max(0.0, self.late - self.computed - self.queued)
        return min(self.late, self.computed + min(waited, self.process - self.computed))


class Probe:
    """Wakes on a loop, and notes how late."""

    def __init__(self) -> None:
        self.wakes = 0
        self.late: list[Wake] = []
        self.others: list[str] = []
        self._due = 0.0
        self._places: list[str] = []
        self._thread = threading.get_ident()
        self._stat = open(f"/proc/self/task/{threading.get_native_id()}/schedstat", encoding="ascii")  # noqa: SIM115

    async def run(self) -> None:
        """Wake until cancelled."""
        threading.Thread(target=self._look, daemon=True).start()
        while True:
            before = self._times()
            self._due = time.monotonic() + _EVERY
            await asyncio.sleep(_EVERY)
            late = time.monotonic() - self._due
            self._due = 0.0
            self.wakes += 1
            if late > _LATE:
                computed, queued, process = (after - early for after, early in zip(self._times(), before, strict=True))
                self.late.append(Wake(late, computed, queued, process, self._places))
            self._places = []

    def _times(self) -> tuple[float, float, float]:
        """Return this thread's seconds on a processor, and in its run queue; those of all threads on a processor."""
        self._stat.seek(0)
        _ran, queued, _times = map(int, self._stat.read().split())
        return time.thread_time(), queued / 1e9, time.process_time()

    def _look(self) -> None:
        while True:
            time.sleep(_EVERY)
            due = self._due
            if due and time.monotonic() - due > _LATE:
                self._places.append(_place(sys._current_frames()[self._thread]))


def _place(frame: FrameType | None) -> str:
    """Return the innermost functions, of this project the last, and what it calls."""
    names: list[str] = []
    while frame is not None and len(names) < 4:
        code = frame.f_code
        names.append(f"{Path(code.co_filename).stem}:{frame.f_lineno} {code.co_name}")
        frame = frame.f_back
    return " < ".join(names)


def serve(file: Path, result: Path) -> None:
    """Run the daemon with a probe, until SIGTERM. What was seen goes to `result`."""
    settings, store = open_store(argparse.Namespace(config=file))
    keep_blocks(8 * MIB, 64 * MIB)
    os.umask(0o027)
    probe = Probe()
    with recording(store), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        command = [sys.executable, "-m", "fullsend_receiver", "--config", str(file)]
        daemon = Daemon(
            settings,
            store,
            reread=partial(config.load, file),
            merge_command=[*command, "prune", "--merge-only"],
            hash_command=[*command, "merge", "--sha256"],
        )

        async def run() -> None:
            probing = asyncio.create_task(probe.run())
            await daemon.run()
            probing.cancel()

        runner.run(run())
    result.write_text(json.dumps([probe.wakes, [asdict(wake) for wake in probe.late]]), encoding="utf-8")


def main() -> None:
    """Print what was seen."""
    with TemporaryDirectory(dir="/dev/shm") as temporary:
        folder = Path(temporary)
        receiver, result = Receiver(folder / "receiver"), folder / "result"
        command: list[str | Path] = [sys.executable, __file__, "--serve", receiver.config, result]
        stream = folder / "stream"
        data.write_stream(stream, data.compressible_pool(), _SIZE, data.LARGE_RECORD, snapshot="now")
        with Service(command, folder / "log", receiver.port) as daemon:
            senders = [Sender(folder / f"s{number}", receiver, f"s{number}") for number in range(_MANY)]
            push: list[str | Path] = [sys.executable, Path(__file__).with_name("throttle.py"), "--push", "0"]
            with Measurement({"storage host": [daemon.pid]}) as measured:
                before = daemon.cpu()
                measured.child([*push, *(sender.config for sender in senders), *[stream] * _MANY])
                measured.stop_clock()
                measured.cpu["storage host"] = daemon.cpu() - before
        run = measured.run()
        wakes, noted = json.loads(result.read_text(encoding="utf-8"))
    late = [Wake(**each) for each in noted]
    print(f"{_MANY} streams of {_SIZE / MIB:.0f} MiB in {run.seconds:.1f} s; CPU s: daemon {run.storage.cpu:.1f},")
    print(f"senders {run.zfs_host.cpu:.1f}, others {run.others:.1f}, of {os.cpu_count()} x {run.seconds:.1f}")
    print(f"{wakes} wakes, {len(late)} later than {_LATE * 1000:.0f} ms")
    _show("late", late, lambda wake: wake.late)
    _show("late by the daemon itself, at most", late, lambda wake: wake.own)


def _show(name: str, late: list[Wake], key: Callable[[Wake], float]) -> None:
    worst = sorted(late, key=key, reverse=True)[:8]
    over = sum(key(wake) > _BUDGET for wake in late)
    print(f"{name}: {over} above {_BUDGET * 1000:.0f} ms; the worst, in ms (late, computed, queued, process):")
    for wake in worst:
        places = collections.Counter(wake.places).most_common(2)
        times = (f"{value * 1000:6.1f}" for value in (wake.late, wake.computed, wake.queued, wake.process))
        print("   ", *times, "  ", "; ".join(f"{count} x {place}" for place, count in places))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
