"""Push and restore with each end on a core of its own, as two hosts with one core each would be.

All processes of the ZFS host's end run on one core, the feeding `cat` among them, as `zfs send` would; all of the
storage host's end run on another. The wire is still the loopback: the kernel does part of
the receiving end's work on the core of the sending end.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

from bench.fullsend_hosts import Receiver, Sender, accepts_auto
from bench.measure import Cores, on_core
from bench.peers import Peers
from bench.report import OWN_CORES, Results
from bench.scenarios import NC_SUMS, Method, Streams, interleave

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.measure import Service
    from bench.peers import Stream

#: At most. Each takes about as long as all of the transfers on shared cores.
_REPETITIONS: Final = 3
_PUSH: Final = 0.8
_RESTORE: Final = 0.55
_AUTO: Final = 1.0
#: Times what level 3 stores.
_AUTO_STORED: Final = 1.1


def on_own_cores(results: Results, streams: Streams, folder: Path, say: Callable[[str], None]) -> None:
    """Push and restore, fullsend and its peers in turns, each end on its own core."""
    permitted = sorted(os.sched_getaffinity(0))
    if len(permitted) < 2:
        results.notes.append("each end on a core of its own: not measured, this machine has one core")
        return
    cores = Cores(*permitted[:2])
    auto = accepts_auto()
    if not auto:
        results.notes.append("--level auto: not measured, `fullsend push` does not have it")
    kinds = {"compressible": streams.compressible, "mix": streams.mix}
    receiver = Receiver(folder / "receiver")
    place = folder / "peers"
    place.mkdir()
    with ExitStack() as stack:
        with on_core(cores.storage):
            daemon = stack.enter_context(receiver.service())
        bench = _Bench(folder, receiver, daemon, Peers(place, cores=cores), cores)
        methods = [method for kind, stream in kinds.items() for method in bench.methods(kind, stream, auto=auto)]
        methods += bench.tiny(streams.tiny)
        repetitions = min(_REPETITIONS, results.repetitions)
        interleave(results, methods, say, repetitions=repetitions, group=OWN_CORES)
    for kind in kinds:
        _budgets(results, kind, auto=auto)


def _budgets(results: Results, kind: str, *, auto: bool) -> None:
    key, text = f"pinned-{kind}", f"own cores, {kind}"
    results.ratio(f"{text}: push, times as fast as zstd, nc", _PUSH, f"{key}-nc", f"{key}-push")
    results.ratio(f"{text}: push, times as fast as {NC_SUMS}", None, f"{key}-nc-sums", f"{key}-push")
    results.ratio(f"{text}: restore, times as fast as nc, zstd -d", _RESTORE, f"{key}-restore-nc", f"{key}-restore")
    if auto:
        results.ratio(f"{text}: push --level auto, times as fast as zstd, nc", _AUTO, f"{key}-nc", f"{key}-auto")
        results.stored_ratio(
            f"{text}: push --level auto, bytes stored, times those of level 3",
            _AUTO_STORED,
            f"{key}-push",
            f"{key}-auto",
        )


class _Bench:
    """Both ends, each on its core."""

    def __init__(self, folder: Path, receiver: Receiver, daemon: Service, peers: Peers, cores: Cores) -> None:
        self._folder = folder
        self._receiver = receiver
        self._daemon = daemon
        self._peers = peers
        self._cores = cores

    def methods(self, kind: str, stream: Stream, *, auto: bool) -> list[Method]:
        """Return all ways to send and restore a stream. Stores it twice, to be restored."""
        sender, reader = self._sender(f"{kind}-sender"), self._sender(f"{kind}-reader")
        reader.keep(stream, self._daemon)
        kept = self._peers.keep(stream)
        found = [
            Method("push", "push: fullsend", stream, partial(sender.push, stream, self._daemon)),
            Method("nc-sums", f"push: {NC_SUMS}", stream, partial(self._peers.nc_verified, stream)),
            Method("nc", "push: zstd, nc", stream, partial(self._peers.nc, stream)),
            Method("restore", "restore: fullsend cat", stream, partial(reader.cat, self._daemon)),
            Method("restore-nc", "restore: nc, zstd -d", stream, partial(self._peers.nc_restore, kept)),
        ]
        if auto:
            push = partial(sender.push, stream, self._daemon, "auto")
            found.insert(1, Method("auto", "push --level auto: fullsend", stream, push))
        return [Method(f"pinned-{kind}-{each.key}", f"{kind}, {each.name}", stream, each.run) for each in found]

    def tiny(self, stream: Stream) -> list[Method]:
        """Return the push that shows what a start takes."""
        push = partial(self._sender("tiny").push, stream, self._daemon)
        return [Method("pinned-tiny", "push of 1 MiB: fullsend", stream, push)]

    def _sender(self, name: str) -> Sender:
        return Sender(self._folder / name, self._receiver, name, self._cores)
