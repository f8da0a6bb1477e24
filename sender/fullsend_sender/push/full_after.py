"""Decides when a chain has grown so long that a new full begins another one: the setting `full-after`. No I/O.

Many datasets may be uploaded on one day. If all of them used the limit itself, all of them would send a full in one
night. So each chain has a limit of its own, in the last third of the configured one. It follows from the GUID of the
snapshot in the chain's full: it stays the same as long as the chain lives, and the next chain gets another one. (With
one limit for ever, datasets that send a full every 60 and every 90 nights would meet again every 180 nights.)

A chain may also be far above its limit, for example on the day when `full-after` is set for the first time. Such chains
must not all end in that night either. So a chain ends when it *passes* its own limit, or passes that limit plus a
multiple of a third of the configured one. A chain that is far above its limit so ends within the next third. If a full
fails, the chain does not change, and the next push tries the full again.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared.units import format_duration, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fullsend_protocol.wire.messages import Base
    from fullsend_sender.host.options import FullAfter

#: The part of a limit over which the fulls of many datasets are spread.
_SPREAD: Final = 1 / 3
#: Seconds by which the time since the last push is taken as longer. A push plans first, and takes its snapshot later: a
#: limit that is passed between the two would be missed. More seconds than needed do no harm, because a chain that was
#: due at the last push has ended, or is due still.
#: A time below this is not believed: a host without a battery may start each night with the same time.
_MARGIN: Final = 3600.0


def describe(base: Base) -> str:
    """Return the length and the age of the chain that ends with `base`, for a person."""
    return f"its chain has {plural(base.streams, 'stream')}, and its full is {format_duration(base.age)} old"


def why_too_long(limit: FullAfter, chain: Sequence[Base], since: float) -> str:
    """Return why a chain must not grow; "" if it may.

    `chain`: its streams as far as they are known, the newest first; `since`: seconds since the snapshot of the newest
    was taken, by this host's clock. All ages are by the receiver's clock. This host's clock only tells how much of an
    age is new: an error can only move the end of a chain that is far above its limit, within the next third.
    """
    base, part = chain[0], _part(chain[-1].base_guid or chain[-1].guid)
    if limit.streams is not None:
        step = math.floor(limit.streams * _SPREAD) + 1
        own = limit.streams - math.floor(part * step)
        if _passed(base.streams - 1, base.streams, own, step):
            return _reason(base, "streams", str(limit.streams), str(own))
    if limit.age is not None:
        step_s = limit.age * _SPREAD
        own_s = limit.age - part * step_s
        new = since if since > _MARGIN else base.age / base.streams  # on average
        if _passed(base.age - new - _MARGIN, base.age, own_s, step_s):
            return _reason(base, "age", format_duration(limit.age), format_duration(own_s))
    if limit.increments is not None:
        full, before = max(base.full_bytes, 1), chain[1].increment_bytes if len(chain) > 1 else 0
        step_x = limit.increments * _SPREAD
        own_x = limit.increments - part * step_x
        if _passed(before / full, base.increment_bytes / full, own_x, step_x):
            is_now = f", and its increments are {base.increment_bytes / full:.2f} times it"
            return _reason(base, "increments", f"{limit.increments:.2f}", f"{own_x:.2f}", is_now)
    return ""


def _part(guid: str) -> float:
    """Return a number in [0, 1): always the same for a GUID (decimal), and evenly distributed over many."""
    # A float's mantissa has 53 bits. With more of them the quotient could be rounded to 1.
    return (int.from_bytes(hashlib.sha256(guid.encode()).digest()[:8], "big") >> 11) / (1 << 53)


def _passed(before: float, now: float, own: float, step: float) -> bool:
    """Whether a value that was `before` at the last push has reached `own`, `own` + `step`, `own` + 2 `step` ..."""
    if now < own:
        return False
    return step <= 0 or math.floor((now - own) / step) > math.floor((before - own) / step)


def _reason(base: Base, what: str, limit: str, own: str, is_now: str = "") -> str:
    mine = "" if own == limit else f" ({own} for this chain)"
    return f"{describe(base)}{is_now}: full-after says {what} {limit}{mine}"
