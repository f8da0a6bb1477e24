"""Pushes at several levels, in turns."""

from __future__ import annotations

from bench.measure import Cost, Run
from bench.wires import Pushed, in_turns

SECONDS = {"-5": [1.0, 1.0, 1.0], "1": [2.0, 2.6, 2.2], "3": [2.3, 2.1, 2.1], "9": [9.0], "auto": [4.0, 2.0, 2.4]}
STORED = {"-5": [111, 111, 111], "1": [105, 105, 105], "3": [100, 100, 100], "9": [95], "auto": [101, 109, 102]}


def test_levels_that_are_far_behind_are_pushed_once() -> None:
    pushed: list[str] = []

    def push(level: str) -> Run:
        seconds = SECONDS[level][pushed.count(level)]
        pushed.append(level)
        return Run(seconds, Cost(0, 0), Cost(0, 0), 0, 0.0, stored=STORED[level][pushed.count(level) - 1])

    found = in_turns(push, list(SECONDS), 3)
    # auto is pushed again, however long it took. Level -5 stores too much: it makes no other one slow.
    again = ["-5", "1", "3", "auto"]
    assert pushed == ["-5", "1", "3", "9", "auto", *again, *again]
    assert found == {
        "-5": Pushed(1.0, 111),
        "1": Pushed(2.2, 105),
        "3": Pushed(2.1, 100),
        "9": Pushed(9.0, 95),
        "auto": Pushed(2.4, 109),
    }
