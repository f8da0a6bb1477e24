"""Streams that were ended for lack of room, and whose partial was discarded: the document crossed.SENDER.json.

    [{"dataset", "base_guid", "class", "package", "raw_bytes", "stored_bytes", "at"}, ...]    the newest last

The next push of the same stream is judged by what this one needed. Otherwise the same host would fill the disk each
night, and all others would be refused meanwhile. Storing such a stream removes the entry. Losing the document costs one
more such night.
"""

from __future__ import annotations

import json
import time
from typing import Any, Final, NamedTuple

from fullsend_protocol.shared.units import format_time
from fullsend_protocol.stream.facts import class_of
from fullsend_protocol.wire.messages import Push
from fullsend_receiver.store.api import Store, update

#: Entries per sender; beyond that the oldest are removed.
_MOST: Final = 1000


class OverrunRecord(NamedTuple):
    """How far one stream came: `stored` bytes, for `raw` of the announced raw bytes. It needed more than that."""

    raw: int
    stored: int


def find(store: Store, sender: str, push: Push) -> OverrunRecord | None:
    """Return how far the last push of such a stream came; None: it had room, or there was none. Raises: OSError."""
    wanted = _what(push)
    found = store.documents.get(_document(sender))
    for entry in reversed(_entries(found.data if found else None)):
        if _is_of(entry, wanted):
            return OverrunRecord(entry["raw_bytes"], entry["stored_bytes"])
    return None


def note(store: Store, sender: str, push: Push, found: OverrunRecord) -> None:
    """Record, durably, how far a stream came. Raises: OSError."""
    what = _what(push)
    entry = {**what, "raw_bytes": found.raw, "stored_bytes": found.stored, "at": format_time(time.time())}

    def add(data: bytes | None) -> bytes:
        others = [each for each in _entries(data) if not _is_of(each, what)]
        return _to_json([*others, entry][-_MOST:])

    update(store.documents, _document(sender), add)


def forget(store: Store, sender: str, push: Push) -> None:
    """Remove the entry of a stream, because such a stream is stored. Raises: OSError."""
    what = _what(push)

    def drop(data: bytes | None) -> bytes | None:
        entries = _entries(data)
        others = [each for each in entries if not _is_of(each, what)]
        return None if len(others) == len(entries) else _to_json(others)

    update(store.documents, _document(sender), drop)


def _what(push: Push) -> dict[str, Any]:
    """Return what identifies a push of about the same size: a new snapshot on the same base."""
    return {
        "dataset": push.dataset,
        "base_guid": push.base_guid,
        "class": None if push.flags is None else class_of(push.flags),
        "package": push.guid is None,
    }


def _is_of(entry: dict[str, Any], what: dict[str, Any]) -> bool:
    return all(entry.get(name) == value for name, value in what.items())


def _entries(data: bytes | None) -> list[dict[str, Any]]:
    """Read the document. Ignores what is not an entry."""
    try:
        said: Any = json.loads(data or b"[]")
    except ValueError:
        return []
    entries = said if isinstance(said, list) else []
    return [
        entry
        for entry in entries
        if isinstance(entry, dict) and all(type(entry.get(name)) is int for name in ("raw_bytes", "stored_bytes"))
    ]


def _to_json(entries: list[dict[str, Any]]) -> bytes:
    return json.dumps(entries, indent=1).encode() + b"\n"


def _document(sender: str) -> str:
    return f"crossed.{sender}.json"
