from __future__ import annotations

import errno
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.receiver.helpers import SENDER, cut, fail_reads, long_stream, make_store, store_stream

from fullsend_receiver.store.playback import DamagedChunk
from fullsend_receiver.store.salvage import salvaged_frames
from fullsend_receiver.store.seekable import FileDamaged, places

if TYPE_CHECKING:
    from pathlib import Path

    from fullsend_receiver.store.local import LocalStore

RAW = long_stream(3)
PIECES = [piece for _offset, piece in cut(RAW)]


def found(store: LocalStore, file: PurePosixPath) -> tuple[bytes, list[str]]:
    """What is whole, and the errors."""
    all_of_it = list(salvaged_frames(store, file))
    errors = [str(each) for each in all_of_it if isinstance(each, DamagedChunk)]
    return b"".join(each for each in all_of_it if isinstance(each, bytes)), errors


def test_a_whole_file_gives_all_of_its_stream(store: LocalStore) -> None:
    file = store_stream(store, SENDER, RAW)
    assert found(store, file) == (RAW, [])


def test_a_file_whose_end_is_cut_off_gives_what_comes_before(store: LocalStore) -> None:
    file = store_stream(store, SENDER, RAW)
    path = store.root / file
    whole = path.read_bytes()
    blob = store.open(file)
    starts = [place.file_offset for place in places(blob)]
    blob.close()
    path.write_bytes(whole[: starts[2] + 10])
    raw, errors = found(store, file)
    assert raw == b"".join(PIECES[:2])
    assert errors == [
        f"bytes {starts[2]} to {starts[2] + 10} of the file (from raw byte {len(raw)} on): not a whole frame"
    ]
    path.write_bytes(whole[: starts[1]])
    assert found(store, file) == (PIECES[0], [])
    path.write_bytes(b"")
    assert found(store, file) == (b"", [])
    path.unlink()
    with pytest.raises(FileDamaged):
        found(store, file)


def test_sector_that_cannot_be_read_is_a_hole_also_where_a_frame_begins(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = store_stream(store, SENDER, RAW)
    blob = store.open(file)
    starts = [place.file_offset for place in places(blob)]
    blob.close()
    fail_reads(monkeypatch, store.root / file, errno.EIO, lambda offset: offset == starts[1])
    raw, errors = found(store, file)
    assert raw == PIECES[0] + b"".join(PIECES[2:])
    assert errors == [
        f"bytes {starts[1]} to {starts[2]} of the file (from raw byte {len(PIECES[0])} on): not a whole frame"
    ]


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_whatever_a_disk_makes_of_a_file_what_comes_out_are_chunks_of_it_in_order(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder: Path = tmp_path_factory.mktemp("salvage")
    store = make_store(folder)
    file = store_stream(store, SENDER, RAW)
    path = store.root / file
    content = bytearray(path.read_bytes())
    for _fault in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(1, 300))] = data.draw(st.binary(max_size=300))
    path.write_bytes(content)
    left = list(PIECES)
    for piece in salvaged_frames(store, file):
        if isinstance(piece, bytes):
            while left[0] != piece:
                left.pop(0)
