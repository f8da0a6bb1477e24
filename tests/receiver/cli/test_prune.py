"""`fullsendd prune`."""

from __future__ import annotations

import errno
import json
import shutil
import time
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from tests.chains import named as chain_named
from tests.receiver.helpers import SENDER, everything, manifest_path, plant, store_stream
from tests.receiver.running import Receiver

from fullsend_protocol.shared.units import format_time
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.maintenance import prune
from fullsend_receiver.maintenance.merge_records import note_merge, read_merges
from fullsend_receiver.maintenance.merging import Merger
from fullsend_receiver.maintenance.trash import trash_name
from fullsend_receiver.store.event_journal import EventPlace
from fullsend_receiver.store.local import LocalStore
from fullsend_receiver.store_s3.bucket import BucketBusy

DAY = 86400.0
CHAIN = chain_named("t1-plain")


def write_policy(receiver: Receiver, text: str = "daily = 3\n", **settings: object) -> None:
    receiver.set(**settings)
    with receiver.config.open("a", encoding="utf-8") as file:
        file.write(f"[retention]\n{text}")


def nights(receiver: Receiver, count: int, dataset: str = "tank/data", **changes: Any) -> list[PurePosixPath]:
    """Plant a full for each of the last nights. Returns: the files, the oldest first."""
    store = LocalStore(receiver.store)
    now = time.time()
    return [
        plant(
            store,
            f"n{age}",
            1 + age + 1000 * len(dataset),
            dataset=dataset,
            received=format_time(now - age * DAY - 60),
            sequence=1000 - age,
            **changes,
        )
        for age in range(count - 1, -1, -1)
    ]


def files(receiver: Receiver) -> list[str]:
    return [row["file"] for row in receiver.listed()]


def test_prune_drops_what_no_rule_keeps(receiver: Receiver) -> None:
    planted = nights(receiver, 6)
    write_policy(receiver)
    before = everything(receiver.store)
    dry = receiver.fullsendd("prune", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert everything(receiver.store) == before
    assert "3 would be dropped, 21 B would be freed" in dry.stderr
    done = receiver.fullsendd("prune")
    assert done.returncode == 0, done.stderr
    assert done.stdout == dry.stdout
    lines = done.stdout.splitlines()
    assert len(lines) == 6
    assert lines[0].split() == ["drop:", "no", "rule", "alpha/tank/data@n5", "7", "B"]
    assert "keep daily " in lines[5]
    assert "6 streams, 3 dropped, 21 B freed" in done.stderr
    assert files(receiver) == list(map(str, planted[3:]))
    again = receiver.fullsendd("prune", SENDER)
    assert (again.returncode, "0 dropped" in again.stderr) == (0, True)


def test_what_is_dropped_and_what_comes_back_are_events(receiver: Receiver) -> None:
    planted = nights(receiver, 6)
    write_policy(receiver, undelete_within="7d")
    assert receiver.fullsendd("prune", "--dry-run").returncode == 0
    assert LocalStore(receiver.store).events.end() == EventPlace(0, 0)
    done = receiver.fullsendd("prune")
    assert done.returncode == 0, done.stderr
    assert "pruned:" not in done.stderr  # the command prints it itself
    assert receiver.fullsendd("undelete", "alpha/tank/data@n5").returncode == 0
    found = [said for _place, said in LocalStore(receiver.store).events.read(EventPlace(0, 0)).events]
    assert [each["event"] for each in found] == [*["pruned"] * 3, "prune-finished", "undeleted"]
    assert {each["file"] for each in found[:3]} == {*map(str, planted[:3])}
    assert {each["trash"] != "" for each in found[:3]} == {True}
    assert (found[3]["why"], found[3]["dropped"], found[3]["freed_bytes"]) == ("command", 3, 21)
    assert (found[4]["sender"], found[4]["file"]) == (SENDER, str(planted[0]))


def test_prune_does_not_wait_for_a_time_server_and_warns(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fullsend_receiver.maintenance.clock.is_synchronised", lambda: False)
    monkeypatch.setattr("fullsend_receiver.maintenance.clock.SYNC_WAIT", float("inf"))
    nights(receiver, 6)
    write_policy(receiver)
    done = receiver.fullsendd("prune", "--json")
    assert done.returncode == 0
    warning, _sum = done.stderr.splitlines()
    assert warning.startswith("warning: no time server has set the clock since this host's start")
    assert len(files(receiver)) == 3


def test_prune_as_json(receiver: Receiver) -> None:
    nights(receiver, 6)
    write_policy(receiver)
    for arguments, dropped in ((["--dry-run"], False), ([], True)):
        done = receiver.fullsendd("prune", "--json", *arguments)
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert [row["verdict"] for row in rows] == ["drop"] * 3 + ["keep"] * 3
        assert [row["dropped"] for row in rows] == [dropped] * 3 + [False] * 3
        assert rows[0]["reason"] == "drop: no rule"
        assert rows[0]["sender"] == SENDER
        assert rows[0]["rule"] == "none"


def test_prune_without_a_policy_is_refused(receiver: Receiver) -> None:
    nights(receiver, 6)
    done = receiver.fullsendd("prune")
    assert done.returncode == 2
    assert "receiver.toml has no policy, so nothing is ever deleted" in done.stderr
    assert len(files(receiver)) == 6


@pytest.mark.parametrize("what", ["alpah", "alpha/tank/daat", "../x", "alpha/tank/data@n1"])
def test_prune_of_what_is_not_stored_is_a_mistake(receiver: Receiver, what: str) -> None:
    nights(receiver, 6)
    write_policy(receiver)
    done = receiver.fullsendd("prune", what)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert len(files(receiver)) == 6


def test_prune_of_one_dataset_leaves_the_others(receiver: Receiver) -> None:
    nights(receiver, 6)
    nights(receiver, 6, "tank/other")
    write_policy(receiver)
    assert receiver.fullsendd("prune", "alpha/tank/other").returncode == 0
    assert len(files(receiver)) == 9


def test_prune_that_is_too_much_asks_and_check_says_so(receiver: Receiver) -> None:
    nights(receiver, 20)
    write_policy(receiver)
    done = receiver.fullsendd("prune")
    assert done.returncode == 1
    assert "alpha/tank/data: nothing goes: the policy gives up 17 of 20 snapshots" in done.stderr
    assert len(files(receiver)) == 20
    check = receiver.fullsendd("check")
    assert check.returncode == 1
    assert "problem  prune: alpha/tank/data: nothing goes: the policy gives up 17" in check.stdout
    assert receiver.fullsendd("prune", "--yes-more", "alpha/tank/data").returncode == 0
    assert len(files(receiver)) == 3
    check = receiver.fullsendd("check")
    assert check.returncode == 0, check.stdout


def test_prune_names_what_cannot_be_read_and_prunes_the_rest(receiver: Receiver) -> None:
    planted = nights(receiver, 6)
    nights(receiver, 6, "tank/other")
    write_policy(receiver)
    manifest_path(LocalStore(receiver.store), planted[0]).write_bytes(b"{")
    done = receiver.fullsendd("prune")
    assert done.returncode == 1
    assert f"alpha/tank/data: nothing goes: not all of it can be read: {planted[0]}.json" in done.stderr
    store = LocalStore(receiver.store)
    assert len([each for each in store.objects() if "other" in str(each.file)]) == 3
    assert len([each for each in store.objects() if "data" in str(each.file)]) == 6


def test_prune_says_why_a_chain_stays(receiver: Receiver) -> None:
    store = LocalStore(receiver.store)
    for age in range(9, -1, -1):
        when = format_time(time.time() - age * DAY - 60)
        plant(store, f"n{age}", 10 - age, (9 - age) or None, received=when, sequence=10 - age)
    write_policy(receiver, merge="off")
    done = receiver.fullsendd("prune", "--dry-run", "--yes-more")
    assert done.returncode == 0
    assert "alpha/tank/data: chain of 10 streams since " in done.stderr
    assert "nothing can go before a new full, or a merge" in done.stderr


@pytest.mark.parametrize("command", ["prune", "clock"])
def test_a_stream_that_comes_while_the_store_is_looked_at_is_not_from_the_future(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    nights(receiver, 6)
    write_policy(receiver)
    real, now = prune.newest_reception, [time.time()]

    def slowly(catalogues: Catalogues) -> float:
        now[0] += 60
        assert real(catalogues) < now[0] - 30
        return now[0] - 30

    monkeypatch.setattr(prune, "newest_reception", slowly)
    monkeypatch.setattr("fullsend_receiver.maintenance.clock.time.time", lambda: now[0])
    done = receiver.fullsendd(command)
    assert (done.returncode, "the clock says" in done.stderr + done.stdout) == (0, False)


def test_prune_by_a_clock_that_cannot_be_trusted_is_refused(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights(receiver, 6)
    write_policy(receiver)
    now = time.time()
    monkeypatch.setattr("fullsend_receiver.maintenance.clock.time.time", lambda: now - 2 * DAY)
    done = receiver.fullsendd("prune")
    assert done.returncode == 1
    assert "nothing is pruned: the clock says " in done.stderr
    assert len(files(receiver)) == 6
    dry = receiver.fullsendd("prune", "--dry-run")
    assert dry.returncode == 1
    assert len(dry.stdout.splitlines()) == 6
    assert receiver.fullsendd("clock").returncode == 1
    assert receiver.fullsendd("clock", "--accept").returncode == 0
    assert receiver.fullsendd("prune").returncode == 0


def test_prune_into_the_trash_frees_nothing_yet(receiver: Receiver) -> None:
    nights(receiver, 6)
    write_policy(receiver, undelete_within="7d")
    assert receiver.fullsendd("prune").returncode == 0
    assert len(list(LocalStore(receiver.store).trashed())) == 3
    check = receiver.fullsendd("check")
    assert "in the trash (`fullsendd undelete` lists it)" in check.stdout
    assert check.returncode == 0


@pytest.mark.slow
def test_prune_beside_a_daemon_is_seen_by_it(receiver: Receiver) -> None:
    planted = nights(receiver, 6)
    write_policy(receiver, undelete_within="7d")
    receiver.start()
    try:
        assert len(files(receiver)) == 6
        done = receiver.fullsendd("prune", timeout=50)
        assert done.returncode == 0, done.stderr
        assert files(receiver) == list(map(str, planted[3:]))
        back = receiver.fullsendd("undelete", "alpha/tank/data@n4", timeout=50)
        assert back.returncode == 0, back.stderr
        assert files(receiver) == [str(planted[1]), *map(str, planted[3:])]
        assert receiver.stop() == 0
        receiver.check_log()
    finally:
        if receiver.process is not None:
            receiver.stop(9)


def test_a_trash_that_cannot_be_deleted_is_a_failure_and_keeps_nothing_else_from_going(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(receiver.store)
    nights(receiver, 6)
    (first, *_others) = files(receiver)
    store.remove(lambda: [PurePosixPath(first)], trash=trash_name(time.time() - 9 * DAY))
    write_policy(receiver)

    def rmtree(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    done = receiver.fullsendd("prune")
    assert done.returncode == 1
    assert "the trash cannot be deleted: " in done.stderr
    assert len(files(receiver)) == 3


def test_a_sender_whose_prune_fails_keeps_no_other_from_its_own(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What went before the failure is told, as what goes without one."""
    nights(receiver, 9)
    for _name, raw in CHAIN.run(None, 2):
        store_stream(LocalStore(receiver.store), "beta", raw)
    write_policy(receiver, "last = 1\nminimum-count = 0\nminimum-age = '0s'\n", merge="off")
    monkeypatch.setattr(prune, "_BATCH", 2)
    monkeypatch.setattr(prune, "_BATCHES", 100)
    real = LocalStore.remove
    removals: list[str] = []

    def remove(self: LocalStore, choose: Any, *, trash: str | None = None) -> list[PurePosixPath]:
        removals.append("one")
        if len(removals) == 2:
            raise BucketBusy("s3://b: PutObject is refused (503 SlowDown): try again later")
        return real(self, choose, trash=trash)

    monkeypatch.setattr(LocalStore, "remove", remove)
    done = receiver.fullsendd("prune", "--json", "--yes-more")
    assert done.returncode == 1
    said = "alpha: its prune has failed: s3://b: PutObject is refused (503 SlowDown): try again later\n"
    assert done.stderr.count(said) == 1
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert sum(row["dropped"] for row in rows) == 2
    assert {row["sender"] for row in rows} == {"alpha", "beta"}
    assert receiver.fullsendd("prune", "--yes-more").returncode == 0
    assert len([file for file in files(receiver) if file.startswith("alpha/")]) == 2


# --- merging ----------------------------------------------------------------------------------------------------

#: Keeps the two newest snapshots.
TWO_NEWEST = 'last = 0\nminimum-count = 0\nminimum-age = "0s"\n'


def keep_chain(receiver: Receiver) -> list[str]:
    return [str(store_stream(LocalStore(receiver.store), SENDER, raw)) for _name, raw in CHAIN.run(None, 3)]


def test_prune_merges_and_a_dry_run_says_what_it_would(receiver: Receiver) -> None:
    stored = keep_chain(receiver)
    write_policy(receiver, TWO_NEWEST, rebase_after="0%")
    before = everything(receiver.store)
    dry = receiver.fullsendd("prune", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert everything(receiver.store) == before
    lines = dry.stdout.splitlines()
    assert lines[0].split("  ")[0] == "merge: into s1"
    assert lines[4].startswith("merge and move the full: alpha/src/plain: s0 to s1, 2 streams: reads ")
    assert [line.split()[0] for line in lines[5:]] == stored[:2]

    done = receiver.fullsendd("prune")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[4].startswith("merge and move the full: alpha/src/plain: s0 to s1, 2 streams: ")
    assert "1 merge, " in done.stderr
    (full, *rest) = files(receiver)
    assert rest == stored[2:]
    manifest = json.loads(manifest_path(LocalStore(receiver.store), PurePosixPath(full)).read_text())
    assert manifest["sha256"] == CHAIN.genuine(None, 1)
    assert manifest["proven_by"] == "merge"
    assert receiver.fullsendd("prune").stdout.splitlines()[0].startswith("keep: base of src/plain@s2: ")
    assert receiver.fullsendd("verify").returncode == 0


def test_prune_says_merges_as_json_with_the_time_at_the_last_pace(receiver: Receiver) -> None:
    keep_chain(receiver)
    write_policy(receiver, TWO_NEWEST, rebase_after="0%")
    row = json.loads(receiver.fullsendd("prune", "--dry-run", "--json").stdout.splitlines()[-1])
    assert (row["merge"], row["moves_full"], row["seconds"]) == ("planned", True, 0)
    assert [each["snapshot"] for each in row["inputs"]] == ["s0", "s1"]
    assert row["read_bytes"] == row["written_bytes_at_most"] == sum(each["stored_bytes"] for each in row["inputs"])
    assert row["written_bytes"] == max(each["stored_bytes"] for each in row["inputs"])
    note_merge(LocalStore(receiver.store).documents, SENDER, 1000, 1.0)
    row = json.loads(receiver.fullsendd("prune", "--dry-run", "--json").stdout.splitlines()[-1])
    assert row["seconds"] > 1000
    row = json.loads(receiver.fullsendd("prune", "--json").stdout.splitlines()[-1])
    assert (row["merge"], row["snapshot"]) == ("done", "s1")
    assert row["freed_bytes"] == sum(each["stored_bytes"] for each in row["inputs"]) - row["stored_bytes"]


@pytest.mark.parametrize(("options", "settings"), [(["--no-merge"], {}), ([], {"merge": "off"})])
def test_prune_merges_nothing_where_that_is_not_wanted(
    receiver: Receiver, options: list[str], settings: dict[str, str]
) -> None:
    stored = keep_chain(receiver)
    write_policy(receiver, TWO_NEWEST, rebase_after="0%", **settings)
    assert receiver.fullsendd("prune", *options).returncode == 0
    assert files(receiver) == stored


def test_prune_that_only_merges_drops_nothing(receiver: Receiver) -> None:
    stored = keep_chain(receiver)
    planted = nights(receiver, 4, dataset="tank/other")
    write_policy(receiver, TWO_NEWEST, rebase_after="0%")
    done = receiver.fullsendd("prune", "--merge-only")
    assert done.returncode == 0, done.stderr
    assert len(files(receiver)) == len(stored) - 1 + len(planted)


def test_prune_with_a_damaged_input_fails_and_names_it(receiver: Receiver) -> None:
    stored = keep_chain(receiver)
    write_policy(receiver, TWO_NEWEST, rebase_after="0%")
    path = receiver.store / stored[1]
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    done = receiver.fullsendd("prune")
    assert done.returncode == 1
    assert f"not merged: {stored[1]}: chunk 0" in done.stderr
    assert files(receiver) == stored


def test_a_stream_that_cannot_be_opened_keeps_no_other_sender_from_its_merges(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one that a person has copied there, and that belongs to root."""
    store = LocalStore(receiver.store)
    stored = keep_chain(receiver)
    for _name, raw in CHAIN.run(None, 3):
        store_stream(store, "beta", raw)
    write_policy(receiver, TWO_NEWEST, rebase_after="0%")
    real = LocalStore.open

    def opened(self: LocalStore, file: PurePosixPath) -> Any:
        if str(file) == stored[1]:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(self, file)

    monkeypatch.setattr(LocalStore, "open", opened)
    done = receiver.fullsendd("prune", "--merge-only")
    assert done.returncode == 1
    assert "alpha/src/plain: s0 to s1, 2 streams: not merged: " in done.stderr
    assert "Permission denied" in done.stderr
    assert len(files(receiver)) == 2 * len(stored) - 1
    (said,) = read_merges(store.documents, SENDER).failed
    assert "Permission denied" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (RuntimeError("unforeseen"), "RuntimeError: unforeseen"),
    ],
)
def test_a_sender_that_cannot_be_read_keeps_no_other_from_its_merges(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    stored = keep_chain(receiver)
    for _name, raw in CHAIN.run(None, 3):
        store_stream(LocalStore(receiver.store), "beta", raw)
    write_policy(receiver, TWO_NEWEST, rebase_after="0%")
    real = Merger.merge

    def merge(self: Merger, sender: str, dataset: str | None = None) -> Any:
        if sender == SENDER:
            raise error
        return real(self, sender, dataset)

    monkeypatch.setattr(Merger, "merge", merge)
    done = receiver.fullsendd("prune", "--merge-only")
    assert done.returncode == 1
    assert f"alpha: its merges have failed: {told}" in done.stderr
    assert len(files(receiver)) == 2 * len(stored) - 1
    documents = LocalStore(receiver.store).documents
    assert read_merges(documents, SENDER).failed == [f"its merges have failed: {told}"]
    monkeypatch.undo()
    assert receiver.fullsendd("prune", "--merge-only").returncode == 0
    assert read_merges(documents, SENDER).failed == []


def test_prune_beside_another_merge_merges_nothing(receiver: Receiver) -> None:
    stored = keep_chain(receiver)
    write_policy(receiver, TWO_NEWEST, rebase_after="0%")
    with LocalStore(receiver.store).alone("merge"):
        done = receiver.fullsendd("prune")
    assert (done.returncode, files(receiver)) == (0, stored)
    assert "nothing is merged: another process merges at the moment" in done.stderr
