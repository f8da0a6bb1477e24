from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullsend_receiver.monitor.sizes import Look, Sizes, full_at, noted, read, write

if TYPE_CHECKING:
    from fullsend_receiver.store.local import LocalStore

DAY: Final = 86400.0
NOW: Final = 1e9
TODAY: Final = 740_000
GIB: Final = 1 << 30


def test_a_day_is_noted_once() -> None:
    first = noted(Sizes(), Look(TODAY, 10, 100, {"alpha": {"tank": 5}}))
    assert (first.disk, first.of("alpha", "tank")) == ([(TODAY, 10, 100)], [(TODAY, 5)])
    assert noted(first, Look(TODAY, 90, 100, {})) is first
    second = noted(first, Look(TODAY + 1, 12, 100, {"alpha": {"tank": 6, "new": 1}}))
    assert second.disk == [(TODAY, 10, 100), (TODAY + 1, 12, 100)]
    assert second.of("alpha", "tank") == [(TODAY, 5), (TODAY + 1, 6)]
    assert second.of("alpha", "new") == [(TODAY + 1, 1)]


def test_what_is_gone_is_remembered_until_that_is_settled() -> None:
    sizes = noted(Sizes(), Look(TODAY, 10, 100, {"alpha": {"tank": 4}}))
    sizes = noted(sizes, Look(TODAY + 1, 10, 100, {"alpha": {"tank": 5}}))
    for day in range(2, 30):
        sizes = noted(sizes, Look(TODAY + day, 10, 100, {}))
        assert (TODAY + 1, 5) in sizes.of("alpha", "tank")
    assert len(sizes.of("alpha", "tank")) == 8
    assert noted(sizes, Look(TODAY + 30, 10, 100, {}, settled={("alpha", "tank")})).stored == {}
    # What comes again is noted as before.
    for day in range(30, 40):
        sizes = noted(sizes, Look(TODAY + day, 10, 100, {"alpha": {"tank": 6}}))
    assert sizes.of("alpha", "tank") == [(TODAY + day, 6) for day in range(32, 40)]


def test_a_clock_that_was_wrong_for_a_day_takes_nothing_away() -> None:
    sizes = noted(Sizes(), Look(TODAY, 10, 100))
    ahead = noted(sizes, Look(TODAY + 365, 11, 100))
    back = noted(ahead, Look(TODAY + 1, 12, 100))
    assert back.disk == [(TODAY, 10, 100), (TODAY + 365, 11, 100), (TODAY + 1, 12, 100)]
    # The day of the wrong clock lies in the future, and makes no rate.
    assert (
        full_at(back.disk, now=NOW, today=TODAY + 4, used=50, limit=100)
        == NOW + 50 / ((50 - 10) / 4 + (50 - 12) / 3) * 2 * DAY
    )


def test_the_document_is_kept(store: LocalStore) -> None:
    assert read(store.documents) == Sizes()
    sizes = noted(Sizes(), Look(TODAY, 10, 100, {"alpha": {"tank": 5}}))
    write(store.documents, sizes)
    assert read(store.documents) == sizes


def test_unknown_keys_are_ignored_and_what_is_spoilt_is_made_anew(
    store: LocalStore, caplog: pytest.LogCaptureFixture
) -> None:
    path = store.state / "sizes.json"
    path.write_bytes(b'{"format": 1, "later": 1, "disk": [[1, 2, 3]]}')
    assert read(store.documents).disk == [(1, 2, 3)]
    path.write_bytes(b'{"format": 1, "disk": [[1, 2')
    assert read(store.documents) == Sizes()
    assert "sizes.json: cannot be read, and is made anew" in caplog.text


# --- the forecast


@given(rate=st.integers(1, 50), days=st.integers(3, 30), left=st.integers(1, 10_000))
def test_a_steady_rate_fills_the_disk_when_it_is_used_up(rate: int, days: int, left: int) -> None:
    used = 100_000
    disk = [(TODAY - back, used - back * rate, 10**6) for back in range(days, 0, -1)]
    at = full_at(disk, now=NOW, today=TODAY, used=used, limit=used + left)
    expected = left / rate
    if expected > 365:
        assert at is None
    else:
        assert at is not None
        assert abs((at - NOW) / DAY - expected) < 1e-6


def test_one_large_full_makes_no_rate() -> None:
    """The disk grew by 100 on one day of ten, and by 1 on each other: the median sees less than half of it."""
    disk = [(TODAY - back, 1000 - back - (100 if back > 8 else 0), 10**6) for back in range(10, 0, -1)]
    at = full_at(disk, now=NOW, today=TODAY, used=1000, limit=1100)
    assert at is not None
    assert at - NOW > 90 * DAY


@pytest.mark.parametrize(
    "disk",
    [
        [],
        [(TODAY - 2, 1, 100)],  # too little is known
        [(TODAY - 5, 60, 100)],  # it shrinks
        [(TODAY - 40, 1, 100)],  # not of late
        [(TODAY - 5, 1, 50), (TODAY - 1, 49, 100)],  # another disk, a day ago
        [(TODAY + 5, 1, 100)],
    ],
)
def test_without_a_rate_there_is_no_forecast(disk: list[tuple[int, int, int]]) -> None:
    assert full_at(disk, now=NOW, today=TODAY, used=50, limit=100) is None


def test_a_full_disk_is_full_now() -> None:
    assert full_at([], now=NOW, today=TODAY, used=100, limit=100) == NOW
