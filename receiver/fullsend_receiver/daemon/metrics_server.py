"""The metrics over HTTP, for Prometheus on this host: GET /metrics, and nothing else.

One request a connection. Whatever a client sends, it costs at most REQUEST_MAX bytes and TIME_LIMIT, and at most
CONNECTIONS_MAX clients are served at a time.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final

from fullsend_protocol.format.metrics_text import CONTENT_TYPE

log: Final = logging.getLogger("fullsendd")

#: Bytes of a request; Prometheus sends some 300.
REQUEST_MAX: Final = 8192
#: Seconds for a connection, from its first byte to its last. Prometheus waits as long for an answer.
TIME_LIMIT: Final = 10.0
#: Connections at a time. One monitoring system needs one.
CONNECTIONS_MAX: Final = 16

_END: Final = b"\r\n\r\n"
_REQUEST: Final = re.compile(rb"([A-Z]{1,16}) (\S+) HTTP/1\.[01]\r\n")


class MetricsServer:
    """Answers with the newest metrics."""

    def __init__(self, text: Callable[[], bytes | None], *, time_limit: float = TIME_LIMIT) -> None:
        """`text`: returns the newest metrics, None: there are none yet; `time_limit`: seconds for a connection."""
        self._text = text
        self._time_limit = time_limit
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, sockets: Sequence[socket.socket]) -> None:
        """Serve on these sockets, which listen, until cancelled. They are closed then, and all connections ended."""
        servers = [await asyncio.start_server(self._let_in, sock=sock, limit=REQUEST_MAX) for sock in sockets]
        try:
            await asyncio.Event().wait()
        finally:
            for server in servers:
                server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _let_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(self._time_limit):
                writer.write(self._answer(await _request(reader)))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, asyncio.IncompleteReadError):  # the client is slow, or has left
            log.debug("a client of the metrics was too slow, or has left")
        finally:
            writer.transport.abort()

    def _answer(self, request: bytes | None) -> bytes:
        """Return the whole answer to a request; None: it was too long."""
        if request is None:
            return _response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        match = _REQUEST.match(request)
        if match is None:
            return _response(HTTPStatus.BAD_REQUEST)
        if match[2].partition(b"?")[0] != b"/metrics":
            return _response(HTTPStatus.NOT_FOUND)
        if match[1] not in {b"GET", b"HEAD"}:
            return _response(HTTPStatus.METHOD_NOT_ALLOWED)
        text = self._text()
        if text is None:
            return _response(HTTPStatus.SERVICE_UNAVAILABLE)
        return _response(HTTPStatus.OK, text, head_only=match[1] == b"HEAD")


async def _request(reader: asyncio.StreamReader) -> bytes | None:
    """Return the head of a request; None: it is too long. Raises: IncompleteReadError, OSError."""
    try:
        return await reader.readuntil(_END)
    except asyncio.LimitOverrunError:
        return None


def _response(status: HTTPStatus, text: bytes | None = None, *, head_only: bool = False) -> bytes:
    kind = "text/plain; charset=utf-8" if text is None else CONTENT_TYPE
    body = f"{status.value} {status.phrase}\n".encode() if text is None else text
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *(["Allow: GET, HEAD"] if status is HTTPStatus.METHOD_NOT_ALLOWED else []),
    ]
    head = "\r\n".join(lines).encode() + _END
    return head if head_only else head + body
