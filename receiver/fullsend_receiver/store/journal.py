"""The journal of a partial: what its data file does not show, one line for each durable batch.

A line is CRC, space, JSON, newline: the CRC-32 of the JSON in 8 hex digits. A crash can tear only the last line,
because each is synced before the next is written. A line that is not whole ends the journal. If whole ones follow it,
the disk has lost data. docs/format.md describes the lines. This module writes and reads them; `uploads` makes them
durable.

The index entries are in the journal, and not in a file of their own, so that a batch syncs one file less.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from fullsend_protocol.format.manifest import Resumption, Segment
from fullsend_protocol.shared import limits
from fullsend_protocol.stream.records import Begin, EmbeddedSpill, Phase, WalkerState
from fullsend_receiver.store.errors import PartialDamaged
from fullsend_receiver.store.opened import FORMAT, Opened
from fullsend_receiver.store.seekable import IndexEntry

#: The offset of the JSON in a line: behind the CRC in hex and a space.
_BODY: Final = 9
_ASIDE: Final = re.compile("[0-9a-f]{16}")
#: Fields of a BEGIN that only raw streams have.
_IVSETS: Final = ("ivset_guid", "base_ivset_guid")


@dataclass(frozen=True, slots=True)
class Written:
    """A chunk of a partial. `record_start`: raw offset of the record that ends with the chunk, if the chunk ends at a
    resume point.
    """

    entry: IndexEntry
    record_start: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Chunks that are written but not durable yet.

    `offset`: raw bytes, and `stored`: bytes of the data file, through the last chunk. `walker`: the walker's state
    there; `begins`, `embedded_spills`: the BEGIN records, and the spill blocks that `zfs receive` loses, since the
    batch before.
    """

    offset: int
    stored: int
    chunks: tuple[Written, ...]
    walker: WalkerState
    begins: tuple[Begin, ...]
    embedded_spills: tuple[EmbeddedSpill, ...] = ()


@dataclass(frozen=True, slots=True)
class Replacement:
    """The damaged stream that gives way to a commit. `manifest`: SHA-256 of its manifest, in hex, by which it is
    known again, also in a copy of the store; `aside`: the name under which it is set aside, 16 hex digits.
    """

    manifest: str
    aside: str


@dataclass(frozen=True, slots=True)
class Superseded:
    """The streams that a commit removes once it is in place, in this order, because it has their content. `streams`:
    each file with the SHA-256 of its manifest, as in `Replacement`; `trash`: their folder in the trash, None: they are
    deleted.
    """

    streams: tuple[tuple[PurePosixPath, str], ...]
    trash: str | None


@dataclass(frozen=True, slots=True)
class UploadProgress:
    """How far an upload is. `offset`, `stored`: of the last `durable` line of its journal, None: there is none;
    `committing`: the file that is being put in place.
    """

    offset: int | None
    stored: int
    committing: PurePosixPath | None


@dataclass(frozen=True, slots=True)
class Journal(UploadProgress):
    """The summary of a journal. `whole`: the offset at which its whole lines end; `replacing`: the stream that gives
    way to the commit, None: the name was free; `superseded`: the streams that it removes, None: none.
    """

    whole: int
    replacing: Replacement | None = None
    superseded: Superseded | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """A place at which a partial can be resumed, with everything that resuming needs.

    `offset`, `stored`: raw bytes, and bytes of the data file, before that place; `chunks`: their number; `line`: the
    offset in the journal of the line that ends there, or that contains the place; `part`: the part of that line's batch
    before the place.
    """

    opened: Opened
    offset: int
    stored: int
    chunks: int
    segments: tuple[Segment, ...]
    resumptions: tuple[Resumption, ...]
    walker: WalkerState
    begins: tuple[Begin, ...]
    embedded_spills: tuple[EmbeddedSpill, ...]
    line: int
    part: Batch

    @property
    def may_resume(self) -> bool:
        """Whether the last chunk ended as the rule for chunks says, and not where its sender broke off."""
        last = self.part.chunks[-1].entry
        by_size = last.raw_length == limits.CHUNK_MAX
        by_record = last.raw_length >= limits.CHUNK_MIN and last.ends_at_resume_point
        return by_size or by_record or self.walker.phase is Phase.DONE


# --- lines -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def understanding() -> Iterator[None]:
    """Read the content of lines inside this context. Unknown keys are ignored, so that an upgrade or a downgrade loses
    nothing. Raises: PartialDamaged if a value is missing, or has another form.
    """
    try:
        yield
    except PartialDamaged:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:  # ValidationError is a ValueError
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        msg = f"its journal is not one that this version of fullsendd can read ({type(error).__name__}: {why})"
        raise PartialDamaged(msg) from None


def open_line(opened: Opened) -> bytes:
    """Return the first line."""
    none = set() if opened.merge else {"merge"}  # few have it
    return make_line({"open": opened.model_dump(mode="json", by_alias=True, exclude=none)})


def durable_line(batch: Batch) -> bytes:
    """Return the line for a batch whose data are durable."""
    chunks = [
        [
            written.entry.raw_length,
            written.entry.stored_length,
            written.entry.ends_at_resume_point,
            written.entry.first_key,
            written.entry.starts_segment,
            written.entry.sha256.hex(),
            written.record_start,
        ]
        for written in batch.chunks
    ]
    walker = walker_to_json(batch.walker)
    begins = [begin_to_json(begin) for begin in batch.begins]
    durable = {"offset": batch.offset, "stored": batch.stored, "chunks": chunks, "walker": walker, "begins": begins}
    if batch.embedded_spills:
        durable["embedded_spills"] = [[each.snapshot, each.number, each.at] for each in batch.embedded_spills]
    return make_line({"durable": durable})


def resumed_line(resumption: Resumption) -> bytes:
    """Return the line for a resumption of the stream."""
    return make_line({"resumed": resumption.model_dump(mode="json")})


def commit_line(
    file: PurePosixPath, replacing: Replacement | None = None, superseded: Superseded | None = None
) -> bytes:
    """Return the line after which a restart completes the commit."""
    said: dict[str, Any] = {"file": str(file)}
    if replacing is not None:
        said["replaces"] = {"manifest": replacing.manifest, "aside": replacing.aside}
    if superseded is not None:
        streams = [{"file": str(each), "manifest": manifest} for each, manifest in superseded.streams]
        said["supersedes"] = {"streams": streams, "trash": superseded.trash}
    return make_line({"commit": said})


def make_line(content: dict[str, Any]) -> bytes:
    """Return a line of this content, with its CRC and newline."""
    body = json.dumps(content, separators=(",", ":")).encode()
    return b"%08x %b\n" % (zlib.crc32(body), body)


def lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the whole lines of a journal, each with the offset in the file at which it ends. Raises: OSError;
    PartialDamaged after the last line before one that is not whole, if whole ones follow.
    """
    with path.open("rb") as file:
        yield from whole_lines(file)


def whole_lines(file: Iterable[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield what `lines` does, of a journal's lines as bytes. Raises: as `lines`."""
    end = 0
    rest = iter(file)
    for line in rest:
        if not line.endswith(b"\n"):
            return  # nothing follows, except a line that is being written
        if not _is_whole(line):
            break
        end += len(line)
        yield end, json.loads(line[_BODY:])
    if any(map(_is_whole, rest)):
        msg = f"its journal is not as written from byte {end} on, and whole lines follow"
        raise PartialDamaged(msg)


def _is_whole(line: bytes) -> bool:
    crc, body, newline = line[:_BODY], line[_BODY:-1], line[-1:]
    return newline == b"\n" and crc == b"%08x " % zlib.crc32(body)


# --- reading -----------------------------------------------------------------------------------------------------


def read(path: Path) -> Journal:
    """Return the summary of a journal; of a missing one, an empty summary. Raises: OSError, PartialDamaged."""
    with contextlib.suppress(FileNotFoundError):
        return summary(lines(path))
    return Journal(None, 0, None, 0)


def summary(said: Iterable[tuple[int, dict[str, Any]]]) -> Journal:
    """Return what `read` does, of the lines of a journal. Raises: as `lines`."""
    offset = file = replaces = supersedes = None
    stored = whole = 0
    with understanding():
        for end, line in said:
            if "open" in line:
                _check_format(line["open"])
            if "durable" in line:
                offset, stored = int(line["durable"]["offset"]), int(line["durable"]["stored"])
            file = line.get("commit", {}).get("file", file)
            replaces = line.get("commit", {}).get("replaces", replaces)
            supersedes = line.get("commit", {}).get("supersedes", supersedes)
            whole = end
    with understanding():
        committing = None if file is None else PurePosixPath(file)
        return Journal(offset, stored, committing, whole, _replacement(replaces), _superseded(supersedes))


def read_opened(path: Path) -> Opened | None:
    """Return the content of the first line; None if there is no whole one. Raises: OSError, PartialDamaged."""
    return opened_in(lines(path))


def opened_in(said: Iterable[tuple[int, dict[str, Any]]]) -> Opened | None:
    """Return what `read_opened` does, of the lines of a journal. Raises: as `lines`."""
    with understanding():
        return next((_opened(line["open"]) for _end, line in said if "open" in line), None)


def entries(path: Path) -> Iterator[IndexEntry]:
    """Yield the index entries of all durable chunks, in order. Raises: OSError, PartialDamaged."""
    return entries_in(lines(path))


def entries_in(said: Iterable[tuple[int, dict[str, Any]]]) -> Iterator[IndexEntry]:
    """Yield what `entries` does, of the lines of a journal. Raises: as `lines`."""
    return (written.entry for written in written_in(said))


def written_in(said: Iterable[tuple[int, dict[str, Any]]]) -> Iterator[Written]:
    """Yield the durable chunks in the lines of a journal, in order. Raises: as `lines`."""
    with understanding():
        for _end, line in said:
            for chunk in line.get("durable", {}).get("chunks", ()):
                yield _written(chunk)


def standing(path: Path, *, at_resume_point: bool = False) -> Standing | None:
    """Return the place at which a partial resumes: the end of what is durable. With `at_resume_point` it is the end of
    the last durable chunk that ends with a resumable record and may be followed by another one. None: there is no such
    place, as in a package of several snapshots, which no token resumes. Raises: OSError, PartialDamaged.
    """
    reader = _JournalReader(at_resume_point=at_resume_point)
    _read(lines(path), reader)
    return reader.standing


def standings(path: Path) -> tuple[Standing | None, Standing | None]:
    """Return both results of `standing`, without and with `at_resume_point`; reads the journal once.

    Raises: OSError, PartialDamaged.
    """
    return standings_in(lines(path))


def standings_in(said: Iterable[tuple[int, dict[str, Any]]]) -> tuple[Standing | None, Standing | None]:
    """Return what `standings` does, of the lines of a journal. Raises: as `lines`."""
    end, resumable = _JournalReader(at_resume_point=False), _JournalReader(at_resume_point=True)
    _read(said, end, resumable)
    return end.standing, resumable.standing


def _read(said: Iterable[tuple[int, dict[str, Any]]], *readers: _JournalReader) -> None:
    begun = 0
    with understanding():
        for end, line in said:
            for reader in readers:
                reader.take(begun, line)
            begun = end


class _JournalReader:
    """Reads a journal line by line."""

    def __init__(self, *, at_resume_point: bool) -> None:
        self._found: Standing | None = None
        self._substreams = 0
        self._at_resume_point = at_resume_point
        self._opened: Opened | None = None
        self._offset = self._stored = self._chunks = 0
        self._segments: list[Segment] = []
        self._resumptions: list[Resumption] = []
        self._resumed: Resumption | None = None  # the last one, if nothing has arrived since
        self._begins: list[Begin] = []
        self._spills: list[EmbeddedSpill] = []

    @property
    def standing(self) -> Standing | None:
        """The place at which the partial resumes, as of the lines read."""
        return None if self._at_resume_point and self._substreams > 1 else self._found

    def take(self, at: int, line: dict[str, Any]) -> None:
        """Read a line. `at`: its offset in the journal."""
        if "open" in line:
            self._opened = _opened(line["open"])
        elif "resumed" in line:
            self._resumed = Resumption.model_validate(line["resumed"])
        elif "durable" in line and self._opened is not None:
            self._take_batch(at, self._opened, line["durable"])

    def _take_batch(self, at: int, opened: Opened, durable: dict[str, Any]) -> None:
        if self._resumed is not None:
            self._resumptions.append(self._resumed)
            self._resumed = None
        begins = tuple(begin_from_json(each) for each in durable["begins"])
        self._begins += begins
        self._substreams += sum(not begin.compound for begin in begins)
        spills = tuple(EmbeddedSpill(*each[:3]) for each in durable.get("embedded_spills", ()))
        self._spills += spills
        walker = walker_from_json(durable["offset"], durable["walker"])
        taken: list[Written] = []
        for each in durable["chunks"]:
            written = _written(each)
            taken.append(written)
            self._take_chunk(written.entry)
            # A record that began in an earlier chunk is not whole in this one, and cannot be compared.
            whole = written.record_start >= self._offset - written.entry.raw_length
            # A shorter chunk ends where its sender stopped.
            long = written.entry.raw_length >= limits.CHUNK_MIN
            if self._at_resume_point and written.entry.ends_at_resume_point and whole and long:
                here = WalkerState(self._offset, Phase.SUBSTREAM, resumable=True, record_start=written.record_start)
                before = tuple(each for each in spills if each.at < self._offset)
                self._stand(at, opened, Batch(self._offset, self._stored, tuple(taken), here, begins, before))
        if not self._at_resume_point and taken:
            self._stand(at, opened, Batch(self._offset, self._stored, tuple(taken), walker, begins, spills))

    def _take_chunk(self, entry: IndexEntry) -> None:
        start = self._offset if entry.starts_segment or not self._segments else self._segments.pop().start
        self._offset += entry.raw_length
        self._stored += entry.stored_length
        self._chunks += 1
        self._segments.append(Segment(start=start, end=self._offset, sha256=entry.sha256.hex()))

    def _stand(self, at: int, opened: Opened, part: Batch) -> None:
        self._found = Standing(
            opened=opened,
            offset=self._offset,
            stored=self._stored,
            chunks=self._chunks,
            segments=tuple(self._segments),
            resumptions=tuple(self._resumptions),
            walker=part.walker,
            begins=tuple(self._begins),
            # If the place is inside a batch, some of the batch's spill blocks come later.
            embedded_spills=tuple(each for each in self._spills if each.at < self._offset),
            line=at,
            part=part,
        )


def _opened(line: object) -> Opened:
    _check_format(line)
    return Opened.model_validate(line)


def _check_format(line: object) -> None:
    """Raises: PartialDamaged if a later version wrote it in a format that this one does not understand."""
    written = line.get("format", FORMAT) if isinstance(line, dict) else FORMAT
    if written != FORMAT:
        msg = f"its journal has format {written!r}, and this version of fullsendd reads format {FORMAT}"
        raise PartialDamaged(msg)


def _replacement(said: dict[str, Any] | None) -> Replacement | None:
    if said is None:
        return None
    aside = said["aside"]
    if not (isinstance(aside, str) and _ASIDE.fullmatch(aside)):  # it becomes part of a path
        msg = f"its journal names {aside!r} for what is set aside"
        raise PartialDamaged(msg)
    return Replacement(str(said["manifest"]), aside)


def _superseded(said: dict[str, Any] | None) -> Superseded | None:
    if said is None:
        return None
    trash = said["trash"]
    if trash is not None and (not isinstance(trash, str) or trash in {"", ".", ".."} or "/" in trash):
        msg = f"its journal names {trash!r} as a folder in the trash"
        raise PartialDamaged(msg)
    return Superseded(tuple((PurePosixPath(each["file"]), str(each["manifest"])) for each in said["streams"]), trash)


def _written(chunk: Sequence[Any]) -> Written:
    raw_length, stored_length, resumable, first_key, segment, sha256, record_start, *_later = chunk
    key = None if first_key is None else (int(first_key[0]), int(first_key[1]))
    return Written(IndexEntry(raw_length, stored_length, resumable, key, segment, bytes.fromhex(sha256)), record_start)


def walker_to_json(state: WalkerState) -> dict[str, Any]:
    """Return a walker's state without its offset, for JSON."""
    return {
        "phase": state.phase.value,
        "owed": state.owed,
        "head": _text(state.head),
        "begin": None if state.begin is None else begin_to_json(state.begin),
        "payload": _text(state.payload),
        "resumable": state.resumable,
        "record_start": state.record_start,
    }


def walker_from_json(offset: int, state: dict[str, Any]) -> WalkerState:
    """Return a walker's state at raw offset `offset`. Raises: ValueError, KeyError, TypeError if it is none."""
    return WalkerState(
        offset=offset,
        phase=Phase(state["phase"]),
        owed=state["owed"],
        head=base64.b64decode(state["head"]),
        begin=None if state["begin"] is None else begin_from_json(state["begin"]),
        payload=base64.b64decode(state["payload"]),
        resumable=state["resumable"],
        record_start=state["record_start"],
    )


def begin_to_json(begin: Begin) -> dict[str, Any]:
    """Return a BEGIN record for JSON. The IV sets, which only raw streams have, are left out where there are none."""
    ivsets = {name: getattr(begin, name) for name in _IVSETS if getattr(begin, name) is not None}
    return {
        "compound": begin.compound,
        "name": begin.name,
        "guid": begin.guid,
        "base_guid": begin.base_guid,
        "created": begin.created,
        "features": begin.features,
        "volume": begin.volume,
        "payload": _text(begin.payload),
        **ivsets,
    }


def begin_from_json(fields: dict[str, Any]) -> Begin:
    """Return a BEGIN record from JSON; unknown keys are ignored. Raises: KeyError, TypeError, ValueError."""
    known = {name: fields[name] for name in Begin.__slots__ if name not in {"payload", *_IVSETS}}
    ivsets: dict[str, Any] = {name: fields.get(name) for name in _IVSETS}  # an older fullsendd has written none
    return Begin(**known, **ivsets, payload=base64.b64decode(fields["payload"]))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
