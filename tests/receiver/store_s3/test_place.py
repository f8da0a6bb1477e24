from __future__ import annotations

import pytest

from fullsend_protocol.shared.errors import UsageError
from fullsend_receiver.store_s3.place import BucketPlace, is_bucket_place, parse_place


@pytest.mark.parametrize(
    ("text", "bucket", "prefix"),
    [
        ("s3://backups", "backups", ""),
        ("s3://backups/", "backups", ""),
        ("s3://a.b-1/zfs", "a.b-1", "zfs"),
        ("s3://backups/zfs/of-2026/", "backups", "zfs/of-2026"),
    ],
)
def test_place_is_read_and_written(text: str, bucket: str, prefix: str) -> None:
    place = parse_place(text)
    assert is_bucket_place(text)
    assert place == BucketPlace(bucket, prefix)
    assert str(place) == text.rstrip("/")
    assert parse_place(str(place)) == place


def test_places_above_one_end_with_the_whole_bucket() -> None:
    assert [str(each) for each in parse_place("s3://backups/zfs/of-2026").above()] == [
        "s3://backups/zfs",
        "s3://backups",
    ]
    assert not list(parse_place("s3://backups").above())


@pytest.mark.parametrize("text", ["", "/srv/backups", "s3:/backups", "S3://backups", "./s3://backups"])
def test_folder_is_no_place_in_a_bucket(text: str) -> None:
    assert not is_bucket_place(text)


@pytest.mark.parametrize(
    "text", ["s3://", "s3://ab", "s3://Backups", "s3://-backups", "s3://back_ups/x", f"s3://{'b' * 64}"]
)
def test_name_that_no_bucket_has_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="cannot name a bucket"):
        parse_place(text)


@pytest.mark.parametrize(
    "prefix", ["/zfs", "a//b", ".state", "a/.partial", "..", "a/../b", "a b", "%20", "ä", "a\n", "p" * 129]
)
def test_prefix_that_some_dialect_reads_in_another_way_is_refused(prefix: str) -> None:
    with pytest.raises(UsageError, match="cannot be a prefix"):
        parse_place(f"s3://backups/{prefix}")
