"""The daemon's life: how it starts, what it tells the service manager, whom it lets in, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import hashlib
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import pytest
import uvloop
from tests import streams
from tests.programs import free_port
from tests.promtool import complaints
from tests.receiver.command import fails, read_only
from tests.receiver.faulty import FaultyDisk
from tests.receiver.helpers import plant, program, zstd_decode
from tests.receiver.peer import CONTROL, Chunk, Peer, chunks, compress, control, finish, header, offer
from tests.receiver.running import MIB, Receiver, wait_until

from fullsend_protocol.format.metrics_text import parse_samples
from fullsend_protocol.shared.settings import SizeOrShare
from fullsend_receiver.access.config import load
from fullsend_receiver.access.opening import open_store
from fullsend_receiver.arrival.counters import STAGES
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.daemon import server as daemon
from fullsend_receiver.daemon.session import Session
from fullsend_receiver.maintenance.merge_records import note_merge
from fullsend_receiver.maintenance.plans import MergeRules
from fullsend_receiver.maintenance.prune_records import PruneRecord, write_record
from fullsend_receiver.store.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor

    from fullsend_receiver.store.api import Claim

RAW: Final = streams.substream(streams.object_(1), streams.write(1, 0, b"data" * 1024))
#: The daemon, which looks at its store all the time instead of each minute.
OFTEN: Final = (
    "-c",
    (
        "from fullsend_receiver.cli.main import main; from fullsend_receiver.daemon.monitoring import Monitoring;"
        "Monitoring.run.__defaults__ = (0.05,); raise SystemExit(main())"
    ),
)
SHUTDOWN: Final = "shutdown: the receiver is shutting down; try again later"


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    """A store and its configuration. Whatever a test starts has ended afterwards, with a log without bugs."""
    receiver = Receiver(tmp_path / "receiver")
    receiver.init()
    yield receiver
    if receiver.process is not None:
        receiver.stop(signal.SIGKILL)
    if receiver.log_file.exists():
        receiver.check_log()


# --- the start -------------------------------------------------------------------------------------------------


def test_it_says_where_it_listens_when_it_does(receiver: Receiver) -> None:
    receiver.start()
    assert f"INFO: listening on 127.0.0.1:{receiver.port}, store {receiver.store}\n" in receiver.log
    with Peer(receiver.port) as peer:
        peer.hear("hello")
    assert receiver.stop() == 0


def test_the_log_is_json_where_asked_for(receiver: Receiver) -> None:
    receiver.set(log_format="json")
    receiver.start()
    assert f'"message": "listening on 127.0.0.1:{receiver.port}, store {receiver.store}"' in receiver.log
    assert receiver.stop() == 0
    assert all(line.startswith('{"time": ') for line in receiver.log.splitlines())


def test_all_addresses_of_both_families_are_listened_on(receiver: Receiver) -> None:
    text = receiver.config.read_text(encoding="utf-8")
    receiver.config.write_text(text.replace('"127.0.0.1:0"', '":0"'), encoding="utf-8")
    receiver.start()
    assert "listening on 0.0.0.0:" in receiver.log
    if socket.has_ipv6 and Path("/proc/net/if_inet6").exists():
        assert ", [::]:" in receiver.log
    assert receiver.stop() == 0


def test_an_address_that_is_taken_is_named(receiver: Receiver) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        text = receiver.config.read_text(encoding="utf-8")
        receiver.config.write_text(text.replace("127.0.0.1:0", address), encoding="utf-8")
        done = receiver.fullsendd("serve")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"fullsendd: cannot listen on {address}: Address already in use"


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1"])
def test_an_address_that_is_none_of_ours_is_named(host: str, receiver: Receiver) -> None:
    text = receiver.config.read_text(encoding="utf-8")
    receiver.config.write_text(text.replace("127.0.0.1:0", f"{host}:7433"), encoding="utf-8")
    done = receiver.fullsendd("serve")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"fullsendd: cannot listen on {host}:7433: ")


def test_one_daemon_serves_a_store(receiver: Receiver) -> None:
    receiver.start()
    done = receiver.fullsendd("serve")
    assert (done.returncode, done.stderr) == (1, f"fullsendd: {receiver.store}: another fullsendd serves this store\n")
    with Peer(receiver.port) as peer:  # the first one does not mind
        peer.hear("hello")
    assert receiver.stop() == 0
    receiver.start()  # the lock goes with its holder, however that ended
    receiver.stop(signal.SIGKILL)
    receiver.start()
    assert receiver.stop() == 0


def test_a_folder_that_the_unit_does_not_open_is_told_with_its_setting(tmp_path: Path) -> None:
    """No daemon has served this store, so there is no file to lock."""
    receiver = Receiver(tmp_path / "receiver")
    receiver.init()
    fails(read_only(receiver, "serve"), 1, f"set ReadWritePaths={receiver.store} by `systemctl edit fullsendd`")


def fill(disk: Path) -> None:
    """Leave no room for another byte, nor for another name."""
    with contextlib.suppress(OSError), (disk / "filler").open("wb", 0) as filler:
        while True:
            filler.write(bytes(4096))
    with contextlib.suppress(OSError):
        for number in itertools.count():
            (disk / f"filler{number}").touch()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_store_without_room_for_as_much_as_a_name_is_served_all_the_same(tmp_path: Path) -> None:
    """A restore needs no room, and what gives some back is the daemon's own doing."""
    receiver = Receiver(tmp_path / "receiver")
    receiver.store.mkdir(parents=True)
    small = [program("mount"), "-t", "tmpfs", "-o", "size=1m,nr_inodes=64", "none", str(receiver.store)]
    subprocess.run(small, check=True)
    try:
        receiver.init(partial_keep="1d")
        receiver.start()
        receiver.enrol("alpha")
        with receiver.peer() as peer:
            peer.give(RAW, offer())
            peer.push(offer("tank/partial"))
            peer.write(chunks([RAW.replace(b"tank/data@now" + bytes(3), b"tank/partial@now")])[0].encode())
            peer.say("stop", keep=True, reason="the disk is nearly full")
            peer.hear_after_acks("stopped")
        assert receiver.stop() == 0
        (data,) = receiver.partials()
        os.utime(data.with_suffix(".journal"), (0, 0))
        fill(receiver.store)
        done = receiver.fullsendd("check")
        assert (done.returncode, "problem  ") == (1, done.stdout[:9]), done.stderr
        receiver.start()
        assert f"WARNING: {receiver.store}: is full (No space left on device): free some space" in receiver.log
        with receiver.peer() as peer:
            peer.say("list", dataset=None)
            assert [each["dataset"] for each in peer.hear("entries")["entries"]] == ["tank/data"]
            peer.hear("done")
            peer.say("fetch", offset=0, stream="tank/data@now", until=None)
            assert peer.fetched()[1] == RAW
        receiver.wait_log("alpha/tank/partial@now: what had arrived of it")
        wait_until(lambda: not receiver.partials(), "the old partial is deleted")
        assert receiver.stop() == 0
        receiver.check_log()
    finally:
        if receiver.process is not None:
            receiver.stop(signal.SIGKILL)
        subprocess.run([program("umount"), str(receiver.store)], check=True)


@pytest.mark.parametrize("what", ["marker", "identity"])
def test_a_store_that_is_not_whole_is_not_served(what: str, receiver: Receiver) -> None:
    (receiver.store / {"marker": ".fullsend", "identity": ".state/key.pem"}[what]).unlink()
    done = receiver.fullsendd("serve")
    assert done.returncode == 1
    assert done.stderr.startswith(f"fullsendd: {receiver.store}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("content", ["garbage", '{"format": 1, "rows": [{"name": "alpha"}]}', '{"rows": [7]}'])
def test_a_sender_table_that_cannot_be_read_lets_nobody_in_and_stays_as_it_is(receiver: Receiver, content: str) -> None:
    """systemd would start a daemon that refuses to start for ever."""
    table = receiver.store / ".state/senders.json"
    table.write_text(content, encoding="utf-8")
    receiver.start()
    assert "no sender is admitted until the sender table can be read: " in receiver.log
    with Peer(receiver.port) as stranger:
        stranger.hear("hello")
        stranger.say("known?", fingerprint="5c" * 32)
        assert stranger.refusal().startswith("store: ")
    assert table.read_text(encoding="utf-8") == content


def test_a_sender_table_that_can_be_read_again_lets_its_senders_in(receiver: Receiver) -> None:
    """A corrected owner or mode, and a disk that has recovered, leave its inode number, size and time as they were."""
    receiver.start()
    receiver.enrol("alpha")
    receiver.stop()
    table = receiver.store / ".state/senders.json"
    good, about = table.read_bytes(), table.stat()
    table.write_bytes(b"{" * len(good))
    os.utime(table, ns=(about.st_atime_ns, about.st_mtime_ns))
    receiver.start()
    assert "no sender is admitted until the sender table can be read: " in receiver.log
    table.write_bytes(good)
    os.utime(table, ns=(about.st_atime_ns, about.st_mtime_ns))
    with receiver.peer() as peer:
        peer.say("list", dataset=None)
        peer.hear("done")


# --- the service manager ---------------------------------------------------------------------------------------


def test_the_manager_is_told_of_the_end(receiver: Receiver) -> None:
    receiver.start()
    receiver.send_signal(signal.SIGTERM)
    receiver.wait_notified("STOPPING=1")
    assert receiver.wait() == 0


def test_the_watchdog_is_fed_while_the_loop_turns(receiver: Receiver) -> None:
    receiver.start(env={"WATCHDOG_USEC": "200000"})
    for _ in range(3):
        receiver.wait_notified("WATCHDOG=1")
    receiver.send_signal(signal.SIGSTOP)
    receiver.drain_notified()
    receiver.send_signal(signal.SIGCONT)
    receiver.wait_notified("WATCHDOG=1")
    assert receiver.stop() == 0


#: Becomes a program that has these descriptors from 3 on, in this order, and its own number as LISTEN_PID.
_ACTIVATION: Final = """\
import os, sys
for number, descriptor in enumerate([os.dup(int(word)) for word in sys.argv[1].split()], 3):
    os.dup2(descriptor, number)
    os.set_inheritable(number, True)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


def activated(receiver: Receiver, *sockets: socket.socket) -> None:
    """Start the daemon as systemd does: with sockets from descriptor 3 on, and their number in the environment."""
    descriptors = [sock.fileno() for sock in sockets]
    receiver.spawn(
        wrapper=[sys.executable, "-S", "-c", _ACTIVATION, " ".join(map(str, descriptors))],
        env={"LISTEN_FDS": str(len(sockets))},
        pass_fds=descriptors,
    )


def test_sockets_that_systemd_passes_are_listened_on(receiver: Receiver) -> None:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        # Who connects before the daemon runs waits in the socket.
        early = stack.enter_context(socket.create_connection(sockets[1].getsockname(), timeout=50))
        activated(receiver, *sockets)
        receiver.wait_ready()
        for sock in sockets:
            host, port = sock.getsockname()
            assert f"{host}:{port}" in receiver.log
            with Peer(port) as peer:
                peer.hear("hello")
        early.sendall(b"GET / HTTP/1.1\r\n\r\n")
        wait_until(lambda: "no TLS connection" in receiver.log, "an answer to the early one")
        assert receiver.stop() == 0


def test_a_socket_that_is_not_tcp_is_refused(receiver: Receiver) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind("\0" + f"fullsend-test-{os.getpid()}")
        sock.listen()
        activated(receiver, sock)
        assert receiver.wait() == 1
    assert "fullsendd: the service manager passed a socket that is not TCP: " in receiver.log


# --- letting in ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["garbage", '{"format": 1, "rows": [{"name": "alpha"}]}'])
def test_a_table_that_cannot_be_read_leaves_the_last_good_one_in_force(damage: str, receiver: Receiver) -> None:
    receiver.start()
    receiver.enrol("alpha")
    table = receiver.store / ".state/senders.json"
    good = table.read_bytes()
    table.write_text(damage, encoding="utf-8")
    with receiver.peer() as peer:
        receiver.wait_log("the sender table is not used, the last good one stays: ")
        peer.say("check")
        peer.hear("health")
    table.write_bytes(good)
    receiver.peer().close()
    receiver.enrol("beta")
    receiver.peer("beta").close()
    assert receiver.log.count("the sender table is not used") == 1
    assert receiver.stop() == 0


def test_a_certificate_spoilt_in_the_table_locks_nobody_else_out(receiver: Receiver) -> None:
    receiver.start()
    receiver.enrol("alpha")
    table = receiver.store / ".state/senders.json"
    table.write_text(table.read_text(encoding="utf-8").replace("-----BEGIN", "-----SPOILT"), encoding="utf-8")
    receiver.peer().close()
    receiver.wait_log("the sender table is not used, the last good one stays: ")
    assert receiver.stop() == 0


def test_what_a_daemon_leaves_open_is_found(receiver: Receiver) -> None:
    """Of the tests' own `all_closed`: what was open before may close, and hides nothing that stays open."""
    receiver.start()
    receiver.enrol("alpha")
    before = receiver.peer()
    with receiver.all_closed():
        before.close()
    before = receiver.peer()
    watched = receiver.all_closed("all is closed", 0.5)
    watched.__enter__()
    left = receiver.peer()
    before.close()
    with pytest.raises(AssertionError, match="waited in vain: all is closed"):
        watched.__exit__(None, None, None)
    left.close()
    assert receiver.stop() == 0


@pytest.mark.slow
def test_a_crowd_leaves_nothing_behind(receiver: Receiver) -> None:
    receiver.set(connections_per_sender=200)
    receiver.start(pure=True)
    receiver.enrol("alpha")
    held = receiver.held
    for _ in range(2):
        with receiver.all_closed(), contextlib.ExitStack() as stack:
            for _ in range(150):
                peer = stack.enter_context(receiver.peer())
                peer.write(header(CONTROL, MIB) + bytes(MIB - 1))
        wait_until(lambda: receiver.held <= held + 8 * MIB, "the memory is given back")
    assert receiver.stop() == 0


def test_running_short_of_descriptors_passes(receiver: Receiver) -> None:
    receiver.start()
    receiver.enrol("alpha")
    limit = receiver.descriptors + 5
    with receiver.peer() as peer:
        subprocess.run(["prlimit", "--pid", str(receiver.pid), f"--nofile={limit}:"], check=True)
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                stack.enter_context(socket.create_connection(("127.0.0.1", receiver.port), timeout=50))
            receiver.wait_log("WARNING: cannot accept connections at the moment: Too many open files")
            peer.say("list", dataset=None)
            peer.hear("error", "done")
    receiver.wait_log("no TLS connection", 15)
    receiver.peer().close()
    assert receiver.stop() == 0


def refuses(receiver: Receiver) -> bool:
    try:
        socket.create_connection(("127.0.0.1", receiver.port)).close()
    except ConnectionRefusedError:
        return True
    except ConnectionError:
        pass
    return False


def test_a_connection_that_breaks_before_it_is_accepted_is_nobody_elses_business(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path / "receiver")
    receiver.init()
    disk = FaultyDisk(tmp_path / "faults")
    numbers = f"{errno.ECONNABORTED} {errno.EPROTO} {errno.ENETDOWN}"
    receiver.start(program=disk.program, env={**disk.env, "FULLSEND_TEST_ACCEPT": numbers})
    try:
        for _ in range(3):
            with pytest.raises(OSError), Peer(receiver.port):  # noqa: PT011 - a reset, or an end amid the handshake
                pass
        with Peer(receiver.port) as peer:
            peer.hear("hello")
        assert receiver.stop() == 0
        receiver.check_log()
    finally:
        if receiver.process is not None:
            receiver.stop(signal.SIGKILL)


# --- the end ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_those_that_wait_are_told_and_the_daemon_is_gone(number: int, receiver: Receiver) -> None:
    receiver.start()
    receiver.enrol("alpha")
    with (
        receiver.peer() as idle,
        Peer(receiver.port, receiver.senders["alpha"]) as greeted,
        Peer(receiver.port) as stranger,
        socket.create_connection(("127.0.0.1", receiver.port), timeout=50) as silent,
    ):
        greeted.hear("hello")
        stranger.hear("hello")
        receiver.send_signal(number)
        for peer in (idle, greeted, stranger):
            assert peer.refusal() == SHUTDOWN
            peer.close()
        assert silent.recv(1) == b""
        assert receiver.wait() == 0
    with pytest.raises(ConnectionRefusedError):
        Peer(receiver.port)


def test_a_stream_that_ends_within_the_grace_is_stored_and_no_new_one_is_taken(receiver: Receiver) -> None:
    receiver.set(shutdown_grace="1h")
    receiver.start()
    receiver.enrol("alpha")
    with receiver.peer() as peer:
        peer.push()
        receiver.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses(receiver), "nobody listens any more")
        peer.write(chunks([RAW])[0].encode())
        peer.write(control(finish(RAW)))
        receipt = peer.hear_after_acks("committed")["receipt"]
        # The hour is not waited for: with its last request the connection ends.
        assert peer.refusal() == SHUTDOWN
        peer.close()
        assert receiver.wait() == 0
    assert [entry["file"] for entry in receiver.listed()] == [receipt["file"]]


def test_a_stream_that_takes_longer_is_cut_and_what_came_stays(receiver: Receiver) -> None:
    receiver.set(shutdown_grace=0.2)
    receiver.start()
    receiver.enrol("alpha")
    writes = [streams.write(1, at << 17, bytes([at]) * (1 << 17)) for at in range(40)]
    whole = b"".join([streams.begin(), streams.object_(1), *writes, streams.end()])
    first = whole[: 312 + 312 + 32 * (312 + (1 << 17))]
    with receiver.peer() as peer:
        peer.push()
        (chunk,) = chunks([first])
        peer.write(chunk.encode())
        peer.write(Chunk(len(first), 100, chunk.sha256, chunk.frame).encode()[:100])  # and half of something
        receiver.send_signal(signal.SIGTERM)
        assert peer.refusal() == SHUTDOWN
        assert peer.acks == [len(first)]
        peer.close()
        assert receiver.wait() == 0
    (partial,) = receiver.partials()
    assert zstd_decode(partial) == first
    receiver.start()
    receiver.wait_log(f"kept, with {len(first)} raw bytes")
    assert receiver.stop() == 0


def test_a_peer_that_does_not_go_holds_nothing_up(receiver: Receiver) -> None:
    receiver.start()
    receiver.enrol("alpha")
    with receiver.peer() as stubborn:
        receiver.send_signal(signal.SIGTERM)
        assert receiver.wait() == 0
        assert stubborn.hear("error")["code"] == "shutdown"


def test_a_commit_under_way_is_completed(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path / "receiver")
    receiver.init(shutdown_grace=0.1)
    disk = FaultyDisk(tmp_path / "faults")
    receiver.start(program=disk.program, env=disk.env)
    try:
        receiver.enrol("alpha")
        with receiver.peer() as peer:
            peer.push()
            peer.write(chunks([RAW])[0].encode())
            with disk.blocked("rename"):
                peer.write(control(finish(RAW)))
                wait_until(lambda: disk.begun("rename", ".data") == 1, "the commit is under way")
                receiver.send_signal(signal.SIGTERM)
                receiver.wait_notified("STOPPING=1")
                receiver.wait_log("cancelling the remaining")
            assert peer.refusal() == SHUTDOWN
            peer.close()
            assert receiver.wait() == 0
        (entry,) = receiver.listed()
        assert receiver.partials() == []
        # The sender asks again, and hears that it is stored.
        receiver.start()
        with receiver.peer() as peer:
            peer.write(control(offer(guid=str(streams.GUID), flags="")))
            assert peer.hear("stored")["receipt"]["file"] == entry["file"]
        assert receiver.stop() == 0
        receiver.check_log()
    finally:
        if receiver.process is not None:
            receiver.stop(signal.SIGKILL)


def test_what_is_being_deleted_is_begun_by_nobody_before_it_is_gone(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the daemon is to end meanwhile: what is left of the old one would be removed beneath the new one."""
    settings = load(receiver.config)
    at_work, gone = threading.Event(), threading.Event()

    def throw_away(*_what: object, claim: Claim, **_limits: object) -> dict[str, dict[str, int]]:
        with claim("deleted") as is_mine:
            assert is_mine
            at_work.set()
            gone.wait()
        return {}

    async def sweep() -> None:
        server = daemon.Daemon(settings, open_store(settings))
        loop = asyncio.get_running_loop()
        sweeping = asyncio.create_task(server._sweep())
        await loop.run_in_executor(None, at_work.wait)
        sweeping.cancel()
        session = Session(server._shared, cast("Any", None), "192.0.2.1", None)
        claiming = asyncio.create_task(session._claim("deleted", "", "what"))
        try:
            async with asyncio.timeout(10.0):
                await session._claim("another", "", "what")  # nobody else waits
            for _ in range(10):  # turns of the loop: more than a sweep takes that ends at once
                await asyncio.sleep(0)
            assert not claiming.done()
        finally:
            gone.set()
        await claiming
        assert server._shared.begun == {"deleted", "another"}
        with contextlib.suppress(asyncio.CancelledError):
            await sweeping

    monkeypatch.setattr(daemon, "discard_old", throw_away)
    asyncio.run(sweep())


def test_a_connection_that_arrives_as_the_daemon_stops_is_not_left_open(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load(receiver.config)
    lost: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)

    async def stop_as_one_arrives(*, arrives_first: bool) -> None:
        server = daemon.Daemon(settings, open_store(settings))
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listening, contextlib.ExitStack() as stack:
            listening.setblocking(False)
            accepting = loop.create_task(server._accept(listening, server._let_in))
            await asyncio.sleep(0)
            told, tell = map(stack.enter_context, socket.socketpair())
            # One turn of the loop finds both: that there is a connection, and that this is the end.
            loop.add_reader(told, accepting.cancel)
            if arrives_first:
                stack.enter_context(socket.create_connection(listening.getsockname()))
            tell.send(b"x")
            if not arrives_first:
                stack.enter_context(socket.create_connection(listening.getsockname()))
            with contextlib.suppress(asyncio.CancelledError):
                await accepting
            loop.remove_reader(told)
            for task in server._tasks:
                task.cancel()
            await asyncio.gather(*server._tasks, return_exceptions=True)

    for arrives_first in (True, False):
        uvloop.run(stop_as_one_arrives(arrives_first=arrives_first))
        gc.collect()
    assert lost == []


@pytest.mark.slow
def test_a_verify_under_way_holds_nothing_up(tmp_path: Path) -> None:
    """It may have hours to go; here it is a gigabyte of zeros."""
    receiver = Receiver(tmp_path / "receiver")
    receiver.init(shutdown_grace=0.1)
    disk = FaultyDisk(tmp_path / "faults")
    receiver.start(program=disk.program, env=disk.env)
    piece = streams.write(1, 0, bytes(MIB)) * 4
    pieces = [streams.begin() + streams.object_(1) + piece, *[piece] * 250, streams.end()]
    frames = {each: compress(each) for each in set(pieces)}
    running = hashlib.sha256()
    at = 0
    try:
        receiver.enrol("alpha")
        with receiver.peer() as peer:
            peer.push()
            for each in pieces:
                running.update(each)
                peer.write(Chunk(at, len(each), running.digest(), frames[each], starts_segment=not at).encode())
                at += len(each)
            segment = {"start": 0, "end": at, "sha256": running.hexdigest()}
            peer.say("finish", raw_bytes=at, segments=[segment])
            peer.hear_after_acks("committed")
            with disk.blocked("pread"):
                peer.say("verify", dataset=None)
                wait_until(lambda: disk.begun("pread", ".zst") > 0, "the file is being read")
                receiver.send_signal(signal.SIGTERM)
                receiver.wait_log("cancelling the remaining 1 connections")
            assert peer.refusal() == SHUTDOWN
            peer.close()
            assert receiver.wait() == 0
        assert disk.begun("pread", ".zst") < len(pieces)
        receiver.check_log()
    finally:
        if receiver.process is not None:
            receiver.stop(signal.SIGKILL)


# --- what the kernel does not tell of the store ----------------------------------------------------------------


def restorable(receiver: Receiver) -> list[bool]:
    with receiver.peer() as peer:
        peer.say("list", dataset=None)
        found = [each["restorable"] for each in peer.hear("entries")["entries"]]
        peer.hear("done")
    return found


def test_sighup_has_all_that_is_stored_looked_at(receiver: Receiver) -> None:
    receiver.start()
    receiver.enrol("alpha")
    store = LocalStore(receiver.store)
    file = plant(store, "s1", 1)
    assert restorable(receiver) == [True]
    other = receiver.folder / "other"
    other.hardlink_to(store.root / file)
    assert restorable(receiver) == [True]
    other.write_bytes(b"cut")  # by a name of which nothing is told
    reload(receiver, "SIGHUP: the next question")
    assert restorable(receiver) == [False]
    assert receiver.stop() == 0


def reload(receiver: Receiver, says: str) -> None:
    """Have the daemon read receiver.toml again, as `systemctl reload` does."""
    receiver.send_signal(signal.SIGHUP)
    told = receiver.wait_notified("RELOADING=1")
    assert re.search(r"^MONOTONIC_USEC=\d+$", told, re.MULTILINE)
    receiver.wait_ready()
    assert says in receiver.log


def test_reload_changes_the_limits_of_a_running_daemon(receiver: Receiver) -> None:
    receiver.start()
    receiver.enrol("alpha")
    with receiver.peer() as peer:
        peer.give(RAW, offer())
    settings = receiver.config.read_text(encoding="utf-8")
    retention = 'prune-at = "never"\n[retention]\ndaily = 7\n'
    receiver.config.write_text(f'quota = 1000\nwarn-at = "10%"\n{settings}{retention}', encoding="utf-8")
    reload(receiver, "receiver.toml is read again: new values of quota, warn-at, retention, prune-at\n")
    assert "the quota of alpha: " in receiver.log  # without waiting for the next look
    refused = "space: tank/data@later: no room: "
    with receiver.peer() as peer:
        peer.write(control(offer(snapshot="later", size_estimate=100_000)))
        assert peer.refusal().startswith(refused)
    receiver.config.write_text(settings, encoding="utf-8")
    reload(receiver, "receiver.toml is read again: new values of quota, warn-at, retention, prune-at\n")
    with receiver.peer() as peer:
        peer.push(offer(snapshot="later", size_estimate=100_000))
    reload(receiver, "receiver.toml is read again: no new value\n")
    assert receiver.stop() == 0


def test_reload_of_a_file_that_is_wrong_changes_nothing_and_says_so(receiver: Receiver) -> None:
    receiver.set(quota=1000)
    receiver.start()
    receiver.enrol("alpha")
    settings = receiver.config.read_text(encoding="utf-8")
    for text, says in (
        (f"{settings}quotta = 5\n", "unknown key 'quotta'; did you mean 'quota'?"),
        (f"{settings}quota = {'[' * 10_000}\n", "the settings stay as they were: "),
        (f"{settings.replace('quota = 1000', '')}", None),
    ):
        receiver.config.write_text(text, encoding="utf-8")
        receiver.send_signal(signal.SIGHUP)
        told = receiver.wait_notified("READY=1")
        if says is None:
            assert "stay as they were" not in told
            assert f"STATUS=listening on 127.0.0.1:{receiver.port}\n" in told + "\n"
            continue
        assert f"STATUS=listening on 127.0.0.1:{receiver.port}; the settings stay as they were: " in told
        assert says in receiver.log
        with receiver.peer() as peer:
            peer.write(control(offer(size_estimate=100_000)))
            assert "its quota of 1000 B" in peer.refusal()
    with receiver.peer() as peer:
        peer.push(offer(size_estimate=100_000))
    assert receiver.stop() == 0


def test_reload_names_what_only_a_restart_changes(receiver: Receiver) -> None:
    receiver.start()
    text = receiver.config.read_text(encoding="utf-8")
    receiver.config.write_text(text.replace("127.0.0.1:0", "127.0.0.1:1"), encoding="utf-8")
    reload(receiver, "receiver.toml: only a restart changes listen\n")
    with Peer(receiver.port) as peer:
        peer.hear("hello")
    assert receiver.stop() == 0


def test_metrics_are_in_the_file_and_over_http(receiver: Receiver) -> None:
    path = receiver.folder / "fullsend.prom"
    port = free_port()
    receiver.set(metrics_file=str(path), metrics_listen=f"127.0.0.1:{port}")
    settings = load(receiver.config)
    documents = open_store(settings).documents
    write_record(documents, "alpha", PruneRecord(at="2026-11-01T03:30:00Z", freed_ever=70))
    note_merge(documents, "alpha", 80, 1.0)
    receiver.start(program=OFTEN)
    receiver.enrol("alpha")
    with receiver.peer() as peer:
        peer.give(RAW, offer())
        wait_until(lambda: metric(path, "fullsend_pushes_total") == 1, "the push in the metrics")
        assert metric(path, "fullsend_open_connections") == 1
    receiver.config.write_text("quota = 1000\n" + receiver.config.read_text(encoding="utf-8"), encoding="utf-8")
    reload(receiver, "receiver.toml is read again: new values of quota\n")
    with receiver.peer() as peer:
        peer.write(control(offer(snapshot="later", size_estimate=100_000)))
        assert peer.refusal().startswith("space: ")
    wait_until(lambda: metric(path, "fullsend_push_failures_total", code="space") == 1, "the refusal in the metrics")
    wait_until(lambda: metric(path, "fullsend_open_connections") == 0, "the end of the connection")
    assert metric(path, "fullsend_stored_bytes", dataset="tank/data") > 0
    assert metric(path, "fullsend_last_receipt_stored_bytes", dataset="tank/data") > 0
    assert metric(path, "fullsend_received_bytes_total") > metric(path, "fullsend_stored_bytes", dataset="tank/data")
    assert metric(path, "fullsend_sent_bytes_total") > 0
    assert metric(path, "fullsend_connections_total") == 3  # the first one was to enrol
    assert metric(path, "fullsend_quota_bytes", sender="alpha") == 1000
    assert metric(path, "fullsend_prune_last_run_timestamp_seconds", sender="alpha") == 1793503800
    assert metric(path, "fullsend_pruned_bytes_total", sender="alpha") == 70
    assert metric(path, "fullsend_merged_bytes_total", sender="alpha") == 80
    assert metric(path, "fullsend_receive_wait_seconds_total", stage="wire") > 0
    stages = [dict(each.labels).get("stage") for each in parse_samples(path.read_text(encoding="utf-8"))]
    assert [each for each in stages if each is not None] == [*STAGES], "one that comes later shows no increase"
    assert not complaints(path.read_text(encoding="utf-8"))
    assert path.stat().st_mode & 0o777 == 0o644
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        names = {each.name for each in parse_samples(answer.read().decode())}
    assert names == {each.name for each in parse_samples(path.read_text(encoding="utf-8"))}
    assert receiver.stop() == 0


def metric(path: Path, name: str, **labels: str) -> float:
    """Return the value of a metric with these labels, perhaps among others; -1: there is none."""
    samples = parse_samples(path.read_text(encoding="utf-8")) if path.exists() else ()
    found = [each.value for each in samples if each.name == name and labels.items() <= dict(each.labels).items()]
    return found[0] if found else -1


def test_an_address_of_the_metrics_that_is_taken_stops_no_backup(receiver: Receiver) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        receiver.set(metrics_listen=f"127.0.0.1:{taken.getsockname()[1]}")
        receiver.start()
        receiver.wait_log("the metrics are not served: cannot listen on 127.0.0.1:")
        receiver.enrol("alpha")
        with receiver.peer() as peer:
            peer.give(RAW, offer())
        assert receiver.stop() == 0


async def test_reload_reaches_the_rules_of_prunes_and_of_merges(receiver: Receiver) -> None:
    with receiver.config.open("a", encoding="utf-8") as file:
        file.write("[retention]\ndaily = 7\n")
    settings = load(receiver.config)
    server = daemon.Daemon(settings, open_store(settings), reread=lambda: load(receiver.config))
    text = receiver.config.read_text(encoding="utf-8").replace("min-free = 0\n", "")
    for line, expected in (
        ('merge-rate = 5\nrebase-after = "1%"\nwarn-at = "50%"', MergeRules("on", 0.01, 5, 0.5, SizeOrShare(1 << 30))),
        ('merge = "prove-first"\nmin-free = 7', MergeRules("prove-first", min_free=SizeOrShare(7))),
        ('merge = "off"', None),
    ):
        receiver.config.write_text(f"{line}\n{text}", encoding="utf-8")
        assert await server._reload() == ""
        assert server._daily._rules is not None
        assert server._daily._rules is server._rules
        assert server._daily._rules.merging == expected
    receiver.config.write_text(f'undelete-merged = "1d"\n{text}', encoding="utf-8")
    assert await server._reload() == ""
    assert server._daily._rules is not None
    assert server._daily._rules.undelete_merged == 86400.0


async def test_reload_hands_each_part_of_the_daemon_its_new_settings(receiver: Receiver) -> None:
    settings = load(receiver.config)
    server = daemon.Daemon(settings, open_store(settings))
    lines = ['when-full = "prune-early"', "scrub-every = 5", "scrub-rate = 7", "tries-per-minute = 1", "silence = 3"]
    receiver.config.write_text("\n".join([*lines, receiver.config.read_text(encoding="utf-8")]), encoding="utf-8")
    receiver.config.write_text(
        receiver.config.read_text(encoding="utf-8").replace("scrub-every = 0", ""), encoding="utf-8"
    )
    server._reread = lambda: load(receiver.config)
    asked = []

    async def make_room(wanted: int, sender: str | None, *, early: bool = True) -> int:
        asked.append((wanted, sender))
        return wanted * early

    server._daily.make_room = make_room  # type: ignore[method-assign]
    assert await server._make_room(1, "alpha") == 0
    assert await server._reload() == ""
    assert await server._make_room(1, "alpha") == 1
    assert asked == [(1, "alpha")] * 2
    assert (server._checks.every, server._checks._pace._rate) == (5.0, 7)
    assert (server.may_try("::1"), server.may_try("::1")) == (True, False)
    assert server._local.silence == 3.0
    assert server._find_troubles("alpha") == []


def test_all_that_is_stored_is_looked_at_now_and_then(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = load(receiver.config)
    store = open_store(settings)
    assert isinstance(store, LocalStore)
    file = plant(store, "s1", 1)
    failing = [OSError(errno.EIO, "Input/output error")]
    real = Catalogues.relook
    looked = asyncio.Event()

    async def relook(catalogues: Catalogues, disk: Executor) -> None:
        if failing:
            raise failing.pop()
        await real(catalogues, disk)
        looked.set()

    async def look() -> None:
        server = daemon.Daemon(settings, store)
        catalogues = server._catalogues
        (stored,) = catalogues.current("alpha").select()
        other = receiver.folder / "other"
        other.hardlink_to(store.root / file)
        catalogues.current("alpha")
        other.write_bytes(b"cut")
        looking = asyncio.create_task(server._relook())
        await looked.wait()
        looking.cancel()
        assert not catalogues.current("alpha").whole().whole(stored)

    monkeypatch.setattr(Catalogues, "relook", relook)
    monkeypatch.setattr(LocalStore, "capabilities", replace(LocalStore.capabilities, relook_every=0.0))
    asyncio.run(look())
    assert "cannot examine the store: OSError: [Errno 5] Input/output error" in caplog.text
