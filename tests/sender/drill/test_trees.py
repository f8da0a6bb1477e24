from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fullsend_sender.drill.trees import Comparer, ComparisonStopped, TreeComparison, zfs_facts

#: A copy has other object numbers, and was changed now.
OTHERS = ("object number", "time of the last change")
LARGE = 5 << 20


def facts(of: os.stat_result) -> dict[str, int]:
    return {name: value for name, value in zfs_facts(of).items() if name not in OTHERS}


def compare(folder: Path, **options: Callable[[], bool]) -> TreeComparison:
    one, other = (os.fsencode(folder / name) for name in ("here", "there"))
    return Comparer(one, other, facts=facts, **options).compare()  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Some of everything, and a copy of it."""
    here = tmp_path / "here"
    (here / "sub" / "deep").mkdir(parents=True)
    (here / "text").write_bytes(b"text")
    (here / "empty").touch()
    (here / "sub" / "large").write_bytes(os.urandom(LARGE))
    (here / "sub" / "deep" / "n\u00e4me").write_bytes(b"unicode")
    Path(os.fsdecode(os.fsencode(here) + b"/odd\xff\nname")).write_bytes(b"odd")
    (here / "link").symlink_to("text")
    os.mkfifo(here / "fifo")
    with (here / "sparse").open("wb") as file:
        file.seek(64 << 20)
        file.write(b"island")
        file.truncate(1 << 40)
    os.link(here / "text", here / "sub" / "again")
    there = tmp_path / "there"
    shutil.copytree(here, there, symlinks=True, ignore=shutil.ignore_patterns("fifo", "sparse", "again"))
    os.mkfifo(there / "fifo")
    os.link(there / "text", there / "sub" / "again")
    with (there / "sparse").open("wb") as file:  # with zeros where the other has a hole
        file.write(bytes(1 << 20))
        file.seek(64 << 20)
        file.write(b"island")
        file.truncate(1 << 40)
    for top, folders, files in os.walk(here, topdown=False):
        for name in [*folders, *files, "."]:
            path = Path(top, name)
            info = path.lstat()
            other = there / path.relative_to(here)
            os.utime(other, ns=(info.st_atime_ns, info.st_mtime_ns), follow_symlinks=False)
    return tmp_path


def keeping_time(path: Path, change: Callable[[Path], object]) -> None:
    """Change a file, and let it look as if nobody had."""
    places = (path.parent, path)
    before = [(each, each.lstat()) for each in places]
    change(path)
    for each, info in before:
        if os.path.lexists(each):
            os.utime(each, ns=(info.st_atime_ns, info.st_mtime_ns), follow_symlinks=False)


def test_equal_folders_are_equal(folder: Path) -> None:
    found = compare(folder)
    assert found.differences == []
    assert (found.different, found.files) == (0, 12)
    assert LARGE <= found.raw_bytes < LARGE + (8 << 20)  # holes are not read


def rewrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(LARGE - 1)
        file.write(bytes([path.read_bytes()[-1] ^ 1]))


def island(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(32 << 20)
        file.write(b"another")


def again(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"text")


def relink(path: Path) -> None:
    path.unlink()
    path.symlink_to("tex2")


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("sub/large", rewrite, ["/sub/large: other bytes, from about byte 4194304 on"]),
        ("sparse", island, ["/sparse: other bytes, from about byte 33554432 on"]),
        ("text", lambda path: path.write_bytes(b"tex2"), ["/sub/again: other bytes", "/text: other bytes"]),
        ("empty", lambda path: path.write_bytes(b"x"), ["/empty: size: not as here"]),
        ("text", lambda path: path.chmod(0o600), ["/sub/again: type and mode", "/text: type and mode"]),
        ("link", relink, ["/link: links to another target"]),
        ("empty", Path.unlink, ["/empty: is missing in what was restored"]),
        ("more", Path.touch, ["/more: was restored, and is not in the snapshot here"]),
        ("sub/again", again, ["/sub/again: link count", "/text: link count"]),
        ("fifo", lambda path: (path.unlink(), path.touch()), ["/fifo: type and mode"]),
        ("empty", lambda path: os.setxattr(path, "user.a", b"1"), ["/empty: other extended attributes"]),
    ],
)
def test_each_difference_is_found(folder: Path, name: str, change: Callable[[Path], object], said: list[str]) -> None:
    path = folder / "there" / name
    keeping_time(path, change) if os.path.lexists(path) else keeping_time(path.parent, lambda _parent: change(path))
    found = compare(folder)
    assert found.different == len(said), found.differences
    for line, start in zip(sorted(found.differences), said, strict=True):
        assert line.startswith(start)


def test_a_time_is_compared_to_the_nanosecond(folder: Path) -> None:
    path = folder / "there" / "sub"
    info = path.stat()
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns + 1))
    assert compare(folder).differences == ["/sub: time of the last write: not as here"]


def test_the_value_of_an_attribute_is_compared(folder: Path) -> None:
    for place, value in (("here", b"1"), ("there", b"2")):
        os.setxattr(folder / place / "empty", "user.a", value)
    assert compare(folder).differences == ["/empty: another value of the extended attribute user.a"]


def test_object_numbers_and_times_of_change_are_compared_where_zfs_restores_them(folder: Path) -> None:
    one, other = (os.fsencode(folder / name) for name in ("here", "there"))
    found = Comparer(one, other).compare()
    assert found.different == found.files
    assert found.differences[0] == "/: time of the last change: not as here"
    assert all("object number" in line for line in found.differences[1:])
    assert Comparer(one, one).compare().different == 0


def test_few_of_many_differences_are_named_and_all_are_counted(folder: Path) -> None:
    for number in range(100):
        (folder / "there" / f"more{number}").touch()
    found = compare(folder)
    assert (found.different, len(found.differences)) == (101, 20)  # and the time of the folder


def test_names_from_a_file_system_are_printable(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder / "there") + b"/odd\xff\nname")).unlink()
    assert "/odd\\\\udcff\\nname: is missing in what was restored" in compare(folder).differences


def test_what_cannot_be_read_is_a_difference(folder: Path) -> None:
    one, other = os.fsencode(folder / "here"), os.fsencode(folder / "gone")
    found = Comparer(one, other, facts=facts).compare()
    assert found.differences == ["/: cannot be read: No such file or directory"]


def test_it_can_be_stopped(folder: Path) -> None:
    asked = iter([False, False, False, True])
    with pytest.raises(ComparisonStopped):
        compare(folder, stopped=lambda: next(asked))
