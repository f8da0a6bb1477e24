"""What attributes say of a file."""

from __future__ import annotations

import stat
import struct

import pytest
from tests.file_trees import Tree, time

from fullsend_protocol.dataset.nodes import Time, node
from fullsend_protocol.shared.errors import DamagedStream

GOOD = Tree().node(stat.S_IFREG | 0o640, 77)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def test_a_file() -> None:
    found = node(9, GOOD | {"ZPL_UID": u64(1000), "ZPL_PROJID": u64(3), "ZPL_MTIME": time(-1)})
    assert (found.number, found.mode, found.size, found.uid, found.gid, found.project) == (9, 0o100640, 77, 1000, 0, 3)
    assert (found.mtime, found.mtime.total) == (Time(-1, 999_999_999), -1)
    assert found.is_file
    assert not found.is_directory
    assert not found.is_xattr
    assert (found.device, found.target, found.acl) == (None, None, None)


def test_an_extended_attribute_says_so() -> None:
    assert node(9, GOOD | {"ZPL_FLAGS": u64(5)}).is_xattr


@pytest.mark.parametrize(
    ("device", "numbers"), [(1 << 20 | 3, (1, 3)), (259 << 20 | 70000, (259, 70000)), (5 << 32 | 6, (5, 6))]
)
def test_devices_of_linux_and_of_others(device: int, numbers: tuple[int, int]) -> None:
    assert node(9, GOOD | {"ZPL_RDEV": u64(device)}).device_numbers == numbers


def test_a_symlink() -> None:
    link = GOOD | {"ZPL_MODE": u64(stat.S_IFLNK | 0o777), "ZPL_SIZE": u64(3)}
    assert node(9, link | {"ZPL_SYMLINK": b"abc"}).target == b"abc"
    for target in (b"", b"a\0c"):
        with pytest.raises(DamagedStream, match="impossible target"):
            node(9, link | {"ZPL_SYMLINK": target})
    with pytest.raises(DamagedStream, match="impossible target"):
        node(9, link | {"ZPL_SIZE": u64(4096), "ZPL_SYMLINK": b"x" * 4096})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"ZPL_SIZE": u64(1 << 63)}, "a size of 9223372036854775808 bytes"),
        ({"ZPL_MODE": u64(1 << 20)}, "the mode"),
        ({"ZPL_GEN": b"123"}, "ZPL_GEN of 3 bytes"),
        ({"ZPL_MTIME": struct.pack("<qQ", 0, 10**9)}, "nanoseconds"),
        ({"ZPL_MTIME": b""}, "has no ZPL_MTIME"),
    ],
)
def test_what_no_zfs_writes(change: dict[str, bytes], says: str) -> None:
    with pytest.raises(DamagedStream, match=says):
        node(9, GOOD | change)


def test_what_must_be_there() -> None:
    with pytest.raises(DamagedStream, match="object 9 has no ZPL_MODE"):
        node(9, {name: value for name, value in GOOD.items() if name != "ZPL_MODE"})
