"""Copies stored streams into another store, byte for byte: to another site, into a bucket, or out of it.

Each frame is copied as it is, and decoded to see that it is what was proven when it arrived. The copy is in place only
if its SHA-256 is that of the source's manifest, which is copied too. What is durable of a copy that was interrupted
stays, and the next run resumes behind it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from fullsend_protocol.format.manifest import Manifest
from fullsend_protocol.shared.errors import ChunkError, FullsendError
from fullsend_protocol.shared.units import format_time
from fullsend_protocol.stream.chunks import Cutter, Decompressor, SegmentCheck
from fullsend_protocol.stream.records import Walker
from fullsend_receiver.catalogue.rows import Summary
from fullsend_receiver.catalogue.streams import Catalogue, StoredStream, read_catalogue
from fullsend_receiver.maintenance.pace import Pace
from fullsend_receiver.store.api import Store, Upload
from fullsend_receiver.store.journal import Batch, Standing, Written
from fullsend_receiver.store.opened import Offer, Opened, copy_key
from fullsend_receiver.store.playback import DamagedChunk, checked_chunks_of, describe
from fullsend_receiver.store.seekable import Blob, Place, places

#: Before all streams, in the order of reception.
_FIRST: Final = (0, "")
#: Stored bytes after which a copy is made durable: it resumes there.
_BATCH: Final = 64 << 20
#: Stored bytes that are hashed between two looks at whether the run is to end.
_STEP: Final = 64 << 20


class CopyAbandoned(Exception):  # noqa: N818 - reads as what it says
    """The run is to end; what is durable of the copy stays."""


class CopySpoilt(FullsendError):  # noqa: N818 - reads as what it says
    """What was read is not what the source's manifest says. Nothing of it is in place."""


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """What a run would copy of one sender. `due`: bases first; `left_out`: by file, why a stream that is missing in the
    target cannot be copied.
    """

    due: list[StoredStream]
    left_out: dict[str, str]

    @property
    def stored_bytes(self) -> int:
        """The stored bytes of what is due."""
        return sum(each.summary.stored_bytes for each in self.due)


def plan_copy(source: Store, target: Store, sender: str, dataset: str | None = None, *, everything: bool) -> CopyPlan:
    """Plan the copies of a sender, or of one dataset. Blocks on both stores.

    Due is what has come to the source since the newest copy of the dataset, by `sequence`, and each base of it that the
    target does not have. What the target has pruned is older, and what the source has merged is there in another form:
    neither is copied, except with `everything`.

    Raises: OSError, StoreError.
    """
    here, there = read_catalogue(source, sender), read_catalogue(target, sender)
    newest: dict[str, tuple[int, str]] = {}
    for stored in there.streams:
        about = stored.summary
        newest[about.dataset] = max(_order(about), newest.get(about.dataset, _FIRST))
    copied = {stored.summary.path: stored.summary for stored in there.streams}
    wanted: set[str] = set()
    left_out: dict[str, str] = {}
    for stored in here.select(sender, dataset):
        about = stored.summary
        twin = copied.get(about.path)
        if twin is not None:
            if not _is_same(about, twin):
                left_out[about.path] = "the target has another stream of this name"
        elif everything or _order(about) > newest.get(about.dataset, _FIRST):
            if here.restorable(stored):
                wanted |= _with_bases(here, there, stored, wanted)
            else:
                left_out[about.path] = f"cannot be restored: {here.obstacle(stored)}"
    return CopyPlan([each for each in here.streams if each.summary.path in wanted], left_out)


def _order(about: Summary) -> tuple[int, str]:
    """Return the place of a stream in the order of reception (docs/format.md, "The manifest")."""
    return (about.sequence, "") if about.sequence is not None else (0, about.received)


def _is_same(about: Summary, twin: Summary) -> bool:
    """Whether two stored streams have the same raw bytes, as far as their manifests tell."""
    if about.sha256 is None or twin.sha256 is None:
        return about.raw_bytes == twin.raw_bytes
    return about.sha256 == twin.sha256


def _with_bases(here: Catalogue, there: Catalogue, stored: StoredStream, wanted: set[str]) -> set[str]:
    """Return the file of a stream, and those of its bases that the target lacks."""
    found: set[str] = set()
    for each in reversed(here.chain(stored)):
        about = each.summary
        if about.path in wanted or there.at(each.file) is not None:
            break
        found.add(about.path)
        if about.base_guid is not None and there.has(about.dataset, about.base_guid):
            break
    return found


class Copier:
    """Copies streams from one store into another. The caller is the only process that copies into the target."""

    def __init__(
        self, source: Store, target: Store, *, rate: int = 0, count: Callable[[int], None] = lambda _: None
    ) -> None:
        """`rate`: stored bytes a second, 0: no limit; `count`: is called with the stored bytes of each frame."""
        self._source = source
        self._target = target
        self._count = count
        self._pace = Pace(rate, lambda: False)
        self._abandoned = threading.Event()

    def abandon(self) -> None:
        """End the run soon, from another thread or a signal handler."""
        self._abandoned.set()

    def copy(self, stored: StoredStream) -> bool:
        """Copy one stream, and put it in place. Blocks.

        Returns: False if it is not there any more, or the target has got a stream of its name meanwhile. Raises:
        CopySpoilt, CopyAbandoned, StoreError, OSError.
        """
        hold = self._source.hold()
        try:
            hold.add(stored.file)
            self._source.wait_for_removals()
            if not self._source.has(stored.file):
                return False
            return self._copy(stored, self._source.manifest(stored.file))
        finally:
            hold.close()

    def _copy(self, stored: StoredStream, manifest: Manifest) -> bool:
        upload, standing = self._upload(stored, manifest)
        try:
            feed = _Feed(upload, standing)
            with closing(self._source.open(stored.file)) as blob:
                for place in places(blob):
                    if place.raw_offset >= feed.offset:
                        self._look()
                        feed.take(place, _frame(blob, place))
                        self._took(place.entry.stored_length)
            feed.sync()
            while not upload.catch_up(_STEP):
                self._look()
            sealed = upload.seal(feed.chunks)
            if sealed != (manifest.stored_bytes, manifest.file_sha256):
                upload.close(keep=False)
                msg = f"{stored.file}: its copy has other bytes than its manifest says: see `fullsendd verify`"
                raise CopySpoilt(msg)
            if self._target.capabilities.can_read_partials:
                self._read_back(upload, str(stored.file))
            return upload.commit(stored.file, manifest)
        finally:
            upload.close(keep=True)

    def _upload(self, stored: StoredStream, manifest: Manifest) -> tuple[Upload, Standing | None]:
        """Return the upload of a copy: a new one, or that of an earlier run with the place at which it resumes."""
        key = copy_key(stored.file, manifest.file_sha256)
        found = self._target.reopen(key, at_resume_point=False)
        if found is not None:
            return found
        about = stored.summary
        offer = Offer(dataset=about.dataset, snapshot=about.snapshot, base_guid=about.base_guid, keep_orphan=True)
        opened = Opened(sender=about.sender, offer=offer, at=format_time(time.time()))
        return self._target.begin(key, opened), None

    def _read_back(self, upload: Upload, name: str) -> None:
        """Read the copy from its disk once, before it is in place. Raises: CopySpoilt, OSError."""
        with closing(upload.sealed()) as blob:
            blob.forget(0, blob.size)
            for chunk in checked_chunks_of(blob):
                if isinstance(chunk, DamagedChunk):
                    upload.close(keep=False)
                    msg = f"{name}: its copy reads back otherwise: {chunk}; the target's disk or the memory is bad"
                    raise CopySpoilt(msg)
                self._look()

    def _took(self, size: int) -> None:
        self._count(size)
        self._pace.keep(size, self._abandoned)

    def _look(self) -> None:
        if self._abandoned.is_set():
            raise CopyAbandoned


class _Feed:
    """Appends the frames of a stored stream to an upload, with what its journal needs of each."""

    def __init__(self, upload: Upload, standing: Standing | None) -> None:
        """Begin, or resume at `standing`."""
        self._upload = upload
        self._walker = (
            Walker() if standing is None else Walker.resume(standing.walker, standing.begins, standing.embedded_spills)
        )
        self.offset = 0 if standing is None else standing.offset
        self.chunks = 0 if standing is None else standing.chunks
        self._cutter = Cutter(self._walker)
        self._segment = SegmentCheck()
        if standing is not None:
            self._segment.lose()  # what is before the place was compared when it was appended
        self._decompressor = Decompressor()
        self._pending: list[Written] = []
        self._unsynced = 0
        self._begins, self._spills = len(self._walker.begins), len(self._walker.embedded_spills)

    def take(self, place: Place, frame: bytes) -> None:
        """Append the next frame. Raises: CopySpoilt, OSError, StoreError."""
        entry = place.entry
        try:
            raw = self._decompressor.decompress(frame, entry.raw_length)
        except ChunkError as error:
            raise _spoilt(place, str(error)) from None
        if entry.starts_segment:
            self._segment.begin(place.raw_offset)
        if not self._segment.fits(raw, entry.sha256):
            raise _spoilt(place, "its SHA-256 is not the proven one")
        self._cutter.next()
        self._cutter.walk_chunk(raw)
        self._upload.append(frame)
        self._pending.append(Written(entry, self._walker.record_start))
        self.chunks += 1
        self.offset += len(raw)
        self._unsynced += len(frame)
        if self._unsynced >= _BATCH:
            self.sync()

    def sync(self) -> None:
        """Make durable what was appended. Raises: OSError, StoreError."""
        if not self._pending:
            return
        walker = self._walker
        batch = Batch(
            offset=self.offset,
            stored=self._upload.size,
            chunks=tuple(self._pending),
            walker=walker.state,
            begins=tuple(walker.begins[self._begins :]),
            embedded_spills=tuple(walker.embedded_spills[self._spills :]),
        )
        self._upload.sync(batch)
        self._begins, self._spills = len(walker.begins), len(walker.embedded_spills)
        self._pending.clear()
        self._unsynced = 0


def _frame(blob: Blob, place: Place) -> bytes:
    frame = blob.read(place.file_offset, place.entry.stored_length)
    if len(frame) != place.entry.stored_length:
        raise _spoilt(place, "the file ends inside it")
    return frame


def _spoilt(place: Place, why: str) -> CopySpoilt:
    return CopySpoilt(f"{describe(place)}: {why}: `fullsendd verify` tells more")
