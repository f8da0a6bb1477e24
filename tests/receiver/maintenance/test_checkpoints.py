"""A check of a large file continues after a restart, or begins anew where that would prove less."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.receiver.helpers import SENDER, long_stream, manifest_path, store_stream

from fullsend_protocol.shared.units import format_time
from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.maintenance import checkpoints
from fullsend_receiver.maintenance.scrub import StreamCheck

if TYPE_CHECKING:
    from pathlib import Path, PurePosixPath

    from fullsend_receiver.store.local import LocalStore

BEGUN = "2026-11-27T00:00:00Z"


class StopHere(Exception):  # noqa: N818 - reads as what it does
    """Ends a check between two chunks."""


@pytest.fixture
def file(store: LocalStore) -> PurePosixPath:
    return store_stream(store, SENDER, long_stream(4))


def received(store: LocalStore) -> str:
    (stored,) = read_catalogue(store).streams
    return stored.summary.received


def leave(store: LocalStore, file: PurePosixPath, chunks: int = 2) -> StreamCheck:
    """Begin a check, and leave it after so many chunks."""
    check = StreamCheck(store, file, received(store))

    def between() -> None:
        if check.reading.chunks == chunks:
            raise StopHere

    with pytest.raises(StopHere):
        check.run(between)
    checkpoints.write(store, check, BEGUN)
    return check


def document(store: LocalStore) -> Path:
    return store.state / "scrub-checkpoint.json"


def edit(store: LocalStore, **changes: Any) -> None:
    said = json.loads(document(store).read_bytes())
    document(store).write_text(json.dumps(said | changes), encoding="utf-8")


def test_a_check_continues_where_it_was(store: LocalStore, file: PurePosixPath) -> None:
    leave(store, file)
    found = checkpoints.resumed(store, file, received(store))
    assert found is not None
    check, begun = found
    assert (check.reading.chunks, begun) == (2, BEGUN)
    result = check.run()
    assert result is not None
    (stored,) = read_catalogue(store).streams
    assert (result.verdict, result.sha256) == ("whole", stored.summary.sha256)


def test_what_is_damaged_behind_the_place_is_found(store: LocalStore, file: PurePosixPath) -> None:
    leave(store, file)
    path = store.root / file
    content = bytearray(path.read_bytes())
    content[len(content) * 3 // 4 - 200] ^= 0x10
    path.write_bytes(content)
    found = checkpoints.resumed(store, file, received(store))
    assert found is not None
    result = found[0].run()
    assert result is not None
    assert result.verdict == "damaged"


def test_a_checkpoint_of_another_stream_is_not_used(store: LocalStore, file: PurePosixPath) -> None:
    leave(store, file)
    assert checkpoints.resumed(store, file.with_name("@other.zfs.zst"), received(store)) is None
    assert checkpoints.resumed(store, file, "another time") is None
    manifest = manifest_path(store, file)
    content = manifest.read_bytes()
    manifest.unlink()
    manifest.write_bytes(content)  # put back: another file
    assert checkpoints.resumed(store, file, received(store)) is None


@pytest.mark.parametrize("age", [checkpoints.KEEP + 60, -60])
def test_a_checkpoint_that_is_too_old_or_of_a_time_to_come_is_not_used(
    store: LocalStore, file: PurePosixPath, age: float
) -> None:
    leave(store, file)
    edit(store, at=format_time(time.time() - age))
    assert checkpoints.resumed(store, file, received(store)) is None


def test_a_checkpoint_that_cannot_be_read_is_not_used(store: LocalStore, file: PurePosixPath) -> None:
    leave(store, file)
    state = json.loads(document(store).read_bytes())["reading"]
    readings: tuple[dict[str, Any], ...] = (
        state | {"file_hash": "AAAA"},
        state | {"file_hash": "?"},
        state | {"segment_hash": None},
        state | {"chunks": 0},
        state | {"walker": {}},
        state | {"walker": state["walker"] | {"phase": "other"}},
        state | {"begins": [{}]},
        {},
    )
    for reading in readings:
        edit(store, reading=reading)
        assert checkpoints.resumed(store, file, received(store)) is None
    edit(store, reading=state, format=2)
    assert checkpoints.read(store) is None
    edit(store, format=1, later=7)
    assert checkpoints.resumed(store, file, received(store)) is not None
    for content in (b"", b"{", b"[]"):
        document(store).write_bytes(content)
        assert checkpoints.read(store) is None


def test_a_checkpoint_is_cleared(store: LocalStore, file: PurePosixPath) -> None:
    checkpoints.clear(store)
    assert not document(store).exists()
    leave(store, file)
    checkpoints.clear(store)
    assert checkpoints.read(store) is None
    leave(store, file)
    edit(store, format=2)  # of a later version
    checkpoints.clear(store)
    assert document(store).read_bytes() == b""


def test_without_a_place_nothing_is_written(store: LocalStore, file: PurePosixPath) -> None:
    checkpoints.write(store, StreamCheck(store, file, received(store)), BEGUN)
    assert not document(store).exists()
    check = leave(store, file)
    document(store).unlink()
    manifest_path(store, file).unlink()
    checkpoints.write(store, check, BEGUN)
    assert not document(store).exists()
