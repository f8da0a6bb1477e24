"""Drops what no rule keeps: plans each part of a sender's streams (`retention`), and removes what the plan gives up.

Streams are removed in small batches. For each batch the catalogue, leases and pins are read again while no other
process removes, and the part is planned anew. So a push that has arrived meanwhile keeps its base. Only what the first
plan has dropped is removed, and nothing on which a stream builds that stays.

`prune-at-most` counts the snapshots that the policy *gives up*: those that no rule keeps now, although one did at the
last prune. Some are dropped at once, others stay as bases until their chain ends, and go then without counting again.
As many as have arrived since the last prune may go in any case: that is the normal course of a dataset.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

from fullsend_protocol.shared.errors import FullsendError
from fullsend_protocol.shared.units import format_size, format_time, parse_time, plural
from fullsend_receiver.catalogue.rows import Summary
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.catalogue.streams import Catalogue
from fullsend_receiver.maintenance.merge_records import read_merges
from fullsend_receiver.maintenance.plans import NOT_ASKED, PruneRules, SenderPlans
from fullsend_receiver.maintenance.prune_records import (
    DatasetRecord,
    PruneRecord,
    write_history,
    write_record,
)
from fullsend_receiver.maintenance.retention import Action, Decision, HeldChain, Plan
from fullsend_receiver.maintenance.scrub import never_interrupts
from fullsend_receiver.maintenance.suspicion import arrived
from fullsend_receiver.maintenance.thinning import Merge
from fullsend_receiver.maintenance.trash import trash_name
from fullsend_receiver.store.api import Store

log: Final = logging.getLogger("fullsendd")

#: So few snapshots may always be given up in one run.
_FEW: Final = 3
#: Streams of a batch: pushes wait while one is removed. A part of many streams is planned anew at most so many times.
_BATCH: Final = 64
_BATCHES: Final = 16
#: Raw bytes a second of a merge, before the first one has shown them.
_RAW_RATE: Final = 100e6
#: A record has all datasets of a sender. Of more than so many it is not written before each of them is pruned.
_EARLY: Final = 64


@dataclass(frozen=True, slots=True)
class Judged:
    """What has become of one stream; in a dry run, what would. `dropped`: it is gone, or would be; `locked`: the end of
    the lock that alone keeps it, as `Store.locked`; None: no lock does.
    """

    decision: Decision
    dropped: bool
    locked: float | None = None


@dataclass(frozen=True, slots=True)
class NothingGoes:
    """Of this dataset nothing is dropped before a person has looked at it."""

    sender: str
    dataset: str
    why: str


@dataclass(frozen=True, slots=True)
class ChainHeld:
    """Why nothing, or not more, of a dataset can go."""

    sender: str
    chain: HeldChain


@dataclass(frozen=True, slots=True)
class MergePlanned:
    """Streams that become one, behind the removals. `seconds`: how long it takes, about."""

    sender: str
    merge: Merge
    seconds: float


PruneEvent = Judged | NothingGoes | ChainHeld | MergePlanned


def newest_reception(catalogues: Catalogues) -> float:
    """Return when the newest stream of all was received, in seconds since the epoch; 0: none is stored. Blocks."""
    newest, found = "", 0.0
    for sender in catalogues.senders():
        for shelf in catalogues.current(sender).shelves():
            for each in shelf.summaries():
                # Times compare as text; few must be read. What is none, as in a manifest made by hand, hides no other.
                if each.received > newest and not each.received.startswith("@"):
                    at = parse_time(each.received)
                    if at is not None:
                        newest, found = each.received, at
    return found


class Pruner:
    """One run over some senders. Its own look at the store: a question to the daemon meanwhile does not wait for it."""

    def __init__(
        self,
        store: Store,
        rules: PruneRules,
        now: float,
        between: Callable[[], None] = never_interrupts,
        *,
        thorough: bool = True,
    ) -> None:
        """`now`: seconds since the epoch, for all of it; `between`: is called between two batches, and ends the run by
        raising; `thorough`: as in `Catalogues`, which only a run that changes nothing does without. Reads nothing yet.
        """
        self.catalogues: Final = Catalogues(store, thorough=thorough)
        self.store: Final = store
        self.rules: Final = rules
        self.now: Final = now
        self.trash: Final = trash_name(now) if rules.undelete_within else None
        self.merged_trash: Final = trash_name(now, merged=True)
        self.between: Final = between

    def prune(
        self, sender: str, dataset: str | None = None, *, dry_run: bool = False, yes_more: bool = False
    ) -> Iterator[PruneEvent]:
        """Prune a sender's streams, those of one dataset or all. Blocks.

        `dry_run`: change nothing; `yes_more`: without `prune-at-most`. Yields: what becomes of each stream, and each
        reason why nothing goes. Raises: StoreError, OSError, what `between` raises. What was dropped by then is
        recorded.
        """
        run = _SenderPrune(self, sender, dataset, yes_more=yes_more)
        try:
            yield from run.events(dry_run=dry_run)
        finally:
            if not dry_run:
                run.write()


@dataclass(slots=True)
class _Done:
    """What was done to one part."""

    dropped: set[str] = field(default_factory=set)
    latest: dict[str, Decision] = field(default_factory=dict)  # by file, of the last plan with it


class _SenderPrune:
    """The prune of one sender."""

    def __init__(self, pruner: Pruner, sender: str, dataset: str | None, *, yes_more: bool) -> None:
        self._pruner = pruner
        self._store = pruner.store
        self._sender = sender
        self._dataset = dataset
        self._yes_more = yes_more
        self._plans = SenderPlans(pruner.catalogues, pruner.rules, pruner.now, sender, dataset)
        self._before = self._plans.before
        self._datasets = dict(self._before.datasets)
        self._seen: set[str] = set()
        self._dropped = self._freed = 0
        self._whole = False  # all parts are done
        self._unwritten = 0  # parts since the record was written

    def events(self, *, dry_run: bool) -> Iterator[PruneEvent]:
        if not dry_run:
            # What a dead prune had begun does not belong to this one, and must not count as stored.
            self._store.wait_for_removals()
        for names in self._plans.parts():
            self._pruner.between()
            yield from self._part(names, dry_run=dry_run)
        self._whole = self._dataset is None

    def write(self) -> None:
        """Record what was done. A full disk costs the record only."""
        try:
            write_record(self._store.documents, self._sender, self._record())
        except OSError as error:
            log.warning("%s: what its prune has done cannot be recorded: %s", self._sender, error)

    def _write_early(self) -> None:
        """Record what a person has allowed: it stays allowed if this run is killed. With many datasets a killed run may
        lose it for some, which are then asked about again: else the records would take longer than the prune.
        """
        self._unwritten += 1
        if self._unwritten > len(self._datasets) // _EARLY:
            self._unwritten = 0
            with contextlib.suppress(OSError):
                write_record(self._store.documents, self._sender, self._record())

    def _record(self) -> PruneRecord:
        ever = self._before.freed_ever + self._freed
        if not self._whole:
            return self._before.model_copy(update={"datasets": self._datasets, "freed_ever": ever})
        known = {name: each for name, each in self._datasets.items() if name in self._seen}
        at = format_time(self._pruner.now)
        return PruneRecord(at=at, dropped=self._dropped, freed=self._freed, freed_ever=ever, datasets=known)

    # --- one part

    def _part(self, names: set[str], *, dry_run: bool) -> Iterator[PruneEvent]:
        now = self._plans.current()
        part = now.holdings.around(datasets=names)
        names |= {each.summary.dataset for each in part.streams}
        stopped = self._plans.stopped(now.holdings, part, names)
        suspects = self._plans.suspects(part, stopped)
        stopped |= suspects
        first = self._plans.plan(now, part, stopped)
        if not self._yes_more and (beyond_limit := self._beyond(first, stopped)):
            stopped |= beyond_limit
            first = self._plans.plan(now, part, stopped)
        done = _Done(latest={each.stream.path: each for each in first.decisions})
        if not dry_run:
            self._note(first, stopped, suspects, now.holdings.last_sequence)
            if self._yes_more and first.drops:
                self._write_early()
            try:
                self._drop_all(first, names, stopped, done)
            except (FullsendError, OSError):
                yield from self._results(part, first, done, dry_run=False)  # what is gone by then is told, too
                raise
        yield from self._results(part, first, done, dry_run=dry_run)
        for dataset, why in sorted(stopped.items()):
            if why is not NOT_ASKED:
                yield NothingGoes(self._sender, dataset, why)
        for merge in first.merges if dry_run else ():
            yield MergePlanned(self._sender, merge, self._seconds(merge))
        for chain in first.held:
            if stopped.get(chain.dataset) is not NOT_ASKED:
                yield ChainHeld(self._sender, chain)

    def _drop_all(self, first: Plan, names: set[str], stopped: dict[str, str], done: _Done) -> None:
        merged = [each for each in first.drops if each.rule == "superseded"]
        if merged:
            keeps = self._pruner.rules.keeps_merged(self._store)
            self._drop(merged, names, stopped, done, self._pruner.merged_trash if keeps else None)
        others = [each for each in first.drops if each.rule != "superseded"]
        self._drop(others, names, stopped, done, self._pruner.trash)

    def _seconds(self, merge: Merge) -> float:
        """Return how long a merge takes, about: at the pace of the last one, and at no more than `merge-rate`."""
        rate = read_merges(self._store.documents, self._sender).raw_rate or _RAW_RATE
        merging = self._pruner.rules.merging
        paced = 2 * merge.stored_bytes / merging.rate if merging is not None and merging.rate else 0.0
        return max(merge.raw_bytes / rate, paced)

    def _results(self, part: Catalogue, first: Plan, done: _Done, *, dry_run: bool) -> Iterator[Judged]:
        going = {each.stream.path for each in first.drops} if dry_run else done.dropped
        for stored in part.streams:
            if self._dataset in {None, stored.summary.dataset}:
                decision = done.latest[stored.summary.path]
                locked = self._plans.lock(stored.summary) if decision.rule == "lock" else None
                yield Judged(decision, stored.summary.path in going, locked)

    def _drop(
        self, dropped: Iterable[Decision], names: set[str], stopped: dict[str, str], done: _Done, trash: str | None
    ) -> None:
        """Remove what the plan drops, batch by batch. `trash`: the folder in the trash, None: delete it."""
        allowed = {_identity(each.stream) for each in dropped}
        most = max(_BATCH, len(allowed) // _BATCHES)
        drops: dict[str, Decision] = {}

        def choose() -> list[PurePosixPath]:
            now = self._plans.current()
            part = now.holdings.around(datasets=names)
            there = {each.summary.dataset for each in part.streams}
            fresh = self._plans.plan(now, part, {**self._plans.stopped(now.holdings, part, there), **stopped})
            done.latest.update({each.stream.path: each for each in fresh.decisions})
            drops.clear()
            drops.update((each.stream.path, each) for each in _batch(fresh, allowed, most))
            return [PurePosixPath(path) for path in drops]

        while allowed:
            self._pruner.between()
            gone = [drops[str(file)] for file in self._store.remove(choose, trash=trash)]
            if not gone:
                break
            for each in gone:
                done.dropped.add(each.stream.path)
                allowed.discard(_identity(each.stream))
                self._dropped += 1
                self._freed += each.stream.stored_bytes
            write_history(
                self._store.documents,
                [(each.stream, each.reason) for each in gone],
                now=self._pruner.now,
                trash=trash,
            )

    # --- prune-at-most

    def _beyond(self, first: Plan, stopped: dict[str, str]) -> dict[str, str]:
        """Return the datasets of which this plan gives up too much, each with the reason."""
        found = {}
        for dataset, decisions in _by_dataset(first).items():
            if dataset not in stopped:
                record = self._before.datasets.get(dataset)
                why = beyond(decisions, record, self._pruner.rules.at_most)
                if why is not None:
                    name = f"{self._sender}/{dataset}"
                    found[dataset] = (
                        f"{why}: look at `fullsendd prune --dry-run {name}`, then `fullsendd prune --yes-more {name}`"
                    )
        return found

    def _note(self, first: Plan, stopped: dict[str, str], suspects: dict[str, str], sequence: int) -> None:
        """Note for the next run what this plan gives up."""
        for dataset, decisions in _by_dataset(first).items():
            self._seen.add(dataset)
            why = stopped.get(dataset)
            before = self._before.datasets.get(dataset, DatasetRecord())
            if why is NOT_ASKED:
                continue
            if why is not None:
                suspect = {"suspect": why, "suspect_at": sequence} if dataset in suspects else {}
                self._datasets[dataset] = before.model_copy(update={"trouble": why, **suspect})
            else:
                streams = [each.stream for each in decisions if each.rule != "superseded"]
                sizes = arrived(streams, before.sequence if before.sizes else 0, before.sizes)
                given_up = sorted(_given_up(decisions))
                self._datasets[dataset] = DatasetRecord(sequence=sequence, given_up=given_up, sizes=sizes)


def beyond(decisions: Iterable[Decision], record: DatasetRecord | None, at_most: float) -> str | None:
    """Return why a plan gives up too much of one dataset; None: it does not. `record`: of its last prune, None: there
    was none; `at_most`: a share of its snapshots, and of their stored bytes.
    """
    sizes: dict[str, int] = {}
    gone: dict[str, int] = {}
    come: dict[str, int] = {}
    new = _given_up(decisions)
    if record is not None:
        new.difference_update(record.given_up)
    for each in decisions:
        about = each.stream
        sizes[about.guid] = sizes.get(about.guid, 0) + about.stored_bytes
        if about.guid in new:
            gone[about.guid] = gone.get(about.guid, 0) + about.stored_bytes
        if record is not None and (about.sequence or 0) > record.sequence:
            come[about.guid] = come.get(about.guid, 0) + about.stored_bytes
    count, total = len(gone) - len(come), len(sizes)
    size, total_size = sum(gone.values()) - sum(come.values()), sum(sizes.values())
    if count <= _FEW or (count <= at_most * total and size <= at_most * total_size):
        return None
    return (
        f"the policy gives up {len(gone)} of {plural(total, 'snapshot')}, {format_size(sum(gone.values()))} of"
        f" {format_size(total_size)}, which is more than prune-at-most ({at_most:.0%})"
    )


def _given_up(decisions: Iterable[Decision]) -> set[str]:
    """Return the GUIDs of the snapshots that no rule keeps; their streams may stay as bases, or by locks."""
    guids, kept = set(), set()
    for each in decisions:
        if each.rule == "superseded":
            continue
        guids.add(each.stream.guid)
        if each.action is Action.KEEP and each.rule not in {"base", "lock"}:
            kept.add(each.stream.guid)
    return guids - kept


def _by_dataset(found: Plan) -> dict[str, list[Decision]]:
    by_dataset: dict[str, list[Decision]] = {}
    for each in found.decisions:
        by_dataset.setdefault(each.stream.dataset, []).append(each)
    return by_dataset


def _batch(fresh: Plan, allowed: set[tuple[str, str, int | None]], most: int) -> list[Decision]:
    """Return the streams to remove now, each behind the streams that build on it. Nothing that stays loses a base."""
    batch: list[Decision] = []
    needed: set[str | None] = set()
    results = {each.stream.guid for each in fresh.decisions if each.action is Action.KEEP}
    for each in fresh.decisions:
        about = each.stream
        drops = each.action is Action.DROP and _identity(about) in allowed
        # What builds on the snapshot of a merged stream can build on the result, which has the same.
        free = about.guid not in needed or (each.rule == "superseded" and about.guid in results)
        if drops and len(batch) < most and free:
            batch.append(each)
        else:
            needed.add(about.base_guid)
    return batch


def _identity(about: Summary) -> tuple[str, str, int | None]:
    """Return what differs if a stream was removed, and stored again under its name."""
    return about.path, about.received, about.sequence
