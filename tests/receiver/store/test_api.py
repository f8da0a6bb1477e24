"""What every store does, whatever holds its bytes: an implementation that passes this is one.

A new one needs a `Kind` in KINDS, and nothing else here. `cut` stands for a process that dies: from its `at`-th step on
that changes what is stored, each raises `Died`, and `again` is the next process. What a kill or a power cut leaves of
files in a folder is tested in test_recovery.py; here it is enough that no step is the wrong one.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import os
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import pytest
from tests.receiver import crash
from tests.receiver.buckets import (
    FILE,
    KEY,
    PUSH,
    RAW,
    SEGMENTS,
    MemoryBucket,
    SteppedBucket,
    gateways,
    in_ceph,
    manifest_for,
)
from tests.receiver.helpers import (
    PROGRAM,
    SENDER,
    chunks_from,
    chunks_of,
    decode,
    make_store,
    take,
    take_one,
)
from tests.receiver.versioned_bucket import VersionedBucket

from fullsend_protocol.format.manifest import Manifest
from fullsend_protocol.stream.records import HEADER_SIZE
from fullsend_receiver.arrival.ingest import Ingest
from fullsend_receiver.catalogue.object_search import ObjectSearch
from fullsend_receiver.store import api
from fullsend_receiver.store.api import UNLIMITED, Supersedes, update
from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store.local import LocalStore
from fullsend_receiver.store.names import hash_line
from fullsend_receiver.store.opened import open_offer, partial_key
from fullsend_receiver.store.seekable import FileDamaged, tables_size
from fullsend_receiver.store_s3.part_sizes import PartSizes
from fullsend_receiver.store_s3.stores import BucketStore, make_bucket_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fullsend_receiver.store.api import Store, Upload, UploadInfo
    from fullsend_receiver.store_s3.probe import ProbedBucket

#: Where each of the three chunks of RAW ends in the raw stream.
BORDERS: Final = tuple(itertools.accumulate(chunk.raw_length for chunk in crash.chunks()))
#: What distinguishes two uploads of one stream.
NAMES: Final = ("first", "second")


class Died(BaseException):
    """The process is dead; nothing catches this but the test."""


class Kind(Protocol):
    """An implementation, as the tests need it."""

    def make(self, folder: Path) -> Store:
        """Make an empty store; `folder` is for it alone."""

    def again(self, store: Store) -> Store:
        """Return the same store for a process that starts now."""

    def cut(self, at: int) -> contextlib.AbstractContextManager[Cut]:
        """Let all steps from the `at`-th on raise Died."""


class Cut:
    """Counts steps."""

    def __init__(self, at: int) -> None:
        self._left = at
        self.died = False

    def step(self) -> None:
        """Something is about to be changed. Raises: Died."""
        self._left -= 1
        if self._left <= 0:
            self.died = True
            raise Died


class Local:
    """Files in a folder."""

    _CALLS: Final = ("write", "fdatasync", "fsync", "ftruncate", "rename", "replace", "unlink", "mkdir")

    def make(self, folder: Path) -> LocalStore:
        return make_store(folder)

    def again(self, store: Store) -> LocalStore:
        assert isinstance(store, LocalStore)
        return LocalStore(store.root)

    @contextlib.contextmanager
    def cut(self, at: int) -> Iterator[Cut]:
        cut = Cut(at)
        with pytest.MonkeyPatch.context() as patch:
            for name in self._CALLS:
                patch.setattr(os, name, self._step(cut, getattr(os, name)))
            yield cut

    @staticmethod
    def _step(cut: Cut, real: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            cut.step()
            return real(*arguments, **named)

        return call


class InBucket:
    """Objects in a bucket: here of memory, where a part may be small."""

    def __init__(self) -> None:
        self._cut: Cut | None = None

    def bucket(self) -> ProbedBucket:
        return MemoryBucket(least_part=0)

    def make(self, folder: Path) -> BucketStore:
        made, _store_id = make_bucket_store(self.bucket(), folder / "home", lambda _store: None)
        return self._store(made.bucket, made)

    def again(self, store: Store) -> BucketStore:
        assert isinstance(store, BucketStore)
        assert isinstance(store.bucket, SteppedBucket)
        return self._store(store.bucket.real, store)

    def _store(self, bucket: ProbedBucket, store: BucketStore) -> BucketStore:
        stepped = cast("ProbedBucket", SteppedBucket(bucket, self._step))
        return BucketStore(stepped, store.home, store.store_id, sizes=self.sizes)

    #: Two chunks of RAW are a part.
    sizes = PartSizes(least=sum(len(chunk.frame) for chunk in crash.chunks()[:2]))

    def _step(self, _name: str) -> None:
        if self._cut is not None:
            self._cut.step()

    @contextlib.contextmanager
    def cut(self, at: int) -> Iterator[Cut]:
        self._cut = Cut(at)
        try:
            yield self._cut
        finally:
            self._cut = None


class WithVersions(InBucket):
    """The same in a bucket that keeps versions."""

    def bucket(self) -> ProbedBucket:  # type: ignore[explicit-override]
        return VersionedBucket()


class InOnePart(InBucket):
    """The same, where all of a stream waits for its end."""

    sizes = PartSizes(least=1 << 20)


class InSegments(InBucket):
    """The same, where a stream is large: each chunk but the first one is a segment."""

    sizes = SEGMENTS


class InCeph(InBucket):
    """The same in a real Ceph. Each process takes the other gateway."""

    sizes = PartSizes()

    def bucket(self) -> ProbedBucket:  # type: ignore[explicit-override]
        return in_ceph(secrets.token_hex(8))

    def again(self, store: Store) -> BucketStore:  # type: ignore[explicit-override]
        assert isinstance(store, BucketStore)
        prefix = store.where.rpartition("/")[2]
        return self._store(in_ceph(prefix, next(self._gateways)), store)

    def __init__(self) -> None:
        super().__init__()
        self._gateways = itertools.cycle([1, 0])


KINDS: Final[dict[str, Kind]] = {
    "local": Local(),
    "bucket": InBucket(),
    "bucket, one part": InOnePart(),
    "bucket, segments": InSegments(),
    "bucket, versions": WithVersions(),
}
if gateways():
    KINDS["ceph"] = InCeph()


@pytest.fixture(params=[pytest.param(name, marks=[pytest.mark.s3] * (name == "ceph")) for name in KINDS])
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def store(kind: Kind, tmp_path: Path) -> Store:
    return kind.make(tmp_path)


def begun(store: Store, chunks: int = 0) -> Ingest:
    """Begin an upload, and append so many chunks, each a batch."""
    ingest = Ingest(store.begin(KEY, open_offer(SENDER, PUSH)))
    take(ingest, crash.chunks()[:chunks])
    return ingest


@contextlib.contextmanager
def owned(ingest: Ingest) -> Iterator[Ingest]:
    """Let go of an upload, also where its process dies: the system does that much for the dead."""
    try:
        yield ingest
    finally:
        ingest.partial.close(keep=True)


def resumed(store: Store, *, at_resume_point: bool = False) -> Ingest | None:
    found = store.reopen(KEY, at_resume_point=at_resume_point)
    return None if found is None else Ingest(*found)


def keys(store: Store) -> list[str]:
    return [key for key, _nothing in store.uploads(lambda upload: upload.journal)]


# --- what arrives -----------------------------------------------------------------------------------------------


def test_upload_is_told_with_what_it_is_and_how_much_is_durable(store: Store) -> None:
    ingest = begun(store, chunks=2)
    opened = open_offer(SENDER, PUSH)

    def look(upload: UploadInfo) -> tuple[Any, ...]:
        said, (end, resumable) = upload.journal, upload.places
        assert upload.opened is not None
        assert end is not None
        assert resumable is not None
        assert upload.last > 0
        return (
            (upload.key, upload.opened.sender, upload.opened.offer),
            (said.offset, said.stored, said.committing),
            (end.offset, resumable.offset, upload.arriving),
        )

    size = ingest.partial.size
    told = (KEY, SENDER, opened.offer), (BORDERS[1], size, None), (BORDERS[1], BORDERS[1], True)
    assert list(store.uploads(look)) == [(KEY, told)]
    ingest.partial.close(keep=True)
    ((_key, (_what, _durable, (*_places, arriving))),) = store.uploads(look)
    assert not arriving


def test_sync_tells_the_raw_bytes_that_are_durable(store: Store) -> None:
    ingest = begun(store)
    told = []
    for chunk in crash.chunks():
        take_one(ingest, chunk)
        told.append(ingest.partial.sync(ingest.batch()))
    assert tuple(told) == BORDERS
    ingest.partial.close(keep=True)


def test_what_was_appended_is_read_back(store: Store) -> None:
    ingest = begun(store, chunks=2)
    if not store.capabilities.can_read_partials:
        with pytest.raises(StoreError, match="cannot be read before its commit"):
            ingest.partial.read(0, 1)
        ingest.partial.close(keep=True)
        return
    frames = b"".join(bytes(chunk.frame) for chunk in crash.chunks()[:2])
    assert ingest.partial.read(0, len(frames)) == frames
    assert ingest.partial.read(5, 7) == frames[5:12]
    assert ingest.partial.read(len(frames), 1) == b""
    ingest.partial.close(keep=True)


def test_upload_that_is_kept_resumes_where_it_was_durable(store: Store) -> None:
    ingest = begun(store, chunks=1)
    take_one(ingest, crash.chunks()[1])  # and no batch of it
    ingest.partial.close(keep=True)
    again = resumed(store)
    assert again is not None
    assert again.offset == BORDERS[0]
    take(again, chunks_from(RAW, again.offset))
    assert again.offset == len(RAW)
    again.partial.close(keep=True)


@pytest.mark.parametrize("there", [1, 2, 3])
def test_upload_resumes_for_a_token_behind_a_resumable_record(store: Store, there: int) -> None:
    begun(store, chunks=there).partial.close(keep=True)
    again = resumed(store, at_resume_point=True)
    assert again is not None
    # The last chunk is short, so nothing may follow it.
    least = BORDERS[min(there, 2) - 1]
    assert again.offset == least if store.capabilities.can_truncate else again.offset <= least
    again.partial.close(keep=True)


def test_upload_that_resumes_for_a_token_tells_the_record_before_it(store: Store) -> None:
    begun(store, chunks=2).partial.close(keep=True)
    found = store.reopen(KEY, at_resume_point=True)
    assert found is not None
    upload, standing = found
    told = upload.record(standing)
    end = standing.offset
    start = standing.walker.record_start
    assert base64.b64decode(told.header) == RAW[start : start + HEADER_SIZE]
    assert told.payload_sha256 == hashlib.sha256(RAW[start + HEADER_SIZE : end]).hexdigest()
    assert told.features == standing.begins[-1].features
    upload.close(keep=True)


def test_upload_that_is_cut_back_to_a_token_resumes_there_the_next_time(store: Store) -> None:
    """Its durable end is the end of a short chunk; a token leads to the chunk before."""
    begun(store, chunks=3).partial.close(keep=True)
    again = resumed(store, at_resume_point=True)
    assert again is not None
    at = again.offset
    assert at == BORDERS[1]
    again.partial.close(keep=True)
    last = resumed(store)
    assert last is not None
    assert last.offset == at
    take(last, chunks_from(RAW, at))
    assert last.partial.commit(FILE, manifest_of(last.partial.seal(last.chunks)))
    check_stored(store)


def test_upload_that_was_discarded_is_gone(store: Store) -> None:
    ingest = begun(store, chunks=2)
    ingest.partial.close(keep=False)
    assert keys(store) == []
    assert resumed(store) is None


@pytest.mark.parametrize("keep", [False, True])
def test_upload_ends_once_and_the_first_end_counts(store: Store, keep: bool) -> None:
    ingest = begun(store, chunks=2)
    ingest.partial.close(keep=keep)
    ingest.partial.close(keep=not keep)
    assert keys(store) == [KEY] * keep


def test_upload_that_is_discarded_by_its_key_is_gone(store: Store) -> None:
    begun(store, chunks=2).partial.close(keep=True)
    store.discard(KEY)
    store.discard(KEY)  # nothing left: fine too
    assert keys(store) == []


def test_upload_that_is_open_is_not_discarded_by_its_key(store: Store) -> None:
    ingest = begun(store, chunks=1)
    with pytest.raises(StoreError, match="is arriving"):
        store.discard(KEY)
    take(ingest, crash.chunks()[1:2])
    ingest.partial.close(keep=True)
    again = resumed(store)
    assert again is not None
    assert again.offset == BORDERS[1]
    again.partial.close(keep=True)


def test_begin_throws_away_what_is_there_of_the_same_key(store: Store) -> None:
    begun(store, chunks=2).partial.close(keep=True)
    ingest = begun(store)
    assert (ingest.offset, ingest.partial.size) == (0, 0)
    take(ingest, chunks_of(RAW))
    ingest.partial.close(keep=True)
    again = resumed(store)
    assert again is not None
    assert again.offset == len(RAW)
    again.partial.close(keep=True)


def test_upload_without_a_batch_is_nothing_to_resume_and_gone_with_the_next_start(kind: Kind, store: Store) -> None:
    begun(store).partial.close(keep=True)
    assert resumed(store) is None
    store = kind.again(store)
    store.recover()
    assert keys(store) == []


def test_start_leaves_an_upload_that_another_process_has_open(kind: Kind, store: Store) -> None:
    """A `fullsendd copy` is at work while the daemon of its target starts."""
    upload = finished(store)
    sealed = upload.seal(len(crash.chunks()))
    kind.again(store).recover()
    assert upload.commit(FILE, manifest_of(sealed))
    check_stored(store)
    assert keys(store) == []


def test_seal_wants_all_of_it_durable(store: Store) -> None:
    ingest = begun(store, chunks=1)
    take_one(ingest, crash.chunks()[1])
    with pytest.raises(StoreError, match="durable"):
        ingest.partial.seal(2)
    ingest.partial.close(keep=True)


def test_last_batch_is_durable_with_the_commit(store: Store) -> None:
    ingest = begun(store, chunks=2)
    take_one(ingest, crash.chunks()[2])
    ingest.partial.take_last(ingest.batch())
    assert ingest.partial.commit(FILE, manifest_of(ingest.partial.seal(ingest.chunks)))
    check_stored(store)


def test_last_batch_may_become_durable_where_there_is_no_commit(store: Store) -> None:
    ingest = begun(store, chunks=2)
    take_one(ingest, crash.chunks()[2])
    ingest.partial.take_last(batch := ingest.batch())
    assert ingest.partial.sync(batch) == len(RAW)
    ingest.partial.close(keep=True)
    again = resumed(store)
    assert again is not None
    assert again.offset == len(RAW)
    again.partial.close(keep=True)


def test_what_was_acknowledged_outlives_a_process_that_dies_at_any_step(kind: Kind, swift_path: Path) -> None:
    for at in itertools.count(1):
        store = kind.make(swift_path / str(at))
        told = 0
        with kind.cut(at) as cut, contextlib.suppress(Died), owned(begun(store)) as ingest:
            for chunk in crash.chunks():
                take_one(ingest, chunk)
                told = ingest.partial.sync(ingest.batch())
        store = kind.again(store)
        store.recover()
        again = resumed(store)
        found = 0 if again is None else again.offset
        assert told <= found
        assert found in {0, *BORDERS}
        if again is not None:
            again.partial.close(keep=True)
        if not cut.died:
            break
    assert told == len(RAW)


def test_process_that_dies_as_it_discards_leaves_all_or_nothing(kind: Kind, swift_path: Path) -> None:
    for at in itertools.count(1):
        store = kind.make(swift_path / str(at))
        begun(store, chunks=2).partial.close(keep=True)
        with kind.cut(at) as cut, contextlib.suppress(Died):
            store.discard(KEY)
        store = kind.again(store)
        store.recover()
        again = resumed(store)
        assert again is None or again.offset == BORDERS[1]
        if again is not None:
            again.partial.close(keep=True)
        if not cut.died:
            break
    assert again is None


# --- the commit ---------------------------------------------------------------------------------------------------


def finished(store: Store, sender: str = SENDER, announced: str = "now") -> Upload:
    """An upload of RAW, all of it durable, and sealed. `announced`: makes it another upload of the same stream."""
    push = PUSH.model_copy(update={"snapshot": announced})
    ingest = Ingest(store.begin(partial_key(sender, push), open_offer(sender, push)))
    take(ingest, crash.chunks())
    return ingest.partial


def manifest_of(sealed: tuple[int, str], sender: str = SENDER, program: str = PROGRAM) -> Manifest:
    return manifest_for(sealed).model_copy(update={"sender": sender, "sender_program": program})


def file_of(sender: str = SENDER) -> PurePosixPath:
    return PurePosixPath(sender, *FILE.parts[1:])


def stored(store: Store, sender: str = SENDER) -> Manifest:
    """Store RAW. Returns: its manifest."""
    upload = finished(store, sender)
    manifest = manifest_of(upload.seal(len(crash.chunks())), sender)
    assert upload.commit(file_of(sender), manifest)
    upload.close(keep=True)
    return manifest


def content(store: Store, file: PurePosixPath = FILE) -> bytes:
    with contextlib.closing(store.open(file)) as blob:
        return blob.read(0, blob.size)


def files_in(store: Store) -> list[PurePosixPath]:
    return [each.file for each in store.objects() if each.size is not None]


def check_index(store: Store) -> None:
    """See that a reader of the index finds what a look at everything finds."""
    if store.index is not None:
        for sender in {SENDER, *store.senders()}:
            read, seen = ObjectSearch(store, sender), ObjectSearch(store, sender)
            read.run()
            seen.distrust()
            seen.run()
            assert (read.summaries, read.lacking) == (seen.summaries, seen.lacking)


def check_stored(store: Store, sender: str = SENDER) -> None:
    """See that what stands under the name is whole, and says so."""
    file = file_of(sender)
    data, manifest = content(store, file), store.manifest(file)
    assert manifest.stored_bytes == len(data) == store.size(file)
    assert manifest.file_sha256 == hashlib.sha256(data).hexdigest()
    assert store.hash_line(file) == hash_line(manifest.file_sha256, file)
    assert decode(data) == RAW
    assert store.has(file)
    (found,) = store.objects(sender)
    assert (found.file, found.size, found.stamp) == (file, len(data), store.stamp(file))
    assert [(each.file, each.size) for each in store.objects(sender, only=[file])] == [(file, len(data))]
    check_index(store)


def check_absent(store: Store) -> None:
    assert files_in(store) == []
    check_index(store)
    assert not store.has(FILE)
    assert store.stamp(FILE) is None
    with pytest.raises(FileDamaged):
        store.open(FILE)
    with pytest.raises(FileNotFoundError):
        store.size(FILE)
    with pytest.raises(StoreError):
        store.manifest(FILE)


def test_stream_is_stored_by_its_commit_and_not_before(store: Store) -> None:
    upload = finished(store)
    manifest = manifest_of(upload.seal(len(crash.chunks())))
    check_absent(store)
    assert upload.commit(FILE, manifest)
    upload.close(keep=False)  # its owner always does
    check_stored(store)
    assert store.manifest(FILE) == manifest
    assert keys(store) == []
    assert store.under_way() == set()


def test_stored_bytes_are_those_that_were_appended_and_the_tables(store: Store) -> None:
    stored(store)
    frames = b"".join(bytes(chunk.frame) for chunk in crash.chunks())
    data = content(store)
    assert data[: len(frames)] == frames
    assert len(data) - len(frames) == tables_size(len(crash.chunks()))
    with contextlib.closing(store.open(FILE)) as blob:
        assert blob.read(10, 20) == data[10:30]
        assert blob.read(len(data) - 5, 20) == data[-5:]
        assert blob.read(len(data) + 5, 20) == b""


def test_upload_that_was_resumed_is_stored_as_if_it_had_come_at_once(store: Store) -> None:
    begun(store, chunks=1).partial.close(keep=True)
    again = resumed(store)
    assert again is not None
    take(again, chunks_from(RAW, again.offset))
    while not again.partial.catch_up(1000):
        pass
    manifest = manifest_of(again.partial.seal(again.chunks))
    assert again.partial.commit(FILE, manifest)
    check_stored(store)


def test_of_two_streams_of_one_name_the_first_one_stays(store: Store) -> None:
    upload = finished(store, announced="second")
    sealed = upload.seal(len(crash.chunks()))
    stored(store)
    there = store.stamp(FILE)
    assert upload.commit(FILE, manifest_of(sealed, program="second")) is False
    assert (store.stamp(FILE), store.manifest(FILE).sender_program) == (there, PROGRAM)
    check_stored(store)
    assert keys(store) == []


def test_of_two_commits_at_once_into_one_name_one_wins(kind: Kind, swift_path: Path) -> None:
    rounds = 10
    for number in range(rounds):
        store = kind.make(swift_path / str(number))
        uploads = [finished(store, announced=name) for name in NAMES]
        manifests = [
            manifest_of(upload.seal(len(crash.chunks())), program=name)
            for upload, name in zip(uploads, NAMES, strict=True)
        ]
        barrier = threading.Barrier(len(NAMES))

        def put(which: int) -> bool:
            barrier.wait()  # noqa: B023 - the threads end within this round
            try:
                return uploads[which].commit(FILE, manifests[which])  # noqa: B023
            except StoreError:  # it saw the other one half-way in
                return False

        with ThreadPoolExecutor(len(NAMES)) as pool:
            won = list(pool.map(put, range(len(NAMES))))
        for upload in uploads:
            upload.close(keep=True)
        assert won.count(True) == 1
        store = kind.again(store)
        store.recover()
        check_stored(store)
        assert store.manifest(FILE).sender_program == NAMES[won.index(True)]


def test_process_that_dies_at_any_step_of_a_commit_leaves_the_upload_or_the_stored_stream(
    kind: Kind, swift_path: Path
) -> None:
    ends = set()
    for at in itertools.count(1):
        store = kind.make(swift_path / str(at))
        upload = finished(store)
        with kind.cut(at) as cut, contextlib.suppress(Died):
            try:
                upload.commit(FILE, manifest_of(upload.seal(len(crash.chunks()))))
            finally:
                upload.close(keep=False)  # once the commit has begun, it must not be deleted
        store = kind.again(store)
        listed = store.has(FILE)
        begun_to_commit = FILE in store.under_way()
        store.recover()
        assert store.under_way() == set()
        ends.add((listed, begun_to_commit))
        if listed or begun_to_commit:
            check_stored(store)
            assert keys(store) == []
        else:
            check_absent(store)
            stored(store)  # it is pushed again
            check_stored(store)
        if not cut.died:
            break
    assert ends == {(False, False), (False, True), (True, True), (True, False)}


def test_stream_whose_commit_was_cut_short_is_stored_by_the_next_push_of_it(kind: Kind, swift_path: Path) -> None:
    """The daemon lives on: a disk has failed amid the commit, and the sender comes again."""
    for at in itertools.count(1):
        store = kind.make(swift_path / str(at))
        upload = finished(store)
        sealed = upload.seal(len(crash.chunks()))
        with kind.cut(at) as cut, contextlib.suppress(Died):
            upload.commit(FILE, manifest_of(sealed))
        upload.close(keep=True)
        was_stored, was_begun = store.has(FILE), FILE in store.under_way()
        begun(store).partial.close(keep=False)
        assert store.has(FILE) is (was_stored or was_begun)
        assert store.under_way() == set()
        if store.has(FILE):
            check_stored(store)
        if not cut.died:
            break


# --- what is stored -----------------------------------------------------------------------------------------------


def test_each_sender_is_listed_with_its_own(store: Store) -> None:
    assert (store.senders(), list(store.objects()), list(store.objects("nobody"))) == ([], [], [])
    for sender in ("beta", SENDER):
        stored(store, sender)
    assert store.senders() == [SENDER, "beta"]
    assert {*files_in(store)} == {file_of(SENDER), file_of("beta")}
    for sender in (SENDER, "beta"):
        check_stored(store, sender)


def test_manifest_of_another_sender_is_refused(store: Store) -> None:
    upload = finished(store)
    manifest = manifest_of(upload.seal(len(crash.chunks())), sender="beta")
    upload.commit(FILE, manifest)
    with pytest.raises(StoreError, match="belongs to sender beta"):
        store.manifest(FILE)


def test_stamp_tells_a_stream_from_the_one_that_takes_its_place(store: Store) -> None:
    stored(store)
    first = store.stamp(FILE)
    store.remove(lambda: [FILE])
    stored(store)
    assert store.stamp(FILE) not in {None, first}


def test_stream_that_has_its_manifest_is_not_adopted(store: Store) -> None:
    manifest = stored(store)
    with pytest.raises(StoreError, match="has its manifest by now"):
        store.adopt(FILE, manifest)


def test_room_is_known_or_without_bound(store: Store) -> None:
    free, total = store.space()
    assert store.capabilities.free_space_known is (free != UNLIMITED)
    assert 0 < free <= total


# --- removing -----------------------------------------------------------------------------------------------------


def test_what_is_removed_is_gone_and_nothing_else(store: Store) -> None:
    for sender in (SENDER, "beta"):
        stored(store, sender)
    assert store.remove(lambda: [FILE, FILE.with_name("@none.zfs.zst")]) == [FILE]
    assert files_in(store) == [file_of("beta")]
    check_stored(store, "beta")
    assert store.remove(lambda: [FILE]) == []
    assert store.under_way() == set()
    stored(store)
    check_stored(store)


def test_choice_that_fails_removes_nothing(store: Store) -> None:
    stored(store)

    def choose() -> list[PurePosixPath]:
        raise StoreError("nothing can be chosen")

    with pytest.raises(StoreError, match="nothing can be chosen"):
        store.remove(choose)
    check_stored(store)


def test_process_that_dies_at_any_step_of_a_removal_leaves_all_or_what_the_next_start_removes(
    kind: Kind, swift_path: Path
) -> None:
    ends = set()
    for at in itertools.count(1):
        store = kind.make(swift_path / str(at))
        for sender in (SENDER, "beta"):
            stored(store, sender)
        with kind.cut(at) as cut, contextlib.suppress(Died):
            store.remove(lambda: [FILE, file_of("beta")])
        store = kind.again(store)
        had_begun = bool(store.under_way())
        store.recover()
        assert store.under_way() == set()
        left = files_in(store)
        assert left in ([], [FILE, file_of("beta")])
        assert not (had_begun and left)
        for file in left:
            check_stored(store, file.parts[0])
        ends.add(bool(left))
        if not cut.died:
            break
    assert ends == {True, False}
    assert not left


def test_upload_waits_for_the_removal_that_may_not_have_seen_it(store: Store) -> None:
    """What it builds on is chosen before it begins: it must not find it there, and be told so."""
    stored(store)
    chosen, go = threading.Event(), threading.Event()

    def choose() -> list[PurePosixPath]:
        chosen.set()
        go.wait()
        return [FILE]

    def look() -> bool:
        store.wait_for_removals()
        return store.has(FILE)

    with ThreadPoolExecutor(2) as pool:
        removing = pool.submit(store.remove, choose)
        chosen.wait()
        waiting = pool.submit(look)
        go.set()
        assert waiting.result() is False
        assert removing.result() == [FILE]


def trashed(store: Store) -> list[PurePosixPath]:
    return [each.file for each in store.trashed()]


def started_behind(kind: Kind, store: Store) -> Store:
    """Return the store for a process that starts behind one that died as it removed. In a bucket, others wait for
    minutes for one that died before it had chosen: not here.
    """
    store = kind.again(store)
    if not store.under_way():
        store.recover()
    return store


@pytest.mark.parametrize("trash", [None, "t"])
def test_who_has_waited_for_removals_finds_nothing_that_a_removal_still_takes(
    kind: Kind, swift_path: Path, trash: str | None
) -> None:
    """A prune is killed, and pushes and pins come before the next start."""
    ends = set()
    for at in itertools.count(1):
        store = kind.make(swift_path / str(at))
        for sender in (SENDER, "beta"):
            stored(store, sender)
        with kind.cut(at) as cut, contextlib.suppress(Died):
            store.remove(lambda: [FILE, file_of("beta")], trash=trash)
        store = started_behind(kind, store)
        store.wait_for_removals()
        left = files_in(store)
        assert [file for file in (FILE, file_of("beta")) if store.has(file)] == left
        assert sorted(left + trashed(store)) == ([FILE, file_of("beta")] if left or trash else [])
        store.recover()
        assert files_in(store) == left
        ends.add(bool(left))
        if not cut.died:
            break
    assert ends == {True, False}


def test_who_has_waited_for_removals_finds_nothing_that_a_merge_still_supersedes(
    kind: Kind, swift_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A merge is killed behind its commit line, and pushes come before the next start."""
    ends = set()
    old = file_of("beta")
    for at in itertools.count(1):
        store = kind.make(swift_path / str(at))
        stored(store, "beta")
        opened = open_offer(SENDER, PUSH).model_copy(update={"merge": True})
        merged = Ingest(store.begin(KEY, opened))
        take(merged, crash.chunks())
        sealed = merged.partial.seal(len(crash.chunks()))
        with kind.cut(at) as cut, contextlib.suppress(Died):
            merged.partial.commit(FILE, manifest_of(sealed), supersedes=Supersedes(lambda: [old], "t"))
        merged.partial.close(keep=True)
        store = kind.again(store)
        with monkeypatch.context() as patch:
            # In a bucket, others wait for minutes before they take one that chooses for dead.
            patch.setattr(time, "monotonic", itertools.count(0, 1000).__next__)
            store.wait_for_removals()
        left = files_in(store)
        assert left in ([old], [FILE])
        store.recover()
        assert files_in(store) == left
        ends.add(left[0])
        if not cut.died:
            break
    assert ends == {old, FILE}
    check_stored(store)


@pytest.mark.parametrize("back", [False, True], ids=["a prune", "an undelete"])
def test_trash_is_emptied_only_behind_what_a_dead_process_had_begun(kind: Kind, swift_path: Path, back: bool) -> None:
    for at in itertools.count(1):
        store = kind.make(swift_path / str(at))
        stored(store)
        if back:
            store.remove(lambda: [FILE], trash="t")
        with kind.cut(at) as cut, contextlib.suppress(Died):
            if back:
                store.bring_back(lambda: list(store.trashed()))  # noqa: B023 - called at once
            else:
                store.remove(lambda: [FILE], trash="t")
        store = started_behind(kind, store)
        store.empty_trash(lambda _folder: True)
        assert trashed(store) == []
        there = store.has(FILE)
        store.recover()
        assert trashed(store) == []
        assert files_in(store) == [FILE] * there
        if there:
            check_stored(store)
        else:
            stored(store)  # nothing of it stands in the way
        if not cut.died:
            break
    assert there is back


# --- documents ----------------------------------------------------------------------------------------------------


def test_document_is_replaced_as_long_as_it_is_the_one_that_was_read(kind: Kind, store: Store) -> None:
    documents = store.documents
    assert documents.get("notes.json") is None
    assert documents.put("notes.json", b"one", if_match=None)
    assert not documents.put("notes.json", b"other", if_match=None)
    first = documents.get("notes.json")
    assert first is not None
    assert first.data == b"one"
    assert documents.put("notes.json", b"two", if_match=first.tag)
    assert not documents.put("notes.json", b"three", if_match=first.tag)
    again = kind.again(store).documents.get("notes.json")
    assert again is not None
    assert again.data == b"two"
    assert documents.get("others.json") is None


def test_update_leaves_a_document_that_it_does_not_change(store: Store) -> None:
    seen: list[bytes | None] = []

    def change(data: bytes | None) -> bytes | None:
        seen.append(data)
        return b"one" if len(seen) > 1 and data is None else None

    for _number in range(3):
        update(store.documents, "notes.json", change)
    assert seen == [None, None, b"one"]


def test_update_that_loses_a_race_waits_before_its_next_try(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[int] = []
    monkeypatch.setattr(api, "pause", waited.append)
    seen: list[bytes | None] = []

    def change(data: bytes | None) -> bytes:
        seen.append(data)
        if len(seen) <= 2:  # another process is faster
            found = store.documents.get("notes.json")
            assert store.documents.put("notes.json", b"%d" % len(seen), if_match=None if found is None else found.tag)
        return b"mine"

    update(store.documents, "notes.json", change)
    assert (seen, waited) == ([None, b"1", b"2"], [1, 2])


@pytest.mark.alone  # Ceph answers 500 to some conditional PUTs of one key, while other tests load it
def test_of_updates_at_once_none_is_lost(store: Store) -> None:
    each, workers = 20, 4

    def count(_worker: int) -> None:
        for _number in range(each):
            update(store.documents, "count", lambda data: str(int(data or b"0") + 1).encode())

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(count, range(workers)))
    found = store.documents.get("count")
    assert found is not None
    assert int(found.data) == each * workers


def test_process_that_dies_as_it_replaces_a_document_leaves_the_old_one_or_the_new_one(
    kind: Kind, swift_path: Path
) -> None:
    for at in itertools.count(1):
        store = kind.make(swift_path / str(at))
        update(store.documents, "notes.json", lambda _data: b"old")
        with kind.cut(at) as cut, contextlib.suppress(Died):
            update(store.documents, "notes.json", lambda _data: b"new")
        store = kind.again(store)
        store.recover()
        found = store.documents.get("notes.json")
        assert found is not None
        assert found.data in ({b"old", b"new"} if cut.died else {b"new"})
        if not cut.died:
            break
