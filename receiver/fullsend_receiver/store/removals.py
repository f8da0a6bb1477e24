"""Removes stored streams, for good or into the trash, and brings them back from there.

All of it is logged before its first step in STORE/.state/removing.json, so that a restart completes it:

    {"format": 1, "streams": [{"file": relative to the store, "manifest": [inode, time of writing in ns, size]}, ...]}
    {"format": 2, "back": false, "streams": [{"file", "manifest", "trash": name of a folder in the trash}, ...]}

Format 1: the streams are deleted. Format 2: they are moved into the trash, or `back` from there. A version that does
not know the trash leaves a log of format 2, and deletes nothing.

A stream that is removed loses its manifest first, then its `.sha256`, then its `.zst`. Each step is durable before the
next. While its `.zst` exists, no other stream is committed under its name; after that there is nothing left to remove.
If its `.zst` was lost before, its manifest is removed last. A stream that is brought back gets its manifest last.

A full disk is no obstacle. The log is written into a file whose space is reserved in advance, and is renamed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from fullsend_protocol.format.names import HASH_SUFFIX, MANIFEST_SUFFIX, is_stream, manifest_of
from fullsend_receiver.store.api import Stamp, TrashedStream
from fullsend_receiver.store.durable import (
    ABSENT,
    FULL,
    folders_below,
    locked,
    make_folders,
    replace_file,
    signature,
    size_of,
    sync_folder,
    write_all,
)
from fullsend_receiver.store.errors import StoreError, StoreFull
from fullsend_receiver.store.folders import make_folder
from fullsend_receiver.store.journal import Superseded
from fullsend_receiver.store.partials import committing

if TYPE_CHECKING:
    from fullsend_receiver.store.layout import Layout

log = logging.getLogger("fullsendd")

_REMOVING: Final = "removing.json"
#: The file that becomes the log, and its size: some 200 streams, and always one.
_SPARE: Final = "removing.spare"
_SPARE_SIZE: Final = 64 << 10
_DELETE, _TRASH = 1, 2


@dataclass(frozen=True, slots=True)
class _Entry:
    """A logged stream. `manifest`: its stamp when it was chosen; `trash`: its folder in the trash, None: none."""

    file: PurePosixPath
    manifest: Stamp
    trash: str | None

    def to_row(self) -> dict[str, Any]:
        row = {"file": str(self.file), "manifest": self.manifest}
        return row if self.trash is None else row | {"trash": self.trash}


@dataclass(frozen=True, slots=True)
class _Log:
    """What is being done with which streams, in this order."""

    entries: list[_Entry]
    back: bool = False

    def is_pending(self, store: Layout) -> bool:
        """Whether one of these streams is still stored, and will be removed."""
        return not self.back and any(stamp(store, each.file) == each.manifest for each in self.entries)

    def encode(self) -> bytes:
        to_trash = any(each.trash is not None for each in self.entries)
        head: dict[str, Any] = {"format": _TRASH, "back": self.back} if to_trash else {"format": _DELETE}
        return json.dumps(head | {"streams": [each.to_row() for each in self.entries]}, indent=1).encode() + b"\n"


def stamp(store: Layout, file: PurePosixPath) -> Stamp | None:
    """Return the identity of a file's manifest. See `Store.stamp`."""
    found = signature(store.manifest_path(file))
    return None if found == ABSENT else found


def remove(
    store: Layout, choose: Callable[[], Iterable[PurePosixPath]], *, trash: str | None = None
) -> list[PurePosixPath]:
    """Remove what `choose` returns. See `Store.remove`."""
    with locked(store.lock):
        _complete(store)
        chosen = dict.fromkeys(choose())
        found = [_Entry(file, there, trash) for file in chosen if (there := stamp(store, file)) is not None]
        if trash is not None:
            for each in found:  # before the log: then no step of the removal needs room
                make_folders((store.trash_folder / trash / each.file).parent, 0o700)
        done = _do(store, found)
        with contextlib.suppress(OSError):  # a full disk: the next removal may have room for it
            make_spare(store)
        return done


def choose_superseded(store: Layout, choose: Callable[[], Iterable[PurePosixPath]], trash: str | None) -> Superseded:
    """Return, for the journal, what `choose` returns: the streams that a commit removes once it is in place. The caller
    holds the store's lock. Afterwards no step of their removal needs room. Raises: StoreError, OSError, and what
    `choose` raises.
    """
    _complete(store)
    streams = []
    for file in dict.fromkeys(choose()):
        streams.append((file, hashlib.sha256(store.manifest_path(file).read_bytes()).hexdigest()))
        if trash is not None:
            make_folders((store.trash_folder / trash / file).parent, 0o700)
    make_spare(store)
    return Superseded(tuple(streams), trash)


def finish_superseding(store: Layout, superseded: Superseded) -> None:
    """Remove the streams that a commit has superseded, those that are still the ones which were chosen. May be repeated
    after a crash at any point. The caller holds the store's lock. Raises: StoreError, OSError.
    """
    _complete(store)
    entries = []
    for file, manifest in superseded.streams:
        with contextlib.suppress(FileNotFoundError):  # an earlier process has removed it
            there = signature(store.manifest_path(file))
            if hashlib.sha256(store.manifest_path(file).read_bytes()).hexdigest() == manifest:
                entries.append(_Entry(file, there, superseded.trash))
    _do(store, entries)
    with contextlib.suppress(OSError):  # a full disk: the next removal may have room for it
        make_spare(store)


def bring_back(store: Layout, choose: Callable[[], Iterable[TrashedStream]]) -> list[PurePosixPath]:
    """Move what `choose` returns back from the trash. See `Store.bring_back`."""
    with locked(store.lock):
        _complete(store)
        entries = []
        for each in choose():
            kept = signature(store.trash_folder / each.folder / manifest_of(str(each.file)))
            if kept != ABSENT:
                entries.append(_Entry(each.file, kept, each.folder))
        done = _do(store, entries, back=True)
        _prune_folders(store.trash_folder)
        return done


def trashed(store: Layout) -> Iterator[TrashedStream]:
    """Yield the whole streams in the trash. See `Store.trashed`."""
    for name in _trash_folders(store):
        top = store.trash_folder / name
        for folder, files in folders_below(top):
            there = set(files)
            for each in sorted(files):
                if is_stream(each) and manifest_of(each) in there:
                    path = folder / each
                    with contextlib.suppress(FileNotFoundError):  # is brought back, or deleted
                        yield TrashedStream(name, PurePosixPath(path.relative_to(top)), path.stat().st_size)


def trash_bytes(store: Layout) -> int:
    """Return the bytes of all files in the trash. See `Store.trash_bytes`."""
    return sum(
        size_of(folder / each)
        for name in _trash_folders(store)
        for folder, files in folders_below(store.trash_folder / name)
        for each in files
    )


def empty_trash(store: Layout, old: Callable[[str], bool]) -> list[str]:
    """Delete folders of the trash. See `Store.empty_trash`."""
    with locked(store.lock):
        gone: list[str] = []
        failed: OSError | None = None
        try:
            _complete(store)
            said = _logged(store)
        except StoreError as error:  # which folders it needs is unknown
            log.error("%s", error)  # noqa: TRY400 - where it was found says nothing
            return gone
        except OSError as error:
            failed, said = error, _logged(store)
        needed = {each.trash for each in said.entries} if said is not None else set()
        for name in [name for name in _trash_folders(store) if name not in needed and old(name)]:
            try:
                # No log: what a dead process has left of a folder goes with the next call, and needs no room on the
                # disk.
                shutil.rmtree(store.trash_folder / name)
            except OSError as error:
                failed = failed or error
            else:
                gone.append(name)
        if gone:
            sync_folder(store.trash_folder)
        if failed is not None:
            raise failed
        return gone


def wait_for_removals(store: Layout) -> None:
    """Wait until each removal that began before this call is done, or do it. See `Store.wait_for_removals`."""
    with locked(store.lock):
        try:
            _complete(store)
        except StoreError as error:
            log.error("%s", error)  # noqa: TRY400 - where it was found says nothing
        except OSError as error:
            said = _logged(store)
            if said is not None and said.is_pending(store):
                raise  # who finds one of these streams now must not count on it
            log.error("a removal was interrupted, and cannot be completed: %s", error)  # noqa: TRY400 - the same


def under_way(store: Layout) -> set[PurePosixPath]:
    """Return the files that are being put in place or removed. See `Store.under_way`."""
    logged: Iterable[PurePosixPath] = ()
    try:
        said = _logged(store)
        logged = [each.file for each in said.entries] if said is not None else ()
    except StoreError as error:
        log.error("%s", error)  # noqa: TRY400 - where it was found says nothing
    return committing(store).union(logged)


def finish_removals(store: Layout) -> list[str]:
    """Complete an interrupted removal or return, and make the log's place on the disk if that is missing.

    Returns: a line for each removed stream. Raises: OSError.
    """
    with locked(store.lock):
        said: list[str] = []
        try:
            said = _lines(_finish(store))
        except StoreError as error:
            log.error("%s", error)  # noqa: TRY400 - where it was found says nothing
        try:
            make_spare(store)
        except OSError as error:
            if error.errno not in FULL:
                raise
            log.warning("%s: has no room for the log of the next removal: %s", store.root, error.strerror)
        return said


def make_spare(store: Layout) -> None:
    """Make the file that becomes the log, unless it exists. The caller holds the store's lock. Raises: OSError."""
    path = store.state / _SPARE
    if signature(path)[-1] != _SPARE_SIZE:
        replace_file(path, b"\n" * _SPARE_SIZE)


# --- the log ------------------------------------------------------------------------------------------------------


def _do(store: Layout, entries: list[_Entry], *, back: bool = False) -> list[PurePosixPath]:
    """Log what is to be done with streams, and do it, in as many rounds as the log needs. Returns: those done."""
    done: list[PurePosixPath] = []
    for part in _rounds(entries):
        _write(store, _Log(part, back))
        done += [file for file, _what in _finish(store)]
    return done


def _rounds(entries: list[_Entry]) -> Iterator[list[_Entry]]:
    part: list[_Entry] = []
    size = 0
    for each in entries:
        more = len(_Log([each]).encode())
        if part and size + more > _SPARE_SIZE:
            yield part
            part, size = [], 0
        part.append(each)
        size += more
    if part:
        yield part


def _write(store: Layout, said: _Log) -> None:
    """Write the log durably: into the spare file, which no full disk prevents. Raises: StoreFull, OSError."""
    data, path, spare = said.encode(), store.state / _REMOVING, store.state / _SPARE
    if signature(spare)[-1] == _SPARE_SIZE >= len(data):
        descriptor = os.open(spare, os.O_WRONLY | os.O_CLOEXEC)
        try:
            write_all(descriptor, data.ljust(_SPARE_SIZE, b"\n"))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        spare.replace(path)
        sync_folder(store.state)
        return
    try:
        replace_file(path, data)
    except OSError as error:
        if error.errno not in FULL:
            raise
        msg = (
            f"{store.root}: is full ({error.strerror}), and has no room even for the log of a removal: delete a file"
            f" that is not part of the store, or what waits in {store.partial}, then try again"
        )
        raise StoreFull(msg) from None


def _clear(store: Layout) -> None:
    """Remove the log, or make it the spare file again."""
    path, spare = store.state / _REMOVING, store.state / _SPARE
    # Both exist if another version wrote the log, or the file has both names after a power cut.
    if signature(path)[-1] == _SPARE_SIZE and not spare.exists():
        path.replace(spare)
    else:
        path.unlink()
    sync_folder(store.state)


def _logged(store: Layout) -> _Log | None:
    """Return the content of the log; None: there is none.

    Raises: StoreError if this version does not understand the log, which then stays for a version that does; OSError.
    """
    path = store.state / _REMOVING
    try:
        said: Any = json.loads(path.read_bytes())
        if said["format"] in {_DELETE, _TRASH}:
            to_trash = said["format"] == _TRASH
            return _Log([_entry(row, to_trash=to_trash) for row in said["streams"]], to_trash and said["back"] is True)
        why = f"it has format {said['format']!r}"
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        why = f"{type(error).__name__}: {error}"
    msg = f"{path}: is not in the form that this version of fullsendd writes, so nothing is removed: {why}"
    raise StoreError(msg)


def _entry(row: Mapping[str, Any], *, to_trash: bool) -> _Entry:
    said, trash = row["manifest"], row["trash"] if to_trash else None
    if not isinstance(said, list) or not all(type(each) is int for each in said):
        msg = f"{said!r} is not a stamp"
        raise TypeError(msg)
    if to_trash and (not isinstance(trash, str) or trash in {"", ".", ".."} or "/" in trash):
        msg = f"{trash!r} is not a folder in the trash"
        raise TypeError(msg)
    return _Entry(PurePosixPath(row["file"]), tuple(said), trash)


# --- the steps ----------------------------------------------------------------------------------------------------


def _complete(store: Layout) -> None:
    """Complete what a dead process has begun, if anything, and log it. The caller holds the store's lock. Raises: as
    `_finish`.
    """
    for line in _lines(_finish(store)):
        log.warning("%s", line)


def _lines(done: Iterable[tuple[PurePosixPath, str]]) -> list[str]:
    return [f"{file}: its {what} was interrupted and is complete now" for file, what in done]


def _finish(store: Layout) -> list[tuple[PurePosixPath, str]]:
    """Do what the log says. The caller holds the store's lock. Returns: the streams of which that is done, each with
    what was done. Raises: StoreError, OSError.
    """
    said = _logged(store)
    if said is None:
        return []
    if said.back:
        done = [(each.file, "return from the trash") for each in _return(store, said.entries)]
    else:
        done = [(each.file, "removal") for each in _take_away(store, said.entries)]
    _clear(store)
    return done


def _take_away(store: Layout, entries: list[_Entry]) -> list[_Entry]:
    """Delete streams, or move them into the trash. Returns: those that were there still."""
    # In this order: a `.zst` that was there before the journals were read is that of a commit that they tell of, of one
    # that has ended by now, which the stamp shows, or the one to remove; and while it is there, no commit begins.
    there = {each for each in entries if (store.root / each.file).exists()}
    commits = committing(store)
    whole, bare = [], []
    for each in entries:
        found = stamp(store, each.file)
        if each in there and each.file not in commits and found in {None, each.manifest}:
            whole.append(each)
        elif each not in there and found == each.manifest:
            bare.append(each)
    # The file that keeps other streams from this name comes last.
    manifests = [store.manifest_path(each.file) for each in whole]
    hashes = [store.hash_path(each.file) for each in whole + bare]
    last = [store.root / each.file for each in whole] + [store.manifest_path(each.file) for each in bare]
    if any(each.trash is not None for each in entries):
        _into_trash(store, whole + bare, (manifests, hashes, last))
    else:
        try:
            for paths in (manifests, hashes, last):
                _unlink(paths)
        except OSError:
            _give_up(store, entries)
            raise
    return whole + bare


def _give_up(store: Layout, entries: list[_Entry]) -> None:
    """Keep, in the log, only those of these streams that have lost their manifests. The others stay. Otherwise no
    removal could begin before this one is possible, and none of them could be a base.
    """
    begun = [each for each in entries if stamp(store, each.file) is None]
    with contextlib.suppress(OSError):  # of the disk, or no room: the first error tells more
        if begun:
            _write(store, _Log(begun))
        else:
            _clear(store)


def _into_trash(store: Layout, entries: list[_Entry], steps: Iterable[list[Path]]) -> None:
    """Move the files of these streams, step by step. If that fails, move back what was moved. Raises: OSError."""
    by_folder = {each.file: store.trash_folder / str(each.trash) for each in entries}

    def target(path: Path) -> Path:
        relative = PurePosixPath(path.relative_to(store.root))
        stream = relative.with_name(relative.name.removesuffix(MANIFEST_SUFFIX).removesuffix(HASH_SUFFIX))
        return by_folder[stream] / relative

    try:
        for each in entries:
            make_folders((by_folder[each.file] / each.file).parent, 0o700)
        for paths in steps:
            _move([(path, target(path)) for path in paths])
    except OSError:
        # Otherwise no removal could begin before this one is possible, not even one that makes room.
        _return(store, entries)
        _clear(store)
        raise


def _return(store: Layout, entries: list[_Entry]) -> list[_Entry]:
    """Move streams back from the trash, unless their names are taken. Returns: those that are in place now."""
    commits = committing(store)
    coming = []
    for each in entries:
        kept, target = store.trash_folder / str(each.trash) / each.file, store.root / each.file
        stored = store.manifest_path(each.file).exists()
        taken = target.exists() and (each.file in commits or (kept.exists() and not _is_same(kept, target)))
        if not stored and not taken and (kept.exists() or target.exists()):
            make_folder(store, target.parent)
            coming.append((each, store.trash_folder / str(each.trash)))
    _move([(top / each.file, store.root / each.file) for each, top in coming])
    _move([(_beside(top, store.hash_path(each.file), store), store.hash_path(each.file)) for each, top in coming])
    _move(
        [(_beside(top, store.manifest_path(each.file), store), store.manifest_path(each.file)) for each, top in coming]
    )
    return [each for each in entries if stamp(store, each.file) == each.manifest]


def _beside(top: Path, path: Path, store: Layout) -> Path:
    return top / path.relative_to(store.root)


def _move(moves: list[tuple[Path, Path]]) -> None:
    """Rename files, all durably before this returns. Those that an earlier process has moved are left."""
    for source, target in moves:
        with contextlib.suppress(FileNotFoundError):
            if _is_same(source, target):  # after a power cut; a rename would do nothing
                source.unlink()
            else:
                source.replace(target)
    # The new names first: until they are durable, the old ones must be there after a power cut.
    for folder in dict.fromkeys([*(target.parent for _, target in moves), *(source.parent for source, _ in moves)]):
        with contextlib.suppress(FileNotFoundError):  # another program has removed the folder
            sync_folder(folder)


def _is_same(one: Path, other: Path) -> bool:
    """Whether these are two names of one file."""
    there = signature(one)
    return there != ABSENT and there == signature(other)


def _unlink(paths: list[Path]) -> None:
    """Remove files, all durably before this returns."""
    for path in paths:
        path.unlink(missing_ok=True)
    for folder in dict.fromkeys(path.parent for path in paths):
        with contextlib.suppress(FileNotFoundError):  # another program has removed the folder, too
            sync_folder(folder)


# --- the trash ----------------------------------------------------------------------------------------------------


def _trash_folders(store: Layout) -> list[str]:
    try:
        return sorted(path.name for path in store.trash_folder.iterdir())
    except FileNotFoundError:
        return []


def _prune_folders(top: Path) -> None:
    """Remove the empty folders below `top`."""
    for folder, _folders, _files in os.walk(top, topdown=False):
        if Path(folder) != top:
            with contextlib.suppress(OSError):  # is not empty
                os.rmdir(folder)
