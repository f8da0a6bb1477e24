"""How full the disk and the quotas are, for a command: by the store alone, without a running daemon."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from fullsend_protocol.shared.settings import SizeOrShare
from fullsend_protocol.shared.units import parse_time
from fullsend_receiver.arrival.bounds import Fill
from fullsend_receiver.catalogue.rows import Summary
from fullsend_receiver.store.api import DiskSpace, Store, UploadInfo


class InPart(NamedTuple):
    """What has come of a dataset in part. `begun`: when its oldest partial was first offered; `last`: when something
    last came of any; in seconds since the epoch.
    """

    begun: float
    last: float


@dataclass(slots=True)
class Beside:
    """What counts for a sender's quota beside its stored streams. Sizes are stored bytes; `aside_bytes`: removed
    streams in the trash, and what is set aside as damaged; `in_part`: by dataset, its partials.
    """

    partials: int = 0
    partial_bytes: int = 0
    aside_bytes: int = 0
    in_part: dict[str, InPart] = field(default_factory=dict)

    @property
    def used_bytes(self) -> int:
        """All of it."""
        return self.partial_bytes + self.aside_bytes


def find_beside(store: Store) -> dict[str, Beside]:
    """Return what is in the store beside stored streams, by sender. Blocks: reads the journals, and looks at what is
    set aside. Raises: OSError.
    """
    found = {sender: Beside(aside_bytes=size) for sender, size in store.aside().items()}
    for _key, (sender, size, dataset, said) in store.uploads(_look):
        if sender:
            each = found.setdefault(sender, Beside())
            each.partials += 1
            each.partial_bytes += size
            before = each.in_part.get(dataset, said)
            each.in_part[dataset] = InPart(min(before.begun, said.begun), max(before.last, said.last))
    return found


def find_fills(
    store: Store, stored: Iterable[Summary], *, min_free: SizeOrShare, quota_of: Callable[[str], int | None]
) -> Iterator[Fill]:
    """Yield how full the disk is, and then the quota of each sender that has one and stores something. `stored`: all
    stored streams. Blocks: as `find_beside`. Raises: OSError.
    """
    used = Counter({sender: each.used_bytes for sender, each in find_beside(store).items()})
    for each in stored:
        used[each.sender] += each.stored_bytes
    yield from fills_of(store.space(), used, min_free=min_free, quota_of=quota_of)


def fills_of(
    space: DiskSpace, used: Mapping[str, int], *, min_free: SizeOrShare, quota_of: Callable[[str], int | None]
) -> Iterator[Fill]:
    """Yield the same, of what is known. `used`: by sender, what counts for its quota, in bytes."""
    free, total = space
    yield Fill("the store's disk", total - free, total, min_free.of(total))
    for sender in sorted(used):
        quota = quota_of(sender)
        if quota is not None:
            yield Fill(f"the quota of {sender}", used[sender], quota)


def _look(upload: UploadInfo) -> tuple[str, int, str, InPart]:
    """Return whose partial it is, its bytes, and of which dataset. That of a merge is nobody's: what it replaces counts
    already.
    """
    opened, last = upload.opened, upload.last
    if opened is None or opened.merge:
        return "", 0, "", InPart(last, last)
    begun = parse_time(opened.at)
    return opened.sender, upload.journal.stored, opened.offer.dataset, InPart(last if begun is None else begun, last)
