"""`fullsend check`: would a push work now?

Checks configuration, `zfs`, the datasets that the configuration names, key, connection and identity, and asks the
receiver for its state. Every finding is one line. Checks that an earlier problem makes impossible are left out.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import FullsendError
from fullsend_protocol.shared.exit_codes import Exit
from fullsend_protocol.shared.units import format_size, parse_time, plural, printable
from fullsend_protocol.wire import messages
from fullsend_sender.host.config import SenderSettings, load
from fullsend_sender.host.identity import Identity
from fullsend_sender.host.options import LEVEL_AUTO, Endpoint
from fullsend_sender.monitor.chains import endless_chains, hints
from fullsend_sender.push.job import PushJob, PushRequest, PushTarget
from fullsend_sender.push.plan import StoredBases
from fullsend_sender.push.targets import ALL_EXCLUDED, RULED_OUT, ChosenDatasets, choose, gone, make_plan
from fullsend_sender.transfer.link import DEFAULT_TIMEOUTS, Timeouts, connect
from fullsend_sender.transfer.listing import bases_and_damaged, statuses
from fullsend_sender.transfer.memory import default_threads, push_memory
from fullsend_sender.zfs import pools
from fullsend_sender.zfs.commands import Zfs
from fullsend_sender.zfs.selection import fits, is_pattern, pool_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from fullsend_protocol.wire.messages import Base
    from fullsend_sender.host.options import FullAfter
    from fullsend_sender.transfer.link import Link


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `outcome`: OK, or the exit code of the problem; `warning`: it will be a problem soon."""

    what: str
    outcome: Exit
    text: str
    warning: bool = False

    def line(self) -> str:
        """Return the finding for a person."""
        verdict = "problem" if self.outcome is not Exit.OK else "warning" if self.warning else "ok     "
        return printable(f"{verdict} {self.what}: {self.text}")

    def to_dict(self) -> dict[str, object]:
        """Return the finding for a machine."""
        return {"check": self.what, "ok": self.outcome is Exit.OK, "warning": self.warning, "detail": self.text}


async def check(
    config: str,
    environ: Mapping[str, str],
    arguments: Mapping[str, object],
    *,
    timeouts: Timeouts = DEFAULT_TIMEOUTS,
) -> AsyncIterator[Finding]:
    """Yield findings as they are made: first of this host, then of each receiver, or of the chosen one. A
    default in the file is not a choice.
    """
    try:
        settings = load(config, environ, arguments)
        if settings.receiver:
            settings.endpoint()  # a default that is not paired is wrong, whichever receivers are looked at
        chosen = settings.chosen_receiver
        endpoints = [settings.endpoint(name) for name in ([chosen] if chosen else settings.receivers or [None])]
    except FullsendError as error:
        yield _problem("configuration", error)
        return
    names = ", ".join(settings.receivers)
    yield Finding("configuration", Exit.OK, f"{config}, receivers: {names}")
    yield _memory(settings)
    async for finding in _pools(settings):
        yield finding
    identity = Identity.beside(config)
    try:
        fingerprint = identity.fingerprint()
        mode = stat.S_IMODE(os.stat(identity.key).st_mode)
    except FullsendError as error:
        yield _problem("identity", error)
        return
    except OSError as error:
        yield Finding("identity", Exit.USAGE, f"{identity.key}: {error.strerror}")
        return
    if mode & 0o077:
        yield Finding("identity", Exit.USAGE, f"{identity.key} is open to others (mode {mode:04o}): chmod 600 it")
    else:
        yield Finding("identity", Exit.OK, f"certificate {fingerprint}")
    for endpoint in endpoints:
        job = _job(settings, endpoint, identity)
        async for finding in _receiver(endpoint, identity, timeouts, job):
            yield finding


async def _pools(settings: SenderSettings) -> AsyncIterator[Finding]:
    """Check that `zfs` works here, and that the datasets of [[push]] and [datasets.PATTERN] exist."""
    zfs = Zfs(settings.zfs_command)
    try:
        version, there = await zfs.version(), await pools.look(zfs)
        names, failed = await pools.names(zfs, there)
    except FullsendError as error:
        if settings.push:
            yield _problem("zfs", error)
        else:
            yield Finding("zfs", Exit.OK, f"not here, so only streams from stdin can be pushed ({error})")
        return
    yield Finding(
        "zfs",
        Exit.OK,
        f"{version}, {plural(len(names), 'dataset')} in {plural(len({n.partition('/')[0] for n in names}), 'pool')}",
    )
    if there.error is not None:
        yield _problem("zpool", there.error)
    for pool, problem in failed.items():
        if not settings.push or any(table.selection.means_pool(pool) for table in settings.push):
            yield _problem(pool, problem)
        else:
            yield Finding(pool, Exit.OK, f"{problem}; no push needs it")
    for table in settings.push:
        selection = table.selection
        for pattern in selection.missing(names):
            if pool_of(pattern) in failed:
                continue
            yield Finding("push", Exit.FAILED, f"{pattern}: there is no such dataset")
        for pattern in table.exclude:
            if any(fits(name, pattern) for name in names):
                continue
            if not failed or not (is_pattern(pattern) or pool_of(pattern) in failed):
                text = f"exclude {pattern}: it matches no dataset, so it leaves nothing out"
                yield Finding("push", Exit.OK, text, warning=True)
        try:
            receiver = settings.endpoint(table.receiver).name
        except FullsendError as error:
            yield _problem("push", error)
            continue
        meant, named = selection.choose(names), ", ".join(table.datasets)
        ruled_out = selection.ruled_out(names)
        others = settings.tables_for(receiver) if ruled_out else ()
        pushed = {name for other in others for name in other.selection.choose(names)}
        for name in (name for name in ruled_out if name not in pushed):
            yield Finding("push", Exit.FAILED, f"{name}: {RULED_OUT}")
        if not meant and not selection.missing(names) and not ruled_out and not failed:
            yield Finding("push", Exit.FAILED, f"{named}: {ALL_EXCLUDED}")
            continue
        yield Finding("push", Exit.OK, f"{named}: {plural(len(meant), 'dataset')}, to {receiver}")
    if not settings.push:
        text = "there is no [[push]], so `fullsend push` without a DATASET pushes nothing, as from cron or the timer"
        yield Finding("push", Exit.OK, text, warning=True)
    async for finding in _limits(zfs, settings, names):
        yield finding
    for finding in _drill_place(settings, names):
        yield finding
    for pattern in settings.datasets:
        if not any(fits(name, pattern) for name in names):
            yield Finding("datasets", Exit.FAILED, f"{pattern}: it matches no dataset, so its settings have no effect")


def _drill_place(settings: SenderSettings, names: list[str]) -> Iterator[Finding]:
    """Check that the place of drills exists. Warn where it is left out of a push that takes what is below it."""
    place = settings.drill_into
    if place is None:
        return
    if place not in names:
        yield Finding("drill", Exit.FAILED, f"{place}: there is no such dataset to restore into (drill-into)")
        return
    selections = [table.selection for table in settings.push]
    chosen = {name for selection in selections for name in selection.choose(names)}
    left_out = place not in chosen and any(replace(each, drill_place=None).choose([place]) for each in selections)
    if left_out and any(name.startswith(f"{place}/") for name in chosen):
        text = f"{place}: it is not pushed itself, because it is drill-into: name it in a [[push]], or drill elsewhere"
        yield Finding("drill", Exit.OK, text, warning=True)


async def _limits(zfs: Zfs, settings: SenderSettings, names: list[str]) -> AsyncIterator[Finding]:
    """Report the limits of the pools that [[push]] names."""
    chosen = {pool_of(name) for table in settings.push for name in table.selection.choose(names)}
    if not chosen:
        return
    try:
        found = await zfs.pool_properties(["readonly", pools.BOOKMARKS])
    except FullsendError as error:
        yield _problem("zpool", error)
        return
    for pool in sorted(chosen):
        about = found.get(pool, {})
        if about.get("readonly") == "on":
            text = "is read-only, so no snapshot can be taken: push an existing one by name, or import it read-write"
            yield Finding("pool", Exit.FAILED, f"{pool}: {text}")
        elif pools.lacks_bookmarks(about):
            text = (
                "has no bookmarks: the snapshot that was pushed last must stay, or the next push is a full"
                f" (zpool set {pools.BOOKMARKS}=enabled {pool})"
            )
            yield Finding("pool", Exit.OK, f"{pool}: {text}")


def _job(settings: SenderSettings, endpoint: Endpoint, identity: Identity) -> PushJob:
    """Return the job of `fullsend push` for this receiver."""
    tables = settings.tables_for(endpoint.name)
    request = PushRequest(tuple(PushTarget(table.selection, None, table) for table in tables))
    return PushJob(request, settings, endpoint, identity, Zfs(settings.zfs_command), None)


async def _receiver(endpoint: Endpoint, identity: Identity, timeouts: Timeouts, job: PushJob) -> AsyncIterator[Finding]:
    """Check a receiver, whether each dataset can be pushed to it, and whether it has datasets that should be pushed and
    no longer exist here. `job`: the push to that receiver.
    """
    chosen: ChosenDatasets | None = None
    here: set[str] = set()
    with contextlib.suppress(FullsendError):  # an earlier finding says why there is nothing to list
        names, _failed = await pools.names(job.zfs, await pools.look(job.zfs))
        here = set(names)
        chosen = await choose(job) if job.request.targets else None
    missed: list[tuple[str, FullsendError]] = []
    long: list[tuple[str, str]] = []
    try:
        async with connect(endpoint, identity, timeouts=timeouts) as (link, sender):
            yield Finding(endpoint.name, Exit.OK, f"{endpoint.place} knows this host as {sender}")
            health = await link.ask(messages.Check(), messages.Health)
            stored, damaged = await bases_and_damaged(link) if chosen is not None or here else ([], [])
            if chosen is not None:
                missed = make_plan(job, chosen, StoredBases(stored, damaged), (), time.time()).failures
                missed += await gone(link, job, chosen, stored)
            long = await _long_chains(link, job, chosen, [each for each in stored if each.dataset in here])
    except FullsendError as error:
        yield _problem(endpoint.name, error)
        return
    yield Finding(endpoint.name, Exit.OK, f"{health.program}, protocol {limits.PROTOCOL_VERSION}")
    yield Finding(endpoint.name, Exit.OK, f"{format_size(health.free_bytes)} free")
    for name, why in missed:
        yield _problem(name, why)
    for name, hint in long:
        yield Finding(name, Exit.OK, hint)
    for warning in health.warnings:
        yield Finding(endpoint.name, Exit.OK, warning, warning=True)
    for problem in health.problems:
        yield Finding(endpoint.name, Exit.FAILED, problem)


async def _long_chains(
    link: Link, job: PushJob, chosen: ChosenDatasets | None, stored: Sequence[Base]
) -> list[tuple[str, str]]:
    """Return the hints about chains that grow without end, each a name and a text. `stored`: of the datasets that are
    here. Raises: as Link.receive.
    """
    targets = chosen.targets if chosen is not None else {}

    def full_after(dataset: str) -> FullAfter:
        table = targets[dataset].table if dataset in targets else None
        return job.settings.send_options(dataset, table).full_after

    found = endless_chains(stored, full_after)
    if not found:
        return []
    now, _statuses = await statuses(link)
    return hints(found, job.endpoint.name, parse_time(now) or time.time())


def _problem(what: str, error: FullsendError) -> Finding:
    return Finding(what, error.exit_code, str(error))


def _memory(settings: SenderSettings) -> Finding:
    """Report the memory of a push with these settings: a high level, or several jobs, need far more."""
    level, threads = settings.send_options(None).level, settings.threads or default_threads(settings.jobs)
    total = push_memory(None if level == LEVEL_AUTO else level, threads, settings.jobs)
    how = f"level {level}, {plural(threads, 'thread')}" + (
        f", {settings.jobs} datasets at a time" if settings.jobs > 1 else ""
    )
    text = f"{how}: a push takes up to {format_size(total)} of memory"
    return Finding("compression", Exit.OK, text)
