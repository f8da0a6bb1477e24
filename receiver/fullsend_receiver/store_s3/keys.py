"""Where things lie below the prefix of a store in a bucket.

.fullsend                         marker: format version and random id
.state/NAME                       small documents
.state/removing                   what is being removed, by which process
.state/trash/FOLDER/NAME          streams that were removed and can be brought back
.state/aside/NAME                 damaged streams that were replaced
.state/reading/NAME               what is being read
.state/streams/SENDER/index       which of a sender's streams have changed
.state/streams/SENDER/NAME        the sender's streams, as they were before these changes
.state/left/HASH.SIZE             the key of bytes that were deleted, and of which the bucket keeps versions
.state/probe-NAME                 what a probe writes, and deletes
.partial/KEY/open                 an arriving stream: what was offered, and its generation
.partial/KEY/GENERATION/NUMBER    its journal, an object for each batch
.partial/KEY/GENERATION/segment-NUMBER  bytes that become the part of this number
SENDER/DATASET.../@....zfs.zst        the bytes of a stream, under a name that is never used again
SENDER/DATASET.../@....zfs.zst.sha256 their hash, as `sha256sum -c` reads it
SENDER/DATASET.../@....zfs.zst.json   a manifest: it names the object of the bytes
"""

from __future__ import annotations

import secrets
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from fullsend_protocol.format.names import STREAM_SUFFIX
from fullsend_receiver.store.names import dataset_folder, encode_component

if TYPE_CHECKING:
    from fullsend_receiver.store.opened import Opened

MARKER: Final = ".fullsend"
STATE: Final = ".state/"
REMOVING: Final = ".state/removing"
TRASH: Final = ".state/trash/"
ASIDE: Final = ".state/aside/"
READING: Final = ".state/reading/"
STREAMS: Final = ".state/streams/"
_INDEX: Final = "index"
LEFT: Final = ".state/left/"
PROBE: Final = ".state/probe-"
PARTIAL: Final = ".partial/"
_OPEN: Final = "open"
_SEGMENT: Final = "segment-"
#: Digits of a journal object's number, so that LIST yields them in order, before the segments.
_DIGITS: Final = 8


def unique() -> str:
    """Return 16 hex digits that nothing else has."""
    return secrets.token_hex(8)


def data_key(opened: Opened) -> str:
    """Return a new key for the bytes of a stream. The manifest has the true names."""
    offer = opened.offer
    folder = dataset_folder(opened.sender, offer.dataset)
    return str(folder / f"@{encode_component(offer.snapshot)}.{unique()}{STREAM_SUFFIX}")


def index_key(sender: str, name: str = _INDEX) -> str:
    """Return the key of an object of a sender's index."""
    return f"{STREAMS}{sender}/{name}"


def open_key(key: str) -> str:
    """Return the key of the first object of an arriving stream."""
    return f"{PARTIAL}{key}/{_OPEN}"


def journal_key(key: str, generation: str, number: int) -> str:
    """Return the key of an object of a journal."""
    return f"{journal_prefix(key, generation)}{number:0{_DIGITS}}"


def journal_prefix(key: str, generation: str) -> str:
    """Return what the keys of a journal begin with."""
    return f"{PARTIAL}{key}/{generation}/"


def segment_key(key: str, generation: str, number: int) -> str:
    """Return the key of a segment. Each object store can copy an object of such a key."""
    return f"{journal_prefix(key, generation)}{_SEGMENT}{number:0{_DIGITS}}"


def is_segment(name: str) -> bool:
    """Whether an object below the prefix of a journal is a segment."""
    return PurePosixPath(name).name.startswith(_SEGMENT)


def partial_of(name: str) -> tuple[str, str | None]:
    """Return the key of the arriving stream to which an object below PARTIAL belongs, and the generation of its
    journal; None: it is the first object.
    """
    parts = PurePosixPath(name).parts
    return parts[1], None if parts[2:] == (_OPEN,) else parts[2]
