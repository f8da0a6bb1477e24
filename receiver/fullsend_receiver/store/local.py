"""The store: one folder that holds everything, identity included (docs/format.md).

STORE/.fullsend     marker: format version and random id, made only by `init`
STORE/.state/       identity, senders, invitations, and what may change: scrub results
STORE/.partial/     what is still arriving
STORE/SENDER/...    streams
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, TypeVar

from fullsend_protocol.shared.errors import UsageError
from fullsend_receiver.store import objects, partials, recovery, uploads
from fullsend_receiver.store.api import Capabilities, ObjectInfo, Stamp, StoreError, StoreFull, UploadInfo
from fullsend_receiver.store.documents import LocalDocuments
from fullsend_receiver.store.durable import make_folders, replace_file, sync_folder
from fullsend_receiver.store.objects import LocalBlob

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import PurePosixPath

    from fullsend_protocol.format.manifest import Manifest
    from fullsend_receiver.store.journal import Standing
    from fullsend_receiver.store.opened import Opened
    from fullsend_receiver.store.uploads import LocalUpload

_T = TypeVar("_T")

_FORMAT: Final = 1
_MARKER: Final = ".fullsend"
#: What docs/format.md cuts names to.
_NAME_MAX: Final = 255
#: errno values that mean "full", whether by disk, by quota, or by what a file may have.
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True, slots=True)
class LocalStore:
    """A `Store` in one folder. Making one touches nothing; `open_store` and `make_store` give one that is there."""

    capabilities: ClassVar = Capabilities(part_size=0, can_truncate=True, can_read_partials=True, free_space_known=True)

    root: Path

    @property
    def marker(self) -> Path:
        """The file that says this is a store."""
        return self.root / _MARKER

    @property
    def state(self) -> Path:
        """The folder of what may change."""
        return self.root / ".state"

    @property
    def partial(self) -> Path:
        """The folder of what is still arriving."""
        return self.root / ".partial"

    @property
    def lock(self) -> Path:
        """Held while a process changes anything in `.state`, for that change alone."""
        return self.state / "lock"

    @property
    def certificate(self) -> Path:
        """The receiver's certificate (PEM)."""
        return self.state / "certificate.pem"

    @property
    def key(self) -> Path:
        """The receiver's private key (PEM)."""
        return self.state / "key.pem"

    @property
    def where(self) -> str:
        """Where it is, for a person."""
        return str(self.root)

    @property
    def documents(self) -> LocalDocuments:
        """What may change: of each sender and of the whole store."""
        return LocalDocuments(self.state, self.lock)

    def free_bytes(self) -> int:
        """Return what an unprivileged process may still write, in bytes."""
        return shutil.disk_usage(self.root).free

    # --- what arrives; the interface says what each does

    def begin(self, key: str, opened: Opened) -> LocalUpload:
        """See `Store.begin`."""
        return uploads.begin_partial(self, key, opened)

    def reopen(self, key: str, *, at_resume_point: bool) -> tuple[LocalUpload, Standing] | None:
        """See `Store.reopen`."""
        return uploads.reopen_partial(self, key, at_resume_point=at_resume_point)

    def uploads(self, look: Callable[[UploadInfo], _T], *, sets_aside: bool = False) -> Iterator[tuple[str, _T]]:
        """See `Store.uploads`."""
        return partials.survey(self, look, sets_aside=sets_aside)

    def discard(self, key: str) -> None:
        """See `Store.discard`."""
        partials.discard_closed(self, key)

    def discard_damaged(self, before: float) -> None:
        """See `Store.discard_damaged`."""
        partials.discard_damaged(self, before)

    def recover(self) -> list[str]:
        """See `Store.recover`."""
        recovery.remove_temporaries(self)
        return recovery.recover(self) + objects.finish_removals(self)

    # --- what is stored; the interface says what each does

    def senders(self) -> list[str]:
        """See `Store.senders`."""
        return objects.senders(self)

    def objects(self, sender: str | None = None) -> Iterator[ObjectInfo]:
        """See `Store.objects`."""
        return objects.listed(self, sender)

    def has(self, file: PurePosixPath) -> bool:
        """See `Store.has`."""
        return objects.manifest_path(self, file).exists()

    def manifest(self, file: PurePosixPath) -> Manifest:
        """See `Store.manifest`."""
        return objects.read_manifest(self, file)

    def stamp(self, file: PurePosixPath) -> Stamp | None:
        """See `Store.stamp`."""
        return objects.stamp(self, file)

    def size(self, file: PurePosixPath | str) -> int:
        """See `Store.size`."""
        return os.stat(f"{self.root}/{file}").st_size

    def hash_line(self, file: PurePosixPath) -> bytes:
        """See `Store.hash_line`."""
        return objects.read_hash_line(self, file)

    def open(self, file: PurePosixPath) -> LocalBlob:
        """See `Store.open`."""
        return LocalBlob(self.root / file)

    def under_way(self) -> set[PurePosixPath]:
        """See `Store.under_way`."""
        return objects.under_way(self)

    def adopt(self, file: PurePosixPath, manifest: Manifest) -> None:
        """See `Store.adopt`."""
        objects.adopt(self, file, manifest)

    def remove(self, choose: Callable[[], Iterable[PurePosixPath]]) -> list[PurePosixPath]:
        """See `Store.remove`."""
        return objects.remove(self, choose)

    def wait_for_removals(self) -> None:
        """See `Store.wait_for_removals`."""
        objects.wait_for_removals(self)


def make_store(root: Path, furnish: Callable[[LocalStore], None]) -> tuple[LocalStore, str]:
    """Make a new store in an empty or missing folder; parents are made too. `furnish` puts in what is to be there
    before it is a store.

    Returns: the store, and the id in its marker. Raises: UsageError where something is there already, StoreError, and
    whatever `furnish` does; nothing is left behind then, but the folder.
    """
    store = LocalStore(root)
    if store.marker.exists():
        msg = f"{root}: is a store already; take it over with --adopt"
        raise UsageError(msg)
    try:
        make_folders(root)
        if any(entry.name != "lost+found" for entry in root.iterdir()):
            msg = f"{root}: not empty and no store; choose an empty folder"
            raise UsageError(msg)
        store.state.mkdir(mode=0o700)  # of two at once, one gets further
    except OSError as error:
        msg = f"{root}: cannot make a store: {error}"
        raise StoreError(msg) from None
    try:
        store.partial.mkdir(mode=0o700)
        furnish(store)
        sync_folder(root)
        store_id = secrets.token_hex(16)
        # The marker comes last: a store with a marker is whole.
        replace_file(store.marker, json.dumps({"format": _FORMAT, "id": store_id}).encode() + b"\n", 0o640)
    except BaseException as error:
        shutil.rmtree(store.state, ignore_errors=True)
        shutil.rmtree(store.partial, ignore_errors=True)
        store.marker.unlink(missing_ok=True)
        if isinstance(error, OSError):
            msg = f"{root}: cannot make a store: {error}"
            raise StoreError(msg) from None
        raise
    return store, store_id


def read_id(root: Path) -> str:
    """Return the id in a store's marker. Raises: StoreError where there is none, or of another format."""
    try:
        marker = json.loads((root / _MARKER).read_text(encoding="utf-8"))
        store_format, store_id = marker["format"], str(marker["id"])
    except FileNotFoundError:
        msg = f"{root}: no store here (no file {_MARKER}): is its disk mounted?"
        raise StoreError(msg) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"{root / _MARKER}: cannot be read: {error}"
        raise StoreError(msg) from None
    if store_format != _FORMAT:
        msg = f"{root}: a store of format {store_format}; this fullsendd reads format {_FORMAT}"
        raise StoreError(msg)
    return store_id


def open_store(root: Path, store_id: str) -> LocalStore:
    """Return the store at `root`. Raises: StoreError where it is missing, or has another id than `store_id`."""
    found = read_id(root)
    if found != store_id:
        msg = f"{root}: is store {found}, but the configuration names {store_id}: another disk is mounted there"
        raise StoreError(msg)
    return LocalStore(root)


def check_fitness(store: LocalStore) -> None:
    """Try what the promises rest on: rename, fsync of a folder, names of 255 bytes, and that differ in case.

    Names alone are tried: a disk that is full of data is as fit as ever. Raises: StoreFull where there is no room for a
    name either, so that nothing could be tried; StoreError, saying what this file system does not do. Leaves nothing
    behind.
    """
    probe = store.state / f".Probe-{secrets.token_hex(4)}.tmp"  # a name that the next start removes
    renamed = probe.with_name(probe.name.replace("Probe", "Renamed"))
    try:
        longest = os.pathconf(store.root, "PC_NAME_MAX")
        if longest < _NAME_MAX:
            msg = f"{store.root}: its file system has names of {longest} bytes, and {_NAME_MAX} are needed"
            raise StoreError(msg)
        probe.touch(exist_ok=False)
        if probe.with_name(probe.name.swapcase()).exists():
            msg = f"{store.root}: its file system takes upper and lower case for the same; choose another"
            raise StoreError(msg)
        probe.rename(renamed)
        sync_folder(store.state)
        if not os.access(store.root, os.W_OK):
            msg = f"{store.root}: cannot be written to by uid {os.geteuid()}"
            raise StoreError(msg)
    except OSError as error:
        if error.errno in FULL:
            msg = f"{store.root}: is full ({error.strerror}): free some space; whether it is fit cannot be tried before"
            raise StoreFull(msg) from None
        msg = f"{store.root}: not fit for a store: {error}"
        raise StoreError(msg) from None
    finally:
        # Not where a disk has gone: that must not hide what was found.
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
            renamed.unlink(missing_ok=True)
