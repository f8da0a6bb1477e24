"""`fullsendd list`."""

from __future__ import annotations

from pathlib import PurePosixPath

from tests.receiver.helpers import SENDER, chunks_of, long_stream, push_of, take
from tests.receiver.running import Receiver

from fullsend_receiver.arrival.ingest import Ingest
from fullsend_receiver.store.local import LocalStore
from fullsend_receiver.store.opened import open_offer, partial_key


def test_an_empty_store_lists_nothing(receiver: Receiver) -> None:
    done = receiver.fullsendd("list")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_has_arrived_in_part_is_listed_apart(receiver: Receiver) -> None:
    store = LocalStore(receiver.store)
    for sender, name in ((SENDER, "tank/data@now"), (SENDER, "tank/o\u009bther@now"), ("beta", "tank/data@now")):
        raw = long_stream(2, name=name)
        push = push_of(raw)
        ingest = Ingest(store.begin(partial_key(sender, push), open_offer(sender, push)))
        take(ingest, list(chunks_of(raw))[:1])
        ingest.partial.close(keep=True)
    assert receiver.listed() == []
    found = receiver.listed("--partial")
    assert sorted((each["sender"], each["dataset"]) for each in found) == [
        ("alpha", "tank/data"),
        ("alpha", "tank/o\u009bther"),
        ("beta", "tank/data"),
    ]
    assert {each["arriving"] for each in found} == {False}
    assert {each["resume_offset"] == each["raw_bytes"] > 0 for each in found} == {True}
    assert [each["sender"] for each in receiver.listed("--partial", "beta")] == ["beta"]
    assert [each["dataset"] for each in receiver.listed("--partial", f"{SENDER}/tank/data")] == ["tank/data"]
    assert receiver.listed("--partial", "gamma") == []
    head, *rows = receiver.fullsendd("list", "--partial").stdout.splitlines()
    assert head.split() == ["STREAM", "KIND", "STARTED", "LAST", "RAW", "STORED", "STATE"]
    assert sorted(row.split()[0] for row in rows) == [
        "alpha/tank/data@now",
        "alpha/tank/o\\x9bther@now",
        "beta/tank/data@now",
    ]
    assert all("full" in row and row.endswith("waits for its sender") for row in rows)
    nothing = receiver.fullsendd("list", "--partial", "gamma")
    assert (nothing.returncode, nothing.stdout) == (0, "")


def test_list_is_a_table_or_json(filled: tuple[Receiver, PurePosixPath, PurePosixPath]) -> None:
    receiver, full, incr = filled
    heading, first, second = receiver.fullsendd("list").stdout.splitlines()
    assert heading.startswith("STREAM")
    assert first.startswith("alpha/tank/plain@s1  full")
    assert second.startswith("alpha/tank/plain@s2  incremental  @s1")
    assert [row["file"] for row in receiver.listed()] == [str(full), str(incr)]
    assert receiver.listed("alpha") == receiver.listed("alpha/tank/plain") == receiver.listed()
