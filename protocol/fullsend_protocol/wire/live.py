"""A transfer that is under way, as `top` shows it: what the daemon tells a command, and what a push tells `fullsend
top`.

Nothing of this crosses a network.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from fullsend_protocol.format.manifest import Offset, WireModel
from fullsend_protocol.shared import limits
from fullsend_protocol.shared.stages import TransferCount

Activity = Literal["push", "restore", "verify", "scrub", "merge", "prune", "drill"]

#: Characters of DATASET@SNAPSHOT, or of a file's path.
_WHAT_MAX: Final = 2 * limits.NAME_MAX + 1024
_Stage = Annotated[str, Field(min_length=1, max_length=32)]
_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class LiveTransfer(WireModel):
    """One transfer. `id`: the same for each look at it; `peer`: the sender's name, on the ZFS host the receiver's, "":
    of all; `what`: the stream; `raw_bytes`, `wire_bytes`: so far, raw and on the wire or in the store; `before`: raw
    bytes that were there when it began; `size`: expected raw bytes, None: unknown; `seconds`: since it began; `waited`:
    seconds that it waited for each stage; `away`: the other side is away.

    Where only stored bytes are known, as of checks, they stand for raw ones.
    """

    id: Annotated[str, Field(max_length=64)]
    activity: Activity
    peer: Annotated[str, Field(max_length=64)]
    what: Annotated[str, Field(max_length=_WHAT_MAX)]
    raw_bytes: Offset
    wire_bytes: Offset
    before: Offset = 0
    size: Offset | None
    seconds: _Seconds
    waited: Annotated[dict[_Stage, _Seconds], Field(max_length=16)]
    away: bool = False

    @classmethod
    def of(  # noqa: PLR0917 - it is what there is to say of one
        cls, id_: str, activity: Activity, peer: str, what: str, count: TransferCount, now: float, *, away: bool = False
    ) -> LiveTransfer:
        """Return what is to be told of a transfer. `now`: seconds, by the clock of `count`."""
        return cls(
            id=id_,
            activity=activity,
            peer=peer,
            # What is not Unicode in a file's name is escaped.
            what=what.encode(errors="backslashreplace").decode()[:_WHAT_MAX],
            raw_bytes=count.raw,
            wire_bytes=count.wire,
            before=count.before,
            size=count.size,
            seconds=max(0.0, now - count.began),
            waited=count.waited(),
            away=away,
        )
