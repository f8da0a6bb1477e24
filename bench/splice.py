"""The cost of resuming a cut stream: the splicer, on the same records as the walker.

The stream is a sample of one of the benchmark's, as `zfs send -t` would give it for its very first record. Its sums are
made up: the splicer adds to what it finds, right or not.
"""

from __future__ import annotations

import hashlib
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bench.data import MIB

from fullsend_protocol.stream.records import HEADER_SIZE, Feature, Walker, payload_length
from fullsend_protocol.stream.splice import ResumePoint, Splicer
from fullsend_sender.transfer.pipes import PIPE_SIZE

if TYPE_CHECKING:
    from pathlib import Path

#: Of each stream this much is taken.
_SAMPLE: Final = 128 * MIB
_ROUNDS: Final = 5
_SUM_AT: Final = 280


@dataclass(frozen=True, slots=True)
class SplicerSpeed:
    """The speed of the splicer. `record`: payload bytes of a WRITE record; `walker`: how many times as
    long it takes as the walker, on the same bytes.
    """

    record: int
    records_per_second: float
    bytes_per_second: float
    walker: float


def splicer_speed(path: Path, record: int) -> SplicerSpeed:
    """Splice a stream as it comes out of a pipe. Both are the best of some rounds, in turns."""
    with path.open("rb") as file:
        raw = bytearray(file.read(_SAMPLE))
    point = _resume(raw)
    took = [(_splice(bytearray(raw), point), _walk(raw)) for _ in range(_ROUNDS)]
    splicing, walking = (min(seconds) for seconds in zip(*took, strict=True))
    return SplicerSpeed(record, len(raw) / (record + HEADER_SIZE) / splicing, len(raw) / splicing, splicing / walking)


def _resume(raw: bytearray) -> ResumePoint:
    """Make it a resumed stream. Returns: its first record, as a receiver might have it."""
    (version,) = struct.unpack_from("<Q", raw, 16)
    struct.pack_into("<Q", raw, 16, version | 1 << Feature.RESUMING << 2)
    first = HEADER_SIZE
    struct.pack_into("<4Q", raw, first + _SUM_AT, 1, 2, 3, 4)
    header = raw[first : first + HEADER_SIZE]
    payload = raw[first + HEADER_SIZE : first + HEADER_SIZE + (payload_length(header) or 0)]
    struct.pack_into(
        "<4Q", header, _SUM_AT, *(int.from_bytes(hashlib.sha256(bytes([n])).digest()[:8]) for n in range(4))
    )
    return ResumePoint(bytes(header), hashlib.sha256(payload).digest())


def _splice(raw: bytearray, point: ResumePoint) -> float:
    """Returns: CPU seconds."""
    version, guid, base_guid = (int(struct.unpack_from("<Q", raw, at)[0]) for at in (16, 40, 48))
    name = raw[56:HEADER_SIZE].partition(b"\0")[0].decode()
    features = version >> 2 & ~(1 << Feature.RESUMING)
    splicer = Splicer(point, name=name, guid=guid, base_guid=base_guid or None, features=features, compound=False)
    view = memoryview(raw)
    begun = time.thread_time()
    for start in range(0, len(raw), PIPE_SIZE):
        splicer.feed(view[start : start + PIPE_SIZE])
    took = time.thread_time() - begun
    if not splicer.found:
        raise AssertionError
    return took


def _walk(raw: bytearray) -> float:
    """Returns: CPU seconds."""
    walker = Walker()
    begun = time.thread_time()
    for start in range(0, len(raw), PIPE_SIZE):
        walker.walk(raw, start, min(start + PIPE_SIZE, len(raw)), 1 << 62)
    return time.thread_time() - begun
