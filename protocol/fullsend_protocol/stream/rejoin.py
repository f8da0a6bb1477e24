"""A stream that was cut goes on, byte for byte: from a file into `zfs receive`.

    Rejoiner    of a stored stream, what `zfs receive` still lacks after it was interrupted (zfs receive -s)

It takes bytes as they come, and holds a header of 312 bytes at most, BEGIN's nvlist, and of a raw stream two records of
a few hundred bytes.

**Tried**, on OpenZFS 2.4.4 and 2.1.11, by tests/zfs: receives that were interrupted, where an object begins and inside
of one (plain, -L -e -c, split records, -p, raw, volumes; full and incremental), and went on by a Rejoiner, end with the
right GUID and contents. What was concluded from OpenZFS's source instead is said where it is used.
"""

from __future__ import annotations

import struct
from typing import Final, NoReturn

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import DamagedStream, IncompleteStream, NotTheSameStream, UnsupportedStream
from fullsend_protocol.stream import fletcher, nvlist
from fullsend_protocol.stream.checksums import (
    BEGIN_FIELDS,
    CLOSING_END,
    SUBSTREAM,
    SUM_AT,
    SUM_FIELDS,
    Carrier,
    Piece,
    Start,
    kind_of,
    said,
    sum_of,
)
from fullsend_protocol.stream.fletcher import WORD_SIZE, State
from fullsend_protocol.stream.records import (
    HEADER_SIZE,
    MAGIC,
    Feature,
    RecordType,
    payload_length,
    resume_key,
    without_clone,
)
from fullsend_protocol.stream.resume_token import ResumeToken, token_features

#: What a token says of a target that nothing was written to yet (dmu_recv.c, dmu_recv_begin_sync).
_NOTHING_WRITTEN: Final = (1, 0)
#: What one OBJECT_RANGE speaks of: DNODES_PER_BLOCK of OpenZFS (include/sys/dnode.h), 16 KiB of 512 bytes.
_DNODES_PER_BLOCK: Final = 32
#: A bonus buffer lies in its dnode: DNODE_MAX_SIZE of OpenZFS (include/sys/dnode.h).
_BONUS_MAX: Final = 16 << 10
#: The length of a FREE that gives up all behind its offset: DMU_OBJECT_END.
_TO_THE_END: Final = (1 << 64) - 1

_VERSION_AT: Final = 16
_U64: Final = struct.Struct("<Q")
_PAIR: Final = struct.Struct("<QQ")  # of an OBJECT_RANGE, from 8 on: its first object, and how many
_FREE: Final = struct.Struct("<QQQ")  # of a FREE, from 8 on: object, offset, length


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

    The stored records are passed on as they are: the caller has to prove them.
    """

    def __init__(self, begin: bytes, token: ResumeToken, package: bytes = b"", *, onto_base: bool = False) -> None:
        """`begin`: the BEGIN of the stored stream (of a package: of the stream in it), header and nvlist. `token`: that
        of the target. `package`: what stands in front of BEGIN in a stream with properties (-p); see `opening`.
        `onto_base`: the target has the snapshot that the stream builds on, so it is not a clone (see reparent).

        Raises: NotTheSameStream where the target was left by another stream; UnsupportedStream for a stream that is
        redacted, or a resumed one itself, or whose nvlist is packed as no OpenZFS up to 2.4 does it.
        """
        self._seeker = _Wanted(begin, token, package, onto_base=onto_base)
        self._carrier = Carrier(self._seeker, token.guid)
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

    def __init__(self, begin: bytes, token: ResumeToken, package: bytes, *, onto_base: bool) -> None:
        self._token = token
        self._package = package
        self._wanted = token.object, token.offset
        self._found = False
        self._check_begin(begin)
        self._raw = bool(token.features >> Feature.RAW & 1)
        self._before_first = fletcher.summed(begin)
        self._begin = _resuming(without_clone(begin) if onto_base else begin, token)
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

    def meet(self, head: bytearray) -> Start | None:
        kind, key = kind_of(head), resume_key(head)
        if kind == RecordType.BEGIN:
            self.stray("has a BEGIN record where none may stand")
        if kind == RecordType.END:
            self.miss()
        if self._wanted == _NOTHING_WRITTEN:
            if fletcher.summed(head[:SUM_AT], self._before_first) != sum_of(head):
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
        kind, magic, version, guid, base_guid, toname = BEGIN_FIELDS.unpack_from(begin)
        if (kind, magic, version & 3) != (RecordType.BEGIN, MAGIC, SUBSTREAM):
            self.stray("does not begin with the BEGIN record of a single stream")
        features = version >> 2
        if features >> Feature.RESUMING & 1:
            msg = f"{token.name} is stored as a resumed stream, which cannot be resumed from"
            raise UnsupportedStream(msg)
        found = guid, base_guid, toname.partition(b"\0")[0]
        wanted = token.guid, token.base_guid or 0, token.name.encode()
        if found != wanted:
            self.stray(f"is {said(*found)}, not {said(*wanted)}")
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

    def _start(self, head: bytearray, repeated: list[bytearray]) -> Start:
        found = sum_of(head)
        if found == fletcher.ZERO:
            msg = f"{self._token.name} has no running checksums (it was sent before 2015): it cannot be resumed from"
            raise UnsupportedStream(msg)
        state = fletcher.summed(self._begin)
        for record in repeated:
            state = fletcher.summed(record[:SUM_AT], state)
            SUM_FIELDS.pack_into(record, SUM_AT, *state)
            state = fletcher.summed(record[SUM_AT:], state)
        self._found = True
        wanted = fletcher.summed(head[:SUM_AT], state)
        return Start([self._package, self._begin, *repeated], fletcher.difference(wanted, found))


def opening(start: bytes | bytearray) -> tuple[bytes, bytes] | None:
    """Find in the first bytes of a stored stream what a Rejoiner wants of its beginning.

    Returns: of a package, which a full or incremental with properties (-p) is too, its own BEGIN and END, else nothing;
    and, behind that, the BEGIN of the first or only stream, header and nvlist. None: more bytes are needed, at most
    twice limits.BEGIN_PAYLOAD_MAX and some headers. Raises: DamagedStream where no stream begins so.
    """
    at = 0
    while len(start) >= at + HEADER_SIZE:
        head = start[at : at + HEADER_SIZE]
        kind, magic, version, *_identity = BEGIN_FIELDS.unpack_from(head)
        size = HEADER_SIZE + (payload_length(head) or 0)
        if kind == RecordType.BEGIN and magic == MAGIC and size <= HEADER_SIZE + limits.BEGIN_PAYLOAD_MAX:
            if version & 3 == SUBSTREAM:
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
