"""The folders in the trash: each has what one prune has dropped, or merged, and its name tells when, and which."""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from fullsend_receiver.store.api import Store, TrashedStream
from fullsend_receiver.store.locks import lock_end

log: Final = logging.getLogger("fullsendd")

_TIME: Final = "%Y%m%dT%H%M%SZ"
#: The end of a folder's name, if it has inputs of merges.
_MERGED: Final = "-merged"


def trash_name(now: float, *, merged: bool = False) -> str:
    """Return a new name for a folder in the trash, which tells when its streams were dropped. `merged`: they are the
    inputs of merges, and wait for another time.
    """
    return f"{datetime.fromtimestamp(now, UTC):{_TIME}}-{secrets.token_hex(4)}{_MERGED * merged}"


def trashed_at(folder: str) -> float | None:
    """Return when the streams of a folder in the trash were dropped, in seconds since the epoch; None: not known."""
    try:
        return datetime.strptime(folder.partition("-")[0], _TIME).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def is_merged(folder: str) -> bool:
    """Whether a folder in the trash has inputs of merges."""
    return folder.endswith(_MERGED)


def log_locked(stream: TrashedStream, until: float) -> None:
    """Log that a stream stays in the trash. `until`: the end of its lock, as `Store.locked`."""
    log.info("%s", locked_line(stream, until))


def locked_line(stream: TrashedStream, until: float) -> str:
    """Return the same as a line for a person."""
    return f"{stream.file}: stays in the trash: locked until {lock_end(until)}"


def expire_trash(
    store: Store,
    undelete_within: float,
    now: float,
    *,
    undelete_merged: float = math.inf,
    stays: Callable[[TrashedStream, float], None] = log_locked,
) -> list[str]:
    """Delete what has waited in the trash for so many seconds. `undelete_merged`: the same for inputs of merges;
    `stays`: as in `Store.empty_trash`.

    Blocks. Returns: the deleted folders. Raises: OSError.
    """

    def old(folder: str) -> bool:
        at = trashed_at(folder)
        within = undelete_merged if is_merged(folder) else undelete_within
        return at is not None and (now - at >= within or not within)

    gone = store.empty_trash(old, stays)
    for folder in gone:
        rule = "undelete-merged" if is_merged(folder) else "undelete-within"
        log.info("the trash of %s is deleted (%s)", folder, rule)
    return gone


def empty_merged(store: Store) -> int:
    """Delete all inputs of merges from the trash: room is needed. Blocks. Returns: freed bytes. Raises: OSError."""
    before = _merged_bytes(store)
    for folder in store.empty_trash(is_merged, log_locked):
        log.info("the trash of %s is deleted: room is needed", folder)
    return before - _merged_bytes(store) if before else 0


def _merged_bytes(store: Store) -> int:
    return sum(each.size for each in store.trashed() if is_merged(each.folder))
