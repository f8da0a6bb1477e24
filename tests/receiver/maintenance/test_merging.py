"""Stored streams become one: what genuine chains become, and what stops it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import random
import shutil
import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, Literal

import pytest
from tests.chains import Chain, chains
from tests.chains import named as chain_named
from tests.receiver.helpers import (
    SENDER,
    check_listed,
    checked,
    everything,
    push_of,
    read_manifest,
    store_stream,
)
from tests.receiver.powercut import Disk

from fullsend_protocol.shared.errors import UnsupportedStream
from fullsend_protocol.shared.stages import TransferCount
from fullsend_protocol.shared.units import format_time, parse_time
from fullsend_protocol.stream.merge import merge as merge_streams
from fullsend_protocol.wire.live import LiveTransfer
from fullsend_receiver.access.policies import Policy
from fullsend_receiver.arrival.expiry import find_partials
from fullsend_receiver.catalogue.pins import pin
from fullsend_receiver.catalogue.scrub_results import Scrubbed, ScrubLog
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.maintenance import merge_records
from fullsend_receiver.maintenance.merge_records import note_proof, read_merges
from fullsend_receiver.maintenance.merging import MergeAbandoned, Merged, Merger, NotMerged
from fullsend_receiver.maintenance.plans import MergeRules, PruneRules
from fullsend_receiver.maintenance.prune import Judged, Pruner
from fullsend_receiver.maintenance.prune_records import read_history, troubles
from fullsend_receiver.maintenance.trash import empty_merged, expire_trash, is_merged
from fullsend_receiver.maintenance.undelete import find_trashed, undelete
from fullsend_receiver.store.api import DiskSpace
from fullsend_receiver.store.blob import LocalBlob
from fullsend_receiver.store.local import LocalStore
from fullsend_receiver.store.opened import open_offer, partial_key
from fullsend_receiver.store.playback import checked_chunks
from fullsend_receiver.store.uploads import LocalUpload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.receiver.crash import Crasher

    from fullsend_protocol.stream.checksums import Piece
    from fullsend_protocol.stream.merge import MergeInput

DAY: Final = 86400.0
#: Later than any stream of a test.
NOW: Final = parse_time("2039-01-01T00:00:00Z") or 0.0
#: Keeps the two newest snapshots of a dataset, which nothing touches.
POLICY: Final = Policy(last=0, minimum_count=0, minimum_age=0)


#: Of some 300 KB.
SMALL: Final = chain_named("t1-vol-ec")


def keep(store: LocalStore, chain: Chain, to: int | None = None) -> list[PurePosixPath]:
    """Store a chain, to its last snapshot unless `to` says otherwise."""
    last = chain.snapshots - 1 if to is None else to
    return [store_stream(store, SENDER, raw) for _name, raw in chain.run(None, last)]


def rules(rebase_after: float = 0.0, mode: Literal["on", "prove-first"] = "on", **more: Any) -> PruneRules:
    merging_rules = MergeRules(mode=mode, rebase_after=rebase_after, rate=0, warn_at=1.0)
    return PruneRules(lambda _sender, _dataset: POLICY, merging=merging_rules, **more)


def merge(store: LocalStore, rebase_after: float = 0.0, *, now: float = NOW, **more: Any) -> list[Any]:
    return list(Merger(Catalogues(store), rules(rebase_after, **more), now).merge(SENDER))


def raw_of(store: LocalStore, file: PurePosixPath) -> bytes:
    return b"".join(chunk.raw for chunk in checked_chunks(store, file))  # type: ignore[union-attr]


def sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def restorable(store: LocalStore) -> list[str]:
    catalogue = read_catalogue(store)
    assert catalogue.problems == []
    return sorted(stored.summary.snapshot for stored in catalogue.streams if catalogue.restorable(stored))


def visible(store: LocalStore) -> dict[str, bytes | None]:
    """Return all that is stored, without the store's own notes."""
    return {name: data for name, data in everything(store.root).items() if not name.startswith(".state")}


@pytest.mark.parametrize("chain", chains(), ids=lambda chain: chain.name)
def test_the_full_moves_to_what_zfs_send_would_give(chain: Chain, store: LocalStore) -> None:
    files = keep(store, chain)
    before = read_manifest(store, files[-3])
    events = merge(store, undelete_merged=0.0)
    (done,) = events
    assert isinstance(done, Merged)
    to = chain.snapshots - 3
    assert sha256(raw_of(store, done.file)) == chain.genuine(None, to)
    assert check_listed(store) == [str(done.file), *map(str, files[-2:])]
    assert len(restorable(store)) == 3
    said = read_manifest(store, done.file)
    assert (said.kind, said.base_guid, said.proven_by) == ("full", None, "merge")
    assert (said.guid, said.snapshot, said.received) == (before.guid, before.snapshot, before.received)
    assert (said.sequence, said.begun, said.created) == (before.sequence, before.begun, before.created)
    raws = [sha256(raw) for _name, raw in chain.run(None, to)]
    assert [(each.file, each.sha256) for each in said.merged] == list(zip(map(str, files[:-2]), raws, strict=True))
    for stored in read_catalogue(store).streams:
        assert checked(store, stored).damage == ()
    assert list(store.partial.iterdir()) == []
    assert [each.reason for each in read_history(store.documents)] == [f"merge: into {done.file.name}"] * (to + 1)
    assert merge(store) == []


def test_only_increments_merge_while_the_full_is_large(store: LocalStore) -> None:
    chain = chain_named("t2-enc2-w")
    files = keep(store, chain)
    (done,) = merge(store, 1e9)
    assert sha256(raw_of(store, done.file)) == chain.genuine(0, 3)
    assert read_manifest(store, done.file).kind == "incremental"
    assert check_listed(store) == [str(files[0]), str(done.file), *map(str, files[-2:])]
    assert len(restorable(store)) == 4
    assert done.freed == sum(each.stored_bytes for each in done.merge.inputs) - done.stored_bytes


def test_a_chain_that_grows_keeps_one_full_and_each_state_is_genuine(store: LocalStore) -> None:
    chain = chain_named("t2-enc2-w")
    for to, (_name, raw) in enumerate(chain.run(None, chain.snapshots - 1)):
        store_stream(store, SENDER, raw)
        merge(store, undelete_merged=0.0)
        fulls = [each for each in read_catalogue(store).streams if each.summary.kind == "full"]
        (full,) = fulls
        assert full.summary.sha256 == chain.genuine(None, max(0, to - 2))
        assert len(restorable(store)) == min(to + 1, 3)


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_damage_in_an_input_is_named_and_nothing_changes(store: LocalStore, number: int) -> None:
    files = keep(store, chain_named("t2-enc2-w"))
    path = store.root / files[number]
    data = bytearray(path.read_bytes())
    draw = random.Random(number)
    results = store.state / "scrub"
    for at in (draw.randrange(0, len(data) - 400) for _ in range(6)):
        broken = bytearray(data)
        broken[at] ^= 1 << draw.randrange(8)
        path.write_bytes(broken)
        before = visible(store)
        (event,) = merge(store)
        (known,) = read_catalogue(store).damaged()
        assert known.file == files[number]
        (line,) = (each for each in troubles(store, None, now=NOW, since=NOW) if each.startswith("merge: "))
        assert line.endswith(f": {event.why}")
        assert [each for each in merge(store) if each.failed] == []  # it is known to be damaged
        assert read_merges(store.documents, SENDER).failed == []
        shutil.rmtree(results)
        (store.state / "scrub.jsonl").unlink(missing_ok=True)
        assert isinstance(event, NotMerged)
        assert event.failed
        assert event.why.startswith(f"{files[number]}: ")
        assert visible(store) == before
    path.write_bytes(data)
    assert isinstance(merge(store)[0], Merged)


def test_another_whole_stream_under_an_input_s_name_is_not_taken(store: LocalStore, tmp_path: Path) -> None:
    """Its index and its checksums are right, and its bytes are not those that were proven."""
    chain = chain_named("t2-enc2-w")
    files = keep(store, chain)
    other = LocalStore(tmp_path / "other")
    shutil.copytree(store.root, other.root)
    raw = bytearray(chain.run(None, 1)[1][1])
    name = raw.index(b"secret") if b"secret" in raw else len(raw) - 2000
    raw[name] ^= 1
    shutil.rmtree(other.root / SENDER)
    with pytest.raises(AssertionError):
        assert store_stream(other, SENDER, bytes(raw)) != files[1]
    shutil.copy(other.root / files[1], store.root / files[1])
    before = visible(store)
    (event,) = merge(store)
    assert event.failed
    assert f"{files[1]}: the SHA-256 of its first {len(raw)} raw bytes is not the manifest's" == event.why
    assert visible(store) == before


@contextlib.contextmanager
def amid(act: Callable[[], None]) -> Iterator[None]:
    """Act once, when a merge has written its first bytes."""
    real = LocalUpload.append
    todo = [act]

    def append(upload: LocalUpload, data: bytes) -> None:
        real(upload, data)
        if todo:
            todo.pop()()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalUpload, "append", append)
        yield
    assert not todo


def overtaking(store: LocalStore, act: Callable[[], None]) -> list[Any]:
    """Merge, and act amid it."""
    with amid(act):
        return merge(store)


def test_what_is_pinned_meanwhile_stays(store: LocalStore) -> None:
    files = keep(store, chain_named("t1-plain"))
    (event,) = overtaking(store, lambda: pin(store.documents, [files[0]], now=NOW))
    assert (event.failed, event.why) == (False, "what was to be merged has changed meanwhile, or is needed")
    assert check_listed(store) == [*map(str, files)]
    assert list(store.partial.iterdir()) == []


def test_what_a_reader_reads_meanwhile_stays(store: LocalStore) -> None:
    files = keep(store, chain_named("t1-plain"))
    hold = store.hold()
    (event,) = overtaking(store, lambda: hold.add(files[0]))
    assert not event.failed
    assert check_listed(store) == [*map(str, files)]
    hold.close()


def test_what_a_push_builds_on_meanwhile_stays(store: LocalStore) -> None:
    chain = chain_named("t1-plain")
    files = keep(store, chain)
    offer = push_of(chain.run(0, 1)[0][1]).model_copy(update={"snapshot": "other", "guid": "77"})

    def begin() -> None:
        store.begin(partial_key(SENDER, offer), open_offer(SENDER, offer)).close(keep=True)

    (event,) = overtaking(store, begin)
    assert not event.failed
    assert check_listed(store) == [*map(str, files)]


def test_its_own_partial_is_nobody_s(store: LocalStore) -> None:
    keep(store, chain_named("t1-plain"))
    seen: list[Any] = []
    overtaking(store, lambda: seen.extend([len(list(store.partial.iterdir())), [*find_partials(store, None)]]))
    assert seen == [2, []]


def test_without_room_nothing_is_merged(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    files = keep(store, chain_named("t1-plain"))
    monkeypatch.setattr(LocalStore, "space", lambda _self: DiskSpace((1 << 30) + 1, 1 << 40))
    (event,) = merge(store)
    assert not event.failed
    assert event.why.startswith("there is no room for the result: ")
    assert check_listed(store) == [*map(str, files)]


def test_what_cannot_be_merged_is_not_tried_again(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run of several, the two that cannot be merged are found."""
    files = [*map(str, keep(store, chain_named("t2-enc2-w")))]

    def refusing(inputs: Sequence[MergeInput]) -> Iterator[Piece]:
        if files[2] in [each.name for each in inputs[1:]]:
            raise UnsupportedStream(f"{files[2]}: redacted")
        return merge_streams(inputs)

    monkeypatch.setattr("fullsend_receiver.maintenance.merging.merge", refusing)
    events = merge(store)
    done = [(type(event), [each.snapshot for each in event.merge.inputs]) for event in events]
    assert done == [
        (NotMerged, ["s0", "s1", "s2", "s3"]),
        (Merged, ["s0", "s1"]),
        (NotMerged, ["s1", "s2", "s3"]),
        (NotMerged, ["s1", "s2"]),
        (Merged, ["s2", "s3"]),
        (Merged, ["s1", "s3"]),
    ]
    assert not any(event.failed for event in events if isinstance(event, NotMerged))
    (pair,) = read_merges(store.documents, SENDER).reasons()
    assert pair[1] == files[2]


def test_a_refusal_holds_until_the_program_is_another_one(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(_inputs: Sequence[MergeInput]) -> Iterator[Piece]:
        raise UnsupportedStream("redacted")

    keep(store, chain_named("t1-plain"))
    with monkeypatch.context() as patched:
        patched.setattr("fullsend_receiver.maintenance.merging.merge", refusing)
        (event,) = merge(store)
        assert (event.why, event.failed) == ("redacted", False)
        assert merge(store) == []
    assert merge(store) == []
    monkeypatch.setattr(merge_records, "PROGRAM", "fullsendd 99")
    assert isinstance(merge(store)[0], Merged)


def test_inputs_wait_in_the_trash_and_come_back(store: LocalStore) -> None:
    files = keep(store, chain_named("t1-plain"))
    (done,) = merge(store)
    trashed = [each.place.file for each in find_trashed(store)]
    assert sorted(trashed) == sorted(files[:2])
    assert expire_trash(store, 1 * DAY, NOW + 5 * DAY, undelete_merged=7 * DAY) == []
    back = undelete(store, SENDER, read_manifest(store, done.file).dataset, None, stored=[], now=NOW)
    assert sorted(back.back) == sorted(files[:2])
    assert check_listed(store) == sorted([*map(str, files), str(done.file)], key=check_listed(store).index)
    assert merge(store) == []  # they are pinned, and there are two of one snapshot
    assert len(restorable(store)) == 5
    later = NOW + 8 * DAY
    gone = [each for each in Pruner(store, rules(), later).prune(SENDER) if isinstance(each, Judged) and each.dropped]
    assert {each.decision.reason for each in gone} == {f"drop: merged into {done.file}"}
    assert check_listed(store) == [str(done.file), *map(str, files[2:])]


def test_the_trash_of_merges_has_its_own_time_and_goes_for_room(store: LocalStore) -> None:
    keep(store, chain_named("t1-plain"))
    merge(store)
    size = sum(each.size for each in store.trashed())
    assert empty_merged(store) == size > 0
    assert [*store.trashed()] == []
    keep_more = chain_named("t2-enc2-w")
    keep(store, keep_more)
    merge(store)
    assert len(expire_trash(store, 0.0, NOW + 7 * DAY, undelete_merged=7 * DAY)) == 1


def test_a_nearly_full_disk_has_no_trash(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(store, chain_named("t1-plain"))
    monkeypatch.setattr(MergeRules, "is_disk_wanted", lambda _self, _store: True)
    (done,) = merge(store, 1e9)
    assert done.merge.moves_full
    assert [*store.trashed()] == []


def test_two_at_once_are_one(store: LocalStore) -> None:
    with store.alone("merge") as first, store.alone("merge") as second:
        assert (first, second) == (True, False)
    with store.alone("merge") as again:
        assert again


def either(store: LocalStore, inputs: list[str], result: str) -> bool:
    """Check that there are the inputs, or the result, and nothing else. Returns: whether it is the result."""
    there = check_listed(store)
    assert there in (inputs, [result, *inputs[-2:]]), there
    assert read_catalogue(store).problems == []
    return result in there


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("undelete", ["0", "86400"])
def test_kill_at_any_step_leaves_the_inputs_or_the_result(
    store: LocalStore, swift_path: Path, crasher: Crasher, undelete: str
) -> None:
    inputs = [str(file) for file in keep(store, SMALL)]
    whole = LocalStore(swift_path / "whole")
    shutil.copytree(store.root, whole.root)
    (done,) = merge(whole)
    result = str(done.file)
    ends = set()
    calls = set()
    for at in itertools.count(1):
        left = LocalStore(swift_path / str(at))
        shutil.copytree(store.root, left.root)
        outcome = crasher.run("merge_all", left.root, str(NOW), undelete, at=at)
        calls.add(outcome.call)
        assert set(restorable(left)) >= set(restorable(whole))  # also before the next start

        if at % 3:
            left.recover()
        else:
            left.recover_merges()  # the daemon has not ended
        ends.add(either(left, inputs, result))
        assert list(left.partial.iterdir()) == []
        if at % 4 == 0:  # the next one ends what is left to do
            assert not crasher.run("merge_all", left.root, str(NOW), undelete).killed
            assert either(left, inputs, result)
        shutil.rmtree(left.root)
        if not outcome.killed:
            break
    assert ends == {True, False}
    assert {"fsync", "write", "rename", "unlink"} <= calls


@pytest.mark.timeout(900)
@pytest.mark.parametrize("undelete", [0.0, DAY])
def test_power_cut_at_any_step_leaves_the_inputs_or_the_result(
    store: LocalStore, swift_path: Path, undelete: float
) -> None:
    inputs = [str(file) for file in keep(store, SMALL)]
    whole = LocalStore(swift_path / "whole")
    shutil.copytree(store.root, whole.root)
    (done,) = merge(whole)
    ends = set()
    number = itertools.count()

    def cut(disk: Disk) -> None:
        for seed in (None, disk.steps):
            left = LocalStore(swift_path / f"cut{next(number)}")
            disk.leave(left.root, seed=seed)
            left.recover()
            ends.add(either(left, inputs, str(done.file)))
            shutil.rmtree(left.root)

    with Disk(store.root, cut):
        merge(store, undelete_merged=undelete)
    assert either(store, inputs, str(done.file))
    assert ends == {True, False}


def test_times_are_those_of_the_last_input_and_no_old_check_counts(store: LocalStore, tmp_path: Path) -> None:
    """A result may have the name of an earlier file, of which a check is known."""
    chain = chain_named("t1-plain")
    files = keep(store, chain)
    last = read_manifest(store, files[1])
    at = parse_time(last.received)
    assert at is not None
    whole = LocalStore(tmp_path / "whole")
    shutil.copytree(store.root, whole.root)
    (done,) = merge(whole)
    assert read_manifest(whole, done.file).received == last.received
    ScrubLog(store).add(Scrubbed(str(done.file), last.received, last.received, ("chunk 0",), None))
    (done,) = merge(store)
    assert read_manifest(store, done.file).received == format_time(at + 1)
    assert len(restorable(store)) == 3


def test_a_merge_that_is_abandoned_leaves_nothing(store: LocalStore) -> None:
    files = keep(store, chain_named("t1-plain"))
    merger = Merger(Catalogues(store), rules(), NOW)
    merger.abandon()
    with pytest.raises(MergeAbandoned):
        list(merger.merge(SENDER))
    merger = Merger(Catalogues(store), rules(), NOW)
    with amid(merger.abandon), pytest.raises(MergeAbandoned):
        list(merger.merge(SENDER))
    assert check_listed(store) == [*map(str, files)]
    assert list(store.partial.iterdir()) == []


def test_a_full_disk_amid_a_merge_leaves_the_inputs(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    files = keep(store, chain_named("t1-plain"))

    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(LocalUpload, "append", full)
    (event,) = merge(store)
    assert (event.failed, event.why) == (False, "there is no room for the result: No space left on device")
    assert check_listed(store) == [*map(str, files)]
    assert list(store.partial.iterdir()) == []


def test_what_reads_back_otherwise_is_not_published(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    files = keep(store, chain_named("t1-plain"))
    real = LocalUpload.sealed

    def spoilt(upload: LocalUpload) -> LocalBlob:
        path = store.partial / f"{upload.key}.data"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        return real(upload)

    monkeypatch.setattr(LocalUpload, "sealed", spoilt)
    (event,) = merge(store)
    assert event.failed
    assert "what was written reads back otherwise" in event.why
    assert check_listed(store) == [*map(str, files)]


# --- prove first --------------------------------------------------------------------------------------------------


def prune(store: LocalStore, now: float, **more: Any) -> list[Judged]:
    events = Pruner(store, rules(**more), now).prune(SENDER)
    return [each for each in events if isinstance(each, Judged)]


def test_inputs_stay_until_the_result_is_proven(store: LocalStore) -> None:
    files = [*map(str, keep(store, SMALL))]
    (done,) = merge(store, mode="prove-first")
    assert done.waits
    result = str(done.file)
    assert sorted(check_listed(store)) == sorted([*files, result])
    assert merge(store, mode="prove-first") == []
    for judged in prune(store, NOW, mode="prove-first"):
        waits = judged.decision.stream.path in {result, *files[:2]}
        assert (judged.decision.reason == f"keep: until `fullsend prove` has proven {result}") is waits
    assert sorted(check_listed(store)) == sorted([*files, result])

    # Of another file of that name nothing is proven.
    received = read_manifest(store, done.file).received
    note_proof(store.documents, SENDER, result, received="2001-01-01T00:00:00Z", how="stream", now=NOW)
    assert not any(judged.dropped for judged in prune(store, NOW, mode="prove-first"))
    note_proof(store.documents, SENDER, result, received=received, how="stream", now=NOW)
    gone = {judged.decision.stream.path for judged in prune(store, NOW, mode="prove-first") if judged.dropped}
    assert gone == set(files[:2])
    assert check_listed(store) == [result, *files[2:]]
    (folder,) = {each.folder for each in store.trashed()}
    assert is_merged(folder)
    assert merge(store, mode="prove-first") == []


def test_without_that_mode_the_inputs_go_at_once(store: LocalStore) -> None:
    files = [*map(str, keep(store, SMALL))]
    (done,) = merge(store, mode="prove-first")
    gone = {judged.decision.stream.path for judged in prune(store, NOW) if judged.dropped}
    assert gone == set(files[:2])
    assert check_listed(store) == [str(done.file), *files[2:]]


def test_what_is_not_proven_yet_keeps_its_place_while_the_chain_grows(store: LocalStore) -> None:
    chain = chain_named("t2-enc2-w")
    for _name, raw in chain.run(None, 4):
        store_stream(store, SENDER, raw)
    merge(store, mode="prove-first")
    store_stream(store, SENDER, chain.run(4, 5)[0][1])
    before = check_listed(store)
    assert merge(store, mode="prove-first") == []
    assert not any(judged.dropped for judged in prune(store, NOW, mode="prove-first"))
    assert check_listed(store) == before
    assert len(restorable(store)) == len(before)


def test_a_merge_tells_how_far_it_is_and_what_it_takes(store: LocalStore) -> None:
    keep(store, SMALL)
    seen: list[LiveTransfer] = []

    class Looking(TransferCount):
        def add(self, raw: int, wire: int) -> None:  # type: ignore[explicit-override]
            super().add(raw, wire)
            assert merger.live is not None
            seen.append(merger.live)

    merger = Merger(
        *(Catalogues(store), rules(), NOW), count=lambda due, waits: Looking(time.monotonic(), due.stored_bytes, waits)
    )
    (done, *_others) = merger.merge(SENDER)
    assert isinstance(done, Merged)
    assert merger.live is None
    assert {(each.activity, each.peer, each.what) for each in seen[:1]} == {
        ("merge", SENDER, f"{done.merge.target.dataset}@{done.merge.target.snapshot}")
    }
    first = [each for each in seen if each.id == seen[0].id]
    assert [each.raw_bytes for each in first] == sorted(each.raw_bytes for each in first)
    assert 0 < first[-1].raw_bytes <= (first[-1].size or 0) == done.merge.stored_bytes
    assert {"input", "merge"} <= set(first[-1].waited) <= {"input", "merge", "disk", "limit"}
