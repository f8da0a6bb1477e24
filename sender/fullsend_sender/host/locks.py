"""One run at a time for each dataset and receiver: a lock that ends with the process in any case.

There is one file for each receiver. In it each dataset has one byte, at the offset that is the dataset's own GUID: its
name may change while a push runs. So one descriptor serves thousands of datasets.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared.errors import ErrorCode, FullsendError, UsageError
from fullsend_protocol.shared.exit_codes import Exit

if TYPE_CHECKING:
    from collections.abc import Iterator

#: File offsets have 63 bits. If two GUIDs differ in the highest bits alone, one dataset waits; no backup is lost.
_OFFSETS: Final = (1 << 62) - 1


class AlreadyRunning(FullsendError):  # noqa: N818 - reads as what it says
    """Another process pushes the same dataset to the same receiver."""

    code = ErrorCode.BUSY
    exit_code = Exit.RUNNING


class Locks:
    """The locks of one run. Made by `locks`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def take(self, guid: str) -> bool:
        """Take a dataset's lock, by its GUID; it is held until the block ends. Returns: whether it was free."""
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(guid) & _OFFSETS)
        except OSError:
            return False
        return True

    def wait_for(self, guid: str, *, shared: bool) -> None:
        """Take a lock, alone or shared with others, as soon as that is possible. Raises: OSError."""
        how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.lockf(self._descriptor, how, 1, int(guid) & _OFFSETS)

    def is_free(self, guid: str) -> bool:
        """Whether no other process has a lock, alone or shared."""
        free = self.take(guid)
        if free:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, int(guid) & _OFFSETS)
        return free


@contextlib.contextmanager
def locks(receiver: str, folder: str | None = None) -> Iterator[Locks]:
    """Open the locks for one receiver. `folder`: of the file; None: see `default_folder`. Raises: UsageError."""
    folder = folder or default_folder()
    path = os.path.join(folder, f"{receiver}.lock")
    try:
        private_folder(folder)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise UsageError(f"{path}: cannot be opened: {error.strerror}") from None
    try:
        yield Locks(descriptor)
    finally:
        os.close(descriptor)


def private_folder(folder: str) -> None:
    """Make a folder that other users cannot enter, if it is missing. Raises: OSError; UsageError if it is another
    user's, who may have created it first in /tmp.
    """
    os.makedirs(folder, mode=0o700, exist_ok=True)
    if os.stat(folder).st_uid != os.geteuid():
        raise UsageError(f"{folder}: belongs to another user: have it removed")


def default_folder() -> str:
    """Return the folder for files that need not survive a reboot: root's, or the user's own.

    It is the same for all of a user's processes. XDG_RUNTIME_DIR and TMPDIR are set in a session and not under cron, so
    two runs could use different lock files.
    """
    # Another user may create it first in /tmp: `locks` refuses a folder of another user.
    return "/run/fullsend" if os.geteuid() == 0 else f"/tmp/fullsend-{os.geteuid()}"  # noqa: S108 - see above
