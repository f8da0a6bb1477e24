"""The scratch datasets of a drill: how they are made, found again, and destroyed.

    INTO/fullsend-drill-MARK              never mounts; has the quota
    INTO/fullsend-drill-MARK/restored     what is restored

This module has the only `zfs destroy` of datasets in the program. It destroys a dataset only if all of this is true:

- its name is one of these two, below the configured place;
- the user property `fullsend:drill` is set on the dataset itself (source "local"), to the MARK in its name. What a
  stream has brought has the source "received", what a parent has "inherited";
- it has no dataset below it, and no clone: `zfs destroy` is never called with -r, -R or -f, so `zfs` refuses the rest.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared.errors import FullsendError
from fullsend_sender.zfs import inventory
from fullsend_sender.zfs.pools import while_usable
from fullsend_sender.zfs.selection import SCRATCH_PREFIX, pool_of

if TYPE_CHECKING:
    from fullsend_protocol.format.manifest import StreamEntry
    from fullsend_sender.zfs.commands import Zfs

#: The user property that marks a scratch dataset.
PROPERTY: Final = "fullsend:drill"
_LEAF: Final = "restored"
_MARK: Final = re.compile(r"[0-9a-f]{16}")
_SOURCES: Final = ("get", "-Hp", "-t", "filesystem,volume", "-o", "name,property,value,source")
#: Set on both: nothing may write, and zfs-auto-snapshot takes no snapshots of them.
_QUIET: Final = ("-o", "readonly=on", "-o", "com.sun:auto-snapshot=false")


class NotDestroyed(FullsendError):  # noqa: N818 - reads as what it says
    """A scratch dataset is still there."""


@dataclass(frozen=True, slots=True)
class Scratch:
    """The scratch datasets of one drill. `into`: the place that the configuration names; `mark`: 16 hex digits."""

    into: str
    mark: str

    @classmethod
    def new(cls, into: str) -> Scratch:
        """Return one that no other drill has."""
        return cls(into, secrets.token_hex(8))

    @property
    def container(self) -> str:
        return f"{self.into}/{SCRATCH_PREFIX}{self.mark}"

    @property
    def target(self) -> str:
        """Where to restore."""
        return f"{self.container}/{_LEAF}"

    def receive_options(self, entry: StreamEntry) -> list[str]:
        """Return the options of `zfs receive` that mark the target, and keep it from being mounted, or seen by udev."""
        hidden = "volmode=none" if entry.dataset_type == "volume" else "mountpoint=none"
        return ["-o", hidden, *_QUIET, "-o", f"{PROPERTY}={self.mark}"]

    async def create(self, zfs: Zfs, quota: int) -> None:
        """Create the container. `quota`: bytes that all below it may take. Raises: ZfsError, PoolError."""
        mark = ("-o", f"{PROPERTY}={self.mark}", "-o", f"quota={quota}")
        create = zfs.run("create", "-o", "canmount=off", "-o", "mountpoint=none", *_QUIET, *mark, self.container)
        await while_usable(zfs, pool_of(self.into), create)

    async def destroy(self, zfs: Zfs) -> None:
        """Destroy what is there of it. Raises: NotDestroyed, which says what is still there, and why."""
        for name in (self.target, self.container):
            try:
                await while_usable(zfs, pool_of(self.into), self._destroy_one(zfs, name))
            except FullsendError as error:
                raise NotDestroyed(
                    f"{name}, the scratch of a drill, is not destroyed: {error}; the next drill tries again"
                ) from error

    async def _destroy_one(self, zfs: Zfs, name: str) -> None:
        found = inventory.parse((await zfs.listing([name], recursive=False))[0]).get(name)
        if found is None:
            return
        await self._require_ours(zfs, name)
        for error in (await zfs.destroy_snapshots(name, [each.name for each in found.snapshots])).values():
            raise error
        await self._require_ours(zfs, name)
        await zfs.run("destroy", name)

    async def _require_ours(self, zfs: Zfs, name: str) -> None:
        """Raises: FullsendError unless this dataset was made by a drill."""
        wanted = f"{name}\t{PROPERTY}\t{self.mark}\tlocal"
        usual = self.into and _MARK.fullmatch(self.mark) and name in {self.target, self.container}
        output = await zfs.run(*_SOURCES, PROPERTY, name)
        if not usual or output.splitlines() != [wanted]:
            raise FullsendError(f"it does not have {PROPERTY}={self.mark} set on itself, so it may not be one")


async def leftovers(zfs: Zfs, into: str) -> list[Scratch]:
    """Return what has the name of a scratch below a place: a drill that was killed has left it. Raises: ZfsError."""
    below = f"{into}/{SCRATCH_PREFIX}"
    marks = (name.removeprefix(below) for name in await zfs.names(into) if name.startswith(below))
    return [Scratch(into, mark) for mark in marks if _MARK.fullmatch(mark)]
