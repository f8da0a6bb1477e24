"""How a stream in a bucket is divided into parts, and segments, and how much of one a bucket holds.

The object of a stream is one multipart upload. Its first parts are what arrives. Those behind them, in a large stream,
are **segments**: objects of their own while the stream arrives. The object store copies each into the upload, as one
part. So a stream may have as many bytes as S3 allows, and what waits for a part still fits into memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fullsend_protocol.shared import limits

_GIB: Final = 1024 * limits.MIB
_TIB: Final = 1024 * _GIB

#: The parts of a multipart upload ("Amazon S3 multipart upload limits", docs.aws.amazon.com/AmazonS3).
PARTS_MAX: Final = 10_000
#: Bytes that one UploadPartCopy copies: those of a part, at most (the same table).
COPY_MOST: Final = 5 * _GIB
#: Bytes of an object. That of AWS is larger since December 2025; other object stores, and older ones, have this one.
OBJECT_MOST: Final = 5 * _TIB


@dataclass(frozen=True, slots=True)
class PartSizes:
    """The sizes of parts and segments, in bytes of the stored stream.

    `object_most`: a stream has no more; `parts_most`: numbers of parts in an upload; `direct`: parts of the object that
    are no segments; `least`: of a part; every `grows_after` parts the next ones grow by that, up to `most`; `segment`:
    of a segment, at least.
    """

    object_most: int = OBJECT_MOST
    parts_most: int = PARTS_MAX
    #: 359 GiB and more. Fewer would make more streams pay for copies; with more of them a segment would be so large
    #: that its copy, for which the sender waits, takes minutes.
    direct: int = 7500
    #: S3 allows 5 MiB, except for the last part.
    least: int = 8 * limits.MIB
    grows_after: int = 500
    most: int = 64 * limits.MIB
    #: So that those behind `direct` parts have OBJECT_MOST bytes: 2,499 of them. One number is left for the tables.
    segment: int = 2100 * limits.MIB

    def part(self, parts: int) -> int:
        """Return the bytes that make a part, if the object has so many parts already."""
        return min(self.most, self.least * (1 + parts // self.grows_after))

    @property
    def without_segments(self) -> int:
        """The bytes of a stream that always fit where the object store cannot copy."""
        return sum(map(self.part, range(self.parts_most - 1)))
