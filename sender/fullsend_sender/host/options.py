"""What a user asks for, as plain values: where a receiver is, and how datasets are sent to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from fullsend_protocol.stream.chunks import LEVEL_DEFAULT

#: How long a receiver may stay away, unless the user says otherwise: seconds.
RETRY_FOR: Final = 3600.0
#: Own snapshots that are kept of a dataset for each receiver.
KEEP_DEFAULT: Final = 2


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a receiver is and who it must be: SHA-256 of its certificate's DER, in hex. `name` is ours for it;
    `one_of_several`: others are configured, too.
    """

    name: str
    host: str
    port: int
    fingerprint: str
    one_of_several: bool = False

    @property
    def place(self) -> str:
        """Name and address, for messages."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.name} ({host}:{self.port})"


@dataclass(frozen=True, slots=True)
class FullAfter:
    """When a chain has grown too long, and a new full begins another; None: never for this reason. `age`: seconds since
    the full came to the receiver, by its clock; `increments`: summed raw bytes of the increments, as a multiple of the
    full's.
    """

    streams: int | None = None
    age: float | None = None
    increments: float | None = None


@dataclass(frozen=True, slots=True)
class SendOptions:
    """How a dataset is sent. `raw`: -w also where it is not encrypted; `decrypt`: an encrypted one plain; `compressed`:
    -c; `embedded`: -e; `size_check`: the receiver is told the size, and may refuse what would not fit; `keep`: how many
    own snapshots stay; `level`: of zstd.

    -e is off unless somebody asks for it. OpenZFS 2.4 embeds spill blocks too, and `zfs receive` loses these (openzfs
    issue 18239). A stream with embedded blocks cannot be received into an encrypted place (openzfs issue 8819). What
    it would save, zstd saves as well.
    """

    raw: bool = False
    decrypt: bool = False
    compressed: bool = False
    embedded: bool = False
    size_check: bool = True
    full_after: FullAfter = field(default_factory=FullAfter)
    keep: int = KEEP_DEFAULT
    level: int = LEVEL_DEFAULT
