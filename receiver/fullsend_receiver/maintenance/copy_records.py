"""What is noted of copies in another store, which has the id STORE.

copied.STORE.json    {"format": 1, "since", "what", "everything", "complete", "began", "ended", ...}: see `CopyRecord`
copy-left.STORE.json {"format": 1, "files": [...]}: streams that are not in that store yet. A run names what it will
                     copy before it begins: an order of copies would show what is missing no more than a later stream.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from typing import Annotated, Final, Literal, TypeVar

from pydantic import Field, ValidationError

from fullsend_protocol.format.manifest import DiskModel, leading
from fullsend_protocol.shared.units import format_time, printable
from fullsend_receiver.access.copy_settings import CopyScope
from fullsend_receiver.store.api import Documents, update

log: Final = logging.getLogger("fullsendd")

#: Streams that were left behind, of which the record says why.
NAMED: Final = 20


class CopyRecord(DiskModel):
    """How the copies in one store stand. Times are ISO 8601 in UTC; null: never.

    `since`: when they were first wanted; `what`, `everything`: the scope for which `since` and `complete` count;
    `complete`: all that was stored here then is there; `began`, `ended`: of the last run; it runs, or was killed, if it
    has not ended; `run`, `host`: what names it, and where it was; `tries`: runs since the last one that left nothing
    behind; `bytes_ever`: stored bytes that all runs have copied.

    Of the last run that has ended: `ok`: whether it has left nothing behind, null: there was none; `why`: what has
    ended it before its time, null: it came to its end; `left`: how many streams it has left behind, and `named` some of
    them, each with the reason; `older`: how many it has not copied, because the newest copy is newer; `streams`,
    `stored_bytes`: what it has copied.
    """

    format: Literal[1] = 1
    since: str | None = None
    what: list[str] = Field(default_factory=list)
    everything: bool = False
    complete: str | None = None
    began: str | None = None
    ended: str | None = None
    run: str = ""
    host: str = ""
    tries: int = 0
    bytes_ever: int = 0
    ok: bool | None = None
    why: str | None = None
    left: int = 0
    named: list[Annotated[tuple[str, str], leading(2)]] = Field(default_factory=list)
    older: int = 0
    streams: int = 0
    stored_bytes: int = 0

    @property
    def scope(self) -> CopyScope:
        """The scope for which `since` and `complete` count."""
        return CopyScope(tuple(self.what), self.everything)

    @property
    def has_ended(self) -> bool:
        """Whether the last run has ended, and said so; True: there was none."""
        return self.began is None or self.ended is not None

    def wanted(self, scope: CopyScope, now: str) -> CopyRecord:
        """Return the record for copies of `scope`: what is known of less than that tells nothing of it."""
        if self.since is not None and self.scope.covers(scope):
            return self
        fresh = {"since": now, "what": list(scope.what), "everything": scope.everything, "complete": None}
        return self.model_copy(update=fresh)


class LeftStreams(DiskModel):
    """The streams of which no run has found that they are in the other store."""

    format: Literal[1] = 1
    files: list[str] = Field(default_factory=list)


_M = TypeVar("_M", bound=DiskModel)


def read_record(documents: Documents, store_id: str) -> CopyRecord:
    """Return how the copies in a store stand; an empty record if it is missing, or cannot be read. Raises: OSError."""
    return _parse(documents, CopyRecord, _record(store_id))


def change_record(documents: Documents, store_id: str, change: Callable[[CopyRecord], CopyRecord]) -> None:
    """Replace the record with the result of `change`, which is called again if another process was faster. Raises:
    OSError.
    """
    _change(documents, CopyRecord, _record(store_id), change)


def note_wanted(documents: Documents, store_id: str, scope: CopyScope, now: float) -> CopyRecord:
    """Note since when copies of `scope` are wanted, if that is not known. `now`: seconds since the epoch. Returns: how
    they stand. Raises: OSError.
    """
    found = read_record(documents, store_id)
    if found.wanted(scope, "") is found:
        return found
    change_record(documents, store_id, lambda record: record.wanted(scope, format_time(now)))
    return read_record(documents, store_id)


def note_failed(documents: Documents, store_id: str, why: str, now: float) -> None:
    """Note that a run has failed without a word of its own. `now`: seconds since the epoch. Raises: OSError."""
    at = format_time(now)

    def change(record: CopyRecord) -> CopyRecord:
        began = record.began if record.began is not None and not record.has_ended else at
        return record.model_copy(update={"began": began, "ended": at, "ok": False, "why": printable(why)})

    change_record(documents, store_id, change)


def read_left(documents: Documents, store_id: str) -> frozenset[str]:
    """Return the streams that are not in the other store yet. Raises: OSError."""
    return frozenset(_parse(documents, LeftStreams, _left(store_id)).files)


def change_left(documents: Documents, store_id: str, *, add: Iterable[str] = (), remove: Iterable[str] = ()) -> None:
    """Note which streams are not in the other store yet; `remove`: are, or are not wanted any more. Raises: OSError."""
    more, less = set(add), set(remove)

    def change(left: LeftStreams) -> LeftStreams:
        files = sorted((set(left.files) | more) - less)
        return left if files == left.files else left.model_copy(update={"files": files})

    _change(documents, LeftStreams, _left(store_id), change)


def _record(store_id: str) -> str:
    return f"copied.{store_id}.json"


def _left(store_id: str) -> str:
    return f"copy-left.{store_id}.json"


def _parse(documents: Documents, model: type[_M], name: str) -> _M:
    found = documents.get(name)
    return _read(model, None if found is None else found.data, name)


def _read(model: type[_M], data: bytes | None, name: str) -> _M:
    try:
        return model() if data is None else model.model_validate_json(data)
    except ValidationError:
        log.warning(".state/%s: cannot be read, and is made anew", name)
        return model()


def _change(documents: Documents, model: type[_M], name: str, change: Callable[[_M], _M]) -> None:
    def replace(data: bytes | None) -> bytes | None:
        before = _read(model, data, name)
        after = change(before)
        return None if after is before else json.dumps(after.model_dump(mode="json")).encode() + b"\n"

    update(documents, name, replace)
