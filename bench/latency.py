"""What a wire with latency costs a night of many small increments: .venv/bin/python bench/latency.py [DATASETS]

A relay between sender and daemon delivers all bytes later, in both directions, in their order. The bandwidth is not
limited. The host is that of the part `increments`.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.increments import NightHost  # noqa: E402 - the path comes first

#: Seconds for a way and back.
_ROUND_TRIPS: Final = (0.0, 0.02)
_JOBS: Final = (1, 4)
_DATASETS: Final = 200
_REPETITIONS: Final = 3
_STEP: Final = 1 << 16


class Delay:
    """Passes connections on to a port, all bytes `seconds` later. In a thread of its own."""

    def __init__(self, port: int, seconds: float) -> None:
        """Begin. `port`: of the daemon."""
        self._to = port
        self._seconds = seconds
        self._listens = threading.Event()
        self.port = 0
        threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True).start()
        self._listens.wait()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listens.set()
        await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        daemon_reader, daemon_writer = await asyncio.open_connection("127.0.0.1", self._to)
        await asyncio.gather(self._pass(reader, daemon_writer), self._pass(daemon_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await reader.read(_STEP):
                loop.call_at(loop.time() + self._seconds, writer.write, data)
        loop.call_at(loop.time() + self._seconds, writer.close)


def main() -> None:
    """Measure, and print a line for each push."""
    datasets = int(sys.argv[1]) if sys.argv[1:] else _DATASETS
    for _repetition in range(_REPETITIONS):
        for jobs in _JOBS:
            for round_trip in _ROUND_TRIPS:
                with TemporaryDirectory(dir="/dev/shm", prefix="fullsend-latency-") as folder:
                    host = NightHost(Path(folder) / "night", datasets)
                    with host.receiver.service() as daemon:
                        host.pair().connect_to(Delay(host.receiver.port, round_trip / 2).port)
                        run, _counted = host.push(daemon, "--jobs", str(jobs))
                text = f"{1000 * round_trip:.0f} ms, {jobs} jobs: {1000 * run.seconds / datasets:.1f} ms a dataset"
                print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    main()
