"""One record at a time."""

from __future__ import annotations

import pytest
from tests import resumed, streams
from tests.streams import Genuine, each, small, split

from fullsend_protocol.shared.errors import IncompleteStream, TrailingBytes
from fullsend_protocol.stream.record_reader import INFINITY, RecordReader
from fullsend_protocol.stream.records import Feature, RecordType


def plain(most: int = 200_000) -> list[Genuine]:
    """The small streams of one snapshot, with or without properties, that can be merged."""
    return [
        stream
        for stream in small(most)
        if sum(not begin["compound"] for begin in stream.begins) == 1
        and not any(begin["features"] >> Feature.REDACTED & 1 for begin in stream.begins)
    ]


@each(plain)
@pytest.mark.parametrize("size", [1 << 20, 311])
def test_it_reads_the_records_that_are_there(stream: Genuine, size: int) -> None:
    raw = stream.read()
    reader = RecordReader("x", [raw[at : at + size] for at in range(0, len(raw), size)])
    begins = 3 if reader.package is not None else 1  # the outer BEGIN and its END come first
    expected = split(raw)[begins:]
    (begin,) = (begin for begin in stream.begins if not begin["compound"])
    assert (reader.begin.guid, reader.begin.base_guid) == (begin["toguid"], begin["fromguid"])
    for record in expected[: len(expected) - (reader.package is not None)]:
        reader.next()
        assert (reader.kind, reader.length) == (record.kind, record.end - record.start - 312)
        assert reader.head == raw[record.start : record.start + 312]
        if record.kind in {RecordType.OBJECT, RecordType.SPILL}:
            assert reader.held() == raw[record.start + 312 : record.end]
        elif record.start % 2:
            assert b"".join(map(bytes, reader.payload())) == raw[record.start + 312 : record.end]
    assert (reader.kind, reader.number) == (RecordType.END, INFINITY)
    reader.finish()


def test_what_follows_the_end() -> None:
    raw = resumed.summed(streams.begin(flags=12), [streams.end()])
    reader = RecordReader("x", [raw, b"", b"y"])
    reader.next()
    with pytest.raises(TrailingBytes, match="x has bytes after its END record"):
        reader.finish()


@pytest.mark.parametrize("cut", [0, 1, 311, 312, 400])
def test_a_stream_that_is_cut(cut: int) -> None:
    raw = resumed.summed(streams.begin(flags=12), [streams.end()])
    with pytest.raises(IncompleteStream, match="x ends before its END record"):
        RecordReader("x", [raw[:cut]]).next()


def test_a_record_says_which_objects_it_is_about() -> None:
    records = [
        streams.object_range(0),
        streams.record(RecordType.FREEOBJECTS, {8: ("Q", 1), 16: ("Q", 4)}),
        streams.object_(5),
        streams.write(5, 0, bytes(512)),
    ]
    marked = [streams.marked(record) for record in records]
    reader = RecordReader("x", [resumed.summed(streams.begin(flags=12), [*marked, streams.end()])])
    found = []
    for _record in marked:
        reader.next()
        found.append((reader.number, reader.end, reader.in_object))
    assert found == [(0, 32, False), (1, 5, False), (5, 6, False), (5, 6, True)]
