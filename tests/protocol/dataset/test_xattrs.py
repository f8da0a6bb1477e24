"""Extended attributes among the system attributes."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.file_trees import packed_xattrs

from fullsend_protocol.dataset.xattrs import linux_name, unpacked
from fullsend_protocol.shared.errors import DamagedStream

VALUES = st.dictionaries(
    st.binary(min_size=1, max_size=30).filter(lambda name: b"\0" not in name), st.binary(max_size=50), max_size=6
)


@given(VALUES)
def test_what_was_packed_comes_out(values: dict[bytes, bytes]) -> None:
    assert unpacked(packed_xattrs(values), "it") == values


@given(VALUES, st.integers(0, 400), st.integers(0, 255), st.integers(0, 400))
def test_damage_ends_by_name(values: dict[bytes, bytes], at: int, byte: int, cut: int) -> None:
    data = bytearray(packed_xattrs(values))
    data[at % len(data)] = byte
    with contextlib.suppress(DamagedStream):
        unpacked(bytes(data[: max(len(data) - cut, 0)]), "object 9")


@pytest.mark.parametrize("data", [b"", bytes(30), packed_xattrs({b"a": b"b"})[:-8]])
def test_what_is_no_list(data: bytes) -> None:
    with pytest.raises(DamagedStream, match="it has extended attributes that cannot be read"):
        unpacked(data, "it")


def test_names_without_a_space_are_of_users() -> None:
    assert linux_name(b"comment") == b"user.comment"
    assert linux_name(b"trusted.x") == b"trusted.x"
