"""The place of a store in a bucket: s3://BUCKET/PREFIX."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from fullsend_protocol.shared.errors import UsageError

_SCHEME: Final = "s3://"
#: The names of buckets that all object stores know (docs.aws.amazon.com, "General purpose bucket naming rules").
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
#: Keys of these characters mean the same in each dialect.
_PREFIX: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
#: S3 has keys of 1,024 bytes. What is left is enough for the longest name of a stream that we make.
_PREFIX_MAX: Final = 128


@dataclass(frozen=True, slots=True)
class BucketPlace:
    """A bucket, and a prefix of keys in it. `prefix`: without slashes around it, empty: the whole bucket."""

    bucket: str
    prefix: str

    def __str__(self) -> str:  # type: ignore[explicit-override]
        """Return the place as a person writes it."""
        return f"{_SCHEME}{self.bucket}/{self.prefix}".rstrip("/")

    def above(self) -> Iterator[BucketPlace]:
        """Yield the places that have this one in them, the nearest first: the last is the whole bucket."""
        prefix = self.prefix
        while prefix:
            prefix = prefix.rpartition("/")[0]
            yield BucketPlace(self.bucket, prefix)


def is_bucket_place(text: str) -> bool:
    """Whether a text names a place in a bucket, and not a folder."""
    return text.startswith(_SCHEME)


def parse_place(text: str) -> BucketPlace:
    """Read s3://BUCKET/PREFIX. Raises: UsageError."""
    bucket, _slash, prefix = text.removeprefix(_SCHEME).partition("/")
    prefix = prefix.rstrip("/")
    if not _BUCKET.fullmatch(bucket):
        msg = f"{text!r}: {bucket!r} cannot name a bucket: 3 to 63 lower-case letters, digits, dots and hyphens"
        raise UsageError(msg)
    if len(prefix) > _PREFIX_MAX or (prefix and not _PREFIX.fullmatch(prefix)):
        msg = (
            f"{text!r}: {prefix!r} cannot be a prefix: letters, digits, dots, hyphens and underscores between single"
            f" slashes, no dot first, {_PREFIX_MAX} at most"
        )
        raise UsageError(msg)
    return BucketPlace(bucket, prefix)
