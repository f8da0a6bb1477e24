"""The identity of a send stream, concluded from its BEGIN records: dataset, snapshot, GUIDs, kind, class, flags.

Each side concludes it from the bytes. The name of a stream in the store never depends on a peer's word.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
from collections import defaultdict
from dataclasses import dataclass
from typing import Final, Literal

from fullsend_protocol.shared.errors import DamagedStream, IncompleteStream, UnsupportedStream
from fullsend_protocol.stream import nvlist
from fullsend_protocol.stream.records import Begin, Feature

StreamClass = Literal["plain", "raw", "redacted"]

#: Letters of `flags` and the features that show them (docs/format.md, section 2). p and r are found otherwise.
LETTERS: Final = (
    ("L", Feature.LARGE_BLOCKS),
    ("e", Feature.EMBED_DATA),
    ("c", Feature.COMPRESSED),
    ("w", Feature.RAW),
)
_FEATURE_BITS: Final = 62  # versioninfo is 64 bits, two of which are the header type


@dataclass(frozen=True, slots=True)
class Facts:
    """The identity of a stream. GUIDs as in BEGIN records; `base_guid` None: a full. For a package, all fields but
    `substreams`, `flags` and `features` are about its top dataset. `created`: seconds since 1970. `ivset_guid`,
    `base_ivset_guid`: the IV sets of the snapshot and of its base (see `records.ivset_guids`), None: not known.
    """

    dataset: str
    snapshot: str
    guid: int
    base_guid: int | None
    kind: Literal["full", "incremental", "package"]
    dataset_type: Literal["filesystem", "volume"]
    stream_class: StreamClass
    flags: str
    features: tuple[str, ...]
    created: int
    substreams: tuple[Begin, ...]
    ivset_guid: int | None = None
    base_ivset_guid: int | None = None


def class_of(flags: str) -> StreamClass:
    """Return the class of a stream with these flags: r is redacted, else w is raw, else plain."""
    return "redacted" if "r" in flags else "raw" if "w" in flags else "plain"


def conclude(begins: list[Begin]) -> Facts:
    """Return the identity of a stream with these BEGIN records.

    For a compound stream that has not been walked to its end, the result is about the part that has arrived.

    Raises: UnsupportedStream (a resumed stream), DamagedStream (impossible names or GUIDs), IncompleteStream
    (no substream yet).
    """
    outer = begins[0] if begins and begins[0].compound else None
    substreams = begins[1:] if outer else begins
    for begin in substreams:
        if begin.has(Feature.RESUMING):
            msg = (
                f"{begin.name} is a resumed stream (zfs send -t): it lacks what was sent before, so it is not a backup;"
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
    flags = "".join(letter for letter, feature in LETTERS if features >> feature & 1)
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
        dataset_type="volume" if last.volume else "filesystem",
        stream_class="redacted" if redacted else "raw" if features >> Feature.RAW & 1 else "plain",
        flags=flags,
        features=feature_words(features),
        created=last.created,
        substreams=tuple(substreams),
        ivset_guid=last.ivset_guid,
        base_ivset_guid=first.base_ivset_guid,
    )


def check_package(begins: list[Begin]) -> None:
    """Compare a compound stream, walked to its end, with its outer BEGIN: the name, and the nvlist if there is one.

    `zfs send` also closes a package after an error, and on stdin its exit code is not visible. So this check decides
    whether a package is whole. In every package the substreams of a dataset follow each other without a gap. Those of
    the top dataset end with the snapshot after which the package is named. The nvlist (-R, -p) names all snapshots of
    each dataset:

    - Without `fromsnap`, all of them must have arrived.
    - With `fromsnap` (-R -i, -R -I, -p -I) it also names older ones, and some that are left out on purpose. Then the
      dataset's newest (`tosnap`) must have arrived. Its first substream must begin at `fromsnap`, or if the dataset
      has no such snapshot, at its origin, if it is a clone, or at nothing.

    The nvlist also names an excluded dataset (`zfs send -R -X`). It cannot be told from a lost one, and is refused. A
    skipped one (-s) is not named.

    Raises: IncompleteStream, naming the snapshot.
    """
    if not begins or not begins[0].compound:
        return
    outer = begins[0]
    arrived: dict[str, list[Begin]] = defaultdict(list)
    for begin in begins[1:]:
        arrived[split_name(begin.name)[0]].append(begin)
    for substreams in arrived.values():
        for before, after in itertools.pairwise(substreams):
            if after.base_guid != before.guid:
                msg = f"the package has a gap: {after.name} does not follow {before.name}"
                raise IncompleteStream(msg)
    top = arrived.get(split_name(outer.name)[0])
    if not top or top[-1].name != outer.name:
        msg = f"the package ends without {outer.name}, after which it is named: its `zfs send` failed"
        raise IncompleteStream(msg)
    header = nvlist.decode(outer.payload)
    for file_system in _lists(header, "fss"):
        name = str(file_system.get("name"))
        _check_dataset(name, arrived.get(name, []), file_system, header)


def _check_dataset(name: str, substreams: list[Begin], file_system: nvlist.NvList, header: nvlist.NvList) -> None:
    """Compare a dataset's substreams with its entry in the nvlist."""
    tosnap, fromsnap = header.get("tosnap"), header.get("fromsnap")
    named = file_system.get("snaps")
    named = named if isinstance(named, dict) else {}
    arrived = {begin.guid for begin in substreams}
    for snapshot, guid in named.items():
        if not (isinstance(guid, int) and guid in arrived) and (fromsnap is None or snapshot == tosnap):
            msg = (
                f"the package names {name}@{snapshot}, which did not arrive: `zfs send` failed before it, or the"
                " dataset was excluded (-X), which cannot be told apart; send such datasets one by one"
            )
            raise IncompleteStream(msg)
    if fromsnap is not None and substreams:
        first = substreams[0]
        if first.base_guid != named.get(str(fromsnap), file_system.get("origin", 0)):
            msg = f"the package has a gap: {first.name} is the first of its dataset, and does not follow @{fromsnap}"
            raise IncompleteStream(msg)


def package_datasets(payload: bytes) -> frozenset[str]:
    """Return the datasets of which a package has snapshots, beside the one after which it is named. `payload`: the
    nvlist of its outer BEGIN, b"": it has snapshots of one dataset only. The package was whole: see `check_package`.

    Raises: DamagedStream.
    """
    header = nvlist.decode(payload)
    needed = str(header.get("tosnap")) if "fromsnap" in header else None
    found = set()
    for file_system in _lists(header, "fss"):
        named = file_system.get("snaps")
        if isinstance(named, dict) and named and (needed is None or needed in named):
            found.add(str(file_system.get("name")))
    return frozenset(found)


def _lists(header: nvlist.NvList, key: str) -> list[nvlist.NvList]:
    """Return the lists that are the values of the list under `key`."""
    outer = header.get(key)
    return [inner for inner in outer.values() if isinstance(inner, dict)] if isinstance(outer, dict) else []


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
    """Split DATASET@SNAPSHOT. Raises: DamagedStream if the name cannot be stored."""
    dataset, at, snapshot = name.partition("@")
    if not at or not snapshot or "@" in snapshot or "/" in snapshot or not all(dataset.split("/")):
        msg = f"BEGIN record with the name {name!r}, which is not DATASET@SNAPSHOT"
        raise DamagedStream(msg)
    return dataset, snapshot


def _redact_snaps(begin: Begin) -> tuple[int, ...]:
    """Return the GUIDs of the snapshots a stream is redacted with respect to (BEGINNV_REDACT_SNAPS)."""
    if not begin.has(Feature.REDACTED):
        return ()
    value = nvlist.decode(begin.payload).get("redact_snaps", ())
    return value if isinstance(value, tuple) else ()
