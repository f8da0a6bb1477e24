from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from tests.receiver.helpers import chunks_of, decode, long_stream

from fullsend_protocol.shared.errors import ChunkError, IncompleteStream
from fullsend_receiver.maintenance.packing import Packer, read_back
from fullsend_receiver.store.blob import LocalBlob
from fullsend_receiver.store.seekable import tables

if TYPE_CHECKING:
    from pathlib import Path

RAW = long_stream(2, tail=1)


def pack(path: Path, pieces: list[bytes]) -> Packer:
    packer = Packer(1)
    frames, entries = zip(*packer.frames(pieces), strict=True)
    path.write_bytes(b"".join([*frames, *tables(entries, len(entries))]))
    return packer


@pytest.mark.parametrize("size", [len(RAW), 100_000, 4097])
def test_it_cuts_and_hashes_as_a_sender_does(tmp_path: Path, size: int) -> None:
    packer = pack(tmp_path / "file", [RAW[at : at + size] for at in range(0, len(RAW), size)])
    assert decode((tmp_path / "file").read_bytes()) == RAW
    assert packer.sha256 == hashlib.sha256(RAW).hexdigest()
    (segment,) = packer.segments
    assert (segment.start, segment.end, segment.sha256) == (0, len(RAW), packer.sha256)
    batch = packer.batch()
    sent = [(chunk.raw_length, chunk.sha256, chunk.starts_segment) for chunk in chunks_of(RAW)]
    assert [(each.entry.raw_length, each.entry.sha256, each.entry.starts_segment) for each in batch.chunks] == sent
    assert (batch.offset, batch.stored) == (packer.raw_bytes, packer.stored_bytes)
    assert len(batch.begins) == 1
    assert (packer.batch().chunks, packer.batch().begins) == ((), ())
    assert packer.conclude().dataset == "tank/data"
    read_back(LocalBlob(tmp_path / "file"), "file", raw_bytes=len(RAW), sha256=packer.sha256)


def test_batches_follow_one_another() -> None:
    packer = Packer(1)
    ends, begins = [], 0
    for _frame, entry in packer.frames([RAW]):
        batch = packer.batch()
        assert [each.entry for each in batch.chunks] == [entry]
        ends.append(batch.offset)
        begins += len(batch.begins)
    assert ends[-1] == len(RAW)
    assert begins == 1


def test_a_stream_that_is_cut_is_refused() -> None:
    with pytest.raises(IncompleteStream):
        list(Packer(1).frames([RAW[:-400]]))


def test_what_reads_otherwise_is_found(tmp_path: Path) -> None:
    path = tmp_path / "file"
    packer = pack(path, [RAW])
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(ChunkError, match="reads back otherwise: chunk 0"):
        read_back(LocalBlob(path), "file", raw_bytes=len(RAW), sha256=packer.sha256)
    pack(path, [RAW])
    for raw_bytes, sha256 in ((len(RAW) + 1, packer.sha256), (len(RAW), "00" * 32)):
        with pytest.raises(ChunkError, match="raw bytes of"):
            read_back(LocalBlob(path), "file", raw_bytes=raw_bytes, sha256=sha256)
