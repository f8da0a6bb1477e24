"""The place that the daemon's check of a large file has reached: STORE/.state/scrub-checkpoint.json.

A restart continues there, with the states of all hashes. So a check in two parts proves the same as one in one part,
each byte as of when it was read. The document also tells `fullsendd check` what is being read.
"""

from __future__ import annotations

import time
from pathlib import PurePosixPath
from typing import Final

from pydantic import ValidationError

from fullsend_protocol.format.manifest import DiskModel
from fullsend_protocol.shared.units import format_time, parse_time
from fullsend_receiver.maintenance.reading import FilePassState
from fullsend_receiver.maintenance.scrub import StreamCheck
from fullsend_receiver.store.api import Store, update

_DOCUMENT: Final = "scrub-checkpoint.json"
_FORMAT: Final = 1
#: Seconds after which the first part of a check was too long ago.
KEEP: Final = 7 * 86400.0


class Checkpoint(DiskModel):
    """`file`, `received`, `manifest`: the stream, and the stamp of its manifest; `stored_bytes`: of all its file;
    `begun`, `at`: when the check began, and when it was here; `reading`: the state.
    """

    format: int
    file: str
    received: str
    manifest: list[int]
    stored_bytes: int
    begun: str
    at: str
    reading: FilePassState


def read(store: Store) -> Checkpoint | None:
    """Return the checkpoint; None if there is none, or this version cannot read it. Raises: OSError."""
    found = store.documents.get(_DOCUMENT)
    if found is None or not found.data:
        return None
    try:
        checkpoint = Checkpoint.model_validate_json(found.data)
    except ValidationError:
        return None
    return checkpoint if checkpoint.format == _FORMAT else None


def resumed(store: Store, file: PurePosixPath, received: str, keep: float = KEEP) -> tuple[StreamCheck, str] | None:
    """Return the check of a stream that an earlier process has begun, and when that was. None: there is no checkpoint
    of it, it is older than `keep` seconds, or it cannot be used here. Raises: OSError.
    """
    found = read(store)
    if found is None or (found.file, found.received) != (str(file), received):
        return None
    age = time.time() - (parse_time(found.at) or 0.0)
    if not 0 <= age <= keep or tuple(found.manifest) != store.stamp(file):
        return None
    try:
        return StreamCheck(store, file, received, found.reading), found.begun
    except (ValueError, KeyError, TypeError):
        return None


def write(store: Store, check: StreamCheck, begun: str) -> None:
    """Record the place of a check between two chunks, if that is possible. Raises: OSError."""
    state = check.reading.state
    stamp = store.stamp(check.file)
    if state is None or stamp is None or check.is_second:
        return
    checkpoint = Checkpoint(
        format=_FORMAT,
        file=str(check.file),
        received=check.received,
        manifest=list(stamp),
        stored_bytes=store.size(check.file),
        begun=begun,
        at=format_time(time.time()),
        reading=state,
    )
    _put(store, checkpoint.model_dump_json(indent=1).encode() + b"\n")


def clear(store: Store) -> None:
    """Forget the checkpoint, before the result of the check is recorded. Otherwise the next check of the stream might
    continue there. Raises: OSError.
    """
    found = store.documents.get(_DOCUMENT)
    if found is not None and found.data:
        _put(store, b"")


def _put(store: Store, data: bytes) -> None:
    update(store.documents, _DOCUMENT, lambda _before: data)
