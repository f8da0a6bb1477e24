"""Addresses of this host that behave as those of other hosts do."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator


@contextlib.contextmanager
def dead(host: str, port: int) -> Iterator[None]:
    """Make an address of this host swallow what connects to it: its queue of connections is full."""
    with contextlib.ExitStack() as open_ones:
        server = open_ones.enter_context(socket.socket())
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((host, port))
        server.listen(0)
        for _ in range(2):  # one is queued; the other one, and each after it, is not
            filling = open_ones.enter_context(socket.socket())
            filling.setblocking(False)
            assert filling.connect_ex((host, port)) == errno.EINPROGRESS
        yield
