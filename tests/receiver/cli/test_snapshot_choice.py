"""The snapshot that a command line names."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import pytest
from tests.file_trees import FOLDER, raw
from tests.receiver.helpers import SENDER, make_store, store_stream

from fullsend_protocol.shared.errors import UsageError
from fullsend_receiver.catalogue.streams import Damaged, NoSuchStream
from fullsend_receiver.cli.snapshot_choice import add_snapshot, open_snapshot, stored_source

if TYPE_CHECKING:
    from pathlib import Path


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_snapshot(parser)
    return parser.parse_args(arguments)


def test_files_leave_all_words_to_paths() -> None:
    source, index, paths = open_snapshot(parsed("-f", str(FOLDER / "sa_Lec-full.zfs.zst"), "a", "b/c"))
    assert source.key is None
    assert index.lookup(b"a").is_directory
    assert paths == [b"a", b"b/c"]


def test_nothing_at_all() -> None:
    with pytest.raises(UsageError, match="name a stored snapshot"):
        open_snapshot(parsed())


def test_a_stored_snapshot_comes_with_its_chain(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    full, _incr = (store_stream(store, SENDER, raw(FOLDER / f"vol_c-{name}.zfs.zst")) for name in ("full", "incr"))
    assert [each.snapshot for each in stored_source(store, f"{SENDER}/tank/vol@s2").chain] == ["s1", "s2"]
    assert [each.snapshot for each in stored_source(store, f"{SENDER}/tank/vol@s1").chain] == ["s1"]
    with pytest.raises(NoSuchStream):
        stored_source(store, f"{SENDER}/tank/vol@s3")
    (store.root / full).unlink()
    with pytest.raises(Damaged, match=r"its files cannot be read: .* is damaged"):
        stored_source(store, f"{SENDER}/tank/vol@s2")
