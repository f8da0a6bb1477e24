"""Files out of streams of real ZFS, on a host without ZFS: `fullsendd ls`, `get` and `diff`.

They are compared with what the pool said. The cases are those of tests/zfs/test_files.py.
"""

from __future__ import annotations

import json
import os
import pathlib
import stat
import subprocess
import tempfile
from typing import TYPE_CHECKING, Final

import pytest
from tests import programs
from tests.zfs import cases, pools

from fullsend_receiver.cli.main import main as fullsendd_main

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.zfs.cases import Case

CASES: Final = {
    folder: cases.Case.read(folder) for folder in cases.folders(pathlib.Path(os.environ["FULLSEND_ZFS_CASES"]))
}
VOLUMES: Final = [folder for folder, case in CASES.items() if case.readings[0].volume is not None]
TREES: Final = [folder for folder in CASES if folder not in VOLUMES]
CHANGED: Final = [folder for folder, case in CASES.items() if case.diff is not None]


@pytest.fixture
def disk() -> Iterator[pathlib.Path]:
    """An empty file system that takes all that ZFS has: ext4 has no room for large extended attributes."""
    if os.geteuid() != 0:
        pytest.fail("this mounts a file system, which needs root", pytrace=False)
    with tempfile.TemporaryDirectory(prefix="fullsend-cases-") as folder:
        image, place = pathlib.Path(folder, "image"), pathlib.Path(folder, "disk")
        with image.open("wb") as file:
            file.truncate(4 << 30)
        place.mkdir()
        environment = os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
        subprocess.run(["mkfs.xfs", "-q", image], check=True, env=environment)
        subprocess.run(["mount", "-o", "loop", image, place], check=True, env=environment)
        try:
            yield place
        finally:
            subprocess.run(["umount", place], check=True, env=environment)


def each(folders: list[pathlib.Path]) -> pytest.MarkDecorator:
    """Mark a test to run with each of these cases."""
    return pytest.mark.parametrize(
        ("folder", "case"), [(folder, CASES[folder]) for folder in folders], ids=[folder.name for folder in folders]
    )


def fullsendd(*arguments: str | pathlib.Path) -> bytes:
    return programs.good(programs.run_inside(fullsendd_main, *map(str, arguments), env={}))


def options(folder: pathlib.Path, reading: cases.Reading, option: str = "--file") -> list[str | pathlib.Path]:
    chain = [part for name in reading.files for part in (option, folder / name)]
    return chain if reading.snapshot is None else [*chain, "--snapshot", reading.snapshot]


@each(TREES)
def test_each_tree_comes_back(folder: pathlib.Path, case: Case, disk: pathlib.Path) -> None:
    for number, reading in enumerate(case.readings):
        out = disk / folder.name / str(number)
        out.parent.mkdir(exist_ok=True)
        fullsendd("get", *options(folder, reading), "--special", "--setuid", "--into", out, "/")
        assert pools.tree(out) == reading.tree


@each(TREES)
def test_each_tree_is_listed(folder: pathlib.Path, case: Case) -> None:
    for reading in case.readings:
        lines = map(json.loads, fullsendd("ls", "-R", "--json", *options(folder, reading)).splitlines())
        listed = {facts["path"]: facts for facts in lines}
        assert listed.keys() == reading.inodes.keys()
        for name, facts in listed.items():
            number, mode, uid, gid, links, *times, size, device = reading.inodes[name]
            assert (facts["object"], int(facts["mode"], 8)) == (number, mode)
            assert (facts["uid"], facts["gid"], facts["links"]) == (uid, gid, links)
            assert [facts["atime"], facts["mtime"], facts["ctime"]] == times
            if stat.S_ISREG(mode):
                assert facts["size"] == size
            if stat.S_ISBLK(mode) or stat.S_ISCHR(mode):
                assert facts["device"] == [os.major(device), os.minor(device)]


@each(VOLUMES)
def test_each_volume_comes_back(folder: pathlib.Path, case: Case, tmp_path: pathlib.Path) -> None:
    (reading,) = case.readings
    fullsendd("get", *options(folder, reading), "--volume", tmp_path / "image")
    assert pools.content(tmp_path / "image") == reading.volume


@each(CHANGED)
def test_differences_are_those_of_zfs_diff(folder: pathlib.Path, case: Case) -> None:
    assert case.diff is not None
    first, last = case.readings
    chains = [*options(folder, first, "--from"), *options(folder, last, "--to")]
    changes = fullsendd("diff", "-FH", "--prefix", case.mounted_on, *chains)
    assert sorted(changes.splitlines()) == sorted(case.diff.splitlines())
