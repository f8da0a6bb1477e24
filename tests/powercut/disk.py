"""A disk with a volatile cache, for a virtual machine: what was not flushed may be lost when the power goes.

    disk = Disk(image, size, socket_path, at_request)
    ...qemu with file=nbd+unix:///?socket=PATH...
    disk.freeze()                    # the power is cut: nothing that is asked for from now on happens
    ...kill qemu...
    left = disk.settle(chance)       # now the image is what is found when the power is back

It speaks NBD (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md), no more of it than qemu wants, to
one client at a time. The rules are those of a disk with a cache of its own:

- what a FLUSH found written and answered is sure from its answer on; what was written with FUA is sure by itself;
- of everything written since, each write may be there or not, whatever the order: a later one without an earlier one,
  too; or of one write some blocks of BLOCK bytes, and others not. A block is never half written;
- what is sure stays as it is. (A disk that lies about a flush, or forgets old data, cannot be helped by any program.)

`at_request` is called with "write", "flush" before and "written", "flushed" after such a request has been done, before
its answer; it may call `freeze`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import threading
import time
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

#: What a disk of today writes whole or not at all: its physical sector.
BLOCK: Final = 4096

_FIXED_NEWSTYLE: Final = 1
_NO_ZEROES: Final = 2
_HAS_FLAGS_FLUSH_FUA: Final = 1 | 4 | 8
_OPTION_MAGIC: Final = b"IHAVEOPT"
_REPLY_MAGIC: Final = 0x3E889045565A9
_FUA: Final = 1
_REQUEST: Final = struct.Struct(">IHHQQI")
_REQUEST_MAGIC: Final = 0x25609513
_ANSWER: Final = struct.Struct(">IIQ")
_ANSWER_MAGIC: Final = 0x67446698


class _Option(IntEnum):
    EXPORT_NAME = 1
    ABORT = 2
    INFO = 6
    GO = 7


class _Reply(IntEnum):
    ACK = 1
    INFO = 3
    UNSUPPORTED = 1 << 31 | 1


class _Command(IntEnum):
    READ = 0
    WRITE = 1
    DISCONNECT = 2
    FLUSH = 3


@dataclass(frozen=True)
class _Write:
    """A write that no flush has followed: what was there, what is there now; `sure`: it had FUA."""

    offset: int
    before: bytes
    after: bytes
    sure: bool


@dataclass(frozen=True)
class Left:
    """What a power cut did to the writes that were not sure: how many there were, were lost, were done in part."""

    unflushed: int
    lost: int
    torn: int


class Disk:
    """See above. The image holds what the machine sees; beside it, in memory, is what must be undone for the truth."""

    def __init__(
        self,
        image: Path,
        size: int,
        socket_path: Path,
        at_request: Callable[[str], None] = lambda _what: None,
        *,
        flush_seconds: float = 0,
    ) -> None:
        """Serve a new image of `size` bytes of zeros. `flush_seconds`: how long a flush takes."""
        self.size = size
        self._flush_seconds = flush_seconds
        self.unflushed_bytes = 0
        self._at_request = at_request
        self._lock = threading.RLock()
        self._frozen = False
        self._unflushed: list[_Write] = []
        self._image = os.open(image, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._image, size)
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(str(socket_path))
        self._listening.listen()
        self._thread = threading.Thread(target=self._serve, name="disk", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        """The client must have gone."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listening.close()
        os.close(self._image)

    def freeze(self) -> None:
        """Nothing happens any more, and nothing is answered."""
        with self._lock:
            self._frozen = True

    def settle(self, chance: random.Random) -> Left:
        """After `freeze`: lose some of what was not sure, and serve the next client."""
        with self._lock:
            assert self._frozen
            for write in reversed(self._unflushed):
                self._put(write.offset, write.before)
            # The two ends are what happens most: a cache that was empty enough, and one that lost all.
            fate = chance.choice(("lost", "kept", "some", "some", "torn", "torn"))
            share = chance.random()
            lost = torn = 0
            for write in self._unflushed:
                if write.sure or fate == "kept":
                    self._put(write.offset, write.after)
                elif fate == "lost" or chance.random() < share:
                    lost += 1
                elif fate == "some" or len(write.after) <= BLOCK:
                    self._put(write.offset, write.after)
                else:
                    torn += 1
                    self._tear(write, chance)
            left = Left(len(self._unflushed), lost, torn)
            self._unflushed.clear()
            self.unflushed_bytes = 0
            self._frozen = False
            return left

    def _tear(self, write: _Write, chance: random.Random) -> None:
        # Blocks are those of the disk, not of the write.
        begin = write.offset
        end = write.offset + len(write.after)
        while begin < end:
            until = min(begin // BLOCK * BLOCK + BLOCK, end)
            if chance.random() < 0.5:
                self._put(begin, write.after[begin - write.offset : until - write.offset])
            begin = until

    def _put(self, offset: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            done = os.pwrite(self._image, view, offset)
            view, offset = view[done:], offset + done

    # --- NBD

    def _serve(self) -> None:
        while True:
            try:
                client, _address = self._listening.accept()
            except OSError:
                return
            with client, contextlib.suppress(ConnectionError):
                if self._shake_hands(client):
                    self._answer_requests(client)

    def _shake_hands(self, client: socket.socket) -> bool:
        client.sendall(b"NBDMAGIC" + _OPTION_MAGIC + struct.pack(">H", _FIXED_NEWSTYLE | _NO_ZEROES))
        (flags,) = struct.unpack(">I", _exactly(client, 4))
        export = struct.pack(">QH", self.size, _HAS_FLAGS_FLUSH_FUA)
        while True:
            magic, option, length = struct.unpack(">8sII", _exactly(client, 16))
            assert magic == _OPTION_MAGIC
            _exactly(client, length)

            def reply(kind: int, data: bytes = b"", option: int = option) -> None:
                client.sendall(struct.pack(">QIII", _REPLY_MAGIC, option, kind, len(data)) + data)

            match option:
                case _Option.EXPORT_NAME:
                    client.sendall(export + (b"" if flags & _NO_ZEROES else bytes(124)))
                    return True
                case _Option.INFO | _Option.GO:
                    reply(_Reply.INFO, struct.pack(">H", 0) + export)
                    reply(_Reply.ACK)
                    if option == _Option.GO:
                        return True
                case _Option.ABORT:
                    reply(_Reply.ACK)
                    return False
                case _:
                    reply(_Reply.UNSUPPORTED)

    def _answer_requests(self, client: socket.socket) -> None:
        while True:
            magic, flags, kind, cookie, offset, length = _REQUEST.unpack(_exactly(client, _REQUEST.size))
            assert magic == _REQUEST_MAGIC
            data = _exactly(client, length) if kind == _Command.WRITE else b""
            if kind == _Command.DISCONNECT:
                return
            if kind == _Command.FLUSH:
                # Amid it the power may go: nothing of what it is for is sure then.
                time.sleep(self._flush_seconds)
            with self._lock:
                if not self._frozen:
                    error, data = self._do(kind, flags, offset, length, data)
                if self._frozen:
                    # Until it is gone: a disk without power says nothing, it does not report errors either.
                    break
            client.sendall(_ANSWER.pack(_ANSWER_MAGIC, error, cookie) + data)
        while client.recv(1 << 20):
            pass

    def _do(self, kind: int, flags: int, offset: int, length: int, data: bytes) -> tuple[int, bytes]:
        if offset + length > self.size:
            return errno.EINVAL, b""
        match kind:
            case _Command.READ:
                return 0, os.pread(self._image, length, offset)
            case _Command.WRITE:
                self._at_request("write")
                if not self._frozen:
                    before = os.pread(self._image, length, offset)
                    self._unflushed.append(_Write(offset, before, data, bool(flags & _FUA)))
                    self.unflushed_bytes += length
                    self._put(offset, data)
                    self._at_request("written")
                return 0, b""
            case _Command.FLUSH:
                self._at_request("flush")
                if not self._frozen:
                    self._unflushed.clear()
                    self.unflushed_bytes = 0
                    self._at_request("flushed")
                return 0, b""
            case _:
                return errno.EINVAL, b""


def _exactly(client: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        more = client.recv(min(count - len(data), 1 << 20))
        if not more:
            raise ConnectionResetError
        data += more
    return bytes(data)
