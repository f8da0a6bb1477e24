"""Stored streams in a folder, each a `.zst` with its manifest and its `.sha256`: read, list, adopt and remove.

A removal is logged before its first step, in STORE/.state/removing.json, so that a restart completes it:

    {"format": 1, "streams": [{"file": relative to the store, "manifest": [inode, time of writing in ns, size]}, ...]}

Each stream loses its manifest first, then its `.sha256`, then its `.zst`. Each step is durable before the next. While
its `.zst` exists, no other stream is committed under its name; after that there is nothing left to remove. If its
`.zst` was lost before, its manifest is removed last.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from fullsend_protocol.format.manifest import Manifest
from fullsend_protocol.format.names import is_stream, manifest_of
from fullsend_protocol.wire.invitation import is_sender_name
from fullsend_receiver.store.api import ObjectInfo, Stamp
from fullsend_receiver.store.durable import ABSENT, locked, replace_file, signature, sync_folder, sync_folders
from fullsend_receiver.store.errors import ManifestError, StoreError
from fullsend_receiver.store.names import hash_line
from fullsend_receiver.store.partials import committing
from fullsend_receiver.store.seekable import FileDamaged

if TYPE_CHECKING:
    from fullsend_receiver.store.layout import Layout

log = logging.getLogger("fullsendd")

_REMOVING: Final = "removing.json"
_FORMAT: Final = 1


class LocalBlob:
    """A `Blob`: an open file."""

    def __init__(self, path: Path) -> None:
        """Open the file. Raises: FileDamaged if it is missing; OSError."""
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            msg = "the file is missing"
            raise FileDamaged(msg) from None

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return os.fstat(self._descriptor).st_size

    def read(self, start: int, size: int) -> bytes:
        """Return its bytes; fewer at its end. Raises: OSError."""
        return os.pread(self._descriptor, size, start)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def read_manifest(store: Layout, file: PurePosixPath) -> Manifest:
    """Read the manifest of a stored file. Raises: ManifestError."""
    path = manifest_of(str(file))
    data = b""
    try:
        data = (store.root / path).read_bytes()
        manifest = Manifest.model_validate_json(data)
    except (OSError, ValidationError) as error:
        spoilt = isinstance(error, ValidationError) and not _is_of_later_version(data)
        raise ManifestError(path, f"cannot be read: {_why(error)}", spoilt=spoilt) from None
    if manifest.sender != file.parts[0]:
        raise ManifestError(path, f"belongs to sender {manifest.sender}: it was moved")
    return manifest


def _is_of_later_version(data: bytes) -> bool:
    """Whether a manifest that this version cannot read may be a good one, of another format."""
    try:
        said: Any = json.loads(data)
    except ValueError:
        return False
    return isinstance(said, dict) and said.get("format") != Manifest.model_fields["format"].default


def read_hash_line(store: Layout, file: PurePosixPath) -> bytes:
    """Return the content of a file's `.sha256`, empty if it is missing. Raises: OSError."""
    try:
        return store.hash_path(file).read_bytes()
    except FileNotFoundError:
        return b""


def stamp(store: Layout, file: PurePosixPath) -> Stamp | None:
    """Return the identity of a file's manifest. See `Store.stamp`."""
    found = signature(store.manifest_path(file))
    return None if found == ABSENT else found


def senders(store: Layout) -> list[str]:
    """Return the names of all senders that have a folder here. Raises: OSError."""
    with os.scandir(store.root) as entries:
        return sorted(entry.name for entry in entries if is_sender_name(entry.name) and entry.is_dir())


def listed(store: Layout, sender: str | None) -> Iterator[ObjectInfo]:
    """Yield the streams that have a manifest. See `Store.objects`."""
    for name in senders(store) if sender is None else [sender]:
        for folder, _folders, files in os.walk(store.root / name, onerror=_raise):
            there = set(files)
            for each in sorted(files):
                if is_stream(each) and manifest_of(each) in there:
                    file = PurePosixPath(Path(folder, each).relative_to(store.root))
                    with contextlib.suppress(FileNotFoundError):  # is being removed
                        if (found := stamp(store, file)) is not None:
                            yield ObjectInfo(file, (store.root / file).stat().st_size, found)


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def adopt(store: Layout, file: PurePosixPath, manifest: Manifest) -> None:
    """Make manifest and `.sha256` for a file. See `Store.adopt`."""
    path = store.root / file
    try:
        _sync(path, store)
    except OSError as error:
        msg = f"{file}: has no manifest, and none can be made: {error}"
        raise StoreError(msg) from None
    # The next start looks in `.state` for what a crash leaves behind, and takes the lock for that.
    with locked(store.lock):
        target = store.manifest_path(file)
        if file in under_way(store) or target.exists():
            msg = f"{file}: has its manifest by now, or is about to get it"
            raise StoreError(msg)
        line = hash_line(manifest.file_sha256, file)
        replace_file(store.hash_path(file), line, 0o640, beside=store.state)
        replace_file(target, manifest.to_json(), 0o640, beside=store.state)


def _sync(path: Path, store: Layout) -> None:
    """Make a file durable that another program has put there: a manifest promises that it is."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_folders(path, store.root)


# --- removing -----------------------------------------------------------------------------------------------------


def remove(store: Layout, choose: Callable[[], Iterable[PurePosixPath]]) -> list[PurePosixPath]:
    """Remove what `choose` returns. See `Store.remove`."""
    with locked(store.lock):
        _finish(store)
        chosen = {}
        for file in choose():
            if (found := stamp(store, file)) is not None:
                chosen[file] = found
        if chosen:
            said = [{"file": str(file), "manifest": found} for file, found in chosen.items()]
            line = json.dumps({"format": _FORMAT, "streams": said}, indent=1).encode() + b"\n"
            replace_file(store.state / _REMOVING, line)
            _finish(store)
        return list(chosen)


def wait_for_removals(store: Layout) -> None:
    """Wait until each removal that began before this call is done. See `Store.wait_for_removals`."""
    with locked(store.lock):
        pass


def under_way(store: Layout) -> set[PurePosixPath]:
    """Return the files that are being put in place or removed. See `Store.under_way`."""
    removed: Iterable[PurePosixPath] = ()
    try:
        removed = _logged(store)
    except StoreError as error:
        log.error("%s", error)  # noqa: TRY400 - where it was found says nothing
    return committing(store).union(removed)


def finish_removals(store: Layout) -> list[str]:
    """Complete an interrupted removal. Returns: a line for each removed stream. Raises: OSError."""
    with locked(store.lock):
        try:
            return [f"{file}: its removal was interrupted and is complete now" for file in _finish(store)]
        except StoreError as error:
            log.error("%s", error)  # noqa: TRY400 - where it was found says nothing
            return []


def _finish(store: Layout) -> list[PurePosixPath]:
    """Remove what the log names. The caller holds the store's lock. Returns: the removed files. Raises: StoreError,
    OSError.
    """
    if not (store.state / _REMOVING).exists():
        return []
    logged = _logged(store)
    # In this order: a `.zst` that was there before the journals were read is that of a commit that they tell of, of one
    # that has ended by now, which the stamp shows, or the one to remove; and while it is there, no commit begins.
    there = {file for file in logged if (store.root / file).exists()}
    commits = committing(store)
    done = []
    for file, chosen in logged.items():
        zst, sha256, manifest = store.root / file, store.hash_path(file), store.manifest_path(file)
        found = stamp(store, file)
        if file in there and file not in commits and found in {None, chosen}:
            _unlink(manifest, sha256, zst)
            done.append(file)
        elif file not in there and found == chosen:
            _unlink(sha256, manifest)  # the file that keeps other streams from this name comes last
            done.append(file)
    (store.state / _REMOVING).unlink()
    sync_folder(store.state)
    return done


def _unlink(*paths: Path) -> None:
    """Remove files, each durably before the next."""
    for path in paths:
        path.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):  # another program has removed the folder, too
            sync_folder(path.parent)


def _logged(store: Layout) -> dict[PurePosixPath, Stamp]:
    """Return the files that the log names, with the stamps of their manifests.

    Raises: StoreError if this version does not understand the log, which then stays for a version that does; OSError.
    """
    path = store.state / _REMOVING
    try:
        said: Any = json.loads(path.read_bytes())
        if said["format"] == _FORMAT:
            return {PurePosixPath(each["file"]): _stamp_from(each["manifest"]) for each in said["streams"]}
        why = f"it has format {said['format']!r}"
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        why = f"{type(error).__name__}: {error}"
    msg = f"{path}: is not in the form that this version of fullsendd writes, so nothing is removed: {why}"
    raise StoreError(msg)


def _stamp_from(said: object) -> Stamp:
    if not isinstance(said, list) or not all(type(each) is int for each in said):
        msg = f"{said!r} is not a stamp"
        raise TypeError(msg)
    return tuple(said)


def _why(error: OSError | ValidationError) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error).splitlines()[0]
