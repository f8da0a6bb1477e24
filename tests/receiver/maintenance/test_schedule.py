from __future__ import annotations

import time
import tracemalloc
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullsend_protocol.shared.units import format_time, parse_time
from fullsend_receiver.catalogue.rows import Summary
from fullsend_receiver.catalogue.scrub_results import Scrubbed
from fullsend_receiver.maintenance import schedule
from fullsend_receiver.maintenance.schedule import RETRY_FIRST, RETRY_MAX, Survey, survey, total

DAY = 86400.0
NOW = 1_800_000_000.0
EVERY = 30 * DAY


def stream(name: str, received: float, *, sha256: str | None = "5c" * 32) -> Summary:
    return Summary(
        path=f"alpha/tank/{name}",
        sender="alpha",
        dataset="tank",
        snapshot=name,
        guid="1",
        base_guid=None,
        kind="full",
        dataset_type="filesystem",
        stream_class="plain",
        flags="",
        created=format_time(0),
        received=format_time(received),
        begun=None,
        sequence=None,
        raw_bytes=1000,
        stored_bytes=500,
        sha256=sha256,
        lost_spill_count=0,
    )


def result(name: str, at: float | None, *damage: str, **more: Any) -> Scrubbed:
    return Scrubbed(f"alpha/tank/{name}", "then", "" if at is None else format_time(at), damage, None, **more)


def due(*streams: tuple[Summary, Scrubbed | None], now: float = NOW, every: float = EVERY) -> list[str]:
    found = survey(streams, now=now, every=every).due
    return [each.file.rpartition("/")[2] for each in found]


def test_the_oldest_check_comes_first_whatever_the_order() -> None:
    given_ones: list[tuple[Summary, Scrubbed | None]] = [
        (stream("checked", NOW - 90 * DAY), result("checked", NOW - 31 * DAY)),
        (stream("never", NOW - 32 * DAY), None),
        (stream("long ago", NOW - 90 * DAY), result("long ago", NOW - 60 * DAY)),
        (stream("fresh", NOW - 90 * DAY), result("fresh", NOW - 29 * DAY)),
        (stream("new", NOW - 29 * DAY), None),
        (stream("in segments", NOW - DAY, sha256=None), None),
        (stream("in segments, read", NOW - DAY, sha256=None), result("in segments, read", NOW - DAY)),
    ]
    for each in permutations(given_ones, len(given_ones)):
        assert due(*each) == ["in segments", "long ago", "never", "checked"]


def test_with_no_interval_only_streams_in_segments_are_due() -> None:
    assert due((stream("old", 0), None), (stream("segments", NOW, sha256=None), None), every=0.0) == ["segments"]
    standing = survey([(stream("old", 0), None)], now=NOW, every=0.0)
    assert not standing.behind


def test_a_clock_that_was_wrong_delays_nothing() -> None:
    ahead = NOW + 3650 * DAY
    assert due((stream("a", NOW - 40 * DAY), result("a", ahead))) == ["a"]
    assert due((stream("a", ahead), None)) == ["a"]
    # It is checked once; then it has a time that counts.
    assert due((stream("a", ahead), result("a", NOW))) == []
    # Set back, the clock has everything in the future, and nothing is checked over and over.
    assert due((stream("a", NOW - 40 * DAY), result("a", NOW - 39 * DAY)), now=NOW - 39 * DAY) == []
    assert due((stream("a", NOW), None), now=NOW - DAY) == ["a"]


@pytest.mark.parametrize("tries", [1, 2, 5, 50])
def test_what_could_not_be_read_is_tried_again_later_and_later(tries: int) -> None:
    wait = min(RETRY_MAX, RETRY_FIRST * 2 ** (tries - 1))

    def unread(ago: float) -> tuple[Summary, Scrubbed | None]:
        more = {"unreadable": "Input/output error", "tried": format_time(NOW - ago), "tries": tries}
        return stream("a", NOW - 40 * DAY, sha256=None), result("a", None, **more)

    assert due(unread(wait - 60)) == []
    assert due(unread(wait + 60)) == ["a"]
    assert due(unread(-DAY)) == ["a"], "the clock was set back"


def test_how_it_stands() -> None:
    standing = survey(
        [
            (stream("checked", NOW - 90 * DAY), result("checked", NOW - DAY)),
            (stream("new", NOW - DAY), None),
            (stream("damaged", NOW - 90 * DAY), result("damaged", NOW - 2 * DAY, "chunk 0")),
            (
                stream("unread", NOW - 90 * DAY),
                result("unread", NOW - 44 * DAY, unreadable="EIO", tried=format_time(NOW), tries=1),
            ),
        ],
        now=NOW,
        every=EVERY,
    )
    assert (standing.streams, standing.current, standing.checked) == (4, 3, 3)
    assert (standing.damaged, standing.unasked, standing.unreadable) == (1, 1, 1)
    assert standing.named_damaged == ["alpha/tank/damaged"]
    assert standing.named_unreadable == [("alpha/tank/unread", "EIO")]
    assert standing.unreadable_of == {"alpha": 1}
    assert total([standing, standing], now=NOW, every=EVERY).unreadable_of == {"alpha": 2}
    assert standing.oldest == parse_time(format_time(NOW - 44 * DAY))
    assert not standing.behind
    standing.add(stream("older", NOW - 46 * DAY), None)
    assert standing.behind


@pytest.mark.parametrize(
    ("damaged", "streams", "stopped"),
    [
        (0, 0, False),
        (1, 1, False),  # one damaged stream is rot, in however small a store
        (2, 10, True),
        (2, 40, False),
        (3, 100_000, False),
        (4, 100_000, True),
    ],
)
def test_much_damage_stops_the_scrub(damaged: int, streams: int, stopped: bool) -> None:
    standing = Survey(NOW, EVERY)
    for number in range(streams):
        standing.add(stream(str(number), NOW), result(str(number), NOW, *(["chunk 0"] if number < damaged else [])))
    assert standing.stopped == stopped


def test_damage_that_a_person_has_looked_at_does_not_stop_the_scrub() -> None:
    standing = Survey(NOW, EVERY)
    for number in range(50):
        standing.add(stream(str(number), NOW), result(str(number), NOW, "chunk 0", asked=number > 2))
    assert (standing.damaged, standing.unasked) == (50, 3)
    assert standing.stopped  # 3 of 50
    assert not Survey(NOW, EVERY, streams=100, unasked=3).stopped


@given(
    ages=st.lists(st.tuples(st.floats(-100, 100), st.none() | st.floats(-100, 100), st.booleans()), max_size=40),
    most=st.integers(1, 10),
)
def test_the_plan_is_the_most_urgent_part_of_all_that_is_due(
    ages: list[tuple[float, float | None, bool]], most: int
) -> None:
    streams = [
        (
            stream(f"{number:02}", NOW - received * DAY, sha256=None if segmented else "5c" * 32),
            None if at is None else result(f"{number:02}", NOW - at * DAY),
        )
        for number, (received, at, segmented) in enumerate(ages)
    ]
    everything = survey(streams, now=NOW, every=EVERY).due
    assert everything == sorted(everything)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule, "DUE_MAX", most)
        assert survey(streams, now=NOW, every=EVERY).due == everything[:most]


@pytest.mark.slow
def test_100_000_streams_take_seconds_and_little_memory() -> None:
    one = stream("x", NOW - 40 * DAY)
    tracemalloc.start()
    try:
        began = time.process_time()
        standing = survey(
            ((one._replace(path=f"alpha/{number}"), result("x", NOW - 35 * DAY)) for number in range(100_000)),
            now=NOW,
            every=EVERY,
        )
        assert len(standing.due) == schedule.DUE_MAX
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert standing.streams == 100_000
    assert peak < 4 << 20, f"{peak} bytes, {time.process_time() - began:.1f} s"


def test_what_is_due_is_summed_up_and_when_nothing_is_the_next_is_named() -> None:
    old, fresh = stream("old", NOW - 31 * DAY), stream("fresh", NOW - 10 * DAY)
    found = survey([(old, None), (fresh, None)], now=NOW, every=EVERY)
    assert (found.due_streams, found.due_bytes, found.next_due) == (1, 500, None)
    found = survey([(old, result("old", NOW - DAY)), (fresh, None)], now=NOW, every=EVERY)
    assert (found.due_streams, found.due_bytes, found.next_due) == (0, 0, NOW + 20 * DAY)
    assert survey([(fresh, None)], now=NOW, every=0).next_due is None
    assert survey([], now=NOW, every=EVERY).next_due is None
    # The oldest one was tried, and waits for its next try: nothing tells when that is.
    unread = result("old", None, unreadable="chunk 0", tried=format_time(NOW), tries=1)
    assert survey([(old, unread)], now=NOW, every=EVERY).next_due is None
