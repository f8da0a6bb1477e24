"""Reads the record at a partial's resume point, for a sender that resumes behind it by a token."""

from __future__ import annotations

import base64
import hashlib

from fullsend_protocol.stream.chunks import Decompressor
from fullsend_protocol.stream.records import HEADER_SIZE
from fullsend_protocol.wire.messages import Record
from fullsend_receiver.store.api import Upload
from fullsend_receiver.store.journal import Standing


def read_record(upload: Upload, standing: Standing) -> Record:
    """Read the record that ends at this place from the data file of a partial. Blocks.

    Raises: ChunkError (the file no longer has it), PartialDamaged (it cannot be read), OSError.
    """
    entry = standing.part.chunks[-1].entry
    start = standing.offset - entry.raw_length
    frame = upload.read(standing.stored - entry.stored_length, entry.stored_length)
    raw = Decompressor().decompress(frame, entry.raw_length)
    at = standing.walker.record_start - start  # a resume point's record never begins in an earlier chunk
    header, payload = raw[at : at + HEADER_SIZE], memoryview(raw)[at + HEADER_SIZE :]
    return Record(
        header=base64.b64encode(header).decode("ascii"),
        payload_sha256=hashlib.sha256(payload).hexdigest(),
        features=standing.begins[-1].features,
    )
