"""What the store needs of a bucket, the same for every client of one. Keys are relative to the store's prefix.

Two calls are conditional: `put` with `if_absent` or `if_match`. All that must not happen twice is done by one of these.
No call deletes on a condition: some stores ignore it. So a key that may be deleted late is never used again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fullsend_protocol.shared.errors import ErrorCode
from fullsend_receiver.store.errors import StoreUnreadable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class BucketError(StoreUnreadable):
    """The object store has refused a request, or cannot be reached; the message is one line for a person."""


class BucketBusy(BucketError):  # noqa: N818 - reads as an adjective
    """The object store is overloaded, fails, or cannot be reached: that may pass, so a sender tries again."""

    code = ErrorCode.LIMIT


@dataclass(frozen=True, slots=True)
class BucketObject:
    """An object. `etag`: without quotes; `modified`: seconds since the epoch, by the object store's clock."""

    key: str
    size: int
    etag: str
    modified: float


@dataclass(frozen=True, slots=True)
class Fetched:
    """The content of an object. `etag`: as in `BucketObject`."""

    data: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a multipart upload that is stored. `number`: from 1; `sha256`: of its bytes, in hex."""

    number: int
    etag: str
    size: int
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class UnfinishedUpload:
    """A multipart upload that is neither complete nor aborted. `begun`: seconds since the epoch."""

    key: str
    upload: str
    begun: float


class Bucket(Protocol):
    """A bucket, below a prefix. Thread-safe. All methods block, and raise BucketError."""

    @property
    def where(self) -> str:
        """Its place, for messages."""

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str | None:
        """Store an object. `if_absent`: only if the key is free; `if_match`: only in place of the object of this ETag.

        Returns: its ETag; None if the condition was not met. An answer that was lost changes nothing of this.
        """

    def get(self, key: str) -> Fetched | None:
        """Return an object; None: there is none."""

    def read(self, key: str, start: int, size: int) -> bytes:
        """Return bytes of an object, at most `size`, which is not 0; fewer at its end. Raises: FileNotFoundError."""

    def head(self, key: str) -> BucketObject | None:
        """Return what an object is; None: there is none."""

    def delete(self, key: str) -> None:
        """Delete an object; does nothing if there is none."""

    def entries(self, prefix: str) -> Iterator[BucketObject]:
        """Yield the objects whose keys begin with `prefix`, in the order of their keys' bytes."""

    def folders(self) -> list[str]:
        """Return what stands before the first "/" of any key, each once, in order."""

    def begin_parts(self, key: str) -> str:
        """Begin a multipart upload. Returns: its id."""

    def put_part(self, key: str, upload: str, number: int, data: bytes) -> Part:
        """Store a part. One of the same number is replaced."""

    def parts(self, key: str, upload: str) -> Sequence[Part] | None:
        """Return the stored parts, in order; None: there is no such upload."""

    def complete(self, key: str, upload: str, parts: Sequence[Part]) -> bool:
        """Make an object of all the parts of an upload. Returns: False if these are not its parts, or it has ended."""

    def abort(self, key: str, upload: str) -> None:
        """Abort a multipart upload; does nothing if there is none."""

    def unfinished(self, prefix: str) -> Iterator[UnfinishedUpload]:
        """Yield the multipart uploads whose keys begin with `prefix`."""
