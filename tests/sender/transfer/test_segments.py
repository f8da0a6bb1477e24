from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.sender.peer import segments_of

from fullsend_protocol.format.manifest import Segment
from fullsend_protocol.shared.errors import ChunkError, ErrorCode, PeerError, StreamError
from fullsend_protocol.stream.chunks import Compressor, SegmentHash
from fullsend_protocol.wire.connection import Chunk
from fullsend_sender.transfer.segments import CannotResume, DifferentBytes, Hashed, Ready, Segments, starts_over
from fullsend_sender.transfer.window import Window

#: A stream, as far as its chunks go, and where its chunks end: odd sizes, none of which is another's.
SIZES = [100, 37, 250, 1, 64, 99, 180, 12, 77, 140]
ENDS = [sum(SIZES[: at + 1]) for at in range(len(SIZES))]
RAW = random.Random(1).randbytes(ENDS[-1])


class Sending:
    """A window and the segments of one stream, as Transfer uses them."""

    def __init__(self) -> None:
        self.window = Window()
        self.segments = Segments()

    async def send(self, ready: Ready) -> Chunk:
        await self.window.keep(ready)
        return await self.segments.to_send(ready)

    def acknowledge(self, offset: int) -> None:
        self.window.acknowledge(offset)
        self.segments.acknowledge(offset)

    def resume(self, offset: int, segments: Sequence[Segment]) -> None:
        self.segments.resume(offset, segments)
        self.window.acknowledge(offset)


class Reader:
    """The pipeline: it hashes ahead of what is sent."""

    def __init__(self, segments: Segments, start: int = 0) -> None:
        self._segments = segments
        self._compressor = Compressor(1)
        self.read = ENDS.index(start) + 1 if start else 0
        segments.begin(start)

    def __next__(self) -> Ready:
        end = ENDS[self.read]
        start = end - SIZES[self.read]
        part = RAW[start:end]
        for piece in (part[:10], part[10:]):
            self._segments.update(piece)
        hashed = self._segments.close()
        assert hashed is not None
        self.read += 1
        chunk = Chunk(start, len(part), hashed.sha256, self._compressor.compress(part), hashed.starts_segment)
        return Ready(chunk, hashed.before)


class Receiver:
    """What a receiver makes of the chunks: each connection begins a segment; what is not durable is lost with it."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, bool]] = []  # (end, starts a segment)
        self._segment: SegmentHash | None = None

    @property
    def end(self) -> int:
        return self.entries[-1][0] if self.entries else 0

    def take(self, chunk: Chunk) -> None:
        assert chunk.raw_offset == self.end
        if self._segment is None:
            assert chunk.starts_segment
        if chunk.starts_segment or self._segment is None:
            self._segment = SegmentHash(chunk.raw_offset)
        end = chunk.raw_offset + chunk.raw_length
        assert self._segment.update(RAW[chunk.raw_offset : end]) == chunk.sha256
        self.entries.append((end, chunk.starts_segment))

    def lose(self, durable: int) -> None:
        self.entries = [entry for entry in self.entries if entry[0] <= durable]
        self._segment = None

    @property
    def segments(self) -> list[Segment]:
        """Computed from the raw bytes."""
        ends = [before for (before, _), (_, starts) in itertools.pairwise(self.entries) if starts]
        return segments_of(RAW, *ends, self.end) if self.entries else []


async def sent(count: int) -> tuple[Sending, Reader, Receiver]:
    """So many chunks have been sent."""
    sending, receiver = Sending(), Receiver()
    reader = Reader(sending.segments)
    for _chunk in range(count):
        receiver.take(await sending.send(next(reader)))
    return sending, reader, receiver


def reconnect(sending: Sending, receiver: Receiver, durable: int) -> None:
    receiver.lose(durable)
    sending.resume(durable, receiver.segments)


# --- proof -----------------------------------------------------------------------------------------------------


async def test_nothing_sent_has_no_proof() -> None:
    assert Segments().proof == []


async def test_all_that_was_sent_in_one_go_is_one_segment() -> None:
    sending, _reader, _receiver = await sent(5)
    assert sending.segments.proof == segments_of(RAW, ENDS[4])
    sending.acknowledge(ENDS[4])
    assert sending.segments.proof == segments_of(RAW, ENDS[4])


async def test_what_has_arrived_before_comes_first() -> None:
    sending, known = Sending(), segments_of(RAW, ENDS[0], ENDS[2])
    sending.segments.start(known)
    assert sending.segments.proof == known
    reader = Reader(sending.segments, ENDS[2])
    await sending.send(next(reader))
    await sending.send(next(reader))
    assert sending.segments.proof == segments_of(RAW, ENDS[0], ENDS[2], ENDS[4])
    sending.resume(ENDS[3], segments_of(RAW, ENDS[0], ENDS[2], ENDS[3]))
    sending.resume(ENDS[3], segments_of(RAW, ENDS[0], ENDS[2], ENDS[3]))
    assert [ready.chunk.raw_offset for ready in sending.window.unacknowledged] == [ENDS[3]]


async def test_resuming_right_where_the_earlier_run_ended() -> None:
    sending, known = Sending(), segments_of(RAW, ENDS[0], ENDS[2])
    sending.segments.start(known)
    reader = Reader(sending.segments, ENDS[2])
    await sending.send(next(reader))
    sending.resume(ENDS[2], known)
    (ready,) = sending.window.unacknowledged
    chunk = await sending.segments.to_send(ready)
    assert chunk.starts_segment
    assert sending.segments.proof == segments_of(RAW, ENDS[0], ENDS[2], ENDS[3])


@pytest.mark.parametrize("acknowledged", [0, *ENDS[:3]])
@pytest.mark.parametrize("durable", [0, *ENDS[:5]])
async def test_resuming_at_every_mark(acknowledged: int, durable: int) -> None:
    sending, reader, receiver = await sent(5)
    sending.acknowledge(acknowledged)
    if durable < acknowledged:
        receiver.lose(durable)
        with pytest.raises(CannotResume, match=f"it has {durable} bytes: it has lost what it had acknowledged"):
            sending.resume(durable, receiver.segments)
        return
    next_two = next(reader), next(reader)  # hashed before the loss was noticed
    reconnect(sending, receiver, durable)
    for ready in sending.window.unacknowledged:
        receiver.take(await sending.segments.to_send(ready))
    for ready in (*next_two, next(reader), next(reader), next(reader)):
        receiver.take(await sending.send(ready))
    assert receiver.end == len(RAW)
    assert sending.segments.proof == receiver.segments


@pytest.mark.parametrize("offset", [1, ENDS[0] - 1, ENDS[1] + 1, ENDS[4] + 1, ENDS[-1], 1 << 40])
async def test_an_offset_at_which_no_chunk_ended(offset: int) -> None:
    sending, _reader, _receiver = await sent(5)
    with pytest.raises(CannotResume, match="it has lost what it had acknowledged"):
        sending.resume(offset, segments_of(RAW, offset))


def other_hash(segments: Sequence[Segment]) -> list[Segment]:
    return [*segments[:-1], segments[-1].model_copy(update={"sha256": "00" * 32})]


def in_two(segments: Sequence[Segment]) -> list[Segment]:
    return segments_of(RAW, ENDS[1], segments[-1].end)


@pytest.mark.parametrize("lie", [other_hash, in_two, lambda segments: []])
async def test_segments_that_are_not_ours(lie: Callable[[Sequence[Segment]], list[Segment]]) -> None:
    sending, _reader, _receiver = await sent(5)
    with pytest.raises(CannotResume, match=f"the {ENDS[2]} bytes that the receiver says it has are not those"):
        sending.resume(ENDS[2], lie(segments_of(RAW, ENDS[2])))


async def test_segments_of_before_an_earlier_reconnect_that_have_changed() -> None:
    sending, reader, receiver = await sent(3)
    reconnect(sending, receiver, ENDS[2])
    await sending.send(next(reader))
    changed = segments_of(RAW[:1] + bytes([RAW[1] ^ 1]) + RAW[2:], ENDS[2], ENDS[3])
    with pytest.raises(CannotResume, match="are not those that were sent"):
        sending.resume(ENDS[3], changed)


# --- hashing anew ----------------------------------------------------------------------------------------------


async def test_a_segment_that_the_reader_begins_ends_the_hashing_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    sending, reader, receiver = await sent(2)
    anew: list[int] = []
    hash_anew = sending.segments._hash_anew

    def noted(ready: Ready, segment: SegmentHash) -> Chunk:
        anew.append(ready.chunk.raw_offset)
        return hash_anew(ready, segment)

    monkeypatch.setattr(sending.segments, "_hash_anew", noted)
    ahead = next(reader)
    reconnect(sending, receiver, ENDS[0])
    for ready in sending.window.unacknowledged:
        receiver.take(await sending.segments.to_send(ready))
    for ready in (ahead, *(next(reader) for _chunk in range(4))):
        receiver.take(await sending.send(ready))
    # The chunk that the reader was amid when it was told still belongs to the segment that it was hashing.
    assert anew == [ENDS[0], ENDS[1], ENDS[2]]
    assert sending.segments.proof == receiver.segments == segments_of(RAW, ENDS[0], ENDS[3], ENDS[6])


async def test_a_second_loss_while_hashing_anew() -> None:
    sending, reader, receiver = await sent(5)
    ahead = [next(reader) for _chunk in range(2)]
    reconnect(sending, receiver, ENDS[1])
    for ready in sending.window.unacknowledged[:2]:
        receiver.take(await sending.segments.to_send(ready))
    reconnect(sending, receiver, ENDS[2])
    for ready in sending.window.unacknowledged:
        receiver.take(await sending.segments.to_send(ready))
    for ready in (*ahead, *(next(reader) for _chunk in range(3))):
        receiver.take(await sending.send(ready))
    assert sending.segments.proof == receiver.segments == segments_of(RAW, ENDS[1], ENDS[2], ENDS[7], ENDS[9])


async def test_nothing_left_to_send_after_the_loss() -> None:
    sending, _reader, receiver = await sent(5)
    reconnect(sending, receiver, ENDS[4])
    assert sending.window.unacknowledged == []
    assert sending.segments.proof == receiver.segments == segments_of(RAW, ENDS[4])


def changed_frame(ready: Ready) -> Ready:
    """As if memory had changed a byte before it was compressed, or the frame had been swapped for another."""
    chunk = ready.chunk
    raw = bytearray(RAW[chunk.raw_offset : chunk.raw_offset + chunk.raw_length])
    raw[-1] ^= 1
    return replace(ready, chunk=replace(chunk, frame=Compressor(1).compress(raw)))


def flipped_frame(ready: Ready) -> Ready:
    frame = bytearray(ready.chunk.frame)
    frame[len(frame) // 2] ^= 1
    return replace(ready, chunk=replace(ready.chunk, frame=bytes(frame)))


@pytest.mark.parametrize("spoil", [changed_frame, flipped_frame])
async def test_a_frame_that_memory_has_changed_is_never_proven(spoil: Callable[[Ready], Ready]) -> None:
    sending, _reader, _receiver = await sent(3)
    sending.window._chunks[2] = spoil(sending.window._chunks[2])
    sending.resume(ENDS[0], segments_of(RAW, ENDS[0]))
    first, second = sending.window.unacknowledged
    await sending.segments.to_send(first)
    with pytest.raises(ChunkError):
        await sending.segments.to_send(second)
    assert sending.segments.proof == segments_of(RAW, ENDS[0], ENDS[1])


async def test_what_memory_has_changed_is_said() -> None:
    sending, _reader, _receiver = await sent(2)
    sending.window._chunks[1] = changed_frame(sending.window._chunks[1])
    sending.resume(ENDS[0], segments_of(RAW, ENDS[0]))
    with pytest.raises(ChunkError, match=f"the chunk at {ENDS[0]} is not what it was .*: check this host's memory"):
        await sending.segments.to_send(sending.window.unacknowledged[0])


async def test_cancelled_while_hashing_anew() -> None:
    """The hash contains the chunk, and is not continued; the next connection begins another one."""
    sending, _reader, receiver = await sent(3)
    reconnect(sending, receiver, ENDS[0])
    hashing = asyncio.create_task(sending.segments.to_send(sending.window.unacknowledged[0]))
    await asyncio.sleep(0)
    hashing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hashing
    assert sending.segments.proof == segments_of(RAW, ENDS[0])
    reconnect(sending, receiver, ENDS[0])
    for ready in sending.window.unacknowledged:
        receiver.take(await sending.segments.to_send(ready))
    assert sending.segments.proof == receiver.segments == segments_of(RAW, ENDS[0], ENDS[2])


# --- what had arrived before -----------------------------------------------------------------------------------


def replayed(raw: bytes, known: Sequence[Segment]) -> list[Hashed | None]:
    """What becomes of the chunks of a stream that is read again from its first byte on."""
    segments = Segments()
    segments.begin(0)
    segments.start(known)
    found = []
    for start, end in itertools.pairwise([0, *(end for end in ENDS if end <= len(raw))]):
        segments.update(raw[start:end])
        found.append(segments.close())
    segments.finish()
    return found


@pytest.mark.parametrize("borders", [[ENDS[0]], [ENDS[3]], [ENDS[0], ENDS[1], ENDS[3]]])
def test_what_had_arrived_is_compared_and_what_follows_is_a_segment_of_its_own(borders: list[int]) -> None:
    found = replayed(RAW, segments_of(RAW, *borders))
    assert found[: ENDS.index(borders[-1]) + 1] == [None] * (ENDS.index(borders[-1]) + 1)
    first, *rest = [each for each in found if each is not None]
    assert first.starts_segment
    assert not any(each.starts_segment for each in rest)
    assert rest[-1].sha256.hex() == segments_of(RAW, borders[-1], len(RAW))[-1].sha256


@pytest.mark.parametrize("at", [0, ENDS[1] - 1, ENDS[1], ENDS[3] - 1])
def test_one_other_byte_is_noticed(at: int) -> None:
    other = RAW[:at] + bytes([RAW[at] ^ 1]) + RAW[at + 1 :]
    with pytest.raises(DifferentBytes, match="are not those that arrived before"):
        replayed(other, segments_of(RAW, ENDS[1], ENDS[3]))


def test_a_segment_that_ends_amid_a_chunk_is_another_stream() -> None:
    with pytest.raises(DifferentBytes, match=f"the bytes 0 to {ENDS[1] - 1} are not those"):
        replayed(RAW, segments_of(RAW, ENDS[1] - 1))


def test_a_stream_that_is_shorter_than_what_had_arrived_is_another() -> None:
    with pytest.raises(DifferentBytes, match=f"the stream has {ENDS[1]} bytes, and {ENDS[3]} had arrived before"):
        replayed(RAW[: ENDS[1]], segments_of(RAW, ENDS[3]))


def test_what_is_read_from_where_the_earlier_run_ended_is_compared_with_nothing() -> None:
    segments = Segments()
    segments.start(segments_of(RAW, ENDS[0], ENDS[2]))
    ready = next(Reader(segments, ENDS[2]))
    assert ready.chunk.starts_segment
    segments.finish()


# --- whatever happens ------------------------------------------------------------------------------------------


@given(
    steps=st.lists(
        st.one_of(
            st.just(("read",)),
            st.just(("send",)),
            st.tuples(st.just("acknowledge"), st.integers(0, len(ENDS))),
            st.tuples(st.just("lose"), st.integers(0, len(ENDS))),
        ),
        max_size=60,
    )
)
def test_segments_are_those_of_the_raw_bytes_whatever_happens(steps: list[tuple[Any, ...]]) -> None:
    asyncio.run(_happens(steps))


async def _happens(steps: list[tuple[Any, ...]]) -> None:
    sending, receiver = Sending(), Receiver()
    reader = Reader(sending.segments)
    ahead: list[Ready] = []  # read, and not kept yet
    again: list[Ready] = []  # to be sent again
    acknowledged = 0

    async def send_one() -> None:
        if again:
            receiver.take(await sending.segments.to_send(again.pop(0)))
            return
        if not ahead and reader.read < len(ENDS):
            ahead.append(next(reader))
        if ahead:
            receiver.take(await sending.send(ahead.pop(0)))

    for what, *number in steps:
        arrived = [0, *(end for end, _starts in receiver.entries)]
        durable = max(acknowledged, arrived[min(number[0], len(arrived) - 1)]) if number else 0
        match what:
            case "read" if reader.read < len(ENDS):
                ahead.append(next(reader))
            case "send":
                await send_one()
            case "acknowledge":
                acknowledged = durable
                sending.acknowledge(durable)
            case "lose":
                acknowledged = durable
                reconnect(sending, receiver, durable)
                again = sending.window.unacknowledged
        assert sending.segments.proof == receiver.segments
    while receiver.end < len(RAW):
        await send_one()
    assert sending.segments.proof == receiver.segments
    sending.acknowledge(len(RAW))
    assert sending.window.unacknowledged == []


def test_only_what_makes_useless_what_had_arrived_starts_a_stream_over() -> None:
    useless = [DifferentBytes("x"), CannotResume("x"), PeerError(ErrorCode.PARTIAL, "x")]
    others = [PeerError(ErrorCode.BASE, "x"), PeerError(ErrorCode.STORE, "x"), StreamError("x"), OSError(5, "x")]
    assert [starts_over(each) for each in (*useless, *others)] == [True] * 3 + [False] * 4
