"""The data: synthetic streams that are valid send streams, the same bytes on every machine.

The payload is drawn once, as a pool of 64 MiB, and repeated: no window that zstd uses at level 3 (2 MiB), and none
that a chunk allows (4 MiB), reaches from one round to the next, so nothing is gained by the repetition. A block is
text, rows of a binary table, or random bytes (photos, films, what is encrypted). There are three kinds of pools:

    compressible   in such shares that zstd -3 makes the whole 2.5 times smaller, as fast as it does with programs and
                   source code: 15 % of the blocks are random
    mix            40 % of the blocks are random, so they do not compress; the others are text and tables, in the shares
                   of the compressible kind
    random         nothing compresses

All records are what a real `zfs send` writes, but for the running Fletcher-4, which is zero: nothing between `zfs send`
and `zfs receive` sums it.
"""

from __future__ import annotations

import itertools
import random
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB: Final = 1 << 20
POOL: Final = 64 * MIB

#: The usual record of a file system, and that of an old zvol or a database.
LARGE_RECORD: Final = 128 << 10
SMALL_RECORD: Final = 8 << 10

_BLOCK: Final = 128 << 10
#: Of so many blocks each kind has its share.
_ROUND: Final = 20
_HEADER: Final = 312
_MAGIC: Final = 0x2F5BACBAC
_GUID: Final = 0x66756C6C73656E64
_CREATED: Final = 1_795_417_089
#: One object (file) of the stream has this much payload.
_OBJECT: Final = 8 * MIB
_BONUS: Final = bytes(168)
#: Bytes that are written at a time.
_BATCH: Final = 8 * MIB


def compressible_pool(size: int = POOL) -> bytes:
    """Draw a pool of `size` bytes that zstd -3 makes about 2.5 times smaller."""
    return _pool("fullsend bench", size, noise=3, tables=6)


def mix_pool(size: int = POOL) -> bytes:
    """Draw a pool of `size` bytes of which 40 % do not compress, in whole blocks of 128 KiB."""
    return _pool("fullsend bench, mix", size, noise=8, tables=4)


def random_pool() -> bytes:
    """Draw a pool that does not compress."""
    return random.Random("fullsend bench, random").randbytes(POOL)


def any_pool(number: int) -> bytes:
    """Draw a pool of another kind for each number: blocks of text, tables and noise, in shares drawn by the number."""
    rng = random.Random(f"fullsend bench, shares {number}")
    noise = rng.randrange(_ROUND // 2)
    return _pool(f"fullsend bench, {number}", POOL, noise=noise, tables=rng.randrange(_ROUND - noise))


def _pool(seed: str, size: int, *, noise: int, tables: int) -> bytes:
    """`noise`, `tables`: so many of 20 blocks are random, or rows of a table; the others are text."""
    rng = random.Random(seed)
    phrases = _phrases(rng)
    weights = list(itertools.accumulate(1 / (rank + 3) for rank in range(len(phrases))))
    blocks = []
    for number in range(size // _BLOCK):
        place = number * 7 % _ROUND  # 20 and 7 share no factor, so the kinds alternate evenly
        if place < noise:
            block = rng.randbytes(_BLOCK)
        elif place < noise + tables:
            block = _table(rng)
        else:
            block = _text(rng, phrases, weights)
        blocks.append(block)
    return b"".join(blocks)


def write_stream(path: Path, pool: bytes, size: int, record: int, *, snapshot: str) -> None:
    """Write a full send stream of about `size` bytes whose WRITE records carry `record` bytes of the pool each."""
    with path.open("wb") as file:
        batch = bytearray()
        for piece in records(pool, size, record, snapshot):
            batch += piece
            if len(batch) >= _BATCH:
                file.write(batch)
                batch.clear()
        file.write(batch)


def records(pool: bytes, size: int, record: int, snapshot: str) -> Iterator[bytes]:
    """Yield the pieces of such a stream. The pool's size is a multiple of `record`."""
    yield _begin(f"bench/data@{snapshot}")
    written, at = 0, 0
    for number in itertools.count(2):
        if written >= size:
            break
        yield _record(1, {8: ("Q", number), 16: ("II", 19, 44), 24: ("II", record, len(_BONUS))}) + _BONUS
        for offset in range(0, _OBJECT, record):
            if written >= size:
                break
            head = _record(3, {8: ("Q", number), 16: ("Q", 19), 24: ("QQ", offset, record)})
            yield head
            yield pool[at : at + record]
            at = (at + record) % len(pool)
            written += _HEADER + record
        # The records that follow a file's last block in a real stream.
        yield _record(4, {8: ("Q", number), 16: ("QQ", _OBJECT, (1 << 64) - 1)})
    yield _record(5, {40: ("Q", _GUID)})


def _begin(name: str) -> bytes:
    features = 1 << 2  # SA_SPILL, as in nearly every stream
    return _record(
        0, {8: ("QQQII", _MAGIC, 1 | features << 2, _CREATED, 2, 0), 40: ("QQ", _GUID, 0), 56: ("256s", name.encode())}
    )


def _record(kind: int, fields: dict[int, tuple[object, ...]]) -> bytes:
    """Return a record header. `fields`: offset in it -> (struct format, values)."""
    head = bytearray(_HEADER)
    struct.pack_into("<I", head, 0, kind)
    for at, (layout, *values) in fields.items():
        struct.pack_into(f"<{layout}", head, at, *values)
    return bytes(head)


# --- payload ---------------------------------------------------------------------------------------------------


def _phrases(rng: random.Random) -> list[str]:
    """Return 30,000 phrases of one to twelve words, the frequent words short: language repeats more than its words."""
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    by_letter = range(len(letters), 0, -1)
    words = ["".join(rng.choices(letters, by_letter, k=2 + rng.randrange(3 + rank // 2500))) for rank in range(20_000)]
    by_word = list(itertools.accumulate(1 / (rank + 3) for rank in range(len(words))))
    return [" ".join(rng.choices(words, cum_weights=by_word, k=1 + rng.randrange(12))) for _ in range(30_000)]


def _text(rng: random.Random, phrases: list[str], weights: list[float]) -> bytes:
    """Lines of phrases by Zipf's law."""
    chosen = rng.choices(phrases, cum_weights=weights, k=_BLOCK // 16)
    lines = (" ".join(chosen[start : start + 2]) for start in range(0, len(chosen), 2))
    return "\n".join(lines).encode()[:_BLOCK].ljust(_BLOCK, b"\n")


def _table(rng: random.Random) -> bytes:
    """Rows of a database: a key that grows, a time, small numbers, a measured value, padding."""
    row = struct.Struct("<IQHHd8x")
    key, at = rng.randrange(1 << 24), rng.randrange(1 << 40)
    rows = []
    for _ in range(_BLOCK // row.size):
        key += 1
        at += rng.randrange(1 << 16)
        rows.append(row.pack(key, at, rng.randrange(12), rng.randrange(300), rng.randrange(1 << 20) / 64))
    return b"".join(rows)
