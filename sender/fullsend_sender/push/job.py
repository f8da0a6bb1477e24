"""What one push is about: what was asked for, what is to be done for it, and what has been done. No I/O."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fullsend_sender.push import naming

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fullsend_protocol.format.manifest import PartialEntry
    from fullsend_protocol.shared.errors import FullsendError
    from fullsend_sender.host.config import PushSettings, SenderSettings
    from fullsend_sender.host.identity import Identity
    from fullsend_sender.host.options import Endpoint, SendOptions
    from fullsend_sender.push.plan import Send, Unchanged
    from fullsend_sender.zfs.commands import Zfs
    from fullsend_sender.zfs.inventory import Dataset
    from fullsend_sender.zfs.selection import Selection


@dataclass(frozen=True, slots=True)
class Target:
    """What somebody asked for. `snapshot`: the one that is named (after the @), None: a new one; `table`: where in the
    configuration it stands, None: on the command line.
    """

    selection: Selection
    snapshot: str | None = None
    table: PushSettings | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What to push. `full`: fulls, whatever is stored; `package`: with all below, as one stream (-R)."""

    targets: tuple[Target, ...]
    full: bool = False
    package: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    """One stream of a plan. `tree`: the datasets it brings; `begun`: what the receiver has of it, where some of it has
    arrived before; `common`: GUID of the dataset's newest point that is stored, None: none is.
    """

    send: Send
    how: SendOptions
    tree: tuple[Dataset, ...]
    begun: PartialEntry | None = None
    common: str | None = None

    @property
    def name(self) -> str:
        return self.send.dataset.name

    def arrived(self, send: Send) -> int:
        """Return the raw bytes of a stream that have arrived before."""
        return self.begun.raw_bytes if self.begun is not None and send is self.send else 0

    def names(self, snapshot: str) -> list[str]:
        """Return the snapshots that it brings. What is younger than one that is named has none: `zfs send -R` passes it
        over.
        """
        new = self.send.snapshot is None
        return [f"{dataset.name}@{snapshot}" for dataset in self.tree if new or dataset.has(snapshot)]

    @property
    def held_base(self) -> list[str]:
        """The base, where that is a snapshot, which can be held."""
        send = self.send
        return [f"{self.name}@{send.base.name}"] if send.base is not None and send.base_mark == "@" else []


@dataclass(slots=True)
class Plan:
    """What is to be done. `partials`: what the receiver has in part; `unchanged`: where nothing is to be done;
    `failures`: what cannot be, by name.
    """

    items: list[Item] = field(default_factory=list)
    partials: Sequence[PartialEntry] = ()
    unchanged: list[Unchanged] = field(default_factory=list)
    failures: list[tuple[str, FullsendError]] = field(default_factory=list)

    @property
    def new(self) -> list[Item]:
        """The items that a snapshot is to be taken for."""
        return [item for item in self.items if item.send.snapshot is None]

    def new_name(self, receiver: str, now: float) -> tuple[str, float]:
        """Return the name (after the @) for new snapshots, and how many seconds are left until its time: a name is of a
        second, and one that is there already is nobody else's. `now`: seconds since the epoch.
        """
        taken = {snapshot.name for item in self.new for dataset in item.tree for snapshot in dataset.snapshots}
        when = now
        while (name := naming.snapshot_name(receiver, when)) in taken:
            when = int(when) + 1
        return name, when - now


@dataclass(slots=True)
class Summary:
    """What has been done. `failures`: by name, in the order in which they came."""

    pushed: int = 0
    stored: int = 0  # named snapshots, and others, that were there before
    unchanged: int = 0
    failures: list[tuple[str, FullsendError]] = field(default_factory=list)

    def line(self, receiver: str) -> str:
        """Say it to a person."""
        counts = {"pushed": self.pushed, "stored before": self.stored, "unchanged": self.unchanged}
        said = [f"{count} {what}" for what, count in counts.items() if count]
        said += [f"{len(self.failures)} FAILED"] if self.failures else []
        return f"{receiver}: {', '.join(said) or 'nothing to do'}"


@dataclass(frozen=True, slots=True)
class Job:
    """A request to one receiver, and all that it takes. `debug`: failures are told with their tracebacks."""

    request: Request
    settings: SenderSettings
    endpoint: Endpoint
    identity: Identity
    zfs: Zfs
    locks_in: str | None = None
    debug: bool = False

    @property
    def receiver(self) -> str:
        """What the receiver is called in our names."""
        return naming.receiver_id(self.endpoint.fingerprint)

    def claim(self, dataset: Dataset) -> str:
        """Return what takes a stream of this dataset over from a run that has died: we have the dataset's lock."""
        return hashlib.sha256(f"{self.endpoint.fingerprint} {dataset.guid}".encode()).hexdigest()[:16]
