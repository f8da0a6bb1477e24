"""What the daemon checks by itself: what is due, and streams that came in several segments, of which nobody has a hash
of the whole.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Self

from tests import streams
from tests.receiver.arrival.test_receive import (
    finish_at,
    leave,
    offer_of_pieces,
    pieces_of,
    rest_of,
    segments_at,
)
from tests.receiver.helpers import (
    SENDER,
    checked,
    fail_reads,
    long_stream,
    make_store,
    manifest_path,
    plant,
    remove,
    store_stream,
)
from tests.receiver.peer import chunks, control
from tests.receiver.running import serving, wait_until

from fullsend_protocol.shared.units import format_time
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.maintenance import checkpoints
from fullsend_receiver.maintenance.checks import Checks, ScrubSettings
from fullsend_receiver.maintenance.progress import WorkLeft
from fullsend_receiver.maintenance.verify import Checked, Removed, Subject
from fullsend_receiver.store.local import LocalStore
from fullsend_receiver.store.workers import Workers

if TYPE_CHECKING:
    import threading

    import pytest
    from tests.receiver.running import Receiver

    from fullsend_receiver.catalogue.holdings import Holdings
    from fullsend_receiver.catalogue.rows import Summary
    from fullsend_receiver.catalogue.scrub_results import Scrubbed
    from fullsend_receiver.maintenance.progress import ReadPlace


def push_in_two(receiver: Receiver, name: str) -> tuple[str, bytes]:
    """Push a stream that is interrupted once. Returns: its file, and the stream."""
    pieces = pieces_of(2, name)
    raw = b"".join(pieces)
    kept = leave(receiver, pieces, 1)
    with receiver.peer() as peer:
        peer.write(control(offer_of_pieces(pieces, resume="replay")))
        assert peer.hear("accept")["offset"] == kept
        for chunk in rest_of(pieces, 1):
            peer.write(chunk.encode())
        receipt = finish_at(peer, raw, kept)
    assert receipt["sha256"] is None
    return receipt["file"], raw


def results(receiver: Receiver) -> Path:
    return receiver.store / ".state" / "scrub" / "alpha.jsonl"


def listed(receiver: Receiver, file: str) -> dict[str, Any]:
    with receiver.peer() as peer:
        peer.say("list", dataset=None)
        (found,) = (each for each in peer.hear("entries")["entries"] if each["file"] == file)
        peer.hear("done")
    return found  # type: ignore[no-any-return]  # JSON


def wait_for_hash(receiver: Receiver, file: str) -> None:
    wait_until(lambda: listed(receiver, file)["sha256"] is not None, "the SHA-256")


def test_the_hash_of_the_whole_is_found_after_the_commit(tmp_path: Path) -> None:
    with serving(tmp_path, "alpha") as receiver:
        for name in ("tank/one@now", "tank/two@now"):
            file, raw = push_in_two(receiver, name)
            wait_for_hash(receiver, file)
            entry = listed(receiver, file)
            assert entry["sha256"] == hashlib.sha256(raw).hexdigest()
            assert entry["verified"]
        # And once: what has been read is not read again.
        checks = (results(receiver)).read_bytes().splitlines()
        receiver.stop()
        receiver.start()
        file, _raw = push_in_two(receiver, "tank/three@now")
        wait_for_hash(receiver, file)
        assert len((results(receiver)).read_bytes().splitlines()) == len(checks) + 1


def test_what_was_not_read_before_a_restart_is_read_after_it(tmp_path: Path) -> None:
    with serving(tmp_path, "alpha") as receiver:
        file, raw = push_in_two(receiver, "tank/data@now")
        wait_for_hash(receiver, file)
        receiver.stop()
        (results(receiver)).unlink()
        receiver.start()
        wait_for_hash(receiver, file)
        assert listed(receiver, file)["sha256"] == hashlib.sha256(raw).hexdigest()


def test_what_rotted_before_the_commit_gets_no_receipt(tmp_path: Path) -> None:
    """The bytes of a partial are what its journal says as long as the disk keeps them."""
    with serving(tmp_path, "alpha") as receiver:
        pieces = pieces_of(2)
        raw = b"".join(pieces)
        kept = leave(receiver, pieces, 1)
        (data,) = (receiver.store / ".partial").glob("*.data")
        with data.open("r+b") as file:
            file.seek(1000)
            file.write(b"rot")
        with receiver.peer() as peer:
            peer.write(control(offer_of_pieces(pieces, resume="replay")))
            peer.hear("accept")
            for chunk in rest_of(pieces, 1):
                peer.write(chunk.encode())
            peer.say("finish", raw_bytes=len(raw), segments=segments_at(raw, kept))
            said = peer.refusal()
        assert said.startswith("partial: ")
        assert f"chunk 0 (raw bytes 0 to {len(pieces[0])}) is not as it arrived" in said
        assert sorted(path.suffix for path in (receiver.store / ".partial").iterdir()) == [".damaged", ".damaged"]
        with receiver.peer() as peer:  # the same, from its start
            peer.write(control(offer_of_pieces(pieces, resume="replay")))
            assert peer.hear("accept")["offset"] == 0
            for chunk in chunks(pieces):
                peer.write(chunk.encode())
            stored = finish_at(peer, raw)["file"]
        assert listed(receiver, stored)["restorable"] is True
        receiver.stop()


def test_a_catalogue_that_cannot_be_read_is_no_end(tmp_path: Path) -> None:
    with serving(tmp_path, "alpha") as receiver:
        receiver.stop()
        scrub_log = receiver.store / ".state" / "scrub.jsonl"
        scrub_log.mkdir()
        plant(LocalStore(receiver.store), "old", 7)
        receiver.start()
        wait_until(lambda: "streams that arrived in several segments cannot be read" in receiver.log, "the warning")
        scrub_log.rmdir()
        file, _raw = push_in_two(receiver, "tank/data@now")
        wait_for_hash(receiver, file)


# --- what is due --------------------------------------------------------------------------------------------------


class WatchedChecks(Checks):
    """Checks that tell of each plan that is made (the files that are due, and whether the scrub stops), of each result
    that is recorded and logged, and of each file that was checked in its turn.
    """

    def __init__(self, catalogues: Catalogues, workers: Workers, settings: ScrubSettings) -> None:
        super().__init__(catalogues, workers, settings)
        self.plans: asyncio.Queue[tuple[list[str], bool]] = asyncio.Queue()
        self.results: asyncio.Queue[Scrubbed] = asyncio.Queue()
        self.counted: asyncio.Queue[str] = asyncio.Queue()

    async def _plan(self) -> None:  # type: ignore[explicit-override]
        await super()._plan()
        self.plans.put_nowait(([each.file for each in self._due], self._stopped))

    def _count_checked(self, about: Summary) -> None:  # type: ignore[explicit-override]
        super()._count_checked(about)
        self.counted.put_nowait(about.path)

    def _report(self, found: Checked | Removed) -> None:  # type: ignore[explicit-override]
        super()._report(found)
        if isinstance(found, Checked):
            self.results.put_nowait(found.result)


class Daemon:
    """The part of a daemon that checks."""

    def __init__(self, store: LocalStore, *, every: float = 30 * 86400.0) -> None:
        threads = [ThreadPoolExecutor(2), ThreadPoolExecutor(1)]
        self.threads = threads
        workers = Workers(cpu=threads[0], disk=threads[0], scrub=threads[1])
        self.checks = WatchedChecks(Catalogues(store), workers, ScrubSettings(every, 0))

    async def __aenter__(self) -> Self:
        self.running = asyncio.create_task(self.checks.run())
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.running.cancel()
        await asyncio.wait([self.running])
        for each in self.threads:
            each.shutdown()

    async def results(self, count: int) -> list[Scrubbed]:
        return [await self.checks.results.get() for _ in range(count)]


def store_old(store: LocalStore, snapshot: str, *, days: float, chunks: int = 1) -> PurePosixPath:
    """Store a stream that was received so many days ago."""
    raw = long_stream(chunks, name=f"tank/data@{snapshot}", guid=int.from_bytes(snapshot.encode()))
    file = store_stream(store, SENDER, raw)
    path = manifest_path(store, file)
    received = format_time(time.time() - days * 86400)
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"received": received}), encoding="utf-8")
    return file


def rot(store: LocalStore, file: PurePosixPath) -> None:
    path = store.root / file
    content = bytearray(path.read_bytes())
    content[200] ^= 0x10
    path.write_bytes(content)


async def test_what_is_due_is_checked_the_oldest_first_also_after_a_restart(store: LocalStore) -> None:
    files = {days: str(store_old(store, f"s{days}", days=days)) for days in (31, 29, 40, 35, 1)}
    due = [files[days] for days in (40, 35, 31)]
    async with Daemon(store) as daemon:
        assert await daemon.checks.plans.get() == (due, False)
        found = await daemon.results(1)
        assert daemon.checks.read_bytes > 0
    assert [(each.file, each.verdict) for each in found] == [(due[0], "whole")]
    done = [row["file"] for row in map(json.loads, results_of(store).read_bytes().splitlines())]
    async with Daemon(store) as daemon:
        assert await daemon.checks.plans.get() == (due[len(done) :], False)
        rest = await daemon.results(len(due) - len(done))
    assert done + [each.file for each in rest] == due
    async with Daemon(store) as daemon:
        assert await daemon.checks.plans.get() == ([], False)


def results_of(store: LocalStore) -> Path:
    return store.state / "scrub" / "alpha.jsonl"


async def test_a_read_error_marks_nothing_and_pauses_the_scrub(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = (store_old(store, f"s{days}", days=days) for days in (50, 40))
    with monkeypatch.context() as patch:
        fail_reads(patch, store.root / first, errno.EIO)
        async with Daemon(store) as daemon:
            (found,) = await daemon.results(1)
            assert (found.file, found.verdict) == (str(first), "unreadable")
            assert daemon.checks._pause == 60.0
            assert len(daemon.checks._due) == 1
    catalogue = read_catalogue(store)
    assert all(catalogue.whole(stored) for stored in catalogue.streams)
    assert f"{first}: not checked: " in caplog.text
    assert "Input/output error (disk " in caplog.text
    # It is tried again later; meanwhile, and after a restart, the others are checked.
    async with Daemon(store) as daemon:
        assert await daemon.checks.plans.get() == ([str(second)], False)


async def test_much_damage_stops_the_scrub_until_a_person_asks(
    store: LocalStore, caplog: pytest.LogCaptureFixture
) -> None:
    files = [store_old(store, f"s{days}", days=days) for days in (60, 55, 50, 45, 40)]
    for file in files:
        rot(store, file)
    async with Daemon(store) as daemon:
        assert [each.verdict for each in await daemon.results(2)] == ["damaged"] * 2
        plans = [await daemon.checks.plans.get() for _ in range(3)]
        assert plans[-1] == ([], True)
    assert "the scrub stops: 2 streams are damaged, such as " in caplog.text
    assert len(results_of(store).read_bytes().splitlines()) == 2, "nothing more is recorded"
    async with Daemon(store) as daemon:  # a restart changes nothing
        assert await daemon.checks.plans.get() == ([], True)
    catalogue = read_catalogue(store)
    for stored in catalogue.streams[:2]:  # as `fullsendd verify` does
        catalogue.scrubbed.add(checked(store, stored), asked=True)
    async with Daemon(store) as daemon:
        due, stopped = await daemon.checks.plans.get()
        assert (len(due), stopped) == (3, False)


async def test_a_stream_that_was_damaged_and_is_whole_is_whole(
    store: LocalStore, caplog: pytest.LogCaptureFixture
) -> None:
    file = store_old(store, "s", days=40)
    content = (store.root / file).read_bytes()
    rot(store, file)
    async with Daemon(store) as daemon:
        assert [each.verdict for each in await daemon.results(1)] == ["damaged"]
    (store.root / file).write_bytes(content)
    catalogue = read_catalogue(store)
    (stored,) = catalogue.streams
    assert not catalogue.whole(stored)
    async with Daemon(store) as daemon:
        found = await daemon.checks.check(stored)
        assert isinstance(found, Checked)
        assert found.healed
    assert read_catalogue(store).whole(stored)
    assert f"{file}: was damaged, and is whole" in caplog.text


class Held:
    """A pace that holds the daemon's own check before its `at`-th chunk, until something interrupts it."""

    def __init__(self, at: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._at = at
        self.reached = asyncio.Event()
        self.calls = 0

    def keep(self, _count: int, interrupt: threading.Event) -> None:
        self.calls += 1
        if self.calls == self._at:
            self._loop.call_soon_threadsafe(self.reached.set)
            assert interrupt.wait(60)


async def test_a_restart_amid_a_large_file_continues_there(store: LocalStore, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    file = store_old(store, "large", days=40, chunks=6)
    async with Daemon(store) as daemon:
        held = Held(4)
        daemon.checks._pace = held  # type: ignore[assignment]
        await held.reached.wait()
    assert not results_of(store).exists()
    place = checkpoints.read(store)
    assert place is not None
    assert (place.file, place.reading.chunks) == (str(file), 3)
    async with Daemon(store) as daemon:
        daemon.checks._pace = counting = Held(-1)  # type: ignore[assignment]
        (found,) = await daemon.results(1)
    (stored,) = read_catalogue(store).streams
    assert (found.verdict, found.sha256) == ("whole", stored.summary.sha256)
    assert counting.calls == 3
    assert f"{file}: its check continues at chunk 3" in caplog.text
    assert checkpoints.read(store) is None


class Counting:
    """A pace that lets everything pass."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    def keep(self, count: int, _interrupt: threading.Event) -> None:
        self.counts.append(count)


async def test_the_last_chunk_of_a_stream_counts_before_the_next_one_is_read(store: LocalStore) -> None:
    """Streams of one chunk, as most increments are, were read without regard to scrub-rate."""
    for days in (60, 50, 40):
        store_old(store, f"s{days}", days=days)
    async with Daemon(store) as daemon:
        daemon.checks._pace = counting = Counting()  # type: ignore[assignment]
        await daemon.results(3)
    first, second, third = counting.counts
    assert first == 0
    assert min(second, third) > 0


async def test_a_check_that_a_sender_asks_for_goes_first(store: LocalStore) -> None:
    large = store_old(store, "large", days=40, chunks=6)
    asked_for = store_old(store, "asked", days=1)
    stored = {each.file: each for each in read_catalogue(store).streams}[asked_for]
    async with Daemon(store) as daemon:
        held = Held(4)
        daemon.checks._pace = held  # type: ignore[assignment]
        await held.reached.wait()
        found = await daemon.checks.check(stored)
        assert isinstance(found, Checked)
        assert [each.file for each in await daemon.results(2)] == [str(asked_for), str(large)]
        assert held.calls == 6 + 1, "no chunk is read twice"


async def test_what_is_read_and_what_is_left_can_be_asked_at_any_moment(store: LocalStore) -> None:
    file = store_old(store, "large", days=40, chunks=6)
    asked_for = store_old(store, "asked", days=1)
    late = store_old(store, "late", days=35)
    streams = {each.file: each for each in read_catalogue(store).streams}
    sizes = {name: streams[name].summary.stored_bytes for name in streams}
    async with Daemon(store) as daemon:
        checks = daemon.checks
        before = checks.state()
        assert (before.left, before.reading, before.rate) == (None, None, None)
        held = Held(4)
        checks._pace = held  # type: ignore[assignment]
        await held.reached.wait()
        amid = checks.state()
        assert amid.reading is not None
        assert amid.reading == checks.place
        read = amid.reading.read_bytes
        assert (amid.reading.file, amid.reading.stored_bytes, amid.reading.asked_by) == (str(file), sizes[file], None)
        assert 0 < read < sizes[file]
        assert amid.left == WorkLeft(3, sum(sizes.values()), 2, sizes[file] + sizes[late] - read, None)
        assert (amid.every, amid.limit, amid.stopped, amid.resumes, amid.busy) == (30 * 86400.0, 0, False, None, False)
        waiting: list[ReadPlace | None] = []
        conclude = checks._verifier.conclude

        def concluding(*arguments: Any) -> Checked | Removed:
            waiting.append(checks.place)
            return conclude(*arguments)

        checks._verifier.conclude = concluding  # type: ignore[assignment, method-assign]
        await checks.check(streams[asked_for])
        assert waiting[0] is not None
        assert (waiting[0].file, waiting[0].asked_by) == (str(asked_for), SENDER)
        assert [await checks.counted.get() for _ in range(2)] == [str(file), str(late)]
        after = checks.state()
        assert (after.left, after.reading) == (WorkLeft(3, sum(sizes.values()), 0, 0, None), None)


async def test_after_a_read_error_the_time_of_the_next_try_is_told(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _second = (store_old(store, f"s{days}", days=days) for days in (50, 40))
    fail_reads(monkeypatch, store.root / first, errno.EIO)
    async with Daemon(store) as daemon:
        assert await daemon.checks.counted.get() == str(first)
        state = daemon.checks.state()
        assert state.left is not None
        assert state.left.due_streams == 1
        assert state.resumes is not None


async def test_what_came_in_several_segments_is_not_read_again_in_its_turn(store: LocalStore) -> None:
    """It was due, and it was read at once as well: twice after each start."""
    file, other = store_old(store, "parts", days=50), store_old(store, "other", days=40)
    path = manifest_path(store, file)
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"sha256": None}), encoding="utf-8")
    async with Daemon(store) as daemon:
        assert await daemon.checks.plans.get() == ([str(file), str(other)], False)
        assert [each.file for each in await daemon.results(2)] == [str(file), str(other)]
    assert len(results_of(store).read_bytes().splitlines()) == 2


async def test_a_stream_that_is_removed_amid_its_check_leaves_nothing(
    store: LocalStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    large = store_old(store, "large", days=50, chunks=6)
    other = store_old(store, "other", days=40)
    async with Daemon(store) as daemon:
        held = Held(4)
        daemon.checks._pace = held  # type: ignore[assignment]
        await held.reached.wait()
        remove(store, large)
        daemon.checks._interrupt.set()
        assert [each.file for each in await daemon.results(1)] == [str(other)]
    assert f"{large}: was removed before it could be checked" in caplog.text


async def test_a_sender_whose_streams_cannot_be_read_does_not_stop_the_others(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = store_old(store, "s", days=40)
    (store.root / "aaa").mkdir()
    real = Catalogues.current

    def current(self: Catalogues, sender: str, *, asked: int | None = None) -> Holdings:
        if sender == "aaa":
            raise OSError(errno.EIO, "Input/output error")
        return real(self, sender, asked=asked)

    monkeypatch.setattr(Catalogues, "current", current)
    async with Daemon(store) as daemon:
        assert await daemon.checks.plans.get() == ([str(file)], False)
        await daemon.results(1)
    assert "what is stored of aaa cannot be read, so it is not checked" in caplog.text


async def test_other_settings_are_followed_at_once(store: LocalStore) -> None:
    """A check that waits by the old rate, for days, goes on by the new one; and what is due is found anew."""
    large, other = (store_old(store, f"s{days}", days=days, chunks=3) for days in (40, 20))
    async with Daemon(store) as daemon:
        daemon.checks.change(ScrubSettings(30 * 86400.0, 1))
        while (plan := await daemon.checks.plans.get()) != ([str(large)], False):
            assert plan == ([], False)
        daemon.checks.change(ScrubSettings(10 * 86400.0, 0))
        assert [each.file for each in await daemon.results(2)] == [str(large), str(other)]


async def test_settings_that_change_amid_a_survey_are_followed(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = store_old(store, "s", days=40)
    real = WatchedChecks._survey

    async def survey(self: WatchedChecks) -> Any:
        found = await real(self)
        if not found.due:
            self.change(ScrubSettings(30 * 86400.0, 0))
        return found

    monkeypatch.setattr(WatchedChecks, "_survey", survey)
    async with Daemon(store, every=50 * 86400.0) as daemon:
        assert [each.file for each in await daemon.results(1)] == [str(file)]


async def test_scrub_that_is_switched_off_checks_nothing_more(store: LocalStore) -> None:
    for days in (60, 55, 50):
        rot(store, store_old(store, f"s{days}", days=days))
    async with Daemon(store) as daemon:
        while not (await daemon.checks.plans.get())[1]:
            pass
        daemon.checks.change(ScrubSettings(0, 0))
        assert (daemon.checks._stopped, list(daemon.checks._due)) == (False, [])


def test_the_daemon_finds_damage_by_itself(tmp_path: Path) -> None:
    with serving(tmp_path, "alpha", scrub_every=1) as receiver:
        raw = pieces_of(2, "tank/data@now")
        with receiver.peer() as peer:
            file = peer.give(b"".join(raw), offer_of_pieces(raw), raw)["file"]
        wait_until(lambda: listed(receiver, file)["verified"] is not None, "the first check")
        rot(LocalStore(receiver.store), PurePosixPath(file))
        wait_until(lambda: listed(receiver, file)["damaged"] is not None, "the damage")
        assert listed(receiver, file)["restorable"] is False
        assert f"{file}: damaged: chunk 0" in receiver.log


async def test_what_is_removed_before_its_turn_is_no_damage(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    raw = streams.substream(streams.object_(1))
    file = store_stream(store, SENDER, raw)
    catalogue = read_catalogue(store)
    remove(store, file)
    with ThreadPoolExecutor(1) as pool:
        found = await Checks(Catalogues(store), Workers(pool, pool, pool), ScrubSettings(0, 0)).check(
            catalogue.streams[0]
        )
        assert found == Removed(Subject.of(catalogue.streams[0]))
    store_stream(store, SENDER, raw)  # within the same second
    (again,) = read_catalogue(store).streams
    assert read_catalogue(store).whole(again)
