"""The events, each with its fields. docs/events.md describes them; a test compares it with this module. No I/O.

An event says what has happened; whether that is a success or a failure, and for whom, is told by its name and its
fields. Sizes are bytes, durations seconds. Nothing that a peer without a certificate does is an event: it could fill
the event journal.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar, Final

import fullsend_protocol
from fullsend_protocol.shared.units import format_time

#: Of the line. A field, or an event, is added without a new version.
VERSION: Final = 1
PROGRAM: Final = f"fullsendd {fullsend_protocol.__version__}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that has happened. `text`: one line for a person."""

    name: ClassVar[str]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonStarted(Event):
    """The daemon listens."""

    name: ClassVar[str] = "started"
    listen: str
    store: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonStopped(Event):
    """The daemon ends, as it was told."""

    name: ClassVar[str] = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsRead(Event):
    """The daemon has read receiver.toml again. `changed`: keys with new values; `refused`: what is wrong with the file,
    empty: nothing; then no value has changed.
    """

    name: ClassVar[str] = "settings-read"
    changed: list[str]
    refused: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedStream(Event):
    """A stream is stored. `kind`: full, incremental or package; `seconds`: since it was offered on this connection;
    `address`: of the peer.
    """

    name: ClassVar[str] = "received"
    sender: str
    dataset: str
    snapshot: str
    guid: str
    kind: str
    file: str
    raw_bytes: int
    stored_bytes: int
    seconds: float
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnchangedReported(Event):
    """A sender reports that a dataset is unchanged since a stored snapshot, whose GUID this is."""

    name: ClassVar[str] = "unchanged"
    sender: str
    dataset: str
    guid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PushFailed(Event):
    """A stream that was offered is not stored. `code`: the protocol's error code, `stopped`: the sender has ended it,
    `lost`: the connection has ended; `why`: the reason in words.
    """

    name: ClassVar[str] = "push-failed"
    sender: str
    dataset: str
    snapshot: str
    code: str
    why: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DamageFound(Event):
    """A check has found that a stored stream is damaged."""

    name: ClassVar[str] = "damaged"
    sender: str
    dataset: str
    snapshot: str
    file: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DamageGone(Event):
    """A stream that was damaged is whole. `how`: `checked`: it was read again; `replaced`: it was received again, and
    the damaged one is set aside.
    """

    name: ClassVar[str] = "whole-again"
    sender: str
    dataset: str
    snapshot: str
    file: str
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotChecked(Event):
    """A stored stream could not be read, so it was not checked."""

    name: ClassVar[str] = "unreadable"
    sender: str
    dataset: str
    snapshot: str
    file: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside(Event):
    """The disk has lost a part of what had arrived of a stream. It is set aside for inspection, if possible, and its
    stream starts over. `partial`: its key.
    """

    name: ClassVar[str] = "set-aside"
    partial: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialExpired(Event):
    """What had arrived of a stream is deleted: nothing was added for too long, or there was too much of it."""

    name: ClassVar[str] = "partial-expired"
    sender: str
    dataset: str
    snapshot: str
    stored_bytes: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrubFinished(Event):
    """The daemon has checked all streams that were due. `streams`, `damaged`, `unreadable`: how many were checked, are
    damaged, could not be read; `seconds`: since the first one, pauses included.
    """

    name: ClassVar[str] = "scrub-finished"
    streams: int
    damaged: int
    unreadable: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrubStopped(Event):
    """So many streams are damaged that the daemon checks no more by itself."""

    name: ClassVar[str] = "scrub-stopped"
    damaged: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyFinished(Event):
    """`fullsendd verify` has ended. `what`: as named, empty: all."""

    name: ClassVar[str] = "verify-finished"
    what: str
    streams: int
    damaged: int
    unreadable: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPruned(Event):
    """A stream is removed. `reason`: the rule; `trash`: the folder in the trash, empty: it is deleted."""

    name: ClassVar[str] = "pruned"
    sender: str
    dataset: str
    snapshot: str
    guid: str
    file: str
    stored_bytes: int
    reason: str
    trash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneFinished(Event):
    """A prune has ended. `why`: `daily`, `early` (for a push), or `command`; `freed_bytes`: of the dropped streams,
    those in the trash included; `failed`: senders whose prune has failed, or that were stopped; `locked`: streams that
    would have gone, if their bucket let them; `locked_until`: when the last of them can go, empty: none is locked.
    """

    name: ClassVar[str] = "prune-finished"
    why: str
    dropped: int
    freed_bytes: int
    failed: list[str]
    locked: int = 0
    locked_until: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneFailed(Event):
    """A prune did not take place, or failed. `sender`: empty: for all."""

    name: ClassVar[str] = "prune-failed"
    sender: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamsMerged(Event):
    """Stored streams became one. `inputs`: their files; `file`: the result; `waits`: the inputs stay until their host
    has proven the result.
    """

    name: ClassVar[str] = "merged"
    sender: str
    dataset: str
    snapshot: str
    guid: str
    file: str
    inputs: list[str]
    stored_bytes: int
    freed_bytes: int
    seconds: float
    waits: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeFailed(Event):
    """Streams that should become one did not."""

    name: ClassVar[str] = "merge-failed"
    sender: str
    dataset: str
    snapshot: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyFinished(Event):
    """A copy into another store has come to its end. `to`: that store; `streams`, `stored_bytes`: what was copied;
    `left`: how many streams it has left behind.
    """

    name: ClassVar[str] = "copy-finished"
    to: str
    streams: int
    stored_bytes: int
    left: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyFailed(Event):
    """A copy into another store did not take place, or did not come to its end. `to`: that store."""

    name: ClassVar[str] = "copy-failed"
    to: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UndeletedStream(Event):
    """A stream came back from the trash."""

    name: ClassVar[str] = "undeleted"
    sender: str
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmRaised(Event):
    """An alarm began, or became critical. `code`, `severity`: see `Alarm`; `sender`, `dataset`: empty: of the store, or
    of the whole sender; `since`: when it began (ISO 8601, UTC), empty: unknown.
    """

    name: ClassVar[str] = "alarm-raised"
    code: str
    severity: str
    sender: str
    dataset: str
    since: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmCleared(Event):
    """An alarm ended. Fields as in `AlarmRaised`; `lasting`: how many other alarms last."""

    name: ClassVar[str] = "alarm-cleared"
    code: str
    severity: str
    sender: str
    dataset: str
    since: str
    lasting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderJoined(Event):
    """A ZFS host has joined with an invitation. `fingerprint`: of its certificate."""

    name: ClassVar[str] = "sender-joined"
    sender: str
    fingerprint: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderRevoked(Event):
    """A sender may not connect any more."""

    name: ClassVar[str] = "sender-revoked"
    sender: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofDiffers(Event):
    """What is stored differs from what its host sends."""

    name: ClassVar[str] = "proof-differs"
    sender: str
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillReported(Event):
    """A host reports how a restore drill of a dataset ended. `ok`: all of it was equal; `seconds`: of the restore."""

    name: ClassVar[str] = "drill-reported"
    sender: str
    dataset: str
    snapshot: str
    ok: bool
    raw_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAway(Event):
    """The store's disk is not in its place, cannot be read, or cannot be written to. It is written to the event journal
    once that is possible again, so no hook can be run for it in time. `state`: `away` or `read-only`.
    """

    name: ClassVar[str] = "store-away"
    state: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreBack(Event):
    """The store's disk is back, and can be written to."""

    name: ClassVar[str] = "store-back"


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonSilent(Event):
    """The daemon does not run, or does not answer, as `fullsendd hooks` says; or its look at the store does not end, as
    it says itself. `seconds`: for how long.
    """

    name: ClassVar[str] = "daemon-silent"
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonAnswers(Event):
    """The daemon answers again, or its look at the store has ended."""

    name: ClassVar[str] = "daemon-answers"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsLost(Event):
    """So many events could not be written to the event journal, and are lost."""

    name: ClassVar[str] = "events-lost"
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HookGaveUp(Event):
    """A hook has failed for an event, and is not run for that event again. `failed_hook`: its key in receiver.toml;
    `of`: the event's id; `tries`: how often it was run.
    """

    name: ClassVar[str] = "hook-failed"
    failed_hook: str
    of: str
    tries: int
    why: str


def fields_of(event: Event) -> dict[str, object]:
    """Return an event's own fields, without its text."""
    return {each.name: getattr(event, each.name) for each in fields(event) if each.name != "text"}


def facts_of(event: Event, *, at: float, level: str) -> dict[str, object]:
    """Return what a line says of an event. `at`: seconds since the epoch; `level`: that of the log."""
    head: dict[str, object] = {"version": VERSION, "time": format_time(at), "program": PROGRAM, "event": event.name}
    return head | {"level": level, "text": event.text} | fields_of(event)
