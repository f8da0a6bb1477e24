from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any, Final

import pytest
from tests.test_house import ROOT

from fullsend_cli.tables import Painter
from fullsend_protocol.shared.exit_codes import NagiosState
from fullsend_receiver.cli.status_output import FORMAT, ServiceState, chosen, facts, headline, lines, state_of
from fullsend_receiver.monitor.overview import (
    Alarm,
    CopyOverview,
    DatasetOverview,
    Drill,
    Expectation,
    Overview,
    ScrubOverview,
    SenderOverview,
)

NOW: Final = 1_795_478_400.0  # 2026-11-24T00:00:00Z
HOUR, DAY, GIB = 3600.0, 86400.0, 1 << 30
DAEMON: Final = ServiceState("fullsendd 9")
NONE: Final = ServiceState(None, "no daemon runs")
PLAIN: Final = Painter(colours=False)
DRILL: Final = Drill(
    at=NOW - DAY,
    snapshot="mon",
    ok=False,
    compared="files",
    text="2 files differ",
    seconds=60,
    raw_bytes=5,
    succeeded=None,
)
LATE: Final = Alarm(code="late", level="warning", text="it is late", sender="alpha", dataset="tank/vm", since=NOW - DAY)
FULL: Final = Alarm(code="refusing", level="critical", text="it is full")


def dataset(name: str = "tank/home", sender: str = "alpha", **said: Any) -> DatasetOverview:
    usual: dict[str, Any] = {
        "snapshot": "mon",
        "guid": "7",
        "created": NOW - 2 * HOUR,
        "received": NOW - HOUR,
        "streams": 12,
        "fulls": 1,
        "raw_bytes": 3 * GIB,
        "stored_bytes": GIB,
        "chain_streams": 2,
        "chain_stored_bytes": GIB,
        "oldest_check": NOW - 3 * DAY,
        "age": HOUR,
        "expectation": Expectation(every=DAY, source="learnt"),
    }
    return DatasetOverview(sender=sender, dataset=name, **usual | said)


def overview(*datasets: DatasetOverview, alarms: tuple[Alarm, ...] = (), **said: Any) -> Overview:
    senders = [
        SenderOverview(
            name=name,
            enrolled=True,
            datasets=tuple(each for each in datasets if each.sender == name),
            stored_bytes=GIB,
            used_bytes=2 * GIB,
            **said,
        )
        for name in sorted({each.sender for each in datasets})
    ]
    return Overview(
        at=NOW,
        program="fullsendd 9",
        store="/s",
        free=50 * GIB,
        size=100 * GIB,
        min_free=GIB,
        senders=tuple(senders),
        scrub=ScrubOverview(every=0.0),
        alarms=alarms,
    )


BOTH: Final = overview(dataset(), dataset("tank/vm"), dataset("tank/home", "beta"), alarms=(FULL, LATE))


@pytest.mark.parametrize(
    ("patterns", "datasets", "alarms"),
    [
        ([], ["alpha/tank/home", "alpha/tank/vm", "beta/tank/home"], [FULL, LATE]),
        (["alpha"], ["alpha/tank/home", "alpha/tank/vm"], [FULL, LATE]),
        (["beta"], ["beta/tank/home"], [FULL]),
        (["alpha/tank/home"], ["alpha/tank/home"], [FULL]),
        (["alpha/tank/v*"], ["alpha/tank/vm"], [FULL, LATE]),
        (["*/tank/home", "alpha/**"], ["alpha/tank/home", "alpha/tank/vm", "beta/tank/home"], [FULL, LATE]),
        (["gamma"], [], [FULL]),
        (["alpha/tank"], [], [FULL]),
    ],
)
def test_patterns_choose_datasets_and_their_alarms(
    patterns: list[str], datasets: list[str], alarms: list[Alarm]
) -> None:
    found = chosen(BOTH, patterns)
    assert [f"{one.name}/{each.dataset}" for one in found.senders for each in one.datasets] == datasets
    assert list(found.alarms) == alarms


def test_an_alarm_of_a_whole_sender_is_one_of_its_datasets() -> None:
    silent = replace(LATE, dataset=None)
    assert chosen(replace(BOTH, alarms=(silent,)), ["alpha/tank/home"]).alarms == (silent,)
    assert chosen(replace(BOTH, alarms=(silent,)), ["beta"]).alarms == ()


def test_the_state_is_that_of_the_worst_alarm() -> None:
    assert state_of(overview(dataset()), DAEMON) == NagiosState.OK
    assert state_of(overview(dataset(), alarms=(LATE,)), DAEMON) == NagiosState.WARNING
    assert state_of(BOTH, DAEMON) == NagiosState.CRITICAL
    assert state_of(overview(dataset()), NONE) == NagiosState.CRITICAL
    assert state_of(overview(), DAEMON) == NagiosState.UNKNOWN
    assert state_of(overview(alarms=(FULL,)), DAEMON) == NagiosState.CRITICAL


def test_the_first_line_says_what_is_worst() -> None:
    assert headline(overview(dataset(), dataset("tank/vm", age=2 * HOUR)), DAEMON) == (
        "OK: 2 datasets of 1 sender, the oldest came 2:00:00 ago (alpha/tank/vm)"
    )
    assert headline(BOTH, DAEMON) == "CRITICAL: it is full; it is late"
    assert headline(BOTH, NONE) == "CRITICAL: no daemon runs; it is full; it is late"
    many = tuple(replace(LATE, dataset=str(number)) for number in range(5))
    assert headline(overview(dataset(), alarms=many), DAEMON) == "WARNING: it is late; it is late; it is late; 2 more"
    assert headline(overview(), DAEMON) == "UNKNOWN: nothing is stored"


def test_the_table_has_a_line_for_each_dataset() -> None:
    late = dataset(
        "tank/vm", age=49 * HOUR, expectation=Expectation(every=26 * HOUR, source="configured"), snapshot="tue"
    )
    never = dataset("tank/old", age=40 * DAY, expectation=Expectation(every=None, source="configured"))
    new = dataset("tank/new", age=120.0, expectation=Expectation(every=7 * DAY, source="unknown"), snapshot=None)
    found = list(
        lines(overview(dataset(), late, never, new, alarms=(LATE,)), DAEMON, ["daemon   x"], PLAIN, more=False)
    )
    assert found == [
        "WARNING: it is late",
        "DATASET          NEWEST    AGE  EXPECTED       STREAMS   STORED  OLDEST CHECK  STATE",
        "alpha/tank/home  @mon       1h  1d (learnt)         12  1.0 GiB            3d  ok",
        "alpha/tank/vm    @tue    2d 1h  1d 2h               12  1.0 GiB            3d  late",
        "alpha/tank/old   @mon      40d  never               12  1.0 GiB            3d  ok",
        "alpha/tank/new   -          2m  not known yet       12  1.0 GiB            3d  ok",
        "WARNING   late: it is late (since 2026-11-23T00:00:00Z)",
        "disk     50.0 GiB of 100.0 GiB free",
        "daemon   x",
    ]


def test_more_has_more_columns_and_each_sender() -> None:
    about = overview(dataset(drill=DRILL, unchecked=3), quota=4 * GIB, partials=1, partial_bytes=GIB)
    head, table, row, sender, *_rest = lines(about, DAEMON, [], PLAIN, more=True)
    assert head.startswith("OK: ")
    assert table.split()[-9:] == [
        "STATE",
        "CREATED",
        "RECEIVED",
        "UNCHANGED",
        "FULLS",
        "CHAIN",
        "RAW",
        "UNCHECKED",
        "DRILL",
    ]
    assert row.endswith(
        "2026-11-23T22:00:00Z  2026-11-23T23:00:00Z  -              1  2 streams, 1.0 GiB  3.0 GiB          3  FAILED"
        " 2026-11-23T00:00:00Z"
    )
    assert sender == ("sender   alpha: 1.0 GiB stored, 2.0 GiB of its quota of 4.0 GiB used, 1 partial stream, 1.0 GiB")


def test_a_sender_that_is_not_enrolled_is_named() -> None:
    about = overview(dataset())
    about = replace(about, senders=(replace(about.senders[0], enrolled=False),))
    assert any("is not enrolled" in line for line in lines(about, DAEMON, [], PLAIN, more=False))


def test_a_disk_that_fills_says_when() -> None:
    about = replace(overview(dataset()), full_at=NOW + DAY)
    found = list(lines(about, DAEMON, [], PLAIN, more=False))
    assert found[-1] == "disk     50.0 GiB of 100.0 GiB free, full at about 2026-11-25T00:00:00Z at the present rate"


def test_the_copies_in_another_store_have_a_line() -> None:
    copy = CopyOverview(to="/offsite", complete=NOW - HOUR, age=HOUR, ok=True, named=(("alpha/x", "no room"),))
    about = replace(overview(dataset()), copy=copy)
    assert [*lines(about, DAEMON, [], PLAIN, more=False)][-1] == (
        "copy     /offsite: all that was stored at 2026-11-23T23:00:00Z, 1:00:00 ago, is there; the last run: 0"
        " streams, 0 B copied"
    )
    said = facts(about, DAEMON, None)["copy"]
    assert (said["to"], said["complete"], said["age"]) == ("/offsite", "2026-11-23T23:00:00Z", 3600)
    assert said["named"] == [{"file": "alpha/x", "why": "no room"}]
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    (described,) = re.findall(r"^- `copy`: how the copies (.*?)^- ", page, re.MULTILINE | re.DOTALL)
    assert [name for name in said if f"`{name}`" not in described] == []
    assert facts(overview(dataset()), DAEMON, None)["copy"] is None


def test_colours_repeat_what_the_text_says() -> None:
    about = overview(dataset(), dataset("tank/vm"), alarms=(FULL, LATE))
    coloured = list(lines(about, DAEMON, [], Painter(colours=True), more=False))
    assert coloured[0] == "\033[31mCRITICAL\033[0m: it is full; it is late"
    assert any(line.endswith("\033[33mlate\033[0m") for line in coloured)
    assert any(line.endswith("\033[32mok\033[0m") for line in coloured)


def test_names_write_nothing_to_the_terminal() -> None:
    alarm = replace(LATE, text="a\x1b[2J", dataset="tank/\x1b")
    about = overview(dataset("tank/\x1b", snapshot="\x1b"), alarms=(alarm,))
    assert not any("\x1b" in line for line in lines(about, DAEMON, [], PLAIN, more=True))


def test_the_json_object_is_that_of_the_documents() -> None:
    silent = replace(LATE, dataset=None)
    about = overview(dataset(drill=DRILL, age=50 * HOUR), alarms=(silent,), quota=4 * GIB)
    found = json.loads(json.dumps(facts(about, DAEMON, None)))
    assert (found["format"], found["state"], found["why"]) == (FORMAT, "WARNING", "it is late")
    assert found["alarms"] == [
        {
            "code": "late",
            "level": "warning",
            "sender": "alpha",
            "dataset": None,
            "since": "2026-11-23T00:00:00Z",
            "text": "it is late",
        }
    ]
    (sender,) = found["senders"]
    (one,) = sender.pop("datasets")
    assert sender == {
        "sender": "alpha",
        "enrolled": True,
        "stored_bytes": GIB,
        "used_bytes": 2 * GIB,
        "quota_bytes": 4 * GIB,
        "partials": 0,
        "partial_bytes": 0,
    }
    assert (one["state"], one["age"], one["late"]) == ("WARNING", 50 * 3600, True)
    assert (one["expected_every"], one["late_after"], one["expected_by"]) == (DAY, 1.5 * DAY, "learnt")
    assert (one["received"], one["unchanged"]) == ("2026-11-23T23:00:00Z", None)
    assert one["drill"]["ok"] is False
    assert found["disk"] == {
        "free_bytes": 50 * GIB,
        "size_bytes": 100 * GIB,
        "min_free_bytes": GIB,
        "full_at": None,
    }
