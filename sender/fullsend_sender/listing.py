"""What is stored of this sender, as the receiver lists it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fullsend_protocol import messages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fullsend_protocol.manifest import PartialEntry, StreamEntry
    from fullsend_protocol.messages import Base, DatasetStatus
    from fullsend_sender.link import Link


async def entries(link: Link, dataset: str | None) -> AsyncIterator[StreamEntry]:
    """Yield what is stored, of one dataset if it is named. Raises: as Link.receive."""
    async for page in link.pages(messages.List(dataset=dataset), messages.Entries):
        for entry in page.entries:
            yield entry


async def partials(link: Link) -> list[PartialEntry]:
    """Return what has arrived in part. Raises: as Link.receive."""
    pages = link.pages(messages.PartialsWanted(), messages.Partials)
    return [each async for page in pages for each in page.partials]


async def statuses(link: Link) -> dict[str, DatasetStatus]:
    """Return how each dataset is backed up. Raises: as Link.receive."""
    pages = link.pages(messages.StatusWanted(), messages.Status)
    return {about.dataset: about async for page in pages for about in page.datasets}


async def bases(link: Link) -> list[Base]:
    """Return what increments can build on. Raises: as Link.receive."""
    pages = link.pages(messages.BasesWanted(), messages.Bases)
    return [each async for page in pages for each in page.bases]
