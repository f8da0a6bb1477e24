"""What one dataset fails at, in one line."""

from __future__ import annotations

import logging

import pytest

from fullsend_protocol.shared.errors import UsageError
from fullsend_sender.host.failures import UnexpectedError, as_failure, log_failure

_log = logging.getLogger("fullsend.test")


def test_what_is_foreseen_is_left_as_it_is() -> None:
    error = UsageError("wrong")
    assert as_failure(error) is error


def test_what_nobody_foresees_is_one_line_with_its_class() -> None:
    error = ValueError("one\ntwo " + "x" * 1000)
    failure = as_failure(error)
    assert isinstance(failure, UnexpectedError)
    assert failure.__cause__ is error
    assert str(failure).startswith("ValueError: one two xxx")
    assert str(failure).endswith(" (--debug shows more)")
    assert len(str(failure)) < 600


@pytest.mark.parametrize("debug", [False, True])
def test_the_traceback_comes_with_debug_alone(caplog: pytest.LogCaptureFixture, *, debug: bool) -> None:
    log_failure(_log, "tank/a", as_failure(ValueError("odd")), debug=debug)
    assert "tank/a: ValueError: odd" in caplog.text
    assert (caplog.records[0].exc_info is not None) == debug
