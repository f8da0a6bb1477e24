"""A run that copies: what it leaves behind, and what is noted of it."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests import streams
from tests.chains import named as chain_named
from tests.receiver.buckets import MemoryBucket, store_in
from tests.receiver.helpers import (
    SENDER,
    long_stream,
    make_store,
    manifest_path,
    plant,
    read_manifest,
    small_stream,
    store_stream,
)

from fullsend_protocol.shared.settings import SizeOrShare
from fullsend_protocol.shared.units import format_time, parse_time
from fullsend_receiver.access.copy_settings import CopyScope
from fullsend_receiver.access.policies import Policy
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.events.emit import event_of
from fullsend_receiver.events.records import CopyFailed, CopyFinished
from fullsend_receiver.maintenance import copy_run, copying
from fullsend_receiver.maintenance.copy_records import CopyRecord, change_record, read_left, read_record
from fullsend_receiver.maintenance.copy_run import CopyBegun, CopyDone, CopyEvent, CopyRun, CopyTotals, noted
from fullsend_receiver.maintenance.copying import Copier, CopyAbandoned, CopyRefused
from fullsend_receiver.maintenance.merging import Merged, Merger
from fullsend_receiver.maintenance.plans import MergeRules, PruneRules
from fullsend_receiver.store.errors import StoreMissing, StoreUnreadable
from fullsend_receiver.store.local import LocalStore
from fullsend_receiver.store.marker import read_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import PurePosixPath

    from fullsend_receiver.catalogue.streams import StoredStream

ID: Final = "0f"
ALL: Final = CopyScope()


def known(store: LocalStore) -> LocalStore:
    """The same store, as a process has it that knows which one it is."""
    return LocalStore(store.root, read_id(store.root))


def full(number: int, dataset: str = "tank/data") -> bytes:
    return streams.substream(streams.object_(number), name=f"{dataset}@s{number}", guid=number)


def copy(
    source: LocalStore,
    target: Any,
    scope: CopyScope = ALL,
    *,
    wanted: CopyScope | None = ALL,
    each: Callable[[CopyRun, CopyEvent], None] = lambda _run, _event: None,
) -> CopyTotals:
    with noted(source, ID, target.where, scope, wanted) as totals:
        run = CopyRun(source, target, ID, scope, totals)
        list(run.plan())
        for event in run.run(rate=0, keep_free=SizeOrShare()):
            each(run, event)
    return totals


def failing(monkeypatch: pytest.MonkeyPatch, file: PurePosixPath, error: Exception) -> None:
    """Have the copy of one stream fail."""
    real = Copier.copy

    def fail(copier: Copier, stored: StoredStream, *more: Any) -> bool:
        if stored.file == file:
            raise error
        return real(copier, stored, *more)

    monkeypatch.setattr(Copier, "copy", fail)


def age(store: LocalStore, seconds: int) -> None:
    """Have all times in the record lie farther back."""

    def change(record: CopyRecord) -> CopyRecord:
        times = {
            name: format_time((parse_time(at) or 0.0) - seconds)
            for name in ("since", "complete", "began", "ended")
            if (at := getattr(record, name)) is not None
        }
        return record.model_copy(update=times)

    change_record(store.documents, ID, change)


def test_run_that_left_nothing_behind_is_complete(
    store: LocalStore, target: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    files = [store_stream(store, SENDER, full(number)) for number in (1, 2)]
    totals = copy(store, target)
    assert (totals.streams, totals.left, totals.is_complete) == (2, {}, True)
    found = read_record(store.documents, ID)
    assert (found.ok, found.streams, found.left, found.why, found.tries) == (True, 2, 0, None, 0)
    assert found.complete == found.began
    assert found.bytes_ever == found.stored_bytes == totals.stored_bytes > 0
    assert read_left(store.documents, ID) == frozenset()
    assert all(map(target.has, files))
    (event,) = [said for record in caplog.records if isinstance(said := event_of(record), CopyFinished)]
    assert (event.to, event.streams, event.left) == (target.where, 2, 0)
    copy(store, target)
    again = read_record(store.documents, ID)
    assert (again.ok, again.streams, again.bytes_ever) == (True, 0, found.bytes_ever)


def test_what_comes_while_it_runs_is_the_next_run_s(store: LocalStore, target: Any) -> None:
    """A copy counts from its begin."""
    store_stream(store, SENDER, full(1))

    def push(_run: CopyRun, event: CopyEvent) -> None:
        if isinstance(event, CopyDone):
            store_stream(store, SENDER, full(2))

    assert copy(store, target, each=push).is_complete
    found = read_record(store.documents, ID)
    assert found.complete == found.began
    assert copy(store, target).streams == 1


def test_stream_that_failed_is_copied_later_however_old_it_is(
    store: LocalStore, target: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [store_stream(store, SENDER, full(number)) for number in (1, 2)]
    with monkeypatch.context() as patched:
        failing(patched, files[0], CopyRefused("no room"))
        totals = copy(store, target)
    assert (totals.streams, totals.left) == (1, {str(files[0]): "no room"})
    found = read_record(store.documents, ID)
    assert (found.complete, found.ok, found.left, found.tries) == (None, False, 1, 1)
    assert found.named == [(str(files[0]), "no room")]
    assert read_left(store.documents, ID) == {str(files[0])}
    assert copy(store, target).is_complete
    assert target.has(files[0])
    assert read_left(store.documents, ID) == frozenset()


def chain_and_two_fulls(store: LocalStore) -> list[PurePosixPath]:
    """Store a stream of a dataset that is copied first; and a full with two increments, and two later fulls. Returns:
    the files of the chain.
    """
    store_stream(store, SENDER, small_stream("a/a", 1))
    files = [store_stream(store, SENDER, raw) for _name, raw in chain_named("t1-plain").run(None, 2)]
    for number in (1, 2):
        store_stream(store, SENDER, small_stream(read_manifest(store, files[0]).dataset, number, offset=100))
    return files


def merge_increments(store: LocalStore) -> None:
    """Merge as a night does: of the chain the last snapshot stays; its full is large, and stays as it is."""
    for path in store.reading.glob("*"):  # the last copy was hours ago
        os.utime(path, (0, 0))
    policy = Policy(last=3, minimum_count=0, minimum_age=0)
    rules = PruneRules(lambda *_: policy, merging=MergeRules(rebase_after=1e9, rate=0, warn_at=1.0))
    events = list(Merger(Catalogues(store), rules, time.time()).merge(SENDER))
    assert [type(event) for event in events] == [Merged]


def restorable(store: Any) -> set[str]:
    catalogue = read_catalogue(store)
    return {each.summary.guid for each in catalogue.streams if catalogue.restorable(each)}


def test_what_the_source_merges_before_its_turn_is_the_next_run_s(store: LocalStore, target: Any) -> None:
    """Later streams of its dataset are copied by then: it is older than these, and must not count as pruned there."""
    _full, middle, last = chain_and_two_fulls(store)
    guid = read_manifest(store, last).guid

    def merge(_run: CopyRun, event: CopyEvent) -> None:
        if isinstance(event, CopyBegun) and event.about.dataset == "a/a":
            merge_increments(store)

    totals = copy(store, target, each=merge)
    assert (totals.streams, list(totals.left)) == (4, [str(last)])
    assert totals.left[str(last)].startswith("was merged, or stored anew, before its turn: ")
    assert guid not in restorable(target)
    assert read_left(store.documents, ID) == {str(last)}
    totals = copy(store, target)
    assert (totals.streams, totals.is_complete, totals.older) == (1, True, 0)
    assert guid in restorable(target)
    assert read_left(store.documents, ID) == frozenset()
    assert not target.has(middle)


def test_what_was_left_behind_and_merged_since_is_copied_in_its_new_form(
    store: LocalStore, target: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = chain_and_two_fulls(store)[-1]
    guid = read_manifest(store, last).guid
    with monkeypatch.context() as patched:
        failing(patched, last, CopyRefused("no room"))
        assert not copy(store, target).is_complete
    merge_increments(store)
    assert guid not in restorable(target)
    assert copy(store, target).is_complete
    assert guid in restorable(target)
    assert read_left(store.documents, ID) == frozenset()


def test_what_the_source_drops_before_its_turn_is_not_missed(store: LocalStore, target: Any) -> None:
    files = [store_stream(store, SENDER, full(number)) for number in (1, 2)]

    def drop(_run: CopyRun, event: CopyEvent) -> None:
        if isinstance(event, CopyBegun) and event.about.path == str(files[0]):
            store.remove(lambda: [files[1]])

    assert copy(store, target, each=drop).is_complete
    assert read_left(store.documents, ID) == frozenset()


def test_what_is_gone_from_a_folder_that_cannot_be_read_is_left_behind(store: LocalStore, target: Any) -> None:
    files = [store_stream(store, SENDER, full(number)) for number in (1, 2, 3)]

    def drop(_run: CopyRun, event: CopyEvent) -> None:
        if isinstance(event, CopyDone) and event.about.path == str(files[1]):
            store.remove(lambda: [files[2]])
            manifest_path(store, files[0]).write_bytes(b"{")

    totals = copy(store, target, each=drop)
    assert list(totals.left) == [str(files[2])]
    assert totals.left[str(files[2])].startswith("is gone, and what is stored of its dataset cannot be read: ")
    assert read_left(store.documents, ID) == {str(files[2])}


def _unreadable(patch: pytest.MonkeyPatch, path: Path) -> None:
    """Have the disk fail where it reads this file, or this folder."""
    read, scan = Path.read_bytes, os.scandir

    def fail(found: Any) -> None:
        if Path(found) == path:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    def read_bytes(self: Path) -> bytes:
        fail(self)
        return read(self)

    def scandir(folder: Any = ".") -> Any:
        fail(folder)
        return scan(folder)

    patch.setattr(Path, "read_bytes", read_bytes)
    patch.setattr(os, "scandir", scandir)


def test_stream_that_a_passing_error_has_hidden_is_copied_later(
    store: LocalStore, target: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [store_stream(store, SENDER, full(number)) for number in (1, 2)]
    with monkeypatch.context() as patch:
        _unreadable(patch, manifest_path(store, files[0]))
        totals = copy(store, target)
    assert totals.left == {str(files[0]): "its manifest cannot be read: Input/output error"}
    assert [target.has(file) for file in files] == [False, True]
    assert copy(store, target).is_complete
    assert all(map(target.has, files))
    assert read_left(store.documents, ID) == frozenset()


@pytest.mark.parametrize("what", ["manifest", "folder"])
def test_stream_that_was_left_behind_and_is_hidden_for_a_moment_is_copied_later(
    store: LocalStore, target: Any, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    files = [store_stream(store, SENDER, full(number)) for number in (1, 2)]
    with monkeypatch.context() as patch:
        failing(patch, files[0], CopyRefused("the target is full"))
        copy(store, target)
    with monkeypatch.context() as patch:
        hidden = manifest_path(store, files[0])
        _unreadable(patch, hidden if what == "manifest" else hidden.parent)
        assert not copy(store, target).is_complete
        assert read_left(store.documents, ID) == {str(files[0])}
    assert copy(store, target).is_complete
    assert all(map(target.has, files))


def test_run_that_is_killed_hides_nothing(store: LocalStore, target: Any) -> None:
    files = [store_stream(store, SENDER, full(number)) for number in (1, 2)]

    class KilledError(BaseException):
        pass

    def kill(_run: CopyRun, event: CopyEvent) -> None:
        if isinstance(event, CopyBegun):
            assert read_left(store.documents, ID) == set(map(str, files))
            assert not read_record(store.documents, ID).has_ended
            raise KilledError

    with pytest.raises(KilledError):
        copy(store, target, each=kill)
    found = read_record(store.documents, ID)
    assert (found.ok, found.why) == (False, "KilledError")
    # As a run would that copied the second one alone.
    run = CopyRun(store, target, ID, ALL, CopyTotals())
    list(run.plan())
    assert Copier(store, target).copy(run.plans[0].due[1])
    assert copy(store, target).is_complete
    assert all(map(target.has, files))


def test_complete_copy_stays_the_last_one_while_later_ones_fail(
    store: LocalStore, target: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_stream(store, SENDER, full(1))
    copy(store, target)
    age(store, 86400)
    before = read_record(store.documents, ID)
    failing(monkeypatch, store_stream(store, SENDER, full(2)), OSError(5, "Input/output error"))
    for tries in (1, 2):
        copy(store, target)
        found = read_record(store.documents, ID)
        assert (found.complete, found.ok, found.tries) == (before.complete, False, tries)


@pytest.mark.parametrize("error", [StoreMissing("is not there"), StoreUnreadable("does not answer")])
def test_store_that_goes_away_ends_the_run(
    store: LocalStore,
    target: Any,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second = [store_stream(store, SENDER, full(number)) for number in (1, 2)]
    failing(monkeypatch, first, error)
    totals = copy(store, target)
    assert (totals.why, list(totals.left)) == (str(error), [str(first)])
    assert not target.has(second)
    assert read_left(store.documents, ID) == {str(first), str(second)}
    (event,) = [said for record in caplog.records if isinstance(said := event_of(record), CopyFailed)]
    assert event.why == str(error)


def test_store_that_is_away_afterwards_is_no_store_with_bad_streams(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = known(make_store(tmp_path, "target"))
    failing(monkeypatch, store_stream(store, SENDER, full(1)), OSError(2, "No such file"))

    def unmount(_run: CopyRun, event: CopyEvent) -> None:
        if isinstance(event, CopyBegun):
            target.root.rename(tmp_path / "unmounted")

    assert "no store here" in (copy(store, target, each=unmount).why or "")


@pytest.mark.parametrize("which", ["source", "target"])
def test_empty_mount_point_is_no_complete_copy(store: LocalStore, tmp_path: Path, which: str) -> None:
    store, target = known(store), known(make_store(tmp_path, "target"))
    (store.root / ".fullsend" if which == "source" else target.root / ".fullsend").unlink()
    with pytest.raises(StoreMissing):
        copy(store, target)
    found = read_record(store.documents, ID)
    assert (found.complete, found.ok) == (None, False)
    assert found.why is not None


def test_store_that_cannot_be_opened_is_noted(store: LocalStore) -> None:
    with pytest.raises(StoreMissing), noted(store, ID, "/offsite", ALL, ALL):
        raise StoreMissing("/offsite: no store here")
    found = read_record(store.documents, ID)
    assert (found.ok, found.why, found.has_ended) == (False, "/offsite: no store here", True)


def test_run_that_is_told_to_end_says_so(store: LocalStore, target: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [store_stream(store, SENDER, full(number)) for number in (1, 2)]

    def abandon(copier: Copier, _stored: object, *_more: object) -> bool:
        copier.abandon()
        raise CopyAbandoned

    with monkeypatch.context() as patched:
        patched.setattr(Copier, "copy", abandon)
        totals = copy(store, target)
    assert (totals.why, totals.left) == (copy_run.INTERRUPTED, {str(files[0]): copy_run.INTERRUPTED})
    with noted(store, ID, target.where, ALL, ALL) as totals:
        run = CopyRun(store, target, ID, ALL, totals)
        run.abandon("another process has taken it over")
        assert list(run.plan()) == []
        assert list(run.run(rate=0, keep_free=SizeOrShare())) == []
    assert not totals.is_complete
    assert read_record(store.documents, ID).why == "another process has taken it over"
    assert copy(store, target).is_complete


def test_what_cannot_be_read_in_either_store_is_left_behind(store: LocalStore, tmp_path: Path) -> None:
    target = make_store(tmp_path, "target")
    file = store_stream(store, SENDER, full(1))
    copy(store, target)
    manifest_path(store, file).write_bytes(b"{")
    manifest_path(target, file).write_bytes(b"{")
    totals = copy(store, target)
    assert not totals.is_complete
    assert [each.startswith(target.where) for each in totals.left] == [False, True]


def test_name_of_which_nothing_is_stored_is_left_behind(store: LocalStore, target: Any) -> None:
    store_stream(store, SENDER, full(1))
    scope = CopyScope((SENDER, f"{SENDER}/tank/typo", "nobody"))
    totals = copy(store, target, scope, wanted=scope)
    assert totals.streams == 1
    assert totals.left == dict.fromkeys(scope.what[1:], "nothing of that name is stored here")


def test_part_of_what_is_wanted_tells_nothing_of_it(
    store: LocalStore, target: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = store_stream(store, SENDER, full(1)), store_stream(store, SENDER, full(2))
    other = store_stream(store, SENDER, full(3, "tank/other"))
    with monkeypatch.context() as patched:
        failing(patched, first, CopyRefused("no room"))
        copy(store, target, CopyScope((f"{SENDER}/tank/data",)))
    assert (target.has(second), target.has(other)) == (True, False)
    assert read_record(store.documents, ID) == CopyRecord()
    # But what it left behind is known.
    assert read_left(store.documents, ID) == {str(first)}
    copy(store, target, CopyScope((f"{SENDER}/tank/other",)))
    assert read_left(store.documents, ID) == {str(first)}
    assert copy(store, target, wanted=None).streams == 1
    assert read_record(store.documents, ID) == CopyRecord()


def test_more_than_is_wanted_is_enough(store: LocalStore, target: Any) -> None:
    store_stream(store, SENDER, full(1))
    copy(store, target, CopyScope(everything=True), wanted=CopyScope((SENDER,)))
    found = read_record(store.documents, ID)
    assert found.complete is not None
    assert found.scope == CopyScope(everything=True)


def test_what_is_older_than_the_newest_copy_is_counted(store: LocalStore, tmp_path: Path) -> None:
    target = make_store(tmp_path, "target")
    for one in (store, target):
        for number in (1, 2):
            plant(one, f"s{number}", number, sequence=number, received=f"2026-11-0{number}T00:00:00Z")
    target.remove(lambda: [each.file for each in target.objects(SENDER) if "@s1." in str(each.file)])
    assert copy(store, target).is_complete
    assert read_record(store.documents, ID).older == 1


def test_two_hosts_that_copy_at_the_same_time_harm_nothing(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a claim that was taken over while its owner was stalled."""
    monkeypatch.setattr(copying, "_BATCH", 1)
    bucket = MemoryBucket(least_part=0)
    hosts = [store_in(bucket, tmp_path / name, 100_000) for name in ("one", "two")]
    for host in hosts:
        host.home.mkdir()
    files = [store_stream(store, SENDER, long_stream(4, name=f"tank/{name}@now")) for name in "ab"]
    frames = 0

    def wake_the_other(_size: int) -> None:
        nonlocal frames
        frames += 1
        if frames == 2:
            assert copy(store, hosts[1]).streams == len(files)

    totals = CopyTotals()
    run = CopyRun(store, hosts[0], ID, ALL, totals)
    list(run.plan())
    told = list(run.run(rate=0, keep_free=SizeOrShare(), count=wake_the_other))
    assert frames >= 2
    # It was overtaken amid the first stream, and finds the second one there.
    assert list(totals.left) == [str(files[0])]
    assert [event.is_new for event in told if isinstance(event, CopyDone)] == [False]
    assert copy(store, hosts[0]).is_complete
    for file in files:
        with contextlib.closing(hosts[0].open(file)) as blob:
            assert blob.read(0, blob.size) == (store.root / file).read_bytes()
    assert list(hosts[0].uploads(lambda _upload: None)) == []


def test_run_that_was_taken_over_says_nothing_of_the_other_one(store: LocalStore, target: Any) -> None:
    store_stream(store, SENDER, full(1))
    with noted(store, ID, target.where, ALL, ALL) as totals:
        copy(store, target)
        before = read_record(store.documents, ID)
        totals.why, totals.stored_bytes = "another process has taken it over", 7
    assert read_record(store.documents, ID) == before.model_copy(update={"bytes_ever": before.bytes_ever + 7})


def test_result_that_cannot_be_noted_is_logged(
    store: LocalStore, target: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[tuple[Any, ...]] = []

    def fail_then(*words: Any) -> None:
        calls.append(words)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        change_record(*words)

    monkeypatch.setattr(copy_run, "change_record", fail_then)
    copy(store, target)
    assert "the result of the copy cannot be noted: No space left on device" in caplog.text
    assert not read_record(store.documents, ID).has_ended
