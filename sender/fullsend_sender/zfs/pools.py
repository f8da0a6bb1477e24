"""The pools of this host, each by itself: their names, their health, and the datasets of those that are usable.

`zfs list` silently leaves a suspended pool out, and fails as a whole if the pool is named. So `zpool` lists the pools.
A suspended pool is not used, and each of the others is listed by a separate command.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from fullsend_protocol.shared.errors import FullsendError
from fullsend_sender.zfs import inventory
from fullsend_sender.zfs.commands import NoAnswer, ZfsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence

    from fullsend_sender.zfs.commands import Zfs
    from fullsend_sender.zfs.inventory import Dataset

_log: Final = logging.getLogger("fullsend.pools")
_Found = TypeVar("_Found")

#: A pool with such a health in `zpool list` has no data to give. Commands may fail, or wait for it in the kernel.
_UNUSABLE: Final = frozenset({"SUSPENDED", "FAULTED", "UNAVAIL", "OFFLINE", "REMOVED"})

#: The property of a pool that tells whether it can have bookmarks.
BOOKMARKS: Final = "feature@bookmarks"

#: Seconds between two checks of a pool while it is in use.
_LOOK_EVERY: Final = 10.0


class PoolError(FullsendError):
    """A pool that cannot be used, or whose datasets cannot be listed."""


@dataclass(frozen=True, slots=True)
class Pools:
    """The imported pools. `health`: by name, as in `zpool list`, "" if `zpool` fails. `error`: why `zpool` failed: then
    suspended pools may be missing.
    """

    health: Mapping[str, str]
    error: FullsendError | None = None

    def obstacle(self, pool: str) -> PoolError | None:
        """Return why this pool must not be used; None if it can be."""
        health = self.health[pool]
        if health not in _UNUSABLE:
            return None
        then = f", then `zpool clear {pool}`" if health == "SUSPENDED" else ""
        return PoolError(f"the pool is {health}, and cannot be used: see `zpool status -v {pool}`{then}")

    def absent(self, pool: str) -> str:
        """Return text for a pool that is not imported."""
        return f"no pool {pool} is imported" + (", or it is suspended" if self.error is not None else "")


@dataclass(slots=True)
class PoolListing:
    """The contents of the pools. `complaint`: the stderr of `zfs` about unknown names. `failed`: by pool, why it could
    not be listed.
    """

    datasets: dict[str, Dataset] = field(default_factory=dict)
    complaint: str = ""
    failed: dict[str, PoolError] = field(default_factory=dict)


async def look(zfs: Zfs) -> Pools:
    """Return the pools of this host. Raises: ZfsError, UsageError."""
    try:
        return Pools(await zfs.health())
    except FullsendError as error:
        pools = await zfs.pools()
        _log.info("fullsend does not know which pools are suspended, because zpool failed: %s", error)
        return Pools(dict.fromkeys(pools, ""), error)


async def listed(zfs: Zfs, pools: Pools, roots: Mapping[str, Sequence[str]], *, recursive: bool) -> PoolListing:
    """List datasets with their snapshots and bookmarks, as they are now. `roots`: by pool, the datasets to list.
    `recursive`: and all below them. Raises: UsageError.
    """

    async def ask(pool: str) -> tuple[str, str]:
        if pool in pools.health:  # otherwise `zfs` itself reports that it is missing
            await zfs.sync(pool)
        return await zfs.listing(roots[pool], recursive=recursive)

    found, failed = await _each(pools, roots, ask)
    complaints = [complaint for _listing, complaint in found.values() if complaint]
    datasets = inventory.parse("".join(listing for listing, _complaint in found.values()))
    return PoolListing(datasets, "; ".join(complaints), failed)


async def names(zfs: Zfs, pools: Pools) -> tuple[list[str], dict[str, PoolError]]:
    """Return the names of all datasets, parents first, and by pool, why it could not be listed. Raises: UsageError."""
    found, failed = await _each(pools, pools.health, zfs.names)
    return [name for each in found.values() for name in each], failed


def lacks_bookmarks(properties: Mapping[str, str]) -> bool:
    """Whether a pool cannot have bookmarks. `properties`: of the pool, with BOOKMARKS if it has that."""
    return properties.get(BOOKMARKS) in {"disabled", "-"}


async def without_bookmarks(zfs: Zfs) -> frozenset[str]:
    """Return the pools that cannot have bookmarks; none, if `zpool` does not say."""
    try:
        found = await zfs.pool_properties([BOOKMARKS])
    except FullsendError as error:
        _log.info("fullsend does not know which pools have bookmarks, because zpool failed: %s", error)
        return frozenset()
    return frozenset(pool for pool, about in found.items() if lacks_bookmarks(about))


async def while_usable(
    zfs: Zfs, pool: str, work: Coroutine[object, object, _Found], *, every: float = _LOOK_EVERY
) -> _Found:
    """Run work that uses a pool, and cancel it if the pool is suspended meanwhile.

    A command may then wait in the kernel until a person clears the pool. It is told to end, and not waited for.
    `every`: seconds between two checks of the pool.

    Returns: what `work` returns. Raises: PoolError, and as `work`, which has ended.
    """
    doing = asyncio.ensure_future(work)
    watching = asyncio.create_task(_until_unusable(zfs, pool, every), name=f"health of {pool}")
    try:
        await asyncio.wait([doing, watching], return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise watching.result()
    finally:
        watching.cancel()
        doing.cancel()
        await asyncio.wait([doing, watching])


async def _until_unusable(zfs: Zfs, pool: str, every: float) -> PoolError:
    """Return, once a pool is unusable, why. If `zpool` fails, this never returns."""
    while True:
        await asyncio.sleep(every)
        try:
            health = await zfs.health()
        except FullsendError:
            continue
        if pool in health and (obstacle := Pools(health).obstacle(pool)) is not None:
            return obstacle


async def _each(
    pools: Pools, wanted: Collection[str], ask: Callable[[str], Awaitable[_Found]]
) -> tuple[dict[str, _Found], dict[str, PoolError]]:
    """Ask each usable pool, all at once: one that does not answer delays no other. Returns: the answers, and the
    failures, both by pool, in the order of `wanted`. Raises: UsageError.
    """

    async def one(pool: str) -> _Found | PoolError:
        obstacle = pools.obstacle(pool) if pool in pools.health else None
        if obstacle is not None:
            return obstacle
        try:
            return await ask(pool)
        except NoAnswer as error:
            return PoolError(f"the pool does not answer: {error}; see `zpool status -v {pool}`")
        except ZfsError as error:
            return PoolError(f"the pool's datasets cannot be listed: {error}")

    answers = await asyncio.gather(*map(one, wanted), return_exceptions=True)
    found: dict[str, _Found] = {}
    failed: dict[str, PoolError] = {}
    for pool, answer in zip(wanted, answers, strict=True):
        if isinstance(answer, PoolError):
            failed[pool] = answer
        elif isinstance(answer, BaseException):
            raise answer
        else:
            found[pool] = answer
    return found, failed
