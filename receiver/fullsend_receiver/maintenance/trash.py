"""The folders in the trash: each has what one prune has dropped, and its name tells when."""

from __future__ import annotations

import logging
import secrets
from datetime import UTC, datetime
from typing import Final

from fullsend_receiver.store.api import Store

log: Final = logging.getLogger("fullsendd")

_TIME: Final = "%Y%m%dT%H%M%SZ"


def trash_name(now: float) -> str:
    """Return a new name for a folder in the trash, which tells when its streams were dropped."""
    return f"{datetime.fromtimestamp(now, UTC):{_TIME}}-{secrets.token_hex(4)}"


def trashed_at(folder: str) -> float | None:
    """Return when the streams of a folder in the trash were dropped, in seconds since the epoch; None: not known."""
    try:
        return datetime.strptime(folder.partition("-")[0], _TIME).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def expire_trash(store: Store, undelete_within: float, now: float) -> list[str]:
    """Delete what has waited in the trash for so many seconds. Blocks.

    Returns: the deleted folders. Raises: OSError.
    """

    def old(folder: str) -> bool:
        at = trashed_at(folder)
        return at is not None and (now - at >= undelete_within or not undelete_within)

    gone = store.empty_trash(old)
    for folder in gone:
        log.info("the trash of %s is deleted (undelete-within)", folder)
    return gone
