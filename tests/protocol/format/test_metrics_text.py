"""Prometheus' text: a golden page, and any label comes back as it was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.promtool import complaints

from fullsend_protocol.format.metrics_text import (
    MetricFamily,
    MetricSample,
    build_info,
    parse_samples,
    render_families,
)
from fullsend_protocol.shared.exit_codes import Exit

GOLDEN = r"""# HELP fullsend_build_info The program that made these metrics, and its version: 1.
# TYPE fullsend_build_info gauge
fullsend_build_info{program="fullsendd",version="0.1"} 1
# HELP fullsend_pushes_total Pushes \\ of\nall.
# TYPE fullsend_pushes_total counter
fullsend_pushes_total 3
# HELP fullsend_free_bytes Room.
# TYPE fullsend_free_bytes gauge
fullsend_free_bytes{dataset="tank/a \"b\"\\c\nd"} 1.5
"""


def family(name: str = "fullsend_free_bytes", about: str = "Room.") -> MetricFamily:
    return MetricFamily(name, "gauge", about)


def test_the_golden_page() -> None:
    pushes = MetricFamily("fullsend_pushes_total", "counter", "Pushes \\ of\nall.")
    pushes.add(3)
    free = family()
    free.add(1.5, dataset='tank/a "b"\\c\nd')
    text = render_families([build_info("fullsendd", "0.1"), pushes, family("fullsend_unknown_bytes"), free])
    assert text == GOLDEN
    assert not complaints(text)


def test_the_golden_page_is_read_back() -> None:
    assert list(parse_samples(GOLDEN)) == [
        MetricSample("fullsend_build_info", (("program", "fullsendd"), ("version", "0.1")), 1),
        MetricSample("fullsend_pushes_total", (), 3),
        MetricSample("fullsend_free_bytes", (("dataset", 'tank/a "b"\\c\nd'),), 1.5),
    ]


def test_any_integer_is_a_number() -> None:
    free = family()
    for name, value in {"bool": True, "enum": Exit.REFUSED, "large": 1 << 64}.items():
        free.add(value, what=name)
    assert [each.value for each in parse_samples(render_families([free]))] == [1, 3, 1 << 64]


def test_what_is_unknown_has_no_value() -> None:
    free = family()
    free.add(None, sender="a")
    free.sum_up(None, sender="a")
    free.lower_to(None, sender="a")
    assert not render_families([free])


def test_sums_and_the_earliest() -> None:
    free = family()
    for value in (3, 1, 2):
        free.sum_up(value, what="sum")
        free.lower_to(value, what="earliest")
    assert [each.value for each in parse_samples(render_families([free]))] == [6, 1]


@given(st.dictionaries(st.sampled_from(["sender", "dataset", "code"]), st.text()), st.floats(allow_nan=False))
def test_any_label_and_value_come_back(labels: dict[str, str], value: float) -> None:
    free = family()
    free.add(value, **labels)
    (sample,) = parse_samples(render_families([free]))
    assert sample == MetricSample(free.name, tuple(labels.items()), value)


@given(st.lists(st.text(), max_size=20, unique=True))
def test_no_label_gets_into_another_line(texts: list[str]) -> None:
    free = family()
    for text in texts:
        free.add(1, dataset=text)
    rendered = render_families([free])
    assert [dict(each.labels)["dataset"] for each in parse_samples(rendered)] == texts
    assert rendered.count("\n") == (len(texts) + 2 if texts else 0)


def test_what_is_not_utf8_ends_nothing() -> None:
    free = family()
    free.add(1, dataset="tank/\udcff")
    (sample,) = parse_samples(render_families([free]).encode().decode())
    assert sample.labels == (("dataset", "tank/\\udcff"),)


def test_promtool_reads_awkward_labels() -> None:
    free = family()
    for text in ('"', "\\", "\n", "\\n", "{}", 'a"} 1', "\r", "\x00", "\x85", "\u2028", "zä\U0001f4be", "", " ", "#"):
        free.add(1, dataset=text)
    assert not complaints(render_families([free]))


def test_promtool_finds_what_is_wrong() -> None:
    assert complaints('fullsend_free_bytes{dataset="a} 1\n')
    counter = MetricFamily("fullsend_pushes", "counter", "No total.")
    counter.add(1)
    assert complaints(render_families([counter]))


@pytest.mark.parametrize(
    "text",
    [
        "fullsend_free_bytes 1",  # cut
        "fullsend_free_bytes\n",
        "fullsend_free_bytes one\n",
        'fullsend_free_bytes{dataset="a} 1\n',
        'fullsend_free_bytes{dataset="\\x"} 1\n',
        'fullsend_free_bytes{dataset="a",} 1\n',
        "\n",
        "#\n",
        "\x00\x00\n",
    ],
)
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        list(parse_samples(text))
