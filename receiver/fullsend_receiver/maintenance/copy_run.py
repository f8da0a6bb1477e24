"""One run that copies from a store into another: what it copies, what it leaves behind, and what is noted of it.

A run is complete if all that was stored when it began is in the other store. So it counts from its begin, not from its
end. A stream that it could not copy, or that was merged before its turn, makes it incomplete. So does a folder that
cannot be read in either store. What is older than the newest copy does not: the other store may have pruned that.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import PurePosixPath
from typing import Final, NamedTuple

from fullsend_protocol.format.names import is_stream
from fullsend_protocol.shared.errors import FullsendError, reason
from fullsend_protocol.shared.settings import SizeOrShare
from fullsend_protocol.shared.units import format_size, format_time, plural, printable
from fullsend_receiver.access.copy_settings import CopyScope
from fullsend_receiver.catalogue.rows import Summary
from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.events.emit import emit
from fullsend_receiver.events.records import CopyFailed, CopyFinished
from fullsend_receiver.maintenance.copy_claim import host_of
from fullsend_receiver.maintenance.copy_records import (
    NAMED,
    CopyRecord,
    change_left,
    change_record,
    read_left,
)
from fullsend_receiver.maintenance.copying import Copier, CopyAbandoned, CopyPlan, plan_copy
from fullsend_receiver.store.api import Store
from fullsend_receiver.store.errors import StoreError, StoreMissing, StoreUnreadable
from fullsend_receiver.store.names import dataset_folder

log: Final = logging.getLogger("fullsendd")

#: Why a run ended that was told to.
INTERRUPTED: Final = "interrupted: the next `copy` resumes it"
#: Why a stream is left behind that was gone at its turn, while its snapshot is stored.
_MERGED: Final = "was merged, or stored anew, before its turn: the next `copy` takes its snapshot"


class CopyBegun(NamedTuple):
    """A stream is copied now."""

    about: Summary


class CopyDone(NamedTuple):
    """A stream was copied; `is_new` False: it is not there any more, or was copied meanwhile."""

    about: Summary
    is_new: bool


class LeftBehind(NamedTuple):
    """A stream is not copied. `file`: or what may hide streams."""

    file: str
    why: str


CopyEvent = CopyBegun | CopyDone | LeftBehind


@dataclass(slots=True)
class CopyTotals:
    """What a run has done. `left`: by file, why it is not copied; `why`: what has ended the run before its time, None:
    nothing; `older`: see `CopyPlan`.
    """

    streams: int = 0
    stored_bytes: int = 0
    left: dict[str, str] = field(default_factory=dict)
    why: str | None = None
    older: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether all is copied."""
        return self.why is None and not self.left


@contextlib.contextmanager
def noted(source: Store, store_id: str, to: str, scope: CopyScope, wanted: CopyScope | None) -> Iterator[CopyTotals]:
    """Note the begin of a run, and its end with what the caller has put into the totals, and say it as an event.

    `store_id`, `to`: of the target: its id and place; `scope`: what is copied; `wanted`: what receiver.toml wants
    copied there; None, or not all of it is copied: nothing is noted, since it tells nothing of that. Raises: OSError
    if the begin cannot be noted.
    """
    began, totals = time.time(), CopyTotals()
    mine = secrets.token_hex(8)
    counts = wanted is not None and scope.covers(wanted)
    documents = source.documents

    def begin(record: CopyRecord) -> CopyRecord:
        known = record if wanted is None else record.wanted(wanted, format_time(began))
        return known.model_copy(
            update={
                "run": mine,
                "began": format_time(began),
                "ended": None,
                "host": host_of(source).partition(" ")[0],
                "tries": known.tries + 1,
            }
        )

    def end(record: CopyRecord) -> CopyRecord:
        bytes_ever = record.bytes_ever + totals.stored_bytes
        if record.run != mine:
            return record.model_copy(update={"bytes_ever": bytes_ever})  # another run has taken this one over
        said: dict[str, object] = {
            "ended": format_time(time.time()),
            "ok": totals.is_complete,
            "why": None if totals.why is None else printable(totals.why),
            "left": len(totals.left),
            "named": [(printable(file), printable(why)) for file, why in islice(totals.left.items(), NAMED)],
            "older": totals.older,
            "streams": totals.streams,
            "stored_bytes": totals.stored_bytes,
            "bytes_ever": bytes_ever,
        }
        if totals.is_complete:
            said |= {
                "complete": format_time(began),
                "what": list(scope.what),
                "everything": scope.everything,
                "tries": 0,
            }
        return record.model_copy(update=said)

    if counts:
        change_record(documents, store_id, begin)
    try:
        yield totals
    except (FullsendError, OSError) as error:
        totals.why = reason(error)
        raise
    except BaseException as error:
        totals.why = type(error).__name__
        raise
    finally:
        if counts:
            try:
                change_record(documents, store_id, end)
            except (StoreError, OSError) as error:
                log.warning("the result of the copy cannot be noted: %s", reason(error))
        _say(totals, to, time.time() - began)


def _say(totals: CopyTotals, to: str, seconds: float) -> None:
    done = f"{plural(totals.streams, 'stream')} copied, {format_size(totals.stored_bytes)}"
    if totals.why is not None:
        text = f"copy into {to}: has failed: {totals.why} ({done})"
        emit(CopyFailed(text=printable(text), to=to, why=printable(totals.why)), logging.ERROR)
        return
    left = f"; {plural(len(totals.left), 'stream')} left behind" if totals.left else ""
    event = CopyFinished(
        text=printable(f"copy into {to}: {done}{left}"),
        to=to,
        streams=totals.streams,
        stored_bytes=totals.stored_bytes,
        left=len(totals.left),
        seconds=round(seconds, 1),
    )
    emit(event, logging.WARNING if totals.left else logging.INFO)


class CopyRun:
    """One run: `plan`, then `run`."""

    def __init__(self, source: Store, target: Store, store_id: str, scope: CopyScope, totals: CopyTotals) -> None:
        """`store_id`: of the target; `scope`: what is copied; `totals`: those of `noted`."""
        self._source = source
        self._target = target
        self._store_id = store_id
        self._scope = scope
        self._totals = totals
        self._copier: Copier | None = None
        self._abandoned = threading.Event()
        self._why = INTERRUPTED
        self.plans: list[CopyPlan] = []

    @property
    def stored_bytes(self) -> int:
        """The stored bytes of what is due."""
        return sum(plan.stored_bytes for plan in self.plans)

    def abandon(self, why: str = INTERRUPTED) -> None:
        """End the run soon, from another thread or a signal handler."""
        self._why = why
        self._abandoned.set()
        if self._copier is not None:
            self._copier.abandon()

    def plan(self) -> Iterator[LeftBehind]:
        """Plan, and yield what will be left out. Blocks on both stores. Raises: StoreError, OSError."""
        source, target = self._source, self._target
        again = read_left(source.documents, self._store_id)
        for what in self._scope.what or source.senders():
            if self._abandoned.is_set():
                return
            sender, _, dataset = what.partition("/")
            plan = plan_copy(source, target, sender, dataset or None, everything=self._scope.everything, again=again)
            if self._scope.what and not plan.stored and not plan.left_out:
                plan.left_out[what] = "nothing of that name is stored here"
            self.plans.append(plan)
            self._totals.older += plan.older
            yield from (self._leave(file, why) for file, why in plan.left_out.items())
        # Afterwards: an empty mount point has no stream, and shows no error.
        source.check_mounted()
        target.check_mounted()

    def run(
        self, *, rate: int, keep_free: SizeOrShare, count: Callable[[int], None] = lambda _: None
    ) -> Generator[CopyEvent]:
        """Copy what is due. The others: as for `Copier`. A stream that cannot be copied does not keep
        the others from it. Blocks. Raises: StoreError, OSError if a store cannot be used any more.
        """
        self._copier = copier = Copier(self._source, self._target, rate=rate, keep_free=keep_free, count=count)
        if self._abandoned.is_set():
            self._totals.why = self._why
            return
        due = {each.summary.path for plan in self.plans for each in plan.due}
        missing = due.union(*(plan.left_out for plan in self.plans))
        documents = self._source.documents
        left = read_left(documents, self._store_id) - missing
        settled = {file for file in left if self._is_chosen(file) and not self._is_hidden(file)}
        # Before it begins: a killed run must not leave a stream behind that a later one hides.
        change_left(documents, self._store_id, add=filter(is_stream, missing), remove=settled)
        try:
            for event in self._copy(copier):
                if isinstance(event, CopyDone):
                    settled.add(event.about.path)
                yield event
        finally:
            change_left(documents, self._store_id, remove=settled)

    def _copy(self, copier: Copier) -> Iterator[CopyEvent]:
        gone: list[Summary] = []
        for plan in self.plans:
            for stored in plan.due:
                about = stored.summary
                yield CopyBegun(about)
                try:
                    is_new = copier.copy(stored, plan.bases.get(about.path, ()), plan.replaces.get(about.path))
                    is_gone = not is_new and not self._source.has(stored.file)
                except CopyAbandoned:
                    self._totals.why = self._why
                    yield self._leave(about.path, self._why)
                    return
                except (StoreMissing, StoreUnreadable) as error:
                    self._totals.why = str(error)
                    yield self._leave(about.path, str(error))
                    return
                except (FullsendError, OSError) as error:
                    yield self._leave(about.path, reason(error))
                else:
                    if is_new:
                        self._totals.streams += 1
                        self._totals.stored_bytes += about.stored_bytes
                    if is_gone:
                        gone.append(about)
                    else:
                        yield CopyDone(about, is_new)
        try:
            yield from self._settle(gone)
            if self._totals.left:
                self._source.check_mounted()
                self._target.check_mounted()
        except StoreError as error:
            self._totals.why = str(error)

    def _settle(self, gone: list[Summary]) -> Iterator[CopyEvent]:
        """Yield what has become of streams that the source had no more at their turn: a prune has dropped them, or a
        merge has stored their snapshots in another form. Blocks. Raises: StoreError, OSError.
        """
        stored = {name: read_catalogue(self._source, name, thorough=True) for name in {each.sender for each in gone}}
        if gone:
            self._source.check_mounted()  # an empty mount point has no stream, and shows no error
        for about in gone:
            now, folder = stored[about.sender], str(PurePosixPath(about.path).parent)
            problem = next((each for each in now.problems if each.hides(folder)), None)
            if now.has(about.dataset, about.guid):
                yield self._leave(about.path, _MERGED)
            elif problem is not None:
                yield self._leave(about.path, f"is gone, and what is stored of its dataset cannot be read: {problem}")
            else:
                yield CopyDone(about, is_new=False)

    def _leave(self, file: str, why: str) -> LeftBehind:
        self._totals.left[file] = why
        return LeftBehind(file, why)

    def _is_hidden(self, file: str) -> bool:
        """Whether a stream may be stored in the source although no plan has it: something cannot be read."""
        folder = str(PurePosixPath(file).parent)
        return any(problem.hides(folder) for plan in self.plans for problem in plan.problems)

    def _is_chosen(self, file: str) -> bool:
        """Whether a stream is in the scope, by its place."""
        folder = PurePosixPath(file).parent
        for what in self._scope.what:
            sender, _, dataset = what.partition("/")
            if folder.parts[:1] == (sender,) and (not dataset or folder == dataset_folder(sender, dataset)):
                return True
        return not self._scope.what
