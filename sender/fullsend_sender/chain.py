"""Which stored streams bring a snapshot back, and in which order. No I/O: what `list` says in, chains out.

A chain is walked by base GUID alone, never by name or time (design section 2): a dataset may have been renamed, and
after a rollback chains branch.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING, Final

from fullsend_protocol.errors import FullsendError, UsageError
from fullsend_protocol.facts import LETTERS, class_of
from fullsend_sender.selection import lineage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from fullsend_protocol.manifest import StreamEntry
    from fullsend_protocol.resume_token import ResumeToken

#: Candidates named in the error for an ambiguous name.
_NAMED: Final = 5
_FILE_SUFFIX: Final = ".zfs.zst"


class NotRestorable(FullsendError):  # noqa: N818 - reads as what it says
    """What is asked for is not stored, or lacks something that it builds on."""


class Library:
    """All that is stored of this sender, as one `list` said. `entries`: in its order: of a dataset the oldest first."""

    def __init__(self, entries: Iterable[StreamEntry]) -> None:
        self._entries = list(entries)
        self._by_guid: dict[str, list[StreamEntry]] = defaultdict(list)
        self._by_dataset: dict[str, list[StreamEntry]] = defaultdict(list)
        for entry in self._entries:
            self._by_guid[entry.guid].append(entry)
            self._by_dataset[entry.dataset].append(entry)

    def find(self, what: str) -> StreamEntry:
        """Return the stream to end with: `what` is DATASET (its newest), DATASET@SNAPSHOT, guid:N, or a file's name.

        Raises: NotRestorable where nothing fits; UsageError where several different snapshots do.
        """
        if what.endswith(_FILE_SUFFIX):
            found = [each for each in self._entries if what in {each.file, each.file.rpartition("/")[2]}]
            if found:
                return self._only(found, what)
        if what.startswith("guid:"):
            found = self._by_guid.get(what.removeprefix("guid:"), [])
        elif "@" in what:
            found = [each for each in self._entries if _name(each) == what]
        else:
            return self._newest(what)
        return self._only(found, what)

    def _only(self, found: Sequence[StreamEntry], what: str) -> StreamEntry:
        if not found:
            raise NotRestorable(f"{what}: no such stream is stored (see `fullsend list`)")
        if len({each.guid for each in found}) > 1:
            names = " ".join(each.file for each in found[:_NAMED])
            raise UsageError(f"{what}: {len(found)} streams fit; name one by its file: {names}")
        # The same snapshot: as a full and as an increment, raw and plain, or within a package, which brings more.
        return min(found, key=self._effort)

    def _effort(self, entry: StreamEntry) -> tuple[bool, bool, int]:
        chain = self.chain(entry)
        return chain is None, entry.kind == "package", len(chain or ())

    def _newest(self, dataset: str) -> StreamEntry:
        """Return a dataset's newest stream. Not the newest that is whole: nobody shall take an old state for it."""
        mine = self._by_dataset.get(dataset, [])
        # The clock may have been ahead when one was taken, but not after it came. Of several of one second: the last.
        newest = max(reversed(mine), key=lambda each: min(each.created, each.received), default=None)
        return self._only([each for each in mine if newest is not None and each.guid == newest.guid], dataset)

    def tree(
        self, top: str, snapshot: str | None, fits: Callable[[str], bool]
    ) -> tuple[list[StreamEntry], list[tuple[str, str]]]:
        """Return of `top`, and of each dataset below, as far as it `fits`, the stream to end with; parents first.

        `snapshot`: the one that is named (after the @): of a dataset without it, since nothing had changed, the newest
        that is not younger; None: the newest of each. With it: datasets that are left out, and why: they have been
        renamed, and go on under another name; or they come with a package, and would be received where that puts them.

        Raises: NotRestorable where nothing fits; UsageError as `find`.
        """
        names = [each for each in self._by_dataset if (each == top or each.startswith(f"{top}/")) and fits(each)]
        chosen: list[StreamEntry] = []
        if snapshot is None:
            chosen += map(self._newest, names)
        else:
            same = [each for name in names for each in self._by_dataset[name] if each.snapshot == snapshot]
            until = max((each.created for each in same), default="")
            for name in names:
                mine = [each for each in self._by_dataset[name] if each.created <= until]
                named = [each for each in mine if each.snapshot == snapshot] or mine[-1:]
                if named:
                    chosen.append(self._only(named, f"{name}@{snapshot}"))
        if not chosen:
            raise NotRestorable(f"{top}{f'@{snapshot}' if snapshot else ''}: nothing of it, or below it, is stored")
        chosen.sort(key=lambda each: each.dataset.split("/"))
        # What another dataset's chain goes through is that one, under an older name.
        passed = {guid: each.dataset for each in chosen for guid in self._lineage(each)}
        packages = {each.dataset: each for each in chosen if each.kind == "package"}
        kept: list[StreamEntry] = []
        left_out: list[tuple[str, str]] = []
        for each in chosen:
            above = [packages[name] for name in lineage(each.dataset)[1:] if name in packages]
            if each.guid in passed:
                left_out.append((each.dataset, f"goes on as {passed[each.guid]}"))
            elif above:
                left_out.append((each.dataset, f"comes as it was in the package {_name(above[-1])}"))
            else:
                kept.append(each)
        return kept, left_out

    def _lineage(self, entry: StreamEntry) -> set[str]:
        """Return the GUIDs that a stream builds on, directly or not."""
        guids: set[str] = set()
        todo = [entry]
        while todo:
            for base in self._bases(todo.pop()):
                if base.guid not in guids:
                    guids.add(base.guid)
                    todo.append(base)
        return guids

    def chain(self, entry: StreamEntry, after: str | None = None) -> list[StreamEntry] | None:
        """Return the shortest chain of streams that ends with this one, in the order of restoring; None: there is none.

        `after`: the GUID of the snapshot to begin after, where that is restored already; None: with a full.
        """
        follows: dict[str, StreamEntry | None] = {entry.file: None}
        todo = deque([entry])
        while todo:
            here: StreamEntry | None = todo.popleft()
            assert here is not None  # noqa: S101 - for mypy
            if here.guid == after:
                return self._along(follows, follows[here.file])
            if here.damaged or (after is None and not here.restorable):
                continue
            if here.base_guid == after:  # both None: a full
                return self._along(follows, here)
            for base in self._bases(here):
                if base.file not in follows:
                    follows[base.file] = here
                    todo.append(base)
        return None

    @staticmethod
    def _along(follows: dict[str, StreamEntry | None], here: StreamEntry | None) -> list[StreamEntry]:
        chain = []
        while here is not None:
            chain.append(here)
            here = follows[here.file]
        return chain

    def begun(self, token: ResumeToken) -> list[StreamEntry]:
        """Return the stored streams of which a target with this resume token may have a part."""
        letters = {letter for letter, feature in LETTERS if token.features >> feature & 1}
        base = None if token.base_guid is None else str(token.base_guid)
        return [
            each
            for each in self._by_guid.get(str(token.guid), ())
            if each.base_guid == base and each.kind != "package" and not each.damaged
            if class_of(each.flags) != "redacted"  # which has no token; and its flags have a hash in them
            and {letter for letter, _feature in LETTERS if letter in each.flags} == letters
        ]

    def obstacle(self, entry: StreamEntry) -> str:
        """Return why there is no chain to this stream."""
        here, seen = entry, set[str]()
        while here.file not in seen:
            seen.add(here.file)
            if here.damaged:
                return f"{here.file} is damaged ({here.damaged})"
            if here.base_guid is None:
                break
            bases = self._bases(here)
            if not bases:
                return f"guid:{here.base_guid}, the base of {_name(here)}, is not stored"
            here = bases[0]
        return f"a file of its chain is missing, or shorter than it was (see `fullsend verify {entry.dataset}`)"

    def _bases(self, entry: StreamEntry) -> list[StreamEntry]:
        """Return what a stream can be received on: same class, and large blocks only where it has them itself: ZFS
        refuses to go back from -L. Packages last: they bring other datasets, too.
        """
        if entry.base_guid is None:
            return []
        fitting = [
            base
            for base in self._by_guid.get(entry.base_guid, ())
            if class_of(base.flags) == class_of(entry.flags) and ("L" in entry.flags or "L" not in base.flags)
        ]
        return sorted(fitting, key=lambda base: base.kind == "package")


def _name(entry: StreamEntry) -> str:
    return f"{entry.dataset}@{entry.snapshot}"
