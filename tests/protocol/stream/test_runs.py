"""Runs of blocks: found as far as they go, and rewritten as if each record was summed."""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import resumed, streams

from fullsend_protocol.shared.errors import StreamError
from fullsend_protocol.stream import fletcher
from fullsend_protocol.stream.checksums import sum_of
from fullsend_protocol.stream.merge import MergeInput, merge
from fullsend_protocol.stream.runs import Run, find, rewrite

GUID: Final = 0x1234_5678_9ABC_DEF0
HEADER: Final = 312
TO_THE_END: Final = (1 << 64) - 1


def block(at: int, payload: bytes, **more: Any) -> bytes:
    return streams.marked(streams.write(2, at, payload, **more), GUID)


def summed(*records: bytes) -> bytes:
    """The records, with right checksums, behind a BEGIN; without that."""
    return resumed.summed(streams.begin(guid=GUID), records)[HEADER:]


def found(raw: bytes, *, at: int = 0, limit: int = TO_THE_END) -> Run | None:
    return find(memoryview(raw), 0, number=2, guid=GUID, at=at, limit=limit)


A, B, C = block(0, b"a" * 512), block(512, b"bb" * 50, logical_size=512), block(1024, b"c" * 1024)


def test_a_run_goes_as_far_as_its_records_follow_each_other() -> None:
    raw = summed(A, B, C, streams.end(GUID))
    run = found(raw)
    assert run is not None
    assert (run.lengths, run.start, run.end, len(run.data)) == ([512, 100, 1024], 1024, 2048, len(raw) - HEADER)
    run = found(raw, limit=2047)
    assert run is not None
    assert (run.lengths, run.start, run.end) == ([512, 100], 512, 1024)
    assert found(raw, limit=511) is None
    run = found(raw[: -HEADER - 1])  # the last payload is not there as a whole
    assert run is not None
    assert run.lengths == [512, 100]


@pytest.mark.parametrize(
    "other",
    [
        streams.marked(streams.write(3, 512, bytes(512)), GUID),
        streams.write(2, 512, bytes(512)),
        block(1024, bytes(512)),
        block(0, bytes(512)),
        block(512, b""),
        block(512, bytes(10)),
        streams.marked(streams.free(2, 512, 512), GUID),
        streams.marked(streams.spill(2, bytes(512)), GUID),
    ],
    ids=["object", "stream", "gap", "back", "empty", "not words", "hole", "spill"],
)
def test_what_is_another_kind_of_record_ends_it(other: bytes) -> None:
    run = found(summed(A) + other + bytes(1000))
    assert run is not None
    assert run.lengths == [512]
    assert found(other, at=512) is None


def test_a_record_without_checksum_ends_it() -> None:
    assert found(A) is None


@given(st.lists(st.sampled_from([4, 100, 512, 1024]), min_size=1, max_size=6), st.integers(0, TO_THE_END))
def test_rewritten_it_has_the_checksums_that_summing_gives(lengths: list[int], guid: int) -> None:
    """Behind another beginning, and with another GUID."""
    records, at = [], 0
    for length in lengths:
        records.append(block(at, bytes([length % 251]) * length))
        at += length
    theirs, ours = (resumed.summed(streams.begin(guid=one), records) for one in (GUID, 7))
    marked = [streams.marked(record, guid) for record in records]
    wanted = resumed.summed(streams.begin(guid=7), [*marked, streams.end(guid)])
    run = found(theirs[HEADER:])
    assert run is not None
    # The difference as of the first header: that of both BEGINs.
    difference = fletcher.difference(fletcher.summed(ours[:HEADER]), fletcher.summed(theirs[:HEADER]))
    data, behind = rewrite(run, difference, guid.to_bytes(8, "little"))
    assert data == wanted[HEADER:-HEADER]
    # The difference behind it leads to the END of both.
    end = resumed.summed(streams.begin(guid=GUID), [*records, streams.end(GUID)])[-HEADER:]
    state = fletcher.unsummed(end[:280], sum_of(end))
    assert fletcher.added(state, behind) == fletcher.unsummed(wanted[-HEADER:][:280], sum_of(wanted[-HEADER:]))


@given(st.data())
def test_a_merge_is_the_same_with_runs_and_without(data: st.DataObject) -> None:
    """In pieces so small that no run is found, in larger ones, and all at once."""
    inputs = []
    for guid in range(1, data.draw(st.integers(3, 4))):
        of_all = data.draw(st.sets(st.integers(0, 15))) if guid > 1 else set(range(16))
        opening = bytearray(streams.object_(1))
        opening[16], opening[24:26], opening[34] = 23, (512).to_bytes(2, "little"), 1
        records = [bytes(opening), streams.free(1, 8192, TO_THE_END)]
        records += [streams.write(1, 512 * each, bytes([guid, each]) * 256) for each in sorted(of_all)]
        begin = streams.begin("tank/v@s", guid, guid - 1, flags=12, objset_type=3)
        inputs.append(resumed.summed(begin, [*(streams.marked(one, guid) for one in records), streams.end(guid)]))

    def merged(size: int) -> bytes:
        given = [
            MergeInput(str(number), [raw[at : at + size] for at in range(0, len(raw), size)])
            for number, raw in enumerate(inputs)
        ]
        return b"".join(map(bytes, merge(given)))

    slow = merged(300)
    assert resumed.wrong_sums(slow) == []
    assert merged(1 << 20) == merged(data.draw(st.integers(900, 9000))) == slow


@st.composite
def chains(draw: st.DrawFn) -> list[bytes]:
    """A full and increments of two objects, with holes, blocks of odd compressed lengths, and other ends."""
    inputs = []
    for guid in range(1, draw(st.integers(3, 4))):
        records = []
        for number in (1, 2):
            end = draw(st.integers(1, 12))
            volume = draw(st.booleans())
            records += [streams.data_object(number, b"", block_size=512, volume=volume)]
            records += [streams.free(number, 512 * end, TO_THE_END)]
            kinds = draw(st.lists(st.sampled_from(["block", "block", "block", "hole", ""]), min_size=end, max_size=end))
            for at, kind in enumerate(kinds):
                if kind == "hole":
                    records.append(streams.free(number, 512 * at, 512))
                elif kind:
                    length = draw(st.sampled_from([4, 100, 512]))
                    payload = bytes([guid, number, at, length % 251]) * (length // 4)
                    size = None if length == 512 else 512
                    records.append(streams.write(number, 512 * at, payload, logical_size=size))
        begin = streams.begin("tank/v@s", guid, guid - 1, flags=12, objset_type=3)
        inputs.append(resumed.summed(begin, [*(streams.marked(one, guid) for one in records), streams.end(guid)]))
    return inputs


@given(chains(), st.data())
def test_with_runs_damage_is_what_it_is_without(inputs: list[bytes], data: st.DataObject) -> None:
    """A wrong byte anywhere: in both ways the same bytes, or the same refusal."""

    def merged(size: int) -> bytes | str:
        pieces = [[raw[at : at + size] for at in range(0, len(raw), size)] for raw in inputs]
        try:
            return b"".join(map(bytes, merge([MergeInput(str(number), each) for number, each in enumerate(pieces)])))
        except StreamError as error:
            return str(error)

    whole = merged(1 << 20)
    assert isinstance(whole, bytes)
    assert resumed.wrong_sums(whole) == []
    assert merged(data.draw(st.integers(330, 4000))) == merged(300) == whole
    place = data.draw(st.integers(0, len(inputs) - 1))
    wrong = bytearray(inputs[place])
    wrong[data.draw(st.integers(HEADER, len(wrong) - 1))] ^= data.draw(st.integers(1, 255))
    inputs[place] = bytes(wrong)
    assert merged(1 << 20) == merged(data.draw(st.integers(330, 4000))) == merged(300)
