"""What the receiver has of this sender: streams, partial streams, the state of each dataset, bases."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

from fullsend_protocol.shared.units import format_time
from fullsend_protocol.wire import messages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from fullsend_protocol.format.manifest import Manifest, PartialEntry, StreamEntry
    from fullsend_protocol.wire.messages import Base, DamagedEntry, DatasetStatus, DrillEntry
    from fullsend_sender.transfer.link import Link


async def entries(link: Link, dataset: str | None) -> AsyncIterator[StreamEntry]:
    """Yield the stored streams; with `dataset`, only its own. Raises: as Link.receive."""
    async for page in link.pages(messages.List(dataset=dataset), messages.Entries):
        for entry in page.entries:
            yield entry


async def manifest(link: Link, stream: str) -> Manifest:
    """Return the manifest of a stored stream. `stream`: as in Fetch. Raises: as Link.receive."""
    # No chunk begins before raw offset 0.
    found = (await link.ask(messages.Fetch(stream=stream, offset=0, until=0), messages.Sending)).manifest
    end = await link.receive()
    if not isinstance(end, messages.Done):
        raise link.unexpected(end)
    return found


async def partials(link: Link) -> list[PartialEntry]:
    """Return the partial streams. Raises: as Link.receive."""
    pages = link.pages(messages.PartialsWanted(), messages.Partials)
    return [each async for page in pages for each in page.partials]


async def statuses(link: Link) -> tuple[str, dict[str, DatasetStatus]]:
    """Return the receiver's time (ISO 8601), and by name the state of each dataset. Raises: as Link.receive."""
    now = format_time(time.time())  # if nothing is stored, no page comes
    stored: dict[str, DatasetStatus] = {}
    async for page in link.pages(messages.StatusWanted(), messages.Status):
        now = page.now
        stored |= {about.dataset: about for about in page.datasets}
    return now, stored


def unlisted(stored: Mapping[str, DatasetStatus], listed: Mapping[str, int]) -> dict[str, int]:
    """Return by dataset how many manifests and folders the receiver cannot read, where there are any: `status?` counts
    them as streams, and `list` leaves them out.

    `stored`: as `statuses` returns it; `listed`: the number of `entries` by dataset, asked after that. A stream that
    comes in between counts as listed, and is newer than what it hides. One that is pruned in between counts as missing:
    see `without_removed`.
    """
    missing = {name: about.streams - listed.get(name, 0) for name, about in stored.items()}
    return {name: count for name, count in missing.items() if count > 0}


async def without_removed(link: Link, before: Mapping[str, DatasetStatus]) -> dict[str, DatasetStatus]:
    """Return the statuses without the streams that were pruned or merged since: `streams` is the lower number of then
    and now. Raises: as Link.receive.
    """
    _now, after = await statuses(link)
    left = {name: after[name].streams if name in after else 0 for name in before}
    return {name: said.model_copy(update={"streams": min(said.streams, left[name])}) for name, said in before.items()}


async def all_stored(link: Link) -> tuple[list[StreamEntry], dict[str, DatasetStatus]]:
    """Return all entries, and the statuses from before them: what comes meanwhile is newer than these.

    Raises: as Link.receive.
    """
    _now, said = await statuses(link)
    found = [entry async for entry in entries(link, None)]
    if unlisted(said, Counter(entry.dataset for entry in found)):
        said = await without_removed(link, said)
    return found, said


def is_of_copy(entry: StreamEntry, about: DatasetStatus) -> bool:
    """Whether a stream of another dataset on the newest state of this one shows that the other one is a copy, such as a
    replica, and not this one's new name: this one was reported unchanged after the stream was received.

    `about`: the receiver's status of this dataset.
    """
    return (
        about.unchanged is not None
        and about.guid is not None
        and entry.base_guid == about.guid
        and entry.received < about.unchanged
    )


def why_unlisted(count: int) -> str:
    """Return the text for the user about a dataset of which `count` manifests and folders cannot be read."""
    what = "manifest or folder is" if count == 1 else "manifests or folders are"
    return f"{count} {what} missing or unreadable at the receiver (`fullsendd verify` there mends or names each)"


async def drills(link: Link) -> dict[str, DrillEntry]:
    """Return by name the last restore drill of each dataset. An older receiver knows none: PeerError with the code
    PROTOCOL ends the connection. Raises: as Link.receive.
    """
    pages = link.pages(messages.DrillsWanted(), messages.Drills)
    return {each.dataset: each async for page in pages for each in page.drills}


async def bases(link: Link) -> list[Base]:
    """Return the streams on which increments can build. Raises: as Link.receive."""
    found, _damaged = await bases_and_damaged(link)
    return found


async def bases_and_damaged(link: Link) -> tuple[list[Base], list[DamagedEntry]]:
    """Return the streams on which increments can build, and those that are damaged, as of one moment. An older receiver
    names no damaged ones. Raises: as Link.receive.
    """
    found: list[Base] = []
    damaged: list[DamagedEntry] = []
    async for page in link.pages(messages.BasesWanted(), messages.Bases):
        found += page.bases
        damaged += page.damaged
    return found, damaged
