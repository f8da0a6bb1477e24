from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fullsend_sender.host.restoring import being_restored, restoring

CHILD = """
import sys
from fullsend_sender.host.restoring import restoring
with restoring(sys.argv[4], sys.argv[1], below=sys.argv[2] == "below", folder=sys.argv[3]):
    print("restoring", flush=True)
    sys.stdin.read()
"""

NAMES = ["tank", "tank/home", "tank/home/a", "tank/home-2", "other/tank/home"]


def child(folder: Path, target: str, how: str, zfs: str = "zfs") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, target, how, str(folder), zfs]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "restoring\n"
    return process


@pytest.mark.parametrize(("how", "found"), [
    ("alone", {"tank/home"}), ("below", {"tank/home", "tank/home/a"}),
])  # fmt: skip
def test_what_another_process_restores(tmp_path: Path, how: str, found: set[str]) -> None:
    folder = str(tmp_path / "new")
    with child(tmp_path / "new", "tank/home", how) as first:
        assert being_restored("zfs", NAMES, folder=folder) == found
        assert being_restored("ssh other zfs", NAMES, folder=folder) == set()
        # To have looked takes nothing from others that look, or restore.
        assert being_restored("zfs", NAMES, folder=folder) == found
        with (
            child(tmp_path / "new", "tank/home", "alone") as second,
            restoring("zfs", "tank", below=True, folder=folder),
        ):
            first.kill()  # however it ends, it restores nothing any more
            first.wait()
            assert being_restored("zfs", NAMES, folder=folder) == {"tank/home"}
            second.kill()
            second.wait()
    assert being_restored("zfs", NAMES, folder=folder) == set()


def test_a_restore_needs_no_place_for_its_mark(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with restoring("zfs", "tank/home", below=False, folder=str(tmp_path / "file")):
        pass
