"""A stored stream that is known to be damaged gives way to the same stream, pushed again.

Only what this receiver itself has found out makes a stream replaceable: the results of its own checks, a file that is
missing or has another length, a manifest that no version has written. Nothing that a sender says matters for that.

The new stream has the same name, so it has the same GUIDs and flags, and both sides have proven it. ZFS takes it for
the same snapshot, also as a base. Usually it has the same bytes. It need not: properties may have changed, and some
sends differ. To refuse such a one would leave the snapshot without any backup. So it is taken, and its manifest says
whether the bytes are the same; the damaged one is set aside.

A raw stream that is encrypted with other keys is another one, although its name is the same. What builds on the damaged
one could never be received on it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from fullsend_protocol.format.manifest import Manifest, PastReplacement, Segment, StreamSnapshot
from fullsend_protocol.shared.units import format_time, parse_time
from fullsend_protocol.stream import facts
from fullsend_protocol.stream.facts import Facts
from fullsend_protocol.wire.messages import REPLACED_MAX
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.store.api import Stamp, Store
from fullsend_receiver.store.errors import ManifestError, StoreError

#: Replacements that a manifest remembers, the newest: each comes from a disk that has failed again.
_REPLACEMENTS_MAX: Final = 5
#: Seconds that are tried for a time of reception without a result.
_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class KnownDamage:
    """A stored stream that is known to be damaged. `stamp`: of its manifest; `manifest`: None: it cannot be read;
    `why`: what is wrong with it.
    """

    stamp: Stamp
    manifest: Manifest | None
    why: str


def find_damage(catalogues: Catalogues, file: PurePosixPath, about: Facts) -> KnownDamage | None:
    """Return the stored stream of this name if it is known to be damaged; None: it is the same stream, and nothing
    shows damage, or it was removed just now. `about`: the stream that has arrived. Blocks.

    Raises: StoreError if it is another stream, or its manifest cannot be read for another reason; OSError.
    """
    store = catalogues.store
    # Another connection may replace it at this moment: the manifest and the judgement must be of one stream.
    while (stamp := store.stamp(file)) is not None:
        try:
            found = _judge(catalogues, file, about, stamp)
        except ManifestError as error:
            if store.stamp(file) != stamp:
                continue
            if about.kind == "package" or not error.spoilt:  # the name does not show what a package has
                raise
            return KnownDamage(stamp, None, str(error))
        if store.stamp(file) == stamp:
            return found
    return None


def has_other_keys(store: Store, file: PurePosixPath, about: Facts) -> bool:
    """Whether the stored stream of this name is encrypted with other keys than the arriving one, as far as both tell.
    Blocks. Raises: StoreError, OSError.
    """
    if about.ivset_guid is None or not store.has(file):
        return False
    try:
        return store.manifest(file).ivset_guid not in {None, str(about.ivset_guid)}
    except ManifestError as error:
        if not error.spoilt:
            raise
        return False


def _judge(catalogues: Catalogues, file: PurePosixPath, about: Facts, stamp: Stamp) -> KnownDamage | None:
    """Judge the stream with this stamp.

    A package's name has the GUIDs of its top dataset alone. `-i` and `-I`, with `-R` or without, make packages of one
    name with different snapshots. To report the second one as stored would lose what only it has.

    Raises: ManifestError, StoreError, OSError.
    """
    manifest = catalogues.store.manifest(file)
    if manifest.snapshots != snapshots_of(about):
        msg = (
            f"{file}: is stored, but with other snapshots ({len(manifest.snapshots)}; this package has"
            f" {len(about.substreams)}): it was sent with other options; send the datasets one by one"
        )
        raise StoreError(msg)
    catalogue = catalogues.current(file.parts[0]).around(file=file)
    found = catalogue.at(file)
    why = None if found is None else catalogue.damage(found)
    return None if why is None else KnownDamage(stamp, manifest, why)


def place_in_time(
    catalogues: Catalogues,
    file: PurePosixPath,
    damaged: KnownDamage | None,
    *,
    begun: str | None,
    segments: Sequence[Segment],
) -> dict[str, Any]:
    """Return the fields of the new manifest that place the stream among the others: `begun`, `sequence`, `received`,
    `replacements`. Blocks. Raises: OSError.

    A replacement takes over when the damaged one was offered and received, and its place in the order of reception. It
    is the same snapshot: it must not look like a newer state, neither to `status` nor to a rule that counts days.
    Results of checks belong to a file that was received at a time. So the time of reception is a second later, and one
    for which there is no result.
    """
    now = time.time()
    before = None if damaged is None else damaged.manifest
    sequence: int | None
    if before is None:
        at, sequence = now, catalogues.current(file.parts[0]).last_sequence + 1
    else:
        at, sequence = (parse_time(before.received) or now) + 1, before.sequence
        begun = before.begun or before.received
    replacements = [] if before is None else [*before.replacements]
    if damaged is not None:
        replacements.append(_replaced(damaged, segments, now))
    return {
        "begun": begun,
        "sequence": sequence,
        "received": unchecked_time(catalogues, file, at),
        "replacements": replacements[-_REPLACEMENTS_MAX:],
    }


def unchecked_time(catalogues: Catalogues, file: PurePosixPath, at: float) -> str:
    """Return the first time of reception from `at` on (seconds since the epoch) for which no result of a check of this
    file is known: a result belongs to a file that was received at a time. Blocks. Raises: OSError.
    """
    times = (format_time(at + each) for each in range(_SECONDS))
    return next((each for each in times if catalogues.checked(file, each) is None), format_time(at))


def _replaced(damaged: KnownDamage, segments: Sequence[Segment], now: float) -> PastReplacement:
    before = damaged.manifest
    old = None
    if before is not None:
        old = before.segments[0].sha256 if len(before.segments) == 1 else before.sha256
    known = old is not None and len(segments) == 1
    return PastReplacement(
        at=format_time(now),
        received=None if before is None else before.received,
        why=damaged.why[:REPLACED_MAX],
        same_bytes=old == segments[0].sha256 if known else None,
    )


def snapshots_of(about: Facts) -> list[StreamSnapshot]:
    """Return the snapshots that a stream brings, in stream order, as a manifest lists them."""
    return [
        StreamSnapshot(dataset=dataset, snapshot=snapshot, guid=str(begin.guid), base_guid=str(begin.base_guid))
        for begin in about.substreams
        for dataset, snapshot in [facts.split_name(begin.name)]
    ]
