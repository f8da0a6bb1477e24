"""Plans one part of a sender's streams, by what the store says at this moment: `retention`, with its facts gathered.

A part are the datasets of one sender whose streams build on one another. `prune` and `merging` use this alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePosixPath
from typing import Final, Literal

from fullsend_protocol.format.manifest import MergedInput
from fullsend_protocol.shared.settings import SizeOrShare
from fullsend_receiver.access.config import ReceiverSettings
from fullsend_receiver.access.policies import Policy
from fullsend_receiver.catalogue.holdings import Holdings
from fullsend_receiver.catalogue.pins import pins_in_force
from fullsend_receiver.catalogue.problems import Problem, ProblemKind
from fullsend_receiver.catalogue.rows import Summary
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.catalogue.streams import Catalogue, StoredStream
from fullsend_receiver.maintenance.leases import arriving_leases, hidden_leases, reading_leases
from fullsend_receiver.maintenance.merge_records import MergeRecord, read_merges
from fullsend_receiver.maintenance.prune_records import read_record
from fullsend_receiver.maintenance.retention import Lease, Pin, Plan, plan
from fullsend_receiver.maintenance.suspicion import read_accepted, suspicion
from fullsend_receiver.maintenance.thinning import Thinning
from fullsend_receiver.store.api import Store
from fullsend_receiver.store.errors import ManifestError
from fullsend_receiver.store.names import dataset_folder

#: Why nothing goes of a dataset that the command line does not name.
NOT_ASKED: Final = "another dataset is pruned"


_MIN_FREE: Final = SizeOrShare(1 << 30)


@dataclass(frozen=True, slots=True)
class MergeRules:
    """How streams are merged. `mode`: "prove-first": the inputs stay until a ZFS host has proven the result;
    `rebase_after`: see `thinning`; `rate`: stored bytes a second that are read and written, 0: no limit; `warn_at`: the
    used share of the disk from which on it is wanted; `min_free`: what stays free of it.
    """

    mode: Literal["on", "prove-first"] = "on"
    rebase_after: float = 0.3
    rate: int = 64 << 20
    warn_at: float = 0.85
    min_free: SizeOrShare = _MIN_FREE

    @classmethod
    def of(cls, settings: ReceiverSettings) -> MergeRules:
        """Return what a receiver's settings say. Its merging is not off."""
        return cls(
            mode="prove-first" if settings.merge == "prove-first" else "on",
            rebase_after=settings.rebase_after,
            rate=settings.merge_rate,
            warn_at=settings.warn_at,
            min_free=settings.min_free,
        )

    def is_disk_wanted(self, store: Store) -> bool:
        """Whether the disk is nearly full. Raises: OSError."""
        free, total = store.space()
        return total - free > self.warn_at * total


@dataclass(frozen=True, slots=True)
class PruneRules:
    """What a prune may drop. `policy_of`: the policy of a sender's dataset, None: it keeps all; `at_most`: the share of
    a dataset's snapshots or bytes that one run may give up; `undelete_within`: seconds in the trash, 0: there is none;
    `undelete_merged`: the same for the inputs of merges, where there is room; `suspicious`: whether suspicious streams
    stop the prune of their dataset; `merging`: what may be merged, None: nothing.
    """

    policy_of: Callable[[str, str], Policy | None]
    at_most: float = 0.2
    undelete_within: float = 0.0
    undelete_merged: float = 7 * 86400.0
    suspicious: bool = True
    merging: MergeRules | None = None

    def keeps_merged(self, store: Store) -> bool:
        """Whether what was merged waits in the trash: there is room for it. Raises: OSError."""
        wanted = self.merging is not None and self.merging.is_disk_wanted(store)
        return bool(self.undelete_merged) and not wanted


def rules_of(settings: ReceiverSettings) -> PruneRules | None:
    """Return what a receiver's settings allow; None: without a policy, nothing."""
    if settings.retention is None:
        return None
    return PruneRules(
        settings.retention.policy,
        settings.prune_at_most,
        settings.undelete_within,
        undelete_merged=settings.undelete_merged,
        suspicious=settings.when_suspicious == "stop",
        merging=None if settings.merge == "off" else MergeRules.of(settings),
    )


@dataclass(frozen=True, slots=True)
class SenderNow:
    """What there is of a sender. `arriving`: the leases of what arrives. They were read before `holdings`, so a push
    that has committed in between is in both; read later, it might be in neither, and would lose its base.
    """

    arriving: list[Lease]
    holdings: Holdings


class SenderPlans:
    """Plans the parts of one sender, those of one dataset or all."""

    def __init__(self, catalogues: Catalogues, rules: PruneRules, now: float, sender: str, dataset: str | None) -> None:
        """`now`: seconds since the epoch, for all of it. Raises: OSError."""
        self._catalogues = catalogues
        self._rules = rules
        self._now = now
        self._sender = sender
        self._dataset = dataset
        self._locks: dict[tuple[str, str], float | None] = {}  # by file and reception, what was asked
        #: The record of the sender's last prune.
        self.before: Final = read_record(catalogues.store.documents, sender)

    def current(self) -> SenderNow:
        """Return what there is of the sender now. Blocks. Raises: StoreError, OSError."""
        arriving = arriving_leases(self._catalogues.store, self._sender)
        return SenderNow(arriving, self._catalogues.current(self._sender))

    def troubled(self, names: Iterable[str]) -> dict[str, str]:
        """Return those of these datasets of which the last prune has dropped nothing, each with the reason."""
        found = {name: self.before.datasets.get(name) for name in names}
        return {name: each.trouble for name, each in found.items() if each is not None and each.trouble is not None}

    def parts(self) -> list[set[str]]:
        """Return the datasets of each part, or of the part of the one dataset. Blocks. Raises: StoreError, OSError."""
        return list(_parts(self._catalogues.current(self._sender), self._dataset))

    def stopped(self, holdings: Holdings, part: Catalogue, names: set[str]) -> dict[str, str]:
        """Return the datasets of which nothing may go, each with the reason."""
        stopped = {}
        folders: dict[str, set[str]] = {name: {str(dataset_folder(self._sender, name))} for name in names}
        for stored in part.streams:
            folders[stored.summary.dataset].add(str(stored.file.parent))
        for name in names:
            if self._dataset not in {None, name}:
                stopped[name] = NOT_ASKED
            for problem in holdings.problems:
                if _concerns(problem, folders[name]):
                    stopped[name] = f"not all of it can be read: {problem}"
                    break
        return _unread(part) | stopped

    def suspects(self, part: Catalogue, stopped: dict[str, str]) -> dict[str, str]:
        """Return the datasets that a person must look at first, each with the reason."""
        found: dict[str, str] = {}
        if not self._rules.suspicious:
            return found
        accepted = read_accepted(self._catalogues.store.documents)
        for dataset, group in groupby((stored.summary for stored in part.streams), lambda about: about.dataset):
            record = self.before.datasets.get(dataset)
            name = f"{self._sender}/{dataset}"
            if record is None or dataset in stopped or self._rules.policy_of(self._sender, dataset) is None:
                continue  # its first prune: nothing is known that this could be compared with
            known = accepted.get(name, 0)
            if record.suspect is not None and record.suspect_at > known:
                found[dataset] = record.suspect
            elif (why := suspicion([*group], max(record.sequence, known), record.sizes)) is not None:
                found[dataset] = f"{why}: if that is right: `fullsendd accept {name}`"
        return found

    def plan(self, now: SenderNow, part: Catalogue, stopped: Mapping[str, str]) -> Plan:
        """Plan a part of what there is `now`, with the readers and pins of this moment. Of what would go or be merged,
        the store is asked whether it is locked; then the plan is made anew.
        """
        store = self._catalogues.store
        leases = [
            *now.arriving,
            *reading_leases(part, store.held()),
            *hidden_leases(problem.path for problem in now.holdings.problems),
        ]
        in_force = pins_in_force(store.documents, self._now)
        pins = [Pin(str(file), each.until, each.note) for file, each in in_force.items()]
        merging = self._rules.merging
        thinning, superseded, unproven = None, dict[str, str](), dict[str, str]()
        if merging is not None:
            known = read_merges(store.documents, self._sender)
            wanted = merging.is_disk_wanted(store)
            thinning = Thinning(merging.rebase_after, disk_wanted=wanted, refused=known.reasons())
            superseded, unproven = self._merged(part, merging, known)
        while True:
            found = plan(
                [stored.summary for stored in part.streams],
                lambda dataset: self._rules.policy_of(self._sender, dataset),
                now=self._now,
                leases=leases,
                pins=pins,
                locks=self._locks_of(part),
                damaged={stored.summary.path for stored in part.streams if not part.whole(stored)},
                stopped=stopped,
                thinning=thinning,
                superseded=superseded,
                unproven=unproven,
            )
            if not self._ask_for_locks(found):
                return found

    def lock(self, about: Summary) -> float | None:
        """Return the end of a stream's lock, as `Store.locked`, if a plan had to know it; None: it has none."""
        return self._locks.get(_version(about))

    def _locks_of(self, part: Catalogue) -> dict[str, float]:
        """Return the locks of streams that are known, by file."""
        every = ((stored.summary.path, self._locks.get(_version(stored.summary))) for stored in part.streams)
        return {path: until for path, until in every if until is not None}

    def _ask_for_locks(self, found: Plan) -> bool:
        """Ask the store about what would go. Returns: whether something of it is locked, and was not known to be."""
        going = [each.stream for each in found.drops] + [each for merge in found.merges for each in merge.inputs]
        asked = [each for each in going if _version(each) not in self._locks]
        locked = self._catalogues.store.locked(PurePosixPath(each.path) for each in asked)
        self._locks.update((_version(each), locked.get(PurePosixPath(each.path))) for each in asked)
        return bool(locked)

    def _merged(
        self, part: Catalogue, merging: MergeRules, known: MergeRecord
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Return the files of streams that were merged, each with the name of the stored result; and the same of
        results that must be proven first, themselves included.

        Usually there are none: the result's commit removes its inputs. They may have come back from the trash, or wait
        for a proof.
        """
        superseded: dict[str, str] = {}
        unproven: dict[str, str] = {}
        proofs = known.proofs()
        guids = Counter(stored.summary.guid for stored in part.streams)
        for stored in part.streams:
            # Of a result and its inputs the last one has the same snapshot.
            about = stored.summary
            if about.proven_by != "merge" or guids[about.guid] == 1 or not part.whole(stored):
                continue
            for one in self._merged_into(stored):
                there = part.at(PurePosixPath(one.file))
                if there is None or there.summary.guid != one.guid or there.summary.sha256 not in {None, one.sha256}:
                    continue
                if merging.mode == "on" or (about.path, about.received) in proofs:
                    superseded[one.file] = about.path
                else:
                    unproven |= {one.file: about.path, about.path: about.path}
        return superseded, unproven

    def _merged_into(self, stored: StoredStream) -> list[MergedInput]:
        try:
            return self._catalogues.store.manifest(stored.file).merged
        except ManifestError:
            return []


def _unread(part: Catalogue) -> dict[str, str]:
    """Return the datasets with a stream that the last check could not read, or with one that builds on it, each with
    the reason. Such a stream counts as whole, so what is older may seem to be needed no more.
    """
    found: dict[str, str] = {}
    seen: set[str] = set()
    for stored in part.streams:
        about = stored.summary
        check = None if about.path in seen else part.unreadable(stored)
        if check is not None:
            why = (
                f"{about.path} could not be read at {check.tried}: {check.unreadable}: look at its disk, then"
                f" `fullsendd verify {about.sender}/{about.dataset}`"
            )
            for each in (stored, *part.dependents(stored)):
                seen.add(each.summary.path)
                found.setdefault(each.summary.dataset, why)
    return found


def _version(about: Summary) -> tuple[str, str]:
    """Return what differs if a stream was removed, and stored again under its name."""
    return about.path, about.received


def _parts(holdings: Holdings, dataset: str | None) -> Iterator[set[str]]:
    """Yield the datasets of each part, or of the part of this dataset."""
    seen: set[str] = set()
    for name, part in holdings.datasets(dataset):
        if name not in seen:
            names = {each.summary.dataset for each in part.streams}
            seen |= names
            yield names


def _concerns(problem: Problem, folders: Iterable[str]) -> bool:
    """Whether a problem may hide streams of a dataset in these folders, or streams that build on them.

    What is in an unreadable folder is unknown: streams of a renamed dataset may build on any of its sender's.
    """
    if problem.kind in {ProblemKind.FOLDER, ProblemKind.LINK}:
        return True
    return any(problem.hides(folder) for folder in folders)
