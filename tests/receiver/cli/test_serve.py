"""`fullsendd serve`: how it starts and ends. What it does is in tests/receiver/test_daemon.py."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.receiver.running import Receiver


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_it_serves_until_a_signal_and_logs_as_is_configured(receiver: Receiver, log_format: str) -> None:
    receiver.set(log_format=log_format)
    receiver.start()
    assert receiver.stop() == 0
    first, *_ = receiver.log_file.read_text(encoding="utf-8").splitlines()
    if log_format == "json":
        assert json.loads(first)["level"] == "info"
    else:
        assert "INFO: " in first
