"""A stream that was cut goes on, byte for byte: from `zfs send -t` into a file.

    Splicer     of `zfs send -t`, what follows on the last record that the receiver keeps

It takes bytes as they come, and holds a header of 312 bytes at most.

**Tried**, on OpenZFS 2.4.4 and 2.1.11: sends that were cut at 320 places, of 11 flavours (plain, -L, -e, -c, raw,
volumes, from bookmarks, full and incremental), resumed and spliced, are the uninterrupted streams, byte for byte, and
are received with the right contents. What was concluded from OpenZFS's source instead is said where it is used.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, NoReturn

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import IncompleteStream, NotTheSameStream
from fullsend_protocol.stream import fletcher
from fullsend_protocol.stream.checksums import (
    BEFORE_SUM,
    BEGIN_FIELDS,
    CLOSING_END,
    SUBSTREAM,
    SUM_AT,
    Carrier,
    Piece,
    Start,
    kind_of,
    possible,
    said,
    sum_of,
)
from fullsend_protocol.stream.fletcher import WORD_SIZE, State
from fullsend_protocol.stream.records import HEADER_SIZE, MAGIC, Feature, RecordType, payload_length, resume_key

#: How many records `zfs send -t` may repeat. Seen: 2 to 11, which are OBJECT_RANGE (raw streams), OBJECT, FREE and the
#: WRITEs of one block. It goes on at the beginning of a block, and a block of 16 MiB that is sent without -L is split
#: into 128 WRITEs of SPA_OLD_MAXBLOCKSIZE; 64 are to spare.
REPEATED_MAX: Final = limits.RECORD_PAYLOAD_MAX // (128 << 10) + 64


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """The last record that the receiver keeps: what it tells of it, and what the resumed stream must repeat.

    `header`: the record's 312 bytes. `payload_sha256`: the SHA-256 of its payload, 32 bytes. Making one raises
    NotTheSameStream where it is no record that a stream could be resumed at: OpenZFS knows OBJECT, WRITE and
    WRITE_EMBEDDED.
    """

    header: bytes
    payload_sha256: bytes

    def __post_init__(self) -> None:
        if len(self.header) != HEADER_SIZE or len(self.payload_sha256) != limits.DIGEST_SIZE:
            msg = f"a record of {len(self.header)} bytes with a hash of {len(self.payload_sha256)} cannot be resumed at"
            raise NotTheSameStream(msg)
        length = payload_length(self.header)
        if resume_key(self.header) is None or length is None:
            msg = f"a stream cannot be resumed at a record of type {kind_of(self.header)}"
            raise NotTheSameStream(msg)
        if not possible(length) or self.checksum == fletcher.ZERO:
            msg = f"a record with a payload of {length} bytes and the checksum {self.checksum} cannot be resumed at"
            raise NotTheSameStream(msg)

    @property
    def type(self) -> RecordType:
        """OBJECT, WRITE or WRITE_EMBEDDED."""
        return RecordType(kind_of(self.header))

    @property
    def object(self) -> int:
        """The number of the object: what a resume token asks for."""
        return self._key[0]

    @property
    def offset(self) -> int:
        """Where in the object; 0 for an OBJECT."""
        return self._key[1]

    @property
    def payload_size(self) -> int:
        """Bytes of its payload."""
        return payload_length(self.header) or 0

    @property
    def checksum(self) -> State:
        """The running checksum that the header says."""
        return sum_of(self.header)

    @property
    def _key(self) -> tuple[int, int]:
        key = resume_key(self.header)
        assert key is not None  # noqa: S101 - for mypy: __post_init__ has looked
        return key


class Splicer:
    """Makes of `zfs send -t` what the stream that was cut still lacks.

    Feed it all that `zfs send -t` gives, from its first byte. BEGIN is dropped, and so are the records up to and with
    the repeated one; the rest comes out, and ends with the stream.

    The result is what an uninterrupted send would have given, if OpenZFS sends the same twice (which is not so after a
    rename, or with other flags). What is compared is BEGIN, and the repeated record with its payload: that has caught
    every wrong flag so far.
    """

    def __init__(
        self, point: ResumePoint, *, name: str, guid: int, base_guid: int | None, features: int, compound: bool
    ) -> None:
        """`name`, `guid`, `base_guid` (None: of a full): what the token asked for, and BEGIN must say.

        (`zfs send -t` looks for the GUID in the whole pool. It may find a received copy, in which the same blocks are
        stored otherwise; the name tells.) `features`: those of the BEGIN of the stream that was cut. `compound`: that
        one is a package whose last stream this is (-p), so a closing END follows.

        Raises: NotTheSameStream for a redacted stream, which would go on with what was redacted, while the repeated
        record is the same; and for one that was a resumed one itself.
        """
        for feature in (Feature.REDACTED, Feature.RESUMING):
            if features >> feature & 1:
                msg = f"{name} cannot be resumed where it was cut: it is a {feature.name.lower()} stream"
                raise NotTheSameStream(msg)
        self._seeker = _Repetition(point, name, guid, base_guid or 0, features)
        self._carrier = Carrier(self._seeker, guid)
        self._compound = compound

    @property
    def found(self) -> bool:
        """Whether the repeated record was found, and is the one that the receiver keeps: nothing comes out before."""
        return self._carrier.carrying

    @property
    def done(self) -> bool:
        """Whether END has come out."""
        return self._carrier.done

    def feed(self, data: Piece) -> list[Piece]:
        """Take the next bytes of `zfs send -t`. Returns: the next bytes of the result, in pieces, possibly none.

        No payload is copied: the pieces are views of `data`, in which the checksums were corrected, good for as long as
        `data` is left alone (a bytearray cannot change its length while they are held). Only data that cannot be
        written to are copied first.

        Raises: NotTheSameStream for all that is not as it must be; then what came out before is not to be trusted
        either, the splicer is of no more use, and a replay is what is left.
        """
        return self._carrier.feed(data)

    def finish(self) -> bytes:
        """The bytes have ended. Returns: what is still to be appended: the closing END of a package, or nothing.

        Raises: NotTheSameStream where the repeated record never came; IncompleteStream where END did not: what has come
        out is right, and the stream can be resumed once more behind it.
        """
        if not self.found:
            self._seeker.stray("ended before it had repeated the last record that is kept")
        if not self.done:
            msg = "the resumed stream ends before its END record: it was cut, or `zfs send` died"
            raise IncompleteStream(msg)
        return CLOSING_END if self._compound else b""


class _Repetition:
    """Looks for the repeated record."""

    def __init__(self, point: ResumePoint, name: str, guid: int, base_guid: int, features: int) -> None:
        self._point = point
        self._place = f"object {point.object}, offset {point.offset}"
        self._key = point.type, (point.object, point.offset)
        self._identity = guid, base_guid, name.encode()
        self._features = features
        self._records = -1  # seen so far; BEGIN does not count
        self._repeated: bytearray | None = None  # the header of the repeated record, once it has come
        self._hash = hashlib.sha256()

    def meet(self, head: bytearray) -> Start | None:
        self._records += 1
        if self._records == 0:
            self._check_begin(head)
            return None
        kind = kind_of(head)
        if kind in {RecordType.BEGIN, RecordType.END}:
            self.stray(f"has a record of type {kind} before it has repeated the last one that is kept")
        if self._records > REPEATED_MAX:
            self.stray(f"has not repeated the last record that is kept within {REPEATED_MAX} records")
        if (kind, resume_key(head)) == self._key:
            if head[:SUM_AT] != self._point.header[:SUM_AT]:
                self.stray(f"has another record for {self._place}")
            if sum_of(head) == fletcher.ZERO:
                self.stray("has no running checksums")
            self._repeated = head
        return None

    def sift(self, payload: memoryview) -> None:
        if self._repeated is not None:
            self._hash.update(payload)

    def met(self) -> State | None:
        if self._repeated is None:
            return None
        point = self._point
        if self._hash.digest() != point.payload_sha256:
            self.stray(f"has other data for {self._place}")
        # Both copies are the same up to the checksum, and behind it. So what their checksums differ by is all that the
        # two streams differ by here.
        moved = fletcher.difference(point.checksum, sum_of(self._repeated))
        moved = fletcher.stepped(moved, point.header[SUM_AT:], self._repeated[SUM_AT:])
        return fletcher.advanced(moved, point.payload_size // WORD_SIZE + BEFORE_SUM)

    def left_over(self, count: int) -> None:
        self.stray(f"goes on behind its END record, by {count} bytes or more")

    def stray(self, what: str) -> NoReturn:
        msg = f"the resumed stream {what}: it does not go on where the stored one was cut"
        raise NotTheSameStream(msg)

    def _check_begin(self, head: bytearray) -> None:
        kind, magic, version, guid, base_guid, toname = BEGIN_FIELDS.unpack_from(head)
        if (kind, magic) != (RecordType.BEGIN, MAGIC):
            self.stray("does not begin as one")
        if version & 3 != SUBSTREAM or not version >> 2 >> Feature.RESUMING & 1:
            self.stray("is none: it begins at the beginning")
        found = guid, base_guid, toname.partition(b"\0")[0]
        if found != self._identity:
            self.stray(f"is {said(*found)}, not {said(*self._identity)}")
        features = version >> 2 ^ 1 << Feature.RESUMING
        if features != self._features:
            self.stray(f"has the features {features:#x}, not {self._features:#x} (was it sent with other flags?)")
