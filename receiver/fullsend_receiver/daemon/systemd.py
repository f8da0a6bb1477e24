"""The service protocol of systemd, with the standard library: sd_notify, watchdog, socket activation.

Source: sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Final

#: SD_LISTEN_FDS_START.
_FIRST_DESCRIPTOR: Final = 3


def notify(*states: str) -> None:
    """Send states to the service manager, for example `notify("READY=1")`. Does nothing if there is none."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    # If the service manager has stopped listening, the daemon still serves.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.connect(address)
        sock.sendall("\n".join(states).encode())


def watchdog_interval() -> float | None:
    """Return the interval for `notify("WATCHDOG=1")`, in seconds: half of systemd's limit. None: no watchdog."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        interval = int(os.environ["WATCHDOG_USEC"]) / 2e6
    except (KeyError, ValueError):
        return None
    return interval if interval > 0 else None


def listen_sockets() -> list[socket.socket]:
    """Return the listening sockets that systemd passed; none without socket activation."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ.get("LISTEN_FDS", "0"))
    # For this process alone, not for its children.
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    sockets = []
    for descriptor in range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + count):
        os.set_inheritable(descriptor, False)
        sock = socket.socket(fileno=descriptor)
        sock.setblocking(False)
        sockets.append(sock)
    return sockets
