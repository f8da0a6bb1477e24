from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import time
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.receiver.helpers import PLANTED, SENDER, make_store, manifest_path, plant, read_manifest

from fullsend_receiver.catalogue import summaries
from fullsend_receiver.catalogue.inotify import Watch, Watcher
from fullsend_receiver.catalogue.rows import Summary
from fullsend_receiver.catalogue.search import Found, find_streams
from fullsend_receiver.catalogue.summaries import FolderSearch
from fullsend_receiver.store import objects
from fullsend_receiver.store.local import LocalStore

YEAR_NS = 365 * 86400 * 10**9
MOMENTS = itertools.count(10**18)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the copy after every reading that opened a manifest, and let what was just written count at once.

    Then a test must see to it that a change moves a time: `tick`, `touch`.
    """
    monkeypatch.setattr(summaries, "_WORTH", 1)
    monkeypatch.setattr(summaries, "_SETTLED_NS", -1)


def tick(folder: Path) -> None:
    """Wait until the file system's clock has advanced: a few milliseconds at most."""
    probe = folder / "tick"
    probe.touch()
    before = now = probe.stat().st_ctime_ns
    while now == before:
        probe.touch()
        now = probe.stat().st_ctime_ns
    probe.unlink()


def touch(*paths: Path) -> None:
    """Set times that nothing had before."""
    for path in paths:
        if path.exists():
            moment = next(MOMENTS)
            os.utime(path, ns=(moment, moment))


def copy_of(store: LocalStore) -> Path:
    return store.state / f"summaries.{SENDER}"


def told(found: Found) -> tuple[list[Summary], list[str], list[str]]:
    return sorted(found.summaries), sorted(found.orphans), sorted(map(str, found.problems))


def truth(store: LocalStore) -> tuple[list[Summary], list[str], list[str]]:
    """What is there, read without any copy, and without leaving one."""
    bare = LocalStore(store.root)
    copy = copy_of(bare).read_bytes() if copy_of(bare).exists() else None
    copy_of(bare).unlink(missing_ok=True)
    try:
        return told(find_streams(bare, SENDER))
    finally:
        copy_of(bare).unlink(missing_ok=True)
        if copy is not None:
            copy_of(bare).write_bytes(copy)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The manifests that are opened, by the names of their streams."""
    seen: list[str] = []
    real = objects.read_manifest

    def watched(store: LocalStore, file: PurePosixPath) -> Any:
        seen.append(file.name.split(".")[0])
        return real(store, file)

    monkeypatch.setattr(objects, "read_manifest", watched)
    return seen


# --- what is read -----------------------------------------------------------------------------------------------


def test_summary_says_what_the_manifest_says(store: LocalStore) -> None:
    file = plant(store, "s1", 1, base_guid=7, flags="Lw", stream_class="raw", sha256=None)
    manifest = read_manifest(store, file)
    (summary,) = find_streams(store, SENDER).summaries
    assert summary.path == str(file)
    for name in Summary._fields[1:]:
        assert getattr(summary, name) == getattr(manifest, name), name


# --- the copy ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("eager")
def test_second_reading_opens_no_manifest(store: LocalStore, opened: list[str]) -> None:
    for guid in range(1, 6):
        plant(store, f"s{guid}", guid, dataset=f"tank/{guid % 2}")
    first = told(find_streams(store, SENDER))
    assert len(opened) == 5
    opened.clear()
    assert told(find_streams(store, SENDER)) == first
    assert opened == []


@pytest.mark.usefixtures("eager")
def test_only_what_is_new_is_opened(store: LocalStore, opened: list[str]) -> None:
    plant(store, "s1", 1)
    find_streams(store, SENDER)
    opened.clear()
    tick(store.root)
    plant(store, "s2", 2)
    assert len(find_streams(store, SENDER).summaries) == 2
    assert opened == ["@s2"]


@pytest.mark.usefixtures("eager")
def test_only_what_has_changed_is_opened(store: LocalStore, opened: list[str]) -> None:
    """In place, which nobody may do: still the manifest is the truth."""
    file = plant(store, "s1", 1)
    plant(store, "s2", 2)
    find_streams(store, SENDER)
    opened.clear()
    tick(store.root)
    path = manifest_path(store, file)
    path.write_text(path.read_text(encoding="utf-8").replace("1000", "1001"), encoding="utf-8")
    assert sorted(each.raw_bytes for each in find_streams(store, SENDER).summaries) == [1000, 1001]
    assert opened == ["@s1"]


@pytest.mark.usefixtures("eager")
def test_change_that_keeps_size_and_times_of_the_content_is_seen(store: LocalStore) -> None:
    """As `touch -r` or rsync may leave it: the time of the inode cannot be set."""
    file = plant(store, "s1", 1)
    find_streams(store, SENDER)
    tick(store.root)
    path = manifest_path(store, file)
    before = path.stat()
    path.write_text(path.read_text(encoding="utf-8").replace("1000", "1001"), encoding="utf-8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert [each.raw_bytes for each in find_streams(store, SENDER).summaries] == [1001]


@pytest.mark.usefixtures("eager")
def test_each_sender_has_a_copy_of_its_own(store: LocalStore) -> None:
    plant(store, "s1", 1)
    plant(store, "s2", 2, sender="beta")
    find_streams(store, SENDER)
    find_streams(store, "beta")
    assert {path.name for path in store.state.glob("summaries.*")} == {"summaries.alpha", "summaries.beta"}
    shutil.copy(store.state / "summaries.beta", store.state / "summaries.alpha")
    assert [each.snapshot for each in find_streams(store, SENDER).summaries] == ["s1"]


@pytest.mark.usefixtures("eager")
def test_copy_with_any_wrong_byte_changes_no_answer(store: LocalStore) -> None:
    plant(store, "s1", 1)
    plant(store, "s2", 2, dataset="tank/b")
    find_streams(store, SENDER)
    right, content = truth(store), copy_of(store).read_bytes()
    assert content.count(b"\n") == 4  # alpha, tank, and two datasets
    for at in range(0, len(content), 3):
        copy_of(store).write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert told(find_streams(store, SENDER)) == right, at


@pytest.mark.usefixtures("eager")
def test_copy_that_is_cut_anywhere_changes_no_answer(store: LocalStore) -> None:
    plant(store, "s1", 1)
    plant(store, "s2", 2, dataset="tank/b")
    find_streams(store, SENDER)
    right, content = truth(store), copy_of(store).read_bytes()
    for length in range(0, len(content), 3):
        copy_of(store).write_bytes(content[:length])
        assert told(find_streams(store, SENDER)) == right, length


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("content", [b"", b"\n", b"\0" * 10_000, b"00000000 \n", b"no copy at all\n" * 100])
def test_copy_that_is_none_changes_no_answer(store: LocalStore, content: bytes) -> None:
    plant(store, "s1", 1)
    right = truth(store)
    copy_of(store).write_bytes(content)
    assert told(find_streams(store, SENDER)) == right


@pytest.mark.usefixtures("eager")
def test_copy_of_another_version_says_nothing(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, opened: list[str]
) -> None:
    plant(store, "s1", 1)
    find_streams(store, SENDER)
    opened.clear()
    monkeypatch.setattr(summaries, "_VERSION", 0)
    assert len(find_streams(store, SENDER).summaries) == 1
    assert opened == ["@s1"]


@pytest.mark.usefixtures("eager")
def test_copy_that_was_taken_along_to_another_disk_says_nothing(
    store: LocalStore, tmp_path: Path, opened: list[str]
) -> None:
    """`cp -a` keeps the times; inode numbers may even agree by chance."""
    plant(store, "s1", 1)
    find_streams(store, SENDER)
    opened.clear()
    shutil.copytree(store.root, tmp_path / "moved")
    moved = LocalStore(tmp_path / "moved")
    assert told(find_streams(moved, SENDER)) == truth(store)
    assert "@s1" in opened


def test_small_stores_have_no_copy(store: LocalStore) -> None:
    plant(store, "s1", 1)
    find_streams(store, SENDER)
    assert not copy_of(store).exists()


def stamps(store: LocalStore) -> dict[str, list[int] | None]:
    """What the copy holds of the folders themselves."""
    rows = [json.loads(line.partition(b" ")[2]) for line in copy_of(store).read_bytes().splitlines()]
    return {path: stamp for _version, path, stamp, _folders, _streams in rows}


def test_what_has_just_changed_does_not_count_the_next_time(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, opened: list[str]
) -> None:
    """Two changes within a tick of the file system's clock cannot be told apart."""
    monkeypatch.setattr(summaries, "_WORTH", 0)
    file = plant(store, "s1", 1)
    for path in (manifest_path(store, file), (store.root / file).parent):
        os.utime(path, ns=(0, 0))  # the inode's own time stays: now
    find_streams(store, SENDER)
    assert stamps(store) == {"alpha": None, "alpha/tank": None, "alpha/tank/data": None}
    opened.clear()
    find_streams(store, SENDER)
    assert opened == ["@s1"]


def test_what_settled_before_it_was_read_counts_the_next_time(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, opened: list[str]
) -> None:
    monkeypatch.setattr(summaries, "_WORTH", 1)
    plant(store, "old", 1)
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + YEAR_NS)
    find_streams(store, SENDER)
    assert None not in stamps(store).values()
    opened.clear()
    find_streams(store, SENDER)
    assert opened == []


def test_copy_is_written_once_it_saves_enough(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summaries, "_SETTLED_NS", -1)
    monkeypatch.setattr(summaries, "_WORTH", 4)
    for guid in range(1, 4):
        plant(store, f"s{guid}", guid)
    find_streams(store, SENDER)
    assert not copy_of(store).exists()
    plant(store, "s4", 4)
    find_streams(store, SENDER)
    written = copy_of(store).stat()
    tick(store.root)
    plant(store, "s5", 5)
    assert len(find_streams(store, SENDER).summaries) == 5
    assert copy_of(store).stat() == written, "one more is not worth a new copy"


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_copy_that_cannot_be_written_keeps_nobody_from_listing(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    plant(store, "s1", 1)

    def fail(*_arguments: Any, **_named: Any) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(summaries, "replace_file", fail)
    assert len(find_streams(store, SENDER).summaries) == 1


@pytest.mark.usefixtures("eager")
def test_copy_that_cannot_be_read_keeps_nobody_from_listing(store: LocalStore) -> None:
    plant(store, "s1", 1)
    copy_of(store).mkdir()
    assert len(find_streams(store, SENDER).summaries) == 1


@pytest.mark.usefixtures("eager")
def test_copy_is_for_the_owner_alone_and_nothing_else_is_left(store: LocalStore) -> None:
    plant(store, "s1", 1)
    find_streams(store, SENDER)
    assert copy_of(store).stat().st_mode & 0o777 == 0o600
    assert {path.name for path in store.state.iterdir()} == {"lock", f"summaries.{SENDER}"}


# --- what is never copied ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("eager")
def test_problems_are_told_every_time(store: LocalStore) -> None:
    unreadable, orphan = plant(store, "s1", 1), plant(store, "s2", 2)
    plant(store, "s3", 3)
    manifest_path(store, unreadable).write_bytes(b"{")
    manifest_path(store, orphan).unlink()
    first = told(find_streams(store, SENDER))
    assert (len(first[0]), first[1], len(first[2])) == (1, [str(orphan)], 1)
    assert told(find_streams(store, SENDER)) == first


@pytest.mark.usefixtures("eager")
def test_manifest_that_is_a_symbolic_link_is_read_every_time(store: LocalStore, tmp_path: Path) -> None:
    file = plant(store, "s1", 1)
    elsewhere = tmp_path / "manifest"
    manifest_path(store, file).rename(elsewhere)
    manifest_path(store, file).symlink_to(elsewhere)
    find_streams(store, SENDER)
    elsewhere.write_text(elsewhere.read_text(encoding="utf-8").replace("1000", "1001"), encoding="utf-8")
    assert [each.raw_bytes for each in find_streams(store, SENDER).summaries] == [1001]
    elsewhere.unlink()
    assert len(find_streams(store, SENDER).problems) == 1


@pytest.mark.usefixtures("eager")
def test_folder_that_disappears_while_it_is_read_is_passed_over(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(store, "s1", 1)
    plant(store, "s2", 2, dataset="tank/gone")
    real = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("gone"):
            Path(path).rename(store.root / "elsewhere")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = find_streams(store, SENDER)
    assert [each.snapshot for each in found.summaries] == ["s1"]
    assert found.problems == []


@pytest.mark.usefixtures("eager")
def test_manifest_that_disappears_while_its_folder_is_read_is_passed_over(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = plant(store, "s1", 1)
    plant(store, "s2", 2)
    real = Path.stat

    def stat(path: Path, **named: Any) -> os.stat_result:
        if path == manifest_path(store, file):
            path.unlink(missing_ok=True)
        return real(path, **named)

    monkeypatch.setattr(Path, "stat", stat)
    found = find_streams(store, SENDER)
    assert [each.snapshot for each in found.summaries] == ["s2"]
    assert found.problems == []


def test_folder_that_fails_is_a_problem_and_hides_no_other(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(store, "s1", 1)
    plant(store, "s2", 2, dataset="tank/bad")
    real = os.scandir

    def scandir(path: Any) -> Any:
        if Path(path).name == "bad":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = find_streams(store, SENDER)
    assert [each.snapshot for each in found.summaries] == ["s1"]
    assert [*map(str, found.problems)] == ["alpha/tank/bad: cannot be read: Input/output error"]


# --- anything that may happen to a store ------------------------------------------------------------------------


class Changes(RuleBasedStateMachine):
    """Whatever is done to the folders, and whenever they are read: the answer with the copy is the one without, and so
    is that of a search which looks at nothing but what it is told.
    """

    @initialize(target=None)
    def begin(self) -> None:
        self.folder = Path(os.environ["FULLSEND_TEST_FOLDER"])
        self.store = make_store(self.folder, f"store{len(list(self.folder.iterdir()))}")
        self.files: list[PurePosixPath] = []
        self.guid = 0
        self.quiet = 0
        self.kept = FolderSearch(self.store, SENDER, Watch(Watcher(self.store.root)))

    def some(self, which: int) -> PurePosixPath:
        return self.files[which % len(self.files)]

    @rule(dataset=st.sampled_from(["tank", "tank/a", "tank/a/b", "other"]), base=st.none() | st.integers(1, 5))
    def add(self, dataset: str, base: int | None) -> None:
        self.guid += 1
        self.files.append(plant(self.store, f"s{self.guid}", self.guid, base, dataset=dataset))
        self.touch_with_folders(manifest_path(self.store, self.files[-1]))

    @precondition(lambda self: self.files)
    @rule(which=st.integers(0, 50), suffixes=st.sampled_from([[".json"], [""], ["", ".json", ".sha256"]]))
    def remove(self, which: int, suffixes: list[str]) -> None:
        path = self.store.root / self.some(which)
        for suffix in suffixes:
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        touch(path.parent)

    @precondition(lambda self: self.files)
    @rule(which=st.integers(0, 50), size=st.integers(1000, 9999))
    def edit(self, which: int, size: int) -> None:
        path = manifest_path(self.store, self.some(which))
        if path.exists():
            text = path.read_text(encoding="utf-8")
            with path.open("w", encoding="utf-8") as file:
                file.write(text.replace('"raw_bytes": 1000', f'"raw_bytes": {size}'))
            touch(path)

    @precondition(lambda self: self.files)
    @rule(which=st.integers(0, 50), content=st.sampled_from([b"", b"{", b"{}"]))
    def spoil(self, which: int, content: bytes) -> None:
        path = manifest_path(self.store, self.some(which))
        if path.parent.exists():
            path.write_bytes(content)
            touch(path, path.parent)

    @precondition(lambda self: len(self.files) > 1)
    @rule(one=st.integers(0, 50), other=st.integers(0, 50))
    def swap(self, one: int, other: int) -> None:
        paths = [manifest_path(self.store, self.some(which)) for which in (one, other)]
        if all(path.exists() for path in paths) and paths[0] != paths[1]:
            spare = self.store.root / "spare"
            paths[0].rename(spare)
            paths[1].rename(paths[0])
            spare.rename(paths[1])
            touch(*(path.parent for path in paths))

    @rule(old=st.sampled_from(["tank", "tank/a", "other"]), new=st.sampled_from(["tank/a", "moved", "tank/moved"]))
    def move(self, old: str, new: str) -> None:
        source, target = (self.store.root / SENDER / name for name in (old, new))
        if source.is_dir() and target.parent.is_dir() and not target.exists() and source not in target.parents:
            source.rename(target)
            touch(source.parent, target.parent)

    @rule(name=st.sampled_from(["tank", "tank/a", "other"]))
    def clear(self, name: str) -> None:
        path = self.store.root / SENDER / name
        shutil.rmtree(path, ignore_errors=True)
        touch(path.parent)

    @rule()
    def make_orphan(self) -> None:
        folder = self.store.root / SENDER / "tank"
        if folder.is_dir():
            (folder / "@orphan.0000000000000000.full.zfs.zst").write_bytes(PLANTED)
            touch(folder)

    def touch_with_folders(self, path: Path) -> None:
        while path != self.store.root:
            touch(path)
            path = path.parent

    @precondition(lambda self: self.files)
    @rule(which=st.integers(0, 50), content=st.sampled_from([b"", PLANTED, PLANTED + b"!"]))
    def write_data(self, which: int, content: bytes) -> None:
        path = self.store.root / self.some(which)
        if path.exists():
            path.write_bytes(content)

    @precondition(lambda self: self.files)
    @rule(which=st.integers(0, 50), suffix=st.sampled_from(["", ".json"]))
    def put_elsewhere(self, which: int, suffix: str) -> None:
        """Behind a symbolic link nothing is told."""
        path = self.store.root / self.some(which)
        path = path.with_name(path.name + suffix)
        if path.exists() and not path.is_symlink():
            target = self.store.root / f"elsewhere{next(MOMENTS)}"
            path.rename(target)
            path.symlink_to(target)
            touch(path.parent)

    @rule()
    def lose_what_is_elsewhere(self) -> None:
        for path in self.store.root.glob("elsewhere*"):
            path.unlink()

    @rule(steps=st.integers(1, 5))
    def nobody_asks_for_a_while(self, steps: int) -> None:
        self.quiet = steps

    @rule()
    def lose_copy(self) -> None:
        copy_of(self.store).unlink(missing_ok=True)

    @invariant()
    def answer_is_the_truth(self) -> None:
        if hasattr(self, "store") and self.quiet:
            self.quiet -= 1
        elif hasattr(self, "store"):
            right = truth(self.store)
            assert told(find_streams(self.store, SENDER)) == right
            self.kept.run()
            assert told(Found(self.kept.summaries, self.kept.orphans, self.kept.problems)) == right
            assert self.kept.sure
            files = [(shelf, each) for shelf in self.kept.shelves for each in shelf.summaries()]
            for shelf, each in files:
                path = self.store.root / each.path
                whole = path.exists() and path.stat().st_size == each.stored_bytes
                assert shelf.lacking is not None
                assert (path.name in shelf.lacking) != whole


@pytest.mark.usefixtures("eager")
def test_no_change_to_a_store_makes_the_copy_lie(swift_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLSEND_TEST_FOLDER", str(swift_path))
    run_state_machine_as_test(Changes, settings=settings(max_examples=40, stateful_step_count=25))
