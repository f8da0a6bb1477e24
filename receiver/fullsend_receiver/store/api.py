"""What the receiver asks of a store, whatever holds it: the interface of every implementation, and its errors.

A stored stream is an object with a name (`names.stream_file`), a manifest and a `.sha256`. It is there once its
manifest is. A stream that arrives is an upload with a key (`opened.partial_key`), and ends once: committed, kept or
discarded.

Whatever passes `tests/receiver/store/test_api.py` is a store. Nothing above this room asks where a store keeps its
bytes, but for the modules that tests/test_house.py lists. All methods block; call them off the event loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from fullsend_protocol.shared.errors import ErrorCode, FullsendError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import PurePosixPath

    from fullsend_protocol.format.manifest import Manifest, Resumption
    from fullsend_receiver.store.journal import Batch, Journal, Standing
    from fullsend_receiver.store.opened import Opened

_T = TypeVar("_T")


class StoreError(FullsendError):
    """The store is missing, not mounted, read-only, full, or unfit."""

    code = ErrorCode.STORE


class StoreFull(StoreError):  # noqa: N818 - reads as an adjective
    """The store has no room for as much as a name."""

    code = ErrorCode.SPACE


class PartialDamaged(StoreError):  # noqa: N818 - reads as an adjective
    """A disk has lost what it had taken of a partial."""


class ManifestError(StoreError):
    """A manifest cannot be read, or is not that of the place where it lies."""

    def __init__(self, path: str, what: str) -> None:
        """`path`: of the manifest, relative to the store; `what`: the rest of the line that says it."""
        super().__init__(f"{path}: {what}")
        self.path = path
        self.what = what


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an implementation can do beyond the least.

    `part_size`: stored bytes that an acknowledgement waits for at least, 0: each batch is durable by itself, however
    small. `can_truncate`: an upload resumes at the end of any chunk, else at the end of a part. `can_read_partials`:
    `Upload.read` gives back what was appended. `free_space_known`: `free_bytes` is a limit.
    """

    part_size: int
    can_truncate: bool
    can_read_partials: bool
    free_space_known: bool


#: What `free_bytes` returns where the free space is not known.
UNLIMITED: Final = (1 << 63) - 1


#: What tells a manifest from the one that takes its place.
Stamp = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """A stored stream. `size`: of its `.zst`, in bytes; `stamp`: of its manifest."""

    file: PurePosixPath
    size: int
    stamp: Stamp


class Blob(Protocol):
    """The bytes of a stored `.zst`, to be read. For any thread."""

    @property
    def size(self) -> int:
        """Its bytes. Raises: OSError."""

    def read(self, start: int, size: int) -> bytes:
        """Return bytes of it; fewer at its end. Raises: OSError."""

    def close(self) -> None:
        """Let go of it."""


@dataclass(frozen=True, slots=True)
class Document:
    """A small document. `tag`: what tells it from the one that takes its place."""

    data: bytes
    tag: str


class Documents(Protocol):
    """Small documents, each replaced as a whole and durably, by any number of processes."""

    def get(self, name: str) -> Document | None:
        """Return a document; None: there is none. Raises: OSError."""

    def put(self, name: str, data: bytes, *, if_match: str | None) -> bool:
        """Replace a document, where it still has this tag (None: where there still is none). Returns: whether it was
        replaced. Raises: OSError.
        """


def update(documents: Documents, name: str, change: Callable[[bytes | None], bytes | None]) -> None:
    """Replace a document by what `change` makes of it; None: leave it. `change` is called again where another process
    was quicker. Raises: OSError, and what `change` raises.
    """
    while True:
        found = documents.get(name)
        data = change(None if found is None else found.data)
        if data is None or documents.put(name, data, if_match=None if found is None else found.tag):
            return


class UploadInfo(Protocol):
    """An upload that has not ended, as it lies there. Each property reads, and raises OSError, PartialDamaged."""

    @property
    def key(self) -> str:
        """What tells it apart."""

    @property
    def opened(self) -> Opened | None:
        """What it is; None where its begin was cut short."""

    @property
    def last(self) -> float:
        """When something arrived last, in seconds since the epoch by the store's clock."""

    @property
    def journal(self) -> Journal:
        """How much of it is durable, and whether its commit has begun."""

    @property
    def places(self) -> tuple[Standing | None, Standing | None]:
        """Where it resumes: at the end of what is durable, and by a token; None: nowhere."""

    @property
    def arriving(self) -> bool:
        """Whether somebody has it open."""


class Upload(Protocol):
    """A stream that is arriving. `append` may run while `sync` runs in another thread; nothing else may run beside
    anything.

    It ends once, by `commit` or by `close`: the first that is called decides. Its owner calls `close` in any case. A
    process that ends before leaves what is durable.
    """

    @property
    def key(self) -> str:
        """What tells it apart."""

    @property
    def size(self) -> int:
        """Bytes that were appended."""

    @property
    def begun(self) -> str | None:
        """When its stream was first offered, by the receiver's clock. Raises: OSError, PartialDamaged."""

    def append(self, frame: bytes | memoryview) -> None:
        """Append a frame. Raises: OSError; nothing can be appended then, but what came before can become durable."""

    def sync(self, batch: Batch) -> int:
        """Make durable what was appended, through this batch. Returns: raw bytes that are durable now.

        Raises: OSError; nothing of the batch may be acknowledged then, and nothing later: what is tried then raises
        StoreError.
        """

    def note_resumed(self, resumption: Resumption) -> None:
        """Write down that the stream resumes; durable with the next batch at the latest. Raises: OSError."""

    def catch_up(self, most: int) -> bool:
        """Hash at most so many bytes of what an earlier process appended. Returns: whether all is hashed.

        Raises: PartialDamaged where the disk has lost something of it; it is set aside then. OSError.
        """

    def read(self, start: int, size: int) -> bytes:
        """Return bytes that were appended; fewer at the end. Only with `can_read_partials`. Raises: as `catch_up`."""

    def seal(self, chunks: int) -> tuple[int, str]:
        """Append index and seek table for so many chunks, and make them durable. All batches must be durable.

        Returns: the size in bytes, and the SHA-256 of all of it in hex. Raises: OSError, StoreError, PartialDamaged.
        """

    def commit(self, file: PurePosixPath, manifest: Manifest) -> bool:
        """Put the sealed stream in place under a name: it is stored, durable and listed, with its manifest. From some
        moment on a restart completes what is left.

        Returns: False where another stream of this name was there first: that one stays, and this one is discarded.
        Raises: StoreError, OSError; `close` then keeps it, whatever its caller wants, where the commit has begun.
        """

    def close(self, *, keep: bool) -> None:
        """End it: keep what is durable, to be resumed, or discard it. Does nothing where it has ended.

        Raises: OSError where it cannot be discarded.
        """


class Store(Protocol):
    """What holds all that a receiver stores."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do beyond the least."""

    @property
    def where(self) -> str:
        """Where it is, for a person."""

    @property
    def documents(self) -> Documents:
        """What may change: of each sender and of the whole store."""

    def free_bytes(self) -> int:
        """Return how many bytes may still be stored; UNLIMITED without `free_space_known`. Raises: OSError."""

    # --- what arrives

    def begin(self, key: str, opened: Opened) -> Upload:
        """Begin an upload. One of the same key is discarded, or set aside where it is damaged; its commit, had that
        begun, is completed.

        Raises: OSError, StoreError.
        """

    def reopen(self, key: str, *, at_resume_point: bool) -> tuple[Upload, Standing] | None:
        """Open an upload to resume it: where its durable bytes end, or `at_resume_point` behind the last chunk of them
        that ends with a resumable record. What is behind that place is thrown away.

        Returns: it, and where it stands; None where there is nothing to resume: then nothing is changed, but what is
        damaged is set aside. Raises: OSError, StoreError.
        """

    def uploads(self, look: Callable[[UploadInfo], _T], *, sets_aside: bool = False) -> Iterator[tuple[str, _T]]:
        """Yield what `look` finds about each upload, with the key; nothing for those that are gone by then, damaged, or
        that cannot be looked at, which the log says. `sets_aside`: what is damaged is set aside; else this only reads.

        Raises: OSError where the system is short of something.
        """

    def discard(self, key: str) -> None:
        """Throw an upload away. Raises: StoreError where somebody has it open; OSError."""

    def discard_damaged(self, before: float) -> None:
        """Throw away what was set aside as damaged before that moment, in seconds since the epoch. The log says what.

        Raises: OSError where nothing can be looked at.
        """

    def recover(self) -> list[str]:
        """After a start, before all else: complete what a process that died had begun, and remove what is of no use.
        What cannot be done to one upload or object is left as it is, and the log says so.

        Returns: a line for the log for each thing done. Raises: OSError.
        """

    # --- what is stored

    def senders(self) -> list[str]:
        """Return the names of all who have streams here, or had, in order. Raises: OSError."""

    def objects(self, sender: str | None = None) -> Iterator[ObjectInfo]:
        """Yield what is stored of a sender, None: of all. Raises: OSError."""

    def has(self, file: PurePosixPath) -> bool:
        """Whether a stream is stored under this name: its manifest is in place. Raises: OSError."""

    def manifest(self, file: PurePosixPath) -> Manifest:
        """Read the manifest of a stored stream. Raises: ManifestError."""

    def stamp(self, file: PurePosixPath) -> Stamp | None:
        """Return what tells the manifest of a stream from the one that takes its place; None: there is none.

        Raises: OSError.
        """

    def size(self, file: PurePosixPath | str) -> int:
        """Return the bytes of a `.zst`. Raises: FileNotFoundError, OSError."""

    def hash_line(self, file: PurePosixPath) -> bytes:
        """Return what the `.sha256` of a stream says; nothing where it is missing. Raises: OSError."""

    def open(self, file: PurePosixPath) -> Blob:
        """Open a `.zst`, to be read. Raises: FileDamaged where it is missing; OSError."""

    def under_way(self) -> set[PurePosixPath]:
        """Return the names whose commit or removal has begun: what is missing of them is no fault. Raises: OSError."""

    def adopt(self, file: PurePosixPath, manifest: Manifest) -> None:
        """Give a `.zst` that is there without them its manifest and `.sha256`; then it is stored, durable and listed.

        Raises: StoreError where it has its manifest by now, or is just getting it; OSError.
        """

    def remove(self, choose: Callable[[], Iterable[PurePosixPath]]) -> list[PurePosixPath]:
        """Remove what `choose` returns, in that order: what builds on a stream stands before it. One process removes at
        a time, and `choose` is called in its turn: it reads what uploads lease, see `wait_for_removals`. A restart
        completes what has begun; a stream that is stored again under the same name meanwhile stays.

        Returns: what was removed, and was there. Raises: StoreError, OSError, and what `choose` raises.
        """

    def wait_for_removals(self) -> None:
        """Wait until each removal that has begun is done. What finds its base after that, with its own upload begun
        before, keeps it. Raises: OSError.
        """
