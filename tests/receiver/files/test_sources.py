"""Where a snapshot's records come from, and that nothing unproven passes."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pytest
from tests.data import load
from tests.file_trees import FOLDER, Tree, raw
from tests.receiver.helpers import SENDER, make_store, store_stream

from fullsend_protocol.shared.errors import StreamError, UnsupportedStream
from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.files.sources import FileSource, SnapshotSource, StoredSource, StreamRemoved
from fullsend_receiver.maintenance.merge_inputs import InputDamaged, InputSpoilt

if TYPE_CHECKING:
    from pathlib import Path


def read(source: SnapshotSource) -> int:
    with source.opened() as reader:
        return sum(1 for _kind in reader.records())


def stored(tmp_path: Path, *names: str) -> StoredSource:
    store = make_store(tmp_path)
    for name in names:
        store_stream(store, SENDER, raw(FOLDER / f"{name}.zfs.zst"))
    catalogue = read_catalogue(store, SENDER)
    return StoredSource(store, [each.summary for each in catalogue.chain(catalogue.streams[-1])])


def test_files_in_any_order_and_a_stored_chain_have_the_same_records(tmp_path: Path) -> None:
    paths = [FOLDER / "sa_Lec-incr.zfs.zst", FOLDER / "sa_Lec-full.zfs.zst"]
    source = stored(tmp_path, "sa_Lec-full", "sa_Lec-incr")
    assert source.name == f"{SENDER}/tank/sa@s2"
    assert read(source) == read(FileSource.of(paths)) > 200
    assert FileSource.of(paths).key is None


def test_the_key_names_the_chain(tmp_path: Path) -> None:
    source = stored(tmp_path, "sa_Lec-full", "sa_Lec-incr")
    assert source.key == StoredSource(source.store, list(source.chain)).key
    assert source.key != StoredSource(source.store, source.chain[:1]).key


def test_an_increment_alone_names_what_is_missing() -> None:
    with pytest.raises(UnsupportedStream, match=r"without it; name that file, too"):
        FileSource.of([FOLDER / "sa_Lec-incr.zfs.zst"])


def test_a_file_that_is_not_the_proven_one(tmp_path: Path) -> None:
    path = Tree().written(tmp_path / "a.zfs")
    path.with_name("a.zfs.sha256").write_text(f"{'0' * 64}  a.zfs\n")
    with pytest.raises(InputDamaged, match=r"a\.zfs is damaged"):
        read(FileSource.of([path]))


def test_a_chain_that_was_pruned_meanwhile_says_so(tmp_path: Path) -> None:
    """It is not damaged: the same question, asked again, finds what a merge has made of it."""
    source = stored(tmp_path, "sa_Lec-full", "sa_Lec-incr")
    files = [PurePosixPath(each.path) for each in source.chain]
    count = read(source)
    with source.opened() as reader:  # all of it is open from here on
        source.store.remove(lambda: files)
        assert sum(1 for _kind in reader.records()) == count
    with pytest.raises(StreamRemoved, match=r"^alpha/tank/sa@s2: .*full.*zst was dropped, or merged, meanwhile: run"):
        read(source)


def test_a_stored_stream_that_is_damaged(tmp_path: Path) -> None:
    source = stored(tmp_path, "sa_Lec-full")
    path = source.store.root / source.chain[0].path  # type: ignore[attr-defined]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises((InputSpoilt, StreamError)):
        read(source)


# --- packages --------------------------------------------------------------------------------------------------


def begun(source: SnapshotSource) -> str:
    """The stream that is read of a source."""
    with source.opened() as reader:
        return reader.name.rpartition(", ")[2]


@pytest.mark.slow
def test_a_snapshot_of_a_package(tmp_path: Path) -> None:
    path = load.HERE / "tree-R.zfs.zst"
    names = [each["toname"] for each in load.STREAMS["tree-R"]["begins"][1:]]
    assert len(names) > 8
    for name in names:
        source = FileSource.of([path], name)
        assert begun(source) == name
        assert read(source) > 2
    assert begun(FileSource.of([path])) == "tank/tree@end"
    store = make_store(tmp_path)
    store_stream(store, SENDER, load.stream("tree-R"))
    (stored_package,) = read_catalogue(store, SENDER).streams
    whole = StoredSource(store, [stored_package.summary])
    assert (begun(whole), whole.name) == ("tank/tree@end", f"{SENDER}/tank/tree@end")
    child = StoredSource(store, [stored_package.summary], "tank/tree/child@mid")
    assert (begun(child), child.name) == ("tank/tree/child@mid", f"{SENDER}/tank/tree/child@mid")
    assert read(child) == read(FileSource.of([path], "tank/tree/child@mid"))
    assert child.key != whole.key


@pytest.mark.parametrize("names", [["full", "all-I"], ["all-I", "full"]])
def test_a_full_and_a_package_of_increments(names: list[str]) -> None:
    files = [load.HERE / f"{name}.zfs.zst" for name in names]
    parts = [load.HERE / f"{name}.zfs.zst" for name in ("full", "incr", "incr-2")]
    assert begun(FileSource.of(files)) == "tank/plain@s3"
    assert read(FileSource.of(files)) == read(FileSource.of(parts))
    assert read(FileSource.of(files, "tank/plain@s2")) == read(FileSource.of(parts[:2]))


def test_a_snapshot_that_a_package_has_not() -> None:
    path = load.HERE / "tree-R.zfs.zst"
    with pytest.raises(UnsupportedStream, match=r"has no tank/tree@gone: it has tank/tree@old, tank/tree@base, "):
        read(FileSource.of([path], "tank/tree@gone"))
    with pytest.raises(UnsupportedStream, match=r"tank/plain@s2 is an increment on the snapshot with GUID \d+: its"):
        read(FileSource.of([load.HERE / "all-I.zfs.zst"]))
