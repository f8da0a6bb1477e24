"""One pass over a file: what it reads, and that it resumes in another process with all that it knew."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest
from tests.receiver.helpers import (
    SENDER,
    chunks_from,
    chunks_of,
    commit_stream,
    long_stream,
    push_of,
    read_manifest,
    resume,
    store_stream,
    take,
)
from tests.streams import each, whole

from fullsend_receiver.arrival.ingest import Ingest
from fullsend_receiver.maintenance import running_hash
from fullsend_receiver.maintenance.reading import FilePass, FilePassState
from fullsend_receiver.maintenance.scrub import never_interrupts
from fullsend_receiver.store.opened import open_offer, partial_key

if TYPE_CHECKING:
    from pathlib import PurePosixPath

    from tests.streams import Genuine

    from fullsend_receiver.store.local import LocalStore


class StopHere(Exception):  # noqa: N818 - reads as what it does
    """Ends a pass."""


def read_in_parts(store: LocalStore, file: PurePosixPath, *, every: int = 1) -> tuple[FilePass, int]:
    """Read a file in many processes, each `every` chunks. Returns: the last pass, and their number."""
    state: FilePassState | None = None
    for number in range(1, 1000):
        reading = FilePass(store, file, state)
        until = reading.chunks + every

        def between(reading: FilePass = reading, until: int = until) -> None:
            if reading.chunks >= until:
                raise StopHere

        try:
            reading.run(between)
        except StopHere:
            found = reading.state
            assert found is not None
            state = FilePassState.model_validate_json(found.model_dump_json())
        else:
            return reading, number
    raise AssertionError


def shown(reading: FilePass) -> dict[str, object]:
    """All that a pass has found."""
    names = ("chunks", "raw_bytes", "stored_bytes", "sha256", "file_sha256", "segments", "faults", "passing")
    return {name: getattr(reading, name) for name in names} | {
        "begins": reading.walker.begins,
        "spills": reading.walker.embedded_spills,
        "done": reading.walker.done,
    }


@each(whole)
def test_a_pass_in_parts_finds_what_one_in_one_part_finds(store: LocalStore, stream: Genuine) -> None:
    file = store_stream(store, SENDER, stream.read())
    reading = FilePass(store, file)
    reading.run(never_interrupts)
    assert reading.sha256 == stream.sha256
    assert reading.file_sha256 == hashlib.sha256((store.root / file).read_bytes()).hexdigest()
    parts, number = read_in_parts(store, file)
    assert shown(parts) == shown(reading)
    assert number == max(1, reading.chunks)


def in_segments(store: LocalStore, raw: bytes) -> PurePosixPath:
    """Store a stream whose first chunk is a segment of its own."""
    push = push_of(raw)
    ingest = Ingest(store.begin(partial_key(SENDER, push), open_offer(SENDER, push)))
    take(ingest, list(chunks_of(raw))[:1])
    ingest.partial.close(keep=True)
    ingest = resume(store, SENDER, raw)
    take(ingest, chunks_from(raw, ingest.offset))
    return commit_stream(store, SENDER, ingest, raw)


def test_a_pass_over_segments_in_parts(store: LocalStore) -> None:
    raw = long_stream(4)
    file = in_segments(store, raw)
    assert len(read_manifest(store, file).segments) == 2
    for every in (1, 2, 3, 4):
        reading, _number = read_in_parts(store, file, every=every)
        assert (reading.sha256, reading.faults) == (hashlib.sha256(raw).hexdigest(), [])
        assert reading.segments == read_manifest(store, file).segments


def test_what_changes_behind_the_place_is_found(store: LocalStore) -> None:
    """A part that is read later proves as much as one that is read first."""
    file = store_stream(store, SENDER, long_stream(4))
    path = store.root / file
    content = path.read_bytes()
    reading = FilePass(store, file)

    def between() -> None:
        if reading.chunks == 2:
            raise StopHere

    with pytest.raises(StopHere):
        reading.run(between)
    state = reading.state
    assert state is not None
    for at in range(state.stored_bytes, len(content), 11):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
        again = FilePass(store, file, state)
        try:
            again.run(never_interrupts)
            found = bool(again.faults) or again.file_sha256 != read_manifest(store, file).file_sha256
        except Exception as error:  # noqa: BLE001 - whichever it is
            found = type(error).__name__ == "FileDamaged"
        assert found, at


def test_each_chunk_is_read_once(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    file = store_stream(store, SENDER, long_stream(5))
    size = (store.root / file).stat().st_size
    read: dict[int, int] = {}
    real = os.pread

    def pread(descriptor: int, length: int, offset: int) -> bytes:
        data = real(descriptor, length, offset)
        for at in range(offset, offset + len(data)):
            read[at] = read.get(at, 0) + 1
        return data

    monkeypatch.setattr(os, "pread", pread)
    FilePass(store, file).run(never_interrupts)
    frames = read_manifest(store, file).stored_bytes - 5 * 72 - 200
    assert {read[at] for at in range(frames)} == {1}
    assert max(read.values()) <= 5, "the tables: looked at, compared, iterated over, and hashed"
    assert len(read) == size


def test_without_a_hash_that_can_be_saved_there_is_no_state(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    file = store_stream(store, SENDER, long_stream(3))
    monkeypatch.setattr(running_hash, "_library", lambda: None)
    reading = FilePass(store, file)
    reading.run(never_interrupts)
    assert reading.state is None
    assert reading.file_sha256 == read_manifest(store, file).file_sha256


def test_a_damaged_file_has_no_state(store: LocalStore) -> None:
    file = store_stream(store, SENDER, long_stream(3))
    path = store.root / file
    path.write_bytes(b"rot" + path.read_bytes()[3:])
    reading = FilePass(store, file)
    reading.run(never_interrupts)
    assert reading.faults
    assert reading.state is None
