"""A stream without the FREE records that may be redundant, as a hash: what changes it, and what does not."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import resumed, streams
from tests.chains import Chain, chains

from fullsend_protocol.shared.errors import DamagedStream, IncompleteStream
from fullsend_protocol.stream.records import RecordType
from fullsend_protocol.stream.without_frees import HashWithoutFrees

if TYPE_CHECKING:
    from collections.abc import Iterable

TO_THE_END: Final = (1 << 64) - 1
OBJECT: Final = [streams.object_(2), streams.free(2, 1024, TO_THE_END)]
HOLE: Final = streams.free(2, 512, 512)
BLOCK: Final = streams.write(2, 0, bytes(512))


def made(records: Iterable[bytes]) -> bytes:
    return resumed.summed(streams.begin(), [*map(streams.marked, records), streams.end()])


def hashed(raw: bytes, size: int | None = None) -> str:
    """Hash a stream that comes in pieces of this size."""
    form = HashWithoutFrees("it")
    for at in range(0, len(raw), size or len(raw)):
        form.feed(raw[at : at + (size or len(raw))])
    return form.finish()


def test_holes_do_not_count_and_neither_do_the_checksums_behind_them() -> None:
    without = made([*OBJECT, BLOCK])
    assert hashed(made([*OBJECT, HOLE, BLOCK])) == hashed(made([*OBJECT, BLOCK, HOLE])) == hashed(without)
    assert made([*OBJECT, HOLE, BLOCK])[-312:] != without[-312:]


@pytest.mark.parametrize(
    "records",
    [
        [OBJECT[0], streams.free(2, 512, TO_THE_END), BLOCK],
        [OBJECT[0], BLOCK],
        [*OBJECT],
        [*OBJECT, streams.write(2, 0, b"x" * 512)],
        [*OBJECT, streams.write(2, 512, bytes(512))],
        [*OBJECT, BLOCK, streams.freeobjects(3, 1)],
    ],
    ids=["another end", "no end", "no block", "another block", "elsewhere", "free objects"],
)
def test_all_else_counts(records: list[bytes]) -> None:
    assert hashed(made(records)) != hashed(made([*OBJECT, BLOCK]))


@pytest.mark.parametrize("chain", chains(), ids=lambda chain: chain.name)
def test_of_genuine_streams_it_is_the_hash_of_what_is_left(chain: Chain) -> None:
    """As docs/format.md describes it."""
    raw = chain.run(0, 1)[0][1]
    left, before = [], -1
    for each in streams.split(raw):
        head = raw[each.start : each.start + 312]
        if each.kind == RecordType.BEGIN:
            left.append(head)
        elif each.kind == RecordType.END:
            left.append(head[:8] + head[40:280])
        elif each.kind != RecordType.FREE or before == RecordType.OBJECT:
            left.append(head[:280])
        left.append(raw[each.start + 312 : each.end])
        before = each.kind
    assert hashed(raw) == hashlib.sha256(b"".join(left)).hexdigest()
    assert sum(map(len, left)) > len(raw) // 2


@given(st.integers(1, 700))
def test_in_pieces_of_any_size(size: int) -> None:
    raw = made([*OBJECT, HOLE, BLOCK])
    assert hashed(raw, size) == hashed(raw)


def test_a_package_has_its_properties_in_it() -> None:
    def package(note: str) -> bytes:
        dataset = streams.file_system("tank/data", {"now": 1}) | {"props": {"user:note": note}}
        return streams.package(made([*OBJECT, HOLE]), nvlist=streams.tree("now", dataset))

    assert hashed(package("a")) != hashed(package("b"))
    assert hashed(package("a")) != hashed(made([*OBJECT, HOLE]))


def test_what_is_cut_or_impossible_has_none() -> None:
    raw = made([*OBJECT, BLOCK])
    for cut in (0, 100, 312, len(raw) - 1, len(raw) - 312):
        form = HashWithoutFrees("it")
        form.feed(raw[:cut])
        with pytest.raises(IncompleteStream, match="it ends before its END record"):
            form.finish()
    for wrong in (streams.record(77, {}), streams.record(3, {32: ("Q", 1 << 40)})):
        with pytest.raises(DamagedStream, match="it has an impossible record of type"):
            hashed(streams.begin() + wrong)
