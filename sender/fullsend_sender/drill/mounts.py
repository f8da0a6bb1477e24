"""Mounts snapshots where nobody else sees them: in a mount namespace that one thread has for itself.

When the thread ends, however it ends, the kernel unmounts what is left: a killed drill leaves no mount. This needs
Linux and root.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import tempfile
from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared.errors import FullsendError, reason
from fullsend_protocol.shared.units import printable
from fullsend_sender.host.locks import default_folder
from fullsend_sender.zfs.commands import search_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: sched.h, sys/mount.h of Linux.
_CLONE_NEWNS: Final = 0x20000
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 0x40000
_MNT_DETACH: Final = 2
#: Seconds that a mount may take: a pool on slow disks replays nothing for a snapshot, but reads some blocks.
_MOUNT_WITHIN: Final = 300
_OPTIONS: Final = "ro,nosuid,nodev,noexec"


class CannotMount(FullsendError):  # noqa: N818 - reads as what it says
    """A snapshot cannot be mounted. The message says why."""


@contextlib.contextmanager
def mounted(snapshots: Sequence[str]) -> Iterator[list[bytes]]:
    """Mount snapshots, read-only, for the calling thread alone, which must end soon afterwards. Blocks.

    Yields: the folder of each. Raises: CannotMount.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _enter_namespace(libc)
    folders: list[bytes] = []
    try:
        for snapshot in snapshots:
            folders.append(_new_folder())
            _mount(snapshot, folders[-1])
        yield folders
    finally:
        for folder in folders:
            # Fails where nothing was mounted, or something is still open: then the end of the thread unmounts it.
            if libc.umount2(folder, 0):
                libc.umount2(folder, _MNT_DETACH)
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def _enter_namespace(libc: ctypes.CDLL) -> None:
    """Give the calling thread its own mount namespace, from which nothing gets out. Raises: CannotMount."""
    # `unshare` also gives the thread its own working folder, root and umask.
    if libc.unshare(_CLONE_NEWNS) or libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None):
        why = os.strerror(ctypes.get_errno())
        raise CannotMount(f"a private mount namespace needs root ({why})")


def _new_folder() -> bytes:
    """Make an empty folder. Raises: CannotMount."""
    try:
        os.makedirs(default_folder(), mode=0o700, exist_ok=True)
        return os.fsencode(tempfile.mkdtemp(prefix="drill-", dir=default_folder()))
    except OSError as error:
        raise CannotMount(f"{default_folder()}: no folder to mount in: {reason(error)}") from error


def _mount(snapshot: str, folder: bytes) -> None:
    """Mount one. Raises: CannotMount."""
    command = ["mount", "-t", "zfs", "-o", _OPTIONS, snapshot, os.fsdecode(folder)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_MOUNT_WITHIN,
            check=False,
            env={**os.environ, "LC_ALL": "C", "PATH": search_path()},
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise CannotMount(f"mount {snapshot}: {reason(error)}") from error
    if done.returncode:
        why = printable(" ".join(done.stderr.decode(errors="replace").split()))
        raise CannotMount(f"mount {snapshot}: {why or f'exit {done.returncode}'}")
    # Otherwise two empty folders would be compared, and be equal.
    if not os.path.ismount(folder):
        raise CannotMount(f"mount {snapshot}: nothing is mounted, although `mount` reports success")
