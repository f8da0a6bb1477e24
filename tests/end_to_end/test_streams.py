"""Every genuine stream, through both programs as processes over TLS: stored, readable without us, given back."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import streams
from tests.programs import Receiver, Sender, good, rows, serving
from tests.streams import Genuine

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Receiver, Sender]]:
    """One daemon and one sender for all streams: they have to be kept apart there, too."""
    folder = tmp_path_factory.mktemp("streams")
    with serving(folder / "receiver") as receiver:
        sender = Sender(folder / "sender", "alpha")
        sender.join(receiver)
        yield receiver, sender


def _guid(stream: Genuine) -> str:
    """The GUID of the newest snapshot of the stream's top dataset, from MANIFEST.json."""
    dataset = stream.begins[0]["toname"].partition("@")[0]
    return str([each["toguid"] for each in stream.begins if each["toname"].partition("@")[0] == dataset][-1])


def _base_guid(stream: Genuine) -> str | None:
    dataset = stream.begins[0]["toname"].partition("@")[0]
    first = next(each for each in stream.begins if not each["compound"] and each["toname"].partition("@")[0] == dataset)
    return str(first["fromguid"]) if first["fromguid"] else None


def _check(receiver: Receiver, sender: Sender, stream: Genuine) -> dict[str, Any]:
    """Push a stream, and compare what was stored and what comes back with MANIFEST.json."""
    raw = stream.read()
    (pushed,) = sender.push("--stdin", "--allow-orphan", stdin=raw)
    receipt = pushed["receipt"]
    file = receiver.store / receipt["file"]
    plain = subprocess.run(["zstd", "-dcq", file], capture_output=True, check=True).stdout
    assert hashlib.sha256(plain).hexdigest() == stream.sha256 == pushed["sha256"] == receipt["sha256"]
    subprocess.run(["sha256sum", "--quiet", "-c", file.name + ".sha256"], cwd=file.parent, check=True)
    assert (pushed["guid"], pushed["base_guid"], pushed["raw_bytes"]) == (
        _guid(stream),
        _base_guid(stream),
        stream.size,
    )
    assert f"{pushed['dataset']}@{pushed['snapshot']}" == stream.begins[0]["toname"]
    assert good(sender.fullsend("cat", receipt["file"])) == raw
    assert not list((receiver.store / ".partial").glob("*.*"))
    return pushed


#: Brings other snapshots than tree-R-i, and by the design's words (dataset, GUID, base, flags) is the same stream.
TWIN = "tree-R-I"


@streams.each(streams.whole)
def test_goes_there_and_comes_back_byte_for_byte(host: tuple[Receiver, Sender], stream: Genuine) -> None:
    receiver, sender = host
    if stream.name == TWIN:
        sender = Sender(receiver.folder / "twin", "twin")
        sender.join(receiver)
    _check(receiver, sender, stream)


@pytest.mark.timeout(300)  # it reads all of them, twice
def test_what_is_stored_is_listed_verified_and_given_back_by_the_daemons_command(host: tuple[Receiver, Sender]) -> None:
    receiver, sender = host
    listed = sender.list()
    own = {_guid(stream) for stream in streams.whole() if not stream.name.startswith("corpus/")}
    assert own <= {entry["guid"] for entry in listed}
    own_commands = {"pinned", "whole_since", "unreadable"}  # what only the receiver's own commands tell
    assert [{key: row[key] for key in row.keys() - own_commands} for row in receiver.list("alpha")] == listed
    good(receiver.fullsendd("verify"))
    checked = rows(good(sender.fullsend("verify", "--json")))
    assert {row["file"] for row in checked} == {entry["file"] for entry in listed}
    for entry in receiver.list():
        assert entry["verified"], entry
        raw = good(receiver.fullsendd("cat", entry["file"]))
        assert hashlib.sha256(raw).hexdigest() == entry["sha256"]


def test_a_package_with_other_snapshots_is_not_taken_for_the_one_that_is_stored(
    receiver: Receiver, sender: Sender
) -> None:
    sender.push("--stdin", "--allow-orphan", stdin=streams.named("tree-R-i").read())
    done = sender.fullsend("push", "--stdin", "--allow-orphan", stdin=streams.named(TWIN).read())
    assert done.returncode == 3
    assert b"with other snapshots" in done.stderr
    assert len(receiver.list()) == 1


def test_what_is_not_whole_is_refused_by_name_and_not_listed(receiver: Receiver, sender: Sender) -> None:
    reasons = {"resumed": "is a resumed stream", "cut": "cut, or its producer died"}
    for stream in streams.broken():
        done = sender.fullsend("push", "--stdin", stdin=stream.read())
        said = done.stderr.decode()
        assert done.returncode == 1, stream.name
        assert said.count("\n") == 1
        assert reasons.get(stream.sort, "") in said, stream.name
    assert receiver.list() == []


def test_plain_large_raw_and_redacted_sends_of_one_snapshot_are_kept_apart(receiver: Receiver, sender: Sender) -> None:
    names = ["full-large", "full-large-L", "full-large-Lec", "redacted", "redacted-L", "unredacted-L"]
    names += ["full-enc", "full-enc-w"]
    pushed = [_check(receiver, sender, streams.named(name)) for name in names]
    assert len({row["receipt"]["file"] for row in pushed}) == len(names)
    assert len({row["guid"] for row in pushed}) == 3
    by_name = dict(zip(names, pushed, strict=True))
    done = sender.fullsend("cat", f"{by_name['full-large']['dataset']}@{by_name['full-large']['snapshot']}")
    assert done.returncode == 2
    for name in names[:3]:
        assert Path(by_name[name]["receipt"]["file"]).name in done.stderr.decode()
