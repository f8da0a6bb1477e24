"""What can go wrong with a store, whatever holds it."""

from __future__ import annotations

import errno
from typing import Final

from fullsend_protocol.shared.errors import ErrorCode, FullsendError

#: errno values with which the disk answers that no file has this name.
_ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENAMETOOLONG})


def is_read_error(error: OSError) -> bool:
    """Whether an error of the disk, or a shortage on this host, prevented reading. It says nothing about the file: EIO,
    EMFILE, ENOMEM, ETIMEDOUT, ESTALE and others. False: no file has this name.
    """
    return error.errno not in _ABSENT


class StoreError(FullsendError):
    """The store is missing, not mounted, read-only, full, or unfit."""

    code = ErrorCode.STORE


class StoreFull(StoreError):  # noqa: N818 - reads as an adjective
    """The store has no room even for a file name."""

    code = ErrorCode.SPACE


class PartialDamaged(StoreError):  # noqa: N818 - reads as an adjective
    """A disk has lost durable data of a partial."""


class ManifestError(StoreError):
    """A manifest cannot be read, or belongs to another place."""

    def __init__(self, path: str, what: str, *, unread: OSError | None = None) -> None:
        """`path`: of the manifest, relative to the store; `what`: the rest of the error message; `unread`: why it could
        not be read, None: its content is wrong.
        """
        super().__init__(f"{path}: {what}")
        self.path = path
        self.what = what
        self.unread = unread
