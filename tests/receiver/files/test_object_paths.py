"""Paths of objects, as OpenZFS finds them."""

from __future__ import annotations

import contextlib
import stat
import struct
from typing import TYPE_CHECKING, Final

import pytest
from tests.file_trees import TREES, GenuineTree, Tree

from fullsend_protocol.dataset.objects import ObjectReader
from fullsend_protocol.dataset.zap import name_order
from fullsend_protocol.shared.errors import DamagedStream
from fullsend_receiver.files import object_paths
from fullsend_receiver.files.index import FileIndex
from fullsend_receiver.files.object_paths import ObjectPaths, is_deleted, letter
from fullsend_receiver.files.sources import FileSource

if TYPE_CHECKING:
    from collections.abc import Iterator

U64: Final = struct.Struct("<Q")


@contextlib.contextmanager
def paths_of(index: FileIndex, *numbers: int) -> Iterator[list[bytes | None]]:
    with contextlib.closing(index), contextlib.closing(ObjectPaths(index)) as paths:
        nodes = [node for number in numbers if (node := index.node(number)) is not None]
        for node in nodes:
            paths.want(node)
        paths.load()
        yield [paths.path(node) for node in nodes]


def built(tree: Tree) -> FileIndex:
    return FileIndex.build(ObjectReader("it", [tree.stream()]), None)


def under(parent: int, **more: int) -> dict[str, bytes]:
    return {f"ZPL_{name}": U64.pack(value) for name, value in ({"PARENT": parent} | more).items()}


@pytest.mark.parametrize("tree", TREES, ids=str)
def test_each_file_of_a_genuine_tree_has_one_of_its_paths(tree: GenuineTree) -> None:
    with FileSource.of(tree.paths()).opened() as reader:
        index = FileIndex.build(reader, None)
    listing = tree.listing()
    names: dict[int, set[bytes | None]] = {}
    for name, about in listing.items():
        names.setdefault(about["ino"], set()).add(b"/" + name)
    with paths_of(index, *names) as found:
        assert len(found) == len(names)
        for path, possible in zip(found, names.values(), strict=True):
            assert path in possible


def test_of_several_names_the_first_in_the_order_of_hashes() -> None:
    tree = Tree()
    folder = tree.directory(tree.root, b"d")
    file = tree.file(folder, b"0", b"", None, **under(folder, LINKS=41))
    for number in range(1, 40):
        tree.directories[folder][b"%d" % number] = file
    tree.directories[tree.root][b"elsewhere"] = file
    # The writer's micro ZAPs have the salt 1.
    first = min((b"%d" % number for number in range(40)), key=lambda name: name_order(name, 1))
    assert first != b"0"
    with paths_of(built(tree), file, folder, tree.root) as found:
        assert found == [b"/d/" + first, b"/d", b"/"]


def test_a_parent_that_does_not_have_it_any_more() -> None:
    tree = Tree()
    folder = tree.directory(tree.root, b"d")
    lost = tree.file(tree.root, b"one", b"", None, **under(folder, LINKS=1))
    nowhere = tree.file(tree.root, b"two", b"", None, **under(9999))
    huge = tree.file(tree.root, b"three", b"", None, **under((1 << 64) - 1))
    in_file = tree.file(tree.root, b"four", b"", None, **under(lost))
    with paths_of(built(tree), lost, nowhere, huge, in_file) as found:
        assert found == [None, None, None, None]


def test_extended_attributes_are_below_their_file() -> None:
    tree = Tree()
    file = tree.file(tree.root, b"f")
    folder = tree.directory(None, b"", **under(file, FLAGS=1))
    value = tree.file(folder, b"user.a", b"", None, **under(folder, FLAGS=1))
    with paths_of(built(tree), value, folder) as found:
        assert found == [b"/f/<xattrdir>/user.a", b"/f/<xattrdir>"]


def test_parents_in_a_circle_end() -> None:
    tree = Tree()
    file = tree.next + 1
    folder = tree.directory(None, b"", **under(file, FLAGS=1))
    assert tree.file(folder, b"f", b"", None, **under(folder)) == file
    index = built(tree)
    with contextlib.closing(index), contextlib.closing(ObjectPaths(index)) as paths:
        node = index.node(file)
        assert node is not None
        paths.want(node)
        paths.load()
        with pytest.raises(DamagedStream, match="directories deep"):
            paths.path(node)


def test_a_few_held_paths_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_paths, "_HELD_MAX", 1)
    tree = Tree()
    folders = [tree.directory(tree.root, b"%d" % number) for number in range(3)]
    files = [tree.file(folder, b"f", b"", None, **under(folder)) for folder in folders] * 2
    with paths_of(built(tree), *files) as found:
        assert found == [b"/0/f", b"/1/f", b"/2/f"] * 2


def test_letters_and_links() -> None:
    kinds = (stat.S_IFBLK, stat.S_IFCHR, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFLNK, stat.S_IFSOCK, stat.S_IFREG, 0)
    assert "".join(letter(each | 0o644) for each in kinds) == "BC/|@=F?"
    tree = Tree()
    number = tree.file(None, b"", b"", None, **under(tree.root, LINKS=0))
    with contextlib.closing(built(tree)) as index:
        node = index.node(number)
        assert node is not None
        assert is_deleted(node)
        assert not is_deleted(index.root)
