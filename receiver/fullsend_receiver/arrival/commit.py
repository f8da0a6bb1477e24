"""The commit of an arrived stream: check it, write its manifest, and put it in place."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import PurePosixPath

import fullsend_protocol
from fullsend_protocol.format.manifest import (
    LostSpill,
    Manifest,
    MergedInput,
    PastReplacement,
    ProvenBy,
    Resumption,
    Segment,
)
from fullsend_protocol.shared.units import format_time
from fullsend_protocol.stream.facts import Facts
from fullsend_protocol.stream.records import EmbeddedSpill
from fullsend_protocol.wire.messages import REPLACED_MAX, Committed, Finish, Push, Stored
from fullsend_receiver.arrival.ingest import Ingest
from fullsend_receiver.arrival.replacement import KnownDamage, find_damage, place_in_time, snapshots_of
from fullsend_receiver.catalogue.holdings import Holdings
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.catalogue.streams import NoBase
from fullsend_receiver.events.emit import emit
from fullsend_receiver.events.records import DamageGone
from fullsend_receiver.store import names
from fullsend_receiver.store.api import Replaced, Store
from fullsend_receiver.store.errors import StoreError

log = logging.getLogger("fullsendd")


def stored_file(store: Store, sender: str, about: Facts) -> tuple[PurePosixPath, bool]:
    """Return the path of a stream, relative to the store, and whether it is already stored."""
    file = names.stream_file(sender, about)
    return file, store.has(file)


def commit(
    catalogues: Catalogues, sender: str, ingest: Ingest, finish: Finish, push: Push, *, sender_program: str
) -> Committed | Stored:
    """Prove the arrived stream whole and put it in place. All its batches must be durable. Blocks.

    If the same stream was stored before, and this receiver knows that it is damaged, the arrived one replaces it. What
    a sender says does not matter for that. The upload ends here: committed, or discarded if the same stream was stored
    before and is not known to be damaged, or the base is missing. After any other error it is still open, and its owner
    decides.

    Returns: the receipt of the stream, which is in place, durable and listed; if it was stored before, the receipt of
    the first one. Raises: StreamError, ChunkError (not whole), NoBase, StoreError, Damaged, OSError.
    """
    store = catalogues.store
    about = ingest.conclude(finish)
    file, again = stored_file(store, sender, about)
    holdings = catalogues.current(sender)
    damaged = find_damage(catalogues, file, about) if again else None
    if again and damaged is None:
        ingest.partial.close(keep=False)
    else:
        if wants_base(push):
            try:
                check_base(holdings, sender, about)
            except NoBase:
                ingest.partial.close(keep=False)
                raise
        again = not _put_in_place(
            catalogues, sender, ingest, about, file, push=push, sender_program=sender_program, damaged=damaged
        )
    catalogue = catalogues.current(sender).around(file=file)
    found = catalogue.at(file)
    if found is None:
        msg = f"{file}: was stored, and is missing now"
        raise StoreError(msg)
    receipt = catalogue.receipt(found)
    if again:
        return Stored(receipt=receipt)
    return Committed(receipt=receipt, replaced=damaged.why[:REPLACED_MAX] if damaged else None)


def wants_base(push: Push) -> bool:
    """Whether a stream is refused without a restorable base. The base of a package is known at its end only."""
    return not push.keep_orphan and push.guid is not None and push.base_guid is not None


def check_base(holdings: Holdings, sender: str, about: Facts) -> None:
    """Check that an increment's base is restorable, and has its keys. Blocks. Raises: NoBase, OSError.

    Its journal has kept prune from the base, but a disk may have failed, or a person may have removed the base.
    """
    try:
        holdings.around(guid=str(about.base_guid)).check_base(
            sender,
            str(about.base_guid),
            stream_class=about.stream_class,
            flags=about.flags,
            base_ivset_guid=_text(about.base_ivset_guid),
        )
    except NoBase as error:
        msg = f"{about.dataset}@{about.snapshot}: {error}"
        raise NoBase(msg) from None


def _put_in_place(
    catalogues: Catalogues,
    sender: str,
    ingest: Ingest,
    about: Facts,
    file: PurePosixPath,
    *,
    push: Push,
    sender_program: str,
    damaged: KnownDamage | None,
) -> bool:
    """Seal and commit the upload. `damaged`: the stream that it replaces. Returns: whether it is in place now."""
    size, sha256 = ingest.partial.seal(ingest.chunks)
    segments = ingest.segments()
    manifest = make_manifest(
        sender,
        about,
        embedded_spills=ingest.walker.embedded_spills,
        segments=segments,
        resumptions=ingest.resumptions,
        stored_bytes=size,
        file_sha256=sha256,
        chunks=ingest.chunks,
        sender_program=sender_program,
        zfs_version=push.zfs_version,
        properties=push.properties,
        proven_by="both",
        **place_in_time(catalogues, file, damaged, begun=ingest.partial.begun, segments=segments),
    )
    first = ingest.partial.commit(file, manifest, None if damaged is None else Replaced(damaged.stamp, damaged.why))
    if not first:  # another connection has stored it first
        found = find_damage(catalogues, file, about)
        if found is not None:
            msg = f"{file}: was stored by another connection meanwhile, and is {found.why}; push it again"
            raise StoreError(msg)
    elif damaged is not None:
        text = f"{file}: was {damaged.why}, and is replaced"
        names = {"sender": sender, "dataset": about.dataset, "snapshot": about.snapshot, "file": str(file)}
        emit(DamageGone(text=text, how="replaced", **names), logging.WARNING)
    return first


def make_manifest(
    sender: str,
    about: Facts,
    *,
    embedded_spills: Sequence[EmbeddedSpill],
    segments: list[Segment],
    resumptions: list[Resumption],
    stored_bytes: int,
    file_sha256: str,
    chunks: int,
    sender_program: str,
    zfs_version: str | None,
    properties: dict[str, str] | None,
    proven_by: ProvenBy,
    begun: str | None = None,
    sequence: int | None = None,
    received: str | None = None,
    replacements: Sequence[PastReplacement] = (),
    merged: Sequence[MergedInput] = (),
) -> Manifest:
    """Return the manifest of a whole stream. `received`: None: just now."""
    return Manifest.model_validate(
        {
            "sender": sender,
            "dataset": about.dataset,
            "snapshot": about.snapshot,
            "guid": str(about.guid),
            "base_guid": _text(about.base_guid),
            "kind": about.kind,
            "dataset_type": about.dataset_type,
            "class": about.stream_class,
            "flags": about.flags,
            "features": list(about.features),
            "snapshots": snapshots_of(about),
            "created": format_time(about.created),
            "received": received or format_time(time.time()),
            "begun": begun,
            "sequence": sequence,
            "raw_bytes": segments[-1].end,
            "stored_bytes": stored_bytes,
            "sha256": segments[0].sha256 if len(segments) == 1 else None,
            "segments": segments,
            "resumptions": resumptions,
            "file_sha256": file_sha256,
            "chunks": chunks,
            "sender_program": sender_program,
            "receiver_program": f"fullsendd {fullsend_protocol.__version__}",
            "zfs_version": zfs_version,
            "properties": properties,
            "proven_by": proven_by,
            "lost_spills": [LostSpill(snapshot=each.snapshot, object=each.number) for each in embedded_spills],
            "replacements": list(replacements),
            "merged": list(merged),
            "ivset_guid": _text(about.ivset_guid),
            "base_ivset_guid": _text(about.base_ivset_guid),
        }
    )


def _text(guid: int | None) -> str | None:
    return None if guid is None else str(guid)
