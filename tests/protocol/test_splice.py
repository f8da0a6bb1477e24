from __future__ import annotations

import contextlib
import functools
import itertools
import random
import struct
import tracemalloc
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import resumed, streams
from tests.resumed import (
    Sent,
    quick_pieces_of,
    send_t,
    send_t_pieces,
    stream_of,
    summed,
    wrong_sums,
)
from tests.streams import CLOSING_END, Genuine, each

from fullsend_protocol import limits, splice
from fullsend_protocol.errors import (
    DamagedStream,
    IncompleteStream,
    NotTheSameStream,
    StreamError,
    UnsupportedStream,
)
from fullsend_protocol.records import HEADER_SIZE, Feature, RecordType
from fullsend_protocol.resume_token import ResumeToken
from fullsend_protocol.splice import REPEATED_MAX, Piece, Rejoiner, ResumePoint, Splicer, opening

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

#: Genuine streams that are there three times: NAME, its beginning NAME-part, and what OpenZFS went on with, NAME-rest.
IN_PARTS = ("full", "full-enc-w", "corpus/resume-plain", "corpus/resume-enc-w")
FEATURES = [Feature.SA_SPILL]


@functools.lru_cache(maxsize=8)
def taken_apart(stream: Genuine) -> list[Sent]:
    return resumed.sent(stream.read())


def resumable() -> list[Genuine]:
    return [
        stream for stream in streams.whole() if not any(b["features"] >> Feature.REDACTED & 1 for b in stream.begins)
    ]


def small() -> list[Genuine]:
    """For the suite that everybody runs: those of tests/data below 700,000 bytes, of each flavour one at least."""
    return [stream for stream in resumable() if stream.size < 700_000 and not stream.name.startswith("corpus/")]


def splicer(of: Sent, point: ResumePoint, **other: Any) -> Splicer:
    about: dict[str, Any] = {"name": of.name, "guid": of.guid, "base_guid": of.base_guid, "features": of.features}
    return Splicer(point, **{**about, "compound": of.compound and of.last, **other})


def pieces_of(raw: bytes, size: int) -> Iterator[bytes]:
    return (raw[start : start + size] for start in range(0, len(raw), size))


def fed(taker: Splicer | Rejoiner, parts: Iterable[Piece]) -> bytes:
    """What comes out, taken before the next is fed."""
    out = bytearray()
    for part in parts:
        for piece in taker.feed(part):
            out += piece
    return bytes(out)


def spliced(taker: Splicer, parts: Iterable[Piece]) -> bytes:
    return fed(taker, parts) + taker.finish()


def rejoined(taker: Rejoiner, parts: Iterable[Piece]) -> bytes:
    out = fed(taker, parts)
    taker.finish()
    return out


def gives(taker: Splicer | Rejoiner, parts: Iterable[Piece], wanted: memoryview) -> bool:
    """Whether just this comes out; compared as it comes, because there are gigabytes of it."""
    at = 0
    for part in parts:
        for piece in taker.feed(part):
            if bytes(piece) != bytes(wanted[at : at + len(piece)]):
                return False
            at += len(piece)
    return wanted[at:] == (taker.finish() or b"")


def to_its_end(taker: Splicer | Rejoiner, raw: bytes) -> None:
    fed(taker, pieces_of(raw, 1000))
    taker.finish()


def refusal(taker: Splicer | Rejoiner, raw: bytes) -> str:
    with pytest.raises(StreamError) as caught:
        to_its_end(taker, raw)
    assert "\n" not in str(caught.value)
    return f"{type(caught.value).__name__}: {caught.value}"


# --- a stream of all sorts of records ----------------------------------------------------------------------------


def synthetic(features: Sequence[int] = (), *, raw: bool = False, package: bool = False) -> Sent:
    """A stream with every record type that there is, with true sums."""
    opening = [streams.object_range()] if raw else []
    records = [
        *opening,
        streams.object_(1, b"m" * 16, raw=raw),
        streams.free(1, 512, (1 << 64) - 1),
        streams.write(1, 0, b"w" * 512),
        streams.freeobjects(2, 5),
        streams.object_(7, b"b" * 16, raw=raw),
        streams.free(7, 4096, (1 << 64) - 1),
        streams.write(7, 0, b"x" * 1024),
        streams.write(7, 1024, b"compressed"[:8], logical_size=512),
        streams.write_embedded(7, 2048, b"embedded"[:5]),
        streams.write_byref(7, 2560),
        streams.spill(7, b"s" * 512),
        streams.spill(7, b"sp" * 2, logical_size=512),
        streams.object_(8, b"c" * 8, raw=raw),
        streams.write(8, 0, bytes(range(256)) * 3),
        streams.redact(8, 4096),
        streams.end(),
    ]
    payload = b"" if not raw else streams.native({"crypt_keydata": {"DSL_CRYPTO_GUID": 5}})
    bits = [*FEATURES, *features, *([Feature.RAW] if raw else [])]
    found = stream_of(streams.begin(features=bits, payload=payload, base_guid=streams.BASE_GUID), records)
    if package:
        outer = streams.begin(features=(), header_type=streams.COMPOUND, payload=streams.xdr({"tosnap": "now"}))
        found = outer + CLOSING_END + found + CLOSING_END
    (sent,) = resumed.sent(found)
    return sent


PLAIN = synthetic()
RAW = synthetic(raw=True)
PACKAGE = synthetic(package=True)
#: Index of the WRITE of object 7 at 1024: in the middle.
MIDDLE = 8
assert PLAIN.records[MIDDLE].key == RAW.records[MIDDLE + 1].key == (7, 1024)


@pytest.mark.parametrize("of", [PLAIN, RAW, PACKAGE], ids=["plain", "raw", "package"])
def test_every_resume_point_is_gone_on_from_however_the_bytes_come(of: Sent) -> None:
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


def test_pieces_are_views_of_data_that_can_be_written_to() -> None:
    raw = bytearray(send_t(PLAIN, MIDDLE))
    taker = splicer(PLAIN, PLAIN.point(MIDDLE))
    pieces = taker.feed(memoryview(raw))
    (piece,) = pieces
    assert isinstance(piece, memoryview)
    assert piece.obj is raw
    assert piece == PLAIN.rest(MIDDLE)
    assert raw.endswith(PLAIN.rest(MIDDLE))  # corrected in place
    with pytest.raises(BufferError):
        raw.extend(b"more")


def test_data_that_cannot_be_written_to_stay_as_they_are() -> None:
    raw = send_t(PLAIN, MIDDLE)
    (piece,) = splicer(PLAIN, PLAIN.point(MIDDLE)).feed(raw)
    assert isinstance(piece, memoryview)
    assert raw == send_t(PLAIN, MIDDLE)
    assert piece.obj is not raw


def test_payload_is_never_held() -> None:
    size = 2 << 20
    tail = [streams.write(7, 1024, b"y" * 512), streams.end()]
    of = resumed.sent(stream_of(streams.begin(), [streams.object_(7), streams.write(7, 0, bytes(size)), *tail]))[0]
    raw = memoryview(bytearray(send_t(of, 2)))
    point, rest = of.point(2), of.rest(2)
    tracemalloc.start()
    try:
        taker = splicer(of, point)
        out = [bytes(piece) for start in range(0, len(raw), 65536) for piece in taker.feed(raw[start : start + 65536])]
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()
    assert b"".join(out) == rest
    taker = splicer(of, of.point(1))
    assert spliced(taker, [send_t(of, 1)]) == of.rest(1)


def test_payloads_of_many_lengths_take_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splice, "_LENGTHS_MAX", 3)
    writes = [streams.write(7, at, bytes(at)) for at in range(4, 400, 4)]
    of = resumed.sent(stream_of(streams.begin(), [streams.object_(7), *writes, streams.end()]))[0]
    taker = splicer(of, of.point(1))
    assert spliced(taker, [send_t(of, 1)]) == of.rest(1)
    assert len(taker._carrier._powers) <= 3


# --- genuine streams ---------------------------------------------------------------------------------------------


def genuine_parts() -> list[str]:
    known = {stream.name for stream in streams.genuine()}
    return [name for name in IN_PARTS if name in known]


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
def test_genuine_stream_that_was_cut_goes_on(stream: Genuine) -> None:
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
def test_genuine_stream_that_was_cut_twice_goes_on(stream: Genuine) -> None:
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
def test_genuine_stream_cut_between_any_two_records_and_elsewhere_goes_on(stream: Genuine) -> None:
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
def test_genuine_stream_goes_on_byte_by_byte(stream: Genuine) -> None:
    for of in taken_apart(stream):
        index = of.points()[len(of.points()) // 2]
        raw = send_t(of, index)
        assert spliced(splicer(of, of.point(index)), pieces_of(raw, 1)) == of.rest(index)


@given(st.sampled_from([PLAIN, RAW, PACKAGE]), st.data())
def test_it_does_not_matter_how_the_bytes_come(of: Sent, data: st.DataObject) -> None:
    index = data.draw(st.sampled_from(of.points()))
    raw = send_t(of, index, data.draw(st.integers(0, 11)))
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=10))), len(raw)]
    parts: list[Piece] = [raw[start:stop] for start, stop in itertools.pairwise(cuts)]
    if data.draw(st.booleans()):
        parts = [bytearray(part) for part in parts]
    assert spliced(splicer(of, of.point(index)), parts) == of.rest(index)


# --- what is wrong in the data -----------------------------------------------------------------------------------


@given(st.data())
def test_byte_that_is_wrong_behind_the_point_stays_wrong_for_zfs_receive_to_see(data: st.DataObject) -> None:
    """No payload is summed; so no wrong byte gets a right sum."""
    raw = bytearray(send_t(PLAIN, MIDDLE))
    after = [record for record in streams.split(bytes(raw)) if record.start >= len(raw) - len(PLAIN.rest(MIDDLE))]
    record = data.draw(st.sampled_from([record for record in after if record.end > record.start + HEADER_SIZE]))
    at = data.draw(st.integers(record.start + HEADER_SIZE, record.end - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    out = spliced(splicer(PLAIN, PLAIN.point(MIDDLE)), [bytes(raw)])
    assert len(out) == len(PLAIN.rest(MIDDLE))
    assert wrong_sums(PLAIN.raw[: PLAIN.records[MIDDLE].end] + out)


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


def changed(raw: bytes, at: int, layout: str, value: int) -> bytes:
    out = bytearray(raw)
    struct.pack_into(layout, out, at, value)
    return bytes(out)


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
        (PLAIN.raw, "is none: it begins at the beginning"),
        (PACKAGE.raw, "is none: it begins at the beginning"),
        (changed(RESUMED, 16, "<Q", 2 | 1 << 22 | 1 << 4), "is none: it begins at the beginning"),
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
        (changed(RESUMED, AT[4], "<I", 0), "has a BEGIN record where none may stand"),
        (changed(RESUMED, AT[4], "<I", 11), "has a record of the unknown type 11"),
        (changed(RESUMED, AT[4] + 52, "<I", 1 << 30), "of type 8 with a payload of 1073741824 bytes"),
        (changed(RESUMED, AT[-3] + 32, "<Q", 510), "has a record with a payload of 510 bytes"),
        (changed(RESUMED, AT[-3] + 32, "<Q", 1 << 40), "has a record with a payload of 1099511627776 bytes"),
        (changed(RESUMED, AT[-1] + 40, "<Q", 7), "ends as that of the snapshot with GUID 7, not 1234605616436508552"),
        (RESUMED + b"\0", "goes on behind its END record, by 1 bytes or more"),
        (RESUMED + CLOSING_END, "goes on behind its END record"),
    ],
)
def test_what_does_not_go_on_where_the_stream_was_cut_is_refused_by_name(raw: bytes, said: str) -> None:
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
    with pytest.raises(StreamError):
        rejoined(Rejoiner(PLAIN.begin, PLAIN.token((7, 1024))), data)


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


@settings(max_examples=300)
@given(st.data())
def test_stored_stream_with_any_bytes_changed_is_rejoined_or_refused(data: st.DataObject) -> None:
    of = data.draw(st.sampled_from([PLAIN, RAW]))
    raw = bytearray(of.raw)
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    begin = len(of.begin)
    with contextlib.suppress(StreamError):
        taker = Rejoiner(bytes(raw[:begin]), of.token(data.draw(st.sampled_from([(1, 0), (7, 0), (7, 1024), (8, 0)]))))
        rejoined(taker, pieces_of(bytes(raw[begin:]), 500))


@given(st.binary(min_size=312, max_size=312), st.binary(min_size=32, max_size=32))
def test_any_header_is_a_resume_point_or_refused(header: bytes, sha256: bytes) -> None:
    with contextlib.suppress(NotTheSameStream):
        ResumePoint(header, sha256)


@given(st.integers(0, 12), st.integers(4, 308), st.integers(0, (1 << 32) - 1))
def test_any_field_of_a_resume_point_is_taken_or_refused(kind: int, at: int, value: int) -> None:
    with contextlib.suppress(NotTheSameStream):
        point = ResumePoint(streams.record(kind, {at: ("I", value), 280: ("Q", 1)}), bytes(32))
        assert point.payload_size <= limits.RECORD_PAYLOAD_MAX


# --- back into `zfs receive` -------------------------------------------------------------------------------------


def wanted(of: Sent, key: tuple[int, int]) -> int:
    """The record that a target has written last, by its token: of two at offset 0 the first, which is the OBJECT.

    Object 1, offset 0 may also mean that nothing was written.
    """
    if key == (1, 0):
        return 1
    return next(at for at, record in enumerate(of.records) if record.key == key)


def rejoin(of: Sent, key: tuple[int, int]) -> bytes:
    """The yardstick: BEGIN, what a raw stream repeats, and the stored records, all summed anew."""
    index = wanted(of, key)
    before = resumed.opening(of, index) if of.raw_send and index > 1 else []
    return b"".join(quick_pieces_of(resumed.resuming_begin(of, key), of, [*before, *range(index, len(of.records))]))


@pytest.mark.parametrize("name", genuine_parts())
def test_stored_stream_goes_on_as_openzfs_itself_would_go_on(name: str) -> None:
    """What `zfs send -t` gave for the same token, byte for byte; of a plain one it has OBJECT and FREE in front."""
    rest, whole = (streams.named(name + end).read() for end in ("-rest", ""))
    asked = ResumeToken.decode(streams.named(f"{name}-rest").command.split(" -t ")[1])
    (of,) = resumed.sent(whole)
    out = rejoined(Rejoiner(of.begin, asked), pieces_of(whole[len(of.begin) :], 100_000))
    if asked.offset == 0:
        assert out == rest
    else:
        begin, *theirs = streams.split(rest)
        assert [record.kind.name for record in theirs[:3]] == ["OBJECT", "FREE", "WRITE"]
        assert out[: begin.end] == rest[: begin.end]
        ours = streams.split(out)[1:]
        for our, their in zip(ours[:-1], theirs[2:-1], strict=True):
            assert out[our.start : our.start + 280] == rest[their.start : their.start + 280]
            assert out[our.start + HEADER_SIZE : our.end] == rest[their.start + HEADER_SIZE : their.end]
    assert wrong_sums(out) == []


def test_raw_stream_goes_on_as_openzfs_itself_would_go_on_in_the_middle_of_an_object() -> None:
    """No such genuine one is at hand; but a plain one shows what comes in front: OBJECT, and the FREE behind it."""
    (of,) = resumed.sent(streams.named("full-enc-w").read())
    key = next(record.key for record in of.records if record.key and record.key[1])
    out = rejoined(Rejoiner(of.begin, of.token(key)), [of.raw[len(of.begin) :]])
    kinds = [record.kind.name for record in streams.split(out)[:5]]
    assert kinds == ["BEGIN", "OBJECT_RANGE", "OBJECT", "FREE", "WRITE"]
    assert out == send_t(of, wanted(of, key))


@each(small)
def test_genuine_stored_stream_goes_on_from_any_record(stream: Genuine) -> None:
    draw = random.Random(stream.name)
    for of in taken_apart(stream):
        keys = sorted({record.key for record in of.records if record.key})
        for key in draw.sample(keys, min(8, len(keys))):
            out = rejoined(Rejoiner(of.begin, of.token(key)), pieces_of(of.raw[of.records[1].start :], 10_000))
            assert out == rejoin(of, key)
        assert wrong_sums(out) == []


@pytest.mark.slow
@pytest.mark.timeout(300)
@each(resumable)
def test_genuine_stored_stream_goes_on_from_every_record(stream: Genuine) -> None:
    for of in taken_apart(stream):
        stored = of.raw[of.records[1].start : of.end]
        for number, key in enumerate(sorted({record.key for record in of.records if record.key})):
            # A plain stream from the record before the wanted one, or from its beginning; a raw one from its beginning.
            first = 1 if of.raw_send or number % 4 == 0 else max(wanted(of, key) - 1, 1)
            from_there = stored[of.records[first].start - of.records[1].start :]
            parts = pieces_of(from_there, (len(from_there), 1 << 16, 5000)[number % 3])
            assert gives(Rejoiner(of.begin, of.token(key)), parts, memoryview(rejoin(of, key)))


def sought(of: Sent, key: tuple[int, int], size: int) -> tuple[bytes, int]:
    """Rejoin out of chunks, leaving out what `seek` allows, as a receiver finds it (playback.locate): each second chunk
    begins with a record, the others anywhere. Returns: what came out, and how many bytes were fed up to the wanted one.
    """
    borders = [0]
    for index in of.points():
        if of.records[index].end - borders[-1] >= size:
            borders.append(of.records[index].end)
    starts = sorted({*borders, *(border + size // 3 for border in borders if border + size // 3 < len(of.raw))})
    keys = [(of.records[index].start, of.records[index].key) for index in of.points()]

    def chunk(at: int) -> bytes:
        return of.raw[at : next((start for start in starts if start > at), len(of.raw))]

    def located(asked: tuple[int, int]) -> int:
        firsts = [(border, next((key for start, key in keys if start >= border), None)) for border in borders]
        return max((border for border, first in firsts if first is not None and first < asked), default=0)

    start = b""
    while (found := opening(start)) is None:
        start += chunk(len(start))
    package, begin = found
    taker = Rejoiner(begin, of.token(key))
    out, fed_before, at, asked = list(taker.feed(start[len(package + begin) :])), len(start), len(start), None
    while not taker.found:
        if taker.seek is not None and taker.seek != asked:
            asked = taker.seek
            where = located(asked)
            if where > at:
                taker.jump()
                at = where
        out += taker.feed(chunk(at))
        fed_before += len(chunk(at))
        at += len(chunk(at))
    out += taker.feed(of.raw[at:])
    taker.finish()
    return b"".join(map(bytes, out)), fed_before


@functools.cache
def several_objects(*, raw: bool) -> Sent:
    """Two blocks of dnodes; in the second an object of some size before the one to go on with, and one behind it."""
    features = [22, 24] if raw else []
    records = []
    for number in (3, 40, 41, 42):
        if raw and number in {3, 40}:
            records.append(streams.object_range(number // 32 * 32))
        records += [streams.object_(number, b"b" * 64, raw=raw), streams.free(number, 1 << 20, (1 << 64) - 1)]
        records += [streams.write(number, at << 12, bytes([number, at]) * 2048) for at in range(100)]
    raw_bytes = resumed.stream_of(streams.begin(features=features), [*records, streams.end()])
    return resumed.sent(raw_bytes)[0]


@pytest.mark.parametrize("raw", [False, True], ids=["plain", "raw"])
def test_most_of_what_would_be_dropped_need_not_be_fed(raw: bool) -> None:
    of = several_objects(raw=raw)
    for key in ((3, 0), (3, 4096), (40, 0), (40, 99 << 12), (41, 0), (41, 50 << 12), (42, 0), (42, 98 << 12)):
        for size in (3000, 50_000):
            out, before = sought(of, key, size)
            assert out == rejoin(of, key)
            # A stretch for each of BEGIN, OBJECT_RANGE, OBJECT and the record, of two chunks at most and their ends.
            assert before < 4 * (2 * size + 10_000)


@pytest.mark.parametrize("of", [PLAIN, RAW, PACKAGE], ids=["plain", "raw", "package"])
def test_stream_is_found_again_wherever_it_was_cut_into_chunks(of: Sent) -> None:
    for key in sorted({record.key for record in of.records if record.key}):
        for size in (100, 700, 5000, 1 << 20):
            assert sought(of, key, size)[0] == rejoin(of, key)


@each(small)
def test_genuine_stored_stream_is_found_again_out_of_chunks(stream: Genuine) -> None:
    draw = random.Random(stream.name)
    raw = stream.read()
    for of in taken_apart(stream) if opening(raw) and len(taken_apart(stream)) == 1 else []:
        keys = sorted({record.key for record in of.records if record.key})
        for key in draw.sample(keys, min(4, len(keys))):
            assert sought(of, key, draw.choice([2000, 30_000]))[0] == rejoin(of, key)


def test_properties_come_again() -> None:
    key = (7, 1024)
    package = PACKAGE.raw[: PACKAGE.records[0].start]
    for size in (1, 313, len(PACKAGE.raw)):
        taker = Rejoiner(PACKAGE.begin, PACKAGE.token(key), package)
        out = rejoined(taker, pieces_of(PACKAGE.raw[PACKAGE.records[1].start :], size))
        assert out == package + rejoin(PACKAGE, key) + CLOSING_END


def test_opening_of_a_stream() -> None:
    for of in (PLAIN, RAW, PACKAGE):
        end = of.records[0].end
        assert all(opening(of.raw[:size]) is None for size in range(end))
        assert opening(of.raw[:end]) == opening(of.raw) == (of.raw[: of.records[0].start], of.begin)
    for raw in (bytes(312), streams.end() * 2, of.begin[:8] + b"?" + of.begin[9:]):
        with pytest.raises(DamagedStream):
            opening(raw)


@pytest.mark.parametrize("of", [PLAIN, RAW, PACKAGE], ids=["plain", "raw", "package"])
def test_stored_stream_goes_on_however_the_bytes_come(of: Sent) -> None:
    stored = of.raw[of.records[1].start :]
    for key in {record.key for record in of.records if record.key}:
        for size in (1, 311, 312, 313, len(stored)):
            taker = Rejoiner(of.begin, of.token(key))
            assert not taker.found
            assert rejoined(taker, pieces_of(stored, size)) == rejoin(of, key)
            assert taker.done


def test_plain_stream_may_be_read_from_any_record_before_the_wanted_one() -> None:
    for first in range(1, MIDDLE + 1):
        taker = Rejoiner(PLAIN.begin, PLAIN.token((7, 1024)))
        assert rejoined(taker, [PLAIN.raw[PLAIN.records[first].start :]]) == rejoin(PLAIN, (7, 1024))


@pytest.mark.parametrize("of", [PLAIN, RAW, PACKAGE], ids=["plain", "raw", "package"])
def test_target_that_nothing_was_written_to_gets_the_stream_from_its_first_record(of: Sent) -> None:
    out = rejoined(Rejoiner(of.begin, of.token((1, 0))), [of.raw[of.records[1].start :]])
    begin = resumed.resuming_begin(of, (1, 0))
    assert out == b"".join(quick_pieces_of(begin, of, range(1, len(of.records))))
    said = refusal(Rejoiner(of.begin, of.token((1, 0))), of.raw[of.records[2].start :])
    assert said.startswith("NotTheSameStream: the stored stream must be read from its first record on")


def test_begin_is_that_of_the_stored_stream_but_for_what_it_says_of_the_resume() -> None:
    """A raw stream's keys stay as they are."""
    (of,) = resumed.sent(streams.named("full-enc-w").read())
    out = rejoined(Rejoiner(of.begin, of.token((23, 0))), [of.raw[len(of.begin) :]])
    begin = out[: streams.split(out)[0].end]
    assert [at for at in range(HEADER_SIZE) if begin[at] != of.begin[at]] == [4, 18]
    assert begin[HEADER_SIZE + 12 + 80 :] == of.begin[HEADER_SIZE + 12 :]


def test_what_follows_on_end_is_dropped() -> None:
    stored = PACKAGE.raw[PACKAGE.records[1].start :] + b"and more, of no interest"
    assert rejoined(Rejoiner(PACKAGE.begin, PACKAGE.token((7, 0))), [stored]) == rejoin(PACKAGE, (7, 0))


def test_stored_data_are_not_held() -> None:
    size = 2 << 20
    records = [streams.object_range(), streams.object_(7, b"b" * 8, raw=True), streams.write(7, 0, bytes(size))]
    records += [streams.write(7, size, bytes(size)), streams.end()]
    payload = streams.native({"crypt_keydata": {"x": 1}})
    (of,) = resumed.sent(stream_of(streams.begin(features=[Feature.RAW], payload=payload), records))
    raw = memoryview(bytearray(of.raw[len(of.begin) :]))
    tracemalloc.start()
    try:
        taker = Rejoiner(of.begin, of.token((7, size)))
        for start in range(0, len(raw), 65536):
            taker.feed(raw[start : start + 65536])
        taker.finish()
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            {"guid": 7},
            "is tank/data@now (GUID 1234605616436508552, from GUID 72623859790382856), not tank/data@now (GUID 7",
        ),
        ({"base_guid": None}, "not tank/data@now (GUID 1234605616436508552, full)"),
        ({"name": "tank/data@then"}, "not tank/data@then"),
        ({"features": 1 << 22}, "has the features 0x4, the target was left by one that was sent with other flags"),
    ],
)
def test_token_of_another_stream_is_refused(other: dict[str, Any], said: str) -> None:
    with pytest.raises(NotTheSameStream) as caught:
        Rejoiner(PLAIN.begin, replace(PLAIN.token((7, 0)), **other))
    assert said in str(caught.value)
    assert "cannot go on where `zfs receive` was interrupted" in str(caught.value)


@pytest.mark.parametrize(
    ("begin", "error", "said"),
    [
        (b"", NotTheSameStream, "has a BEGIN record of 0 bytes"),
        (PLAIN.begin[:-1], NotTheSameStream, "has a BEGIN record of 311 bytes"),
        (PLAIN.begin + b"more", NotTheSameStream, "has a BEGIN record of 316 bytes"),
        (streams.begin(payload=b"odd"), NotTheSameStream, "has a BEGIN record of 315 bytes"),
        (streams.object_(1), NotTheSameStream, "does not begin with the BEGIN record of a single stream"),
        (
            PACKAGE.raw[: PACKAGE.records[0].start - 312],
            NotTheSameStream,
            "does not begin with the BEGIN record of a si",
        ),
        (changed(PLAIN.begin, 16, "<Q", 1 | 1 << 22 | 16), UnsupportedStream, "stored as a resumed stream"),
        (changed(PLAIN.begin, 16, "<Q", 1 | 1 << 23 | 16), UnsupportedStream, "a redacted stream cannot be resumed"),
        (
            streams.begin(base_guid=streams.BASE_GUID, features=FEATURES, payload=streams.xdr({"x": 1})),
            UnsupportedStream,
            "packed in a way that is not known",
        ),
    ],
)
def test_begin_that_cannot_be_resumed_from_is_refused(begin: bytes, error: type[StreamError], said: str) -> None:
    with pytest.raises(error, match=said) as caught:
        Rejoiner(begin, PLAIN.token((7, 0)))
    assert type(caught.value) is error


STORED = PLAIN.raw[PLAIN.records[1].start :]
PLACE = [record.start - PLAIN.records[1].start for record in PLAIN.records]
(OBJECT_7,) = (at for at, found in enumerate(PLAIN.records) if found.kind is RecordType.OBJECT and found.key == (7, 0))


@pytest.mark.parametrize(
    ("key", "raw", "said"),
    [
        ((7, 512), STORED, "NotTheSameStream: the stored stream has no record for object 7, offset 512"),
        ((7, 1024), b"", "NotTheSameStream: the stored stream has no record for object 7, offset 1024"),
        ((7, 1024), STORED[: PLACE[MIDDLE]], "NotTheSameStream: the stored stream has no record for object 7"),
        ((7, 1024), STORED[PLACE[MIDDLE + 1] :], "NotTheSameStream: the stored stream has no record for object 7"),
        ((7, 2560), STORED, "has no record for object 7, offset 2560"),  # WRITE_BYREF
        ((7, 1024), PLAIN.raw, "NotTheSameStream: the stored stream has a BEGIN record where none may stand"),
        ((7, 1024), b"x" * 400, "NotTheSameStream: the stored stream has a record of the unknown type"),
        ((7, 0), STORED[PLACE[OBJECT_7 + 1] :], "must be read from before the OBJECT record of object 7"),
        (
            (7, 1024),
            changed(STORED, 36, "<I", 1 << 30),
            "NotTheSameStream: the stored stream has a record of type 1 with",
        ),
        ((7, 1024), STORED[:-1], "IncompleteStream: the stored stream ends before its END record"),
        ((7, 1024), STORED[: PLACE[MIDDLE + 1]], "IncompleteStream: the stored stream ends before its END record"),
        (
            (7, 1024),
            changed(STORED, PLACE[-1] + 40, "<Q", 7),
            "DamagedStream: the stored stream ends as that of the snap",
        ),
        (
            (7, 1024),
            changed(STORED, PLACE[-1], "<I", 0),
            "DamagedStream: the stored stream has a BEGIN record where none",
        ),
        (
            (7, 1024),
            STORED[: PLACE[MIDDLE] + 280] + bytes(32) + STORED[PLACE[MIDDLE] + 312 :],
            "UnsupportedStream: tank/data@now has no running checksums",
        ),
    ],
)
def test_stored_stream_that_cannot_go_on_there_is_refused_by_name(key: tuple[int, int], raw: bytes, said: str) -> None:
    assert said in refusal(Rejoiner(PLAIN.begin, PLAIN.token(key)), raw)


def test_raw_stream_must_be_read_from_before_its_object_range() -> None:
    for first, key in ((2, (7, 0)), (2, (7, 1024)), (MIDDLE, (7, 1024))):
        taker = Rejoiner(RAW.begin, RAW.token(key))
        said = refusal(taker, RAW.raw[RAW.records[first].start :])
        assert "must be read from before the OBJECT_RANGE record of object 7" in said
    # Of the object itself nothing was seen, only the range of another one.
    records = [
        streams.object_range(32),
        streams.object_(40, b"b" * 8, raw=True),
        streams.write(40, 8, b"w" * 8),
        streams.end(),
    ]
    (of,) = resumed.sent(stream_of(RAW.begin, records))
    assert "must be read from before" in refusal(
        Rejoiner(of.begin, of.token((40, 8))),
        RAW.raw[RAW.records[1].start : RAW.records[2].start] + of.raw[of.records[2].start :],
    )
    assert "must be read from before" in refusal(
        Rejoiner(of.begin, of.token((40, 8))),
        of.raw[of.records[1].start : of.records[2].start] + of.raw[of.records[3].start :],
    )


def test_object_record_of_a_raw_stream_is_no_longer_than_a_dnode() -> None:
    records = [streams.object_range(), streams.object_(7, bytes(16388), raw=True), streams.write(7, 8, b"w" * 8)]
    (of,) = resumed.sent(stream_of(RAW.begin, [*records, streams.end()]))
    said = refusal(Rejoiner(of.begin, of.token((7, 8))), of.raw[of.records[1].start :])
    assert "has an OBJECT record with a payload of 16388 bytes" in said
