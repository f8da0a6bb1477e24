"""The SHA-256 of a stream without the FREE records that may be redundant (docs/format.md, "Proofs by the ZFS host").

    HashWithoutFrees    the bytes of a stream -> a hash

A merged increment may have FREE records that `zfs send -i` leaves out, of what is free already. Without them both
have the same bytes. **Two equal hashes prove too little**: that no FREE is missing, and that none is of what lives,
they do not show.
"""

from __future__ import annotations

import hashlib
from typing import Final, NoReturn

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import DamagedStream, IncompleteStream
from fullsend_protocol.stream.checksums import END_SUM_AT, SUM_AT, SUM_FIELDS, Piece, kind_of
from fullsend_protocol.stream.records import HEADER_SIZE, TO_THE_END, RecordType, payload_length

#: Where FREE has its length.
_LENGTH: Final = slice(24, 32)
_TO_THE_END: Final = TO_THE_END.to_bytes(8, "little")
_PAYLOAD_MAX: Final = max(limits.RECORD_PAYLOAD_MAX, limits.BEGIN_PAYLOAD_MAX)


class HashWithoutFrees:
    """Hashes a stream, or a package of one, from its first byte. It holds at most a header."""

    def __init__(self, name: str) -> None:
        """`name`: of the stream, for errors."""
        self._name = name
        self._hash = hashlib.sha256()
        self._head = bytearray()  # the part of a header that has arrived
        self._owed = 0  # payload bytes of the current record that are still to come
        self._kind = -1  # of the last record

    def feed(self, data: Piece) -> None:
        """Take the next bytes. Raises: DamagedStream for an impossible record."""
        view = memoryview(data)
        at, stop = 0, len(view)
        while at < stop:
            if self._owed:
                count = min(self._owed, stop - at)
                self._hash.update(view[at : at + count])
                self._owed -= count
            else:
                count = min(HEADER_SIZE - len(self._head), stop - at)
                self._head += view[at : at + count]
                if len(self._head) == HEADER_SIZE:
                    self._header(self._head)
                    self._head = bytearray()
            at += count

    def finish(self) -> str:
        """Return the hash, in hex. Raises: IncompleteStream if the bytes do not end with an END record."""
        if self._head or self._owed or self._kind != RecordType.END:
            msg = f"{self._name} ends before its END record"
            raise IncompleteStream(msg)
        return self._hash.hexdigest()

    def _header(self, head: bytearray) -> None:
        kind, length, before = kind_of(head), payload_length(head), self._kind
        if length is None or length > _PAYLOAD_MAX:
            self._fail(f"has an impossible record of type {kind}")
        self._kind, self._owed = kind, length
        if kind == RecordType.BEGIN:
            self._hash.update(head)
        elif kind == RecordType.END:
            self._hash.update(head[:END_SUM_AT] + head[END_SUM_AT + SUM_FIELDS.size : SUM_AT])
        elif kind != RecordType.FREE or (before == RecordType.OBJECT and head[_LENGTH] == _TO_THE_END):
            self._hash.update(head[:SUM_AT])

    def _fail(self, what: str) -> NoReturn:
        msg = f"{self._name} {what}: it is damaged"
        raise DamagedStream(msg)
