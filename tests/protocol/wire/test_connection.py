from __future__ import annotations

import itertools
import json
import re
import struct
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.protocol import exchange
from tests.protocol.helpers import (
    ACCEPT,
    CHUNK,
    DIGEST,
    DONE,
    ERROR,
    FINISH,
    HELLO,
    HELLO_STRANGER,
    PUSH,
    SAYINGS,
    SENDER_HELLO,
    SHA,
    STOP,
    Pair,
    a_manifest,
    events,
    receipt,
    section,
    segments,
    tables,
    try_decoder,
)

from fullsend_protocol.format import manifest
from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import (
    ConnectionLost,
    ErrorCode,
    LocalProtocolError,
    RemoteProtocolError,
)
from fullsend_protocol.wire import messages
from fullsend_protocol.wire.connection import (
    NEED_DATA,
    TRANSITIONS,
    Asked,
    Chunk,
    ChunkArriving,
    Connection,
    ConnectionEnded,
    Heartbeat,
    Role,
    State,
)
from fullsend_protocol.wire.frames import FrameHeader, FrameType

SENDER, RECEIVER = Role.SENDER, Role.RECEIVER

#: How to get into each state: what is said, and by whom.
PATHS: dict[State | Asked, list[tuple[Role, str]]] = {State.OPENING: []}
while len(PATHS) < len({*TRANSITIONS.values(), State.OPENING}):
    for (before, who, what), after in TRANSITIONS.items():
        if before in PATHS and after not in PATHS:
            PATHS[after] = [*PATHS[before], (who, what)]
ASKED = [Asked(messages.type_of(request.ask)) for request in messages.REQUESTS]
TALKING = [*(state for state in State if state not in {State.CLOSED, State.FAILED}), *ASKED]

ALL_SAYINGS = [(who, what) for who in Role for what in SAYINGS[who]]
LEGAL = sorted(TRANSITIONS, key=lambda row: (row[0].name, row[1].value, row[2]))
ILLEGAL = [
    (state, who, what)
    for state, (who, what) in itertools.product([*TALKING, State.CLOSED], ALL_SAYINGS)
    if (state, who, what) not in TRANSITIONS and what != "error"
]
#: A chunk's state is not left by it; these are said where the whole stream has been sent.
NEEDS_CHUNK = {"finish", "done"}


def row_name(row: tuple[State | Asked, Role, str]) -> str:
    return f"{row[0].name}-{row[1].value}-{row[2]}"


def pair_in(state: State | Asked) -> Pair:
    """Two sides in this state, by the shortest way."""
    pair = Pair()
    for who, what in PATHS[state]:
        if what == "finish":
            pair.say(who, CHUNK)
        pair.say(who, SAYINGS[who][what])
    assert pair.sender.state == state
    return pair


def frame(message: messages.Message) -> bytes:
    payload = messages.encode(message)
    return FrameHeader(FrameType.CONTROL, len(payload)).encode() + payload


def encoded(what: messages.Message | Chunk) -> bytes:
    """A frame, whether or not it is legal."""
    if not isinstance(what, Chunk):
        return frame(what)
    length = limits.DIGEST_SIZE + len(what.frame)
    header = FrameHeader(FrameType.CHUNK, length, what.raw_offset, what.raw_length, what.starts_segment)
    return header.encode() + what.sha256 + what.frame


def say(connection: Connection, what: messages.Message | Chunk) -> None:
    if isinstance(what, Chunk):
        connection.send_chunk(what)
    else:
        connection.send(what)


def assert_failed_for_good(connection: Connection) -> None:
    assert connection.state is State.FAILED
    for data in (b"", b"x", frame(ERROR), frame(DONE)):
        connection.receive_data(data)
        with pytest.raises(RemoteProtocolError, match="failed before"):
            connection.next_event()
    assert connection.heartbeat() == b""
    with pytest.raises(LocalProtocolError):
        connection.send(DONE)
    with pytest.raises(LocalProtocolError):
        connection.send_chunk(CHUNK)
    assert connection.state is State.FAILED


# --- the state table -------------------------------------------------------------------------------------------


def test_every_state_can_be_reached_but_by_a_rule_broken() -> None:
    assert set(PATHS) == {*State, *ASKED} - {State.FAILED}


def test_every_message_stands_in_the_table() -> None:
    """With the `type` that it has on the wire, for the direction whose union it is in; there is an example of each."""
    for role, models in ((SENDER, messages.FROM_SENDER), (RECEIVER, messages.FROM_RECEIVER)):
        types = {messages.type_of(model) for model in models}
        said = {what.split(",")[0] for (_, who, what) in TRANSITIONS if who is role and what != "chunk"}
        assert types == said | {"error"}
        assert {what.split(",")[0] for what in SAYINGS[role]} - {"chunk"} == types


@pytest.mark.parametrize("row", LEGAL, ids=row_name)
def test_row_of_the_table_leads_both_sides_to_its_state(row: tuple[State | Asked, Role, str]) -> None:
    state, who, what = row
    pair = pair_in(state)
    if state in {State.STREAMING, State.SENDING} and what in NEEDS_CHUNK:
        pair.say(who, CHUNK)
    pair.say(who, SAYINGS[who][what])
    assert pair.sender.state == pair.receiver.state == TRANSITIONS[row]


@pytest.mark.parametrize("row", ILLEGAL, ids=row_name)
def test_what_is_not_in_the_table_cannot_be_said(row: tuple[State | Asked, Role, str]) -> None:
    state, who, what = row
    speaker = pair_in(state).side(who)
    with pytest.raises(LocalProtocolError, match=r"in state|expected|no certificate"):
        say(speaker, SAYINGS[who][what])
    assert_failed_for_good(speaker)


@pytest.mark.parametrize("row", ILLEGAL, ids=row_name)
def test_what_is_not_in_the_table_is_the_peers_fault_where_it_comes(row: tuple[State | Asked, Role, str]) -> None:
    state, who, what = row
    listener = pair_in(state).side(who.peer)
    deaf = state is State.CLOSED and PATHS[state][-1][0] is listener.role  # it has said the last word
    listener.receive_data(encoded(SAYINGS[who][what]))
    if deaf:
        assert listener.next_event() is NEED_DATA
        return
    with pytest.raises(RemoteProtocolError):
        list(events(listener))
    assert_failed_for_good(listener)


@pytest.mark.parametrize("state", TALKING)
@pytest.mark.parametrize("who", Role)
def test_either_side_may_give_up_anywhere_but_the_sender_not_before_the_hello(state: State | Asked, who: Role) -> None:
    pair = pair_in(state)
    if state is State.OPENING and who is SENDER:
        with pytest.raises(LocalProtocolError):
            pair.sender.send(ERROR)
        pair.receiver.receive_data(frame(ERROR))
        with pytest.raises(RemoteProtocolError, match="before the receiver's hello"):
            pair.receiver.next_event()
        return
    pair.say(who, ERROR)
    assert pair.sender.state == pair.receiver.state is State.CLOSED
    assert (pair.sender.heartbeat(), pair.receiver.heartbeat()) == (b"", b"")


@pytest.mark.parametrize("what", ["join", "known?"])
def test_enrolled_sender_may_not_speak_as_a_stranger(what: str) -> None:
    pair = Pair()
    pair.say(RECEIVER, HELLO)
    pair.receiver.receive_data(encoded(SAYINGS[SENDER][what]))
    with pytest.raises(RemoteProtocolError, match=re.escape(repr(what))):
        pair.receiver.next_event()


def test_stranger_may_not_pass_for_a_sender_and_is_told_what_to_do() -> None:
    pair = Pair()
    pair.say(RECEIVER, HELLO_STRANGER)
    pair.receiver.receive_data(frame(SENDER_HELLO))
    with pytest.raises(RemoteProtocolError, match="fullsend join") as caught:
        pair.receiver.next_event()
    assert caught.value.code is ErrorCode.UNKNOWN_SENDER


def test_document_has_the_state_table_as_it_is() -> None:
    table, states, questions = tables(section("Who may say what when"))
    said: dict[tuple[State | Asked, Role, str], State | Asked] = {
        (State[row["state"]], Role(row["who"]), row["says"].strip("`")): State[row["then"]] for row in table
    }
    for row in questions:
        ask, pages, end = (row[key].strip("`") for key in ("sender asks", "pages", "end"))
        said[State.IDLE, SENDER, ask] = Asked(ask)
        said[Asked(ask), RECEIVER, end] = State.IDLE
        if pages != "none":
            said[Asked(ask), RECEIVER, pages] = Asked(ask)
    assert said == TRANSITIONS
    assert [row["state"] for row in states] == [state.name for state in State]


# --- a conversation --------------------------------------------------------------------------------------------


def test_worked_exchange_is_byte_for_byte_what_the_document_shows() -> None:
    assert exchange.documented() == exchange.frames()


def test_worked_exchange_of_the_document_is_understood_however_it_is_split() -> None:
    """Each side reads the other's documented bytes; what it hears is what the exchange says."""
    for role in Role:
        heard = [what for who, what in exchange.EXCHANGE if who is role.peer]
        spoken = b"".join(data for who, data in exchange.documented() if who is role.peer)

        def read(parts: list[bytes], role: Role = role) -> list[object]:
            """Answer in step: a side's own words move its state, too."""
            connection = Connection(role)
            to_say = iter(exchange.EXCHANGE)
            found: list[object] = []

            def speak() -> None:
                for who, what in to_say:
                    if who is role.peer:
                        return
                    if isinstance(what, Heartbeat):
                        connection.heartbeat(what.busy)
                    else:
                        say(connection, what)

            speak()
            for part in parts:
                connection.receive_data(part)
                for event in events(connection):
                    if not isinstance(event, ChunkArriving):
                        found.append(event)
                        speak()
            assert connection.state is State.IDLE
            return found

        assert try_decoder(read, spoken) == heard


def test_chunk_is_announced_before_it_takes_memory_and_comes_uncopied() -> None:
    pair = pair_in(State.STREAMING)
    head, body = pair.sender.send_chunk(CHUNK)
    assert body is CHUNK.frame
    pair.receiver.receive_data(head + bytes(body))
    assert pair.receiver.next_event() == ChunkArriving(len(head) - 24 + len(body), CHUNK.raw_length)
    assert pair.receiver._reader._payload is None
    chunk = pair.receiver.next_event()
    assert chunk == CHUNK
    assert isinstance(chunk, Chunk)
    assert isinstance(chunk.frame, memoryview)
    assert chunk.frame.readonly


def test_acknowledgements_may_cross_chunks_finish_and_stop() -> None:
    for last, state in ((FINISH, State.FINISHING), (STOP, State.STOPPING)):
        pair = pair_in(State.STREAMING)
        pair.say(SENDER, CHUNK)
        in_flight = pair.receiver.send(messages.Ack(offset=0))
        said = pair.sender.send(last)
        pair.sender.receive_data(in_flight)
        assert list(events(pair.sender)) == [messages.Ack(offset=0)]
        pair.receiver.receive_data(said)
        assert list(events(pair.receiver)) == [last]
        pair.say(RECEIVER, messages.Ack(offset=624))
        assert pair.sender.state == pair.receiver.state == state


def test_second_push_begins_anew() -> None:
    pair = pair_in(State.STREAMING)
    pair.say(SENDER, CHUNK, FINISH)
    pair.say(RECEIVER, messages.Ack(offset=624), messages.Committed(receipt=receipt()))
    pair.say(SENDER, PUSH)
    pair.say(RECEIVER, ACCEPT)
    pair.say(SENDER, CHUNK)
    pair.say(RECEIVER, messages.Ack(offset=624))


def test_next_push_may_cross_the_receipt_of_the_stream_before() -> None:
    """Whether the receiver reads it before it has committed, or after."""
    for late in (False, True):
        pair = pair_in(State.STREAMING)
        pair.say(SENDER, CHUNK, FINISH)
        assert pair.sender.takes_offer
        said = pair.sender.send(PUSH)
        assert not pair.sender.takes_offer
        if not late:
            pair.receiver.receive_data(said)
            assert list(events(pair.receiver)) == [PUSH]
        pair.sender.receive_data(pair.receiver.send(messages.Ack(offset=624)))
        pair.sender.receive_data(pair.receiver.send(messages.Committed(receipt=receipt())))
        assert list(events(pair.sender)) == [messages.Ack(offset=624), messages.Committed(receipt=receipt())]
        if late:
            pair.receiver.receive_data(said)
            assert list(events(pair.receiver)) == [PUSH]
        assert pair.sender.state == pair.receiver.state == State.OFFERED
        pair.say(RECEIVER, ACCEPT)
        pair.say(SENDER, CHUNK, FINISH)
        pair.say(RECEIVER, messages.Ack(offset=624), messages.Committed(receipt=receipt()))
        assert pair.sender.state == pair.receiver.state == State.IDLE


def test_next_push_waits_for_the_receipt_unless_the_receiver_has_said_otherwise() -> None:
    pair = Pair()
    pair.say(RECEIVER, HELLO.model_copy(update={"features": ["another"]}))
    pair.say(SENDER, SENDER_HELLO, PUSH)
    pair.say(RECEIVER, ACCEPT)
    pair.say(SENDER, CHUNK, FINISH)
    assert not pair.sender.takes_offer
    with pytest.raises(LocalProtocolError, match="before the receipt"):
        pair.sender.send(PUSH)
    pair.receiver.receive_data(frame(PUSH))
    with pytest.raises(RemoteProtocolError, match="before the receipt"):
        list(events(pair.receiver))


def test_offer_is_made_behind_a_stream_that_waits_for_its_receipt_and_nowhere_else() -> None:
    assert [state for state in TALKING if pair_in(state).sender.takes_offer] == [State.FINISHING]


def test_accepted_rest_begins_where_the_receiver_says() -> None:
    pair = pair_in(State.OFFERED)
    pair.say(RECEIVER, messages.Accept(offset=1000, segments=segments(1000), record=None))
    pair.say(SENDER, replace(CHUNK, raw_offset=1000))
    pair.say(RECEIVER, messages.Ack(offset=1000))
    pair.say(SENDER, messages.Finish(raw_bytes=1624, segments=segments(1624)))


def test_fetch_gives_the_whole_stream_chunk_by_chunk() -> None:
    pair = pair_in(State.REQUESTED)
    pair.say(RECEIVER, messages.Sending(manifest=a_manifest(1248)))
    pair.say(RECEIVER, CHUNK, replace(CHUNK, raw_offset=624), DONE)
    assert pair.sender.state is State.IDLE


def test_push_after_a_fetch_is_not_bound_by_its_length() -> None:
    pair = pair_in(State.SENDING)
    pair.say(RECEIVER, CHUNK, DONE)
    pair.say(SENDER, PUSH)
    pair.say(RECEIVER, ACCEPT)
    pair.say(SENDER, CHUNK, replace(CHUNK, raw_offset=624))


# --- offsets, segments, versions -------------------------------------------------------------------------------


def gap(*ends: int) -> list[manifest.Segment]:
    """Segments of which one begins a byte too late."""
    return [
        manifest.Segment(start=start + (index == 1), end=end, sha256=SHA)
        for index, (start, end) in enumerate(zip([0, *ends], ends, strict=False))
    ]


BROKEN_PROMISES: list[tuple[State, Role, list[messages.Message | Chunk], str]] = [
    (State.GREETED, SENDER, [messages.SenderHello(program="x", version=2)], "version 2 is not spoken here; 1 is"),
    (State.OFFERED, RECEIVER, [messages.Accept(offset=5, segments=[], record=None)], "cover 0 raw bytes of 5"),
    (State.OFFERED, RECEIVER, [messages.Accept(offset=0, segments=segments(5), record=None)], "cover 5 raw bytes of 0"),
    (
        State.OFFERED,
        RECEIVER,
        [messages.Accept(offset=9, segments=gap(4, 9), record=None)],
        "segment from 5 to 9, where 4",
    ),
    (State.STREAMING, SENDER, [replace(CHUNK, raw_offset=1)], "offset 1: 0 was expected"),
    (State.STREAMING, SENDER, [CHUNK, CHUNK], "offset 0: 624 was expected"),
    (State.STREAMING, SENDER, [replace(CHUNK, starts_segment=False)], "the first of a push, starts no segment"),
    (
        State.OFFERED,
        RECEIVER,
        [
            messages.Accept(
                offset=0, segments=[], record=messages.Record(header="A" * 416, payload_sha256="5c" * 32, features=0)
            )
        ],
        "a record before raw offset 0",
    ),
    (State.STREAMING, SENDER, [FINISH], "'finish' at 624 raw bytes: 0 have been sent"),
    (State.STREAMING, SENDER, [CHUNK, messages.Finish(raw_bytes=623, segments=segments(623))], "624 have been sent"),
    (State.STREAMING, SENDER, [CHUNK, messages.Finish(raw_bytes=624, segments=[])], "cover 0 raw bytes of 624"),
    (State.STREAMING, SENDER, [CHUNK, messages.Finish(raw_bytes=624, segments=gap(9, 624))], "where 9 was reached"),
    (
        State.STREAMING,
        SENDER,
        [CHUNK, messages.Finish(raw_bytes=624, segments=[*segments(624), *segments(624)])],
        "from 0 to 624, where 624",
    ),
    (
        State.STREAMING,
        SENDER,
        [CHUNK, messages.Finish(raw_bytes=624, segments=[manifest.Segment(start=0, end=0, sha256=SHA)])],
        "from 0 to 0",
    ),
    (State.STREAMING, RECEIVER, [messages.Ack(offset=1)], "'ack' of 1 raw bytes: 0 have been sent"),
    (State.FINISHING, RECEIVER, [messages.Ack(offset=625)], "624 have been sent"),
    (State.FINISHING, RECEIVER, [messages.Ack(offset=624), messages.Ack(offset=623)], "'ack' of 623 .* one of 624"),
    (State.STOPPING, RECEIVER, [messages.Stopped(offset=1)], "'stopped' of 1 raw bytes: 0 have been sent"),
    (State.SENDING, RECEIVER, [DONE], "'done' after 0 raw bytes of 624"),
    (State.SENDING, RECEIVER, [replace(CHUNK, raw_length=625)], "to raw offset 625 of 624"),
    (State.SENDING, RECEIVER, [CHUNK, replace(CHUNK, raw_offset=624)], "to raw offset 1248 of 624"),
]


@pytest.mark.parametrize(("state", "who", "said", "why"), BROKEN_PROMISES)
def test_what_contradicts_what_was_said_before_is_refused_on_both_sides(
    state: State | Asked, who: Role, said: list[messages.Message | Chunk], why: str
) -> None:
    pair = pair_in(state)
    pair.say(who, *said[:-1])
    with pytest.raises(LocalProtocolError, match=why):
        say(pair.side(who), said[-1])
    assert_failed_for_good(pair.side(who))
    listener = pair.side(who.peer)
    listener.receive_data(encoded(said[-1]))
    with pytest.raises(RemoteProtocolError, match=why):
        list(events(listener))
    assert_failed_for_good(listener)


def test_version_that_was_not_offered_is_answered_with_its_own_code() -> None:
    pair = pair_in(State.GREETED)
    pair.receiver.receive_data(frame(messages.SenderHello(program="fullsend 9", version=9)))
    with pytest.raises(RemoteProtocolError) as caught:
        pair.receiver.next_event()
    assert caught.value.code is ErrorCode.VERSION


@pytest.mark.parametrize(
    "chunk",
    [
        replace(CHUNK, raw_length=0),
        replace(CHUNK, raw_length=limits.CHUNK_MAX + 1),
        replace(CHUNK, raw_length=-1),
        replace(CHUNK, frame=b""),
        replace(CHUNK, frame=bytes(limits.CHUNK_FRAME_MAX + 1)),
        replace(CHUNK, sha256=DIGEST[:-1]),
        replace(CHUNK, sha256=b""),
    ],
    ids=["empty", "too long", "negative", "no frame", "frame too long", "short hash", "no hash"],
)
def test_chunk_that_the_peer_must_refuse_is_not_sent(chunk: Chunk) -> None:
    sender = pair_in(State.STREAMING).sender
    with pytest.raises(LocalProtocolError):
        sender.send_chunk(chunk)
    assert_failed_for_good(sender)


def test_message_beyond_the_limit_is_not_sent() -> None:
    pair = pair_in(Asked("list"))
    entry = SAYINGS[RECEIVER]["entries"]
    assert isinstance(entry, messages.Entries)
    long = entry.entries[0].model_copy(update={"damaged": "x" * limits.CONTROL_MAX})
    with pytest.raises(LocalProtocolError, match="at most 1048576"):
        pair.receiver.send(messages.Entries(entries=[long]))


# --- limits, by the header alone -------------------------------------------------------------------------------


def refused_by_header(connection: Connection, header: bytes) -> str:
    """Feed a header and not one byte of its payload. Returns: the refusal."""
    connection.receive_data(header)
    with pytest.raises(RemoteProtocolError) as caught:
        connection.next_event()
    assert connection._reader._payload is None
    return str(caught.value)


def forged(kind: int, payload: int, offset: int = 0, raw: int = 0) -> bytes:
    head = struct.pack(">BBHIQI", kind, 0, 0, payload, offset, raw)
    return head + struct.pack(">I", zlib.crc32(head))


@pytest.mark.parametrize("state", TALKING)
@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(
    "header",
    [
        forged(1, limits.CONTROL_MAX + 1),
        forged(1, 0xFFFFFFFF),
        forged(2, limits.DIGEST_SIZE + limits.CHUNK_FRAME_MAX + 1, 0, 1),
        forged(2, 100, 0, limits.CHUNK_MAX + 1),
        forged(2, 0xFFFFFFFF, 0, 0xFFFFFFFF),
        forged(3, limits.HEARTBEAT_MAX + 1),
        forged(7, 0),
    ],
    ids=["control", "control 4 GiB", "frame", "raw", "both 4 GiB", "heartbeat", "type"],
)
def test_oversized_payload_is_refused_by_its_header_alone(state: State | Asked, role: Role, header: bytes) -> None:
    refused_by_header(pair_in(state).side(role), header)


UNIDENTIFIED = [State.GREETED, State.STRANGER, State.JOINING, State.ASKING]


@pytest.mark.parametrize("state", UNIDENTIFIED)
@pytest.mark.parametrize("role", Role)
def test_before_the_peer_is_identified_16_kib_are_all_it_may_send(state: State | Asked, role: Role) -> None:
    connection = pair_in(state).side(role)
    connection.receive_data(FrameHeader(FrameType.CONTROL, limits.UNIDENTIFIED_MAX).encode())
    assert connection.next_event() is NEED_DATA
    connection = pair_in(state).side(role)
    header = FrameHeader(FrameType.CONTROL, limits.UNIDENTIFIED_MAX + 1).encode()
    assert "before the peer is identified: at most 16384" in refused_by_header(connection, header)
    with pytest.raises(LocalProtocolError, match="16384"):
        pair_in(state).side(role).send(messages.Error(code=ErrorCode.LIMIT, message="\x01" * 4096))


@pytest.mark.parametrize("kind", FrameType)
def test_header_that_came_before_the_hello_does_not_slip_past_the_limits_behind_it(kind: FrameType) -> None:
    receiver = Connection(RECEIVER)
    raw = 100 if kind is FrameType.CHUNK else 0
    assert "before the receiver's hello" in refused_by_header(receiver, FrameHeader(kind, 50, 0, raw).encode())


def test_receiver_speaks_no_heartbeat_and_no_chunk_before_its_hello() -> None:
    for kind, raw in ((FrameType.HEARTBEAT, 0), (FrameType.CHUNK, 5)):
        assert "before the receiver's hello" in refused_by_header(
            Connection(SENDER), FrameHeader(kind, 50, 0, raw).encode()
        )


@pytest.mark.parametrize("state", TALKING)
@pytest.mark.parametrize("role", Role)
def test_chunk_where_none_may_come_is_refused_by_its_header_alone(state: State | Asked, role: Role) -> None:
    header = FrameHeader(FrameType.CHUNK, 20_000_000, 0, 624, starts_segment=True).encode()
    connection = pair_in(state).side(role)
    if (state, role.peer, "chunk") in TRANSITIONS:
        connection.receive_data(header)
        assert connection.next_event() == ChunkArriving(20_000_000, 624)
    else:
        refused_by_header(connection, header)


# --- the end ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [state for state in State if state is not State.FAILED])
@pytest.mark.parametrize("role", Role)
def test_closed_socket_is_an_end_only_where_nothing_is_under_way(state: State | Asked, role: Role) -> None:
    connection = pair_in(state).side(role)
    connection.receive_data(b"")
    if state in {State.IDLE, State.CLOSED}:
        assert connection.next_event() == ConnectionEnded()
        assert connection.next_event() == ConnectionEnded()
    else:
        with pytest.raises(ConnectionLost, match=f"ended in state {state.name.lower()}"):
            connection.next_event()
        assert_failed_for_good(connection)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("length", [1, 23, 24, 25])
def test_closed_socket_inside_a_frame_is_never_an_end(role: Role, length: int) -> None:
    connection = pair_in(State.IDLE).side(role)
    connection.receive_data(frame(ERROR)[:length])
    connection.receive_data(b"")
    with pytest.raises(ConnectionLost):
        list(events(connection))


@pytest.mark.parametrize("length", [1, 24, 55, 56, 57])
def test_closed_socket_inside_a_chunk_is_never_an_end(length: int) -> None:
    receiver = pair_in(State.STREAMING).receiver
    receiver.receive_data(encoded(CHUNK)[:length])
    receiver.receive_data(b"")
    with pytest.raises(ConnectionLost):
        list(events(receiver))


def test_last_words_before_the_socket_closed_are_heard() -> None:
    sender = pair_in(State.STREAMING).sender
    sender.receive_data(frame(ERROR))
    sender.receive_data(b"")
    assert sender.next_event() == ERROR
    assert sender.next_event() == ConnectionEnded()


def test_after_the_peers_last_word_it_says_nothing_more() -> None:
    pair = pair_in(State.STREAMING)
    pair.say(RECEIVER, ERROR)
    pair.sender.receive_data(frame(messages.Ack(offset=0)))
    with pytest.raises(RemoteProtocolError, match="after the end of the conversation"):
        pair.sender.next_event()


def test_what_the_peer_said_before_it_heard_our_last_word_is_no_error() -> None:
    pair = pair_in(State.STREAMING)
    chunk = encoded(CHUNK)
    pair.receiver.receive_data(chunk[:100])
    pair.receiver.send(ERROR)
    pair.receiver.receive_data(chunk[100:] + frame(FINISH) + pair.sender.heartbeat())
    assert pair.receiver.next_event() is NEED_DATA
    assert not pair.receiver._reader.inside_frame  # nothing is kept of it either
    pair.receiver.receive_data(b"")
    assert pair.receiver.next_event() == ConnectionEnded()


def test_join_may_cross_a_heartbeat() -> None:
    pair = pair_in(State.JOINING)
    beat = pair.sender.heartbeat()
    pair.say(RECEIVER, SAYINGS[RECEIVER]["joined"])
    pair.receiver.receive_data(beat)
    assert pair.receiver.next_event() is NEED_DATA


@pytest.mark.parametrize("state", TALKING)
def test_peer_that_broke_a_rule_is_told_why_once(state: State | Asked) -> None:
    pair = pair_in(state)
    pair.receiver.receive_data(b"GET / HTTP/1.1\r\nHost: backup\r\n\r\n")
    with pytest.raises(RemoteProtocolError, match="does not speak fullsend's protocol"):
        pair.receiver.next_event()
    pair.sender.receive_data(pair.receiver.send(ERROR))
    assert list(events(pair.sender)) == [ERROR]
    assert pair.receiver.state is State.FAILED
    with pytest.raises(LocalProtocolError):
        pair.receiver.send(ERROR)
    assert_failed_for_good(pair.receiver)


def test_failed_connection_keeps_nothing_of_what_comes() -> None:
    receiver = pair_in(State.IDLE).receiver
    receiver.receive_data(b"x" * 1000)
    with pytest.raises(RemoteProtocolError):
        receiver.next_event()
    receiver.receive_data(b"x" * 1000)
    assert not receiver._reader.inside_frame


# --- heartbeats ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [state for state in TALKING if state is not State.OPENING])
@pytest.mark.parametrize("role", Role)
def test_heartbeat_passes_in_every_state_and_changes_none(state: State | Asked, role: Role) -> None:
    pair = pair_in(state)
    assert pair.heartbeat(role, "disk") == [Heartbeat("disk")]
    assert pair.heartbeat(role) == [Heartbeat("")]
    assert pair.sender.state == pair.receiver.state == state


@pytest.mark.parametrize("role", Role)
def test_nobody_sends_a_heartbeat_before_the_hello(role: Role) -> None:
    assert Connection(role).heartbeat() == b""


@pytest.mark.parametrize(
    ("busy", "heard"), [("x" * 100, "x" * 64), ("Gerät\n\x1b[2J", "Ger?t??[2J"), ("\N{HEAVY CHECK MARK}", "?")]
)
def test_heartbeat_says_no_more_than_a_printable_word(busy: str, heard: str) -> None:
    assert pair_in(State.IDLE).heartbeat(RECEIVER, busy) == [Heartbeat(heard)]


@pytest.mark.parametrize("word", [b"\x1b[2J", b"\xff", b"a\nb", b"\0"])
def test_heartbeat_that_would_write_on_a_terminal_is_a_breach(word: bytes) -> None:
    sender = pair_in(State.IDLE).sender
    sender.receive_data(FrameHeader(FrameType.HEARTBEAT, len(word)).encode() + word)
    with pytest.raises(RemoteProtocolError, match="printable ASCII"):
        sender.next_event()


# --- any state, any input --------------------------------------------------------------------------------------

ANY_HEADER = st.builds(
    forged,
    st.sampled_from([0, 1, 1, 1, 2, 2, 3, 4]),
    st.one_of(st.integers(0, 300), st.integers(0, (1 << 32) - 1)),
    st.sampled_from([0, 0, 0, 1, 624, (1 << 64) - 1]),
    st.sampled_from([0, 0, 624, 1, (1 << 32) - 1]),
)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def nearly_messages(draw: st.DrawFn) -> bytes:
    """A frame of a message with some of its values replaced."""
    who = draw(st.sampled_from(Role))
    what = SAYINGS[who][draw(st.sampled_from(sorted(SAYINGS[who])))]
    if isinstance(what, Chunk):
        return encoded(replace(what, raw_offset=draw(st.sampled_from([0, 624, 1248]))))
    fields = what.model_dump(mode="json", by_alias=True)
    for name in draw(st.lists(st.sampled_from(sorted(fields)), max_size=2)):
        fields[name] = draw(ANY_JSON)
    payload = json.dumps(fields).encode()
    return FrameHeader(FrameType.CONTROL, len(payload)).encode() + payload


ANY_INPUT = st.one_of(
    st.binary(max_size=100),
    st.just(b""),
    st.builds(lambda header, payload: header + payload, ANY_HEADER, st.binary(max_size=100)),
    st.sampled_from([encoded(what) for who in Role for what in SAYINGS[who].values()]),
    nearly_messages(),
)


@given(
    st.sampled_from([state for state in State if state is not State.FAILED]),
    st.sampled_from(Role),
    st.lists(ANY_INPUT, min_size=1, max_size=5),
)
def test_any_input_in_any_state_is_an_event_or_a_wish_for_more_or_the_peers_fault(
    state: State | Asked, role: Role, received: list[bytes]
) -> None:
    connection = pair_in(state).side(role)
    failed, said = False, ""
    for data in received:
        connection.receive_data(data)
        for _ in range(1000):
            try:
                event = connection.next_event()
            except RemoteProtocolError as error:
                failed, said = True, str(error)
                break
            assert not failed
            assert connection.state is not State.FAILED
            if event is NEED_DATA or isinstance(event, ConnectionEnded):
                break
        else:
            pytest.fail("a thousand events out of 5 inputs")
        assert said.isprintable()
        assert failed == (connection.state is State.FAILED)


@given(st.data())
def test_any_two_sides_that_keep_to_the_table_understand_each_other(data: st.DataObject) -> None:
    pair = Pair()
    offset = 0
    for _ in range(data.draw(st.integers(0, 30))):
        rows = [row for row in LEGAL if row[0] is pair.sender.state]
        if not rows:
            return
        _state, who, what = data.draw(st.sampled_from(rows))
        said = SAYINGS[who][what]
        match said:
            case messages.Accept() | messages.Sending():
                offset = 0
            case Chunk():
                if pair.sender.state is State.SENDING and offset:
                    continue
                said = replace(said, raw_offset=offset)
                offset += said.raw_length
            case messages.Ack():
                said = messages.Ack(offset=offset)
            case messages.Finish():
                said = messages.Finish(raw_bytes=offset, segments=segments(offset))
            case messages.Done() if pair.sender.state is State.SENDING and not offset:
                continue
            case _:
                pass
        pair.say(who, said)


@given(st.lists(st.sampled_from(ALL_SAYINGS), max_size=8), st.sampled_from(Role))
def test_whatever_we_try_to_say_is_said_by_the_table_or_is_our_fault(
    attempts: list[tuple[Role, str]], role: Role
) -> None:
    connection = Connection(role)
    failed = False
    for who, what in attempts:
        if who is not role:
            continue
        try:
            say(connection, SAYINGS[who][what])
        except LocalProtocolError:
            failed = True
        assert (connection.state is State.FAILED) == failed


# --- resuming --------------------------------------------------------------------------------------------------


def test_push_resumes_where_accept_says_with_a_segment_of_its_own() -> None:
    pair = pair_in(State.OFFERED)
    record = messages.Record(header="A" * 416, payload_sha256="5c" * 32, features=0)
    pair.say(RECEIVER, messages.Accept(offset=1000, segments=segments(1000), record=record))
    pair.say(SENDER, replace(CHUNK, raw_offset=1000), replace(CHUNK, raw_offset=1624, starts_segment=False))
    pair.say(RECEIVER, messages.Ack(offset=1624))


def test_after_another_accept_the_first_chunk_starts_a_segment_again() -> None:
    pair = pair_in(State.STREAMING)
    pair.say(SENDER, CHUNK, messages.Stop(reason="tired", keep=True))
    pair.say(RECEIVER, messages.Stopped(offset=624))
    pair.say(SENDER, PUSH)
    pair.say(RECEIVER, messages.Accept(offset=624, segments=segments(624), record=None))
    with pytest.raises(LocalProtocolError, match="starts no segment"):
        pair.sender.send_chunk(replace(CHUNK, raw_offset=624, starts_segment=False))


def test_fetch_begins_where_it_says() -> None:
    pair = pair_in(State.IDLE)
    pair.say(SENDER, messages.Fetch(stream="tank/data@now", offset=600, until=None))
    pair.say(RECEIVER, messages.Sending(manifest=a_manifest()))
    pair.say(RECEIVER, replace(CHUNK, raw_offset=600, raw_length=24, starts_segment=False), DONE)


def test_fetch_ends_where_it_says() -> None:
    wanted = messages.Fetch(stream="tank/data@now", offset=0, until=601)
    chunk = replace(CHUNK, raw_offset=0, raw_length=600, starts_segment=True)
    for end in (601, 624):  # with a chunk that begins before, where it is reached, and no other
        pair = pair_in(State.IDLE)
        pair.say(SENDER, wanted)
        pair.say(RECEIVER, messages.Sending(manifest=a_manifest()), chunk)
        with pytest.raises(LocalProtocolError, match="'done' after 600 raw bytes of 624"):
            pair.receiver.send(DONE)
        pair = pair_in(State.IDLE)
        pair.say(SENDER, wanted)
        rest = replace(CHUNK, raw_offset=600, raw_length=end - 600, starts_segment=False)
        pair.say(RECEIVER, messages.Sending(manifest=a_manifest()), chunk, rest, DONE)
    pair = pair_in(State.IDLE)
    pair.say(SENDER, wanted.model_copy(update={"until": 600}))
    pair.say(RECEIVER, messages.Sending(manifest=a_manifest()), chunk)
    with pytest.raises(LocalProtocolError, match="a chunk at raw offset 600: wanted are those before 600"):
        pair.receiver.send_chunk(rest)


def test_fetch_from_beyond_the_end_is_refused() -> None:
    pair = pair_in(State.IDLE)
    pair.say(SENDER, messages.Fetch(stream="tank/data@now", offset=625, until=None))
    with pytest.raises(LocalProtocolError, match="from raw offset 625 of 624"):
        pair.receiver.send(messages.Sending(manifest=a_manifest()))
