"""What is to become of a stream that a sender offers: taken, refused, or not needed."""

from __future__ import annotations

from fullsend_protocol.errors import ErrorCode, FullsendError
from fullsend_protocol.facts import class_of
from fullsend_protocol.manifest import Receipt
from fullsend_protocol.messages import Push
from fullsend_protocol.units import format_size
from fullsend_receiver.catalogue import Catalogue, NoBase, read_catalogue
from fullsend_receiver.commit import wants_base
from fullsend_receiver.durable import locked
from fullsend_receiver.store import Store


class NoRoom(FullsendError):  # noqa: N818 - reads as a noun
    """The store is full, or the stream would fill it."""

    code = ErrorCode.SPACE


def judge(store: Store, sender: str, push: Push, *, arrived: int, min_free: int) -> Receipt | None:
    """Return the receipt of the stream that is offered, None where it is to be taken. Blocks. `arrived`: raw bytes.

    To be called when its journal stands: from then on prune leaves its base alone, so what is found here stays.
    Raises: Damaged (stored, and damaged), NoBase, NoRoom.
    """
    if push.base_guid is not None:
        # A prune that has read the journals before ours stood holds the lock until it has deleted all that it chose.
        with locked(store.lock):
            pass
    if push.guid is not None:
        catalogue = read_catalogue(store, sender)
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
    _check_room(store, push, arrived, min_free)
    return None


def committed_before(store: Store, sender: str, push: Push) -> Receipt | None:
    """Return the receipt of a stream whose sender has sent all of it and does not know what became of it; None where it
    is not stored. Blocks. Raises: Damaged.
    """
    if push.whole is None:
        return None
    wanted = (push.snapshot, push.whole.guid, push.whole.base_guid, push.whole.flags, push.whole.raw_bytes)
    catalogue = read_catalogue(store, sender)
    for stored in catalogue.select(sender, push.dataset):
        about = stored.summary
        if (about.snapshot, about.guid, about.base_guid, about.flags, about.raw_bytes) == wanted:
            return catalogue.receipt(stored)
    return None


def already_stored(store: Store, sender: str, push: Push) -> Receipt | None:
    """Return the receipt of the stream that is offered, None where it is not stored. Blocks. Raises: Damaged."""
    return None if push.guid is None else _stored(read_catalogue(store, sender), sender, push)


def _stored(catalogue: Catalogue, sender: str, push: Push) -> Receipt | None:
    wanted = (push.snapshot, push.guid, push.base_guid, push.flags)
    for stored in catalogue.select(sender, push.dataset):
        about = stored.summary
        if (about.snapshot, about.guid, about.base_guid, about.flags) == wanted and about.kind != "package":
            return catalogue.receipt(stored)
    return None


def _check_room(store: Store, push: Push, arrived: int, min_free: int) -> None:
    free = store.free_bytes()
    # The estimate is of raw bytes, and compression only helps; but a stream that does not compress must fit.
    wanted = min_free + max(0, (push.size_estimate or 0) - arrived)
    if free < wanted:
        about = "" if push.size_estimate is None else f", and the stream is about {format_size(push.size_estimate)}"
        msg = f"the store has {format_size(free)} free, {format_size(min_free)} are to stay free{about}"
        raise NoRoom(msg)
