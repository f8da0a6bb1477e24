"""`--level auto` beside the fixed levels that it may choose, over wires of several speeds and data of several kinds."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Final

from bench import report
from bench.data import MIB
from bench.fullsend_hosts import Receiver, Sender

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.report import Results
    from bench.scenarios import Streams

#: `--bwlimit`, and the bytes that are pushed: some 50 chunks, so that what auto costs to settle shows.
_WIRES: Final = (("10M", 192 * MIB), ("100M", 512 * MIB), (None, 512 * MIB))
#: Those of LADDER that have a number; the one below them has none.
_LEVELS: Final = ("1", "2", "3", "5", "6", "7", "9")
_KINDS: Final = 10
_KINDS_QUICK: Final = 2
#: The floor: within 10 % of the best fixed level.
_FLOOR: Final = 0.9
_MORE_BYTES: Final = 1.10


def auto_and_fixed(
    results: Results, streams: Streams, folder: Path, say: Callable[[str], None], *, quick: bool
) -> None:
    """Push streams of each kind over each wire, at each level and with auto, in turns."""
    receiver = Receiver(folder / "receiver")
    rows, more = [], []
    with receiver.service() as daemon:
        sender = Sender(folder / "alpha", receiver, "alpha")
        for wire, size in _WIRES:
            ratios: list[float] = []
            within: list[float] = []  # beside the best of those that store no more than auto may
            best_levels: list[str] = []
            for kind in range(_KINDS_QUICK if quick else _KINDS):
                stream = streams.of_kind(kind, size)
                runs = {level: sender.push(stream, daemon, level, wire) for level in (*_LEVELS, "auto")}
                auto = runs.pop("auto")
                best = min(runs, key=lambda level: runs[level].seconds)
                best_levels.append(best)
                ratios.append(runs[best].seconds / auto.seconds)
                more.append(auto.stored / runs["3"].stored)
                allowed = [run.seconds for run in runs.values() if run.stored <= _MORE_BYTES * runs["3"].stored]
                within.append(min(allowed) / auto.seconds)
                say(f"{wire}, kind {kind}: auto {auto.seconds:.2f} s, level {best} {runs[best].seconds:.2f} s")
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
        f" (1) of the fixed levels that store at most {_MORE_BYTES:.2f} times the bytes of level 3, as auto does."
    )
    results.tables.append(report.Table("--level auto beside fixed levels", columns, rows, legend))
