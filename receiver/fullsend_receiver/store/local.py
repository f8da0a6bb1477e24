"""The store: one folder that contains everything, identity included (docs/format.md).

STORE/SENDER/...    streams
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

from fullsend_protocol.shared.errors import UsageError, reason
from fullsend_receiver.store import (
    aside,
    damaged,
    fitness,
    holds,
    marker,
    objects,
    partials,
    recovery,
    removals,
    uploads,
)
from fullsend_receiver.store.api import (
    AsideStream,
    Capabilities,
    Claim,
    DiskSpace,
    KeptVersions,
    KnownStamp,
    ObjectInfo,
    ProbeFinding,
    Stamp,
    TrashedStream,
    UploadInfo,
    nothing_known,
)
from fullsend_receiver.store.blob import LocalBlob
from fullsend_receiver.store.documents import LocalDocuments
from fullsend_receiver.store.durable import locked_now, make_folders, replace_file, sync_folder
from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store.event_journal import EventJournal
from fullsend_receiver.store.holds import LocalHold
from fullsend_receiver.store.layout import MARKER, Layout
from fullsend_receiver.store.mounts import disk_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import PurePosixPath

    from fullsend_protocol.format.manifest import Manifest
    from fullsend_receiver.store.journal import Standing
    from fullsend_receiver.store.opened import Opened
    from fullsend_receiver.store.uploads import LocalUpload

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class LocalStore(Layout):
    """A `Store` in one folder. The constructor does no I/O; `open_store` and `make_store` return an existing store."""

    capabilities: ClassVar = Capabilities(part_size=0, can_truncate=True, can_read_partials=True, free_space_known=True)

    @property
    def disk(self) -> str:
        """The device of the store's folder, and where it is mounted."""
        return disk_of(self.root)

    @property
    def home(self) -> Path:
        """See `Store.home`."""
        return self.state

    @property
    def folder(self) -> Path:
        """See `Store.folder`."""
        return self.root

    @property
    def documents(self) -> LocalDocuments:
        """The changeable documents of each sender and of the whole store."""
        return LocalDocuments(self.state, self.lock)

    @property
    def events(self) -> EventJournal:
        """See `Store.events`."""
        return EventJournal(self.event_folder)

    def space(self) -> DiskSpace:
        """Return what an unprivileged process can still write, and what it could write if the disk were empty."""
        found = shutil.disk_usage(self.root)
        return DiskSpace(found.free, found.used + found.free)

    def check_mounted(self) -> None:
        """See `Store.check_mounted`."""
        marker.check_mounted(self)

    def is_read_only(self, *, by_writing: bool = False) -> bool:
        """See `Store.is_read_only`."""
        if os.statvfs(self.root).f_flag & os.ST_RDONLY:
            return True
        if by_writing:
            try:
                os.utime(self.lock)
            except FileNotFoundError:
                return False
            except OSError as error:
                if error.errno == errno.EROFS:
                    return True
                raise
        return False

    def check_fitness(self) -> None:
        """See `Store.check_fitness`: rename, fsync of a folder, names of 255 bytes, and names that differ in case.

        Only names are tried: a disk that is full of data is still fit.
        """
        fitness.check_fitness(self)

    def examine(self) -> Iterator[ProbeFinding]:
        """See `Store.examine`: a file system promises no more than `check_fitness` tries."""
        return iter(())

    # --- arriving streams; the interface has the descriptions

    def begin(self, key: str, opened: Opened) -> LocalUpload:
        """See `Store.begin`."""
        self.check_mounted()
        return uploads.begin_partial(self, key, opened)

    def reopen(self, key: str, *, at_resume_point: bool) -> tuple[LocalUpload, Standing] | None:
        """See `Store.reopen`."""
        self.check_mounted()
        return uploads.reopen_partial(self, key, at_resume_point=at_resume_point)

    def uploads(self, look: Callable[[UploadInfo], _T], *, sets_aside: Claim | None = None) -> Iterator[tuple[str, _T]]:
        """See `Store.uploads`."""
        yield from partials.survey(self, look, sets_aside=sets_aside)
        self.check_mounted()  # an empty mount point has no partial, and shows no error

    def discard(self, key: str) -> None:
        """See `Store.discard`."""
        partials.discard_closed(self, key)

    def discard_damaged(self, before: float) -> None:
        """See `Store.discard_damaged`."""
        damaged.discard_damaged(self, before)

    def set_aside(self, sender: str | None = None) -> Iterator[AsideStream]:
        """See `Store.set_aside`."""
        return damaged.listed_aside(self, sender)

    def aside_manifest(self, name: str) -> Manifest:
        """See `Store.aside_manifest`."""
        return damaged.aside_manifest(self, name)

    def aside(self) -> dict[str, int]:
        """See `Store.aside`."""
        return aside.count(self)

    def recover(self) -> list[str]:
        """See `Store.recover`."""
        recovery.remove_temporaries(self)
        return recovery.recover(self) + removals.finish_removals(self)

    def recover_merges(self) -> list[str]:
        """See `Store.recover_merges`."""
        return recovery.recover_merges(self)

    def alone(self, work: str, *, read_only: bool = False) -> AbstractContextManager[bool]:
        """See `Store.alone`."""
        return locked_now(self.state / f"{work}.lock", read_only=read_only)

    # --- stored streams; the interface has the descriptions

    def senders(self) -> list[str]:
        """See `Store.senders`."""
        return objects.senders(self)

    @property
    def index(self) -> None:
        """See `Store.index`: the kernel reports changes in folders."""
        return

    def objects(
        self,
        sender: str | None = None,
        *,
        known: KnownStamp = nothing_known,
        only: Collection[PurePosixPath] | None = None,
    ) -> Iterator[ObjectInfo]:
        """See `Store.objects`: no manifest is read for it."""
        del known
        return objects.listed(self, sender) if only is None else objects.looked_at(self, only)

    def has(self, file: PurePosixPath) -> bool:
        """See `Store.has`."""
        return self.manifest_path(file).exists()

    def manifest(self, file: PurePosixPath) -> Manifest:
        """See `Store.manifest`."""
        return objects.read_manifest(self, file)

    def stamp(self, file: PurePosixPath) -> Stamp | None:
        """See `Store.stamp`."""
        return removals.stamp(self, file)

    def size(self, file: PurePosixPath | str) -> int:
        """See `Store.size`."""
        return os.stat(f"{self.root}/{file}").st_size

    def hash_line(self, file: PurePosixPath) -> bytes:
        """See `Store.hash_line`."""
        return objects.read_hash_line(self, file)

    def open(self, file: PurePosixPath) -> LocalBlob:
        """See `Store.open`."""
        return LocalBlob(self.root / file)

    def forget(self, file: PurePosixPath) -> None:
        """See `Store.forget`."""
        objects.forget(self, file)

    def under_way(self) -> set[PurePosixPath]:
        """See `Store.under_way`."""
        return removals.under_way(self)

    def adopt(self, file: PurePosixPath, manifest: Manifest) -> None:
        """See `Store.adopt`."""
        objects.adopt(self, file, manifest)

    def remove(self, choose: Callable[[], Iterable[PurePosixPath]], *, trash: str | None = None) -> list[PurePosixPath]:
        """See `Store.remove`."""
        return removals.remove(self, choose, trash=trash)

    def push_cost(self, chunks: int, chunk: int, batch: int) -> None:
        """See `Store.push_cost`: a disk counts no requests."""
        del chunks, chunk, batch

    def read_cost(self, size: int, ranges: Iterable[tuple[int, int]]) -> None:
        """See `Store.read_cost`."""
        del size, ranges

    def locked(self, files: Iterable[PurePosixPath]) -> dict[PurePosixPath, float]:
        """See `Store.locked`: nothing ever is."""
        del files
        return {}

    def kept_versions(self, *, sweep: bool = False) -> KeptVersions:
        """See `Store.kept_versions`: a removed file is gone."""
        del sweep
        return KeptVersions()

    def wait_for_removals(self) -> None:
        """See `Store.wait_for_removals`."""
        recovery.complete_merges(self)
        removals.wait_for_removals(self)

    def hold(self) -> LocalHold:
        """See `Store.hold`."""
        return LocalHold(self)

    def held(self) -> set[PurePosixPath]:
        """See `Store.held`."""
        return holds.held(self)

    # --- the trash; the interface has the descriptions

    def trashed(self) -> Iterator[TrashedStream]:
        """See `Store.trashed`."""
        return removals.trashed(self)

    def trashed_manifest(self, stream: TrashedStream) -> Manifest:
        """See `Store.trashed_manifest`."""
        return objects.read_manifest(self, stream.file, self.trash_folder / stream.folder)

    def trash_bytes(self) -> int:
        """See `Store.trash_bytes`."""
        return removals.trash_bytes(self)

    def bring_back(self, choose: Callable[[], Iterable[TrashedStream]]) -> list[PurePosixPath]:
        """See `Store.bring_back`."""
        return removals.bring_back(self, choose)

    def empty_trash(
        self, old: Callable[[str], bool], stays: Callable[[TrashedStream, float], None] | None = None
    ) -> list[str]:
        """See `Store.empty_trash`."""
        del stays
        return removals.empty_trash(self, old)


def require_outside(root: Path) -> None:
    """Raises: UsageError if a folder is, or would be, within a store."""
    for above in root.resolve().parents:
        if os.path.lexists(above / MARKER):
            msg = f"{root}: is within the store {above}, which would take it for a sender; choose a folder beside it"
            raise UsageError(msg)


def make_store(root: Path, furnish: Callable[[LocalStore], None]) -> tuple[LocalStore, str]:
    """Make a new store in an empty or missing folder, and missing folders above it. `furnish` adds the contents that
    must exist before the folder counts as a store.

    Returns: the store, and the id in its marker. Raises: UsageError if the folder has contents, or is within another
    store; StoreError, and what `furnish` raises. After an error only the folder remains.
    """
    store = LocalStore(root)
    if store.marker.exists():
        msg = f"{root}: is already a store; take it over with --adopt"
        raise UsageError(msg)
    require_outside(root)
    try:
        make_folders(root)
        if any(entry.name != "lost+found" for entry in root.iterdir()):
            msg = f"{root}: not empty and not a store; choose an empty folder"
            raise UsageError(msg)
        store.state.mkdir(mode=0o700)  # of two processes, only one succeeds
    except OSError as error:
        raise _not_made(root, error) from None
    try:
        store.partial.mkdir(mode=0o700)
        furnish(store)
        sync_folder(root)
        store_id = secrets.token_hex(16)
        # The marker comes last: a folder with a marker is a complete store.
        replace_file(store.marker, json.dumps({"format": marker.FORMAT, "id": store_id}).encode() + b"\n", 0o640)
    except BaseException as error:
        shutil.rmtree(store.state, ignore_errors=True)
        shutil.rmtree(store.partial, ignore_errors=True)
        store.marker.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _not_made(root, error) from None
        raise
    return store, store_id


def _not_made(root: Path, error: OSError) -> StoreError:
    return StoreError(f"{root}: cannot make a store: {reason(error)}")


def open_store(root: Path, store_id: str) -> LocalStore:
    """Return the store at `root`. Raises: StoreMissing if it is not there, or has another id than `store_id`;
    StoreError.
    """
    marker.check_id(root, store_id)
    return LocalStore(root, store_id)
