"""The image of a volume."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from tests.file_trees import FOLDER, VOLUMES, Tree, proven, volume

from fullsend_protocol.shared.errors import OutputExists, OutputFailed, StreamError, UnsupportedStream
from fullsend_receiver.files.image import write_image
from fullsend_receiver.files.index import FileIndex
from fullsend_receiver.files.sources import FileSource

if TYPE_CHECKING:
    from pathlib import Path


def written(source: FileSource, path: Path) -> int:
    with source.opened() as reader:
        index = FileIndex.build(reader, None)
    return write_image(source, index, path)


@pytest.mark.parametrize(("snapshot", "names"), [("s1", ["full"]), ("s2", ["full", "incr"])])
def test_a_genuine_volume_has_the_bytes_of_the_block_device(snapshot: str, names: list[str], tmp_path: Path) -> None:
    source = FileSource.of([FOLDER / f"vol_c-{name}.zfs.zst" for name in names])
    assert written(source, tmp_path / "image") == 16 << 20
    data = (tmp_path / "image").read_bytes()
    assert hashlib.sha256(data).hexdigest() == VOLUMES[snapshot]
    found = (tmp_path / "image").stat()
    assert found.st_blocks * 512 < found.st_size
    assert list(tmp_path.iterdir()) == [tmp_path / "image"]


def test_blocks_behind_the_end_do_not_count(tmp_path: Path) -> None:
    path = proven(tmp_path / "v.zfs", volume(700, {0: b"a" * 512, 512: b"b" * 512, 1024: b"c" * 512}))
    written(FileSource.of([path]), tmp_path / "image")
    assert (tmp_path / "image").read_bytes() == b"a" * 512 + b"b" * 188


def test_nothing_is_there_when_the_stream_is_not_proven(tmp_path: Path) -> None:
    path = proven(tmp_path / "v.zfs", volume(1024, {0: b"a" * 512}))
    source = FileSource.of([path])
    with source.opened() as reader:
        index = FileIndex.build(reader, None)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(StreamError):
        write_image(source, index, tmp_path / "image")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["v.zfs", "v.zfs.sha256"]


def test_what_cannot_be_written(tmp_path: Path) -> None:
    source = FileSource.of([proven(tmp_path / "v.zfs", volume(1024, {0: b"a" * 512}))])
    (tmp_path / "there").touch()
    with pytest.raises(OutputExists):
        written(source, tmp_path / "there")
    with pytest.raises(OutputFailed, match="cannot be written"):
        written(source, tmp_path / "none" / "image")
    with pytest.raises(UnsupportedStream, match="is a file system"):
        written(FileSource.of([Tree().written(tmp_path / "f.zfs")]), tmp_path / "image")
