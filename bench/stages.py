"""CPU seconds that each stage takes by itself, on the same data, with the programs' own code.

Each runs alone in this process, in a thread of its own, and is charged that thread's CPU time. What a whole transfer
takes beyond their sum is the interpreter, the event loop, copies, page faults, and caches that are fought over.
"""

from __future__ import annotations

import os
import socket
import ssl
import statistics
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bench.data import MIB
from bench.measure import STORAGE, ZFS_HOST, Child, is_listening, wait_for
from bench.peers import free_port

from fullsend_protocol.stream.chunks import Compressor, Cutter, Decompressor, SegmentHash
from fullsend_protocol.stream.records import Walker
from fullsend_protocol.wire.frames import FrameHeader, FrameReader, FrameType
from fullsend_receiver.store.durable import write_all
from fullsend_sender.transfer.pipes import PIPE_SIZE, Source
from fullsend_transport.channel import WRITE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

#: Of each stream this much is taken.
_SAMPLE: Final = 256 * MIB
_GIB: Final = 1 << 30

#: The stages of fullsend.
FEED: Final = "cat, which feeds the pipe"
READ: Final = "read from the pipe"
WALK: Final = "walk the records"
HASH: Final = "SHA-256 of the raw stream"
COMPRESS: Final = "zstd, level 3"
ENCRYPT: Final = "TLS: encrypt"
SEND: Final = "send (kernel)"
RECEIVE: Final = "receive (kernel)"
DECRYPT: Final = "TLS: decrypt"
ASSEMBLE: Final = "put frames together"
DECODE: Final = "zstd: decode"
FILE_HASH: Final = "SHA-256 of the file"
WRITE: Final = "write the file"
READ_FILE: Final = "read the file"
#: Those of the peers `zstd | nc` and `nc | zstd -d`.
PEER_COMPRESS: Final = "zstd -3"
PEER_SEND: Final = "nc, sending"
PEER_RECEIVE: Final = "nc, receiving"
PEER_DECODE: Final = "zstd -d"


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage at one end. `seconds`: of CPU, for each GiB of raw stream. `alone`: how long it takes at least, if it
    runs on more than one core at a time by itself; None: as long as `seconds`.
    """

    end: str
    name: str
    seconds: float
    alone: float | None = None


@dataclass(frozen=True, slots=True)
class Costs:
    """The stages of each action with one kind of data. `feed`: CPU seconds of the producer of the pipe, which belongs
    to no end, for each GiB; `ratio`: raw bytes for each byte on the wire.
    """

    push: Sequence[Stage]
    restore: Sequence[Stage]
    peer_push: Sequence[Stage]
    peer_restore: Sequence[Stage]
    feed: float
    ratio: float

    def sum(self, action: str, end: str) -> float:
        """CPU seconds of all stages of "push" or "restore" at one end, for each GiB."""
        stages = self.push if action == "push" else self.restore
        return sum(stage.seconds for stage in stages if stage.end == end)


@dataclass(frozen=True, slots=True)
class WalkerSpeed:
    """How fast the walker walks. `record`: payload bytes of a WRITE record."""

    record: int
    records_per_second: float
    bytes_per_second: float


def walker_speed(path: Path, record: int) -> WalkerSpeed:
    """Walk a stream as the sender does, in pieces of a pipe."""
    raw = _read(path)
    best = min(_cpu(lambda: _walk(raw)) for _ in range(3))
    return WalkerSpeed(record, len(raw) / (record + 312) / best, len(raw) / best)


def medians(found: Sequence[Costs]) -> Costs:
    """Return the median of each stage."""

    def of(lists: Sequence[Sequence[Stage]]) -> list[Stage]:
        return [
            Stage(
                each[0].end,
                each[0].name,
                statistics.median(stage.seconds for stage in each),
                None if each[0].alone is None else statistics.median(stage.alone or 0.0 for stage in each),
            )
            for each in zip(*lists, strict=True)
        ]

    return Costs(
        push=of([each.push for each in found]),
        restore=of([each.restore for each in found]),
        peer_push=of([each.peer_push for each in found]),
        peer_restore=of([each.peer_restore for each in found]),
        feed=statistics.median(each.feed for each in found),
        ratio=found[0].ratio,
    )


def measure(path: Path, scratch: Path, certificate: tuple[Path, Path]) -> Costs:
    """Measure all stages once. `scratch`: a folder to write to; `certificate`: and key, for TLS."""
    raw = _read(path)
    chunks = _cut(raw)
    compressor, decompressor = Compressor(3), Decompressor()
    frames: list[bytes] = []
    compress = _cpu(lambda: frames.extend(map(compressor.compress, chunks)))
    encrypt, decrypt = _tls(frames, certificate)
    send, receive = _wire(frames)
    file = scratch / "written"
    write = _cpu(lambda: _write(file, frames))
    read_file = _cpu(lambda: _read_back(file, [len(frame) for frame in frames]))
    file.unlink()
    decode = _cpu(lambda: [len(decompressor.decompress(f, len(c))) for f, c in zip(frames, chunks, strict=True)])
    walk, hashing = _cpu(lambda: _walk(raw)), _cpu(lambda: _hash(chunks))
    assemble = _cpu(lambda: _assemble(frames))
    per_gib = _GIB / len(raw)
    feed, read = (seconds * _GIB / path.stat().st_size for seconds in _from_pipe(path))

    def stages(end: str, took: dict[str, float]) -> list[Stage]:
        return [Stage(end, name, seconds * per_gib) for name, seconds in took.items()]

    arriving = {RECEIVE: receive, DECRYPT: decrypt, ASSEMBLE: assemble, DECODE: decode, HASH: hashing, WALK: walk}
    leaving = {ENCRYPT: encrypt, SEND: send}
    peer_push, peer_restore = _peers(path, scratch)
    return Costs(
        push=[
            Stage(ZFS_HOST, READ, read),
            *stages(ZFS_HOST, {WALK: walk, HASH: hashing, COMPRESS: compress, **leaving}),
            *stages(STORAGE, {**arriving, FILE_HASH: _cpu(lambda: _hash(frames)), WRITE: write}),
        ],
        restore=[*stages(ZFS_HOST, arriving), *stages(STORAGE, {READ_FILE: read_file, **leaving})],
        peer_push=peer_push,
        peer_restore=peer_restore,
        feed=feed,
        ratio=len(raw) / sum(map(len, frames)),
    )


# --- the stages ------------------------------------------------------------------------------------------------


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_SAMPLE)


def _walk(raw: bytes) -> None:
    cutter = Cutter(Walker())
    for start in range(0, len(raw), PIPE_SIZE):
        at, stop = start, min(start + PIPE_SIZE, len(raw))
        while at < stop:
            at = cutter.walk(raw, at, stop)
            if cutter.closed:
                cutter.next()


def _cut(raw: bytes) -> list[memoryview]:
    view = memoryview(raw)
    cutter = Cutter(Walker())
    chunks, at = [], 0
    while at < len(raw):
        end = cutter.walk(raw, at, len(raw))
        chunks.append(view[at:end])
        cutter.next()
        at = end
    return chunks


def _hash(pieces: Sequence[bytes | memoryview]) -> None:
    segment = SegmentHash(0)
    for piece in pieces:
        segment.update(piece)


def _assemble(frames: list[bytes]) -> None:
    reader = FrameReader()
    for frame in frames:
        reader.feed(FrameHeader(FrameType.CHUNK, 32 + len(frame), 0, 1).encode() + bytes(32))
        reader.header()
        reader.payload()
        for start in range(0, len(frame), WRITE_SIZE):
            reader.feed(frame[start : start + WRITE_SIZE])
        if reader.payload() is None:
            raise AssertionError


def _write(file: Path, frames: list[bytes]) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        for frame in frames:
            write_all(descriptor, frame)
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def _read_back(file: Path, lengths: list[int]) -> None:
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        at = 0
        for length in lengths:
            at += len(os.pread(descriptor, length, at))
    finally:
        os.close(descriptor)
    if at != sum(lengths):
        raise AssertionError


def _from_pipe(path: Path) -> tuple[float, float]:
    """Read as the sender does what `cat` writes. Returns: CPU seconds of cat, and of reading."""
    producer = subprocess.Popen(["cat", path], stdout=subprocess.PIPE)
    assert producer.stdout is not None
    source = Source(producer.stdout.fileno())
    view = memoryview(bytearray(PIPE_SIZE))

    def read() -> None:
        while source.readinto(view):
            pass

    try:
        reading = _cpu(read)
    finally:
        source.close()
        producer.stdout.close()
        _pid, status, usage = os.wait4(producer.pid, 0)
        producer.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime, reading


def _peers(path: Path, scratch: Path) -> tuple[list[Stage], list[Stage]]:
    """Run each program of the peers by itself, on the whole stream. Returns: the stages of a push, and of a restore."""
    size = path.stat().st_size
    kept, arrived = scratch / "kept.zst", scratch / "arrived"

    def program(script: str, source: Path | None = None) -> tuple[float, float]:
        """Returns: CPU seconds for each GiB, and seconds."""
        begun = time.monotonic()
        cpu = Child(["bash", "-c", f"exec {script}"], source=source, cwd=scratch).wait()
        return cpu * _GIB / size, (time.monotonic() - begun) * _GIB / size

    compress, _ = program(f"zstd -q -3 -T1 >{kept.name}", path)
    decode, alone = program(f"zstd -q -dc <{kept.name} >/dev/null")
    port = free_port()
    listener = Child(["bash", "-c", f"exec nc -l 127.0.0.1 {port} >{arrived.name}"], cwd=scratch)
    try:
        wait_for(lambda: is_listening(port), "nc to listen")
        send, _ = program(f"nc -N 127.0.0.1 {port}", kept)
    except BaseException:
        listener.kill()
        raise
    receive = listener.wait() * _GIB / size
    kept.unlink()
    arrived.unlink()
    return (
        [
            Stage(ZFS_HOST, PEER_COMPRESS, compress),
            Stage(ZFS_HOST, PEER_SEND, send),
            Stage(STORAGE, PEER_RECEIVE, receive),
        ],
        [
            Stage(ZFS_HOST, PEER_RECEIVE, receive),
            # It reads and writes in threads beside the one that decodes.
            Stage(ZFS_HOST, PEER_DECODE, decode, min(decode, alone)),
            Stage(STORAGE, PEER_SEND, send),
        ],
    )


def _tls(frames: list[bytes], certificate: tuple[Path, Path]) -> tuple[float, float]:
    """TLS 1.3 through memory. Returns: CPU seconds to encrypt, to decrypt."""
    server_context, client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server_context.load_cert_chain(*certificate)
    client_context.check_hostname, client_context.verify_mode = False, ssl.CERT_NONE
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client, server = client_context.wrap_bio(down, up), server_context.wrap_bio(up, down, server_side=True)
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    encrypt = decrypt = 0.0
    target = memoryview(bytearray(WRITE_SIZE))
    for frame in frames:
        for start in range(0, len(frame), WRITE_SIZE):
            piece = frame[start : start + WRITE_SIZE]
            begun = time.thread_time()
            client.write(piece)
            encrypted = up.read()
            half = time.thread_time()
            up.write(encrypted)
            left = len(piece)
            while left:
                left -= server.read(left, target)  # type: ignore[operator]
            encrypt += half - begun
            decrypt += time.thread_time() - half
    return encrypt, decrypt


def _wire(frames: list[bytes]) -> tuple[float, float]:
    """A TCP connection over the loopback. Returns: CPU seconds of the sending and of the receiving end."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        sending = socket.create_connection(listening.getsockname())
        receiving, _address = listening.accept()
    spent: list[float] = []
    view = memoryview(bytearray(WRITE_SIZE))

    def receive() -> None:
        while receiving.recv_into(view):
            pass
        spent.append(time.thread_time())

    thread = threading.Thread(target=receive)
    thread.start()

    def send() -> None:
        for frame in frames:
            for start in range(0, len(frame), WRITE_SIZE):
                sending.sendall(memoryview(frame)[start : start + WRITE_SIZE])

    with sending, receiving:
        took = _cpu(send)
        sending.shutdown(socket.SHUT_WR)
        thread.join()
    return took, spent[0]


def _cpu(work: Callable[[], object]) -> float:
    begun = time.thread_time()
    work()
    return time.thread_time() - begun
