"""The rows of a sender's streams as bytes, for a store's index: written by one reader, read by others.

The SHA-256 of a zstd frame, and the frame, of lines of JSON:

    [VERSION, [NUMBER, ...], [FILE, ...]]       what was removed, by the first number of its stamp; unreadable manifests
    [FOLDER, [NAME, ...], ROW, ...]             a folder: the streams whose file is lacking; its rows

Rows with other fields, by another version of fullsendd, are not used. Then, and if they are damaged, all manifests are
read again.
"""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from array import array
from bisect import insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import zstandard

from fullsend_receiver.catalogue.rows import COPIED, FIELDS, Shelf, contains
from fullsend_receiver.store.api import Stamp

_FORMAT: Final = "1"
_VERSION: Final = zlib.crc32(" ".join((_FORMAT, *COPIED)).encode())
_LEVEL: Final = 3
_DIGEST: Final = hashlib.sha256().digest_size
#: Raw bytes of the rows of one sender: some 400 for each stream, so these are two million streams. More is not read.
ROWS_MAX: Final = 1 << 30


@dataclass(slots=True)
class IndexedRows:
    """What is kept of a sender. `gone`: in order, the first numbers of the stamps of removed streams, which need not be
    read again; `doubts`: the streams whose manifests cannot be read, or are not there although a change was
    noted; each reader tries again.
    """

    shelves: dict[str, Shelf] = field(default_factory=dict)
    gone: array[int] = field(default_factory=lambda: array("Q"))
    doubts: set[str] = field(default_factory=set)

    def note_gone(self, stamp: Stamp) -> None:
        """Note that a stream was removed. `stamp`: of what stands in the place of its manifest, empty: nothing."""
        if stamp and not contains(self.gone, stamp[0]):
            insort(self.gone, stamp[0])


def encode_rows(rows: IndexedRows) -> bytes:
    """Return the rows as bytes."""
    compressor = zstandard.ZstdCompressor(level=_LEVEL).compressobj()
    frame = b"".join([*map(compressor.compress, _lines(rows)), compressor.flush()])
    return hashlib.sha256(frame).digest() + frame


def _lines(rows: IndexedRows) -> Iterator[bytes]:
    yield _line([_VERSION, rows.gone.tolist(), sorted(rows.doubts)])
    for path, shelf in rows.shelves.items():
        yield _line([path, sorted(shelf.lacking or ()), *shelf])


def _line(said: Iterable[object]) -> bytes:
    return json.dumps(said, separators=(",", ":")).encode() + b"\n"


def decode_rows(data: bytes) -> IndexedRows | None:
    """Return the rows; None: this version cannot use them, or they are damaged."""
    # A reader of frames does not tell one that was cut from one that is whole.
    digest, frame = data[:_DIGEST], data[_DIGEST:]
    if hashlib.sha256(frame).digest() != digest:
        return None
    try:
        lines = _Bounded(zstandard.ZstdDecompressor().stream_reader(io.BytesIO(frame)))
        version, gone, doubts = json.loads(next(lines))
        if version != _VERSION:
            return None
        rows = IndexedRows({}, array("Q", sorted(gone)), set(map(str, doubts)))
        for line in lines:
            path, lacking, *found = json.loads(line)
            if any(len(row) != FIELDS + len(COPIED) for row in found):
                return None
            rows.shelves[path] = Shelf.of(path, found, frozenset(lacking))
    except (zstandard.ZstdError, ValueError, TypeError, KeyError, IndexError, OverflowError, StopIteration):
        return None
    return rows


class _Bounded:
    """The lines of a stream of bytes, of ROWS_MAX bytes at most. Raises: ValueError if there are more."""

    def __init__(self, source: zstandard.ZstdDecompressionReader) -> None:
        self._lines = io.BufferedReader(source)
        self._left = ROWS_MAX

    def __iter__(self) -> _Bounded:
        return self

    def __next__(self) -> bytes:
        line = self._lines.readline(self._left + 1)
        if not line:
            raise StopIteration
        self._left -= len(line)
        if self._left < 0 or not line.endswith(b"\n"):
            msg = "the rows are not whole, or too many"
            raise ValueError(msg)
        return line
