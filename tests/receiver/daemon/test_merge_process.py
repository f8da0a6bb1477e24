"""The process that merges beside the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import pytest
from tests.receiver.helpers import SENDER, plant, push_of, small_stream

from fullsend_receiver.daemon.merge_process import MergeProcess
from fullsend_receiver.maintenance.merge_records import note_failures, note_merge_run, read_merge_run
from fullsend_receiver.store.documents import LocalDocuments
from fullsend_receiver.store.opened import open_offer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from fullsend_receiver.store.local import LocalStore


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


@contextlib.asynccontextmanager
async def running(merges: MergeProcess) -> AsyncIterator[None]:
    task = asyncio.create_task(merges.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(log: pytest.LogCaptureFixture, text: str) -> None:
    while text not in log.text:
        await asyncio.sleep(0.01)


async def test_it_runs_when_it_is_wanted_and_logs_what_is_said(
    store: LocalStore, thread: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    script = "import sys; print('one is merged'); print('two', file=sys.stderr); sys.exit(3)"
    merges = MergeProcess(store, [sys.executable, "-c", script], thread)
    async with running(merges):
        merges.begin()
        await until(caplog, "merges: the process has ended with 3")
    assert "one is merged" in caplog.text
    assert "two" in caplog.text


async def test_what_a_killed_process_has_left_is_removed(
    store: LocalStore, thread: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    opened = open_offer("alpha", push_of(small_stream("tank/data", 1))).model_copy(update={"merge": True})
    store.begin("ab" * 16, opened).close(keep=True)
    merges = MergeProcess(store, [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], thread)
    async with running(merges):
        merges.begin()
        await until(caplog, "merges: the process has ended with -9")
        while list(store.partial.iterdir()):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("import os; os.kill(os.getpid(), 9)", "its process was killed by signal 9"),
        ("raise RuntimeError('unforeseen')", "RuntimeError: unforeseen"),
        ("raise SystemExit(2)", "its process has ended with 2"),
    ],
)
async def test_an_end_that_is_none_is_noted_until_a_run_comes_to_its_end(
    store: LocalStore, thread: ThreadPoolExecutor, tmp_path: Path, script: str, why: str
) -> None:
    once = tmp_path / "once"
    program = f"import os\nif not os.path.exists({str(once)!r}):\n    open({str(once)!r}, 'w')\n    {script}"
    merges = MergeProcess(store, [sys.executable, "-c", program], thread)
    async with running(merges):
        merges.begin()
        while read_merge_run(store.documents).why is None:
            await asyncio.sleep(0.01)
        assert read_merge_run(store.documents).why == why
        merges.begin()
        while read_merge_run(store.documents).why is not None:
            await asyncio.sleep(0.01)


#: A run in which a merge has failed, as `fullsendd prune --merge-only` ends it. Takes the folder of the documents.
_FAILED_AT_ITS_END: Final = """\
import pathlib, sys
from fullsend_receiver.maintenance.merge_records import note_merge_run
from fullsend_receiver.store.documents import LocalDocuments
state = pathlib.Path(sys.argv[1])
note_merge_run(LocalDocuments(state, state / "lock"), None, 2.0)
sys.exit(1)
"""


async def test_a_run_in_which_a_merge_has_failed_has_come_to_its_end_if_it_notes_that(
    store: LocalStore, thread: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    note_merge_run(store.documents, "its process was killed by signal 9", 1.0)
    merges = MergeProcess(store, [sys.executable, "-c", _FAILED_AT_ITS_END, str(store.root / ".state")], thread)
    async with running(merges):
        merges.begin()
        await until(caplog, "merges: the process has ended with 1")
        merges.begin()
        while (run := read_merge_run(store.documents)).ends < 2:
            await asyncio.sleep(0.01)
    assert run.why is None


async def test_what_an_earlier_run_has_named_does_not_show_that_this_one_came_to_its_end(
    store: LocalStore, thread: ThreadPoolExecutor
) -> None:
    plant(store, "s1", 1)
    note_failures(store.documents, SENDER, ["tank/data@s1: is spoilt"])
    merges = MergeProcess(store, [sys.executable, "-c", "raise SystemExit('boom')"], thread)
    async with running(merges):
        merges.begin()
        while (why := read_merge_run(store.documents).why) is None:
            await asyncio.sleep(0.01)
    assert why == "boom"


async def test_a_store_that_takes_no_note_of_it_is_logged(
    store: LocalStore, thread: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_arguments: object, **_named: object) -> bool:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(LocalDocuments, "put", refuses)
    monkeypatch.setattr(LocalDocuments, "get", refuses)
    merges = MergeProcess(store, [sys.executable, "-c", "raise SystemExit(1)"], thread)
    async with running(merges):
        merges.begin()
        await until(caplog, "merges: how they have ended cannot be noted: [Errno 30] Read-only file system")


async def test_the_daemon_s_end_ends_it(store: LocalStore, thread: ThreadPoolExecutor, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    script = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(1000)"
    merges = MergeProcess(store, [sys.executable, "-c", script], thread)
    async with running(merges):
        merges.begin()
        while not (note.exists() and note.read_text()):
            await asyncio.sleep(0.01)
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


async def test_a_program_that_is_missing_is_logged_and_the_next_one_is_tried(
    store: LocalStore, thread: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    merges = MergeProcess(store, ["/no/such/program"], thread)
    async with running(merges):
        for count in (1, 2):
            merges.begin()
            while caplog.text.count("merges: have failed") < count:
                await asyncio.sleep(0.01)
        while (why := read_merge_run(store.documents).why) is None:
            await asyncio.sleep(0.01)
    assert why.startswith("FileNotFoundError: ")


async def test_without_a_command_nothing_runs(store: LocalStore, thread: ThreadPoolExecutor) -> None:
    merges = MergeProcess(store, (), thread)
    async with running(merges):
        merges.begin()
        await asyncio.sleep(0)


async def test_merges_by_rules_that_have_changed_end(
    store: LocalStore, thread: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    merges = MergeProcess(store, [sys.executable, "-uc", "import time; print('merging'); time.sleep(1000)"], thread)
    assert not merges.interrupt()  # nothing runs
    async with running(merges):
        merges.begin()
        await until(caplog, "merging")
        assert merges.interrupt()
        assert not merges.interrupt()
        merges.begin()
        while caplog.text.count("merging") < 2:
            await asyncio.sleep(0.01)
    assert read_merge_run(store.documents).why is None
    assert "has ended with" not in caplog.text
    assert "merges: end, because receiver.toml has changed" in caplog.text
