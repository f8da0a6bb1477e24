"""A wrong byte in any input of a merge, anywhere: nothing is published, the input is named, and all inputs stay.

The chains are small, and have every kind of record. In the long form each byte of each input is changed, in the short
form some are.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest
import zstandard
from tests import resumed, streams
from tests.data.load import NOTHING, fletcher
from tests.receiver.helpers import SENDER, check_listed, decode, make_store, store_stream
from tests.receiver.maintenance.test_merging import merge as merge_store
from tests.receiver.maintenance.test_merging import visible

from fullsend_protocol.shared.errors import StreamError
from fullsend_protocol.stream.merge import MergeInput, merge
from fullsend_protocol.stream.records import Feature, RecordType
from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.maintenance.merge_files import write_packed
from fullsend_receiver.maintenance.merge_inputs import InputSpoilt, MergeFile, StoredInput, in_order, proving
from fullsend_receiver.maintenance.merging import Merged, NotMerged

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterable, Iterator, Sequence

    from fullsend_receiver.catalogue.rows import Summary
    from fullsend_receiver.store.local import LocalStore

TO_THE_END: Final = (1 << 64) - 1
#: DRR_FLAG_SPILL_BLOCK, and that of an OBJECT with a spill block, of one that is unmodified.
SPILL_BLOCK: Final = 8
SPILL_BIT: Final = 4
BLOCK: Final = 64
#: The features of the chains.
PLAIN: Final = (Feature.EMBED_DATA, Feature.LARGE_BLOCKS)
RAW: Final = (Feature.RAW, Feature.COMPRESSED)
#: What is done to a byte: one of these. All of them were tried with each byte once; that takes three times as long.
PATTERNS: Final = (0x01, 0x80, 0xFF)


# --- the chains ----------------------------------------------------------------------------------------------------


def stream(
    guid: int, records: Iterable[bytes], *, features: Sequence[int] = (), payload: bytes = b"", base: int | None = None
) -> bytes:
    """A stream with right GUIDs and checksums, on the one whose GUID is one less."""
    base = guid - 1 if base is None else base
    begin = streams.begin(
        f"tank/data@{guid}", guid, base, objset_type=2, flags=SPILL_BLOCK, features=features, payload=payload
    )
    return resumed.summed(begin, [*(streams.marked(each, guid) for each in records), streams.end(guid)])


def with_properties(raw: bytes, guid: int) -> bytes:
    """As `zfs send -p` gives it."""
    tree = streams.tree(str(guid), streams.file_system("tank/data", {str(guid): guid}), not_recursive=True)
    opening = streams.begin(f"tank/data@{guid}", 0, header_type=streams.COMPOUND, payload=streams.xdr(tree), created=0)
    end = bytearray(streams.CLOSING_END)
    state = fletcher(opening, NOTHING)
    struct.pack_into("<4Q", end, 8, *state)
    return opening + bytes(end) + raw + streams.CLOSING_END


def object_of(number: int, *, size: int, spill: bool = False, raw: bool = False) -> list[bytes]:
    """OBJECT, and the FREE behind its end."""
    head = bytearray(streams.object_(number, b"bonus...", raw=raw))
    struct.pack_into("<III", head, 16, 19, 44, BLOCK)
    head[34:36] = bytes([1, SPILL_BIT * spill])
    if raw:
        head[48:51] = bytes([14, 1, 1])  # indblkshift, nlevels, nblkptr
    return [bytes(head), streams.free(number, size, TO_THE_END)]


def block(number: int, offset: int, *, raw: bool = False) -> bytes:
    payload = struct.pack("<QQ", number, offset) * (BLOCK // 16)
    return streams.write(number, offset, payload[: BLOCK // 2] if raw else payload, logical_size=BLOCK if raw else None)


def embedded_block(number: int) -> bytes:
    record = bytearray(streams.write_embedded(number, 0, b"embedded", BLOCK))
    struct.pack_into("<Q", record, 24, BLOCK)  # its length
    return bytes(record)


def spill_block(number: int, *, unmodified: bool = False) -> bytes:
    record = bytearray(streams.spill(number, b"spilled." * (BLOCK // 8)))
    record[32] |= SPILL_BIT * unmodified
    return bytes(record)


def plain_chain() -> list[bytes]:
    full = [
        *object_of(1, size=2 * BLOCK),
        *(block(1, at) for at in (0, BLOCK)),
        *object_of(2, size=BLOCK, spill=True),
        embedded_block(2),
        spill_block(2),
        *object_of(3, size=BLOCK),
        block(3, 0),
        streams.freeobjects(4, 28),
    ]
    one = [
        *object_of(1, size=3 * BLOCK),
        streams.free(1, 0, BLOCK),
        block(1, 2 * BLOCK),
        *object_of(2, size=BLOCK, spill=True),
        spill_block(2, unmodified=True),
        streams.freeobjects(3, 29),
    ]
    two = [
        *object_of(1, size=3 * BLOCK),
        block(1, BLOCK),
        *object_of(2, size=BLOCK, spill=True),
        spill_block(2),
        streams.freeobjects(3, 29),
    ]
    return [stream(guid, each, features=PLAIN) for guid, each in enumerate((full, one, two), 1)]


def raw_chain() -> list[bytes]:
    steps = [
        [*object_of(1, size=2 * BLOCK, raw=True), block(1, 0, raw=True), block(1, BLOCK, raw=True)],
        [*object_of(1, size=2 * BLOCK, raw=True), block(1, BLOCK, raw=True), streams.freeobjects(2, 30)],
    ]
    found = []
    for guid, step in enumerate(steps, 1):
        keys = streams.native({"crypt_keydata": {"from_ivset_guid": guid - 1, "to_ivset_guid": guid}})
        found.append(stream(guid, [streams.object_range(0), *step], features=RAW, payload=keys))
    return found


CHAINS: Final = {
    "plain": plain_chain(),
    "-p": [with_properties(raw, guid) for guid, raw in enumerate(plain_chain(), 1)],
    "-w": raw_chain(),
}


def as_inputs(chain: Sequence[bytes]) -> Iterator[bytes]:
    """Merge a chain that is whole."""
    return map(bytes, merge([MergeInput(str(number), [raw]) for number, raw in enumerate(chain)]))


def sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def test_the_chains_have_every_kind_of_record_of_a_stream() -> None:
    kinds = {each.kind for chain in CHAINS.values() for raw in chain for each in streams.split(raw)}
    assert kinds == set(RecordType) - {RecordType.WRITE_BYREF, RecordType.REDACT}  # which are refused
    flags = {raw[each.start + 32] for raw in CHAINS["plain"] for each in streams.split(raw) if each.kind == 7}
    assert flags == {0, SPILL_BIT}


# --- files: `fullsendd merge` --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawer:
    """A folder with the files of a chain."""

    folder: pathlib.Path
    paths: list[pathlib.Path]
    contents: list[bytes]

    def merge(self) -> str:
        """Merge. Returns: the SHA-256 of the result."""
        files = [MergeFile(each) for each in self.paths]
        with proving(files):
            ordered = in_order(files)
            pieces = merge([MergeInput(str(each.path), each.pieces()) for each in ordered])
            done = write_packed(self.folder / "out" / "x.zst", pieces, level=1, merged=ordered, sender="alpha")
        return done.sha256

    def refusal(self) -> str | None:
        """Return why a merge is refused; None: it is not."""
        try:
            self.merge()
        except StreamError as error:
            return str(error)
        return None

    def with_damage(self, number: int, at: int, pattern: int) -> None:
        """Change a byte of a file, and merge: it must be refused, and nothing else may happen."""
        where = f"{self.paths[number].name}, byte {at} ^ {pattern:#x}"
        wrong = bytearray(self.contents[number])
        wrong[at] ^= pattern
        put(self.paths[number], wrong)
        why = self.refusal()
        assert why is not None, f"{where}: was published"
        assert self.paths[number].name in why, where
        assert os.listdir(self.folder / "out") == [], where
        assert self.paths[number].read_bytes() == wrong, where
        put(self.paths[number], self.contents[number])
        assert [each.read_bytes() for each in self.paths] == self.contents, where


def put(path: pathlib.Path, data: bytes | bytearray) -> None:
    """Write a file in place, which is quick."""
    with path.open("r+b") as file:
        file.write(data)


def drawer(folder: pathlib.Path, chain: list[bytes], *, hashes: bool) -> Drawer:
    paths = []
    (folder / "out").mkdir(parents=True)
    for number, raw in enumerate(chain):
        path = folder / f"input-{number}.zfs"
        path.write_bytes(raw)
        if hashes:
            path.with_name(f"{path.name}.sha256").write_text(f"{sha256(raw)}  {path.name}\n")
        paths.append(path)
    return Drawer(folder, paths, chain)


def bytes_of(chain: Sequence[bytes], every: int) -> Iterator[tuple[int, int, int]]:
    """Yield what to change: which input, which byte, and how. `every`: of how many bytes one is changed."""
    for number, data in enumerate(chain):
        for at in range(0, len(data), every):
            place = min(at + at // every % min(every, 8), len(data) - 1)  # another byte of an 8-byte field each time
            yield number, place, PATTERNS[(place + number) % len(PATTERNS)]


FORMS: Final = [
    pytest.param(61, id="some bytes"),
    pytest.param(1, id="every byte", marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
]


@pytest.mark.parametrize("every", FORMS)
@pytest.mark.parametrize("hashes", [False, True], ids=["checksums", "sha256"])
@pytest.mark.parametrize("name", CHAINS)
def test_a_wrong_byte_in_a_file(name: str, tmp_path: pathlib.Path, *, hashes: bool, every: int) -> None:
    """Proven by its `.sha256`, or, where there is none, by the checksums inside it."""
    chain = CHAINS[name]
    assert drawer(tmp_path / "whole", chain, hashes=hashes).merge() == sha256(b"".join(as_inputs(chain)))
    own = drawer(tmp_path, chain, hashes=hashes)
    for number, at, pattern in bytes_of(chain, every):
        own.with_damage(number, at, pattern)


# --- a store: `fullsendd prune` ------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: pathlib.Path) -> LocalStore:
    return make_store(tmp_path)


def stored_chain(store: LocalStore, chain: Sequence[bytes]) -> list[pathlib.PurePosixPath]:
    """Store a chain, and two increments on it: nothing touches the two newest. Returns: the files of the chain."""
    newest = [stream(len(chain) + more, [], features=RAW if chain is CHAINS["-w"] else PLAIN) for more in (1, 2)]
    if chain is CHAINS["-p"]:
        newest = [with_properties(raw, len(chain) + more) for more, raw in enumerate(newest, 1)]
    return [store_stream(store, SENDER, raw) for raw in (*chain, *newest)][: len(chain)]


def merged_or_spoilt(store: LocalStore, about: Sequence[Summary]) -> str | pathlib.PurePosixPath:
    """Return the SHA-256 of what stored streams make, when all of them are proven; else the file that is damaged."""
    try:
        inputs = [StoredInput(store, each, lambda _size: None) for each in about]
        raw = b"".join(map(bytes, merge([MergeInput(str(each.file), each.pieces()) for each in inputs])))
    except InputSpoilt as error:
        return error.file
    assert all(each.merged for each in inputs)
    return sha256(raw)


@pytest.mark.parametrize("every", FORMS)
@pytest.mark.parametrize("name", CHAINS)
def test_a_wrong_byte_in_a_stored_file(name: str, store: LocalStore, *, every: int) -> None:
    """Unless the file has the same stream: then all of it is proven, and the result is right. So it is with a byte of
    the tables that no merge reads, and with a frame that another frame's bytes describe (such as the offset of a match
    among zeros).
    """
    files = stored_chain(store, CHAINS[name])
    about = {each.file: each.summary for each in read_catalogue(store).streams}
    right = sha256(b"".join(as_inputs(CHAINS[name])))
    contents = [(store.root / file).read_bytes() for file in files]
    same = 0
    for number, at, pattern in bytes_of(contents, every):
        where = f"{files[number]}, byte {at} ^ {pattern:#x}"
        wrong = bytearray(contents[number])
        wrong[at] ^= pattern
        put(store.root / files[number], wrong)
        found = merged_or_spoilt(store, [about[file] for file in files])
        if found != files[number]:
            assert has_the_same_stream(wrong, contents[number]), where
            assert found == right, where
            same += 1
        put(store.root / files[number], contents[number])
    assert same < sum(map(len, contents)) // every // 10


def forget_results(store: LocalStore) -> None:
    """Forget what checks have found: that a stream is damaged."""
    shutil.rmtree(store.state / "scrub")
    (store.state / "scrub.jsonl").unlink(missing_ok=True)


def has_the_same_stream(wrong: bytearray, right: bytes) -> bool:
    """Whether a stored file still decodes to the same stream: as `zstd -dc` does it."""
    try:
        return decode(bytes(wrong)) == decode(right)
    except zstandard.ZstdError:
        return False


@pytest.mark.parametrize("name", CHAINS)
def test_a_wrong_byte_in_a_stored_file_stops_the_merge(name: str, store: LocalStore) -> None:
    """Some of them in a whole merge, as `prune` does it."""
    files = stored_chain(store, CHAINS[name])
    contents = [(store.root / file).read_bytes() for file in files]
    listed = check_listed(store)
    for number, at, pattern in bytes_of(contents, 211):
        wrong = bytearray(contents[number])
        wrong[at] ^= pattern
        if has_the_same_stream(wrong, contents[number]):
            continue
        put(store.root / files[number], wrong)
        before = visible(store)
        (event,) = merge_store(store)
        assert isinstance(event, NotMerged)
        assert event.failed
        assert event.why.startswith(f"{files[number]}: ")
        assert visible(store) == before
        put(store.root / files[number], contents[number])
        forget_results(store)
    (done,) = merge_store(store)
    assert isinstance(done, Merged)
    assert check_listed(store) != listed
