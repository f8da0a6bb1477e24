"""What the tests of partials share: a stream of three chunks, and what there is of it after a crash, or a fault."""

from __future__ import annotations

import errno
import itertools
import json
import os
import resource
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest
from tests.receiver import crash
from tests.receiver.helpers import (
    PROGRAM,
    SENDER,
    check_listed,
    checked,
    chunks_from,
    chunks_of,
    commit_stream,
    decode,
    everything,
    finish_of,
    long_stream,
    push_of,
    store_stream,
    take,
    take_one,
)

from fullsend_receiver.arrival.commit import commit
from fullsend_receiver.arrival.ingest import Ingest
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.store.api import Upload
from fullsend_receiver.store.local import LocalStore
from fullsend_receiver.store.opened import open_offer, partial_key
from fullsend_receiver.store.recovery import recover

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.receiver.crash import Crasher

#: A stream of three chunks, and where each ends in the raw stream.
RAW = crash.RAW


BORDERS = tuple(itertools.accumulate(chunk.raw_length for chunk in crash.chunks()))


FILE = PurePosixPath("alpha/tank/data/@now.1122334455667788.full.zfs.zst")


KEY = partial_key(SENDER, push_of(RAW))


SHORT = long_stream(1, tail=1)  # two chunks: the model of power cuts reads all files at each step


#: What is left at each step: only what is sure, and so many draws of what may be.
DRAWS = 4


@dataclass(frozen=True)
class Left:
    """What a power cut left, at a step, and what the sender had been told by then."""

    store: LocalStore
    told: int
    stored: bool


@dataclass(frozen=True)
class Kept:
    """A partial as it is found on the disk. `offset`: what its journal says is durable."""

    offset: int
    stored: int
    data: bytes
    committing: bool


def kept(store: LocalStore) -> Kept | None:
    """Read the one partial, by docs/format.md, section 6."""
    journals = list(store.partial.glob("*.journal"))
    if not journals:
        return None
    (journal,) = journals
    offset = stored = 0
    commits = False
    for line in journal.read_bytes().splitlines(keepends=True):
        crc, body = line[:8], line[9:-1]
        if line[8:9] + line[-1:] != b" \n" or int(crc, 16) != zlib.crc32(body):
            break
        row = json.loads(body)
        if "durable" in row:
            offset, stored = row["durable"]["offset"], row["durable"]["stored"]
        commits = commits or "commit" in row
    data = journal.with_suffix(".data")
    return Kept(offset, stored, data.read_bytes() if data.exists() else b"", commits)


def acknowledged(told: tuple[str, ...]) -> int:
    """The last offset that a sender was told of."""
    return max([0, *(int(line.split()[1]) for line in told if line.startswith("acknowledged "))])


def check_recovery(store: LocalStore, told: tuple[str, ...] = ()) -> None:
    """Start after a crash, and compare what is there with the promises of docs/format.md, section 5."""
    before = kept(store)
    listed_before = check_listed(store)
    assert not any(line.startswith("stored ") for line in told) or listed_before == [str(FILE)]

    recover(store)

    after = kept(store)
    listed = check_listed(store)
    assert not read_catalogue(store).problems
    if listed_before or (before and before.committing):
        assert listed == [str(FILE)]
        assert after is None
    else:
        assert not listed
        assert acknowledged(told) <= (after.offset if after else 0), "what was acknowledged is lost"
        if after is not None:
            assert after.offset in BORDERS
            assert len(after.data) == after.stored
            assert decode(after.data) == RAW[: after.offset]
    suffixes = {".journal", ".data"} if after else set()
    assert {path.suffix for path in store.partial.iterdir()} == suffixes

    there = everything(store.root)
    recover(store)
    assert everything(store.root) == there, "a second start changes something"


def check_pushed_again(store: LocalStore) -> None:
    """The same stream, from the start: whatever happened before, it is stored once."""
    assert store_stream(store, SENDER, RAW) == FILE
    assert check_listed(store) == [str(FILE)]
    assert not list(store.partial.iterdir())


def begun(store: LocalStore, chunks: int = 2) -> Upload:
    """A partial of so many chunks, each a batch; closed."""
    push = push_of(RAW)
    ingest = Ingest(store.begin(KEY, open_offer(SENDER, push)))
    take(ingest, crash.chunks()[:chunks])
    ingest.partial.close(keep=True)
    return ingest.partial


def journal_of(store: LocalStore) -> Path:
    return store.partial / f"{KEY}.journal"


def data_of(store: LocalStore) -> Path:
    return store.partial / f"{KEY}.data"


def cut(store: LocalStore, crasher: Crasher, call: str, at: int) -> None:
    outcome = crasher.run("push", store.root, call=call, at=at)
    assert outcome.killed
    assert outcome.call == call


def left_behind(store: LocalStore, chunks: int, per_batch: int) -> None:
    """A partial of so many chunks, of which so many become durable at a time."""
    ingest = Ingest(store.begin(KEY, open_offer(SENDER, push_of(RAW))))
    take(ingest, crash.chunks()[:chunks], per_batch=per_batch)
    ingest.partial.close(keep=True)


def check_resumes(store: LocalStore, raw: bytes = RAW, borders: tuple[int, ...] = BORDERS) -> None:
    """Whatever happened: what is there is resumed, to its end."""
    if not read_catalogue(store).streams:
        found = store.reopen(KEY, at_resume_point=False)
        ingest = Ingest(*found) if found else Ingest(store.begin(KEY, open_offer(SENDER, push_of(raw))))
        assert ingest.offset in {0, *borders}
        take(ingest, chunks_from(raw, ingest.offset))
        assert commit_stream(store, SENDER, ingest, raw) == FILE
    assert check_listed(store) == [str(FILE)]
    (stored,) = read_catalogue(store).streams
    assert checked(store, stored).damage == ()
    assert not list(store.partial.iterdir())


def reopened(store: LocalStore, *, at_resume_point: bool = False) -> bool:
    """Whether there is something to resume; if not, nothing has changed."""
    there = everything(store.partial)
    found = store.reopen(KEY, at_resume_point=at_resume_point)
    if found is None:
        assert everything(store.partial) == there
        return False
    found[0].close(keep=True)
    return True


def flip(path: Path) -> None:
    """A bit of the first line, which others follow, is not what was written."""
    content = path.read_bytes()
    path.write_bytes(content[:50] + bytes([content[50] ^ 1]) + content[51:])


def lose_sector(bad: Path, monkeypatch: pytest.MonkeyPatch, number: int = errno.EIO) -> None:
    """The file cannot be read any more, whatever it is called."""
    real, lost = Path.open, bad.stat().st_ino

    def opened(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.exists() and path.stat().st_ino == lost:
            raise OSError(number, os.strerror(number), str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", opened)


SET_ASIDE = {f"{KEY}.data.damaged", f"{KEY}.journal.damaged"}


def of_raw(store: LocalStore) -> set[str]:
    return {path.name for path in store.partial.glob(f"{KEY}*")}


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let no file grow beyond a size: a full disk that needs no disk. The last write that fits is cut short."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def push_until_it_fails(store: LocalStore) -> tuple[int, OSError | None]:
    """Take and commit RAW. Returns: the last offset that was acknowledged, and the error that ended it."""
    told = 0
    push = push_of(RAW)
    partial = None
    try:
        partial = store.begin(KEY, open_offer(SENDER, push))
        ingest = Ingest(partial)
        for chunk in crash.chunks():
            take_one(ingest, chunk)
            batch = ingest.batch()
            partial.sync(batch)
            told = batch.offset
        commit(Catalogues(store), SENDER, ingest, finish_of(RAW), push, sender_program=PROGRAM)
    except OSError as error:
        return told, error
    finally:
        if partial is not None:
            partial.close(keep=True)
    return told, None


def second(store: LocalStore, raw: bytes) -> Ingest:
    """The same stream, announced under another name: a partial of its own that belongs to the same file."""
    push = push_of(raw).model_copy(update={"snapshot": "as announced"})
    ingest = Ingest(store.begin(partial_key(SENDER, push), open_offer(SENDER, push)))
    take(ingest, chunks_of(raw))
    return ingest
