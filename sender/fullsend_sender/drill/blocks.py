"""A checksum of a snapshot's contents, from what `zfs send` gives of it: for volumes, and for what cannot be mounted.

It covers each object, its bonus buffer, its spill block and all its blocks; of a raw stream (-w) the encrypted bytes,
with what is needed to decrypt them. It does not cover the dataset's name and properties, and records that free what is
free already. So it is the same for a snapshot and for its restored copy.
"""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING, Final

from fullsend_protocol.stream.record_reader import INFINITY, RecordReader
from fullsend_protocol.stream.records import Feature, RecordType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fullsend_sender.transfer.pipes import Source

#: Bytes that are read at a time.
_PIECE: Final = 1 << 20
_KIND: Final = struct.Struct("<I")
#: By type of record: the parts of its header that are contents (include/sys/zfs_ioctl.h), without those of a raw one.
_PLAIN: Final[dict[int, tuple[slice, ...]]] = {
    # object, type, bonus type; length of the bonus buffer
    RecordType.OBJECT: (slice(8, 24), slice(28, 32)),
    # object, type; offset, length
    RecordType.WRITE: (slice(8, 20), slice(24, 40)),
    # object, offset, length; kind of compression, and sizes
    RecordType.WRITE_EMBEDDED: (slice(8, 32), slice(40, 56)),
    # object, length
    RecordType.SPILL: (slice(8, 24),),
}
#: ... and what a raw record has beside it: compression, size, salt, IV and MAC.
_RAW: Final[dict[int, tuple[slice, ...]]] = {
    RecordType.WRITE: (slice(50, 51), slice(96, 140)),
    RecordType.SPILL: (slice(33, 34), slice(40, 84)),
    # first object, number; salt, IV, MAC
    RecordType.OBJECT_RANGE: (slice(8, 24), slice(32, 68)),
}
_ZEROS: Final = bytes(_PIECE)


def contents(source: Source, progress: Callable[[int], None]) -> str:
    """Read what `zfs send` gives, to its end. Blocks. `progress`: is called with the number of read bytes.

    Returns: the SHA-256 of the contents, in hex. Raises: StreamError, OSError, PipeStopped.
    """
    view = memoryview(bytearray(_PIECE))

    def pieces() -> Iterator[bytes]:
        while count := source.readinto(view):
            progress(count)
            yield bytes(view[:count])

    reader = RecordReader("the output of `zfs send`", pieces())
    raw = reader.begin.has(Feature.RAW)
    digest = hashlib.sha256()
    reader.next()
    while reader.number != INFINITY:
        parts = (*_PLAIN.get(reader.kind, ()), *(_RAW.get(reader.kind, ()) if raw else ()))
        if parts:
            payload = [bytes(part) for part in reader.payload()]
            # What is not encrypted may have zeros as a block, or as a hole.
            if raw or reader.kind != RecordType.WRITE or any(map(_has_data, payload)):
                digest.update(_KIND.pack(reader.kind))
                for part in (*(reader.head[each] for each in parts), *payload):
                    digest.update(part)
        reader.next()
    reader.finish()
    return digest.hexdigest()


def _has_data(part: bytes) -> bool:
    return part != _ZEROS[: len(part)]
