from __future__ import annotations

import pytest

from fullsend_protocol.shared.errors import ErrorCode
from fullsend_receiver.arrival.bounds import Arrival, Fill, NoRoom, Overrun, Ratio, RoomRequest
from fullsend_receiver.store.errors import StreamTooLarge


def test_the_reason_comes_before_the_way_out() -> None:
    error = NoRoom("tank/data@now: the store is full", "free space on the receiver", sender="alpha", lacking=5)
    assert str(error) == "tank/data@now: the store is full: free space on the receiver"
    assert (error.code, error.sender, error.lacking) == (ErrorCode.SPACE, "alpha", 5)
    assert str(error.keeping("4.0 MiB of it (raw) are kept")) == (
        "tank/data@now: the store is full; 4.0 MiB of it (raw) are kept: free space on the receiver, then push again"
    )
    assert isinstance(Overrun("x", "y"), NoRoom)


def test_a_ratio_is_stored_by_raw() -> None:
    assert Ratio(5, 10, "").value == 0.5


@pytest.mark.parametrize(
    ("raw", "ratio", "before", "says"),
    [
        (None, None, 2000, None),
        (9000, None, 100, None),  # it may compress well
        (9000, Ratio(1, 10, "of its last streams"), 100, None),
        (9000, Ratio(1, 2, "of its last streams"), 100, "4.5 KiB in all at the ratio of its last streams"),
        (9000, None, 200, "1.1 KiB in all at best"),
    ],
)
def test_a_stream_that_is_larger_than_any_may_be_is_refused(
    raw: int | None, ratio: Ratio | None, before: int, says: str | None
) -> None:
    wanted = RoomRequest("tank/data@now", raw, ratio, before=before)
    if says is None:
        wanted.check_size(1000)
        return
    with pytest.raises(StreamTooLarge) as caught:
        wanted.check_size(1000)
    said = str(caught.value)
    assert said.startswith("tank/data@now: is too large: ")
    assert says in said
    assert "\n" not in said


async def test_a_whole_stream_reserves_nothing_and_still_counts() -> None:
    arrival = Arrival(RoomRequest("x", 100, before=7), 100)
    arrival.stored = 90
    assert (arrival.reserved, arrival.held) == (10, 97)
    arrival.whole = True
    assert (arrival.reserved, arrival.held) == (0, 97)


@pytest.mark.parametrize(
    ("fill", "refuses", "above"),
    [
        (Fill("x", 84, 100), False, False),
        (Fill("x", 86, 100), False, True),
        (Fill("x", 100, 100), True, True),
        (Fill("x", 120, 100), True, True),  # the quota was lowered
        (Fill("x", 50, 100, 51), True, False),
        (Fill("x", 50, 100, 50), False, False),
        (Fill("x", 0, 0), False, False),
        (Fill("x", 1, 0), True, True),
    ],
)
def test_how_full_something_is(fill: Fill, refuses: bool, above: bool) -> None:
    assert (fill.refuses, fill.is_above(0.85)) == (refuses, above)


def test_a_fill_is_told_in_numbers() -> None:
    assert str(Fill("the quota of alpha", 900, 1000)) == "the quota of alpha: 90% used (900 B of 1000 B)"
    assert str(Fill("the quota of alpha", 1, 0)) == "the quota of alpha: all used (1 B of 0 B)"
