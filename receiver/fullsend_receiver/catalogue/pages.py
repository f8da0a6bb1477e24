"""The daemon's catalogue as texts, for the commands on the same host.

Each item is a JSON text in ASCII:

    ["shelf", FOLDER, [[FIELD, ..., WHOLE], ...]]     streams of a folder: name and COPIED fields as in rows.py; WHOLE:
                                                      whether the file exists, null: not checked
    ["problem", KIND, PATH, WHAT]                     see problems.py
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final

from fullsend_receiver.catalogue.holdings import Holdings
from fullsend_receiver.catalogue.problems import Problem, ProblemKind
from fullsend_receiver.catalogue.rows import COPIED, NAME, NO_STAMP, Row, Summary, summaries_of
from fullsend_receiver.catalogue.scrub_results import ScrubLog
from fullsend_receiver.catalogue.streams import Catalogue
from fullsend_receiver.store.api import Store

#: Differs if the items have another form, the rows other fields, or if there are other questions: then a command reads
#: the disk itself.
VERSION: Final = zlib.crc32(" ".join(["3", *COPIED, *ProblemKind]).encode())
#: Streams in one item: some 350 bytes each, at most 6 KiB.
_ROWS: Final = 100


def items_of(holdings: Holdings, *, dataset: str | None = None, streams: Iterable[str] | None = None) -> Iterator[str]:
    """Yield what is stored of a sender, and all its problems. `dataset`, `streams`: only the parts for these (as in
    `Holdings.around` and `Holdings.find`).
    """
    for shelf in holdings.shelves(dataset=dataset, streams=streams):
        lacking = shelf.lacking
        rows = ([*row[NAME:], None if lacking is None else row[NAME] not in lacking] for row in shelf)
        while part := list(islice(rows, _ROWS)):
            yield json.dumps(["shelf", shelf.path, part])
    for problem in holdings.problems:
        yield json.dumps(["problem", problem.kind, problem.path, problem.what])


class Pages:
    """Makes a catalogue of the items again."""

    def __init__(self) -> None:
        """Start without items."""
        self._summaries: list[Summary] = []
        self._lacking: set[str] = set()
        self._looked = True
        self._problems: list[Problem] = []

    def add(self, items: Iterable[str]) -> None:
        """Add some items. Raises: ValueError, TypeError, IndexError if they have another form."""
        for item in items:
            match json.loads(item):
                case ["shelf", str(folder), list(rows)]:
                    self._add_rows(folder, rows)
                case ["problem", kind, str(path), str(what)]:
                    self._problems.append(Problem(ProblemKind(kind), path, what))
                case other:
                    msg = f"neither a shelf nor a problem: {str(other)[:100]}"
                    raise ValueError(msg)

    def catalogue(self, store: Store) -> Catalogue:
        """Return the catalogue of the added items. The results of checks are read from the disk."""
        lacking = frozenset(self._lacking) if self._looked else None
        return Catalogue(store, self._summaries, sorted(self._problems, key=str), ScrubLog(store), lacking)

    def _add_rows(self, folder: str, rows: list[Any]) -> None:
        known: list[Row] = []
        for name, *fields, whole in rows:
            known.append([*NO_STAMP, name, *fields])
            if whole is None:
                self._looked = False
            elif not whole:
                self._lacking.add(f"{folder}/{name}")
        self._summaries += summaries_of(folder, known)
