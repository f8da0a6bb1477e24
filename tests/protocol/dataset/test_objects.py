"""The objects of a stream, and which streams are refused."""

from __future__ import annotations

import zlib

import pytest
from tests import streams
from tests.data import load
from tests.file_trees import Tree, an_object, embedded, stream_of

from fullsend_protocol.dataset.objects import ObjectReader
from fullsend_protocol.shared.errors import (
    BlockDamaged,
    DamagedStream,
    IncompleteStream,
    StreamError,
    TrailingBytes,
    UnsupportedStream,
)
from fullsend_protocol.stream.records import SPILL_OFFSETS, Feature, RecordType

DATA = bytes(range(256)) * 2


def blocks(*records: bytes) -> list[tuple[int, int, bytes]]:
    reader = ObjectReader("it", [stream_of(an_object(7, 19, 512), *records)])
    return [
        (found.number, found.offset, bytes(found.data))
        for kind in reader.records()
        if kind == RecordType.WRITE
        for found in [reader.block()]
    ]


def gzip(number: int, offset: int, data: bytes, size: int) -> bytes:
    record = bytearray(streams.write(number, offset, data, logical_size=size))
    record[50] = 5
    return bytes(record)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def test_blocks_of_every_kind() -> None:
    packed = zlib.compress(DATA)
    found = blocks(
        streams.write(7, 0, DATA),
        streams.free(7, 512, 512),
        gzip(7, 1024, padded(packed), 512),
        embedded(7, 1536, b"plain", 5, 2),
        embedded(7, 2048, packed, 512, 5),
    )
    assert found == [(7, 0, DATA), (7, 1024, DATA), (7, 1536, b"plain"), (7, 2048, DATA)]


@pytest.mark.parametrize(
    ("records", "error"),
    [
        ([streams.write(7, 512, DATA), streams.write(7, 0, DATA)], DamagedStream),
        ([streams.write(7, (1 << 64) - 512, DATA)], DamagedStream),
        ([gzip(7, 0, bytes(512), 512)], BlockDamaged),
        ([gzip(7, 0, padded(zlib.compress(DATA)), 511)], BlockDamaged),
        ([gzip(7, 0, bytes(512), 1 << 40)], BlockDamaged),
        ([embedded(7, 0, b"x" * 8, 512, 77)], BlockDamaged),
        ([streams.write(8, 0, DATA)], DamagedStream),
        ([streams.redact(7)], UnsupportedStream),
    ],
)
def test_what_no_zfs_writes(records: list[bytes], error: type[StreamError]) -> None:
    with pytest.raises(error, match="it"):
        blocks(*records)


def test_spill_blocks_of_both_kinds() -> None:
    """`zfs send -e` of OpenZFS 2.4 embeds one at an offset that no file has."""
    spill = b"s" * 512
    for record in (streams.spill(7, spill), embedded(7, SPILL_OFFSETS, spill, 512, 2)):
        reader = ObjectReader("it", [stream_of(an_object(7, 19, 512), record)])
        found = [reader.spill() for kind in reader.records() if kind == RecordType.SPILL]
        assert found == [spill]


@pytest.mark.parametrize(
    ("about", "says"),
    [
        ({"features": {Feature.RAW}}, "is raw"),
        ({"features": {Feature.REDACTED}}, "REDACTED"),
        ({"features": {Feature.DEDUP}}, "DEDUP"),
        ({"features": {Feature.RESUMING}}, "RESUMING"),
        ({"base_guid": 5}, "is an increment on the snapshot with GUID 5"),
        ({"objset_type": 7}, "a dataset of type 7"),
    ],
)
def test_what_is_refused_by_name(about: dict[str, object], says: str) -> None:
    with pytest.raises(UnsupportedStream, match=f"{says}.*: its files cannot be read"):
        ObjectReader("it", [stream_of(**about)])  # type: ignore[arg-type]


def test_a_package_of_several_snapshots_is_refused_before_it_is_read() -> None:
    with pytest.raises(UnsupportedStream, match="more than one snapshot"):
        ObjectReader("it", [load.stream("tree-R")[:100_000]])


def test_a_package_of_one_is_read() -> None:
    reader = ObjectReader("it", [load.stream("full-p")])
    assert RecordType.OBJECT in set(reader.records())


def test_a_stream_that_is_cut_or_goes_on() -> None:
    whole = Tree().stream()
    for data, error in (
        (whole[:-1], IncompleteStream),
        (whole[:-312], IncompleteStream),
        (whole + b"x", TrailingBytes),
    ):
        with pytest.raises(error):
            list(ObjectReader("it", [data]).records())


def test_an_impossible_block_size() -> None:
    for size in (0, 1 << 25):
        reader = ObjectReader("it", [stream_of(an_object(7, 19, size))])
        with pytest.raises(DamagedStream, match=f"blocks of {size} bytes"):
            [reader.head() for _kind in reader.records()]
