"""Writes the image of a volume: a sparse file with the block device's bytes."""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING, Final

from fullsend_protocol.dataset.contents import read_contents
from fullsend_protocol.shared.errors import OutputFailed, UnsupportedStream, reason
from fullsend_receiver.maintenance.merge_files import OutputExists
from fullsend_receiver.store.durable import sync_folder, write_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fullsend_protocol.dataset.objects import ObjectReader
    from fullsend_receiver.files.index import FileIndex
    from fullsend_receiver.files.sources import SnapshotSource

#: ZVOL_OBJ (include/sys/zvol_impl.h): the object that has the blocks.
_DATA: Final = frozenset({1})


def write_image(source: SnapshotSource, index: FileIndex, path: Path) -> int:
    """Write a new file with a volume's bytes. It gets its name when the stream is proven, and is durable then.

    Returns: its size in bytes. Raises: OutputExists, OutputFailed, StreamError, OSError of the stream's files: then
    there is no file of that name.
    """
    size = index.volume_size
    if size is None:
        msg = f"{index.name} is a file system, not a volume: leave out --volume, and name paths"
        raise UnsupportedStream(msg)
    if path.exists():
        msg = f"{path} is there already: name another file, or remove it"
        raise OutputExists(msg)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
    try:
        with _writing(path):
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with source.opened() as reader:
                _copy(reader, descriptor, size, path)
            with _writing(path):
                os.ftruncate(descriptor, size)
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        with _writing(path):
            os.link(temporary, path)  # which, unlike a rename, replaces nothing
            sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return size


def _copy(reader: ObjectReader, descriptor: int, size: int, path: Path) -> None:
    for block in read_contents(reader, _DATA):
        with _writing(path):
            os.lseek(descriptor, block.offset, os.SEEK_SET)
            write_all(descriptor, memoryview(block.data)[: max(size - block.offset, 0)])


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        msg = f"{path} was made meanwhile: name another file"
        raise OutputExists(msg) from None
    except OSError as error:
        msg = f"{path} cannot be written: {reason(error)}"
        raise OutputFailed(msg) from None
