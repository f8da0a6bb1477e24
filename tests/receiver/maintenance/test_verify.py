"""One service checks for commands, for senders and for the daemon: what it finds has types."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pytest
from tests import streams
from tests.receiver.helpers import SENDER, manifest_path, remove, store_stream

from fullsend_receiver.catalogue.problems import symbolic_link, without_manifest
from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.maintenance.verify import (
    Checked,
    Lost,
    Rebuilt,
    Removed,
    Subject,
    Unlisted,
    Verifier,
    take_back,
    unlisted,
)

if TYPE_CHECKING:
    from fullsend_receiver.catalogue.scrub_results import Scrubbed
    from fullsend_receiver.store.local import LocalStore

RAW = streams.substream(streams.object_(1))


@pytest.fixture
def file(store: LocalStore) -> PurePosixPath:
    return store_stream(store, SENDER, RAW)


def subject(store: LocalStore) -> Subject:
    (stored,) = read_catalogue(store).streams
    return Subject.of(stored)


def never(_subject: Subject) -> list[str]:
    raise AssertionError


def test_a_stream_of_the_catalogue_and_of_a_list_is_the_same(store: LocalStore, file: PurePosixPath) -> None:
    catalogue = read_catalogue(store)
    (stored,) = catalogue.streams
    entry = catalogue.entry(stored)
    listed = Subject(PurePosixPath(entry.file), entry.dataset, entry.snapshot, entry.received, entry.raw_bytes)
    assert Subject.of(stored) == listed
    assert Subject.of(stored).file == file


def test_what_is_whole_is_recorded_and_breaks_nothing(store: LocalStore, file: PurePosixPath) -> None:
    recorded: list[Scrubbed] = []
    found = Verifier(store, recorded.append, never).check(subject(store))
    assert isinstance(found, Checked)
    assert (found.result.file, found.result.damage, found.breaks, found.unrecorded) == (str(file), (), (), None)
    assert recorded == [found.result]


def test_what_is_damaged_says_what_it_breaks_also_where_that_cannot_be_recorded(
    store: LocalStore, file: PurePosixPath
) -> None:
    (store.root / file).write_bytes(b"")

    def record(_result: Scrubbed) -> None:
        raise OSError(30, "Read-only file system")

    found = Verifier(store, record, lambda about: [f"{about.file}.next"]).check(subject(store))
    assert isinstance(found, Checked)
    assert found.result.damage
    assert found.breaks == (f"{file}.next",)
    assert str(found.unrecorded) == "[Errno 30] Read-only file system"


def test_what_is_removed_meanwhile_is_not_recorded(store: LocalStore, file: PurePosixPath) -> None:
    chosen = subject(store)
    remove(store, file)

    def record(_result: Scrubbed) -> None:
        raise AssertionError

    assert Verifier(store, record, never).check(chosen) == Removed(chosen)


def test_what_ends_the_caller_ends_the_check(store: LocalStore, file: PurePosixPath) -> None:
    def between() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Verifier(store, never, never).check(subject(store), between)  # type: ignore[arg-type]


def test_a_file_without_manifest_is_taken_back_or_lost(store: LocalStore, file: PurePosixPath) -> None:
    manifest_path(store, file).unlink()
    missing = file.with_name("@other.zfs.zst")
    problems = [symbolic_link("alpha/x"), without_manifest(str(file)), without_manifest(str(missing))]
    rebuilt, lost = take_back(store, problems)
    assert rebuilt == Rebuilt(file)
    assert isinstance(lost, Lost)
    assert lost.file == missing
    assert lost.why.startswith(f"{missing}: has no manifest, and none can be made: ")
    assert manifest_path(store, file).exists()


def test_what_was_tried_to_be_taken_back_is_not_said_twice() -> None:
    link = symbolic_link("alpha/x")
    assert list(unlisted([without_manifest("alpha/@a.zfs.zst"), link])) == [Unlisted(link)]
