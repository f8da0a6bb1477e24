"""A stream that was cut goes on, byte for byte: from `zfs send -t` into a file, and from a file into `zfs receive`.

OpenZFS resumes a send at (object, offset), with a BEGIN that has the feature RESUMING and some records that were sent
before. Two things stand between that and the rest of the stream that was cut, and both are done here: where the rest
begins, and the running Fletcher-4 in each record, which depends on all that came before it. Since that sum is linear
(see fletcher), the difference between the sum wanted and the one found is carried from record to record for a price
that does not depend on the payload; no byte of it is summed. What is wrong in the data so stays wrong for `zfs receive`
to see.

    Splicer     of `zfs send -t`, what follows on the last record that the receiver keeps
    Rejoiner    of a stored stream, what `zfs receive` still lacks after it was interrupted (zfs receive -s)

Both take bytes as they come, and hold a header of 312 bytes at most (the Rejoiner also BEGIN's nvlist, and of a raw
stream two records of a few hundred bytes).

**Tried**, on OpenZFS 2.4.4 and 2.1.11: sends that were cut at 320 places, of 11 flavours (plain, -L, -e, -c, raw,
volumes, from bookmarks, full and incremental), resumed and spliced, are the uninterrupted streams, byte for byte, and
are received with the right contents. On 2.4.4, by tests/zfs: receives that were interrupted, where an object begins and
inside of one (plain, -L -e -c, split records, -p, raw, volumes; full and incremental), and went on by a Rejoiner, end
with the right GUID and contents. What was concluded from OpenZFS's source instead is said where it is used.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Final, NoReturn, Protocol

from fullsend_protocol import fletcher, limits, nvlist
from fullsend_protocol.errors import DamagedStream, IncompleteStream, NotTheSameStream, UnsupportedStream
from fullsend_protocol.fletcher import MASK, WORD_SIZE, State
from fullsend_protocol.records import HEADER_SIZE, MAGIC, Feature, RecordType, payload_length, resume_key
from fullsend_protocol.resume_token import ResumeToken, token_features

#: What a piece of the result may be.
Piece = bytes | bytearray | memoryview

#: Where the running checksum stands in each header but BEGIN's; it is the state just before these 32 bytes.
_SUM_AT: Final = 280
_SUM_SIZE: Final = 32
_BEFORE_SUM: Final = _SUM_AT // WORD_SIZE
#: Where END also has the state before its own first byte, and the guid of its stream.
_END_SUM_AT: Final = 8
_END_GUID_AT: Final = 40
_BEFORE_END_SUM: Final = _END_SUM_AT // WORD_SIZE
_AFTER_END_SUM: Final = (_SUM_AT - _END_SUM_AT - _SUM_SIZE) // WORD_SIZE
_VERSION_AT: Final = 16
_SUBSTREAM: Final = 1

_SUM: Final = struct.Struct("<4Q")
_WORDS: Final = struct.Struct("<8I")  # a sum, as the words that are summed
_U64: Final = struct.Struct("<Q")
_PAIR: Final = struct.Struct("<QQ")  # of an OBJECT_RANGE, from 8 on: its first object, and how many
_FREE: Final = struct.Struct("<QQQ")  # of a FREE, from 8 on: object, offset, length
_BEGIN: Final = struct.Struct("<I4xQQ16xQQ256s")  # type, magic, versioninfo; toguid, fromguid, toname
_BONUS: Final = struct.Struct("<I4xI")  # of an OBJECT, from 28 on
_HOT: Final = struct.Struct("<I28xQ10xB229x4Q")  # type; at 32 and 50 a WRITE's size and compression; the checksum

#: Payloads come in few lengths: blocks in one, compressed ones in multiples of 512 bytes. What is remembered of them is
#: bounded, because a stream that says otherwise must cost no memory.
_LENGTHS_MAX: Final = 4096

#: How many records `zfs send -t` may repeat. Seen: 2 to 11, which are OBJECT_RANGE (raw streams), OBJECT, FREE and the
#: WRITEs of one block. It goes on at the beginning of a block, and a block of 16 MiB that is sent without -L is split
#: into 128 WRITEs of SPA_OLD_MAXBLOCKSIZE; 64 are to spare.
REPEATED_MAX: Final = limits.RECORD_PAYLOAD_MAX // (128 << 10) + 64

#: What a token says of a target that nothing was written to yet (dmu_recv.c, dmu_recv_begin_sync).
_NOTHING_WRITTEN: Final = (1, 0)
#: What one OBJECT_RANGE speaks of: DNODES_PER_BLOCK of OpenZFS (include/sys/dnode.h), 16 KiB of 512 bytes.
_DNODES_PER_BLOCK: Final = 32
#: A bonus buffer lies in its dnode: DNODE_MAX_SIZE of OpenZFS (include/sys/dnode.h).
_BONUS_MAX: Final = 16 << 10
#: The length of a FREE that gives up all behind its offset: DMU_OBJECT_END.
_TO_THE_END: Final = (1 << 64) - 1

#: The END of a package (also of one with a single stream: -p), zero after its type.
CLOSING_END: Final = struct.pack("<I", RecordType.END).ljust(HEADER_SIZE, b"\0")


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
            msg = f"a stream cannot be resumed at a record of type {_kind(self.header)}"
            raise NotTheSameStream(msg)
        if not _possible(length) or self.checksum == fletcher.ZERO:
            msg = f"a record with a payload of {length} bytes and the checksum {self.checksum} cannot be resumed at"
            raise NotTheSameStream(msg)

    @property
    def type(self) -> RecordType:
        """OBJECT, WRITE or WRITE_EMBEDDED."""
        return RecordType(_kind(self.header))

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
        return _sum(self.header)

    @property
    def _key(self) -> tuple[int, int]:
        key = resume_key(self.header)
        assert key is not None  # noqa: S101 - for mypy: __post_init__ has looked
        return key


class _Seeker(Protocol):
    """Who looks for the place where records begin to be passed on."""

    def meet(self, head: bytearray) -> _Start | None:
        """See a whole header. Returns: how to begin, if it is the first that is passed on."""

    def sift(self, payload: memoryview) -> None:
        """See some bytes of that record's payload."""

    def met(self) -> State | None:
        """See that the record has ended. Returns: the difference for the next header, if that is the first."""

    def left_over(self, count: int) -> None:
        """See that bytes follow on END."""

    def stray(self, what: str) -> NoReturn:
        """Raise the error of a stream with records that cannot be, here or later on."""


@dataclass(frozen=True, slots=True)
class _Start:
    """`before`: what to pass on before the header. `difference`: what its checksum is to be more than it says."""

    before: list[Piece]
    difference: State


class _Carrier:
    """Drops records up to the place that a seeker finds, and passes on the others, to END, with other checksums.

    `carrying`: the place was found. `done`: END was passed on. After an error it is of no more use.
    """

    def __init__(self, seeker: _Seeker, guid: int) -> None:
        """`guid`: of the snapshot, which END must have."""
        self.carrying = False
        self.done = False
        self._seeker = seeker
        self._guid = guid
        self._head = bytearray()  # of a header that is not whole yet
        self._owed = 0  # payload bytes of the current record that are still to come
        # What the checksum of the next header is to be more than it says (see fletcher).
        self._difference = fletcher.ZERO
        self._powers: dict[int, tuple[int, int, int]] = {}  # by payload length: over it, to the next header's checksum

    def jump(self) -> None:
        """What is fed next begins with another record than the next."""
        self._head.clear()
        self._owed = 0

    def feed(self, data: Piece) -> list[Piece]:
        """As Splicer.feed and Rejoiner.feed."""
        view = memoryview(data)
        if view.readonly:
            view = memoryview(bytearray(data))
        pieces: list[Piece] = []
        position, stop = 0, len(view)
        opened = 0  # where the piece begins that is to be passed on next
        while position < stop:
            if self._owed:
                count = min(self._owed, stop - position)
                self._owed -= count
                if not self.carrying:
                    self._seeker.sift(view[position : position + count])
                    opened = position + count
                    if not self._owed:
                        self._met()
                position += count
            elif self.done:
                self._seeker.left_over(stop - position)
                break
            elif self.carrying and not self._head and stop - position >= HEADER_SIZE:
                position = self._run(view, position, stop)
            else:
                if position > opened:
                    pieces.append(view[opened:position])
                position = opened = self._gather(view, position, stop, pieces)
        if position > opened:
            pieces.append(view[opened:position])
        return pieces

    def _gather(self, view: memoryview, position: int, stop: int, pieces: list[Piece]) -> int:
        """Collect a header that `view` holds in part, or that a seeker wants to see. Returns: the position reached."""
        count = min(HEADER_SIZE - len(self._head), stop - position)
        self._head += view[position : position + count]
        if len(self._head) == HEADER_SIZE:
            head, self._head = self._head, bytearray()
            if not self.carrying:
                start = self._seeker.meet(head)
                if start is None:
                    self._owed = self._length(head)
                    if not self._owed:
                        self._met()
                    return position + count
                pieces += start.before
                self._carry(start.difference)
            self._owed = self._correct(head)
            pieces.append(head)
        return position + count

    def _met(self) -> None:
        difference = self._seeker.met()
        if difference is not None:
            self._carry(difference)

    def _carry(self, difference: State) -> None:
        self._difference = difference
        self.carrying = True

    def _run(self, view: memoryview, position: int, stop: int) -> int:
        """Correct the records whose headers lie whole in `view`. Straight-line on purpose: a volume of 8 KiB blocks is
        120,000 records a gigabyte. What is not frequent goes through `_correct`.
        """
        unpack, words, put = _HOT.unpack_from, _WORDS.unpack_from, _SUM.pack_into
        powers, mask = self._powers, MASK
        last_header = stop - HEADER_SIZE
        a, b, c, d = self._difference
        while position <= last_header:
            kind, length, compression, was_a, was_b, was_c, was_d = unpack(view, position)
            if kind == 3:  # noqa: PLR2004 - WRITE; an enum's name would be looked up for every record
                if compression:
                    (length,) = _U64.unpack_from(view, position + 96)
            elif kind == 4:  # noqa: PLR2004 - FREE
                length = 0
            elif kind == 1:  # OBJECT
                bonuslen, raw_bonuslen = _BONUS.unpack_from(view, position + 28)
                length = raw_bonuslen or (bonuslen + 7) & ~7
            else:
                self._difference = a, b, c, d
                length = self._correct(view[position : position + HEADER_SIZE])
                a, b, c, d = self._difference
                position += HEADER_SIZE + length
                if self.done:
                    break
                continue
            n, n2, n3 = powers.get(length) or self._power(length)
            at = position + _SUM_AT
            before = words(view, at)
            put(view, at, was_a + a & mask, was_b + b & mask, was_c + c & mask, was_d + d & mask)
            # fletcher.stepped
            for ours, theirs in zip(words(view, at), before):  # noqa: B905 - it costs, and both are eight
                a += ours - theirs
                b += a
                c += b
                d += c
            # fletcher.advanced
            d = d + n * c + n2 * b + n3 * a & mask
            c = c + n * b + n2 * a & mask
            b = b + n * a & mask
            a &= mask
            position += HEADER_SIZE + length
        self._difference = a, b, c, d
        if position > stop:
            self._owed = position - stop
            position = stop
        return position

    def _correct(self, head: bytearray | memoryview) -> int:
        """Correct one header in place. Returns: the length of its payload."""
        kind, length = _kind(head), self._length(head)
        moved = self._difference
        if kind == RecordType.BEGIN:
            self._seeker.stray("has a BEGIN record where none may stand")
        if kind == RecordType.END:
            (guid,) = _U64.unpack_from(head, _END_GUID_AT)
            if guid != self._guid:
                self._seeker.stray(f"ends as that of the snapshot with GUID {guid}, not {self._guid}")
            # The eight words differ by the difference as it was before END.
            earlier = fletcher.advanced(moved, -_BEFORE_SUM)
            here = fletcher.advanced(earlier, _BEFORE_END_SUM)
            here = fletcher.stepped(here, *_raise(head, _END_SUM_AT, earlier))
            moved = fletcher.advanced(here, _AFTER_END_SUM)
            self.done = True
        moved = fletcher.stepped(moved, *_raise(head, _SUM_AT, moved))
        self._difference = fletcher.advanced(moved, length // WORD_SIZE + _BEFORE_SUM)
        return length

    def _length(self, head: bytearray | memoryview) -> int:
        """Return the length of the payload, if it can be."""
        length = payload_length(head)
        if length is None:
            self._seeker.stray(f"has a record of the unknown type {_kind(head)}")
        if not _possible(length):
            self._seeker.stray(f"has a record of type {_kind(head)} with a payload of {length} bytes")
        return length

    def _power(self, length: int) -> tuple[int, int, int]:
        """Return, and remember, what carries the difference over a payload to the next header's checksum."""
        if not _possible(length):
            self._seeker.stray(f"has a record with a payload of {length} bytes")
        if len(self._powers) >= _LENGTHS_MAX:
            self._powers.clear()
        found = fletcher.coefficients(length // WORD_SIZE + _BEFORE_SUM)
        self._powers[length] = found
        return found


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
        self._carrier = _Carrier(self._seeker, guid)
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

    def meet(self, head: bytearray) -> _Start | None:
        self._records += 1
        if self._records == 0:
            self._check_begin(head)
            return None
        kind = _kind(head)
        if kind in {RecordType.BEGIN, RecordType.END}:
            self.stray(f"has a record of type {kind} before it has repeated the last one that is kept")
        if self._records > REPEATED_MAX:
            self.stray(f"has not repeated the last record that is kept within {REPEATED_MAX} records")
        if (kind, resume_key(head)) == self._key:
            if head[:_SUM_AT] != self._point.header[:_SUM_AT]:
                self.stray(f"has another record for {self._place}")
            if _sum(head) == fletcher.ZERO:
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
        moved = fletcher.difference(point.checksum, _sum(self._repeated))
        moved = fletcher.stepped(moved, point.header[_SUM_AT:], self._repeated[_SUM_AT:])
        return fletcher.advanced(moved, point.payload_size // WORD_SIZE + _BEFORE_SUM)

    def left_over(self, count: int) -> None:
        self.stray(f"goes on behind its END record, by {count} bytes or more")

    def stray(self, what: str) -> NoReturn:
        msg = f"the resumed stream {what}: it does not go on where the stored one was cut"
        raise NotTheSameStream(msg)

    def _check_begin(self, head: bytearray) -> None:
        kind, magic, version, guid, base_guid, toname = _BEGIN.unpack_from(head)
        if (kind, magic) != (RecordType.BEGIN, MAGIC):
            self.stray("does not begin as one")
        if version & 3 != _SUBSTREAM or not version >> 2 >> Feature.RESUMING & 1:
            self.stray("is none: it begins at the beginning")
        found = guid, base_guid, toname.partition(b"\0")[0]
        if found != self._identity:
            self.stray(f"is {_said(*found)}, not {_said(*self._identity)}")
        features = version >> 2 ^ 1 << Feature.RESUMING
        if features != self._features:
            self.stray(f"has the features {features:#x}, not {self._features:#x} (was it sent with other flags?)")


class Rejoiner:
    """Makes of a stored stream what `zfs receive` still lacks after it was interrupted, as `zfs send -t` would.

    `zfs receive -s` leaves a target whose receive_resume_token names the last record that it has written: an OBJECT,
    whose offset is 0 there, or a WRITE or WRITE_EMBEDDED. All before that one is written too, and the stream must go on
    with it once more (module/zfs/dmu_recv.c: save_resume_state; resume_check compares the two numbers with BEGIN's).
    Where nothing was written yet the token says object 1, offset 0, and the stream must go on with its first record.

    Feed it the stored records in order, up to END or further, from the end of BEGIN. What comes before the wanted
    record is dropped, and so is what follows on END (the rest of a package). Most of what would be dropped need not be
    fed: `seek` says how far one may jump.

    What comes out is a BEGIN with RESUMING, whose nvlist has resume_object and resume_offset in front of what it had
    (of a raw stream the keys); then of a raw stream once more the OBJECT_RANGE, the OBJECT, and the FREE of all behind
    the object's end; then the stored records from the wanted one to END. For offset 0 and for raw streams that is what
    `zfs send -t` gives, byte for byte (but for a SPILL that has not changed since the base, which `zfs receive` passes
    over). For other offsets that has the OBJECT and the FREE of a plain stream too, which are written already.

    `zfs send -t` brings no properties, and an increment with properties (-p) that goes on by it ends without them:
    `zfs receive` sets them first and, where it is interrupted, puts the old ones back (tried). So the package that
    brings them may stand around what comes out: `zfs receive` takes that, and they are set.

    **Not tried**: targets that another version of OpenZFS has left; packages of more than one stream.

    The stored records are passed on as they are: whoever feeds them has to prove them.
    """

    def __init__(self, begin: bytes, token: ResumeToken, package: bytes = b"") -> None:
        """`begin`: the BEGIN of the stored stream (of a package: of the stream in it), header and nvlist. `token`: that
        of the target. `package`: what stands in front of BEGIN in a stream with properties (-p); see `opening`.

        Raises: NotTheSameStream where the target was left by another stream; UnsupportedStream for a stream that is
        redacted, or a resumed one itself, or whose nvlist is packed as no OpenZFS up to 2.4 does it.
        """
        self._seeker = _Wanted(begin, token, package)
        self._carrier = _Carrier(self._seeker, token.guid)
        self._compound = bool(package)

    @property
    def found(self) -> bool:
        """Whether the wanted record was found: nothing comes out before."""
        return self._carrier.carrying

    @property
    def done(self) -> bool:
        """Whether END has come out: what is fed after it is dropped."""
        return self._carrier.done

    @property
    def seek(self) -> tuple[int, int] | None:
        """(object, offset): what is needed next stands behind the last resumable record (records.resume_key) whose key
        is smaller. None: nothing that follows may be left out.

        Of a raw stream that changes twice: OBJECT_RANGE is needed, then the OBJECT, then the wanted record.
        """
        return None if self.found else self._seeker.seek

    def jump(self) -> None:
        """What is fed next begins with a later record than the one that would follow, as far as `seek` allows."""
        self._carrier.jump()

    def feed(self, data: Piece) -> list[Piece]:
        """Take the next stored bytes. Returns: the next bytes for `zfs receive`, in pieces, possibly none.

        The pieces are as those of Splicer.feed.

        Raises: NotTheSameStream where the wanted record is not there, or was not fed from far enough in front;
        UnsupportedStream for a stream without running checksums; DamagedStream for records that cannot be. Then the
        rejoiner is of no more use; `zfs receive -A` and the whole stream are what is left.
        """
        ended = self.done
        pieces = self._carrier.feed(data)
        if self._compound and self.done and not ended:
            pieces.append(CLOSING_END)
        return pieces

    def finish(self) -> None:
        """The stored bytes have ended. Raises: NotTheSameStream where the wanted record never came, IncompleteStream
        where END did not.
        """
        if not self.found:
            self._seeker.miss()
        if not self.done:
            msg = "the stored stream ends before its END record"
            raise IncompleteStream(msg)


class _Wanted:
    """Looks for the record that a token names."""

    def __init__(self, begin: bytes, token: ResumeToken, package: bytes) -> None:
        self._token = token
        self._package = package
        self._wanted = token.object, token.offset
        self._found = False
        self._check_begin(begin)
        self._raw = bool(token.features >> Feature.RAW & 1)
        self._before_first = fletcher.summed(begin)
        self._begin = _resuming(begin, token)
        # What a raw stream has to repeat.
        self._range = bytearray()  # the last OBJECT_RANGE
        self._object: list[bytearray] = []  # OBJECT, with its payload, and the FREE behind it
        self._keeping = False  # whether the current record is that OBJECT

    @property
    def seek(self) -> tuple[int, int] | None:
        if self._wanted == _NOTHING_WRITTEN:
            return None
        number, offset = self._wanted
        if self._raw and not self._ranged():
            return number // _DNODES_PER_BLOCK * _DNODES_PER_BLOCK, 0
        # Behind OBJECT, until the next record has shown whether that is its FREE, nothing may be left out either.
        if self._raw and offset and (not self._object or self._keeping):
            return number, 0
        return self._wanted

    def meet(self, head: bytearray) -> _Start | None:
        kind, key = _kind(head), resume_key(head)
        if kind == RecordType.BEGIN:
            self.stray("has a BEGIN record where none may stand")
        if kind == RecordType.END:
            self.miss()
        if self._wanted == _NOTHING_WRITTEN:
            if fletcher.summed(head[:_SUM_AT], self._before_first) != _sum(head):
                self.stray("must be read from its first record on")
            return self._start(head, [])
        if key == self._wanted:
            if kind != RecordType.OBJECT and not self._token.offset:
                # The target may have got no further than to the OBJECT: then it lacks what stands between the two.
                self.stray(f"must be read from before the OBJECT record of object {self._token.object}")
            return self._start(head, self._repeated() if self._raw else [])
        if self._raw:
            self._keep(head, kind)
        return None

    def sift(self, payload: memoryview) -> None:
        if self._keeping:
            self._object[0] += payload

    def met(self) -> State | None:
        return None

    def left_over(self, count: int) -> None:
        pass  # the rest of a package

    def miss(self) -> NoReturn:
        """Say that the wanted record is not there."""
        self.stray(f"has no record for object {self._token.object}, offset {self._token.offset}")

    def stray(self, what: str) -> NoReturn:
        error = DamagedStream if self._found else NotTheSameStream
        msg = f"the stored stream {what}: it cannot go on where `zfs receive` was interrupted"
        raise error(msg)

    def _check_begin(self, begin: bytes) -> None:
        token = self._token
        if len(begin) < HEADER_SIZE or payload_length(begin) != len(begin) - HEADER_SIZE or len(begin) % WORD_SIZE:
            self.stray(f"has a BEGIN record of {len(begin)} bytes")
        kind, magic, version, guid, base_guid, toname = _BEGIN.unpack_from(begin)
        if (kind, magic, version & 3) != (RecordType.BEGIN, MAGIC, _SUBSTREAM):
            self.stray("does not begin with the BEGIN record of a single stream")
        features = version >> 2
        if features >> Feature.RESUMING & 1:
            msg = f"{token.name} is stored as a resumed stream, which cannot be resumed from"
            raise UnsupportedStream(msg)
        found = guid, base_guid, toname.partition(b"\0")[0]
        wanted = token.guid, token.base_guid or 0, token.name.encode()
        if found != wanted:
            self.stray(f"is {_said(*found)}, not {_said(*wanted)}")
        if token_features(features) != token.features:
            self.stray(f"has the features {features:#x}, the target was left by one that was sent with other flags")

    def _keep(self, head: bytearray, kind: int) -> None:
        """Keep what will have to be repeated. Wants to see every record."""
        behind, self._keeping = self._keeping, False
        number, _offset, length = _FREE.unpack_from(head, 8)
        if kind == RecordType.OBJECT_RANGE:
            self._range = head
        elif number != self._token.object:
            pass
        elif kind == RecordType.OBJECT:
            size = payload_length(head) or 0
            if size > _BONUS_MAX:
                self.stray(f"has an OBJECT record with a payload of {size} bytes")
            self._object = [head]
            self._keeping = True
        elif kind == RecordType.FREE and behind and length == _TO_THE_END:
            self._object.append(head)

    def _repeated(self) -> list[bytearray]:
        """Return what a raw stream has to begin with.

        A block of 32 dnodes has one MAC, which OBJECT_RANGE brings, and `zfs receive` sets it with the next OBJECT
        (dmu_recv.c, receive_object_range and receive_object). Without OBJECT_RANGE it refuses the next OBJECT; without
        the OBJECT the block might never get its MAC again.
        """
        number, offset = self._wanted
        if not self._ranged() or (offset and not self._object):
            self.stray(f"must be read from before the OBJECT_RANGE record of object {number}")
        return [self._range, *self._object] if offset else [self._range]

    def _ranged(self) -> bool:
        """Whether the OBJECT_RANGE of the wanted object was seen."""
        first, slots = _PAIR.unpack_from(self._range, 8) if self._range else (0, 0)
        return bool(first <= self._token.object < first + slots)

    def _start(self, head: bytearray, repeated: list[bytearray]) -> _Start:
        found = _sum(head)
        if found == fletcher.ZERO:
            msg = f"{self._token.name} has no running checksums (it was sent before 2015): it cannot be resumed from"
            raise UnsupportedStream(msg)
        state = fletcher.summed(self._begin)
        for record in repeated:
            state = fletcher.summed(record[:_SUM_AT], state)
            _SUM.pack_into(record, _SUM_AT, *state)
            state = fletcher.summed(record[_SUM_AT:], state)
        self._found = True
        wanted = fletcher.summed(head[:_SUM_AT], state)
        return _Start([self._package, self._begin, *repeated], fletcher.difference(wanted, found))


def opening(start: bytes | bytearray) -> tuple[bytes, bytes] | None:
    """Find in the first bytes of a stored stream what a Rejoiner wants of its beginning.

    Returns: of a package, which a full or incremental with properties (-p) is too, its own BEGIN and END, else nothing;
    and, behind that, the BEGIN of the first or only stream, header and nvlist. None: more bytes are needed, at most
    twice limits.BEGIN_PAYLOAD_MAX and some headers. Raises: DamagedStream where no stream begins so.
    """
    at = 0
    while len(start) >= at + HEADER_SIZE:
        head = start[at : at + HEADER_SIZE]
        kind, magic, version, *_identity = _BEGIN.unpack_from(head)
        size = HEADER_SIZE + (payload_length(head) or 0)
        if kind == RecordType.BEGIN and magic == MAGIC and size <= HEADER_SIZE + limits.BEGIN_PAYLOAD_MAX:
            if version & 3 == _SUBSTREAM:
                return (bytes(start[:at]), bytes(start[at : at + size])) if len(start) >= at + size else None
        elif kind != RecordType.END or not at:
            msg = "the stored stream does not begin as one"
            raise DamagedStream(msg)
        at += size
    return None


def _resuming(begin: bytes, token: ResumeToken) -> bytes:
    """Return a BEGIN record as `zfs send -t` would give it for this token. Raises: UnsupportedStream."""
    payload = nvlist.put_first({"resume_object": token.object, "resume_offset": token.offset}, begin[HEADER_SIZE:])
    head = bytearray(begin[:HEADER_SIZE])
    (version,) = _U64.unpack_from(head, _VERSION_AT)
    struct.pack_into("<I", head, 4, len(payload))
    _U64.pack_into(head, _VERSION_AT, version | 1 << Feature.RESUMING << 2)
    return bytes(head) + payload


def _said(guid: int, base_guid: int, name: bytes) -> str:
    """Say which stream that is."""
    base = f"from GUID {base_guid}" if base_guid else "full"
    return f"{name.decode(errors='backslashreplace')} (GUID {guid}, {base})"


def _kind(head: bytes | bytearray | memoryview) -> int:
    return int.from_bytes(head[:4], "little")


def _possible(length: int) -> bool:
    """Whether a payload can be so long: nothing longer is sent, and nothing that does not end with a word."""
    return length <= limits.RECORD_PAYLOAD_MAX and length % WORD_SIZE == 0


def _sum(head: bytes | bytearray) -> State:
    a, b, c, d = _SUM.unpack_from(head, _SUM_AT)
    return a, b, c, d


def _raise(head: bytearray | memoryview, at: int, moved: State) -> tuple[bytes, bytes]:
    """Add `moved` to the four sums that stand at `at`. Returns: their bytes after and before."""
    before = bytes(head[at : at + _SUM_SIZE])
    a, b, c, d = _SUM.unpack(before)
    after = _SUM.pack(*fletcher.added((a, b, c, d), moved))
    head[at : at + _SUM_SIZE] = after
    return after, before
