from __future__ import annotations

from fullsend_protocol.shared.columns import aligned, width_of


def test_each_column_is_as_wide_as_its_widest_cell() -> None:
    found = list(aligned(("NAME", "SIZE"), [("tank/data", "1 B"), ("a", "10 MiB")], right={"SIZE"}))
    assert found == [["NAME     ", "  SIZE"], ["tank/data", "   1 B"], ["a        ", "10 MiB"]]


def test_without_rows_there_is_no_heading() -> None:
    assert list(aligned(("NAME",), [])) == []


def test_what_is_wide_counts_twice() -> None:
    assert width_of("a名e\u0301") == 4
    assert list(aligned(("A", "B"), [("名", "1"), ("abc", "22")], right={"B"})) == [
        ["A  ", " B"],
        ["名 ", " 1"],
        ["abc", "22"],
    ]
