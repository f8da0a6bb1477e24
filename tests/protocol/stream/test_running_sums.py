"""Every running checksum of a stream."""

from __future__ import annotations

import random

import pytest
from tests import resumed, streams

from fullsend_protocol.shared.errors import DamagedStream, IncompleteStream, StreamError, UnsupportedStream
from fullsend_protocol.stream.records import HEADER_SIZE
from fullsend_protocol.stream.running_sums import RunningSums


def compare(raw: bytes, size: int | None = None) -> None:
    sums = RunningSums("the stream")
    for start in range(0, len(raw), size or max(len(raw), 1)):
        sums.feed(raw[start : start + (size or len(raw))])
    sums.finish()


@streams.each(lambda: streams.small(200_000))
def test_a_genuine_stream_is_right_however_it_comes(stream: streams.Genuine) -> None:
    raw = stream.read()
    compare(raw)
    compare(raw, 1009)


@streams.each(lambda: streams.small(60_000))
def test_a_wrong_byte_anywhere_is_found(stream: streams.Genuine) -> None:
    raw = bytearray(stream.read())
    r = random.Random(1)
    headers = [at for record in streams.split(bytes(raw)) for at in range(record.start, record.start + HEADER_SIZE)]
    for at in {*r.sample(range(len(raw)), 100), *r.sample(headers, 100)}:
        bit = 1 << r.randrange(8)
        raw[at] ^= bit
        with pytest.raises(StreamError):
            compare(bytes(raw))
        raw[at] ^= bit


@pytest.mark.parametrize("name", ["full-p", "incr-p"])
def test_a_wrong_byte_in_the_end_of_the_properties_is_found(name: str) -> None:
    """Its header has nothing but the checksum of what is before it, and no checksum covers it."""
    whole = streams.named(name).read()
    end = streams.split(whole)[1]
    RunningSums("x").feed(whole[: end.end])
    for at in range(end.start, end.end):
        raw = bytearray(whole[: end.end])
        raw[at] ^= 1
        with pytest.raises(StreamError):
            RunningSums("x").feed(raw)


def test_byte_by_byte() -> None:
    raw = streams.named("empty").read()
    compare(raw, 1)


@pytest.mark.parametrize("cut", [0, 1, 311, 312, 400, -1, -312, -313])
def test_a_cut_one_is_not_whole(cut: int) -> None:
    raw = streams.named("empty").read()
    with pytest.raises(IncompleteStream, match="the stream ends before its END record"):
        compare(raw[:cut])


def test_a_stream_without_checksums_is_not_proven() -> None:
    with pytest.raises(UnsupportedStream, match="has no running checksums"):
        compare(streams.substream(streams.write(1, 0, bytes(512))))


def test_an_impossible_record_is_named_before_its_payload_is_waited_for() -> None:
    sums = RunningSums("x.zfs")
    sums.feed(streams.begin())
    with pytest.raises(DamagedStream, match=r"x\.zfs has an impossible record at 312"):
        sums.feed(streams.write(1, 0, b"", logical_size=None)[:32] + (1 << 40).to_bytes(8, "little") + bytes(272))


def test_damage_is_named_where_it_is() -> None:
    raw = bytearray(resumed.summed(streams.begin(), [streams.write(1, 0, bytes(512)), streams.end()]))
    raw[700] ^= 1
    with pytest.raises(DamagedStream, match=f"wrong checksum at {312 + 312 + 512}: wrong bytes there, or in the rec"):
        compare(bytes(raw))
