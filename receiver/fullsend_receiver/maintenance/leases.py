"""What somebody needs now, so that a prune leaves it: the bases of what arrives, and the chains that are being read.

Read these while no other process removes (`Store.remove` calls `choose` then): a lease that is not there yet belongs to
a push, or a reader, that will look again (`Store.wait_for_removals`). Read `arriving_leases` before the catalogue: a
push may commit in between.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from fullsend_protocol.shared.units import printable
from fullsend_receiver.catalogue.streams import Catalogue
from fullsend_receiver.maintenance.retention import Lease
from fullsend_receiver.store.api import Store
from fullsend_receiver.store.names import base_in_name


def arriving_leases(store: Store, sender: str) -> list[Lease]:
    """Return the bases of a sender's partials, arriving or not. Blocks. Raises: OSError."""
    found = []
    for _key, opened in store.uploads(lambda upload: upload.opened):
        if opened is not None and opened.sender == sender and opened.offer.base_guid is not None:
            what = printable(f"{opened.offer.dataset}@{opened.offer.snapshot}")
            found.append(Lease(opened.offer.base_guid, f"the partial of {what}"))
    return found


def reading_leases(part: Catalogue, held: Iterable[PurePosixPath]) -> list[Lease]:
    """Return what readers need of a part. `held`: as returned by `Store.held`.

    A restore reads a chain stream by stream, the full first. So it needs the streams that build on what it has read.
    """
    found: dict[str, Lease] = {}
    for file in held:
        stored = part.at(file)
        for each in [] if stored is None else [stored, *part.dependents(stored)]:
            found.setdefault(each.summary.guid, Lease(each.summary.guid, f"a reader of {file.name}", chain=True))
    return list(found.values())


def hidden_leases(paths: Iterable[str]) -> list[Lease]:
    """Return the bases that files without a readable manifest name in their own names."""
    named = ((base_in_name(path), path) for path in paths)
    return [Lease(guid, f"{path}, which cannot be read") for guid, path in named if guid is not None]
