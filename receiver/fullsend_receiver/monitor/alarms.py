"""What a person should look at, made of facts. Pure: no I/O, no clock.

`fullsendd check`, the log, the metrics, the report and the hooks all show these, so none of them says what another
denies. A clock that was wrong neither hides that a dataset is late nor makes all of them late (`age_of`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from fullsend_protocol.format.lost_spills import restoring_loses
from fullsend_protocol.shared.units import format_duration, format_size, format_time, plural
from fullsend_receiver.arrival.bounds import Fill
from fullsend_receiver.arrival.usage import InPart
from fullsend_receiver.maintenance.prune_records import Trouble
from fullsend_receiver.maintenance.schedule import Survey
from fullsend_receiver.maintenance.suspicion import SMALL, ArrivalSize, usual_size
from fullsend_receiver.monitor.copy_text import last_run
from fullsend_receiver.monitor.history import AHEAD, local_day
from fullsend_receiver.monitor.overview import (
    Alarm,
    AlarmCode,
    CopyOverview,
    DatasetOverview,
    Level,
    Overview,
    Reception,
    SenderOverview,
)
from fullsend_receiver.monitor.sizes import Sizes

_DAY: Final = 86400.0
#: An order of magnitude.
_TIMES: Final = 10
#: Days for which there is an alarm about a size: a person has a week to see it, and to accept it.
_SIZE_DAYS: Final = 7
#: A dataset whose interval is only learnt is critical when it is late by so many of them: it may have been retired.
_CRITICAL_AFTER: Final = 3
#: Seconds within which a new sender's first stream is whole: that of some ten TB takes weeks. Without a limit one that
#: is cut off each night would look like one that arrives.
_WHOLE_WITHIN: Final = 30 * _DAY
#: Seconds by which a sender's clock may be ahead.
_CLOCK_ERROR: Final = _DAY
#: What there is a warning for, warns until so much less is used: as in store_watch.py.
_SLACK: Final = 0.01
#: A forecast ends only when it is farther away by this share: it moves a little with each look.
_FORECAST_SLACK: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmFacts:
    """What alarms are made of, beside the overview.

    `now`: what the clock says, and `likely`: what it should say (maintenance.clock); `clock`: why it is not trusted,
    None: it is; `unfit`: why nothing, or no event, can be written, and what follows, None: all can be; `warn_at`,
    `warn_days`: see receiver.toml; `survey`: of all checks; `disk`: its name; `problems`: by sender and dataset, None:
    of all, what cannot be read; `troubles`: of prunes; `sizes`: of the days before; `today`: as in `Night.day`;
    `unread_drills`: by sender, why the results of its drills cannot be read;
    `accepted`: when datasets were accepted, by SENDER/DATASET; `revoked`: senders that a person has ended; `dropped`:
    by sender and dataset, of what prunes and merges have removed all; `known_until`: receptions until then may lie in
    the future; `set_back`: by sender and dataset, what shows that the clock of their host was set back; `arrivals`:
    what `sizes_of_arrivals` has found, None: to be found in the histories; `first_within`: by sender, seconds within
    which its first stream should come, missing: no alarm; `in_part`: by sender and dataset, what has come of a dataset
    of which nothing is stored, and seconds within which more should come; `awaited`: others of which something should
    be stored; `before`: the alarms of the last look; `begun`: when those that are not among them began, None: unknown.
    """

    now: float
    likely: float
    clock: str | None = None
    unfit: str | None = None
    warn_at: float = 0.85
    warn_days: float = 14 * _DAY
    survey: Survey
    disk: str = ""
    problems: Sequence[tuple[str | None, str | None, str]] = ()
    unread_drills: Sequence[tuple[str, str]] = ()
    troubles: Sequence[Trouble] = ()
    sizes: Sizes = field(default_factory=Sizes)
    today: int = 0
    accepted: Mapping[str, float] = field(default_factory=dict)
    revoked: Collection[str] = ()
    dropped: Collection[tuple[str, str]] = ()
    known_until: float = 0.0
    set_back: Sequence[tuple[str, str, str]] = ()
    arrivals: Sequence[Alarm] | None = None
    first_within: Mapping[str, float] = field(default_factory=dict)
    in_part: Mapping[tuple[str, str], tuple[InPart, float]] = field(default_factory=dict)
    awaited: Collection[tuple[str, str]] = ()
    before: Sequence[Alarm] = ()
    begun: float | None = None


@dataclass(frozen=True, slots=True)
class Moment:
    """This moment, by a clock that may be wrong. `now`: what it says; `likely`: what it should say, the same if it is
    trusted (maintenance.clock); `noted`: what it said when it was last trusted.
    """

    now: float
    likely: float
    noted: float = 0.0

    def age(self, at: float) -> float | None:
        """Return for how many seconds something is past; None: its time lies in the future, and tells no age.

        After a jump the receptions have times of the new clock, and those before it of the old one.
        """
        is_new = at > self.noted + AHEAD if self.now >= self.likely else at <= self.now + AHEAD
        age = (self.now if is_new else self.likely) - at
        return max(0.0, age) if age >= -AHEAD else None


def age_of(dataset: DatasetOverview, moment: Moment) -> float | None:
    """Return for how many seconds a dataset has not come; None: unknown. A clock that jumps makes nothing late, and
    nothing young that comes no more.
    """
    seen = [at for at in (dataset.received, dataset.unchanged) if at is not None]
    ages = [age for at in seen if (age := moment.age(at)) is not None]
    if ages or not seen:
        return min(ages, default=None)
    past = [each.at for each in dataset.history.receptions if each.at <= moment.likely + AHEAD]
    return max(0.0, moment.likely - max(past)) if past else None


def find_alarms(overview: Overview, facts: AlarmFacts) -> tuple[Alarm, ...]:
    """Return the alarms, the critical ones first. Of the same code, sender and dataset there is one. An alarm that has
    lasted keeps its `since`.
    """
    found: dict[tuple[str, str, str], Alarm] = {}
    for each in _all(overview, facts):
        other = found.get(each.key)
        found[each.key] = each if other is None else _joined(other, each)
    since = {each.key: each.since for each in facts.before}
    lasting = [replace(each, since=since.get(key) or each.since or facts.begun) for key, each in found.items()]
    return tuple(sorted(lasting, key=lambda each: (each.level != "critical", each.code, each.key)))


def _all(overview: Overview, facts: AlarmFacts) -> Iterator[Alarm]:
    yield from _clock(overview, facts)
    yield from _room(overview, facts)
    yield from _scrub(overview, facts)
    for name, where, text in facts.problems:
        yield _critical("unread", text, name, where, count=1)
    for name, text in facts.unread_drills:
        yield _critical("unread", text, name, count=1)
    for trouble in facts.troubles:
        yield _critical("prune", trouble.text, trouble.sender, trouble.dataset, count=1)
    if overview.copy is not None:
        yield from _copy(overview.copy)
    for sender in overview.senders:
        yield from _never(sender, facts)
        yield from _never_whole(sender, facts)
        yield from _late(sender)
        for dataset in sender.datasets:
            yield from _damage(dataset)
            yield from _drill(dataset)
            if facts.arrivals is None:
                accepted = facts.accepted.get(f"{dataset.sender}/{dataset.dataset}", 0.0)
                yield from sizes_of_arrivals(dataset, accepted=accepted, likely=facts.likely)
    yield from facts.arrivals or ()
    yield from _sizes_of_stored(overview, facts)


# --- late, gone


def _never(sender: SenderOverview, facts: AlarmFacts) -> Iterator[Alarm]:
    """Yield an alarm for a sender that was enrolled, and has never sent anything; or nothing whole for long."""
    within = facts.first_within.get(sender.name)
    if sender.enrolled_at is None or sender.datasets or within is None:
        return
    if any(name == sender.name and where is None for name, where, _text in facts.problems):
        return  # nobody can tell
    what = "nothing has ever come"
    if sender.partials:
        within = max(within, _WHOLE_WITHIN)
        has = "has" if sender.partials == 1 else "have"
        what = f"{plural(sender.partials, 'stream')} {has} come in part, and none whole"
    if facts.likely - sender.enrolled_at > within:
        text = f"{sender.name}: is enrolled since {format_time(sender.enrolled_at)}, and {what}: run"
        yield Alarm(code="late", level="warning", text=f"{text} `fullsend check` there", sender=sender.name)


def _never_whole(sender: SenderOverview, facts: AlarmFacts) -> Iterator[Alarm]:
    """Yield an alarm for each dataset of which only a part has come, for long; or no more of it. Others of its sender
    are stored: without any, `_never` tells.
    """
    stored = {each.dataset for each in sender.datasets}
    for (name, dataset), (said, within) in sorted(facts.in_part.items()) if stored else ():
        if name != sender.name or dataset in stored:
            continue
        silent, since = facts.likely - said.last, facts.likely - said.begun
        if silent > within or since > max(within, _WHOLE_WITHIN):
            text = (
                f"{name}/{dataset}: nothing of it is stored; a part has come since {format_time(said.begun)}, the last"
                f" of it at {format_time(said.last)}: does `fullsend push` fail there? If nobody wants it:"
                f' [expect."{name}/{dataset}"] every = "never"'
            )
            yield Alarm(code="late", level="warning", text=text, sender=name, dataset=dataset)
    for each in facts.before:  # the part is deleted in the end, and nothing is better then
        where = each.sender or "", each.dataset or ""
        is_lost = where in facts.awaited and where not in facts.in_part and not facts.sizes.of(*where)
        if each.code == "late" and each.sender == sender.name and each.dataset not in stored and is_lost:
            yield each


def _late(sender: SenderOverview) -> Iterator[Alarm]:
    """Yield an alarm for each dataset that is late; one for all of them if nothing at all comes of their sender."""
    late = [each for each in sender.datasets if each.is_late]
    if not late:
        return
    youngest = min(sender.datasets, key=lambda each: math.inf if each.age is None else each.age)
    if youngest.is_late and len(sender.datasets) > 1:
        level: Level = "critical" if any(_is_critical(each) for each in late) else "warning"
        text = (
            f"{sender.name}: nothing of it has come for {_age(youngest)}, and {len(late)} of"
            f" {plural(len(sender.datasets), 'dataset')} should have: does its host run, and its timer for"
            " `fullsend push`?"
        )
        yield Alarm(code="late", level=level, text=text, sender=sender.name)
        return
    for each in late:
        gone = any(other.age is not None and _came_since_due(other, each) for other in sender.datasets)
        if gone:
            remedy = (
                "others of its host come: was it destroyed, renamed or left out? If it is retired:"
                f' [expect."{each.sender}/{each.dataset}"] every = "never"'
            )
        else:
            remedy = "does its host run, and its timer for `fullsend push`?"
        yield Alarm(
            code="gone" if gone else "late",
            level="critical" if _is_critical(each) else "warning",
            text=f"{each.sender}/{each.dataset}: {_last(each)}; {_expected(each)}: {remedy}",
            sender=each.sender,
            dataset=each.dataset,
        )


def _came_since_due(other: DatasetOverview, late: DatasetOverview) -> bool:
    """Whether another dataset has come since a late one should have: not in the same run as it did last."""
    every = late.expectation.every or 0.0
    return (late.age or 0.0) - (other.age or 0.0) > every / 2 and not other.is_late


def _is_critical(each: DatasetOverview) -> bool:
    if each.expectation.source == "configured":
        return True
    return (each.age or 0.0) > _CRITICAL_AFTER * (each.expectation.every or 0.0)


def _age(each: DatasetOverview) -> str:
    return format_duration(each.age or 0.0)


def _last(each: DatasetOverview) -> str:
    return "nobody can tell when it last came" if each.age is None else f"last came {_age(each)} ago"


def _expected(each: DatasetOverview) -> str:
    every = format_duration(each.expectation.every or 0.0)
    if each.expectation.source == "configured":
        return f"it should come every {every}"
    if each.expectation.source == "unknown":
        return "how often it comes is not known yet (see expect-every)"
    return f"it came every {every} so far (learnt)"


# --- damage


def _damage(each: DatasetOverview) -> Iterator[Alarm]:
    name = f"{each.sender}/{each.dataset}"
    if each.damaged or each.broken:
        what = [f"{plural(each.damaged, 'stream')} damaged"] if each.damaged else []
        what += [f"{each.broken} of {plural(each.streams, 'stream')} cannot be restored"] if each.broken else []
        state = "" if each.guid is not None else "; nothing of it can be restored"
        text = f"{name}: {', '.join(what)}{state}: see `fullsendd list {name}`; the next push of it repairs what it can"
        yield _critical("damage", text, each.sender, each.dataset, count=each.damaged + each.broken)
    elif each.lost_spill_count:
        loss = restoring_loses(each.lost_spill_count)
        text = f"{name}: {loss}: push a full without -e and -w"
        yield Alarm(code="damage", level="warning", text=text, sender=each.sender, dataset=each.dataset)


def _drill(each: DatasetOverview) -> Iterator[Alarm]:
    drill = each.drill
    if drill is not None and not drill.ok:
        text = f"{each.sender}/{each.dataset}: the restore drill of {format_time(drill.at)} has failed: {drill.text}"
        yield Alarm(code="drill", level="critical", text=text, sender=each.sender, dataset=each.dataset, since=drill.at)


def _scrub(overview: Overview, facts: AlarmFacts) -> Iterator[Alarm]:
    survey, disk = facts.survey, f" (disk {facts.disk})" if facts.disk else ""
    for file, why in survey.named_unreadable:
        again = "it is tried again later, and until then nothing of its dataset is dropped"
        text = f"{file}: could not be checked: {why}{disk}; {again}"
        yield _critical("unread", text, file.partition("/")[0], count=1)
    named = Counter(file.partition("/")[0] for file, _why in survey.named_unreadable)
    for sender, count in sorted((survey.unreadable_of - named).items()):
        text = f"{plural(count, 'stream')} of {sender}, not named here, could not be checked{disk}"
        yield _critical("unread", f"{text}: see the log of the daemon", sender, count=count)
    if overview.scrub.stopped:
        yield _critical(
            "scrub-stopped",
            f"the scrub has stopped: {survey.unasked} streams are damaged, such as {survey.named_damaged[0]}: check the"
            f" memory and the cables of this host and its disk{disk}, then run `fullsendd verify`",
        )
    if overview.scrub.behind:
        oldest = format_time(survey.oldest or 0.0)
        text = f"the scrub is behind: the oldest check, or reception, was at {oldest}: raise scrub-rate, or scrub-every"
        yield Alarm(code="scrub-behind", level="warning", text=text)


# --- copies in another store


def _copy(copy: CopyOverview) -> Iterator[Alarm]:
    """Yield an alarm if no copy was complete for long, or the last run was not: the first is critical."""
    if copy.fault is not None:
        yield _critical("copy", f"nothing is copied: {copy.fault}")
    elif copy.is_late:
        if copy.complete is not None:
            silent = f"no copy in {copy.to} since {format_time(copy.complete)}"
        else:
            silent = f"no copy in {copy.to} was ever complete, and it is wanted since {format_time(copy.since or 0.0)}"
        if copy.ok is None and not copy.runs:
            why = "does the daemon run, and when does it copy (`at` and `every` in [copy])?"
        elif copy.runs:
            why = f"a run that began at {format_time(copy.began or 0.0)} has not ended"
        else:
            why = last_run(copy)
        yield _critical("copy", f"{silent}: {why}")
    elif copy.ok is False:
        yield Alarm(code="copy", level="warning", text=f"copy in {copy.to}: {last_run(copy)}; it is tried again")


# --- room


def _room(overview: Overview, facts: AlarmFacts) -> Iterator[Alarm]:
    if facts.unfit is not None:
        yield _critical("refusing", facts.unfit)
    disk = Fill("the store's disk", overview.size - overview.free, overview.size, overview.min_free)
    yield from _fill(disk, None, facts)
    for sender in overview.senders:
        if sender.quota is not None:
            yield from _fill(Fill(f"the quota of {sender.name}", sender.used_bytes, sender.quota), sender.name, facts)
    at = overview.full_at
    if at is None or disk.refuses:
        return
    lasts = any(each.key == ("low-space", "", "") for each in facts.before)
    if at - overview.at < facts.warn_days * (1 + lasts * _FORECAST_SLACK):
        left = format_size(max(0, disk.free - disk.kept))
        text = f"the store's disk will be full at about {format_time(at)} at the present rate; {left} are left"
        yield Alarm(code="low-space", level="warning", text=text)


def _fill(fill: Fill, sender: str | None, facts: AlarmFacts) -> Iterator[Alarm]:
    lasts = any(each.key == ("low-space", sender or "", "") for each in facts.before)
    if fill.refuses:
        kept = f", {format_size(fill.kept)} must stay free" if fill.kept else ""
        yield _critical("refusing", f"{fill}{kept}: pushes are refused: free space", sender)
    elif fill.is_above(facts.warn_at - lasts * _SLACK):
        text = f"{fill}: free space soon, or pushes will be refused"
        yield Alarm(code="low-space", level="warning", text=text, sender=sender)


# --- sizes


def sizes_of_arrivals(each: DatasetOverview, *, accepted: float, likely: float) -> Iterator[Alarm]:
    """Yield an alarm for an increment, or a full, of another order of magnitude than those before it. `accepted`: when
    the dataset was accepted, 0: never; `likely`: see `AlarmFacts`.
    """
    name = f"{each.sender}/{each.dataset}"
    full = each.history.full_before
    before = [] if full is None else [ArrivalSize("full", "", full, 0)]
    found: dict[str, Alarm] = {}
    for new in each.history.receptions:
        if new.kind == "unchanged" or not new.raw_bytes:
            continue
        about = ArrivalSize(new.kind, "", new.raw_bytes, new.stored_bytes)
        if accepted < new.at and likely - _SIZE_DAYS * _DAY < new.at <= likely + AHEAD:
            found |= {alarm.code: alarm for alarm in _size(name, each, about, before, new)}
        before.append(about)
    yield from found.values()


def _size(
    name: str, each: DatasetOverview, about: ArrivalSize, before: Sequence[ArrivalSize], new: Reception
) -> Iterator[Alarm]:
    what = f"{name}@{new.snapshot}, received {format_time(new.at)}, has {format_size(new.raw_bytes)}"
    remedy = f"was its host taken over, or a wrong dataset sent? If it is right: `fullsendd accept {name}`"
    usual = usual_size(before, about) if new.kind == "incremental" else None
    if usual is not None and new.raw_bytes > _TIMES * usual:
        text = f"{what}, and such increments had {format_size(usual)}: {remedy}"
        yield Alarm(code="grown", level="warning", text=text, sender=each.sender, dataset=each.dataset, since=new.at)
    fulls = [one.raw_bytes for one in before if one.kind == "full"]
    if new.kind == "full" and fulls and fulls[-1] >= SMALL and new.raw_bytes * _TIMES < fulls[-1]:
        text = f"{what}, and the full before it had {format_size(fulls[-1])}: {remedy}"
        yield Alarm(code="shrunk", level="critical", text=text, sender=each.sender, dataset=each.dataset, since=new.at)


def _sizes_of_stored(overview: Overview, facts: AlarmFacts) -> Iterator[Alarm]:
    """Yield an alarm for each dataset of which less, or more, is stored than in the days before, by an order of
    magnitude. One of which nothing is stored any more is not in the overview, so nothing else tells of it: that lasts.
    """
    stored = {(each.sender, each.dataset): each.stored_bytes for one in overview.senders for each in one.datasets}
    unread = {sender for sender, dataset, _what in facts.problems if dataset is None}
    sizes = facts.sizes.stored.items()
    names = {(sender, dataset) for sender, datasets in sizes if sender not in unread for dataset in datasets}
    for sender, dataset in sorted(names - {*facts.dropped}):
        name = f"{sender}/{dataset}"
        known, since = facts.sizes.of(sender, dataset), facts.today - _SIZE_DAYS
        if name in facts.accepted:
            since = max(since, _settled_until(facts.accepted[name]) + 1)
        if (sender, dataset) not in stored and sender not in facts.revoked:
            last = next((each for each in reversed(known) if each[1]), None)
            if last is not None and not is_settled(known, facts.accepted.get(name)):
                ago = plural(facts.today - last[0], "day")
                text = (
                    f"{name}: nothing of it is stored any more, and {format_size(last[1])} were {ago} ago: what has"
                    f" removed it? If it is right: `fullsendd accept {name}`"
                )
                yield _critical("shrunk", text, sender, dataset)
            continue
        days = [(day, size) for day, size in known if since <= day <= facts.today]
        if not days:
            continue
        most, first, now = max(size for _day, size in days), days[0][1], stored.get((sender, dataset), 0)
        if most >= SMALL and now * _TIMES < most:
            text = (
                f"{name}: {format_size(now)} are stored, and {format_size(most)} were within a week: what has removed"
                f" it? If it is right: `fullsendd accept {name}`"
            )
            yield _critical("shrunk", text, sender, dataset)
        elif first >= SMALL and now > first * _TIMES:
            text = (
                f"{name}: {format_size(now)} are stored, and {format_size(first)} were within a week: was its host"
                f" taken over, or a wrong dataset sent? If it is right: `fullsendd accept {name}`"
            )
            yield Alarm(code="grown", level="warning", text=text, sender=sender, dataset=dataset)


def is_settled(known: Sequence[tuple[int, int]], accepted: float | None) -> bool:
    """Whether a person has accepted a dataset after all that is noted of its sizes. `accepted`: None: never."""
    until = None if accepted is None else _settled_until(accepted)
    return until is not None and all(day <= until for day, size in known if size)


def _settled_until(accepted: float) -> int:
    """Return the last day, as in `Night.day`, whose size says nothing any more: of the day on which a dataset was
    accepted the first look counts, which may have been before what was accepted.
    """
    return local_day(accepted) or 0


# --- clocks


def _clock(overview: Overview, facts: AlarmFacts) -> Iterator[Alarm]:
    if facts.clock is not None:
        yield _critical("clock", facts.clock)
    for name, dataset, text in facts.set_back:
        yield Alarm(code="clock", level="warning", text=text, sender=name, dataset=dataset)
    shown = format_time(facts.now)
    for sender in overview.senders:
        for each in sender.datasets:
            name = f"{each.sender}/{each.dataset}"
            times = [at for at in (each.received, each.unchanged) if at is not None]
            ahead = max((at for at in times if at > max(facts.now + AHEAD, facts.known_until)), default=None)
            if ahead is not None:
                yield Alarm(
                    code="clock",
                    level="warning",
                    text=(
                        f"{name}: came at {format_time(ahead)}, and the clock says {shown}: this host's clock was wrong"
                        " then, or is now; that time tells no age"
                    ),
                    sender=each.sender,
                    dataset=each.dataset,
                )
            elif each.created is not None and each.created > (each.received or 0.0) + _CLOCK_ERROR:
                yield Alarm(
                    code="clock",
                    level="warning",
                    text=(
                        f"{name}@{each.snapshot}: was taken {format_time(each.created)}, and came"
                        f" {format_time(each.received or 0.0)}: the clock of its host is ahead, or this one was behind"
                    ),
                    sender=each.sender,
                    dataset=each.dataset,
                )


# --- shared


def _critical(
    code: AlarmCode, text: str, sender: str | None = None, dataset: str | None = None, *, count: int = 0
) -> Alarm:
    return Alarm(code=code, level="critical", text=text, sender=sender, dataset=dataset, count=count)


def _joined(one: Alarm, other: Alarm) -> Alarm:
    """Return one alarm for two of the same key."""
    level: Level = "critical" if "critical" in {one.level, other.level} else "warning"
    times = [each.since for each in (one, other) if each.since is not None]
    text, count = f"{one.text}; {other.text}", one.count + other.count
    return replace(one, level=level, text=text, since=min(times, default=None), count=count)
