from __future__ import annotations

import contextlib
import itertools
import struct
import tracemalloc
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import streams
from tests.protocol.helpers import section, tables
from tests.streams import CLOSING_END, Genuine, broken, each, genuine, small, substream, whole

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import (
    IncompleteStream,
    NotASendStream,
    StreamError,
    TrailingBytes,
    UnsupportedStream,
)
from fullsend_protocol.stream.records import (
    HEADER_SIZE,
    Begin,
    Feature,
    Phase,
    RecordType,
    Walker,
    WalkerState,
    payload_length,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

NEVER = 1 << 62  # a target that no test's stream reaches

#: Every record type, in a plain stream and in a package.
EVERY = substream(*streams.every_record())
PACKAGE = streams.package(
    substream(*streams.every_record(), name="tank/data@before", guid=5),
    streams.redacted([7, 8], *streams.every_record(), guid=6, base_guid=5),
    nvlist=streams.tree("now", streams.file_system("tank/data", {"before": 5, "now": 6})),
)


@dataclass(frozen=True)
class Walked:
    """All that a walker can tell after some bytes."""

    offset: int
    done: bool
    at_resume_point: bool
    first_key: tuple[int, int] | None
    begins: tuple[Begin, ...]


def walked(walker: Walker) -> Walked:
    return Walked(walker.offset, walker.done, walker.at_resume_point, walker.first_key, tuple(walker.begins))


def walk(parts: Iterable[bytes]) -> Walker:
    walker = Walker()
    for part in parts:
        assert walker.walk(part, 0, len(part), NEVER) == len(part)
    return walker


def parts(raw: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = [0, *sorted(cuts), len(raw)]
    return [raw[start:stop] for start, stop in itertools.pairwise(places)]


def resume_points(raw: bytes) -> list[tuple[int, tuple[int, int]]]:
    """Walk with a target that each record reaches. Returns: where the walker stopped, and the record's key."""
    walker = Walker()
    found: list[tuple[int, tuple[int, int]]] = []
    position = 0
    while position < len(raw):
        walker.first_key = None
        position = walker.walk(raw, position, len(raw), 0)
        assert walker.offset == position
        if walker.at_resume_point:
            assert walker.first_key is not None
            found.append((position, walker.first_key))
    return found


def walk_all(feed: Iterable[bytes]) -> None:
    walk(feed).finish()


def refusal(raw: bytes) -> str:
    """The error that a stream ends in; the same, at the same place, where it comes byte by byte."""
    said = []
    for feed in ([raw], parts(raw, range(1, len(raw)))):
        with pytest.raises(StreamError) as caught:
            walk_all(feed)
        assert "\n" not in str(caught.value)
        said.append(f"{type(caught.value).__name__}: {caught.value}")
    assert said[0] == said[1]
    return said[0]


# --- what it tells -----------------------------------------------------------------------------------------------


def test_stream_with_every_record_type_is_walked_to_its_end() -> None:
    walker = walk([EVERY])
    walker.finish()
    assert walker.done
    assert walker.offset == len(EVERY)
    assert walker.begins == [Begin(False, "tank/data@now", streams.GUID, 0, streams.CREATED, 0, False, b"")]


def test_a_headers_length_is_that_of_the_record_that_another_reader_finds() -> None:
    found = streams.split(EVERY)
    assert {record.kind for record in found} >= {*RecordType}
    for record in found:
        head = EVERY[record.start : record.start + HEADER_SIZE]
        length = record.end - record.start - HEADER_SIZE
        assert (payload_length(EVERY, record.start), payload_length(head)) == (length, length)
    assert payload_length(b"\x0b".ljust(HEADER_SIZE, b"\0")) is None
    assert payload_length(b"\x03\x01".ljust(HEADER_SIZE, b"\0")) is None  # not a WRITE: the type has four bytes


def test_begin_records_say_who_the_stream_is() -> None:
    outer, first, second = walk([PACKAGE]).begins
    assert (outer.compound, outer.name, outer.guid, outer.base_guid) == (True, "tank/data@now", 0, 0)
    assert outer.payload == streams.xdr(streams.tree("now", streams.file_system("tank/data", {"before": 5, "now": 6})))
    assert (first.compound, first.name, first.guid, first.base_guid) == (False, "tank/data@before", 5, 0)
    assert (second.guid, second.base_guid, second.payload) == (6, 5, streams.native({"redact_snaps": (7, 8)}))
    assert second.has(Feature.REDACTED)
    assert not first.has(Feature.REDACTED)
    assert not second.has(Feature.RAW)


def test_stops_after_each_resumable_record_and_knows_its_key() -> None:
    found = resume_points(EVERY)
    assert found == [(record.end, record.key) for record in streams.split(EVERY) if record.key]
    assert [key for _, key in found] == [(1, 0), (2, 0), (3, 0), (2, 0), (2, 512), (2, 1024), (2, 2048)]


def test_first_key_is_that_of_the_first_resumable_record_since_it_was_forgotten() -> None:
    walker = walk([EVERY])
    assert walker.first_key == (1, 0)


def test_stops_at_the_first_resumable_record_that_reaches_the_target() -> None:
    points = [end for end, _ in resume_points(EVERY)]
    for target in range(len(EVERY)):
        walker = Walker()
        stopped = walker.walk(EVERY, 0, len(EVERY), target)
        reached = [end for end in points if end >= target]
        assert stopped == (reached[0] if reached else len(EVERY))


def test_walks_any_part_of_a_buffer() -> None:
    buffer = b"before" + EVERY + b"behind"
    walker = Walker()
    assert walker.walk(bytearray(buffer), 6, 6 + len(EVERY), NEVER) == 6 + len(EVERY)
    assert walker.done
    walker = Walker()
    assert walker.walk(memoryview(buffer), 6, 6 + len(EVERY), NEVER) == 6 + len(EVERY)
    assert walker.done


# --- genuine streams ---------------------------------------------------------------------------------------------


@each(whole)
def test_genuine_stream_is_whole_and_says_what_the_manifest_says(stream: Genuine) -> None:
    raw = stream.read()
    walker = walk([raw])
    walker.finish()
    assert walker.done
    assert [
        (begin.compound, begin.name, begin.guid, begin.base_guid, begin.created, begin.features)
        for begin in walker.begins
    ] == [
        (said["compound"], said["toname"], said["toguid"], said["fromguid"], said["creation"], said["features"])
        for said in stream.begins
    ]


@each(whole)
def test_genuine_stream_is_split_into_the_records_that_another_reader_finds(stream: Genuine) -> None:
    raw = stream.read()
    records = streams.split(raw)
    assert Counter(record.kind.name for record in records) == stream.records
    assert resume_points(raw) == [(record.end, record.key) for record in records if record.key]


@pytest.mark.parametrize("size", [311, 312, 313, 1000, 65_536, 1 << 20])
@each(small)
def test_genuine_stream_reads_alike_in_buffers_of_any_size(stream: Genuine, size: int) -> None:
    raw = stream.read()
    assert walked(walk(parts(raw, range(size, len(raw), size)))) == walked(walk([raw]))


@each(lambda: [stream for stream in broken() if stream.sort in {"cut", "damaged"}])
@pytest.mark.slow
def test_genuine_stream_that_ends_early_is_refused(stream: Genuine) -> None:
    assert refusal(stream.read()).startswith("IncompleteStream")


@each(lambda: [stream for stream in broken() if stream.sort == "resumed"])
def test_genuine_resumed_stream_is_whole_in_itself_and_shows_what_it_is(stream: Genuine) -> None:
    """facts.conclude refuses it."""
    walker = walk([stream.read()])
    assert walker.done
    assert walker.begins[0].has(Feature.RESUMING)


@pytest.mark.slow
def test_substream_that_zfs_send_failed_in_is_named() -> None:
    """libzfs continues with the next snapshot, and closes the package, as if nothing had happened."""
    said = refusal(streams.named("damaged-R").read())
    assert "tank/ill/b@s1 is cut off at 808724: `zfs send` failed there" in said


def test_package_whose_last_substream_was_cut_is_refused_in_spite_of_its_closing_end() -> None:
    cut = streams.begin("tank/data@now") + streams.object_(1) + CLOSING_END
    said = refusal(streams.begin("tank/data@now", 0, header_type=streams.COMPOUND) + CLOSING_END + cut)
    assert "tank/data@now is cut off at 1248" in said


# --- however it comes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [EVERY, PACKAGE], ids=["plain", "package"])
@pytest.mark.slow
def test_stream_reads_alike_byte_by_byte_and_cut_in_two_anywhere(raw: bytes) -> None:
    expected = walked(walk([raw]))
    assert walked(walk(parts(raw, range(1, len(raw))))) == expected
    for cut in range(1, len(raw)):
        assert walked(walk(parts(raw, [cut]))) == expected


@pytest.mark.parametrize("raw", [EVERY, PACKAGE], ids=["plain", "package"])
@pytest.mark.slow
def test_after_any_number_of_bytes_it_does_not_matter_how_they_came(raw: bytes) -> None:
    one_by_one = Walker()
    for length in range(1, len(raw) + 1):
        one_by_one.walk(raw, length - 1, length, NEVER)
        assert walked(one_by_one) == walked(walk([raw[:length]]))


@each(lambda: small(100_000))
def test_genuine_stream_reads_alike_byte_by_byte(stream: Genuine) -> None:
    raw = stream.read()
    walker = Walker()
    for at in range(len(raw)):
        walker.walk(raw, at, at + 1, NEVER)
    assert walked(walker) == walked(walk([raw]))


@given(st.sampled_from(small(800_000)), st.data())
def test_genuine_stream_reads_alike_however_it_is_split(stream: Genuine, data: st.DataObject) -> None:
    raw = stream.read()
    cuts = data.draw(st.lists(st.integers(0, len(raw)), max_size=20))
    target = data.draw(st.integers(0, len(raw)))
    found = []
    for feed in (parts(raw, cuts), [raw]):
        walker = Walker()
        stops = []
        for part in feed:
            position = 0
            while position < len(part):
                position = walker.walk(part, position, len(part), target)
                if walker.at_resume_point and walker.offset >= target:
                    stops.append(walked(walker))
        found.append((stops, walked(walker)))
    assert found[0] == found[1]


# --- how it ends -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [EVERY, PACKAGE], ids=["plain", "package"])
def test_stream_cut_at_any_byte_is_not_whole(raw: bytes) -> None:
    walker = Walker()
    for length in range(len(raw)):
        assert not walker.done
        with pytest.raises(NotASendStream if length < 16 else IncompleteStream):
            walker.finish()
        walker.walk(raw, length, length + 1, NEVER)
    assert walker.done


@each(small)
def test_genuine_stream_cut_between_any_two_records_is_not_whole(stream: Genuine) -> None:
    raw = stream.read()
    walker = Walker()
    for record in streams.split(raw):
        with pytest.raises(IncompleteStream if record.start else NotASendStream):
            walker.finish()
        walker.walk(raw, record.start, record.end, NEVER)
    walker.finish()


@given(st.sampled_from(small()), st.data())
def test_genuine_stream_cut_anywhere_is_not_whole(stream: Genuine, data: st.DataObject) -> None:
    raw = stream.read()
    walker = walk([raw[: data.draw(st.integers(0, len(raw) - 1))]])
    assert not walker.done
    with pytest.raises(StreamError):
        walker.finish()


@pytest.mark.parametrize("behind", [b"\0", EVERY, b"\n"])
@pytest.mark.parametrize("raw", [EVERY, PACKAGE], ids=["plain", "package"])
def test_bytes_behind_the_end_are_refused(raw: bytes, behind: bytes) -> None:
    assert f"bytes follow the stream's end at {len(raw)}" in refusal(raw + behind)
    walker = walk([raw])
    with pytest.raises(TrailingBytes):
        walker.walk(behind, 0, len(behind), NEVER)


def test_nothing_at_all_is_no_stream() -> None:
    assert refusal(b"") == "NotASendStream: no data: not a single byte of a send stream arrived"


# --- what it refuses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("garbage", "length"),
    [(b"hello, world\n", 13), (b"\0" * 1000, 16), (b"\x28\xb5\x2f\xfd" + b"x" * 100, 16), (b"x" * 5, 5)],
)
def test_garbage_is_refused_after_16_bytes(garbage: bytes, length: int) -> None:
    said = refusal(garbage)
    assert said.startswith("NotASendStream: not a ZFS send stream")
    assert refusal(garbage[:length]) == said
    if length == 16:
        assert walk([garbage[: length - 1]]).offset == length - 1  # not yet


def test_big_endian_stream_is_refused_by_name() -> None:
    swapped = struct.pack(">IIQQ", 0, 0, 0x2F5BACBAC, 1).ljust(HEADER_SIZE, b"\0")
    assert refusal(swapped).startswith("UnsupportedStream: a big-endian send stream")
    assert refusal(swapped[:16]).startswith("UnsupportedStream: a big-endian send stream")


OUTER = streams.begin("tank/data@now", 0, header_type=streams.COMPOUND)
INNER = streams.begin("tank/data@now")


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (INNER + INNER, "DamagedStream: BEGIN record at 312 in a wrong place"),
        (OUTER + OUTER, "BEGIN record at 312 in a wrong place"),
        (OUTER + CLOSING_END + OUTER, "compound BEGIN record at 624, inside a package"),
        (OUTER + CLOSING_END + INNER + INNER, "tank/data@now is cut off at 936"),
        (OUTER + streams.object_(1), "record type 1 at 312, where a BEGIN or END must stand"),
        (OUTER + CLOSING_END + streams.object_(1), "record type 1 at 624, where a BEGIN or END must stand"),
        (OUTER + CLOSING_END + streams.end(), "END record at 624 where the closing one must stand"),
        (INNER + streams.end(7), "END record at 312 of GUID 7, in a stream of 1234605616436508552"),
        (INNER + CLOSING_END, "END record at 312 of GUID 0"),
        (INNER + streams.record(11, {}), "unknown record type 11 at 312"),
        (INNER + streams.record(0xFFFFFFFF, {}), "unknown record type 4294967295 at 312"),
        (INNER + streams.record(0x103, {}), "unknown record type 259 at 312"),
        (streams.begin(header_type=0), "BEGIN record at 0 in a wrong place"),
        (streams.begin(header_type=3), "BEGIN record at 0 in a wrong place"),
        (streams.begin(b"tank/\xff@now"), "BEGIN record at 0 with a name that is not UTF-8"),
        (streams.begin(b"x" * 256), "BEGIN record at 0 with a name that is not UTF-8 of at most 255 bytes"),
        (streams.begin(payloadlen=limits.BEGIN_PAYLOAD_MAX + 1), "UnsupportedStream: nvlists of 16777217 bytes"),
        (
            INNER + streams.record(3, {8: ("Q", 1), 32: ("Q", 16777217)}),
            "WRITE record at 312 with a payload of 16777217",
        ),
        (INNER + streams.record(3, {50: ("B", 1), 96: ("Q", 1 << 63)}), "payload of 9223372036854775808 bytes"),
        (INNER + streams.record(1, {28: ("I", 0xFFFFFFFF)}), "OBJECT record at 312 with a payload of 4294967296"),
        (INNER + streams.record(1, {36: ("I", 1 << 31)}), "OBJECT record at 312 with a payload of 2147483648"),
        (INNER + streams.record(7, {16: ("Q", 1 << 40)}), "SPILL record at 312 with a payload of 1099511627776"),
        (INNER + streams.record(7, {40: ("Q", 1 << 40)}), "SPILL record at 312 with a payload of 1099511627776"),
        (INNER + streams.record(8, {52: ("I", 1 << 30)}), "WRITE_EMBEDDED record at 312 with a payload of 1073741824"),
    ],
)
def test_what_no_zfs_send_writes_is_refused_by_name(raw: bytes, said: str) -> None:
    """At once, by the header, before any payload: none follows here."""
    assert said in refusal(raw)


def test_name_of_255_bytes_is_taken() -> None:
    name = "tank/" + "ü" * 123 + "@now"
    assert len(name.encode()) == 255
    assert walk([streams.begin(name)]).begins[0].name == name


def test_payload_of_16_mib_is_taken() -> None:
    most = limits.RECORD_PAYLOAD_MAX
    walker = walk([INNER, streams.write(1, 0, bytes(most)), streams.spill(1, bytes(most)), streams.end()])
    assert walker.done


def test_nvlist_that_cannot_be_read_is_refused_when_it_comes() -> None:
    for payload in (b"x" * 100, b"\1\1\0\0" + bytes(7)):
        assert refusal(streams.begin(header_type=2, payload=payload)).startswith("DamagedStream: the nvlist of a BEGIN")
        redacted = streams.begin(features=[Feature.REDACTED], payload=payload)
        assert refusal(redacted).startswith("DamagedStream: the nvlist of a BEGIN")


def test_payload_that_nobody_reads_is_not_kept() -> None:
    """A raw stream's keys are a kilobyte a substream."""
    (begin,) = walk([streams.begin(features=[Feature.RAW], payload=b"keys" * 256)]).begins
    assert begin.payload == b""


def test_raw_stream_tells_its_iv_sets() -> None:
    """Those of OpenZFS: the increment's base is the full."""
    names = ("full-enc-w", "incr-enc-w", "full-enc", "incr")
    full, more, decrypted, plain = (walk([streams.named(name).read()]).begins[-1] for name in names)
    assert full.base_ivset_guid is None
    assert full.ivset_guid == more.base_ivset_guid
    assert len({full.ivset_guid, more.ivset_guid, None}) == 3
    for begin in (decrypted, plain):
        assert (begin.ivset_guid, begin.base_ivset_guid) == (None, None)
    assert full.payload == more.payload == b""


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"keys" * 256,
        streams.native({}),
        streams.native({"crypt_keydata": {"to_ivset_guid": 0, "from_ivset_guid": 0}}),
        streams.native({"crypt_keydata": {"to_ivset_guid": "5", "from_ivset_guid": (5,)}}),
        streams.xdr({"to_ivset_guid": 5}),
        streams.native({"much": "x" * limits.BEGIN_KEYS_MAX, "to_ivset_guid": 5}),
    ],
    ids=["nothing", "no nvlist", "empty", "zeros", "other types", "xdr", "long"],
)
def test_raw_stream_that_does_not_tell_its_iv_sets_is_taken(payload: bytes) -> None:
    (begin,) = walk([streams.begin(features=[Feature.RAW], payload=payload)]).begins
    assert (begin.ivset_guid, begin.base_ivset_guid) == (None, None)


@pytest.mark.slow
def test_memory_for_begin_records_is_bounded_in_all_not_only_each() -> None:
    payload = streams.native({"redact_snaps": tuple(range(1 << 17))})  # 1 MiB
    raw = streams.begin(features=[Feature.REDACTED], payload=payload) + streams.end()
    feed = itertools.chain([OUTER + CLOSING_END], itertools.repeat(raw, 1000))
    tracemalloc.start()
    try:
        with pytest.raises(UnsupportedStream, match="at most 16777216"):
            walk_all(feed)
        assert tracemalloc.get_traced_memory()[1] < 4 * limits.BEGIN_PAYLOAD_MAX
    finally:
        tracemalloc.stop()


def test_number_of_substreams_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SUBSTREAMS_MAX", 3)
    assert walk([OUTER, CLOSING_END, *[substream()] * 3, CLOSING_END]).done
    said = refusal(OUTER + CLOSING_END + substream() * 4 + CLOSING_END)
    assert "a package of more than 3 snapshots is not supported" in said


def test_payload_is_announced_before_it_takes_memory() -> None:
    walker = Walker()
    tracemalloc.start()
    try:
        walker.walk(streams.begin(payloadlen=limits.BEGIN_PAYLOAD_MAX, header_type=2), 0, HEADER_SIZE, NEVER)
        walker.walk(b"x" * 1000, 0, 1000, NEVER)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


# --- any bytes ---------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=1000), max_size=5))
def test_any_bytes_are_a_stream_or_a_stream_error(data: list[bytes]) -> None:
    with pytest.raises(StreamError):
        walk(data).finish()


@st.composite
def any_records(draw: st.DrawFn) -> bytes:
    """A stream of records in any order, with any lengths."""
    records = draw(
        st.lists(
            st.one_of(
                st.sampled_from([*streams.every_record(), INNER, OUTER, CLOSING_END, streams.end()]),
                st.builds(
                    lambda kind, at, value, behind: streams.record(kind, {at: ("I", value)}, behind),
                    st.integers(0, 12),
                    st.integers(4, HEADER_SIZE - 4),
                    st.one_of(st.integers(0, 2000), st.integers(0, (1 << 32) - 1)),
                    st.binary(max_size=300),
                ),
            ),
            max_size=10,
        )
    )
    return draw(st.sampled_from([INNER, OUTER, OUTER + CLOSING_END + INNER])) + b"".join(records)


@given(any_records(), st.data())
def test_any_records_in_any_order_are_a_stream_or_a_stream_error_however_they_are_split(
    raw: bytes, data: st.DataObject
) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(raw)), max_size=5))
    found = []
    for feed in ([raw], parts(raw, cuts), parts(raw, range(1, len(raw)))):
        try:
            walker = walk(feed)
            walker.finish()
            found.append(repr(walked(walker)))
        except StreamError as error:
            found.append(repr(error))
    assert len(set(found)) == 1


@pytest.mark.parametrize("record", streams.split(PACKAGE), ids=lambda record: f"{record.start}-{record.kind.name}")
@pytest.mark.slow
def test_flip_of_any_byte_of_any_header_is_a_stream_or_a_stream_error(record: streams.Record) -> None:
    before = walk([PACKAGE[: record.start]])
    for at in range(HEADER_SIZE):
        for flip in (0x01, 0x80, 0xFF):
            raw = bytearray(PACKAGE[record.start :])
            raw[at] ^= flip
            walker = Walker.resume(before.state, before.begins)
            with contextlib.suppress(StreamError):
                walker.walk(raw, 0, len(raw), NEVER)
                walker.finish()


@settings(max_examples=300)
@given(st.sampled_from(small()), st.data())
def test_genuine_stream_with_any_bytes_changed_is_a_stream_or_a_stream_error(
    stream: Genuine, data: st.DataObject
) -> None:
    raw = bytearray(stream.read())
    for record in data.draw(st.lists(st.sampled_from(streams.split(bytes(raw))), min_size=1, max_size=3)):
        raw[record.start + data.draw(st.integers(0, HEADER_SIZE - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(StreamError):
        walk([bytes(raw)]).finish()


def test_document_lists_the_record_types() -> None:
    rows = tables(section("Chunks"))[1]
    assert [(int(row["type"]), row["record"]) for row in rows] == [(int(kind), kind.name) for kind in RecordType]
    resumable = {record.kind.name for record in streams.split(EVERY) if record.key}
    assert {row["record"] for row in rows if row["resumable"] == "yes"} == resumable
    assert 1 << Feature.RESUMING << 2 == 1 << 22


def test_record_and_feature_numbers_are_those_of_openzfs() -> None:
    """include/sys/zfs_ioctl.h. The genuine streams show most; these are what tells streams apart."""
    assert [kind.value for kind in RecordType] == list(range(11))
    assert (Feature.EMBED_DATA, Feature.LARGE_BLOCKS, Feature.RESUMING) == (16, 19, 20)
    assert (Feature.REDACTED, Feature.COMPRESSED, Feature.RAW) == (21, 22, 24)
    shown = {kind for stream in genuine() for kind in stream.records}
    assert shown >= {kind.name for kind in RecordType} - {"WRITE_BYREF"}  # of dedup sends, which OpenZFS has dropped


# --- resuming elsewhere -----------------------------------------------------------------------------------------


def meant(walker: Walker) -> WalkerState:
    """A walker's state, but for what means nothing: where a record began that is not resumable, or not the current."""
    state = walker.state
    return state if state.resumable and not state.head else replace(state, record_start=0)


def check_resumed(raw: bytes, cuts: Iterable[int]) -> None:
    """Split a stream at each of these places: a walker that resumes there must be as one that was never interrupted."""
    before = Walker()
    ends = [record.end for record in streams.split(raw)]
    at_end = walked(walk([raw]))
    for at in cuts:
        before.walk(raw, before.offset, at, NEVER)
        state = before.state
        assert state.offset == at
        after = Walker.resume(state, before.begins)
        assert after.state == state
        assert walked(after) == replace(walked(before), first_key=None)
        if before.at_resume_point:
            assert after.record_start == before.record_start
        # To the end of this record, of the next, and to the end of all.
        other = Walker.resume(state, before.begins)
        other.first_key, whole = before.first_key, Walker.resume(state, before.begins)
        whole.first_key = before.first_key
        for stop in [end for end in ends if end > at][:2]:
            straight = Walker()
            straight.walk(raw, 0, at, NEVER)
            straight.walk(raw, at, stop, NEVER)
            other.walk(raw, other.offset, stop, NEVER)
            assert walked(other) == walked(straight)
            assert meant(other) == meant(straight)
        assert whole.walk(raw, at, len(raw), NEVER) == len(raw)
        assert walked(whole) == at_end
        whole.finish()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("raw", [EVERY, PACKAGE], ids=["plain", "package"])
def test_walker_resumes_elsewhere_at_every_byte(raw: bytes) -> None:
    check_resumed(raw, range(len(raw) + 1))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["incr-2"])
def test_walker_resumes_elsewhere_at_every_byte_of_a_genuine_stream(name: str) -> None:
    raw = streams.named(name).read()
    check_resumed(raw, range(len(raw) + 1))


@each(small)
@pytest.mark.slow
def test_walker_resumes_elsewhere_around_every_header_of_a_genuine_stream(stream: Genuine) -> None:
    raw = stream.read()
    records = streams.split(raw)
    near = {at for record in records[:: max(1, len(records) // 40)] for at in (record.start + 1, record.start + 311)}
    near |= {at for record in records[:: max(1, len(records) // 40)] for at in (record.start, record.end)}
    check_resumed(raw, sorted(at for at in near if at <= len(raw)))


def test_walker_that_resumes_refuses_what_it_would_have_refused() -> None:
    """It knows the GUID that its END must have, and that a package may not end amid a substream."""
    at = len(EVERY) - HEADER_SIZE
    before = walk([EVERY[:at]])
    with pytest.raises(StreamError, match="END record at"):
        Walker.resume(before.state, before.begins).walk(streams.end(1), 0, HEADER_SIZE, NEVER)
    package = PACKAGE.index(streams.end(5))
    before = walk([PACKAGE[:package]])
    with pytest.raises(IncompleteStream, match="is cut off"):
        Walker.resume(before.state, before.begins).walk(CLOSING_END, 0, HEADER_SIZE, NEVER)
    with pytest.raises(TrailingBytes):
        Walker.resume(WalkerState(9, Phase.DONE), walk([EVERY]).begins).walk(b"x", 0, 1, NEVER)


def test_walker_that_resumes_counts_the_nvlists_that_came_before(monkeypatch: pytest.MonkeyPatch) -> None:
    redacted = [streams.redacted([number], name=f"tank/data@{number}", guid=number) for number in (1, 2)]
    raw = streams.package(*redacted)
    kept = len(streams.native({"redact_snaps": (1,)}))
    monkeypatch.setattr(limits, "BEGIN_PAYLOAD_MAX", 2 * kept - 1)
    at = raw.index(redacted[1])
    before = walk([raw[:at]])
    with pytest.raises(UnsupportedStream, match="in its BEGIN records"):
        Walker.resume(before.state, before.begins).walk(raw, at, len(raw), NEVER)


# --- spill blocks that zfs receive loses ------------------------------------------------------------------------

#: openzfs issue 18239: DMU_SPILL_BLKID is the largest block number, and its offset wraps to 2^63 or more.
SPILLS = substream(
    streams.object_(17, b"b" * 8),
    streams.write_embedded(17, 1 << 63, b"a symlink's target"),
    streams.write_embedded(18, (1 << 63) - 4096, b"data of a file that may be"),
    streams.write_embedded(19, (1 << 64) - 512, b"extended attributes"),
)


def test_embedded_spills_are_found_however_the_bytes_come() -> None:
    walker = walk([SPILLS])
    at = SPILLS.index(b"a symlink") - HEADER_SIZE
    name = walker.begins[0].name
    assert [(each.snapshot, each.number) for each in walker.embedded_spills] == [(name, 17), (name, 19)]
    assert walker.embedded_spills[0].at == at
    assert walk(SPILLS[at : at + 1] for at in range(len(SPILLS))).embedded_spills == walker.embedded_spills
    for cut in range(len(SPILLS)):
        first = walk([SPILLS[:cut]])
        again = Walker.resume(first.state, first.begins, first.embedded_spills)
        again.walk(SPILLS[cut:], 0, len(SPILLS) - cut, NEVER)
        assert again.embedded_spills == walker.embedded_spills


def test_embedded_spills_of_a_package_are_those_of_their_own_snapshots() -> None:
    parts = [substream(streams.write_embedded(7, 1 << 63, b"x"), name=f"tank/{child}@s") for child in ("a", "b")]
    walker = walk([streams.package(*parts)])
    assert [each.snapshot for each in walker.embedded_spills] == ["tank/a@s", "tank/b@s"]


def test_no_more_embedded_spills_are_kept_than_are_named() -> None:
    many = substream(*(streams.write_embedded(each, 1 << 63, b"x") for each in range(limits.EMBEDDED_SPILLS_MAX + 9)))
    assert len(walk([many]).embedded_spills) == limits.EMBEDDED_SPILLS_MAX
