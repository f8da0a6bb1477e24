"""Stored streams in a folder, each a `.zst` with its manifest and its `.sha256`: read, list and adopt."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from fullsend_protocol.format.manifest import Manifest
from fullsend_protocol.format.names import is_stream, manifest_of
from fullsend_protocol.shared.errors import reason
from fullsend_protocol.wire.invitation import is_sender_name
from fullsend_receiver.store.api import ObjectInfo
from fullsend_receiver.store.blob import LocalBlob
from fullsend_receiver.store.durable import locked, replace_file, sync_folders
from fullsend_receiver.store.errors import ManifestError, StoreError
from fullsend_receiver.store.names import hash_line
from fullsend_receiver.store.removals import stamp, under_way
from fullsend_receiver.store.seekable import FileDamaged

if TYPE_CHECKING:
    from fullsend_receiver.store.layout import Layout


def read_manifest(store: Layout, file: PurePosixPath, top: Path | None = None) -> Manifest:
    """Read the manifest of a file below `top`, None: the store's folder. Raises: ManifestError."""
    path = manifest_of(str(file))
    data = b""
    try:
        data = ((top or store.root) / path).read_bytes()
        manifest = Manifest.model_validate_json(data)
    except (OSError, ValidationError) as error:
        unread = error if isinstance(error, OSError) else None
        spoilt = unread is None and not _is_of_later_version(data)
        why = reason(error).splitlines()[0]
        raise ManifestError(path, f"cannot be read: {why}", unread=unread, spoilt=spoilt) from None
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


def forget(store: Layout, file: PurePosixPath) -> None:
    """Have the kernel drop its copies of a stream's three files. See `Store.forget`."""
    for path in (store.root / file, store.manifest_path(file), store.hash_path(file)):
        with contextlib.suppress(OSError, FileDamaged):  # reading it shows why
            blob = LocalBlob(path)
            try:
                blob.forget(0, blob.size)
            finally:
                blob.close()


def senders(store: Layout) -> list[str]:
    """Return the names of all senders that have a folder here. Raises: OSError."""
    with os.scandir(store.root) as entries:
        return sorted(entry.name for entry in entries if is_sender_name(entry.name) and entry.is_dir())


def looked_at(store: Layout, files: Collection[PurePosixPath]) -> Iterator[ObjectInfo]:
    """Yield those of these streams that have a manifest. See `Store.objects`."""
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            if (found := stamp(store, file)) is not None:
                yield ObjectInfo(file, (store.root / file).stat().st_size, found)


def listed(store: Layout, sender: str | None) -> Iterator[ObjectInfo]:
    """Yield the streams that have a manifest. See `Store.objects`."""
    for name in senders(store) if sender is None else [sender]:
        for folder, _folders, files in os.walk(store.root / name, onerror=_raise):
            there = set(files)
            path = Path(folder).relative_to(store.root)
            streams = [each for each in sorted(files) if is_stream(each) and manifest_of(each) in there]
            yield from looked_at(store, [PurePosixPath(path, each) for each in streams])


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def adopt(store: Layout, file: PurePosixPath, manifest: Manifest) -> None:
    """Make manifest and `.sha256` for a file. See `Store.adopt`."""
    path = store.root / file
    try:
        _sync(path, store)
    except OSError as error:
        msg = f"{file}: has no manifest, and none can be made: {reason(error)}"
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
