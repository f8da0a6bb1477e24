"""Cut streams are resumed, with real ZFS: `zfs send -t` into a stream, and a stream into `zfs receive -s`."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
from tests import resumed
from tests.zfs import pools

from fullsend_protocol.stream.records import RecordType
from fullsend_protocol.stream.rejoin import Rejoiner
from fullsend_protocol.stream.resume_token import ResumeToken
from fullsend_protocol.stream.splice import Splicer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.resumed import Sent
    from tests.zfs.pools import Pool


@dataclass(frozen=True)
class Flavour:
    """How something is sent: `flags` of `zfs send`, for the dataset that `make` makes."""

    name: str
    dataset: str
    flags: tuple[str, ...]


FLAVOURS = [
    Flavour("plain", "plain", ()),
    Flavour("compressed", "plain", ("-L", "-e", "-c")),
    Flavour("split", "large", ()),  # records of 1 MiB without -L: eight WRITEs are repeated
    Flavour("properties", "plain", ("-p",)),
    Flavour("raw", "vault", ("-w",)),
    Flavour("volume", "disk", ()),
]


def make(pool: Pool, key: Path) -> dict[tuple[str, str], object]:
    """Datasets with two snapshots each. Returns: what is in each of them, by dataset and snapshot."""
    key.write_bytes(b"k" * 32)
    encrypted = ("-o", "encryption=on", "-o", "keyformat=raw", "-o", f"keylocation=file://{key}")
    pool.create("plain", "-o", "compression=lz4", "-o", "recordsize=16k")
    pool.create("large", "-o", "recordsize=1M")
    pool.create("vault", "-o", "recordsize=16k", *encrypted)
    pools.zfs("create", "-V", "2M", "-o", "volblocksize=8k", pool.full("disk"))
    for name in ("plain", "large", "vault"):
        pools.fill(pool.path(name))
    (pool.path("large") / "more").write_bytes(b"".join(pools.noise(3 << 20)))
    device = pools.device(pool.full("disk"))
    device.write_bytes(b"".join(pools.noise(1 << 20)))
    states: dict[tuple[str, str], object] = {}
    for snapshot in ("one", "two"):
        for name in ("plain", "large", "vault", "disk"):
            states[name, snapshot] = content(pool, pool.full(name))
        pool.snapshot(*(f"{pool.full(name)}@{snapshot}" for name in ("plain", "large", "vault", "disk")))
        for name in ("plain", "large", "vault"):
            pools.change(pool.path(name))
        with device.open("r+b") as file:
            file.seek(300_000)
            file.write(b"changed" * 20_000)
    return states


#: From where a stream is sent; the empty one is a full.
BASES = {"full": "", "increment": "@one", "bookmark": "#one"}


def sent(pool: Pool, flavour: Flavour, base: str) -> Sent:
    name = pool.full(flavour.dataset)
    what = ("-i", base, f"{name}@two") if base else (f"{name}@one",)
    (found,) = resumed.sent(pool.send(*flavour.flags, *what))
    return found


def cuts(of: Sent) -> list[int]:
    """Records to cut behind, by index: one with which an object begins, and one inside of an object."""
    inside = [index for index in of.points() if (of.records[index].key or (0, 0))[1]]
    beginning = [index for index in of.points() if index not in inside]
    return [beginning[len(beginning) // 2], inside[len(inside) * 2 // 3]]


def many_cuts(of: Sent) -> list[int]:
    """The same, and behind the first record that can be resumed at, behind the last, and where FREEs follow."""
    points = of.points()
    free = [index for index in points[:-1] if of.records[index + 1].kind is RecordType.FREE]
    return [*cuts(of), points[0], points[-1], *free[-1:]]


@pytest.mark.parametrize("base", BASES)
def test_send_that_was_cut_resumes_by_a_token_of_its_own(pool: Pool, tmp_path: Path, base: str) -> None:
    make(pool, tmp_path / "key")
    for dataset in ("plain", "large", "vault", "disk"):
        pools.zfs("bookmark", pool.full(f"{dataset}@one"), pool.full(f"{dataset}#one"))
    for flavour in FLAVOURS:
        of = sent(pool, flavour, BASES[base])
        for index in many_cuts(of):
            point = of.point(index)
            rest = pool.send("-t", of.token((point.object, point.offset)).encode())
            splicer = Splicer(
                point,
                name=of.name,
                guid=of.guid,
                base_guid=of.base_guid,
                features=of.features,
                compound=of.compound,
            )
            out = b"".join(map(bytes, splicer.feed(rest))) + splicer.finish()
            assert out == of.rest(index), (flavour, index)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("base", ["full", "increment"])
def test_receive_that_was_interrupted_resumes_out_of_what_is_stored(
    pool: Pool, other_pool: Pool, tmp_path: Path, base: str
) -> None:
    states = make(pool, tmp_path / "key")
    offsets = set()
    for flavour in FLAVOURS:
        of = sent(pool, flavour, BASES[base])
        for index in cuts(of):
            target = other_pool.full(f"{flavour.name}-{index}")
            if base == "increment":
                other_pool.receive(sent(pool, flavour, "").raw, "-u", target)
            # A record is written when the header behind it has come.
            interrupted(of.raw[: of.records[index + 1].start + 400], target)
            text = other_pool.get(target, "receive_resume_token")
            said = ResumeToken.decode(text)
            assert replace(said, received=0) == of.token((said.object, said.offset))
            assert same_token(said.encode(), text)
            offsets.add((flavour.name, bool(said.offset)))
            rejoiner = Rejoiner(of.begin, said)
            pieces = rejoiner.feed(of.raw[of.records[1].start :])
            rejoiner.finish()
            out = b"".join(map(bytes, pieces))
            if not said.offset or (of.raw_send and base == "full"):
                assert out == pool.send("-t", text), (flavour, index)
            other_pool.receive(out, "-u", "-s", target)
            snapshot = of.name.partition("@")[2]
            assert other_pool.guid(f"{target}@{snapshot}") == of.guid
            if of.raw_send:
                pools.zfs("load-key", "-L", f"file://{tmp_path / 'key'}", target)
            if flavour.dataset != "disk":
                pools.zfs("mount", target)
            assert content(other_pool, target) == states[flavour.dataset, snapshot], (flavour, index)
    # 2.1 has written less where it is interrupted, and mostly says a WRITE before (tried with 2.1.11).
    places = (True,) if pools.zfs("version").startswith(b"zfs-2.1") else (False, True)
    assert offsets >= {(flavour.name, inside) for flavour in FLAVOURS for inside in places}


def interrupted(part: bytes, target: str) -> None:
    """Receive what is no whole stream."""
    done = pools.program("zfs", "receive", "-u", "-s", target, stdin=part, check=False)
    assert done.returncode


def same_token(ours: str, theirs: str) -> bool:
    """To the byte, unless this Python deflates by zlib-ng."""
    if "ng" in zlib.ZLIB_RUNTIME_VERSION:
        return zlib.decompress(bytes.fromhex(ours.rpartition("-")[2])) == zlib.decompress(
            bytes.fromhex(theirs.rpartition("-")[2])
        )
    return ours == theirs


def content(pool: Pool, full: str) -> object:
    """All that is in a dataset, where it is mounted or, if it is a volume, on its device."""
    if pool.get(full, "type") == "volume":
        return hashlib.sha256(pools.device(full).read_bytes()).hexdigest()
    return pools.tree(pool.path(full))
