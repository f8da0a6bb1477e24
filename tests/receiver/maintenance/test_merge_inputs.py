"""Files as inputs of a merge: damage is named where it is, and what is not one chain is refused."""

from __future__ import annotations

import hashlib
import os
import shutil
from typing import TYPE_CHECKING

import pytest
from tests import streams
from tests.chains import named as chain_named

from fullsend_protocol.shared.errors import DamagedStream, UnsupportedStream
from fullsend_receiver.maintenance.merge_inputs import MergeFile, in_order, proving

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def put(folder: Path, runs: Iterable[tuple[str, bytes]], *, hashes: bool = False) -> list[Path]:
    """Write raw streams as somebody's files."""
    paths = []
    folder.mkdir(exist_ok=True)
    for name, raw in runs:
        path = folder / f"{name}.zfs"
        path.write_bytes(raw)
        if hashes:
            path.with_name(f"{path.name}.sha256").write_text(f"{hashlib.sha256(raw).hexdigest()}  {path.name}\n")
        paths.append(path)
    return paths


def test_damage_that_shows_in_another_file_is_named_where_it_is(tmp_path: Path) -> None:
    """Here the GUID of the full, on which another file builds."""
    paths = put(tmp_path / "in", chain_named("t1-plain").run(None, 1))
    raw = bytearray(paths[0].read_bytes())
    raw[40] ^= 1
    paths[0].write_bytes(raw)
    files = [MergeFile(each) for each in paths]
    with pytest.raises(UnsupportedStream, match=r"incr-0-1\.zfs builds on the snapshot"):
        in_order(files)
    with pytest.raises(DamagedStream, match=r"full-0\.zfs has a wrong checksum at"), proving(files):
        in_order(files)
    # Where all are whole the error stays what it is.
    raw[40] ^= 1
    paths[0].write_bytes(raw)
    with pytest.raises(UnsupportedStream, match="have the same snapshot"), proving(files[:1]):
        in_order([MergeFile(paths[0]), MergeFile(paths[0])])


def test_a_name_that_is_damaged_is_that_of_a_file(tmp_path: Path) -> None:
    (path,) = put(tmp_path / "in", chain_named("t1-plain").run(None, 0))
    raw = bytearray(path.read_bytes())
    raw[56] = 0xFF
    path.write_bytes(raw)
    with pytest.raises(DamagedStream, match=r"full-0\.zfs: BEGIN record at 0 with a name that is not UTF-8"):
        MergeFile(path)


def test_what_is_not_one_chain(tmp_path: Path) -> None:
    chain = chain_named("t1-plain")
    full, one, two, three = put(tmp_path, chain.run(None, 3))
    other = tmp_path / "copy.zfs"
    shutil.copy(one, other)

    def refused(*paths: Path) -> str:
        with pytest.raises(UnsupportedStream) as error:
            in_order([MergeFile(each) for each in paths])
        return str(error.value).replace(f"{tmp_path}/", "")

    assert refused(full, one, other) == "incr-0-1.zfs and copy.zfs have the same snapshot: name one of them"
    assert refused(full, two, three).startswith("incr-1-2.zfs builds on the snapshot with GUID ")
    others = put(tmp_path, [("other", streams.substream(guid=99, flags=12))])
    assert refused(full, *others) == "full-0.zfs and other.zfs are both fulls: name one of them"
    branch = put(tmp_path, [("branch", streams.substream(guid=98, base_guid=MergeFile(full).guid, flags=12))])
    assert refused(full, one, *branch) == "incr-0-1.zfs and branch.zfs build on the same snapshot: name one of them"


def test_a_pipe_cannot_be_read_twice(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnsupportedStream, match="pipe is not a file: what is merged is read twice"):
        MergeFile(tmp_path / "pipe")
