"""The pictures of `top`. On a real terminal: tests/end_to_end/test_top.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.terminal import Picture

from fullsend_cli import top as module
from fullsend_cli.screen import fit
from fullsend_cli.tables import Painter
from fullsend_cli.top import LiveLook, TopView, run_top
from fullsend_protocol.wire.live import LiveTransfer

MIB = 1 << 20
PLAIN = Painter(colours=False)


def transfer(**said: Any) -> LiveTransfer:
    given: dict[str, Any] = {
        "id": "7.1",
        "activity": "push",
        "peer": "alpha",
        "what": "tank/a@now",
        "raw_bytes": 100 * MIB,
        "wire_bytes": 50 * MIB,
        "size": 400 * MIB,
        "seconds": 100.0,
        "waited": {"wire": 90.0, "disk": 10.0},
    }
    return LiveTransfer.model_validate(given | said)


def test_a_row() -> None:
    view = TopView("sender")
    heading, row = view.table(view.look([transfer()], 1000.0), PLAIN)
    assert heading.split() == ["ACTIVITY", "SENDER", "STREAM", "RAW", "RATE", "LIMIT", "%", "ETA", "TIME"]
    assert row.split() == [
        "push",
        "alpha",
        "tank/a@now",
        "100.0",
        "MiB",
        "1.0",
        "MiB/s",
        "wire",
        "25%",
        "0:05:00",
        "0:01:40",
    ]


def test_what_is_not_known_is_not_told() -> None:
    view = TopView("receiver")
    (_heading, row) = view.table(view.look([transfer(size=None, seconds=0.5, peer="", waited={})], 1.0), PLAIN)
    assert row.split() == ["push", "-", "tank/a@now", "100.0", "MiB", "-", "unknown", "-", "-", "0:00:00"]


def test_a_receiver_that_is_away_ends_at_no_time() -> None:
    view = TopView("receiver")
    (seen,) = view.look([transfer(away=True)], 1.0)
    assert seen.left is None
    assert "away" in "".join(view.table([seen], PLAIN))


def test_later_looks_tell_what_is_now() -> None:
    view = TopView("sender")
    for second in range(5):
        waited = {"wire": 90.0, "disk": 10.0 + second}
        count = {"raw_bytes": (100 + 3 * second) * MIB, "seconds": 100.0 + second}
        (seen,) = view.look([transfer(waited=waited, **count)], 1000.0 + second)
    assert (seen.rate, seen.limit) == (3 * MIB, "disk")
    view.look([], 1010.0)
    (seen,) = view.look([transfer()], 1011.0)  # the same id is another transfer then
    assert (seen.rate, seen.limit) == (MIB, "wire")


def test_a_hostile_name_cannot_control_the_terminal() -> None:
    view = TopView("sender")
    hostile = transfer(what="tank/\x1b[2J\x1b]0;owned\x07\r\nx@\u202enow", peer="\x1b[31m", activity="push")
    for columns in (None, 200, 60, 20):
        picture = Picture()
        for line in view.table(view.look([hostile], 1.0), PLAIN, columns):
            assert line.isprintable()
            picture.write(f"{line}\r\n")
        assert picture.colours == set()


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 99, 100, 200])
def test_no_line_is_wider_than_the_terminal(columns: int) -> None:
    view = TopView("sender")
    seen = view.look([transfer(what="tank/" + "名" * 100 + "@now"), transfer(id="2", what="x" * 300)], 1.0)
    for line in view.table(seen, PLAIN, columns):
        assert sum(1 + (character == "名") for character in line) <= max(columns, 35)


@pytest.mark.parametrize(
    ("text", "columns", "shown"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("名名", 4, "名名"),
        ("名名", 3, "名…"),
        ("e\u0301", 1, "e\u0301"),
        ("ab", 0, ""),
    ],
)
def test_what_fits(text: str, columns: int, shown: str) -> None:
    assert fit(text, columns) == shown


def test_what_has_no_room_is_counted() -> None:
    lines = [str(number) for number in range(10)]
    assert module._cut(lines, 10) == lines
    assert module._cut(lines, 5) == ["0", "1", "2", "3", "… 6 more"]
    assert module._cut(lines, 2) == ["0", "1"]


def looks(*found: LiveLook) -> Iterator[LiveLook]:
    yield from found


def test_json_is_an_object_a_look(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(module, "EVERY", 0)
    found = looks(LiveLook("t", {"store": "/s"}, [transfer()]), LiveLook("t", {"store": "/s"}, trouble="away\x1b"))
    with pytest.raises(StopIteration):
        run_top(lambda: next(found), peer="sender", once=False, as_json=True)
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["store"], first["why"]) == ("/s", None)
    (row,) = first["transfers"]
    assert row == {
        "id": "7.1",
        "activity": "push",
        "sender": "alpha",
        "stream": "tank/a@now",
        "raw_bytes": 100 * MIB,
        "wire_bytes": 50 * MIB,
        "size": 400 * MIB,
        "seconds": 100.0,
        "rate": MIB,
        "limit": "wire",
        "eta": 300,
        "waited": {"wire": 90.0, "disk": 10.0},
        "away": False,
    }
    assert (second["transfers"], second["why"]) == ([], "away\x1b")


@pytest.mark.parametrize(("trouble", "code"), [("", 0), ("nobody answers\x07", 1)])
def test_lines_once(trouble: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    look = LiveLook("fullsendd top: /s\x1b", {}, [] if trouble else [transfer()], trouble)
    assert run_top(lambda: look, peer="sender", once=True, as_json=False) == code
    out = capsys.readouterr().out
    assert out.startswith("fullsendd top: /s\\x1b\n\n")
    assert ("nobody answers\\x07\n" in out) == bool(trouble)
    assert ("tank/a@now" in out) != bool(trouble)
