from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullsend_protocol.wire.messages import Base
from fullsend_sender.host.options import FullAfter
from fullsend_sender.push.full_after import why_too_long

DAY = 86400
FULL = 1_000_000
LIMITS = [FullAfter(age=90.0 * DAY), FullAfter(streams=90), FullAfter(increments=0.9)]

seeds = st.integers(0, 1 << 32)


@dataclass
class Chain:
    """A chain of one stream a night. Each increment has a hundredth of the full's bytes. `guid`: of the full."""

    guid: int
    streams: int = 1
    age: float = 0.0

    def base(self, streams: int) -> Base:
        """The stream at this place."""
        return Base.model_construct(  # unchecked: a million of them
            dataset="tank/a",
            guid=str(self.guid + streams - 1),
            base_guid=str(self.guid + streams - 2) if streams > 1 else None,
            flags="Lp",
            streams=streams,
            age=int(self.age),
            full_bytes=FULL,
            increment_bytes=(streams - 1) * FULL // 100,
        )

    def why(self, limit: FullAfter, since: float = DAY) -> str:
        # The newest two, and the full: others are not asked for.
        places = sorted({self.streams, max(1, self.streams - 1), 1}, reverse=True)
        return why_too_long(limit, [self.base(place) for place in places], since)


def chain_of(seed: int, streams: int = 1) -> Chain:
    """A chain of so many streams and days."""
    return Chain(random.Random(seed).getrandbits(63), streams, float((streams - 1) * DAY))


def nights(
    chain: Chain, limit: FullAfter, *, late: Callable[[int], float] = lambda _night: 0, stuck: bool = False
) -> Iterator[bool]:
    """Push each night; yield whether it is a full. `late`: seconds after the hour of that night; `stuck`: the host's
    clock has the same time each night.
    """
    guids = random.Random(chain.guid)
    last, received = 0.0, -chain.age  # when the last snapshot was taken, and when the full came
    for night in range(1, 10_000):
        now = night * DAY + late(night)
        chain.age = now - received
        full = bool(chain.why(limit, 0 if stuck else now - last))
        if full:
            chain.guid, chain.streams, received = guids.getrandbits(63), 1, now + 7200  # it takes two hours to arrive
        else:
            chain.streams += 1
        last = now
        yield full


def first(fulls: Iterator[bool]) -> int:
    """The first night with a full."""
    return next(night for night, full in enumerate(fulls, 1) if full)


@pytest.mark.parametrize("limit", LIMITS, ids=str)
@given(seed=seeds, delays=st.lists(st.floats(0, 20_000), min_size=1, max_size=10))
def test_a_chain_ends_in_the_last_third_of_its_limit(seed: int, delays: list[float], limit: FullAfter) -> None:
    """Whatever the dataset, and at whatever hour the host pushes; and again and again."""
    fulls = nights(chain_of(seed), limit, late=lambda night: delays[night % len(delays)])
    for _chain in range(3):
        assert 60 <= first(fulls) <= 92  # it ends at the first push after that, and was received after its push


@given(seed=seeds, limit=st.integers(1, 40), length=st.integers(1, 200))
def test_small_numbers_of_streams(seed: int, limit: int, length: int) -> None:
    fulls = nights(chain_of(seed, length), FullAfter(streams=limit))
    first(fulls)
    assert 2 * limit / 3 <= first(fulls) <= limit


@pytest.mark.parametrize("limit", LIMITS, ids=str)
@given(seed=seeds, length=st.integers(91, 5000))
def test_a_chain_far_above_its_limit_ends_within_a_third_of_it(seed: int, length: int, limit: FullAfter) -> None:
    """As on the day when full-after is set."""
    assert first(nights(chain_of(seed, length), limit)) <= 32


@pytest.mark.parametrize("limit", LIMITS, ids=str)
@pytest.mark.parametrize("length", [1, 500], ids=["begun on one day", "begun on one day, long ago"])
@pytest.mark.slow
def test_a_thousand_datasets_do_not_send_their_fulls_in_one_night(limit: FullAfter, length: int) -> None:
    """33 of a thousand chains end in each night of the last 30 of 90. By chance there are up to 60."""
    fulls = [nights(chain_of(seed, length), limit) for seed in range(1000)]
    count = Counter(night for night in range(365) for each in fulls if next(each))
    assert max(count.values()) <= 60
    assert 4_000 <= count.total() <= 5_500  # a full in 60 to 90 nights
    if length > 1:
        assert all(count[night] for night in range(1, 30))  # from the first night on


@pytest.mark.parametrize("limit", [FullAfter(age=7.0 * DAY), FullAfter(streams=7), FullAfter(streams=3)], ids=str)
def test_no_night_has_all_fulls_of_short_chains_either(limit: FullAfter) -> None:
    fulls = [nights(chain_of(seed), limit) for seed in range(1000)]
    count = Counter(night for night in range(30) for each in fulls if next(each))
    assert max(count.values()) < 550
    assert count.total() >= 30 * 1000 / 8


def test_a_full_that_fails_is_tried_again() -> None:
    for seed in range(50):
        for limit in LIMITS:
            chain = chain_of(seed)
            first(nights(chain_of(seed), limit))
            while not chain.why(limit):
                chain.streams, chain.age = chain.streams + 1, chain.age + DAY
            for night in range(2, 10):  # from now on its newest stream is as old as that, and always the same
                chain.age += DAY
                assert chain.why(limit, night * DAY)


def test_the_clock_of_this_host_neither_causes_a_full_nor_prevents_one() -> None:
    limit = FullAfter(age=90.0 * DAY)
    for seed in range(50):
        young = chain_of(seed, 60)
        assert young.why(limit, 3650.0 * DAY) == young.why(limit, -3650.0 * DAY) == ""
        fulls = nights(chain_of(seed), limit, stuck=True)
        assert 60 <= first(fulls) <= 92
        assert 60 <= first(fulls) <= 92
        assert first(nights(chain_of(seed, 500), limit, stuck=True)) <= 32


def test_what_it_says() -> None:
    chain = Chain(7, 90, 90.0 * DAY)  # 0.4727 of the last third
    said = "its chain has 90 streams, and its full is 90d 00:00:00 old"
    assert chain.why(FullAfter(streams=1)) == f"{said}: full-after says streams 1"
    assert chain.why(FullAfter(streams=30), since=0) == ""
    assert chain.why(FullAfter(streams=107), since=0) == f"{said}: full-after says streams 107 (90 for this chain)"
    assert chain.why(FullAfter(age=1.5 * DAY), 9e9) == (
        f"{said}: full-after says age 1d 12:00:00 (1d 06:19:39 for this chain)"
    )
    assert chain.why(FullAfter(increments=0.02)) == (
        f"{said}, and its increments are 0.89 times it: full-after says increments 0.02"
    )
    assert chain.why(FullAfter(age=0.0)) == f"{said}: full-after says age 0:00:00"
    assert chain.why(FullAfter()) == ""
