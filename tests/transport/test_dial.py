"""Hosts of several addresses, on real sockets: a listener whose queue is full swallows SYNs, as a dead address does."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import uvloop
from tests.transport.addresses import dead

from fullsend_transport import dial as dialling
from fullsend_transport.dial import Dial, interleaved

V4, V6 = socket.AF_INET, socket.AF_INET6


@contextlib.contextmanager
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def named(port: int, *hosts: str) -> Dial:
    """A host of that many addresses."""

    async def resolve(_host: str, _port: int) -> list[tuple[int, tuple[str, int]]]:
        return [(V4, (host, port)) for host in hosts]

    return Dial("nas.example", port, resolve=resolve)


@contextlib.asynccontextmanager
async def connected(dial: Dial) -> AsyncIterator[str]:
    """Where it has connected to."""
    sock = await dial.connect()
    with sock:
        assert sock.getblocking() is False
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        yield sock.getpeername()[0]


async def test_one_address() -> None:
    with listening() as port:
        async with connected(Dial("127.0.0.1", port)) as where:
            assert where == "127.0.0.1"


async def test_a_name() -> None:
    with listening() as port:
        async with connected(Dial("localhost", port)) as where:
            assert where == "127.0.0.1"


@pytest.mark.parametrize("hosts", [("127.0.0.2", "127.0.0.1"), ("127.0.0.1", "127.0.0.2")])
async def test_a_dead_address_does_not_hide_the_one_that_answers(hosts: tuple[str, ...]) -> None:
    with listening() as port, dead("127.0.0.2", port):
        async with connected(named(port, *hosts)) as where:
            assert where == "127.0.0.1"


async def test_an_address_that_refuses_is_passed_over_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialling, "ATTEMPT_DELAY", 3600)
    with listening() as port:
        dial = named(port, "127.0.0.3", "127.0.0.1")
        async with connected(dial) as where:
            assert where == "127.0.0.1"
        assert dial.tried == "; tried 127.0.0.3 (connection refused), 127.0.0.1 (connected)"


async def test_the_first_address_has_time_to_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialling, "ATTEMPT_DELAY", 3600)
    with listening() as port:
        dial = named(port, "127.0.0.1", "127.0.0.2")
        async with connected(dial):
            assert dial.tried == "; tried 127.0.0.1 (connected)"


async def test_all_addresses_refuse() -> None:
    with listening() as port:
        pass
    with pytest.raises(OSError, match=r"^127\.0\.0\.3 \(connection refused\), 127\.0\.0\.4 \(connection refused\)$"):
        await named(port, "127.0.0.3", "127.0.0.4").connect()


async def test_an_address_that_was_given_is_not_named_again() -> None:
    with listening() as port:
        pass
    dial = Dial("127.0.0.1", port)
    with pytest.raises(OSError, match=r"^connection refused$"):
        await dial.connect()
    assert dial.tried == ""


async def test_all_addresses_are_dead_or_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """And who gives up waiting learns which were tried, with what came of each."""
    monkeypatch.setattr(dialling, "ATTEMPT_DELAY", 0)
    with listening() as port:
        pass
    with dead("127.0.0.2", port):
        dial = named(port, "127.0.0.2", "127.0.0.3", "127.0.0.4")
        connecting = asyncio.create_task(dial.connect())
        all_tried = "; tried 127.0.0.2 (no answer), 127.0.0.3 (connection refused), 127.0.0.4 (connection refused)"
        while dial.tried != all_tried:
            await asyncio.sleep(0.001)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting


async def test_a_kernel_without_a_family_passes_it_over() -> None:
    async def resolve(_host: str, _port: int) -> list[tuple[int, tuple[str, int]]]:
        return [(socket.AF_UNIX, ("127.0.0.1", port)), (V4, ("127.0.0.1", port))]

    with listening() as port:
        async with connected(Dial("nas.example", port, resolve=resolve)) as where:
            assert where == "127.0.0.1"


async def test_a_name_that_nobody_knows() -> None:
    with pytest.raises(socket.gaierror):
        await Dial("nas.invalid", 7433).connect()


async def test_a_resolver_that_hangs_is_named() -> None:
    asked = asyncio.Event()

    async def resolve(_host: str, _port: int) -> list[tuple[int, tuple[str, int]]]:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    dial = Dial("nas.example", 7433, resolve=resolve)
    connecting = asyncio.create_task(dial.connect())
    await asked.wait()
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    assert dial.tried == "; the name nas.example was not resolved"


@pytest.mark.parametrize("known", [True, False])
def test_a_resolver_that_hangs_keeps_no_program_from_ending(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()
    asked = threading.Event()

    def getaddrinfo(host: str, *_args: Any, **_options: Any) -> list[Any]:
        asked.set()
        assert answer.wait(50)
        if known:
            return []
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def give_up() -> None:
        connecting = asyncio.create_task(Dial("nas.example", 7433).connect())
        while not asked.is_set():
            await asyncio.sleep(0.001)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(give_up())
    (resolver,) = [thread for thread in threading.enumerate() if thread.name == "resolver"]
    assert resolver.daemon
    answer.set()
    resolver.join()


async def test_who_comes_second_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both answer in one turn of the loop: one connection is used, the other one leaves nothing open."""
    monkeypatch.setattr(dialling, "ATTEMPT_DELAY", 0)
    ready = asyncio.Event()
    made: list[socket.socket] = []

    async def connect(family: int, address: tuple[str, int]) -> socket.socket:
        if len(made) == 1:
            ready.set()
        sock = socket.socket(family)
        made.append(sock)
        await ready.wait()
        return sock

    monkeypatch.setattr(dialling, "_connect", connect)
    winner = await named(1, "127.0.0.1", "127.0.0.2").connect()
    assert len(made) == 2
    assert [sock.fileno() for sock in made if sock is not winner] == [-1]
    winner.close()


def test_families_take_turns() -> None:
    six = [(V6, (f"2001:db8::{n}", 1, 0, 0)) for n in range(3)]
    four = [(V4, ("192.0.2.1", 1))]
    assert interleaved([*six, six[0], *four]) == [six[0], four[0], six[1], six[2]]
    assert interleaved([]) == []
