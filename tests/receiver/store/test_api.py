"""What every store does, whatever holds its bytes: an implementation that passes this is one.

A new one needs a `Kind` in KINDS, and nothing else here. `cut` stands for a process that dies: from its `at`-th step on
that changes what is stored, each raises `Died`, and `again` is the next process. What a kill or a power cut leaves of
files in a folder is tested in test_partials.py; here it is enough that no step is the wrong one.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from typing import TYPE_CHECKING, Any, Final, Protocol

import pytest
from tests.receiver import crash
from tests.receiver.helpers import SENDER, chunks_from, chunks_of, make_store, push_of, take

from fullsend_receiver.arrival.ingest import Ingest
from fullsend_receiver.store.api import StoreError
from fullsend_receiver.store.local import LocalStore
from fullsend_receiver.store.opened import open_offer, partial_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fullsend_receiver.store.api import Store, UploadInfo

#: A stream of three chunks, and where each ends in the raw stream.
RAW: Final = crash.RAW
BORDERS: Final = tuple(itertools.accumulate(chunk.raw_length for chunk in crash.chunks()))
PUSH: Final = push_of(RAW)
KEY: Final = partial_key(SENDER, PUSH)


class Died(BaseException):
    """The process is dead; nothing catches this but the test."""


class Kind(Protocol):
    """An implementation, as the tests need it."""

    def make(self, folder: Path) -> Store:
        """Make an empty store; `folder` is for it alone."""

    def again(self, store: Store) -> Store:
        """Return the same store for a process that starts now."""

    def cut(self, at: int) -> contextlib.AbstractContextManager[Cut]:
        """Let all steps from the `at`-th on raise Died."""


class Cut:
    """Counts steps."""

    def __init__(self, at: int) -> None:
        self._left = at
        self.died = False

    def step(self) -> None:
        """Something is about to be changed. Raises: Died."""
        self._left -= 1
        if self._left <= 0:
            self.died = True
            raise Died


class Local:
    """Files in a folder."""

    _CALLS: Final = ("write", "fdatasync", "fsync", "ftruncate", "rename", "replace", "unlink", "mkdir")

    def make(self, folder: Path) -> LocalStore:
        return make_store(folder)

    def again(self, store: Store) -> LocalStore:
        assert isinstance(store, LocalStore)
        return LocalStore(store.root)

    @contextlib.contextmanager
    def cut(self, at: int) -> Iterator[Cut]:
        cut = Cut(at)
        with pytest.MonkeyPatch.context() as patch:
            for name in self._CALLS:
                patch.setattr(os, name, self._step(cut, getattr(os, name)))
            yield cut

    @staticmethod
    def _step(cut: Cut, real: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            cut.step()
            return real(*arguments, **named)

        return call


KINDS: Final[dict[str, Kind]] = {"local": Local()}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def store(kind: Kind, tmp_path: Path) -> Store:
    return kind.make(tmp_path)


def begun(store: Store, chunks: int = 0) -> Ingest:
    """Begin an upload, and append so many chunks, each a batch."""
    ingest = Ingest(store.begin(KEY, open_offer(SENDER, PUSH)))
    take(ingest, crash.chunks()[:chunks])
    return ingest


@contextlib.contextmanager
def owned(ingest: Ingest) -> Iterator[Ingest]:
    """Let go of an upload, also where its process dies: the system does that much for the dead."""
    try:
        yield ingest
    finally:
        ingest.partial.close(keep=True)


def resumed(store: Store, *, at_resume_point: bool = False) -> Ingest | None:
    found = store.reopen(KEY, at_resume_point=at_resume_point)
    return None if found is None else Ingest(*found)


def keys(store: Store) -> list[str]:
    return [key for key, _nothing in store.uploads(lambda upload: upload.journal)]


# --- what arrives -----------------------------------------------------------------------------------------------


def test_upload_is_told_with_what_it_is_and_how_much_is_durable(store: Store) -> None:
    ingest = begun(store, chunks=2)
    opened = open_offer(SENDER, PUSH)

    def look(upload: UploadInfo) -> tuple[Any, ...]:
        said, (end, resumable) = upload.journal, upload.places
        assert upload.opened is not None
        assert end is not None
        assert resumable is not None
        assert upload.last > 0
        return (
            (upload.key, upload.opened.sender, upload.opened.offer),
            (said.offset, said.stored, said.committing),
            (end.offset, resumable.offset, upload.arriving),
        )

    size = ingest.partial.size
    told = (KEY, SENDER, opened.offer), (BORDERS[1], size, None), (BORDERS[1], BORDERS[1], True)
    assert list(store.uploads(look)) == [(KEY, told)]
    ingest.partial.close(keep=True)
    ((_key, (_what, _durable, (*_places, arriving))),) = store.uploads(look)
    assert not arriving


def test_sync_tells_the_raw_bytes_that_are_durable(store: Store) -> None:
    ingest = begun(store)
    told = []
    for chunk in crash.chunks():
        ingest.take(chunk)
        told.append(ingest.partial.sync(ingest.batch()))
    assert tuple(told) == BORDERS
    ingest.partial.close(keep=True)


def test_what_was_appended_is_read_back(store: Store) -> None:
    if not store.capabilities.can_read_partials:
        pytest.skip("this store gives back nothing before the commit")
    ingest = begun(store, chunks=2)
    frames = b"".join(bytes(chunk.frame) for chunk in crash.chunks()[:2])
    assert ingest.partial.read(0, len(frames)) == frames
    assert ingest.partial.read(5, 7) == frames[5:12]
    assert ingest.partial.read(len(frames), 1) == b""
    ingest.partial.close(keep=True)


def test_upload_that_is_kept_resumes_where_it_was_durable(store: Store) -> None:
    ingest = begun(store, chunks=1)
    ingest.take(crash.chunks()[1])  # and no batch of it
    ingest.partial.close(keep=True)
    again = resumed(store)
    assert again is not None
    assert again.offset == BORDERS[0]
    take(again, chunks_from(RAW, again.offset))
    assert again.offset == len(RAW)
    again.partial.close(keep=True)


@pytest.mark.parametrize("there", [1, 2, 3])
def test_upload_resumes_for_a_token_behind_a_resumable_record(store: Store, there: int) -> None:
    begun(store, chunks=there).partial.close(keep=True)
    again = resumed(store, at_resume_point=True)
    assert again is not None
    # The last chunk is short, so nothing may follow it.
    least = BORDERS[min(there, 2) - 1]
    assert again.offset == least if store.capabilities.can_truncate else again.offset <= least
    again.partial.close(keep=True)


def test_upload_that_was_discarded_is_gone(store: Store) -> None:
    ingest = begun(store, chunks=2)
    ingest.partial.close(keep=False)
    assert keys(store) == []
    assert resumed(store) is None


@pytest.mark.parametrize("keep", [False, True])
def test_upload_ends_once_and_the_first_end_counts(store: Store, keep: bool) -> None:
    ingest = begun(store, chunks=2)
    ingest.partial.close(keep=keep)
    ingest.partial.close(keep=not keep)
    assert keys(store) == [KEY] * keep


def test_upload_that_is_discarded_by_its_key_is_gone(store: Store) -> None:
    begun(store, chunks=2).partial.close(keep=True)
    store.discard(KEY)
    store.discard(KEY)  # nothing left: fine too
    assert keys(store) == []


def test_begin_throws_away_what_is_there_of_the_same_key(store: Store) -> None:
    begun(store, chunks=2).partial.close(keep=True)
    ingest = begun(store)
    assert (ingest.offset, ingest.partial.size) == (0, 0)
    take(ingest, chunks_of(RAW))
    ingest.partial.close(keep=True)
    again = resumed(store)
    assert again is not None
    assert again.offset == len(RAW)
    again.partial.close(keep=True)


def test_upload_without_a_batch_is_nothing_to_resume_and_gone_with_the_next_start(kind: Kind, store: Store) -> None:
    begun(store).partial.close(keep=True)
    assert resumed(store) is None
    store = kind.again(store)
    store.recover()
    assert keys(store) == []


def test_seal_wants_all_of_it_durable(store: Store) -> None:
    ingest = begun(store, chunks=1)
    ingest.take(crash.chunks()[1])
    with pytest.raises(StoreError, match="durable"):
        ingest.partial.seal(2)
    ingest.partial.close(keep=True)


def test_what_was_acknowledged_outlives_a_process_that_dies_at_any_step(kind: Kind, tmp_path: Path) -> None:
    for at in itertools.count(1):
        store = kind.make(tmp_path / str(at))
        told = 0
        with kind.cut(at) as cut, contextlib.suppress(Died), owned(begun(store)) as ingest:
            for chunk in crash.chunks():
                ingest.take(chunk)
                told = ingest.partial.sync(ingest.batch())
        store = kind.again(store)
        store.recover()
        again = resumed(store)
        found = 0 if again is None else again.offset
        assert told <= found
        assert found in {0, *BORDERS}
        if again is not None:
            again.partial.close(keep=True)
        if not cut.died:
            break
    assert told == len(RAW)


def test_process_that_dies_as_it_discards_leaves_all_or_nothing(kind: Kind, tmp_path: Path) -> None:
    for at in itertools.count(1):
        store = kind.make(tmp_path / str(at))
        begun(store, chunks=2).partial.close(keep=True)
        with kind.cut(at) as cut, contextlib.suppress(Died):
            store.discard(KEY)
        store = kind.again(store)
        store.recover()
        again = resumed(store)
        assert again is None or again.offset == BORDERS[1]
        if again is not None:
            again.partial.close(keep=True)
        if not cut.died:
            break
    assert again is None
