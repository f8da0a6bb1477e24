"""Turns a sealed partial into a stored stream: three renames, the manifest's last (docs/format.md, "Write order").

Each step may be repeated. If the process dies, the journal has the `commit` line, and the next process completes it.

The streams that were merged into it are removed behind it, by the same commit: the line names them, too. Until it is in
place they all stay.

A damaged stream of the same name gives way: its files are set aside before the new ones take their names, but its
manifest stays in place until the new one replaces it, in one rename. So either the one or the other is listed. The
store's lock is held meanwhile, because a removal chooses a stream by its name and its manifest.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import secrets
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from fullsend_protocol.format.names import HASH_SUFFIX, MANIFEST_SUFFIX
from fullsend_receiver.store.api import Replaced
from fullsend_receiver.store.damaged import ABOUT, MANIFEST, ZST, about_text, aside_path, move_aside
from fullsend_receiver.store.durable import (
    ABSENT,
    locked,
    signature,
    sync_folder,
    write_file,
)
from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store.folders import make_folder, refuse_other_file_system
from fullsend_receiver.store.journal import Journal, Replacement, Superseded
from fullsend_receiver.store.marker import check_mounted
from fullsend_receiver.store.partials import ASIDE_ABOUT, ASIDE_MANIFEST, DATA, discard, partial_path
from fullsend_receiver.store.removals import finish_superseding

if TYPE_CHECKING:
    from fullsend_receiver.store.layout import Layout

log = logging.getLogger("fullsendd")


@contextlib.contextmanager
def undisturbed(store: Layout, *, lock: bool) -> Iterator[None]:
    """Hold the store's lock inside this context, if `lock`: no stream is removed, or brought back, meanwhile."""
    if not lock:
        yield
        return
    with locked(store.lock):
        yield


def may_take(store: Layout, file: PurePosixPath, replaces: Replaced | None) -> bool:
    """Whether a commit may take this name: no stream is stored there, or only the one that it replaces.

    Raises: StoreError if a `.zst` without manifest stands there.
    """
    found = signature(store.manifest_path(file))
    if found == ABSENT:
        refuse_orphan(store, file)
        return True
    return replaces is not None and found == replaces.stamp


def prepare_replacement(store: Layout, key: str, file: PurePosixPath, replaces: Replaced | None) -> Replacement | None:
    """Write what is set aside beside the files of a damaged stream. Returns: the replacement for the journal; None if
    nothing is stored under this name, so that nothing has to give way. Raises: OSError.
    """
    if replaces is None or not is_stored(store, file):
        return None
    write_file(partial_path(store, key, ASIDE_ABOUT), about_text(file, replaces.why))
    manifest = store.manifest_path(file).read_bytes()
    write_file(partial_path(store, key, ASIDE_MANIFEST), manifest)
    return Replacement(hashlib.sha256(manifest).hexdigest(), secrets.token_hex(8))


def is_stored(store: Layout, file: PurePosixPath) -> bool:
    """Whether a stream is stored in this file: its manifest is in place."""
    return store.manifest_path(file).exists()


def refuse_orphan(store: Layout, file: PurePosixPath) -> None:
    """Refuse to overwrite a `.zst` without manifest: it may be the only copy. Raises: StoreError."""
    if (store.root / file).exists():
        msg = f"{file}: exists without its manifest; run `fullsendd verify` to take it back into the store"
        raise StoreError(msg)


def complete(store: Layout, key: str, said: Journal, *, held: bool = False) -> bool:
    """Complete a commit that was interrupted. `said`: its journal, which has the `commit` line; `held`: the caller
    holds the store's lock. Returns: as `put_in_place`.
    """
    assert said.committing is not None  # noqa: S101 - for mypy: the caller has looked
    check_mounted(store)
    make_folder(store, (store.root / said.committing).parent)
    lock = said.replacing is not None or said.superseded is not None
    with undisturbed(store, lock=lock and not held):
        return put_in_place(store, key, said.committing, said.replacing, said.superseded, held=lock or held)


def put_in_place(
    store: Layout,
    key: str,
    file: PurePosixPath,
    replacing: Replacement | None = None,
    superseded: Superseded | None = None,
    *,
    held: bool,
) -> bool:
    """Rename the three files into place, `.json` last. May be repeated after a crash at any point. `replacing`: the
    stream of this name that gives way; `superseded`: the streams that are removed then; `held`: the caller holds the
    store's lock, which it must for both.

    Returns: False if another stream of this name is stored; that one is not changed, and this one is discarded.
    Raises: StoreError, OSError.
    """
    target = store.root / file
    data, sha256, manifest = (partial_path(store, key, suffix) for suffix in (DATA, HASH_SUFFIX, MANIFEST_SUFFIX))
    in_place = True
    # Without the partial's manifest the last rename is done; at most the clean-up remains.
    if manifest.exists():
        if replacing is None:
            in_place = _claim(store, data, file, held=held)
        else:
            in_place = _supersede(store, key, file, replacing)
        if in_place:
            _move(sha256, store.hash_path(file))
            sync_folder(target.parent)
            _move(manifest, store.manifest_path(file))
            sync_folder(target.parent)
    if in_place and superseded is not None:
        finish_superseding(store, superseded)
    discard(store, key)
    return in_place


def _claim(store: Layout, data: Path, file: PurePosixPath, *, held: bool) -> bool:
    """Rename the data file into place, unless another stream has that name. Returns: whether it is in place."""
    target = store.root / file
    # Held from the check that a name is free to the rename that takes it: a command may be bringing a stream back.
    with undisturbed(store, lock=not held):
        if target.exists() and not _is_moved(data, target):
            if is_stored(store, file):
                return False
            refuse_orphan(store, file)
        _move(data, target)
        return True


def _supersede(store: Layout, key: str, file: PurePosixPath, replacing: Replacement) -> bool:
    """Set the files of a damaged stream aside, and rename the data file into their place. The damaged stream's manifest
    stays. Returns: False if another stream is stored there by now.
    """
    with contextlib.suppress(FileNotFoundError):  # it was removed by hand, and nothing is in the way
        manifest = store.manifest_path(file).read_bytes()
        if hashlib.sha256(manifest).hexdigest() != replacing.manifest:
            return False
    data, sha256 = partial_path(store, key, DATA), partial_path(store, key, HASH_SUFFIX)
    target = store.root / file
    for prepared, suffix in ((ASIDE_ABOUT, ABOUT), (ASIDE_MANIFEST, MANIFEST)):
        with contextlib.suppress(FileNotFoundError):  # an earlier process has moved it
            partial_path(store, key, prepared).rename(aside_path(store, replacing.aside, suffix))
    for new, old, suffix in ((data, target, ZST), (sha256, store.hash_path(file), HASH_SUFFIX)):
        if not _is_moved(new, old):
            move_aside(store, old, replacing.aside, suffix)
    # Before anything takes their names: otherwise a power cut might leave them nowhere.
    sync_folder(store.partial)
    sync_folder(target.parent)
    _move(data, target)
    return True


def _is_moved(source: Path, destination: Path) -> bool:
    """Whether an earlier process has renamed a file. After a power cut it may have both names."""
    return not source.exists() or (destination.exists() and source.samefile(destination))


def _move(source: Path, destination: Path) -> None:
    try:
        source.rename(destination)
    except FileNotFoundError:
        if not destination.exists():  # otherwise an earlier process has moved it
            msg = f"{destination}: lost during its commit: it is neither there nor at {source}"
            raise StoreError(msg) from None
    except OSError as error:
        if error.errno == errno.EXDEV:
            refuse_other_file_system(destination.parent)
        raise
