"""Makes the overview of a store: what is stored, what has come, and what a person should look at.

A daemon makes one each minute, of its catalogues, and keeps what it learns (histories, sizes). What has not changed of
a sender is not looked at again, except now and then: whether a check is due depends on the time. A command without a
daemon makes the same of the disk, and writes nothing.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Final, Literal, NamedTuple, Protocol

import fullsend_protocol
from fullsend_protocol.shared.errors import reason
from fullsend_protocol.shared.units import parse_time
from fullsend_receiver.access.config import ReceiverSettings
from fullsend_receiver.access.senders import Sender, SenderTable
from fullsend_receiver.arrival.usage import Beside, find_beside
from fullsend_receiver.catalogue import unchanged
from fullsend_receiver.catalogue.rows import Summary
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.catalogue.standing import lost_spills, newest_state, problem_datasets
from fullsend_receiver.catalogue.streams import Catalogue, StoredStream
from fullsend_receiver.maintenance import clock
from fullsend_receiver.maintenance.clock import Clock, Reading, SystemClock
from fullsend_receiver.maintenance.merge_records import read_merges
from fullsend_receiver.maintenance.prune_records import find_troubles, read_history, read_record
from fullsend_receiver.maintenance.schedule import Survey, total
from fullsend_receiver.maintenance.suspicion import read_accepted_times
from fullsend_receiver.monitor import sizes
from fullsend_receiver.monitor.alarms import AlarmFacts, Moment, age_of, find_alarms, is_settled, sizes_of_arrivals
from fullsend_receiver.monitor.copies import find_copies
from fullsend_receiver.monitor.drills import read_drills
from fullsend_receiver.monitor.history import AHEAD, Histories, PackedHistory, SenderHistory, is_new, local_day
from fullsend_receiver.monitor.overview import (
    Alarm,
    DatasetOverview,
    Drill,
    Expectation,
    History,
    Overview,
    ScrubOverview,
    SenderOverview,
)
from fullsend_receiver.monitor.rhythm import learn, provisional
from fullsend_receiver.store.api import Store
from fullsend_receiver.store.errors import StoreError, disk_error

log: Final = logging.getLogger("fullsendd")

#: Seconds after which all is looked at again, also what has not changed; and between two tries whether the store can be
#: written to, which write a little.
_AGAIN: Final = 600.0
_HOUR: Final = 3600.0
#: Seconds within which the first stream of a new sender should come, or a part of it.
_FIRST_WITHIN: Final = 3 * 86400.0
#: Seconds after which finding what lies beside the streams is slow.
_SLOW: Final = 1.0
#: Seconds by which a snapshot may be older than the one it builds on: ZFS notes the time at which it was asked.
_SET_BACK: Final = 3600.0


class Holder(Protocol):
    """What is stored of one sender."""

    def parts(self) -> Iterator[Catalogue]:
        """Yield all streams, part by part. A dataset is in one of them as a whole."""

    def troubled(self) -> Catalogue:
        """Return all problems, with at least the streams in their folders."""


class Stock(NamedTuple):
    """What is stored of one sender. `version`: equal to that of the last look if nothing has changed since; None: it
    is not known.
    """

    holder: Holder
    version: object = None


class StockSource(Protocol):
    """What is stored, as of each call. Both block. Raises: StoreError, OSError."""

    def senders(self) -> Iterable[str]:
        """Return the senders that have, or had, streams here."""

    def stock(self, sender: str) -> Stock:
        """Return what is stored of one of them."""


#: How often a dataset of a sender should come: seconds, or as receiver.toml says it.
Expected = Callable[[str, str], float | Literal["learn", "never"]]


@dataclass(slots=True)
class _Looked:
    """What is known of one sender. `standing`: of its checks."""

    version: object
    at: float  # by the clock that nobody sets
    every: float  # the setting, by which `standing` was made
    standing: Survey
    datasets: list[DatasetOverview] = field(default_factory=list)
    problems: list[tuple[str, str | None, str]] = field(default_factory=list)
    set_back: list[tuple[str, str, str]] = field(default_factory=list)


class _Totals(NamedTuple):
    """What prunes and merges of a sender have done. See `SenderOverview`."""

    pruned: float | None
    pruned_bytes: int
    merged_bytes: int


class Surveyor:
    """Makes overviews of one store, in one thread at a time."""

    def __init__(
        self,
        store: Store,
        settings: Callable[[], ReceiverSettings],
        source: StockSource,
        *,
        rules_since: Callable[[], float],
        keeps: bool = False,
        clocks: Clock | None = None,
        before: Callable[[], Sequence[Alarm]] = tuple,
        expected: Expected | None = None,
    ) -> None:
        """Reads nothing before `take`.

        `rules_since`: when the policy was written, in seconds since the epoch; `keeps`: whether what is learnt is
        written, which only the daemon does; `clocks`: None: this host's; `before`: the alarms of the last overview;
        `expected`: None: as receiver.toml says.
        """
        self._store = store
        self._settings = settings
        self._source = source
        self._rules_since = rules_since
        self._keeps = keeps
        self._clocks = clocks or SystemClock()
        self._before = before
        self._expected = expected
        self._histories = Histories(store.documents, keeps=keeps)
        self._looked: dict[str, _Looked] = {}
        self._fitness: tuple[float, str | None] | None = None  # and when it was tried
        self._beside: tuple[float, _Beside] | None = None  # and until when it counts
        self._totals: dict[str, tuple[float, _Totals]] = {}  # and when they were read
        self._known_drills: dict[str, Mapping[str, Drill]] = {}  # of each sender, as last read
        self._judgements: dict[tuple[str, str], _Judgement] = {}  # by sender and dataset

    def take(self) -> Overview:
        """Return how all is now. Blocks. Raises: StoreError, OSError if the store cannot be read."""
        store, settings = self._store, self._settings()
        self._store.check_mounted()
        now = self._clocks.read()
        likely = clock.likely(store.documents, now)
        note = clock.read_note(store.documents)
        moment = Moment(now.wall, likely, note.wall if note is not None else 0.0)
        self._looked = looked = {
            sender: self._look_at(sender, settings, now, likely) for sender in self._source.senders()
        }
        beside = self._find_beside(now.boottime)
        accepted = read_accepted_times(store.documents)
        table, table_fault = self._read_table()
        enrolled = {each.name: each.enrolled for each in table if each.revoked is None}
        revoked = {each.name for each in table} - enrolled.keys()
        context = _LookContext(settings, moment, accepted, enrolled, revoked)
        senders = tuple(
            self._sender(
                *(name, looked.get(name), beside.senders.get(name, Beside())),
                self._read_totals(name, now.boottime),
                context,
            )
            for name in sorted(enrolled.keys() | looked.keys() | beside.senders.keys())
        )
        self._judgements = context.judgements
        self._store.check_mounted()  # afterwards: an empty mount point has no stream, and shows no error
        survey = total((each.standing for each in looked.values()), now=likely, every=settings.scrub_every)
        space = store.space()
        today = local_day(likely) or 0
        problems = [*table_fault, *(problem for each in looked.values() for problem in each.problems)]
        unread = {sender for sender, dataset, _what in problems if dataset is None}
        read = [each for each in senders if each.name not in unread]
        sample = sizes.Sample(today, space.total - space.free, space.total)
        known, dropped = self._note_sizes(read, unread, sample, context)
        min_free = settings.min_free.of(space.total)
        overview = Overview(
            at=now.wall,
            program=f"fullsendd {fullsend_protocol.__version__}",
            store=store.where,
            free=space.free,
            size=space.total,
            min_free=min_free,
            full_at=sizes.full_at(
                known.disk,
                now=now.wall,
                today=today,
                used=space.total - space.free,
                limit=space.total - min_free,
            ),
            senders=senders,
            scrub=_scrub(survey),
            aside_bytes=beside.aside_bytes,
            trash_bytes=beside.trash_bytes,
            copy=find_copies(store, settings.copies, moment),
        )
        newest = max((each.received or 0.0 for sender in senders for each in sender.datasets), default=0.0)
        before = self._before()
        facts = AlarmFacts(
            now=now.wall,
            likely=likely,
            clock=None if note is None else clock.objection(store.documents, now, min(newest, now.wall)),
            unfit=self._unfit(now.boottime),
            warn_at=settings.warn_at,
            warn_days=settings.warn_days,
            survey=survey,
            disk=store.disk if survey.unreadable or survey.stopped else "",
            problems=problems,
            unread_drills=context.unread_drills,
            troubles=(
                [] if settings.retention is None else find_troubles(store, None, now=likely, since=self._rules_since())
            ),
            sizes=known,
            today=today,
            accepted=accepted,
            revoked=revoked,
            dropped=dropped,
            known_until=note.known_until if note is not None else 0.0,
            set_back=[each for one in looked.values() for each in one.set_back],
            first_within={
                name: within
                for name in enrolled
                if (within := _first_within(settings.expect.of_sender(name, settings.expect_every))) is not None
            },
            in_part={
                (name, dataset): (said, within)
                for name in enrolled
                for dataset, said in beside.senders.get(name, Beside()).in_part.items()
                if (within := self._first_of(name, dataset, settings)) is not None
            },
            awaited={
                (each.sender, each.dataset)
                for each in before
                if each.sender in enrolled
                and each.dataset is not None
                and self._first_of(each.sender, each.dataset, settings) is not None
            },
            arrivals=[alarm for each in self._judgements.values() for alarm in each.alarms],
            before=before,
            begun=now.wall if self._keeps else None,
        )
        return replace(overview, alarms=find_alarms(overview, facts))

    def close(self) -> None:
        """Write what is not written yet. Blocks."""
        self._histories.write()

    # --- one sender

    def _look_at(self, sender: str, settings: ReceiverSettings, now: Reading, likely: float) -> _Looked:
        """Return what is known of a sender. If it cannot be read, that is known of it beside what was known before: the
        others are still looked at.
        """
        known, boottime = self._looked.get(sender), now.boottime
        try:
            stock = self._source.stock(sender)
            said = unchanged.last_seen(self._store, sender, max(now.wall, likely))
            version = None if stock.version is None else (stock.version, said)
            if (
                known is not None
                and version is not None
                and known.version == version
                and known.every == settings.scrub_every
                and 0 <= boottime - known.at < _AGAIN
            ):
                return known
            found = _Looked(version, boottime, settings.scrub_every, Survey(now=likely, every=settings.scrub_every))
            self._read(sender, stock.holder, said, found)
        except (StoreError, OSError) as error:
            found = known or _Looked(None, boottime, settings.scrub_every, Survey(likely, settings.scrub_every))
            problem = (sender, None, f"{sender}: what is stored of it cannot be read: {reason(error)}")
            return replace(found, version=None, problems=[problem])
        return found

    def _read(self, sender: str, holder: Holder, said: Mapping[tuple[str, str], str], found: _Looked) -> None:
        history = self._histories.read(sender)
        new: list[Summary] = []
        for part in holder.parts():
            lost = lost_spills(part)
            for dataset, group in groupby(part.streams, lambda stored: stored.summary.dataset):
                streams = list(group)
                new += [each.summary for each in streams if is_new(each.summary, history)]
                for each in streams:
                    found.standing.add(each.summary, part.checked(each))
                about, newest = _dataset(dataset, part, streams, lost=lost, said=said)
                found.datasets.append(about)
                if newest is not None and (why := _set_back(part, newest)) is not None:
                    found.set_back.append((sender, dataset, f"{sender}/{dataset}@{newest.summary.snapshot}: {why}"))
        troubled = holder.troubled()
        for dataset, problem in problem_datasets(troubled.problems, troubled.streams):
            found.problems.append((sender, dataset, str(problem)))
        found.datasets = list(_with_problems(sender, found.datasets, [name for _, name, _ in found.problems if name]))
        reports = {dataset: at for (dataset, _guid), at in said.items()}
        self._histories.fold(sender, new, reports, found.standing.now)

    # --- all senders

    def _read_table(self) -> tuple[list[Sender], list[tuple[None, None, str]]]:
        """Return the table of senders, and what is wrong with it, if anything."""
        try:
            return list(SenderTable(self._store)), []
        except StoreError as error:
            return [], [(None, None, f"no sender is admitted: {error}")]

    def _sender(
        self, name: str, known: _Looked | None, beside: Beside, totals: _Totals, context: _LookContext
    ) -> SenderOverview:
        """Return the overview of a sender. `known`: None: nothing is stored of it."""
        history = self._history(name) if known is not None else SenderHistory()
        drills = self._drills(name, context) if known is not None else {}
        datasets = tuple(
            self._judge(replace(each, drill=drills.get(each.dataset)), history.datasets.get(each.dataset), context)
            for each in (known.datasets if known is not None else ())
        )
        stored = sum(each.stored_bytes for each in datasets)
        return SenderOverview(
            name=name,
            enrolled=name in context.enrolled,
            enrolled_at=context.enrolled.get(name),
            datasets=datasets,
            stored_bytes=stored,
            used_bytes=stored + beside.used_bytes,
            quota=context.settings.quota_of(name),
            partials=beside.partials,
            partial_bytes=beside.partial_bytes,
            pruned=totals.pruned,
            pruned_bytes=totals.pruned_bytes,
            merged_bytes=totals.merged_bytes,
        )

    def _judge(self, each: DatasetOverview, packed: PackedHistory | None, context: _LookContext) -> DatasetOverview:
        """Return a dataset with its history, its age, and what is expected of it. What follows from the history is
        found anew when that has changed, and each hour.
        """
        name, moment = f"{each.sender}/{each.dataset}", context.moment
        said = (self._expected or context.settings.expected_every)(each.sender, each.dataset)
        if each.sender in context.revoked:  # a person has ended it
            said = "never"
        history = History() if packed is None else packed.unpack()
        about = replace(each, history=history)
        accepted = context.accepted.get(name, 0.0)
        cause = _Cause(packed, said, accepted, int(moment.likely // _HOUR))
        known = self._judgements.get((each.sender, each.dataset))
        if known is None or known.cause.differs(cause):
            alarms = tuple(sizes_of_arrivals(about, accepted=accepted, likely=moment.likely))
            known = _Judgement(cause, _expectation(history, said, moment.likely), alarms)
        context.judgements[each.sender, each.dataset] = known
        return replace(about, age=age_of(about, moment), expectation=known.expectation)

    def _first_of(self, sender: str, dataset: str, settings: ReceiverSettings) -> float | None:
        """Return within how many seconds more of a new dataset should come; None: nobody waits for it."""
        return _first_within([(self._expected or settings.expected_every)(sender, dataset)])

    def _history(self, sender: str) -> SenderHistory:
        """Return the history of a sender; an empty one if it cannot be read, for which `_look_at` has a problem."""
        try:
            return self._histories.read(sender)
        except OSError:
            return SenderHistory()

    def _drills(self, sender: str, context: _LookContext) -> Mapping[str, Drill]:
        """Return the last restore drill of each dataset. Raises nothing. Where they cannot be read, that is told, and
        what was known before stays known: a drill that has failed must not end with its document.
        """
        try:
            self._known_drills[sender] = read_drills(self._store, sender)
        except (StoreError, OSError) as error:
            said = f"{sender}: the results of its restore drills cannot be read: {reason(error)}"
            context.unread_drills.append((sender, said))
        return self._known_drills.get(sender, {})

    def _read_totals(self, sender: str, boottime: float) -> _Totals:
        """Return what prunes and merges of a sender have done. The documents may be large: not at each look."""
        known = self._totals.get(sender)
        if known is None or not 0 <= boottime - known[0] < _AGAIN:
            documents = self._store.documents
            pruned, merged = read_record(documents, sender), read_merges(documents, sender)
            at = None if pruned.at is None else parse_time(pruned.at)
            known = self._totals[sender] = boottime, _Totals(at, pruned.freed_ever, merged.raw_bytes_ever)
        return known[1]

    def _find_beside(self, boottime: float) -> _Beside:
        """Return what is stored beside the streams. In a large trash that takes seconds, and is done now and then."""
        if self._beside is not None and boottime < self._beside[0]:
            return self._beside[1]
        began = time.monotonic()
        found = _Beside(
            find_beside(self._store),
            sum(each.stored_bytes for each in self._store.set_aside()),
            self._store.trash_bytes(),
        )
        self._beside = boottime + (_AGAIN if time.monotonic() - began > _SLOW else 0.0), found
        return found

    def _note_sizes(
        self,
        read: Sequence[SenderOverview],
        unread: Collection[str | None],
        now: sizes.Sample,
        context: _LookContext,
    ) -> tuple[sizes.Sizes, set[tuple[str, str]]]:
        """Return the sizes of the days before; the daemon notes those of today. Of senders that cannot be read now,
        those of the last day stay. And the datasets of which prunes and merges have removed all.
        """
        known = sizes.read(self._store.documents)
        stored = {one.name: {each.dataset: each.stored_bytes for each in one.datasets} for one in read}
        stored |= {name: sizes.latest(known, name) for name in unread if name is not None}
        settled = {
            (sender, dataset)
            for sender, datasets in known.stored.items()
            for dataset, days in datasets.items()
            if sender in context.revoked or is_settled(days, context.accepted.get(f"{sender}/{dataset}"))
        }
        dropped = self._find_dropped(known, stored, settled)
        new = sizes.noted(known, sizes.Look(*now, stored, settled, dropped))
        if self._keeps and new is not known:
            try:
                sizes.write(self._store.documents, new)
            except OSError as error:  # a full disk: there is an alarm for it
                log.debug("the sizes of today cannot be written: %s", error)
                return known, dropped
            return new, dropped
        return known, dropped

    def _find_dropped(
        self, known: sizes.Sizes, stored: Mapping[str, Mapping[str, int]], settled: Collection[tuple[str, str]]
    ) -> set[tuple[str, str]]:
        """Return the datasets of which prunes and merges have removed all that is gone, such as those of the old name
        of a renamed dataset.
        """
        gone: dict[tuple[str, str], tuple[int, int]] = {}
        for sender, datasets in known.stored.items():
            for dataset, days in datasets.items():
                last = next((each for each in reversed(days) if each[1]), None)
                if last and dataset not in stored.get(sender, {}) and (sender, dataset) not in settled:
                    gone[sender, dataset] = last
        removed: Counter[tuple[str, str]] = Counter()
        for drop in read_history(self._store.documents) if gone else ():
            where = drop.file.partition("/")[0], drop.dataset
            if where in gone and (local_day(parse_time(drop.at) or 0.0) or 0) >= gone[where][0]:
                removed[where] += drop.stored_bytes
        return {where for where, (_day, size) in gone.items() if removed[where] >= size}

    def _unfit(self, boottime: float) -> str | None:
        """Return why nothing can be written, or no event, and what follows; None: all can be."""
        if self._store.is_read_only():
            return "the store's disk is mounted read-only: remount it; pushes are refused"
        if self._fitness is None or not 0 <= boottime - self._fitness[0] < _AGAIN or self._fitness[1] is not None:
            why, so = None, "pushes are refused"
            try:
                self._store.check_fitness()
                # That tries names alone. A quota of the file system may leave room for these, and for no byte.
                so = "no event can be written, so no hook is run"
                self._store.events.check_writable()
            except StoreError as error:
                why = f"{error}; {so}"
            except OSError as error:
                why = f"{disk_error(error)}; {so}"
            self._fitness = boottime, why
        return self._fitness[1]


class DaemonSource:
    """What a daemon has in memory. See `StockSource`."""

    def __init__(self, catalogues: Catalogues) -> None:
        """Reads nothing yet."""
        self._catalogues = catalogues

    def senders(self) -> Iterable[str]:
        """Return the senders. See `StockSource.senders`."""
        return self._catalogues.senders()

    def stock(self, sender: str) -> Stock:
        """Return what is stored of a sender. See `StockSource.stock`."""
        holdings = self._catalogues.current(sender)
        shelves, problems = tuple(holdings.shelves()), tuple(map(str, holdings.problems))
        return Stock(holdings, _Version(shelves, problems, self._catalogues.checks_version(sender)))


def take_overview(
    store: Store,
    settings: ReceiverSettings,
    catalogue: Catalogue,
    *,
    rules_since: float,
    clocks: Clock | None = None,
    before: Sequence[Alarm] = (),
    expected: Expected | None = None,
) -> Overview:
    """Return the overview for a command, which writes nothing. `catalogue`: of all senders; the rest: as in `Surveyor`.
    Blocks. Raises: StoreError, OSError.
    """
    surveyor = Surveyor(
        store,
        lambda: settings,
        _CommandSource(store, catalogue),
        rules_since=lambda: rules_since,
        clocks=clocks,
        before=lambda: before,
        expected=expected,
    )
    return surveyor.take()


class _Cause(NamedTuple):
    """What a judgement follows from. `hour`: of the moment, since the epoch."""

    packed: PackedHistory | None
    said: float | Literal["learn", "never"]
    accepted: float
    hour: int

    def differs(self, other: _Cause) -> bool:
        """Whether another judgement may follow. A history that has changed is another object."""
        return self.packed is not other.packed or self[1:] != other[1:]


class _Judgement(NamedTuple):
    """What follows from the history of a dataset. `alarms`: of its arrivals."""

    cause: _Cause
    expectation: Expectation
    alarms: tuple[Alarm, ...]


@dataclass(frozen=True, slots=True)
class _LookContext:
    """What is the same for all datasets in one look. `judgements`, `unread_drills`: those of this look so far,
    see `AlarmFacts`.
    """

    settings: ReceiverSettings
    moment: Moment
    accepted: Mapping[str, float]
    enrolled: Mapping[str, float]  # and since when
    revoked: Collection[str]
    judgements: dict[tuple[str, str], _Judgement] = field(default_factory=dict)
    unread_drills: list[tuple[str, str]] = field(default_factory=list)


class _Beside(NamedTuple):
    senders: dict[str, Beside]
    aside_bytes: int
    trash_bytes: int


@dataclass(frozen=True, slots=True)
class _CommandSource:
    """What a command has read. See `StockSource`."""

    store: Store
    catalogue: Catalogue

    def senders(self) -> Iterable[str]:
        return self.store.senders()

    def stock(self, sender: str) -> Stock:
        return Stock(_SenderPart(self.catalogue.of(sender)))


@dataclass(frozen=True, slots=True)
class _SenderPart:
    """One sender's part of a catalogue."""

    catalogue: Catalogue

    def parts(self) -> Iterator[Catalogue]:
        yield self.catalogue

    def troubled(self) -> Catalogue:
        return self.catalogue


@dataclass(frozen=True, slots=True, eq=False)
class _Version:
    """What shows that nothing has changed: shelves never change, so the same objects have the same streams."""

    shelves: tuple[object, ...]
    problems: tuple[str, ...]
    checks: object

    def __eq__(self, other: object) -> bool:  # type: ignore[explicit-override]
        return (
            isinstance(other, _Version)
            and len(self.shelves) == len(other.shelves)
            and all(one is two for one, two in zip(self.shelves, other.shelves, strict=True))
            and (self.problems, self.checks) == (other.problems, other.checks)
        )

    __hash__ = None  # type: ignore[assignment]


def _dataset(
    dataset: str,
    part: Catalogue,
    streams: Sequence[StoredStream],
    *,
    lost: Mapping[str, int],
    said: Mapping[tuple[str, str], str],
) -> tuple[DatasetOverview, StoredStream | None]:
    """Return what is stored of a dataset, and the stream with its newest state, None: it has none."""
    by_path = {each.summary.path: each for each in streams}
    newest, at = newest_state([each.summary for each in streams if each.summary.path in lost], said)
    stored = None if newest is None else by_path[newest.path]
    chain = [] if stored is None else [each.summary for each in part.chain(stored)]
    checks = {each.summary.path: part.checked(each) for each in streams}
    times = [
        parse_time(check.at if (check := checks[each.summary.path]) is not None and check.at else each.summary.received)
        for each in streams
    ]
    about = DatasetOverview(
        sender=streams[0].summary.sender,
        dataset=dataset,
        snapshot=newest.snapshot if newest else None,
        guid=newest.guid if newest else None,
        created=parse_time(newest.created) if newest else None,
        received=parse_time(newest.received) if newest else None,
        unchanged=None if at is None else parse_time(at),
        streams=len(streams),
        fulls=sum(each.summary.kind == "full" for each in streams),
        raw_bytes=sum(each.summary.raw_bytes for each in streams),
        stored_bytes=sum(each.summary.stored_bytes for each in streams),
        chain_streams=len(chain),
        chain_raw_bytes=sum(each.raw_bytes for each in chain),
        chain_stored_bytes=sum(each.stored_bytes for each in chain),
        broken=sum(path not in lost for path in by_path),
        damaged=sum(not part.whole(each) for each in streams),
        lost_spill_count=lost[newest.path] if newest else 0,
        oldest_check=min((each for each in times if each is not None), default=None),
        unchecked=sum(check is None or not check.at for check in checks.values()),
    )
    return about, stored


def _with_problems(sender: str, found: Iterable[DatasetOverview], unlisted: Sequence[str]) -> Iterator[DatasetOverview]:
    """Yield the datasets, by name, with what cannot be listed among their broken streams. `unlisted`: the dataset of
    each such object; of some nothing else is stored.
    """
    known = {each.dataset: each for each in found}
    for name in sorted({*known, *unlisted}):
        each = known.get(name) or DatasetOverview(sender=sender, dataset=name)
        count = unlisted.count(name)
        yield replace(each, streams=each.streams + count, broken=each.broken + count)


def _set_back(part: Catalogue, newest: StoredStream) -> str | None:
    """Return what shows that the clock of a host was set back; None: nothing does."""
    about = newest.summary
    taken = parse_time(about.created)
    for base in part.bases(newest):
        before = parse_time(base.summary.created)
        if taken is not None and before is not None and before - taken > _SET_BACK:
            return (
                f"was taken {about.created}, and builds on @{base.summary.snapshot}, taken {base.summary.created}: the"
                " clock of its host was set back, or was ahead"
            )
    return None


def _first_within(said: Iterable[float | Literal["learn", "never"]]) -> float | None:
    """Return within how many seconds something of a new sender should come; None: nobody waits for it. `said`: how
    often its datasets should come.
    """
    return max((_FIRST_WITHIN if each == "learn" else each for each in said if each != "never"), default=None)


def _expectation(history: History, said: float | Literal["learn", "never"], likely: float) -> Expectation:
    if said == "never":
        return Expectation(every=None, source="configured")
    if said != "learn":
        return Expectation(every=said, source="configured")
    today = local_day(likely + AHEAD) or 0
    times = [each.at for each in history.receptions if each.at <= likely + AHEAD]
    days = [each.day for each in history.nights if each.day <= today]
    every = learn(times, days)
    if every is None:
        # Something is stored: it came once, at least, also if only at times that lie in the future, or if its history
        # is forgotten.
        every = provisional(times or [likely], days)
        return Expectation(every=every, source="unknown")
    return Expectation(every=every, source="learnt")


def _scrub(survey: Survey) -> ScrubOverview:
    return ScrubOverview(
        every=survey.every,
        streams=survey.streams,
        current=survey.current,
        checked=survey.checked,
        oldest=survey.oldest,
        due_streams=survey.due_streams,
        due_bytes=survey.due_bytes,
        damaged=survey.damaged,
        unreadable=survey.unreadable,
        behind=survey.behind,
        stopped=bool(survey.every) and survey.stopped,
    )
