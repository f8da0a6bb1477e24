"""First pass: directories and attributes."""

from __future__ import annotations

import contextlib
import random
import stat
import struct

import pytest
from tests import streams
from tests.file_trees import TREES, Tree, an_object, fat_zap, raw, stream_of, volume

from fullsend_protocol.dataset import tree as trees
from fullsend_protocol.dataset.nodes import Node
from fullsend_protocol.dataset.objects import ObjectReader
from fullsend_protocol.dataset.tree import (
    DirectoryEntry,
    Root,
    StaleEntries,
    TreePart,
    VolumeSize,
    XattrContent,
    read_tree,
)
from fullsend_protocol.shared.errors import DamagedStream, StreamError, UnsupportedStream


def parts(data: bytes) -> list[TreePart]:
    return list(read_tree(ObjectReader("it", [data])))


def test_a_file_system() -> None:
    made = Tree()
    folder = made.directory(made.root, b"folder")
    file = made.file(folder, b"\xff name", b"content")
    found = parts(made.stream())
    assert Root(34) in found
    assert DirectoryEntry(34, b"folder", folder, 0) in found
    assert DirectoryEntry(folder, b"\xff name", file, 0) in found
    assert {each.number: each.size for each in found if isinstance(each, Node)} == {34: 0, folder: 2, file: 7}


@pytest.mark.parametrize("tables_at", [2, 40, 4096])
def test_attributes_may_come_before_the_tables_that_describe_them(tables_at: int) -> None:
    made = Tree()
    made.file(made.root, b"a", b"x")
    before, behind = parts(made.stream()), parts(made.stream(tables_at=tables_at))
    assert sorted(map(repr, before)) == sorted(map(repr, behind))


def test_what_waits_for_the_tables_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Tree()
    for number in range(20):
        made.file(made.root, b"%d" % number, b"x")
    monkeypatch.setattr(trees, "_HELD_MAX", 10_000)
    with pytest.raises(UnsupportedStream, match="too far behind"):
        parts(made.stream(tables_at=4096))


def test_attributes_in_a_spill_block() -> None:
    made = Tree()
    file = made.symlink(made.root, b"link", b"t" * 9)
    target = made.attributes[file].pop("ZPL_SYMLINK")
    made.spills[file] = {"ZPL_SYMLINK": target}
    (found,) = (each for each in parts(made.stream()) if isinstance(each, Node) and each.number == file)
    assert found.target == b"t" * 9


def test_a_spill_block_that_is_lost() -> None:
    made = Tree()
    file = made.file(made.root, b"f")
    made.spills[file] = {"ZPL_DXATTR": b"x"}
    records = [each for each in made.records() if each[0] != 7]
    with pytest.raises(DamagedStream, match=f"lacks the spill block of object {file}"):
        parts(stream_of(*records))


def xattr_tree(size: int | None = None, content: bytes = b"value") -> tuple[Tree, int]:
    made = Tree()
    hidden = made.directory(None, b"", ZPL_FLAGS=struct.pack("<Q", 5))
    value = made.file(hidden, b"user.a", content, size, ZPL_FLAGS=struct.pack("<Q", 5))
    made.file(made.root, b"f", b"x", ZPL_XATTR=struct.pack("<Q", hidden))
    return made, value


@pytest.mark.parametrize("tables_at", [2, 4096])
def test_values_of_extended_attributes_that_are_files(tables_at: int) -> None:
    made, value = xattr_tree()
    contents = [each for each in parts(made.stream(tables_at=tables_at)) if isinstance(each, XattrContent)]
    assert contents == [XattrContent(value, b"value")]
    made, value = xattr_tree(1000)  # with a hole at its end
    assert XattrContent(value, b"value" + bytes(995)) in parts(made.stream(tables_at=tables_at))


@pytest.mark.parametrize("size", [(64 << 10) + 1, (1 << 63) - 1])
def test_values_that_are_too_long_are_not_held(size: int) -> None:
    made, _value = xattr_tree(size, b"x" * 100_000)
    assert not [each for each in parts(made.stream()) if isinstance(each, XattrContent)]


def test_a_hole_before_the_value_takes_no_memory() -> None:
    made, value = xattr_tree(600)
    made.blocks[value] = [(512, b"y" * 512), (1 << 50, b"z" * 512)]
    assert XattrContent(value, bytes(512) + b"y" * 88) in parts(made.stream())


@pytest.mark.parametrize("name", [b"..", b".", b"a/b", b"/"])
def test_names_that_lead_elsewhere(name: bytes) -> None:
    made = Tree()
    made.file(made.root, name)
    with pytest.raises(DamagedStream, match="impossible name"):
        parts(made.stream())


def test_entries_that_do_not_count() -> None:
    made = Tree()
    file = made.file(made.root, b"there")
    made.zaps[made.root] = fat_zap([[(b"there", [file], 8)]], stale=[[(b"gone", [999], 8)]])
    assert StaleEntries(34, 2) in parts(made.stream())


@pytest.mark.parametrize(
    ("master", "error", "says"),
    [
        ({b"VERSION": 4}, UnsupportedStream, "ZPL version 4"),
        ({b"VERSION": 0}, UnsupportedStream, "ZPL version 0"),
    ],
)
def test_old_file_systems(master: dict[bytes, int], error: type[StreamError], says: str) -> None:
    made = Tree(master=master)
    with pytest.raises(error, match=says):
        parts(made.stream())


def test_objects_of_an_old_file_system() -> None:
    record = bytearray(an_object(7, 19, 512))
    struct.pack_into("<I", record, 20, 17)
    with pytest.raises(UnsupportedStream, match="ZPL version 4 or older"):
        parts(stream_of(bytes(record)))


def test_a_stream_without_what_it_must_have() -> None:
    with pytest.raises(DamagedStream, match="no root directory"):
        parts(stream_of())
    with pytest.raises(DamagedStream, match="how large its volume is"):
        parts(stream_of(objset_type=3))
    without = [each for each in Tree().records() if int.from_bytes(each[8:16], "little") not in {3, 4}]
    with pytest.raises(DamagedStream, match="no tables of attributes"):
        parts(stream_of(*without))


def test_a_volume() -> None:
    assert parts(volume(1 << 20, {0: bytes(512)})) == [VolumeSize(1 << 20)]
    with pytest.raises(DamagedStream, match="impossible size"):
        parts(volume(1 << 63, {}))


@pytest.mark.parametrize("seed", range(150))
def test_damage_ends_by_name(seed: int) -> None:
    """Bytes anywhere in the payloads and headers of a stream of every kind of file."""
    made, _value = xattr_tree()
    made.symlink(made.directory(made.root, b"d"), b"l", b"target")
    made.zaps[made.root] = fat_zap([[(name, [number], 8)] for name, number in made.directories[made.root].items()])
    data, dice = bytearray(made.stream()), random.Random(seed)
    for _ in range(dice.randrange(1, 6)):
        data[dice.randrange(312, len(data))] = dice.randrange(256)
    with contextlib.suppress(StreamError):
        parts(bytes(data))


def test_every_genuine_full_that_is_not_raw() -> None:
    """In whatever way it was sent."""
    seen = 0
    for each in streams.whole():
        try:
            reader = ObjectReader(each.name, [each.read()])
        except UnsupportedStream:
            continue
        found = list(read_tree(reader))
        names = {part.child for part in found if isinstance(part, DirectoryEntry)}
        nodes = {part.number for part in found if isinstance(part, Node)}
        assert reader.is_volume or nodes, each.name
        assert names <= nodes, each.name
        seen += 1
    assert seen > 10


def test_genuine_files_have_what_the_pool_said() -> None:
    (tree,) = (each for each in TREES if (each.name, each.snapshot) == ("sa_Lec", "s1"))
    nodes = {part.number: part for part in parts(raw(tree.paths()[0])) if isinstance(part, Node)}
    for about in tree.listing().values():
        found = nodes[about["ino"]]
        assert (found.mode, found.size, found.links) == (about["mode"], about["size"], about["nlink"])
        assert (found.atime.total, found.mtime.total) == (about["atime"], about["mtime"])
        assert stat.S_ISLNK(found.mode) == (found.target is not None)
