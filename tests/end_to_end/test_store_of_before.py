"""A store, a partial and a sender that an older version left are served, resumed and restored by this one.

tests/data/before/README.md says which version wrote them, and how.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests import streams
from tests.data.load import HERE
from tests.programs import Receiver, Sender, good, rows, started
from tests.receiver.helpers import push_of

from fullsend_protocol.format.manifest import Manifest
from fullsend_receiver.arrival import overruns
from fullsend_receiver.arrival.overruns import OverrunRecord
from fullsend_receiver.store.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Iterator

BEFORE: Final = HERE / "before"
WHOLE: Final = ("full", "incr", "tree-R", "full-enc-w")
#: Its file was damaged, and `verify` found that.
DAMAGED: Final = "odd-name"
#: All of it had come, and nothing was in place yet.
PROVEN: Final = "incr-2"
#: What had come of it, and when it was first offered.
PARTIAL: Final = "long"
ARRIVED: Final = 8411960
OFFERED: Final = "2026-11-27T03:28:54Z"


def sender_of_before(folder: Path, port: int) -> Sender:
    """The host that was enrolled then, told where the receiver is now."""
    shutil.copytree(BEFORE / "sender", folder)
    (folder / "key.pem").chmod(0o600)
    config = folder / "sender.toml"
    text = config.read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith("address = ")]
    config.write_text(text.replace(line, f'address = "127.0.0.1:{port}"'), encoding="utf-8")
    return Sender(folder, "alpha", inside=True)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Receiver, Sender]]:
    receiver = Receiver(tmp_path / "receiver", inside=True)
    # The files are new, because a partial that is two weeks old is deleted.
    shutil.copytree(BEFORE / "store", receiver.store, copy_function=shutil.copyfile)
    receiver.init("--adopt", min_free=0)
    with started(receiver):
        yield receiver, sender_of_before(tmp_path / "sender", receiver.port)


def name_of(stream: str) -> str:
    return str(streams.named(stream).begins[0]["toname"])


def by_name(entries: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {f"{entry['dataset']}@{entry['snapshot']}": entry for entry in entries}


def on_the_wire(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a receiver lists, without what only its own commands tell."""
    return [{key: entry[key] for key in entry.keys() - {"pinned", "whole_since", "unreadable"}} for entry in entries]


def check_restored(receiver: Receiver, sender: Sender, stream: str) -> None:
    entry = by_name(sender.list())[name_of(stream)]
    assert (entry["damaged"], entry["restorable"]) == (None, True)
    raw = streams.named(stream).read()
    assert good(sender.fullsend("cat", entry["file"])) == raw
    assert good(receiver.fullsendd("cat", entry["file"])) == raw


def test_it_is_listed_verified_and_given_back_byte_for_byte(hosts: tuple[Receiver, Sender]) -> None:
    receiver, sender = hosts
    entries = by_name(sender.list())
    assert entries.keys() == set(map(name_of, (*WHOLE, DAMAGED, PROVEN)))
    assert by_name(on_the_wire(receiver.list())) == entries
    for stream in (*WHOLE, PROVEN):
        check_restored(receiver, sender, stream)
    assert entries[name_of(PROVEN)]["base"] == name_of("incr")
    # What a check found then is known without another one, and another one finds the same.
    damaged = entries[name_of(DAMAGED)]
    assert "chunk 0" in damaged["damaged"]
    assert damaged["restorable"] is False
    assert sender.fullsend("cat", damaged["file"]).returncode == 1
    checked = {row["file"]: bool(row["damage"]) for row in rows(sender.fullsend("verify", "--json").stdout)}
    assert checked == {entry["file"]: entry is damaged for entry in entries.values()}
    assert on_the_wire(receiver.list()) == sender.list()


def test_its_partial_is_resumed_and_stored_byte_for_byte(hosts: tuple[Receiver, Sender]) -> None:
    receiver, sender = hosts
    (partial,) = sender.list("--partial")
    assert name_of(PARTIAL) == f"{partial['dataset']}@{partial['snapshot']}"
    assert (partial["raw_bytes"], partial["resume_offset"], partial["started"]) == (ARRIVED, ARRIVED, OFFERED)
    raw = streams.named(PARTIAL).read()
    (pushed,) = sender.push("--stdin", stdin=raw)
    borders = [(each["start"], each["end"]) for each in pushed["receipt"]["segments"]]
    assert borders == [(0, ARRIVED), (ARRIVED, len(raw))]
    assert sender.list("--partial") == []
    check_restored(receiver, sender, PARTIAL)
    manifest = json.loads((receiver.store / (pushed["receipt"]["file"] + ".json")).read_bytes())
    assert (manifest["begun"], [each["offset"] for each in manifest["resumptions"]]) == (OFFERED, [ARRIVED])
    assert rows(good(sender.fullsend("verify", "--json", partial["dataset"])))[0]["damage"] == []


def test_what_was_in_place_is_left_as_it_was(hosts: tuple[Receiver, Sender]) -> None:
    receiver, sender = hosts
    good(sender.fullsend("list"))
    there = [path for path in (BEFORE / "store" / "alpha").rglob("*") if path.is_file()]
    assert len(there) == 3 * len((*WHOLE, DAMAGED))
    for path in there:
        assert (receiver.store / path.relative_to(BEFORE / "store")).read_bytes() == path.read_bytes()
        if path.suffix == ".json":  # this version would write the same
            assert Manifest.model_validate_json(path.read_bytes()).to_json() == path.read_bytes()
    assert not list((receiver.store / ".partial").glob("*.damaged"))


def test_what_else_was_written_down_is_known(hosts: tuple[Receiver, Sender]) -> None:
    receiver, sender = hosts
    said = {row["dataset"]: row for row in rows(sender.fullsend("status", "--json").stdout)}
    tree = streams.named("tree-R").begins[0]["toname"].partition("@")[0]
    assert said[tree]["unchanged"] == "2026-11-27T03:28:56Z"
    assert overruns.find(
        LocalStore(receiver.store), "alpha", push_of(streams.named("full-vol").read())
    ) == OverrunRecord(400_000, 300_000)
    (enrolled,) = rows(good(receiver.fullsendd("senders", "--json")))
    assert (enrolled["sender"], enrolled["revoked"]) == ("alpha", None)
