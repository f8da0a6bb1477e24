"""`fullsend drill`: one restore, from the choice to the report.

    destroy what a killed drill has left -> choose -> create the scratch -> restore -> compare -> destroy -> report

The scratch is destroyed in any case: after a failure, after SIGINT and SIGTERM, and after SIGKILL by the next drill.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from fullsend_cli.progress import Progress
from fullsend_protocol.shared.errors import FullsendError, Interrupted, Unreachable, UsageError
from fullsend_protocol.shared.exit_codes import Exit
from fullsend_protocol.shared.units import format_duration, format_size, plural, printable
from fullsend_sender.drill import report
from fullsend_sender.drill.choose import Broken, Choice, Chooser
from fullsend_sender.drill.compare import Comparison, SnapshotComparer
from fullsend_sender.drill.mounts import mounted
from fullsend_sender.drill.scratch import NotDestroyed, Scratch, leftovers
from fullsend_sender.host.failures import as_failure
from fullsend_sender.host.locks import AlreadyRunning, locks
from fullsend_sender.host.options import RETRY_FOR
from fullsend_sender.restore.chains import Library
from fullsend_sender.restore.plan import RestoreRequest
from fullsend_sender.restore.run import Restored, RestoreJob, restore
from fullsend_sender.transfer.link import connect
from fullsend_sender.transfer.listing import all_stored
from fullsend_sender.transfer.progress import publishing, reporting
from fullsend_sender.zfs import inventory
from fullsend_sender.zfs.commands import ZfsError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from contextlib import AbstractContextManager
    from typing import Literal

    from fullsend_protocol.format.manifest import StreamEntry
    from fullsend_protocol.wire.messages import DrillExtent
    from fullsend_sender.host.identity import Identity
    from fullsend_sender.host.options import Endpoint
    from fullsend_sender.zfs.commands import Zfs

_log: Final = logging.getLogger("fullsend.drill")

#: The quota of the scratch, as a multiple of the streams' raw bytes, and bytes beside: the metadata of small files, and
#: the parity of RAID-Z, take more than the stream has.
_ROOM_FACTOR: Final = 2
_ROOM_BESIDE: Final = 256 << 20
#: The file of the lock. No receiver has a name with a dot.
_LOCK: Final = "drill.scratch"


@dataclass(frozen=True, slots=True)
class DrillJob:
    """A request for a drill. `what`: as Chooser.choose; `into`: the dataset below which it restores; `quota`: bytes
    that it may take there, None: what is free; `seed`: of the random choice, None: none; `mount`: mounts snapshots.
    """

    what: str | None
    into: str
    endpoint: Endpoint
    identity: Identity
    zfs: Zfs
    quota: int | None = None
    newest: bool = False
    seed: int | None = None
    show: Literal["auto", "always", "never"] = "auto"
    retry_for: float = RETRY_FOR
    mount: Callable[[Sequence[str]], AbstractContextManager[list[bytes]]] = mounted
    lock_folder: str | None = None


@dataclass(frozen=True, slots=True)
class DrillOutcome:
    """The result of a drill. `extent`: what was compared; `seconds`: of the restore, `comparing`: of the comparison;
    `told`: the line for the receiver, if another than `text`; `reported`: whether the receiver has recorded it;
    `exit_code`: what the command ends with.
    """

    entry: StreamEntry
    ok: bool
    extent: DrillExtent
    text: str
    streams: int = 0
    raw_bytes: int = 0
    seconds: float = 0.0
    comparing: float = 0.0
    files: int = 0
    differences: tuple[str, ...] = ()
    told: str = ""
    reported: bool = False
    exit_code: int = Exit.OK

    @property
    def name(self) -> str:
        return f"{self.entry.dataset}@{self.entry.snapshot}"

    def line(self) -> str:
        """Return the line for a person."""
        took = (
            f"restored in {format_duration(self.seconds)} ({plural(self.streams, 'stream')},"
            f" {format_size(self.raw_bytes)}): "
            if self.streams
            else ""
        )
        return printable(f"{'ok' if self.ok else 'FAILED'}: {self.name}: {took}{self.text}")

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "dataset": self.entry.dataset,
            "snapshot": self.entry.snapshot,
            "guid": self.entry.guid,
            "ok": self.ok,
            "compared": self.extent,
            "text": self.text,
            "streams": self.streams,
            "raw_bytes": self.raw_bytes,
            "seconds": round(self.seconds, 3),
            "compare_seconds": round(self.comparing, 3),
            "files": self.files,
            "differences": list(self.differences),
            "reported": self.reported,
        }


async def drill(job: DrillJob) -> DrillOutcome:
    """Restore one snapshot, compare it, destroy it, and report.

    Returns: also a drill that has failed. Raises: FullsendError if none took place: a wrong name, no room, no receiver,
    another drill that runs.
    """
    place = inventory.parse((await job.zfs.listing([job.into], recursive=False))[0]).get(job.into)
    if place is None or place.type != "filesystem":
        raise UsageError(
            f"{job.into}: there is no such filesystem to restore into: create it with `zfs create -o canmount=off"
            f" -o mountpoint=none {job.into}`, or set another `drill-into` in sender.toml"
        )
    with locks(_LOCK, job.lock_folder) as held:
        if not held.take(place.guid):
            raise AlreadyRunning(f"another drill runs in {job.into}: run this one when that has ended")
        stays = await _sweep(job)
        outcome = await _drill(job)
        for error in stays:
            _log.error("%s", error)
        return replace(outcome, exit_code=outcome.exit_code or Exit.FAILED) if stays else outcome


async def _sweep(job: DrillJob) -> list[NotDestroyed]:
    """Destroy what killed drills have left. Returns: why some of it is still there."""
    failed = []
    for left in await leftovers(job.zfs, job.into):
        try:
            await left.destroy(job.zfs)
        except NotDestroyed as error:
            failed.append(error)
        else:
            _log.warning("%s, the scratch of a drill that was killed, is destroyed", left.container)
    return failed


async def _drill(job: DrillJob) -> DrillOutcome:
    last = await report.last_drills(job.endpoint, job.identity)
    async with connect(job.endpoint, job.identity) as (link, _name):
        stored, said = await all_stored(link)
    available = await job.zfs.available(job.into)
    room = available if job.quota is None else min(available, job.quota)
    chance = random.Random(job.seed)  # noqa: S311 - no secret
    here = set[str]() if job.newest else await _snapshots_here(job)
    chooser = Chooser(stored, Library(stored, said), job.into, room, job.newest, chance, here)
    try:
        chosen = chooser.choose(job.what, {name: each.at for name, each in last.items()})
    except Broken as error:
        return await _report(job, DrillOutcome(error.entry, ok=False, extent="nothing", text=str(error)))
    finally:
        for note in chooser.notes:
            _log.warning("passed over: %s", note)
    _log.info("drill: %s, %s", chosen.name, plural(len(chosen.chain), "stream"))
    limit = min(room, _ROOM_FACTOR * chosen.raw_bytes + _ROOM_BESIDE)
    scratch = Scratch.new(job.into)
    try:
        await scratch.create(job.zfs, limit)
        outcome = await _restore_and_compare(job, scratch, chosen)
    finally:
        destroyed = await _to_the_end(_destroy(job, scratch))
    outcome = await _report(job, outcome)
    return outcome if destroyed else replace(outcome, exit_code=outcome.exit_code or Exit.FAILED)


async def _snapshots_here(job: DrillJob) -> set[str]:
    """Return the GUIDs of all snapshots of this host. A pool that cannot be listed counts as having none."""
    found: set[str] = set()
    for pool in await job.zfs.pools():
        try:
            datasets = inventory.parse((await job.zfs.listing([pool], recursive=True))[0])
        except ZfsError as error:
            _log.warning("%s: what is here cannot be listed: %s", pool, error)
            continue
        found.update(each.guid for dataset in datasets.values() for each in dataset.snapshots)
    return found


async def _destroy(job: DrillJob, scratch: Scratch) -> bool:
    """Destroy the scratch, or log why it is still there. Returns: whether it is gone."""
    try:
        await scratch.destroy(job.zfs)
    except NotDestroyed as error:
        _log.error("%s", error)
        return False
    return True


async def _to_the_end(work: Coroutine[Any, Any, bool]) -> bool:
    """Do this to its end, even if the caller is cancelled meanwhile, again and again; then pass that on."""
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError
    return task.result()


async def _restore_and_compare(job: DrillJob, scratch: Scratch, chosen: Choice) -> DrillOutcome:
    """Raises: what leaves nothing to report: Unreachable, Interrupted."""
    failed = DrillOutcome(chosen.entry, ok=False, extent="nothing", text="", exit_code=Exit.FAILED)
    done: list[Restored] = []
    # By its file: several streams may have its name, and the choice must be the one that is restored.
    wanted = RestoreRequest(chosen.entry.file, scratch.target, quotas=False)
    restoring = RestoreJob(
        *(wanted, job.endpoint, job.identity, job.zfs, job.show, job.retry_for, scratch.receive_options),
        activity="drill",
    )
    try:
        failures = await restore(restoring, done.append)
        for _name, error in failures:
            raise error
    except (Unreachable, Interrupted):
        raise
    except FullsendError as error:
        return replace(failed, text=f"not restored: {error}")
    restored = done[0]
    result = replace(failed, streams=restored.streams, raw_bytes=restored.raw_bytes, seconds=restored.seconds)
    started = time.monotonic()
    try:
        compared = await _compare(job, scratch, chosen)
    except FullsendError as error:
        return replace(result, text=f"restored, and not compared: {error}", comparing=time.monotonic() - started)
    except Exception as error:  # noqa: BLE001 - of any class, it is a failure of the comparison
        return replace(result, text=f"restored, and not compared: {as_failure(error)}")
    return replace(
        result,
        ok=compared.ok,
        extent=compared.extent,
        text=compared.text,
        comparing=time.monotonic() - started,
        files=compared.files,
        differences=compared.differences,
        told=compared.told,
        exit_code=Exit.OK if compared.ok else Exit.FAILED,
    )


async def _compare(job: DrillJob, scratch: Scratch, chosen: Choice) -> Comparison:
    progress = Progress(time.monotonic(), label="comparing")
    comparer = SnapshotComparer(job.zfs, job.into, progress=lambda size: progress.add(size, 0), mount=job.mount)
    progress.stream = f"{chosen.entry.dataset}@{chosen.entry.snapshot}"
    async with reporting(progress, sys.stderr, when=job.show), publishing(progress, "drill", job.endpoint.name):
        compared = await comparer.compare(scratch.target, chosen.entry)
        progress.done = True
    return compared


async def _report(job: DrillJob, outcome: DrillOutcome) -> DrillOutcome:
    """Tell the receiver. Returns: the outcome, with the result of that."""
    told = outcome if outcome.ok else replace(outcome, exit_code=outcome.exit_code or Exit.FAILED)
    try:
        reported = await report.report(
            *(job.endpoint, job.identity, told.entry),
            ok=told.ok,
            compared=told.extent,
            text=printable(told.told or told.text),
            seconds=told.seconds,
            raw_bytes=told.raw_bytes,
            files=told.files,
            retry_for=job.retry_for,
        )
    except FullsendError as error:
        _log.error("the receiver does not know the result of this drill: %s", error)
        return replace(told, exit_code=told.exit_code or error.exit_code)
    return replace(told, reported=reported)
