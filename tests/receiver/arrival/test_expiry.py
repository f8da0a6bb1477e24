from __future__ import annotations

import contextlib
import errno
import os
import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pytest
from tests import streams
from tests.receiver.helpers import SENDER, chunks_of, long_stream, push_of, resume, take

from fullsend_protocol.format.manifest import PartialEntry, Resumption
from fullsend_protocol.shared.units import format_time
from fullsend_receiver.arrival.expiry import discard_old, find_partials
from fullsend_receiver.arrival.ingest import Ingest
from fullsend_receiver.store import journal
from fullsend_receiver.store.opened import open_offer, partial_key
from fullsend_receiver.store_s3.part_sizes import PartSizes
from fullsend_receiver.store_s3.stores import BucketStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.receiver.buckets import MemoryBucket

    from fullsend_receiver.store.local import LocalStore

DAY = 86400.0
RAW = long_stream(3)


def leave(
    store: LocalStore,
    name: str = "tank/data@now",
    *,
    age: float = 0,
    chunks: int = 2,
    sender: str = SENDER,
    guid: int = 7,
) -> str:
    """Leave so many chunks of a stream behind, which came so long ago. Returns: the key of the partial."""
    raw = long_stream(3, name=name, guid=guid)
    push = push_of(raw)
    ingest = Ingest(store.begin(key := partial_key(sender, push), open_offer(sender, push)))
    take(ingest, list(chunks_of(raw))[:chunks])
    ingest.partial.close(keep=True)
    when = time.time() - age
    os.utime(store.partial / f"{key}.journal", (when, when))
    return key


def keys(store: LocalStore) -> set[str]:
    return {path.name.partition(".")[0] for path in store.partial.iterdir()}


def stored(store: LocalStore, key: str) -> int:
    return (store.partial / f"{key}.data").stat().st_size


# --- what there is ----------------------------------------------------------------------------------------------


def test_what_has_arrived_in_part_is_found(store: LocalStore) -> None:
    key = leave(store, age=100)
    (found,) = find_partials(store, SENDER)
    borders = [chunk.raw_offset for chunk in chunks_of(RAW)]
    last = (store.partial / f"{key}.journal").stat().st_mtime
    assert found == PartialEntry(
        sender=SENDER,
        dataset="tank/data",
        snapshot="now",
        guid="7",
        base_guid=None,
        flags="",
        raw_bytes=borders[2],
        stored_bytes=stored(store, key),
        resume_offset=borders[2],
        started=found.started,
        last=format_time(last),
        arriving=False,
    )
    assert found.started > found.last


def test_each_sees_its_own_and_nobody_elses(store: LocalStore) -> None:
    leave(store)
    leave(store, sender="beta")
    leave(store, "tank/other@now", sender="beta", guid=8)
    assert [each.sender for each in find_partials(store, SENDER)] == [SENDER]
    assert {each.dataset for each in find_partials(store, "beta")} == {"tank/data", "tank/other"}
    assert list(find_partials(store, "gamma")) == []
    assert len(list(find_partials(store, None))) == 3


def test_what_is_open_is_arriving(store: LocalStore) -> None:
    leave(store)
    ingest = resume(store, SENDER, long_stream(3, guid=7))
    assert [each.arriving for each in find_partials(store, SENDER)] == [True]
    ingest.partial.close(keep=True)
    assert [each.arriving for each in find_partials(store, SENDER)] == [False]


def test_of_what_nothing_came_nothing_is_said_but_that(store: LocalStore) -> None:
    leave(store, chunks=0)
    (found,) = find_partials(store, SENDER)
    assert (found.raw_bytes, found.stored_bytes, found.resume_offset) == (0, 0, None)


def test_package_has_nowhere_for_a_token_to_resume(store: LocalStore) -> None:
    first = long_stream(3, name="tank/data@before", guid=7)
    raw = streams.package(first, streams.substream(guid=8, base_guid=7))
    push = push_of(raw)
    ingest = Ingest(store.begin(partial_key(SENDER, push), open_offer(SENDER, push)))
    take(ingest, list(chunks_of(raw))[:2])
    ingest.partial.close(keep=True)
    (found,) = find_partials(store, SENDER)
    assert (found.guid, found.resume_offset) == (None, None)
    assert found.raw_bytes > 0


def test_what_goes_away_meanwhile_is_passed_over(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    key, real = leave(store), journal.read_opened
    monkeypatch.setattr(journal, "read_opened", lambda path: (real(path), path.unlink())[0])
    assert list(find_partials(store, SENDER)) == []
    assert key not in {path.stem for path in store.partial.glob("*.journal")}


def flip(path: Path) -> None:
    """A bit of the first line, which others follow, is not what was written."""
    content = path.read_bytes()
    path.write_bytes(content[:50] + bytes([content[50] ^ 1]) + content[51:])


def test_what_is_damaged_hides_nothing_of_what_is_not(store: LocalStore, caplog: pytest.LogCaptureFixture) -> None:
    damaged = leave(store)
    leave(store, sender="beta")
    flip(store.partial / f"{damaged}.journal")
    assert [each.sender for each in find_partials(store, "beta")] == ["beta"]
    assert caplog.text.count(f"partial {damaged}: ") == 1
    assert "the daemon will set it aside" in caplog.text
    assert list(find_partials(store, SENDER)) == []
    # What lists only reads; the daemon's own round sets it aside.
    assert not (store.partial / f"{damaged}.journal.damaged").exists()
    discard_old(store, (), keep=14 * DAY, most=None, damaged_keep=14 * DAY)
    assert (store.partial / f"{damaged}.journal.damaged").exists()


def test_what_is_no_journal_is_passed_over(store: LocalStore) -> None:
    (store.partial / f"{'0' * 32}.journal").write_bytes(b"torn")
    (store.partial / f"{leave(store)}.journal.damaged").write_bytes(b"set aside")
    assert len(list(find_partials(store, None))) == 1


# --- what is deleted --------------------------------------------------------------------------------------------


def test_what_nobody_resumed_for_too_long_is_deleted(store: LocalStore, caplog: pytest.LogCaptureFixture) -> None:
    old, new = leave(store, age=15 * DAY), leave(store, "tank/new@now", age=13 * DAY, guid=8)
    discard_old(store, (), keep=14 * DAY, most=None, damaged_keep=14 * DAY)
    assert keys(store) == {new}
    assert f"{SENDER}/tank/data@now: what had arrived of it" in caplog.text
    assert "is deleted: nothing has arrived for " in caplog.text
    assert old not in caplog.text


@pytest.mark.parametrize("at_resume_point", [False, True])
def test_what_was_resumed_and_brought_nothing_is_as_old_as_before(store: LocalStore, at_resume_point: bool) -> None:
    """A push that fails every night at the same place would keep it for ever."""
    key = leave(store, age=15 * DAY, chunks=3)
    (before,) = find_partials(store, SENDER)
    ingest = resume(store, SENDER, long_stream(3, guid=7), at_resume_point=at_resume_point)
    assert ingest.offset < before.raw_bytes or not at_resume_point  # the journal was cut
    resumption = Resumption(how="replay", offset=ingest.offset, at="2026-11-23T06:30:00Z")
    ingest.partial.note_resumed(resumption)
    ingest.partial.close(keep=True)
    (after,) = find_partials(store, SENDER)
    assert after.last == before.last
    discard_old(store, {key}, keep=14 * DAY, most=None, damaged_keep=14 * DAY)
    assert keys(store) == {key}
    discard_old(store, (), keep=14 * DAY, most=None, damaged_keep=14 * DAY)
    assert keys(store) == set()


def test_what_is_damaged_keeps_nothing_else_from_being_deleted(store: LocalStore) -> None:
    damaged, old = leave(store, age=15 * DAY), leave(store, "tank/old@now", age=15 * DAY, guid=8)
    flip(store.partial / f"{damaged}.journal")
    discard_old(store, (), keep=14 * DAY, most=None, damaged_keep=14 * DAY)
    aside = [store.partial / f"{damaged}.{kind}.damaged" for kind in ("data", "journal")]
    assert sorted(store.partial.iterdir()) == aside
    assert old not in keys(store)
    # Nor is it there for ever: from now on it has as much time as any other.
    for path, age in zip(aside, (15, 13), strict=True):
        when = path.stat().st_mtime - age * DAY
        os.utime(path, (when, when))
    discard_old(store, (), keep=14 * DAY, most=None, damaged_keep=14 * DAY)
    assert list(store.partial.iterdir()) == aside[1:]


def test_what_cannot_be_deleted_keeps_nothing_else_from_it(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stays, goes = leave(store, age=16 * DAY), leave(store, "tank/old@now", age=15 * DAY, guid=8)
    real = Path.unlink

    def unlink(path: Path, *, missing_ok: bool = False) -> None:
        if path.stem == stays:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        real(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    discard_old(store, (), keep=14 * DAY, most=None, damaged_keep=14 * DAY)
    assert keys(store) == {stays}
    assert f"{SENDER}/tank/data@now: what has arrived of it cannot be deleted: [Errno 5] " in caplog.text
    assert goes not in keys(store)


def test_beyond_their_room_the_oldest_are_deleted(store: LocalStore, caplog: pytest.LogCaptureFixture) -> None:
    left = [leave(store, f"tank/{age}@now", age=age, guid=age) for age in (10, 30, 20)]
    each = stored(store, left[0])
    discard_old(store, (), keep=14 * DAY, most=3 * each + 9, damaged_keep=14 * DAY)
    assert keys(store) == set(left)
    discard_old(store, (), keep=14 * DAY, most=2 * each + 9, damaged_keep=14 * DAY)
    assert keys(store) == {left[0], left[2]}
    assert "tank/30@now: what had arrived" in caplog.text
    assert "(partial-max)" in caplog.text
    discard_old(store, (), keep=14 * DAY, most=0, damaged_keep=14 * DAY)
    assert keys(store) == set()


def test_what_is_arriving_is_never_deleted_but_counts(store: LocalStore) -> None:
    old, arriving = leave(store, age=10), leave(store, "tank/arriving@now", age=99 * DAY, guid=8)
    discard_old(store, {arriving}, keep=14 * DAY, most=None, damaged_keep=14 * DAY)
    assert keys(store) == {old, arriving}
    discard_old(store, {arriving}, keep=14 * DAY, most=stored(store, arriving), damaged_keep=14 * DAY)
    assert keys(store) == {arriving}
    discard_old(store, {arriving}, keep=0, most=0, damaged_keep=0)
    assert keys(store) == {arriving}


@pytest.mark.parametrize("jump", [-99 * DAY, -1.0])
def test_clock_that_went_back_throws_nothing_away(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    key = leave(store)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + jump)
    discard_old(store, (), keep=1.0, most=None, damaged_keep=1.0)
    assert keys(store) == {key}


def test_clock_that_jumped_ahead_costs_what_waits_and_nothing_that_arrives(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(store)
    arriving = leave(store, "tank/arriving@now", guid=8)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 99 * DAY)
    discard_old(store, {arriving}, keep=14 * DAY, most=None, damaged_keep=14 * DAY)
    assert keys(store) == {arriving}


@pytest.mark.parametrize(
    "forget", [lambda key, store: None, lambda key, store: (store.partial / f"{key}.data").unlink()]
)
def test_stream_that_is_proven_waits_for_a_start_to_complete_its_commit(
    store: LocalStore, forget: Callable[[str, LocalStore], None]
) -> None:
    """Its file may be in place already, and what is left here is all that makes it a stream."""
    key = leave(store, age=99 * DAY)
    with (store.partial / f"{key}.journal").open("ab") as file:
        file.write(journal.commit_line(PurePosixPath("alpha/tank/data/@now.zst")))
    os.utime(store.partial / f"{key}.journal", (0, 0))
    forget(key, store)
    there = set(store.partial.iterdir())
    discard_old(store, (), keep=DAY, most=0, damaged_keep=DAY)
    assert set(store.partial.iterdir()) == there


def test_each_is_claimed_for_its_deletion_and_the_others_are_not(store: LocalStore) -> None:
    old, arriving, young = (leave(store, f"tank/{age}@now", age=age, guid=age + 7) for age in (100, 90, 0))
    claimed = []

    @contextlib.contextmanager
    def claim(key: str) -> Iterator[bool]:
        assert key in keys(store)
        yield key != arriving
        claimed.append((key, key in keys(store)))

    left = discard_old(store, (), keep=50, most=None, damaged_keep=DAY, claim=claim)
    assert claimed == [(old, False), (arriving, True)]
    assert set(left[SENDER]) == {arriving, young} == keys(store)


@pytest.mark.parametrize(("keep", "most"), [(DAY, 0), (0.0, None)])
def test_what_may_be_arriving_through_another_host_stays(
    bucket: MemoryBucket, tmp_path: Path, keep: float, most: int | None
) -> None:
    homes = tmp_path / "one", tmp_path / "two"
    for home in homes:
        home.mkdir()
    one, two = (BucketStore(bucket, home, sizes=PartSizes(least=1), patience=900.0) for home in homes)
    ingest = Ingest(one.begin(key := partial_key(SENDER, push_of(RAW)), open_offer(SENDER, push_of(RAW))))
    chunks = list(chunks_of(RAW))
    take(ingest, chunks[:2])
    left = discard_old(two, (), keep=keep, most=most, damaged_keep=DAY)
    assert left == {SENDER: {key: ingest.partial.size}}
    take(ingest, chunks[2:])  # nothing has happened to it
    ingest.partial.close(keep=True)
    bucket.objects = {key: (data, etag, at - 901) for key, (data, etag, at) in bucket.objects.items()}
    assert discard_old(two, (), keep=keep, most=most, damaged_keep=DAY) == {SENDER: {}}
    assert bucket.objects == {}


def test_what_cannot_be_read_is_deleted_by_its_key(store: LocalStore, caplog: pytest.LogCaptureFixture) -> None:
    path = store.partial / f"{'0' * 32}.journal"
    path.write_bytes(b"torn")
    os.utime(path, (0, 0))
    discard_old(store, (), keep=DAY, most=None, damaged_keep=DAY)
    assert not path.exists()
    assert f"{'0' * 32}: what had arrived" in caplog.text


def test_what_is_left_is_counted_by_sender_and_key(store: LocalStore) -> None:
    leave(store, "tank/old@now", age=2 * DAY)
    young = leave(store, "tank/young@now")
    other = leave(store, sender="beta", chunks=1)
    left = discard_old(store, (), keep=DAY, most=None, damaged_keep=14 * DAY)
    assert left == {SENDER: {young: stored(store, young)}, "beta": {other: stored(store, other)}}
    assert keys(store) == {young, other}
