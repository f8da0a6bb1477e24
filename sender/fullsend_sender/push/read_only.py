"""Errors of a pool that was imported read-only, and the way out. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fullsend_sender.push.plan import CannotSend

if TYPE_CHECKING:
    from fullsend_protocol.shared.errors import FullsendError
    from fullsend_sender.zfs.inventory import Dataset


def no_snapshot(dataset: Dataset, why: FullsendError) -> CannotSend:
    """Return the error of a dataset that cannot be pushed in its present state, with the way out."""
    text = f"the pool is read-only, so no snapshot can be taken ({why})"
    if not dataset.snapshots:
        return CannotSend(f"{text}, and there is none: import the pool read-write, or copy the files")
    return CannotSend(f"{text}: push its newest by name: fullsend push {dataset.name}@{dataset.snapshots[-1].name}")
