"""Decides what to send of one dataset: nothing, an increment, or a full. No I/O: facts in, a decision out.

Bases are matched by GUID alone: a renamed dataset keeps its chain, and one that was destroyed and created again begins
a new one. But a copy that was encrypted anew (`zfs send | zfs receive` into an encrypted dataset) has the GUIDs of the
original and other keys, and `zfs receive` takes no raw increment of the one on the other. So a raw dataset builds on
what is stored under its own name, if anything is. The receiver compares the keys, and refuses what does not fit.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import FullsendError
from fullsend_protocol.shared.units import plural
from fullsend_protocol.stream.facts import class_of
from fullsend_sender.push import naming
from fullsend_sender.push.full_after import describe, why_too_long

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Sequence

    from fullsend_protocol.format.manifest import PartialEntry
    from fullsend_protocol.stream.facts import StreamClass
    from fullsend_protocol.wire.messages import Base, DamagedEntry
    from fullsend_sender.host.options import SendOptions
    from fullsend_sender.zfs.inventory import Dataset, Snapshot


class CannotSend(FullsendError):  # noqa: N818 - reads as what it says
    """A dataset, or a snapshot, that cannot be sent as requested."""


@dataclass(frozen=True, slots=True)
class NothingToSend:
    """`snapshot` is stored. `still`: and nothing is new since; otherwise it was named."""

    dataset: Dataset
    snapshot: Snapshot
    still: bool = True


@dataclass(frozen=True, slots=True)
class PlannedSend:
    """A stream to send.

    `snapshot`: None: a new one, not taken yet; `base`: None: a full; `base_mark`: @ if the base is a snapshot, # if it
    is a bookmark; `options`: for `zfs send`, without base and snapshot; `reason`: why a full is sent although something
    is stored, "" if that needs no message; `routine`: the user wants that full, by a setting or by --full; `repair`:
    what is damaged at the receiver, if that is why this stream is sent; `again`: it replaces the damaged stream itself.
    """

    dataset: Dataset
    snapshot: Snapshot | None
    base: Snapshot | None
    base_mark: Literal["@", "#"]
    options: tuple[str, ...]
    reason: str = ""
    routine: bool = False
    repair: str = ""
    again: bool = False

    def arguments(self, snapshot: str) -> tuple[str, ...]:
        """Return the arguments of `zfs send` for the snapshot of this name."""
        name = f"{self.dataset.name}@{snapshot}"
        base = () if self.base is None else ("-i", f"{self.dataset.name}{self.base_mark}{self.base.name}")
        return (*self.options, *base, name)

    def full(self, reason: str) -> PlannedSend:
        """Return the same without a base, which cannot be restored at the receiver."""
        return PlannedSend(self.dataset, self.snapshot, None, "@", self.options, reason, repair=reason)


class StoredBases:
    """The stored streams that can be bases, by GUID, and those that are damaged."""

    def __init__(self, bases: Iterable[Base], damaged: Iterable[DamagedEntry] = ()) -> None:
        self._by_guid: dict[str, list[Base]] = defaultdict(list)
        self._by_dataset: dict[str, list[Base]] = defaultdict(list)
        self._damaged: dict[str, list[DamagedEntry]] = defaultdict(list)
        for base in bases:
            self._by_guid[base.guid].append(base)
            self._by_dataset[base.dataset].append(base)
        for each in damaged:
            self._damaged[each.dataset].append(each)

    def damaged(self, dataset: str, stream_class: StreamClass) -> list[DamagedEntry]:
        """Return the damaged streams of a dataset and class whose snapshot no other stream restores. A raw one of
        another dataset may have other keys.
        """
        same_keys = dataset if stream_class == "raw" else None
        return [
            each
            for each in self._damaged.get(dataset, ())
            if each.stream_class == stream_class and self.get(each.guid, stream_class, same_keys) is None
        ]

    def full_bytes(self, dataset: str) -> int:
        """Return the raw bytes of the largest full of a dataset; 0: none is stored."""
        fulls = (base.full_bytes for base in self._by_dataset.get(dataset, ()))
        lost = (each.raw_bytes for each in self._damaged.get(dataset, ()) if each.base_guid is None)
        return max([*fulls, *lost], default=0)

    def continues(self, dataset: str, guid: str) -> bool:
        """Whether a stream of a dataset builds on the snapshot with this GUID."""
        return any(base.base_guid == guid for base in self._by_dataset.get(dataset, ()))

    def knows(self, dataset: str) -> bool:
        """Whether anything is stored under this dataset's name."""
        return dataset in self._by_dataset

    def get(self, guid: str, stream_class: StreamClass, dataset: str | None = None) -> Base | None:
        """Return the stream of this snapshot and class with the shortest chain, of several that with the youngest full.
        `dataset`: only of this one.
        """
        fitting = [
            base
            for base in self._by_guid.get(guid, ())
            if base.stream_class == stream_class and dataset in {None, base.dataset}
        ]
        return min(fitting, key=lambda base: (base.streams, base.age), default=None)

    def chain(self, base: Base) -> list[Base]:
        """Return a stream and those that it builds on, the newest first: of raw ones those of its own dataset first. A
        package is no base, and ends the chain.
        """
        chain, seen = [base], {base.guid}
        while (before := base.base_guid) is not None and before not in seen:
            own = self.get(before, base.stream_class, base.dataset) if base.stream_class == "raw" else None
            found = own or self.get(before, base.stream_class)
            if found is None:
                break
            base = found
            chain.append(base)
            seen.add(base.guid)
        return chain

    def classes(self, guid: str) -> list[StreamClass]:
        """Return the classes in which this snapshot is stored."""
        return sorted({base.stream_class for base in self._by_guid.get(guid, ())})


def decide(
    dataset: Dataset,
    how: SendOptions,
    stored: StoredBases,
    *,
    now: float,
    snapshot: str | None = None,
    full: bool = False,
) -> NothingToSend | PlannedSend:
    """Decide what to send of a dataset.

    `now`: seconds since the epoch, by this host's clock; `snapshot`: the named one (after the @), None: the dataset's
    present state; `full`: a full, whatever is stored.

    Raises: CannotSend.
    """
    stream_class, options = _how(dataset, how)
    target = None if snapshot is None else _named(dataset, snapshot)
    found = _newest_base(dataset, stored, stream_class, target)
    if full:
        reason = "" if found is None else f"--full is given; {describe(found[2])}"
        return PlannedSend(dataset, target, None, "@", options, reason, routine=True)
    equal = list(_equal(dataset))
    for same in equal if target is None else [target]:
        # A dataset that is stored only under another name (it was renamed, or this is a replica) gets a small
        # increment. Then it can be restored by its name, and `status` knows its age.
        if stored.get(same.guid, stream_class, dataset.name):
            return NothingToSend(dataset, same, still=same in equal)
    if found is None:
        repair = _what_is_damaged(stored.damaged(dataset.name, stream_class))
        reason = f"{repair}, and this host cannot send it again" if repair else ""
        reason = reason or _why_full(dataset, stored, stream_class, target)
        return PlannedSend(dataset, target, None, "@", options, reason, repair=repair)
    point, mark, base = found
    grown = why_too_long(how.full_after, stored.chain(base), now - point.created)
    if grown:
        return PlannedSend(dataset, target, None, "@", options, grown, routine=True)
    later = {each.guid for each in (*dataset.bookmarks, *dataset.snapshots) if each.createtxg > point.createtxg}
    passed_over = [each for each in stored.damaged(dataset.name, stream_class) if each.guid in later]
    return PlannedSend(dataset, target, point, mark, options, repair=_what_is_damaged(passed_over))


def find_repair(
    dataset: Dataset, how: SendOptions, stored: StoredBases, tried: Container[object] = ()
) -> tuple[PlannedSend, DamagedEntry] | None:
    """Return the oldest damaged stream of a dataset that this host can send again, and that can be restored then: its
    snapshot is here, and its base here and restorable there. None: there is none, or damaged increments are larger
    together than a full would be, so that a new full is cheaper. `tried`: the identities of those that are not wanted.

    Raises: CannotSend.
    """
    stream_class, _options = _how(dataset, how)
    bases = _points(dataset)
    targets = {each.guid: each for each in dataset.snapshots}
    found = [
        each
        for each in stored.damaged(dataset.name, stream_class)
        if each.guid in targets
        and targets[each.guid].name == each.snapshot
        and (each.base_guid is None or each.base_guid in bases)
        and each.identity not in tried
    ]
    found.sort(key=lambda each: targets[each.guid].createtxg)
    increments = sum(each.raw_bytes for each in found if each.base_guid is not None)
    if increments > max(stored.full_bytes(dataset.name), dataset.referenced):
        return None
    for each in found:
        if each.base_guid is not None and stored.get(each.base_guid, stream_class) is None:
            continue  # its base may be mended first
        send = PlannedSend(dataset, targets[each.guid], None, "@", options_of(each.flags), again=True)
        if each.base_guid is not None:
            base, mark = bases[each.base_guid]
            send = replace(send, base=base, base_mark=mark)
        return replace(send, repair=_what_is_damaged([each])), each
    return None


def options_of(flags: str) -> tuple[str, ...]:
    """Return the options of `zfs send` that make a stream with these flags again."""
    wanted = {"e": "-e", "c": "-c", "p": "-p", "w": "-w"}
    if "w" in flags:
        del wanted["c"]  # a raw stream shows it without -c
    # -L shows in a stream only after the dataset has large blocks.
    return ("-L", *(option for letter, option in wanted.items() if letter in flags.partition("r")[0]))


def _what_is_damaged(entries: Sequence[DamagedEntry]) -> str:
    """Return what is wrong with these at the receiver; "": they are none."""
    if not entries:
        return ""
    more = f", and {plural(len(entries) - 1, 'other')}" if len(entries) > 1 else ""
    return f"the receiver's copy of @{entries[0].snapshot} is {entries[0].why}{more}"


def _points(dataset: Dataset) -> dict[str, tuple[Snapshot, Literal["@", "#"]]]:
    """Return what an increment can build on here, by GUID: of two equal ones the snapshot."""
    points: dict[str, tuple[Snapshot, Literal["@", "#"]]] = {each.guid: (each, "#") for each in dataset.bookmarks}
    return points | {each.guid: (each, "@") for each in dataset.snapshots}


def check_name(dataset: Dataset) -> None:
    """Check that a new snapshot of a dataset can have a name. One without would fail its whole pool.

    Raises: CannotSend.
    """
    size = len(dataset.name.encode(errors="surrogateescape"))
    if size + naming.SNAPSHOT_SUFFIX > limits.NAME_MAX:
        raise CannotSend(
            f"its name has {size} bytes, and with {naming.SNAPSHOT_SUFFIX} for its snapshot that is more than the"
            f" {limits.NAME_MAX} that ZFS permits: rename it, or push a snapshot of your own by name"
        )


def find_begun(
    dataset: Dataset,
    how: SendOptions,
    stored: StoredBases,
    partials: Iterable[PartialEntry],
    *,
    snapshot: str | None = None,
) -> tuple[PlannedSend, PartialEntry] | None:
    """Return the newest stream of a dataset that has arrived in part and can be finished; None: there is none.

    A stream that is stored by now needs no finishing. Nor does one of a snapshot that fullsend took, if a newer one is
    stored, as after `push --full`: it would come last, as if the dataset had been rolled back to it.

    `snapshot`: the named one; None: any. Raises: CannotSend.
    """
    stream_class, options = _how(dataset, how)
    newest = None if snapshot is not None else _newest_base(dataset, stored, stream_class, None)
    points = _points(dataset)
    found: list[tuple[int, PlannedSend, PartialEntry]] = []
    for partial in partials:
        if partial.dataset != dataset.name or partial.guid is None or class_of(partial.flags or "") != stream_class:
            continue
        target, mark = points.get(partial.guid, (None, "#"))
        base = points.get(partial.base_guid) if partial.base_guid is not None else None
        # The stream has the snapshot's name, so a renamed snapshot makes another stream.
        if target is None or mark == "#" or target.name != partial.snapshot or snapshot not in {None, target.name}:
            continue
        if partial.base_guid is not None and base is None:
            continue
        if stored.get(partial.guid, stream_class, dataset.name):
            continue
        if newest is not None and newest[0].createtxg > target.createtxg and naming.snapshot_receiver(target.name):
            continue
        send = PlannedSend(dataset, target, base[0] if base else None, base[1] if base else "@", options)
        found.append((target.createtxg, send, partial))
    return max(found, key=lambda each: each[0])[1:] if found else None


def find_begun_package(
    tree: Sequence[Dataset], how: SendOptions, partials: Iterable[PartialEntry]
) -> PlannedSend | None:
    """Return fullsend's own package that has arrived in part and can be made again. Raises: CannotSend."""
    names = [each.snapshot for each in partials if each.dataset == tree[0].name and each.guid is None]
    for snapshot in reversed(tree[0].snapshots):
        if snapshot.name in names and all(dataset.has(snapshot.name) for dataset in tree):
            return decide_package(tree, how, snapshot=snapshot.name)
    return None


def decide_package(tree: Sequence[Dataset], how: SendOptions, *, snapshot: str | None = None) -> PlannedSend:
    """Return the replication package of a dataset and all below it (`tree`, itself first); always a full.

    Raises: CannotSend.
    """
    for dataset in tree:
        _check_readable(dataset)
    encrypted = next((dataset.name for dataset in tree if dataset.encrypted), None)
    if encrypted is not None and how.decrypt:
        raise CannotSend(
            f"{encrypted}: is encrypted, and a package (-R) has properties, which ZFS does not send decrypted: send"
            " the datasets one by one (-r), or raw (-w)"
        )
    raw = how.raw or encrypted is not None
    options = ("-R", *_block_options(how), *(("-w",) if raw else ()))
    return PlannedSend(tree[0], None if snapshot is None else _named(tree[0], snapshot), None, "@", options)


def _how(dataset: Dataset, how: SendOptions) -> tuple[StreamClass, tuple[str, ...]]:
    """Return the class of the stream, and its options of `zfs send`. Raises: CannotSend."""
    _check_readable(dataset)
    options = _block_options(how)
    if not dataset.encrypted:
        return "plain", (*options, "-p", *(("-w",) if how.raw else ()))
    if not how.decrypt:
        return "raw", (*options, "-p", "-w")
    if not dataset.key_loaded:
        raise CannotSend(
            "it is to be sent decrypted, and its key is not loaded: load it (zfs load-key), or send it raw (-w, or"
            " `raw = true` for it in sender.toml)"
        )
    return "plain", options  # ZFS refuses -p here


def _check_readable(dataset: Dataset) -> None:
    """Raise CannotSend if a dataset's snapshots are not known."""
    if dataset.unreadable:
        raise CannotSend(f"`zfs list` has a line about it that cannot be read: {dataset.unreadable!r}")


def _block_options(how: SendOptions) -> tuple[str, ...]:
    """Return the options for the form of the blocks."""
    # -L shows in a stream only after the dataset has large blocks. A chain may not go back, so it is always set.
    return ("-L", *(("-e",) if how.embedded else ()), *(("-c",) if how.compressed else ()))


def _equal(dataset: Dataset) -> Iterator[Snapshot]:
    """Yield the snapshots with exactly the present contents of the dataset, the newest first.

    There may be several: a snapshot that was taken for another receiver meanwhile is not a change.
    """
    written = dataset.written
    for snapshot in reversed(dataset.snapshots):
        if written != 0:  # what is not known may be a change
            return
        yield snapshot
        written = snapshot.written


def _named(dataset: Dataset, name: str) -> Snapshot:
    for snapshot in dataset.snapshots:
        if snapshot.name == name:
            return snapshot
    raise CannotSend(f"{dataset.name}@{name}: there is no such snapshot")


def _newest_base(
    dataset: Dataset, stored: StoredBases, stream_class: StreamClass, target: Snapshot | None
) -> tuple[Snapshot, Literal["@", "#"], Base] | None:
    """Return the newest stored snapshot or bookmark older than `target`; of two equal ones the snapshot. For a raw
    stream it is the newest that is stored under this dataset's name, if there is one.
    """
    points: list[tuple[Snapshot, Literal["@", "#"]]] = [(each, "#") for each in dataset.bookmarks]
    points += [(each, "@") for each in dataset.snapshots]
    points.sort(key=lambda point: (point[0].createtxg, point[1] == "@"), reverse=True)
    for name in (dataset.name, None) if stream_class == "raw" else (None,):
        for point, mark in points:
            if target is None or point.createtxg < target.createtxg:
                base = stored.get(point.guid, stream_class, name)
                if base is not None:
                    return point, mark, base
    return None


def last_common(dataset: Dataset, stored: StoredBases) -> str | None:
    """Return the GUID of the newest snapshot or bookmark that is stored, in any class; None: none is."""
    points = sorted((*dataset.snapshots, *dataset.bookmarks), key=lambda point: point.createtxg)
    return next((point.guid for point in reversed(points) if stored.classes(point.guid)), None)


def _why_full(dataset: Dataset, stored: StoredBases, stream_class: StreamClass, target: Snapshot | None) -> str:
    elsewhere = None if target is None else stored.get(target.guid, stream_class)
    if target is not None and elsewhere is not None:
        return f"@{target.name} is stored only as one of {elsewhere.dataset}, and nothing that is older"
    other = {
        one
        for point in (*dataset.snapshots, *dataset.bookmarks)
        for one in stored.classes(point.guid)
        if one != stream_class
    }
    if other:
        return f"what is stored of it is {' and '.join(sorted(other))}, and it is sent {stream_class} now"
    if stored.knows(dataset.name):
        return "no snapshot or bookmark here is a stored base: it was rolled back, or destroyed and created again"
    return ""
