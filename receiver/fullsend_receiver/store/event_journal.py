"""The event journal: what has happened, one JSON line an event (docs/events.md), for hooks and other programs.

.state/events/NNNNNNNNNN.jsonl   segments, the newest with the highest number
.state/events/lock               held by a process while it appends
.state/events/trial              for a moment: whether anything can be written here

Any number of processes append; the lines of one `append` are durable when it returns. A reader keeps its place. A
segment is never changed except at its end, and the oldest ones are deleted, so that all of them together are bounded.
After a crash the last line may be torn: it ends with the next newline, and no reader takes it for an event.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from fullsend_receiver.store.durable import FULL, append_lines, locked, size_of, sync_folder, write_file
from fullsend_receiver.store.errors import StoreFull

#: Bytes of a segment after which the next one begins.
SEGMENT_MAX: Final = 4 << 20
#: Segments that stay: 16 MiB are some 40,000 events.
SEGMENTS_KEPT: Final = 4
#: Bytes that are read at once. No line is longer: names have up to 4 KiB, and a merge has at most some hundred inputs.
_READ_MAX: Final = 1 << 20
#: Bytes of a trial: a block, so that it needs room that no file has yet.
_TRIAL: Final = 4096
_SUFFIX: Final = ".jsonl"
_DIGITS: Final = 10


class EventPlace(NamedTuple):
    """A place between two lines. `segment`: its number, 0: before the first; `offset`: in bytes."""

    segment: int
    offset: int

    @property
    def id(self) -> str:
        """The name of the event that ends here: no other event of this store has it."""
        return f"{self.segment}-{self.offset}"


@dataclass(frozen=True, slots=True)
class Read:
    """What was read. `events`: each with the place behind it, what is not JSON is left out; `end`: where to read next;
    `lost`: whether events before these were deleted, or lost by the disk, unread.
    """

    events: list[tuple[EventPlace, dict[str, Any]]]
    end: EventPlace
    lost: bool = False


@dataclass(frozen=True, slots=True)
class EventJournal:
    """The event journal in a folder, which is made by the first append; the folder above it must exist. All methods
    block, and raise OSError.
    """

    folder: Path
    segment_max: int = SEGMENT_MAX
    kept: int = SEGMENTS_KEPT

    def append(self, lines: Iterable[bytes]) -> None:
        """Append whole lines, each with its newline, durably. Raises: OSError; some of them may be there then."""
        data = b"".join(lines)
        self._make_folder()
        with locked(self.folder / "lock"):
            numbers = self._numbers()
            newest = numbers[-1] if numbers else 1
            if numbers and size_of(self._path(newest)) >= self.segment_max:
                newest += 1
            append_lines(self._path(newest), data)
            if newest not in numbers:
                sync_folder(self.folder)
                for number in numbers[: -(self.kept - 1) or None]:
                    self._path(number).unlink(missing_ok=True)

    def check_writable(self) -> None:
        """Check that events can be appended: write a block beside the segments, durably, and remove it. What a file
        system tells of its free room leaves out the quota of a user or a project.

        Raises: StoreFull if there is no room for it; OSError.
        """
        self._make_folder()
        trial = self.folder / "trial"
        try:
            write_file(trial, os.urandom(_TRIAL))  # of other bytes, one that compresses would store nothing
        except OSError as error:
            if error.errno in FULL:
                msg = f"{self.folder}: is full ({error.strerror}): free some space there, or raise the quota"
                raise StoreFull(msg) from None
            raise
        finally:
            with contextlib.suppress(OSError):  # on a lost disk; that must not hide the first error
                trial.unlink(missing_ok=True)

    def _make_folder(self) -> None:
        if not self.folder.is_dir():
            self.folder.mkdir(mode=0o700, exist_ok=True)
            sync_folder(self.folder.parent)

    def end(self) -> EventPlace:
        """Return the place behind all that was appended."""
        if not self.folder.is_dir():
            return EventPlace(0, 0)
        with locked(self.folder / "lock"):
            numbers = self._numbers()
            return EventPlace(numbers[-1], size_of(self._path(numbers[-1]))) if numbers else EventPlace(0, 0)

    def read(self, place: EventPlace) -> Read:
        """Read what follows a place: about a megabyte at most, none if nothing follows. What it returns is durable."""
        lost = False
        while True:
            numbers = self._numbers()
            if not numbers:
                return Read([], EventPlace(0, 0) if place.segment else place, lost=lost or place.segment > 0)
            if place.segment > numbers[-1]:  # of a newer copy of this store
                return Read([], EventPlace(numbers[-1], size_of(self._path(numbers[-1]))), lost=True)
            if place.segment not in numbers:
                later = next(number for number in numbers if number > place.segment)
                lost = lost or place.segment > 0 or later > 1
                place = EventPlace(later, 0)
            try:
                data, size = self._bytes(place)
            except FileNotFoundError:  # it was deleted at this moment
                continue
            if place.offset > size:  # the disk has lost its end
                place, lost = EventPlace(place.segment, size), True
                continue
            whole = data.rpartition(b"\n")[0]
            if whole or data.startswith(b"\n") or len(data) == _READ_MAX:
                taken = len(whole) + 1 if data.find(b"\n") >= 0 else len(data)
                return Read(_events(place, data[:taken]), EventPlace(place.segment, place.offset + taken), lost)
            if place.segment == numbers[-1]:
                return Read([], place, lost)
            # There was a later segment before this one was read: nothing is added to this one.
            place = EventPlace(next(number for number in numbers if number > place.segment), 0)

    def _bytes(self, place: EventPlace) -> tuple[bytes, int]:
        """Read from a place on. Returns: the bytes, and the size of the segment."""
        descriptor = os.open(self._path(place.segment), os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.pread(descriptor, _READ_MAX, place.offset)
            if data:
                # Another process may have written it, and not be done: the reader's place must not be durable first.
                os.fdatasync(descriptor)
            return data, os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    def _numbers(self) -> list[int]:
        """Return the numbers of the segments, in order; none if the folder is missing."""
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        stems = [name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)]
        return sorted(int(stem) for stem in stems if stem.isascii() and stem.isdigit() and len(stem) == _DIGITS)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:0{_DIGITS}}{_SUFFIX}"


def _events(place: EventPlace, data: bytes) -> list[tuple[EventPlace, dict[str, Any]]]:
    found = []
    at = place.offset
    for line in data.splitlines(keepends=True):
        at += len(line)
        try:
            said = json.loads(line)
        except ValueError:  # a torn line, or an empty one
            continue
        if isinstance(said, dict) and isinstance(said.get("event"), str):
            found.append((EventPlace(place.segment, at), said))
    return found
