"""Requests about a store of many streams: the daemon's memory and time, and the catalogue's part of them.

The streams have names, manifests and almost no data: the benchmark measures what the daemon keeps of each. What differs
from stream to stream in a real store (GUIDs, hashes, sizes, times) differs here: it is what cannot be made smaller.
"""

from __future__ import annotations

import hashlib
import os
import random
import statistics
import threading
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.measure import BenchError
from bench.report import Budget
from tests.receiver.helpers import plant
from tests.receiver.running import serving

from fullsend_protocol.shared.units import format_time
from fullsend_receiver.access.policies import Policy
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.maintenance.retention import plan
from fullsend_receiver.store.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.report import Results
    from tests.receiver.peer import Peer
    from tests.receiver.running import Receiver

_STREAMS: Final = 100_000
_QUICK: Final = 5_000
_DATASETS: Final = 1_000
_AT_ONCE: Final = 16
#: The requests, each sent by all connections at once: the message, and the rest of it.
_QUESTIONS: Final = {"bases?": {}, "status?": {}, "list": {"dataset": None}}
_MIB: Final = 1 << 20
#: Seconds that a connection waits for its answer.
_PATIENCE: Final = 600.0
#: The receiver's, with nothing arriving; and until it has answered its first question.
_IDLE: Final = 64
_START: Final = 2.0
#: The daemon is idle once it has taken no processor time for so many seconds. It must be, within so many.
_QUIET: Final = 3.0
_QUIET_WITHIN: Final = 120.0
#: Seconds after which a file that was written is settled: the catalogue keeps what it has read of it.
_SETTLED: Final = 4.0
#: Processor time of a plan, and its policy.
_PLAN: Final = 10.0
_POLICY: Final = Policy(hourly=24, daily=7, weekly=5, monthly=12, yearly=3)
#: When the first stream was received, and how much later the next one of its dataset: seconds since the epoch.
_FIRST: Final = 1_790_000_000
_EVERY: Final = 86_400


def ask_at_once(results: Results, folder: Path, say: Callable[[str], None], *, quick: bool) -> None:
    """Store the streams, start, ask, and report the daemon's memory and how long each took."""
    streams = _QUICK if quick else _STREAMS
    among = f"among {streams:,} streams of {_DATASETS:,} datasets"

    def report(name: str, value: float, unit: str, bound: float | None = None) -> None:
        say(f"{name}: {value:.1f}{unit}")
        results.budgets.append(Budget(name, bound, [value], unit, at_least=False))

    with serving(folder / "questions", "alpha", pure=True, silence="1h") as receiver:
        _list(receiver, "tank")
        empty = receiver.held
        say(f"storing {streams} streams")
        plant_many(LocalStore(receiver.store), streams)
        receiver.stop()
        time.sleep(_SETTLED)  # a manifest that has just changed is not kept, and would be read again at the next start
        receiver.start(pure=True)
        _list(receiver, _dataset(0))  # the summaries exist from now on
        receiver.stop()
        began = time.monotonic()
        receiver.start(pure=True)
        _list(receiver, _dataset(0))
        report(f"from the start to the first answer, {among}", time.monotonic() - began, " s", _START)
        report("processor time until then", _processor_time(receiver.pid), " s")
        _wait_until_idle(receiver.pid)
        before = receiver.held
        report(f"memory of the receiver with nothing arriving, {among}", before / _MIB, " MiB", _IDLE)
        report("kept of each stream", (before - empty) / streams, " bytes")
        times = []
        with receiver.peer() as peer:
            for number in range(100):
                began = time.monotonic()
                _list_on(peer, _dataset(number))
                times.append(1000 * (time.monotonic() - began))
        report(f"`list` of one dataset, {among}", statistics.median(times), " ms")
        for question, fields in _QUESTIONS.items():
            receiver.reset_peak()
            seconds = _ask(receiver, question, fields)
            held = (receiver.peak - before) / _MIB
            text = f"{_AT_ONCE} times `{question}` at once, {streams:,} streams"
            report(f"{text}: memory", held, " MiB")
            report(f"{text}: the last answer", seconds, " s")
        _wait_until_idle(receiver.pid)
        report("kept of each stream afterwards", (receiver.held - empty) / streams, " bytes")
        seconds, peak = _plan(LocalStore(receiver.store))
        report(f"a plan of retention, processor time, {among}", seconds, " s", _PLAN)
        report("memory of that, beside what is kept of each stream", peak / _MIB, " MiB")


def _dataset(number: int) -> str:
    return f"tank/home/user-{number:04}"


def plant_many(store: LocalStore, streams: int) -> None:
    """Store a full of each dataset, and increments."""
    chance = random.Random(1)
    last: dict[int, int] = {}
    for number in range(streams):
        night, place = divmod(number, _DATASETS)
        at = _FIRST + night * _EVERY + place
        created = format_time(at)
        snapshot = f"fullsend-0123abcd-{created.replace('-', '').replace(':', '')}"
        guid = chance.randrange(1, 1 << 64)
        plant(
            store,
            snapshot,
            guid,
            last.get(place),
            dataset=_dataset(place),
            flags="Lp",
            created=created,
            begun=created,
            received=format_time(at + chance.randrange(3, 3000)),
            sequence=1 + number,
            raw_bytes=chance.randrange(10**6, 10**10),
            sha256=hashlib.sha256(number.to_bytes(8)).hexdigest(),
        )
        last[place] = guid


def _plan(store: LocalStore) -> tuple[float, int]:
    """Plan all parts, as prune does. Returns: seconds of processor time, and the peak of the memory, in bytes."""
    holdings = Catalogues(store).current("alpha")
    now = _FIRST + _EVERY * (len(holdings) // _DATASETS + 1)

    def run() -> None:
        for part in holdings.parts():
            plan((each.summary for each in part.streams), lambda _dataset: _POLICY, now=now)

    began = time.process_time()
    run()
    seconds = time.process_time() - began
    tracemalloc.start()  # makes it three times slower
    run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return seconds, peak


def _list(receiver: Receiver, dataset: str) -> None:
    with receiver.peer() as peer:
        peer.sock.settimeout(_PATIENCE)
        _list_on(peer, dataset)


def _list_on(peer: Peer, dataset: str) -> None:
    peer.say("list", dataset=dataset)
    while peer.hear("entries", "done")["type"] != "done":
        pass


def _processor_time(pid: int) -> float:
    """Return the seconds of both kinds that a process has taken: proc(5), fields 14 and 15."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def _wait_until_idle(pid: int) -> None:
    """Wait until the daemon's first look at all that is stored has ended, and it has given back unused memory."""
    ends = time.monotonic() + _QUIET_WITHIN
    before = -1.0
    while (now := _processor_time(pid)) - before > _QUIET / 100:
        if time.monotonic() > ends:
            msg = f"the daemon does not become idle within {_QUIET_WITHIN:.0f} s"
            raise BenchError(msg)
        before = now
        time.sleep(_QUIET)


def _ask(receiver: Receiver, question: str, fields: dict[str, None]) -> float:
    """Ask over all connections at once. Returns: seconds until the last one has its answer."""
    failures: list[BaseException] = []

    def one() -> None:
        try:
            with receiver.peer() as peer:
                peer.sock.settimeout(_PATIENCE)
                ready.wait()
                peer.say(question, **fields)
                while peer.hear(question.removesuffix("?"), "entries", "done")["type"] != "done":
                    pass
        except BaseException as error:  # noqa: BLE001 - raised below
            failures.append(error)
            ready.abort()

    ready = threading.Barrier(_AT_ONCE + 1)
    threads = [threading.Thread(target=one) for _ in range(_AT_ONCE)]
    for thread in threads:
        thread.start()
    ready.wait()
    began = time.monotonic()
    for thread in threads:
        thread.join()
    if failures:
        msg = f"{question}: {failures[0]}"
        raise BenchError(msg)
    return time.monotonic() - began
