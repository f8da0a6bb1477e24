"""Chunks that wait for a line of the journal."""

from __future__ import annotations

import pytest
from tests import streams

from fullsend_protocol.stream.records import Begin, EmbeddedSpill, Walker
from fullsend_receiver.store.pending import ChunkEnd, PendingChunks
from fullsend_receiver.store.seekable import IndexEntry

#: A package of three snapshots, each with a spill block that `zfs receive` loses.
RAW = streams.package(
    *(
        streams.substream(streams.write_embedded(number, 1 << 63, b"spill"), name=f"tank/a@{number}", guid=number)
        for number in (1, 2, 3)
    )
)
CUTS = (len(RAW) // 4, len(RAW) // 2, len(RAW))


def step(walker: Walker, end: int) -> ChunkEnd:
    """Walk to the end of a chunk."""
    raw_length = end - walker.offset
    walker.walk(RAW, walker.offset, end, len(RAW) + 1)
    assert walker.offset == end
    return ChunkEnd.of(IndexEntry(raw_length, 100 + end, False, None, False, bytes(32)), walker)


def test_each_batch_has_what_came_since_the_one_before() -> None:
    walker = Walker()
    pending = PendingChunks(walker)
    assert not pending
    begins: list[Begin] = []
    spills: list[EmbeddedSpill] = []
    for end in CUTS:
        pending.add(step(walker, end))
        assert pending
        assert pending.frame_bytes == 100 + end
        batch = pending.take(7)
        assert (batch.offset, batch.stored, batch.walker) == (end, 7, walker.state)
        assert [each.entry.stored_length for each in batch.chunks] == [100 + end]
        begins += batch.begins
        spills += batch.embedded_spills
    assert begins == walker.begins
    assert spills == walker.embedded_spills
    assert len(spills) == 3
    assert (bool(pending), pending.frame_bytes, pending.take(7).chunks) == (False, 0, ())


@pytest.mark.parametrize("written", [1, 2])
def test_a_batch_has_nothing_of_a_chunk_that_is_not_written(written: int) -> None:
    """The walker is further: one thread checks while another one writes."""
    walker = Walker()
    pending = PendingChunks(walker)
    ends = [step(walker, end) for end in CUTS]
    for each in ends[:written]:
        pending.add(each)
    batch = pending.take(0)
    assert batch.offset == pending.offset == CUTS[written - 1]
    assert batch.walker == ends[written - 1].state
    assert list(batch.begins) == walker.begins[: ends[written - 1].begins] != walker.begins
    assert len(batch.embedded_spills) == ends[written - 1].embedded_spills < 3
    for each in ends[written:]:
        pending.add(each)
    rest = pending.take(0)
    assert [*batch.begins, *rest.begins] == walker.begins
    assert [*batch.embedded_spills, *rest.embedded_spills] == walker.embedded_spills


def test_it_begins_behind_what_is_durable() -> None:
    first = Walker()
    end = step(first, CUTS[0])
    walker = Walker.resume(end.state, first.begins, first.embedded_spills)
    pending = PendingChunks(walker)
    assert (pending.offset, bool(pending)) == (CUTS[0], False)
    pending.add(step(walker, CUTS[2]))
    batch = pending.take(0)
    assert [*first.begins, *batch.begins] == walker.begins
    assert [*first.embedded_spills, *batch.embedded_spills] == walker.embedded_spills
