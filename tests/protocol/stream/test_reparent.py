from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import resumed, streams
from tests.protocol.cut_streams import PACKAGE, PLAIN, RAW, small
from tests.streams import Genuine, each, named

from fullsend_protocol.shared.errors import DamagedStream, IncompleteStream, UnsupportedStream
from fullsend_protocol.stream.records import HEADER_SIZE, Walker, without_clone
from fullsend_protocol.stream.rejoin import Rejoiner, opening
from fullsend_protocol.stream.reparent import Reparenter

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Where BEGIN has its drr_flags.
FLAGS_AT = 36
CLONE = 1


def reparented(parts: Iterable[bytes]) -> bytes:
    reparenter, out = Reparenter(), bytearray()
    for part in parts:
        for piece in reparenter.feed(part):
            out += piece
    return bytes(out) + b"".join(map(bytes, reparenter.finish()))


def marked(begin: bytes) -> bytes:
    """A BEGIN as that of a clone's increment."""
    (flags,) = struct.unpack_from("<I", begin, FLAGS_AT)
    return begin[:FLAGS_AT] + struct.pack("<I", flags | CLONE) + begin[FLAGS_AT + 4 :]


def clones(of: resumed.Sent) -> bytes:
    """The same stream as that of a clone: marked, and summed anew from there to its END."""
    records = (of.bytes_of(record) for record in of.records[1:])
    inside = resumed.summed(marked(of.begin), records)
    return of.raw[: of.records[0].start] + inside + of.raw[of.end :]


def flags_of(raw: bytes) -> int:
    found = opening(raw)
    assert found is not None
    return int(struct.unpack_from("<I", found[1], FLAGS_AT)[0])


@each(small)
def test_a_genuine_stream_comes_out_as_it_is(stream: Genuine) -> None:
    raw = stream.read()
    if not flags_of(raw) & CLONE:
        assert reparented([raw]) == raw


@pytest.mark.parametrize("name", ["incr", "incr-book", "incr-large-L", "incr-enc-w", "incr-p", "incr-vol"])
def test_a_genuine_increment_that_is_marked_comes_out_as_it_was(name: str) -> None:
    raw = named(name).read()
    (of,) = resumed.sent(raw)
    clone = clones(of)
    assert flags_of(clone) & CLONE
    assert clone != raw
    assert reparented([clone[:1000], clone[1000:]]) == raw


def test_the_genuine_increment_of_a_clone_is_marked_no_more_and_summed_right() -> None:
    raw = named("clone").read()
    assert flags_of(raw) & CLONE
    assert not resumed.wrong_sums(raw)
    found = reparented([raw])
    assert not flags_of(found) & CLONE
    assert not resumed.wrong_sums(found)
    # Nothing but the mark and the sums has changed.
    (before,), (after,) = resumed.sent(raw), resumed.sent(found)
    assert clones(after) == raw
    for one, other in zip(before.records[1:], after.records[1:], strict=True):
        one_bytes, other_bytes = before.bytes_of(one), after.bytes_of(other)
        assert one_bytes[HEADER_SIZE:] == other_bytes[HEADER_SIZE:]
        if one is not before.records[-1]:  # END has two sums
            assert one_bytes[: resumed.SUM_AT] == other_bytes[: resumed.SUM_AT]
    walker = Walker()
    walker.walk(found, 0, len(found), 1 << 63)
    walker.finish()


@pytest.mark.parametrize("of", [PLAIN, RAW, PACKAGE], ids=["plain", "raw", "package"])
def test_it_comes_out_however_the_bytes_come(of: resumed.Sent) -> None:
    clone = clones(of)
    assert reparented(clone[at : at + 1] for at in range(len(clone))) == of.raw
    for cut in range(0, len(clone), 97):
        assert reparented([clone[:cut], clone[cut:]]) == of.raw


@given(st.binary(max_size=1000), st.integers(0, 3000))
def test_changed_bytes_are_refused_or_stay_visible(data: bytes, at: int) -> None:
    clone = clones(PLAIN)
    at = min(at, len(clone) - len(data)) if len(data) < len(clone) else 0
    broken = clone[:at] + data + clone[at + len(data) :]
    try:
        found = reparented([broken])
    except (DamagedStream, IncompleteStream, UnsupportedStream):
        return
    if broken == clone:
        assert found == PLAIN.raw
    else:
        assert found != PLAIN.raw


def test_a_clone_that_ends_early_is_refused() -> None:
    clone = clones(PLAIN)
    with pytest.raises(IncompleteStream):
        reparented([clone[:-1]])
    assert reparented([]) == b""
    assert reparented([clone[:100]]) == clone[:100]  # not even BEGIN: the proof of the stream says so


def test_a_clone_without_running_checksums_is_refused_by_name() -> None:
    raw = streams.substream(streams.write(1, 0, b"w" * 512), base_guid=1, flags=CLONE)
    with pytest.raises(UnsupportedStream, match="without running checksums"):
        reparented([raw])


def test_a_part_of_a_clones_increment_resumes_where_its_base_is() -> None:
    """`zfs receive -s` was interrupted amid one that had come out of here."""
    (of,) = resumed.sent(clones(PLAIN))
    token = of.token((7, 1024))
    for onto_base in (False, True):
        rejoiner = Rejoiner(of.begin, token, onto_base=onto_base)
        pieces = rejoiner.feed(of.raw[len(of.begin) :])
        rejoiner.finish()
        found = b"".join(map(bytes, pieces))
        assert bool(flags_of(found) & CLONE) != onto_base
        assert not resumed.wrong_sums(found)


def test_a_begin_without_the_mark_stays_as_it_is() -> None:
    assert without_clone(PLAIN.begin) == PLAIN.begin
    assert without_clone(marked(PLAIN.begin)) == PLAIN.begin
