from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from tests.receiver.arriving import (
    FILE,
    KEY,
    RAW,
    SHORT,
    Kept,
    cut,
    data_of,
    kept,
    second,
)
from tests.receiver.helpers import (
    SENDER,
    check_listed,
    commit_stream,
    everything,
    hash_path,
    ingest_stream,
    make_store,
    manifest_path,
    push_of,
    read_manifest,
    store_stream,
)
from tests.receiver.powercut import Disk

from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store.local import LocalStore
from fullsend_receiver.store.opened import open_offer
from fullsend_receiver.store.partials import (
    committing,
)
from fullsend_receiver.store.recovery import recover

if TYPE_CHECKING:
    from tests.receiver.crash import Crasher


def test_commit_cut_before_the_renames_is_completed_by_the_next_start(store: LocalStore, crasher: Crasher) -> None:
    cut(store, crasher, "rename", 1)
    assert not (store.root / FILE).exists()
    assert committing(store) == {FILE}
    assert not read_catalogue(store).streams
    assert recover(store) == [f"{FILE}: its commit was interrupted and is complete now"]
    assert check_listed(store) == [str(FILE)]


def test_commit_cut_between_zst_and_hash_is_completed_by_the_next_start(store: LocalStore, crasher: Crasher) -> None:
    cut(store, crasher, "rename", 2)
    assert (store.root / FILE).exists()
    assert not hash_path(store, FILE).exists()
    assert not read_catalogue(store).streams
    assert recover(store) == [f"{FILE}: its commit was interrupted and is complete now"]
    assert check_listed(store) == [str(FILE)]


def test_commit_cut_between_the_renames_is_completed_by_the_next_start(store: LocalStore, crasher: Crasher) -> None:
    cut(store, crasher, "rename", 3)
    assert (store.root / FILE).exists()
    assert hash_path(store, FILE).exists()
    assert not manifest_path(store, FILE).exists()
    assert not read_catalogue(store).streams
    assert recover(store) == [f"{FILE}: its commit was interrupted and is complete now"]
    assert check_listed(store) == [str(FILE)]


def test_commit_cut_after_the_renames_is_listed_and_cleaned_up_by_the_next_start(
    store: LocalStore, crasher: Crasher
) -> None:
    removals_at_the_start = 6  # of a partial of the same key that is not there
    cut(store, crasher, "unlink", removals_at_the_start + 1)
    assert check_listed(store) == [str(FILE)]
    assert committing(store) == {FILE}
    assert recover(store) == [f"{FILE}: its commit was interrupted and is complete now"]
    assert check_listed(store) == [str(FILE)]
    assert not list(store.partial.iterdir())


@pytest.mark.parametrize("at", [1, 2, 3])
def test_commit_that_is_under_way_is_no_problem_in_a_listing(store: LocalStore, crasher: Crasher, at: int) -> None:
    cut(store, crasher, "rename", at)
    catalogue = read_catalogue(store)
    assert (catalogue.streams, catalogue.problems) == ([], [])


@pytest.mark.parametrize("at", [1, 2, 3])
def test_commit_that_failed_in_a_running_daemon_is_completed_by_the_next_push(
    store: LocalStore, crasher: Crasher, at: int
) -> None:
    cut(store, crasher, "rename", at)
    store.begin(KEY, open_offer(SENDER, push_of(RAW))).close(keep=True)
    assert check_listed(store) == [str(FILE)]
    assert not read_catalogue(store).problems


def test_folders_that_another_stream_has_just_made_are_durable_before_the_commit(
    store: LocalStore, tmp_path: Path
) -> None:
    """They are there, but nobody has synced them yet: then our file would go with them."""
    ingest = ingest_stream(store, SENDER, SHORT)
    left = LocalStore(tmp_path / "left")
    with Disk(store.root, lambda _disk: None) as disk:
        (store.root / FILE).parent.mkdir(parents=True)
        assert commit_stream(store, SENDER, ingest, SHORT) == FILE
        disk.leave(left.root)
    assert check_listed(left) == [str(FILE)]


def test_file_without_manifest_is_never_overwritten(store: LocalStore) -> None:
    target = store.root / FILE
    target.parent.mkdir(parents=True)
    target.write_bytes(b"somebody's only copy")
    ingest = ingest_stream(store, SENDER, RAW)
    with pytest.raises(StoreError, match="exists without its manifest"):
        commit_stream(store, SENDER, ingest, RAW)
    assert target.read_bytes() == b"somebody's only copy"
    assert not manifest_path(store, FILE).exists()
    recover(store)
    assert target.read_bytes() == b"somebody's only copy"
    assert kept(store) == Kept(len(RAW), data_of(store).stat().st_size, data_of(store).read_bytes(), committing=False)


@pytest.mark.parametrize("at", [1, 2, 3])
def test_interrupted_commit_overwrites_nothing_that_came_in_between(
    store: LocalStore, crasher: Crasher, at: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Cannot be, but for a hand in the store: the daemon starts before it takes anything."""
    cut(store, crasher, "rename", at)
    target = store.root / FILE
    if target.exists():
        target.unlink()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(b"somebody's only copy")
    if at == 1:
        assert recover(store) == []
        line = f"partial {KEY}: is left to the next push of its stream, or to the next start: {FILE}: exists without"
        assert line in caplog.text
        with pytest.raises(StoreError, match="exists without its manifest"):
            store.begin(KEY, open_offer(SENDER, push_of(RAW)))
        assert data_of(store).exists()
    else:
        recover(store)  # its own data were moved; what stands there now is taken for them, and `verify` will tell
    assert target.read_bytes() == b"somebody's only copy"


def test_stream_that_was_stored_meanwhile_is_deleted_and_the_first_one_stays(store: LocalStore) -> None:
    ingest = second(store, RAW)
    sealed = ingest.partial.seal(ingest.chunks)
    store_stream(store, SENDER, RAW)
    there = {path: content for path, content in everything(store.root).items() if not path.startswith(".partial")}
    assert ingest.partial.commit(FILE, read_manifest(store, FILE)) is False
    assert sealed[0] == (store.root / FILE).stat().st_size
    assert not list(store.partial.iterdir())
    assert {path: there[path] for path in there} == {
        path: content for path, content in everything(store.root).items() if path in there
    }


def test_of_two_commits_at_once_into_one_name_exactly_one_wins(swift_path: Path) -> None:
    rounds = 20
    raw = SHORT
    for number in range(rounds):
        store = make_store(swift_path, f"store{number}")
        ingests = [ingest_stream(store, SENDER, raw), second(store, raw)]
        sealed = [ingest.partial.seal(ingest.chunks) for ingest in ingests]
        assert sealed[0] == sealed[1]
        # The manifests differ in what tells them apart: which one is in place?
        store_stream(make_store(swift_path, f"other{number}"), SENDER, raw)
        like = read_manifest(LocalStore(swift_path / f"other{number}"), FILE)
        manifests = [like.model_copy(update={"sender_program": name}) for name in ("first", "second")]
        barrier = threading.Barrier(2)

        def put(which: int) -> bool | str:
            barrier.wait()  # noqa: B023 - the threads end within this round
            try:
                return ingests[which].partial.commit(FILE, manifests[which])  # noqa: B023
            except StoreError:  # it saw the other one half-way in
                return "refused"

        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(put, (0, 1)))
        for ingest in ingests:
            ingest.partial.close(keep=True)
        assert results.count(True) == 1
        assert check_listed(store) == [str(FILE)]
        assert read_manifest(store, FILE).sender_program == ("first", "second")[results.index(True)]
        there = (store.root / FILE).stat()
        recover(store)
        assert not committing(store)
        assert (store.root / FILE).stat() == there
        assert check_listed(store) == [str(FILE)]


def test_sender_folder_on_another_file_system_is_refused_before_the_commit_begins(tmp_path: Path) -> None:
    memory = Path("/dev/shm")
    store = make_store(tmp_path)
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == store.root.stat().st_dev:
        pytest.skip("one file system is all that this machine has")
    with TemporaryDirectory(prefix="fullsend-test-", dir=memory) as elsewhere:
        (store.root / SENDER).symlink_to(elsewhere)
        ingest = ingest_stream(store, SENDER, RAW)
        with pytest.raises(StoreError, match="on another file system"):
            commit_stream(store, SENDER, ingest, RAW)
        assert not committing(store)
        assert recover(store) == [f"partial {KEY}: kept, with {len(RAW)} raw bytes"]
