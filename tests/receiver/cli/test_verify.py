"""`fullsendd verify`."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import PurePosixPath

import pytest
from tests.receiver.command import damage
from tests.receiver.helpers import fail_reads, manifest_path, remove
from tests.receiver.running import Receiver

from fullsend_receiver.catalogue.scrub_results import Scrubbed
from fullsend_receiver.maintenance.scrub import StreamCheck
from fullsend_receiver.store.local import LocalStore


def test_verify_of_what_is_whole(filled: tuple[Receiver, PurePosixPath, PurePosixPath]) -> None:
    receiver, full, incr = filled
    done = receiver.fullsendd("verify")
    assert (done.returncode, done.stdout.splitlines()) == (0, [f"ok       {full}", f"ok       {incr}"])
    assert "2 streams" in done.stderr
    assert all(row["verified"] for row in receiver.listed())
    rows = [json.loads(line) for line in receiver.fullsendd("verify", "alpha", "--json").stdout.splitlines()]
    assert [(row["file"], row["damage"]) for row in rows] == [(str(full), []), (str(incr), [])]


def test_verify_of_what_is_removed_meanwhile(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath], monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, full, incr = filled
    real = StreamCheck.run

    def first_removed(check: StreamCheck, between: Callable[[], None]) -> Scrubbed | None:
        if check.file == incr:
            remove(LocalStore(receiver.store), incr)
        return real(check, between)

    monkeypatch.setattr(StreamCheck, "run", first_removed)
    done = receiver.fullsendd("verify")
    assert (done.returncode, done.stdout.splitlines()) == (0, [f"ok       {full}"])
    assert f"{incr}: was removed before it could be checked" in done.stderr
    assert "1 stream," in done.stderr


def test_verify_names_file_chunk_raw_range_and_what_it_breaks(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath],
) -> None:
    receiver, full, incr = filled
    damage(receiver, full, 1000)
    done = receiver.fullsendd("verify")
    assert done.returncode == 1
    assert f"DAMAGED  {full}" in done.stdout
    assert f"{full}: chunk 0 (raw bytes 0 to " in done.stderr
    assert f"{full}: breaks {incr}" in done.stderr
    assert [row["restorable"] for row in receiver.listed()] == [False, False]
    assert receiver.fullsendd("check").returncode == 1


def test_a_file_without_manifest_is_reported_and_taken_back_by_verify(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath],
) -> None:
    receiver, full, _incr = filled
    manifest = manifest_path(LocalStore(receiver.store), full)
    before = json.loads(manifest.read_bytes())
    manifest.unlink()
    done = receiver.fullsendd("list")
    assert done.returncode == 1
    assert f"{full}: has no manifest; `fullsendd verify` makes one" in done.stderr
    done = receiver.fullsendd("verify")
    assert done.returncode == 0, done.stderr
    assert f"{full}: had no manifest; rebuilt" in done.stderr
    after = json.loads(manifest.read_bytes())
    assert after["proven_by"] == "receiver"
    same = ("dataset", "snapshot", "guid", "base_guid", "flags", "raw_bytes", "sha256", "file_sha256", "segments")
    assert {key: after[key] for key in same} == {key: before[key] for key in same}


def test_verify_names_a_manifest_that_cannot_be_read(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath],
) -> None:
    receiver, full, incr = filled
    manifest_path(LocalStore(receiver.store), full).write_text("garbage", encoding="utf-8")
    done = receiver.fullsendd("verify")
    assert (done.returncode, done.stdout) == (1, f"ok       {incr}\n")
    assert f"fullsendd: {full}.json: cannot be read: " in done.stderr


def test_verify_names_a_file_that_cannot_be_taken_back_once(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath],
) -> None:
    receiver, full, _incr = filled
    manifest_path(LocalStore(receiver.store), full).unlink()
    damage(receiver, full, 1000)
    done = receiver.fullsendd("verify")
    assert done.returncode == 1
    assert done.stderr.count(str(full)) == 1
    assert f"fullsendd: {full}: has no manifest, and none can be made: chunk 0 (raw bytes 0 to " in done.stderr


def test_verify_of_what_cannot_be_read_says_nothing_of_damage(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath], monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, full, incr = filled
    with monkeypatch.context() as patch:
        fail_reads(patch, receiver.store / full, errno.EIO)
        done = receiver.fullsendd("verify")
        assert (done.returncode, done.stdout.splitlines()) == (1, [f"UNREAD   {full}", f"ok       {incr}"])
        assert f"{full}: not checked, and not known to be damaged by that: " in done.stderr
        assert ": 0 damaged, 1 could not be read\n" in done.stderr
    assert [(row["restorable"], row["damaged"]) for row in receiver.listed()] == [(True, None)] * 2
    assert receiver.fullsendd("verify").returncode == 0


def test_verify_says_what_was_damaged_and_is_whole(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath],
) -> None:
    receiver, full, _incr = filled
    content = (receiver.store / full).read_bytes()
    damage(receiver, full, 1000)
    assert receiver.fullsendd("verify").returncode == 1
    (receiver.store / full).write_bytes(content)
    done = receiver.fullsendd("verify")
    assert done.returncode == 0
    assert f"{full}: was damaged, and is whole" in done.stderr
    assert all(row["restorable"] for row in receiver.listed())
