"""A receptacle that has files made by an EntryMaker: in a folder of this host, or as a pack for a sender."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from fullsend_protocol.dataset.entry import Entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fullsend_files.troubles import Troubles
    from fullsend_protocol.dataset.entry import EntryMaker
    from fullsend_protocol.dataset.nodes import Node
    from fullsend_protocol.dataset.objects import Block
    from fullsend_receiver.files.choice import FileChoice


class EntryGiver:
    """A receptacle. What its maker refuses with a ValueError is named, and left out."""

    def __init__(self, to: EntryMaker, choice: FileChoice, troubles: Troubles) -> None:
        self._to = to
        self._choice = choice
        self._troubles = troubles

    def directory(self, path: bytes, node: Node) -> None:
        """See Receptacle. Its attributes follow in `finish`."""
        del node
        if path:
            with self._trying(path):
                self._to.directory(path)

    def file(self, path: bytes, node: Node, blocks: Iterator[Block]) -> None:
        """See Receptacle."""
        with self._trying(path):
            self._to.file(path, self._entry(path, node))
            for block in blocks:
                self._to.data(block.offset, block.data)
            self._to.end_file()

    def special(self, path: bytes, node: Node) -> None:
        """See Receptacle."""
        with self._trying(path):
            self._to.special(path, self._entry(path, node))

    def link(self, path: bytes, first: bytes) -> None:
        """See Receptacle."""
        with self._trying(path):
            self._to.link(path, first)

    def finish(self) -> None:
        """Give the directories their attributes, the deepest first. The stream must be proven."""
        for path, node in self._choice.directories(deepest_first=True):
            if path or self._choice.is_whole:
                with self._trying(path):
                    self._to.describe(path, self._entry(path, node))

    @contextlib.contextmanager
    def _trying(self, path: bytes) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            self._troubles.add(path, str(error))

    def _entry(self, path: bytes, node: Node) -> Entry:
        """Raises: StreamError, IndexDamaged."""
        xattrs = {}
        for name, value in self._choice.index.xattrs(node).items():
            if value is None:
                self._troubles.add(path, f"has an extended attribute {name!r} of more than 64 KiB")
            else:
                xattrs[name] = value
        return Entry(
            mode=node.mode,
            size=node.size,
            uid=node.uid,
            gid=node.gid,
            atime=node.atime,
            mtime=node.mtime,
            device=None if node.device is None else node.device_numbers,
            target=node.target,
            xattrs=xattrs,
        )
