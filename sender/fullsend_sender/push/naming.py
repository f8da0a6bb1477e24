"""The names of fullsend's own snapshots, bookmarks and holds on the ZFS host. All other names are not fullsend's.

    @fullsend-RECEIVER-YYYYMMDDTHHMMSSZ      snapshots that `push` has taken
    #fullsend-RECEIVER-<guid in 16 hex>      bookmarks of snapshots that are stored there
    fullsend:RECEIVER:RUN                    holds; RUN is 16 random hex digits, because one tag cannot hold twice

RECEIVER is the first 8 hex digits of the receiver's certificate fingerprint.
"""

from __future__ import annotations

import re
import secrets
import time
from typing import Final

_SNAPSHOT: Final = re.compile(r"fullsend-([0-9a-f]{8})-[0-9]{8}T[0-9]{6}Z")
_BOOKMARK: Final = re.compile(r"fullsend-([0-9a-f]{8})-([0-9a-f]{16})")


#: Bytes that @ and fullsend's name add to a dataset's name in that of its snapshot.
SNAPSHOT_SUFFIX: Final = len("@fullsend-RECEIVER-YYYYMMDDTHHMMSSZ")


def receiver_id(fingerprint: str) -> str:
    """Return a receiver's id in names, from the SHA-256 of its certificate in hex."""
    return fingerprint[:8]


def snapshot_name(receiver: str, now: float) -> str:
    """Return the name (after the @) of a snapshot taken now. `now`: seconds since the epoch."""
    return f"fullsend-{receiver}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now))}"


def snapshot_receiver(name: str) -> str | None:
    """Return the receiver for which a snapshot (the part after the @) was taken; None: it is not fullsend's."""
    match = _SNAPSHOT.fullmatch(name)
    return match[1] if match else None


def bookmark_name(receiver: str, guid: str) -> str:
    """Return the name (after the #) of the bookmark for a stored snapshot. `guid`: decimal."""
    return f"fullsend-{receiver}-{int(guid):016x}"


def bookmark_receiver(name: str, guid: str) -> str | None:
    """Return the receiver for which a bookmark of the snapshot `guid` was made; None: it is not fullsend's."""
    match = _BOOKMARK.fullmatch(name)
    return match[1] if match and int(match[2], 16) == int(guid) else None


def hold_prefix(receiver: str) -> str:
    """Return the beginning of the tags of all holds for a receiver."""
    return f"fullsend:{receiver}:"


def hold_tag(receiver: str) -> str:
    """Return the tag for this run."""
    return hold_prefix(receiver) + secrets.token_hex(8)
