"""Finds datasets whose chains grow without end. No I/O.

Every stream of a chain is needed by the newest one. So a receiver that merges nothing can drop nothing of it, whatever
its policy says, before a new full begins another chain. One that merges keeps as many streams as its policy keeps
snapshots.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared.units import format_time, plural
from fullsend_sender.host.options import FullAfter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fullsend_protocol.wire.messages import Base

#: Streams from which on a chain is called long: a quarter of a year of nights. A restore reads all of them.
LONG: Final = 100
#: Datasets that are named one by one. A host may have thousands.
_NAMED: Final = 5


def endless_chains(bases: Iterable[Base], full_after: Callable[[str], FullAfter]) -> list[Base]:
    """Return the last streams of long chains that no setting ends, the longest first.

    `bases`: all that the receiver has of this host; `full_after`: the setting of a dataset.
    """
    newest: dict[str, Base] = {}
    for base in bases:
        # All streams of a chain have the age of its full, and a dataset grows at its youngest chain.
        other = newest.setdefault(base.dataset, base)
        if (-base.age, base.streams) > (-other.age, other.streams):
            newest[base.dataset] = base
    found = [each for each in newest.values() if each.streams >= LONG and full_after(each.dataset) == FullAfter()]
    return sorted(found, key=lambda each: (-each.streams, each.dataset))


def hints(chains: list[Base], receiver: str, now: float) -> list[tuple[str, str]]:
    """Return what to say about these chains: each a name and a text, the last one about all that are not named.

    `receiver`: its name; `now`: seconds since the epoch, by its clock.
    """
    said = []
    for each in chains[:_NAMED]:
        since = format_time(now - each.age)[:10]
        text = (
            f"chain of {plural(each.streams, 'stream')} on {receiver} since {since}: nothing of it can go before a new"
            " full, or a merge there: let the receiver merge, by a policy ([retention]); or set full-after, or run"
            f" fullsend push --full {each.dataset}"
        )
        said.append((each.dataset, text))
    more = chains[_NAMED:]
    if more:
        text = f"have chains of {LONG} to {more[0].streams} streams on {receiver}, and no full-after either"
        said.append((plural(len(more), "more dataset"), text))
    return said
