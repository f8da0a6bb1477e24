"""A stream is damaged on the storage host: the next push mends the chain by itself, and says so."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path
from typing import Any, Final

import pytest
from tests import streams
from tests.fakezfs import FakeZfs
from tests.programs import Receiver, Sender, good, rows, stored_files

pytestmark = pytest.mark.slow

NIGHTS: Final = 5


@pytest.fixture
def fake(sender: Sender, tmp_path: Path) -> FakeZfs:
    """The sender's `zfs`, with one dataset."""
    fake = FakeZfs.make(tmp_path / "zfs")
    fake.create("tank/a")
    config = sender.folder / "sender.toml"
    config.write_text(f'zfs-command = "{fake.program}"\nkeep = 9\n{config.read_text()}')
    return fake


def night(sender: Sender, fake: FakeZfs) -> tuple[list[dict[str, Any]], str]:
    """Write something, and push. Returns: what was pushed, and what was said on stderr."""
    fake.change("tank/a")
    done = sender.fullsend("push", "--json", "tank/a")
    return rows(good(done)), done.stderr.decode()


def nights(sender: Sender, fake: FakeZfs) -> list[dict[str, Any]]:
    """Push a chain. Returns: its streams, the full first."""
    for _number in range(NIGHTS):
        night(sender, fake)
    return sorted(sender.list(), key=lambda each: int(each["sequence"]))


def flip(receiver: Receiver, file: str, at: int = 100) -> None:
    """Change a byte of a stored file."""
    path = receiver.store / file
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def lose(fake: FakeZfs, snapshot: str) -> None:
    """Destroy a snapshot of the dataset; a bookmark stays."""

    def change(state: dict[str, Any]) -> None:
        about = state["datasets"]["tank/a"]
        about["snapshots"] = [each for each in about["snapshots"] if each["name"] != snapshot]

    fake.edit(change)


def found_by_check(receiver: Receiver, *damaged: str) -> None:
    """Let the receiver check everything: exactly these are damaged."""
    done = receiver.fullsendd("verify", "--json")
    assert done.returncode == (1 if damaged else 0)
    assert [each["file"] for each in rows(done.stdout) if each["damage"]] == sorted(damaged)


def aside(receiver: Receiver) -> list[str]:
    return sorted(path.name.partition(".")[2] for path in (receiver.store / ".partial").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("number", range(NIGHTS))
def test_the_next_night_mends_each_stream_of_a_chain(
    receiver: Receiver, sender: Sender, fake: FakeZfs, number: int
) -> None:
    chain = nights(sender, fake)
    file = chain[number]["file"]
    before = (receiver.store / file).read_bytes()
    flip(receiver, file)
    found_by_check(receiver, file)
    assert [each["restorable"] for each in sorted(sender.list(), key=lambda each: each["sequence"])] == [
        place < number for place in range(NIGHTS)
    ]
    assert sender.fullsend("status").returncode == (2 if number == 0 else 1)

    pushed, said = night(sender, fake)

    assert [each["snapshot"] for each in pushed][:-1] == [chain[number]["snapshot"]]
    assert [each["kind"] for each in pushed] == [chain[number]["kind"], "incremental"]
    assert f"tank/a@{chain[number]['snapshot']}: is sent again: the receiver's copy of" in said
    assert "damaged (chunk 0" in pushed[0]["repair"]
    assert pushed[0]["receipt"]["restorable"]
    assert pushed[1]["repair"] is None
    assert (receiver.store / file).read_bytes() == before
    after = sender.list()
    assert len(after) == NIGHTS + 1
    assert all(each["restorable"] and each["damaged"] is None for each in after)
    # The order of reception is as it was: a mended stream is no newer state.
    kept = {each["file"]: each["sequence"] for each in after}
    assert [kept[each["file"]] for each in chain] == [each["sequence"] for each in chain]
    assert sender.fullsend("status").returncode == 0
    assert aside(receiver) == ["about.damaged", "json.damaged", "sha256.damaged", "zst.damaged"]
    found_by_check(receiver)
    pushed, said = night(sender, fake)
    assert ([each["kind"] for each in pushed], said) == (["incremental"], "")


def test_without_its_snapshot_the_increment_is_passed_over_or_a_full_is_sent(
    receiver: Receiver, sender: Sender, fake: FakeZfs
) -> None:
    chain = nights(sender, fake)
    flip(receiver, chain[3]["file"])
    found_by_check(receiver, chain[3]["file"])
    for each in chain[3:]:
        lose(fake, each["snapshot"])
    (pushed,), said = night(sender, fake)
    assert (pushed["kind"], pushed["base_guid"]) == ("incremental", chain[2]["guid"])
    assert f"builds on an older snapshot: the receiver's copy of @{chain[3]['snapshot']} is damaged" in said
    assert "is damaged" in pushed["repair"]
    assert [each["restorable"] for each in sender.list()].count(False) == 2
    assert sender.fullsend("status").returncode == 1  # young enough, but two nights are lost


def test_without_any_of_its_snapshots_a_full_is_sent(receiver: Receiver, sender: Sender, fake: FakeZfs) -> None:
    chain = nights(sender, fake)
    flip(receiver, chain[0]["file"])
    found_by_check(receiver, chain[0]["file"])
    for each in chain[:-1]:
        lose(fake, each["snapshot"])
    (pushed,), said = night(sender, fake)
    assert pushed["kind"] == "full"
    assert f"a new full: the receiver's copy of @{chain[0]['snapshot']} is damaged" in said
    assert "and this host cannot send it again" in said
    assert "is damaged" in pushed["repair"]
    assert sorted(each["restorable"] for each in sender.list()) == [False] * NIGHTS + [True]


def test_a_bookmark_is_enough_of_a_base(receiver: Receiver, sender: Sender, fake: FakeZfs) -> None:
    chain = nights(sender, fake)
    flip(receiver, chain[-1]["file"])
    found_by_check(receiver, chain[-1]["file"])
    lose(fake, chain[-2]["snapshot"])  # its bookmark stays
    pushed, _said = night(sender, fake)
    assert next(each["snapshot"] for each in pushed) == chain[-1]["snapshot"]
    assert any(line.startswith("send -L -p -i 'tank/a#") for line in fake.commands)
    assert all(each["restorable"] for each in sender.list())


def test_several_are_mended_in_their_order_until_a_full_is_cheaper(
    receiver: Receiver, sender: Sender, fake: FakeZfs
) -> None:
    """The increments of this `zfs` have the size of a full."""
    chain = nights(sender, fake)
    for number in (0, 1):
        flip(receiver, chain[number]["file"])
    found_by_check(receiver, *(each["file"] for each in chain[:2]))
    done = sender.fullsend("push", "-n", "tank/a")
    assert done.stdout.decode().count("because the receiver's copy of") == 2
    pushed, _said = night(sender, fake)
    assert [each["snapshot"] for each in pushed][:2] == [each["snapshot"] for each in chain[:2]]
    assert [each["kind"] for each in pushed] == ["full", "incremental", "incremental"]
    assert all(each["restorable"] for each in sender.list())
    for each in chain[1:]:
        flip(receiver, each["file"])
    found_by_check(receiver, *(each["file"] for each in chain[1:]))
    (pushed_one,), said = night(sender, fake)
    assert pushed_one["kind"] == "incremental"
    assert pushed_one["base_guid"] == chain[0]["guid"]
    assert "builds on an older snapshot" in said


def test_a_dataset_without_changes_is_mended_and_not_called_unchanged_before(
    receiver: Receiver, sender: Sender, fake: FakeZfs
) -> None:
    chain = nights(sender, fake)
    flip(receiver, chain[-1]["file"])
    found_by_check(receiver, chain[-1]["file"])
    (pushed,) = sender.push("tank/a")
    assert pushed["snapshot"] == chain[-1]["snapshot"]
    assert sender.push("tank/a") == []
    assert all(each["restorable"] for each in sender.list())


def test_a_stream_that_is_not_the_same_bytes_any_more_replaces_it_and_the_manifest_says_so(
    receiver: Receiver, sender: Sender, fake: FakeZfs
) -> None:
    chain = nights(sender, fake)
    fake.edit(lambda state: state["datasets"]["tank/a"].update(drift=1))
    flip(receiver, chain[2]["file"])
    found_by_check(receiver, chain[2]["file"])
    pushed, _said = night(sender, fake)
    assert pushed[0]["snapshot"] == chain[2]["snapshot"]
    assert pushed[0]["sha256"] != chain[2]["sha256"]
    manifest = json.loads((receiver.store / f"{chain[2]['file']}.json").read_text())
    (was,) = manifest["replacements"]
    assert was["same_bytes"] is False
    assert was["received"] == chain[2]["received"]
    assert all(each["restorable"] for each in sender.list())


def test_a_full_that_is_asked_for_and_takes_the_place_of_a_damaged_one_says_so(
    receiver: Receiver, sender: Sender, fake: FakeZfs
) -> None:
    (pushed,), _said = night(sender, fake)
    (stored,) = sender.list()
    flip(receiver, stored["file"])
    found_by_check(receiver, stored["file"])
    done = sender.fullsend("push", "--full", f"tank/a@{pushed['snapshot']}")
    assert good(done) == b""
    assert f"tank/a@{pushed['snapshot']}: it replaces the receiver's copy, which was damaged" in done.stderr.decode()
    assert [each["restorable"] for each in sender.list()] == [True]


# --- --stdin ----------------------------------------------------------------------------------------------------


def test_a_stream_from_stdin_replaces_a_damaged_one(receiver: Receiver, sender: Sender) -> None:
    raw, more = streams.named("full").read(), streams.named("incr").read()
    sender.push("--stdin", stdin=raw)
    sender.push("--stdin", stdin=more)
    full, _incr = sorted(each["file"] for each in sender.list())
    whole = (receiver.store / full).read_bytes()
    flip(receiver, full)
    # Nobody has looked yet: it counts as whole, and what a sender sends changes nothing.
    (again,) = sender.push("--stdin", stdin=raw)
    assert (again["wire_bytes"], again["repair"]) == (0, None)
    found_by_check(receiver, full)
    done = sender.fullsend("push", "--stdin", "--json", stdin=raw)
    (again,) = rows(good(done))
    assert again["wire_bytes"] > 0
    assert "it replaces the receiver's copy, which was damaged (chunk 0" in again["repair"]
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith(
        f"fullsend: {again['dataset']}@{again['snapshot']}: it replaces the receiver's copy, which was"
    )
    assert (receiver.store / full).read_bytes() == whole
    assert [each["restorable"] for each in sender.list()] == [True, True]
    (third,) = sender.push("--stdin", stdin=raw)
    assert (third["wire_bytes"], third["repair"]) == (0, None)


@pytest.mark.parametrize("fault", ["missing", "cut", "other"])
def test_a_file_that_is_missing_or_cut_or_another_is_replaced(receiver: Receiver, sender: Sender, fault: str) -> None:
    raw, other = streams.named("full").read(), streams.named("incr").read()
    sender.push("--stdin", stdin=raw)
    sender.push("--stdin", stdin=other)
    incr, full = stored_files(receiver) if "from" in stored_files(receiver)[0].name else stored_files(receiver)[::-1]
    whole = full.read_bytes()
    match fault:
        case "missing":
            full.unlink()
        case "cut":
            full.write_bytes(whole[:-1])
        case _:
            shutil.copy(incr, full)
    assert not any(each["restorable"] for each in sender.list())
    (again,) = sender.push("--stdin", stdin=raw)
    assert "which was damaged (the file is missing, or not as long as it was)" in again["repair"]
    assert full.read_bytes() == whole
    assert all(each["restorable"] for each in sender.list())


def test_a_package_is_replaced(receiver: Receiver, sender: Sender) -> None:
    raw = streams.named("tree-R").read()
    sender.push("--stdin", stdin=raw)
    (file,) = stored_files(receiver)
    whole = file.read_bytes()
    flip(receiver, str(file.relative_to(receiver.store)))
    found_by_check(receiver, str(file.relative_to(receiver.store)))
    (again,) = sender.push("--stdin", stdin=raw)
    assert "it replaces" in again["repair"]
    assert file.read_bytes() == whole


def test_a_manifest_that_is_spoilt_is_replaced_with_its_stream(receiver: Receiver, sender: Sender) -> None:
    raw = streams.named("full").read()
    sender.push("--stdin", stdin=raw)
    (file,) = stored_files(receiver)
    Path(f"{file}.json").write_bytes(b"{")
    (again,) = sender.push("--stdin", stdin=raw)
    assert "cannot be read" in again["repair"]
    assert [each["restorable"] for each in sender.list()] == [True]


# --- a part that had arrived -------------------------------------------------------------------------------------


def rot(receiver: Receiver) -> None:
    """Change a byte of the one partial's data."""
    (data,) = (receiver.store / ".partial").glob("*.data")
    content = bytearray(data.read_bytes())
    content[100] ^= 1
    data.write_bytes(content)


def test_a_part_that_a_disk_has_changed_starts_over_in_the_same_run(
    receiver: Receiver, sender: Sender, fake: FakeZfs
) -> None:
    """What was resumed upon it would have got a receipt."""
    fake.create("tank/big", size=20_000_000)
    fake.fail("tank/big@", "cut")
    assert sender.fullsend("push", "tank/big").returncode == 1
    assert len(sender.list("--partial")) == 1
    rot(receiver)
    fake.mend()
    done = sender.fullsend("push", "--json", "tank/big")
    (pushed, *_more) = rows(good(done))
    assert "starts over" in done.stderr.decode()
    assert "chunk 0 (raw bytes 0 to" in done.stderr.decode()
    assert (pushed["resume"], pushed["receipt"]["restorable"]) == ("none", True)
    assert [each["restorable"] for each in sender.list()] == [True] * len(sender.list())
    assert aside(receiver) == ["data.damaged", "journal.damaged"]
    found_by_check(receiver)


def test_a_part_from_stdin_that_a_disk_has_changed_is_refused_once(receiver: Receiver, sender: Sender) -> None:
    noise = random.Random(1)
    raw = streams.substream(
        streams.object_(1), *[streams.write(1, number << 20, noise.randbytes(1 << 20)) for number in range(12)]
    )
    assert sender.fullsend("push", "--stdin", stdin=raw[:-312]).returncode == 1
    rot(receiver)
    done = sender.fullsend("push", "--stdin", stdin=raw)
    assert done.returncode == 1
    assert b"is not as it arrived" in done.stderr
    assert b"run it again to start over" in done.stderr
    assert sender.list() == []
    (pushed,) = sender.push("--stdin", stdin=raw)
    assert pushed["resume"] == "none"
    found_by_check(receiver)


# --- what can still be read -------------------------------------------------------------------------------------


def test_what_is_whole_of_a_damaged_stream_can_be_read_and_each_hole_is_named(
    receiver: Receiver, sender: Sender
) -> None:
    noise = random.Random(1)
    raw = streams.substream(
        streams.object_(1), *[streams.write(1, number << 20, noise.randbytes(1 << 20)) for number in range(14)]
    )
    sender.push("--stdin", stdin=raw)
    (file,) = (each["file"] for each in sender.list())
    flip(receiver, file, 6 << 20)
    for cat in (sender.fullsend("cat", "--skip-damaged", file), receiver.fullsendd("cat", "--skip-damaged", file)):
        said = cat.stderr.decode()
        assert cat.returncode == 1
        (hole,) = re.findall(r"hole: chunk 1 \(raw bytes (\d+) to (\d+)\): ", said)
        start, end = map(int, hole)
        assert cat.stdout == raw[:start] + raw[end:]
        assert "`zfs receive` refuses" in said
    found_by_check(receiver, file)
    sender.push("--stdin", stdin=raw)
    (kept,) = rows(good(receiver.fullsendd("list", "--damaged", "--json")))
    assert kept["what"] == "tank/data@now"
    assert "set aside" in receiver.fullsendd("check").stdout.decode()
    for cat in (
        sender.fullsend("cat", "--skip-damaged", kept["name"]),
        receiver.fullsendd("cat", "--skip-damaged", f"{sender.name}/{kept['name']}"),
    ):
        assert (cat.returncode, cat.stdout) == (1, raw[:start] + raw[end:])
    for cat in (sender.fullsend("cat", "--skip-damaged", file), receiver.fullsendd("cat", "--skip-damaged", file)):
        assert good(cat) == raw
    assert sender.fullsend("cat", "aside:none").returncode == 1
    assert sender.fullsend("cat", kept["name"]).returncode == 1
