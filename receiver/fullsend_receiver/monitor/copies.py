"""How the copies in another store stand: what receiver.toml wants, and what the runs have noted."""

from __future__ import annotations

from fullsend_protocol.shared.errors import FullsendError
from fullsend_protocol.shared.units import parse_time
from fullsend_receiver.access.config import load
from fullsend_receiver.access.copy_settings import CopySettings
from fullsend_receiver.maintenance.copy_records import read_record
from fullsend_receiver.monitor.alarms import Moment
from fullsend_receiver.monitor.overview import CopyOverview
from fullsend_receiver.store.api import Store


def find_copies(store: Store, settings: CopySettings | None, moment: Moment) -> CopyOverview | None:
    """Return how the copies stand; None: none are wanted. It asks nothing of the other store. Blocks. Raises: OSError,
    StoreError.
    """
    if settings is None:
        return None
    try:
        there = load(settings.to)
    except FullsendError as error:
        return CopyOverview(to=str(settings.to), fault=str(error), limit=settings.limit)
    found = read_record(store.documents, there.store_id).wanted(settings.scope, "")
    complete, since = parse_time(found.complete or ""), parse_time(found.since or "")
    counts = since if complete is None else complete
    return CopyOverview(
        to=str(there.store),
        limit=settings.limit,
        since=since,
        complete=complete,
        age=None if counts is None else moment.age(counts),
        began=parse_time(found.began or ""),
        ended=parse_time(found.ended or ""),
        host=found.host,
        ok=found.ok,
        why=found.why,
        left=found.left,
        named=tuple(found.named),
        older=found.older,
        streams=found.streams,
        stored_bytes=found.stored_bytes,
        bytes_ever=found.bytes_ever,
    )
