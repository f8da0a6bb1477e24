from __future__ import annotations

import errno
import fcntl
import itertools
import os
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.receiver import crash
from tests.receiver.arriving import (
    BORDERS,
    DRAWS,
    FILE,
    KEY,
    RAW,
    SET_ASIDE,
    SHORT,
    Kept,
    Left,
    begun,
    check_recovery,
    check_resumes,
    data_of,
    file_size_limit,
    journal_of,
    kept,
    left_behind,
    lose_sector,
    of_raw,
    reopened,
)
from tests.receiver.helpers import (
    SENDER,
    check_listed,
    checked,
    chunks_from,
    chunks_of,
    commit_stream,
    decode,
    everything,
    hash_path,
    ingest_stream,
    make_store,
    manifest_path,
    program,
    push_of,
    read_manifest,
    resume,
    segments_of,
    small_stream,
    store_stream,
    take,
    take_one,
    zstd_decode,
)
from tests.receiver.powercut import Disk
from tests.streams import each, whole

from fullsend_protocol.shared import limits
from fullsend_protocol.stream.chunks import Compressor, SegmentHash
from fullsend_protocol.stream.records import Phase, WalkerState
from fullsend_protocol.wire.connection import Chunk
from fullsend_receiver.arrival.ingest import Ingest
from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.maintenance.scrub import rebuild
from fullsend_receiver.store import uploads
from fullsend_receiver.store.durable import is_locked
from fullsend_receiver.store.errors import PartialDamaged, StoreError
from fullsend_receiver.store.journal import Batch
from fullsend_receiver.store.local import LocalStore
from fullsend_receiver.store.opened import open_offer, partial_key
from fullsend_receiver.store.recovery import recover

if TYPE_CHECKING:
    from tests.receiver.crash import Crasher
    from tests.streams import Genuine

#: chunks that are there, in batches of how many, how it is resumed, and from where at least.
RESUMPTIONS = {
    "at the end": (2, 1, "replay", BORDERS[1]),
    "at the end, all of it": (3, 2, "reconnect", BORDERS[2]),
    "by a token, at the end": (2, 1, "token", BORDERS[1]),
    "by a token, behind a line": (3, 1, "token", BORDERS[1]),
    "by a token, amid a line": (3, 3, "token", BORDERS[1]),
}


@pytest.mark.parametrize("torn", [False, True], ids=["between calls", "amid writes"])
@pytest.mark.parametrize("case", RESUMPTIONS)
@pytest.mark.slow
def test_kill_at_any_call_of_resuming_loses_nothing_but_what_the_sender_gave_up(
    swift_path: Path, crasher: Crasher, case: str, torn: bool
) -> None:
    chunks, per_batch, how, least = RESUMPTIONS[case]
    for at in itertools.count(1):
        store = make_store(swift_path, f"store{at}")
        left_behind(store, chunks, per_batch)
        with data_of(store).open("ab") as file:
            file.write(b"written, and never acknowledged")
        outcome = crasher.run("resume", store.root, how, at=at, call="write" if torn else None, torn=torn)
        if not outcome.killed:
            break
        check_recovery(store, (*outcome.told, f"acknowledged {least}"))
        check_resumes(store)
        shutil.rmtree(store.root)
    assert outcome.told[0] == f"acknowledged {least}"
    assert outcome.told[-1] == f"stored {FILE}"
    resumed = read_manifest(store, FILE)
    assert [(each.how, each.offset) for each in resumed.resumptions] == [(how, least)]
    assert [segment.start for segment in resumed.segments] == sorted({0, least} - {len(RAW)})
    check_resumes(store)


@pytest.mark.parametrize("border", [0, 1, 2])
def test_stream_resumes_at_every_border_and_is_as_if_it_had_never_been_interrupted(
    store: LocalStore, border: int
) -> None:
    left_behind(store, border + 1, border + 1)
    ingest = resume(store, SENDER, RAW)
    assert ingest.offset == BORDERS[border]
    take(ingest, chunks_from(RAW, ingest.offset))
    while not ingest.partial.catch_up(1000):
        pass
    assert commit_stream(store, SENDER, ingest, RAW) == FILE
    check_resumes(store)
    assert zstd_decode(store.root / FILE) == RAW
    sums = subprocess.run(
        [program("sha256sum"), "-c", hash_path(store, FILE).name],
        cwd=(store.root / FILE).parent,
        check=False,
        capture_output=True,
        text=True,
    )
    assert sums.returncode == 0, sums.stderr


@each(whole)
def test_genuine_stream_resumes_at_every_border(store: LocalStore, stream: Genuine) -> None:
    """Begun anew with each chunk: as many segments as chunks."""
    raw = stream.read()
    push = push_of(raw)
    key = partial_key(SENDER, push)
    borders = [chunk.raw_offset for chunk in chunks_of(raw)]
    ingest = Ingest(store.begin(key, open_offer(SENDER, push)))
    for border in borders:
        assert ingest.offset == border
        take(ingest, [next(chunks_from(raw, border))])
        ingest.partial.close(keep=True)
        ingest = resume(store, SENDER, raw)
    assert [segment.start for segment in ingest.segments()] == borders
    assert ingest.segments() == segments_of(raw, *borders[1:])
    file = commit_stream(store, SENDER, ingest, raw)
    assert check_listed(store) == [str(file)]
    assert zstd_decode(store.root / file) == raw
    (stored,) = read_catalogue(store).streams
    assert checked(store, stored).damage == ()
    manifest = read_manifest(store, file)
    manifest_path(store, file).unlink()
    again = rebuild(store, file)
    assert (again.segments, again.snapshots, again.flags) == (manifest.segments, manifest.snapshots, manifest.flags)


@pytest.mark.parametrize("how", ["replay", "token"])
@pytest.mark.slow
def test_power_cut_at_any_moment_of_resuming_loses_nothing_but_what_the_sender_gave_up(
    swift_path: Path, how: str
) -> None:
    store = make_store(swift_path)
    push = push_of(SHORT)
    borders = tuple(itertools.accumulate(chunk.raw_length for chunk in chunks_of(SHORT)))
    least = borders[0] if how == "token" else borders[1]
    ingest = Ingest(store.begin(KEY, open_offer(SENDER, push)))
    take(ingest, chunks_of(SHORT), per_batch=2)
    ingest.partial.close(keep=True)
    told = least
    stored = False
    found: list[Left] = []

    def lights_out(disk: Disk) -> None:
        for draw in range(DRAWS + 1):
            folder = swift_path / f"{disk.steps}.{draw}"
            disk.leave(folder, seed=100 * disk.steps + draw if draw else None)
            found.append(Left(LocalStore(folder), told, stored))

    with Disk(store.root, lights_out) as disk:
        ingest = resume(store, SENDER, SHORT, at_resume_point=how == "token")
        assert ingest.offset == least
        for chunk in chunks_from(SHORT, least):
            take_one(ingest, chunk)
            ingest.partial.sync(batch := ingest.batch())
            told = batch.offset
        assert commit_stream(store, SENDER, ingest, SHORT) == FILE
        stored = True
        disk.step()

    assert disk.steps > 15
    for left in found:
        before = kept(left.store)
        listed_before = check_listed(left.store)
        assert not left.stored or listed_before == [str(FILE)]
        recover(left.store)
        after = kept(left.store)
        if not (listed_before or (before and before.committing)):
            assert after is not None
            assert left.told <= after.offset, left
            assert decode(after.data) == SHORT[: after.offset]
        assert not read_catalogue(left.store).problems
        check_resumes(left.store, SHORT, borders)


def store_at_once(store: LocalStore, raw: bytes) -> str:
    """Store a stream of which nothing is acknowledged before its commit."""
    push = push_of(raw)
    ingest = Ingest(store.begin(partial_key(SENDER, push), open_offer(SENDER, push)))
    for chunk in chunks_of(raw):
        take_one(ingest, chunk)
    ingest.partial.take_last(ingest.batch())
    return str(commit_stream(store, SENDER, ingest, raw))


def test_power_cut_at_any_moment_of_small_streams_leaves_all_that_were_stored(swift_path: Path) -> None:
    """The first one makes the folders, the second one finds them."""
    store = make_store(swift_path)
    stored: list[str] = []
    found: list[tuple[LocalStore, list[str]]] = []

    def lights_out(disk: Disk) -> None:
        for draw in range(2 * DRAWS + 1):
            folder = swift_path / f"{disk.steps}.{draw}"
            disk.leave(folder, seed=100 * disk.steps + draw if draw else None)
            found.append((LocalStore(folder), list(stored)))

    with Disk(store.root, lights_out) as disk:
        for raw in (small_stream("tank/data", 1), small_stream("tank/data", 2, 1)):
            stored.append(store_at_once(store, raw))
            disk.step()

    assert disk.steps > 40
    for left, told in found:
        recover(left)
        listed = check_listed(left)
        assert set(told) <= set(listed) <= set(stored)
        assert not read_catalogue(left).problems
        assert not list(left.partial.iterdir())


def test_power_cut_after_the_first_batch_of_a_stream_loses_nothing_of_it(swift_path: Path) -> None:
    store = make_store(swift_path)
    raw = small_stream("tank/data", 1)
    push = push_of(raw)
    left = [LocalStore(swift_path / f"left{draw}") for draw in range(40)]
    with Disk(store.root, lambda _disk: None) as disk:
        ingest = Ingest(store.begin(key := partial_key(SENDER, push), open_offer(SENDER, push)))
        take(ingest, chunks_of(raw))
        for draw, each_left in enumerate(left):
            disk.leave(each_left.root, seed=draw or None)
        ingest.partial.close(keep=True)
    for each_left in left:
        assert recover(each_left) == [f"partial {key}: kept, with {len(raw)} raw bytes"]


def test_small_stream_is_durable_after_few_syncs(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has its reason in docs/performance.md. With a batch of its own there are two more."""
    store_at_once(store, small_stream("tank/data", 1))
    synced: list[str] = []
    for name in ("fsync", "fdatasync"):
        real = getattr(os, name)

        def traced(descriptor: int, real: Any = real) -> None:
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            synced.append(path.suffix if path.is_file() else f"{path.relative_to(store.root)}/")
            real(descriptor)

        monkeypatch.setattr(os, name, traced)
    store_at_once(store, small_stream("tank/data", 2, 1))
    prepared = [".journal", ".data", ".sha256", ".json", ".partial/", ".journal"]
    assert synced == [*prepared, "alpha/tank/data/", "alpha/tank/data/", ".partial/"]
    synced.clear()
    store_stream(store, SENDER, small_stream("tank/data", 3, 2))
    assert synced[:4] == [".journal", ".data", ".partial/", ".journal"]
    assert len(synced) == 12


def test_last_batch_can_still_be_made_durable_if_the_commit_fails(store: LocalStore) -> None:
    raw = small_stream("tank/data", 1)
    push = push_of(raw)
    ingest = Ingest(store.begin(key := partial_key(SENDER, push), open_offer(SENDER, push)))
    for chunk in chunks_of(raw):
        take_one(ingest, chunk)
    ingest.partial.take_last(batch := ingest.batch())
    ingest.partial.seal(ingest.chunks)
    assert ingest.partial.sync(batch) == len(raw)
    ingest.partial.close(keep=True)
    with pytest.raises(StoreError, match=f"partial {key}: has ended"):
        ingest.partial.sync(batch)
    assert recover(store) == [f"partial {key}: kept, with {len(raw)} raw bytes"]
    again = resume(store, SENDER, raw)
    assert again.offset == len(raw)
    assert check_listed(store) == []
    file = commit_stream(store, SENDER, again, raw)
    assert zstd_decode(store.root / file) == raw


def test_last_batch_of_a_stream_that_was_resumed_is_made_durable_at_once(store: LocalStore) -> None:
    """Its hash is computed from what is read back."""
    ingest = Ingest(store.begin(KEY, open_offer(SENDER, push_of(SHORT))))
    first, *_rest = chunks_of(SHORT)
    take(ingest, [first])
    ingest.partial.close(keep=True)
    ingest = resume(store, SENDER, SHORT)
    for chunk in chunks_from(SHORT, ingest.offset):
        take_one(ingest, chunk)
    ingest.partial.take_last(ingest.batch())
    assert (left := kept(store)) is not None
    assert left.offset == len(SHORT)
    assert zstd_decode(store.root / commit_stream(store, SENDER, ingest, SHORT)) == SHORT


def test_there_is_nothing_to_resume_where_nothing_came(store: LocalStore) -> None:
    assert not reopened(store)
    begun(store, chunks=0)
    assert not reopened(store)
    assert not reopened(store, at_resume_point=True)


@pytest.mark.parametrize("missing", [1, None], ids=["a byte", "the file"])
@pytest.mark.parametrize("at_resume_point", [False, True])
def test_data_that_are_shorter_than_their_journal_are_not_resumed(
    store: LocalStore, missing: int | None, at_resume_point: bool
) -> None:
    begun(store)
    if missing is None:
        data_of(store).unlink()
    else:
        os.truncate(data_of(store), data_of(store).stat().st_size - missing)
    there = everything(store.partial)
    assert store.reopen(KEY, at_resume_point=at_resume_point) is None
    assert everything(store.partial) == {f"{name}.damaged": content for name, content in there.items()}
    assert store_stream(store, SENDER, RAW) == FILE


def test_partial_whose_last_chunk_ends_where_none_may_is_begun_anew_but_a_token_goes_back(store: LocalStore) -> None:
    ingest = Ingest(store.begin(KEY, open_offer(SENDER, push_of(RAW))))
    first, second, _third = crash.chunks()
    piece = RAW[second.raw_offset :][: second.raw_length - 1]
    segment = SegmentHash(second.raw_offset)
    frame = Compressor(1).compress(piece)
    short = Chunk(second.raw_offset, len(piece), segment.update(piece), frame, starts_segment=True)
    take(ingest, [first, short])
    ingest.partial.close(keep=True)
    assert not reopened(store)
    ingest = resume(store, SENDER, RAW, at_resume_point=True)
    assert ingest.offset == BORDERS[0]
    take(ingest, chunks_from(RAW, ingest.offset))
    assert commit_stream(store, SENDER, ingest, RAW) == FILE
    check_resumes(store)


def test_partial_of_too_many_segments_is_begun_anew(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(store, chunks=1)
    ingest = resume(store, SENDER, RAW)
    take(ingest, [next(chunks_from(RAW, BORDERS[0]))])
    ingest.partial.close(keep=True)
    monkeypatch.setattr(limits, "SEGMENTS_MAX", 2 + limits.SEGMENTS_RESUMED)
    assert reopened(store)
    monkeypatch.setattr(limits, "SEGMENTS_MAX", 1 + limits.SEGMENTS_RESUMED)
    assert not reopened(store)
    assert reopened(store, at_resume_point=False) is False


@pytest.mark.parametrize("sort", ["data", "journal"])
def test_what_was_not_acknowledged_since_a_sync_failed_is_not_counted_when_the_stream_resumes(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, sort: str
) -> None:
    """What the page cache shows of it after that may never reach the disk: it must be written anew."""
    ingest = Ingest(store.begin(KEY, open_offer(SENDER, push_of(RAW))))
    take(ingest, crash.chunks()[:1])
    journal = journal_of(store).read_bytes()
    take_one(ingest, crash.chunks()[1])
    failing = data_of(store) if sort == "data" else journal_of(store)
    real = os.fdatasync

    def fdatasync(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").samefile(failing):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    with pytest.raises(OSError, match="Input/output error"):
        ingest.partial.sync(ingest.batch())
    ingest.partial.close(keep=True)
    monkeypatch.undo()
    ingest = resume(store, SENDER, RAW)
    assert ingest.offset == BORDERS[0]
    assert journal_of(store).read_bytes() == journal
    assert data_of(store).read_bytes() == crash.chunks()[0].frame
    take(ingest, chunks_from(RAW, ingest.offset))
    assert commit_stream(store, SENDER, ingest, RAW) == FILE
    check_resumes(store)


def test_a_look_whether_it_arrives_does_not_keep_a_stream_from_resuming(store: LocalStore) -> None:
    """`list --partial` holds the lock for a moment."""
    begun(store)
    with journal_of(store).open("rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        with ThreadPoolExecutor(1) as pool:
            resuming = pool.submit(resume, store, SENDER, RAW)
            time.sleep(0.2)
            fcntl.flock(looking, fcntl.LOCK_UN)
            ingest = resuming.result()
        assert is_locked(journal_of(store))
        ingest.partial.close(keep=True)
        assert not is_locked(journal_of(store))


def test_lock_that_never_comes_is_an_error_and_leaves_nothing_open(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "_LOCK_SECONDS", 0.0)
    begun(store)
    before = os.listdir("/proc/self/fd")
    with journal_of(store).open("rb") as holding:
        fcntl.flock(holding, fcntl.LOCK_EX)
        refusal = rf"{journal_of(store)}: has been locked by another process for 0 s; `fuser`"
        with pytest.raises(StoreError, match=refusal):
            resume(store, SENDER, RAW)
    assert os.listdir("/proc/self/fd") == before
    resume(store, SENDER, RAW).partial.close(keep=True)


@pytest.mark.parametrize("which", ["data", "journal"])
def test_close_that_reports_an_error_leaves_nothing_open_and_closes_nothing_twice(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, which: str
) -> None:
    """As of a quota or a far disk: Linux has closed the file all the same, and the number may be another's."""
    monkeypatch.setattr(uploads, "_LOCK_SECONDS", 0.0)
    before = os.listdir("/proc/self/fd")
    begun(store)
    ingest = resume(store, SENDER, RAW)
    real, failing = os.close, data_of(store) if which == "data" else journal_of(store)

    def close(descriptor: int) -> None:
        said = Path(f"/proc/self/fd/{descriptor}").samefile(failing)
        real(descriptor)
        if said:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", close)
        ingest.partial.close(keep=True)
    line = f"partial {KEY}: closing it: [Errno 122] Disk quota exceeded; what was acknowledged is still durable"
    assert line in caplog.text
    assert os.listdir("/proc/self/fd") == before
    ingest.partial.close(keep=True)
    assert reopened(store)


def test_hash_of_the_file_is_caught_up_a_step_at_a_time(store: LocalStore) -> None:
    begun(store)
    size = data_of(store).stat().st_size
    ingest = resume(store, SENDER, RAW)
    assert ingest.partial.read(0, 10**9) == data_of(store).read_bytes()
    assert size > 100
    assert not ingest.partial.catch_up(100)  # a chunk at a time
    assert ingest.partial.catch_up(100)
    take(ingest, chunks_from(RAW, ingest.offset))
    assert ingest.partial.catch_up(0)  # what comes from now on is hashed as it comes
    commit_stream(store, SENDER, ingest, RAW)
    check_resumes(store)


def test_hash_of_a_file_that_was_cut_meanwhile_is_none(store: LocalStore) -> None:
    begun(store)
    ingest = resume(store, SENDER, RAW)
    os.truncate(data_of(store), 7)
    with pytest.raises(PartialDamaged, match="its data file ends in chunk 0, at 7"):
        ingest.partial.catch_up(10**9)
    ingest.partial.close(keep=True)
    assert of_raw(store) == SET_ASIDE


@pytest.mark.parametrize("reading", ["catch_up", "read", "seal"])
def test_data_that_cannot_be_read_back_are_set_aside_and_the_stream_starts_over(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, reading: str
) -> None:
    """Else the push would go to its end, and fail there, every night."""
    begun(store)
    ingest = resume(store, SENDER, RAW)
    real, lost = os.pread, data_of(store).stat().st_ino

    def pread(descriptor: int, size: int, at: int) -> bytes:
        if os.fstat(descriptor).st_ino == lost and at < 100:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(descriptor, size, at)

    monkeypatch.setattr(os, "pread", pread)
    arguments = {"catch_up": (1,), "read": (0, 10), "seal": (2,)}[reading]
    with pytest.raises(PartialDamaged, match=f"partial {KEY}: cannot be read: .*Input/output error; it is set aside"):
        getattr(ingest.partial, reading)(*arguments)
    ingest.partial.close(keep=True)
    assert caplog.text.count(f"partial {KEY}: ") == 1
    assert of_raw(store) == SET_ASIDE
    assert store_stream(store, SENDER, RAW) == FILE


def test_journal_that_cannot_be_read_back_for_the_index_is_set_aside(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest = ingest_stream(store, SENDER, RAW)
    lose_sector(journal_of(store), monkeypatch)
    with pytest.raises(PartialDamaged, match="Input/output error"):
        commit_stream(store, SENDER, ingest, RAW)
    assert of_raw(store) == SET_ASIDE
    assert store_stream(store, SENDER, RAW) == FILE


def test_push_begins_anew_beside_a_partial_whose_journal_is_damaged(spoilt: LocalStore) -> None:
    assert spoilt.reopen(KEY, at_resume_point=False) is None
    assert of_raw(spoilt) == SET_ASIDE


def test_push_that_starts_over_is_not_kept_from_it_by_a_journal_that_is_damaged(spoilt: LocalStore) -> None:
    spoilt.begin(KEY, open_offer(SENDER, push_of(RAW))).close(keep=True)
    assert of_raw(spoilt) == {*SET_ASIDE, f"{KEY}.data", f"{KEY}.journal"}
    assert data_of(spoilt).read_bytes() == b""


def test_partial_of_the_same_key_is_deleted(store: LocalStore) -> None:
    begun(store)
    store.begin(KEY, open_offer(SENDER, push_of(RAW))).close(keep=True)
    assert data_of(store).read_bytes() == b""
    assert kept(store) == Kept(0, 0, b"", committing=False)


@pytest.mark.parametrize("sort", ["data", "journal"])
def test_partial_whose_sync_failed_once_never_syncs_again(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, sort: str
) -> None:
    """The kernel forgets after a failed fsync that the pages were dirty: the next one would succeed, and lie."""
    ingest = Ingest(store.begin(KEY, open_offer(SENDER, push_of(RAW))))
    take(ingest, crash.chunks()[:1])
    take_one(ingest, crash.chunks()[1])
    batch = ingest.batch()
    failing = data_of(store) if sort == "data" else journal_of(store)
    real = os.fdatasync

    def fdatasync(descriptor: int) -> None:
        if os.path.sameopenfile(descriptor, os.open(failing, os.O_RDONLY)):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    with pytest.raises(OSError, match="Input/output error"):
        ingest.partial.sync(batch)
    monkeypatch.undo()
    with pytest.raises(StoreError, match="syncing failed before"):
        ingest.partial.sync(batch)
    with pytest.raises(StoreError):
        ingest.partial.seal(2)
    ingest.partial.close(keep=True)


def test_partial_whose_write_failed_appends_nothing_more_but_keeps_what_is_whole(store: LocalStore) -> None:
    ingest = Ingest(store.begin(KEY, open_offer(SENDER, push_of(RAW))))
    take_one(ingest, crash.chunks()[0])
    with file_size_limit(ingest.partial.size + 10), pytest.raises(OSError, match="File too large"):
        ingest.partial.append(bytes(100))
    with pytest.raises(StoreError, match="writing failed before"):
        ingest.partial.append(bytes(100))
    ingest.partial.sync(ingest.batch())
    ingest.partial.close(keep=True)
    check_recovery(store, (f"acknowledged {BORDERS[0]}",))


def test_partial_is_not_sealed_before_all_of_it_is_durable(store: LocalStore) -> None:
    ingest = Ingest(store.begin(KEY, open_offer(SENDER, push_of(RAW))))
    take(ingest, crash.chunks()[:1])
    take_one(ingest, crash.chunks()[1])
    with pytest.raises(StoreError, match="of which only"):
        ingest.partial.seal(2)
    ingest.partial.close(keep=True)


def test_batch_is_journaled_with_its_entries_only_after_its_data_are_synced(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = store.begin(KEY, open_offer(SENDER, push_of(RAW)))
    calls: list[str] = []
    for name in ("write", "fdatasync"):
        real = getattr(os, name)

        def traced(descriptor: int, *rest: Any, name: str = name, real: Any = real) -> Any:
            calls.append(f"{name} {Path(os.readlink(f'/proc/self/fd/{descriptor}')).suffix}")
            return real(descriptor, *rest)

        monkeypatch.setattr(os, name, traced)
    partial.append(b"frame")
    partial.sync(Batch(5, 5, (), WalkerState(5, Phase.SUBSTREAM), ()))
    monkeypatch.undo()
    partial.close(keep=True)
    assert calls == ["write .data", "fdatasync .data", "write .journal", "fdatasync .journal"]
