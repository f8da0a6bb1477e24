"""Where the records of a snapshot come from: a stored full, or a full and its increments, merged while they are read.

All bytes are proven: those of the store by the hashes that were proven when they arrived, those of other files by the
SHA-256 beside them or the checksums inside them. The proof is complete only when a pass has ended without an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Protocol

from fullsend_protocol.dataset.objects import REFUSAL, ObjectReader
from fullsend_protocol.shared.errors import StreamError, UnsupportedStream
from fullsend_protocol.stream.merge import MergeInput, merge
from fullsend_receiver.maintenance.merge_files import MergeFile, in_order, proving
from fullsend_receiver.maintenance.merging import StoredInput

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from fullsend_receiver.catalogue.rows import Summary
    from fullsend_receiver.store.api import Store


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
    """A stream of the store. `chain`: its full, and the increments up to it, in order."""

    store: Store
    chain: Sequence[Summary]

    @property
    def name(self) -> str:
        """The snapshot."""
        last = self.chain[-1]
        return f"{last.sender}/{last.dataset}@{last.snapshot}"

    @property
    def key(self) -> str:
        """What the chain is: the GUIDs of its streams, and when each was received."""
        row = [(each.path, each.guid, each.base_guid, each.received, each.raw_bytes) for each in self.chain]
        return hashlib.sha256(json.dumps(row).encode()).hexdigest()

    @contextlib.contextmanager
    def opened(self) -> Iterator[ObjectReader]:
        """See SnapshotSource."""
        try:
            inputs = [StoredInput(self.store, each, lambda _size: None) for each in self.chain]
            yield _reader(self.name, [MergeInput(str(each.file), each.pieces()) for each in inputs])
        except (StreamError, FileNotFoundError):
            gone = next((each.path for each in self.chain if not self.store.has(PurePosixPath(each.path))), None)
            if gone is None:
                raise
            msg = f"{self.name}: {gone} was dropped, or merged, meanwhile: run it again"
            raise StreamRemoved(msg) from None


@dataclass(frozen=True, slots=True)
class FileSource:
    """Files outside a store. `files`: the full first."""

    files: Sequence[MergeFile]

    @classmethod
    def of(cls, paths: Sequence[Path]) -> FileSource:
        """Read the beginning of files in any order. Raises: InputUnreadable, StreamError."""
        files = in_order([MergeFile(path) for path in paths])
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
            yield _reader(self.name, [MergeInput(str(each.path), each.pieces()) for each in self.files])


def _reader(name: str, inputs: Sequence[MergeInput]) -> ObjectReader:
    """Return a reader of a full, or of a full and its increments."""
    return ObjectReader(name, inputs[0].pieces if len(inputs) == 1 else merge(inputs))
