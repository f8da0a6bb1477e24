"""ZAPs: what was put in comes out, and what no ZFS writes ends with an error."""

from __future__ import annotations

import contextlib
import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.file_trees import fat_zap, leaf, micro_zap

from fullsend_protocol.dataset.zap import NAME_BYTES_MAX, ZapEntry, ZapReader, name_order
from fullsend_protocol.shared.errors import DamagedStream

NAMES = st.binary(min_size=1, max_size=60).filter(lambda name: b"\0" not in name)


def read(blocks: list[bytes]) -> tuple[dict[bytes, tuple[int, ...]], list[int]]:
    """The names that count, and the blocks that do not."""
    reader = ZapReader("it", len(blocks[0]))
    found: list[ZapEntry] = []
    for number, block in enumerate(blocks):
        found += reader.take(number * len(block), block)
    stale = reader.finish()
    return {each.name: each.integers for each in found if each.block not in stale}, stale


@given(st.dictionaries(NAMES.filter(lambda name: len(name) < 50), st.integers(0, (1 << 64) - 1), max_size=40))
def test_a_micro_zap(pairs: dict[bytes, int]) -> None:
    assert read([micro_zap(pairs)]) == ({name: (value,) for name, value in pairs.items()}, [])


@given(
    st.lists(st.dictionaries(NAMES, st.lists(st.integers(0, 65535), max_size=8), max_size=6), min_size=1, max_size=5)
)
def test_a_fat_zap_of_several_leaves(leaves: list[dict[bytes, list[int]]]) -> None:
    seen: set[bytes] = set()
    rows = []
    for each in leaves:
        rows.append([(name, values, 2) for name, values in each.items() if name not in seen])
        seen |= each.keys()
    expected = {name: tuple(values) for row in rows for name, values, _width in row}
    assert read(fat_zap(rows)) == (expected, [])


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_integers_of_every_size_are_big_endian(width: int) -> None:
    values = [1, (1 << 8 * width) - 2]
    assert read(fat_zap([[(b"n", values, width)]]))[0] == {b"n": tuple(values)}


def test_the_longest_name() -> None:
    name = b"n" * NAME_BYTES_MAX
    assert read(fat_zap([[(name, [1], 8)]]))[0] == {name: (1,)}
    with pytest.raises(DamagedStream, match="a name of 1024 bytes"):
        read(fat_zap([[(name + b"n", [1], 8)]]))


def test_a_leaf_that_nothing_points_to_does_not_count() -> None:
    """A ZAP that has shrunk leaves some."""
    found, stale = read(fat_zap([[(b"a", [1], 8)], [(b"b", [2], 8)]], stale=[[(b"gone", [3], 8)]]))
    assert (found, stale) == ({b"a": (1,), b"b": (2,)}, [3])


def test_a_pointer_table_of_its_own() -> None:
    """Not in the header: in blocks behind the leaves."""
    blocks = fat_zap([[(b"a", [1], 8)]])
    size = len(blocks[0])
    header = bytearray(blocks[0])
    struct.pack_into("<QQQ", header, 16, 2, 1, (size // 8).bit_length() - 1)
    table = struct.pack("<Q", 1) * (size // 8)
    assert read([bytes(header), blocks[1], table]) == ({b"a": (1,)}, [])
    with pytest.raises(DamagedStream, match="pointer table that is not whole"):
        read([bytes(header), blocks[1]])
    struct.pack_into("<Q", header, 24, 1 << 40)
    with pytest.raises(DamagedStream, match="pointer table of 1099511627776 blocks"):
        read([bytes(header)])


def changed(block: bytes, at: int, layout: str, value: int) -> bytes:
    data = bytearray(block)
    struct.pack_into(layout, data, at, value)
    return bytes(data)


FIRST = 48 + (4096 >> 5 << 1)  # of the chunks of a leaf


@pytest.mark.parametrize(
    ("block", "at", "layout", "value", "says"),
    [
        (0, 8, "<Q", 1, "wrong magic"),
        (0, 96, "<Q", 2, "numbers for names"),
        (0, 72, "<Q", 2, "has 1 names, and says it has 2"),
        (0, 4088, "<Q", 9, "points to a leaf that is not there"),
        (1, 24, "<I", 1, "leaf with a wrong magic"),
        (1, 30, "<H", 5, "says it has 5"),
        (1, FIRST + 1, "<B", 3, "integers of 3 bytes"),
        (1, FIRST + 4, "<H", 0xFFFF, "chain of chunks"),
        (1, FIRST + 6, "<H", 1, "a name of 0 bytes"),
        (1, FIRST + 6, "<H", 30, "a name that does not end"),
        (1, FIRST + 10, "<H", 0xFFFF, "chain of chunks"),
        (1, FIRST + 24 + 22, "<H", 1, "a name that does not end"),
    ],
)
def test_what_no_zfs_writes(block: int, at: int, layout: str, value: int, says: str) -> None:
    blocks = fat_zap([[(b"n" * 25, [7], 8)]])
    blocks[block] = changed(blocks[block], at, layout, value)
    with pytest.raises(DamagedStream, match=says):
        read(blocks)


def test_a_loop_of_chunks_ends() -> None:
    """Each of many entries says that its value is a long chain, which leads back to itself."""
    block = bytearray(leaf([(b"%03d" % number, [1], 8) for number in range(50)], 12))
    for number in range(50):
        at = FIRST + number * 72
        struct.pack_into("<HH", block, at + 8, number * 3 + 2, 65535)
        struct.pack_into("<H", block, at + 48 + 22, number * 3 + 2)
    blocks = [fat_zap([[(b"n", [1], 8)]])[0], bytes(block)]
    with pytest.raises(DamagedStream, match="does not end"):
        read(blocks)


@pytest.mark.parametrize(
    ("blocks", "says"),
    [
        ([bytes(512)], "is not a ZAP"),
        ([micro_zap({b"a": 1}), bytes(512)], "more than one block"),
        ([changed(micro_zap({b"a": 1}), 64 + 14, "<50s", b"n" * 50)], "without its end"),  # type: ignore[arg-type]
        ([fat_zap([[(b"a", [1], 8)]])[0][:1000]], "is not a ZAP"),
        ([bytes(100)], "blocks of 100 bytes"),
    ],
)
def test_what_is_no_zap(blocks: list[bytes], says: str) -> None:
    with pytest.raises(DamagedStream, match=says):
        read(blocks)


def test_blocks_come_in_order_and_from_the_first() -> None:
    blocks = fat_zap([[(b"a", [1], 8)]])
    with pytest.raises(DamagedStream, match="order"):
        ZapReader("it", 4096).take(4096, blocks[1])
    for at, says in ((0, "order"), (100, "not of 4096")):
        reader = ZapReader("it", 4096)
        reader.take(0, blocks[0])
        with pytest.raises(DamagedStream, match=says):
            reader.take(at, blocks[0])
    with pytest.raises(DamagedStream, match="is empty"):
        ZapReader("it", 4096).finish()


@given(st.integers(0, 2**32))
def test_random_damage_ends_by_name(seed: int) -> None:
    dice = random.Random(seed)
    blocks = [bytearray(each) for each in fat_zap([[(b"n" * dice.randrange(1, 40), [1, 2], 8)] for _ in range(2)])]
    for _ in range(dice.randrange(1, 9)):
        block = dice.choice(blocks)
        block[dice.randrange(400)] = dice.randrange(256)
    with contextlib.suppress(DamagedStream):
        read([bytes(each) for each in blocks])


@pytest.mark.parametrize(
    ("name", "salt", "genuine"),
    [(b"link-01983", 0x24FD6D5, 0xF6B714F000000000), (b"link-00781", 0x1F59BC61, 0x786AC3B000000000)],
)
def test_names_are_hashed_as_openzfs_hashes_them(name: bytes, salt: int, genuine: int) -> None:
    """`genuine`: le_hash in a leaf of tests/data/files."""
    assert name_order(name, salt) == genuine >> 36


def test_the_salt() -> None:
    for blocks, at, normalization in (([micro_zap({b"a": 1})], 8, 16), (fat_zap([[(b"a", [1], 8)]]), 80, 88)):
        changed = bytearray(blocks[0])
        struct.pack_into("<Q", changed, at, 12_345)
        reader = ZapReader("it", len(changed))
        assert reader.salt is None
        reader.take(0, bytes(changed))
        assert reader.salt == 12_345
        struct.pack_into("<Q", changed, normalization, 1)
        reader = ZapReader("it", len(changed))
        reader.take(0, bytes(changed))
        assert reader.salt is None
