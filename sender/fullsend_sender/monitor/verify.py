"""`fullsend verify`: the receiver reads and checks what it stores of this sender."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fullsend_protocol.shared.errors import FullsendError, UsageError
from fullsend_protocol.shared.units import printable
from fullsend_protocol.wire import messages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from fullsend_sender.transfer.link import Link


class NotStored(FullsendError):  # noqa: N818 - reads as what it says
    """There is no stored stream to verify."""


async def verdicts(link: Link, dataset: str | None) -> AsyncIterator[messages.Verdict]:
    """Yield the receiver's verdict on each stream, as it arrives; that may take hours.

    Raises: NotStored if there is no stream; UsageError if there is none of this dataset; as Link.receive.
    """
    count = 0
    async for verdict in link.pages(messages.Verify(dataset=dataset), messages.Verdict):
        count += 1
        yield verdict
    if not count and dataset is not None:
        raise UsageError(f"no stream of {printable(dataset)} is stored, so none was read (see `fullsend list`)")
    if not count:
        raise NotStored("no stream is stored, so none was read (see `fullsend list`)")


def describe(verdict: messages.Verdict) -> Iterator[str]:
    """Yield one line for each damage: the stream, its file, and the receiver's text."""
    for damage in verdict.damage:
        yield printable(f"{verdict.dataset}@{verdict.snapshot}: {verdict.file}: {damage}")
