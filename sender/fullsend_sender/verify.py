"""`fullsend verify`: has the receiver read and check what it stores of this sender."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fullsend_protocol import messages
from fullsend_protocol.units import printable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from fullsend_sender.link import Link


async def verdicts(link: Link, dataset: str | None) -> AsyncIterator[messages.Verdict]:
    """Yield the receiver's verdict on each stream, as it comes to it; that may take hours.

    Raises: as Link.receive.
    """
    async for verdict in link.pages(messages.Verify(dataset=dataset), messages.Verdict):
        yield verdict


def describe(verdict: messages.Verdict) -> Iterator[str]:
    """Yield one line for each damage: the stream, its file, and what the receiver says of it."""
    for damage in verdict.damage:
        yield printable(f"{verdict.dataset}@{verdict.snapshot}: {verdict.file}: {damage}")
