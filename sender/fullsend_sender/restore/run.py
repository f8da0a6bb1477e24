"""`fullsend restore`: from a request to restored datasets.

    list what is stored -> plan (restore.plan) -> receive, one stream after another

Each stream is proven while it flows into `zfs receive`. An interrupted one is resumed inside the stream
(stream.rejoin).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shlex
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fullsend_cli.progress import Progress
from fullsend_protocol.format.lost_spills import restoring_loses
from fullsend_protocol.format.proof import Proof
from fullsend_protocol.format.quotas import brings_properties, held_back, quotas_of
from fullsend_protocol.format.restore_commands import settled, unmounted
from fullsend_protocol.shared.errors import ChunkError, FullsendError, StreamError, Unreachable, UsageError
from fullsend_protocol.shared.stages import StageWaits
from fullsend_protocol.shared.units import format_duration, format_size, plural
from fullsend_sender.host.failures import as_failure
from fullsend_sender.host.options import RETRY_FOR
from fullsend_sender.restore.cat import DamagedTransfer, cat
from fullsend_sender.restore.chains import Library
from fullsend_sender.restore.details import StoredDetails
from fullsend_sender.restore.encryption import choose_encryption, say_what_changed
from fullsend_sender.restore.onto_base import OntoBase
from fullsend_sender.restore.plan import ParentDataset, RestoreItem, RestorePlan, RestoreRequest, make_plan
from fullsend_sender.restore.resume import find_rest
from fullsend_sender.transfer.link import connect
from fullsend_sender.transfer.listing import all_stored
from fullsend_sender.transfer.progress import publishing, reporting
from fullsend_sender.zfs import inventory
from fullsend_sender.zfs.commands import ZfsError
from fullsend_sender.zfs.pools import PoolError, while_usable
from fullsend_sender.zfs.selection import lineage, pool_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from typing import Literal

    from fullsend_protocol.format.manifest import StreamEntry
    from fullsend_protocol.wire.live import Activity
    from fullsend_sender.host.identity import Identity
    from fullsend_sender.host.options import Endpoint
    from fullsend_sender.restore.plan import LaterSnapshots
    from fullsend_sender.restore.resume import Rest
    from fullsend_sender.zfs.commands import Quota, Zfs

_log: Final = logging.getLogger("fullsend.restore")

#: The text of `zfs` if an increment meets a dataset that was written to.
_MODIFIED: Final = "has been modified"


class NotTried(FullsendError):  # noqa: N818 - reads as what it says
    """A dataset whose parent, or whose pool, has failed."""


@dataclass(frozen=True, slots=True)
class Restored:
    """A restored dataset.

    `raw_bytes`, `streams`: what this run received; `resumed_at`: the raw offset in the first stream, up to which it had
    been received before; `undo`: the command that lets it mount as it did at home, None: it may already; `package`: its
    streams brought other datasets, below it; `written`: it was written to since the snapshot; `rolled_back`: what had
    been written there before the streams is discarded; `later`: what the target has after the snapshot;
    `note`: what the user was told of it, None: nothing.
    """

    wanted: StreamEntry
    target: str
    streams: int
    raw_bytes: int
    resumed_at: int
    seconds: float
    undo: str | None
    package: bool
    written: bool = False
    rolled_back: bool = False
    later: LaterSnapshots | None = None
    note: str | None = None

    def line(self) -> str:
        """Return the line for a person."""
        name = f"{self.wanted.dataset}@{self.wanted.snapshot}"
        if not self.streams:
            discarded = "; what was written there since is discarded" if self.rolled_back else ""
            more = f", and {self.target} was written to since (-F discards that)" if self.written else ""
            below = f", below @{self.later.newest}: {self.later.way_back}" if self.later is not None else ""
            return f"{name} is in {self.target} already{more}{discarded}{below}"
        size = f"{plural(self.streams, 'stream')}, {format_size(self.raw_bytes)}, in {format_duration(self.seconds)}"
        resumed = f" (resumed after {format_size(self.resumed_at)})" if self.resumed_at else ""
        return f"{name} is restored into {self.target}: {size}{resumed}"

    def to_dict(self) -> dict[str, object]:
        """Return the JSON object of one restored dataset."""
        return {
            "dataset": self.wanted.dataset,
            "snapshot": self.wanted.snapshot,
            "guid": self.wanted.guid,
            "target": self.target,
            "streams": self.streams,
            "raw_bytes": self.raw_bytes,
            "resumed_at": self.resumed_at,
            "seconds": round(self.seconds, 3),
            "undo": self.undo,
            "written": self.written,
            "rolled_back": self.rolled_back,
            "later_snapshot": self.later.newest if self.later is not None else None,
            "note": self.note,
        }


@dataclass(frozen=True, slots=True)
class RestoreJob:
    """A request, with all that it needs."""

    wanted: RestoreRequest
    endpoint: Endpoint
    identity: Identity
    zfs: Zfs
    show: Literal["auto", "always", "never"] = "auto"
    retry_for: float = RETRY_FOR
    #: Returns more options of `zfs receive` for a stream, where what is restored is soon destroyed: then an interrupted
    #: stream leaves no part, and nothing is said of quotas and keys. None: what is restored stays.
    scratch_options: Callable[[StreamEntry], list[str]] | None = None
    #: Pools that turned out to keep no part of a stream (`zfs receive -s`).
    keeps_no_part: set[str] = field(default_factory=set)
    #: Warnings of `zfs receive` by target; it repeats them for each stream of a chain.
    complaints: set[tuple[str, str]] = field(default_factory=set)
    #: What was told of stored datasets, by their names: see RestorePlan.
    notes: dict[str, str] = field(default_factory=dict)
    #: What `fullsend top` calls it, and the folder of the file that tells it (None: the usual one).
    activity: Activity = "restore"
    live_in: str | None = None

    def options(self, item: RestoreItem, entry: StreamEntry) -> list[str]:
        """Return the options of `zfs receive` for a stream of an item, without the target."""
        options = ["-u"]
        # `zfs receive` could resume only one stream of a package.
        keeps_part = self.scratch_options is None and pool_of(item.target) not in self.keeps_no_part
        if entry.kind != "package" and keeps_part:
            options.append("-s")
        if self.unmountable(entry):
            options += unmounted(entry)
        if brings_properties(entry):
            left_out = () if self.wanted.quotas else quotas_of(entry.dataset_type)
            options += [*held_back(item.quotas), *(word for name in left_out for word in ("-x", name))]
        if item.encryption == "as its place":
            options += ["-x", "encryption"]
        elif item.encryption == "off" and entry.base_guid is None:  # an increment does not allow it
            options += ["-o", "encryption=off"]
        return options if self.scratch_options is None else [*options, *self.scratch_options(entry)]

    def held(self, item: RestoreItem) -> list[str]:
        """Return the quotas and reservations that are held back until all of a dataset is restored."""
        brought = item.quotas if any(map(brings_properties, item.chain)) else ()
        return [name for name in quotas_of(item.wanted.dataset_type) if name in {*item.held, *brought}]

    def settling(self, name: str) -> tuple[str, ...]:
        """Return the arguments of `zfs`, before the target, that end the holding back of a quota or reservation: the
        received one takes effect, or with `--no-quotas` none is set. ZFS has no `inherit` without -S for them.
        """
        return ("inherit", "-S", name) if self.wanted.quotas else ("set", f"{name}=none")

    def typed(self, command: str, *arguments: str) -> str:
        """Return a fullsend command line for the same receiver, as text for a shell."""
        receiver = ["--receiver", self.endpoint.name] if self.endpoint.one_of_several else []
        return shlex.join(["fullsend", command, *arguments, *receiver])

    @property
    def flags(self) -> list[str]:
        """The options that another `fullsend restore` of the same needs, so that it does the same."""
        said = {
            "--mountable": self.wanted.mountable,
            "--no-quotas": not self.wanted.quotas,
            "--unencrypted": self.wanted.unencrypted,
        }
        return [flag for flag, wanted in said.items() if wanted]

    def roll_back_to(self, item: RestoreItem) -> str | None:
        """Return the snapshot to which the target is rolled back first; None: it is not.

        `zfs receive -F` is not used: it destroys, at its end, every snapshot that was taken meanwhile (dmu_recv.c,
        dmu_recv_end_sync).
        """
        # What is not known (None) may have been written; before a stream it is left to ZFS whether it was.
        needed = bool(item.chain) or item.written is not False
        return f"{item.target}@{item.newest}" if self.wanted.rollback and needed and item.newest is not None else None

    def undo(self, item: RestoreItem) -> str | None:
        """Return the command that restores a dataset's own `canmount`; None: it is not needed."""
        if not (item.chain or item.quiet) or not self.unmountable(item.wanted):
            return None
        return self.undo_all([item.target], package=item.package)

    def undo_all(self, targets: Sequence[str], *, package: bool) -> str:
        """Return the same for several. `package`: their streams brought the datasets below them."""
        return self.zfs.line("inherit", *(["-r"] if package else []), "-S", "canmount", *targets)

    def unmountable(self, entry: StreamEntry) -> bool:
        """Whether to keep it unmounted: a filesystem's received mountpoint may be that of a live dataset."""
        return bool(unmounted(entry)) and not self.wanted.mountable


async def restore(job: RestoreJob, done: Callable[[Restored], None]) -> list[tuple[str, FullsendError]]:
    """Restore what the job requests. `done` is called with each restored dataset, and raises nothing.

    If one dataset fails, the others are tried, except those below it whose parent is missing then.

    Returns: what failed, by name. Raises: Unreachable, PeerError, WrongReceiver, UsageError, NotRestorable, PoolError,
    ZfsError: then nothing was changed.
    """
    plan = await _plan(job)
    failures = plan.failures
    for name, error in failures:
        _log.error("%s: %s", name, error)
    waits = StageWaits("wire", "target")
    progress = Progress(time.monotonic(), sum(item.raw_bytes for item in plan.items), waits=waits)
    restored: list[RestoreItem] = []
    async with (
        reporting(progress, sys.stderr, when=job.show),
        publishing(progress, job.activity, job.endpoint.name, folder=job.live_in),
    ):
        for step in plan.steps:
            above = plan.obstacle(step)
            if above is not None:
                failures.append((step.target, NotTried(f"not tried, because {above} failed")))
                _log.error("%s: %s", *failures[-1])
                continue
            try:
                if isinstance(step, ParentDataset):
                    await _make(job, step)
                else:
                    progress.stream = f"{step.wanted.dataset}@{step.wanted.snapshot}"
                    done(await _restore_one(job, step, progress))
            except Unreachable as error:
                failures.append((step.target, error))
                failures += _left_over(plan, step, Unreachable("not tried, because the receiver is away"))
                break
            except PoolError as error:
                failures.append((step.target, error))
                failures += _left_over(plan, step, NotTried("not tried, because the pool cannot be used"))
                break
            except FullsendError as error:
                failures.append((step.target, error))
            except Exception as error:  # noqa: BLE001 - of any class, it is a failure of one dataset
                failures.append((step.target, as_failure(error)))
                _log.error("%s: %s", *failures[-1])
            else:
                plan.there.add(step.target)
                if isinstance(step, RestoreItem):
                    restored.append(step)
        progress.done = not failures
    await _finish(job, plan, restored)
    return failures


def _left_over(
    plan: RestorePlan, after: ParentDataset | RestoreItem, why: FullsendError
) -> list[tuple[str, FullsendError]]:
    """Log, and return, what is not tried because the receiver or the pool was lost. Quotas above these datasets stay
    held back.
    """
    rest = plan.steps[plan.steps.index(after) + 1 :]
    for step in rest:
        _log.error("%s: %s: run the same command again to resume", step.target, why)
    return [(step.target, why) for step in rest]


async def _finish(job: RestoreJob, plan: RestorePlan, restored: Sequence[RestoreItem]) -> None:
    """Do what must wait until all streams have arrived, and report what is not as it was at home."""
    if not restored or job.scratch_options is not None:
        return
    try:
        await while_usable(job.zfs, pool_of(plan.into), _settle_all(job, plan, restored))
    except FullsendError as error:
        _log.warning("%s: its quotas and encryption could not be compared with those at home: %s", plan.into, error)


async def _settle_all(job: RestoreJob, plan: RestorePlan, restored: Sequence[RestoreItem]) -> None:
    """Raises: ZfsError."""
    found = await job.zfs.quotas_set(plan.into, recursive=job.wanted.recursive)
    for item in reversed(restored):  # children first: the quota of a parent counts them
        await _settle(job, item.target, _held(found.get(item.target, {})), plan)
    above = lineage(plan.into)[1:]
    found |= await job.zfs.quotas_set(*above, recursive=False) if above else {}
    _say_held_back(job, plan, found, {item.target for item in restored})
    await say_what_changed(job.zfs, plan.into, restored)


def _say_held_back(
    job: RestoreJob, plan: RestorePlan, found: Mapping[str, Mapping[str, Quota]], restored: Collection[str]
) -> None:
    """Warn of other datasets with quotas that an earlier run has held back: it ended before all streams had arrived.

    `found`: by dataset, the quotas that are set on it.
    """
    for target, here in found.items():
        quotas = list(_held(here))
        if quotas and target not in restored and plan.missing_within(target) is None:
            later = "; ".join(job.zfs.line("inherit", "-S", name, target) for name in quotas)
            _log.warning(
                "%s: %s not set, because an earlier restore did not end; to set it: %s",
                *(target, ", ".join(quotas), later),
            )


def _held(here: Mapping[str, Quota]) -> dict[str, Quota]:
    """Return the quotas that are held back on a dataset."""
    return {name: quota for name, quota in here.items() if quota.held}


async def _settle(job: RestoreJob, target: str, held: Mapping[str, Quota], plan: RestorePlan) -> None:
    """End the holding back of these quotas and reservations, except if a dataset below is missing. Warn of these, and
    of those that cannot be set, with the command for it.
    """
    missing = plan.missing_within(target)
    # A quota for which no stream brought a value limits nothing, and need not wait.
    waiting = [name for name, quota in held.items() if quota.came and missing is not None]
    if waiting:
        later = "; ".join(job.zfs.line(*job.settling(name), target) for name in waiting)
        _log.warning(
            "%s: %s not set, because %s is not restored; to set it all the same: %s",
            *(target, ", ".join(waiting), missing, later),
        )
    for name in (name for name in held if name not in waiting):
        try:
            await job.zfs.run(*job.settling(name), target)
        except FullsendError as error:
            what = "it cannot have the %s of its backup" if job.wanted.quotas else "%s cannot be removed"
            later = job.zfs.line(*job.settling(name), target)
            _log.warning(f"%s: {what}: %s; later: %s", target, name, error, later)


async def _plan(job: RestoreJob) -> RestorePlan:
    async with connect(job.endpoint, job.identity) as (link, _name):
        library = Library(*await all_stored(link))
    async with StoredDetails(job.endpoint, job.identity) as details:
        plan = await make_plan(library, job.wanted, job.zfs, details.merged_into, details.datasets_in)
    job.notes.update(plan.notes)
    choose_encryption(plan, unencrypted=job.wanted.unencrypted, recursive=job.wanted.recursive)
    return plan


async def dry_run(job: RestoreJob) -> tuple[RestorePlan, list[str]]:
    """Plan a restore; change nothing. Returns: the plan, and the commands as text for a shell."""
    plan = await _plan(job)
    lines, done = [], []
    for step in plan.steps:
        if plan.obstacle(step) is None:
            plan.there.add(step.target)
            lines += _typed(job, step)
            # Another `fullsend restore` resumes the stream, and sets the quotas itself.
            if isinstance(step, RestoreItem) and not (step.chain and step.begun(step.chain[-1])):
                done.append(step)
    for item in reversed(done):
        if plan.missing_within(item.target) is None:
            lines += [job.zfs.line(*job.settling(name), item.target) for name in job.held(item)]
    return plan, lines


def _typed(job: RestoreJob, item: ParentDataset | RestoreItem) -> list[str]:
    """Return the commands that create a parent, or restore a dataset."""
    if isinstance(item, ParentDataset):
        return [job.zfs.line("create", "-o", "canmount=off", item.target)]
    lines = []
    snapshot = job.roll_back_to(item)
    if snapshot is not None:
        lines.append(f"{job.zfs.line('rollback', snapshot)}  # -F")
    if item.discard:
        lines.append(f"{job.zfs.line('receive', '-A', item.target)}  # the part of {item.discard}, which was merged")
    for before, entry in zip((None, *item.chain), item.chain, strict=False):
        if (aside := item.aside.get(entry.file)) is not None:
            lines.append(f"{job.zfs.line('rename', *_at(item, aside))}  # the next has the same name")
        if item.begun(entry) is not None:
            command = job.typed("restore", f"guid:{entry.guid}", "--into", item.target, *job.flags)
            lines.append(f"{command}  # resumes inside {entry.file}, where `zfs receive` was interrupted")
            continue
        fetch = job.typed("cat", entry.file)
        take = job.zfs.line("receive", *job.options(item, entry), item.target)
        note = ""
        if before is not None and before.dataset != entry.dataset:
            shown = job.typed("show", "--commands", f"{item.wanted.dataset}@{item.wanted.snapshot}")
            note = f"; if the target exists, it is a clone's: `{shown}` says how"
        lines.append(f"{fetch} | {take}  # {entry.kind}, {format_size(entry.raw_bytes)}{note}")
        if entry.kind == "package" and job.unmountable(entry):
            lines += settled(job.zfs.line(), shlex.quote(item.target))
    return lines


def _at(item: RestoreItem, names: Iterable[str]) -> list[str]:
    """Return snapshots of the target by their full names."""
    return [f"{item.target}@{name}" for name in names]


async def _make(job: RestoreJob, place: ParentDataset) -> None:
    """Create a parent. Raises: ZfsError, PoolError, after it was logged."""
    try:
        await while_usable(job.zfs, pool_of(place.target), job.zfs.create_unmounted(place.target))
    except FullsendError as error:
        _log.error("%s: %s", place.target, error)
        raise
    _log.warning("%s is created, unmounted, as a parent for the datasets below: it is not stored itself", place.target)


async def _restore_one(job: RestoreJob, item: RestoreItem, progress: Progress) -> Restored:
    """Receive the streams of one dataset. Raises: as _receive, after the progress was logged."""
    started = time.monotonic()
    resumed_at = 0
    back = job.roll_back_to(item)
    if back is not None and not item.chain:
        await _roll_back_alone(job, item, back)
    for count, entry in enumerate(item.chain):
        _log.info("%s: %s@%s, %d of %d", item.target, entry.dataset, entry.snapshot, count + 1, len(item.chain))
        if entry.lost_spill_count:
            lost = restoring_loses(entry.lost_spill_count)
            _log.warning(
                "%s: %s@%s: %s",
                item.target,
                entry.dataset,
                entry.snapshot,
                lost,
            )
        try:
            taking = _take(job, item, entry, progress)
            resumed_at += await while_usable(job.zfs, pool_of(item.target), taking)
        except FullsendError as error:
            why = f"{error}{await _in_the_way(job, item, entry, error)}"
            _log.error("%s: %s", item.target, _how_far(job, item, count, why))
            raise
        except asyncio.CancelledError:
            _log.error("%s: %s", item.target, _how_far(job, item, count, "interrupted"))
            raise
    if item.aside:
        _log.warning(
            "%s: %s the name of a later one of its chain (@%s), and is now called NAME.GUID",
            item.target,
            "one of its snapshots had" if len(item.aside) == 1 else f"each of {len(item.aside)} snapshots had",
            ", @".join(sorted({name for name, _new in item.aside.values()})),
        )
    seconds = time.monotonic() - started
    received = item.raw_bytes - resumed_at
    return Restored(
        *(item.wanted, item.target, len(item.chain), received, resumed_at, seconds, job.undo(item), item.package),
        written=bool(item.written) and not item.chain and back is None,
        rolled_back=bool(item.written) and back is not None,
        later=item.later,
        note=job.notes.get(item.wanted.dataset),
    )


async def _take(job: RestoreJob, item: RestoreItem, entry: StreamEntry, progress: Progress) -> int:
    """Receive one stream; before the first one do what the target needs for it.

    Returns: the raw offset from which it was resumed; 0: its start. Raises: as _find_rest and _receive.
    """
    if entry is item.chain[0]:
        if item.discard:
            await _discard_part(job, item)
        if (back := job.roll_back_to(item)) is not None:
            await job.zfs.roll_back(back)
    if (aside := item.aside.get(entry.file)) is not None:
        await job.zfs.run("rename", *_at(item, aside))
    rest = await _find_rest(job, item, entry)
    if rest is not None:
        progress.skip(rest.start)
    await _receive(job, item, entry, progress, rest)
    return 0 if rest is None else rest.start


async def _roll_back_alone(job: RestoreJob, item: RestoreItem, snapshot: str) -> None:
    """Roll a target back to the wanted snapshot, which it has. Raises: ZfsError, PoolError: it was logged."""
    try:
        await while_usable(job.zfs, pool_of(item.target), job.zfs.roll_back(snapshot))
    except FullsendError as error:
        why = f"it has @{item.newest}, but cannot be rolled back to it: {error}"
        _log.error("%s: %s; it is as it was: run the same command again", item.target, why)
        raise


async def _discard_part(job: RestoreJob, item: RestoreItem) -> None:
    """Discard the part of a stream that no stored one continues. Raises: ZfsError."""
    await job.zfs.run("receive", "-A", item.target)
    _log.warning(
        "%s: the part of %s is discarded: the receiver has merged that stream into @%s, which comes instead",
        *(item.target, item.discard, item.chain[0].snapshot),
    )


async def _find_rest(job: RestoreJob, item: RestoreItem, entry: StreamEntry) -> Rest | None:
    """Find where an interrupted stream resumes; None: it begins at its start.

    Raises: UsageError if it cannot resume there; DamagedTransfer, Unreachable, PeerError.
    """
    token = item.begun(entry)
    if token is None:
        return None
    try:
        where = job.endpoint, job.identity, entry.file
        onto_base = item.newest is not None
        rest = await find_rest(*where, token, retry_for=job.retry_for, onto_base=onto_base)
    except ChunkError as error:
        raise DamagedTransfer(f"what the receiver sent is damaged: {error}") from error
    except StreamError as error:
        raise UsageError(f"{error}: `zfs receive -A {item.target}` discards the part that is there") from error
    _log.info("%s: resumes after %s of %s", item.target, format_size(rest.start), format_size(entry.raw_bytes))
    return rest


async def _receive(
    job: RestoreJob, item: RestoreItem, entry: StreamEntry, progress: Progress, rest: Rest | None
) -> None:
    """Write one stream to `zfs receive`; without -s if the pool is too old for that.

    Raises: ZfsError, DamagedTransfer, Unreachable, PeerError.
    """
    pool = pool_of(item.target)
    options = job.options(item, entry)
    try:
        await _receive_once(job, item, entry, progress, rest, options=options)
    except ZfsError as error:
        if not error.not_upgraded or rest is not None or "-s" not in options:
            raise
        # A pool without features refuses -s before it reads anything. ZFS has the same words for a feature that the
        # stream needs: then it is refused without -s, too, and that is no reason to keep no part of other streams.
        less = [each for each in options if each != "-s"]
        await _receive_once(job, item, entry, progress, rest, options=less)
        job.keeps_no_part.add(pool)
        _log.warning("%s: the pool keeps no part of a stream (%s): one that is interrupted starts over", pool, error)


async def _receive_once(
    job: RestoreJob,
    item: RestoreItem,
    entry: StreamEntry,
    progress: Progress,
    rest: Rest | None,
    *,
    options: Sequence[str],
) -> None:
    async with job.zfs.receive(*options, item.target) as receiving:
        # One connection for each stream: none is idle while `zfs receive` finishes.
        whole = False
        with contextlib.suppress(BrokenPipeError):  # its exit status says why it has stopped reading
            where = job.endpoint, job.identity, entry.file, receiving.fd, progress
            # An increment finds its base in the target, also that of a clone.
            prove = OntoBase if entry.kind == "incremental" else Proof
            await cat(*where, retry_for=job.retry_for, reached=True, rest=rest, prove=prove)
            whole = True
        await receiving.succeeded()
        found = inventory.parse_snapshots(await job.zfs.list_snapshots([f"{item.target}@{entry.snapshot}"]))
        if not whole or entry.guid not in {each.guid for each in found.values()}:
            raise ZfsError("`zfs receive` exited with 0, but has not received it")
        complaint = receiving.complaint  # such as a property that could not be set, which is not a failure to ZFS
        if complaint and (item.target, complaint) not in job.complaints:
            job.complaints.add((item.target, complaint))
            _log.warning("%s: zfs receive: %s", item.target, complaint)
    if entry.kind == "package" and job.unmountable(entry):
        await job.zfs.keep_unmounted(item.target)


async def _in_the_way(job: RestoreJob, item: RestoreItem, entry: StreamEntry, error: FullsendError) -> str:
    """Return which quotas may be the reason for the lack of room; "": none."""
    if not (isinstance(error, ZfsError) and error.out_of_space):
        return ""
    if entry.kind == "package" and job.wanted.quotas:
        return " (its own quotas may be in the way: --no-quotas leaves them out)"
    where = item.target if item.existing else item.target.rpartition("/")[0]
    found: dict[str, dict[str, str]] = {}
    with contextlib.suppress(FullsendError):  # the failure itself was logged
        found = await job.zfs.quotas_above(where)
    named = [f"{key}={format_size(int(size))} of {name}" for name, of in found.items() for key, size in of.items()]
    return f" (in the way may be {', '.join(named)})" if named else ""


def _how_far(job: RestoreJob, item: RestoreItem, count: int, why: str) -> str:
    """Return what failed, what is restored so far, and how to continue. A push in between may have told the
    receiver that the dataset is as of an older state: so the last command names the snapshot.
    """
    entry = item.chain[count]
    hint = ", or with -F to discard what was written there" if _MODIFIED in why and item.existing and not count else ""
    if item.package:  # a chain with a package is not resumed
        return (
            f"{entry.dataset}@{entry.snapshot} failed: {why}; a part of it may be there: destroy {item.target}, and run"
            " the same command again"
        )
    so_far = (
        f"it has all up to @{item.chain[count - 1].snapshot} ({count} of {plural(len(item.chain), 'stream')})"
        if count
        else "its snapshots are as they were"
        if item.existing
        else "nothing is restored yet"
    )
    again = job.typed("restore", f"guid:{item.wanted.guid}", "--into", item.target, *job.flags)
    return (
        f"{entry.dataset}@{entry.snapshot} failed: {why}; {so_far}: run the same command again to resume{hint}; if that"
        f" asks which state is the newest: `{again}`"
    )
