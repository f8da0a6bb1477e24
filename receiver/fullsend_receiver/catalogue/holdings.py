"""What is stored of one sender, as of one moment: in few bytes, and decompressed a part at a time.

A part is everything that an answer about a stream can depend on: the datasets whose streams build on one another.
Usually that is one dataset; with a renamed dataset, or a clone, it is several. A GUID links all folders with a stream
of it, or with a stream on a missing base of it. A dataset links its folders, too (somebody may have renamed a folder
with streams). What a prune unlinks may stay linked: a part that is too large only costs time.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, pairwise
from pathlib import PurePosixPath
from typing import Final

from fullsend_protocol.format.names import guid_of, is_stream
from fullsend_receiver.catalogue.collector import collector_off
from fullsend_receiver.catalogue.problems import Problem
from fullsend_receiver.catalogue.rows import NAME, Shelf
from fullsend_receiver.catalogue.scrub_results import ScrubLog
from fullsend_receiver.catalogue.streams import Catalogue, StoredStream
from fullsend_receiver.store.api import Store

#: Parts that stay open while iterating over datasets: one may be needed again after others.
_OPEN: Final = 4
#: Up to so many new GUIDs and datasets are looked up one by one; more are sorted with all others.
_FEW: Final = 50
#: Decimal digits of a GUID.
_DIGITS: Final = 20


class Holdings:
    """The streams of one sender. It never changes: any thread may use it at any time."""

    def __init__(
        self,
        store: Store,
        sender: str,
        shelves: Iterable[Shelf],
        problems: list[Problem],
        scrubbed: ScrubLog,
        *,
        kin: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        """`problems`: as in Catalogue. `kin`: by folder, the folders of its part; None: not known yet."""
        self.store = store
        self.problems = problems
        self._sender = sender
        self._scrubbed = scrubbed
        self._shelves = {shelf.path: shelf for shelf in shelves}
        self._kin = _kin(self._shelves) if kin is None else kin
        self._folders: dict[str, list[str]] = {}  # by dataset
        for path, shelf in self._shelves.items():
            for dataset in shelf.datasets:
                self._folders.setdefault(dataset, []).append(path)

    def renewed(self, shelves: list[Shelf], problems: list[Problem], scrubbed: ScrubLog) -> Holdings:
        """Return what is stored at a later moment. Most of it is the same."""
        kin = _kin_after({shelf.path: shelf for shelf in shelves}, self._shelves, self._kin)
        return Holdings(self.store, self._sender, shelves, problems, scrubbed, kin=kin)

    def with_news(self, problems: list[Problem], scrubbed: ScrubLog) -> Holdings:
        """Return the same streams with other problems and results of checks."""
        news = copy.copy(self)
        news.problems, news._scrubbed = problems, scrubbed  # noqa: SLF001 - our own class
        return news

    def __len__(self) -> int:
        """Return the number of streams."""
        return sum(map(len, self._shelves.values()))

    @property
    def last_sequence(self) -> int:
        """The highest `sequence` of a stream; 0: none has one."""
        return max((shelf.sequence for shelf in self._shelves.values()), default=0)

    @property
    def stored_bytes(self) -> int:
        """Bytes of all stream files, as their manifests say."""
        return sum(shelf.stored_bytes for shelf in self._shelves.values())

    def has(self, dataset: str, guid: str) -> bool:
        """Whether a snapshot with this GUID is stored of this dataset."""
        number = _number(guid)
        shelves = (self._shelves[path] for path in self._folders.get(dataset, ()))
        return any(
            len(shelf.datasets) == 1 or any((each.dataset, each.guid) == (dataset, guid) for each in shelf.summaries())
            for shelf in shelves
            if shelf.has(number)
        )

    def has_dataset(self, dataset: str) -> bool:
        """Whether a stream of this dataset is stored."""
        return dataset in self._folders

    def around(
        self,
        *,
        dataset: str | None = None,
        datasets: Iterable[str] = (),
        guid: str | None = None,
        file: PurePosixPath | None = None,
    ) -> Catalogue:
        """Return the part, or the parts, with these datasets, with the streams of a GUID, and with a file."""
        paths = [path for name in (dataset, *datasets) if name is not None for path in self._folders.get(name, ())]
        if guid is not None:
            paths += self._with_guid(guid)
        if file is not None and str(file.parent) in self._shelves:
            paths.append(str(file.parent))
        return self._open({each for path in paths for each in self._kin[path]})

    def find(self, what: str) -> StoredStream:
        """Return the one stream that `what` names, as Catalogue.find. Raises: NoSuchStream, AmbiguousStream."""
        return self._open(self._named(what)).find(self._sender, what)

    def shelves(self, *, dataset: str | None = None, streams: Iterable[str] | None = None) -> Iterator[Shelf]:
        """Yield all shelves, in order; or those of the parts of a dataset, or of the streams that `streams` name."""
        if dataset is None and streams is None:
            chosen = {*self._shelves}
        else:
            chosen = {*self._folders.get(dataset, ())} if dataset is not None else set()
            chosen.update(path for what in streams or () for path in self._named(what))
            chosen = {each for path in chosen for each in self._kin[path]}
        yield from (self._shelves[path] for path in sorted(chosen))

    def _named(self, what: str) -> set[str]:
        """Return the folders that may contain what this names."""
        paths = {*self._folders.get(what.rpartition("@")[0], ())}
        guid = guid_of(what)
        if guid is not None:
            paths |= {*self._with_guid(guid)}
        if is_stream(what):
            folder, _, name = what.rpartition("/")
            paths |= {
                path
                for path, shelf in self._shelves.items()
                if (path == folder if folder else any(row[NAME] == name for row in shelf))
            }
        return paths

    def dependents(self, stored: StoredStream) -> list[StoredStream]:
        """Return the streams that build on this one, directly or indirectly, without itself."""
        return self.around(file=stored.file).dependents(stored)

    def unread(self) -> list[StoredStream]:
        """Return the streams that arrived in several segments, and were not read from end to end since."""
        return self._open([path for path, shelf in self._shelves.items() if shelf.unhashed]).unread()

    def parts(self) -> Iterator[Catalogue]:
        """Yield all streams, part by part."""
        for paths in dict.fromkeys(self._kin[path] for path in self._shelves):
            yield self._open(paths)

    def datasets(self, only: str | None = None) -> Iterator[tuple[str, Catalogue]]:
        """Yield each dataset, in order, with its part. `only`: this one, None: all."""
        opened: OrderedDict[tuple[str, ...], Catalogue] = OrderedDict()
        for dataset in sorted(self._folders) if only is None else [only] * (only in self._folders):
            paths = self._kin[self._folders[dataset][0]]
            if paths not in opened:
                opened[paths] = self._open(paths)
            opened.move_to_end(paths)
            if len(opened) > _OPEN:
                opened.popitem(last=False)
            yield dataset, opened[paths]

    def select(self, dataset: str | None = None) -> Iterator[StoredStream]:
        """Yield the streams of a dataset, None: of all."""
        for each, part in self.datasets(dataset):
            yield from part.select(self._sender, each)

    def troubled(self) -> Catalogue:
        """Return all problems, with the streams in their folders."""
        folders = {problem.folder for problem in self.problems}
        catalogue = self._open(folders & self._shelves.keys())
        catalogue.problems = self.problems
        return catalogue

    def whole(self) -> Catalogue:
        """Return everything as one catalogue: a kilobyte a stream."""
        catalogue = self._open(self._shelves)
        catalogue.problems = self.problems
        return catalogue

    def _with_guid(self, guid: str) -> list[str]:
        number = _number(guid)
        return [path for path, shelf in self._shelves.items() if shelf.has(number)]

    def _open(self, paths: Iterable[str]) -> Catalogue:
        with collector_off():
            shelves = [self._shelves[path] for path in sorted(paths)]
            looked = all(shelf.lacking is not None for shelf in shelves)
            lacking = (f"{shelf.path}/{name}" for shelf in shelves for name in shelf.lacking or ())
            summaries = (summary for shelf in shelves for summary in shelf.summaries())
            return Catalogue(self.store, summaries, [], self._scrubbed, frozenset(lacking) if looked else None)


def _number(guid: str) -> int:
    """Return a GUID as a number; if it is not one, a number that no stream has."""
    return int(guid) if guid.isascii() and guid.isdecimal() and len(guid) <= _DIGITS else -1


def _kin(shelves: Mapping[str, Shelf]) -> dict[str, tuple[str, ...]]:
    """Return, by folder, the folders of its part."""
    numbers = sorted(chain.from_iterable(chain(shelf.guids, shelf.bases) for shelf in shelves.values()))
    shared = {one for one, other in pairwise(numbers) if one == other}
    del numbers
    # Each folder points to another one of its part, or to itself, which then stands for all of them.
    above = {path: path for path in shelves}

    def top(path: str) -> str:
        while above[path] != path:
            above[path] = path = above[above[path]]
        return path

    first: dict[int | str, str] = {}
    for path, shelf in shelves.items():
        marks: list[int | str] = [*shelf.datasets]
        if shared:
            marks += shared.intersection(chain(shelf.guids, shelf.bases))
        for mark in marks:
            above[top(path)] = top(first.setdefault(mark, path))
    parts: dict[str, list[str]] = {}
    for path in shelves:
        parts.setdefault(top(path), []).append(path)
    kin: dict[str, tuple[str, ...]] = {}
    for paths in parts.values():
        kin |= dict.fromkeys(paths, tuple(sorted(paths)))
    return kin


def _kin_after(
    shelves: Mapping[str, Shelf], before: Mapping[str, Shelf], kin: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """Return the same, if the former result `kin` for the shelves `before` is known."""
    new: dict[str, set[int | str]] = {}
    for path, shelf in shelves.items():
        known = before.get(path)
        if shelf is not known:
            new[path] = {*shelf.guids, *shelf.bases, *shelf.datasets}
            if known is not None:
                new[path] -= {*known.guids, *known.bases, *known.datasets}
    if not before.keys() <= shelves.keys() or sum(map(len, new.values())) > _FEW:
        return _kin(shelves)
    after = {path: kin.get(path, (path,)) for path in shelves}
    for path, marks in new.items():
        for mark in marks:
            for other in [other for other, shelf in shelves.items() if shelf.mentions(mark)]:
                _link(after, path, other)
    return after


def _link(kin: dict[str, tuple[str, ...]], one: str, other: str) -> None:
    if other not in kin[one]:
        both = tuple(sorted({*kin[one], *kin[other]}))
        kin.update(dict.fromkeys(both, both))
