from __future__ import annotations

import contextlib
import random
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import resumed, streams
from tests.protocol.cut_streams import (
    FEATURES,
    MIDDLE,
    PACKAGE,
    PLAIN,
    RAW,
    changed,
    fed,
    genuine_parts,
    gives,
    pieces_of,
    refusal,
    resumable,
    small,
    spliced,
    splicer,
    synthetic,
    taken_apart,
)
from tests.resumed import Sent, send_t, send_t_pieces, stream_of, summed, wrong_sums
from tests.streams import CLOSING_END, Genuine, each

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import IncompleteStream, NotTheSameStream, StreamError
from fullsend_protocol.stream.checksums import Piece
from fullsend_protocol.stream.records import HEADER_SIZE, Feature, RecordType
from fullsend_protocol.stream.resume_token import ResumeToken
from fullsend_protocol.stream.splice import REPEATED_MAX, ResumePoint

if TYPE_CHECKING:
    from collections.abc import Iterable


# --- a stream of all sorts of records ----------------------------------------------------------------------------


@pytest.mark.parametrize("of", [PLAIN, RAW, PACKAGE], ids=["plain", "raw", "package"])
def test_every_resume_point_is_resumed_from_however_the_bytes_come(of: Sent) -> None:
    for index in of.points():
        for repeated in range(12):
            raw = send_t(of, index, repeated)
            for size in (1, 7, 311, 312, 313, 624, len(raw)):
                if size > 100 or not repeated:
                    assert spliced(splicer(of, of.point(index)), pieces_of(raw, size)) == of.rest(index)


@pytest.mark.slow
def test_stream_in_two_parts_cut_at_every_place() -> None:
    raw, point, rest = send_t(PLAIN, MIDDLE), PLAIN.point(MIDDLE), PLAIN.rest(MIDDLE)
    for cut in range(len(raw) + 1):
        assert spliced(splicer(PLAIN, point), [raw[:cut], raw[cut:]]) == rest


def test_reference_is_summed_right_both_ways() -> None:
    """The yardstick itself: the quick way and the long way, and the sums of what they make."""
    for of in (PLAIN, RAW, PACKAGE, *(sent for stream in small()[:3] for sent in taken_apart(stream))):
        index = of.points()[len(of.points()) // 2]
        raw = send_t(of, index)
        begin, *records = streams.split(raw)
        parts = [raw[record.start : record.end] for record in records]
        assert stream_of(raw[: begin.end], parts) == summed(raw[: begin.end], parts) == raw
        assert wrong_sums(raw) == []


def test_nothing_comes_out_before_the_repeated_record_is_whole() -> None:
    raw = send_t(PLAIN, MIDDLE)
    taker = splicer(PLAIN, PLAIN.point(MIDDLE))
    repeated = next(record for record in streams.split(raw) if record.key == (7, 1024))
    assert fed(taker, pieces_of(raw[: repeated.end - 1], 100)) == b""
    assert (taker.found, taker.done) == (False, False)
    assert fed(taker, [raw[repeated.end - 1 : repeated.end]]) == b""
    assert (taker.found, taker.done) == (True, False)
    assert fed(taker, [raw[repeated.end :]]) == PLAIN.rest(MIDDLE)
    assert taker.done


# --- genuine streams ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", genuine_parts())
def test_genuine_part_and_genuine_rest_are_the_genuine_whole(name: str) -> None:
    """All three are by OpenZFS: a part, what it gave by the part's token, and the same stream uninterrupted."""
    part, rest, whole = (streams.named(name + end).read() for end in ("-part", "-rest", ""))
    (of,) = resumed.sent(whole)
    wanted = ResumeToken.decode(streams.named(f"{name}-rest").command.split(" -t ")[1])
    # The pool that the part was received into had its records written up to here.
    (index,) = (
        at
        for at, record in enumerate(of.records)
        if record.key == (wanted.object, wanted.offset)
        and record.kind is (RecordType.WRITE if wanted.offset else RecordType.OBJECT)
    )
    for at in range(index, len(of.records)):
        if of.records[at].key and of.records[at].end <= len(part):
            point = resumed.point(part[of.records[at].start : of.records[at].end])
            kept = part[: of.records[at].end]
            for size in (len(rest), 100_000, 1000):
                assert kept + spliced(splicer(of, point), pieces_of(rest, size)) == whole
    assert streams.named(name + "-part").size > of.records[index].end


@each(small)
def test_genuine_stream_that_was_cut_resumes(stream: Genuine) -> None:
    draw = random.Random(stream.name)
    for of in taken_apart(stream):
        cuts = [of.records[0].start, of.records[1].end, of.records[-1].start, of.end - 1]
        cuts += [draw.choice(of.records).end for _ in range(4)] + [draw.randrange(of.records[0].start, of.end)] * 4
        for number, index in enumerate({of.kept(cut) for cut in cuts} - {None}):
            assert index is not None
            raw = send_t(of, index, number % 12)
            size = draw.choice([len(raw), 1 << 16, 1000])
            assert spliced(splicer(of, of.point(index)), pieces_of(raw, size)) == of.rest(index)


@each(small)
def test_genuine_stream_that_was_cut_twice_resumes(stream: Genuine) -> None:
    draw = random.Random(stream.name)
    for of in taken_apart(stream):
        cut_twice(of, draw)


def cut_twice(of: Sent, draw: random.Random) -> None:
    """The second time the point is one that came out of a splicer."""
    points = of.points()
    if not points:  # an increment in which nothing has changed
        return
    first = draw.choice(points[: len(points) // 2 + 1])
    kept = of.raw[: of.records[first].end]
    raw = send_t(of, first)
    taker = splicer(of, of.point(first))
    kept += fed(taker, pieces_of(raw[: draw.randrange(len(raw))], 4096))
    second = of.kept(len(kept))
    assert second is not None
    assert second >= first
    with pytest.raises((IncompleteStream, NotTheSameStream)):
        taker.finish()
    record = of.records[second]
    kept = kept[: record.end]
    again = splicer(of, resumed.point(kept[record.start :]))
    assert kept + spliced(again, pieces_of(send_t(of, second, 3), 5000)) == of.raw[: of.end] + of.rest(
        len(of.records) - 1
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
@each(resumable)
def test_genuine_stream_cut_between_any_two_records_and_elsewhere_resumes(stream: Genuine) -> None:
    draw = random.Random(stream.name)
    tried = 0
    for of in taken_apart(stream):
        cuts = [record.end for record in of.records] + [draw.randrange(of.records[0].start, of.end) for _ in range(100)]
        found = {of.kept(cut) for cut in cuts} - {None}
        assert found == set(of.points())
        for index in of.points():
            parts: Iterable[Piece] = send_t_pieces(of, index, index % 12)
            if index % 3:  # else record by record, the headers apart from the payloads
                raw = b"".join(parts)
                parts = pieces_of(raw, len(raw) if index % 3 == 1 else 1 << 16)
            assert gives(splicer(of, of.point(index)), parts, memoryview(of.rest(index)))
            tried += 1
        for _ in range(10 if len(of.records) < 10_000 else 1):
            cut_twice(of, draw)
    assert tried >= 2


@each(lambda: [stream for stream in small() if stream.size < 100_000])
def test_genuine_stream_resumes_byte_by_byte(stream: Genuine) -> None:
    for of in taken_apart(stream):
        index = of.points()[len(of.points()) // 2]
        raw = send_t(of, index)
        assert spliced(splicer(of, of.point(index)), pieces_of(raw, 1)) == of.rest(index)


# --- not the same stream -----------------------------------------------------------------------------------------


def test_every_bit_of_the_repeated_header_must_be_the_same_up_to_the_checksum() -> None:
    raw = send_t(PLAIN, MIDDLE)
    good = PLAIN.point(MIDDLE)
    for at in range(280 * 8):
        header = bytearray(good.header)
        header[at // 8] ^= 1 << at % 8
        with pytest.raises(NotTheSameStream):
            spliced(splicer(PLAIN, ResumePoint(bytes(header), good.payload_sha256)), [raw])


def test_other_checksum_of_the_kept_record_is_no_reason_to_refuse_and_stays_wrong() -> None:
    """It is the one thing that must differ. Where the kept one is wrong, `zfs receive` says so."""
    good = PLAIN.point(MIDDLE)
    header = good.header[:280] + bytes(31) + b"\1"
    out = spliced(splicer(PLAIN, ResumePoint(header, good.payload_sha256)), [send_t(PLAIN, MIDDLE)])
    assert wrong_sums(PLAIN.raw[: PLAIN.records[MIDDLE].end] + out)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            {"guid": 7},
            "is tank/data@now (GUID 1234605616436508552, from GUID 72623859790382856), not tank/data@now (GUID 7",
        ),
        ({"base_guid": None}, "from GUID 72623859790382856), not tank/data@now (GUID 1234605616436508552, full)"),
        ({"base_guid": 7}, "not tank/data@now (GUID 1234605616436508552, from GUID 7)"),
        ({"name": "tank/data@then"}, "not tank/data@then (GUID"),
        ({"name": "tank/data@no"}, "not tank/data@no (GUID"),
        ({"features": 0}, "has the features 0x4, not 0x0"),
        ({"features": 1 << 22 | 4}, "has the features 0x4, not 0x400004"),
    ],
)
def test_other_stream_is_refused_by_its_begin(other: dict[str, Any], said: str) -> None:
    raw = send_t(PLAIN, MIDDLE)
    assert said in refusal(splicer(PLAIN, PLAIN.point(MIDDLE), **other), raw)
    assert refusal(splicer(PLAIN, PLAIN.point(MIDDLE), **other), raw[:HEADER_SIZE]).startswith("NotTheSameStream: ")


@pytest.mark.parametrize("feature", [Feature.REDACTED, Feature.RESUMING])
def test_redacted_or_resumed_stream_is_refused_from_the_start(feature: Feature) -> None:
    with pytest.raises(NotTheSameStream, match=f"it is a {feature.name.lower()} stream"):
        splicer(PLAIN, PLAIN.point(MIDDLE), features=PLAIN.features | 1 << feature)


def test_genuine_redacted_stream_is_refused() -> None:
    """What `zfs send -t` gives for it is the unredacted data, and the repeated record is the same."""
    (of,) = taken_apart(streams.named("redacted"))
    with pytest.raises(
        NotTheSameStream, match="tank/red@s1 cannot be resumed where it was cut: it is a redacted stream"
    ):
        splicer(of, of.point(of.points()[5]))


def test_resumed_stream_that_is_redacted_is_refused() -> None:
    of = synthetic([Feature.REDACTED])
    assert "has the features 0x200004, not 0x4" in refusal(
        splicer(of, of.point(MIDDLE), features=4), send_t(of, MIDDLE)
    )


RESUMED = send_t(PLAIN, MIDDLE)
#: Where its records begin: BEGIN, OBJECT, FREE, the repeated WRITE, and what follows.
AT = [record.start for record in streams.split(RESUMED)]
BEGINNING = RESUMED[: AT[1]]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "ended before it had repeated the last record"),
        (b"internal error: warning: cannot send\n", "ended before it had repeated the last record"),
        (b"x" * 400, "does not begin as one"),
        (RESUMED[:311], "ended before it had repeated the last record"),
        (BEGINNING, "ended before it had repeated the last record"),
        (RESUMED[: AT[4] - 1], "ended before it had repeated the last record"),
        (PLAIN.raw, "is not resumed: it begins at the start"),
        (PACKAGE.raw, "is not resumed: it begins at the start"),
        (changed(RESUMED, 16, "<Q", 2 | 1 << 22 | 1 << 4), "is not resumed: it begins at the start"),
        (changed(RESUMED, 8, ">Q", 0x2F5BACBAC), "does not begin as one"),
        (changed(RESUMED, 0, "<I", 3), "does not begin as one"),
        (changed(RESUMED, 4, "<I", 1 << 31), "has a record of type 0 with a payload of 2147483648 bytes"),
        (BEGINNING + BEGINNING, "has a record of type 0 before it has repeated the last one that is kept"),
        (BEGINNING + streams.end(), "has a record of type 5 before it has repeated the last one that is kept"),
        (BEGINNING + streams.record(11, {}), "has a record of the unknown type 11"),
        (BEGINNING + streams.record(3, {32: ("Q", 1 << 40)}), "of type 3 with a payload of 1099511627776 bytes"),
        (BEGINNING + streams.record(3, {32: ("Q", 510)}), "of type 3 with a payload of 510 bytes"),
        (BEGINNING + PLAIN.rest(MIDDLE), "has a record of type 5 before it has repeated the last one that is kept"),
        (changed(RESUMED, AT[3] + 40, "<Q", 7), "has another record for object 7, offset 1024"),
        (changed(RESUMED, AT[3] + HEADER_SIZE, "<B", 7), "has other data for object 7, offset 1024"),
        (RESUMED[: AT[3] + 280] + bytes(32) + RESUMED[AT[3] + 312 :], "has no running checksums"),
        (changed(RESUMED, AT[4], "<I", 0), "has a BEGIN record in a wrong place"),
        (changed(RESUMED, AT[4], "<I", 11), "has a record of the unknown type 11"),
        (changed(RESUMED, AT[4] + 52, "<I", 1 << 30), "of type 8 with a payload of 1073741824 bytes"),
        (changed(RESUMED, AT[-3] + 32, "<Q", 510), "has a record with a payload of 510 bytes"),
        (changed(RESUMED, AT[-3] + 32, "<Q", 1 << 40), "has a record with a payload of 1099511627776 bytes"),
        (changed(RESUMED, AT[-1] + 40, "<Q", 7), "ends as that of the snapshot with GUID 7, not 1234605616436508552"),
        (RESUMED + b"\0", "has 1 bytes or more after its END record"),
        (RESUMED + CLOSING_END, "bytes or more after its END record"),
    ],
)
def test_what_does_not_resume_where_the_stream_was_cut_is_refused_by_name(raw: bytes, said: str) -> None:
    error = refusal(splicer(PLAIN, PLAIN.point(MIDDLE)), raw)
    assert error.startswith("NotTheSameStream: the resumed stream ")
    assert said in error
    with pytest.raises(NotTheSameStream):
        spliced(splicer(PLAIN, PLAIN.point(MIDDLE)), [raw])


def test_other_data_in_the_repeated_record_are_noticed_whatever_their_place() -> None:
    large = stream_of(
        streams.begin(features=FEATURES), [streams.object_(7), streams.write(7, 0, b"y" * 4096), streams.end()]
    )
    (of,) = resumed.sent(large)
    raw = send_t(of, 2)
    payload = streams.split(raw)[-2]
    for at in range(payload.start + HEADER_SIZE, payload.end, 97):
        said = refusal(splicer(of, of.point(2)), changed(raw, at, "<B", 0))
        assert "has other data for object 7, offset 0" in said
    assert "has other data" in refusal(splicer(of, replace(of.point(2), payload_sha256=bytes(32))), raw)


def test_object_is_not_taken_for_the_write_at_its_beginning() -> None:
    (write,) = (
        at for at in PLAIN.points() if PLAIN.records[at].key == (7, 0) and PLAIN.records[at].kind is RecordType.WRITE
    )
    (object_,) = (at for at in PLAIN.points() if PLAIN.records[at].key == (7, 0) and at != write)
    raw = send_t(PLAIN, write)
    assert spliced(splicer(PLAIN, PLAIN.point(write)), [raw]) == PLAIN.rest(write)
    assert spliced(splicer(PLAIN, PLAIN.point(object_)), [raw]) == PLAIN.rest(object_)


def test_cut_behind_the_repeated_record_is_no_other_stream() -> None:
    """What came out is right, and can be resumed again; that a part is taken for the whole is what must not happen."""
    point, rest = PLAIN.point(MIDDLE), PLAIN.rest(MIDDLE)
    for cut in range(AT[4], len(RESUMED)):
        taker = splicer(PLAIN, point)
        out = fed(taker, [RESUMED[:cut]])
        assert rest.startswith(out)
        assert len(rest) - len(out) - (len(RESUMED) - cut) in range(HEADER_SIZE)  # part of a header waits
        with pytest.raises(IncompleteStream, match="ends before its END record"):
            taker.finish()


def test_repeated_record_may_come_late_but_not_for_ever() -> None:
    """A block of 16 MiB that is sent without -L comes as 128 records of 128 KiB."""
    writes = [streams.write(7, at << 17, b"y" * 8) for at in range(300)]
    (of,) = resumed.sent(stream_of(streams.begin(features=FEATURES), [streams.object_(7), *writes, streams.end()]))
    for repeated, found in ((129, True), (REPEATED_MAX, True), (REPEATED_MAX + 1, False)):
        raw = send_t(of, 250, repeated)
        if found:
            assert spliced(splicer(of, of.point(250)), [raw]) == of.rest(250)
        else:
            assert f"within {REPEATED_MAX} records" in refusal(splicer(of, of.point(250)), raw)
    assert REPEATED_MAX >= (16 << 20 >> 17) + 3


@pytest.mark.parametrize(
    ("header", "sha256", "said"),
    [
        (b"", bytes(32), "a record of 0 bytes with a hash of 32"),
        (bytes(311), bytes(32), "a record of 311 bytes"),
        (streams.object_(1), bytes(31), "with a hash of 31"),
        (streams.free(1), bytes(32), "cannot be resumed at a record of type 4"),
        (streams.end(), bytes(32), "cannot be resumed at a record of type 5"),
        (streams.begin(), bytes(32), "cannot be resumed at a record of type 0"),
        (streams.record(7, {}), bytes(32), "cannot be resumed at a record of type 7"),
        (streams.record(77, {}), bytes(32), "cannot be resumed at a record of type 77"),
        (streams.object_(1), bytes(32), "the checksum (0, 0, 0, 0) cannot be resumed at"),
        (streams.record(3, {32: ("Q", 1 << 40), 280: ("Q", 1)}), bytes(32), "a payload of 1099511627776 bytes"),
        (streams.record(3, {32: ("Q", 3), 280: ("Q", 1)}), bytes(32), "a payload of 3 bytes"),
    ],
)
def test_what_is_no_resume_point_is_refused(header: bytes, sha256: bytes, said: str) -> None:
    with pytest.raises(NotTheSameStream) as caught:
        ResumePoint(header, sha256)
    assert said in str(caught.value)


def test_resume_point_says_what_a_token_needs() -> None:
    point = PLAIN.point(MIDDLE)
    assert (point.type, point.object, point.offset, point.payload_size) == (RecordType.WRITE, 7, 1024, 8)
    point = PLAIN.point(PLAIN.points()[0])
    assert (point.type, point.object, point.offset, point.payload_size) == (RecordType.OBJECT, 1, 0, 16)
    point = PLAIN.point(MIDDLE + 1)
    assert (point.type, point.object, point.offset) == (RecordType.WRITE_EMBEDDED, 7, 2048)
    assert point.checksum == struct.unpack_from("<4Q", point.header, 280)


# --- any bytes ---------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=1000), max_size=5))
def test_any_bytes_are_refused_by_a_stream_error(data: list[bytes]) -> None:
    with pytest.raises(NotTheSameStream):
        spliced(splicer(PLAIN, PLAIN.point(MIDDLE)), data)


@settings(max_examples=300)
@given(st.data())
def test_resumed_stream_with_any_bytes_changed_is_spliced_or_refused(data: st.DataObject) -> None:
    """And nothing that is wrong up to the repeated record is taken."""
    raw = bytearray(RESUMED)
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    taker = splicer(PLAIN, PLAIN.point(MIDDLE))
    with contextlib.suppress(StreamError):
        out = spliced(taker, pieces_of(bytes(raw), 500))
        assert at >= AT[3] + 280 or out == PLAIN.rest(MIDDLE)


@given(st.binary(min_size=312, max_size=312), st.binary(min_size=32, max_size=32))
def test_any_header_is_a_resume_point_or_refused(header: bytes, sha256: bytes) -> None:
    with contextlib.suppress(NotTheSameStream):
        ResumePoint(header, sha256)


@given(st.integers(0, 12), st.integers(4, 308), st.integers(0, (1 << 32) - 1))
def test_any_field_of_a_resume_point_is_taken_or_refused(kind: int, at: int, value: int) -> None:
    with contextlib.suppress(NotTheSameStream):
        point = ResumePoint(streams.record(kind, {at: ("I", value), 280: ("Q", 1)}), bytes(32))
        assert point.payload_size <= limits.RECORD_PAYLOAD_MAX
