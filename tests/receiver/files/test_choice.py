"""What is chosen of a snapshot."""

from __future__ import annotations

import pytest
from tests.file_trees import Tree

from fullsend_protocol.dataset.objects import ObjectReader
from fullsend_receiver.files.choice import FileChoice, matcher
from fullsend_receiver.files.index import FileIndex, NoSuchFile


def choice() -> tuple[FileChoice, dict[str, int]]:
    tree = Tree()
    a = tree.directory(tree.root, b"a")
    b = tree.directory(a, b"b")
    numbers = {"a": a, "b": b, "f": tree.file(b, b"f.txt", b"x"), "g": tree.file(a, b"g.bin", b"x")}
    numbers["l"] = tree.symlink(a, b"l.txt", b"t")
    tree.directories[tree.root][b"hard"] = numbers["f"]
    return FileChoice(FileIndex.build(ObjectReader("it", [tree.stream()]), None)), numbers


def chosen(found: FileChoice) -> tuple[list[bytes], list[list[bytes]]]:
    return [path for path, _node in found.directories()], [paths for _node, paths in found.others()]


def test_all() -> None:
    found, numbers = choice()
    assert found.add(b"/", matcher([])) == 7
    assert found.is_whole
    assert chosen(found) == ([b"", b"a", b"a/b"], [[b"a/b/f.txt", b"hard"], [b"a/g.bin"], [b"a/l.txt"]])
    assert [path for path, _node in found.directories(deepest_first=True)] == [b"a/b", b"a", b""]
    assert [name for name, number in numbers.items() if number in found] == ["f", "g"]
    found.close()


def test_a_path_comes_with_the_directories_above() -> None:
    found, numbers = choice()
    assert found.add(b"a//b", matcher([])) == 2
    assert found.add(b"a/b/f.txt", matcher([])) == 1
    assert not found.is_whole
    assert chosen(found) == ([b"", b"a", b"a/b"], [[b"a/b/f.txt"]])
    assert numbers["g"] not in found


def test_names_by_pattern() -> None:
    found, _numbers = choice()
    assert found.add(b"", matcher(["*.txt", "h??d"])) == 3
    assert chosen(found) == ([b"", b"a", b"a/b"], [[b"a/b/f.txt", b"hard"], [b"a/l.txt"]])


def test_a_pattern_is_about_the_last_name() -> None:
    assert matcher(["*.txt"])(b"a/\xff.txt")
    assert not matcher(["a*"])(b"a/b")


def test_what_is_not_there() -> None:
    found, _numbers = choice()
    with pytest.raises(NoSuchFile):
        found.add(b"nothing", matcher([]))
