"""Which datasets a `fullsend restore` of this user writes to just now. A push leaves these alone: nobody has chosen the
state that they are in, and a new snapshot in one would end its restore.

A restore holds a lock by the dataset's name, because the dataset may not exist yet. It holds another one if it restores
what is below, too. The locks end with the process.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared.errors import UsageError
from fullsend_sender.host.locks import locks
from fullsend_sender.zfs.selection import lineage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_log: Final = logging.getLogger("fullsend.restore")

#: Names the file. Those of the locks of pushes have names of 8 hex digits.
_FILE: Final = "restoring"
#: Is no dataset: who has this lock tries the others. One at a time does, or two pushes would see each other.
_LOOKING: Final = ""


@contextlib.contextmanager
def restoring(zfs: str, target: str, *, below: bool, folder: str | None = None) -> Iterator[None]:
    """Mark a dataset as being restored, until the block is left. `zfs`: the command that writes to it; `below`: and all
    below it; `folder`: see `locks`.

    A restore takes place also where that is not possible.
    """
    with contextlib.ExitStack() as stack:
        try:
            held = stack.enter_context(locks(_FILE, folder))
            for name in (target, *([f"{target}/"] if below else [])):
                held.wait_for(_number(zfs, name), shared=True)
        except (OSError, UsageError) as error:
            _log.debug("a push will not see that %s is being restored: %s", target, error)
        yield


def being_restored(zfs: str, datasets: Iterable[str], *, folder: str | None = None) -> set[str]:
    """Return those of these datasets that another process restores now. `zfs`, `folder`: as in `restoring`.

    Raises: UsageError.
    """
    free: dict[str, bool] = {}
    found = set()
    with locks(_FILE, folder) as others:
        with contextlib.suppress(OSError):
            others.wait_for(_number(zfs, _LOOKING), shared=False)
        for dataset in datasets:
            for name in (dataset, *(f"{above}/" for above in lineage(dataset))):
                if name not in free:
                    free[name] = others.is_free(_number(zfs, name))
                if not free[name]:
                    found.add(dataset)
    return found


def _number(zfs: str, name: str) -> str:
    """Return the number of a name's lock. Another command may be for the datasets of another host."""
    digest = hashlib.sha256(f"{zfs}\0{name}".encode(errors="surrogateescape")).digest()
    return str(int.from_bytes(digest[:8], "big"))
