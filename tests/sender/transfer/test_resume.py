"""Resuming by a token: with a scripted receiver that may lie; then both programs, one of them killed during a stream.

What `zfs send -t` gives is made by tests/resumed.py, without the code that is tested here.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import subprocess
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests import programs, resumed, streams
from tests.fakezfs import FakeZfs
from tests.sender.peer import Arrived, Peer, Script, Stopped, partial_entry, receipt_of, receiving, segments_of
from tests.sender.transfer.test_pipeline import flowing, no_threads_left

from fullsend_cli.progress import Progress
from fullsend_protocol.format.manifest import PartialEntry
from fullsend_protocol.shared.errors import FullsendError, IncompleteStream, NotTheSameStream, StreamError
from fullsend_protocol.stream.chunks import Cutter
from fullsend_protocol.stream.records import Feature, Walker
from fullsend_protocol.stream.resume_token import ResumeToken
from fullsend_protocol.wire import messages
from fullsend_sender.host.identity import Identity
from fullsend_sender.transfer import retry
from fullsend_sender.transfer.resume import resume_by_token
from fullsend_sender.transfer.segments import DifferentBytes
from fullsend_sender.transfer.send import Pushed, ReceiptMismatch, StreamContext, TransferOptions
from fullsend_sender.zfs.commands import Zfs, ZfsError

BLOCK = hashlib.sha256(b"any").digest() * (128 << 10 >> 5)


@dataclass(frozen=True)
class Cut:
    """A stream of which the receiver has all before `offset`. `flags`: those that it was offered with."""

    raw: bytes
    flags: str
    offset: int

    @property
    def of(self) -> resumed.Sent:
        return resumed.sent(self.raw)[-1]

    @property
    def index(self) -> int:
        index = self.of.kept(self.offset)
        assert index is not None
        assert self.of.records[index].end == self.offset
        return index

    @property
    def record(self) -> messages.Record:
        record = self.of.bytes_of(self.of.records[self.index])
        return messages.Record(
            header=base64.b64encode(record[:312]).decode(),
            payload_sha256=hashlib.sha256(record[312:]).hexdigest(),
            features=self.of.features,
        )

    def rest(self) -> bytes:
        """What `zfs send -t` gives."""
        return resumed.send_t(self.of, self.index)

    @property
    def begun(self) -> PartialEntry:
        of = self.of
        dataset, _, snapshot = of.name.partition("@")
        return partial_entry(
            dataset=dataset,
            snapshot=snapshot,
            guid=str(of.guid),
            base_guid=None if of.base_guid is None else str(of.base_guid),
            flags=self.flags,
            raw_bytes=self.offset,
            resume_offset=self.offset,
        )


def cut(features: tuple[int, ...] = (), *, flags: str = "", base_guid: int = 0, size: int = 12 << 20) -> Cut:
    """A stream that was cut behind its second chunk, of three."""
    writes = [streams.write(2, at, BLOCK) for at in range(0, size, len(BLOCK))]
    first = [streams.object_range()] if Feature.RAW in features else []
    begin = streams.begin(base_guid=base_guid, features=features)
    raw = resumed.summed(begin, [*first, streams.object_(2), *writes, streams.end()])
    if "p" in flags:
        told = streams.tree("now", streams.file_system("tank/data", {"now": streams.GUID}))
        raw = streams.package(raw, nvlist=told)
    cutter, ends = Cutter(Walker()), [0]
    while ends[-1] < len(raw):
        ends.append(cutter.walk(raw, ends[-1], len(raw)))
        cutter.next()
    return Cut(raw, flags, ends[2])


PLAIN = cut()
PACKED = cut(flags="p")
RAW = cut((Feature.COMPRESSED, Feature.RAW), flags="cwp", base_guid=77)


class MadeUp:
    """A `zfs` of which only `send -t` is used. `asked`: its arguments; `failure`: how it ends, after all of `rest`."""

    def __init__(self, rest: bytes, failure: ZfsError | None = None) -> None:
        self.asked: list[tuple[str, ...]] = []
        self._rest = rest
        self._failure = failure

    @contextlib.asynccontextmanager
    async def send(self, *arguments: str) -> AsyncGenerator[SimpleNamespace]:
        self.asked.append(arguments)
        async with flowing(self._rest) as fd:
            yield SimpleNamespace(fd=fd, succeeded=self._succeeded)

    async def _succeeded(self) -> None:
        if self._failure is not None:
            raise self._failure


class Having:
    """A receiver that has the first part of a stream. `told`: how the sender stopped."""

    def __init__(self, of: Cut, record: messages.Record | None, *, drops: int | None = None) -> None:
        self.arrived = Arrived()
        self.arrived.raw += of.raw[: of.offset]
        self.arrived.segments = segments_of(of.raw, of.offset)
        self.offers: list[messages.Push] = []
        self.told: list[messages.Stop] = []
        self._record = record
        self._drops = drops

    async def __call__(self, peer: Peer) -> None:
        await peer.greet()
        self.offers.append(await peer.hear())
        await peer.say(self.arrived.accept(self._record))
        self._record = None
        try:
            if self._drops is not None:
                chunks, self._drops = self._drops, None
                await self.arrived.take(peer, chunks)
                return
            await self.arrived.take(peer)
        except Stopped as stopped:
            self.told.append(stopped.said)
            await peer.say(messages.Stopped(offset=len(self.arrived.raw) if stopped.said.keep else 0))
        else:
            borders = [segment.end for segment in self.arrived.segments[:-1]]
            await peer.say(messages.Committed(receipt=receipt_of(bytes(self.arrived.raw), *borders)))
        await peer.gone()


async def resume(
    zfs: MadeUp, of: Cut, having: Script, mine: Identity, theirs: Identity, *, begun: PartialEntry | None = None
) -> Pushed:
    async with receiving(theirs, always=having) as receiver:
        try:
            pushed = await resume_by_token(
                cast("Zfs", zfs),
                begun or of.begun,
                receiver.endpoint,
                mine,
                TransferOptions(1, threads=2, retry_for=20),
                about=StreamContext(single=True, claim="5c" * 8, reached=True),
                progress=Progress(time.monotonic()),
            )
        finally:
            assert no_threads_left()
    assert isinstance(pushed, Pushed)
    return pushed


async def test_another_stream_that_is_stored_is_no_receipt(identity: Identity, receiver_identity: Identity) -> None:
    async def lies(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(messages.Stored(receipt=receipt_of(PLAIN.raw, guid="7")))
        await peer.gone()

    zfs = MadeUp(PLAIN.rest())
    with pytest.raises(ReceiptMismatch, match="guid"):
        await resume(zfs, PLAIN, lies, identity, receiver_identity)
    assert zfs.asked == []


# --- it resumes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", [PLAIN, PACKED, RAW], ids=["plain", "-p", "raw increment, -p"])
async def test_only_the_rest_is_made_and_sent(identity: Identity, receiver_identity: Identity, of: Cut) -> None:
    zfs, having = MadeUp(of.rest()), Having(of, of.record)
    pushed = await resume(zfs, of, having, identity, receiver_identity)
    assert having.arrived.raw == of.raw
    assert having.arrived.taken[0][0] == of.offset
    assert sum(length for _offset, length in having.arrived.taken) == len(of.raw) - of.offset
    assert (pushed.resume, pushed.resumed_at) == ("token", of.offset)
    (offer,) = having.offers
    assert (offer.resume, offer.claim, offer.flags) == ("token", "5c" * 8, of.flags)
    assert (offer.guid, offer.base_guid) == (of.begun.guid, of.begun.base_guid)
    ((option, text),) = zfs.asked
    key = of.of.records[of.index].key
    assert key is not None
    assert option == "-t"
    assert ResumeToken.decode(text) == ResumeToken(
        "tank/data@now", streams.GUID, of.of.base_guid, *key, of.of.features, received=0
    )


@pytest.mark.parametrize("drops", [0, 1])
async def test_a_wire_that_is_lost_while_the_rest_is_sent(
    identity: Identity, receiver_identity: Identity, monkeypatch: pytest.MonkeyPatch, drops: int
) -> None:
    monkeypatch.setattr(retry, "FIRST_DELAY", 0.01)
    zfs, having = MadeUp(PACKED.rest()), Having(PACKED, PACKED.record, drops=drops)
    pushed = await resume(zfs, PACKED, having, identity, receiver_identity)
    assert having.arrived.raw == PACKED.raw
    assert [offer.resume for offer in having.offers] == ["token", "reconnect"]
    assert len(zfs.asked) == 1  # the rest is made once
    assert (pushed.resume, pushed.resumed_at) == ("token", PACKED.offset)


# --- it cannot -------------------------------------------------------------------------------------------------


def with_features(features: int) -> Callable[[messages.Record], messages.Record]:
    return lambda record: record.model_copy(update={"features": record.features ^ features})


def another(record: messages.Record) -> messages.Record:
    header = bytearray(base64.b64decode(record.header))
    header[24] ^= 0xFF  # another offset
    return record.model_copy(update={"header": base64.b64encode(header).decode()})


def no_resumable(record: messages.Record) -> messages.Record:
    return record.model_copy(update={"header": base64.b64encode(bytes(312)).decode()})


def other_payload(record: messages.Record) -> messages.Record:
    return record.model_copy(update={"payload_sha256": "00" * 32})


@pytest.mark.parametrize(
    ("of", "lie", "asked", "said"),
    [
        (PLAIN, None, 0, "has no record after which the stream could be resumed"),
        (RAW, with_features(1 << Feature.RAW), 0, "of another class"),
        (PLAIN, with_features(1 << Feature.RAW), 0, "of another class"),
        (PLAIN, with_features(1 << Feature.REDACTED), 0, "redacted"),
        (PLAIN, with_features(1 << Feature.RESUMING), 0, "resuming stream"),
        (PLAIN, with_features(1 << Feature.LARGE_BLOCKS), 1, "was it sent with other flags"),
        (PLAIN, no_resumable, 0, "cannot be resumed at"),
        (PLAIN, another, 1, "before it has repeated the last one that is kept"),
        (PLAIN, other_payload, 1, "has other data for object 2"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_receiver_that_lies(
    identity: Identity,
    receiver_identity: Identity,
    *,
    of: Cut,
    lie: Callable[[messages.Record], messages.Record] | None,
    asked: int,
    said: str,
) -> None:
    """Nothing is sent of what does not fit, and what has arrived stays for a replay to compare."""
    zfs, having = MadeUp(of.rest()), Having(of, None if lie is None else lie(of.record))
    with pytest.raises(NotTheSameStream, match=said):
        await resume(zfs, of, having, identity, receiver_identity)
    assert len(zfs.asked) == asked
    assert having.arrived.taken == []
    assert [stop.keep for stop in having.told] == [True]


async def test_what_is_encrypted_is_never_asked_for_plain(identity: Identity, receiver_identity: Identity) -> None:
    """Whatever the receiver says: of the stream's flags, the sender has seen to it that they are its own class's."""
    lie = RAW.record.model_copy(update={"features": 0})
    zfs = MadeUp(RAW.rest())
    with pytest.raises(NotTheSameStream, match="another class"):
        await resume(zfs, RAW, Having(RAW, lie), identity, receiver_identity)
    assert zfs.asked == []


@pytest.mark.parametrize("rest", [b"", PLAIN.rest()[:400]], ids=["nothing", "a part"])
async def test_zfs_refuses(identity: Identity, receiver_identity: Identity, rest: bytes) -> None:
    having = Having(PLAIN, PLAIN.record)
    with pytest.raises(ZfsError, match="no longer exists"):
        await resume(MadeUp(rest, ZfsError("it no longer exists")), PLAIN, having, identity, receiver_identity)
    assert [(stop.keep, stop.reason) for stop in having.told] == [(True, "it no longer exists")]
    assert having.arrived.taken == []


@pytest.mark.parametrize(
    ("spoil", "error", "keep"),
    [
        (lambda rest: rest[:-312], IncompleteStream, True),
        (lambda rest: rest + b"x", DifferentBytes, False),
        (lambda rest: rest[:-312] + streams.begin(), DifferentBytes, False),
        (lambda rest: rest[:-312] + streams.end(99), DifferentBytes, False),
    ],
    ids=["cut", "longer", "another begins", "ends as another"],
)
async def test_a_rest_that_is_no_rest(
    identity: Identity,
    receiver_identity: Identity,
    spoil: Callable[[bytes], bytes],
    error: type[StreamError],
    keep: bool,
) -> None:
    """Where it turns out only after bytes were passed on, these are not to be kept."""
    having = Having(PLAIN, PLAIN.record)
    with pytest.raises(error):
        await resume(MadeUp(spoil(PLAIN.rest())), PLAIN, having, identity, receiver_identity)
    assert [stop.keep for stop in having.told] == [keep]


async def test_a_producer_that_dies_after_all(identity: Identity, receiver_identity: Identity) -> None:
    having = Having(PLAIN, PLAIN.record)
    with pytest.raises(ZfsError, match="I/O error"):
        await resume(MadeUp(PLAIN.rest(), ZfsError("I/O error")), PLAIN, having, identity, receiver_identity)
    assert [stop.keep for stop in having.told] == [True]


async def test_a_stream_without_a_guid_has_no_token(identity: Identity, receiver_identity: Identity) -> None:
    begun = PLAIN.begun.model_copy(update={"guid": None})
    zfs = MadeUp(b"")
    with pytest.raises(FullsendError, match="has no record"):
        await resume(zfs, PLAIN, Having(PLAIN, PLAIN.record), identity, receiver_identity, begun=begun)
    assert zfs.asked == []


# --- a push that is killed --------------------------------------------------------------------------------------


SIZE = 13_000_000


@dataclass
class Host:
    """A ZFS host and a real receiver."""

    sender: programs.Sender
    receiver: programs.Receiver
    fake: FakeZfs

    def partials(self) -> list[dict[str, Any]]:
        return programs.rows(programs.good(self.sender.fullsend("list", "--partial", "--json")))

    def killed(self, name: str) -> dict[str, Any]:
        """Push, and be killed when some of it is durable. Returns: what the receiver says of it."""
        self.fake.fail("send -L", "stall")
        process = self.sender.popen("push", name, stderr=subprocess.DEVNULL)
        try:
            programs.wait_for(lambda: any(each["raw_bytes"] for each in self.partials()))
        finally:
            process.kill()
            process.wait()
        self.fake.mend()
        programs.wait_for(lambda: not self.partials()[0]["arriving"])
        (partial,) = self.partials()
        return partial

    def stored(self, pushed: dict[str, Any]) -> bytes:
        return programs.good(self.sender.fullsend("cat", pushed["receipt"]["file"]))

    def sends(self, *arguments: str) -> bytes:
        """What an uninterrupted send gives."""
        done = subprocess.run([self.fake.program, "send", *arguments], capture_output=True, check=True)
        return done.stdout

    def again(self, name: str) -> tuple[list[dict[str, Any]], str]:
        self.fake.forget_commands()
        done = self.sender.fullsend("-v", "push", name, "--json")
        return programs.rows(programs.good(done)), done.stderr.decode()

    def sent(self) -> list[str]:
        """How each stream was made."""
        return [line for line in self.fake.commands if line.startswith("send") and "-nP" not in line]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with programs.serving(programs.Receiver(tmp_path / "receiver", inside=True), min_free=0) as receiver:
        sender = programs.Sender(tmp_path / "sender", measured=True, inside=True)
        sender.join(receiver)
        fake = FakeZfs.make(tmp_path / "zfs")
        config = sender.folder / "sender.toml"
        config.write_text(f"zfs-command = {json.dumps(fake.program)}\nprogress = 'never'\n{config.read_text()}")
        yield Host(sender, receiver, fake)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("about", "config", "options"),
    [
        ({}, "", ("-L", "-p")),
        pytest.param({"encrypted": True}, "", ("-L", "-p", "-w"), marks=pytest.mark.slow),
        pytest.param({"encrypted": True}, "decrypt = true\n", ("-L",), marks=pytest.mark.slow),
    ],
    ids=["-p", "raw, -p", "decrypted"],
)
def test_a_push_that_was_killed_is_finished_before_the_next_one(
    host: Host, about: dict[str, Any], config: str, options: tuple[str, ...]
) -> None:
    (host.sender.folder / "sender.toml").write_text(config + (host.sender.folder / "sender.toml").read_text())
    host.fake.create("tank/a", size=SIZE, **about)
    partial = host.killed("tank/a")
    (held,) = host.fake.holds("tank/a")
    host.fake.change("tank/a")
    (first, second), said = host.again("tank/a")
    assert held not in host.fake.holds("tank/a")
    assert (first["snapshot"], first["kind"], first["resume"]) == (partial["snapshot"], "full", "token")
    assert first["resumed_at"] == partial["resume_offset"] >= 4 << 20
    assert (second["kind"], second["resume"], second["base_guid"]) == ("incremental", "none", first["guid"])
    assert first["wire_bytes"] < second["wire_bytes"] / 1.3  # of the same size, and sent whole
    assert "(token)" in said
    assert host.stored(first) == host.sends(*options, f"tank/a@{first['snapshot']}")
    assert [line.split()[1] for line in host.sent()[:2]] == ["-t", "-L"]
    assert host.fake.holds("tank/a") == []
    assert host.fake.names("snapshots", "tank/a") == [first["snapshot"], second["snapshot"]]
    assert len(host.fake.names("bookmarks", "tank/a")) == 2
    assert host.partials() == []
    (manifest,) = (each for each in host.sender.list() if each["snapshot"] == first["snapshot"])
    assert manifest["restorable"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_a_token_cannot_serve_is_compared_and_sent_on(host: Host) -> None:
    host.fake.create("tank/a", size=SIZE)
    partial = host.killed("tank/a")
    host.fake.fail("send -t", "cannot resume send: out of luck")
    (pushed,), said = host.again("tank/a")
    assert (pushed["snapshot"], pushed["resume"]) == (partial["snapshot"], "replay")
    assert pushed["resumed_at"] == partial["resume_offset"]
    assert "is sent again and compared, because a token cannot serve" in said
    assert "out of luck" in said
    assert host.stored(pushed) == host.sends("-L", "-p", f"tank/a@{pushed['snapshot']}")
    assert host.fake.holds("tank/a") == []
    assert host.partials() == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_other_bytes_than_have_arrived_start_over(host: Host) -> None:
    """As after a change of what ZFS makes of the same snapshot: neither token nor replay may resume."""
    host.fake.create("tank/a", size=SIZE)
    partial = host.killed("tank/a")
    host.fake.edit(lambda state: state["datasets"]["tank/a"].update(drift=1))
    (pushed,), said = host.again("tank/a")
    assert (pushed["snapshot"], pushed["resume"], pushed["resumed_at"]) == (partial["snapshot"], "none", 0)
    assert "because a token cannot serve: the resumed stream has other data" in said
    assert "starts over: the bytes 0 to " in said
    assert host.stored(pushed) == host.sends("-L", "-p", f"tank/a@{pushed['snapshot']}")
    assert host.partials() == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_snapshot_that_is_gone_cannot_be_finished(host: Host) -> None:
    host.fake.create("tank/a", size=SIZE)
    partial = host.killed("tank/a")
    host.fake.edit(lambda state: state["datasets"]["tank/a"].update(snapshots=[], written=4096))
    (pushed,), _said = host.again("tank/a")
    assert pushed["snapshot"] != partial["snapshot"] or pushed["guid"] != partial["guid"]
    assert (pushed["kind"], pushed["resume"]) == ("full", "none")
    assert [line.split()[1] for line in host.sent()] == ["-L"]
