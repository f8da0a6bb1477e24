"""`fullsendd pin`."""

from __future__ import annotations

import json
from pathlib import PurePosixPath

import pytest
from tests.receiver.helpers import remove
from tests.receiver.running import Receiver

from fullsend_protocol.shared.errors import UsageError
from fullsend_protocol.shared.units import format_time
from fullsend_receiver.catalogue.pins import read_pins
from fullsend_receiver.cli.pin import parse_until
from fullsend_receiver.store.local import LocalStore

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z


def test_pin_is_shown(filled: tuple[Receiver, PurePosixPath, PurePosixPath]) -> None:
    receiver, full, incr = filled
    assert (
        receiver.fullsendd("pin", f"alpha/{incr.name}", "--until", "90d", "--note", "before the move").returncode == 0
    )
    rows = {row["file"]: row["pinned"] for row in receiver.listed()}
    assert rows[str(full)] is None
    assert rows[str(incr)]["note"] == "before the move"
    until = rows[str(incr)]["until"]
    assert f", pinned until {until}" in receiver.fullsendd("list").stdout
    shown = json.loads(receiver.fullsendd("show", f"alpha/{incr.name}", "--json").stdout)
    assert shown["pinned"] == rows[str(incr)]
    assert "before the move" in receiver.fullsendd("show", f"alpha/{incr.name}").stdout


def test_pin_without_end(filled: tuple[Receiver, PurePosixPath, PurePosixPath]) -> None:
    receiver, full, _incr = filled
    assert receiver.fullsendd("pin", f"alpha/{full.name}").returncode == 0
    (line,) = [line for line in receiver.fullsendd("list").stdout.splitlines() if line.endswith(", pinned")]
    assert "full" in line


def test_pin_of_what_is_not_stored(filled: tuple[Receiver, PurePosixPath, PurePosixPath]) -> None:
    receiver, _full, _incr = filled
    assert receiver.fullsendd("pin", "alpha/tank/none@s").returncode == 1
    assert receiver.fullsendd("pin", "alpha").returncode == 2


def test_pin_of_what_is_pruned_at_this_moment_is_no_pin(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath], monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, _full, incr = filled
    store = LocalStore(receiver.store)
    monkeypatch.setattr(LocalStore, "wait_for_removals", lambda _self: remove(store, incr))
    done = receiver.fullsendd("pin", f"alpha/{incr.name}")
    assert done.returncode == 1
    assert "was removed at this moment" in done.stderr
    assert read_pins(store.documents) == {}


@pytest.mark.parametrize(
    ("text", "until"),
    [
        ("90d", format_time(NOW + 90 * 86400)),
        ("2027-01-15", "2027-01-16T00:00:00Z"),
        ("2027-06-30", "2027-07-01T00:00:00Z"),
        ("2027-01-15T08:00:01Z", "2027-01-15T08:00:01Z"),
    ],
)
def test_end_of_a_pin(text: str, until: str) -> None:
    assert format_time(parse_until(text, NOW)) == until


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2027-01-14", "is over already"),
        ("2027-01-15T08:00:00Z", "is over already"),
        ("0s", "is over already"),
        ("soon", "neither a duration"),
        ("2027-13-01", "neither a duration"),
        ("9999-12-31", "neither a duration"),
    ],
)
def test_end_that_is_none(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parse_until(text, NOW)
