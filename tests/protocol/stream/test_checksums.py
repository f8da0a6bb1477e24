from __future__ import annotations

import itertools
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import resumed, streams
from tests.protocol.cut_streams import MIDDLE, PACKAGE, PLAIN, RAW, spliced, splicer
from tests.resumed import Sent, send_t, stream_of, wrong_sums

from fullsend_protocol.stream import checksums
from fullsend_protocol.stream.checksums import Piece
from fullsend_protocol.stream.records import HEADER_SIZE


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
    monkeypatch.setattr(checksums, "_LENGTHS_MAX", 3)
    writes = [streams.write(7, at, bytes(at)) for at in range(4, 400, 4)]
    of = resumed.sent(stream_of(streams.begin(), [streams.object_(7), *writes, streams.end()]))[0]
    taker = splicer(of, of.point(1))
    assert spliced(taker, [send_t(of, 1)]) == of.rest(1)
    assert len(taker._rewriter._powers) <= 3


@given(st.sampled_from([PLAIN, RAW, PACKAGE]), st.data())
def test_it_does_not_matter_how_the_bytes_come(of: Sent, data: st.DataObject) -> None:
    index = data.draw(st.sampled_from(of.points()))
    raw = send_t(of, index, data.draw(st.integers(0, 11)))
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=10))), len(raw)]
    parts: list[Piece] = [raw[start:stop] for start, stop in itertools.pairwise(cuts)]
    if data.draw(st.booleans()):
        parts = [bytearray(part) for part in parts]
    assert spliced(splicer(of, of.point(index)), parts) == of.rest(index)


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
