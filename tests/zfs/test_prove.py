"""What the receiver has merged is proven by `zfs send` of a real pool, and what has changed since is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.programs import good, rows
from tests.zfs import pools

if TYPE_CHECKING:
    from pathlib import Path

    from tests.programs import Receiver, Sender
    from tests.zfs.pools import Pool

NIGHTS: Final = 5
#: Nothing is kept but the two newest, which nothing touches: the full moves to the third last.
POLICY: Final = 'rebase-after = "1%"\nmerge-rate = 0\n[retention]\nlast = 1\nminimum-count = 0\nminimum-age = "0s"\n'


def nights(pool: Pool, sender: Sender, home: str) -> list[dict[str, Any]]:
    """Push a chain, and keep all its snapshots. Returns: its streams, the full first."""
    config = sender.folder / "sender.toml"
    config.write_text(f"keep = {2 * NIGHTS}\n{config.read_text()}")
    pools.fill(pool.path("home"))
    for night in range(NIGHTS):
        if night:
            pools.change(pool.path("home"), night)
        good(sender.fullsend("push", home))
    return sorted(sender.list(), key=lambda each: int(each["sequence"]))


def merge(receiver: Receiver) -> None:
    with (receiver.folder / "receiver.toml").open("a", encoding="utf-8") as config:
        config.write(POLICY)
    good(receiver.fullsendd("prune"))


def prove(sender: Sender, *arguments: str) -> list[tuple[str, str | None]]:
    """What is found of each stream, and why."""
    return [(row["result"], row["why"]) for row in rows(sender.fullsend("prove", "--json", *arguments).stdout)]


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "raw"])
def test_a_merged_full_is_proven(
    pool: Pool, receiver: Receiver, sender: Sender, tmp_path: Path, encrypted: bool
) -> None:
    """With properties (-p), as `push` sends them; an encrypted one raw, with the dataset's keys."""
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    secret = ("-o", "encryption=on", "-o", "keyformat=raw", "-o", f"keylocation=file://{key}") if encrypted else ()
    home = pool.create("home", "-o", "compression=lz4", *secret)
    chain = nights(pool, sender, home)
    assert prove(sender, home) == [("same", None)] * NIGHTS

    merge(receiver)
    full, one, two = sorted(sender.list(), key=lambda each: int(each["sequence"]))
    assert (full["kind"], full["guid"]) == ("full", chain[-3]["guid"])
    assert prove(sender) == [("same", None)]
    assert prove(sender) == []  # it is proven

    # Properties are those of then; what was written since is in no snapshot.
    pools.zfs("set", "user:note=later", "compression=gzip", home)
    pools.change(pool.path("home"), NIGHTS)
    (row,) = rows(good(sender.fullsend("prove", "--again", "--json")))
    assert (row["result"], row["properties_changed"]) == ("same", True)

    # By the state alone: the base is gone here, and its bookmark, too.
    base, last = (f"{home}@{each['snapshot']}" for each in (one, two))
    tags = [line.split("\t")[1] for line in pools.zfs("holds", "-H", base).decode().splitlines()]
    for tag in tags:
        pools.zfs("release", tag, base)
    pools.zfs("destroy", base)
    for name in pool.names("bookmark"):
        pools.zfs("destroy", name)
    assert prove(sender, last)[0][0] == "impossible"
    assert prove(sender, "--whole", last) == [("state", None)]

    # What is renamed has another name in its first record, so the bytes cannot be the same.
    pools.zfs("rename", f"{home}@{full['snapshot']}", f"{home}@renamed")
    ((result, why),) = prove(sender, "--again")
    assert (result, "it was sent as" in str(why)) == ("impossible", True)


def test_a_damaged_merge_is_found(pool: Pool, receiver: Receiver, sender: Sender) -> None:
    """What no check of the receiver finds: a merge that is whole, and wrong. A wrong hash stands for it."""
    home = pool.create("home")
    nights(pool, sender, home)
    merge(receiver)
    (full, *_more) = sorted(sender.list(), key=lambda each: int(each["sequence"]))
    path = receiver.store / f"{full['file']}.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(full["sha256"], "5c" * 32), encoding="utf-8")
    done = sender.fullsend("prove")
    assert done.returncode == 1
    assert b"is DIFFERENT from `zfs send`" in done.stdout
    config = sender.folder / "sender.toml"
    config.write_text(
        f'prove-after-push = true\n{config.read_text()}\n[[push]]\ndatasets = ["{home}"]\n', encoding="utf-8"
    )
    pools.change(pool.path("home"), NIGHTS)
    done = sender.fullsend("push", "--json")
    assert (done.returncode, len(rows(done.stdout))) == (1, 1)  # it is pushed nevertheless
    path.write_text(text, encoding="utf-8")
    assert sender.fullsend("push").returncode == 0
    assert prove(sender) == []
