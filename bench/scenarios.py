"""The measurements: the pairs and limits of the project's budgets, one function each."""

from __future__ import annotations

import hashlib
import os
import statistics
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from bench import ceilings, data, splice, stages
from bench.data import LARGE_RECORD, MIB, SMALL_RECORD
from bench.fullsend_hosts import FULLSEND, Receiver, Sender, accepts_auto, check_pushed
from bench.measure import STORAGE, ZFS_HOST, Measurement, Run, Service
from bench.peers import FASTEST, Peers, Ssh, Stream
from bench.report import SHARED_CORES, Budget, Results

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bench.stages import Costs

#: Budgets of memory, in MiB.
_SENDER_MEMORY: Final = 160
_RECEIVER_MEMORY: Final = 64
_RECEIVER_MEMORY_PER_STREAM: Final = 48

#: Whole programs, times the sum of their stages.
_OVERHEAD: Final = 1.08
_GIB: Final = 1 << 30

#: The rows of large pushes, whose memory counts.
_PUSHES: Final = ("push", "auto", "small", "mix-push", "mix-auto", "random-push", "random-auto")

_MANY: Final = 64
_FEW: Final = 4

_SSH: Final = "zstd, ssh, sha256sum on both ends"
_SSH_FAST: Final = "zstd, ssh (AES-GCM), openssl's sums on both ends"
NC_SUMS: Final = "zstd, nc, sha256sum on both ends"
_NC_FAST: Final = "zstd, nc, openssl's sums on both ends"
_SSH_PLAIN: Final = "ssh, sha256sum on both ends"
_SSH_PLAIN_FAST: Final = "ssh (AES-GCM), openssl's sums on both ends"


@dataclass(frozen=True, slots=True)
class Method:
    """One way to do something. `key`: its name in ratios."""

    key: str
    name: str
    stream: Stream
    run: Callable[[], Run]


class Streams:
    """The streams to send, each written when it is first needed."""

    def __init__(self, folder: Path, size: int) -> None:
        """`size`: raw bytes of each large one."""
        self._folder = folder
        self._size = size

    @cached_property
    def compressible(self) -> Stream:
        return self._make("compressible", self._compressible, self._size)

    @cached_property
    def mix(self) -> Stream:
        """Of its records 40 % do not compress."""
        return self._make("mix", data.mix_pool(), self._size)

    @cached_property
    def random(self) -> Stream:
        return self._make("random", data.random_pool(), self._size)

    @cached_property
    def small_records(self) -> Stream:
        """The payload of `compressible`, in small records."""
        return self._make("small-records", self._compressible, self._size, SMALL_RECORD)

    @cached_property
    def tiny(self) -> Stream:
        """Shows the fixed cost of a push."""
        return self._make("tiny", self._compressible, MIB)

    @cached_property
    def short(self) -> Stream:
        """One of which many are pushed at once."""
        return self._make("short", self._compressible, min(16 * MIB, self._size // 64))

    def of_records(self, record: int) -> Stream:
        """Write a compressible stream of half the size, with records of this size. The caller removes it."""
        return self._make(f"records-of-{record}", self._compressible, self._size // 2, record)

    def of_kind(self, number: int, size: int) -> Stream:
        """Write a stream of another kind for each number, of so many bytes. The caller removes it."""
        return self._make(f"kind-{number}", data.any_pool(number), min(size, self._size))

    @cached_property
    def longer(self) -> Stream:
        """One of which many are pushed at once, and of which more is stored than the sender's window has."""
        return self._make("longer", self._compressible, min(192 * MIB, self._size // 4))

    @cached_property
    def _compressible(self) -> bytes:
        return data.compressible_pool()

    def _make(self, name: str, pool: bytes, size: int, record: int = LARGE_RECORD) -> Stream:
        path = self._folder / f"{name}.zfs"
        data.write_stream(path, pool, size, record, snapshot=name)
        with path.open("rb") as file:
            return Stream(path, path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def transfers(results: Results, streams: Streams, folder: Path, say: Callable[[str], None]) -> None:
    """Push and restore, fullsend and its peers in turns."""
    mixed, noise, mix = streams.compressible, streams.random, streams.mix
    ssh = Ssh(folder / "ssh")
    receiver = Receiver(folder / "receiver")
    place = folder / "peers"
    place.mkdir()
    with ssh.service() as sshd, receiver.service() as daemon:
        peers = Peers(place, ssh, sshd)
        sender = Sender(folder / "alpha", receiver, "alpha")
        reader = Sender(folder / "beta", receiver, "beta")
        reader.keep(mixed, daemon)
        idler = Sender(folder / "gamma", receiver, "gamma")
        idler.keep(streams.tiny, daemon)
        mix_reader = Sender(folder / "delta", receiver, "delta")
        mix_reader.keep(mix, daemon)
        stored, mix_stored = peers.keep(mixed), peers.keep(mix)
        settled = daemon.resident()
        small, tiny = streams.small_records, streams.tiny
        methods = [
            Method("push", "push: fullsend", mixed, lambda: sender.push(mixed, daemon)),
            Method("ssh", f"push: {_SSH}", mixed, lambda: peers.ssh_verified(mixed)),
            Method("ssh-fast", f"push: {_SSH_FAST}", mixed, lambda: peers.ssh_verified(mixed, FASTEST)),
            Method("nc-sums", f"push: {NC_SUMS}", mixed, lambda: peers.nc_verified(mixed)),
            Method("nc-sums-fast", f"push: {_NC_FAST}", mixed, lambda: peers.nc_verified(mixed, FASTEST)),
            Method("nc", "push: zstd, nc", mixed, lambda: peers.nc(mixed)),
            Method("mbuffer", "push: zstd, mbuffer", mixed, lambda: peers.mbuffer(mixed)),
            Method("small", "push, 8 KiB records: fullsend", small, lambda: sender.push(small, daemon)),
            Method("mix-push", "mix: fullsend", mix, lambda: sender.push(mix, daemon)),
            Method("mix-nc-sums", f"mix: {NC_SUMS}", mix, lambda: peers.nc_verified(mix)),
            Method("mix-nc", "mix: zstd, nc", mix, lambda: peers.nc(mix)),
            Method("random-push", "incompressible: fullsend", noise, lambda: sender.push(noise, daemon)),
            Method(
                "random-ssh",
                f"incompressible: {_SSH_PLAIN}",
                noise,
                lambda: peers.ssh_verified(noise, compress=False),
            ),
            Method(
                "random-ssh-fast",
                f"incompressible: {_SSH_PLAIN_FAST}",
                noise,
                lambda: peers.ssh_verified(noise, FASTEST, compress=False),
            ),
            Method("random-nc", "incompressible: nc", noise, lambda: peers.nc(noise, compress=False)),
            Method("restore", "restore: fullsend cat", mixed, lambda: reader.cat(daemon)),
            Method("restore-nc", "restore: nc, zstd -d", mixed, lambda: peers.nc_restore(stored)),
            Method("mix-restore", "restore of mix: fullsend cat", mix, lambda: mix_reader.cat(daemon)),
            Method("mix-restore-nc", "restore of mix: nc, zstd -d", mix, lambda: peers.nc_restore(mix_stored)),
            Method("tiny", "push of 1 MiB: fullsend", tiny, lambda: sender.push(tiny, daemon)),
            Method(
                "again", "push of what is stored already: fullsend", tiny, lambda: idler.keep(tiny, daemon, stored=True)
            ),
        ]
        if accepts_auto():
            methods += [
                Method("auto", "push --level auto: fullsend", mixed, lambda: sender.push(mixed, daemon, "auto")),
                Method(
                    "random-auto",
                    "incompressible, --level auto: fullsend",
                    noise,
                    lambda: sender.push(noise, daemon, "auto"),
                ),
                Method("mix-auto", "mix, --level auto: fullsend", mix, lambda: sender.push(mix, daemon, "auto")),
            ]
        interleave(results, methods, say)
        _memory(results, daemon, settled)
    results.ratio(f"push, times as fast as {_SSH}", 1.7, "ssh", "push")
    results.ratio(f"push, times as fast as {NC_SUMS}", 1.5, "nc-sums", "push")
    results.ratio(f"push of mix, times as fast as {NC_SUMS}", 1.5, "mix-nc-sums", "mix-push")
    results.ratio("push, times as fast as zstd, nc", 0.8, "nc", "push")
    results.ratio("push of mix, times as fast as zstd, nc", None, "mix-nc", "mix-push")
    if "auto" in results.rows:
        results.ratio("push --level auto, times as fast as zstd, nc", None, "nc", "auto")
        results.ratio("push of mix, --level auto, times as fast as zstd, nc", None, "mix-nc", "mix-auto")
    results.ratio(f"incompressible, times as fast as {_SSH_PLAIN}", 1.2, "random-ssh", "random-push")
    results.ratio("restore, times as fast as nc, zstd -d", 1.0, "restore-nc", "restore")
    results.ratio("restore of mix, times as fast as nc, zstd -d", None, "mix-restore-nc", "mix-restore")
    again = [run.seconds for run in results.rows["again"].runs]
    results.budgets.append(Budget("push of what is stored already", 0.5, again, " s", at_least=False))
    results.ratio("push of 8 KiB records, times as fast as of 128 KiB records", 0.75, "push", "small")
    results.ratio(f"push, times as fast as {_SSH_FAST}", None, "ssh-fast", "push")
    results.ratio(f"push, times as fast as {_NC_FAST}", None, "nc-sums-fast", "push")
    results.ratio(f"incompressible, times as fast as {_SSH_PLAIN_FAST}", None, "random-ssh-fast", "random-push")


def interleave(
    results: Results,
    methods: Sequence[Method],
    say: Callable[[str], None],
    *,
    repetitions: int | None = None,
    group: str = SHARED_CORES,
) -> None:
    """Run all methods in turns, each repetition beginning with another one. `repetitions`: None: those of the results;
    `group`: the table of the rows.
    """
    repetitions = results.repetitions if repetitions is None else repetitions
    for repetition in range(repetitions):
        first = repetition * 5 % len(methods)
        for method in [*methods[first:], *methods[:first]]:
            run = method.run()
            results.add(method.key, method.name, method.stream.size, run, group)
            say(f"{repetition + 1}/{repetitions} {method.name}: {run.seconds:.2f} s")
    # In the order of the methods, whichever came first.
    for method in methods:
        results.rows[method.key] = results.rows.pop(method.key)


def _memory(results: Results, daemon: Service, settled: int) -> None:
    pushes = [run for key in _PUSHES if key in results.rows for run in results.rows[key].runs]
    sender = [run.zfs_host.peak / MIB for run in pushes]
    receiver = [run.storage.peak / MIB for run in pushes]
    bound = _RECEIVER_MEMORY + _RECEIVER_MEMORY_PER_STREAM
    results.budgets += [
        Budget("memory of the sender, at its peak", _SENDER_MEMORY, sender, " MiB", at_least=False),
        Budget("memory of the receiver with one stream arriving, at its peak", bound, receiver, " MiB", at_least=False),
    ]
    results.notes.append(
        f"memory over time: fullsendd held {settled / MIB:.0f} MiB after its first stream,"
        f" {daemon.resident() / MIB:.0f} MiB after its last one ({len(pushes)} pushes later)"
    )


def many_senders(results: Results, stream: Stream, folder: Path, say: Callable[[str], None]) -> None:
    """Push the same number of short streams, from as many hosts: all at once, and four at a time."""
    receiver = Receiver(folder / "crowd")
    with receiver.service() as daemon:
        say(f"pairing {_MANY} senders")
        senders = [Sender(folder / f"sender-{number}", receiver, f"sender-{number}") for number in range(_MANY)]
        widths = [_MANY, _FEW]
        for repetition in range(min(3, results.repetitions)):
            for width in widths[:: 1 if repetition % 2 else -1]:
                run = _crowd(senders, stream, daemon, width)
                for sender in senders:
                    receiver.forget(sender.name)
                name = f"{_MANY} pushes of {stream.size / MIB:.0f} MiB, {width} at a time"
                results.add(f"crowd-{width}", name, _MANY * stream.size, run)
                say(f"{name}: {run.seconds:.2f} s")
    results.ratio(f"{_MANY} senders at once, against {_FEW} at a time", 1.0, f"crowd-{_FEW}", f"crowd-{_MANY}")
    bound = _RECEIVER_MEMORY + _MANY * _RECEIVER_MEMORY_PER_STREAM
    peaks = [run.storage.peak / MIB for run in results.rows[f"crowd-{_MANY}"].runs]
    results.budgets.append(
        Budget(f"memory of the receiver with {_MANY} streams arriving", bound, peaks, " MiB", at_least=False)
    )


def _crowd(senders: Sequence[Sender], stream: Stream, daemon: Service, width: int) -> Run:
    daemon.reset_peak()
    before = daemon.cpu()
    with Measurement({STORAGE: [daemon.pid]}) as measured:
        # One thread each from the start, so that starting threads is not measured.
        gate = threading.Semaphore(width)

        def push(sender: Sender) -> bytes:
            with gate:
                return measured.child(sender.push_command(), source=stream.path)

        with ThreadPoolExecutor(len(senders)) as pool:
            outputs = list(pool.map(push, senders))
        measured.stop_clock()
        measured.cpu[STORAGE] = daemon.cpu() - before
    for output in outputs:
        check_pushed(output, stream)
    return measured.run()


def start_up(results: Results) -> None:
    """How long `fullsend --version` takes."""
    figures = []
    for _ in range(4 * results.repetitions + 3):
        begun = time.monotonic()
        subprocess.run([FULLSEND, "--version"], stdout=subprocess.DEVNULL, check=True)
        figures.append(time.monotonic() - begun)
    # The first ones fill the page cache; the rest is what a user sees, whose median counts.
    median = statistics.median(figures[2:])
    results.budgets.append(Budget("fullsend --version", 0.15, [median], " s", at_least=False))


def inside(results: Results, streams: Streams, folder: Path) -> None:
    """The cost of the stages by themselves, and what follows from it."""
    receiver = Receiver(folder / "stages")
    with receiver.service() as daemon:
        sender = Sender(folder / "stages-sender", receiver, "alpha")
        reader = Sender(folder / "stages-reader", receiver, "beta")
        reader.keep(streams.compressible, daemon)
        results.costs["compressible"] = _overheads(results, streams, folder, (sender, reader), daemon)
    for kind, stream in {"mix": streams.mix, "random": streams.random}.items():
        found = [stages.measure(stream.path, folder, sender.certificate) for _ in range(results.repetitions)]
        results.costs[kind] = stages.medians(found)
    _floors(results)
    ceilings.add(results)
    results.walkers = [
        stages.walker_speed(streams.compressible.path, LARGE_RECORD),
        stages.walker_speed(streams.small_records.path, SMALL_RECORD),
    ]
    results.splicers = [
        splice.splicer_speed(streams.compressible.path, LARGE_RECORD),
        splice.splicer_speed(streams.small_records.path, SMALL_RECORD),
    ]


def _floors(results: Results) -> None:
    """Note the lower bound: the time of the stages if every core is always busy with them and nothing else."""
    cores = len(os.sched_getaffinity(0))
    costs = results.costs["compressible"]
    push, restore = (costs.sum(action, ZFS_HOST) + costs.sum(action, STORAGE) for action in ("push", "restore"))
    results.notes.append(
        f"floor: with {cores} cores for both ends, the stages alone take {push / cores:.2f} s for each GiB pushed,"
        f" and {restore / cores:.2f} s for each GiB restored; starting Python comes on top"
    )


def _overheads(results: Results, streams: Streams, folder: Path, ends: tuple[Sender, Sender], daemon: Service) -> Costs:
    """Compare whole programs with the sum of their stages: in turns, since a machine that shares its processor with
    others changes its speed within minutes. `ends`: who pushes, and who restores. Returns: the medians of the stages.
    """
    sender, reader = ends
    stream = streams.compressible
    turns: list[Costs] = []
    figures: dict[str, list[float]] = {}
    for _ in range(results.repetitions):
        start = sender.push(streams.tiny, daemon).zfs_host.cpu
        runs = [(sender.push(stream, daemon), reader.cat(daemon))]
        costs = stages.measure(stream.path, folder, sender.certificate)
        runs.append((sender.push(stream, daemon), reader.cat(daemon)))
        turns.append(costs)
        pushes, restores = zip(*runs, strict=True)
        for text, action, done, at in (
            ("sender", "push", pushes, [ZFS_HOST]),
            ("receiver", "push", pushes, [STORAGE]),
            ("restore, both ends", "restore", restores, [ZFS_HOST, STORAGE]),
        ):
            floor = sum(costs.sum(action, end) for end in at) * stream.size / _GIB
            whole = statistics.mean(sum(run.cost(end).cpu for end in at) for run in done)
            figures.setdefault(text, []).append(whole / floor)
            begun = whole - start if ZFS_HOST in at else whole
            figures.setdefault(f"{text}, without its start", []).append(begun / floor)
    for text, found in figures.items():
        bound = None if text.endswith("start") else _OVERHEAD
        name = f"CPU of the whole program, times that of its stages: {text}"
        results.budgets.append(Budget(name, bound, found, at_least=False, ratio=True))
    return stages.medians(turns)
