"""NFSv4 ACLs as they are stored."""

from __future__ import annotations

import struct

import pytest

from fullsend_protocol.dataset.acl import AccessEntry, entries, is_trivial
from fullsend_protocol.shared.errors import DamagedStream

STORED = (
    struct.pack("<HHI", 0, 0x1000, 0x1F01FF)
    + struct.pack("<HHIQ", 1, 3, 2, 1234)
    + struct.pack("<HHIQ", 0, 0x40, 1, 77)
    + struct.pack("<HHI", 0, 0x2040, 4)
    + struct.pack("<HHI", 0, 0x4000, 8)
)


def test_entries() -> None:
    assert entries(STORED, 9) == [
        AccessEntry("allow", "owner@", 0, 0x1F01FF),
        AccessEntry("deny", "user:1234", 3, 2),
        AccessEntry("allow", "group:77", 0, 1),
        AccessEntry("allow", "group@", 0, 4),
        AccessEntry("allow", "everyone@", 0, 8),
    ]


def test_entries_of_objects_have_two_guids() -> None:
    stored = struct.pack("<HHIQ", 5, 0, 1, 5) + bytes(32) + STORED[:8]
    assert [each.kind for each in entries(stored, 9)] == ["type 5", "allow"]


def test_one_that_is_cut() -> None:
    with pytest.raises(DamagedStream, match="object 9 has an ACL that is not whole"):
        entries(STORED[:20], 9)


def test_a_trivial_one() -> None:
    assert is_trivial(0x804)
    assert not is_trivial(0x800)
