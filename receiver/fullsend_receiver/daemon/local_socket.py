"""The socket on which commands ask the daemon on their host: STORE/.state/socket, for the store's owner and root.

Three things keep others out. No other user may enter the folder `.state`. The socket has mode 0600. Each side asks the
kernel for the user of the other one (SO_PEERCRED). None of this crosses a network.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
from collections.abc import Iterator
from typing import Final

from fullsend_receiver.store.api import Store
from fullsend_receiver.store.errors import StoreError

_NAME: Final = "socket"
_BACKLOG: Final = 16
#: struct ucred of unix(7): pid, uid, gid.
_UCRED: Final = struct.Struct("iII")


def listen(store: Store) -> socket.socket:
    """Listen for commands. Replaces the socket that a killed daemon left: the caller is the only daemon that serves
    this store. Raises: StoreError if others may enter the folder, OSError.
    """
    with _folder(store) as folder:
        status = os.stat(folder)
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
            msg = f"{store.home}: must belong to uid {os.geteuid()}, and no other user may enter it (mode 0700)"
            raise StoreError(msg)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{folder}/{_NAME}")
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listening.setblocking(False)
            listening.bind(f"{folder}/{_NAME}")
            os.chmod(f"{folder}/{_NAME}", 0o600)  # before `listen`: until then no process can connect
            listening.listen(_BACKLOG)
        except BaseException:
            listening.close()
            raise
    return listening


def remove(store: Store) -> None:
    """Remove the socket, so that no command tries to connect. Raises: OSError."""
    with _folder(store) as folder, contextlib.suppress(FileNotFoundError):
        os.unlink(f"{folder}/{_NAME}")


def connect(store: Store, timeout: float) -> socket.socket | None:
    """Connect to the daemon that serves a store; None if there is none, or none that this user may ask.

    `timeout`: seconds, for this and for each later operation of the socket. Raises: StoreError if another user listens
    there, TimeoutError if the daemon does not accept the connection.
    """
    with contextlib.suppress(FileNotFoundError, ConnectionRefusedError, PermissionError, NotADirectoryError):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout)
            with _folder(store) as folder:
                connection.connect(f"{folder}/{_NAME}")
            check_peer(connection)
        except BaseException:
            connection.close()
            raise
        return connection
    return None


def check_peer(connection: socket.socket) -> None:
    """Check that the other side is this user or root. Raises: StoreError."""
    said = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _pid, uid, _gid = _UCRED.unpack(said)
    if uid not in {os.geteuid(), 0}:
        msg = f"uid {uid} is at the other end of the store's socket"
        raise StoreError(msg)


@contextlib.contextmanager
def _folder(store: Store) -> Iterator[str]:
    """Make a short path of the state folder: that of a socket has at most 107 bytes. It stays the same folder."""
    descriptor = os.open(store.home, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
