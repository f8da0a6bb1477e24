"""`--level auto`, on a simulated transfer: stages with a speed each, and no clock but the simulated one."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field

import pytest

from fullsend_protocol.shared.limits import MIB
from fullsend_protocol.stream.chunks import LEVEL_DEFAULT, LIGHT, Compressor, Decompressor, Level
from fullsend_sender.transfer.adaptive_level import LADDER, MORE_BYTES, AdaptiveLevel
from fullsend_sender.transfer.memory import compressing

CHUNK = 4 * MIB
#: Stored bytes of such a chunk, about.
FRAME = 3 * MIB // 2
CHUNKS = 256
#: Chunks between the reading thread and the wire: 24 MiB of raw stream.
IN_FLIGHT = 6


@dataclass
class Host:
    """A made-up host and its data. `speed`: raw bytes a second of one thread, `ratio`: stored bytes by raw ones, both
    by level; `reading`: raw bytes a second; `wire`: bytes a second.
    """

    speed: dict[Level, float]
    ratio: dict[Level, float]
    reading: float
    wire: float
    threads: int
    waited: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("source", "compression", "wire"), 0.0))
    stored: float = 0.0

    def seconds(self, chooser: AdaptiveLevel, rng: random.Random) -> float:
        """Send CHUNKS chunks. Returns: the seconds that it took."""
        levels = {each.level: each.threads for each in chooser._rungs}
        now = 0.0  # of the reading thread
        free = [0.0] * self.threads
        taken: list[float] = []  # when each chunk's frame was taken from the threads
        sent = 0.0
        spans: list[tuple[float, float, str]] = []  # of the task that sends
        for number in range(CHUNKS):
            if number >= IN_FLIGHT and (room := taken[number - IN_FLIGHT]) > now:
                self._wait(now, room, spans)
                now = room
            self.waited["source"] += CHUNK / self.reading
            now += CHUNK / self.reading
            level = chooser.next(now, number * CHUNK, lambda: dict(self.waited))
            # Chunks differ: some compress well, others hardly, and a thread is not always as fast.
            differs = rng.uniform(0.7, 1.3)
            thread = free.index(min(free[: levels[level]]))
            spent = CHUNK / self.speed[level] * rng.uniform(0.9, 1.1)
            place, rung = next(entry for entry in enumerate(chooser._rungs) if entry[1].level == level)
            others = [chooser._rungs[at].level for at in chooser._trials(place, chooser._count(level))]
            if others:
                chooser._compare({at: self.ratio[each.level] for at, each in enumerate(chooser._rungs)})
            free[thread] = max(free[thread], now) + spent + sum(CHUNK / self.speed[each] for each in others)
            rung.add(spent, CHUNK)
            take = max(free[thread], sent)
            frame = CHUNK * min(1.0, self.ratio[level] * differs)
            spans += [(sent, take, "compression"), (take, take + frame / self.wire, "wire")]
            taken.append(take)
            sent = take + frame / self.wire
            self.stored += frame
        return sent

    def _wait(self, start: float, end: float, spans: list[tuple[float, float, str]]) -> None:
        for begun, ended, stage in reversed(spans):
            if ended <= start:
                break
            self.waited[stage] += max(0.0, min(end, ended) - max(start, begun))


def a_host(seed: int, wire: float) -> Host:
    rng = random.Random(seed)
    machine = rng.uniform(100, 400) * 1e6  # level 3, one thread
    at_three = rng.uniform(0.25, 0.7)
    costs = (0.62, 0.68, 1.0, 1.8, 2.5, 3.1, 4.1)
    speed: dict[Level, float] = {}
    ratio: dict[Level, float] = {}
    better = 1.06
    for level, cost in zip(LADDER, costs, strict=True):
        # Data differ in how much more a higher level costs them, and in what it gains.
        speed[level] = machine / cost ** rng.uniform(0.75, 1.2)
        ratio[level] = at_three * better
        better -= rng.uniform(0.005, 0.03)
    return Host(speed, ratio, rng.uniform(400, 1200) * 1e6, wire, rng.randint(1, 4))


@pytest.mark.parametrize("wire", [10 * MIB, 100 * MIB, 5000 * MIB], ids=["10 MiB/s", "100 MiB/s", "unlimited"])
@pytest.mark.parametrize("seed", range(10))
def test_it_is_within_a_tenth_of_the_best_fixed_level(seed: int, wire: float) -> None:
    def took(levels: dict[Level, int]) -> float:
        return a_host(seed, wire).seconds(AdaptiveLevel(levels), random.Random(seed))

    possible = compressing(a_host(seed, wire).threads, LADDER)
    best = min(took({level: threads}) for level, threads in possible.items())
    assert took(possible) <= best / 0.9


@pytest.mark.parametrize("seed", range(10))
def test_a_wire_that_becomes_slow_and_fast_again(seed: int) -> None:
    """It must not stay at a level that suited the wire before."""
    host = a_host(seed, 10 * MIB)
    chooser = AdaptiveLevel(compressing(host.threads, LADDER))
    rng = random.Random(seed)
    host.seconds(chooser, rng)
    slow = chooser.level
    host.wire = 5000 * MIB
    host.waited = dict.fromkeys(host.waited, 0.0)
    chooser._before = None
    host.seconds(chooser, rng)
    assert LADDER.index(chooser.level) < LADDER.index(slow)
    assert LADDER.index(slow) > LADDER.index(LEVEL_DEFAULT)


def test_a_slow_source_gets_no_level_above_3() -> None:
    speed: dict[Level, float] = dict.fromkeys(LADDER, 1e12)
    host = Host(speed, dict.fromkeys(LADDER, 0.5), 50e6, 5000 * MIB, 2)
    chooser = AdaptiveLevel(dict.fromkeys(LADDER, 2), start=LIGHT)
    host.seconds(chooser, random.Random(1))
    assert chooser.level == LEVEL_DEFAULT


def test_one_level_stays() -> None:
    chooser = AdaptiveLevel({7: 2})
    assert {chooser.next(number, number, dict) for number in range(100)} == {7}
    raw = random.Random(1).randbytes(MIB)
    chooser.compress(memoryview(raw), 7, lambda: 0.0)
    assert chooser.used == {7: 1}


def test_what_does_not_compress_gets_light() -> None:
    chooser = AdaptiveLevel(dict.fromkeys(LADDER, 1), start=9)
    raw = random.Random(2).randbytes(CHUNK)
    text = b"".join(b"%d times a line\n" % number for number in range(200_000))
    frames = [chooser.compress(memoryview(each), 9, lambda: 0.0) for each in (raw, text, b"short")]
    assert chooser.used == {LIGHT: 1, 9: 2}
    assert [
        Decompressor().decompress(frame, len(each)) for frame, each in zip(frames, (raw, text, b"short"), strict=True)
    ]
    assert frames[1] == Compressor(9).compress(text)


def keys_far_apart(seed: int, size: int) -> bytes:
    """Short keys, drawn from more than a small table has room for."""
    rng = random.Random(seed)
    known = [rng.randbytes(12) for _ in range(10_000)]
    return b"".join(itertools.chain.from_iterable((rng.choice(known), rng.randbytes(2)) for _ in range(size // 14)))


def limited_by_compression(chooser: AdaptiveLevel, raw: bytes, chunks: int) -> list[Level]:
    """Have it choose for so many chunks, each of which it compresses. Returns: the levels."""
    waited = {"compression": 0.0}
    chosen = []
    for number in range(chunks):
        waited["compression"] += 1.0
        chosen.append(chooser.next(float(number), number * CHUNK, lambda: dict(waited)))
        chooser.compress(memoryview(raw), chosen[-1], lambda: 0.0)
    return chosen


def stored(level: Level, raw: bytes) -> int:
    return len(Compressor(level).compress(raw))


def test_a_level_that_stores_too_much_is_never_used() -> None:
    """Whole chunks are compared: a part of one would not tell."""
    raw = keys_far_apart(3, CHUNK)
    part = raw[CHUNK // 2 :][: CHUNK // 8]
    assert stored(1, raw) > stored(LIGHT, raw) > MORE_BYTES * stored(LEVEL_DEFAULT, raw)
    assert stored(LIGHT, part) < MORE_BYTES * stored(LEVEL_DEFAULT, part)
    chosen = limited_by_compression(AdaptiveLevel(dict.fromkeys(LADDER, 1)), raw, 30)
    assert set(chosen) == {LEVEL_DEFAULT}


def test_the_lowest_level_is_used_if_it_does_not_store_too_much() -> None:
    raw = b"".join(b"%d times a line\n" % number for number in range(60_000))
    chosen = limited_by_compression(AdaptiveLevel(dict.fromkeys(LADDER, 1)), raw, 30)
    assert chosen == sorted(chosen, reverse=True, key=LADDER.index)
    assert set(chosen) == {LEVEL_DEFAULT, 1}
    assert chosen.count(LEVEL_DEFAULT) == 8  # a window: two of its chunks were compared already


def test_a_short_stream_is_compressed_once() -> None:
    """Only from the fourth chunk on a level is judged before it is wanted."""
    chooser = AdaptiveLevel(dict.fromkeys(LADDER, 1))
    assert [chooser._trials(LADDER.index(LEVEL_DEFAULT), number) for number in range(1, 8)] == [
        *(set(), set(), set(), {0}, {0}, set(), set())
    ]


def test_it_stops_at_the_last_level_that_does_not_store_too_much() -> None:
    chooser = AdaptiveLevel(dict.fromkeys(LADDER, 1))
    judge(chooser, 2.0, 1.0)
    chosen = limited_by_compression(chooser, b"line\n" * 100_000, 30)
    assert set(chosen) == {LEVEL_DEFAULT, LIGHT}


def test_a_level_is_left_if_what_follows_stores_too_much() -> None:
    """It is compared again now and then."""
    chooser = AdaptiveLevel(dict.fromkeys(LADDER, 1), start=LIGHT)
    judge(chooser, 2.0, 1.0)
    chosen = limited_by_compression(chooser, keys_far_apart(4, CHUNK), 80)
    assert set(chosen) == {LIGHT, LEVEL_DEFAULT}
    assert chosen == sorted(chosen, key=LADDER.index)
    assert chosen.count(LIGHT) < 72  # the 16th and the 64th chunk tell


def test_a_level_is_used_if_what_follows_stores_less() -> None:
    """What stored too much may have been a part of the stream alone."""
    chooser = AdaptiveLevel(dict.fromkeys(LADDER, 1))
    judge(chooser, 1.3, 1.3)
    raw = random.Random(5).randbytes(FRAME) + b"line\n" * (CHUNK - FRAME)
    chosen = limited_by_compression(chooser, raw[:CHUNK], 100)
    assert set(chosen) == {LEVEL_DEFAULT, 1}
    assert 64 <= chosen.count(LEVEL_DEFAULT) < 80  # the 16th and the 64th chunk tell
    assert chosen == sorted(chosen, key=LADDER.index, reverse=True)


def judge(chooser: AdaptiveLevel, *ratios: float) -> None:
    """Have it know of the levels below 3 what they store, as multiples of what level 3 does: from two chunks."""
    for place, ratio in enumerate(ratios):
        for _ in range(2):
            chooser._rungs[place].compare(ratio * FRAME, FRAME)


def test_no_level_that_stores_too_much_is_used_again() -> None:
    """Both levels below 3 store too much, and compression limits all the time."""
    chooser = AdaptiveLevel(dict.fromkeys(LADDER, 1))
    judge(chooser, 2.0, 2.0)
    waited = {"compression": 0.0}
    chosen = []
    for number in range(200):
        waited["compression"] += 1.0
        chosen.append(chooser.next(float(number), number * CHUNK, lambda: dict(waited)))
    assert set(chosen) == {LEVEL_DEFAULT}


def test_the_way_up_passes_no_level_that_stores_too_much() -> None:
    """LIGHT does, and the threads are too slow for level 3 on a wire as fast as this."""
    chooser = AdaptiveLevel(dict.fromkeys(LADDER, 1), start=1)
    judge(chooser, 1.0, 2.0)
    waited = {"wire": 0.0}
    chosen = []
    for number in range(200):
        waited["wire"] += 1.0
        chooser._rungs[0].add(1 / 1.5, CHUNK)  # fast enough for LIGHT and the reserve
        chosen.append(chooser.next(float(number), number * CHUNK, lambda: dict(waited)))
    assert set(chosen) == {1}


def test_what_repeats_far_apart_compresses() -> None:
    """Keys of 64 bytes, drawn from more than the pieces have room for."""
    rng = random.Random(4)
    known = [rng.randbytes(64) for _ in range(24_000)]
    raw = b"".join(rng.choices(known, k=CHUNK // 64))
    chooser = AdaptiveLevel(dict.fromkeys(LADDER, 1), start=9)
    assert not chooser._compresses(memoryview(raw))
    frame = chooser.compress(memoryview(raw), 9, lambda: 0.0)
    assert frame == Compressor(9).compress(raw)
    assert chooser.used == {9: 1}
