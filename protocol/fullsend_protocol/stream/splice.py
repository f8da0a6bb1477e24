"""Makes the rest of a cut stream from the output of `zfs send -t`, byte for byte, for the stored file.

    Splicer     from `zfs send -t`, what follows the last record that the receiver keeps

It takes bytes as they come, and holds a header of at most 312 bytes.

**Tried**, on OpenZFS 2.4.4 and 2.1.11: sends that were cut at 320 places, of 11 kinds (plain, -L, -e, -c, raw, volumes,
from bookmarks, full and incremental), resumed and spliced, are the uninterrupted streams, byte for byte. `zfs receive`
gets the right contents from them. Conclusions from OpenZFS's source that were not tried are marked where they are used.
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
    SUM_AT,
    Beginning,
    ChecksumRewriter,
    Piece,
    identity_text,
    is_possible_length,
    kind_of,
    sum_of,
)
from fullsend_protocol.stream.fletcher import WORD_SIZE, State
from fullsend_protocol.stream.records import (
    HEADER_SIZE,
    MAGIC,
    SUBSTREAM,
    Feature,
    RecordType,
    payload_length,
    resume_key,
)

#: How many records `zfs send -t` may repeat. Seen: 2 to 11, which are OBJECT_RANGE (raw streams), OBJECT, FREE and the
#: WRITEs of one block. It resumes at the beginning of a block, and a block of 16 MiB that is sent without -L is split
#: into 128 WRITEs of SPA_OLD_MAXBLOCKSIZE; 64 are spare.
REPEATED_MAX: Final = limits.RECORD_PAYLOAD_MAX // (128 << 10) + 64


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """The last record that the receiver keeps. The resumed stream must repeat it.

    `header`: the record's 312 bytes. `payload_sha256`: the SHA-256 of its payload, 32 bytes.

    Raises: NotTheSameStream if OpenZFS resumes no stream at such a record; it resumes at OBJECT, WRITE and
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
        if not is_possible_length(length) or self.checksum == fletcher.ZERO:
            msg = f"a record with a payload of {length} bytes and the checksum {self.checksum} cannot be resumed at"
            raise NotTheSameStream(msg)

    @property
    def type(self) -> RecordType:
        """OBJECT, WRITE or WRITE_EMBEDDED."""
        return RecordType(kind_of(self.header))

    @property
    def object(self) -> int:
        """The number of the object: the one that a resume token names."""
        return self._key[0]

    @property
    def offset(self) -> int:
        """The offset within the object; 0 for an OBJECT."""
        return self._key[1]

    @property
    def payload_size(self) -> int:
        """Bytes of its payload."""
        return payload_length(self.header) or 0

    @property
    def checksum(self) -> State:
        """The running checksum in the header."""
        return sum_of(self.header)

    @property
    def _key(self) -> tuple[int, int]:
        key = resume_key(self.header)
        assert key is not None  # noqa: S101 - for mypy: __post_init__ has checked it
        return key


class Splicer:
    """Makes the rest of a cut stream from the output of `zfs send -t`.

    Feed it all that `zfs send -t` gives, from its first byte. It drops BEGIN, and the records up to and including the
    repeated one. The rest, up to the stream's end, is the result.

    The result is what an uninterrupted send would have given, if OpenZFS sends the same twice (which is not so after a
    rename, or with other flags). The splicer compares BEGIN, and the repeated record with its payload: that has
    detected every wrong flag so far.
    """

    def __init__(
        self, point: ResumePoint, *, name: str, guid: int, base_guid: int | None, features: int, compound: bool
    ) -> None:
        """`name`, `guid`, `base_guid` (None: of a full): what the token asked for, and BEGIN must say.

        (`zfs send -t` looks for the GUID in the whole pool. It may find a received copy, in which the same blocks are
        stored otherwise; then the name differs.) `features`: of the BEGIN of the cut stream. `compound`: the cut stream
        is a package whose last stream this is (-p), so a closing END follows.

        Raises: NotTheSameStream for a redacted stream, which would continue with what was redacted although the
        repeated record is the same; and for a stream that was a resumed one itself.
        """
        for feature in (Feature.REDACTED, Feature.RESUMING):
            if features >> feature & 1:
                msg = f"{name} cannot be resumed where it was cut: it is a {feature.name.lower()} stream"
                raise NotTheSameStream(msg)
        self._seeker = _Repetition(point, name, guid, base_guid or 0, features)
        self._rewriter = ChecksumRewriter(self._seeker, guid)
        self._compound = compound

    @property
    def found(self) -> bool:
        """Whether the repeated record was found, and is the one that the receiver keeps: there is no output before."""
        return self._rewriter.forwarding

    @property
    def done(self) -> bool:
        """Whether END was passed on."""
        return self._rewriter.done

    def feed(self, data: Piece) -> list[Piece]:
        """Take the next bytes of `zfs send -t`. Returns: the next bytes of the result, in pieces, possibly none.

        No payload is copied: the pieces are views of `data`, with corrected checksums, valid as long as the caller does
        not change `data` (a bytearray cannot change its length while the pieces exist). Only read-only data are copied
        first.

        Raises: NotTheSameStream for anything that is not as it must be. Then earlier output is not to be trusted
        either, the splicer is unusable, and only a replay helps.
        """
        return self._rewriter.feed(data)

    def finish(self) -> bytes:
        """Note the end of the bytes. Returns: what is still to be appended: the closing END of a package, or nothing.

        Raises: NotTheSameStream if the repeated record never came; IncompleteStream if END did not: then the output is
        right, and the stream can be resumed once more after it.
        """
        if not self.found:
            self._seeker.fail("ended before it had repeated the last record that is kept")
        if not self.done:
            msg = "the resumed stream ends before its END record: it was cut, or `zfs send` died"
            raise IncompleteStream(msg)
        return CLOSING_END if self._compound else b""


class _Repetition:
    """Finds the repeated record."""

    def __init__(self, point: ResumePoint, name: str, guid: int, base_guid: int, features: int) -> None:
        self._point = point
        self._place = f"object {point.object}, offset {point.offset}"
        self._key = point.type, (point.object, point.offset)
        self._identity = guid, base_guid, name.encode()
        self._features = features
        self._records = -1  # seen so far, without BEGIN
        self._repeated: bytearray | None = None  # the header of the repeated record, once it has come
        self._hash = hashlib.sha256()

    def take_header(self, head: bytearray) -> Beginning | None:
        self._records += 1
        if self._records == 0:
            self._check_begin(head)
            return None
        kind = kind_of(head)
        if kind in {RecordType.BEGIN, RecordType.END}:
            self.fail(f"has a record of type {kind} before it has repeated the last one that is kept")
        if self._records > REPEATED_MAX:
            self.fail(f"has not repeated the last record that is kept within {REPEATED_MAX} records")
        if (kind, resume_key(head)) == self._key:
            if head[:SUM_AT] != self._point.header[:SUM_AT]:
                self.fail(f"has another record for {self._place}")
            if sum_of(head) == fletcher.ZERO:
                self.fail("has no running checksums")
            self._repeated = head
        return None

    def take_payload(self, payload: memoryview) -> None:
        if self._repeated is not None:
            self._hash.update(payload)

    def end_record(self) -> State | None:
        if self._repeated is None:
            return None
        point = self._point
        if self._hash.digest() != point.payload_sha256:
            self.fail(f"has other data for {self._place}")
        # Both copies are equal up to the checksum, and after it. So the difference of their checksums is the whole
        # difference of the two streams here.
        moved = fletcher.difference(point.checksum, sum_of(self._repeated))
        moved = fletcher.stepped(moved, point.header[SUM_AT:], self._repeated[SUM_AT:])
        return fletcher.advanced(moved, point.payload_size // WORD_SIZE + BEFORE_SUM)

    def take_rest(self, count: int) -> None:
        self.fail(f"has {count} bytes or more after its END record")

    def fail(self, what: str) -> NoReturn:
        msg = f"the resumed stream {what}: it does not continue the stored one where that was cut"
        raise NotTheSameStream(msg)

    def _check_begin(self, head: bytearray) -> None:
        kind, magic, version, guid, base_guid, toname = BEGIN_FIELDS.unpack_from(head)
        if (kind, magic) != (RecordType.BEGIN, MAGIC):
            self.fail("does not begin as one")
        if version & 3 != SUBSTREAM or not version >> 2 >> Feature.RESUMING & 1:
            self.fail("is not resumed: it begins at the start")
        found = guid, base_guid, toname.partition(b"\0")[0]
        if found != self._identity:
            self.fail(f"is {identity_text(*found)}, not {identity_text(*self._identity)}")
        features = version >> 2 ^ 1 << Feature.RESUMING
        if features != self._features:
            self.fail(f"has the features {features:#x}, not {self._features:#x} (was it sent with other flags?)")
