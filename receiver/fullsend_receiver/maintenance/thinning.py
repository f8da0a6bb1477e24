"""Which stored streams can be merged into the one that builds on them. Pure: no I/O, no clock; docs/retention.md.

A stream *vanishes* if it stays only as a base, and exactly one stream builds on it: its records go into that one, and
its snapshot can no longer be restored. Several that follow one another vanish at once, in one merge.

At the foot of a chain is a full. To move it forward writes all of it anew. So this waits until the increments that it
would swallow are a share of it (`rebase-after`), or until the disk is wanted.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from fullsend_protocol.format.chains import Forest
from fullsend_receiver.catalogue.rows import Summary

#: Inputs of one merge. Each holds a decoded chunk of up to 20 MiB. A longer run takes several merges.
INPUTS_MAX: Final = 8


class Merge(NamedTuple):
    """Streams that become one. `inputs`: the oldest first, each builds on the one before it. The result has the base of
    the first one, and the snapshot of the last one.
    """

    inputs: tuple[Summary, ...]

    @property
    def target(self) -> Summary:
        """The stream whose place the result takes."""
        return self.inputs[-1]

    @property
    def moves_full(self) -> bool:
        """Whether it moves a full forward."""
        return self.inputs[0].base_guid is None

    @property
    def stored_bytes(self) -> int:
        """Stored bytes of the inputs: so much is read, and at most so much is written."""
        return sum(each.stored_bytes for each in self.inputs)

    @property
    def raw_bytes(self) -> int:
        """Raw bytes of the inputs."""
        return sum(each.raw_bytes for each in self.inputs)

    @property
    def largest(self) -> int:
        """Stored bytes of the largest input: about so many has the result if all inputs change the same blocks."""
        return max(each.stored_bytes for each in self.inputs)

    @property
    def freed_at_most(self) -> int:
        """Stored bytes that it frees in that case; if the inputs share no block, it frees nothing."""
        return self.stored_bytes - self.largest


@dataclass(frozen=True, slots=True)
class Thinning:
    """What may be merged. `rebase_after`: see above, a share of the full's stored bytes; `disk_wanted`: whether the
    disk is nearly full; `refused`: by the files of an input and the stream on it, why a merge of both is not possible.
    """

    rebase_after: float = 0.3
    disk_wanted: bool = False
    refused: Mapping[tuple[str, str], str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Candidates:
    """What is known of a part's streams, by file. `only_bases`: they stay for another stream alone; `untouchable`: they
    must not change; `going`: they are dropped, so nothing waits for them; `restorable`: they can be restored.
    """

    only_bases: AbstractSet[str]
    untouchable: AbstractSet[str]
    going: AbstractSet[str]
    restorable: AbstractSet[Hashable]


def find_merges(
    forest: Forest[Summary], candidates: Candidates, thinning: Thinning
) -> tuple[list[Merge], dict[str, str]]:
    """Return the merges that are due, and why each other stream that stays only as a base is not merged, by file."""
    vanishing: dict[str, Summary] = {}
    why: dict[str, str] = {}
    for each in forest.streams:
        if each.path in candidates.only_bases:
            found = _successor(forest, each, candidates, thinning.refused)
            if isinstance(found, str):
                why[each.path] = found
            else:
                vanishing[each.path] = found
    merges = []
    for run in _runs(forest, vanishing):
        first = run[0]
        if first.base_guid is not None:
            merges.append(Merge(tuple(run[:INPUTS_MAX])))
            continue
        swallowed = sum(each.stored_bytes for each in run[1:])
        if swallowed > thinning.rebase_after * first.stored_bytes or thinning.disk_wanted:
            # Of a long run the increments first: the full is written once.
            merges.append(Merge(tuple(run if len(run) <= INPUTS_MAX else run[1 : INPUTS_MAX + 1])))
            continue
        share = swallowed / first.stored_bytes if first.stored_bytes else 0.0
        why[first.path] = f"it moves forward when the increments on it have {thinning.rebase_after:.0%} of it, not"
        why[first.path] += f" {share:.0%}"
        if len(run) > 2:  # noqa: PLR2004 - the full, and two increments that become one
            merges.append(Merge(tuple(run[1 : INPUTS_MAX + 1])))
    return merges, why


def _successor(
    forest: Forest[Summary], stream: Summary, candidates: Candidates, refused: Mapping[tuple[str, str], str]
) -> Summary | str:
    """Return the stream into which this one can be merged, or why it can not."""
    if stream.path in candidates.untouchable or stream.path not in candidates.restorable:
        return "it must not change now"
    if stream.kind == "package":
        return "a package is not merged"
    if len(forest.of_guid(stream.guid)) > 1:
        return "its snapshot is stored more than once"
    after = [each for each in forest.built_on(stream.guid) if each.path not in candidates.going]
    if len(after) != 1:
        return f"{len(after)} streams build on it"
    (child,) = after
    if child.kind == "package":
        return f"{child.snapshot}, which builds on it, is a package"
    if child.dataset != stream.dataset:
        return f"{child.dataset}@{child.snapshot}, which builds on it, is of another dataset"
    # It is restorable on this one alone, so its class and flags fit.
    if child.path in candidates.untouchable or child.path not in candidates.restorable:
        return f"{child.snapshot}, which builds on it, must not change now"
    if len(forest.of_guid(child.guid)) > 1:
        return f"{child.snapshot}, which builds on it, is stored more than once"
    return refused.get((stream.path, child.path), child)


def _runs(forest: Forest[Summary], vanishing: Mapping[str, Summary]) -> Iterator[list[Summary]]:
    """Yield the vanishing streams that follow one another, each run with the stream that it ends in. No two vanishing
    streams have the same successor, since it builds on one snapshot, which is stored once. Nor is there a circle: all
    are restorable.
    """
    inside = {each.path for each in vanishing.values()}
    for each in forest.streams:
        if each.path in vanishing and each.path not in inside:
            run = [each]
            while run[-1].path in vanishing:
                run.append(vanishing[run[-1].path])
            yield run
