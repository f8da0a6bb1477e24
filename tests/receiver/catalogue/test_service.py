"""A daemon's catalogues: shared by all questions, read once, and never stale."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.receiver.helpers import PLANTED, SENDER, everywhere, manifest_path, plant, remove

from fullsend_receiver.catalogue import inotify, summaries
from fullsend_receiver.catalogue.holdings import Holdings
from fullsend_receiver.catalogue.scrub_results import Scrubbed, ScrubLog
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.catalogue.streams import Catalogue, Damaged, read_catalogue
from fullsend_receiver.store import objects, removals
from fullsend_receiver.store.errors import StoreMissing
from fullsend_receiver.store.local import LocalStore, make_store

if TYPE_CHECKING:
    from pathlib import PurePosixPath


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[PurePosixPath]:
    """The manifests that are opened."""
    found: list[PurePosixPath] = []
    real = objects.read_manifest

    def read(store: LocalStore, file: PurePosixPath) -> Any:
        found.append(file)
        return real(store, file)

    monkeypatch.setattr(objects, "read_manifest", read)
    return found


@pytest.fixture(params=["told", "not told"])
def settled(request: pytest.FixtureRequest, store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    """A store of which nothing has changed just now; on a disk whose changes the kernel tells, and on another."""
    monkeypatch.setattr(inotify, "_OWN", {"told": everywhere(), "not told": frozenset()}[request.param])
    for number in range(5):
        plant(store, f"s{number}", 1 + number, number or None)
    monkeypatch.setattr(summaries, "_SETTLED_NS", -(10**18))
    return store


def told(catalogue: Catalogue) -> object:
    """All that a catalogue says."""
    entries = [catalogue.entry(each) for each in catalogue.streams]
    chains = [[str(each.file) for each in catalogue.chain(stored)] for stored in catalogue.streams]
    return entries, chains, catalogue.problems


def whole(catalogues: Catalogues, sender: str = SENDER) -> Catalogue:
    """What a question is answered from that is asked now."""
    return catalogues.current(sender).whole()


def check(catalogues: Catalogues, sender: str = SENDER) -> None:
    """What is told is what the disk holds now."""
    catalogue = whole(catalogues, sender)
    assert told(catalogue) == told(read_catalogue(catalogues.store, sender))


def test_sixteen_questions_at_once_read_each_manifest_once(settled: LocalStore, reads: list[PurePosixPath]) -> None:
    catalogues = Catalogues(settled)

    async def ask_all(disk: ThreadPoolExecutor) -> list[int]:
        return await asyncio.gather(*(catalogues.ask(disk, SENDER, len) for _ in range(16)))

    with ThreadPoolExecutor(16) as disk:
        assert asyncio.run(ask_all(disk)) == [5] * 16
    assert len(reads) == 5


def test_questions_that_wait_share_one_look_at_the_disk(settled: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    real = summaries.FolderSearch.run

    def run(search: summaries.FolderSearch) -> bool:
        looks.append(1)
        return real(search)

    monkeypatch.setattr(summaries.FolderSearch, "run", run)
    catalogues = Catalogues(settled)

    async def ask_all(disk: ThreadPoolExecutor) -> None:
        held = threading.Event()
        first = asyncio.create_task(catalogues.ask(disk, SENDER, lambda _holdings: held.wait()))
        others = [asyncio.create_task(catalogues.ask(disk, SENDER, lambda _holdings: None)) for _ in range(15)]
        await asyncio.get_running_loop().run_in_executor(disk, lambda: None)  # all have asked by now
        held.set()
        await asyncio.gather(first, *others)

    with ThreadPoolExecutor(2) as disk:
        asyncio.run(ask_all(disk))
    # One for the first, one for all that have asked since that one began, at most.
    assert 1 <= len(looks) <= 2
    whole(catalogues)  # asked after the last look began: it is looked again
    assert 2 <= len(looks) <= 3


def test_another_sender_is_not_waited_for(settled: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(settled, "theirs", 77, sender="beta")
    catalogues = Catalogues(settled)
    looking, held = threading.Event(), threading.Event()
    real = summaries.FolderSearch._judge

    def judge(search: summaries.FolderSearch, orphans: list[str]) -> list[str]:
        looking.set()
        assert held.wait(60)
        return real(search, orphans)

    monkeypatch.setattr(summaries.FolderSearch, "_judge", judge)
    (settled.root / SENDER / "tank/data/@x.zfs.zst").write_bytes(PLANTED)  # without manifest, to be explained
    with ThreadPoolExecutor(1) as disk:
        mine = disk.submit(whole, catalogues)
        assert looking.wait(60)
        catalogue = whole(catalogues, "beta")
        assert [each.summary.snapshot for each in catalogue.streams] == ["theirs"]
        assert catalogues.senders() == [SENDER, "beta"]
        catalogue = whole(catalogues, "nobody")
        assert catalogue.streams == []
        held.set()
        assert len(mine.result().streams) == 5


def test_questions_about_one_sender_take_one_thread(settled: LocalStore) -> None:
    catalogues = Catalogues(settled)
    running: list[int] = []
    most = []

    def work(_holdings: Holdings) -> None:
        running.append(1)
        most.append(len(running))
        running.pop()

    async def ask_all(disk: ThreadPoolExecutor) -> None:
        held = threading.Event()
        first = asyncio.create_task(catalogues.ask(disk, SENDER, lambda _holdings: held.wait()))
        others = [asyncio.create_task(catalogues.ask(disk, SENDER, work)) for _ in range(8)]
        # Of two threads one is left for those who wait for the disk.
        assert await asyncio.get_running_loop().run_in_executor(disk, lambda: "fsync") == "fsync"
        held.set()
        await asyncio.gather(first, *others)

    with ThreadPoolExecutor(2) as disk:
        asyncio.run(ask_all(disk))
    assert most == [1] * 8


def test_what_is_stored_removed_and_damaged_meanwhile_is_seen(settled: LocalStore, reads: list[PurePosixPath]) -> None:
    catalogues = Catalogues(settled)
    check(catalogues)
    reads.clear()
    catalogue = whole(catalogues)
    first = list(catalogue.streams)
    assert reads == []  # nothing has changed
    file = plant(settled, "s5", 6, 5)
    check(catalogues)
    catalogue = whole(catalogues)
    assert len(catalogue.streams) == 6
    assert all(each in catalogue.streams for each in first)
    other = plant(settled, "new", 10, dataset="tank/other/below")
    check(catalogues)
    remove(settled, file)
    check(catalogues)
    # A base is cut short: what builds on it cannot be restored any more.
    second = first[1].file
    (settled.root / second).write_bytes(PLANTED[:-1])
    check(catalogues)
    catalogue = whole(catalogues)
    assert [catalogue.restorable(each) for each in catalogue.streams] == [True, False, False, False, False, True]
    (settled.root / second).write_bytes(PLANTED)
    # A manifest goes, and comes back as `verify` makes it: another file.
    text = manifest_path(settled, second).read_bytes()
    manifest_path(settled, second).unlink()
    check(catalogues)
    catalogue = whole(catalogues)
    (problem,) = catalogue.problems
    assert str(problem).startswith(f"{second}: has no manifest")
    manifest_path(settled, second).write_bytes(text)
    check(catalogues)
    # In place, without a change of its folder.
    path = manifest_path(settled, other)
    path.write_bytes(re.sub(rb'("raw_bytes": ?)1000', rb"\g<1>1234", path.read_bytes()))
    check(catalogues)
    catalogue = whole(catalogues)
    assert [each.summary.raw_bytes for each in catalogue.streams] == [1000] * 5 + [1234]
    for each in settled.root.joinpath(SENDER).rglob("*.zst*"):
        each.unlink()
    check(catalogues)
    catalogue = whole(catalogues)
    assert catalogue.streams == []


def test_what_checks_have_found_is_seen_from_the_daemon_and_from_a_command(settled: LocalStore) -> None:
    catalogues = Catalogues(settled)
    check(catalogues)
    catalogue = whole(catalogues)
    first, second, *_others = catalogue.streams

    def result(stored: Any) -> Scrubbed:
        return Scrubbed(stored.summary.path, stored.summary.received, "2026-12-01T00:00:00Z", ("bad",), None)

    catalogues.record(result(second))
    check(catalogues)
    catalogue = whole(catalogues)
    assert not catalogue.whole(second)
    assert catalogue.whole(first)
    ScrubLog(settled).add(result(first))  # a command beside the daemon
    check(catalogues)
    catalogue = whole(catalogues)
    assert not catalogue.whole(first)


def test_a_look_that_fails_is_not_taken_for_done(settled: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogues = Catalogues(settled)
    check(catalogues)
    file = plant(settled, "s5", 6, 5)
    os.rename(settled.root / file, settled.root / f"{file}.aside")  # and one without manifest, to be explained
    (settled.root / SENDER / "tank/data/@x.zfs.zst").write_bytes(PLANTED)
    with monkeypatch.context() as patch:
        patch.setattr(removals, "committing", lambda _store: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(OSError, match="Input/output"):
            whole(catalogues)
    check(catalogues)
    catalogue = whole(catalogues)
    assert len(catalogue.streams) == 6


def test_the_rest_of_an_answer_looks_at_nothing(settled: LocalStore, reads: list[PurePosixPath]) -> None:
    catalogues = Catalogues(settled)

    async def ask(disk: ThreadPoolExecutor) -> list[int]:
        found = [await catalogues.ask(disk, SENDER, len, begun=True)]  # nobody has asked before: it is read
        plant(settled, "s5", 6, 5)
        found.append(await catalogues.ask(disk, SENDER, len, begun=True))
        found.append(await catalogues.ask(disk, SENDER, len))
        return found

    with ThreadPoolExecutor(1) as disk:
        assert asyncio.run(ask(disk)) == [5, 5, 6]
    assert len(reads) == 6


# --- what a look costs, and what is not told --------------------------------------------------------------------


@pytest.fixture
def own(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    """A store on a disk of which the kernel tells what changes."""
    monkeypatch.setattr(inotify, "_OWN", everywhere())
    monkeypatch.setattr(summaries, "_SETTLED_NS", -(10**18))
    return store


@pytest.fixture
def stats(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files of streams that are looked at, by name."""
    seen: list[str] = []
    real = os.stat

    def stat(path: Any, **named: Any) -> os.stat_result:
        name = os.path.basename(os.fspath(path)) if not isinstance(path, int) else ""
        if name.startswith("@"):
            seen.append(name)
        return real(path, **named)

    monkeypatch.setattr(os, "stat", stat)
    return seen


def test_a_question_looks_at_no_stream_and_at_no_more_than_has_changed(own: LocalStore, stats: list[str]) -> None:
    for dataset in ("tank/a", "tank/b"):
        for number in range(20):
            plant(own, f"s{number}", 1 + number, number or None, dataset=dataset)
    catalogues = Catalogues(own)
    assert len(catalogues.current(SENDER)) == 40
    stats.clear()
    part = catalogues.current(SENDER).around(dataset="tank/a")
    assert all(part.restorable(each) for each in part.streams)
    assert stats == []
    file = plant(own, "new", 99, 20, dataset="tank/a")
    stats.clear()
    assert catalogues.current(SENDER).around(file=file).at(file) is not None
    assert set(stats) == {file.name, f"{file.name}.json"}
    assert len(stats) <= 4


def test_what_has_a_second_name_is_seen_when_all_is_looked_at_again(own: LocalStore) -> None:
    """A write by another name of a file is told to nobody."""
    file = plant(own, "s1", 1)
    catalogues = Catalogues(own)
    check(catalogues)
    other = own.root / "other"
    other.hardlink_to(own.root / file)
    check(catalogues)
    other.write_bytes(PLANTED[:-1])
    assert whole(catalogues).restorable(whole(catalogues).streams[0])
    with ThreadPoolExecutor(1) as disk:
        asyncio.run(catalogues.relook(disk))
    assert not whole(catalogues).restorable(whole(catalogues).streams[0])
    other.write_bytes(PLANTED)
    catalogues.distrust()
    assert whole(catalogues).restorable(whole(catalogues).streams[0])


def test_no_receipt_is_given_for_what_is_not_there_whatever_was_told(own: LocalStore) -> None:
    file = plant(own, "s1", 1)
    catalogues = Catalogues(own)
    other = own.root / "other"
    other.hardlink_to(own.root / file)
    part = catalogues.current(SENDER).around(file=file)
    part.receipt(part.streams[0])
    other.write_bytes(b"")
    part = catalogues.current(SENDER).around(file=file)
    with pytest.raises(Damaged, match="the file is missing, or not as long as it was"):
        part.receipt(part.streams[0])


def test_a_look_again_finds_what_a_disk_that_does_not_tell_has(settled: LocalStore) -> None:
    catalogues = Catalogues(settled)
    check(catalogues)
    with ThreadPoolExecutor(1) as disk:
        asyncio.run(catalogues.relook(disk))
    check(catalogues)


def test_a_look_again_that_fails_for_one_sender_is_done_for_the_others(
    own: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogues = Catalogues(own)
    for sender in ("alpha", "beta", "gamma"):
        file = plant(own, "s1", 1, sender=sender)
        other = own.root / f"other-{sender}"
        other.hardlink_to(own.root / file)
        check(catalogues, sender)
        other.write_bytes(b"")
    real = summaries.FolderSearch.run

    def run(self: summaries.FolderSearch) -> bool:
        if self._sender == "beta":
            raise OSError(5, "a disk that fails")
        return real(self)

    with monkeypatch.context() as patch, ThreadPoolExecutor(1) as disk:
        patch.setattr(summaries.FolderSearch, "run", run)
        with pytest.raises(OSError, match="a disk that fails"):
            asyncio.run(catalogues.relook(disk))
    for sender in ("alpha", "gamma"):
        check(catalogues, sender)


def test_a_look_again_is_at_many_small_folders_at_once(own: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look goes through the list of all folders: one for each of 3,000 took seven seconds."""
    monkeypatch.setattr(summaries, "_BATCH", 50)
    for number in range(20):
        plant(own, "s", 1 + number, dataset=f"tank/{number}")
    for number in range(60):
        plant(own, f"s{number}", 1001 + number, dataset="tank/large")
    catalogues = Catalogues(own)
    check(catalogues)
    looked: list[str] = []
    runs = 0
    real_look, real_run = summaries.FolderSearch._look, summaries.FolderSearch.run

    def look(self: summaries.FolderSearch, path: str, known: Any) -> Any:
        looked.append(path)
        return real_look(self, path, known)

    def run(self: summaries.FolderSearch) -> bool:
        nonlocal runs
        runs += 1
        return real_run(self)

    monkeypatch.setattr(summaries.FolderSearch, "_look", look)
    monkeypatch.setattr(summaries.FolderSearch, "run", run)
    with ThreadPoolExecutor(1) as disk:
        asyncio.run(catalogues.relook(disk))
    assert len(looked) == len(set(looked)) == 23
    assert 3 <= runs <= 6  # but not all of them in one look: a question would wait for it


@pytest.mark.parametrize("suffix", ["", ".json"])
def test_what_a_symbolic_link_leads_to_is_looked_at_each_time(settled: LocalStore, tmp_path: Path, suffix: str) -> None:
    """A disk was full, and somebody has moved a file to another one: of what happens there nothing is told."""
    file = plant(settled, "s9", 9, 5)
    path = settled.root / file.with_name(file.name + suffix)
    elsewhere = tmp_path / "elsewhere"
    catalogues = Catalogues(settled)
    check(catalogues)
    shutil.move(path, elsewhere)
    path.symlink_to(elsewhere)
    check(catalogues)
    aside = elsewhere.rename(tmp_path / "aside")
    check(catalogues)
    check(Catalogues(settled))
    aside.rename(elsewhere)
    check(catalogues)
    path.unlink()
    shutil.move(elsewhere, path)
    check(catalogues)
    assert len(whole(catalogues).chain(catalogues.current(SENDER).find("tank/data@s9"))) == 6


@pytest.mark.parametrize("above", ["sender", "store"])
def test_another_folder_in_the_place_of_what_was_read_is_seen(settled: LocalStore, above: str) -> None:
    """Of a rename above the sender's folder nothing is told there."""
    catalogues = Catalogues(settled)
    check(catalogues)
    folder = settled.root / SENDER if above == "sender" else settled.root
    aside = folder.with_name("aside")
    folder.rename(aside)
    assert whole(catalogues).streams == []
    shutil.copytree(aside, folder)
    next(folder.rglob("@s1*.zst")).unlink()
    check(catalogues)
    shutil.rmtree(folder)
    aside.rename(folder)
    check(catalogues)


def test_folders_that_come_and_go_are_seen(settled: LocalStore) -> None:
    catalogues = Catalogues(settled)
    check(catalogues)
    plant(settled, "deep", 30, dataset="tank/a/b/c/d")
    check(catalogues)
    plant(settled, "deeper", 31, 30, dataset="tank/a/b/c/d/e")
    tank = settled.root / SENDER / "tank"
    (tank / "a" / "b").rename(tank / "moved")
    check(catalogues)
    plant(settled, "s9", 40, dataset="tank/moved/c/d")
    check(catalogues)
    shutil.rmtree(tank / "moved")
    check(catalogues)
    shutil.rmtree(settled.root / SENDER)
    check(catalogues)
    plant(settled, "again", 50)
    check(catalogues)


def test_more_than_the_kernel_keeps_is_looked_for(own: LocalStore) -> None:
    files = [plant(own, f"s{number}", 1 + number) for number in range(3)]
    catalogues = Catalogues(own)
    check(catalogues)
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text(encoding="ascii"))
    paths = [own.root / file for file in files[:2]]
    for number in range(most + 10):  # in turns, since two of a kind are told once
        os.utime(paths[number % 2])
    remove(own, files[2])
    check(catalogues)


def test_a_question_about_one_dataset_takes_milliseconds_among_many(own: LocalStore) -> None:
    for number in range(2000):
        plant(own, f"s{number}", 1 + number, number if number % 20 else None, dataset=f"tank/{number // 20}")
    catalogues = Catalogues(own)
    catalogues.current(SENDER)
    times = []
    for number in range(20):
        began = time.perf_counter()
        part = catalogues.current(SENDER).around(dataset=f"tank/{number}")
        assert part.chain(part.streams[-1])
        times.append(time.perf_counter() - began)
    assert sorted(times)[10] < 0.02


def test_stored_bytes_are_those_of_the_manifests_and_a_later_result_has_a_higher_number(settled: LocalStore) -> None:
    catalogues = Catalogues(settled)

    def stored() -> tuple[int, int]:
        with ThreadPoolExecutor(1) as threads:
            return asyncio.run(catalogues.stored_bytes(threads, SENDER))

    first, before = stored()
    assert before == sum(each.summary.stored_bytes for each in read_catalogue(settled, SENDER).streams)
    plant(settled, "more", 999, stored_bytes=12345)
    second, after = stored()
    assert (after - before, second > first) == (12345, True)


def test_store_that_is_not_in_its_folder_is_not_an_empty_one(tmp_path: Path) -> None:
    made, store_id = make_store(tmp_path / "store", lambda _store: None)
    store = LocalStore(made.root, store_id)
    plant(store, "s1", 1)
    catalogues = Catalogues(store)
    assert len(catalogues.current(SENDER)) == 1
    store.root.rename(tmp_path / "away")
    store.root.mkdir()
    for _ in range(2):
        with pytest.raises(StoreMissing, match="is its disk mounted"):
            catalogues.current(SENDER)
    with pytest.raises(StoreMissing, match="is its disk mounted"):
        catalogues.senders()
    store.root.rmdir()
    (tmp_path / "away").rename(store.root)
    assert len(catalogues.current(SENDER)) == 1
