"""An increment of a clone, proven and passed on into the dataset that has its base."""

from __future__ import annotations

import hashlib

import pytest
from tests import resumed, streams
from tests.protocol.helpers import a_manifest

from fullsend_protocol.format.manifest import Manifest, Segment
from fullsend_protocol.shared.errors import ChunkError
from fullsend_sender.restore.onto_base import OntoBase


def increment(flags: int) -> bytes:
    records = [streams.write(1, at, bytes([at]) * 4096) for at in range(200)]
    return resumed.stream_of(streams.begin("tank/clone@two", 2, 1, flags=flags), [*records, streams.end(2)])


def manifest_of(raw: bytes) -> Manifest:
    segment = Segment(start=0, end=len(raw), sha256=hashlib.sha256(raw).hexdigest())
    return a_manifest().model_copy(
        update={"guid": "2", "base_guid": "1", "flags": "", "raw_bytes": len(raw), "segments": [segment]}
    )


@pytest.mark.parametrize("flags", [0, 1])
def test_a_clones_increment_comes_out_as_that_of_its_base(flags: int) -> None:
    raw = increment(flags)
    proof = OntoBase(manifest_of(raw))
    out, sha256 = b"", hashlib.sha256()
    for start in range(0, len(raw), 100_000):
        part = raw[start : start + 100_000]
        sha256.update(part)
        out += b"".join(map(bytes, proof.take(part, sha256.digest())))
    assert out + b"".join(map(bytes, proof.finish())) == increment(0)
    assert (proof.start, proof.manifest) == (0, manifest_of(raw))


def test_what_is_not_what_was_stored_is_refused_before_it_is_passed_on() -> None:
    raw = increment(1)
    proof = OntoBase(manifest_of(raw))
    with pytest.raises(ChunkError):
        proof.take(raw[:-1] + b"x", hashlib.sha256(raw).digest())
    proof = OntoBase(manifest_of(raw))
    proof.take(raw[:9000], hashlib.sha256(raw[:9000]).digest())
    with pytest.raises(ChunkError):
        proof.finish()
