"""`fullsendd versions` as its user sees it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests import streams
from tests.file_trees import FOLDER, TREES, raw
from tests.receiver.command import fails
from tests.receiver.helpers import SENDER, store_stream

from fullsend_receiver.store.local import LocalStore

if TYPE_CHECKING:
    from tests.receiver.running import Receiver

DATASET = f"{SENDER}/tank/sa"


@pytest.fixture
def stored(receiver: Receiver) -> list[Path]:
    store = LocalStore(receiver.store)
    return [
        receiver.store / store_stream(store, SENDER, raw(FOLDER / f"sa_Lec-{name}.zfs.zst"))
        for name in ("full", "incr")
    ]


def rows(receiver: Receiver, path: str, *options: str, code: int = 0) -> list[dict[str, Any]]:
    done = receiver.fullsendd("versions", "--json", *options, DATASET, path)
    assert done.returncode == code, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.usefixtures("stored")
def test_versions_are_what_the_pool_said(receiver: Receiver) -> None:
    listings = [tree.listing() for tree in TREES[:2]]
    for path, second in (
        ("a/tiny", "attributes"),
        ("a/sparse", "written"),
        ("a/b/f00", "removed"),
        ("/new-0", "created"),
        ("a/none", "replaced"),
        ("a/blk", "none seen"),
    ):
        found = rows(receiver, path)
        assert [each["snapshot"] for each in found] == ["s1", "s2"]
        assert found[1]["change"] == second, (path, found)
        for row, listing in zip(found, listings, strict=True):
            about = listing.get(path.strip("/").encode())
            assert row["there"] == (about is not None)
            if about is not None:
                assert (row["object"], row["mtime"], row["ctime"]) == (about["ino"], about["mtime"], about["ctime"])
        assert found[0]["change"] == ("missing" if second == "created" else "first")
        assert (found[0]["since"], found[1]["since"]) == (None, "s1")
    (last,) = rows(receiver, "a/tiny", "--last", "1")
    assert (last["snapshot"], last["change"]) == ("s2", "first")


@pytest.mark.usefixtures("stored")
def test_lines(receiver: Receiver) -> None:
    done = receiver.fullsendd("versions", DATASET, "a/none")
    head, *lines = done.stdout.splitlines()
    assert head.startswith("snapshot made")
    assert [line.split()[-2:] for line in lines] == [["first", "@s1"], ["replaced", "@s2"]]
    assert "contents were not compared" in done.stderr
    fails(receiver.fullsendd("versions", DATASET, "nothing", "--json"), 1, "in no stored snapshot of alpha/tank/sa")


def test_snapshots_that_cannot_be_listed_are_named(receiver: Receiver, stored: list[Path]) -> None:
    """They are not said to lack the file."""
    manifests = [Path(f"{path}.json") for path in stored]
    manifests[1].write_text("{")
    done = receiver.fullsendd("versions", "--json", DATASET, "a/tiny")
    assert (done.returncode, [json.loads(line)["snapshot"] for line in done.stdout.splitlines()]) == (1, ["s1"])
    assert f"{manifests[1].name}" in done.stderr
    assert receiver.fullsendd("versions", DATASET, "new-0").stderr.splitlines()[0] == (
        f"fullsendd: new-0: in no stored snapshot of {DATASET} that can be listed"
    )
    manifests[0].write_text("{")
    done = receiver.fullsendd("versions", DATASET, "a/tiny")
    assert (done.returncode, done.stdout) == (1, "")
    assert all(each.name in done.stderr for each in manifests)


def test_of_a_package_one_snapshot_is_looked_at_and_that_is_said(receiver: Receiver) -> None:
    store = LocalStore(receiver.store)
    for name in ("full", "all-I"):
        store_stream(store, SENDER, streams.named(name).read())
    dataset = streams.named("full").begins[0]["toname"].partition("@")[0]
    done = receiver.fullsendd("versions", f"{SENDER}/{dataset}", "nothing", "--json")
    assert done.returncode == 1
    assert "is a package: other snapshots in it were not looked at" in done.stderr


def test_a_snapshot_that_cannot_be_read_is_named(receiver: Receiver, stored: list[Path]) -> None:
    stored[1].write_bytes(stored[1].read_bytes()[:-1])
    found = rows(receiver, "a/tiny", code=1)
    assert [each["change"] for each in found] == ["first", "unreadable"]
    assert found[1]["there"] is None
    assert "error" in found[1]
    stored[0].write_bytes(b"")
    fails(receiver.fullsendd("versions", DATASET, "a/tiny"), 1, "its files cannot be read")


def test_a_path_that_no_readable_snapshot_has(receiver: Receiver, stored: list[Path]) -> None:
    stored[1].write_bytes(b"")
    assert [each["change"] for each in rows(receiver, "new-0", code=1)] == ["missing", "unreadable"]


def test_encrypted_streams_and_volumes(receiver: Receiver) -> None:
    store = LocalStore(receiver.store)
    for name, says in (("full-enc-w", "only its ZFS host has"), ("full-vol", "is a volume")):
        file = store_stream(store, SENDER, raw(FOLDER.parent / f"{name}.zfs.zst"))
        dataset = store.manifest(file).dataset
        fails(receiver.fullsendd("versions", f"{SENDER}/{dataset}", "a"), 1, says)


def test_usage(receiver: Receiver) -> None:
    for arguments in ((SENDER, "a"), (DATASET, "a", "--last", "-1"), (f"{SENDER}/none", "a")):
        done = receiver.fullsendd("versions", *arguments)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
