"""Files with streams become one: proven, or not at all."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import random
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zstandard
from tests import streams
from tests.chains import Chain, chains
from tests.chains import named as chain_named
from tests.receiver.helpers import checked, manifest_path
from tests.receiver.helpers import decode as decoded
from tests.receiver.maintenance.test_merge_inputs import put

from fullsend_protocol.format.manifest import Manifest
from fullsend_protocol.shared.errors import (
    ChunkError,
    OutputExists,
    OutputFailed,
    StreamError,
)
from fullsend_protocol.stream import facts
from fullsend_protocol.stream.chunks import Compressor
from fullsend_protocol.stream.merge import MergeInput, merge
from fullsend_protocol.stream.records import Walker
from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.maintenance import merge_files
from fullsend_receiver.maintenance.merge_files import write_packed
from fullsend_receiver.maintenance.merge_inputs import InputDamaged, MergeFile, in_order
from fullsend_receiver.store.blob import LocalBlob
from fullsend_receiver.store.durable import replace_file
from fullsend_receiver.store.names import stream_file

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fullsend_receiver.store.local import LocalStore

HEADER = 312


def merge_into(path: Path, inputs: Iterable[Path], **options: Any) -> merge_files.Packed:
    files = in_order([MergeFile(each) for each in inputs])
    pieces = merge([MergeInput(str(each.path), each.pieces()) for each in files])
    return write_packed(path, pieces, **{"level": 1, "merged": files, "sender": None, **options})


@pytest.mark.parametrize("chain", chains(), ids=lambda chain: chain.name)
def test_a_drawer_of_files_becomes_what_zfs_send_gives(chain: Chain, tmp_path: Path) -> None:
    last = chain.snapshots - 1
    inputs = [chain.folder / f"{name}.zfs.zst" for name, _raw in chain.run(None, last)]
    done = merge_into(tmp_path / "out.zfs.zst", inputs)
    data = done.path.read_bytes()
    assert hashlib.sha256(decoded(data)).hexdigest() == done.sha256 == chain.genuine(None, last)
    assert done.stored_bytes == len(data)
    subprocess.run(["sha256sum", "-c", "--quiet", "out.zfs.zst.sha256"], cwd=tmp_path, check=True)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["out.zfs.zst", "out.zfs.zst.sha256"]


def test_any_order_and_any_packing(tmp_path: Path) -> None:
    chain = chain_named("t1-plain")
    paths = put(tmp_path / "in", chain.run(None, 2))
    frames = zstandard.ZstdCompressor().compress(paths[1].read_bytes()[:5000])
    frames += zstandard.ZstdCompressor().compress(paths[1].read_bytes()[5000:])
    paths[1].write_bytes(b"\x50\x2a\x4d\x18\4\0\0\0skip" + frames)
    for order in itertools.permutations(paths):
        done = merge_into(tmp_path / f"{hash(order)}.zst", order)
        assert done.sha256 == chain.genuine(None, 2)


def test_a_store_takes_the_file_with_its_manifest(store: LocalStore) -> None:
    chain = chain_named("t1-plain")
    inputs = [chain.folder / f"{name}.zfs.zst" for name, _raw in chain.run(None, 2)]
    newest = chain.run(1, 2)[0][1]
    walker = Walker()
    walker.walk(newest, 0, len(newest), len(newest) + 1)
    file = stream_file("alpha", replace(facts.conclude(walker.begins), base_guid=None, kind="full"))
    (store.root / file).parent.mkdir(parents=True)
    merge_into(store.root / file, inputs, sender="alpha")
    manifest = Manifest.model_validate_json(manifest_path(store, file).read_bytes())
    assert (manifest.sender, manifest.kind, manifest.proven_by) == ("alpha", "full", "merge")
    assert [each.file for each in manifest.merged] == [each.name for each in inputs]
    assert [each.sha256 for each in manifest.merged] == [
        hashlib.sha256(raw).hexdigest() for _name, raw in chain.run(None, 2)
    ]
    assert (manifest.merged[0].base_guid, manifest.merged[-1].guid) == (None, manifest.guid)
    (stored,) = read_catalogue(store, "alpha").streams
    assert checked(store, stored).verdict == "whole"


# --- proof -----------------------------------------------------------------------------------------------------


def test_how_each_input_is_proven(tmp_path: Path) -> None:
    chain = chain_named("t1-plain")
    (plain,) = put(tmp_path / "plain", chain.run(None, 1)[:1])
    (known,) = put(tmp_path / "known", chain.run(None, 1)[1:], hashes=True)
    assert [MergeFile(each).proof for each in (plain, known)] == ["checksums", "sha256"]
    merge_into(tmp_path / "a.zfs.zst", [plain, known], sender="alpha")
    (tmp_path / "a.zfs.zst.sha256").unlink()
    assert MergeFile(tmp_path / "a.zfs.zst").proof == "sha256"  # by its manifest
    known.with_name(f"{known.name}.sha256").write_text(f"{'0' * 64} *other\n")
    with pytest.raises(InputDamaged, match=r"incr-0-1\.zfs\.sha256 has no SHA-256 of incr-0-1\.zfs: remove it"):
        MergeFile(known)
    (tmp_path / "a.zfs.zst.json").write_text("{}")
    with pytest.raises(InputDamaged, match=r"a\.zfs\.zst\.json is not a manifest: remove it"):
        MergeFile(tmp_path / "a.zfs.zst")


@pytest.mark.slow
@pytest.mark.parametrize("hashes", [False, True], ids=["checksums", "sha256"])
@pytest.mark.parametrize("name", ["t1-plain", "t2-enc2-w"])
def test_damage_anywhere_is_never_published(name: str, tmp_path: Path, *, hashes: bool) -> None:
    runs = chain_named(name).run(None, 2)
    paths = put(tmp_path / "in", runs, hashes=hashes)
    out = tmp_path / "out"
    out.mkdir()
    r = random.Random(3)
    for _attempt in range(30):
        number = r.randrange(len(runs))
        raw = bytearray(runs[number][1])
        record = r.choice(streams.split(bytes(raw)))
        at = r.randrange(record.start, r.choice([record.start + HEADER, record.end]))
        raw[at] ^= 1 << r.randrange(8)
        paths[number].write_bytes(raw)
        with pytest.raises(StreamError, match=paths[number].name.replace(".", r"\.")):
            merge_into(out / "x.zst", paths, sender="alpha")
        assert list(out.iterdir()) == []
        assert [each.read_bytes() for each in paths] == [
            bytes(raw) if each == number else run[1] for each, run in enumerate(runs)
        ]
        paths[number].write_bytes(runs[number][1])


def test_damage_in_a_compressed_file(tmp_path: Path) -> None:
    runs = chain_named("t1-plain").run(None, 1)
    paths = put(tmp_path / "in", runs)
    data = zstandard.ZstdCompressor(write_checksum=True).compress(runs[1][1])
    paths[1] = paths[1].with_name("incr.zst")
    for at in range(100, len(data), len(data) // 20):
        paths[1].write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        with pytest.raises(StreamError, match=r"incr\.zst"):
            merge_into(tmp_path / "x.zst", paths)
    paths[1].write_bytes(data[: len(data) // 2])
    with pytest.raises(StreamError, match=r"incr\.zst ends before its END record"):
        merge_into(tmp_path / "x.zst", paths)
    assert not (tmp_path / "x.zst").exists()


def test_a_disk_that_gives_back_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where zstd's own checksum does not see it: memory that changes what is written."""
    paths = put(tmp_path / "in", chain_named("t1-plain").run(None, 1))
    real = Compressor.compress

    def otherwise(self: Compressor, raw: bytearray) -> bytes:
        changed = bytearray(raw)
        changed[1000] ^= 1
        return real(self, changed)

    monkeypatch.setattr(Compressor, "compress", otherwise)
    with pytest.raises(ChunkError, match="what was written reads back otherwise"):
        merge_into(tmp_path / "x.zst", paths)
    assert [each.name for each in tmp_path.iterdir()] == ["in"]


# --- what goes wrong -------------------------------------------------------------------------------------------


def test_what_is_there_is_not_replaced(tmp_path: Path) -> None:
    paths = put(tmp_path / "in", chain_named("t1-plain").run(None, 1))
    out = tmp_path / "x.zst"
    out.write_bytes(b"precious")
    with pytest.raises(OutputExists, match="is there already"):
        merge_into(out, paths)
    out.unlink()

    def meanwhile() -> Iterable[bytes]:
        out.write_bytes(b"precious")
        yield from streams.named("full").path.exists() * [streams.named("full").read()]

    with pytest.raises(OutputExists, match="was made meanwhile"):
        write_packed(out, meanwhile(), level=1, merged=[], sender="alpha")
    assert out.read_bytes() == b"precious"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["in", "x.zst"]


@pytest.mark.parametrize("suffix", [".sha256", ".json"])
def test_a_file_beside_it_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    paths = put(tmp_path / "in", chain_named("t1-plain").run(None, 1))
    real = replace_file

    def full(path: Path, data: bytes) -> None:
        if path.suffix == suffix:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, data)

    monkeypatch.setattr(merge_files, "replace_file", full)
    with pytest.raises(OutputFailed, match="cannot be written: No space left"):
        merge_into(tmp_path / "x.zst", paths, sender="alpha")
    assert [each.name for each in tmp_path.iterdir()] == ["in"]


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = put(tmp_path / "in", chain_named("t1-plain").run(None, 1))

    def full(descriptor: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(merge_files, "write_all", full)
    with pytest.raises(OutputFailed, match=r"x\.zst cannot be written: No space left on device"):
        merge_into(tmp_path / "x.zst", paths)
    assert [each.name for each in tmp_path.iterdir()] == ["in"]


def test_what_was_written_is_read_from_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not from memory: the kernel is told to forget it first."""
    forgotten = []
    monkeypatch.setattr(LocalBlob, "forget", lambda _self, start, size: forgotten.append((start, size)))
    done = merge_into(tmp_path / "x.zst", put(tmp_path / "in", chain_named("t1-plain").run(None, 1)))
    assert forgotten == [(0, done.stored_bytes)]
