"""CPU seconds that each stage takes by itself, on the same data, with the programs' own code.

Each runs alone in this process, in a thread of its own, and is charged that thread's CPU time. What a whole transfer
takes beyond their sum is the interpreter, the event loop, copies, page faults, and caches that are fought over.
"""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bench.data import MIB
from bench.measure import STORAGE, ZFS_HOST

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


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage at one end. `seconds`: of CPU, for each GiB of raw stream."""

    end: str
    name: str
    seconds: float


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


def measure(path: Path, scratch: Path, certificate: tuple[Path, Path]) -> list[Stage]:
    """Measure all stages. `scratch`: a folder to write to; `certificate`: and key, for TLS."""
    raw = _read(path)
    chunks = _cut(raw)
    compressor, decompressor = Compressor(3), Decompressor()
    frames: list[bytes] = []
    compress = _cpu(lambda: frames.extend(map(compressor.compress, chunks)))
    encrypt, decrypt = _tls(frames, certificate)
    send, receive = _wire(frames)
    file = scratch / "written"
    took = [
        (ZFS_HOST, "read from the pipe", _from_pipe(path, len(raw))),
        (ZFS_HOST, "walk the records", _cpu(lambda: _walk(raw))),
        (ZFS_HOST, "SHA-256 of the raw stream", _cpu(lambda: _hash(chunks))),
        (ZFS_HOST, "zstd, level 3", compress),
        (ZFS_HOST, "TLS: encrypt", encrypt),
        (ZFS_HOST, "send (kernel)", send),
        (STORAGE, "receive (kernel)", receive),
        (STORAGE, "TLS: decrypt", decrypt),
        (STORAGE, "put frames together", _cpu(lambda: _assemble(frames))),
        (
            STORAGE,
            "zstd: decode",
            _cpu(lambda: [len(decompressor.decompress(f, len(c))) for f, c in zip(frames, chunks, strict=True)]),
        ),
        (STORAGE, "SHA-256 of the raw stream", _cpu(lambda: _hash(chunks))),
        (STORAGE, "walk the records", _cpu(lambda: _walk(raw))),
        (STORAGE, "SHA-256 of the file", _cpu(lambda: _hash(frames))),
        (STORAGE, "write the file", _cpu(lambda: _write(file, frames))),
    ]
    file.unlink()
    return [Stage(end, name, seconds * _GIB / len(raw)) for end, name, seconds in took]


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


def _from_pipe(path: Path, size: int) -> float:
    """Read as the sender does. Returns: CPU seconds."""
    producer = subprocess.Popen(["head", "-c", str(size), path], stdout=subprocess.PIPE)
    assert producer.stdout is not None
    source = Source(producer.stdout.fileno())
    view = memoryview(bytearray(PIPE_SIZE))

    def read() -> None:
        while source.readinto(view):
            pass

    try:
        return _cpu(read)
    finally:
        source.close()
        producer.stdout.close()
        producer.wait()


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
