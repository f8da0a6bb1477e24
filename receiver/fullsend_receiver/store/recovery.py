"""Completes or removes what the last process left in STORE/.partial and STORE/.state, at the start."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from fullsend_protocol.format.names import MANIFEST_SUFFIX
from fullsend_receiver.store import journal
from fullsend_receiver.store.commits import complete
from fullsend_receiver.store.durable import locked, unlocked
from fullsend_receiver.store.errors import PartialDamaged, StoreError
from fullsend_receiver.store.partials import (
    DATA,
    JOURNAL,
    PREPARED,
    check_size,
    cut_back,
    discard,
    examining,
    journals,
    partial_path,
)

if TYPE_CHECKING:
    from fullsend_receiver.store.layout import Layout

log = logging.getLogger("fullsendd")


def recover(store: Layout) -> list[str]:
    """Complete commits and cut partials back to what was acknowledged. Discard empty partials and those of merges, and
    set aside those that have lost acknowledged bytes. If this fails for a partial, it stays as it is, and this is
    logged. A partial that a process has open is left to that process.

    Returns: a line for the log for each partial. Raises: OSError if the folder cannot be read.
    """
    done = _recover_each(store, merges_only=False)
    for suffix in (DATA, *PREPARED):
        for path in store.partial.glob(f"*{suffix}"):
            _remove_stray(path, path.with_suffix(JOURNAL))
    for path in store.partial.glob(".*.tmp"):  # a process died while it replaced a journal
        _remove_stray(path, None)
    return done


def recover_merges(store: Layout) -> list[str]:
    """Do the same for the partials of merges alone, while a daemon runs. The caller is the only process that merges."""
    return _recover_each(store, merges_only=True)


def complete_merges(store: Layout) -> None:
    """Complete the commits of merges whose processes are dead, at any time: until then the streams that they supersede
    are listed, and would go at the next start. Where there is none this costs one listing of a folder. Logs what fails:
    nobody waits for a merge.
    """
    names = set(os.listdir(store.partial))
    for name in names:
        key = name.removesuffix(JOURNAL)
        # A commit has begun by then, and has not moved the data; or it has.
        if key != name and (key + MANIFEST_SUFFIX in names or key + DATA not in names):
            try:
                _complete_merge(store, key)
            except FileNotFoundError:
                continue  # it has ended just now
            except (OSError, StoreError) as error:
                log.error("partial %s: its merge cannot be completed: %s", key, error)  # noqa: TRY400 - the same


def _complete_merge(store: Layout, key: str) -> None:
    path = partial_path(store, key, JOURNAL)
    opened = journal.read_opened(path)
    if opened is None or not opened.merge:
        return
    # A merge that is alive holds the lock from its choice of what it supersedes until that is gone.
    with locked(store.lock):
        said = journal.read(path)
        if said.committing is not None and complete(store, key, said, held=True):
            log.warning("%s: its commit was interrupted and is complete now", said.committing)


def _recover_each(store: Layout, *, merges_only: bool) -> list[str]:
    done = []
    for key, path in journals(store):
        try:
            with examining(store, key):
                opened = journal.read_opened(path)
            is_merge = opened is not None and opened.merge
            if merges_only and not is_merge:
                continue
            # A command may be merging, or copying into this store, while the daemon starts.
            with unlocked(path) as free:
                if free:
                    done += _recover(store, key, is_merge=is_merge)
        except (PartialDamaged, FileNotFoundError):
            continue  # it was set aside, and that was logged; or it has ended just now
        except (OSError, StoreError) as error:
            log.error(  # noqa: TRY400 - where it was found says nothing
                "partial %s: is left to the next push of its stream, or to the next start: %s", key, error
            )
    return done


def _recover(store: Layout, key: str, *, is_merge: bool) -> list[str]:
    with examining(store, key):
        said = journal.read(partial_path(store, key, JOURNAL))
        if said.committing is None and said.offset is not None:
            check_size(store, key, said.stored)
    if said.committing is not None:
        if complete(store, key, said):
            return [f"{said.committing}: its commit was interrupted and is complete now"]
        return [f"{said.committing}: was stored twice; the first one stays"]
    if said.offset is None or is_merge:  # what a merge has not committed is made anew: its inputs are there
        discard(store, key)
        return []
    cut_back(store, key, said.stored, said.whole)
    return [f"partial {key}: kept, with {said.offset} raw bytes"]


def _remove_stray(path: Path, owner: Path | None) -> None:
    """Remove a file that is useless without its `owner`, if that does not exist."""
    try:
        if owner is None or not owner.exists():
            path.unlink()
    except OSError as error:
        log.error("%s: is useless, and cannot be removed: %s", path, error)  # noqa: TRY400


def remove_temporaries(store: Layout) -> None:
    """Remove the temporary files of killed calls of `replace_file` in `.state`. Takes the store's lock, which every
    process holds while it changes something there.
    """
    with locked(store.lock):
        for path in store.state.glob(".*.tmp"):
            path.unlink()
