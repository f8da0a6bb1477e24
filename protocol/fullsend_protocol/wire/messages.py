"""The messages of the protocol, one model each, and JSON to model and back.

Each message has a `type` of its own; there is one discriminated union per direction. Bulk data is not in messages: a
CHUNK frame carries it, without pydantic. docs/protocol.md describes the messages field by field.

To add a question to the receiver, add its models here and one entry in REQUESTS. The unions and the state table
(fullsend_protocol.wire.connection) are made from these.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Generic, Literal, TypeVar, Union

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    model_serializer,
)

from fullsend_protocol.format.manifest import (
    Flags,
    Guid,
    Kind,
    Manifest,
    Name,
    Offset,
    PartialEntry,
    Properties,
    Receipt,
    Resume,
    Segment,
    SenderName,
    Sha256Hex,
    StreamEntry,
    WireModel,
)
from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import ErrorCode, RemoteProtocolError
from fullsend_protocol.shared.units import printable
from fullsend_protocol.stream.facts import StreamClass, class_of

Text = Annotated[str, Field(max_length=4096)]
Program = Annotated[str, Field(max_length=100)]
Segments = Annotated[list[Segment], Field(max_length=limits.SEGMENTS_MAX)]
Claim = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Features = Annotated[list[Annotated[str, Field(max_length=32)]], Field(max_length=32)]

#: Characters of what is wrong with a stream that is, or was, damaged.
REPLACED_MAX: Final = 200
#: A sender's `features`: it mends what the receiver reports as damaged.
REPAIR: Final = "repair"
#: A sender's `features`: it reads the warnings in `health`.
WARNINGS: Final = "warnings"
#: A sender's `features`: it reads in `health` how the checks of its streams stand.
SCRUB: Final = "scrub"
#: A sender's `features`: it reads the IV sets of raw streams in `entries`.
IVSETS: Final = "ivsets"
#: A receiver's `features`: the next `push` may follow `finish` at once, before the answer to that.
PIPELINED: Final = "pipelined"


_CODES: Final = frozenset(code.value for code in ErrorCode)


def _known_code(code: object) -> object:
    if not isinstance(code, str):
        return code
    return ErrorCode(code) if code in _CODES else ErrorCode.INTERNAL


class Greeting(WireModel):
    """Base of messages before, or without, an agreement on a version. A later version may add keys, which this one
    ignores: otherwise the sides could not even tell each other that they have no version in common.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", defer_build=True)


class Question(WireModel):
    """Base of a sender's questions to the receiver."""

    if TYPE_CHECKING:
        type: Any  # each message has its own


class Answer(WireModel):
    """Base of the receiver's answers to questions."""

    if TYPE_CHECKING:
        type: Any


class _WithLaterFields(WireModel):
    """Base of messages with fields that a released peer does not know, and would refuse. `later`: their names. They are
    written only with a value, and sent only to a peer that has said that it understands them.
    """

    later: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_defaults(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        said: dict[str, Any] = write(self)
        return {name: value for name, value in said.items() if value or name not in self.later}


class Error(Greeting):
    """This side gives up; the connection is over. `message` is one line for a person. A code that only a later version
    knows is read as "internal".
    """

    type: Literal["error"] = "error"
    code: Annotated[ErrorCode, BeforeValidator(_known_code)]
    message: Text


# --- opening ---------------------------------------------------------------------------------------------------


class ReceiverHello(_WithLaterFields, Greeting):
    """The first frame of a connection. The sender sends nothing before it. `features`: what the receiver permits beyond
    version 1 as it was first released.
    """

    type: Literal["hello"] = "hello"
    program: Program
    versions: Annotated[list[int], Field(min_length=1, max_length=16)]
    sender: SenderName | None  # the name of the peer's certificate; None: the peer showed no certificate
    features: Features = Field(default_factory=list)

    later = frozenset({"features"})


class SenderHello(_WithLaterFields, Greeting):
    """The sender picks one of the receiver's versions. `features`: what it understands beyond that version: without the
    feature of a key no message to it has a key that version 1 was first released without.
    """

    type: Literal["hello"] = "hello"
    program: Program
    version: int
    features: Features = Field(default_factory=list)

    later = frozenset({"features"})


class Join(Greeting):
    """A host that is not enrolled sends its invitation and the certificate to enroll (PEM)."""

    type: Literal["join"] = "join"
    secret: Annotated[str, Field(max_length=128)]
    certificate: Annotated[str, Field(max_length=8192)]


class Joined(Greeting):
    """The certificate is enrolled under this name."""

    type: Literal["joined"] = "joined"
    sender: SenderName
    store: str


class Known(Greeting):
    """`known?`: is this certificate's fingerprint (SHA-256 of its DER) enrolled?"""

    type: Literal["known?"] = "known?"
    fingerprint: Sha256Hex


class KnownAnswer(Greeting):
    """The answer to `known?`."""

    type: Literal["known"] = "known"
    status: Literal["enrolled", "revoked", "unknown"]


# --- push ------------------------------------------------------------------------------------------------------


class Whole(WireModel):
    """What the sender knows of a stream after reading it to its end."""

    guid: Guid
    base_guid: Guid | None
    flags: Flags
    raw_bytes: Offset


class Push(WireModel):
    """The sender offers a stream, with what its first records tell.

    A package's GUIDs are known only at its end: then `guid` and `flags` are None. `keep_orphan`: keep an increment
    whose base is not stored. Otherwise it is refused with the code "base", at the offer, at its first chunk (a raw one
    whose base is stored with other keys) or at the end. `properties`: the ones set on the dataset itself, for the
    manifest.

    `claim`: a peer with the same claim takes the stream over from a connection on which it still seems to be arriving.
    `resume`: how to resume, if a part of the stream has arrived before. "none": not at all, and that part is deleted.
    "reconnect": at the end of its durable bytes, with the unacknowledged bytes. "replay": there, with all of the stream
    sent again. "token": behind the last record from which `zfs send -t` can resume; durable bytes behind that record
    are deleted. `whole`: set if a connection was lost after all of the stream had been sent: it may be stored by now.
    """

    type: Literal["push"] = "push"
    dataset: Name
    snapshot: Name
    guid: Guid | None
    base_guid: Guid | None
    flags: Flags | None
    size_estimate: Offset | None  # raw bytes, where known
    zfs_version: Annotated[str, Field(max_length=100)] | None
    properties: Properties | None
    keep_orphan: bool
    claim: Claim
    resume: Resume
    whole: Whole | None


class Record(WireModel):
    """A resumable record, as far as resuming behind it needs it: the 312 bytes of its header, in base64, and the
    SHA-256 of its payload. `features`: those of the BEGIN of its stream.
    """

    header: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{416}$")]
    payload_sha256: Sha256Hex
    features: Offset


class Accept(WireModel):
    """Send from `offset` on. What is before it is durable and proven by `segments`, which cover it without gap.

    `record`: the one that ends at `offset`, if the sender asked for a resume point and there is one.
    """

    type: Literal["accept"] = "accept"
    offset: Offset
    segments: Segments
    record: Record | None


class Stored(WireModel):
    """This very stream is already stored. Nothing needs to be sent; what was sent is deleted."""

    type: Literal["stored"] = "stored"
    receipt: Receipt


class Ack(WireModel):
    """All raw bytes before `offset` are durable."""

    type: Literal["ack"] = "ack"
    offset: Offset


class Finish(WireModel):
    """The end of the stream: its raw size and the segments that prove it, hashed by the sender before compression."""

    type: Literal["finish"] = "finish"
    raw_bytes: Offset
    segments: Segments


class Stop(WireModel):
    """The source failed, or the user stopped: the stream will not be complete on this connection.

    `keep`: whether what has arrived can be resumed; False: it is deleted.
    """

    type: Literal["stop"] = "stop"
    reason: Text
    keep: bool


class Stopped(WireModel):
    """What arrived before `offset` is kept as a partial; 0: nothing."""

    type: Literal["stopped"] = "stopped"
    offset: Offset


class Committed(_WithLaterFields):
    """The stream is whole, proven, durable and listed. `replaced`: what was wrong with the stored stream whose place it
    took; None: there was none, or the sender has not said that it understands "repair".
    """

    type: Literal["committed"] = "committed"
    receipt: Receipt
    replaced: Annotated[str, Field(max_length=REPLACED_MAX)] | None = None

    later = frozenset({"replaced"})


# --- what to send ----------------------------------------------------------------------------------------------


class BasesWanted(Question):
    """`bases?`: which stored streams of this sender can be the base of an increment?"""

    type: Literal["bases?"] = "bases?"


class Base(WireModel):
    """A stored stream that is restorable, undamaged and not a package, and its chain.

    `base_guid`: the snapshot that it builds on, None: it is a full. `streams`: length of the chain; `age`: seconds
    since its full was received (receiver's clock); `full_bytes`, `increment_bytes`: raw bytes of the full, and of all
    increments after it.
    """

    dataset: Name
    guid: Guid
    base_guid: Guid | None
    flags: Flags
    streams: Annotated[int, Field(ge=1)]
    age: Offset
    full_bytes: Offset
    increment_bytes: Offset

    @property
    def kind(self) -> Kind:
        """The kind in its manifest. A package is never offered as a base."""
        return "full" if self.base_guid is None else "incremental"

    @property
    def stream_class(self) -> StreamClass:
        """The class in its manifest, from its flags."""
        return class_of(self.flags)

    @property
    def ivset_guid(self) -> None:
        """Not told."""

    @property
    def base_ivset_guid(self) -> None:
        """Not told: the receiver has compared it."""


class DamagedEntry(WireModel):
    """A stored stream that is damaged itself, and not a package: its sender may send it again. `raw_bytes`: of the
    stream; `why`: what is wrong with it.
    """

    dataset: Name
    snapshot: Name
    guid: Guid
    base_guid: Guid | None
    flags: Flags
    raw_bytes: Offset
    why: Annotated[str, Field(max_length=REPLACED_MAX)]

    @property
    def identity(self) -> tuple[str, str, str, str | None, str]:
        """What announces this stream. `why` may be told in other words the next time."""
        return self.dataset, self.snapshot, self.guid, self.base_guid, self.flags

    @property
    def stream_class(self) -> StreamClass:
        """The class in its manifest, from its flags."""
        return class_of(self.flags)


class Bases(_WithLaterFields, Answer):
    """A page of the answer to `bases?`, in no particular order. `damaged`: streams that could be bases, and are
    damaged; only for a sender that understands "repair".
    """

    type: Literal["bases"] = "bases"
    bases: Annotated[list[Base], Field(max_length=limits.BASES_PAGE)]
    damaged: Annotated[list[DamagedEntry], Field(max_length=limits.BASES_PAGE)] = Field(default_factory=list)

    later = frozenset({"damaged"})


class PartialsWanted(Question):
    """`partials?`: which streams of this sender have arrived in part?"""

    type: Literal["partials?"] = "partials?"


class Partials(Answer):
    """A page of the answer to `partials?`, in no particular order."""

    type: Literal["partials"] = "partials"
    partials: Annotated[list[PartialEntry], Field(max_length=limits.PARTIALS_PAGE)]


class UnchangedDataset(WireModel):
    """A dataset that has not changed since a stored snapshot."""

    dataset: Name
    snapshot: Name
    guid: Guid


class Unchanged(Question):
    """These datasets have not changed: the receiver records that their last backup is still current."""

    type: Literal["unchanged"] = "unchanged"
    datasets: Annotated[list[UnchangedDataset], Field(max_length=limits.DATASETS_PAGE)]


class Noted(Answer):
    """The answer to `unchanged` and to `drilled`: recorded."""

    type: Literal["noted"] = "noted"


DrillText = Annotated[str, Field(max_length=limits.DRILL_TEXT_MAX)]


#: What a restore drill has compared: all files, all blocks, the GUID alone, or nothing, because there was no restore.
DrillExtent = Literal["files", "blocks", "guid", "nothing"]


class Drilled(Question):
    """A stored stream was restored on its ZFS host as a test. `ok`: whether nothing was wrong; `compared`: with what is
    there; `text`: one line, what was compared, or what was wrong; `milliseconds`: duration of the restore;
    `raw_bytes`: of the streams that it read;
    `files`: number of files that were compared, 0: none were.
    """

    type: Literal["drilled"] = "drilled"
    dataset: Name
    snapshot: Name
    guid: Guid
    ok: bool
    compared: DrillExtent
    text: DrillText
    milliseconds: Offset
    raw_bytes: Offset
    files: Offset


class DrillsWanted(Question):
    """`drills?`: when were this sender's datasets last restored as a test?"""

    type: Literal["drills?"] = "drills?"


class DrillEntry(WireModel):
    """The last `drilled` of a dataset. `at`: when it came; `succeeded`: when one with `ok` last came, None: never. Both
    by the receiver's clock.
    """

    dataset: Name
    snapshot: Name
    guid: Guid
    at: str
    ok: bool
    compared: DrillExtent
    text: DrillText
    milliseconds: Offset
    raw_bytes: Offset
    files: Offset
    succeeded: str | None


class Drills(Answer):
    """A page of the answer to `drills?`, in order of the datasets' names. `now`: the receiver's clock."""

    type: Literal["drills"] = "drills"
    now: str
    drills: Annotated[list[DrillEntry], Field(max_length=limits.DRILLS_PAGE)]


class StatusWanted(Question):
    """`status?`: how old are this sender's backups?"""

    type: Literal["status?"] = "status?"


class DatasetStatus(WireModel):
    """The backups of one dataset.

    `snapshot`, `guid`, `created`, `received`, `begun`: of the newest restorable stream, None if there is none. `begun`:
    when its sender first offered it, or if that is unknown, when it was received. `unchanged`: when its sender last
    reported the dataset as not changed since then. Both by the receiver's clock. `broken`: number of streams that are
    damaged or lack a base. `lost_spill_count`: number of spill blocks that restoring the newest stream loses.
    """

    dataset: Name
    snapshot: Name | None
    guid: Guid | None
    created: str | None
    received: str | None
    begun: str | None
    unchanged: str | None
    streams: Offset
    stored_bytes: Offset
    broken: Offset
    lost_spill_count: Offset


class Status(Answer):
    """A page of the answer to `status?`, in order of the datasets' names. `now`: the receiver's clock; ages are
    computed with it alone.
    """

    type: Literal["status"] = "status"
    now: str
    datasets: Annotated[list[DatasetStatus], Field(max_length=limits.DATASETS_PAGE)]


class HistoryWanted(Question):
    """`history?`: what has come of this sender's datasets, on which day, and how often should they come?"""

    type: Literal["history?"] = "history?"


class NightEntry(WireModel):
    """What came of a dataset in one day of the receiver's local time. `day`: YYYY-MM-DD; `received`: streams;
    `unchanged`: reports.
    """

    day: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]
    received: Offset
    unchanged: Offset
    raw_bytes: Offset
    stored_bytes: Offset


class DatasetHistory(WireModel):
    """What has come of one dataset. `since`: from when on all that came is in `nights`, null: unknown; `every`: seconds
    within which it should come, null: unknown, or never; `limit`: seconds from which on it is late; `source`: where
    `every` comes from; `late`: whether it is overdue; `age`: seconds since it last came, or was reported as unchanged,
    null: unknown; `nights`: those on which something came, the oldest first.
    """

    dataset: Name
    since: str | None
    every: Offset | None
    limit: Offset | None
    source: Literal["configured", "learnt", "unknown"]
    late: bool
    age: Offset | None
    nights: Annotated[list[NightEntry], Field(max_length=limits.HISTORY_NIGHTS)]


class HistoryPage(Answer):
    """A page of the answer to `history?`, in order of the datasets' names. `at`: when the receiver has looked, by its
    clock. One that has not looked yet since its start sends no page.
    """

    type: Literal["history"] = "history"
    at: str
    datasets: Annotated[list[DatasetHistory], Field(max_length=limits.HISTORIES_PAGE)]


# --- reading back ----------------------------------------------------------------------------------------------


class List(Question):
    """What is stored of this sender? `dataset`: only of this one, None: all."""

    type: Literal["list"] = "list"
    dataset: Name | None


class Entries(Answer):
    """A page of the answer to `list`. An entry is a KeyedEntry only for a sender that understands "ivsets"."""

    type: Literal["entries"] = "entries"
    entries: Annotated[list[SerializeAsAny[StreamEntry]], Field(max_length=limits.ENTRIES_PAGE)]


class Fetch(Question):
    """Send one stored stream back.

    `stream`: DATASET@SNAPSHOT, guid:N, or a file name; `offset`: the raw offset to begin at, where a chunk begins;
    `until`: no chunk may begin at this raw offset or later, None: to the end.
    """

    type: Literal["fetch"] = "fetch"
    stream: Text
    offset: Offset
    until: Offset | None


def _short_enough(manifest: Manifest) -> Manifest:
    if len(manifest.snapshots) <= limits.SNAPSHOTS_SENT:
        return manifest
    return manifest.model_copy(update={"snapshots": []})


class Sending(Answer):
    """The stream that follows as chunks; the whole answer ends with `done`.

    The manifest of a large package is sent without its `snapshots`: they would not fit into a message.
    """

    type: Literal["sending"] = "sending"
    manifest: Annotated[Manifest, AfterValidator(_short_enough)]


class Locate(Question):
    """In which chunk of a stored stream to look for a record? `stream`: as in `fetch`; `object` and `offset`: the
    record's key, as in a resume token.
    """

    type: Literal["locate"] = "locate"
    stream: Text
    object: Offset
    offset: Offset


class Located(Answer):
    """The raw offset of the last chunk that begins with a record and whose first resumable record has a smaller key; 0
    if there is none.
    """

    type: Literal["located"] = "located"
    raw_offset: Offset


class Verify(Question):
    """Read and check what is stored of this sender. `dataset`: only of this one, None: all."""

    type: Literal["verify"] = "verify"
    dataset: Name | None


class Verdict(Answer):
    """The result of checking one stored stream: a line for each fault, none if it is whole."""

    type: Literal["verdict"] = "verdict"
    file: str
    dataset: Name
    snapshot: Name
    raw_bytes: Offset
    damage: Annotated[list[Text], Field(max_length=100)]


class MergedWanted(Question):
    """`merged?`: which stored streams of this sender has the receiver made by merging? `dataset`: only of this one,
    None: of all.
    """

    type: Literal["merged?"] = "merged?"
    dataset: Name | None


class MergedEntry(WireModel):
    """A stored stream that is merged, whole, and not a package. `proven`: when a `prove` last ended with "same", by the
    receiver's clock, None: not since it was merged.
    """

    dataset: Name
    snapshot: Name
    guid: Guid
    base_guid: Guid | None
    flags: Flags
    raw_bytes: Offset
    file: Text
    proven: str | None


class MergedStreams(Answer):
    """A page of the answer to `merged?`, in order of the datasets' names."""

    type: Literal["merged"] = "merged"
    streams: Annotated[list[MergedEntry], Field(max_length=limits.ENTRIES_PAGE)]


class HeadWanted(Question):
    """`head?`: how does a stored stream begin? `file`: as in `merged` and `entries`."""

    type: Literal["head?"] = "head?"
    file: Text


class Head(Answer):
    """The answer to `head?`: the raw bytes before the first record of the snapshot, in base64: BEGIN with its nvlist,
    and before it what `zfs send -p` puts there. None: they are too many, or the stream has no such beginning.
    """

    type: Literal["head"] = "head"
    raw: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]*={0,2}$", max_length=limits.HEAD_MAX * 4 // 3 + 4)] | None


class Prove(Question):
    """Has a stored stream the bytes that the ZFS host sends? `file`: as in `head?`; `sha256`: of what `zfs send` gave.

    `whole`: compare with the full that the stream's chain makes when it is merged, which takes as long as a merge.
    """

    type: Literal["prove"] = "prove"
    file: Text
    sha256: Sha256Hex
    whole: bool


class Proven(Answer):
    """The answer to `prove`. "same": recorded, durably. "gone": no such file is stored any more, or a file of its chain
    went meanwhile. "unknown": it cannot be compared; `why` says why, and is empty otherwise.
    """

    type: Literal["proven"] = "proven"
    result: Literal["same", "different", "gone", "unknown"]
    why: Text


class FormWanted(Question):
    """`form?`: which SHA-256 has a stored stream without the FREE records that may be redundant? `file`: as in
    `head?`. Takes as long as reading the stream.
    """

    type: Literal["form?"] = "form?"
    file: Text


class Form(Answer):
    """The answer to `form?`. `sha256`: of the form that docs/format.md defines; None: it is not known, and
    `why` says why. `why` is empty otherwise.
    """

    type: Literal["form"] = "form"
    sha256: Sha256Hex | None
    why: Text


FilesPath = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]*={0,2}$", max_length=(limits.FILES_PATH_MAX + 2) // 3 * 4)]


class FilesWanted(Question):
    """`files?`: list the files of a stored snapshot, or send some of them.

    `stream`: as in `fetch`; `form`: what the parts together are: lines with names, long lines, JSON lines, a tar
    archive, a pack of files or of a volume (see `pack`); `paths`: from the snapshot's root, `names`: patterns such as
    `*.txt`, all in base64, because names are bytes; `recursive`: list all below; `special`: devices, fifos and sockets,
    too; `setuid`: keep these bits.
    """

    type: Literal["files?"] = "files?"
    stream: Text
    form: Literal["names", "long", "json", "tar", "pack", "volume"]
    paths: Annotated[list[FilesPath], Field(max_length=limits.FILES_PATHS)]
    names: Annotated[list[FilesPath], Field(max_length=limits.FILES_NAMES)]
    recursive: bool
    special: bool
    setuid: bool


class DiffWanted(Question):
    """`diff?`: what has changed between two stored snapshots?

    `stream`, `other`: the older and the newer, as in `fetch`; `form`: lines as those of `zfs diff`, or JSON lines;
    `types`: with types of files; `script`: a tab before a new path; `prefix`: before each path, in base64.
    """

    type: Literal["diff?"] = "diff?"
    stream: Text
    other: Text
    form: Literal["lines", "json"]
    types: bool
    script: bool
    prefix: FilesPath


class VersionsWanted(Question):
    """`versions?`: which versions of a path do the stored snapshots of a dataset have?

    `path`: from the dataset's root, in base64; `form`: a table for a person, or JSON lines; `last`: only so many
    snapshots, the newest, 0: all.
    """

    type: Literal["versions?"] = "versions?"
    dataset: Name
    path: FilesPath
    form: Literal["lines", "json"]
    last: Offset


class FilesPart(Answer):
    """The next bytes of the answer to `files?`, `diff?` or `versions?`, in base64. They count only if `files` follows
    with code 0.
    """

    type: Literal["part"] = "part"
    data: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]*={0,2}$", max_length=(limits.FILES_PART + 2) // 3 * 4)]


class Files(Answer):
    """The end of the answer to `files?`, `diff?` or `versions?`. `code`: 0 if all was sent, else an exit code; `said`:
    lines for a person.
    """

    type: Literal["files"] = "files"
    code: Offset
    said: Annotated[list[Text], Field(max_length=limits.FILES_SAID)]


class Check(Question):
    """Is the receiver well?"""

    type: Literal["check"] = "check"


class BeingRead(WireModel):
    """A stored stream that is being checked. `file`: its `.zst`, relative to the store; `read_bytes`: how much was read
    of its `stored_bytes`.
    """

    file: Text
    read_bytes: Offset
    stored_bytes: Offset


class ScrubStanding(WireModel):
    """How the receiver's own checks of this sender's streams stand.

    `every`: seconds after which a stream is checked again, 0: never by itself; `streams`: all; `current`: checked, or
    received, within `every`; `checked`: ever checked; `oldest`: the earliest time of last check or reception, None:
    there is no stream; `due_streams`, `due_bytes`: to check now, stored bytes; `reading`: the stream that is being
    checked, None: none of this sender.
    """

    every: Offset
    streams: Offset
    current: Offset
    checked: Offset
    oldest: str | None
    due_streams: Offset
    due_bytes: Offset
    reading: BeingRead | None


class Health(_WithLaterFields, Answer):
    """The receiver's state, for a sender: enough to see trouble coming, nothing about other senders. `warnings`: what
    will be a problem soon; only for a sender that understands "warnings". `scrub`: only for one that understands
    "scrub".
    """

    type: Literal["health"] = "health"
    program: Program
    free_bytes: Offset
    problems: Annotated[list[Text], Field(max_length=100)]
    warnings: Annotated[list[Text], Field(max_length=100)] = Field(default_factory=list)
    scrub: ScrubStanding | None = None

    later = frozenset({"warnings", "scrub"})


class Done(Answer):
    """The end of an answer of several frames."""

    type: Literal["done"] = "done"


@dataclass(frozen=True, slots=True)
class Request:
    """A request that is allowed between two pushes. `pages`: the messages that the answer has any number of; None: it
    has none. `done`: the message that ends the answer.
    """

    ask: type[Question]
    pages: type[Answer] | None = None
    done: type[Answer] = Done


#: All questions of a sender, but not `push` and `fetch`: these carry a stream.
REQUESTS: Final = (
    Request(BasesWanted, Bases),
    Request(PartialsWanted, Partials),
    Request(Unchanged, done=Noted),
    Request(Drilled, done=Noted),
    Request(DrillsWanted, Drills),
    Request(StatusWanted, Status),
    Request(HistoryWanted, HistoryPage),
    Request(List, Entries),
    Request(Locate, done=Located),
    Request(Verify, Verdict),
    Request(MergedWanted, MergedStreams),
    Request(HeadWanted, done=Head),
    Request(Prove, done=Proven),
    Request(FormWanted, done=Form),
    Request(FilesWanted, FilesPart, Files),
    Request(DiffWanted, FilesPart, Files),
    Request(VersionsWanted, FilesPart, Files),
    Request(Check, done=Health),
)

ReceiverMessage = ReceiverHello | Joined | KnownAnswer | Accept | Stored | Ack | Stopped | Committed | Answer | Error
SenderMessage = SenderHello | Join | Known | Push | Finish | Stop | Question | Error
Message = ReceiverMessage | SenderMessage

#: The models of each direction.
FROM_RECEIVER: Final[tuple[type[ReceiverMessage], ...]] = (
    *(ReceiverHello, Joined, KnownAnswer, Accept, Stored, Ack, Stopped, Committed, Sending, Error),
    *dict.fromkeys(each for request in REQUESTS for each in (request.pages, request.done) if each is not None),
)
FROM_SENDER: Final[tuple[type[SenderMessage], ...]] = (
    *(SenderHello, Join, Known, Push, Finish, Stop, Fetch, Error),
    *(request.ask for request in REQUESTS),
)

_T = TypeVar("_T")


#: How `encode` begins each message: its type, which has no escapes. A peer may write its keys in another order.
_TYPE_FIRST: Final = re.compile(rb'\{"type":"([^"\\]*)"[,}]')


class MessageReader(Generic[_T]):
    """Reads messages that are one of these models.

    A message that begins with its type is read with its own model. So only the models of messages that come are built:
    those of a whole direction take 10 ms of each command.
    """

    def __init__(self, models: tuple[type[_T], ...]) -> None:
        """Read one of `models`, each with a `type` of its own."""
        self._models = {type_of(model).encode(): model for model in models}  # type: ignore[arg-type]
        self._any: TypeAdapter[_T] = TypeAdapter(
            Annotated[Union[models], Field(discriminator="type")],  # type: ignore[arg-type]  # noqa: UP007
            config=ConfigDict(defer_build=True),
        )

    def validate(self, payload: bytes | bytearray) -> _T:
        """Return the message. Raises: ValidationError, whose place begins with the message's type."""
        first = _TYPE_FIRST.match(payload)
        model = self._models.get(first[1]) if first else None
        if model is not None:
            with contextlib.suppress(ValidationError):
                return model.model_validate_json(payload)  # type: ignore[attr-defined,no-any-return]
        return self._any.validate_json(payload)


def type_of(model: type[Message]) -> str:
    """Return the `type` that a message of this model has on the wire."""
    name: str = model.model_fields["type"].default
    return name


_READ_RECEIVER: Final = MessageReader(FROM_RECEIVER)
_READ_SENDER: Final = MessageReader(FROM_SENDER)


def encode(message: Message) -> bytes:
    """Return a message's JSON, UTF-8, without white space."""
    return message.model_dump_json(by_alias=True).encode()


def decode_from_receiver(payload: bytes | bytearray) -> ReceiverMessage:
    """Read a message that a receiver may send. Raises: RemoteProtocolError."""
    return decode(_READ_RECEIVER, payload)


def decode_from_sender(payload: bytes | bytearray) -> SenderMessage:
    """Read a message that a sender may send. Raises: RemoteProtocolError."""
    return decode(_READ_SENDER, payload)


def decode(reads: MessageReader[_T], payload: bytes | bytearray) -> _T:
    """Read a message. Raises: RemoteProtocolError."""
    try:
        return reads.validate(payload)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        # The peer chose the names of its keys: they must not write control characters to a terminal.
        msg = printable(f"message that cannot be read: {where + ': ' if where else ''}{first['msg']}")
        raise RemoteProtocolError(msg[:500]) from None
