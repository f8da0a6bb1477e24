"""After pushes: release holds that are not needed, and destroy fullsend's outdated snapshots and bookmarks."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from fullsend_sender.push import naming, retention
from fullsend_sender.zfs.commands import ZfsError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from fullsend_protocol.format.manifest import PartialEntry
    from fullsend_protocol.shared.errors import FullsendError
    from fullsend_sender.push.job import PushItem, PushJob
    from fullsend_sender.zfs.inventory import Dataset, Snapshot

_log: Final = logging.getLogger("fullsend.push")

#: Outdated snapshots of a dataset that pile up, if none can be destroyed. A single one may have a clone, on purpose.
_PILE: Final = 2


class EndedPush(NamedTuple):
    """A stream of which nothing more is sent in this run. `snapshot`: its own (after the @); `stored`: at the receiver,
    as its receipt says.
    """

    item: PushItem
    snapshot: str
    stored: bool


async def prune_source(
    job: PushJob,
    ended: Sequence[EndedPush],
    partials: Sequence[PartialEntry],
    tag: str,
    piles: dict[str, FullsendError],
) -> list[tuple[str, Exception]]:
    """Release holds that are no longer needed, and destroy fullsend's outdated snapshots and bookmarks.

    `ended`: streams whose datasets are all different, and of one pool; `partials`: the partial streams when this run
    began. Their snapshots stay, and stay held; so do those of a stream that is not stored. `tag`: of this run's holds.
    A failure of `zfs` here does not fail the push, nor keep other datasets from this: the next run tries again. `piles`
    gets, by its name, each dataset of whose outdated snapshots, two or more, none could be destroyed; with the reason.

    Returns: by the streams' datasets, the errors of other classes, which are failures of one dataset each.
    """
    needed = [retention.Needed(_partials_left(each, partials)) for each in ended]
    # Before anything is destroyed: a snapshot with a hold cannot be.
    holds = [
        _HoldsOf(dataset, of, None if each.stored else tag, each.snapshot)
        for each, of in zip(ended, needed, strict=True)
        for dataset in each.item.tree
    ]
    try:
        await _release_unneeded(job, holds)
    except Exception as error:  # noqa: BLE001 - of any class, it is a failure of one dataset
        if len(ended) == 1:
            return [(ended[0].item.name, error)]
        return [failure for each in ended for failure in await prune_source(job, [each], partials, tag, piles)]
    failures: list[tuple[str, Exception]] = []
    for each, of in zip(ended, needed, strict=True):
        try:
            await _destroy_outdated(job, each, of, piles)
        except Exception as error:  # noqa: BLE001 - as above
            failures.append((each.item.name, error))
    return failures


def _partials_left(ended: EndedPush, partials: Sequence[PartialEntry]) -> Sequence[PartialEntry]:
    own = (ended.item.name, ended.snapshot)
    return [each for each in partials if (each.dataset, each.snapshot) != own] if ended.stored else partials


async def _destroy_outdated(
    job: PushJob, ended: EndedPush, needed: retention.Needed, piles: dict[str, FullsendError]
) -> None:
    item = ended.item
    base = item.send.base
    common = {item.common, base.guid if base else None}
    if ended.stored:  # the newest of what is stored now
        snapshots = item.send.dataset.snapshots
        known = [each.guid for each in snapshots if each.guid in common or each.name == ended.snapshot]
        common = set(known[-1:])
    for dataset in item.tree:
        old = retention.outdated_snapshots(dataset, job.receiver, item.options.keep, needed, common)
        if not ended.stored and job.request.package:
            old = []  # it may have arrived in part
        errors = list((await job.zfs.destroy_snapshots(dataset.name, [each.name for each in old])).values())
        for error in errors:
            _not_cleaned_up(dataset.name, error)
        if len(errors) == len(old) >= _PILE:
            piles[dataset.name] = errors[0]
        # Even if they could not be destroyed: nothing must build on them any more.
        dataset.snapshots = [each for each in dataset.snapshots if each not in old]
        for mark in retention.outdated_bookmarks(dataset, job.receiver, needed):
            with _logged(dataset.name):
                await job.zfs.destroy_bookmark(f"{dataset.name}#{mark.name}")
            dataset.bookmarks.remove(mark)


@dataclass(frozen=True, slots=True)
class _HoldsOf:
    """The holds of a dataset's snapshots. `tag`: of this run, if its stream is not stored: its snapshots stay held by
    that tag, and by no other.
    """

    dataset: Dataset
    needed: retention.Needed
    tag: str | None
    snapshot: str

    def names(self) -> list[str]:
        """Return the snapshots whose holds matter."""
        if self.tag is None:
            return [self._full(each) for each in self.dataset.snapshots if not self.needed.has(self.dataset, each)]
        return [self._full(each) for each in self.dataset.snapshots if each.userrefs or each.name == self.snapshot]

    def needless(self, held: Collection[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return those of the holds on `names`, each a snapshot and a tag, that are not needed."""
        unneeded = {
            self._full(each)
            for each in self.dataset.snapshots
            if (self.tag is None or each.userrefs) and not self.needed.has(self.dataset, each)
        }
        return [(name, of) for name, of in held if of != self.tag and (name in unneeded or (name, self.tag) in held)]

    def _full(self, snapshot: Snapshot) -> str:
        return f"{self.dataset.name}@{snapshot.name}"


async def _release_unneeded(job: PushJob, datasets: Sequence[_HoldsOf]) -> None:
    """Release the holds on these datasets' snapshots that are not needed."""
    names = [each.names() for each in datasets]
    try:
        held = await _holds(job, [name for of in names for name in of])
    except ZfsError as error:
        if len(datasets) == 1:
            _not_cleaned_up(datasets[0].dataset.name, error)
        else:
            for each in datasets:
                await _release_unneeded(job, [each])
        return
    by_dataset: dict[str, list[tuple[str, str]]] = {}
    for name, tag in held:
        by_dataset.setdefault(name.partition("@")[0], []).append((name, tag))
    await _release(job, [hold for each in datasets for hold in each.needless(by_dataset.get(each.dataset.name, []))])


async def release_stale_holds(job: PushJob, unchanged: Sequence[Dataset], partials: Sequence[PartialEntry]) -> None:
    """Release the holds that a run has left which was killed after its receipt. For a dataset that changes, the next
    push does it. `partials`: their snapshots stay held.
    """
    needed = retention.Needed(partials)
    held = [
        f"{dataset.name}@{each.name}"
        for dataset in unchanged
        for each in dataset.snapshots
        if each.userrefs and not needed.has(dataset, each)
    ]
    with _logged("what is unchanged"):
        await _release(job, await _holds(job, held))


async def _holds(job: PushJob, snapshots: Sequence[str]) -> list[tuple[str, str]]:
    """Return (snapshot, tag) of this run's holds, and of those that earlier runs for this receiver have left.

    Raises: ZfsError.
    """
    prefix = naming.hold_prefix(job.receiver)
    return [(name, tag) for name, tag in await job.zfs.holds(snapshots) if tag.startswith(prefix)]


async def _release(job: PushJob, holds: Iterable[tuple[str, str]]) -> None:
    """Release these holds, each a snapshot and a tag. If one cannot be released, the others are."""
    by_tag: dict[str, list[str]] = {}
    for name, tag in holds:
        by_tag.setdefault(tag, []).append(name)
    for tag, names in by_tag.items():
        try:
            await job.zfs.release(tag, names)
        except ZfsError as error:
            for dataset in dict.fromkeys(name.partition("@")[0] for name in error.about(names)):
                _not_cleaned_up(dataset, error)


def _not_cleaned_up(dataset: str, error: ZfsError) -> None:
    """Log a failure. It fails no push: the next run tries again."""
    _log.info("%s: not cleaned up: %s", dataset, error)


@contextlib.contextmanager
def _logged(dataset: str) -> Iterator[None]:
    """Log a failure inside."""
    try:
        yield
    except ZfsError as error:
        _not_cleaned_up(dataset, error)
