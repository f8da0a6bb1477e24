"""What is being read: one object for each reader, with a line for each stream.

A reader that ends says so in its object, which counts for an hour more. One that dies leaves it: it counts for some
days, since nothing shows that its process is dead.
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store_s3 import keys
from fullsend_receiver.store_s3.faults import as_disk_errors

if TYPE_CHECKING:
    from fullsend_receiver.store_s3.bucket import Bucket, BucketObject

#: Seconds for which the object of a reader that has ended counts, and that of any reader.
_LINGERS: Final = 3600.0
_LIVES: Final = 7 * 86400.0


class BucketHold:
    """A `Hold`: an object, stored with the first stream."""

    def __init__(self, bucket: Bucket) -> None:
        """Writes nothing yet."""
        self._bucket = bucket
        self._key = keys.READING + keys.unique()
        self._files: dict[PurePosixPath, None] = {}
        self._noted: frozenset[PurePosixPath] = frozenset()  # those that are in the object

    def add(self, file: PurePosixPath) -> None:
        """Add a stream. See `Hold.add`."""
        self._files[file] = None
        if file not in self._noted:
            with as_disk_errors():
                self._put(ended=False)
            self._noted = frozenset(self._files)

    def close(self) -> None:
        """End the hold. See `Hold.close`."""
        if self._files:
            with contextlib.suppress(StoreError):  # it counts for longer then
                self._put(ended=True)
            self._files.clear()
            self._noted = frozenset()

    def _put(self, *, ended: bool) -> None:
        said = {"ended": ended, "files": [str(each) for each in self._files]}
        self._bucket.put(self._key, json.dumps(said).encode())


def held(bucket: Bucket) -> set[PurePosixPath]:
    """Return the streams of all holds. See `Store.held`. Objects that count no more are deleted."""
    found: set[PurePosixPath] = set()
    for each in bucket.entries(keys.READING):
        content = bucket.get(each.key)
        if content is None:
            continue
        said = json.loads(content.data)
        if _counts(each, ended=said["ended"]):
            found.update(PurePosixPath(file) for file in said["files"])
        else:
            bucket.delete(each.key)  # its key is never used again
    return found


def _counts(head: BucketObject, *, ended: bool) -> bool:
    # Also one of the future, which a wrong clock has made.
    return time.time() - head.modified < (_LINGERS if ended else _LIVES)
