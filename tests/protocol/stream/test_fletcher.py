from __future__ import annotations

import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import streams
from tests.data.load import NOTHING
from tests.data.load import fletcher as long_way
from tests.streams import Genuine, each

from fullsend_protocol.shared import limits
from fullsend_protocol.stream import fletcher
from fullsend_protocol.stream.fletcher import State

U64 = st.integers(0, (1 << 64) - 1)
STATES = st.tuples(U64, U64, U64, U64)
WORDS = st.binary(max_size=400).map(lambda data: data[: len(data) // 4 * 4])


def one_by_one(data: bytes, state: tuple[int, ...]) -> tuple[int, ...]:
    """As zfs_fletcher.c has it."""
    a, b, c, d = state
    for (word,) in struct.iter_unpack("<I", data):
        a = (a + word) % 2**64
        b = (b + a) % 2**64
        c = (c + b) % 2**64
        d = (d + c) % 2**64
    return a, b, c, d


# --- sums --------------------------------------------------------------------------------------------------------


def test_sums_are_these() -> None:
    assert fletcher.summed(b"") == fletcher.ZERO
    assert fletcher.summed(bytes.fromhex("01000000")) == (1, 1, 1, 1)
    assert fletcher.summed(struct.pack("<4I", 1, 2, 3, 4)) == (10, 20, 35, 56)
    assert fletcher.summed(b"\xff" * 8) == (0x1FFFFFFFE, 0x2FFFFFFFD, 0x3FFFFFFFC, 0x4FFFFFFFB)
    assert fletcher.summed(b"\1\0\0\0", (fletcher.MASK,) * 4) == (
        0,
        fletcher.MASK,
        fletcher.MASK - 1,
        fletcher.MASK - 2,
    )


@given(WORDS, STATES)
def test_sums_are_those_of_the_definition(data: bytes, state: State) -> None:
    assert fletcher.summed(data, state) == one_by_one(data, state)
    assert fletcher.summed(bytearray(data), state) == fletcher.summed(memoryview(data), state)


def test_sums_of_more_than_one_block_are_those_of_another_program() -> None:
    data = bytes(range(251)) * 1000
    assert fletcher.summed(data) == long_way(data, NOTHING) == one_by_one(data, NOTHING)


@each(lambda: [streams.named("full-enc-w"), streams.named("full-embed-e")])
def test_sums_are_those_of_openzfs(stream: Genuine) -> None:
    raw = stream.read()
    begin, *records = streams.split(raw)
    state = fletcher.summed(raw[: begin.end])
    for record in records:
        state = fletcher.summed(raw[record.start : record.start + 280], state)
        assert struct.unpack_from("<4Q", raw, record.start + 280) == state
        state = fletcher.summed(raw[record.start + 280 : record.end], state)


@given(WORDS, STATES)
def test_summing_can_be_taken_back(data: bytes, state: State) -> None:
    assert fletcher.unsummed(data, fletcher.summed(data, state)) == state
    assert fletcher.summed(data, fletcher.unsummed(data, state)) == state


def test_summing_of_more_than_one_block_can_be_taken_back() -> None:
    data = bytes(range(251)) * 1000
    assert fletcher.unsummed(data, fletcher.summed(data, (1, 2, 3, 4))) == (1, 2, 3, 4)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 16385])
def test_what_does_not_end_with_a_word_is_refused(size: int) -> None:
    for call in (fletcher.summed, fletcher.unsummed):
        with pytest.raises(ValueError, match=f"{size} bytes are not a whole number of words"):
            call(bytes(size), fletcher.ZERO)
    with pytest.raises(ValueError, match="not a whole number"):
        fletcher.stepped(fletcher.ZERO, bytes(size), bytes(size))
    with pytest.raises(ValueError, match="not a whole number"):
        fletcher.stepped(fletcher.ZERO, bytes(4), bytes(size))


def test_longest_payload_is_summed_while_one_waits() -> None:
    begun = time.thread_time()
    fletcher.summed(bytes(limits.RECORD_PAYLOAD_MAX))
    assert time.thread_time() - begun < 10  # 0.6 s, where nothing else runs


# --- differences -------------------------------------------------------------------------------------------------


@given(STATES, STATES)
def test_difference_is_what_has_to_be_added(wanted: State, found: State) -> None:
    assert fletcher.added(found, fletcher.difference(wanted, found)) == wanted


@given(WORDS, STATES, STATES)
def test_difference_moves_over_equal_words_as_if_both_were_summed(data: bytes, ours: State, theirs: State) -> None:
    moved = fletcher.advanced(fletcher.difference(ours, theirs), len(data) // 4)
    assert moved == fletcher.difference(fletcher.summed(data, ours), fletcher.summed(data, theirs))


@given(STATES, st.integers(0, 1 << 23))
def test_difference_moves_over_any_number_of_words_in_parts_too(moved: State, words: int) -> None:
    half = words // 2
    assert fletcher.advanced(fletcher.advanced(moved, half), words - half) == fletcher.advanced(moved, words)
    assert fletcher.advanced(fletcher.advanced(moved, words), -words) == moved


@given(WORDS, WORDS, STATES, STATES)
def test_difference_moves_over_other_words_as_if_both_were_summed(
    one: bytes, other: bytes, ours: State, theirs: State
) -> None:
    size = min(len(one), len(other))
    one, other = one[:size], other[:size]
    moved = fletcher.stepped(fletcher.difference(ours, theirs), one, other)
    assert moved == fletcher.difference(fletcher.summed(one, ours), fletcher.summed(other, theirs))


def test_other_words_are_of_one_length() -> None:
    with pytest.raises(ValueError, match="shorter"):
        fletcher.stepped(fletcher.ZERO, bytes(8), bytes(4))


def test_difference_over_the_longest_payload() -> None:
    words = limits.RECORD_PAYLOAD_MAX // 4
    assert fletcher.coefficients(words) == (
        4194304,
        4194304 * 4194305 // 2,
        4194304 * 4194305 * 4194306 // 6 % 2**64,
    )
    assert fletcher.advanced((1, 0, 0, 0), words) == (1, *fletcher.coefficients(words))
