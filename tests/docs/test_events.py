"""docs/events.md says what the code does; tests/docs/events.jsonl has a line of each event, as programs read it."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from pathlib import Path
from typing import Any, Final

import pytest
from tests.receiver.events.test_records import all_events
from tests.test_house import ROOT

from fullsend_receiver.access.hook_settings import HOOK_NAMES
from fullsend_receiver.events.records import Event, facts_of
from fullsend_receiver.monitor.hook_events import HOOK_OF_ALARM, HOOK_OF_EVENT
from fullsend_receiver.store import event_journal, event_recorder

PAGE: Final = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
GOLDEN: Final = Path(__file__).parent / "events.jsonl"
#: A value of each type that a field has.
SAMPLES: Final[dict[str, Any]] = {"str": "text", "int": 7, "float": 1.5, "bool": True, "list[str]": ["a", "b"]}


def sample(kind: type[Event]) -> Event:
    """An event of this kind, with made-up values."""
    values = {each.name: SAMPLES[str(each.type)] for each in dataclasses.fields(kind) if each.name != "text"}
    return kind(text="what has happened", **values)


def table(title: str) -> dict[str, list[str]]:
    """The rows of the first table behind a heading or a line, by their first cells."""
    rows = re.search(rf"{re.escape(title)}\n\n\|.*\n\| ---.*\n((?:\|.*\n)+)", PAGE)
    assert rows is not None, title
    cells = [[cell.strip() for cell in line.strip("| \n").split(" | ")] for line in rows[1].splitlines()]
    return {row[0].strip("`"): row[1:] for row in cells}


def test_each_event_is_described_with_its_fields_in_their_order() -> None:
    described = {name: re.findall(r"`(\w+)`", row[0]) for name, row in table("## The events").items()}
    assert described == {
        kind.name: [each.name for each in dataclasses.fields(kind) if each.name != "text"] for kind in all_events()
    }


def test_the_fields_of_every_line_are_described() -> None:
    (kind,) = (each for each in all_events() if each.name == "stopped")
    assert list(table("Each line has:")) == list(facts_of(kind(text="x"), at=0, level="info"))


def test_each_event_names_its_hook() -> None:
    rows = (re.search(r"^\| `([\w-]+)` \|.*\| ([^|]*) ?\|$", line) for line in PAGE.splitlines())
    named = {row[1]: row[2] for row in rows if row is not None}
    for kind in all_events():
        said = re.findall(r"`(on-[\w-]+)`", named[kind.name])
        assert said == ([HOOK_OF_EVENT[kind.name]] if kind.name in HOOK_OF_EVENT else []), kind.name


def test_the_hooks_of_alarms_are_those_of_the_code() -> None:
    rows = table("An alarm's hook is that of its `code`:")
    said = {code: hook for hook, row in rows.items() for code in re.findall(r"`([\w-]+)`", row[0])}
    assert said == HOOK_OF_ALARM
    assert set(rows) <= set(HOOK_NAMES)


def test_the_figures_are_those_of_the_code() -> None:
    assert f"Events wait in memory, {event_recorder.WAITING_MAX:,} at most" in PAGE
    size = event_journal.SEGMENT_MAX >> 20
    assert f"{size * event_journal.SEGMENTS_KEPT} MiB" in PAGE
    assert f"four files of {size} MiB" in PAGE
    assert event_journal.SEGMENTS_KEPT == 4


@pytest.mark.parametrize("kind", all_events(), ids=lambda kind: kind.name)
def test_a_line_is_as_it_was(kind: type[Event]) -> None:
    """A program that reads it may be older. To add an event: add its line. To add a field: at its line's end."""
    golden = {json.loads(line)["event"]: line for line in GOLDEN.read_text(encoding="ascii").splitlines()}
    line = event_recorder._line(sample(kind), 1_700_000_000.0, logging.getLevelName(logging.INFO).lower())
    said = json.loads(line)
    assert re.fullmatch(r"fullsendd \d+\.\d+\.\d+\S*", said["program"])
    said["program"] = "fullsendd VERSION"
    assert json.dumps(said) == golden[kind.name]


def test_no_event_was_removed() -> None:
    golden = [json.loads(line)["event"] for line in GOLDEN.read_text(encoding="ascii").splitlines()]
    assert golden == [kind.name for kind in all_events()]
