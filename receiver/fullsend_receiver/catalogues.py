"""The catalogues of a running daemon: one for each sender, kept in memory and shared by all questions.

A question is answered from what the disk holds when it is asked, or later. So before each answer the sender's folders
and manifests are looked at again (`stat`), and only what has changed is read. Questions that wait for one another share
that: it is done again only for one that was asked after it began. A commit by this daemon, a file that somebody has
removed, and a manifest that a command has made beside it are seen in the same way.

One thread at a time works with one sender's catalogue; nobody else waits for that sender. What is kept of each stream,
docs/operations.md says ("Memory").
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import Final, TypeVar

from fullsend_receiver.catalogue import Catalogue, describe_orphan, sender_folders
from fullsend_receiver.durable import signature
from fullsend_receiver.scrublog import Scrubbed, ScrubLog, scrub_file
from fullsend_receiver.store import Store
from fullsend_receiver.summaries import Search

_T = TypeVar("_T")

#: Before all moments.
_ANY: Final = -1
_Signature = tuple[int, int, int]


class Catalogues:
    """What is stored of each sender. For any thread."""

    def __init__(self, store: Store) -> None:
        """Nothing is read before the first question."""
        self.store = store
        self._kept: dict[str, _Kept] = {}
        self._guard: Final = threading.Lock()  # held for moments: of `_kept`, `_moment` and `_turns`
        self._moment = 0
        self._turns: dict[str, asyncio.Lock] = {}
        self._scrub_guard: Final = threading.Lock()
        self._scrubbed: ScrubLog | None = None
        self._scrub_signature: _Signature | None = None

    def senders(self) -> list[str]:
        """Return who has streams here, or had. Raises: OSError."""
        return sorted(sender_folders(self.store))

    @contextlib.contextmanager
    def current(self, sender: str, *, asked: int | None = None) -> Iterator[Catalogue]:
        """Have a sender's catalogue alone, as of the moment `asked` (None: now) or later. Not to be kept.

        Blocks on the disk, and while another thread has it. Raises: OSError.
        """
        asked = self._now() if asked is None else asked
        with self._guard:
            kept = self._kept.setdefault(sender, _Kept(self.store, sender))
        with kept.lock:
            catalogue = kept.catalogue
            if catalogue is None or kept.read_at <= asked:
                began = self._now()
                catalogue = kept.read_again(self._scrub_log())
                kept.read_at = began
            yield catalogue

    async def ask(self, disk: Executor, sender: str, work: Callable[[Catalogue], _T], *, begun: bool = False) -> _T:
        """Answer a question in a `disk` thread, as `current`. The questions about one sender take one such thread in
        all, however many they are: the others wait for fsync. `begun`: it is the rest of an answer, for which the disk
        was looked at when that was asked.
        """
        asked = _ANY if begun else self._now()

        def answer() -> _T:
            with self.current(sender, asked=asked) as catalogue:
                return work(catalogue)

        with self._guard:
            turn = self._turns.setdefault(sender, asyncio.Lock())
        async with turn:
            return await asyncio.get_running_loop().run_in_executor(disk, answer)

    def record(self, result: Scrubbed) -> None:
        """Record what a check has found. Blocks on the disk. Raises: OSError."""
        log = self._scrub_log()
        with self._scrub_guard:
            log.add(result)

    def _now(self) -> int:
        """Return a moment, later than all before."""
        with self._guard:
            self._moment += 1
            return self._moment

    def _scrub_log(self) -> ScrubLog:
        """Return what checks have found, also those of commands beside the daemon."""
        with self._scrub_guard:
            found = signature(scrub_file(self.store))
            if self._scrubbed is None or found != self._scrub_signature:
                self._scrubbed = ScrubLog(self.store)
                self._scrub_signature = found
            return self._scrubbed


class _Kept:
    """One sender's catalogue, and what it was made of. `read_at`: a moment before it was last looked at."""

    def __init__(self, store: Store, sender: str) -> None:
        self.lock: Final = threading.Lock()
        self.read_at = _ANY
        self.catalogue: Catalogue | None = None
        self._store = store
        self._search = Search(store, sender)
        self._indexed = False  # the catalogue is of what the search has found

    def read_again(self, scrubbed: ScrubLog) -> Catalogue:
        """Look at the disk again. Returns: the catalogue. Raises: OSError."""
        # Said first: where the search fails half-way, what it has found by then must not be taken for known.
        self._indexed = not self._search.run() and self._indexed
        found = self._search.found
        problems = sorted([*found.problems, *map(describe_orphan, found.orphans)])
        if self.catalogue is None:
            self.catalogue = Catalogue(self._store, [], [], scrubbed)
        self.catalogue.renew(None if self._indexed else found.summaries, problems, scrubbed)
        self._indexed = True
        return self.catalogue
