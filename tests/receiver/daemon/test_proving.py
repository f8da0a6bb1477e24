"""What a sender proves of its stored streams: by genuine chains, merged in the store."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.chains import named
from tests.receiver.helpers import SENDER, plant, remove, store_stream
from tests.receiver.maintenance.test_merging import keep, merge, raw_of
from tests.streams import substream

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import FullsendError
from fullsend_protocol.shared.settings import SizeOrShare
from fullsend_protocol.shared.units import parse_time
from fullsend_protocol.stream.opening import opening_of
from fullsend_protocol.stream.without_frees import HashWithoutFrees
from fullsend_protocol.wire import messages
from fullsend_receiver.arrival.free_space import Room
from fullsend_receiver.catalogue.scrub_results import Scrubbed, ScrubLog
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.catalogue.streams import Damaged, NoSuchStream
from fullsend_receiver.daemon.answers import Answers
from fullsend_receiver.daemon.proving import ChainHasher, ChainNotHashed
from fullsend_receiver.maintenance.checks import Checks, ScrubSettings
from fullsend_receiver.maintenance.merge_records import read_merges
from fullsend_receiver.store.workers import Workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path, PurePosixPath

    from fullsend_receiver.store.local import LocalStore

COMMAND: Final = [sys.executable, "-m", "fullsend_receiver", "merge", "--sha256"]
CHAIN: Final = named("t2-enc2-w")  # 0..5: merged are 1, 2 and 3, because the two newest stay
NOWHERE: Final = "ab" * 32


@contextlib.asynccontextmanager
async def asking(store: LocalStore, command: list[str] | None = None) -> AsyncIterator[Any]:
    """A function that asks for a sender, and returns the whole answer."""
    catalogues = Catalogues(store)
    with ThreadPoolExecutor(2) as threads:
        workers = Workers(threads, threads, threads)
        answers = Answers(
            *(catalogues, workers, Checks(catalogues, workers, ScrubSettings(0, 0)), SENDER),
            Room(SizeOrShare(0), lambda: workers.run(store.space)),
            peer=SENDER,
            warn_at=None,
            hasher=ChainHasher(command or COMMAND),
        )

        async def ask(question: messages.Question) -> list[Any]:
            return [part async for part in answers.answer(question)]

        yield ask
        await answers.close()


def increments_merged(store: LocalStore) -> PurePosixPath:
    """Store a chain, and merge its increments. Returns: the merged one."""
    keep(store, CHAIN)
    (done,) = merge(store, 1e9, undelete_merged=0.0)
    file: PurePosixPath = done.file
    return file


def full_merged(store: LocalStore) -> PurePosixPath:
    keep(store, CHAIN)
    (done,) = merge(store, undelete_merged=0.0)
    file: PurePosixPath = done.file
    return file


def prove(file: object, sha256: str | None, *, whole: bool = False) -> messages.Prove:
    return messages.Prove(file=str(file), sha256=sha256 or NOWHERE, whole=whole)


async def said(ask: Any, question: messages.Prove) -> tuple[str, str]:
    (answer,) = await ask(question)
    return answer.result, answer.why


async def merged(ask: Any, dataset: str | None = None) -> list[messages.MergedEntry]:
    *pages, done = await ask(messages.MergedWanted(dataset=dataset))
    assert done == messages.Done()
    return [each for page in pages for each in page.streams]


async def test_a_merged_full_is_what_its_host_sends(store: LocalStore) -> None:
    file = full_merged(store)
    async with asking(store) as ask:
        (entry,) = await merged(ask)
        assert (entry.file, entry.base_guid, entry.proven) == (str(file), None, None)
        assert await said(ask, prove(file, NOWHERE)) == ("different", "")
        assert read_merges(store.documents, SENDER).proofs() == {}
        assert await said(ask, prove(file, CHAIN.genuine(None, 3))) == ("same", "")
        (entry,) = await merged(ask)
        assert entry.proven is not None
        assert parse_time(entry.proven) is not None
        (key,) = read_merges(store.documents, SENDER).proofs()
        assert key[0] == str(file)
        assert read_merges(store.documents, SENDER).proven[0].how == "stream"
        # A full is a chain by itself.
        assert await said(ask, prove(file, CHAIN.genuine(None, 3), whole=True)) == ("same", "")


async def test_an_increment_is_compared_by_itself_or_as_the_state_that_it_leads_to(store: LocalStore) -> None:
    file = increments_merged(store)
    before = sorted(path.name for path in store.root.rglob("*.zst"))
    async with asking(store) as ask:
        assert await said(ask, prove(file, CHAIN.genuine(0, 3))) == ("same", "")
        assert await said(ask, prove(file, CHAIN.genuine(None, 3))) == ("different", "")
        assert await said(ask, prove(file, CHAIN.genuine(None, 3), whole=True)) == ("same", "")
        assert await said(ask, prove(file, CHAIN.genuine(0, 3), whole=True)) == ("different", "")
    assert [each.how for each in read_merges(store.documents, SENDER).proven] == ["state"]
    assert sorted(path.name for path in store.root.rglob("*.zst")) == before


async def test_an_increment_without_frees_that_may_be_redundant(store: LocalStore) -> None:
    file = increments_merged(store)
    form = HashWithoutFrees("it")
    form.feed(raw_of(store, file))
    async with asking(store) as ask:
        answer = await ask(messages.FormWanted(file=str(file)))
        assert answer == [messages.Form(sha256=form.finish(), why="")]
        for other in ("../x", "", f"{SENDER}/tank/data/@s1.zfs.zst"):
            (answer,) = await ask(messages.FormWanted(file=other))
            assert answer == messages.Form(sha256=None, why="it is not stored any more")
        (store.root / f"{file}.sha256").write_text(f"{'0' * 64}  {file.name}\n")
        (answer,) = await ask(messages.FormWanted(file=str(file)))
        assert (answer.sha256, "is damaged: its SHA-256 is not the one beside it" in answer.why) == (None, True)
        (store.root / file).write_bytes(b"")
        (answer,) = await ask(messages.FormWanted(file=str(file)))
        assert (answer.sha256, answer.why.startswith("the receiver's copy is damaged (")) == (None, True)
    assert read_merges(store.documents, SENDER).proofs() == {}  # it proves nothing


async def test_what_is_not_merged_can_be_compared_too_and_is_not_among_the_merged(store: LocalStore) -> None:
    full, one, *_more = keep(store, CHAIN)
    async with asking(store) as ask:
        assert await merged(ask) == []
        assert await said(ask, prove(full, CHAIN.genuine(None, 0))) == ("same", "")
        assert await said(ask, prove(one, CHAIN.genuine(0, 1))) == ("same", "")
        assert await said(ask, prove(one, CHAIN.genuine(None, 1), whole=True)) == ("same", "")


async def test_only_the_asked_dataset_and_only_what_is_whole(store: LocalStore) -> None:
    file = full_merged(store)
    package = plant(store, "s1", 9, kind="package", proven_by="merge", dataset="tank/package")
    plant(store, "s2", 10, proven_by="merge", dataset="tank/other")
    async with asking(store) as ask:
        assert [each.dataset for each in await merged(ask, "tank/other")] == ["tank/other"]
        assert len(await merged(ask)) == 2
        assert await merged(ask, "tank/none") == []
        (store.root / file).write_bytes(b"")
        assert [each.dataset for each in await merged(ask)] == ["tank/other"]
        result, why = await said(ask, prove(file, CHAIN.genuine(None, 3)))
        assert (result, why.startswith("the receiver's copy is damaged (")) == ("unknown", True)
        assert await said(ask, prove(package, NOWHERE)) == ("unknown", "it is a package of several snapshots")


async def test_a_stream_in_several_segments_is_compared_once_it_was_read(store: LocalStore) -> None:
    file = plant(store, "s1", 1, sha256=None)
    async with asking(store) as ask:
        result, why = await said(ask, prove(file, NOWHERE))
        assert (result, why.endswith("run `fullsendd verify`")) == ("unknown", True)
    received, at = "2026-11-24T00:00:00Z", "2026-11-25T00:00:00Z"
    ScrubLog(store).add(Scrubbed(str(file), received, at, (), NOWHERE, at))
    async with asking(store) as ask:
        assert await said(ask, prove(file, NOWHERE)) == ("same", "")


async def test_what_is_gone_or_another_s_is_gone(store: LocalStore) -> None:
    theirs = plant(store, "s1", 1, sender="beta")
    async with asking(store) as ask:
        for file in (theirs, "alpha/tank/data/@s1.zfs.zst", "../x", "/", ""):
            assert await said(ask, prove(file, "11" * 32)) == ("gone", "")
            with pytest.raises(NoSuchStream):
                await ask(messages.HeadWanted(file=str(file)))


async def test_a_chain_that_cannot_be_restored_or_merged_is_not_known(store: LocalStore) -> None:
    files = keep(store, CHAIN, 2)
    (store.root / f"{files[1]}.sha256").write_text(f"{'0' * 64}  {files[1].name}\n")
    async with asking(store) as ask:
        result, why = await said(ask, prove(files[2], CHAIN.genuine(None, 2), whole=True))
        assert (result, "is damaged: its SHA-256 is not the one beside it" in why) == ("unknown", True)
        remove(store, files[0])
        result, why = await said(ask, prove(files[2], CHAIN.genuine(None, 2), whole=True))
        assert (result, "is not stored" in why) == ("unknown", True)
    assert read_merges(store.documents, SENDER).proofs() == {}


async def test_a_chain_that_changes_meanwhile_is_gone(store: LocalStore, tmp_path: Path) -> None:
    files = keep(store, CHAIN, 2)
    removed = " ".join(f"{store.root / files[2]}{suffix}" for suffix in (".json", ".sha256", ""))
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\nrm {removed}\necho {CHAIN.genuine(None, 2)}\n")
    program.chmod(0o700)
    async with asking(store, [str(program)]) as ask:
        assert await said(ask, prove(files[2], CHAIN.genuine(None, 2), whole=True)) == ("gone", "")


async def test_how_a_stream_begins(store: LocalStore) -> None:
    file = full_merged(store)
    strange = store_stream(store, SENDER, substream(payload=bytes(limits.HEAD_MAX)))
    async with asking(store) as ask:
        (head,) = await ask(messages.HeadWanted(file=str(file)))
        raw = raw_of(store, file)
        assert base64.b64decode(head.raw) == bytes(opening_of("it", [raw]))
        assert hashlib.sha256(raw).hexdigest() == CHAIN.genuine(None, 3)
        assert await ask(messages.HeadWanted(file=str(strange))) == [messages.Head(raw=None)]
        data = bytearray((store.root / file).read_bytes())
        data[40] ^= 1
        (store.root / file).write_bytes(data)
        with pytest.raises(Damaged):
            await ask(messages.HeadWanted(file=str(file)))


# --- the process -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ([], "this receiver cannot merge"),
        (["/no/such/program"], "/no/such/program cannot be run: No such file or directory"),
        (["/bin/sh", "-c", "echo one; echo fullsendd: two >&2; exit 3"], "two"),
        (["/bin/sh", "-c", "exit 3"], "the merge has ended with 3"),
        (["/bin/sh", "-c", "echo hash"], "the merge has ended with 0"),
    ],
)
async def test_without_a_hash_there_is_a_reason(command: list[str], why: str) -> None:
    with pytest.raises(ChainNotHashed) as caught:
        await ChainHasher(command).sha256(["x"])
    assert str(caught.value) == why
    assert isinstance(caught.value, FullsendError)


async def test_a_cancelled_question_ends_the_process_and_the_next_one_has_its_turn(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    script = f"echo $$ >{note}.new; mv {note}.new {note}; [ $0 = go ] || exec sleep 1000; echo {NOWHERE}"
    hasher = ChainHasher(["/bin/sh", "-c", script])
    asked = asyncio.create_task(hasher.sha256(["wait"]))
    other = asyncio.create_task(hasher.sha256(["go"]))
    while not note.exists():
        await asyncio.sleep(0.01)
    pid = int(note.read_text())
    assert not other.done()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert await other == NOWHERE
