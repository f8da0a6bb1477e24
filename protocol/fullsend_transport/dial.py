"""The TCP connection to a host that may have several addresses, some of them dead (RFC 8305, "happy eyeballs").

asyncio has this as `happy_eyeballs_delay`, uvloop does not; and asyncio does not say which addresses it tried.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import threading
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any, Final

from fullsend_protocol.shared.errors import reason

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    Address = tuple[int, tuple[Any, ...]]  # family, and what connect(2) takes

#: Seconds that an address has alone before the next one is tried as well (RFC 8305, section 5).
ATTEMPT_DELAY: Final = 0.25
_NO_ANSWER: Final = "no answer"


class Dial:
    """One attempt to reach a host. `connect` may be cancelled at any time; then `tried` says how far it got."""

    def __init__(
        self, host: str, port: int, *, resolve: Callable[[str, int], Awaitable[list[Address]]] | None = None
    ) -> None:
        """`resolve`: returns the addresses of a host, the preferred one first. Raises: OSError."""
        self._host = host
        self._port = port
        self._resolve = resolve or _resolve
        self._tried: dict[str, str] | None = None  # the result by address; None: the name is not resolved

    @property
    def tried(self) -> str:
        """The addresses tried, each with its result, to append to an error's text; "" if that text has it all."""
        if self._tried is None:
            return f"; the name {self._host} was not resolved"
        return "" if self._is_plain else f"; tried {self._outcomes}"

    @property
    def _is_plain(self) -> bool:
        """Whether the host was given as an address, so that the text need not name it."""
        return list(self._tried or ()) == [self._host]

    @property
    def _outcomes(self) -> str:
        tried = self._tried or {}
        return ", ".join(tried.values() if self._is_plain else (f"{where} ({what})" for where, what in tried.items()))

    async def connect(self) -> socket.socket:
        """Return a connected socket: that of the first address to answer.

        An address is tried ATTEMPT_DELAY seconds after the one before it, or as soon as one has failed. The families of
        addresses take turns.

        Raises: OSError, whose text names the addresses tried: none could be reached, or the name is unknown.
        """
        left = interleaved(await self._resolve(self._host, self._port))
        self._tried = {}
        attempts: set[asyncio.Task[socket.socket | None]] = set()
        try:
            while left or attempts:
                if left:
                    attempts.add(asyncio.create_task(self._attempt(self._tried, *left.pop(0))))
                await asyncio.wait(
                    attempts, timeout=ATTEMPT_DELAY if left else None, return_when=asyncio.FIRST_COMPLETED
                )
                for attempt in [each for each in attempts if each.done()]:
                    attempts.remove(attempt)
                    sock = attempt.result()
                    if sock is not None:
                        return sock
            raise OSError(self._outcomes)
        finally:
            for attempt in attempts:
                attempt.cancel()
            for late in await asyncio.gather(*attempts, return_exceptions=True):
                if isinstance(late, socket.socket):
                    late.close()

    async def _attempt(self, tried: dict[str, str], family: int, address: tuple[Any, ...]) -> socket.socket | None:
        """Return a socket connected to an address, or None; `tried` gets the result."""
        where = str(address[0])
        tried[where] = _NO_ANSWER
        try:
            sock = await _connect(family, address)
        except OSError as error:
            tried[where] = _NO_ANSWER if error.errno == errno.ETIMEDOUT else _lower(reason(error))
            return None
        tried[where] = "connected"
        return sock


def interleaved(addresses: Iterable[Address]) -> list[Address]:
    """Return the addresses in order, with the families in turns, each address once (RFC 8305, section 4)."""
    families: dict[int, list[Address]] = {}
    for address in dict.fromkeys(addresses):
        families.setdefault(address[0], []).append(address)
    turns = chain.from_iterable(zip_longest(*families.values()))
    return [address for address in turns if address is not None]


async def _resolve(host: str, port: int) -> list[Address]:
    """Return the addresses of a host. Raises: OSError.

    The C library cannot be interrupted, and may wait for a name server far longer than the caller wants. The loop would
    wait at exit for a thread of its executor; it does not wait for a daemon thread.
    """
    loop = asyncio.get_running_loop()
    addresses: asyncio.Future[list[Address]] = loop.create_future()

    def look_up() -> None:
        found: list[Address] | OSError
        try:
            found = [(each[0], each[4]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        except OSError as error:
            found = error
        with contextlib.suppress(RuntimeError):  # no caller waits any more: the loop is closed
            loop.call_soon_threadsafe(tell, found)

    def tell(found: list[Address] | OSError) -> None:
        if addresses.done():
            return
        if isinstance(found, OSError):
            addresses.set_exception(found)
        else:
            addresses.set_result(found)

    threading.Thread(target=look_up, name="resolver", daemon=True).start()
    return await addresses


async def _connect(family: int, address: tuple[Any, ...]) -> socket.socket:
    """Return a socket connected to an address. Raises: OSError."""
    loop = asyncio.get_running_loop()
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Not loop.sock_connect: uvloop's resolves the address once more, and a link-local one loses its interface.
        failed = sock.connect_ex(address)
        if failed == errno.EINPROGRESS:
            answered = loop.create_future()
            loop.add_writer(sock, _settle, answered)
            try:
                await answered
            finally:
                loop.remove_writer(sock)
            failed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    except BaseException:
        sock.close()
        raise
    if failed:
        sock.close()
        raise OSError(failed, os.strerror(failed))
    return sock


def _settle(answered: asyncio.Future[None]) -> None:
    if not answered.done():
        answered.set_result(None)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
