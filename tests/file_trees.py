"""File systems in streams: genuine ones of tests/data/files with what the pool said, and a writer of synthetic ones.

    for each in TREES: each.paths(), each.listing()
    made = Tree(); made.file(made.root, b"name", b"content"); made.stream()

The writer has its own encoders of ZAPs and system attributes, written after OpenZFS and not after the reader. Its
running checksums are not right, and not zero: a `.sha256` beside a file proves it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import stat
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import zstandard
from tests import streams
from tests.data import load

from fullsend_protocol.stream.records import HEADER_SIZE, RecordType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FOLDER: Final = load.HERE / "files"
VOLUMES: Final = {
    "s1": "5495e1b69dab756793a86b8e778362ec6be85b1dcfc766c109f0411d1bfd5689",
    "s2": "20ca7074973e5009db11ab7288075f5e485bfddfe824f0e0b867a83251553fe8",
}


# --- genuine ones ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GenuineTree:
    """A snapshot of a genuine file system. `name`: of its streams; `snapshot`: s1 or s2."""

    name: str
    snapshot: str

    def paths(self) -> list[Path]:
        """The files with its streams, the full first."""
        names = ["full"] if self.snapshot == "s1" else ["full", "incr"]
        return [FOLDER / f"{self.name}-{each}.zfs.zst" for each in names]

    def listing(self) -> dict[bytes, dict[str, Any]]:
        """What the pool said of each path."""
        found = _listing(FOLDER / f"{self.name.partition('_')[0]}-{self.snapshot}.json.zst")
        return {bytes.fromhex(path): about for path, about in found.items()}


@functools.cache
def _listing(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(raw(path))
    return found


@functools.lru_cache(maxsize=16)
def raw(path: Path) -> bytes:
    """What a compressed file holds."""
    return zstandard.ZstdDecompressor().stream_reader(path.read_bytes(), read_across_frames=True).read()


TREES: Final = [GenuineTree(name, snapshot) for name in ("sa_Lec", "dir_c", "old-dir_e") for snapshot in ("s1", "s2")]
LONG: Final = GenuineTree("long", "s1")


# --- ZAPs ------------------------------------------------------------------------------------------------------

#: (name, integers, bytes of an integer)
Pair = tuple[bytes, "Sequence[int]", int]


def micro_zap(pairs: Mapping[bytes, int], size: int = 0) -> bytes:
    """A micro ZAP. `size`: of its block, 0: as large as it must be."""
    entries = b"".join(struct.pack("<QI2x50s", value, 0, name) for name, value in pairs.items())
    block = struct.pack("<QQQ40x", (1 << 63) + 3, 1, 0) + entries
    size = size or max(512, -(-len(block) // 512) * 512)
    return block + bytes(size - len(block))


def _chunks_of(data: bytes, at: int, *, last: int = 0xFFFF) -> list[bytes]:
    """The chunks of an array that begins in the chunk `at`."""
    parts = [data[begin : begin + 21] for begin in range(0, len(data), 21)]
    return [
        struct.pack("<B21sH", 251, part, at + number + 1 if number + 1 < len(parts) else last)
        for number, part in enumerate(parts)
    ]


def leaf(pairs: Sequence[Pair], shift: int) -> bytes:
    """A leaf of a fat ZAP with these pairs."""
    size = 1 << shift
    count = (size - (size >> 5 << 1)) // 24 - 2
    chunks: list[bytes] = []
    for name, integers, width in pairs:
        at = len(chunks)
        text = name + b"\0"
        value = b"".join(each.to_bytes(width, "big") for each in integers)
        names = _chunks_of(text, at + 1)
        values = _chunks_of(value, at + 1 + len(names))
        chunks.append(
            struct.pack(
                "<BBHHHHHIQ",
                *(
                    252,
                    width,
                    0xFFFF,
                    at + 1,
                    len(text),
                    at + 1 + len(names) if values else 0xFFFF,
                    len(integers),
                    0,
                    0,
                ),
            )
        )
        chunks += names + values
    assert len(chunks) <= count, "does not fit"
    chunks += [struct.pack("<B23x", 253)] * (count - len(chunks))
    head = struct.pack("<Q8xQIHHHHB11x", 1 << 63, 0, 0x2AB1EAF, 0, len(pairs), 0, 0, 0)
    block = head + b"\xff" * (size >> 5 << 1) + b"".join(chunks)
    return block + bytes(size - len(block))


def fat_zap(leaves: Sequence[Sequence[Pair]], shift: int = 12, *, stale: Sequence[Sequence[Pair]] = ()) -> list[bytes]:
    """The blocks of a fat ZAP: a header with its pointer table, the leaves, and leaves to which nothing points."""
    blocks = [leaf(each, shift) for each in (*leaves, *stale)]
    slots = (1 << shift) // 16
    pointers = [1 + number * len(leaves) // slots for number in range(slots)]
    head = struct.pack(
        "<QQQQQQQQQQQQQ",
        *((1 << 63) + 1, 0x2F52AB2AB, 0, 0, slots.bit_length() - 1, 0, 0),
        *(len(blocks) + 1, len(leaves), sum(map(len, leaves)), 7, 0, 0),
    )
    return [head + bytes((1 << shift) // 2 - len(head)) + struct.pack(f"<{slots}Q", *pointers), *blocks]


# --- system attributes -----------------------------------------------------------------------------------------

#: Name -> (number, length); 0: variable.
REGISTRY: Final = {
    name: (number, length)
    for number, (name, length) in enumerate(
        {
            "ZPL_ATIME": 16,
            "ZPL_MTIME": 16,
            "ZPL_CTIME": 16,
            "ZPL_CRTIME": 16,
            "ZPL_GEN": 8,
            "ZPL_MODE": 8,
            "ZPL_SIZE": 8,
            "ZPL_PARENT": 8,
            "ZPL_LINKS": 8,
            "ZPL_XATTR": 8,
            "ZPL_RDEV": 8,
            "ZPL_FLAGS": 8,
            "ZPL_UID": 8,
            "ZPL_GID": 8,
            "ZPL_SYMLINK": 0,
            "ZPL_DACL_ACES": 0,
            "ZPL_DXATTR": 0,
            "ZPL_PROJID": 8,
        }.items()
    )
}


class Layouts:
    """The layouts of a dataset, as they are needed."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, ...], int] = {}

    def buffer(self, values: Mapping[str, bytes]) -> bytes:
        """A buffer with these attributes: fixed ones first."""
        names = tuple(sorted(values, key=lambda name: (not REGISTRY[name][1], REGISTRY[name][0])))
        number = self._numbers.setdefault(names, len(self._numbers) + 2)
        variable = [len(values[name]) for name in names if not REGISTRY[name][1]]
        size = 8 + -(-max(2 * len(variable) - 2, 0) // 8) * 8
        head = struct.pack(f"<IH{len(variable)}H", 0x2F505A, number | size >> 3 << 10, *variable)
        body = b"".join(values[name] + bytes(-len(values[name]) % 8) for name in names)
        return head + bytes(size - len(head)) + body

    def registry_zap(self) -> list[bytes]:
        return [micro_zap({name.encode(): length << 24 | number for name, (number, length) in REGISTRY.items()}, 2048)]

    def layouts_zap(self) -> list[bytes]:
        return fat_zap(
            [[(b"%d" % number, [REGISTRY[name][0] for name in names], 2) for names, number in self._numbers.items()]],
            14,
        )


def time(nanoseconds: int) -> bytes:
    return struct.pack("<qQ", *divmod(nanoseconds, 10**9))


def packed_xattrs(values: Mapping[bytes, bytes]) -> bytes:
    """An nvlist of byte arrays in XDR."""
    out = struct.pack(">BBxxII", 1, 1, 0, 1)
    for name, value in values.items():
        body = struct.pack(">I", len(name)) + name + bytes(-len(name) % 4)
        body += struct.pack(">II", 10, len(value)) + value + bytes(-len(value) % 4)
        out += struct.pack(">II", len(body) + 8, len(body) + 40) + body
    return out + bytes(8)


# --- streams ---------------------------------------------------------------------------------------------------


def summed(record: bytes) -> bytes:
    """The record of the stream, with a running checksum that is not zero."""
    head = bytearray(streams.marked(record))
    head[HEADER_SIZE - 1] = 1
    return bytes(head)


def an_object(number: int, kind: int, block_size: int, bonus: bytes = b"", *, has_spill: bool = False) -> bytes:
    """OBJECT of type `kind`, with a bonus of system attributes where there is one."""
    head = bytearray(streams.object_(number, bonus))
    struct.pack_into("<III", head, 16, kind, 44 if bonus else 0, block_size)
    head[34], head[35] = 1, 4 if has_spill else 0
    return bytes(head)


@dataclass
class Tree:
    """A file system that is written into a stream. Objects get numbers from 64 on."""

    root: int = 34
    directories: dict[int, dict[bytes, int]] = field(default_factory=lambda: {34: {}})
    attributes: dict[int, dict[str, bytes]] = field(default_factory=dict)
    blocks: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict)
    spills: dict[int, dict[str, bytes]] = field(default_factory=dict)
    zaps: dict[int, list[bytes]] = field(default_factory=dict)  # of directories, instead of the usual ones
    master: dict[bytes, int] = field(default_factory=dict)
    next: int = 64

    def __post_init__(self) -> None:
        self.attributes[self.root] = self.node(stat.S_IFDIR | 0o755)

    def node(self, mode: int, size: int = 0, **more: bytes) -> dict[str, bytes]:
        numbers = {
            "GEN": 5,
            "MODE": mode,
            "SIZE": size,
            "PARENT": self.root,
            "LINKS": 1,
            "FLAGS": 4,
            "UID": 0,
            "GID": 0,
        }
        values = {f"ZPL_{name}": struct.pack("<Q", value) for name, value in numbers.items()}
        values |= {f"ZPL_{name}": time(1_700_000_000_123_456_789) for name in ("ATIME", "MTIME", "CTIME", "CRTIME")}
        return values | more

    def put(self, directory: int | None, name: bytes, attributes: dict[str, bytes]) -> int:
        """An object with a name. `directory` None: without one."""
        number, self.next = self.next, self.next + 1
        self.attributes[number] = attributes
        if directory is not None:
            self.directories[directory][name] = number
        return number

    def file(
        self, directory: int | None, name: bytes, content: bytes = b"", size: int | None = None, **more: bytes
    ) -> int:
        number = self.put(
            directory, name, self.node(stat.S_IFREG | 0o644, len(content) if size is None else size, **more)
        )
        if content:
            self.blocks[number] = [(0, content + bytes(-len(content) % 512))]
        return number

    def directory(self, parent: int | None, name: bytes, **more: bytes) -> int:
        number = self.put(parent, name, self.node(stat.S_IFDIR | 0o755, 2, **more))
        self.directories[number] = {}
        return number

    def symlink(self, directory: int, name: bytes, target: bytes) -> int:
        return self.put(directory, name, self.node(stat.S_IFLNK | 0o777, len(target), ZPL_SYMLINK=target))

    def records(self, *, tables_at: int = 2) -> list[bytes]:
        """The records, by object. `tables_at`: where the tables of attributes stand."""
        layouts = Layouts()
        found: dict[int, list[bytes]] = {}
        for number, values in self.attributes.items():
            bonus, spill = layouts.buffer(values), self.spills.get(number)
            if number in self.directories:
                zap = self.zaps.get(number) or [micro_zap(self.directories[number])]
                found[number] = [an_object(number, 20, len(zap[0]), bonus, has_spill=spill is not None)]
                found[number] += [streams.write(number, at * len(zap[0]), block) for at, block in enumerate(zap)]
            else:
                found[number] = [an_object(number, 19, 512, bonus, has_spill=spill is not None)]
                found[number] += [streams.write(number, at, block) for at, block in self.blocks.get(number, ())]
            if spill is not None:
                found[number].append(streams.spill(number, layouts.buffer(spill).ljust(512, b"\0")))
        master = {b"VERSION": 5, b"ROOT": self.root, b"SA_ATTRS": tables_at} | self.master
        tables = {
            1: (21, [micro_zap(master)]),
            tables_at: (45, [micro_zap({b"REGISTRY": tables_at + 1, b"LAYOUTS": tables_at + 2})]),
            tables_at + 1: (46, layouts.registry_zap()),
            tables_at + 2: (47, layouts.layouts_zap()),
        }
        for number, (kind, zap) in tables.items():
            found[number] = [an_object(number, kind, len(zap[0]))]
            found[number] += [streams.write(number, at * len(zap[0]), block) for at, block in enumerate(zap)]
        return [each for number in sorted(found) for each in found[number]]

    def stream(self, *, tables_at: int = 2) -> bytes:
        return stream_of(*self.records(tables_at=tables_at))

    def written(self, path: Path, *, tables_at: int = 2) -> Path:
        """Write the stream, and its `.sha256`."""
        return proven(path, self.stream(tables_at=tables_at))


def stream_of(*records: bytes, objset_type: int = 2, **about: Any) -> bytes:
    """A full that the reader takes: of a file system, with spill blocks as since OpenZFS 0.8."""
    opening = streams.begin(objset_type=objset_type, flags=8, **about)
    return opening + b"".join(map(summed, (*records, streams.end())))


def volume(size: int, blocks: Mapping[int, bytes]) -> bytes:
    """The stream of a volume."""
    zap = micro_zap({b"size": size})
    records = [an_object(1, 23, 512), *(streams.write(1, at, data) for at, data in blocks.items())]
    return stream_of(*records, an_object(2, 24, len(zap)), streams.write(2, 0, zap), objset_type=3)


def proven(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    path.with_name(f"{path.name}.sha256").write_text(f"{hashlib.sha256(data).hexdigest()}  {path.name}\n")
    return path


def embedded(number: int, offset: int, payload: bytes, size: int, compression: int) -> bytes:
    """WRITE_EMBEDDED with a compression."""
    head = bytearray(streams.write_embedded(number, offset, payload, size))
    struct.pack_into("<Q", head, 24, size)
    head[40] = compression
    assert head[0] == RecordType.WRITE_EMBEDDED
    return bytes(head)
