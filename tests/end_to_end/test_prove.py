"""What the receiver has merged is proven by its host, by both programs as they are."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests import streams
from tests.chains import named
from tests.fakezfs import FakeZfs
from tests.genuine_zfs import GenuineZfs
from tests.programs import Receiver, Sender, good, rows
from tests.receiver.helpers import store_stream
from tests.sender.monitor.test_prove import with_another_hole

from fullsend_protocol.stream.merge import MergeInput, merge
from fullsend_protocol.stream.records import RecordType
from fullsend_receiver.store.local import LocalStore

if TYPE_CHECKING:
    from pathlib import Path

CHAIN: Final = named("sp-nospill")
#: Nothing is kept but the two newest, which nothing touches.
POLICY: Final = 'rebase-after = "1%"\nmerge-rate = 0\n[retention]\nlast = 1\nminimum-count = 0\nminimum-age = "0s"\n'


def merged(*raws: bytes) -> bytes:
    return b"".join(bytes(piece) for piece in merge([MergeInput("it", [raw]) for raw in raws]))


def with_another_block(raw: bytes) -> bytes:
    """The same stream, with another byte in its last block."""
    block = [each for each in streams.split(raw) if each.kind == RecordType.WRITE][-1]
    return raw[: block.end - 1] + bytes([raw[block.end - 1] ^ 1]) + raw[block.end :]


@pytest.fixture
def host(receiver: Receiver, sender: Sender) -> Sender:
    """A sender whose commands run inside the test, which is faster; the daemon is a process."""
    receiver.inside = True
    return replace(sender, inside=True)


def configure(sender: Sender, text: str) -> None:
    config = sender.folder / "sender.toml"
    config.write_text(f"{text}\n{config.read_text()}")


def proofs(receiver: Receiver) -> list[tuple[str, str]]:
    """The file of each proof, and how."""
    path = receiver.store / ".state" / "merged.alpha.json"
    found: list[dict[str, Any]] = json.loads(path.read_text())["proven"] if path.exists() else []
    return [(each["file"], each["how"]) for each in found]


# Each hash on the receiver is made at the lowest priority: where both processors are busy it takes as long as they are.
@pytest.mark.slow
def test_a_genuine_chain_is_merged_and_proven(receiver: Receiver, host: Sender, tmp_path: Path) -> None:
    raws = [raw for _name, raw in CHAIN.run(None, 3)]
    store = LocalStore(receiver.store)
    for raw in raws:
        store_stream(store, host.name, raw)
    stored = host.list()
    home = stored[0]["dataset"]
    names = [f"{home}@{each['snapshot']}" for each in stored]
    zfs = GenuineZfs.make(tmp_path / "zfs")
    zfs.dataset(home)
    for each in stored:
        zfs.add(home, each["snapshot"], each["guid"])
    for number, name in enumerate(names):
        zfs.sends(merged(*raws[: number + 1]) if number else raws[0], name)
        if number:
            zfs.sends(raws[number], "-i", names[number - 1], name)
    configure(host, f'zfs-command = "{zfs.program}"')

    # Nothing is merged yet, and all can be compared.
    assert host.fullsend("prove").stdout == b""
    assert [row["result"] for row in rows(good(host.fullsend("prove", "--json", home)))] == ["same"] * 4

    with (receiver.folder / "receiver.toml").open("a") as config:
        config.write(POLICY)
    good(receiver.fullsendd("prune"))
    (full, one, two) = sorted(receiver.list(), key=lambda each: each["sequence"])
    assert (full["kind"], full["snapshot"]) == ("full", stored[1]["snapshot"])
    assert json.loads((receiver.store / f"{full['file']}.json").read_text())["proven_by"] == "merge"

    assert (full["file"], "stream") not in proofs(receiver)
    (row,) = rows(good(host.fullsend("prove", "--json")))
    assert (row["file"], row["result"]) == (full["file"], "same")
    assert (full["file"], "stream") in proofs(receiver)
    assert good(host.fullsend("prove", "-v")) == b"nothing is left to prove\n"

    # An increment with other bytes here: the state is the same, and the daemon merges to find that out.
    for own, alike in ((with_another_hole(raws[3]), True), (with_another_block(raws[3]), False)):
        zfs.sends(own, "-i", names[2], names[3])
        (row,) = rows(good(host.fullsend("prove", "--json", names[3])))
        assert (row["file"], row["result"], row["but_for_frees"]) == (two["file"], "state", alike)
    assert proofs(receiver)[-1] == (two["file"], "state")
    zfs.lose(names[1])
    (row,) = rows(good(host.fullsend("prove", "--json", names[2])))
    assert row["result"] == "impossible"
    (row,) = rows(good(host.fullsend("prove", "--whole", "--json", names[2])))
    assert (row["file"], row["result"]) == (one["file"], "state")

    zfs.sends(merged(*raws[:2])[:-1], names[1])
    zfs.add(home, stored[1]["snapshot"], stored[1]["guid"])
    done = host.fullsend("prove", "--again")
    assert (done.returncode, done.stdout.count(b"DIFFERENT")) == (1, 1)
    assert done.stderr == b"fullsend: not the same, or not compared: 1 of 1 stream\n"


def test_after_the_push_what_was_merged_is_proven(receiver: Receiver, host: Sender, tmp_path: Path) -> None:
    fake = FakeZfs.make(tmp_path / "zfs")
    fake.create("tank/a")
    configure(host, f'zfs-command = "{fake.program}"\nkeep = 9\nprove-after-push = true\n')
    with (host.folder / "sender.toml").open("a") as config:
        config.write('[[push]]\ndatasets = ["tank/a"]\n')
    good(host.fullsend("push"))
    (full,) = receiver.list()
    assert proofs(receiver) == []  # it came as it is

    path = receiver.store / f"{full['file']}.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"proven_by": "merge"}))
    fake.forget_commands()
    done = host.fullsend("push", "tank/a")
    assert (done.returncode, done.stderr, proofs(receiver)) == (0, b"", [])  # only after a push of all
    done = host.fullsend("push", "-n")
    assert (done.returncode, proofs(receiver)) == (0, [])
    assert not any(line.startswith("send -L") and "@" in line for line in fake.commands)
    done = host.fullsend("push", "-v")
    assert (done.returncode, b"is the same as `zfs send`" in done.stderr) == (0, True), done.stderr
    assert proofs(receiver) == [(full["file"], "stream")]
    fake.forget_commands()
    good(host.fullsend("push"))
    assert not any(line.startswith("send") for line in fake.commands)  # it is proven

    # Another stream of this name is not proven, and this one is not what the host has.
    path.write_text(
        json.dumps(manifest | {"proven_by": "merge", "sha256": "5c" * 32, "received": "2026-11-23T06:30:00Z"})
    )
    fake.change("tank/a")
    done = host.fullsend("push", "--json")
    assert done.returncode == 1
    assert [row["kind"] for row in rows(done.stdout)] == ["incremental"]  # it was pushed nevertheless
    assert b"is DIFFERENT from `zfs send`" in done.stderr
    assert len(receiver.list()) == 2

    # What cannot be compared is said, and is no failure of the push.
    fake.edit(lambda state: state["fail"].update({"send": "die"}))
    done = host.fullsend("push")
    assert (done.returncode, b"was not compared" in done.stderr) == (0, True), done.stderr
