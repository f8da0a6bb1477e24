"""`--level auto` beside the fixed levels that it may choose, over wires of several speeds and data of several kinds."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from bench import report
from bench.data import MIB
from bench.fullsend_hosts import Receiver, Sender

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bench.measure import Run, Service
    from bench.peers import Stream
    from bench.report import Results
    from bench.scenarios import Streams

#: `--bwlimit`; the bytes that are pushed: some 50 or 130 chunks, so that what auto costs to settle shows; how often.
#: A wire that limits makes each push take the same time. Otherwise single ones differ by a fifth.
_WIRES: Final = (("10M", 192 * MIB, 1), ("100M", 512 * MIB, 3), (None, 512 * MIB, 3))
_AUTO: Final = "auto"
_USUAL: Final = "3"
#: Those of LADDER that have a number; 2, which is between two of them; and auto.
_LEVELS: Final = ("1", "2", "3", "5", "6", "7", "9", _AUTO)
#: A level that took so many times as long as the fastest one that may be used, in the first turn, is not pushed again.
_TOO_SLOW: Final = 1.2
_KINDS: Final = 10
_KINDS_QUICK: Final = 2
#: The floor: within 10 % of the best fixed level.
_FLOOR: Final = 0.9
_MORE_BYTES: Final = 1.10


@dataclass(frozen=True, slots=True)
class Pushed:
    """What pushes of one stream at one level took. `seconds`: their median; `stored`: the most bytes."""

    seconds: float
    stored: int


def in_turns(push: Callable[[str], Run], levels: Sequence[str], turns: int) -> dict[str, Pushed]:
    """Push at each level, in turns. Those that are far behind after the first turn are not pushed again, but for auto.
    Returns: what each took, by level.
    """
    runs = {level: [push(level)] for level in levels}
    most = _MORE_BYTES * runs[_USUAL][0].stored
    fastest = min(first.seconds for (first,) in runs.values() if first.stored <= most)
    again = [level for level in levels if level == _AUTO or runs[level][0].seconds < _TOO_SLOW * fastest]
    for _ in range(turns - 1):
        for level in again:
            runs[level].append(push(level))
    return {
        level: Pushed(statistics.median(run.seconds for run in each), max(run.stored for run in each))
        for level, each in runs.items()
    }


def auto_and_fixed(
    results: Results, streams: Streams, folder: Path, say: Callable[[str], None], *, quick: bool
) -> None:
    """Push streams of each kind over each wire, at each level and with auto, in turns."""
    receiver = Receiver(folder / "receiver")
    rows, more = [], []
    with receiver.service() as daemon:
        sender = Sender(folder / "alpha", receiver, "alpha")
        for wire, size, turns in _WIRES:
            ratios: list[float] = []
            within: list[float] = []  # beside the best of those that store no more than auto may
            best_levels: list[str] = []
            for kind in range(_KINDS_QUICK if quick else _KINDS):
                stream = streams.of_kind(kind, size)
                push = partial(_push, sender, stream, daemon, wire)
                found = in_turns(push, _LEVELS, 1 if quick else turns)
                auto, usual = found.pop(_AUTO), found[_USUAL].stored
                best = min(found, key=lambda level: found[level].seconds)
                best_levels.append(best)
                ratios.append(found[best].seconds / auto.seconds)
                more.append(auto.stored / usual)
                allowed = [each.seconds for each in found.values() if each.stored <= _MORE_BYTES * usual]
                within.append(min(allowed) / auto.seconds)
                say(
                    f"{wire}, kind {kind}: auto {auto.seconds:.2f} s, {auto.stored / usual:.2f} times level 3's bytes;"
                    f" level {best} {found[best].seconds:.2f} s, {found[best].stored / usual:.2f};"
                    f" the best of those that may be used {min(allowed):.2f} s"
                )
                stream.path.unlink()
            rows.append(
                [
                    f"{wire} a second" if wire else "not limited",
                    ", ".join(best_levels),
                    f"{statistics.median(ratios):.2f}",
                    f"{min(ratios):.2f} - {max(ratios):.2f}",
                    f"{statistics.median(within):.2f}",
                    f"{min(within):.2f} - {max(within):.2f}",
                ]
            )
            results.budgets.append(
                report.Budget(
                    f"auto, times as fast as the best fixed level, wire: {wire or 'not limited'}",
                    _FLOOR,
                    ratios,
                    each=True,
                )
            )
    results.budgets.append(
        report.Budget("auto, stored bytes beside those of level 3", _MORE_BYTES, more, at_least=False)
    )
    columns = ["wire", "best fixed level, by kind of data", "auto / best", "min - max", "auto / best (1)", "min - max"]
    legend = (
        f"{len(best_levels)} kinds of data: text, tables and noise in shares of each kind; both ends share all cores."
        " Over the two fast wires each level was pushed three times, in turns, and the median counts; those far behind"
        " were pushed once."
        f" (1) of the fixed levels that store at most {_MORE_BYTES:.2f} times the bytes of level 3, as auto does."
    )
    results.tables.append(report.Table("--level auto beside fixed levels", columns, rows, legend))


def _push(sender: Sender, stream: Stream, daemon: Service, wire: str | None, level: str) -> Run:
    return sender.push(stream, daemon, level, wire)
