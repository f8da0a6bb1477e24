"""A drill over every genuine stream: whatever happens to one stored stream, a check finds and names it, and all chains
without it stay restorable.

The streams of tests/data are in one store. Those of the larger corpus (tests/streams.py), if there is one, are in
another.
"""

from __future__ import annotations

import functools
import hashlib
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

from fullsend_protocol.format.proof import Proof
from fullsend_receiver.catalogue.scrub_results import Scrubbed, ScrubLog
from fullsend_receiver.catalogue.streams import Catalogue, read_catalogue
from fullsend_receiver.maintenance.verify import Rebuilt, take_back
from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store.local import LocalStore
from fullsend_receiver.store.playback import DamagedChunk, checked_chunks

if TYPE_CHECKING:
    from tests.streams import Genuine

pytestmark = pytest.mark.slow

#: Bytes that are flipped in each stream, one at a time.
_FLIPS = 12
#: Senders of the streams. There is more than one because a stream may be there several times.
_SENDERS = (SENDER, "beta", "gamma")


def folder_of(stream: Genuine) -> str:
    """In which of the stores a stream is."""
    return "corpus" if stream.name.startswith("corpus/") else "data"


#: The stores that there are.
_STORES = list(dict.fromkeys(map(folder_of, whole())))


class Drill:
    """A store with many genuine streams, each known to be whole, and which of them can be restored. `sums`: the SHA-256
    of the raw stream, by file.
    """

    def __init__(self, store: LocalStore, files: dict[str, PurePosixPath], sums: dict[PurePosixPath, str]) -> None:
        self.store = store
        self.files = files
        self.sums = sums
        self._scrubbed = ScrubLog(store)
        catalogue = self.catalogue()
        self.restorable = restorable_in(catalogue)
        self._dependents = {
            stored.file: {str(stored.file), *(str(other.file) for other in catalogue.dependents(stored))}
            for stored in catalogue.streams
        }

    def catalogue(self) -> Catalogue:
        return read_catalogue(self.store)

    def find_restorable(self) -> set[str]:
        return restorable_in(self.catalogue())

    def with_dependents(self, file: PurePosixPath) -> set[str]:
        """The stream, and all that cannot be restored without it."""
        return self._dependents[file]

    def check(self, file: PurePosixPath) -> Scrubbed:
        """Check a stream, and record the result."""
        found = scrub(self.store, file, self.store.manifest(file).received)
        assert found is not None
        self._scrubbed.add(found)
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
        results = {file: self.check(file) for file in files}
        catalogue = self.catalogue()
        for file, found in results.items():
            assert found.verdict == "damaged"
            assert found.damage[0]
            assert found.file == str(file)
            stored = catalogue.at(file)
            assert stored is not None
            entry = catalogue.entry(stored)
            assert (entry.damaged, entry.restorable) == (found.damage[0], False)
        # A stream with several bases may be restorable on another one.
        now = restorable_in(catalogue)
        assert now >= self.restorable - lost
        assert not now & {str(file) for file in files}


def restorable_in(catalogue: Catalogue) -> set[str]:
    return {str(stored.file) for stored in catalogue.streams if catalogue.restorable(stored)}


@pytest.fixture(scope="module")
def drills(swift_folder: Path) -> Callable[[str], Drill]:
    """Each store by its name, made when it is needed."""

    @functools.cache
    def make(name: str) -> Drill:
        store = make_store(swift_folder, name)
        files: dict[str, PurePosixPath] = {}
        sums: dict[PurePosixPath, str] = {}
        for stream in whole():
            if folder_of(stream) == name:
                file = files[stream.name] = store_somewhere(store, stream)
                sums[file] = stream.sha256
        made = Drill(store, files, sums)
        for file in files.values():
            assert made.check(file).verdict == "whole"
        return made

    return make


def store_somewhere(store: LocalStore, stream: Genuine) -> PurePosixPath:
    """Store a stream as that of the first sender that does not have its name yet."""
    for sender in _SENDERS[:-1]:
        try:
            return store_stream(store, sender, stream.read())
        except StoreError:
            continue
    return store_stream(store, _SENDERS[-1], stream.read())


@pytest.fixture
def drill(drills: Callable[[str], Drill], stream: Genuine) -> Drill:
    """The store with the stream of a test."""
    return drills(folder_of(stream))


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << at % 8
    path.write_bytes(content)


@each(whole)
def test_a_flipped_byte(drill: Drill, stream: Genuine) -> None:
    file = drill.files[stream.name]
    size = (drill.store.root / file).stat().st_size
    places = random.Random(stream.name).sample(range(size), min(_FLIPS, size))
    for at in places:
        with drill.damaged(file) as (path,):
            lost = drill.with_dependents(file)
            flip(path, at)
            drill.expect(file, lost=lost)


@each(whole)
@pytest.mark.parametrize("left", [0.0, 0.5, 1.0])
def test_a_cut_tail(drill: Drill, stream: Genuine, left: float) -> None:
    file = drill.files[stream.name]
    with drill.damaged(file) as (path,):
        lost = drill.with_dependents(file)
        os.truncate(path, min(int(path.stat().st_size * left), path.stat().st_size - 1))
        drill.expect(file, lost=lost)


@each(whole)
def test_a_missing_file(drill: Drill, stream: Genuine) -> None:
    file = drill.files[stream.name]
    with drill.damaged(file) as (path,):
        lost = drill.with_dependents(file)
        path.unlink()
        drill.expect(file, lost=lost)


@each(whole)
def test_swapped_files(drill: Drill, stream: Genuine) -> None:
    file = drill.files[stream.name]
    other = next(each for each, sha256 in drill.sums.items() if sha256 != stream.sha256)
    with drill.damaged(file, other) as (one, two):
        lost = drill.with_dependents(file) | drill.with_dependents(other)
        first, second = one.read_bytes(), two.read_bytes()
        one.write_bytes(second)
        two.write_bytes(first)
        drill.expect(file, other, lost=lost)


@each(whole)
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


@each(whole)
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


@each(whole)
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


@pytest.mark.parametrize("name", _STORES)
def test_a_lost_state(drills: Callable[[str], Drill], name: str, swift_path: Path) -> None:
    """Without the results of checks, and all else that may change, the next check finds the same."""
    drill = drills(name)
    lost = copied(drill, swift_path)
    victim = next(iter(drill.files.values()))
    affected = lost.with_dependents(victim)
    flip(lost.store.root / victim, 100)
    assert lost.check(victim).verdict == "damaged"
    shutil.rmtree(lost.store.state)
    lost.store.state.mkdir()
    found = {str(file): lost.check(file).verdict for file in drill.files.values()}
    assert {file for file, verdict in found.items() if verdict != "whole"} == {str(victim)}
    assert lost.find_restorable() >= drill.restorable - affected


@pytest.mark.parametrize("name", _STORES)
def test_all_faults_at_once(drills: Callable[[str], Drill], name: str, swift_path: Path) -> None:
    """Each is found and named, and all chains without these streams are restored to the last byte."""
    whole_one = drills(name)
    drill = copied(whole_one, swift_path)
    by_dependents = sorted(drill.files.values(), key=lambda file: len(drill.with_dependents(file)))
    base, (flipped, cut, missing, bare, one) = by_dependents[-1], by_dependents[:5]
    other = next(file for file in by_dependents[5:] if drill.sums[file] != drill.sums[one])
    lost = set().union(*map(drill.with_dependents, (base, flipped, cut, missing, bare, one, other)))
    root = drill.store.root
    for path in (*drill.beside(base), root / base, root / missing, manifest_path(drill.store, bare)):
        path.unlink()
    flip(root / flipped, 100)
    os.truncate(root / cut, (root / cut).stat().st_size // 2)
    first, second = (root / one).read_bytes(), (root / other).read_bytes()
    (root / one).write_bytes(second)
    (root / other).write_bytes(first)

    catalogue = drill.catalogue()
    assert [problem.path for problem in catalogue.problems] == [str(bare)]
    checked = {stored.file: drill.check(stored.file) for stored in catalogue.streams}
    assert checked.keys() == set(drill.files.values()) - {base, bare}
    assert {file for file, found in checked.items() if found.damage} == {flipped, cut, missing, one, other}
    assert {file for file, found in checked.items() if found.verdict != "whole"} == {flipped, cut, missing, one, other}
    left = drill.find_restorable()
    assert left >= whole_one.restorable - lost
    assert left.isdisjoint(map(str, (base, flipped, cut, missing, bare, one, other)))
    catalogue = drill.catalogue()
    for stored in catalogue.streams:
        if str(stored.file) in left:
            chain = catalogue.chain(stored)
            assert chain[-1].file == stored.file
            assert left >= {str(each.file) for each in chain}
            assert restored(drill.store, stored.file) == drill.sums[stored.file]
        else:
            assert catalogue.obstacle(stored)


def copied(drill: Drill, folder: Path) -> Drill:
    """A copy of the store."""
    copy = LocalStore(folder / "copy")
    shutil.copytree(drill.store.root, copy.root)
    return Drill(copy, drill.files, drill.sums)


def restored(store: LocalStore, file: PurePosixPath) -> str:
    """Read a stream as a restore does, which proves it. Returns: the SHA-256 of its raw bytes."""
    proof, digest = Proof(store.manifest(file)), hashlib.sha256()
    for chunk in checked_chunks(store, file):
        assert not isinstance(chunk, DamagedChunk), chunk
        proof.take(chunk.raw, chunk.place.entry.sha256)
        digest.update(chunk.raw)
    proof.finish()
    return digest.hexdigest()


@pytest.mark.parametrize("name", _STORES)
def test_all_kinds_of_damage_are_of_use(drills: Callable[[str], Drill], name: str) -> None:
    """The drill has chains: otherwise nothing is said of what builds on a damaged stream."""
    drill = drills(name)
    most = max(len(drill.with_dependents(file)) for file in drill.files.values())
    assert most > {"data": 2, "corpus": 1}[name]
    assert len(drill.restorable) > len(drill.files) // 2
