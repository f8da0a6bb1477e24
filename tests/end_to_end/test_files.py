"""Files out of a stored snapshot over the wire, by both programs as they are."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest
from tests.file_trees import FOLDER, TREES, raw
from tests.programs import Receiver, Sender, good, rows
from tests.receiver.helpers import store_stream

from fullsend_receiver.store.local import LocalStore

if TYPE_CHECKING:
    from pathlib import Path

WHAT: Final = "tank/sa@s2"


@pytest.fixture
def stored(receiver: Receiver, sender: Sender) -> list[Path]:
    """The files of a stored chain, of a full and an increment."""
    store = LocalStore(receiver.store)
    streams = [raw(FOLDER / f"sa_Lec-{name}.zfs.zst") for name in ("full", "incr")]
    return [receiver.store / store_stream(store, sender.name, each) for each in streams]


def both(receiver: Receiver, sender: Sender, *arguments: str) -> bytes:
    """What `fullsend ls` prints, which is what `fullsendd ls` prints."""
    there = good(receiver.fullsendd("ls", f"{sender.name}/{WHAT}", *arguments))
    assert good(sender.fullsend("ls", WHAT, *arguments)) == there
    return there


@pytest.mark.usefixtures("stored")
def test_lists_are_those_of_the_storage_host(receiver: Receiver, sender: Sender) -> None:
    # The daemon, and what it starts, are processes; the commands need not be, which is faster.
    receiver.inside, sender = True, replace(sender, inside=True)
    paths = {os.fsencode(each["path"]) for each in rows(both(receiver, sender, "-R", "--json"))}
    assert paths == TREES[1].listing().keys()
    assert both(receiver, sender, "a", "-l")
    named = [path for path in paths if path.startswith(b"a/b/f0")]
    assert both(receiver, sender, "--name", "f0?").splitlines() == sorted(named)
    done = sender.fullsend("ls", WHAT, "none")
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (1, b"", 1)


@pytest.mark.usefixtures("stored")
def test_an_archive_is_that_of_the_storage_host(receiver: Receiver, sender: Sender) -> None:
    chosen = ["/", "--tar", "--special", "--setuid"]
    there = receiver.fullsendd("get", f"{sender.name}/{WHAT}", *chosen)
    here = sender.fullsend("get", WHAT, *chosen)
    assert (here.returncode, here.stdout) == (there.returncode, there.stdout)
    listing = TREES[1].listing()
    with tarfile.open(fileobj=io.BytesIO(here.stdout)) as archive:
        member = archive.extractfile("a/text")
        assert member is not None
        assert hashlib.sha256(member.read()).hexdigest() == listing[b"a/text"]["sha256"]
    # A bare name has neither the archive of another sender, nor a path that leads to it.
    other = replace(sender, folder=sender.folder.parent / "beta", name="beta", inside=True)
    receiver.inside = True
    other.join(receiver)
    for name in (WHAT, f"../{sender.name}/{WHAT}", f"{sender.name}/{WHAT}", sender.list()[0]["file"]):
        for command in (["ls", name], ["get", name, "/", "--tar"]):
            done = other.fullsend(*command)
            assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (1, b"", 1), name


@pytest.mark.usefixtures("stored")
def test_differences_and_versions_are_those_of_the_storage_host(receiver: Receiver, sender: Sender) -> None:
    receiver.inside, sender = True, replace(sender, inside=True)
    found = good(sender.fullsend("diff", "-FH", "--prefix", "/tank/sa", "tank/sa@s1", "@s2"))
    assert sorted(found.splitlines()) == sorted((FOLDER / "sa.diff").read_bytes().splitlines())
    versions = rows(good(sender.fullsend("versions", "--json", "tank/sa", "a/none")))
    assert [(each["snapshot"], each["change"]) for each in versions] == [("s1", "first"), ("s2", "replaced")]
    there = receiver.fullsendd("versions", f"{sender.name}/tank/sa", "a/none")
    here = sender.fullsend("versions", "tank/sa", "a/none")
    assert (here.returncode, here.stdout) == (there.returncode, there.stdout)
    other = replace(sender, folder=sender.folder.parent / "beta", name="beta")
    other.join(receiver)
    for command in (
        ["diff", "tank/sa@s1", "@s2"],
        ["versions", "tank/sa", "a/none"],
        ["versions", "../alpha/tank", "a"],
    ):
        done = other.fullsend(*command)
        assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (1, b"", 1), command


def test_what_is_not_proven_fails(receiver: Receiver, sender: Sender, stored: list[Path]) -> None:
    good(sender.fullsend("ls", WHAT))  # which makes the index
    data = bytearray(stored[0].read_bytes())
    data[60_000] ^= 0xFF
    stored[0].write_bytes(bytes(data))
    done = sender.fullsend("get", WHAT, "/", "--tar")
    assert done.returncode == 1
    assert b"the archive is not proven, and was cut" in done.stderr
    assert not done.stdout.endswith(bytes(1024))
