"""What the check of a stream costs in a store whose requests cost money."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fullsend_receiver.maintenance.reading import pass_reads
from fullsend_receiver.store.seekable import file_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fullsend_receiver.store.api import RequestCost, Store

#: Requests of a check beside those of reading: the manifest, its stamp before and behind, the size by manifest and
#: object, `.sha256` by manifest and object.
_BESIDE = 7


def scrub_cost(store: Store, chunks: Sequence[int]) -> RequestCost | None:
    """Return what a check of one stream costs; None: nothing is counted here. `chunks`: stored bytes of each."""
    read = store.read_cost(file_size(chunks), pass_reads(chunks))
    return None if read is None else replace(read, gets=read.gets + _BESIDE)
