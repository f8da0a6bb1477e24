"""Fletcher-4, the running checksum of send streams: summing, and carrying a difference along without summing.

Four sums of 64 bits over the little-endian 32-bit words of the data; for each word w: a += w, b += a, c += b, d += c
(OpenZFS, module/zcommon/zfs_fletcher.c). In a stream they begin at zero with each BEGIN, and each record's header but
BEGIN's says them at 280, as they are before those 32 bytes; END also says at 8 what they were before END. `zfs receive`
compares them all.

Two facts make a stream that lacks its beginning fit another one without looking at its payload:

- A step can be taken back: knowing w, d -= c, c -= b, b -= a, a -= w.
- A step is linear. Let D be the difference, sum by sum, of two states at the same place of two streams. Over n words
  that are equal in both, w drops out, and D moves by the n-th power of the step, whose entries are 1, n, n(n+1)/2 and
  n(n+1)(n+2)/6: four products for 16 MiB of payload as for 4 bytes. Over a word in which they differ, D takes a step
  with the words' difference as its w.

Everything is modulo 2**64. Python sums some 30 MB/s: this is for headers and BEGIN records, not for streams.
"""

from __future__ import annotations

import itertools
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The four sums a, b, c, d; of a difference of two states likewise.
State = tuple[int, int, int, int]

ZERO: Final[State] = (0, 0, 0, 0)
MASK: Final = (1 << 64) - 1
WORD_SIZE: Final = 4
#: What is summed at a time: its lists take less than 1 MiB, and stay in the processor's cache.
_BLOCK: Final = 16 << 10

Data = bytes | bytearray | memoryview


def summed(data: Data, state: State = ZERO) -> State:
    """Go on from `state` over `data`. Raises: ValueError where it does not end with a word."""
    for start in range(0, _whole(data), _BLOCK):
        totals = _words(data[start : start + _BLOCK])
        grown = []
        for before in state:
            totals = list(itertools.accumulate(totals, initial=before))
            grown.append(totals[-1] & MASK)
            del totals[0]
        a, b, c, d = grown
        state = (a, b, c, d)
    return state


def unsummed(data: Data, state: State) -> State:
    """Go back from `state`, which is that behind `data`, to the one before. Raises: ValueError as `summed`."""
    a, b, c, d = state
    size = _whole(data)
    for stop in range(size, 0, -_BLOCK):
        for word in reversed(_words(data[max(stop - _BLOCK, 0) : stop])):
            d -= c
            c -= b
            b -= a
            a -= word
        a, b, c, d = a & MASK, b & MASK, c & MASK, d & MASK
    return a, b, c, d


def difference(wanted: State, found: State) -> State:
    """Return what has to be added to `found` to make it `wanted`."""
    a, b, c, d = (ours - theirs & MASK for ours, theirs in zip(wanted, found, strict=True))
    return a, b, c, d


def added(state: State, moved: State) -> State:
    """Return the state that is `moved` away from this one."""
    a, b, c, d = (ours + theirs & MASK for ours, theirs in zip(state, moved, strict=True))
    return a, b, c, d


def coefficients(words: int) -> tuple[int, int, int]:
    """Return what `advanced` multiplies with for so many words: n, n(n+1)/2, n(n+1)(n+2)/6.

    They are polynomials, so that negative numbers of words go back.
    """
    return words, words * (words + 1) // 2 & MASK, words * (words + 1) * (words + 2) // 6 & MASK


def advanced(moved: State, words: int) -> State:
    """Carry a difference over so many words that are equal in both; a negative number takes it back."""
    a, b, c, d = moved
    n, n2, n3 = coefficients(words)
    return a, b + n * a & MASK, c + n * b + n2 * a & MASK, d + n * c + n2 * b + n3 * a & MASK


def stepped(moved: State, wanted: Data, found: Data) -> State:
    """Carry a difference over words in which the two differ: `wanted` here, `found` there, of the same length.

    Raises: ValueError where the lengths differ, or do not end with a word.
    """
    _whole(wanted), _whole(found)
    a, b, c, d = moved
    for ours, theirs in zip(_words(wanted), _words(found), strict=True):
        a += ours - theirs
        b += a
        c += b
        d += c
    return a & MASK, b & MASK, c & MASK, d & MASK


def _words(data: Data) -> Sequence[int]:
    return struct.unpack(f"<{len(data) // WORD_SIZE}I", data)


def _whole(data: Data) -> int:
    """Return the length. OpenZFS drops what is left of a last word, but never has such a length in a stream."""
    size = len(data)
    if size % WORD_SIZE:
        msg = f"{size} bytes are no whole number of words"
        raise ValueError(msg)
    return size
