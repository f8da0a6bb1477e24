"""`fullsendd top` and `fullsend top` beside a real push: what a person sees on a terminal, and a program in JSON."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import streams
from tests.programs import Receiver, Sender, environment, good, serving, started, wait_for
from tests.terminal import Running, terminal

#: Other tests of this user may push at the same time, and `fullsend top` shows them, too.
NAME = f"tank/top-{os.getpid()}@now"
BIG = f"tank/big-{os.getpid()}@now"
#: A stream that is far from over when a test ends it.
SIZE = 1 << 30


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    with serving(tmp_path_factory.mktemp("top")) as found:
        yield found


@pytest.fixture(scope="module")
def sender(receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Sender:
    found = Sender(tmp_path_factory.mktemp("sender"))
    found.join(receiver)
    return found


def endless() -> Iterator[bytes]:
    """A stream whose end nobody waits for; it does not compress."""
    yield streams.begin(NAME, streams.GUID) + streams.object_(1)
    source = random.Random(1)
    for index in range(SIZE >> 20):
        yield streams.write(1, index << 20, source.randbytes(1 << 20))


@contextlib.contextmanager
def pushing(sender: Sender, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A push that goes on until the block is left."""
    process = sender.popen("push", "--stdin", "--size", str(SIZE), *options, stdin=subprocess.PIPE)
    assert process.stdin is not None
    pipe = process.stdin

    def feed() -> None:
        with contextlib.suppress(BrokenPipeError, ValueError):
            for piece in endless():
                pipe.write(piece)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        thread.join()
        with contextlib.suppress(BrokenPipeError):
            pipe.close()


def looks(module: str, env: dict[str, str]) -> Callable[[], list[dict[str, Any]]]:
    """One look at what is under way, by JSON."""

    def look() -> list[dict[str, Any]]:
        command = [sys.executable, "-m", module, "top", "--json", "--once"]
        done = subprocess.run(command, env=environment(**env), capture_output=True, check=False)
        return [each for each in json.loads(good(done))["transfers"] if each["stream"] in {NAME, BIG}]

    return look


@pytest.mark.slow
def test_a_push_that_is_throttled_waits_for_the_wire_on_both_sides(receiver: Receiver, sender: Sender) -> None:
    there, here = looks("fullsend_receiver", receiver.env), looks("fullsend_sender", sender.env)
    with pushing(sender, "--bwlimit", "2M"):
        for look, peer in ((there, ("sender", "zfshost")), (here, ("receiver", None))):
            wait_for(lambda look=look: [each["limit"] for each in look()] == ["wire"])  # type: ignore[misc]
            (found,) = look()
            assert (found["activity"], found["stream"], found["size"]) == ("push", NAME, SIZE)
            assert found[peer[0]] == (peer[1] or found[peer[0]])
            assert found["waited"]["wire"] == max(found["waited"].values())
    wait_for(lambda: not there() and not here())  # the killed push has left a file, and nobody is misled by it


#: Serves from a disk that takes 2 s for each fsync of data that arrives.
SLOW_DISK = """
import os, sys, threading, time
from fullsend_receiver.cli.main import main
from fullsend_receiver.store.uploads import LocalUpload
real = LocalUpload.sync
def slowly(self, batch):
    time.sleep(2)
    return real(self, batch)
LocalUpload.sync = slowly
sys.exit(main(["serve"]))
"""
#: The same for each write.
SLOW_WRITES = SLOW_DISK.replace("sync", "append").replace("sleep(2)", "sleep(0.5)")


@pytest.mark.slow
@pytest.mark.parametrize("disk", [SLOW_DISK, SLOW_WRITES])
def test_a_slow_disk_is_the_disk_there_and_the_receiver_here(tmp_path: Path, disk: str) -> None:
    receiver, sender = Receiver(tmp_path / "receiver"), Sender(tmp_path / "sender")
    receiver.init()
    with started(receiver, sys.executable, "-c", disk):
        sender.join(receiver)
        there, here = looks("fullsend_receiver", receiver.env), looks("fullsend_sender", sender.env)
        with pushing(sender):
            wait_for(lambda: [each["limit"] for each in there()] == ["disk"])
            wait_for(lambda: [each["limit"] for each in here()] == ["receiver"])
        wait_for(lambda: not there())


@pytest.mark.slow
def test_the_screen(receiver: Receiver, sender: Sender) -> None:
    with (
        pushing(sender, "--bwlimit", "2M"),
        terminal("fullsend_receiver", "top", env=receiver.env) as there,
        terminal("fullsend_sender", "top", env=sender.env) as here,
    ):
        for shown, peer in ((there, "SENDER"), (here, "RECEIVER")):
            picture = shown.see(lambda seen: "wire" in seen.text, "the limiting stage")
            heading, row = picture.lines[2], next(line for line in picture.lines if NAME in line)
            assert heading.split() == ["ACTIVITY", peer, "STREAM", "RAW", "RATE", "LIMIT", "%", "ETA", "TIME"]
            assert row.split()[0] == "push"
            assert NAME in row
            assert picture.alternate
            assert picture.cursor_hidden
            shown.see(lambda seen, row=row: row not in seen.lines, "another picture")  # type: ignore[misc]
        there.resize(50, 10)
        there.see(lambda seen: all(len(line) <= 50 for line in seen.lines) and NAME in seen.text, "a narrow picture")
        there.resize(100, 24)
        there.see(lambda seen: "TIME" in seen.text, "a wide picture again")
        there.press(b"q")
        here.press(b"\x03")
        for shown in (there, here):
            assert shown.wait() == 0
            restored(shown)


def restored(shown: Running) -> None:
    """The terminal is as it was."""
    assert not shown.picture.alternate
    assert not shown.picture.cursor_hidden
    assert shown.picture.text == ""
    assert termios.tcgetattr(shown.master)[3] == shown.modes[3]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_the_terminal_as_it_was(receiver: Receiver, number: signal.Signals) -> None:
    with terminal("fullsend_receiver", "top", env=receiver.env) as shown:
        shown.see(lambda seen: "no transfer is under way" in seen.text)
        os.kill(shown.process.pid, number)
        assert shown.wait() == (0 if number is signal.SIGINT else 128 + number)
        restored(shown)


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {}])
def test_without_a_screen_it_is_printed_once(receiver: Receiver, env: dict[str, str]) -> None:
    if env:
        with terminal("fullsend_receiver", "top", env={**receiver.env, **env}) as shown:
            assert shown.wait() == 0
            said = shown.picture.raw.replace("\r\n", "\n")
    else:
        said = good(receiver.fullsendd("top")).decode()
    assert said == f"fullsendd top: {receiver.store}\n\nno transfer is under way\n"


def test_no_colour(receiver: Receiver) -> None:
    def colours(**env: str) -> set[str]:
        with terminal("fullsend_receiver", "top", env={**receiver.env, **env}) as shown:
            return shown.see(lambda seen: "no transfer" in seen.text).colours

    assert colours()
    assert not colours(NO_COLOR="1")


def test_keys_are_not_needed(receiver: Receiver) -> None:
    with terminal("fullsend_receiver", "top", env=receiver.env, stdin=False) as shown:
        shown.see(lambda seen: "no transfer" in seen.text)
        shown.press(b"\x03")
        assert shown.wait() == 0


def test_no_daemon(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path)
    receiver.init()
    done = receiver.fullsendd("top", "--once")
    assert done.returncode == 1
    assert b"no daemon runs" in done.stdout
    done = receiver.fullsendd("top", "--json", "--once")
    said = json.loads(done.stdout)
    assert (done.returncode, said["transfers"]) == (1, [])
    assert said["why"] == "no daemon runs that this user can ask"


def test_a_daemon_that_comes_back_is_asked_again(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path)
    receiver.init()
    with terminal("fullsend_receiver", "top", env=receiver.env) as shown:
        shown.see(lambda seen: "no daemon runs" in seen.text)
        receiver.start()
        try:
            shown.see(lambda seen: "no transfer is under way" in seen.text and "no daemon" not in seen.text)
        finally:
            receiver.stop()


@pytest.mark.slow
def test_a_restore_is_seen_on_both_sides(receiver: Receiver, sender: Sender) -> None:
    raw = streams.substream(*(streams.write(1, at << 20, os.urandom(1 << 20)) for at in range(64)), name=BIG)
    sender.push("--stdin", stdin=raw)
    there, here = looks("fullsend_receiver", receiver.env), looks("fullsend_sender", sender.env)
    # Nobody reads the pipe, so the receiver can send no more.
    with sender.popen("cat", BIG, stdout=subprocess.PIPE) as process:
        wait_for(lambda: [(each["activity"], each["limit"]) for each in there()] == [("restore", "wire")])
        wait_for(lambda: [(each["activity"], each["limit"]) for each in here()] == [("restore", "target")])
        process.kill()
    wait_for(lambda: not there() and not here())
