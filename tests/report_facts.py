"""Facts for the report, made by hand: many shapes of datasets, always the same."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Final

from fullsend_report.facts import (
    AlarmLevel,
    DatasetFacts,
    DayFacts,
    Fate,
    HostFacts,
    ReportedAlarm,
    ReportFacts,
    RestoreSpeed,
    RoomFacts,
    StreamFacts,
)

DAY: Final = 86400.0
NOW: Final = datetime(2026, 11, 28, 9, 0, tzinfo=UTC).timestamp()
TODAY: Final = date(2026, 11, 28).toordinal()
_GIB: Final = 1 << 30
_MIB: Final = 1 << 20


def at(day: int, hour: float = 2.0) -> float:
    """Return a time on a day before today."""
    return NOW - 9 * 3600 - day * DAY + hour * 3600


def days(
    came: Iterable[int], unchanged: Iterable[int] = (), *, seed: int = 1, base: int = 40 * _MIB
) -> tuple[DayFacts, ...]:
    """Return days so many days ago on which a stream came, or a report."""
    rng = random.Random(seed)
    quiet = set(unchanged)
    found = []
    for ago in sorted({*came, *quiet}, reverse=True):
        if ago in quiet:
            found.append(DayFacts(day=TODAY - ago, unchanged=1))
        else:
            stored = int(base * rng.lognormvariate(0, 0.8))
            found.append(
                DayFacts(
                    day=TODAY - ago, received=1, stored_bytes=stored, raw_bytes=int(stored * rng.uniform(1.3, 2.6))
                )
            )
    return tuple(found)


def stream(number: int, ago: int, *, base: int | None = None, **changed: object) -> StreamFacts:
    """Return a stream that arrived so many days ago. `base`: the number of its base; None: it is a full."""
    plain = StreamFacts(
        snapshot=f"auto-{date.fromordinal(TODAY - ago):%Y-%m-%d}",
        guid=str(1000 + number),
        base_guid=None if base is None else str(1000 + base),
        kind="full" if base is None else "incremental",
        received=at(ago),
        raw_bytes=80 * _GIB if base is None else 90 * _MIB,
        stored_bytes=41 * _GIB if base is None else 40 * _MIB,
    )
    return replace(plain, **changed)  # type: ignore[arg-type]  # the caller names fields


def chain_of(
    ages: Iterable[int], *, fates: dict[int, Fate] | None = None, merged: Iterable[int] = ()
) -> tuple[StreamFacts, ...]:
    """Return a full and increments on it, one for each age in days, the oldest first. `fates`, `merged`: by place."""
    is_merged = set(merged)
    return tuple(
        stream(
            at_, ago, base=None if at_ == 0 else at_ - 1, fate=(fates or {}).get(at_, "stay"), merged=at_ in is_merged
        )
        for at_, ago in enumerate(sorted(ages, reverse=True))
    )


def dataset(name: str, streams: tuple[StreamFacts, ...] = (), **changed: object) -> DatasetFacts:
    """Return a dataset whose figures fit its streams."""
    newest = streams[-1] if streams else None
    received = None if newest is None else newest.received
    plain = DatasetFacts(
        name=name,
        snapshot=None if newest is None else newest.snapshot,
        created=None if received is None else received - 300,
        received=received,
        seen=received,
        age=None if received is None else NOW - received,
        streams=streams,
        recorded_since=at(400),
        every=DAY,
        source="configured",
        expected="set in receiver.toml",
        stream_count=len(streams),
        fulls=sum(each.kind == "full" for each in streams),
        raw_bytes=sum(each.raw_bytes for each in streams),
        stored_bytes=sum(each.stored_bytes for each in streams),
        chain_streams=len(streams),
        chain_raw_bytes=sum(each.raw_bytes for each in streams),
        chain_stored_bytes=sum(each.stored_bytes for each in streams),
        broken=sum(not each.restorable for each in streams),
        damaged=sum(each.damaged for each in streams),
        oldest_check=at(21),
        unchecked=2 if streams else 0,
    )
    return replace(plain, **changed)  # type: ignore[arg-type]  # the caller names fields


def home() -> DatasetFacts:
    """Nightly, unchanged at weekends, merged, and about to be merged again."""
    weekend = [ago for ago in range(1, 100) if date.fromordinal(TODAY - ago).weekday() == 6]
    came = [ago for ago in range(100) if ago not in weekend]
    kept = [
        340,
        300,
        270,
        240,
        210,
        180,
        150,
        120,
        90,
        60,
        53,
        46,
        39,
        32,
        25,
        18,
        *(ago for ago in range(12) if ago not in weekend),
    ]
    return dataset(
        "tank/home",
        chain_of(kept, merged=[0, 3, 5, 9, 11], fates={14: "merge", 15: "merge", 16: "merge"}),
        days=days(came, weekend),
        source="learnt",
        expected="learnt from its rhythm",
        speed=RestoreSpeed(rate=141e6, source="its drill of 2026-11-22"),
        drill="2026-11-22 04:10: @auto-2026-11-20 was equal, in 9 min",
        prune="3 streams become one",
    )


def vm() -> DatasetFacts:
    """Nightly; one night is missing, one stream is damaged, and what builds on it cannot be restored."""
    streams = list(chain_of(range(30)))
    streams[20] = replace(streams[20], damaged=True, restorable=False)
    streams[21:] = [replace(each, restorable=False) for each in streams[21:]]
    newest = streams[19]
    return dataset(
        "tank/vm/mail",
        tuple(streams),
        days=days([ago for ago in range(85) if ago not in {17, 40, 41}], seed=3, base=900 * _MIB),
        level="critical",
        snapshot=newest.snapshot,
        created=newest.received,
        received=newest.received,
        chain_streams=20,
        prune="nothing goes: a stream is damaged",
    )


def stopped() -> DatasetFacts:
    """It came every night, and comes no more."""
    return dataset(
        "rpool/ROOT/debian",
        chain_of(range(21, 60), fates={3: "drop"}),
        days=days(range(21, 91), seed=4, base=12 * _MIB),
        level="critical",
        late=True,
    )


def weekly() -> DatasetFacts:
    """A full once a week, the oldest of them going; twelve days after the last one."""
    streams = tuple(
        stream(number, ago, fate="drop" if number < 2 else "stay") for number, ago in enumerate(range(82, 11, -7))
    )
    return dataset(
        "tank/archive",
        streams,
        days=days(range(12, 90, 7), seed=5, base=9 * _GIB),
        every=7 * DAY,
        level="warning",
        late=True,
        chain_streams=1,
        chain_raw_bytes=80 * _GIB,
        chain_stored_bytes=41 * _GIB,
    )


def young() -> DatasetFacts:
    """Three nights old; how often it comes is not known yet."""
    return dataset(
        "tank/new",
        chain_of(range(3)),
        days=days(range(3), seed=6),
        every=35 * DAY,
        source="unknown",
        expected="too little has come",
        oldest_check=None,
        unchecked=None,
    )


def package() -> DatasetFacts:
    """Packages, which have no GUID of their own."""
    streams = tuple(stream(number, ago, kind="package", guid=None) for number, ago in enumerate((30, 2)))
    return dataset("backup/tree", streams, days=days((30, 2), seed=7), every=30 * DAY)


def empty() -> DatasetFacts:
    """Nothing of it is stored."""
    said = "too little has come to learn it"
    return dataset("tank/lost", every=35 * DAY, source="unknown", expected=said, level="critical")


def branched() -> DatasetFacts:
    """After a rollback an increment builds on an older one."""
    streams = [*chain_of(range(4, 12)), stream(20, 3, base=4), stream(21, 2, base=20), stream(22, 1, base=21)]
    return dataset("tank/db", tuple(streams), days=days(range(1, 12), seed=8))


def alarm(
    level: AlarmLevel, code: str, what: str, *, of: tuple[str, str | None] | None = None, days_ago: int | None = None
) -> ReportedAlarm:
    """Return an alarm. `of`: host and dataset, None: of the store."""
    host, name = of or (None, None)
    since = None if days_ago is None else at(days_ago)
    return ReportedAlarm(level=level, code=code, text=what, host=host, dataset=name, since=since)


def report(**changed: object) -> ReportFacts:
    """Return facts about three hosts, with alarms."""
    hosts = (
        HostFacts(
            name="alpha",
            datasets=(home(), vm(), branched()),
            stored_bytes=310 * _GIB,
            used_bytes=322 * _GIB,
            quota=500 * _GIB,
            level="critical",
        ),
        HostFacts(name="bravo", datasets=(stopped(), weekly(), young()), stored_bytes=420 * _GIB, level="critical"),
        HostFacts(
            name="charlie",
            datasets=(package(), empty()),
            stored_bytes=82 * _GIB,
            level="critical",
            notes=("it may not connect any more",),
        ),
    )
    alarms = (
        alarm(
            "critical",
            "damage",
            "@auto-2026-11-18 is damaged: run `fullsend push` on its host, which sends it again",
            of=("alpha", "tank/vm/mail"),
            days_ago=5,
        ),
        alarm(
            "critical",
            "late",
            "last seen 21 days ago, expected every 24 h: look at the timer there",
            of=("bravo", "rpool/ROOT/debian"),
            days_ago=19,
        ),
        alarm(
            "warning", "late", "last seen 12 days ago, expected every 7 days", of=("bravo", "tank/archive"), days_ago=4
        ),
        alarm("warning", "low-space", "the disk is full in about 24 days at the rate of the last weeks"),
    )
    plain = ReportFacts(
        at=NOW,
        program="fullsendd 0.1.0",
        title="Backups in /srv/backups",
        hosts=hosts,
        alarms=alarms,
        room=RoomFacts(
            free=610 * _GIB, size=3600 * _GIB, min_free=100 * _GIB, forecast="Full on 2026-12-22 at the rate of late."
        ),
        scrub="Scrub: 143 of 151 streams were read or received within 30 days; 8 are due (12 GiB).",
        notes=("0 B are set aside as damaged, 3.1 GiB can be undeleted.",),
        next_at=NOW + DAY,
        zone=UTC,
    )
    return replace(plain, **changed)  # type: ignore[arg-type]  # the caller names fields


def well() -> ReportFacts:
    """Return facts about one host, of which all is well."""
    return report(
        hosts=(HostFacts(name="alpha", datasets=(home(), branched()), stored_bytes=310 * _GIB),),
        alarms=(),
        next_at=None,
    )
