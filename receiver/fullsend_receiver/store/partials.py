"""The partials of a store in a folder: STORE/.partial, with a data file and a journal for each.

    KEY.data      chunk frames, one after another; it becomes the `.zst`
    KEY.journal   what the data file does not show; one line for each durable batch
    KEY.sha256, KEY.json   from just before the commit until it is done
    KEY.aside-about, KEY.aside-json   as well, where it replaces a damaged stream

Invariant: what a journal line says is durable. A batch's line is written after its data are synced, and is synced
itself before the batch is acknowledged. So after a crash the last whole line has the last offset that can have been
acknowledged. Bytes behind it in the data file are cut off.

If the disk has lost data of a partial, the partial is set aside for inspection; this does not affect the others
(`examining`).

A file without its journal is useless, and the next start removes it. To discard a partial, its journal is removed
durably, and then the other files. So a journal never names files that were removed on purpose.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, TypeVar

from fullsend_protocol.format.names import HASH_SUFFIX, MANIFEST_SUFFIX
from fullsend_receiver.events.emit import emit
from fullsend_receiver.events.records import SetAside
from fullsend_receiver.store import journal
from fullsend_receiver.store.damaged import aside_path, move_aside
from fullsend_receiver.store.durable import is_locked, size_of, sync_folder
from fullsend_receiver.store.errors import PartialDamaged, StoreError
from fullsend_receiver.store.journal import Journal, Standing
from fullsend_receiver.store.opened import Opened
from fullsend_receiver.store.seekable import IndexEntry

if TYPE_CHECKING:
    from fullsend_receiver.store.api import Claim
    from fullsend_receiver.store.layout import Layout

log = logging.getLogger("fullsendd")

DATA: Final = ".data"

JOURNAL: Final = ".journal"

#: What a commit prepares: the stream's two other files, and what is set aside with a stream that it replaces.
ASIDE_ABOUT: Final = ".aside-about"
ASIDE_MANIFEST: Final = ".aside-json"
PREPARED: Final = (HASH_SUFFIX, MANIFEST_SUFFIX, ASIDE_ABOUT, ASIDE_MANIFEST)

#: errno values by which a disk or its file system reports lost data: an unreadable sector, a wrong checksum. Other
#: values do not concern the data, such as too many open descriptors, or a missing permission.
_LOST: Final = frozenset({errno.EIO, errno.EREMOTEIO, errno.EBADMSG, errno.EUCLEAN, errno.ENODATA})

#: errno values of a temporary shortage. A partial that cannot be read because of one must not count as missing.
_SHORT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ETIMEDOUT, errno.EINTR, errno.EAGAIN})

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class LocalUploadInfo:
    """The state of a partial, read from its journal: an `UploadInfo`."""

    key: str
    path: Path

    @property
    def opened(self) -> Opened | None:
        """Its first line. See `UploadInfo`."""
        return journal.read_opened(self.path)

    @property
    def last(self) -> float:
        """The time of the last arrival: the journal's time of modification."""
        return self.path.stat().st_mtime

    @property
    def journal(self) -> Journal:
        """The summary of its journal."""
        return journal.read(self.path)

    @property
    def places(self) -> tuple[Standing | None, Standing | None]:
        """The places at which it resumes; reads the journal once."""
        return journal.standings(self.path)

    @property
    def arriving(self) -> bool:
        """Whether a process has it open."""
        return is_locked(self.path)


@contextlib.contextmanager
def examining(store: Layout, key: str, *, held: bool = False, reads_only: bool = False) -> Iterator[None]:
    """Read a partial inside this context. If an error shows that the disk has lost data of it, the partial is set aside
    and this is logged: its stream starts over. `held`: the caller has it open; `reads_only`: leave it in its place, for
    the daemon.

    Raises: PartialDamaged then; any other OSError as it is (FileNotFoundError: the partial does not exist, or no more).
    """
    try:
        yield
    except (PartialDamaged, OSError) as error:
        if not _is_damage(error):
            raise
        why = f"cannot be read: {error}" if isinstance(error, OSError) else str(error)
        if reads_only:
            log.error("partial %s: %s; check this disk; the daemon will set it aside", key, why)  # noqa: TRY400
            raise PartialDamaged(f"partial {key}: {why}") from None
        raise PartialDamaged(f"partial {key}: {why}; {_set_aside(store, key, why, held=held)}") from None


def _is_damage(error: PartialDamaged | OSError) -> bool:
    return not isinstance(error, OSError) or error.errno in _LOST


def survey(
    store: Layout, look: Callable[[LocalUploadInfo], _T], *, sets_aside: Claim | None = None
) -> Iterator[tuple[str, _T]]:
    """Yield the result of `look` for each partial. See `Store.uploads`."""
    for key, path in journals(store):
        try:
            found = _seen(store, LocalUploadInfo(key, path), look, sets_aside)
        except (FileNotFoundError, PartialDamaged):
            continue
        except OSError as error:
            if error.errno in _SHORT:
                raise
            log.error("partial %s: cannot be examined: %s", key, error)  # noqa: TRY400 - where says nothing
            continue
        yield key, found


def _seen(store: Layout, info: LocalUploadInfo, look: Callable[[LocalUploadInfo], _T], sets_aside: Claim | None) -> _T:
    """Look at one partial. Raises: PartialDamaged, which was logged, unless a session has it; OSError."""
    if sets_aside is None:
        with examining(store, info.key, reads_only=True):
            return look(info)
    try:
        return look(info)
    except (PartialDamaged, OSError) as error:
        if not _is_damage(error):
            raise
    with sets_aside(info.key) as is_mine:
        if not is_mine:
            raise PartialDamaged(f"partial {info.key}: is arriving; its session finds the same")
        with examining(store, info.key):
            return look(info)  # a session may have set it aside, and begun another one


def journals(store: Layout) -> list[tuple[str, Path]]:
    """Return the keys of all partials, each with its journal."""
    return sorted((path.name.removesuffix(JOURNAL), path) for path in store.partial.glob(f"*{JOURNAL}"))


def committing(store: Layout) -> set[PurePosixPath]:
    """Return the files whose commit has begun and is not complete."""
    said = survey(store, lambda upload: upload.journal)
    return {each.committing for _key, each in said if each.committing is not None}


def discard(store: Layout, key: str) -> None:
    """Discard a partial. The journal is removed first, durably: the other files are useless without it."""
    first, *rest = (partial_path(store, key, suffix) for suffix in (JOURNAL, *PREPARED, DATA))
    with contextlib.suppress(FileNotFoundError):
        first.unlink()
        sync_folder(store.partial)
    for path in rest:
        path.unlink(missing_ok=True)


def discard_closed(store: Layout, key: str) -> None:
    """Discard a partial that no process has open. See `Store.discard`."""
    with contextlib.suppress(FileNotFoundError):
        if is_locked(partial_path(store, key, JOURNAL)):
            msg = f"partial {key}: is arriving, and cannot be deleted while it is"
            raise StoreError(msg)
    discard(store, key)


def journal_entries(store: Layout, key: str) -> Iterator[IndexEntry]:
    """Yield the index entries of all durable chunks, in order."""
    return journal.entries(partial_path(store, key, JOURNAL))


def partial_path(store: Layout, key: str, suffix: str) -> Path:
    """Return the path of one of a partial's files."""
    return store.partial / (key + suffix)


def keep_age(path: Path | int, before: os.stat_result) -> None:
    """Restore the times of a journal: the last change was not an arrival (`partial-keep`)."""
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def cut_back(store: Layout, key: str, stored: int, whole: int) -> None:
    """Cut the data file to its acknowledged bytes and the journal to its whole lines; remove what a commit prepared."""
    for path, size in ((partial_path(store, key, DATA), stored), (partial_path(store, key, JOURNAL), whole)):
        if path.stat().st_size == size:
            continue
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.ftruncate(descriptor, size)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    for suffix in PREPARED:
        partial_path(store, key, suffix).unlink(missing_ok=True)


def check_size(store: Layout, key: str, stored: int) -> None:
    """Compare the data file with its journal. Raises: PartialDamaged if the file is shorter."""
    found = size_of(partial_path(store, key, DATA))
    if found < stored:
        msg = f"has {found} bytes where {stored} were acknowledged: this disk has lost what it had synced"
        raise PartialDamaged(msg)


def _set_aside(store: Layout, key: str, why: str, *, held: bool) -> str:
    """Rename a damaged partial, so that it does not count as a partial and can be inspected. An open one stays: its
    owner will find the same error.

    Returns: what was done, for the log.
    """
    arriving = False
    with contextlib.suppress(OSError):  # if it cannot be opened, no process has it open
        arriving = not held and is_locked(partial_path(store, key, JOURNAL))
    if arriving:
        outcome = "it is arriving now, and is left until that ends"
    else:
        try:
            _rename_damaged(store, key)
            outcome = f"it is set aside as {aside_path(store, key, DATA)}, and its stream starts over"
        except OSError as error:
            outcome = f"it cannot be set aside: {error}"
    text = f"partial {key}: {why}; check this disk; {outcome}"
    emit(SetAside(text=text, partial=key, why=why), logging.ERROR)
    return outcome


def _rename_damaged(store: Layout, key: str) -> None:
    # The journal last: until then the next start finds the same error, and renames the rest.
    for suffix in (DATA, JOURNAL):
        move_aside(store, partial_path(store, key, suffix), key, suffix)
    sync_folder(store.partial)
