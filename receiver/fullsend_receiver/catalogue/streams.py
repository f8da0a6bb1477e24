"""What is stored: the manifests, read from the folders, and what follows from them together.

The manifests are the truth and there is no database. A chain is walked by base GUID, never by name, folder or order
(design section 2): a dataset may have been renamed, and after a rollback chains branch.
"""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

from fullsend_protocol.format.chains import reception
from fullsend_protocol.format.manifest import Manifest, Receipt, StreamEntry
from fullsend_protocol.shared.errors import ErrorCode, FullsendError
from fullsend_protocol.shared.exit_codes import Exit
from fullsend_protocol.stream.facts import StreamClass
from fullsend_protocol.wire.invitation import is_sender_name
from fullsend_receiver.catalogue.rows import Summary
from fullsend_receiver.catalogue.scrub_results import Scrubbed, ScrubLog
from fullsend_receiver.catalogue.summaries import Found, collector_off, find_streams, read_manifest
from fullsend_receiver.store.local import Store
from fullsend_receiver.store.names import STREAM_SUFFIX

#: Candidates named in the error for an ambiguous STREAM.
_CANDIDATES_NAMED: Final = 5


class NoSuchStream(FullsendError):  # noqa: N818 - reads as a noun
    """Nothing stored fits what was asked for."""

    code = ErrorCode.NOT_FOUND


class NoBase(FullsendError):  # noqa: N818 - reads as a noun
    """An increment's base is not stored, or not restorable: it would be of no use."""

    code = ErrorCode.BASE


class Damaged(FullsendError):  # noqa: N818 - reads as a noun
    """A stored stream cannot be given back whole."""

    code = ErrorCode.DAMAGED


class AmbiguousStream(FullsendError):  # noqa: N818 - reads as a noun
    """Several stored streams fit what was asked for."""

    code = ErrorCode.AMBIGUOUS
    exit_code = Exit.USAGE


@dataclass(frozen=True, slots=True)
class Stored:
    """One stored stream. `summary`: what its manifest said when the catalogue was read."""

    store: Store
    summary: Summary

    @property
    def file(self) -> PurePosixPath:
        """Its `.zst`, relative to the store."""
        return PurePosixPath(self.summary.path)

    @property
    def manifest(self) -> Manifest:
        """All that is known of it, read from the disk now. Raises: StoreError."""
        return read_manifest(self.store, self.file)


class _Groups:
    """The streams of each GUID: usually one, for which a list would take 90 bytes more."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found: dict[str, Stored | list[Stored]] = {}

    def add(self, guid: str, stored: Stored) -> None:
        found = self._found.setdefault(guid, stored)
        if isinstance(found, list):
            found.append(stored)
        elif found is not stored:
            self._found[guid] = [found, stored]

    def get(self, guid: str) -> Sequence[Stored]:
        found = self._found.get(guid)
        return () if found is None else found if isinstance(found, list) else (found,)


@dataclass(slots=True)
class Catalogue:
    """The streams of one sender, or of all, at the moment of reading.

    `streams`: in order of sender, dataset, reception, bases first. `problems`: what lies in the folders and is no whole
    stream, a line each: manifests that cannot be read, data without manifest. `lacking`: the files of streams that are
    not there, or not as long as they were; None: nobody has looked, and whoever asks looks.
    """

    store: Store
    streams: list[Stored]
    problems: list[str]
    scrubbed: ScrubLog
    lacking: frozenset[str] | None = None
    _by_guid: _Groups = field(init=False)
    _by_base: _Groups = field(init=False)
    _restorable: set[str] | None = field(init=False, default=None)  # files; None: nobody has asked yet

    def __post_init__(self) -> None:
        """Put the streams in their order, and build the ways to find one."""
        self.streams.sort(key=_place)  # first, so that of several bases the order is the same whoever has read them
        self._by_guid = _Groups()
        self._by_base = _Groups()
        for stored in self.streams:
            self._by_guid.add(stored.summary.guid, stored)
            if stored.summary.base_guid is not None:
                self._by_base.add(stored.summary.base_guid, stored)
        # A base may have come after what builds on it (an orphan that was kept), and times are to the second. Few
        # stores have such, and the way along all chains is as long as all else here.
        if not self._bases_come_first():
            places = self._places()
            self.streams.sort(key=lambda each: places.get(each.summary.path) or (*_place(each), 0))

    def _bases_come_first(self) -> bool:
        """Whether within each dataset every stream stands behind its base, and no two stand at one place."""
        seen: set[tuple[str, str]] = set()
        before: tuple[str, str, int, str] | None = None
        for stored in self.streams:
            about, place = stored.summary, _place(stored)
            if place == before:
                return False
            before = place
            base = (about.dataset, about.base_guid or "")
            if about.base_guid is not None and base not in seen:
                mine = (each.summary.dataset == about.dataset for each in self._by_guid.get(about.base_guid))
                if any(mine):
                    return False
            seen.add((about.dataset, about.guid))
        return True

    def _places(self) -> dict[str, tuple[str, str, int, str, int]]:
        """Return where each stream stands, by file: not before its base, and of one moment behind it."""
        places: dict[str, tuple[str, str, int, str, int]] = {}
        todo = [(stored, (0, ""), 0) for stored in self.streams if not self.bases(stored)]
        while todo:
            here, after, depth = todo.pop()
            about = here.summary
            came = max(after, reception(about))
            places[about.path] = (about.sender, about.dataset, *came, depth)
            todo += [
                (each, came, depth + 1)
                for each in self._by_base.get(about.guid)
                if each.summary.path not in places and _may_follow(each, here)
            ]
        return places

    def has(self, dataset: str, guid: str) -> bool:
        """Whether a snapshot of this GUID is stored of this dataset."""
        return any(each.summary.dataset == dataset for each in self._by_guid.get(guid))

    def select(self, sender: str | None, dataset: str | None) -> list[Stored]:
        """Return the streams of a sender and dataset; None: of all."""
        if sender is not None and dataset is not None:  # they stand together
            first = bisect_left(self.streams, (sender, dataset), key=_whose)
            return self.streams[first : bisect_right(self.streams, (sender, dataset), lo=first, key=_whose)]
        return [
            stored
            for stored in self.streams
            if sender in {None, stored.summary.sender} and dataset in {None, stored.summary.dataset}
        ]

    def at(self, file: PurePosixPath) -> Stored | None:
        """Return the stream in this file."""
        path = str(file)
        return next((stored for stored in self.streams if stored.summary.path == path), None)

    def find(self, sender: str, what: str) -> Stored:
        """Return the one stream of a sender that `what` names: a file name, DATASET@SNAPSHOT, or guid:N.

        Raises: NoSuchStream, AmbiguousStream (naming the candidates).
        """
        mine = self.select(sender, None)
        if what.endswith(STREAM_SUFFIX):
            found = [each for each in mine if what in {each.summary.path, each.file.name}]
            if found:
                return _only(found, what)
        if what.startswith("guid:"):
            found = [each for each in mine if each.summary.guid == what.removeprefix("guid:")]
        else:
            found = [each for each in mine if f"{each.summary.dataset}@{each.summary.snapshot}" == what]
        return _only(found, what)

    def bases(self, stored: Stored) -> list[Stored]:
        """Return the stored streams that `stored` can follow on: same class, the base's GUID, and large blocks in
        the base's chain only if in its own (ZFS refuses to go back from -L).
        """
        base_guid = stored.summary.base_guid
        if base_guid is None:
            return []
        fitting = [base for base in self._by_guid.get(base_guid) if _may_follow(stored, base)]
        return sorted(fitting, key=_is_package) if len(fitting) > 1 else fitting

    def dependents(self, stored: Stored) -> list[Stored]:
        """Return the streams that build on this one, directly or not; never itself."""
        found = {stored.summary.path: stored}
        todo = [stored]
        while todo:
            here = todo.pop()
            for each in self._by_base.get(here.summary.guid):
                if each.summary.path not in found and _may_follow(each, here):
                    found[each.summary.path] = each
                    todo.append(each)
        return list(found.values())[1:]

    def restorable(self, stored: Stored) -> bool:
        """Whether this stream and, by some way, its bases back to a full are there and not known to be damaged.

        Looks at all files when first asked: for one stream alone `chain` is quicker.
        """
        if self._restorable is None:
            self._restorable = {here.summary.path for here, _base in self.ways()}
        return stored.summary.path in self._restorable

    def ways(self) -> Iterator[tuple[Stored, Stored | None]]:
        """Yield all restorable streams, each with the one to restore before it, None for a full: bases before what
        builds on them, and of several bases the one with the shortest chain.

        Forward from the fulls, breadth first, so a circle of GUIDs, which only forged streams can make, carries nobody.
        """
        seen: set[str] = set()
        fulls = [stored for stored in self.streams if stored.summary.base_guid is None]
        fulls.sort(key=_is_package)  # where there is a choice, no stream that brings other datasets, too
        todo: deque[tuple[Stored, Stored | None]] = deque((stored, None) for stored in fulls)
        while todo:
            here, base = todo.popleft()
            if here.summary.path in seen:
                continue
            seen.add(here.summary.path)
            if self.whole(here):
                yield here, base
                todo += [
                    (each, here)
                    for each in self._by_base.get(here.summary.guid)
                    if each.summary.path not in seen and _may_follow(each, here)
                ]

    def chain(self, stored: Stored) -> list[Stored]:
        """Return the shortest chain of whole streams that ends with this one, its full first; empty: there is none.

        Looks at the files of this stream and its bases only.
        """
        follows: dict[str, Stored | None] = {stored.summary.path: None}
        todo = deque([stored])
        while todo:
            here: Stored | None = todo.popleft()
            assert here is not None  # noqa: S101 - for mypy
            if not self.whole(here):
                continue
            if here.summary.base_guid is None:
                found = []
                while here is not None:
                    found.append(here)
                    here = follows[here.summary.path]
                return found
            for base in self.bases(here):
                if base.summary.path not in follows:
                    follows[base.summary.path] = here
                    todo.append(base)
        return []

    def obstacle(self, stored: Stored) -> str:
        """Return why a stream without a chain has none: names the first file on its way that is missing or damaged."""
        seen = set()
        here = stored
        while here.summary.path not in seen:
            seen.add(here.summary.path)
            if not self.whole(here):
                return f"{here.file} is {self._damage(here)}"
            bases = self.bases(here)
            if not bases:
                return f"guid:{here.summary.base_guid}, the base of {here.file}, is not stored"
            here = bases[0]
        return f"{here.file} is a base of itself"

    def check_base(
        self, sender: str, base_guid: str, *, stream_class: StreamClass | None = None, flags: str | None = None
    ) -> None:
        """See that an increment on this base could be restored; None: of which class, or flags, is not known yet.

        Raises: NoBase.
        """
        stored = [each for each in self._by_guid.get(base_guid) if each.summary.sender == sender]
        if not stored:
            msg = f"its base guid:{base_guid} is not stored: send a full"
            raise NoBase(msg)
        fitting = [each for each in stored if _fits(each, stream_class, flags)]
        if not fitting:
            msg = f"its base guid:{base_guid} is stored only as {stored[0].file}, which it cannot follow: send a full"
            raise NoBase(msg)
        if not any(self.chain(each) for each in fitting):
            msg = f"its base guid:{base_guid} is stored, but not restorable: {self.obstacle(fitting[0])}: send a full"
            raise NoBase(msg)

    def entry(self, stored: Stored) -> StreamEntry:
        """Return what `list` says of a stream."""
        return self.entry_of(stored, restorable=self.restorable(stored))

    def entry_of(self, stored: Stored, *, restorable: bool) -> StreamEntry:
        """Return the same, where it is known whether it can be restored."""
        about = stored.summary
        scrub = self._scrub(stored)
        bases = self.bases(stored)
        return StreamEntry(
            sender=about.sender,
            dataset=about.dataset,
            snapshot=about.snapshot,
            guid=about.guid,
            kind=about.kind,
            dataset_type=about.dataset_type,
            flags=about.flags,
            base=f"{bases[0].summary.dataset}@{bases[0].summary.snapshot}" if bases else None,
            base_guid=about.base_guid,
            created=about.created,
            received=about.received,
            sequence=about.sequence,
            raw_bytes=about.raw_bytes,
            stored_bytes=about.stored_bytes,
            sha256=about.sha256 or (scrub.sha256 if scrub else None),
            file=about.path,
            verified=scrub.at if scrub and not scrub.damage else None,
            damaged=scrub.damage[0] if scrub and scrub.damage else None,
            restorable=restorable,
            lost_spill_count=about.lost_spill_count,
        )

    def receipt(self, stored: Stored) -> Receipt:
        """Return the receipt of a stream.

        Raises: Damaged where it is known to be, or gone: no receipt may stand for it.
        """
        if not (self.whole(stored) and self._is_there(stored)):  # a receipt is worth a look, whoever has looked before
            msg = (
                f"{stored.file}: is stored, and {self._damage(stored)}: move it, its .json and its .sha256 out of the"
                " store, and push again"
            )
            raise Damaged(msg)
        entry = self.entry_of(stored, restorable=bool(self.chain(stored)))
        manifest = stored.manifest
        more = {"file_sha256", "segments", "lost_spills"}
        return Receipt(
            **{name: getattr(entry, name) for name in Receipt.model_fields.keys() - more},
            **{name: getattr(manifest, name) for name in more},
        )

    def whole(self, stored: Stored) -> bool:
        """Whether the file of a stream is there, as long as it was, and not known to be damaged."""
        if self.scrubbed.is_damaged(stored.summary.path, stored.summary.received):
            return False
        return self._is_there(stored) if self.lacking is None else stored.summary.path not in self.lacking

    def _is_there(self, stored: Stored) -> bool:
        try:
            return os.stat(f"{self.store.root}/{stored.summary.path}").st_size == stored.summary.stored_bytes
        except OSError:
            return False

    def unread(self) -> list[Stored]:
        """Return the streams that came in several segments, and that nobody has read from end to end since."""
        return [each for each in self.streams if each.summary.sha256 is None and self._scrub(each) is None]

    def _scrub(self, stored: Stored) -> Scrubbed | None:
        return self.scrubbed.get(stored.summary.path, stored.summary.received)

    def _damage(self, stored: Stored) -> str:
        scrub = self._scrub(stored)
        damage = scrub.damage[0] if scrub and scrub.damage else "the file is missing, or not as long as it was"
        return f"damaged ({damage})"


def read_catalogue(store: Store, sender: str | None = None) -> Catalogue:
    """Read what is stored of one sender, or of all. Blocks on the disk."""
    streams: list[Stored] = []
    problems: list[str] = []
    with collector_off():
        for found in _find(store, sender):
            streams += [Stored(store, summary) for summary in found.summaries]
            problems += found.problems
            problems += map(describe_orphan, found.orphans)
        return Catalogue(store, streams, sorted(problems), ScrubLog(store))


def describe_orphan(path: str) -> str:
    """Say of a `.zst` that no manifest speaks for it."""
    return f"{path}: has no manifest; `fullsendd verify` makes one if it is whole"


def files_without_manifest(store: Store, sender: str | None = None) -> list[PurePosixPath]:
    """Return the `.zst` files that no manifest speaks for, relative to the store."""
    return sorted(PurePosixPath(path) for found in _find(store, sender) for path in found.orphans)


def _find(store: Store, sender: str | None) -> Iterator[Found]:
    names = [sender] if sender is not None else sorted(sender_folders(store))
    return (find_streams(store, name) for name in names)


def sender_folders(store: Store) -> Iterable[str]:
    """Return the names of all who have a folder here. Raises: OSError."""
    with os.scandir(store.root) as entries:
        return [entry.name for entry in entries if is_sender_name(entry.name) and entry.is_dir()]


def _place(stored: Stored) -> tuple[str, str, int, str]:
    return stored.summary.sender, stored.summary.dataset, *reception(stored.summary)


def _whose(stored: Stored) -> tuple[str, str]:
    return stored.summary.sender, stored.summary.dataset


def _may_follow(stored: Stored, base: Stored) -> bool:
    """Whether a stream can be received on a base that has the GUID it wants.

    Not on another sender's: a backup must never rest on what its own host cannot read.
    """
    about = stored.summary
    return base.summary.sender == about.sender and _fits(base, about.stream_class, about.flags)


def _fits(base: Stored, stream_class: StreamClass | None, flags: str | None) -> bool:
    """Whether a stream of this class and these flags can be received on a base; None: not known, any may do."""
    before = base.summary
    return stream_class in {None, before.stream_class} and (flags is None or "L" in flags or "L" not in before.flags)


def _is_package(stored: Stored) -> bool:
    return stored.summary.kind == "package"


def _only(found: list[Stored], what: str) -> Stored:
    if not found:
        msg = f"{what}: no such stream is stored (see `list`)"
        raise NoSuchStream(msg)
    if len(found) > 1:
        names = " ".join(each.summary.path for each in found[:_CANDIDATES_NAMED])
        msg = f"{what}: {len(found)} streams fit; name one by its file: {names}"
        raise AmbiguousStream(msg)
    return found[0]
