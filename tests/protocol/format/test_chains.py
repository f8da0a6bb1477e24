from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from fullsend_protocol.format.chains import ends, reception


@dataclass(frozen=True)
class Stored:
    guid: str
    base_guid: str | None = None
    sequence: int | None = None
    received: str = "2026-11-23T06:30:00Z"


def test_what_has_a_number_is_newer_than_what_has_none() -> None:
    without = Stored("1", received="2036-01-01T00:00:00Z")
    assert reception(without) < reception(Stored("2", sequence=1))
    assert reception(Stored("3", sequence=9)) < reception(Stored("4", sequence=10, received="2021-01-01T00:00:00Z"))


def test_a_snapshot_that_came_again_counts_as_of_when_it_came_first() -> None:
    first, again = Stored("1", sequence=1), Stored("1", sequence=9)
    other = Stored("2", sequence=5)
    assert ends([again, other, first]) == [first, other]


def test_nothing_and_a_circle_have_no_end() -> None:
    assert ends([]) == []
    assert ends([Stored("1", "2"), Stored("2", "1")]) == []


@given(st.lists(st.tuples(st.integers(1, 9), st.none() | st.integers(1, 9)), max_size=12))
def test_no_end_has_anything_built_on_it(streams: list[tuple[int, int | None]]) -> None:
    stored = [
        Stored(str(guid), None if base is None else str(base), number) for number, (guid, base) in enumerate(streams)
    ]
    found = ends(stored)
    assert len({each.guid for each in found}) == len(found)
    assert not {each.guid for each in found} & {each.base_guid for each in stored}
    assert found == sorted(found, key=reception)
