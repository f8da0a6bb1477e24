"""Writes files that are whole and durable, or do not exist at all."""

from __future__ import annotations

import contextlib
import os
import tempfile

#: The mode of a new file. These files have no secrets.
_MODE = 0o644


def sync(path: str) -> None:
    """Make a file's bytes, or the names in a folder, durable. Raises: OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(path: str, text: str) -> None:
    """Replace a file as a whole: after a crash it is the old one or the new one.

    Its mode stays; a link is followed; a missing folder is created. Raises: OSError; the file is unchanged then.
    """
    path = os.path.realpath(path)
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    mode = os.stat(path).st_mode & 0o777 if os.path.exists(path) else _MODE
    descriptor, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(path)}-", dir=folder)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync(folder)
