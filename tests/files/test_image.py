"""The image of a volume: a file of its own, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fullsend_files.image import Image
from fullsend_protocol.shared.errors import OutputExists, OutputFailed

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 100 << 30


def test_holes_take_no_space(tmp_path: Path) -> None:
    image = Image(tmp_path / "image")
    image.volume(SIZE)
    image.data(SIZE - 512, memoryview(b"b" * 512))
    image.data(4096, b"a" * 512)
    assert not (tmp_path / "image").exists()
    image.publish()
    assert list(tmp_path.iterdir()) == [tmp_path / "image"]
    found = (tmp_path / "image").stat()
    assert found.st_size == SIZE
    assert found.st_blocks * 512 < 1 << 20
    with (tmp_path / "image").open("rb") as file:
        file.seek(4096)
        assert file.read(513) == b"a" * 512 + b"\0"
        file.seek(SIZE - 512)
        assert file.read() == b"b" * 512


def test_what_is_discarded_is_gone(tmp_path: Path) -> None:
    image = Image(tmp_path / "image")
    image.volume(SIZE)
    image.data(0, b"a")
    image.discard()
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    with pytest.raises(OutputExists, match="is there already"):
        Image(tmp_path / "there")
    image = Image(tmp_path / "image")
    (tmp_path / "image").write_bytes(b"mine")
    with pytest.raises(OutputExists, match="was made meanwhile"):
        image.publish()
    assert (tmp_path / "image").read_bytes() == b"mine"
    assert len(list(tmp_path.iterdir())) == 2


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputFailed, match="cannot be written"):
        Image(tmp_path / "none" / "image")
    image = Image(tmp_path / "image")
    image.volume((1 << 63) - 1)
    with pytest.raises(OutputFailed, match="cannot be written"):
        image.data((1 << 63) - 1, b"x")
    image.discard()
