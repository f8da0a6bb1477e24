"""What the store needs of a bucket, the same for every client of one. Keys are relative to the store's prefix.

Two calls are conditional: `put` with `if_absent` or `if_match`. All that must not happen twice is done by one of these.
No call deletes on a condition: some stores ignore it. So a key that may be deleted late is never used again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fullsend_protocol.shared.errors import ErrorCode
from fullsend_receiver.store.errors import StoreFull, StoreUnreadable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class BucketError(StoreUnreadable):
    """The object store has refused a request, or cannot be reached; the message is one line for a person."""


class BucketBusy(BucketError):  # noqa: N818 - reads as an adjective
    """The object store is overloaded, fails, or cannot be reached: that may pass, so a sender tries again."""

    code = ErrorCode.LIMIT


class BucketFull(BucketError, StoreFull):  # noqa: N818 - reads as an adjective
    """The object store has no room, or the bucket's quota is used up: what is stored can still be read."""


class BucketUnusable(BucketError, OSError):  # noqa: N818 - reads as an adjective
    """The same where the interface of a store promises an OSError; `code` is that of the reason."""


@dataclass(frozen=True, slots=True)
class BucketObject:
    """An object. `etag`: without quotes; `modified`: seconds since the epoch, by the object store's clock."""

    key: str
    size: int
    etag: str
    modified: float


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """A version of an object that a bucket keeps. `version`: its id; `is_latest`: it is the object now; `is_marker`: it
    has no bytes, and says that the object was deleted; `size`, `modified`: as in `BucketObject`.
    """

    key: str
    version: str
    size: int
    modified: float
    is_latest: bool
    is_marker: bool


@dataclass(frozen=True, slots=True)
class LockRule:
    """The Object Lock of a bucket. `mode`: of its default retention, empty: it has none; `seconds`: how long that is;
    `readable`: False: the rights do not suffice to read it, so there may be one.
    """

    mode: str = ""
    seconds: float = 0.0
    readable: bool = True


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

    def delete(self, key: str) -> bool:
        """Delete an object; does nothing if there is none. Returns: whether the bucket keeps versions of it."""

    def versions(self, prefix: str) -> Iterator[ObjectVersion]:
        """Yield the versions of the objects whose keys begin with `prefix`: in the order of keys, the newest first."""

    def delete_version(self, key: str, version: str) -> bool:
        """Delete a version for good. Returns: False if a lock, or the rights, keep it."""

    def versioning(self) -> str:
        """Return whether it keeps what is overwritten: "Enabled", "Suspended", or "" for never."""

    def object_lock(self) -> LockRule | None:
        """Return its Object Lock; None: it has none."""

    def locked_until(self, key: str) -> float | None:
        """Return until when an object cannot be deleted for good, in seconds since the epoch; `math.inf`: until
        somebody ends its legal hold; None: it is not locked, or not there. Ask only if there is an `object_lock`.

        Raises: BucketError, also if the rights do not suffice to know it.
        """

    def entries(self, prefix: str) -> Iterator[BucketObject]:
        """Yield the objects whose keys begin with `prefix`, in the order of their keys' bytes."""

    def folders(self) -> list[str]:
        """Return what stands before the first "/" of any key, each once, in order."""

    def begin_parts(self, key: str) -> str:
        """Begin a multipart upload. Returns: its id."""

    def was_repeated(self, upload: str) -> bool:
        """Whether the request that has begun an upload was repeated: an attempt whose answer was lost may have begun
        another one of its key, which nothing names. Asked once, of the process that has begun it.
        """

    def put_part(self, key: str, upload: str, number: int, data: bytes) -> Part | None:
        """Store a part. One of the same number is replaced. Returns: None if there is no such upload."""

    def copy_part(self, key: str, upload: str, number: int, source: BucketObject) -> Part | None:
        """Store a copy of an object as a part, within the object store. One of the same number is replaced. The key of
        `source` has letters, digits, dots and hyphens alone: some stores do not find others.

        Returns: None if there is no such object, or upload.
        """

    def parts(self, key: str, upload: str) -> Sequence[Part] | None:
        """Return the stored parts, in order; None: there is no such upload."""

    def complete(self, key: str, upload: str, parts: Sequence[Part]) -> bool:
        """Make an object of all the parts of an upload. Returns: False if these are not its parts, or it has ended."""

    def abort(self, key: str, upload: str) -> None:
        """Abort a multipart upload; does nothing if there is none."""

    def unfinished(self, prefix: str) -> Iterator[UnfinishedUpload]:
        """Yield the multipart uploads whose keys begin with `prefix`."""
