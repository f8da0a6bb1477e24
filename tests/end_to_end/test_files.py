"""Files out of a stored snapshot over the wire, by both programs as they are."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from tests.file_trees import FOLDER, TREES, VOLUMES, raw
from tests.programs import Receiver, Sender, good, rows
from tests.receiver.helpers import store_stream

from fullsend_receiver.store.local import LocalStore

WHAT: Final = "tank/sa@s2"


@pytest.fixture
def stored(receiver: Receiver, sender: Sender) -> list[Path]:
    """The files of a stored chain, of a full and an increment."""
    store = LocalStore(receiver.store)
    streams = [raw(FOLDER / f"sa_Lec-{name}.zfs.zst") for name in ("full", "incr")]
    return [receiver.store / store_stream(store, sender.name, each) for each in streams]


def both(receiver: Receiver, sender: Sender, *arguments: str) -> bytes:
    """What `fullsend ls` prints, which is what `fullsendd ls` prints."""
    there = good(receiver.fullsendd("ls", f"{sender.name}/{WHAT}", *arguments))
    assert good(sender.fullsend("ls", WHAT, *arguments)) == there
    return there


@pytest.mark.slow
@pytest.mark.usefixtures("stored")
def test_lists_are_those_of_the_storage_host(receiver: Receiver, sender: Sender) -> None:
    # The daemon, and what it starts, are processes; the commands need not be, which is faster.
    receiver.inside, sender = True, replace(sender, inside=True)
    paths = {os.fsencode(each["path"]) for each in rows(both(receiver, sender, "-R", "--json"))}
    assert paths == TREES[1].listing().keys()
    assert both(receiver, sender, "-l", "a")
    named = [path for path in paths if path.startswith(b"a/b/f0")]
    assert both(receiver, sender, "--name", "f0?").splitlines() == sorted(named)
    done = sender.fullsend("ls", WHAT, "none")
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (1, b"", 1)


@pytest.mark.usefixtures("stored")
def test_an_archive_is_that_of_the_storage_host(receiver: Receiver, sender: Sender) -> None:
    chosen = ["/", "--tar", "--special", "--setuid"]
    there = receiver.fullsendd("get", f"{sender.name}/{WHAT}", *chosen)
    here = sender.fullsend("get", WHAT, *chosen)
    assert (here.returncode, here.stdout) == (there.returncode, there.stdout)
    listing = TREES[1].listing()
    with tarfile.open(fileobj=io.BytesIO(here.stdout)) as archive:
        member = archive.extractfile("a/text")
        assert member is not None
        assert hashlib.sha256(member.read()).hexdigest() == listing[b"a/text"]["sha256"]
    # A bare name has neither the archive of another sender, nor a path that leads to it.
    other = replace(sender, folder=sender.folder.parent / "beta", name="beta", inside=True)
    receiver.inside = True
    other.join(receiver)
    for name in (WHAT, f"../{sender.name}/{WHAT}", f"{sender.name}/{WHAT}", sender.list()[0]["file"]):
        for command in (["ls", name], ["get", name, "/", "--tar"]):
            done = other.fullsend(*command)
            assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (1, b"", 1), name


def facts(top: Path) -> dict[bytes, list[object]]:
    """All that a tree has, by paths. The times of the folder itself are among it, its name is not."""
    found: dict[bytes, list[object]] = {}
    inodes: dict[int, bytes] = {}
    start = os.fsencode(top)
    paths = [start]
    for folder, folders, names in os.walk(start):
        paths += [os.path.join(folder, name) for name in (*folders, *names)]
    for path, about in [(path, os.lstat(path)) for path in sorted(paths)]:  # all of them before a file is read
        name = path[len(start) :]
        kind = stat.S_IFMT(about.st_mode)
        attributes = os.listxattr(path, follow_symlinks=False)
        xattrs = {each: os.getxattr(path, each, follow_symlinks=False) for each in attributes}
        content: object = None
        if kind == stat.S_IFREG:
            content = hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest()
        elif kind == stat.S_IFLNK:
            content = os.readlink(path)
        elif kind in {stat.S_IFCHR, stat.S_IFBLK}:
            content = about.st_rdev
        plain = [] if kind == stat.S_IFDIR else [about.st_nlink, about.st_size, about.st_blocks]
        times = [about.st_mtime_ns] if kind in {stat.S_IFLNK, stat.S_IFDIR} else [about.st_mtime_ns, about.st_atime_ns]
        first = inodes.setdefault(about.st_ino, name)
        found[name] = [about.st_mode, about.st_uid, about.st_gid, *times, *plain, first, xattrs, content]
    return found


def lines(done: subprocess.CompletedProcess[bytes]) -> list[bytes]:
    """What was said, without who said it."""
    said = [line.removeprefix(b"fullsendd: ").removeprefix(b"fullsend: ") for line in done.stderr.splitlines()]
    return [line.removeprefix(b"receiver: ") for line in said if b"is not whole" not in line]


@pytest.mark.parametrize(
    "name", ["sa_Lec", *(pytest.param(name, marks=pytest.mark.slow) for name in ("dir_c", "old-dir_e"))]
)
def test_a_folder_is_what_the_storage_host_makes(receiver: Receiver, sender: Sender, tmp_path: Path, name: str) -> None:
    """Contents, modes, owners (as root), times, links, extended attributes, ACLs, holes, and what is said."""
    store = LocalStore(receiver.store)
    for part in ("full", "incr"):
        what = str(store_stream(store, sender.name, raw(FOLDER / f"{name}-{part}.zfs.zst")))
    receiver.inside, sender = True, replace(sender, inside=True)
    for wishes in ([], ["--special", "--setuid"]):
        tops = [tmp_path / f"{where}{len(wishes)}" for where in ("there", "here")]
        there = receiver.fullsendd("get", what, "/", "--into", str(tops[0]), *wishes)
        here = sender.fullsend("get", what, "/", "--into", str(tops[1]), *wishes)
        assert (here.returncode, here.stdout) == (there.returncode, b""), here.stderr
        assert os.geteuid() != 0 or here.returncode == 0, here.stderr
        assert sorted(lines(here)) == sorted(lines(there))
        assert facts(tops[1]) == facts(tops[0])


@pytest.mark.slow
@pytest.mark.usefixtures("stored")
@pytest.mark.skipif(os.geteuid() != 0, reason="makes devices, and gives files away")
def test_a_folder_is_what_tar_makes_of_the_archive(sender: Sender, tmp_path: Path) -> None:
    """All but sockets, which no archive has, and holes."""
    sender = replace(sender, inside=True)
    good(sender.fullsend("get", WHAT, "/", "--into", str(tmp_path / "here"), "--special", "--setuid"))
    done = sender.fullsend("get", WHAT, "/", "--tar", "--special", "--setuid")
    (tmp_path / "tar").mkdir()
    # -P: else it makes links that lead upwards last, which changes the time of their folder.
    options = ["-P", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "--same-owner", "-p"]
    subprocess.run(["tar", "-x", *options, "-C", str(tmp_path / "tar")], input=done.stdout, check=True)
    ours, theirs = facts(tmp_path / "here"), facts(tmp_path / "tar")
    assert ours.keys() - theirs.keys() == {b"/a/sock"}
    for path, about in theirs.items():
        # tar does not set the time of last access.
        if stat.S_ISREG(int(str(about[0]))):
            del about[4], ours[path][4]
            del about[6], ours[path][6]
        elif not stat.S_ISDIR(int(str(about[0]))):
            ours[path][4:6], about[4:6] = [], []
        assert ours[path] == about, path


def test_a_volume_has_the_bytes_of_the_block_device(receiver: Receiver, sender: Sender, tmp_path: Path) -> None:
    store = LocalStore(receiver.store)
    for part in ("full", "incr"):
        store_stream(store, sender.name, raw(FOLDER / f"vol_c-{part}.zfs.zst"))
    sender = replace(sender, inside=True)
    for snapshot, sha256 in VOLUMES.items():
        image = tmp_path / snapshot
        assert good(sender.fullsend("get", f"tank/vol@{snapshot}", "--volume", str(image))) == b""
        assert hashlib.sha256(image.read_bytes()).hexdigest() == sha256
        assert image.stat().st_blocks * 512 < image.stat().st_size
    done = sender.fullsend("get", "tank/vol@s2", "/", "--into", str(tmp_path / "o"))
    assert (done.returncode, b"volume" in done.stderr) == (1, True), done.stderr


@pytest.mark.usefixtures("stored")
def test_differences_and_versions_are_those_of_the_storage_host(receiver: Receiver, sender: Sender) -> None:
    receiver.inside, sender = True, replace(sender, inside=True)
    found = good(sender.fullsend("diff", "-FH", "--prefix", "/tank/sa", "tank/sa@s1", "@s2"))
    assert sorted(found.splitlines()) == sorted((FOLDER / "sa.diff").read_bytes().splitlines())
    versions = rows(good(sender.fullsend("versions", "--json", "tank/sa", "a/none")))
    assert [(each["snapshot"], each["change"]) for each in versions] == [("s1", "first"), ("s2", "replaced")]
    there = receiver.fullsendd("versions", f"{sender.name}/tank/sa", "a/none")
    here = sender.fullsend("versions", "tank/sa", "a/none")
    assert (here.returncode, here.stdout) == (there.returncode, there.stdout)
    other = replace(sender, folder=sender.folder.parent / "beta", name="beta")
    other.join(receiver)
    for command in (
        ["diff", "tank/sa@s1", "@s2"],
        ["versions", "tank/sa", "a/none"],
        ["versions", "../alpha/tank", "a"],
    ):
        done = other.fullsend(*command)
        assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (1, b"", 1), command


@pytest.mark.slow
def test_what_is_not_proven_fails(receiver: Receiver, sender: Sender, stored: list[Path]) -> None:
    good(sender.fullsend("ls", WHAT))  # which makes the index
    data = bytearray(stored[0].read_bytes())
    data[60_000] ^= 0xFF
    stored[0].write_bytes(bytes(data))
    done = sender.fullsend("get", WHAT, "/", "--tar")
    assert done.returncode == 1
    assert b"the archive is not proven, and was cut" in done.stderr
    assert not done.stdout.endswith(bytes(1024))
    out = sender.folder / "out"
    done = sender.fullsend("get", WHAT, "/", "--into", str(out))
    assert done.returncode == 1
    assert b"it is not proven, so nothing of it counts" in done.stderr
    assert list(out.iterdir()) == []
