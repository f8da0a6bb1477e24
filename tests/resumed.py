"""What `zfs send -t` would give for a stream that was cut: the yardstick for fullsend's splice, made without it.

It goes the long way that splice avoids: records are put together anew and summed anew, from BEGIN to END. Nothing that
fullsend_protocol computes is used; the sums are those of tests/data/load.py, and `Sums` remembers those of each stored
record, or a thousand cuts of one stream would take hours.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tests import streams
from tests.data.load import NOTHING, fletcher

from fullsend_protocol.stream.records import HEADER_SIZE, RecordType
from fullsend_protocol.stream.resume_token import ResumeToken, token_features
from fullsend_protocol.stream.splice import ResumePoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Four = tuple[int, ...]

SUM_AT: Final = 280
RESUMING: Final = 1 << 20 << 2


@dataclass(frozen=True)
class Sent:
    """One stream: plain, or inside a package. `records`: from its BEGIN to its END, places in `raw`.

    `last`: nothing follows but the closing END, or nothing at all.
    """

    raw: bytes
    records: list[streams.Record]
    compound: bool
    last: bool
    sums: Sums = field(init=False, repr=False)
    _points: list[int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sums", Sums())
        object.__setattr__(self, "_points", [index for index, record in enumerate(self.records) if record.key])

    def bytes_of(self, record: streams.Record) -> bytes:
        return self.raw[record.start : record.end]

    @property
    def begin(self) -> bytes:
        return self.bytes_of(self.records[0])

    @property
    def name(self) -> str:
        return self.begin[56:312].partition(b"\0")[0].decode()

    @property
    def guid(self) -> int:
        return int(struct.unpack_from("<Q", self.begin, 40)[0])

    @property
    def base_guid(self) -> int | None:
        return struct.unpack_from("<Q", self.begin, 48)[0] or None

    @property
    def features(self) -> int:
        return int(struct.unpack_from("<Q", self.begin, 16)[0]) >> 2

    @property
    def raw_send(self) -> bool:
        return bool(self.features >> 24 & 1)

    @property
    def end(self) -> int:
        return self.records[-1].end

    def points(self) -> list[int]:
        """The records that it can be resumed at, by index."""
        return self._points

    def kept(self, cut: int) -> int | None:
        """The record that a receiver keeps last of a stream that was cut there."""
        whole = bisect.bisect_right(self._points, cut, key=lambda index: self.records[index].end)
        return self._points[whole - 1] if whole else None

    def rest(self, index: int) -> bytes:
        """What an uninterrupted send has after this record, the closing END included."""
        return self.raw[self.records[index].end :] if self.last else self.raw[self.records[index].end : self.end]

    def point(self, index: int) -> ResumePoint:
        return point(self.bytes_of(self.records[index]))

    def token(self, key: tuple[int, int]) -> ResumeToken:
        """The token of a target that has written it up to the record with this key."""
        return ResumeToken(self.name, self.guid, self.base_guid, *key, token_features(self.features))


def sent(raw: bytes) -> list[Sent]:
    """Take a stream apart: a package into the streams in it."""
    records = streams.split(raw)
    compound = raw[16] & 3 == 2
    if not compound:
        return [Sent(raw, records, compound=False, last=True)]
    inside = records[2:-1]
    borders = [0, *(at + 1 for at, record in enumerate(inside) if record.kind is RecordType.END)]
    return [
        Sent(raw, inside[start:stop], compound=True, last=stop == len(inside))
        for start, stop in itertools.pairwise(borders)
    ]


def point(record: bytes) -> ResumePoint:
    return ResumePoint(record[:HEADER_SIZE], hashlib.sha256(record[HEADER_SIZE:]).digest())


# --- sums --------------------------------------------------------------------------------------------------------


class Sums:
    """Running sums over records, each payload summed once: a sum from zero, and what goes before it by its length."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], Four] = {}

    def over(self, state: Four, part: bytes | memoryview, key: tuple[int, int]) -> Four:
        """Resume over `part`, which is always the same for the same key."""
        own = self._known.get(key)
        if own is None:
            own = self._known[key] = fletcher(bytes(part), NOTHING)
        return _joined(state, own, len(part) // 4)


def _joined(state: Four, own: Four, n: int) -> Four:
    """The sums over n words that are `own` from zero, after those that gave `state`."""
    a, b, c, d = state
    own_a, own_b, own_c, own_d = own
    n2 = n * (n + 1) // 2
    n3 = n2 * (n + 2) // 3
    return (
        (a + own_a) % 2**64,
        (b + n * a + own_b) % 2**64,
        (c + n * b + n2 * a + own_c) % 2**64,
        (d + n * c + n2 * b + n3 * a + own_d) % 2**64,
    )


def stream_of(begin: bytes, records: Iterable[bytes]) -> bytes:
    """Put BEGIN and records together, with the sums that `zfs send` would have put into them. Slow: all is summed."""
    pieces, state = [begin], fletcher(begin, NOTHING)
    for record in records:
        head, payload = bytearray(record[:HEADER_SIZE]), record[HEADER_SIZE:]
        if head[0] == RecordType.END:
            struct.pack_into("<4Q", head, 8, *state)
        state = fletcher(head[:SUM_AT], state)
        struct.pack_into("<4Q", head, SUM_AT, *state)
        state = fletcher(payload, fletcher(head[SUM_AT:], state))
        pieces += [bytes(head), payload]
    return b"".join(pieces)


def summed(begin: bytes, records: Iterable[bytes]) -> bytes:
    """The same as `stream_of`, each payload summed once however often it comes."""
    pieces, state = [begin], fletcher(begin, NOTHING)
    known: dict[bytes, Four] = {}
    for record in records:
        head, payload = bytearray(record[:HEADER_SIZE]), record[HEADER_SIZE:]
        if head[0] == RecordType.END:
            struct.pack_into("<4Q", head, 8, *state)
        state = fletcher(head[:SUM_AT], state)
        struct.pack_into("<4Q", head, SUM_AT, *state)
        own = known.get(payload)
        if own is None:
            own = known[payload] = fletcher(payload, NOTHING)
        state = _joined(fletcher(head[SUM_AT:], state), own, len(payload) // 4)
        pieces += [bytes(head), payload]
    return b"".join(pieces)


def quick_pieces_of(begin: bytes, of: Sent, indices: Iterable[int]) -> Iterator[bytes | memoryview]:
    """The same of the stored records with these indices, in pieces, without summing a payload twice."""
    yield begin
    raw = memoryview(of.raw)
    state = fletcher(begin, NOTHING)
    for index in indices:
        record = of.records[index]
        head = bytearray(raw[record.start : record.start + HEADER_SIZE])
        payload = raw[record.start + HEADER_SIZE : record.end]
        if head[0] == RecordType.END:
            struct.pack_into("<4Q", head, 8, *state)
            state = fletcher(head[:SUM_AT], state)
        else:
            state = of.sums.over(state, raw[record.start : record.start + SUM_AT], (index, 0))
        struct.pack_into("<4Q", head, SUM_AT, *state)
        a, b, c, d = state
        for word in struct.unpack_from("<8I", head, SUM_AT):
            a += word
            b += a
            c += b
            d += c
        state = of.sums.over((a, b, c, d), payload, (index, 1))
        yield bytes(head)
        yield payload


def wrong_sums(raw: bytes) -> list[int]:
    """Sum a stream that is no package, and name the records (by index) whose sums are not right."""
    wrong = []
    state: Four = NOTHING
    for index, record in enumerate(streams.split(raw)):
        whole = raw[record.start : record.end]
        if record.kind is RecordType.BEGIN:
            state = fletcher(whole, NOTHING)
            continue
        before, state = state, fletcher(whole[:SUM_AT], state)
        said = struct.unpack_from("<4Q", whole, SUM_AT)
        if said != state or (record.kind is RecordType.END and struct.unpack_from("<4Q", whole, 8) != before):
            wrong.append(index)
        state = fletcher(whole[SUM_AT:], said)  # as the next record has it
    return wrong


# --- zfs send -t -------------------------------------------------------------------------------------------------


def resuming_begin(of: Sent, key: tuple[int, int]) -> bytes:
    """BEGIN of the resumed stream: RESUMING, and where it begins in front of what the nvlist had."""
    said = streams.native({"resume_object": key[0], "resume_offset": key[1]})
    begin = of.begin
    payload = said[:-4] + begin[HEADER_SIZE + 12 :] if len(begin) > HEADER_SIZE else said
    head = bytearray(begin[:HEADER_SIZE])
    (version,) = struct.unpack_from("<Q", head, 16)
    struct.pack_into("<I", head, 4, len(payload))
    struct.pack_into("<Q", head, 16, version | RESUMING)
    return bytes(head) + payload


def opening(of: Sent, index: int) -> list[int]:
    """The records before this one that `zfs send -t` repeats at least: OBJECT_RANGE (raw), OBJECT, and its FREE."""
    key = of.records[index].key
    assert key is not None
    found: list[int] = []
    for at in range(1, index):
        record = of.records[at]
        if of.raw_send and record.kind is RecordType.OBJECT_RANGE:
            found = [at]
        elif record.kind is RecordType.OBJECT and record.key == (key[0], 0):
            found.append(at)
            behind = of.records[at + 1]
            if behind.kind is RecordType.FREE and at + 1 < index:
                found.append(at + 1)
    return found


def send_t(of: Sent, index: int, repeated: int = 0) -> bytes:
    """What `zfs send -t` gives where record `index` was the last, in one piece."""
    return b"".join(send_t_pieces(of, index, repeated))


def send_t_pieces(of: Sent, index: int, repeated: int = 0) -> Iterator[bytes | memoryview]:
    """What `zfs send -t` gives where record `index` was the last. `repeated`: so many, up to that, and no others."""
    key = of.records[index].key
    assert key is not None
    before = opening(of, index) if not repeated else list(range(max(1, index - repeated + 1), index))
    return quick_pieces_of(resuming_begin(of, key), of, [*before, *range(index, len(of.records))])
