"""Packs: what is written comes back, and what no writer writes ends by name."""

from __future__ import annotations

import io
import random
import stat
import struct
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import pytest
from tests.protocol.helpers import section, tables

from fullsend_protocol.dataset.entry import Entry
from fullsend_protocol.dataset.nodes import Time
from fullsend_protocol.shared.errors import RemoteProtocolError
from fullsend_protocol.wire import pack
from fullsend_protocol.wire.pack import PackItem, PackReader, PackWriter, VolumeReader

if TYPE_CHECKING:
    from collections.abc import Callable

FILE: Final = Entry(
    mode=stat.S_IFREG | 0o640,
    size=600_000,
    uid=1000,
    gid=(1 << 64) - 1,
    atime=Time(-1, 999_999_999),
    mtime=Time(1_700_000_000, 1),
    device=None,
    target=None,
    xattrs={b"user.a": b"1", b"user.\xff=": b""},
)
DIRECTORY: Final = replace(FILE, mode=stat.S_IFDIR | 0o1777, size=4, xattrs={})
LINK: Final = replace(FILE, mode=stat.S_IFLNK | 0o777, size=2, target=b"..", xattrs={b"trusted.x": b"y"})
DEVICE: Final = replace(FILE, mode=stat.S_IFBLK | 0o600, size=0, device=(1 << 31, 7), xattrs={})


@dataclass
class Made:
    """Notes what it is told."""

    said: list[tuple[object, ...]] = field(default_factory=list)

    def directory(self, path: bytes) -> None:
        self.said.append(("directory", path))

    def file(self, path: bytes, entry: Entry) -> None:
        self.said.append(("file", path, entry))

    def data(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self.said.append(("data", offset, bytes(data)))

    def end_file(self) -> None:
        self.said.append(("end",))

    def special(self, path: bytes, entry: Entry) -> None:
        self.said.append(("special", path, entry))

    def link(self, path: bytes, first: bytes) -> None:
        self.said.append(("link", path, first))

    def describe(self, path: bytes, entry: Entry) -> None:
        self.said.append(("describe", path, entry))

    def volume(self, size: int) -> None:
        self.said.append(("volume", size))


def tell(to: PackWriter | Made) -> None:
    to.directory(b"d")
    to.file(b"d/f", FILE)
    to.data(1, b"a" * pack.DATA_MAX)
    to.data(599_999, b"z")
    to.end_file()
    to.link(b"g", b"d/f")
    to.special(b"\xff\n", LINK)
    to.special(b"dev", DEVICE)
    to.file(b"empty", replace(FILE, size=0))
    to.end_file()
    to.describe(b"d", DIRECTORY)
    to.describe(b"", DIRECTORY)


def packed() -> bytes:
    out = io.BytesIO()

    def write(data: bytes | memoryview) -> None:
        out.write(data)

    writer = PackWriter(write)
    tell(writer)
    writer.end()
    return out.getvalue()


@pytest.mark.parametrize("step", [1 << 20, 1000, 7])
def test_what_is_written_comes_back(step: int) -> None:
    data, made, expected = packed(), Made(), Made()
    reader = PackReader(made)
    for at in range(0, len(data), step):
        assert not reader.ended
        reader.feed(data[at : at + step])
    assert reader.ended
    tell(expected)
    assert made.said == expected.said


def test_a_block_is_divided() -> None:
    pieces: list[bytes] = []
    writer = PackWriter(lambda data: pieces.append(bytes(data)))
    writer.volume(10 * pack.DATA_MAX)
    writer.data(pack.DATA_MAX, b"a" * pack.DATA_MAX + b"b")
    writer.end()
    made = Made()
    reader = VolumeReader(made)
    reader.feed(b"".join(pieces))
    assert reader.ended
    assert made.said == [
        ("volume", 10 * pack.DATA_MAX),
        ("data", pack.DATA_MAX, b"a" * pack.DATA_MAX),
        ("data", 2 * pack.DATA_MAX, b"b"),
    ]


def test_the_bytes() -> None:
    """As docs/protocol.md has them."""
    pieces: list[bytes] = []
    writer = PackWriter(lambda data: pieces.append(bytes(data)))
    writer.directory(b"d")
    writer.file(b"d/f", replace(FILE, size=2, gid=9, xattrs={b"user.a": b"1"}))
    writer.data(0, b"hi")
    writer.link(b"g", b"d/f")
    writer.special(b"dev", replace(DEVICE, gid=9, device=(8, 1)))
    writer.special(b"l", replace(LINK, gid=9, xattrs={}))
    writer.describe(b"d", replace(DIRECTORY, gid=9))
    writer.end()
    times = "ffffffffffffffff ffc99a3b 00f1536500000000 01000000"
    nothing = "00 0000000000000000 0000000000000000"
    assert b"".join(pieces) == bytes.fromhex(
        "01 01000000 64"
        "06 0b000000 06000000 757365722e61 31"
        f"02 4c000000 a0810000 0200000000000000 e803000000000000 0900000000000000 {times} {nothing} 03000000 642f66"
        "03 0a000000 0000000000000000 6869"
        "05 08000000 01000000 67 642f66"
        f"04 4c000000 80610000 0000000000000000 e803000000000000 0900000000000000 {times}"
        " 01 0800000000000000 0100000000000000 03000000 646576"
        f"04 4c000000 ffa10000 0200000000000000 e803000000000000 0900000000000000 {times} {nothing} 01000000 6c 2e2e"
        f"07 4a000000 ff430000 0400000000000000 e803000000000000 0900000000000000 {times} {nothing} 01000000 64"
        "09 08000000 0800000000000000"
    )


def test_the_document_has_all_kinds() -> None:
    _head, kinds = tables(section("Packs"))
    assert [int(row["kind"]) for row in kinds] == sorted(PackItem)


def item(kind: int, body: bytes = b"") -> bytes:
    return struct.pack("<BI", kind, len(body)) + body


def facts(entry: Entry, path: bytes, target: bytes = b"") -> bytes:
    """The rest of an item, whatever it says."""
    times = entry.atime.seconds, entry.atime.nanoseconds, entry.mtime.seconds, entry.mtime.nanoseconds
    fixed = struct.pack("<IQQQqIqIBQQ", entry.mode, entry.size, entry.uid, entry.gid, *times, 0, 0, 0)
    return fixed + struct.pack("<I", len(path)) + path + target


PLAIN: Final = replace(FILE, xattrs={}, size=3)
BEGUN: Final = item(PackItem.FILE, facts(PLAIN, b"f"))
XATTR: Final = item(PackItem.XATTR, struct.pack("<I", 1) + b"ab")


def hostile() -> dict[str, bytes]:
    found = {
        "kind": item(77),
        "no kind": item(0),
        "volume": item(PackItem.VOLUME, bytes(8)),
        "long": struct.pack("<BI", PackItem.DIRECTORY, pack.ITEM_MAX + 1),
        "short facts": item(PackItem.FILE, b"abc"),
        "short link": item(PackItem.LINK, b"\xff\xff\xff\xffa"),
        "link without length": item(PackItem.LINK, b"a"),
        "orphan contents": item(PackItem.DATA, bytes(9)),
        "contents after the file": BEGUN + item(PackItem.DIRECTORY, b"d") + item(PackItem.DATA, bytes(9)),
        "contents behind its end": BEGUN + item(PackItem.DATA, struct.pack("<Q", 1) + b"abc"),
        "contents far behind": BEGUN + item(PackItem.DATA, struct.pack("<Q", (1 << 64) - 1) + b"a"),
        "contents without offset": BEGUN + item(PackItem.DATA, b"a"),
        "size": item(PackItem.FILE, facts(replace(PLAIN, size=1 << 63), b"f")),
        "mode": item(PackItem.FILE, facts(replace(PLAIN, mode=PLAIN.mode | 1 << 16), b"f")),
        "nanoseconds": item(PackItem.FILE, facts(replace(PLAIN, mtime=Time(0, 10**9)), b"f")),
        "directory as file": item(PackItem.FILE, facts(DIRECTORY, b"f")),
        "file as directory": item(PackItem.DESCRIBE, facts(PLAIN, b"f")),
        "file as device": item(PackItem.SPECIAL, facts(PLAIN, b"f")),
        "directory as device": item(PackItem.SPECIAL, facts(DIRECTORY, b"f")),
        "type 0": item(PackItem.SPECIAL, facts(replace(DEVICE, mode=0o600), b"f")),
        "file with target": item(PackItem.FILE, facts(PLAIN, b"f", b"x")),
        "device with target": item(PackItem.SPECIAL, facts(DEVICE, b"f", b"x")),
        "link without target": item(PackItem.SPECIAL, facts(LINK, b"f")),
        "link with NUL": item(PackItem.SPECIAL, facts(LINK, b"f", b"a\0")),
        "link with long target": item(PackItem.SPECIAL, facts(LINK, b"f", b"a" * 4096)),
        "xattr twice": XATTR + XATTR,
        "xattr of nothing": XATTR + item(PackItem.DIRECTORY, b"d"),
        "xattr at the end": XATTR + item(PackItem.END, struct.pack("<Q", 1)),
        "xattr of a link": XATTR + item(PackItem.LINK, struct.pack("<I", 1) + b"ab"),
        "xattrs too long": b"".join(
            item(PackItem.XATTR, struct.pack("<I", 1) + b"%c" % number + bytes(pack.ITEM_MAX - 5))
            for number in range(17)
        ),
        "count": item(PackItem.END, struct.pack("<Q", 1)),
        "end": item(PackItem.END),
        "behind the end": item(PackItem.END, bytes(8)) + item(PackItem.DIRECTORY, b"d"),
        "a byte behind the end": item(PackItem.END, bytes(8)) + b"x",
    }
    paths = [b"", b"/", b"/etc", b"..", b"a/../b", b"a/..", b".", b"./a", b"a//b", b"a/", b"a\0"]
    for number, path in enumerate([*paths, b"a" * (pack.PATH_END + 1)]):
        found |= {
            f"directory {number}": item(PackItem.DIRECTORY, path),
            f"file {number}": item(PackItem.FILE, facts(PLAIN, path)),
            f"special {number}": item(PackItem.SPECIAL, facts(LINK, path, b"x")),
            f"link {number}": item(PackItem.LINK, struct.pack("<I", len(path)) + path + b"a"),
            f"first {number}": item(PackItem.LINK, struct.pack("<I", 1) + b"a" + path),
        }
        if path:
            found[f"describe {number}"] = item(PackItem.DESCRIBE, facts(DIRECTORY, path))
    return found


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in hostile().items()])
def test_what_no_writer_writes(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="what the receiver sends is no pack of files: it "):
        PackReader(Made()).feed(data)


def test_whatever_comes_no_path_leads_elsewhere() -> None:
    dice, pieces = random.Random(16), list[bytes]()
    writer = PackWriter(lambda data: pieces.append(bytes(data)))
    for top in (b"d", b"d/e"):
        writer.directory(top)
        writer.file(top + b"/f", FILE)
        writer.data(7, b"abc")
        writer.link(b"g" + top, top + b"/f")
        writer.special(top + b"/s", LINK)
        writer.describe(top, DIRECTORY)
    writer.end()
    small = b"".join(pieces)
    refused = 0
    for _turn in range(1500):
        changed = bytearray(small)
        for _change in range(dice.randrange(1, 4)):
            changed[dice.randrange(len(changed))] = dice.choice((0, 1, 2, 0x2E, 0x2F, 0xFF, dice.randrange(256)))
        made = Made()
        try:
            PackReader(made).feed(bytes(changed))
        except RemoteProtocolError:
            refused += 1
        for kind, *about in made.said:
            for path in about[: 2 if kind == "link" else 1]:
                if isinstance(path, bytes) and (path or kind != "describe"):
                    assert {b"", b".", b".."}.isdisjoint(path.split(b"/"))
                    assert b"\0" not in path
    assert refused > 300


@pytest.mark.parametrize(
    "data",
    [
        item(PackItem.END, bytes(8)),
        item(PackItem.DATA, bytes(9)),
        item(PackItem.VOLUME, struct.pack("<Q", 1 << 63)),
        item(PackItem.VOLUME, bytes(4)),
        item(PackItem.VOLUME, bytes(8)) * 2,
        item(PackItem.VOLUME, bytes(8)) + item(PackItem.DATA, bytes(9)),
        item(PackItem.VOLUME, bytes(8)) + item(PackItem.DIRECTORY, b"d"),
    ],
)
def test_what_is_no_volume(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        VolumeReader(Made()).feed(data)


def test_what_is_cut_has_no_end() -> None:
    data = packed()
    for cut in (0, 4, 100, len(data) - 13, len(data) - 1):
        reader = PackReader(Made())
        reader.feed(data[:cut])
        assert not reader.ended


def test_a_reader_holds_one_item() -> None:
    reader = PackReader(Made())
    reader.feed(BEGUN)
    for _part in range(3):
        reader.feed(item(PackItem.DATA, bytes(8) + b"abc") * 1000)
        assert not reader._items._rest


def test_what_a_pack_cannot_have() -> None:
    writer = PackWriter(lambda _data: None)
    long = b"a" * (pack.PATH_END + 1)
    refusals: list[Callable[[], None]] = [
        lambda: writer.directory(long),
        lambda: writer.link(b"a", long),
        lambda: writer.link(long, b"a"),
        lambda: writer.describe(long, DIRECTORY),
        lambda: writer.special(b"a", replace(DEVICE, mode=0o600)),
        lambda: writer.file(b"a", replace(FILE, xattrs={b"a": bytes(pack.ITEM_MAX)})),
        lambda: writer.file(b"a", replace(FILE, xattrs={b"%d" % each: bytes(1 << 19) for each in range(33)})),
    ]
    for refused in refusals:
        with pytest.raises(ValueError, match=r"^(has|is) "):
            refused()
