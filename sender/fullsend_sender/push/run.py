"""`fullsend push`: from a request to stored streams.

    list, lock -> ask what is stored -> plan -> snapshot, hold -> send, one dataset after another -> bookmark, clean up

The receiver is asked before anything changes in a pool. A failure of one dataset is noted, and the others continue.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections import deque
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from fullsend_cli.progress import Progress, short_label
from fullsend_protocol.format.manifest import properties_size
from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import (
    ErrorCode,
    FullsendError,
    NotTheSameStream,
    PeerError,
    StreamError,
    Unreachable,
)
from fullsend_protocol.shared.stages import StageWaits
from fullsend_protocol.shared.units import plural
from fullsend_protocol.wire import messages
from fullsend_sender.host.failures import UnexpectedError, as_failure, log_failure
from fullsend_sender.host.locks import locks
from fullsend_sender.host.options import SendOptions
from fullsend_sender.host.restoring import being_restored
from fullsend_sender.push import naming, read_only
from fullsend_sender.push.ahead import BegunStream, Outgoing, may_begin
from fullsend_sender.push.cleaner import Cleaner
from fullsend_sender.push.job import PushItem, PushJob, PushPlan, PushSummary
from fullsend_sender.push.plan import CannotSend, PlannedSend, StoredBases
from fullsend_sender.push.prune_source import EndedPush, prune_source, release_stale_holds
from fullsend_sender.push.targets import (
    ChosenDatasets,
    choose,
    gone,
    leave_unfinished_restores,
    make_plan,
    repairs,
    unfinished,
)
from fullsend_sender.transfer.connections import Connections
from fullsend_sender.transfer.link import connect
from fullsend_sender.transfer.listing import bases_and_damaged, partials
from fullsend_sender.transfer.memory import default_threads
from fullsend_sender.transfer.progress import publishing, reporting
from fullsend_sender.transfer.resume import resume_by_token
from fullsend_sender.transfer.retry import is_transient
from fullsend_sender.transfer.segments import CannotResume, DifferentBytes, starts_over
from fullsend_sender.transfer.send import NoProgress, Pushed, StreamContext, TransferOptions, transfer
from fullsend_sender.zfs import inventory
from fullsend_sender.zfs.commands import ZfsError
from fullsend_sender.zfs.inventory import Dataset, Snapshot
from fullsend_sender.zfs.pools import PoolError, while_usable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fullsend_protocol.format.manifest import PartialEntry, Resume
    from fullsend_sender.host.locks import Locks
    from fullsend_sender.transfer.link import Link
    from fullsend_sender.transfer.send import Transfer

_log: Final = logging.getLogger("fullsend.push")

#: Datasets of a pool whose properties are worth two commands for all of them instead of one for each.
_MANY: Final = 3


async def push(job: PushJob, done: Callable[[Pushed], None], summary: PushSummary | None = None) -> PushSummary:
    """Push what the job requests. `done` is called with each stream that is stored, and raises nothing; `summary`: is
    filled in, also if this raises.

    Returns: what was done, and the failures. Raises: Unreachable, PeerError, WrongReceiver, UsageError, ZfsError: then
    nothing new was begun.
    """
    summary = PushSummary() if summary is None else summary
    try:
        await _push(job, summary, done)
    finally:
        _warn_of_piles(summary)
    return summary


def _warn_of_piles(summary: PushSummary) -> None:
    """Log, in one line, where outdated snapshots pile up. It fails no push."""
    if summary.piles:
        first, why = next(iter(summary.piles.items()))
        others = f", and {plural(len(summary.piles) - 1, 'other dataset')}" if len(summary.piles) > 1 else ""
        text = "outdated snapshots pile up, because not one can be destroyed"
        _log.warning("%s%s: %s: %s; end what keeps them, or permit it (zfs allow)", first, others, text, why)


class _Asked(NamedTuple):
    """What `zfs` says of a stream before it is sent: its raw bytes, and its dataset's properties."""

    size: int | None
    properties: dict[str, str]


async def _push(job: PushJob, summary: PushSummary, done: Callable[[Pushed], None]) -> None:
    with locks(job.receiver, job.locks_in) as locked:
        chosen = await _choose(job, locked, summary)
        chosen.warn(_log)
        # Before anything new is begun, and before the plan for what is new: streams that are damaged at the receiver
        # are sent again, the base before what builds on it, and then what earlier runs have begun is finished.
        finish, tried, no_more = True, set[object](), set[str]()
        while True:
            first, plan = await _look(job, chosen, tried, finish=finish)
            if not first.items:
                break
            finish = finish and any(item.send.again for item in first.items)
            away, of_these = await _finish(job, chosen, first, summary, done)
            if away:
                return
            # That may have taken hours, so the datasets must be listed again.
            chosen = await _choose(job, locked, summary)
            no_more |= of_these
            chosen.leave_out(no_more)
        summary.current |= {each.dataset.name for each in plan.unchanged}
        summary.unchanged += sum(each.still for each in plan.unchanged)
        summary.still += [each.dataset.name for each in plan.unchanged if each.still]
        summary.stored += sum(not each.still for each in plan.unchanged)
        _note(job, summary, plan.failures)
        try:
            await release_stale_holds(job, [each.dataset for each in plan.unchanged if each.still], plan.partials)
        except Exception as error:  # noqa: BLE001 - of any class, it stops no push
            _note(job, summary, [("what is unchanged", as_failure(error))])
        if plan.items:
            await _Run(job, plan, summary, done).run()


async def _choose(job: PushJob, locked: Locks, summary: PushSummary) -> ChosenDatasets:
    """List and select the datasets, and take the locks. Datasets that have failed already are not tried again.

    Raises: as `choose`.
    """
    chosen = await choose(job)
    summary.chosen |= chosen.targets.keys()
    known = {name for name, _error in summary.failures}
    chosen.leave_out(known)
    chosen.leave_to_restores(partial(being_restored, job.zfs.line(), folder=job.locks_in))
    # Before anything else, so that a second push learns of it at once.
    chosen.keep_apart(locked.take)
    _note(job, summary, [(name, error) for name, error in chosen.failures if name not in known])
    return chosen


def _note(job: PushJob, summary: PushSummary, failures: Sequence[tuple[str, FullsendError]]) -> None:
    for name, error in failures:
        log_failure(_log, name, error, debug=job.debug)
    summary.failures += failures


async def _look(job: PushJob, chosen: ChosenDatasets, tried: set[object], *, finish: bool) -> tuple[PushPlan, PushPlan]:
    """Ask the receiver what is stored, and plan.

    Returns: a plan for what comes first: damaged streams to send again, whose identities are added to `tried`, and are
    not among it yet; if there are none, with `finish`, the streams that earlier runs have begun and this one can
    finish. If there are none of these either: a plan for what is new, and the receiver has noted what is unchanged.
    Raises: Unreachable, PeerError, WrongReceiver.
    """
    if not chosen.targets:
        return PushPlan(), PushPlan()
    async with connect(job.endpoint, job.identity) as (link, _name):
        (bases, damaged), arrived = await bases_and_damaged(link), await partials(link)
        stored = StoredBases(bases, damaged)
        first = repairs(job, chosen, stored, arrived, tried)
        if not first and finish:
            first = unfinished(job, chosen, stored, arrived)
        if first:
            return PushPlan(items=first, partials=arrived), PushPlan()
        plan = make_plan(job, chosen, stored, arrived, time.time())
        await leave_unfinished_restores(job, plan, stored)
        plan.failures += await gone(link, job, chosen, bases)
        await _tell_unchanged(link, plan)
        return PushPlan(), plan


async def _finish(
    job: PushJob, chosen: ChosenDatasets, begun: PushPlan, summary: PushSummary, done: Callable[[Pushed], None]
) -> tuple[bool, set[str]]:
    """Finish what earlier runs have begun, or send again what is damaged. If a stream cannot be made again, that is not
    a failure: a later step decides what to send instead. Nor is it one if the receiver refuses a stream that is sent
    again: the damage was known before, and `status` names it. All other errors are failures, and what has arrived so
    far is kept.

    Returns: whether the receiver is away; and the datasets of which nothing more is to be sent. These are the ones
    whose named snapshot is finished or has failed, and those of which anything else would fail as well.
    """
    tried = PushSummary()
    await _Run(job, begun, tried, done, finishing=True).run()
    summary.pushed += tried.pushed
    summary.stored += tried.stored
    summary.piles |= tried.piles
    away = False
    named = {item.name for item in begun.items if chosen.targets[item.name].snapshot is not None}
    summary.current |= tried.current & named  # of the others something newer is sent
    no_more = set(named)
    again = {item.name for item in begun.items if item.send.again}
    for name, error in tried.failures:
        dataset = name.partition("@")[0]
        of_stream = isinstance(error, ZfsError | StreamError) or _is_of_one_stream(error)
        if dataset in again and of_stream and not is_transient(error):
            _log.warning("%s: stays damaged at the receiver: %s", name, error)
            continue
        unreadable = isinstance(error, ZfsError) and error.unreadable
        # Reading the dataset once more in this run helps only if the old stream alone is given up, and at once.
        given_up = isinstance(error, NoProgress) and error.at_once and dataset not in named
        if given_up or (isinstance(error, ZfsError | StreamError) and not unreadable):
            _log.info("%s: cannot be finished, so what is new is sent instead: %s", name, error)
            no_more.discard(dataset)
            continue
        _note(job, summary, [(name, error)])
        away = away or is_transient(error)
        if not _is_of_one_stream(error):
            no_more.add(dataset)
    return away, no_more


def _is_of_one_stream(error: FullsendError) -> bool:
    """Whether another stream of the dataset may not have this error: for example the receiver's part of the one is
    damaged. Not so without room, and not if what was sent or received is in doubt.
    """
    if isinstance(error, PeerError):
        return error.code not in {ErrorCode.SPACE, ErrorCode.BUSY}
    return isinstance(error, UnexpectedError)


async def _tell_unchanged(link: Link, plan: PushPlan) -> None:
    """Make the receiver record which datasets are unchanged. A dataset with an error becomes a failure of the plan.

    Raises: as Link.receive.
    """
    said: list[messages.UnchangedDataset] = []
    for each in [each for each in plan.unchanged if each.still]:
        name, snapshot = each.dataset.name, each.snapshot
        try:
            said.append(messages.UnchangedDataset(dataset=name, snapshot=snapshot.name, guid=snapshot.guid))
        except Exception as error:  # noqa: BLE001 - of any class, it is a failure of one dataset
            plan.unchanged.remove(each)
            plan.failures.append((name, as_failure(error)))
    for start in range(0, len(said), limits.DATASETS_PAGE):
        await link.ask(messages.Unchanged(datasets=said[start : start + limits.DATASETS_PAGE]), messages.Noted)


class _Run:
    """Executes a plan."""

    def __init__(
        self,
        job: PushJob,
        plan: PushPlan,
        summary: PushSummary,
        done: Callable[[Pushed], None],
        *,
        finishing: bool = False,
    ) -> None:
        """`finishing`: the plan is to finish what was begun; the caller judges the failures, and logs them."""
        self._job = job
        self._finishing = finishing
        self._read_only: set[str] = set()  # pools that have turned out to be read-only
        self._unusable: dict[str, PoolError] = {}  # ... and to be unusable, during this run
        self._zfs = job.zfs
        self._plan = plan
        self._summary = summary
        self._done = done
        self._tag = naming.hold_tag(job.receiver)
        self._version: str | None = None
        self._properties: dict[str, dict[str, str]] = {}  # what is set on the next datasets, by name
        self._asked_ahead: dict[tuple[str, ...], asyncio.Task[_Asked]] = {}  # by the arguments of `zfs send`
        self._begun_ahead: dict[tuple[str, ...], BegunStream] = {}  # by the same
        self._connections = Connections()
        self._cleaner = Cleaner(self._clean_up)
        self._away: FullsendError | None = None  # once the receiver is lost, nothing else is tried
        # Several jobs share one progress line.
        self._shared = Progress(time.monotonic()) if job.settings.jobs > 1 else None

    async def run(self) -> None:
        with contextlib.suppress(ZfsError):
            self._version = await self._zfs.version()
        ready = await self._prepare()
        show: Literal["auto", "always", "never"] = self._job.settings.progress if self._shared else "never"
        reported = reporting(self._shared or Progress(0.0), sys.stderr, when=show)
        async with reported, self._cleaner, self._connections:
            workers = [asyncio.create_task(self._work(ready), name="job") for _ in range(self._job.settings.jobs)]
            try:
                await asyncio.gather(*workers)
            finally:
                # A second signal cancels again; all the same each of them ends.
                async with contextlib.AsyncExitStack() as ending:
                    for begun in self._begun_ahead.values():
                        ending.push_async_callback(begun.close)
                    tasks = [*workers, *self._asked_ahead.values()]
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
            if ready:
                self._fail(f"{len(ready)} more", Unreachable("not tried, because the receiver is away"))
            for item, snapshot in ready:
                self._cleaner.add(EndedPush(item, snapshot.name, stored=False))

    def _fail(self, name: str, error: Exception) -> None:
        failure = as_failure(error)
        self._summary.failures.append((name, failure))
        if not self._finishing:
            log_failure(_log, name, failure, debug=self._job.debug)

    async def _clean_up(self, ended: Sequence[EndedPush]) -> None:
        """Clean up behind streams, each pool by itself."""
        by_pool: dict[str, list[EndedPush]] = {}
        for each in ended:
            by_pool.setdefault(each.item.send.dataset.pool, []).append(each)
        for pool, of_it in by_pool.items():
            if pool in {*self._read_only, *self._unusable}:
                continue  # nothing can be changed in this pool
            try:
                pruning = prune_source(self._job, of_it, self._plan.partials, self._tag, self._summary.piles)
                for name, error in await while_usable(self._zfs, pool, pruning):
                    self._fail(name, error)
            except PoolError as error:
                self._unusable[pool] = error
                _log.info("%s: not cleaned up: %s", pool, error)

    # --- before the first byte -----------------------------------------------------------------------------

    async def _prepare(self) -> deque[tuple[PushItem, Snapshot]]:
        """Take the new snapshots, and hold them. Returns: the items that can be sent."""
        new = self._plan.new
        name, wait = self._plan.new_name(self._job.receiver, time.time())
        await asyncio.sleep(wait)
        taken: dict[str, Snapshot] = {}
        for pool in dict.fromkeys(item.send.dataset.pool for item in new):
            of_it = [item for item in new if item.send.dataset.pool == pool]
            try:
                taken |= await while_usable(self._zfs, pool, self._take_and_hold(of_it, name))
            except Exception as error:  # noqa: BLE001 - of any class, it is a failure of one pool
                for item in of_it:
                    self._fail(item.name, error)
        ready: deque[tuple[PushItem, Snapshot]] = deque()
        for item in self._plan.items:
            snapshot = item.send.snapshot or taken.get(item.name)
            if snapshot is not None:
                ready.append((item, snapshot))
        await self._ask_properties([item for item, _snapshot in ready])
        return ready

    async def _ask_properties(self, items: Sequence[PushItem]) -> None:
        """Ask for the properties of many datasets at once. What goes wrong with it counts at the turn of each, when it
        is asked for by itself.
        """
        for pool in dict.fromkeys(item.send.dataset.pool for item in items):
            names = list(dict.fromkeys(item.name for item in items if item.send.dataset.pool == pool))
            if len(names) < _MANY or pool in self._unusable:
                continue
            try:
                asking = self._zfs.local_properties_of(names)
                found = await while_usable(self._zfs, pool, asking)
            except FullsendError as error:
                _log.info("%s: properties are asked for one by one: %s", pool, error)
            else:
                self._properties |= {name: _short(properties) for name, properties in found.items()}

    async def _take_and_hold(self, items: list[PushItem], name: str) -> dict[str, Snapshot]:
        """Take the new snapshots of one pool, and hold them. Returns: those that can be sent, by dataset."""
        return await self._hold_new(await self._take_snapshots(items, name), name)

    async def _take_snapshots(self, items: list[PushItem], name: str) -> list[PushItem]:
        """Take one snapshot of each, all of one pool, in one transaction. Returns: the items that have it. An item that
        cannot have one is a failure, and does not stop the others.
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
            dataset = next(item.send.dataset for item in items if item.name == each.partition("@")[0])
            self._fail(dataset.name, read_only.no_snapshot(dataset, why) if why.read_only else why)
        return [item for item in items if f"{item.name}@{name}" not in failed]

    async def _hold_new(self, items: list[PushItem], name: str) -> dict[str, Snapshot]:
        """Hold the new snapshots of these items, and their bases. Returns: those that can be sent, by dataset."""
        wanted = {item.name: [*item.names(name), *item.held_base] for item in items}
        everything = [each for names in wanted.values() for each in names]
        failed = await self._zfs.hold(self._tag, everything)
        try:
            listing = await self._zfs.list_snapshots([each for item in items for each in item.names(name)])
        except ZfsError as error:
            listing, failed = "", dict.fromkeys(everything, error)
        found = inventory.parse_snapshots(listing)
        for dataset in (dataset for item in items for dataset in item.tree):
            if (snapshot := found.get(f"{dataset.name}@{name}")) is not None:
                dataset.snapshots.append(snapshot)
        held: dict[str, Snapshot] = {}
        for item in items:
            why = next((failed[each] for each in wanted[item.name] if each in failed), None)
            if why is None and f"{item.name}@{name}" in found:
                held[item.name] = found[f"{item.name}@{name}"]
                continue
            self._fail(item.name, why or CannotSend("its new snapshot was destroyed meanwhile"))
            self._cleaner.add(EndedPush(item, name, stored=False))
        return held

    # --- one stream after another ----------------------------------------------------------------------------

    async def _work(self, ready: deque[tuple[PushItem, Snapshot]]) -> None:
        following: tuple[PushItem, Snapshot] | None = None  # the next of this job, once it has begun

        def begin_next(link: Link) -> None:
            nonlocal following
            if following is None and ready and self._begin_ahead(*ready[0], begin_next, link):
                following = ready.popleft()

        while (following or ready) and self._away is None:
            item, snapshot = following or ready.popleft()
            following = None
            if ready:
                self._ask_ahead(*ready[0])
            pool = item.send.dataset.pool
            stored = False
            try:
                self._check_usable(pool)
                await while_usable(self._zfs, pool, self._push_one(item, snapshot, begin_next))
                stored = True
            except Exception as error:  # noqa: BLE001 - of any class, it is a failure of one dataset
                failure = as_failure(error)
                if isinstance(failure, PoolError):
                    self._unusable[pool] = failure
                if is_transient(failure):  # and the retries are used up
                    self._away = failure
                self._fail(f"{item.name}@{snapshot.name}", failure)
            arguments = item.send.arguments(snapshot.name)
            if (unused := self._begun_ahead.get(arguments)) is not None:  # its pool was unusable when its turn came
                await unused.close()
                del self._begun_ahead[arguments]
            self._cleaner.add(EndedPush(item, snapshot.name, stored=stored))
        if following is not None:
            ready.appendleft(following)

    def _ask_ahead(self, item: PushItem, snapshot: Snapshot) -> None:
        """Ask `zfs` of the next stream while this one is sent. An error counts when its turn has come."""
        arguments = item.send.arguments(snapshot.name)
        if arguments not in self._asked_ahead and item.send.dataset.pool not in self._unusable:
            self._asked_ahead[arguments] = asyncio.create_task(self._ask(item.send, arguments), name="ask ahead")

    def _begin_ahead(self, item: PushItem, snapshot: Snapshot, sent: Callable[[Link], None], link: Link) -> bool:
        """Begin the next stream, if it may be begun before its turn. `sent`: as `_push_one`; `link`: the connection on
        which the one before waits for its receipt. Returns: whether it has begun.
        """
        if self._finishing or self._job.request.package or not may_begin(item):
            return False
        if item.send.dataset.pool in self._unusable:
            return False
        arguments = item.send.arguments(snapshot.name)
        outgoing = partial(self._outgoing, item.send, item.options, snapshot, "replay", sent)
        self._begun_ahead[arguments] = BegunStream(self._zfs, arguments, outgoing, link)
        return True

    async def _ask(self, send: PlannedSend, arguments: tuple[str, ...]) -> _Asked:
        """Return what the receiver is told before the stream. Raises: ZfsError."""
        size = await self._zfs.estimate(*arguments)
        known = self._properties.pop(send.dataset.name, None)
        return _Asked(size, await self._zfs.local_properties(send.dataset.name) if known is None else known)

    def _check_usable(self, pool: str) -> None:
        """Raise PoolError if a pool was suspended during this run."""
        if pool in self._unusable:
            raise self._unusable[pool]

    async def _push_one(self, item: PushItem, snapshot: Snapshot, sent: Callable[[Link], None]) -> None:
        """Send a stream. `sent`: called with the connection when all was sent, and the receipt is what is left."""
        send = item.send
        if send.reason:
            level = logging.INFO if send.routine else logging.WARNING
            _log.log(level, "%s: a new full: %s", item.name, send.reason)
        elif send.again:
            _log.warning("%s@%s: is sent again: %s", item.name, snapshot.name, send.repair)
        elif send.repair:
            _log.warning("%s: builds on an older snapshot: %s", item.name, send.repair)
        if send.snapshot is not None:  # a new snapshot is held since it was taken
            await self._hold(item, snapshot.name)
        try:
            pushed = await self._transfer(item, send, snapshot, sent)
        except ZfsError as error:
            if error.unreadable:
                error.args = (f"{error}: {self._way_out(item, snapshot)}",)
            raise
        except PeerError as error:
            if error.code is not ErrorCode.BASE or send.base is None or send.again:
                raise
            _log.warning("%s: a full instead of an increment: %s", item.name, error)
            send = send.full(str(error))
            pushed = await self._transfer(item, send, snapshot, sent)
        if send.base is not None and isinstance(pushed, Pushed) and not pushed.receipt.restorable:
            # Its base was lost or damaged while it arrived.
            self._done(pushed)
            send = send.full("the base of an increment was lost at the receiver while that arrived")
            _log.warning("%s: a full, too: %s", item.name, send.reason)
            pushed = await self._transfer(item, send, snapshot, sent)
        if isinstance(pushed, Pushed):
            if send.repair and not pushed.repair:
                pushed = replace(pushed, repair=send.repair)
            elif pushed.repair and not send.repair:  # --full, or a package, took the place of a damaged stream
                _log.warning("%s@%s: %s", item.name, snapshot.name, pushed.repair)
            self._done(pushed)
            if (
                lost := pushed.orphan("`fullsend verify` says what is damaged, and the next push sends a full")
            ) is not None:
                raise lost
        self._summary.current.add(item.name)
        if isinstance(pushed, Pushed) and not pushed.again:
            self._summary.pushed += 1
        else:
            self._summary.stored += 1
        if not self._job.request.package:
            await self._set_bookmark(send.dataset, snapshot)

    async def _hold(self, item: PushItem, snapshot: str) -> None:
        """Hold the snapshots of a stream, if the pool permits holds. Raises: ZfsError."""
        pool = item.send.dataset.pool
        if pool in self._read_only:
            return
        failed = await self._zfs.hold(self._tag, [*item.names(snapshot), *item.held_base])
        for error in failed.values():
            if not error.read_only:
                raise error
        if failed:
            self._read_only.add(pool)
            _log.warning("%s: the pool is read-only: what is pushed from it gets neither hold nor bookmark", pool)

    def _way_out(self, item: PushItem, snapshot: Snapshot) -> str:
        """Return what to do about an unreadable block."""
        dataset = item.send.dataset
        said = (
            f"it will fail again while a file in it cannot be read: `zpool status -v {dataset.pool}` names the files;"
            " remove or restore them, and the next push sends a new snapshot."
        )
        if dataset.pool in self._read_only:
            return said
        name = f"{dataset.name}@{snapshot.name}"
        release, destroy = self._zfs.line("release", self._tag, name), self._zfs.line("destroy", name)
        return f"{said} This one goes with: {release} && {destroy}"

    async def _transfer(
        self, item: PushItem, send: PlannedSend, snapshot: Snapshot, sent: Callable[[Link], None]
    ) -> Pushed | object:
        """Send a stream. If a part of it has arrived and a token can make the rest, send the rest. Otherwise make the
        whole stream: the part that has arrived is compared and not sent again. If it differs, start over.
        """
        name = f"{send.dataset.name}@{snapshot.name}"
        if item.begun is not None and item.begun.resume_offset is not None and send is item.send:
            try:
                return await self._transfer_once(send, item.options, snapshot, "token", sent, begun=item.begun)
            except (NotTheSameStream, ZfsError) as error:
                if isinstance(error, ZfsError) and error.unreadable:
                    raise  # reading all that precedes the block again would not help
                _log.info("%s: is sent again and compared, because a token cannot serve: %s", name, error)
            except (DifferentBytes, CannotResume, PeerError) as error:
                if not starts_over(error):
                    raise
                _log.warning("%s: starts over: %s", name, error)
        try:
            arrived = item.arrived(send)
            return await self._transfer_once(send, item.options, snapshot, "replay", sent, arrived=arrived)
        except (DifferentBytes, CannotResume, PeerError) as error:
            if not starts_over(error):
                raise
            _log.warning("%s: starts over: %s", name, error)
            return await self._transfer_once(send, item.options, snapshot, "none", sent)

    async def _outgoing(
        self,
        send: PlannedSend,
        chosen: SendOptions,
        snapshot: Snapshot,
        resume: Resume,
        sent: Callable[[Link], None],
        *,
        arrived: int = 0,
    ) -> Outgoing:
        """Return what the transfer of a stream needs. Raises: ZfsError."""
        settings, arguments = self._job.settings, send.arguments(snapshot.name)
        ahead = self._asked_ahead.pop(arguments, None)
        size, properties = await (ahead or self._ask(send, arguments))
        options = TransferOptions(
            level=chosen.level,
            threads=settings.threads or default_threads(settings.jobs),
            throttle=self._job.throttle,
            retry_for=settings.retry_for,
            connections=self._connections,
        )
        about = StreamContext(
            size=size if chosen.size_check else None,
            zfs_version=self._version,
            properties=_short(properties),
            single=not self._job.request.package,
            claim=self._job.claim(send.dataset),
            resume=resume,
            reached=True,
            arrived=arrived,
            sent=sent,
        )
        name = f"{send.dataset.name}@{snapshot.name}"
        waits = StageWaits("source", "receiver")
        progress = Progress(time.monotonic(), size, short_label(name), waits=waits, within=self._shared)
        progress.stream = name
        return Outgoing(self._job.endpoint, self._job.identity, options, about, progress)

    async def _transfer_once(
        self,
        send: PlannedSend,
        chosen: SendOptions,
        snapshot: Snapshot,
        resume: Resume,
        sent: Callable[[Link], None],
        *,
        begun: PartialEntry | None = None,
        arrived: int = 0,
    ) -> Pushed | object:
        arguments = send.arguments(snapshot.name)
        async with contextlib.AsyncExitStack() as stack:
            ahead = self._begun_ahead.pop(arguments, None)
            transfer_ahead: Transfer | None = None
            if ahead is not None:
                stack.push_async_callback(ahead.close)
                transfer_ahead, outgoing = await ahead.ready()
                outgoing.progress.restart(time.monotonic())
            else:
                arrived = begun.raw_bytes if begun else arrived
                outgoing = await self._outgoing(send, chosen, snapshot, resume, sent, arrived=arrived)
            progress = outgoing.progress
            if self._shared is None:
                showing = reporting(progress, sys.stderr, when=self._job.settings.progress)
                await stack.enter_async_context(showing)
            publish = publishing(progress, "push", self._job.endpoint.name, folder=self._job.locks_in)
            await stack.enter_async_context(publish)
            about, where = outgoing.about, (outgoing.endpoint, outgoing.identity, outgoing.options)
            pushed: Pushed | object
            if transfer_ahead is not None:
                pushed = await transfer_ahead.run()
            elif begun is not None:
                pushed = await resume_by_token(self._zfs, begun, *where, about=about, progress=progress)
            else:
                sending = await stack.enter_async_context(self._zfs.send(*arguments))
                about = replace(about, ended=sending.succeeded)
                pushed = await transfer(sending.fd, *where, about=about, progress=progress)
            progress.done = True
            return pushed

    async def _set_bookmark(self, dataset: Dataset, snapshot: Snapshot) -> None:
        """Record what is stored, so that the next increment does not need the snapshot."""
        name = naming.bookmark_name(self._job.receiver, snapshot.guid)
        if dataset.pool in self._read_only:
            return
        if any(mark.name == name for mark in dataset.bookmarks):
            return
        try:
            await self._zfs.bookmark(f"{dataset.name}@{snapshot.name}", f"{dataset.name}#{name}")
        except ZfsError as error:
            # What was pushed is stored nevertheless, and the snapshot itself can be the next base. `check` says what a
            # pool without bookmarks costs; a warning each night would be too often.
            _log.log(logging.INFO if error.no_bookmarks else logging.WARNING, "%s: %s", dataset.name, error)
            return
        dataset.bookmarks.append(snapshot._replace(name=name))
        dataset.bookmarks.sort(key=lambda mark: mark.createtxg)


def _short(properties: dict[str, str]) -> dict[str, str]:
    """Return as many properties as the manifest has room for, the shortest first."""
    kept: dict[str, str] = {}
    for name, value in sorted(properties.items(), key=lambda pair: len(pair[0]) + len(pair[1])):
        if properties_size({**kept, name: value}) > limits.PROPERTIES_MAX:
            _log.info("%s and longer properties are left out of the manifest", name)
            break
        kept[name] = value
    return dict(sorted(kept.items()))
