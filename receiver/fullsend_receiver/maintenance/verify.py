"""Checks stored streams: for `fullsendd verify`, for senders that ask, and for the daemon.

The results are typed; the caller makes messages of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from fullsend_receiver.catalogue.problems import Problem, ProblemKind
from fullsend_receiver.catalogue.scrub_results import Scrubbed
from fullsend_receiver.catalogue.streams import StoredStream
from fullsend_receiver.maintenance.scrub import StreamCheck, never_interrupts, rebuild
from fullsend_receiver.store.api import Store
from fullsend_receiver.store.errors import StoreError


@dataclass(frozen=True, slots=True)
class Subject:
    """A stored stream to check. `received`: from its manifest at the time of selection; `file`: its `.zst`, relative to
    the store.
    """

    file: PurePosixPath
    dataset: str
    snapshot: str
    received: str
    raw_bytes: int

    @property
    def name(self) -> str:
        """DATASET@SNAPSHOT."""
        return f"{self.dataset}@{self.snapshot}"

    @classmethod
    def of(cls, stored: StoredStream) -> Subject:
        """Return the subject for a stream of the catalogue."""
        about = stored.summary
        return cls(stored.file, about.dataset, about.snapshot, about.received, about.raw_bytes)


@dataclass(frozen=True, slots=True)
class Checked:
    """A stream was checked. `result`: of this check; `breaks`: the files that build on it, if it is damaged;
    `unrecorded`: why the result could not be recorded, None: it was; `passing`: as in StreamCheck; `healed`: it was
    known to be damaged, and is whole.
    """

    subject: Subject
    result: Scrubbed
    breaks: tuple[str, ...]
    unrecorded: OSError | None
    passing: tuple[str, ...] = ()
    healed: bool = False


@dataclass(frozen=True, slots=True)
class Removed:
    """A stream was removed before it could be checked."""

    subject: Subject


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A `.zst` had no manifest, and has one now."""

    file: PurePosixPath


@dataclass(frozen=True, slots=True)
class Lost:
    """A `.zst` has no manifest, and none can be made; `why` names the file."""

    file: PurePosixPath
    why: str


@dataclass(frozen=True, slots=True)
class Unlisted:
    """A file or folder that is not listed, and so was not checked."""

    problem: Problem


Finding = Checked | Removed | Rebuilt | Lost | Unlisted


class Verifier:
    """Checks streams, and records the results. Thread-safe."""

    def __init__(
        self,
        store: Store,
        record: Callable[[Scrubbed], Scrubbed | None],
        dependents: Callable[[Subject], Iterable[str]],
    ) -> None:
        """`record`: records a result, returns what was known before, and raises OSError; `dependents`: returns the
        files that build on a stream.
        """
        self._store = store
        self._record = record
        self._dependents = dependents

    def begin(self, subject: Subject) -> StreamCheck:
        """Return the check of a stream, which has read nothing yet."""
        return StreamCheck(self._store, subject.file, subject.received)

    def check(self, subject: Subject, between: Callable[[], None] = never_interrupts) -> Checked | Removed:
        """Check one stream, and record the result. Blocks, perhaps for hours.

        `between`: is called before each chunk, and ends the check by raising.
        """
        check = self.begin(subject)
        return self.conclude(subject, check, check.run(between))

    def conclude(self, subject: Subject, check: StreamCheck, result: Scrubbed | None) -> Checked | Removed:
        """Record the result of a check, None: the stream was removed. Blocks on the disk."""
        if result is None:
            return Removed(subject)
        unrecorded = None
        healed = False
        try:
            before = self._record(result)
            healed = before is not None and bool(before.damage) and not (result.damage or result.unreadable)
        except OSError as error:  # a check matters most on a disk that is read-only, or full
            unrecorded = error
        breaks = tuple(self._dependents(subject)) if result.damage else ()
        return Checked(subject, result, breaks, unrecorded, tuple(check.passing), healed)


def take_back(store: Store, problems: Iterable[Problem]) -> Iterator[Rebuilt | Lost]:
    """Make a manifest for each file among these problems that has none. Blocks while it reads each."""
    for problem in problems:
        if problem.kind is not ProblemKind.NO_MANIFEST:
            continue
        file = PurePosixPath(problem.path)
        try:
            rebuild(store, file)
        except (StoreError, OSError) as error:
            yield Lost(file, str(error))
        else:
            yield Rebuilt(file)


def unlisted(problems: Iterable[Problem]) -> Iterator[Unlisted]:
    """Yield what is not listed, for a caller that has tried to make the missing manifests (`take_back`)."""
    yield from (Unlisted(problem) for problem in problems if problem.kind is not ProblemKind.NO_MANIFEST)
