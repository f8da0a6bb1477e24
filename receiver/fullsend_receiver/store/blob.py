"""An open `.zst` file, in a store or anywhere else, for reading."""

from __future__ import annotations

import contextlib
import mmap
import os
from typing import TYPE_CHECKING

from fullsend_receiver.store.seekable import FileDamaged

if TYPE_CHECKING:
    from pathlib import Path


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

    def forget(self, start: int, size: int) -> None:
        """Have the kernel drop its copy of these bytes. See `Blob.forget`."""
        # The kernel ignores a page that is only partly named, except the last one of the file.
        begin = start // mmap.PAGESIZE * mmap.PAGESIZE
        with contextlib.suppress(OSError):  # advice: a file system may not take it
            os.posix_fadvise(self._descriptor, begin, start + size - begin, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
