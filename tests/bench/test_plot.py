from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from bench.plot import Chart, Line, svg, ticks

SVG = "{http://www.w3.org/2000/svg}"


def chart(*lines: Line, title: str = "Speed") -> Chart:
    return Chart(title, "level", "MB/s", lines)


def drawn(lines: Chart) -> ET.Element:
    return ET.fromstring(svg(lines))  # noqa: S314 - made here


def points(root: ET.Element) -> list[list[tuple[float, float]]]:
    return [
        [(float(x), float(y)) for x, _, y in (point.partition(",") for point in line.attrib["points"].split())]
        for line in root.iter(f"{SVG}polyline")
    ]


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [
        (0, 100, 5, [0, 20, 40, 60, 80, 100]),
        (0, 97, 5, [0, 20, 40, 60, 80, 100]),
        (-5, 9, 14, list(range(-5, 10))),
        (0, 5.1, 6, [0, 1, 2, 3, 4, 5, 6]),
        (1, 365, 8, [0, 50, 100, 150, 200, 250, 300, 350, 400]),
        (3, 3, 4, [3.0, 3.2, 3.4]),
    ],
)
def test_ticks_are_round_and_cover_the_figures(low: float, high: float, most: int, expected: list[float]) -> None:
    found = ticks(low, high, most)
    if low == high:
        assert found[0] <= low < found[-1]
    else:
        assert found == pytest.approx(expected)


@pytest.mark.parametrize("high", [0.013, 1, 7, 99.5, 1234, 5e9])
def test_there_are_never_more_ticks_than_wanted(high: float) -> None:
    found = ticks(0, high, 6)
    assert found[0] == 0
    assert found[-1] >= high
    assert len(found) <= 7


def test_a_larger_figure_is_higher_and_a_later_one_further_right() -> None:
    ((first, second),) = points(drawn(chart(Line("a", [(1, 10), (2, 30)]))))
    assert first[0] < second[0]
    assert first[1] > second[1]


def test_equal_steps_of_figures_are_equal_steps_of_pixels() -> None:
    ((a, b, c),) = points(drawn(chart(Line("a", [(1, 10), (2, 20), (3, 30)]))))
    assert b[0] - a[0] == pytest.approx(c[0] - b[0], abs=0.2)
    assert b[1] - a[1] == pytest.approx(c[1] - b[1], abs=0.2)


def test_what_is_named_is_text_and_is_escaped() -> None:
    root = drawn(chart(Line("8 < 9 & more", [(1, 1)]), title="<b>"))
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert {"<b>", "level", "MB/s", "8 < 9 & more"} <= set(texts)
    assert root.find(f"{SVG}title") is not None


def test_names_of_lines_that_end_together_do_not_cover_each_other() -> None:
    lines = [Line(name, [(1, 1), (2, 5)]) for name in "abc"]
    root = drawn(chart(*lines))
    heights = sorted(float(text.attrib["y"]) for text in root.iter(f"{SVG}text") if text.text in {"a", "b", "c"})
    assert min(after - before for before, after in zip(heights, heights[1:], strict=False)) >= 16  # noqa: RUF007


def test_a_reader_who_prefers_dark_gets_other_colours_on_another_paper() -> None:
    text = svg(chart(Line("a", [(1, 1)])))
    light, _, dark = text.partition("@media(prefers-color-scheme:dark)")
    for name in (".paper", ".line0", ".name0", "text{"):
        assert name in light
        assert name in dark


def test_nothing_is_loaded_from_anywhere() -> None:
    text = svg(chart(Line("a", [(1, 1)])))
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "<script" not in text


@pytest.mark.parametrize("lines", [[], [Line("a", [])], [Line(name, [(1, 1)]) for name in "abcd"]])
def test_what_cannot_be_drawn_is_refused(lines: list[Line]) -> None:
    with pytest.raises(ValueError, match="Speed"):
        svg(chart(*lines))
