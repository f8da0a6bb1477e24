"""Files in a folder of this host: what the pool said, and nothing outside it."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.file_trees import TREES, GenuineTree, Tree

from fullsend_protocol.dataset.objects import Block, ObjectReader
from fullsend_receiver.files.choice import FileChoice, matcher
from fullsend_receiver.files.delivery import Troubles, Wishes, deliver
from fullsend_receiver.files.folder import Folder
from fullsend_receiver.files.index import FileIndex
from fullsend_receiver.files.sources import FileSource
from fullsend_receiver.maintenance.merge_files import OutputExists

if TYPE_CHECKING:
    from fullsend_protocol.dataset.nodes import Node

ROOT = os.geteuid() == 0
#: What only root may make.
ROOTS = ("trusted.", "security.")


def extracted(source: FileSource, into: Path, *paths: bytes, wishes: Wishes) -> Troubles:
    with source.opened() as reader:
        choice = FileChoice(FileIndex.build(reader, None))
    for path in paths or (b"/",):
        choice.add(path, matcher([]))
    troubles = Troubles()
    folder = Folder(into, choice, wishes, troubles)
    deliver(source, choice, folder, wishes, troubles)
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


def empty(tmp_path: Path, tree: Tree | None = None) -> tuple[Folder, Troubles, Node]:
    """A folder with nothing chosen, as a receptacle."""
    index = FileIndex.build(ObjectReader("it", [(tree or Tree()).stream()]), None)
    troubles = Troubles()
    return Folder(tmp_path / "out", FileChoice(index), Wishes(special=True), troubles), troubles, index.root


def node_of(mode: int, size: int = 0, **more: bytes) -> Node:
    tree = Tree()
    number = tree.put(tree.root, b"f", tree.node(mode, size, **more))
    found = FileIndex.build(ObjectReader("it", [tree.stream()]), None).node(number)
    assert found is not None
    return found


LINK = node_of(stat.S_IFLNK | 0o777, 2, ZPL_SYMLINK=b"..")
FILE = node_of(stat.S_IFREG | 0o644, 3)


def test_no_link_is_followed(tmp_path: Path) -> None:
    """Not even one that was made just before, whatever paths a receptacle is told."""
    folder, troubles, root = empty(tmp_path)
    folder.special(b"link", LINK)
    folder.file(b"link/evil", FILE, iter([Block(7, 0, b"bad")]))
    folder.directory(b"link/evil-folder", root)
    folder.link(b"link/other", b"link")
    folder.file(b"link", FILE, iter([Block(7, 0, b"bad")]))
    folder.file(b"../evil", FILE, iter([Block(7, 0, b"bad")]))
    assert troubles.count >= 4
    folder.publish()
    names = {path.name for path in tmp_path.rglob("*")}
    assert "evil-folder" not in names
    assert not (tmp_path / "evil").exists()
    assert (tmp_path / "out" / "link").is_symlink()


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
    from tests.file_trees import LONG

    troubles = extracted(FileSource.of(LONG.paths()), tmp_path / "out", wishes=Wishes())
    long = [line for line in troubles.lines if "File name too long" in line]
    assert len(long) == 2
    assert (tmp_path / "out" / "a" / "text").stat().st_size == 300_000


def test_the_folder_must_be_new_or_empty(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(OutputExists, match="is not empty"):
        empty(tmp_path)


def test_nothing_is_left_of_what_is_discarded(tmp_path: Path) -> None:
    folder, _troubles, root = empty(tmp_path)
    folder.directory(b"d", root)
    folder.file(b"d/f", FILE, iter([Block(7, 0, b"abc")]))
    assert len(list(tmp_path.rglob("*"))) == 4
    folder.discard()
    assert list(tmp_path.rglob("*")) == [tmp_path / "out"]


def test_one_file_with_the_folders_above_it(tmp_path: Path) -> None:
    tree = TREES[0]
    extracted(FileSource.of(tree.paths()), tmp_path / "out", b"a/b/c/runs", wishes=Wishes())
    top = tmp_path / "out"
    assert sorted(str(path.relative_to(top)) for path in top.rglob("*")) == ["a", "a/b", "a/b/c", "a/b/c/runs"]
    assert stat.S_IMODE((top / "a/b/c").stat().st_mode) == 0o1775
