"""Which stored state of a dataset is the newest: who builds on whom, then the order of reception. No I/O.

A sender's clock decides nothing here. A host that wakes up in 2021 sends increments that are older than their full by
its clock, and newer by every other measure (sanoid issue 815).

The receiver numbers what it commits: `sequence`. Its own clock (`received`) orders only what has no number: streams
that an older fullsendd has stored, and manifests that were rebuilt. All of these are older than what has one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable


class Received(Protocol):
    """What a stored stream has that orders it: see manifest.Manifest."""

    @property
    def guid(self) -> str: ...
    @property
    def base_guid(self) -> str | None: ...
    @property
    def received(self) -> str: ...
    @property
    def sequence(self) -> int | None: ...


_S = TypeVar("_S", bound=Received)


def reception(stream: Received) -> tuple[int, str]:
    """Return what orders streams of one sender by reception."""
    return stream.sequence or 0, stream.received


def ends(streams: Iterable[_S]) -> list[_S]:
    """Return the ends of the chains of one dataset, in the order of reception: the last one is its newest state.

    `streams`: all of the dataset, or those of them that count. An end is a snapshot on which none of them builds. A
    snapshot that is stored several times (as a full and as an increment, raw and plain) is one end, and counts as of
    when it came first; returned is the stream that came first.
    """
    everything = sorted(streams, key=reception)
    bases = {each.base_guid for each in everything}
    first: dict[str, _S] = {}
    for each in everything:
        if each.guid not in bases:
            first.setdefault(each.guid, each)
    return list(first.values())
