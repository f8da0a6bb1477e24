"""`fullsend push --dry-run`: the commands that a push would run. Changes nothing."""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from fullsend_protocol.format.manifest import copied
from fullsend_protocol.shared.units import format_size
from fullsend_protocol.wire.messages import Base
from fullsend_sender.push import naming, retention
from fullsend_sender.push.plan import StoredBases
from fullsend_sender.push.targets import choose, gone, leave_unfinished_restores, make_plan, repairs
from fullsend_sender.transfer.link import connect
from fullsend_sender.transfer.listing import bases_and_damaged, partials
from fullsend_sender.zfs.inventory import Dataset, Snapshot

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from fullsend_protocol.format.manifest import PartialEntry
    from fullsend_protocol.wire.messages import DamagedEntry
    from fullsend_sender.push.job import PushItem, PushJob, PushPlan
    from fullsend_sender.push.targets import ChosenDatasets

_log: Final = logging.getLogger("fullsend.push")

#: The GUID of a snapshot that is not taken yet.
_NOT_KNOWN: Final = "0"


async def dry_run(job: PushJob) -> tuple[PushPlan, list[str]]:
    """Plan a push; change nothing. Returns: the plan, and the commands as text for a shell."""
    chosen = await choose(job)
    chosen.warn(_log)
    async with connect(job.endpoint, job.identity) as (link, _name):
        stored, damaged = await bases_and_damaged(link)
        arrived, now = await partials(link), time.time()
        again = _again(job, chosen, stored, damaged, arrived)
        bases = StoredBases(stored, damaged)
        plan = make_plan(job, chosen, bases, arrived, now)
        await leave_unfinished_restores(job, plan, bases)
        plan.items = again + plan.items
        plan.failures += await gone(link, job, chosen, stored)
    plan.failures = chosen.failures + plan.failures
    name, _wait = plan.new_name(job.receiver, now)
    return plan, [line async for line in _lines(job, plan, name)]


def _again(
    job: PushJob,
    chosen: ChosenDatasets,
    stored: list[Base],
    damaged: Sequence[DamagedEntry],
    arrived: Sequence[PartialEntry],
) -> list[PushItem]:
    """Return the damaged streams that the push would send again, in order. They are added to `stored`: what is new may
    build on them.
    """
    items: list[PushItem] = []
    tried: set[object] = set()
    while found := repairs(job, chosen, StoredBases(stored, damaged), arrived, tried):
        items += found
        mended = {each.guid for each in stored}
        stored += [
            copied(Base, each, streams=1, age=0, full_bytes=each.raw_bytes, increment_bytes=0)
            for each in damaged
            if each.identity in tried and each.guid not in mended
        ]
    return items


async def _lines(job: PushJob, plan: PushPlan, name: str) -> AsyncGenerator[str]:
    """Yield the commands in their order. `name`: of new snapshots (after the @)."""
    zfs, tag, package, needed = (
        job.zfs,
        naming.hold_tag(job.receiver),
        job.request.package,
        retention.Needed(plan.partials),
    )
    for pool in dict.fromkeys(item.send.dataset.pool for item in plan.new):
        items = [item for item in plan.new if item.send.dataset.pool == pool]
        names = [f"{item.name}@{name}" for item in items]
        for line in [("-r", each) for each in names] if package else [names]:
            yield zfs.line("snapshot", *line)
        yield zfs.line("hold", tag, *(each for item in items for each in (*item.names(name), *item.held_base)))
    cleaned: dict[str, list[tuple[list[str], list[Dataset], PushItem]]] = {}  # by pool
    for item in plan.items:
        snapshot = item.send.snapshot or Snapshot(name, _NOT_KNOWN, sys.maxsize, 0, 0, 0)
        held = [*item.held_base, *item.names(snapshot.name)]
        if item.send.snapshot is not None:
            yield zfs.line("hold", tag, *held)
        yield f"{zfs.line('send', *item.send.arguments(snapshot.name))}  # {await _expected(job, item)}"
        mark = snapshot._replace(name=naming.bookmark_name(job.receiver, snapshot.guid))
        if not package and all(each.name != mark.name for each in item.send.dataset.bookmarks):
            said = f"fullsend-{job.receiver}-GUID" if snapshot.guid == _NOT_KNOWN else mark.name
            yield zfs.line("bookmark", f"{item.name}@{snapshot.name}", f"{item.name}#{said}")
        later = [_later(dataset, snapshot, None if package else mark) for dataset in item.tree]
        cleaned.setdefault(item.send.dataset.pool, []).append((held, later, item))
    # Of a long push some of it comes sooner: behind the streams of each second (cleaner.py).
    for of_pool in cleaned.values():
        yield zfs.line("release", tag, *(each for held, _tree, _item in of_pool for each in held))
        for _held, tree, item in of_pool:
            for dataset in tree:
                old = retention.outdated_snapshots(dataset, job.receiver, item.options.keep, needed)
                if old:
                    yield zfs.line("destroy", f"{dataset.name}@{','.join(each.name for each in old)}")
                for each in retention.outdated_bookmarks(dataset, job.receiver, needed):
                    yield zfs.line("destroy", f"{dataset.name}#{each.name}")


def _later(dataset: Dataset, snapshot: Snapshot, mark: Snapshot | None) -> Dataset:
    """Return a dataset in the state after this snapshot is stored. `mark`: its bookmark, None: it gets none."""
    snapshots, bookmarks = list(dataset.snapshots), list(dataset.bookmarks)
    if snapshot.guid == _NOT_KNOWN:
        snapshots.append(snapshot)
    if mark is not None and all(each.name != mark.name for each in bookmarks):
        bookmarks.append(mark)
        bookmarks.sort(key=lambda each: each.createtxg)
    return replace(dataset, snapshots=snapshots, bookmarks=bookmarks)


async def _expected(job: PushJob, item: PushItem) -> str:
    """Return the kind and approximate size of a stream, for a person."""
    send = item.send
    kind = "package" if job.request.package else "full" if send.base is None else "incremental"
    size: int | None
    if send.snapshot is not None:
        size = await job.zfs.estimate(*send.arguments(send.snapshot.name))
    elif send.base is None:
        size = sum(dataset.referenced for dataset in item.tree)
    else:
        size = await job.zfs.written_since(send.dataset.name, f"{send.base_mark}{send.base.name}")
    why = f", because {send.reason or send.repair}" if send.reason or send.repair else ""
    return f"{kind}{'' if size is None else f', about {format_size(size)}'}{why}"
