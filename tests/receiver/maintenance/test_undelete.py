from __future__ import annotations

import errno
import itertools
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from tests.receiver.helpers import SENDER, check_listed, manifest_path, plant, small_stream, store_stream

from fullsend_receiver.catalogue.pins import read_pins
from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.maintenance.undelete import find_trashed, undelete
from fullsend_receiver.store import removals
from fullsend_receiver.store.local import LocalStore

if TYPE_CHECKING:
    from pathlib import Path, PurePosixPath

    from tests.receiver.crash import Crasher

NOW = 1_800_000_000.0


def chain(store: LocalStore) -> list[PurePosixPath]:
    return [plant(store, f"s{guid}", guid, guid - 1 or None) for guid in range(1, 5)]


def listed(store: LocalStore) -> list[str]:
    return [stored.summary.snapshot for stored in read_catalogue(store).streams]


def test_snapshot_comes_back_with_its_bases_and_is_pinned(store: LocalStore) -> None:
    files = chain(store)
    store.remove(lambda: files[2:][::-1], trash="20261127T000000Z-1")
    store.remove(lambda: files[:2][::-1], trash="20261128T000000Z-1")
    done = undelete(store, SENDER, "tank/data", "s3", stored=[], now=NOW)
    assert (done.back, done.taken, done.lacking) == (files[:3], [], {})
    assert listed(store) == ["s1", "s2", "s3"]
    assert set(read_pins(store.documents)) == {files[2]}
    assert [each.manifest.snapshot for each in find_trashed(store)] == ["s4"]
    assert all(map(read_catalogue(store).restorable, read_catalogue(store).streams))


def test_dataset_comes_back_as_a_whole(store: LocalStore) -> None:
    files = chain(store)
    other = plant(store, "other", 9, dataset="tank/other")
    store.remove(lambda: [*files[::-1], other], trash="20261127T000000Z-1")
    assert undelete(store, SENDER, "tank/data", None, stored=[], now=NOW).back == files
    assert set(read_pins(store.documents)) == set(files)


def test_bases_that_are_stored_stay_where_they_are(store: LocalStore) -> None:
    files = chain(store)
    store.remove(lambda: files[2:][::-1], trash="20261127T000000Z-1")
    done = undelete(store, SENDER, "tank/data", "s4", stored=["1", "2"], now=NOW)
    assert (done.back, done.lacking) == (files[2:], {})


def test_base_that_is_nowhere_is_named(store: LocalStore) -> None:
    files = chain(store)
    store.remove(lambda: files[:2][::-1])
    store.remove(lambda: files[2:][::-1], trash="20261127T000000Z-1")
    done = undelete(store, SENDER, "tank/data", "s4", stored=[], now=NOW)
    assert (done.back, done.lacking) == (files[2:], {files[2]: "2"})


def test_a_base_with_other_keys_stays_in_the_trash(store: LocalStore) -> None:
    raw: dict[str, Any] = {"stream_class": "raw", "flags": "w"}
    mine = plant(store, "s1", 1, dataset="tank/mine", ivset_guid="11", **raw)
    theirs = plant(store, "s1", 1, dataset="tank/theirs", ivset_guid="21", **raw)
    last = plant(store, "s2", 2, 1, dataset="tank/mine", ivset_guid="12", base_ivset_guid="11", **raw)
    store.remove(lambda: [last, mine, theirs], trash="20261127T000000Z-1")
    assert undelete(store, SENDER, "tank/mine", "s2", stored=[], now=NOW).back == [mine, last]


def test_of_a_stream_that_was_dropped_twice_the_last_one_comes_back(store: LocalStore) -> None:
    for number, day in enumerate(("20261127T000000Z-1", "20261128T000000Z-1")):
        file = plant(store, "s1", 1, sender_program=f"number {number}")
        store.remove(lambda: [file], trash=day)  # noqa: B023 - called at once
    undelete(store, SENDER, "tank/data", "s1", stored=[], now=NOW)
    assert store.manifest(file).sender_program == "number 1"
    plant(store, "s1", 1)
    assert undelete(store, SENDER, "tank/data", "s1", stored=[], now=NOW).taken == [file]


def test_manifest_that_cannot_be_read_stays_in_the_trash(store: LocalStore) -> None:
    file = plant(store, "s1", 1)
    manifest_path(store, file).write_bytes(b"{")
    store.remove(lambda: [file], trash="20261127T000000Z-1")
    assert list(find_trashed(store)) == []
    assert undelete(store, SENDER, "tank/data", None, stored=[], now=NOW).back == []
    assert len(list(store.trashed())) == 1


def _cut_short(store: LocalStore, monkeypatch: pytest.MonkeyPatch, file: PurePosixPath) -> None:
    """Move a stream into the trash, and die behind its manifest."""
    real = removals._move

    def move(moves: list[tuple[Path, Path]]) -> None:
        real(moves)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(removals, "_move", move)
        with pytest.raises(KeyboardInterrupt):
            store.remove(lambda: [file], trash="20261127T000000Z-1")


def test_what_a_killed_prune_had_moved_by_half_is_found(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    _cut_short(store, monkeypatch, plant(store, "s1", 1))
    assert listed(store) == []
    assert [each.manifest.snapshot for each in find_trashed(store)] == ["s1"]


def test_what_cannot_be_completed_is_told_and_the_rest_is_found(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.remove(lambda: [plant(store, "s1", 1)], trash="20261126T000000Z-1")

    def refuses(_store: LocalStore) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(LocalStore, "wait_for_removals", refuses)
    told: list[str] = []
    assert [each.manifest.snapshot for each in find_trashed(store, unread=told.append)] == ["s1"]
    assert told == ["an interrupted removal cannot be completed: Read-only file system"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kill_at_any_step_of_an_undelete_leaves_a_consistent_store(
    store: LocalStore, swift_path: Path, crasher: Crasher
) -> None:
    store.recover()
    files = [
        store_stream(store, SENDER, small_stream("tank/one", number, base))
        for number, base in ((1, None), (2, 1), (3, 2), (4, None))
    ]
    whole = check_listed(store)
    store.remove(lambda: files[2::-1], trash="20261127T000000Z-1")
    for at in itertools.count(1):
        left = LocalStore(swift_path / str(at))
        shutil.copytree(store.root, left.root)
        outcome = crasher.run("bring_back", left.root, "tank/one", at=at)
        assert read_catalogue(left).problems == []
        left.recover()
        there = check_listed(left)
        assert sorted([*there, *(str(each.place.file) for each in find_trashed(left))]) == whole
        assert not crasher.run("bring_back", left.root, "tank/one").killed
        assert check_listed(left) == whole
        # A prune leaves what has come back: it is pinned.
        crasher.run("prune", left.root, "1000000001", "0")
        assert check_listed(left) == whole
        shutil.rmtree(left.root)
        if not outcome.killed:
            break
    assert outcome.told == tuple(map(str, files[:3]))
