"""What is stored, in the memory of a running daemon: for each sender, and shared by all questions.

It is read once, from the copy of the summaries or from the manifests. From then on the kernel reports changes in the
folders (`inotify`): a commit by this daemon; a file that somebody has removed, truncated or put back; a manifest that
a command has made. So a question costs three `stat`s, of the sender's folder and of two files with results of checks.
It also costs a poll of the table of mounts, and reading what has changed since the last question. The answer describes
the disk at the time of the question, or later.

If the kernel cannot report changes (a network file system, too many folders), each question examines everything.
`relook` examines everything at intervals in any case, because some changes are not reported.

Questions that wait for each other share a search: it is repeated only for a question that was asked after it began.
docs/operations.md says what is kept in memory for each stream ("Memory").
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from functools import partial
from pathlib import PurePosixPath
from typing import Final, TypeVar

from fullsend_cli.memory import trim
from fullsend_receiver.catalogue.holdings import Holdings
from fullsend_receiver.catalogue.problems import without_manifest
from fullsend_receiver.catalogue.scrub_results import Scrubbed, ScrubLog
from fullsend_receiver.catalogue.search import Search, Searches
from fullsend_receiver.store.api import Store
from fullsend_receiver.store.workers import run

_T = TypeVar("_T")

#: Earlier than all moments.
_ANY: Final = -1


class Catalogues:
    """What is stored of each sender. Thread-safe."""

    def __init__(self, store: Store, *, thorough: bool = False) -> None:
        """Reads nothing before the first question. `thorough`: for the first one about each sender everything is looked
        at, whatever another process has noted: who removes streams must not overlook one that builds on them.
        """
        self.store = store
        self._thorough: Final = thorough
        self._searches: Final = Searches(store)
        self._kept: dict[str, _SenderState] = {}
        self._guard: Final = threading.Lock()  # held for moments: of `_kept`, `_moment` and `_turns`
        self._moment = 0
        self._turns: dict[str, asyncio.Lock] = {}
        self._scrubbed: Final = ScrubLog(store)

    def senders(self) -> list[str]:
        """Return the senders that have, or had, streams here. Raises: StoreError, OSError."""
        senders = self.store.senders()
        self.store.check_mounted()
        return senders

    def current(self, sender: str, *, asked: int | None = None) -> Holdings:
        """Return what is stored of a sender, as of the moment `asked` (None: now) or later.

        Blocks on the disk, and while another thread examines it. Raises: StoreError if the store is not there; OSError.
        """
        return self._read(sender, asked)[1]

    def _read(self, sender: str, asked: int | None = None) -> tuple[int, Holdings]:
        """Return the same, with the moment of the search that found it."""
        asked = self._now() if asked is None else asked
        with self._keep(sender) as kept:
            if kept.holdings is None or kept.read_at <= asked:
                began = self._now()
                kept.holdings = self._read_again(kept, sender)
                kept.read_at = began
            return kept.read_at, kept.holdings

    async def ask(self, disk: Executor, sender: str, work: Callable[[Holdings], _T], *, begun: bool = False) -> _T:
        """Answer a question in a `disk` thread, as `current`. All questions about one sender together use only one such
        thread: the others wait for fsync. `begun`: it is a later part of an answer, for which the disk was examined at
        the time of the question.
        """
        asked = _ANY if begun else self._now()
        return await self._in_turn(disk, sender, lambda: work(self.current(sender, asked=asked)))

    async def stored_bytes(self, disk: Executor, sender: str) -> tuple[int, int]:
        """Return the bytes that are stored of a sender now, as Holdings.stored_bytes, behind the moment of the search:
        of two results, the one with the higher number is newer. Raises: as `current`.
        """

        def look() -> tuple[int, int]:
            moment, holdings = self._read(sender)
            return moment, holdings.stored_bytes

        return await self._in_turn(disk, sender, look)

    async def relook(self, disk: Executor) -> None:
        """Examine everything that is in memory again, whatever was reported: some folders at a time, so that no
        question waits for long. If that fails for one sender, the others are still examined.

        Raises: the first error.
        """
        with self._guard:
            senders = list(self._kept)
        failed: Exception | None = None
        for sender in senders:
            try:
                for paths in await self._in_turn(disk, sender, partial(self._watched_batches, sender)):
                    await self._in_turn(disk, sender, partial(self._examine_again, sender, paths))
            except Exception as error:  # noqa: BLE001 - raised below
                failed = failed or error
        if failed is not None:
            raise failed

    def distrust(self) -> None:
        """Have the next question about each sender examine everything again."""
        with self._guard:
            kept = list(self._kept.values())
        for each in kept:
            each.distrusted = True

    def checks_version(self, sender: str) -> object:
        """Return what changes with each check of a sender's streams. Blocks on the disk. Raises: OSError."""
        return self._scrub_log(sender).version(sender)

    def checked(self, file: PurePosixPath, received: str) -> Scrubbed | None:
        """Return what checks of a file that was received then have shown. Blocks on the disk. Raises: OSError."""
        return self._scrub_log(file.parts[0]).get(str(file), received)

    def record(self, result: Scrubbed) -> Scrubbed | None:
        """Record the result of a check. Blocks on the disk. Returns: what was known before. Raises: OSError."""
        return self._scrubbed.add(result)

    @contextlib.contextmanager
    def _keep(self, sender: str) -> Iterator[_SenderState]:
        """Lock the state of a sender, and return it."""
        with self._guard:
            kept = self._kept.setdefault(sender, self._state_of(sender))
        with kept.lock:
            yield kept

    def _state_of(self, sender: str) -> _SenderState:
        state = _SenderState(self.store, sender, self._searches.of(sender))
        state.distrusted = self._thorough
        return state

    async def _in_turn(self, disk: Executor, sender: str, work: Callable[[], _T]) -> _T:
        with self._guard:
            turn = self._turns.setdefault(sender, asyncio.Lock())
        async with turn:
            return await run(disk, work)

    def _watched_batches(self, sender: str) -> list[list[str]]:
        """Return the folders of a sender that no question examines without a report, in batches."""
        with self._keep(sender) as kept:
            return list(kept.search.batches()) if kept.search.sure else []

    def _examine_again(self, sender: str, paths: list[str]) -> None:
        with self._keep(sender) as kept:
            kept.search.distrust(paths)
            kept.holdings = self._read_again(kept, sender)

    def _read_again(self, kept: _SenderState, sender: str) -> Holdings:
        """Examine the disk again. Raises: StoreError if the store is not in its folder; OSError."""
        kept.holdings, before = None, kept.holdings
        holdings = kept.read_again(self._scrub_log(sender), before)
        self.store.check_mounted()  # afterwards: an empty mount point has no stream, and shows no error
        return holdings

    def _now(self) -> int:
        """Return a moment, later than all before."""
        with self._guard:
            self._moment += 1
            return self._moment

    def _scrub_log(self, sender: str) -> ScrubLog:
        """Return the results of checks, of this sender's streams including those of commands on this host."""
        self._scrubbed.read(sender)
        return self._scrubbed


class _SenderState:
    """The state of one sender. `holdings`: None if nothing was read, or the last search has failed; `read_at`: a moment
    before the last search; `distrusted`: the next search must examine everything.
    """

    def __init__(self, store: Store, sender: str, search: Search) -> None:
        self.lock: Final = threading.Lock()
        self.read_at = _ANY
        self.holdings: Holdings | None = None
        self.search: Final = search
        self.distrusted = False
        self._store = store
        self._sender = sender
        self._same = False  # the holdings are those of the last search

    def read_again(self, scrubbed: ScrubLog, before: Holdings | None) -> Holdings:
        """Examine the disk again. `before`: the result of the last search, None: it failed. Raises: OSError."""
        if self.distrusted:
            self.distrusted = False
            self.search.distrust()
        # First: if the search fails half-way, its findings by then must not count as known.
        same, self._same = self._same, False
        same = not self.search.run() and same
        self._same = True
        search = self.search
        problems = sorted([*search.problems, *map(without_manifest, search.orphans)], key=str)
        if before is None:
            holdings = Holdings(self._store, self._sender, search.shelves, problems, scrubbed)
            trim()  # reading everything took much more memory than the result
            return holdings
        if same:
            return before.with_news(problems, scrubbed)
        return before.renewed(search.shelves, problems, scrubbed)
