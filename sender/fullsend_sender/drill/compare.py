"""Compares what was restored with the snapshot here, in the strongest way that there is.

    files      both snapshots are mounted, read-only and in private: all files and folders are compared (drill.trees)
    blocks     `zfs send` of both gives the same contents (drill.blocks): volumes; and what cannot be mounted, because
               its key is not loaded, or this is not root
    guid       the snapshot is gone here: that the received snapshot has the right GUID is all

The snapshot here is found by its GUID, in its dataset and else in any other. A snapshot of the same name with another
GUID is another snapshot, and is not compared.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from fullsend_protocol.shared.errors import FullsendError
from fullsend_protocol.shared.units import format_size, plural, printable
from fullsend_sender.drill.blocks import contents
from fullsend_sender.drill.mounts import CannotMount, mounted
from fullsend_sender.drill.trees import Comparer, TreeComparison
from fullsend_sender.transfer.pipes import Source
from fullsend_sender.zfs import inventory
from fullsend_sender.zfs.commands import ZfsError
from fullsend_sender.zfs.pools import while_usable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from fullsend_protocol.format.manifest import StreamEntry
    from fullsend_protocol.wire.messages import DrillExtent
    from fullsend_sender.zfs.commands import Zfs
    from fullsend_sender.zfs.inventory import Dataset

_log: Final = logging.getLogger("fullsend.drill")

_T = TypeVar("_T")

#: Differences that are told in the one line.
_TOLD: Final = 3
#: Seconds that a thread has to stop. The kernel may hold it in a suspended pool until a person clears that.
_STOPS_WITHIN: Final = 10.0
#: Properties without which the same files show other extended attributes.
_SHOWING: Final = ("acltype", "xattr")


class OtherKey(FullsendError):  # noqa: N818 - reads as what it says
    """What was restored has another key than the dataset here has now. The text is for the receiver, too."""


@dataclass(frozen=True, slots=True)
class LiveSnapshot:
    """The snapshot on this host that was backed up. `dataset`: that has it."""

    name: str
    dataset: Dataset


@dataclass(frozen=True, slots=True)
class Comparison:
    """`extent`: what was compared; `ok`: whether all of that was equal; `text`: one line; `files`: how many;
    `differences`: the first of them; `told`: the line for the receiver, where it may not read `text`, else "".
    """

    extent: DrillExtent
    ok: bool
    text: str
    files: int = 0
    differences: tuple[str, ...] = ()
    told: str = ""


class SnapshotComparer:
    """Compares a restored snapshot with the one here."""

    def __init__(
        self,
        zfs: Zfs,
        into: str,
        *,
        progress: Callable[[int], None] = lambda _size: None,
        mount: Callable[[Sequence[str]], AbstractContextManager[list[bytes]]] = mounted,
    ) -> None:
        """`into`: what is there, or below it, is never taken for the original; `progress`: is called with compared
        bytes, in any thread.
        """
        self._zfs = zfs
        self._into = into
        self._progress = progress
        self._mount = mount

    async def compare(self, target: str, entry: StreamEntry) -> Comparison:
        """Compare. `target`: the restored dataset; `entry`: the stream that ends its chain.

        Raises: ZfsError, StreamError, FullsendError if it cannot be compared although the snapshot is here; PoolError
        if one of the two pools is suspended meanwhile.
        """
        restored = inventory.parse((await self._zfs.listing([target], recursive=False))[0]).get(target)
        name = next((each.name for each in restored.snapshots if each.guid == entry.guid), None) if restored else None
        if restored is None or name is None:
            return Comparison("nothing", ok=False, text=f"what was restored has no snapshot with GUID {entry.guid}")
        live, other = await self._find(entry)
        if live is None:
            gone = (
                f"the snapshot of that name here has another GUID ({other})" if other else "the snapshot is gone here"
            )
            return Comparison(
                "guid", ok=True, text=f"received whole, with its GUID; nothing was compared, because {gone}"
            )
        comparing = self._compare_both(restored, f"{target}@{name}", live, entry)
        for pool in {restored.pool, live.dataset.pool}:
            comparing = while_usable(self._zfs, pool, comparing)
        return await comparing

    async def _compare_both(self, restored: Dataset, copy: str, live: LiveSnapshot, entry: StreamEntry) -> Comparison:
        """Compare two snapshots that are there. `copy`: the restored one. Raises: as `compare`."""
        try:
            why = await self._keys(restored, live)
        except OtherKey as error:
            return Comparison("guid", ok=False, text=str(error))
        if restored.type == "volume":
            return await self._compare_blocks(restored, copy, live, entry, "")
        if why:
            return await self._compare_blocks(restored, copy, live, entry, why)
        try:
            await self._show_alike(restored.name, live.dataset.name)
            found = await self._in_thread(lambda stop: self._compare_files(live.name, copy, stop))
        except CannotMount as error:
            return await self._compare_blocks(restored, copy, live, entry, str(error))
        return _of_files(live.name, found, secret="w" in entry.flags)

    # --- the snapshot here

    async def _find(self, entry: StreamEntry) -> tuple[LiveSnapshot | None, str]:
        """Return the snapshot here, None: it is gone; and the GUID of another one with its name, "": there is none."""
        near = inventory.parse((await self._zfs.listing([entry.dataset], recursive=False))[0])
        found = self._with_guid(near, entry.guid)
        if found is None:
            for pool in await self._zfs.pools():
                far = inventory.parse((await self._zfs.listing([pool], recursive=True))[0])
                found = self._with_guid(far, entry.guid)
                if found is not None:
                    break
        same_name = near[entry.dataset].snapshots if entry.dataset in near else ()
        return found, next((each.guid for each in same_name if each.name == entry.snapshot), "")

    def _with_guid(self, datasets: dict[str, Dataset], guid: str) -> LiveSnapshot | None:
        return next(
            (
                LiveSnapshot(f"{name}@{each.name}", dataset)
                for name, dataset in datasets.items()
                if not f"{name}/".startswith(f"{self._into}/")
                for each in dataset.snapshots
                if each.guid == guid
            ),
            None,
        )

    async def _keys(self, restored: Dataset, live: LiveSnapshot) -> str:
        """Load the key of what was restored, from where the dataset here has it. Of a volume only try it: blocks can be
        compared without it. Returns: why not both can be read; "": they can. Raises: OtherKey.
        """
        if live.dataset.encrypted and not live.dataset.key_loaded:
            return f"the key of {live.dataset.name} is not loaded"
        if not restored.encrypted or restored.key_loaded:
            return ""
        place = await self._zfs.key_location(live.dataset.name) if live.dataset.encrypted else ""
        if not place.startswith(("file://", "https://", "http://")):
            return "it came encrypted, and only a person has its key"
        only_try = ["-n"] if restored.type == "volume" else []
        try:
            await self._zfs.run("load-key", *only_try, "-L", place, restored.name)
        except ZfsError as error:
            # The place of a key is not for the receiver, to which the returned text goes: a URL may give the key away.
            _log.warning("%s: the key cannot be loaded from %s: %s", live.dataset.name, printable(place), error)
            # The place may have a key that is not in use yet: then nothing is known of the backup's.
            if error.wrong_key and await self._zfs.opens(place, live.dataset.name):
                raise OtherKey(
                    f"the backup has another key than {live.dataset.name} has now, as after `zfs change-key`: only the"
                    " old key opens this snapshot; what is pushed after a write, or with --full, has the new one"
                ) from error
            return "its key cannot be loaded"
        return ""

    async def _show_alike(self, target: str, original: str) -> None:
        """Make the restored files show their attributes and ACLs as those here do. Raises: CannotMount."""
        wanted, found = [await self._zfs.effective(_SHOWING, name) for name in (original, target)]
        pairs = [f"{name}={value}" for name, value in wanted.items() if found.get(name) != value]
        try:
            if pairs:
                await self._zfs.run("set", *pairs, target)
        except ZfsError as error:
            raise CannotMount(f"its attributes would not show as here: {error}") from error

    # --- files

    def _compare_files(self, live: str, copy: str, stop: threading.Event) -> TreeComparison:
        """Blocks. Raises: CannotMount, ComparisonStopped."""
        with self._mount([live, copy]) as (here, there):
            return Comparer(here, there, progress=self._progress, stopped=stop.is_set).compare()

    async def _in_thread(self, work: Callable[[threading.Event], _T]) -> _T:
        """Call `work` in a thread of its own, which ends with it. A cancellation stops it, and waits for its end, but
        not longer than _STOPS_WITHIN.
        """
        stop = threading.Event()
        result = Future[_T]()
        result.set_running_or_notify_cancel()  # from now on nothing but the thread decides how it ends

        def call() -> None:
            try:
                result.set_result(work(stop))
            except BaseException as error:  # noqa: BLE001 - it is the caller's
                result.set_exception(error)

        # The program ends although such a thread does not.
        thread = threading.Thread(target=call, name="compare", daemon=True)
        thread.start()
        running = asyncio.wrap_future(result)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait([running], timeout=_STOPS_WITHIN)
            if not running.cancel():
                running.exception()  # it was stopped: nobody asks how
            raise
        finally:
            if result.done():
                thread.join()

    # --- blocks

    async def _compare_blocks(
        self, restored: Dataset, copy: str, live: LiveSnapshot, entry: StreamEntry, why: str
    ) -> Comparison:
        """Compare what `zfs send` gives. `why`: the files of a filesystem are not compared. Raises: ZfsError."""
        sealed = {each.name for each in (restored, live.dataset) if each.encrypted and not each.key_loaded}
        if sealed and "w" not in entry.flags:
            return _of_guid(f"the key of {min(sealed)} is not loaded")
        options = ["-w"] if sealed else []
        one, other = [await self._contents(*options, name) for name in (live.name, copy)]
        what = "its encrypted blocks are" if sealed else "its blocks are"
        rest = f"; its files were not compared: {why}" if why else ""
        if one == other:
            return Comparison("blocks", ok=True, text=f"{what} the same as those of {live.name}{rest}")
        return Comparison("blocks", ok=False, text=f"{what} DIFFERENT from those of {live.name}{rest}")

    async def _contents(self, *arguments: str) -> str:
        """Return the checksum of what `zfs send ARGUMENTS` gives. Raises: ZfsError, StreamError."""
        async with self._zfs.send(*arguments) as send:
            source = Source(send.fd)
            try:
                with ThreadPoolExecutor(1, thread_name_prefix="hash") as thread:
                    try:
                        loop = asyncio.get_running_loop()
                        found = await loop.run_in_executor(thread, contents, source, self._progress)
                    finally:
                        source.stop()
            except FullsendError:
                if source.at_end:
                    await send.succeeded()  # it says why
                raise
            finally:
                source.close()
            await send.succeeded()
            return found


def _of_guid(why: str) -> Comparison:
    """Return what is known where nothing can be compared."""
    return Comparison("guid", ok=True, text=f"received whole, with its GUID; nothing was compared, because {why}")


def _of_files(live: str, found: TreeComparison, *, secret: bool) -> Comparison:
    """Return what was found of files. `secret`: the stream is raw, so the receiver may not learn the files' names."""
    count = f"{plural(found.files, 'file')} and folders" if found.files != 1 else "1 folder"
    if not found.different:
        size = format_size(found.raw_bytes)
        return Comparison("files", ok=True, text=f"{count} are the same as in {live} ({size})", files=found.files)
    told = "; ".join(found.differences[:_TOLD])
    more = f"; and {found.different - _TOLD} more" if found.different > _TOLD else ""
    head = f"{plural(found.different, 'difference')} from {live}"
    return Comparison(
        *("files", False, printable(f"{head}: {told}{more}"), found.files, tuple(found.differences)),
        told=f"{head}; only the host that made the drill knows which" if secret else "",
    )
