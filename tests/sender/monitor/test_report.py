from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC
from pathlib import Path
from typing import Any, Final

import pytest
from tests import programs
from tests.fakezfs import FakeZfs
from tests.markup import Element, read
from tests.protocol.helpers import DRILL, HISTORY, STATUS, an_entry
from tests.sender.peer import Peer, receiving

from fullsend_protocol.shared.errors import ErrorCode, PeerError
from fullsend_protocol.shared.exit_codes import NagiosState
from fullsend_protocol.shared.units import parse_time
from fullsend_protocol.wire import messages
from fullsend_report.facts import DatasetFacts, ReportFacts
from fullsend_report.page import render
from fullsend_sender.host.identity import Identity
from fullsend_sender.monitor.report import ToldFacts, ask, report_facts
from fullsend_sender.monitor.status import BackupState, ReceiverState

NOW: Final = parse_time("2026-11-23T08:30:00Z") or 0.0
NAME: Final = "tank/data"
GUID: Final = "1234605616436508552"
BASE: Final = messages.Base(
    dataset=NAME, guid=GUID, base_guid=None, flags="", streams=3, age=9, full_bytes=100, increment_bytes=20
)
OK: Final = BackupState(NAME, NagiosState.OK, STATUS, 0.0)


def told(*entries: Any, **changes: Any) -> ToldFacts:
    plain = ToldFacts(
        sender="alpha",
        now=NOW,
        entries=entries or (an_entry(),),
        bases={GUID: BASE},
        statuses={NAME: STATUS},
        histories={NAME: HISTORY},
    )
    return replace(plain, **changes)


def receiver(**said: Any) -> ReceiverState:
    return ReceiverState("nas", messages.Health(program="fullsendd 9", free_bytes=5 << 30, problems=[], **said))


def facts(found: ToldFacts, *judged: BackupState, **said: Any) -> ReportFacts:
    return report_facts(found, judged or (OK,), receiver(**said), zone=UTC)


def only(found: ToldFacts, *judged: BackupState) -> DatasetFacts:
    (dataset,) = facts(found, *judged).hosts[0].datasets
    return dataset


def test_what_the_receiver_tells_is_on_the_page() -> None:
    entry = an_entry()
    about = only(told())
    assert (about.name, about.snapshot, about.stream_count) == (NAME, STATUS.snapshot, 1)
    assert (about.raw_bytes, about.stored_bytes) == (entry.raw_bytes, entry.stored_bytes)
    assert (about.chain_streams, about.chain_raw_bytes, about.chain_stored_bytes) == (3, 120, None)
    assert (about.every, about.limit, about.late, about.age, about.source) == (86400, 129600, False, 1800, "learnt")
    assert [(each.day, each.received) for each in about.days] == [(739943, 1)]
    assert about.recorded_since == parse_time("2026-11-01T06:30:00Z")
    page = facts(told())
    assert page.title == "Backups of alpha on nas"
    assert page.program.endswith(", fullsendd 9")
    assert page.room is not None
    assert (page.room.free, page.room.size) == (5 << 30, None)
    assert page.level is None


def test_without_a_history_other_days_are_unknown() -> None:
    about = only(told(histories={}))
    assert (about.every, about.source, about.recorded_since, about.late) == (None, "unknown", None, False)
    assert [each.received for each in about.days] == [1]
    assert any("tells no history" in each for each in facts(told(histories={})).notes)


def test_what_the_receiver_has_not_learnt_yet_is_not_called_well() -> None:
    young = HISTORY.model_copy(update={"every": 35 * 86400, "limit": 35 * 86400, "source": "unknown"})
    page = read(render(facts(told(histories={NAME: young}))).removeprefix("<!DOCTYPE html>"))
    assert page.every("section", "verdict")[0].whole_text.startswith("All is well, as far as is known")
    assert only(told(histories={NAME: young})).source == "unknown"


def test_days_have_what_arrived_on_them() -> None:
    one = an_entry()
    entries = [
        one.model_copy(update={"received": "2026-11-23T06:30:00Z", "stored_bytes": 5, "raw_bytes": 7}),
        one.model_copy(update={"received": "2026-11-23T07:30:00Z", "stored_bytes": 6, "raw_bytes": 8}),
        one.model_copy(update={"received": "then"}),
    ]
    (day,) = only(told(*entries, histories={})).days
    assert (day.day, day.received, day.stored_bytes, day.raw_bytes) == (739943, 2, 11, 15)


def test_streams_are_in_the_order_of_reception_and_say_what_they_are() -> None:
    one = an_entry()
    late = one.model_copy(update={"sequence": 9, "snapshot": "late", "damaged": "chunk 3", "restorable": False})
    early = one.model_copy(update={"sequence": 2, "snapshot": "early", "file": "alpha/merged"})
    package = one.model_copy(update={"sequence": 5, "snapshot": "package", "kind": "package"})
    about = only(told(late, early, package, merged=frozenset({"alpha/merged"})))
    assert [(each.snapshot, each.merged, each.damaged, each.restorable) for each in about.streams] == [
        ("early", True, False, True),
        ("package", False, False, True),
        ("late", False, True, False),
    ]
    assert about.streams[1].guid is None
    assert (about.damaged, about.broken) == (1, 1)


def test_what_status_complains_of_is_an_alarm() -> None:
    warning = BackupState(NAME, NagiosState.WARNING, STATUS, 0.0, "1 of its streams is damaged")
    gone = BackupState("tank/gone", NagiosState.CRITICAL, None, None, "it has never been pushed")
    page = facts(told(), warning, gone, warnings=["nearly full"])
    assert [(each.level, each.dataset, each.text) for each in page.alarms] == [
        ("critical", "tank/gone", "it has never been pushed"),
        ("warning", NAME, "1 of its streams is damaged"),
        ("warning", None, "receiver nas: nearly full"),
    ]
    assert [(each.name, each.level) for each in page.hosts[0].datasets] == [
        (NAME, "warning"),
        ("tank/gone", "critical"),
    ]
    assert page.hosts[0].level == "critical"


def test_what_the_receiver_misses_is_an_alarm() -> None:
    late = HISTORY.model_copy(update={"late": True, "age": 3 * 86400})
    page = facts(told(histories={NAME: late}))
    assert page.alarms[0].text == (
        "last seen 3d 00:00:00 ago, and expected every 1d 00:00:00: run `fullsend push`, and look at its timer"
    )
    assert page.hosts[0].datasets[0].late


def test_a_time_in_the_future_tells_no_age() -> None:
    ahead = STATUS.model_copy(update={"received": "2027-01-01T00:00:00Z"})
    assert only(told(statuses={NAME: ahead}, histories={})).age is None


def test_a_day_that_no_calendar_has_is_none_of_these_weeks() -> None:
    night = HISTORY.nights[0].model_copy(update={"day": "2026-02-31"})
    assert only(told(histories={NAME: HISTORY.model_copy(update={"nights": [night]})})).days[0].day == 0


def test_drills_tell_the_speed_of_a_restore() -> None:
    drilled = replace(OK, drill=DRILL.model_copy(update={"ok": True}))
    about = only(told(), drilled)
    assert about.drill == "2026-11-23 06:30: @now, 3 files differ, in 2 s"
    assert about.speed is not None
    assert (about.speed.rate, about.speed.source) == (416.0, "its restore drill, 2026-11-23 06:30")
    failed = only(told(), replace(OK, drill=DRILL))
    assert failed.drill.startswith("FAILED 2026-11-23 06:30")
    assert failed.speed is None


def test_how_the_checks_stand() -> None:
    scrub = messages.ScrubStanding(
        every=0, streams=3, current=2, checked=1, oldest=None, due_streams=0, due_bytes=0, reading=None
    )
    assert facts(told(), scrub=scrub).scrub.startswith("The receiver's scrub: 1 of 3 streams were ever checked")


@pytest.mark.parametrize("code", [ErrorCode.PROTOCOL, ErrorCode.STORE])
async def test_an_older_receiver(identity: Identity, receiver_identity: Identity, code: ErrorCode) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        while True:
            match await peer.hear():
                case messages.StatusWanted():
                    await peer.say(messages.Status(now="2026-11-23T08:30:00Z", datasets=[STATUS]), messages.Done())
                case messages.List():
                    await peer.say(messages.Entries(entries=[an_entry()]), messages.Done())
                case messages.BasesWanted():
                    await peer.say(messages.Bases(bases=[BASE]), messages.Done())
                case messages.HistoryWanted() | messages.MergedWanted():
                    await peer.say(messages.Error(code=code, message="no such message"))
                    return await peer.gone()
                case _:
                    return None

    async with receiving(receiver_identity, always=script) as away:
        if code is ErrorCode.PROTOCOL:
            found = await ask(away.endpoint, identity)
            assert (found.histories, found.merged, found.now) == ({}, frozenset(), NOW)
            assert [*found.entries] == [an_entry()]
            assert found.bases == {GUID: BASE}
        else:
            with pytest.raises(PeerError, match="no such message"):
                await ask(away.endpoint, identity)


# --- with both programs


@pytest.fixture
def host(tmp_path: Path) -> Iterator[tuple[programs.Receiver, programs.Sender, FakeZfs]]:
    with programs.serving(programs.Receiver(tmp_path / "receiver", inside=True)) as running:
        sender = programs.Sender(tmp_path / "sender", inside=True)
        sender.join(running)
        fake = FakeZfs.make(tmp_path / "zfs")
        config = sender.folder / "sender.toml"
        text = config.read_text()
        config.write_text(f'zfs-command = {json.dumps(fake.program)}\n{text}\n[[push]]\ndatasets = ["tank/*"]\n')
        yield running, sender, fake


def page_of(sender: programs.Sender) -> Element:
    done = sender.fullsend("report", "--html", "-")
    assert (done.returncode, done.stderr) == (0, b"")
    return read(done.stdout.decode().removeprefix("<!DOCTYPE html>"))


def test_the_page_of_a_host(host: tuple[programs.Receiver, programs.Sender, FakeZfs]) -> None:
    _running, sender, fake = host
    fake.create("tank/a")
    sender.push()
    page = page_of(sender)
    assert page.every("h1")[0].text.startswith("Backups of ")
    (card,) = page.every("details", "ds")
    assert card.every("span", "name")[0].text == "tank/a"
    assert card.every("svg", "chain")[0].attributes["aria-label"] == "1 full"
    assert "1 received" in card.every("svg", "cal")[0].attributes["aria-label"]
    assert "the receiver does not tell what it will drop or merge" in page.every("footer")[0].whole_text


def test_the_receivers_history_comes_to_the_page(host: tuple[programs.Receiver, programs.Sender, FakeZfs]) -> None:
    running, sender, fake = host
    fake.create("tank/a")
    sender.push()
    assert running.stop() == 0
    page = running.folder / "store.html"
    with (running.folder / "receiver.toml").open("a", encoding="utf-8") as file:
        file.write(f'report-file = "{page}"\nexpect-every = "26h"\n')
    running.start()  # it looks at all of it at its start

    def expected() -> str:
        return page_of(sender).definitions()["Expected"]

    programs.wait_for(lambda: expected() == "every 26 h (set at the receiver)")
    programs.wait_for(page.exists)
    theirs = read(page.read_text(encoding="utf-8").removeprefix("<!DOCTYPE html>"))
    assert theirs.definitions()["Expected"] == "every 26 h (set in receiver.toml)"
    calendars = [each.every("svg", "cal")[0].attributes["aria-label"] for each in (theirs, page_of(sender))]
    assert calendars[0] == calendars[1]
