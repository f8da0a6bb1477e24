from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullsend_protocol.shared.errors import UsageError
from fullsend_protocol.shared.units import (
    format_duration,
    format_size,
    format_time,
    parse_duration,
    parse_size,
    parse_time,
    printable,
)

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("4M", 4_194_304),
        ("4m", 4_194_304),
        ("4 MiB", 4_194_304),
        ("4MB", 4_194_304),
        ("1.5G", 3 * GIB // 2),
        ("512K", 512 * KIB),
        ("2T", 2 * TIB),
        (" 7 ", 7),
        ("9007199254740993", 9007199254740993),  # more than a float holds
        ("0.1K", 102),
    ],
)
def test_size_is_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "M", "4X", "-4M", "4.M", ".5M", "1e3", "4 4", "0x10", "nan", "inf", "4KK", "9" * 400, "٣M", "1_000"]
)
def test_what_is_no_size_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size: write a number with K, M, G or T") as caught:
        parse_size(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("26h", 93600), ("30d", 2_592_000), ("1.5h", 5400), (" 0s ", 0)]
)
def test_duration_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "s", "15M", "-1s", "1w", "1h30m", "nan", "9" * 400 + "d", "٣d"])
def test_what_is_no_duration_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match="is not a duration: write a number with s, m, h or d") as caught:
        parse_duration(text)
    assert repr(text) in str(caught.value)


@given(st.text(max_size=20))
def test_any_text_is_a_quantity_or_a_usage_error(text: str) -> None:
    for parse in (parse_size, parse_duration):
        with contextlib.suppress(UsageError):
            assert parse(text) >= 0


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1023.4, "1023 B"),
        (1023.6, "1.0 KiB"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (MIB - 1, "1.0 MiB"),
        (44_774_301_696, "41.7 GiB"),
        (3 * TIB, "3.0 TiB"),
        (5000 * TIB, "5000.0 TiB"),
    ],
)
def test_size_is_written_for_a_person(size: float, text: str) -> None:
    assert format_size(size) == text


@given(st.integers(0, 1 << 50))
def test_size_as_written_is_read_as_about_the_same(size: int) -> None:
    assert parse_size(format_size(size)) == pytest.approx(size, rel=0.06, abs=1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00:00"), (46.9, "0:00:46"), (3599, "0:59:59"), (86399, "23:59:59"), (183_845, "2d 03:04:05")],
)
def test_duration_is_written_for_a_person(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("epoch", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_795_417_089, "2026-11-23T06:58:09Z"),
        (1_795_417_089.9, "2026-11-23T06:58:09Z"),
        (253_402_300_799, "9999-12-31T23:59:59Z"),
        (253_402_300_800, "@253402300800"),
        ((1 << 64) - 1, "@18446744073709551615"),
    ],
)
def test_time_is_iso_8601_in_utc(epoch: float, text: str) -> None:
    assert format_time(epoch) == text


@given(st.integers(0, (1 << 64) - 1))
def test_any_creation_time_of_a_begin_record_is_written(epoch: int) -> None:
    assert format_time(epoch)


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("tank/data@now", "tank/data@now"),
        ("größe/日本", "größe/日本"),
        ("a\nb", r"a\nb"),
        ("\x1b[2J", r"\x1b[2J"),
        ("back\\slash", r"back\\slash"),
        ("\u202emoc", r"\u202emoc"),
        ("\ud800", r"\ud800"),
        ("", ""),
    ],
)
def test_text_from_outside_cannot_write_on_a_terminal(text: str, safe: str) -> None:
    assert printable(text) == safe


@given(st.text(), st.text())
def test_any_text_is_made_printable_and_no_two_become_the_same(one: str, other: str) -> None:
    assert printable(one).isprintable()
    assert (printable(one) == printable(other)) == (one == other)


@given(st.integers(0, 10**13))
def test_a_time_is_read_as_it_is_written(epoch: int) -> None:
    assert parse_time(format_time(epoch)) == epoch


@pytest.mark.parametrize(
    "text",
    [
        *("", "@", "@-1", "yesterday", "2026-11-23", "2026-11-23T06:30:00", "2026-11-23T06:30:00+01:00"),
        *("2026-11-23T06:30:00.5Z", "2026-11-23 06:30:00Z", "2026-1-2T06:30:00Z", "0000-01-01T00:00:00Z"),
        *("2026-13-23T06:30:00Z", "2026-11-31T06:30:00Z", "2026-11-23T24:30:00Z", " 2026-11-23T06:30:00Z"),
    ],
)
def test_other_text_is_not_read_as_a_time(text: str) -> None:
    assert parse_time(text) is None
