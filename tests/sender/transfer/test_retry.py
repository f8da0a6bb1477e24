from __future__ import annotations

import pytest

from fullsend_protocol.shared.errors import (
    ChunkError,
    ConnectionLost,
    ErrorCode,
    FullsendError,
    IncompleteStream,
    NotTheSameStream,
    PeerError,
    RemoteProtocolError,
    Unreachable,
    UsageError,
)
from fullsend_sender.host.options import RETRY_FOR
from fullsend_sender.transfer.link import WrongReceiver
from fullsend_sender.transfer.retry import FIRST_DELAY, LONGEST_DELAY, VAIN_MAX, RetryTimer, is_transient
from fullsend_sender.transfer.segments import CannotResume
from fullsend_sender.zfs.commands import ZfsError

AWAY = Unreachable("nas is away")


class Time:
    """A clock that only sleeping moves. `slept`: how long each time; `asked`: between what jitter was asked for."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self.asked: list[tuple[float, float]] = []
        self.chance = 1.0  # of the way from the shortest to the longest delay

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def jitter(self, low: float, high: float) -> float:
        self.asked.append((low, high))
        return low + self.chance * (high - low)

    def retry_timer(self, retry_for: float) -> RetryTimer:
        return RetryTimer(retry_for, clock=lambda: self.now, sleep=self.sleep, jitter=self.jitter)


# --- what passes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        AWAY,
        ConnectionLost("cut"),
        PeerError(ErrorCode.LIMIT, "too many connections"),
        PeerError(ErrorCode.SHUTDOWN, "restarting"),
    ],
    ids=str,
)
async def test_what_passes(error: FullsendError) -> None:
    assert is_transient(error)
    await Time().retry_timer(60).wait(error)


@pytest.mark.parametrize(
    "error",
    [
        *(PeerError(code, code) for code in ErrorCode if code not in {ErrorCode.LIMIT, ErrorCode.SHUTDOWN}),
        RemoteProtocolError("broken rule"),
        ChunkError("memory"),
        IncompleteStream("cut"),
        NotTheSameStream("other"),
        CannotResume("lost"),
        WrongReceiver("who"),
        ZfsError("I/O error"),
        UsageError("what"),
        FullsendError("anything"),
    ],
    ids=str,
)
async def test_what_does_not_pass_is_raised_at_once(error: FullsendError) -> None:
    time = Time()
    assert not is_transient(error)
    retry_timer = time.retry_timer(60)
    with pytest.raises(type(error)) as caught:
        await retry_timer.wait(error)
    assert caught.value is error
    assert time.slept == []
    assert not retry_timer.lost


# --- how long --------------------------------------------------------------------------------------------------


async def test_delays_grow_up_to_the_longest() -> None:
    time = Time()
    retry_timer = time.retry_timer(RETRY_FOR)
    for _try in range(9):
        await retry_timer.wait(AWAY)
    assert time.slept == [0.5, 1, 2, 4, 8, 16, LONGEST_DELAY, LONGEST_DELAY, LONGEST_DELAY]


@pytest.mark.parametrize(("chance", "share"), [(0.0, 0.5), (0.4, 0.7), (1.0, 1.0)])
async def test_a_delay_is_at_least_half_of_it_and_at_most_all(chance: float, share: float) -> None:
    time = Time()
    time.chance = chance
    retry_timer = time.retry_timer(RETRY_FOR)
    for _try in range(8):
        await retry_timer.wait(AWAY)
    assert set(time.asked) == {(0.5, 1.0)}
    assert time.slept == [pytest.approx(share * delay) for delay in (0.5, 1, 2, 4, 8, 16, 30, 30)]


async def test_chance_is_real_unless_it_is_told_otherwise() -> None:
    time = Time()
    for _sender in range(20):
        await RetryTimer(60, clock=lambda: time.now, sleep=time.sleep).wait(AWAY)
    assert all(FIRST_DELAY / 2 <= delay <= FIRST_DELAY for delay in time.slept)
    assert len(set(time.slept)) > 10


async def test_the_limit_counts_from_the_loss_and_the_last_try_is_at_its_end() -> None:
    time = Time()
    retry_timer = time.retry_timer(10)
    for _try in range(5):
        await retry_timer.wait(AWAY)
    assert time.slept == [0.5, 1, 2, 4, 2.5]
    last = ConnectionLost("still")
    with pytest.raises(ConnectionLost) as caught:
        await retry_timer.wait(last)
    assert caught.value is last  # the newest reason, not the first
    assert time.now == 1010


async def test_a_loop_that_wakes_a_hair_early_gets_no_try_beyond_the_last() -> None:
    time = Time()

    async def sleep(seconds: float) -> None:
        await time.sleep(seconds)
        time.now -= 1e-9

    retry_timer = RetryTimer(10, clock=lambda: time.now, sleep=sleep, jitter=time.jitter)
    for _try in range(5):
        await retry_timer.wait(AWAY)
    with pytest.raises(Unreachable):
        await retry_timer.wait(AWAY)
    retry_timer.progressed()
    await retry_timer.wait(AWAY)
    assert time.slept[5:] == [FIRST_DELAY]


async def test_what_the_tries_themselves_take_counts() -> None:
    time = Time()
    retry_timer = time.retry_timer(10)
    await retry_timer.wait(AWAY)
    time.now += 60  # a connection that hangs until it is given up
    with pytest.raises(Unreachable):
        await retry_timer.wait(AWAY)


async def test_what_was_before_the_loss_does_not_count() -> None:
    time = Time()
    retry_timer = time.retry_timer(10)
    time.now += 100_000
    assert not retry_timer.lost
    await retry_timer.wait(AWAY)
    assert retry_timer.lost


async def test_after_it_has_recovered_the_next_loss_is_a_new_one() -> None:
    time = Time()
    retry_timer = time.retry_timer(10)
    for _try in range(4):
        await retry_timer.wait(AWAY)
    retry_timer.progressed()
    assert not retry_timer.lost
    time.now += 100
    await retry_timer.wait(AWAY)
    assert time.slept[-1] == FIRST_DELAY
    for _try in range(4):
        await retry_timer.wait(AWAY)
    with pytest.raises(Unreachable):
        await retry_timer.wait(AWAY)


async def test_it_is_absence_that_counts_and_not_how_long_there_is_no_progress() -> None:
    """A receiver may hash for hours after all has been sent, and the wire blink twice meanwhile."""
    time = Time()
    retry_timer = time.retry_timer(10)
    for _blink in range(5):
        await retry_timer.wait(AWAY)
        assert retry_timer.lost
        retry_timer.reconnected()
        assert not retry_timer.lost
        time.now += 3600
    assert time.slept == [0.5, 1, 2, 4, 8]  # one that is lost as soon as it is there is not asked all the time
    await retry_timer.wait(AWAY)
    assert time.slept[-1] == 10  # it has all of its time again
    with pytest.raises(Unreachable):
        await retry_timer.wait(AWAY)


async def test_one_that_is_there_and_fails_each_time_is_given_up() -> None:
    time = Time()
    retry_timer = time.retry_timer(3600)
    started = time.now
    with pytest.raises(Unreachable):  # noqa: PT012 - until it is raised
        for _time in range(1000):
            await retry_timer.wait(AWAY)
            retry_timer.reconnected()
            time.now += 40
    assert len(time.slept) > VAIN_MAX
    assert 3600 <= time.now - started < 3700
    # Not while the time that it has is not over, however often it is there; and progress makes up for all.
    quick = time.retry_timer(3600)
    for _time in range(5 * VAIN_MAX):
        await quick.wait(AWAY)
        quick.reconnected()
    quick.progressed()
    for _time in range(5 * VAIN_MAX):
        await quick.wait(AWAY)
        quick.reconnected()


async def test_no_patience_at_all() -> None:
    time = Time()
    with pytest.raises(Unreachable):
        await time.retry_timer(0).wait(AWAY)
    assert time.slept == []


async def test_the_loops_clock_and_its_sleep() -> None:
    retry_timer = RetryTimer(0.01)
    await retry_timer.wait(AWAY)
    with pytest.raises(Unreachable):
        await retry_timer.wait(AWAY)
