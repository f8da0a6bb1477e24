"""Stored streams are compared with what `zfs send` gives: genuine streams on both sides, and a scripted receiver."""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import itertools
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import pytest
from tests import resumed, streams
from tests.chains import named
from tests.data import load
from tests.genuine_zfs import GenuineZfs
from tests.sender.peer import Peer, entry, receiving

from fullsend_protocol.shared.errors import ErrorCode, PeerError, RemoteProtocolError, Unreachable, UsageError
from fullsend_protocol.stream.facts import conclude
from fullsend_protocol.stream.opening import opening_of
from fullsend_protocol.stream.records import RecordType, Walker
from fullsend_protocol.stream.without_frees import HashWithoutFrees
from fullsend_protocol.wire import messages
from fullsend_protocol.wire.connection import ConnectionEnded
from fullsend_sender.monitor import prove as comparing
from fullsend_sender.monitor.prove import OlderReceiver, ProofOutcome, Prover, StoredCopy
from fullsend_sender.zfs.commands import Zfs, ZfsError
from fullsend_sender.zfs.pools import while_usable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from fullsend_protocol.format.manifest import StreamEntry
    from fullsend_sender.host.identity import Identity
    from fullsend_sender.host.options import Endpoint

CHAIN: Final = named("t1-plain")
FULL, ONE, TWO, _THREE = (raw for _name, raw in CHAIN.run(None, 3))
HOME: Final = opening_of("it", [FULL]).name.partition("@")[0]


def sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def without_frees(raw: bytes) -> str:
    form = HashWithoutFrees("it")
    form.feed(raw)
    return form.finish()


def with_another_hole(raw: bytes) -> bytes:
    """The same increment, with one FREE less: the first that is not an object's end."""
    records = streams.split(raw)
    for before, each in itertools.pairwise(records):
        if each.kind == RecordType.FREE and before.kind != RecordType.OBJECT:
            begin, *others = (raw[one.start : one.end] for one in records if one is not each)
            return resumed.summed(begin, others)
    raise AssertionError("it has no hole")


def facts_of(raw: bytes) -> Any:
    walker = Walker()
    walker.walk(raw, 0, len(raw), 1 << 63)
    return conclude(walker.begins)


def merged_entry(raw: bytes, **changes: Any) -> messages.MergedEntry:
    about = facts_of(raw)
    fields = {
        "dataset": about.dataset,
        "snapshot": about.snapshot,
        "guid": str(about.guid),
        "base_guid": None if about.base_guid is None else str(about.base_guid),
        "flags": about.flags,
        "raw_bytes": len(raw),
        "file": f"alpha/{about.snapshot}.zfs.zst",
        "proven": None,
    }
    return messages.MergedEntry.model_validate(fields | changes)


@dataclass
class Desk:
    """A receiver that has these streams. `states`: by file, the SHA-256 of the full that its chain makes; `refuse`: by
    type of question, the error for it, or "lost" once; `unreadable`: by file, why it has no hash without FREEs.
    """

    stored: list[tuple[messages.MergedEntry, bytes]] = field(default_factory=list)
    states: dict[str, str] = field(default_factory=dict)
    refuse: dict[str, ErrorCode | Literal["lost"]] = field(default_factory=dict)
    answers: dict[str, messages.Proven] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    proven: list[messages.Prove] = field(default_factory=list)
    connections: int = 0

    def keep(self, raw: bytes, **changes: Any) -> messages.MergedEntry:
        made = merged_entry(raw, **changes)
        self.stored.append((made, raw))
        return made

    def entries(self, dataset: str | None) -> list[StreamEntry]:
        shared = ("dataset", "snapshot", "guid", "base_guid", "flags", "file")
        return [
            entry(**each.model_dump(include=set(shared)), kind="full" if each.base_guid is None else "incremental")
            for each, _raw in self.stored
            if dataset in {None, each.dataset}
        ]

    async def __call__(self, peer: Peer) -> None:
        self.connections += 1
        await peer.greet()
        while not isinstance(said := await peer.hear(), ConnectionEnded):
            refusal = self.refuse.get(said.type)
            if refusal == "lost":
                del self.refuse[said.type]
                return
            if refusal is not None:
                await peer.say(messages.Error(code=refusal, message="refused by the test"))
                await peer.gone()
                return
            await peer.say(*self.answer(said))

    def answer(self, said: Any) -> list[messages.ReceiverMessage]:
        match said:
            case messages.MergedWanted():
                return [messages.MergedStreams(streams=[each for each, _raw in self.stored]), messages.Done()]
            case messages.List():
                return [messages.Entries(entries=self.entries(said.dataset)), messages.Done()]
            case messages.HeadWanted():
                raw = self.raw(said.file)
                head = None if not raw else base64.b64encode(bytes(opening_of("it", [raw]))).decode()
                return [messages.Head(raw=head)]
            case messages.Prove():
                self.proven.append(said)
                if said.file in self.answers:
                    return [self.answers[said.file]]
                known = self.states[said.file] if said.whole else sha256(self.raw(said.file))
                return [messages.Proven(result="same" if said.sha256 == known else "different", why="")]
            case messages.FormWanted():
                if said.file in self.unreadable:
                    return [messages.Form(sha256=None, why=self.unreadable[said.file])]
                return [messages.Form(sha256=without_frees(self.raw(said.file)), why="")]
            case other:
                raise AssertionError(other)

    def raw(self, file: str) -> bytes:
        return next(raw for each, raw in self.stored if each.file == file)


@dataclass
class Proving:
    """A host with a `zfs`, and its receiver."""

    desk: Desk
    zfs: GenuineZfs
    endpoint: Endpoint
    identity: Identity

    def prover(self, **options: Any) -> Prover:
        options = {"retry_for": 0, **options}
        return Prover(self.endpoint, self.identity, Zfs((self.zfs.program,)), **options)

    async def prove(self, name: str | None = None, **options: Any) -> list[ProofOutcome]:
        prover = self.prover(**options)
        copies = await (prover.merged() if name is None else prover.stored(name))
        return [each async for each in prover.prove(copies)]

    def has(self, *raws: bytes) -> None:
        """Have the snapshots of these streams."""
        for raw in raws:
            about = facts_of(raw)
            self.zfs.add(about.dataset, about.snapshot, str(about.guid))


@pytest.fixture
async def proving(tmp_path: Path, identity: Identity, receiver_identity: Identity) -> AsyncIterator[Proving]:
    desk = Desk()
    zfs = GenuineZfs.make(tmp_path / "zfs")
    zfs.dataset(HOME)
    async with receiving(receiver_identity, always=desk) as state:
        yield Proving(desk, zfs, state.endpoint, identity)


def results(found: list[ProofOutcome]) -> list[str]:
    return [each.result for each in found]


def snapshot(raw: bytes) -> str:
    return str(facts_of(raw).snapshot)


async def test_a_full_and_an_increment_are_the_same(proving: Proving) -> None:
    proving.desk.keep(FULL)
    proving.desk.keep(ONE)
    proving.has(FULL, ONE)
    proving.zfs.sends(FULL, f"{HOME}@{snapshot(FULL)}")
    proving.zfs.sends(ONE, "-i", f"{HOME}@{snapshot(FULL)}", f"{HOME}@{snapshot(ONE)}")
    found = await proving.prove()
    assert results(found) == ["same", "same"]
    assert all(each.is_proven and not each.is_wrong and not each.properties for each in found)
    assert found[0].line() == f"{HOME}@{snapshot(FULL)}: is the same as `zfs send`"
    assert [each.sha256 for each in proving.desk.proven] == [sha256(FULL), sha256(ONE)]
    assert not any(each.whole for each in proving.desk.proven)


async def test_what_is_proven_is_not_proven_again_unless_it_is_wanted(proving: Proving) -> None:
    proving.desk.keep(FULL, proven="2026-11-23T06:30:00Z")
    assert await proving.prover().merged() == []
    assert len(await proving.prover().merged(again=True)) == 1
    assert proving.zfs.commands == []


async def test_another_full_is_different(proving: Proving) -> None:
    proving.desk.keep(FULL)
    proving.has(FULL)
    damaged = bytearray(FULL)
    damaged[-5000] ^= 1
    proving.zfs.sends(bytes(damaged), f"{HOME}@{snapshot(FULL)}")
    (found,) = await proving.prove()
    assert (found.result, found.is_wrong, found.but_for_frees) == ("different", True, None)
    assert "DIFFERENT" in found.line()
    assert f"`fullsend push --full {HOME}`" in found.line()
    assert not any(each.whole for each in proving.desk.proven)  # a full is a state by itself


async def test_an_increment_with_other_bytes_is_proven_by_its_state(proving: Proving) -> None:
    made = proving.desk.keep(ONE)
    proving.has(FULL, ONE)
    target = f"{HOME}@{snapshot(ONE)}"
    arguments = ("-i", f"{HOME}@{snapshot(FULL)}", target)
    state = bytes(opening_of("it", [ONE])) + b"what would be the full"
    proving.zfs.sends(state, target)
    other_block = bytearray(ONE)
    other_block[-2000] ^= 1
    for own, alike, said in (
        (with_another_hole(ONE), True, "its own bytes are equal but for FREE records"),
        (bytes(other_block), False, "its own bytes differ in more than FREE records"),
    ):
        proving.desk.proven.clear()
        proving.zfs.sends(own, *arguments)
        proving.desk.states[made.file] = sha256(state)
        (found,) = await proving.prove()
        assert (found.result, found.is_wrong, found.is_proven, found.but_for_frees) == ("state", False, True, alike)
        assert found.line() == f"{target}: restores the same state as `zfs send`; {said}"
        # Only what is exact is asked to be recorded.
        assert [(each.whole, each.sha256) for each in proving.desk.proven] == [
            (False, sha256(own)),
            (True, sha256(state)),
        ]
        # A FREE that is missing shows in the state alone.
        proving.desk.states[made.file] = sha256(b"another one")
        (found,) = await proving.prove()
        assert (found.result, found.is_wrong, found.is_proven, found.but_for_frees) == ("different", True, False, alike)
        assert ("is DIFFERENT from `zfs send`, in FREE records: " in found.line()) == alike


async def test_an_increment_with_other_bytes_whose_state_cannot_be_compared(proving: Proving) -> None:
    made = proving.desk.keep(ONE)
    proving.has(FULL, ONE)
    target = f"{HOME}@{snapshot(ONE)}"
    proving.zfs.sends(with_another_hole(ONE), "-i", f"{HOME}@{snapshot(FULL)}", target)
    (found,) = await proving.prove()  # its `zfs send` fails
    assert (found.result, found.is_wrong, found.is_proven, found.but_for_frees) == ("differs", True, False, True)
    assert found.line().startswith(f"{target}: is not proven: its bytes are equal but for FREE records, as those of a")
    assert "was not compared: " in found.line()
    proving.zfs.sends(FULL, target)
    (found,) = await proving.prove()  # it has another name
    assert (found.result, found.is_wrong) == ("differs", True)
    state = bytes(opening_of("it", [ONE])) + b"more"
    proving.zfs.sends(state, target)
    proving.desk.refuse["prove"] = ErrorCode.SPACE
    assert results(await proving.prove()) == ["failed"]
    del proving.desk.refuse["prove"]
    proving.desk.unreadable[made.file] = "it is not stored any more"
    proving.desk.states[made.file] = sha256(state)
    (found,) = await proving.prove()
    assert (found.result, found.but_for_frees) == ("state", None)


async def test_an_older_receiver_compares_the_state_at_once(proving: Proving) -> None:
    made = proving.desk.keep(ONE)
    proving.has(FULL, ONE)
    target = f"{HOME}@{snapshot(ONE)}"
    proving.zfs.sends(with_another_hole(ONE), "-i", f"{HOME}@{snapshot(FULL)}", target)
    state = bytes(opening_of("it", [ONE])) + b"more"
    proving.zfs.sends(state, target)
    proving.desk.states[made.file] = sha256(state)
    proving.desk.refuse["form?"] = ErrorCode.PROTOCOL
    (found,) = await proving.prove(retry_for=100)
    assert (found.result, found.but_for_frees) == ("state", None)
    assert found.line() == f"{target}: restores the same state as `zfs send`; its own bytes differ"
    sends = [each for each in proving.zfs.commands if each.startswith("send")]
    assert len(sends) == 2


async def test_a_base_that_is_gone_and_one_that_is_a_bookmark(proving: Proving) -> None:
    made = proving.desk.keep(ONE)
    proving.has(ONE)
    (found,) = await proving.prove()
    said = "the pool no longer has its base; --whole compares the state that it restores"
    assert (found.result, found.why) == ("impossible", said)
    proving.zfs.sends(FULL, f"{HOME}@{snapshot(ONE)}")
    proving.desk.states[made.file] = sha256(FULL)
    (found,) = await proving.prove(without_base=True)
    assert found.why == f"it was sent as {HOME}@{snapshot(ONE)}, which is {HOME}@{snapshot(FULL)} now"
    proving.zfs.add(HOME, "mark", str(facts_of(FULL).guid), bookmark=True)
    proving.zfs.sends(ONE, "-i", f"{HOME}#mark", f"{HOME}@{snapshot(ONE)}")
    assert results(await proving.prove()) == ["same"]


async def test_what_the_pool_does_not_have_is_no_error(proving: Proving) -> None:
    proving.desk.keep(FULL)
    proving.desk.keep(ONE, dataset="tank/elsewhere")
    found = await proving.prove()
    assert [(each.result, each.why) for each in found] == [("impossible", "the pool has no such snapshot")] * 2
    assert not any(each.is_wrong for each in found)
    assert found[0].line() == f"{HOME}@{snapshot(FULL)}: cannot be proven: the pool has no such snapshot"
    assert found[0].to_dict() == {
        "dataset": HOME,
        "snapshot": snapshot(FULL),
        "guid": str(facts_of(FULL).guid),
        "base_guid": None,
        "file": f"alpha/{snapshot(FULL)}.zfs.zst",
        "result": "impossible",
        "why": "the pool has no such snapshot",
        "properties_changed": False,
        "but_for_frees": None,
    }


def with_other_properties(raw: bytes) -> bytes:
    """The same stream, with another nvlist before it."""
    opening = opening_of("it", [raw])
    package = bytearray(opening.package)
    package[-312 - 40] ^= 1  # near the end of the nvlist, which END follows
    return bytes(package) + raw[len(opening.package) :]


async def test_properties_that_have_changed_are_left_out(proving: Proving) -> None:
    raw = load.stream("full-p")
    proving.zfs.dataset(facts_of(raw).dataset)
    made = proving.desk.keep(raw)
    assert made.flags == "p"
    proving.has(raw)
    target = f"{made.dataset}@{made.snapshot}"
    for own, changed in ((raw, False), (with_other_properties(raw), True)):
        proving.zfs.sends(own, "-p", target)
        (found,) = await proving.prove()
        assert (found.result, found.properties) == ("same", changed)
        assert ("properties (-p) have changed" in found.line()) == changed
    damaged = bytearray(raw)
    damaged[-1000] ^= 1
    proving.zfs.sends(bytes(damaged), "-p", target)
    (found,) = await proving.prove()
    assert found.result == "different"
    assert "properties" not in found.line()


async def test_streams_are_sent_with_the_flags_of_what_is_stored(proving: Proving) -> None:
    proving.desk.keep(FULL, flags="Lecw")
    proving.has(FULL)
    proving.zfs.sends(FULL, "-L", "-e", "-c", "-w", f"{HOME}@{snapshot(FULL)}")
    assert results(await proving.prove()) == ["same"]


async def test_what_this_host_cannot_make_again(proving: Proving) -> None:
    proving.has(FULL)
    proving.zfs.sends(FULL, f"{HOME}@{snapshot(FULL)}")
    proving.desk.keep(FULL, flags="Lr01234567")
    # A feature more in BEGIN, as of a pool that used it then.
    featured = bytearray(FULL)
    featured[16 + 3] ^= 1 << 3  # bit 27 of versioninfo: ZSTD
    proving.desk.keep(bytes(featured), file="featured")
    proving.desk.stored.append((merged_entry(FULL, file="long", flags="p"), b""))
    proving.desk.stored.append((merged_entry(FULL, file="strange"), b""))
    proving.desk.answers["strange"] = messages.Proven(result="gone", why="")
    found = await proving.prove()
    assert [each.result for each in found] == ["impossible"] * 4
    assert [each.why for each in found] == [
        "it is a redacted stream",
        "this host sends it with other features now (ZSTD): its pool has changed",
        "it has properties (-p), and they are too long to be compared",
        "the receiver has merged it, or pruned it, meanwhile",
    ]


async def test_failures_are_of_one_stream(proving: Proving) -> None:
    proving.has(FULL, ONE, TWO)
    base = ("-i", f"{HOME}@{snapshot(FULL)}")
    proving.desk.keep(FULL)  # which `zfs send` does not know
    proving.desk.keep(ONE)
    proving.zfs.sends(ONE, *base, f"{HOME}@{snapshot(ONE)}", fails=True)
    made = proving.desk.keep(TWO)
    proving.zfs.sends(TWO, "-i", f"{HOME}@{snapshot(ONE)}", f"{HOME}@{snapshot(TWO)}")
    proving.desk.answers[made.file] = messages.Proven(result="unknown", why="the receiver's copy is damaged (chunk 1)")
    found = await proving.prove()
    assert [each.result for each in found] == ["failed"] * 3
    assert all(each.is_wrong for each in found)
    assert "dataset does not exist" in found[0].why
    assert "Input/output error" in found[1].why
    assert found[2].line() == (f"{HOME}@{snapshot(TWO)}: was not compared: the receiver's copy is damaged (chunk 1)")
    assert [each.file for each in proving.desk.proven] == [made.file]  # of a failed send no hash counts


@pytest.mark.parametrize(
    ("question", "code", "result"),
    [
        ("head?", ErrorCode.NOT_FOUND, "impossible"),
        ("head?", ErrorCode.DAMAGED, "failed"),
        ("prove", ErrorCode.SPACE, "failed"),
    ],
)
async def test_an_error_of_the_receiver_is_of_one_stream(
    proving: Proving, question: str, code: ErrorCode, result: str
) -> None:
    proving.desk.keep(FULL)
    proving.has(FULL)
    proving.zfs.sends(FULL, f"{HOME}@{snapshot(FULL)}")
    proving.desk.refuse[question] = code
    assert results(await proving.prove()) == [result]


@pytest.mark.parametrize("question", ["merged?", "head?", "prove"])
async def test_an_older_receiver_is_named(proving: Proving, question: str) -> None:
    proving.desk.keep(FULL)
    proving.has(FULL)
    proving.zfs.sends(FULL, f"{HOME}@{snapshot(FULL)}")
    proving.desk.refuse[question] = ErrorCode.PROTOCOL
    with pytest.raises(OlderReceiver, match=r"^nas is older and cannot compare what it stores with `zfs send`: update"):
        await proving.prove(retry_for=100)


async def test_other_errors_of_the_receiver_end_it(proving: Proving) -> None:
    proving.desk.keep(FULL)
    proving.has(FULL)
    proving.desk.refuse["head?"] = ErrorCode.REVOKED
    with pytest.raises(PeerError):
        await proving.prove()
    proving.desk.refuse["merged?"] = ErrorCode.STORE
    with pytest.raises(PeerError):
        await proving.prove()


async def test_a_receiver_that_is_lost_after_hours_is_waited_for(proving: Proving) -> None:
    proving.desk.keep(FULL)
    proving.has(FULL)
    proving.zfs.sends(FULL, f"{HOME}@{snapshot(FULL)}")
    proving.desk.refuse["prove"] = "lost"
    assert results(await proving.prove(retry_for=100)) == ["same"]
    proving.desk.refuse["prove"] = "lost"
    with pytest.raises(Unreachable):
        await proving.prove(retry_for=0)


async def test_named_streams_need_not_be_merged(proving: Proving) -> None:
    proving.desk.keep(FULL)
    proving.desk.keep(ONE)
    proving.has(FULL, ONE)
    proving.zfs.sends(FULL, f"{HOME}@{snapshot(FULL)}")
    proving.zfs.sends(ONE, "-i", f"{HOME}@{snapshot(FULL)}", f"{HOME}@{snapshot(ONE)}")
    assert results(await proving.prove(HOME)) == ["same", "same"]
    (found,) = await proving.prove(f"{HOME}@{snapshot(ONE)}")
    assert found.copy.snapshot == snapshot(ONE)
    for wrong in ("tank/typo", f"{HOME}@typo"):
        with pytest.raises(UsageError, match=f"no stream of {wrong} is stored, so none was compared"):
            await proving.prove(wrong)
    for wrong in ("@x", f"{HOME}@", "a@b@c", "a#b"):
        with pytest.raises(UsageError, match="is not DATASET or DATASET@SNAPSHOT"):
            await proving.prove(wrong)


async def test_a_package_is_not_made_again(proving: Proving, monkeypatch: pytest.MonkeyPatch) -> None:
    made = proving.desk.keep(FULL)
    package = entry(dataset=made.dataset, snapshot=made.snapshot, kind="package")
    monkeypatch.setattr(proving.desk, "entries", lambda _dataset: [package])
    (found,) = await proving.prove(HOME)
    assert (found.result, found.why) == ("impossible", "it is a package of several snapshots")


async def test_a_pool_that_cannot_be_listed(proving: Proving) -> None:
    proving.desk.keep(FULL)
    (proving.zfs.folder / "listing").unlink()
    with pytest.raises(ZfsError):
        await proving.prove()


async def test_a_head_that_is_none_is_the_receiver_s_fault(proving: Proving, monkeypatch: pytest.MonkeyPatch) -> None:
    proving.desk.keep(FULL)
    proving.has(FULL)
    for raw in ("AAAA", "AAA"):
        monkeypatch.setattr(proving.desk, "answer", lambda _said, raw=raw: [messages.Head(raw=raw)])
        prover = proving.prover()
        with pytest.raises(RemoteProtocolError, match="a damaged head"):
            _ = [each async for each in prover.prove(prover_copies())]


def prover_copies() -> list[Any]:
    about = facts_of(FULL)
    return [StoredCopy(HOME, about.snapshot, str(about.guid), None, "", "f", package=False)]


async def test_a_cancellation_ends_zfs_send(proving: Proving, tmp_path: Path) -> None:
    proving.desk.keep(FULL)
    proving.has(FULL)
    program = proving.zfs.folder / "zfs"
    listing = proving.zfs.folder / "listing"
    stream = tmp_path / "stream"
    stream.write_bytes(FULL)
    note = tmp_path / "note"
    program.write_text(
        f"#!/bin/sh\n[ $1 = send ] || exec cat {listing}\ncat {stream}\necho $$ >{note}.new; mv {note}.new {note}\n"
        "exec sleep 1000\n"
    )
    task = asyncio.create_task(proving.prove())
    while not note.exists():
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


async def test_a_pool_that_is_suspended_meanwhile_delays_no_other(
    proving: Proving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`zfs send` waits in the kernel then, and may not end before somebody clears the pool."""
    monkeypatch.setattr(comparing, "while_usable", functools.partial(while_usable, every=0.01))
    at = f"@{snapshot(FULL)}"
    for name in ("ext/b", "ext/c"):
        proving.desk.keep(FULL, dataset=name, file=f"{name}.zfs.zst")
        proving.zfs.dataset(name)
        proving.zfs.add(name, snapshot(FULL), str(facts_of(FULL).guid))
    proving.desk.keep(FULL)
    proving.has(FULL)
    proving.zfs.sends(FULL[: len(FULL) // 2], f"ext/b{at}", stalls=True)
    proving.zfs.sends(FULL, f"{HOME}{at}")
    proving.zfs.pool("ext", "ONLINE")

    async def suspend() -> None:
        while f"send ext/b{at}" not in proving.zfs.commands:
            await asyncio.sleep(0.01)
        proving.zfs.pool("ext", "SUSPENDED")

    suspending = asyncio.create_task(suspend())
    for _again in range(2):  # at the second time it is suspended from the start
        found = await proving.prove()
        assert results(found) == ["failed", "failed", "same"]
        for each in found[:2]:
            assert each.why.startswith("the pool is SUSPENDED, and cannot be used: see `zpool status -v ext`")
    await suspending
    commands = proving.zfs.commands
    assert [line for line in commands if line.startswith("send ext/")] == [f"send ext/b{at}"]
    # One such name would fail the listing of all.
    assert ["ext/" in line for line in commands if line.startswith("list")] == [True, False]
