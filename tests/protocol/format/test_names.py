from __future__ import annotations

import pytest
from tests.protocol.helpers import an_entry

from fullsend_protocol.format.names import guid_of, hash_of, is_manifest, is_stream, manifest_of, named, stream_of

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


@pytest.mark.parametrize(
    ("what", "found"),
    [
        ("tank/a@s", ["1", "2"]),
        ("guid:1", ["1"]),
        ("guid:01", []),
        ("guid:", []),
        ("x/@1.zfs.zst", ["1"]),
        ("@1.zfs.zst", ["1", "2"]),
        ("y/@3.zfs.zst", []),
        ("tank/b@like.zfs.zst", ["3"]),
        ("tank/a", []),
        ("", []),
    ],
)
def test_a_name_means_a_file_or_a_guid_or_a_snapshot(what: str, found: list[str]) -> None:
    entries = [
        an_entry().model_copy(update={"dataset": dataset, "snapshot": snapshot, "guid": guid, "file": file})
        for dataset, snapshot, guid, file in [
            ("tank/a", "s", "1", "x/@1.zfs.zst"),
            ("tank/a", "s", "2", "y/@1.zfs.zst"),
            ("tank/b", "like.zfs.zst", "3", "x/@3.zfs.zst"),
        ]
    ]
    assert [each.guid for each in named(what, entries)] == found


def test_a_guid_is_a_name_of_its_own_sort() -> None:
    assert (guid_of("guid:7"), guid_of("guid:"), guid_of("tank/guid:7")) == ("7", "", None)
