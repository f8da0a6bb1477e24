"""The names that are ours on the ZFS host: snapshots, bookmarks and holds. Only names of exactly these forms are.

    @fullsend-RECEIVER-YYYYMMDDTHHMMSSZ      snapshots that `push` has taken
    #fullsend-RECEIVER-<guid in 16 hex>      bookmarks of snapshots that are stored there
    fullsend:RECEIVER:RUN                    holds; RUN is 16 random hex digits, for one tag can't be held twice

RECEIVER is the first 8 hex digits of the receiver's certificate fingerprint.
"""

from __future__ import annotations

import re
import secrets
import time
from typing import Final

_SNAPSHOT: Final = re.compile(r"fullsend-([0-9a-f]{8})-[0-9]{8}T[0-9]{6}Z")
_BOOKMARK: Final = re.compile(r"fullsend-([0-9a-f]{8})-([0-9a-f]{16})")


#: Bytes that @ and our name add to a dataset's name in that of its snapshot.
SNAPSHOT_SUFFIX: Final = len("@fullsend-RECEIVER-YYYYMMDDTHHMMSSZ")


def receiver_id(fingerprint: str) -> str:
    """Return what a receiver is called in our names, by the SHA-256 of its certificate in hex."""
    return fingerprint[:8]


def snapshot_name(receiver: str, now: float) -> str:
    """Return the name (after the @) of a snapshot taken now. `now`: seconds since the epoch."""
    return f"fullsend-{receiver}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now))}"


def snapshot_receiver(name: str) -> str | None:
    """Return for which receiver a snapshot (the part after the @) was taken; None: it is not ours."""
    match = _SNAPSHOT.fullmatch(name)
    return match[1] if match else None


def bookmark_name(receiver: str, guid: str) -> str:
    """Return the name (after the #) of the bookmark that remembers a stored snapshot. `guid`: decimal."""
    return f"fullsend-{receiver}-{int(guid):016x}"


def bookmark_receiver(name: str, guid: str) -> str | None:
    """Return for which receiver a bookmark of the snapshot `guid` was made; None: it is not ours."""
    match = _BOOKMARK.fullmatch(name)
    return match[1] if match and int(match[2], 16) == int(guid) else None


def hold_prefix(receiver: str) -> str:
    """Return how the tags of all our holds for a receiver begin."""
    return f"fullsend:{receiver}:"


def hold_tag(receiver: str) -> str:
    """Return the tag for this run."""
    return hold_prefix(receiver) + secrets.token_hex(8)
