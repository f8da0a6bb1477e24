"""Both programs, and a store on a small file system of its own: real ENOSPC, real free space, real exit codes."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from tests import programs, streams
from tests.faults.test_interrupted import Feeding

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

MIB: Final = 1 << 20
BLOCK: Final = 128 << 10
#: The file system, and what is to stay free of it.
DISK, MIN_FREE = 64 * MIB, 16 * MIB
#: In a mount namespace of its own: a tmpfs over the store's folder, with what was there.
INSIDE: Final = """
set -e
mount -t tmpfs -o size="$1" tmpfs "$3"
cp -a "$2"/. "$3"
shift 3
exec "$@"
"""


def noise(dataset: str, size: int, seed: int) -> bytes:
    """A full that does not compress."""
    data = random.Random(seed).randbytes(size)
    writes = [streams.write(2, at, data[at : at + BLOCK]) for at in range(0, size, BLOCK)]
    return b"".join([streams.begin(f"{dataset}@now"), streams.object_(2), *writes, streams.end()])


@dataclass
class Hosts:
    """A receiver on a small disk, and two senders."""

    receiver: programs.Receiver
    one: programs.Sender
    other: programs.Sender

    @property
    def store(self) -> Path:
        """The store as the daemon sees it."""
        assert self.receiver.process is not None
        return Path(f"/proc/{self.receiver.process.pid}/root{self.receiver.store}")

    def partials(self) -> list[str]:
        return [path.name for path in (self.store / ".partial").iterdir()]


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("a mount namespace is root's")
    receiver = programs.Receiver(tmp_path / "receiver")
    one, other = programs.Sender(tmp_path / "one", "one"), programs.Sender(tmp_path / "other", "other")
    with programs.serving(receiver, min_free=MIN_FREE):
        for sender in (one, other):
            sender.join(receiver)
    seed = receiver.store.rename(tmp_path / "seed")
    receiver.store.mkdir()
    serve = [sys.executable, "-m", "fullsend_receiver", "serve"]
    inside = ["sh", "-c", INSIDE, "sh", str(DISK), str(seed), str(receiver.store), *serve]
    try:
        receiver.start("unshare", "-m", *inside)
        yield Hosts(receiver, one, other)
        assert receiver.stop() == 0
        assert "Traceback" not in receiver.log.read_text(encoding="utf-8")
    finally:
        receiver.stop(signal.SIGKILL)


def begin(sender: programs.Sender, raw: bytes, *arguments: str) -> Feeding:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return Feeding(sender.popen("push", "--stdin", "--json", *arguments, **pipes), raw)


def refused(sender: programs.Sender, raw: bytes, *arguments: str) -> str:
    """Push what is to be refused. Returns: the one line that says why."""
    code, pushed, said = begin(sender, raw, *arguments).end()
    (line,) = said.splitlines()
    assert (code, pushed) == (3, []), said
    return line


def test_a_stream_of_unknown_size_is_ended_and_the_next_one_has_room(hosts: Hosts) -> None:
    large = noise("tank/large", 80 * MIB, 1)
    line = refused(hosts.one, large)
    assert "tank/large@now: ended, since the store has no more room for it: the store has " in line
    assert hosts.partials() == []
    assert begin(hosts.other, noise("tank/small", 40 * MIB, 2)).good()["dataset"] == "tank/small"
    # The next night it does not fill the disk again.
    line = refused(hosts.one, large)
    assert "tank/large@now: no room: more than " in line
    assert "tank/small" not in line


def test_what_another_process_writes_ends_a_stream_that_was_promised_nothing(hosts: Hosts) -> None:
    raw = noise("tank/large", 40 * MIB, 1)
    feeding = begin(hosts.one, raw, "--bwlimit", "8M")
    programs.wait_for(lambda: any(path.endswith(".data") for path in hosts.partials()))
    filler = hosts.store / "filler"
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(bytes(DISK))
    code, pushed, said = feeding.end()
    assert (code, pushed) == (3, [])
    assert len(said.splitlines()) == 1
    assert "deleted: free space on the receiver" in said
    assert hosts.partials() == []
    filler.unlink()
    assert begin(hosts.one, raw).good()["resume"] == "none"


def test_what_another_process_writes_ends_a_stream_within_its_size_which_is_kept(hosts: Hosts) -> None:
    raw = noise("tank/large", 40 * MIB, 1)
    feeding = begin(hosts.one, raw, "--bwlimit", "8M", "--size", str(len(raw)))
    programs.wait_for(lambda: any(path.endswith(".data") for path in hosts.partials()))
    filler = hosts.store / "filler"
    filler.write_bytes(bytes(DISK - 24 * MIB))
    code, pushed, said = feeding.end()
    assert (code, pushed) == (3, [])
    assert len(said.splitlines()) == 1
    assert "tank/large@now: ended, since something else has filled the store's disk: the store has " in said
    (partial,) = programs.rows(programs.good(hosts.one.fullsend("list", "--partial", "--json")))
    filler.unlink()
    pushed_again = begin(hosts.one, raw, "--size", str(len(raw))).good()
    assert (pushed_again["resume"], pushed_again["resumed_at"]) == ("replay", partial["raw_bytes"])
