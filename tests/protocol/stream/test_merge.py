"""Merged streams: what `zfs send` gives, byte for byte; and what must be refused."""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import random
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import resumed, streams
from tests.chains import Chain, chains
from tests.chains import named as chain_named
from tests.data.load import NOTHING, fletcher

from fullsend_protocol.shared.errors import (
    DamagedStream,
    IncompleteStream,
    StreamError,
    TrailingBytes,
    UnsupportedStream,
)
from fullsend_protocol.stream import nvlist
from fullsend_protocol.stream.merge import MergeInput, merge
from fullsend_protocol.stream.records import Feature, RecordType, Walker
from fullsend_protocol.stream.running_sums import RunningSums
from fullsend_protocol.stream.without_frees import HashWithoutFrees

if TYPE_CHECKING:
    from collections.abc import Iterable

HEADER: Final = 312
TO_THE_END: Final = (1 << 64) - 1

#: Where `zfs send` knows that what a regrown volume lacks was a hole in the base already, and sends no FREE for it. The
#: merge cannot know: its FREE is redundant (docs/merge.md).
REDUNDANT: Final = {"t2-encvol-w": {(2, 4), (2, 5)}}


def merged(*inputs: bytes, size: int | None = None) -> bytes:
    """Merge streams; `size`: of the pieces in which they come."""
    given = []
    for number, raw in enumerate(inputs):
        step = size or max(len(raw), 1)
        given.append(MergeInput(f"input {number}", [raw[at : at + step] for at in range(0, len(raw), step)]))
    return b"".join(bytes(piece) for piece in merge(given))


def check(raw: bytes) -> None:
    """Walk a stream, and compare all its checksums."""
    walker = Walker()
    walker.walk(raw, 0, len(raw), len(raw) + 1)
    walker.finish()
    sums = RunningSums("merged")
    sums.feed(raw)
    sums.finish()


def without_frees(raw: bytes) -> str:
    form = HashWithoutFrees("it")
    form.feed(raw)
    return form.finish()


def sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


# --- genuine chains --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chain", chains(), ids=lambda chain: chain.name)
def test_every_run_of_a_genuine_chain_is_what_zfs_send_gives(chain: Chain) -> None:
    compared = 0
    for base, to in chain.pairs():
        raw = merged(*(raw for _name, raw in chain.run(base, to)))
        check(raw)
        genuine = chain.genuine(base, to)
        if (base, to) in REDUNDANT.get(chain.name, ()):
            assert sha256(raw) != genuine
        elif genuine is not None:
            assert sha256(raw) == genuine, (base, to)
            compared += 1
    assert compared >= chain.snapshots - 1  # each full


@pytest.mark.parametrize("chain", chains(), ids=lambda chain: chain.name)
def test_in_any_order_the_result_is_the_same(chain: Chain) -> None:
    inputs = [raw for _name, raw in chain.run(None, chain.snapshots - 1)]
    at_once = merged(*inputs)
    assert merged(*inputs, size=1009) == at_once
    assert functools.reduce(merged, inputs) == at_once
    assert functools.reduce(lambda newer, older: merged(older, newer), reversed(inputs)) == at_once


@pytest.mark.slow
def test_byte_by_byte() -> None:
    chain = chain_named("t1-plain")
    small = [raw for _name, raw in chain.run(1, 3)]
    assert merged(*small, size=1) == merged(*small)


# --- properties (-p) -------------------------------------------------------------------------------------------


def with_properties(raw: bytes, *, base: str | None = None, note: str = "") -> bytes:
    """Wrap a stream as `zfs send -p` does: with the checksum of what is before it in the first END."""
    dataset = streams.file_system("tank/data", {"now": 1}) | {"props": {"user:note": note}}
    payload = streams.xdr(streams.tree("now", dataset, fromsnap=base, not_recursive=True))
    opening = streams.begin("tank/data@now", 0, header_type=streams.COMPOUND, payload=payload, created=0)
    end = bytearray(streams.CLOSING_END)
    struct.pack_into("<4Q", end, 8, *fletcher(opening, NOTHING))
    return opening + bytes(end) + raw + streams.CLOSING_END


@pytest.mark.parametrize("base", [None, 1])
def test_properties_come_from_the_last_one(base: int | None) -> None:
    """As `zfs send -p -i`, whose properties name no base."""
    chain = chain_named("t1-plain")
    inputs = [raw for _name, raw in chain.run(base, 3)]
    wrapped = [with_properties(raw, note=str(number)) for number, raw in enumerate(inputs)]
    expected = with_properties(merged(*inputs), note=str(len(inputs) - 1))
    check(expected)
    assert merged(*wrapped) == expected
    assert merged(*inputs[:-1], wrapped[-1]) == expected
    assert merged(*wrapped[:-1], inputs[-1]) == merged(*inputs)


def test_genuine_properties_are_those_of_the_last_one() -> None:
    incr = streams.named("incr-p").read()
    full = made([], guid=int(streams.named("incr-p").begins[1]["fromguid"]), objset_type=2)
    package = sum(each.end - each.start for each in streams.split(incr)[:2])
    raw = merged(full, incr)
    assert raw[:package] == incr[:package]
    check(raw)


def test_properties_that_name_a_base_are_refused() -> None:
    chain = chain_named("t1-plain")
    older, newer = (raw for _name, raw in chain.run(1, 3))
    with pytest.raises(UnsupportedStream, match="input 1 names the snapshot on which it builds, as `zfs send -I` does"):
        merged(older, with_properties(newer, base="s"))


# --- damage ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_wrong_byte_in_a_payload_stays_visible() -> None:
    """Trap 1 of docs/merge.md: what is passed on must not get a right checksum."""
    chain = chain_named("t1-plain")
    inputs = [raw for _name, raw in chain.run(None, 3)]
    r = random.Random(2)
    visible = 0
    for _attempt in range(60):
        number = r.randrange(len(inputs))
        payloads = [each for each in streams.split(inputs[number]) if each.end - each.start > HEADER]
        record = r.choice(payloads)
        damaged = bytearray(inputs[number])
        damaged[r.randrange(record.start + HEADER, record.end)] ^= 1 << r.randrange(8)
        try:
            raw = merged(*(bytes(damaged) if each == number else other for each, other in enumerate(inputs)))
        except StreamError:
            visible += 1
            continue
        if raw == merged(*inputs):
            continue  # a newer input has replaced that block
        with pytest.raises(StreamError):
            check(raw)
        visible += 1
    assert visible > 20


@pytest.mark.parametrize("cut", [0, 200, 312, 1000, -1, -312, -313])
def test_an_input_that_is_cut(cut: int) -> None:
    chain = chain_named("t1-plain")
    full, newer = (raw for _name, raw in chain.run(None, 1))
    with pytest.raises(IncompleteStream, match="input 1 ends before its END record"):
        merged(full, newer[:cut])
    with pytest.raises(IncompleteStream, match="input 0 ends before its END record"):
        merged(full[:cut], newer)


def test_bytes_behind_the_end() -> None:
    chain = chain_named("t1-plain")
    full, newer = (raw for _name, raw in chain.run(None, 1))
    for raw in ((full + b"x", newer), (full, newer + newer)):
        with pytest.raises(TrailingBytes, match="has bytes after its END record"):
            merged(*raw)


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([streams.write(1, 0, bytes(512))], "has a record of object 1 without its OBJECT"),
        (
            [streams.object_(5), streams.free(5, 512, TO_THE_END), streams.object_(4)],
            "not in their order, at object 4",
        ),
        ([streams.object_(5)], "does not say where object 5 ends"),
        ([streams.record(77, {})], "has a record of type 77"),
        ([streams.write_byref(1, 0)], "has a record of type WRITE_BYREF: it cannot be merged"),
    ],
    ids=["no object", "order", "no end", "unknown", "byref"],
)
def test_impossible_records_are_named(records: list[bytes], said: str) -> None:
    with pytest.raises((DamagedStream, UnsupportedStream), match=f"input 1 .*{said}"):
        merged(made([], guid=1), made(records, guid=2, base=1))


# --- what cannot be merged -------------------------------------------------------------------------------------


def made(records: Iterable[bytes], *, guid: int, base: int = 0, **about: Any) -> bytes:
    """A stream with right GUIDs and checksums."""
    about = {"flags": 12, **about}
    raw = [streams.marked(record, guid) for record in records]
    return resumed.summed(streams.begin("tank/data@now", guid, base, **about), [*raw, streams.end(guid)])


@pytest.mark.parametrize(
    ("older", "newer", "said"),
    [
        ({}, {"base": 0}, "input 1 is a full, not an increment on input 0"),
        ({}, {"base": 9}, "input 1 builds on the snapshot with GUID 9, not on input 0"),
        ({}, {"objset_type": 3}, "input 1 is of another type of dataset than input 0"),
        ({}, {"features": [Feature.RAW]}, "input 1 and input 0 are raw and not raw"),
        ({"features": [Feature.LARGE_BLOCKS]}, {}, "input 1 was sent without -L, input 0 with it"),
        ({}, {"features": [Feature.DEDUP]}, "input 1 is a stream with the feature DEDUP"),
        ({}, {"features": [Feature.REDACTED]}, "input 1 is a stream with the feature REDACTED"),
        ({"features": [Feature.RESUMING]}, {}, "input 0 is a stream with the feature RESUMING"),
        ({}, {"flags": 4}, "input 1 was sent by an OpenZFS before 0.8"),
    ],
)
def test_what_does_not_fit_together_is_named(older: dict[str, Any], newer: dict[str, Any], said: str) -> None:
    with pytest.raises(UnsupportedStream, match=said):
        merged(made([], guid=1, **older), made([], **{"guid": 2, "base": 1, **newer}))


@pytest.mark.parametrize(
    ("ivset_guid", "base_ivset_guid", "fits"),
    [(11, 11, True), (11, 12, False), (11, 0, True), (0, 12, False), (0, 0, True)],
)
def test_raw_streams_with_other_keys_are_not_merged(ivset_guid: int, base_ivset_guid: int, *, fits: bool) -> None:
    """A copy that was received unencrypted into an encrypted dataset has the same GUIDs."""
    older = made([], guid=1, features=[Feature.RAW], payload=streams.keys(ivset_guid))
    newer = made([], guid=2, base=1, features=[Feature.RAW], payload=streams.keys(13, base_ivset_guid))
    said = "input 1 builds on a copy of input 0 that is encrypted with other keys: it cannot be merged"
    with contextlib.nullcontext() if fits else pytest.raises(UnsupportedStream, match=said):
        assert merged(older, newer)


def test_other_refusals() -> None:
    full, newer = made([], guid=1), made([], guid=2, base=1)
    with pytest.raises(UnsupportedStream, match="one stream alone cannot be merged"):
        merged(full)
    with pytest.raises(DamagedStream, match="input 0 does not begin with a BEGIN record"):
        merged(b"x" * 400, newer)
    big = bytearray(full)
    big[8:16] = big[8:16][::-1]
    with pytest.raises(UnsupportedStream, match="input 0 is a big-endian stream"):
        merged(bytes(big), newer)
    without = streams.substream(guid=2, base_guid=1, flags=12)
    with pytest.raises(UnsupportedStream, match="input 1 has no running checksums"):
        merged(full, without)
    with pytest.raises(UnsupportedStream, match="input 1 is a package of more than one snapshot"):
        merged(full, with_properties(newer + newer))


def object_of(
    number: int, *, block_size: int = 512, size: int | None = None, kind: int = 19, flags: int = 0
) -> tuple[bytes, bytes]:
    """OBJECT, and the FREE of all behind its end."""
    head = bytearray(streams.object_(number))
    struct.pack_into("<II", head, 16, kind, 44)
    struct.pack_into("<I", head, 24, block_size)
    head[34:36] = bytes([1, flags])
    return bytes(head), streams.free(number, block_size if size is None else size, TO_THE_END)


def test_large_blocks_switched_on_amid_a_file() -> None:
    block = bytes(128 << 10)
    large = {"features": [Feature.LARGE_BLOCKS]}
    full = made(
        [*object_of(2, block_size=128 << 10, size=256 << 10), *(streams.write(2, at, block) for at in (0, 128 << 10))],
        guid=1,
    )
    head = object_of(2, block_size=1 << 20, size=2 << 20)
    whole = made([*head, *(streams.write(2, at, bytes(1 << 20)) for at in (0, 1 << 20))], guid=2, base=1, **large)
    part = made([*head, streams.write(2, 1 << 20, bytes(1 << 20))], guid=2, base=1, **large)
    check(merged(full, whole))
    with pytest.raises(UnsupportedStream, match="input 1 switches -L on amid object 2"):
        merged(full, part)


def test_a_block_of_which_a_part_would_stay() -> None:
    full = made([*object_of(2, size=1024), streams.write(2, 0, bytes(1024))], guid=1)
    newer = made([*object_of(2, size=1024), streams.write(2, 0, bytes(512))], guid=2, base=1)
    with pytest.raises(UnsupportedStream, match="input 0 has a block of object 2 that is replaced in part"):
        merged(full, newer)


#: What an indirect block of a file with blocks of 512 bytes has: 1024 blocks.
INDIRECT: Final = 512 << 10


@pytest.mark.parametrize(
    ("size", "records", "newest_size", "newest", "expected"),
    [
        (512, [(0, INDIRECT)], 512, [], [(0, INDIRECT)]),
        (1024, [(0, INDIRECT)], 512, [], [(0, INDIRECT)]),
        (512, [(0, INDIRECT)], 2048, [], [(0, INDIRECT)]),
        (512, [(0, INDIRECT)], 2048, [512], [(0, 512), 512, (1024, 2048)]),
        (512, [(0, INDIRECT)], 2048, [(512, 1024)], [(0, 2048)]),
        (INDIRECT + 512, [(512, 2 * INDIRECT)], INDIRECT + 512, [512], [512, (1024, 2 * INDIRECT)]),
        (INDIRECT + 512, [(512, 2 * INDIRECT)], INDIRECT + 512, [INDIRECT], [(512, INDIRECT), INDIRECT]),
        (2 * INDIRECT, [(0, 2 * INDIRECT)], 512, [], [(0, INDIRECT)]),
        (4096, [(0, 4096)], 2048, [], [(0, 2048)]),
        (4096, [0, (512, 4096)], 2048, [], [0, (512, 2048)]),
        (512, [(0, INDIRECT << 10)], 512, [], [(0, INDIRECT << 10)]),
    ],
)
def test_an_indirect_block_without_blocks_is_free_as_a_whole(
    size: int, records: list[Any], newest_size: int, newest: list[Any], expected: list[Any]
) -> None:
    """Also behind the object's end, unless something newer is in it: then only what is before the end is."""

    def of(size: int, places: list[Any], guid: int, base: int) -> bytes:
        """A number is the place of a block, a pair is a hole."""
        found = [
            streams.write(2, each, bytes(512)) if isinstance(each, int) else streams.free(2, each[0], each[1] - each[0])
            for each in places
        ]
        return made([*object_of(2, size=size), *found], guid=guid, base=base)

    older, newer = of(size, records, 2, 1), of(newest_size, newest, 3, 2)
    assert merged(older, newer) == of(newest_size, expected, 3, 1)
    last = of(newest_size, [], 4, 3)
    assert merged(older, newer, last) == merged(merged(older, newer), last) == merged(older, merged(newer, last))


# --- made-up chains --------------------------------------------------------------------------------------------

BLOCK: Final = 512
SPAN: Final = 12  # blocks of an object at most
NUMBERS: Final = range(1, 40)
PLAIN_FILE, DIRECTORY = 19, 20


@dataclass
class File:
    """An object: the birth of each of its blocks, with its content (None: a hole); a spill block likewise.

    `born`: when it was made; `end`: how many blocks it has. Metadata have holes behind their end, up to SPAN, as an
    indirect block has.
    """

    born: int
    block_size: int
    kind: int
    blocks: list[tuple[int, int | None]]
    end: int
    spill: tuple[int, int] | None = None


Model = dict[int, File]


def send(model: Model, changed: dict[int, int], base: int, now: int) -> bytes:
    """`zfs send`, as docs/merge.md says that it works. `changed`: when each block of 32 dnodes was written last."""
    records: list[bytes] = []
    for first in range(0, max(NUMBERS) + 32, 32):
        if changed.get(first, 0) <= base:
            continue
        for number in range(max(first, 1), first + 32):
            file = model.get(number)
            if file is None:
                records.append(streams.record(RecordType.FREEOBJECTS, {8: ("Q", number), 16: ("Q", 1)}))
                continue
            records += object_of(
                number,
                block_size=file.block_size,
                size=file.block_size * file.end,
                kind=file.kind,
                flags=4 * (file.spill is not None),
            )
            if file.spill is not None and file.spill[0] <= base:
                records.append(spilled(number, file.spill[1], unmodified=True))
            for index, (birth, content) in enumerate(file.blocks):
                if file.born <= base and birth <= base:
                    continue
                at = index * file.block_size
                if content is None:
                    records.append(streams.free(number, at, file.block_size))
                else:
                    records.append(streams.write(number, at, payload(content, file.block_size)))
            if file.spill is not None and file.spill[0] > base:
                records.append(spilled(number, file.spill[1]))
    return made(joined(records), guid=now, base=base)


def payload(content: int, size: int) -> bytes:
    return struct.pack("<I", content) * (size // 4)


def spilled(number: int, content: int, *, unmodified: bool = False) -> bytes:
    record = bytearray(streams.spill(number, payload(content, 512)))
    record[32] = 4 * unmodified
    return bytes(record)


def joined(records: list[bytes]) -> list[bytes]:
    """Join adjacent FREEs and FREEOBJECTS, as dmu_send.c does."""
    out: list[bytes] = []
    for record in records:
        last = out[-1] if out else b"\xff"
        if record[0] == last[0] == RecordType.FREEOBJECTS:
            first, count = struct.unpack_from("<QQ", last, 8)
            number, more = struct.unpack_from("<QQ", record, 8)
            if first + count == number:
                out[-1] = streams.record(RecordType.FREEOBJECTS, {8: ("Q", first), 16: ("Q", count + more)})
                continue
        if record[0] == last[0] == RecordType.FREE:
            number, at, length = struct.unpack_from("<QQQ", last, 8)
            other, behind, more = struct.unpack_from("<QQQ", record, 8)
            if (number, at + length) == (other, behind) and more < 1 << 63:
                out[-1] = streams.free(number, at, length + more)
                continue
        out.append(record)
    return out


def received(raw: bytes, before: dict[int, Any]) -> dict[int, Any]:
    """`zfs receive`: the objects afterwards. Each has (block size, kind, {offset: payload}, spill)."""
    state = copy.deepcopy(before)
    for each in streams.split(raw):
        head, body = raw[each.start : each.start + HEADER], raw[each.start + HEADER : each.end]
        number, second, third = struct.unpack_from("<QQQ", head, 8)
        match each.kind:
            case RecordType.FREEOBJECTS:
                for gone in [each for each in state if number <= each < number + second]:
                    del state[gone]
            case RecordType.OBJECT:
                kind, _bonus, block_size = struct.unpack_from("<III", head, 16)
                old = state.get(number)
                blocks = old["blocks"] if old and old["block_size"] == block_size else {}
                spill = old["spill"] if old and head[35] & 4 else None
                state[number] = {"block_size": block_size, "kind": kind, "blocks": blocks, "spill": spill}
            case RecordType.FREE:
                blocks = state[number]["blocks"]
                for at in [at for at in blocks if second <= at < second + third]:
                    del blocks[at]
            case RecordType.WRITE:
                state[number]["blocks"][struct.unpack_from("<Q", head, 24)[0]] = body
            case RecordType.SPILL:
                state[number]["spill"] = body
            case _:
                pass
    return state


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Model], list[dict[int, int]]]:
    """Draw states of one dataset, each after some changes to the one before; and when dnode blocks were written."""
    model: Model = {}
    changed = {0: 1}
    states: list[Model] = []
    writes: list[dict[int, int]] = []
    numbers = st.sampled_from(NUMBERS)
    for now in range(1, draw(st.integers(3, 5)) + 1):
        for _change in range(draw(st.integers(0, 8))):
            number = draw(numbers)
            changed[number // 32 * 32] = now
            file = model.get(number)
            what = draw(st.sampled_from(["new", "write", "punch", "cut", "spill", "no spill", "free"]))
            if file is None or what == "new":
                size = draw(st.sampled_from([512, 1024]))
                kind = draw(st.sampled_from([PLAIN_FILE, DIRECTORY]))
                # What an object had that was here before is freed: dmu_traverse.c sends its holes too.
                end = draw(st.integers(1, SPAN))
                blocks: list[tuple[int, int | None]] = [(now, None)] * (end if kind == PLAIN_FILE else SPAN)
                file = model[number] = File(now, size, kind, blocks, end)
            index = draw(st.integers(0, SPAN - 1))
            if what in {"new", "write"}:
                # Holes that nobody has made have no birth. They are sent where the object may be a new one
                # (dmu_traverse.c, td_realloc_possible).
                file.blocks += [(0, None)] * (index + 1 - len(file.blocks))
                file.blocks[index] = now, draw(st.integers(0, (1 << 32) - 1))
                file.end = max(file.end, index + 1)
            elif what == "punch" and index < len(file.blocks):
                file.blocks[index] = now, None
            elif what == "cut" and index and index < file.end:
                file.blocks[index:] = [(now, None)] * (0 if file.kind == PLAIN_FILE else SPAN - index)
                file.end = index
            elif what == "spill":
                file.spill = now, draw(st.integers(0, (1 << 32) - 1))
            elif what == "no spill":
                file.spill = None
            elif what == "free":
                del model[number]
        states.append(copy.deepcopy(model))
        writes.append(dict(changed))
    return states, writes


@pytest.mark.slow
@given(histories())
def test_made_up_chains(history: tuple[list[Model], list[dict[int, int]]]) -> None:
    """A merged full is the genuine one. A merged increment, received, leaves what the genuine ones leave."""
    states, writes = history
    last = len(states)
    fulls = [send(states[number], writes[number], 0, number + 1) for number in range(last)]
    steps = [send(states[number], writes[number], number, number + 1) for number in range(1, last)]
    for to in range(2, last + 1):
        assert merged(fulls[0], *steps[: to - 1]) == fulls[to - 1]
    for base in range(1, last - 1):
        raw = merged(*steps[base - 1 :])
        check(raw)
        before = received(fulls[base - 1], {})
        assert received(raw, before) == received(fulls[-1], {})
        assert without_frees(raw) == without_frees(send(states[-1], writes[-1], base, last))


# --- nvlists ---------------------------------------------------------------------------------------------------


def test_the_base_of_a_raw_stream_is_the_first_ones() -> None:
    chain = chain_named("t2-enc2-w")

    def ivsets(raw: bytes) -> list[int]:
        size = struct.unpack_from("<I", raw, 4)[0]
        packed = raw[HEADER : HEADER + size]
        return [nvlist.integer(packed, name) for name in ("from_ivset_guid", "to_ivset_guid")]

    run = [raw for _name, raw in chain.run(1, 4)]
    assert ivsets(merged(*run)) == [ivsets(run[0])[0], ivsets(run[-1])[1]]
    full = [raw for _name, raw in chain.run(None, 2)]
    assert ivsets(merged(*full)) == [0, ivsets(full[-1])[1]]
