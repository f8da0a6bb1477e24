"""`fullsendd get` as its user sees it."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

from tests import forked
from tests.file_trees import FOLDER, TREES, VOLUMES, Tree, raw
from tests.receiver.command import damage, fails
from tests.receiver.helpers import SENDER, store_stream

from fullsend_files.folder import Folder
from fullsend_files.image import Image
from fullsend_files.troubles import Troubles, Wishes
from fullsend_protocol.wire.pack import PackReader, VolumeReader
from fullsend_receiver.cli import main
from fullsend_receiver.store.local import LocalStore

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from tests.receiver.running import Receiver

FULL = str(FOLDER / "sa_Lec-full.zfs.zst")


def fullsendd(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return forked.run("fullsend_receiver", arguments, os.environ)


def test_one_file_of_a_stored_chain(receiver: Receiver, tmp_path: Path) -> None:
    store = LocalStore(receiver.store)
    for name in ("full", "incr"):
        store_stream(store, SENDER, raw(FOLDER / f"sa_Lec-{name}.zfs.zst"))
    done = receiver.fullsendd("get", f"{SENDER}/tank/sa@s2", "/a/text", "--into", str(tmp_path / "out"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    data = (tmp_path / "out" / "a" / "text").read_bytes()
    assert hashlib.sha256(data).hexdigest() == TREES[1].listing()[b"a/text"]["sha256"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a"]


def test_damage_that_shows_in_the_second_pass_leaves_nothing(receiver: Receiver, tmp_path: Path) -> None:
    file = store_stream(LocalStore(receiver.store), SENDER, raw(FOLDER / "sa_Lec-full.zfs.zst"))
    assert receiver.fullsendd("ls", f"{SENDER}/tank/sa@s1").returncode == 0  # which makes the index
    damage(receiver, file, 60_000)
    out = tmp_path / "out"
    done = receiver.fullsendd("get", f"{SENDER}/tank/sa@s1", "/", "--into", str(out))
    fails(done, 1, f"what was written to {out} was not proven, and is removed")
    assert list(out.iterdir()) == []
    done = receiver.fullsendd("get", f"{SENDER}/tank/sa@s1", "/", "--tar", text=False)
    assert done.returncode == 1
    assert b"the archive is not proven, and was cut" in done.stderr  # type: ignore[operator]
    done = receiver.fullsendd("get", f"{SENDER}/tank/sa@s1", "/", "--pack=files", text=False)
    assert done.returncode == 1
    assert b"it is not proven, so nothing of it counts" in done.stderr  # type: ignore[operator]


def test_an_archive() -> None:
    done = fullsendd("get", "--file", FULL, "--tar", "a/b", "hard2", "--setuid")
    assert (done.returncode, done.stderr) == (0, b"")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        names = archive.getnames()
        assert "a/b/f00" in names
        assert "a/none" not in names
        member = archive.extractfile("hard2")
        assert member is not None
        assert hashlib.sha256(member.read()).hexdigest() == TREES[0].listing()[b"a/text"]["sha256"]


def test_what_is_left_out_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["get", "--file", FULL, "a", "--into", str(tmp_path / "o")]) == (0 if os.geteuid() == 0 else 1)
    said = capsys.readouterr().err
    assert "left out: 4 devices, fifos or sockets (--special makes them)" in said
    assert "without setuid or setgid bit: 2 files (--setuid keeps it)" in said
    assert (tmp_path / "o" / "a" / "random").stat().st_mode & 0o7777 == 0o751


def test_files_by_name(tmp_path: Path) -> None:
    assert main.main(["get", "--file", FULL, "--name", "f0?", "--into", str(tmp_path / "o")]) == 0
    found = [path.name for path in (tmp_path / "o").rglob("*") if path.is_file()]
    assert sorted(found) == [f"f0{number}" for number in range(10)]


def test_the_image_of_a_volume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [f"--file={FOLDER}/vol_c-{name}.zfs.zst" for name in ("incr", "full")]
    assert main.main(["get", *files, "--volume", str(tmp_path / "image")]) == 0
    assert hashlib.sha256((tmp_path / "image").read_bytes()).hexdigest() == VOLUMES["s2"]
    assert "16.0 MiB" in capsys.readouterr().err


def test_a_pack(capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> None:
    assert main.main(["get", "--file", FULL, "a/b", "hard2", "--pack", "files"]) == 0
    reader = PackReader(folder := Folder(tmp_path / "o", Wishes(), Troubles()))
    reader.feed(capfdbinary.readouterr().out)
    folder.publish()
    assert reader.ended
    data = (tmp_path / "o" / "hard2").read_bytes()
    assert hashlib.sha256(data).hexdigest() == TREES[0].listing()[b"a/text"]["sha256"]
    assert main.main(["get", f"--file={FOLDER}/vol_c-full.zfs.zst", "--pack", "volume"]) == 0
    volume = VolumeReader(image := Image(tmp_path / "image"))
    volume.feed(capfdbinary.readouterr().out)
    assert (volume.ended, volume.size) == (True, 16 << 20)
    image.publish()
    assert hashlib.sha256((tmp_path / "image").read_bytes()).hexdigest() == VOLUMES["s1"]
    assert main.main(["get", "--file", FULL, "--pack", "volume"]) == 1
    said = capfdbinary.readouterr()
    assert (said.out, b"is a file system, not a volume" in said.err) == (b"", True)


def test_usage(tmp_path: Path) -> None:
    into = ["--into", str(tmp_path / "o")]
    for arguments, says in (
        (["--file", FULL, *into], b"name the files, or / for all of them"),
        (["--file", FULL, "--name", "*.nothing", *into], b"has such a name"),
        (["--file", FULL, "--volume", "x", "a"], b"takes no paths"),
        (["--file", FULL, "--volume", "x", "--setuid"], b"excludes --name"),
        (["--file", FULL, "--pack", "volume", "--special"], b"excludes --name"),
        (["--file", FULL, "--pack", "files"], b"name the files, or / for all of them"),
        (["--file", FULL, "--pack", "files", *into, "/"], b"not allowed with"),
    ):
        done = fullsendd("get", *arguments)
        assert (done.returncode, done.stdout) == (2, b""), done.stderr
        assert says in done.stderr
    assert not (tmp_path / "o").exists()


def test_an_archive_is_not_written_to_a_terminal() -> None:
    ours, theirs = os.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "fullsend_receiver", "get", "--file", FULL, "--tar", "a"],
            stdout=theirs,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 2
    assert b"an archive is binary" in done.stderr


def test_what_cannot_be_made_fails_and_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = Tree()
    for number in range(25):
        tree.file(tree.root, b"%d" % number, ZPL_FLAGS=bytes(8), ZPL_DACL_ACES=bytes(8))
    assert main.main(["get", "--file", str(tree.written(tmp_path / "s")), "/", "--into", str(tmp_path / "o")]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 21
    assert said[-1] == "fullsendd: and 5 more such lines"
    assert len(list((tmp_path / "o").iterdir())) == 25
