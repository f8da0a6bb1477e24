"""Child processes: what they are given, what they give, how they end."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvloop

from fullsend_sender.zfs import child
from fullsend_sender.zfs.child import DEVNULL, PIPE, ChildProcess

_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "SAID": "in the environment"}


@asynccontextmanager
async def shell(script: str, *, stdin: int = DEVNULL, stdout: int = PIPE) -> AsyncIterator[ChildProcess]:
    process = child.start("sh", "-c", script, stdin=stdin, stdout=stdout, env=_ENVIRONMENT)
    try:
        async with asyncio.timeout(30):
            yield process
    finally:
        process.close()


async def test_output_and_status() -> None:
    async with shell('echo "$SAID"; cat; echo bad >&2; exit 3') as process:
        assert process.stdout is not None
        assert await process.stdout.read() == b"in the environment\n"
        assert await process.stderr.read() == b"bad\n"
        assert await process.wait() == process.returncode == 3
        with pytest.raises(ProcessLookupError):
            process.terminate()


async def test_descriptors_that_are_passed() -> None:
    read, write = os.pipe()
    theirs, ours = os.pipe()
    os.write(ours, b"given")
    os.close(ours)
    async with shell("cat; echo more", stdin=theirs, stdout=write) as process:
        assert process.stdout is None
        assert await process.wait() == 0
    os.close(write)
    os.close(theirs)
    assert os.read(read, 100) + os.read(read, 100) == b"givenmore\n"  # and nobody else holds its other end
    os.close(read)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_signals(number: signal.Signals) -> None:
    async with shell("exec sleep 1000") as process:
        (process.kill if number == signal.SIGKILL else process.terminate)()
        assert await process.wait() == -number


async def test_none_is_ignored() -> None:
    """Python itself ignores SIGPIPE, with which `zfs send` must end."""
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN
    async with shell("kill -PIPE $$; exit 0") as process:
        assert await process.wait() == -signal.SIGPIPE


async def test_the_end_of_the_terminal_is_ignored_where_it_was_before() -> None:
    """`nohup fullsend push`: the shell signals the whole group."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        async with shell("kill -HUP $$; exit 7") as process:
            assert await process.wait() == 7
    finally:
        signal.signal(signal.SIGHUP, before)
    async with shell("kill -HUP $$; exit 7") as process:
        assert await process.wait() == -signal.SIGHUP


def test_a_number_that_is_free_again_is_not_closed() -> None:
    """By then it belongs to another file, perhaps of another thread."""

    async def run() -> None:
        async with shell("echo out; echo bad >&2") as process:
            assert process.stdout is not None
            assert (await process.stdout.read(), await process.stderr.read()) == (b"out\n", b"bad\n")
            others = [os.open(os.devnull, os.O_RDONLY) for _ in range(8)]  # the lowest numbers that are free
            assert await process.wait() == 0
        await asyncio.sleep(0)
        for each in others:
            os.close(each)  # raises if it was closed

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def test_more_than_a_pipe_holds() -> None:
    async with shell("head -c 3000000 /dev/zero; exit 0") as process:
        assert process.stdout is not None
        assert len(await process.stdout.read()) == 3_000_000
        assert await process.wait() == 0


async def test_who_waits_may_be_cancelled() -> None:
    async with shell("exec sleep 1000") as process:
        waiting = asyncio.create_task(process.wait())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        process.kill()
        assert await process.wait() == -signal.SIGKILL


async def test_where_there_are_no_descriptors_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    async with shell("exit 7") as process:
        assert await process.wait() == 7


async def test_a_lost_status_is_no_success() -> None:
    async with shell("exit 0") as process:
        os.waitid(os.P_PID, process._pid, os.WEXITED)  # another one was faster
        assert await process.wait() == 255


def test_a_parent_that_ignores_its_children() -> None:
    """The kernel would throw the exit status away, and this process would inherit that."""
    script = (
        "import asyncio; from fullsend_sender.zfs import child\n"
        "async def main():\n"
        "    process = child.start('sh', '-c', 'exit 7', stdin=child.DEVNULL, stdout=child.DEVNULL,"
        " env={'PATH': '/bin:/usr/bin'})\n"
        "    print(await process.wait())\n"
        "asyncio.run(main())"
    )
    ignoring = 'trap "" CHLD; exec "$@"'
    done = subprocess.run(
        ["bash", "-c", ignoring, "bash", sys.executable, "-c", script], capture_output=True, check=True
    )
    assert done.stdout == b"7\n"


def test_what_cannot_be_started_leaves_nothing_open() -> None:
    async def run() -> None:
        for command in ("no-such-program", "/nowhere/zfs", "/etc/passwd"):
            with pytest.raises(OSError, match=r"No such file|Permission denied"):
                child.start(command, stdin=DEVNULL, stdout=PIPE, env=_ENVIRONMENT)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
        gc.collect()  # other tests leave clients in cycles, which are closed whenever the collector runs
        before = len(os.listdir("/proc/self/fd"))
        runner.run(run())
        runner.run(asyncio.sleep(0))
        assert len(os.listdir("/proc/self/fd")) == before
