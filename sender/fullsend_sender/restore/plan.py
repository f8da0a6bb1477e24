"""Plans a restore: which streams, into which targets, in which order.

    list what is stored -> select, find chains -> examine the target

Nothing is changed here. Nothing that exists may be overwritten. A restore only ever continues an existing dataset:
after its newest snapshot, or inside a stream of which an interrupted `zfs receive -s` has left a part.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal

from fullsend_protocol.format.quotas import quotas_of
from fullsend_protocol.format.restore_commands import set_aside
from fullsend_protocol.shared.errors import FullsendError, PeerError, StreamError, UsageError
from fullsend_protocol.stream.resume_token import ResumeToken
from fullsend_sender.restore.chains import Library, NotRestorable
from fullsend_sender.zfs import inventory, pools
from fullsend_sender.zfs.selection import Selection, pool_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fullsend_protocol.format.manifest import StreamEntry
    from fullsend_sender.restore.chains import Tree
    from fullsend_sender.zfs.commands import Quota, Zfs
    from fullsend_sender.zfs.inventory import Dataset

_log: Final = logging.getLogger("fullsend.restore")

#: Branches that are named beside the restored one.
_BRANCHES: Final = 3


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """A request to restore.

    `what`: DATASET, DATASET@SNAPSHOT, guid:N or a file's name; `into`: the target, None: the dataset's own name;
    `recursive`: with all below it; `exclude`: without these; `rollback`: a target that was written to since its newest
    snapshot is rolled back to that; `mountable`: `canmount` as it was backed up.
    """

    what: str
    into: str | None = None
    recursive: bool = False
    exclude: tuple[str, ...] = ()
    rollback: bool = False
    mountable: bool = False
    quotas: bool = True
    unencrypted: bool = False

    @property
    def top(self) -> str:
        """The target, as far as the words of the request say it: not for guid:N and a file's name without `into`."""
        return self.what.partition("@")[0] if self.into is None else self.into


@dataclass(frozen=True, slots=True)
class ParentDataset:
    """A dataset to create as a parent of others: it is not stored itself."""

    target: str


@dataclass(frozen=True, slots=True)
class LaterSnapshots:
    """What a target has after the wanted snapshot: a restore destroys none of it.

    `wanted`: the name of that snapshot in the target (after the @); `newest`: of its newest one; `held`: of one after
    the wanted one that has a hold, "": none has.
    """

    target: str
    wanted: str
    newest: str
    held: str

    @property
    def way_back(self) -> str:
        """The words that tell a person how to return to the wanted snapshot."""
        command = shlex.join(["zfs", "rollback", "-r", f"{self.target}@{self.wanted}"])
        held = f", once @{self.held} has no hold (`zfs holds`)" if self.held else ""
        return f"`{command}` goes back, and destroys what is newer{held}"


@dataclass(frozen=True, slots=True)
class RestoreItem:
    """One dataset to restore.

    `chain`: the streams, in order; empty: `target` has the snapshot already. `existing`: whether `target` exists.
    `newest`: its newest snapshot (after the @), from which the chain continues, or which is the wanted one; None: none.
    `written`: whether `target` was written to since `newest`, None: unknown. `token`: its resume token, for the first
    stream. `quiet`: it has the snapshot, and canmount=noauto is set. `quotas`: the quotas and
    reservations that are to be as they were backed up, because none are set on `target`; `held`: those that an earlier
    run holds back. `aside`: see restore_commands.set_aside. `encryption`: how to encrypt it, if its streams do not say.
    `discard`: the stream of which `target` has a part that nothing continues any more, "": none. `later`: what it has
    after the wanted snapshot.
    """

    wanted: StreamEntry
    target: str
    chain: list[StreamEntry]
    newest: str | None = None
    existing: bool = False
    written: bool | None = False
    token: ResumeToken | None = None
    quiet: bool = False
    quotas: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    aside: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    encryption: Literal["as sent", "as its place", "off"] = "as sent"
    discard: str = ""
    later: LaterSnapshots | None = None

    def begun(self, entry: StreamEntry) -> ResumeToken | None:
        """Return the resume token of `target` for one of the streams; None: no part of it has been received."""
        return self.token if entry is self.chain[0] else None

    @property
    def package(self) -> bool:
        """Whether its streams bring other datasets, below it."""
        return any(each.kind == "package" for each in self.chain)

    @property
    def raw(self) -> bool:
        """Whether it comes encrypted as at home."""
        return "w" in self.wanted.flags

    @property
    def raw_bytes(self) -> int:
        return sum(entry.raw_bytes for entry in self.chain)


class OrphanedPartError(UsageError):
    """A target has a part of a stream that is not stored. `token`: of that part; `chain`: what could be received in
    place of that stream; empty: nothing.
    """

    def __init__(self, message: str, token: ResumeToken, chain: list[StreamEntry]) -> None:
        super().__init__(message)
        self.token = token
        self.chain = chain


#: Returns the GUIDs of the snapshots, each with that of its base, whose streams were merged into a stored one.
MergedInto = Callable[["StreamEntry"], Awaitable[set[tuple[str, str | None]]]]


async def merged_into_nothing(_entry: StreamEntry) -> set[tuple[str, str | None]]:
    """Nothing was merged."""
    return set()


#: Returns the datasets that a package brings beside its top one; None: it cannot be found out.
DatasetsIn = Callable[["StreamEntry"], Awaitable[frozenset[str] | None]]


async def contents_unknown(_package: StreamEntry) -> frozenset[str] | None:
    """Nobody can be asked."""
    return None


@dataclass(slots=True)
class RestorePlan:
    """What to do. `steps`: parents first; `there`: names of the datasets that can have others below; `failures`: by
    name, what cannot be done; `standing`: the datasets that exist now, at the target, below it and above it; `into`:
    the target of the whole restore; `notes`: what was told of datasets that are stored, by their names; `brought`: by
    name, the datasets that a package brings, each with the target of the package.
    """

    steps: list[ParentDataset | RestoreItem] = field(default_factory=list)
    there: set[str] = field(default_factory=set)
    failures: list[tuple[str, FullsendError]] = field(default_factory=list)
    standing: dict[str, Dataset] = field(default_factory=dict)
    into: str = ""
    notes: list[tuple[str, str]] = field(default_factory=list)
    brought: dict[str, str] = field(default_factory=dict)

    @property
    def items(self) -> list[RestoreItem]:
        return [step for step in self.steps if isinstance(step, RestoreItem)]

    def missing_within(self, target: str) -> str | None:
        """Return what has failed of a target, or below it; None: nothing has."""
        return next((name for name, _error in self.failures if f"{name}/".startswith(f"{target}/")), None)

    def obstacle(self, step: ParentDataset | RestoreItem) -> str | None:
        """Return the dataset that has failed, and below which this one would be; None: its parent exists."""
        parent = step.target.rpartition("/")[0]
        if not parent or parent in self.there or self.brought.get(parent) in self.there:
            return None
        missing = (name for name, _error in self.failures if name not in self.there)
        return next((name for name in missing if f"{parent}/".startswith(f"{name}/")), parent)


async def make_plan(
    library: Library,
    wanted: RestoreRequest,
    zfs: Zfs,
    merged_into: MergedInto = merged_into_nothing,
    datasets_in: DatasetsIn = contents_unknown,
) -> RestorePlan:
    """Plan a restore.

    Raises: UsageError, NotRestorable, PoolError, ZfsError, what `merged_into` and `datasets_in` raise.
    """
    plan = RestorePlan()
    brings: dict[str, frozenset[str]] = {}
    if wanted.recursive:
        tree, brings = await _select_tree(library, wanted, merged_into, datasets_in)
        top, _at, snapshot = wanted.what.partition("@")
        chosen, refused = tree.chosen, tree.refused
        plan.notes = tree.notes
        for name, note in tree.notes:
            _log.warning("%s %s", name, note)
        for name, why in tree.left_out:
            _log.warning("%s %s, and is left out: to restore it too, name it", name, why)
    else:
        chosen, refused = [library.find(wanted.what)], []
        top = chosen[0].dataset
        snapshot = "" if wanted.what == top else chosen[0].snapshot
    into = top if wanted.into is None else wanted.into
    plan.into = into
    if not snapshot:
        for entry in chosen:
            _say_other_ends(library, entry)
    plan.failures += [(into + name.removeprefix(top), error) for name, error in refused]
    if not into or "@" in into or "#" in into:
        raise UsageError(f"{into!r} is not the name of a dataset to restore into")
    there = await _standing(zfs, into, recursive=wanted.recursive)
    parent = await _parent(zfs, into, there)
    tokens, quiet = {}, set[str]()
    set_here: dict[str, dict[str, Quota]] = {}
    if into in there:
        tokens = await zfs.resume_tokens(into, recursive=wanted.recursive)
        quiet = await zfs.not_mounting(into, recursive=wanted.recursive)
        set_here = await zfs.quotas_set(into, recursive=wanted.recursive)
    # A new dataset with a part of its first stream does not count: it may be discarded as a whole.
    plan.there = {name for name, dataset in there.items() if dataset.snapshots or name not in tokens}
    plan.there.add(into.rpartition("/")[0])
    items = []
    for entry in chosen:
        target = into + entry.dataset.removeprefix(top)
        try:
            try:
                item = _item(library, entry, target, there.get(target), tokens.get(target), quiet=target in quiet)
            except OrphanedPartError as error:
                item = await _without_part(entry, there[target], error, merged_into)
            if item.later is not None and wanted.rollback:
                raise UsageError(_beyond_rollback(item.later))
            item = replace(item, aside=_set_aside(library, item, there.get(target)))
            items.append(_with_quotas(item, wanted, set_here.get(target, {})))
        except FullsendError as error:
            if not wanted.recursive:
                raise
            plan.failures.append((target, error))
    for item in items:
        below = brings.get(item.wanted.file, ())
        plan.brought |= {into + name.removeprefix(top): item.target for name in below}
    # A dataset that cannot be restored is not created as a parent either: it would obstruct the next try.
    taken = {*there, *plan.brought, *(item.target for item in items), *(name for name, _error in plan.failures)}
    plan.steps = sorted([*items, *_places(into, items, taken)], key=lambda step: step.target.split("/"))
    plan.standing = {**there, **({parent.name: parent} if parent is not None else {})}
    return plan


async def _select_tree(
    library: Library, wanted: RestoreRequest, merged_into: MergedInto, datasets_in: DatasetsIn
) -> tuple[Tree, dict[str, frozenset[str]]]:
    """Select a tree of datasets. Returns: the tree, and by file of each package in it the datasets that it brings.

    Raises: UsageError, NotRestorable, what `merged_into` and `datasets_in` raise.
    """
    top, at, snapshot = wanted.what.partition("@")
    if at and not snapshot:
        raise UsageError(f"{wanted.what!r} is not DATASET or DATASET@SNAPSHOT")
    selection = Selection((top,), recursive=True, exclude=wanted.exclude)
    contents: dict[str, frozenset[str] | None] = {}
    while True:
        tree = library.tree(top, snapshot or None, lambda name: bool(selection.choose([name])), contents)
        # A package that cannot be restored is a failure, whatever it contains.
        packages = [each for each in tree.chosen if each.kind == "package" and library.chain(each) is not None]
        new = [each for each in packages if each.file not in contents]
        if not new:
            break
        contents |= {each.file: await datasets_in(each) for each in new}
    for name, note, stream in tree.doubtful:
        if await _was_merged(stream, merged_into):
            tree.notes.append((name, note))
    return tree, {each.file: contents[each.file] or frozenset() for each in packages}


async def _was_merged(stream: StreamEntry, merged_into: MergedInto) -> bool:
    """Whether a stream was merged of several, or the receiver cannot say it. Raises: what else `merged_into` raises."""
    try:
        return bool(await merged_into(stream))
    except PeerError:
        return True


def _with_quotas(item: RestoreItem, wanted: RestoreRequest, set_here: Mapping[str, Quota]) -> RestoreItem:
    """Return an item with its quotas. `set_here`: what is set on its target itself."""
    held = tuple(name for name, quota in set_here.items() if quota.held)
    free = (name for name in quotas_of(item.wanted.dataset_type) if name in held or name not in set_here)
    return replace(item, held=held, quotas=tuple(free) if wanted.quotas else ())


def _set_aside(library: Library, item: RestoreItem, existing: Dataset | None) -> Mapping[str, tuple[str, str]]:
    """Return the snapshots of a target to rename before a later one of the same name: only those that are stored."""
    snapshots = () if existing is None else existing.snapshots
    return set_aside(item.chain, {each.name: each.guid for each in snapshots if library.knows(each.guid)})


def _say_other_ends(library: Library, entry: StreamEntry) -> None:
    """Warn if the newest state is one of several branches: after a rollback the other may be the one to restore."""
    others = library.other_ends(entry)
    if others:
        named = ", ".join(f"{each.dataset}@{each.snapshot} (received {each.received})" for each in others[:_BRANCHES])
        more = f", and {len(others) - _BRANCHES} more" if len(others) > _BRANCHES else ""
        _log.warning(
            "%s: @%s, received %s, is the end that came last; another branch of its chain ends with %s%s: name that to"
            " restore it instead",
            *(entry.dataset, entry.snapshot, entry.received, named, more),
        )


async def _standing(zfs: Zfs, into: str, *, recursive: bool) -> dict[str, Dataset]:
    """Return the target, and with `recursive` what is below it, by name; also what was written a moment ago counts.

    Raises: PoolError, UsageError.
    """
    found = await pools.listed(zfs, await pools.look(zfs), {pool_of(into): [into]}, recursive=recursive)
    for error in found.failed.values():
        raise error
    return found.datasets


def _beyond_rollback(later: LaterSnapshots) -> str:
    """Return why -F does not return to the wanted snapshot."""
    return (
        f"{later.target} has @{later.wanted} already, below @{later.newest}, and -F destroys no snapshot:"
        f" {later.way_back}"
    )


async def _parent(zfs: Zfs, target: str, there: dict[str, Dataset]) -> Dataset | None:
    """Return the parent of the target; None: the target is a pool. Raises: UsageError if the parent does not exist."""
    parent = target.rpartition("/")[0]
    if not parent:
        return None
    found = inventory.parse((await zfs.listing([parent], recursive=False))[0]).get(parent)
    if found is None and target not in there:
        raise UsageError(
            f"{target} cannot be created, because there is no {parent}: create that first, or choose another --into"
        )
    return found


def _item(
    library: Library, entry: StreamEntry, target: str, existing: Dataset | None, token: str | None, *, quiet: bool
) -> RestoreItem:
    """Return the item of one dataset. Raises: NotRestorable; UsageError if the target is something else."""
    if existing is None:
        chain = library.chain(entry)
        if chain is None:
            raise NotRestorable(
                f"{entry.dataset}@{entry.snapshot} cannot be restored: {library.obstacle(entry)}; `fullsend list"
                f" {entry.dataset}` shows what can be"
            )
        return RestoreItem(entry, target, chain)
    whole = library.chain(entry)
    if entry.kind == "package" or any(each.kind == "package" for each in whole or ()):
        # After an interrupted package, the top may have its snapshot, and the datasets below may be missing.
        raise UsageError(
            f"{target} exists, and a package is only restored as a whole: choose another --into, or destroy it first"
        )
    newest = existing.snapshots[-1] if existing.snapshots else None
    written = None if existing.written is None else existing.written > 0
    if newest is not None and newest.guid == entry.guid:
        return RestoreItem(entry, target, [], newest.name, existing=True, written=written, quiet=quiet)
    for place, each in enumerate(existing.snapshots):
        if each.guid == entry.guid:
            after = existing.snapshots[place + 1 :]
            held = next((one.name for one in after if one.userrefs), "")
            later = LaterSnapshots(target, each.name, after[-1].name, held)
            return RestoreItem(entry, target, [], existing=True, quiet=quiet, later=later)
    if token is not None:
        return _begun(library, entry, existing, token)
    chain = library.chain(entry, newest.guid) if newest else None
    if newest is None or chain is None:
        raise UsageError(
            f"{target} exists, and {_stranger(library, entry, existing)} choose another name with --into (nothing that"
            " exists is overwritten)"
        )
    return RestoreItem(entry, target, chain, newest.name, existing=True, written=written)


def _begun(library: Library, entry: StreamEntry, existing: Dataset, text: str) -> RestoreItem:
    """Return the item of a dataset with a part of a stream. Raises: UsageError if no stored stream continues it."""
    target, newest = existing.name, existing.snapshots[-1] if existing.snapshots else None
    give_up = f"`zfs receive -A {target}` discards that part, or choose another name with --into"
    try:
        token = ResumeToken.decode(text)
    except StreamError as error:
        raise UsageError(f"{target} has a part of a stream, but {error}: {give_up}") from error
    base = None if token.base_guid is None else str(token.base_guid)
    if newest is not None and newest.guid != base:
        # `zfs receive` would read all of it, and refuse it at its end; with -F it would destroy that snapshot
        # (dmu_recv.c, dmu_recv_end_check).
        raise UsageError(
            f"{target} has a part of {token.name}, and @{newest.name}, which does not belong before that: destroy that"
            f" snapshot if it is not needed; {give_up}"
        )
    for first in library.begun(token):
        rest = [] if first.guid == entry.guid else library.chain(entry, first.guid)
        if rest is not None and all(each.stream_class == first.stream_class for each in rest):
            return RestoreItem(
                entry, target, [first, *rest], newest.name if newest else None, existing=True, token=token
            )
    raise OrphanedPartError(
        f"{target} has a part of {token.name} (GUID {token.guid}), and no stored stream continues it to"
        f" {entry.dataset}@{entry.snapshot}: {give_up}",
        token,
        library.chain(entry, base) or [],
    )


async def _without_part(
    entry: StreamEntry, existing: Dataset, error: OrphanedPartError, merged_into: MergedInto
) -> RestoreItem:
    """Return the item of a dataset with a part of a stream that the receiver has merged into another one since: without
    that part it continues from its newest snapshot. Raises: `error` if the stream was not merged.
    """
    part = str(error.token.guid), None if error.token.base_guid is None else str(error.token.base_guid)
    if not error.chain or part not in await merged_into(error.chain[0]):
        raise error
    newest = existing.snapshots[-1].name if existing.snapshots else None
    # Without a snapshot, all that there is of the dataset is that part.
    return RestoreItem(entry, existing.name, error.chain, newest, existing=newest is not None, discard=error.token.name)


def _stranger(library: Library, entry: StreamEntry, existing: Dataset) -> str:
    """Return why a dataset cannot be continued, and what to do other than choosing another."""
    if not existing.snapshots:
        return "has no snapshot:"
    newest = existing.snapshots[-1]
    for each in reversed(existing.snapshots):
        if library.chain(entry, each.guid) is not None:
            # It may be somebody's own, or one that the receiver has dropped or merged since.
            way = "" if library.knows(newest.guid) else f" (`zfs rollback -r {existing.name}@{each.name}`)"
            return (
                f"has other snapshots, up to @{newest.name}, after @{each.name}: destroy those if they are not"
                f" needed{way} and run the same command again, or"
            )
    return f"its newest snapshot, @{newest.name}, cannot be continued from:"


def _places(into: str, items: list[RestoreItem], taken: set[str]) -> list[ParentDataset]:
    """Return the datasets between `into` and the items that do not exist."""
    missing: dict[str, None] = {}
    for item in items:
        parts = item.target.split("/")
        for count in range(into.count("/") + 1, len(parts)):
            above = "/".join(parts[:count])
            if above not in taken:
                missing[above] = None
    return list(map(ParentDataset, missing))
