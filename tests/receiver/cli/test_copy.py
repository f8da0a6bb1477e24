"""`fullsendd copy`."""

from __future__ import annotations

import errno
import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from tests.receiver.buckets import MemoryBucket
from tests.receiver.command import damage, fails, read_only
from tests.receiver.running import Receiver

from fullsend_receiver.access import bucket_setup, config, identity, opening
from fullsend_receiver.access.config import BucketSettings
from fullsend_receiver.cli import copy
from fullsend_receiver.maintenance.copy_claim import claimed
from fullsend_receiver.maintenance.copy_records import CopyRecord, read_record
from fullsend_receiver.maintenance.copying import Copier
from fullsend_receiver.store import durable, errors
from fullsend_receiver.store.errors import StoreReadOnly
from fullsend_receiver.store.local import LocalStore
from fullsend_receiver.store.marker import read_id
from fullsend_receiver.store_s3.place import BucketPlace

if TYPE_CHECKING:
    from pathlib import Path, PurePosixPath

    from fullsend_receiver.catalogue.streams import StoredStream


@pytest.fixture
def other(tmp_path: Path) -> Receiver:
    """Another store."""
    receiver = Receiver(tmp_path / "other")
    receiver.init()
    return receiver


def test_all_is_copied_once(filled: tuple[Receiver, PurePosixPath, PurePosixPath], other: Receiver) -> None:
    receiver, full, incr = filled
    planned = receiver.fullsendd("copy", "--to", str(other.config), "--dry-run")
    assert (planned.returncode, planned.stdout.splitlines()) == (
        0,
        [f"{full}: would be copied", f"{incr}: would be copied"],
    )
    assert other.listed() == []
    done = receiver.fullsendd("copy", "--to", str(other.config))
    assert (done.returncode, done.stdout.splitlines()) == (0, [f"{full}: copied", f"{incr}: copied"])
    assert "2 streams copied, " in done.stderr
    assert other.listed() == receiver.listed()
    for file in (full, incr):
        assert (other.store / file).read_bytes() == (receiver.store / file).read_bytes()
    assert other.fullsendd("verify").returncode == 0
    again = receiver.fullsendd("copy", "--to", str(other.config), "--all")
    assert (again.returncode, again.stdout) == (0, "")
    assert "0 streams copied" in again.stderr


def test_one_sender_is_copied_as_json(filled: tuple[Receiver, PurePosixPath, PurePosixPath], other: Receiver) -> None:
    receiver, full, incr = filled
    done = receiver.fullsendd("copy", "alpha", "--to", str(other.config), "--json", "--bwlimit", "1G")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["file"], row["result"]) for row in rows] == [(str(full), "copied"), (str(incr), "copied")]
    assert done.stderr == ""


def test_what_cannot_be_copied_is_named(filled: tuple[Receiver, PurePosixPath, PurePosixPath], other: Receiver) -> None:
    receiver, full, incr = filled
    damage(receiver, full, 1000)
    done = receiver.fullsendd("copy", "--to", str(other.config))
    assert done.returncode == 1
    assert f"{full}: not copied: chunk 0 (raw bytes 0 to " in done.stdout
    assert f"{incr}: not copied: its base is not in the target" in done.stdout
    assert other.listed() == []
    assert receiver.fullsendd("verify").returncode == 1
    known = receiver.fullsendd("copy", "--to", str(other.config), "--all", "--json")
    failed = [json.loads(line) for line in known.stdout.splitlines()]
    assert (known.returncode, [row["file"] for row in failed]) == (1, [str(full), str(incr)])
    assert all(row["result"] == "failed" and "cannot be restored" in row["why"] for row in failed)


def test_disk_that_fails_is_named(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath], other: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, full, incr = filled
    real = Copier.copy

    def fail(copier: Copier, stored: StoredStream, *more: Any) -> bool:
        if stored.file == full:
            raise OSError(28, "No space left on device")
        return real(copier, stored, *more)

    monkeypatch.setattr(Copier, "copy", fail)
    done = receiver.fullsendd("copy", "--to", str(other.config))
    assert (done.returncode, done.stdout.splitlines()) == (
        1,
        [f"{full}: not copied: No space left on device", f"{incr}: not copied: its base is not in the target"],
    )
    monkeypatch.undo()
    again = receiver.fullsendd("copy", "--to", str(other.config))
    assert (again.returncode, again.stdout.splitlines()) == (0, [f"{full}: copied", f"{incr}: copied"])


def test_stream_whose_index_is_damaged_does_not_keep_the_others_from_it(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath], other: Receiver
) -> None:
    receiver, full, incr = filled
    assert receiver.fullsendd("copy", "--to", str(other.config)).returncode == 0
    for file in (full, incr):
        (other.store / file).with_name(f"{file.name}.json").unlink()
        (other.store / file).unlink()
    path = receiver.store / incr
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    done = receiver.fullsendd("copy", "--to", str(other.config))
    assert done.returncode == 1
    assert f"{full}: copied" in done.stdout
    assert f"{incr}: not copied: " in done.stdout


def test_run_that_is_interrupted_says_so(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath], other: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, full, _incr = filled
    monkeypatch.setattr(Copier, "_took", lambda copier, _size: copier.abandon())
    done = receiver.fullsendd("copy", "--to", str(other.config))
    assert done.returncode == 1
    assert done.stdout.splitlines() == [f"{full}: not copied: interrupted: the next `copy` resumes it"]
    assert other.listed() == []
    monkeypatch.undo()
    assert receiver.fullsendd("copy", "--to", str(other.config)).returncode == 0
    assert other.listed() == receiver.listed()


def test_store_is_not_copied_into_itself(filled: tuple[Receiver, PurePosixPath, PurePosixPath]) -> None:
    receiver, _full, _incr = filled
    done = receiver.fullsendd("copy", "--to", str(receiver.config))
    assert done.returncode == 2
    assert "is the configuration of the same store" in done.stderr


def test_one_process_copies_at_a_time(filled: tuple[Receiver, PurePosixPath, PurePosixPath], other: Receiver) -> None:
    receiver, _full, _incr = filled
    with LocalStore(other.store).alone("copy") as mine:
        assert mine
        done = receiver.fullsendd("copy", "--to", str(other.config))
    assert done.returncode == 4
    assert "another process copies into it" in done.stderr


def test_target_in_a_bucket_whose_home_the_unit_does_not_open_is_told_with_its_setting(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, home = filled[0], tmp_path / "offsite"
    bucket = MemoryBucket()
    monkeypatch.setattr(bucket_setup, "reach", lambda _place, _settings: bucket)
    place, settings = BucketPlace("offsite", "zfs"), BucketSettings(home=home)
    target, store_id = bucket_setup.make(place, settings, adopt=False)
    there = config.parse(config.render(place, store_id, ":7433", [], settings), "offsite.toml")
    monkeypatch.setattr(opening, "open_store", lambda _settings: target)

    def refuse(path: Path) -> int:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(durable, "_open_lock_to_write", refuse)
    monkeypatch.setattr(errors, "is_read_only_here", lambda folder: folder == home)
    with (
        pytest.raises(StoreReadOnly, match=f"set ReadWritePaths={home} by"),
        copy._opened(LocalStore(receiver.store), there),
    ):
        pass


# --- as [copy] of receiver.toml says ------------------------------------------------------------------------------


def schedule(receiver: Receiver, other: Receiver, *lines: str) -> str:
    """Write the table [copy]. Returns: the other store's id."""
    with receiver.config.open("a", encoding="utf-8") as file:
        file.write("\n".join(["[copy]", f'to = "{other.config}"', *lines, ""]))
    return read_id(other.store)


def record(receiver: Receiver, store_id: str) -> CopyRecord:
    return read_record(LocalStore(receiver.store).documents, store_id)


def test_without_a_target_it_copies_as_the_table_says(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath], other: Receiver
) -> None:
    receiver, full, incr = filled
    assert receiver.fullsendd("copy").returncode == 2
    assert "name the other store with --to FILE, or in the table [copy]" in receiver.fullsendd("copy").stderr
    store_id = schedule(receiver, other, 'what = "alpha/tank/plain"', "all = true", 'bwlimit = "1G"')
    done = receiver.fullsendd("copy", "--quiet")
    assert (done.returncode, done.stdout.splitlines()) == (0, [f"{full}: copied", f"{incr}: copied"])
    found = record(receiver, store_id)
    assert (found.ok, found.streams, found.what, found.everything) == (True, 2, ["alpha/tank/plain"], True)


@pytest.mark.parametrize(
    ("arguments", "counts"), [([], True), (["--all"], True), (["alpha/tank/plain"], False), (["--dry-run"], False)]
)
def test_run_counts_if_it_copies_all_that_the_table_wants(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath], other: Receiver, arguments: list[str], counts: bool
) -> None:
    receiver = filled[0]
    store_id = schedule(receiver, other)
    assert receiver.fullsendd("copy", "--to", str(other.config), *arguments).returncode == 0
    assert (record(receiver, store_id).complete is not None) is counts


def test_copy_into_a_third_store_does_not_count(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath], other: Receiver, tmp_path: Path
) -> None:
    receiver, third = filled[0], Receiver(tmp_path / "third")
    third.init()
    store_id = schedule(receiver, other)
    assert receiver.fullsendd("copy", "--to", str(third.config)).returncode == 0
    assert record(receiver, store_id) == record(receiver, read_id(third.store)) == CopyRecord()
    other.config.unlink()  # nobody can tell which one the table means
    assert receiver.fullsendd("copy", "--to", str(third.config)).returncode == 0


def test_stream_that_was_left_behind_is_copied_by_the_next_run(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath], other: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, full, incr = filled
    store_id = schedule(receiver, other)
    real = Copier.copy

    def fail(copier: Copier, stored: StoredStream, *more: Any) -> bool:
        if stored.file == full:
            raise OSError(28, "No space left on device")
        return real(copier, stored, *more)

    with monkeypatch.context() as patched:
        patched.setattr(Copier, "copy", fail)
        assert receiver.fullsendd("copy").returncode == 1
    found = record(receiver, store_id)
    assert (found.ok, found.left, found.complete) == (False, 2, None)
    assert found.named[0] == (str(full), "No space left on device")
    assert receiver.fullsendd("copy").stdout.splitlines() == [f"{full}: copied", f"{incr}: copied"]
    assert record(receiver, store_id).ok


def test_target_that_the_unit_does_not_open_is_told_with_its_setting(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath], other: Receiver
) -> None:
    """As in the daemon's sandbox."""
    receiver = filled[0]
    store_id = schedule(receiver, other)
    said = f"set ReadWritePaths={other.store} by `systemctl edit fullsendd`"
    fails(read_only(receiver, "copy", "--quiet", folder=other.store), 1, said)
    assert said in str(record(receiver, store_id).why)


def test_other_host_that_copies_is_left_alone(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath], other: Receiver
) -> None:
    receiver = filled[0]
    store_id = schedule(receiver, other)
    with claimed(LocalStore(receiver.store), store_id, lambda: None):
        done = receiver.fullsendd("copy")
    assert (done.returncode, done.stdout) == (4, "")
    assert "another process of this host copies into that store: wait for its end" in done.stderr
    assert record(receiver, store_id) == CopyRecord()


def test_run_that_is_told_to_end_before_it_begins_copies_nothing(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath], other: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = filled[0]
    store_id = schedule(receiver, other)
    real = identity.check_same_owner

    def interrupt(*stores: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        real(*stores)

    monkeypatch.setattr(identity, "check_same_owner", interrupt)
    done = receiver.fullsendd("copy")
    assert (done.returncode, done.stdout) == (1, "")
    assert "interrupted: the next `copy` resumes it" in done.stderr
    assert record(receiver, store_id).why == "interrupted: the next `copy` resumes it"
    assert other.listed() == []
