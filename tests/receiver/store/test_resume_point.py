from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

import pytest
from tests import streams
from tests.receiver.helpers import SENDER, chunks_of, ingest_stream, push_of, resume, take
from tests.streams import each, whole

from fullsend_protocol.shared.errors import ChunkError
from fullsend_receiver.arrival.ingest import Ingest
from fullsend_receiver.store import journal
from fullsend_receiver.store.opened import open_offer, partial_key
from fullsend_receiver.store.resume_point import read_record

if TYPE_CHECKING:
    from tests.streams import Genuine

    from fullsend_receiver.store.local import LocalStore


@each(whole)
def test_record_is_the_one_that_ends_where_the_token_resumes(store: LocalStore, stream: Genuine) -> None:
    raw = stream.read()
    push = push_of(raw)
    key = partial_key(SENDER, push)
    records = {record.end: record for record in streams.split(raw)} if len(stream.begins) == 1 else {}
    ingest = ingest_stream(store, SENDER, raw, per_batch=3)
    ingest.partial.close(keep=True)
    borders = [chunk.raw_offset + chunk.raw_length for chunk in chunks_of(raw)]
    found = store.reopen(key, at_resume_point=True)
    if found is None:
        resumable = [at for at in borders if at in records and records[at].key is not None]
        assert not resumable or len(borders) == 1
        return
    partial, standing = found
    said = read_record(partial.read, standing)
    partial.close(keep=True)
    assert standing.offset in borders
    if not records:  # a package of one substream so far
        return
    record = records[standing.offset]
    header = raw[record.start : record.start + 312]
    assert record.key is not None
    assert base64.b64decode(said.header) == header
    assert said.payload_sha256 == hashlib.sha256(raw[record.start + 312 : record.end]).hexdigest()
    assert said.features == int.from_bytes(raw[16:24], "little") >> 2


def test_record_that_the_disk_does_not_hold_any_more_is_none(store: LocalStore) -> None:
    raw = streams.named("long").read()
    push = push_of(raw)
    ingest = Ingest(store.begin(key := partial_key(SENDER, push), open_offer(SENDER, push)))
    take(ingest, list(chunks_of(raw))[:2])
    ingest.partial.close(keep=True)
    path = store.partial / f"{key}.data"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    standing = journal.standing(store.partial / f"{key}.journal", at_resume_point=True)
    assert standing is not None
    again = resume(store, SENDER, raw, at_resume_point=True)
    with pytest.raises(ChunkError, match="does not decode"):
        read_record(again.partial.read, standing)
    again.partial.close(keep=True)
