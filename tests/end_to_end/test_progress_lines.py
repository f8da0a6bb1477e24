"""The progress line of commands that take long, on a real terminal; and nothing of it in a pipe."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.chains import named as chain_named
from tests.programs import Receiver, Sender, environment, good, serving, started, wait_for
from tests.receiver.helpers import long_stream, store_stream
from tests.terminal import Picture, terminal

from fullsend_cli.progress import CLEAR
from fullsend_receiver.store.local import LocalStore

#: Reads each chunk of a stored file as from a slow disk.
SLOW_READS = """
import time
from fullsend_receiver.store.blob import LocalBlob
real = LocalBlob.read
def slowly(self, offset, length):
    time.sleep(0.1)
    return real(self, offset, length)
LocalBlob.read = slowly
"""
#: ... and stops before each, as long as the file $HOLD exists.
HELD_READS = f"""{SLOW_READS}
import os
def held(self, offset, length):
    while os.path.exists(os.environ["HOLD"]):
        time.sleep(0.05)
    return slowly(self, offset, length)
LocalBlob.read = held
"""
#: A merge stops after each chunk that it reads or writes, as long as the file $HOLD exists.
HELD_MERGE = """
import os, time
from fullsend_receiver.maintenance.merging import Merger
real = Merger._took
def held(self, size):
    real(self, size)
    while os.path.exists(os.environ["HOLD"]):
        time.sleep(0.05)
Merger._took = held
"""
#: What every line has: an amount, a time, and a rate.
LINE = re.compile(r"[0-9.]+ (B|[KMG]iB) \d+:\d\d:\d\d \[[0-9.]+ \S*/s\]")


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    with serving(tmp_path_factory.mktemp("progress")) as found:
        for number in range(2):
            store_stream(
                LocalStore(found.store), "zfshost", long_stream(4, name=f"tank/d{number}@now", guid=number + 1)
            )
        yield found


def has_line(picture: Picture) -> bool:
    return bool(LINE.search(picture.text))


@pytest.mark.slow
def test_verify_on_the_storage_host(receiver: Receiver) -> None:
    with terminal("fullsend_receiver", "verify", env=receiver.env, program=SLOW_READS) as shown:
        picture = shown.see(has_line, "the line")
        shown.see(lambda seen: re.search(r"tank/d\d@now .* \d+% ETA", seen.text) is not None, "what is left")
        assert shown.wait() == 0
    assert not has_line(picture)
    assert [line.split()[0] for line in picture.lines if line.startswith("ok ")] == ["ok"] * 2
    assert picture.lines[2].startswith("2 streams, ")
    with terminal("fullsend_receiver", "verify", "-q", env=receiver.env, program=SLOW_READS) as shown:
        assert shown.wait() == 0
    assert CLEAR not in shown.picture.raw
    assert "2 streams, " in shown.picture.text


def test_in_a_pipe_there_is_no_line(receiver: Receiver) -> None:
    command = [sys.executable, "-c", f"{SLOW_READS}\nfrom fullsend_receiver.cli.main import main\nmain(['verify'])"]
    done = subprocess.run(command, env=environment(**receiver.env), capture_output=True, check=True)
    assert b"\x1b" not in done.stdout + done.stderr
    assert b"\r" not in done.stdout + done.stderr


@pytest.mark.slow
def test_verify_is_seen_in_top(receiver: Receiver, tmp_path: Path) -> None:
    def activities() -> list[tuple[str, str]]:
        found = json.loads(good(receiver.fullsendd("top", "--json", "--once")))["transfers"]
        return [(each["activity"], each["sender"]) for each in found]

    hold = tmp_path / "hold"
    hold.touch()
    env = {**receiver.env, "HOLD": str(hold)}
    with terminal("fullsend_receiver", "verify", env=env, program=HELD_READS) as shown:
        wait_for(lambda: activities() == [("verify", "zfshost")])
        hold.unlink()
        assert shown.wait() == 0
    wait_for(lambda: not activities())


@pytest.mark.slow
def test_verify_on_the_zfs_host(tmp_path: Path) -> None:
    receiver, sender = Receiver(tmp_path / "receiver"), Sender(tmp_path / "sender")
    receiver.init()
    serve = f"{SLOW_READS}\nimport sys\nfrom fullsend_receiver.cli.main import main\nsys.exit(main(['serve']))"
    with started(receiver, sys.executable, "-c", serve):
        sender.join(receiver)
        for number in (1, 2):
            sender.push("--stdin", stdin=long_stream(4, name=f"tank/d{number}@now", guid=number))
        with terminal("fullsend_sender", "verify", env=sender.env) as shown:
            shown.see(lambda seen: re.search(r"\d\d% ETA", seen.text) is not None, "what is left")
            assert shown.wait() == 0
            assert "2 streams are whole" in shown.picture.text
        with terminal("fullsend_sender", "verify", "--progress", "never", env=sender.env) as shown:
            assert shown.wait() == 0
            assert CLEAR not in shown.picture.raw


def test_a_prune_and_its_merges(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path)
    receiver.init(rebase_after="0%", merge_rate="0")
    with (receiver.folder / "receiver.toml").open("a", encoding="utf-8") as file:
        file.write('[retention]\nlast = 0\nminimum-count = 0\nminimum-age = "0s"\n')
    chain = chain_named("t1-plain")
    for _name, raw in chain.run(None, chain.snapshots - 1):
        store_stream(LocalStore(receiver.store), "alpha", raw)
    before = len(receiver.list())
    with started(receiver):

        def merging() -> list[str]:
            found = json.loads(good(receiver.fullsendd("top", "--json", "--once")))["transfers"]
            return [each["activity"] for each in found]

        hold = tmp_path / "hold"
        hold.touch()
        env = {**receiver.env, "HOLD": str(hold)}
        with terminal("fullsend_receiver", "prune", "--yes-more", env=env, program=HELD_MERGE) as shown:
            picture = shown.see(lambda seen: re.search("merge .*B/s", seen.text) is not None, "the line of a merge")
            wait_for(lambda: merging() == ["merge"])
            hold.unlink()
            assert shown.wait() == 0, picture.text
        assert not has_line(picture)
        assert "1 merge, " in picture.text
        assert len(receiver.list()) < before
