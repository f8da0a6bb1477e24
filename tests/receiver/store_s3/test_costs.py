from __future__ import annotations

import dataclasses
import random
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, cast

import pytest
from tests import streams
from tests.receiver.buckets import MemoryBucket, commit_all
from tests.receiver.helpers import SENDER, chunks_from, push_of, take_one

from fullsend_protocol.shared import limits
from fullsend_receiver.arrival.ingest import Ingest
from fullsend_receiver.maintenance.scrub import StreamCheck
from fullsend_receiver.maintenance.scrub_cost import scrub_cost
from fullsend_receiver.store.api import RequestCost
from fullsend_receiver.store.opened import open_offer, partial_key
from fullsend_receiver.store.playback import stored_chunks
from fullsend_receiver.store.seekable import file_size, reads
from fullsend_receiver.store_s3 import costs
from fullsend_receiver.store_s3.part_sizes import PartSizes
from fullsend_receiver.store_s3.stores import BucketStore

if TYPE_CHECKING:
    from pathlib import Path, PurePosixPath

    from fullsend_receiver.store_s3.probe import ProbedBucket

#: Which kind of request each call is.
KINDS: Final = {
    "put": "puts",
    "begin_parts": "puts",
    "put_part": "puts",
    "complete": "puts",
    "get": "gets",
    "read": "gets",
    "head": "gets",
    "parts": "lists",
    "entries": "lists",
    "folders": "lists",
    "delete": "deletes",
}


class CountedBucket:
    """Counts the requests to a bucket, and the bytes of the streams. A LIST has one page here."""

    def __init__(self, bucket: MemoryBucket) -> None:
        self.real = bucket
        self.count: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.real, name)
        if name not in KINDS:
            return real

        def call(*arguments: Any, **named: Any) -> Any:
            self.count[KINDS[name]] += 1
            for each in arguments:
                if isinstance(each, bytes):
                    self.count["sent"] += len(each)
            found = real(*arguments, **named)
            if name == "read" and not str(arguments[0]).startswith("."):
                self.count["received"] += len(found)
            return found

        return call

    def cost(self) -> RequestCost:
        """What was counted since the last call."""
        found = RequestCost(**self.count)
        self.count.clear()
        return found


#: Records that no compression makes smaller.
RECORDS: Final = 52


def incompressible() -> bytes:
    noise = random.Random(7)
    records = [streams.write(1, index << 20, noise.randbytes(1 << 20)) for index in range(RECORDS)]
    return streams.substream(streams.object_(1), *records)


@pytest.fixture(scope="module")
def raw() -> bytes:
    return incompressible()


def push(store: BucketStore, raw: bytes, batch: int) -> tuple[PurePosixPath, list[int]]:
    """Push as the daemon does. Returns: its file, and the sizes of its chunks."""
    offered = push_of(raw)
    key = partial_key(SENDER, offered)
    assert store.reopen(key, at_resume_point=False) is None
    ingest = Ingest(store.begin(key, open_offer(SENDER, offered)))
    sizes = []
    for number, chunk in enumerate(chunks_from(raw, 0, 1), 1):
        take_one(ingest, chunk)
        sizes.append(len(chunk.frame))
        if number % batch == 0:
            ingest.partial.sync(ingest.batch())
    if len(sizes) % batch:
        ingest.partial.sync(ingest.batch())
    return commit_all(ingest), sizes


def same(counted: RequestCost, told: RequestCost, but: float) -> None:
    """Compare: the requests exactly, the bytes but for this share."""
    requests = ("puts", "gets", "lists", "deletes")
    assert {name: getattr(counted, name) for name in requests} == {name: getattr(told, name) for name in requests}
    for name in ("sent", "received"):
        assert getattr(counted, name) == pytest.approx(getattr(told, name), rel=but, abs=1)


#: (chunks of a batch, least bytes of a part in chunks): parts of a batch, of several, of one chunk; no part at all.
SHAPES: Final = [(3, 1), (1, 3), (2, 3), (1, 0), (4, 1 << 10)]


@pytest.mark.parametrize(("batch", "least"), SHAPES)
def test_costs_are_those_of_a_real_push_restore_and_scrub(tmp_path: Path, raw: bytes, batch: int, least: int) -> None:
    bucket = CountedBucket(MemoryBucket(least_part=0))
    sizes = PartSizes(least=max(1, least * limits.CHUNK_MIN))
    store = BucketStore(cast("ProbedBucket", bucket), tmp_path, sizes=sizes)
    file, lengths = push(store, raw, batch)
    counted = bucket.cost()
    chunks, chunk = len(lengths), lengths[0]  # all are as large as this, except for the last one
    told = store.push_cost(chunks, chunk, batch)
    same(counted, dataclasses.replace(told, received=0), 0.1)
    assert counted.deletes == told.working
    for _chunk in stored_chunks(store, file):
        pass
    same(bucket.cost(), store.read_cost(file_size(lengths), reads(lengths)), 0.0)
    check = StreamCheck(store, file, store.manifest(file).received)
    bucket.cost()
    told_check = scrub_cost(store, lengths)
    assert told_check is not None
    result = check.run()
    assert result is not None
    assert not result.damage
    same(bucket.cost(), told_check, 0.1)


def test_parts_grow_as_the_upload_s_do() -> None:
    chunk = limits.CHUNK_MIN
    few, many = (costs.pushed(count, chunk, 8) for count in (1 << 8, 1 << 16))
    assert few.sent < 1.01 * (1 << 8) * chunk
    # Later parts are larger than a batch, so bytes wait in the journal, and are sent twice.
    assert 1.2 * (1 << 16) * chunk < many.sent < 2 * (1 << 16) * chunk
    assert many.sent - many.working_bytes == pytest.approx((1 << 16) * chunk, rel=0.01)


def test_stream_that_would_be_refused_has_no_price() -> None:
    with pytest.raises(ValueError, match="parts"):
        costs.pushed(1 << 18, limits.CHUNK_MIN, 8)
