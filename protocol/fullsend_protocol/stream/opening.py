"""How a stream begins: all bytes before the first record of its snapshot.

Two streams of one snapshot that begin alike have the same bytes if the snapshot has the same contents. What is before
BEGIN is only in streams with properties (`zfs send -p`): no checksum covers both, so it can be replaced. BEGIN itself
is covered by the running checksum in every record behind it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fullsend_protocol.stream.record_reader import RecordReader
from fullsend_protocol.stream.records import Feature

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fullsend_protocol.stream.checksums import Piece

_VERSION: Final = struct.Struct("<16xQ")  # versioninfo of a BEGIN
_NAME: Final = slice(56, 312)  # toname of a BEGIN


@dataclass(frozen=True, slots=True)
class Opening:
    """The beginning of a stream. `package`: what `zfs send -p` puts before BEGIN, b"": nothing; `begin`: the header of
    BEGIN; `nvlist`: its payload, such as the keys of a raw stream.
    """

    package: bytes
    begin: bytes
    nvlist: bytes

    def __bytes__(self) -> bytes:
        """Return the raw bytes."""
        return self.package + self.begin + self.nvlist

    @property
    def name(self) -> str:
        """DATASET@SNAPSHOT, as the stream names it."""
        return self.begin[_NAME].partition(b"\0")[0].decode(errors="replace")

    @property
    def features(self) -> int:
        """The features of the stream: see `Feature`."""
        return int(_VERSION.unpack_from(self.begin)[0]) >> 2

    def obstacle(self, now: Opening, *, whole: bool) -> str | None:
        """Return why a stream of the same snapshot that begins with `now` has other bytes than this older one, though
        nothing is wrong with either; None: there is no such reason. `whole`: `now` is a full, and this need not be.
        """
        if bool(self.package) != bool(now.package):
            return "one of both has properties (-p)"
        if self.name != now.name:
            return f"it was sent as {self.name}, which is {now.name} now"
        other = self.features ^ now.features
        if other:
            names = [Feature(bit).name if bit in _KNOWN else f"bit {bit}" for bit in range(62) if other >> bit & 1]
            return f"this host sends it with other features now ({', '.join(names)}): its pool has changed"
        if not whole and self.nvlist != now.nvlist:
            return "its keys have been changed since (`zfs change-key`)"
        return None


_KNOWN: Final = frozenset(Feature)


def opening_of(name: str, pieces: Iterable[Piece]) -> Opening:
    """Read the beginning of a stream, and at most the piece in which it ends. `name`: of the stream, for errors.

    Raises: StreamError, UnsupportedStream also for streams that are not one snapshot by themselves.
    """
    reader = RecordReader(name, pieces)
    package = reader.package
    before = b"" if package is None else package.head + package.nvlist + package.end
    return Opening(before, reader.begin.head, reader.begin.payload)
