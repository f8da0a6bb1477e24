"""Genuine trees in a folder of this host: what the pool said."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from unittest.mock import patch

import pytest
from tests.file_trees import LONG, TREES, GenuineTree, Tree, packed_xattrs

from fullsend_files.folder import Folder
from fullsend_files.troubles import Troubles, Wishes
from fullsend_protocol.wire.pack import PackWriter
from fullsend_receiver.files.choice import FileChoice, matcher
from fullsend_receiver.files.delivery import deliver
from fullsend_receiver.files.entries import EntryGiver
from fullsend_receiver.files.index import FileIndex
from fullsend_receiver.files.sources import FileSource

ROOT = os.geteuid() == 0
#: What only root may make.
ROOTS = ("trusted.", "security.")


def extracted(source: FileSource, into: Path, *paths: bytes, wishes: Wishes) -> Troubles:
    with source.opened() as reader:
        choice = FileChoice(FileIndex.build(reader, None))
    for path in paths or (b"/",):
        choice.add(path, matcher([]))
    troubles = Troubles()
    folder = Folder(into, wishes, troubles)
    entries = EntryGiver(folder, choice, troubles)
    deliver(source, choice, entries, wishes, troubles)
    entries.finish()
    folder.publish()
    return troubles


@pytest.mark.parametrize("tree", [TREES[1], TREES[2], TREES[5]], ids=str)
def test_genuine_trees(tree: GenuineTree, tmp_path: Path) -> None:
    """Mode, owner (as root), links, size, times, devices, targets, extended attributes, ACLs, contents, holes."""
    top = tmp_path / "out"
    wishes = Wishes(special=ROOT, setuid=True, owner=ROOT)
    troubles = extracted(FileSource.of(tree.paths()), top, wishes=wishes)
    assert all(any(f"b'{name}" in line for name in ROOTS) and not ROOT for line in troubles.lines), troubles.lines
    listing = tree.listing()
    special = {path for path, about in listing.items() if stat.S_IFMT(about["mode"]) not in _PLAIN}
    expected = listing.keys() - (set() if ROOT else special)
    inside = os.fsencode(top) + b"/"
    # Not pathlib, which follows the links.
    found = {
        os.path.join(folder, name).removeprefix(inside)
        for folder, folders, names in os.walk(os.fsencode(top))
        for name in (*folders, *names)
    }
    assert found == expected
    for path in expected:
        _same(os.fsencode(top) + b"/" + path, listing[path])
    sparse = os.stat(os.fsencode(top) + b"/a/only-holes")
    assert sparse.st_blocks * 512 < sparse.st_size


_PLAIN = {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK}


def _same(path: bytes, about: dict[str, object]) -> None:
    found = os.lstat(path)
    assert found.st_mode == about["mode"], path
    assert found.st_mtime_ns == about["mtime"], path
    if ROOT:
        assert (found.st_uid, found.st_gid) == (about["uid"], about["gid"]), path
    if not stat.S_ISDIR(found.st_mode):
        assert (found.st_nlink, found.st_size) == (about["nlink"], about["size"]), path
    if "rdev" in about:
        assert [os.major(found.st_rdev), os.minor(found.st_rdev)] == about["rdev"]
    if "target" in about:
        assert os.readlink(path).hex() == about["target"]
    xattrs = {
        name: os.getxattr(path, name, follow_symlinks=False).hex() for name in os.listxattr(path, follow_symlinks=False)
    }
    wanted = about.get("xattrs", {})
    assert isinstance(wanted, dict)
    assert xattrs == {name: value for name, value in wanted.items() if ROOT or not name.startswith(ROOTS)}, path
    if "sha256" in about:
        assert hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest() == about["sha256"], path


def test_what_the_file_system_refuses_is_named_and_the_others_come(tmp_path: Path) -> None:
    tree = Tree()
    tree.file(tree.root, b"good", b"good")
    folder = tree.directory(tree.root, b"ok")
    huge = tree.file(folder, b"huge", b"", (1 << 63) - 1)
    path = tree.written(tmp_path / "s.zfs")
    troubles = extracted(FileSource.of([path]), tmp_path / "out", wishes=Wishes())
    assert (tmp_path / "out" / "good").read_bytes() == b"good"
    assert huge
    assert bool(troubles.lines) != (tmp_path / "out" / "ok" / "huge").exists()  # all of it or nothing
    assert all(line.startswith("ok/huge: cannot be made here: ") for line in troubles.lines)


def test_a_name_of_more_than_255_bytes(tmp_path: Path) -> None:
    troubles = extracted(FileSource.of(LONG.paths()), tmp_path / "out", wishes=Wishes())
    long = [line for line in troubles.lines if "File name too long" in line]
    assert len(long) == 2
    assert (tmp_path / "out" / "a" / "text").stat().st_size == 300_000


def test_one_file_with_the_folders_above_it(tmp_path: Path) -> None:
    tree = TREES[0]
    extracted(FileSource.of(tree.paths()), tmp_path / "out", b"a/b/c/runs", wishes=Wishes())
    top = tmp_path / "out"
    assert sorted(str(path.relative_to(top)) for path in top.rglob("*")) == ["a", "a/b", "a/b/c", "a/b/c/runs"]
    assert stat.S_IMODE((top / "a/b/c").stat().st_mode) == 0o1775


def test_what_the_maker_refuses_is_named(tmp_path: Path) -> None:
    """Here a pack, which has no item as large as that."""
    tree = Tree()
    huge = {b"user.%d" % number: bytes(1000) for number in range(3)}
    tree.file(tree.root, b"f", b"x", ZPL_DXATTR=packed_xattrs(huge))
    source = FileSource.of([tree.written(tmp_path / "s.zfs")])
    with source.opened() as reader:
        choice = FileChoice(FileIndex.build(reader, None))
    choice.add(b"/", matcher([]))
    troubles = Troubles()
    with patch("fullsend_protocol.wire.pack.XATTRS_MAX", 2000):
        entries = EntryGiver(PackWriter(lambda _data: None), choice, troubles)
        deliver(source, choice, entries, Wishes(), troubles)
        entries.finish()
    assert troubles.count == 1
    assert troubles.lines[0].startswith("f: has more than")
