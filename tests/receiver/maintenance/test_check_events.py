from __future__ import annotations

import logging
from pathlib import PurePosixPath
from typing import Any

import pytest

from fullsend_receiver.catalogue.scrub_results import Scrubbed
from fullsend_receiver.events.emit import event_of
from fullsend_receiver.events.records import fields_of
from fullsend_receiver.maintenance.check_events import CheckCounts, report_check
from fullsend_receiver.maintenance.verify import Checked, Subject

SUBJECT = Subject(PurePosixPath("alpha/tank/@now.1.full.zfs.zst"), "tank", "now", "2026-11-28T00:00:00Z", 7)


def checked(*, healed: bool = False, **result: Any) -> Checked:
    about: dict[str, Any] = {
        "file": str(SUBJECT.file),
        "at": "2026-11-28T00:00:00Z",
        "received": SUBJECT.received,
        "sha256": None,
    }
    return Checked(SUBJECT, Scrubbed(**about, **result), (), None, healed=healed)


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, dict[str, object]]]:
    events = [(record, event_of(record)) for record in caplog.records]
    return [(event.name, record.levelname, fields_of(event)) for record, event in events if event is not None]


def test_a_stream_that_is_whole_is_no_event(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    report_check(checked(damage=()), "sda")
    assert caplog.records == []


def test_damage_and_its_end_and_what_cannot_be_read_are_events(caplog: pytest.LogCaptureFixture) -> None:
    report_check(checked(damage=("chunk 3: wrong", "more")), "sda")
    report_check(checked(damage=(), healed=True), "sda")
    report_check(checked(damage=(), unreadable="Input/output error"), "sda")
    about = {"sender": "alpha", "dataset": "tank", "snapshot": "now", "file": str(SUBJECT.file)}
    assert said(caplog) == [
        ("damaged", "ERROR", about | {"why": "chunk 3: wrong"}),
        ("whole-again", "WARNING", about | {"how": "checked"}),
        ("unreadable", "ERROR", about | {"why": "Input/output error"}),
    ]
    assert "(disk sda)" in caplog.messages[-1]


def test_checks_are_counted() -> None:
    counts = CheckCounts()
    for found in (checked(damage=("x",)), checked(damage=()), checked(damage=(), unreadable="x")):
        counts.add(found)
    assert counts == CheckCounts(streams=3, damaged=1, unreadable=1)
