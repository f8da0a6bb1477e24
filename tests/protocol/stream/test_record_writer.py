"""Records with right running checksums."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests import resumed, streams
from tests.streams import split

from fullsend_protocol.stream.checksums import Piece
from fullsend_protocol.stream.record_reader import INFINITY, RecordReader
from fullsend_protocol.stream.record_writer import HeldRecord, RecordWriter
from fullsend_protocol.stream.running_sums import RunningSums

GUID = 77


def written(write: Callable[[RecordWriter], Iterator[Piece]]) -> bytes:
    """Return the whole stream, whose sums were compared."""
    writer = RecordWriter(GUID)
    pieces = [*writer.begin(streams.begin(guid=GUID, flags=12), b""), *write(writer), *writer.end()]
    raw = b"".join(map(bytes, pieces))
    sums = RunningSums("x")
    sums.feed(raw)
    sums.finish()
    return raw


def records(raw: bytes) -> list[bytes]:
    """Return all records but BEGIN and END, without their sums."""
    return [raw[each.start : each.start + 280] + raw[each.start + 312 : each.end] for each in split(raw)[1:-1]]


def test_adjacent_holes_are_one() -> None:
    def write(writer: RecordWriter) -> Iterator[Piece]:
        yield from writer.free(5, 0, 512)
        yield from writer.free(5, 512, 1024)
        yield from writer.free(5, 2048, 4096)
        yield from writer.free(6, 4096, 5000)
        yield from writer.free(6, 5000, INFINITY)

    spans = [(record[8], int.from_bytes(record[16:24], "little"), record[24:32]) for record in records(written(write))]
    assert [(number, start) for number, start, _length in spans] == [(5, 0), (5, 2048), (6, 4096)]
    assert [int.from_bytes(length, "little") for *_place, length in spans] == [1024, 2048, INFINITY - 1]


def test_adjacent_free_objects_are_one_unless_something_is_between() -> None:
    def write(writer: RecordWriter) -> Iterator[Piece]:
        yield from writer.dead(1, 5)
        yield from writer.dead(5, 9)
        yield from writer.held(HeldRecord(streams.object_(9), b""))
        yield from writer.dead(10, 12)

    found = [(record[0], record[8], record[16]) for record in records(written(write))]
    assert found == [(2, 1, 8), (1, 9, 0), (2, 10, 2)]


def test_a_block_is_passed_on_with_the_sum_that_follows_from_its_inputs() -> None:
    block = bytes(range(256)) * 16
    records_in = [streams.object_(5), streams.write(5, 0, block), streams.write(5, 0, block), streams.end()]
    source = RecordReader("x", [resumed.summed(streams.begin(flags=12), map(streams.marked, records_in))])
    source.next()
    source.next()

    def write(writer: RecordWriter) -> Iterator[Piece]:
        yield from writer.free(4, 0, 512)
        for _block in range(2):
            yield from writer.passed(source)
            source.next()
            writer.settle(source)
            yield from writer.free(5, 9000, 9512)

    raw = written(write)
    kept = [record for record in records(raw) if record[0] == 3]
    assert [record[280:] for record in kept] == [block, block]
    assert {record[40:48] for record in kept} == {GUID.to_bytes(8, "little")}
