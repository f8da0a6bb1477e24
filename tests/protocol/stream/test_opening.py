"""How a stream begins: of genuine streams, and what keeps two of one snapshot from being equal."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from tests import streams
from tests.chains import chains
from tests.data import load

from fullsend_protocol.shared.errors import DamagedStream, IncompleteStream, NotASendStream
from fullsend_protocol.stream.opening import Opening, opening_of
from fullsend_protocol.stream.records import Feature


def opening(name: str = "tank/data@now", *, features: tuple[int, ...] = (), payload: bytes = b"") -> Opening:
    raw = streams.begin(name, features=features, payload=payload) + streams.end()
    return opening_of("it", [raw])


@pytest.mark.parametrize("chain", chains(), ids=lambda chain: chain.name)
def test_a_genuine_stream_begins_with_it(chain: object) -> None:
    for _name, raw in chain.run(None, 2):  # type: ignore[attr-defined]
        found = opening_of("it", [raw[at : at + 100] for at in range(0, len(raw), 100)])
        assert raw.startswith(bytes(found))
        assert found.package == b""
        assert len(found.begin) == 312
        assert struct.unpack_from("<I", found.begin, 4)[0] == len(found.nvlist)
        assert found.obstacle(found, whole=False) is None


def test_properties_are_before_it() -> None:
    raw = load.stream("full-p")
    found = opening_of("it", [raw])
    assert raw.startswith(bytes(found))
    assert found.package
    assert found.begin == raw[len(found.package) :][:312]
    plain = replace(found, package=b"")
    assert found.obstacle(plain, whole=False) == "one of both has properties (-p)"
    # Other properties are no obstacle: they are replaced.
    assert found.obstacle(replace(found, package=b"others"), whole=False) is None


def test_the_name_and_the_features_are_in_it() -> None:
    found = opening(features=(Feature.COMPRESSED, Feature.LZ4))
    assert found.name == "tank/data@now"
    assert found.features == 1 << Feature.COMPRESSED | 1 << Feature.LZ4
    renamed = opening("tank/other@now", features=(Feature.COMPRESSED, Feature.LZ4))
    assert found.obstacle(renamed, whole=False) == "it was sent as tank/data@now, which is tank/other@now now"
    changed = opening(features=(Feature.COMPRESSED, Feature.LZ4, Feature.ZSTD, 55))
    said = "this host sends it with other features now (ZSTD, bit 55): its pool has changed"
    assert found.obstacle(changed, whole=False) == said
    assert found.obstacle(changed, whole=True) == said


def test_other_keys_keep_a_stream_from_being_equal_and_a_full_says_nothing_of_an_increment_s() -> None:
    one, other = opening(payload=b"old keys"), opening(payload=b"new keys")
    assert one.obstacle(other, whole=False) == "its keys have been changed since (`zfs change-key`)"
    assert one.obstacle(other, whole=True) is None


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"", IncompleteStream),
        (b"x" * 400, NotASendStream),
        (streams.begin()[:-1], IncompleteStream),
        (streams.begin(payload=bytes(8))[:-1], IncompleteStream),
        (streams.begin(payloadlen=1 << 31), DamagedStream),
        (streams.begin(header_type=0), DamagedStream),
        (streams.begin(header_type=2) + streams.object_(1) + streams.begin(), DamagedStream),
        (streams.begin(header_type=2) + streams.CLOSING_END + streams.begin(header_type=2), DamagedStream),
    ],
)
def test_what_does_not_begin_as_a_stream(raw: bytes, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^it "):
        opening_of("it", [raw])
