from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import shutil
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from tests import streams
from tests.receiver.buckets import MemoryBucket, store_in, store_raw
from tests.receiver.helpers import (
    SENDER,
    check_listed,
    checked,
    everything,
    fail_reads,
    hash_path,
    long_stream,
    make_store,
    manifest_path,
    plant,
    read_manifest,
    remove,
    scrub,
    store_stream,
)
from tests.receiver.powercut import Disk
from tests.streams import each, whole

from fullsend_protocol.format.manifest import Manifest
from fullsend_protocol.stream.chunks import Compressor
from fullsend_protocol.wire.connection import Chunk
from fullsend_receiver.arrival.commit import make_manifest
from fullsend_receiver.catalogue.problems import ProblemKind
from fullsend_receiver.catalogue.scrub_results import Scrubbed
from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.maintenance.scrub import StreamCheck, rebuild
from fullsend_receiver.store.blob import LocalBlob
from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store.local import LocalStore
from fullsend_receiver.store.partials import committing
from fullsend_receiver.store.recovery import recover, remove_temporaries
from fullsend_receiver.store.seekable import IndexEntry, places, tables, tables_size
from fullsend_receiver.store_s3.bucket import BucketBusy

if TYPE_CHECKING:
    from tests.receiver.crash import Crasher
    from tests.streams import Genuine

PLAIN = streams.substream(streams.object_(1), streams.write(1, 0, b"x" * 512))


def without_manifest(store: LocalStore) -> list[PurePosixPath]:
    """The files that `verify` takes back."""
    problems = read_catalogue(store).problems
    return [PurePosixPath(each.path) for each in problems if each.kind is ProblemKind.NO_MANIFEST]


def scrubbed(store: LocalStore) -> Scrubbed:
    """Check the one stream of a store."""
    (stored,) = read_catalogue(store).streams
    return checked(store, stored)


def edit(store: LocalStore, file: PurePosixPath, **changes: Any) -> None:
    """Change what a manifest says."""
    path = manifest_path(store, file)
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes), encoding="utf-8")


@pytest.fixture
def small(store: LocalStore) -> PurePosixPath:
    """A small stored file of one genuine chunk."""
    return store_stream(store, SENDER, streams.named("incr-2").read())


# --- what is whole ----------------------------------------------------------------------------------------------


@each(whole)
def test_genuine_stream_is_found_whole(store: LocalStore, stream: Genuine) -> None:
    file = store_stream(store, SENDER, stream.read())
    there = everything(store.root)
    found = scrubbed(store)
    assert (found.file, found.damage, found.sha256) == (str(file), (), stream.sha256)
    assert found.received == read_manifest(store, file).received
    assert found.at >= found.received
    assert everything(store.root) == there, "to look is to change nothing"


def test_whole_stream_hash_is_computed_where_the_manifest_has_none(store: LocalStore, small: PurePosixPath) -> None:
    edit(store, small, sha256=None)
    assert scrubbed(store).sha256 == streams.named("incr-2").sha256
    assert scrubbed(store).damage == ()


# --- damage to the file -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_any_wrong_byte_of_a_file_is_found_and_named(store: LocalStore, small: PurePosixPath) -> None:
    path = store.root / small
    content = path.read_bytes()
    frames = len(content) - tables_size(1)
    (stored,) = read_catalogue(store).streams
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
        found = checked(store, stored)
        assert found.damage, at
        assert found.sha256 is None
        if at < frames and found.damage != ("the file's SHA-256 is not the one in its manifest",):
            assert found.damage[0].startswith("chunk 0 (raw bytes 0 to 13376): ")


def test_file_cut_anywhere_is_found(store: LocalStore, small: PurePosixPath) -> None:
    path = store.root / small
    (stored,) = read_catalogue(store).streams
    size = path.stat().st_size
    for length in reversed(range(0, size, 7)):
        os.truncate(path, length)
        assert f"the file has {length} bytes; its manifest says {size}" in checked(store, stored).damage


def test_each_damaged_chunk_is_named_with_its_raw_range(store: LocalStore) -> None:
    file = store_stream(store, SENDER, long_stream(3))
    path = store.root / file
    content = bytearray(path.read_bytes())
    length = read_manifest(store, file).stored_bytes - tables_size(3)
    content[10] ^= 1
    content[length - 10] ^= 1
    path.write_bytes(content)
    first, last = scrubbed(store).damage
    assert first.startswith("chunk 0 (raw bytes 0 to 4196176): ")
    assert last.startswith("chunk 2 (raw bytes 8391728 to 11538704): ")


def test_file_of_damaged_chunks_is_not_read_to_its_end(store: LocalStore) -> None:
    file = store_stream(store, SENDER, long_stream(25))
    path = store.root / file
    frames = path.stat().st_size - tables_size(25)
    path.write_bytes(bytes(frames) + path.read_bytes()[frames:])
    found = scrubbed(store)
    assert len(found.damage) == 20
    assert found.damage[-1].startswith("chunk 19 ")


def test_missing_file_is_found(store: LocalStore, small: PurePosixPath) -> None:
    (stored,) = read_catalogue(store).streams
    (store.root / small).unlink()
    assert "the file is missing" in checked(store, stored).damage


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", b"0" * 64 + b"  other\n"])
def test_hash_file_that_does_not_say_what_the_manifest_says_is_found(
    store: LocalStore, small: PurePosixPath, content: bytes | None
) -> None:
    if content is None:
        hash_path(store, small).unlink()
    else:
        hash_path(store, small).write_bytes(content)
    assert scrubbed(store).damage == ("the .sha256 file is missing, or does not say what the manifest says",)


# --- errors of the disk -----------------------------------------------------------------------------------------

#: What says nothing about a file.
READ_ERRORS = (errno.EIO, errno.EMFILE, errno.ENOMEM, errno.ETIMEDOUT, errno.ESTALE, errno.ENODATA, errno.EACCES)


@pytest.mark.parametrize("name", ["read", "get"])
def test_object_store_that_does_not_answer_is_not_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    bucket = MemoryBucket(least_part=0)
    store = store_in(bucket, tmp_path)
    assert store_raw(store)
    (stored,) = read_catalogue(store).streams

    def away(*_arguments: object) -> bytes:
        raise BucketBusy("no answer")

    monkeypatch.setattr(bucket, name, away)
    found = StreamCheck(store, stored.file, stored.summary.received).run()
    assert found is not None
    assert (found.verdict, found.damage, found.unreadable) == ("unreadable", (), "no answer")


@pytest.mark.parametrize("number", READ_ERRORS)
def test_read_error_is_not_damage(store: LocalStore, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    file = store_stream(store, SENDER, long_stream(3))
    second = list(places(store.open(file)))[1].file_offset
    with monkeypatch.context() as patch:
        fail_reads(patch, store.root / file, number, lambda offset: offset == second)
        found = scrubbed(store)
    assert (found.verdict, found.damage, found.sha256) == ("unreadable", (), None)
    assert found.unreadable == f"chunk 1 cannot be read: {os.strerror(number)}"
    assert scrubbed(store).verdict == "whole"


@pytest.mark.parametrize("number", READ_ERRORS)
def test_read_error_of_any_file_of_a_stream_is_not_damage(
    store: LocalStore, small: PurePosixPath, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    (stored,) = read_catalogue(store).streams

    def fail(*_arguments: object, **_options: object) -> None:
        raise OSError(number, os.strerror(number))

    for name in ("open", "read_bytes", "stat"):
        for suffix in ("", ".json", ".sha256"):
            with monkeypatch.context() as patch:
                for owner, method in ((os, name), (Path, name)):
                    if (real := getattr(owner, method, None)) is not None:

                        def call(path: Any, *rest: Any, _real: Any = real, _end: str = suffix, **options: Any) -> Any:
                            if str(path).endswith(f".zst{_end}"):
                                fail()
                            return _real(path, *rest, **options)

                        patch.setattr(owner, method, call)
                assert checked(store, stored).damage == (), (name, suffix)


def test_damage_that_was_read_twice_counts_whatever_cannot_be_read(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = store_stream(store, SENDER, long_stream(3))
    first, _second, third = places(store.open(file))
    path = store.root / file
    content = bytearray(path.read_bytes())
    content[first.file_offset + 10] ^= 1
    path.write_bytes(content)
    fail_reads(monkeypatch, path, errno.EIO, lambda offset: offset == third.file_offset)
    found = scrubbed(store)
    assert (found.verdict, len(found.damage)) == ("damaged", 1)
    assert found.damage[0].startswith("chunk 0 ")


def test_wrong_bytes_that_cannot_be_read_again_are_no_damage(
    store: LocalStore, small: PurePosixPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store.root / small
    content = path.read_bytes()
    path.write_bytes(content[:10] + b"rot" + content[13:])
    reads = itertools.count()
    fail_reads(monkeypatch, path, errno.EIO, lambda offset: offset == 0 and next(reads) > 0)
    assert scrubbed(store).verdict == "unreadable"


# --- bytes that are wrong in memory and right on the disk ---------------------------------------------------------


class Cached(LocalBlob):
    """A file of which this host has wrong bytes in memory, until it is told to forget them."""

    wrong: ClassVar[dict[int, int]] = {}  # by inode: the offset of the wrong byte
    forgotten: ClassVar[list[tuple[int, int]]] = []

    def read(self, start: int, size: int) -> bytes:  # type: ignore[explicit-override]
        data = bytearray(super().read(start, size))
        at = self.wrong.get(os.fstat(self._descriptor).st_ino)
        if at is not None and start <= at < start + len(data):
            data[at - start] ^= 0x10
        return bytes(data)

    def forget(self, start: int, size: int) -> None:  # type: ignore[explicit-override]
        inode = os.fstat(self._descriptor).st_ino
        self.forgotten.append((start, size))
        if len(self.forgotten) > 1 and start <= self.wrong.get(inode, -1) < start + size:  # the first one: at the begin
            del self.wrong[inode]
        super().forget(start, size)


@pytest.fixture
def cached(monkeypatch: pytest.MonkeyPatch) -> type[Cached]:
    monkeypatch.setattr(Cached, "wrong", {})
    monkeypatch.setattr(Cached, "forgotten", [])
    monkeypatch.setattr(LocalStore, "open", lambda store, file: Cached(store.root / file))
    monkeypatch.setattr("fullsend_receiver.store.objects.LocalBlob", Cached)
    return Cached


@pytest.mark.slow
def test_bytes_that_were_wrong_once_are_whole_wherever_they_are(store: LocalStore, cached: type[Cached]) -> None:
    file = store_stream(store, SENDER, long_stream(3))
    path = store.root / file
    (stored,) = read_catalogue(store).streams
    size = path.stat().st_size
    for at in [*range(0, size, 97), *range(size - tables_size(3), size)]:
        cached.wrong[path.stat().st_ino] = at
        cached.forgotten.clear()
        check = StreamCheck(store, stored.file, stored.summary.received)
        found = check.run()
        assert found is not None
        assert (found.verdict, found.sha256) == ("whole", stored.summary.sha256), at
        assert len(check.passing) == 1, at
        assert not cached.wrong, at


def test_only_the_chunk_that_is_wrong_is_read_again(
    store: LocalStore, cached: type[Cached], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = store_stream(store, SENDER, long_stream(3))
    first, second, third = places(store.open(file))
    read: list[int] = []
    real = os.pread

    def pread(descriptor: int, length: int, offset: int) -> bytes:
        read.append(offset)
        return real(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", pread)
    cached.wrong[(store.root / file).stat().st_ino] = second.file_offset + 200
    assert scrubbed(store).verdict == "whole"
    places_read = [offset for offset in read if offset <= third.file_offset]
    assert places_read == [first.file_offset, second.file_offset, second.file_offset, third.file_offset]


def test_a_manifest_that_was_wrong_once_is_no_damage(
    store: LocalStore, small: PurePosixPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = LocalStore.manifest
    reads = itertools.count()

    def manifest(self: LocalStore, file: PurePosixPath) -> Manifest:
        found = real(self, file)
        return found if next(reads) else found.model_copy(update={"guid": "1"})

    (stored,) = read_catalogue(store).streams
    monkeypatch.setattr(LocalStore, "manifest", manifest)
    check = StreamCheck(store, stored.file, stored.summary.received)
    found = check.run()
    assert found is not None
    assert found.verdict == "whole"
    assert [line[:30] for line in check.passing] == ["its records show other `guid` "]


def test_what_was_read_is_not_kept_in_memory(store: LocalStore, cached: type[Cached]) -> None:
    """A scrub that fills the memory of the host with what nobody reads again displaces what others need."""
    file = store_stream(store, SENDER, long_stream(3))
    assert scrubbed(store).verdict == "whole"
    size = (store.root / file).stat().st_size
    begin, *_others = cached.forgotten
    assert begin == (0, size)
    forgotten = {offset for start, length in cached.forgotten[1:] for offset in range(start, start + length)}
    assert forgotten == set(range(size))


# --- what is interrupted and continued ----------------------------------------------------------------------------


class StopHere(Exception):  # noqa: N818 - reads as what it does
    """Ends a check between two chunks."""


def test_a_check_continues_after_an_interruption(store: LocalStore) -> None:
    file = store_stream(store, SENDER, long_stream(4))
    (stored,) = read_catalogue(store).streams
    check = StreamCheck(store, file, stored.summary.received)
    calls = itertools.count(1)

    def between() -> None:
        if next(calls) % 2:
            raise StopHere

    results = []
    for _ in range(20):
        with contextlib.suppress(StopHere):
            results.append(check.run(between))
            break
    (found,) = results
    assert found is not None
    assert (found.verdict, found.sha256) == ("whole", stored.summary.sha256)
    assert next(calls) == 9  # four chunks, each begun twice


def test_the_second_pass_continues_after_an_interruption(store: LocalStore) -> None:
    file = store_stream(store, SENDER, long_stream(4))
    hash_path(store, file).unlink()
    (stored,) = read_catalogue(store).streams
    check = StreamCheck(store, file, stored.summary.received)
    calls = itertools.count(1)

    def between() -> None:
        if next(calls) % 3 == 0:
            raise StopHere

    found = None
    while found is None:
        with contextlib.suppress(StopHere):
            found = check.run(between)
    assert found.damage == ("the .sha256 file is missing, or does not say what the manifest says",)
    assert next(calls) == 12  # eight chunks in two passes, and three interruptions


# --- what is removed meanwhile ----------------------------------------------------------------------------------


def test_stream_that_was_removed_is_not_damaged(store: LocalStore, small: PurePosixPath) -> None:
    (stored,) = read_catalogue(store).streams
    remove(store, small)
    assert scrub(store, stored.file, stored.summary.received) is None


@pytest.mark.parametrize("again", [False, True])
def test_stream_that_is_removed_while_it_is_read_is_not_damaged(store: LocalStore, again: bool) -> None:
    """Whatever was read of it, and whether or not it is there again."""
    raw = long_stream(3)
    file = store_stream(store, SENDER, raw)
    (stored,) = read_catalogue(store).streams
    reads = itertools.count()

    def between() -> None:
        if next(reads) == 1:
            remove(store, file)
            if again:
                store_stream(store, SENDER, raw)

    assert scrub(store, stored.file, stored.summary.received, between) is None
    assert next(reads) > 2


def test_manifest_that_cannot_be_looked_at_is_damage(store: LocalStore, small: PurePosixPath) -> None:
    (stored,) = read_catalogue(store).streams
    path = manifest_path(store, small)
    path.unlink()
    path.symlink_to(path.name)  # ELOOP
    assert "cannot be read" in checked(store, stored).damage[0]


# --- a manifest that says something else ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"stored_bytes": 5}, "the file has"),
        ({"raw_bytes": 13375}, "the file has 13376 raw bytes in 1 chunks; its manifest says 13375 in 1"),
        ({"chunks": 2}, "the file has 13376 raw bytes in 1 chunks; its manifest says 13376 in 2"),
        ({"sha256": "00" * 32}, "the raw stream's SHA-256 is not the one in its manifest"),
        ({"segments": [{"start": 0, "end": 13376, "sha256": "00" * 32}]}, "the segments' SHA-256 are not those"),
        ({"segments": []}, "the segments' SHA-256 are not those"),
        ({"file_sha256": "00" * 32}, "the file's SHA-256 is not the one in its manifest"),
        ({"dataset": "tank/other"}, "its records show other `dataset`"),
        ({"snapshot": "other"}, "its records show other `snapshot`"),
        ({"guid": "1"}, "its records show other `guid`"),
        ({"base_guid": "1"}, "its records show other `base_guid`"),
        ({"base_guid": None}, "its records show other `base_guid`"),
        ({"kind": "full"}, "its records show other `kind` than its manifest: 'incremental', not 'full'"),
        ({"class": "raw"}, "its records show other `class`"),
        ({"flags": "L"}, "its records show other `flags`"),
        ({"created": "2020-01-01T00:00:00Z"}, "its records show other `created`"),
        ({"snapshots": []}, "its records show other `snapshots` than its manifest"),
    ],
)
def test_manifest_that_says_something_else_than_its_file_is_found(
    store: LocalStore, small: PurePosixPath, changes: dict[str, Any], why: str
) -> None:
    edit(store, small, **changes)
    found = scrubbed(store)
    assert any(why in line for line in found.damage), found.damage
    assert found.sha256 is None


def test_manifest_that_another_version_wrote_is_not_damage(store: LocalStore, small: PurePosixPath) -> None:
    edit(store, small, features=["bit_2"], receiver_program="fullsendd 9", of_a_later_version=1)
    assert scrubbed(store).damage == ()


def test_manifest_with_other_iv_sets_than_the_stream_is_found(store: LocalStore) -> None:
    raw = streams.encrypted(streams.object_(1), base_guid=1, ivset_guid=12, base_ivset_guid=11)
    file = store_stream(store, SENDER, raw)
    path = manifest_path(store, file)
    said = json.loads(path.read_bytes())
    assert (said["ivset_guid"], said["base_ivset_guid"]) == ("12", "11")
    assert scrubbed(store).damage == ()
    # An older fullsendd has written none.
    path.write_text(json.dumps({name: said[name] for name in said if name not in {"ivset_guid", "base_ivset_guid"}}))
    assert scrubbed(store).damage == ()
    path.write_text(json.dumps(said | {"base_ivset_guid": "19"}))
    assert scrubbed(store).damage == ("its records show other `base_ivset_guid` than its manifest: '11', not '19'",)


def test_manifest_that_has_become_unreadable_is_found(store: LocalStore, small: PurePosixPath) -> None:
    (stored,) = read_catalogue(store).streams
    manifest_path(store, small).write_bytes(b"{")
    (line,) = checked(store, stored).damage
    assert "cannot be read" in line


def test_manifest_of_another_stream_is_found(store: LocalStore, small: PurePosixPath) -> None:
    other = store_stream(store, SENDER, PLAIN)
    shutil.copy(manifest_path(store, other), manifest_path(store, small))
    (stored,) = (each_one for each_one in read_catalogue(store).streams if each_one.file == small)
    assert checked(store, stored).damage


# --- what damage breaks -----------------------------------------------------------------------------------------


def test_damage_breaks_what_builds_on_it_and_nothing_else(store: LocalStore) -> None:
    files = [store_stream(store, SENDER, streams.named(name).read()) for name in ("full", "incr", "incr-2", "empty")]
    path = store.root / files[1]
    path.write_bytes(bytes(path.stat().st_size))
    catalogue = read_catalogue(store)
    damaged = catalogue.find(SENDER, str(files[1]))
    catalogue.scrubbed.add(checked(store, damaged))
    assert [stored.file for stored in catalogue.dependents(damaged)] == [files[2]]
    catalogue = read_catalogue(store)
    assert {stored.file for stored in catalogue.streams if catalogue.restorable(stored)} == {files[0], files[3]}


# --- rebuilding -------------------------------------------------------------------------------------------------


@each(whole)
def test_manifest_is_rebuilt_from_the_file_alone(store: LocalStore, stream: Genuine) -> None:
    file = store_stream(store, SENDER, stream.read())
    before, line = read_manifest(store, file), hash_path(store, file).read_bytes()
    manifest_path(store, file).unlink()
    hash_path(store, file).unlink()
    assert without_manifest(store) == [file]

    rebuilt = rebuild(store, file)

    assert rebuilt == read_manifest(store, file)
    lost: dict[str, Any] = {"received": rebuilt.received, "begun": None, "sequence": None}
    lost |= {"sender_program": "unknown", "zfs_version": None, "proven_by": "receiver"}
    assert rebuilt == before.model_copy(update=lost)
    assert hash_path(store, file).read_bytes() == line
    assert check_listed(store) == [str(file)]
    assert scrubbed(store).damage == ()
    assert not list(store.state.glob(".*"))


def test_longest_names_are_rebuilt(store: LocalStore) -> None:
    """The temporary file's name is longer still."""
    name = "tank/" + "d" * 100 + "@" + "s" * 149
    assert len(name) == 255
    file = store_stream(store, SENDER, streams.redacted([1], name=name, features=[16, 19, 22, 24]))
    manifest_path(store, file).unlink()
    assert rebuild(store, file).snapshot == "s" * 149


@pytest.mark.parametrize("harm", ["a wrong byte", "a cut", "another name", "another folder", "another sender's folder"])
def test_nothing_is_rebuilt_from_what_is_not_whole_or_belongs_elsewhere(
    store: LocalStore, small: PurePosixPath, harm: str
) -> None:
    path = store.root / small
    manifest_path(store, small).unlink()
    match harm:
        case "a wrong byte":
            content = bytearray(path.read_bytes())
            content[100] ^= 1
            path.write_bytes(content)
        case "a cut":
            os.truncate(path, path.stat().st_size - 1)
        case "another name":
            path = path.rename(path.with_name(path.name.replace("@s3", "@s4")))
        case "another folder":
            (path.parent / "child").mkdir()
            path = path.rename(path.parent / "child" / path.name)
        case _:
            target = store.root / "beta" / "tank" / "other" / path.name
            target.parent.mkdir(parents=True)
            path = path.rename(target)
    file = PurePosixPath(path.relative_to(store.root))
    there = everything(store.root)
    with pytest.raises(StoreError, match=r"has no manifest, and (none can be made: |contains tank/plain@s3, which)"):
        rebuild(store, file)
    assert everything(store.root) == there


@pytest.mark.parametrize(
    "raw",
    [
        streams.begin() + streams.object_(1),
        streams.named("full-part").read(),
        streams.named("full-rest").read(),
        streams.named("damaged-R").read(),
        streams.named("tree-R-X").read(),
    ],
    ids=["no end", "cut", "resumed", "damaged", "not all of a package"],
)
def test_nothing_is_rebuilt_from_a_stream_that_would_not_have_been_taken(store: LocalStore, raw: bytes) -> None:
    """Right frames, right tables, in a file that somebody has put there."""
    chunks = [Chunk(0, len(raw), hashlib.sha256(raw).digest(), Compressor(3).compress(raw))]
    entries = [
        IndexEntry(chunk.raw_length, len(chunk.frame), False, None, not chunk.raw_offset, bytes(chunk.sha256))
        for chunk in chunks
    ]
    file = PurePosixPath(SENDER, "tank", "@s1.0000000000000001.full.zfs.zst")
    (store.root / file).parent.mkdir(parents=True)
    (store.root / file).write_bytes(
        b"".join(bytes(chunk.frame) for chunk in chunks) + b"".join(tables(entries, len(entries)))
    )
    with pytest.raises(StoreError, match="none can be made"):
        rebuild(store, file)
    assert not manifest_path(store, file).exists()


def test_nothing_is_rebuilt_from_an_index_that_starts_no_segment(store: LocalStore, small: PurePosixPath) -> None:
    path = store.root / small
    content = path.read_bytes()
    frame = content[: len(content) - tables_size(1)]
    manifest = read_manifest(store, small)
    entry = IndexEntry(13376, len(frame), False, None, False, bytes.fromhex(manifest.segments[0].sha256))
    path.write_bytes(frame + b"".join(tables([entry], 1)))
    manifest_path(store, small).unlink()
    with pytest.raises(StoreError, match="does not show where the first segment starts"):
        rebuild(store, small)


def test_file_that_somebody_else_put_there_is_durable_before_its_manifest_is(tmp_path: Path) -> None:
    """A copy from another disk, perhaps still in memory only; and its folders are new."""
    origin = make_store(tmp_path, "origin")
    file = store_stream(origin, SENDER, PLAIN)
    store = make_store(tmp_path)
    left = LocalStore(tmp_path / "left")
    with Disk(store.root, lambda _disk: None) as disk:
        (store.root / file).parent.mkdir(parents=True)
        descriptor = os.open(store.root / file, os.O_WRONLY | os.O_CREAT)
        os.write(descriptor, (origin.root / file).read_bytes())
        os.close(descriptor)
        rebuild(store, file)
        disk.leave(left.root)
    assert check_listed(left) == [str(file)]


def test_power_cut_at_any_moment_of_a_rebuild_lists_only_what_is_whole(swift_path: Path) -> None:
    store = make_store(swift_path)
    file = store_stream(store, SENDER, PLAIN)
    manifest_path(store, file).unlink()
    hash_path(store, file).unlink()
    found: list[LocalStore] = []

    def lights_out(disk: Disk) -> None:
        for draw in range(8):
            found.append(LocalStore(swift_path / f"{disk.steps}.{draw}"))
            disk.leave(found[-1].root, seed=100 * disk.steps + draw if draw else None)

    with Disk(store.root, lights_out) as disk:
        rebuild(store, file)
        disk.step()
        disk.leave(swift_path / "left")
    for left in found:
        if not check_listed(left):
            assert without_manifest(left) == [file]
    assert check_listed(LocalStore(swift_path / "left")) == [str(file)]


def test_kill_at_any_call_of_a_rebuild_leaves_nothing_that_the_next_start_does_not_clean_up(
    swift_path: Path, crasher: Crasher
) -> None:
    for at in itertools.count(1):
        store = make_store(swift_path, f"store{at}")
        file = store_stream(store, SENDER, PLAIN)
        manifest_path(store, file).unlink()
        outcome = crasher.run("rebuild_manifest", store.root, str(file), at=at)
        if not check_listed(store):
            assert without_manifest(store) == [file]
            rebuild(store, file)
        remove_temporaries(store)
        assert check_listed(store) == [str(file)]
        assert {path.name for path in (store.root / file).parent.iterdir()} == {
            file.name + suffix for suffix in ("", ".json", ".sha256")
        }
        assert {path.name for path in store.state.iterdir()} == {"lock"}
        if not outcome.killed:
            break
    assert at > 8


def test_commit_that_is_under_way_is_not_rebuilt(store: LocalStore, crasher: Crasher) -> None:
    """`verify` may run beside the daemon: between the renames its file looks like one without a manifest."""
    crasher.run("push", store.root, call="rename", at=3)
    (file,) = committing(store)
    assert (store.root / file).exists()
    assert without_manifest(store) == []
    with pytest.raises(StoreError, match="is about to get it"):
        rebuild(store, file)
    recover(store)
    assert read_manifest(store, file).proven_by == "both"


def test_manifest_that_came_while_the_file_was_walked_stays(
    store: LocalStore, small: PurePosixPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = manifest_path(store, small)
    first = path.read_bytes()
    path.unlink()

    def slowly(*arguments: Any, **named: Any) -> Manifest:
        path.write_bytes(first)
        return make_manifest(*arguments, **named)

    monkeypatch.setattr("fullsend_receiver.maintenance.scrub.make_manifest", slowly)
    with pytest.raises(StoreError, match="has its manifest by now"):
        rebuild(store, small)
    assert path.read_bytes() == first


def test_missing_file_is_not_rebuilt(store: LocalStore) -> None:
    file = plant(store, "s1", 1)
    (store.root / file).unlink()
    with pytest.raises(StoreError, match="the file is missing"):
        rebuild(store, file)
