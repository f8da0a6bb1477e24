"""The user's choices as plain values: the address of a receiver, and the options for sending datasets to it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from fullsend_protocol.shared.addresses import join_address

#: A level of zstd for all chunks of a stream, or "auto": each chunk's own (transfer/adaptive_level.py).
LevelSetting = int | Literal["auto"]
LEVEL_AUTO: Final = "auto"
#: Default of --retry-for: how long a receiver may stay away, in seconds.
RETRY_FOR: Final = 3600.0
#: fullsend's own snapshots of a dataset that are kept for each receiver.
KEEP_DEFAULT: Final = 2


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of a receiver, and its identity: SHA-256 of its certificate's DER, in hex. `name`: its name in the
    configuration; `one_of_several`: other receivers are configured, too; `others`: more addresses of this one, behind
    each of which a daemon serves the same store.
    """

    name: str
    host: str
    port: int
    fingerprint: str
    one_of_several: bool = False
    others: tuple[tuple[str, int], ...] = ()

    @property
    def place(self) -> str:
        """Name and address, for messages."""
        return f"{self.name} ({', '.join(join_address(*each) for each in self._addresses)})"

    @property
    def _addresses(self) -> list[tuple[str, int]]:
        return [(self.host, self.port), *self.others]

    def each(self) -> list[Endpoint]:
        """Return one endpoint for each address, beginning anywhere: so many senders use all daemons, and one that hangs
        is not the first at each attempt.
        """
        addresses = self._addresses
        start = os.urandom(1)[0] % len(addresses)
        in_turn = addresses[start:] + addresses[:start]
        return [replace(self, host=host, port=port, others=()) for host, port in in_turn]


@dataclass(frozen=True, slots=True)
class FullAfter:
    """When a chain is too long, so that a new full begins another; None: never for this reason. `age`: seconds since
    the full came to the receiver, by its clock; `increments`: raw bytes of all increments, as a multiple of the full's.
    push.full_after spreads these limits.
    """

    streams: int | None = None
    age: float | None = None
    increments: float | None = None


@dataclass(frozen=True, slots=True)
class SendOptions:
    """The options for sending a dataset. `raw`: -w also if it is not encrypted; `decrypt`: send an encrypted one plain,
    never with `raw`; `compressed`: -c; `embedded`: -e; `size_check`: the receiver is told the size, and may refuse what
    would not fit; `keep`: number of own snapshots that stay.

    -e is off by default. OpenZFS 2.4 embeds spill blocks too, and `zfs receive` loses these (openzfs issue 18239). A
    stream with embedded blocks cannot be received into an encrypted place (openzfs issue 8819). zstd saves the bytes
    that -e would save.
    """

    raw: bool = False
    decrypt: bool = False
    compressed: bool = False
    embedded: bool = False
    size_check: bool = True
    full_after: FullAfter = field(default_factory=FullAfter)
    keep: int = KEEP_DEFAULT
    level: LevelSetting = LEVEL_AUTO
