"""What a send stream is, concluded from its BEGIN records: dataset, snapshot, GUIDs, kind, class, flags.

Both sides conclude for themselves, from the bytes: what a stream is called in the store never rests on a peer's word.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NoReturn

from fullsend_protocol import nvlist
from fullsend_protocol.errors import DamagedStream, IncompleteStream, UnsupportedStream
from fullsend_protocol.records import Begin, Feature

#: Letters of `flags` and the features that show them (design section 2); p and r are found otherwise.
_LETTERS: Final = (
    ("L", Feature.LARGE_BLOCKS),
    ("e", Feature.EMBED_DATA),
    ("c", Feature.COMPRESSED),
    ("w", Feature.RAW),
)
_FEATURE_BITS: Final = 62  # versioninfo is 64 bits, two of which are the header type


@dataclass(frozen=True, slots=True)
class Facts:
    """What a stream is. GUIDs as in BEGIN records; `base_guid` None: a full."""

    dataset: str
    snapshot: str
    guid: int
    base_guid: int | None
    kind: Literal["full", "incremental", "package"]
    stream_class: Literal["plain", "raw", "redacted"]
    flags: str
    features: tuple[str, ...]
    created: int
    substreams: tuple[Begin, ...]


def conclude(begins: list[Begin]) -> Facts:
    """Say what a stream with these BEGIN records is.

    For a compound stream that has not been walked to its end the answer is about what has come so far.

    Raises: UnsupportedStream (a resumed stream), DamagedStream (names or GUIDs that cannot be), IncompleteStream
    (no substream yet).
    """
    outer = begins[0] if begins and begins[0].compound else None
    substreams = begins[1:] if outer else begins
    for begin in substreams:
        if begin.has(Feature.RESUMING):
            msg = (
                f"{begin.name} is a resumed stream (zfs send -t): it lacks what was sent before, so it is no backup;"
                " send it whole"
            )
            raise UnsupportedStream(msg)
    if not substreams:
        msg = "a package without a single snapshot: nothing to back up"
        raise IncompleteStream(msg)
    dataset, snapshot = split_name((outer or substreams[0]).name)
    top = [begin for begin in substreams if split_name(begin.name)[0] == dataset] or substreams
    first, last = top[0], top[-1]
    base_guid = first.base_guid or None
    if len(substreams) > 1:
        kind: Literal["full", "incremental", "package"] = "package"
    else:
        kind = "incremental" if base_guid else "full"
    features = 0
    for begin in substreams:
        features |= begin.features
    redactions = [guid for begin in substreams for guid in _redact_snaps(begin)]
    redacted = bool(features >> Feature.REDACTED & 1)
    flags = "".join(letter for letter, feature in _LETTERS if features >> feature & 1)
    if outer is not None and outer.payload:
        flags += "p"
    if redacted:
        flags += "r" + hashlib.sha256(struct.pack(f">{len(redactions)}Q", *redactions)).hexdigest()[:8]
    return Facts(
        dataset=dataset,
        snapshot=snapshot,
        guid=last.guid,
        base_guid=base_guid,
        kind=kind,
        stream_class="redacted" if redacted else "raw" if features >> Feature.RAW & 1 else "plain",
        flags=flags,
        features=feature_words(features),
        created=last.created,
        substreams=tuple(substreams),
    )


def check_package(begins: list[Begin]) -> None:
    """Hold a compound stream, walked to its end, against what it says it holds.

    Seen on OpenZFS 2.4 (docs/verification.md): a send that fails half-way still writes the closing END, so a
    balanced package proves nothing. The nvlist of -R and -p names every snapshot of every dataset (`fss`). With
    `fromsnap` it also names older ones, and such as -i leaves out on purpose. So, for each dataset it names:

    - its newest snapshot (`tosnap`) must have arrived, as its last substream;
    - its substreams must follow on one another without a gap, from `fromsnap`, its origin, or nothing on;
    - without `fromsnap`, all of its snapshots must have arrived.

    A plain -I has no nvlist: there the last substream must be the snapshot that the package is named after.

    Raises: IncompleteStream, naming the snapshot.
    """
    if not begins or not begins[0].compound:
        return
    arrived: dict[str, list[Begin]] = defaultdict(list)
    for begin in begins[1:]:
        arrived[split_name(begin.name)[0]].append(begin)
    for substreams in arrived.values():
        for before, after in itertools.pairwise(substreams):
            if after.base_guid != before.guid:
                msg = f"the package has a gap: {after.name} does not follow on {before.name}"
                raise IncompleteStream(msg)
    top, tosnap = split_name(begins[0].name)
    if not arrived[top] or arrived[top][-1].name != begins[0].name:
        _refuse_missing(top, tosnap)
    header = nvlist.decode(begins[0].payload)
    file_systems = header.get("fss", {})
    for file_system in file_systems.values() if isinstance(file_systems, dict) else ():
        if isinstance(file_system, dict):
            _check_file_system(header, file_system, arrived)


def _check_file_system(header: nvlist.NvList, file_system: nvlist.NvList, arrived: Mapping[str, list[Begin]]) -> None:
    """Hold the substreams of one dataset against its entry in `fss`."""
    name, named = file_system.get("name"), file_system.get("snaps", {})
    if not isinstance(name, str) or not isinstance(named, dict):
        return
    substreams = arrived.get(name, [])
    guids = {begin.guid for begin in substreams}
    fromsnap, tosnap = header.get("fromsnap"), header.get("tosnap")
    for snapshot, guid in named.items():
        if (fromsnap is None or snapshot == tosnap) and guid not in guids:
            _refuse_missing(name, snapshot)
    start = named.get(str(fromsnap)) or file_system.get("origin") or 0
    # `-p` of a clone, and of an increment, names neither `fromsnap` nor all that it builds on.
    if fromsnap is not None and substreams and substreams[0].base_guid not in {0, start}:
        msg = f"the package has a gap: {substreams[0].name} does not follow on {name}@{fromsnap}"
        raise IncompleteStream(msg)


def _refuse_missing(dataset: str, snapshot: str) -> NoReturn:
    msg = (
        f"the package names {dataset}@{snapshot}, which did not arrive: its send failed half-way, or left datasets"
        " out (zfs send -X); exclude datasets by sending them one by one"
    )
    raise IncompleteStream(msg)


def feature_words(features: int) -> tuple[str, ...]:
    """Return feature flags as words, unknown ones by number: `("large_blocks", "bit_40")`."""
    words = []
    for bit in range(_FEATURE_BITS):
        if features >> bit & 1:
            try:
                words.append(Feature(bit).name.lower())
            except ValueError:
                words.append(f"bit_{bit}")
    return tuple(words)


def split_name(name: str) -> tuple[str, str]:
    """Split DATASET@SNAPSHOT. Raises: DamagedStream where it is none that could be stored under its name."""
    dataset, at, snapshot = name.partition("@")
    if not at or not snapshot or "@" in snapshot or "/" in snapshot or not all(dataset.split("/")):
        msg = f"BEGIN record with the name {name!r}, which is no DATASET@SNAPSHOT"
        raise DamagedStream(msg)
    return dataset, snapshot


def _redact_snaps(begin: Begin) -> tuple[int, ...]:
    """Return the GUIDs of the snapshots a stream is redacted with respect to (BEGINNV_REDACT_SNAPS)."""
    if not begin.has(Feature.REDACTED):
        return ()
    value = nvlist.decode(begin.payload).get("redact_snaps", ())
    return value if isinstance(value, tuple) else ()
