from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.protocol.helpers import section, tables, try_decoder

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import LocalProtocolError, RemoteProtocolError
from fullsend_protocol.wire.frames import HEADER_SIZE, FrameHeader, FrameReader, FrameType

if TYPE_CHECKING:
    from collections.abc import Callable

#: What stands on the wire; a change here is a change of the protocol.
GOLDEN = [
    (FrameHeader(FrameType.CONTROL, 15), "01 00 0000 0000000f 0000000000000000 00000000 4dc275fe"),
    (FrameHeader(FrameType.CONTROL, 0), "01 00 0000 00000000 0000000000000000 00000000 6ab2a0cb"),
    (
        FrameHeader(FrameType.CHUNK, 1_048_608, raw_offset=0x0102030405060708, raw_length=4_194_304),
        "02 00 0000 00100020 0102030405060708 00400000 31caebfd",
    ),
    (FrameHeader(FrameType.HEARTBEAT, 4), "03 00 0000 00000004 0000000000000000 00000000 60c5bcd1"),
]


def header_bytes(  # noqa: PLR0917 - as they stand on the wire
    kind: int = 1, flags: int = 0, reserved: int = 0, payload: int = 0, offset: int = 0, raw: int = 0
) -> bytes:
    """A header with a right CRC, whatever it says."""
    head = struct.pack(">BBHIQI", kind, flags, reserved, payload, offset, raw)
    return head + struct.pack(">I", zlib.crc32(head))


def read_all(
    parts: list[bytes], feed: Callable[[FrameReader, bytes], int] | None = None
) -> list[tuple[FrameHeader, bytes]]:
    """Read frames as they come; takes each payload as soon as its header is there. `feed` returns what it has taken."""
    reader = FrameReader()
    found = []
    for part in parts:
        left = part
        while left:
            left = left[(feed or feed_all)(reader, left) :]
            while (header := reader.header()) is not None and (payload := reader.payload()) is not None:
                found.append((header, bytes(payload)))
    assert not reader.inside_frame
    return found


def feed_all(reader: FrameReader, data: bytes) -> int:
    reader.feed(data)
    return len(data)


def feed_in_place(reader: FrameReader, data: bytes) -> int:
    """Write into the payload where one is being filled, as the transport does."""
    space = reader.space()
    if space is None:
        return feed_all(reader, data)
    count = min(len(space), len(data))
    space[:count] = data[:count]
    reader.filled(count)
    return count


@pytest.mark.parametrize(("header", "golden"), GOLDEN)
def test_header_is_these_bytes_and_these_bytes_are_the_header(header: FrameHeader, golden: str) -> None:
    assert header.encode() == bytes.fromhex(golden)
    assert FrameHeader.decode(bytes.fromhex(golden)) == header
    assert len(header.encode()) == HEADER_SIZE


def test_document_shows_the_golden_headers() -> None:
    shown = [
        row["bytes"].strip("`") for table in tables(section("The frame header")) for row in table if "bytes" in row
    ]
    assert shown == [golden for _, golden in GOLDEN]


def test_document_lists_every_frame_type() -> None:
    rows = [row for table in tables(section("The frame header")) for row in table if "type" in row]
    assert {(int(row["type"]), row["name"]) for row in rows} == {(int(kind), kind.name) for kind in FrameType}


def test_frames_are_read_alike_whole_byte_by_byte_and_with_others_behind() -> None:
    frames = [
        (FrameHeader(FrameType.CONTROL, 15), b'{"type":"done"}'),
        (FrameHeader(FrameType.HEARTBEAT, 0), b""),
        (FrameHeader(FrameType.CHUNK, 40, raw_offset=5, raw_length=9), bytes(range(40))),
        (FrameHeader(FrameType.HEARTBEAT, 4), b"disk"),
    ]
    encoded = b"".join(header.encode() + payload for header, payload in frames)
    assert try_decoder(read_all, encoded) == frames
    assert try_decoder(lambda parts: read_all(parts, feed_in_place), encoded) == frames


@pytest.mark.parametrize("more", range(1, HEADER_SIZE + 15))
def test_part_of_another_frame_behind_a_frame_waits_for_its_rest(more: int) -> None:
    frame = FrameHeader(FrameType.CONTROL, 15).encode() + b'{"type":"done"}'
    reader = FrameReader()
    reader.feed(frame + frame[:more])
    assert reader.header() is not None
    assert reader.payload() == bytearray(b'{"type":"done"}')
    assert reader.inside_frame
    assert (reader.header() is None) == (more < HEADER_SIZE)
    assert reader.payload() is None
    reader.feed(frame[more:])
    assert reader.header() is not None
    assert reader.payload() == bytearray(b'{"type":"done"}')
    assert not reader.inside_frame


@given(
    st.lists(
        st.one_of(
            st.builds(lambda payload: (FrameHeader(FrameType.CONTROL, len(payload)), payload), st.binary(max_size=200)),
            st.builds(
                lambda payload: (FrameHeader(FrameType.HEARTBEAT, len(payload)), payload), st.binary(max_size=64)
            ),
            st.builds(
                lambda offset, raw, payload: (FrameHeader(FrameType.CHUNK, len(payload), offset, raw), payload),
                st.integers(0, (1 << 63) - 1),
                st.integers(1, limits.CHUNK_MAX),
                st.binary(min_size=33, max_size=200),
            ),
        )
    ),
    st.data(),
)
def test_frames_come_out_as_they_went_in_however_they_are_split(
    frames: list[tuple[FrameHeader, bytes]], data: st.DataObject
) -> None:
    encoded = b"".join(header.encode() + payload for header, payload in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(encoded)), max_size=10)))
    parts = [encoded[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(encoded)], strict=True)]
    assert read_all(parts) == frames
    assert read_all(parts, feed_in_place) == frames


@given(st.binary(min_size=HEADER_SIZE, max_size=HEADER_SIZE))
def test_any_24_bytes_are_a_header_or_a_breach(data: bytes) -> None:
    try:
        header = FrameHeader.decode(data)
    except RemoteProtocolError:
        return
    assert header.encode() == data


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 65535), st.integers(0, (1 << 32) - 1))
def test_any_header_with_a_right_crc_is_taken_whole_or_refused(
    kind: int, flags: int, reserved: int, payload: int
) -> None:
    data = header_bytes(kind, flags, reserved, payload, offset=0, raw=0)
    try:
        assert FrameHeader.decode(data).encode() == data
    except RemoteProtocolError:
        assert kind not in {1, 3} or flags or reserved or payload > limits.HEARTBEAT_MAX


@pytest.mark.parametrize("bit", range(HEADER_SIZE * 8))
def test_flipped_bit_in_a_header_is_seen(bit: int) -> None:
    data = bytearray(FrameHeader(FrameType.CHUNK, 1_048_608, 7, 4_194_304).encode())
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(RemoteProtocolError, match="CRC"):
        FrameHeader.decode(data)


@pytest.mark.parametrize(
    ("header", "named"),
    [
        (header_bytes(kind=0), "unknown frame type 0"),
        (header_bytes(kind=4), "unknown frame type 4"),
        (header_bytes(kind=255), "unknown frame type 255"),
        (header_bytes(flags=2), "frame flags 0x02"),
        (header_bytes(kind=2, payload=100, raw=1, flags=3), "frame flags 0x03"),
        (header_bytes(flags=1), "CONTROL frame has no raw offset, no raw length, and starts no segment"),
        (header_bytes(kind=3, flags=1), "HEARTBEAT frame has no raw offset, no raw length, and starts no segment"),
        (header_bytes(reserved=0x0100), "reserved 0x0100"),
        (header_bytes(payload=limits.CONTROL_MAX + 1), "CONTROL frame of 1048577 bytes: 0 to 1048576"),
        (header_bytes(offset=1), "CONTROL frame has no raw offset"),
        (header_bytes(raw=1), "CONTROL frame has no raw offset, no raw length"),
        (header_bytes(kind=3, payload=65), "HEARTBEAT frame of 65 bytes: 0 to 64"),
        (header_bytes(kind=3, raw=1), "HEARTBEAT frame has no raw offset, no raw length"),
        (header_bytes(kind=2, payload=32, raw=1), "CHUNK frame of 32 bytes: 33 to 21053536"),
        (header_bytes(kind=2, payload=33 + limits.CHUNK_FRAME_MAX, raw=1), "CHUNK frame of 21053537 bytes"),
        (header_bytes(kind=2, payload=100, raw=0), "chunk of 0 raw bytes"),
        (header_bytes(kind=2, payload=100, raw=limits.CHUNK_MAX + 1), "chunk of 20971521 raw bytes"),
        (header_bytes(kind=2, payload=100, raw=1, offset=1 << 63), "no stream is that long"),
    ],
)
def test_header_beyond_its_limits_is_refused_by_name_before_any_payload(header: bytes, named: str) -> None:
    reader = FrameReader()
    reader.feed(header)
    with pytest.raises(RemoteProtocolError, match=named):
        reader.header()


@pytest.mark.parametrize(
    "header",
    [
        FrameHeader(FrameType.CONTROL, limits.CONTROL_MAX),
        FrameHeader(FrameType.HEARTBEAT, limits.HEARTBEAT_MAX),
        FrameHeader(FrameType.CHUNK, 33, (1 << 63) - 1, 1),
        FrameHeader(FrameType.CHUNK, limits.DIGEST_SIZE + limits.CHUNK_FRAME_MAX, 0, limits.CHUNK_MAX),
    ],
)
def test_header_at_its_limit_is_taken(header: FrameHeader) -> None:
    assert FrameHeader.decode(header.encode()) == header


@pytest.mark.parametrize(
    "header",
    [
        FrameHeader(FrameType.CONTROL, limits.CONTROL_MAX + 1),
        FrameHeader(FrameType.CONTROL, 1, raw_length=1),
        FrameHeader(FrameType.HEARTBEAT, limits.HEARTBEAT_MAX + 1),
        FrameHeader(FrameType.CHUNK, 32, 0, 1),
        FrameHeader(FrameType.CHUNK, 100, 0, 0),
        FrameHeader(FrameType.CHUNK, 100, 0, limits.CHUNK_MAX + 1),
        FrameHeader(FrameType.CHUNK, 100, -1, 1),
        FrameHeader(FrameType.CHUNK, 100, 1 << 63, 1),
    ],
)
def test_we_never_write_a_header_that_the_peer_must_refuse(header: FrameHeader) -> None:
    with pytest.raises(LocalProtocolError):
        header.encode()


def test_header_alone_takes_no_memory_for_its_payload() -> None:
    reader = FrameReader()
    reader.feed(FrameHeader(FrameType.CHUNK, 20_000_000, 0, limits.CHUNK_MAX).encode())
    assert reader.header() is not None
    assert reader._payload is None
    assert reader.payload() is None  # only this takes it
    assert reader._payload is not None
    assert len(reader._payload) == 20_000_000


def test_payload_that_is_complete_or_not_taken_yet_has_no_space() -> None:
    reader = FrameReader()
    reader.feed(FrameHeader(FrameType.HEARTBEAT, 4).encode() + b"di")
    assert reader.header() is not None
    assert reader.space() is None  # no memory before `payload`
    assert reader.payload() is None
    space = reader.space()
    assert space is not None
    assert len(space) == 2
    space[:] = b"sk"
    reader.filled(2)
    assert reader.space() is None
    assert reader.payload() == bytearray(b"disk")
    assert reader.space() is None


def test_no_header_no_payload() -> None:
    reader = FrameReader()
    assert reader.payload() is None
    assert not reader.inside_frame
    reader.feed(b"\1")
    assert reader.inside_frame
    assert reader.header() is None
    assert reader.payload() is None


def test_reader_is_inside_a_frame_until_its_payload_has_been_taken() -> None:
    reader = FrameReader()
    reader.feed(FrameHeader(FrameType.HEARTBEAT, 0).encode())
    assert reader.inside_frame
    assert reader.header() is not None
    assert reader.inside_frame
    assert reader.payload() == bytearray()
    assert not reader.inside_frame
