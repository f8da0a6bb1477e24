"""`fullsend restore`: from what is asked for to datasets that are there again (design section 8).

    list what is stored -> plan (restore_plan) -> receive, one stream after another

Each stream is proven while it flows into `zfs receive`. One that was interrupted goes on inside of that (rejoin).
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

from fullsend_protocol.format.lost_spills import restoring_loses
from fullsend_protocol.format.proof import Proof
from fullsend_protocol.format.quotas import brings_properties, held_back, quotas_of
from fullsend_protocol.format.restore_commands import settled, unmounted
from fullsend_protocol.shared.errors import ChunkError, FullsendError, StreamError, Unreachable, UsageError
from fullsend_protocol.shared.units import format_duration, format_size, plural
from fullsend_sender.host.failures import as_failure
from fullsend_sender.host.options import RETRY_FOR
from fullsend_sender.restore.cat import Damaged, cat
from fullsend_sender.restore.chains import Library
from fullsend_sender.restore.encryption import choose_encryption, say_what_changed
from fullsend_sender.restore.onto_base import OntoBase
from fullsend_sender.restore.plan import Item, Place, Plan, Wanted, make_plan
from fullsend_sender.restore.resume import find_rest
from fullsend_sender.transfer.link import connect
from fullsend_sender.transfer.listing import entries, statuses
from fullsend_sender.transfer.progress import Progress, reporting
from fullsend_sender.zfs import inventory
from fullsend_sender.zfs.commands import ZfsError
from fullsend_sender.zfs.selection import lineage

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from typing import Literal

    from fullsend_protocol.format.manifest import StreamEntry
    from fullsend_sender.host.identity import Identity
    from fullsend_sender.host.options import Endpoint
    from fullsend_sender.restore.resume import Rest
    from fullsend_sender.zfs.commands import Quota, Zfs

_log: Final = logging.getLogger("fullsend.restore")

#: zfs's words where an increment meets a dataset that somebody has written to.
_MODIFIED: Final = "has been modified"


class NotTried(FullsendError):  # noqa: N818 - reads as what it says
    """A dataset whose place is below one that failed."""


@dataclass(frozen=True, slots=True)
class Restored:
    """A dataset that is there again.

    `raw_bytes`, `streams`: what this run received; `resumed_at`: the raw offset in the first of them up to which it was
    there before; `undo`: the command that lets it mount as it was, None: it may already; `package`: others came along,
    below it.
    """

    wanted: StreamEntry
    target: str
    streams: int
    raw_bytes: int
    resumed_at: int
    seconds: float
    undo: str | None
    package: bool

    def line(self) -> str:
        """Say it to a person."""
        name = f"{self.wanted.dataset}@{self.wanted.snapshot}"
        if not self.streams:
            return f"{name} is in {self.target} already"
        size = f"{plural(self.streams, 'stream')}, {format_size(self.raw_bytes)}, in {format_duration(self.seconds)}"
        went_on = f" (went on after {format_size(self.resumed_at)})" if self.resumed_at else ""
        return f"{name} is restored into {self.target}: {size}{went_on}"

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
        }


@dataclass(frozen=True, slots=True)
class Job:
    """What is wanted, and all that it takes."""

    wanted: Wanted
    endpoint: Endpoint
    identity: Identity
    zfs: Zfs
    show: Literal["auto", "always", "never"] = "auto"
    retry_for: float = RETRY_FOR
    #: Pools that cannot keep what has arrived of a stream (`zfs receive -s`), as far as that has shown.
    keeps_no_part: set[str] = field(default_factory=set)
    #: What `zfs receive` has said of a target; of a chain it says the same of each stream.
    complaints: set[tuple[str, str]] = field(default_factory=set)

    def options(self, item: Item, entry: StreamEntry) -> list[str]:
        """Return what `zfs receive` gets for a stream of an item, without the target."""
        options = ["-u"]
        # Of a package `zfs receive` could not resume more than one stream.
        if entry.kind != "package" and _pool(item.target) not in self.keeps_no_part:
            options.append("-s")
        if self.unmountable(entry):
            options += unmounted(entry)
        if brings_properties(entry):
            left_out = () if self.wanted.quotas else quotas_of(entry.dataset_type)
            options += [*held_back(item.quotas), *(word for name in left_out for word in ("-x", name))]
        if item.encryption == "as its place":
            options += ["-x", "encryption"]
        elif item.encryption == "off" and entry.base_guid is None:  # of an increment it cannot be set
            options += ["-o", "encryption=off"]
        return options

    def held(self, item: Item) -> list[str]:
        """Return the quotas and reservations that a dataset does not obey until all of it is restored."""
        brought = item.quotas if any(map(brings_properties, item.chain)) else ()
        return [name for name in quotas_of(item.wanted.dataset_type) if name in {*item.held, *brought}]

    def settling(self, name: str) -> tuple[str, ...]:
        """Return what `zfs` is called with, before the target, so that a quota or reservation is held back no more: the
        received one comes back, or none is set, where none is wanted. ZFS has no `inherit` without -S for them.
        """
        return ("inherit", "-S", name) if self.wanted.quotas else ("set", f"{name}=none")

    def typed(self, command: str, *arguments: str) -> str:
        """Return a command of our own as one would type it, for the same receiver."""
        receiver = ["--receiver", self.endpoint.name] if self.endpoint.one_of_several else []
        return shlex.join(["fullsend", command, *arguments, *receiver])

    @property
    def flags(self) -> list[str]:
        """What another `fullsend restore` of the same has to be told, so that it does the same."""
        said = {
            "--mountable": self.wanted.mountable,
            "--no-quotas": not self.wanted.quotas,
            "--unencrypted": self.wanted.unencrypted,
        }
        return [flag for flag, wanted in said.items() if wanted]

    def roll_back_to(self, item: Item) -> str | None:
        """Return the snapshot that the target goes back to first, None: to none.

        Not by `zfs receive -F`: that destroys, at its end, every snapshot that was taken meanwhile (dmu_recv.c,
        dmu_recv_end_sync).
        """
        wanted = self.wanted.rollback and item.chain and item.newest is not None
        return f"{item.target}@{item.newest}" if wanted else None

    def undo(self, item: Item) -> str | None:
        """Return the command that gives a restored dataset its own `canmount` back; None: none is needed."""
        if not (item.chain or item.quiet) or not self.unmountable(item.wanted):
            return None
        return self.undo_all([item.target], package=item.package)

    def undo_all(self, targets: Sequence[str], *, package: bool) -> str:
        """Return the same for several. `package`: what is below them came along."""
        return self.zfs.line("inherit", *(["-r"] if package else []), "-S", "canmount", *targets)

    def unmountable(self, entry: StreamEntry) -> bool:
        """A filesystem's mountpoint may have come along, and be where something lives. A volume has none."""
        return bool(unmounted(entry)) and not self.wanted.mountable


async def restore(job: Job, done: Callable[[Restored], None]) -> list[tuple[str, FullsendError]]:
    """Restore what is wanted. `done` is called with each dataset that is there again.

    Where one dataset fails, the others are tried, but for those below it whose place is missing then.

    Returns: what failed, by name. Raises: Unreachable, PeerError, WrongReceiver, UsageError, NotRestorable, ZfsError:
    then nothing was done at all.
    """
    plan = await _plan(job)
    failures = plan.failures
    for name, error in failures:
        _log.error("%s: %s", name, error)
    progress = Progress(time.monotonic(), sum(item.raw_bytes for item in plan.items))
    restored: list[Item] = []
    async with reporting(progress, sys.stderr, when=job.show):
        for step in plan.steps:
            above = plan.obstacle(step)
            if above is not None:
                failures.append((step.target, NotTried(f"not tried, since {above} failed")))
                _log.error("%s: %s", *failures[-1])
                continue
            try:
                if isinstance(step, Place):
                    await _make(job, step)
                else:
                    done(await _restore_one(job, step, progress))
            except Unreachable as error:
                failures.append((step.target, error))
                failures += _left_over(plan, step)
                break
            except FullsendError as error:
                failures.append((step.target, error))
            except Exception as error:  # noqa: BLE001 - of whatever class, it is one dataset's
                failures.append((step.target, as_failure(error)))
                _log.error("%s: %s", *failures[-1])
            else:
                plan.there.add(step.target)
                if isinstance(step, Item):
                    restored.append(step)
        progress.done = not failures
    await _finish(job, plan, restored)
    return failures


def _left_over(plan: Plan, after: Place | Item) -> list[tuple[str, FullsendError]]:
    """Return what is not tried any more, since the receiver went away, after having said so. What that is below stays
    held back.
    """
    rest = plan.steps[plan.steps.index(after) + 1 :]
    for step in rest:
        _log.error("%s: not tried, since the receiver is away: run the same again to go on", step.target)
    return [(step.target, Unreachable("not tried, since the receiver is away")) for step in rest]


async def _finish(job: Job, plan: Plan, restored: Sequence[Item]) -> None:
    """Do what must wait until all streams are in, and say what is not as it was at home."""
    if not restored:
        return
    try:
        found = await job.zfs.quotas_set(plan.into, recursive=job.wanted.recursive)
        for item in reversed(restored):  # children first: the quota of a parent counts them
            await _settle(job, item.target, _held(found.get(item.target, {})), plan)
        above = lineage(plan.into)[1:]
        found |= await job.zfs.quotas_set(*above, recursive=False) if above else {}
        _say_held_back(job, plan, found, {item.target for item in restored})
        await say_what_changed(job.zfs, plan.into, restored)
    except FullsendError as error:
        _log.warning("%s: whether its quotas and encryption are as at home cannot be told: %s", plan.into, error)


def _say_held_back(job: Job, plan: Plan, found: Mapping[str, Mapping[str, Quota]], restored: Collection[str]) -> None:
    """Say which other datasets an earlier run has left with quotas that it held back: it ended before all was in.

    `found`: what is set on each dataset that is looked at.
    """
    for target, here in found.items():
        quotas = list(_held(here))
        if quotas and target not in restored and plan.missing_within(target) is None:
            later = "; ".join(job.zfs.line("inherit", "-S", name, target) for name in quotas)
            _log.warning(
                "%s: %s not set since an earlier restore, which did not end; to set it: %s",
                *(target, ", ".join(quotas), later),
            )


def _held(here: Mapping[str, Quota]) -> dict[str, Quota]:
    """Return what is held back on a dataset."""
    return {name: quota for name, quota in here.items() if quota.held}


async def _settle(job: Job, target: str, held: Mapping[str, Quota], plan: Plan) -> None:
    """Hold these quotas and reservations back no more, but for what has to wait for something below that is missing.
    That, and what cannot be settled, is said, with the line that does it.
    """
    missing = plan.missing_within(target)
    # What nothing came for limits nothing, and need not wait.
    waiting = [name for name, quota in held.items() if quota.came and missing is not None]
    if waiting:
        later = "; ".join(job.zfs.line(*job.settling(name), target) for name in waiting)
        _log.warning(
            "%s: %s not set, since %s is not restored; to set it all the same: %s",
            *(target, ", ".join(waiting), missing, later),
        )
    for name in (name for name in held if name not in waiting):
        try:
            await job.zfs.run(*job.settling(name), target)
        except FullsendError as error:
            what = "it cannot have the %s of its backup" if job.wanted.quotas else "%s cannot be taken back"
            later = job.zfs.line(*job.settling(name), target)
            _log.warning(f"%s: {what}: %s; later: %s", target, name, error, later)


async def _plan(job: Job) -> Plan:
    async with connect(job.endpoint, job.identity) as (link, _name):
        # Before what is stored: what comes meanwhile is newer than what is said of it.
        _now, said = await statuses(link)
        library = Library([entry async for entry in entries(link, None)], said)
    plan = await make_plan(library, job.wanted, job.zfs)
    choose_encryption(plan, unencrypted=job.wanted.unencrypted, recursive=job.wanted.recursive)
    return plan


async def rehearse(job: Job) -> tuple[Plan, list[str]]:
    """Find out what `restore` would do; nothing is changed. Returns: the plan, and the commands to type."""
    plan = await _plan(job)
    lines, done = [], []
    for step in plan.steps:
        if plan.obstacle(step) is None:
            plan.there.add(step.target)
            lines += _typed(job, step)
            # Another `fullsend restore` is what resumes a stream, and brings them back by itself.
            if isinstance(step, Item) and not (step.chain and step.begun(step.chain[-1])):
                done.append(step)
    for item in reversed(done):
        if plan.missing_within(item.target) is None:
            lines += [job.zfs.line(*job.settling(name), item.target) for name in job.held(item)]
    return plan, lines


def _typed(job: Job, item: Place | Item) -> list[str]:
    """Return the commands that make a place, or restore a dataset."""
    if isinstance(item, Place):
        return [job.zfs.line("create", "-o", "canmount=off", item.target)]
    lines = []
    snapshot = job.roll_back_to(item)
    if snapshot is not None:
        lines.append(f"{job.zfs.line('rollback', snapshot)}  # -F")
    for before, entry in zip((None, *item.chain), item.chain, strict=False):
        if (aside := item.aside.get(entry.file)) is not None:
            lines.append(f"{job.zfs.line('rename', *_at(item, aside))}  # the next has the same name")
        if item.begun(entry) is not None:
            command = job.typed("restore", f"guid:{entry.guid}", "--into", item.target, *job.flags)
            lines.append(f"{command}  # goes on amid {entry.file}, where `zfs receive` was interrupted")
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


def _at(item: Item, names: Iterable[str]) -> list[str]:
    """Return snapshots of the target by their whole names."""
    return [f"{item.target}@{name}" for name in names]


async def _make(job: Job, place: Place) -> None:
    """Make a place. Raises: ZfsError, after having said so."""
    try:
        await job.zfs.create_unmounted(place.target)
    except FullsendError as error:
        _log.error("%s: %s", place.target, error)
        raise
    _log.warning("%s is made, unmounted, as a place for what is below it: it is not stored itself", place.target)


async def _restore_one(job: Job, item: Item, progress: Progress) -> Restored:
    """Receive the streams of one dataset. Raises: as _receive, after having said how far it came."""
    started = time.monotonic()
    resumed_at = 0
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
            if not count and (snapshot := job.roll_back_to(item)) is not None:
                await job.zfs.roll_back(snapshot)
            if (aside := item.aside.get(entry.file)) is not None:
                await job.zfs.run("rename", *_at(item, aside))
            rest = await _find_rest(job, item, entry)
            if rest is not None:
                resumed_at = rest.start
                progress.add(resumed_at, 0)
            await _receive(job, item, entry, progress, rest)
        except FullsendError as error:
            why = f"{error}{await _in_the_way(job, item, entry, error)}"
            _log.error("%s: %s", item.target, _how_far(item, count, why))
            raise
        except asyncio.CancelledError:
            _log.error("%s: %s", item.target, _how_far(item, count, "interrupted"))
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
    undo = job.undo(item)
    return Restored(item.wanted, item.target, len(item.chain), received, resumed_at, seconds, undo, item.package)


async def _find_rest(job: Job, item: Item, entry: StreamEntry) -> Rest | None:
    """Find where an interrupted stream goes on; None: it begins at its start.

    Raises: UsageError where that one cannot go on there; Damaged, Unreachable, PeerError.
    """
    token = item.begun(entry)
    if token is None:
        return None
    try:
        where = job.endpoint, job.identity, entry.file
        onto_base = item.newest is not None
        rest = await find_rest(*where, token, retry_for=job.retry_for, onto_base=onto_base)
    except ChunkError as error:
        raise Damaged(f"what the receiver sent is damaged: {error}") from error
    except StreamError as error:
        raise UsageError(f"{error}: `zfs receive -A {item.target}` gives up what is there of it") from error
    _log.info("%s: goes on after %s of %s", item.target, format_size(rest.start), format_size(entry.raw_bytes))
    return rest


def _pool(target: str) -> str:
    return target.partition("/")[0]


async def _receive(job: Job, item: Item, entry: StreamEntry, progress: Progress, rest: Rest | None) -> None:
    """Bring one stream into `zfs receive`; without -s where the pool is too old for that.

    Raises: ZfsError, Damaged, Unreachable, PeerError.
    """
    pool = _pool(item.target)
    try:
        await _receive_once(job, item, entry, progress, rest)
    except ZfsError as error:
        # Of a pool without features -s says so before it takes anything; what it cannot take at all fails once more.
        if not error.not_upgraded or rest is not None or "-s" not in job.options(item, entry):
            raise
        job.keeps_no_part.add(pool)
        _log.warning("%s: the pool keeps no part of a stream (%s): one that is interrupted starts over", pool, error)
        await _receive_once(job, item, entry, progress, rest)


async def _receive_once(job: Job, item: Item, entry: StreamEntry, progress: Progress, rest: Rest | None) -> None:
    async with job.zfs.receive(*job.options(item, entry), item.target) as receiving:
        # A connection for each: none stands idle while `zfs receive` does what it has left to do.
        whole = False
        with contextlib.suppress(BrokenPipeError):  # its exit status says why it reads no more
            where = job.endpoint, job.identity, entry.file, receiving.fd, progress
            # An increment finds its base in the target, also that of a clone.
            prove = OntoBase if entry.kind == "incremental" else Proof
            await cat(*where, retry_for=job.retry_for, reached=True, rest=rest, prove=prove)
            whole = True
        await receiving.succeeded()
        found = inventory.parse_snapshots(await job.zfs.list_snapshots([f"{item.target}@{entry.snapshot}"]))
        if not whole or entry.guid not in {each.guid for each in found.values()}:
            raise ZfsError("`zfs receive` exited with 0, but has not received it")
        complaint = receiving.complaint  # such as a property that could not be set, which is no failure to ZFS
        if complaint and (item.target, complaint) not in job.complaints:
            job.complaints.add((item.target, complaint))
            _log.warning("%s: zfs receive: %s", item.target, complaint)
    if entry.kind == "package" and job.unmountable(entry):
        await job.zfs.keep_unmounted(item.target)


async def _in_the_way(job: Job, item: Item, entry: StreamEntry, error: FullsendError) -> str:
    """Say which quotas may be why there was no room; "": none."""
    if not (isinstance(error, ZfsError) and error.out_of_space):
        return ""
    if entry.kind == "package" and job.wanted.quotas:
        return " (its own quotas may be in the way: --no-quotas leaves them out)"
    where = item.target if item.existing else item.target.rpartition("/")[0]
    found: dict[str, dict[str, str]] = {}
    with contextlib.suppress(FullsendError):  # what failed has been said
        found = await job.zfs.quotas_above(where)
    named = [f"{key}={format_size(int(size))} of {name}" for name, of in found.items() for key, size in of.items()]
    return f" (in the way may be {', '.join(named)})" if named else ""


def _how_far(item: Item, count: int, why: str) -> str:
    """Say what failed, what is restored so far, and how to go on."""
    entry = item.chain[count]
    hint = ", or with -F to give up what was written there" if _MODIFIED in why and item.existing and not count else ""
    if item.package:  # nothing is gone on with that has one in its chain
        return (
            f"{entry.dataset}@{entry.snapshot} failed: {why}; a part of it may be there: destroy {item.target}, and run"
            " the same again"
        )
    so_far = (
        f"it has all up to @{item.chain[count - 1].snapshot} ({count} of {plural(len(item.chain), 'stream')})"
        if count
        else "its snapshots are as they were"
        if item.existing
        else "nothing is restored yet"
    )
    return f"{entry.dataset}@{entry.snapshot} failed: {why}; {so_far}: run the same again to go on{hint}"
