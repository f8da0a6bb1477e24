from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from fullsend_receiver.maintenance.clock import (
    SYNC_WAIT,
    Reading,
    SystemClock,
    accept,
    likely,
    note,
    objection,
    read_note,
    waits_for,
)

if TYPE_CHECKING:
    from fullsend_receiver.store.local import LocalStore

DAY = 86400.0
HOUR = 3600.0
T0 = 1_800_000_000.0


def at(wall: float, boottime: float = 1000.0, boot_id: str = "one", *, synchronised: bool | None = None) -> Reading:
    return Reading(T0 + wall, boottime, boot_id, synchronised)


@dataclass(frozen=True)
class Still:
    """A clock that stands."""

    now: Reading

    def read(self) -> Reading:
        return self.now


def noted(store: LocalStore, now: Reading, newest: float = 0.0) -> str | None:
    """Note the clock as this. `newest`: the newest reception."""
    return note(store.documents, Still(now), lambda: newest)


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
    assert noted(store, at(0)) is None
    said = objection(store.documents, now, 0.0)
    assert (said is None) if why is None else (said is not None and why in said)
    assert noted(store, now) == said
    last = read_note(store.documents)
    assert last is not None
    assert last.wall == (now.wall if why is None else T0)


def test_clock_that_is_right_again_needs_no_word(store: LocalStore) -> None:
    noted(store, at(0))
    assert noted(store, at(400 * DAY, 1600)) is not None
    assert noted(store, at(1200, 2200)) is None
    assert objection(store.documents, at(1800, 2800), 0.0) is None


def test_clock_that_was_accepted_is_the_one_to_go_by(store: LocalStore) -> None:
    noted(store, at(0))
    now = at(30 * DAY, 10, "two")
    assert objection(store.documents, now, T0) is not None
    accept(store.documents, now, T0)
    assert objection(store.documents, now, T0) is None
    assert noted(store, at(30 * DAY + 600, 610, "two")) is None


def test_clock_before_the_newest_reception_is_refused_until_it_is_accepted(store: LocalStore) -> None:
    noted(store, at(0))
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


def test_first_note_is_one_that_the_newest_reception_agrees_with(store: LocalStore) -> None:
    assert noted(store, at(0), T0 - 6 * DAY) is None
    last = read_note(store.documents)
    assert last is not None
    assert last.wall == T0


def test_clock_years_ahead_is_not_noted_in_a_store_without_a_note(store: LocalStore) -> None:
    """As in a copy of a store. What comes by that clock does not make it the right one."""
    wrong = at(3 * 365 * DAY)
    assert "no daemon has noted the clock" in (noted(store, wrong, T0) or "")
    assert "has jumped ahead, or this host was off" in (objection(store.documents, wrong, T0 + 3 * 365 * DAY) or "")
    assert "has jumped ahead" in (noted(store, at(3 * 365 * DAY + 600, 1600), wrong.wall) or "")
    assert likely(store.documents, wrong) == T0 + 1000
    assert noted(store, at(DAY, 2200), T0) is None  # a time server has set it
    assert objection(store.documents, at(DAY, 2200), T0) is None


def test_clock_years_ahead_that_a_person_accepts_is_the_right_one(store: LocalStore) -> None:
    now = at(3 * 365 * DAY)
    assert noted(store, now, T0) is not None
    accept(store.documents, now, T0)
    assert objection(store.documents, now, T0) is None
    assert noted(store, at(3 * 365 * DAY + 600, 1600), T0) is None


def test_reception_in_the_future_is_no_note(store: LocalStore) -> None:
    assert "a stream was received at" in (noted(store, at(0), T0 + DAY) or "")
    assert read_note(store.documents) is None
    assert noted(store, at(2 * DAY), T0 + DAY) is None


def test_stream_that_comes_while_the_store_is_looked_at_is_not_from_the_future(store: LocalStore) -> None:
    times = iter([at(60)])
    clock = Still(at(0))

    def newest() -> float:
        object.__setattr__(clock, "now", next(times))
        return T0 + 30

    assert note(store.documents, clock, newest) is None


@pytest.mark.parametrize("content", [b"", b"[]", b'{"format": 1, "wall": "x"}', b'{"format": 1, "wall": NaN}'])
def test_note_that_cannot_be_read_is_none(store: LocalStore, content: bytes) -> None:
    (store.state / "clock.json").write_bytes(content)
    assert read_note(store.documents) is None
    assert noted(store, at(0)) is None
    assert read_note(store.documents) is not None


def test_clocks_of_this_host() -> None:
    one, other = SystemClock().read(), SystemClock().read()
    assert one.boot_id == other.boot_id
    assert one.boottime <= other.boottime


class Hidden:
    """A file in a folder that cannot be seen."""

    def read_text(self, **_options: Any) -> str:
        raise FileNotFoundError(2, "No such file or directory")


def test_boot_is_the_one_that_the_service_is_told_of_where_the_kernel_hides_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """fullsendd.service hides it from the daemon, and not from commands: both must note the same."""
    here = SystemClock().read().boot_id
    assert len(here) == 32
    monkeypatch.setenv("FULLSENDD_BOOT_ID", here)
    monkeypatch.setattr("fullsend_receiver.maintenance.clock.Path", lambda _path: Hidden())
    assert SystemClock().read().boot_id == here
    monkeypatch.delenv("FULLSENDD_BOOT_ID")
    assert not SystemClock().read().boot_id


# --- time servers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("synchronised", "waits"), [(True, False), (None, False), (False, True)])
def test_prune_waits_where_it_is_said_that_no_time_server_has_set_the_clock(
    store: LocalStore, synchronised: bool | None, waits: bool
) -> None:
    now = at(0, synchronised=synchronised)
    assert (waits_for(store.documents, now) is not None) is waits
    noted(store, now)
    assert (waits_for(store.documents, now) is not None) is waits


def test_time_server_that_is_away_later_is_not_waited_for(store: LocalStore) -> None:
    """The kernel forgets it when no server has answered for some hours. The clock has not become wrong."""
    noted(store, at(0, synchronised=True))
    later = at(9 * HOUR, 1000 + 9 * HOUR, synchronised=False)
    assert waits_for(store.documents, later) is None
    noted(store, later)
    assert waits_for(store.documents, at(10 * HOUR, 1000 + 10 * HOUR, synchronised=False)) is None
    assert waits_for(store.documents, at(10 * HOUR, 10, "two", synchronised=False)) is not None


def test_host_without_a_time_server_waits_for_so_long_over_all_its_starts(store: LocalStore) -> None:
    """A host that is switched off each night gets its prune as well."""
    waited = []
    for start in range(4):
        for hours in range(0, 10, 3):
            now = at(start * DAY + hours * HOUR, 10 + hours * HOUR, f"boot {start}", synchronised=False)
            waited.append(waits_for(store.documents, now) is not None)
            noted(store, now)
    # Four looks a start, at 0, 3, 6 and 9 hours: the first day of running is over at the third look of the third start.
    assert waited == [True] * 10 + [False] * 6
    noted(store, at(5 * DAY, 10, "boot 5", synchronised=True))
    assert waits_for(store.documents, at(6 * DAY, 10, "boot 6", synchronised=False)) is not None


def test_host_that_has_run_for_long_when_it_is_first_seen_waits_for_nothing(store: LocalStore) -> None:
    now = at(0, SYNC_WAIT, synchronised=False)
    assert waits_for(store.documents, now) is None
    of_before = '{"format": 1, "wall": 1.0, "boottime": 1.0, "boot_id": "one"}'
    (store.state / "clock.json").write_text(of_before, encoding="ascii")
    assert waits_for(store.documents, now) is None


def test_clock_that_a_person_has_accepted_waits_for_no_time_server_before_the_next_start(store: LocalStore) -> None:
    now = at(0, 1000, synchronised=False)
    noted(store, now)
    assert waits_for(store.documents, now) is not None
    accept(store.documents, now, 0.0)
    assert waits_for(store.documents, now) is None
    noted(store, at(HOUR, 1000 + HOUR, synchronised=False))
    assert waits_for(store.documents, at(2 * HOUR, 1000 + 2 * HOUR, synchronised=False)) is None
    assert waits_for(store.documents, at(2 * HOUR, 10, "two", synchronised=False)) is not None


def test_boot_that_nobody_knows_is_taken_for_the_same_one(store: LocalStore) -> None:
    """Otherwise each note would count all time since the boot again."""
    for hours in range(20):
        now = at(hours * HOUR, hours * HOUR, "", synchronised=False)
        noted(store, now)
        assert waits_for(store.documents, now) is not None
