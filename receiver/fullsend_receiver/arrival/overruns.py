"""Streams that had to end for want of room, and of which what had arrived was thrown away: .state/crossed.SENDER.json.

    [{"dataset", "base_guid", "class", "package", "raw_bytes", "stored_bytes", "at"}, ...]    the newest last

The next push of the same stream is judged by what this one took. Otherwise the same host would fill the disk each night
and be ended each night, and everybody else would be refused meanwhile. An entry goes when such a stream is stored.
Losing the file costs one more such night.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

from fullsend_protocol.shared.units import format_time
from fullsend_protocol.stream.facts import class_of
from fullsend_protocol.wire.messages import Push
from fullsend_receiver.store.durable import locked, replace_file
from fullsend_receiver.store.local import LocalStore

#: Entries that are kept of one sender: beyond, the oldest go.
_MOST: Final = 1000


class Crossing(NamedTuple):
    """How far one stream came: `stored` bytes, for `raw` of the raw bytes that were announced. Never enough."""

    raw: int
    stored: int


def find(store: LocalStore, sender: str, push: Push) -> Crossing | None:
    """Return how far the last push of such a stream came; None: it had room, or was not tried. Raises: OSError."""
    wanted = _what(push)
    for entry in reversed(_read(store, sender)):
        if _is_of(entry, wanted):
            return Crossing(entry["raw_bytes"], entry["stored_bytes"])
    return None


def note(store: LocalStore, sender: str, push: Push, found: Crossing) -> None:
    """Write down, for good, how far a stream came. Raises: OSError."""
    what = _what(push)
    entry = {**what, "raw_bytes": found.raw, "stored_bytes": found.stored, "at": format_time(time.time())}
    with locked(store.lock):
        others = [each for each in _read(store, sender) if not _is_of(each, what)]
        _write(store, sender, [*others, entry][-_MOST:])


def forget(store: LocalStore, sender: str, push: Push) -> None:
    """Such a stream is stored. Raises: OSError."""
    what = _what(push)
    if not any(_is_of(each, what) for each in _read(store, sender)):
        return
    with locked(store.lock):
        _write(store, sender, [each for each in _read(store, sender) if not _is_of(each, what)])


def _what(push: Push) -> dict[str, Any]:
    """Return by what the next one is known to be of the same size or so: a new snapshot, on the same base."""
    return {
        "dataset": push.dataset,
        "base_guid": push.base_guid,
        "class": None if push.flags is None else class_of(push.flags),
        "package": push.guid is None,
    }


def _is_of(entry: dict[str, Any], what: dict[str, Any]) -> bool:
    return all(entry.get(name) == value for name, value in what.items())


def _read(store: LocalStore, sender: str) -> list[dict[str, Any]]:
    """Read the file. What is no entry counts for nothing."""
    try:
        said: Any = json.loads(_file(store, sender).read_bytes())
    except (FileNotFoundError, ValueError):
        return []
    entries = said if isinstance(said, list) else []
    return [
        entry
        for entry in entries
        if isinstance(entry, dict) and all(type(entry.get(name)) is int for name in ("raw_bytes", "stored_bytes"))
    ]


def _write(store: LocalStore, sender: str, entries: list[dict[str, Any]]) -> None:
    replace_file(_file(store, sender), json.dumps(entries, indent=1).encode() + b"\n")


def _file(store: LocalStore, sender: str) -> Path:
    return store.state / f"crossed.{sender}.json"
