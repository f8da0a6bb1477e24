"""Streams in another store: what is due, what arrives there, and what stops it."""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.chains import named as chain_named
from tests.receiver.buckets import MemoryBucket, store_in
from tests.receiver.helpers import SENDER, make_store, plant, store_stream
from tests.streams import Genuine, each, whole

from fullsend_protocol.shared.settings import SizeOrShare
from fullsend_receiver.catalogue.scrub_results import Scrubbed, ScrubLog
from fullsend_receiver.catalogue.streams import StoredStream, read_catalogue
from fullsend_receiver.maintenance import copying
from fullsend_receiver.maintenance.copying import Copier, CopyAbandoned, CopyRefused, CopySpoilt, plan_copy
from fullsend_receiver.store import playback
from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store_s3.part_sizes import PartSizes

if TYPE_CHECKING:
    from pathlib import Path, PurePosixPath

    from fullsend_receiver.store.local import LocalStore

CHAIN: Final = chain_named("t1-plain")


def stored(store: Any, file: PurePosixPath | str) -> StoredStream:
    found = {each.summary.path: each for each in read_catalogue(store).streams}
    return found[str(file)]


def content(store: Any, file: PurePosixPath) -> bytes:
    with contextlib.closing(store.open(file)) as blob:
        return bytes(blob.read(0, blob.size))


def due(source: Any, target: Any, *, everything: bool = False) -> list[str]:
    plan = plan_copy(source, target, SENDER, everything=everything)
    assert plan.left_out == {}
    return [each.summary.path for each in plan.due]


def copy_all(source: Any, target: Any) -> int:
    copier, plan = Copier(source, target), plan_copy(source, target, SENDER, everything=True)
    return sum(
        copier.copy(each, plan.bases.get(each.summary.path, ()), plan.replaces.get(each.summary.path))
        for each in plan.due
    )


def push_chain(store: LocalStore, to: int = 2) -> list[PurePosixPath]:
    return [store_stream(store, SENDER, raw) for _name, raw in CHAIN.run(None, to)]


def check_same(source: Any, target: Any, file: PurePosixPath) -> None:
    assert content(target, file) == content(source, file)
    assert target.manifest(file) == source.manifest(file)
    assert target.hash_line(file) == source.hash_line(file)
    assert hashlib.sha256(content(target, file)).hexdigest() == source.manifest(file).file_sha256


# --- one stream ---------------------------------------------------------------------------------------------------


@each(lambda: [stream for stream in whole() if stream.size < 8_000_000])
def test_stream_goes_there_and_back_as_it_is(store: LocalStore, target: Any, tmp_path: Path, stream: Genuine) -> None:
    file = store_stream(store, SENDER, stream.read())
    assert Copier(store, target).copy(stored(store, file))
    check_same(store, target, file)
    back = make_store(tmp_path, "back")
    assert Copier(target, back).copy(stored(target, file))
    check_same(store, back, file)
    assert list(back.uploads(lambda _upload: None)) == []


def test_stream_that_is_there_or_gone_is_not_copied(store: LocalStore, target: Any) -> None:
    file = store_stream(store, SENDER, CHAIN.run(None, 0)[0][1])
    found = stored(store, file)
    assert Copier(store, target).copy(found)
    assert not Copier(store, target).copy(found)
    store.remove(lambda: [file])
    assert not Copier(store, target).copy(found)


def test_copy_that_was_interrupted_resumes(store: LocalStore, target: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "_BATCH", 1)
    file = store_stream(store, SENDER, chain_named("t1-plain").run(None, 0)[0][1])
    found = stored(store, file)
    size = found.summary.stored_bytes
    taken = left = 0

    def count(count: int) -> None:
        nonlocal taken, left
        taken += count
        left -= 1
        if not left:
            copier.abandon()

    while True:
        left = 2
        copier = Copier(store, target, count=count)
        try:
            assert copier.copy(found)
            break
        except CopyAbandoned:
            assert not target.has(file)
    check_same(store, target, file)
    assert taken <= size * 2
    assert list(target.uploads(lambda _upload: None)) == []


def test_damaged_source_is_not_copied(store: LocalStore, target: Any) -> None:
    file = store_stream(store, SENDER, CHAIN.run(None, 0)[0][1])
    found = stored(store, file)
    path = store.root / file
    right = path.read_bytes()
    for at in (100, len(right) // 2):
        spoilt = bytearray(right)
        spoilt[at] ^= 1
        path.write_bytes(spoilt)
        with pytest.raises(CopySpoilt, match="chunk"):
            Copier(store, target).copy(found)
        assert not target.has(file)
    path.write_bytes(right)
    assert Copier(store, target).copy(found)
    check_same(store, target, file)


def test_copy_that_is_not_what_the_manifest_says_is_not_in_place(store: LocalStore, target: Any) -> None:
    file = store_stream(store, SENDER, CHAIN.run(None, 0)[0][1])
    manifest = store.manifest_path(file)
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace(store.manifest(file).file_sha256, "00" * 32), encoding="utf-8")
    with pytest.raises(CopySpoilt, match="has other bytes than its manifest says"):
        Copier(store, target).copy(stored(store, file))
    assert not target.has(file)
    assert list(target.uploads(lambda _upload: None)) == []


def test_disk_that_changes_a_copy_is_found_out(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = make_store(tmp_path, "target")
    file = store_stream(store, SENDER, CHAIN.run(None, 0)[0][1])
    real = playback.checked_chunks_of

    def changed(blob: Any) -> Any:
        data = max(target.partial.iterdir(), key=lambda path: path.stat().st_size)
        content = bytearray(data.read_bytes())
        content[100] ^= 1
        data.write_bytes(content)
        return real(blob)

    monkeypatch.setattr(copying, "checked_chunks_of", changed)
    with pytest.raises(CopySpoilt, match="reads back otherwise"):
        Copier(store, target).copy(stored(store, file))
    assert not target.has(file)


def test_rate_is_kept(store: LocalStore, target: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = store_stream(store, SENDER, CHAIN.run(None, 0)[0][1])
    kept: list[int] = []
    copier = Copier(store, target, rate=1000)
    monkeypatch.setattr(copier._pace, "keep", lambda count, _interrupt: kept.append(count))
    assert copier.copy(stored(store, file))
    assert 0 < sum(kept) <= stored(store, file).summary.stored_bytes


def test_stream_is_not_removed_while_it_is_copied(store: LocalStore, target: Any) -> None:
    file = store_stream(store, SENDER, CHAIN.run(None, 0)[0][1])
    held: list[bool] = []
    copier = Copier(store, target, count=lambda _size: held.append(file in store.held()))
    assert copier.copy(stored(store, file))
    assert set(held) == {True}


# --- what is due --------------------------------------------------------------------------------------------------


def test_all_is_due_at_first_and_nothing_afterwards(store: LocalStore, target: Any) -> None:
    files = [str(file) for file in push_chain(store)]
    assert due(store, target) == files
    assert copy_all(store, target) == 3
    assert due(store, target) == []
    (new,) = [store_stream(store, SENDER, raw) for _name, raw in CHAIN.run(2, 3)]
    assert due(store, target) == [str(new)]
    catalogue = read_catalogue(target)
    assert all(catalogue.restorable(each) for each in catalogue.streams)


def test_what_was_pruned_there_is_not_copied_again(store: LocalStore, tmp_path: Path) -> None:
    target = make_store(tmp_path, "target")
    for one in (store, target):
        for number in range(1, 4):
            plant(one, f"s{number}", number, sequence=number, received=f"2026-11-0{number}T00:00:00Z")
    oldest = read_catalogue(target).streams[0].file
    target.remove(lambda: [oldest])
    plan = plan_copy(store, target, SENDER, everything=False)
    assert (plan.due, plan.left_out, plan.older) == ([], {}, 1)
    assert due(store, target, everything=True) == [str(oldest)]


@pytest.mark.parametrize(
    "new",
    [
        {"sequence": 1, "received": "2026-11-09T00:00:00Z"},  # the source was made anew, and counts anew
        {"sequence": None, "received": "2026-11-09T00:00:00Z"},  # its manifest was rebuilt
        {"sequence": 501, "received": "2026-01-01T00:00:00Z"},  # the clock was wrong
    ],
)
def test_stream_is_new_if_anything_says_so(store: LocalStore, tmp_path: Path, new: dict[str, Any]) -> None:
    target = make_store(tmp_path, "target")
    for one in (store, target):
        plant(one, "s1", 1, sequence=500, received="2026-11-02T00:00:00Z")
    file = plant(store, "s2", 2, **new)
    assert due(store, target) == [str(file)]


def test_stream_behind_one_that_failed_hides_nothing(store: LocalStore, target: Any) -> None:
    """An increment is there, and its base is not: the next run copies the base."""
    files = [str(file) for file in push_chain(store)]
    plan = plan_copy(store, target, SENDER, everything=False)
    for late in plan.due[1:]:
        with pytest.raises(CopyRefused, match="its base is not in the target"):
            Copier(store, target).copy(late, plan.bases[late.summary.path])
    assert Copier(store, target).copy(plan.due[1])  # as an earlier version did
    assert due(store, target) == [files[0], files[2]]
    assert copy_all(store, target) == 2
    catalogue = read_catalogue(target)
    assert all(catalogue.restorable(each) for each in catalogue.streams)


def test_base_that_was_stored_anew_comes_before_what_builds_on_it(store: LocalStore, target: Any) -> None:
    base = plant(store, "s1", 1, sequence=9, received="2026-11-09T00:00:00Z")
    increment = plant(store, "s2", 2, 1, sequence=2, received="2026-11-02T00:00:00Z")
    assert due(store, target) == [str(base), str(increment)]


def test_damaged_copy_is_replaced(store: LocalStore, target: Any) -> None:
    file = push_chain(store, 0)[0]
    copy_all(store, target)
    (copied,) = read_catalogue(target).streams
    log = ScrubLog(target)
    log.add(Scrubbed(str(file), copied.summary.received, copied.summary.received, ("chunk 0",), None))
    assert due(store, target) == [str(file)]
    assert copy_all(store, target) == 1
    assert content(target, file) == content(store, file)
    assert due(store, target) == []
    (again,) = read_catalogue(target).streams
    assert read_catalogue(target).whole(again)
    ScrubLog(store).add(Scrubbed(str(file), store.manifest(file).received, again.summary.received, ("chunk 1",), None))
    log.add(Scrubbed(str(file), again.summary.received, again.summary.received, ("chunk 0",), None))
    plan = plan_copy(store, target, SENDER, everything=True)
    assert (plan.due, list(plan.left_out)) == ([], [str(file)])


def test_copy_that_is_damaged_again_and_again_is_replaced_each_time(store: LocalStore, target: Any) -> None:
    file = push_chain(store, 0)[0]
    copy_all(store, target)
    for _time in range(3):
        (copied,) = read_catalogue(target).streams
        received = copied.summary.received
        ScrubLog(target).add(Scrubbed(str(file), received, received, ("chunk 0",), None))
        assert due(store, target) == [str(file)]
        assert copy_all(store, target) == 1
        assert due(store, target) == []
        (copied,) = read_catalogue(target).streams
        assert read_catalogue(target).whole(copied)


def test_damaged_copy_is_replaced_although_the_base_of_its_stream_is_damaged_here(
    store: LocalStore, target: Any
) -> None:
    full, increment, last = push_chain(store)
    copy_all(store, target)
    for one, file in ((store, full), (target, increment)):
        received = one.manifest(file).received
        ScrubLog(one).add(Scrubbed(str(file), received, received, ("chunk 0",), None))
    assert due(store, target) == [str(increment)]
    assert copy_all(store, target) == 1
    catalogue = read_catalogue(target)
    assert [catalogue.restorable(stored(target, file)) for file in (full, increment, last)] == [True, True, True]


def test_base_that_is_removed_there_before_its_turn_is_missed(store: LocalStore, target: Any) -> None:
    full, increment, _last = push_chain(store)
    plan = plan_copy(store, target, SENDER, everything=False)
    assert Copier(store, target).copy(stored(store, full))
    target.remove(lambda: [full])
    with pytest.raises(CopyRefused, match="its base is not in the target"):
        Copier(store, target).copy(stored(store, increment), plan.bases[str(increment)])
    assert not target.has(increment)
    assert list(target.uploads(lambda _upload: None)) == []


def test_room_of_the_target_is_kept_free(store: LocalStore, tmp_path: Path) -> None:
    target = make_store(tmp_path, "target")
    file = push_chain(store, 0)[0]
    with pytest.raises(CopyRefused, match="some must stay free"):
        Copier(store, target, keep_free=SizeOrShare(share=1.0)).copy(stored(store, file))
    assert not target.has(file)


def test_stream_that_is_too_large_for_the_target_is_refused_unread(store: LocalStore, tmp_path: Path) -> None:
    bucket = MemoryBucket()
    (tmp_path / "home").mkdir()
    target = store_in(bucket, tmp_path / "home", sizes=PartSizes(object_most=1000))
    file = store_stream(store, SENDER, CHAIN.run(None, 0)[0][1])
    with pytest.raises(CopyRefused, match="a stream has 1000 B in the target at most"):
        Copier(store, target).copy(stored(store, file))
    assert bucket.objects == {}


def test_base_that_is_missing_there_is_due_too(store: LocalStore, target: Any) -> None:
    first = plant(store, "s1", 1, sequence=1)
    second = plant(store, "s2", 2, 1, sequence=2)
    third = plant(store, "s3", 3, 2, sequence=4)
    other = make_store(store.root.parent, "there")
    plant(other, "s9", 9, sequence=3)
    assert due(store, other) == [str(first), str(second), str(third)]
    plant(other, "s2", 2, sequence=3)  # as a full, such as after a merge
    assert due(store, other) == [str(third)]
    assert due(store, target) == [str(first), str(second), str(third)]


def test_what_was_left_behind_is_due_in_the_form_that_it_has_by_now(store: LocalStore, tmp_path: Path) -> None:
    target = make_store(tmp_path, "target")
    for one in (store, target):
        plant(one, "s1", 1, sequence=1)
        plant(one, "s9", 9, sequence=9, received="2026-11-25T00:00:00Z")
    now = plant(store, "s3", 3, 1, sequence=3)  # of s2 and s3

    def plan(*again: int) -> tuple[list[str], int]:
        """Plan with these as left behind: increments that the source has no more."""
        names = [f"{SENDER}/tank/data/@s{each}.{each:016x}.from.{each - 1:016x}.zfs.zst" for each in again]
        found = plan_copy(store, target, SENDER, everything=False, again=names)
        return [each.summary.path for each in found.due], found.older

    assert plan(2, 3) == ([str(now)], 0)
    assert plan(2) == plan() == ([], 1)
    plant(target, "s3", 3, flags="L", sequence=3)
    assert plan(2, 3) == ([], 1)


def test_what_is_damaged_there_is_due_in_another_form_however_old_it_is(store: LocalStore, tmp_path: Path) -> None:
    target = make_store(tmp_path, "target")
    plant(target, "s1", 1, sequence=1)
    damaged = plant(target, "s2", 2, 1, sequence=2)
    plant(target, "s3", 3, 2, sequence=3)
    merged = plant(store, "s3", 3, sequence=3)
    for one in (store, target):
        plant(one, "s9", 9, sequence=9, received="2026-11-25T00:00:00Z")
    assert due(store, target) == []
    received = target.manifest(damaged).received
    ScrubLog(target).add(Scrubbed(str(damaged), received, received, ("chunk 0",), None))
    assert due(store, target) == [str(merged)]
    plant(target, "s3", 3, sequence=3)
    assert due(store, target) == []


def test_base_may_be_there_under_another_name_and_in_another_form(store: LocalStore, tmp_path: Path) -> None:
    """A clone: its origin was merged here, and was copied before that."""
    target = make_store(tmp_path, "target")
    plant(store, "old", 2, dataset="tank/orig")
    new = plant(store, "new", 3, 2, dataset="tank/clone")
    plant(target, "older", 1, dataset="tank/orig")
    there = plant(target, "old", 2, 1, dataset="tank/orig")
    plan = plan_copy(store, target, SENDER, everything=False)
    assert [each.file for each in plan.due] == [new]
    assert plan.bases[str(new)][0] == there
    plant(target, "old", 2, dataset="tank/orig", flags="L")  # it cannot follow that
    assert plan_copy(store, target, SENDER, everything=False).bases[str(new)][0] == there
    target.remove(lambda: [there])
    plan = plan_copy(store, target, SENDER, everything=False)
    assert [each.summary.snapshot for each in plan.due] == ["old", "new"]


def test_stream_that_cannot_be_restored_is_named(store: LocalStore, target: Any) -> None:
    plant(store, "s1", 1)
    orphan = plant(store, "s3", 3, 2)
    damaged = plant(store, "s4", 4)
    received = store.manifest(damaged).received
    ScrubLog(store).add(Scrubbed(str(damaged), received, received, ("chunk 0",), None))
    plan = plan_copy(store, target, SENDER, everything=False)
    assert plan.left_out.keys() == {str(orphan), str(damaged)}
    assert "is not stored" in plan.left_out[str(orphan)]
    assert "chunk 0" in plan.left_out[str(damaged)]
    assert len(plan.due) == 1
    assert plan.stored_bytes == plan.due[0].summary.stored_bytes


def test_another_stream_of_the_same_name_is_named(store: LocalStore, tmp_path: Path) -> None:
    target = make_store(tmp_path, "target")
    file = plant(store, "s1", 1)
    plant(target, "s1", 1, sha256="22" * 32)
    plan = plan_copy(store, target, SENDER, everything=True)
    assert plan.left_out == {str(file): "the target has another stream of this name"}
    plant(target, "s1", 1, sha256=None)
    assert plan_copy(store, target, SENDER, everything=True).left_out == {}


def test_one_dataset_alone_is_planned(store: LocalStore, target: Any) -> None:
    plant(store, "s1", 1)
    wanted = plant(store, "s1", 2, dataset="tank/other")
    plan = plan_copy(store, target, SENDER, "tank/other", everything=False)
    assert [each.file for each in plan.due] == [wanted]


def test_target_that_cannot_be_read_is_no_empty_one(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(store, "s1", 1)
    bucket = MemoryBucket()
    target = store_in(bucket, tmp_path)

    def away(_prefix: str) -> None:
        raise StoreError("no answer")

    monkeypatch.setattr(bucket, "entries", away)
    with pytest.raises(StoreError, match="no answer"):
        plan_copy(store, target, SENDER, everything=False)
