"""The first line of a journal: what a sender offered, which sender, and when.

These are models of the disk. The wire has its own: a sender offers a stream with `Push`, and learns from `PartialEntry`
what has arrived. Only the functions at the end convert between them.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Final, Literal

from pydantic import ConfigDict, Field

from fullsend_protocol.format.manifest import DiskModel, Flags, Guid, Name, Offset, PartialEntry, Properties
from fullsend_protocol.shared.units import format_time
from fullsend_protocol.wire.messages import Push

#: The format of a journal. It is raised only if a version that ignores unknown keys would do something wrong.
FORMAT: Final = 1
_KEY_DIGITS: Final = 32


class Offer(DiskModel):
    """What is known of a stream before it arrives. The fields have the same meaning as in the manifest.

    Of a package `guid` and `flags` are None: they are known at its end. `keep_orphan`: keep an increment whose base is
    not stored. How a connection resumed the stream, and its claim, end with the connection, so they are absent here.
    """

    dataset: Name
    snapshot: Name
    guid: Guid | None = None
    base_guid: Guid | None = None  # the lease
    flags: Flags | None = None
    size_estimate: Offset | None = None  # raw bytes, where known
    zfs_version: str | None = None
    properties: Properties | None = None
    keep_orphan: bool = False


class Opened(DiskModel):
    """The first line of a journal. `offer`: the first one for this stream; `at`: its time, by the receiver's clock;
    `merge`: no sender offered it, this receiver makes it of stored streams. Such a one never resumes.

    The first version wrote no `format`, and a whole `Push` under the key that is still used.
    """

    model_config = ConfigDict(populate_by_name=True)

    format: Literal[1] = FORMAT
    sender: str
    offer: Offer = Field(alias="push")
    at: str
    merge: bool = False


# --- to the wire and back ----------------------------------------------------------------------------------------


def partial_key(sender: str, push: Push) -> str:
    """Return the key of a partial: 32 hex digits, from everything by which the sender announced the stream."""
    return _key_of([sender, push.dataset, push.snapshot, push.guid, push.base_guid, push.flags])


def merge_key(files: Iterable[str]) -> str:
    """Return the key of the partial of a merge, from its inputs. It is never that of an announced stream."""
    return _key_of(["merge", [*files]])


def copy_key(file: PurePosixPath, file_sha256: str) -> str:
    """Return the key of the partial of a copy. `file`, `file_sha256`: of the stored stream that is copied."""
    return _key_of(["copy", str(file), file_sha256])


def _key_of(what: object) -> str:
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:_KEY_DIGITS]


def open_offer(sender: str, push: Push) -> Opened:
    """Return the first line for an offer that is made now."""
    return Opened(sender=sender, offer=offer_of(push), at=format_time(time.time()))


def offer_of(push: Push) -> Offer:
    """Return the part of an offer that is stored."""
    return Offer(
        dataset=push.dataset,
        snapshot=push.snapshot,
        guid=push.guid,
        base_guid=push.base_guid,
        flags=push.flags,
        size_estimate=push.size_estimate,
        zfs_version=push.zfs_version,
        properties=push.properties,
        keep_orphan=push.keep_orphan,
    )


def entry_of(
    opened: Opened, *, raw_bytes: int, stored_bytes: int, resume_offset: int | None, last: str, arriving: bool
) -> PartialEntry:
    """Return the entry of a partial in `list --partial`."""
    offer = opened.offer
    return PartialEntry(
        sender=opened.sender,
        dataset=offer.dataset,
        snapshot=offer.snapshot,
        guid=offer.guid,
        base_guid=offer.base_guid,
        flags=offer.flags,
        raw_bytes=raw_bytes,
        stored_bytes=stored_bytes,
        # No token resumes a package: its GUID is not known yet.
        resume_offset=None if offer.guid is None else resume_offset,
        started=opened.at,
        last=last,
        arriving=arriving,
    )
