"""After the power cut: does the store hold all that was promised, and nothing that was not?

`audit` reads the folders itself, by docs/format.md; of fullsend it takes only what `fullsendd list --json` says. `book`
is what load.py's Book writes.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, cast

import zstandard

if TYPE_CHECKING:
    from collections.abc import Iterator

_PIECE: Final = 1 << 20
#: The last part of the name of a dataset that is pruned to its two newest snapshots all the time.
PRUNED: Final = "pruned"


@dataclass
class Findings:
    """`violations`: promises that were not kept, a line each. `stored`: the numbers in the book of what is stored;
    `kept`: raw bytes of each partial that is kept; both were compared with what was sent. `pruned`: the numbers of
    what is not stored any more, and need not be. `figures`: how much was looked at.
    """

    violations: list[str] = field(default_factory=list)
    stored: list[int] = field(default_factory=list)
    kept: dict[int, int] = field(default_factory=dict)
    pruned: list[int] = field(default_factory=list)
    figures: Counter[str] = field(default_factory=Counter)


def audit(root: Path, book: dict[str, Any], listed: list[dict[str, Any]]) -> Findings:
    """Hold a store that is being served, and to which nobody pushes, against the book."""
    found = Findings()
    streams = {(each["source"]["sender"], str(each["source"]["guid"])): each for each in book["streams"]}
    for row in listed:
        stream = streams.get((row["sender"], row["guid"]))
        name = row["file"]
        if stream is None:
            found.violations.append(f"{name}: is listed, and was never pushed")
        elif stream["pruned"]:
            found.violations.append(f"{name}: had been pruned, and is listed again")
        elif stream["number"] in found.stored:
            found.violations.append(f"{name}: is listed twice")
        elif not stream["finished"]:
            found.violations.append(f"{name}: is listed, and its sender never said that it was whole")
        else:
            found.stored.append(stream["number"])
            if stream["receipt"] is None:
                found.figures["stored without a receipt"] += not stream["stored"]
            found.violations += [f"{name}: {fault}" for fault in _check_row(row, stream)]
            if not stream["proven"]:
                found.figures["stored streams read"] += 1
                found.violations += [f"{name}: {fault}" for fault in _check_files(root / name, row, stream)]
    _check_partials(root / ".partial", streams, found)
    for stream in book["streams"]:
        name = f"{stream['source']['sender']}:{stream['source']['dataset']}@{stream['source']['snapshot']}"
        if _may_be_pruned(stream, book, found.stored):
            if stream["number"] not in found.kept:
                found.pruned.append(stream["number"])
                found.figures["streams pruned"] += not stream["pruned"]
            continue
        found.figures["receipts held"] += stream["receipt"] is not None
        if stream["stored"] and stream["number"] not in found.stored:
            found.violations.append(f"{name}: was stored, and is not listed")
        elif stream["acked"] and not stream["stored"]:
            found.figures["acknowledged offsets held"] += 1
            if stream["number"] not in found.stored and stream["number"] not in found.kept:
                found.violations.append(f"{name}: {stream['acked']} raw bytes were acknowledged, and all is gone")
    _check_senders(root / ".state", book["enrolled"], found)
    found.violations += list(_strays(root))
    return found


def _may_be_pruned(stream: dict[str, Any], book: dict[str, Any], stored: list[int]) -> bool:
    """Whether a stream that is not stored may have been pruned: two newer ones of its dataset are stored."""
    dataset = stream["source"]["dataset"]
    if stream["number"] in stored or not stream["finished"] or not dataset.endswith(f"/{PRUNED}"):
        return False
    newer = [
        each
        for each in book["streams"]
        if each["source"]["dataset"] == dataset and each["number"] > stream["number"] and each["number"] in stored
    ]
    return len(newer) >= 2


def _check_row(row: dict[str, Any], stream: dict[str, Any]) -> Iterator[str]:
    """What `list` says of a stream."""
    raw_bytes, sha256 = stream["marks"][-1]
    expected = {
        "dataset": stream["source"]["dataset"],
        "snapshot": stream["source"]["snapshot"],
        "raw_bytes": raw_bytes,
        "damaged": None,
        "restorable": True,
    }
    receipt = stream["receipt"]
    if receipt is not None:
        expected |= {name: receipt[name] for name in ("file", "received", "stored_bytes")}
    for name, value in expected.items():
        if row[name] != value:
            yield f"{name} is {row[name]!r}, not {value!r}"
    # In several segments it came as many hashes; that of the whole is known when it has been read again.
    if row["sha256"] != sha256 and not (row["sha256"] is None and stream["resumed"]):
        yield f"sha256 is {row['sha256']!r}, not {sha256!r}"


def _check_files(path: Path, row: dict[str, Any], stream: dict[str, Any]) -> Iterator[str]:
    """What lies in a stream's three files."""
    try:
        file_sha256 = hashlib.sha256()
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                file_sha256.update(piece)
        manifest = json.loads(path.with_name(path.name + ".json").read_bytes())
        line = path.with_name(path.name + ".sha256").read_text(encoding="ascii")
        raw_bytes, sha256 = _decode(path, path.stat().st_size)
    except (OSError, ValueError, zstandard.ZstdError) as error:
        yield f"cannot be read: {error}"
        return
    said = stream["receipt"] or manifest
    if {file_sha256.hexdigest(), manifest["file_sha256"], said["file_sha256"]} != {said["file_sha256"]}:
        yield f"its SHA-256 is {file_sha256.hexdigest()}; its manifest says {manifest['file_sha256']}"
    if line != f"{said['file_sha256']}  {path.name}\n":
        yield f"its .sha256 says {line!r}"
    if [raw_bytes, sha256] != list(stream["marks"][-1]):
        yield f"decodes to {raw_bytes} raw bytes with SHA-256 {sha256}, not to what was pushed"
    if path.stat().st_size != row["stored_bytes"]:
        yield f"has {path.stat().st_size} bytes, not {row['stored_bytes']}"


def _decode(path: Path, size: int) -> tuple[int, str]:
    """Decode the first `size` bytes of a file. Returns: how many raw bytes that makes, and their SHA-256."""
    raw_bytes, sha256 = 0, hashlib.sha256()
    with path.open("rb") as file:
        source = _Head(file.read, size)
        reader = zstandard.ZstdDecompressor().stream_reader(cast("IO[bytes]", source), read_across_frames=True)
        while piece := reader.read(_PIECE):
            raw_bytes += len(piece)
            sha256.update(piece)
    if source.left:
        msg = f"ends {source.left} bytes early"
        raise ValueError(msg)
    return raw_bytes, sha256.hexdigest()


class _Head:
    """The first bytes of a file, for zstandard to read."""

    def __init__(self, read: Any, size: int) -> None:
        self._read = read
        self.left = size

    def read(self, count: int) -> bytes:
        data: bytes = self._read(min(count, self.left))
        self.left -= len(data)
        return data


def _check_partials(folder: Path, streams: dict[tuple[str, str], dict[str, Any]], found: Findings) -> None:
    """What is still arriving."""
    files = {path.name for path in folder.iterdir()}
    for name in sorted(files):
        key, _, suffix = name.partition(".")
        if suffix not in {"data", "journal"} or {f"{key}.data", f"{key}.journal"} - files:
            found.violations.append(f".partial/{name}: means nothing, and should have been removed")
            continue
        if suffix == "journal":
            fault = _check_partial(folder / f"{key}.data", folder / name, streams, found)
            if fault:
                found.violations.append(f".partial/{name}: {fault}")


def _check_partial(data: Path, journal: Path, streams: dict[tuple[str, str], dict[str, Any]], found: Findings) -> str:
    lines: list[dict[str, Any]] = []
    for line in journal.read_bytes().splitlines(keepends=True):
        crc, _, body = line.rstrip(b"\n").partition(b" ")
        if not line.endswith(b"\n") or crc != b"%08x" % zlib.crc32(body):
            return f"is not whole after {len(lines)} lines"
        lines.append(json.loads(body))
    durable = [line["durable"] for line in lines if "durable" in line]
    if not durable or "open" not in lines[0] or "commit" in lines[-1]:
        return f"should have been deleted, or its commit completed: {lines[:1]} ... {lines[-1:]}"
    push = lines[0]["open"]["push"]
    name = f"{push['dataset']}@{push['snapshot']}"
    stream = streams.get((lines[0]["open"]["sender"], push["guid"]))
    if stream is None:
        return f"{name} was never pushed"
    if stream["number"] in found.stored:
        return f"{name} is stored, too"
    offset, stored = durable[-1]["offset"], durable[-1]["stored"]
    if offset < stream["acked"]:
        return f"{name}: {stream['acked']} raw bytes were acknowledged, and {offset} are kept"
    marks = dict(stream["marks"])
    if offset not in marks:
        return f"{name}: {offset} raw bytes are no run of chunks that was pushed"
    if data.stat().st_size != stored:
        return f"{name}: its data have {data.stat().st_size} bytes; its journal says {stored}"
    try:
        decoded = _decode(data, stored)
    except (OSError, ValueError, zstandard.ZstdError) as error:
        return f"{name}: cannot be decoded: {error}"
    if decoded != (offset, marks[offset]):
        return f"{name}: decodes to {decoded}, not to the {offset} bytes that were pushed"
    found.kept[stream["number"]] = offset
    found.figures["partials read"] += 1
    return ""


def _check_senders(folder: Path, enrolled: dict[str, str], found: Findings) -> None:
    """Who was told to have joined is in the table."""
    try:
        rows = json.loads((folder / "senders.json").read_bytes())["rows"]
    except (OSError, ValueError) as error:
        if enrolled:
            found.violations.append(f".state/senders.json: cannot be read: {error}")
        rows = []
    known = {row["name"]: row["fingerprint"] for row in rows if row["revoked"] is None}
    for name, fingerprint in enrolled.items():
        found.figures["enrolments held"] += 1
        if known.get(name) != fingerprint:
            found.violations.append(f"sender {name}: had joined, and is not enrolled")
    found.violations += [f".state/{path.name}: was left behind" for path in folder.glob(".*.tmp")]


def _strays(root: Path) -> Iterator[str]:
    """Yield what lies among the streams and belongs to none that is listed."""
    for folder in sorted(root.iterdir()):
        if folder.name.startswith(".") or not folder.is_dir():
            continue
        names = {str(path.relative_to(root)) for path in folder.rglob("@*")}
        for name in sorted(names):
            stem = name.removesuffix(".json").removesuffix(".sha256")
            if not {stem, f"{stem}.json", f"{stem}.sha256"} <= names:
                yield f"{name}: one of the three files of a stream, and not all are there"
