from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import streams
from tests.streams import Genuine, NvValue, each, native, whole, xdr

from fullsend_protocol.shared.errors import DamagedStream, UnsupportedStream
from fullsend_protocol.stream import nvlist
from fullsend_protocol.stream.records import Walker

Pack = Callable[[Mapping[str, NvValue]], bytes]

LEAVES = st.one_of(
    st.just(value=True),  # a boolean pair is there, or it is not
    st.integers(0, (1 << 64) - 1),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
    st.lists(st.integers(0, (1 << 64) - 1), max_size=5).map(tuple),
)
NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
NVLISTS: st.SearchStrategy[dict[str, NvValue]] = st.recursive(
    st.dictionaries(NAMES, LEAVES, max_size=4),
    lambda inner: st.dictionaries(NAMES, LEAVES | inner, max_size=4),
    max_leaves=10,
)

#: nvpair types that we have no use for, with a value of each (XDR, native).
BYTE, INT32, UINT8_ARRAY, NVLIST_ARRAY = 2, 5, 14, 20

#: What a genuine `zfs send --redact` of one snapshot carries.
REDACT_SNAPS = bytes.fromhex(
    "00010000 00000000 01000000"  # native, little-endian; version 0; unique names
    "28000000 0d00 0000 01000000 10000000"  # a pair of 40 bytes, a name of 13, one value, uint64 array
    "7265646163745f736e61707300 000000"  # redact_snaps
    "2eb4a1a3c9c675a3"
    "00000000"
)
#: The same as libzfs would pack it.
REDACT_SNAPS_XDR = bytes.fromhex(
    "01010000 00000000 00000001"
    "0000002c 00000028 0000000c 7265646163745f736e617073 00000010 00000001 00000001 a375c6c9a3a1b42e"
    "00000000 00000000"
)


@pytest.mark.parametrize("packed", [REDACT_SNAPS, REDACT_SNAPS_XDR], ids=["native", "xdr"])
def test_these_bytes_are_this_list(packed: bytes) -> None:
    assert nvlist.decode(packed) == {"redact_snaps": (0xA375C6C9A3A1B42E,)}


@pytest.mark.parametrize("pack", [native, xdr])
@given(said=NVLISTS)
def test_list_comes_out_as_it_went_in(pack: Pack, said: dict[str, NvValue]) -> None:
    assert nvlist.decode(pack(said)) == said
    assert nvlist.decode(bytearray(pack(said))) == said


@given(st.binary(max_size=300))
def test_any_bytes_are_a_list_or_damage(data: bytes) -> None:
    with contextlib.suppress(DamagedStream):
        nvlist.decode(data)


@pytest.mark.parametrize("pack", [native, xdr])
@given(said=NVLISTS, data=st.data())
def test_damaged_list_is_a_list_or_damage(pack: Pack, said: dict[str, NvValue], data: st.DataObject) -> None:
    packed = bytearray(pack(said))
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DamagedStream):
        nvlist.decode(packed)


@pytest.mark.parametrize("pack", [native, xdr])
@given(said=NVLISTS.filter(bool), data=st.data())
def test_list_that_ends_early_is_damage(pack: Pack, said: dict[str, NvValue], data: st.DataObject) -> None:
    packed = pack(said)
    with pytest.raises(DamagedStream):
        nvlist.decode(packed[: data.draw(st.integers(1, len(packed) - 1))])


def test_no_bytes_are_an_empty_list() -> None:
    assert nvlist.decode(b"") == {}


@pytest.mark.parametrize("data", [b"\2\1\0\0", b"\0\0\0\0", b"\0\2\0\0", b"\xff\xff\0\0"])
def test_unknown_encoding_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(DamagedStream, match=f"unknown encoding {data[0]}, {data[1]}"):
        nvlist.decode(data + bytes(20))


def test_integers_are_found_at_any_depth() -> None:
    packed = streams.native({"a": 1, "text": "5", "inner": {"b": 1 << 63, "deep": {"c": 3}}, "many": (4, 5)})
    assert nvlist.integers(packed) == {"a": 1, "b": 1 << 63, "c": 3}
    assert nvlist.integers(b"") == nvlist.integers(streams.xdr({"a": 1})) == {}
    with pytest.raises(DamagedStream):
        nvlist.integers(packed[:-8])


def test_values_that_nobody_needs_are_passed_over() -> None:
    after = streams.native_pair("after", 8, 1, struct.pack("<Q", 7))
    packed = b"".join(
        [
            streams.native_pair("byte", BYTE, 1, b"\1"),
            streams.native_pair("key", UINT8_ARRAY, 3, b"abc"),
            streams.native_pair("int", INT32, 1, struct.pack("<i", -1)),
            streams.native_pair("lists", NVLIST_ARRAY, 2, bytes(64)),
            *(streams.native_pair("inner", 1, 0, b"") + bytes(4) for _ in range(2)),
        ]
    )
    assert nvlist.decode(b"\0\1\0\0" + bytes(8) + packed + after + bytes(4)) == {"after": 7}
    packed = b"".join(
        [
            streams.xdr_pair("byte", BYTE, 1, b"\0\0\0\1"),
            streams.xdr_pair("lists", NVLIST_ARRAY, 2, 2 * (bytes(8) + bytes(8))),
            streams.xdr_pair("after", 8, 1, struct.pack(">Q", 7)),
        ]
    )
    assert nvlist.decode(b"\1\1\0\0" + bytes(8) + packed + bytes(8)) == {"after": 7}


def test_boolean_values_are_read() -> None:
    for value in (0, 1):
        packed = streams.xdr_pair("x", 21, 1, struct.pack(">i", value))
        assert nvlist.decode(b"\1\1\0\0" + bytes(8) + packed + bytes(8)) == {"x": bool(value)}
        packed = streams.native_pair("x", 21, 1, struct.pack("<i", value))
        assert nvlist.decode(b"\0\1\0\0" + bytes(8) + packed + bytes(4)) == {"x": bool(value)}


def test_text_that_is_not_utf8_does_not_make_a_backup_impossible() -> None:
    """A user property may hold any bytes; with -R or -p it is in the nvlist."""
    packed = streams.xdr_pair(b"local:caf\xe9", 9, 1, streams.xdr_string(b"na\xefve"))
    assert nvlist.decode(b"\1\1\0\0" + bytes(8) + packed + bytes(8)) == {"local:caf\\xe9": "na\\xefve"}
    packed = streams.native_pair(b"local:caf\xe9", 9, 1, b"na\xefve\0")
    assert nvlist.decode(b"\0\1\0\0" + bytes(8) + packed + bytes(4)) == {"local:caf\\xe9": "na\\xefve"}


@pytest.mark.parametrize("pack", [native, xdr])
def test_nesting_is_bounded(pack: Pack) -> None:
    said: dict[str, NvValue] = {}
    for _ in range(16):
        said = {"x": said}
    assert nvlist.decode(pack(said)) == said
    with pytest.raises(DamagedStream, match="nested too deeply"):
        nvlist.decode(pack({"x": said}))


# --- what we pack ------------------------------------------------------------------------------------------------

PAIRS = st.dictionaries(
    NAMES,
    st.just(value=True)
    | st.integers(0, (1 << 64) - 1)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
    max_size=6,
)

#: What a genuine resumed stream has in its BEGIN: it resumes at object 11, offset 0.
RESUME = bytes.fromhex(
    "00010000 00000000 01000000"
    "28000000 0e00 0000 01000000 08000000 726573756d655f6f626a656374 000000 0b00000000000000"
    "28000000 0e00 0000 01000000 08000000 726573756d655f6f6666736574 000000 0000000000000000"
    "00000000"
)


def test_list_is_packed_into_these_bytes() -> None:
    assert nvlist.encode({"resume_object": 11, "resume_offset": 0}) == RESUME
    assert nvlist.encode({}) == RESUME[:12] + bytes(4)


@given(PAIRS)
def test_packed_list_is_what_another_program_packs(said: dict[str, bool | int | str]) -> None:
    assert nvlist.encode(said) == native(said)
    assert nvlist.decode(nvlist.encode(said)) == said


@given(PAIRS, NVLISTS)
def test_pairs_are_put_in_front(said: dict[str, bool | int | str], inner: dict[str, NvValue]) -> None:
    packed = native(inner)
    assert nvlist.put_first(said, packed) == nvlist.encode(said)[:-4] + packed[12:]
    assert nvlist.decode(nvlist.put_first(said, packed)) == {**said, **inner}
    assert nvlist.put_first(said, b"") == nvlist.encode(said)


@pytest.mark.parametrize("value", [False, -1, 1 << 64, "a\0b", 1.0, None])
def test_what_cannot_be_packed_is_a_mistake_of_ours(value: bool | int | str) -> None:
    with pytest.raises(ValueError, match="a value that is not packed"):
        nvlist.encode({"x": value})


@pytest.mark.parametrize("packed", [REDACT_SNAPS_XDR, b"\0\0" + REDACT_SNAPS[2:], REDACT_SNAPS[:15], b"\0"])
def test_nothing_is_put_in_front_of_a_list_that_is_packed_otherwise(packed: bytes) -> None:
    with pytest.raises(UnsupportedStream, match="packed in a way that is not known"):
        nvlist.put_first({"x": 1}, packed)


# --- bytes that would cost far more than they weigh ---------------------------------------------------------------


@pytest.mark.timeout(10)
def test_pairs_that_claim_each_other_are_refused_at_once() -> None:
    """Each pair claims a list that extends over all the pairs behind it: read naively, time grows as n to the 16."""
    pair = struct.pack(">ii", 28, 28) + streams.xdr_string(b"") + struct.pack(">ii", 19, 1) + bytes(8)
    with pytest.raises(DamagedStream):
        nvlist.decode(b"\1\1\0\0" + bytes(8) + pair * 5_000)


@pytest.mark.timeout(10)
def test_xdr_name_longer_than_its_pair_is_refused() -> None:
    """Else pairs of 24 bytes that all claim the same mebibyte as their name would take gibibytes."""
    pair = struct.pack(">iiI", 20, 20, 1 << 20) + bytes(8)
    with pytest.raises(DamagedStream):
        nvlist.decode(b"\1\1\0\0" + bytes(8) + pair + bytes(2 << 20))


@pytest.mark.parametrize(
    ("name_size", "count", "kind"),
    [(32767, 0, 1), (-1, 0, 1), (0, 0, 1), (1, 1 << 20, 16), (1, -1, 16), (1, 1, 8), (1, 1, 9)],
    ids=["long name", "negative name", "no name", "long array", "negative array", "no integer", "no text"],
)
def test_native_value_outside_its_pair_is_refused(name_size: int, count: int, kind: int) -> None:
    pair = struct.pack("<ihhii", 24, name_size, 0, count, kind) + bytes(8)
    with pytest.raises(DamagedStream):
        nvlist.decode(b"\0\1\0\0" + bytes(8) + pair + b"x" * (16 << 20))


@pytest.mark.parametrize("size", [-1, 1, 7, 15, 1 << 30])
def test_native_pair_of_an_impossible_size_is_refused(size: int) -> None:
    with pytest.raises(DamagedStream, match=f"a pair of {size} bytes"):
        nvlist.decode(b"\0\1\0\0" + bytes(8) + struct.pack("<i", size) + bytes(100))


@pytest.mark.parametrize("size", [-1, 1, 7, 1 << 30])
def test_xdr_pair_of_an_impossible_size_is_refused(size: int) -> None:
    with pytest.raises(DamagedStream, match=f"a pair of {size} bytes"):
        nvlist.decode(b"\1\1\0\0" + bytes(8) + struct.pack(">ii", size, 0) + bytes(100))


@pytest.mark.parametrize("count", [-1, 3, 1 << 30])
def test_xdr_array_longer_than_its_pair_is_refused(count: int) -> None:
    pair = streams.xdr_pair("x", 16, count, struct.pack(">IQQ", 2, 1, 2))
    with pytest.raises(DamagedStream):
        nvlist.decode(b"\1\1\0\0" + bytes(8) + pair + bytes(8))


# --- genuine ones ------------------------------------------------------------------------------------------------


@each(whole)
def test_genuine_lists_say_what_the_manifest_says(stream: Genuine) -> None:
    walker = Walker()
    raw = stream.read()
    walker.walk(raw, 0, len(raw), 1 << 62)
    for begin, said in zip(walker.begins, stream.begins, strict=True):
        read = nvlist.decode(begin.payload)
        if begin.compound:
            assert read.keys() <= {"fromsnap", "tosnap", "fss", "not_recursive"}
        for name, value in said.get("nvlist", {}).items():
            assert read[name] == (tuple(value) if isinstance(value, list) else value)
