"""Where the records of a snapshot come from: a stored full, or a full and its increments, merged while they are read.

In a package (`zfs send -R`, `-I`) the snapshot is one of several, and its full and increments are substreams.

All bytes are proven: those of the store by the hashes that were proven when they arrived, those of other files by the
SHA-256 beside them or the checksums inside them. The proof is complete only when a pass has ended without an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final, Protocol

from fullsend_protocol.dataset.objects import REFUSAL, ObjectReader
from fullsend_protocol.shared.errors import StreamError, UnsupportedStream
from fullsend_protocol.shared.units import printable
from fullsend_protocol.stream.merge import MergeInput, merge
from fullsend_protocol.stream.substreams import Substream, SubstreamFinder, cut_out
from fullsend_receiver.maintenance.merge_inputs import MergeFile, StoredInput, in_order, proving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from fullsend_protocol.stream.checksums import Piece
    from fullsend_protocol.stream.records import Begin
    from fullsend_receiver.catalogue.rows import Summary
    from fullsend_receiver.store.api import Store

    #: The name of a file, for errors, and what begins a pass over its raw bytes.
    _Pass = tuple[str, Callable[[], Iterator[Piece]]]

#: Names of a package that an error names.
_NAMES_MAX: Final = 20


class StreamRemoved(StreamError):  # noqa: N818 - reads as what it says
    """A prune has removed a stream that is being read."""


class SnapshotSource(Protocol):
    """A snapshot that can be read from its first record to its last, as often as needed.

    `name`: for errors; `key`: names exactly these bytes in this store, as a name of a file; None: nothing is kept.
    """

    @property
    def name(self) -> str: ...

    @property
    def key(self) -> str | None: ...

    def opened(self) -> AbstractContextManager[ObjectReader]:
        """Begin a pass. Inside, and when it is left: StreamError, OSError if the stream is not proven."""


@dataclass(frozen=True, slots=True)
class StoredSource:
    """A stream of the store. `chain`: its full, and the increments up to it, in order.

    `snapshot`: DATASET@SNAPSHOT of a package; None: the one that the stream is named after.
    """

    store: Store
    chain: Sequence[Summary]
    snapshot: str | None = None

    @property
    def name(self) -> str:
        """The snapshot."""
        last = self.chain[-1]
        return f"{last.sender}/{self.snapshot or f'{last.dataset}@{last.snapshot}'}"

    @property
    def key(self) -> str:
        """What the chain is: the GUIDs of its streams, and when each was received."""
        row = [(each.path, each.guid, each.base_guid, each.received, each.raw_bytes) for each in self.chain]
        return hashlib.sha256(json.dumps([row, self.snapshot]).encode()).hexdigest()

    @contextlib.contextmanager
    def opened(self) -> Iterator[ObjectReader]:
        """See SnapshotSource."""
        try:
            inputs = [StoredInput(self.store, each, lambda _size: None) for each in self.chain]
            passes = [(str(each.file), each.pieces) for each in inputs]
            if self.snapshot is None and not any(each.kind == "package" for each in self.chain):
                yield _merged(self.name, passes)
            else:
                yield _chosen(self.name, passes, self.snapshot, int(self.chain[-1].guid))
        except (StreamError, FileNotFoundError):
            gone = next((each.path for each in self.chain if not self.store.has(PurePosixPath(each.path))), None)
            if gone is None:
                raise
            msg = f"{self.name}: {gone} was dropped, or merged, meanwhile: run it again"
            raise StreamRemoved(msg) from None


@dataclass(frozen=True, slots=True)
class FileSource:
    """Files outside a store. `files`: the full first; or in any order, if one may be a package.

    `snapshot`: DATASET@SNAPSHOT of a package; None: the newest that a file is named after.
    """

    files: Sequence[MergeFile]
    snapshot: str | None = None

    @classmethod
    def of(cls, paths: Sequence[Path], snapshot: str | None = None) -> FileSource:
        """Read the beginning of files in any order. Raises: InputUnreadable, StreamError."""
        files = [MergeFile(path) for path in paths]
        if snapshot is not None or any(each.may_be_package for each in files):
            return cls(files, snapshot)
        files = in_order(files)
        if files[0].base_guid is not None:
            msg = (
                f"{files[0].path} is an increment on the snapshot with GUID {files[0].base_guid}: {REFUSAL} without it;"
                " name that file, too"
            )
            raise UnsupportedStream(msg)
        return cls(files)

    @property
    def name(self) -> str:
        """The newest file."""
        return str(self.files[-1].path)

    @property
    def key(self) -> None:
        """Nothing is kept of them."""
        return

    @contextlib.contextmanager
    def opened(self) -> Iterator[ObjectReader]:
        """See SnapshotSource."""
        with proving(self.files):
            passes = [(str(each.path), each.pieces) for each in self.files]
            if self.snapshot is None and not any(each.may_be_package for each in self.files):
                yield _merged(self.name, passes)
            else:
                yield _chosen(self.name, passes, self.snapshot, None)


@dataclass(frozen=True, slots=True)
class PackagePart:
    """A substream of a file. `file`: its name, for errors; `pieces`: begins a pass over the raw bytes of the file.
    `top`: DATASET@SNAPSHOT that the file is named after.
    """

    file: str
    pieces: Callable[[], Iterator[Piece]]
    substream: Substream
    top: str

    @property
    def begin(self) -> Begin:
        """The substream's BEGIN."""
        return self.substream.begin

    @property
    def one_pass(self) -> _Pass:
        """The same as a stream of its own."""
        return f"{self.file}, {self.begin.name}", lambda: cut_out(self.pieces(), self.substream)


def parts_of(file: str, pieces: Callable[[], Iterator[Piece]]) -> list[PackagePart]:
    """Return the substreams of a file, which takes a pass over it. Raises: StreamError, OSError."""
    finder = SubstreamFinder()
    for piece in pieces():
        finder.feed(piece)
    found = finder.finish()
    return [PackagePart(file, pieces, each, finder.name) for each in found]


def _chosen(name: str, passes: Sequence[_Pass], snapshot: str | None, guid: int | None) -> ObjectReader:
    """Return a reader of one snapshot among those in all files. `passes`: of each file.

    `snapshot`: which one; None: that with this GUID. Both None: the newest that a file is named after.

    Raises: UnsupportedStream if it, or a base of it, is not there.
    """
    parts = [part for file, pieces in passes for part in parts_of(file, pieces)]
    if snapshot is not None:
        last = [each for each in parts if each.begin.name == snapshot]
    elif guid is not None:
        last = [each for each in parts if each.begin.guid == guid]
    else:
        named = [each for each in parts if each.begin.name == each.top]
        last = sorted(named, key=lambda each: each.begin.created)
    if not last:
        wanted = snapshot or (f"guid:{guid}" if guid is not None else parts[-1].top)
        names = [printable(each.begin.name) for each in parts]
        more = f", and {len(names) - _NAMES_MAX} more" if len(names) > _NAMES_MAX else ""
        msg = f"{name} has no {printable(wanted)}: it has {', '.join(names[:_NAMES_MAX])}{more}"
        raise UnsupportedStream(msg)
    chain = [last[-1]]
    bases = {each.begin.guid: each for each in parts if each.begin.base_guid}
    bases |= {each.begin.guid: each for each in parts if not each.begin.base_guid}
    while base_guid := chain[0].begin.base_guid:
        base = bases.pop(base_guid, None)
        if base is None:
            first = printable(chain[0].begin.name)
            msg = f"{name}: {first} is an increment on the snapshot with GUID {base_guid}: {REFUSAL} without it"
            raise UnsupportedStream(msg)
        chain.insert(0, base)
    return _merged(chain[-1].one_pass[0], [each.one_pass for each in chain])


def _merged(name: str, passes: Sequence[_Pass]) -> ObjectReader:
    """Return a reader of a full, or of a full and its increments."""
    inputs = [MergeInput(file, pieces()) for file, pieces in passes]
    return ObjectReader(name, inputs[0].pieces if len(inputs) == 1 else merge(inputs))
