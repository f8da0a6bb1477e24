"""Files for a sender: what the daemon asks its own program, and what it makes of how that ends."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import sys
from typing import Any, Final

import pytest

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import RemoteProtocolError
from fullsend_protocol.wire.messages import DiffWanted, Files, FilesPart, FilesWanted, VersionsWanted
from fullsend_receiver.daemon import file_reading
from fullsend_receiver.daemon.file_reading import (
    FILE_PROCESSES_MAX,
    FileReader,
    arguments_of,
    diff_arguments,
    versions_arguments,
)
from fullsend_receiver.daemon.processes import start

FILE: Final = "alpha/tank/@now.1122334455667788.full.zfs.zst"
#: Prints its process id, and waits.
WAITS: Final = "import os, time; print(os.getpid(), flush=True); time.sleep(1000)"


def coded(*names: bytes) -> list[str]:
    return [base64.b64encode(each).decode() for each in names]


def wanted(**changes: Any) -> FilesWanted:
    no: dict[str, Any] = {"recursive": False, "special": False, "setuid": False}
    return FilesWanted(**{"stream": "tank@now", "form": "tar", "paths": coded(b"/"), "names": [], **no, **changes})


async def answer(script: str) -> tuple[bytes, Files]:
    """All that is said where the program is this script."""
    found = [each async for each in FileReader([sys.executable, "-c", script]).read(FILE, wanted())]
    last = found.pop()
    assert isinstance(last, Files)
    parts = [each for each in found if isinstance(each, FilesPart)]
    assert len(parts) == len(found)
    return b"".join(base64.b64decode(each.data) for each in parts), last


def test_arguments() -> None:
    asked = wanted(special=True, setuid=True, names=coded(b"*.\xff"), paths=coded(b"-a", b"--", b"b"))
    expected = ["get", "--tar", "--special", "--setuid", "--name=*.\udcff", "--", FILE, "-a", "/--", "b"]
    assert arguments_of(FILE, asked) == expected
    assert arguments_of(FILE, wanted(form="names", paths=[])) == ["ls", "--", FILE]
    assert arguments_of(FILE, wanted(form="json", recursive=True, paths=[]))[:3] == ["ls", "--json", "--recursive"]
    assert arguments_of(FILE, wanted(form="long", paths=[]))[:2] == ["ls", "--long"]
    pack = arguments_of(FILE, wanted(form="pack", special=True))
    assert pack == ["get", "--pack=files", "--special", "--", FILE, "/"]
    assert arguments_of(FILE, wanted(form="volume", paths=[])) == ["get", "--pack=volume", "--", FILE]


def test_arguments_of_comparisons() -> None:
    (prefix,) = coded(b"/tank/\xff")
    asked = DiffWanted(stream="a@b", other="a@c", form="lines", types=True, script=True, prefix=prefix)
    assert diff_arguments(["f", "g"], asked) == ["diff", "--types", "--script", "--prefix=/tank/\udcff", "--", "f", "g"]
    bare = asked.model_copy(update={"form": "json", "types": False, "script": False, "prefix": ""})
    assert diff_arguments(["f", "g"], bare) == ["diff", "--json", "--prefix=", "--", "f", "g"]
    (path,) = coded(b"--")
    versions = VersionsWanted(dataset="tank", path=path, form="json", last=3)
    assert versions_arguments("alpha/tank", versions) == ["versions", "--json", "--last=3", "--", "alpha/tank", "/--"]
    with pytest.raises(RemoteProtocolError):
        diff_arguments(["f", "g"], asked.model_copy(update={"prefix": "A"}))
    with pytest.raises(RemoteProtocolError):
        versions_arguments("alpha/tank", versions.model_copy(update={"path": "AGE="}))


@pytest.mark.parametrize("path", ["A", "AGE="])
def test_a_name_that_no_file_has_is_the_peers_fault(path: str) -> None:
    for asked in (wanted(paths=[path]), wanted(names=[path])):
        with pytest.raises(RemoteProtocolError):
            arguments_of(FILE, asked)


async def test_all_bytes_and_the_end() -> None:
    said, end = await answer(f"import sys; sys.stdout.buffer.write(b'ab' * {limits.FILES_PART})")
    assert said == b"ab" * limits.FILES_PART
    assert end == Files(code=0, said=[])


async def test_what_the_program_says_is_told_and_bounded() -> None:
    says = "'fullsendd: x\\x1b', 'a\\\\n\\x1b', *['y' * 4500] * 100"
    script = f"import sys; print({says}, sep='\\n', file=sys.stderr); sys.exit(2)"
    said, end = await answer(script)
    assert (said, end.code, len(end.said)) == (b"", 2, limits.FILES_SAID)
    assert end.said[0] == r"x\x1b"
    assert end.said[1] == r"a\n\x1b"  # names in it are escaped already
    assert len(end.said[2]) == 4000
    assert await answer("import sys; sys.exit(7)") == (
        b"",
        Files(code=7, said=["the receiver's process has ended with 7"]),
    )


async def test_a_program_that_is_killed_has_failed() -> None:
    said, end = await answer("import os; print('half', flush=True); os.kill(os.getpid(), 9)")
    assert said == b"half\n"
    assert end.code == 1
    assert "killed by signal 9" in end.said[0]


async def test_without_a_program_nothing_is_read() -> None:
    for command in ([], ["/no/such/program"]):
        (end,) = [each async for each in FileReader(command).read(FILE, wanted())]
        assert isinstance(end, Files)
        assert (end.code, len(end.said)) == (1, 1)


@pytest.mark.parametrize(("senders", "at_once"), [(["a", "a"], 1), (["a", "b", "c"], FILE_PROCESSES_MAX)])
async def test_a_peer_that_leaves_ends_the_process_and_lets_the_next_one_begin(
    monkeypatch: pytest.MonkeyPatch, senders: list[str], at_once: int
) -> None:
    begun = []

    async def begin(*command: str, **options: Any) -> asyncio.subprocess.Process:
        begun.append(command)
        return await start(*command, **options)

    monkeypatch.setattr(file_reading, "start", begin)
    reader = FileReader([sys.executable, "-c", WAITS])
    async with contextlib.AsyncExitStack() as stack:
        running = [reader.read(f"{sender}/{FILE}", wanted()) for sender in senders]
        assert len(running) == at_once + 1
        for each in running:
            stack.push_async_callback(each.aclose)
        firsts = [await anext(each) for each in running[:-1]]
        third = asyncio.create_task(anext(running[-1]))
        for _turn in range(10):
            await asyncio.sleep(0)
        assert len(begun) == at_once
        await running[0].aclose()
        assert isinstance(firsts[0], FilesPart)
        with pytest.raises(ProcessLookupError):
            os.kill(int(base64.b64decode(firsts[0].data)), 0)
        assert isinstance(await third, FilesPart)
