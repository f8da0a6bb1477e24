"""What is stored: the manifests, read from the folders, and what follows from them together.

The manifests are the truth and there is no database. Which stream builds on which, format.chains says; here are the
looks at the disk that it takes, and what is said of the answers.
"""

from __future__ import annotations

import copy
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from operator import attrgetter
from pathlib import PurePosixPath
from typing import Final, NamedTuple

from fullsend_protocol.format.chains import Forest, can_follow, reception
from fullsend_protocol.format.manifest import Manifest, Receipt, StreamEntry, copied
from fullsend_protocol.format.names import aside_name, named
from fullsend_protocol.shared.errors import ErrorCode, FullsendError
from fullsend_protocol.shared.exit_codes import Exit
from fullsend_protocol.stream.facts import StreamClass
from fullsend_receiver.catalogue.collector import collector_off
from fullsend_receiver.catalogue.problems import Problem, without_manifest
from fullsend_receiver.catalogue.rows import Summary
from fullsend_receiver.catalogue.scrub_results import Scrubbed, ScrubLog
from fullsend_receiver.catalogue.search import Found, find_streams
from fullsend_receiver.store.api import Store

#: Candidates that are named in the error for an ambiguous STREAM.
_CANDIDATES_NAMED: Final = 5


class NoSuchStream(FullsendError):  # noqa: N818 - reads as a noun
    """No stored stream fits the request."""

    code = ErrorCode.NOT_FOUND


class NoBase(FullsendError):  # noqa: N818 - reads as a noun
    """An increment's base is not stored, or not restorable: the increment would be useless."""

    code = ErrorCode.BASE


class Damaged(FullsendError):  # noqa: N818 - reads as a noun
    """A stored stream cannot be read as a whole."""

    code = ErrorCode.DAMAGED


class AmbiguousStream(FullsendError):  # noqa: N818 - reads as a noun
    """Several stored streams fit the request."""

    code = ErrorCode.AMBIGUOUS
    exit_code = Exit.USAGE


class StoredStream(NamedTuple):
    """One stored stream. `summary`: from its manifest, when the catalogue was read."""

    store: Store
    summary: Summary

    @property
    def file(self) -> PurePosixPath:
        """Its `.zst`, relative to the store."""
        return PurePosixPath(self.summary.path)

    @property
    def manifest(self) -> Manifest:
        """Its manifest, read from the disk now. Raises: StoreError."""
        return self.store.manifest(self.file)


class Catalogue:
    """The streams of one sender, or of all, at the moment of reading.

    `streams`: in order of sender, dataset, reception, bases first. `problems`: objects in the folders that are not
    whole streams, in the order of their messages.
    """

    def __init__(
        self,
        store: Store,
        summaries: Iterable[Summary],
        problems: list[Problem],
        scrubbed: ScrubLog,
        lacking: frozenset[str] | None = None,
    ) -> None:
        """`lacking`: files of streams that are missing, or of another length than in their manifests; None: not
        checked, and each question checks.
        """
        self.store = store
        self.problems = problems
        self.scrubbed = scrubbed
        self._lacking = lacking
        # No stream builds on another sender's: a backup must never depend on what its own host cannot read.
        mine: dict[str, list[Summary]] = {}
        for summary in summaries:
            mine.setdefault(summary.sender, []).append(summary)
        self._forests = {
            sender: Forest(found, order=reception, key=attrgetter("path")) for sender, found in sorted(mine.items())
        }
        self.streams = [StoredStream(store, each) for forest in self._forests.values() for each in forest.in_order()]
        self._restorable: set[str] | None = None  # files; None: not computed yet

    def has(self, dataset: str, guid: str) -> bool:
        """Whether a snapshot with this GUID is stored of this dataset."""
        return any(each.dataset == dataset for forest in self._forests.values() for each in forest.of_guid(guid))

    def select(self, sender: str | None, dataset: str | None) -> list[StoredStream]:
        """Return the streams of a sender and dataset; None: of all."""
        if sender is not None and dataset is not None:  # they stand together
            first = bisect_left(self.streams, (sender, dataset), key=_whose)
            return self.streams[first : bisect_right(self.streams, (sender, dataset), lo=first, key=_whose)]
        return [
            stored
            for stored in self.streams
            if sender in {None, stored.summary.sender} and dataset in {None, stored.summary.dataset}
        ]

    def of(self, sender: str) -> Catalogue:
        """Return the part of one sender."""
        part = copy.copy(self)
        part.streams = self.select(sender, None)
        part.problems = [each for each in self.problems if each.path.partition("/")[0] == sender]
        part._forests = {name: forest for name, forest in self._forests.items() if name == sender}  # noqa: SLF001
        part._restorable = None  # noqa: SLF001 - our own class
        return part

    def at(self, file: PurePosixPath) -> StoredStream | None:
        """Return the stream in this file."""
        path = str(file)
        return next((stored for stored in self.streams if stored.summary.path == path), None)

    def find(self, sender: str, what: str) -> StoredStream:
        """Return the one stream of a sender that `what` names: a file name, DATASET@SNAPSHOT, or guid:N.

        Raises: NoSuchStream; AmbiguousStream, with the candidates.
        """
        forest = self._forests.get(sender)
        found = self._stored(named(what, forest.streams if forest else ()))
        if not found:
            msg = f"{what}: no such stream is stored (see `list`)"
            raise NoSuchStream(msg)
        if len(found) > 1:
            names = " ".join(each.summary.path for each in found[:_CANDIDATES_NAMED])
            msg = f"{what}: {len(found)} streams fit; name one by its file: {names}"
            raise AmbiguousStream(msg)
        return found[0]

    def bases(self, stored: StoredStream) -> list[StoredStream]:
        """Return the stored streams that `stored` can be received on; packages last."""
        return self._stored(self._forest(stored).bases(stored.summary))

    def dependents(self, stored: StoredStream) -> list[StoredStream]:
        """Return the streams that build on this one, directly or indirectly, without itself."""
        return self._stored(self._forest(stored).dependents(stored.summary))

    def restorable(self, stored: StoredStream) -> bool:
        """Whether this stream and a chain of its bases back to a full exist and are not known to be damaged.

        The first call examines all files: for one stream alone `chain` is quicker.
        """
        if self._restorable is None:
            self._restorable = {here.path for here, _base in self._ways()}
        return stored.summary.path in self._restorable

    def ways(self) -> Iterator[tuple[StoredStream, StoredStream | None]]:
        """Yield all restorable streams, each with the one to restore before it: see Forest.ways."""
        for here, base in self._ways():
            yield StoredStream(self.store, here), None if base is None else StoredStream(self.store, base)

    def _ways(self) -> Iterator[tuple[Summary, Summary | None]]:
        for forest in self._forests.values():
            yield from forest.ways(self._whole)

    def chain(self, stored: StoredStream) -> list[StoredStream]:
        """Return the shortest chain of whole streams that ends with this one, its full first; empty: there is none.

        Examines the files of this stream and its bases only.
        """
        return self._stored(self._forest(stored).chain(stored.summary, self._whole) or ())

    def obstacle(self, stored: StoredStream) -> str:
        """Return why a stream has no chain: names the first file on its way that is missing or damaged."""
        found = self._forest(stored).obstacle(stored.summary, self._whole)
        match found:
            case (here, "damaged"):
                return f"{here.path} is {self._damage(here)}"
            case (here, "no base"):
                return f"guid:{here.base_guid}, the base of {here.path}, is not stored"
            case (here, "circle"):
                return f"{here.path} is a base of itself"
            case _:
                return f"a file of its chain was missing, and is there now: {stored.file} can be restored"

    def check_base(
        self,
        sender: str,
        base_guid: str,
        *,
        stream_class: StreamClass | None = None,
        flags: str | None = None,
        base_ivset_guid: str | None = None,
    ) -> None:
        """Check that an increment on this base can be restored. `stream_class`, `flags`, `base_ivset_guid`: None: not
        known yet.

        Raises: NoBase.
        """
        forest = self._forests.get(sender)
        stored = () if forest is None else forest.of_guid(base_guid)
        if forest is None or not stored:
            msg = f"its base guid:{base_guid} is not stored: send a full"
            raise NoBase(msg)
        of_any_key = [each for each in stored if can_follow(each, stream_class, flags)]
        if not of_any_key:
            msg = f"its base guid:{base_guid} is stored only as {stored[0].path}, which it cannot follow: send a full"
            raise NoBase(msg)
        fitting = [each for each in of_any_key if can_follow(each, stream_class, flags, base_ivset_guid)]
        if not fitting:
            where = of_any_key[0].path
            msg = (
                f"its base guid:{base_guid} is stored only as {where}, which is encrypted with other keys: send a full"
            )
            raise NoBase(msg)
        if not any(forest.chain(each, self._whole) for each in fitting):
            why = self.obstacle(StoredStream(self.store, fitting[0]))
            msg = f"its base guid:{base_guid} is stored, but not restorable: {why}: send a full"
            raise NoBase(msg)

    def entry(self, stored: StoredStream) -> StreamEntry:
        """Return the entry of a stream in `list`."""
        return self.entry_of(stored, restorable=self.restorable(stored))

    def entry_of(self, stored: StoredStream, *, restorable: bool) -> StreamEntry:
        """Return the same, if it is known whether the stream can be restored."""
        scrub = self._scrub(stored.summary)
        base = next(iter(self._forest(stored).bases(stored.summary)), None)
        return copied(
            StreamEntry,
            stored.summary,
            base=f"{base.dataset}@{base.snapshot}" if base else None,
            sha256=stored.summary.sha256 or (scrub.sha256 if scrub else None),
            verified=scrub.at if scrub and scrub.at and not scrub.damage else None,
            damaged=scrub.damage[0] if scrub and scrub.damage else None,
            restorable=restorable,
        )

    def receipt(self, stored: StoredStream) -> Receipt:
        """Return the receipt of a stream.

        Raises: Damaged if the stream is known to be damaged, or is missing: then there must be no receipt; OSError if
        its file cannot be examined.
        """
        damage = self.damage(stored)  # a receipt is important enough to check the file again
        if damage is not None:
            msg = f"{stored.file}: is stored, and {damage}: push it again to replace it"
            raise Damaged(msg)
        return copied(Receipt, self.entry_of(stored, restorable=bool(self.chain(stored))), stored.manifest)

    def damage(self, stored: StoredStream) -> str | None:
        """Return what is known to be wrong with the file of a stream itself; None: nothing. Examines the file.

        Raises: OSError if that is not possible: a disk that fails for a moment damages nothing.
        """
        about = stored.summary
        damaged = self.scrubbed.is_damaged(about.path, about.received)
        return None if not damaged and self._has_length(about) else self._damage(about)

    def damaged(self) -> Iterator[StoredStream]:
        """Yield the streams whose own file is missing, has another length, or is known to be damaged."""
        return (stored for stored in self.streams if not self._whole(stored.summary))

    def whole(self, stored: StoredStream) -> bool:
        """Whether the file of a stream exists, has its length, and is not known to be damaged."""
        return self._whole(stored.summary)

    def unread(self) -> list[StoredStream]:
        """Return the streams that arrived in several segments, and were not read from end to end since."""
        return [each for each in self.streams if each.summary.sha256 is None and not self._was_read(each)]

    def checked(self, stored: StoredStream) -> Scrubbed | None:
        """Return what checks of a stream have shown; None: there was none."""
        return self._scrub(stored.summary)

    def unreadable(self, stored: StoredStream) -> Scrubbed | None:
        """Return what checks of a whole stream have shown, if the last one could not read it; None: it could."""
        about = stored.summary
        found = self.scrubbed.unreadable(about.path, about.received)
        return found if found is not None and self._whole(about) else None

    def _was_read(self, stored: StoredStream) -> bool:
        scrub = self._scrub(stored.summary)
        return scrub is not None and bool(scrub.at)

    def _forest(self, stored: StoredStream) -> Forest[Summary]:
        return self._forests.get(stored.summary.sender) or Forest((), order=reception)

    def _stored(self, summaries: Iterable[Summary]) -> list[StoredStream]:
        return [StoredStream(self.store, each) for each in summaries]

    def _whole(self, about: Summary) -> bool:
        if self.scrubbed.is_damaged(about.path, about.received):
            return False
        return self._is_there(about) if self._lacking is None else about.path not in self._lacking

    def _is_there(self, about: Summary) -> bool:
        try:
            return self._has_length(about)
        except OSError:
            return False

    def _has_length(self, about: Summary) -> bool:
        """Whether the file exists, with its length. Raises: OSError if that cannot be found out."""
        try:
            return self.store.size(about.path) == about.stored_bytes
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _scrub(self, about: Summary) -> Scrubbed | None:
        return self.scrubbed.get(about.path, about.received)

    def _damage(self, about: Summary) -> str:
        scrub = self._scrub(about)
        damage = scrub.damage[0] if scrub and scrub.damage else "the file is missing, or not as long as it was"
        return f"damaged ({damage})"


def aside_of(store: Store, sender: str, what: str) -> tuple[PurePosixPath, Manifest]:
    """Return the file and the manifest of the sender's stream that aside:NAME names. Raises: NoSuchStream,
    ManifestError.
    """
    for each in store.set_aside(sender):
        if each.file is not None and each.name == aside_name(what):
            return each.file, store.aside_manifest(each.name)
    msg = f"{what}: no such stream is set aside (see `fullsendd list --damaged`)"
    raise NoSuchStream(msg)


def read_catalogue(store: Store, sender: str | None = None, *, thorough: bool = False) -> Catalogue:
    """Read what is stored of one sender, or of all. `thorough`: as in `find_streams`. Blocks on the disk."""
    summaries: list[Summary] = []
    problems: list[Problem] = []
    lacking: frozenset[str] | None = None
    with collector_off():
        for found in _find(store, sender, thorough=thorough):
            if found.lacking is not None:
                lacking = found.lacking.union(lacking or ())
            summaries += found.summaries
            problems += found.problems
            problems += map(without_manifest, found.orphans)
        return Catalogue(store, summaries, sorted(problems, key=str), ScrubLog(store), lacking)


def _find(store: Store, sender: str | None, *, thorough: bool) -> Iterator[Found]:
    names = [sender] if sender is not None else store.senders()
    return (find_streams(store, name, thorough=thorough) for name in names)


def _whose(stored: StoredStream) -> tuple[str, str]:
    return stored.summary.sender, stored.summary.dataset
