"""The parts of a stream that arrives in a bucket: of its object, and of its segments (see part_sizes.py).

What becomes of a segment, each step durable before the next:

    upload    the journal names its multipart upload; then parts are stored in it, as in the object's own
    closing   the journal says that it gets no more parts: from here on each daemon does the same with it
              its parts are made an object below the journal's prefix
              the object store copies that into the object's upload, as the part with the segment's number
    copied    the journal has that part
              the segment is deleted

A daemon that dies between two of them leaves the next ones to the one that takes over. All of them can be repeated: of
a closed segment the bytes are always the same. A daemon that was stalled repeats one, or is refused by the journal.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from fullsend_protocol.shared.units import format_size, printable
from fullsend_receiver.store.errors import PartialDamaged, StreamTooLarge
from fullsend_receiver.store_s3 import journals, keys, partials
from fullsend_receiver.store_s3.bucket import Bucket, BucketBusy, BucketError, BucketObject, Part
from fullsend_receiver.store_s3.journals import (
    BucketJournal,
    JournalWriter,
    OpenSegment,
    OpenUpload,
    Sealed,
    StoredPart,
    UploadLost,
)
from fullsend_receiver.store_s3.probe import can_copy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fullsend_receiver.store_s3.part_sizes import PartSizes


class ObjectParts:
    """The parts of one stream. All methods block, and raise BucketError, and UploadLost."""

    def __init__(
        self,
        bucket: Bucket,
        opened: OpenUpload,
        writer: JournalWriter,
        sizes: PartSizes,
        found: BucketJournal | None = None,
    ) -> None:
        """`found`: the journal, if the upload is taken over."""
        self._bucket = bucket
        self._open = opened
        self._writer = writer
        self._sizes = sizes
        self._parts: list[StoredPart] = [] if found is None else [*found.parts]
        self._upload = None if found is None else found.upload
        self._segment = None if found is None else found.segment
        self._can_copy: bool | None = None  # None: not tried yet
        self.in_segments = found is not None and found.in_segments  # whether some of it arrived in segments
        self.copied = False  # whether the object store has copied bytes for this process

    @property
    def last(self) -> StoredPart | None:
        """The part with the last bytes; None: there are no parts."""
        if self._segment is not None and self._segment.parts:
            return self._segment.parts[-1]
        return self._parts[-1] if self._parts else None

    @property
    def end(self) -> int:
        """The stored bytes that are in parts."""
        return 0 if self.last is None else self.last.end

    @property
    def next_size(self) -> int:
        """The bytes that become the next part, at least."""
        return self._sizes.part(len(self._parts))

    def check_size(self, size: int) -> None:
        """Check that the object may have so many bytes. Raises: StreamTooLarge."""
        if size > self._sizes.object_most:
            raise self._too_large(f"more than {format_size(self._sizes.object_most)}, which an object may have")

    def put(self, data: bytes, record: tuple[str, str] | None) -> StoredPart:
        """Store the next part. `record`: see StoredPart. Returns: the part, for the journal. Raises: PartialDamaged,
        StreamTooLarge.
        """
        if self._segment is not None and (self._segment.closing or self._segment.size >= self._sizes.segment):
            self._copy_segment(self._segment)
        if self._segment is None:
            self._begin()
        if self._segment is not None:
            parts, key, upload = self._segment.parts, self._key_of(self._segment), self._segment.upload
        else:
            assert self._upload is not None  # noqa: S101 - for mypy: `_begin` has begun it
            parts, key, upload = self._parts, self._open.data, self._upload
        part = self._put_part(key, upload, len(parts) + 1, data)
        stored = StoredPart(part, self.end + part.size, record)
        parts.append(stored)
        return stored

    def _put_part(self, key: str, upload: str, number: int, data: bytes) -> Part:
        """Store a part. Raises: PartialDamaged if the object store has aborted the upload, by a rule for old ones."""
        part = self._bucket.put_part(key, upload, number, data)
        if part is not None:
            return part
        if self._bucket.parts(key, upload) is None:
            raise self.lost("the object store has discarded its multipart upload")
        msg = (
            f"{self._bucket.where}/{key}: the object store lists a multipart upload that it does not find: see its log"
        )
        raise BucketBusy(msg)

    def _begin(self) -> None:
        """Begin what the next part belongs to, if nothing has begun that has room for it."""
        # One number is left for the last part, which has the tables.
        if len(self._parts) >= self._sizes.parts_most - 1:
            raise self._too_large(f"more than {self._sizes.parts_most} parts, which an object may have")
        if self._upload is None:
            self._upload = self._begin_upload(self._open.data, journals.upload_line)
        if len(self._parts) >= self._sizes.direct and self._may_copy():
            number = len(self._parts) + 1
            key = keys.segment_key(self._open.key, self._open.generation, number)
            upload = self._begin_upload(key, lambda upload: journals.segment_line(number, upload))
            self._segment = OpenSegment(number, upload)
            self.in_segments = True

    def _begin_upload(self, key: str, line: Callable[[str], bytes]) -> str:
        """Begin a multipart upload, and write the line that names it: before its first part, so that a process that
        dies here leaves none that has some and that nothing names.
        """
        upload = self._bucket.begin_parts(key)
        try:
            self._writer.write([line(upload)])
        except UploadLost:
            with contextlib.suppress(BucketError):  # otherwise it goes at the next start
                self._bucket.abort(key, upload)
            raise
        # Only now: of a process that was taken over it might be the other one's.
        if self._bucket.was_repeated(upload):
            partials.abort_others(self._bucket, key, {upload})
        return upload

    def _may_copy(self) -> bool:
        if self._can_copy is None:
            self._can_copy = can_copy(self._bucket)
        return self._can_copy

    def _too_large(self, why: str) -> StreamTooLarge:
        offer = self._open.opened.offer
        name = printable(f"{offer.dataset}@{offer.snapshot}")
        return StreamTooLarge(f"{name}: is too large for a store in a bucket: {why}: push it to a store in a folder")

    # --- segments

    def _key_of(self, segment: OpenSegment) -> str:
        return keys.segment_key(self._open.key, self._open.generation, segment.number)

    def _copy_segment(self, segment: OpenSegment) -> None:
        """Make a segment a part of the object."""
        if not segment.closing:
            self._writer.write([journals.closing_line(segment)])
            segment.closing = True
        key = self._key_of(segment)
        made = self._make_whole(key, segment.upload, [each.part for each in segment.parts], segment.size)
        assert self._upload is not None  # noqa: S101 - for mypy: a segment begins behind parts
        part = self._bucket.copy_part(self._open.data, self._upload, segment.number, made)
        if part is None:
            raise self.lost(f"the object store has lost the segment {segment.number}, or has discarded the upload")
        self.copied = True
        self._writer.write([journals.copied_line(part)])
        last = segment.parts[-1]
        self._parts.append(StoredPart(part, last.end, last.record))
        self._segment = None
        with contextlib.suppress(BucketError):  # what is left is deleted with the journal
            self._bucket.delete(key)

    # --- the end

    def seal(self, tail: bytes, whole: int, chunks: int) -> Sealed:
        """Store what is in no part yet, with the tables, as the last part, and write the `seal` line. `whole`: bytes of
        the object; `chunks`: their number. Raises: PartialDamaged.
        """
        data = self._open.data
        segment = self._segment
        if segment is not None and segment.parts:
            self._copy_segment(segment)
        elif segment is not None:  # a process died before the first part was in the journal, here and below
            self._bucket.abort(self._key_of(segment), segment.upload)
        if self._upload is None or not self._parts:
            if self._upload is not None:
                self._bucket.abort(data, self._upload)
            sealed = Sealed(whole, chunks, (), None)
        else:
            last = self._put_part(data, self._upload, len(self._parts) + 1, tail)
            sealed = Sealed(whole, chunks, (*(each.part for each in self._parts), last), self._upload)
        self._writer.write([journals.seal_line(sealed)])
        return sealed

    def complete(self, sealed: Sealed) -> None:
        """Make the parts one object. May be repeated. Raises: PartialDamaged."""
        assert sealed.upload is not None  # noqa: S101 - for mypy: without one there are no parts
        self._make_whole(self._open.data, sealed.upload, sealed.parts, sealed.size)

    def _make_whole(self, key: str, upload: str, parts: Sequence[Part], size: int) -> BucketObject:
        there = self._bucket.parts(key, upload)
        if there:  # otherwise it was completed before, or is lost
            # A process that was stalled may have replaced a part after it was acknowledged. SeaweedFS keeps each part
            # of a number, and takes the named one.
            listed, named = set(map(_identity, there)), set(map(_identity, parts))
            if not named <= listed or {each.number for each in there} != {each.number for each in parts}:
                raise self.lost("its parts are not those that were acknowledged")
            self._bucket.complete(key, upload, parts)
        found = self._bucket.head(key)
        if found is None or found.size != size:
            raise self.lost("the object store has lost some of its parts")
        return found

    def lost(self, why: str) -> PartialDamaged:
        """The upload is of no use any more: set it aside. Returns: the error."""
        # If another daemon has taken it over, that one has moved its parts on, and nothing is lost.
        self._writer.write([journals.owner_line()])
        return partials.set_aside(self._bucket, self._open, why)


def _identity(part: Part) -> tuple[int, str, int]:
    return part.number, part.etag, part.size
