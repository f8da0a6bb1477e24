"""The second pass: each file gets its own blocks, in the order of the stream."""

from __future__ import annotations

import contextlib
import stat
import struct
from typing import TYPE_CHECKING

import pytest
from tests.file_trees import Tree

from fullsend_files.troubles import Troubles, Wishes
from fullsend_protocol.dataset.objects import Block, ObjectReader
from fullsend_protocol.shared.errors import IncompleteStream
from fullsend_receiver.files.choice import FileChoice, matcher
from fullsend_receiver.files.delivery import deliver
from fullsend_receiver.files.index import FileIndex

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fullsend_protocol.dataset.nodes import Node


class Given:
    """A source and a receptacle."""

    name, key = "it", None

    def __init__(self, tree: Tree, *, reads: bool = True) -> None:
        self.data = tree.stream()
        self.lines: list[tuple[object, ...]] = []
        self.reads = reads

    @contextlib.contextmanager
    def opened(self) -> Iterator[ObjectReader]:
        yield ObjectReader("it", [self.data])

    def directory(self, path: bytes, node: Node) -> None:
        self.lines.append(("directory", path))

    def file(self, path: bytes, node: Node, blocks: Iterator[Block]) -> None:
        self.lines.append(("file", path, [(each.offset, bytes(each.data)) for each in blocks] if self.reads else None))

    def special(self, path: bytes, node: Node) -> None:
        self.lines.append(("special", path))

    def link(self, path: bytes, first: bytes) -> None:
        self.lines.append(("link", path, first))


def tree() -> Tree:
    made = Tree()
    one = made.file(made.root, b"one", b"1" * 700, 600)
    made.file(made.root, b"empty")
    made.file(made.root, b"two", b"22")
    made.put(made.root, b"fifo", made.node(stat.S_IFIFO | 0o644))
    made.symlink(made.root, b"sym", b"one")
    made.directories[made.root][b"hard"] = one
    return made


def given(to: Given, wishes: Wishes, *paths: bytes) -> Troubles:
    choice = FileChoice(FileIndex.build(ObjectReader("it", [to.data]), None))
    for path in paths or (b"/",):
        choice.add(path, matcher([]))
    troubles = Troubles()
    deliver(to, choice, to, wishes, troubles)
    return troubles


def test_everything_once() -> None:
    to = Given(tree())
    troubles = given(to, Wishes())
    assert to.lines == [
        ("directory", b""),
        ("file", b"hard", [(0, b"1" * 600)]),
        ("link", b"one", b"hard"),
        ("file", b"empty", []),
        ("file", b"two", [(0, b"22")]),
        ("special", b"sym"),
    ]
    assert (troubles.count, troubles.left_out) == (0, 1)


def test_what_is_special_comes_when_it_is_wished() -> None:
    to = Given(tree())
    assert given(to, Wishes(special=True), b"fifo").left_out == 0
    assert to.lines[1:] == [("special", b"fifo")]


def test_a_file_that_nobody_reads_does_not_stop_the_others() -> None:
    to = Given(tree(), reads=False)
    given(to, Wishes())
    assert [line[1] for line in to.lines] == [b"", b"hard", b"one", b"empty", b"two", b"sym"]


def test_the_stream_is_read_to_its_end() -> None:
    made = tree()
    to = Given(made)
    choice = FileChoice(FileIndex.build(ObjectReader("it", [to.data]), None))
    choice.add(b"two", matcher([]))
    to.data = to.data[:-312]
    with pytest.raises(IncompleteStream):
        deliver(to, choice, to, Wishes(), Troubles())


def test_an_acl_that_is_more_than_the_mode_is_named() -> None:
    made = Tree()
    made.file(made.root, b"f", ZPL_FLAGS=struct.pack("<Q", 0), ZPL_DACL_ACES=b"x" * 8)
    made.file(made.root, b"g", ZPL_DACL_ACES=b"x" * 8)
    troubles = given(Given(made), Wishes())
    assert troubles.lines == ["f: has an NFSv4 ACL, which no file outside ZFS can have: `ls --json` shows it"]
