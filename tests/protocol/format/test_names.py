from __future__ import annotations

import pytest

from fullsend_protocol.format.names import hash_of, is_manifest, is_stream, manifest_of, stream_of

STREAM = "alpha/tank/@s.0000000000000001.full.zfs.zst"


def test_a_stream_is_three_files() -> None:
    assert (manifest_of(STREAM), hash_of(STREAM)) == (f"{STREAM}.json", f"{STREAM}.sha256")
    for name in (STREAM, manifest_of(STREAM), hash_of(STREAM)):
        assert stream_of(name) == STREAM
        assert is_stream(name) == (name == STREAM)
        assert is_manifest(name) == (name == manifest_of(STREAM))


@pytest.mark.parametrize("name", ["", "x", "x.zst", "x.json", "x.zfs.zst.part", "x.zfs.zst.json.new", "zfs.zst"])
def test_other_files_are_no_streams_and_no_manifests(name: str) -> None:
    assert not is_stream(name)
    assert not is_manifest(name)
