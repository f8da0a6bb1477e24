"""The frame: a fixed header before everything on the wire, and a reader that allocates only when the caller asks.

    offset  size  field            all numbers big-endian (network order)
         0     1  type             FrameType
         1     1  flags            CHUNK: 1 where it starts a segment; else zero
         2     2  reserved         zero
         4     4  payload length   bytes that follow the header
         8     8  raw offset       CHUNK: where its raw bytes begin in the stream; else zero
        16     4  raw length       CHUNK: its raw bytes; else zero
        20     4  CRC-32           of bytes 0..20 (the polynomial of zlib and Ethernet)

The CRC detects a peer that speaks something else, and bugs, before the length is used. It does not protect against an
attacker: TLS does.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import LocalProtocolError, RemoteProtocolError

_HEADER: Final = struct.Struct(">BBHIQI")
_CRC: Final = struct.Struct(">I")
HEADER_SIZE: Final = _HEADER.size + _CRC.size
_STARTS_SEGMENT: Final = 1


class FrameType(IntEnum):
    """The type of a frame's payload. Unknown numbers are refused by name."""

    CONTROL = 1  # a message, as JSON
    CHUNK = 2  # running SHA-256 of the segment (32 bytes), then one zstd frame
    HEARTBEAT = 3  # the reason why the side is not reading ("" while it reads), ASCII


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """A decoded header. `payload_length`: bytes on the wire; `raw_offset`, `raw_length`: bytes of the raw stream;
    `starts_segment`: the running hash of a CHUNK begins with it.
    """

    type: FrameType
    payload_length: int
    raw_offset: int = 0
    raw_length: int = 0
    starts_segment: bool = False

    def encode(self) -> bytes:
        """Return the HEADER_SIZE bytes of this header. Raises: LocalProtocolError if the peer must refuse it."""
        fault = self._fault()
        if fault is not None:
            raise LocalProtocolError(fault)
        head = _HEADER.pack(
            self.type, _STARTS_SEGMENT * self.starts_segment, 0, self.payload_length, self.raw_offset, self.raw_length
        )
        return head + _CRC.pack(zlib.crc32(head))

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview) -> FrameHeader:
        """Read a header from exactly HEADER_SIZE bytes, and compare it with the limits of its type.

        Raises: RemoteProtocolError, naming the field, before anything of the payload is read.
        """
        kind, flags, reserved, payload_length, raw_offset, raw_length = _HEADER.unpack_from(data)
        (crc,) = _CRC.unpack_from(data, _HEADER.size)
        if crc != zlib.crc32(data[: _HEADER.size]):
            msg = "frame header with a wrong CRC: the peer does not speak fullsend's protocol"
            raise RemoteProtocolError(msg)
        try:
            frame_type = FrameType(kind)
        except ValueError:
            msg = f"unknown frame type {kind}"
            raise RemoteProtocolError(msg) from None
        if flags & ~_STARTS_SEGMENT or reserved:
            msg = f"frame flags {flags:#04x} and reserved {reserved:#06x}: unknown to version 1"
            raise RemoteProtocolError(msg)
        header = cls(frame_type, payload_length, raw_offset, raw_length, bool(flags))
        fault = header._fault()
        if fault is not None:
            raise RemoteProtocolError(fault)
        return header

    def _fault(self) -> str | None:
        """Return the limit of its type that this header breaks, as text; None: it breaks none."""
        if self.type is FrameType.CHUNK:
            least, most = limits.DIGEST_SIZE + 1, limits.DIGEST_SIZE + limits.CHUNK_FRAME_MAX
            if not 0 < self.raw_length <= limits.CHUNK_MAX:
                return f"a chunk of {self.raw_length} raw bytes: 1 to {limits.CHUNK_MAX} are allowed"
            if not 0 <= self.raw_offset < limits.OFFSET_END:
                return f"a chunk at raw offset {self.raw_offset}: no stream is that long"
        else:
            least, most = 0, limits.CONTROL_MAX if self.type is FrameType.CONTROL else limits.HEARTBEAT_MAX
            if self.raw_offset or self.raw_length or self.starts_segment:
                return f"a {self.type.name} frame has no raw offset, no raw length, and starts no segment"
        if not least <= self.payload_length <= most:
            return f"a {self.type.name} frame of {self.payload_length} bytes: {least} to {most} are allowed"
        return None


class FrameReader:
    """Bytes in, frames out.

    `header()` returns the next frame's header as soon as it is there. Only `payload()` allocates the memory that the
    header announces. A caller that must wait for room calls `payload()` later and feeds nothing meanwhile. A transport
    may write the rest of a payload into `space()` itself, which saves a copy of each chunk.
    """

    def __init__(self) -> None:
        """Start at a frame's border."""
        self._buffer = bytearray()
        self._header: FrameHeader | None = None
        self._payload: bytearray | None = None
        self._filled = 0

    @property
    def inside_frame(self) -> bool:
        """Whether the bytes received so far end inside a frame."""
        return self._header is not None or bool(self._buffer)

    @property
    def unread(self) -> int:
        """Bytes that were fed and do not belong to a payload yet."""
        return len(self._buffer)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes from the peer, any number of them; they are copied."""
        view = memoryview(data)
        if self._payload is not None:
            view = view[self._fill(view) :]
        self._buffer += view

    def space(self) -> memoryview | None:
        """Return the part of the payload that is still to come, for writing; None: no payload is being filled. Report
        what was written to `filled` before any other call.
        """
        if self._payload is None or self._filled == len(self._payload):
            return None
        return memoryview(self._payload)[self._filled :]

    def filled(self, count: int) -> None:
        """Take the first `count` bytes of what `space` returned."""
        self._filled += count

    def header(self) -> FrameHeader | None:
        """Return the next frame's header, or None until it is complete. Raises: as FrameHeader.decode."""
        if self._header is None and len(self._buffer) >= HEADER_SIZE:
            self._header = FrameHeader.decode(self._buffer[:HEADER_SIZE])
            del self._buffer[:HEADER_SIZE]
        return self._header

    def payload(self) -> bytearray | None:
        """Return the whole payload of the frame whose header `header()` returned, and step to the next frame; None
        until it is complete. The first call allocates the announced length.
        """
        if self._header is None:
            return None
        if self._payload is None:
            self._payload = bytearray(self._header.payload_length)
            self._filled = 0
            with memoryview(self._buffer) as waiting:
                count = self._fill(waiting)
            del self._buffer[:count]
        if self._filled < len(self._payload):
            return None
        payload, self._payload, self._header = self._payload, None, None
        return payload

    def _fill(self, view: memoryview) -> int:
        """Copy what fits from `view` into the payload. Returns: bytes copied."""
        assert self._payload is not None  # noqa: S101 - for mypy; both callers have checked it
        count = min(len(view), len(self._payload) - self._filled)
        self._payload[self._filled : self._filled + count] = view[:count]
        self._filled += count
        return count
