"""What can be said, one model a message, and JSON to model and back.

Each message has a `type` of its own; there is one discriminated union a direction. Bulk data is no message: a
CHUNK frame carries it and bypasses pydantic. docs/protocol.md goes through them field by field.

A new question to the receiver is its models here and one entry in REQUESTS: the unions and the state table
(fullsend_protocol.wire.connection) are made from that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar, Union

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from fullsend_protocol.format.manifest import (
    Flags,
    Guid,
    Kind,
    Manifest,
    Model,
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
)
from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import ErrorCode, RemoteProtocolError
from fullsend_protocol.shared.units import printable
from fullsend_protocol.stream.facts import StreamClass, class_of

Text = Annotated[str, Field(max_length=4096)]
Program = Annotated[str, Field(max_length=100)]
Segments = Annotated[list[Segment], Field(max_length=limits.SEGMENTS_MAX)]
Claim = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


_CODES: Final = frozenset(code.value for code in ErrorCode)


def _known_code(code: object) -> object:
    if not isinstance(code, str):
        return code
    return ErrorCode(code) if code in _CODES else ErrorCode.INTERNAL


class Greeting(Model):
    """Base of what is said before, or without, an agreement on a version. A later version may add keys, which this one
    passes over: else two sides could not even tell each other that they have no version in common.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class Question(Model):
    """Base of what a sender asks the receiver for."""

    if TYPE_CHECKING:
        type: Any  # each message has its own


class Answer(Model):
    """Base of what the receiver answers a question with."""

    if TYPE_CHECKING:
        type: Any


class Error(Greeting):
    """Either side gives up; the connection is over. `message` is one line for a person. A code that a later version
    may add is read as "internal".
    """

    type: Literal["error"] = "error"
    code: Annotated[ErrorCode, BeforeValidator(_known_code)]
    message: Text


# --- opening ---------------------------------------------------------------------------------------------------


class ReceiverHello(Greeting):
    """The first frame of a connection. The sender says nothing before it (design section 6)."""

    type: Literal["hello"] = "hello"
    program: Program
    versions: Annotated[list[int], Field(min_length=1, max_length=16)]
    sender: SenderName | None  # who the receiver takes the peer for; None: no certificate was shown


class SenderHello(Greeting):
    """The sender picks one of the receiver's versions."""

    type: Literal["hello"] = "hello"
    program: Program
    version: int


class Join(Greeting):
    """A host that is not enrolled shows its invitation and the certificate it wants enrolled (PEM)."""

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


class Whole(Model):
    """What a stream has turned out to be, once its sender has come to its end."""

    guid: Guid
    base_guid: Guid | None
    flags: Flags
    raw_bytes: Offset


class Push(Model):
    """The sender offers a stream, as far as its first records tell what it is.

    A package's GUIDs show at its end only: then `guid` and `flags` are None. `keep_orphan`: keep an increment whose
    base is not stored; else it is refused with the code "base", at the offer or at the end, and nothing of it is kept.
    `properties`: what is set on the dataset itself, for the manifest.

    `claim`: a peer that shows the same takes the stream over from a connection on which it still seems to be arriving.
    `resume`: how to go on, if a part of the stream has arrived before: not at all ("none": that part is thrown away);
    where its durable bytes end, with what was not acknowledged ("reconnect") or with all of the stream sent anew
    ("replay"); or behind the last record from which `zfs send -t` goes on ("token": what is durable behind that is
    thrown away). `whole`: said when a connection was lost after all of the stream had been sent: it may be stored by
    now.
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


class Record(Model):
    """A resumable record, as far as it is needed to go on behind it: the 312 bytes of its header, in base64, and the
    SHA-256 of its payload. `features`: those of the BEGIN of its stream.
    """

    header: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{416}$")]
    payload_sha256: Sha256Hex
    features: Offset


class Accept(Model):
    """Send from `offset` on. What is before it is durable and proven by `segments`, which cover it without gap.

    `record`: the one that ends at `offset`, where the sender asked for a resume point and there is one.
    """

    type: Literal["accept"] = "accept"
    offset: Offset
    segments: Segments
    record: Record | None


class Stored(Model):
    """This very stream is stored already; nothing needs to be sent, or what was sent is thrown away."""

    type: Literal["stored"] = "stored"
    receipt: Receipt


class Ack(Model):
    """All raw bytes before `offset` are durable."""

    type: Literal["ack"] = "ack"
    offset: Offset


class Finish(Model):
    """The stream's end: its raw size and the segments that prove it, hashed by the sender before compression."""

    type: Literal["finish"] = "finish"
    raw_bytes: Offset
    segments: Segments


class Stop(Model):
    """The source failed, or the user stopped: the stream is not whole and never will be on this connection.

    `keep`: whether what has arrived can be gone on with; False: it is thrown away.
    """

    type: Literal["stop"] = "stop"
    reason: Text
    keep: bool


class Stopped(Model):
    """What arrived before `offset` is kept as a partial; 0: nothing."""

    type: Literal["stopped"] = "stopped"
    offset: Offset


class Committed(Model):
    """The stream is whole, proven, durable and listed."""

    type: Literal["committed"] = "committed"
    receipt: Receipt


# --- what to send ----------------------------------------------------------------------------------------------


class BasesWanted(Question):
    """`bases?`: which stored streams of this sender can an increment build on?"""

    type: Literal["bases?"] = "bases?"


class Base(Model):
    """A stored stream that is restorable, undamaged and no package, and its chain: how many streams, how many seconds
    ago its full came (receiver's clock), raw bytes of the full and of all increments after it. `base_guid`: what it
    builds on itself, None: nothing, it is a full.
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
        """As in its manifest. A package is never offered as a base."""
        return "full" if self.base_guid is None else "incremental"

    @property
    def stream_class(self) -> StreamClass:
        """The `class` of its manifest, as its flags show it."""
        return class_of(self.flags)


class Bases(Answer):
    """A page of the answer to `bases?`; in no order."""

    type: Literal["bases"] = "bases"
    bases: Annotated[list[Base], Field(max_length=limits.BASES_PAGE)]


class PartialsWanted(Question):
    """`partials?`: which streams of this sender have arrived in part?"""

    type: Literal["partials?"] = "partials?"


class Partials(Answer):
    """A page of the answer to `partials?`; in no order."""

    type: Literal["partials"] = "partials"
    partials: Annotated[list[PartialEntry], Field(max_length=limits.PARTIALS_PAGE)]


class UnchangedDataset(Model):
    """A dataset that is as it was at a snapshot that is stored."""

    dataset: Name
    snapshot: Name
    guid: Guid


class Unchanged(Question):
    """These datasets have nothing new: the receiver writes down that their last backup still holds."""

    type: Literal["unchanged"] = "unchanged"
    datasets: Annotated[list[UnchangedDataset], Field(max_length=limits.DATASETS_PAGE)]


class Noted(Answer):
    """The answer to `unchanged`: written down."""

    type: Literal["noted"] = "noted"


class StatusWanted(Question):
    """`status?`: how old are this sender's backups?"""

    type: Literal["status?"] = "status?"


class DatasetStatus(Model):
    """One dataset's backups. `snapshot`, `guid`, `created`, `received`, `begun`: of the newest restorable stream, None
    where there is none; `begun`: when its sender first offered it, or where that is not known, when it came;
    `unchanged`: when the dataset was last seen to be as it was then. Both by the receiver's clock. `broken`: streams
    that are damaged or lack a base; `lost_spill_count`: spill blocks that restoring the newest one loses.
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
    """A page of the answer to `status?`; datasets in order of their names. `now`: by the receiver's clock, which is the
    only one that ages are told by.
    """

    type: Literal["status"] = "status"
    now: str
    datasets: Annotated[list[DatasetStatus], Field(max_length=limits.DATASETS_PAGE)]


# --- reading back ----------------------------------------------------------------------------------------------


class List(Question):
    """What is stored of this sender; of one dataset, if named."""

    type: Literal["list"] = "list"
    dataset: Name | None


class Entries(Answer):
    """A page of the answer to `list`."""

    type: Literal["entries"] = "entries"
    entries: Annotated[list[StreamEntry], Field(max_length=limits.ENTRIES_PAGE)]


class Fetch(Question):
    """Give one stored stream back. `stream`: DATASET@SNAPSHOT, guid:N, or a file name; `offset`: the raw offset at
    which to begin: where a chunk does. `until`: the raw offset from which on no chunk is to begin; null: to the end.
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

    The manifest of a large package leaves its `snapshots` at home: they would not fit into a message.
    """

    type: Literal["sending"] = "sending"
    manifest: Annotated[Manifest, AfterValidator(_short_enough)]


class Locate(Question):
    """From which chunk of a stored stream on is a record found? `stream`: as in `fetch`; `object` and `offset`: the
    record's key, as in a resume token.
    """

    type: Literal["locate"] = "locate"
    stream: Text
    object: Offset
    offset: Offset


class Located(Answer):
    """The raw offset of the last chunk that begins with a record and whose first resumable record has a smaller key; 0
    where there is none.
    """

    type: Literal["located"] = "located"
    raw_offset: Offset


class Verify(Question):
    """Read and check what is stored of this sender; of one dataset, if named."""

    type: Literal["verify"] = "verify"
    dataset: Name | None


class Verdict(Answer):
    """What checking one stored stream found: one line for each thing wrong, none where it is whole."""

    type: Literal["verdict"] = "verdict"
    file: str
    dataset: Name
    snapshot: Name
    raw_bytes: Offset
    damage: Annotated[list[Text], Field(max_length=100)]


class Check(Question):
    """How is the receiver?"""

    type: Literal["check"] = "check"


class Health(Answer):
    """What the receiver says of itself to a sender: enough to see trouble coming, nothing of other senders."""

    type: Literal["health"] = "health"
    program: Program
    free_bytes: Offset
    problems: Annotated[list[Text], Field(max_length=100)]


class Done(Answer):
    """The end of an answer of several frames."""

    type: Literal["done"] = "done"


@dataclass(frozen=True, slots=True)
class Request:
    """What may be asked between two pushes. `pages`: what the answer has any number of; None: it has none. `done`: what
    ends the answer.
    """

    ask: type[Question]
    pages: type[Answer] | None = None
    done: type[Answer] = Done


#: All that a sender may ask, but `push` and `fetch`: those carry a stream.
REQUESTS: Final = (
    Request(BasesWanted, Bases),
    Request(PartialsWanted, Partials),
    Request(Unchanged, done=Noted),
    Request(StatusWanted, Status),
    Request(List, Entries),
    Request(Locate, done=Located),
    Request(Verify, Verdict),
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


def adapter(models: tuple[type[_T], ...]) -> TypeAdapter[_T]:
    """Return what reads a message that is one of these."""
    return TypeAdapter(Annotated[Union[models], Field(discriminator="type")])  # type: ignore[arg-type]  # noqa: UP007


_READ_RECEIVER: Final = adapter(FROM_RECEIVER)
_READ_SENDER: Final = adapter(FROM_SENDER)


def type_of(model: type[Message]) -> str:
    """Return the `type` that a message of this model has on the wire."""
    name: str = model.model_fields["type"].default
    return name


def encode(message: Message) -> bytes:
    """Return a message's JSON, UTF-8, without white space."""
    return message.model_dump_json(by_alias=True).encode()


def decode_from_receiver(payload: bytes | bytearray) -> ReceiverMessage:
    """Read a message that a receiver may send. Raises: RemoteProtocolError."""
    return decode(_READ_RECEIVER, payload)


def decode_from_sender(payload: bytes | bytearray) -> SenderMessage:
    """Read a message that a sender may send. Raises: RemoteProtocolError."""
    return decode(_READ_SENDER, payload)


def decode(reads: TypeAdapter[_T], payload: bytes | bytearray) -> _T:
    """Read a message. Raises: RemoteProtocolError."""
    try:
        return reads.validate_json(payload)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        # The peer chose the names of its keys: they must not write on anybody's terminal.
        msg = printable(f"message that cannot be read: {where + ': ' if where else ''}{first['msg']}")
        raise RemoteProtocolError(msg[:500]) from None
