from __future__ import annotations

import contextlib
import random
import tracemalloc
from dataclasses import replace
from typing import Any

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
    genuine_parts,
    gives,
    pieces_of,
    refusal,
    rejoined,
    resumable,
    several_objects,
    small,
    taken_apart,
)
from tests.resumed import Sent, quick_pieces_of, send_t, stream_of, wrong_sums
from tests.streams import CLOSING_END, Genuine, each

from fullsend_protocol.shared.errors import DamagedStream, NotTheSameStream, StreamError, UnsupportedStream
from fullsend_protocol.stream.records import HEADER_SIZE, Feature, RecordType
from fullsend_protocol.stream.rejoin import Rejoiner, opening
from fullsend_protocol.stream.resume_token import ResumeToken


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
def test_stored_stream_resumes_as_openzfs_itself_would_resume(name: str) -> None:
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


def test_raw_stream_resumes_as_openzfs_itself_would_resume_in_the_middle_of_an_object() -> None:
    """No such genuine one is at hand; but a plain one shows what comes in front: OBJECT, and the FREE behind it."""
    (of,) = resumed.sent(streams.named("full-enc-w").read())
    key = next(record.key for record in of.records if record.key and record.key[1])
    out = rejoined(Rejoiner(of.begin, of.token(key)), [of.raw[len(of.begin) :]])
    kinds = [record.kind.name for record in streams.split(out)[:5]]
    assert kinds == ["BEGIN", "OBJECT_RANGE", "OBJECT", "FREE", "WRITE"]
    assert out == send_t(of, wanted(of, key))


@each(small)
def test_genuine_stored_stream_resumes_from_any_record(stream: Genuine) -> None:
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
def test_genuine_stored_stream_resumes_from_every_record(stream: Genuine) -> None:
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
def test_stored_stream_resumes_however_the_bytes_come(of: Sent) -> None:
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
    assert "cannot resume where `zfs receive` was interrupted" in str(caught.value)


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
        ((7, 1024), PLAIN.raw, "NotTheSameStream: the stored stream has a BEGIN record in a wrong place"),
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
            "DamagedStream: the stored stream has a BEGIN record in a wrong place",
        ),
        (
            (7, 1024),
            STORED[: PLACE[MIDDLE] + 280] + bytes(32) + STORED[PLACE[MIDDLE] + 312 :],
            "UnsupportedStream: tank/data@now has no running checksums",
        ),
    ],
)
def test_stored_stream_that_cannot_resume_there_is_refused_by_name(key: tuple[int, int], raw: bytes, said: str) -> None:
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


@given(st.lists(st.binary(max_size=1000), max_size=5))
def test_any_bytes_are_refused_by_a_stream_error(data: list[bytes]) -> None:
    with pytest.raises(StreamError):
        rejoined(Rejoiner(PLAIN.begin, PLAIN.token((7, 1024))), data)
