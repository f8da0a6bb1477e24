"""docs/architecture.md says what the code does: the rooms, and the two ways of a chunk through them."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import random
import re
import sys
import threading
import time
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import pytest
import uvloop
from tests import streams
from tests.programs import free_port
from tests.test_house import ROOMS, ROOT, WINGS

from fullsend_cli.progress import Progress
from fullsend_protocol.shared.limits import CHUNK_MIN
from fullsend_protocol.wire.connection import Chunk
from fullsend_receiver.access import senders
from fullsend_receiver.access.config import load
from fullsend_receiver.access.opening import open_store
from fullsend_receiver.access.setup import InitOptions, init
from fullsend_receiver.arrival import receive
from fullsend_receiver.arrival.decode_queue import Arrived
from fullsend_receiver.daemon.server import Daemon
from fullsend_sender.host.identity import Identity
from fullsend_sender.host.options import Endpoint
from fullsend_sender.restore.cat import cat
from fullsend_sender.transfer.segments import Ready
from fullsend_sender.transfer.send import StreamContext, TransferOptions, transfer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

PAGE: Final = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PUSH: Final = "A chunk from the pipe to the disk"
RESTORE: Final = "A chunk from the disk to the pipe"
#: What is called from every room, and is no step of the way: the language, and the threads.
ANYWHERE: Final = re.compile(r"fullsend_(protocol|cli)\.|.*\.workers$")
#: Bytes from which on what is passed on is taken for a chunk's: no message of a small push is as long.
LARGE: Final = 100_000
_WRITE: Final = 128 << 10
RAW: Final = streams.substream(
    streams.object_(1),
    *(streams.write(1, at * _WRITE, random.Random(at).randbytes(_WRITE)) for at in range(8)),
)


def section(title: str, level: int = 2) -> str:
    """Return what stands below a heading, up to the next one of its level."""
    mark = "#" * level
    match = re.search(rf"^{mark} {re.escape(title)}\n(.*?)(?=^#{{1,{level}}} |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert match is not None, f"docs/architecture.md has no heading {title!r}"
    return match[1]


def walk(title: str) -> list[tuple[str, list[str]]]:
    """Return the rooms of a walk, in order, each with the full names of its calls."""
    rooms = []
    for part in re.split(r"^### ", section(title), flags=re.MULTILINE)[1:]:
        place, _, text = part.partition("\n")
        place = place.partition(",")[0]
        calls = re.findall(r"^\d+\. `([\w.]+)`: ", text, re.MULTILINE)
        assert calls, place
        rooms.append((place, [f"{place.replace('/', '.')}.{call}" for call in calls]))
    return rooms


def calls(title: str) -> list[str]:
    return [call for _room, calls in walk(title) for call in calls]


def room_of(module: str) -> str:
    """Return the room of a module, as the page writes it."""
    package, *rest = module.split(".")
    wing = next(wing for wing, path in WINGS.items() if path.name == package)
    return f"{package}/{rest[0]}" if wing in ROOMS else package


# --- the rooms -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wing", ROOMS)
def test_the_rooms_are_those_that_the_house_has_in_their_order(wing: str) -> None:
    rows = re.findall(r"^\| `(\w+)` \| .+ \|$", section(WINGS[wing].name, 3), re.MULTILINE)
    assert tuple(rows) == ROOMS[wing]


@pytest.mark.parametrize("wing", sorted(WINGS.keys() - ROOMS.keys()))
def test_a_package_without_rooms_is_named_as_one(wing: str) -> None:
    assert re.search(rf"`{WINGS[wing].name}`[^.]*no rooms|Nor has `{WINGS[wing].name}`", section("Rooms"))


def test_the_bounds_that_are_named_are_there_and_added_up() -> None:
    operations = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^Bounds: (.*?)\n\n", section("The two ways of the bytes"), re.MULTILINE | re.DOTALL)
    named = re.findall(r"\b[A-Z]+(?:_[A-Z]+)*\b", line.partition("[operations")[0].replace("ZFS", ""))
    source = "\n".join(path.read_text(encoding="utf-8") for wing in WINGS.values() for path in wing.rglob("*.py"))
    for name in named:
        assert re.search(rf"^{name}: Final = ", source, re.MULTILINE), name
    for name in ("CHUNKS_HELD", "CHUNK_ROOM", "CHUNKS_AHEAD", "FRAMES_HELD"):
        assert name in named
        assert f"`{name}`" in operations


def test_who_comes_finds_the_page() -> None:
    for name in ("README.md", "CONTRIBUTING.md"):
        assert "docs/architecture.md" in (ROOT / name).read_text(encoding="utf-8")


# --- the walks -------------------------------------------------------------------------------------------------


def test_a_chunk_enters_each_room_once_on_its_way_to_the_disk() -> None:
    rooms = [room for room, _calls in walk(PUSH)]
    assert len(rooms) == len(set(rooms))


@pytest.mark.parametrize("title", [PUSH, RESTORE])
def test_the_steps_of_a_walk_are_counted(title: str) -> None:
    numbers = re.findall(r"^(\d+)\. ", section(title), re.MULTILINE)
    assert numbers == [str(number) for number in range(1, len(calls(title)) + 1)]


@pytest.mark.parametrize("call", sorted({*calls(PUSH), *calls(RESTORE)}))
def test_each_call_of_a_walk_is_where_the_page_says(call: str) -> None:
    parts = call.split(".")
    depth = next(at for at in range(len(parts) - 1, 0, -1) if _is_module(".".join(parts[:at])))
    module = importlib.import_module(".".join(parts[:depth]))
    found: Any = module
    for name in parts[depth:]:
        found = getattr(found, name)
    assert callable(found)
    assert found.__module__ == module.__name__


def _is_module(name: str) -> bool:
    package, *rest = name.split(".")
    path = next(path for path in WINGS.values() if path.name == package).joinpath(*rest)
    return path.with_suffix(".py").is_file()


# --- one chunk on its way --------------------------------------------------------------------------------------


@dataclass
class Trace:
    """What is called, in all threads. `called`: full names, once for each call, return, and resumption of a coroutine;
    `touched`: rooms of functions that are given, or return, a chunk or its bytes, in the order of each function's first
    time.
    """

    called: list[str] = field(default_factory=list)
    touched: list[str] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)
    _packages: tuple[str, ...] = tuple(path.name for path in WINGS.values())

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        if event not in {"call", "return"}:
            return
        module = frame.f_globals.get("__name__", "")
        if module.partition(".")[0] not in self._packages:
            return
        name = f"{module}.{qualified(frame)}"
        self.called.append(name)
        if name in self._seen or ANYWHERE.match(module):
            return
        code = frame.f_code
        given = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]  # other locals, where it is resumed
        values = [frame.f_locals[each] for each in given if each in frame.f_locals] if event == "call" else [arg]
        if any(is_of_a_chunk(value) for value in values):
            self._seen.add(name)
            self.touched.append(room_of(module))

    def cut(self) -> Trace:
        """Return what has been traced, and begin anew."""
        part = Trace(self.called, self.touched)
        self.called, self.touched, self._seen = [], [], set()
        return part

    @property
    def rooms(self) -> list[str]:
        """The rooms that were touched, each as often as it was entered."""
        return [room for room, _same in groupby(self.touched)]


def qualified(frame: FrameType) -> str:
    return frame.f_code.co_qualname.replace(".<locals>", "")


def is_of_a_chunk(value: object) -> bool:
    if isinstance(value, bytes | bytearray | memoryview):
        return len(value) >= LARGE
    return isinstance(value, Chunk | Ready | Arrived)


@contextlib.contextmanager
def profiling(trace: Trace) -> Iterator[None]:
    """Trace this thread, and those that begin meanwhile."""
    threading.setprofile(trace)
    sys.setprofile(trace)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def feed(write: int) -> None:
    with os.fdopen(write, "wb") as pipe:
        pipe.write(RAW)


def drain(read: int, found: list[bytes]) -> None:
    with os.fdopen(read, "rb") as pipe:
        found.append(pipe.read())


@contextlib.contextmanager
def beside(work: Callable[..., None], *args: Any) -> Iterator[None]:
    thread = threading.Thread(target=work, args=args)
    thread.start()
    yield
    thread.join()


async def listening(port: int) -> None:
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            _reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        await asyncio.sleep(0)


async def push_and_fetch(folder: Path) -> tuple[Trace, Trace, bytes]:
    """Push a stream of one chunk to a daemon in this process, and fetch it. Returns: both traces, and what came."""
    port = free_port()
    fingerprint = init(
        InitOptions(folder / "receiver.toml", folder / "store", f"127.0.0.1:{port}", [], None, adopt=False)
    )
    settings = load(folder / "receiver.toml")
    store = open_store(settings)
    identity = Identity.beside(str(folder / "sender.toml"))
    identity.ensure()
    senders.join(store, senders.invite(store, "alpha", 60, replace_existing=False), identity.pem())
    endpoint = Endpoint("nas", "127.0.0.1", port, fingerprint)
    daemon = Daemon(settings, store)
    came: list[bytes] = []
    trace = Trace()
    with profiling(trace):
        serving = asyncio.create_task(daemon.run())
        try:
            await listening(port)
            read, write = os.pipe()
            with beside(feed, write):
                await transfer(
                    read,
                    endpoint,
                    identity,
                    TransferOptions(1),
                    about=StreamContext(),
                    progress=Progress(time.monotonic()),
                )
            os.close(read)
            pushed = trace.cut()
            read, write = os.pipe()
            with beside(drain, read, came):
                await cat(endpoint, identity, "tank/data@now", write, Progress(time.monotonic()))
                os.close(write)
            return pushed, trace.cut(), came[0]
        finally:
            daemon._stopping.set()
            await serving


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trace, Trace]:
    """What is called for one chunk: for a push, and to read it back."""
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        patch.setattr(receive, "BATCH_BYTES", LARGE)  # a batch of its own, as the chunks of long streams have
        pushed, fetched, came = runner.run(push_and_fetch(tmp_path_factory.mktemp("architecture")))
    assert came == RAW
    return pushed, fetched


@pytest.mark.parametrize(("title", "way"), [(PUSH, 0), (RESTORE, 1)])
def test_a_chunk_goes_from_call_to_call_as_the_page_says(title: str, way: int, ways: tuple[Trace, Trace]) -> None:
    called = iter(ways[way].called)
    for call in calls(title):
        assert call in called, f"{call} was not called behind what stands before it"


@pytest.mark.parametrize(("title", "way"), [(PUSH, 0), (RESTORE, 1)])
def test_a_chunk_touches_the_rooms_of_the_page_and_no_other(title: str, way: int, ways: tuple[Trace, Trace]) -> None:
    assert ways[way].rooms == [room for room, _calls in walk(title)]


def test_the_trace_has_one_chunk() -> None:
    assert LARGE < len(RAW) < CHUNK_MIN
