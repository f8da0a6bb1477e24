"""The substreams of a package (`zfs send -R`, `-I`): which there are, and one of them as a stream of its own.

    SubstreamFinder     the bytes of a stream -> its substreams
    cut_out             the same bytes -> those of one substream

In a package, each substream has the form of a stream: BEGIN, records, END (libzfs_sendrecv.c, dump_filesystem).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fullsend_protocol.stream import nvlist
from fullsend_protocol.stream.records import HEADER_SIZE, Begin, RecordType, Walker, payload_length

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fullsend_protocol.stream.checksums import Piece

_BEGIN, _END = int(RecordType.BEGIN), int(RecordType.END)


@dataclass(frozen=True, slots=True)
class Substream:
    """One substream. `start`, `end`: raw offsets of its first byte, and of the one behind its last."""

    begin: Begin
    start: int
    end: int


class SubstreamFinder:
    """Finds the substreams of a stream, from its first byte. A stream that is not a package has one: itself."""

    def __init__(self) -> None:
        """Start before the first record."""
        self._walker = Walker()
        self._offset = 0  # raw, of what comes next
        self._head = b""
        self._owed = 0
        self._starts: list[int] = []  # of BEGIN records
        self._ends: list[int] = []  # behind END records

    def feed(self, data: Piece) -> None:
        """Take the next bytes. Raises: as Walker.walk."""
        stop = len(data)
        at = 0
        while at < stop:  # it refuses impossible lengths, before they count here
            at = self._walker.walk(data, at, stop, 1 << 64)
        at = 0
        while at < stop:
            if self._owed:
                count = min(self._owed, stop - at)
                self._owed -= count
                at += count
            elif self._head or stop - at < HEADER_SIZE:
                part = bytes(data[at : at + HEADER_SIZE - len(self._head)])
                self._head += part
                at += len(part)
                if len(self._head) == HEADER_SIZE:
                    self._take(self._head, 0, self._offset + at - HEADER_SIZE)
                    self._head = b""
            else:
                self._take(data, at, self._offset + at)
                at += HEADER_SIZE
        self._offset += stop

    def _take(self, data: Piece, at: int, offset: int) -> None:
        self._owed = payload_length(data, at) or 0
        kind = data[at]
        if kind == _BEGIN:
            self._starts.append(offset)
        elif kind == _END:
            self._ends.append(offset + HEADER_SIZE)

    @property
    def name(self) -> str:
        """DATASET@SNAPSHOT after which the stream is named, once it has begun."""
        return self._walker.begins[0].name

    def finish(self) -> tuple[Substream, ...]:
        """Return the substreams, in order. Raises: as Walker.finish."""
        self._walker.finish()
        # The first BEGIN and END of a package are around its nvlist; its last END belongs to no BEGIN.
        first = 1 if self._walker.begins[0].compound else 0
        triples = zip(self._walker.begins[first:], self._starts[first:], self._ends[first:], strict=False)
        return tuple(Substream(*each) for each in triples)


def cut_out(pieces: Iterable[Piece], substream: Substream) -> Iterator[Piece]:
    """Yield the bytes of a substream. `pieces`: the raw bytes of the stream around it, from its first to its last; all
    are read, since what proves them is at their end.
    """
    offset = 0
    for piece in pieces:
        part = piece[max(0, substream.start - offset) : max(0, substream.end - offset)]
        offset += len(piece)
        if len(part):
            yield part


def snapshots_named(package: bytes) -> int | None:
    """Return how many snapshots the nvlist of a package names; None if it has none that says so (a plain `-I`).

    Raises: DamagedStream.
    """
    systems = nvlist.decode(package).get("fss")
    if not isinstance(systems, dict):
        return None
    count = 0
    for each in systems.values():
        snaps = each.get("snaps") if isinstance(each, dict) else None
        count += len(snaps) if isinstance(snaps, dict) else 0
    return count
