"""The command as users run it: mostly as a process of its own, against a scripted receiver."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests import streams
from tests.programs import free_port
from tests.sender.peer import (
    Peer,
    Receiving,
    Script,
    chunks_of,
    entry,
    manifest_of,
    partial_entry,
    receipt_of,
    receiving,
)
from tests.sender.test_pipeline import large

from fullsend_protocol import __version__, messages
from fullsend_protocol.connection import Chunk
from fullsend_protocol.errors import ErrorCode
from fullsend_protocol.invitation import Invitation
from fullsend_protocol.listing import partials_table
from fullsend_sender import cli
from fullsend_sender.identity import Identity
from fullsend_sender.link import Endpoint


@dataclass
class Ended:
    code: int
    out: bytes
    err: str

    @property
    def line(self) -> str:
        """What was said on stderr: one line, and never a traceback."""
        assert self.err.count("\n") == 1, self.err
        return self.err.rstrip("\n")


@pytest.fixture
def config(tmp_path: Path, identity: Identity) -> Callable[[Endpoint], str]:
    def write(endpoint: Endpoint) -> str:
        shutil.copy(identity.key, tmp_path)
        shutil.copy(identity.certificate, tmp_path)
        path = tmp_path / "sender.toml"
        path.write_text(
            f'[receivers.nas]\naddress = "{endpoint.host}:{endpoint.port}"\n'
            f'fingerprint = "{endpoint.fingerprint}"\nsender = "alpha"\n',
            encoding="utf-8",
        )
        return str(path)

    return write


Fullsend = Callable[..., Awaitable[Ended]]


@pytest.fixture
def fullsend(config: Callable[[Endpoint], str]) -> Fullsend:
    """Run `fullsend ARGUMENTS` with a configuration for this receiver."""

    async def run(receiver: Receiving | Endpoint, *arguments: str, stdin: bytes = b"", **env: str) -> Ended:
        endpoint = receiver.endpoint if isinstance(receiver, Receiving) else receiver
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "fullsend_sender", *arguments),
            env={**os.environ, "FULLSEND_CONFIG": config(endpoint), **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = await process.communicate(stdin)
        assert process.returncode is not None
        return Ended(process.returncode, out, err.decode())

    return run


def here(capsys: pytest.CaptureFixture[str], *arguments: str) -> Ended:
    """Run the command in this process."""
    code = cli.main(arguments)
    captured = capsys.readouterr()
    return Ended(code, captured.out.encode(), captured.err)


def taking(raw: bytes, **receipt: Any) -> Script:
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(messages.Accept(offset=0, segments=[], record=None))
        assert (await peer.take_stream())[0] == raw
        await peer.say(messages.Committed(receipt=receipt_of(raw, **receipt)))
        await peer.gone()

    return script


def answering(*said: messages.ReceiverMessage | Chunk) -> Script:
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(*said)
        await peer.gone()

    return script


AWAY = Endpoint("nas", "127.0.0.1", 1, "00" * 32)
RAW = streams.substream()


# --- the command line ------------------------------------------------------------------------------------------


def test_version_imports_nothing_heavy() -> None:
    code = (
        "import sys; from fullsend_sender.cli import main; main(['--version']);"
        "print([name for name in ('pydantic', 'asyncio', 'uvloop', 'zstandard', 'ssl') if name in sys.modules])"
    )
    env = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=env)
    assert done.stdout.decode().splitlines() == [f"fullsend {__version__}", "[]"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND (see fullsend --help)"),
        (["frob"], "invalid choice: 'frob'"),
        (["push", "--stdin", "tank/a"], "--stdin takes the stream as it comes"),
        (["push", "--stdin", "--level", "high"], "argument --level: invalid int value: 'high'"),
        (["push", "--stdin", "--size", "big"], "argument --size: 'big' is no size"),
        (["list", "--config", "/nowhere/sender.toml"], "/nowhere/sender.toml is missing: make it with `fullsend join"),
        (["join", "--config", "/nowhere/sender.toml", "x"], "this is no whole invitation"),
    ],
)
def test_wrong_usage_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    ended = here(capsys, *arguments)
    assert ended.code == 2
    assert ended.line.startswith("fullsend: ")
    assert message in ended.line


@pytest.mark.parametrize(
    "arguments", [["--config", "/nowhere/x.toml", "--log-format", "json", "list"], ["list", "--log-format", "json"]]
)
def test_common_options_before_and_after_the_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setenv("FULLSEND_CONFIG", "/nowhere/x.toml")
    assert "/nowhere/x.toml is missing" in json.loads(here(capsys, *arguments).err)["message"]


def test_log_format_from_the_environment(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLSEND_LOG_FORMAT", "json")
    assert json.loads(here(capsys, "list", "--config", "/nowhere/x").err)["level"] == "error"


@pytest.mark.parametrize("debug", [False, True])
def test_even_a_bug_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, debug: bool
) -> None:
    def fail(args: object) -> int:
        raise LookupError("surprise")

    monkeypatch.setattr(cli, "_list", fail)
    ended = here(capsys, *(["--debug"] if debug else []), "list")
    assert ended.code == 1
    assert ended.err.startswith("fullsend: LookupError: surprise (--debug shows more)\n")
    assert ("Traceback" in ended.err) is debug


def test_interrupted_before_anything_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(args: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_list", interrupt)
    ended = here(capsys, "list")
    assert (ended.code, ended.line) == (130, "fullsend: interrupted by SIGINT")


# --- join ------------------------------------------------------------------------------------------------------


async def test_join(fullsend: Fullsend, receiver_identity: Identity, tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(None)
        assert isinstance(await peer.hear(), messages.Join)
        await peer.say(messages.Joined(sender="alpha", store="id"))
        await peer.gone()

    new = str(tmp_path / "new" / "sender.toml")
    async with receiving(receiver_identity, script) as receiver:
        line = Invitation("alpha", "127.0.0.1", receiver.endpoint.port, receiver.endpoint.fingerprint, "s").encode()
        ended = await fullsend(receiver, "join", line, "--as", "nas", "--config", new)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.decode() == f"paired: receiver 'nas' knows this host as 'alpha' (written to {new})\n"


# --- push ------------------------------------------------------------------------------------------------------


async def test_push_is_silent_and_json_is_one_object(fullsend: Fullsend, receiver_identity: Identity) -> None:
    raw = large(10 << 20)
    async with receiving(receiver_identity, taking(raw), taking(raw)) as receiver:
        assert await fullsend(receiver, "push", "--stdin", stdin=raw) == Ended(0, b"", "")
        ended = await fullsend(receiver, "push", "--stdin", "--json", stdin=raw)
    assert (ended.code, ended.err) == (0, "")
    said = json.loads(ended.out)
    assert said["guid"] == str(streams.GUID)
    assert said["receipt"] == receipt_of(raw).model_dump(mode="json")


async def test_push_says_more_when_asked(fullsend: Fullsend, receiver_identity: Identity) -> None:
    stored = answering(messages.Stored(receipt=receipt_of(RAW)))
    async with receiving(receiver_identity, taking(RAW), stored) as receiver:
        ended = await fullsend(receiver, "push", "--stdin", "-v", "--progress", "never", stdin=RAW)
        said = r"fullsend: tank/data@now \(full\): 624 B stored as 1000 B in \d+:\d\d:\d\d"
        assert re.fullmatch(said, ended.line)
        ended = await fullsend(receiver, "push", "--stdin", "-v", stdin=RAW)
        assert ended.line == "fullsend: tank/data@now (full) is stored already; nothing was sent"
        assert ended.code == 0


async def test_push_with_a_live_line(fullsend: Fullsend, receiver_identity: Identity) -> None:
    async with receiving(receiver_identity, taking(RAW)) as receiver:
        ended = await fullsend(receiver, "push", "--stdin", "--progress", "always", stdin=RAW)
    assert re.match(r"\r\x1b\[K0 B \d+:\d\d:\d\d", ended.err)
    live, last, summary = ended.err.rpartition("\x1b[K")[2].partition("\n")
    assert live.startswith(f"{len(RAW)} B ")
    assert last == "\n"
    assert summary.startswith("tank/data@now (full): ")


async def test_a_receiver_that_goes_away_is_waited_for_as_long_as_is_said(
    fullsend: Fullsend, receiver_identity: Identity
) -> None:
    async def goes(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(messages.Accept(offset=0, segments=[], record=None))
        await peer.hear()

    async with receiving(receiver_identity, goes, taking(RAW), goes) as receiver:
        ended = await fullsend(receiver, "push", "--stdin", "--json", "-v", stdin=RAW)
        assert (ended.code, json.loads(ended.out)["resume"]) == (0, "reconnect")
        assert "; trying again for up to 1:00:00" in ended.err
        ended = await fullsend(receiver, "push", "--stdin", "--retry-for", "0s", stdin=RAW)
        assert (ended.code, ended.out) == (75, b"")
    ended = await fullsend(AWAY, "push", "--stdin", "--retry-for", "soon", stdin=RAW)
    assert ended.code == 2
    assert "retry" in ended.line


async def test_an_orphan_fails_unless_it_is_allowed(fullsend: Fullsend, receiver_identity: Identity) -> None:
    raw = streams.substream(base_guid=77)
    orphan = taking(raw, restorable=False)
    async with receiving(receiver_identity, orphan, orphan, orphan) as receiver:
        ended = await fullsend(receiver, "push", "--stdin", stdin=raw)
        assert ended.code == 1
        assert "tank/data@now was kept, but cannot be restored" in ended.line
        assert "(guid 77)" in ended.line
        assert (await fullsend(receiver, "push", "--stdin", "--allow-orphan", stdin=raw)).code == 0
        assert (await fullsend(receiver, "push", "--stdin", stdin=raw, FULLSEND_ALLOW_ORPHAN="true")).code == 0


@pytest.mark.parametrize(
    ("stdin", "message"),
    [
        (b"", "no data: not a single byte"),
        (b"garbage on stdin, more than a few bytes", "not a ZFS send stream"),
        (RAW[:-1], "it was cut, or its producer died"),
        (RAW + b"x", "bytes follow the stream's end"),
        (streams.substream(features=[20]), "is a resumed stream"),
    ],
)
async def test_wrong_input_is_one_line(fullsend: Fullsend, stdin: bytes, message: str) -> None:
    ended = await fullsend(AWAY, "push", "--stdin", stdin=stdin)
    assert ended.code == 1
    assert message in ended.line


@pytest.mark.parametrize(
    ("code", "expected"), [(ErrorCode.SPACE, 3), (ErrorCode.BUSY, 4), (ErrorCode.LIMIT, 75), (ErrorCode.STREAM, 1)]
)
async def test_refusals(fullsend: Fullsend, receiver_identity: Identity, code: ErrorCode, expected: int) -> None:
    async with receiving(receiver_identity, answering(messages.Error(code=code, message="no\x1b"))) as receiver:
        ended = await fullsend(receiver, "push", "--stdin", stdin=RAW)
    assert (ended.code, ended.line) == (expected, r"fullsend: nas: no\x1b")


async def test_receiver_is_away(fullsend: Fullsend) -> None:
    ended = await fullsend(Endpoint("nas", "127.0.0.1", free_port(), "00" * 32), "push", "--stdin", stdin=RAW)
    assert ended.code == 75
    assert "cannot connect" in ended.line


async def test_another_receiver_answers(fullsend: Fullsend, receiver_identity: Identity) -> None:
    async def listen(peer: Peer) -> None:
        await peer.gone()

    async with receiving(receiver_identity, listen, all_must_come=False) as receiver:
        endpoint = Endpoint("nas", "127.0.0.1", receiver.endpoint.port, "00" * 32)
        ended = await fullsend(endpoint, "list")
    assert ended.code == 3
    assert "not the receiver that was paired" in ended.line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signals_end_it_in_order(
    config: Callable[[Endpoint], str], receiver_identity: Identity, number: signal.Signals
) -> None:
    under_way = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(messages.Accept(offset=0, segments=[], record=None))
        assert isinstance(await peer.hear(), Chunk)
        under_way.set()
        await peer.gone()

    async with receiving(receiver_identity, script) as receiver:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "fullsend_sender", "push", "--stdin"),
            env={**os.environ, "FULLSEND_CONFIG": config(receiver.endpoint)},
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(large(6 << 20)[:-312])
        await under_way.wait()
        process.send_signal(number)
        assert await process.wait() == 130
        assert (await process.stderr.read()).decode() == f"fullsend: interrupted by {number.name}\n"
        process.stdin.close()


@pytest.mark.parametrize(("closed", "arguments"), [(0, ["push", "--stdin"]), (1, ["cat", "x"])])
async def test_closed_descriptors_are_refused(
    config: Callable[[Endpoint], str], closed: int, arguments: list[str]
) -> None:
    done = await asyncio.to_thread(
        subprocess.run,
        ["sh", "-c", f'exec "$@" {closed}<&-', "sh", sys.executable, "-m", "fullsend_sender", *arguments],
        env={**os.environ, "FULLSEND_CONFIG": config(AWAY)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert b"is no pipe" in done.stderr


# --- list, cat, verify, check ----------------------------------------------------------------------------------


async def test_list(fullsend: Fullsend, receiver_identity: Identity) -> None:
    stored = entry(snapshot="a"), entry(snapshot="b", restorable=False)
    said = messages.Entries(entries=list(stored)), messages.Done()
    async with receiving(receiver_identity, answering(*said), answering(*said), answering(said[1])) as receiver:
        ended = await fullsend(receiver, "list", "tank/data")
        assert (ended.code, ended.err, ended.out.count(b"\n")) == (0, "", 3)
        assert ended.out.startswith(b"STREAM")
        ended = await fullsend(receiver, "list", "--json")
        assert [json.loads(line) for line in ended.out.splitlines()] == [one.model_dump() for one in stored]
        assert await fullsend(receiver, "list") == Ended(0, b"", "")


async def test_list_whose_reader_has_enough(config: Callable[[Endpoint], str], receiver_identity: Identity) -> None:
    said = messages.Entries(entries=[entry()]), messages.Done()
    async with receiving(receiver_identity, answering(*said)) as receiver:
        read, write = os.pipe()
        os.close(read)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "fullsend_sender", "list"),
            env={**os.environ, "FULLSEND_CONFIG": config(receiver.endpoint)},
            stdout=write,
            stderr=subprocess.PIPE,
        )
        os.close(write)
        _out, err = await process.communicate()
    assert (process.returncode, err) == (1, b"")


async def test_cat(fullsend: Fullsend, receiver_identity: Identity) -> None:
    raw = large(10 << 20)
    whole = answering(messages.Sending(manifest=manifest_of(raw)), *chunks_of(raw), messages.Done())
    missing = messages.Error(code=ErrorCode.NOT_FOUND, message="x: no such stream")
    async with receiving(receiver_identity, whole, answering(missing)) as receiver:
        assert await fullsend(receiver, "cat", "tank/data@now") == Ended(0, raw, "")
        ended = await fullsend(receiver, "cat", "x")
    assert (ended.code, ended.out, ended.line) == (1, b"", "fullsend: nas: x: no such stream")


async def test_verify(fullsend: Fullsend, receiver_identity: Identity) -> None:
    whole = messages.Verdict(file="f", dataset="tank/a", snapshot="1", raw_bytes=1 << 20, damage=[])
    damaged = messages.Verdict(file="g", dataset="tank/a", snapshot="2", raw_bytes=1, damage=["chunk 1", "chunk 2"])
    done = messages.Done()
    scripts = answering(whole, done), answering(whole, done), answering(whole, damaged, done), answering(damaged, done)
    async with receiving(receiver_identity, *scripts) as receiver:
        assert await fullsend(receiver, "verify") == Ended(0, b"", "")
        assert await fullsend(receiver, "verify", "-v") == Ended(0, b"1 stream is whole, 1.0 MiB raw\n", "")
        ended = await fullsend(receiver, "verify", "tank/a")
        assert (ended.code, ended.line) == (1, "fullsend: damaged: 1 of 2 streams")
        assert ended.out.decode().splitlines() == ["tank/a@2: g: chunk 1", "tank/a@2: g: chunk 2"]
        ended = await fullsend(receiver, "verify", "--json")
        assert ended.code == 1
        assert json.loads(ended.out) == {
            "file": "g",
            "dataset": "tank/a",
            "snapshot": "2",
            "raw_bytes": 1,
            "damage": ["chunk 1", "chunk 2"],
        }


async def test_check(fullsend: Fullsend, receiver_identity: Identity) -> None:
    health = answering(messages.Health(program="fullsendd 1", free_bytes=1 << 30, problems=[]))
    async with receiving(receiver_identity, health) as receiver:
        ended = await fullsend(receiver, "check")
    assert (ended.code, ended.err) == (0, "")
    assert b"ok      nas: 1.0 GiB free\n" in ended.out
    ended = await fullsend(Endpoint("nas", "127.0.0.1", free_port(), "00" * 32), "check", "--json")
    assert ended.code == 75
    assert [json.loads(line)["ok"] for line in ended.out.splitlines()] == [True, True, True, True, False]


# --- what runs in this process, so that a debugger and coverage can follow -----------------------------------------


def test_terminals_are_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert "stdin is no pipe" in here(capsys, "push", "--stdin").line
    assert "a send stream is binary" in here(capsys, "cat", "x").line


async def test_what_has_arrived_in_part_is_listed(fullsend: Fullsend, receiver_identity: Identity) -> None:
    said = [partial_entry(snapshot="a"), partial_entry(dataset="tank/b", snapshot="b", arriving=True)]
    script = answering(messages.Partials(partials=said), messages.Done())
    async with receiving(receiver_identity, script, script, script) as receiver:
        ended = await fullsend(receiver, "list", "--partial", "--json")
        assert (ended.code, ended.err) == (0, "")
        assert [json.loads(line) for line in ended.out.splitlines()] == [each.model_dump(mode="json") for each in said]
        ended = await fullsend(receiver, "list", "--partial")
        assert ended.out.decode().splitlines() == list(partials_table(said, with_sender=False))
        ended = await fullsend(receiver, "list", "--partial", "tank/b", "--json")
        assert [json.loads(line)["snapshot"] for line in ended.out.splitlines()] == ["b"]
