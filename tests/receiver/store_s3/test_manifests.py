from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.receiver.buckets import FILE, manifest_for

from fullsend_receiver.store.errors import ManifestError
from fullsend_receiver.store_s3 import manifests

if TYPE_CHECKING:
    from tests.receiver.buckets import MemoryBucket

MANIFEST = manifest_for((10, "11" * 32))
CONTENT = json.loads(MANIFEST.to_json())


def test_manifest_names_the_object_of_its_bytes(bucket: MemoryBucket) -> None:
    bucket.put(manifests.key_of(FILE), manifests.stream_bytes(CONTENT, "alpha/x.zfs.zst", None))
    found = manifests.read(bucket, FILE)
    assert found is not None
    assert (found.data, found.removed) == ("alpha/x.zfs.zst", ())
    assert manifests.parse(FILE, found) == MANIFEST


def test_tombstone_tells_what_was_removed_under_this_name(bucket: MemoryBucket) -> None:
    key = manifests.key_of(FILE)
    bucket.put(key, manifests.stream_bytes(CONTENT, "one", None))
    for name in ("two", "three"):
        there = manifests.read(bucket, FILE)
        assert there is not None
        first, second = manifests.tombstone_bytes(there), manifests.tombstone_bytes(there)
        assert first != second  # no two have one ETag
        bucket.put(key, first)
        there = manifests.read(bucket, FILE)
        assert there is not None
        assert there.data is None
        bucket.put(key, manifests.stream_bytes(CONTENT, name, there))
    found = manifests.read(bucket, FILE)
    assert found is not None
    assert (found.data, found.removed) == ("three", ("one", "two"))


def test_manifest_that_another_program_has_copied_has_its_bytes_beside_it(bucket: MemoryBucket) -> None:
    bucket.put(manifests.key_of(FILE), MANIFEST.to_json())
    found = manifests.read(bucket, FILE)
    assert found is not None
    assert found.data == str(FILE)


@pytest.mark.parametrize("data", [b"", b"[]", b"not JSON", b'{"bucket": 3}', b'{"bucket": {"data": "x"}}'])
def test_object_that_is_no_manifest_is_spoilt(bucket: MemoryBucket, data: bytes) -> None:
    bucket.put(manifests.key_of(FILE), data)
    with pytest.raises(ManifestError, match="cannot be read") as error:
        manifests.read(bucket, FILE)
    assert error.value.spoilt


@pytest.mark.parametrize(("change", "spoilt"), [({"raw_bytes": "x"}, True), ({"format": 99, "raw_bytes": "x"}, False)])
def test_manifest_of_another_form_is_spoilt_unless_of_a_later_version(
    bucket: MemoryBucket, change: dict[str, object], spoilt: bool
) -> None:
    bucket.put(manifests.key_of(FILE), manifests.stream_bytes(CONTENT | change, "x", None))
    found = manifests.read(bucket, FILE)
    assert found is not None
    with pytest.raises(ManifestError) as error:
        manifests.parse(FILE, found)
    assert error.value.spoilt is spoilt


def test_stamp_follows_the_etag() -> None:
    assert manifests.number_of("a") == manifests.number_of("a") != manifests.number_of("b")
