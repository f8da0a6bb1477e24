"""Warnings about spill blocks that `zfs receive` loses (records.EmbeddedSpill)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.units import plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fullsend_protocol.format.manifest import LostSpill

_ISSUE: Final = "openzfs issue 18239"


def count_said(count: int) -> str:
    """Return the number as text. `count`: at least 1; of one stream EMBEDDED_SPILLS_MAX means so many or more."""
    return f"{plural(count, 'spill block')}{' or more' if count >= limits.EMBEDDED_SPILLS_MAX else ''}"


def restoring_loses(count: int) -> str:
    """Return what a restore loses, and why, as text."""
    return f"`zfs receive` loses {count_said(count)} of it, with exit 0 ({_ISSUE})"


def warnings(spills: Iterable[LostSpill]) -> Iterator[str]:
    """Yield a line for each named snapshot: which objects lose what, and the way out."""
    by_snapshot: dict[str, list[str]] = {}
    for spill in spills:
        by_snapshot.setdefault(spill.snapshot, []).append(str(spill.object))
    for snapshot, objects in by_snapshot.items():
        dataset = snapshot.partition("@")[0]
        yield (
            f"{snapshot}: {restoring_loses(len(objects))}: object {', '.join(objects)} loses a symlink's target or"
            f" extended attributes; send {dataset} without -e (`embedded`) and -w (`raw`), and push a full of it"
            " (--full)"
        )
