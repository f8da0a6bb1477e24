"""Second pass over a volume: gives its blocks to what makes the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fullsend_files.image import Image
from fullsend_protocol.dataset.contents import read_contents
from fullsend_protocol.shared.errors import UnsupportedStream

if TYPE_CHECKING:
    from pathlib import Path

    from fullsend_protocol.dataset.entry import VolumeMaker
    from fullsend_receiver.files.index import FileIndex
    from fullsend_receiver.files.sources import SnapshotSource

#: ZVOL_OBJ (include/sys/zvol_impl.h): the object that has the blocks.
_DATA: Final = frozenset({1})


def size_of_volume(index: FileIndex) -> int:
    """Return the size of a volume in bytes. Raises: UnsupportedStream if it is none."""
    if index.volume_size is None:
        msg = f"{index.name} is a file system, not a volume: leave out --volume, and name paths"
        raise UnsupportedStream(msg)
    return index.volume_size


def deliver_volume(source: SnapshotSource, index: FileIndex, to: VolumeMaker) -> int:
    """Give all blocks. Returns: the size in bytes. Raises: UnsupportedStream; StreamError, OSError if the stream is not
    proven: then nothing given counts.
    """
    size = size_of_volume(index)
    to.volume(size)
    with source.opened() as reader:
        for block in read_contents(reader, _DATA):
            to.data(block.offset, memoryview(block.data)[: max(size - block.offset, 0)])
    return size


def write_image(source: SnapshotSource, index: FileIndex, path: Path) -> int:
    """Write a new file with a volume's bytes. It gets its name when the stream is proven, and is durable then.

    Returns: its size in bytes. Raises: OutputExists, OutputFailed, StreamError, OSError of the stream's files: then
    there is no file of that name.
    """
    size_of_volume(index)
    image = Image(path)
    try:
        size = deliver_volume(source, index, image)
    except BaseException:
        image.discard()
        raise
    image.publish()
    return size
