#!/usr/bin/env python3
"""Make tests/data: a small set of genuine `zfs send` streams, and MANIFEST.json, which says what is in them.

    make-data.py            on any machine: boots the guest (see `run`), lets it make the streams, compresses them here
    make-data.py --guest    in the guest: makes /share/NAME.zfs and /share/manifest.json

GUIDs and times differ from run to run, so a new set is a new commit of all files; whatever tests need to know of
a stream is therefore in MANIFEST.json. What is said there of records comes from the little walker below, written for
this purpose alone: it must not share a line with the code that the streams test.
"""

from __future__ import annotations

import collections
import hashlib
import json
import os
import pathlib
import random
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = pathlib.Path(__file__).resolve().parent
DATA = HERE.parent.parent / "data"
LIMIT = 5 << 19  # 2.5 MiB for everything in tests/data
SHARE = pathlib.Path("/share")
IMAGE = "/tmp/tank.img"
KEY = pathlib.Path("/tmp/key")

TYPES = (
    *("BEGIN", "OBJECT", "FREEOBJECTS", "WRITE", "FREE", "END", "WRITE_BYREF", "SPILL"),
    *("WRITE_EMBEDDED", "OBJECT_RANGE", "REDACT"),
)
BEGIN, OBJECT, WRITE, END, SPILL, WRITE_EMBEDDED = 0, 1, 3, 5, 7, 8
HEADER = 312


# --- reading streams ---------------------------------------------------------------------------------------------


class Reader:
    """Steps through packed bytes, in either byte order."""

    def __init__(self, raw: bytes, order: str) -> None:
        self.raw, self.order, self.at = raw, order, 0

    def take(self, form: str) -> int:
        """One number."""
        (value,) = struct.unpack_from(self.order + form, self.raw, self.at)
        self.at += struct.calcsize(self.order + form)
        return int(value)

    def text(self) -> str:
        """An XDR string: length, bytes, padding to 4."""
        size = self.take("i")
        value = self.raw[self.at : self.at + size].decode()
        self.at += (size + 3) // 4 * 4
        return value


def xdr_nvlist(r: Reader) -> dict[str, Any]:
    """A packed nvlist as libzfs writes it (outer BEGIN of a package)."""
    r.take("i"), r.take("i")  # version, flags
    found: dict[str, Any] = {}
    while True:
        start, size, _ = r.at, r.take("i"), r.take("i")
        if not size:
            return found
        name, kind, count = r.text(), r.take("i"), r.take("i")
        value: Any
        match kind:
            case 1:
                value = True
            case 8:
                value = r.take("Q")
            case 9:
                value = r.text()
            case 19:
                value = xdr_nvlist(r)
            case 20:
                value = [xdr_nvlist(r) for _ in range(count)]
            case _:
                value = f"type {kind}"
        found[name] = value
        r.at = start + size


def native_nvlist(r: Reader, outermost: bool = True) -> dict[str, Any]:
    """A packed nvlist as the kernel writes it (BEGIN of a substream)."""
    if outermost:
        r.take("i"), r.take("I")
    found: dict[str, Any] = {}
    while True:
        start, size = r.at, r.take("i")
        if not size:
            return found
        length, _, count, kind = r.take("h"), r.take("h"), r.take("i"), r.take("i")
        name = r.raw[r.at : r.at + length - 1].decode()
        r.at = start + (16 + length + 7) // 8 * 8
        value: Any
        match kind:
            case 8:
                value = r.take("Q")
            case 16:
                value = [r.take("Q") for _ in range(count)]
            case _:
                value = f"type {kind}"
        r.at = start + size
        if kind == 19:  # its pairs follow the pair itself
            value = native_nvlist(r, outermost=False)
        found[name] = value


def payload(raw: bytes, at: int) -> int:
    """Length of what follows the header of the record at `at`."""

    def u32(off: int) -> int:
        return int.from_bytes(raw[at + off : at + off + 4], "little")

    def u64(off: int) -> int:
        return int.from_bytes(raw[at + off : at + off + 8], "little")

    match u32(0):
        case 0:
            return u32(4)
        case 1:
            return u32(36) or (u32(28) + 7) // 8 * 8
        case 3:
            return u64(96) if raw[at + 50] else u64(32)
        case 7:
            return u64(40) or u64(16)
        case 8:
            return (u32(52) + 7) // 8 * 8
    return 0


def records(raw: bytes) -> Iterator[tuple[int, int, int]]:
    """(type, offset, end) of every record; the last end lies beyond the data where the stream was cut."""
    at = 0
    while at + HEADER <= len(raw):
        end = at + HEADER + payload(raw, at)
        yield int.from_bytes(raw[at : at + 4], "little"), at, end
        at = end


def facts(raw: bytes) -> dict[str, Any]:
    """What the stream itself says: its BEGINs, how many records of each type, the package's nvlist."""
    begins: list[dict[str, Any]] = []
    counts: collections.Counter[str] = collections.Counter()
    found: dict[str, Any] = {}
    whole = 0
    ended: list[int] = []
    for kind, at, end in records(raw):
        if end > len(raw):
            break
        whole = end
        counts[TYPES[kind]] += 1
        if kind == END:
            (toguid,) = struct.unpack_from("<Q", raw, at + 40)
            ended += [toguid] if toguid else []  # zero: not a substream's but the package's own
        if kind != BEGIN:
            continue
        version, creation, _, flags, toguid, fromguid = struct.unpack_from("<QQIIQQ", raw, at + 16)
        begin = {
            "at": at,
            "compound": version & 3 == 2,
            "features": version >> 2,
            "flags": flags,
            "creation": creation,
            "toguid": toguid,
            "fromguid": fromguid,
            "payload": end - at - HEADER,
            "toname": raw[at + 56 : at + HEADER].partition(b"\0")[0].decode(),
        }
        if end - at > HEADER:
            body = Reader(raw[at + HEADER + 4 : end], ">" if raw[at + HEADER] == 1 else "<")
            if begin["compound"]:
                package = xdr_nvlist(body)
                for fs in package.get("fss", {}).values():
                    for noise in ("props", "snapprops", "snapholds"):
                        fs.pop(noise, None)
                found["package"] = package
            else:
                begin["nvlist"] = {k: v for k, v in native_nvlist(body).items() if k != "crypt_keydata"}
                if "redact_snaps" in begin["nvlist"]:
                    found["redact_snaps"] = begin["nvlist"]["redact_snaps"]
        begins.append(begin)
    found |= {"begins": begins, "records": dict(counts), "ended": ended}
    if whole != len(raw):
        found["cut_after"] = whole  # the last record that is there completely ends here
    return found


def without_sums(raw: bytes) -> bytes:
    """The stream with its running checksums zeroed; tests/data/load.py computes them anew.

    They are all that is incompressible in a long run of FREE records, and all there is to such a run.
    """
    out = bytearray(raw)
    for kind, at, _ in records(raw):
        if kind != BEGIN:
            out[at + 280 : at + HEADER] = bytes(32)
        if kind == END:
            out[at + 8 : at + 40] = bytes(32)
    return bytes(out)


# --- making them, in the guest -----------------------------------------------------------------------------------


def sh(*command: str, stdin: bytes = b"", check: bool = True) -> subprocess.CompletedProcess[bytes]:
    """Run a program; what fails unexpectedly ends everything."""
    done = subprocess.run(command, input=stdin, capture_output=True, check=False)
    if check and done.returncode:
        sys.exit(f"{shlex.join(command)}: {done.returncode}\n{done.stderr.decode()}")
    return done


def zfs(line: str) -> None:
    """`zfs` with the arguments of this line, quoted as in a shell."""
    sh("zfs", *shlex.split(line))


def text(r: random.Random, size: int) -> bytes:
    """Prose of a kind: shrinks to about a tenth."""
    words = [f"{r.choice('bcdfglmnprst')}{r.choice('aeiou')}{r.choice('lnrst')}" for _ in range(40)]
    lines = [" ".join(r.choices(words, k=12)) for _ in range(30)]
    out = bytearray()
    while len(out) < size:
        out += f"{len(out):09} {r.choice(lines)}\n".encode()
    return bytes(out[:size])


def put(path: str, data: bytes) -> None:
    """A new file, with the folders it needs."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    pathlib.Path(path).write_bytes(data)


def fill(root: str, seed: int, size: int = 120_000, noise: int = 6_000) -> None:
    """Some of everything that a file system holds."""
    r = random.Random(seed)
    put(f"{root}/text.txt", text(r, size))
    put(f"{root}/noise.bin", r.randbytes(noise))
    for i in range(24):
        put(f"{root}/small/{i % 3}/{i:02}", text(r, r.randrange(1, 1500)))
    with open(f"{root}/sparse", "wb") as f:
        for at in (0, 700_000, 5 << 20):
            f.seek(at)
            f.write(b"island " * 200)
        f.truncate(16 << 20)
    os.link(f"{root}/text.txt", f"{root}/hardlink")
    os.symlink("text.txt", f"{root}/symlink")
    os.mkfifo(f"{root}/fifo")
    put(f"{root}/empty", b"")
    put(f"{root}/n\u00e4me \u4e2d\u6587 with spaces", b"unicode\n")
    os.setxattr(f"{root}/text.txt", "user.comment", b"fits into the bonus buffer")
    os.setxattr(f"{root}/noise.bin", "user.long", text(r, 3000))  # does not: becomes a SPILL record


def change(root: str, seed: int) -> None:
    """The next day: deleted, renamed, overwritten, shortened, grown, new."""
    r = random.Random(seed)
    for i in range(0, 24, 2):
        os.remove(f"{root}/small/{i % 3}/{i:02}")
    os.rename(f"{root}/small/1/01", f"{root}/moved")
    with open(f"{root}/text.txt", "r+b") as f:
        f.seek(30_000)
        f.write(text(r, 9_000))
        f.seek(0, os.SEEK_END)
        f.write(text(r, 20_000))
    with open(f"{root}/sparse", "r+b") as f:
        f.truncate(3 << 20)
    put(f"{root}/noise.bin", r.randbytes(1_000))
    put(f"{root}/new", text(r, 5_000))
    os.remove(f"{root}/empty")


def pool() -> None:
    """All datasets, snapshots and bookmarks that the streams are sent from."""
    with open(IMAGE, "wb") as f:
        f.truncate(1 << 30)
    # ashift 9: small blocks stay small, so compressed and embedded ones come in more sizes
    sh("zpool", "create", "-o", "ashift=9", "-O", "atime=off", "-O", "xattr=sa", "tank", IMAGE)
    KEY.write_bytes(b"correct horse battery staple\n")

    for name, options in (
        ("plain", "-o compression=off"),
        ("large", "-o compression=lz4 -o recordsize=1M"),
        ("lz4", "-o compression=lz4"),
        ("zstd", "-o compression=zstd -o dnodesize=auto"),
        ("enc", f"-o compression=lz4 -o encryption=aes-256-gcm -o keyformat=passphrase -o keylocation=file://{KEY}"),
    ):
        zfs(f"create {options} tank/{name}")
        seed = sum(name.encode())
        fill(f"/tank/{name}", seed, *((40_000, 2_000) if name == "enc" else ()))
        if name == "large":
            put("/tank/large/blocks", text(random.Random(seed), 200_000) * 6)
        zfs(f"snapshot tank/{name}@s1")
        change(f"/tank/{name}", seed + 1)
        if name == "large":
            put("/tank/large/more-blocks", text(random.Random(seed + 1), 100_000) * 11)
        zfs(f"snapshot tank/{name}@s2")
        put(f"/tank/{name}/third", b"day\n")
        zfs(f"snapshot tank/{name}@s3")
    zfs("bookmark tank/plain@s1 tank/plain#b1")

    # blocks that compress into 112 bytes are stored in the block pointer itself: WRITE_EMBEDDED under -e
    zfs("create -o compression=lz4 -o recordsize=8K tank/embed")
    for i in range(60):
        put(f"/tank/embed/e{i:02}", b"%d " % i * 3000)
    put("/tank/embed/holes", (b"A" * 8192 + bytes(8192)) * 20)
    zfs("snapshot tank/embed@s1")

    zfs("create -V 4M -b 8K -o compression=lz4 tank/vol")
    volume = next(f"/dev/{d}" for d in os.listdir("/sys/block") if d.startswith("zd"))
    for snapshot, at in (("s1", 0), ("s2", 1 << 20)):
        with open(volume, "r+b") as f:
            f.seek(at)
            f.write(text(random.Random(at), 400_000) + random.Random(at).randbytes(3_000))
            f.flush()
            os.fsync(f.fileno())
        zfs(f"snapshot tank/vol@{snapshot}")

    # a tree: @old only at the top, a child and a clone, `late` without @base, `odd` without @top
    zfs("create -o compression=lz4 tank/tree")
    fill("/tank/tree", 7, 20_000, 1_000)
    zfs("snapshot tank/tree@old")
    zfs("create -o org.example:note='a user property' -o quota=100M tank/tree/child")
    put("/tank/tree/child/c", text(random.Random(1), 9_000))
    zfs("snapshot -r tank/tree@base")
    change("/tank/tree", 8)
    put("/tank/tree/child/c2", text(random.Random(2), 9_000))
    zfs("snapshot -r tank/tree@mid")
    zfs("clone -o compression=zstd tank/tree/child@mid tank/tree/clone")
    put("/tank/tree/clone/only-in-clone", text(random.Random(3), 9_000))
    zfs("create -o recordsize=16K tank/tree/late")
    put("/tank/tree/late/l", text(random.Random(4), 30_000))
    zfs("snapshot tank/tree/late@own")
    put("/tank/tree/child/c3", b"three\n")
    zfs("snapshot -r tank/tree@end")
    zfs("snapshot tank/tree@top tank/tree/clone@top tank/tree/child@top")

    zfs("create tank/empty")
    zfs("snapshot tank/empty@s1")
    zfs("create 'tank/odd name:with.all-of_it'")
    zfs("snapshot 'tank/odd name:with.all-of_it@snap shot:1'")

    # redaction: whatever the clone changed is missing from the stream
    zfs("create -o compression=lz4 -o recordsize=1M tank/red")
    fill("/tank/red", 9)
    put("/tank/red/public", text(random.Random(5), 100_000) * 12)
    put("/tank/red/secret", text(random.Random(6), 100_000) * 12)
    zfs("snapshot tank/red@s1")
    zfs("clone tank/red@s1 tank/red-hidden")
    with open("/tank/red-hidden/secret", "r+b") as f:
        f.write(b"-" * 1_200_000)
    zfs("snapshot tank/red-hidden@x")
    zfs("redact tank/red@s1 book tank/red-hidden@x")

    # several chunks of 4 MiB, and next to nothing once compressed
    zfs("create -o compression=lz4 tank/long")
    put("/tank/long/long", text(random.Random(10), 1 << 18) * 60)
    zfs("snapshot tank/long@s1")

    # 21 MiB of FREE records in a row: with compression on, a block of zeroes becomes a hole
    zfs("create -o compression=lz4 -o recordsize=512 tank/holes")
    holes = 72_000
    with open("/tank/holes/holes", "wb") as f:
        f.write((b"x" * 512) * 2 * holes)
    zfs("snapshot tank/holes@s1")
    handle = os.open("/tank/holes/holes", os.O_WRONLY)
    for i in range(holes):
        os.pwrite(handle, bytes(512), i * 1024)
    os.close(handle)
    zfs("snapshot tank/holes@s2")

    # a tree whose middle child can't be read: its blocks are overwritten in the pool's own file
    zfs("create -o compression=off tank/ill")
    for child in "abc":
        zfs(f"create tank/ill/{child}")
        put(f"/tank/ill/{child}/f", text(random.Random(11), 200_000) + b"sick-%s!" % child.encode() * 8_000)
    zfs("snapshot -r tank/ill@s1")
    zfs("snapshot -r tank/ill@s2")


STREAMS = (  # name, arguments of zfs send, what it shows
    ("full", "tank/plain@s1", "full, no flags"),
    ("incr", "-i @s1 tank/plain@s2", "incremental; files deleted, moved, overwritten, shortened"),
    ("incr-2", "-i @s2 tank/plain@s3", "the increment after `incr`"),
    ("incr-book", "-i tank/plain#b1 tank/plain@s2", "from a bookmark: the same bytes as `incr`"),
    ("full-lz4", "tank/lz4@s1", "an lz4 dataset, sent decompressed"),
    ("full-lz4-c", "-c tank/lz4@s1", "the same with its lz4 blocks as they are"),
    ("incr-lz4-c", "-c -i @s1 tank/lz4@s2", "incremental -c"),
    ("full-zstd-c", "-c tank/zstd@s1", "zstd blocks, big dnodes"),
    ("full-large", "tank/large@s1", "records of 1M, split into 128K for want of -L"),
    ("full-large-L", "-L tank/large@s1", "the same snapshot with -L"),
    ("incr-large-L", "-L -i @s1 tank/large@s2", "incremental -L"),
    ("full-large-Lec", "-Lec tank/large@s1", "the same snapshot with -L -e -c"),
    ("full-embed", "tank/embed@s1", "embeddable blocks without -e"),
    ("full-embed-e", "-e tank/embed@s1", "WRITE_EMBEDDED"),
    ("full-enc-w", "-w tank/enc@s1", "raw send of an encrypted dataset"),
    ("incr-enc-w", "-w -i @s1 tank/enc@s2", "raw incremental"),
    ("full-enc", "tank/enc@s1", "the encrypted dataset sent decrypted"),
    ("full-vol", "tank/vol@s1", "a zvol of 8K blocks"),
    ("incr-vol", "-i @s1 tank/vol@s2", "a zvol's increment"),
    ("full-p", "-p tank/lz4@s1", "with properties: a package of one substream"),
    ("incr-p", "-p -i @s1 tank/lz4@s2", "incremental with properties; its nvlist has no fromsnap"),
    ("all-I", "-I @s1 tank/plain@s3", "all snapshots between; an outer BEGIN without nvlist"),
    ("all-pI", "-p -I @s1 tank/plain@s3", "the same with properties; names its base too"),
    ("tree-R", "-R tank/tree@end", "a whole tree: child, clone, several snapshots; names exactly what it holds"),
    ("tree-R-i", "-R -i @base tank/tree@end", "names all snapshots, holds @end and the clone's origin"),
    ("tree-R-I", "-R -I @base tank/tree@end", "names all snapshots, holds those after @base"),
    ("tree-R-s", "-R -s tank/tree@top", "skips tank/tree/late, which has no @top, and does not name it"),
    ("tree-R-X", "-R -X tank/tree/late tank/tree@end", "tank/tree/late excluded, yet named"),
    ("clone", "-i tank/tree/child@mid tank/tree/clone@end", "a clone as an increment on its origin"),
    ("redacted", "--redact book tank/red@s1", "redacted: REDACT records, redact_snaps in its BEGIN"),
    ("redacted-L", "-L --redact book tank/red@s1", "the same with -L"),
    ("unredacted-L", "-L tank/red@s1", "the same snapshot whole: the same GUID"),
    ("empty", "tank/empty@s1", "an empty dataset"),
    ("odd-name", "'tank/odd name:with.all-of_it@snap shot:1'", "every character that a name can have"),
    ("long", "tank/long@s1", "15 MiB raw: several chunks"),
    ("free-run", "-i @s1 tank/holes@s2", "more than 21 MiB of FREE records in a row"),
)
RESUMED = (  # the whole stream's name, bytes that arrive before the cut
    ("full", 150_000),
    ("full-enc-w", 60_000),
)
ILL = (
    ("damaged-R", "-R tank/ill@s2", "exit 1: a substream cut by an I/O error, followed by the next BEGIN; closing END"),
    ("damaged-p", "-p tank/ill/b@s1", "exit 1: cut by an I/O error, nothing after it"),
)


def send(name: str, arguments: str) -> tuple[bytes, dict[str, Any]]:
    """One stream into /share, and what there is to say of it."""
    done = sh("zfs", "send", *shlex.split(arguments), check=False)
    raw = done.stdout
    (SHARE / f"{name}.zfs").write_bytes(raw)
    entry: dict[str, Any] = {
        "name": name,
        "command": f"zfs send {arguments}",
        "exit_code": done.returncode,
        "size": len(raw),
        "sha256": hashlib.sha256(raw).hexdigest(),
    }
    entry |= facts(raw)
    entry["snapshots"] = [snapshot(b["toname"]) for b in entry["begins"] if not b["compound"]]
    print(f"{name:16} {len(raw):>9} exit {done.returncode} {done.stderr.decode().strip()}", flush=True)
    return raw, entry


def snapshot(name: str) -> dict[str, Any]:
    """GUID, txg and time of a snapshot as the pool has them."""
    rows = sh("zfs", "get", "-Hpo", "property,value", "guid,createtxg,creation", name).stdout.decode().splitlines()
    return {"name": name} | {k: int(v) for k, v in (row.split("\t") for row in rows)}


def resumed(whole: str, arguments: str, raw: bytes, cut: int) -> list[dict[str, Any]]:
    """Interrupt a real `zfs receive -s` of `raw` after `cut` bytes, and let `zfs send -t` resume."""
    target = f"tank/resumed-{whole}"
    part = raw[:cut]
    sh("zfs", "receive", "-s", "-u", target, stdin=part, check=False)
    token = sh("zfs", "get", "-Ho", "value", "receive_resume_token", target).stdout.decode().strip()
    _, rest = send(f"{whole}-rest", f"-t {token}")
    rest |= {"note": f"what `zfs send -t` gives after {whole}-part", "whole": whole, "token": token}
    (SHARE / f"{whole}-part.zfs").write_bytes(part)
    first = {
        "name": f"{whole}-part",
        "note": f"the first {cut} bytes of {whole}",
        "command": f"zfs send {arguments} | head -c {cut}",
        "exit_code": 0,
        "size": cut,
        "sha256": hashlib.sha256(part).hexdigest(),
        "whole": whole,
        "snapshots": rest["snapshots"],
    }
    return [first | facts(part), rest]


def damage() -> None:
    """Overwrite what tank/ill/b holds on the vdev itself."""
    sh("zpool", "export", "tank")
    marker = b"sick-b!"
    with open(IMAGE, "r+b") as f:
        disk = f.read()
        at = disk.find(marker)
        while at >= 0:
            f.seek(at)
            f.write(b"broken!")
            at = disk.find(marker, at + len(marker))
    sh("zpool", "import", "-d", os.path.dirname(IMAGE), "tank")


def guest() -> None:
    """All streams."""
    pool()
    version = sh("zfs", "version").stdout.decode().splitlines()[0]
    entries: list[dict[str, Any]] = []
    for name, arguments, note in STREAMS:
        raw, entry = send(name, arguments)
        if entry["exit_code"]:
            sys.exit(f"{name} failed")
        if name == "free-run":
            raw = without_sums(raw)
            (SHARE / f"{name}.zfs").write_bytes(raw)
            entry["stored"] = "without running checksums"
        entries.append(entry | {"note": note})
        for whole, cut in RESUMED:
            if whole == name:
                entries += resumed(name, arguments, raw, cut)
    damage()
    for name, arguments, note in ILL:
        _, entry = send(name, arguments)
        if not entry["exit_code"]:
            sys.exit(f"{name} should have failed")
        entries.append(entry | {"note": note})
    for entry in entries:
        entry["zfs"] = version
    (SHARE / "manifest.json").write_text(json.dumps(entries), encoding="utf-8")
    sh("zpool", "export", "tank")


# --- storing them ------------------------------------------------------------------------------------------------

ORDER = ("name", "note", "command", "exit_code", "zfs", "size", "sha256", "stored", "whole", "token")


def main() -> None:
    """Boot the guest, compress what it made, replace tests/data's streams."""
    if sys.argv[1:] == ["--guest"]:
        guest()
        return
    if not shutil.which("zstd"):
        sys.exit("make-data.py: install zstd")
    with tempfile.TemporaryDirectory() as share:
        subprocess.run([HERE / "run", share, __file__, "--guest"], check=True)
        entries = json.loads(pathlib.Path(share, "manifest.json").read_text(encoding="utf-8"))
        DATA.mkdir(exist_ok=True)
        for old in DATA.glob("*.zfs.zst"):
            old.unlink()
        for entry in entries:
            source, target = f"{share}/{entry['name']}.zfs", DATA / f"{entry['name']}.zfs.zst"
            subprocess.run(["zstd", "-q", "-19", "--long=25", "-f", source, "-o", target], check=True)
    entries = [{k: e[k] for k in (*ORDER, *(k for k in e if k not in ORDER)) if k in e} for e in entries]
    # one line a stream: a diff then shows which stream changed, and the file stays small
    lines = ",\n".join(json.dumps(e, ensure_ascii=False, separators=(",", ":")) for e in entries)
    (DATA / "MANIFEST.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    total = sum(p.stat().st_size for p in DATA.iterdir() if p.is_file())
    print(f"{len(entries)} streams, {total:,} bytes in all")
    if total > LIMIT:
        sys.exit(f"make-data.py: more than {LIMIT:,}")


if __name__ == "__main__":
    main()
