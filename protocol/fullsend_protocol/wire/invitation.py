"""The line that `fullsendd invite` prints and `fullsend join` reads.

    fullsend1-<base64url, no padding, of the JSON list [sender, host, port, fingerprint, secret]>-<CRC-32 in hex>

If several daemons serve one store, the list has a sixth element, [[host, port], ...], with the others' addresses. A
sender from before 2026-11-29 refuses such a line, and says that it is from another version.

It is one word without characters that any shell treats specially, so that it can be pasted. The CRC detects a damaged
line. The secret admits its holder, once: the line is as good as a password until it is used or expires.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from dataclasses import dataclass
from typing import Final

from fullsend_protocol.shared.errors import UsageError

_PREFIX: Final = "fullsend1-"
_LINE: Final = re.compile(r"fullsend1-([A-Za-z0-9_-]{20,4096})-([0-9a-f]{8})")
_SENDER: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")
#: A name or an address (IPv6 too, with its zone): nothing that could end a line of configuration.
_HOST: Final = re.compile(r"[A-Za-z0-9._:%-]{1,255}")
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_PORT_MAX: Final = 65535
#: Addresses of one receiver. A sender tries all of them before it says that there is no answer.
ADDRESSES_MAX: Final = 8


def is_sender_name(text: str) -> bool:
    """Whether a text is a valid sender's name: lower-case letters, digits and hyphens, 63 at most, no hyphen first."""
    return _SENDER.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Invitation:
    """The receiver's address, its identity (SHA-256 of its certificate's DER, hex), and the secret that admits once.
    `others`: the addresses at which it can be reached as well, ADDRESSES_MAX - 1 at most.

    Raises: UsageError if a field is not valid.
    """

    sender: str
    host: str
    port: int
    fingerprint: str
    secret: str
    others: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        right = {
            "sender": is_sender_name(self.sender),
            "host": _HOST.fullmatch(self.host),
            "port": _is_port(self.port),
            "others": len(self.others) < ADDRESSES_MAX and all(map(_is_address, self.others)),
            "fingerprint": _FINGERPRINT.fullmatch(self.fingerprint),
            "secret": _SECRET.fullmatch(self.secret),
        }
        for name, matched in right.items():
            if not matched:
                msg = f"an invitation cannot have {name} {getattr(self, name)!r}"
                raise UsageError(msg)

    def encode(self) -> str:
        """Return the invitation as one word."""
        fields: list[object] = [self.sender, self.host, self.port, self.fingerprint, self.secret]
        if self.others:
            fields.append(self.others)
        body = base64.urlsafe_b64encode(json.dumps(fields, separators=(",", ":")).encode()).rstrip(b"=")
        return f"{_PREFIX}{body.decode()}-{zlib.crc32(body):08x}"

    @classmethod
    def decode(cls, line: str) -> Invitation:
        """Read an invitation. Raises: UsageError; the text says whether it is incomplete or not valid."""
        match = _LINE.fullmatch(line.strip())
        if match is None or f"{zlib.crc32(match[1].encode()):08x}" != match[2]:
            msg = "this is not a whole invitation: copy the one line that `fullsendd invite` printed, all of it"
            raise UsageError(msg)
        try:
            sender, host, port, fingerprint, secret, *more = json.loads(
                base64.urlsafe_b64decode(match[1] + "=" * (-len(match[1]) % 4))
            )
            (others,) = more or [[]]
            return cls(sender, host, port, fingerprint, secret, tuple((name, number) for name, number in others))
        except (ValueError, TypeError, RecursionError, UsageError):
            msg = "this invitation cannot be read: it is from another version, or forged"
            raise UsageError(msg) from None


def _is_port(port: object) -> bool:
    return type(port) is int and 0 < port <= _PORT_MAX


def _is_address(address: tuple[object, object]) -> bool:
    host, port = address
    return isinstance(host, str) and _HOST.fullmatch(host) is not None and _is_port(port)
