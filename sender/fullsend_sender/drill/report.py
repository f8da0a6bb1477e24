"""Asks the receiver for the last drills, and reports one. An older receiver knows neither: one line says so."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import ErrorCode, FullsendError, PeerError
from fullsend_protocol.shared.units import printable
from fullsend_protocol.wire import messages
from fullsend_sender.transfer import listing
from fullsend_sender.transfer.link import connect
from fullsend_sender.transfer.retry import RetryTimer

if TYPE_CHECKING:
    from fullsend_protocol.format.manifest import StreamEntry
    from fullsend_sender.host.identity import Identity
    from fullsend_sender.host.options import Endpoint

_log: Final = logging.getLogger("fullsend.drill")


async def last_drills(endpoint: Endpoint, identity: Identity) -> dict[str, messages.DrillEntry]:
    """Return by name the last drill of each dataset; of an older receiver: none. Raises: as Link.receive."""
    try:
        # On a connection of its own: an older receiver ends it.
        async with connect(endpoint, identity) as (link, _name):
            return await listing.drills(link)
    except PeerError as error:
        if error.code is not ErrorCode.PROTOCOL:
            raise
        _log.info("%s keeps no results of drills: %s", endpoint.name, printable(str(error)))
        return {}


async def report(
    endpoint: Endpoint,
    identity: Identity,
    entry: StreamEntry,
    *,
    ok: bool,
    compared: messages.DrillExtent,
    text: str,
    seconds: float,
    raw_bytes: int,
    files: int,
    retry_for: float,
) -> bool:
    """Tell the receiver the result of a drill. A lost receiver is waited for, for `retry_for` seconds.

    Returns: whether the receiver has recorded it; False: it is too old, which was logged. Raises: FullsendError.
    """
    said = messages.Drilled(
        dataset=entry.dataset,
        snapshot=entry.snapshot,
        guid=entry.guid,
        ok=ok,
        compared=compared,
        text=text[: limits.DRILL_TEXT_MAX],
        milliseconds=round(seconds * 1000),
        raw_bytes=raw_bytes,
        files=files,
    )
    timer = RetryTimer(retry_for)
    while True:
        try:
            async with connect(endpoint, identity) as (link, _name):
                await link.ask(said, messages.Noted)
                return True
        except PeerError as error:
            if error.code is ErrorCode.PROTOCOL:
                _log.warning(
                    "%s is older and keeps no results of drills; this one is known here alone: update fullsendd there",
                    endpoint.name,
                )
                return False
            failure: FullsendError = error
        except FullsendError as error:
            failure = error
        await timer.wait(failure)
