"""The index of a snapshot: what the pool said, and what is not a tree."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import stat
import struct
import sys
import threading
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest
from tests.file_trees import LONG, TREES, GenuineTree, Tree, fat_zap, packed_xattrs, volume

from fullsend_protocol.dataset.objects import ObjectReader
from fullsend_protocol.shared.errors import DamagedStream
from fullsend_receiver.files import index as indexes
from fullsend_receiver.files.choice import FileChoice
from fullsend_receiver.files.index import FileIndex, IndexDamaged, NoSuchFile, components, joined
from fullsend_receiver.files.object_paths import ObjectPaths
from fullsend_receiver.files.sources import FileSource

if TYPE_CHECKING:
    from fullsend_protocol.dataset.nodes import Node


def built(tree: Tree, path: Path | None = None) -> FileIndex:
    return FileIndex.build(ObjectReader("it", [tree.stream()]), path)


@pytest.mark.parametrize("tree", [*TREES, LONG], ids=str)
def test_genuine_trees_have_what_the_pool_said(tree: GenuineTree) -> None:
    """Paths and all metadata: modes, owners, links, sizes, times, devices, targets, attributes of both kinds, ACLs."""
    with FileSource.of(tree.paths()).opened() as reader:
        index = FileIndex.build(reader, None)
    found = dict(index.walk(b"", index.root))
    listing = tree.listing()
    assert found.keys() == listing.keys()
    for path, about in listing.items():
        node = found[path]
        assert (node.number, node.mode, node.uid, node.gid) == (
            *(about["ino"], about["mode"], about["uid"], about["gid"]),
        )
        assert (node.links, node.size) == (about["nlink"], about["size"]), path
        times = (node.atime.total, node.mtime.total, node.ctime.total)
        assert times == (about["atime"], about["mtime"], about["ctime"]), path
        assert (node.target or b"").hex() == about.get("target", "")
        assert "rdev" not in about or list(node.device_numbers) == about["rdev"]
        xattrs = {name.decode(): value.hex() for name, value in index.xattrs(node).items() if value is not None}
        assert xattrs == about.get("xattrs", {}), path
        assert index.lookup(path) == node


def test_an_index_is_the_same_when_it_is_opened_again(tmp_path: Path) -> None:
    tree = Tree()
    tree.symlink(tree.root, b"l", b"t")
    made = built(tree, tmp_path / "i")
    again = FileIndex.opened(tmp_path / "i", "it")
    assert again is not None
    assert list(again.children(again.root)) == list(made.children(made.root))
    assert again.root == made.root


def drop_elsewhere(held: list[object]) -> list[str]:
    """Drop what is held in another thread, as the search for cycles may. Returns: what went wrong there."""
    failed: list[str] = []
    before, sys.unraisablehook = sys.unraisablehook, lambda what: failed.append(repr(what.exc_value))
    try:
        thread = threading.Thread(target=held.clear)
        thread.start()
        thread.join()
    finally:
        sys.unraisablehook = before
    return failed


def one(kind: str, path: Path) -> object:
    """Something with a database of its own."""
    with FileSource.of(TREES[4].paths()).opened() as reader:
        made = FileIndex.build(reader, path)
    if kind == "kept":
        made.close()
        return FileIndex.opened(path, "it")
    return {"choice": FileChoice, "paths": ObjectPaths}.get(kind, lambda index: index)(made)


@pytest.mark.parametrize("kind", ["built", "kept", "choice", "paths"])
def test_what_nobody_uses_is_closed_in_whatever_thread_finds_it(kind: str, tmp_path: Path) -> None:
    assert drop_elsewhere([one(kind, tmp_path / "i")]) == []


def test_what_is_no_index(tmp_path: Path) -> None:
    assert FileIndex.opened(tmp_path / "none", "it") is None
    (tmp_path / "bad").write_bytes(b"not a database, but long enough to be looked at" * 99)
    assert FileIndex.opened(tmp_path / "bad", "it") is None


def test_an_index_of_another_form_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built(Tree(), tmp_path / "i").close()
    monkeypatch.setattr(indexes, "FORM", indexes.FORM + 1)
    assert FileIndex.opened(tmp_path / "i", "it") is None


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE node SET mode = mode - 1",
        "UPDATE node SET fixed = zeroblob(length(fixed))",
        "UPDATE entry SET child = 34",
        "UPDATE entry SET name = x'62'",
        "DELETE FROM node WHERE number != 34",
        "DROP TABLE entry",
        "DELETE FROM entry",
        "DELETE FROM folder",
        "UPDATE fact SET value = 35 WHERE name = 'root'",
    ],
)
def test_an_index_that_has_changed_is_not_believed(change: str, tmp_path: Path) -> None:
    tree = Tree()
    tree.file(tree.root, b"a", b"x")
    built(tree, tmp_path / "i").close()
    with contextlib.closing(sqlite3.connect(tmp_path / "i")) as database, database:
        database.execute(change)
    index = FileIndex.opened(tmp_path / "i", "it")
    assert index is not None
    with pytest.raises(
        IndexDamaged, match=r"the index of it is damaged .*: run the same command again, which makes it"
    ):
        list(index.walk(b"", index.root))
    index.close()
    assert not (tmp_path / "i").exists()


def test_a_damaged_index_that_cannot_be_removed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built(Tree(), tmp_path / "i").close()
    with contextlib.closing(sqlite3.connect(tmp_path / "i")) as database, database:
        database.execute("DELETE FROM node")
    index = FileIndex.opened(tmp_path / "i", "it")
    assert index is not None

    def refuse(_path: Path, *, missing_ok: bool) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "unlink", refuse)
    with contextlib.closing(index), pytest.raises(IndexDamaged, match=f": delete {tmp_path / 'i'}, and run the same"):
        print(index.root)


def test_a_name_that_an_index_has_lost_is_not_said_to_be_nowhere(tmp_path: Path) -> None:
    tree = Tree()
    tree.file(tree.root, b"a", b"x")
    tree.file(tree.root, b"b", b"x")
    built(tree, tmp_path / "i").close()
    with contextlib.closing(sqlite3.connect(tmp_path / "i")) as database, database:
        database.execute("DELETE FROM entry WHERE name = x'61'")
    index = FileIndex.opened(tmp_path / "i", "it")
    assert index is not None
    for path in (b"a", b"c"):
        with pytest.raises(IndexDamaged, match="a directory has lost entries"):
            index.lookup(path)
    assert index.lookup(b"b").is_file
    index.close()


def test_of_an_index_that_has_rotted_nothing_wrong_is_read(tmp_path: Path) -> None:
    """One bit, in the page by which SQLite finds the others with the entries of directories."""
    tree, path = Tree(), tmp_path / "i"
    for number in range(4):
        folder = tree.directory(tree.root, b"folder%d" % number)
        for each in range(40):
            tree.symlink(folder, b"%04d: a long name, for more pages" % each, b"target")
    index = built(tree, path)
    there = list(index.walk(b"", index.root))
    index.close()
    good, random, lost = path.read_bytes(), Random(0), 0
    (page,) = [at for at in range(0, len(good), 4096) if good[at] == 2]  # an inner page of a tree without row ids
    cells = int.from_bytes(good[page + 5 : page + 7], "big")  # where they begin; the bytes before are empty
    for _time in range(80):
        at = page + random.randrange(cells, 4096)
        path.write_bytes(good[:at] + bytes([good[at] ^ 1 << random.randrange(8)]) + good[at + 1 :])
        rotten = FileIndex.opened(path, "it")
        assert rotten is not None
        with contextlib.closing(rotten), contextlib.suppress(IndexDamaged):
            lost += list(rotten.walk(b"", rotten.root)) != there
    assert lost == 0


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM node WHERE number = (SELECT max(number) FROM node)",
        "DELETE FROM entry WHERE name = (SELECT max(name) FROM entry)",
        "DELETE FROM folder WHERE number = (SELECT max(number) FROM folder)",
        "DELETE FROM content",
        "UPDATE fact SET value = 0 WHERE name = 'rows of node'",
    ],
)
def test_that_all_of_an_index_is_there_can_be_known(change: str, tmp_path: Path) -> None:
    """By `diff`, to which a lost row would be a change."""
    with FileSource.of(TREES[4].paths()).opened() as reader, contextlib.closing(FileIndex.build(reader, None)) as made:
        made.check_whole()
    with FileSource.of(TREES[4].paths()).opened() as reader:
        FileIndex.build(reader, tmp_path / "i").close()
    with contextlib.closing(sqlite3.connect(tmp_path / "i")) as database, database:
        assert database.execute(change).rowcount
    index = FileIndex.opened(tmp_path / "i", "it")
    assert index is not None
    with contextlib.closing(index), pytest.raises(IndexDamaged):
        index.check_whole()


def test_a_schema_that_has_rotted_is_damage(tmp_path: Path) -> None:
    built(Tree(), tmp_path / "i").close()
    data = (tmp_path / "i").read_bytes()
    assert data.count(b"acl BLOB") == 1
    (tmp_path / "i").write_bytes(data.replace(b"acl BLOB", b"\xa0cl BLOB"))
    index = FileIndex.opened(tmp_path / "i", "it")
    assert index is not None
    with contextlib.closing(index), pytest.raises(IndexDamaged, match="can't decode"):
        print(index.root)


def test_paths() -> None:
    assert components(b"//a/./b/") == [b"a", b"b"]
    assert (joined(b"", b"a"), joined(b"a", b"b")) == (b"a", b"a/b")
    with pytest.raises(NoSuchFile, match="without"):
        components(b"a/../b")


def test_what_is_not_there() -> None:
    tree = Tree()
    tree.symlink(tree.directory(tree.root, b"d"), b"l", b"/")
    index = built(tree)
    for path in (b"x", b"d/x", b"d/l/d"):
        with pytest.raises(NoSuchFile, match="no such file in it"):
            index.lookup(path)


def test_a_volume_has_no_files() -> None:
    index = FileIndex.build(ObjectReader("it", [volume(1 << 20, {})]), None)
    assert index.volume_size == 1 << 20
    with pytest.raises(NoSuchFile, match="is a volume"):
        index.lookup(b"/")
    assert built(Tree()).volume_size is None


def cyclic() -> Tree:
    tree = Tree()
    folder = tree.directory(tree.root, b"a")
    tree.directories[folder][b"b"] = folder
    return tree


def root_inside() -> Tree:
    tree = Tree()
    tree.directories[tree.directory(tree.root, b"a")][b"b"] = tree.root
    return tree


def twice() -> Tree:
    tree = Tree()
    tree.directories[tree.root][b"b"] = tree.directory(tree.root, b"a")
    return tree


def dangling() -> Tree:
    tree = Tree()
    tree.directories[tree.root][b"a"] = 99_999
    return tree


def same_name() -> Tree:
    tree = Tree()
    file = tree.file(tree.root, b"a")
    tree.zaps[tree.root] = fat_zap([[(b"a", [file], 8)], [(b"a", [file], 8)]])
    return tree


def same_name_in_one_block() -> Tree:
    tree = Tree()
    file = tree.file(tree.root, b"a")
    tree.zaps[tree.root] = fat_zap([[(b"a", [file], 8), (b"a", [file], 8)]])
    return tree


def no_root() -> Tree:
    return Tree(master={b"ROOT": 77})


def huge_root() -> Tree:
    return Tree(master={b"ROOT": (1 << 64) - 1})


def file_as_root() -> Tree:
    tree = Tree()
    tree.master[b"ROOT"] = tree.file(None, b"")
    return tree


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        (cyclic, "in two places|in itself|has directory"),
        (root_inside, "no root directory, or one inside"),
        (twice, "in two places"),
        (dangling, "object 99999, which is not there"),
        (same_name, "same name twice"),
        (same_name_in_one_block, "same name twice"),
        (no_root, "no root directory"),
        (huge_root, "no root directory"),
        (file_as_root, "no root directory"),
    ],
)
def test_what_is_no_tree(tree: object, says: str) -> None:
    made = tree()  # type: ignore[operator]
    with pytest.raises(DamagedStream, match=says):
        built(made)


def test_directories_nested_too_deeply(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexes, "_DEPTH_MAX", 5)
    tree = Tree()
    folder = tree.root
    for _ in range(6):
        folder = tree.directory(folder, b"d")
    index = built(tree)
    with pytest.raises(DamagedStream, match="nested more than 5 deep"):
        list(index.walk(b"", index.root))


def test_an_unlinked_open_file_is_not_listed() -> None:
    tree = Tree()
    tree.file(None, b"", b"gone")
    index = built(tree)
    assert not list(index.walk(b"", index.root))


def test_extended_attributes_of_both_kinds() -> None:
    flag = struct.pack("<Q", 5)
    tree = Tree()
    hidden = tree.directory(None, b"", ZPL_FLAGS=flag)
    tree.file(hidden, b"file", b"value", ZPL_FLAGS=flag)
    tree.file(hidden, b"user.long", b"x", 100_000, ZPL_FLAGS=flag)
    packed = packed_xattrs({b"trusted.sa": b"packed"})
    tree.file(tree.root, b"f", ZPL_XATTR=struct.pack("<Q", hidden), ZPL_DXATTR=packed)
    index = built(tree)
    assert index.xattrs(index.lookup(b"f")) == {
        b"user.file": b"value",
        b"user.long": None,
        b"trusted.sa": b"packed",
    }
    lost = tree.file(tree.root, b"g", ZPL_XATTR=struct.pack("<Q", (1 << 64) - 1))
    index = built(tree)
    node: Node | None = index.node(lost)
    assert node is not None
    assert index.xattrs(node) == {}
    assert stat.S_ISREG(node.mode)


def test_rows_names_and_salts(tmp_path: Path) -> None:
    tree = Tree()
    folder = tree.directory(tree.root, b"d")
    file = tree.file(folder, b"f")
    tree.directories[folder][b"g"] = tree.directories[tree.root][b"h"] = file
    index = built(tree, tmp_path / "i")
    assert [index.node_of(row).number for row in index.rows()] == [tree.root, folder, file]
    for wanted, found in (
        (
            [(file, folder), (folder, tree.root)],
            [(folder, tree.root, b"d"), (file, folder, b"f"), (file, folder, b"g")],
        ),
        ([(file, tree.root)], [(file, tree.root, b"h")]),  # again, with others
        ([(folder, file)], []),
    ):
        assert sorted(index.names(wanted)) == sorted(found)
    assert (index.salt(folder), index.salt(file)) == (1, None)
    index.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "i")) as database:
        database.execute("UPDATE salt SET value = x'0000000000000000'")
        database.execute("UPDATE entry SET name = x'41' || name")
        database.commit()
    again = FileIndex.opened(tmp_path / "i", "it")
    assert again is not None
    with pytest.raises(IndexDamaged):
        again.salt(folder)
    with pytest.raises(IndexDamaged):
        list(again.names([(file, folder)]))
