"""The streams of one folder: the catalogue's part of each manifest, in few bytes.

A daemon has 100,000 of them. As an object each takes a kilobyte, most of it the same for all. So the rows of a folder
are stored as columns, compressed together. That takes some 80 bytes a stream, half of them for the SHA-256 and the
GUID, which are random. The GUIDs are also stored uncompressed: they show the chains without decompressing a folder.

A `Shelf` never changes: any thread may read it at any time.
"""

from __future__ import annotations

import marshal
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import zstandard

from fullsend_protocol.format.manifest import DatasetType, Kind, ProvenBy
from fullsend_protocol.stream.facts import StreamClass


class Summary(NamedTuple):
    """The part of a manifest that the catalogue needs; the fields have the same meaning as there.

    `path`: of the `.zst`, relative to the store.
    """

    path: str
    sender: str
    dataset: str
    snapshot: str
    guid: str
    base_guid: str | None
    kind: Kind
    dataset_type: DatasetType
    stream_class: StreamClass
    flags: str
    created: str
    received: str
    begun: str | None
    sequence: int | None
    raw_bytes: int
    stored_bytes: int
    sha256: str | None
    lost_spill_count: int
    proven_by: ProvenBy = "both"
    ivset_guid: str | None = None
    base_ivset_guid: str | None = None

    @property
    def file(self) -> str:
        """The path, in the form of `list` and of a receipt."""
        return self.path


#: A summary with the identity of its manifest: inode number, size and two times of the manifest, the name of the
#: stream's file, and the fields of the summary after the first two. A line of the copy has the same form.
Row = list[Any]

#: Number of leading fields of a Summary that are not copied; the others are attributes of a Manifest.
_GIVEN: Final = 2
COPIED: Final = Summary._fields[_GIVEN:]
#: Index of the file's name in a row; the copied fields follow it.
NAME: Final = 4
FIELDS: Final = NAME + 1
#: A stamp that no manifest has: the row is not used the next time.
NO_STAMP: Final = [0, 0, 0, 0]


def _at(field: str) -> int:
    return FIELDS + COPIED.index(field)


_DATASET: Final = _at("dataset")
_SNAPSHOT: Final = _at("snapshot")
_GUID: Final = _at("guid")
_BASE: Final = _at("base_guid")
_SEQUENCE: Final = _at("sequence")
_SHA256: Final = _at("sha256")
STORED_BYTES: Final = _at("stored_bytes")
_CTIME: Final = 3
_MTIME: Final = 2

#: More would cost time for little: 77 bytes a stream, and 75 at level 9.
_LEVEL: Final = 1
#: Marks in a name for what other columns contain.
_GUID_MARK, _BASE_MARK, _SNAPSHOT_MARK = "\1", "\2", "\3"
#: Mark of a name that is stored as it is.
_PLAIN: Final = "\0"


@dataclass(frozen=True, slots=True)
class Shelf:
    """The streams of one folder.

    `path`: the folder, relative to the store; `datasets`: of these streams, from their manifests, in order; `guids`: of
    the streams, in order, without repetition; `bases`: the GUIDs that streams build on and that are not among `guids`,
    in order; `sequence`: the highest, 0: none has one; `unhashed`: number of streams without a SHA-256;
    `stored_bytes`: of all streams; `lacking`: names of the streams whose file was missing or of another length; None:
    not checked.
    """

    path: str
    datasets: tuple[str, ...]
    guids: array[int]
    bases: array[int]
    sequence: int
    unhashed: int
    stored_bytes: int
    lacking: frozenset[str] | None
    _count: int
    _packed: bytes

    @classmethod
    def of(cls, path: str, rows: list[Row], lacking: frozenset[str] | None) -> Shelf:
        """Make a shelf of rows. Raises: ValueError, TypeError, OverflowError if they are not rows."""
        guids = {int(row[_GUID]) for row in rows}
        bases = {int(row[_BASE]) for row in rows if row[_BASE] is not None} - guids
        return cls(
            path=path,
            datasets=tuple(sorted({row[_DATASET] for row in rows})),
            guids=array("Q", sorted(guids)),
            bases=array("Q", sorted(bases)),
            sequence=max((row[_SEQUENCE] or 0 for row in rows), default=0),
            unhashed=sum(row[_SHA256] is None for row in rows),
            stored_bytes=sum(row[STORED_BYTES] for row in rows),
            lacking=lacking,
            _count=len(rows),
            _packed=_pack(rows),
        )

    def __len__(self) -> int:
        """Return the number of streams."""
        return self._count

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows, in the order in which they were given."""
        columns = self._columns()
        for number, name in enumerate(columns[NAME]):
            columns[NAME][number] = _name(name, *(columns[each][number] for each in (_SNAPSHOT, _GUID, _BASE)))
        columns[_SHA256] = [each.hex() if isinstance(each, bytes) else each for each in columns[_SHA256]]
        columns[_CTIME] = [sum(times) for times in zip(columns[_MTIME], columns[_CTIME], strict=True)]
        yield from map(list, zip(*columns, strict=True))

    def summaries(self) -> Iterator[Summary]:
        """Yield the summaries, in the order of the rows."""
        return summaries_of(self.path, self)

    def has(self, guid: int) -> bool:
        """Whether a stream of this GUID is in this folder."""
        return contains(self.guids, guid)

    def mentions(self, mark: int | str) -> bool:
        """Whether a stream of this GUID is here, or one that builds on it, or a stream of this dataset."""
        if isinstance(mark, str):
            return mark in self.datasets
        return contains(self.guids, mark) or contains(self.bases, mark)

    def with_lacking(self, lacking: frozenset[str] | None) -> Shelf:
        """Return a shelf with the same streams, and another `lacking`."""
        return Shelf(
            *(self.path, self.datasets, self.guids, self.bases, self.sequence, self.unhashed),
            *(self.stored_bytes, lacking, self._count, self._packed),
        )

    def _columns(self) -> list[list[Any]]:
        if not self._count:
            return [[] for _ in range(FIELDS + len(COPIED))]
        columns: list[list[Any]] = marshal.loads(zstandard.decompress(self._packed))  # noqa: S302 - made by `_pack`
        return columns


def summaries_of(path: str, rows: Iterable[Row]) -> Iterator[Summary]:
    """Yield the summaries of a folder's rows."""
    sender = path.partition("/")[0]
    # Of 1,000 streams most have the same dataset, kind and flags, and each is a base.
    one: dict[str, str] = {}
    for row in rows:
        shared: list[Any] = [one.setdefault(each, each) if type(each) is str else each for each in row[FIELDS:]]
        yield Summary(f"{path}/{row[NAME]}", sender, *shared)


def _pack(rows: list[Row]) -> bytes:
    if not rows:
        return b""
    columns = [list(column) for column in zip(*rows, strict=True)]
    columns[_CTIME] = [row[_CTIME] - row[_MTIME] for row in rows]
    columns[NAME] = [_template(row[NAME], row[_SNAPSHOT], row[_GUID], row[_BASE]) for row in rows]
    columns[_SHA256] = [_short(row[_SHA256]) for row in rows]
    # Marshal version 2 does not look for repetitions: zstd does. The result of zstandard keeps a buffer of the size of
    # the raw bytes; a copy does not.
    return bytes(memoryview(zstandard.compress(marshal.dumps(columns, 2), _LEVEL)))


def _template(name: str, snapshot: str, guid: str, base_guid: str | None) -> str:
    """Return a name with marks for what the manifest has as well; unchanged if that cannot be reversed."""
    one, other = f"{int(guid):016x}", f"{int(base_guid or 0):016x}"
    short = name.replace(one, _GUID_MARK).replace(other, _BASE_MARK).replace(snapshot, _SNAPSHOT_MARK)
    if snapshot and name.isprintable() and snapshot.isprintable():  # neither has marks of its own
        return short
    again = short.replace(_GUID_MARK, one).replace(_BASE_MARK, other).replace(_SNAPSHOT_MARK, snapshot)
    return short if again == name and not short.startswith(_PLAIN) else _PLAIN + name


def _name(template: str, snapshot: str, guid: str, base_guid: str | None) -> str:
    if template.startswith(_PLAIN):
        return template[1:]
    whole = template.replace(_GUID_MARK, f"{int(guid):016x}").replace(_BASE_MARK, f"{int(base_guid or 0):016x}")
    return whole.replace(_SNAPSHOT_MARK, snapshot)


def _short(sha256: str | None) -> bytes | str | None:
    """Return a SHA-256 as bytes, if it has the usual form."""
    try:
        short = bytes.fromhex(sha256 or "")
    except ValueError:
        return sha256
    return short if short.hex() == sha256 else sha256


def contains(numbers: array[int], number: int) -> bool:
    """Whether a number is among these, which are in order."""
    at = bisect_left(numbers, number)
    return at < len(numbers) and numbers[at] == number
