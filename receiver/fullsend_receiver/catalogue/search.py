"""How a sender's streams are found: in folders, or in whatever else a store has them.

A search is repeated for each question. What it costs, where nothing has changed, decides what a push costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from fullsend_receiver.catalogue.inotify import Watch, Watcher
from fullsend_receiver.catalogue.object_search import ObjectSearch
from fullsend_receiver.catalogue.problems import Problem
from fullsend_receiver.catalogue.rows import Shelf, Summary
from fullsend_receiver.catalogue.summaries import FolderSearch
from fullsend_receiver.store.api import Store


@dataclass(slots=True)
class Found:
    """What is stored of a sender. `orphans`: `.zst` files without manifest, relative to the store; `problems`: what
    could not be read; `lacking`: files of streams that are missing, or of another length than in their manifests, None:
    not looked at.
    """

    summaries: list[Summary] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    lacking: frozenset[str] | None = None


class Search(Protocol):
    """The stored streams of one sender. Each `run` searches again.

    `sure`: the store reports each change since the last run, so that the next one examines only these.
    """

    sure: bool

    def run(self) -> bool:
        """Search. Returns: whether the streams differ from the last run; after an error, too, they may differ.

        Raises: OSError, StoreError.
        """

    @property
    def summaries(self) -> list[Summary]:
        """The streams as of the last run."""

    @property
    def shelves(self) -> list[Shelf]:
        """The same, on shelves."""

    @property
    def problems(self) -> list[Problem]:
        """What the last run could not read."""

    @property
    def orphans(self) -> list[str]:
        """The `.zst` files without manifest, as of the last run, relative to the store."""

    @property
    def lacking(self) -> frozenset[str] | None:
        """Files of streams that are missing, or of another length than in their manifests. None: not looked at here."""

    def batches(self) -> Iterator[list[str]]:
        """Yield the folders of the last run, in batches that take some milliseconds to examine."""

    def distrust(self, paths: Iterable[str] | None = None) -> None:
        """Examine everything in these folders in the next run, whatever was reported; None: in all folders."""


class Searches:
    """Makes the searches that a daemon repeats, with one queue of the kernel's reports for all of them."""

    def __init__(self, store: Store) -> None:
        """Reads nothing."""
        self._store = store
        self._watcher = None if store.folder is None else Watcher(store.folder)

    def of(self, sender: str) -> Search:
        """Return a search that keeps what it finds on shelves."""
        return _search(self._store, sender, None if self._watcher is None else Watch(self._watcher))


def _search(store: Store, sender: str, watch: Watch | None) -> Search:
    """Return a search of a sender's streams. `watch`: what reports changes in folders."""
    if store.folder is None:
        return ObjectSearch(store, sender)
    return FolderSearch(store, sender, watch)


def find_streams(store: Store, sender: str, *, thorough: bool = False) -> Found:
    """Return what is stored of a sender, once. `thorough`: look at everything, whatever was noted. Blocks.

    Raises: OSError, StoreError.
    """
    search = _search(store, sender, watch=None)
    if thorough:
        search.distrust()
    search.run()
    return Found(search.summaries, search.orphans, search.problems, search.lacking)
