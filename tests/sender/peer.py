"""A receiver that does what a test's script says, over real sockets and real TLS."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from fullsend_protocol.format.manifest import Manifest, PartialEntry, Receipt, Segment, StreamEntry, StreamSnapshot
from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import ConnectionLost, ErrorCode
from fullsend_protocol.stream.chunks import Compressor, Cutter, Decompressor, SegmentHash
from fullsend_protocol.stream.facts import conclude
from fullsend_protocol.stream.records import Walker
from fullsend_protocol.wire import messages
from fullsend_protocol.wire.connection import (
    NEED_DATA,
    Chunk,
    ChunkArriving,
    Connection,
    ConnectionEnded,
    Heartbeat,
    Role,
)
from fullsend_sender.host.identity import Identity
from fullsend_sender.host.options import Endpoint

NAME: Final = "alpha"
SHA: Final = "5c" * 32


class Stopped(Exception):  # noqa: N818 - reads as what it says
    """The sender gave up a stream. `said`: with these words."""

    def __init__(self, said: messages.Stop) -> None:
        super().__init__(said.reason)
        self.said = said


class Peer:
    """The receiver's side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.connection = Connection(Role.RECEIVER)
        self.heartbeats: list[str] = []
        self.ahead: messages.Push | None = None  # the offer behind the stream that is being received

    @property
    def certificate(self) -> str | None:
        """The fingerprint of what the sender showed."""
        der = self.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return hashlib.sha256(der).hexdigest() if der else None

    async def say(self, *said: messages.ReceiverMessage | Chunk) -> None:
        for what in said:
            if isinstance(what, Chunk):
                for part in self.connection.send_chunk(what):
                    await self.say_raw(part)
            else:
                await self.say_raw(self.connection.send(what))

    async def say_raw(self, data: bytes | memoryview) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def beat(self, busy: str = "") -> None:
        await self.say_raw(self.connection.heartbeat(busy))

    async def hear(self) -> Any:
        """The next thing the sender says, heartbeats and announcements of chunks aside."""
        while True:
            event = self.connection.next_event()
            if event is NEED_DATA:
                self.connection.receive_data(await self.reader.read(1 << 20))
            elif isinstance(event, Heartbeat):
                self.heartbeats.append(event.busy)
            elif not isinstance(event, ChunkArriving):
                return event

    async def hello(
        self,
        sender: str | None = NAME,
        versions: tuple[int, ...] = (limits.PROTOCOL_VERSION,),
        features: tuple[str, ...] = (),
    ) -> None:
        said = messages.ReceiverHello(
            program="fullsendd test", versions=list(versions), sender=sender, features=list(features)
        )
        await self.say(said)

    async def greet(self, *features: str) -> None:
        """Identify the sender and take its hello."""
        await self.hello(features=features)
        assert isinstance(await self.hear(), messages.SenderHello)

    async def ended(self) -> None:
        """Wait for the sender to hang up, with nothing under way."""
        assert isinstance(await self.hear(), ConnectionEnded)

    async def gone(self) -> None:
        """Wait for the sender to hang up, however it does."""
        with contextlib.suppress(OSError):
            while await self.reader.read(1 << 20):
                pass

    async def take_stream(self, *, acknowledge: bool = True) -> tuple[bytes, messages.Finish]:
        """Take chunks until `finish`, as the real receiver does. Returns: the raw bytes, and what concluded them."""
        arrived = Arrived()
        finish = await arrived.take(self, acknowledge=acknowledge)
        assert isinstance(finish, messages.Finish)
        return bytes(arrived.raw), finish


class Arrived:
    """What has arrived of one stream, over as many connections as it took: its bytes, and the segments it came in."""

    def __init__(self) -> None:
        self.raw = bytearray()
        self.segments: list[Segment] = []
        self.chunks = 0  # that came on all connections
        self.taken: list[tuple[int, int]] = []  # chunks by offset and length, in order
        self._decompressor = Decompressor()

    def accept(self, record: messages.Record | None = None) -> messages.Accept:
        """Resume at its place."""
        return messages.Accept(offset=len(self.raw), segments=self.segments, record=record)

    async def take(self, peer: Peer, most: int = 1 << 30, *, acknowledge: bool = True) -> messages.Finish | None:
        """Take at most so many chunks. Returns: what concluded them; None where these were all. Raises: Stopped."""
        segment: SegmentHash | None = None
        for _chunk in range(most):
            event = await peer.hear()
            if isinstance(event, messages.Finish):
                return event
            if isinstance(event, messages.Stop):
                raise Stopped(event)
            assert isinstance(event, Chunk), event
            part = self._decompressor.decompress(event.frame, event.raw_length)
            assert event.raw_offset == len(self.raw)
            if event.starts_segment or segment is None:
                assert event.starts_segment
                segment = SegmentHash(event.raw_offset)
            else:
                self.segments.pop()
            assert segment.update(part) == event.sha256
            self.segments.append(Segment(start=segment.start, end=segment.end, sha256=segment.digest().hex()))
            self.raw += part
            self.taken.append((event.raw_offset, event.raw_length))
            self.chunks += 1
            if acknowledge:
                await peer.say(messages.Ack(offset=len(self.raw)))
        return None

    def forget_behind(self, offset: int) -> None:
        """Lose what is behind this offset, as the receiver does that has not made it durable."""
        del self.raw[offset:]
        kept = [segment for segment in self.segments if segment.start < offset]
        if kept and kept[-1].end > offset:
            last = kept.pop()
            kept.append(
                Segment(start=last.start, end=offset, sha256=hashlib.sha256(self.raw[last.start : offset]).hexdigest())
            )
        self.segments = kept


Script = Callable[[Peer], Awaitable[None]]


@dataclass
class Receiving:
    """Where scripted connections are taken. `peers`: those that came."""

    endpoint: Endpoint
    peers: list[Peer] = field(default_factory=list)


@contextlib.asynccontextmanager
async def receiving(
    identity: Identity,
    *scripts: Script,
    enrolled: Identity | None = None,
    all_must_come: bool = True,
    always: Script | None = None,
) -> AsyncGenerator[Receiving]:
    """Take one connection for each script, in order; further ones are for `always`, or closed at once.

    With `enrolled` TLS asks for a certificate, and lets in that one, and who shows none.

    At the end the scripts must have run to their ends, and what one of them raised is raised.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    identity.load_into(context)
    if enrolled is not None:
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=enrolled.pem())
    left = list(scripts)
    tasks: list[asyncio.Task[None]] = []

    def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        state.peers.append(peer)
        tasks.append(asyncio.create_task(converse(peer, left.pop(0) if left else always)))

    async def converse(peer: Peer, script: Script | None) -> None:
        try:
            if script is not None:
                await script(peer)
        finally:
            peer.writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(2):
                    await peer.writer.wait_closed()
            peer.writer.transport.abort()

    server = await asyncio.start_server(on_connection, "127.0.0.1", 0, ssl=context, limit=1 << 20)
    port = server.sockets[0].getsockname()[1]
    state = Receiving(Endpoint("nas", "127.0.0.1", port, identity.fingerprint()))
    try:
        yield state
        server.close()
        for task in tasks:
            await task
        assert not left or not all_must_come, f"{len(left)} scripts had no connection"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


# --- what a receiver says of a stream ------------------------------------------------------------------------------


def segments_of(raw: bytes | bytearray, *ends: int) -> list[Segment]:
    """The segments of a stream that end at these raw offsets."""
    return [
        Segment(start=start, end=end, sha256=hashlib.sha256(raw[start:end]).hexdigest())
        for start, end in itertools.pairwise([0, *ends])
    ]


def manifest_of(raw: bytes, *cuts: int) -> Manifest:
    """The manifest of a whole stream, in segments that end at the raw offsets `cuts` and at its end."""
    walker = Walker()
    walker.walk(raw, 0, len(raw), 1 << 63)
    facts = conclude(walker.begins)
    segments = segments_of(raw, *cuts, len(raw))
    return Manifest.model_validate(
        {
            "sender": NAME,
            "dataset": facts.dataset,
            "snapshot": facts.snapshot,
            "guid": str(facts.guid),
            "base_guid": str(facts.base_guid) if facts.base_guid else None,
            "kind": facts.kind,
            "dataset_type": facts.dataset_type,
            "class": facts.stream_class,
            "flags": facts.flags,
            "features": list(facts.features),
            "snapshots": [
                StreamSnapshot(dataset=facts.dataset, snapshot=facts.snapshot, guid=str(facts.guid), base_guid="0")
            ],
            "created": "2026-11-23T06:30:00Z",
            "received": "2026-11-23T06:30:01Z",
            "raw_bytes": len(raw),
            "stored_bytes": 1000,
            "sha256": hashlib.sha256(raw).hexdigest(),
            "segments": segments,
            "resumptions": [],
            "file_sha256": SHA,
            "chunks": 1,
            "sender_program": "fullsend test",
            "receiver_program": "fullsendd test",
            "zfs_version": None,
            "properties": None,
            "proven_by": "both",
        }
    )


def chunks_of(raw: bytes, *cuts: int) -> Iterator[Chunk]:
    """The chunks of a whole stream, cut by the rule; a new segment begins at each of the raw offsets `cuts`."""
    cutter = Cutter(Walker())
    compressor = Compressor(1)
    segment = SegmentHash(0)
    position = 0
    while position < len(raw):
        end = cutter.walk(raw, position, len(raw))
        if position in cuts:
            segment = SegmentHash(position)
        part = raw[position:end]
        starts = segment.end == segment.start
        yield Chunk(position, len(part), segment.update(part), compressor.compress(part), starts)
        cutter.next()
        position = end


def receipt_of(raw: bytes, *cuts: int, **changed: Any) -> Receipt:
    """The receipt of a whole stream, in segments as of `manifest_of`, with what a test changes."""
    manifest = manifest_of(raw, *cuts)
    if cuts:
        changed = {"sha256": None, **changed}
    said = manifest.model_dump(include=set(Receipt.model_fields))
    rest = {"base": None, "file": "alpha/tank/@x.zfs.zst", "restorable": True}
    return Receipt.model_validate({**said, **rest, **changed})


def entry(**changed: Any) -> StreamEntry:
    """What `list` says of a stream, with what a test changes."""
    said = {
        "sender": NAME,
        "dataset": "tank/data",
        "snapshot": "now",
        "guid": "1234",
        "kind": "full",
        "dataset_type": "filesystem",
        "flags": "",
        "base": None,
        "base_guid": None,
        "created": "2026-11-23T06:30:00Z",
        "received": "2026-11-23T06:30:01Z",
        "raw_bytes": 10 << 20,
        "stored_bytes": 4 << 20,
        "sha256": SHA,
        "file": "alpha/tank/data/@now.zfs.zst",
        "verified": None,
        "damaged": None,
        "restorable": True,
        "lost_spill_count": 0,
        "sequence": None,
    }
    return StreamEntry.model_validate({**said, **changed})


def status(dataset: str, **changed: Any) -> messages.DatasetStatus:
    """What the receiver says of a dataset; without `changed` it has no restorable stream."""
    said: dict[str, Any] = {
        "dataset": dataset,
        **dict.fromkeys(("snapshot", "guid", "created", "received", "begun", "unchanged")),
        **dict.fromkeys(("streams", "stored_bytes", "broken", "lost_spill_count"), 0),
    }
    return messages.DatasetStatus.model_validate(said | changed)


def partial_entry(**changed: Any) -> PartialEntry:
    """What `list --partial` says of a stream, with what a test changes."""
    said = {
        "sender": NAME,
        "dataset": "tank/data",
        "snapshot": "now",
        "guid": "1234",
        "base_guid": None,
        "flags": "",
        "raw_bytes": 10 << 20,
        "stored_bytes": 4 << 20,
        "resume_offset": 9 << 20,
        "started": "2026-11-23T06:30:00Z",
        "last": "2026-11-23T06:30:01Z",
        "arriving": False,
    }
    return PartialEntry.model_validate({**said, **changed})


class Keeper:
    """A receiver that keeps what it is sent, as far as a push asks: for as many connections as come.

    `streams`: what is stored; `unchanged`: what it was told; `refuse`: how the next offers are answered, in order: with
    an error of that code, or None for none; `refuse_bytes`: the same, of their first chunks. `partials`: what it says
    has arrived in part. `orphans`: so many of the next receipts say that the stream cannot be restored. `features`: of
    its hello. `ahead`: so many of the next receipts are given only when the next offer has come.
    """

    def __init__(self) -> None:
        self.streams: list[tuple[Manifest, bytes]] = []
        self.offers: list[messages.Push] = []
        self.unchanged: list[messages.UnchangedDataset] = []
        self.refuse: list[ErrorCode | None] = []
        self.refuse_bytes: list[ErrorCode | None] = []
        self.orphans = 0
        self.features: list[str] = []
        self.ahead = 0
        self.partials: list[PartialEntry] = []
        self.stops: list[messages.Stop] = []
        self.connections = 0
        self._received: list[str] = []  # of each stream
        self._seen: dict[str, tuple[str, str]] = {}  # by dataset: GUID, and when it was said to be unchanged
        self._times = (f"2026-11-23T06:{number // 60:02}:{number % 60:02}Z" for number in range(3600))

    async def __call__(self, peer: Peer) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionLost):  # a sender that is killed
            await self._serve(peer)

    async def _serve(self, peer: Peer) -> None:
        await peer.greet(*self.features)
        while True:
            said, peer.ahead = peer.ahead or await peer.hear(), None
            match said:
                case messages.BasesWanted():
                    await peer.say(messages.Bases(bases=self.bases()), messages.Done())
                case messages.PartialsWanted():
                    await peer.say(messages.Partials(partials=self.partials), messages.Done())
                case messages.Unchanged(datasets=datasets):
                    self.unchanged += datasets
                    now = next(self._times)
                    self._seen |= {each.dataset: (each.guid, now) for each in datasets}
                    await peer.say(messages.Noted())
                case messages.StatusWanted():
                    await peer.say(messages.Status(now=next(self._times), datasets=self.status()), messages.Done())
                case messages.List(dataset=dataset):
                    await peer.say(messages.Entries(entries=self.entries(dataset)), messages.Done())
                case messages.Push() as offer:
                    if not await self._take(peer, offer):
                        return
                case ConnectionEnded():
                    return
                case messages.Error() | messages.Stop():
                    await peer.gone()
                    return
                case other:
                    raise AssertionError(other)

    def bases(self) -> list[messages.Base]:
        """What can be a base: all but packages; that they are chains is believed."""
        return [
            messages.Base(
                dataset=about.dataset,
                guid=about.guid,
                base_guid=about.base_guid,
                flags=about.flags,
                streams=1 + sum(other.dataset == about.dataset for other, _raw in self.streams[:place]),
                age=0,
                full_bytes=about.raw_bytes,
                increment_bytes=0,
            )
            for place, (about, _raw) in enumerate(self.streams)
            if about.kind != "package"
        ]

    def entries(self, dataset: str | None) -> list[StreamEntry]:
        """All of a dataset; None: of all."""
        said = ("dataset", "snapshot", "guid", "base_guid", "kind")
        return [
            entry(**about.model_dump(include=set(said)), received=received)
            for (about, _raw), received in zip(self.streams, self._received, strict=True)
            if dataset in {None, about.dataset}
        ]

    def status(self) -> list[messages.DatasetStatus]:
        """Of each dataset; the newest stream is the last that came."""
        newest = {each.dataset: each for each in self.entries(None)}
        return [
            messages.DatasetStatus(
                dataset=name,
                snapshot=each.snapshot,
                guid=each.guid,
                created=each.created,
                received=each.received,
                begun=each.received,
                unchanged=self._seen[name][1] if self._seen.get(name, ("", ""))[0] == each.guid else None,
                streams=sum(about.dataset == name for about, _raw in self.streams),
                stored_bytes=0,
                broken=0,
                lost_spill_count=0,
            )
            for name, each in sorted(newest.items())
        ]

    async def _take(self, peer: Peer, offer: messages.Push) -> bool:
        """Take one stream. Returns: whether the conversation continues."""
        self.offers.append(offer)
        code = self.refuse.pop(0) if self.refuse else None
        if code is not None:
            return await self._refuse(peer, code)
        await peer.say(messages.Accept(offset=0, segments=[], record=None))
        code = self.refuse_bytes.pop(0) if self.refuse_bytes else None
        if code is not None:
            assert isinstance(await peer.hear(), Chunk)
            return await self._refuse(peer, code)
        try:
            raw, _finish = await peer.take_stream()
        except Stopped as stopped:
            self.stops.append(stopped.said)
            await peer.say(messages.Stopped(offset=0))
            return True
        if self.ahead:
            self.ahead -= 1
            peer.ahead = await peer.hear()
            assert isinstance(peer.ahead, messages.Push)
        manifest = manifest_of(raw)
        self.streams.append((manifest, raw))
        self._received.append(next(self._times))
        self.partials = [
            each for each in self.partials if (each.dataset, each.snapshot) != (offer.dataset, offer.snapshot)
        ]
        await peer.say(messages.Committed(receipt=receipt_of(raw, restorable=self.orphans == 0)))
        self.orphans = max(self.orphans - 1, 0)
        return True

    async def _refuse(self, peer: Peer, code: ErrorCode) -> bool:
        await peer.say(messages.Error(code=code, message="refused by the test"))
        await peer.gone()
        return False
