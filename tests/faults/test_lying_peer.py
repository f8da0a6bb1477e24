"""Peers that lie, each over a real connection to a real daemon, each refused by name at bounded memory.

One daemon for all of them: after every lie it must still do honest work, know what happened (its log has no traceback),
hold no more memory than docs/operations.md says, and have no connection left over.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from tests import streams
from tests.receiver.helpers import remove
from tests.receiver.peer import (
    CHUNK,
    CHUNK_MIN,
    CONTROL,
    HEARTBEAT,
    Certificate,
    Chunk,
    Peer,
    chunks,
    client_context,
    compress,
    control,
    cut_records,
    dated_certificate,
    finish,
    header,
    heartbeat,
    make_certificate,
    offer,
    sign_certificate,
)
from tests.receiver.running import MEMORY, MEMORY_PER_STREAM, MIB, Receiver, serving, wait_until

from fullsend_receiver.store.local import LocalStore

CHUNK_MAX: Final = 20 * MIB
CHUNK_FRAME_MAX: Final = CHUNK_MAX + CHUNK_MAX // 256 + 64
CONTROL_MAX: Final = MIB
UNIDENTIFIED_MAX: Final = 16 << 10
HEARTBEAT_MAX: Final = 64
PROPERTIES_MAX: Final = 32 << 10
DATASETS_PAGE: Final = 1200

WRITE_SIZE: Final = 128 << 10


def two_chunks(name: str = "tank/data@now", guid: int = streams.GUID) -> list[bytes]:
    """A whole stream in two pieces, cut by the rule."""
    writes = [streams.write(1, index * WRITE_SIZE, bytes([index]) * WRITE_SIZE) for index in range(40)]
    pieces = cut_records([streams.begin(name, guid), streams.object_(1), *writes, streams.end(guid)])
    assert len(pieces) == 2
    return pieces


PIECES: Final = two_chunks()
WHOLE: Final = b"".join(PIECES)
FIRST, SECOND = chunks(PIECES)
SHORT: Final = streams.substream(streams.object_(1), streams.write(1, 0, b"data" * 128))
(ONLY,) = chunks([SHORT])


@pytest.fixture(scope="module")
def serving_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    with serving(tmp_path_factory.mktemp("lying"), "alpha", "honest") as receiver:
        yield receiver


@pytest.fixture
def receiver(serving_all: Receiver) -> Iterator[Receiver]:
    """The daemon, which a test leaves as it found it."""
    receiver = serving_all
    with receiver.all_closed():
        receiver.reset_peak()
        yield receiver
        assert receiver.peak <= MEMORY + MEMORY_PER_STREAM
        with receiver.peer("honest") as honest:
            honest.say("check")
            assert honest.hear("health")["problems"] == []
            honest.expect_end()
        with receiver.peer() as peer:
            peer.say("list", dataset=None)
            peer.hear("done")
            peer.expect_end()
    receiver.check_log()


# --- at which moment a peer may lie ----------------------------------------------------------------------------


def stranger(receiver: Receiver) -> Peer:
    """Has shown no certificate, and heard the hello."""
    peer = Peer(receiver.port)
    assert peer.hear("hello")["sender"] is None
    return peer


def greeted(receiver: Receiver) -> Peer:
    """Has shown its certificate, and heard the hello."""
    peer = Peer(receiver.port, receiver.senders["alpha"])
    assert peer.hear("hello")["sender"] == "alpha"
    return peer


def idle(receiver: Receiver) -> Peer:
    """Is identified."""
    return receiver.peer()


def streaming(receiver: Receiver) -> Peer:
    """Has had a stream accepted."""
    peer = receiver.peer()
    peer.push()
    return peer


def second(receiver: Receiver) -> Peer:
    """Has had a stream accepted, and sent its first chunk."""
    peer = streaming(receiver)
    peer.write(FIRST.encode())
    return peer


Moment = Callable[[Receiver], Peer]


def spoilt(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def message(type_: str, **fields: Any) -> bytes:
    return control({"type": type_, **fields})


HELLO: Final = message("hello", program="raw peer", version=1)
LIST: Final = message("list", dataset=None)
UNCHANGED: Final = {"dataset": "tank/data", "snapshot": "now", "guid": "1"}

#: name: when, what is said, and how it is refused.
LIES: Final[dict[str, tuple[Moment, bytes, str]]] = {
    # Lengths: refused by the header alone, so what was announced never arrives, and no memory is taken for it.
    "a control message too long": (
        idle,
        header(CONTROL, CONTROL_MAX + 1),
        "protocol: a CONTROL frame of 1048577 bytes: 0 to 1048576 are allowed",
    ),
    "a control message of 4 GiB": (
        idle,
        header(CONTROL, 0xFFFFFFFF),
        "protocol: a CONTROL frame of 4294967295 bytes: 0 to 1048576 are allowed",
    ),
    "a heartbeat too long": (
        idle,
        header(HEARTBEAT, HEARTBEAT_MAX + 1),
        "protocol: a HEARTBEAT frame of 65 bytes: 0 to 64 are allowed",
    ),
    "a stranger's message too long": (
        stranger,
        header(CONTROL, UNIDENTIFIED_MAX + 1),
        "protocol: a CONTROL frame of 16385 bytes before the peer is identified: at most 16384 are allowed",
    ),
    "a message too long before the sender's hello": (
        greeted,
        header(CONTROL, UNIDENTIFIED_MAX + 1),
        "protocol: a CONTROL frame of 16385 bytes before the peer is identified: at most 16384 are allowed",
    ),
    "a chunk's frame too long": (
        streaming,
        header(CHUNK, 32 + CHUNK_FRAME_MAX + 1, 0, 1),
        f"protocol: a CHUNK frame of {32 + CHUNK_FRAME_MAX + 1} bytes: 33 to {32 + CHUNK_FRAME_MAX} are allowed",
    ),
    "a chunk's frame too short": (
        streaming,
        header(CHUNK, 32, 0, 1),
        f"protocol: a CHUNK frame of 32 bytes: 33 to {32 + CHUNK_FRAME_MAX} are allowed",
    ),
    "a chunk of too many raw bytes": (
        streaming,
        header(CHUNK, 100, 0, CHUNK_MAX + 1),
        f"protocol: a chunk of {CHUNK_MAX + 1} raw bytes: 1 to {CHUNK_MAX} are allowed",
    ),
    "a chunk of no raw bytes": (
        streaming,
        header(CHUNK, 100, 0, 0),
        f"protocol: a chunk of 0 raw bytes: 1 to {CHUNK_MAX} are allowed",
    ),
    "a chunk at an offset beyond all streams": (
        streaming,
        header(CHUNK, 100, 1 << 63, 1),
        f"protocol: a chunk at raw offset {1 << 63}: no stream is that long",
    ),
    # Frames and messages that are not valid.
    "a header with a wrong CRC": (
        idle,
        spoilt(LIST, 23),
        "protocol: frame header with a wrong CRC: the peer does not speak fullsend's protocol",
    ),
    "a header with a length that was changed on the way": (
        idle,
        spoilt(LIST, 7),
        "protocol: frame header with a wrong CRC: the peer does not speak fullsend's protocol",
    ),
    "something else than frames": (
        idle,
        b"GET / HTTP/1.1\r\nHost: receiver\r\n\r\n",
        "protocol: frame header with a wrong CRC: the peer does not speak fullsend's protocol",
    ),
    "an unknown frame type": (idle, header(9, 0), "protocol: unknown frame type 9"),
    "flags": (
        idle,
        header(CONTROL, 0, flags=2),
        "protocol: frame flags 0x02 and reserved 0x0000: unknown to version 1",
    ),
    "a message that starts a segment": (
        idle,
        header(CONTROL, 2, flags=1) + b"{}",
        "protocol: a CONTROL frame has no raw offset, no raw length, and starts no segment",
    ),
    "a message with a raw offset": (
        idle,
        header(CONTROL, 2, 1, 0) + b"{}",
        "protocol: a CONTROL frame has no raw offset, no raw length, and starts no segment",
    ),
    "no JSON": (idle, control(b"\xff\0garbage"), "protocol: message that cannot be read: "),
    "half of a JSON object": (idle, control(b'{"type":"list"'), "protocol: message that cannot be read: "),
    "nothing": (idle, control(b""), "protocol: message that cannot be read: "),
    "JSON nested a million times": (
        idle,
        control(b"[" * (CONTROL_MAX - 1)),
        "protocol: message that cannot be read: ",
    ),
    "a message without a type": (idle, control({"dataset": None}), "protocol: message that cannot be read: "),
    "an unknown message": (idle, message("delete", dataset="tank"), "protocol: message that cannot be read: "),
    "a receiver's message": (idle, message("ack", offset=0), "protocol: message that cannot be read: "),
    "an unknown key": (idle, message("list", dataset=None, sender="honest"), "protocol: message that cannot be read: "),
    "a key that writes on a terminal": (
        idle,
        message("list", dataset=None, **{"\x1b[2J\x07": 1}),
        "protocol: message that cannot be read: list.\\x1b[2J\\x07: ",
    ),
    "a wrong type of value": (idle, message("list", dataset=7), "protocol: message that cannot be read: "),
    "a dataset of 256 characters": (idle, control(offer("d" * 256)), "protocol: message that cannot be read: "),
    "a GUID of 65 bits": (idle, control(offer(guid=str(1 << 64))), "protocol: message that cannot be read: "),
    "properties of too many characters": (
        idle,
        control(offer(properties={"user:note": "x" * PROPERTIES_MAX})),
        "protocol: message that cannot be read: push.properties: Value error, more than 32768 characters of properties",
    ),
    "properties that are no strings": (
        idle,
        control(offer(properties={"quota": 5})),
        "protocol: message that cannot be read: push.properties.quota: ",
    ),
    "a claim that is not one": (
        idle,
        control(offer(claim="mine")),
        "protocol: message that cannot be read: push.claim: ",
    ),
    "an unknown way to resume": (
        idle,
        control(offer(resume="magic")),
        "protocol: message that cannot be read: push.resume: ",
    ),
    "partials? by a stranger": (
        stranger,
        message("partials?"),
        "protocol: 'partials?' from the sender in state stranger",
    ),
    "locate amid a stream": (
        streaming,
        message("locate", stream="tank/data@now", object=1, offset=0),
        "protocol: 'locate' from the sender in state streaming",
    ),
    "a first chunk that starts no segment": (
        streaming,
        Chunk(0, FIRST.raw_length, FIRST.sha256, FIRST.frame).encode(),
        "protocol: a chunk at raw offset 0, the first of a push, starts no segment",
    ),
    "a push that says nothing of orphans": (
        idle,
        control({key: value for key, value in offer().items() if key != "keep_orphan"}),
        "protocol: message that cannot be read: push.keep_orphan: Field required",
    ),
    "more unchanged datasets than in a page": (
        idle,
        message("unchanged", datasets=[UNCHANGED] * (DATASETS_PAGE + 1)),
        "protocol: message that cannot be read: unchanged.datasets: List should have at most 1200 items",
    ),
    "an unchanged dataset without a GUID": (
        idle,
        message("unchanged", datasets=[{**UNCHANGED, "guid": None}]),
        "protocol: message that cannot be read: unchanged.datasets.0.guid: ",
    ),
    "the receiver's answer to bases?": (
        idle,
        message("bases", bases=[]),
        "protocol: message that cannot be read: ",
    ),
    "a heartbeat that writes on a terminal": (
        idle,
        heartbeat(b"\x1b[2J"),
        "protocol: a heartbeat whose reason is not printable ASCII",
    ),
    # The order.
    "a list by a stranger": (stranger, LIST, "protocol: 'list' from the sender in state stranger"),
    "bases? by a stranger": (stranger, message("bases?"), "protocol: 'bases?' from the sender in state stranger"),
    "status? before the hello": (greeted, message("status?"), "protocol: 'status?' from the sender in state greeted"),
    "unchanged amid a stream": (
        streaming,
        message("unchanged", datasets=[UNCHANGED]),
        "protocol: 'unchanged' from the sender in state streaming",
    ),
    "a push by a stranger": (stranger, control(offer()), "protocol: 'push' from the sender in state stranger"),
    "a hello by a stranger": (stranger, HELLO, "unknown-sender: no certificate was shown: pair this host first"),
    "a list before the hello": (greeted, LIST, "protocol: 'list' from the sender in state greeted"),
    "a join by a sender": (
        greeted,
        message("join", secret="s", certificate="c"),
        "protocol: 'join' from the sender in state greeted",
    ),
    "an unknown version": (
        greeted,
        message("hello", program="raw peer", version=2),
        "version: protocol version 2 is not spoken here; 1 is",
    ),
    "hello twice": (idle, HELLO, "protocol: 'hello' from the sender in state idle"),
    "a chunk before a push": (idle, ONLY.encode(), "protocol: 'chunk' from the sender in state idle"),
    "finish before a push": (idle, control(finish(SHORT)), "protocol: 'finish' from the sender in state idle"),
    "stop before a push": (
        idle,
        message("stop", reason="x", keep=True),
        "protocol: 'stop' from the sender in state idle",
    ),
    "two pushes": (
        streaming,
        control(offer("tank/other")),
        "protocol: 'push' from the sender in state streaming",
    ),
    "a list amid a stream": (second, LIST, "protocol: 'list' from the sender in state streaming"),
    "garbage amid a stream": (
        second,
        bytes(24),
        "protocol: frame header with a wrong CRC: the peer does not speak fullsend's protocol",
    ),
    # Chunks: their place, their hash, their frame, their cut.
    "a first chunk that is not at the start": (
        streaming,
        SECOND.encode(),
        f"protocol: a chunk at raw offset {SECOND.raw_offset}: 0 was expected",
    ),
    "the same chunk twice": (
        second,
        FIRST.encode(),
        f"protocol: a chunk at raw offset 0: {SECOND.raw_offset} was expected",
    ),
    "a chunk with another SHA-256": (
        streaming,
        Chunk(0, FIRST.raw_length, bytes(32), FIRST.frame, starts_segment=True).encode(),
        "chunk: chunk at raw offset 0: its SHA-256 differs from the sender's",
    ),
    "a second chunk with the SHA-256 of itself alone": (
        second,
        Chunk(SECOND.raw_offset, SECOND.raw_length, hashlib.sha256(PIECES[1]).digest(), SECOND.frame).encode(),
        f"chunk: chunk at raw offset {SECOND.raw_offset}: its SHA-256 differs from the sender's",
    ),
    "a chunk that is not a zstd frame": (
        streaming,
        Chunk(0, FIRST.raw_length, FIRST.sha256, b"garbage" * 100, starts_segment=True).encode(),
        "chunk: not a zstd frame",
    ),
    "a chunk with a flipped bit": (
        streaming,
        Chunk(0, ONLY.raw_length, ONLY.sha256, spoilt(ONLY.frame, len(ONLY.frame) // 2), starts_segment=True).encode(),
        "chunk: a zstd frame that does not decode",
    ),
    "a chunk with a spoilt checksum": (
        streaming,
        Chunk(0, ONLY.raw_length, ONLY.sha256, spoilt(ONLY.frame, len(ONLY.frame) - 1), starts_segment=True).encode(),
        "chunk: a zstd frame that does not decode",
    ),
    "a chunk without checksum": (
        streaming,
        Chunk(0, ONLY.raw_length, ONLY.sha256, compress(SHORT, write_checksum=False), starts_segment=True).encode(),
        "chunk: a zstd frame without checksum",
    ),
    "a chunk without content size": (
        streaming,
        Chunk(0, ONLY.raw_length, ONLY.sha256, compress(SHORT, write_content_size=False), starts_segment=True).encode(),
        "chunk: a zstd frame of",
    ),
    "a chunk with bytes behind its frame": (
        streaming,
        Chunk(0, ONLY.raw_length, ONLY.sha256, ONLY.frame + b"\0", starts_segment=True).encode(),
        "chunk: a zstd frame that does not decode",
    ),
    "a chunk of two frames": (
        streaming,
        Chunk(
            0, ONLY.raw_length, ONLY.sha256, compress(SHORT[:100]) + compress(SHORT[100:]), starts_segment=True
        ).encode(),
        "chunk: a zstd frame of 100 raw bytes",
    ),
    "a chunk and a skippable frame": (
        streaming,
        Chunk(
            0,
            ONLY.raw_length,
            ONLY.sha256,
            ONLY.frame + struct.pack("<II", 0x184D2A50, 4) + b"dark",
            starts_segment=True,
        ).encode(),
        "chunk: a zstd frame that does not decode",
    ),
    "a chunk cut too early": (
        streaming,
        b"".join(chunk.encode() for chunk in chunks([WHOLE[: CHUNK_MIN // 2], WHOLE[CHUNK_MIN // 2 : CHUNK_MIN]])),
        f"stream: chunk at raw offset {CHUNK_MIN // 2}: the one before it ended where none may end",
    ),
    "a chunk cut too late": (
        streaming,
        chunks([WHOLE])[0].encode(),
        f"stream: chunk at raw offset 0 of {len(WHOLE)} bytes, which must end at {len(PIECES[0])}",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_refused_by_name(lie: str, receiver: Receiver) -> None:
    moment, said, expected = LIES[lie]
    before = receiver.log
    with moment(receiver) as peer:
        peer.write(said)
        refusal = peer.refusal()
    assert refusal.startswith(expected)
    # The daemon's log says the same, and of whom.
    who = "127.0.0.1: " if moment is stranger else "alpha (127.0.0.1): "
    line = who + refusal.partition(": ")[2].replace("\\", "\\\\")
    wait_until(lambda: line in receiver.log.removeprefix(before), f"{line} in {receiver.log.removeprefix(before)}")


# --- streams that lie, frame by frame as they should be --------------------------------------------------------

#: name: the stream in pieces, how many of them are good, the last word on it, and how it is refused.
STREAM_LIES: Final[dict[str, tuple[list[bytes], int, bytes, str]]] = {
    "garbage": (
        [b"not a send stream, and long enough to be looked at"],
        0,
        b"",
        "stream: not a ZFS send stream: it does not begin with a BEGIN record",
    ),
    "a resumed stream": (
        [streams.substream(streams.object_(1), features={20})],
        0,
        b"",
        "stream: tank/data@now is a resumed stream (zfs send -t): it lacks what was sent before",
    ),
    "bytes after the end": ([SHORT + b"more"], 0, b"", "stream: bytes follow the stream's end at"),
    "another chunk after the end": (
        [*PIECES, SHORT],
        2,
        b"",
        f"stream: chunk at raw offset {len(WHOLE)}: the one before it ended where none may end",
    ),
    "an unknown record": (
        [streams.substream(streams.record(77, {}))],
        0,
        b"",
        "stream: unknown record type 77 at 312: the stream is damaged",
    ),
    "an unknown record in the second chunk": (
        [PIECES[0], streams.record(77, {})],
        1,
        b"",
        f"stream: unknown record type 77 at {len(PIECES[0])}: the stream is damaged",
    ),
    "a stream without its end": (
        [PIECES[0], PIECES[1][:-312]],
        2,
        control(finish(WHOLE[:-312])),
        "stream: the stream ends before its END record",
    ),
    "no stream at all": (
        [],
        0,
        control({"type": "finish", "raw_bytes": 0, "segments": []}),
        "stream: no data: not a single byte of a send stream arrived",
    ),
    "finish with a smaller size": (
        [SHORT],
        1,
        control({**finish(SHORT), "raw_bytes": 1}),
        f"protocol: 'finish' at 1 raw bytes: {len(SHORT)} have been sent",
    ),
    "finish with a larger size": (
        [SHORT],
        1,
        control(finish(SHORT + b"more")),
        f"protocol: 'finish' at {len(SHORT) + 4} raw bytes: {len(SHORT)} have been sent",
    ),
    "finish with another SHA-256": (
        [SHORT],
        1,
        control(finish(SHORT[:-1] + b"x")),
        "chunk: the whole stream's SHA-256 differs from the sender's",
    ),
    "finish with segments that do not cover the stream": (
        [SHORT],
        1,
        control({**finish(SHORT), "segments": []}),
        f"protocol: segments that cover 0 raw bytes of {len(SHORT)}",
    ),
    "finish with other segments": (
        [SHORT],
        1,
        control(
            {
                "type": "finish",
                "raw_bytes": len(SHORT),
                "segments": [
                    {"start": 0, "end": 312, "sha256": hashlib.sha256(SHORT[:312]).hexdigest()},
                    {"start": 312, "end": len(SHORT), "sha256": hashlib.sha256(SHORT[312:]).hexdigest()},
                ],
            }
        ),
        "chunk: the whole stream's SHA-256 differs from the sender's",
    ),
    "an error amid the stream": ([PIECES[0]], 1, message("error", code="stream", message="gone\x1b[2J"), ""),
}


@pytest.mark.parametrize("lie", STREAM_LIES)
def test_a_stream_that_lies_is_refused_by_name(lie: str, receiver: Receiver) -> None:
    pieces, good, last_word, expected = STREAM_LIES[lie]
    before = receiver.log
    with streaming(receiver) as peer:
        for chunk in chunks(pieces):
            peer.write(chunk.encode())
        peer.write(last_word)
        if expected:
            refusal = peer.refusal()
            assert refusal.startswith(expected)
            line = "alpha (127.0.0.1): " + refusal.partition(": ")[2]
        else:  # it was the peer that gave up: it needs no answer
            peer.expect_end()
            line = "alpha (127.0.0.1): gave up: gone\\x1b[2J"
        # What is refused is not acknowledged; what came before it is, if anything may be said at all. A stream that is
        # finished within a second is acknowledged by its receipt alone.
        ends = [len(b"".join(pieces[: number + 1])) for number in range(good)]
        assert set(peer.acks) <= set(ends)
        may_say_nothing = not expected or expected.startswith("protocol") or b'"finish"' in last_word
        assert peer.acks[-1:] == ends[-1:] or may_say_nothing
    wait_until(lambda: line in receiver.log.removeprefix(before), f"{line} in {receiver.log.removeprefix(before)}")


def test_of_two_offers_ahead_the_second_is_refused(receiver: Receiver) -> None:
    with streaming(receiver) as peer:
        others = [control(offer(f"tank/other{number}", guid=None)) for number in range(2)]
        peer.write(ONLY.encode() + control(finish(SHORT)) + b"".join(others))
        file = peer.hear_after_acks("committed")["receipt"]["file"]
        assert peer.hear("accept")["offset"] == 0
        assert peer.refusal() == "protocol: 'push' from the sender in state streaming"
    remove(LocalStore(receiver.store), file)


def test_an_offer_behind_a_stream_that_lies_was_never_made(receiver: Receiver) -> None:
    with streaming(receiver) as peer:
        peer.write(ONLY.encode() + control(finish(SHORT[:-1] + b"x")) + control(offer("tank/other")))
        assert peer.refusal() == "chunk: the whole stream's SHA-256 differs from the sender's"
    with receiver.peer() as peer:
        peer.say("partials?")
        assert "tank/other" not in {each["dataset"] for each in peer.hear("partials")["partials"]}


# --- peers that resume, and lie --------------------------------------------------------------------------------

OFFERED: Final = offer(guid=str(streams.GUID), flags="")
BORDER: Final = len(PIECES[0])
REST: Final = chunks([PIECES[1]])[0]


def begun(receiver: Receiver) -> None:
    """The first of two chunks is there."""
    with receiver.peer() as peer:
        peer.push(OFFERED)
        peer.write(FIRST.encode())
        peer.say("stop", reason="enough", keep=True)
        assert peer.hear_after_acks("stopped")["offset"] == BORDER


def resuming(receiver: Receiver, how: str = "reconnect", **changes: Any) -> Peer:
    peer = receiver.peer()
    peer.write(control({**OFFERED, "resume": how, **changes}))
    accepted = peer.hear("accept")
    assert accepted["offset"] == BORDER
    assert accepted["segments"] == [{"start": 0, "end": BORDER, "sha256": FIRST.sha256.hex()}]
    return peer


def segment(start: int, end: int, raw: bytes) -> dict[str, Any]:
    return {"start": start, "end": end, "sha256": hashlib.sha256(raw).hexdigest()}


def at_border(piece: bytes, *, starts_segment: bool = True) -> bytes:
    sha256 = hashlib.sha256(piece).digest()
    return Chunk(BORDER, len(piece), sha256, compress(piece), starts_segment=starts_segment).encode()


GOOD: Final = [segment(0, BORDER, PIECES[0]), segment(BORDER, len(WHOLE), PIECES[1])]
DIFFERS: Final = "chunk: the whole stream's SHA-256 differs from the sender's"

#: name: what is said after `accept`, and how it is refused.
RESUMPTIONS: Final[dict[str, tuple[list[bytes], str]]] = {
    "a first chunk that starts no segment": (
        [SECOND.encode()],
        f"protocol: a chunk at raw offset {BORDER}, the first of a push, starts no segment",
    ),
    "a chunk at the stream's start": ([FIRST.encode()], f"protocol: a chunk at raw offset 0: {BORDER} was expected"),
    "a chunk behind a gap": (
        [header(CHUNK, 100, BORDER + 1, 100, flags=1)],
        f"protocol: a chunk at raw offset {BORDER + 1}: {BORDER} was expected",
    ),
    "the hash of the segment before": (
        [Chunk(BORDER, SECOND.raw_length, SECOND.sha256, SECOND.frame, starts_segment=True).encode()],
        f"chunk: chunk at raw offset {BORDER}: its SHA-256 differs from the sender's",
    ),
    "the stream from its start": (
        [at_border(SHORT)],
        f"stream: BEGIN record at {BORDER} in a wrong place: the stream is damaged",
    ),
    "another stream's end": (
        [at_border(streams.end(1))],
        f"stream: END record at {BORDER} of GUID 1, in a stream of {streams.GUID}: damaged",
    ),
    "garbage in a new segment": ([at_border(b"\x63" * 400)], f"stream: unknown record type {0x63636363} at {BORDER}"),
    "finish without the rest": (
        [control({"type": "finish", "raw_bytes": BORDER, "segments": GOOD[:1]})],
        "stream: the stream ends before its END record",
    ),
    "finish with one segment": ([at_border(PIECES[1]), control(finish(WHOLE))], DIFFERS),
    "finish with another first segment": (
        [
            at_border(PIECES[1]),
            message("finish", raw_bytes=len(WHOLE), segments=[segment(0, BORDER, b"other"), GOOD[1]]),
        ],
        DIFFERS,
    ),
    "finish with another last segment": (
        [
            at_border(PIECES[1]),
            message("finish", raw_bytes=len(WHOLE), segments=[GOOD[0], segment(BORDER, len(WHOLE), b"other")]),
        ],
        DIFFERS,
    ),
    "finish with another border": (
        [
            at_border(PIECES[1]),
            message(
                "finish",
                raw_bytes=len(WHOLE),
                segments=[segment(0, 312, WHOLE[:312]), segment(312, len(WHOLE), WHOLE[312:])],
            ),
        ],
        DIFFERS,
    ),
    "finish with a gap": (
        [
            at_border(PIECES[1]),
            message("finish", raw_bytes=len(WHOLE), segments=[GOOD[0], {**GOOD[1], "start": BORDER + 1}]),
        ],
        f"protocol: a segment from {BORDER + 1} to {len(WHOLE)}, where {BORDER} was reached",
    ),
}


@pytest.mark.parametrize("lie", RESUMPTIONS)
def test_who_resumes_and_lies_is_refused_by_name_and_nothing_false_is_listed(lie: str, receiver: Receiver) -> None:
    said, expected = RESUMPTIONS[lie]
    begun(receiver)
    with resuming(receiver) as peer:
        for each in said:
            peer.write(each)
        assert peer.refusal().startswith(expected)
    assert receiver.listed() == []
    # What was good before it is as good as ever, or the stream starts over; in the end it is what it is.
    with receiver.peer() as peer:
        peer.write(control({**OFFERED, "resume": "token"}))
        if peer.hear("accept")["offset"]:
            peer.write(at_border(PIECES[1]))
            peer.say("finish", raw_bytes=len(WHOLE), segments=GOOD)
        else:
            for chunk in (FIRST, SECOND):
                peer.write(chunk.encode())
            peer.write(control(finish(WHOLE)))
        file = peer.hear_after_acks("committed")["receipt"]["file"]
        peer.say("verify", dataset=None)
        assert peer.hear("verdict")["damage"] == []
        peer.hear("done")
    remove(LocalStore(receiver.store), file)


@pytest.mark.parametrize("how", ["reconnect", "replay", "token"])
def test_what_was_never_pushed_cannot_be_resumed(how: str, receiver: Receiver) -> None:
    with receiver.peer() as peer:
        peer.write(control(offer("tank/never", resume=how)))
        assert peer.hear("accept") == {"type": "accept", "offset": 0, "segments": [], "record": None}
        peer.write(SECOND.encode())
        assert peer.refusal() == f"protocol: a chunk at raw offset {BORDER}: 0 was expected"


def test_nobody_resumes_what_is_anothers(receiver: Receiver) -> None:
    begun(receiver)
    whole = {"guid": str(streams.GUID), "base_guid": None, "flags": "", "raw_bytes": len(WHOLE)}
    with receiver.peer("honest") as other:
        other.write(control({**OFFERED, "resume": "token", "whole": whole}))
        assert other.hear("accept")["offset"] == 0
    with resuming(receiver, "replay", claim="f" * 16) as peer:
        peer.say("stop", reason="mine", keep=False)
        assert peer.hear("stopped")["offset"] == 0


def test_whole_is_no_word_for_what_is_not_stored(receiver: Receiver) -> None:
    """Nor for another stream that is."""
    said = offer(guid="5", flags="", whole={"guid": str(streams.GUID), "base_guid": None, "flags": "", "raw_bytes": 5})
    with receiver.peer() as peer:
        file = peer.give(SHORT)["file"]
        peer.write(control(said))
        assert peer.hear("accept")["offset"] == 0
        peer.write(ONLY.encode())
        assert peer.refusal() == f"stream: tank/data@now: the stream has the GUID {streams.GUID}, and 5 was offered"
    assert [entry["file"] for entry in receiver.listed()] == [file]
    remove(LocalStore(receiver.store), file)


def test_connections_that_fight_for_a_stream_end_by_name_and_it_is_stored_once(receiver: Receiver) -> None:
    begun(receiver)
    peer = resuming(receiver)
    rest = at_border(PIECES[1])
    for number in range(10):
        peer.write(rest[: number * (len(rest) - 1) // 9])
        other = resuming(receiver)
        assert peer.refusal() == "busy: tank/data@now: is arriving on another connection now"
        peer.close()
        peer = other
    with peer:
        peer.write(rest)
        peer.say("finish", raw_bytes=len(WHOLE), segments=GOOD)
        file = peer.hear_after_acks("committed")["receipt"]["file"]
    assert [entry["file"] for entry in receiver.listed()] == [file]
    remove(LocalStore(receiver.store), file)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (offer("tank/other"), "stream: the stream holds tank/data@now, and tank/other@now was offered"),
        (offer(snapshot="then"), "stream: the stream holds tank/data@now, and tank/data@then was offered"),
        (
            offer(guid="1", flags=""),
            f"stream: tank/data@now: the stream has the GUID {streams.GUID}, and 1 was offered",
        ),
        (
            offer(guid=str(streams.GUID), base_guid="1", flags=""),
            "stream: tank/data@now: the stream has the base GUID none, and 1 was offered",
        ),
        (
            offer(guid=str(streams.GUID), flags="L"),
            "stream: tank/data@now: the stream has the flags none, and L was offered",
        ),
    ],
    ids=["dataset", "snapshot", "GUID", "base", "flags"],
)
def test_a_stream_that_is_not_the_one_that_was_offered_is_refused_by_its_first_chunk(
    said: dict[str, Any], expected: str, receiver: Receiver
) -> None:
    kept = receiver.partials()
    with receiver.peer() as peer:
        peer.push(said)
        peer.write(FIRST.encode())
        assert peer.refusal() == expected
    assert receiver.partials() == kept  # no sender would ever resume this one


def test_a_package_that_is_not_the_one_that_was_offered_is_refused_at_its_end(receiver: Receiver) -> None:
    package = streams.package(SHORT)
    kept = receiver.partials()
    with receiver.peer() as peer:
        peer.push(offer(guid="1", flags=""))
        for chunk in chunks([package]):
            peer.write(chunk.encode())
        peer.write(control(finish(package)))
        assert peer.refusal() == f"stream: tank/data@now: the stream has the GUID {streams.GUID}, and 1 was offered"
    assert receiver.partials() == kept


# --- frames that grow ------------------------------------------------------------------------------------------

ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"


def rle_frame(content_size: int, blocks: int) -> bytes:
    """A synthetic zstd frame: `blocks` blocks of 128 KiB each, four bytes each, whatever its header says."""
    block_size = 128 << 10
    head = bytes([0b10100100]) + struct.pack("<I", content_size)  # 4-byte content size, single segment, checksum
    body = b""
    for number in range(blocks):
        last = number == blocks - 1
        body += (block_size << 3 | 1 << 1 | last).to_bytes(3, "little") + b"\0"
    return ZSTD_MAGIC + head + body + bytes(4)


def wide_frame(raw: bytes, window_log: int) -> bytes:
    """A zstd frame that is right in all, and that a reader needs 2^window_log bytes for, as it says."""
    head = bytes([0b10000100, window_log - 10 << 3]) + struct.pack("<I", len(raw))
    block = (len(raw) << 3 | 1).to_bytes(3, "little") + raw  # the last block, not compressed
    return ZSTD_MAGIC + head + block + compress(raw)[-4:]


@pytest.mark.parametrize(
    ("frame", "raw_length", "expected"),
    [
        (rle_frame(CHUNK_MAX, 8 * 1024), CHUNK_MAX, "chunk: a zstd frame that does not decode"),
        (rle_frame(1000, 8 * 1024), 1000, "chunk: a zstd frame that does not decode"),
        (rle_frame(1 << 30, 8 * 1024), CHUNK_MAX, f"chunk: a zstd frame of {1 << 30} raw bytes: {CHUNK_MAX} were"),
        (rle_frame(CHUNK_MAX, 1), CHUNK_MAX, "chunk: a zstd frame that does not decode"),
        (wide_frame(SHORT, 31), len(SHORT), f"chunk: a zstd frame with a window of {1 << 31} bytes"),
        (wide_frame(SHORT, 25), len(SHORT), f"chunk: a zstd frame with a window of {1 << 25} bytes"),
    ],
    ids=["a bomb", "a bomb in a thimble", "an honest bomb", "less than it says", "a window of 2 GiB", "of 32 MiB"],
)
def test_a_frame_decodes_to_what_was_announced_or_to_nothing(
    frame: bytes, raw_length: int, expected: str, receiver: Receiver
) -> None:
    with streaming(receiver) as peer:
        peer.write(Chunk(0, raw_length, hashlib.sha256(SHORT).digest(), frame, starts_segment=True).encode())
        assert peer.refusal().startswith(expected)


def test_refused_chunks_do_not_add_up(receiver: Receiver) -> None:
    """Each costs 20 MiB while it is looked at; none of it may stay with the error."""
    frame = compress(bytes(CHUNK_MAX))
    for _ in range(12):
        with streaming(receiver) as peer:
            peer.write(Chunk(0, CHUNK_MAX, bytes(32), frame, starts_segment=True).encode())
            assert peer.refusal().startswith("chunk: chunk at raw offset 0: its SHA-256 differs")


def test_the_largest_chunk_that_is_allowed_fits(receiver: Receiver) -> None:
    """Twice 20 MiB that do not compress, one arriving while the other is in work: only one of them is let in."""
    noise = hashlib.shake_256(b"noise").digest(CHUNK_MAX)
    with receiver.all_closed("what it had is let go of"), streaming(receiver) as peer:  # else these are two streams
        peer.write(Chunk(0, CHUNK_MAX, bytes(32), compress(noise), starts_segment=True).encode()[: -1 << 10])
        peer.close()
    with streaming(receiver) as peer:
        peer.write(Chunk(0, CHUNK_MAX, bytes(32), compress(noise), starts_segment=True).encode())
        assert peer.refusal().startswith("chunk: chunk at raw offset 0: its SHA-256 differs")


# --- silence ---------------------------------------------------------------------------------------------------


#: Seconds: more than a test may be held up by what else this machine does, on its way to where it is silent.
IMPATIENCE: Final = 3


@pytest.fixture(scope="module")
def impatient_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    folder = tmp_path_factory.mktemp("silent")
    with serving(
        folder, "alpha", "honest", identify_within=IMPATIENCE, silence=IMPATIENCE, heartbeat_every=IMPATIENCE / 4
    ) as receiver:
        yield receiver


@pytest.fixture
def impatient(impatient_all: Receiver) -> Iterator[Receiver]:
    """A daemon that waits for nobody for longer than IMPATIENCE, and that a test leaves as it found it."""
    with impatient_all.all_closed():
        impatient_all.reset_peak()
        yield impatient_all
        assert impatient_all.peak <= MEMORY + MEMORY_PER_STREAM
        impatient_all.peer("honest").close()
    impatient_all.check_log()


def client_hello() -> bytes:
    """The first bytes of a TLS connection."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context(None).wrap_bio(incoming, outgoing)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def wait_end(sock: socket.socket) -> None:
    """Wait until the daemon has closed a connection."""
    try:
        while sock.recv(1 << 16):
            pass
    except ConnectionError:
        pass


def test_silence_before_tls_ends_the_connection(impatient: Receiver) -> None:
    before = impatient.log
    with contextlib.ExitStack() as stack:
        socks = [
            stack.enter_context(socket.create_connection(("127.0.0.1", impatient.port), timeout=50)) for _ in range(2)
        ]
        socks[1].sendall(client_hello()[:100])
        for sock in socks:
            wait_end(sock)
    expected = f"127.0.0.1: no TLS connection within {IMPATIENCE} s"
    wait_until(lambda: impatient.log.removeprefix(before).count(expected) == 2, "two lines in the log")


TOO_LONG: Final = "limit: the peer took too long to identify itself"
SILENT: Final = f"limit: the sender has been silent for {IMPATIENCE} s"


@pytest.mark.parametrize(
    ("moments", "expected"),
    [
        ([(stranger, b""), (stranger, header(CONTROL, 100) + b"half")], TOO_LONG),
        ([(greeted, b""), (greeted, HELLO[:20])], TOO_LONG),
        ([(idle, b""), (idle, LIST[:5]), (idle, LIST[:30])], SILENT),
        ([(streaming, b"")], SILENT),
        ([(streaming, FIRST.encode()[:10])], SILENT),
        ([(streaming, FIRST.encode()[:-1])], SILENT),
        ([(second, b"")], SILENT),
    ],
    ids=[
        "a stranger after the hello and amid its message",
        "a sender before its hello and amid it",
        "between requests, amid a header and amid a message",
        "after the offer",
        "amid a chunk's header",
        "amid a chunk",
        "after a chunk",
    ],
)
def test_silence_is_ended_by_name(moments: list[tuple[Moment, bytes]], expected: str, impatient: Receiver) -> None:
    before = impatient.log
    with contextlib.ExitStack() as stack:
        peers = []
        for moment, said in moments:
            peer = stack.enter_context(moment(impatient))
            peer.write(said)
            peers.append(peer)
        for peer in peers:
            assert peer.refusal() == expected
    logged = expected.removeprefix("limit: ")
    wait_until(lambda: impatient.log.removeprefix(before).count(logged) == len(moments), "a line in the log for each")
    if moment is second:  # what had arrived is acknowledged, and kept
        assert peer.acks == [FIRST.raw_length]
        assert impatient.partials() != []


@pytest.mark.slow
def test_heartbeats_are_no_silence(impatient: Receiver) -> None:
    with impatient.peer() as peer:
        for _ in range(6):  # four in that time: longer than silence may be
            kind, *_rest = peer.read()
            assert kind == HEARTBEAT
            peer.write(heartbeat())
        peer.say("check")
        peer.hear("health")


def test_heartbeats_do_not_say_who_one_is(impatient: Receiver) -> None:
    with stranger(impatient) as peer:
        while (heard := peer.read())[0] == HEARTBEAT:
            peer.write(heartbeat())
        assert TOO_LONG.removeprefix("limit: ").encode() in heard[-1]


def dribble(sock: socket.socket, data: bytes) -> int:
    """Send byte after byte, listening after each. Returns: how many were sent when the daemon closed."""
    sock.settimeout(0.02)
    for count in range(len(data)):
        try:
            sock.sendall(data[count : count + 1])
            while sock.recv(1 << 16):
                pass
        except TimeoutError:
            continue
        except ConnectionError:
            pass
        return count
    return len(data)


def test_a_handshake_byte_by_byte_is_bounded_in_all(impatient: Receiver) -> None:
    hello = client_hello()
    with socket.create_connection(("127.0.0.1", impatient.port)) as sock:
        assert dribble(sock, hello) < len(hello)


def test_a_greeting_byte_by_byte_is_bounded_in_all(impatient: Receiver) -> None:
    said = control({"type": "hello", "program": "x" * 90, "version": 1, "more": "y" * 1000})
    with greeted(impatient) as peer:
        assert dribble(peer.sock, said) < len(said)


@pytest.mark.slow
def test_a_peer_that_never_reads_is_held_back_and_ended(tmp_path: Path) -> None:
    """What it does not read of a long answer is read from the disk no faster than it reads."""
    noise = hashlib.shake_256(b"noise").digest(96 * MIB)
    writes = [streams.write(1, at, noise[at : at + WRITE_SIZE]) for at in range(0, len(noise), WRITE_SIZE)]
    records = [streams.begin("tank/noise@now"), streams.object_(1), *writes, streams.end()]
    raw, pieces = b"".join(records), cut_records(records)
    with serving(tmp_path / "receiver", "alpha") as receiver:
        with receiver.peer() as peer:
            peer.give(raw, offer("tank/noise"), pieces)
        # Another daemon, which has nothing left of the push: what is measured is the answer's alone.
        assert receiver.stop() == 0
        receiver.set(silence=IMPATIENCE, heartbeat_every=IMPATIENCE / 4)
        receiver.start()
        before = receiver.held
        with receiver.peer() as peer:
            peer.say("fetch", offset=0, stream="tank/noise@now", until=None)
            receiver.wait_log("the sender has been silent")
            # Frames of 4 MiB: three that are read, the rest of one in the transport, and 2 MiB of the connection itself
            # (docs/operations.md, "Memory"). The answer has 96 MiB.
            assert receiver.peak <= before + 24 * MIB
        receiver.wait_log("reads alpha/tank/noise/@now")


# --- crowds ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crowded_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    with serving(
        tmp_path_factory.mktemp("crowd"),
        *("alpha", "beta", "gamma", "honest"),
        unidentified=3,
        connections_per_sender=2,
        connections=3,
        identify_within=50,
        silence=50,
    ) as receiver:
        yield receiver


@pytest.fixture
def crowded(crowded_all: Receiver) -> Iterator[Receiver]:
    """A daemon with room for three, and that a test leaves empty."""
    with crowded_all.all_closed():
        yield crowded_all
    crowded_all.check_log()


def test_of_too_many_unidentified_peers_the_oldest_is_dropped(crowded: Receiver) -> None:
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(stranger(crowded)) for _ in range(5)]
        assert peers[0].has_ended()
        assert peers[1].has_ended()
        crowded.wait_log("127.0.0.1: dropped: too many connections without identification", 2)
        for peer in peers[2:]:
            peer.say("known?", fingerprint="0" * 64)
            assert peer.hear("known")["status"] == "unknown"


def test_of_those_that_are_dropped_nothing_stays(crowded: Receiver) -> None:
    descriptors = crowded.descriptors
    with contextlib.ExitStack() as stack:
        for _ in range(30):  # none of them goes by itself
            stack.enter_context(stranger(crowded))
            assert crowded.descriptors <= descriptors + 3 + 5  # what is just coming, and just going


def test_a_flood_of_strangers_keeps_no_sender_out_and_takes_no_descriptors(crowded: Receiver) -> None:
    descriptors = crowded.descriptors
    with contextlib.ExitStack() as stack:
        for number in range(60):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", crowded.port), timeout=50))
            if number % 2:
                sock.sendall(client_hello())
            if number % 10 == 9:
                crowded.peer().close()
        crowded.peer().close()
        wait_until(lambda: crowded.descriptors <= descriptors + 3, "what was dropped is closed")


def test_a_sender_has_so_many_connections_and_no_more(crowded: Receiver) -> None:
    refusal = "limit: sender alpha already has 2 open connections"
    with crowded.peer() as first, crowded.peer():
        with Peer(crowded.port, crowded.senders["alpha"]) as third:
            assert third.refusal() == refusal
        crowded.wait_log(f"alpha (127.0.0.1): {refusal.removeprefix('limit: ')}")
        with crowded.peer("beta") as other:  # it is nobody else's limit
            other.say("check")
            other.hear("health")
        first.say("check")
        first.hear("health")
        # One that was refused, and does not go, takes nobody's place.
        with Peer(crowded.port, crowded.senders["alpha"]) as stubborn:
            assert stubborn.hear("error")["message"] == refusal.removeprefix("limit: ")
            first.expect_end()
            first.close()
            wait_until(lambda: can_connect(crowded, "alpha"), "the place of one that has gone")


def test_there_are_so_many_connections_in_all_and_no_more(crowded: Receiver) -> None:
    refusal = "limit: 3 connections are already open"
    with crowded.peer() as first, crowded.peer(), crowded.peer("beta"):
        with Peer(crowded.port, crowded.senders["gamma"]) as fourth:
            assert fourth.refusal() == refusal
        with stranger(crowded) as unidentified:  # has a cap of its own
            unidentified.say("known?", fingerprint="0" * 64)
            unidentified.hear("known")
        first.expect_end()
        first.close()
        wait_until(lambda: can_connect(crowded, "gamma"), "the place of one that has gone")


def can_connect(receiver: Receiver, name: str) -> bool:
    with Peer(receiver.port, receiver.senders[name]) as peer:
        return bool(peer.hear("hello", "error")["type"] == "hello")


# --- tries -----------------------------------------------------------------------------------------------------


def ask(receiver: Receiver, type_: str, **fields: Any) -> dict[str, Any]:
    with stranger(receiver) as peer:
        peer.say(type_, **fields)
        return peer.hear("known", "joined", "error")


@pytest.mark.parametrize("bad", ["known?", "join"])
def test_tries_are_limited_by_address_and_touch_no_sender(bad: str, tmp_path: Path) -> None:
    question = {
        "known?": {"fingerprint": "0" * 64},
        "join": {"secret": "guess", "certificate": make_certificate(tmp_path / "guess.pem").pem},
    }[bad]
    with serving(tmp_path / "receiver", tries_per_minute=3) as receiver:
        # What succeeds is no try: however many hosts join from behind one address.
        for name in ("alpha", "beta", "gamma", "delta"):
            receiver.enrol(name)
        for _ in range(3):
            answer = ask(receiver, bad, **question)
            assert answer.get("status", answer.get("code")) in {"unknown", "invitation"}
        for again in ("known?", "join"):
            fields = question if again == bad else {"fingerprint": "0" * 64, "secret": "x", "certificate": "x"}
            answer = ask(receiver, again, **fields)
            assert (answer["code"], answer["message"]) == (
                "limit",
                "too many attempts from this address: wait a minute",
            )
        receiver.wait_log("127.0.0.1: too many attempts from this address: wait a minute", 2)
        with receiver.peer() as peer:
            peer.say("check")
            peer.hear("health")


# --- who is who ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    with serving(tmp_path_factory.mktemp("guarded"), "alpha", "honest") as receiver:
        yield receiver


@pytest.fixture
def guarded(guarded_all: Receiver) -> Iterator[Receiver]:
    with guarded_all.all_closed():
        yield guarded_all
    guarded_all.check_log()


def assert_shut_out(receiver: Receiver, certificate: Certificate) -> None:
    """The daemon does not even say hello; how the connection ends is TLS's affair, and no alert tells why."""
    with Peer(receiver.port, certificate) as peer:
        try:
            assert peer.sock.recv(1) == b""
        except ssl.SSLEOFError:
            pass
        except ssl.SSLError as error:
            assert "alert" not in str(error).lower()  # noqa: PT017 - a plain end is as good
            raise
        except ConnectionError:
            pass


def test_an_unknown_certificate_is_shut_out(guarded: Receiver, tmp_path: Path) -> None:
    before = guarded.log
    assert_shut_out(guarded, make_certificate(tmp_path / "unknown.pem"))
    wait_until(lambda: "127.0.0.1: no TLS connection: " in guarded.log.removeprefix(before), "a line in the log")


def test_a_certificate_signed_by_an_enrolled_one_is_refused(guarded: Receiver, tmp_path: Path) -> None:
    """It passes the handshake, where the enrolled one says CA:TRUE; what counts is its own fingerprint."""
    authority = guarded.enrol("authority", make_certificate(tmp_path / "authority.pem", ca=True))
    forged = sign_certificate(tmp_path / "forged.pem", authority)
    with Peer(guarded.port, forged) as peer:
        assert peer.refusal() == (
            "unknown-sender: this certificate is not enrolled here: ask for an invitation (fullsendd invite NAME)"
        )
    guarded.wait_log("127.0.0.1: this certificate is not enrolled here")
    guarded.peer("authority").close()


def test_a_certificate_signed_by_an_enrolled_one_that_may_not_sign_is_shut_out(
    guarded: Receiver, tmp_path: Path
) -> None:
    forged = sign_certificate(tmp_path / "forged.pem", guarded.senders["honest"])
    assert_shut_out(guarded, forged)


def test_a_certificate_of_the_same_name_as_an_enrolled_one_is_shut_out(guarded: Receiver, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    assert_shut_out(guarded, make_certificate(tmp_path / "other" / "honest.pem"))


@pytest.mark.parametrize(
    ("start", "end"), [("19990101000000Z", "20000101000000Z"), ("29990101000000Z", "99991231235959Z")]
)
def test_dates_of_a_certificate_mean_nothing(start: str, end: str, guarded: Receiver, tmp_path: Path) -> None:
    name = f"dated-{start[:4]}"
    guarded.enrol(name, dated_certificate(tmp_path / f"{name}.pem", start, end))
    with guarded.peer(name) as peer:
        assert peer.hello["sender"] == name


def test_a_revoked_sender_is_told_at_once_and_stays_out(guarded: Receiver) -> None:
    guarded.enrol("leaving")
    refusal = "revoked: the certificate of sender leaving has been revoked"
    with guarded.peer("leaving") as waiting, guarded.peer("leaving") as pushing, guarded.peer("honest") as other:
        pushing.push()
        pushing.write(FIRST.encode())
        assert pushing.hear("ack")["offset"] == FIRST.raw_length
        done = guarded.fullsendd("revoke", "leaving")
        assert done.returncode == 0, done.stderr
        # From here on, without waiting for anything.
        assert_shut_out(guarded, guarded.senders["leaving"])
        answer = ask(guarded, "known?", fingerprint=guarded.senders["leaving"].fingerprint)
        assert answer["status"] == "revoked"
        assert waiting.refusal() == refusal
        assert pushing.refusal() == refusal
        other.say("check")
        other.hear("health")
    guarded.wait_log("leaving: revoked; its connection ends", 2)


def test_who_is_replaced_is_out(guarded: Receiver, tmp_path: Path) -> None:
    old = guarded.enrol("moved")
    with guarded.peer("moved") as connected:
        guarded.enrol("moved", make_certificate(tmp_path / "new.pem"), "--replace")
        assert connected.refusal() == "revoked: the certificate of sender moved has been revoked"
    assert_shut_out(guarded, old)
    guarded.peer("moved").close()


def test_tls_1_2_is_refused(guarded: Receiver) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        Peer(guarded.port, guarded.senders["honest"], maximum_version=ssl.TLSVersion.TLSv1_2)
    guarded.wait_log("127.0.0.1: no TLS connection: ")


def test_plain_http_is_refused(guarded: Receiver) -> None:
    before = guarded.log
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=50) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: receiver\r\n\r\n")
        wait_end(sock)
    wait_until(lambda: "127.0.0.1: no TLS connection: " in guarded.log.removeprefix(before), "a line in the log")


@pytest.mark.parametrize("moment", [stranger, greeted, idle, streaming])
def test_garbage_beneath_tls_ends_the_connection(moment: Moment, guarded: Receiver) -> None:
    """An attacker between two hosts can write into the TCP connection; TLS notices, and nothing is believed."""
    with moment(guarded) as peer, socket.socket(fileno=peer.sock.detach()) as sock:
        sock.settimeout(50)
        sock.sendall(b"\x17\x03\x03\x00\x40" + bytes(64))
        wait_end(sock)
    guarded.check_log()


@pytest.mark.parametrize("moment", [stranger, greeted, idle, streaming, second])
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_peer_may_go_at_every_moment(moment: Moment, reset: bool, guarded: Receiver) -> None:
    with moment(guarded) as peer:
        if reset:
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    guarded.peer("honest").close()
