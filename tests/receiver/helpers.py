"""What the tests of the receiver share: a store, and the way of a raw stream into it, without a wire.

`chunks_of` is what a sender does to a stream; `take`, `ingest_stream` and `store_stream` are what the receiver does
with its chunks, in the order in which `fullsend_receiver.arrival.receive` does it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import shutil
import subprocess
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

import zstandard
from tests import streams

from fullsend_protocol.format.manifest import Manifest, Segment
from fullsend_protocol.format.names import HASH_SUFFIX, MANIFEST_SUFFIX
from fullsend_protocol.stream import facts
from fullsend_protocol.stream.chunks import LEVEL_DEFAULT, Compressor, Cutter, SegmentHash
from fullsend_protocol.stream.records import Walker
from fullsend_protocol.wire.connection import Chunk
from fullsend_protocol.wire.messages import Finish, Push
from fullsend_receiver.arrival.commit import commit
from fullsend_receiver.arrival.decode_queue import decode_chunk
from fullsend_receiver.arrival.ingest import Ingest
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.maintenance.scrub import StreamCheck, never_interrupts
from fullsend_receiver.store import local as stores
from fullsend_receiver.store.local import LocalStore
from fullsend_receiver.store.names import stream_file
from fullsend_receiver.store.opened import open_offer, partial_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import pytest

    from fullsend_receiver.catalogue.scrub_results import Scrubbed
    from fullsend_receiver.catalogue.streams import StoredStream
    from fullsend_receiver.store.api import Store

SENDER: Final = "alpha"
PROGRAM: Final = "fullsend 0.0"
#: What stands for a `.zst` where nobody looks into it.
PLANTED: Final = b"no data"


def make_store(tmp_path: Path, name: str = "store") -> LocalStore:
    """Make an empty store without an identity."""
    store, _store_id = stores.make_store(tmp_path / name, lambda _store: None)
    return store


def everywhere() -> frozenset[str]:
    """Return the types of all file systems here, for `inotify._OWN`: nobody else has the tests' folders."""
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return frozenset(line.partition(" - ")[2].split()[0] for line in mounts)


# --- what a sender does -----------------------------------------------------------------------------------------


def cut(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield a whole stream's chunks, each with its raw offset."""
    cutter = Cutter(Walker())
    position = 0
    while position < len(raw):
        cutter.next()
        end = position
        while end < len(raw) and not (end > position and cutter.closed):
            end = cutter.walk(raw, end, len(raw))
        yield position, raw[position:end]
        position = end


def chunks_of(raw: bytes, level: int = LEVEL_DEFAULT) -> Iterator[Chunk]:
    """Yield a whole stream's chunks as a sender puts them on the wire."""
    compressor = Compressor(level)
    segment = SegmentHash(0)
    for offset, piece in cut(raw):
        yield Chunk(offset, len(piece), segment.update(piece), compressor.compress(piece), starts_segment=not offset)


def chunks_from(raw: bytes, offset: int, level: int = LEVEL_DEFAULT) -> Iterator[Chunk]:
    """Yield the chunks from a border on, as a sender that resumes there puts them on the wire: in a new segment."""
    compressor = Compressor(level)
    segment = SegmentHash(offset)
    for at, piece in cut(raw):
        if at >= offset:
            yield Chunk(at, len(piece), segment.update(piece), compressor.compress(piece), starts_segment=at == offset)


def push_of(raw: bytes) -> Push:
    """Return how a sender announces a stream."""
    walker = Walker()
    walker.walk(raw, 0, len(raw), 1 << 63)
    about = facts.conclude(walker.begins)
    package = about.kind == "package"
    return Push(
        dataset=about.dataset,
        snapshot=about.snapshot,
        guid=None if package else str(about.guid),
        base_guid=None if package or about.base_guid is None else str(about.base_guid),
        flags=None if package else about.flags,
        size_estimate=None,
        zfs_version=None,
        properties=None,
        keep_orphan=True,
        claim="00c1a1300c1a1300",
        resume="none",
        whole=None,
    )


def segments_of(raw: bytes, *borders: int) -> list[Segment]:
    """Return what proves a stream that was resumed at these offsets."""
    return [
        Segment(start=start, end=end, sha256=hashlib.sha256(raw[start:end]).hexdigest())
        for start, end in itertools.pairwise([0, *borders, len(raw)])
    ]


def finish_of(raw: bytes, *borders: int) -> Finish:
    """Return a sender's last word on a stream. `borders`: where it was resumed."""
    return Finish(raw_bytes=len(raw), segments=segments_of(raw, *borders))


# --- what the receiver does -------------------------------------------------------------------------------------


def take_one(ingest: Ingest, chunk: Chunk) -> None:
    """Decode a chunk, and take it."""
    ingest.write(ingest.check(chunk, decode_chunk(chunk)))


def take(ingest: Ingest, chunks: Iterable[Chunk], *, per_batch: int = 1) -> None:
    """Take chunks; make them durable whenever `per_batch` of them wait, and after the last one."""
    for number, chunk in enumerate(chunks, 1):
        take_one(ingest, chunk)
        if number % per_batch == 0:
            ingest.partial.sync(ingest.batch())
    batch = ingest.batch()
    if batch.chunks:
        ingest.partial.sync(batch)


def ingest_stream(store: Store, sender: str, raw: bytes, level: int = LEVEL_DEFAULT, *, per_batch: int = 1) -> Ingest:
    """Take a whole stream into a partial; all of it is durable. The caller closes the partial, or commits it."""
    push = push_of(raw)
    ingest = Ingest(store.begin(partial_key(sender, push), open_offer(sender, push)))
    try:
        take(ingest, chunks_of(raw, level), per_batch=per_batch)
    except BaseException:
        ingest.partial.close(keep=True)
        raise
    return ingest


def resume(store: LocalStore, sender: str, raw: bytes, *, at_resume_point: bool = False) -> Ingest:
    """Open the partial of a stream to resume it."""
    found = store.reopen(partial_key(sender, push_of(raw)), at_resume_point=at_resume_point)
    assert found is not None
    return Ingest(*found)


def commit_stream(store: Store, sender: str, ingest: Ingest, raw: bytes) -> PurePosixPath:
    """Commit a stream of which all has been taken."""
    finish = Finish(raw_bytes=len(raw), segments=ingest.segments())
    assert finish == finish_of(raw, *(segment.start for segment in finish.segments[1:]))
    try:
        return PurePosixPath(
            commit(Catalogues(store), sender, ingest, finish, push_of(raw), sender_program=PROGRAM).receipt.file
        )
    finally:
        ingest.partial.close(keep=True)


def store_stream(store: Store, sender: str, raw: bytes, level: int = LEVEL_DEFAULT) -> PurePosixPath:
    """Store a whole stream. Returns: its file, relative to the store."""
    return commit_stream(store, sender, ingest_stream(store, sender, raw, level), raw)


def plant(
    store: LocalStore, snapshot: str, guid: int, base_guid: int | None = None, *, sender: str = SENDER, **changes: Any
) -> PurePosixPath:
    """Put a stream into the store without having one: right names, a right manifest, no data.

    `changes`: of the manifest, such as `dataset`, `flags`, `stream_class`, `kind`, `created`. Returns: its file.
    """
    kind = changes.pop("kind", "full" if base_guid is None else "incremental")
    dataset = changes.pop("dataset", "tank/data")
    fields: dict[str, Any] = {
        "sender": sender,
        "dataset": dataset,
        "snapshot": snapshot,
        "guid": str(guid),
        "base_guid": None if base_guid is None else str(base_guid),
        "kind": kind,
        "dataset_type": "filesystem",
        "stream_class": "plain",
        "flags": "",
        "features": [],
        "snapshots": [],
        "created": f"2026-11-23T06:30:{guid % 60:02}Z",
        "received": "2026-11-24T00:00:00Z",
        "raw_bytes": 1000,
        "stored_bytes": len(PLANTED),
        "sha256": "11" * 32,
        "segments": [],
        "resumptions": [],
        "file_sha256": hashlib.sha256(PLANTED).hexdigest(),
        "chunks": 1,
        "sender_program": PROGRAM,
        "receiver_program": "fullsendd 0.0",
        "zfs_version": None,
        "properties": None,
        "proven_by": "both",
    }
    manifest = Manifest.model_validate(fields | changes)
    about = facts.Facts(
        dataset=dataset,
        snapshot=snapshot,
        guid=guid,
        base_guid=base_guid,
        kind=kind,
        dataset_type=manifest.dataset_type,
        stream_class=manifest.stream_class,
        flags=manifest.flags,
        features=(),
        created=0,
        substreams=(),
    )
    file = stream_file(sender, about)
    path = store.root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(PLANTED)
    hash_path(store, file).write_text(f"{manifest.file_sha256}  {file.name}\n", encoding="ascii")
    manifest_path(store, file).write_bytes(manifest.to_json())
    return file


# --- what is on the disk afterwards -----------------------------------------------------------------------------


def manifest_path(store: LocalStore, file: PurePosixPath) -> Path:
    return store.root / file.with_name(file.name + MANIFEST_SUFFIX)


def hash_path(store: LocalStore, file: PurePosixPath) -> Path:
    return store.root / file.with_name(file.name + HASH_SUFFIX)


def read_manifest(store: LocalStore, file: PurePosixPath) -> Manifest:
    return Manifest.model_validate_json(manifest_path(store, file).read_bytes())


def zstd_decode(path: Path) -> bytes:
    """Decode a file with stock zstd."""
    return subprocess.run([program("zstd"), "-dcq", path], check=True, capture_output=True).stdout


def program(name: str) -> str:
    """Return where a program is that the tests cannot do without."""
    found = shutil.which(name)
    assert found is not None, f"the tests need the program {name!r}: install it"
    return found


def everything(folder: Path) -> dict[str, bytes | None]:
    """Return what is below a folder: path -> content, None for a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def check_listed(store: LocalStore) -> list[str]:
    """Check, by other means than the store's own, that all that is listed is whole. Returns: the files."""
    catalogue = read_catalogue(store)
    for stored in catalogue.streams:
        data = (store.root / stored.file).read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        assert hash_path(store, stored.file).read_text(encoding="ascii") == f"{sha256}  {stored.file.name}\n"
        manifest = json.loads(manifest_path(store, stored.file).read_bytes())
        assert (manifest["file_sha256"], manifest["stored_bytes"]) == (sha256, len(data))
        raw = decode(data)
        borders = [segment["start"] for segment in manifest["segments"][1:]]
        assert manifest["segments"] == [segment.model_dump() for segment in segments_of(raw, *borders)]
        whole = None if borders else hashlib.sha256(raw).hexdigest()
        assert (manifest["sha256"], manifest["raw_bytes"]) == (whole, len(raw))
    return [str(stored.file) for stored in catalogue.streams]


def decode(data: bytes) -> bytes:
    """Decode zstd frames, one after another, passing over skippable ones."""
    return zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()


# --- streams ----------------------------------------------------------------------------------------------------


def long_stream(chunks: int, *, tail: int = 0, name: str = "tank/data@now", guid: int = streams.GUID) -> bytes:
    """Make a whole stream of so many chunks of hardly more than CHUNK_MIN, all of which compress to almost nothing;
    behind them, with `tail`, a chunk of so many small records.
    """
    block = random.Random(1).randbytes(256) * 4096  # 1 MiB
    records = [streams.write(1, index << 20, block) for index in range(4 * chunks - (not tail))]
    records += [streams.write(2, index << 9, block[:512]) for index in range(tail)]
    return streams.substream(streams.object_(1), *records, name=name, guid=guid)


def small_stream(dataset: str, number: int, base: int | None = None, *, offset: int = 0) -> bytes:
    """Make a stream of one record: snapshot sNUMBER of a dataset, on the one of number `base`. `offset`: of GUIDs."""
    begin = streams.begin(f"{dataset}@s{number}", offset + number, 0 if base is None else offset + base)
    return b"".join([begin, streams.object_(2), streams.write(2, 0, bytes(512)), streams.end(offset + number)])


def scrub(
    store: LocalStore, file: PurePosixPath, received: str, between: Callable[[], None] = never_interrupts
) -> Scrubbed | None:
    """Check a stored stream in one go."""
    return StreamCheck(store, file, received).run(between)


def checked(store: LocalStore, stored: StoredStream) -> Scrubbed:
    """Check a stream that is still stored afterwards."""
    found = scrub(store, stored.file, stored.summary.received)
    assert found is not None
    return found


def fail_reads(
    monkeypatch: pytest.MonkeyPatch, path: Path, number: int, fails: Callable[[int], bool] = lambda _offset: True
) -> list[int]:
    """Have reads of a file at offsets for which `fails` is true fail with this errno. Returns: these offsets, as they
    are read.
    """
    real, inode = os.pread, path.stat().st_ino
    seen: list[int] = []

    def pread(descriptor: int, length: int, offset: int) -> bytes:
        if os.fstat(descriptor).st_ino == inode and fails(offset):
            seen.append(offset)
            raise OSError(number, os.strerror(number))
        return real(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", pread)
    return seen


def remove(store: LocalStore, file: PurePosixPath | str) -> None:
    """Remove a stored stream: its manifest first, since from then on it is not stored."""
    for suffix in (MANIFEST_SUFFIX, HASH_SUFFIX, ""):
        (store.root / f"{file}{suffix}").unlink()
