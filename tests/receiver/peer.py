"""A sender that speaks the protocol byte by byte, and may therefore lie.

Nothing here comes from `fullsend_protocol`: what the daemon takes for granted of a peer is not what this peer is made
of. Sockets are blocking, with a limit: a daemon that says nothing is a failed test, not a hanging one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import ssl
import struct
import subprocess
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import zstandard

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: Seconds after which a peer that waits gives up.
PATIENCE: Final = 50.0

CONTROL, CHUNK, HEARTBEAT = 1, 2, 3
HEADER_SIZE: Final = 24
CHUNK_MIN: Final = 4 << 20


# --- who the peer is -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Certificate:
    """A key and its certificate, PEM files beside each other."""

    path: Path

    @property
    def key(self) -> Path:
        return self.path.with_suffix(".key")

    @property
    def pem(self) -> str:
        return self.path.read_text(encoding="ascii")

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.pem)).hexdigest()


def openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def make_certificate(path: Path, *, ca: bool = False) -> Certificate:
    """A self-signed certificate at `path`, its key beside it."""
    certificate = Certificate(path)
    openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "36500"),
        *("-subj", f"/CN={path.stem}", "-addext", f"basicConstraints=critical,CA:{'TRUE' if ca else 'FALSE'}"),
        *("-keyout", certificate.key, "-out", path),
    )
    return certificate


def sign_certificate(path: Path, authority: Certificate) -> Certificate:
    """A certificate that another one has signed."""
    certificate = Certificate(path)
    request = path.with_suffix(".csr")
    openssl(
        *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={path.stem}"),
        *("-keyout", certificate.key, "-out", request),
    )
    openssl(
        *("x509", "-req", "-in", request, "-CA", authority.path, "-CAkey", authority.key, "-days", "36500"),
        *("-set_serial", "7", "-out", path),
    )
    return certificate


def dated_certificate(path: Path, start: str, end: str) -> Certificate:
    """A self-signed certificate that says it is valid from `start` to `end` (YYYYMMDDHHMMSSZ)."""
    certificate = Certificate(path)
    request, config, database = (path.with_suffix(suffix) for suffix in (".csr", ".cnf", ".db"))
    openssl(
        *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={path.stem}"),
        *("-keyout", certificate.key, "-out", request),
    )
    database.touch()
    config.write_text(
        f"[ca]\ndefault_ca=own\n[own]\ndatabase={database}\nnew_certs_dir={path.parent}\nrand_serial=yes\n"
        "default_md=sha256\npolicy=any\n[any]\ncommonName=supplied\n",
        encoding="utf-8",
    )
    openssl(
        *("ca", "-batch", "-config", config, "-selfsign", "-keyfile", certificate.key, "-in", request),
        *("-startdate", start, "-enddate", end, "-notext", "-out", path),
    )
    return certificate


# --- what the peer says ----------------------------------------------------------------------------------------


def header(kind: int, payload_length: int, raw_offset: int = 0, raw_length: int = 0, flags: int = 0) -> bytes:
    head = struct.pack(">BBHIQI", kind, flags, 0, payload_length, raw_offset, raw_length)
    return head + struct.pack(">I", zlib.crc32(head))


def control(payload: bytes | dict[str, Any]) -> bytes:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return header(CONTROL, len(body)) + body


def heartbeat(busy: bytes = b"") -> bytes:
    return header(HEARTBEAT, len(busy)) + busy


@dataclass(frozen=True)
class Chunk:
    """A chunk as it travels."""

    raw_offset: int
    raw_length: int
    sha256: bytes
    frame: bytes
    starts_segment: bool = False

    def encode(self) -> bytes:
        payload = self.sha256 + self.frame
        return header(CHUNK, len(payload), self.raw_offset, self.raw_length, flags=self.starts_segment) + payload


def compress(raw: bytes, level: int = 1, **parameters: Any) -> bytes:
    """One zstd frame, with content size and checksum unless told otherwise."""
    options = {"write_content_size": True, "write_checksum": True, **parameters}
    chosen = zstandard.ZstdCompressionParameters.from_level(level, **options)
    return zstandard.ZstdCompressor(compression_params=chosen).compress(raw)


def cut_records(records: Iterable[bytes]) -> list[bytes]:
    """Cut a stream, given record by record, by the rule: behind the first record that ends 4 MiB or more from the
    chunk's start. For streams of records that are all resumable but the first and the last one.
    """
    pieces = [b""]
    for record in records:
        if len(pieces[-1]) >= CHUNK_MIN:
            pieces.append(b"")
        pieces[-1] += record
    return pieces


def chunks(pieces: Sequence[bytes], level: int = 1) -> list[Chunk]:
    """The chunks of a stream that has been cut."""
    running = hashlib.sha256()
    found = []
    at = 0
    for piece in pieces:
        running.update(piece)
        found.append(Chunk(at, len(piece), running.digest(), compress(piece, level), starts_segment=not at))
        at += len(piece)
    return found


def finish(raw: bytes) -> dict[str, Any]:
    """A sender's last word on a whole stream."""
    sha256 = hashlib.sha256(raw).hexdigest()
    return {"type": "finish", "raw_bytes": len(raw), "segments": [{"start": 0, "end": len(raw), "sha256": sha256}]}


def offer(dataset: str = "tank/data", snapshot: str = "now", **claims: Any) -> dict[str, Any]:
    """A push that claims nothing but a name, unless told otherwise."""
    unknown = {"guid": None, "base_guid": None, "flags": None, "size_estimate": None, "zfs_version": None}
    wishes = {"properties": None, "keep_orphan": True, "claim": "00c1a1300c1a1300", "resume": "none", "whole": None}
    return {"type": "push", "dataset": dataset, "snapshot": snapshot, **unknown, **wishes, **claims}


class EndedError(AssertionError):
    """The daemon has closed the connection, and a test expected more."""


class Peer:
    """One connection to a daemon."""

    def __init__(self, port: int, certificate: Certificate | None = None, **options: Any) -> None:
        """Shake hands. `options` are set on the TLS context."""
        raw = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        try:
            self.sock = client_context(certificate, **options).wrap_socket(raw)
        except BaseException:
            raw.close()
            raise
        self.acks: list[int] = []

    @classmethod
    def enrolled(cls, port: int, certificate: Certificate) -> Peer:
        """A peer that has exchanged hellos."""
        peer = cls(port, certificate)
        try:
            peer.hello = peer.hear("hello")
            peer.say("hello", program="raw peer", version=1)
        except BaseException:
            peer.close()
            raise
        return peer

    hello: dict[str, Any]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Go, without a word."""
        self.sock.close()

    # --- out

    def write(self, data: bytes | memoryview) -> None:
        self.sock.sendall(data)

    def write_what_goes(self, data: memoryview) -> memoryview:
        """Send until the daemon takes no more. Returns: what it has not taken."""
        self.sock.settimeout(0)
        try:
            while data:
                data = data[self.sock.send(data[: 16 << 10]) :]
        except ssl.SSLWantWriteError:
            pass
        finally:
            self.sock.settimeout(PATIENCE)
        return data

    def say(self, type_: str, **fields: Any) -> None:
        self.write(control({"type": type_, **fields}))

    def push(self, said: dict[str, Any] | None = None) -> None:
        """Offer a stream, and have it accepted."""
        self.write(control(offer() if said is None else said))
        assert self.hear("accept") == {"type": "accept", "offset": 0, "segments": [], "record": None}

    def give(
        self,
        raw: bytes,
        said: dict[str, Any] | None = None,
        pieces: Sequence[bytes] = (),
        *,
        answer: str = "committed",
    ) -> dict[str, Any]:
        """Push a stream that must be taken. Returns: the receipt."""
        encoded = [chunk.encode() for chunk in chunks(pieces or [raw])]  # beforehand: it takes time
        self.push(said)
        for chunk in encoded:
            self.write(chunk)
        self.write(control(finish(raw)))
        receipt = self.hear_after_acks(answer)["receipt"]
        assert isinstance(receipt, dict)
        return receipt

    # --- in

    def read(self) -> tuple[int, int, int, bytes]:
        """The next frame: type, raw offset, raw length, payload."""
        head = self._exactly(HEADER_SIZE)
        kind, flags, reserved, length, raw_offset, raw_length, crc = struct.unpack(">BBHIQII", head)
        known = 1 if kind == CHUNK else 0
        assert (flags & ~known, reserved, crc) == (0, 0, zlib.crc32(head[:20]))
        return kind, raw_offset, raw_length, self._exactly(length)

    def hear(self, *types: str) -> dict[str, Any]:
        """The next message, which must be of one of these types. Heartbeats are passed over."""
        while True:
            kind, _offset, _length, payload = self.read()
            if kind == HEARTBEAT:
                continue
            assert kind == CONTROL
            message = json.loads(payload)
            assert isinstance(message, dict)
            assert message["type"] in types, message
            if message["type"] == "ack":
                self.acks.append(message["offset"])
            return message

    def hear_after_acks(self, type_: str) -> dict[str, Any]:
        while (message := self.hear(type_, "ack"))["type"] == "ack":
            pass
        return message

    def refusal(self) -> str:
        """The daemon's last words, `code: message`; it has closed the connection behind them."""
        error = self.hear_after_acks("error")
        self.expect_end()
        return f"{error['code']}: {error['message']}"

    def expect_end(self) -> None:
        """The daemon says nothing more."""
        # It waits for us to go, so that what it said is read before the connection is cut: go half-way.
        with contextlib.suppress(OSError):
            self.sock.unwrap()
        with contextlib.suppress(OSError):
            rest = self.sock.recv(1)
            assert rest == b""

    def has_ended(self) -> bool:
        """Whether the daemon has closed the connection; waits for it, and takes what it says before."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while self.sock.recv(1 << 16):
                pass
        return True

    def fetched(self) -> tuple[dict[str, Any], bytes]:
        """The answer to `fetch`: the manifest, and the raw stream, its running hash checked on the way."""
        manifest = self.hear("sending")["manifest"]
        raw = bytearray()
        running = hashlib.sha256()
        while True:
            kind, raw_offset, raw_length, payload = self.read()
            if kind == HEARTBEAT:
                continue
            if kind == CONTROL:
                assert json.loads(payload) == {"type": "done"}
                return manifest, bytes(raw)
            assert raw_offset == len(raw)
            piece = zstandard.ZstdDecompressor().decompress(payload[32:], max_output_size=raw_length)
            assert len(piece) == raw_length
            running.update(piece)
            assert payload[:32] == running.digest()
            raw += piece

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            try:
                more = self.sock.recv(count - len(data))
            except (ConnectionError, ssl.SSLError) as error:
                raise EndedError(str(error)) from error
            if not more:
                raise EndedError(f"the connection ended after {len(data)} bytes of {count}")
            data += more
        return bytes(data)


def client_context(certificate: Certificate | None, **options: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    for name, value in options.items():
        setattr(context, name, value)
    if certificate is not None:
        context.load_cert_chain(certificate.path, certificate.key)
    return context
