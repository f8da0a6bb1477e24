"""Send streams to test with: a writer of synthetic ones, and the genuine ones from real OpenZFS.

The writer makes what a reader of records looks at, and leaves the running Fletcher-4 checksums zero: fullsend does not
sum them (docs/verification.md), and `zfs receive` never sees these. Each function returns the bytes of one record;
`substream`, `package` and `b"".join` put them together.

The genuine streams are those of tests/data, plus, where there is one, a larger corpus of the same form: the folder that
$FULLSEND_CORPUS names, else ../shared/corpus beside the checkout. A test that takes its streams from `whole()` and its
sisters runs over all of them.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import zstandard
from tests.data import load

from fullsend_protocol.stream.records import HEADER_SIZE, MAGIC, Feature, RecordType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import pytest

Sort = Literal["whole", "cut", "resumed", "damaged", "excluded"]
NvValue = bool | int | str | tuple[int, ...] | dict[str, "NvValue"]

SUBSTREAM: Final = 1
COMPOUND: Final = 2

#: GUIDs and a creation time that tests may use where any will do.
GUID: Final = 0x1122334455667788
BASE_GUID: Final = 0x0102030405060708
CREATED: Final = 1_795_417_089


# --- records ---------------------------------------------------------------------------------------------------


def record(kind: int, fields: Mapping[int, tuple[str, int]], payload: bytes = b"", payloadlen: int = 0) -> bytes:
    """One record. `fields`: offset in the record -> (struct format of one little-endian integer, value)."""
    head = bytearray(HEADER_SIZE)
    struct.pack_into("<II", head, 0, kind, payloadlen)
    for at, (layout, value) in fields.items():
        struct.pack_into("<" + layout, head, at, value)
    return bytes(head) + payload


def begin(
    name: str | bytes = "tank/data@now",
    guid: int = GUID,
    base_guid: int = 0,
    *,
    features: Iterable[int] = (),
    payload: bytes = b"",
    header_type: int = SUBSTREAM,
    created: int = CREATED,
    payloadlen: int | None = None,
    objset_type: int = 0,
    flags: int = 0,
) -> bytes:
    """BEGIN. `features`: the bits that are set; `flags`: drr_flags; `payloadlen`: a false length for the payload."""
    versioninfo = header_type | sum(1 << bit for bit in features) << 2
    head = bytearray(
        record(
            RecordType.BEGIN,
            {
                8: ("Q", MAGIC),
                16: ("Q", versioninfo),
                24: ("Q", created),
                32: ("I", objset_type),
                36: ("I", flags),
                40: ("Q", guid),
                48: ("Q", base_guid),
            },
            payloadlen=len(payload) if payloadlen is None else payloadlen,
        )
    )
    raw_name = name.encode() if isinstance(name, str) else name
    head[56 : 56 + len(raw_name)] = raw_name
    assert len(head) == HEADER_SIZE
    return bytes(head) + payload


def end(guid: int = GUID) -> bytes:
    """END of a substream."""
    return record(RecordType.END, {8: ("Q", 0xC0FFEE), 40: ("Q", guid)})


#: END after a package's outer BEGIN, and at the very end of a package: zero after its type.
CLOSING_END: Final = record(RecordType.END, {})


#: Where each type of record has the GUID of its stream.
_GUID_AT: Final = {1: 40, 2: 24, 3: 40, 4: 32, 5: 40, 7: 24, 8: 32, 9: 24}


def marked(raw: bytes, guid: int = GUID) -> bytes:
    """The same record, of the stream with this GUID. One that has none stays as it is."""
    head = bytearray(raw)
    if head[0] in _GUID_AT:
        struct.pack_into("<Q", head, _GUID_AT[head[0]], guid)
    return bytes(head)


def object_(number: int, bonus: bytes = b"", *, raw: bool = False) -> bytes:
    """OBJECT. A raw one says its payload's length itself; else it is the bonus length rounded up to 8."""
    if raw:
        return record(RecordType.OBJECT, {8: ("Q", number), 28: ("I", 8), 36: ("I", len(bonus))}, bonus)
    padded = bonus + bytes(-len(bonus) % 8)
    return record(RecordType.OBJECT, {8: ("Q", number), 28: ("I", len(bonus))}, padded)


def data_object(number: int, bonus: bytes, *, block_size: int, volume: bool = False) -> bytes:
    """OBJECT of a file, or of a volume's data. A file's bonus buffer is one of system attributes, as of OpenZFS 0.8."""
    head = bytearray(object_(number, bonus))
    struct.pack_into("<III", head, 16, *((23, 0) if volume else (19, 44)), block_size)
    head[34] = 1  # slots
    return bytes(head)


def object_range(first: int = 0, slots: int = 32) -> bytes:
    return record(RecordType.OBJECT_RANGE, {8: ("Q", first), 16: ("Q", slots)})


def write(number: int, offset: int, payload: bytes, *, logical_size: int | None = None) -> bytes:
    """WRITE. With `logical_size` the payload is a compressed block of that logical size."""
    fields = {8: ("Q", number), 24: ("Q", offset), 32: ("Q", len(payload) if logical_size is None else logical_size)}
    if logical_size is not None:
        fields |= {50: ("B", 15), 96: ("Q", len(payload))}
    return record(RecordType.WRITE, fields, payload)


def write_embedded(number: int, offset: int, payload: bytes, logical_size: int = 4096) -> bytes:
    fields = {8: ("Q", number), 16: ("Q", offset), 48: ("I", logical_size), 52: ("I", len(payload))}
    return record(RecordType.WRITE_EMBEDDED, fields, payload + bytes(-len(payload) % 8))


def write_byref(number: int, offset: int, length: int = 4096) -> bytes:
    return record(RecordType.WRITE_BYREF, {8: ("Q", number), 16: ("Q", offset), 24: ("Q", length)})


def spill(number: int, payload: bytes, *, logical_size: int | None = None) -> bytes:
    """SPILL. With `logical_size` the payload is compressed (or raw)."""
    if logical_size is None:
        return record(RecordType.SPILL, {8: ("Q", number), 16: ("Q", len(payload))}, payload)
    return record(RecordType.SPILL, {8: ("Q", number), 16: ("Q", logical_size), 40: ("Q", len(payload))}, payload)


def free(number: int, offset: int = 0, length: int = 1 << 62) -> bytes:
    return record(RecordType.FREE, {8: ("Q", number), 16: ("Q", offset), 24: ("Q", length)})


def freeobjects(first: int, count: int) -> bytes:
    return record(RecordType.FREEOBJECTS, {8: ("Q", first), 16: ("Q", count)})


def redact(number: int, offset: int = 0, length: int = 4096) -> bytes:
    return record(RecordType.REDACT, {8: ("Q", number), 16: ("Q", offset), 24: ("Q", length)})


def every_record() -> list[bytes]:
    """One or two of each record type that may stand in a substream, with and without payloads of odd lengths."""
    return [
        object_range(),
        object_(1),
        object_(2, b"b" * 13),
        object_(3, b"raw bonus"[:7], raw=True),
        freeobjects(4, 28),
        free(2),
        write(2, 0, b"w" * 512),
        write(2, 512, b"compressed"[:7], logical_size=512),
        write_embedded(2, 1024, b"embedded"[:5]),
        write_embedded(2, 2048, b""),
        write_byref(2, 4096),
        spill(2, b"s" * 512),
        spill(2, b"spilled"[:3], logical_size=512),
        redact(2, 8192),
    ]


@dataclass(frozen=True)
class Record:
    """One record: `start` of its header, `end` of its payload; `key`: (object, offset) of a resumable one."""

    kind: RecordType
    start: int
    end: int
    key: tuple[int, int] | None


def split(raw: bytes) -> list[Record]:
    """Split a whole stream into its records: slow, plain, and written apart from fullsend's own walker."""

    def u32(at: int) -> int:
        return int.from_bytes(raw[at : at + 4], "little")

    def u64(at: int) -> int:
        return int.from_bytes(raw[at : at + 8], "little")

    found = []
    at = 0
    while at < len(raw):
        kind, length, key = RecordType(u32(at)), 0, None
        match kind:
            case RecordType.BEGIN:
                length = u32(at + 4)
            case RecordType.OBJECT:
                length, key = u32(at + 36) or (u32(at + 28) + 7) // 8 * 8, (u64(at + 8), 0)
            case RecordType.WRITE:
                length, key = u64(at + 96) if raw[at + 50] else u64(at + 32), (u64(at + 8), u64(at + 24))
            case RecordType.SPILL:
                length = u64(at + 40) or u64(at + 16)
            case RecordType.WRITE_EMBEDDED:
                length, key = (u32(at + 52) + 7) // 8 * 8, (u64(at + 8), u64(at + 16))
            case _:
                pass
        found.append(Record(kind, at, at + HEADER_SIZE + length, key))
        at = found[-1].end
    return found


# --- streams ---------------------------------------------------------------------------------------------------


def substream(
    *records: bytes,
    name: str | bytes = "tank/data@now",
    guid: int = GUID,
    base_guid: int = 0,
    **about: Any,
) -> bytes:
    """BEGIN (which is told the rest), the records given, END: a plain stream, or one substream of a package."""
    opening = begin(name, guid, base_guid, **about)
    return opening + b"".join(records) + end(guid)


def redacted(guids: Sequence[int], *records: bytes, **keywords: Any) -> bytes:
    """A substream that is redacted with respect to the snapshots with these GUIDs."""
    features = {Feature.REDACTED, *keywords.pop("features", ())}
    return substream(*records, features=features, payload=native({"redact_snaps": tuple(guids)}), **keywords)


def encrypted(*records: bytes, ivset_guid: int, base_ivset_guid: int = 0, **keywords: Any) -> bytes:
    """A raw substream, with these IV sets."""
    features = {Feature.RAW, *keywords.pop("features", ())}
    return substream(*records, features=features, payload=keys(ivset_guid, base_ivset_guid), **keywords)


def keys(ivset_guid: int, base_ivset_guid: int = 0) -> bytes:
    """What BEGIN of a raw stream says of its keys, as far as it matters here (dsl_crypt.c)."""
    guids: dict[str, NvValue] = {"to_ivset_guid": ivset_guid, "from_ivset_guid": base_ivset_guid}
    return native({"crypt_keydata": {"DSL_CRYPTO_GUID": 7, **guids}})


def package(*substreams: bytes, name: str = "tank/data@now", nvlist: Mapping[str, NvValue] | None = None) -> bytes:
    """A compound stream; without `nvlist` its outer BEGIN has no payload, as with a plain `zfs send -I`."""
    payload = b"" if nvlist is None else xdr(nvlist)
    opening = begin(name, 0, header_type=COMPOUND, payload=payload, created=0)
    return opening + CLOSING_END + b"".join(substreams) + CLOSING_END


def file_system(name: str, snaps: Mapping[str, int], *, origin: int | None = None) -> dict[str, NvValue]:
    """What a package's nvlist says of one dataset (libzfs_sendrecv.c, send_iterate_fs)."""
    said: dict[str, NvValue] = {"name": name, "parentfromsnap": 0, "props": {"compression": {"value": 15}}}
    if origin is not None:
        said["origin"] = origin
    return said | {"snaps": dict(snaps), "snapprops": {snapshot: {} for snapshot in snaps}}


def tree(
    tosnap: str, *file_systems: dict[str, NvValue], fromsnap: str | None = None, not_recursive: bool = False
) -> dict[str, NvValue]:
    """A package's nvlist, as libzfs gathers it (gather_nvlist, in the order of the genuine ones)."""
    said: dict[str, NvValue] = {}
    if fromsnap is not None:
        said["fromsnap"] = fromsnap
    said["tosnap"] = tosnap
    if not_recursive:
        said["not_recursive"] = True
    said["fss"] = {f"0x{index:x}": one for index, one in enumerate(file_systems, 0xF55)}
    return said


# --- nvlists ---------------------------------------------------------------------------------------------------

_BOOLEAN: Final = 1
_UINT64: Final = 8
_STRING: Final = 9
_UINT64_ARRAY: Final = 16
_NVLIST: Final = 19


def xdr(nvlist: Mapping[str, NvValue]) -> bytes:
    """An nvlist packed as libzfs packs it (NV_ENCODE_XDR)."""
    return b"\1\1\0\0" + _xdr_list(nvlist)


def _xdr_list(nvlist: Mapping[str, NvValue]) -> bytes:
    return struct.pack(">iI", 0, 1) + b"".join(xdr_pair(name, *_xdr_value(v)) for name, v in nvlist.items()) + bytes(8)


def xdr_pair(name: str | bytes, kind: int, count: int, value: bytes) -> bytes:
    """One pair of an XDR nvlist."""
    body = xdr_string(name) + struct.pack(">ii", kind, count) + value
    return struct.pack(">ii", len(body) + 8, 0) + body


def xdr_string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack(">I", len(raw)) + raw + bytes(-len(raw) % 4)


def _xdr_value(value: NvValue) -> tuple[int, int, bytes]:
    match value:
        case bool():
            return _BOOLEAN, 0, b""
        case int():
            return _UINT64, 1, struct.pack(">Q", value)
        case str():
            return _STRING, 1, xdr_string(value)
        case tuple():
            return _UINT64_ARRAY, len(value), struct.pack(f">I{len(value)}Q", len(value), *value)
        case _:
            return _NVLIST, 1, _xdr_list(value)


def native(nvlist: Mapping[str, NvValue]) -> bytes:
    """An nvlist packed as the kernel packs it (NV_ENCODE_NATIVE, little-endian)."""
    return b"\0\1\0\0" + struct.pack("<iI", 0, 1) + _native_list(nvlist)


def _native_list(nvlist: Mapping[str, NvValue]) -> bytes:
    return b"".join(map(_native_item, nvlist.items())) + bytes(4)


def _native_item(item: tuple[str, NvValue]) -> bytes:
    name, value = item
    match value:
        case bool():
            return native_pair(name, _BOOLEAN, 0, b"")
        case int():
            return native_pair(name, _UINT64, 1, struct.pack("<Q", value))
        case str():
            return native_pair(name, _STRING, 1, value.encode() + b"\0")
        case tuple():
            return native_pair(name, _UINT64_ARRAY, len(value), struct.pack(f"<{len(value)}Q", *value))
        case _:  # the place of an nvlist_t; the pairs follow behind
            return native_pair(name, _NVLIST, 1, bytes(24)) + _native_list(value)


def native_pair(name: str | bytes, kind: int, count: int, value: bytes) -> bytes:
    """One pair of a native nvlist."""
    raw = (name.encode() if isinstance(name, str) else name) + b"\0"
    head = 16 + len(raw)
    body = raw + bytes(-head % 8) + value + bytes(-len(value) % 8)
    return struct.pack("<ihhii", 16 + len(body), len(raw), 0, count, kind) + body


# --- genuine streams -------------------------------------------------------------------------------------------

ROOT: Final = Path(__file__).resolve().parent.parent
_BESIDE: Final = ROOT.parent / "shared" / "corpus"


@dataclass(frozen=True, eq=False)
class Genuine:
    """A stream that a real `zfs send` made. `begins` and `records` are as another program read them: MANIFEST.json.

    `sort`: "whole"; "cut" ends early; "resumed" is the rest after a cut; "damaged" had an I/O error on the way;
    "excluded" (`zfs send -R -X`) names datasets that it was made without, which on stdin looks like a loss.
    """

    name: str
    command: str
    note: str
    path: Path
    size: int
    sha256: str
    sort: Sort
    begins: tuple[dict[str, Any], ...]
    records: dict[str, int]

    def read(self) -> bytes:
        """Return the stream's bytes, proven to be those that were recorded."""
        return _read(self)


@functools.lru_cache(maxsize=8)  # all of them are 200 MB, and a large process is slow to start another one
def _read(stream: Genuine) -> bytes:
    if stream.path.parent == load.HERE:
        return load.stream(stream.name)
    raw = zstandard.ZstdDecompressor().decompressobj().decompress(stream.path.read_bytes())
    assert (len(raw), hashlib.sha256(raw).hexdigest()) == (stream.size, stream.sha256), stream.path
    return raw


def corpus() -> Path | None:
    """The larger corpus, None if there is none. A missing one that was asked for is an error."""
    named = os.environ.get("FULLSEND_CORPUS")
    if named:
        path = Path(named)
        if not (path / "MANIFEST.json").is_file():
            msg = f"FULLSEND_CORPUS names {path}, where no MANIFEST.json is"
            raise FileNotFoundError(msg)
        return path
    return _BESIDE if (_BESIDE / "MANIFEST.json").is_file() else None


@functools.cache
def genuine() -> tuple[Genuine, ...]:
    """All genuine streams; those of the larger corpus have names that begin with `corpus/`."""
    found = list(_load(load.HERE, ""))
    more = corpus()
    if more is not None:
        found += _load(more, "corpus/")
    return tuple(found)


def whole() -> list[Genuine]:
    """The streams that a receiver takes."""
    return [stream for stream in genuine() if stream.sort == "whole"]


def broken() -> list[Genuine]:
    """The streams that every receiver must refuse."""
    return [stream for stream in genuine() if stream.sort != "whole"]


def small(most: int = 1_000_000) -> list[Genuine]:
    """The whole streams that are at most so long, for tests that go over one many times."""
    return [stream for stream in whole() if stream.size <= most]


def named(name: str) -> Genuine:
    """The genuine stream of this name."""
    (found,) = (stream for stream in genuine() if stream.name == name)
    return found


def each(streams: Callable[[], list[Genuine]]) -> pytest.MarkDecorator:
    """Mark a test to run with each of these as its `stream`: `@each(whole)`; as a slow one with the larger corpus."""
    import pytest  # not at the top: tests/fakezfs.py, which is started thousands of times, has no use for it

    return pytest.mark.parametrize(
        "stream",
        [
            pytest.param(stream, id=stream.name, marks=[pytest.mark.slow] if stream.name.startswith("corpus/") else [])
            for stream in streams()
        ],
    )


def _load(folder: Path, prefix: str) -> Iterable[Genuine]:
    manifest = json.loads((folder / "MANIFEST.json").read_text(encoding="utf-8"))
    for entry in manifest["streams"] if isinstance(manifest, dict) else manifest:
        path = folder / entry.get("file", f"{entry['name']}.zfs.zst")
        yield Genuine(
            name=prefix + entry["name"],
            command=entry["command"],
            note=entry["note"],
            path=path,
            size=entry["size"],
            sha256=entry["sha256"],
            sort=_sort(entry),
            begins=tuple(entry["begins"]),
            records={kind.removeprefix("DRR_"): count for kind, count in entry["records"].items()},
        )


def _sort(entry: dict[str, Any]) -> Sort:
    if entry["name"].endswith("-part"):
        return "cut"
    if entry["name"].endswith("-rest"):
        return "resumed"
    if " -X " in entry["command"]:
        return "excluded"
    # A part of a stream that was cut by `head` has no exit code of its own.
    return "damaged" if entry.get("exit_code", 0) else "whole"
