"""The results of checks of stored streams: STORE/.state/scrub/SENDER.jsonl, one JSON line a check, the last one counts.

Earlier versions wrote one file for all senders, STORE/.state/scrub.jsonl, and read no other. So known damage, and its
end, is written there as well: after a downgrade no damaged stream counts as whole. What an earlier version has written
there counts where it is newer, and is moved to the files of the senders when a result is added.

In a bucket the file for all senders is a document. So each daemon of the store knows of damage, and of its end,
whichever daemon has found it. What is whole, each knows of its own checks.

A line is read by the known keys, whatever its format is: known damage is never forgotten, neither by an upgrade nor by
a downgrade. When a file is rewritten, each line keeps its unknown keys, and lines of removed streams are dropped.
docs/format.md describes the lines.
"""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final

from fullsend_protocol.wire.invitation import is_sender_name
from fullsend_receiver.catalogue.folded import Folded
from fullsend_receiver.catalogue.line_logs import DocumentLog, FileLog, LineLog
from fullsend_receiver.store.api import Store
from fullsend_receiver.store.durable import locked, sync_folder

#: The log of damage, of all senders.
_COMMON: Final = "scrub.jsonl"
#: The format of new lines. The first version wrote none.
_FORMAT: Final = 1
#: When a file has so many lines more than streams, it is rewritten.
_SLACK: Final = 10_000
#: Rows in memory at a time in the form in which they were read: 900 bytes each.
_AT_ONCE: Final = 5_000
#: Bytes that are read at a time.
_BLOCK: Final = 1 << 18

_Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """The result of one check, or what all checks of a stream have shown.

    `received`: the time of reception in the manifest, so that a file that was removed and pushed again counts as
    another one; `at`: the time of the check, ISO 8601, empty if no check came to its end; `damage`: a line for each
    fault, empty for a whole stream; `sha256`: of the whole raw stream, for those whose manifest has none; None if it is
    damaged. `whole_since`: the first of the checks that found it whole since the last damage, None if it is damaged.

    `unreadable`: why the last check could not read it, None: it could; `tried`, `tries`: when that was, and how many
    checks in a row have failed. Of what could be read before, the other fields tell. `asked`: a person has asked for a
    check since the damage was found.
    """

    file: str
    received: str
    at: str
    damage: tuple[str, ...]
    sha256: str | None
    whole_since: str | None = None
    unreadable: str | None = None
    tried: str | None = None
    tries: int = 0
    asked: bool = False

    @property
    def verdict(self) -> str:
        """What one check has found: `whole`, `damaged`, or `unreadable`."""
        return "damaged" if self.damage else "whole" if self.unreadable is None else "unreadable"

    def to_row(self) -> _Row:
        """Return the content of a line. Keys that say nothing are left out."""
        row: _Row = {"format": _FORMAT, "file": self.file, "received": self.received}
        if self.at:
            row |= {"at": self.at, "damage": list(self.damage), "sha256": self.sha256}
        if self.whole_since is not None:
            row["whole_since"] = self.whole_since
        if self.unreadable is not None:
            row |= {"unreadable": self.unreadable, "tried": self.tried, "tries": self.tries}
        if self.asked:
            row["asked"] = True
        return row

    @classmethod
    def from_row(cls, row: _Row, file: str, received: str) -> Scrubbed | None:
        """Read a line about a file that was received then; None if it cannot be understood.

        A row with damage that lacks something else is understood.
        """
        damage, at, sha256 = _damage(row), row.get("at"), row.get("sha256")
        complete = bool(damage) or (isinstance(at, str) and "damage" in row)
        unreadable = _text(row, "unreadable")
        if not complete and unreadable is None:
            return None  # as if it had not been checked
        tries = row.get("tries")
        return cls(
            file=file,
            received=received,
            at=str(at) if complete else "",
            damage=damage,
            sha256=sha256 if isinstance(sha256, str) and complete else None,
            whole_since=None if damage or not complete else _text(row, "whole_since") or str(at),
            unreadable=unreadable,
            tried=_text(row, "tried") if unreadable is not None else None,
            tries=tries if unreadable is not None and isinstance(tries, int) else 0,
            asked=row.get("asked") is True,
        )


class ScrubLog:
    """The last result for each file, as of the last reading. Thread-safe."""

    def __init__(self, store: Store) -> None:
        """Reads nothing before the first question about a sender."""
        self._store = store
        self._guard: Final = threading.RLock()  # held while a file is read or written; questions do not wait for it
        self._folder = store.home / "scrub"
        self._common = _LogFile(_common_log(store))
        self._common_read = False
        self._senders: dict[str, _LogFile] = {}

    def get(self, file: str, received: str) -> Scrubbed | None:
        """Return the last result for a file (relative to the store) that was received then. Raises: OSError."""
        row = self._row(self._of(file), file, received)
        return None if row is None else Scrubbed.from_row(row, file, received)

    def is_damaged(self, file: str, received: str) -> bool:
        """Whether `get` returns damage. Decompresses no row without damage: the streams of a chain may be in as many
        folders. Raises: OSError.
        """
        own = self._of(file)
        said = own.is_damaged(file, received), self._common.is_damaged(file, received)
        if said[0] == said[1]:
            return said[0]
        row = self._row(own, file, received)
        return row is not None and bool(_damage(row))

    def unreadable(self, file: str, received: str) -> Scrubbed | None:
        """Return what `get` does if the last check could not read the file; None: it could. Decompresses no row of a
        file that could be read. Raises: OSError.
        """
        if not (self._of(file).is_unreadable(file) or self._common.is_unreadable(file)):
            return None
        found = self.get(file, received)
        return None if found is None or found.unreadable is None else found

    def add(self, result: Scrubbed, *, asked: bool = False) -> Scrubbed | None:
        """Record the result of a check. Blocks on the disk. `asked`: a person has asked for the check.

        Returns: what was known of the stream before. Raises: OSError.
        """
        store = self._store
        with self._guard, locked(store.lock):
            own = self._of(result.file)
            own.read()
            self._common.read()
            self._split()
            before = self.get(result.file, result.received)
            known = _after(before, result, asked=asked)
            if known.damage or (before is not None and before.damage) or self._common.get(result.file) is not None:
                # First: a crash between the two must not leave the earlier version with less.
                self._common.append([_for_earlier(known)] if known.at else [], durable=True)
            _make_folder(self._folder)
            own.append([known.to_row()], durable=bool(known.damage))
            if own.lines > len(own) + _SLACK:
                own.rewrite(row for row in own.rows() if _damage(row) or self._is_stored(row))
            if self._common.lines > len(self._common) + _SLACK:
                self._common.rewrite(row for row in self._common.rows() if _damage(row))
            return before

    def read(self, sender: str) -> None:
        """Read what was added about a sender's streams since the last call, also by other processes. Costs two `stat`
        if nothing was. Raises: OSError.
        """
        with self._guard:
            self._sender(sender).read()
            self._common.read()

    def version(self, sender: str) -> object:
        """Return what changes when something is added about a sender's streams, as of the last reading."""
        return self._sender(sender).signature, self._common.signature

    def _of(self, file: str) -> _LogFile:
        return self._sender(file.partition("/")[0])

    def _sender(self, sender: str) -> _LogFile:
        found = self._senders.get(sender)
        if found is not None and self._common_read:
            return found
        with self._guard:
            if not self._common_read:
                self._common.read()
                self._common_read = True
            if sender not in self._senders:
                made = _LogFile(FileLog(self._folder / f"{sender}.jsonl" if is_sender_name(sender) else None))
                made.read()
                self._senders[sender] = made
            return self._senders[sender]

    def _row(self, own: _LogFile, file: str, received: str) -> _Row | None:
        """Return the row that counts for a file that was received then."""
        return _later(*(_fitting(log.get(file), received) for log in (own, self._common)))

    def _is_stored(self, row: _Row) -> bool:
        try:
            return self._store.stamp(PurePosixPath(row["file"])) is not None
        except OSError:
            return True

    def _split(self) -> None:
        """Move what an earlier version has written to the files of the senders. Does not lose anything if it is
        interrupted. The caller holds the locks.
        """
        common = self._common
        if not common.has_whole or self._store.folder is None:
            return  # no earlier version knew a bucket: there a row without damage tells all daemons of its end
        _make_folder(self._folder)
        moved: dict[str, list[_Row]] = {}
        for number, row in enumerate(common.rows(), 1):
            sender = row["file"].partition("/")[0]
            if is_sender_name(sender):
                mine = self._of(row["file"]).get(row["file"])
                if mine is None or (mine != row and _later(mine, row) is row):
                    moved.setdefault(sender, []).append(row)
            if number % _AT_ONCE == 0:
                self._move(moved)
        self._move(moved)
        common.rewrite(
            row for row in common.rows() if _damage(row) or not is_sender_name(row["file"].partition("/")[0])
        )
        sync_folder(self._store.home)
        common.has_whole = False

    def _move(self, moved: dict[str, list[_Row]]) -> None:
        """Append rows to the files of their senders, and empty `moved`."""
        for sender, rows in moved.items():
            log = self._sender(sender)
            log.read()
            log.append(rows, durable=True)
        moved.clear()


class _LogFile:
    """One file of rows. Only one thread at a time may call `read`, `append` and `rewrite`; others may ask meanwhile."""

    def __init__(self, log: LineLog) -> None:
        """Reads nothing."""
        self._log = log
        self.lines = 0
        self.has_whole = False  # some rows have no damage
        self._last = Folded()  # as they were written, with keys that this version does not know
        # By file with damage: when it was received, empty if the row does not show that.
        self._damaged: dict[str, tuple[Any, ...]] = {}
        self._unreadable: set[str] = set()  # the files that their last check could not read
        self._foreign: list[bytes] = []  # lines whose file this version cannot read
        self._known = 0  # bytes of the file that were read, up to the end of a line; and their CRC
        self._crc = 0
        self.signature: object = None  # of the file, as of the last reading

    def __len__(self) -> int:
        """Return the number of files with a row."""
        return len(self._last)

    def get(self, file: str) -> _Row | None:
        """Return the row of a file. The caller must not change it."""
        return self._last.get(file)

    def rows(self) -> Iterator[_Row]:
        """Yield all rows."""
        return self._last.rows()

    def is_damaged(self, file: str, received: str) -> bool:
        """Whether the row of a file that was received then has damage."""
        return self._damaged.get(file) in ((), (received,))

    def is_unreadable(self, file: str) -> bool:
        """Whether the row of a file says that the last check could not read it."""
        return file in self._unreadable

    def append(self, rows: list[_Row], *, durable: bool) -> None:
        """Add rows. The caller has called `read`, and has held the store's lock since."""
        if not rows:
            return
        size, added, changed = self._log.append(b"".join(map(_line, rows)), durable=durable)
        if size == self._known:  # what is in memory is the file: it need not be read again
            self._take([(row["file"], row) for row in rows])
            self.lines += len(rows)
            self._known, self._crc = size + len(added), zlib.crc32(added, self._crc)
            self.signature = changed
        else:
            self.read()

    def rewrite(self, rows: Iterable[_Row]) -> None:
        """Replace the file by these of its rows. The caller has called `read`, and has held the store's lock since."""
        self.read()  # in a document, another daemon may have appended since
        self._log.replace(b"".join([*self._foreign, *map(_line, rows)]))
        self.read()

    def read(self) -> None:
        """Read what was added since the last call. Read all of it if the file was changed in another way.

        Ignores a line that is not whole (a crash).
        """
        found = self._log.signature()
        if found == self.signature:
            return
        with self._log.open() as file:
            known = 0 if _crc(file, self._known) != self._crc else self._known
            if not known:
                self._read_all(file)
            else:
                self._read_on(self, file)
        self.signature = found

    def _read_all(self, file: BinaryIO) -> None:
        fresh = _LogFile(self._log)
        file.seek(0)
        self._read_on(fresh, file)
        # In one step: otherwise another thread might see no damage meanwhile.
        self._damaged, self._unreadable = fresh._damaged, fresh._unreadable
        self.lines, self._last, self._foreign, self.has_whole, self._known, self._crc = (
            *(fresh.lines, fresh._last, fresh._foreign),
            *(fresh.has_whole, fresh._known, fresh._crc),
        )

    @staticmethod
    def _read_on(log: _LogFile, file: BinaryIO) -> None:
        """Add to `log` the lines of the file from here on."""
        rows: list[tuple[str, _Row]] = []
        for line in file:
            if not line.endswith(b"\n"):
                break  # a process is writing it, or was killed
            log._known, log._crc = log._known + len(line), zlib.crc32(line, log._crc)
            try:
                row = json.loads(line)
            except ValueError:
                continue
            log.lines += 1
            if isinstance(row, dict) and isinstance(row.get("file"), str):
                rows.append((row["file"], row))
            else:
                log._foreign.append(line)
            if len(rows) >= _AT_ONCE:
                log._take(rows)
                rows.clear()
        log._take(rows)

    def _take(self, rows: Iterable[tuple[str, _Row]]) -> None:
        """Add rows, each with its file, to the last ones, and to the damaged and the unreadable files."""
        damaged, unreadable = self._damaged, self._unreadable

        def merge(before: _Row | None, row: _Row) -> _Row:
            merged = _merge(before, row)
            if _damage(merged):
                damaged[row["file"]] = (merged["received"],) if "received" in merged else ()
            else:
                self.has_whole = True
                damaged.pop(row["file"], None)
            if _text(merged, "unreadable") is None:
                unreadable.discard(row["file"])
            else:
                unreadable.add(row["file"])
            return merged

        self._last.add(rows, merge)


def _common_log(store: Store) -> LineLog:
    """Return the log of damage: in a bucket all daemons share it."""
    return DocumentLog(store.documents, _COMMON) if store.folder is None else FileLog(store.home / _COMMON)


def _after(before: Scrubbed | None, result: Scrubbed, *, asked: bool) -> Scrubbed:
    """Return what is known of a stream after one more check."""
    damaged = before is not None and bool(before.damage)
    asked = asked or (damaged and before is not None and before.asked)
    if result.unreadable is not None:
        known = before or Scrubbed(result.file, result.received, "", (), None)
        return _replaced(
            known,
            unreadable=result.unreadable,
            tried=result.at,
            tries=known.tries + 1,
            asked=asked and bool(known.damage),
        )
    if result.damage:
        return _replaced(result, whole_since=None, asked=asked)
    since = None if before is None or damaged else before.whole_since
    # By the clock of a check that was ahead it would be whole since a time to come.
    return _replaced(result, whole_since=min(since or result.at, result.at), asked=False)


def _replaced(result: Scrubbed, **changes: Any) -> Scrubbed:  # noqa: ANN401 - fields of any type
    return Scrubbed(**{name: getattr(result, name) for name in Scrubbed.__slots__} | changes)


def _for_earlier(known: Scrubbed) -> _Row:
    """Return the row for an earlier version, which knows these keys only."""
    row = known.to_row()
    return {key: row[key] for key in ("format", "file", "received", "at", "damage", "sha256")}


def _fitting(row: _Row | None, received: str) -> _Row | None:
    """Return a row if it is about the stream that was received then."""
    return None if row is None or row.get("received", received) != received else row


def _later(own: _Row | None, common: _Row | None) -> _Row | None:
    """Return the row that counts of two in different files. Damage, and its end, is written to the common file first,
    so that one tells whether there is damage, whatever the clock was. Otherwise the later row counts.
    """
    if own is None or common is None:
        return own or common
    if bool(_damage(own)) != bool(_damage(common)):
        return common
    return common if (_text(common, "at") or "") > (_text(own, "at") or "") else own


def _crc(file: BinaryIO, length: int) -> int:
    """Return the CRC-32 of the first `length` bytes of a file, or of all if it has fewer."""
    crc = 0
    while length and (block := file.read(min(length, _BLOCK))):
        crc = zlib.crc32(block, crc)
        length -= len(block)
    return crc


def _merge(before: _Row | None, row: _Row) -> _Row:
    """Return the resulting row of a file after one more row."""
    if before is not None and "damage" not in row and _same(before, row):  # what the old row says of damage is known
        return before | row | {"damage": before.get("damage", [])}
    return row


def _same(before: _Row, row: _Row) -> bool:
    """Whether two rows of a file can be about the same stream."""
    one, other = before.get("received"), row.get("received")
    return one is None or other is None or one == other


def _damage(row: _Row) -> tuple[str, ...]:
    """Return the damage lines of a row, whatever form they have."""
    said: object = row.get("damage")
    if isinstance(said, list | tuple):
        return tuple(map(str, said))
    return (str(said),) if said else ()


def _text(row: _Row, key: str) -> str | None:
    value = row.get(key)
    return value if isinstance(value, str) else None


def _line(row: _Row) -> bytes:
    return json.dumps(row).encode() + b"\n"


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(mode=0o700, exist_ok=True)
        sync_folder(folder.parent)
