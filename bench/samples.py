"""Where whole programs spend their CPU time: shares of samples that `perf` takes of them, 4,000 a second.

A stage that runs alone in another minute says little where the machine's speed changes by a third meanwhile. Here the
work of the stages and what comes on top are samples of the same seconds. The bytes that stages move are counted to
them, wherever that happens: what is copied in memory, or by the kernel.

The last column is a receiver that does nothing (bench/bare_loop.py): no less Python can receive so many bytes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench import programs
from bench.fullsend_hosts import Receiver, Sender
from bench.measure import BenchError, run_quietly, wait_for
from bench.report import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.report import Results
    from bench.scenarios import Streams

_PERF: Final = ("perf", "record", "--quiet", "--freq", "4000", "--event", "cpu-clock")
_BARE: Final = Path(__file__).with_name("bare_loop.py")
#: Bytes of the frame of a chunk that compresses, and how many are sent.
_FRAME: Final = 1_712_000
_FRAMES: Final = 1024
#: Restores of one sample of the daemon, which spends little on each.
_RESTORES: Final = 4

ZSTD: Final = "zstd"
CRYPTO: Final = "SHA-256, AES"
KERNEL_DATA: Final = "the kernel moves bytes"
MEMORY: Final = "memory is copied, or set to zero"
STAGES: Final = (ZSTD, CRYPTO, KERNEL_DATA, MEMORY)
LOOP: Final = "Python and uvloop: event loop, and the start"
THREADS: Final = "Python in threads"
KERNEL: Final = "the kernel, all else: waking, switching, faults of pages"
REST: Final = "all else: malloc, glue of TLS"
_KINDS: Final = (*STAGES, LOOP, THREADS, KERNEL, REST)

#: Words in the names of the kernel's functions that move bytes.
_MOVES: Final = ("copy", "shmem", "clear_page", "folio", "memcg", "charge", "iov", "filemap", "xa", "page")
_FAULTS: Final = ("exc_page_fault", "handle_mm_fault")


def kind_of(library: str, function: str, *, in_loop: bool) -> str:
    """Return what a sample counts for. `library`: the file's name; `in_loop`: of the thread of the event loop."""
    if library.startswith("backend_c."):
        return ZSTD
    if library.startswith("libcrypto."):
        return CRYPTO
    if "kernel" in library:
        moves = any(word in function for word in _MOVES) and not any(word in function for word in _FAULTS)
        return KERNEL_DATA if moves else KERNEL
    if library.startswith("libc."):
        return MEMORY if function.startswith("__mem") else REST
    if library.startswith(("libssl.", "_ssl.")):
        return REST
    return LOOP if in_loop else THREADS


def count(lines: Sequence[str], pid: int | None = None) -> Counter[str]:
    """Count the samples of one process by their kind. `lines`: of `perf script --fields pid,tid,ip,sym,dso`; `pid`:
    None: that with the most samples.
    """
    of: dict[int, Counter[str]] = {}
    for line in lines:
        ids, _, rest = line.strip().partition(" ")
        if "/" not in ids:
            continue
        process, thread = map(int, ids.split("/"))
        _address, _, named = rest.strip().partition(" ")
        function, _, library = named.rpartition(" (")
        kind = kind_of(library.rstrip(")").rpartition("/")[2], function, in_loop=process == thread)
        of.setdefault(process, Counter())[kind] += 1
    if pid is not None:
        return of.get(pid, Counter())
    return max(of.values(), key=Counter.total, default=Counter())


def take(results: Results, streams: Streams, folder: Path, say: Callable[[str], None]) -> None:
    """Push and restore a stream of each kind under `perf`, and add a table. Raises: BenchError, e.g. without perf."""
    if not programs.find("perf"):
        msg = "this machine lacks perf (Debian: linux-perf); please install it"
        raise BenchError(msg)
    columns: dict[str, Counter[str]] = {}
    receiver = Receiver(folder / "receiver")
    with receiver.service() as daemon:
        sender = Sender(folder / "alpha", receiver, "alpha")
        for name, stream in (("compressible", streams.compressible), ("mix", streams.mix)):
            sender.push(stream, daemon)  # what happens only once is no part of it
            with _sampled(folder, daemon.pid) as found:
                for _ in range(2):
                    sender.push(stream, daemon)
            columns[f"{name}: push, sender"] = _run(folder, sender.push_command(), stream.path)
            columns[f"{name}: push, receiver"] = found
            with _sampled(folder, daemon.pid) as found:
                for _ in range(_RESTORES):
                    sender.cat(daemon)
            columns[f"{name}: restore, `fullsend cat`"] = _run(folder, sender.cat_command())
            columns[f"{name}: restore, receiver"] = found
            sender.forget()
            say(f"samples of {name}: taken")
        columns["bare loop"] = _bare_loop(folder, *sender.certificate)
    results.tables.append(table(columns))


def table(columns: dict[str, Counter[str]]) -> Table:
    """Return the table of shares, in per cent of each column's samples."""
    rows = [[kind, *(f"{_share(found, kind):.1f}" for found in columns.values())] for kind in _KINDS]
    whole = [f"{found.total() / max(1, sum(found[kind] for kind in STAGES)):.2f}" for found in columns.values()]
    numbers = [f"{found.total():,}" for found in columns.values()]
    rows += [["**whole, times its first four rows**", *whole], ["samples", *numbers]]
    legend = (
        "Per cent of the samples of each program. The first four rows are the work of the stages. With the start of"
        " Python, where the program is started. The bare loop only receives: see bench/bare_loop.py."
    )
    return Table("Shares of CPU time, whole programs", ["", *columns], rows, legend)


def _share(found: Counter[str], kind: str) -> float:
    return 100 * found[kind] / max(1, found.total())


@contextlib.contextmanager
def _sampled(folder: Path, pid: int) -> Iterator[Counter[str]]:
    """Take samples of a process that runs, until the end. Gives: the counts, which are there then."""
    found: Counter[str] = Counter()
    data = folder / "perf.data"
    data.unlink(missing_ok=True)
    with subprocess.Popen([*_PERF, "--output", data, "--pid", str(pid)], stdin=subprocess.DEVNULL) as perf:
        try:
            wait_for(data.exists, "perf to begin")
            yield found
        finally:
            perf.send_signal(signal.SIGINT)
    found.update(count(_script(data), pid))


def _run(folder: Path, argv: Sequence[str | Path], source: Path = Path(os.devnull)) -> Counter[str]:
    """Run a program to its end, and return the counts of its samples. Raises: BenchError."""
    data = folder / "perf.data"
    with source.open("rb") as file:
        done = subprocess.run(
            [*_PERF, "--output", data, "--", *argv],
            stdin=file,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
    if done.returncode:
        msg = f"{argv[0]} under perf: exit {done.returncode}: {done.stderr.decode(errors='replace').strip()}"
        raise BenchError(msg)
    return count(_script(data))


def _script(data: Path) -> list[str]:
    return run_quietly(["perf", "script", "--input", data, "--fields", "pid,tid,ip,sym,dso"]).splitlines()


def _bare_loop(folder: Path, certificate: Path, key: Path) -> Counter[str]:
    """Send as much to a receiver that does nothing, and return the counts of its samples."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    frame = os.urandom(_FRAME)
    argv: list[str | Path] = [sys.executable, _BARE, certificate, key, str(_FRAME)]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as bare:
        assert bare.stdout is not None
        port = int(bare.stdout.readline())
        with (
            _sampled(folder, bare.pid) as found,
            socket.create_connection(("127.0.0.1", port)) as plain,
            context.wrap_socket(plain) as channel,
        ):
            for _ in range(_FRAMES):
                channel.sendall(frame)
            channel.shutdown(socket.SHUT_WR)
            bare.wait()
    return found
