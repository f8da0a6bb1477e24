"""What is stored, as texts for another process of this host: the daemon's catalogue for the commands beside it.

Each item is a JSON text in ASCII:

    ["shelf", FOLDER, [[FIELD, ..., WHOLE], ...]]     streams of a folder: name and COPIED fields as in rows.py; WHOLE:
                                                      whether the file is there, null: nobody has looked
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
from fullsend_receiver.store.local import LocalStore

#: Differs where the items have another form, or the rows other fields: then a command reads for itself.
VERSION: Final = zlib.crc32(" ".join(["1", *COPIED, *ProblemKind]).encode())
#: Streams of one item: some 350 bytes each, at most 6 KiB.
_ROWS: Final = 100


def items_of(holdings: Holdings, *, dataset: str | None = None, streams: Iterable[str] | None = None) -> Iterator[str]:
    """Yield what is stored of a sender, and all its problems. `dataset`, `streams`: only the parts about these (as
    `Holdings.around` and `Holdings.find` take them).
    """
    for shelf in holdings.shelves(dataset=dataset, streams=streams):
        lacking = shelf.lacking
        rows = ([*row[NAME:], None if lacking is None else row[NAME] not in lacking] for row in shelf)
        while part := list(islice(rows, _ROWS)):
            yield json.dumps(["shelf", shelf.path, part])
    for problem in holdings.problems:
        yield json.dumps(["problem", problem.kind, problem.path, problem.what])


class Pages:
    """The other side: what comes in is put together again."""

    def __init__(self) -> None:
        """Nothing has come."""
        self._summaries: list[Summary] = []
        self._lacking: set[str] = set()
        self._looked = True
        self._problems: list[Problem] = []

    def add(self, items: Iterable[str]) -> None:
        """Take some items. Raises: ValueError, TypeError, IndexError where they have another form."""
        for item in items:
            match json.loads(item):
                case ["shelf", str(folder), list(rows)]:
                    self._add_rows(folder, rows)
                case ["problem", kind, str(path), str(what)]:
                    self._problems.append(Problem(ProblemKind(kind), path, what))
                case other:
                    msg = f"neither a shelf nor a problem: {str(other)[:100]}"
                    raise ValueError(msg)

    def catalogue(self, store: LocalStore) -> Catalogue:
        """Return what has come. What checks have found is read from the disk."""
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
