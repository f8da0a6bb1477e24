"""`fullsend restore`: from what is asked for to datasets that are there again (design section 8).

    list what is stored -> choose, find chains -> look at the target -> receive, one stream after another

Each stream is proven while it flows into `zfs receive`. Nothing that exists is overwritten: a dataset that is there
already is only ever gone on with, after its newest snapshot. One that was interrupted amid a stream goes on inside of
that (rejoin).
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

from fullsend_protocol.errors import ChunkError, FullsendError, StreamError, Unreachable, UsageError
from fullsend_protocol.facts import class_of
from fullsend_protocol.resume_token import ResumeToken
from fullsend_protocol.units import format_duration, format_size
from fullsend_sender import source
from fullsend_sender.cat import Damaged, cat
from fullsend_sender.chain import Library, NotRestorable
from fullsend_sender.link import connect
from fullsend_sender.listing import entries
from fullsend_sender.patience import RETRY_FOR
from fullsend_sender.progress import Progress, reporting
from fullsend_sender.rejoin import find_rest
from fullsend_sender.selection import Selection
from fullsend_sender.zfs import ZfsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Literal

    from fullsend_protocol.manifest import StreamEntry
    from fullsend_sender.identity import Identity
    from fullsend_sender.link import Endpoint
    from fullsend_sender.rejoin import Rest
    from fullsend_sender.source import Dataset
    from fullsend_sender.zfs import Zfs

_log: Final = logging.getLogger("fullsend.restore")

#: zfs's words where an increment meets a dataset that somebody has written to.
_MODIFIED: Final = "has been modified"


class NotTried(FullsendError):  # noqa: N818 - reads as what it says
    """A dataset whose place is below one that failed."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody asked for.

    `what`: DATASET, DATASET@SNAPSHOT, guid:N or a file's name; `into`: the target, None: the dataset's own name;
    `recursive`: with all below it; `exclude`: but these; `rollback`: a target that has been written to since its newest
    snapshot goes back to that; `mountable`: `canmount` as it was backed up.
    """

    what: str
    into: str | None = None
    recursive: bool = False
    exclude: tuple[str, ...] = ()
    rollback: bool = False
    mountable: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    """One dataset to restore.

    `chain`: the streams, in order; empty: `target` has the snapshot already. `token`: what `target` has of the first.
    """

    wanted: StreamEntry
    target: str
    chain: list[StreamEntry]
    existing: bool = False
    token: ResumeToken | None = None

    def begun(self, entry: StreamEntry) -> ResumeToken | None:
        """What `target` has of one of the streams; None: nothing."""
        return self.token if entry is self.chain[0] else None

    @property
    def raw_bytes(self) -> int:
        return sum(entry.raw_bytes for entry in self.chain)


@dataclass(slots=True)
class Plan:
    """What is to be done. `places`: datasets to make, so that others can be below them; `failures`: by name."""

    items: list[Item] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    failures: list[tuple[str, FullsendError]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Restored:
    """A dataset that is there again.

    `raw_bytes`, `streams`: what this run received; `resumed_at`: the raw offset in the first of them up to which it was
    there before; `undo`: the command that lets it mount as it was, None: it may already.
    """

    wanted: StreamEntry
    target: str
    streams: int
    raw_bytes: int
    resumed_at: int
    seconds: float
    undo: str | None

    def line(self) -> str:
        """Say it to a person."""
        name = f"{self.wanted.dataset}@{self.wanted.snapshot}"
        if not self.streams:
            return f"{name} is in {self.target} already"
        many = "1 stream" if self.streams == 1 else f"{self.streams} streams"
        size = f"{many}, {format_size(self.raw_bytes)}, in {format_duration(self.seconds)}"
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

    def options(self, item: Item, entry: StreamEntry) -> list[str]:
        """Return what `zfs receive` gets for a stream, without the target."""
        options = ["-u"]
        if entry.kind != "package":  # of which `zfs receive` could not go on with more than one stream
            options.append("-s")
        if self.wanted.rollback and item.existing and entry is item.chain[0] and entry.kind == "incremental":
            options.append("-F")  # never for a full, which it would put in the place of what is there
        if self.unmountable(entry):
            options += ["-o", "canmount=noauto"]
        return options

    def undo(self, item: Item) -> str | None:
        """Return the command that gives a restored dataset its own `canmount` back; None: none is needed."""
        if not item.chain or not self.unmountable(item.wanted):
            return None
        return self.undo_all([item.target], package=item.wanted.kind == "package")

    def undo_all(self, targets: Sequence[str], *, package: bool) -> str:
        """Return the same for several. `package`: what is below them came along."""
        return self.zfs.line("inherit", *(["-r"] if package else []), "-S", "canmount", *targets)

    def unmountable(self, entry: StreamEntry) -> bool:
        """A filesystem's mountpoint may have come along, and be where something lives. A volume has none."""
        return entry.dataset_type == "filesystem" and not self.wanted.mountable


async def restore(job: Job, done: Callable[[Restored], None]) -> list[tuple[str, FullsendError]]:
    """Restore what is wanted. `done` is called with each dataset that is there again.

    Where one dataset fails, those below it are not tried; the others are.

    Returns: what failed, by name. Raises: Unreachable, PeerError, WrongReceiver, UsageError, NotRestorable, ZfsError:
    then nothing was done at all.
    """
    plan = await make_plan(job)
    failures = plan.failures
    for name, error in failures:
        _log.error("%s: %s", name, error)
    for place in plan.places:
        await job.zfs.create_unmounted(place)
        _log.warning("%s is made, unmounted, as a place for what is below it: it is not stored itself", place)
    progress = Progress(time.monotonic(), sum(item.raw_bytes for item in plan.items))
    async with reporting(progress, sys.stderr, when=job.show):
        for item in plan.items:
            above = next((name for name, _error in failures if item.target.startswith(f"{name}/")), None)
            if above is not None:
                failures.append((item.target, NotTried(f"not tried, since {above} failed")))
                _log.error("%s: %s", *failures[-1])
                continue
            try:
                done(await _restore_one(job, item, progress))
            except Unreachable as error:
                failures.append((item.target, error))
                break
            except FullsendError as error:
                failures.append((item.target, error))
        progress.done = not failures
    return failures


async def rehearse(job: Job) -> tuple[Plan, list[str]]:
    """Find out what `restore` would do; nothing is changed. Returns: the plan, and the commands to type."""
    plan = await make_plan(job)
    lines = [job.zfs.line("create", "-o", "canmount=off", place) for place in plan.places]
    for item in plan.items:
        for entry in item.chain:
            if item.begun(entry) is not None:
                command = shlex.join(["fullsend", "restore", f"guid:{entry.guid}", "--into", item.target])
                lines.append(f"{command}  # goes on amid {entry.file}, where `zfs receive` was interrupted")
                continue
            fetch = shlex.join(["fullsend", "cat", entry.file])
            take = job.zfs.line("receive", *job.options(item, entry), item.target)
            lines.append(f"{fetch} | {take}  # {entry.kind}, {format_size(entry.raw_bytes)}")
            if entry.kind == "package" and job.unmountable(entry):
                below = job.zfs.line("list", "-Hr", "-o", "name", "-t", "filesystem", item.target)
                lines.append(f"{below} | xargs -d '\\n' {job.zfs.line('set', 'canmount=noauto')}")
    return plan, lines


async def make_plan(job: Job) -> Plan:
    """Say what is to be done. Raises: as `restore`."""
    wanted, plan = job.wanted, Plan()
    async with connect(job.endpoint, job.identity) as (link, _name):
        library = Library([entry async for entry in entries(link, None)])
    if wanted.recursive:
        top, _at, snapshot = wanted.what.partition("@")
        selection = Selection((top,), recursive=True, exclude=wanted.exclude)
        chosen, renamed = library.tree(top, snapshot or None, lambda name: bool(selection.choose([name])))
        for old, new in renamed:
            _log.warning("%s goes on as %s, and is left out: to restore it too, name it", old, new)
    else:
        chosen = [library.find(wanted.what)]
        top = chosen[0].dataset
    into = wanted.into or top
    if "@" in into or "#" in into:
        raise UsageError(f"{into} is no name of a dataset to restore into")
    there = source.parse((await job.zfs.listing([into], recursive=wanted.recursive))[0])
    await _check_parent(job, into, there)
    tokens = await job.zfs.resume_tokens(into, recursive=wanted.recursive) if into in there else {}
    for entry in chosen:
        target = into + entry.dataset.removeprefix(top)
        try:
            plan.items.append(_item(library, entry, target, there.get(target), tokens.get(target)))
        except FullsendError as error:
            if not wanted.recursive:
                raise
            plan.failures.append((target, error))
    # What cannot be restored is no place for what is below it, either: it would be in the way of the next try.
    taken = {*there, *(name for name, _error in plan.failures)}
    plan.places = _places(into, [item.target for item in plan.items], taken)
    return plan


async def _check_parent(job: Job, target: str, there: dict[str, Dataset]) -> None:
    """See that the target has a place. Raises: UsageError."""
    parent = target.rpartition("/")[0]
    if target in there or not parent:
        return
    if parent not in source.parse((await job.zfs.listing([parent], recursive=False))[0]):
        raise UsageError(
            f"{target} cannot be made, since there is no {parent}: make that first, or choose another --into"
        )


def _item(library: Library, entry: StreamEntry, target: str, existing: Dataset | None, token: str | None) -> Item:
    """Say what one dataset takes. Raises: NotRestorable; UsageError where the target is something else."""
    if existing is None:
        chain = library.chain(entry)
        if chain is None:
            raise NotRestorable(
                f"{entry.dataset}@{entry.snapshot} cannot be restored: {library.obstacle(entry)}; `fullsend list"
                f" {entry.dataset}` shows what can be"
            )
        return Item(entry, target, chain)
    whole = library.chain(entry)
    if entry.kind == "package" or any(each.kind == "package" for each in whole or ()):
        # Of a package that was interrupted, the top may have its snapshot, and what is below it may be missing.
        raise UsageError(
            f"{target} exists, and a package is only restored as a whole: choose another --into, or destroy it first"
        )
    if any(each.guid == entry.guid for each in existing.snapshots):
        return Item(entry, target, [], existing=True)
    if token is not None:
        return _begun(library, entry, target, token)
    newest = existing.snapshots[-1] if existing.snapshots else None
    chain = library.chain(entry, newest.guid) if newest else None
    if chain is None:
        raise UsageError(
            f"{target} exists, and {_stranger(library, entry, existing)} choose another name with --into (nothing that"
            " exists is overwritten)"
        )
    return Item(entry, target, chain, existing=True)


def _begun(library: Library, entry: StreamEntry, target: str, text: str) -> Item:
    """Say what a dataset takes that has a part of a stream. Raises: UsageError where nothing stored goes on with it."""
    give_up = f"`zfs receive -A {target}` gives that part up, or choose another name with --into"
    try:
        token = ResumeToken.decode(text)
    except StreamError as error:
        raise UsageError(f"{target} has a part of a stream, but {error}: {give_up}") from error
    for first in library.begun(token):
        rest = [] if first.guid == entry.guid else library.chain(entry, first.guid)
        if rest is not None and all(class_of(each.flags) == class_of(first.flags) for each in rest):
            return Item(entry, target, [first, *rest], existing=True, token=token)
    raise UsageError(
        f"{target} has a part of {token.name} (GUID {token.guid}), of which nothing is stored that leads to"
        f" {entry.dataset}@{entry.snapshot}: {give_up}"
    )


def _stranger(library: Library, entry: StreamEntry, existing: Dataset) -> str:
    """Say why a dataset cannot be gone on with, and what else may be done than to choose another."""
    if not existing.snapshots:
        return "has no snapshot:"
    newest = existing.snapshots[-1]
    for each in reversed(existing.snapshots):
        if library.chain(entry, each.guid) is not None:
            return (
                f"has other snapshots, up to @{newest.name}, after @{each.name}: destroy those if nobody needs them, or"
            )
    return f"its newest snapshot, @{newest.name}, is none that can be gone on from:"


def _places(into: str, targets: list[str], taken: set[str]) -> list[str]:
    """Return the datasets between `into` and the targets that are neither taken nor restored; parents first."""
    missing: dict[str, None] = {}
    for target in targets:
        parts = target.split("/")
        for count in range(into.count("/") + 1, len(parts)):
            above = "/".join(parts[:count])
            if above not in taken and above not in targets:
                missing[above] = None
    return list(missing)


async def _restore_one(job: Job, item: Item, progress: Progress) -> Restored:
    """Receive the streams of one dataset. Raises: as _receive, after having said how far it came."""
    started = time.monotonic()
    resumed_at = 0
    for count, entry in enumerate(item.chain):
        _log.info("%s: %s@%s, %d of %d", item.target, entry.dataset, entry.snapshot, count + 1, len(item.chain))
        try:
            rest = await _find_rest(job, item, entry)
            if rest is not None:
                resumed_at = rest.start
                progress.add(resumed_at, 0)
            await _receive(job, item, entry, progress, rest)
        except FullsendError as error:
            _log.error("%s: %s", item.target, _how_far(item, count, str(error)))
            raise
        except asyncio.CancelledError:
            _log.error("%s: %s", item.target, _how_far(item, count, "interrupted"))
            raise
    seconds = time.monotonic() - started
    received = item.raw_bytes - resumed_at
    return Restored(item.wanted, item.target, len(item.chain), received, resumed_at, seconds, job.undo(item))


async def _find_rest(job: Job, item: Item, entry: StreamEntry) -> Rest | None:
    """Find where an interrupted stream goes on; None: it begins at its start.

    Raises: UsageError where that one cannot go on there; Damaged, Unreachable, PeerError.
    """
    token = item.begun(entry)
    if token is None:
        return None
    try:
        rest = await find_rest(job.endpoint, job.identity, entry.file, token, retry_for=job.retry_for)
    except ChunkError as error:
        raise Damaged(f"what the receiver sent is damaged: {error}") from error
    except StreamError as error:
        raise UsageError(f"{error}: `zfs receive -A {item.target}` gives up what is there of it") from error
    _log.info("%s: goes on after %s of %s", item.target, format_size(rest.start), format_size(entry.raw_bytes))
    return rest


async def _receive(job: Job, item: Item, entry: StreamEntry, progress: Progress, rest: Rest | None) -> None:
    """Bring one stream into `zfs receive`. Raises: ZfsError, Damaged, Unreachable, PeerError."""
    async with job.zfs.receive(*job.options(item, entry), item.target) as receiving:
        # A connection for each: none stands idle while `zfs receive` does what it has left to do.
        whole = False
        with contextlib.suppress(BrokenPipeError):  # its exit status says why it reads no more
            where = job.endpoint, job.identity
            await cat(*where, entry.file, receiving.fd, progress, retry_for=job.retry_for, reached=True, rest=rest)
            whole = True
        await receiving.succeeded()
        found = source.parse_snapshots(await job.zfs.list_snapshots([f"{item.target}@{entry.snapshot}"]))
        if not whole or entry.guid not in {each.guid for each in found.values()}:
            raise ZfsError("`zfs receive` exited with 0, but has not received it")
        if receiving.complaint:  # such as a property that could not be set, which is no failure to ZFS
            _log.warning("%s: zfs receive: %s", item.target, receiving.complaint)
    if entry.kind == "package" and job.unmountable(entry):
        # `-o` reaches a package's top alone, and the others would mount at the next boot (tried).
        await job.zfs.keep_unmounted(item.target)


def _how_far(item: Item, count: int, why: str) -> str:
    """Say what failed, what is restored so far, and how to go on."""
    entry = item.chain[count]
    hint = ", or with -F to give up what was written there" if _MODIFIED in why and item.existing and not count else ""
    if entry.kind == "package":
        return (
            f"{entry.dataset}@{entry.snapshot} failed: {why}; a part of it may be there: destroy {item.target}, and run"
            " the same again"
        )
    so_far = (
        f"it has all up to @{item.chain[count - 1].snapshot} ({count} of {len(item.chain)} streams)"
        if count
        else "its snapshots are as they were"
        if item.existing
        else "nothing is restored yet"
    )
    return f"{entry.dataset}@{entry.snapshot} failed: {why}; {so_far}: run the same again to go on{hint}"
