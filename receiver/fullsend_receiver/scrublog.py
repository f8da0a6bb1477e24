"""What checking the stored streams has found: STORE/.state/scrub.jsonl, one JSON line a check, the last one counts."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import Final

from fullsend_receiver.durable import locked, replace_file, write_all
from fullsend_receiver.store import Store

#: Lines beyond the number of files after which the log is written anew.
_SLACK: Final = 10_000


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """What one check found. `at`: when, ISO 8601; `damage`: a line for each fault, empty for a whole stream;
    `sha256`: of the whole raw stream, for those whose manifest has none; None where it is damaged.
    """

    file: str
    at: str
    damage: tuple[str, ...]
    sha256: str | None


class ScrubLog:
    """The last result for each file, as it stood when it was read."""

    def __init__(self, store: Store) -> None:
        """Read the log; a line that is not whole (a crash) is passed over."""
        self._store = store
        self._path = store.state / "scrub.jsonl"
        self._last: dict[str, Scrubbed] = {}
        self._lines = 0
        try:
            content = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return
        for line in content.splitlines():
            try:
                row = json.loads(line)
                scrubbed = Scrubbed(row["file"], row["at"], tuple(row["damage"]), row["sha256"])
            except (ValueError, KeyError, TypeError):
                continue
            self._lines += 1
            self._last[scrubbed.file] = scrubbed

    def get(self, file: str) -> Scrubbed | None:
        """Return the last result for a file (relative to the store)."""
        return self._last.get(file)

    def add(self, scrubbed: Scrubbed) -> None:
        """Record a result. Blocks on the disk."""
        self._last[scrubbed.file] = scrubbed
        with locked(self._store.lock):
            if self._lines > len(self._last) + _SLACK:
                lines = [json.dumps(asdict(each)) for each in self._last.values()]
                replace_file(self._path, "".join(line + "\n" for line in lines).encode())
                self._lines = len(lines)
                return
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                write_all(descriptor, b"%b\n" % json.dumps(asdict(scrubbed)).encode())
            finally:
                os.close(descriptor)
        self._lines += 1
