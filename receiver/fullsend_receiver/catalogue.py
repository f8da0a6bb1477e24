"""What is stored: the manifests, read from the folders, and what follows from them together.

The manifests are the truth and there is no database. A chain is walked by base GUID, never by name, folder or order
(design section 2): a dataset may have been renamed, and after a rollback chains branch.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from pydantic import ValidationError

from fullsend_protocol.errors import ErrorCode, FullsendError
from fullsend_protocol.invitation import is_sender_name
from fullsend_protocol.manifest import Manifest, Receipt, StreamEntry
from fullsend_receiver.names import MANIFEST_SUFFIX, STREAM_SUFFIX
from fullsend_receiver.scrublog import ScrubLog
from fullsend_receiver.store import Store

#: Candidates named in the error for an ambiguous STREAM.
_CANDIDATES_NAMED: Final = 5


class NoSuchStream(FullsendError):  # noqa: N818 - reads as a noun
    """Nothing stored fits what was asked for."""

    code = ErrorCode.NOT_FOUND


class AmbiguousStream(FullsendError):  # noqa: N818 - reads as a noun
    """Several stored streams fit what was asked for."""

    code = ErrorCode.AMBIGUOUS


@dataclass(frozen=True, slots=True)
class Stored:
    """One stored stream. `file`: its `.zst`, relative to the store."""

    file: PurePosixPath
    manifest: Manifest


@dataclass(slots=True)
class Catalogue:
    """The streams of one sender, or of all, at the moment of reading.

    `streams`: in order of sender, dataset, creation. `problems`: what lies in the folders and is no whole stream, a
    line each: manifests that cannot be read, data without manifest.
    """

    store: Store
    streams: list[Stored]
    problems: list[str]
    scrubbed: ScrubLog
    _by_guid: dict[tuple[str, str], list[Stored]] = field(init=False)
    _by_base: dict[tuple[str, str], list[Stored]] = field(init=False)
    _restorable: dict[PurePosixPath, bool] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Build the ways to find a stream."""
        self.streams.sort(key=lambda each: (each.manifest.sender, each.manifest.dataset, each.manifest.created))
        self._by_guid = defaultdict(list)
        self._by_base = defaultdict(list)
        for stored in self.streams:
            self._by_guid[stored.manifest.sender, stored.manifest.guid].append(stored)
            if stored.manifest.base_guid is not None:
                self._by_base[stored.manifest.sender, stored.manifest.base_guid].append(stored)

    def select(self, sender: str | None, dataset: str | None) -> list[Stored]:
        """Return the streams of a sender and dataset; None: of all."""
        return [
            stored
            for stored in self.streams
            if sender in {None, stored.manifest.sender} and dataset in {None, stored.manifest.dataset}
        ]

    def find(self, sender: str, what: str) -> Stored:
        """Return the one stream of a sender that `what` names: a file name, DATASET@SNAPSHOT, or guid:N.

        Raises: NoSuchStream, AmbiguousStream (naming the candidates).
        """
        mine = self.select(sender, None)
        if what.endswith(STREAM_SUFFIX):
            found = [each for each in mine if what in {str(each.file), each.file.name}]
            if found:
                return _only(found, what)
        if what.startswith("guid:"):
            found = [each for each in mine if each.manifest.guid == what.removeprefix("guid:")]
        else:
            found = [each for each in mine if f"{each.manifest.dataset}@{each.manifest.snapshot}" == what]
        return _only(found, what)

    def bases(self, stored: Stored) -> list[Stored]:
        """Return the stored streams that `stored` can follow on: same class, the base's GUID, and large blocks in
        the base's chain only if in its own (ZFS refuses to go back from -L).
        """
        manifest = stored.manifest
        if manifest.base_guid is None:
            return []
        return [
            base
            for base in self._by_guid[manifest.sender, manifest.base_guid]
            if base.manifest.stream_class == manifest.stream_class
            and ("L" in manifest.flags or "L" not in base.manifest.flags)
        ]

    def dependents(self, stored: Stored) -> list[Stored]:
        """Return the streams that build on this one, directly or not."""
        found: dict[PurePosixPath, Stored] = {}
        todo = [stored]
        while todo:
            here = todo.pop()
            for each in self._by_base[here.manifest.sender, here.manifest.guid]:
                if each.file not in found and here in self.bases(each):
                    found[each.file] = each
                    todo.append(each)
        return list(found.values())

    def restorable(self, stored: Stored) -> bool:
        """Whether this stream and, by some way, its bases back to a full are there and not known to be damaged."""
        path: list[Stored] = []
        known = self._restorable

        # Depth first with an explicit stack: a chain may be thousands of streams long. A circle of GUIDs, which
        # only a forged stream can make, is not restorable.
        todo = [stored]
        while todo:
            here = todo[-1]
            if here.file in known:
                todo.pop()
                continue
            if not self._whole(here):
                known[here.file] = False
                continue
            if here.manifest.base_guid is None:
                known[here.file] = True
                continue
            bases = self.bases(here)
            if any(known.get(base.file) for base in bases):
                known[here.file] = True
                continue
            fresh = [base for base in bases if base.file not in known and base not in path]
            if not fresh:
                known[here.file] = False
                continue
            path.append(here)
            todo.extend(fresh)
        return known[stored.file]

    def entry(self, stored: Stored) -> StreamEntry:
        """Return what `list` says of a stream."""
        manifest = stored.manifest
        scrub = self.scrubbed.get(str(stored.file))
        bases = self.bases(stored)
        return StreamEntry(
            sender=manifest.sender,
            dataset=manifest.dataset,
            snapshot=manifest.snapshot,
            guid=manifest.guid,
            kind=manifest.kind,
            flags=manifest.flags,
            base=f"{bases[0].manifest.dataset}@{bases[0].manifest.snapshot}" if bases else None,
            base_guid=manifest.base_guid,
            created=manifest.created,
            received=manifest.received,
            raw_bytes=manifest.raw_bytes,
            stored_bytes=manifest.stored_bytes,
            sha256=manifest.sha256 or (scrub.sha256 if scrub else None),
            file=str(stored.file),
            verified=scrub.at if scrub and not scrub.damage else None,
            damaged=scrub.damage[0] if scrub and scrub.damage else None,
            restorable=self.restorable(stored),
        )

    def receipt(self, stored: Stored) -> Receipt:
        """Return the receipt of a stream."""
        entry = self.entry(stored)
        return Receipt(
            **{name: getattr(entry, name) for name in Receipt.model_fields if name != "file_sha256"},
            file_sha256=stored.manifest.file_sha256,
        )

    def _whole(self, stored: Stored) -> bool:
        scrub = self.scrubbed.get(str(stored.file))
        if scrub and scrub.damage:
            return False
        try:
            return (self.store.root / stored.file).stat().st_size == stored.manifest.stored_bytes
        except OSError:
            return False


def read_catalogue(store: Store, sender: str | None = None) -> Catalogue:
    """Read the manifests of one sender, or of all. Blocks on the disk."""
    streams: list[Stored] = []
    problems: list[str] = []
    senders = [sender] if sender is not None else sorted(_sender_folders(store))
    for name in senders:
        files = set(_files(store.root / name))
        for path in sorted(files):
            if path.endswith(STREAM_SUFFIX + MANIFEST_SUFFIX):
                data = PurePosixPath(path.removesuffix(MANIFEST_SUFFIX)).relative_to(store.root)
                try:
                    streams.append(Stored(data, Manifest.model_validate_json(Path(path).read_bytes())))
                except (OSError, ValidationError) as error:
                    problems.append(f"{data}{MANIFEST_SUFFIX}: cannot be read: {str(error).splitlines()[0]}")
            elif path.endswith(STREAM_SUFFIX) and path + MANIFEST_SUFFIX not in files:
                data = PurePosixPath(path).relative_to(store.root)
                problems.append(f"{data}: has no manifest; `fullsendd verify` makes one if the stream is whole")
    return Catalogue(store, streams, problems, ScrubLog(store))


def files_without_manifest(store: Store, sender: str | None = None) -> list[PurePosixPath]:
    """Return the `.zst` files that no manifest speaks for, relative to the store."""
    senders = [sender] if sender is not None else sorted(_sender_folders(store))
    found = []
    for name in senders:
        files = set(_files(store.root / name))
        found += [path for path in files if path.endswith(STREAM_SUFFIX) and path + MANIFEST_SUFFIX not in files]
    return [PurePosixPath(path).relative_to(store.root) for path in sorted(found)]


def _sender_folders(store: Store) -> Iterator[str]:
    with os.scandir(store.root) as entries:
        yield from (entry.name for entry in entries if is_sender_name(entry.name) and entry.is_dir())


def _files(folder: Path) -> Iterator[str]:
    """Yield all stream files, manifests and hash files below a folder, as absolute paths."""
    todo = [str(folder)]
    while todo:
        try:
            with os.scandir(todo.pop()) as entries:
                for entry in entries:
                    if entry.name.startswith("@"):
                        yield entry.path
                    elif entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
        except FileNotFoundError:
            continue


def _only(found: list[Stored], what: str) -> Stored:
    if not found:
        msg = f"{what}: no such stream is stored (see `list`)"
        raise NoSuchStream(msg)
    if len(found) > 1:
        names = " ".join(each.file.name for each in found[:_CANDIDATES_NAMED])
        msg = f"{what}: {len(found)} streams fit; name one by its file: {names}"
        raise AmbiguousStream(msg)
    return found[0]
