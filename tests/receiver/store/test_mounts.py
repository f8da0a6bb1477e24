"""Which file systems are mounted, and that a change of them is noticed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fullsend_receiver.store import mounts
from fullsend_receiver.store.mounts import Mounts, file_system

if TYPE_CHECKING:
    from collections.abc import Callable

LINE = "{number} 1 0:{number} / {place} rw,relatime shared:1 - {kind} none rw"


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have the kernel say that these are mounted: the places, each with its type."""
    path = tmp_path / "mountinfo"

    def write(**places: str) -> None:
        lines = [LINE.format(number=20 + n, place=place, kind=kind) for n, (kind, place) in enumerate(places.items())]
        path.write_text("".join(line + "\n" for line in lines), encoding="latin-1")

    write(ext4="/")
    monkeypatch.setattr(mounts, "_TABLE", path)
    return write


class Stirred:
    """A poll that says that something has changed."""

    def poll(self, _timeout: int) -> list[Any]:
        return [None]


def stirred(root: Path) -> Mounts:
    """Mounts that look at the table each time."""
    found = Mounts(root)
    found._poll = Stirred()  # type: ignore[assignment,misc]
    return found


def test_type_of_a_file_system_is_that_of_the_last_mount_above() -> None:
    assert file_system(Path("/proc/self")) == "proc"
    assert file_system(Path("/proc/missing")) == ""


def test_type_is_that_of_the_nearest_and_of_two_at_one_place_the_later(
    table: Callable[..., None], tmp_path: Path
) -> None:
    table(ext4="/", xfs=str(tmp_path), nfs4=str(tmp_path), tmpfs=str(tmp_path / "beside"))
    assert file_system(tmp_path) == "nfs4"
    assert file_system(tmp_path.parent) == "ext4"


def test_place_with_a_space_and_other_bytes_is_understood(table: Callable[..., None], tmp_path: Path) -> None:
    place = tmp_path / "größer als"
    place.mkdir()
    table(ext4="/", btrfs=str(place).encode().decode("latin-1").replace(" ", "\\040"))
    assert file_system(place) == "btrfs"


def test_table_that_cannot_be_read_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "_TABLE", tmp_path / "missing")
    assert file_system(tmp_path) == ""
    assert not Mounts(tmp_path).changed()  # nothing is watched there either
    assert stirred(tmp_path).changed()


def test_what_is_mounted_or_unmounted_at_above_or_below_is_a_change(table: Callable[..., None], tmp_path: Path) -> None:
    found = stirred(tmp_path / "store")
    assert not found.changed()
    for place in (tmp_path / "store", tmp_path, tmp_path / "store" / "a" / "b"):
        table(ext4="/", tmpfs=str(place))
        assert found.changed()
        assert not found.changed()
        table(ext4="/")
        assert found.changed()
    table(ext4="/", tmpfs=str(tmp_path / "stored"))
    assert not found.changed()


def test_nothing_is_read_where_nothing_was_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Mounts(tmp_path)
    monkeypatch.setattr(mounts, "_TABLE", tmp_path / "missing")
    assert not found.changed()


#: Mounts come and go below a sender's folder, and each answer is the truth.
SCRIPT = """
import subprocess, sys
from pathlib import Path
from tests.receiver.catalogue.test_service import check
from tests.receiver.helpers import SENDER, everywhere, make_store, plant
from fullsend_receiver.catalogue import inotify
from fullsend_receiver.catalogue.service import Catalogues

def run(*words):
    subprocess.run(words, check=True)
    check(catalogues)

folder = Path(sys.argv[1])
inotify._OWN = everywhere() | {"tmpfs"}
store = make_store(folder)
plant(store, "s1", 1, dataset="tank/a")
plant(store, "s2", 2, 1, dataset="tank/b")
a, b = (store.root / SENDER / "tank" / name for name in "ab")
elsewhere = folder / "elsewhere"
a.rename(elsewhere)
a.mkdir()
catalogues = Catalogues(store)
check(catalogues)
run("mount", "--bind", elsewhere, a)
assert len(catalogues.current(SENDER)) == 2
run("umount", a)
run("mount", "-t", "tmpfs", "none", a)
plant(store, "s3", 3, dataset="tank/a")
check(catalogues)
with (a / "busy").open("wb"):
    run("umount", "--lazy", a)
run("mount", "-t", "tmpfs", "none", b)
assert len(catalogues.current(SENDER)) == 0
run("umount", b)
run("mount", "-t", "tmpfs", "none", store.root)
run("umount", store.root)
assert catalogues._kept[SENDER].search.sure
"""


def test_answers_are_true_whatever_is_mounted_and_unmounted_in_a_store(tmp_path: Path) -> None:
    """Neither a mount over a folder, nor the end of a bind mount, nor a lazy unmount is told by inotify."""
    unshared = ["unshare", "--mount", "--map-root-user"]
    may = subprocess.run(
        [*unshared, "mount", "-t", "tmpfs", "none", tmp_path], capture_output=True, check=False, text=True
    )
    if may.returncode:
        pytest.skip(f"cannot mount here: {may.stderr}")
    done = subprocess.run(
        [*unshared, sys.executable, "-c", SCRIPT, tmp_path],
        capture_output=True,
        check=False,
        cwd=Path(__file__).parents[3],
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_mount_that_is_read_only_is_told_from_a_file_system_that_is(tmp_path: Path) -> None:
    """The first is what a service's sandbox makes of a disk. The second is what the kernel makes of a failing one."""
    (tmp_path / "a").mkdir()
    code = """
import sys
from pathlib import Path
from fullsend_receiver.store.mounts import is_read_only_here
print([is_read_only_here(Path(each)) for each in sys.argv[1:]])
"""
    script = """
mount -t tmpfs none "$1" && mkdir "$1/disk" "$1/sandbox" && mount -t tmpfs none "$1/disk" || exit 77
mount --bind "$1/sandbox" "$1/sandbox" && mount -o remount,bind,ro "$1/sandbox" || exit 77
mount -o remount,ro "$1/disk" || exit 77
exec "$2" -c "$3" "$1/sandbox" "$1/disk" "$1" "$1/missing"
"""
    unshared = [
        "unshare",
        "--mount",
        "--map-root-user",
        "sh",
        "-c",
        script,
        "sh",
        str(tmp_path / "a"),
        sys.executable,
        code,
    ]
    done = subprocess.run(unshared, capture_output=True, check=False, text=True)
    if done.returncode in {1, 77}:
        pytest.skip(f"cannot mount here: {done.stderr}")
    assert done.stdout == "[True, False, False, False]\n", done.stderr
