"""What has arrived in part and waits to be gone on with: listed, and thrown away when it has waited too long."""

from __future__ import annotations

import logging
import time
from collections.abc import Container, Iterator

from fullsend_protocol.manifest import PartialEntry
from fullsend_protocol.units import format_duration, format_size, format_time, printable
from fullsend_receiver import journal
from fullsend_receiver.partial import discard, is_arriving, journals
from fullsend_receiver.store import Store

log = logging.getLogger("fullsendd")


def find_partials(store: Store, sender: str | None) -> Iterator[PartialEntry]:
    """Yield what has arrived in part; of one sender, or of all (None). Blocks: journals are read through.

    Raises: OSError.
    """
    for _key, path in journals(store):
        try:
            opened = journal.read_opened(path)
            if opened is None or sender not in {None, opened.sender}:
                continue
            place, resumable = journal.standings(path)
            last, arriving = path.stat().st_mtime, is_arriving(path)
        except FileNotFoundError:  # committed, or thrown away, meanwhile
            continue
        yield PartialEntry(
            sender=opened.sender,
            dataset=opened.push.dataset,
            snapshot=opened.push.snapshot,
            guid=opened.push.guid,
            base_guid=opened.push.base_guid,
            flags=opened.push.flags,
            raw_bytes=place.offset if place else 0,
            stored_bytes=place.stored if place else 0,
            resume_offset=resumable.offset if resumable and opened.push.guid is not None else None,
            started=opened.at,
            last=format_time(last),
            arriving=arriving,
        )


def throw_away_old(store: Store, arriving: Container[str], *, keep: float, most: int | None) -> None:
    """Throw away the partials on which nothing has arrived for `keep` seconds, and, the oldest first, as many as it
    takes for all together to have at most `most` bytes stored (None: no limit). What is arriving now is left alone.

    Blocks. By the clock of the file system: one that jumped ahead may cost an interrupted transfer its beginning, and
    never a stored stream. Raises: OSError.
    """
    now = time.time()
    waiting = []
    total = 0
    for key, path in journals(store):
        try:
            last, said = path.stat().st_mtime, journal.read(path)
        except FileNotFoundError:
            continue
        stored = said.stored
        total += stored
        # What is proven waits for a start to complete its commit: its file may be in place, without its manifest.
        if key not in arriving and said.committing is None:
            waiting.append((last, key, path, stored))
    for last, key, path, stored in sorted(waiting):
        if now - last > keep:
            why = f"nothing has arrived for {format_duration(now - last)} (partial-keep)"
        elif most is not None and total > most:
            why = f"all partials together have {format_size(total)} (partial-max)"
        else:
            continue
        opened = journal.read_opened(path)
        what = f"{opened.sender}/{opened.push.dataset}@{opened.push.snapshot}" if opened else key
        discard(store, key)
        total -= stored
        log.warning("%s: what had arrived of it (%s) is thrown away: %s", printable(what), format_size(stored), why)
