from __future__ import annotations

import hashlib
import json
from array import array
from typing import TYPE_CHECKING

import pytest
import zstandard
from tests.receiver.buckets import FILE, MemoryBucket, store_in, store_raw

from fullsend_receiver.catalogue import index_rows
from fullsend_receiver.catalogue.index_rows import IndexedRows, decode_rows, encode_rows
from fullsend_receiver.catalogue.object_search import ObjectSearch

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> IndexedRows:
    """Rows of a stored stream."""
    home: Path = tmp_path_factory.mktemp("home")
    store = store_in(MemoryBucket(least_part=0), home)
    assert store_raw(store)
    search = ObjectSearch(store, "alpha")
    search.run()
    shelves = {each.path: each.with_lacking(frozenset({FILE.name})) for each in search.shelves}
    return IndexedRows(shelves, array("Q", [1, 1 << 63]), {"alpha/tank/@spoilt.zfs.zst"})


def framed(data: bytes) -> bytes:
    frame = zstandard.compress(data)
    return hashlib.sha256(frame).digest() + frame


def raw(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(data[hashlib.sha256().digest_size :])


def test_rows_come_back(rows: IndexedRows) -> None:
    assert decode_rows(encode_rows(rows)) == rows
    assert decode_rows(encode_rows(IndexedRows())) == IndexedRows()


def test_rows_that_are_damaged_are_not_used(rows: IndexedRows) -> None:
    data = encode_rows(rows)
    for at in range(len(data)):
        assert decode_rows(data[:at]) is None
        assert decode_rows(bytes([*data[:at], data[at] ^ 1, *data[at + 1 :]])) is None


@pytest.mark.parametrize("first", [[0, [], []], [], {}, "text", [None]])
def test_rows_of_another_version_are_not_used(first: object) -> None:
    assert decode_rows(framed(json.dumps(first).encode() + b"\n")) is None


@pytest.mark.parametrize("second", [[], ["alpha/tank"], ["alpha/tank", [], [1]], [1, 2, 3], None])
def test_rows_with_other_fields_are_not_used(second: object) -> None:
    first = raw(encode_rows(IndexedRows()))
    assert decode_rows(framed(first)) == IndexedRows()
    assert decode_rows(framed(first + json.dumps(second).encode() + b"\n")) is None
    assert decode_rows(framed(first + b"not JSON\n")) is None
    assert decode_rows(framed(first[:-1])) is None


def test_more_rows_than_there_can_be_are_not_read(rows: IndexedRows, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode_rows(rows)
    size = len(raw(data))
    monkeypatch.setattr(index_rows, "ROWS_MAX", size)
    assert decode_rows(data) == rows
    monkeypatch.setattr(index_rows, "ROWS_MAX", size - 1)
    assert decode_rows(data) is None


def test_what_is_gone_is_noted_once_and_in_order() -> None:
    found = IndexedRows()
    for stamp in ((7, 0), (3, 0), (7, 0), ()):
        found.note_gone(stamp)
    assert found.gone.tolist() == [3, 7]
