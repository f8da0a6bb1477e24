"""What is stored of this sender, as the receiver lists it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fullsend_protocol import messages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fullsend_protocol.manifest import StreamEntry
    from fullsend_sender.link import Link


async def entries(link: Link, dataset: str | None) -> AsyncIterator[StreamEntry]:
    """Yield what is stored, of one dataset if it is named. Raises: as Link.receive."""
    await link.send(messages.List(dataset=dataset))
    while True:
        match await link.receive():
            case messages.Entries(entries=page):
                for entry in page:
                    yield entry
            case messages.Done():
                return
            case other:
                raise link.unexpected(other)
