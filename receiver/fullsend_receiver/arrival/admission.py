"""Decides about a stream that a sender offers: it is received, refused, or not needed."""

from __future__ import annotations

import logging
from typing import Final

from fullsend_protocol.format.chains import reception
from fullsend_protocol.format.manifest import Receipt
from fullsend_protocol.shared.units import printable
from fullsend_protocol.stream.facts import class_of
from fullsend_protocol.wire.messages import Push
from fullsend_receiver.arrival import overruns
from fullsend_receiver.arrival.bounds import TELLING, Ratio, RoomRequest
from fullsend_receiver.arrival.commit import wants_base
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.catalogue.streams import Catalogue, Damaged, NoBase, StoredStream
from fullsend_receiver.store.opened import partial_key

log = logging.getLogger("fullsendd")

#: Number of streams of a dataset, the newest, from which its compression ratio is computed.
_LIKE: Final = 10


def judge(
    catalogues: Catalogues, sender: str, push: Push, *, arrived: int = 0, stored: int = 0
) -> Receipt | RoomRequest:
    """Return the receipt of the offered stream if it is stored; otherwise the room that it needs. Blocks.

    A stored stream that is known to be damaged counts as not stored: what arrives will replace it. `arrived`, `stored`:
    its part that is there, in raw bytes and in bytes of the partial. Call this when its journal is written: from then
    on prune keeps its base, so that what is found here stays. Raises: NoBase, StreamTooLarge, OSError.
    """
    store = catalogues.store
    if push.base_guid is not None:
        # A prune that read the journals before this one was written has deleted everything it chose when this returns.
        store.wait_for_removals()
    catalogue = catalogues.current(sender).around(dataset=push.dataset, guid=push.base_guid)
    if push.guid is not None:
        if (receipt := _stored(catalogue, sender, push)) is not None:
            return receipt
        if wants_base(push):
            try:
                # The bytes will show whether its flags are true.
                stream_class = None if push.flags is None else class_of(push.flags)
                catalogue.check_base(sender, str(push.base_guid), stream_class=stream_class, flags=push.flags)
            except NoBase as error:
                msg = f"{push.dataset}@{push.snapshot}: {error}"
                raise NoBase(msg) from None
    ratio = _ratio(catalogue, sender, push)
    overrun = overruns.find(store, sender, push)
    if arrived >= TELLING:
        ratio = Ratio(stored, arrived, "of what has arrived of it")
    elif overrun is not None and overrun.raw > 0:
        ratio = Ratio(overrun.stored, overrun.raw, "of the last try, which had too little room")
    wanted = RoomRequest(
        printable(f"{push.dataset}@{push.snapshot}"),
        None if push.size_estimate is None else max(0, push.size_estimate - arrived),
        ratio,
        before=stored,
        failed_at=overrun.stored if overrun is not None else 0,
        sender=sender,
        key=partial_key(sender, push),
    )
    wanted.check_size(store.capabilities.stream_most)
    return wanted


def _ratio(catalogue: Catalogue, sender: str, push: Push) -> Ratio | None:
    """Return the compression ratio of the dataset: of its newest streams of the same class, and of the same kind if
    there are any. None: none is stored.
    """
    stream_class = None if push.flags is None else class_of(push.flags)
    about = [each.summary for each in catalogue.select(sender, push.dataset)]
    about = [each for each in about if stream_class in {None, each.stream_class}]
    alike = [each for each in about if (each.base_guid is None) == (push.base_guid is None)] or about
    newest = sorted(alike, key=reception)[-_LIKE:]
    raw = sum(each.raw_bytes for each in newest)
    # A stream of a few KiB is stored with tables that are larger than itself.
    return Ratio(min(raw, sum(each.stored_bytes for each in newest)), raw, "of its last streams") if raw else None


def committed_before(catalogues: Catalogues, sender: str, push: Push) -> Receipt | None:
    """Return the receipt of a stream whose sender has sent all of it and does not know whether it was committed; None
    if it is not stored, or damaged. Blocks. Raises: OSError.
    """
    if push.whole is None:
        return None
    wanted = (push.snapshot, push.whole.guid, push.whole.base_guid, push.whole.flags, push.whole.raw_bytes)
    catalogue = catalogues.current(sender).around(dataset=push.dataset)
    for stored in catalogue.select(sender, push.dataset):
        about = stored.summary
        if (about.snapshot, about.guid, about.base_guid, about.flags, about.raw_bytes) == wanted:
            return _receipt(catalogue, stored)
    return None


def already_stored(catalogues: Catalogues, sender: str, push: Push) -> Receipt | None:
    """Return the receipt of the offered stream, None if it is not stored, or damaged. Blocks. Raises: OSError."""
    if push.guid is None:
        return None
    return _stored(catalogues.current(sender).around(dataset=push.dataset), sender, push)


def _stored(catalogue: Catalogue, sender: str, push: Push) -> Receipt | None:
    wanted = (push.snapshot, push.guid, push.base_guid, push.flags)
    for stored in catalogue.select(sender, push.dataset):
        about = stored.summary
        if (about.snapshot, about.guid, about.base_guid, about.flags) == wanted and about.kind != "package":
            return _receipt(catalogue, stored)
    return None


def _receipt(catalogue: Catalogue, stored: StoredStream) -> Receipt | None:
    try:
        return catalogue.receipt(stored)
    except Damaged as error:
        log.info("%s; it is offered again", error)
        return None
