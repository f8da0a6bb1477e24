from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from tests.markup import Element, read
from tests.report_facts import TODAY

from fullsend_report import sizes
from fullsend_report.facts import DayFacts

FIRST = TODAY - 89


def drawn(*days: DayFacts) -> Element:
    return read(sizes.draw(days, FIRST, TODAY)).children[0]


def tops(drawing: Element) -> list[float]:
    """Return how high each bar reaches, from above."""
    return [float(each) for each in re.findall(r"V([0-9.]+)", drawing.every("path", "stem")[0].attributes["d"])]


def day(ago: int, stored: int, raw: int = 0) -> DayFacts:
    return DayFacts(day=TODAY - ago, received=1, stored_bytes=stored, raw_bytes=raw)


def test_nothing_is_drawn_where_nothing_arrived() -> None:
    assert not sizes.draw([DayFacts(day=TODAY, unchanged=1), day(200, 5)], FIRST, TODAY)


def test_a_bar_is_as_high_as_its_logarithm() -> None:
    small, middle, large = tops(drawn(day(3, 1 << 20), day(2, 1 << 25), day(1, 1 << 30)))
    assert abs((small - middle) - (middle - large)) < 0.11
    assert small > middle > large


def test_the_scale_has_sizes_and_the_first_and_last_day() -> None:
    texts = [each.text for each in drawn(day(3, 1 << 20), day(1, 1 << 30)).every("text")]
    assert texts[-2:] == ["31 Aug", "28 Nov"]
    assert "512\u00a0KiB" in texts


def test_the_drawing_is_described() -> None:
    drawing = drawn(day(10, 1 << 30), day(1, 1 << 20))
    assert drawing.attributes["aria-label"] == (
        "Stored per day, on 2 days: the most was 1\u00a0GiB on Wed 18 Nov; the last was 1\u00a0MiB on Fri 27 Nov"
    )


@given(st.lists(st.tuples(st.integers(0, 89), st.integers(1, 1 << 60), st.integers(0, 1 << 60)), min_size=1))
def test_any_sizes_fit_into_the_drawing(days: list[tuple[int, int, int]]) -> None:
    drawing = drawn(*(day(*each) for each in days))
    assert len(tops(drawing)) == len(days)
    assert all(0 <= each <= 98 for each in tops(drawing))
    raws = drawing.every("path", "raw")
    assert sum(each.attributes["d"].count("M") for each in raws) == sum(raw > 0 for _ago, _stored, raw in days)
