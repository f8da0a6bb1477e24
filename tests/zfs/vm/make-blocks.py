#!/usr/bin/env python3
"""Make tests/data/blocks: genuine compressed blocks of each codec of ZFS, and their contents.

    make-blocks.py            on any machine: boots the guest (see `run`), lets it make the streams, takes the blocks
    make-blocks.py --guest    in the guest: makes /share/NAME.sent and /share/NAME.plain

    make-blocks.py --keep FOLDER    the first, and keeps the streams in FOLDER, which also have larger blocks

Each dataset is sent twice: with -Lec, which leaves blocks as they are on disk, and with -L, for which ZFS itself
decodes them. So the contents are what ZFS says, and not what a decoder of ours says. MANIFEST.json has a line for
each block.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = pathlib.Path(__file__).resolve().parent
BLOCKS = HERE.parent.parent / "data" / "blocks"
SHARE = pathlib.Path("/share")
IMAGE = "/tmp/tank.img"
CODECS = (
    *("lz4", "lzjb", "zle", "gzip-1", "gzip-6", "gzip-9"),
    *("zstd-1", "zstd", "zstd-19", "zstd-fast-10"),
)
BEGIN, OBJECT, WRITE, SPILL, WRITE_EMBEDDED = 0, 1, 3, 7, 8
HEADER = 312
#: Blocks of files that are larger than this are too large to be stored here.
STORED_MAX = 8192


def records(raw: bytes) -> Iterator[tuple[int, int, int]]:
    """Type, and where the payload begins and ends, of each record."""
    at = 0
    while at < len(raw):
        kind, length = struct.unpack_from("<II", raw, at)
        match kind:
            case 0:
                pass
            case 1:
                bonus, raw_bonus = struct.unpack_from("<I4xI", raw, at + 28)
                length = raw_bonus or (bonus + 7) // 8 * 8
            case 3:
                (length,) = struct.unpack_from("<Q", raw, at + (96 if raw[at + 50] else 32))
            case 7:
                (length,) = struct.unpack_from("<Q", raw, at + (40 if any(raw[at + 40 : at + 48]) else 16))
            case 8:
                length = (struct.unpack_from("<I", raw, at + 52)[0] + 7) // 8 * 8
            case _:
                length = 0
        yield kind, at, at + HEADER + length
        at += HEADER + length


def plain_blocks(raw: bytes) -> dict[tuple[int, int], bytes]:
    """The contents of each block, by object and offset."""
    found = {}
    for kind, at, end in records(raw):
        if kind == WRITE:
            number, _, offset = struct.unpack_from("<3Q", raw, at + 8)
            found[number, offset] = raw[at + HEADER : end]
    return found


def sent_blocks(raw: bytes) -> Iterator[tuple[int, int, int, int, bool, bytes]]:
    """Object, offset, compression, logical size, whether it is embedded, and the bytes, of each block."""
    for kind, at, end in records(raw):
        number, second, third = struct.unpack_from("<3Q", raw, at + 8)
        if kind == WRITE and raw[at + 50]:
            yield number, third, raw[at + 50], struct.unpack_from("<Q", raw, at + 32)[0], False, raw[at + HEADER : end]
        elif kind == WRITE_EMBEDDED:
            size, stored = struct.unpack_from("<II", raw, at + 48)
            yield number, second, raw[at + 40], size, True, raw[at + HEADER : at + HEADER + stored]


# --- in the guest --------------------------------------------------------------------------------------------------


def sh(*command: str) -> bytes:
    """Run a program; what fails ends everything."""
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.returncode}\n{done.stderr.decode()}")
    return done.stdout


def text(r: random.Random, size: int) -> bytes:
    """Prose of a kind: shrinks to about a third."""
    words = [f"{r.choice('bcdfglmnprst')}{r.choice('aeiou')}{r.choice('lnrst')}" for _ in range(200)]
    return " ".join(r.choices(words, k=size)).encode()[:size]


def islands(r: random.Random, size: int) -> bytes:
    """Random bytes between zeroes, in runs of every length."""
    out = bytearray()
    while len(out) < size:
        out += r.randbytes(r.randrange(1, 150)) + bytes(r.choice((1, 2, 3, 100, 192, 193, 700)))
    return bytes(out[:size])


def periods(r: random.Random, size: int) -> bytes:
    """Matches that overlap themselves, with periods of 1 to 20 bytes."""
    out = bytearray()
    while len(out) < size:
        out += (r.randbytes(r.randrange(1, 21)) * 200)[: r.randrange(30, 400)]
    return bytes(out[:size])


def guest() -> None:
    """All datasets, and their streams."""
    with open(IMAGE, "wb") as f:
        f.truncate(1 << 30)
    sh("zpool", "create", "-o", "ashift=9", "-O", "atime=off", "tank", IMAGE)
    for codec in CODECS:
        sh("zfs", "create", "-o", f"compression={codec}", "-o", "recordsize=1M", f"tank/{codec}")
        r = random.Random(7)
        for name, data in (
            ("text", text(r, 8192)),
            ("islands", islands(r, 8192)),
            ("periods", periods(r, 4096)),
            ("small", text(r, 700)),
            ("few", b"7" * 4096),
            ("end", bytes(4000) + b"the end of the block"),
            ("start", b"short" + bytes(1000)),
            ("large-text", text(r, 128 << 10)),
            ("large-islands", islands(r, 128 << 10)),
            ("largest", islands(r, 256 << 10) + text(r, 768 << 10)),
        ):
            pathlib.Path(f"/tank/{codec}/{name}").write_bytes(data)
        sh("zfs", "snapshot", f"tank/{codec}@s")
        (SHARE / f"{codec}.sent").write_bytes(sh("zfs", "send", "-Lec", f"tank/{codec}@s"))
        (SHARE / f"{codec}.plain").write_bytes(sh("zfs", "send", "-L", f"tank/{codec}@s"))
        print(codec, flush=True)
    (SHARE / "version").write_bytes(sh("zfs", "version").splitlines()[0])
    sh("zpool", "export", "tank")


# --- storing them --------------------------------------------------------------------------------------------------


def take(share: pathlib.Path) -> None:
    """Replace tests/data/blocks by the blocks of these streams."""
    shutil.rmtree(BLOCKS, ignore_errors=True)
    BLOCKS.mkdir()
    version = (share / "version").read_text(encoding="utf-8")
    entries: list[dict[str, Any]] = []
    stored = bytearray()
    contents: dict[str, bytes] = {}
    for codec in CODECS:
        plain = plain_blocks((share / f"{codec}.plain").read_bytes())
        seen: set[bytes] = set()
        for number, offset, compression, size, embedded, data in sent_blocks((share / f"{codec}.sent").read_bytes()):
            content = plain[number, offset]
            if size > STORED_MAX or data in seen:
                continue
            if size != len(content):
                sys.exit(f"{codec}: object {number} has {size} bytes with -c, and {len(content)} without")
            seen.add(data)
            digest = hashlib.sha256(content).hexdigest()
            contents[digest] = content
            entries.append(
                {
                    "codec": codec,
                    "compression": compression,
                    "embedded": embedded,
                    "at": len(stored),
                    "stored": len(data),
                    "size": size,
                    "sha256": digest,
                    "zfs": version,
                }
            )
            stored += data
    at = {}
    together = bytearray()
    for digest, content in contents.items():
        at[digest] = len(together)
        together += content
    for entry in entries:
        entry["content_at"] = at[entry["sha256"]]
    (BLOCKS / "blocks").write_bytes(stored)
    packed = subprocess.run(["zstd", "-q", "-19", "-c"], input=together, capture_output=True, check=True).stdout
    (BLOCKS / "contents.zst").write_bytes(packed)
    lines = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in entries)
    (BLOCKS / "MANIFEST.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    print(f"{len(entries)} blocks, {sum(p.stat().st_size for p in BLOCKS.iterdir()):,} bytes")


def main() -> None:
    """Boot the guest, and take the blocks of what it made."""
    if sys.argv[1:] == ["--guest"]:
        guest()
        return
    with tempfile.TemporaryDirectory() as share:
        subprocess.run([HERE / "run", share, __file__, "--guest"], check=True)
        take(pathlib.Path(share))
        if sys.argv[1:2] == ["--keep"]:
            for name in os.listdir(share):
                shutil.copy(f"{share}/{name}", sys.argv[2])


if __name__ == "__main__":
    main()
