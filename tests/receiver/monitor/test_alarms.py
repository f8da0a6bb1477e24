"""Each alarm from facts alone: when there is one, of which level, and when it ends."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullsend_protocol.shared.units import format_time
from fullsend_receiver.arrival.usage import InPart
from fullsend_receiver.events.records import AlarmRaised
from fullsend_receiver.maintenance.prune_records import Trouble
from fullsend_receiver.maintenance.schedule import Survey
from fullsend_receiver.monitor.alarm_events import alarm_changes
from fullsend_receiver.monitor.alarms import AlarmFacts, Moment, age_of, find_alarms
from fullsend_receiver.monitor.history import local_day
from fullsend_receiver.monitor.overview import (
    Alarm,
    CopyOverview,
    DatasetOverview,
    Drill,
    Expectation,
    History,
    Overview,
    Reception,
    ScrubOverview,
    SenderOverview,
)
from fullsend_receiver.monitor.sizes import Sizes

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
NOW: Final = 1_795_478_400.0  # 2026-11-24T00:00:00Z
TODAY: Final = local_day(NOW) or 0
GIB: Final = 1 << 30
CONFIGURED: Final = Expectation(every=26 * HOUR, source="configured")
LEARNT: Final = Expectation(every=DAY, source="learnt")


def dataset(name: str = "tank/home", **said: Any) -> DatasetOverview:
    age = said.pop("age", HOUR)
    usual: dict[str, Any] = {
        "snapshot": "now",
        "guid": "1",
        "created": NOW - (age or 0),
        "received": NOW - (age or 0),
        "streams": 3,
        "stored_bytes": GIB,
        "age": age,
        "expectation": CONFIGURED,
    }
    return DatasetOverview(sender="alpha", dataset=name, **usual | said)


def overview(*datasets: DatasetOverview, quota: int | None = None, used: int = 0, **said: Any) -> Overview:
    sender = SenderOverview(name="alpha", enrolled=True, datasets=datasets, quota=quota, used_bytes=used)
    usual: dict[str, Any] = {
        "at": NOW,
        "program": "fullsendd 9",
        "store": "/s",
        "free": 50 * GIB,
        "size": 100 * GIB,
        "min_free": GIB,
        "scrub": ScrubOverview(every=30 * DAY),
    }
    return Overview(senders=(sender,), **usual | said)


def facts(**said: Any) -> AlarmFacts:
    usual: dict[str, Any] = {
        "now": NOW,
        "likely": NOW,
        "today": TODAY,
        "survey": Survey(now=NOW, every=30 * DAY),
    }
    return AlarmFacts(**usual | said)


def found(about: Overview, **said: Any) -> list[tuple[str, str, str | None]]:
    """Return code, level and dataset of each alarm."""
    return [(each.code, each.level, each.dataset) for each in find_alarms(about, facts(**said))]


def only(about: Overview, **said: Any) -> Alarm:
    (alarm,) = find_alarms(about, facts(**said))
    return alarm


def test_where_all_is_well_there_is_none() -> None:
    assert found(overview(dataset(), dataset("tank/vm"))) == []
    assert found(overview()) == []


# --- copies in another store


COPY: Final = CopyOverview(
    to="/offsite",
    limit=3 * DAY,
    since=NOW - 99 * DAY,
    complete=NOW - DAY,
    age=DAY,
    began=NOW - HOUR,
    ended=NOW,
    ok=True,
)


def test_copies_that_are_complete_have_no_alarm() -> None:
    assert found(overview(copy=COPY)) == []
    assert found(overview(copy=replace(COPY, began=NOW, ended=None))) == []  # one runs
    assert found(overview(copy=CopyOverview(to="/offsite", limit=3 * DAY))) == []  # the daemon has not looked yet


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"why": "/offsite: no store here"}, "has failed: /offsite: no store here (0 streams, 0 B copied)"),
        ({"left": 1, "named": (("alpha/x", "no room"),)}, "has left 1 stream behind, such as alpha/x: no room"),
    ],
)
def test_last_copy_that_was_not_complete_is_a_warning(said: dict[str, Any], text: str) -> None:
    alarm = only(overview(copy=replace(COPY, ok=False, **said)))
    assert (alarm.code, alarm.level) == ("copy", "warning")
    assert alarm.text.startswith(f"copy in /offsite: the last run {text}")
    again = only(overview(copy=replace(COPY, ok=False, began=NOW, ended=None, **said)))  # it is tried again
    assert again.text == alarm.text


def test_no_copy_for_too_long_is_critical_whatever_the_last_run_did() -> None:
    late = replace(COPY, complete=NOW - 4 * DAY, age=4 * DAY)
    for ok in (True, False):
        alarm = only(overview(copy=replace(late, ok=ok)))
        assert (alarm.code, alarm.level) == ("copy", "critical")
        assert alarm.text.startswith("no copy in /offsite since 2026-11-20T00:00:00Z: the last run")
    runs = only(overview(copy=replace(late, began=NOW - HOUR, ended=None)))
    assert runs.text.endswith(": a run that began at 2026-11-23T23:00:00Z has not ended")
    assert found(overview(copy=replace(late, limit=None))) == []


def test_copies_that_never_came_are_missed() -> None:
    wanted = CopyOverview(to="/offsite", limit=3 * DAY, since=NOW - 4 * DAY, age=4 * DAY)
    alarm = only(overview(copy=wanted))
    assert alarm.level == "critical"
    assert alarm.text == (
        "no copy in /offsite was ever complete, and it is wanted since 2026-11-20T00:00:00Z: does the daemon run, and"
        " when does it copy (`at` and `every` in [copy])?"
    )


def test_copy_whose_age_nobody_can_tell_is_late() -> None:
    assert only(overview(copy=replace(COPY, complete=NOW + 99 * DAY, age=None))).level == "critical"


def test_copies_of_which_nothing_can_be_known_are_an_alarm() -> None:
    alarm = only(overview(copy=CopyOverview(to="/o.toml", fault="/o.toml: no such file")))
    assert (alarm.level, alarm.text) == ("critical", "nothing is copied: /o.toml: no such file")


# --- late, gone


def test_what_is_late_by_the_settings_is_critical() -> None:
    assert found(overview(dataset(age=26 * HOUR))) == []
    alarm = only(overview(dataset(age=27 * HOUR)))
    assert (alarm.code, alarm.level, alarm.sender, alarm.dataset) == ("late", "critical", "alpha", "tank/home")
    assert alarm.text == (
        "alpha/tank/home: last came 1d 03:00:00 ago; it should come every 1d 02:00:00: does its host run, and its timer"
        " for `fullsend push`?"
    )


def test_what_is_late_by_its_rhythm_is_a_warning_at_first() -> None:
    assert found(overview(dataset(age=36 * HOUR, expectation=LEARNT))) == []
    alarm = only(overview(dataset(age=37 * HOUR, expectation=LEARNT)))
    assert (alarm.code, alarm.level) == ("late", "warning")
    assert "it came every 1d 00:00:00 so far (learnt)" in alarm.text
    assert only(overview(dataset(age=3.1 * DAY, expectation=LEARNT))).level == "critical"


def test_one_of_which_too_little_is_known_is_not_forgotten() -> None:
    unknown = Expectation(every=7 * DAY, source="unknown")
    assert found(overview(dataset(age=6 * DAY, expectation=unknown))) == []
    alarm = only(overview(dataset(age=8 * DAY, expectation=unknown)))
    assert (alarm.code, alarm.level) == ("late", "warning")
    assert "how often it comes is not known yet" in alarm.text


def test_what_never_comes_is_never_late() -> None:
    never = Expectation(every=None, source="configured")
    assert found(overview(dataset(age=500 * DAY, expectation=never))) == []


def test_a_sender_of_which_nothing_whole_has_come() -> None:
    """A first full may take weeks, and one that is cut off each night is never whole."""

    def found_after(days: float, *, partials: int = 0, within: float = 3 * DAY) -> list[Alarm]:
        one = SenderOverview(name="alpha", enrolled=True, enrolled_at=NOW - days * DAY, partials=partials)
        return list(find_alarms(replace(overview(), senders=(one,)), facts(first_within={"alpha": within})))

    assert found_after(2) == []
    (alarm,) = found_after(4)
    assert (alarm.code, alarm.level, alarm.sender) == ("late", "warning", "alpha")
    assert "nothing has ever come" in alarm.text
    assert found_after(29, partials=1) == []
    (alarm,) = found_after(31, partials=2)
    assert (alarm.code, alarm.level, alarm.sender) == ("late", "warning", "alpha")
    assert "2 streams have come in part, and none whole" in alarm.text
    assert found_after(31, partials=1, within=40 * DAY) == []


def test_a_dataset_of_which_nothing_whole_has_come_while_others_of_its_host_come() -> None:
    def found_after(begun: float, last: float, *, within: float = 3 * DAY, name: str = "tank/big") -> list[Alarm]:
        in_part = {("alpha", name): (InPart(NOW - begun * DAY, NOW - last * DAY), within)}
        return list(find_alarms(overview(dataset()), facts(in_part=in_part)))

    assert found_after(29, 1) == []
    for begun, last in ((31, 0), (4, 3.5)):
        (alarm,) = found_after(begun, last)
        assert (alarm.code, alarm.level, alarm.dataset) == ("late", "warning", "tank/big")
    assert "nothing of it is stored; a part has come since 2026-11-20T00:00:00Z, the last of it at" in alarm.text
    assert found_after(31, 4, within=40 * DAY) == []
    assert found_after(31, 4, name="tank/home") == []  # that is stored
    in_part = {("alpha", "tank/big"): (InPart(0.0, 0.0), DAY)}
    assert found(overview(), in_part=in_part) == []  # `_never` tells of it


def test_a_host_that_is_silent_is_one_alarm() -> None:
    """It stays the same alarm while more datasets become late, and ends when one comes."""
    late, later, weekly = dataset(age=30 * HOUR), dataset("tank/vm", age=31 * HOUR), dataset("tank/old", age=3 * DAY)
    weekly = replace(weekly, expectation=Expectation(every=7 * DAY, source="configured"))
    one = only(overview(late, later, weekly))
    assert one.key == ("late", "alpha", "")
    assert one.text.startswith("alpha: nothing of it has come for 1d 06:00:00, and 2 of 3 datasets should have: ")
    all_late = only(overview(late, later, replace(weekly, age=8 * DAY)))
    assert all_late.key == one.key
    assert found(overview(dataset(), later)) == [("gone", "critical", "tank/vm")]


def test_one_that_comes_no_more_while_its_host_does_is_gone() -> None:
    alarm = only(overview(dataset(), dataset("tank/vm", age=5 * DAY)))
    assert (alarm.code, alarm.dataset) == ("gone", "tank/vm")
    assert '[expect."alpha/tank/vm"] every = "never"' in alarm.text


def test_one_of_which_nobody_can_tell_the_age_is_late() -> None:
    alarm = only(overview(dataset(age=None, created=None, received=None)))
    assert (alarm.code, alarm.level) == ("late", "critical")
    assert "nobody can tell when it last came" in alarm.text


# --- ages, and clocks that are wrong


def test_the_age_is_that_of_the_last_sign_of_it() -> None:
    here = Moment(NOW, NOW)
    assert age_of(dataset(received=NOW - DAY, unchanged=NOW - HOUR), here) == HOUR
    assert age_of(dataset(received=NOW - HOUR, unchanged=NOW - DAY), here) == HOUR
    assert age_of(dataset(received=NOW + 60), here) == 0
    assert age_of(dataset(received=None), here) is None


def test_a_time_in_the_future_tells_no_age() -> None:
    history = History(receptions=[Reception(at=NOW - 3 * DAY, kind="full"), Reception(at=NOW + 90 * DAY, kind="full")])
    ahead = dataset(received=NOW + 90 * DAY, history=history)
    assert age_of(ahead, Moment(NOW, NOW)) == 3 * DAY
    assert age_of(replace(ahead, history=History()), Moment(NOW, NOW)) is None


@given(
    jump=st.floats(8 * DAY, 400 * DAY),
    before=st.floats(HOUR, 3 * DAY),
    since=st.floats(0, 60 * DAY),
    again=st.floats(2 * HOUR, 60 * DAY) | st.none(),
)
def test_a_receiver_whose_clock_jumps_ahead_tells_right_ages(
    jump: float, before: float, since: float, again: float | None
) -> None:
    """The last reception before the jump was `before` it, and another comes `again` after it, or none; it is `since`
    later. A clock that is not trusted is noted no more.
    """
    moment = Moment(NOW + since + jump, NOW + since, noted=NOW)
    if again is None or again > since:
        assert age_of(dataset(received=NOW - before), moment) == pytest.approx(since + before)
    else:
        assert age_of(dataset(received=NOW + again + jump), moment) == pytest.approx(since - again)


@given(jump=st.floats(70 * DAY, 400 * DAY), since=st.floats(0, 60 * DAY), again=st.floats(0, 60 * DAY) | st.none())
def test_a_receiver_whose_clock_is_set_back_tells_right_ages(jump: float, since: float, again: float | None) -> None:
    moment = Moment(NOW + since - jump, NOW + since, noted=NOW)
    if again is None or again > since:
        assert age_of(dataset(received=NOW - HOUR), moment) == pytest.approx(since + HOUR)
    else:
        assert age_of(dataset(received=NOW + again - jump), moment) == pytest.approx(since - again)


def test_a_receiver_that_was_off_for_weeks_takes_what_comes_then_as_new() -> None:
    """Nobody has accepted the clock, which is right: what should be is the last note, and the time since the start."""
    up = 2 * HOUR
    moment = Moment(NOW + up, NOW - 30 * DAY + up, noted=NOW - 30 * DAY)
    assert age_of(dataset(received=NOW - 30 * DAY - HOUR), moment) == pytest.approx(3 * HOUR)
    assert age_of(dataset(received=NOW + HOUR), moment) == pytest.approx(HOUR)


def test_a_clock_that_is_not_trusted_is_critical() -> None:
    alarm = only(overview(dataset()), clock="the clock has jumped ahead")
    assert (alarm.code, alarm.level, alarm.text) == ("clock", "critical", "the clock has jumped ahead")


def test_a_reception_in_the_future_is_named_until_it_is_accepted() -> None:
    ahead = dataset(received=NOW + 90 * DAY, created=NOW, age=HOUR)
    alarm = only(overview(ahead))
    assert (alarm.code, alarm.level, alarm.dataset) == ("clock", "warning", "tank/home")
    assert "that time tells no age" in alarm.text
    assert found(overview(ahead), known_until=NOW + 91 * DAY) == []


def test_the_clock_of_a_sender_that_is_ahead_is_named() -> None:
    alarm = only(overview(dataset(created=NOW + 2 * DAY)))
    assert (alarm.code, alarm.level) == ("clock", "warning")
    assert "the clock of its host is ahead" in alarm.text
    assert found(overview(dataset(created=NOW - 500 * DAY))) == []  # an old snapshot was pushed


def test_the_clock_of_a_sender_that_was_set_back_is_named() -> None:
    said = [("alpha", "tank/home", "its clock was set back")]
    assert found(overview(dataset()), set_back=said) == [("clock", "warning", "tank/home")]


# --- damage


def test_damage_is_critical() -> None:
    alarm = only(overview(dataset(damaged=1, broken=2)))
    assert (alarm.code, alarm.level, alarm.count) == ("damage", "critical", 3)
    assert alarm.text.startswith("alpha/tank/home: 1 stream damaged, 2 of 3 streams cannot be restored: see ")
    assert "nothing of it can be restored" in only(overview(dataset(broken=3, guid=None))).text


def test_what_a_restore_loses_is_a_warning() -> None:
    assert found(overview(dataset(lost_spill_count=2))) == [("damage", "warning", "tank/home")]


def test_what_cannot_be_read_is_critical() -> None:
    problems = [("alpha", "tank/home", "x: no manifest"), ("alpha", "tank/home", "y: no manifest")]
    alarm = only(overview(dataset()), problems=problems)
    assert (alarm.code, alarm.level, alarm.text) == ("unread", "critical", "x: no manifest; y: no manifest")
    assert alarm.count == 2
    assert found(overview(dataset()), problems=[("alpha", None, "away")]) == [("unread", "critical", None)]


def test_a_check_that_could_not_read_is_critical() -> None:
    survey = Survey(now=NOW, every=DAY, unreadable=1, named_unreadable=[("alpha/x.zst", "EIO")])
    alarm = only(overview(dataset()), survey=survey, disk="/dev/sdb")
    assert (alarm.code, alarm.level, alarm.sender) == ("unread", "critical", "alpha")
    assert "EIO (disk /dev/sdb)" in alarm.text
    assert alarm.count == 1


def test_checks_that_could_not_read_count_for_their_sender_also_those_that_are_not_named() -> None:
    """Otherwise the next one would be told to nobody."""
    named = [("alpha/x.zst", "EIO"), ("alpha/y.zst", "EIO")]
    unread = Counter(alpha=4, bravo=3)
    survey = Survey(now=NOW, every=DAY, unreadable=7, unreadable_of=unread, named_unreadable=named)
    alarms = find_alarms(overview(dataset()), facts(survey=survey))
    assert [(each.code, each.sender, each.count) for each in alarms] == [("unread", "alpha", 4), ("unread", "bravo", 3)]
    assert "2 streams of alpha, not named here, could not be checked: see the log" in alarms[0].text


def test_a_scrub_that_is_behind_warns_and_one_that_has_stopped_is_critical() -> None:
    survey = Survey(now=NOW, every=DAY, oldest=NOW - 9 * DAY, unasked=4, named_damaged=["alpha/x.zst"])
    behind = overview(dataset(), scrub=ScrubOverview(every=DAY, behind=True))
    assert found(behind, survey=survey) == [("scrub-behind", "warning", None)]
    stopped = overview(dataset(), scrub=ScrubOverview(every=DAY, stopped=True))
    assert found(stopped, survey=survey) == [("scrub-stopped", "critical", None)]


def test_a_drill_that_has_failed_is_critical() -> None:
    drill = Drill(
        at=NOW - DAY,
        snapshot="s",
        ok=False,
        compared="files",
        text="2 files differ",
        seconds=1,
        raw_bytes=1,
        succeeded=None,
    )
    alarm = only(overview(dataset(drill=drill)))
    assert (alarm.code, alarm.level, alarm.since) == ("drill", "critical", NOW - DAY)
    assert found(overview(dataset(drill=replace(drill, ok=True)))) == []


def test_a_prune_that_is_kept_from_its_work_is_critical() -> None:
    said = [Trouble("prune: has not run"), Trouble("prune: alpha/tank/home: nothing goes", "alpha", "tank/home")]
    assert sorted(found(overview(dataset()), troubles=said), key=str) == [
        ("prune", "critical", "tank/home"),
        ("prune", "critical", None),
    ]


def test_a_second_trouble_under_the_key_of_a_first_one_is_told() -> None:
    said = [Trouble("merge: the run has not come to its end"), Trouble("prune: did not run: the clock")]
    before = find_alarms(overview(dataset()), facts(troubles=said[:1]))
    after = find_alarms(overview(dataset()), facts(troubles=said))
    ((event, _level),) = alarm_changes(before, after)
    assert isinstance(event, AlarmRaised)
    assert said[1].text in event.text
    assert not list(alarm_changes(after, before))


# --- room


def test_a_disk_that_is_nearly_full_warns_and_one_that_is_full_is_critical() -> None:
    assert found(overview(free=20 * GIB)) == []
    assert found(overview(free=14 * GIB)) == [("low-space", "warning", None)]
    assert found(overview(free=GIB - 1)) == [("refusing", "critical", None)]


def test_a_quota_that_is_nearly_used_warns_and_one_that_is_used_is_critical() -> None:
    alarm = only(overview(dataset(), quota=100, used=86))
    assert (alarm.code, alarm.level, alarm.sender) == ("low-space", "warning", "alpha")
    assert found(overview(dataset(), quota=100, used=100)) == [("refusing", "critical", None)]


def test_a_forecast_within_the_days_warns() -> None:
    assert found(overview(full_at=NOW + 15 * DAY)) == []
    alarm = only(overview(full_at=NOW + 13 * DAY))
    assert (alarm.code, alarm.level) == ("low-space", "warning")
    assert format_time(NOW + 13 * DAY) in alarm.text
    assert found(overview(full_at=NOW + 13 * DAY), warn_days=0.0) == []


def test_warnings_of_room_end_with_some_slack() -> None:
    disk, forecast = overview(free=14 * GIB), overview(full_at=NOW + 13 * DAY)
    before = find_alarms(disk, facts())
    assert found(overview(free=15 * GIB + GIB // 2), before=before) == [("low-space", "warning", None)]
    assert found(overview(free=17 * GIB), before=before) == []
    before = find_alarms(forecast, facts())
    assert found(overview(full_at=NOW + 16 * DAY), before=before) == [("low-space", "warning", None)]
    assert found(overview(full_at=NOW + 17 * DAY), before=before) == []


def test_a_store_that_cannot_be_written_refuses() -> None:
    assert found(overview(), unfit="the store's disk is mounted read-only") == [("refusing", "critical", None)]


# --- sizes


def increments(*sizes: int, kind: Any = "incremental", newest: float = NOW - HOUR) -> History:
    """Return a history with an increment of each size a day; the last at `newest`."""
    times = [newest - back * DAY for back in range(len(sizes) - 1, -1, -1)]
    return History(
        receptions=[
            Reception(at=at, kind=kind, snapshot=f"s{at:.0f}", raw_bytes=size, stored_bytes=size)
            for at, size in zip(times, sizes, strict=True)
        ]
    )


def test_an_increment_of_ten_times_the_usual_size_warns_for_a_week() -> None:
    grown = dataset(history=increments(*[GIB] * 9, 11 * GIB))
    alarm = only(overview(grown))
    assert (alarm.code, alarm.level, alarm.since) == ("grown", "warning", NOW - HOUR)
    assert "has 11.0 GiB, and such increments had 1.0 GiB" in alarm.text
    assert found(overview(replace(grown, history=increments(*[GIB] * 9, 9 * GIB)))) == []
    assert found(overview(replace(grown, history=increments(*[GIB] * 9, 11 * GIB, newest=NOW - 8 * DAY)))) == []
    assert found(overview(grown), accepted={"alpha/tank/home": NOW}) == []


def test_too_few_and_small_increments_are_not_compared() -> None:
    assert found(overview(dataset(history=increments(*[GIB] * 3, 99 * GIB)))) == []
    assert found(overview(dataset(history=increments(*[1] * 9, 60 << 20)))) == []


def test_a_full_of_a_tenth_is_critical() -> None:
    shrunk = dataset(history=increments(50 * GIB, GIB, kind="full"))
    alarm = only(overview(shrunk))
    assert (alarm.code, alarm.level) == ("shrunk", "critical")
    assert found(overview(shrunk), accepted={"alpha/tank/home": NOW}) == []


def stored(*days: tuple[int, int], name: str = "tank/home") -> Sizes:
    return Sizes(stored={"alpha": {name: [(TODAY + day, size) for day, size in days]}})


def test_what_is_stored_of_a_dataset_may_not_vanish() -> None:
    alarm = only(overview(dataset(stored_bytes=GIB)), sizes=stored((-1, 50 * GIB)))
    assert (alarm.code, alarm.level) == ("shrunk", "critical")
    assert found(overview(), sizes=stored((-1, GIB))) == [("shrunk", "critical", "tank/home")]  # nothing is left
    assert found(overview(dataset(stored_bytes=GIB)), sizes=stored((-1, 9 * GIB))) == []
    assert found(overview(dataset(stored_bytes=GIB)), sizes=stored((-8, 50 * GIB))) == []
    accepted = {"alpha/tank/home": NOW}
    assert found(overview(dataset(stored_bytes=GIB)), sizes=stored((-1, 50 * GIB)), accepted=accepted) == []
    # The day's first look was before it shrank.
    accepted = {"alpha/tank/home": NOW + 12 * HOUR}
    assert found(overview(dataset(stored_bytes=GIB)), sizes=stored((0, 50 * GIB)), accepted=accepted) == []
    following = {"accepted": accepted, "today": TODAY + 1}
    assert found(overview(dataset(stored_bytes=GIB)), sizes=stored((0, 50 * GIB), (1, GIB)), **following) == []
    later = stored((0, 50 * GIB), (1, 50 * GIB))
    assert found(overview(dataset(stored_bytes=GIB)), sizes=later, **following) == [("shrunk", "critical", "tank/home")]


def test_of_what_has_vanished_there_is_an_alarm_until_it_is_accepted() -> None:
    alarm = only(overview(), sizes=stored((-40, 5), (-39, 0)))
    assert (alarm.code, alarm.level, alarm.dataset) == ("shrunk", "critical", "tank/home")
    assert alarm.text.startswith("alpha/tank/home: nothing of it is stored any more, and 5 B were 40 days ago: ")
    assert found(overview(), sizes=stored((-40, 5), (-39, 0)), accepted={"alpha/tank/home": NOW}) == []
    assert found(overview(), sizes=stored((-40, 5), (-39, 0)), revoked={"alpha"}) == []
    assert found(overview(), sizes=stored((-40, 5), (-39, 0)), dropped={("alpha", "tank/home")}) == []
    assert found(overview(dataset(stored_bytes=0)), sizes=stored((-40, GIB), (-39, 0))) == []  # it is unread


def test_what_is_stored_of_a_dataset_may_not_become_ten_times_as_much() -> None:
    sizes = stored((-3, GIB))
    assert found(overview(dataset(stored_bytes=11 * GIB)), sizes=sizes) == [("grown", "warning", "tank/home")]
    assert found(overview(dataset(stored_bytes=10 * GIB)), sizes=sizes) == []


# --- all of them


def test_the_critical_ones_come_first_and_keep_when_they_began() -> None:
    late, damaged = dataset(age=40 * HOUR, expectation=LEARNT), dataset("tank/vm", damaged=1)
    alarms = find_alarms(overview(late, damaged), facts(begun=NOW))
    assert [(each.code, each.since) for each in alarms] == [("damage", NOW), ("gone", NOW)]
    again = find_alarms(overview(late, damaged), facts(before=alarms, begun=NOW + HOUR))
    assert [each.since for each in again] == [NOW, NOW]
    assert [each.since for each in find_alarms(overview(late, damaged), facts())] == [None, None]


def test_two_of_the_same_key_are_one() -> None:
    survey = Survey(now=NOW, every=DAY, named_unreadable=[("alpha/x.zst", "EIO")])
    alarm = only(overview(dataset()), survey=survey, problems=[("alpha", None, "away")])
    assert alarm.text == (
        "alpha/x.zst: could not be checked: EIO; it is tried again later, and until then nothing of its dataset is"
        " dropped; away"
    )
    assert alarm.count == 2
