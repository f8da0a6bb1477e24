"""What checking the stored streams has found: STORE/.state/scrub.jsonl, one JSON line a check, the last one counts."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from fullsend_receiver.durable import locked, replace_file, write_all
from fullsend_receiver.store import Store

#: Lines beyond the number of files after which the log is written anew.
_SLACK: Final = 10_000


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """What one check found. `received`: when the stream was, as its manifest says, so that a file that was removed
    and pushed again is another one; `at`: when it was checked, ISO 8601; `damage`: a line for each fault, empty for a
    whole stream; `sha256`: of the whole raw stream, for those whose manifest has none; None where it is damaged.
    """

    file: str
    received: str
    at: str
    damage: tuple[str, ...]
    sha256: str | None


#: What a line has.
_FIELDS: Final = frozenset(Scrubbed.__slots__)


class ScrubLog:
    """The last result for each file, as it stood when it was read."""

    def __init__(self, store: Store) -> None:
        """Read the log."""
        self._store = store
        self._path = scrub_file(store)
        self._lines = 0
        self._last: dict[str, dict[str, Any]] = {}
        self._read()

    def get(self, file: str, received: str) -> Scrubbed | None:
        """Return the last result for a file (relative to the store) that was received then."""
        row = self._last.get(file)
        if row is None or row["received"] != received:
            return None
        return Scrubbed(file, received, row["at"], tuple(row["damage"]), row["sha256"])

    def add(self, scrubbed: Scrubbed) -> None:
        """Record a result. Blocks on the disk."""
        row = asdict(scrubbed)
        self._last[scrubbed.file] = row
        with locked(self._store.lock):
            if self._lines > len(self._last) + _SLACK:
                self._read()  # others may have added to it
                self._last[scrubbed.file] = row
                replace_file(self._path, b"".join(map(_line, self._last.values())))
                self._lines = len(self._last)
                return
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                size = os.fstat(descriptor).st_size
                torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"  # somebody was killed while he wrote
                write_all(descriptor, b"\n" * torn + _line(row))
            finally:
                os.close(descriptor)
        self._lines += 1

    def _read(self) -> None:
        """Read all; a line that is not whole (a crash) is passed over."""
        count = 0
        last: dict[str, dict[str, Any]] = {}
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            lines = []
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and row.keys() == _FIELDS and isinstance(row["file"], str):
                count += 1
                last[row["file"]] = row
        # In one step: who asks meanwhile, in another thread, must not be told that nothing is damaged.
        self._lines, self._last = count, last


def scrub_file(store: Store) -> Path:
    """Return the log's file."""
    return store.state / "scrub.jsonl"


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row).encode() + b"\n"
