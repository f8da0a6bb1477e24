"""The worked exchange of docs/protocol.md: a push of the smallest stream there is, from hello to receipt.

The document shows its bytes; tests/protocol/test_connection.py compares them with what the code says. After a change of
the wire, `python -m tests.protocol.exchange` prints the section anew.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from tests import streams
from tests.protocol.helpers import Pair, section

from fullsend_protocol.format import manifest
from fullsend_protocol.wire import messages
from fullsend_protocol.wire.connection import Chunk, Heartbeat, Role

#: BEGIN and END, nothing between: 624 bytes.
RAW: Final = streams.substream()
SHA256: Final = hashlib.sha256(RAW)
#: RAW as one zstd frame. A literal: another release of zstd may find another encoding of the same bytes.
FRAME: Final = bytes.fromhex(
    "28b52ffd6470013d0200e4020000accbbaf502000000010001e4036b0088776655443322110074616e6b2f64617461406e6f77000500eeff"
    "c00009007da060672100300206ec0da802f900a3c14003c002cbf7a179"
)

EXCHANGE: Final[list[tuple[Role, messages.Message | Chunk | Heartbeat]]] = [
    (Role.RECEIVER, messages.ReceiverHello(program="fullsendd 0.1.0", versions=[1], sender="alpha")),
    (Role.SENDER, messages.SenderHello(program="fullsend 0.1.0", version=1)),
    (
        Role.SENDER,
        messages.Push(
            dataset="tank/data",
            snapshot="now",
            guid=str(streams.GUID),
            base_guid=None,
            flags="",
            size_estimate=624,
            zfs_version=None,
            properties=None,
            keep_orphan=True,
            claim="00c1a1300c1a1300",
            resume="none",
            whole=None,
        ),
    ),
    (Role.RECEIVER, messages.Accept(offset=0, segments=[], record=None)),
    (Role.SENDER, Chunk(raw_offset=0, raw_length=len(RAW), sha256=SHA256.digest(), frame=FRAME, starts_segment=True)),
    (
        Role.SENDER,
        messages.Finish(
            raw_bytes=len(RAW), segments=[manifest.Segment(start=0, end=len(RAW), sha256=SHA256.hexdigest())]
        ),
    ),
    (Role.RECEIVER, Heartbeat("committing")),
    (Role.RECEIVER, messages.Ack(offset=len(RAW))),
    (
        Role.RECEIVER,
        messages.Committed(
            receipt=manifest.Receipt(
                sender="alpha",
                dataset="tank/data",
                snapshot="now",
                guid=str(streams.GUID),
                base=None,
                base_guid=None,
                kind="full",
                flags="",
                raw_bytes=len(RAW),
                stored_bytes=300,
                sha256=SHA256.hexdigest(),
                file="alpha/tank/data/@now.1122334455667788.full.zfs.zst",
                file_sha256="5c" * 32,
                received="2026-11-23T06:30:00Z",
                restorable=True,
                segments=[manifest.Segment(start=0, end=len(RAW), sha256=SHA256.hexdigest())],
                lost_spills=[],
            )
        ),
    ),
]


def frames() -> list[tuple[Role, bytes]]:
    """Return the exchange as two connections make it."""
    pair = Pair()
    for who, what in EXCHANGE:
        if isinstance(what, Heartbeat):
            pair.heartbeat(who, what.busy)
        else:
            pair.say(who, what)
    return pair.wire


def documented() -> list[tuple[Role, bytes]]:
    """Return the exchange as the document shows it."""
    blocks = re.findall(r"^```hexdump (\w+)\n(.*?)^```$", section("A worked exchange"), re.MULTILINE | re.DOTALL)
    return [(Role(who), bytes.fromhex("".join(line[10:58] for line in text.splitlines()))) for who, text in blocks]


def hexdump(data: bytes) -> str:
    """Write bytes as `hexdump -C` does."""
    lines = []
    for at in range(0, len(data), 16):
        row = data[at : at + 16]
        shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{at:08x}  {row[:8].hex(' '):23}  {row[8:].hex(' '):23}  |{shown}|")
    return "\n".join(lines)


def as_markdown() -> str:
    """Write the exchange as the document shows it."""
    parts = []
    for number, ((who, what), (_, data)) in enumerate(zip(EXCHANGE, frames(), strict=True), 1):
        name = type(what).__name__.lower() if isinstance(what, Chunk | Heartbeat) else what.type
        parts.append(f"{number}. The {who.value}: `{name}`\n\n```hexdump {who.value}\n{hexdump(data)}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(as_markdown())
