"""Small documents in STORE/.state, one file each."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from fullsend_receiver.store.api import Document
from fullsend_receiver.store.durable import append_lines, locked, replace_file, signature


@dataclass(frozen=True, slots=True)
class LocalDocuments:
    """The `Documents` of a store in a folder. `lock`: held while one is replaced."""

    folder: Path
    lock: Path

    def get(self, name: str) -> Document | None:
        """Read a document. See `Documents.get`."""
        try:
            data = (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None
        return Document(data, hashlib.sha256(data).hexdigest())

    def version(self, name: str) -> object:
        """Return its inode number, size and time. See `Documents.version`."""
        return signature(self.folder / name)

    def put(self, name: str, data: bytes, *, if_match: str | None) -> bool:
        """Replace a document. See `Documents.put`."""
        with locked(self.lock):
            found = self.get(name)
            if (None if found is None else found.tag) != if_match:
                return False
            replace_file(self.folder / name, data)
            return True

    def append(self, name: str, line: bytes, *, most: int) -> None:
        """Append to a document. See `Documents.append`."""
        path = self.folder / name
        with locked(self.lock):
            size, _appended = append_lines(path, line)
            if size + len(line) > most:
                lines = path.read_bytes()[-most // 2 :].partition(b"\n")[2]
                replace_file(path, lines)
