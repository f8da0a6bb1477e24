"""The results of checks of stored streams: STORE/.state/scrub.jsonl, one JSON line a check, the last one counts.

`Scrubbed` is the model of a line. A line is read by the known keys, whatever its format is: known damage is never
forgotten, neither by an upgrade nor by a downgrade. When the log is rewritten, each line keeps its unknown keys.
"""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from fullsend_receiver.catalogue.folded import Folded
from fullsend_receiver.store.durable import locked, replace_file, write_all
from fullsend_receiver.store.local import LocalStore

#: The format of new lines. The first version wrote none.
_FORMAT: Final = 1
#: When the log has so many lines more than files, it is rewritten.
_SLACK: Final = 10_000
#: Rows in memory at a time in the form in which they were read: 900 bytes each.
_AT_ONCE: Final = 5_000
#: Bytes that are read at a time.
_BLOCK: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """The result of one check.

    `received`: the time of reception in the manifest, so that a file that was removed and pushed again counts as
    another one; `at`: the time of the check, ISO 8601; `damage`: a line for each fault, empty for a whole stream;
    `sha256`: of the whole raw stream, for those whose manifest has none; None if it is damaged.
    """

    file: str
    received: str
    at: str
    damage: tuple[str, ...]
    sha256: str | None

    def to_row(self) -> dict[str, Any]:
        """Return the content of a line."""
        return {"format": _FORMAT, **asdict(self)}

    @classmethod
    def from_row(cls, row: dict[str, Any], file: str, received: str) -> Scrubbed | None:
        """Read a line about a file that was received then; None if it cannot be understood.

        A row with damage that lacks something else is understood.
        """
        damage, at, sha256 = _damage(row), row.get("at"), row.get("sha256")
        if not damage and not (isinstance(at, str) and "damage" in row):
            return None  # as if it had not been checked
        return cls(file, received, str(at), damage, sha256 if isinstance(sha256, str) else None)


class ScrubLog:
    """The last result for each file, as of the last reading."""

    def __init__(self, store: LocalStore) -> None:
        """Read the log."""
        self._store = store
        self._path = scrub_file(store)
        self._lines = 0
        self._last = Folded()  # as they were written, with keys that this version does not know
        # By file with damage: when it was received, empty if the row does not show that.
        self._damaged: dict[str, tuple[Any, ...]] = {}
        self._foreign: list[bytes] = []  # lines whose file this version cannot read
        self._known = 0  # bytes of the file that were read, up to the end of a line; and their CRC
        self._crc = 0
        self.read()

    def get(self, file: str, received: str) -> Scrubbed | None:
        """Return the last result for a file (relative to the store) that was received then."""
        row = self._last.get(file)
        if row is None or row.get("received", received) != received:
            return None
        return Scrubbed.from_row(row, file, received)

    def is_damaged(self, file: str, received: str) -> bool:
        """Whether `get` returns damage. Decompresses no row: the streams of a chain may be in as many folders."""
        return self._damaged.get(file) in ((), (received,))

    def add(self, scrubbed: Scrubbed) -> None:
        """Record a result. Blocks on the disk."""
        row = scrubbed.to_row()
        _take(self._last, self._damaged, [(scrubbed.file, row)])
        with locked(self._store.lock):
            if self._lines > len(self._last) + _SLACK:
                self.read(anew=True)  # other processes may have added to it
                _take(self._last, self._damaged, [(scrubbed.file, row)])
                replace_file(self._path, b"".join([*self._foreign, *map(_line, self._last.rows())]))
                self._lines = len(self._last)
                return
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                size = os.fstat(descriptor).st_size
                torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"  # a process was killed while it wrote
                write_all(descriptor, b"\n" * torn + _line(row))
            finally:
                os.close(descriptor)
        self._lines += 1

    def read(self, *, anew: bool = False) -> None:
        """Read what was added since the last call. Read all of it if the file was changed in another way, or if `anew`.

        Ignores a line that is not whole (a crash).
        """
        try:
            file: BinaryIO = self._path.open("rb")
        except FileNotFoundError:
            file = io.BytesIO()
        with file:
            known = 0 if anew or _crc(file, self._known) != self._crc else self._known
            count, last, damaged, foreign = (
                (self._lines, self._last, self._damaged, self._foreign) if known else (0, Folded(), {}, [])
            )
            whole, crc = known, self._crc if known else 0
            rows: list[tuple[str, dict[str, Any]]] = []
            file.seek(known)
            for line in file:
                if line.endswith(b"\n"):
                    whole, crc = whole + len(line), zlib.crc32(line, crc)
                try:
                    row = json.loads(line)
                except ValueError:
                    continue
                count += 1
                if isinstance(row, dict) and isinstance(row.get("file"), str):
                    rows.append((row["file"], row))
                elif not known:  # otherwise: with the next complete reading, which precedes each rewriting
                    foreign.append(line.rstrip(b"\n") + b"\n")
                if len(rows) >= _AT_ONCE:
                    _take(last, damaged, rows)
                    rows.clear()
        _take(last, damaged, rows)
        # In one step: otherwise another thread might see no damage meanwhile.
        self._lines, self._last, self._damaged, self._foreign = count, last, damaged, foreign
        self._known, self._crc = whole, crc


def scrub_file(store: LocalStore) -> Path:
    """Return the log's file."""
    return store.state / "scrub.jsonl"


def _crc(file: BinaryIO, length: int) -> int:
    """Return the CRC-32 of the first `length` bytes of a file, or of all if it has fewer."""
    crc = 0
    while length and (block := file.read(min(length, _BLOCK))):
        crc = zlib.crc32(block, crc)
        length -= len(block)
    return crc


def _take(last: Folded, damaged: dict[str, tuple[Any, ...]], rows: Iterable[tuple[str, dict[str, Any]]]) -> None:
    """Add rows, each with its file, to the last ones and to the damaged files."""

    def merge(before: dict[str, Any] | None, row: dict[str, Any]) -> dict[str, Any]:
        merged = _merge(before, row)
        if _damage(merged):
            damaged[row["file"]] = (merged["received"],) if "received" in merged else ()
        else:
            damaged.pop(row["file"], None)
        return merged

    last.add(rows, merge)


def _merge(before: dict[str, Any] | None, row: dict[str, Any]) -> dict[str, Any]:
    """Return the resulting row of a file after one more row."""
    if before is not None and "damage" not in row:  # its meaning is unknown, and that of the old row is known
        return before | row | {"damage": before.get("damage", [])}
    return row


def _damage(row: dict[str, Any]) -> tuple[str, ...]:
    """Return the damage lines of a row, whatever form they have."""
    said: object = row.get("damage")
    if isinstance(said, list | tuple):
        return tuple(map(str, said))
    return (str(said),) if said else ()


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row).encode() + b"\n"
