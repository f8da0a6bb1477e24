"""Summaries of the manifests of a store that has no folders: each manifest is read once, and again if it has changed.

The store tells which streams it has, each with the identity of its manifest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Final

from fullsend_receiver.catalogue.collector import collector_off
from fullsend_receiver.catalogue.problems import Problem, unreadable_manifest
from fullsend_receiver.catalogue.rows import COPIED, NAME, STORED_BYTES, Row, Shelf, Summary
from fullsend_receiver.store.api import ObjectInfo, Stamp, Store
from fullsend_receiver.store.errors import ManifestError

#: Manifests that are read at the same time: an object store answers each in some milliseconds, however many there are.
_READERS: Final = 8


class ObjectSearch:
    """A `Search` of the objects of a store. `sure`: never, since nothing is reported."""

    def __init__(self, store: Store, sender: str) -> None:
        """Reads nothing before `run`."""
        self.sure = False
        self._store = store
        self._sender = sender
        self._shelves: dict[str, Shelf] = {}
        self._problems: list[Problem] = []

    def run(self) -> bool:
        """See `Search.run`."""
        listed: dict[str, list[ObjectInfo]] = {}
        for info in self._store.objects(self._sender):
            listed.setdefault(str(info.file.parent), []).append(info)
        self._problems = []
        with collector_off(), ThreadPoolExecutor(_READERS) as pool:
            shelves = {folder: self._shelf(folder, infos, pool) for folder, infos in listed.items()}
        same = shelves.keys() == self._shelves.keys() and all(
            shelf is self._shelves[folder] for folder, shelf in shelves.items()
        )
        self._shelves = shelves
        return not same

    def _shelf(self, folder: str, infos: list[ObjectInfo], pool: Executor) -> Shelf:
        """Return the shelf of a folder: the known one if nothing has changed. `pool`: reads manifests that are new."""
        known = self._shelves.get(folder)
        before = {} if known is None else {row[NAME]: row for row in known}
        new = [info for info in infos if before.get(info.file.name, [])[:NAME] != _padded(info.stamp)]
        read = {info.file.name: found for info, found in zip(new, pool.map(self._read, new), strict=True)}
        rows: list[Row] = []
        lacking: set[str] = set()
        for info in infos:
            name = info.file.name
            found = read[name] if name in read else before[name]
            if isinstance(found, ManifestError):
                # A stream that was removed meanwhile has no manifest.
                if not isinstance(found.unread, FileNotFoundError):
                    self._problems.append(unreadable_manifest(found))
                continue
            rows.append(found)
            if info.size != found[STORED_BYTES]:
                lacking.add(name)
        missing = frozenset(lacking)
        if known is not None and rows == list(before.values()) and missing == known.lacking:
            return known
        return Shelf.of(folder, rows, missing)

    def _read(self, info: ObjectInfo) -> Row | ManifestError:
        try:
            manifest = self._store.manifest(info.file)
        except ManifestError as error:
            return error
        return [*_padded(info.stamp), info.file.name, *(getattr(manifest, each) for each in COPIED)]

    @property
    def summaries(self) -> list[Summary]:
        """See `Search.summaries`."""
        return [summary for shelf in self._shelves.values() for summary in shelf.summaries()]

    @property
    def shelves(self) -> list[Shelf]:
        """See `Search.shelves`."""
        return [shelf for shelf in self._shelves.values() if len(shelf)]

    @property
    def lacking(self) -> frozenset[str]:
        """Files of streams that are missing, or of another length than in their manifests, as of the last run."""
        return frozenset(f"{shelf.path}/{name}" for shelf in self.shelves for name in shelf.lacking or ())

    @property
    def problems(self) -> list[Problem]:
        """See `Search.problems`."""
        return self._problems

    @property
    def orphans(self) -> list[str]:
        """See `Search.orphans`: bytes without a manifest have no name here."""
        return []

    def batches(self) -> Iterator[list[str]]:
        """See `Search.batches`: each question examines everything anyway."""
        return iter(())

    def distrust(self, paths: Iterable[str] | None = None) -> None:
        """See `Search.distrust`."""
        del paths


def _padded(stamp: Stamp) -> list[int]:
    """Return a stamp of the length that a row has."""
    return [*stamp, *[0] * NAME][:NAME]
