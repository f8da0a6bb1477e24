"""A store on a small file system of its own, without a free byte: a prune makes room all the same."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest
from tests.faults.small_disk import PATH, cannot
from tests.receiver.helpers import SENDER, plant
from tests.receiver.running import Receiver

from fullsend_protocol.shared.units import format_time
from fullsend_receiver.store.local import LocalStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

DAY: Final = 86400.0
#: In a mount namespace of its own: a small file system over the store's folder, with what was there, then filled to its
#: last block. $1: how to mount it, $2: the store's seed, $3: the store; what follows is run for each line of stdin.
INSIDE: Final = """
set -e
case "$1" in
tmpfs) mount -t tmpfs -o size=4m tmpfs "$3" ;;
*) mount -o loop "$1" "$3" ;;
esac
cp -a "$2"/. "$3"
chmod 700 "$3"
mkdir "$3/.filler"
dd if=/dev/zero of="$3/.filler/large" bs=64k 2>/dev/null || true
dd if=/dev/zero of="$3/.filler/small" bs=512 2>/dev/null || true
sync
n=0
while echo x 2>/dev/null > "$3/.filler/$n"; do n=$((n + 1)); done
store="$3"
shift 3
while read -r line; do
    code=0
    "$@" $line > "$store.out" 2> "$store.err" || code=$?
    echo "code $code"
    sed 's/^/out /' "$store.out"
    sed 's/^/err /' "$store.err"
done
"""


def image(folder: Path, kind: str) -> str:
    """Make a file system of this kind in a file. Returns: how to mount it."""
    if kind == "tmpfs":
        return kind
    program = shutil.which(f"mkfs.{kind}", path=PATH)
    if program is None:
        cannot(f"mkfs.{kind} is not installed")
    path = folder / "image"
    with path.open("wb") as file:
        file.truncate({"ext4": 16, "xfs": 320}[kind] << 20)
    # Nothing is reserved for root, who runs this.
    options = {"ext4": ["-q", "-m", "0"], "xfs": ["-q"]}[kind]
    subprocess.run([program, *options, str(path)], check=True, capture_output=True)
    return str(path)


# Btrfs needs a little room of its own (docs/operations.md, "On a full disk").
@pytest.mark.parametrize("kind", ["tmpfs", "ext4", "xfs"])
def test_prune_of_a_store_without_a_free_byte(tmp_path: Path, kind: str) -> None:
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        cannot("only root has a mount namespace")
    how = image(tmp_path, kind)
    receiver = Receiver(tmp_path)
    receiver.init()
    with receiver.config.open("a", encoding="utf-8") as file:
        file.write("[retention]\ndaily = 2\n")
    store = LocalStore(receiver.store)
    now = time.time()
    for dataset in range(3):
        for age in range(19, -1, -1):
            received = format_time(now - age * DAY - 60)
            plant(store, f"n{age}", 100 * dataset + age + 1, dataset=f"tank/d{dataset}", received=received)
    store.recover()  # as a daemon does at its start
    seed = receiver.store.rename(tmp_path / "seed")
    receiver.store.mkdir()
    done = subprocess.run(
        [
            *("unshare", "-m", "sh", "-c", INSIDE, "sh", how, seed, receiver.store),
            *(sys.executable, "-m", "fullsend_receiver", "--config", receiver.config),
        ],
        input="prune --yes-more\nlist --json\ncheck\nprune\n",
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and "mount" in done.stderr:
        cannot(f"{kind} cannot be mounted here: {done.stderr}")
    lines = done.stdout.splitlines()
    codes = [line for line in lines if line.startswith("code ")]
    errors = [line for line in lines if line.startswith("err ")]
    assert codes == ["code 0", "code 0", "code 0", "code 0"], [*errors, done.stderr]
    rows = [json.loads(line.removeprefix("out ")) for line in lines if line.startswith("out {")]
    assert {row["sender"] for row in rows} == {SENDER}
    assert len(rows) == 3 * 3  # what is younger than minimum-age, and minimum-count, stays in any case
    assert not any("cannot be" in line for line in errors)
