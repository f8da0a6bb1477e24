"""`fullsend hooks`, and the hooks of `push`, as processes of their own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.sender.command import AWAY, RAW, Ended, here, taking
from tests.sender.peer import Peer, receiving

from fullsend_sender.host.identity import Identity
from fullsend_sender.host.options import Endpoint


@pytest.fixture
def noted(tmp_path: Path, config: Callable[[Endpoint], str]) -> Path:
    """The file to which each hook of a configuration for a receiver that is away adds its event."""
    file = tmp_path / "noted"
    hooked(Path(config(AWAY)), file)
    return file


def hooked(config: Path, file: Path) -> None:
    lines = [f"{key} = {json.dumps(['sh', '-c', f'cat >>{file}'])}\n" for key in ("on-success", "on-failure")]
    with config.open("a", encoding="utf-8") as written:
        written.writelines(["[hooks]\n", *lines])


def said(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


async def fullsend(
    config: Path,
    *arguments: str,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    started: list[asyncio.subprocess.Process] | None = None,
) -> Ended:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fullsend_sender", "--config", str(config), *arguments),
        env={**os.environ, **(env or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    if started is not None:
        started.append(process)
    out, err = await process.communicate(stdin)
    assert process.returncode is not None
    return Ended(process.returncode, out, err.decode())


async def test_a_push_that_is_done_runs_on_success(
    config: Callable[[Endpoint], str], receiver_identity: Identity, tmp_path: Path
) -> None:
    file = tmp_path / "noted"
    async with receiving(receiver_identity, taking(RAW)) as receiver:
        path = Path(config(receiver.endpoint))
        hooked(path, file)
        assert await fullsend(path, "push", "--stdin", stdin=RAW) == Ended(0, b"", "")
    (event,) = said(file)
    assert (event["hook"], event["event"], event["exit_code"]) == ("on-success", "push-finished", 0)
    assert [(each["dataset"], each["result"]) for each in event["results"]] == [("tank/data", "pushed")]


async def test_a_push_that_failed_runs_on_failure_and_keeps_its_exit_code(noted: Path, tmp_path: Path) -> None:
    config = noted.with_name("sender.toml")
    run = {"RUNTIME_DIRECTORY": str(tmp_path), "INVOCATION_ID": "ab12"}
    ended = await fullsend(config, "push", "--stdin", "--retry-for", "0s", stdin=RAW, env=run)
    assert ended.code == 75
    assert ended.err.count("\n") == 1
    (event,) = said(noted)
    assert (event["hook"], event["event"], event["exit_code"]) == ("on-failure", "push-failed", 75)
    assert event["results"][0]["error"] in ended.err
    # The unit that systemd starts then knows that it is said.
    unit = {"RUNTIME_DIRECTORY": str(tmp_path), "INVOCATION_ID": "cd34", "MONITOR_INVOCATION_ID": "ab12"}
    assert await fullsend(config, "hooks", "--unit", "fullsend-push.service", env=unit) == Ended(0, b"", "")
    assert len(said(noted)) == 1


async def test_a_hook_that_fails_is_said_and_does_not_change_the_exit_code(
    config: Callable[[Endpoint], str], receiver_identity: Identity
) -> None:
    async with receiving(receiver_identity, taking(RAW)) as receiver:
        path = Path(config(receiver.endpoint))
        with path.open("a", encoding="utf-8") as file:
            file.write('[hooks]\non-success = "false"\n')
        ended = await fullsend(path, "push", "--stdin", stdin=RAW)
    assert (ended.code, ended.out) == (0, b"")
    assert ended.line == "fullsend: on-success: `false` has failed: exit code 1; this does not change the exit code"


async def test_a_push_that_is_interrupted_runs_no_hook(
    config: Callable[[Endpoint], str], receiver_identity: Identity, tmp_path: Path
) -> None:
    begun = asyncio.Event()

    async def hears(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        begun.set()
        await peer.gone()

    file, started = tmp_path / "noted", list[asyncio.subprocess.Process]()
    async with receiving(receiver_identity, hears) as receiver:
        path = Path(config(receiver.endpoint))
        hooked(path, file)
        run = asyncio.create_task(fullsend(path, "push", "--stdin", stdin=RAW, started=started))
        await begun.wait()
        started[0].send_signal(signal.SIGTERM)
        assert (await run).code == 130
    assert said(file) == []


async def test_a_unit_that_was_killed_is_said(noted: Path) -> None:
    killed = {"MONITOR_SERVICE_RESULT": "oom-kill", "MONITOR_EXIT_CODE": "killed", "MONITOR_EXIT_STATUS": "KILL"}
    ended = await fullsend(noted.with_name("sender.toml"), "hooks", "--unit", "fullsend-push.service", env=killed)
    assert ended == Ended(0, b"", "")
    (event,) = said(noted)
    assert (event["event"], event["unit"], event["result"]) == ("unit-failed", "fullsend-push.service", "oom-kill")
    assert event["text"].startswith("fullsend-push.service has failed (oom-kill, killed, KILL): see `journalctl")


def test_a_unit_without_a_hook_is_no_second_failure(
    config: Callable[[Endpoint], str], capsys: pytest.CaptureFixture[str]
) -> None:
    ended = here(capsys, "--config", config(AWAY), "hooks", "--unit", "x.service")
    assert ended.code == 0
    assert "x.service has failed, and nobody is told" in ended.line


def test_a_test_runs_the_hook(noted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(noted.with_name("sender.toml"))
    assert here(capsys, "--config", path, "hooks", "--test", "on-success").code == 0
    assert [each["event"] for each in said(noted)] == ["test"]


def test_a_test_without_a_hook_or_of_one_that_fails(
    config: Callable[[Endpoint], str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(AWAY)
    ended = here(capsys, "--config", path, "hooks", "--test", "on-failure")
    assert ended.code == 2
    assert "has no on-failure in a table [hooks]" in ended.line
    with Path(path).open("a", encoding="utf-8") as file:
        file.write('[hooks]\non-failure = "false"\n')
    assert here(capsys, "--config", path, "hooks", "--test", "on-failure").code == 1
