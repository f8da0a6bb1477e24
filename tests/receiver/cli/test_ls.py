"""`fullsendd ls` as its user sees it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.data import load
from tests.file_trees import FOLDER, TREES, Tree, proven, raw, volume
from tests.receiver.command import fails
from tests.receiver.helpers import SENDER, store_stream

from fullsend_receiver.cli import main
from fullsend_receiver.store.local import LocalStore

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from tests.receiver.running import Receiver

FULL = str(FOLDER / "sa_Lec-full.zfs.zst")


def test_a_folder_of_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["ls", "--file", FULL, "/a/b"]) == 0
    names = capsys.readouterr().out.splitlines()
    assert names[:4] == ["c", "f00", "f01", "f02"]
    assert names[-2:] == ["hard", "sym"]
    assert main.main(["ls", "--file", FULL]) == 0
    assert "bad-\\udcff\\udcfe" in capsys.readouterr().out.splitlines()


def test_the_long_form(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["ls", "-l", "--file", FULL, "a/b/sym", "a/tiny", "a/blk"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "lrwxrwxrwx   1    33    44            9 2026-11-28T16:17:39Z a/b/sym -> ../a/text",
        "-rw-rw-r--   1  1000  2000           40 2001-09-09T01:46:39Z a/tiny",
        "brw-------   1     0     0    259,70000 2026-11-28T16:17:39Z a/blk",
    ]


def test_all_as_json_and_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    listing = TREES[0].listing()
    assert main.main(["ls", "-R", "--json", "--file", FULL]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == len(listing)
    (row,) = (row for row in rows if row["path"] == "a/tiny")
    assert (row["mode"], row["xattrs"]["security.x"]) == ("100664", "000102")
    assert main.main(["ls", "--name", "f0[12]", "--name", "sp*", "--file", FULL, "a"]) == 0
    assert capsys.readouterr().out.splitlines() == ["a/b/f01", "a/b/f02", "a/sparse"]


def test_a_stored_chain_and_its_index(receiver: Receiver) -> None:
    store = LocalStore(receiver.store)
    for name in ("full", "incr"):
        store_stream(store, SENDER, raw(FOLDER / f"sa_Lec-{name}.zfs.zst"))
    expected = sorted(path for path in TREES[1].listing() if path.startswith(b"c-elsewhere/"))
    for _ in range(2):  # the second time from the index
        done = receiver.fullsendd("ls", "-R", f"{SENDER}/tank/sa@s2", "c-elsewhere")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.encode().splitlines() == expected
        assert len(list((receiver.store / ".state" / "files").iterdir())) == 1
    done = receiver.fullsendd("ls", f"{SENDER}/tank/sa@s1", "a/none")
    assert done.stdout == "a/none\n"
    fails(receiver.fullsendd("ls", f"{SENDER}/tank/sa@s3"), 1, "no such stream is stored")
    fails(receiver.fullsendd("ls", f"{SENDER}/tank/sa@s1", "nothing"), 1, "nothing: no such file in alpha/tank/sa@s1")
    assert receiver.fullsendd("check").returncode == 0


def test_a_volume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(proven(tmp_path / "v", volume(1 << 20, {})))
    assert main.main(["ls", "--file", path]) == 0
    said = capsys.readouterr()
    assert said.out == "a volume of 1.0 MiB\n"
    assert "get --volume" in said.err
    assert main.main(["ls", "--json", "--file", path]) == 0
    assert json.loads(capsys.readouterr().out) == {"volume": 1 << 20}


def test_names_are_safe_for_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = Tree()
    tree.symlink(tree.root, b"\x1b[31m\n", b"\x07")
    assert main.main(["ls", "-l", "--file", str(tree.written(tmp_path / "s"))]) == 0
    out = capsys.readouterr().out
    assert out.endswith("\\x1b[31m\\n -> \\x07\n")


def test_what_cannot_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    for names, code, says in (
        (["--file", str(FOLDER / "version4-full.zfs.zst")], 1, "of ZPL version 4"),
        (["--file", str(FOLDER / "sa_Lec-incr.zfs.zst")], 1, "name that file, too"),
        ([], 2, "name a stored snapshot"),
    ):
        assert main.main(["ls", *names]) == code
        said = capsys.readouterr()
        assert said.out == ""
        assert says in said.err
        assert said.err.count("\n") == 1


def test_a_snapshot_of_a_package(receiver: Receiver) -> None:
    path = str(load.HERE / "tree-R.zfs.zst")
    child = receiver.fullsendd("ls", "--file", path, "--snapshot", "tank/tree/late@own").stdout
    assert child.split()
    assert receiver.fullsendd("ls", "--file", path).stdout not in {"", child}
    store_stream(LocalStore(receiver.store), SENDER, load.stream("tree-R"))
    stored = ("ls", f"{SENDER}/tank/tree@end", "--snapshot")
    for _time in range(2):
        assert receiver.fullsendd(*stored, "tank/tree/late@own").stdout == child
    says = "has no tank/tree@gone: it has tank/tree@old"
    fails(receiver.fullsendd("ls", "--file", path, "--snapshot", "tank/tree@gone"), 1, says)
    fails(receiver.fullsendd(*stored, "tank/tree@gone"), 1, says)
