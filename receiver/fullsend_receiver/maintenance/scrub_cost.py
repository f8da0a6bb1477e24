"""What the check of a stream costs in a store whose requests cost money."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fullsend_receiver.maintenance.reading import behind_chunks

if TYPE_CHECKING:
    from fullsend_receiver.store.api import RequestCost

#: Requests of a check beside those of reading: the manifest, its stamp before and behind, the size by manifest and
#: object, `.sha256` by manifest and object.
_BESIDE = 7


def scrubbed(read: RequestCost, chunks: int) -> RequestCost:
    """Return what a check of one stream costs. `read`: what reading it costs; `chunks`: how many it has."""
    reads, size = behind_chunks(chunks)
    return replace(read, gets=read.gets + _BESIDE + reads, received=read.received + size)
