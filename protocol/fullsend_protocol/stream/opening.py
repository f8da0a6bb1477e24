"""How a stream begins: all bytes before the first record of its snapshot.

Two streams of one snapshot that begin alike have the same bytes if the snapshot has the same contents. What is before
BEGIN is only in streams with properties (`zfs send -p`): no checksum covers both, so it can be replaced. BEGIN itself
is covered by the running checksum in every record behind it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import DamagedStream, IncompleteStream, NotASendStream
from fullsend_protocol.stream.checksums import CLOSING_END
from fullsend_protocol.stream.records import COMPOUND, HEADER_SIZE, MAGIC, SUBSTREAM, Feature, RecordType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fullsend_protocol.stream.checksums import Piece

_KIND: Final = struct.Struct("<IIQ")  # type, payload length and magic of a BEGIN
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

    Raises: StreamError.
    """
    reader = _Reader(name, pieces)
    package = b""
    head, nvlist = reader.begin()
    if _kind(head) == COMPOUND:
        package = head + nvlist + reader.take(HEADER_SIZE)
        if package[-HEADER_SIZE:][:4] != CLOSING_END[:4]:
            msg = f"{name} begins like a package, without its END: it is damaged"
            raise DamagedStream(msg)
        head, nvlist = reader.begin()
    if _kind(head) != SUBSTREAM:
        msg = f"{name} has the BEGIN record of a package in a wrong place: it is damaged"
        raise DamagedStream(msg)
    return Opening(package, head, nvlist)


def _kind(begin: bytes) -> int:
    return int(_VERSION.unpack_from(begin)[0]) & 3


class _Reader:
    """Reads the first bytes of a stream."""

    def __init__(self, name: str, pieces: Iterable[Piece]) -> None:
        self._name = name
        self._pieces = iter(pieces)
        self._data = bytearray()

    def take(self, count: int) -> bytes:
        """Raises: IncompleteStream."""
        while len(self._data) < count:
            piece = next(self._pieces, None)
            if piece is None:
                msg = f"{self._name} ends before its first record"
                raise IncompleteStream(msg)
            self._data += piece
        taken = bytes(self._data[:count])
        del self._data[:count]
        return taken

    def begin(self) -> tuple[bytes, bytes]:
        """Take a BEGIN record: its header, and its nvlist. Raises: StreamError."""
        head = self.take(HEADER_SIZE)
        kind, size, magic = _KIND.unpack_from(head)
        if kind != RecordType.BEGIN or magic != MAGIC:
            msg = f"{self._name} does not begin with a BEGIN record"
            raise NotASendStream(msg)
        if size > limits.BEGIN_PAYLOAD_MAX:
            msg = f"{self._name} has a BEGIN record with {size} bytes: it is damaged"
            raise DamagedStream(msg)
        return head, self.take(size)
