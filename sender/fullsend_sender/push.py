"""`fullsend push`: from what is asked for to streams that are stored (design section 8).

    list, lock -> ask what is stored -> plan -> snapshot, hold -> send, one dataset after another -> bookmark, tidy up

The receiver is asked before anything is done to a pool. What one dataset fails at is noted, and the others go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import sys
import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal

from fullsend_protocol import limits, messages
from fullsend_protocol.errors import ErrorCode, FullsendError, NotTheSameStream, PeerError, Unreachable, UsageError
from fullsend_protocol.manifest import properties_size
from fullsend_protocol.units import format_size
from fullsend_sender import keep, ours, source
from fullsend_sender.link import connect
from fullsend_sender.listing import partials
from fullsend_sender.lock import Running, locks
from fullsend_sender.pipeline import OtherBytes
from fullsend_sender.plan import (
    CannotSend,
    How,
    Send,
    Stored,
    Unchanged,
    decide,
    decide_package,
    find_begun,
    find_begun_package,
)
from fullsend_sender.progress import Progress, reporting
from fullsend_sender.source import Dataset, Snapshot
from fullsend_sender.token import go_on_by_token
from fullsend_sender.transfer import About, Options, Pushed, transfer
from fullsend_sender.window import CannotGoOn
from fullsend_sender.zfs import ZfsError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Sequence

    from fullsend_protocol.manifest import PartialEntry, Resume
    from fullsend_sender.config import PushSettings, SenderSettings
    from fullsend_sender.identity import Identity
    from fullsend_sender.link import Endpoint, Link
    from fullsend_sender.selection import Selection
    from fullsend_sender.zfs import Zfs

_log: Final = logging.getLogger("fullsend.push")

#: The GUID of a snapshot that has not been taken.
_NOT_KNOWN: Final = "0"

#: Characters of a dataset's name on the progress line, which has 80.
_LABEL: Final = 24


@dataclass(frozen=True, slots=True)
class Target:
    """What somebody asked for. `snapshot`: the one that is named (after the @), None: a new one; `table`: where in the
    configuration it stands, None: on the command line.
    """

    selection: Selection
    snapshot: str | None = None
    table: PushSettings | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What to push. `full`: fulls, whatever is stored; `package`: with all below, as one stream (-R)."""

    targets: tuple[Target, ...]
    full: bool = False
    package: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    """One stream of a plan. `tree`: the datasets it brings; `begun`: what the receiver has of it, where some of it has
    arrived before.
    """

    send: Send
    how: How
    tree: tuple[Dataset, ...]
    begun: PartialEntry | None = None

    @property
    def name(self) -> str:
        return self.send.dataset.name

    def names(self, snapshot: str) -> list[str]:
        """Return the snapshots that it brings. What is younger than one that is named has none: `zfs send -R` passes it
        over.
        """
        new = self.send.snapshot is None
        return [f"{dataset.name}@{snapshot}" for dataset in self.tree if new or dataset.has(snapshot)]

    @property
    def held_base(self) -> list[str]:
        """The base, where that is a snapshot, which can be held."""
        send = self.send
        return [f"{self.name}@{send.base.name}"] if send.base is not None and send.base_mark == "@" else []


@dataclass(slots=True)
class Plan:
    """What is to be done. `unchanged`: where nothing is; `failures`: what cannot be, by name."""

    items: list[Item] = field(default_factory=list)
    unchanged: list[Unchanged] = field(default_factory=list)
    failures: list[tuple[str, FullsendError]] = field(default_factory=list)


@dataclass(slots=True)
class Summary:
    """What has been done. `failures`: by name, in the order in which they came."""

    pushed: int = 0
    stored: int = 0  # named snapshots, and others, that were there before
    unchanged: int = 0
    failures: list[tuple[str, FullsendError]] = field(default_factory=list)

    def line(self, receiver: str) -> str:
        """Say it to a person."""
        counts = {"pushed": self.pushed, "stored before": self.stored, "unchanged": self.unchanged}
        said = [f"{count} {what}" for what, count in counts.items() if count]
        said += [f"{len(self.failures)} FAILED"] if self.failures else []
        return f"{receiver}: {', '.join(said) or 'nothing to do'}"


@dataclass(frozen=True, slots=True)
class Job:
    """A request to one receiver, and all that it takes."""

    request: Request
    settings: SenderSettings
    endpoint: Endpoint
    identity: Identity
    zfs: Zfs
    locks_in: str | None = None

    @property
    def receiver(self) -> str:
        """What the receiver is called in our names."""
        return ours.receiver_id(self.endpoint.fingerprint)

    def claim(self, dataset: Dataset) -> str:
        """Return what takes a stream of this dataset over from a run that has died: we have the dataset's lock."""
        return hashlib.sha256(f"{self.endpoint.fingerprint} {dataset.guid}".encode()).hexdigest()[:16]


async def push(job: Job, done: Callable[[Pushed], None]) -> Summary:
    """Push what is asked for. `done` is called with each stream that is stored.

    Returns: what has been done, and what has failed. Raises: Unreachable, PeerError, WrongReceiver, UsageError,
    ZfsError: then nothing was done at all.
    """
    with locks(job.receiver, job.locks_in) as locked:
        chosen = await _choose(job)
        # At once: whoever comes second must not have to wait to learn that.
        chosen.keep_apart(locked.take)
        summary = Summary(failures=chosen.failures)
        for name, error in chosen.failures:
            _log.error("%s: %s", name, error)
        plan = Plan()
        if chosen.targets:
            begun, plan = await _look(job, chosen, finish=True)
            if begun:
                # Before anything new is begun, and before it is decided what is new.
                if not await _finish(job, chosen, Plan(items=begun), summary, done):
                    return summary
                _, plan = await _look(job, chosen, finish=False)
            summary.unchanged += sum(each.still for each in plan.unchanged)
            summary.stored += sum(not each.still for each in plan.unchanged)
            for name, error in plan.failures:
                _log.error("%s: %s", name, error)
            summary.failures += plan.failures
        await _release_left(job, [each.dataset for each in plan.unchanged if each.still])
        if plan.items:
            await _Run(job, plan, summary, done).run()
    return summary


async def _look(job: Job, chosen: _Chosen, *, finish: bool) -> tuple[list[Item], Plan]:
    """Ask the receiver what there is, and say what is to be done.

    Returns: with `finish`, what earlier runs have begun and this one can finish, if there is any, and no plan then;
    else what is to be sent; the receiver has noted what is unchanged. Raises: Unreachable, PeerError, WrongReceiver.
    """
    async with connect(job.endpoint, job.identity) as (link, _name):
        if finish:
            begun = _unfinished(job, chosen, await partials(link))
            if begun:
                return begun, Plan()
        plan = make_plan(job, chosen, await _ask_bases(link), time.time())
        await _tell_unchanged(link, [each for each in plan.unchanged if each.still])
        return [], plan


async def _finish(job: Job, chosen: _Chosen, plan: Plan, summary: Summary, done: Callable[[Pushed], None]) -> bool:
    """Finish what earlier runs have begun. What cannot be finished is no failure: what is to be sent instead is decided
    afterwards. A target that named the very snapshot is done with then.

    Returns: whether to go on; False where the receiver is away.
    """
    tried = Summary()
    await _Run(job, plan, tried, done).run()
    summary.pushed += tried.pushed
    summary.stored += tried.stored
    if any(isinstance(error, Unreachable) for _name, error in tried.failures):
        summary.failures += tried.failures
        return False
    failed = {name for name, _error in tried.failures}
    for item in plan.items:
        named = chosen.targets[item.name].snapshot
        if named is not None and f"{item.name}@{named}" not in failed:
            del chosen.targets[item.name]
    return True


def _unfinished(job: Job, chosen: _Chosen, arrived: Sequence[PartialEntry]) -> list[Item]:
    """Return the streams of what is wanted that have arrived in part and can be gone on with."""
    items = []
    for name, target in chosen.targets.items() if arrived and not job.request.full else ():
        how, tree = job.settings.how(name, target.table), chosen.tree(name)
        with contextlib.suppress(CannotSend):  # whoever decides what is new says it
            if job.request.package:
                package = find_begun_package(tree, how, arrived) if target.snapshot is None else None
                items += [Item(package, how, tree)] if package else []
            elif (found := find_begun(tree[0], how, arrived, snapshot=target.snapshot)) is not None:
                items.append(Item(found[0], how, tree, found[1]))
    return items


async def rehearse(job: Job) -> tuple[Plan, list[str]]:
    """Find out what `push` would do; nothing is changed. Returns: the plan, and the commands as one would type them."""
    chosen = await _choose(job)
    async with connect(job.endpoint, job.identity) as (link, _name):
        plan = make_plan(job, chosen, await _ask_bases(link), time.time())
    plan.failures = chosen.failures + plan.failures
    return plan, [line async for line in _lines(job, plan, ours.snapshot_name(job.receiver, time.time()))]


async def _lines(job: Job, plan: Plan, name: str) -> AsyncGenerator[str]:
    """Yield what would be run, in its order. `name`: of new snapshots (after the @)."""
    zfs, tag, package = job.zfs, ours.hold_tag(job.receiver), job.request.package
    new = [item for item in plan.items if item.send.snapshot is None]
    for pool in dict.fromkeys(item.send.dataset.pool for item in new):
        items = [item for item in new if item.send.dataset.pool == pool]
        names = [f"{item.name}@{name}" for item in items]
        for line in [("-r", each) for each in names] if package else [names]:
            yield zfs.line("snapshot", *line)
        yield zfs.line("hold", tag, *(each for item in items for each in (*item.names(name), *item.held_base)))
    for item in plan.items:
        snapshot = item.send.snapshot or Snapshot(name, _NOT_KNOWN, sys.maxsize, 0, 0, 0)
        held = [*item.held_base, *item.names(snapshot.name)]
        if item.send.snapshot is not None:
            yield zfs.line("hold", tag, *held)
        yield f"{zfs.line('send', *item.send.arguments(snapshot.name))}  # {await _expected(job, item)}"
        mark = snapshot._replace(name=ours.bookmark_name(job.receiver, snapshot.guid))
        if not package and all(each.name != mark.name for each in item.send.dataset.bookmarks):
            said = f"fullsend-{job.receiver}-GUID" if snapshot.guid == _NOT_KNOWN else mark.name
            yield zfs.line("bookmark", f"{item.name}@{snapshot.name}", f"{item.name}#{said}")
        for dataset in item.tree:
            of_it = [each for each in held if each.partition("@")[0] == dataset.name]
            if of_it:
                yield zfs.line("release", tag, *of_it)
            later = _later(dataset, snapshot, None if package else mark)
            old = keep.outdated_snapshots(later, job.receiver, item.how.keep)
            if old:
                yield zfs.line("destroy", f"{dataset.name}@{','.join(each.name for each in old)}")
            for each in keep.outdated_bookmarks(later, job.receiver):
                yield zfs.line("destroy", f"{dataset.name}#{each.name}")


def _later(dataset: Dataset, snapshot: Snapshot, mark: Snapshot | None) -> Dataset:
    """Return a dataset as it will be once this snapshot is stored. `mark`: its bookmark, None: it gets none."""
    snapshots, bookmarks = list(dataset.snapshots), list(dataset.bookmarks)
    if snapshot.guid == _NOT_KNOWN:
        snapshots.append(snapshot)
    if mark is not None and all(each.name != mark.name for each in bookmarks):
        bookmarks.append(mark)
        bookmarks.sort(key=lambda each: each.createtxg)
    return replace(dataset, snapshots=snapshots, bookmarks=bookmarks)


# --- what is asked for ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Chosen:
    """What is there of what was asked for. `targets`: by name of the dataset; `failures`: what is not there."""

    datasets: dict[str, Dataset]
    targets: dict[str, Target]
    failures: list[tuple[str, FullsendError]]
    package: bool

    def tree(self, name: str) -> tuple[Dataset, ...]:
        """Return the datasets that one stream brings."""
        if not self.package:
            return (self.datasets[name],)
        below = f"{name}/"
        return tuple(each for each in self.datasets.values() if each.name == name or each.name.startswith(below))

    def keep_apart(self, take: Callable[[str], bool]) -> None:
        """Take the lock of each dataset; who gets none is a failure."""
        for name in list(self.targets):
            if False in [take(dataset.guid) for dataset in self.tree(name)]:
                del self.targets[name]
                self.failures.append((name, Running("is being pushed by another fullsend just now")))


async def _choose(job: Job) -> _Chosen:
    """List all that may be meant, in one go, and choose."""
    asked = job.request.targets
    roots = list(dict.fromkeys(root for target in asked for root in target.selection.roots))
    roots = [] if "" in roots else roots  # a pattern for every pool
    deep = job.request.package or not roots or any(target.selection.deep for target in asked)
    await job.zfs.sync(sorted({root.partition("/")[0] for root in roots}))
    listing, complaint = await job.zfs.listing(roots, recursive=deep)
    datasets = source.parse(listing)
    targets: dict[str, Target] = {}
    failures: list[tuple[str, FullsendError]] = []
    for target in asked:
        for name in target.selection.choose(datasets):
            if targets.setdefault(name, target).snapshot != target.snapshot:
                raise UsageError(f"{name} is named twice, with different snapshots: push one after another")
        for pattern in target.selection.missing(list(datasets)):
            said = [part for part in complaint.split("; ") if f"'{pattern}'" in part]
            failures.append((pattern, CannotSend(said[0] if said else "there is no such dataset")))
    return _Chosen(datasets, targets, failures, job.request.package)


def make_plan(job: Job, chosen: _Chosen, stored: Stored, now: float) -> Plan:
    """Say what is to be done. `now`: seconds since the epoch."""
    plan = Plan()
    lacking = {id(target): target for target in chosen.targets.values() if target.snapshot is not None}
    for name, target in chosen.targets.items():
        dataset, named = chosen.datasets[name], target.snapshot
        if named is not None and name not in target.selection.patterns and not dataset.has(named):
            continue  # -r DATASET@SNAPSHOT: of those below, the ones that have it
        lacking.pop(id(target), None)
        how, tree = job.settings.how(name, target.table), chosen.tree(name)
        try:
            if job.request.package:
                plan.items.append(Item(decide_package(tree, how, snapshot=named), how, tree))
                continue
            decided = decide(dataset, how, stored, now, snapshot=named, full=job.request.full)
        except FullsendError as error:
            plan.failures.append((name, error))
            continue
        if isinstance(decided, Unchanged):
            plan.unchanged.append(decided)
        else:
            plan.items.append(Item(decided, how, tree))
    for target in lacking.values():
        name = ", ".join(f"{pattern}@{target.snapshot}" for pattern in target.selection.patterns)
        plan.failures.append((name, CannotSend("no dataset that is meant has this snapshot")))
    return plan


# --- what the receiver is asked and told ------------------------------------------------------------------------------


async def _ask_bases(link: Link) -> Stored:
    """Ask what there is to build on. Raises: as Link.receive."""
    pages = link.pages(messages.BasesWanted(), messages.Bases)
    return Stored([base async for page in pages for base in page.bases])


async def _tell_unchanged(link: Link, unchanged: Sequence[Unchanged]) -> None:
    """Have written down which datasets are as they were. Raises: as Link.receive."""
    for start in range(0, len(unchanged), limits.DATASETS_PAGE):
        page = [
            messages.UnchangedDataset(dataset=each.dataset.name, snapshot=each.snapshot.name, guid=each.snapshot.guid)
            for each in unchanged[start : start + limits.DATASETS_PAGE]
        ]
        await link.send(messages.Unchanged(datasets=page))
        await link.expect(messages.Noted)


# --- doing it -------------------------------------------------------------------------------------------------------


class _Run:
    """Carries out a plan."""

    def __init__(self, job: Job, plan: Plan, summary: Summary, done: Callable[[Pushed], None]) -> None:
        self._job = job
        self._zfs = job.zfs
        self._plan = plan
        self._summary = summary
        self._done = done
        self._tag = ours.hold_tag(job.receiver)
        self._version: str | None = None
        self._away: Unreachable | None = None  # once the receiver is gone, nothing else is tried
        # Several at a time share a line.
        self._shared = Progress(time.monotonic()) if job.settings.jobs > 1 else None

    async def run(self) -> None:
        with contextlib.suppress(ZfsError):
            self._version = await self._zfs.version()
        ready = await self._prepare()
        show: Literal["auto", "always", "never"] = self._job.settings.progress if self._shared else "never"
        async with reporting(self._shared or Progress(0.0), sys.stderr, when=show):
            workers = [asyncio.create_task(self._work(ready), name="job") for _ in range(self._job.settings.jobs)]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
        if ready:
            self._fail(f"{len(ready)} more", Unreachable("not tried, since the receiver is away"))
        for item, _snapshot in ready:
            await self._tidy(item, stored=False)

    def _fail(self, name: str, error: FullsendError) -> None:
        self._summary.failures.append((name, error))
        _log.error("%s: %s", name, error)

    # --- before the first byte -----------------------------------------------------------------------------

    async def _prepare(self) -> deque[tuple[Item, Snapshot]]:
        """Take the snapshots that are wanted, and hold them. Returns: what can be sent."""
        new = [item for item in self._plan.items if item.send.snapshot is None]
        name = await self._new_name(new)
        taken: dict[str, Snapshot] = {}
        for pool in dict.fromkeys(item.send.dataset.pool for item in new):
            items = await self._take_snapshots([item for item in new if item.send.dataset.pool == pool], name)
            taken |= await self._hold_new(items, name)
        ready: deque[tuple[Item, Snapshot]] = deque()
        for item in self._plan.items:
            snapshot = item.send.snapshot or taken.get(item.name)
            if snapshot is not None:
                ready.append((item, snapshot))
        return ready

    async def _new_name(self, items: list[Item]) -> str:
        """Return the name for this run's snapshots; within a second that has one already, the next one's."""
        present = {snapshot.name for item in items for dataset in item.tree for snapshot in dataset.snapshots}
        while (name := ours.snapshot_name(self._job.receiver, time.time())) in present:  # noqa: ASYNC110 - of a clock
            await asyncio.sleep(1 - time.time() % 1)
        return name

    async def _take_snapshots(self, items: list[Item], name: str) -> list[Item]:
        """Take one snapshot of each, all of one pool, in one transaction. Returns: those that have it; who cannot have
        one is a failure, and in nobody's way.
        """
        failed: dict[str, ZfsError] = {}
        names = [f"{item.name}@{name}" for item in items]
        if self._job.request.package:
            for each in names:
                try:
                    await self._zfs.snapshot_tree(each)
                except ZfsError as error:
                    failed[each] = error
        else:
            failed = await self._zfs.snapshot(names)
        for each, why in failed.items():
            self._fail(each.partition("@")[0], why)
        return [item for item in items if f"{item.name}@{name}" not in failed]

    async def _hold_new(self, items: list[Item], name: str) -> dict[str, Snapshot]:
        """Hold the new snapshots of these, and their bases. Returns: those that can be sent, by dataset."""
        wanted = {item.name: [*item.names(name), *item.held_base] for item in items}
        everything = [each for names in wanted.values() for each in names]
        failed: dict[str, ZfsError] = {}
        try:
            await self._zfs.hold(self._tag, everything)
        except ZfsError as error:
            failed = dict.fromkeys(error.about(everything), error)
        try:
            listing = await self._zfs.list_snapshots([each for item in items for each in item.names(name)])
        except ZfsError as error:
            listing, failed = "", dict.fromkeys(everything, error)
        found = source.parse_snapshots(listing)
        for dataset in (dataset for item in items for dataset in item.tree):
            if (snapshot := found.get(f"{dataset.name}@{name}")) is not None:
                dataset.snapshots.append(snapshot)
        held: dict[str, Snapshot] = {}
        for item in items:
            why = next((failed[each] for each in wanted[item.name] if each in failed), None)
            if why is None and f"{item.name}@{name}" in found:
                held[item.name] = found[f"{item.name}@{name}"]
                continue
            self._fail(item.name, why or CannotSend("its new snapshot has been destroyed by somebody"))
            await self._tidy(item, stored=False)
        return held

    # --- one stream after another ----------------------------------------------------------------------------

    async def _work(self, ready: deque[tuple[Item, Snapshot]]) -> None:
        while ready and self._away is None:
            item, snapshot = ready.popleft()
            stored = False
            try:
                await self._push_one(item, snapshot)
                stored = True
            except Unreachable as error:
                self._away = error
                self._fail(f"{item.name}@{snapshot.name}", error)
            except FullsendError as error:
                self._fail(f"{item.name}@{snapshot.name}", error)
            await self._tidy(item, stored=stored)

    async def _push_one(self, item: Item, snapshot: Snapshot) -> None:
        send = item.send
        if send.reason:
            level = logging.INFO if send.routine else logging.WARNING
            _log.log(level, "%s: a new full: %s", item.name, send.reason)
        if send.snapshot is not None:  # else it is held since it was taken
            await self._zfs.hold(self._tag, [*item.names(snapshot.name), *item.held_base])
        try:
            pushed = await self._transfer(item, send, snapshot)
        except PeerError as error:
            if error.code is not ErrorCode.BASE or send.base is None:
                raise
            _log.warning("%s: a full instead of an increment: %s", item.name, error)
            pushed = await self._transfer(item, send.full(str(error)), snapshot)
        if isinstance(pushed, Pushed):
            self._summary.pushed += 1
            self._done(pushed)
        else:
            self._summary.stored += 1
        if not self._job.request.package:
            await self._set_bookmark(send.dataset, snapshot)

    async def _transfer(self, item: Item, send: Send, snapshot: Snapshot) -> Pushed | object:
        """Send a stream: the rest of it, where it has arrived in part and a token can make the rest; else all of it, of
        which what has arrived is compared and not sent again; where it is not the same, it starts over.
        """
        name = f"{send.dataset.name}@{snapshot.name}"
        if item.begun is not None and item.begun.resume_offset is not None and send is item.send:
            try:
                return await self._transfer_once(send, item.how, snapshot, "token", item.begun)
            except (NotTheSameStream, ZfsError) as error:
                _log.info("%s: is sent anew and compared, since a token cannot serve: %s", name, error)
            except (OtherBytes, CannotGoOn) as error:
                _log.warning("%s: starts over: %s", name, error)
        try:
            return await self._transfer_once(send, item.how, snapshot, "replay")
        except (OtherBytes, CannotGoOn) as error:
            _log.warning("%s: starts over: %s", name, error)
            return await self._transfer_once(send, item.how, snapshot, "none")

    async def _transfer_once(
        self, send: Send, how: How, snapshot: Snapshot, resume: Resume, begun: PartialEntry | None = None
    ) -> Pushed | object:
        settings, package = self._job.settings, self._job.request.package
        arguments = send.arguments(snapshot.name)
        size = await self._zfs.estimate(*arguments)
        properties = _short(await self._zfs.local_properties(send.dataset.name))
        options = Options(how.level, settings.threads, settings.bwlimit, settings.retry_for)
        about = About(
            size=size,
            zfs_version=self._version,
            properties=properties,
            single=not package,
            claim=self._job.claim(send.dataset),
            resume=resume,
            reached=True,
        )
        async with contextlib.AsyncExitStack() as stack:
            progress = self._shared
            if progress is None:
                label = f"{send.dataset.name}@{snapshot.name}"
                label = label if len(label) <= _LABEL else f"…{label[1 - _LABEL :]}"
                progress = Progress(time.monotonic(), size, label)
                await stack.enter_async_context(reporting(progress, sys.stderr, when=settings.progress))
            else:
                progress.expect(size)
            where = self._job.endpoint, self._job.identity, options
            if begun is not None:
                pushed = await go_on_by_token(self._zfs, begun, *where, about=about, progress=progress)
            else:
                sending = await stack.enter_async_context(self._zfs.send(*arguments))
                about = replace(about, ended=sending.succeeded)
                pushed = await transfer(sending.fd, *where, about=about, progress=progress)
            progress.done = self._shared is None
            return pushed

    async def _set_bookmark(self, dataset: Dataset, snapshot: Snapshot) -> None:
        """Remember what is stored, so that the next increment survives the snapshot."""
        name = ours.bookmark_name(self._job.receiver, snapshot.guid)
        if any(mark.name == name for mark in dataset.bookmarks):
            return
        try:
            await self._zfs.bookmark(f"{dataset.name}@{snapshot.name}", f"{dataset.name}#{name}")
        except ZfsError as error:
            # What was pushed is stored all the same, and the snapshot itself can be the next base.
            _log.warning("%s", error)
            return
        dataset.bookmarks.append(snapshot._replace(name=name))
        dataset.bookmarks.sort(key=lambda mark: mark.createtxg)

    # --- afterwards ----------------------------------------------------------------------------------------

    async def _tidy(self, item: Item, *, stored: bool) -> None:
        """Release what need not be held any more, and destroy our own snapshots and bookmarks that had their time.

        Where the stream is not stored, its snapshot and base stay held. None of this fails the push: the next run comes
        by here again.
        """
        base = item.send.base
        for dataset in item.tree:
            old = keep.outdated_snapshots(dataset, self._job.receiver, item.how.keep)
            if base is not None and not stored:  # where no bookmark says that it is the last common one
                old = [snapshot for snapshot in old if snapshot.guid != base.guid]
            with _not_now(dataset.name):
                points = dataset.snapshots if stored else old
                await _release(self._job, [f"{dataset.name}@{point.name}" for point in points])
            with _not_now(dataset.name):
                await self._destroy(dataset.name, [snapshot.name for snapshot in old])
            # Whether or not they could be destroyed: nothing is to build on them any more.
            dataset.snapshots = [snapshot for snapshot in dataset.snapshots if snapshot not in old]
            for mark in keep.outdated_bookmarks(dataset, self._job.receiver):
                with _not_now(dataset.name):
                    await self._zfs.destroy_bookmark(f"{dataset.name}#{mark.name}")
                dataset.bookmarks.remove(mark)

    async def _destroy(self, dataset: str, names: Sequence[str]) -> None:
        """Destroy snapshots, as far as they can be: one of which there is a clone must not keep the others."""
        if not names:
            return
        try:
            await self._zfs.destroy_snapshots(dataset, names)
        except ZfsError:
            if len(names) == 1:
                raise
            for name in names:
                with _not_now(dataset):
                    await self._zfs.destroy_snapshots(dataset, [name])


async def _release_left(job: Job, unchanged: Sequence[Dataset]) -> None:
    """Release what a run that was killed after its receipt has left of holds; of a dataset that changes, the next push
    does it.
    """
    held = [f"{dataset.name}@{each.name}" for dataset in unchanged for each in dataset.snapshots if each.userrefs]
    with _not_now("what is unchanged"):
        await _release(job, held)


async def _release(job: Job, snapshots: Sequence[str]) -> None:
    """Release this run's holds, and those that earlier runs for this receiver have left. Raises: ZfsError."""
    prefix = ours.hold_prefix(job.receiver)
    by_tag: dict[str, list[str]] = {}
    for name, tag in await job.zfs.holds(snapshots):
        if tag.startswith(prefix):
            by_tag.setdefault(tag, []).append(name)
    for tag, held in by_tag.items():
        await job.zfs.release(tag, held)


@contextlib.contextmanager
def _not_now(dataset: str) -> Iterator[None]:
    """What fails in here fails no push: the next run comes by again."""
    try:
        yield
    except ZfsError as error:
        _log.info("%s: not tidied up: %s", dataset, error)


async def _expected(job: Job, item: Item) -> str:
    """Return what a stream is, and about how large, for a person."""
    send = item.send
    kind = "package" if job.request.package else "full" if send.base is None else "incremental"
    size: int | None
    if send.snapshot is not None:
        size = await job.zfs.estimate(*send.arguments(send.snapshot.name))
    elif send.base is None:
        size = sum(dataset.referenced for dataset in item.tree)
    else:
        size = await job.zfs.written_since(send.dataset.name, f"{send.base_mark}{send.base.name}")
    why = f", since {send.reason}" if send.reason else ""
    return f"{kind}{'' if size is None else f', about {format_size(size)}'}{why}"


def _short(properties: dict[str, str]) -> dict[str, str]:
    """Return as many properties as the manifest has room for, the short ones first."""
    kept: dict[str, str] = {}
    for name, value in sorted(properties.items(), key=lambda pair: len(pair[0]) + len(pair[1])):
        if properties_size({**kept, name: value}) > limits.PROPERTIES_MAX:
            _log.info("%s and longer properties are left out of the manifest", name)
            break
        kept[name] = value
    return dict(sorted(kept.items()))
