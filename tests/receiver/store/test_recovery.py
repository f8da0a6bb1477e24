from __future__ import annotations

import errno
import itertools
import os
import re
import shutil
import subprocess
import threading
import zlib
from concurrent.futures import Future, ThreadPoolExecutor, wait
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
    Left,
    acknowledged,
    begun,
    check_pushed_again,
    check_recovery,
    cut,
    data_of,
    file_size_limit,
    journal_of,
    kept,
    of_raw,
    push_until_it_fails,
)
from tests.receiver.helpers import (
    PROGRAM,
    SENDER,
    check_listed,
    chunks_of,
    commit_stream,
    decode,
    everything,
    finish_of,
    ingest_stream,
    make_store,
    manifest_path,
    program,
    push_of,
    store_stream,
    take_one,
)
from tests.receiver.powercut import Disk

from fullsend_receiver.arrival.commit import commit
from fullsend_receiver.arrival.ingest import Ingest
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.store import journal
from fullsend_receiver.store.local import LocalStore
from fullsend_receiver.store.opened import open_offer, partial_key
from fullsend_receiver.store.recovery import recover, remove_temporaries

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.receiver.crash import Crasher


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "torn"),
    [("push", False), ("push", True), ("push_at_once", False)],
    ids=["between calls", "amid writes", "all in one commit"],
)
def test_kill_at_any_call_of_a_push_keeps_what_was_acknowledged_and_lists_only_what_is_whole(
    swift_path: Path, crasher: Crasher, scenario: str, torn: bool
) -> None:
    seen = set()
    for at in itertools.count(1):
        store = make_store(swift_path, f"store{at}")
        outcome = crasher.run(scenario, store.root, at=at, call="write" if torn else None, torn=torn)
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
    """The old one is deleted before the first byte of the new one is acknowledged."""
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
            store = LocalStore(swift_path / "again")
            shutil.copytree(folder, store.root)
            outcome = crasher.run("start", store.root, at=at)
            check_recovery(store)
            check_pushed_again(store)
            shutil.rmtree(store.root)
            if not outcome.killed:
                break


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
            found.append(Left(LocalStore(folder), told, stored))

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
    found: list[LocalStore] = []

    def lights_out(disk: Disk) -> None:
        for draw in range(DRAWS + 1):
            found.append(LocalStore(swift_path / f"{disk.steps}.{draw}"))
            disk.leave(found[-1].root, seed=100 * disk.steps + draw if draw else None)

    with Disk(store.root, lights_out) as disk:
        recover(store)
        disk.step()

    assert disk.steps > 8
    for left in found:
        recover(left)
        assert check_listed(left) == [str(FILE)]
        assert not read_catalogue(left).problems


def test_start_at_any_step_of_a_commit_by_another_process_leaves_the_stream_stored(
    swift_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `fullsendd copy` commits while the daemon of its target starts."""
    for at in itertools.count(1):
        store = make_store(swift_path, f"store{at}")
        ingest = ingest_stream(store, SENDER, SHORT)
        with ThreadPoolExecutor(1) as pool, monkeypatch.context() as patch:
            start = _StartAtStep(pool, store, at)
            for name in ("write", "fsync", "fdatasync", "rename", "unlink"):
                patch.setattr(os, name, start.step(getattr(os, name)))
            assert commit_stream(store, SENDER, ingest, SHORT) == FILE
            if start.begun is None:
                break
            start.begun.result()
        assert check_listed(store) == [str(FILE)]
        assert everything(store.partial) == {}
    assert at > 10


class _StartAtStep:
    """Has a daemon start at a step of this thread, counted from 1. `begun`: its start, None: not yet."""

    def __init__(self, pool: ThreadPoolExecutor, store: LocalStore, at: int) -> None:
        self._pool = pool
        self._store = store
        self._left = at
        self._thread = threading.get_ident()
        self.begun: Future[list[str]] | None = None

    def step(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if threading.get_ident() == self._thread:
                self._left -= 1
                if self._left == 0:
                    self.begun = self._pool.submit(recover, self._store)
                    # It may wait for the store's lock, which this thread has at some steps.
                    wait([self.begun], timeout=0.1)
            return real(*arguments, **named)

        return call


def test_torn_last_line_is_as_if_it_had_not_been_written(store: LocalStore) -> None:
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


def test_last_line_with_a_wrong_byte_anywhere_is_as_if_it_had_not_been_written(store: LocalStore) -> None:
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
def test_what_follows_the_last_whole_line_is_cut_off(store: LocalStore, tail: bytes) -> None:
    begun(store)
    journal = journal_of(store).read_bytes()
    journal_of(store).write_bytes(journal + tail)
    recover(store)
    assert journal_of(store).read_bytes() == journal


def test_data_beyond_the_last_acknowledged_batch_are_cut_off(store: LocalStore) -> None:
    begun(store)
    data = data_of(store).read_bytes()
    with data_of(store).open("ab") as file:
        file.write(crash.chunks()[2].frame[:1000])
    recover(store)
    assert data_of(store).read_bytes() == data


@pytest.mark.parametrize("missing", [1, 100, None], ids=["a byte", "more", "the file"])
def test_data_that_lack_what_was_acknowledged_are_set_aside(
    store: LocalStore, missing: int | None, caplog: pytest.LogCaptureFixture
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


def test_setting_aside_may_be_cut_short(store: LocalStore) -> None:
    begun(store)
    os.truncate(data_of(store), 1)
    data_of(store).rename(store.partial / f"{KEY}.data.damaged")  # as far as it got
    assert recover(store) == []
    assert set(everything(store.partial)) == {f"{KEY}.journal.damaged", f"{KEY}.data.damaged"}


def test_start_sets_a_partial_aside_whose_journal_is_damaged_and_keeps_the_others(
    spoilt: LocalStore, caplog: pytest.LogCaptureFixture
) -> None:
    other = partial_key(SENDER, push_of(RAW).model_copy(update={"snapshot": "as announced"}))
    assert recover(spoilt) == [f"partial {other}: kept, with {len(RAW)} raw bytes"]
    assert of_raw(spoilt) == SET_ASIDE
    (said,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert re.search(
        rf"partial {KEY}: (cannot be read: .*Input/output|its journal is not as written from byte 0 on)"
        rf".*; check this disk; it is set aside as {data_of(spoilt)}.damaged, and its stream starts over",
        said.getMessage(),
    )
    assert store_stream(spoilt, SENDER, RAW) == FILE


def test_partial_of_a_later_format_is_set_aside_as_it_is(store: LocalStore, caplog: pytest.LogCaptureFixture) -> None:
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


def test_start_continues_where_what_is_of_no_use_cannot_be_removed(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun(store)
    (store.partial / f"{'0' * 32}.data").touch()

    def unlink(path: Path, *, missing_ok: bool = False) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda path, missing_ok=False: unlink(path) if path.suffix == ".data" else None)
        assert recover(store) == [f"partial {KEY}: kept, with {BORDERS[1]} raw bytes"]
    assert f"{'0' * 32}.data: is useless, and cannot be removed: [Errno 5] " in caplog.text


def test_partial_without_an_acknowledged_batch_is_deleted(store: LocalStore) -> None:
    begun(store, chunks=0)
    data_of(store).write_bytes(b"never acknowledged")
    assert recover(store) == []
    assert not list(store.partial.iterdir())


@pytest.mark.parametrize("suffix", [".data", ".json", ".sha256"])
def test_file_without_its_journal_is_removed(store: LocalStore, suffix: str) -> None:
    (store.partial / (KEY + suffix)).write_bytes(b"left behind")
    recover(store)
    assert not list(store.partial.iterdir())


def test_start_touches_nothing_that_is_not_of_a_partial(store: LocalStore) -> None:
    (store.partial / ".serving").touch()
    store_stream(store, SENDER, RAW)
    there = everything(store.root)
    assert recover(store) == []
    assert everything(store.root) == there


def test_what_a_killed_command_left_in_the_state_is_removed_and_nothing_else(store: LocalStore) -> None:
    (store.state / ".senders.json.0123abcd.tmp").touch()
    (store.state / "senders.json").touch()
    remove_temporaries(store)
    assert {path.name for path in store.state.iterdir()} == {"lock", "senders.json"}


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
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, failing: int
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
