"""Reads the record at a partial's resume point, for a sender that resumes behind it by a token."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable

from fullsend_protocol.stream.chunks import Decompressor
from fullsend_protocol.stream.records import HEADER_SIZE
from fullsend_protocol.wire.messages import Record
from fullsend_receiver.store.journal import Standing


def read_record(read: Callable[[int, int], bytes], standing: Standing) -> Record:
    """Read the record that ends at this place from the data file of a partial. `read`: as `Upload.read`. Blocks.

    Raises: ChunkError (the file no longer has it), and what `read` raises.
    """
    entry = standing.part.chunks[-1].entry
    start = standing.offset - entry.raw_length
    frame = read(standing.stored - entry.stored_length, entry.stored_length)
    raw = Decompressor().decompress(frame, entry.raw_length)
    # A resume point's record never begins in an earlier chunk.
    header, digest = last_record(raw, standing.walker.record_start - start)
    return Record(header=header, payload_sha256=digest, features=standing.begins[-1].features)


def last_record(raw: bytes, at: int) -> tuple[str, str]:
    """Return the header, in base64, and the SHA-256 of the payload, in hex, of the record with which a chunk ends.

    `raw`: the chunk; `at`: where the record begins in it.
    """
    header, payload = raw[at : at + HEADER_SIZE], memoryview(raw)[at + HEADER_SIZE :]
    return base64.b64encode(header).decode("ascii"), hashlib.sha256(payload).hexdigest()
