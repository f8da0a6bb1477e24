"""The store in a bucket: a `Store` (store/api.py)."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import ValidationError

from fullsend_protocol.format.manifest import Manifest
from fullsend_protocol.format.names import hash_of, is_manifest, is_stream, stream_of
from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import UsageError, reason
from fullsend_protocol.wire.invitation import is_sender_name
from fullsend_receiver.store.api import (
    UNLIMITED,
    AsideStream,
    Capabilities,
    Claim,
    DiskSpace,
    KeptVersions,
    KnownStamp,
    ObjectInfo,
    ProbeFinding,
    RequestCost,
    Stamp,
    TrashedStream,
    UploadInfo,
    nothing_known,
)
from fullsend_receiver.store.durable import locked_now, make_folders
from fullsend_receiver.store.errors import ManifestError, StoreError, StoreMissing
from fullsend_receiver.store.event_journal import EventJournal
from fullsend_receiver.store.fitness import require
from fullsend_receiver.store.locks import lock_end
from fullsend_receiver.store.names import hash_line
from fullsend_receiver.store_s3 import (
    commits,
    costs,
    journals,
    keys,
    manifests,
    partials,
    recovery,
    removals,
    stream_index,
    versions,
)
from fullsend_receiver.store_s3.blob import BucketBlob
from fullsend_receiver.store_s3.bucket import Bucket, BucketBusy, BucketError
from fullsend_receiver.store_s3.documents import BucketDocuments
from fullsend_receiver.store_s3.faults import as_disk_errors
from fullsend_receiver.store_s3.holds import BucketHold, held
from fullsend_receiver.store_s3.journals import BucketJournal, JournalWriter
from fullsend_receiver.store_s3.manifests import ManifestObject
from fullsend_receiver.store_s3.open_uploads import OpenUploads
from fullsend_receiver.store_s3.part_sizes import PartSizes
from fullsend_receiver.store_s3.probe import ProbedBucket, probe
from fullsend_receiver.store_s3.stream_index import BucketStreamIndex
from fullsend_receiver.store_s3.uploads import BucketUpload

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from fullsend_receiver.store.journal import Standing
    from fullsend_receiver.store.opened import Opened

log = logging.getLogger("fullsendd")

_T = TypeVar("_T")

#: Manifests that are read at the same time.
_READERS: Final = 8
#: Seconds. A merge, or a stream that arrives, writes to its journal far more often.
_PATIENCE: Final = 900.0
_FORMAT: Final = 1
_SIZES: Final = PartSizes()


class BucketStore:
    """A `Store` in a bucket."""

    def __init__(
        self,
        bucket: ProbedBucket,
        home: Path,
        store_id: str = "",
        *,
        sizes: PartSizes = _SIZES,
        patience: float = 0.0,
    ) -> None:
        """Makes no request. `home`: see `Store.home`; `store_id`: of its marker, empty: unknown; `sizes`: of parts;
        `patience`: seconds for which an upload is left alone that another host may be writing.
        """
        self.bucket = bucket
        self.home = home
        self.store_id = store_id
        self.capabilities = Capabilities(
            part_size=0,
            can_truncate=False,
            can_read_partials=False,
            free_space_known=False,
            look_every=10.0,
            relook_every=86400.0,
            stream_most=sizes.object_most,
            patience=patience,
        )
        self._sizes = sizes
        self._patience = patience
        self._open = OpenUploads(home / "arriving")
        self._told: set[str] = set()  # what is set aside, and locked

    @property
    def where(self) -> str:
        """Its place, for messages."""
        return self.bucket.where

    @property
    def disk(self) -> str:
        """See `Store.disk`."""
        return self.bucket.where

    @property
    def lock(self) -> Path:
        """See `Store.lock`."""
        return self.home / "lock"

    @property
    def folder(self) -> None:
        """See `Store.folder`."""
        return

    @property
    def documents(self) -> BucketDocuments:
        """The changeable documents of each sender and of the whole store."""
        return BucketDocuments(self.bucket)

    @property
    def events(self) -> EventJournal:
        """See `Store.events`."""
        return EventJournal(self.home / "events")

    def space(self) -> DiskSpace:
        """See `Store.space`: no object store tells."""
        return DiskSpace(UNLIMITED, UNLIMITED)

    def check_mounted(self) -> None:
        """See `Store.check_mounted`."""
        if self.store_id and read_id(self.bucket) != self.store_id:
            msg = f"{self.where}: is another store than the one that the configuration names"
            raise StoreMissing(msg)

    def is_read_only(self, *, by_writing: bool = False) -> bool:
        """See `Store.is_read_only`: that nothing can be stored shows as an error of each request."""
        del by_writing
        return False

    def check_fitness(self) -> None:
        """See `Store.check_fitness`: an object can be stored, and deleted."""
        key = f"{keys.PROBE}{keys.unique()}"
        try:
            self.bucket.put(key, b"", if_absent=True)
        finally:
            self.bucket.delete(key)

    def examine(self) -> Iterator[ProbeFinding]:
        """See `Store.examine`."""
        return probe(self.bucket)

    def push_cost(self, chunks: int, chunk: int, batch: int) -> RequestCost:
        """See `Store.push_cost`."""
        return costs.pushed(chunks, chunk, batch, sizes=self._sizes)

    def read_cost(self, size: int, ranges: Iterable[tuple[int, int]]) -> RequestCost:
        """See `Store.read_cost`."""
        return costs.read(size, ranges)

    # --- arriving streams; the interface has the descriptions

    def begin(self, key: str, opened: Opened) -> BucketUpload:
        """See `Store.begin`."""
        self.check_mounted()
        found = partials.examined(self.bucket, key, sets_aside=True)
        if found is not None and found.stored is not None:
            commits.complete(self.bucket, found.open, found.stored, found.objects)
        elif found is not None:
            partials.discard(self.bucket, found.open)
        begun = journals.begin(self.bucket, key, opened)
        self._open.add(key)
        return BucketUpload(
            self.bucket, begun, JournalWriter(self.bucket, begun, 1), self._open.discard, sizes=self._sizes
        )

    def reopen(self, key: str, *, at_resume_point: bool) -> tuple[BucketUpload, Standing] | None:
        """See `Store.reopen`."""
        self.check_mounted()
        found = partials.examined(self.bucket, key, sets_aside=True)
        if found is None or found.stored is not None:
            return None
        place = found.places[at_resume_point]
        if place is None or not place.may_resume:
            return None
        if len(place.segments) > limits.SEGMENTS_MAX - limits.SEGMENTS_RESUMED:
            return None  # resumed too often: the manifest has no room for another segment
        upload = BucketUpload.resumed(self.bucket, found, place, self._open.discard, sizes=self._sizes)
        self._open.add(key)
        return upload, place

    def uploads(self, look: Callable[[UploadInfo], _T], *, sets_aside: Claim | None = None) -> Iterator[tuple[str, _T]]:
        """See `Store.uploads`."""
        return partials.survey(self.bucket, look, self._open.has, sets_aside=sets_aside)

    def discard(self, key: str) -> None:
        """See `Store.discard`."""
        if self._open.has(key):
            msg = f"partial {key}: is arriving, and cannot be deleted while it is"
            raise StoreError(msg)
        found: BucketJournal | None = partials.examined(self.bucket, key, sets_aside=True)
        if found is not None and found.stored is not None:
            commits.complete(self.bucket, found.open, found.stored, found.objects)
        elif found is not None:
            partials.discard(self.bucket, found.open)

    def set_aside(self, sender: str | None = None) -> Iterator[AsideStream]:
        """See `Store.set_aside`."""
        for each in commits.set_aside(self.bucket):
            if sender in {None, each.file.parts[0]}:
                found = self.bucket.head(each.data)
                manifest = each.content
                yield AsideStream(
                    name=each.name,
                    sender=each.file.parts[0],
                    what=f"{manifest.get('dataset', '?')}@{manifest.get('snapshot', '?')}",
                    file=PurePosixPath(each.data) if found is not None else None,
                    stored_bytes=found.size if found is not None else 0,
                    at=each.at,
                    why=each.why,
                )

    def aside_manifest(self, name: str) -> Manifest:
        """See `Store.aside_manifest`."""
        found = commits.read_aside(self.bucket, name)
        if found is None:
            raise ManifestError(name, "cannot be read: nothing of this name is set aside")
        try:
            return Manifest.model_validate(found.content)
        except ValidationError as error:
            raise ManifestError(name, f"cannot be read: {str(error).splitlines()[0]}") from None

    def discard_damaged(self, before: float) -> None:
        """See `Store.discard_damaged`."""
        for each in list(commits.set_aside(self.bucket)):
            if each.at < before:
                until = commits.discard_aside(self.bucket, each)
                if until is None:
                    log.warning("%s: was set aside as damaged, and is deleted (damaged-keep)", each.data)
                elif each.name not in self._told:
                    self._told.add(each.name)
                    log.info("%s: was set aside as damaged, and stays: locked until %s", each.data, lock_end(until))

    def aside(self) -> dict[str, int]:
        """See `Store.aside`."""
        found: dict[str, int] = {}
        for each in removals.trashed(self.bucket):
            sender = each.stream.file.parts[0]
            found[sender] = found.get(sender, 0) + each.stream.size
        for stream in self.set_aside():
            found[stream.sender] = found.get(stream.sender, 0) + stream.stored_bytes
        return found

    def recover(self) -> list[str]:
        """See `Store.recover`."""
        # Removals first: a dead process that was choosing what to remove would keep the commit of a merge waiting.
        with as_disk_errors():
            removed = removals.finish_removals(self.bucket, self._end_merges)
            return removed + recovery.recover(self.bucket, self._open.has, self._patience)

    def recover_merges(self) -> list[str]:
        """See `Store.recover_merges`."""
        with as_disk_errors():
            return recovery.recover_merges(self.bucket, self._open.has, self._patience)

    def alone(self, work: str, *, read_only: bool = False) -> AbstractContextManager[bool]:
        """See `Store.alone`: among the processes of this host."""
        return locked_now(self.home / f"{work}.lock", read_only=read_only)

    # --- stored streams; the interface has the descriptions

    def senders(self) -> list[str]:
        """See `Store.senders`."""
        return [name for name in self.bucket.folders() if is_sender_name(name)]

    @property
    def index(self) -> BucketStreamIndex:
        """See `Store.index`."""
        return BucketStreamIndex(self.bucket)

    def objects(
        self,
        sender: str | None = None,
        *,
        known: KnownStamp = nothing_known,
        only: Collection[PurePosixPath] | None = None,
    ) -> Iterator[ObjectInfo]:
        """See `Store.objects`."""
        if only is not None:
            yield from self._read_each(only, {})
            return
        for name in self.senders() if sender is None else [sender]:
            yield from self._listed(name, known)

    def _listed(self, sender: str, known: KnownStamp) -> Iterator[ObjectInfo]:
        """Yield all streams of a sender. Each manifest is read whose stamp is not `known`."""
        sizes: dict[int, int] = {}
        heads: list[tuple[PurePosixPath, int]] = []
        for each in self.bucket.entries(f"{sender}/"):
            if is_manifest(each.key):
                heads.append((PurePosixPath(stream_of(each.key)), manifests.number_of(each.etag)))
            elif is_stream(each.key):
                sizes[manifests.number_of(each.key)] = each.size
        unread: list[PurePosixPath] = []
        for file, number in heads:
            stamp = known(file, number)
            if stamp is not None and not stamp[1]:
                yield ObjectInfo(file, None, stamp)
            elif stamp is not None and stamp[1] in sizes:
                yield ObjectInfo(file, sizes[stamp[1]], stamp)
            else:  # also a known one whose bytes are not listed: it may have been replaced since
                unread.append(file)
        yield from self._read_each(unread, sizes)

    def _read_each(self, files: Collection[PurePosixPath], sizes: Mapping[int, int]) -> Iterator[ObjectInfo]:
        """Read these manifests, some at the same time. `sizes`: of the objects that were listed."""
        return _at_once(lambda file: self._read(file, sizes), files)

    def _read(self, file: PurePosixPath, sizes: Mapping[int, int]) -> ObjectInfo:
        try:
            found = manifests.read(self.bucket, file)
        except ManifestError as error:
            return ObjectInfo(file, 0, (), error)
        if found is None or found.data is None:
            return ObjectInfo(file, None, () if found is None else found.stamp)
        size = sizes.get(found.stamp[1])
        if size is None:
            there = self.bucket.head(found.data)
            if there is None and manifests.read(self.bucket, file) != found:
                return self._read(file, sizes)  # it was removed, or replaced, in between
            size = 0 if there is None else there.size
        try:
            return ObjectInfo(file, size, found.stamp, manifests.parse(file, found))
        except ManifestError as error:
            return ObjectInfo(file, size, found.stamp, error)

    def has(self, file: PurePosixPath) -> bool:
        """See `Store.has`."""
        return self._stored(file) is not None

    def _stored(self, file: PurePosixPath) -> ManifestObject | None:
        found = manifests.read(self.bucket, file)
        return None if found is None or found.data is None else found

    def manifest(self, file: PurePosixPath) -> Manifest:
        """See `Store.manifest`."""
        key = manifests.key_of(file)
        found = self._stored(file)
        if found is None:
            absent = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            raise ManifestError(key, f"cannot be read: {absent.strerror}", unread=absent)
        return manifests.parse(file, found)

    def stamp(self, file: PurePosixPath) -> Stamp | None:
        """See `Store.stamp`."""
        found = self._stored(file)
        return None if found is None else found.stamp

    def _data(self, file: PurePosixPath) -> str:
        """Return the key of a stream's bytes. Without a manifest it is the file itself, as in what was set aside."""
        found = self._stored(file)
        return str(file) if found is None or found.data is None else found.data

    def size(self, file: PurePosixPath | str) -> int:
        """See `Store.size`."""
        found = self.bucket.head(self._data(PurePosixPath(file)))
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))
        return found.size

    def hash_line(self, file: PurePosixPath) -> bytes:
        """See `Store.hash_line`: with the stream's name in place of that of its object."""
        data = PurePosixPath(self._data(file))
        found = self.bucket.get(hash_of(str(data)))
        if found is None:
            return b""
        digest = found.data.partition(b" ")[0].decode("ascii", "replace")
        return hash_line(digest, file) if found.data == hash_line(digest, data) else found.data

    def open(self, file: PurePosixPath) -> BucketBlob:
        """See `Store.open`."""
        return BucketBlob(self.bucket, self._data(file))

    def forget(self, file: PurePosixPath) -> None:
        """See `Store.forget`: this host has no copy."""

    def under_way(self) -> set[PurePosixPath]:
        """See `Store.under_way`."""
        return partials.committing(self.bucket) | removals.being_removed(self.bucket)

    def adopt(self, file: PurePosixPath, manifest: Manifest) -> None:
        """See `Store.adopt`."""
        there = manifests.read(self.bucket, file)
        if (there is not None and there.data is not None) or file in self.under_way():
            msg = f"{file}: has its manifest by now, or is about to get it"
            raise StoreError(msg)
        if self.bucket.head(str(file)) is None:
            msg = f"{file}: has no manifest, and none can be made: there is no such object"
            raise StoreError(msg)
        self.bucket.put(hash_of(str(file)), hash_line(manifest.file_sha256, file))
        content: dict[str, Any] = json.loads(manifest.to_json())
        said = manifests.stream_bytes(content, str(file), there)
        etag = None if there is None else there.etag
        if self.bucket.put(manifests.key_of(file), said, if_absent=there is None, if_match=etag) is None:
            msg = f"{file}: has its manifest by now, or is about to get it"
            raise StoreError(msg)
        stream_index.note(self.bucket, [file])

    def remove(self, choose: Callable[[], Iterable[PurePosixPath]], *, trash: str | None = None) -> list[PurePosixPath]:
        """See `Store.remove`."""
        self.wait_for_removals()  # ends also what a merge has left, which others leave to this
        return removals.remove(self.bucket, choose, lambda: partials.committing(self.bucket), trash=trash)

    def locked(self, files: Iterable[PurePosixPath]) -> dict[PurePosixPath, float]:
        """See `Store.locked`."""
        wanted = list(files)
        if not wanted or self.bucket.object_lock() is None:
            return {}
        found = zip(wanted, _at_once(self._locked_until, wanted), strict=True)
        return {file: until for file, until in found if until is not None}

    def _locked_until(self, file: PurePosixPath) -> float | None:
        return manifests.locked_until(self.bucket, file, self._data(file))

    def kept_versions(self, *, sweep: bool = False) -> KeptVersions:
        """See `Store.kept_versions`."""
        return versions.sweep(self.bucket) if sweep else versions.left(self.bucket)

    def wait_for_removals(self) -> None:
        """See `Store.wait_for_removals`."""
        removals.wait_for_removals(self.bucket, stalled=self._end_merges)

    def _end_merges(self, chooser: str | None) -> None:
        """See `removals.Stalled`."""
        recovery.complete_merges(self.bucket, chooser)

    def hold(self) -> BucketHold:
        """See `Store.hold`."""
        return BucketHold(self.bucket)

    def held(self) -> set[PurePosixPath]:
        """See `Store.held`."""
        return held(self.bucket)

    # --- the trash; the interface has the descriptions

    def trashed(self) -> Iterator[TrashedStream]:
        """See `Store.trashed`."""
        return (each.stream for each in removals.trashed(self.bucket))

    def trashed_manifest(self, stream: TrashedStream) -> Manifest:
        """See `Store.trashed_manifest`."""
        key = manifests.key_of(stream.file)
        for each in removals.trashed(self.bucket):
            if (each.stream.folder, each.stream.file) == (stream.folder, stream.file):
                return manifests.parse(stream.file, ManifestObject(each.content, each.data, (), ""))
        raise ManifestError(key, "cannot be read: it is not in the trash")

    def trash_bytes(self) -> int:
        """See `Store.trash_bytes`."""
        return sum(each.stream.size for each in removals.trashed(self.bucket))

    def bring_back(self, choose: Callable[[], Iterable[TrashedStream]]) -> list[PurePosixPath]:
        """See `Store.bring_back`."""
        self.wait_for_removals()  # as in `remove`
        return removals.bring_back(self.bucket, choose)

    def empty_trash(
        self, old: Callable[[str], bool], stays: Callable[[TrashedStream, float], None] | None = None
    ) -> list[str]:
        """See `Store.empty_trash`."""
        self.wait_for_removals()  # as in `remove`
        return removals.empty_trash(self.bucket, old, stays)


def _at_once(ask: Callable[[PurePosixPath], _T], files: Collection[PurePosixPath]) -> Iterator[_T]:
    """Yield what `ask` returns for each stream, in order, while it asks about the next ones."""
    if len(files) <= 1:
        yield from map(ask, files)
        return
    with ThreadPoolExecutor(min(_READERS, len(files))) as pool:
        yield from pool.map(ask, files)


def make_bucket_store(
    bucket: ProbedBucket, home: Path, furnish: Callable[[BucketStore], None], *, above: Iterable[Bucket] = ()
) -> tuple[BucketStore, str]:
    """Make a new store below a prefix that has no object. `home`: a folder that does not exist; `furnish` adds the
    contents that must exist before the prefix counts as a store; `above`: the same bucket, below the prefixes above.

    Returns: the store, and the id in its marker. Raises: UsageError if there are objects, or the prefix is within
    another store, or the folder exists; StoreError, and what `furnish` raises. After an error `home` does not exist.
    """
    if bucket.get(keys.MARKER) is not None:
        msg = f"{bucket.where}: is already a store; take it over with --adopt"
        raise UsageError(msg)
    for outer in above:
        if _is_store(outer):
            msg = (
                f"{bucket.where}: is within the store {outer.where}, which would take it for a sender; choose a prefix"
                " beside it"
            )
            raise UsageError(msg)
    # What an earlier `init` has left that did not come to its end is in its state.
    if any(not each.key.startswith(keys.STATE) for each in bucket.entries("")):
        msg = f"{bucket.where}: not empty and not a store; choose another prefix"
        raise UsageError(msg)
    require(probe(bucket), bucket.where)
    store_id = keys.unique() + keys.unique()
    store = BucketStore(bucket, home, store_id)
    try:
        make_folders(home.parent)
        home.mkdir(mode=0o700)
    except FileExistsError:
        msg = f"{home}: exists already, and may have the key of another store; choose another home"
        raise UsageError(msg) from None
    except OSError as error:
        msg = f"{home}: cannot be made: {reason(error)}"
        raise StoreError(msg) from None
    try:
        for each in list(bucket.entries(keys.STATE)):
            bucket.delete(each.key)
        furnish(store)
        _put_marker(bucket, store_id)  # last: a prefix with a marker is a complete store
    except BaseException:
        if not _is_made(bucket, store_id):
            shutil.rmtree(home, ignore_errors=True)
        raise
    return store, store_id


def _is_store(bucket: Bucket) -> bool:
    """Whether there is a store. If the rights do not suffice to know, a line in the log says so. Raises: BucketBusy."""
    try:
        return bucket.get(keys.MARKER) is not None
    except BucketBusy:
        raise
    except BucketError as error:
        log.info("%s: whether there is a store cannot be seen: %s", bucket.where, error)
        return False


def _is_made(bucket: Bucket, store_id: str) -> bool:
    """Whether the marker of this id may be in place, although its PUT has failed. Then the key must stay."""
    try:
        return read_id(bucket) == store_id
    except StoreMissing:
        return False
    except StoreError:
        return True


def _put_marker(bucket: Bucket, store_id: str) -> None:
    marker = json.dumps({"format": _FORMAT, "id": store_id}).encode() + b"\n"
    if bucket.put(keys.MARKER, marker, if_absent=True) is None:
        msg = f"{bucket.where}: another process has made a store here just now"
        raise StoreError(msg)


def open_bucket_store(bucket: ProbedBucket, home: Path, store_id: str) -> BucketStore:
    """Return the store in a bucket. Raises: StoreMissing if it is not there, or has another id than `store_id`, or this
    host has no home for it; StoreError.
    """
    if not home.is_dir():
        msg = f"{home}: no such folder: it has the key of this host; see [bucket] home, or use `fullsendd init --adopt`"
        raise StoreMissing(msg)
    store = BucketStore(bucket, home, store_id, patience=_PATIENCE)
    store.check_mounted()
    return store


def read_id(bucket: Bucket) -> str:
    """Return the id in a store's marker. Raises: StoreMissing if there is none; StoreError."""
    found = bucket.get(keys.MARKER)
    if found is None:
        msg = f"{bucket.where}: no store here (no object {keys.MARKER}): see bucket and prefix"
        raise StoreMissing(msg)
    try:
        said = json.loads(found.data)
        if said["format"] != _FORMAT:
            msg = f"{bucket.where}: a store of format {said['format']}; this fullsendd reads format {_FORMAT}"
            raise StoreError(msg)
        return str(said["id"])
    except (ValueError, KeyError, TypeError) as error:
        raise BucketError(f"{bucket.where}/{keys.MARKER}: cannot be read: {error}") from None
