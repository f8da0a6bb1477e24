"""What the tests of the protocol share: two connections with a wire between them, and one way to try a decoder."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from tests.streams import ROOT

from fullsend_protocol.format import manifest
from fullsend_protocol.shared.errors import ErrorCode
from fullsend_protocol.wire import messages
from fullsend_protocol.wire.connection import NEED_DATA, Chunk, Connection, Event, Role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

SHA: Final = "5c" * 32
DIGEST: Final = bytes.fromhex(SHA)


def try_decoder(decode_all: Callable[[list[bytes]], T], encoded: bytes) -> T:
    """Give a decoder the same bytes whole, byte by byte, and in two parts cut at every place; it must not matter."""
    result = decode_all([encoded])
    assert decode_all([encoded[at : at + 1] for at in range(len(encoded))]) == result
    for cut in range(1, len(encoded)):
        assert decode_all([encoded[:cut], encoded[cut:]]) == result
    return result


def events(connection: Connection) -> Iterator[Event]:
    """Yield what the connection has to tell until it needs more."""
    while (event := connection.next_event()) is not NEED_DATA:
        assert not isinstance(event, type(NEED_DATA))
        yield event


@dataclass
class Pair:
    """A sender and a receiver. What one says the other must understand as the same; `wire` keeps the bytes."""

    sender: Connection = field(default_factory=lambda: Connection(Role.SENDER))
    receiver: Connection = field(default_factory=lambda: Connection(Role.RECEIVER))
    wire: list[tuple[Role, bytes]] = field(default_factory=list)

    def side(self, role: Role) -> Connection:
        return self.sender if role is Role.SENDER else self.receiver

    def say(self, role: Role, *said: messages.Message | Chunk) -> None:
        for what in said:
            if isinstance(what, Chunk):
                data = b"".join(bytes(part) for part in self.side(role).send_chunk(what))
            else:
                data = self.side(role).send(what)
            self.wire.append((role, data))
            peer = self.side(role.peer)
            peer.receive_data(data)
            *before, heard = events(peer)
            assert heard == what
            assert len(before) == isinstance(what, Chunk)  # ChunkArriving
            assert self.sender.state is self.receiver.state

    def heartbeat(self, role: Role, busy: str = "") -> list[Event]:
        data = self.side(role).heartbeat(busy)
        self.wire.append((role, data))
        self.side(role.peer).receive_data(data)
        return list(events(self.side(role.peer)))


# --- one of each message ---------------------------------------------------------------------------------------


def segments(end: int) -> list[manifest.Segment]:
    return [manifest.Segment(start=0, end=end, sha256=SHA)] if end else []


def receipt(raw_bytes: int = 624) -> manifest.Receipt:
    return manifest.Receipt(
        sender="alpha",
        dataset="tank/data",
        snapshot="now",
        guid="1234605616436508552",
        base=None,
        base_guid=None,
        kind="full",
        flags="",
        raw_bytes=raw_bytes,
        stored_bytes=300,
        sha256=SHA,
        file="alpha/tank/data/@now.1122334455667788.full.zfs.zst",
        file_sha256=SHA,
        received="2026-11-23T06:30:00Z",
        restorable=True,
        segments=segments(raw_bytes),
        lost_spills=[],
    )


def a_manifest(raw_bytes: int = 624) -> manifest.Manifest:
    return manifest.Manifest.model_validate(
        {
            "sender": "alpha",
            "dataset": "tank/data",
            "snapshot": "now",
            "guid": "1234605616436508552",
            "base_guid": None,
            "kind": "full",
            "dataset_type": "filesystem",
            "class": "plain",
            "flags": "",
            "features": ["sa_spill"],
            "snapshots": [
                manifest.StreamSnapshot(dataset="tank/data", snapshot="now", guid="1234605616436508552", base_guid="0")
            ],
            "created": "2026-11-23T06:29:00Z",
            "received": "2026-11-23T06:30:00Z",
            "begun": "2026-11-23T06:29:30Z",
            "sequence": 1,
            "raw_bytes": raw_bytes,
            "stored_bytes": 300,
            "sha256": SHA,
            "segments": segments(raw_bytes),
            "resumptions": [],
            "file_sha256": SHA,
            "chunks": 1,
            "sender_program": "fullsend 0.1.0",
            "receiver_program": "fullsendd 0.1.0",
            "zfs_version": None,
            "properties": {"compression": "lz4"},
            "proven_by": "both",
        }
    )


def an_entry() -> manifest.StreamEntry:
    return manifest.StreamEntry(
        sender="alpha",
        dataset="tank/data",
        snapshot="now",
        guid="1234605616436508552",
        kind="full",
        dataset_type="filesystem",
        flags="",
        base=None,
        base_guid=None,
        created="2026-11-23T06:29:00Z",
        received="2026-11-23T06:30:00Z",
        sequence=1,
        raw_bytes=624,
        stored_bytes=300,
        sha256=SHA,
        file="alpha/tank/data/@now.1122334455667788.full.zfs.zst",
        verified=None,
        damaged=None,
        restorable=True,
        lost_spill_count=0,
    )


def a_partial() -> manifest.PartialEntry:
    return manifest.PartialEntry(
        sender="alpha",
        dataset="tank/data",
        snapshot="now",
        guid="1234605616436508552",
        base_guid=None,
        flags="",
        raw_bytes=624,
        stored_bytes=300,
        resume_offset=None,
        started="2026-11-23T06:29:00Z",
        last="2026-11-23T06:30:00Z",
        arriving=False,
    )


HELLO: Final = messages.ReceiverHello(
    program="fullsendd 0.1.0", versions=[1], sender="alpha", features=[messages.PIPELINED]
)
HELLO_STRANGER: Final = messages.ReceiverHello(program="fullsendd 0.1.0", versions=[1], sender=None)
SENDER_HELLO: Final = messages.SenderHello(program="fullsend 0.1.0", version=1)
JOIN: Final = messages.Join(secret="s3cret", certificate="-----BEGIN CERTIFICATE-----\n")
KNOWN: Final = messages.Known(fingerprint=SHA)
PUSH: Final = messages.Push(
    dataset="tank/data",
    snapshot="now",
    guid="1234605616436508552",
    base_guid=None,
    flags="",
    size_estimate=None,
    zfs_version=None,
    properties=None,
    keep_orphan=True,
    claim="00c1a1300c1a1300",
    resume="none",
    whole=None,
)
ACCEPT: Final = messages.Accept(offset=0, segments=[], record=None)
CHUNK: Final = Chunk(raw_offset=0, raw_length=624, sha256=DIGEST, frame=b"(a zstd frame)", starts_segment=True)
FINISH: Final = messages.Finish(raw_bytes=624, segments=segments(624))
STOP: Final = messages.Stop(reason="zfs send exited with status 1", keep=True)
BASE: Final = messages.Base(
    dataset="tank/data",
    guid="1234605616436508552",
    flags="",
    streams=1,
    base_guid=None,
    age=60,
    full_bytes=624,
    increment_bytes=0,
)
UNCHANGED: Final = messages.UnchangedDataset(dataset="tank/data", snapshot="now", guid="1234605616436508552")
STATUS: Final = messages.DatasetStatus(
    dataset="tank/data",
    snapshot="now",
    guid="1234605616436508552",
    created="2026-11-23T06:29:00Z",
    received="2026-11-23T06:30:00Z",
    begun="2026-11-23T06:29:30Z",
    unchanged=None,
    streams=1,
    stored_bytes=300,
    broken=0,
    lost_spill_count=0,
)
HISTORY: Final = messages.DatasetHistory(
    dataset="tank/data",
    since="2026-11-01T06:30:00Z",
    every=86400,
    limit=129600,
    source="learnt",
    late=False,
    age=1800,
    nights=[messages.NightEntry(day="2026-11-23", received=1, unchanged=0, raw_bytes=624, stored_bytes=120)],
)
DRILL: Final = messages.DrillEntry(
    dataset="tank/data",
    snapshot="now",
    guid="1234605616436508552",
    at="2026-11-23T06:30:00Z",
    ok=False,
    compared="files",
    text="3 files differ",
    milliseconds=1500,
    raw_bytes=624,
    files=20,
    succeeded=None,
)
MERGED: Final = messages.MergedEntry(
    dataset="tank/data",
    snapshot="now",
    guid="1234605616436508552",
    base_guid=None,
    flags="",
    raw_bytes=624,
    file="alpha/tank/data/@now.1122334455667788.full.zfs.zst",
    proven=None,
)
DONE: Final = messages.Done()
ERROR: Final = messages.Error(code=ErrorCode.SHUTDOWN, message="the daemon stops")

#: By what the state table calls it: something to say. A chunk and what follows on it fit a stream of 624 bytes.
SAYINGS: Final[dict[Role, dict[str, messages.Message | Chunk]]] = {
    Role.SENDER: {
        "hello": SENDER_HELLO,
        "join": JOIN,
        "known?": KNOWN,
        "push": PUSH,
        "chunk": CHUNK,
        "finish": FINISH,
        "stop": STOP,
        "bases?": messages.BasesWanted(),
        "partials?": messages.PartialsWanted(),
        "unchanged": messages.Unchanged(datasets=[UNCHANGED]),
        "drilled": messages.Drilled(
            dataset="tank/data",
            snapshot="now",
            guid="1234605616436508552",
            ok=True,
            compared="files",
            text="20 files are the same",
            milliseconds=1500,
            raw_bytes=624,
            files=20,
        ),
        "drills?": messages.DrillsWanted(),
        "status?": messages.StatusWanted(),
        "history?": messages.HistoryWanted(),
        "list": messages.List(dataset=None),
        "fetch": messages.Fetch(stream="tank/data@now", offset=0, until=None),
        "locate": messages.Locate(stream="tank/data@now", object=1, offset=0),
        "verify": messages.Verify(dataset=None),
        "merged?": messages.MergedWanted(dataset=None),
        "head?": messages.HeadWanted(file=MERGED.file),
        "prove": messages.Prove(file=MERGED.file, sha256=SHA, whole=True),
        "form?": messages.FormWanted(file=MERGED.file),
        "files?": messages.FilesWanted(
            stream="tank/data@now",
            form="tar",
            paths=["Lw=="],
            names=["Ki50eHQ="],
            recursive=True,
            special=True,
            setuid=True,
        ),
        "diff?": messages.DiffWanted(
            stream="tank/data@then",
            other="tank/data@now",
            form="lines",
            types=True,
            script=True,
            prefix="L3RhbmsvZGF0YQ==",
        ),
        "versions?": messages.VersionsWanted(dataset="tank/data", path="L2E=", form="json", last=7),
        "check": messages.Check(),
        "error": ERROR,
    },
    Role.RECEIVER: {
        "hello": HELLO,
        "hello, stranger": HELLO_STRANGER,
        "joined": messages.Joined(sender="alpha", store="/var/lib/fullsend"),
        "known": messages.KnownAnswer(status="unknown"),
        "accept": ACCEPT,
        "stored": messages.Stored(receipt=receipt()),
        "ack": messages.Ack(offset=0),
        "stopped": messages.Stopped(offset=0),
        "committed": messages.Committed(receipt=receipt()),
        "bases": messages.Bases(bases=[BASE]),
        "partials": messages.Partials(partials=[a_partial()]),
        "noted": messages.Noted(),
        "drills": messages.Drills(now="2026-11-23T07:00:00Z", drills=[DRILL]),
        "status": messages.Status(now="2026-11-23T07:00:00Z", datasets=[STATUS]),
        "history": messages.HistoryPage(at="2026-11-23T07:00:00Z", datasets=[HISTORY]),
        "entries": messages.Entries(entries=[an_entry()]),
        "sending": messages.Sending(manifest=a_manifest()),
        "chunk": CHUNK,
        "located": messages.Located(raw_offset=0),
        "verdict": messages.Verdict(
            file="alpha/tank/data/@now.1122334455667788.full.zfs.zst",
            dataset="tank/data",
            snapshot="now",
            raw_bytes=624,
            damage=[],
        ),
        "merged": messages.MergedStreams(streams=[MERGED]),
        "head": messages.Head(raw="AAAAAKy69QIAAAAA"),
        "proven": messages.Proven(result="same", why=""),
        "form": messages.Form(sha256=None, why="why"),
        "part": messages.FilesPart(data="YQo="),
        "files": messages.Files(code=0, said=["left out: 1 device"]),
        "health": messages.Health(program="fullsendd 0.1.0", free_bytes=1 << 40, problems=[]),
        "done": DONE,
        "error": ERROR,
    },
}

# --- docs/protocol.md ------------------------------------------------------------------------------------------


def document() -> str:
    return (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """Return the text under a heading of the document, to the next heading of that level or above."""
    match = re.search(rf"^(#+) {re.escape(title)}$", document(), re.MULTILINE)
    assert match is not None, f"docs/protocol.md has no heading {title!r}"
    rest = document()[match.end() :]
    following = re.search(rf"^#{{1,{len(match[1])}}} ", rest, re.MULTILINE)
    return rest[: following.start()] if following else rest


def tables(text: str) -> list[list[dict[str, str]]]:
    """Return the Markdown tables of a text, each as rows by column name."""
    found = []
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        head, _, *rows = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in block.splitlines())
        found.append([dict(zip((name.strip() for name in head), row, strict=True)) for row in rows])
    return found
