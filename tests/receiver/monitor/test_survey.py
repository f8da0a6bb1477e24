"""Overviews of real stores: what is in them, what is looked at again, and each alarm that comes of it."""

from __future__ import annotations

import json
import os
import resource
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests import streams
from tests.receiver.arriving import KEY, begun, journal_of
from tests.receiver.helpers import SENDER, manifest_path, plant, store_stream
from tests.receiver.histories import DAY, HOUR, START

from fullsend_protocol.shared.settings import SizeOrShare
from fullsend_protocol.shared.units import format_time
from fullsend_protocol.wire.messages import Drilled, UnchangedDataset
from fullsend_receiver.access.config import ReceiverSettings
from fullsend_receiver.access.policies import Retention
from fullsend_receiver.catalogue import unchanged
from fullsend_receiver.catalogue.scrub_results import Scrubbed
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.catalogue.standing import lost_spills
from fullsend_receiver.catalogue.streams import Catalogue, read_catalogue
from fullsend_receiver.maintenance import clock
from fullsend_receiver.maintenance.clock import Reading
from fullsend_receiver.maintenance.prune import newest_reception
from fullsend_receiver.maintenance.prune_records import write_history, write_try
from fullsend_receiver.maintenance.suspicion import accept
from fullsend_receiver.monitor import history
from fullsend_receiver.monitor.alarm_log import AlarmLog
from fullsend_receiver.monitor.drills import note_drill, read_drills
from fullsend_receiver.monitor.survey import DaemonSource, Surveyor, take_overview
from fullsend_receiver.store.api import DiskSpace
from fullsend_receiver.store.local import LocalStore

if TYPE_CHECKING:
    from pathlib import Path

    from fullsend_receiver.monitor.overview import DatasetOverview, Overview

GIB: Final = 1 << 30


class Clocks:
    """The clocks of a host, which the test sets."""

    def __init__(self) -> None:
        self.wall = START
        self.boottime = 1000.0

    def read(self) -> Reading:
        return Reading(self.wall, self.boottime, "one", synchronised=True)

    def sleep(self, seconds: float) -> None:
        self.wall += seconds
        self.boottime += seconds


@dataclass
class Watched:
    """A store, and what a daemon sees of it."""

    store: LocalStore
    clocks: Clocks = field(default_factory=Clocks)
    settings: dict[str, Any] = field(default_factory=dict)
    number: int = 0
    newest: dict[str, int] = field(default_factory=dict)  # by dataset, the GUID

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Another daemon serves the store."""
        self.catalogues = Catalogues(self.store)
        self.alarms = AlarmLog(self.store.documents)
        self.surveyor = Surveyor(
            self.store,
            self.read_settings,
            DaemonSource(self.catalogues),
            rules_since=lambda: START,
            keeps=True,
            clocks=self.clocks,
            before=self.alarms.known,
        )

    def read_settings(self) -> ReceiverSettings:
        usual: dict[str, Any] = {"min_free": SizeOrShare(0), "warn_at": "100%", "scrub_every": 30 * DAY}
        return ReceiverSettings(store=self.store.root, store_id="1", **usual | self.settings)

    def look(self) -> Overview:
        clock.note(self.store.documents, self.clocks, lambda: newest_reception(self.catalogues))
        overview = self.surveyor.take()
        self.alarms.note(overview)
        return overview

    def codes(self) -> list[tuple[str, str | None]]:
        return [(each.code, each.dataset) for each in self.look().alarms]

    def push(self, dataset: str = "tank/data", **changes: Any) -> None:
        """A stream of a dataset comes now: its first full, or an increment."""
        self.number += 1
        base, self.newest[dataset] = self.newest.get(dataset), self.number
        at = format_time(self.clocks.wall)
        said: dict[str, Any] = {"received": at, "created": at, "begun": at, "sequence": self.number}
        plant(self.store, f"s{self.number}", self.number, base, dataset=dataset, **said | changes)


@pytest.fixture
def watched(store: LocalStore) -> Watched:
    return Watched(store)


def test_a_drill_that_has_failed_is_an_alarm_until_one_succeeds(watched: Watched) -> None:
    watched.push()
    facts: dict[str, Any] = {
        "snapshot": "s1",
        "guid": "1",
        "compared": "files",
        "milliseconds": 1500,
        "raw_bytes": 10,
        "files": 3,
    }

    def drilled(*, ok: bool, text: str) -> None:
        said = Drilled(dataset="tank/data", ok=ok, text=text, **facts)
        note_drill(watched.catalogues.current(SENDER), SENDER, said)

    assert watched.codes() == []
    drilled(ok=False, text="3 files differ")
    (alarm,) = watched.look().alarms
    assert (alarm.code, alarm.dataset) == ("drill", "tank/data")
    assert "has failed: 3 files differ" in alarm.text
    drilled(ok=True, text="fine")
    overview = watched.look()
    assert overview.alarms == ()
    assert overview.senders[0].datasets[0].drill == read_drills(watched.store, SENDER)["tank/data"]


def test_an_alarm_of_a_drill_lasts_while_its_results_cannot_be_read(watched: Watched) -> None:
    watched.push()
    said = {"snapshot": "s1", "guid": "1", "compared": "files", "milliseconds": 1500, "raw_bytes": 10, "files": 3}
    failed = Drilled.model_validate({"dataset": "tank/data", "ok": False, "text": "3 files differ", **said})
    note_drill(watched.catalogues.current(SENDER), SENDER, failed)
    assert watched.codes() == [("drill", "tank/data")]
    path = watched.store.state / f"drills.{SENDER}.json"
    path.write_bytes(b"{")
    found = watched.look().alarms
    assert [(each.code, each.dataset) for each in found] == [("drill", "tank/data"), ("unread", None)]
    assert f"the results of its restore drills cannot be read: .state/{path.name} is spoilt" in found[1].text
    note_drill(watched.catalogues.current(SENDER), SENDER, failed.model_copy(update={"ok": True}))
    assert watched.codes() == []


def test_a_full_that_is_far_too_small_is_compared_with_one_of_long_ago(watched: Watched) -> None:
    """Where increments are merged, a dataset needs one full ever: 64 receptions later only its size is known."""
    watched.settings = {"scrub_every": 1000 * DAY}
    watched.push(raw_bytes=500 * GIB)
    for _ in range(history.RECEPTIONS_MAX + 1):
        watched.clocks.sleep(DAY)
        watched.push(raw_bytes=GIB)
        assert watched.codes() == []
    watched.restart()
    del watched.newest["tank/data"]  # its host has lost the base
    watched.clocks.sleep(DAY)
    watched.push(raw_bytes=1 << 20)
    assert watched.codes() == [("shrunk", "tank/data")]


def only(overview: Overview) -> DatasetOverview:
    ((dataset,),) = (one.datasets for one in overview.senders)
    return dataset


# --- what it has


def test_a_real_store_has_its_facts(store: LocalStore, tmp_path: Path) -> None:
    watched = Watched(store)
    watched.clocks.wall = 1_795_478_400.0
    full = store_stream(store, SENDER, streams.named("full").read())
    incr = store_stream(store, SENDER, streams.named("incr").read())
    received = {"received": format_time(watched.clocks.wall - HOUR)}
    for file in (full, incr):
        path = manifest_path(store, file)
        path.write_text(json.dumps(json.loads(path.read_bytes()) | received), encoding="utf-8")
    overview = watched.look()
    (sender,) = overview.senders
    about = only(overview)
    entries = [stored.summary for stored in read_catalogue(store).streams]
    assert (about.sender, about.dataset, about.snapshot) == (SENDER, entries[0].dataset, entries[1].snapshot)
    assert (about.streams, about.fulls, about.broken, about.damaged, about.unchecked) == (2, 1, 0, 0, 2)
    assert about.stored_bytes == sender.stored_bytes == sum(each.stored_bytes for each in entries)
    assert about.chain_stored_bytes == about.stored_bytes
    assert (about.chain_streams, about.chain_raw_bytes) == (2, sum(each.raw_bytes for each in entries))
    assert (about.age, about.oldest_check) == (HOUR, watched.clocks.wall - HOUR)
    assert [each.kind for each in about.history.receptions] == ["full", "incremental"]
    assert (overview.at, overview.size) == (watched.clocks.wall, store.space().total)
    assert overview.scrub.streams == 2
    assert tmp_path in store.root.parents


def test_what_is_not_enrolled_or_has_nothing_is_there(store: LocalStore) -> None:
    watched = Watched(store)
    assert watched.look().senders == ()
    begun(store)
    (sender,) = watched.look().senders
    assert (sender.name, sender.enrolled, sender.datasets, sender.partials) == (SENDER, False, (), 1)
    assert sender.used_bytes == sender.partial_bytes


def test_a_report_that_it_is_unchanged_makes_a_dataset_young(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    watched.push()
    watched.look()
    watched.clocks.sleep(DAY)
    monkeypatch.setattr("time.time", lambda: watched.clocks.wall)
    said = [UnchangedDataset(dataset="tank/data", snapshot="s1", guid="1")]
    unchanged.note(watched.catalogues.current(SENDER), SENDER, said)
    about = only(watched.look())
    assert (about.age, about.unchanged) == (0, watched.clocks.wall)
    assert [each.kind for each in about.history.receptions] == ["full", "unchanged"]


def test_a_command_sees_the_same_and_writes_nothing(watched: Watched) -> None:
    for _night in range(20):
        watched.push()
        watched.look()
        watched.clocks.sleep(DAY)
    watched.clocks.sleep(DAY)
    watched.push("tank/vm")
    expected = watched.look()
    watched.surveyor.close()
    before = {path.name: path.read_bytes() for path in watched.store.state.iterdir() if path.is_file()}
    found = take_overview(
        watched.store,
        watched.read_settings(),
        read_catalogue(watched.store),
        rules_since=START,
        clocks=watched.clocks,
        before=AlarmLog(watched.store.documents).known(),
    )
    assert replace(found, free=0) == replace(expected, free=0)  # the daemon has written its documents meanwhile
    assert {path.name: path.read_bytes() for path in watched.store.state.iterdir() if path.is_file()} == before


def test_without_a_daemon_a_command_learns_from_what_is_stored(watched: Watched) -> None:
    for _night in range(20):
        watched.push()
        watched.clocks.sleep(DAY)
    for path in watched.store.state.glob("history.*"):
        path.unlink()
    found = take_overview(
        watched.store, watched.read_settings(), read_catalogue(watched.store), rules_since=START, clocks=watched.clocks
    )
    assert (only(found).expectation.every, only(found).expectation.source) == (DAY, "learnt")


def test_what_has_not_changed_is_not_looked_at_again(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """But now and then, since whether a check is due depends on the time."""
    looked = []
    real = lost_spills

    def spills(part: Catalogue) -> dict[str, int]:
        looked.append(part)
        return real(part)

    watched.push()
    watched.look()
    monkeypatch.setattr("fullsend_receiver.monitor.survey.lost_spills", spills)
    watched.look()
    assert only(watched.look()).streams == 1
    assert looked == []
    watched.clocks.sleep(HOUR)
    watched.look()
    assert len(looked) == 1
    watched.push()
    assert only(watched.look()).streams == 2
    assert len(looked) > 1


def test_a_check_is_seen_at_once(watched: Watched) -> None:
    watched.push()
    assert only(watched.look()).damaged == 0
    (stored,) = read_catalogue(watched.store).streams
    about = stored.summary
    watched.catalogues.record(Scrubbed(about.path, about.received, format_time(START), ("chunk 3",), None))
    overview = watched.look()
    assert (only(overview).damaged, only(overview).broken) == (1, 1)
    assert [each.code for each in overview.alarms] == ["damage"]


def test_a_sender_that_cannot_be_read_keeps_no_other_from_being_seen(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.push()
    plant(watched.store, "s1", 1, sender="beta", received=format_time(START), created=format_time(START))
    watched.look()
    real = Catalogues.current

    def current(self: Catalogues, sender: str, *, asked: int | None = None) -> Any:
        if sender == SENDER:
            raise OSError(5, "Input/output error")
        return real(self, sender, asked=asked)

    monkeypatch.setattr(Catalogues, "current", current)
    overview = watched.look()
    watched.restart()  # nothing is known of it any more, and it has not vanished
    watched.clocks.sleep(DAY)
    (stored,) = json.loads((watched.store.state / "sizes.json").read_bytes())["stored"]["alpha"].values()
    assert {each.code for each in watched.look().alarms} == {"unread"}
    (after,) = json.loads((watched.store.state / "sizes.json").read_bytes())["stored"]["alpha"].values()
    assert [size for _day, size in after] == 2 * [stored[0][1]]
    assert [(one.name, len(one.datasets)) for one in overview.senders] == [("alpha", 1), ("beta", 1)]
    assert [(each.code, each.level, each.sender) for each in overview.alarms] == [("unread", "critical", "alpha")]


def test_a_store_that_is_away_is_no_empty_store(watched: Watched) -> None:
    watched.push()
    watched.look()
    os.rename(watched.store.root, watched.store.root.with_name("away"))
    with pytest.raises(FileNotFoundError):
        watched.surveyor.take()


# --- alarms


def nightly(watched: Watched, nights: int, *datasets: str) -> list[str]:
    """Push each night, and look every few hours. Returns: the codes of all alarms."""
    codes = []
    for _night in range(nights):
        for dataset in datasets:
            watched.push(dataset)
        for _look in range(6):
            codes += [code for code, _dataset in watched.codes()]
            watched.clocks.sleep(4 * HOUR)
    return codes


def test_a_sender_that_stops_is_late_the_next_day(watched: Watched) -> None:
    assert nightly(watched, 17, "tank/data", "tank/vm") == []
    watched.clocks.sleep(13 * HOUR)
    overview = watched.look()
    assert [(each.code, each.level, each.dataset) for each in overview.alarms] == [("late", "warning", None)]
    watched.clocks.sleep(2 * DAY)
    assert watched.look().alarms[0].level == "critical"
    watched.restart()
    assert watched.look().alarms[0].since == overview.at
    watched.push("tank/data")
    watched.push("tank/vm")
    assert watched.codes() == []


def test_a_dataset_that_is_left_out_is_gone(watched: Watched) -> None:
    assert nightly(watched, 17, "tank/data", "tank/vm") == []
    assert set(nightly(watched, 2, "tank/data")) == {"gone"}
    assert watched.codes() == [("gone", "tank/vm")]


def test_a_setting_says_when_it_is_late(watched: Watched) -> None:
    watched.settings["expect_every"] = 2 * HOUR
    watched.push()
    assert watched.codes() == []
    watched.clocks.sleep(3 * HOUR)
    (alarm,) = watched.look().alarms
    assert (alarm.code, alarm.level) == ("late", "critical")
    watched.settings["expect_every"] = "never"
    assert watched.codes() == []


def test_a_clock_that_jumps_ahead_makes_nothing_late_and_hides_nothing(watched: Watched) -> None:
    assert nightly(watched, 17, "tank/data") == []
    watched.clocks.wall += 365 * DAY
    assert watched.codes() == [("clock", None)]
    watched.push()
    assert watched.codes() == [("clock", None)]
    watched.clocks.sleep(2 * DAY)
    assert ("late", "tank/data") in watched.codes()
    # Back again, nobody can tell when the last one came.
    watched.clocks.wall -= 365 * DAY
    assert set(watched.codes()) == {("clock", "tank/data"), ("late", "tank/data")}
    watched.push()
    assert ("late", "tank/data") not in watched.codes()
    watched.clocks.sleep(2 * DAY)
    assert ("late", "tank/data") in watched.codes()


def test_a_clock_that_is_set_back_hides_nothing(watched: Watched) -> None:
    assert nightly(watched, 17, "tank/data") == []
    watched.clocks.wall -= 365 * DAY
    assert watched.codes() == [("clock", None), ("clock", "tank/data")]
    watched.clocks.sleep(2 * DAY)
    assert ("late", "tank/data") in watched.codes()


def test_the_clock_of_a_sender_makes_nothing_young(watched: Watched) -> None:
    assert nightly(watched, 17, "tank/data") == []
    watched.push(created=format_time(watched.clocks.wall + 30 * DAY))
    assert watched.codes() == [("clock", "tank/data")]
    watched.clocks.sleep(2 * DAY)
    assert set(watched.codes()) == {("clock", "tank/data"), ("late", "tank/data")}
    watched.push()  # its clock is right again, so it seems to be set back
    assert watched.codes() == [("clock", "tank/data")]
    watched.clocks.sleep(HOUR)
    watched.push()
    assert watched.codes() == []


def test_a_dataset_that_vanishes_from_the_store_is_told(watched: Watched) -> None:
    watched.push(stored_bytes=GIB)
    assert watched.codes() == [("damage", "tank/data")]  # its file has another length: this test has no gigabyte
    (stored,) = read_catalogue(watched.store).streams
    for path in (watched.store.root / stored.file).parent.iterdir():
        path.unlink()
    assert watched.codes() == [("shrunk", "tank/data")]
    accept(watched.store.documents, f"{SENDER}/tank/data", 1, watched.clocks.wall + DAY)
    watched.clocks.sleep(DAY)
    assert watched.codes() == []


def remove_stored(watched: Watched, dataset: str) -> None:
    """Remove all that is stored of a dataset, as `rm` does."""
    stored = next(each for each in read_catalogue(watched.store).streams if each.summary.dataset == dataset)
    for path in (watched.store.root / stored.file).parent.iterdir():
        path.unlink()


def test_a_dataset_that_has_vanished_is_told_until_it_is_accepted(watched: Watched) -> None:
    """Also a small one, and one of a host that is silent since: nothing else tells of it."""
    watched.settings["expect_every"] = "never"
    watched.push("tank/old")
    watched.push()
    assert watched.codes() == []
    remove_stored(watched, "tank/old")
    for _day in range(20):
        assert watched.codes() == [("shrunk", "tank/old")]
        watched.clocks.sleep(DAY)
        watched.restart()
    accept(watched.store.documents, f"{SENDER}/tank/old", 1, watched.clocks.wall)
    for _day in range(9):
        assert watched.codes() == []
        watched.clocks.sleep(DAY)
    assert [*json.loads((watched.store.state / "sizes.json").read_bytes())["stored"][SENDER]] == ["tank/data"]


def test_what_prunes_have_removed_of_a_dataset_has_not_vanished(watched: Watched) -> None:
    """Of a renamed dataset all streams of its old name go, or become one with those of the new name."""
    watched.push("tank/old")
    watched.push("tank/older")
    watched.push()
    watched.look()
    watched.clocks.sleep(DAY)
    watched.look()
    streams = [each.summary for each in read_catalogue(watched.store).streams]
    (drop,) = [(each, "a rule") for each in streams if each.dataset == "tank/old"]
    write_history(watched.store.documents, [drop], now=watched.clocks.wall, trash=None)
    write_history(watched.store.documents, [(streams[2], "before")], now=watched.clocks.wall - 2 * DAY, trash=None)
    remove_stored(watched, "tank/old")
    assert watched.codes() == []
    remove_stored(watched, "tank/older")
    assert watched.codes() == [("shrunk", "tank/older")]
    (watched.store.state / "prune.jsonl").unlink()  # it has the last drops alone
    assert len(watched.codes()) == 2
    write_history(watched.store.documents, [drop], now=watched.clocks.wall, trash=None)
    watched.clocks.sleep(DAY)
    assert watched.codes() == [("shrunk", "tank/older")]
    (watched.store.state / "prune.jsonl").unlink()
    assert watched.codes() == [("shrunk", "tank/older")]


def test_of_a_sender_that_was_revoked_what_has_vanished_is_told_for_a_week(watched: Watched) -> None:
    add_sender(watched.store, enrolled=START, revoked=START + 1)
    watched.push("tank/old", stored_bytes=GIB)
    watched.push()
    watched.look()
    remove_stored(watched, "tank/old")
    assert watched.codes() == [("shrunk", "tank/old")]
    watched.clocks.sleep(8 * DAY)
    assert watched.codes() == []


def test_an_increment_that_is_far_too_large_is_told(watched: Watched) -> None:
    for _night in range(10):
        watched.push(raw_bytes=GIB)
        watched.clocks.sleep(DAY)
    watched.push(raw_bytes=30 * GIB)
    assert watched.codes() == [("grown", "tank/data")]


def test_a_disk_that_fills_is_told_before_it_is_full(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    used = 50 * GIB
    monkeypatch.setattr(LocalStore, "space", lambda _store: DiskSpace(100 * GIB - used, 100 * GIB))
    codes = []
    for _day in range(30):
        codes.append([code for code, _ in watched.codes()])
        watched.clocks.sleep(DAY)
        used += GIB
    overview = watched.look()
    assert overview.full_at == pytest.approx(watched.clocks.wall + 20 * DAY)
    assert not any(codes)
    for _day in range(7):
        watched.clocks.sleep(DAY)
        used += GIB
        watched.look()
    assert watched.codes() == [("low-space", None)]
    used = 100 * GIB
    assert watched.codes() == [("refusing", None)]


def test_a_quota_that_is_used_up_is_told(watched: Watched) -> None:
    watched.push()
    watched.settings["quota"] = 1
    (alarm,) = watched.look().alarms
    assert (alarm.code, alarm.sender) == ("refusing", SENDER)


def test_a_scrub_that_is_behind_is_told(watched: Watched) -> None:
    watched.settings["expect_every"] = "never"
    watched.push()
    assert watched.codes() == []
    watched.clocks.sleep(46 * DAY)
    assert watched.codes() == [("scrub-behind", None)]
    watched.settings["scrub_every"] = 0.0
    assert watched.codes() == []


def test_a_prune_that_does_not_run_is_told(watched: Watched) -> None:
    watched.settings["expect_every"] = "never"
    watched.push()
    watched.clocks.sleep(5 * DAY)
    assert watched.codes() == []  # without a policy nothing is pruned
    watched.settings["retention"] = Retention(daily=7)
    assert watched.codes() == [("prune", None)]
    write_try(watched.store.documents, watched.clocks.wall, "the clock is wrong")
    (alarm,) = watched.look().alarms
    assert "the clock is wrong" in alarm.text


def test_a_file_without_manifest_is_told(watched: Watched) -> None:
    watched.push()
    (stored,) = read_catalogue(watched.store).streams
    manifest_path(watched.store, stored.file).unlink()
    overview = watched.look()
    assert {(each.code, each.dataset) for each in overview.alarms} == {("unread", "tank/data"), ("damage", "tank/data")}
    assert (only(overview).streams, only(overview).broken) == (1, 1)


def test_a_store_that_cannot_be_written_is_told(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    watched.push()
    watched.look()
    monkeypatch.setattr(LocalStore, "is_read_only", lambda _store, **_said: True)
    assert watched.codes() == [("refusing", None)]


def test_a_quota_that_leaves_room_for_names_alone_is_told(watched: Watched) -> None:
    watched.push()
    watched.look()
    watched.clocks.sleep(HOUR)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))  # not a byte can be written
    try:
        (alarm,) = watched.surveyor.take().alarms
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (alarm.code, alarm.level) == ("refusing", "critical")
    assert alarm.text.startswith(f"{watched.store.event_folder}: is full (File too large): free some space there")
    assert alarm.text.endswith("; no event can be written, so no hook is run")
    assert watched.codes() == []


def test_a_table_of_senders_that_cannot_be_read_is_told(watched: Watched) -> None:
    watched.push()
    (watched.store.state / "senders.json").write_bytes(b"{")
    overview = watched.look()
    assert [(each.code, each.level, each.sender) for each in overview.alarms] == [("unread", "critical", None)]
    assert only(overview).streams == 1


def test_a_reload_changes_what_is_expected_at_once(watched: Watched) -> None:
    assert nightly(watched, 17, "tank/data") == []
    assert only(watched.look()).expectation.source == "learnt"
    watched.settings["expect_every"] = DAY
    assert only(watched.look()).expectation.every == DAY
    assert only(watched.look()).expectation.source == "configured"


def add_sender(store: LocalStore, *, enrolled: float, revoked: float | None = None) -> None:
    """Put a sender into the table, as `join` does."""
    row = {"name": SENDER, "fingerprint": "ab" * 32, "certificate": "none", "enrolled": enrolled, "revoked": revoked}
    (store.state / "senders.json").write_text(json.dumps({"format": 1, "rows": [row]}), encoding="utf-8")


def test_a_sender_that_was_enrolled_and_sends_nothing_is_told(watched: Watched) -> None:
    add_sender(watched.store, enrolled=START)
    assert watched.codes() == []
    watched.clocks.sleep(4 * DAY)
    (alarm,) = watched.look().alarms
    assert (alarm.code, alarm.level, alarm.sender) == ("late", "warning", SENDER)
    watched.settings["expect_every"] = "never"
    assert watched.codes() == []
    del watched.settings["expect_every"]
    watched.push()
    assert watched.codes() == []


def test_a_dataset_that_is_never_whole_is_told_while_others_come(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: watched.clocks.wall)
    add_sender(watched.store, enrolled=START)
    begun(watched.store)
    os.utime(journal_of(watched.store), (START, START))
    watched.push("tank/other")
    assert watched.codes() == []
    watched.clocks.sleep(2 * DAY)
    os.utime(journal_of(watched.store), (watched.clocks.wall, watched.clocks.wall))  # more of it comes
    watched.clocks.sleep(2 * DAY)
    assert watched.codes() == []
    watched.clocks.sleep(2 * DAY)
    watched.push("tank/other")
    assert watched.codes() == [("late", "tank/data")]
    watched.settings["expect"] = {f"{SENDER}/tank/data": {"every": 10 * DAY}}
    assert watched.codes() == []
    del watched.settings["expect"]
    assert watched.codes() == [("late", "tank/data")]
    watched.store.discard(KEY)  # as partial-keep does
    watched.restart()
    assert watched.codes() == [("late", "tank/data")]
    watched.settings["expect"] = {f"{SENDER}/tank/data": {"every": "never"}}
    assert watched.codes() == []


def test_a_dataset_of_which_a_part_came_is_told_until_it_is_stored(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: watched.clocks.wall)
    add_sender(watched.store, enrolled=START)
    begun(watched.store)
    os.utime(journal_of(watched.store), (START, START))
    watched.push("tank/other")
    watched.clocks.sleep(4 * DAY)
    assert watched.codes() == [("late", "tank/data")]
    watched.store.discard(KEY)
    watched.restart()
    assert watched.codes() == [("late", "tank/data")]
    watched.push()
    assert watched.codes() == []
    remove_stored(watched, "tank/data")
    watched.clocks.sleep(DAY)
    assert watched.codes() == []  # no day has seen it: nothing of it is known


def test_nothing_is_expected_of_a_sender_that_was_revoked(watched: Watched) -> None:
    watched.settings["expect_every"] = DAY
    watched.push()
    watched.clocks.sleep(2 * DAY)
    add_sender(watched.store, enrolled=START)
    assert watched.codes() == [("late", "tank/data")]
    add_sender(watched.store, enrolled=START, revoked=START + DAY)
    assert watched.codes() == []


def test_a_dataset_that_is_only_reported_is_no_older_when_the_clock_is_set_back(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.settings["expect_every"] = 2 * DAY
    watched.push()
    watched.look()
    watched.clocks.sleep(60 * DAY)
    monkeypatch.setattr("time.time", lambda: watched.clocks.wall)
    said = [UnchangedDataset(dataset="tank/data", snapshot="s1", guid="1")]
    unchanged.note(watched.catalogues.current(SENDER), SENDER, said)
    watched.settings["scrub_every"] = 0.0
    clock.accept(watched.store.documents, watched.clocks.read(), 0.0)
    assert watched.codes() == []
    watched.clocks.wall -= 365 * DAY
    assert {code for code, _dataset in watched.codes()} == {"clock"}


def test_a_history_that_cannot_be_read_hides_no_other_sender(watched: Watched) -> None:
    watched.push()
    at = format_time(watched.clocks.wall)
    plant(watched.store, "other", 900, None, sender="beta", sequence=1, received=at, created=at)
    (watched.store.state / f"history.{SENDER}.zst").mkdir()  # reading it is an error, as of a bad sector
    overview = watched.look()
    assert [(each.code, each.level, each.sender) for each in overview.alarms] == [("unread", "critical", SENDER)]
    assert [each.name for each in overview.senders if each.datasets] == ["beta"]


def test_what_is_expected_of_a_sender_counts_before_its_first_stream(watched: Watched) -> None:
    add_sender(watched.store, enrolled=START)
    watched.clocks.sleep(4 * DAY)
    watched.settings["expect"] = {f"{SENDER}/**": {"every": "never"}}
    assert watched.codes() == []
    watched.settings |= {"expect_every": "never", "expect": {f"{SENDER}/tank/*": {"every": "26h"}}}
    assert watched.codes() == [("late", None)]
    watched.settings["expect"] = {"other/tank/*": {"every": "26h"}}
    assert watched.codes() == []
    watched.settings |= {"expect_every": "learn", "expect": {f"{SENDER}/tank/old": {"every": "never"}}}
    assert watched.codes() == [("late", None)]


def test_one_that_came_only_while_the_clock_was_ahead_is_not_forgotten(watched: Watched) -> None:
    real = watched.clocks.wall
    watched.clocks.wall += 365 * DAY
    watched.push()
    watched.look()
    watched.clocks.wall = real
    watched.settings["scrub_every"] = 0.0
    clock.accept(watched.store.documents, watched.clocks.read(), real + 366 * DAY)
    watched.clocks.sleep(60 * DAY)
    assert ("late", "tank/data") in watched.codes()


def test_one_whose_history_is_forgotten_is_not(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of very many datasets the histories of those are forgotten of which nothing has come for the longest time."""
    monkeypatch.setattr(history, "DATASETS_MAX", 1)
    watched.push("tank/old")
    watched.clocks.sleep(30 * DAY)
    watched.push()
    assert watched.codes() == []
    watched.clocks.sleep(6 * DAY)
    watched.push()
    assert watched.codes() == [("gone", "tank/old")]
