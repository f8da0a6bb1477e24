"""Where the lines of a log are kept: in a file of this host, or in a document that all daemons of a store share."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from fullsend_receiver.store.api import Documents, update
from fullsend_receiver.store.durable import append_lines, replace_file, signature


class LineLog(Protocol):
    """Lines, which are appended. All methods block. Raises: OSError, StoreError."""

    def signature(self) -> object:
        """Return what changes with each change, for less than reading it."""

    def open(self) -> BinaryIO:
        """Open it for reading; it is empty if it does not exist."""

    def append(self, lines: bytes, *, durable: bool) -> tuple[int, bytes, object]:
        """Append whole lines; it is made if it does not exist. `durable`: before this returns.

        Returns: its size before; what was appended: a newline first, if its last line was not whole; and its signature
        then, None: not known.
        """

    def replace(self, lines: bytes) -> None:
        """Replace all lines, if nothing was appended that `open` has not yielded."""


@dataclass(frozen=True, slots=True)
class FileLog:
    """A `LineLog` in a file. `path`: None: a file that never exists. The caller holds the store's lock for changes."""

    path: Path | None

    def signature(self) -> object:
        """See `LineLog.signature`."""
        return None if self.path is None else signature(self.path)

    def open(self) -> BinaryIO:
        """See `LineLog.open`."""
        try:
            return io.BytesIO() if self.path is None else self.path.open("rb")
        except FileNotFoundError:
            return io.BytesIO()

    def append(self, lines: bytes, *, durable: bool) -> tuple[int, bytes, object]:
        """See `LineLog.append`."""
        assert self.path is not None  # noqa: S101 - for mypy: a result is of a stored stream
        size, added = append_lines(self.path, lines, durable=durable)
        return size, added, signature(self.path)

    def replace(self, lines: bytes) -> None:
        """See `LineLog.replace`."""
        assert self.path is not None  # noqa: S101 - as above
        replace_file(self.path, lines)


class DocumentLog:
    """A `LineLog` in a document. It is for few lines: each change replaces the whole document."""

    def __init__(self, documents: Documents, name: str) -> None:
        """Reads nothing."""
        self._documents = documents
        self._name = name
        self._opened: str | None = None  # the tag of what `open` has yielded

    def signature(self) -> object:
        """See `LineLog.signature`."""
        return self._documents.version(self._name)

    def open(self) -> BinaryIO:
        """See `LineLog.open`."""
        found = self._documents.get(self._name)
        self._opened = None if found is None else found.tag
        return io.BytesIO(b"" if found is None else found.data)

    def append(self, lines: bytes, *, durable: bool) -> tuple[int, bytes, object]:
        """See `LineLog.append`: always durable."""
        del durable
        size = 0

        def longer(before: bytes | None) -> bytes:
            nonlocal size
            size = len(before or b"")
            return (before or b"") + lines

        update(self._documents, self._name, longer)
        return size, lines, None  # another process may have replaced it since

    def replace(self, lines: bytes) -> None:
        """See `LineLog.replace`: if another process was first, its lines stay, and the old ones."""
        self._documents.put(self._name, lines, if_match=self._opened)
