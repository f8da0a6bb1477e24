"""Merges stored streams as the plan says (`thinning`), one merge at a time, in a process of its own.

    Merger          plans, merges, proves, and swaps the result for its inputs

**Nothing is published that is not proven.** `merge_inputs` proves each input. The result is walked and hashed while it
is written, and decoded once more from the disk. Then one commit puts it in place and removes the inputs: after a crash
there is either the one or the others. Under the lock of that commit the part is planned anew, so a push, a reader or a
pin that came meanwhile keeps its streams, and the merge is discarded.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from fullsend_protocol.format.manifest import Manifest
from fullsend_protocol.shared.errors import FullsendError, StreamError, UnsupportedStream
from fullsend_protocol.shared.limits import MIB
from fullsend_protocol.shared.stages import StageWaits, TransferCount
from fullsend_protocol.shared.units import format_size, format_time, parse_time, plural, printable
from fullsend_protocol.stream.chunks import LEVEL_DEFAULT
from fullsend_protocol.stream.merge import MergeInput, merge
from fullsend_protocol.wire.live import LiveTransfer
from fullsend_receiver.arrival.commit import make_manifest
from fullsend_receiver.arrival.replacement import unchecked_time
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.events.emit import emit
from fullsend_receiver.events.records import MergeFailed, StreamsMerged
from fullsend_receiver.maintenance.merge_inputs import InputSpoilt, StoredInput
from fullsend_receiver.maintenance.merge_records import note_failures, note_merge, note_refusal, read_merges
from fullsend_receiver.maintenance.pace import Pace
from fullsend_receiver.maintenance.packing import PROGRAM, Packer, read_back
from fullsend_receiver.maintenance.plans import MergeRules, PruneRules, SenderPlans
from fullsend_receiver.maintenance.prune_records import write_history
from fullsend_receiver.maintenance.retention import Action
from fullsend_receiver.maintenance.thinning import Merge
from fullsend_receiver.maintenance.trash import trash_name
from fullsend_receiver.maintenance.verify import Subject, Verifier
from fullsend_receiver.store.api import Supersedes, Upload
from fullsend_receiver.store.durable import FULL
from fullsend_receiver.store.names import stream_file
from fullsend_receiver.store.opened import Offer, Opened, merge_key

log: Final = logging.getLogger("fullsendd")

#: Stored bytes that are made durable at a time.
_BATCH: Final = 64 * MIB


class MergeOvertaken(FullsendError):  # noqa: N818 - reads as what it says
    """What was to be merged has changed meanwhile, or is needed."""


class MergeAbandoned(Exception):  # noqa: N818 - reads as what it says
    """The caller has ended the run."""


class NoRoomToMerge(FullsendError):  # noqa: N818 - reads as what it says
    """The disk has no room for the result beside its inputs."""


@dataclass(frozen=True, slots=True)
class Merged:
    """A merge that is done. `file`: the result; `stored_bytes`: its; `seconds`: how long it took; `waits`: the inputs
    stay until a ZFS host has proven it.
    """

    sender: str
    merge: Merge
    file: PurePosixPath
    stored_bytes: int
    seconds: float
    waits: bool = False

    @property
    def freed(self) -> int:
        """Stored bytes that the swap has freed, or will free when the trash is emptied."""
        return self.merge.stored_bytes - self.stored_bytes


@dataclass(frozen=True, slots=True)
class NotMerged:
    """A merge that was not done; all inputs stay. `failed`: whether a person should look at it; `splits`: two of the
    inputs may still be merged.
    """

    sender: str
    merge: Merge
    why: str
    failed: bool
    splits: bool = True


MergeEvent = Merged | NotMerged


def _count_merge(due: Merge, waits: StageWaits) -> TransferCount:
    return TransferCount(time.monotonic(), due.stored_bytes, waits)


class Merger:
    """One run over some senders. The caller is the only process that merges (`Store.alone`)."""

    def __init__(
        self,
        catalogues: Catalogues,
        rules: PruneRules,
        now: float,
        *,
        count: Callable[[Merge, StageWaits], TransferCount] = _count_merge,
    ) -> None:
        """`rules`: with rules for merging; `now`: seconds since the epoch; `count`: returns what counts the
        stored bytes of the inputs of a merge, as they are read.
        """
        self._count = count
        self._waits = StageWaits("input")
        self._running: tuple[int, str, Merge, TransferCount] | None = None
        self._numbers = itertools.count(1)
        assert rules.merging is not None  # noqa: S101 - for mypy: the caller has looked
        self._catalogues = catalogues
        self._store = catalogues.store
        self._rules = rules
        self._merging: MergeRules = rules.merging
        self._now = now
        self._pace = Pace(self._merging.rate, lambda: False)
        self._abandoned = threading.Event()
        self._trash = trash_name(now, merged=True)

    def merge(self, sender: str, dataset: str | None = None) -> Iterator[MergeEvent]:
        """Merge what is due of a sender, of one dataset or all. Blocks. Yields: each merge, done or not.

        Raises: MergeAbandoned, StoreError, OSError.
        """
        plans = SenderPlans(self._catalogues, self._rules, self._now, sender, dataset)
        failed: list[str] = []
        for names in plans.parts():
            for event in self._merge_part(plans, names, sender):
                _report(event)
                yield event
                if isinstance(event, NotMerged) and event.failed:
                    failed.append(f"{event.merge.target.dataset}@{event.merge.target.snapshot}: {event.why}")
        if dataset is None and failed != read_merges(self._store.documents, sender).failed:
            note_failures(self._store.documents, sender, failed)

    def _merge_part(self, plans: SenderPlans, names: set[str], sender: str) -> Iterator[MergeEvent]:
        tried: set[Merge] = set()
        while (due := self._next(plans, names, tried)) is not None:
            tried.add(due)
            event = self._attempt(plans, names, sender, due)
            yield event
            if isinstance(event, Merged):
                tried.clear()
            elif len(due.inputs) > 2 and event.splits:  # noqa: PLR2004 - two at a time, to find what cannot be
                pair = Merge(due.inputs[:2])
                if pair not in tried:
                    tried.add(pair)
                    yield self._attempt(plans, names, sender, pair)

    @property
    def live(self) -> LiveTransfer | None:
        """The merge that is running, for `top`; None: none is. Any thread may ask."""
        running = self._running
        if running is None:
            return None
        number, sender, due, count = running
        what = f"{due.target.dataset}@{due.target.snapshot}"
        return LiveTransfer.of(f"{os.getpid()}.merge.{number}", "merge", sender, what, count, time.monotonic())

    def abandon(self) -> None:
        """End the run soon, from another thread: what has begun is discarded."""
        self._abandoned.set()

    def _check(self) -> None:
        """Raises: MergeAbandoned."""
        if self._abandoned.is_set():
            raise MergeAbandoned

    def _next(self, plans: SenderPlans, names: set[str], tried: set[Merge]) -> Merge | None:
        """Return the next merge of a part, None: there is none."""
        self._check()
        return next((each for each in self._due(plans, names) if each not in tried), None)

    def _due(self, plans: SenderPlans, names: set[str]) -> list[Merge]:
        """Plan a part as it is now. Returns: its merges for whose inputs nothing waits that is still to be removed."""
        now = plans.current()
        part = now.holdings.around(datasets=names)
        there = {each.summary.dataset for each in part.streams}
        stopped = plans.stopped(now.holdings, part, there)
        stopped |= plans.suspects(part, stopped) | plans.troubled(there)
        found = plans.plan(now, part, stopped)
        needed = {each.stream.base_guid for each in found.decisions if each.action is Action.DROP}
        return [each for each in found.merges if needed.isdisjoint(one.guid for one in each.inputs[:-1])]

    def _attempt(self, plans: SenderPlans, names: set[str], sender: str, due: Merge) -> MergeEvent:
        try:
            return self._merge(plans, names, sender, due)
        except (MergeOvertaken, NoRoomToMerge) as error:
            return NotMerged(sender, due, str(error), failed=False)
        except InputSpoilt as error:
            self._verify(sender, error.file)
            return NotMerged(sender, due, str(error), failed=True, splits=False)
        except StreamError as error:
            # The inputs are whole, so the next night would end the same.
            if len(due.inputs) == 2:  # noqa: PLR2004 - so these two
                note_refusal(self._store.documents, sender, (due.inputs[0], due.inputs[1]), str(error))
            return NotMerged(sender, due, str(error), failed=not isinstance(error, UnsupportedStream))
        except FullsendError as error:
            return NotMerged(sender, due, str(error), failed=True, splits=False)
        except OSError as error:
            if error.errno in FULL:
                return NotMerged(sender, due, f"there is no room for the result: {error.strerror}", failed=False)
            # It may be of one file: the other merges, and those of other senders, are tried.
            return NotMerged(sender, due, str(error), failed=True, splits=False)
        finally:
            self._running = None

    def _verify(self, sender: str, file: PurePosixPath) -> None:
        """Check a stream in which a merge has found damage, and record the result: a damaged one is no base again."""
        stored = self._catalogues.current(sender).around(file=file).at(file)
        if stored is not None:
            Verifier(self._store, self._catalogues.record, lambda _subject: ()).check(Subject.of(stored), self._check)

    # --- one merge

    def _merge(self, plans: SenderPlans, names: set[str], sender: str, due: Merge) -> Merged:
        self._check_room(due.stored_bytes)
        began = time.monotonic()
        waits = self._waits = StageWaits("input")
        count = self._count(due, waits)
        self._running = next(self._numbers), sender, due, count

        def read(size: int) -> None:
            count.add(size, 0)
            self._took(size)

        inputs = [StoredInput(self._store, each, read, waits) for each in due.inputs]
        upload = self._store.begin(merge_key(each.path for each in due.inputs), _opened(sender, due, self._now))
        try:
            packer = Packer(LEVEL_DEFAULT)
            self._write(upload, packer, inputs)
            waits.head("disk")
            stored_bytes, file_sha256 = upload.seal(packer.chunks)
            waits.head("check")
            name = f"{due.target.dataset}@{due.target.snapshot}"
            read_back(upload.sealed(), name, raw_bytes=packer.raw_bytes, sha256=packer.sha256)
            about = packer.conclude()
            if (str(about.guid), about.dataset) != (due.target.guid, due.target.dataset):
                msg = f"{name}: the merged stream is of another snapshot"
                raise StreamError(msg)
            file = stream_file(sender, about)
            last = inputs[-1].manifest
            manifest = make_manifest(
                sender,
                about,
                embedded_spills=packer.walker.embedded_spills,
                segments=packer.segments,
                resumptions=[],
                stored_bytes=stored_bytes,
                file_sha256=file_sha256,
                chunks=packer.chunks,
                sender_program=PROGRAM,
                zfs_version=last.zfs_version,
                properties=last.properties,
                proven_by="merge",
                begun=last.begun,
                sequence=last.sequence,
                received=self._received(file, last),
                merged=[each.merged for each in inputs if each.merged is not None],
            )
            supersedes = None
            if self._merging.mode == "on":
                supersedes = Supersedes(lambda: self._choose(plans, names, due), self._trash_folder())
            else:
                self._choose(plans, names, due)
            if not upload.commit(file, manifest, supersedes=supersedes):
                msg = f"{file}: is stored already"
                raise MergeOvertaken(msg)
        finally:
            upload.close(keep=False)
        seconds = time.monotonic() - began
        self._record(sender, due, file, supersedes, seconds)
        return Merged(sender, due, file, stored_bytes, seconds, waits=supersedes is None)

    def _write(self, upload: Upload, packer: Packer, inputs: list[StoredInput]) -> None:
        """Merge the inputs into the upload, all of it durable. Raises: InputSpoilt, StreamError, NoRoomToMerge,
        MergeAbandoned, StoreError, OSError.
        """
        unsynced = 0
        merged = merge([MergeInput(str(each.file), each.pieces()) for each in inputs])
        for frame, _entry in packer.frames(merged):
            self._waits.head("disk")
            upload.append(frame)
            unsynced += len(frame)
            self._took(len(frame))
            if unsynced >= _BATCH:
                self._check_room(0)
                self._waits.head("disk")
                upload.sync(packer.batch())
                self._waits.head("merge")
                unsynced = 0
        if unsynced:
            self._waits.head("disk")
            upload.sync(packer.batch())
        for each in inputs:
            if each.merged is None:  # its last bytes were not read, so they are not proven
                raise InputSpoilt(each.file, "something follows its end")

    def _took(self, size: int) -> None:
        """Keep the pace, after so many stored bytes."""
        self._waits.head("limit")
        self._pace.keep(size, self._abandoned)
        self._waits.head("merge")
        self._check()

    def _check_room(self, wanted: int) -> None:
        """Raises: NoRoomToMerge if so many bytes would not fit above `min-free`; OSError."""
        free, total = self._store.space()
        lacking = wanted + self._merging.min_free.of(total) - free
        if lacking > 0:
            msg = f"there is no room for the result: {format_size(lacking)} more must be free (min-free counts)"
            raise NoRoomToMerge(msg)

    def _received(self, file: PurePosixPath, last: Manifest) -> str:
        """Return the time of reception: that of the last input, whose place the result takes. A check of an earlier
        file of this name must not count for it, so it may be some seconds later.
        """
        at = parse_time(last.received)
        return last.received if at is None else unchecked_time(self._catalogues, file, at)

    def _trash_folder(self) -> str | None:
        """Return the folder in the trash for the inputs; None: there is no room for it."""
        return self._trash if self._rules.keeps_merged(self._store) else None

    def _choose(self, plans: SenderPlans, names: set[str], due: Merge) -> list[PurePosixPath]:
        """Return the inputs, in the order of removal. No other process removes meanwhile. Raises: MergeOvertaken if it
        would not merge them now; OSError.
        """
        if not any(each.inputs[: len(due.inputs)] == due.inputs for each in self._due(plans, names)):
            msg = "what was to be merged has changed meanwhile, or is needed"
            raise MergeOvertaken(msg)
        return [PurePosixPath(each.path) for each in reversed(due.inputs)]

    def _record(
        self, sender: str, due: Merge, file: PurePosixPath, supersedes: Supersedes | None, seconds: float
    ) -> None:
        """Record what was done. A full disk costs the records only: the log has the same."""
        documents = self._store.documents
        if supersedes is not None:
            drops = [(each, f"merge: into {file.name}") for each in reversed(due.inputs)]
            write_history(documents, drops, now=self._now, trash=supersedes.trash)
        try:
            note_merge(documents, sender, due.raw_bytes, seconds)
        except OSError as error:
            log.warning("%s: how fast it merged cannot be recorded: %s", sender, error)


def _report(event: MergeEvent) -> None:
    """Say that a merge is done, or that a person should look why it is not."""
    due, target = event.merge, event.merge.target
    names = {"sender": event.sender, "dataset": target.dataset, "snapshot": target.snapshot}
    what = printable(f"{event.sender}/{target.dataset}@{target.snapshot}")
    if isinstance(event, Merged):
        count = plural(len(due.inputs), "stream")
        emit(
            StreamsMerged(
                text=f"{what}: {count} became one, {format_size(event.stored_bytes)}",
                guid=target.guid,
                file=str(event.file),
                inputs=[each.path for each in due.inputs],
                stored_bytes=event.stored_bytes,
                freed_bytes=0 if event.waits else event.freed,
                seconds=round(event.seconds, 1),
                waits=event.waits,
                **names,
            )
        )
    elif event.failed:
        emit(MergeFailed(text=f"{what}: not merged: {printable(event.why)}", why=event.why, **names), logging.WARNING)


def _opened(sender: str, due: Merge, now: float) -> Opened:
    target = due.target
    offer = Offer(dataset=target.dataset, snapshot=target.snapshot, guid=target.guid, base_guid=due.inputs[0].base_guid)
    return Opened(sender=sender, offer=offer, at=format_time(now), merge=True)
