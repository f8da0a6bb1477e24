"""The bytes stored over a year of nights, with and without merging: a figure for each night.

The nights are those of tests/end_to_end/test_year_of_merges.py, which proves what is stored. Here they are only
counted: after each push and its prune, what all stored streams have, and what all streams have that were pushed.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.plot import Chart, Line
from tests.end_to_end.test_year_of_merges import DATASET, LOADS, World
from tests.nights import RETENTION, hosts
from tests.programs import good

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.report import Results

_ROOT: Final = Path(__file__).resolve().parent.parent
_LOAD: Final = LOADS["a year, a hot twentieth"]
_QUICK: Final = 20
#: Nights between two lines of progress.
_SAY_EVERY: Final = 50


def count_a_year(results: Results, folder: Path, say: Callable[[str], None], *, quick: bool) -> None:
    """Push and prune each night, and make the chart."""
    days = _QUICK if quick else _LOAD.days
    pushed, without, merged = 0, [], []
    full = 0
    # The daemon's clock is found from the folder of the repository.
    with contextlib.chdir(_ROOT), hosts(World, _folder(folder), f"min-free = '1M'\n{RETENTION}") as world:
        world.fake.create(DATASET, blocks=_LOAD.blocks)
        for night in range(1, days + 1):
            world.sleep(_LOAD.step)
            pushed += world.push().stored_bytes
            good(world.receiver.fullsendd("prune"))
            full = full or pushed
            without.append((night, pushed / full))
            merged.append((night, sum(each["stored_bytes"] for each in world.receiver.list()) / full))
            if night % _SAY_EVERY == 0:
                say(f"night {night} of {days}: {without[-1][1]:.2f} fulls pushed, {merged[-1][1]:.2f} stored")
    results.charts["year"] = Chart(
        f"Bytes stored over {days} nights: 1 % a night, of a hot 5 %",
        "nights",
        "stored, as so many fulls",
        [Line("without merging", without), Line("merged", merged)],
    )
    results.notes.append(
        f"after {days} nights: {without[-1][1]:.2f} fulls stored without merging, {merged[-1][1]:.2f} merged"
    )


def _folder(folder: Path) -> Path:
    place = folder / "year"
    place.mkdir()
    return place
