"""Streams that were cut, and what a Splicer and a Rejoiner make of them."""

from __future__ import annotations

import functools
import struct
from typing import TYPE_CHECKING, Any

import pytest
from tests import resumed, streams
from tests.resumed import Sent, stream_of
from tests.streams import CLOSING_END, Genuine

from fullsend_protocol.shared.errors import StreamError
from fullsend_protocol.stream.checksums import Piece
from fullsend_protocol.stream.records import Feature
from fullsend_protocol.stream.rejoin import Rejoiner
from fullsend_protocol.stream.splice import ResumePoint, Splicer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

#: Genuine streams that are there three times: NAME, its beginning NAME-part, and what OpenZFS sent to resume it,
#: NAME-rest.
IN_PARTS = ("full", "full-enc-w", "corpus/resume-plain", "corpus/resume-enc-w")
FEATURES = [Feature.SA_SPILL]


@functools.lru_cache(maxsize=8)
def taken_apart(stream: Genuine) -> list[Sent]:
    return resumed.sent(stream.read())


def resumable() -> list[Genuine]:
    return [
        stream for stream in streams.whole() if not any(b["features"] >> Feature.REDACTED & 1 for b in stream.begins)
    ]


def small() -> list[Genuine]:
    """For the suite that everybody runs: those of tests/data below 700,000 bytes, of each flavour one at least."""
    return [stream for stream in resumable() if stream.size < 700_000 and not stream.name.startswith("corpus/")]


def genuine_parts() -> list[str]:
    known = {stream.name for stream in streams.genuine()}
    return [name for name in IN_PARTS if name in known]


def splicer(of: Sent, point: ResumePoint, **other: Any) -> Splicer:
    about: dict[str, Any] = {"name": of.name, "guid": of.guid, "base_guid": of.base_guid, "features": of.features}
    return Splicer(point, **{**about, "compound": of.compound and of.last, **other})


def pieces_of(raw: bytes, size: int) -> Iterator[bytes]:
    return (raw[start : start + size] for start in range(0, len(raw), size))


def fed(taker: Splicer | Rejoiner, parts: Iterable[Piece]) -> bytes:
    """What comes out, taken before the next is fed."""
    out = bytearray()
    for part in parts:
        for piece in taker.feed(part):
            out += piece
    return bytes(out)


def spliced(taker: Splicer, parts: Iterable[Piece]) -> bytes:
    return fed(taker, parts) + taker.finish()


def rejoined(taker: Rejoiner, parts: Iterable[Piece]) -> bytes:
    out = fed(taker, parts)
    taker.finish()
    return out


def gives(taker: Splicer | Rejoiner, parts: Iterable[Piece], wanted: memoryview) -> bool:
    """Whether just this comes out; compared as it comes, because there are gigabytes of it."""
    at = 0
    for part in parts:
        for piece in taker.feed(part):
            if bytes(piece) != bytes(wanted[at : at + len(piece)]):
                return False
            at += len(piece)
    return wanted[at:] == (taker.finish() or b"")


def to_its_end(taker: Splicer | Rejoiner, raw: bytes) -> None:
    fed(taker, pieces_of(raw, 1000))
    taker.finish()


def refusal(taker: Splicer | Rejoiner, raw: bytes) -> str:
    with pytest.raises(StreamError) as caught:
        to_its_end(taker, raw)
    assert "\n" not in str(caught.value)
    return f"{type(caught.value).__name__}: {caught.value}"


def changed(raw: bytes, at: int, layout: str, value: int) -> bytes:
    out = bytearray(raw)
    struct.pack_into(layout, out, at, value)
    return bytes(out)


def synthetic(features: Sequence[int] = (), *, raw: bool = False, package: bool = False) -> Sent:
    """A stream with every record type that there is, with true sums."""
    opening = [streams.object_range()] if raw else []
    records = [
        *opening,
        streams.object_(1, b"m" * 16, raw=raw),
        streams.free(1, 512, (1 << 64) - 1),
        streams.write(1, 0, b"w" * 512),
        streams.freeobjects(2, 5),
        streams.object_(7, b"b" * 16, raw=raw),
        streams.free(7, 4096, (1 << 64) - 1),
        streams.write(7, 0, b"x" * 1024),
        streams.write(7, 1024, b"compressed"[:8], logical_size=512),
        streams.write_embedded(7, 2048, b"embedded"[:5]),
        streams.write_byref(7, 2560),
        streams.spill(7, b"s" * 512),
        streams.spill(7, b"sp" * 2, logical_size=512),
        streams.object_(8, b"c" * 8, raw=raw),
        streams.write(8, 0, bytes(range(256)) * 3),
        streams.redact(8, 4096),
        streams.end(),
    ]
    payload = b"" if not raw else streams.native({"crypt_keydata": {"DSL_CRYPTO_GUID": 5}})
    bits = [*FEATURES, *features, *([Feature.RAW] if raw else [])]
    found = stream_of(streams.begin(features=bits, payload=payload, base_guid=streams.BASE_GUID), records)
    if package:
        outer = streams.begin(features=(), header_type=streams.COMPOUND, payload=streams.xdr({"tosnap": "now"}))
        found = outer + CLOSING_END + found + CLOSING_END
    (sent,) = resumed.sent(found)
    return sent


@functools.cache
def several_objects(*, raw: bool) -> Sent:
    """Two blocks of dnodes; in the second an object of some size before the one to resume at, and one behind it."""
    features = [22, 24] if raw else []
    records = []
    for number in (3, 40, 41, 42):
        if raw and number in {3, 40}:
            records.append(streams.object_range(number // 32 * 32))
        records += [streams.object_(number, b"b" * 64, raw=raw), streams.free(number, 1 << 20, (1 << 64) - 1)]
        records += [streams.write(number, at << 12, bytes([number, at]) * 2048) for at in range(100)]
    raw_bytes = resumed.stream_of(streams.begin(features=features), [*records, streams.end()])
    return resumed.sent(raw_bytes)[0]


PLAIN = synthetic()
RAW = synthetic(raw=True)
PACKAGE = synthetic(package=True)
#: Index of the WRITE of object 7 at 1024: in the middle.
MIDDLE = 8
assert PLAIN.records[MIDDLE].key == RAW.records[MIDDLE + 1].key == (7, 1024)
