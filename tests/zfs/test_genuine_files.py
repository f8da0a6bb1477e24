"""Genuine streams, received by real ZFS and read by `fullsendd get`: both must give the same files.

They are those of tests/data, and those of $FULLSEND_CORPUS and $FULLSEND_CHAINS, which `tests/zfs/run` copies.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest
from tests import chains, programs, streams
from tests.file_trees import proven
from tests.zfs import pools

from fullsend_protocol.stream.records import Feature, RecordType, Walker
from fullsend_receiver.cli.main import main as fullsendd_main

if TYPE_CHECKING:
    import pathlib

    from tests.zfs.pools import Pool

_VOLUME: Final = 3  # dmu_objset_type_t
_UNREADABLE: Final = {Feature.RAW, Feature.REDACTED, Feature.RESUMING}


@dataclass(frozen=True, eq=False)
class OneSnapshot:
    """A stream of one snapshot, perhaps with properties around it. `base`: a GUID; 0: a full."""

    name: str
    raw: bytes
    guid: int
    base: int
    volume: bool


def one_snapshot(name: str, raw: bytes) -> OneSnapshot | None:
    """Return what the stream is, or None if `fullsendd ls` says in one line that it cannot be read."""
    begins = [
        raw[each.start : each.end]
        for each in streams.split(raw)
        if each.kind is RecordType.BEGIN and raw[each.start + 16] & 3 == streams.SUBSTREAM
    ]
    if len(begins) != 1:
        return None
    (versioninfo,) = struct.unpack_from("<Q", begins[0], 16)
    if any(versioninfo >> 2 & 1 << feature for feature in _UNREADABLE):
        return None
    kind, _flags, guid, base = struct.unpack_from("<IIQQ", begins[0], 32)
    return OneSnapshot(name, raw, guid, base, kind == _VOLUME)


def everything() -> Iterator[tuple[str, bytes]]:
    for stream in streams.whole():
        yield stream.name, stream.read()
    for chain in chains.chains():
        for name, raw in chain.run(None, chain.snapshots - 1):
            yield f"{chain.name}/{name}", raw


def line_of(stream: OneSnapshot, by_guid: dict[int, OneSnapshot]) -> list[OneSnapshot]:
    """Return the streams from a full to this one; none if one of them is not there."""
    line = [stream]
    while line[0].base:
        base = by_guid.get(line[0].base)
        if base is None:
            return []
        line.insert(0, base)
    return line


def fullsendd(*arguments: str | pathlib.Path) -> None:
    programs.good(programs.run_inside(fullsendd_main, *map(str, arguments), env={}))


@pytest.mark.timeout(2400)
def test_what_is_read_is_what_is_received(pool: Pool, other_pool: Pool, tmp_path: pathlib.Path) -> None:
    found: dict[bytes, OneSnapshot] = {}  # by its bytes: many are in two places
    for name, raw in everything():
        stream = one_snapshot(name, raw)
        if stream is not None:
            found.setdefault(hashlib.sha256(raw).digest(), stream)
    by_guid: dict[int, OneSnapshot] = {}
    for stream in found.values():  # a full is read instead of the line that leads to the same snapshot
        if not stream.base or stream.guid not in by_guid:
            by_guid[stream.guid] = stream
    compared, different = 0, []
    other_pool.create("out")
    for number, stream in enumerate(found.values()):
        line = line_of(stream, by_guid)
        if not line:
            continue
        compared += 1
        received = pool.full(f"in{number}")
        files: list[str | pathlib.Path] = []
        for place, each in enumerate(line):
            pool.receive(each.raw, "-u", received)
            files += ["--file", proven(tmp_path / f"{number}.{place}", each.raw)]
        if stream.volume:
            image = tmp_path / "image"
            fullsendd("get", *files, "--volume", image)
            with pools.device(received).open("rb") as disk:
                same = hashlib.file_digest(disk, "sha256").digest() == hashlib.sha256(image.read_bytes()).digest()
            image.unlink()
        else:
            pool.mount(f"in{number}")
            out = other_pool.path("out") / str(number)
            fullsendd("get", *files, "--special", "--setuid", "--into", out, "/")
            same = pools.tree(out) == pools.tree(pool.path(received))
        if not same:
            different.append(stream.name)
        pools.zfs("destroy", "-r", received)
    assert different == []
    print(f"{compared} streams of {len(found)} compared")
    assert compared >= 20


@pytest.mark.timeout(1200)
def test_each_snapshot_of_a_package_is_the_one_that_is_received(
    pool: Pool, other_pool: Pool, tmp_path: pathlib.Path
) -> None:
    raw = next(stream.read() for stream in streams.whole() if stream.name == "tree-R")
    file = proven(tmp_path / "tree-R.zfs", raw)
    received = pool.full("tree")
    pool.receive(raw, "-u", received)
    walker = Walker()
    while walker.offset < len(raw):
        walker.walk(raw, walker.offset, len(raw), len(raw))
    names = [begin.name for begin in walker.begins if not begin.compound]
    assert len(names) > 8
    other_pool.create("out")
    for number, name in enumerate(names):
        dataset, _at, snapshot = name.removeprefix("tank/tree").partition("@")
        if not number or dataset != names[number - 1].removeprefix("tank/tree").partition("@")[0]:
            pool.mount(f"tree{dataset}")
        out = other_pool.path("out") / str(number)
        fullsendd("get", "--file", file, "--snapshot", name, "--special", "--setuid", "--into", out, "/")
        assert pools.tree(out) == pools.tree(pool.path(f"tree{dataset}") / ".zfs" / "snapshot" / snapshot)
