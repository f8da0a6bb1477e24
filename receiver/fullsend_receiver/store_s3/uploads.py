"""The `Upload` of a store in a bucket.

What arrives waits in memory. A batch is durable as an object of the journal, with its bytes. Once the bytes that wait
are enough for a part, they are stored as one, and the journal names it. So each batch is acknowledged by itself, also a
small one, and the bytes of a fast stream are stored once. A part is not cut. Nothing reads it before the upload is
sealed. object_parts.py stores the parts.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from fullsend_protocol.format.manifest import Manifest, Resumption
from fullsend_protocol.format.names import hash_of
from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import ChunkError, FullsendError
from fullsend_protocol.stream.chunks import Decompressor
from fullsend_protocol.wire.messages import Record
from fullsend_receiver.store import journal
from fullsend_receiver.store.errors import PartialDamaged, StoreError
from fullsend_receiver.store.journal import Batch, Standing, Written
from fullsend_receiver.store.names import hash_line
from fullsend_receiver.store.read_back import ReadBack
from fullsend_receiver.store.resume_point import last_record
from fullsend_receiver.store.seekable import IndexEntry, tables
from fullsend_receiver.store_s3 import commits, journals, keys, partials
from fullsend_receiver.store_s3.blob import BucketBlob
from fullsend_receiver.store_s3.bucket import Bucket
from fullsend_receiver.store_s3.journals import (
    BucketJournal,
    JournalWriter,
    OpenUpload,
    Sealed,
    StoredPart,
    UploadLost,
)
from fullsend_receiver.store_s3.object_parts import ObjectParts

if TYPE_CHECKING:
    from fullsend_receiver.store.api import Replaced, Supersedes
    from fullsend_receiver.store_s3.part_sizes import PartSizes

#: How often as many bytes may wait until a chunk ends with a resumable record. A part ends there, if it can.
_PATIENCE: Final = 2


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A chunk that is in no part yet. `raw_start`: its raw offset."""

    frame: bytes
    written: Written
    raw_start: int

    @property
    def resumable(self) -> bool:
        """Whether a token resumes behind it."""
        entry = self.written.entry
        whole = self.written.record_start >= self.raw_start
        return entry.ends_at_resume_point and entry.raw_length >= limits.CHUNK_MIN and whole


class BucketUpload:
    """A stream that arrives in a bucket: an `Upload`. Made by `begun` and `resumed`."""

    def __init__(
        self,
        bucket: Bucket,
        opened: OpenUpload,
        writer: JournalWriter,
        ended: Callable[[str], None],
        *,
        sizes: PartSizes,
        found: BucketJournal | None = None,
    ) -> None:
        """`found`: the journal, if it is taken over; `ended`: called once, with the key, as soon as this process no
        longer has it open.
        """
        self.key = opened.key
        self.size = 0
        self._bucket = bucket
        self._open = opened
        self._writer = writer
        self._ended_call = ended
        self._arrived: deque[bytes] = deque()  # frames of which no batch has told yet
        self._waiting: list[_Waiting] = []
        self._entries: list[IndexEntry] = []
        self._parts = ObjectParts(bucket, opened, writer, sizes, found)
        self._sealed: Sealed | None = None
        self._durable = 0
        self._raw = 0
        self._file_hash: hashlib._Hash | None = hashlib.sha256()  # None: an earlier process has hashed the beginning
        self._failure: BaseException | None = None  # why nothing later counts as durable
        self._committing = False
        self._ended = False

    @classmethod
    def resumed(
        cls,
        bucket: Bucket,
        found: BucketJournal,
        place: Standing,
        ended: Callable[[str], None],
        *,
        sizes: PartSizes,
    ) -> BucketUpload:
        """Take an upload over, at a place that is not within a part. Raises: StoreError, PartialDamaged."""
        tail = memoryview(found.tail(bucket, place.stored))
        end = journal.standings_in(found.said)[0]
        cut = end is None or place.offset != end.offset
        writer = JournalWriter(bucket, found.open, found.next)
        writer.write([journals.owner_line(), *([journals.cut_line(place)] if cut else [])])
        for prefix in (found.open.data, keys.journal_prefix(found.open.key, found.open.generation)):
            partials.abort_others(bucket, prefix, found.uploads)
        self = cls(bucket, found.open, writer, ended, sizes=sizes, found=found)
        stored = raw = 0
        for written in journals.chunks_in(found):
            if stored == place.stored:
                break
            entry = written.entry
            if stored >= found.in_parts:
                at = stored - found.in_parts
                frame = bytes(tail[at : at + entry.stored_length])
                self._waiting.append(_Waiting(frame, written, raw))
            self._entries.append(entry)
            stored += entry.stored_length
            raw += entry.raw_length
        self._sealed = found.sealed
        self.size = self._durable = stored
        self._raw = raw
        self._file_hash = None
        return self

    # --- while it arrives

    @property
    def begun(self) -> str | None:
        """When its stream was first offered. See `Upload.begun`."""
        return self._open.opened.at

    def append(self, frame: bytes | memoryview) -> None:
        """Append a frame. See `Upload.append`."""
        self._refuse_failed()
        if self._sealed is not None:
            msg = f"partial {self.key}: is sealed, nothing more is appended"
            raise StoreError(msg)
        data = bytes(frame)
        self._parts.check_size(self.size + len(data))
        if self._file_hash is not None:
            self._file_hash.update(data)
        self._arrived.append(data)
        self.size += len(data)

    def sync(self, batch: Batch) -> int:
        """Store what waits as a part, if it is enough for one, and write the journal. See `Upload.sync`."""
        self._refuse_failed()
        if batch.stored <= self._durable:
            return batch.offset  # `take_last` has stored it
        try:
            self._sync(batch)
        except BaseException as error:
            self._failure = error
            raise
        return batch.offset

    def take_last(self, batch: Batch) -> None:
        """Make the last batch durable at once: it is one request in any case. See `Upload.take_last`."""
        self.sync(batch)

    def _sync(self, batch: Batch) -> None:
        for written in batch.chunks:
            self._waiting.append(_Waiting(self._arrived.popleft(), written, self._raw))
            self._entries.append(written.entry)
            self._raw += written.entry.raw_length
        lines = [journal.durable_line(batch)]
        if count := self._part_count():
            lines.append(journals.part_line(self._put_part(count)))
        in_parts = self._parts.end
        start = max(self._durable, in_parts)
        tail = b"".join(each.frame for each in self._waiting)[start - in_parts :]
        if tail:
            lines.append(journals.tail_line(start, len(tail)))
        self._writer.write(lines, tail)
        self._durable = batch.stored

    def _part_count(self) -> int:
        """Return how many of the waiting chunks become a part; 0: they wait."""
        least = self._parts.next_size
        size = count = 0
        for number, each in enumerate(self._waiting, 1):
            size += len(each.frame)
            if size >= least and each.resumable:
                count = number
        return count or (len(self._waiting) if size >= least * _PATIENCE else 0)

    def _put_part(self, count: int) -> StoredPart:
        chunks = self._waiting[:count]
        last = chunks[-1]
        record = None
        if last.resumable:
            raw = Decompressor().decompress(last.frame, last.written.entry.raw_length)
            record = last_record(raw, last.written.record_start - last.raw_start)
        stored = self._parts.put(b"".join(each.frame for each in chunks), record)
        del self._waiting[:count]
        return stored

    def note_resumed(self, resumption: Resumption) -> None:
        """Record that the stream resumes. See `Upload.note_resumed`."""
        self._write([journal.resumed_line(resumption)])

    def catch_up(self, most: int) -> bool:
        """Does nothing: parts cannot be read back before `seal`, which does this. See `Upload.catch_up`."""
        del most
        return True

    def read(self, start: int, size: int) -> bytes:
        """Not with this store. See `Upload.read`."""
        del start, size
        msg = f"partial {self.key}: cannot be read before its commit"
        raise StoreError(msg)

    def record(self, standing: Standing) -> Record:
        """Return the record that ends at a place. See `Upload.record`."""
        features = standing.begins[-1].features
        last = self._parts.last
        if last is not None and last.end == standing.stored and last.record is not None:
            header, digest = last.record
            return Record(header=header, payload_sha256=digest, features=features)
        at = self._parts.end
        for each in self._waiting:
            at += len(each.frame)
            if at == standing.stored:
                raw = Decompressor().decompress(each.frame, each.written.entry.raw_length)
                header, digest = last_record(raw, each.written.record_start - each.raw_start)
                return Record(header=header, payload_sha256=digest, features=features)
        msg = "no record ends there"
        raise ChunkError(msg)

    # --- its end

    def seal(self, chunks: int) -> tuple[int, str]:
        """Store tables and what waits, and make one object of the parts. See `Upload.seal`.

        If an earlier process has stored some of it, or the object store has copied some of it, the whole object is
        read, and each chunk compared with its hash.
        """
        if self._durable != self.size or self._arrived:
            msg = f"partial {self.key}: {self.size} bytes are written, of which only {self._durable} are durable"
            raise StoreError(msg)
        end = b"".join(tables(self._entries, chunks))
        whole = self.size + len(end)
        self._parts.check_size(whole)
        tail = b"".join(each.frame for each in self._waiting) + end
        try:
            if self._sealed is None:
                self._refuse_failed()
                self._sealed = self._parts.seal(tail, whole, chunks)
            if self._sealed.upload is None:
                self._bucket.put(self._open.data, tail)
            else:
                self._parts.complete(self._sealed)
            if self._file_hash is None or self._parts.copied:
                self._file_hash = self._hash_again(len(end))
            else:
                self._file_hash.update(end)
        except (PartialDamaged, UploadLost) as error:
            self._failure = error
            raise
        digest = self._file_hash.hexdigest()
        self._bucket.put(hash_of(self._open.data), hash_line(digest, PurePosixPath(self._open.data)))
        self.size = self._durable = whole
        return whole, digest

    def _hash_again(self, end: int) -> hashlib._Hash:
        """Read the whole object, and compare its chunks with what was proven when they arrived. Returns: its hash."""
        digest = hashlib.sha256()
        with closing(self.sealed()) as blob:
            reader = ReadBack(iter(self._entries))
            try:
                for _entry in self._entries:
                    digest.update(reader.next(blob.read))
            except PartialDamaged as error:
                raise self._parts.lost(str(error)) from None
            digest.update(blob.read(blob.size - end, end))
        return digest

    def sealed(self) -> BucketBlob:
        """Open the sealed object. See `Upload.sealed`."""
        return BucketBlob(self._bucket, self._open.data)

    def commit(
        self,
        file: PurePosixPath,
        manifest: Manifest,
        replaces: Replaced | None = None,
        supersedes: Supersedes | None = None,
    ) -> bool:
        """Put the stream in place. See `Upload.commit`. From the `commit` line on, any process completes it."""
        bucket = self._bucket
        prepared = commits.prepare(bucket, self._open, file, manifest, replaces=replaces, supersedes=supersedes)
        if prepared is None:
            self.close(keep=False)
            return False
        with prepared:
            self._committing = True  # even if writing the line fails: whether it is stored is unknown
            self._write(prepared.lines, commits=True)
            self.close(keep=True)
            objects = None if self._parts.in_segments else self._writer.objects
            return commits.complete(bucket, self._open, prepared.commit, objects, held=True)

    def close(self, *, keep: bool) -> None:
        """End it. See `Upload.close`."""
        if self._ended:
            return
        self._ended = True
        self._ended_call(self.key)
        if not (keep or self._committing):
            partials.discard(self._bucket, self._open)

    def _write(self, lines: list[bytes], *, commits: bool = False) -> None:
        self._refuse_failed()
        try:
            self._writer.write(lines, commits=commits)
        except BaseException as error:
            self._failure = error
            raise

    def _refuse_failed(self) -> None:
        if self._failure is not None:
            # Whichever of two threads is heard first, its sender gets the reason, and whether to try again.
            error = StoreError(f"partial {self.key}: storing it has failed before: {self._failure}")
            if isinstance(self._failure, FullsendError):
                error.code = self._failure.code
            raise error
