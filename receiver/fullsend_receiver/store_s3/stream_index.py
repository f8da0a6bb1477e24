"""The index of a sender's streams in a bucket: one object that changes, and one that has what a reader has kept.

    .state/streams/SENDER/index     {"format", "mark", "rows": NAME or null, "through": N, "changes": [[N, FILE], ...]}
    .state/streams/SENDER/NAME      what is kept: `through` is the last change that it contains

Each change of a manifest is noted behind it, before its process says that it is done. A process that dies in between
has left a journal, or the log of removals: the process that completes it notes the change, too. So what was
acknowledged is noted. A note has no more than the name, because two notes may be in another order than their changes:
the reader reads the manifest.

The index is replaced by its ETag. It may be deleted at any time: then the next reader looks at all keys.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from fullsend_receiver.store.api import IndexState
from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store.races import pause
from fullsend_receiver.store_s3 import keys

if TYPE_CHECKING:
    from fullsend_receiver.store_s3.bucket import Bucket

log = logging.getLogger("fullsendd")

_FORMAT: Final = 1
#: Seconds after which rows that no index names are deleted. A shorter time might meet some that another process has
#: stored, and is about to name.
_ORPHAN_AGE: Final = 86400.0


class BucketStreamIndex:
    """The `StreamIndex` of a store in a bucket."""

    def __init__(self, bucket: Bucket) -> None:
        """Makes no request."""
        self._bucket = bucket

    def look(self, sender: str, known: IndexState | None = None) -> IndexState:
        """See `StreamIndex.look`: one request if nothing has changed."""
        key = keys.index_key(sender)
        if known is not None and known.tag is not None:
            there = self._bucket.head(key)
            if there is not None and there.etag == known.tag:
                return known
        return _read(self._bucket, sender)

    def rows(self, state: IndexState) -> bytes | None:
        """See `StreamIndex.rows`."""
        if state.rows is None:
            return None
        found = self._bucket.get(keys.index_key(state.sender, state.rows))
        return None if found is None else found.data

    def keep(self, state: IndexState, rows: bytes) -> IndexState | None:
        """See `StreamIndex.keep`. The former rows are deleted."""
        name = keys.unique()
        key = keys.index_key(state.sender, name)
        self._bucket.put(key, rows)
        kept = replace(state, mark=state.mark or keys.unique(), rows=name, through=state.last, changes=())
        tag = _put(self._bucket, kept)
        if tag is None:
            self._bucket.delete(key)
            return None
        self._sweep(state, key)
        return replace(kept, tag=tag)

    def _sweep(self, state: IndexState, key: str) -> None:
        """Delete the rows that were replaced, and those that dead processes have left. `key`: of the new ones."""
        found = list(self._bucket.entries(keys.index_key(state.sender, "")))
        now = max(each.modified for each in found) if found else 0.0  # by the object store's clock
        kept = {key, keys.index_key(state.sender)}
        old = keys.index_key(state.sender, state.rows or "")
        for each in found:
            if each.key not in kept and (each.key == old or now - each.modified > _ORPHAN_AGE):
                self._bucket.delete(each.key)


def note(bucket: Bucket, files: Iterable[PurePosixPath]) -> None:
    """Note that the manifests of these streams have changed, or may have. Raises: StoreError."""
    of: dict[str, list[PurePosixPath]] = {}
    for file in dict.fromkeys(files):
        of.setdefault(file.parts[0], []).append(file)
    for sender, changed in of.items():
        for lost in itertools.count(1):
            state = _read(bucket, sender)
            # Of two notes of one stream the later one is enough: a reader that has not seen it reads the manifest.
            earlier = tuple(each for each in state.changes if each[1] not in changed)
            later = tuple(enumerate(changed, state.last + 1))
            noted = replace(state, mark=state.mark or keys.unique(), changes=earlier + later)
            if _put(bucket, noted) is not None:
                break
            pause(lost)


def _put(bucket: Bucket, state: IndexState) -> str | None:
    """Replace the index. `state`: the new one, with the tag of the present one. Returns: the new tag; None: another
    process was first.
    """
    said = {
        "format": _FORMAT,
        "mark": state.mark,
        "rows": state.rows,
        "through": state.through,
        "changes": [[number, str(file)] for number, file in state.changes],
    }
    data = json.dumps(said).encode() + b"\n"
    return bucket.put(keys.index_key(state.sender), data, if_absent=state.tag is None, if_match=state.tag)


def _read(bucket: Bucket, sender: str) -> IndexState:
    """Return the present state. Raises: StoreError if a later version has written it."""
    key = keys.index_key(sender)
    found = bucket.get(key)
    if found is None:
        return IndexState(sender)
    try:
        said: dict[str, Any] = json.loads(found.data)
        if said["format"] == _FORMAT:
            changes = tuple((int(number), PurePosixPath(file)) for number, file in said["changes"])
            rows = None if said["rows"] is None else str(said["rows"])
            return IndexState(sender, found.etag, str(said["mark"]), rows, int(said["through"]), changes)
        later = said["format"]
    except (ValueError, KeyError, TypeError) as error:
        # What it said is lost, so the next reader looks at all keys. Its numbers begin again.
        log.warning("%s/%s: is not an index (%s); it is made again", bucket.where, key, error)
        return IndexState(sender, found.etag)
    msg = f"{bucket.where}/{key}: has format {later!r}, and this version of fullsendd reads format {_FORMAT}"
    raise StoreError(msg)
