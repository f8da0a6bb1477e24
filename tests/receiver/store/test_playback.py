from __future__ import annotations

import errno
import hashlib
import itertools
import os
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pytest
from tests import streams
from tests.receiver.helpers import (
    SENDER,
    chunks_from,
    chunks_of,
    commit_stream,
    cut,
    long_stream,
    make_store,
    push_of,
    resume,
    store_stream,
    take,
)
from tests.streams import each, whole

from fullsend_protocol.shared.errors import ErrorCode
from fullsend_receiver.arrival.ingest import Ingest
from fullsend_receiver.store.blob import LocalBlob
from fullsend_receiver.store.local import LocalStore
from fullsend_receiver.store.opened import open_offer, partial_key
from fullsend_receiver.store.playback import (
    DamagedChunk,
    RawChunk,
    checked_chunks,
    describe,
    locate,
    stored_chunks,
)
from fullsend_receiver.store.seekable import FileDamaged, IndexEntry, places, tables, tables_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.streams import Genuine

    from fullsend_receiver.store.seekable import Place

LONG = long_stream(3)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A small stored file of one genuine chunk."""
    store = make_store(tmp_path)
    return store.root / store_stream(store, SENDER, streams.named("incr-2").read())


@pytest.fixture
def long(tmp_path: Path) -> Path:
    """A stored file of three chunks."""
    store = make_store(tmp_path)
    return store.root / store_stream(store, SENDER, LONG)


def places_of(path: Path) -> list[Place]:
    with closing(LocalBlob(path)) as blob:
        return list(places(blob))


def located_at(path: Path) -> tuple[LocalStore, PurePosixPath]:
    """Where a file is, as it is asked for. (What is read needs no marker.)"""
    return LocalStore(path.parent), PurePosixPath(path.name)


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def rewrite(path: Path, change: Callable[[int, IndexEntry, bytes], tuple[IndexEntry, bytes]]) -> None:
    """Write a file anew, with right tables, from changed frames and entries."""
    content = path.read_bytes()
    changed = [
        change(place.number, place.entry, content[place.file_offset : place.file_offset + place.entry.stored_length])
        for place in places_of(path)
    ]
    entries = [entry for entry, _frame in changed]
    path.write_bytes(b"".join(frame for _entry, frame in changed) + b"".join(tables(entries, len(entries))))


# --- what is whole ----------------------------------------------------------------------------------------------


def test_chunks_come_as_they_were_stored_from_any_border_on(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    push = push_of(LONG)
    ingest = Ingest(store.begin(partial_key(SENDER, push), open_offer(SENDER, push)))
    sent = list(chunks_of(LONG))
    take(ingest, sent[:1])
    ingest.partial.close(keep=True)
    ingest = resume(store, SENDER, LONG)
    rest = list(chunks_from(LONG, ingest.offset))
    take(ingest, rest)
    path = store.root / commit_stream(store, SENDER, ingest, LONG)
    sent[1:] = rest
    assert [chunk.starts_segment for chunk in sent] == [True, True, False]
    for number, chunk in enumerate(sent):
        assert list(stored_chunks(*located_at(path), chunk.raw_offset)) == sent[number:]
    assert list(stored_chunks(*located_at(path), len(LONG))) == []
    assert [found.raw for found in checked_chunks(*located_at(path)) if isinstance(found, RawChunk)] == [
        raw for _, raw in cut(LONG)
    ]


@pytest.mark.parametrize("offset", [1, 4 << 20, len(LONG) - 1, len(LONG) + 1, 1 << 62])
def test_there_is_nothing_to_begin_with_amid_a_chunk(long: Path, offset: int) -> None:
    with pytest.raises(FileDamaged, match=f"no chunk begins at raw offset {offset}$"):
        list(stored_chunks(*located_at(long), offset))


# --- where a record is ------------------------------------------------------------------------------------------


@each(lambda: [stream for stream in whole() if len(stream.begins) == 1])  # a package's keys begin anew
def test_record_is_found_from_where_it_is_located_on(tmp_path: Path, stream: Genuine) -> None:
    raw = stream.read()
    store = make_store(tmp_path)
    path = store.root / store_stream(store, SENDER, raw)
    begins = [offset for offset, _piece in cut(raw)]
    records = [record for record in streams.split(raw) if record.key is not None]
    for record in records[:: max(1, len(records) // 50)]:
        assert record.key is not None
        at = locate(*located_at(path), record.key)
        assert at in begins
        assert at <= min(other.start for other in records if other.key == record.key)
        # ... and no earlier than it must be: the next chunk begins with this key or a greater one.
        behind = [begin for begin in begins if begin > at][:1]
        first = next((other.key for other in records if behind and other.start + 312 > behind[0]), None)
        assert not behind or first is None or first >= record.key


def test_record_before_all_others_is_located_at_the_start_and_one_behind_them_at_the_end(long: Path) -> None:
    begins = [place.raw_offset for place in places_of(long)]
    assert locate(*located_at(long), (0, 0)) == 0
    assert locate(*located_at(long), (1, 0)) == 0
    assert locate(*located_at(long), (1 << 60, 0)) == begins[-1]
    second = places_of(long)[1].entry.first_key
    assert second is not None
    assert locate(*located_at(long), second) == begins[0]  # an OBJECT of this key may end the chunk before
    assert locate(*located_at(long), (second[0], second[1] + 1)) == begins[1]


def test_nothing_is_located_amid_a_record(tmp_path: Path) -> None:
    """A record of 16 MiB: chunks end where they must, not where records do."""
    large = [streams.write(7, number * (16 << 20), bytes(16 << 20)) for number in range(4)]
    raw = streams.substream(streams.object_(7), *large, streams.object_(8))
    store = make_store(tmp_path)
    path = store.root / store_stream(store, SENDER, raw)
    ends = {0, *(record.end for record in streams.split(raw) if record.key)}
    located = {locate(*located_at(path), record.key) for record in streams.split(raw) if record.key} | {
        locate(*located_at(path), (9, 0))
    }
    assert located <= ends
    assert len(located) > 1


def test_nothing_is_located_in_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(FileDamaged, match="the file is missing"):
        locate(*located_at(tmp_path / "gone.zst"), (1, 0))


@each(whole)
def test_stream_comes_back_as_it_was(tmp_path: Path, stream: Genuine) -> None:
    store = make_store(tmp_path)
    path = store.root / store_stream(store, SENDER, stream.read())
    found = list(checked_chunks(*located_at(path)))
    raw = b"".join(chunk.raw for chunk in found if isinstance(chunk, RawChunk))
    assert len(found) == len(list(cut(stream.read())))
    assert hashlib.sha256(raw).hexdigest() == stream.sha256


def test_chunks_travel_as_they_came(long: Path) -> None:
    assert list(stored_chunks(*located_at(long))) == list(chunks_of(LONG))


def test_chunk_is_named_by_its_number_and_raw_range(long: Path) -> None:
    first, second, _ = places_of(long)
    assert describe(first) == f"chunk 0 (raw bytes 0 to {first.entry.raw_length})"
    assert describe(second) == (
        f"chunk 1 (raw bytes {first.entry.raw_length} to {first.entry.raw_length + second.entry.raw_length})"
    )


def test_nothing_stays_open(long: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for read in (checked_chunks, stored_chunks):
        list(read(*located_at(long)))
        unfinished = read(*located_at(long))
        next(unfinished)
        del unfinished
    flip(long, -1)
    for read in (checked_chunks, stored_chunks):
        with pytest.raises(FileDamaged):
            next(read(*located_at(long)))
    assert len(os.listdir("/proc/self/fd")) == before


# --- what is damaged --------------------------------------------------------------------------------------------


def test_any_wrong_byte_of_a_file_is_found(small: Path) -> None:
    """In a frame: as a damaged chunk, by name. In the tables: as a damaged file.

    A few bits of a frame mean nothing to a decoder (RFC 8878 has such in its header): then the raw bytes are right, and
    `verify` finds it by the whole file's hash.
    """
    content = small.read_bytes()
    frames = len(content) - tables_size(1)
    length = places_of(small)[0].entry.raw_length
    ignored = []
    for at in itertools.chain(range(0, frames, 3), range(frames, len(content))):
        small.write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
        if at >= frames:
            with pytest.raises(FileDamaged):
                list(checked_chunks(*located_at(small)))
            continue
        (found,) = checked_chunks(*located_at(small))
        if isinstance(found, RawChunk):
            assert found.raw == streams.named("incr-2").read()
            ignored.append(at)
            continue
        assert str(found).startswith(f"chunk 0 (raw bytes 0 to {length}): ")
        assert found.code is ErrorCode.DAMAGED
    assert len(ignored) < frames // 50


@pytest.mark.parametrize("damaged", [0, 1, 2])
def test_chunks_beside_a_damaged_one_are_readable(long: Path, damaged: int) -> None:
    place = places_of(long)[damaged]
    flip(long, place.file_offset + place.entry.stored_length // 2)
    found = list(checked_chunks(*located_at(long)))
    pieces = [piece for _offset, piece in cut(LONG)]
    for number, chunk in enumerate(found):
        if number == damaged:
            assert isinstance(chunk, DamagedChunk)
            assert str(chunk).startswith(f"{describe(place)}: ")
        else:
            assert isinstance(chunk, RawChunk)
            assert chunk.raw == pieces[number]
            assert chunk.place.number == number
    assert len(found) == 3


def test_all_damaged_chunks_are_told_of(long: Path) -> None:
    for place in places_of(long):
        flip(long, place.file_offset + 10)
    assert [str(chunk)[:7] for chunk in checked_chunks(*located_at(long)) if isinstance(chunk, DamagedChunk)] == [
        "chunk 0",
        "chunk 1",
        "chunk 2",
    ]


def test_chunk_that_decodes_to_other_bytes_than_were_proven_is_damaged(long: Path) -> None:
    """Right in all its checksums, but not what sender and receiver have hashed."""
    other = next(chunks_of(LONG.replace(LONG[1000:1008], b"tampered", 1)))
    assert other.raw_length == places_of(long)[0].entry.raw_length

    def tamper(number: int, entry: IndexEntry, frame: bytes) -> tuple[IndexEntry, bytes]:
        if number:
            return entry, frame
        changed = IndexEntry(
            entry.raw_length,
            len(other.frame),
            entry.ends_at_resume_point,
            entry.first_key,
            entry.starts_segment,
            entry.sha256,
        )
        return changed, bytes(other.frame)

    rewrite(long, tamper)
    first, *rest = checked_chunks(*located_at(long))
    assert isinstance(first, DamagedChunk)
    assert str(first).endswith("its SHA-256 is not the proven one")
    assert all(isinstance(chunk, RawChunk) for chunk in rest), "their running hash cannot be told until a new segment"


def test_swapped_chunks_are_damaged(long: Path) -> None:
    content = long.read_bytes()
    first, second, _ = places_of(long)
    frames = [content[place.file_offset : place.file_offset + place.entry.stored_length] for place in (first, second)]

    def swap(number: int, entry: IndexEntry, frame: bytes) -> tuple[IndexEntry, bytes]:
        if number > 1:
            return entry, frame
        mine = (second, first)[number].entry
        return (
            IndexEntry(mine.raw_length, mine.stored_length, True, entry.first_key, not number, entry.sha256),
            frames[1 - number],
        )

    rewrite(long, swap)
    assert isinstance(next(iter(checked_chunks(*located_at(long)))), DamagedChunk)


def test_new_segment_is_hashed_from_its_own_start(long: Path) -> None:
    """Where a stream resumed after a restart: the second chunk's hash is of its own bytes alone."""
    _, (_, piece), _ = cut(LONG)
    alone = hashlib.sha256(piece)

    def split(number: int, entry: IndexEntry, frame: bytes) -> tuple[IndexEntry, bytes]:
        if number == 0:
            return entry, frame
        if number == 2:
            alone.update([each for _offset, each in cut(LONG)][2])
        return (
            IndexEntry(entry.raw_length, entry.stored_length, True, entry.first_key, number == 1, alone.digest()),
            frame,
        )

    rewrite(long, split)
    found = list(checked_chunks(*located_at(long)))
    assert all(isinstance(chunk, RawChunk) for chunk in found)
    flip(long, places_of(long)[0].file_offset + 10)
    damaged, *rest = checked_chunks(*located_at(long))
    assert isinstance(damaged, DamagedChunk)
    assert all(isinstance(chunk, RawChunk) for chunk in rest)


def test_missing_file_is_damage(tmp_path: Path) -> None:
    for read in (checked_chunks, stored_chunks):
        with pytest.raises(FileDamaged, match="the file is missing"):
            next(read(*located_at(tmp_path / "missing")))


def test_file_that_is_cut_or_no_stored_file_is_damage(tmp_path: Path, small: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("no stored file at all", encoding="ascii")
    os.truncate(small, small.stat().st_size // 2)
    for path in (tmp_path / "empty", tmp_path / "text", small):
        for read in (checked_chunks, stored_chunks):
            with pytest.raises(FileDamaged):
                next(read(*located_at(path)))


def test_bad_sector_takes_one_chunk_with_it_and_not_those_behind(long: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = places_of(long)[1]
    real = os.pread

    def pread(descriptor: int, length: int, offset: int) -> bytes:
        if offset == bad.file_offset:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", pread)
    first, second, third = checked_chunks(*located_at(long))
    assert isinstance(first, RawChunk)
    assert isinstance(second, DamagedChunk)
    assert str(second) == f"{describe(bad)}: cannot be read: Input/output error"
    assert isinstance(third, RawChunk)
    travelling = stored_chunks(*located_at(long))
    next(travelling)
    with pytest.raises(FileDamaged, match=r"chunk 1 \(raw bytes \d+ to \d+\): cannot be read: Input/output error"):
        next(travelling)


def test_file_that_is_cut_while_it_is_read_ends_inside_a_chunk(long: Path) -> None:
    bad = places_of(long)[1]
    for read, first in ((checked_chunks, RawChunk), (stored_chunks, object)):
        content = long.read_bytes()
        reading = read(*located_at(long))
        assert isinstance(next(reading), first)
        os.truncate(long, bad.file_offset + 5)
        if read is checked_chunks:
            assert str(next(reading)) == f"{describe(bad)}: the file ends inside it"
        else:
            with pytest.raises(FileDamaged, match="the file ends inside it"):
                next(reading)
        long.write_bytes(content)
