"""How fast a transfer can be with more cores than this machine has: computed from the CPU seconds of its stages.

A transfer is a line of lanes. A lane is what one thread does, one chunk after the other; some lanes have several
threads. Two things limit an end with so many cores:

    its lanes      no lane is faster than its stages together, divided by its threads (each on a core)
    its cores      all lanes together need their CPU seconds, divided by the cores

The slower end limits the transfer. What a whole program of this run takes beyond its stages and its start (copies,
page faults, the event loop, caches) counts as work of its end, in any number of threads, since nothing tells in which
lane it is. For the peers nothing is added: their stages are whole programs.

The sender's threads are those that it makes by default with so many cores and the memory of this machine.

What the model leaves out makes the real thing slower: the time until the first chunk and after the last one, hand-offs
between threads, the interpreter's lock, memory bandwidth that cores share, disks and wires. All cores count as equally
fast, whether or not the others are busy. So a lane's ceiling is an upper bound. One thing can make the real thing
faster: the receiver decodes a chunk in the thread that checks it where that thread has nothing else to do.

The comparison with what was measured in the same run shows how much that is: `compared`.
"""

from __future__ import annotations

import math
import os
import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final
from unittest.mock import patch

from bench import report, stages
from bench.measure import STORAGE, ZFS_HOST

from fullsend_receiver.arrival.decode_queue import chunks_held
from fullsend_sender.restore import cat
from fullsend_sender.transfer.memory import default_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bench.report import Results
    from bench.stages import Costs, Stage

#: Cores of each end for which the ceilings are shown, and the most that are tried for a wire.
_MANY: Final = (4, 8, 16)
_MOST: Final = 64
#: Of a wire's bits so many carry frames: Ethernet, IP and TCP with 1,500 bytes a packet take 5 %, TLS 0.2 %.
_PAYLOAD: Final = 0.945
#: Gbit/s.
_WIRES: Final = (10, 25)
_GIB: Final = 1 << 30
_LOOP: Final = "event loop"


@dataclass(frozen=True, slots=True)
class Lane:
    """A thread of one end, or several. `threads`: how many, with so many cores."""

    end: str
    name: str
    stages: tuple[str, ...]
    threads: Callable[[int], int]


@dataclass(frozen=True, slots=True)
class Work:
    """A lane and what it takes. `cpu`: seconds for each GiB; `alone`: those of one thread that never waits."""

    lane: Lane
    cpu: float
    alone: float

    def seconds(self, cores: int) -> float:
        """Return the seconds for each GiB that this lane needs at least."""
        return self.alone / max(1, min(self.lane.threads(cores), cores))


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What limits a transfer. `seconds`: for each GiB of raw stream; `limit`: in words."""

    seconds: float
    limit: str

    @property
    def speed(self) -> float:
        """MB of raw stream a second."""
        return _GIB / self.seconds / 1e6


def _one(_cores: int) -> int:
    return 1


def _each(cores: int) -> int:
    return cores


def _compressing(cores: int) -> int:
    with patch.object(os, "sched_getaffinity", lambda _pid: set(range(cores))):
        return default_threads()


def _decoding(cores: int) -> int:
    # Of the chunks in memory one arrives, one is checked and one is written; the others are decoded meanwhile.
    return max(1, chunks_held(cores) - 3)


def _decoding_back(_cores: int) -> int:
    return cat._DECODERS


_ARRIVING: Final = (stages.RECEIVE, stages.DECRYPT, stages.ASSEMBLE)
_LEAVING: Final = (stages.ENCRYPT, stages.SEND)
_FEED: Final = Lane(ZFS_HOST, "cat", (stages.FEED,), _one)
_BEYOND: Final = "beyond the stages"
PUSH: Final = (
    _FEED,
    Lane(ZFS_HOST, "reader: read, walk, hash", (stages.READ, stages.WALK, stages.HASH), _one),
    Lane(ZFS_HOST, "compress", (stages.COMPRESS,), _compressing),
    Lane(ZFS_HOST, f"{_LOOP}: encrypt, send", _LEAVING, _one),
    Lane(STORAGE, f"{_LOOP}: receive, decrypt", _ARRIVING, _one),
    Lane(STORAGE, "decode", (stages.DECODE,), _decoding),
    Lane(STORAGE, "checker: hash, walk", (stages.HASH, stages.WALK), _one),
    Lane(STORAGE, "writer: hash the file, write", (stages.FILE_HASH, stages.WRITE), _one),
)
RESTORE: Final = (
    Lane(STORAGE, "read ahead", (stages.READ_FILE,), _one),
    Lane(STORAGE, f"{_LOOP}: encrypt, send", _LEAVING, _one),
    Lane(ZFS_HOST, f"{_LOOP}: receive, decrypt", _ARRIVING, _one),
    Lane(ZFS_HOST, "decode", (stages.DECODE,), _decoding_back),
    Lane(ZFS_HOST, "prover: hash, walk", (stages.HASH, stages.WALK), _one),
)
PEER_PUSH: Final = (
    _FEED,
    Lane(ZFS_HOST, "zstd -3 -T0", (stages.PEER_COMPRESS,), _each),
    Lane(ZFS_HOST, "nc", (stages.PEER_SEND,), _one),
    Lane(STORAGE, "nc", (stages.PEER_RECEIVE,), _one),
)
PEER_RESTORE: Final = (
    Lane(STORAGE, "nc", (stages.PEER_SEND,), _one),
    Lane(ZFS_HOST, "nc", (stages.PEER_RECEIVE,), _one),
    Lane(ZFS_HOST, "zstd -d", (stages.PEER_DECODE,), _one),
)


@dataclass(frozen=True, slots=True)
class Action:
    """A transfer to compute. `name`: as the tables call it; `works`: its lanes, with what they take."""

    name: str
    works: Sequence[Work]

    def apart(self, cores: int) -> Ceiling:
        """Return the ceiling where each end has so many cores of its own."""
        ends = [
            Ceiling(sum(work.cpu for work in self.works if work.lane.end == end) / cores, f"{end}: all its cores")
            for end in (ZFS_HOST, STORAGE)
        ]
        return max([*ends, *self._lanes(cores)], key=lambda each: each.seconds)

    def beyond(self, found: Mapping[str, float]) -> Action:
        """Return the action with CPU seconds beyond its stages, by end; for each GiB."""
        more = [Work(Lane(end, _BEYOND, (), _each), cpu, cpu) for end, cpu in found.items() if cpu > 0]
        return replace(self, works=[*self.works, *more])

    def shared(self, cores: int) -> Ceiling:
        """Return the ceiling where both ends share so many cores."""
        everything = Ceiling(sum(work.cpu for work in self.works) / cores, "all cores")
        return max([everything, *self._lanes(cores)], key=lambda each: each.seconds)

    def cores_for(self, speed: float) -> int | None:
        """Return the cores that each end needs for so many MB of raw stream a second; None: no number is enough."""
        return next((cores for cores in range(1, _MOST + 1) if self.apart(cores).speed >= speed), None)

    @property
    def loop(self) -> Ceiling:
        """The ceiling of several streams at a time: the one event loop of fullsendd."""
        (loop,) = (work for work in self.works if work.lane.end == STORAGE and work.lane.name.startswith(_LOOP))
        return Ceiling(loop.alone, f"{STORAGE}: {_LOOP}")

    def _lanes(self, cores: int) -> Iterator[Ceiling]:
        return (Ceiling(work.seconds(cores), f"{work.lane.end}: {work.lane.name}") for work in self.works)


def action(name: str, lanes: Sequence[Lane], costs: Sequence[Stage], feed: float) -> Action:
    """Join lanes with what their stages take. `feed`: of the producer. Raises: KeyError if a stage was not measured."""
    taken = {(stage.end, stage.name): stage for stage in [*costs, stages.Stage(ZFS_HOST, stages.FEED, feed)]}
    works = []
    for lane in lanes:
        found = [taken[lane.end, name] for name in lane.stages]
        alone = sum(stage.seconds if stage.alone is None else stage.alone for stage in found)
        works.append(Work(lane, sum(stage.seconds for stage in found), alone))
    return Action(name, works)


@dataclass(frozen=True, slots=True)
class Model:
    """All transfers of one kind of data."""

    push: Action
    restore: Action
    peer_push: Action
    peer_restore: Action

    @classmethod
    def of(cls, costs: Costs) -> Model:
        """Make it from measured stages."""
        return cls(
            action("push", PUSH, costs.push, costs.feed),
            action("restore", RESTORE, costs.restore, costs.feed),
            action("push: zstd, nc", PEER_PUSH, costs.peer_push, costs.feed),
            action("restore: nc, zstd -d", PEER_RESTORE, costs.peer_restore, costs.feed),
        )


# --- tables ----------------------------------------------------------------------------------------------------


def add(results: Results) -> None:
    """Add what follows from the measured stages: budgets, ceilings, wires, and the comparison with measured rows."""
    models = {}
    for kind, costs in results.costs.items():
        model = Model.of(costs)
        push, restore = (each.beyond(_found_beyond(results, kind, each.name)) for each in (model.push, model.restore))
        models[kind] = replace(model, push=push, restore=restore)
    for kind, model in models.items():
        if kind != "random":
            for text, bound, fullsend, peer in (
                ("push", 0.9, model.push, model.peer_push),
                ("restore", 1.0, model.restore, model.peer_restore),
            ):
                ratio = peer.apart(2).seconds / fullsend.apart(2).seconds
                name = peer.name.partition(": ")[2]
                whole = f"computed, two cores an end, {kind}: {text}, times as fast as {name}"
                results.budgets.append(report.Budget(whole, bound, [ratio]))
    results.tables += [
        _compared(results, models),
        *(_ceilings(name, models["compressible"]) for name in ("push", "restore")),
        _wires(results, models),
    ]


def _found_beyond(results: Results, kind: str, name: str) -> dict[str, float]:
    """Return what the whole programs took beyond their stages and their start, by end, where that was measured."""
    row = results.rows.get(report.row_key(kind, name))
    if row is None:
        return {}
    return {
        end: statistics.median(results.without_start(row, end)) - results.costs[kind].sum(name, end)
        for end in (ZFS_HOST, STORAGE)
    }


def _compared(results: Results, models: dict[str, Model]) -> report.Table:
    rows = []
    cores = len(os.sched_getaffinity(0))
    for kind, model in models.items():
        fullsend, peers = [(model.push, "push"), (model.restore, "restore")], []
        if kind != "random":  # the peer does not compress it
            peers = [(model.peer_push, "nc"), (model.peer_restore, "restore-nc")]
        for each, key in [*fullsend, *peers]:
            for where, found, ceiling, start in (
                ("1 core an end", f"pinned-{kind}-{key}", each.apart(1), "pinned-tiny"),
                (f"{cores} cores shared", report.row_key(kind, key), each.shared(cores), "tiny"),
            ):
                row = results.rows.get(found)
                if row is None:
                    continue
                computed, measured = ceiling.seconds, row.seconds_per_gib()
                if key in {"push", "restore"} and start in results.rows:
                    computed += results.rows[start].seconds() * _GIB / row.raw
                name = f"{kind}, {where}: {each.name}"
                rows.append([name, f"{computed:.2f}", f"{measured:.2f}", f"{measured / computed:.2f}", ceiling.limit])
    legend = (
        "Seconds for each GiB, from the CPU seconds of the stages (`bench/ceilings.py` has the lanes), and as measured."
        " What the programs of this run took beyond their stages is added to fullsend's where it was measured, and the"
        " time of a push of 1 MiB, which is that of a start. What is measured beyond that is waiting: the model leaves"
        " it out."
    )
    columns = ["", "computed", "measured", "times", "what limits, computed"]
    return report.Table("Computed, and measured in the same run", columns, rows, legend)


def _ceilings(name: str, model: Model) -> report.Table:
    chosen = model.push if name == "push" else model.restore
    rows = [
        [f"{work.lane.end}: {work.lane.name}", *(f"{_GIB / work.seconds(cores) / 1e6:,.0f}" for cores in _MANY)]
        for work in chosen.works
        if work.lane.name != _BEYOND
    ]
    for end in (ZFS_HOST, STORAGE):
        total = sum(work.cpu for work in chosen.works if work.lane.end == end)
        rows.append([f"{end}: all its cores", *(f"{_GIB * cores / total / 1e6:,.0f}" for cores in _MANY)])
    limits = [chosen.apart(cores) for cores in _MANY]
    rows.append(["**the transfer**", *(f"{limit.speed:,.0f}" for limit in limits)])
    told = "; ".join(f"{cores} cores: {limit.limit}" for cores, limit in zip(_MANY, limits, strict=True))
    return report.Table(
        f"Ceilings of a {name}, computed, MB/s of a compressible stream",
        ["", *(f"{cores} cores an end" for cores in _MANY)],
        rows,
        f"A long stream; raw bytes. What limits the transfer, with {told}.",
    )


def _wires(results: Results, models: dict[str, Model]) -> report.Table:
    rows = []
    for kind, model in models.items():
        for gigabits in _WIRES:
            needed = gigabits * 1e3 / 8 * _PAYLOAD * results.costs[kind].ratio
            for each in (model.push, model.restore):
                cores, most = each.cores_for(needed), each.apart(_MOST)
                rows.append(
                    [
                        f"{kind}, {gigabits} Gbit/s: {each.name}",
                        f"{needed:,.0f}",
                        f"{most.speed:,.0f}",
                        "no number" if cores is None else str(cores),
                        most.limit,
                        *_streams(each, needed),
                    ]
                )
    columns = ["", "needs", "one stream", "its cores", "what limits it", "streams", "cores (1)", "cores (2)"]
    legend = (
        "MB/s of raw bytes that fill the wire, and the most that one stream reaches with any number of cores. Its"
        " cores: what each end needs so that one stream fills the wire. Several streams at a time, each a process at"
        " the ZFS host's end, share the cores and fullsendd's event loop, and no other lane; so many of them, and so"
        f" many cores, fill the wire. (1) {ZFS_HOST}, (2) {STORAGE}."
    )
    return report.Table("What a wire needs, computed", columns, rows, legend)


def _streams(each: Action, needed: float) -> list[str]:
    """Return the streams at a time that reach this speed, and the cores of each end, as text."""
    if each.loop.speed < needed:
        return [f"no number, {each.loop.limit}", "", ""]
    totals = [sum(work.cpu for work in each.works if work.lane.end == end) for end in (ZFS_HOST, STORAGE)]
    return [str(math.ceil(needed / each.apart(_MOST).speed)), *(f"{needed * 1e6 * cpu / _GIB:.1f}" for cpu in totals)]
