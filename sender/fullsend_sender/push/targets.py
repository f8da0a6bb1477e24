"""From a request to a plan: select the datasets on this host, and decide what to do with each."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared.errors import FullsendError, UsageError
from fullsend_sender.host.failures import as_failure
from fullsend_sender.host.locks import AlreadyRunning
from fullsend_sender.push.gone import is_retired, not_meant, renamed, why, without_copies
from fullsend_sender.push.job import PushItem, PushPlan
from fullsend_sender.push.plan import (
    CannotSend,
    NothingToSend,
    PlannedSend,
    StoredBases,
    check_name,
    decide,
    decide_package,
    find_begun,
    find_begun_package,
    find_repair,
    last_common,
)
from fullsend_sender.transfer.listing import statuses
from fullsend_sender.zfs import pools
from fullsend_sender.zfs.selection import is_pattern, pool_of

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Collection, Iterable, Sequence

    from fullsend_protocol.format.manifest import PartialEntry
    from fullsend_protocol.wire.messages import Base
    from fullsend_sender.push.job import PushJob, PushTarget
    from fullsend_sender.transfer.link import Link
    from fullsend_sender.zfs.inventory import Dataset
    from fullsend_sender.zfs.pools import Pools


#: The failure of a selection that excludes all that it names: nothing would be pushed, with exit 0.
ALL_EXCLUDED: Final = "all of it that is here is excluded, so nothing is pushed"
#: The failure of a dataset that a selection gives in full, and excludes.
RULED_OUT: Final = "it is named, and excluded as well, so it is not pushed: end one of the two"


@dataclass(slots=True)
class ChosenDatasets:
    """The selected datasets. `targets`: by name of the dataset; `failures`: what does not exist; `failed_pools`: the
    requested pools that are unusable; `idle_exclusions`: names that were to be left out, and that take nothing away.
    """

    datasets: dict[str, Dataset]
    targets: dict[str, PushTarget]
    failures: list[tuple[str, FullsendError]]
    package: bool
    pools: Pools
    failed_pools: frozenset[str] = frozenset()
    idle_exclusions: tuple[str, ...] = ()

    def tree(self, name: str) -> tuple[Dataset, ...]:
        """Return the datasets of one stream."""
        if not self.package:
            return (self.datasets[name],)
        below = f"{name}/"
        return tuple(each for each in self.datasets.values() if each.name == name or each.name.startswith(below))

    def leave_out(self, names: Iterable[str]) -> None:
        """Remove these from the selection."""
        for name in names:
            self.targets.pop(name, None)

    def warn(self, log: logging.Logger) -> None:
        """Log what may be a mistake, and fails nothing."""
        for name in self.idle_exclusions:
            log.warning("exclude %s: nothing that is selected has this name, so it leaves nothing out", name)

    def leave_to_restores(self, find: Callable[[Iterable[str]], Collection[str]]) -> None:
        """Make a failure of each dataset to which a restore writes. `find`: returns which of these datasets it is."""
        names = {name: [dataset.name for dataset in self.tree(name)] for name in self.targets}
        busy = set(find([each for tree in names.values() for each in tree]))
        for name, tree in names.items():
            if not busy.isdisjoint(tree):
                del self.targets[name]
                self.failures.append((name, AlreadyRunning("`fullsend restore` writes to it just now")))

    def keep_apart(self, take: Callable[[str], bool]) -> None:
        """Take the lock of each dataset; a dataset whose lock is taken is a failure."""
        for name in list(self.targets):
            if False in [take(dataset.guid) for dataset in self.tree(name)]:
                del self.targets[name]
                self.failures.append((name, AlreadyRunning("is being pushed by another fullsend just now")))


async def choose(job: PushJob) -> ChosenDatasets:
    """List all datasets that may be selected, pool by pool, and select. Raises: UsageError, ZfsError."""
    asked = job.request.targets
    there = await pools.look(job.zfs)
    roots: dict[str, list[str]] = {}
    for root in dict.fromkeys(root for target in asked for root in target.selection.roots):
        if root:
            roots.setdefault(pool_of(root), []).append(root)
        else:  # a pattern for every pool
            roots |= {pool: [pool] for pool in there.health if _is_meant(pool, asked)}
    deep = job.request.package or any(target.selection.deep for target in asked)
    found = await pools.listed(job.zfs, there, roots, recursive=deep)
    datasets, complaint = found.datasets, found.complaint
    targets: dict[str, PushTarget] = {}
    failures: list[tuple[str, FullsendError]] = list(found.failed.items())
    ruled_out: list[str] = []
    for target in asked:
        meant, missing = target.selection.choose(datasets), target.selection.missing(list(datasets))
        ruled_out += (here := target.selection.ruled_out(datasets))
        if not meant and not missing and not here and not found.failed:
            failures.append((", ".join(target.selection.patterns), CannotSend(ALL_EXCLUDED)))
        for name in meant:
            if targets.setdefault(name, target).snapshot != target.snapshot:
                raise UsageError(f"{name} is named twice, with different snapshots: push one after another")
        for pattern in missing:
            if found.failed and (is_pattern(pattern) or pool_of(pattern) in found.failed):
                continue  # it may be in a pool that has failed
            said = [part for part in complaint.split("; ") if f"'{pattern}'" in part]
            failures.append((pattern, CannotSend(said[0] if said else "there is no such dataset")))
    failures += [(name, CannotSend(RULED_OUT)) for name in dict.fromkeys(ruled_out) if name not in targets]
    usable = [pool for pool in roots if pool in there.health and pool not in found.failed]
    idle = _idle_exclusions(asked, datasets, usable)
    return ChosenDatasets(datasets, targets, failures, job.request.package, there, frozenset(found.failed), idle)


def _idle_exclusions(asked: Sequence[PushTarget], names: Collection[str], listed: Collection[str]) -> tuple[str, ...]:
    """Return the excluded names that take nothing away, from any of what is asked for. `names`: what is here; `listed`:
    the pools of which that is known.
    """
    idle: dict[str, bool] = {}
    for selection in (target.selection for target in asked):
        here = selection.idle_exclusions(names)
        idle |= {name: idle.get(name, True) and name in here for name in selection.exclude}
    return tuple(name for name, is_idle in idle.items() if is_idle and pool_of(name) in listed)


def _is_meant(pool: str, asked: Sequence[PushTarget]) -> bool:
    """Whether a pattern for all pools may match in this one: otherwise its health does not matter."""
    wide = [target.selection for target in asked if "" in target.selection.roots]
    return any(selection.means_pool(pool) for selection in wide)


async def gone(
    link: Link, job: PushJob, chosen: ChosenDatasets, bases: Sequence[Base]
) -> list[tuple[str, FullsendError]]:
    """Return the datasets that are stored and selected, but no longer here, and not in `retired`; each with its reason.

    Raises: as Link.receive.
    """
    if job.request.package:
        return []
    missing = [
        name
        for name in sorted({base.dataset for base in bases})
        if name not in chosen.datasets and not is_retired(name, job.settings.retired)
        if pool_of(name) not in chosen.failed_pools
        if any(
            target.snapshot is None and name not in target.selection.patterns and target.selection.choose([name])
            for target in job.request.targets
        )
    ]
    if not missing:
        return []
    _now, stored = await statuses(link)
    now_as = renamed(bases, chosen.datasets, job.receiver, await pools.without_bookmarks(job.zfs))
    elsewhere = await without_copies(link, missing, now_as, stored)
    pushed = {base.dataset for base in bases} | chosen.targets.keys()
    found: list[tuple[str, FullsendError]] = []
    for name in missing:
        now = elsewhere.get(name)
        if now is None:
            found.append((name, CannotSend(why(name, chosen.pools))))
        elif now not in pushed:
            found.append((name, CannotSend(not_meant(name, now))))
    return found


def unfinished(
    job: PushJob, chosen: ChosenDatasets, stored: StoredBases, arrived: Sequence[PartialEntry]
) -> list[PushItem]:
    """Return the selected streams that have arrived in part, can be resumed, and are of use."""
    items: list[PushItem] = []
    for name, target in chosen.targets.items() if arrived and not job.request.full else ():
        with contextlib.suppress(Exception):  # `make_plan` meets the same error, and reports it
            options, tree = job.settings.send_options(name, target.table), chosen.tree(name)
            if job.request.package:
                package = find_begun_package(tree, options, arrived) if target.snapshot is None else None
                items += [PushItem(package, options, tree)] if package else []
            elif (found := find_begun(tree[0], options, stored, arrived, snapshot=target.snapshot)) is not None:
                items.append(PushItem(found[0], options, tree, found[1], last_common(tree[0], stored)))
    return items


def repairs(
    job: PushJob,
    chosen: ChosenDatasets,
    stored: StoredBases,
    arrived: Sequence[PartialEntry],
    tried: set[object],
) -> list[PushItem]:
    """Return the damaged streams to send again, at most one of each dataset: the next one may build on it. Their
    identities are added to `tried`. None for a named snapshot, a package, or fulls: the user has said what to send.
    """
    items: list[PushItem] = []
    for name, target in chosen.targets.items() if not (job.request.full or job.request.package) else ():
        if target.snapshot is not None:
            continue
        with contextlib.suppress(Exception):  # `make_plan` meets the same error, and reports it
            options, dataset = job.settings.send_options(name, target.table), chosen.datasets[name]
            found = find_repair(dataset, options, stored, tried)
            if found is not None:
                send, entry = found
                tried.add(entry.identity)
                begun = next((each for each in arrived if _identity(each) == entry.identity), None)
                items.append(PushItem(send, options, (dataset,), begun, last_common(dataset, stored)))
    return items


def _identity(partial: PartialEntry) -> tuple[str, str, str | None, str | None, str | None]:
    """Return what announces a partial stream, as DamagedEntry.identity."""
    return partial.dataset, partial.snapshot, partial.guid, partial.base_guid, partial.flags


def make_plan(
    job: PushJob,
    chosen: ChosenDatasets,
    stored: StoredBases,
    arrived: Sequence[PartialEntry],
    now: float,
) -> PushPlan:
    """Decide what to do. `stored`, `arrived`: what the receiver has, and has in part; `now`: seconds since the epoch,
    by this host's clock.
    """
    plan = PushPlan(partials=arrived)
    lacking = {id(target): target for target in chosen.targets.values() if target.snapshot is not None}
    for name, target in chosen.targets.items():
        dataset, named = chosen.datasets[name], target.snapshot
        if named is not None and name not in target.selection.patterns and not dataset.has(named):
            continue  # -r DATASET@SNAPSHOT: of the datasets below, only those that have the snapshot
        lacking.pop(id(target), None)
        try:
            options, tree = job.settings.send_options(name, target.table), chosen.tree(name)
            decided: PlannedSend | NothingToSend
            if job.request.package:
                decided = decide_package(tree, options, snapshot=named)
            else:
                decided = decide(dataset, options, stored, now=now, snapshot=named, full=job.request.full)
            if isinstance(decided, PlannedSend) and decided.snapshot is None:
                for each in tree:
                    check_name(each)
            common = last_common(dataset, stored)
        except Exception as error:  # noqa: BLE001 - of any class, it is a failure of one dataset
            plan.failures.append((name, as_failure(error)))
            continue
        if isinstance(decided, NothingToSend):
            plan.unchanged.append(decided)
        else:
            plan.items.append(PushItem(decided, options, tree, common=common))
    for target in lacking.values():
        name = ", ".join(f"{pattern}@{target.snapshot}" for pattern in target.selection.patterns)
        plan.failures.append((name, CannotSend("no selected dataset has this snapshot")))
    return plan


async def leave_unfinished_restores(job: PushJob, plan: PushPlan, stored: StoredBases) -> None:
    """Make a failure of each unchanged dataset that an interrupted restore has left at an older state than the stored
    ones: it must not be reported as unchanged. A part of a later stream in it shows that. `stored`: what the receiver
    has.
    """
    still = [each for each in plan.unchanged if each.still]
    for each in still:
        name = each.dataset.name
        if not stored.continues(name, each.snapshot.guid):
            continue
        try:
            if name not in await job.zfs.resume_tokens(name, recursive=False):
                continue  # it was rolled back
            discard = job.zfs.line("receive", "-A", name)
            raise CannotSend(
                "the receiver has later states of it, and it has a part of a stream, as an interrupted `fullsend"
                f" restore` leaves it: run that again, or discard the part (`{discard}`) to push it as it is"
            )
        except FullsendError as error:
            plan.unchanged.remove(each)
            plan.failures.append((name, error))
