"""`fullsendd report`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path, PurePosixPath

import pytest
from tests.markup import read
from tests.receiver.command import fails
from tests.receiver.helpers import SENDER, plant
from tests.receiver.running import Receiver

from fullsend_protocol.shared.units import format_time
from fullsend_receiver.store.api import update
from fullsend_receiver.store.local import LocalStore


def test_the_page_is_written_to_a_file(filled: tuple[Receiver, PurePosixPath, PurePosixPath]) -> None:
    receiver, _full, _increment = filled
    file = receiver.store.parent / "report.html"
    done = receiver.fullsendd("report", "--html", str(file))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    page = read(file.read_text(encoding="utf-8").removeprefix("<!DOCTYPE html>"))
    cards = page.every("details", "ds")
    assert len(cards) == 1
    assert cards[0].every("svg", "chain")[0].attributes["aria-label"] == "1 full, 1 increment"
    assert "no policy is set" in page.every("footer")[0].whole_text


def test_the_page_is_written_to_stdout(filled: tuple[Receiver, PurePosixPath, PurePosixPath]) -> None:
    done = filled[0].fullsendd("report", "--html", "-")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("<!DOCTYPE html>")
    assert done.stdout.endswith("</html>\n")


def test_a_drill_tells_how_long_a_restore_takes(filled: tuple[Receiver, PurePosixPath, PurePosixPath]) -> None:
    receiver, _full, _increment = filled
    about = receiver.listed()[-1]
    drill = {"snapshot": about["snapshot"], "guid": about["guid"], "at": format_time(time.time()), "ok": True}
    drill |= {
        "compared": "files",
        "text": "equal",
        "milliseconds": 1000,
        "raw_bytes": 1,
        "files": 1,
        "succeeded": format_time(time.time()),
    }
    update(
        LocalStore(receiver.store).documents,
        f"drills.{SENDER}.json",
        lambda _before: json.dumps({about["dataset"]: drill}).encode(),
    )
    page = read(receiver.fullsendd("report", "--html", "-").stdout.removeprefix("<!DOCTYPE html>"))
    said = page.definitions()
    assert "a second (its restore drill, " in said["Time to restore the newest"]
    assert "equal" in said["Last restore drill"]


def test_what_the_next_prune_drops_is_drawn(receiver: Receiver) -> None:
    store = LocalStore(receiver.store)
    for age in range(6):
        at = format_time(time.time() - age * 86400 - 60)
        plant(store, f"n{age}", 1 + age, received=at, sequence=100 - age)
    with receiver.config.open("a", encoding="utf-8") as file:
        file.write("[retention]\ndaily = 3\n")
    page = read(receiver.fullsendd("report", "--html", "-").stdout.removeprefix("<!DOCTYPE html>"))
    assert page.every("svg", "chain")[0].attributes["aria-label"] == "6 fulls, 3 dropped at the next prune"
    assert page.definitions()["Next prune"].replace("\u00a0", " ") == "drops 3 streams (21 B)"


def test_an_empty_store(receiver: Receiver) -> None:
    done = receiver.fullsendd("report", "--html", "-")
    assert "<h2>Nothing is stored</h2>" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_root_writes_the_page_of_another_users_store_as_root(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath], tmp_path: Path
) -> None:
    receiver, _full, _increment = filled
    for path in [receiver.store, *receiver.store.rglob("*")]:
        os.chown(path, 65534, 65534)
    for folder in [receiver.folder, *receiver.folder.parents]:
        if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(0o755)
    pages = tmp_path / "html"
    pages.mkdir(mode=0o755)
    page = pages / "index.html"
    # This Python may be one that only root can read: what is needed is imported before.
    code = (
        "import encodings.ascii, os, sys\nfrom fullsend_receiver.cli.main import main\n"
        "os.umask(0o022)\nsys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "--config", str(receiver.config), "report", "--html"]
    done = subprocess.run([*command, str(page)], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    status = page.stat()
    assert (status.st_uid, status.st_mode & 0o777) == (0, 0o644)
    assert {path.stat().st_uid for path in receiver.store.rglob("*")} == {65534}
    # What cannot be written is the page's fault, not the store's.
    done = subprocess.run([*command, "/proc/self/status"], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("fullsendd: /proc/self/status cannot be written: ")


def test_what_is_not_a_file_is_not_replaced(receiver: Receiver) -> None:
    fails(receiver.fullsendd("report", "--html", "/dev/null"), 2, "/dev/null: is not a file, and is not replaced")
