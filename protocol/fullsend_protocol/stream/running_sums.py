"""Compares every running checksum of a stream with its bytes, as `zfs receive` does.

    RunningSums     the bytes of a stream -> an error, if any of them is wrong

This is the proof of a stream of which nothing else is known. It sums every byte in Python, at some 20 MB/s, so it is
for streams without a known SHA-256.
"""

from __future__ import annotations

import struct
from typing import Final, NoReturn

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import DamagedStream, IncompleteStream, UnsupportedStream
from fullsend_protocol.stream import fletcher
from fullsend_protocol.stream.checksums import (
    BEGIN_FIELDS,
    CLOSING_END,
    END_SUM_AT,
    SUM_AT,
    SUM_FIELDS,
    Piece,
    kind_of,
    sum_of,
)
from fullsend_protocol.stream.fletcher import WORD_SIZE
from fullsend_protocol.stream.records import COMPOUND, HEADER_SIZE, RecordType, payload_length

#: The first END of a package, with the sum of what is before it, and nothing else (libzfs_sendrecv.c).
_END_OF_PROPERTIES: Final = struct.Struct(f"<I4x4Q{HEADER_SIZE - END_SUM_AT - SUM_FIELDS.size}x")
_LENGTH_MAX: Final = max(limits.RECORD_PAYLOAD_MAX, limits.BEGIN_PAYLOAD_MAX)


class RunningSums:
    """Sums a stream, or a package of streams, from its first byte. It holds at most a header."""

    def __init__(self, name: str) -> None:
        """`name`: of the stream, for errors."""
        self._name = name
        self._state = fletcher.ZERO
        self._data = b""  # what is left: part of a header, or of a word
        self._owed = 0  # bytes of the current record's payload that are still to come
        self._at = 0  # raw offset of _data
        self._ended = False  # the last record was an END
        self._opening = False  # the last BEGIN was that of a package

    def feed(self, data: Piece) -> None:
        """Take the next bytes. Raises: DamagedStream at the first checksum that is not as it must be, which is that of
        the record behind the damage; UnsupportedStream for a stream without checksums.
        """
        data = self._data + bytes(data)
        at, stop = 0, len(data)
        while True:
            if self._owed:
                count = min(self._owed, (stop - at) // WORD_SIZE * WORD_SIZE)
                if not count:
                    break
                self._state = fletcher.summed(data[at : at + count], self._state)
                self._owed -= count
                at += count
            elif stop - at >= HEADER_SIZE:
                self._header(data[at : at + HEADER_SIZE], self._at + at)
                at += HEADER_SIZE
            else:
                break
        self._data = data[at:]
        self._at += at

    def finish(self) -> None:
        """Note the end of the bytes. Raises: IncompleteStream if they do not end with an END record."""
        if self._data or self._owed or not self._ended:
            msg = f"{self._name} ends before its END record"
            raise IncompleteStream(msg)

    def _header(self, head: bytes, at: int) -> None:
        kind, length = kind_of(head), payload_length(head)
        if length is None or length > _LENGTH_MAX or length % WORD_SIZE:
            self._fail(f"has an impossible record at {at}")
        self._owed = length
        self._ended = kind == RecordType.END
        if kind == RecordType.BEGIN:
            self._opening = BEGIN_FIELDS.unpack_from(head)[2] & 3 == COMPOUND
            self._state = fletcher.summed(head)
            return
        before, wanted = self._state, sum_of(head)
        if self._ended and self._opening:
            if head != _END_OF_PROPERTIES.pack(RecordType.END, *before):
                self._fail(f"has a wrong checksum at {at}, behind the properties")
            return
        if head == CLOSING_END:
            return
        if wanted == fletcher.ZERO:
            msg = f"{self._name} has no running checksums (it was sent before 2015): nothing proves it"
            raise UnsupportedStream(msg)
        state = fletcher.summed(head[:SUM_AT], before)
        if state != wanted or (self._ended and sum_of(head, END_SUM_AT) != before):
            self._fail(f"has a wrong checksum at {at}: wrong bytes there, or in the record before it")
        self._state = fletcher.summed(head[SUM_AT:], state)

    def _fail(self, what: str) -> NoReturn:
        msg = f"{self._name} {what}: it is damaged"
        raise DamagedStream(msg)
