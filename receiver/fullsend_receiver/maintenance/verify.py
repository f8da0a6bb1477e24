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
from fullsend_receiver.maintenance.scrub import never_interrupts, rebuild, scrub
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

    @classmethod
    def of(cls, stored: StoredStream) -> Subject:
        """Return the subject for a stream of the catalogue."""
        about = stored.summary
        return cls(stored.file, about.dataset, about.snapshot, about.received, about.raw_bytes)


@dataclass(frozen=True, slots=True)
class Checked:
    """A stream was read from end to end. `breaks`: the files that build on it, if it is damaged; `unrecorded`: why the
    result could not be recorded, None: it was.
    """

    subject: Subject
    result: Scrubbed
    breaks: tuple[str, ...]
    unrecorded: OSError | None


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
        self, store: Store, record: Callable[[Scrubbed], None], dependents: Callable[[Subject], Iterable[str]]
    ) -> None:
        """`record`: records a result, and raises OSError; `dependents`: returns the files that build on a stream."""
        self._store = store
        self._record = record
        self._dependents = dependents

    def check(self, subject: Subject, between: Callable[[], None] = never_interrupts) -> Checked | Removed:
        """Check one stream, and record the result. Blocks, perhaps for hours.

        `between`: is called between two reads, and ends the check by raising. Raises: FullsendError, OSError if nothing
        could be read; nothing for damage.
        """
        result = scrub(self._store, subject.file, subject.received, between)
        if result is None:
            return Removed(subject)
        unrecorded = None
        try:
            self._record(result)
        except OSError as error:  # a check matters most on a disk that is read-only, or full
            unrecorded = error
        return Checked(subject, result, tuple(self._dependents(subject)) if result.damage else (), unrecorded)


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
