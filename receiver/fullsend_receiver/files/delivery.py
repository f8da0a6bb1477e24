"""Second pass: gives the chosen files, in the order of the stream, to a folder or an archive.

Contents come block by block. What was given counts only when the pass has ended, and so the stream is proven.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Protocol

from fullsend_protocol.dataset import acl
from fullsend_protocol.dataset.contents import read_contents
from fullsend_protocol.dataset.objects import Block

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fullsend_files.troubles import Troubles, Wishes
    from fullsend_protocol.dataset.nodes import Node
    from fullsend_protocol.dataset.objects import ObjectReader
    from fullsend_receiver.files.choice import FileChoice
    from fullsend_receiver.files.sources import SnapshotSource


class Receptacle(Protocol):
    """Takes files. Paths are relative, without `..`; each directory comes before what it has."""

    def directory(self, path: bytes, node: Node) -> None:
        """Take a directory, the root's path is empty."""

    def file(self, path: bytes, node: Node, blocks: Iterator[Block]) -> None:
        """Take a regular file. `blocks`: its contents; what lies between them is zero."""

    def special(self, path: bytes, node: Node) -> None:
        """Take a symlink, device, fifo or socket."""

    def link(self, path: bytes, first: bytes) -> None:
        """Take another name of a file that was taken as `first`."""


def deliver(source: SnapshotSource, choice: FileChoice, to: Receptacle, wishes: Wishes, troubles: Troubles) -> None:
    """Give all chosen files. Raises: StreamError, OSError if the stream is not proven: then nothing given counts."""
    for path, node in choice.directories():
        _check_acl(path, node, troubles)
        to.directory(path, node)
    with source.opened() as reader:
        blocks = _Blocks(reader, choice)
        for node, paths in choice.others():
            _check_acl(paths[0], node, troubles)
            if node.is_file:
                to.file(paths[0], node, blocks.of(node))
                blocks.skip(node.number)
            elif stat.S_ISLNK(node.mode) or wishes.special:
                to.special(paths[0], node)
            else:
                troubles.left_out += len(paths)
                continue
            for path in paths[1:]:
                to.link(path, paths[0])
        blocks.finish()


def _check_acl(path: bytes, node: Node, troubles: Troubles) -> None:
    if node.acl is not None and not acl.is_trivial(node.flags):
        troubles.add(path, "has an NFSv4 ACL, which no file outside ZFS can have: `ls --json` shows it")


class _Blocks:
    """The blocks of the chosen files, one file at a time."""

    def __init__(self, reader: ObjectReader, choice: FileChoice) -> None:
        self._all = read_contents(reader, choice)
        self._next = next(self._all, None)

    def of(self, node: Node) -> Iterator[Block]:
        """Yield the blocks of a file, none behind its end."""
        while self._next is not None and self._next.number == node.number:
            here, self._next = self._next, None
            data = memoryview(here.data)[: max(node.size - here.offset, 0)]
            if data:
                yield Block(here.number, here.offset, data)
            self._next = next(self._all, None)

    def skip(self, number: int) -> None:
        """Pass over what is left of a file."""
        while self._next is not None and self._next.number <= number:
            self._next = next(self._all, None)

    def finish(self) -> None:
        """Read to the end of the stream."""
        for _block in self._all:
            pass
