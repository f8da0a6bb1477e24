"""Resume tokens: the argument of `zfs send -t`, and the value of the property receive_resume_token.

    1-<checksum>-<packed length>-<deflated>

All three are in hex: word a of the Fletcher-4 of the deflated bytes (without those beyond a multiple of 4), the
length of the packed nvlist, and that nvlist, deflated by zlib at level 6. The nvlist is native; its pairs, in this
order: `fromguid` of an increment, `object`, `offset`, `bytes`, `toguid`, `toname`, and as booleans those of
`largeblockok`, `embedok`, `compressok`, `rawok` that the stream's BEGIN shows as features. (OpenZFS,
module/zfs/dsl_dataset.c, get_receive_resume_token_impl; read by lib/libzfs/libzfs_sendrecv.c,
zfs_send_resume_token_to_nvlist.)

A token names any snapshot of a host (openzfs issue 14153): one that comes from outside must not reach `zfs send`. So
the sender makes its own, of what it means to send, and reads a token only from the local ZFS.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import Final, Self

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import DamagedStream, UnsupportedStream
from fullsend_protocol.stream import fletcher, nvlist
from fullsend_protocol.stream.records import Feature

#: ZFS_MAXPROPLEN of OpenZFS (include/sys/fs/zfs.h): no property is longer, and fullsend's tokens need about 600.
_TEXT_MAX: Final = 8192
#: fullsend's packed lists are below 700 bytes. Data that inflate a thousand times must not fill the memory.
_PACKED_MAX: Final = 16 << 10

_LEVEL: Final = 6
_U64_END: Final = 1 << 64
_FORM: Final = re.compile(r"([0-9]{1,9})-([0-9a-f]{1,16})-([0-9a-f]{1,16})-([0-9a-f]+)", re.ASCII)

#: The boolean pairs, in their order, and the corresponding features.
_FLAGS: Final = (
    ("largeblockok", Feature.LARGE_BLOCKS),
    ("embedok", Feature.EMBED_DATA),
    ("compressok", Feature.COMPRESSED),
    ("rawok", Feature.RAW),
)
_FEATURES: Final = sum(1 << feature for _name, feature in _FLAGS)
_KNOWN: Final = frozenset(
    {"fromguid", "object", "offset", "bytes", "toguid", "toname", *(name for name, _feature in _FLAGS)}
)
#: Pairs that only a redacted stream's token has.
_REDACTED: Final = frozenset({"redact_snaps", "book_redact_snaps"})
_WHAT: Final = "the resume token"


@dataclass(frozen=True, slots=True)
class ResumeToken:
    """The contents of a token. `name` is the toname (DATASET@SNAPSHOT); `base_guid` None: of a full.

    `object`, `offset`: of the last record that was received; the stream must begin with that record once more.
    `received`: the pair `bytes`, which is for display alone. `features`: the four bits of BEGIN's that a token has
    flags for (LARGE_BLOCKS, EMBED_DATA, COMPRESSED, RAW).
    """

    name: str
    guid: int
    base_guid: int | None
    object: int
    offset: int
    features: int
    received: int = 0

    def __post_init__(self) -> None:
        numbers = (self.guid, self.base_guid or 0, self.object, self.offset, self.received)
        possible = all(0 <= number < _U64_END for number in numbers) and self.base_guid != 0
        if not possible or self.features & ~_FEATURES:
            msg = f"no resume token can say {self}"
            raise ValueError(msg)
        if not _is_name(self.name):
            msg = f"no resume token can name {self.name!r}"
            raise ValueError(msg)

    def encode(self) -> str:
        """Return the token as text, as OpenZFS itself would write it."""
        pairs: dict[str, bool | int | str] = {} if self.base_guid is None else {"fromguid": self.base_guid}
        pairs |= {"object": self.object, "offset": self.offset, "bytes": self.received}
        pairs |= {"toguid": self.guid, "toname": self.name}
        pairs |= {name: True for name, feature in _FLAGS if self.features >> feature & 1}
        packed = nvlist.encode(pairs)
        deflated = zlib.compress(packed, _LEVEL)
        return f"1-{_checksum(deflated):x}-{len(packed):x}-{deflated.hex()}"

    @classmethod
    def decode(cls, text: str) -> Self:
        """Read a token from any text.

        A token with an unknown pair is refused, because such a pair may change what the stream must be. Only pairs of
        types that nvlist skips are not noticed.

        Raises: DamagedStream (not a token, or a changed one), UnsupportedStream (of a redacted stream, or newer).
        """
        found = _unpacked(text)
        if _REDACTED & found.keys():
            msg = f"{_WHAT} is that of a redacted stream, which cannot be resumed"
            raise UnsupportedStream(msg)
        unknown = sorted(found.keys() - _KNOWN)
        if unknown:
            msg = f"{_WHAT} has {unknown[0]!r}, which this fullsend does not know: it cannot know what that pair means"
            raise UnsupportedStream(msg)
        name = found.get("toname")
        if not isinstance(name, str) or not _is_name(name):
            raise _lacking("toname")
        return cls(
            name=name,
            guid=_integer(found, "toguid"),
            base_guid=_integer(found, "fromguid", 0) or None,
            object=_integer(found, "object"),
            offset=_integer(found, "offset"),
            features=sum(1 << feature for key, feature in _FLAGS if key in found),
            received=_integer(found, "bytes"),
        )


def token_features(features: int) -> int:
    """Return the feature bits of a BEGIN that a token has flags for.

    Raises: UnsupportedStream for a redacted stream: from a token without these pairs, OpenZFS would continue with what
    was redacted.
    """
    if features >> Feature.REDACTED & 1:
        msg = "a redacted stream cannot be resumed: `zfs send -t` would continue with what was redacted"
        raise UnsupportedStream(msg)
    return features & _FEATURES


def _unpacked(text: str) -> nvlist.NvList:
    """Parse the text. Allocates at most _PACKED_MAX bytes, whatever it claims. Raises: as ResumeToken.decode."""
    parts = _FORM.fullmatch(text) if len(text) <= _TEXT_MAX else None
    if parts is None or len(parts[4]) % 2:
        msg = f"{_WHAT} is not of the form 1-CHECKSUM-LENGTH-DATA"
        raise DamagedStream(msg)
    version, checksum, length = int(parts[1]), int(parts[2], 16), int(parts[3], 16)
    if version != 1:
        msg = f"{_WHAT} is of version {version}: only version 1 is known"
        raise UnsupportedStream(msg)
    deflated = bytes.fromhex(parts[4])
    if checksum != _checksum(deflated):
        msg = f"{_WHAT} has another checksum than it says: it was changed, or copied in part"
        raise DamagedStream(msg)
    inflater = zlib.decompressobj()
    try:
        packed = inflater.decompress(deflated, _PACKED_MAX + 1)
    except zlib.error as error:
        msg = f"{_WHAT} does not inflate: {error}"
        raise DamagedStream(msg) from None
    if not inflater.eof or inflater.unused_data or len(packed) != length or length > _PACKED_MAX:
        msg = f"{_WHAT} does not inflate to the {length} bytes that it announces (at most {_PACKED_MAX} are allowed)"
        raise DamagedStream(msg)
    return nvlist.decode(packed, _WHAT)


def _checksum(deflated: bytes) -> int:
    return fletcher.summed(deflated[: len(deflated) // fletcher.WORD_SIZE * fletcher.WORD_SIZE])[0]


def _is_name(name: str) -> bool:
    return "\0" not in name and 0 < len(name.encode()) <= limits.NAME_MAX


def _integer(found: nvlist.NvList, key: str, default: int | None = None) -> int:
    """Return an integer pair. Raises: DamagedStream if it is missing, or not an integer."""
    value = found.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _lacking(key)
    return value


def _lacking(key: str) -> DamagedStream:
    return DamagedStream(f"{_WHAT} does not name a place in a stream: it has no {key}, or one that cannot be")
