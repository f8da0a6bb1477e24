"""`fullsend push --stdin` as its user meets it: what it says, how it ends, what is stored afterwards."""

from __future__ import annotations

import json
import random
import subprocess
import time
from pathlib import Path

import pytest
from tests import streams
from tests.programs import Receiver, Sender, good, rows, stored_files, wait_for


def _one_line(done: subprocess.CompletedProcess[bytes]) -> str:
    """What was said on stderr: one line, no traceback."""
    said = done.stderr.decode()
    assert said.startswith("fullsend: ")
    assert said.count("\n") == 1, said
    return said


def _base() -> bytes:
    return streams.named("full").read()


def _increment() -> bytes:
    return streams.named("incr").read()


# --- what comes out of stdin ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stdin", "says"),
    [
        (b"", "not a single byte"),
        (b"hello", "not a ZFS send stream"),
        (b"garbage that is longer than a record's header " * 100, "not a ZFS send stream"),
        (bytes(1 << 20), "not a ZFS send stream"),
        (b"\x28\xb5\x2f\xfd" + bytes(400), "not a ZFS send stream"),
    ],
    ids=["nothing", "a word", "text", "zeros", "zstd"],
)
@pytest.mark.slow
def test_what_is_no_stream_is_refused_before_anything_is_sent(
    receiver: Receiver, sender: Sender, stdin: bytes, says: str
) -> None:
    before = receiver.log.read_text()
    done = sender.fullsend("push", "--stdin", stdin=stdin)
    assert done.returncode == 1
    assert says in _one_line(done)
    assert receiver.log.read_text() == before


def test_a_big_endian_stream_is_refused_by_name(sender: Sender) -> None:
    raw = bytearray(_base())
    raw[0:4], raw[8:16] = raw[0:4][::-1], raw[8:16][::-1]
    done = sender.fullsend("push", "--stdin", stdin=bytes(raw))
    assert done.returncode == 1
    assert "big-endian" in _one_line(done)


@pytest.mark.slow
def test_a_stream_cut_anywhere_is_refused_and_not_listed(receiver: Receiver, sender: Sender) -> None:
    raw = streams.named("long").read()
    for size in [1, 311, 312, 1000, 4 << 20, len(raw) // 2, len(raw) - 313, len(raw) - 1]:
        done = sender.fullsend("push", "--stdin", stdin=raw[:size])
        assert done.returncode == 1, size
        _one_line(done)
    assert receiver.list() == []
    assert stored_files(receiver) == []
    sender.push("--stdin", stdin=raw)
    assert [entry["raw_bytes"] for entry in receiver.list()] == [len(raw)]


def test_bytes_after_the_end_are_refused(receiver: Receiver, sender: Sender) -> None:
    done = sender.fullsend("push", "--stdin", stdin=_base() + b"x")
    assert done.returncode == 1
    assert "follow the stream's end" in _one_line(done)
    assert receiver.list() == []


def test_two_streams_in_a_row_are_refused(receiver: Receiver, sender: Sender) -> None:
    done = sender.fullsend("push", "--stdin", stdin=_base() + _increment())
    assert done.returncode == 1
    assert receiver.list() == []


def test_a_producer_that_dies_is_told_from_one_that_ends(receiver: Receiver, sender: Sender) -> None:
    push = sender.popen("push", "--stdin", stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=push.stdin) as producer:
        assert push.stdin is not None
        push.stdin.close()
        assert producer.stdin is not None
        producer.stdin.write(streams.named("long").read()[: 9 << 20])
        producer.stdin.flush()
        producer.kill()
    push.stdin = None
    _out, said = push.communicate(timeout=60)
    assert push.returncode == 1
    assert b"producer died" in said
    assert receiver.list() == []


# --- what is stored already -------------------------------------------------------------------------------------


def test_a_stream_that_is_stored_already_is_a_success_and_nothing_is_sent(receiver: Receiver, sender: Sender) -> None:
    (first,) = sender.push("--stdin", stdin=_base())
    (file,) = stored_files(receiver)
    before = file.stat()
    (again,) = sender.push("--stdin", stdin=_base())
    assert again["wire_bytes"] == 0 < first["wire_bytes"]
    assert again["receipt"] == first["receipt"]
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.slow
def test_a_package_that_came_in_two_parts_is_stored_already(receiver: Receiver, sender: Sender) -> None:
    """Only its end shows what it is; and its receipt has the segments in which it came then."""
    block = bytes(range(256)) * 512
    noise = random.Random(1)
    writes = [streams.write(2, at * len(block), noise.randbytes(len(block))) for at in range(100)]
    raw = streams.package(
        streams.substream(streams.object_(2), *writes, name="tank@now", guid=11),
        streams.substream(streams.object_(3), streams.write(3, 0, block), name="tank/kid@now", guid=12),
        name="tank@now",
        nvlist=streams.tree(
            "now", streams.file_system("tank", {"now": 11}), streams.file_system("tank/kid", {"now": 12})
        ),
    )
    begun = sender.popen("push", "--stdin", stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert begun.stdin is not None
    begun.stdin.write(raw[: 10 << 20])
    begun.stdin.flush()
    wait_for(lambda: any(each["raw_bytes"] for each in sender.list("--partial")))
    begun.kill()
    begun.communicate()
    (pushed,) = sender.push("--stdin", stdin=raw)
    assert len(pushed["receipt"]["segments"]) == 2
    for _time in range(2):
        done = sender.fullsend("-v", "push", "--stdin", stdin=raw)
        assert (done.returncode, b"is stored already, as its end has shown" in done.stderr) == (0, True), done.stderr
    assert len(sender.list()) == 1
    assert sender.list("--partial") == []


def test_the_producer_of_a_stored_stream_does_not_die_of_a_closed_pipe(receiver: Receiver, sender: Sender) -> None:
    raw = streams.named("long").read()
    sender.push("--stdin", stdin=raw)
    push = sender.popen("push", "--stdin", stdin=subprocess.PIPE)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=push.stdin) as producer:
        assert push.stdin is not None
        push.stdin.close()
        producer.communicate(raw, timeout=60)
    push.stdin = None
    assert push.wait(60) == 0
    assert producer.returncode == 0


def test_two_pushes_of_one_stream_at_once_store_it_once(receiver: Receiver, sender: Sender) -> None:
    raw = streams.named("long").read()
    first = sender.popen("push", "--stdin", stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert first.stdin is not None
    # Enough for the first chunks to be on their way; the rest waits until the second has been refused.
    first.stdin.write(raw[: 9 << 20])
    first.stdin.flush()
    deadline = time.monotonic() + 60
    while not list((receiver.store / ".partial").glob("*.data")):
        assert time.monotonic() < deadline
    second = sender.fullsend("push", "--stdin", stdin=raw)
    assert second.returncode == 4
    assert "arriving on another connection" in _one_line(second)
    first.stdin.write(raw[9 << 20 :])
    first.stdin.close()
    first.stdin = None
    _out, said = first.communicate(timeout=60)
    assert (first.returncode, said) == (0, b"")
    assert len(receiver.list()) == 1


# --- bases ------------------------------------------------------------------------------------------------------


def test_an_increment_without_its_base_is_kept_and_fails(receiver: Receiver, sender: Sender) -> None:
    done = sender.fullsend("push", "--stdin", stdin=_increment())
    assert done.returncode == 1
    assert "cannot be restored" in _one_line(done)
    assert [entry["restorable"] for entry in receiver.list()] == [False]


def test_an_increment_without_its_base_may_be_allowed(receiver: Receiver, sender: Sender) -> None:
    (row,) = sender.push("--stdin", "--allow-orphan", stdin=_increment())
    assert row["receipt"]["restorable"] is False


def test_an_increment_is_restorable_once_its_base_is_stored(receiver: Receiver, sender: Sender) -> None:
    sender.fullsend("push", "--stdin", stdin=_increment())
    sender.push("--stdin", stdin=_base())
    base, increment = receiver.list()
    assert (base["restorable"], increment["restorable"]) == (True, True)
    assert increment["base"] == f"{base['dataset']}@{base['snapshot']}"
    assert increment["base_guid"] == base["guid"]


# --- names ------------------------------------------------------------------------------------------------------

NAMES = {
    "spaces": "tank/my data@last monday",
    "percent": "tank/100%@50%25",
    "dots": "tank/../..@..",
    "one dot": "./.@.",
    "non-ASCII": "tank/Büro/書類@été",
    "control": "tank/a\nb\x1b[31mred@c\td",
    "255 bytes": "tank/" + "x" * 200 + "@" + "s" * 49,
    "one long component": "t@" + "s" * 253,
    "shell": "tank/$(reboot)`'\"\\@*?;|&<>",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_any_name_is_stored_beneath_its_sender_and_listed_as_it_is(
    receiver: Receiver, sender: Sender, name: str
) -> None:
    raw = streams.begin(name) + streams.end()
    (row,) = sender.push("--stdin", stdin=raw)
    (file,) = stored_files(receiver)
    assert file.resolve().is_relative_to(receiver.store / "alpha")
    assert len(file.name.encode() + b".sha256") <= 255
    (entry,) = receiver.list()
    assert f"{entry['dataset']}@{entry['snapshot']}" == name == f"{row['dataset']}@{row['snapshot']}"
    assert good(sender.fullsend("cat", name)) == raw
    table = good(sender.fullsend("list")) + good(receiver.fullsendd("list"))
    assert table.count(b"\n") == 4
    assert b"\x1b" not in table


@pytest.mark.parametrize("name", ["tank", "tank@", "@s", "/tank@s", "tank//a@s", "tank@a@b", "tank/@s", "a@b/c"])
@pytest.mark.slow
def test_a_name_that_is_no_snapshot_is_refused(receiver: Receiver, sender: Sender, name: str) -> None:
    done = sender.fullsend("push", "--stdin", stdin=streams.begin(name) + streams.end())
    assert done.returncode == 1
    assert "which is not DATASET@SNAPSHOT" in _one_line(done)


# --- output -----------------------------------------------------------------------------------------------------


def test_success_off_a_terminal_is_silent(sender: Sender) -> None:
    done = sender.fullsend("push", "--stdin", stdin=_base())
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_stream_that_zfs_receive_will_lose_a_part_of_is_stored_and_said(sender: Sender) -> None:
    """openzfs issue 18239: exit 0, since the stream is whole; and its owner is told, at every turn."""
    raw = streams.substream(streams.object_(17), streams.write_embedded(17, 1 << 63, b"target"))
    lost = b"`zfs receive` loses 1 spill block of it, with exit 0 (openzfs issue 18239)"
    done = sender.fullsend("push", "--stdin", stdin=raw)
    assert done.returncode == 0
    assert done.stderr.startswith(b"fullsend: tank/data@now: " + lost)
    assert lost in good(sender.fullsend("list"))
    assert lost in good(sender.fullsend("show", "--commands", "tank/data@now"))
    status = sender.fullsend("status")
    assert (status.returncode, lost in status.stdout) == (1, True)


def test_json_has_the_keys_that_the_design_promises(sender: Sender) -> None:
    (row,) = rows(good(sender.fullsend("push", "--stdin", "--json", stdin=_base())))
    assert list(row) == [
        "dataset",
        "snapshot",
        "guid",
        "kind",
        "flags",
        "base",
        "base_guid",
        "raw_bytes",
        "wire_bytes",
        "stored_bytes",
        "seconds",
        "sha256",
        "resume",
        "resumed_at",
        "repair",
        "limit",
        "waited",
        "levels",
        "receipt",
    ]
    assert (row["resume"], row["resumed_at"], row["kind"]) == ("none", 0, "full")
    (entry,) = sender.list()
    assert list(entry) == [
        "sender",
        "dataset",
        "snapshot",
        "guid",
        "kind",
        "dataset_type",
        "flags",
        "base",
        "base_guid",
        "created",
        "received",
        "sequence",
        "raw_bytes",
        "stored_bytes",
        "sha256",
        "file",
        "verified",
        "damaged",
        "restorable",
        "lost_spill_count",
    ]


@pytest.mark.slow
def test_a_flipped_byte_on_disk_is_found_named_and_not_given_out(receiver: Receiver, sender: Sender) -> None:
    raw = streams.named("long").read()
    sender.push("--stdin", stdin=raw)
    (file,) = stored_files(receiver)
    manifest = json.loads(Path(f"{file}.json").read_text(encoding="utf-8"))
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.chmod(0o600)
    file.write_bytes(bytes(data))
    done = sender.fullsend("verify")
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 1
    assert file.name in said
    assert "chunk " in said
    assert "raw bytes" in said
    assert [entry["restorable"] for entry in receiver.list()] == [False]
    given = sender.fullsend("cat", f"{manifest['dataset']}@{manifest['snapshot']}")
    assert given.returncode == 1
    assert raw.startswith(given.stdout)
    assert len(given.stdout) < len(raw)
    # Not "already stored": what is damaged is no backup, so the next push stores it anew. The damaged one is set aside.
    (again,) = rows(good(sender.fullsend("push", "--stdin", "--json", stdin=raw)))
    assert "damaged" in again["repair"]
    assert again["wire_bytes"] > 0
    assert [entry["restorable"] for entry in receiver.list()] == [True]
    assert good(sender.fullsend("cat", f"{manifest['dataset']}@{manifest['snapshot']}")) == raw
    (aside,) = rows(good(receiver.fullsendd("list", "--damaged", "--json")))
    assert aside["what"] == f"{manifest['dataset']}@{manifest['snapshot']}"
