"""What has changed between two snapshots: as `zfs diff` says it, and as its source says it must."""

from __future__ import annotations

import contextlib
import copy
import struct
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.file_trees import FOLDER, TREES, Tree, time, volume

from fullsend_protocol.dataset.objects import ObjectReader
from fullsend_receiver.cli.diff import line
from fullsend_receiver.files.difference import DELETED, Change, NotComparable, changes
from fullsend_receiver.files.index import FileIndex, NoSuchFile
from fullsend_receiver.files.sources import FileSource

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

U64: Final = struct.Struct("<Q")
LATER: Final = time(1_800_000_000_000_000_000)


def numbers(**values: int) -> dict[str, bytes]:
    return {f"ZPL_{name}": U64.pack(value) for name, value in values.items()}


def indexed(paths: Sequence[Path]) -> FileIndex:
    with FileSource.of(paths).opened() as reader:
        return FileIndex.build(reader, None)


def between(old: Tree, new: Tree) -> list[Change]:
    with contextlib.ExitStack() as stack:
        both = [FileIndex.build(ObjectReader("it", [tree.stream()]), None) for tree in (old, new)]
        for each in both:
            stack.callback(each.close)
        return list(changes(*both))


def said(old: Tree, new: Tree) -> list[str]:
    return [line(each, b"", types=True, script=True) for each in between(old, new)]


@pytest.mark.parametrize(("name", "which"), [("sa", 0), ("dir", 2)])
def test_genuine_trees_differ_as_zfs_diff_said(name: str, which: int) -> None:
    old, new = (indexed(tree.paths()) for tree in TREES[which : which + 2])
    with contextlib.closing(old), contextlib.closing(new):
        found = [line(each, f"/tank/{name}".encode(), types=True, script=True) for each in changes(old, new)]
        assert list(changes(new, new)) == []
    genuine = (FOLDER / f"{name}.diff").read_text().splitlines()
    assert len(genuine) == 42
    assert sorted(found) == sorted(genuine)


def test_attributes_of_files_have_lines_of_their_own() -> None:
    """xattr=on under OpenZFS 2.1: attributes are files of a hidden directory."""
    old, new = (indexed(tree.paths()) for tree in TREES[4:6])
    with contextlib.closing(old), contextlib.closing(new):
        found = [line(each, b"", types=True, script=True) for each in changes(old, new)]
    assert {"-\tF\t/a/tiny/<xattrdir>/security.x", "M\t/\t/a/tiny/<xattrdir>"} <= set(found)


def changed(tree: Tree, number: int, **values: int) -> None:
    tree.attributes[number] |= numbers(**values) | {"ZPL_CTIME": LATER}


@pytest.fixture
def old() -> Tree:
    tree = Tree()
    folder = tree.directory(tree.root, b"d")
    tree.file(folder, b"f", b"text", None, **numbers(PARENT=folder))
    return tree


def test_kinds_of_changes(old: Tree) -> None:
    folder, file = old.directories[old.root][b"d"], 65
    new = copy.deepcopy(old)
    changed(new, file, SIZE=4)
    assert said(old, new) == ["M\tF\t/d/f"]
    new.attributes[file]["ZPL_CTIME"] = old.attributes[file]["ZPL_CTIME"]
    new.attributes[file]["ZPL_ATIME"] = LATER
    assert said(old, new) == []  # its access time alone
    changed(new, file)
    changed(new, folder)
    del new.directories[folder][b"f"]
    new.directories[old.root][b"a b\\"] = file
    changed(new, file, PARENT=old.root)
    assert said(old, new) == ["M\t/\t/d", "R\tF\t/d/f\t/a\\0040b\\0134"]
    changed(new, file, GEN=6)
    assert said(old, new) == ["M\t/\t/d", "-\tF\t/d/f", "+\tF\t/a\\0040b\\0134"]
    del new.directories[old.root][b"a b\\"], new.attributes[file], new.blocks[file]
    assert said(old, new) == ["M\t/\t/d", "-\tF\t/d/f"]
    assert said(new, old) == ["M\t/\t/d", "+\tF\t/d/f"]


def test_another_type_is_another_file(old: Tree) -> None:
    new = copy.deepcopy(old)
    changed(new, 65, MODE=0o140644)
    assert said(old, new) == ["-\tF\t/d/f", "+\t=\t/d/f"]


def test_a_moved_folder_is_one_line(old: Tree) -> None:
    new = copy.deepcopy(old)
    new.directories[old.root] = {b"e": 64}
    changed(new, 64)
    assert said(old, new) == ["R\t/\t/d\t/e"]


def test_names_more_and_fewer(old: Tree) -> None:
    new = copy.deepcopy(old)
    new.directories[64][b"g"] = 65
    changed(new, 65, LINKS=2)
    assert said(old, new) == ["M\tF\t/d/f\t(+1)"]
    assert said(new, old)[0].endswith("\t(-1)")
    # The name that its parent had is gone: it has no path, and only the number of names tells.
    changed(old, 65, LINKS=2)
    old.directories[old.root][b"other"] = 65
    del new.directories[64][b"g"], new.directories[64][b"f"]
    new.directories[old.root][b"other"] = 65
    changed(new, 65, LINKS=1)
    assert said(old, new) == ["M\tF\t/d/f\t(-1)"]
    assert said(new, old) == ["M\tF\t/d/f\t(+1)"]
    older = copy.deepcopy(new)
    changed(new, 65, MODE=0o100600)
    assert said(older, new) == []  # without a path on both sides


def test_what_waits_for_its_deletion(old: Tree) -> None:
    new = copy.deepcopy(old)
    del new.directories[64][b"f"]
    changed(new, 65, LINKS=0)
    (change,) = between(old, new)
    assert (change.kind, change.path, change.new_path) == ("R", b"/d/f", DELETED)
    gone = copy.deepcopy(new)
    del gone.attributes[65], gone.blocks[65]
    assert said(new, gone) == []
    assert said(gone, new) == ["+\tF\t(on_delete_queue)"]


def test_what_cannot_be_compared(old: Tree) -> None:
    other = Tree()
    other.attributes[other.root]["ZPL_CRTIME"] = LATER
    with pytest.raises(NotComparable, match="not of one file system"):
        between(old, other)
    with contextlib.ExitStack() as stack:
        both = [FileIndex.build(ObjectReader("it", [each]), None) for each in (volume(512, {}), old.stream())]
        for each in both:
            stack.callback(each.close)
        for order in (both, both[::-1]):
            with pytest.raises(NoSuchFile, match="is a volume"):
                list(changes(*order))


class Model:
    """A tree as a set of files by their paths, with what happens to them, and what `zfs diff` would say of each."""

    def __init__(self) -> None:
        self.tree = Tree()
        self.folders = [self.tree.root, *(self.tree.directory(self.tree.root, b"d%d" % each) for each in range(2))]
        self.at: dict[int, tuple[int, bytes]] = {}
        self.now = 1_800_000_000_000_000_000

    def touch(self, number: int, **values: int) -> None:
        self.now += 1
        self.tree.attributes[number] |= numbers(**values) | {"ZPL_CTIME": time(self.now)}

    def make(self, folder: int) -> None:
        name = b"f%d" % self.tree.next
        number = self.tree.file(self.folders[folder], name, b"", None, **numbers(PARENT=self.folders[folder]))
        self.at[number] = self.folders[folder], name
        self.touch(self.folders[folder])

    def remove(self, number: int) -> None:
        folder, name = self.at.pop(number)
        del self.tree.directories[folder][name], self.tree.attributes[number]
        self.touch(folder)

    def move(self, number: int, folder: int) -> None:
        old, name = self.at[number]
        del self.tree.directories[old][name]
        self.touch(old)
        self.at[number] = self.folders[folder], name + b"x"
        self.tree.directories[self.folders[folder]][name + b"x"] = number
        self.touch(self.folders[folder])
        self.touch(number, PARENT=self.folders[folder])

    def path(self, number: int) -> bytes:
        folder, name = self.at[number]
        place = self.folders.index(folder)
        return (b"/d%d/" % (place - 1) if place else b"/") + name


def expected(old: Model, new: Model) -> Iterator[tuple[str, bytes, bytes | None]]:
    for number in old.at.keys() | new.at.keys():
        if number not in new.at:
            yield "-", old.path(number), None
        elif number not in old.at:
            yield "+", new.path(number), None
        elif old.path(number) != new.path(number):
            yield "R", old.path(number), new.path(number)
        elif old.tree.attributes[number] != new.tree.attributes[number]:
            yield "M", new.path(number), None


@given(st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_random_changes(data: st.DataObject) -> None:
    model = Model()
    for folder in data.draw(st.lists(st.integers(0, 2), max_size=6)):
        model.make(folder)
    before = copy.deepcopy(model)
    for kind in data.draw(st.lists(st.sampled_from(["make", "touch", "remove", "move"]), max_size=8)):
        number = data.draw(st.sampled_from(sorted(model.at))) if model.at else 0
        if kind == "make":
            model.make(data.draw(st.integers(0, 2)))
        elif number and kind == "touch":
            model.touch(number)
        elif number and kind == "remove":
            model.remove(number)
        elif number:
            model.move(number, data.draw(st.integers(0, 2)))
    found = between(before.tree, model.tree)
    files = [(each.kind, each.path, each.new_path) for each in found if not each.node.is_directory]
    assert sorted(map(repr, files)) == sorted(map(repr, expected(before, model)))
    numbers_ = [each.node.number for each in found]
    assert numbers_ == sorted(numbers_)
