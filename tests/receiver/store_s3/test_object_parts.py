"""Large streams, with parts and segments of some bytes: a daemon dies, or stalls, before each of its requests."""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest
from tests.receiver.buckets import (
    SEGMENTS,
    MemoryBucket,
    SteppedBucket,
    commit_if_first,
    content,
    names,
    store_in,
)
from tests.receiver.helpers import SENDER, chunks_from, decode, long_stream, push_of, take_one

from fullsend_protocol.shared.errors import ErrorCode
from fullsend_receiver.arrival.ingest import Ingest
from fullsend_receiver.store.errors import PartialDamaged, StoreError, StreamTooLarge
from fullsend_receiver.store.opened import open_offer, partial_key
from fullsend_receiver.store_s3 import journals, keys
from fullsend_receiver.store_s3.bucket import BucketError
from fullsend_receiver.store_s3.part_sizes import PartSizes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from fullsend_protocol.wire.connection import Chunk
    from fullsend_receiver.store_s3.bucket import BucketObject, Part
    from fullsend_receiver.store_s3.journals import BucketJournal
    from fullsend_receiver.store_s3.stores import BucketStore

#: Five chunks, of which four can be parts.
LARGE: Final = long_stream(4, tail=1)
LARGE_KEY: Final = partial_key(SENDER, push_of(LARGE))
#: A part, a segment of two, and one of one that is closed at the end.
TWO_EACH: Final = replace(SEGMENTS, segment=1000)
#: More requests than a daemon makes.
_STEPS: Final = 200


@functools.cache
def large_from(offset: int) -> tuple[Chunk, ...]:
    """Return the chunks of LARGE from a border on."""
    return tuple(chunks_from(LARGE, offset))


class Died(BaseException):
    """A process dies: nothing of it goes on."""


class LargeArrival:
    """A daemon that receives LARGE. `told`: what it has acknowledged; `at`: where it resumed."""

    def __init__(self, bucket: MemoryBucket, home: Path, step: Callable[[str], None] = lambda _name: None) -> None:
        home.mkdir(exist_ok=True)
        self.store = store_in(SteppedBucket(bucket, step), home, sizes=TWO_EACH)
        self.at = 0
        self.told = 0
        self.stored = False
        self.ingest: Ingest | None = None

    def run(self, chunks: int | None = None) -> None:
        """Receive it to its end, or so many chunks of it."""
        self.store.recover()
        if list(self.store.objects(SENDER)):
            self.stored = True
            return
        found = self.store.reopen(LARGE_KEY, at_resume_point=False)
        offer = open_offer(SENDER, push_of(LARGE))
        self.ingest = ingest = Ingest(*found) if found is not None else Ingest(self.store.begin(LARGE_KEY, offer))
        self.at = self.told = ingest.offset
        for chunk in large_from(ingest.offset)[:chunks]:
            take_one(ingest, chunk)
            self.told = ingest.partial.sync(ingest.batch())
        if chunks is None:
            commit_if_first(ingest)
            self.stored = True

    def end(self) -> None:
        """Let go of it, as the system does for the dead."""
        if self.ingest is not None:
            self.ingest.partial.close(keep=True)


def run_until(at: int, bucket: MemoryBucket, home: Path, chunks: int | None = None) -> tuple[LargeArrival, bool]:
    """Let a daemon die before its request of this number. Returns: it, and whether it has died."""
    steps = itertools.count(1)

    def step(_name: str) -> None:
        if next(steps) >= at:
            raise Died

    daemon = LargeArrival(bucket, home, step)
    try:
        daemon.run(chunks)
    except Died:
        return daemon, True
    finally:
        daemon.end()
    return daemon, False


def check_whole(bucket: MemoryBucket, home: Path) -> None:
    """See that the stream is stored, whole, and alone."""
    store = store_in(bucket, home)
    assert store.recover() == []
    (found,) = store.objects(SENDER)
    assert decode(content(store, found.file)) == LARGE
    assert (names(bucket, ".partial/"), of_streams(bucket)) == ([], [])


def of_streams(bucket: MemoryBucket) -> list[str]:
    """Return the keys of multipart uploads, without those of probes, which go after a day."""
    return [key for key, _parts, _begun in bucket.uploads.values() if not key.startswith(keys.PROBE)]


def make_bucket() -> MemoryBucket:
    return MemoryBucket(least_part=100)


def arrived(bucket: MemoryBucket, home: Path, chunks: int | None = None) -> LargeArrival:
    """Receive so many chunks, and let go of them."""
    daemon, _died = run_until(_STEPS, bucket, home, chunks)
    return daemon


def journal_of_large(bucket: MemoryBucket) -> BucketJournal:
    opened = journals.read_open(bucket, LARGE_KEY)
    assert opened is not None
    found = journals.read(bucket, opened)
    assert found is not None
    return found


def segments(bucket: MemoryBucket) -> list[str]:
    return [name for name in names(bucket, ".partial/") if keys.is_segment(name)]


# --- what a segment is --------------------------------------------------------------------------------------------


def test_object_of_segments_is_that_of_one_upload(tmp_path: Path) -> None:
    one, other = make_bucket(), make_bucket()
    arrived(one, tmp_path / "one")
    plain = LargeArrival(other, tmp_path / "other")
    plain.store = store_in(other, tmp_path / "other")
    plain.run()
    found = []
    for bucket in (one, other):
        check_whole(bucket, tmp_path)
        (name,) = [name for name in names(bucket, SENDER) if name.endswith(".zst")]
        found.append(bucket.objects[name][0])
    assert found[0] == found[1]


def test_journal_names_parts_segments_and_what_was_copied(tmp_path: Path) -> None:
    bucket = make_bucket()
    arrived(bucket, tmp_path, 3)
    found = journal_of_large(bucket)
    assert found.segment is not None
    assert [each.part.number for each in found.parts] == [1]
    assert (found.segment.number, len(found.segment.parts), found.segment.closing) == (2, 2, False)
    assert found.in_parts == found.segment.parts[-1].end
    assert found.uploads == set(bucket.uploads)
    arrived(bucket, tmp_path, 1)
    found = journal_of_large(bucket)
    assert [each.part.number for each in found.parts] == [1, 2]
    assert found.segment is not None
    assert (found.segment.number, len(found.segment.parts)) == (3, 1)
    assert segments(bucket) == []  # what was copied is deleted at once


def test_bytes_of_a_large_stream_that_arrives_are_counted(tmp_path: Path) -> None:
    bucket = make_bucket()
    store = arrived(bucket, tmp_path, 4).store
    ((_key, (stored, last)),) = store.uploads(lambda upload: (upload.journal.stored, upload.last))
    assert stored == sum(len(chunk.frame) for chunk in large_from(0)[:4])
    assert last > 0


def test_discarded_stream_leaves_no_segment(tmp_path: Path) -> None:
    bucket = make_bucket()
    daemon = LargeArrival(bucket, tmp_path)
    daemon.run(4)
    found = journal_of_large(bucket)
    bucket.put(keys.segment_key(LARGE_KEY, found.open.generation, 7), b"made late")
    assert daemon.ingest is not None
    daemon.ingest.partial.close(keep=False)
    assert (names(bucket), bucket.uploads) == ([], {})


def test_segment_that_is_made_after_the_commit_is_swept(tmp_path: Path) -> None:
    bucket = make_bucket()
    arrived(bucket, tmp_path, 4)
    late = keys.segment_key(LARGE_KEY, journal_of_large(bucket).open.generation, 2)
    arrived(bucket, tmp_path)
    bucket.put(late, b"by a daemon that was stalled")
    check_whole(bucket, tmp_path)


# --- deaths and stalls --------------------------------------------------------------------------------------------


#: Every request, or some.
_EVERY: Final = pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])


class KeepingBucket(MemoryBucket):
    """It keeps each part of a number, as SeaweedFS does, lists them all, and takes the named one."""

    def __init__(self, *, least_part: int) -> None:
        super().__init__(least_part=least_part)
        self._kept: dict[str, list[tuple[bytes, Part]]] = {}

    def put_part(self, key: str, upload: str, number: int, data: bytes) -> Part | None:  # type: ignore[explicit-override]
        part = super().put_part(key, upload, number, data)
        if part is not None:
            self._kept.setdefault(upload, []).append((bytes(data), part))
        return part

    def parts(self, key: str, upload: str) -> Sequence[Part] | None:  # type: ignore[explicit-override]
        if upload not in self.uploads:
            return None
        return sorted((part for _data, part in self._kept.get(upload, ())), key=lambda part: part.number)

    def complete(self, key: str, upload: str, parts: Sequence[Part]) -> bool:  # type: ignore[explicit-override]
        if upload not in self.uploads:
            return False
        data = {(part.number, part.etag): data for data, part in self._kept[upload]}
        self.put(key, b"".join(data[part.number, part.etag] for part in parts))
        del self.uploads[upload]
        return True


@pytest.mark.parametrize("kind", [MemoryBucket, KeepingBucket])
@_EVERY
def test_daemon_that_dies_at_any_request_loses_nothing_that_it_acknowledged(
    tmp_path: Path, every: int, kind: type[MemoryBucket]
) -> None:
    for at in itertools.count(1, every):
        bucket = kind(least_part=100)
        first, died = run_until(at, bucket, tmp_path / "one")
        second = LargeArrival(bucket, tmp_path / "two")
        second.run()
        assert second.stored
        assert second.at >= first.told or (second.at == 0 and second.ingest is None), at
        second.end()
        check_whole(bucket, tmp_path)
        assert len([each for each in names(bucket) if not each.startswith((keys.STREAMS, keys.PROBE))]) == 3
        if not died:
            return


def test_daemons_that_die_one_after_the_other_get_to_the_end(tmp_path: Path) -> None:
    """Each dies some requests later than the one before."""
    for more in (5, 7, 9):
        bucket = make_bucket()
        told = 0
        for at in itertools.count(more):
            daemon, died = run_until(at, bucket, tmp_path / str(at % 2))
            assert daemon.ingest is None or daemon.at >= told
            told = max(told, daemon.told)
            if not died:
                break
        check_whole(bucket, tmp_path)


def run_stalled(at: int, bucket: MemoryBucket, folder: Path, chunks: int | None) -> bool:
    """Let a daemon stall before its request of this number, until another one has taken over and has received so many
    chunks, or all. Returns: False if there is no such request.
    """
    others: list[LargeArrival] = []
    steps = itertools.count(1)

    def step(_name: str) -> None:
        if next(steps) == at:
            others.append(LargeArrival(bucket, folder / "other"))
            others[0].run(chunks)

    stalled = LargeArrival(bucket, folder / "stalled", step)
    try:
        stalled.run()
    except StoreError as error:
        assert not isinstance(error, PartialDamaged), at  # noqa: PT017 - most of these runs have an error
    finally:
        stalled.end()
    for other in others:
        other.end()
    third = LargeArrival(bucket, folder / "third")
    third.run()
    third.end()
    assert third.stored
    if third.ingest is not None:
        assert third.at >= max(each.told for each in [stalled, *others]), at
    check_whole(bucket, folder)
    return bool(others)


@_EVERY
@pytest.mark.parametrize("chunks", [0, 1, 2, None])
def test_daemon_that_wakes_up_before_any_request_changes_nothing(
    tmp_path: Path, chunks: int | None, every: int
) -> None:
    for at in itertools.count(1, every):
        if not run_stalled(at, make_bucket(), tmp_path, chunks):
            return


def test_stalled_daemon_sets_nothing_aside_of_what_another_one_has_begun(tmp_path: Path) -> None:
    """What it misses is only stored elsewhere by now."""
    bucket = make_bucket()
    stalled = LargeArrival(bucket, tmp_path / "stalled")
    stalled.run(5)
    assert stalled.ingest is not None
    arrived(bucket, tmp_path / "other")
    assert len(stalled.store.remove(lambda: [each.file for each in stalled.store.objects(SENDER)])) == 1
    arrived(bucket, tmp_path / "other", 2)  # the same stream comes again
    before = names(bucket)
    with pytest.raises(StoreError) as caught:
        stalled.ingest.partial.seal(stalled.ingest.chunks)
    stalled.end()
    assert not isinstance(caught.value, PartialDamaged)
    assert names(bucket) == before


# --- what is refused ----------------------------------------------------------------------------------------------


def test_segment_that_the_object_store_has_lost_is_found(tmp_path: Path) -> None:
    bucket = make_bucket()
    arrived(bucket, tmp_path, 3)
    found = journal_of_large(bucket)
    assert found.segment is not None
    bucket.abort("", found.segment.upload)
    with pytest.raises(PartialDamaged, match="has lost some of its parts"):
        LargeArrival(bucket, tmp_path).run()
    assert (names(bucket), bucket.uploads) == ([], {})


@pytest.mark.parametrize("named", ["object", "segment"])
def test_upload_that_the_object_store_has_aborted_starts_over(tmp_path: Path, named: str) -> None:
    """While a part is due: of a segment, or of the object behind its segments."""
    bucket = make_bucket()
    arrived(bucket, tmp_path, 2)  # the segment has room for another part
    found = journal_of_large(bucket)
    assert found.segment is not None
    bucket.abort("", found.segment.upload if named == "segment" else found.upload or "")
    with pytest.raises(PartialDamaged, match=r"has discarded (its multipart|the) upload"):
        LargeArrival(bucket, tmp_path).run()
    assert (names(bucket), bucket.uploads) == ([], {})
    arrived(bucket, tmp_path)
    check_whole(bucket, tmp_path)


def test_copy_with_other_bytes_is_found_before_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody but the object store has seen the bytes of a copy before."""
    bucket = make_bucket()
    real = bucket.copy_part

    def copy_part(key: str, upload: str, number: int, source: BucketObject) -> Part | None:
        data = bytearray(bucket.objects[source.key][0])
        if keys.is_segment(source.key):
            data[len(data) // 2] ^= 1
            bucket.put(source.key, bytes(data))
        return real(key, upload, number, source)

    monkeypatch.setattr(bucket, "copy_part", copy_part)
    with pytest.raises(PartialDamaged, match="is not as it arrived"):
        LargeArrival(bucket, tmp_path).run()


def test_store_that_cannot_copy_has_as_many_parts_as_an_upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy_part(*_arguments: object) -> None:
        raise BucketError("not implemented")

    bucket = make_bucket()
    monkeypatch.setattr(bucket, "copy_part", copy_part)
    arrived(bucket, tmp_path)
    check_whole(bucket, tmp_path)
    other = make_bucket()
    monkeypatch.setattr(other, "copy_part", copy_part)
    daemon = LargeArrival(other, tmp_path)
    daemon.store = store_in(other, tmp_path, sizes=replace(TWO_EACH, parts_most=3))
    with pytest.raises(StreamTooLarge, match="more than 3 parts"):
        daemon.run()
    daemon.end()
    assert segments(other) == []


def test_stream_of_too_many_bytes_is_refused_by_name_and_nothing_is_lost(tmp_path: Path) -> None:
    bucket = make_bucket()
    daemon = LargeArrival(bucket, tmp_path)
    daemon.store = store_in(bucket, tmp_path, sizes=replace(TWO_EACH, object_most=1900))
    with pytest.raises(StreamTooLarge, match="tank/data@now: is too large for a store in a bucket") as caught:
        daemon.run()
    daemon.end()
    assert (caught.value.code, "\n" in str(caught.value)) == (ErrorCode.SPACE, False)
    assert daemon.told > 0
    assert arrived(bucket, tmp_path).at == daemon.told
    check_whole(bucket, tmp_path)


def test_tables_that_do_not_fit_are_refused_at_the_end(tmp_path: Path) -> None:
    size = sum(len(chunk.frame) for chunk in large_from(0))
    daemon = LargeArrival(make_bucket(), tmp_path)
    daemon.store = store_in(make_bucket(), tmp_path, sizes=PartSizes(object_most=size))
    with pytest.raises(StreamTooLarge):
        daemon.run()
    assert daemon.told == len(LARGE)
    daemon.end()


def test_orphans_are_left_while_an_arriving_stream_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may be that stream's."""
    bucket = make_bucket()
    arrived(bucket, tmp_path, 3)
    before = dict(bucket.uploads)
    assert len(before) == 2
    other: BucketStore = store_in(bucket, tmp_path / "other")
    with monkeypatch.context() as patch:
        patch.setattr(journals, "read_open", lambda *_arguments: (_ for _ in ()).throw(BucketError("overloaded")))
        other.recover()
    assert bucket.uploads == before
    other.recover()
    assert bucket.uploads == before


class ForgetfulBucket(MemoryBucket):
    """The answer to each first request that begins an upload is lost, and the request is repeated."""

    def begin_parts(self, key: str) -> str:  # type: ignore[explicit-override]
        super().begin_parts(key)
        return super().begin_parts(key)

    def was_repeated(self, upload: str) -> bool:  # type: ignore[explicit-override]
        return True


def test_uploads_that_were_begun_twice_leave_nothing(tmp_path: Path) -> None:
    bucket = ForgetfulBucket(least_part=0)
    arrival = LargeArrival(bucket, tmp_path / "home")
    arrival.run()
    assert arrival.stored
    assert of_streams(bucket) == []
