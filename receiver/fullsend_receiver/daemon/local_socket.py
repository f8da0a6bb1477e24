"""The socket by which commands ask the daemon beside them: STORE/.state/socket, for the store's owner and root.

Three things keep others out: `.state` is a folder that nobody else may enter, the socket has mode 0600, and each side
asks the kernel who the other one is (SO_PEERCRED). Nothing of this goes over a network.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
from collections.abc import Iterator
from typing import Final

from fullsend_receiver.store.api import StoreError
from fullsend_receiver.store.local import LocalStore

_NAME: Final = "socket"
_BACKLOG: Final = 16
#: struct ucred of unix(7): pid, uid, gid.
_UCRED: Final = struct.Struct("iII")


def listen(store: LocalStore) -> socket.socket:
    """Listen for commands. What a daemon that was killed has left there is replaced: the caller is the only one that
    serves this store. Raises: StoreError where others may enter the folder, OSError.
    """
    with _folder(store) as folder:
        status = os.stat(folder)
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
            msg = f"{store.state}: must belong to uid {os.geteuid()}, and nobody else may enter it (mode 0700)"
            raise StoreError(msg)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{folder}/{_NAME}")
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listening.setblocking(False)
            listening.bind(f"{folder}/{_NAME}")
            os.chmod(f"{folder}/{_NAME}", 0o600)  # before `listen`: until then nobody can connect
            listening.listen(_BACKLOG)
        except BaseException:
            listening.close()
            raise
    return listening


def remove(store: LocalStore) -> None:
    """Remove the socket, so that no command tries it. Raises: OSError."""
    with _folder(store) as folder, contextlib.suppress(FileNotFoundError):
        os.unlink(f"{folder}/{_NAME}")


def connect(store: LocalStore, patience: float) -> socket.socket | None:
    """Connect to the daemon that serves a store; None where none runs, or this user may not ask it.

    `patience`: seconds, for this and for each later operation of the socket. Raises: StoreError where somebody else
    listens there, TimeoutError where the daemon takes no connection.
    """
    with contextlib.suppress(FileNotFoundError, ConnectionRefusedError, PermissionError, NotADirectoryError):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(patience)
            with _folder(store) as folder:
                connection.connect(f"{folder}/{_NAME}")
            check_peer(connection)
        except BaseException:
            connection.close()
            raise
        return connection
    return None


def check_peer(connection: socket.socket) -> None:
    """See that the other side is this user or root. Raises: StoreError."""
    said = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _pid, uid, _gid = _UCRED.unpack(said)
    if uid not in {os.geteuid(), 0}:
        msg = f"uid {uid} is at the other end of the store's socket"
        raise StoreError(msg)


@contextlib.contextmanager
def _folder(store: LocalStore) -> Iterator[str]:
    """Have a short path of the state folder: that of a socket has 107 bytes at most. It stays the same folder."""
    descriptor = os.open(store.state, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
