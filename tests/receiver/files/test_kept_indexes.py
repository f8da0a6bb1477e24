"""Indexes that are kept: made once, made anew when lost or damaged."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest
from tests.file_trees import Tree

from fullsend_protocol.dataset.objects import ObjectReader
from fullsend_protocol.shared.errors import StreamError
from fullsend_receiver.files import kept_indexes
from fullsend_receiver.files.kept_indexes import index_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Counted:
    """A source that counts its passes."""

    name = "it"

    def __init__(self, data: bytes, key: str | None = "k") -> None:
        self.key = key
        self.passes = 0
        self._data = data

    @contextlib.contextmanager
    def opened(self) -> Iterator[ObjectReader]:
        self.passes += 1
        yield ObjectReader("it", [self._data])


def test_the_second_time_no_stream_is_read(tmp_path: Path) -> None:
    source, folder = Counted(Tree().stream()), tmp_path / "files"
    first = index_of(source, folder)
    second = index_of(source, folder)
    assert (source.passes, first.root) == (1, second.root)
    assert len(list(folder.iterdir())) == 1


def test_one_that_is_damaged_is_made_anew(tmp_path: Path) -> None:
    source = Counted(Tree().stream())
    index_of(source, tmp_path).close()
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"x" * 9999)
    assert index_of(source, tmp_path).root.number == 34
    assert source.passes == 2
    assert [*tmp_path.iterdir()] == [path]


def test_it_is_durable_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a power cut leaves one that is cut off, and each list of the snapshot fails from then on."""
    real, synced = os.fsync, list[tuple[int, list[str]]]()

    def fsync(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_ino, [each.suffix for each in tmp_path.iterdir()]))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    index_of(Counted(Tree().stream()), tmp_path).close()
    (path,) = tmp_path.iterdir()
    assert synced == [(path.stat().st_ino, [".tmp"])]


def test_nothing_is_kept_of_a_stream_that_is_not_proven(tmp_path: Path) -> None:
    source = Counted(Tree().stream()[:-312])
    with pytest.raises(StreamError):
        index_of(source, tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_is_kept_where_nothing_can_be(tmp_path: Path) -> None:
    for source, folder in ((Counted(Tree().stream(), None), tmp_path), (Counted(Tree().stream()), None)):
        index_of(source, folder)
        index_of(source, folder)
        assert source.passes == 2
    source = Counted(Tree().stream())
    (tmp_path / "file").touch()
    index_of(source, tmp_path / "file" / "files")
    assert source.passes == 1


def test_the_oldest_ones_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_indexes, "_KEPT_MAX", 2)
    left = tmp_path / ".left.tmp"
    left.touch()
    os.utime(left, (1, 1))
    for number, key in enumerate("abc"):
        index_of(Counted(Tree().stream(), key), tmp_path).close()
        made = next(path for path in tmp_path.iterdir() if path.name.startswith(key))
        os.utime(made, (1000 + number, 1000 + number))
    index_of(Counted(Tree().stream(), "d"), tmp_path)
    assert sorted(path.name[0] for path in tmp_path.iterdir()) == ["c", "d"]
