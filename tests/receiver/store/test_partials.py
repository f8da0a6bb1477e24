from __future__ import annotations

import errno
import fcntl
import itertools
import json
import os
import re
import resource
import shutil
import subprocess
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from tests.receiver import crash
from tests.receiver.helpers import (
    PROGRAM,
    SENDER,
    check_listed,
    checked,
    chunks_from,
    chunks_of,
    commit_stream,
    decode,
    everything,
    finish_of,
    go_on,
    hash_path,
    ingest_stream,
    long_stream,
    make_store,
    manifest_path,
    program,
    push_of,
    read_manifest,
    segments_of,
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
from fullsend_receiver.arrival.commit import commit
from fullsend_receiver.arrival.ingest import Ingest
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.maintenance.scrub import rebuild
from fullsend_receiver.store import journal, partials
from fullsend_receiver.store.api import PartialDamaged, StoreError, Upload
from fullsend_receiver.store.journal import Batch
from fullsend_receiver.store.local import LocalStore as Store
from fullsend_receiver.store.opened import open_offer, partial_key
from fullsend_receiver.store.partials import (
    committing,
    discard,
    is_arriving,
    journal_entries,
    recover,
    remove_temporaries,
    survey,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.receiver.crash import Crasher
    from tests.streams import Genuine

#: A stream of three chunks, and where each ends in the raw stream.
RAW = crash.RAW
BORDERS = tuple(itertools.accumulate(chunk.raw_length for chunk in crash.chunks()))
FILE = PurePosixPath("alpha/tank/data/@now.1122334455667788.full.zfs.zst")
KEY = partial_key(SENDER, push_of(RAW))


SHORT = long_stream(1, tail=1)  # two chunks: the model of power cuts reads all files at each step
#: What is left at each step: only what is sure, and so many draws of what may be.
DRAWS = 4


@dataclass(frozen=True)
class Left:
    """What a power cut left, at a step, and what the sender had been told by then."""

    store: Store
    told: int
    stored: bool


@dataclass(frozen=True)
class Kept:
    """A partial as it is found on the disk. `offset`: what its journal says is durable."""

    offset: int
    stored: int
    data: bytes
    committing: bool


def kept(store: Store) -> Kept | None:
    """Read the one partial, by docs/format.md, section 6."""
    journals = list(store.partial.glob("*.journal"))
    if not journals:
        return None
    (journal,) = journals
    offset = stored = 0
    commits = False
    for line in journal.read_bytes().splitlines(keepends=True):
        crc, body = line[:8], line[9:-1]
        if line[8:9] + line[-1:] != b" \n" or int(crc, 16) != zlib.crc32(body):
            break
        row = json.loads(body)
        if "durable" in row:
            offset, stored = row["durable"]["offset"], row["durable"]["stored"]
        commits = commits or "commit" in row
    data = journal.with_suffix(".data")
    return Kept(offset, stored, data.read_bytes() if data.exists() else b"", commits)


def acknowledged(told: tuple[str, ...]) -> int:
    """The last offset that a sender was told of."""
    return max([0, *(int(line.split()[1]) for line in told if line.startswith("acknowledged "))])


def check_recovery(store: Store, told: tuple[str, ...] = ()) -> None:
    """Start after a crash, and hold what is there against what design section 5 promises."""
    before = kept(store)
    listed_before = check_listed(store)
    assert not any(line.startswith("stored ") for line in told) or listed_before == [str(FILE)]

    recover(store)

    after = kept(store)
    listed = check_listed(store)
    assert not read_catalogue(store).problems
    if listed_before or (before and before.committing):
        assert listed == [str(FILE)]
        assert after is None
    else:
        assert not listed
        assert acknowledged(told) <= (after.offset if after else 0), "what was acknowledged is lost"
        if after is not None:
            assert after.offset in BORDERS
            assert len(after.data) == after.stored
            assert decode(after.data) == RAW[: after.offset]
    suffixes = {".journal", ".data"} if after else set()
    assert {path.suffix for path in store.partial.iterdir()} == suffixes

    there = everything(store.root)
    recover(store)
    assert everything(store.root) == there, "a second start changes something"


def check_pushed_again(store: Store) -> None:
    """The same stream, from the start: whatever happened before, it is stored once."""
    assert store_stream(store, SENDER, RAW) == FILE
    assert check_listed(store) == [str(FILE)]
    assert not list(store.partial.iterdir())


def begun(store: Store, chunks: int = 2) -> Upload:
    """A partial of so many chunks, each a batch; closed."""
    push = push_of(RAW)
    ingest = Ingest(store.begin(KEY, open_offer(SENDER, push)))
    take(ingest, crash.chunks()[:chunks])
    ingest.partial.close(keep=True)
    return ingest.partial


def journal_of(store: Store) -> Path:
    return store.partial / f"{KEY}.journal"


def data_of(store: Store) -> Path:
    return store.partial / f"{KEY}.data"


# --- kill -9 ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("torn", [False, True], ids=["between calls", "amid writes"])
def test_kill_at_any_call_of_a_push_keeps_what_was_acknowledged_and_lists_only_what_is_whole(
    swift_path: Path, crasher: Crasher, torn: bool
) -> None:
    seen = set()
    for at in itertools.count(1):
        store = make_store(swift_path, f"store{at}")
        outcome = crasher.run("push", store.root, at=at, call="write" if torn else None, torn=torn)
        if not outcome.killed:
            break
        seen.add(outcome.call)
        check_recovery(store, outcome.told)
        check_pushed_again(store)
        shutil.rmtree(store.root)
    assert outcome.told[-1] == f"stored {FILE}"
    assert seen == ({"write"} if torn else {"write", "fdatasync", "fsync", "rename", "unlink", "mkdir"})


def test_kill_at_any_call_of_a_push_that_starts_over_keeps_the_old_partial_or_nothing(
    swift_path: Path, crasher: Crasher
) -> None:
    """The old one is thrown away before the first byte of the new one is acknowledged."""
    for at in itertools.count(1):
        store = make_store(swift_path, f"store{at}")
        begun(store)
        outcome = crasher.run("push", store.root, at=at)
        check_recovery(store, outcome.told)
        if acknowledged(outcome.told):
            break
        check_pushed_again(store)
        shutil.rmtree(store.root)
    assert at > 5


@pytest.mark.slow
def test_kill_at_any_call_of_a_start_changes_nothing_for_the_next(swift_path: Path, crasher: Crasher) -> None:
    """From each state that a killed push can leave, a start that is killed at each of its own calls."""
    left: dict[tuple[bool, bool, bool], Path] = {}
    for at in itertools.count(1):
        store = make_store(swift_path, f"store{at}")
        outcome = crasher.run("push", store.root, at=at)
        if not outcome.killed:
            break
        state = kept(store)
        in_place = (store.root / FILE).exists(), manifest_path(store, FILE).exists()
        left[state is not None and state.committing, *in_place] = store.root
    assert set(left) == {
        (False, False, False),
        (True, False, False),
        (True, True, False),
        (True, True, True),
        (False, True, True),
    }
    for folder in left.values():
        for at in itertools.count(1):
            store = Store(swift_path / "again")
            shutil.copytree(folder, store.root)
            outcome = crasher.run("start", store.root, at=at)
            check_recovery(store)
            check_pushed_again(store)
            shutil.rmtree(store.root)
            if not outcome.killed:
                break


def cut(store: Store, crasher: Crasher, call: str, at: int) -> None:
    outcome = crasher.run("push", store.root, call=call, at=at)
    assert outcome.killed
    assert outcome.call == call


def test_commit_cut_before_the_renames_is_completed_by_the_next_start(store: Store, crasher: Crasher) -> None:
    cut(store, crasher, "rename", 1)
    assert not (store.root / FILE).exists()
    assert committing(store) == {FILE}
    assert not read_catalogue(store).streams
    assert recover(store) == [f"{FILE}: its commit was interrupted and is complete now"]
    assert check_listed(store) == [str(FILE)]


def test_commit_cut_between_zst_and_hash_is_completed_by_the_next_start(store: Store, crasher: Crasher) -> None:
    cut(store, crasher, "rename", 2)
    assert (store.root / FILE).exists()
    assert not hash_path(store, FILE).exists()
    assert not read_catalogue(store).streams
    assert recover(store) == [f"{FILE}: its commit was interrupted and is complete now"]
    assert check_listed(store) == [str(FILE)]


def test_commit_cut_between_the_renames_is_completed_by_the_next_start(store: Store, crasher: Crasher) -> None:
    cut(store, crasher, "rename", 3)
    assert (store.root / FILE).exists()
    assert hash_path(store, FILE).exists()
    assert not manifest_path(store, FILE).exists()
    assert not read_catalogue(store).streams
    assert recover(store) == [f"{FILE}: its commit was interrupted and is complete now"]
    assert check_listed(store) == [str(FILE)]


def test_commit_cut_after_the_renames_is_listed_and_cleaned_up_by_the_next_start(
    store: Store, crasher: Crasher
) -> None:
    removals_at_the_start = 4  # of a partial of the same key that is not there
    cut(store, crasher, "unlink", removals_at_the_start + 1)
    assert check_listed(store) == [str(FILE)]
    assert committing(store) == {FILE}
    assert recover(store) == [f"{FILE}: its commit was interrupted and is complete now"]
    assert check_listed(store) == [str(FILE)]
    assert not list(store.partial.iterdir())


@pytest.mark.parametrize("at", [1, 2, 3])
def test_commit_that_is_under_way_is_no_problem_in_a_listing(store: Store, crasher: Crasher, at: int) -> None:
    cut(store, crasher, "rename", at)
    catalogue = read_catalogue(store)
    assert (catalogue.streams, catalogue.problems) == ([], [])


@pytest.mark.parametrize("at", [1, 2, 3])
def test_commit_that_failed_in_a_running_daemon_is_completed_by_the_next_push(
    store: Store, crasher: Crasher, at: int
) -> None:
    cut(store, crasher, "rename", at)
    store.begin(KEY, open_offer(SENDER, push_of(RAW))).close(keep=True)
    assert check_listed(store) == [str(FILE)]
    assert not read_catalogue(store).problems


# --- going on ---------------------------------------------------------------------------------------------------


def left_behind(store: Store, chunks: int, per_batch: int) -> None:
    """A partial of so many chunks, of which so many become durable at a time."""
    ingest = Ingest(store.begin(KEY, open_offer(SENDER, push_of(RAW))))
    take(ingest, crash.chunks()[:chunks], per_batch=per_batch)
    ingest.partial.close(keep=True)


def check_went_on(store: Store, raw: bytes = RAW, borders: tuple[int, ...] = BORDERS) -> None:
    """Whatever happened: what is there is gone on with, to its end."""
    if not read_catalogue(store).streams:
        found = store.reopen(KEY, at_resume_point=False)
        ingest = Ingest(*found) if found else Ingest(store.begin(KEY, open_offer(SENDER, push_of(raw))))
        assert ingest.offset in {0, *borders}
        take(ingest, chunks_from(raw, ingest.offset))
        assert commit_stream(store, SENDER, ingest, raw) == FILE
    assert check_listed(store) == [str(FILE)]
    (stored,) = read_catalogue(store).streams
    assert checked(store, stored).damage == ()
    assert not list(store.partial.iterdir())


#: chunks that are there, in batches of how many, how it is gone on with, and from where at least.
GOING_ON = {
    "at the end": (2, 1, "replay", BORDERS[1]),
    "at the end, all of it": (3, 2, "reconnect", BORDERS[2]),
    "by a token, at the end": (2, 1, "token", BORDERS[1]),
    "by a token, behind a line": (3, 1, "token", BORDERS[1]),
    "by a token, amid a line": (3, 3, "token", BORDERS[1]),
}


@pytest.mark.parametrize("torn", [False, True], ids=["between calls", "amid writes"])
@pytest.mark.parametrize("case", GOING_ON)
@pytest.mark.slow
def test_kill_at_any_call_of_going_on_loses_nothing_but_what_the_sender_gave_up(
    swift_path: Path, crasher: Crasher, case: str, torn: bool
) -> None:
    chunks, per_batch, how, least = GOING_ON[case]
    for at in itertools.count(1):
        store = make_store(swift_path, f"store{at}")
        left_behind(store, chunks, per_batch)
        with data_of(store).open("ab") as file:
            file.write(b"written, and never acknowledged")
        outcome = crasher.run("go_on", store.root, how, at=at, call="write" if torn else None, torn=torn)
        if not outcome.killed:
            break
        check_recovery(store, (*outcome.told, f"acknowledged {least}"))
        check_went_on(store)
        shutil.rmtree(store.root)
    assert outcome.told[0] == f"acknowledged {least}"
    assert outcome.told[-1] == f"stored {FILE}"
    resumed = read_manifest(store, FILE)
    assert [(each.how, each.offset) for each in resumed.resumptions] == [(how, least)]
    assert [segment.start for segment in resumed.segments] == sorted({0, least} - {len(RAW)})
    check_went_on(store)


@pytest.mark.parametrize("border", [0, 1, 2])
def test_stream_goes_on_at_every_border_and_is_as_if_it_had_never_been_interrupted(store: Store, border: int) -> None:
    left_behind(store, border + 1, border + 1)
    ingest = go_on(store, SENDER, RAW)
    assert ingest.offset == BORDERS[border]
    take(ingest, chunks_from(RAW, ingest.offset))
    while not ingest.partial.catch_up(1000):
        pass
    assert commit_stream(store, SENDER, ingest, RAW) == FILE
    check_went_on(store)
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
def test_genuine_stream_goes_on_at_every_border(store: Store, stream: Genuine) -> None:
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
        ingest = go_on(store, SENDER, raw)
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
def test_power_cut_at_any_moment_of_going_on_loses_nothing_but_what_the_sender_gave_up(
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
            found.append(Left(Store(folder), told, stored))

    with Disk(store.root, lights_out) as disk:
        ingest = go_on(store, SENDER, SHORT, at_resume_point=how == "token")
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
        check_went_on(left.store, SHORT, borders)


def reopened(store: Store, *, at_resume_point: bool = False) -> bool:
    """Whether there is something to go on with; where there is not, nothing has changed."""
    there = everything(store.partial)
    found = store.reopen(KEY, at_resume_point=at_resume_point)
    if found is None:
        assert everything(store.partial) == there
        return False
    found[0].close(keep=True)
    return True


def test_there_is_nothing_to_go_on_with_where_nothing_came(store: Store) -> None:
    assert not reopened(store)
    begun(store, chunks=0)
    assert not reopened(store)
    assert not reopened(store, at_resume_point=True)


@pytest.mark.parametrize("missing", [1, None], ids=["a byte", "the file"])
@pytest.mark.parametrize("at_resume_point", [False, True])
def test_data_that_are_shorter_than_their_journal_are_not_gone_on_with(
    store: Store, missing: int | None, at_resume_point: bool
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


def test_partial_whose_last_chunk_ends_where_none_may_is_begun_anew_but_a_token_goes_back(store: Store) -> None:
    ingest = Ingest(store.begin(KEY, open_offer(SENDER, push_of(RAW))))
    first, second, _third = crash.chunks()
    piece = RAW[second.raw_offset :][: second.raw_length - 1]
    segment = SegmentHash(second.raw_offset)
    frame = Compressor(1).compress(piece)
    short = Chunk(second.raw_offset, len(piece), segment.update(piece), frame, starts_segment=True)
    take(ingest, [first, short])
    ingest.partial.close(keep=True)
    assert not reopened(store)
    ingest = go_on(store, SENDER, RAW, at_resume_point=True)
    assert ingest.offset == BORDERS[0]
    take(ingest, chunks_from(RAW, ingest.offset))
    assert commit_stream(store, SENDER, ingest, RAW) == FILE
    check_went_on(store)


def test_partial_of_too_many_segments_is_begun_anew(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(store, chunks=1)
    ingest = go_on(store, SENDER, RAW)
    take(ingest, [next(chunks_from(RAW, BORDERS[0]))])
    ingest.partial.close(keep=True)
    monkeypatch.setattr(limits, "SEGMENTS_MAX", 2 + limits.SEGMENTS_RESUMED)
    assert reopened(store)
    monkeypatch.setattr(limits, "SEGMENTS_MAX", 1 + limits.SEGMENTS_RESUMED)
    assert not reopened(store)
    assert reopened(store, at_resume_point=False) is False


@pytest.mark.parametrize("sort", ["data", "journal"])
def test_what_was_not_acknowledged_since_a_sync_failed_is_not_counted_when_the_stream_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch, sort: str
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
    ingest = go_on(store, SENDER, RAW)
    assert ingest.offset == BORDERS[0]
    assert journal_of(store).read_bytes() == journal
    assert data_of(store).read_bytes() == crash.chunks()[0].frame
    take(ingest, chunks_from(RAW, ingest.offset))
    assert commit_stream(store, SENDER, ingest, RAW) == FILE
    check_went_on(store)


def test_a_look_whether_it_arrives_does_not_keep_a_stream_from_going_on(store: Store) -> None:
    """`list --partial` holds the lock for a moment."""
    begun(store)
    with journal_of(store).open("rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        with ThreadPoolExecutor(1) as pool:
            going_on = pool.submit(go_on, store, SENDER, RAW)
            time.sleep(0.2)
            fcntl.flock(looking, fcntl.LOCK_UN)
            ingest = going_on.result()
        assert is_arriving(journal_of(store))
        ingest.partial.close(keep=True)
        assert not is_arriving(journal_of(store))


def test_lock_that_never_comes_is_an_error_and_leaves_nothing_open(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partials, "_LOCK_SECONDS", 0.0)
    begun(store)
    before = os.listdir("/proc/self/fd")
    with journal_of(store).open("rb") as holding:
        fcntl.flock(holding, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match=rf"{journal_of(store)}: is locked by somebody else for 0 s now; `fuser`"):
            go_on(store, SENDER, RAW)
    assert os.listdir("/proc/self/fd") == before
    go_on(store, SENDER, RAW).partial.close(keep=True)


@pytest.mark.parametrize("which", ["data", "journal"])
def test_close_that_reports_an_error_leaves_nothing_open_and_closes_nothing_twice(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, which: str
) -> None:
    """As of a quota or a far disk: Linux has closed the file all the same, and the number may be another's."""
    monkeypatch.setattr(partials, "_LOCK_SECONDS", 0.0)
    before = os.listdir("/proc/self/fd")
    begun(store)
    ingest = go_on(store, SENDER, RAW)
    real, failing = os.close, data_of(store) if which == "data" else journal_of(store)

    def close(descriptor: int) -> None:
        said = Path(f"/proc/self/fd/{descriptor}").samefile(failing)
        real(descriptor)
        if said:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", close)
        ingest.partial.close(keep=True)
    assert (
        f"partial {KEY}: closing it: [Errno 122] Disk quota exceeded; what was acknowledged is durable" in caplog.text
    )
    assert os.listdir("/proc/self/fd") == before
    ingest.partial.close(keep=True)
    assert reopened(store)


def test_hash_of_the_file_is_caught_up_a_step_at_a_time(store: Store) -> None:
    begun(store)
    size = data_of(store).stat().st_size
    ingest = go_on(store, SENDER, RAW)
    assert ingest.partial.read(0, 10**9) == data_of(store).read_bytes()
    steps = 1
    while not ingest.partial.catch_up(100):
        steps += 1
    assert steps == -(-size // 100)
    assert ingest.partial.catch_up(100)
    take(ingest, chunks_from(RAW, ingest.offset))
    assert ingest.partial.catch_up(0)  # what comes from now on is hashed as it comes
    commit_stream(store, SENDER, ingest, RAW)
    check_went_on(store)


def test_hash_of_a_file_that_was_cut_meanwhile_is_none(store: Store) -> None:
    begun(store)
    ingest = go_on(store, SENDER, RAW)
    os.truncate(data_of(store), 7)
    with pytest.raises(PartialDamaged, match="its data file ends at 7, and"):
        ingest.partial.catch_up(10**9)
    ingest.partial.close(keep=True)
    assert of_raw(store) == SET_ASIDE


@pytest.mark.parametrize("reading", ["catch_up", "read", "seal"])
def test_data_that_cannot_be_read_back_are_set_aside_and_the_stream_starts_over(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, reading: str
) -> None:
    """Else the push would go to its end, and fail there, every night."""
    begun(store)
    ingest = go_on(store, SENDER, RAW)
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
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest = ingest_stream(store, SENDER, RAW)
    lose_sector(journal_of(store), monkeypatch)
    with pytest.raises(PartialDamaged, match="Input/output error"):
        commit_stream(store, SENDER, ingest, RAW)
    assert of_raw(store) == SET_ASIDE
    assert store_stream(store, SENDER, RAW) == FILE


# --- power cuts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("over", [False, True], ids=["new", "over an old partial"])
def test_power_cut_at_any_moment_of_a_push_keeps_what_was_acknowledged_and_lists_only_what_is_whole(
    swift_path: Path, over: bool
) -> None:
    store = make_store(swift_path)
    if over:
        begun(store, chunks=1)
    told = 0
    stored = False
    found: list[Left] = []

    def lights_out(disk: Disk) -> None:
        for draw in range(DRAWS + 1):
            folder = swift_path / f"{disk.steps}.{draw}"
            disk.leave(folder, seed=100 * disk.steps + draw if draw else None)
            found.append(Left(Store(folder), told, stored))

    push = push_of(SHORT)
    chunks = list(chunks_of(SHORT))
    with Disk(store.root, lights_out) as disk:
        ingest = Ingest(store.begin(partial_key(SENDER, push), open_offer(SENDER, push)))
        for chunk in chunks:
            take_one(ingest, chunk)
            batch = ingest.batch()
            ingest.partial.sync(batch)
            told = batch.offset
        finish = finish_of(SHORT)
        assert commit(Catalogues(store), SENDER, ingest, finish, push, sender_program=PROGRAM).receipt.file == str(FILE)
        stored = True
        disk.step()

    assert disk.steps > 30
    for left in found:
        before = kept(left.store)
        listed_before = check_listed(left.store)
        assert not left.stored or listed_before == [str(FILE)]
        recover(left.store)
        after = kept(left.store)
        listed = check_listed(left.store)
        assert not read_catalogue(left.store).problems
        if listed_before or (before and before.committing):
            assert listed == [str(FILE)]
        else:
            assert not listed
            assert left.told <= (after.offset if after else 0), left
            if after is not None:
                assert after.offset in {chunks[0].raw_length, len(SHORT)}
                assert decode(after.data) == SHORT[: after.offset]


def test_power_cut_at_any_moment_of_a_start_completes_the_commit_all_the_same(
    swift_path: Path, crasher: Crasher
) -> None:
    store = make_store(swift_path)
    cut(store, crasher, "rename", 1)
    found: list[Store] = []

    def lights_out(disk: Disk) -> None:
        for draw in range(DRAWS + 1):
            found.append(Store(swift_path / f"{disk.steps}.{draw}"))
            disk.leave(found[-1].root, seed=100 * disk.steps + draw if draw else None)

    with Disk(store.root, lights_out) as disk:
        recover(store)
        disk.step()

    assert disk.steps > 8
    for left in found:
        recover(left)
        assert check_listed(left) == [str(FILE)]
        assert not read_catalogue(left).problems


def test_folders_that_another_stream_has_just_made_are_durable_before_the_commit(store: Store, tmp_path: Path) -> None:
    """They are there, but nobody has synced them yet: then our file would go with them."""
    ingest = ingest_stream(store, SENDER, SHORT)
    left = Store(tmp_path / "left")
    with Disk(store.root, lambda _disk: None) as disk:
        (store.root / FILE).parent.mkdir(parents=True)
        assert commit_stream(store, SENDER, ingest, SHORT) == FILE
        disk.leave(left.root)
    assert check_listed(left) == [str(FILE)]


# --- journals ---------------------------------------------------------------------------------------------------


def test_torn_last_line_is_as_if_it_had_not_been_written(store: Store) -> None:
    begun(store)
    journal = journal_of(store).read_bytes()
    data = data_of(store).read_bytes()
    last = journal.rindex(b"\n", 0, -1) + 1
    for length in range(last, len(journal)):
        journal_of(store).write_bytes(journal[:length])
        data_of(store).write_bytes(data)
        assert recover(store) == [f"partial {KEY}: kept, with {BORDERS[0]} raw bytes"]
        assert journal_of(store).read_bytes() == journal[:last]
        assert decode(data_of(store).read_bytes()) == RAW[: BORDERS[0]]


def test_last_line_with_a_wrong_byte_anywhere_is_as_if_it_had_not_been_written(store: Store) -> None:
    begun(store)
    journal = journal_of(store).read_bytes()
    data = data_of(store).read_bytes()
    last = journal.rindex(b"\n", 0, -1) + 1
    for at in range(last, len(journal)):
        journal_of(store).write_bytes(journal[:at] + bytes([journal[at] ^ 1]) + journal[at + 1 :])
        data_of(store).write_bytes(data)
        recover(store)
        assert journal_of(store).read_bytes() == journal[:last]
        assert decode(data_of(store).read_bytes()) == RAW[: BORDERS[0]]


@pytest.mark.parametrize("tail", [b"\0", b"\0" * 5000, b"half a frame", b"00000000 {}\n", b"\n"])
def test_what_follows_the_last_whole_line_is_cut_off(store: Store, tail: bytes) -> None:
    begun(store)
    journal = journal_of(store).read_bytes()
    journal_of(store).write_bytes(journal + tail)
    recover(store)
    assert journal_of(store).read_bytes() == journal


def test_data_beyond_the_last_acknowledged_batch_are_cut_off(store: Store) -> None:
    begun(store)
    data = data_of(store).read_bytes()
    with data_of(store).open("ab") as file:
        file.write(crash.chunks()[2].frame[:1000])
    recover(store)
    assert data_of(store).read_bytes() == data


@pytest.mark.parametrize("missing", [1, 100, None], ids=["a byte", "more", "the file"])
def test_data_that_lack_what_was_acknowledged_are_set_aside(
    store: Store, missing: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    """The disk has lost what it had synced: nothing of it is acknowledged again, and the daemon starts all the same."""
    begun(store)
    journal = (store.partial / f"{KEY}.journal").read_bytes()
    if missing is None:
        data_of(store).unlink()
        left = {}
    else:
        os.truncate(data_of(store), data_of(store).stat().st_size - missing)
        left = {f"{KEY}.data.damaged": data_of(store).read_bytes()}
    assert recover(store) == []
    assert re.search(rf"partial {KEY}: has \d+ bytes where \d+ were acknowledged: this disk has lost", caplog.text)
    assert everything(store.partial) == {f"{KEY}.journal.damaged": journal, **left}
    assert recover(store) == []
    assert everything(store.partial) == {f"{KEY}.journal.damaged": journal, **left}
    assert store_stream(store, SENDER, RAW) == FILE


def test_setting_aside_may_be_cut_short(store: Store) -> None:
    begun(store)
    os.truncate(data_of(store), 1)
    data_of(store).rename(store.partial / f"{KEY}.data.damaged")  # as far as it got
    assert recover(store) == []
    assert set(everything(store.partial)) == {f"{KEY}.journal.damaged", f"{KEY}.data.damaged"}


def flip(path: Path) -> None:
    """A bit of the first line, which others follow, is not what was written."""
    content = path.read_bytes()
    path.write_bytes(content[:50] + bytes([content[50] ^ 1]) + content[51:])


@pytest.fixture(params=["a bit", "a sector"])
def spoilt(request: pytest.FixtureRequest, store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store with two partials; the disk has lost something of the journal of RAW's."""
    begun(store)
    ingest = second(store, RAW)
    ingest.partial.close(keep=True)
    if request.param == "a bit":
        flip(journal_of(store))
    else:
        lose_sector(journal_of(store), monkeypatch)
    return store


def lose_sector(bad: Path, monkeypatch: pytest.MonkeyPatch, number: int = errno.EIO) -> None:
    """The file cannot be read any more, whatever it is called."""
    real, lost = Path.open, bad.stat().st_ino

    def opened(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.exists() and path.stat().st_ino == lost:
            raise OSError(number, os.strerror(number), str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", opened)


SET_ASIDE = {f"{KEY}.data.damaged", f"{KEY}.journal.damaged"}


def of_raw(store: Store) -> set[str]:
    return {path.name for path in store.partial.glob(f"{KEY}*")}


def test_start_sets_a_partial_aside_whose_journal_is_damaged_and_keeps_the_others(
    spoilt: Store, caplog: pytest.LogCaptureFixture
) -> None:
    other = partial_key(SENDER, push_of(RAW).model_copy(update={"snapshot": "as announced"}))
    assert recover(spoilt) == [f"partial {other}: kept, with {len(RAW)} raw bytes"]
    assert of_raw(spoilt) == SET_ASIDE
    (said,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert re.search(
        rf"partial {KEY}: (cannot be read: .*Input/output|what its journal has from byte 0 on is not what was written)"
        rf".*; check this disk; it is set aside as {data_of(spoilt)}.damaged, and its stream starts over",
        said.getMessage(),
    )
    assert store_stream(spoilt, SENDER, RAW) == FILE


def test_partial_of_a_later_format_is_set_aside_as_it_is(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """What its lines mean is not known: a start must not cut it back by them, nor complete a commit."""
    begun(store)
    first, *rest = journal_of(store).read_bytes().splitlines(keepends=True)
    body = first[9:-1].replace(b'"format":1', b'"format":2')
    commits = journal.commit_line(FILE)
    journal_of(store).write_bytes(b"".join([b"%08x %b\n" % (zlib.crc32(body), body), *rest, commits]))
    with data_of(store).open("ab") as file:
        file.write(b"of a form to come")
    before = everything(store.partial)
    assert recover(store) == []
    assert everything(store.partial) == {f"{name}.damaged": content for name, content in before.items()}
    assert "has format 2, and this version of fullsendd reads format 1" in caplog.text
    assert store_stream(store, SENDER, RAW) == FILE


def test_push_begins_anew_beside_a_partial_whose_journal_is_damaged(spoilt: Store) -> None:
    assert spoilt.reopen(KEY, at_resume_point=False) is None
    assert of_raw(spoilt) == SET_ASIDE


def test_push_that_starts_over_is_not_kept_from_it_by_a_journal_that_is_damaged(spoilt: Store) -> None:
    spoilt.begin(KEY, open_offer(SENDER, push_of(RAW))).close(keep=True)
    assert of_raw(spoilt) == {*SET_ASIDE, f"{KEY}.data", f"{KEY}.journal"}
    assert data_of(spoilt).read_bytes() == b""


def test_whose_commit_is_under_way_is_known_beside_a_damaged_journal(spoilt: Store) -> None:
    before = of_raw(spoilt)
    assert committing(spoilt) == set()
    assert of_raw(spoilt) == before  # it only reads


def test_damaged_partial_that_cannot_be_set_aside_either_is_left(
    spoilt: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def replace(path: Path, target: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "replace", replace)
    assert len(recover(spoilt)) == 1
    assert of_raw(spoilt) == {f"{KEY}.data", f"{KEY}.journal"}
    assert "it cannot be set aside: [Errno 30] Read-only file system: " in caplog.text


def test_what_somebody_has_open_is_not_set_aside_beneath_him(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    begun(store)
    ingest = go_on(store, SENDER, RAW)
    flip(journal_of(store))
    assert list(survey(store, lambda upload: upload.journal, sets_aside=True)) == []
    assert of_raw(store) == {f"{KEY}.data", f"{KEY}.journal"}
    assert "it is arriving now" in caplog.text
    ingest.partial.close(keep=True)


def test_system_that_is_short_of_something_costs_no_partial(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(store)
    lose_sector(journal_of(store), monkeypatch, errno.EMFILE)
    for using in (
        committing,
        lambda store: store.begin(KEY, open_offer(SENDER, push_of(RAW))),
        lambda store: store.reopen(KEY, at_resume_point=False),
    ):
        with pytest.raises(OSError, match="Too many open files"):
            using(store)
    assert recover(store) == []
    monkeypatch.undo()
    assert reopened(store)


def test_what_may_not_be_read_is_left_as_it_is_and_costs_nobody_else_anything(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun(store)
    before = of_raw(store)
    lose_sector(journal_of(store), monkeypatch, errno.EACCES)
    assert committing(store) == set()
    assert recover(store) == []
    assert f"partial {KEY}: cannot be looked at: [Errno 13] Permission denied" in caplog.text
    with pytest.raises(PermissionError):
        store.reopen(KEY, at_resume_point=False)
    assert of_raw(store) == before
    monkeypatch.undo()
    assert reopened(store)


def test_start_goes_on_where_what_is_of_no_use_cannot_be_removed(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun(store)
    (store.partial / f"{'0' * 32}.data").touch()

    def unlink(path: Path, *, missing_ok: bool = False) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda path, missing_ok=False: unlink(path) if path.suffix == ".data" else None)
        assert recover(store) == [f"partial {KEY}: kept, with {BORDERS[1]} raw bytes"]
    assert f"{'0' * 32}.data: is of no use, and cannot be removed: [Errno 5] " in caplog.text


def test_partial_without_an_acknowledged_batch_is_thrown_away(store: Store) -> None:
    begun(store, chunks=0)
    data_of(store).write_bytes(b"never acknowledged")
    assert recover(store) == []
    assert not list(store.partial.iterdir())


@pytest.mark.parametrize("suffix", [".data", ".json", ".sha256"])
def test_file_without_its_journal_is_removed(store: Store, suffix: str) -> None:
    (store.partial / (KEY + suffix)).write_bytes(b"left behind")
    recover(store)
    assert not list(store.partial.iterdir())


def test_start_touches_nothing_that_is_not_of_a_partial(store: Store) -> None:
    (store.partial / ".serving").touch()
    store_stream(store, SENDER, RAW)
    there = everything(store.root)
    assert recover(store) == []
    assert everything(store.root) == there


def test_journal_entries_are_those_of_the_durable_chunks(store: Store) -> None:
    ingest = ingest_stream(store, SENDER, RAW)
    entries = list(journal_entries(store, KEY))
    ingest.partial.close(keep=True)
    assert [entry.raw_length for entry in entries] == [chunk.raw_length for chunk in crash.chunks()]
    assert [entry.stored_length for entry in entries] == [len(chunk.frame) for chunk in crash.chunks()]
    assert [entry.sha256 for entry in entries] == [chunk.sha256 for chunk in crash.chunks()]
    assert [entry.starts_segment for entry in entries] == [True, False, False]
    assert [entry.ends_at_resume_point for entry in entries] == [True, True, False]
    assert [entry.first_key for entry in entries] == [(1, 0), (1, 4 << 20), (2, 0)]


def test_partial_of_the_same_key_is_thrown_away(store: Store) -> None:
    begun(store)
    store.begin(KEY, open_offer(SENDER, push_of(RAW))).close(keep=True)
    assert data_of(store).read_bytes() == b""
    assert kept(store) == Kept(0, 0, b"", committing=False)


def test_what_a_killed_command_left_in_the_state_is_removed_and_nothing_else(store: Store) -> None:
    (store.state / ".senders.json.0123abcd.tmp").touch()
    (store.state / "senders.json").touch()
    remove_temporaries(store)
    assert {path.name for path in store.state.iterdir()} == {"lock", "senders.json"}


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": "tank/other"},
        {"snapshot": "then"},
        {"guid": "1"},
        {"guid": None},
        {"base_guid": "1"},
        {"flags": "L"},
        {"flags": None},
    ],
)
def test_streams_that_are_announced_differently_are_partials_of_their_own(change: dict[str, Any]) -> None:
    assert partial_key(SENDER, push_of(RAW).model_copy(update=change)) != KEY


def test_senders_have_partials_of_their_own() -> None:
    assert partial_key("beta", push_of(RAW)) != KEY


def test_what_a_sender_does_not_know_for_sure_does_not_tell_partials_apart() -> None:
    changed = push_of(RAW).model_copy(update={"size_estimate": 5, "zfs_version": "2.4"})
    assert partial_key(SENDER, changed) == KEY


# --- disks that fail --------------------------------------------------------------------------------------------


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let no file grow beyond a size: a full disk that needs no disk. The last write that fits is cut short."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def push_until_it_fails(store: Store) -> tuple[int, OSError | None]:
    """Take and commit RAW. Returns: the last offset that was acknowledged, and the error that ended it."""
    told = 0
    push = push_of(RAW)
    partial = None
    try:
        partial = store.begin(KEY, open_offer(SENDER, push))
        ingest = Ingest(partial)
        for chunk in crash.chunks():
            take_one(ingest, chunk)
            batch = ingest.batch()
            partial.sync(batch)
            told = batch.offset
        commit(Catalogues(store), SENDER, ingest, finish_of(RAW), push, sender_program=PROGRAM)
    except OSError as error:
        return told, error
    finally:
        if partial is not None:
            partial.close(keep=True)
    return told, None


def test_disk_that_fills_up_anywhere_keeps_what_was_acknowledged(swift_path: Path) -> None:
    told_in_all = set()
    whole = store_stream(make_store(swift_path), SENDER, RAW)
    most = (swift_path / "store" / whole).stat().st_size
    for size in [*range(0, most, 97), most - 1]:
        store = make_store(swift_path, f"store{size}")
        with file_size_limit(size):
            told, error = push_until_it_fails(store)
        assert error is not None
        assert error.errno == errno.EFBIG
        told_in_all.add(told)
        check_recovery(store, (f"acknowledged {told}",))
        check_pushed_again(store)
        shutil.rmtree(store.root)
    assert told_in_all == {0, *BORDERS}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_real_disk_that_is_full_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run([program("mount"), "-t", "tmpfs", "-o", "size=64k", "none", mount], check=True)
    try:
        store = make_store(mount)
        filler = mount / "filler"
        for room in (0, 4096, 8192, 12288, 16384, 20480, 24576):
            filler.write_bytes(bytes(shutil.disk_usage(mount).free))
            os.truncate(filler, max(0, filler.stat().st_size - room))
            told, error = push_until_it_fails(store)
            filler.unlink()
            assert error is None or error.errno == errno.ENOSPC
            check_recovery(store, (f"acknowledged {told}",))
        assert error is None
        assert told == len(RAW)
    finally:
        subprocess.run([program("umount"), mount], check=True)


@pytest.mark.parametrize("failing", range(1, 12))
def test_nothing_is_acknowledged_or_committed_after_a_failed_fdatasync(
    store: Store, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """Two a batch and one for the journal's first line; the rest are the commit's."""
    real, calls = os.fdatasync, itertools.count(1)

    def fdatasync(descriptor: int) -> None:
        if next(calls) == failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    told, error = push_until_it_fails(store)
    monkeypatch.undo()
    if error is None:
        assert failing > 9
        assert check_listed(store) == [str(FILE)]
        return
    assert error.errno == errno.EIO
    assert told == (0, *BORDERS)[max(0, failing - 2) // 2 if failing < 8 else 3]
    assert not check_listed(store)
    check_recovery(store, (f"acknowledged {told}",))
    check_pushed_again(store)


@pytest.mark.parametrize("sort", ["data", "journal"])
def test_partial_whose_sync_failed_once_never_syncs_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, sort: str
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


def test_partial_whose_write_failed_appends_nothing_more_but_keeps_what_is_whole(store: Store) -> None:
    ingest = Ingest(store.begin(KEY, open_offer(SENDER, push_of(RAW))))
    take_one(ingest, crash.chunks()[0])
    with file_size_limit(ingest.partial.size + 10), pytest.raises(OSError, match="File too large"):
        ingest.partial.append(bytes(100))
    with pytest.raises(StoreError, match="writing failed before"):
        ingest.partial.append(bytes(100))
    ingest.partial.sync(ingest.batch())
    ingest.partial.close(keep=True)
    check_recovery(store, (f"acknowledged {BORDERS[0]}",))


def test_partial_is_not_sealed_before_all_of_it_is_durable(store: Store) -> None:
    ingest = Ingest(store.begin(KEY, open_offer(SENDER, push_of(RAW))))
    take(ingest, crash.chunks()[:1])
    take_one(ingest, crash.chunks()[1])
    with pytest.raises(StoreError, match="of which only"):
        ingest.partial.seal(2)
    ingest.partial.close(keep=True)


# --- names that are taken ---------------------------------------------------------------------------------------


def second(store: Store, raw: bytes) -> Ingest:
    """The same stream, announced under another name: a partial of its own that belongs to the same file."""
    push = push_of(raw).model_copy(update={"snapshot": "as announced"})
    ingest = Ingest(store.begin(partial_key(SENDER, push), open_offer(SENDER, push)))
    take(ingest, chunks_of(raw))
    return ingest


def test_file_without_manifest_is_never_overwritten(store: Store) -> None:
    target = store.root / FILE
    target.parent.mkdir(parents=True)
    target.write_bytes(b"somebody's only copy")
    ingest = ingest_stream(store, SENDER, RAW)
    with pytest.raises(StoreError, match="is there without its manifest"):
        commit_stream(store, SENDER, ingest, RAW)
    assert target.read_bytes() == b"somebody's only copy"
    assert not manifest_path(store, FILE).exists()
    recover(store)
    assert target.read_bytes() == b"somebody's only copy"
    assert kept(store) == Kept(len(RAW), data_of(store).stat().st_size, data_of(store).read_bytes(), committing=False)


@pytest.mark.parametrize("at", [1, 2, 3])
def test_interrupted_commit_overwrites_nothing_that_came_in_between(
    store: Store, crasher: Crasher, at: int, caplog: pytest.LogCaptureFixture
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
        assert f"partial {KEY}: is left to the next push of its stream, or to the next start: {FILE}: is" in caplog.text
        with pytest.raises(StoreError, match="is there without its manifest"):
            store.begin(KEY, open_offer(SENDER, push_of(RAW)))
        assert data_of(store).exists()
    else:
        recover(store)  # its own data were moved; what stands there now is taken for them, and `verify` will tell
    assert target.read_bytes() == b"somebody's only copy"


def test_stream_that_was_stored_meanwhile_is_thrown_away_and_the_first_one_stays(store: Store) -> None:
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
        like = read_manifest(Store(swift_path / f"other{number}"), FILE)
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


def test_discarded_partial_is_gone(store: Store) -> None:
    begun(store)
    discard(store, KEY)
    discard(store, KEY)  # nothing left to throw away: fine too
    assert not list(store.partial.iterdir())


def test_batch_is_journaled_with_its_entries_only_after_its_data_are_synced(
    store: Store, monkeypatch: pytest.MonkeyPatch
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
