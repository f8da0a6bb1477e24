"""The pools of this host, each by itself: which there are, how they are, and what is in those that can be used.

`zfs list` leaves a suspended pool out without a word, and where it is named, fails as a whole. So `zpool` says which
pools there are, one that is suspended is not touched, and each of the others is listed by a command of its own.
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

#: A pool that `zpool list` says this of has no data to give. Commands may fail, or wait for it in the kernel.
_UNUSABLE: Final = frozenset({"SUSPENDED", "FAULTED", "UNAVAIL", "OFFLINE", "REMOVED"})


#: Seconds between two looks at a pool that is at work.
_LOOK_EVERY: Final = 10.0


class PoolError(FullsendError):
    """A pool whose datasets cannot be listed, and so not pushed."""


@dataclass(frozen=True, slots=True)
class Pools:
    """The pools that are imported. `health`: by name, as `zpool list` says, "" where it cannot be asked; `error`: why
    it cannot: then suspended pools may be missing.
    """

    health: Mapping[str, str]
    error: FullsendError | None = None

    def obstacle(self, pool: str) -> PoolError | None:
        """Return why this pool is not to be touched; None where it can be used."""
        health = self.health[pool]
        if health not in _UNUSABLE:
            return None
        then = f", then `zpool clear {pool}`" if health == "SUSPENDED" else ""
        return PoolError(f"the pool is {health}, and its datasets cannot be pushed: see `zpool status -v {pool}`{then}")

    def absent(self, pool: str) -> str:
        """Return words for a pool that is not here."""
        return f"no pool {pool} is imported" + (", or it is suspended" if self.error is not None else "")


@dataclass(slots=True)
class Listed:
    """What the pools have. `complaint`: what `zfs` said of names that it does not know; `failed`: by pool, why it could
    not be listed.
    """

    datasets: dict[str, Dataset] = field(default_factory=dict)
    complaint: str = ""
    failed: dict[str, PoolError] = field(default_factory=dict)


async def look(zfs: Zfs) -> Pools:
    """See which pools there are. Raises: ZfsError, UsageError."""
    try:
        return Pools(await zfs.health())
    except FullsendError as error:
        pools = await zfs.pools()
        _log.info("which pools are suspended cannot be told, since zpool cannot be asked: %s", error)
        return Pools(dict.fromkeys(pools, ""), error)


async def listed(zfs: Zfs, pools: Pools, roots: Mapping[str, Sequence[str]], *, recursive: bool) -> Listed:
    """List datasets with their snapshots and bookmarks, as they are now. `roots`: by pool, the datasets to list;
    `recursive`: and all below them. Raises: UsageError.
    """

    async def ask(pool: str) -> tuple[str, str]:
        if pool in pools.health:  # else `zfs` has words for what is not there
            await zfs.sync(pool)
        return await zfs.listing(roots[pool], recursive=recursive)

    found, failed = await _each(pools, roots, ask)
    complaints = [complaint for _listing, complaint in found.values() if complaint]
    datasets = inventory.parse("".join(listing for listing, _complaint in found.values()))
    return Listed(datasets, "; ".join(complaints), failed)


async def names(zfs: Zfs, pools: Pools) -> tuple[list[str], dict[str, PoolError]]:
    """Return the names of all datasets, parents first, and by pool, why it could not be listed. Raises: UsageError."""
    found, failed = await _each(pools, pools.health, zfs.names)
    return [name for each in found.values() for name in each], failed


async def while_usable(
    zfs: Zfs, pool: str, work: Coroutine[object, object, _Found], *, every: float = _LOOK_EVERY
) -> _Found:
    """Do what a pool takes part in, and give it up where the pool is suspended meanwhile.

    A command may then wait in the kernel until somebody clears the pool. It is asked to end, and not waited for.
    `every`: seconds between two looks at the pool.

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
    """Return why a pool cannot be used any more, once that is so. Where `zpool` cannot be asked, this never returns."""
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
    """Ask of each pool that can be used, all at once: one that does not answer delays no other. Returns: the answers,
    and what failed, both by pool, in the order of `wanted`. Raises: UsageError.
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
