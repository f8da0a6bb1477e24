"""Every genuine stream, through the receiver's own steps, into a real Ceph and back."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from tests.receiver.buckets import commit_all, in_ceph, store_in
from tests.receiver.helpers import SENDER, chunks_of, decode, push_of, segments_of, take
from tests.streams import each, whole

from fullsend_receiver.arrival.ingest import Ingest
from fullsend_receiver.store.opened import open_offer, partial_key
from fullsend_receiver.store.playback import RawChunk, checked_chunks

if TYPE_CHECKING:
    from pathlib import Path

    from tests.streams import Genuine

pytestmark = pytest.mark.s3


@each(whole)
def test_stream_comes_back_as_it_went(stream: Genuine, prefix: str, tmp_path: Path) -> None:
    raw = stream.read()
    store = store_in(in_ceph(prefix), tmp_path, 5 << 20)
    push = push_of(raw)
    ingest = Ingest(store.begin(partial_key(SENDER, push), open_offer(SENDER, push)))
    take(ingest, chunks_of(raw), per_batch=3)
    file = commit_all(ingest)

    there = store_in(in_ceph(prefix, 1), tmp_path)
    assert [found.file for found in there.objects()] == [file]
    assert there.manifest(file).segments == segments_of(raw)
    with contextlib.closing(there.open(file)) as blob:
        assert decode(blob.read(0, blob.size)) == raw
    chunks = list(checked_chunks(there, file))
    assert b"".join(found.raw for found in chunks if isinstance(found, RawChunk)) == raw
    assert all(isinstance(found, RawChunk) for found in chunks)
