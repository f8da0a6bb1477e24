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
from fullsend_protocol.shared.errors import ChunkError
from fullsend_protocol.stream.chunks import Compressor, SegmentHash
from fullsend_protocol.wire.connection import Chunk
from fullsend_sender.transfer.pipeline import Ready
from fullsend_sender.transfer.window import WINDOW, CannotGoOn, Window

#: A stream, as far as a window looks at it, and where its chunks end: odd sizes, none of which is another's.
SIZES = [100, 37, 250, 1, 64, 99, 180, 12, 77, 140]
ENDS = [sum(SIZES[: at + 1]) for at in range(len(SIZES))]
RAW = random.Random(1).randbytes(ENDS[-1])


class Reader:
    """The pipeline, as far as a window sees it: it hashes ahead of what is sent; begins segments when it is told."""

    def __init__(self, start: int = 0) -> None:
        self._segment = SegmentHash(start)
        self._new = False
        self._compressor = Compressor(1)
        self.read = ENDS.index(start) + 1 if start else 0

    def __next__(self) -> Ready:
        end = ENDS[self.read]
        start = end - SIZES[self.read]
        before = self._segment.copy()
        part = RAW[start:end]
        digest = self._segment.update(part)
        self.read += 1
        if self._new:
            self._new, self._segment = False, SegmentHash(end)
        chunk = Chunk(start, len(part), digest, self._compressor.compress(part), before.end == before.start)
        return Ready(chunk, before)

    def start_segment(self) -> None:
        self._new = True


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


async def send(window: Window, ready: Ready) -> Chunk:
    await window.keep(ready)
    return await window.to_send(ready)


async def sent(count: int) -> tuple[Window, Reader, Receiver]:
    """A window through which so many chunks have gone."""
    window, reader, receiver = Window(), Reader(), Receiver()
    for _chunk in range(count):
        receiver.take(await send(window, next(reader)))
    return window, reader, receiver


async def reconnected(window: Window, reader: Reader, receiver: Receiver, durable: int) -> None:
    receiver.lose(durable)
    window.go_on(durable, receiver.segments)
    reader.start_segment()


# --- bounds ----------------------------------------------------------------------------------------------------


def frame_of(ready: Ready) -> int:
    return len(ready.chunk.frame)


async def waits(waiting: asyncio.Task[None]) -> bool:
    for _turn in range(5):
        await asyncio.sleep(0)
    return not waiting.done()


def test_the_limit_is_more_than_a_batch_of_the_receiver() -> None:
    """And no more than the design allows."""
    assert 32 << 20 < WINDOW <= 64 << 20


async def test_keeping_waits_for_room() -> None:
    reader = Reader()
    first, second, third = (next(reader) for _chunk in range(3))
    window = Window(frame_of(first) + frame_of(second))
    await window.keep(first)
    await window.keep(second)
    waiting = asyncio.create_task(window.keep(third))
    assert await waits(waiting)
    window.acknowledge(ENDS[0] - 1)  # not all of it
    assert await waits(waiting)
    window.acknowledge(ENDS[0])
    assert await waits(waiting)  # the third is larger than the first
    window.acknowledge(ENDS[1])
    await waiting
    assert window.unacknowledged == [third]


async def test_one_chunk_that_is_larger_than_the_limit_has_room() -> None:
    reader = Reader()
    window = Window(1)
    await window.keep(next(reader))
    waiting = asyncio.create_task(window.keep(next(reader)))
    assert await waits(waiting)
    window.acknowledge(ENDS[0])
    await waiting


async def test_a_chunk_is_kept_also_where_the_waiting_is_cancelled() -> None:
    reader = Reader()
    window = Window(1)
    first, second = next(reader), next(reader)
    await window.keep(first)
    waiting = asyncio.create_task(window.keep(second))
    assert await waits(waiting)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert window.unacknowledged == [first, second]


async def test_what_is_acknowledged_is_let_go_of() -> None:
    window, _reader, _receiver = await sent(4)
    offsets = [ready.chunk.raw_offset for ready in window.unacknowledged]
    assert offsets == [0, *ENDS[:3]]
    for offset, left in ((0, 4), (ENDS[1], 2), (ENDS[2] - 1, 2), (ENDS[2], 1), (ENDS[3], 0)):
        window.acknowledge(offset)
        assert len(window.unacknowledged) == left
    assert window._used == 0


# --- proof -----------------------------------------------------------------------------------------------------


async def test_nothing_sent_has_no_proof() -> None:
    assert Window().segments == []


async def test_all_that_was_sent_in_one_go_is_one_segment() -> None:
    window, _reader, _receiver = await sent(5)
    assert window.segments == segments_of(RAW, ENDS[4])
    window.acknowledge(ENDS[4])
    assert window.segments == segments_of(RAW, ENDS[4])


async def test_what_has_arrived_before_comes_first() -> None:
    window, known = Window(), segments_of(RAW, ENDS[0], ENDS[2])
    window.start(known)
    assert window.segments == known
    reader = Reader(ENDS[2])
    await send(window, next(reader))
    await send(window, next(reader))
    assert window.segments == segments_of(RAW, ENDS[0], ENDS[2], ENDS[4])
    window.go_on(ENDS[3], segments_of(RAW, ENDS[0], ENDS[2], ENDS[3]))
    window.go_on(ENDS[3], segments_of(RAW, ENDS[0], ENDS[2], ENDS[3]))
    assert [ready.chunk.raw_offset for ready in window.unacknowledged] == [ENDS[3]]


async def test_going_on_right_where_the_earlier_run_ended() -> None:
    window, known = Window(), segments_of(RAW, ENDS[0], ENDS[2])
    window.start(known)
    reader = Reader(ENDS[2])
    await send(window, next(reader))
    window.go_on(ENDS[2], known)
    (ready,) = window.unacknowledged
    chunk = await window.to_send(ready)
    assert chunk.starts_segment
    assert window.segments == segments_of(RAW, ENDS[0], ENDS[2], ENDS[3])


@pytest.mark.parametrize("acknowledged", [0, *ENDS[:3]])
@pytest.mark.parametrize("durable", [0, *ENDS[:5]])
async def test_going_on_at_every_mark(acknowledged: int, durable: int) -> None:
    window, reader, receiver = await sent(5)
    window.acknowledge(acknowledged)
    if durable < acknowledged:
        receiver.lose(durable)
        with pytest.raises(CannotGoOn, match=f"it has {durable} bytes: it has lost what it had acknowledged"):
            window.go_on(durable, receiver.segments)
        return
    next_two = next(reader), next(reader)  # hashed before the loss was noticed
    await reconnected(window, reader, receiver, durable)
    for ready in window.unacknowledged:
        receiver.take(await window.to_send(ready))
    for ready in (*next_two, next(reader), next(reader), next(reader)):
        receiver.take(await send(window, ready))
    assert receiver.end == len(RAW)
    assert window.segments == receiver.segments


@pytest.mark.parametrize("offset", [1, ENDS[0] - 1, ENDS[1] + 1, ENDS[4] + 1, ENDS[-1], 1 << 40])
async def test_an_offset_at_which_no_chunk_ended(offset: int) -> None:
    window, _reader, _receiver = await sent(5)
    with pytest.raises(CannotGoOn, match="it has lost what it had acknowledged"):
        window.go_on(offset, segments_of(RAW, offset))


def other_hash(segments: Sequence[Segment]) -> list[Segment]:
    return [*segments[:-1], segments[-1].model_copy(update={"sha256": "00" * 32})]


def in_two(segments: Sequence[Segment]) -> list[Segment]:
    return segments_of(RAW, ENDS[1], segments[-1].end)


@pytest.mark.parametrize("lie", [other_hash, in_two, lambda segments: []])
async def test_segments_that_are_not_ours(lie: Callable[[Sequence[Segment]], list[Segment]]) -> None:
    window, _reader, _receiver = await sent(5)
    with pytest.raises(CannotGoOn, match=f"the {ENDS[2]} bytes that the receiver says it has are not those"):
        window.go_on(ENDS[2], lie(segments_of(RAW, ENDS[2])))


async def test_segments_of_before_an_earlier_reconnect_that_have_changed() -> None:
    window, reader, receiver = await sent(3)
    await reconnected(window, reader, receiver, ENDS[2])
    await send(window, next(reader))
    changed = segments_of(RAW[:1] + bytes([RAW[1] ^ 1]) + RAW[2:], ENDS[2], ENDS[3])
    with pytest.raises(CannotGoOn, match="are not those that were sent"):
        window.go_on(ENDS[3], changed)


# --- hashing anew ----------------------------------------------------------------------------------------------


async def test_a_segment_that_the_reader_begins_ends_the_hashing_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    window, reader, receiver = await sent(2)
    anew: list[int] = []
    hash_anew = window._hash_anew

    def noted(ready: Ready, segment: SegmentHash) -> Chunk:
        anew.append(ready.chunk.raw_offset)
        return hash_anew(ready, segment)

    monkeypatch.setattr(window, "_hash_anew", noted)
    ahead = next(reader)
    await reconnected(window, reader, receiver, ENDS[0])
    for ready in window.unacknowledged:
        receiver.take(await window.to_send(ready))
    for ready in (ahead, *(next(reader) for _chunk in range(4))):
        receiver.take(await send(window, ready))
    # The chunk that the reader was amid when it was told still belongs to the segment that it was hashing.
    assert anew == [ENDS[0], ENDS[1], ENDS[2]]
    assert window.segments == receiver.segments == segments_of(RAW, ENDS[0], ENDS[3], ENDS[6])


async def test_a_second_loss_while_hashing_anew() -> None:
    window, reader, receiver = await sent(5)
    ahead = [next(reader) for _chunk in range(2)]
    await reconnected(window, reader, receiver, ENDS[1])
    for ready in window.unacknowledged[:2]:
        receiver.take(await window.to_send(ready))
    await reconnected(window, reader, receiver, ENDS[2])
    for ready in window.unacknowledged:
        receiver.take(await window.to_send(ready))
    for ready in (*ahead, *(next(reader) for _chunk in range(3))):
        receiver.take(await send(window, ready))
    assert window.segments == receiver.segments == segments_of(RAW, ENDS[1], ENDS[2], ENDS[7], ENDS[9])


async def test_nothing_left_to_send_after_the_loss() -> None:
    window, reader, receiver = await sent(5)
    await reconnected(window, reader, receiver, ENDS[4])
    assert window.unacknowledged == []
    assert window.segments == receiver.segments == segments_of(RAW, ENDS[4])


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
    window, _reader, _receiver = await sent(3)
    window._chunks[2] = spoil(window._chunks[2])
    window.go_on(ENDS[0], segments_of(RAW, ENDS[0]))
    first, second = window.unacknowledged
    await window.to_send(first)
    with pytest.raises(ChunkError):
        await window.to_send(second)
    assert window.segments == segments_of(RAW, ENDS[0], ENDS[1])


async def test_what_memory_has_changed_is_said() -> None:
    window, _reader, _receiver = await sent(2)
    window._chunks[1] = changed_frame(window._chunks[1])
    window.go_on(ENDS[0], segments_of(RAW, ENDS[0]))
    with pytest.raises(ChunkError, match=f"the chunk at {ENDS[0]} is not what it was .*: check this host's memory"):
        await window.to_send(window.unacknowledged[0])


async def test_cancelled_while_hashing_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hash includes the chunk, and nothing continues it; the next connection begins another."""
    window, reader, receiver = await sent(3)
    await reconnected(window, reader, receiver, ENDS[0])
    sending = asyncio.create_task(window.to_send(window.unacknowledged[0]))
    await asyncio.sleep(0)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert window.segments == segments_of(RAW, ENDS[0])
    await reconnected(window, reader, receiver, ENDS[0])
    for ready in window.unacknowledged:
        receiver.take(await window.to_send(ready))
    assert window.segments == receiver.segments == segments_of(RAW, ENDS[0], ENDS[2])


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
    window, reader, receiver = Window(), Reader(), Receiver()
    ahead: list[Ready] = []  # read, and not kept yet
    again: list[Ready] = []  # to be sent again
    acknowledged = 0

    async def send_one() -> None:
        if again:
            receiver.take(await window.to_send(again.pop(0)))
            return
        if not ahead and reader.read < len(ENDS):
            ahead.append(next(reader))
        if ahead:
            receiver.take(await send(window, ahead.pop(0)))

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
                window.acknowledge(durable)
            case "lose":
                acknowledged = durable
                await reconnected(window, reader, receiver, durable)
                again = window.unacknowledged
        assert window.segments == receiver.segments
    while receiver.end < len(RAW):
        await send_one()
    assert window.segments == receiver.segments
    window.acknowledge(len(RAW))
    assert window.unacknowledged == []
