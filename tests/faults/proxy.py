"""A TCP proxy that does to a connection what a bad network does, on command.

    with Proxy(receiver.port) as proxy:
        ... connect to proxy.port ...
        proxy.cut()

It forwards bytes, so what it breaks is TLS's: a flipped byte shows as a broken connection, never as a wrong one.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

_PIECE = 64 << 10
_PATIENCE = 60.0
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST


class _Pair:
    """A connection, and what is known of it. `up`: bytes that went to the receiver, and `down`: back."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server
        self.up = self.down = 0
        self.waiting = {client: b"", server: b""}  # bytes to be written to each


class Proxy:
    """Forwards connections to a port on loopback; runs in a thread of its own.

    `connections`: how many there have been; `up`, `down`: bytes to the receiver and back, over all of them.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.setblocking(False)
        self.port: int = self._listening.getsockname()[1]
        self.connections = 0
        self.up = self.down = 0
        self._pairs: list[_Pair] = []
        self._lost: list[socket.socket] = []  # half open
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._lock = threading.Condition()
        self._stopped = False
        self._refusing = False
        self._cut_at: int | None = None  # bytes up, over all connections, at which all are cut
        self._cut_each: int | None = None  # bytes up of one connection at which it is cut
        self._stalled = False
        self._half_open = False
        self._flip_at: int | None = None
        self._delay = 0.0
        self._thread = threading.Thread(target=self._run, name="proxy")

    def __enter__(self) -> Self:
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped = True
        self._nudge()
        self._thread.join()
        for pair in self._pairs:
            self._drop(pair)
        for sock in (*self._lost, self._listening, self._wake, self._woken):
            sock.close()
        self._selector.close()

    # --- commands

    def cut(self) -> None:
        """Reset all connections that are open; new ones are forwarded."""
        self._cut_at = self.up
        self._nudge()

    def cut_at(self, count: int) -> None:
        """Cut all connections when so many bytes have gone to the receiver, over all of them."""
        self._cut_at = count

    def cut_each(self, count: int | None) -> None:
        """Cut every connection when so many of its bytes have gone to the receiver; None: no more."""
        self._cut_each = count

    def refuse(self, refusing: bool = True) -> None:
        """Take no new connections: they are reset at once."""
        self._refusing = refusing

    def stall(self, stalled: bool = True) -> None:
        """Forward nothing, in neither direction; nobody is told."""
        self._stalled = stalled
        self._nudge()

    def lose(self) -> None:
        """Forget the connections that are open, without telling the receiver: to it they are half open; the client's
        are reset.
        """
        self._half_open = True
        self._nudge()

    def flip_at(self, count: int) -> None:
        """Flip a bit of the byte that goes to the receiver as the so manieth."""
        self._flip_at = count

    def delay(self, seconds: float) -> None:
        """Wait so long before each piece is forwarded."""
        self._delay = seconds

    def wait_down(self, count: int) -> None:
        """Wait until so many bytes have come from the receiver."""
        with self._lock:
            assert self._lock.wait_for(lambda: self.down >= count, _PATIENCE), f"{self.down} of {count} bytes"

    def wait_up(self, count: int) -> None:
        """Wait until so many bytes have gone to the receiver."""
        with self._lock:
            assert self._lock.wait_for(lambda: self.up >= count, _PATIENCE), f"{self.up} bytes of {count} came"

    # --- the thread

    def _nudge(self) -> None:
        with contextlib.suppress(OSError):
            self._wake.send(b"!")

    def _run(self) -> None:
        while not self._stopped:
            for key, _events in self._selector.select(0.05):
                if key.fileobj is self._listening:
                    self._accept()
                elif key.fileobj is self._woken:
                    self._woken.recv(64)
                elif key.data in self._pairs:
                    self._forward(key.data, key.fileobj)  # type: ignore[arg-type]
            if self._half_open:
                self._half_open = False
                for pair in list(self._pairs):
                    self._forget(pair)
            if self._cut_at is not None and self.up >= self._cut_at:
                self._cut_at = None
                for pair in list(self._pairs):
                    self._drop(pair)
            with contextlib.suppress(KeyError):
                for pair in self._pairs:
                    self._listen(pair)

    def _listen(self, pair: _Pair) -> None:
        """Return what can be done now: while a side must be written to, the other is not read."""
        for sock, other in ((pair.client, pair.server), (pair.server, pair.client)):
            events = 0
            if not self._stalled:
                events = selectors.EVENT_WRITE if pair.waiting[sock] else 0
                events |= 0 if pair.waiting[other] else selectors.EVENT_READ
            known = sock in self._selector.get_map()
            if events and known:
                self._selector.modify(sock, events, pair)
            elif events:
                self._selector.register(sock, events, pair)
            elif known:
                self._selector.unregister(sock)

    def _accept(self) -> None:
        client, _address = self._listening.accept()
        if self._refusing:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.close()
            return
        try:
            server = socket.create_connection(("127.0.0.1", self._target), timeout=_PATIENCE)
        except OSError:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.close()
            return
        for sock in (client, server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
        self.connections += 1
        self._pairs.append(_Pair(client, server))

    def _forward(self, pair: _Pair, sock: socket.socket) -> None:
        other = pair.server if sock is pair.client else pair.client
        try:
            if pair.waiting[sock]:
                count = sock.send(pair.waiting[sock])
                pair.waiting[sock] = pair.waiting[sock][count:]
                return
            data = sock.recv(_PIECE)
        except BlockingIOError:
            return
        except OSError:
            self._drop(pair)
            return
        if not data:
            self._drop(pair, reset=False)
            return
        if self._delay:
            time.sleep(self._delay)
        if sock is pair.client:
            data = self._spoil(data)
            self.up += len(data)
            pair.up += len(data)
        else:
            self.down += len(data)
            pair.down += len(data)
        with self._lock:
            self._lock.notify_all()
        pair.waiting[other] += data
        if self._cut_each is not None and pair.up >= self._cut_each:
            self._drop(pair)

    def _spoil(self, data: bytes) -> bytes:
        if self._flip_at is None or not self.up <= self._flip_at < self.up + len(data):
            return data
        at = self._flip_at - self.up
        self._flip_at = None
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    def _forget(self, pair: _Pair) -> None:
        """End the client's side alone; the receiver's stays as it is until the proxy goes."""
        self._pairs.remove(pair)
        for sock in (pair.client, pair.server):
            with contextlib.suppress(KeyError):
                self._selector.unregister(sock)
        pair.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        pair.client.close()
        self._lost.append(pair.server)

    def _drop(self, pair: _Pair, *, reset: bool = True) -> None:
        if pair in self._pairs:
            self._pairs.remove(pair)
        for sock in (pair.client, pair.server):
            with contextlib.suppress(KeyError):
                self._selector.unregister(sock)
            with contextlib.suppress(OSError):
                if reset:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                else:
                    with contextlib.suppress(BlockingIOError):
                        sock.send(pair.waiting[sock])
            sock.close()
