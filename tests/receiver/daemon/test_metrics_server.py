"""GET /metrics, and whatever else may arrive on that port."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fullsend_receiver.daemon.metrics_server import CONNECTIONS_MAX, REQUEST_MAX, TIME_LIMIT, MetricsServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

PAGE = b"# TYPE a gauge\na 1\n"
GET = b"GET /metrics HTTP/1.1\r\nHost: localhost:9812\r\nAccept: text/plain\r\n\r\n"


@contextlib.asynccontextmanager
async def serving(page: bytes | None = PAGE, time_limit: float = TIME_LIMIT) -> AsyncGenerator[tuple[str, int]]:
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    address = listening.getsockname()
    running = asyncio.create_task(MetricsServer(lambda: page, time_limit=time_limit).run([listening]))
    try:
        yield address
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def ask(address: tuple[str, int], request: bytes, *, end: bool = False) -> bytes:
    """Send a request, and return all that comes back. `end`: nothing else will follow."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(request)
        if end:
            writer.write_eof()
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def status(address: tuple[str, int], request: bytes) -> int:
    return int((await ask(address, request)).split()[1])


async def test_the_page() -> None:
    async with serving() as address:
        head, _, body = (await ask(address, GET)).partition(b"\r\n\r\n")
        assert head.split(b"\r\n") == [
            b"HTTP/1.1 200 OK",
            b"Content-Type: text/plain; version=0.0.4; charset=utf-8",
            b"Content-Length: 19",
            b"Connection: close",
        ]
        assert body == PAGE
        head_only = await ask(address, GET.replace(b"GET", b"HEAD"))
        assert head_only == head + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("request_line", "code"),
    [
        (b"GET /metrics?format=prometheus HTTP/1.0", 200),
        (b"GET / HTTP/1.1", 404),
        (b"GET /metrics/../etc/passwd HTTP/1.1", 404),
        (b"POST /metrics HTTP/1.1", 405),
        (b"get /metrics HTTP/1.1", 400),
        (b"GET /metrics HTTP/2", 400),
        (b"GET /metrics", 400),
        (b"", 400),
        (b"\x16\x03\x01\x02\x00\x01", 400),
    ],
)
async def test_other_requests_are_answered(request_line: bytes, code: int) -> None:
    async with serving() as address:
        assert await status(address, request_line + b"\r\n\r\n") == code


async def test_there_is_no_page_before_the_first() -> None:
    async with serving(None) as address:
        assert await status(address, GET) == 503


@pytest.mark.parametrize("line", [b"x", b"GET /metrics HTTP/1.1\r\n", b"\r\n"])
async def test_a_request_without_an_end_is_too_long(line: bytes) -> None:
    async with serving() as address:
        # More than the limit by more than an end of lines: asyncio looks for one that the limit would cut.
        request = line * (REQUEST_MAX // len(line) + 8) if line != b"\r\n" else b"a" * (REQUEST_MAX + 8) + b"\r"
        answer = await ask(address, request)
        assert answer == b"" or answer.split()[1] == b"431"
        assert await status(address, GET) == 200


async def test_a_slow_client_is_dropped() -> None:
    async with serving(time_limit=0.05) as address:
        assert await ask(address, b"GET /metrics") == b""


async def test_a_client_that_does_not_read_is_dropped() -> None:
    async with serving(b"a 1\n" * (8 << 20), time_limit=0.2) as address:
        with socket.create_connection(address) as sock:
            sock.sendall(GET)
            while not _serving():
                await asyncio.sleep(0.01)
            while _serving():
                await asyncio.sleep(0.01)
            # The server has left it, after what the kernel had taken.
            assert await asyncio.to_thread(_drained, sock) < 32 << 20


def _serving() -> bool:
    """Whether the server has a connection."""
    return any("MetricsServer._serve" in repr(task) for task in asyncio.all_tasks())


def _drained(sock: socket.socket) -> int:
    sock.settimeout(30)
    got = 0
    with contextlib.suppress(ConnectionError):
        while piece := sock.recv(1 << 20):
            got += len(piece)
    return got


async def test_too_many_at_a_time_are_dropped() -> None:
    async with serving() as address:
        waiting = [await asyncio.open_connection(*address) for _ in range(CONNECTIONS_MAX)]
        while await ask(address, GET):  # until the server has seen all of them
            await asyncio.sleep(0)
        waiting[0][1].close()
        while not await ask(address, GET):
            await asyncio.sleep(0)
        for _reader, writer in waiting:
            writer.close()


async def test_the_end_of_the_server_ends_its_connections() -> None:
    async with serving() as address:
        reader, writer = await asyncio.open_connection(*address)
        assert await status(address, GET) == 200
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    writer.close()
    with pytest.raises(ConnectionError):
        await asyncio.open_connection(*address)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.binary(max_size=300) | st.sampled_from([b"GET ", b"/metrics", b" HTTP/1.1", b"\r\n", b"\r\n\r\n", b"\n"]),
        max_size=12,
    )
)
@example([b"\r\n\r\n"])
@example([b"GET /metrics HTTP/1.1\r\n\r\n", b"GET /metrics HTTP/1.1\r\n\r\n"])
@example([b"G" * REQUEST_MAX, b"\r\n\r\n"])
async def test_garbage_gets_an_answer_or_none_and_harms_nobody(pieces: list[bytes]) -> None:
    async with serving() as address:
        answer = await ask(address, b"".join(pieces), end=True)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 ")
        assert await status(address, GET) == 200
