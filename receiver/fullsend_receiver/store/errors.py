"""What can go wrong with a store, whatever holds it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from fullsend_protocol.shared.errors import ErrorCode, FullsendError, reason
from fullsend_receiver.store.durable import FULL
from fullsend_receiver.store.mounts import is_read_only_here

#: errno values of a disk that fails, or of a file system that has found itself damaged.
_FAILS: Final = frozenset(
    {errno.EIO, errno.EREMOTEIO, errno.ENXIO, errno.EBADMSG, errno.EUCLEAN, errno.ENODATA, errno.ETIMEDOUT}
)
#: errno values of a disk that is away: unplugged, or behind a network.
_GONE: Final = frozenset({errno.ESTALE, errno.ENODEV, errno.ENOTCONN, errno.ESHUTDOWN, errno.ENOMEDIUM})

#: What EROFS means.
_READ_ONLY: Final = "the store's disk is mounted read-only"

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


class StreamTooLarge(StoreError):  # noqa: N818 - reads as what it says
    """A stream has, or would have, more bytes than this store holds of one."""

    code = ErrorCode.SPACE


class StoreReadOnly(StoreError):  # noqa: N818 - reads as an adjective
    """The store's file system is mounted read-only: it can be read, and nothing can be stored."""


class StoreMissing(StoreError):  # noqa: N818 - reads as an adjective
    """The store's folder does not have the store: its disk is not mounted, or another one is."""


class StoreUnreadable(StoreError):  # noqa: N818 - reads as an adjective
    """The store's place cannot be asked at the moment, or refuses. It says nothing of what is stored there."""


class PartialDamaged(StoreError):  # noqa: N818 - reads as an adjective
    """A disk has lost or changed durable data of a partial: it is set aside, and its stream starts over."""

    code = ErrorCode.PARTIAL


class ManifestError(StoreError):
    """A manifest cannot be read, or belongs to another place."""

    def __init__(self, path: str, what: str, *, unread: OSError | None = None, spoilt: bool = False) -> None:
        """`path`: of the manifest, relative to the store; `what`: the rest of the error message; `unread`: why it could
        not be read, None: its content is wrong; `spoilt`: no version of fullsendd has written that content.
        """
        super().__init__(f"{path}: {what}")
        self.path = path
        self.what = what
        self.unread = unread
        self.spoilt = spoilt


def disk_error(error: OSError) -> StoreError:
    """Return what an error of the store's disk means, in one line for a person: the reason, and what to do. That of an
    object store says so itself.
    """
    if isinstance(error, StoreError):
        return error
    why = reason(error)
    at = f", {error.filename}" if error.filename is not None else ""
    if error.errno in FULL:
        return StoreFull(f"the store is full ({why}): free space on the receiver")
    if error.errno == errno.EROFS:
        return StoreReadOnly(f"{_READ_ONLY}: see the kernel's log, and remount it")
    if error.errno in _FAILS:
        return StoreError(f"the store's disk fails ({why}{at}): see the kernel's log on the receiver")
    if error.errno in _GONE:
        return StoreMissing(f"the store's disk is gone ({why}{at}): connect and mount it again")
    if error.errno in {errno.EACCES, errno.EPERM}:
        return StoreError(f"the store refuses uid {os.geteuid()} ({why}{at}): its owner must own all of its files")
    return StoreError(f"the store cannot be used ({why}{at})")


def folder_error(error: OSError, folder: Path) -> StoreError:
    """Return the same for a folder that this process must be able to write to. It may be the process alone that cannot:
    fullsendd.service sees all folders read-only, except for those that its unit names.
    """
    if error.errno == errno.EROFS and is_read_only_here(folder):
        return StoreReadOnly(
            f"{_READ_ONLY}: for this process alone, not for others: if this is fullsendd.service, set"
            f" ReadWritePaths={folder} by `systemctl edit fullsendd`, and restart it"
        )
    return disk_error(error)
