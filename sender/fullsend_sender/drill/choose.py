"""Chooses what a drill restores. No I/O.

Without a name it is the dataset whose last drill is the oldest: so each has its turn. A dataset that never had one
comes first. Of the dataset it is a random snapshot of those that can be restored, because an old chain may be broken
where the newest is not. Every other time, by chance, it is one that is still on this host, if there is one: of the
others no content can be compared.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fullsend_protocol.format.chains import reception
from fullsend_protocol.shared.errors import UsageError
from fullsend_protocol.shared.units import format_size
from fullsend_sender.restore.chains import NotRestorable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from fullsend_protocol.format.manifest import StreamEntry
    from fullsend_sender.restore.chains import Library

#: Share of the drills that restore a snapshot that is still here, so that contents are compared.
_STILL_HERE: Final = 0.5


class TooLargeError(UsageError):
    """What is to be restored does not fit into the scratch place."""


class Broken(NotRestorable):
    """What is stored cannot be restored. `entry`: of it."""

    def __init__(self, message: str, entry: StreamEntry) -> None:
        super().__init__(message)
        self.entry = entry


@dataclass(frozen=True, slots=True)
class Choice:
    """What to restore. `chain`: the streams, in order."""

    entry: StreamEntry
    chain: list[StreamEntry]

    @property
    def name(self) -> str:
        return f"{self.entry.dataset}@{self.entry.snapshot}"

    @property
    def raw_bytes(self) -> int:
        return sum(each.raw_bytes for each in self.chain)


@dataclass(frozen=True, slots=True)
class Chooser:
    """`entries`: all that is stored; `library`: the same; `into`: the scratch place; `room`: bytes that it has;
    `newest`: choose the newest snapshot, not a random one; `here`: the GUIDs of the snapshots on this host; `notes`:
    gets a line for each dataset that was passed over.
    """

    entries: Sequence[StreamEntry]
    library: Library
    into: str
    room: int
    newest: bool
    random: random.Random
    here: Collection[str] = ()
    notes: list[str] = field(default_factory=list)

    def choose(self, what: str | None, last: Mapping[str, str]) -> Choice:
        """Return what to restore. `what`: DATASET, DATASET@SNAPSHOT, guid:N or a file's name, None: see above; `last`:
        the times of the last drills, by dataset.

        Raises: NotRestorable (Broken), UsageError, TooLargeError.
        """
        datasets = {each.dataset for each in self.entries}
        if what is not None:
            return self._of(what) if what in datasets else self._fitting(self._choice(self.library.find(what)))
        order = sorted(datasets)
        self.random.shuffle(order)
        order.sort(key=lambda name: last.get(name, ""))
        order = [name for name in order if not f"{name}/".startswith(f"{self.into}/")]
        if not order:
            raise UsageError("nothing is stored of this host, so there is nothing to restore (see `fullsend list`)")
        for name in order:
            try:
                return self._of(name)
            except UsageError as error:
                self.notes.append(str(error))
        raise UsageError("none of the stored datasets can be restored as a drill, for the reasons above")

    def _of(self, dataset: str) -> Choice:
        """Return the choice within a dataset. Raises: NotRestorable, UsageError, TooLargeError."""
        if self.newest:
            return self._fitting(self._choice(self.library.newest(dataset)))
        own = [each for each in self.entries if each.dataset == dataset]
        single = [each for each in own if each.kind != "package"]
        if not single:
            raise UsageError(
                f"{dataset} is stored only as a package of several datasets, which a drill does not restore"
            )
        self.random.shuffle(single)
        if self.random.random() < _STILL_HERE:
            single.sort(key=lambda each: each.guid not in self.here)
        smallest: TooLargeError | None = None
        for each in single:
            try:
                return self._fitting(self._choice(each))
            except TooLargeError as error:
                smallest = error
            except (NotRestorable, UsageError):
                continue
        if smallest is not None:
            raise smallest
        last = max(single, key=reception)
        raise Broken(f"{dataset}: none of its {len(single)} stored streams can be restored (see `fullsend list`)", last)

    def _choice(self, entry: StreamEntry) -> Choice:
        """Return a choice with its chain. Raises: NotRestorable, UsageError."""
        name = f"{entry.dataset}@{entry.snapshot}"
        chain = self.library.chain(entry)
        if chain is None:
            raise Broken(f"{name} cannot be restored: {self.library.obstacle(entry)}", entry)
        if any(each.kind == "package" for each in chain):
            raise UsageError(f"{name} comes in a package of several datasets, which a drill does not restore")
        return Choice(entry, chain)

    def _fitting(self, choice: Choice) -> Choice:
        """Return the choice. Raises: TooLargeError."""
        if choice.raw_bytes > self.room:
            raise TooLargeError(
                f"{choice.name} needs up to {format_size(choice.raw_bytes)}, and {self.into} has room for"
                f" {format_size(self.room)}: a drill of it needs another place (drill-into), or a larger drill-quota"
            )
        return choice
