"""Files in a folder of this host: as they are told, and nothing outside it."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.programs import environment

from fullsend_files.folder import Folder
from fullsend_files.troubles import Troubles, Wishes
from fullsend_protocol.dataset.entry import Entry
from fullsend_protocol.dataset.nodes import Time
from fullsend_protocol.shared.errors import OutputExists, OutputFailed

ROOT = os.geteuid() == 0
TIME = Time(1_700_000_000, 123_456_789)


def entry(mode: int, size: int = 0, **more: Any) -> Entry:
    no: dict[str, Any] = {"uid": os.geteuid(), "gid": os.getegid(), "device": None, "target": None, "xattrs": {}}
    return Entry(**{"mode": mode, "size": size, "atime": TIME, "mtime": TIME, **no, **more})


DIRECTORY = entry(stat.S_IFDIR | 0o750)
FILE = entry(stat.S_IFREG | 0o644, 3)
FIFO = entry(stat.S_IFIFO | 0o644)


def symlink(target: bytes) -> Entry:
    return entry(stat.S_IFLNK | 0o777, len(target), target=target)


@pytest.fixture
def troubles() -> Troubles:
    return Troubles()


@pytest.fixture
def folder(tmp_path: Path, troubles: Troubles) -> Folder:
    return Folder(tmp_path / "out", Wishes(), troubles)


def put(folder: Folder, path: bytes, data: bytes = b"bad", about: Entry = FILE) -> None:
    folder.file(path, about)
    folder.data(0, data)
    folder.end_file()


def test_a_tree(folder: Folder, troubles: Troubles, tmp_path: Path) -> None:
    folder.directory(b"d")
    folder.directory(b"d/e")
    put(folder, b"d/e/f", b"abc", replace(FILE, xattrs={b"user.a": b"\0x"}))
    put(folder, b"g", b"", replace(FILE, size=0))
    folder.link(b"h", b"d/e/f")
    folder.special(b"s", symlink(b"/etc/passwd"))
    folder.describe(b"d/e", replace(DIRECTORY, mode=stat.S_IFDIR | 0o500))
    folder.describe(b"d", DIRECTORY)
    folder.describe(b"", replace(DIRECTORY, mode=stat.S_IFDIR | 0o711))
    (staging,) = (tmp_path / "out").iterdir()
    assert staging.name.startswith(".fullsend-get-")
    folder.publish()
    top = tmp_path / "out"
    assert troubles == Troubles()
    assert sorted(each.name for each in top.iterdir()) == ["d", "g", "h", "s"]
    assert (top / "h").read_bytes() == b"abc"
    assert os.getxattr(top / "h", b"user.a") == b"\0x"
    assert (top / "h").stat().st_ino == (top / "d/e/f").stat().st_ino
    assert os.readlink(top / "s") == "/etc/passwd"
    for path, mode in (("", 0o711), ("d", 0o750), ("d/e", 0o500), ("g", 0o644)):
        found = (top / path).stat()
        assert stat.S_IMODE(found.st_mode) == mode
        assert found.st_mtime_ns == TIME.total


def test_what_somebody_has_put_there_meanwhile_stays(folder: Folder, tmp_path: Path) -> None:
    put(folder, b"a", b"old")
    put(folder, b"b", b"old")
    (tmp_path / "out" / "b").write_bytes(b"new")
    (staging,) = (tmp_path / "out").glob(".fullsend-get-*")
    with pytest.raises(OutputFailed, match=rf"b was put there meanwhile.*; the files are in {staging}"):
        folder.publish()
    assert (tmp_path / "out" / "b").read_bytes() == b"new"
    assert sorted(path.name for path in staging.iterdir()) == ["a", "b"]


def test_the_folder_may_be_named_by_a_link(troubles: Troubles, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    folder = Folder(tmp_path / "link", Wishes(), troubles)
    put(folder, b"a", b"x")
    folder.describe(b"", replace(DIRECTORY, mode=stat.S_IFDIR | 0o711))
    folder.publish()
    assert troubles == Troubles()
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o711


def test_no_link_is_followed(folder: Folder, troubles: Troubles, tmp_path: Path) -> None:
    """Not even one that was made just before, whatever paths a folder is told."""
    (tmp_path / "victim").write_bytes(b"mine")
    folder.special(b"link", symlink(b".."))
    folder.special(b"file", symlink(bytes(tmp_path / "victim")))
    put(folder, b"link/evil")
    folder.directory(b"link/evil-folder")
    folder.special(b"link/evil-link", symlink(b"x"))
    folder.link(b"link/other", b"file")
    folder.link(b"stolen", b"link/victim")
    folder.describe(b"link", replace(DIRECTORY, mode=stat.S_IFDIR | 0o777))
    put(folder, b"link")
    put(folder, b"file")
    assert troubles.count == 8
    folder.publish()
    assert {path.name for path in tmp_path.rglob("*")} == {"victim", "out", "link", "file"}
    assert (tmp_path / "victim").read_bytes() == b"mine"
    assert (tmp_path / "out" / "link").is_symlink()


@pytest.mark.parametrize(
    "path", [b"..", b"../evil", b"d/../../evil", b"/evil", b"d//evil", b"d/.", b".", b"d/", b"a\0b"]
)
def test_no_path_leads_outside(folder: Folder, troubles: Troubles, tmp_path: Path, path: bytes) -> None:
    (tmp_path / "victim").write_bytes(b"mine")
    folder.directory(b"d")
    put(folder, b"good")
    put(folder, path)
    folder.directory(path)
    folder.special(path, symlink(b"x"))
    folder.link(path, b"good")
    folder.link(b"stolen", path)
    folder.describe(path, replace(DIRECTORY, mode=stat.S_IFDIR))
    assert troubles.count >= 5
    folder.publish()
    assert {each.name for each in tmp_path.rglob("*")} == {"victim", "out", "d", "good"}


def test_nothing_special_is_made_unless_it_is_wished(folder: Folder, troubles: Troubles, tmp_path: Path) -> None:
    folder.special(b"fifo", FIFO)
    folder.special(b"null", entry(stat.S_IFCHR | 0o666, device=(1, 3)))
    folder.special(b"odd", entry(0o600))
    folder.publish()
    assert (list((tmp_path / "out").iterdir()), troubles.left_out, troubles.count) == ([], 3, 0)


def test_what_is_special_is_made_where_it_is_wished(troubles: Troubles, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "out", Wishes(special=True), troubles)
    folder.special(b"fifo", FIFO)
    folder.special(b"odd", entry(0o600))
    folder.special(b"far", entry(stat.S_IFCHR | 0o666, device=(1 << 40, 3)))
    folder.publish()
    assert [stat.S_ISFIFO(each.stat().st_mode) for each in (tmp_path / "out").iterdir()] == [True]
    assert troubles.count == 2


def test_setuid_bits_and_capabilities_only_where_they_are_wished(troubles: Troubles, tmp_path: Path) -> None:
    capabilities = bytes.fromhex("0100000200200000000000000000000000000000")
    about = replace(FILE, mode=stat.S_IFREG | 0o4755, xattrs={b"security.capability": capabilities})
    folder = Folder(tmp_path / "out", Wishes(owner=ROOT), troubles)
    put(folder, b"f", b"abc", about)
    folder.publish()
    assert (troubles.setuid, troubles.count) == (2, 0)
    assert stat.S_IMODE((tmp_path / "out/f").stat().st_mode) == 0o755
    assert "security.capability" not in os.listxattr(tmp_path / "out/f")
    if ROOT:
        folder = Folder(tmp_path / "as-it-was", Wishes(owner=True, setuid=True), troubles)
        put(folder, b"f", b"abc", about)
        folder.publish()
        assert stat.S_IMODE((tmp_path / "as-it-was/f").stat().st_mode) == 0o4755
        assert os.getxattr(tmp_path / "as-it-was/f", "security.capability") == capabilities


def test_a_hole_takes_no_space(folder: Folder, tmp_path: Path) -> None:
    size = 100 << 30
    folder.file(b"f", replace(FILE, size=size))
    folder.data(size - 3, b"end")
    folder.end_file()
    folder.publish()
    found = (tmp_path / "out/f").stat()
    assert found.st_size == size
    assert found.st_blocks * 512 < 1 << 20


def test_a_file_that_cannot_be_filled_is_removed(
    folder: Folder, troubles: Troubles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*_arguments: object) -> None:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    put(folder, b"good", b"abc")
    monkeypatch.setattr(os, "pwrite", too_large)
    folder.file(b"huge", FILE)
    folder.data(0, b"a")
    folder.data(1, b"b")
    folder.end_file()
    monkeypatch.setattr(os, "ftruncate", too_large)
    put(folder, b"hollow", b"")
    folder.publish()
    assert troubles.lines == [f"{name}: cannot be made here: File too large" for name in ("huge", "hollow")]
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["good"]


def test_a_directory_that_cannot_be_made_is_named_once(
    folder: Folder, troubles: Troubles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fullsend_files.folder._LOST_MAX", 2)
    for path in (b"none/a", b"none/b", b"none/c"):
        folder.directory(path)
        folder.describe(path, DIRECTORY)
    assert troubles.count == 4  # the third is not remembered
    folder.discard()


def test_a_full_disk_ends_it(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OutputFailed, match="out cannot be written: No space left on device"):
        put(folder, b"f")
    folder.discard()


def test_times_and_owners_that_nothing_can_have(troubles: Troubles, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "out", Wishes(owner=ROOT), troubles)
    put(folder, b"late", b"abc", replace(FILE, mtime=Time(1 << 62, 0)))
    put(folder, b"whose", b"abc", replace(FILE, uid=1 << 40))
    folder.publish()
    assert len(troubles.lines) == (2 if ROOT else 1)
    assert troubles.lines[0] == "late: has not all its attributes: its times are impossible"


def test_the_folder_must_be_new_or_empty(tmp_path: Path, troubles: Troubles) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(OutputExists, match="is not empty"):
        Folder(tmp_path / "out", Wishes(), troubles)
    with pytest.raises(OutputFailed, match="cannot be written"):
        Folder(tmp_path / "none" / "out", Wishes(), troubles)


def test_nothing_is_left_of_what_is_discarded(folder: Folder, tmp_path: Path) -> None:
    folder.directory(b"d")
    put(folder, b"d/f")
    folder.file(b"d/half", FILE)
    assert len(list(tmp_path.rglob("*"))) == 5
    folder.discard()
    assert list(tmp_path.rglob("*")) == [tmp_path / "out"]


_AS_NOBODY = """
import os
from dataclasses import replace
from pathlib import Path
from tests.files.test_folder import DIRECTORY, put
from fullsend_files.folder import Folder
from fullsend_files.troubles import Troubles, Wishes

os.chown(".", 65534, 65534)
os.setgid(65534)
os.setuid(65534)
for name in ("published", "discarded"):
    troubles = Troubles()
    folder = Folder(Path(name), Wishes(), troubles)
    folder.directory(b"d")
    put(folder, b"d/f")
    folder.describe(b"d", replace(DIRECTORY, mode=0o40000))
    folder.publish() if name == "published" else folder.discard()
    assert not troubles.count, troubles
"""


@pytest.mark.skipif(not ROOT, reason="becomes another user")
def test_who_is_not_root_moves_and_removes_a_folder_that_nobody_may_write(tmp_path: Path) -> None:
    root = str(Path(__file__).resolve().parents[2])
    subprocess.run([sys.executable, "-c", _AS_NOBODY], cwd=tmp_path, env=environment(PYTHONPATH=root), check=True)
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*")} == {
        Path(each) for each in ("published", "published/d", "published/d/f", "discarded")
    }
    assert stat.S_IMODE((tmp_path / "published/d").stat().st_mode) == 0
