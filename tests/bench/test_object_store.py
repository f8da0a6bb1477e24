from __future__ import annotations

import hashlib
import socket
from pathlib import Path
from typing import Any

import pytest
import zstandard
from bench.measure import BenchError
from bench.object_store import check_object, free_ports
from bench.peers import Stream
from tests.receiver.buckets import MemoryBucket


def test_ports_in_a_row_leave_out_one_that_is_taken() -> None:
    first = free_ports(3)
    with socket.create_server(("127.0.0.1", first + 1)):
        assert free_ports(3) > first + 1


def test_an_object_that_holds_another_stream_is_no_copy(tmp_path: Path) -> None:
    bucket: Any = MemoryBucket()
    stream = Stream(tmp_path / "stream", 3, hashlib.sha256(b"raw").hexdigest())
    frame = zstandard.compress(b"raw")
    bucket.put("good", frame)
    bucket.put("other", zstandard.compress(b"war"))
    assert check_object(bucket, "good", stream) == len(frame)
    for key in ("other", "missing"):
        with pytest.raises(BenchError):
            check_object(bucket, key, stream)
