"""`--level auto`: the level of each chunk of a stream. No I/O, and no clock: the caller passes the time.

A transfer waits for one stage at a time (shared/stages.py). What it waited for during some chunks decides:

    for compression, at all      a lower level
    for the wire most            a higher level, if the threads can keep up with the wire at it
    for another stage most       up to level 3 again, if the threads can keep up; not above it

A chunk that does not compress gets LIGHT, where the level is not below 3. Levels below 3 are compared with level 3 on
whole chunks, before they are used and now and then afterwards. One that would store more than MORE_BYTES is not used.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared.stages import longest
from fullsend_protocol.stream.chunks import LEVEL_DEFAULT, LIGHT, Level
from fullsend_sender.transfer.compressors import Compressors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Processor time of each level for the same bytes, as multiples of that of level 3. Level 2 is slower than LIGHT, and
#: stores more. Above 9 four MiB compress hardly better, for many times the work.
_COSTS: Final[dict[Level, float]] = {1: 0.62, LIGHT: 0.68, LEVEL_DEFAULT: 1.0, 5: 1.8, 6: 2.5, 7: 3.1, 9: 4.1}
#: The levels that are used, from fast to slow.
LADDER: Final = tuple(_COSTS)
#: Stored bytes, as a multiple of those of level 3, that a lower level may cost. The promise is 1.10; samples are few.
MORE_BYTES: Final = 1.09
#: Chunks that tell which stage limits, and the seconds they take at least.
_WINDOW: Final = 8
_WINDOW_SECONDS: Final = 0.02
#: If the threads are fast enough, a frame is ready whenever the wire wants one. From this share of the time on that it
#: waits for a frame, compression limits.
_LIMITS: Final = 0.08
#: Seconds: against a division by zero.
_TINY: Final = 1e-9
#: At a higher level the threads must still be so many times faster than the wire, or they would limit.
_RESERVE: Final = 1.2
#: ... and so many times faster than other stages, whose own work may take the processors' time from the threads.
_RESERVE_OTHERS: Final = 1.5
#: What an older measurement counts, when a new one is added.
_FADING: Final = 0.9
#: Windows during which a level that was too slow is not tried again. Doubled each time, up to the second.
_PAUSE: Final = 4
_PAUSE_MAX: Final = 64
#: How many chunks are compressed at a level below 3 and at 3 before it is used; which of the first ones at that level;
#: and then one in how many. Part of a chunk would not do: half a MiB has few of the matches by which level 3 is better
#: (seen: 1.03 for a level that stores 1.15 times as much).
_SAMPLES: Final = 2
#: Of a stream's first chunks these are compressed at the lowest level too: so it is judged when the first window ends.
#: Earlier ones are not: a stream of a few chunks would only lose time.
_EARLY: Final = (4, 5)
_SAMPLED: Final = (16, 64)
_SAMPLE_EVERY: Final = 128
#: What an older sample counts: the last two or three decide.
_SAMPLE_FADING: Final = 0.5
#: A chunk whose pieces (so many, of so many bytes) zstd cannot make this much smaller does not compress.
_PIECES: Final = 16
_PIECE: Final = 4 << 10
_SHIFT: Final = 37 << 10
_SMALLER: Final = 0.97


@dataclass(slots=True)
class _Rung:
    """What is known of one level. `threads`: those that may use it at the same time; `cost`: as a multiple of that of
    level 3; `seconds`, `raw`: spent on chunks that compress, and their bytes; `sampled`, `usual`: bytes of some chunks
    at this level and at level 3; `too_large`: it stores too much; `paused`: it was too slow, and is not tried before
    this window; `pause`: windows, next time.

    What was measured lately counts more: each sum fades.
    """

    level: Level
    threads: int
    cost: float
    seconds: float = 0.0
    raw: float = 0.0
    samples: int = 0
    sampled: float = 0.0
    usual: float = 0.0
    too_large: bool = False
    paused: int = 0
    pause: int = _PAUSE

    @property
    def judged(self) -> bool:
        """Whether enough chunks were compared with level 3."""
        return self.samples >= _SAMPLES

    @property
    def pace(self) -> float:
        """Time for a chunk with all threads at work, as a multiple of that of one thread at level 3."""
        return self.cost / self.threads

    def add(self, seconds: float, raw: int) -> None:
        """Note a chunk that was compressed."""
        self.seconds, self.raw = _FADING * self.seconds + seconds, _FADING * self.raw + raw

    def compare(self, found: float, usual: float) -> None:
        """Note a chunk's bytes at this level, and at level 3."""
        self.samples += 1
        self.sampled, self.usual = _SAMPLE_FADING * self.sampled + found, _SAMPLE_FADING * self.usual + usual
        self.too_large = self.judged and self.sampled > MORE_BYTES * self.usual

    def too_slow(self, window: int) -> None:
        """Note that it limited the transfer in this window."""
        self.paused, self.pause = window + self.pause, min(2 * self.pause, _PAUSE_MAX)


@dataclass(frozen=True, slots=True)
class _Look:
    """How far the transfer was. `chunks`: those that were given a level."""

    now: float
    raw: int
    waited: Mapping[str, float]
    chunks: int


class AdaptiveLevel:
    """The level of each chunk of one stream. `next` is for the reading thread, `compress` for those that compress.

    `used`: how many chunks each level was used for.
    """

    def __init__(self, levels: Mapping[Level, int], *, start: Level = LEVEL_DEFAULT, room: int | None = None) -> None:
        """`levels`: from fast to slow, with the threads that may use each at the same time. With only one, nothing is
        chosen. `start`: the first chunks' level, if it is one of them; `room`: bytes for zstd's contexts (Compressors).
        """
        places = list(levels)
        self._rungs = [_Rung(level, threads, _COSTS.get(level, 1.0)) for level, threads in levels.items()]
        self._threads = max(levels.values())
        self._at = places.index(start) if start in levels else 0
        self._usual = places.index(LEVEL_DEFAULT) if LEVEL_DEFAULT in levels else self._at
        self._compressors = Compressors(room)
        self._chunks = 0
        self._windows = 0
        self._skip = 0  # chunks in flight were given another level
        self._wanted: int | None = None  # the place of a level below 3 that is not judged yet
        self._before: _Look | None = None
        self._lock = threading.Lock()
        self.used: dict[Level, int] = {}

    @property
    def level(self) -> Level:
        """The level of the next chunk that compresses."""
        return self._rungs[self._at].level

    def next(self, now: float, raw: int, waited: Callable[[], Mapping[str, float]]) -> Level:
        """Return the next chunk's level. `now`: seconds, monotonic; `raw`: bytes of the stream before it; `waited`: the
        seconds waited for each stage.
        """
        if len(self._rungs) > 1:
            with self._lock:
                self._look(now, raw, waited)
        self._chunks += 1
        return self.level

    def _look(self, now: float, raw: int, waited: Callable[[], Mapping[str, float]]) -> None:
        if self._wanted is not None and self._rungs[self._wanted].judged:
            self._use(self._not_too_large(self._wanted))
            return
        if self._skip:
            self._skip -= 1
            return
        before = self._before
        if before is None:
            self._before = _Look(now, raw, waited(), self._chunks)
            return
        if self._chunks - before.chunks < _WINDOW or now - before.now < _WINDOW_SECONDS:
            return
        look = _Look(now, raw, waited(), self._chunks)
        self._windows += 1
        self._before = look
        self._use(self._decide(before, look))

    def _use(self, place: int) -> None:
        """Use the level at this place; one that is not judged yet once it is, and until then level 3 at most."""
        self._wanted = None if self._rungs[place].judged or place >= self._usual else place
        if self._wanted is not None:
            place = min(self._at, self._usual)
        if place < self._at:
            self._rungs[self._at].too_slow(self._windows)
        if self._at != place:
            self._at = place
            self._before = None
            self._skip = max(4, self._threads + 2)  # as many as the pipeline has room for

    def _decide(self, before: _Look, look: _Look) -> int:
        """Return the place of the next level."""
        at = self._at
        rung = self._rungs[at]
        spent = {stage: seconds - before.waited.get(stage, 0.0) for stage, seconds in look.waited.items()}
        rate = (look.raw - before.raw) / (look.now - before.now)
        if rung.too_large:
            return self._not_too_large(at)
        share = spent.get("compression", 0.0) / max(sum(spent.values()), _TINY)
        if share > _LIMITS:
            enough = (1 - share) * rung.pace  # with this, what else there is would limit
            fit = (place for place in range(at - 1, -1, -1) if self._rungs[place].pace <= enough)
            return min(self._not_too_large(next(fit, 0)), at)
        limit = longest(spent)
        top, reserve = (len(self._rungs) - 1, _RESERVE) if limit == "wire" else (self._usual, _RESERVE_OTHERS)
        best = at
        for place in range(at + 1, top + 1):
            if self._rungs[place].paused > self._windows or self._capacity(place) < reserve * rate:
                break
            if not self._rungs[place].too_large:
                best = place
        return best

    def _not_too_large(self, place: int) -> int:
        """Return this place, or the next one above it whose level does not store too much. Level 3 never does."""
        while self._rungs[place].too_large:
            place += 1
        return place

    def _capacity(self, place: int) -> float:
        """Return the raw bytes a second that the threads would compress at another level than now."""
        rung = self._rungs[self._at]
        if not rung.raw:
            return float("inf")  # nothing compresses
        each = rung.seconds / rung.raw / rung.cost
        return 1 / (each * self._rungs[place].pace)

    # --- in the threads that compress ------------------------------------------------------------------------

    def compress(self, raw: memoryview, level: Level, clock: Callable[[], float]) -> bytes:
        """Return the frame of a chunk. `level`: what `next` has returned for it; `clock`: seconds."""
        place = next(place for place, each in enumerate(self._rungs) if each.level == level)
        if place >= self._usual and len(self._rungs) > 1 and not self._compresses(raw):
            frame = self._pack(raw, LIGHT)
            # What repeats may lie further apart than the pieces that were tried. Then the chosen level does better.
            if len(frame) >= _SMALLER * len(raw):
                with self._lock:
                    self._count(LIGHT)
                return frame
        with self._lock:
            trials = self._trials(place, self._count(level))
        # Before the frame that is kept, so that no thread has two.
        sizes = {at: len(self._pack(raw, self._rungs[at].level)) for at in trials}
        with self._compressors.lend(level) as compressor:
            started = clock()  # without the wait for a context
            frame = compressor.compress(raw)
            seconds = clock() - started
        sizes[place] = len(frame)
        with self._lock:
            if len(frame) < _SMALLER * len(raw):
                self._rungs[place].add(seconds, len(raw))
            if trials:
                self._compare(sizes)
        return frame

    def _count(self, level: Level) -> int:
        number = self.used[level] = self.used.get(level, 0) + 1
        return number

    def _trials(self, place: int, number: int) -> set[int]:
        """Return the places of the levels at which a chunk is compressed too, so that levels below 3 are judged.
        `place`: that of the chunk's own level; `number`: how many chunks it was used for, with this one.
        """
        again = number in _SAMPLED or number % _SAMPLE_EVERY == 0
        own = place < self._usual and (again or not self._rungs[place].judged)
        wanted = 0 if place == self._usual and number in _EARLY else self._wanted
        others = {
            at
            for at, each in enumerate(self._rungs[: self._usual])
            # The stream may become another one behind what was judged.
            if (at == wanted and not each.judged) or (again and each.too_large)
        }
        return ({*others, self._usual} if own or others else set()) - {place}

    def _compare(self, sizes: Mapping[int, float]) -> None:
        """Note a chunk's stored bytes at several levels, by their places. Level 3 is one of them."""
        for place, size in sizes.items():
            if place < self._usual:
                self._rungs[place].compare(size, sizes[self._usual])

    def _compresses(self, raw: memoryview) -> bool:
        """Whether pieces of a chunk, from all over it, compress."""
        step = len(raw) // _PIECES
        if step <= _PIECE:
            return True
        # Not at regular distances: these may be those of the records' headers, which compress.
        starts = (number * step + number * _SHIFT % (step - _PIECE) for number in range(_PIECES))
        pieces = b"".join(raw[start : start + _PIECE] for start in starts)
        return len(self._pack(pieces, LIGHT)) < _SMALLER * len(pieces)

    def _pack(self, raw: bytes | memoryview, level: Level) -> bytes:
        with self._compressors.lend(level) as compressor:
            return compressor.compress(raw)
