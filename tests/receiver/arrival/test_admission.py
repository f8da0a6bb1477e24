from __future__ import annotations

import contextlib
import json
import signal
import zlib
from typing import TYPE_CHECKING

import pytest
from tests import streams
from tests.receiver.buckets import MemoryBucket, store_in
from tests.receiver.faulty import FaultyDisk
from tests.receiver.helpers import SENDER, plant, push_of, read_manifest, remove, store_stream
from tests.receiver.peer import chunks, control, finish
from tests.receiver.running import Receiver, serving, wait_until

from fullsend_protocol.format.manifest import Receipt
from fullsend_protocol.wire.messages import Push, Whole
from fullsend_receiver.arrival import overruns
from fullsend_receiver.arrival.admission import already_stored, committed_before, judge
from fullsend_receiver.arrival.bounds import Ratio, RoomRequest
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.catalogue.streams import NoBase
from fullsend_receiver.store.durable import locked
from fullsend_receiver.store.errors import StreamTooLarge
from fullsend_receiver.store.local import LocalStore
from fullsend_receiver.store.opened import partial_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

GUID = streams.GUID
FULL = streams.substream(streams.object_(1), streams.write(1, 0, b"full" * 1024))
INCREMENT = streams.substream(
    streams.object_(1), streams.write(1, 0, b"more" * 1024), name="tank/data@later", guid=GUID + 1, base_guid=GUID
)


def increment(flags: str | None = "", **changes: object) -> Push:
    offered = push_of(INCREMENT).model_copy(update={"keep_orphan": False, "flags": flags, **changes})
    return Push.model_validate(offered.model_dump())


# --- the judgement ----------------------------------------------------------------------------------------------


def test_stream_that_is_not_stored_is_taken(store: LocalStore) -> None:
    assert isinstance(judge(Catalogues(store), SENDER, push_of(FULL)), RoomRequest)
    assert already_stored(Catalogues(store), SENDER, push_of(FULL)) is None


def test_stream_that_is_stored_has_its_receipt(store: LocalStore) -> None:
    file = store_stream(store, SENDER, FULL)
    receipt = judge(Catalogues(store), SENDER, push_of(FULL))  # to be told so needs no room
    assert isinstance(receipt, Receipt)
    assert receipt.file == str(file)
    assert already_stored(Catalogues(store), SENDER, push_of(FULL)) == receipt
    assert isinstance(judge(Catalogues(store), "beta", push_of(FULL)), RoomRequest)
    for other in ({"guid": "5"}, {"flags": "L"}, {"snapshot": "then"}, {"dataset": "tank"}, {"base_guid": "7"}):
        assert isinstance(judge(Catalogues(store), SENDER, push_of(FULL).model_copy(update=other)), RoomRequest)
    (store.root / file).unlink()
    assert isinstance(judge(Catalogues(store), SENDER, push_of(FULL)), RoomRequest)  # to replace it
    assert already_stored(Catalogues(store), SENDER, push_of(FULL)) is None


def test_stream_that_is_too_large_for_a_bucket_is_refused_by_its_estimate(tmp_path: Path) -> None:
    catalogues = Catalogues(store_in(MemoryBucket(), tmp_path))
    offered = push_of(FULL).model_copy(update={"size_estimate": 51 << 40})
    with pytest.raises(StreamTooLarge, match=r"tank/data@now: is too large: .*a stream has 5.0 TiB here at most"):
        judge(catalogues, SENDER, offered)
    fits = offered.model_copy(update={"size_estimate": 49 << 40})
    assert isinstance(judge(catalogues, SENDER, fits), RoomRequest)
    # By what has arrived of it, it is known how it compresses.
    with pytest.raises(StreamTooLarge, match="at the ratio of what has arrived of it"):
        judge(catalogues, SENDER, fits, arrived=1 << 40, stored=1 << 39)


def test_package_is_taken_whatever_is_stored(store: LocalStore) -> None:
    store_stream(store, SENDER, FULL)
    unknown = {"guid": None, "base_guid": None, "flags": None, "keep_orphan": False}
    package = push_of(FULL).model_copy(update=unknown)
    assert isinstance(judge(Catalogues(store), SENDER, package), RoomRequest)
    assert already_stored(Catalogues(store), SENDER, package) is None


def test_orphan_is_taken_only_where_that_is_wanted(store: LocalStore) -> None:
    with pytest.raises(NoBase) as caught:
        judge(Catalogues(store), SENDER, increment())
    assert str(caught.value) == f"tank/data@later: its base guid:{GUID} is not stored: send a full"
    assert isinstance(judge(Catalogues(store), SENDER, increment(keep_orphan=True)), RoomRequest)
    plant(store, "now", GUID, sender="beta")
    with pytest.raises(NoBase):
        judge(Catalogues(store), SENDER, increment())
    plant(store, "now", GUID)
    assert isinstance(judge(Catalogues(store), SENDER, increment()), RoomRequest)


@pytest.mark.parametrize(
    ("base", "stream_class", "flags", "good"),
    [
        ("", "plain", "Lecp", True),
        ("L", "plain", "L", True),
        ("L", "plain", "", False),
        ("w", "raw", "w", True),
        ("w", "raw", "", False),
        ("", "plain", "w", False),
        ("r01234567", "redacted", "r89abcdef", True),
        ("wr01234567", "redacted", "wr89abcdef", True),
        ("wr01234567", "redacted", "w", False),
        ("L", "plain", None, True),
        ("w", "raw", None, True),
    ],
)
def test_base_must_be_one_that_the_offered_flags_can_follow(
    store: LocalStore, base: str, stream_class: str, flags: str | None, good: bool
) -> None:
    plant(store, "now", GUID, flags=base, stream_class=stream_class)
    with contextlib.nullcontext() if good else pytest.raises(NoBase, match="which it cannot follow"):
        assert isinstance(judge(Catalogues(store), SENDER, increment(flags)), RoomRequest)


@pytest.mark.parametrize("harm", ["data", "base"])
def test_base_must_be_restorable(store: LocalStore, harm: str) -> None:
    first = plant(store, "first", 7)
    file = plant(store, "now", GUID, 7)
    assert isinstance(judge(Catalogues(store), SENDER, increment()), RoomRequest)
    (store.root / (file if harm == "data" else first)).unlink()
    with pytest.raises(
        NoBase, match=rf"guid:{GUID} is stored, but not restorable: .* is damaged \(the file is missing"
    ):
        judge(Catalogues(store), SENDER, increment())


def test_what_has_arrived_needs_no_room_again(store: LocalStore) -> None:
    offered = push_of(FULL).model_copy(update={"size_estimate": 100 << 20})
    whose: dict[str, Any] = {"sender": SENDER, "key": partial_key(SENDER, offered)}
    name = "tank/data@now"
    assert judge(Catalogues(store), SENDER, offered) == RoomRequest(name, 100 << 20, **whose)
    assert judge(Catalogues(store), SENDER, offered, arrived=1 << 20, stored=1 << 19) == RoomRequest(
        name, 99 << 20, before=1 << 19, **whose
    )
    # After a while its own ratio tells how the rest will compress.
    own = Ratio(8 << 20, 64 << 20, "of what has arrived of it")
    assert judge(Catalogues(store), SENDER, offered, arrived=64 << 20, stored=8 << 20) == RoomRequest(
        name, 36 << 20, own, 8 << 20, **whose
    )
    # An estimate that was too low.
    found = judge(Catalogues(store), SENDER, offered, arrived=200 << 20, stored=1)
    assert isinstance(found, RoomRequest)
    assert found.raw == 0
    assert judge(Catalogues(store), SENDER, push_of(FULL)) == RoomRequest(name, **whose)


def test_ratio_is_that_of_the_newest_streams_of_its_kind(store: LocalStore) -> None:
    def wanted(offered: Push) -> tuple[int, int] | None:
        found = judge(Catalogues(store), SENDER, offered.model_copy(update={"keep_orphan": True}))
        assert isinstance(found, RoomRequest)
        return None if found.ratio is None else (found.ratio.stored, found.ratio.raw)

    plant(store, "other", 5, sender="beta", raw_bytes=7)
    plant(store, "other", 6, dataset="tank", raw_bytes=7)
    assert wanted(push_of(FULL)) is None
    plant(store, "old", 7, raw_bytes=1000, stored_bytes=700)
    assert wanted(increment()) == (700, 1000)
    plant(store, "raw", 8, raw_bytes=9999, stored_bytes=9999, flags="w", stream_class="raw")
    plant(store, "tiny", 9, 7, raw_bytes=10, stored_bytes=500)
    assert wanted(push_of(FULL)) == (700, 1000)
    assert wanted(increment()) == (10, 10)  # never more than its raw bytes
    for number in range(10):
        received = f"2026-11-25T00:00:{number:02}Z"
        plant(store, f"s{number}", 20 + number, 7, raw_bytes=1000, stored_bytes=200, received=received)
    assert wanted(increment()) == (2000, 10000)
    assert wanted(increment("w")) == (9999, 9999)


def test_stream_that_had_too_little_room_is_judged_by_that(store: LocalStore) -> None:
    plant(store, "old", 7, raw_bytes=1000, stored_bytes=100)
    offered = push_of(FULL).model_copy(update={"size_estimate": 5000})
    overruns.note(store, SENDER, offered, overruns.OverrunRecord(raw=4000, stored=3000))
    ratio = Ratio(3000, 4000, "of the last try, which had too little room")
    assert judge(Catalogues(store), SENDER, offered) == RoomRequest(
        "tank/data@now", 5000, ratio, failed_at=3000, sender=SENDER, key=partial_key(SENDER, offered)
    )
    found = judge(Catalogues(store), "beta", offered)
    assert isinstance(found, RoomRequest)
    assert found.ratio is None


@pytest.mark.parametrize("raw", [FULL, streams.package(FULL, INCREMENT, name="tank/data@later")])
def test_what_was_sent_whole_is_known_again_by_what_it_turned_out_to_be(store: LocalStore, raw: bytes) -> None:
    push = push_of(raw)
    assert committed_before(Catalogues(store), SENDER, push) is None
    file = store_stream(store, SENDER, raw)
    about = read_manifest(store, file)
    assert about.base_guid is None
    whole = Whole(guid=about.guid, base_guid=about.base_guid, flags=about.flags, raw_bytes=about.raw_bytes)
    receipt = committed_before(Catalogues(store), SENDER, push.model_copy(update={"whole": whole}))
    assert receipt is not None
    assert (receipt.file, receipt.segments) == (str(file), about.segments)
    assert committed_before(Catalogues(store), SENDER, push) is None  # who does not ask is told nothing
    assert committed_before(Catalogues(store), "beta", push.model_copy(update={"whole": whole})) is None
    for change in ({"guid": "5"}, {"base_guid": "5"}, {"flags": "L"}, {"raw_bytes": 1}):
        other = push.model_copy(update={"whole": whole.model_copy(update=change)})
        assert committed_before(Catalogues(store), SENDER, other) is None
    for name in ({"snapshot": "then"}, {"dataset": "tank"}):
        assert committed_before(Catalogues(store), SENDER, push.model_copy(update={"whole": whole, **name})) is None
    (store.root / file).unlink()
    assert committed_before(Catalogues(store), SENDER, push.model_copy(update={"whole": whole})) is None


# --- over the wire ----------------------------------------------------------------------------------------------


def said(push: Push) -> dict[str, Any]:
    return {"type": "push", **push.model_dump()}


def partials(receiver: Receiver) -> list[str]:
    return sorted(path.name for path in (receiver.store / ".partial").iterdir())


def test_increment_without_base_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with serving(tmp_path / "receiver", SENDER) as receiver:
        with receiver.peer() as peer:
            peer.write(control(said(increment())))
            assert peer.refusal() == f"base: tank/data@later: its base guid:{GUID} is not stored: send a full"
        assert partials(receiver) == []
        with receiver.peer() as peer:
            peer.give(FULL, said(push_of(FULL)))
            receipt = peer.give(INCREMENT, said(increment()))
            assert receipt["restorable"]
            assert receipt["base"] == "tank/data@now"
            peer.write(control(said(increment())))
            assert peer.hear("stored")["receipt"] == receipt
        assert partials(receiver) == []


def test_base_that_is_lost_meanwhile_is_noticed_at_the_end(tmp_path: Path) -> None:
    with serving(tmp_path / "receiver", SENDER) as receiver, receiver.peer() as peer:
        peer.give(FULL, said(push_of(FULL)))
        (base,) = receiver.store.glob("alpha/tank/data/@now*.zst")
        peer.push(said(increment()))
        for chunk in chunks([INCREMENT]):
            peer.write(chunk.encode())
        base.unlink()
        peer.write(control(finish(INCREMENT)))
        assert peer.refusal() == (
            f"base: tank/data@later: its base guid:{GUID} is stored, but not restorable:"
            f" {base.relative_to(receiver.store)} is damaged (the file is missing, or not as long as it was): send a"
            " full"
        )
        assert partials(receiver) == []
        assert not list(receiver.store.glob("alpha/tank/data/@later*"))


@contextlib.contextmanager
def on_faulty_disk(folder: Path) -> Iterator[tuple[Receiver, FaultyDisk]]:
    receiver = Receiver(folder / "receiver")
    receiver.init()
    disk = FaultyDisk(folder / "faults")
    receiver.start(program=disk.program, env=disk.env)
    try:
        receiver.enrol(SENDER)
        yield receiver, disk
        assert receiver.stop() == 0
        receiver.check_log()
    finally:
        if receiver.process is not None:
            receiver.stop(signal.SIGKILL)


def test_base_is_looked_for_when_the_journal_stands_that_leases_it(tmp_path: Path) -> None:
    """Who deletes reads the journals first: what it did before is seen here, what it does later sees the journal."""
    with on_faulty_disk(tmp_path) as (receiver, disk):
        with receiver.peer() as peer:
            file = peer.give(FULL, said(push_of(FULL)))["file"]
            peer.push(said(increment()))
            (journal,) = (receiver.store / ".partial").glob("*.journal")
            crc, _, body = journal.read_bytes().rstrip(b"\n").partition(b" ")
            assert int(crc, 16) == zlib.crc32(body)
            lease = json.loads(body)["open"]
            assert (lease["sender"], lease["push"]["base_guid"]) == (SENDER, str(GUID))
            peer.say("stop", keep=True, reason="enough")
            peer.hear("stopped")
        begun = disk.begun("fdatasync", ".journal")
        with receiver.peer() as peer:
            with disk.blocked("fdatasync"):
                peer.write(control(said(increment())))
                wait_until(lambda: disk.begun("fdatasync", ".journal") > begun, "the journal is being written")
                remove(LocalStore(receiver.store), file)
            assert peer.refusal().startswith("base: ")
        assert partials(receiver) == []


def test_prune_that_has_not_seen_the_journal_is_waited_for(tmp_path: Path) -> None:
    with serving(tmp_path / "receiver", SENDER) as receiver, receiver.peer() as peer:
        file = peer.give(FULL, said(push_of(FULL)))["file"]
        with locked(LocalStore(receiver.store).lock):  # as a prune holds it that has read all journals
            peer.write(control(said(increment())))
            wait_until(lambda: bool(list((receiver.store / ".partial").glob("*.journal"))), "the journal stands")
            remove(LocalStore(receiver.store), file)
        assert peer.refusal().startswith("base: ")


def test_what_is_stored_is_said_to_be_where_not_even_a_journal_fits(tmp_path: Path) -> None:
    with on_faulty_disk(tmp_path) as (receiver, disk), receiver.peer() as peer:
        receipt = peer.give(FULL, said(push_of(FULL)))
        with disk.failing("fdatasync", ".journal", 28):
            peer.write(control(said(push_of(FULL))))
            assert peer.hear("stored")["receipt"] == receipt
            peer.write(control(said(push_of(INCREMENT))))
            assert peer.refusal().startswith("space: the store is full")
