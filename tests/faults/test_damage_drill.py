"""A drill over every genuine stream: whatever happens to one stored stream, a check finds and names it, and all chains
without it stay restorable.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pytest
from tests.receiver.helpers import SENDER, hash_path, make_store, manifest_path, scrub, store_stream
from tests.streams import each, whole

from fullsend_receiver.catalogue.scrub_results import Scrubbed
from fullsend_receiver.catalogue.streams import Catalogue, read_catalogue
from fullsend_receiver.maintenance.verify import Rebuilt, take_back
from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store.local import LocalStore

if TYPE_CHECKING:
    from tests.streams import Genuine

pytestmark = pytest.mark.slow

#: Bytes that are flipped in each stream, one at a time.
_FLIPS = 12


def small() -> list[Genuine]:
    return [stream for stream in whole() if not stream.name.startswith("corpus/")]


class Drill:
    """A store with every genuine stream, each known to be whole, and which of them can be restored."""

    def __init__(self, store: LocalStore, files: dict[str, PurePosixPath]) -> None:
        self.store = store
        self.files = files
        self.restorable = self.find_restorable()

    def catalogue(self) -> Catalogue:
        return read_catalogue(self.store)

    def find_restorable(self) -> set[str]:
        catalogue = self.catalogue()
        return {str(stored.file) for stored in catalogue.streams if catalogue.restorable(stored)}

    def with_dependents(self, file: PurePosixPath) -> set[str]:
        """The stream, and all that cannot be restored without it."""
        catalogue = self.catalogue()
        stored = catalogue.at(file)
        assert stored is not None
        return {str(file), *(str(other.file) for other in catalogue.dependents(stored))}

    def check(self, file: PurePosixPath) -> Scrubbed:
        """Check a stream, and record the result."""
        catalogue = self.catalogue()
        stored = catalogue.at(file)
        assert stored is not None
        found = scrub(self.store, file, stored.summary.received)
        assert found is not None
        catalogue.scrubbed.add(found)
        return found

    @contextmanager
    def damaged(self, *files: PurePosixPath) -> Iterator[list[Path]]:
        """The paths of these streams' `.zst`; afterwards they are as they were, and are found whole again."""
        paths = [self.store.root / file for file in files]
        kept = {path: path.read_bytes() for file in files for path in (self.store.root / file, *self.beside(file))}
        try:
            yield paths
        finally:
            for path, content in kept.items():
                path.write_bytes(content)
            for file in files:
                assert self.check(file).verdict == "whole"
        assert self.find_restorable() == self.restorable

    def beside(self, file: PurePosixPath) -> tuple[Path, Path]:
        return manifest_path(self.store, file), hash_path(self.store, file)

    def expect(self, *files: PurePosixPath, lost: set[str]) -> None:
        """These are found and named, and of all others only `lost` cannot be restored."""
        catalogue = self.catalogue()
        for file in files:
            found = self.check(file)
            assert found.verdict == "damaged"
            assert found.damage[0]
            assert found.file == str(file)
            stored = catalogue.at(file)
            assert stored is not None
            entry = read_catalogue(self.store).entry(stored)
            assert (entry.damaged, entry.restorable) == (found.damage[0], False)
        # A stream with several bases may be restorable on another one.
        now = self.find_restorable()
        assert now >= self.restorable - lost
        assert not now & {str(file) for file in files}


@pytest.fixture(scope="module")
def drill(tmp_path_factory: pytest.TempPathFactory) -> Drill:
    store = make_store(tmp_path_factory.mktemp("drill"))
    files: dict[str, PurePosixPath] = {}
    for stream in small():
        try:
            files[stream.name] = store_stream(store, SENDER, stream.read())
        except StoreError:  # another package of the same name
            files[stream.name] = store_stream(store, "beta", stream.read())
    made = Drill(store, files)
    for file in files.values():
        assert made.check(file).verdict == "whole"
    return made


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << at % 8
    path.write_bytes(content)


@each(small)
def test_a_flipped_byte(drill: Drill, stream: Genuine) -> None:
    file = drill.files[stream.name]
    size = (drill.store.root / file).stat().st_size
    places = random.Random(stream.name).sample(range(size), min(_FLIPS, size))
    for at in places:
        with drill.damaged(file) as (path,):
            lost = drill.with_dependents(file)
            flip(path, at)
            drill.expect(file, lost=lost)


@each(small)
@pytest.mark.parametrize("left", [0.0, 0.5, 1.0])
def test_a_cut_tail(drill: Drill, stream: Genuine, left: float) -> None:
    file = drill.files[stream.name]
    with drill.damaged(file) as (path,):
        lost = drill.with_dependents(file)
        os.truncate(path, min(int(path.stat().st_size * left), path.stat().st_size - 1))
        drill.expect(file, lost=lost)


@each(small)
def test_a_missing_file(drill: Drill, stream: Genuine) -> None:
    file = drill.files[stream.name]
    with drill.damaged(file) as (path,):
        lost = drill.with_dependents(file)
        path.unlink()
        drill.expect(file, lost=lost)


@each(small)
def test_swapped_files(drill: Drill, stream: Genuine) -> None:
    file = drill.files[stream.name]
    other = next(each for each in drill.files.values() if each != file)
    with drill.damaged(file, other) as (one, two):
        lost = drill.with_dependents(file) | drill.with_dependents(other)
        first, second = one.read_bytes(), two.read_bytes()
        one.write_bytes(second)
        two.write_bytes(first)
        drill.expect(file, other, lost=lost)


@each(small)
def test_a_lost_manifest(drill: Drill, stream: Genuine) -> None:
    file = drill.files[stream.name]
    with drill.damaged(file):
        lost = drill.with_dependents(file)
        manifest_path(drill.store, file).unlink()
        catalogue = drill.catalogue()
        assert [problem.path for problem in catalogue.problems] == [str(file)]
        assert drill.find_restorable() >= drill.restorable - lost
        assert list(take_back(drill.store, catalogue.problems)) == [Rebuilt(file)]
        assert drill.check(file).verdict == "whole"
        assert drill.find_restorable() == drill.restorable


@each(small)
@pytest.mark.parametrize("content", [None, b"", b"{}", b"garbage"])
def test_a_manifest_that_cannot_be_read(drill: Drill, stream: Genuine, content: bytes | None) -> None:
    file = drill.files[stream.name]
    with drill.damaged(file):
        lost = drill.with_dependents(file)
        path = manifest_path(drill.store, file)
        if content is None:
            flip(path, path.stat().st_size // 2)
        else:
            path.write_bytes(content)
        catalogue = drill.catalogue()
        stored = catalogue.at(file)
        if stored is None:
            assert [problem.path for problem in catalogue.problems] == [f"{file}.json"]
        else:  # still a manifest, which says something else, or the same
            found = scrub(drill.store, file, stored.summary.received)
            assert found is not None
            assert found.verdict == "damaged" or drill.store.manifest(file).raw_bytes == stream.size
        assert drill.find_restorable() >= drill.restorable - lost


@each(small)
def test_a_missing_base(drill: Drill, stream: Genuine) -> None:
    file = drill.files[stream.name]
    with drill.damaged(file) as (path,):
        lost = drill.with_dependents(file)
        for each_path in (*drill.beside(file), path):
            each_path.unlink()
        now = drill.find_restorable()
        assert now >= drill.restorable - lost
        catalogue = drill.catalogue()
        for stored in catalogue.streams:
            if str(stored.file) in drill.restorable - now:
                assert catalogue.obstacle(stored)


def test_a_lost_state(drill: Drill, tmp_path: Path) -> None:
    """Without the results of checks, and all else that may change, the next check finds the same."""
    copy = LocalStore(tmp_path / "copy")
    shutil.copytree(drill.store.root, copy.root)
    lost = Drill(copy, drill.files)
    victim = next(iter(drill.files.values()))
    affected = lost.with_dependents(victim)
    flip(copy.root / victim, 100)
    assert lost.check(victim).verdict == "damaged"
    shutil.rmtree(copy.state)
    copy.state.mkdir()
    found = {str(file): lost.check(file).verdict for file in drill.files.values()}
    assert {file for file, verdict in found.items() if verdict != "whole"} == {str(victim)}
    assert lost.find_restorable() >= drill.restorable - affected


def test_all_kinds_of_damage_are_of_use(drill: Drill) -> None:
    """The drill has chains: otherwise nothing is said of what builds on a damaged stream."""
    counts: Callable[[PurePosixPath], int] = lambda file: len(drill.with_dependents(file))  # noqa: E731
    assert max(map(counts, drill.files.values())) > 2
    assert len(drill.restorable) > len(drill.files) // 2
