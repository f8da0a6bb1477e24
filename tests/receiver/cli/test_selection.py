"""What a command's words name."""

from __future__ import annotations

import json
from pathlib import PurePosixPath

import pytest
from tests import streams
from tests.receiver.command import fails
from tests.receiver.helpers import SENDER, manifest_path, store_stream
from tests.receiver.running import Receiver

from fullsend_receiver.store.local import LocalStore


def test_an_unknown_sender_is_named(filled: tuple[Receiver, PurePosixPath, PurePosixPath]) -> None:
    fails(filled[0].fullsendd("list", "beta"), 2, "no sender 'beta'")


@pytest.mark.parametrize("command", ["list", "verify"])
@pytest.mark.parametrize("dataset", ["tank/typo", "tank", "tank/plain/", "tank/plain@s1"])
def test_a_dataset_of_which_nothing_is_stored_is_named(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath], command: str, dataset: str
) -> None:
    says = f"alpha/{dataset}: nothing of that name is stored (see `fullsendd list alpha`)"
    fails(filled[0].fullsendd(command, f"alpha/{dataset}"), 2, says)
    fails(filled[0].fullsendd(command, f"alpha/{dataset}", "--json"), 2, says)


@pytest.mark.parametrize("command", ["list", "verify"])
def test_a_sender_whose_folder_is_empty_is_named(receiver: Receiver, command: str) -> None:
    (receiver.store / "alpha").mkdir()
    fails(receiver.fullsendd(command, "alpha"), 2, "no sender 'alpha' has streams here")
    assert receiver.fullsendd(command).returncode == 0


@pytest.mark.parametrize("name", ["alpha", "alpha/tank/plain"])
def test_what_cannot_be_read_is_no_name_that_fits_nothing(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath], name: str
) -> None:
    receiver, *files = filled
    for file in files:
        manifest_path(LocalStore(receiver.store), file).write_text("garbage", encoding="utf-8")
    done = receiver.fullsendd("list", name)
    assert (done.returncode, done.stdout) == (1, "")
    assert all(f"fullsendd: {file}.json: cannot be read: " in done.stderr for file in files)
    fails(receiver.fullsendd("list", "alpha/tank/typo"), 2, "alpha/tank/typo: nothing of that name is stored")


@pytest.mark.parametrize("way", ["name", "guid", "file", "last component"])
def test_a_stream_is_shown_by_any_of_its_names(filled: tuple[Receiver, PurePosixPath, PurePosixPath], way: str) -> None:
    receiver, full, _incr = filled
    row = receiver.listed()[0]
    name = {
        "name": "alpha/tank/plain@s1",
        "guid": f"alpha/guid:{row['guid']}",
        "file": str(full),
        "last component": f"alpha/{full.name}",
    }[way]
    shown = json.loads(receiver.fullsendd("show", name, "--json").stdout)
    assert shown["file"] == str(full)
    assert shown["segments"] == [{"start": 0, "end": row["raw_bytes"], "sha256": row["sha256"]}]
    text = receiver.fullsendd("show", name).stdout
    assert f"dataset            {row['dataset']}\n" in text
    assert "base_guid          -\n" in text


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("alpha/tank/plain@nope", 1, "no such stream"),
        ("beta/tank/plain@s1", 1, "no such stream"),
        ("alpha", 2, "name it as SENDER/DATASET@SNAPSHOT"),
        ("../alpha/tank/plain@s1", 2, "is not a sender's name"),
    ],
)
@pytest.mark.parametrize("command", ["show", "cat"])
def test_a_stream_that_is_not_there_is_named(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath], command: str, name: str, code: int, says: str
) -> None:
    fails(filled[0].fullsendd(command, name), code, says)


def test_an_ambiguous_name_is_refused_with_its_candidates(receiver: Receiver) -> None:
    store = LocalStore(receiver.store)
    files = [store_stream(store, SENDER, streams.named(name).read()) for name in ("full-large", "full-large-L")]
    done = receiver.fullsendd("cat", "alpha/tank/large@s1")
    fails(done, 2, "2 streams fit")
    assert all(file.name in done.stderr for file in files)


@pytest.mark.parametrize(
    ("command", "name"),
    [("list", ".."), ("verify", ".."), ("verify", "../.."), ("show", ".state"), ("cat", "/etc"), ("list", "Alpha")],
)
def test_no_command_looks_outside_of_the_senders_folders(receiver: Receiver, command: str, name: str) -> None:
    done = receiver.fullsendd(command, f"{name}/x")
    fails(done, 2, "is not a sender's name")
