from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.fakezfs import Blocks, FakeZfs
from tests.sender.restore.test_chains import entry

from fullsend_protocol.format.manifest import StreamEntry
from fullsend_sender.drill import compare as comparing
from fullsend_sender.drill.compare import Comparison, LiveSnapshot, SnapshotComparer
from fullsend_sender.drill.mounts import CannotMount
from fullsend_sender.zfs import inventory
from fullsend_sender.zfs.commands import Zfs, ZfsError
from fullsend_sender.zfs.pools import PoolError, while_usable

INTO = "tank/drill"
TARGET = f"{INTO}/fullsend-drill-0123456789abcdef/restored"
LIVE = "tank/home"


class Pool:
    """A pool in which a snapshot was restored, and folders that stand for its mounts. `mounts`: what was mounted."""

    def __init__(self, folder: Path, *, kind: str = "filesystem", encrypted: bool = False) -> None:
        self.fake = FakeZfs.make(folder / "zfs")
        self.folder = folder
        self.mounts: list[Sequence[str]] = []
        self.cannot = ""
        for name in ("tank", INTO, TARGET.rpartition("/")[0]):
            self.fake.create(name)
        self.fake.create(LIVE, kind=kind, blocks=None if encrypted else Blocks(8, 4, 2), encrypted=encrypted)
        self.fake.change(LIVE)
        self.fake.snapshot(f"{LIVE}@a")
        guid = self.fake.edit(lambda state: state["datasets"][LIVE]["snapshots"][0]["guid"])
        self.entry: StreamEntry = entry(f"{LIVE}@a", int(guid), flags="w" if encrypted else "", sequence=1)
        self.fake.create(TARGET, kind=kind, encrypted=encrypted, key_loaded=not encrypted)
        self.fake.snapshot(f"{TARGET}@a")
        self.fake.edit(lambda state: state["datasets"][TARGET].update(content=[]))
        self.fake.edit(lambda state: state["datasets"][TARGET]["snapshots"][0].update(guid=guid))

    @contextlib.contextmanager
    def mount(self, names: Sequence[str]) -> Iterator[list[bytes]]:
        self.mounts.append(names)
        if self.cannot:
            raise CannotMount(self.cannot)
        yield [os.fsencode(self.folder / "files")] * 2

    async def compare(self, **options: Any) -> Comparison:
        (self.folder / "files").mkdir(exist_ok=True)
        (self.folder / "files" / "text").write_bytes(b"text")
        zfs = Zfs((self.fake.program,))
        return await SnapshotComparer(zfs, INTO, **({"mount": self.mount} | options)).compare(TARGET, self.entry)


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return Pool(tmp_path)


async def test_files_are_compared_where_both_can_be_mounted(pool: Pool) -> None:
    assert await pool.compare() == Comparison(
        "files", ok=True, text=f"2 files and folders are the same as in {LIVE}@a (4 B)", files=2
    )
    assert pool.mounts == [[f"{LIVE}@a", f"{TARGET}@a"]]


async def test_attributes_are_made_to_show_alike(pool: Pool) -> None:
    pool.fake.alter(LIVE, properties={"acltype": "posix", "xattr": "sa"})
    await pool.compare()
    assert f"set acltype=posix {TARGET}" in pool.fake.commands
    assert not [line for line in pool.fake.commands if line.startswith("set") and line.endswith(f" {LIVE}")]


@pytest.mark.parametrize("kind", ["filesystem", "volume"])
@pytest.mark.parametrize("wrong", [False, True])
async def test_blocks_are_compared_where_files_cannot_be(tmp_path: Path, kind: str, wrong: bool) -> None:
    pool = Pool(tmp_path, kind=kind)
    pool.cannot = "a private mount namespace needs root"
    pool.fake.drift(int(wrong))
    found = await pool.compare()
    assert (found.extent, found.ok, found.files) == ("blocks", not wrong, 0)
    why = "" if kind == "volume" else "; its files were not compared: a private mount namespace needs root"
    same = "DIFFERENT from" if wrong else "the same as"
    assert found.text == f"its blocks are {same} those of {LIVE}@a{why}"
    assert len(pool.mounts) == (kind == "filesystem")


async def test_a_snapshot_that_is_gone_here_is_said(pool: Pool) -> None:
    pool.fake.edit(lambda state: state["datasets"][LIVE]["snapshots"].clear())
    found = await pool.compare()
    assert (found.extent, found.ok) == ("guid", True)
    assert found.text == "received whole, with its GUID; nothing was compared, because the snapshot is gone here"
    pool.fake.snapshot(f"{LIVE}@a")
    assert "the snapshot of that name here has another GUID" in (await pool.compare()).text
    assert pool.mounts == []


async def test_a_dataset_that_was_renamed_is_found_by_its_snapshot(pool: Pool) -> None:
    pool.fake.rename(LIVE, "tank/renamed")
    assert "are the same as in tank/renamed@a" in (await pool.compare()).text


async def test_a_copy_in_the_scratch_place_is_no_original(pool: Pool) -> None:
    """What another drill has left there would be compared with itself."""
    pool.fake.rename(LIVE, f"{INTO}/old")
    assert (await pool.compare()).extent == "guid"


async def test_what_has_another_guid_is_a_failure(pool: Pool) -> None:
    pool.fake.edit(lambda state: state["datasets"][TARGET]["snapshots"][0].update(guid="5"))
    found = await pool.compare()
    assert (found.extent, found.ok) == ("nothing", False)


async def test_without_its_key_an_encrypted_one_is_compared_by_its_encrypted_blocks(tmp_path: Path) -> None:
    pool = Pool(tmp_path, encrypted=True)
    # The fake's raw streams are not those that this can read: what matters is what was asked for.
    with contextlib.suppress(Exception):
        await pool.compare()
    assert f"send -w {LIVE}@a" in pool.fake.commands
    assert pool.mounts == []
    # With a key that this host can read, the files are.
    pool.fake.alter(LIVE, keylocation="file:///etc/key")
    assert (await pool.compare()).extent == "files"
    assert f"load-key -L file:///etc/key {TARGET}" in pool.fake.commands


async def test_the_receiver_of_a_raw_stream_learns_no_names_of_files(tmp_path: Path) -> None:
    pool = Pool(tmp_path, encrypted=True)
    pool.fake.alter(LIVE, keylocation="file:///etc/key")
    (tmp_path / "other").mkdir()

    @contextlib.contextmanager
    def mount(_names: Sequence[str]) -> Iterator[list[bytes]]:
        (tmp_path / "files" / "diagnosis").write_bytes(b"text")
        (tmp_path / "other" / "text").write_bytes(b"tent")
        yield [os.fsencode(tmp_path / "files"), os.fsencode(tmp_path / "other")]

    found = await pool.compare(mount=mount)
    assert (found.extent, found.ok) == ("files", False)
    assert "/diagnosis: is missing" in found.text
    assert f"differences from {LIVE}@a; only the host that made the drill knows which" in found.told
    assert "diagnosis" not in found.told
    pool.entry = pool.entry.model_copy(update={"flags": ""})
    assert (await pool.compare(mount=mount)).told == ""


async def test_where_the_key_is_stays_here(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A URL may have a password, or be one, and the receiver is told why files are not compared."""
    pool = Pool(tmp_path, encrypted=True)
    place = "https://user:secret@keys.example/home"
    pool.fake.alter(LIVE, keylocation=place)
    pool.fake.fail("load-key", f"{place} does not answer")
    comparer = SnapshotComparer(Zfs((pool.fake.program,)), INTO)
    restored, live = [
        inventory.parse((await Zfs((pool.fake.program,)).listing([name], recursive=False))[0])[name]
        for name in (TARGET, LIVE)
    ]
    why = await comparer._keys(restored, LiveSnapshot(f"{LIVE}@a", live))
    assert why == "its key cannot be loaded"
    assert place in caplog.text


@pytest.mark.parametrize("kind", ["filesystem", "volume"])
async def test_a_backup_with_another_key_than_the_dataset_has_now_is_a_failure(tmp_path: Path, kind: str) -> None:
    """After `zfs change-key` the encrypted blocks are the same, so a drill said that all is well."""
    pool = Pool(tmp_path, kind=kind, encrypted=True)
    place = "https://user:secret@keys.example/home"
    pool.fake.alter(LIVE, keylocation=place)
    pool.fake.fail(f"{place} {TARGET}", f"Key load error: Incorrect key provided for '{TARGET}'.")
    found = await pool.compare()
    assert (found.extent, found.ok, found.told) == ("guid", False, "")
    assert found.text == (
        f"the backup has another key than {LIVE} has now, as after `zfs change-key`: only the old key opens this"
        " snapshot; what is pushed after a write, or with --full, has the new one"
    )
    assert pool.fake.commands[-1] == f"load-key -n -L {place} {LIVE}"
    # A key that does not open the dataset here either tells nothing of the backup.
    pool.fake.fail(f"{place} {LIVE}", f"Key load error: Incorrect key provided for '{LIVE}'.")
    with contextlib.suppress(Exception):  # as above, of raw streams
        assert (await pool.compare()).extent == "blocks"
    assert f"send -w {LIVE}@a" in pool.fake.commands


async def test_a_plain_copy_of_what_is_locked_here_cannot_be_compared(tmp_path: Path) -> None:
    pool = Pool(tmp_path)
    pool.fake.alter(LIVE, encrypted=True, key_loaded=False)
    found = await pool.compare()
    assert (found.extent, found.ok) == ("guid", True)
    assert f"the key of {LIVE} is not loaded" in found.text


async def test_a_send_that_fails_is_no_result(tmp_path: Path) -> None:
    pool = Pool(tmp_path, kind="volume")
    pool.fake.fail(f"send {LIVE}@a", "cut")
    with pytest.raises(ZfsError, match="it is cut"):
        await pool.compare()


async def test_an_interruption_ends_the_thread(pool: Pool) -> None:
    ended, stopped = threading.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    @contextlib.contextmanager
    def mount(_names: Sequence[str]) -> Iterator[list[bytes]]:
        try:
            yield [os.fsencode(pool.folder / "files")] * 2
        finally:
            ended.set()

    def hop(left: int) -> None:
        """Let the cancelled task run before the thread continues."""
        loop.call_soon(hop, left - 1) if left else stopped.set()

    def interrupt() -> None:
        task.cancel()
        hop(10)

    def progress(_size: int) -> None:
        loop.call_soon_threadsafe(interrupt)
        stopped.wait()

    task = asyncio.ensure_future(pool.compare(mount=mount, progress=progress))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_a_suspended_pool_ends_the_comparison_of_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "while_usable", functools.partial(while_usable, every=0.01))
    pool = Pool(tmp_path, kind="volume")
    pool.fake.fail(f"send {LIVE}@a", "stall")
    with pytest.raises(PoolError, match="the pool is SUSPENDED"):
        await pool.compare(progress=lambda _size: pool.fake.pool("tank", health="SUSPENDED"))


async def test_a_thread_that_the_kernel_holds_is_not_waited_for(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "while_usable", functools.partial(while_usable, every=0.01))
    monkeypatch.setattr(comparing, "_STOPS_WITHIN", 0.01)
    cleared = threading.Event()
    held: list[threading.Thread] = []

    def progress(_size: int) -> None:
        held.append(threading.current_thread())
        pool.fake.pool("tank", health="SUSPENDED")
        cleared.wait()

    try:
        with pytest.raises(PoolError, match="the pool is SUSPENDED"):
            await pool.compare(progress=progress)
        assert held[0].is_alive()
        assert held[0].daemon  # so that the program can end
    finally:
        cleared.set()
        for each in held:
            each.join()
