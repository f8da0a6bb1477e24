from __future__ import annotations

import io

import pytest

from fullsend_cli.tables import Cell, Colour, Painter, wants_colour

HEADER = ("DATASET", "STORED", "STATE")
ROWS = [
    [Cell("tank/data"), Cell("1 B"), Cell("ok", Colour.GREEN)],
    [Cell("tank"), Cell("10 MiB"), Cell("late", Colour.RED)],
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:  # type: ignore[explicit-override]
        return True


def test_a_table_without_colours_is_plain_text() -> None:
    assert list(Painter(colours=False).table(HEADER, ROWS, right={"STORED"})) == [
        "DATASET    STORED  STATE",
        "tank/data     1 B  ok",
        "tank       10 MiB  late",
    ]


def test_colours_change_no_width() -> None:
    heading, first, second = Painter(colours=True).table(HEADER, ROWS, right={"STORED"})
    assert heading == "\033[1mDATASET  \033[0m  \033[1mSTORED\033[0m  \033[1mSTATE\033[0m"
    assert first == "tank/data     1 B  \033[32mok\033[0m"
    assert second == "tank       10 MiB  \033[31mlate\033[0m"


def test_a_table_without_rows_is_nothing() -> None:
    assert list(Painter(colours=True).table(HEADER, [])) == []


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, True),
        ({"NO_COLOR": ""}, True),  # no-color.org: when present and not an empty string
        ({"NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
        ({"TERM": "xterm"}, True),
    ],
)
def test_a_terminal_gets_colours_unless_the_environment_says_otherwise(
    environment: dict[str, str], *, expected: bool
) -> None:
    assert wants_colour(Terminal(), environment) is expected
    assert not wants_colour(io.StringIO(), environment)
    assert not wants_colour(None, environment)
