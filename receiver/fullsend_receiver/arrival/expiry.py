"""Partials that wait for resumption: lists them, and discards those that have waited too long."""

from __future__ import annotations

import logging
import time
from collections.abc import Container, Iterator
from operator import itemgetter

from fullsend_protocol.format.manifest import PartialEntry
from fullsend_protocol.shared.units import format_duration, format_size, format_time, printable
from fullsend_receiver.events.emit import emit
from fullsend_receiver.events.records import PartialExpired
from fullsend_receiver.store.api import Claim, Store, UploadInfo, unclaimed
from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store.journal import UploadProgress
from fullsend_receiver.store.opened import Opened, entry_of

log = logging.getLogger("fullsendd")


def find_partials(store: Store, sender: str | None) -> Iterator[PartialEntry]:
    """Yield the partials of one sender, or of all (None). Those of merges are omitted, and so are damaged ones, which
    are left as they are. Blocks: reads the journals.

    Raises: OSError.
    """

    def look(upload: UploadInfo) -> PartialEntry | None:
        opened = upload.opened
        if opened is None or opened.merge or sender not in {None, opened.sender}:
            return None
        place, resumable = upload.places
        return entry_of(
            opened,
            raw_bytes=place.offset if place else 0,
            stored_bytes=place.stored if place else 0,
            resume_offset=resumable.offset if resumable else None,
            last=format_time(upload.last),
            arriving=upload.arriving,
        )

    for _key, found in store.uploads(look):
        if found is not None:
            yield found


def discard_old(
    store: Store,
    arriving: Container[str],
    *,
    keep: float,
    most: int | None,
    damaged_keep: float,
    claim: Claim = unclaimed,
) -> dict[str, dict[str, int]]:
    """Discard the partials on which nothing has arrived for `keep` seconds. If all others together store more than
    `most` bytes (None: no limit), discard the oldest of them. `arriving`: keys that are not discarded. Nor are those
    that another host may have open (`Capabilities.patience`). These count, too. `claim`: what is discarded, or set
    aside, is claimed, each by itself; the look at all of them is not.

    A damaged partial is set aside. All that was set aside is removed `damaged_keep` seconds after that. Blocks. The
    clock is that of the file system. If it jumps ahead, an interrupted transfer may have to start over; a stored stream
    is never lost.

    Returns: what is left: by sender, the stored bytes of each partial by key. Raises: StoreError if the store is not
    there; OSError.
    """
    now = time.time()
    patience = store.capabilities.patience
    waiting = []
    left: dict[str, dict[str, int]] = {}
    total = 0
    for key, (last, opened, said) in store.uploads(_look, sets_aside=claim):
        if opened is not None and opened.merge:
            continue  # the next merge discards it
        stored = said.stored
        total += stored
        if opened is not None:
            left.setdefault(opened.sender, {})[key] = stored
        may_arrive = key in arriving or (patience is not None and now - last < patience)
        # A partial that is committing waits for the next start: its file may be in place, without its manifest.
        if not may_arrive and said.committing is None:
            waiting.append((last, key, opened, stored))
    for last, key, opened, stored in sorted(waiting, key=itemgetter(0, 1)):
        if now - last > keep:
            why = f"nothing has arrived for {format_duration(now - last)} (partial-keep)"
        elif most is not None and total > most:
            why = f"all partials together have {format_size(total)} (partial-max)"
        else:
            continue
        what = f"{opened.sender}/{opened.offer.dataset}@{opened.offer.snapshot}" if opened else key
        with claim(key) as is_mine:
            if not is_mine:
                continue  # it has begun to arrive
            try:
                store.discard(key)
            except (StoreError, OSError) as error:
                log.error("%s: what has arrived of it cannot be deleted: %s", printable(what), error)  # noqa: TRY400
                continue
        total -= stored
        if opened is not None:
            del left[opened.sender][key]
        text = f"{printable(what)}: what had arrived of it ({format_size(stored)}) is deleted: {why}"
        names = (opened.sender, opened.offer.dataset, opened.offer.snapshot) if opened is not None else ("", "", "")
        named = dict(zip(("sender", "dataset", "snapshot"), names, strict=True))
        emit(PartialExpired(text=text, stored_bytes=stored, why=why, **named), logging.WARNING)
    store.discard_damaged(now - damaged_keep)
    return left


def _look(upload: UploadInfo) -> tuple[float, Opened | None, UploadProgress]:
    return upload.last, upload.opened, upload.journal
