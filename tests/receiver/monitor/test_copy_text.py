"""The copies in another store in words."""

from __future__ import annotations

from typing import Any, Final

import pytest

from fullsend_receiver.monitor.copy_text import copy_line
from fullsend_receiver.monitor.overview import CopyOverview

HOUR: Final = 3600.0
NOW: Final = 1_795_478_400.0  # 2026-11-24T00:00:00Z
DONE: Final[dict[str, Any]] = {
    "complete": NOW - HOUR,
    "age": HOUR,
    "began": NOW - HOUR,
    "ended": NOW,
    "ok": True,
    "streams": 2,
    "stored_bytes": 1 << 30,
}
IS_THERE: Final = "all that was stored at 2026-11-23T23:00:00Z, 1:00:00 ago, is there"


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({}, "no copy of all that is wanted was complete yet"),
        ({"fault": "/o.toml: no such file"}, "/o.toml: no such file"),
        (DONE, f"{IS_THERE}; the last run: 2 streams, 1.0 GiB copied"),
        (
            DONE | {"age": None},
            "all that was stored at 2026-11-23T23:00:00Z, is there; the last run: 2 streams",
        ),
        (
            DONE | {"began": NOW, "ended": None, "host": "nas"},
            f"{IS_THERE}; a run that began at 2026-11-24T00:00:00Z on nas has not ended: it runs, or was killed",
        ),
        (
            DONE | {"ok": False, "why": "the store is away"},
            f"{IS_THERE}; the last run has failed: the store is away (2 streams, 1.0 GiB copied)",
        ),
        (
            DONE | {"ok": False, "left": 3, "named": (("alpha/x", "no room"), ("alpha/y", "no room"))},
            f"{IS_THERE}; the last run has left 3 streams behind, such as alpha/x: no room (2 streams, 1.0 GiB copied)",
        ),
        (
            DONE | {"older": 1},
            "copied; 1 older stream not copied (`fullsendd copy --all` copies",
        ),
    ],
)
def test_the_line_says_what_is_there_and_what_is_not(said: dict[str, Any], text: str) -> None:
    assert text in copy_line(CopyOverview(to="/offsite", **said))


def test_what_a_name_has_is_printable() -> None:
    assert "\x1b" not in copy_line(CopyOverview(to="/off\x1bsite", **DONE))
