"""A store in a bucket beside one in a folder, and beside what others use to copy into a bucket; 64 streams at once.

All of it through one gateway of a Ceph on this machine, which shares the cores with both ends: its CPU seconds are
counted apart. The copiers run on the ZFS host, since no daemon is between them and the object store. What a run has
stored is removed at the end of each repetition, with all that the object store does later for that.
"""

from __future__ import annotations

import contextlib
import itertools
import shlex
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final, Self

from bench.data import MIB
from bench.fullsend_hosts import Receiver, Sender, check_pushed
from bench.measure import OBJECT_STORE, STORAGE, ZFS_HOST, ChildError, Measurement, Run, Service, new_peak, run_quietly
from bench.object_store import AwsCli, BucketHost, Ceph, Copier, Rclone, check_object
from bench.peers import bash
from bench.report import Budget, Row, Table

from fullsend_protocol.shared.exit_codes import Exit
from fullsend_receiver.arrival.receive import UNDURABLE_MOST
from fullsend_receiver.store_s3.part_sizes import PartSizes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from bench.peers import Stream
    from bench.report import Results
    from bench.scenarios import Streams

_MANY: Final = 64
_MANY_QUICK: Final = 8
#: docs/operations.md, "Memory", adds these up, in MiB: of the daemon with boto3, and of each arriving stream in any
#: store.
_DAEMON: Final = 88
_STREAM: Final = 48
#: Frames of a stream that are not durable, and those that are and wait for a part, below twice its least size.
_WAITING: Final = (UNDURABLE_MOST + 2 * PartSizes().least) // MIB
#: Streams whose batches are being stored at the same time, each with its bytes once more: the daemon's `disk` threads.
_STORING: Final = 32
#: Columns of memory over time.
_TENTHS: Final = 10
#: Seconds between two looks at memory.
_LOOK_EVERY: Final = 0.25
_COPIES: Final = "copies/"
_KEPT: Final = "copies/kept.zst"


def memory_bound(streams: int) -> int:
    """Return the MiB that fullsendd holds at most while so many streams arrive in a bucket."""
    return _DAEMON + streams * (_STREAM + _WAITING) + min(streams, _STORING) * _WAITING


@dataclass(frozen=True, slots=True)
class _Way:
    """One way to store or to restore the stream. `run`: None: its program is not installed."""

    name: str
    run: Callable[[], Run] | None


class _Hosts:
    """Both receivers, a sender of each, and the copiers."""

    def __init__(self, folder: Path, ceph: Ceph, stream: Stream) -> None:
        self._ceph = ceph
        self._stream = stream
        self._numbers = itertools.count()
        self._local = Receiver(folder / "local")
        self._bucket = BucketHost(folder / "bucket", ceph, "store")
        self.copiers: list[Copier] = [Rclone(ceph, folder), AwsCli(ceph)]
        self._folder = folder
        self._kept = folder / "kept.zst"
        self._pushed: list[Sender] = []

    @contextlib.contextmanager
    def ways(self) -> Iterator[list[_Way]]:
        """Run both daemons, and store what is restored."""
        with self._local.service() as local, self._bucket.service() as bucket:
            into: list[tuple[str, Receiver, Service]] = [
                ("a folder", self._local, local),
                ("a bucket", self._bucket, bucket),
            ]
            run_quietly(bash(f"zstd -q -3 -T0 <{shlex.quote(str(self._stream.path))} >{shlex.quote(str(self._kept))}"))
            self._ceph.bucket.put(_KEPT, self._kept.read_bytes())
            ways = []
            for what, receiver, daemon in into:
                sender = Sender(self._folder / f"{receiver.port}", receiver, "alpha")
                ways.append(_Way(f"push into {what}: fullsend", partial(self._push, sender, daemon)))
                self._pushed.append(sender)
            copiers = self.copiers
            ways += [_way(f"push: zstd, {each.stores}", each, partial(self._copy, each)) for each in copiers]
            ways += [_way(f"the .zst alone: {each.stores}", each, partial(self._copy_file, each)) for each in copiers]
            for what, receiver, daemon in into:
                reader = Sender(self._folder / f"reader-{receiver.port}", receiver, "beta")
                reader.keep(self._stream, daemon)
                ways.append(_Way(f"restore from {what}: fullsend cat", partial(self._restore, reader, daemon)))
            ways += [_way(f"restore: {each.gives}, zstd -d", each, partial(self._give, each)) for each in copiers]
            yield ways

    def sweep(self) -> None:
        """Remove what was stored since the last time."""
        for sender in self._pushed:
            sender.forget()
        for each in self._ceph.bucket.entries(_COPIES):
            if each.key != _KEPT:
                self._ceph.bucket.delete(each.key)
        self._ceph.collect()

    def _push(self, sender: Sender, daemon: Service) -> Run:
        run, output = _measured(sender.push_command(), self._ceph, daemon, source=self._stream.path)
        return replace(run, stored=check_pushed(output, self._stream))

    def _restore(self, reader: Sender, daemon: Service) -> Run:
        return _measured(reader.cat_command(), self._ceph, daemon)[0]

    def _copy(self, copier: Copier) -> Run:
        key = self._key()
        return self._stored(key, f"zstd -q -3 -T0 | {copier.put(key)}", self._stream.path)

    def _copy_file(self, copier: Copier) -> Run:
        key = self._key()
        return self._stored(key, copier.put_file(self._kept, key))

    def _stored(self, key: str, script: str, source: Path | None = None) -> Run:
        run, _output = _measured(bash(script), self._ceph, source=source)
        return replace(run, stored=check_object(self._ceph.bucket, key, self._stream))

    def _give(self, copier: Copier) -> Run:
        return _measured(bash(f"{copier.give(_KEPT)} | zstd -q -dc >/dev/null"), self._ceph)[0]

    def _key(self) -> str:
        return f"{_COPIES}{next(self._numbers)}.zst"


def _way(name: str, copier: Copier, run: Callable[[], Run]) -> _Way:
    return _Way(name, run if copier.name else None)


def transfers(results: Results, streams: Streams, folder: Path, say: Callable[[str], None]) -> None:
    """Push and restore the compressible stream in all ways, in turns."""
    stream = streams.compressible
    with Ceph(folder / "ceph") as ceph:
        hosts = _Hosts(folder, ceph, stream)
        with hosts.ways() as ways:
            rows = [Row(way.name, stream.size) for way in ways]
            for repetition in range(results.repetitions):
                first = repetition * 5 % len(ways)
                turns = [*zip(ways, rows, strict=True)]
                for way, row in [*turns[first:], *turns[:first]]:
                    if way.run is not None:
                        row.runs.append(way.run())
                        say(f"{repetition + 1}/{results.repetitions} {way.name}: {row.runs[-1].seconds:.2f} s")
                hosts.sweep()
    results.tables.append(table(rows, [copier.name for copier in hosts.copiers if copier.name]))


def table(rows: Sequence[Row], copiers: Sequence[str]) -> Table:
    """Return the table of what was measured. A row without a run is that of a program that is not installed."""
    columns = ["", "seconds", "min - max", "MB/s", "CPU s (1)", "CPU s (2)", "CPU s (3)"]
    columns += ["MiB (1)", "MiB (2)", "MiB (3)", "stored MB", "others"]
    lines = []
    for row in rows:
        if not row.runs:
            lines.append([row.name, "not installed", *[""] * (len(columns) - 2)])
            continue
        seconds = [run.seconds for run in row.runs]
        lines.append(
            [
                row.name,
                f"{row.seconds():.2f}",
                f"{min(seconds):.2f} - {max(seconds):.2f}" if len(seconds) > 1 else "",
                f"{row.raw / row.seconds() / 1e6:.0f}",
                *(f"{statistics.median(row.cpu_per_gib(end)):.2f}" for end in (ZFS_HOST, STORAGE, OBJECT_STORE)),
                *(
                    f"{max(run.cost(end).peak for run in row.runs) / MIB:.0f}"
                    for end in (ZFS_HOST, STORAGE, OBJECT_STORE)
                ),
                f"{row.runs[-1].stored / 1e6:.0f}" if row.runs[-1].stored else "",
                f"{max(run.others for run in row.runs):.2f}",
            ]
        )
    legend = (
        "Medians. MB: a million bytes, of the raw stream or as stored. CPU s: for each GiB of raw stream. MiB: peak of"
        f" memory in any repetition. (1) {ZFS_HOST}, which runs the copiers too, (2) {STORAGE}, (3) {OBJECT_STORE}: one"
        " Ceph on the same cores, all its processes. others: CPU seconds that went to none of these, in the worst"
        " repetition."
        f" Copiers, with their defaults: {', '.join(copiers) or 'none'}."
    )
    return Table("A store in a bucket", columns, lines, legend)


# --- many ------------------------------------------------------------------------------------------------------


class MemoryOverTime:
    """Notes the peaks of a process's memory while it is entered. `peaks`: seconds since then, and bytes."""

    def __init__(self, pid: int) -> None:
        self.peaks: list[tuple[float, int]] = []
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        new_peak(self._pid)
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_EVERY):
            self._look()
        self._look()

    def _look(self) -> None:
        self.peaks.append((time.monotonic() - self._began, new_peak(self._pid)))


def tenths(peaks: Sequence[tuple[float, int]]) -> list[int]:
    """Return the highest of each tenth of the time; where a tenth has none, that of the one before."""
    end = peaks[-1][0]
    highest = [0] * _TENTHS
    for when, peak in peaks:
        at = min(_TENTHS - 1, int(when / end * _TENTHS))
        highest[at] = max(highest[at], peak)
    for at in range(1, _TENTHS):
        highest[at] = highest[at] or highest[at - 1]
    return highest


def many(results: Results, streams: Streams, folder: Path, say: Callable[[str], None], *, quick: bool) -> None:
    """Push as many streams at once into a bucket, and into a folder, from as many hosts."""
    count = _MANY_QUICK if quick else _MANY
    stream = streams.longer
    rows = []
    with Ceph(folder / "ceph") as ceph:
        for name, receiver in (
            ("bucket", BucketHost(folder / "bucket", ceph, "many")),
            ("folder", Receiver(folder / "local")),
        ):
            with receiver.service() as daemon:
                say(f"pairing {count} senders")
                senders = [Sender(folder / f"{name}-{each}", receiver, f"sender-{each}") for each in range(count)]
                with MemoryOverTime(daemon.pid) as memory:
                    run, again = _crowd(senders, stream, daemon, ceph)
            for sender in senders:
                sender.forget()
            highest = tenths(memory.peaks)
            rows.append([f"{name}: MiB of fullsendd", *(f"{each / MIB:.0f}" for each in highest)])
            say(f"{count} streams into a {name}: {run.seconds:.1f} s, {max(highest) / MIB:.0f} MiB")
            raw = count * stream.size
            results.notes.append(
                f"{count} streams of {stream.size / MIB:.0f} MiB at once into a {name}: {run.seconds:.1f} s,"
                f" {raw / run.seconds / 1e6:.0f} MB/s; CPU s: {run.zfs_host.cpu:.0f} {ZFS_HOST},"
                f" {run.storage.cpu:.0f} {STORAGE}, {run.object_store.cpu:.0f} {OBJECT_STORE}, {run.others:.0f} others;"
                f" {again} times a sender had no answer within 10 s, and began again"
            )
            if name == "bucket":
                text = f"memory of the receiver with {count} streams arriving in a bucket"
                peak = max(highest) / MIB
                results.budgets.append(Budget(text, memory_bound(count), [peak], " MiB", at_least=False))
    results.tables.append(
        Table(
            f"Memory with {count} streams at once, by tenths of the time",
            ["", *map(str, range(1, _TENTHS + 1))],
            rows,
            f"Streams of {stream.size / MIB:.0f} MiB, compressible. Peaks of each tenth.",
        )
    )


def _crowd(senders: Sequence[Sender], stream: Stream, daemon: Service, ceph: Ceph) -> tuple[Run, int]:
    """Push from all senders at once. Returns: the run, and how often one had no answer within 10 s and tried again."""
    again = 0

    def push(sender: Sender) -> bytes:
        nonlocal again
        while True:
            try:
                return measured.child(sender.push_command(), source=stream.path)
            except ChildError as error:
                if error.code != Exit.UNREACHABLE:
                    raise
                again += 1

    with _watched(ceph, daemon) as measured, ThreadPoolExecutor(len(senders)) as pool:
        outputs = list(pool.map(push, senders))
    for output in outputs:
        check_pushed(output, stream)
    return measured.run(), again


# --- how -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _watched(ceph: Ceph, daemon: Service | None) -> Iterator[Measurement]:
    """Measure what runs inside, with the CPU of the object store and the daemon."""
    roots = {OBJECT_STORE: ceph.pids}
    ceph.reset_peak()
    before, daemon_before = ceph.cpu(), 0.0
    if daemon is not None:
        roots[STORAGE] = [daemon.pid]
        daemon.reset_peak()
        daemon_before = daemon.cpu()
    with Measurement(roots) as measured:
        yield measured
        measured.stop_clock()
        measured.cpu[OBJECT_STORE] = ceph.cpu() - before
        if daemon is not None:
            measured.cpu[STORAGE] = daemon.cpu() - daemon_before


def _measured(
    argv: Sequence[str | Path], ceph: Ceph, daemon: Service | None = None, *, source: Path | None = None
) -> tuple[Run, bytes]:
    with _watched(ceph, daemon) as measured:
        output = measured.child(argv, source=source)
    return measured.run(), output
