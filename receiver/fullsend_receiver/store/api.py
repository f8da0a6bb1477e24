"""The interface between the receiver and a store, the same for every implementation, and its errors.

A stored stream is an object with a name (`names.stream_file`), a manifest and a `.sha256`. It exists once its manifest
exists. An arriving stream is an upload with a key (`opened.partial_key`). It ends once: committed, kept or discarded.

An implementation is a store if it passes `tests/receiver/store/test_api.py`. No module of a higher room knows where a
store keeps its bytes, except the modules in the list of tests/test_house.py. All methods block; call them off the event
loop.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import astuple, dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar

from fullsend_receiver.store.races import pause

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

    from fullsend_protocol.format.manifest import Manifest, Resumption
    from fullsend_protocol.wire.messages import Record
    from fullsend_receiver.store.errors import ManifestError
    from fullsend_receiver.store.event_journal import EventJournal
    from fullsend_receiver.store.journal import Batch, Standing, UploadProgress
    from fullsend_receiver.store.opened import Opened
    from fullsend_receiver.store.seekable import Blob

_T = TypeVar("_T")


#: Both numbers of `space` if the free space is unknown; bytes of a stream where nothing limits them.
UNLIMITED: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The optional abilities of an implementation.

    `part_size`: stored bytes without which nothing is acknowledged, 0: each batch is durable by itself, however small.
    `can_truncate`: an upload resumes at the end of any chunk, otherwise at the end of a part. `can_read_partials`:
    `Upload.read` returns what was appended. `free_space_known`: `space` is a limit. `look_every`: seconds between two
    looks at whether the store is there, and at what other processes may have changed: each may cost a request.
    `relook_every`: seconds between two looks at everything, for what was not reported; docs/operations.md promises it.
    `stream_most`: bytes of one stored stream, at most. `patience`: seconds after the last arrival for which another
    host may have an upload open, which `UploadInfo.arriving` does not tell; None: one host alone writes to the store.
    """

    part_size: int
    can_truncate: bool
    can_read_partials: bool
    free_space_known: bool
    look_every: float = 1.0
    relook_every: float = 3600.0
    stream_most: int = UNLIMITED
    patience: float | None = None


class DiskSpace(NamedTuple):
    """Bytes of a store's disk. `free`: can still be stored; `total`: these, and what is used."""

    free: int
    total: int


#: The identity of a manifest: a manifest that replaces it has another one.
Stamp = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TrashedStream:
    """A stream in the trash. `folder`: the name that `Store.remove` was given; `file`: where it was stored; `size`: of
    its `.zst`, in bytes.
    """

    folder: str
    file: PurePosixPath
    size: int


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """A stored stream. `size`: of its `.zst`, in bytes, None: it was removed; `stamp`: of its manifest, or of what
    stands in its place; `manifest`: if it was read on the way, or why it cannot be read.
    """

    file: PurePosixPath
    size: int | None
    stamp: Stamp
    manifest: Manifest | ManifestError | None = None


#: Returns the stamp that the caller knows of a stream, if its first number is this one; None: the caller knows none.
KnownStamp = Callable[[PurePosixPath, int], Stamp | None]


def nothing_known(_file: PurePosixPath, _first: int) -> None:
    """Know no stamp: a `KnownStamp`."""
    return


@dataclass(frozen=True, slots=True)
class IndexState:
    """What a store's index says of a sender. `tag`: its identity, None: there is no index; `mark`: of its numbers,
    which begin again under another mark; `rows`: names what a reader has kept there, None: nothing; `through`: the
    number of the last change that the rows contain; `changes`: later ones, each with its number, in order.
    """

    sender: str
    tag: str | None = None
    mark: str = ""
    rows: str | None = None
    through: int = 0
    changes: tuple[tuple[int, PurePosixPath], ...] = ()

    @property
    def last(self) -> int:
        """The number of the last change."""
        return self.changes[-1][0] if self.changes else self.through


class StreamIndex(Protocol):
    """What tells a reader, for few requests, which streams of a sender have changed. Any process may write to it.

    Whatever stores or removes a stream notes that here, before it says that it is done. A note tells which stream, and
    not what has become of it: its manifest tells that.
    """

    def look(self, sender: str, known: IndexState | None = None) -> IndexState:
        """Return the present state: `known` itself if it still is. Raises: StoreError."""

    def rows(self, state: IndexState) -> bytes | None:
        """Return what is kept in this state. None: nothing, or the state has changed. Raises: StoreError."""

    def keep(self, state: IndexState, rows: bytes) -> IndexState | None:
        """Replace what is kept. `rows`: contain all changes of `state`. Returns: the new state; None: another process
        has changed the state, and nothing is kept. Raises: StoreError.
        """


@dataclass(frozen=True, slots=True)
class RequestCost:
    """What something costs in a store whose requests cost money: how many of each kind, `sent` and `received` bytes.

    `puts`: PUT and POST; `gets`: GET and HEAD; `working`: objects of them that are deleted at its end, with
    `working_bytes`.
    """

    puts: int = 0
    gets: int = 0
    lists: int = 0
    deletes: int = 0
    sent: int = 0
    received: int = 0
    working: int = 0
    working_bytes: int = 0

    def times(self, count: int) -> RequestCost:
        """Return the cost of the same, done so often."""
        return RequestCost(*(count * each for each in astuple(self)))


@dataclass(frozen=True, slots=True)
class KeptVersions:
    """What a store's place keeps of what was deleted or replaced, because a lock or the rights keep it."""

    count: int = 0
    stored_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Replaced:
    """The damaged stream that a commit replaces. `stamp`: of its manifest when it was found to be damaged; `why`: what
    is wrong with it.
    """

    stamp: Stamp
    why: str


@dataclass(frozen=True, slots=True)
class Supersedes:
    """The streams that a commit makes superfluous, because they were merged into it. `choose`: called as in
    `Store.remove`; returns them in the order of removal, and may raise: then nothing is committed. `trash`: as in
    `Store.remove`.
    """

    choose: Callable[[], Iterable[PurePosixPath]]
    trash: str | None = None


@dataclass(frozen=True, slots=True)
class AsideStream:
    """A stream, or a partial, that was set aside because it is damaged.

    `name`: what names it, also to `cat`; `what`: DATASET@SNAPSHOT, if that is known; `file`: its `.zst` for
    `Store.open`, None: it has none; `stored_bytes`: of its `.zst`, or its data; `at`: when it was set aside, in seconds
    since the epoch; `why`: what is wrong with it.
    """

    name: str
    sender: str
    what: str
    file: PurePosixPath | None
    stored_bytes: int
    at: float
    why: str


@dataclass(frozen=True, slots=True)
class Document:
    """A small document. `tag`: its identity; a document that replaces it has another one."""

    data: bytes
    tag: str


@dataclass(frozen=True, slots=True)
class ProbeFinding:
    """One thing that was tried. `what`: its name; `holds`: whether the store's place does it; `needed`: whether a store
    cannot do without it; `says`: one line more.
    """

    what: str
    holds: bool
    needed: bool
    says: str = ""


class Documents(Protocol):
    """Small documents. Any number of processes may replace one, as a whole and durably."""

    def get(self, name: str) -> Document | None:
        """Return a document; None: it does not exist. Raises: OSError."""

    def version(self, name: str) -> object:
        """Return what changes whenever the document is replaced, for less than reading it. Raises: OSError."""

    def put(self, name: str, data: bytes, *, if_match: str | None) -> bool:
        """Replace a document if it still has this tag (None: if it still does not exist). Returns: whether it was
        replaced. Raises: OSError.
        """

    def append(self, name: str, line: bytes, *, most: int) -> None:
        """Append a line, with its newline, durably; make the document if it does not exist. If it has more than `most`
        bytes then, its older half is dropped. Raises: OSError; an incomplete line may be there then.
        """


def update(documents: Documents, name: str, change: Callable[[bytes | None], bytes | None]) -> None:
    """Replace a document with the result of `change`; None: leave it. `change` is called again if another process
    replaced the document first. Raises: OSError, and what `change` raises.
    """
    for lost in itertools.count(1):
        found = documents.get(name)
        data = change(None if found is None else found.data)
        if data is None or documents.put(name, data, if_match=None if found is None else found.tag):
            return
        pause(lost)


#: Claims an upload by its key: inside the context no session of this process begins or resumes it. Yields: False if one
#: has it; then nothing is claimed. Blocks.
Claim = Callable[[str], AbstractContextManager[bool]]


def unclaimed(_key: str) -> AbstractContextManager[bool]:
    """Claim nothing, because no session runs in this process: a `Claim`."""
    return contextlib.nullcontext(True)


class UploadInfo(Protocol):
    """An upload that has not ended, for inspection. Each property reads the store, and only what it needs; raises
    OSError, PartialDamaged.
    """

    @property
    def key(self) -> str:
        """Its key."""

    @property
    def opened(self) -> Opened | None:
        """Its first line; None if the process died while beginning it."""

    @property
    def last(self) -> float:
        """The time of the last arrival, in seconds since the epoch by the store's clock."""

    @property
    def journal(self) -> UploadProgress:
        """How much of it is durable, and whether its commit has begun."""

    @property
    def places(self) -> tuple[Standing | None, Standing | None]:
        """The places to resume at: the end of what is durable, and the place for a token; None: no such place."""

    @property
    def arriving(self) -> bool:
        """Whether a process of this host has it open."""


class Upload(Protocol):
    """A stream that is arriving. `append` may run while `sync` runs in another thread; no other two calls may run at
    the same time.

    It ends once, by `commit` or by `close`: the first call decides. Its owner calls `close` in any case. If the process
    dies before that, what is durable remains.
    """

    @property
    def key(self) -> str:
        """Its key."""

    @property
    def size(self) -> int:
        """The appended bytes."""

    @property
    def begun(self) -> str | None:
        """When its stream was first offered, by the receiver's clock. Raises: OSError, PartialDamaged."""

    def append(self, frame: bytes | memoryview) -> None:
        """Append a frame. Raises: OSError; no other can be appended then, but earlier frames can become durable."""

    def sync(self, batch: Batch) -> int:
        """Make durable what was appended, through this batch. Returns: the durable raw bytes.

        Raises: OSError. Then nothing of the batch may be acknowledged, and nothing later: every later call raises
        StoreError.
        """

    def take_last(self, batch: Batch) -> None:
        """Take the last batch without making it durable: `seal` and `commit` do. Until then it is not acknowledged, and
        no frame follows. If the commit fails, `sync` may be called with it. Raises: OSError, StoreError.
        """

    def note_resumed(self, resumption: Resumption) -> None:
        """Record that the stream resumes; durable with the next batch at the latest. Raises: OSError."""

    def catch_up(self, most: int) -> bool:
        """Read back what an earlier process appended, hash it, and compare each chunk with the hash that was proven
        when it arrived: about `most` bytes, in whole chunks. Returns: whether everything is hashed.

        Raises: PartialDamaged if the disk has lost or changed some of it; the partial is set aside then. OSError.
        """

    def read(self, start: int, size: int) -> bytes:
        """Return appended bytes; fewer at the end. Only with `can_read_partials`. Raises: as `catch_up`."""

    def record(self, standing: Standing) -> Record:
        """Return the record that ends at the place at which this upload was reopened `at_resume_point`, for a sender
        that resumes behind it by a token. Raises: ChunkError if it is not there any more; as `catch_up`.
        """

    def seal(self, chunks: int) -> tuple[int, str]:
        """Append index and seek table for `chunks` chunks, and make them durable. All batches must be durable, but the
        one of `take_last`.

        Returns: the size in bytes, and the SHA-256 of the whole file in hex. Raises: OSError, StoreError,
        PartialDamaged.
        """

    def sealed(self) -> Blob:
        """Open the sealed file, before its commit, to read it once more. Only with `can_read_partials`. The caller
        closes it. Raises: FileDamaged, OSError.
        """

    def commit(
        self,
        file: PurePosixPath,
        manifest: Manifest,
        replaces: Replaced | None = None,
        supersedes: Supersedes | None = None,
    ) -> bool:
        """Put the sealed stream in place under a name: then it is stored, durable and listed, with its manifest. Once
        the commit has begun, a restart completes it.

        `replaces`: the damaged stream of this name. It is set aside; at every moment, and after any crash, either it or
        the new one is listed. None: the name must be free. `supersedes`: the streams that are removed as soon as this
        one is in place. After any crash a restart leaves either all of them without this one, or this one without them.

        Returns: False if another stream of this name was stored first: that one stays, nothing is removed, and this one
        is discarded. Raises: StoreError, OSError, what `choose` raises. If the commit has begun by then, `close` keeps
        the upload, whatever `keep` is.
        """

    def close(self, *, keep: bool) -> None:
        """End it: keep what is durable, for resuming, or discard it. Does nothing if it has ended.

        Raises: OSError if it cannot be discarded.
        """


class Hold(Protocol):
    """What a reader reads: removals leave these streams, those that they build on, and those that build on them."""

    def add(self, file: PurePosixPath) -> None:
        """Add a stream. Call `wait_for_removals` afterwards, then look for the stream. Raises: OSError."""

    def close(self) -> None:
        """End the hold. Its streams are still held for an hour: a reader that has lost its connection comes back."""


class Store(Protocol):
    """All that a receiver stores."""

    @property
    def capabilities(self) -> Capabilities:
        """The optional abilities of this store."""

    @property
    def where(self) -> str:
        """Its place, for messages."""

    @property
    def disk(self) -> str:
        """The name of its disk, for messages about read errors."""

    @property
    def home(self) -> Path:
        """A folder of this host, which no other user may enter: for the key, locks, the socket, and for what may be
        lost with the host.
        """

    @property
    def lock(self) -> Path:
        """The lock of `home`: a process holds it for each change there, for that change alone."""

    @property
    def folder(self) -> Path | None:
        """The folder in which the streams are files, under their names; None: they are no files."""

    @property
    def documents(self) -> Documents:
        """The changeable documents of each sender and of the whole store."""

    @property
    def events(self) -> EventJournal:
        """The journal of what has happened."""

    def space(self) -> DiskSpace:
        """Return what the disk has; UNLIMITED without `free_space_known`. Raises: OSError."""

    def check_mounted(self) -> None:
        """Check that the opened store is still in its place. Raises: StoreMissing if not, StoreError if it cannot be
        read.
        """

    def is_read_only(self, *, by_writing: bool = False) -> bool:
        """Whether nothing can be stored at the moment, because the disk is mounted read-only. `by_writing`: try it;
        otherwise as the kernel says, which may say nothing of a file system that has stopped writing after an error.

        Raises: OSError.
        """

    def check_fitness(self) -> None:
        """Try what the store relies on. Raises: StoreFull if it has no room for a name either, StoreReadOnly if nothing
        can be written: nothing could be tried then. StoreError with what is missing. Nothing of it is left behind.
        """

    def examine(self) -> Iterator[ProbeFinding]:
        """Try what the store's place promises, one thing after another; nothing, if `check_fitness` tries all there is.

        Raises: StoreError if the place cannot be reached; OSError. Nothing of it is left behind.
        """

    def push_cost(self, chunks: int, chunk: int, batch: int) -> RequestCost | None:
        """Return what the push of one stream costs; None: nothing is counted here. `chunks`: how many; `chunk`: stored
        bytes of each; `batch`: chunks that become durable together. Raises: ValueError if that cannot be told of so
        large a stream.
        """

    def read_cost(self, size: int, ranges: Iterable[tuple[int, int]]) -> RequestCost | None:
        """Return what it costs to read one stream; None: nothing is counted here. `size`: stored bytes; `ranges`:
        offset and size of each read, in order.
        """

    # --- arriving streams

    def begin(self, key: str, opened: Opened) -> Upload:
        """Begin an upload. An earlier one with the same key is discarded, or set aside if it is damaged. If its commit
        had begun, that is completed.

        Raises: OSError, StoreError.
        """

    def reopen(self, key: str, *, at_resume_point: bool) -> tuple[Upload, Standing] | None:
        """Open an upload to resume it: at the end of its durable bytes, or with `at_resume_point` behind the last
        durable chunk that ends with a resumable record. Bytes behind that place are deleted.

        Returns: the upload and that place; None if there is nothing to resume. Then nothing is changed, except that a
        damaged partial is set aside. Raises: OSError, StoreError.
        """

    def uploads(self, look: Callable[[UploadInfo], _T], *, sets_aside: Claim | None = None) -> Iterator[tuple[str, _T]]:
        """Yield the key and the result of `look` for each upload. Uploads that have ended meanwhile are omitted. So are
        those that are damaged or cannot be read, as far as `look` reads them, which are logged. `sets_aside`: set
        damaged ones aside, each inside this claim, after another look; None: this only reads.

        Raises: OSError if the system lacks a resource; at the end StoreMissing if the store is not in its place.
        """

    def discard(self, key: str) -> None:
        """Delete an upload. Raises: StoreError if a process has it open; OSError."""

    def set_aside(self, sender: str | None = None) -> Iterator[AsideStream]:
        """Yield what was set aside as damaged, of a sender, None: of all. Raises: OSError."""

    def aside_manifest(self, name: str) -> Manifest:
        """Read the manifest of a stream that is set aside, by its name. Raises: ManifestError."""

    def discard_damaged(self, before: float) -> None:
        """Delete and log what was set aside as damaged before this moment. `before`: seconds since the epoch.

        Raises: OSError if the files cannot be listed.
        """

    def aside(self) -> dict[str, int]:
        """Return, by sender, the bytes of stream files that are neither stored nor arriving: what waits in the trash,
        and what was set aside as damaged. Raises: OSError.
        """

    def recover(self) -> list[str]:
        """Complete what a dead process had begun, and remove useless files. Call it at the start, before anything else.
        What fails for one upload or object is logged, and leaves that one unchanged.

        Returns: a line for the log for each change. Raises: OSError.
        """

    def recover_merges(self) -> list[str]:
        """Complete the commits that dead merges had begun, and discard what else they left. Only the process that is
        `alone` in merging calls it. Returns: as `recover`. Raises: OSError.
        """

    def alone(self, work: str, *, read_only: bool = False) -> AbstractContextManager[bool]:
        """Claim this kind of work, until the context ends or the process dies. `work`: a word; `read_only`: it is of
        use also where nothing can be written.

        Yields: whether no other process has it. Raises: OSError; EROFS where nothing can be written.
        """

    # --- stored streams

    def senders(self) -> list[str]:
        """Return the names of all senders that have, or had, streams here, in order. Raises: OSError."""

    @property
    def index(self) -> StreamIndex | None:
        """What tells which streams have changed; None: this store has none, because looking is cheap."""

    def objects(
        self,
        sender: str | None = None,
        *,
        known: KnownStamp = nothing_known,
        only: Collection[PurePosixPath] | None = None,
    ) -> Iterator[ObjectInfo]:
        """Yield the stored streams of a sender, None: of all senders. What was removed may be among them.

        `known`: what need not be read again; `only`: these streams alone, for less than a look at all of them. Raises:
        OSError.
        """

    def has(self, file: PurePosixPath) -> bool:
        """Whether a stream is stored under this name: its manifest is in place. Raises: OSError."""

    def manifest(self, file: PurePosixPath) -> Manifest:
        """Read the manifest of a stored stream. Raises: ManifestError."""

    def stamp(self, file: PurePosixPath) -> Stamp | None:
        """Return the identity of a stream's manifest; None: there is no manifest.

        Raises: OSError.
        """

    def size(self, file: PurePosixPath | str) -> int:
        """Return the size of a `.zst` in bytes. Raises: FileNotFoundError, OSError."""

    def hash_line(self, file: PurePosixPath) -> bytes:
        """Return the content of a stream's `.sha256`; empty if it is missing. Raises: OSError."""

    def open(self, file: PurePosixPath) -> Blob:
        """Open a `.zst` for reading. Raises: FileDamaged if it is missing; OSError."""

    def forget(self, file: PurePosixPath) -> None:
        """Drop the copies of a stream's `.zst`, manifest and `.sha256` that this host has in memory, so that they are
        read from the disk. Nothing fails if it cannot be done.
        """

    def under_way(self) -> set[PurePosixPath]:
        """Return the names whose commit or removal has begun: a missing file of these is no fault. Raises: OSError."""

    def adopt(self, file: PurePosixPath, manifest: Manifest) -> None:
        """Make manifest and `.sha256` for a `.zst` that lacks them; then it is stored, durable and listed.

        Raises: StoreError if it has its manifest by now, or is about to get it; OSError.
        """

    def remove(self, choose: Callable[[], Iterable[PurePosixPath]], *, trash: str | None = None) -> list[PurePosixPath]:
        """Remove what `choose` returns, in that order: a stream stands behind the streams that build on it. Only one
        process removes at a time, and calls `choose` while no other does. `choose` reads what uploads lease (see
        `wait_for_removals`) and what is `held`. A restart completes what has begun. A stream that is stored under the
        same name meanwhile stays. A stream that is `locked` stays, and so does what is behind it. A full disk is no
        obstacle.

        `trash`: the streams are moved into a folder of this name in the trash, which needs room for the folders. None:
        they are deleted. Returns: the removed streams. Raises: StoreError, OSError, and what `choose` raises.
        """

    def locked(self, files: Iterable[PurePosixPath]) -> dict[PurePosixPath, float]:
        """Return those of these stored streams that the store's place lets nobody remove, each with the end of that:
        seconds since the epoch, `math.inf`: a person must end it.

        Raises: StoreError, also if the rights do not suffice to know it.
        """

    def kept_versions(self, *, sweep: bool = False) -> KeptVersions:
        """Return what of removed streams still takes room. `sweep`: delete first what nothing needs any more, and count
        also what remains of that. Raises: StoreError.
        """

    def hold(self) -> Hold:
        """Return a hold, which has no streams yet."""

    def held(self) -> set[PurePosixPath]:
        """Return the streams of all holds, of any process, that were open within the last hour. Raises: OSError."""

    def wait_for_removals(self) -> None:
        """Wait until each removal that has begun is done; complete it if its process is dead. An upload that was begun
        before this call, and finds its base afterwards, keeps its base; so does a hold, or a pin. The same holds for
        what is brought back. Raises: OSError, also if a removal cannot be completed that may still take streams.
        """

    # --- the trash

    def trashed(self) -> Iterator[TrashedStream]:
        """Yield the whole streams in the trash, in order of their folders. Raises: OSError."""

    def trashed_manifest(self, stream: TrashedStream) -> Manifest:
        """Read the manifest of a stream in the trash. Raises: ManifestError."""

    def trash_bytes(self) -> int:
        """Return the bytes of everything in the trash. Raises: OSError."""

    def bring_back(self, choose: Callable[[], Iterable[TrashedStream]]) -> list[PurePosixPath]:
        """Store again what `choose` returns, in that order: a stream stands behind its bases. `choose` is called as in
        `remove`. A restart completes what has begun. A stream whose name is taken stays in the trash.

        Returns: the streams that are stored again. Raises: StoreError, OSError, and what `choose` raises.
        """

    def empty_trash(
        self, old: Callable[[str], bool], stays: Callable[[TrashedStream, float], None] | None = None
    ) -> list[str]:
        """Delete the folders of the trash that are `old`. `stays`: is called for each stream in them that is locked,
        with the end of that (see `locked`): it stays. A full disk is no obstacle. What a dead process had begun is
        completed before; a folder that it still needs stays.

        Returns: their names. Raises: OSError if one cannot be deleted; the others are, as far as the store allows.
        """
