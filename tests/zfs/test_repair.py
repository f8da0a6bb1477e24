"""Streams are damaged on the storage host: the next night heals the chain by itself, and all of it restores."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.programs import good, rows
from tests.zfs import pools

if TYPE_CHECKING:
    from tests.programs import Receiver, Sender
    from tests.zfs.pools import Pool

NIGHTS: Final = 5


def keep_all(sender: Sender) -> None:
    """Let this host keep its snapshots."""
    config = sender.folder / "sender.toml"
    config.write_text(f"keep = {2 * NIGHTS}\n{config.read_text()}")


def nights(pool: Pool, sender: Sender, home: str) -> list[dict[str, Any]]:
    """Push a chain. Returns: its streams, the full first."""
    for night in range(NIGHTS):
        if night:
            pools.change(pool.path("home"), night)
        good(sender.fullsend("push", home))
    return sorted(sender.list(), key=lambda each: int(each["sequence"]))


def flip(receiver: Receiver, file: str) -> None:
    path = receiver.store / file
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


def check(receiver: Receiver, *damaged: str) -> None:
    done = receiver.fullsendd("verify", "--json")
    assert [each["file"] for each in rows(done.stdout) if each["damage"]] == sorted(damaged)


def manifest(receiver: Receiver, file: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((receiver.store / f"{file}.json").read_text())
    return found


def restored(pool: Pool, other_pool: Pool, sender: Sender, home: str) -> None:
    """Restore the dataset into the other pool, and compare all files with the source."""
    good(sender.fullsend("restore", home, "--into", other_pool.full("home"), "--mountable"))
    other_pool.mount("home")
    assert pools.tree(other_pool.path("home")) == pools.tree(pool.path("home"))


def test_the_next_night_heals_by_itself(pool: Pool, other_pool: Pool, receiver: Receiver, sender: Sender) -> None:
    """Whichever stream of the chain it is: each in its turn, since an emulated processor takes minutes for a chain."""
    home = pool.create("home")
    pools.fill(pool.path("home"))
    keep_all(sender)
    chain = nights(pool, sender, home)
    for number, stored in enumerate(chain):
        file = stored["file"]
        flip(receiver, file)
        check(receiver, file)
        assert [each["restorable"] for each in sender.list()].count(False) == NIGHTS

        pools.change(pool.path("home"), NIGHTS + number)
        done = sender.fullsend("push", "--json", home)
        first, last = rows(good(done))
        assert (first["snapshot"], first["kind"]) == (stored["snapshot"], stored["kind"])
        assert "was damaged" in first["repair"]
        assert (last["kind"], last["repair"]) == ("incremental", None)
        assert b"is sent again" in done.stderr
        assert manifest(receiver, file)["replacements"][0]["same_bytes"] is True
        check(receiver)
        assert all(each["restorable"] for each in sender.list())
    restored(pool, other_pool, sender, home)


def test_a_property_that_was_changed_makes_other_bytes_and_the_chain_restores(
    pool: Pool, other_pool: Pool, receiver: Receiver, sender: Sender
) -> None:
    home = pool.create("home")
    pools.fill(pool.path("home"))
    keep_all(sender)
    chain = nights(pool, sender, home)
    pools.zfs("set", "compression=gzip-9", home)
    flip(receiver, chain[1]["file"])
    check(receiver, chain[1]["file"])
    pools.change(pool.path("home"), NIGHTS)
    pushed = sender.push(home)
    assert [(each["snapshot"], each["kind"]) for each in pushed[:1]] == [(chain[1]["snapshot"], "incremental")]
    assert manifest(receiver, chain[1]["file"])["replacements"][0]["same_bytes"] is False
    check(receiver)
    restored(pool, other_pool, sender, home)


def test_where_only_a_bookmark_is_left_of_the_base(
    pool: Pool, other_pool: Pool, receiver: Receiver, sender: Sender
) -> None:
    home = pool.create("home")
    pools.fill(pool.path("home"))
    keep_all(sender)
    chain = nights(pool, sender, home)
    pools.zfs("destroy", f"{home}@{chain[-2]['snapshot']}")
    flip(receiver, chain[-1]["file"])
    check(receiver, chain[-1]["file"])
    (pushed,) = sender.push(home)  # nothing was written since
    assert pushed["snapshot"] == chain[-1]["snapshot"]
    check(receiver)
    restored(pool, other_pool, sender, home)


def test_without_any_of_its_snapshots_a_full_is_sent(
    pool: Pool, other_pool: Pool, receiver: Receiver, sender: Sender
) -> None:
    home = pool.create("home")
    pools.fill(pool.path("home"))
    chain = nights(pool, sender, home)
    flip(receiver, chain[0]["file"])
    check(receiver, chain[0]["file"])
    pools.change(pool.path("home"), NIGHTS)
    (pushed,) = sender.push(home)
    assert pushed["kind"] == "full"
    assert "is damaged" in pushed["repair"]
    restored(pool, other_pool, sender, home)


def test_zfs_receive_stops_at_the_hole_of_a_stream_that_was_salvaged(
    pool: Pool, other_pool: Pool, receiver: Receiver, sender: Sender
) -> None:
    """As docs/operations.md says."""
    home = pool.create("home")
    pools.fill(pool.path("home"), size=24 << 20)
    (pushed,) = sender.push(home)
    file = pushed["receipt"]["file"]
    flip(receiver, file)
    done = sender.fullsend("cat", "--skip-damaged", file)
    assert done.returncode == 1
    assert b"hole: chunk " in done.stderr
    assert 0 < len(done.stdout) < pushed["raw_bytes"]
    with pytest.raises(AssertionError):
        other_pool.receive(done.stdout, "-u", other_pool.full("home"))
    assert other_pool.full("home") not in other_pool.names()
