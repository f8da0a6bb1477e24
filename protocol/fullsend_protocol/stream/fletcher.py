"""Fletcher-4, the running checksum of send streams: summing, and moving a difference over data without summing it.

Four sums of 64 bits over the little-endian 32-bit words of the data; for each word w: a += w, b += a, c += b, d += c
(OpenZFS, module/zcommon/zfs_fletcher.c). In a stream they start at zero with each BEGIN. Each record's header but
BEGIN's has them at 280, as of before those 32 bytes; END also has at 8 the sums as of before END. `zfs receive`
compares them all.

Two facts make it possible to join a stream that lacks its beginning to another one without reading its payload:

- A step is reversible: with a known w, d -= c, c -= b, b -= a, a -= w.
- A step is linear. Let D be the difference, sum by sum, of two states at the same place of two streams. Over n words
  that are equal in both, w cancels, and D moves by the n-th power of the step. Its entries are 1, n, n(n+1)/2 and
  n(n+1)(n+2)/6: four products for 16 MiB of payload as for 4 bytes. Over a word in which the streams differ, D takes a
  step with the words' difference as its w.

Everything is modulo 2**64. Python sums about 30 MB/s: this is for headers and BEGIN records, not for streams.
"""

from __future__ import annotations

import itertools
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The four sums a, b, c, d; also the difference of two states.
State = tuple[int, int, int, int]

ZERO: Final[State] = (0, 0, 0, 0)
MASK: Final = (1 << 64) - 1
WORD_SIZE: Final = 4
#: Bytes that are summed at a time: their lists take less than 1 MiB, and stay in the processor's cache.
_BLOCK: Final = 16 << 10

Data = bytes | bytearray | memoryview


def summed(data: Data, state: State = ZERO) -> State:
    """Return the state after `data`, starting from `state`. Raises: ValueError if the data do not end with a word."""
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
    """Return the state before `data`, from `state` after it. Raises: ValueError as `summed`."""
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
    """Return what must be added to `found` to get `wanted`."""
    a, b, c, d = (left - right & MASK for left, right in zip(wanted, found, strict=True))
    return a, b, c, d


def added(state: State, moved: State) -> State:
    """Return the sum of a state and a difference."""
    a, b, c, d = (left + right & MASK for left, right in zip(state, moved, strict=True))
    return a, b, c, d


def coefficients(words: int) -> tuple[int, int, int]:
    """Return the factors of `advanced` for `words` words: n, n(n+1)/2, n(n+1)(n+2)/6.

    They are polynomials, so a negative number of words moves back.
    """
    return words, words * (words + 1) // 2 & MASK, words * (words + 1) * (words + 2) // 6 & MASK


def advanced(moved: State, words: int) -> State:
    """Move a difference over `words` words that are equal in both streams; a negative number moves it back."""
    a, b, c, d = moved
    n, n2, n3 = coefficients(words)
    return a, b + n * a & MASK, c + n * b + n2 * a & MASK, d + n * c + n2 * b + n3 * a & MASK


def stepped(moved: State, wanted: Data, found: Data) -> State:
    """Move a difference over words in which the streams differ: `wanted` in one, `found` in the other.

    Raises: ValueError if the lengths differ, or are not a whole number of words.
    """
    _whole(wanted), _whole(found)
    a, b, c, d = moved
    for left, right in zip(_words(wanted), _words(found), strict=True):
        a += left - right
        b += a
        c += b
        d += c
    return a & MASK, b & MASK, c & MASK, d & MASK


def _words(data: Data) -> Sequence[int]:
    return struct.unpack(f"<{len(data) // WORD_SIZE}I", data)


def _whole(data: Data) -> int:
    """Return the length. OpenZFS ignores a last incomplete word, but no stream has such a length."""
    size = len(data)
    if size % WORD_SIZE:
        msg = f"{size} bytes are not a whole number of words"
        raise ValueError(msg)
    return size
