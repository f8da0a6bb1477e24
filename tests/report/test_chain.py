from __future__ import annotations

from dataclasses import replace
from datetime import UTC
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.markup import Element, read
from tests.report_facts import branched, chain_of, home, package, stream, vm

from fullsend_report import chain
from fullsend_report.facts import StreamFacts


def drawn(streams: tuple[StreamFacts, ...]) -> Element:
    return read(chain.draw(streams, UTC)).children[0]


def moves(drawing: Element, class_: str) -> int:
    """Return how many shapes of a class are drawn."""
    return sum(path.attributes["d"].count("M") for path in drawing.every("path", class_))


def titles(drawing: Element) -> list[str]:
    return [each.whole_text for each in drawing.every("title")]


def test_a_chain_is_a_full_and_increments_with_lines_between_them() -> None:
    drawing = drawn(chain_of(range(5)))
    assert moves(drawing, "full") == 1
    assert moves(drawing, "inc") == 4
    assert moves(drawing, "link") == 4
    assert [each.text for each in drawing.every("text")] == ["F"]
    assert drawing.attributes["aria-label"] == "1 full, 4 increments"


def test_what_the_next_prune_does_is_drawn_and_said() -> None:
    drawing = drawn(chain_of(range(6), fates={1: "merge", 2: "merge", 4: "drop"}, merged=[3]))
    assert moves(drawing, "merge") == 2
    assert moves(drawing, "arrow") == 2
    assert moves(drawing, "drop") == 1
    assert moves(drawing, "mrg") == 1
    said = titles(drawing)
    assert sum("the next prune drops it" in each for each in said) == 1
    assert sum("the next prune merges it into the next one" in each for each in said) == 2
    assert drawing.attributes["aria-label"] == (
        "1 full, 5 increments, 1 of them merged, 1 dropped at the next prune, 2 merged away at the next prune"
    )


def test_a_damaged_stream_is_crossed_out_and_what_builds_on_it_is_marked() -> None:
    drawing = drawn(vm().streams)
    assert moves(drawing, "cross") == 1
    assert moves(drawing, "bad") == 10
    assert "1 damaged, 9 not restorable" in drawing.attributes["aria-label"]
    assert sum("cannot be restored" in each for each in titles(drawing)) == 9


def test_a_merged_full_is_a_square_in_the_colour_of_merges() -> None:
    drawing = drawn(home().streams)
    assert [each.attributes["class"] for each in drawing.every("g")[0].every("path")] == ["mrg"]
    assert drawing.every("text")[0].text == "F"


def test_a_branch_is_an_arc_from_its_base() -> None:
    lines = drawn(branched().streams).every("path", "link")[0].attributes["d"]
    assert lines.count("Q") == 1


def test_packages_have_a_letter_and_no_lines() -> None:
    drawing = drawn(package().streams)
    assert [each.text for each in drawing.every("text")] == ["P", "P"]
    assert not drawing.every("path", "link")


def test_no_line_leads_from_a_base_that_is_not_drawn() -> None:
    assert not drawn((stream(5, 3, base=4),)).every("path", "link")


def test_the_newest_streams_are_drawn() -> None:
    many = chain_of(range(chain.DRAWN + 30))
    drawing = drawn(many)
    assert moves(drawing, "inc") == chain.DRAWN
    assert not drawing.every("path", "full")
    assert drawing.attributes["aria-label"] == f"1 full, {chain.DRAWN + 29} increments"


def test_nothing_is_stored() -> None:
    assert chain.summary(()) == "no stream is stored"
    assert drawn(()).attributes["aria-label"] == "no stream is stored"


def test_a_long_name_is_cut_in_the_drawing() -> None:
    long = replace(stream(1, 1), snapshot="x" * 5000)
    assert len(titles(drawn((long,)))[0]) < 200


_STREAMS = st.lists(
    st.builds(
        StreamFacts,
        snapshot=st.text(max_size=8),
        guid=st.sampled_from(["1", "2", "3", "4", None]),
        base_guid=st.sampled_from(["1", "2", "3", "4", "5", None]),
        kind=st.sampled_from(["full", "incremental", "package"]),
        received=st.none() | st.floats(0, 1e19),
        raw_bytes=st.integers(0, 1 << 50),
        stored_bytes=st.integers(0, 1 << 50),
        merged=st.booleans(),
        restorable=st.booleans(),
        damaged=st.booleans(),
        fate=st.sampled_from(["stay", "drop", "merge"]),
    ),
    max_size=60,
)


@given(_STREAMS)
def test_any_streams_give_a_drawing_with_each_of_them(streams: list[StreamFacts]) -> None:
    drawing = drawn(tuple(streams))
    assert moves(drawing, "full") + moves(drawing, "inc") + moves(drawing, "mrg") == len(streams)
    assert moves(drawing, "cross") == sum(each.damaged for each in streams)


@pytest.mark.parametrize("count", [1, 21, 22, 60])
def test_rows_stand_below_one_another(count: int) -> None:
    heights = [float(drawn(chain_of(range(each))).attributes["height"]) for each in (count, count + 21)]
    assert all(one < other for one, other in pairwise(heights))
