"""A daemon's catalogues: shared by all questions, read once, and never stale."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from tests.receiver.helpers import PLANTED, SENDER, manifest_path, plant, remove

from fullsend_receiver import summaries
from fullsend_receiver.catalogue import Catalogue, read_catalogue
from fullsend_receiver.catalogues import Catalogues
from fullsend_receiver.scrublog import Scrubbed, ScrubLog

if TYPE_CHECKING:
    from pathlib import PurePosixPath

    from fullsend_receiver.store import Store


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[PurePosixPath]:
    """The manifests that are opened."""
    found: list[PurePosixPath] = []
    real = summaries.read_manifest

    def read(store: Store, file: PurePosixPath) -> Any:
        found.append(file)
        return real(store, file)

    monkeypatch.setattr(summaries, "read_manifest", read)
    return found


@pytest.fixture
def settled(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store of which nothing has changed just now."""
    for number in range(5):
        plant(store, f"s{number}", 1 + number, number or None)
    monkeypatch.setattr(summaries, "_SETTLED_NS", -(10**18))
    return store


def told(catalogue: Catalogue) -> object:
    """All that a catalogue says."""
    entries = [catalogue.entry(each) for each in catalogue.streams]
    chains = [[str(each.file) for each in catalogue.chain(stored)] for stored in catalogue.streams]
    return entries, chains, catalogue.problems


def check(catalogues: Catalogues, sender: str = SENDER) -> None:
    """What is told is what the disk holds now."""
    with catalogues.current(sender) as catalogue:
        assert told(catalogue) == told(read_catalogue(catalogues.store, sender))


def test_sixteen_questions_at_once_read_each_manifest_once(settled: Store, reads: list[PurePosixPath]) -> None:
    catalogues = Catalogues(settled)

    async def ask_all(disk: ThreadPoolExecutor) -> list[int]:
        return await asyncio.gather(
            *(catalogues.ask(disk, SENDER, lambda catalogue: len(catalogue.streams)) for _ in range(16))
        )

    with ThreadPoolExecutor(16) as disk:
        assert asyncio.run(ask_all(disk)) == [5] * 16
    assert len(reads) == 5


def test_questions_that_wait_share_one_look_at_the_disk(settled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    real = summaries.Search.run

    def run(search: summaries.Search) -> bool:
        looks.append(1)
        return real(search)

    monkeypatch.setattr(summaries.Search, "run", run)
    catalogues = Catalogues(settled)

    async def ask_all(disk: ThreadPoolExecutor) -> None:
        held = threading.Event()
        first = asyncio.create_task(catalogues.ask(disk, SENDER, lambda _catalogue: held.wait()))
        others = [asyncio.create_task(catalogues.ask(disk, SENDER, lambda _catalogue: None)) for _ in range(15)]
        await asyncio.get_running_loop().run_in_executor(disk, lambda: None)  # all have asked by now
        held.set()
        await asyncio.gather(first, *others)

    with ThreadPoolExecutor(2) as disk:
        asyncio.run(ask_all(disk))
    # One for the first, one for all that have asked since that one began, at most.
    assert 1 <= len(looks) <= 2
    with catalogues.current(SENDER):  # asked after the last look began: it is looked again
        pass
    assert 2 <= len(looks) <= 3


def test_another_sender_is_not_waited_for(settled: Store) -> None:
    plant(settled, "theirs", 77, sender="beta")
    catalogues = Catalogues(settled)
    with catalogues.current(SENDER), catalogues.current("beta") as catalogue:
        assert [each.summary.snapshot for each in catalogue.streams] == ["theirs"]
    assert catalogues.senders() == [SENDER, "beta"]
    with catalogues.current("nobody") as catalogue:
        assert catalogue.streams == []


def test_questions_about_one_sender_take_one_thread(settled: Store) -> None:
    catalogues = Catalogues(settled)
    running: list[int] = []
    most = []

    def work(_catalogue: Catalogue) -> None:
        running.append(1)
        most.append(len(running))
        running.pop()

    async def ask_all(disk: ThreadPoolExecutor) -> None:
        held = threading.Event()
        first = asyncio.create_task(catalogues.ask(disk, SENDER, lambda _catalogue: held.wait()))
        others = [asyncio.create_task(catalogues.ask(disk, SENDER, work)) for _ in range(8)]
        # Of two threads one is left for those who wait for the disk.
        assert await asyncio.get_running_loop().run_in_executor(disk, lambda: "fsync") == "fsync"
        held.set()
        await asyncio.gather(first, *others)

    with ThreadPoolExecutor(2) as disk:
        asyncio.run(ask_all(disk))
    assert most == [1] * 8


def test_what_is_stored_removed_and_damaged_meanwhile_is_seen(settled: Store, reads: list[PurePosixPath]) -> None:
    catalogues = Catalogues(settled)
    check(catalogues)
    reads.clear()
    with catalogues.current(SENDER) as catalogue:
        first = list(catalogue.streams)
    assert reads == []  # nothing has changed
    file = plant(settled, "s5", 6, 5)
    check(catalogues)
    with catalogues.current(SENDER) as catalogue:
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
    with catalogues.current(SENDER) as catalogue:
        assert [catalogue.restorable(each) for each in catalogue.streams] == [True, False, False, False, False, True]
    (settled.root / second).write_bytes(PLANTED)
    # A manifest goes, and comes back as `verify` makes it: another file.
    text = manifest_path(settled, second).read_bytes()
    manifest_path(settled, second).unlink()
    check(catalogues)
    with catalogues.current(SENDER) as catalogue:
        (problem,) = catalogue.problems
        assert problem.startswith(f"{second}: has no manifest")
    manifest_path(settled, second).write_bytes(text)
    check(catalogues)
    # In place, without a change of its folder.
    path = manifest_path(settled, other)
    path.write_bytes(re.sub(rb'("raw_bytes": ?)1000', rb"\g<1>1234", path.read_bytes()))
    check(catalogues)
    with catalogues.current(SENDER) as catalogue:
        assert [each.summary.raw_bytes for each in catalogue.streams] == [1000] * 5 + [1234]
    for each in settled.root.joinpath(SENDER).rglob("*.zst*"):
        each.unlink()
    check(catalogues)
    with catalogues.current(SENDER) as catalogue:
        assert catalogue.streams == []


def test_what_checks_have_found_is_seen_from_the_daemon_and_from_a_command(settled: Store) -> None:
    catalogues = Catalogues(settled)
    check(catalogues)
    with catalogues.current(SENDER) as catalogue:
        first, second, *_others = catalogue.streams

    def result(stored: Any) -> Scrubbed:
        return Scrubbed(stored.summary.path, stored.summary.received, "2026-12-01T00:00:00Z", ("bad",), None)

    catalogues.record(result(second))
    check(catalogues)
    with catalogues.current(SENDER) as catalogue:
        assert not catalogue.whole(second)
        assert catalogue.whole(first)
    ScrubLog(settled).add(result(first))  # a command beside the daemon
    check(catalogues)
    with catalogues.current(SENDER) as catalogue:
        assert not catalogue.whole(first)


def test_a_look_that_fails_is_not_taken_for_done(settled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogues = Catalogues(settled)
    check(catalogues)
    file = plant(settled, "s5", 6, 5)
    os.rename(settled.root / file, settled.root / f"{file}.aside")  # and one without manifest, to be explained
    (settled.root / SENDER / "tank/data/@x.zfs.zst").write_bytes(PLANTED)
    with monkeypatch.context() as patch:
        patch.setattr(summaries, "committing", lambda _store: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(OSError, match="Input/output"), catalogues.current(SENDER):
            pass
    check(catalogues)
    with catalogues.current(SENDER) as catalogue:
        assert len(catalogue.streams) == 6


def test_the_rest_of_an_answer_looks_at_nothing(settled: Store, reads: list[PurePosixPath]) -> None:
    catalogues = Catalogues(settled)

    async def ask(disk: ThreadPoolExecutor) -> list[int]:
        def count(catalogue: Catalogue) -> int:
            return len(catalogue.streams)

        found = [await catalogues.ask(disk, SENDER, count, begun=True)]  # nobody has asked before: it is read
        plant(settled, "s5", 6, 5)
        found.append(await catalogues.ask(disk, SENDER, count, begun=True))
        found.append(await catalogues.ask(disk, SENDER, count))
        return found

    with ThreadPoolExecutor(1) as disk:
        assert asyncio.run(ask(disk)) == [5, 5, 6]
    assert len(reads) == 6
