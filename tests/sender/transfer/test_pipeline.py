from __future__ import annotations

import asyncio
import hashlib
import os
import random
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests import streams
from tests.sender.peer import chunks_of, segments_of

from fullsend_protocol.format.manifest import Segment
from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import (
    DamagedStream,
    IncompleteStream,
    NotASendStream,
    StreamError,
    TrailingBytes,
    UnsupportedStream,
)
from fullsend_protocol.stream.chunks import LEVEL_DEFAULT, LIGHT, Decompressor
from fullsend_protocol.stream.records import Feature, Phase, Walker, WalkerState
from fullsend_protocol.wire.connection import Chunk
from fullsend_sender.transfer.buffers import FIRST
from fullsend_sender.transfer.memory import raw_in_flight
from fullsend_sender.transfer.pipeline import Pipeline, Skipped
from fullsend_sender.transfer.pipes import Source
from fullsend_sender.transfer.segments import DifferentBytes, Ready


@asynccontextmanager
async def flowing(*parts: bytes, hold: bool = False) -> AsyncGenerator[int]:
    """A pipe out of which these bytes come; with `hold` its other end stays open at their end."""
    read, write = os.pipe()
    cancelled = threading.Event()

    def feed() -> None:
        try:
            for part in parts:
                view = memoryview(part)
                while view:
                    view = view[os.write(write, view) :]
            if hold:
                cancelled.wait()
        except BrokenPipeError:
            pass
        finally:
            os.close(write)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        yield read
    finally:
        os.close(read)
        cancelled.set()
        await asyncio.to_thread(feeder.join)


async def run(raw: bytes, *, known: Sequence[Segment] = (), threads: int = 2) -> tuple[Pipeline, list[Chunk]]:
    async with flowing(raw) as fd, Pipeline(Source(fd), level=1, threads=threads) as pipeline:
        await pipeline.opened()
        pipeline.proceed(known)
        return pipeline, await chunks_from(pipeline)


async def chunks_from(pipeline: Pipeline) -> list[Chunk]:
    """The chunks that are to be sent, to the end."""
    return [item.chunk async for item in pipeline if isinstance(item, Ready)]


def large(size: int, *, record: int = 128 << 10, name: str = "tank/data@now") -> bytes:
    """A stream of about `size` bytes that is cut several times."""
    block = random.Random(5).randbytes(record)
    return streams.substream(*(streams.write(7, i * record, block) for i in range(size // record)), name=name)


def no_threads_left() -> bool:
    return not [t for t in threading.enumerate() if t.name == "read" or t.name.startswith("compress")]


# --- what comes out --------------------------------------------------------------------------------------------


@streams.each(streams.whole)
async def test_genuine_streams(stream: streams.Genuine) -> None:
    raw = stream.read()
    pipeline, chunks = await run(raw)
    decompressor = Decompressor()
    assert b"".join(decompressor.decompress(chunk.frame, chunk.raw_length) for chunk in chunks) == raw
    verdict = pipeline.verdict
    assert verdict.raw_bytes == len(raw)
    assert bytes(chunks[-1].sha256).hex() == stream.sha256
    assert [chunk.starts_segment for chunk in chunks] == [True] + [False] * (len(chunks) - 1)
    assert [begin.guid for begin in verdict.facts.substreams] == [
        begin["toguid"] for begin in stream.begins if not begin["compound"]
    ]


@streams.each(streams.broken)
async def test_broken_streams_are_refused(stream: streams.Genuine) -> None:
    with pytest.raises((IncompleteStream, UnsupportedStream)):
        await run(stream.read())


async def test_chunks_are_cut_by_the_rule_hashed_and_in_order() -> None:
    raw = large(30 << 20)
    pipeline, chunks = await run(raw, threads=3)
    expected = list(chunks_of(raw))
    assert [(c.raw_offset, c.raw_length, c.sha256) for c in chunks] == [
        (c.raw_offset, c.raw_length, c.sha256) for c in expected
    ]
    assert len(chunks) > 5
    assert chunks[-1].sha256 == hashlib.sha256(raw).digest()
    with pytest.raises(StopAsyncIteration):
        await anext(pipeline)


@pytest.mark.parametrize("size", [1, 311, 4096, 100_000])
async def test_it_does_not_matter_how_the_bytes_arrive(size: int) -> None:
    raw = large(5 << 20)
    most = len(raw) if size > 1 else 3000  # a system call a byte takes its time
    parts = [raw[at : at + size] for at in range(0, most, size)] + [raw[most:]]
    async with flowing(*parts) as fd, Pipeline(Source(fd), level=1) as pipeline:
        pipeline.proceed([])
        chunks = await chunks_from(pipeline)
    assert [c.sha256 for c in chunks] == [c.sha256 for c in chunks_of(raw)]


async def test_a_file_serves_as_well(tmp_path: Path) -> None:
    raw = large(9 << 20)
    (tmp_path / "stream").write_bytes(raw)
    with (tmp_path / "stream").open("rb") as file:
        async with Pipeline(Source(file.fileno()), level=1) as pipeline:
            pipeline.proceed([])
            assert sum(chunk.raw_length for chunk in await chunks_from(pipeline)) == len(raw)


async def test_chunks_without_a_resumable_record_go_up_to_the_largest_size() -> None:
    raw = streams.substream(*[streams.free(1)] * (2 * limits.CHUNK_MAX // 312))
    _pipeline, chunks = await run(raw)
    assert [chunk.raw_length for chunk in chunks] == [limits.CHUNK_MAX, limits.CHUNK_MAX, len(raw) % limits.CHUNK_MAX]


async def test_records_of_the_largest_size() -> None:
    record = streams.write(1, 0, bytes(limits.RECORD_PAYLOAD_MAX))
    raw = streams.substream(*[record] * 4)
    _pipeline, chunks = await run(raw)
    assert [c.raw_length for c in chunks] == [c.raw_length for c in chunks_of(raw)]


async def test_a_stream_that_ends_exactly_where_a_chunk_does() -> None:
    frees, rest = divmod(limits.CHUNK_MAX - len(streams.substream()) - 312, 312)
    raw = streams.substream(*[streams.free(1)] * frees, streams.spill(1, bytes(rest)))
    assert len(raw) == limits.CHUNK_MAX
    pipeline, chunks = await run(raw)
    assert [chunk.raw_length for chunk in chunks] == [limits.CHUNK_MAX]
    assert pipeline.verdict.raw_bytes == len(raw)
    assert chunks[0].sha256 == hashlib.sha256(raw).digest()


async def test_opened_tells_before_the_stream_has_ended() -> None:
    raw = large(6 << 20, name="tank/a b@c")
    async with flowing(raw[:-312], hold=True) as fd, Pipeline(Source(fd), level=1) as pipeline:
        opened = await pipeline.opened()
        assert (opened.facts.dataset, opened.facts.snapshot, opened.compound) == ("tank/a b", "c", False)
        assert await pipeline.opened() is opened
        with pytest.raises(RuntimeError, match="not been read to its end"):
            _ = pipeline.verdict


async def test_a_package_says_more_at_its_end() -> None:
    first = streams.substream(*[streams.write(1, 0, bytes(1 << 20))] * 5, name="tank/a@1", guid=1)
    raw = streams.package(first, streams.substream(name="tank/a@2", guid=2, base_guid=1), name="tank/a@2")
    async with flowing(raw) as fd, Pipeline(Source(fd), level=1) as pipeline:
        opened = await pipeline.opened()
        assert (opened.compound, opened.facts.guid, opened.facts.kind) == (True, 1, "full")
        pipeline.proceed([])
        _ = await chunks_from(pipeline)
        assert (pipeline.verdict.facts.guid, pipeline.verdict.facts.kind) == (2, "package")


# --- a stream that has arrived in part --------------------------------------------------------------------------

BLOCKS = large(22 << 20)
#: Where its chunks end.
ENDS = [chunk.raw_offset + chunk.raw_length for chunk in chunks_of(BLOCKS)]


@pytest.mark.parametrize(
    "borders", [ENDS[:1], ENDS[:3], [ENDS[0], ENDS[2]], ENDS[:-1], ENDS, [ENDS[1], ENDS[-1]]], ids=str
)
async def test_what_has_arrived_is_compared_and_left_out(borders: list[int]) -> None:
    async with flowing(BLOCKS) as fd, Pipeline(Source(fd), level=1) as pipeline:
        await pipeline.opened()
        pipeline.proceed(segments_of(BLOCKS, *borders))
        items = [item async for item in pipeline]
        assert pipeline.verdict.raw_bytes == len(BLOCKS)
    skipped = [item.raw_length for item in items if isinstance(item, Skipped)]
    assert [sum(skipped[: at + 1]) for at in range(len(skipped))] == [end for end in ENDS if end <= borders[-1]]
    assert all(isinstance(item, Ready) for item in items[len(skipped) :])
    rest = [item.chunk for item in items if isinstance(item, Ready)]
    expected = list(chunks_of(BLOCKS, borders[-1]))[len(skipped) :]
    assert [(c.raw_offset, c.raw_length, c.sha256, c.starts_segment) for c in rest] == [
        (c.raw_offset, c.raw_length, c.sha256, c.starts_segment) for c in expected
    ]


@pytest.mark.parametrize("at", [400, ENDS[0] - 1, ENDS[0] + 400, ENDS[2] - 1])
async def test_other_bytes_in_any_segment_are_noticed_before_anything_is_given_out(at: int) -> None:
    raw = bytearray(BLOCKS)
    raw[at] ^= 1
    async with flowing(bytes(raw)) as fd, Pipeline(Source(fd), level=1) as pipeline:
        await pipeline.opened()
        pipeline.proceed(segments_of(BLOCKS, ENDS[0], ENDS[2]))
        got: list[Ready | Skipped] = []
        with pytest.raises(DifferentBytes, match="are not those that arrived before"):  # noqa: PT012 - what came before
            async for item in pipeline:
                got.append(item)  # noqa: PERF401
        with pytest.raises(DifferentBytes):
            await anext(pipeline)
    assert all(isinstance(item, Skipped) for item in got)


async def test_a_byte_behind_what_has_arrived_is_not_compared() -> None:
    raw = bytearray(BLOCKS)
    raw[ENDS[1] + 400] ^= 1
    _pipeline, chunks = await run(bytes(raw), known=segments_of(BLOCKS, ENDS[1]))
    assert chunks[-1].sha256 == hashlib.sha256(raw[ENDS[1] :]).digest()


async def test_a_replay_that_is_shorter() -> None:
    block = streams.write(7, 0, bytes(128 << 10))
    raw = streams.substream(*[block] * 40)
    longer = segments_of(raw + bytes(1000), *[c.raw_offset + c.raw_length for c in chunks_of(raw)][:1], len(raw) + 1000)
    with pytest.raises(
        DifferentBytes, match=f"the stream has {len(raw)} bytes, and {len(raw) + 1000} had arrived before"
    ):
        await run(raw, known=longer)


async def test_a_segment_that_ends_where_no_chunk_does() -> None:
    with pytest.raises(DifferentBytes, match="are not those that arrived before"):
        await run(BLOCKS, known=segments_of(BLOCKS, ENDS[0] + 1))


async def test_a_new_segment_begins_with_the_chunk_that_is_begun_next() -> None:
    async with flowing(BLOCKS[: ENDS[1] + 1], hold=True) as fd, Pipeline(Source(fd), level=1) as pipeline:
        pipeline.proceed([])
        first = await anext(pipeline)
        second = await anext(pipeline)
        pipeline.segments.resume(0, [])
        assert [isinstance(each, Ready) and each.chunk.starts_segment for each in (first, second)] == [True, False]
    async with flowing(BLOCKS) as fd, Pipeline(Source(fd), level=1) as pipeline:
        await pipeline.opened()
        pipeline.segments.resume(0, [])
        pipeline.proceed([])
        chunks = await chunks_from(pipeline)
    assert [c.sha256 for c in chunks] == [c.sha256 for c in chunks_of(BLOCKS, ENDS[0])]
    assert [c.raw_offset for c in chunks if c.starts_segment] == [0, ENDS[0]]


async def test_each_chunk_has_the_hash_that_went_before_it() -> None:
    async with flowing(BLOCKS) as fd, Pipeline(Source(fd), level=1) as pipeline:
        pipeline.proceed([])
        items = [item async for item in pipeline if isinstance(item, Ready)]
    decompressor = Decompressor()
    for item in items:
        raw = decompressor.decompress(item.chunk.frame, item.chunk.raw_length)
        assert (item.before.start, item.before.end) == (0, item.chunk.raw_offset)
        assert item.before.copy().update(raw) == item.chunk.sha256


async def test_cancelled_while_waiting_loses_no_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither while the queue is empty, nor while a frame is being made."""
    compress = Pipeline._compress
    may_go = threading.Event()

    def slowly(self: Pipeline, *arguments: Any) -> bytes:
        may_go.wait()
        return compress(self, *arguments)

    monkeypatch.setattr(Pipeline, "_compress", slowly)
    async with flowing(BLOCKS) as fd, Pipeline(Source(fd), level=1) as pipeline:
        try:
            for _cancelled in range(3):
                waiting = asyncio.ensure_future(anext(pipeline))
                await asyncio.sleep(0.02)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
                pipeline.proceed([])
        finally:
            may_go.set()
        chunks = await chunks_from(pipeline)
    assert [c.sha256 for c in chunks] == [c.sha256 for c in chunks_of(BLOCKS)]


async def test_a_source_that_begins_behind_a_record() -> None:
    """As when a token makes the rest: the walker is told where it stands."""
    begin = streams.split(BLOCKS)[0]
    walker = Walker()
    walker.walk(BLOCKS, 0, begin.end, 1 << 63)
    state = WalkerState(ENDS[1], Phase.SUBSTREAM, resumable=True)
    async with (
        flowing(BLOCKS[ENDS[1] :]) as fd,
        Pipeline(Source(fd), level=1, walker=lambda: Walker.resume(state, walker.begins)) as pipeline,
    ):
        pipeline.proceed([])
        chunks = await chunks_from(pipeline)
        assert pipeline.verdict.raw_bytes == len(BLOCKS)
        assert (pipeline.verdict.facts.dataset, pipeline.verdict.facts.snapshot) == ("tank/data", "now")
    expected = list(chunks_of(BLOCKS, ENDS[1]))[2:]
    assert [(c.raw_offset, c.sha256, c.starts_segment) for c in chunks] == [
        (c.raw_offset, c.sha256, c.starts_segment) for c in expected
    ]


async def test_leaving_before_being_told_ends_the_threads() -> None:
    async with flowing(BLOCKS) as fd:
        async with Pipeline(Source(fd), level=1) as pipeline:
            await pipeline.opened()
        assert no_threads_left()


# --- what goes wrong -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"", NotASendStream),
        (b"garbage", NotASendStream),
        (bytes(10_000_000), NotASendStream),
        (streams.substream()[:-1], IncompleteStream),
        (streams.substream() + b"x", TrailingBytes),
        (streams.substream(features=[Feature.RESUMING]), UnsupportedStream),
        (streams.package(nvlist={"tosnap": "x"}), IncompleteStream),
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else value.__name__,
)
async def test_what_shows_in_the_first_chunk_shows_before_anything_is_given_out(
    raw: bytes, error: type[StreamError]
) -> None:
    async with flowing(raw) as fd, Pipeline(Source(fd)) as pipeline:
        with pytest.raises(error):
            await pipeline.opened()
        with pytest.raises(error):
            await anext(pipeline)


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda raw: raw[:-1], IncompleteStream),
        (lambda raw: raw[: len(raw) // 2], IncompleteStream),
        (lambda raw: raw + bytes(1), TrailingBytes),
        (lambda raw: raw[:-312] + streams.record(99, {}) + raw[-312:], DamagedStream),
    ],
)
async def test_good_chunks_before_a_fault_come_first(spoil: Callable[[bytes], bytes], error: type[StreamError]) -> None:
    raw = spoil(large(20 << 20))
    got = []
    async with flowing(raw) as fd, Pipeline(Source(fd), level=1) as pipeline:
        pipeline.proceed([])
        with pytest.raises(error):  # noqa: PT012 - what came before the error counts, too
            async for item in pipeline:
                assert isinstance(item, Ready)
                got.append(item.chunk)
        with pytest.raises(error):
            await anext(pipeline)
    *but_the_last, _last = chunks_of(large(20 << 20))
    expected = [chunk for chunk in but_the_last if chunk.raw_offset + chunk.raw_length <= len(raw)]
    assert [chunk.sha256 for chunk in got] == [chunk.sha256 for chunk in expected]
    assert got


async def test_a_package_that_lacks_a_snapshot() -> None:
    nvlist = streams.tree("2", streams.file_system("tank/a", {"1": 1, "2": 2}))
    raw = streams.package(streams.substream(name="tank/a@1", guid=1), name="tank/a@2", nvlist=nvlist)
    with pytest.raises(IncompleteStream, match="tank/a@2"):
        await run(raw)


async def test_descriptor_that_cannot_be_read() -> None:
    read, write = os.pipe()
    try:
        async with Pipeline(Source(write)) as pipeline:
            with pytest.raises(IncompleteStream, match="reading the stream failed after 0 bytes: Bad file descriptor"):
                await pipeline.opened()
    finally:
        os.close(read)
        os.close(write)


# --- bounds and ends -------------------------------------------------------------------------------------------


async def test_reading_stops_where_nobody_takes_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = large(80 << 20)
    async with flowing(raw) as fd, Pipeline(Source(fd), level=1, threads=2) as pipeline:
        buffers = pipeline._buffers
        await pipeline.opened()
        pipeline.proceed([])
        # The reader waits for room when it has closed as many chunks as are paid for.
        while pipeline._queue.qsize() < raw_in_flight(2) // FIRST:
            await asyncio.sleep(0.001)
        assert buffers.used <= raw_in_flight(2)
        assert pipeline._queue.qsize() == raw_in_flight(2) // FIRST
        assert len(await chunks_from(pipeline)) == len(list(chunks_of(raw)))
    assert buffers.used <= FIRST  # the reader's last one


async def test_leaving_ends_the_threads_while_the_producer_is_silent() -> None:
    async with flowing(large(6 << 20)[:-312], hold=True) as fd:
        async with Pipeline(Source(fd), level=1) as pipeline:
            pipeline.proceed([])
            await anext(pipeline)
        assert no_threads_left()


async def test_cancelling_ends_the_threads() -> None:
    async with flowing(large(100 << 20), hold=True) as fd:

        async def consume() -> None:
            async with Pipeline(Source(fd), level=1) as pipeline:
                await pipeline.opened()
                await asyncio.Event().wait()

        task = asyncio.create_task(consume())
        while no_threads_left():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert no_threads_left()


async def test_the_level_of_each_chunk_is_chosen_unless_it_is_set() -> None:
    noise = random.Random(6)
    raw = streams.substream(*(streams.write(7, i << 17, noise.randbytes(1 << 17)) for i in range(96)))
    whole = len(list(chunks_of(raw)))
    async with flowing(raw) as fd, Pipeline(Source(fd), threads=2) as pipeline:
        await pipeline.opened()
        pipeline.proceed([])
        chosen = await chunks_from(pipeline)
        assert pipeline.levels == {LIGHT: whole - 1, LEVEL_DEFAULT: 1}  # the last chunk is the END record alone
    assert b"".join(Decompressor().decompress(chunk.frame, chunk.raw_length) for chunk in chosen) == raw
    pipeline, of_level_1 = await run(raw)
    assert pipeline.levels == {1: whole}
    assert [(each.raw_offset, each.sha256) for each in of_level_1] == [
        (each.raw_offset, each.sha256) for each in chosen
    ]
