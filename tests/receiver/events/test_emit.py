from __future__ import annotations

import logging

import pytest

from fullsend_receiver.events.emit import emit, event_of, level_name
from fullsend_receiver.events.records import DaemonStopped


def test_an_event_is_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    event = DaemonStopped(text="stopped at 100 %s")
    emit(event, logging.ERROR)
    (record,) = caplog.records
    assert record.getMessage() == "stopped at 100 %s"
    assert event_of(record) is event
    assert level_name(record) == "error"


def test_a_line_that_is_no_event_has_none(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("fullsendd").warning("only a line")
    assert event_of(caplog.records[0]) is None
