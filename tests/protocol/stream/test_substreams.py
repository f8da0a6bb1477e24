"""The substreams of genuine packages, as a slow and plain splitter finds them; and of what is no package."""

from __future__ import annotations

import itertools

import pytest
from tests import streams
from tests.streams import CLOSING_END, Genuine

from fullsend_protocol.shared.errors import DamagedStream, IncompleteStream, TrailingBytes
from fullsend_protocol.stream.records import HEADER_SIZE, RecordType
from fullsend_protocol.stream.substreams import Substream, SubstreamFinder, cut_out, snapshots_named

PACKAGES = [stream for stream in streams.whole() if len(stream.begins) > 1]


def found_in(raw: bytes, *sizes: int) -> tuple[Substream, ...]:
    """What is found if the bytes come in pieces of these sizes, again and again."""
    finder = SubstreamFinder()
    at = 0
    for size in itertools.cycle(sizes):
        if at >= len(raw):
            return finder.finish()
        finder.feed(raw[at : at + size])
        at += size
    raise AssertionError


def plainly(raw: bytes) -> list[bytes]:
    """The bytes of each substream."""
    found: list[bytes] = []
    start = None
    for each in streams.split(raw):
        if each.kind is RecordType.BEGIN and raw[each.start + 16] & 3 == streams.SUBSTREAM:
            start = each.start
        elif each.kind is RecordType.END and start is not None:
            found.append(raw[start : each.end])
            start = None
    return found


@pytest.mark.parametrize("stream", PACKAGES, ids=lambda stream: stream.name)
def test_genuine_packages(stream: Genuine) -> None:
    raw = stream.read()
    found = found_in(raw, 1 << 20)
    assert found_in(raw, 311, 5, 100_000) == found
    parts = [b"".join(cut_out([raw[:1000], raw[1000:1003], b"", raw[1003:]], each)) for each in found]
    compound = raw[16] & 3 == streams.COMPOUND
    names = [begin["toname"] for begin in stream.begins][compound:]
    assert [each.begin.name for each in found] == names
    assert [part[56 : 56 + len(name)].decode() for part, name in zip(parts, names, strict=True)] == names
    assert all(part.count(part[:HEADER_SIZE]) == 1 for part in parts)
    assert plainly(raw) == parts
    # Each of them is a stream by itself.
    assert [found_in(part, 1 << 16) for part in parts] == [
        (Substream(each.begin, 0, len(part)),) for each, part in zip(found, parts, strict=True)
    ]


def test_byte_by_byte() -> None:
    raw = streams.package(
        streams.substream(*streams.every_record(), name="a@1", guid=1),
        streams.substream(streams.free(2), name="a@2", guid=2, base_guid=1),
        name="a@2",
        nvlist=streams.tree("2", streams.file_system("a", {"1": 1, "2": 2})),
    )
    whole = found_in(raw, len(raw))
    assert found_in(raw, 1) == whole
    assert [each.begin.guid for each in whole] == [1, 2]
    assert whole[0].end == whole[1].start
    assert whole[1].end == len(raw) - HEADER_SIZE


def test_a_stream_that_is_no_package_is_its_own_substream() -> None:
    raw = streams.substream(*streams.every_record())
    (only,) = found_in(raw, 1000)
    assert (only.start, only.end) == (0, len(raw))


def test_what_is_around_a_substream_is_read_as_well() -> None:
    """What proves the bytes comes at their end."""
    raw = streams.package(streams.substream(name="a@1", guid=1), streams.substream(name="a@2", guid=2, base_guid=1))
    pieces = iter([raw[:700], raw[700:]])
    first = found_in(raw, 5000)[0]
    assert len(b"".join(cut_out(pieces, first))) == first.end - first.start
    assert list(pieces) == []


def test_packages_that_are_not_whole() -> None:
    raw = streams.package(streams.substream(name="a@1", guid=1))
    with pytest.raises(IncompleteStream):
        found_in(raw[:-HEADER_SIZE], 5000)
    with pytest.raises(TrailingBytes):
        found_in(raw + b"x", 5000)
    with pytest.raises(DamagedStream):
        found_in(raw[:HEADER_SIZE] + CLOSING_END + streams.write(1, 0, b"w"), 5000)


def test_snapshots_that_a_package_names() -> None:
    assert snapshots_named(b"") is None
    assert snapshots_named(streams.xdr({"tosnap": "a"})) is None
    one = streams.tree("2", streams.file_system("a", {"2": 2}))
    more = streams.tree("2", streams.file_system("a", {"1": 1, "2": 2}), streams.file_system("a/b", {"2": 3}))
    assert (snapshots_named(streams.xdr(one)), snapshots_named(streams.xdr(more))) == (1, 3)
