"""Second pass over a stream: the contents of chosen objects. Other objects are passed over without decompression."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fullsend_protocol.stream.records import RecordType

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from fullsend_protocol.dataset.objects import Block, ObjectReader


def read_contents(reader: ObjectReader, wanted: Container[int]) -> Iterator[Block]:
    """Read a whole stream. Yields: the blocks of the wanted objects, by object and offset; the holes between them are
    zeros, and a file's last block may reach past its end. All of it counts only when the stream has ended and is
    proven. Raises: StreamError.
    """
    for kind in reader.records():
        if kind == RecordType.WRITE and reader.number in wanted:
            yield reader.block()
