"""Completes or removes, at the start, what a dead process has left in a bucket. Other daemons may be at work."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store_s3 import commits, journals, keys, partials
from fullsend_receiver.store_s3.journals import JournalWriter, UploadLost

if TYPE_CHECKING:
    from fullsend_receiver.store_s3.bucket import Bucket
    from fullsend_receiver.store_s3.journals import BucketJournal

log = logging.getLogger("fullsendd")

#: Seconds after which what a probe has written is deleted. A shorter time might meet one that another daemon makes now.
PROBE_AGE: Final = 86400.0


def recover(bucket: Bucket, is_open: Callable[[str], bool], patience: float) -> list[str]:
    """Complete commits, discard what nothing can be resumed of, and delete what belongs to no upload. If this fails for
    an upload, it stays as it is, and this is logged. `is_open`: whether this host has an upload open, by its key;
    `patience`: what was written within so many seconds may be another host's, and is not discarded.

    Returns: a line for the log for each upload. Raises: BucketError.
    """
    done = []
    for key, generations in partials.listed(bucket).items():
        if is_open(key):
            continue
        try:
            found = partials.examined(bucket, key, sets_aside=True) if None in generations else None
            for generation in generations:
                if generation is not None and (found is None or generation != found.open.generation):
                    _sweep(bucket, key, generation)
            if found is not None:
                done += _recover(bucket, found, patience)
        except StoreError as error:
            log.error(  # noqa: TRY400 - where it was found says nothing
                "partial %s: is left to the next push of its stream, or to the next start: %s", key, error
            )
    _delete_probes(bucket)
    _abort_orphans(bucket)
    return done


def recover_merges(bucket: Bucket, is_open: Callable[[str], bool], patience: float) -> list[str]:
    """Do the same for the uploads of merges alone, and for multipart uploads of no stream, while a daemon runs."""
    done = []
    for key, merge in partials.survey(bucket, lambda upload: upload.open.opened.merge):
        if merge and not is_open(key) and (found := partials.examined(bucket, key, sets_aside=True)) is not None:
            done += _recover(bucket, found, patience)
    _abort_orphans(bucket)
    return done


def complete_merges(bucket: Bucket, chooser: str | None) -> None:
    """Complete the commits of merges that are stalled, or dead, and keep the one that chooses from beginning its own.
    The right to remove is that of one of them. `chooser`: see `removals.Stalled`. Raises: StoreError.
    """

    def is_due(upload: partials.BucketUploadInfo) -> bool:
        return upload.open.opened.merge and (upload.open.generation == chooser or upload.committing is not None)

    for key, due in partials.survey(bucket, is_due):
        if due:
            _end_merge(bucket, key, chooser)


def _end_merge(bucket: Bucket, key: str, chooser: str | None) -> None:
    while (found := partials.examined(bucket, key, sets_aside=False)) is not None:
        if found.stored is not None:
            commits.complete(bucket, found.open, found.stored, found.objects, held=True)
            log.warning("%s: its commit was interrupted and is complete now", found.stored["file"])
            return
        if found.open.generation != chooser:
            return
        try:
            # The line of its commit would have this number, and is refused.
            JournalWriter(bucket, found.open, found.next).write([journals.owner_line()])
        except UploadLost:
            continue  # it was faster, and may have begun its commit
        log.warning("partial %s: the merge was stalled, and ends without its commit", key)
        return


def _sweep(bucket: Bucket, key: str, generation: str) -> None:
    # It may be of an upload that another daemon has begun since the keys were listed.
    there = journals.read_open(bucket, key)
    if there is None or there.generation != generation:
        partials.sweep(bucket, key, generation)


def _recover(bucket: Bucket, found: BucketJournal, patience: float) -> list[str]:
    key, said = found.open.key, journals.summary(found)
    if found.stored is not None:
        file = found.stored["file"]
        if commits.complete(bucket, found.open, found.stored, found.objects):
            return [f"{file}: its commit was interrupted and is complete now"]
        return [f"{file}: was stored twice; the first one stays"]
    if said.offset is None or found.open.opened.merge:
        # By the object store's clock. If the clocks differ, this is too early, and its sender begins anew, or too late.
        if time.time() - found.modified >= patience:
            partials.discard(bucket, found.open)
        return []
    return [f"partial {key}: kept, with {said.offset} raw bytes"]


def _delete_probes(bucket: Bucket) -> None:
    """Delete what probes have left that did not come to their end."""
    for each in list(bucket.entries(keys.PROBE)):
        if time.time() - each.modified > PROBE_AGE:
            bucket.delete(each.key)
    for upload in list(bucket.unfinished(keys.PROBE)):
        if time.time() - upload.begun > PROBE_AGE:
            bucket.abort(upload.key, upload.upload)


def _abort_orphans(bucket: Bucket) -> None:
    """Abort the multipart uploads of streams that do not arrive any more.

    A daemon writes the first object of an arriving stream, begins multipart uploads, and deletes that object at the
    end. So an upload that was listed before the arriving streams, and belongs to none of them, is of no use. A dead
    daemon leaves one if it is killed behind the request. So does a gateway that does the request late.
    """
    begun = [each for each in bucket.unfinished("") if not each.key.startswith(keys.PROBE)]
    if not begun:
        return
    arriving: list[str] = []
    for key, generations in partials.listed(bucket).items():
        try:
            opened = journals.read_open(bucket, key) if None in generations else None
        except StoreError:  # it is logged, and may be the stream of any of them
            return
        if opened is not None:
            arriving += [opened.data, keys.journal_prefix(key, opened.generation)]
    for each in begun:
        if not (each.key.startswith(tuple(arriving)) or _is_of_another_store(bucket, each.key)):
            log.warning("%s: a multipart upload that belongs to no stream is aborted", each.key)
            bucket.abort(each.key, each.upload)


def _is_of_another_store(bucket: Bucket, key: str) -> bool:
    """Whether a store begins below this one's prefix that has this key."""
    return any(bucket.head(f"{each}/{keys.MARKER}") is not None for each in PurePosixPath(key).parents[:-1])
