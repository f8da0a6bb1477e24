"""Writes the image of a volume: a sparse file with the block device's bytes."""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING

from fullsend_protocol.shared.errors import OutputExists, OutputFailed, reason

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Image:
    """A VolumeMaker that writes a new file, under another name until it is published. `size`: bytes."""

    def __init__(self, path: Path) -> None:
        """Make the file. Raises: OutputExists, OutputFailed."""
        if path.exists():
            msg = f"{path} is there already: name another file, or remove it"
            raise OutputExists(msg)
        self._path = path
        self._temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
        self.size = 0
        with self._writing():
            self._descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def volume(self, size: int) -> None:
        """See VolumeMaker."""
        self.size = size

    def data(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """See VolumeMaker. Raises: OutputFailed."""
        view = memoryview(data)
        with self._writing():
            while view:
                written = os.pwrite(self._descriptor, view, offset)
                view, offset = view[written:], offset + written

    def publish(self) -> None:
        """Make the file durable, and give it its name. All of it must be proven. Raises: OutputExists, OutputFailed:
        then there is no file of that name.
        """
        try:
            with self._writing():
                os.ftruncate(self._descriptor, self.size)
                os.fsync(self._descriptor)
                os.link(self._temporary, self._path)  # which, unlike a rename, replaces nothing
                folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove what was written."""
        os.close(self._descriptor)
        with contextlib.suppress(OSError):
            self._temporary.unlink()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except FileExistsError:
            msg = f"{self._path} was made meanwhile: name another file"
            raise OutputExists(msg) from None
        except (OSError, OverflowError) as error:
            msg = f"{self._path} cannot be written: {reason(error)}"
            raise OutputFailed(msg) from None
