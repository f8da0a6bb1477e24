"""How full the disk and the quotas are, for a command: by the store alone, without a running daemon."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from fullsend_protocol.shared.settings import SizeOrShare
from fullsend_receiver.arrival.bounds import Fill
from fullsend_receiver.catalogue.rows import Summary
from fullsend_receiver.store.api import Store, UploadInfo


def find_fills(
    store: Store, stored: Iterable[Summary], *, min_free: SizeOrShare, quota_of: Callable[[str], int | None]
) -> Iterator[Fill]:
    """Yield how full the disk is, and then the quota of each sender that has one and stores something. `stored`: all
    stored streams. Blocks: reads the journals, and looks at what is set aside. Raises: OSError.
    """
    free, total = store.space()
    yield Fill("the store's disk", total - free, total, min_free.of(total))
    used = Counter(store.aside())
    for each in stored:
        used[each.sender] += each.stored_bytes
    for _key, (sender, size) in store.uploads(_look):
        used[sender] += size
    used.pop("", None)
    for sender in sorted(used):
        quota = quota_of(sender)
        if quota is not None:
            yield Fill(f"the quota of {sender}", used[sender], quota)


def _look(upload: UploadInfo) -> tuple[str, int]:
    """Return whose partial it is, and its bytes. That of a merge is nobody's: what it replaces counts already."""
    opened = upload.opened
    return (opened.sender, upload.journal.stored) if opened and not opened.merge else ("", 0)
