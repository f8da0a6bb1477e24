"""The journal of a stream that arrives in a bucket: an object for each batch, put if absent.

`.partial/KEY/open` has what was offered, the generation of the journal, and the key of the bytes. An object of the
journal has lines as those of a journal in a folder, an empty line, and the bytes that are in no part yet. Lines that a
folder's journal does not have:

    owner    a process has taken the upload over
    data     the key of the stream's bytes: in the first object
    tail     where the bytes of this object belong, and how many they are
    upload   the multipart upload of the parts; with `segment`: of the next segment, whose parts follow
    part     a part is stored: number, ETag, size, SHA-256, where it ends in the bytes, and with which record
    closing  the segment gets no more parts, and is made an object
    copied   the segment is a part of the object now, and what this line tells stands for its parts
    cut      the lines before, from this number on, do not count: the stream was resumed at an earlier place
    seal     the parts of the whole object, whose tables are the last bytes
    stored   what a commit needs beyond its `commit` line

Of two processes that write the same number, one is refused: it is no longer the owner, and stops. After each object its
writer looks whether the generation is still the open one. So nothing that was discarded is acknowledged.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, Final

from pydantic import ValidationError

from fullsend_protocol.shared.errors import ErrorCode
from fullsend_receiver.store import journal
from fullsend_receiver.store.errors import PartialDamaged, StoreError
from fullsend_receiver.store.journal import Standing, UploadProgress, Written, make_line, understanding
from fullsend_receiver.store.opened import Opened
from fullsend_receiver.store_s3 import keys
from fullsend_receiver.store_s3.bucket import Bucket, BucketError, BucketObject, Part

_FORMAT: Final = 1
#: What ends the lines of an object.
_END: Final = b"\n\n"
#: Bytes of an object that are read for its lines; if these are more, so many times as much.
_HEAD: Final = 64 << 10
_GROWS: Final = 8


@dataclass(frozen=True, slots=True)
class OpenUpload:
    """The content of an `open` object. `etag`: of that object; `data`: the key of the stream's bytes."""

    key: str
    opened: Opened
    generation: str
    data: str
    etag: str


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A part, and where it ends in the stored bytes.

    `record`: header and SHA-256 of the record with which it ends, as in a `Record`, because nothing reads a part back;
    None: it does not end with a resumable record.
    """

    part: Part
    end: int
    record: tuple[str, str] | None

    def to_json(self) -> dict[str, Any]:
        """Return it for a line."""
        return {**asdict(self.part), "end": self.end, "record": self.record}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> StoredPart:
        """Return what a line tells. Raises: ValueError, KeyError, TypeError if it does not."""
        part = Part(int(row["number"]), str(row["etag"]), int(row["size"]), str(row["sha256"]))
        header, digest = row["record"] or ("", "")
        return cls(part, int(row["end"]), (str(header), str(digest)) if header else None)


@dataclass(slots=True)
class OpenSegment:
    """A segment that is not copied yet. `number`: of the part that it becomes; `closing`: it gets no more parts."""

    number: int
    upload: str
    parts: list[StoredPart] = field(default_factory=list)
    closing: bool = False

    @property
    def size(self) -> int:
        """Its bytes."""
        return sum(each.part.size for each in self.parts)


@dataclass(frozen=True, slots=True)
class TailPiece:
    """The bytes of an object of a journal.

    `start`: where they belong in the stored bytes; `at`: where they begin in the object `name`.
    """

    start: int
    size: int
    name: str
    at: int


@dataclass(frozen=True, slots=True)
class Sealed:
    """The `seal` line. `size`: bytes of the whole object; `parts`: None: it is one PUT."""

    size: int
    chunks: int
    parts: tuple[Part, ...]
    upload: str | None


@dataclass(slots=True)
class BucketJournal:
    """A journal that was read. `next`: the number that the next object gets; `lines`: those that count; `parts`: of the
    object; `upload`: the multipart upload that has them; `segment`: what follows them.
    """

    open: OpenUpload
    next: int = 1
    modified: float = 0.0
    lines: list[dict[str, Any]] = field(default_factory=list)
    parts: list[StoredPart] = field(default_factory=list)
    sealed: Sealed | None = None
    stored: dict[str, Any] | None = None
    upload: str | None = None
    segment: OpenSegment | None = None
    in_segments: bool = False
    pieces: list[TailPiece] = field(default_factory=list)

    @property
    def said(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The lines as the readers of a journal take them; a place in it is a number of lines."""
        first = {"open": self.open.opened.model_dump(mode="json", by_alias=True)}
        return iter(enumerate([first, *self.lines], 1))

    @property
    def objects(self) -> int | None:
        """How many objects it has; None: there may be some of segments, too."""
        return None if self.in_segments else self.next - 1

    @property
    def in_parts(self) -> int:
        """The stored bytes that are in parts."""
        return max((each.end for each in self._last), default=0)

    @property
    def _last(self) -> list[StoredPart]:
        return [*self.parts[-1:], *(self.segment.parts[-1:] if self.segment is not None else [])]

    @property
    def uploads(self) -> set[str]:
        """The multipart uploads that it names."""
        segment = set() if self.segment is None else {self.segment.upload}
        return segment if self.upload is None else {self.upload, *segment}

    @property
    def places(self) -> tuple[Standing | None, Standing | None]:
        """The places to resume at. See `UploadInfo.places`. A part is not cut."""
        end, resumable = journal.standings_in(self.said)
        if resumable is not None and (self.sealed is not None or resumable.stored < self.in_parts):
            resumable = None
        return end, resumable

    def tail(self, bucket: Bucket, until: int) -> bytes:
        """Read the bytes behind the parts, up to an offset. Raises: PartialDamaged if some are missing; BucketError."""
        at, found = self.in_parts, bytearray()
        for each in self.pieces:
            if each.start <= at < each.start + each.size:
                skipped = at - each.start
                found += bucket.read(each.name, each.at + skipped, each.size - skipped)
                at = self.in_parts + len(found)
        if at < until:
            msg = f"its journal has the bytes up to {at} of {until}"
            raise PartialDamaged(msg)
        return bytes(found[: until - self.in_parts])


# --- writing ------------------------------------------------------------------------------------------------------


def begin(bucket: Bucket, key: str, opened: Opened) -> OpenUpload:
    """Begin a journal. Raises: StoreError if there is one."""
    generation, data = keys.unique(), keys.data_key(opened)
    said = {
        "format": _FORMAT,
        "generation": generation,
        "data": data,
        "open": opened.model_dump(mode="json", by_alias=True),
    }
    etag = bucket.put(keys.open_key(key), json.dumps(said).encode() + b"\n", if_absent=True)
    if etag is None:
        msg = f"partial {key}: another daemon has begun to receive this stream; try again"
        raise StoreError(msg)
    return OpenUpload(key, opened, generation, data, etag)


class UploadLost(StoreError):  # noqa: N818 - reads as what it says
    """Another daemon has taken an upload over, or discarded it. Its sender tries again, and finds what counts."""

    code = ErrorCode.LIMIT


class JournalWriter:
    """Writes the objects of one journal, until another process does."""

    def __init__(self, bucket: Bucket, opened: OpenUpload, number: int) -> None:
        """`number`: of the next object."""
        self._bucket = bucket
        self._open = opened
        self._number = number

    @property
    def objects(self) -> int:
        """How many objects the journal has."""
        return self._number - 1

    def write(self, lines: Sequence[bytes], tail: bytes = b"", *, commits: bool = False) -> None:
        """Write an object durably. `commits`: it has the line of a commit.

        Raises: UploadLost if another process has taken the upload over, or it was discarded: nothing may be
        acknowledged then. BucketError.
        """
        opened = self._open
        name = keys.journal_key(opened.key, opened.generation, self._number)
        if self._number == 1:
            lines = [make_line({"data": opened.data}), *lines]
        if self._bucket.put(name, b"".join([*lines, b"\n", tail]), if_absent=True) is None:
            msg = f"partial {opened.key}: another daemon has taken it over"
            raise UploadLost(msg)
        self._number += 1
        there = self._bucket.head(keys.open_key(opened.key))
        if there is None or there.etag != opened.etag:
            # Nobody reads this generation any more: without this the object would stay until a daemon starts. But
            # another process may have completed a commit by now: its line goes after all other objects.
            if not commits:
                with contextlib.suppress(BucketError):
                    self._bucket.delete(name)
            msg = f"partial {opened.key}: was discarded meanwhile"
            raise UploadLost(msg)


def owner_line() -> bytes:
    """Return the line by which a process takes an upload over."""
    return make_line({"owner": keys.unique()})


def part_line(part: StoredPart) -> bytes:
    """Return the line of a part that is stored."""
    return make_line({"part": part.to_json()})


def cut_line(place: Standing) -> bytes:
    """Return the lines that make a journal end at a place within it."""
    # The first line is in no object of it.
    return make_line({"cut": [place.line - 1, place.stored]}) + journal.durable_line(place.part)


def seal_line(sealed: Sealed) -> bytes:
    """Return the line before the parts are made one object."""
    parts = [asdict(each) for each in sealed.parts]
    return make_line({"seal": {"size": sealed.size, "chunks": sealed.chunks, "parts": parts, "upload": sealed.upload}})


def tail_line(start: int, size: int) -> bytes:
    """Return the line that tells where the bytes of an object belong."""
    return make_line({"tail": [start, size]})


def upload_line(upload: str) -> bytes:
    """Return the line that names a multipart upload before its first part."""
    return make_line({"upload": upload})


def segment_line(number: int, upload: str) -> bytes:
    """Return the same line for the segment of this number."""
    return make_line({"upload": upload, "segment": number})


def closing_line(segment: OpenSegment) -> bytes:
    """Return the line before a segment is made an object."""
    return make_line({"closing": segment.number})


def copied_line(part: Part) -> bytes:
    """Return the line of a segment that is a part of the object now."""
    return make_line({"copied": asdict(part)})


# --- reading ------------------------------------------------------------------------------------------------------


def read_open(bucket: Bucket, key: str) -> OpenUpload | None:
    """Return the content of an `open` object; None: there is none. Raises: PartialDamaged, StoreError."""
    found = bucket.get(keys.open_key(key))
    if found is None:
        return None
    with understanding():
        said = json.loads(found.data)
        if said["format"] != _FORMAT:
            msg = f"its journal has format {said['format']!r}, and this version of fullsendd reads format {_FORMAT}"
            raise PartialDamaged(msg)
        try:
            opened = Opened.model_validate(said["open"])
        except ValidationError as error:
            raise ValueError(str(error)) from None
        return OpenUpload(key, opened, str(said["generation"]), str(said["data"]), found.etag)


def read(bucket: Bucket, opened: OpenUpload) -> BucketJournal | None:
    """Read a journal; None: it is being discarded. Raises: PartialDamaged, StoreError."""
    key, found = opened.key, BucketJournal(opened)
    for each in written(opened, bucket.entries(keys.journal_prefix(key, opened.generation))):
        try:
            lines, at = _lines(bucket, each.key)
        except FileNotFoundError:
            return None
        _take(found, each, lines, at)
        found.next += 1
        found.modified = each.modified
    return found


def written(opened: OpenUpload, listed: Iterable[BucketObject]) -> list[BucketObject]:
    """Return the objects of a journal, without its segments. `listed`: those below its prefix, in order.

    Raises: PartialDamaged if one is missing.
    """
    found: list[BucketObject] = []
    for each in listed:
        if keys.is_segment(each.key):
            continue
        number = len(found) + 1
        if each.key != keys.journal_key(opened.key, opened.generation, number):
            msg = f"its journal lacks the object of number {number}"
            raise PartialDamaged(msg)
        found.append(each)
    return found


def progress(bucket: Bucket, objects: Sequence[BucketObject]) -> UploadProgress:
    """Return how far an upload is, by the newest objects of its journal: not all are read. `objects`: of `written`.

    Raises: PartialDamaged, FileNotFoundError if it ends meanwhile, BucketError.
    """
    committing = None
    with understanding():
        for each in reversed(objects):
            for line in reversed(lines_of(bucket, each.key)):
                if "commit" in line:
                    committing = PurePosixPath(line["commit"]["file"])
                elif "durable" in line:
                    return UploadProgress(int(line["durable"]["offset"]), int(line["durable"]["stored"]), committing)
    return UploadProgress(None, 0, committing)


def committing(bucket: Bucket, objects: Sequence[BucketObject]) -> PurePosixPath | None:
    """Return the file that is being put in place, by the newest object alone: nothing is written behind the line of a
    commit. Raises: as `progress`.
    """
    with understanding():
        for line in lines_of(bucket, objects[-1].key) if objects else ():
            if "commit" in line:
                return PurePosixPath(line["commit"]["file"])
    return None


def lines_of(bucket: Bucket, name: str) -> list[dict[str, Any]]:
    """Return the lines of one object of a journal. Raises: PartialDamaged, FileNotFoundError, BucketError."""
    return _lines(bucket, name)[0]


def _lines(bucket: Bucket, name: str) -> tuple[list[dict[str, Any]], int]:
    size = _HEAD
    while True:
        data = bucket.read(name, 0, size)
        if _END in data or len(data) < size:
            return _split(data)
        size *= _GROWS


def _split(data: bytes) -> tuple[list[dict[str, Any]], int]:
    """Return the lines at the beginning of an object, and where its bytes begin."""
    said, end, _bytes = data.partition(_END)
    lines = (said + b"\n").splitlines(keepends=True) if end else [data]
    with understanding():
        found = [said for _end, said in journal.whole_lines(lines)]
    if len(found) != len(lines):
        msg = "an object of its journal is not as written"
        raise PartialDamaged(msg)
    return found, len(said) + len(end)


def _take(found: BucketJournal, head: BucketObject, lines: list[dict[str, Any]], at: int) -> None:
    """Take the lines of an object. `at`: where its bytes begin."""
    there = 0
    with understanding():
        for line in lines:
            if "part" in line:
                (found.parts if found.segment is None else found.segment.parts).append(
                    StoredPart.from_json(line["part"])
                )
            elif "segment" in line:
                found.segment = OpenSegment(int(line["segment"]), str(line["upload"]))
                found.in_segments = True
            elif "closing" in line or "copied" in line:
                _end_segment(found, line)
            elif "tail" in line:
                start, there = map(int, line["tail"])
                found.pieces.append(TailPiece(start, there, head.key, at))
            elif "cut" in line:
                number, stored = line["cut"]
                del found.lines[int(number) :]
                found.pieces = [
                    replace(each, size=max(0, min(each.size, stored - each.start))) for each in found.pieces
                ]
            elif "seal" in line:
                said = line["seal"]
                parts = tuple(map(_part, said["parts"]))
                found.sealed = Sealed(int(said["size"]), int(said["chunks"]), parts, said["upload"])
            else:
                found.stored = line.get("stored", found.stored)
                found.upload = line.get("upload", found.upload)
                found.lines.append(line)
    if head.size != at + there:
        msg = f"an object of its journal has {head.size - at} of {there} bytes"
        raise PartialDamaged(msg)


def _end_segment(found: BucketJournal, line: dict[str, Any]) -> None:
    segment = found.segment
    if segment is None or not segment.parts:
        raise ValueError("it ends a segment that has not begun")
    if "closing" in line:
        segment.closing = True
        return
    last = segment.parts[-1]
    found.parts.append(StoredPart(_part(line["copied"]), last.end, last.record))
    found.segment = None


def _part(row: dict[str, Any]) -> Part:
    return Part(**{name: row[name] for name in Part.__slots__})


def summary(found: BucketJournal) -> journal.Journal:
    """Return the summary of a journal. Raises: PartialDamaged."""
    return journal.summary(found.said)


def chunks_in(found: BucketJournal) -> Iterator[Written]:
    """Yield the durable chunks, in order. Raises: PartialDamaged."""
    return journal.written_in(found.said)
