from __future__ import annotations

import hashlib
import zlib
from pathlib import Path

import pytest
from bench.data import LARGE_RECORD, MIB, compressible_pool, mix_pool, write_stream

from fullsend_protocol.stream.records import Walker

#: 20 blocks: each kind has its share of them.
SIZE = 20 * LARGE_RECORD


def hard_blocks(pool: bytes) -> int:
    """Blocks that do not compress."""
    blocks = [pool[at : at + LARGE_RECORD] for at in range(0, len(pool), LARGE_RECORD)]
    return sum(len(zlib.compress(block, 1)) > 0.99 * len(block) for block in blocks)


def test_of_a_mix_two_fifths_of_the_blocks_do_not_compress_and_its_bytes_are_the_same_everywhere() -> None:
    pool = mix_pool(SIZE)
    assert len(pool) == SIZE
    assert hard_blocks(pool) == 8
    assert hashlib.sha256(pool).hexdigest() == "66e32cba770d9d114eb8fe4f46f8a9f258481b2299c1f2de42aac4b4d3526f16"


def test_of_the_compressible_kind_three_of_twenty_blocks_do_not_compress() -> None:
    assert hard_blocks(compressible_pool(SIZE)) == 3


@pytest.mark.parametrize("record", [8 << 10, LARGE_RECORD, MIB])
def test_a_stream_is_valid_with_records_of_each_size(tmp_path: Path, record: int) -> None:
    path = tmp_path / "stream"
    write_stream(path, bytes(2 * MIB), 4 * MIB, record, snapshot="now")
    raw = path.read_bytes()
    walker = Walker()
    assert walker.walk(raw, 0, len(raw), 1 << 62) == len(raw)
    walker.finish()
    assert len(raw) > 4 * MIB
