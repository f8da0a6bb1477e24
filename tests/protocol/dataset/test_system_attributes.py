"""System attributes: what a layout names is found, and no length reaches past the buffer."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.file_trees import REGISTRY, Layouts

from fullsend_protocol.dataset.system_attributes import AttributeTables
from fullsend_protocol.dataset.zap import ZapEntry, ZapReader
from fullsend_protocol.shared.errors import DamagedStream


def entries(blocks: list[bytes]) -> list[ZapEntry]:
    reader = ZapReader("it", len(blocks[0]))
    return [each for number, block in enumerate(blocks) for each in reader.take(number * len(block), block)]


def tables(layouts: Layouts) -> AttributeTables:
    return AttributeTables(entries(layouts.registry_zap()), entries(layouts.layouts_zap()))


VALUES = st.fixed_dictionaries(
    {},
    optional={
        name: st.binary(min_size=length, max_size=length) if length else st.binary(max_size=300)
        for name, (_number, length) in REGISTRY.items()
    },
)


@given(VALUES)
def test_what_was_put_in_comes_out(values: dict[str, bytes]) -> None:
    layouts = Layouts()
    buffer = layouts.buffer(values)
    assert tables(layouts).decode(7, buffer) == values


@given(VALUES, st.data())
def test_a_buffer_that_is_cut_or_changed_ends_by_name(values: dict[str, bytes], data: st.DataObject) -> None:
    layouts = Layouts()
    buffer = bytearray(layouts.buffer(values))
    known = tables(layouts)
    for _ in range(3):
        buffer[data.draw(st.integers(0, min(len(buffer), 40) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DamagedStream):
        known.decode(7, bytes(buffer[: data.draw(st.integers(0, len(buffer)))]))


@pytest.mark.parametrize(
    ("buffer", "says"),
    [
        (b"", "has no attributes"),
        (struct.pack("<IH2x", 1, 2 | 1 << 10), "wrong magic"),
        (struct.pack("<IH2x", 0x2F505A, 9 | 1 << 10), "a layout that is not there"),
        (struct.pack("<IH2x", 0x2F505A, 2 | 1 << 10), "not whole"),
    ],
)
def test_what_no_zfs_writes(buffer: bytes, says: str) -> None:
    layouts = Layouts()
    layouts.buffer({"ZPL_MODE": bytes(8)})
    with pytest.raises(DamagedStream, match=says):
        tables(layouts).decode(7, buffer)


def test_tables_that_are_damaged() -> None:
    good = ZapEntry(b"2", (5,), 0)
    with pytest.raises(DamagedStream, match="registry"):
        AttributeTables([ZapEntry(b"ZPL_MODE", (1, 2), 0)], [])
    with pytest.raises(DamagedStream, match="layout"):
        AttributeTables([], [ZapEntry(b"x", (1,), 0)])
    with pytest.raises(DamagedStream, match="is not registered"):
        AttributeTables([], [good]).decode(7, struct.pack("<IH2x", 0x2F505A, 2 | 1 << 10))
