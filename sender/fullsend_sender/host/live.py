"""What other processes of this user, or of root, transfer now: a small file for each, which `fullsend top` reads.

A file is replaced as a whole, and each is locked before it has its name. The kernel gives the lock back when its
process ends, however that ends: so a file without a lock is stale.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import threading
import time
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from fullsend_protocol.wire.live import LiveTransfer
from fullsend_sender.host.locks import default_folder, private_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

_SUFFIX: Final = ".live"
#: What is added to the name of a file that is being made; and the seconds after which its process must have ended.
_NEW: Final = ".new"
_NEW_FOR: Final = 60.0
#: A file is replaced once a second, so it is not replaced twice while it is read.
_TRIES: Final = 3
#: Bytes of a file. It has names of some hundred characters.
_SIZE_MAX: Final = 64 << 10


class LiveFile:
    """The file of one transfer. `name`: tells it from others. Thread-safe."""

    def __init__(self, folder: str | None = None) -> None:
        """Makes nothing before `write`. `folder`: None: see `default_folder`."""
        self.name: Final = f"{os.getpid()}.{secrets.token_hex(4)}"
        self._folder = folder or default_folder()
        self._lock = threading.Lock()
        self._descriptor = -1  # of the present file, which is locked
        self._closed = False

    @property
    def _path(self) -> str:
        return os.path.join(self._folder, self.name + _SUFFIX)

    def write(self, transfer: LiveTransfer) -> None:
        """Replace what the file says. Does nothing after `close`. Raises: OSError, UsageError."""
        with self._lock:
            if self._closed:
                return
            private_folder(self._folder)
            temporary = self._path + _NEW
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(temporary, flags, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.write(descriptor, transfer.model_dump_json().encode())
                os.rename(temporary, self._path)
            except BaseException:
                os.close(descriptor)
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
            self._release()
            self._descriptor = descriptor

    def close(self) -> None:
        """Remove the file. Raises nothing."""
        with self._lock:
            self._closed = True
            if self._descriptor >= 0:
                with contextlib.suppress(OSError):
                    os.unlink(self._path)
            self._release()

    def _release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def read_live(folder: str | None = None) -> Iterator[LiveTransfer]:
    """Yield the transfers that are under way, and remove the files of processes that have ended. `folder`: None: see
    `default_folder`. Raises: OSError if the folder cannot be read, UsageError if it belongs to another user.
    """
    folder = folder or default_folder()
    if not os.path.isdir(folder):
        return
    private_folder(folder)
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        with contextlib.suppress(OSError, ValidationError):  # removed at this moment, or no such file
            if name.endswith(_SUFFIX):
                for _ in range(_TRIES):
                    found, settled = _read(path)
                    if found is not None:
                        yield found
                    if settled:
                        break
            elif name.endswith(_SUFFIX + _NEW) and time.time() - os.stat(path).st_mtime > _NEW_FOR:
                os.unlink(path)


def _read(path: str) -> tuple[LiveTransfer | None, bool]:
    """Return what a file says, None: nothing; and whether that is so. It is not if the file was replaced meanwhile.

    Raises: OSError, ValidationError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return LiveTransfer.model_validate_json(os.read(descriptor, _SIZE_MAX)), True
        # A file that was replaced has no lock, either; its successor has this name.
        if not os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False)):
            return None, False
        os.unlink(path)
        return None, True
    finally:
        os.close(descriptor)
