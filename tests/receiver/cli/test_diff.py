"""`fullsendd diff` as its user sees it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import pytest
from tests.file_trees import FOLDER, Tree, proven, raw, volume
from tests.receiver.command import fails
from tests.receiver.helpers import SENDER, store_stream

from fullsend_receiver.cli import main
from fullsend_receiver.store.local import LocalStore

if TYPE_CHECKING:
    from pathlib import Path

    from tests.receiver.running import Receiver

FULL: Final = str(FOLDER / "sa_Lec-full.zfs.zst")
INCREMENT: Final = str(FOLDER / "sa_Lec-incr.zfs.zst")
FILES: Final = ("--from", FULL, "--to", INCREMENT, "--to", FULL)


def out(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main.main(["diff", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def test_lines_are_those_of_zfs_diff(capsys: pytest.CaptureFixture[str]) -> None:
    genuine = (FOLDER / "sa.diff").read_text().splitlines()
    assert sorted(out(capsys, "-FH", "--prefix", "/tank/sa/", *FILES)) == sorted(genuine)
    bare = [line.replace("/tank/sa", "") for line in genuine]
    without = [line.split("\t") for line in bare]
    plain = [f"{kind}\t{' -> '.join(paths)}" for kind, _type, *paths in without]
    assert sorted(out(capsys, *FILES)) == sorted(plain)


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [json.loads(line) for line in out(capsys, "--json", *FILES)]
    assert len(rows) == 42
    (moved,) = (row for row in rows if row["path"] == "/a/b/c")
    assert (moved["change"], moved["type"], moved["new_path"]) == ("renamed", "/", "/c-elsewhere")
    assert {row["change"] for row in rows} == {"created", "removed", "changed", "renamed"}
    assert all(row["object"] and row["generation"] and row["ctime"] for row in rows)


def test_names_are_safe_and_what_has_none_is_null(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = Tree(), Tree()
    new.file(new.root, b"\x1b[31m\t\xff")
    gone = new.node(0o100644)
    gone["ZPL_LINKS"] = bytes(8)
    new.put(None, b"", gone)
    files = ["--from", str(old.written(tmp_path / "o")), "--to", str(new.written(tmp_path / "n"))]
    assert out(capsys, *files) == ["+\t/\\0033[31m\\0011\\0377", "+\t(on_delete_queue)"]
    rows = [json.loads(line) for line in out(capsys, "--json", *files)]
    assert [row["path"] for row in rows] == ["/\x1b[31m\t\udcff", None]


def test_more_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = []
    for names in (1, 2):
        tree = Tree()
        attributes = tree.node(0o100644)
        attributes["ZPL_LINKS"] = names.to_bytes(8, "little")
        attributes["ZPL_CTIME"] = bytes([names]).ljust(16, b"\0")
        number = tree.put(tree.root, b"a", attributes)
        if names > 1:
            tree.directories[tree.root][b"b"] = number
        files.append(str(tree.written(tmp_path / str(names))))
    assert out(capsys, "--from", files[0], "--to", files[1]) == ["M\t/a\t(+1)"]
    (row,) = out(capsys, "--json", "--from", files[0], "--to", files[1])
    assert json.loads(row)["links"] == 1


def test_stored_snapshots(receiver: Receiver) -> None:
    store = LocalStore(receiver.store)
    for name in ("full", "incr"):
        store_stream(store, SENDER, raw(FOLDER / f"sa_Lec-{name}.zfs.zst"))
    for second in (f"{SENDER}/tank/sa@s2", "@s2"):
        done = receiver.fullsendd("diff", "-FH", "--prefix=/tank/sa", f"{SENDER}/tank/sa@s1", second)
        assert (done.returncode, done.stderr) == (0, "")
        assert sorted(done.stdout.splitlines()) == sorted((FOLDER / "sa.diff").read_text().splitlines())
    fails(receiver.fullsendd("diff", f"{SENDER}/tank/sa@s1", "@s3"), 1, "no such stream is stored")


def test_what_cannot_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = str(proven(tmp_path / "v", volume(1 << 20, {})))
    encrypted = str(FOLDER.parent / "full-enc-w.zfs.zst")
    for arguments, code, says in (
        ([], 2, "name two stored snapshots"),
        (["a/b@c"], 2, "name two stored snapshots"),
        (["--from", FULL], 2, "name two stored snapshots"),
        (["--from", FULL, "--to", image], 1, "is a volume"),
        (["--from", FULL, "--to", str(FOLDER / "dir_c-full.zfs.zst")], 1, "not of one file system"),
        (["--from", FULL, "--to", encrypted], 1, "only its ZFS host has"),
    ):
        assert main.main(["diff", *arguments]) == code, arguments
        said = capsys.readouterr()
        assert said.out == ""
        assert says in said.err
        assert said.err.count("\n") == 1
