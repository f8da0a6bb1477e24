from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fullsend_receiver.maintenance.clock import (
    Reading,
    SystemClock,
    accept,
    note,
    objection,
    read_note,
)

if TYPE_CHECKING:
    from fullsend_receiver.store.local import LocalStore

DAY = 86400.0
T0 = 1_800_000_000.0


def at(wall: float, boottime: float = 1000.0, boot_id: str = "one") -> Reading:
    return Reading(T0 + wall, boottime, boot_id)


@pytest.mark.parametrize(
    ("now", "why"),
    [
        (at(600, 1600), None),
        (at(6.9 * DAY, 1600), None),
        (at(7.1 * DAY, 1600), "has jumped ahead:"),
        (at(7.1 * DAY, 1000 + 7.1 * DAY), None),  # a daemon that did not run, on a machine that did
        (at(20 * DAY, 1000 + 10 * DAY), "has jumped ahead:"),
        (at(6.9 * DAY, 10, "two"), None),
        (at(7.1 * DAY, 10, "two"), "this host was off for so long"),
        (at(-3000, 1600), None),
        (at(-4000, 1600), "was set back"),
        (at(-4000, 10, "two"), "was set back"),
        (at(600, 1000 + 2 * DAY), "was set back"),
        (at(600, 10, "one"), None),  # a virtual machine that was put back
    ],
)
def test_clock_is_compared_with_the_last_note(store: LocalStore, now: Reading, why: str | None) -> None:
    assert note(store.documents, at(0)) is None
    said = objection(store.documents, now, 0.0)
    assert (said is None) if why is None else (said is not None and why in said)
    assert note(store.documents, now) == said
    noted = read_note(store.documents)
    assert noted is not None
    assert noted.wall == (now.wall if why is None else T0)


def test_clock_that_is_right_again_needs_no_word(store: LocalStore) -> None:
    note(store.documents, at(0))
    assert note(store.documents, at(400 * DAY, 1600)) is not None
    assert note(store.documents, at(1200, 2200)) is None
    assert objection(store.documents, at(1800, 2800), 0.0) is None


def test_clock_that_was_accepted_is_the_one_to_go_by(store: LocalStore) -> None:
    note(store.documents, at(0))
    now = at(30 * DAY, 10, "two")
    assert objection(store.documents, now, T0) is not None
    accept(store.documents, now, T0)
    assert objection(store.documents, now, T0) is None
    assert note(store.documents, at(30 * DAY + 600, 610, "two")) is None


def test_clock_before_the_newest_reception_is_refused_until_it_is_accepted(store: LocalStore) -> None:
    note(store.documents, at(0))
    now = at(600, 1600)
    newest = T0 + DAY
    assert "a stream was received at" in (objection(store.documents, now, newest) or "")
    accept(store.documents, now, newest)
    assert objection(store.documents, now, newest) is None
    # A later one counts again.
    assert objection(store.documents, now, newest + 1) is not None
    accept(store.documents, now, 0.0)
    assert objection(store.documents, now, newest) is None


def test_without_a_note_the_newest_reception_stands_for_it(store: LocalStore) -> None:
    assert objection(store.documents, at(0), 0.0) is None
    assert objection(store.documents, at(0), T0 - 6 * DAY) is None
    assert "no daemon has noted the clock" in (objection(store.documents, at(0), T0 - 8 * DAY) or "")


@pytest.mark.parametrize("content", [b"", b"[]", b'{"format": 1, "wall": "x"}', b'{"format": 1, "wall": NaN}'])
def test_note_that_cannot_be_read_is_none(store: LocalStore, content: bytes) -> None:
    (store.state / "clock.json").write_bytes(content)
    assert read_note(store.documents) is None
    assert note(store.documents, at(0)) is None
    assert read_note(store.documents) is not None


def test_clocks_of_this_host() -> None:
    one, other = SystemClock().read(), SystemClock().read()
    assert one.boot_id == other.boot_id
    assert one.boottime <= other.boottime
