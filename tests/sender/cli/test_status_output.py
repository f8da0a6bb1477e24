from __future__ import annotations

from typing import Any

from fullsend_cli.tables import Painter
from fullsend_protocol.shared.exit_codes import NagiosState
from fullsend_protocol.wire import messages
from fullsend_sender.cli.status_output import lines
from fullsend_sender.monitor.all_receivers import ReceiverPart, UnknownReceiver
from fullsend_sender.monitor.status import BackupState, ReceiverState

AT = "2026-11-24T00:00:00Z"
WELL = ReceiverState("nas", messages.Health(program="x", free_bytes=1, problems=[]))


def about(**said: Any) -> messages.DatasetStatus:
    given: dict[str, Any] = {
        "dataset": "tank/a",
        "snapshot": "now",
        "guid": "7",
        "created": AT,
        "received": AT,
        "begun": AT,
    }
    given |= {"unchanged": None, "streams": 3, "stored_bytes": 2048, "broken": 0, "lost_spill_count": 0}
    return messages.DatasetStatus.model_validate(given | said)


GOOD = BackupState("tank/a", NagiosState.OK, about(), 60.0)
NEVER = BackupState("tank/b", NagiosState.CRITICAL, None, None, "it has never been pushed")


def test_the_table_is_between_the_first_line_and_what_is_wrong() -> None:
    first, heading, good, never, why = lines([ReceiverPart(WELL, [GOOD, NEVER])], Painter(colours=False), more=False)
    assert first == "CRITICAL: 1 of 2 datasets: tank/b: it has never been pushed"
    assert heading.split() == ["DATASET", "NEWEST", "AGE", "STREAMS", "STORED", "DRILL", "STATE"]
    assert good.split() == ["tank/a", "@now", "0:01:00", "3", "2.0", "KiB", "-", "OK"]
    assert never.split() == ["tank/b", "-", "never", "0", "0", "B", "-", "CRITICAL"]
    assert why == NEVER.line()


def test_more_columns() -> None:
    _first, heading, good, never, _why = lines([ReceiverPart(WELL, [GOOD, NEVER])], Painter(colours=False), more=True)
    assert heading.split()[7:] == ["CREATED", "RECEIVED", "UNCHANGED", "BROKEN", "GUID"]
    assert good.split()[8:] == [AT, AT, "-", "0", "7"]
    assert never.split()[7:] == ["CRITICAL"] + ["-"] * 5


def test_colour_repeats_the_state() -> None:
    plain = list(lines([ReceiverPart(WELL, [GOOD, NEVER])], Painter(colours=False), more=False))
    coloured = list(lines([ReceiverPart(WELL, [GOOD, NEVER])], Painter(colours=True), more=False))
    assert coloured[0].startswith("\x1b[31mCRITICAL\x1b[0m: ")
    assert "\x1b[32mOK\x1b[0m" in coloured[2]
    for number in "01", "31", "32", "33", "1", "0":
        coloured = [line.replace(f"\x1b[{number}m", "") for line in coloured]
    assert coloured == plain


def test_a_name_cannot_control_the_terminal() -> None:
    hostile = BackupState("tank/\x1b[2J", NagiosState.OK, about(snapshot="x\x07"), 1.0)
    for line in lines([ReceiverPart(WELL, [hostile])], Painter(colours=False), more=True):
        assert line.isprintable()


def test_nothing_stored_has_no_table() -> None:
    assert list(lines([ReceiverPart(WELL)], Painter(colours=False), more=False)) == ["UNKNOWN: nothing is stored"]


def test_several_receivers_are_named_in_each_line() -> None:
    parts = [ReceiverPart(WELL, [GOOD]), ReceiverPart(UnknownReceiver("far", "away"))]
    first, heading, good, why = lines(parts, Painter(colours=False), more=False)
    assert first.startswith("UNKNOWN: receiver far: away; receiver nas: 1 dataset, ")
    assert heading.split()[:2] == ["RECEIVER", "DATASET"]
    assert good.split()[:2] == ["nas", "tank/a"]
    assert why == "UNKNOWN   receiver far: away"
    (coloured,) = list(lines(parts, Painter(colours=True), more=False))[3:]
    assert coloured.startswith("\x1b[33mUNKNOWN\x1b[0m   receiver far")
