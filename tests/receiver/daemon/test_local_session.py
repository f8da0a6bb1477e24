"""The daemon's side of what commands ask: what it answers, to how many, and until when."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from tests.receiver.helpers import SENDER, plant
from tests.receiver.peer import offer
from tests.receiver.running import Receiver, serving, wait_until

import fullsend_protocol
from fullsend_protocol.shared.errors import ErrorCode
from fullsend_protocol.shared.stages import TransferCount
from fullsend_protocol.wire import local, messages
from fullsend_protocol.wire.connection import LOCAL, NEED_DATA, Connection, ConnectionEnded, Role
from fullsend_protocol.wire.frames import FrameHeader, FrameType
from fullsend_protocol.wire.live import LiveTransfer
from fullsend_receiver.catalogue.pages import VERSION, Pages
from fullsend_receiver.daemon import local_session, local_socket
from fullsend_receiver.maintenance.progress import ReadPlace, ScrubState, WorkLeft
from fullsend_receiver.store.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Iterator

HELLO = messages.SenderHello(program="fullsendd 0", version=VERSION)
ASK = local.SummariesWanted(sender=None, dataset=None, streams=None)


class Command:
    """A command that says whatever a test wants."""

    def __init__(self, receiver: Receiver) -> None:
        connected = local_socket.connect(LocalStore(receiver.store), 50.0)
        assert connected is not None
        self.socket = connected
        self.connection = Connection(Role.SENDER, LOCAL)

    def say(self, *said: messages.Message) -> None:
        for message in said:
            self.socket.sendall(self.connection.send(message))

    def hear(self) -> object:
        while (event := self.connection.next_event()) is NEED_DATA:
            self.connection.receive_data(self.socket.recv(65536))
        return event

    def answer(self) -> list[str]:
        found: list[str] = []
        while isinstance(page := self.hear(), local.Summaries):
            found += page.items
        assert page == messages.Done()
        return found


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    with serving(tmp_path_factory.mktemp("local"), SENDER) as found:
        for number in range(1, 4):
            plant(LocalStore(found.store), f"s{number}", number, number - 1 or None)
        plant(LocalStore(found.store), "theirs", 9, sender="beta", dataset="tank/x")
        yield found


@contextlib.contextmanager
def command(receiver: Receiver) -> Iterator[Command]:
    """One that has been greeted."""
    found = Command(receiver)
    with found.socket:
        hello = found.hear()
        assert isinstance(hello, messages.ReceiverHello)
        assert (hello.versions, hello.sender) == ([VERSION], None)
        yield found


def test_all_senders_are_told_of_and_one_alone(receiver: Receiver) -> None:
    with command(receiver) as asking:
        asking.say(HELLO)
        for sender, count in ((None, 4), (SENDER, 3), ("beta", 1), ("gamma", 0)):
            asking.say(ASK.model_copy(update={"sender": sender}))
            pages = Pages()
            pages.add(asking.answer())
            assert len(pages.catalogue(LocalStore(receiver.store)).streams) == count


def test_what_is_checked_is_told(receiver: Receiver) -> None:
    with command(receiver) as asking:
        asking.say(HELLO, local.ScrubWanted())
        told = asking.hear()
    assert isinstance(told, local.ScrubProgress)
    assert (told.every, told.due, told.reading, told.stopped) == (0, None, None, False)
    assert told.program == this_program()


LIVE = LiveTransfer.of("7.1", "merge", SENDER, "tank/data@s3", TransferCount(0.0, 9), 1.0)


def transfers(asking: Command) -> list[LiveTransfer]:
    asking.say(local.TransfersWanted())
    found: list[LiveTransfer] = []
    while isinstance(page := asking.hear(), local.Transfers):
        found += page.transfers
    assert page == messages.Done()
    return found


def test_what_a_command_does_is_told_to_another_until_it_leaves(receiver: Receiver) -> None:
    with command(receiver) as asking:
        asking.say(HELLO)
        assert transfers(asking) == []
        with command(receiver) as working:
            working.say(HELLO, local.Working(transfer=LIVE))
            assert working.hear() == messages.Noted()
            assert transfers(asking) == [LIVE]
            working.say(local.Working(transfer=None))
            assert working.hear() == messages.Noted()
            assert transfers(asking) == []
            working.say(local.Working(transfer=LIVE))
            assert working.hear() == messages.Noted()
        wait_until(lambda: transfers(asking) == [], "the command that has left is forgotten")


def test_a_push_is_told_with_what_it_waits_for(receiver: Receiver) -> None:
    with command(receiver) as asking, receiver.peer(SENDER) as peer:
        asking.say(HELLO)
        peer.push(offer(dataset="tank/live", size_estimate=1000))
        (found,) = transfers(asking)
        assert (found.activity, found.peer, found.what, found.size) == ("push", SENDER, "tank/live@now", 1000)
        assert set(found.waited) == {"wire"}
    wait_until(lambda: no_transfers(receiver), "the push that has ended is forgotten")


def no_transfers(receiver: Receiver) -> bool:
    with command(receiver) as asking:
        asking.say(HELLO)
        return not transfers(asking)


def test_several_transfers_are_told_in_their_order(receiver: Receiver) -> None:
    with contextlib.ExitStack() as stack:
        names = [f"tank/many{number}" for number in range(3)]
        for name in names:
            stack.enter_context(receiver.peer(SENDER)).push(offer(dataset=name))
        with command(receiver) as asking:
            asking.say(HELLO)
            assert [each.what for each in transfers(asking)] == [f"{name}@now" for name in names]
    wait_until(lambda: no_transfers(receiver), "the pushes that have ended are forgotten")


def this_program() -> str:
    return f"fullsendd {fullsend_protocol.__version__}"


def test_the_state_of_the_checks_becomes_an_answer() -> None:
    place = ReadPlace("alpha/tank/@now\udcff.zst", 1, 4, "alpha")
    left = WorkLeft(5, 50, 2, 20, 1_795_478_400.0)
    told = local_session.scrub_progress(
        ScrubState(86400.0, 64, left, place, 7.5, stopped=True, resumes=1_795_478_460.0, busy=False),
        now=1_795_478_400.0,
    )
    assert told == local.ScrubProgress(
        program=this_program(),
        now="2026-11-24T00:00:00Z",
        every=86400,
        limit=64,
        due=local.DueStreams(streams=5, stored_bytes=50, due_streams=2, due_bytes=20, next_due="2026-11-24T00:00:00Z"),
        reading=messages.BeingRead(file="alpha/tank/@now\\udcff.zst", read_bytes=1, stored_bytes=4),
        asked_by="alpha",
        rate=7,
        stopped=True,
        resumes="2026-11-24T00:01:00Z",
        busy=False,
    )
    assert local.decode_from_daemon(messages.encode(told)) == told


@pytest.mark.parametrize(
    "said",
    [messages.List(dataset=None), messages.Check(), messages.Known(fingerprint="00" * 32), HELLO, messages.Done()],
)
def test_nothing_else_can_be_asked(receiver: Receiver, said: messages.Message) -> None:
    with command(receiver) as asking:
        asking.say(HELLO)
        payload = messages.encode(said)
        asking.socket.sendall(FrameHeader(FrameType.CONTROL, len(payload)).encode() + payload)
        with contextlib.suppress(ConnectionResetError):
            assert asking.socket.recv(65536) == b""


def test_a_command_that_gives_up_is_no_trouble(receiver: Receiver) -> None:
    with command(receiver) as asking:
        asking.say(HELLO, messages.Error(code=ErrorCode.INTERNAL, message="no more\x1b"))
        assert asking.socket.recv(65536) == b""
    receiver.wait_log(r"a command: no more\x1b")


def test_more_than_so_many_are_turned_away(receiver: Receiver) -> None:
    with receiver.all_closed(), contextlib.ExitStack() as stack:
        for _ in range(local_session.COMMANDS):
            stack.enter_context(command(receiver))
        one_more = Command(receiver)
        stack.enter_context(one_more.socket)
        assert one_more.socket.recv(65536) == b""

    def answers() -> bool:
        again = Command(receiver)
        with again.socket:
            return again.socket.recv(1) != b""

    wait_until(answers, "a place for one more")


def test_what_fails_in_the_daemon_is_said(receiver: Receiver) -> None:
    scrub_log = receiver.store / ".state" / "scrub.jsonl"
    scrub_log.unlink(missing_ok=True)
    scrub_log.mkdir()
    try:
        with command(receiver) as asking:
            asking.say(HELLO, ASK)
            error = asking.hear()
            assert isinstance(error, messages.Error)
            assert error.code is ErrorCode.STORE
    finally:
        scrub_log.rmdir()


def test_a_daemon_that_stops_does_not_wait_for_commands(receiver: Receiver) -> None:
    with command(receiver) as greeted, command(receiver) as idle:
        idle.say(HELLO)
        assert receiver.stop() == 0
        for each in (greeted, idle):
            each.connection.receive_data(each.socket.recv(65536))
        assert idle.connection.next_event() == ConnectionEnded()
    assert not (receiver.store / ".state" / "socket").exists()
    receiver.start()


def test_where_others_may_enter_the_folder_the_daemon_serves_all_the_same(receiver: Receiver) -> None:
    receiver.stop()
    (receiver.store / ".state").chmod(0o755)
    try:
        receiver.start()
        assert "commands on this host must read the store themselves" in receiver.log
        assert local_socket.connect(LocalStore(receiver.store), 50.0) is None
        with receiver.peer() as peer:
            peer.say("list", dataset=None)
            assert len(peer.hear("entries")["entries"]) == 3
            peer.hear("done")
    finally:
        (receiver.store / ".state").chmod(0o700)
