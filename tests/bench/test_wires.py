"""Pushes at several levels, in turns."""

from __future__ import annotations

from bench.measure import Cost, Run
from bench.wires import Pushed, in_turns

SECONDS = {"1": [2.0, 2.6, 2.2], "3": [2.3, 2.1, 2.1], "9": [9.0], "auto": [4.0, 2.0, 2.4]}


def test_levels_that_are_far_behind_are_pushed_once() -> None:
    pushed: list[str] = []

    def push(level: str) -> Run:
        seconds = SECONDS[level][pushed.count(level)]
        pushed.append(level)
        return Run(seconds, Cost(0, 0), Cost(0, 0), 0, 0.0, stored=int(level) if level != "auto" else 7)

    found = in_turns(push, list(SECONDS), 3)
    # auto is pushed again, however long it took.
    assert pushed == ["1", "3", "9", "auto", "1", "3", "auto", "1", "3", "auto"]
    assert found == {"1": Pushed(2.2, 1), "3": Pushed(2.1, 3), "9": Pushed(9.0, 9), "auto": Pushed(2.4, 7)}
