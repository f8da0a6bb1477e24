"""Whether a place is fit for a store."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared.errors import reason
from fullsend_receiver.store.durable import FULL, sync_folder
from fullsend_receiver.store.errors import StoreError, StoreFull, folder_error

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fullsend_receiver.store.api import ProbeFinding
    from fullsend_receiver.store.layout import Layout

#: The length to which docs/format.md cuts names.
_NAME_MAX: Final = 255


def check_fitness(store: Layout) -> None:
    """Try what the store relies on: rename, fsync of a folder, names of 255 bytes, and names that differ in case.

    Only names are tried: a disk that is full of data is still fit. Raises: StoreFull if there is no room for a name
    either, StoreReadOnly if nothing can be written: nothing could be tried then. StoreError with what this file system
    lacks. Leaves no file behind.
    """
    probe = store.state / f".Probe-{secrets.token_hex(4)}.tmp"  # a name that the next start removes
    renamed = probe.with_name(probe.name.replace("Probe", "Renamed"))
    try:
        longest = os.pathconf(store.root, "PC_NAME_MAX")
        if longest < _NAME_MAX:
            msg = f"{store.root}: its file system has names of {longest} bytes, and {_NAME_MAX} are needed"
            raise StoreError(msg)
        probe.touch(exist_ok=False)
        if probe.with_name(probe.name.swapcase()).exists():
            msg = f"{store.root}: its file system does not distinguish upper and lower case; choose another"
            raise StoreError(msg)
        probe.rename(renamed)
        sync_folder(store.state)
        if not os.access(store.root, os.W_OK):
            msg = f"{store.root}: cannot be written to by uid {os.geteuid()}"
            raise StoreError(msg)
    except OSError as error:
        if error.errno in FULL:
            msg = f"{store.root}: is full ({error.strerror}): free some space; fitness cannot be tested before"
            raise StoreFull(msg) from None
        if error.errno == errno.EROFS:
            raise folder_error(error, store.root) from None
        msg = f"{store.root}: not fit for a store: {reason(error)}"
        raise StoreError(msg) from None
    finally:
        # On a lost disk this fails, too; that must not hide the first error.
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
            renamed.unlink(missing_ok=True)


def require(findings: Iterable[ProbeFinding], where: str) -> None:
    """Check that a place promises what a store needs of it. `findings`: of `Store.examine`; `where`: the place.

    Raises: StoreError with the first thing that is missing; what yielding the findings raises.
    """
    for each in findings:
        if each.needed and not each.holds:
            msg = f"{where}: not fit for a store: {each.what}: {each.says or 'it does not do that'}"
            raise StoreError(msg)
