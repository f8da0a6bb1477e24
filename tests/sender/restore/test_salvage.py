from __future__ import annotations

from dataclasses import replace

from tests.receiver.helpers import chunks_from, chunks_of, cut, long_stream

from fullsend_protocol.wire.connection import Chunk
from fullsend_sender.restore.salvage import Salvage

RAW = long_stream(3)
PIECES = [piece for _offset, piece in cut(RAW)]
CHUNKS = list(chunks_of(RAW))


def salvaged(chunks: list[Chunk], bad: int, raw: bytes | None) -> tuple[bytes, list[str], Salvage]:
    """Take all chunks, that number as `raw`."""
    told: list[str] = []
    salvage = Salvage(told.append)
    got = [
        bytes(part)
        for number, (chunk, piece) in enumerate(zip(chunks, PIECES, strict=True))
        for part in salvage.take(chunk, raw if number == bad else piece, "it is bad" if number == bad else "")
    ]
    return b"".join(got), told, salvage


def test_what_is_whole_is_passed_on_as_it_is() -> None:
    got, told, salvage = salvaged(CHUNKS, -1, None)
    assert (got, told, salvage.holes, salvage.unproven) == (RAW, [], 0, 0)


def test_a_hole_is_named_and_what_follows_counts_as_proven_by_its_checksum_alone() -> None:
    start, end = len(PIECES[0]), len(PIECES[0] + PIECES[1])
    for raw, why in ((None, "it is bad"), (bytes(len(PIECES[1])), "its SHA-256 is not the proven one")):
        got, told, salvage = salvaged(CHUNKS, 1, raw)
        assert got == b"".join([PIECES[0], *PIECES[2:]])
        assert told == [f"hole: chunk 1 (raw bytes {start} to {end}): {why}"]
        assert (salvage.holes, salvage.unproven) == (1, len(RAW) - end)


def test_the_next_segment_is_proven_again() -> None:
    again = list(chunks_from(RAW, CHUNKS[2].raw_offset))
    chunks = [*CHUNKS[:2], *again]
    _got, _told, salvage = salvaged(chunks, 0, None)
    assert salvage.unproven == len(PIECES[1])
    wrong = replace(again[0], sha256=bytes(32))
    got, told, salvage = salvaged([*CHUNKS[:2], wrong, *again[1:]], 0, None)
    assert (salvage.holes, len(told)) == (2, 2)
    assert got == b"".join([PIECES[1], *PIECES[3:]])
