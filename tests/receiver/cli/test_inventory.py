"""Commands beside the daemon say what they say without it, and manage without it where it does not answer."""

from __future__ import annotations

import hashlib
import re
import shutil
import signal
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from tests import streams
from tests.receiver.command import fails
from tests.receiver.helpers import SENDER, ingest_stream, long_stream, manifest_path, plant, store_stream
from tests.receiver.running import Receiver

from fullsend_protocol.shared.errors import ErrorCode
from fullsend_protocol.wire import local, messages
from fullsend_protocol.wire.connection import LOCAL, Connection, ConnectionEnded, NeedData, Role, State
from fullsend_receiver.catalogue.pages import VERSION
from fullsend_receiver.catalogue.scrub_results import Scrubbed, ScrubLog
from fullsend_receiver.cli import asking, inventory
from fullsend_receiver.daemon import local_session, local_socket
from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import PurePosixPath

ROOT: Final = Path(__file__).resolve().parents[3]
#: Every command that says what is stored; those that change the store are the last.
COMMANDS: Final = [
    *(
        ["list", what, *form]
        for what in ("alpha", "alpha/tank/plain", "alpha/tank/moved", "beta")
        for form in ([], ["--json"])
    ),
    *(["list"], ["list", "--json"], ["list", "gamma"], ["list", "alpha/tank/none"]),
    *(["list", "--partial"], ["list", "--partial", "alpha"], ["senders"]),
    *(
        ["show", name]
        for name in ("alpha/tank/plain@s2", "alpha/guid:20", "alpha/tank/lost@one", "alpha/tank/plain@no")
    ),
    *(["show", name, "--json"] for name in ("alpha/tank/plain@s1", "alpha/tank/moved@s3", "beta/tank/x@one")),
    *(["show", name, "--commands"] for name in ("alpha/tank/plain@s2", "alpha/tank/moved@s3", "alpha/tank/lost@two")),
    *(["show", "FULL"], ["show", "alpha/FULLNAME"], ["show", "alpha/tank/two@same"], ["show", "gamma/x@y"]),
    *(["cat", "alpha/tank/plain@s2"], ["cat", "alpha/tank/lost@one"], ["cat", "alpha/tank/none@x"]),
    *(["check"], ["verify", "beta"], ["verify", "alpha/tank/plain", "--json"], ["verify"], ["verify", "gamma"]),
    *(["list", "--json"], ["check"]),
]


def fill(store: LocalStore) -> PurePosixPath:
    """All that can be stored, and all that can be wrong with it. Returns: the file of a stream that is whole."""
    full = store_stream(store, SENDER, streams.named("full").read())
    incr = store_stream(store, SENDER, streams.named("incr").read())
    guid, base = (re.findall(r"[0-9a-f]{16}", incr.name)[number] for number in (0, 1))
    plant(store, "s3", 30, int(guid, 16), dataset="tank/moved")
    assert base in full.name
    damaged = plant(store, "one", 20, dataset="tank/damaged")
    ScrubLog(store).add(Scrubbed(str(damaged), "2026-11-24T00:00:00Z", "2026-11-25T00:00:00Z", ("rot",), None))
    plant(store, "two", 21, 20, dataset="tank/damaged")
    (store.root / plant(store, "one", 40, dataset="tank/lost")).unlink()
    plant(store, "two", 41, 40, dataset="tank/lost")
    plant(store, "later", 51, 50, dataset="tank/orphan")
    for flags in ("", "L"):
        plant(store, "same", 60, dataset="tank/two", flags=flags)
    # Beside the streams: a file whose manifest is gone, whole or not; one that cannot be read; a link.
    manifest_path(store, store_stream(store, SENDER, streams.named("full-vol").read())).unlink()
    manifest_path(store, plant(store, "rest", 70, dataset="tank/lost")).unlink()
    manifest_path(store, plant(store, "garbage", 71, dataset="tank/lost")).write_text("{", encoding="utf-8")
    (store.root / SENDER / "tank" / "link").symlink_to(store.root)
    plant(store, "one", 80, sender="beta", dataset="tank/x")
    ingest_stream(store, SENDER, long_stream(2, name="tank/arriving@now", guid=90)).partial.close(keep=True)
    return full


_TIMES: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ|in \d+:\d\d:\d\d|[0-9.]+ GiB free")


def said(receiver: Receiver, command: list[str], full: PurePosixPath) -> tuple[int, str, str]:
    """How a command ended, and all that it said but for times and the place of the store."""
    words = [{"FULL": str(full), "alpha/FULLNAME": f"alpha/{full.name}"}.get(word, word) for word in command]
    done = receiver.fullsendd(*words, text=False) if "cat" in words else receiver.fullsendd(*words)
    if isinstance(done.stdout, bytes):  # a stream, which has no times
        return done.returncode, hashlib.sha256(done.stdout).hexdigest(), repr(done.stderr)
    texts = [each.replace(str(receiver.folder), "") for each in (done.stdout, done.stderr)]
    texts = [_TIMES.sub("NOW", each) for each in texts]
    return done.returncode, texts[0], texts[1]


@pytest.mark.slow
def test_every_command_says_the_same_with_the_daemon_and_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = Receiver(tmp_path / "one")
    without.init()
    full = fill(LocalStore(without.store))
    beside = Receiver(tmp_path / "two")
    shutil.copytree(without.folder, beside.folder, symlinks=True)
    text = beside.config.read_text(encoding="utf-8")
    beside.config.write_text(text.replace(str(without.folder), str(beside.folder)), encoding="utf-8")
    expected = [said(without, command, full) for command in COMMANDS]
    assert {code for code, _out, _err in expected} == {0, 1, 2}

    def not_needed(*_: object) -> None:
        raise AssertionError

    beside.start()
    try:
        monkeypatch.setattr(inventory, "read_catalogue", not_needed)
        for command, expects in zip(COMMANDS, expected, strict=True):
            assert said(beside, command, full) == expects, command
    finally:
        beside.stop()
    beside.check_log()


# --- a daemon that does not answer ------------------------------------------------------------------------------


@pytest.fixture
def alone(filled: tuple[Receiver, PurePosixPath, PurePosixPath]) -> tuple[Receiver, str]:
    """A store without a daemon, and what `list` says of it."""
    done = filled[0].fullsendd("list")
    assert (done.returncode, done.stderr) == (0, "")
    return filled[0], done.stdout


def manages(alone: tuple[Receiver, str], why: str) -> None:
    """The command reads for itself, and says why; the exit code is that of what it found."""
    receiver, listed = alone
    done = receiver.fullsendd("list")
    assert (done.returncode, done.stdout) == (0, listed)
    assert done.stderr.startswith("fullsendd: the daemon does not answer, so the disk is read: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert why in done.stderr


def test_a_daemon_that_was_killed_is_no_error(alone: tuple[Receiver, str]) -> None:
    receiver, listed = alone
    receiver.start()
    receiver.stop(signal.SIGKILL)
    assert (receiver.store / ".state" / "socket").exists()
    done = receiver.fullsendd("list")
    assert (done.returncode, done.stdout, done.stderr) == (0, listed, "")
    receiver.start()
    receiver.stop()
    assert not (receiver.store / ".state" / "socket").exists()


def test_a_daemon_that_hangs_is_given_up(alone: tuple[Receiver, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "ANSWER_TIMEOUT", 0.01)
    receiver, _listed = alone
    receiver.start()
    try:
        receiver.send_signal(signal.SIGSTOP)
        manages(alone, "it has sent nothing for 0.01 s")
    finally:
        receiver.send_signal(signal.SIGCONT)
        receiver.stop()


def test_a_daemon_of_another_version_is_named(alone: tuple[Receiver, str], monkeypatch: pytest.MonkeyPatch) -> None:
    receiver, _listed = alone
    receiver.start()
    try:
        monkeypatch.setattr(asking, "VERSION", VERSION + 1)
        manages(alone, "which answers only commands of its own version: restart it")
    finally:
        receiver.stop()


def test_a_daemon_that_may_not_be_asked_is_not_waited_for(
    alone: tuple[Receiver, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_store: object, _timeout: float) -> None:
        raise StoreError("uid 7 is at the other end of the store's socket")

    monkeypatch.setattr(local_socket, "connect", refuse)
    manages(alone, "uid 7 is at the other end")


HELLO: Final = messages.ReceiverHello(program="fullsendd 9", versions=[VERSION], sender=None)


class Daemon:
    """One that says what it is told to say, and closes the connection."""

    def __init__(self, store: LocalStore) -> None:
        self.answers: list[messages.Message | bytes] = []
        self._listening = local_socket.listen(store)
        self._listening.setblocking(True)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        accepted, _address = self._listening.accept()
        with accepted:
            connection = Connection(Role.RECEIVER, LOCAL)
            for answer in self.answers:
                if isinstance(answer, local.Summaries | messages.Done | messages.Error):
                    self._hear(accepted, connection)
                accepted.sendall(answer if isinstance(answer, bytes) else connection.send(answer))

    @staticmethod
    def _hear(accepted: socket.socket, connection: Connection) -> None:
        """Read on until it is our turn: nothing more is asked before an answer."""
        while connection.state in {State.STRANGER, State.IDLE}:
            said = accepted.recv(65536)
            connection.receive_data(said)
            while not isinstance(connection.next_event(), NeedData | ConnectionEnded):
                pass
            if not said:
                return

    def end(self) -> None:
        self._thread.join()
        self._listening.close()


@pytest.fixture
def daemon(alone: tuple[Receiver, str]) -> Iterator[Callable[..., None]]:
    found = []

    def says(*answers: messages.Message | bytes) -> None:
        found.append(Daemon(LocalStore(alone[0].store)))
        found[0].answers += answers

    yield says
    found[0].end()


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ([], "the connection ended in state opening"),
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10], "frame"),
        ([messages.Error(code=ErrorCode.SHUTDOWN, message="try again later")], "try again later"),
        ([HELLO, local.Summaries(items=["{"])], "Expecting property name"),
        ([HELLO, local.Summaries(items=["[7]"])], "neither a shelf nor a problem"),
        ([HELLO, local.Summaries(items=[])], "the connection ended in state asked summaries?"),
        ([HELLO, messages.Error(code=ErrorCode.INTERNAL, message="a bug\x1b")], r"a bug\x1b"),
    ],
)
def test_an_answer_that_is_none_is_named(
    alone: tuple[Receiver, str],
    daemon: Callable[..., None],
    answers: list[messages.Message | bytes],
    why: str,
) -> None:
    daemon(*answers)
    manages(alone, why)


def test_what_a_daemon_says_is_what_is_listed(alone: tuple[Receiver, str], daemon: Callable[..., None]) -> None:
    daemon(HELLO, local.Summaries(items=[]), messages.Done())
    done = alone[0].fullsendd("list")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_document_says_what_is_waited_for() -> None:
    text = " ".join((ROOT / "docs" / "operations.md").read_text(encoding="utf-8").split())
    assert f"it has sent nothing for {asking.ANSWER_TIMEOUT:g} seconds" in text
    assert f"it is answering {local_session.COMMANDS} commands already" in text
    assert f"At most {local_session.COMMANDS} commands" in (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


def test_a_name_that_is_too_long_for_a_stream_is_looked_for_all_the_same(alone: tuple[Receiver, str]) -> None:
    fails(alone[0].fullsendd("show", "alpha/" + "x" * 5000), 1, "no such stream")
