"""How exact `--bwlimit` is: .venv/bin/python bench/throttle.py

Pushes streams that do not compress over the loopback, in memory, for some seconds each. One job is `fullsend push
--stdin`; several are transfers in one process, with the one throttle that a push has. Between sender and daemon, a
relay counts all bytes of the connections, after the handshake those of TLS, and when they came.

The first and the last hundredth of the bytes are left out: the handshakes, and jobs that end before others. "Any
second" begins every 10 ms.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench import data  # noqa: E402 - the path comes first
from bench.data import MIB  # noqa: E402
from bench.fullsend_hosts import Receiver, Sender  # noqa: E402
from bench.measure import Measurement  # noqa: E402

from fullsend_cli.progress import Progress  # noqa: E402
from fullsend_protocol.shared.stages import StageWaits  # noqa: E402
from fullsend_sender.host import config, runtime  # noqa: E402
from fullsend_sender.host.identity import Identity  # noqa: E402
from fullsend_sender.transfer.send import StreamContext, TransferOptions, transfer  # noqa: E402
from fullsend_transport.throttle import Throttle  # noqa: E402

if TYPE_CHECKING:
    from bench.measure import Run, Service

_SECONDS: Final = 6
_RATES: Final = (MIB, 10 * MIB, 100 * MIB)
_JOBS: Final = (1, 4)
#: Of all bytes; so many at the beginning and at the end are not measured.
_ENDS: Final = 0.01
_STEP: Final = 0.01
_BATCH: Final = 256 << 10


class Relay:
    """Passes connections on to a port, and notes when bytes came from the client."""

    def __init__(self, port: int) -> None:
        self.came: list[tuple[float, int]] = []
        self._to = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        # Its threads inherit this. What it notes late would look like a pause, and then a burst, of the sender.
        with contextlib.suppress(OSError):  # only root may
            os.setpriority(os.PRIO_PROCESS, 0, -20)
        while True:
            client, _address = self._listening.accept()
            daemon = socket.create_connection(("127.0.0.1", self._to))
            for each in (client, daemon):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._pass, args=(client, daemon, self.came), daemon=True).start()
            threading.Thread(target=self._pass, args=(daemon, client, []), daemon=True).start()

    @staticmethod
    def _pass(source: socket.socket, target: socket.socket, came: list[tuple[float, int]]) -> None:
        buffer = memoryview(bytearray(_BATCH))
        with contextlib.suppress(OSError):
            while count := source.recv_into(buffer):
                came.append((time.monotonic(), count))
                target.sendall(buffer[:count])
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


def figures(came: list[tuple[float, int]], rate: int) -> tuple[float, float, float]:
    """Return measured rate by asked rate: over the whole, and the least and the most in any second."""
    came.sort()
    totals = list(itertools.accumulate(count for _when, count in came))
    times = [when for when, _count in came]
    first = bisect.bisect_left(totals, totals[-1] * _ENDS)
    last = bisect.bisect_left(totals, totals[-1] * (1 - _ENDS))
    whole = (totals[last] - totals[first]) / (times[last] - times[first])

    def before(when: float) -> int:
        at = bisect.bisect_left(times, when)
        return totals[at - 1] if at else 0

    begins = [times[first] + step * _STEP for step in range(int((times[last] - times[first] - 1) / _STEP))]
    seconds = [before(begin + 1) - before(begin) for begin in begins]
    return whole / rate, min(seconds) / rate, max(seconds) / rate


async def push_several(rate: int, configs: list[str], streams: list[str]) -> None:
    """Push the streams at the same time, with one limit; `rate` 0: none."""
    throttle = Throttle.limited(rate or None)

    async def push(file: str, stream: str) -> None:
        settings, identity = config.load(file, {}, {}), Identity.beside(file)
        progress = Progress(time.monotonic(), None, waits=StageWaits("source", "receiver"))
        producer = subprocess.Popen(["cat", stream], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert producer.stdout is not None
        with producer:
            await transfer(
                producer.stdout.fileno(),
                settings.endpoint(),
                identity,
                TransferOptions(3, 1, throttle),
                about=StreamContext(keep_orphan=True),
                progress=progress,
            )

    await asyncio.gather(*(push(*each) for each in zip(configs, streams, strict=True)))


def measure(rate: int, jobs: int, folder: Path, noise: bytes) -> tuple[tuple[float, float, float], Run]:
    """Push for some seconds. Returns: the figures, and the costs."""
    receiver = Receiver(folder / "receiver")
    streams, senders = [], []
    with receiver.service() as daemon:
        relay = Relay(receiver.port)
        for number in range(jobs):
            stream = folder / f"{number}.zfs"
            data.write_stream(stream, noise, rate * _SECONDS // jobs, data.LARGE_RECORD, snapshot=str(number))
            sender = Sender(folder / f"sender{number}", receiver, f"sender{number}")
            sender.connect_to(relay.port)
            streams.append(stream)
            senders.append(sender)
        run = _push(rate, senders, streams, daemon)
    return figures(relay.came, rate), run


def _push(rate: int, senders: list[Sender], streams: list[Path], daemon: Service) -> Run:
    with Measurement({"storage host": [daemon.pid]}) as measured:
        before = daemon.cpu()
        if len(senders) == 1:
            measured.child([*senders[0].push_command(), "--bwlimit", str(rate)], source=streams[0])
        else:
            configs = [str(sender.config) for sender in senders]
            measured.child([sys.executable, __file__, "--push", str(rate), *configs, *map(str, streams)])
        measured.stop_clock()
        measured.cpu["storage host"] = daemon.cpu() - before
    return measured.run()


def main() -> None:
    """Print a line for each rate and number of jobs."""
    noise = data.random_pool()
    print(f"load average {os.getloadavg()[0]:.1f} before; {os.cpu_count()} processors")
    print("asked           jobs   whole   any second   CPU s of others, of all in s")
    for rate, jobs in itertools.product(_RATES, _JOBS):
        with TemporaryDirectory(dir="/dev/shm") as temporary:
            (whole, least, most), run = measure(rate, jobs, Path(temporary), noise)
        seconds = f"{run.others:.1f} of {os.cpu_count()} x {run.seconds:.1f}"
        print(f"{rate / MIB:5.0f} MiB/s {jobs:8}   {whole:5.3f}   {least:.3f} to {most:.3f}   {seconds}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--push"]:
        rate, *files = sys.argv[2:]
        half = len(files) // 2
        runtime.run(push_several(int(rate), files[:half], files[half:]))
    else:
        main()
