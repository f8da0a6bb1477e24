"""What a push sums up."""

from __future__ import annotations

from fullsend_protocol.errors import FullsendError
from fullsend_sender.job import Summary


def test_summary() -> None:
    summary = Summary(pushed=1, stored=2, unchanged=3, failures=[("a", FullsendError("x"))])
    assert summary.line("nas") == "nas: 1 pushed, 2 stored before, 3 unchanged, 1 FAILED"
    assert Summary().line("nas") == "nas: nothing to do"
