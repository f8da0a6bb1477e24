from __future__ import annotations

import functools
import json
import zlib
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import streams
from tests.receiver.helpers import SENDER, push_of

from fullsend_protocol.format.manifest import Resumption, Segment
from fullsend_protocol.shared import limits
from fullsend_protocol.stream.records import Begin, EmbeddedSpill, Phase, Walker, WalkerState
from fullsend_protocol.wire.messages import Push
from fullsend_receiver.store import journal
from fullsend_receiver.store.errors import PartialDamaged
from fullsend_receiver.store.journal import Batch, Written
from fullsend_receiver.store.opened import Opened, offer_of
from fullsend_receiver.store.seekable import IndexEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

EVERY = streams.substream(*streams.every_record())
PACKAGE = streams.package(
    streams.substream(*streams.every_record(), name="tank/data@before", guid=5),
    streams.redacted([7, 8], *streams.every_record(), guid=6, base_guid=5),
    nvlist=streams.tree("now", streams.file_system("tank/data", {"before": 5, "now": 6})),
)
OPENED = Opened(sender=SENDER, offer=offer_of(push_of(EVERY)), at="2026-11-23T06:30:00Z")
OPEN_LINE = journal.open_line(OPENED)
#: What the version before formats had numbers wrote: all of the wire's message.
OLD_LINE = journal.make_line(
    {"open": {"sender": SENDER, "push": push_of(EVERY).model_dump(mode="json"), "at": "2026-11-23T06:30:00Z"}}
)
NEVER = 1 << 62
MIN, MAX = limits.CHUNK_MIN, limits.CHUNK_MAX


def chunk(raw: int, *, resumable: bool = True, start: int = 0, segment: bool = False, stored: int = 10) -> Written:
    """A chunk of so many raw bytes. `start`: of the record that ends with it."""
    return Written(IndexEntry(raw, stored, resumable, (1, 0), segment, bytes([raw % 256]) * 32), start)


def batch(offset: int, *chunks: Written, begins: Sequence[Begin] = (), walker: WalkerState | None = None) -> Batch:
    state = walker or WalkerState(offset, Phase.SUBSTREAM, resumable=True)
    return Batch(offset, 10 * len(chunks), chunks, state, tuple(begins))


def begin_of(number: int = 1) -> Begin:
    return Begin(False, f"tank/data@{number}", number, 0, 0, 0, False, b"")


def written(path: Path, *lines: bytes) -> Path:
    file = path / "journal"
    file.write_bytes(b"".join(lines))
    return file


# --- a walker resumes from its journal --------------------------------------------------------------------------


def through_journal(path: Path, raw: bytes, cuts: Iterable[int]) -> Walker:
    """Walk a stream, and at each of these places resume from what the journal says."""
    lines = [OPEN_LINE]
    walker = Walker()
    stored = begun = spilt = 0
    for at in cuts:
        if at == walker.offset:
            continue
        taken = chunk(at - walker.offset)
        walker.walk(raw, walker.offset, at, NEVER)
        stored += taken.entry.stored_length
        since = tuple(walker.begins[begun:]), tuple(walker.embedded_spills[spilt:])
        said = Batch(at, stored, (taken,), walker.state, *since)
        begun, spilt = len(walker.begins), len(walker.embedded_spills)
        lines.append(journal.durable_line(said))
        found = journal.standing(written(path, *lines))
        assert found is not None
        assert (found.offset, found.stored, found.chunks) == (at, stored, len(lines) - 1)
        assert found.walker == walker.state
        assert list(found.begins) == walker.begins
        assert found.part == said
        assert found.opened == OPENED
        assert list(found.embedded_spills) == walker.embedded_spills
        walker = Walker.resume(found.walker, found.begins, found.embedded_spills)
    walker.walk(raw, walker.offset, len(raw), NEVER)
    return walker


@functools.cache
def straight_through(raw: bytes) -> Walker:
    straight = Walker()
    straight.walk(raw, 0, len(raw), NEVER)
    return straight


def check_same(walker: Walker, raw: bytes) -> None:
    straight = straight_through(raw)
    walker.finish()
    assert (walker.state, walker.begins, walker.embedded_spills, walker.at_resume_point) == (
        straight.state,
        straight.begins,
        straight.embedded_spills,
        straight.at_resume_point,
    )


def test_spill_blocks_that_are_lost_are_remembered_at_every_record(tmp_path: Path) -> None:
    spills = [streams.write_embedded(number, 1 << 63, b"target") for number in range(3)]
    raw = streams.substream(streams.object_(1), *spills)
    for count in range(len(spills) + 1):
        walker = through_journal(tmp_path, raw, [len(raw) - len(streams.end()) - count * len(spills[0])])
        check_same(walker, raw)
        assert [each.number for each in walker.embedded_spills] == [0, 1, 2]
        (tmp_path / "journal").unlink(missing_ok=True)


def test_of_a_place_in_the_middle_of_a_batch_only_the_spill_blocks_before_it_count(tmp_path: Path) -> None:
    spills = [EmbeddedSpill("tank/data@now", 1, MIN - 1), EmbeddedSpill("tank/data@now", 2, MIN + 400)]
    said = batch(MIN + 600, chunk(MIN), chunk(600, start=MIN), begins=[begin_of()])
    said = replace(said, embedded_spills=tuple(spills))
    path = written(tmp_path, OPEN_LINE, journal.durable_line(said))
    end, resumable = journal.standings(path)
    assert end is not None
    assert resumable is not None
    assert (end.offset, list(end.embedded_spills)) == (MIN + 600, spills)
    assert (resumable.offset, list(resumable.embedded_spills)) == (MIN, spills[:1])
    assert list(resumable.part.embedded_spills) == spills[:1]


@pytest.mark.parametrize("raw", [EVERY, PACKAGE], ids=["plain", "package"])
@pytest.mark.slow
def test_walker_resumes_out_of_its_journal_at_every_byte(swift_path: Path, raw: bytes) -> None:
    """Inside records, headers and the payloads of BEGINs."""
    for at in range(1, len(raw) + 1):
        check_same(through_journal(swift_path, raw, [at]), raw)


@pytest.mark.slow
def test_walker_resumes_out_of_its_journal_at_every_byte_of_a_genuine_stream(swift_path: Path) -> None:
    raw = streams.named("incr-2").read()
    for at in range(1, len(raw) + 1, 3):
        check_same(through_journal(swift_path, raw, [at]), raw)


@given(cuts=st.lists(st.integers(1, len(PACKAGE)), max_size=12))
@settings(max_examples=40, deadline=None)
def test_walker_resumes_out_of_its_journal_again_and_again(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    check_same(through_journal(tmp_path_factory.getbasetemp(), PACKAGE, sorted(cuts)), PACKAGE)


# --- what it says -----------------------------------------------------------------------------------------------


def test_lines_are_as_the_documentation_has_them() -> None:
    state = WalkerState(9, Phase.HEADER, owed=3, head=b"\0", begin=begin_of(), payload=b"\1", record_start=4)
    line = journal.durable_line(Batch(9, 7, (chunk(9, start=4, segment=True),), state, (begin_of(2),)))
    crc, _, body = line.partition(b" ")
    assert crc == b"%08x" % zlib.crc32(body[:-1])
    begin = {"compound": False, "guid": 1, "base_guid": 0, "created": 0, "features": 0, "volume": False, "payload": ""}
    assert json.loads(body) == {
        "durable": {
            "offset": 9,
            "stored": 7,
            "chunks": [[9, 10, True, [1, 0], True, "09" * 32, 4]],
            "walker": {
                "phase": "header",
                "owed": 3,
                "head": "AA==",
                "begin": {**begin, "name": "tank/data@1"},
                "payload": "AQ==",
                "resumable": False,
                "record_start": 4,
            },
            "begins": [{**begin, "name": "tank/data@2", "guid": 2}],
        }
    }


def test_iv_sets_of_a_raw_stream_are_in_its_journal(tmp_path: Path) -> None:
    raw = streams.encrypted(streams.object_(1), base_guid=1, ivset_guid=12, base_ivset_guid=11)
    for at in range(1, len(raw), 61):
        check_same(through_journal(tmp_path, raw, [at]), raw)
    (begin,) = straight_through(raw).begins
    said = journal.begin_to_json(begin)
    assert (said["ivset_guid"], said["base_ivset_guid"]) == (12, 11)
    # An older fullsendd has written none.
    del said["ivset_guid"], said["base_ivset_guid"]
    assert journal.begin_from_json(said) == replace(begin, ivset_guid=None, base_ivset_guid=None)


def test_first_line_is_as_the_documentation_has_it() -> None:
    properties = {"compression": "lz4"}
    more = {"size_estimate": 7, "zfs_version": "zfs-2.4.4", "properties": properties, "base_guid": "9", "flags": "ec"}
    opened = OPENED.model_copy(update={"offer": offer_of(push_of(EVERY).model_copy(update=more))})
    assert json.loads(journal.open_line(opened)[9:]) == {
        "open": {
            "format": 1,
            "sender": SENDER,
            "push": {
                "dataset": OPENED.offer.dataset,
                "snapshot": OPENED.offer.snapshot,
                "guid": OPENED.offer.guid,
                "base_guid": "9",
                "flags": "ec",
                "size_estimate": 7,
                "zfs_version": "zfs-2.4.4",
                "properties": properties,
                "keep_orphan": True,
            },
            "at": "2026-11-23T06:30:00Z",
        }
    }


def test_journal_that_is_missing_says_nothing(tmp_path: Path) -> None:
    assert journal.read(tmp_path / "journal") == journal.Journal(None, 0, None, 0)


def test_journal_in_short(tmp_path: Path) -> None:
    lines = [
        journal.open_line(OPENED),
        journal.durable_line(batch(MIN, chunk(MIN))),
        journal.resumed_line(Resumption(how="replay", offset=MIN, at="2026-11-23T06:31:00Z")),
        journal.commit_line(PurePosixPath("alpha/x.zst")),
    ]
    path = written(tmp_path, *lines)
    assert journal.read(path) == journal.Journal(MIN, 10, PurePosixPath("alpha/x.zst"), sum(map(len, lines)))
    path = written(tmp_path, *lines[:1], b"00000000 {}\n", b"torn")
    assert journal.read(path) == journal.Journal(None, 0, None, len(lines[0]))
    assert journal.read_opened(path) == OPENED
    assert journal.read_opened(written(tmp_path, lines[0][:-1])) is None
    assert journal.standing(written(tmp_path, *lines[1:])) is None  # nobody knows whose that is


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_bad_line_that_whole_ones_follow_is_damage_and_no_end(tmp_path: Path, bad: int) -> None:
    """A crash tears the last line alone; to go by the lines before would be to forget what was acknowledged since."""
    lines = [OPEN_LINE, *(journal.durable_line(batch(at * MIN, chunk(MIN))) for at in (1, 2, 3))]
    lines[bad] = lines[bad][:50] + bytes([lines[bad][50] ^ 1]) + lines[bad][51:]
    for tail in (b"", b"torn", b"00000000 {}\n"):
        path = written(tmp_path, *lines, tail)
        says = f"its journal is not as written from byte {sum(map(len, lines[:bad]))} on, and whole lines follow"
        for reading in (journal.read, journal.standing, journal.standings, lambda path: list(journal.entries(path))):
            with pytest.raises(PartialDamaged, match=says):
                reading(path)
        if bad:
            assert journal.read_opened(path) == OPENED


def test_segments_chunks_and_resumptions_are_those_up_to_there(tmp_path: Path) -> None:
    first, second = (Resumption(how="replay", offset=at, at="2026-11-23T06:31:00Z") for at in (2 * MIN, 3 * MIN))
    path = written(
        tmp_path,
        journal.open_line(OPENED),
        journal.durable_line(batch(2 * MIN, chunk(MIN, segment=True), chunk(MIN, start=MIN), begins=[begin_of()])),
        journal.resumed_line(first),
        journal.durable_line(batch(3 * MIN, chunk(MIN, segment=True, start=2 * MIN))),
        journal.resumed_line(second),
        journal.durable_line(batch(3 * MIN + 7, chunk(7, segment=True, resumable=False, start=3 * MIN))),
    )
    found = journal.standing(path)
    assert found is not None
    assert [(segment.start, segment.end) for segment in found.segments] == [
        (0, 2 * MIN),
        (2 * MIN, 3 * MIN),
        (3 * MIN, 3 * MIN + 7),
    ]
    assert found.segments[0] == Segment(start=0, end=2 * MIN, sha256=(bytes([MIN % 256]) * 32).hex())
    assert (found.chunks, found.offset, found.stored) == (4, 3 * MIN + 7, 40)
    assert found.resumptions == (first, second)
    assert [entry.raw_length for entry in journal.entries(path)] == [MIN, MIN, MIN, 7]
    # ... and with what came behind the last resume point left out.
    found = journal.standing(path, at_resume_point=True)
    assert found is not None
    assert (found.chunks, found.offset, found.stored) == (3, 3 * MIN, 30)
    assert found.resumptions == (first,)
    assert len(found.segments) == 2


def test_of_resumptions_between_which_nothing_arrived_the_last_alone_counts(tmp_path: Path) -> None:
    first, second, third, fourth = (
        Resumption(how="reconnect", offset=at * MIN, at=f"2026-11-23T06:3{number}:00Z")
        for number, at in enumerate((1, 1, 1, 2))
    )
    path = written(
        tmp_path,
        journal.open_line(OPENED),
        journal.durable_line(batch(MIN, chunk(MIN, segment=True), begins=[begin_of()])),
        *map(journal.resumed_line, (first, second, third)),
        journal.durable_line(batch(2 * MIN, chunk(MIN, segment=True, start=MIN))),
        journal.resumed_line(fourth),
        journal.durable_line(batch(3 * MIN, chunk(MIN, segment=True, start=2 * MIN))),
        *map(journal.resumed_line, (first, second)),  # not followed by anything: as good as none
    )
    for found in journal.standings(path):
        assert found is not None
        assert found.resumptions == (third, fourth)


# --- where a token resumes --------------------------------------------------------------------------------------


def resume_offset(path: Path) -> int | None:
    found = journal.standing(path, at_resume_point=True)
    return None if found is None else found.offset


def test_token_goes_back_to_the_last_whole_resumable_record_also_amid_a_batch(tmp_path: Path) -> None:
    chunks = [chunk(MIN), chunk(MIN, start=MIN), chunk(MAX, resumable=False, start=2 * MIN)]
    said = batch(2 * MIN + MAX, *chunks, begins=[begin_of()])
    path = written(tmp_path, head := journal.open_line(OPENED), journal.durable_line(said))
    found = journal.standing(path, at_resume_point=True)
    assert found is not None
    assert (found.offset, found.stored, found.chunks, found.line) == (2 * MIN, 20, 2, len(head))
    assert found.walker == WalkerState(2 * MIN, Phase.SUBSTREAM, resumable=True, record_start=MIN)
    assert found.part == Batch(2 * MIN, 20, tuple(chunks[:2]), found.walker, (begin_of(),))
    # Cut there, it is the same.
    again = journal.standing(written(tmp_path, head, journal.durable_line(found.part)), at_resume_point=True)
    assert again == found
    assert journal.standing(written(tmp_path, head, journal.durable_line(found.part))) == found


def test_token_passes_over_a_record_that_began_in_the_chunk_before(tmp_path: Path) -> None:
    said = batch(2 * MAX, chunk(MAX, resumable=False), chunk(MAX, start=MAX - 1), begins=[begin_of()])
    assert resume_offset(written(tmp_path, journal.open_line(OPENED), journal.durable_line(said))) is None
    said = batch(2 * MAX, chunk(MAX, resumable=False), chunk(MAX, start=MAX), begins=[begin_of()])
    assert resume_offset(written(tmp_path, journal.open_line(OPENED), journal.durable_line(said))) == 2 * MAX


def test_token_passes_over_a_chunk_behind_which_none_may_follow(tmp_path: Path) -> None:
    """Its sender broke off there, at the end of a record by chance; the chunk before it is as good as ever."""
    said = batch(MIN + 600, chunk(MIN), chunk(600, start=MIN), begins=[begin_of()])
    path = written(tmp_path, journal.open_line(OPENED), journal.durable_line(said))
    assert resume_offset(path) == MIN


def test_token_is_of_no_use_to_a_package_of_several_snapshots(tmp_path: Path) -> None:
    """Nobody could tell which BEGINs of a batch had come by a place amid it."""
    said = batch(2 * MIN, chunk(MIN), chunk(MIN, start=MIN), begins=[begin_of(1), begin_of(2)])
    assert resume_offset(written(tmp_path, journal.open_line(OPENED), journal.durable_line(said))) is None


@pytest.mark.parametrize(
    ("last", "phase", "may"),
    [
        (chunk(MIN), Phase.SUBSTREAM, True),
        (chunk(MAX, resumable=False), Phase.SUBSTREAM, True),
        (chunk(MIN, resumable=False), Phase.SUBSTREAM, False),
        (chunk(MIN - 1), Phase.SUBSTREAM, False),
        (chunk(700, resumable=False), Phase.DONE, True),
        (chunk(700, resumable=False), Phase.BETWEEN, False),
    ],
)
def test_stream_resumes_only_where_a_chunk_may_end(tmp_path: Path, last: Written, phase: Phase, may: bool) -> None:
    offset = last.entry.raw_length
    said = batch(offset, last, walker=WalkerState(offset, phase))
    found = journal.standing(written(tmp_path, journal.open_line(OPENED), journal.durable_line(said)))
    assert found is not None
    assert found.may_resume is may


# --- what another version wrote ----------------------------------------------------------------------------------


def changed(line: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    content = json.loads(line[9:])
    change(content)
    return journal.make_line(content)


def more(value: object) -> None:
    """Add a key that no version knows wherever there is an object."""
    if isinstance(value, dict):
        for each in list(value.values()):
            more(each)
        value["to come"] = [1]
    elif isinstance(value, list):
        for each in value:
            more(each)


def test_keys_that_are_not_known_change_nothing(tmp_path: Path) -> None:
    """An upgrade or a downgrade, after which a daemon did not start."""
    begins = [begin_of()]
    lines = [
        OPEN_LINE,
        journal.durable_line(batch(MIN, chunk(MIN, segment=True), begins=begins)),
        journal.resumed_line(Resumption(how="token", offset=MIN, at="2026-11-23T06:30:00Z")),
        journal.durable_line(batch(2 * MIN, chunk(MIN, start=MIN, segment=True))),
    ]
    before = [each and replace(each, line=0) for each in journal.standings(written(tmp_path, *lines))]
    opened = journal.read_opened(tmp_path / "journal")
    path = written(tmp_path, *(changed(line, more) for line in lines))
    assert [each and replace(each, line=0) for each in journal.standings(path)] == before
    assert journal.read_opened(path) == opened
    assert [each.raw_length for each in journal.entries(path)] == [MIN, MIN]


@pytest.mark.parametrize(
    "key", ["size_estimate", "zfs_version", "properties", "keep_orphan", "claim", "resume", "whole"]
)
def test_what_an_older_version_did_not_say_of_an_offer_is_not_needed(tmp_path: Path, key: str) -> None:
    path = written(tmp_path, changed(OLD_LINE, lambda line: line["open"]["push"].pop(key)))
    opened = journal.read_opened(path)
    assert opened is not None
    assert (opened.offer.dataset, opened.offer.guid) == (OPENED.offer.dataset, OPENED.offer.guid)


def test_journal_from_before_formats_had_numbers_is_read(tmp_path: Path) -> None:
    assert "format" not in json.loads(OLD_LINE[9:])["open"]
    durable = journal.durable_line(batch(MIN, chunk(MIN, segment=True), begins=[begin_of()]))
    before = [each and replace(each, line=0) for each in journal.standings(written(tmp_path, OPEN_LINE, durable))]
    path = written(tmp_path, OLD_LINE, durable)
    assert journal.read_opened(path) == OPENED
    assert [each and replace(each, line=0) for each in journal.standings(path)] == before


def test_version_from_before_formats_had_numbers_reads_what_this_one_writes() -> None:
    """It made a `Push` of what it knew, and of this where that was missing."""
    not_said = {
        "guid": None,
        "base_guid": None,
        "flags": None,
        "size_estimate": None,
        "zfs_version": None,
        "properties": None,
        "keep_orphan": False,
        "claim": "0" * 16,
        "resume": "none",
    }
    said = json.loads(OPEN_LINE[9:])["open"]["push"]
    known = {name: value for name, value in said.items() if name in Push.model_fields}
    read = Push.model_validate(not_said | known | {"whole": None})
    assert read == push_of(EVERY).model_copy(update={"claim": "0" * 16})


def test_format_of_a_later_version_is_refused_by_name(tmp_path: Path) -> None:
    """What its lines mean is not known: nothing may be cut back by them, and nothing put in place."""
    durable = journal.durable_line(batch(MIN, chunk(MIN, segment=True), begins=[begin_of()]))
    path = written(tmp_path, changed(OPEN_LINE, lambda line: line["open"].update(format=2)), durable)
    for read in (journal.read, journal.read_opened, journal.standings):
        with pytest.raises(PartialDamaged, match="has format 2, and this version of fullsendd reads format 1"):
            read(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line["open"]["push"].pop("dataset"),
        lambda line: line["open"].pop("at"),
        lambda line: line["open"].update(push=7),
        lambda line: line.update(open=None),
        lambda line: line["open"]["push"].update(guid="0x1"),
    ],
)
def test_what_cannot_be_understood_is_damaged_by_name(
    tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    path = written(tmp_path, changed(OPEN_LINE, change), journal.durable_line(batch(MIN, chunk(MIN, segment=True))))
    with pytest.raises(PartialDamaged, match="its journal is not one that this version of fullsendd can read"):
        journal.read_opened(path)
    durable = journal.durable_line(batch(MIN, chunk(MIN, segment=True)))
    path = written(
        tmp_path, OPEN_LINE, changed(durable, lambda line: line["durable"].update(offset="much", chunks=[[1]]))
    )
    for read in (journal.read, journal.standings, lambda path: list(journal.entries(path))):
        with pytest.raises(PartialDamaged):
            read(path)
