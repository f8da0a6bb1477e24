from __future__ import annotations

import re

import pytest

from fullsend_sender.push import naming

FINGERPRINT = "0a1b2c3d" + "5e" * 28
NAS = naming.receiver_id(FINGERPRINT)


def test_snapshots() -> None:
    name = naming.snapshot_name(NAS, 1_790_000_000.9)
    assert name == "fullsend-0a1b2c3d-20260921T141320Z"
    assert naming.snapshot_receiver(name) == NAS


@pytest.mark.parametrize(
    "name",
    [
        *("monday", "fullsend", "fullsend-0a1b2c3d", "fullsend-0a1b2c3d-20260921T141320Z-mine"),
        *("Xfullsend-0a1b2c3d-20260921T141320Z", "fullsend-0A1B2C3D-20260921T141320Z", ""),
        *("fullsend-0a1b2c3d-20260921T141320", "fullsend-0a1b2c3d-2026-09-21", "fullsend-0a1b2c3d-20260921T141320Z\n"),
    ],
)
def test_whose_names_are_not_ours(name: str) -> None:
    assert naming.snapshot_receiver(name) is None
    assert naming.bookmark_receiver(name, "1") is None


def test_bookmarks() -> None:
    name = naming.bookmark_name(NAS, str((1 << 64) - 1))
    assert name == "fullsend-0a1b2c3d-ffffffffffffffff"
    assert naming.bookmark_receiver(name, str((1 << 64) - 1)) == NAS
    assert naming.bookmark_receiver(name, "7") is None  # of our form, and yet of another snapshot: not made by us
    assert naming.bookmark_name(NAS, "7").endswith("-0000000000000007")


def test_what_our_name_adds() -> None:
    assert (
        len("@" + naming.snapshot_name(NAS, 0)) == len("#" + naming.bookmark_name(NAS, "7")) == naming.SNAPSHOT_SUFFIX
    )


def test_holds() -> None:
    tags = {naming.hold_tag(NAS) for _ in range(100)}
    assert len(tags) == 100
    assert all(re.fullmatch(r"fullsend:0a1b2c3d:[0-9a-f]{16}", tag) for tag in tags)
    assert all(tag.startswith(naming.hold_prefix(NAS)) for tag in tags)
