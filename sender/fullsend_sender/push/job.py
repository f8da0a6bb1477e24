"""The data of one push: the request, the plan, and the result. No I/O."""

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
    from fullsend_sender.push.plan import NothingToSend, PlannedSend
    from fullsend_sender.zfs.commands import Zfs
    from fullsend_sender.zfs.inventory import Dataset
    from fullsend_sender.zfs.selection import Selection
    from fullsend_transport.throttle import Throttle


@dataclass(frozen=True, slots=True)
class PushTarget:
    """A request for datasets. `snapshot`: the named one (after the @), None: a new one; `table`: its table in the
    configuration, None: it is from the command line.
    """

    selection: Selection
    snapshot: str | None = None
    table: PushSettings | None = None


@dataclass(frozen=True, slots=True)
class PushRequest:
    """What to push. `full`: send fulls, whatever is stored; `package`: with all below, as one stream (-R)."""

    targets: tuple[PushTarget, ...]
    full: bool = False
    package: bool = False


@dataclass(frozen=True, slots=True)
class PushItem:
    """One stream of a plan. `tree`: its datasets; `begun`: the partial at the receiver, if a part has arrived before;
    `common`: GUID of the dataset's newest snapshot or bookmark that is stored, None: none is.
    """

    send: PlannedSend
    options: SendOptions
    tree: tuple[Dataset, ...]
    begun: PartialEntry | None = None
    common: str | None = None

    @property
    def name(self) -> str:
        return self.send.dataset.name

    def arrived(self, send: PlannedSend) -> int:
        """Return the raw bytes of a stream that have arrived before."""
        return self.begun.raw_bytes if self.begun is not None and send is self.send else 0

    def names(self, snapshot: str) -> list[str]:
        """Return the snapshots in the stream. A dataset that is younger than the named snapshot has none: `zfs send -R`
        skips it.
        """
        new = self.send.snapshot is None
        return [f"{dataset.name}@{snapshot}" for dataset in self.tree if new or dataset.has(snapshot)]

    @property
    def held_base(self) -> list[str]:
        """The base, if it is a snapshot, which can be held."""
        send = self.send
        return [f"{self.name}@{send.base.name}"] if send.base is not None and send.base_mark == "@" else []


@dataclass(slots=True)
class PushPlan:
    """What to do. `partials`: the partial streams at the receiver; `unchanged`: datasets with nothing to send;
    `failures`: by name, what cannot be done.
    """

    items: list[PushItem] = field(default_factory=list)
    partials: Sequence[PartialEntry] = ()
    unchanged: list[NothingToSend] = field(default_factory=list)
    failures: list[tuple[str, FullsendError]] = field(default_factory=list)

    @property
    def new(self) -> list[PushItem]:
        """The items that need a new snapshot."""
        return [item for item in self.items if item.send.snapshot is None]

    def new_name(self, receiver: str, now: float) -> tuple[str, float]:
        """Return the name (after the @) for new snapshots, and the seconds until the time in that name. A name has
        seconds; an existing snapshot's name is not used again. `now`: seconds since the epoch.
        """
        taken = {snapshot.name for item in self.new for dataset in item.tree for snapshot in dataset.snapshots}
        when = now
        while (name := naming.snapshot_name(receiver, when)) in taken:
            when = int(when) + 1
        return name, when - now


@dataclass(slots=True)
class PushSummary:
    """What was done. `failures`: by name, in their order; `still`: the names of the datasets that are unchanged;
    `chosen`: of those that were selected; `current`: of those of which the receiver has what was to be pushed; `piles`:
    by name, why not one of the dataset's outdated snapshots could be destroyed.
    """

    pushed: int = 0
    stored: int = 0  # named snapshots, and others, that were stored before
    unchanged: int = 0
    failures: list[tuple[str, FullsendError]] = field(default_factory=list)
    still: list[str] = field(default_factory=list, compare=False)
    chosen: set[str] = field(default_factory=set, compare=False)
    current: set[str] = field(default_factory=set, compare=False)
    piles: dict[str, FullsendError] = field(default_factory=dict, compare=False)

    def line(self, receiver: str) -> str:
        """Return the line for a person."""
        counts = {"pushed": self.pushed, "stored before": self.stored, "unchanged": self.unchanged}
        said = [f"{count} {what}" for what, count in counts.items() if count]
        said += [f"{len(self.failures)} FAILED"] if self.failures else []
        return f"{receiver}: {', '.join(said) or 'nothing to do'}"


@dataclass(frozen=True, slots=True)
class PushJob:
    """A request to one receiver, with all that it needs. `throttle`: the limit of all that this run sends, None: there
    is none; `debug`: failures are logged with their tracebacks.
    """

    request: PushRequest
    settings: SenderSettings
    endpoint: Endpoint
    identity: Identity
    zfs: Zfs
    throttle: Throttle | None
    locks_in: str | None = None
    debug: bool = False

    @property
    def receiver(self) -> str:
        """The receiver's id in the names of snapshots, bookmarks and holds."""
        return naming.receiver_id(self.endpoint.fingerprint)

    def claim(self, dataset: Dataset) -> str:
        """Return the claim that takes a stream of this dataset over from a dead run: this run has its lock."""
        return hashlib.sha256(f"{self.endpoint.fingerprint} {dataset.guid}".encode()).hexdigest()[:16]
