"""What only reads changes nothing in a store; and what lies in a store keeps no daemon from starting."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from pathlib import Path

import pytest
from tests import streams
from tests.programs import Receiver, Sender, good, stored_files, wait_for

ONE, TWO = (
    streams.substream(
        streams.object_(1), streams.write(1, 0, bytes([byte]) * 70_000), name=f"tank/{byte}@now", guid=byte
    )
    for byte in (1, 2)
)


def everything(store: Path) -> dict[str, tuple[int, int, bytes]]:
    """All that is in a store: by name the type and permissions, the time of change, and the content.

    Without what says that something is being read, which a prune must see, and the folder that has got it.
    """
    found = {}
    for path in store.rglob("*"):
        if path == store / ".state" or path.is_relative_to(store / ".state/reading"):
            continue
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(store))] = (status.st_mode, status.st_mtime_ns, content)
    return found


def leave_partial(receiver: Receiver, sender: Sender) -> Path:
    """Have a stream arrive in part. Returns: its journal."""
    raw = streams.substream(*[streams.write(1, number << 20, os.urandom(1 << 20)) for number in range(9)])
    assert sender.fullsend("push", "--stdin", "--retry-for", "0s", stdin=raw[:-312]).returncode == 1
    (journal,) = (receiver.store / ".partial").glob("*.journal")
    return journal


def change(journal: Path, edit: dict[str, object]) -> None:
    """Change what the first line of a journal says of the offer, under a checksum that is right."""
    first, *rest = journal.read_bytes().splitlines(keepends=True)
    line = json.loads(first[9:])
    line["open"]["push"].update(edit)
    body = json.dumps(line).encode()
    journal.write_bytes(b"".join([b"%08x %b\n" % (zlib.crc32(body), body), *rest]))


@pytest.fixture
def filled(receiver: Receiver, sender: Sender) -> tuple[Receiver, Sender, Path]:
    for raw in (ONE, TWO):
        sender.push("--stdin", stdin=raw)
    return receiver, sender, leave_partial(receiver, sender)


@pytest.mark.slow
def test_what_lists_only_reads(filled: tuple[Receiver, Sender, Path]) -> None:
    receiver, sender, journal = filled
    content = bytearray(journal.read_bytes())
    content[20] ^= 1  # damaged: to be set aside, and not by a command that lists
    journal.write_bytes(content)
    before = everything(receiver.store)
    name = f"{sender.name}/tank/1@now"
    for arguments in (
        ["list"], ["list", "--json"], ["list", "--partial"], ["list", "--partial", "--json"], ["show", name],
        ["show", "--commands", name], ["cat", name], ["senders"],
    ):  # fmt: skip
        good(receiver.fullsendd(*arguments))
        assert everything(receiver.store) == before, arguments
        assert not (receiver.store / ".state/reading").exists()
    for arguments in (["list"], ["list", "--partial"], ["status"], ["show", "tank/1@now"], ["cat", "tank/1@now"]):
        assert sender.fullsend(*arguments).returncode in {0, 1}
        after = everything(receiver.store)
        if arguments == ["status"]:  # has the receiver try whether it can write: the time of this empty file changes
            assert after[".state/lock"][2] == b""
            before[".state/lock"] = after[".state/lock"]
        assert after == before, arguments


@pytest.mark.parametrize(
    ("edit", "kept"),
    [
        ({"to come": 1}, True),
        ({"dataset": 7}, False),
        ({"guid": "by magic", "flags": 5}, False),
        ({"resume": "by magic", "whole": 5}, True),  # of the connection, which is over: no part of a partial
    ],
)
def test_a_partial_of_another_version_keeps_no_daemon_from_starting(
    filled: tuple[Receiver, Sender, Path], edit: dict[str, object], kept: bool
) -> None:
    """It raised a ValidationError in the start's sweep: the daemon exited, and systemd started it for ever."""
    receiver, sender, journal = filled
    assert receiver.stop() == 0
    change(journal, edit)
    receiver.start()
    if kept:
        assert len(good(sender.fullsend("list", "--partial", "--json")).splitlines()) == 1
        assert journal.exists()
    else:
        wait_for(lambda: not journal.exists())
        assert list(journal.parent.glob("*.damaged"))
    assert sender.push("--stdin", stdin=ONE)[0]["receipt"]["restorable"]


def test_a_valid_file_under_another_streams_name_is_not_given_out(filled: tuple[Receiver, Sender, Path]) -> None:
    """Two streams of one raw length: the manifest's segments decide, at both ends."""
    receiver, sender, _journal = filled
    one, two = stored_files(receiver)
    other = one.with_name("other")
    shutil.copyfile(one, other)
    shutil.copyfile(two, one)
    shutil.copyfile(other, two)
    for done in (
        receiver.fullsendd("cat", f"{sender.name}/tank/1@now"),
        sender.fullsend("cat", "tank/1@now"),
    ):
        assert done.returncode == 1
        assert b"tank/" in done.stderr
        assert b"SHA-256" in done.stderr
