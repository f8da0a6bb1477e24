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
from typing import TYPE_CHECKING, Final

from bench import data, splice, stages
from bench.data import LARGE_RECORD, MIB, SMALL_RECORD
from bench.fullsend_hosts import FULLSEND, Receiver, Sender, check_pushed
from bench.measure import STORAGE, Measurement, Run, Service
from bench.peers import FASTEST, Peers, Ssh, Stream
from bench.report import Budget, Results

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

#: Budgets of memory, in MiB.
_SENDER_MEMORY: Final = 160
_RECEIVER_MEMORY: Final = 64
_RECEIVER_MEMORY_PER_STREAM: Final = 48

_MANY: Final = 64
_FEW: Final = 4

_SSH: Final = "zstd, ssh, sha256sum on both ends"
_SSH_FAST: Final = "zstd, ssh (AES-GCM), openssl's sums on both ends"
_NC: Final = "zstd, nc, sha256sum on both ends"
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


@dataclass(frozen=True, slots=True)
class Streams:
    """The streams to send. `small_records`: the payload of `mixed`, in small records."""

    mixed: Stream
    small_records: Stream
    random: Stream
    tiny: Stream  # shows the fixed cost of a push
    short: Stream  # of which many are pushed at once


def make_streams(folder: Path, size: int) -> Streams:
    """Write all streams."""
    mixed, noise = data.mixed_pool(), data.random_pool()

    def make(name: str, pool: bytes, size: int, record: int = LARGE_RECORD) -> Stream:
        path = folder / f"{name}.zfs"
        data.write_stream(path, pool, size, record, snapshot=name)
        with path.open("rb") as file:
            return Stream(path, path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())

    return Streams(
        mixed=make("mixed", mixed, size),
        small_records=make("small-records", mixed, size, SMALL_RECORD),
        random=make("random", noise, size),
        tiny=make("tiny", mixed, MIB),
        short=make("short", mixed, min(16 * MIB, size // 64)),
    )


def transfers(results: Results, streams: Streams, folder: Path, say: Callable[[str], None]) -> None:
    """Push and restore, fullsend and its peers in turns."""
    mixed, noise = streams.mixed, streams.random
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
        stored = peers.keep(mixed)
        settled = daemon.resident()
        small, tiny = streams.small_records, streams.tiny
        methods = [
            Method("push", "push: fullsend", mixed, lambda: sender.push(mixed, daemon)),
            Method("ssh", f"push: {_SSH}", mixed, lambda: peers.ssh_verified(mixed)),
            Method("ssh-fast", f"push: {_SSH_FAST}", mixed, lambda: peers.ssh_verified(mixed, FASTEST)),
            Method("nc-sums", f"push: {_NC}", mixed, lambda: peers.nc_verified(mixed)),
            Method("nc-sums-fast", f"push: {_NC_FAST}", mixed, lambda: peers.nc_verified(mixed, FASTEST)),
            Method("nc", "push: zstd, nc", mixed, lambda: peers.nc(mixed)),
            Method("mbuffer", "push: zstd, mbuffer", mixed, lambda: peers.mbuffer(mixed)),
            Method("small", "push, 8 KiB records: fullsend", small, lambda: sender.push(small, daemon)),
            Method("random", "incompressible: fullsend", noise, lambda: sender.push(noise, daemon)),
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
            Method("tiny", "push of 1 MiB: fullsend", tiny, lambda: sender.push(tiny, daemon)),
            Method(
                "again", "push of what is stored already: fullsend", tiny, lambda: idler.keep(tiny, daemon, stored=True)
            ),
        ]
        _interleave(results, methods, say)
        _memory(results, daemon, settled)
    results.ratio(f"push, times as fast as {_SSH}", 1.7, "ssh", "push")
    results.ratio(f"push, times as fast as {_NC}", 1.5, "nc-sums", "push")
    results.ratio("push, times as fast as zstd, nc", 0.8, "nc", "push")
    results.ratio(f"incompressible, times as fast as {_SSH_PLAIN}", 1.2, "random-ssh", "random")
    results.ratio("restore, times as fast as nc, zstd -d", 1.0, "restore-nc", "restore")
    again = [run.seconds for run in results.rows["again"].runs]
    results.budgets.append(Budget("push of what is stored already", 0.5, again, " s", at_least=False))
    results.ratio("push of 8 KiB records, times as fast as of 128 KiB records", 0.75, "push", "small")
    results.ratio(f"push, times as fast as {_SSH_FAST}", None, "ssh-fast", "push")
    results.ratio(f"push, times as fast as {_NC_FAST}", None, "nc-sums-fast", "push")
    results.ratio(f"incompressible, times as fast as {_SSH_PLAIN_FAST}", None, "random-ssh-fast", "random")


def _interleave(results: Results, methods: Sequence[Method], say: Callable[[str], None]) -> None:
    """Run all methods in turns, each repetition beginning with another one."""
    for repetition in range(results.repetitions):
        first = repetition * 5 % len(methods)
        for method in [*methods[first:], *methods[:first]]:
            run = method.run()
            results.add(method.key, method.name, method.stream.size, run)
            say(f"{repetition + 1}/{results.repetitions} {method.name}: {run.seconds:.2f} s")
    results.rows = {method.key: results.rows[method.key] for method in methods}


def _memory(results: Results, daemon: Service, settled: int) -> None:
    pushes = [run for key in ("push", "small", "random") for run in results.rows[key].runs]
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
    """The cost of the stages by themselves."""
    receiver = Receiver(folder / "stages")
    with receiver.service():
        sender = Sender(folder / "stages-sender", receiver, "alpha")
    results.stages = stages.measure(streams.mixed.path, folder, sender.certificate)
    _floors(results)
    results.walkers = [
        stages.walker_speed(streams.mixed.path, LARGE_RECORD),
        stages.walker_speed(streams.small_records.path, SMALL_RECORD),
    ]
    results.splicers = [
        splice.splicer_speed(streams.mixed.path, LARGE_RECORD),
        splice.splicer_speed(streams.small_records.path, SMALL_RECORD),
    ]


def _floors(results: Results) -> None:
    """Return the lower bound: the time of the stages if every core is always busy with them and nothing else."""
    cores = len(os.sched_getaffinity(0))
    everything = sum(stage.seconds for stage in results.stages)
    back = {"SHA-256 of the raw stream", "walk the records", "zstd: decode"}
    on_the_way = {"TLS: encrypt", "TLS: decrypt", "send (kernel)", "receive (kernel)"}
    restore = sum(stage.seconds for stage in results.stages if stage.name in on_the_way) + sum(
        stage.seconds for stage in results.stages if stage.end == STORAGE and stage.name in back
    )
    results.notes.append(
        f"floor: with {cores} cores for both ends, the stages alone take {everything / cores:.2f} s for each GiB"
        f" pushed, and {restore / cores:.2f} s for each GiB restored; starting Python comes on top"
    )
