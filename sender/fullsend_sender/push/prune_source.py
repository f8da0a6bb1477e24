"""After a push: release holds that are not needed, and destroy fullsend's outdated snapshots and bookmarks."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Final

from fullsend_sender.push import naming, retention
from fullsend_sender.zfs.commands import ZfsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fullsend_protocol.format.manifest import PartialEntry
    from fullsend_sender.push.job import PushItem, PushJob
    from fullsend_sender.zfs.inventory import Dataset

_log: Final = logging.getLogger("fullsend.push")


async def prune_source(
    job: PushJob, item: PushItem, partials: Sequence[PartialEntry], *, snapshot: str, tag: str, stored: bool
) -> None:
    """Release holds that are no longer needed, and destroy fullsend's outdated snapshots and bookmarks.

    `partials`: the partial streams when this run began. Their snapshots stay, and stay held; so do those of this
    stream, if it is not stored. `snapshot`: the stream's own (after the @); `tag`: of this run's holds. A failure of
    `zfs` here does not fail the push: the next run tries again.
    """
    if stored:
        partials = [each for each in partials if (each.dataset, each.snapshot) != (item.name, snapshot)]
    needed = retention.Needed(partials)
    base = item.send.base
    common = {item.common, base.guid if base else None}
    if stored:  # the newest of what is stored now
        known = [each.guid for each in item.send.dataset.snapshots if each.guid in common or each.name == snapshot]
        common = set(known[-1:])
    for dataset in item.tree:
        old = retention.outdated_snapshots(dataset, job.receiver, item.options.keep, needed, common)
        if not stored and job.request.package:
            old = []  # it may have arrived in part
        with _logged(dataset.name):
            await _release_of(job, dataset, needed, snapshot, tag=None if stored else tag)
        with _logged(dataset.name):
            await _destroy(job, dataset.name, [each.name for each in old])
        # Even if they could not be destroyed: nothing must build on them any more.
        dataset.snapshots = [each for each in dataset.snapshots if each not in old]
        for mark in retention.outdated_bookmarks(dataset, job.receiver, needed):
            with _logged(dataset.name):
                await job.zfs.destroy_bookmark(f"{dataset.name}#{mark.name}")
            dataset.bookmarks.remove(mark)


async def _release_of(
    job: PushJob, dataset: Dataset, needed: retention.Needed, snapshot: str, *, tag: str | None
) -> None:
    """Release the holds on a dataset's snapshots that are not needed. `tag`: of this run, if its stream is not stored:
    its snapshots stay held by that tag, and by no other. Raises: ZfsError.
    """
    if tag is None:
        unneeded = {each.name for each in dataset.snapshots if not needed.has(dataset, each)}
        looked_at = unneeded
    else:
        unneeded = {each.name for each in dataset.snapshots if each.userrefs and not needed.has(dataset, each)}
        looked_at = {each.name for each in dataset.snapshots if each.userrefs or each.name == snapshot}
    names = [f"{dataset.name}@{each.name}" for each in dataset.snapshots if each.name in looked_at]
    held = await _holds(job, names)
    needless = [
        (name, of) for name, of in held if of != tag and (name.partition("@")[2] in unneeded or (name, tag) in held)
    ]
    await _release(job, needless)


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


async def _destroy(job: PushJob, dataset: str, names: Sequence[str]) -> None:
    """Destroy snapshots that can be destroyed: one with a clone must not keep the others."""
    if not names:
        return
    try:
        await job.zfs.destroy_snapshots(dataset, names)
    except ZfsError:
        if len(names) == 1:
            raise
        for name in names:
            with _logged(dataset):
                await job.zfs.destroy_snapshots(dataset, [name])


async def _holds(job: PushJob, snapshots: Sequence[str]) -> list[tuple[str, str]]:
    """Return (snapshot, tag) of this run's holds, and of those that earlier runs for this receiver have left.

    Raises: ZfsError.
    """
    prefix = naming.hold_prefix(job.receiver)
    return [(name, tag) for name, tag in await job.zfs.holds(snapshots) if tag.startswith(prefix)]


async def _release(job: PushJob, holds: Iterable[tuple[str, str]]) -> None:
    """Release these holds, each a snapshot and a tag. Raises: ZfsError."""
    by_tag: dict[str, list[str]] = {}
    for name, tag in holds:
        by_tag.setdefault(tag, []).append(name)
    for tag, names in by_tag.items():
        await job.zfs.release(tag, names)


@contextlib.contextmanager
def _logged(dataset: str) -> Iterator[None]:
    """Log a failure inside. It fails no push: the next run tries again."""
    try:
        yield
    except ZfsError as error:
        _log.info("%s: not cleaned up: %s", dataset, error)
