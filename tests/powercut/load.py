"""What is done to the daemon while the power may go: streams of all sizes, pushed at once by peers that write down what
they are promised.

Everything that the daemon has promised stands in the book, at the moment at which it was heard:

- `joined`: this certificate is enrolled;
- `ack`: this much of the stream is durable;
- `committed`, `stored`: the stream is stored.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import random
import select
import ssl
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests import streams
from tests.powercut.audit import PRUNED
from tests.receiver.peer import (
    HEARTBEAT,
    Certificate,
    Chunk,
    EndedError,
    Peer,
    compress,
    control,
    make_certificate,
    offer,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIB: Final = 1 << 20
#: So long may a connection have failed before the power went, for the two to be seen in the wrong order.
_SLACK: Final = 20.0
#: Seconds that a chunk of 4 MiB takes at least: the receiver's processor, which is emulated, is for the commits, too.
_PACE: Final = 0.5


# --- streams ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """A stream that can be made again and again, as `zfs send` would: `chunks` of 4 MiB, half of which compresses to
    nothing, then `tail` small records.
    """

    sender: str
    dataset: str
    snapshot: str
    guid: int
    base_guid: int | None
    chunks: int
    tail: int

    def pieces(self) -> Iterator[bytes]:
        """The raw stream, chunk by chunk: each closes with its fourth record of 1 MiB."""
        chance = random.Random(self.guid)
        name = f"{self.dataset}@{self.snapshot}"
        piece = streams.begin(name, self.guid, self.base_guid or 0) + streams.object_(1)
        for number in range(self.chunks):
            for part in range(4):
                block = chance.randbytes(MIB // 2) + bytes(MIB // 2)
                piece += streams.write(1, (4 * number + part) * MIB, block)
            yield piece
            piece = b""
        for number in range(self.tail):
            piece += streams.write(2, number << 12, chance.randbytes(4096))
        yield piece + streams.end(self.guid)


@dataclass
class Entry:
    """A page of the book: one stream, and what was promised of it.

    `marks`: (raw offset, SHA-256 of all before it) of each chunk that was sent, since the stream was last offered or
    before: they are the same each time. `acked`: raw bytes that are durable; `resumed`: it was resumed. `finished`:
    the daemon may think the stream whole. `receipt`: it is stored. `stored`: so it was found to be, with or without
    receipt. `proven`: what is on the disk was compared with all of this. `pruned`: it is stored no more, as it should.
    """

    source: Source
    marks: list[tuple[int, str]] = field(default_factory=list)
    acked: int = 0
    resumed: bool = False
    finished: bool = False
    receipt: dict[str, Any] | None = None
    stored: bool = False
    proven: bool = False
    pruned: bool = False

    @property
    def open(self) -> bool:
        """Whether it is to be pushed again."""
        return self.receipt is None and not self.stored


class Book:
    """All that was promised, for all rounds."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.enrolled: dict[str, Certificate] = {}
        self.acks = 0
        self.receipts = 0
        self.resumed = 0  # streams that were resumed

    def as_json(self) -> dict[str, Any]:
        """What the audit in the guest is told."""
        rows = [dataclasses.asdict(entry) | {"number": number} for number, entry in enumerate(self.entries)]
        enrolled = {name: certificate.fingerprint for name, certificate in self.enrolled.items()}
        return {"streams": rows, "enrolled": enrolled}


# --- the load --------------------------------------------------------------------------------------------------


class Load:
    """One round's pushes. `heard` is called with "ack" or "receipt" at once when one has been written down;
    `power_gone` is set when the power is cut: from then on connections break.
    """

    def __init__(
        self,
        book: Book,
        port: int,
        seed: int,
        heard: Callable[[str], None],
        power_gone: threading.Event,
    ) -> None:
        self.faults: list[str] = []
        self._book = book
        self._port = port
        self._chance = random.Random(seed)
        self._heard = heard
        self._power_gone = power_gone
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._counts = {"streaming": 0, "committing": 0}

    def start(self, name: str, secret: str, folder: Path) -> None:
        """Join as a new sender, and push as that one, and as older ones what they have not brought home."""
        certificate = make_certificate(folder / f"{name}.pem")
        # What is pruned is pushed once: the order of its streams is that of the book.
        left = [entry for entry in self._book.entries if entry.open and not entry.source.dataset.endswith(PRUNED)]
        self._chance.shuffle(left)
        # What is left lies as a partial, and is looked at in every round; now and then one is begun again.
        again = left[: (len(left) + 1) // 2]

        def begin() -> None:
            self._join(name, secret, certificate)
            self._spawn(lambda: self._push_chain(name, "often", again[0::3]))
            self._spawn(lambda: self._push_chain(name, "often-too", again[1::3]))
            self._spawn(lambda: self._push_same(name, PRUNED))
            self._spawn(lambda: self._push_fulls(name, "middle", (1, 4), []))
            self._spawn(lambda: self._push_fulls(name, "large", (5, 16), again[2::3]))

        self._spawn(begin)

    def wait(self) -> None:
        """Wait until all have seen that the power has gone."""
        for thread in self._threads:  # it grows, but `begin` is the first and appends before it ends
            thread.join()

    @property
    def under_way(self) -> str:
        """The present state, for a person."""
        with self._lock:
            return ", ".join(f"{count} {what}" for what, count in self._counts.items())

    def _spawn(self, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except (EndedError, OSError, ssl.SSLError) as error:
                if not self._power_gone.wait(_SLACK):
                    self.faults.append(f"a connection broke while there was power: {error!r}")
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what the test has found
                self.faults.append(f"the daemon did what it must not: {error!r}")

        thread = threading.Thread(target=guarded, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _join(self, name: str, secret: str, certificate: Certificate) -> None:
        with Peer(self._port) as peer:
            assert peer.hear("hello")["sender"] is None
            peer.say("join", secret=secret, certificate=certificate.pem)
            assert peer.hear("joined")["sender"] == name
        self._book.enrolled[name] = certificate

    def _new(self, sender: str, line: str, chunks: int, base: Entry | None = None) -> Entry:
        with self._lock:
            source = Source(
                sender=sender,
                dataset=f"tank/{sender}/{line}",
                snapshot=f"n{len(self._book.entries)}",
                guid=self._chance.getrandbits(63) | 1,
                base_guid=base.source.guid if base else None,
                chunks=chunks,
                tail=self._chance.choice((1, 3, 20, 60)),
            )
            entry = Entry(source)
            self._book.entries.append(entry)
        return entry

    def _push_again(self, entries: list[Entry]) -> None:
        for entry in entries:
            with self._connect(entry.source.sender) as peer:
                self._push(peer, entry)

    def _push_chain(self, sender: str, line: str, again: list[Entry]) -> None:
        """A full and increments on it, as fast as the daemon takes them: it commits all the time."""
        self._push_again(again)
        base = None
        with self._connect(sender) as peer:
            while True:
                entry = self._new(sender, line, 0, base)
                self._push(peer, entry)
                base = entry

    def _push_same(self, sender: str, line: str) -> None:
        """One full after another into one dataset, from which a prune drops the older ones."""
        with self._connect(sender) as peer:
            while True:
                self._push(peer, self._new(sender, line, 0))

    def _push_fulls(self, sender: str, line: str, chunks: tuple[int, int], again: list[Entry]) -> None:
        """One after another, each in a dataset of its own: there are folders to be made, too."""
        self._push_again(again)
        with self._connect(sender) as peer:
            while True:
                with self._lock:
                    count = self._chance.randint(*chunks)
                self._push(peer, self._new(sender, f"{line}/{self._chance.getrandbits(32):08x}", count))

    @contextlib.contextmanager
    def _connect(self, sender: str) -> Iterator[Peer]:
        with Peer.enrolled(self._port, self._book.enrolled[sender]) as peer:
            assert peer.hello["sender"] == sender, f"{sender} is not enrolled any more: {peer.hello}"
            yield peer

    def _push(self, peer: Peer, entry: Entry) -> None:
        """Push one stream, and write down what is promised on the way."""
        source = entry.source
        base = None if source.base_guid is None else str(source.base_guid)
        said = offer(source.dataset, source.snapshot, guid=str(source.guid), base_guid=base, flags="")
        peer.write(control(said | {"keep_orphan": False, "resume": "replay"}))
        answer = peer.hear("accept", "stored")
        if answer["type"] == "stored":
            self._take_receipt(entry, answer["receipt"])
            return
        at, segments = answer["offset"], answer["segments"]
        assert at >= entry.acked, f"{entry.acked} had been acknowledged, and it resumes at {at}"
        self._check_segments(entry, segments, at)
        if at:
            entry.resumed = True
            with self._lock:
                self._book.resumed += 1
        with self._counted("streaming"):
            raw_bytes, sha256 = self._send(peer, entry, at)
        with self._counted("committing"):
            entry.finished = True
            if raw_bytes > at:
                segments = [*segments, {"start": at, "end": raw_bytes, "sha256": sha256}]
            peer.write(control({"type": "finish", "raw_bytes": raw_bytes, "segments": segments}))
            while (message := peer.hear("ack", "committed"))["type"] == "ack":
                self._take_ack(entry, message["offset"])
        self._take_receipt(entry, message["receipt"])

    def _check_segments(self, entry: Entry, segments: list[dict[str, Any]], end: int) -> None:
        """What the daemon says that it has must be what was sent."""
        raw = memoryview(b"".join(itertools.takewhile(lambda _piece: end, entry.source.pieces())))[:end]
        assert [each["start"] for each in segments] == [0, *(each["end"] for each in segments[:-1])][: len(segments)]
        assert (segments[-1]["end"] if segments else 0) == end
        for each in segments:
            assert hashlib.sha256(raw[each["start"] : each["end"]]).hexdigest() == each["sha256"], each

    def _send(self, peer: Peer, entry: Entry, start: int) -> tuple[int, str]:
        """Send what follows on `start`, as a segment of its own. Returns: the raw bytes, and that segment's SHA-256."""
        at = 0
        running, segment = hashlib.sha256(), hashlib.sha256()
        for number, piece in enumerate(entry.source.pieces()):
            running.update(piece)
            mark = (at + len(piece), running.hexdigest())
            if number < len(entry.marks):
                assert entry.marks[number] == mark
            else:
                entry.marks.append(mark)
            first = at == start
            at += len(piece)
            if at <= start:
                continue
            assert at - len(piece) >= start, f"{start} is no end of a chunk"
            segment.update(piece)
            chunk = Chunk(at - len(piece), len(piece), segment.digest(), compress(piece), starts_segment=first)
            rest = memoryview(chunk.encode())
            until = time.monotonic() + (_PACE if entry.source.chunks else 0)
            while rest or time.monotonic() < until:
                rest = peer.write_what_goes(rest)
                wait = 1 if rest else max(0, until - time.monotonic())
                readable, _, _ = select.select([peer.sock], [peer.sock] if rest else [], [], wait)
                while readable or peer.sock.pending():
                    self._listen(peer, entry)
                    readable, _, _ = select.select([peer.sock], [], [], 0)
        return at, segment.hexdigest()

    def _listen(self, peer: Peer, entry: Entry) -> None:
        """Take the one frame that has come amid the chunks."""
        kind, _offset, _length, payload = peer.read()
        if kind == HEARTBEAT:
            return
        message = json.loads(payload)
        assert message["type"] == "ack", message
        self._take_ack(entry, message["offset"])

    def _take_ack(self, entry: Entry, offset: int) -> None:
        assert offset >= entry.acked
        assert any(offset == end for end, _sha256 in entry.marks), f"{offset} is no end of a chunk"
        entry.acked = offset
        with self._lock:
            self._book.acks += 1
        self._heard("ack")

    def _take_receipt(self, entry: Entry, receipt: dict[str, Any]) -> None:
        entry.receipt = receipt
        entry.stored = True
        with self._lock:
            self._book.receipts += 1
        self._heard("receipt")
        source = entry.source
        raw_bytes, sha256 = entry.marks[-1]
        expected = {
            "sender": source.sender,
            "dataset": source.dataset,
            "snapshot": source.snapshot,
            "guid": str(source.guid),
            "raw_bytes": raw_bytes,
            "sha256": sha256 if len(receipt["segments"]) == 1 else None,
            "restorable": True,
        }
        assert expected.items() <= receipt.items(), receipt
        self._check_segments(entry, receipt["segments"], raw_bytes)

    @contextlib.contextmanager
    def _counted(self, what: str) -> Iterator[None]:
        """Count what is under way; where it was not ended, it was under way when the power went."""
        with self._lock:
            self._counts[what] += 1
        yield
        with self._lock:
            self._counts[what] -= 1
