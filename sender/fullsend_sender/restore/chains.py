"""Selects the stored streams that restore a snapshot, and their order. No I/O: the entries of `list` in, chains out.

fullsend_protocol.format.chains knows which stream builds on which, and the ends of the chains. The newest state is the
end of a chain that was received last. This host's clock at the time of a snapshot can only cause a question. It never
decides.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from fullsend_protocol.format.chains import Forest, ends, reception
from fullsend_protocol.format.names import guid_of, named
from fullsend_protocol.shared.errors import FullsendError, UsageError
from fullsend_protocol.stream.facts import LETTERS
from fullsend_sender.transfer.listing import is_of_copy, unlisted, why_unlisted
from fullsend_sender.zfs.selection import lineage

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from fullsend_protocol.format.manifest import StreamEntry
    from fullsend_protocol.stream.resume_token import ResumeToken
    from fullsend_protocol.wire.messages import DatasetStatus

#: Candidates named in the error for an ambiguous name.
_NAMED: Final = 5


class NotRestorable(FullsendError):  # noqa: N818 - reads as what it says
    """The requested state is not stored, or lacks a stream that it builds on."""


@dataclass(slots=True)
class Tree:
    """The streams that restore a tree of datasets.

    `chosen`: the streams to end with, parents first. By name of the dataset, `left_out`: why it is not restored;
    `refused`: why its newest state is uncertain; `notes`: what to tell the user about a chosen one, or one of which
    nothing so old is stored; `doubtful`: notes that hold if a stream was merged of several, each with that stream.
    """

    chosen: list[StreamEntry] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    refused: list[tuple[str, FullsendError]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    doubtful: list[tuple[str, str, StreamEntry]] = field(default_factory=list)


class Library:
    """All stored streams of this sender.

    `entries`: the answer to `list`, in any order; `statuses`: by dataset, the receiver's status of it, if known.
    """

    def __init__(self, entries: Iterable[StreamEntry], statuses: Mapping[str, DatasetStatus] | None = None) -> None:
        self._entries = list(entries)
        self._statuses = statuses or {}
        self._unlisted = unlisted(self._statuses, Counter(entry.dataset for entry in self._entries))
        self._forest = Forest(self._entries, order=reception, key=attrgetter("file"))

    def knows(self, guid: str) -> bool:
        """Whether a snapshot with this GUID is stored, of any dataset."""
        return bool(self._forest.of_guid(guid))

    def find(self, what: str) -> StreamEntry:
        """Return the stream to end with: `what` is DATASET (its newest), DATASET@SNAPSHOT, guid:N, or a file's name.

        Raises: NotRestorable if no stream fits. UsageError if several different snapshots do, or if only the user can
        know which state is the newest.
        """
        found = named(what, self._entries)
        if not found and "@" not in what and guid_of(what) is None:
            return self.newest(what)
        return self._only(found, what)

    def _only(self, found: Sequence[StreamEntry], what: str) -> StreamEntry:
        if not found:
            raise NotRestorable(f"{what}: no such stream is stored (see `fullsend list`)")
        if len({each.guid for each in found}) > 1:
            names = " ".join(each.file for each in found[:_NAMED])
            raise UsageError(f"{what}: {len(found)} streams fit; name one by its file: {names}")
        # Streams of one snapshot: a full and an increment, raw and plain, or a package, which has more datasets.
        return min(found, key=self._effort)

    def _effort(self, entry: StreamEntry) -> tuple[bool, bool, int]:
        chain = self.chain(entry)
        return chain is None, entry.kind == "package", len(chain or ())

    def newest(self, dataset: str, before: tuple[int, str] | None = None, *, alone: bool = False) -> StreamEntry:
        """Return the stream to end with for a dataset's newest state: the end of a chain that was received last. It may
        be damaged: an older state must never pass for the newest.

        `before`: as of a place in the order of reception, None: now; `alone`: even if the dataset continues under
        another name.

        Raises: NotRestorable if nothing is stored. UsageError if it is uncertain which state is the newest. There are
        four such cases: the receiver cannot list all that it has; an end that was received earlier was taken later by
        this host's clock; this host has reported since that the dataset is as of another snapshot; or the dataset
        continues under another name.
        """
        mine = [each for each in self._forest.of_dataset(dataset) if before is None or reception(each) < before]
        self._check_listed(dataset, mine)
        found = ends(mine)
        if not found:
            return self._only([], dataset)
        newest = found[-1]
        if before is None and not alone and (there := self._continues_as(newest)) is not None:
            raise UsageError(
                f"{dataset} was renamed, and continues as {there.dataset}, up to @{there.snapshot}: restore that"
                f" (`fullsend restore {there.dataset} --into {dataset}`), or name the state before"
                f" (`fullsend restore {_name(newest)}`)"
            )
        about = self._statuses.get(dataset)
        # Both times are the receiver's.
        said = about.unchanged if about is not None and about.guid != newest.guid and before is None else None
        if about is not None and said is not None and said > newest.received:
            raise UsageError(
                f"{dataset}: it is not certain which state is the newest: {_name(newest)} came last (received"
                f" {newest.received}), and later, at {said}, its host said that it is as of @{about.snapshot}, as after"
                f" a rollback; name one: {_name(newest)}, {dataset}@{about.snapshot}"
            )
        again = None if before is not None else self._received_again(mine, newest)
        if again is not None and not (about is not None and (about.unchanged or "") > again.received):
            raise UsageError(
                f"{dataset}: it is not certain which state is the newest: {_name(newest)} was received"
                f" {newest.received}, and after it {_name(again)} once more, {again.received}, as after a rollback;"
                f" name one by its file: {newest.file} {again.file}"
            )
        later = [each for each in found[:-1] if each.created > newest.created and self._continues_as(each) is None]
        if later:
            ways = "; ".join(
                f"{_name(each)}, taken {each.created}, received {each.received}" for each in (newest, *later[:_NAMED])
            )
            raise UsageError(
                f"{dataset}: it is not certain which state is the newest, since what came last was not taken last: a"
                f" clock was wrong, or an older snapshot was pushed; name one: {ways}"
            )
        return self._only([each for each in mine if each.guid == newest.guid], dataset)

    def _check_listed(self, dataset: str, mine: Iterable[StreamEntry]) -> None:
        """Check that the receiver lists all that it has of a dataset. `mine`: the streams that may be restored instead.

        Raises: UsageError if it does not: what is missing may be the newest.
        """
        count = self._unlisted.get(dataset)
        if count is None:
            return
        whole = [each for each in mine if self.chain(each) is not None]
        way = f", or name a state, such as {_name(max(whole, key=reception))}" if whole else ""
        raise UsageError(
            f"{dataset}: it is not certain which state is the newest, because {why_unlisted(count)}: run the same"
            f" command again after that{way}"
        )

    @staticmethod
    def _received_again(mine: Sequence[StreamEntry], newest: StreamEntry) -> StreamEntry | None:
        """Return the last stream received after a dataset's newest state that has an older, already stored snapshot;
        None: there is none. Such a stream may mean a rollback to that snapshot.
        """
        last = max(reception(each) for each in mine if each.guid == newest.guid)
        before = {each.guid for each in mine if reception(each) < last}
        again = [each for each in mine if reception(each) > last and each.guid in before]
        return max(again, key=reception, default=None)

    def _continues_as(self, state: StreamEntry) -> StreamEntry | None:
        """Return the newest end of the dataset that this state's dataset was renamed to; None: it was not renamed. See
        Forest.continues_as.
        """
        return self._forest.continues_as(state, self._is_copy)

    def _renamed_to(self, dataset: str) -> str | None:
        """Return the last name of a dataset that was renamed; None: it was not."""
        last = self._forest.ends(dataset)
        there = self._continues_as(last[-1]) if last else None
        if there is None or self._forest.existed_before(there.dataset, last[-1]):
            return None
        return there.dataset

    def _is_copy(self, state: StreamEntry, dataset: str) -> bool:
        """Whether a dataset with a stream on this state is a copy of the state's own dataset, which still existed."""
        about = self._statuses.get(state.dataset)
        on_it = self._forest.built_on(state.guid)
        return about is not None and any(each.dataset == dataset and is_of_copy(each, about) for each in on_it)

    def _was_beside(self, there: StreamEntry, state: StreamEntry) -> bool:
        """Whether the dataset of `there`, whose chain passes through a state, existed beside the state's own dataset:
        then it is a copy, and that was not renamed to it.
        """
        if self._forest.existed_before(there.dataset, state):
            return True
        about, passed = self._statuses.get(state.dataset), {there.guid, *self._forest.lineage(there)}
        return any(
            each.dataset == state.dataset or (about is not None and each.guid in passed and is_of_copy(each, about))
            for each in self._forest.built_on(state.guid)
        )

    def other_ends(self, entry: StreamEntry) -> list[StreamEntry]:
        """Return the ends of other chains that branch off from this stream's own chain, as after a rollback. The order
        is that of reception, last one first. A chain that ended because a new full was sent is not a branch.
        """
        mine = self._forest.lineage(entry)
        others = [
            each
            for each in self._forest.ends(entry.dataset)
            if each.guid != entry.guid
            and entry.guid not in self._forest.lineage(each)
            and self._continues_as(each) is None
            if not mine.isdisjoint(self._forest.lineage(each))
        ]
        return others[::-1]

    def tree(
        self,
        top: str,
        snapshot: str | None,
        fits: Callable[[str], bool],
        contents: Mapping[str, Collection[str] | None] | None = None,
    ) -> Tree:
        """Select what restores `top` and each dataset below it whose name `fits`.

        A dataset with a newer state than the package that contains it is refused, and one of which the receiver cannot
        list all: an older state must never pass for the newest.

        `snapshot`: the named one (after the @), None: the newest of each dataset. A dataset without the named snapshot
        is restored as of its newest state received before the first stream with that name: it had not changed, or what
        came between was merged since. Without such a state it is left out, with a note. Left out is also a dataset
        that was renamed within `top`, and continues under another name, and one that a package contains: the package
        restores it in its place.

        `contents`: by file of a package, the datasets in it, None: they cannot be found out. A package that is missing
        there counts as having all that is below it by name.

        Raises: NotRestorable if no stream fits.
        """
        stored = sorted({*self._forest.datasets, *self._unlisted})
        names = [each for each in stored if (each == top or each.startswith(f"{top}/")) and fits(each)]
        same = [each for name in names for each in self._forest.of_dataset(name) if each.snapshot == snapshot]
        first = min(same, key=reception, default=None)
        tree = Tree()
        chosen: list[StreamEntry] = []
        absent: list[str] = []
        for name in names:
            try:
                if snapshot is None:
                    chosen.append(self._newest_within(name, names))
                elif first is not None and (found := self._as_of(name, first, tree)) is not None:
                    chosen.append(found)
                elif first is not None:
                    absent.append(name)
            except UsageError as error:
                tree.refused.append((name, error))
        if not chosen and not tree.refused:
            raise NotRestorable(f"{top}{f'@{snapshot}' if snapshot else ''}: nothing of it, or below it, is stored")
        chosen.sort(key=lambda each: each.dataset.split("/"))
        packages = self._arrange(chosen, tree, contents or {})
        note = (
            f"has nothing stored that was received before @{snapshot}, and is left out: it is younger, or what it had"
            " then was merged or pruned since"
        )
        later_names = {self._renamed_to(each.dataset) for each in chosen} if absent else set()
        for name in absent:
            if name not in later_names and _package_of(name, packages, contents or {}) is None:
                tree.notes.append((name, note))
        return tree

    def _arrange(
        self, chosen: Sequence[StreamEntry], tree: Tree, contents: Mapping[str, Collection[str] | None]
    ) -> dict[str, StreamEntry]:
        """Add the chosen streams, parents first, to a tree, or the reasons why they are not restored.

        `contents`: as in `tree`. Returns: the packages among what is restored, by their top datasets.
        """
        # If the chain of another dataset passes through this state, that dataset is this one under a newer name.
        passing: dict[str, list[StreamEntry]] = {}
        for each in chosen:
            for guid in self._forest.lineage(each):
                passing.setdefault(guid, []).append(each)
        packages: dict[str, StreamEntry] = {}
        for each in chosen:
            there = [other for other in passing.get(each.guid, ()) if not self._was_beside(other, each)]
            package = _package_of(each.dataset, packages, contents)
            if there:
                tree.left_out.append((each.dataset, f"continues as {there[-1].dataset}"))
            elif package is None:
                tree.chosen.append(each)
                if each.kind == "package":
                    packages[each.dataset] = each
            elif reception(each) > reception(package) and each.snapshot != package.snapshot:
                reason = (
                    f"comes as it was in the package {_name(package)}, received {package.received}, and its own"
                    f" state @{each.snapshot} is newer, received {each.received}: restore that into another place"
                    f" (`fullsend restore {_name(each)} --into`)"
                )
                tree.refused.append((each.dataset, UsageError(reason)))
            elif contents.get(package.file, ()) is None:
                reason = (
                    f"may be in the package {_name(package)}, of which it cannot be found out what it contains: if it"
                    f" is missing when that is restored, restore it by itself (`fullsend restore {_name(each)} --into`)"
                )
                tree.refused.append((each.dataset, UsageError(reason)))
            else:
                tree.left_out.append((each.dataset, f"comes as it was in the package {_name(package)}"))
        return packages

    def _newest_within(self, dataset: str, names: Sequence[str]) -> StreamEntry:
        """Return the newest stream of a dataset. If the dataset continues as another one of these names, return its
        last state, which the chain of the other passes through. Raises: as `newest`.
        """
        last = self._forest.ends(dataset)
        there = self._continues_as(last[-1]) if last else None
        if there is None or there.dataset not in names:
            return self.newest(dataset)
        # A dataset that existed before is another one, such as a replica: this dataset was not renamed to it.
        if self._forest.existed_before(there.dataset, last[-1]):
            return self.newest(dataset, alone=True)
        self._check_listed(dataset, self._forest.of_dataset(dataset))
        return last[-1]

    def _as_of(self, dataset: str, first: StreamEntry, tree: Tree) -> StreamEntry | None:
        """Return the stream to end with for a dataset's state as of a named snapshot; None: it has no state so old.

        `first`: the first received stream with that snapshot, of any dataset; `tree`: gets a note if this host's clock
        says that the state is younger, or if it may be older than that. Raises: UsageError as `newest`.
        """
        mine = self._forest.of_dataset(dataset)
        named = [each for each in mine if each.snapshot == first.snapshot]
        if named:
            return self._only(named, f"{dataset}@{first.snapshot}")
        before = {each.guid for each in mine if reception(each) < reception(first)}
        if not before:
            self._check_listed(dataset, ())
            return None
        found = self.newest(dataset, before=reception(first))
        said = f"has no @{first.snapshot}, and comes as of @{found.snapshot}"
        after = next((each for each in mine if reception(each) > reception(first) and each.guid not in before), None)
        if found.created > first.created:
            note = (
                f"{said}, the newest that was received before that. It was taken later, this host's clock said"
                f" ({found.created}; {_name(first)}: {first.created}): a clock was wrong, or @{first.snapshot} was"
                " pushed late"
            )
            tree.notes.append((dataset, note))
        elif after is not None:
            note = f"{said}, received {found.received}. It may have had a later state then: what came next,"
            if after.base_guid == found.guid:
                tree.doubtful.append((dataset, f"{note} up to @{after.snapshot}, was merged since", after))
            else:
                tree.notes.append((dataset, f"{note} @{after.snapshot}, does not build on that"))
        return found

    def chain(self, entry: StreamEntry, after: str | None = None) -> list[StreamEntry] | None:
        """Return the shortest chain of streams that ends with this one, in the order of restoring; None: there is none.

        `after`: the GUID of a snapshot that is already restored, from which to begin; None: begin with a full.
        """
        return self._forest.chain(entry, _restorable if after is None else _whole, after)

    def begun(self, token: ResumeToken) -> list[StreamEntry]:
        """Return the stored streams that the partly received state with this resume token may belong to."""
        letters = {letter for letter, feature in LETTERS if token.features >> feature & 1}
        base = None if token.base_guid is None else str(token.base_guid)
        return [
            each
            for each in self._forest.of_guid(str(token.guid))
            if each.base_guid == base and each.kind != "package" and not each.damaged
            if each.stream_class != "redacted"  # which has no token, and flags that contain a hash
            and {letter for letter, _feature in LETTERS if letter in each.flags} == letters
        ]

    def obstacle(self, entry: StreamEntry) -> str:
        """Return why there is no chain to this stream, for the user."""
        match self._forest.obstacle(entry, _whole):
            case (here, "damaged"):
                return f"{here.file} is damaged ({here.damaged})"
            case (here, "no base"):
                return f"guid:{here.base_guid}, the base of {_name(here)}, is not stored"
            case _:
                return f"a file of its chain is missing, or shorter than it was (see `fullsend verify {entry.dataset}`)"


def _whole(entry: StreamEntry) -> bool:
    """Whether no damage is known. `list` reports a missing file only as `restorable` false."""
    return not entry.damaged


def _restorable(entry: StreamEntry) -> bool:
    """Whether a chain from a full to this stream can be restored."""
    return entry.restorable and _whole(entry)


def _package_of(
    dataset: str, packages: Mapping[str, StreamEntry], contents: Mapping[str, Collection[str] | None]
) -> StreamEntry | None:
    """Return the package that brings a dataset, or may bring it; None: none of them does. `packages`: those that are
    restored, by their top dataset; `contents`: as in `Library.tree`.
    """
    for name in reversed(lineage(dataset)[1:]):
        if name in packages:
            inside = contents.get(packages[name].file)
            if inside is None or dataset in inside:
                return packages[name]
    return None


def _name(entry: StreamEntry) -> str:
    return f"{entry.dataset}@{entry.snapshot}"
