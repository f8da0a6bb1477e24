"""Copies stored streams into another store, byte for byte: to another site, into a bucket, or out of it.

Each frame is copied as it is, and decoded to see that it is what was proven when it arrived. The copy is in place only
if its SHA-256 is that of the source's manifest, which is copied too. What is durable of a copy that was interrupted
stays, and the next run resumes behind it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from fullsend_protocol.format.manifest import Manifest
from fullsend_protocol.shared.errors import ChunkError, FullsendError
from fullsend_protocol.shared.settings import SizeOrShare
from fullsend_protocol.shared.units import format_size, format_time, parse_time
from fullsend_protocol.stream.chunks import Cutter, Decompressor, SegmentCheck
from fullsend_protocol.stream.records import Walker
from fullsend_receiver.arrival.replacement import unchecked_time
from fullsend_receiver.catalogue.problems import Problem, ProblemKind
from fullsend_receiver.catalogue.rows import Summary
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.catalogue.streams import Catalogue, StoredStream, read_catalogue
from fullsend_receiver.maintenance.pace import Pace
from fullsend_receiver.store.api import Replaced, Store, Upload
from fullsend_receiver.store.journal import Standing
from fullsend_receiver.store.names import dataset_folder, guid_in_name
from fullsend_receiver.store.opened import Offer, Opened, copy_key
from fullsend_receiver.store.pending import ChunkEnd, PendingChunks
from fullsend_receiver.store.playback import DamagedChunk, checked_chunks_of, describe
from fullsend_receiver.store.seekable import Blob, Place, places

#: Stored bytes after which a copy is made durable: it resumes there.
_BATCH: Final = 64 << 20
#: Stored bytes that are hashed between two looks at whether the run is to end.
_STEP: Final = 64 << 20


class CopyAbandoned(Exception):  # noqa: N818 - reads as what it says
    """The run is to end; what is durable of the copy stays."""


class CopyRefused(FullsendError):  # noqa: N818 - reads as what it says
    """A stream cannot be copied now. Nothing of it is in place."""


class CopySpoilt(FullsendError):  # noqa: N818 - reads as what it says
    """What was read is not what the source's manifest says. Nothing of it is in place."""


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """What a run would copy of one sender. `due`: bases first; `left_out`: by file, why a stream that is missing or
    damaged in the target is not copied; `older`: how many streams are not copied because they are older than the
    newest copy; `bases`: by file, the streams of which one must be in the target when this one is copied; `replaces`:
    by file, the damaged copy in the target; `stored`: how many streams of it the source has; `problems`: what may hide
    others of the source.
    """

    due: list[StoredStream]
    left_out: dict[str, str]
    older: int
    bases: dict[str, list[PurePosixPath]]
    replaces: dict[str, Replaced]
    stored: int
    problems: list[Problem]

    @property
    def stored_bytes(self) -> int:
        """The stored bytes of what is due."""
        return sum(each.summary.stored_bytes for each in self.due)


def plan_copy(
    source: Store,
    target: Store,
    sender: str,
    dataset: str | None = None,
    *,
    everything: bool,
    again: Collection[str] = (),
) -> CopyPlan:
    """Plan the copies of a sender, or of one dataset. Blocks on both stores.

    Due is each snapshot that has come to the source since the newest one that the target can restore of its dataset,
    by `sequence` or by `received`, with the bases that the target cannot restore. What the target has pruned is older
    by both, and what the source has merged is there in another form: neither is copied, except with `everything`.
    However old they are, these are due, too: the snapshots of streams that the target has, and cannot restore; and
    `again`: files that an earlier run has left behind, or what the source has merged them into since.

    What cannot be read in a folder of either store is left out, too: nobody knows which streams it hides.

    Raises: OSError, StoreError.
    """
    here, there = (read_catalogue(store, sender, thorough=True) for store in (source, target))
    restorable = [each for each in there.streams if there.restorable(each)]
    newest: dict[str, _Newest] = {}
    for stored in restorable:
        newest.setdefault(stored.summary.dataset, _Newest()).count(stored.summary)
    have = {_snapshot(each.summary) for each in restorable}
    missed = _missed(here, there, again)
    twins = {each.summary.path: each for each in there.streams}
    wanted: set[str] = set()
    problems = _problems(here, sender, dataset)
    left_out = {each.stream or each.path: _hidden_by(each) for each in problems}
    left_out |= {f"{target.where}: {each.path}": each.what for each in _problems(there, sender, dataset)}
    replaces: dict[str, Replaced] = {}
    older = 0
    chosen = here.select(sender, dataset)
    for stored in chosen:
        about = stored.summary
        twin = twins.get(about.path)
        if twin is not None and not _is_same(about, twin.summary):
            left_out[about.path] = "the target has another stream of this name"
        elif twin is not None and there.whole(twin):
            pass
        elif twin is not None:
            stamp = target.stamp(twin.file)
            if not here.whole(stored):
                left_out[about.path] = f"is damaged here and in the target: {there.obstacle(twin)}"
            elif stamp is not None:
                replaces[about.path] = Replaced(stamp, there.obstacle(twin))
                wanted.add(about.path)
        elif not everything and _snapshot(about) in have:
            pass  # in another form
        elif not (
            everything
            or about.path in again
            or _place(stored.file, about.guid) in missed
            or newest.get(about.dataset, _Newest()).is_before(about)
        ):
            older += 1
        elif here.restorable(stored):
            wanted |= _with_bases(here, there, have, stored, wanted) - twins.keys()
        else:
            left_out[about.path] = f"cannot be restored: {here.obstacle(stored)}"
    due = _bases_first(here, wanted)
    bases = {each.summary.path: _bases(here, there, each) for each in due if each.summary.base_guid is not None}
    return CopyPlan(due, left_out, older, bases, replaces, len(chosen), problems)


def _problems(catalogue: Catalogue, sender: str, dataset: str | None) -> list[Problem]:
    """Return what may hide streams of a sender, or of a dataset."""
    folder = None if dataset is None else str(dataset_folder(sender, dataset))
    return [problem for problem in catalogue.problems if folder is None or problem.hides(folder)]


def _hidden_by(problem: Problem) -> str:
    return f"its manifest {problem.what}" if problem.kind is ProblemKind.MANIFEST else problem.what


def _bases_first(here: Catalogue, wanted: set[str]) -> list[StoredStream]:
    """Return the wanted streams, each behind its bases: one that was stored anew comes after what builds on it.
    One without a whole chain here replaces a damaged copy, whose bases the target has.
    """
    found: dict[str, StoredStream] = {}
    for stored in here.streams:
        if stored.summary.path in wanted:
            for each in here.chain(stored) or [stored]:
                if each.summary.path in wanted:
                    found.setdefault(each.summary.path, each)
    return list(found.values())


def _bases(here: Catalogue, there: Catalogue, stored: StoredStream) -> list[PurePosixPath]:
    return [each.file for each in _bases_there(there, stored) + here.bases(stored)]


def _bases_there(there: Catalogue, stored: StoredStream) -> list[StoredStream]:
    """Return what a stream of the source can be received on, of what the target can restore: of any dataset."""
    return [each for each in there.bases(stored) if there.restorable(each)]


def _missed(here: Catalogue, there: Catalogue, again: Collection[str]) -> set[tuple[PurePosixPath, str]]:
    """Return the snapshots that the target should have, and cannot restore: of its own streams; and of those in `again`
    that the source does not have under that name any more.
    """
    known = {each.summary.path for each in here.streams}
    left = (PurePosixPath(path) for path in again if path not in known)
    missed = {_place(file, guid) for file in left if (guid := guid_in_name(file.name)) is not None}
    missed.update(_place(each.file, each.summary.guid) for each in there.streams)
    return missed - {_place(each.file, each.summary.guid) for each in there.streams if there.restorable(each)}


def _place(file: PurePosixPath, guid: str) -> tuple[PurePosixPath, str]:
    """Return what the forms of one snapshot have in common: their folder, and its GUID."""
    return file.parent, guid


class _Newest:
    """How far the copies of one dataset have come. A source that was made anew counts its `sequence` anew, and a clock
    may have been wrong: a stream is older only if both say so.
    """

    def __init__(self) -> None:
        self._sequence = 0
        self._received = ""

    def count(self, about: Summary) -> None:
        """Count a copy."""
        self._sequence = max(self._sequence, about.sequence or 0)
        self._received = max(self._received, about.received)

    def is_before(self, about: Summary) -> bool:
        """Whether a stream has come since the newest copy, as far as anything tells."""
        return (about.sequence or 0) > self._sequence or about.received > self._received


def _snapshot(about: Summary) -> tuple[str, str, str]:
    """Return what two streams of the same snapshot, sent with the same flags, have in common."""
    return about.dataset, about.guid, about.flags


def _is_same(about: Summary, twin: Summary) -> bool:
    """Whether two stored streams have the same raw bytes, as far as their manifests tell."""
    if about.sha256 is None or twin.sha256 is None:
        return about.raw_bytes == twin.raw_bytes
    return about.sha256 == twin.sha256


def _with_bases(
    here: Catalogue, there: Catalogue, have: set[tuple[str, str, str]], stored: StoredStream, wanted: set[str]
) -> set[str]:
    """Return the file of a stream, and those of its bases that the target cannot restore. `have`: what it can."""
    found: set[str] = set()
    for each in reversed(here.chain(stored)):
        about = each.summary
        if about.path in wanted or _snapshot(about) in have:
            break
        found.add(about.path)
        if _bases_there(there, each):
            break
    return found


class Copier:
    """Copies streams from one store into another. The caller is the only process that copies into the target."""

    def __init__(
        self,
        source: Store,
        target: Store,
        *,
        rate: int = 0,
        keep_free: SizeOrShare = SizeOrShare(),  # noqa: B008 - it never changes
        count: Callable[[int], None] = lambda _: None,
    ) -> None:
        """`rate`: stored bytes a second, 0: no limit; `keep_free`: what stays free of the target's disk; `count`: is
        called with the stored bytes of each frame.
        """
        self._source = source
        self._target = target
        self._count = count
        self._pace = Pace(rate, lambda: False)
        self._abandoned = threading.Event()
        self._keep_free = keep_free

    def abandon(self) -> None:
        """End the run soon, from another thread or a signal handler."""
        self._abandoned.set()

    def copy(self, stored: StoredStream, bases: Sequence[PurePosixPath] = (), replaces: Replaced | None = None) -> bool:
        """Copy one stream, and put it in place. Blocks. `bases`, `replaces`: see CopyPlan; without bases it needs none.

        Returns: False if it is not there any more, or the target has got a stream of its name meanwhile. Raises:
        CopySpoilt, CopyRefused, CopyAbandoned, FullsendError, OSError.
        """
        hold = self._source.hold()
        try:
            hold.add(stored.file)
            self._source.wait_for_removals()
            if not self._source.has(stored.file):
                return False
            return self._copy(stored, self._source.manifest(stored.file), bases, replaces)
        finally:
            hold.close()

    def _copy(
        self, stored: StoredStream, manifest: Manifest, bases: Sequence[PurePosixPath], replaces: Replaced | None
    ) -> bool:
        self._check_room(stored)
        upload, standing = self._upload(stored, manifest)
        try:
            # The upload leases its base. A removal that had begun may have taken that.
            self._target.wait_for_removals()
            if bases and not any(map(self._target.has, bases)):
                upload.close(keep=False)
                msg = "its base is not in the target"
                raise CopyRefused(msg)
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
            if replaces is not None:
                # What checks have found of the damaged copy is about the stream that came then.
                at = parse_time(manifest.received) or time.time()
                later = unchecked_time(Catalogues(self._target), stored.file, at + 1)
                manifest = manifest.model_copy(update={"received": later})
            return upload.commit(stored.file, manifest, replaces)
        finally:
            upload.close(keep=True)

    def _check_room(self, stored: StoredStream) -> None:
        """Raises: CopyRefused if the target has no room for a stream."""
        free, total = self._target.space()
        wanted, most = stored.summary.stored_bytes, self._target.capabilities.stream_most
        if wanted > most:
            msg = f"it has {format_size(wanted)}, and a stream has {format_size(most)} in the target at most"
            raise CopyRefused(msg)
        if self._target.capabilities.free_space_known and wanted > free - self._keep_free.of(total):
            msg = f"the target has {format_size(free)} free, of which some must stay free (min-free)"
            raise CopyRefused(msg)

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
        self.chunks = 0 if standing is None else standing.chunks
        self._cutter = Cutter(self._walker)
        self._segment = SegmentCheck()
        if standing is not None:
            self._segment.lose()  # what is before the place was compared when it was appended
        self._decompressor = Decompressor()
        self._pending = PendingChunks(self._walker)

    @property
    def offset(self) -> int:
        """Raw bytes that were appended."""
        return self._pending.offset

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
        self._pending.add(ChunkEnd.of(entry, self._walker))
        self.chunks += 1
        if self._pending.frame_bytes >= _BATCH:
            self.sync()

    def sync(self) -> None:
        """Make durable what was appended. Raises: OSError, StoreError."""
        if self._pending:
            self._upload.sync(self._pending.take(self._upload.size))


def _frame(blob: Blob, place: Place) -> bytes:
    frame = blob.read(place.file_offset, place.entry.stored_length)
    if len(frame) != place.entry.stored_length:
        raise _spoilt(place, "the file ends inside it")
    return frame


def _spoilt(place: Place, why: str) -> CopySpoilt:
    return CopySpoilt(f"{describe(place)}: {why}: `fullsendd verify` tells more")
