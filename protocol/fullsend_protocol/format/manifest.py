"""The records of a stored stream: the manifest beside its file, an entry of `list`, and a receipt.

The manifest is a model of the disk (`DiskModel`), the other two are models of the wire (`WireModel`). They differ in
one point: an unknown key is ignored on the disk, and refused on the wire, where both sides agree on a version.

GUIDs are decimal strings, as `zfs get guid` prints them: JSON numbers lose bits beyond 2^53 in many readers.
Times are ISO 8601 in UTC, hashes are lower-case hex, sizes are bytes. docs/format.md specifies the manifest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from fullsend_protocol.shared import limits
from fullsend_protocol.stream.facts import StreamClass, class_of

_M = TypeVar("_M", bound=BaseModel)
_MISSING: Final = object()
_GUID_MAX: Final = (1 << 64) - 1
#: Fields of a manifest that few streams have.
_OF_FEW: Final = ("replacements", "merged", "ivset_guid", "base_ivset_guid")


def _guid(text: str) -> str:
    if int(text) > _GUID_MAX:
        msg = "a GUID has 64 bits"
        raise ValueError(msg)
    return text


Guid = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,19})$"), AfterValidator(_guid)]
Sha256Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Offset = Annotated[int, Field(ge=0, lt=limits.OFFSET_END)]
Name = Annotated[str, Field(max_length=limits.NAME_MAX)]
SenderName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Flags = Annotated[str, Field(pattern=r"^L?e?c?w?p?(r[0-9a-f]{8})?$")]
Kind = Literal["full", "incremental", "package"]
DatasetType = Literal["filesystem", "volume"]
ProvenBy = Literal["both", "receiver", "merge"]
Resume = Literal["none", "reconnect", "replay", "token"]


def properties_size(properties: dict[str, str]) -> int:
    """Return the size of properties as PROPERTIES_MAX counts it: their characters, and one more for each."""
    return sum(len(name) + len(value) + 1 for name, value in properties.items())


def _short(properties: dict[str, str]) -> dict[str, str]:
    if properties_size(properties) > limits.PROPERTIES_MAX:
        msg = f"more than {limits.PROPERTIES_MAX} characters of properties"
        raise ValueError(msg)
    return properties


#: Of a dataset, by name, as `zfs get -Hp` prints them.
Properties = Annotated[dict[str, str], AfterValidator(_short)]


class WireModel(BaseModel):
    """Base of all models of the wire: immutable, no coercion, no unknown keys."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", defer_build=True)


class DiskModel(BaseModel):
    """Base of all models of the disk: immutable, no coercion, and unknown keys are ignored. A file outlives the version
    that wrote it, so a new key must not make it unreadable, neither after an upgrade nor after a downgrade.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", defer_build=True)


def leading(count: int) -> BeforeValidator:
    """Return a validator that takes the first `count` values of a row on disk: what a later version has added behind
    them is ignored, like an unknown key.
    """
    return BeforeValidator(lambda said: tuple(said[:count]) if isinstance(said, list) else said)


def _known(model: type[BaseModel]) -> Callable[[object], object]:
    """Return a function that drops the unknown keys of a model of the wire inside a file on disk."""

    def pick(said: object) -> object:
        return {name: said[name] for name in model.model_fields if name in said} if isinstance(said, dict) else said

    return pick


def copied(model: type[_M], *sources: object, **more: object) -> _M:
    """Return a `model` whose fields are `more`, and of the others what the first of `sources` that has it says.

    A field of a stream has one name and one meaning in every model, so this is how it comes from one to another.
    Raises: ValidationError where a field is in none of them.
    """
    for name in model.model_fields:
        if name not in more:
            for source in sources:
                value = getattr(source, name, _MISSING)
                if value is not _MISSING:
                    more[name] = value
                    break
    return model(**more)


class Segment(WireModel):
    """A run of raw bytes hashed without interruption: [start, end) of the stream, and their SHA-256."""

    start: Offset
    end: Offset
    sha256: Sha256Hex


class Resumption(DiskModel):
    """One resumption of a stream: how, from which raw offset, and when, by the receiver's clock."""

    how: Resume
    offset: Offset
    at: str


class PastReplacement(DiskModel):
    """A stored stream was damaged, and this one took its place. `at`: when, by the receiver's clock; `received`: of the
    damaged one, None: its manifest could not be read; `why`: what was wrong with it; `same_bytes`: whether its raw
    SHA-256 is this stream's, None: not known.
    """

    at: str
    received: str | None
    why: str
    same_bytes: bool | None


class MergedInput(DiskModel):
    """One of the streams that were merged into a stored one. `file`: its name then; `sha256`: of its raw bytes."""

    file: str
    dataset: Name
    snapshot: Name
    guid: Guid
    base_guid: Guid | None
    sha256: Sha256Hex


class StreamSnapshot(WireModel):
    """One snapshot of a stream, in stream order; `base_guid` is "0" for a full."""

    dataset: Name
    snapshot: Name
    guid: Guid
    base_guid: Guid


class LostSpill(WireModel):
    """A spill block that `zfs receive` loses with exit 0: see records.EmbeddedSpill. `snapshot`: DATASET@SNAPSHOT."""

    snapshot: Name
    object: Offset


class Manifest(DiskModel):
    """All that is needed to restore a stored stream and to choose it; a `.json` file beside the `.zst`.

    Its rename into place is the commit: if it is in place, the file is whole and durable. All later versions read every
    released version, so keys that a later version added are ignored, not refused.
    """

    model_config = ConfigDict(populate_by_name=True)

    format: Literal[1] = 1
    sender: SenderName
    dataset: Name
    snapshot: Name
    guid: Guid
    base_guid: Guid | None  # None: a full
    kind: Kind
    dataset_type: DatasetType  # of a package: its top dataset's
    stream_class: StreamClass = Field(alias="class")
    flags: Flags
    features: list[str]  # the stream's feature flags, as words, for the question whether a host can receive it
    snapshots: list[Annotated[StreamSnapshot, BeforeValidator(_known(StreamSnapshot))]]
    created: str  # when the snapshot was made, by the sender's clock
    received: str  # when the stream was committed, by the receiver's clock
    #: When its sender first offered it, by the receiver's clock; None: an older fullsendd wrote this, or a rebuild.
    begun: str | None = None
    #: The order of reception among this sender's streams: higher is later. None: older than all that have one.
    sequence: Annotated[int, Field(ge=1, lt=limits.OFFSET_END)] | None = None
    raw_bytes: Offset
    stored_bytes: Offset  # size of the .zst file
    sha256: Sha256Hex | None  # of the whole raw stream; None if several segments prove it
    segments: list[Annotated[Segment, BeforeValidator(_known(Segment))]]
    resumptions: list[Resumption]  # why the stream has several segments
    file_sha256: Sha256Hex  # of the .zst file
    chunks: Offset
    sender_program: str
    receiver_program: str
    zfs_version: str | None  # None: read from stdin
    properties: Properties | None  # what was set on the dataset itself when it was sent; None: not known
    #: "receiver": the manifest was rebuilt from the file by `verify`; "merge": made of the streams in `merged`.
    proven_by: ProvenBy
    #: What `zfs receive` will lose; the first EMBEDDED_SPILLS_MAX. Empty also if an older fullsendd wrote the manifest.
    lost_spills: list[Annotated[LostSpill, BeforeValidator(_known(LostSpill))]] = Field(default_factory=list)
    #: The damaged streams of this name that gave way to this one, oldest first.
    replacements: list[PastReplacement] = Field(default_factory=list)
    #: What it was merged from, the oldest first; empty: nothing, it came as it is.
    merged: list[MergedInput] = Field(default_factory=list)
    #: Of a raw stream the IV sets of its snapshot and of its base (see records.ivset_guids). None: it does not tell, or
    #: an older fullsendd wrote the manifest.
    ivset_guid: Guid | None = None
    base_ivset_guid: Guid | None = None

    @property
    def lost_spill_count(self) -> int:
        """The number of `lost_spills`."""
        return len(self.lost_spills)

    def to_json(self) -> bytes:
        """Return the manifest file's bytes: indented JSON with a newline at the end. What few have is left out where
        there is none.
        """
        none = {name for name in _OF_FEW if not getattr(self, name)}
        return self.model_dump_json(by_alias=True, indent=1, exclude=none).encode() + b"\n"


class StreamEntry(WireModel):
    """An entry of `list` for one stored stream: one JSON object a line with --json. `ivset_guid`, `base_ivset_guid`:
    see Manifest. They are read, and not written: a released sender does not know them, and would refuse them.
    """

    sender: SenderName
    dataset: Name
    snapshot: Name
    guid: Guid
    kind: Kind
    dataset_type: DatasetType
    flags: Flags
    base: str | None  # DATASET@SNAPSHOT of the base, if it is stored
    base_guid: Guid | None
    created: str
    received: str
    sequence: int | None  # the order of reception: see Manifest
    raw_bytes: Offset
    stored_bytes: Offset
    sha256: Sha256Hex | None
    file: str  # relative to the store
    verified: str | None  # when `verify` last found it whole; None: not since it was received
    damaged: str | None  # what `verify` found, None: nothing
    restorable: bool  # false if it, or a base, is missing or damaged
    lost_spill_count: Offset  # spill blocks that `zfs receive` loses with exit 0; EMBEDDED_SPILLS_MAX: so many, or more
    ivset_guid: Guid | None = Field(default=None, exclude=True)
    base_ivset_guid: Guid | None = Field(default=None, exclude=True)

    @property
    def stream_class(self) -> StreamClass:
        """The `class` of its manifest, as its flags show it."""
        return class_of(self.flags)


class KeyedEntry(StreamEntry):
    """The entry of a raw stream, for a sender that understands "ivsets". It is a class of its own because to leave the
    fields out of each other entry makes a page take five times as long.
    """

    ivset_guid: Guid | None = None
    base_ivset_guid: Guid | None = None


class PartialEntry(WireModel):
    """An entry of `list --partial` for a partial stream: as its sender announced it, and how much has arrived.

    `raw_bytes`, `stored_bytes`: what is durable; `resume_offset`: raw bytes before the last resume point, from which a
    token resumes, None if there is none; `arriving`: on an open connection.
    """

    sender: SenderName
    dataset: Name
    snapshot: Name
    guid: Guid | None
    base_guid: Guid | None
    flags: Flags | None
    raw_bytes: Offset
    stored_bytes: Offset
    resume_offset: Offset | None
    started: str
    last: str  # when bytes last became durable
    arriving: bool


class Receipt(WireModel):
    """The receiver's confirmation that a stream is whole, proven and durable."""

    sender: SenderName
    dataset: Name
    snapshot: Name
    guid: Guid
    base: str | None  # DATASET@SNAPSHOT of the base, if it is stored: a stream names its base by GUID alone
    base_guid: Guid | None
    kind: Kind
    flags: Flags
    raw_bytes: Offset
    stored_bytes: Offset
    sha256: Sha256Hex | None
    file: str
    file_sha256: Sha256Hex
    received: str
    restorable: bool  # false: a base is not stored, or damaged
    segments: Annotated[list[Segment], Field(max_length=limits.SEGMENTS_MAX)]
    lost_spills: Annotated[list[LostSpill], Field(max_length=limits.EMBEDDED_SPILLS_MAX)]
