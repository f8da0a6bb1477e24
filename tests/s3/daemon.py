"""A process that receives one stream into a store in a bucket, and tells what it acknowledges. Tests kill it.

    python -m tests.s3.daemon PREFIX GATEWAY FOLDER DIRECT

DIRECT: parts of the object that are no segments. It resumes what another one has left. It prints `at OFFSET` first,
`acknowledged OFFSET` for each batch, `stored` last, and `step NAME` before each request that changes something.
"""

from __future__ import annotations

import functools
import random
import sys
from pathlib import Path
from typing import Final

from tests import streams
from tests.receiver.buckets import SteppedBucket, commit_all, in_ceph, store_in
from tests.receiver.helpers import SENDER, chunks_from, push_of, take_one

from fullsend_receiver.arrival.ingest import Ingest
from fullsend_receiver.store.opened import open_offer, partial_key
from fullsend_receiver.store_s3.part_sizes import PartSizes

#: Records of 1 MiB that no compression makes smaller: chunks of 4 MiB, and parts of two of them.
_RECORDS: Final = 50
_PART: Final = 5 << 20
#: Two parts.
_SEGMENT: Final = 2 * _PART


@functools.cache
def large() -> bytes:
    """Return a stream that is stored as several parts."""
    noise = random.Random(7)
    records = [streams.write(1, index << 20, noise.randbytes(1 << 20)) for index in range(_RECORDS)]
    return streams.substream(streams.object_(1), *records)


def tell(*words: object) -> None:
    print(*words, flush=True)


def main() -> None:
    prefix, gateway, folder, direct = sys.argv[1:]
    raw = large()
    bucket = SteppedBucket(in_ceph(prefix, int(gateway)), lambda name: tell("step", name))
    store = store_in(bucket, Path(folder), sizes=PartSizes(least=_PART, direct=int(direct), segment=_SEGMENT))
    store.recover()
    push = push_of(raw)
    key = partial_key(SENDER, push)
    if any(True for _each in store.objects(SENDER)):
        tell("stored")
        return
    found = store.reopen(key, at_resume_point=False)
    ingest = Ingest(*found) if found is not None else Ingest(store.begin(key, open_offer(SENDER, push)))
    tell("at", ingest.offset)
    for chunk in chunks_from(raw, ingest.offset, 1):
        take_one(ingest, chunk)
        tell("acknowledged", ingest.partial.sync(ingest.batch()))
    commit_all(ingest)
    tell("stored")


if __name__ == "__main__":
    main()
