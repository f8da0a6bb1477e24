from __future__ import annotations

import os
import threading

import pytest
from tests import resumed, streams

from fullsend_protocol.shared.errors import FullsendError, IncompleteStream
from fullsend_sender.drill.blocks import contents
from fullsend_sender.transfer.pipes import Source

GUID = 17
BLOCK = 1024
RAW = 24


def stream(*records: bytes, name: str = "tank/a@a", features: tuple[int, ...] = ()) -> bytes:
    begin = streams.begin(name, GUID, 0, features=list(features), flags=8)
    return resumed.summed(begin, [streams.marked(each, GUID) for each in [*records, streams.end(GUID)]])


def file(*blocks: bytes, bonus: bytes = b"bonus   ") -> list[bytes]:
    writes = [streams.write(2, number * BLOCK, block) for number, block in enumerate(blocks) if block]
    return [streams.data_object(2, bonus, block_size=BLOCK), *writes]


def digest(raw: bytes) -> str:
    read, write = os.pipe()
    seen: list[int] = []

    def give() -> None:
        with open(write, "wb") as pipe:
            pipe.write(raw)

    thread = threading.Thread(target=give)
    thread.start()
    source = Source(read)
    try:
        return contents(source, seen.append)
    finally:
        source.close()
        os.close(read)
        thread.join()
        assert sum(seen) <= len(raw)


ONE, TWO, ZERO = b"1" * BLOCK, b"2" * BLOCK, bytes(BLOCK)


def test_what_is_not_contents_makes_no_difference() -> None:
    before = digest(stream(*file(ONE, TWO)))
    assert digest(stream(*file(ONE, TWO), name="tank/drill/restored@a")) == before
    assert digest(stream(streams.freeobjects(1, 1), *file(ONE, TWO), streams.freeobjects(3, 29))) == before
    assert digest(stream(*file(ONE, TWO), streams.free(2, 2 * BLOCK, (1 << 64) - 1))) == before
    # A hole is the same as zeros.
    assert digest(stream(*file(ONE, TWO, ZERO))) == before


@pytest.mark.parametrize(
    "records",
    [
        file(ONE, b"2" * (BLOCK - 1) + b"3"),
        file(TWO, ONE),
        file(ONE, b"", TWO),
        file(ONE),
        file(ONE, TWO, ONE),
        file(ONE, TWO, bonus=b"BONUS   "),
        file(ONE, TWO, bonus=b"bonus           "),
        [*file(ONE, TWO), streams.data_object(3, b"bonus   ", block_size=BLOCK)],
    ],
)
def test_every_difference_of_contents_makes_one(records: list[bytes]) -> None:
    assert digest(stream(*records)) != digest(stream(*file(ONE, TWO)))


def test_of_a_raw_stream_what_decrypts_it_counts_too() -> None:
    ranged = [streams.object_range(), *file(ONE, ZERO)]
    before = digest(stream(*ranged, features=(22, RAW)))
    assert digest(stream(*ranged, features=(22, RAW))) == before
    # Encrypted zeros are no hole.
    assert digest(stream(streams.object_range(), *file(ONE), features=(22, RAW))) != before
    for at in (104, 112, 139):  # salt, IV, MAC of a WRITE
        changed = bytearray(ranged[2])
        changed[at] ^= 1
        assert digest(stream(*ranged[:2], bytes(changed), *ranged[3:], features=(22, RAW))) != before
    for at in (32, 40, 67):  # of the block with the objects
        changed = bytearray(ranged[0])
        changed[at] ^= 1
        assert digest(stream(bytes(changed), *ranged[1:], features=(22, RAW))) != before


def test_a_cut_stream_has_no_contents() -> None:
    raw = stream(*file(ONE, TWO))
    with pytest.raises(IncompleteStream):
        digest(raw[:-312])
    with pytest.raises(FullsendError):
        digest(raw + b"x")
