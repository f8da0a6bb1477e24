"""What the page says is what the overview says."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, get_args

import pytest
from tests.markup import read

from fullsend_receiver.monitor.next_prune import NextPrune
from fullsend_receiver.monitor.overview import (
    Alarm,
    AlarmCode,
    CopyOverview,
    DatasetOverview,
    Drill,
    Expectation,
    History,
    Night,
    Overview,
    Reception,
    ScrubOverview,
    SenderOverview,
    StreamNote,
)
from fullsend_receiver.monitor.report_page import report_facts
from fullsend_report.facts import DatasetFacts, ReportFacts
from fullsend_report.page import render

DAY: Final = 86400.0
NOW: Final = datetime(2026, 11, 28, 9, tzinfo=UTC).timestamp()
GIB: Final = 1 << 30
DRILL: Final = Drill(
    at=NOW - 6 * DAY,
    snapshot="s1",
    ok=True,
    compared="files",
    text="equal",
    seconds=100.0,
    raw_bytes=20 * GIB,
    succeeded=NOW - 6 * DAY,
)


def dataset(name: str = "tank/home", **changes: Any) -> DatasetOverview:
    plain = DatasetOverview(
        sender="alpha",
        dataset=name,
        snapshot="s9",
        guid="9",
        created=NOW - 7 * 3600 - 60,
        received=NOW - 7 * 3600,
        unchanged=NOW - 3600,
        age=3600.0,
        streams=9,
        fulls=2,
        raw_bytes=90 * GIB,
        stored_bytes=45 * GIB,
        chain_streams=4,
        chain_raw_bytes=40 * GIB,
        chain_stored_bytes=21 * GIB,
        oldest_check=NOW - 12 * DAY,
        unchecked=3,
        expectation=Expectation(every=DAY, source="learnt"),
        history=History(
            receptions=(Reception(at=NOW - 7 * 3600, kind="full"), Reception(at=NOW - 3600, kind="unchanged")),
            nights=(Night(day=739947, received=1, raw_bytes=5, stored_bytes=3), Night(day=739948, unchanged=1)),
            since=NOW - 50 * DAY,
        ),
    )
    return replace(plain, **changes)


def sender(*datasets: DatasetOverview, **changes: Any) -> SenderOverview:
    plain = SenderOverview(
        name="alpha", enrolled=True, datasets=datasets, stored_bytes=45 * GIB, used_bytes=50 * GIB, quota=100 * GIB
    )
    return replace(plain, **changes)


def overview(*senders: SenderOverview, **changes: Any) -> Overview:
    plain = Overview(
        at=NOW,
        program="fullsendd 0.1.0",
        store="/srv/backups",
        free=400 * GIB,
        size=1000 * GIB,
        min_free=10 * GIB,
        senders=senders,
        scrub=ScrubOverview(every=30 * DAY),
    )
    return replace(plain, **changes)


def note(number: int, **changes: Any) -> StreamNote:
    plain = StreamNote(
        file=f"alpha/tank/home/{number}.zst",
        snapshot=f"s{number}",
        guid=str(number),
        base_guid=None if number == 1 else str(number - 1),
        kind="full" if number == 1 else "incremental",
        created=NOW - 100,
        received=NOW - 50,
        raw_bytes=10,
        stored_bytes=5,
        merged=False,
        restorable=True,
        damaged=False,
        checked=None,
    )
    return replace(plain, **changes)


def facts(found: Overview, *notes: StreamNote, prune: NextPrune | None = None) -> ReportFacts:
    return report_facts(found, {("alpha", "tank/home"): notes}, prune or NextPrune(), zone=UTC)


def only(found: Overview, *notes: StreamNote, prune: NextPrune | None = None) -> DatasetFacts:
    return facts(found, *notes, prune=prune).hosts[0].datasets[0]


def test_the_page_shows_the_figures_of_the_overview() -> None:
    page = read(render(facts(overview(sender(dataset())), note(1), note(2))).removeprefix("<!DOCTYPE html>"))
    card = page.every("details", "ds")[0]
    said = {term: each.replace("\u00a0", " ") for term, each in card.definitions().items()}
    assert said == {
        "Newest state": "@s9: taken 2026-11-28 01:59, received 2026-11-28 02:00",
        "Last seen": "60 min ago, 2026-11-28 08:00",
        "Expected": "every 24 h (learnt from its rhythm)",
        "Stored": "9 streams, 2 fulls: 45 GiB of 90 GiB raw",
        "Compressed": "2.00 : 1",
        "To restore the newest": "4 streams, 21 GiB stored, 40 GiB raw",
        "Time to restore the newest": "not measured",
        "Oldest check": "12 days ago; 3 streams never read since arrival",
        "Last restore drill": "none is known",
    }
    host = page.every("details", "host")[0].every("summary")[0].whole_text.replace("\u00a0", " ")
    assert host == (
        "alpha no alarm 1 dataset, 45 GiB stored, 50 GiB of its quota of 100 GiB used, last arrival 60 min ago"
    )
    assert page.every("h1")[0].text == "Backups in /srv/backups"


def test_history_and_expectation_are_passed_on() -> None:
    about = only(overview(sender(dataset())))
    assert [(each.day, each.received, each.unchanged) for each in about.days] == [(739947, 1, 0), (739948, 0, 1)]
    assert about.times == (NOW - 7 * 3600, NOW - 3600)
    assert about.recorded_since == NOW - 50 * DAY
    assert (about.every, about.limit, about.source) == (DAY, 1.5 * DAY, "learnt")


@pytest.mark.parametrize(
    ("expectation", "said"),
    [
        (Expectation(every=DAY, source="configured"), "set in receiver.toml"),
        (Expectation(every=None, source="configured"), "set in receiver.toml"),
        (Expectation(every=35 * DAY, source="unknown"), "too little has come to learn it"),
    ],
)
def test_why_it_is_expected(expectation: Expectation, said: str) -> None:
    about = only(overview(sender(dataset(expectation=expectation))))
    assert (about.source, about.expected) == (expectation.source, said)


def test_a_dataset_that_came_once_is_not_called_well() -> None:
    """Thirty days later it is not late yet, and how often it should come is not known."""
    once = dataset(
        age=30 * DAY,
        expectation=Expectation(every=35 * DAY, source="unknown"),
        history=History(nights=(Night(day=739918, received=1),), since=NOW - 31 * DAY),
    )
    page = read(render(facts(overview(sender(once)))).removeprefix("<!DOCTYPE html>"))
    assert page.every("section", "verdict")[0].whole_text.startswith(
        "All is well, as far as is known There is no alarm."
    )
    card = page.every("details", "ds")[0]
    assert card.definitions()["Expected"].startswith("not known, late after 35")
    calendar = card.every("svg", "cal")[0].attributes["aria-label"]
    assert "not expected" not in calendar
    assert "missing" not in calendar


def test_streams_have_their_fates() -> None:
    prune = NextPrune(
        fates={"alpha/tank/home/1.zst": "merge", "alpha/tank/home/2.zst": "drop"},
        notes={("alpha", "tank/home"): "nothing goes: why"},
    )
    about = only(overview(sender(dataset())), note(1), note(2), note(3, merged=True, damaged=True), prune=prune)
    assert [each.fate for each in about.streams] == ["merge", "drop", "stay"]
    assert [(each.merged, each.damaged) for each in about.streams] == [(False, False), (False, False), (True, True)]
    assert about.prune == "nothing goes: why"


def test_a_package_has_no_guid_and_a_time_that_cannot_be_read_is_none() -> None:
    about = only(overview(sender(dataset())), note(1, kind="package", received=-1.0))
    assert (about.streams[0].guid, about.streams[0].received) == (None, None)


def test_alarms_mark_their_dataset_and_its_host() -> None:
    alarms = (
        Alarm(code="damage", level="critical", text="x", sender="alpha", dataset="tank/home", since=NOW - DAY),
        Alarm(code="clock", level="warning", text="y", sender="alpha"),
        Alarm(code="low-space", level="warning", text="z"),
    )
    other = sender(dataset("b", sender="bravo"), name="bravo")
    found = facts(overview(sender(dataset(), dataset("tank/b")), other, alarms=alarms))
    assert [each.level for each in found.hosts] == ["critical", None]
    assert [each.level for each in found.hosts[0].datasets] == ["critical", None]
    assert [(each.code, each.text, each.host, each.dataset, each.since) for each in found.alarms] == [
        ("damage", "x", "alpha", "tank/home", NOW - DAY),
        ("clock", "y", "alpha", None, None),
        ("low-space", "z", None, None, None),
    ]


def test_an_alarm_names_its_dataset_once() -> None:
    alarms = (
        Alarm(code="late", level="warning", text="alpha/tank/home: it is late", sender="alpha", dataset="tank/home"),
        Alarm(code="late", level="warning", text="alpha: it is late", sender="alpha"),
        Alarm(code="clock", level="warning", text="the clock: it is late"),
    )
    assert [each.text for each in facts(overview(alarms=alarms)).alarms] == [
        "it is late",
        "it is late",
        "the clock: it is late",
    ]


def test_a_dataset_that_is_overdue_or_gone_is_late() -> None:
    late = dataset(age=2 * DAY)
    gone = Alarm(code="gone", level="critical", text="x", sender="alpha", dataset="tank/home")
    assert only(overview(sender(late))).late
    assert only(overview(sender(dataset()), alarms=(gone,))).late
    assert not only(overview(sender(dataset()))).late


def test_drills_tell_the_speed_of_a_restore() -> None:
    one, other = facts(overview(sender(dataset("a", drill=DRILL), dataset("b")))).hosts[0].datasets
    assert one.drill == "2026-11-22 09:00: @s1, equal, in 2 min"
    assert one.speed is not None
    assert (one.speed.rate, one.speed.source) == (20 * GIB / 100, "its restore drill, 2026-11-22 09:00")
    assert other.drill == ""
    assert other.speed is not None
    assert other.speed.source == "the restore drill of a, 2026-11-22 09:00"
    assert only(overview(sender(dataset()))).speed is None


@pytest.mark.parametrize("code", get_args(AlarmCode))
def test_each_alarm_is_on_the_page(code: AlarmCode) -> None:
    found = Alarm(code=code, level="critical", text=f"about {code}", sender="alpha", dataset="tank/home")
    page = read(render(facts(overview(sender(dataset()), alarms=(found,)))).removeprefix("<!DOCTYPE html>"))
    assert page.every("section", "verdict")[0].whole_text.startswith("Something is wrong: 1 critical alarm")
    (row,) = page.every("ul", "alarms")[0].every("li")
    assert row.whole_text == f"critical alpha/tank/home about {code}"


def test_the_room_and_its_forecast() -> None:
    room = facts(overview(full_at=NOW + 20 * DAY)).room
    assert room is not None
    assert (room.free, room.size, room.min_free) == (400 * GIB, 1000 * GIB, 10 * GIB)
    assert room.forecast == "At the rate of late it is full in 20 days, on 2026-12-18."
    assert "or the rate is not known" in (getattr(facts(overview()).room, "forecast", ""))


def test_the_checks_and_what_is_aside() -> None:
    scrub = ScrubOverview(
        every=30 * DAY, streams=9, current=8, checked=7, oldest=NOW - 31 * DAY, due_streams=1, due_bytes=GIB
    )
    found = facts(overview(scrub=scrub, aside_bytes=GIB, trash_bytes=2 * GIB), prune=NextPrune(note="no policy is set"))
    assert found.scrub == (
        "Checks of what is stored: 8 of 9 streams were checked or received within 30 days, 1 are due (1.0 GiB);"
        " the oldest check was 31 days ago, 2026-10-28T09:00:00Z."
    )
    assert found.notes == (
        "1.0 GiB are set aside as damaged, 2.0 GiB can be undeleted.",
        "Next prune: no policy is set.",
    )
    assert facts(overview()).scrub == ""
    copied = facts(overview(copy=CopyOverview(to="/offsite"))).notes[-1]
    assert copied == "Copies in /offsite: no copy of all that is wanted was complete yet."
    off = facts(overview(scrub=replace(scrub, every=0.0, due_streams=0))).scrub
    assert "7 of 9 streams were ever checked; the daemon checks none by itself" in off


def test_a_host_that_may_not_connect_and_has_partials() -> None:
    host = facts(overview(sender(enrolled=False, partials=2, partial_bytes=GIB))).hosts[0]
    assert host.notes == ("it may not connect any more", "2 streams arrived in part (1.0 GiB)")
