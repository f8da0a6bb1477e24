"""What prunes have done, and what keeps them from it.

pruned.SENDER.json  {"format": 1, "at", "dropped", "freed", "datasets": {DATASET: {"sequence", "given_up", ...}}}
prune.json          {"format": 1, "at", "refused", "failed": {SENDER: WHY}}: the daemon's last try
prune.jsonl         a line for each dropped stream, see `Drop`; the older half goes when it has `_HISTORY` bytes
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from typing import Annotated, Final, Literal, NamedTuple, TypeVar

from pydantic import Field, ValidationError

from fullsend_protocol.format.manifest import DiskModel, leading
from fullsend_protocol.shared.units import format_size, format_time, parse_time, plural
from fullsend_receiver.catalogue.rows import Summary
from fullsend_receiver.events.emit import emit
from fullsend_receiver.events.records import StreamPruned
from fullsend_receiver.maintenance.merge_records import read_merge_run, read_merges
from fullsend_receiver.maintenance.suspicion import ArrivalSize
from fullsend_receiver.store.api import Documents, Store, update

log: Final = logging.getLogger("fullsendd")

_TRY: Final = "prune.json"
_HISTORY: Final = "prune.jsonl"
#: Bytes of the history: some 10,000 streams.
_HISTORY_MAX: Final = 4 << 20
#: Seconds without a completed prune after which that is a problem: two nights may fail.
OVERDUE: Final = 3 * 86400.0


class DatasetRecord(DiskModel):
    """What the last prune of a dataset has left. `sequence`: the sender's newest stream then; `given_up`: the GUIDs of
    snapshots that no rule keeps, and that stay only because others build on them; `trouble`: why nothing was dropped;
    `suspect`: what a person must accept first, and `suspect_at`: the sender's newest stream then; `sizes`: of the
    streams that have arrived, see `suspicion.arrived`.
    """

    sequence: int = 0
    given_up: list[str] = Field(default_factory=list)
    trouble: str | None = None
    suspect: str | None = None
    suspect_at: int = 0
    sizes: list[Annotated[ArrivalSize, leading(len(ArrivalSize._fields))]] = Field(default_factory=list)


class PruneRecord(DiskModel):
    """What the last prune of all of a sender has done. `at`: when, None: there was none; `freed`: bytes; `freed_ever`:
    by all prunes.
    """

    format: Literal[1] = 1
    at: str | None = None
    dropped: int = 0
    freed: int = 0
    freed_ever: int = 0
    datasets: dict[str, DatasetRecord] = Field(default_factory=dict)


class PruneTry(DiskModel):
    """The daemon's last prune. `at`: when, or when the daemon first saw a policy; `refused`: why it did not take place,
    or failed; None: it took place. `failed`: if it failed for some senders only, by sender why; `trash`: why what has
    waited in the trash for long is still there, None: it is not.
    """

    format: Literal[1] = 1
    at: str
    refused: str | None = None
    failed: dict[str, str] = Field(default_factory=dict)
    trash: str | None = None

    def why(self, sender: str | None) -> str | None:
        """Return why it did not take place for a sender, None: for some sender. None: it took place."""
        return self.refused if sender is None or not self.failed else self.failed.get(sender)


class Drop(DiskModel):
    """A line of the history. `trash`: the folder in the trash, None: it is deleted."""

    format: Literal[1] = 1
    at: str
    file: str
    dataset: str
    snapshot: str
    guid: str
    received: str
    stored_bytes: int
    reason: str
    trash: str | None = None


_M = TypeVar("_M", bound=DiskModel)


def read_record(documents: Documents, sender: str) -> PruneRecord:
    """Return the record of a sender; an empty one if it is missing, or cannot be read. Raises: OSError."""
    return _read(documents, PruneRecord, _record(sender)) or PruneRecord()


def write_record(documents: Documents, sender: str, record: PruneRecord) -> None:
    """Replace the record of a sender. Only one prune runs at a time. Raises: OSError."""
    _write(documents, _record(sender), record)


def forget_suspicion(documents: Documents, sender: str, dataset: str) -> None:
    """Forget why a dataset is suspicious: a person has accepted it. Raises: OSError."""
    record = read_record(documents, sender)
    found = record.datasets.get(dataset)
    if found is not None and found.suspect is not None:
        changed = found.model_copy(update={"suspect": None, "trouble": None})
        write_record(documents, sender, record.model_copy(update={"datasets": record.datasets | {dataset: changed}}))


def read_try(documents: Documents) -> PruneTry | None:
    """Return the daemon's last prune; None: it is missing, or cannot be read. Raises: OSError."""
    return _read(documents, PruneTry, _TRY)


def write_try(
    documents: Documents,
    now: float,
    refused: str | None,
    failed: Mapping[str, str] | None = None,
    trash: str | None = None,
) -> None:
    """Record the daemon's last prune. `refused`, `failed`, `trash`: see `PruneTry`. Raises: OSError."""
    _write(documents, _TRY, PruneTry(at=format_time(now), refused=refused, failed=dict(failed or {}), trash=trash))


def write_history(documents: Documents, drops: Iterable[tuple[Summary, str]], *, now: float, trash: str | None) -> None:
    """Append to the history, and log each stream. `drops`: with the reason of each. A full disk costs the history only:
    the log has the same.
    """
    lines = []
    for about, reason in drops:
        said = Drop(
            at=format_time(now),
            file=about.path,
            dataset=about.dataset,
            snapshot=about.snapshot,
            guid=about.guid,
            received=about.received,
            stored_bytes=about.stored_bytes,
            reason=reason,
            trash=trash,
        )
        where = "" if trash is None else f", in the trash as {trash}"
        emit(
            StreamPruned(
                text=f"{about.path}: pruned: {reason}: {format_size(about.stored_bytes)} freed{where}",
                sender=about.sender,
                dataset=about.dataset,
                snapshot=about.snapshot,
                guid=about.guid,
                file=about.path,
                stored_bytes=about.stored_bytes,
                reason=reason,
                trash=trash or "",
            )
        )
        lines.append(said.model_dump_json().encode() + b"\n")
    try:
        if lines:
            documents.append(_HISTORY, b"".join(lines), most=_HISTORY_MAX)
    except OSError as error:
        log.warning("the history of prunes cannot be written: %s", error)


def read_history(documents: Documents) -> list[Drop]:
    """Return the history, the oldest first. Lines that cannot be read are left out. Raises: OSError."""
    found = documents.get(_HISTORY)
    drops = []
    for line in found.data.splitlines() if found else ():
        try:
            drops.append(Drop.model_validate_json(line))
        except ValidationError:
            continue
    return drops


class Trouble(NamedTuple):
    """One thing that keeps prunes from their work. `sender`, `dataset`: None: of all."""

    text: str
    sender: str | None = None
    dataset: str | None = None


def troubles(store: Store, sender: str | None, *, now: float, since: float) -> list[str]:
    """Return the lines of `find_troubles`."""
    return [each.text for each in find_troubles(store, sender, now=now, since=since)]


def find_troubles(store: Store, sender: str | None, *, now: float, since: float) -> list[Trouble]:
    """Return each thing that keeps prunes from their work. For a receiver with a policy. Blocks.

    `sender`: of this one, None: of all; `now`: seconds since the epoch; `since`: when the policy was written. Raises:
    OSError.
    """
    documents = store.documents
    last = read_try(documents)
    found = []
    senders = store.senders() if sender is None else [sender]
    records = {name: read_record(documents, name) for name in senders}
    done = [parse_time(record.at or "") or 0.0 for record in records.values()]
    tried = 0.0 if last is None else parse_time(last.at) or 0.0
    if last is not None and last.refused is None:
        done.append(tried)  # of a sender whose first streams have come since, there is no record
    elif last is not None and (why := last.why(sender)) is None:
        done.append(tried)
    elif last is not None and min(done, default=0.0) <= tried:
        found.append(Trouble(f"prune: did not run at {last.at}: {why}"))
    if last is not None and last.trash is not None and sender is None:
        found.append(Trouble(f"prune: {last.trash}"))
    merges = read_merge_run(documents)
    # Each daily prune begins another run. An older note is that of a receiver that does not merge any more.
    if merges.why is not None and sender is None and now - (parse_time(merges.at) or now) <= OVERDUE:
        found.append(Trouble(f"merge: the run at {merges.at} has not come to its end: {merges.why}"))
    newest = max(done, default=0.0)
    if now - max(newest, since) > OVERDUE and records:
        when = f"since {format_time(newest)}" if newest else "yet"
        remedy = "does the daemon run, and with the present receiver.toml (`systemctl reload fullsendd`)?"
        found.append(Trouble(f"prune: has not run {when}: {remedy}"))
    for name, record in records.items():
        found += [
            Trouble(f"prune: {name}/{dataset}: nothing goes: {each.trouble}", name, dataset)
            for dataset, each in sorted(record.datasets.items())
            if each.trouble is not None
        ]
        found += [Trouble(f"merge: {name}/{line}", name) for line in read_merges(documents, name).failed]
    return found


def summary(store: Store) -> str | None:
    """Return a line about the last prunes; None: there was none. Blocks. Raises: OSError."""
    records = [read_record(store.documents, name) for name in store.senders()]
    done = [record for record in records if record.at is not None]
    if not done:
        return None
    dropped, freed = sum(record.dropped for record in done), sum(record.freed for record in done)
    last = max(record.at or "" for record in done)
    return f"last prune {last}: {plural(dropped, 'stream')} dropped, {format_size(freed)}"


def _record(sender: str) -> str:
    return f"pruned.{sender}.json"


def _read(documents: Documents, model: type[_M], name: str) -> _M | None:
    found = documents.get(name)
    try:
        return None if found is None else model.model_validate_json(found.data)
    except ValidationError:
        log.warning(".state/%s: cannot be read, and is made anew", name)
        return None


def _write(documents: Documents, name: str, said: DiskModel) -> None:
    data = json.dumps(said.model_dump(mode="json")).encode() + b"\n"
    update(documents, name, lambda _before: data)
