"""An interrupted push resumes: connections that are cut, daemons and senders that are killed, peers that stop.

Each case ends with the right bytes stored, or with an error that names what failed; never with a false success. What
was sent twice is printed (pytest -s), and bounded.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import random
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests import programs, streams
from tests.fakezfs import FakeZfs
from tests.faults.proxy import Proxy
from tests.receiver.faulty import FaultyDisk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(180)

MIB: Final = 1 << 20
BLOCK: Final = 128 << 10
SIZE: Final = 64 * MIB
#: What the sender keeps until it is acknowledged (fullsend_sender.transfer.window), and one chunk.
WINDOW: Final = 56 * MIB + 5 * MIB
#: What the wire adds to the bytes of a stream that does not compress.
HEADERS: Final = 64 << 10
#: Bytes after which a connection is cut: some small streams.
NIGHT_CUT: Final = 60_000


def noise_stream(seed: int = 0, size: int = SIZE) -> bytes:
    """A full of one file that does not compress, so that bytes of the stream are bytes on the wire."""
    noise = random.Random(seed).randbytes(size)
    writes = [streams.write(2, at, noise[at : at + BLOCK]) for at in range(0, size, BLOCK)]
    return b"".join([streams.begin("tank/noise@now"), streams.object_(2), *writes, streams.end()])


@pytest.fixture(scope="session")
def raw() -> bytes:
    return noise_stream()


@dataclass
class Line:
    """A receiver, a sender, and a bad network between them."""

    receiver: programs.Receiver
    sender: programs.Sender
    proxy: Proxy

    def begin(self, *arguments: str) -> subprocess.Popen[bytes]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return self.sender.popen("-v", "push", "--stdin", "--json", *arguments, **pipes)

    def check(self, pushed: dict[str, Any], raw: bytes) -> None:
        """The right bytes are stored, whole and proven, and given back."""
        assert pushed["raw_bytes"] == len(raw)
        (entry,) = self.sender.list()
        assert entry["restorable"]
        assert hashlib.sha256(programs.good(self.sender.fullsend("cat", entry["file"]))).digest() == (
            hashlib.sha256(raw).digest()
        )
        programs.good(self.sender.fullsend("verify"))
        assert not list((self.receiver.store / ".partial").iterdir())


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    with programs.serving(tmp_path / "receiver", min_free=0) as receiver, Proxy(receiver.port) as proxy:
        sender = programs.Sender(tmp_path / "sender", measured=True)
        sender.join(receiver)
        config = sender.folder / "sender.toml"
        config.write_text(config.read_text().replace(f":{receiver.port}", f":{proxy.port}"))
        yield Line(receiver, sender, proxy)


class Feeding:
    """Writes a stream into a running push, and takes what it says."""

    def __init__(self, process: subprocess.Popen[bytes], raw: bytes) -> None:
        self.process = process
        self._outputs: tuple[bytes, bytes] = (b"", b"")
        self._thread = threading.Thread(target=self._feed, args=(raw,))
        self._thread.start()

    def _feed(self, raw: bytes) -> None:
        with contextlib.suppress(ValueError):
            self._outputs = self.process.communicate(raw, timeout=programs.PATIENCE)

    def end(self) -> tuple[int, list[dict[str, Any]], str]:
        """Exit code, what it printed, and what it said."""
        self._thread.join()
        out, errors = self._outputs
        assert b"Traceback" not in errors, errors.decode()
        return self.process.returncode, [json.loads(each) for each in out.splitlines()], errors.decode()

    def good(self) -> dict[str, Any]:
        code, pushed, said = self.end()
        assert code == 0, said
        return pushed[0]


def repeated(pushed: dict[str, Any], raw: bytes, cuts: int) -> int:
    """Bytes that went over the wire more than once; at most the window for each cut."""
    twice: int = pushed["wire_bytes"] - (len(raw) - pushed["resumed_at"] * (pushed["resume"] == "replay"))
    print(f"{cuts} cuts: {twice} of {len(raw)} bytes were sent again")
    assert twice <= cuts * WINDOW + HEADERS
    return twice


@pytest.mark.slow
def test_a_wire_that_is_cut_again_and_again(line: Line, raw: bytes) -> None:
    line.proxy.cut_each(20 * MIB)
    feeding = Feeding(line.begin(), raw)
    pushed = feeding.good()
    assert pushed["resume"] == "reconnect"
    assert line.proxy.connections > 3
    repeated(pushed, raw, line.proxy.connections - 1)
    line.proxy.cut_each(None)
    line.check(pushed, raw)
    (file,) = programs.stored_files(line.receiver)
    manifest = json.loads(file.with_name(file.name + ".json").read_text())
    assert {each["how"] for each in manifest["resumptions"]} == {"reconnect"}
    assert manifest["segments"] == pushed["receipt"]["segments"]
    assert len(manifest["segments"]) > 1
    assert manifest["sha256"] is None


@pytest.mark.slow
def test_a_daemon_that_is_killed_again_and_again(line: Line, raw: bytes) -> None:
    feeding = Feeding(line.begin(), raw)
    for part in (1, 2, 3):
        line.proxy.wait_up(part * 12 * MIB)
        line.receiver.stop(signal.SIGKILL)
        line.receiver.start()
    pushed = feeding.good()
    assert pushed["resume"] == "reconnect"
    repeated(pushed, raw, line.proxy.connections - 1)
    line.check(pushed, raw)


@pytest.mark.slow
def test_a_daemon_that_is_stopped_politely_and_comes_back(line: Line, raw: bytes) -> None:
    feeding = Feeding(line.begin("--bwlimit", "20M"), raw)
    line.proxy.wait_up(12 * MIB)
    with (line.receiver.folder / "receiver.toml").open("a") as config:
        config.write('shutdown-grace = "0s"\n')
    line.receiver.stop()
    line.receiver.start()
    pushed = feeding.good()
    line.check(pushed, raw)


@pytest.mark.slow
def test_a_sender_that_is_killed_again_and_again(line: Line, raw: bytes) -> None:
    for part in (1, 2):
        feeding = Feeding(line.begin("--bwlimit", "16M"), raw)
        line.proxy.wait_up(line.proxy.up + 20 * MIB)
        feeding.process.kill()
        feeding.end()
        assert line.sender.list() == []
        assert part
    pushed = Feeding(line.begin(), raw).good()
    assert pushed["resume"] == "replay"
    assert pushed["resumed_at"] >= 16 * MIB
    assert pushed["wire_bytes"] <= len(raw) - pushed["resumed_at"] + MIB
    repeated(pushed, raw, 0)
    line.check(pushed, raw)


@pytest.mark.slow
def test_a_replay_that_is_cut_and_a_daemon_that_is_killed(line: Line, raw: bytes) -> None:
    feeding = Feeding(line.begin("--bwlimit", "16M"), raw)
    line.proxy.wait_up(16 * MIB)
    feeding.process.kill()
    feeding.end()
    line.proxy.cut_at(line.proxy.up + 8 * MIB)
    feeding = Feeding(line.begin(), raw)
    line.proxy.wait_up(line.proxy.up + 12 * MIB)
    line.receiver.stop(signal.SIGKILL)
    line.receiver.start()
    pushed = feeding.good()
    assert pushed["resume"] == "replay"
    line.check(pushed, raw)


@pytest.mark.slow
def test_other_bytes_are_never_spliced(line: Line, raw: bytes) -> None:
    """The same snapshot by its name and GUID, and not the same stream: it is said, and starts over."""
    feeding = Feeding(line.begin("--bwlimit", "16M"), raw)
    line.proxy.wait_up(16 * MIB)
    feeding.process.kill()
    feeding.end()
    other = noise_stream(1)
    code, pushed, said = Feeding(line.begin(), other).end()
    assert (code, pushed) == (1, [])
    assert "are not those that arrived before: run it again to start over" in said
    assert line.sender.list() == []
    pushed_again = Feeding(line.begin(), other).good()
    assert pushed_again["resume"] == "none"
    line.check(pushed_again, other)


@pytest.mark.slow
def test_a_connection_that_the_receiver_takes_for_alive_is_taken_over(line: Line, raw: bytes) -> None:
    feeding = Feeding(line.begin(), raw)
    line.proxy.wait_up(12 * MIB)
    line.proxy.lose()
    pushed = feeding.good()
    assert pushed["resume"] == "reconnect"
    line.check(pushed, raw)
    assert "is taken over from another connection" in line.receiver.log.read_text()


@pytest.mark.slow
def test_a_flipped_bit_breaks_a_connection_and_never_a_stream(line: Line, raw: bytes) -> None:
    line.proxy.flip_at(9 * MIB)
    pushed = Feeding(line.begin(), raw).good()
    assert pushed["resume"] == "reconnect"
    line.check(pushed, raw)


@pytest.mark.slow
def test_a_receiver_that_stands_still_is_waited_for(line: Line, raw: bytes) -> None:
    """Less than the time of silence: nothing is to be noticed but the time."""
    feeding = Feeding(line.begin(), raw)
    line.proxy.wait_up(12 * MIB)
    assert line.receiver.process is not None
    line.receiver.process.send_signal(signal.SIGSTOP)
    line.proxy.stall()
    timer = threading.Timer(3, line.proxy.stall, (False,))
    timer.start()
    timer.join()
    line.receiver.process.send_signal(signal.SIGCONT)
    pushed = feeding.good()
    assert pushed["resume"] == "none"
    line.check(pushed, raw)


@pytest.mark.slow
def test_a_wire_that_says_nothing_is_given_up_and_made_anew(line: Line, raw: bytes) -> None:
    feeding = Feeding(line.begin(), raw)
    line.proxy.wait_up(12 * MIB)
    line.proxy.stall()
    programs.wait_for(lambda: "has been silent for 30 s" in line.receiver.log.read_text())
    line.proxy.cut()
    line.proxy.stall(False)
    pushed = feeding.good()
    assert pushed["resume"] == "reconnect"
    line.check(pushed, raw)


@pytest.mark.slow
def test_a_receiver_that_stays_away_is_told_of_and_what_arrived_is_kept(line: Line, raw: bytes) -> None:
    feeding = Feeding(line.begin("--retry-for", "2s"), raw)
    line.proxy.wait_up(12 * MIB)
    line.proxy.refuse()
    line.proxy.cut()
    code, pushed, said = feeding.end()
    assert (code, pushed) == (75, [])
    assert "retrying for up to" in said
    line.proxy.refuse(False)
    (partial,) = programs.rows(programs.good(line.sender.fullsend("list", "--partial", "--json")))
    assert (partial["dataset"], partial["snapshot"], partial["arriving"]) == ("tank/noise", "now", False)
    assert partial["raw_bytes"] > 0
    pushed_again = Feeding(line.begin(), raw).good()
    assert (pushed_again["resume"], pushed_again["resumed_at"]) == ("replay", partial["raw_bytes"])
    line.check(pushed_again, raw)
    assert programs.good(line.sender.fullsend("list", "--partial", "--json")) == b""


def test_a_receiver_that_is_not_there_at_first_is_not_waited_for(line: Line, raw: bytes) -> None:
    line.proxy.refuse()
    code, pushed, _said = Feeding(line.begin(), raw).end()
    assert (code, pushed) == (75, [])


# --- a receiver whose disk, or clock, fails --------------------------------------------------------------------


@pytest.fixture
def disk(line: Line) -> FaultyDisk:
    """The receiver's, which from now on does what the test says."""
    disk = FaultyDisk(line.receiver.folder / "faults")
    line.receiver.stop()
    line.receiver.start(sys.executable, *map(str, disk.program), "serve", **disk.env)
    return disk


SAID: Final = {errno.EIO: "the store's disk fails", errno.ENOSPC: "the store is full"}


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, id="-".join([fault[0], fault[1], errno.errorcode[fault[2]]]), marks=pytest.mark.slow)
        for fault in [
            ("fdatasync", ".data", errno.EIO),
            ("fdatasync", ".journal", errno.EIO),
            ("write", ".data", errno.ENOSPC),
            ("write", ".journal", errno.ENOSPC),
            ("rename", ".data", errno.EIO),
            ("rename", ".json", errno.ENOSPC),
        ]
    ],
)
def test_a_disk_that_fails_and_is_well_again(
    line: Line, disk: FaultyDisk, raw: bytes, fault: tuple[str, str, int]
) -> None:
    """During the stream, or at its commit: the push names the fault, and the next one resumes from what is durable.

    The size is announced: without, what had arrived would go where the disk is full (test_full_disk.py).
    """
    feeding = Feeding(line.begin("--bwlimit", "24M", "--size", str(len(raw))), raw)
    programs.wait_for(lambda: len(disk.done("fdatasync", ".journal")) > 2)  # something is durable
    with disk.failing(*fault):
        code, pushed, errors = feeding.end()
        assert pushed == []
        assert code in {1, 3}
        assert SAID[fault[2]] in errors
        assert line.sender.list() == []
    (partial,) = programs.rows(programs.good(line.sender.fullsend("list", "--partial", "--json")))
    assert 0 < partial["raw_bytes"] <= len(raw)
    pushed_again = Feeding(line.begin(), raw).good()
    print(f"{fault}: {pushed_again['wire_bytes']} bytes sent after {partial['raw_bytes']} of {len(raw)}")
    assert pushed_again["wire_bytes"] <= len(raw) - partial["raw_bytes"] + HEADERS
    line.check(pushed_again, raw)


@pytest.mark.slow
def test_a_clock_that_jumps(line: Line, disk: FaultyDisk, raw: bytes) -> None:
    """Years ahead amid a stream, and back again behind its begin; and what is left of one is kept all the same."""
    feeding = Feeding(line.begin("--bwlimit", "24M"), raw)
    line.proxy.wait_up(12 * MIB)
    disk.set_clock(10 * 365 * 86400)
    line.proxy.wait_up(24 * MIB)
    line.proxy.cut()
    line.proxy.wait_up(36 * MIB)
    disk.set_clock(-20 * 365 * 86400)
    feeding.process.kill()
    feeding.end()
    programs.wait_for(
        lambda: not programs.rows(programs.good(line.sender.fullsend("list", "--partial", "--json")))[0]["arriving"]
    )
    line.receiver.stop()
    line.receiver.start(sys.executable, *map(str, disk.program), "serve", **disk.env)
    (partial,) = programs.rows(programs.good(line.sender.fullsend("list", "--partial", "--json")))
    pushed = Feeding(line.begin(), raw).good()
    assert (pushed["resume"], pushed["resumed_at"]) == ("replay", partial["raw_bytes"])
    disk.set_clock(0)
    line.check(pushed, raw)


# --- the way back ----------------------------------------------------------------------------------------------


def stored(line: Line, raw: bytes) -> None:
    assert Feeding(line.begin(), raw).good()["resume"] == "none"


@pytest.mark.slow
def test_a_stream_comes_back_over_a_wire_that_is_cut_and_a_daemon_that_is_killed(line: Line, raw: bytes) -> None:
    stored(line, raw)
    before = line.proxy.connections
    reading = line.sender.popen("-v", "cat", "tank/noise@now", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert reading.stdout is not None
    assert reading.stderr is not None
    came = bytearray(reading.stdout.read(8 * MIB))
    line.proxy.cut()
    came += reading.stdout.read(16 * MIB)
    line.receiver.stop(signal.SIGKILL)
    line.receiver.start()
    came += reading.stdout.read()
    said = reading.stderr.read().decode()
    assert reading.wait(programs.PATIENCE) == 0, said
    assert hashlib.sha256(came).digest() == hashlib.sha256(raw).digest()
    assert line.proxy.connections > before + 1
    reading.stdout.close()
    reading.stderr.close()


@pytest.mark.slow
def test_a_receiver_that_stays_away_ends_a_reading(line: Line, raw: bytes) -> None:
    stored(line, raw)
    reading = line.sender.popen(
        "cat", "--retry-for", "1s", "tank/noise@now", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert reading.stdout is not None
    came = reading.stdout.read(8 * MIB)
    line.proxy.refuse()
    line.proxy.cut()
    assert reading.stderr is not None
    came += reading.stdout.read()
    errors = reading.stderr.read()
    assert reading.wait(programs.PATIENCE) == 75, errors
    assert b"Traceback" not in errors
    assert raw.startswith(came)
    reading.stdout.close()
    reading.stderr.close()


@pytest.mark.slow
def test_a_restore_over_a_wire_that_is_cut_and_a_daemon_that_is_killed(line: Line, tmp_path: Path) -> None:
    """`zfs receive` never notices; and if the restore dies, too, the next one resumes inside the stream."""
    here, there = FakeZfs.make(tmp_path / "here"), FakeZfs.make(tmp_path / "there")
    here.create("tank/home", size=40_000_000)
    there.create("pool")
    config = line.sender.folder / "sender.toml"
    text = config.read_text()
    config.write_text(f'zfs-command = "{here.program}"\n\n{text}')
    (pushed,) = line.sender.push("tank/home")
    config.write_text(f'zfs-command = "{there.program}"\n\n{text}')
    size = line.proxy.down
    programs.good(line.sender.fullsend("restore", "tank/home", "--into", "pool/whole"))
    size = line.proxy.down - size  # what a stream takes on the wire

    def restoring(into: str) -> subprocess.Popen[bytes]:
        quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return line.sender.popen("-v", "restore", "--json", "tank/home", "--into", into, **quiet)

    line.proxy.delay(0.02)
    running = restoring("pool/cut")
    line.proxy.wait_down(line.proxy.down + size // 3)
    line.proxy.cut()
    line.proxy.wait_down(line.proxy.down + size // 3)
    line.receiver.stop(signal.SIGKILL)
    line.receiver.start()
    out, said = running.communicate(timeout=programs.PATIENCE)
    assert running.returncode == 0, said
    assert json.loads(out)["raw_bytes"] == pushed["raw_bytes"]
    # It dies: what its `zfs receive` got is kept.
    running = restoring("pool/killed")
    line.proxy.wait_down(line.proxy.down + size * 2 // 3)
    running.kill()
    running.communicate()
    line.proxy.delay(0)
    again = programs.good(line.sender.fullsend("restore", "--json", "tank/home", "--into", "pool/killed"))
    (said_again,) = programs.rows(again)
    assert said_again["resumed_at"] + said_again["raw_bytes"] == pushed["raw_bytes"]
    assert said_again["resumed_at"] >= 4 * MIB
    print(f"{said_again['raw_bytes']} of {pushed['raw_bytes']} raw bytes were sent after the restore had died")
    content = [
        there.edit(lambda state, name=name: state["datasets"][f"pool/{name}"]["content"])  # type: ignore[misc]
        for name in ("whole", "cut", "killed")
    ]
    assert content[0] == content[1] == content[2]


@pytest.mark.slow
def test_a_block_that_cannot_be_read_costs_one_partial(line: Line, tmp_path: Path) -> None:
    """Each night fails with its way out; once the file is removed the next night is well, and says nothing."""
    fake = FakeZfs.make(tmp_path / "zfs")
    fake.create("tank/a", size=40 * MIB)
    fake.spoil("tank/a")
    config = line.sender.folder / "sender.toml"
    config.write_text(f'zfs-command = "{fake.program}"\n{config.read_text()}')
    for _night in range(3):
        done = line.sender.fullsend("push", "tank/a")
        assert done.returncode == 1
        assert done.stderr.count(b"\n") == 1
        assert b"`zpool status -v tank` names the files" in done.stderr
        assert len(line.sender.list("--partial")) == 1
        assert len(fake.holds("tank/a")) == 1
    fake.spoil("tank/a", bad=False)
    done = line.sender.fullsend("push", "tank/a")
    assert (done.returncode, done.stderr) == (0, b"")
    assert line.sender.list("--partial") == []
    assert fake.holds("tank/a") == []
    assert len(line.sender.list()) == 1


@pytest.mark.slow
def test_a_night_of_many_streams_over_a_wire_that_is_cut_and_a_daemon_that_is_killed(
    line: Line, tmp_path: Path
) -> None:
    """Most of the time one stream waits for its receipt, and the next one is offered behind it."""
    fake = FakeZfs.make(tmp_path / "zfs")
    names = [f"tank/user-{number:02}" for number in range(12)]
    for name in names:
        fake.create(name, size=BLOCK)
    config = line.sender.folder / "sender.toml"
    config.write_text(f'zfs-command = "{fake.program}"\n{config.read_text()}')
    for night in range(2):
        before = line.proxy.connections, line.proxy.up
        line.proxy.cut_each(NIGHT_CUT - night * 7_000)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = line.sender.popen("push", "--json", *names, **pipes)
        for part in (1, 2):
            line.proxy.wait_up(before[1] + part * NIGHT_CUT)
            line.receiver.stop(signal.SIGKILL)
            line.receiver.start()
        output, errors = process.communicate(timeout=programs.PATIENCE)
        line.proxy.cut_each(None)
        assert process.returncode == 0, errors.decode()
        pushed = [json.loads(each) for each in output.splitlines()]
        print(f"{line.proxy.connections - before[0]} connections for {len(pushed)} streams")
        assert [each["dataset"] for each in pushed] == names
        assert {each["kind"] for each in pushed} == {"incremental" if night else "full"}
        assert all(each["receipt"]["restorable"] for each in pushed)
        assert all(fake.holds(name) == [] for name in names)
        assert all(len(fake.names("bookmarks", name)) == night + 1 for name in names)
        for name in names:
            fake.change(name)
    assert line.proxy.connections > 10
    assert [entry["restorable"] for entry in line.sender.list()] == [True] * 24
    programs.good(line.sender.fullsend("verify"))
    assert not list((line.receiver.store / ".partial").iterdir())
