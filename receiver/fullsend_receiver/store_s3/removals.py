"""Removes stored streams of a bucket, for good or into the trash, and brings them back from there.

One object, `.state/removing`, says what is being done. It is only ever replaced by its ETag:

    idle       nothing
    choosing   a process chooses what to remove; no other one does. `merge`: the generation of the merge that chooses
    doing      what is chosen; any process completes it

A process that is stalled while it chooses keeps others waiting. After a while one of them replaces what it has written,
and it fails when it comes back. A merge has its choice in the line of its commit. So the one that waits completes that
commit before, or takes the merge's journal over, so that it cannot begin. A process that is stalled while it removes
can do no harm later: it replaces manifests only by the ETags that were logged, and deletes only objects whose keys are
never used again.

A stream in the trash keeps its bytes where they are. Its entry has its manifest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from fullsend_receiver.store.api import TrashedStream
from fullsend_receiver.store.errors import ManifestError, StoreError
from fullsend_receiver.store.locks import lock_end
from fullsend_receiver.store_s3 import keys, manifests, stream_index, versions
from fullsend_receiver.store_s3.bucket import Bucket, BucketError, Fetched
from fullsend_receiver.store_s3.manifests import ManifestObject

log = logging.getLogger("fullsendd")

_FORMAT: Final = 1
#: Seconds without a change after which a process that chooses counts as stalled. Only others' waiting depends on it.
PATIENCE: Final = 120.0
#: Seconds between two looks.
_STEP: Final = 0.05

#: Is called before a choice is ended, with the generation of the merge that chooses, None: it is not one. Completes the
#: commit of that merge, or keeps it from beginning. Raises: StoreError.
Stalled = Callable[[str | None], None]


@dataclass(frozen=True, slots=True)
class BucketTrashEntry:
    """A stream in the trash. `key`: of its entry; `content`: its manifest; `data`: key of its bytes."""

    key: str
    stream: TrashedStream
    content: dict[str, Any]
    data: str


class Turn:
    """The right to choose what is removed. It ends with the context of `turn`."""

    def __init__(self, bucket: Bucket, etag: str) -> None:
        """`etag`: of the object that says so."""
        self._bucket = bucket
        self._etag = etag
        self._kept = False

    def do(self, what: str, rows: list[dict[str, Any]]) -> list[PurePosixPath]:
        """Log what is to be done, and do it. Returns: the streams of which it is done. Raises: StoreError."""
        if not rows:
            return []
        said = {"state": "doing", "what": what, "streams": rows}
        etag = self._bucket.put(keys.REMOVING, _encode(said), if_match=self._etag) if self._etag else None
        if etag is None:
            msg = "another process has interrupted this removal, which took too long: try again"
            raise StoreError(msg)
        self._etag = etag
        done = _perform(self._bucket, said)
        # Another process may have completed it, and ended this turn.
        self._etag = self._bucket.put(keys.REMOVING, _encode({"state": "choosing"}), if_match=etag) or ""
        return done

    def keep(self) -> None:
        """Leave the end of this turn to a process that waits for it: the commit of its merge may have begun."""
        self._kept = True

    def end(self) -> None:
        """Let others choose, if what was logged is done."""
        if self._kept:
            return
        found = _read(self._bucket)
        if found is not None and found[0].etag == self._etag and found[1]["state"] == "choosing":
            self._bucket.put(keys.REMOVING, _encode({"state": "idle"}), if_match=self._etag)


@contextlib.contextmanager
def turn(bucket: Bucket, *, merge: str | None = None, patience: float = PATIENCE) -> Iterator[Turn]:
    """Wait until no other process removes, complete what a dead one had begun, and keep others from it inside this
    context. `merge`: the generation of the merge that commits in it; a turn that was kept for it goes on. Raises:
    StoreError.
    """
    mine = Turn(bucket, _claim(bucket, patience, merge))
    try:
        yield mine
    finally:
        mine.end()


def _claim(bucket: Bucket, patience: float, merge: str | None = None) -> str:
    while True:
        if merge is not None and (there := _read(bucket)) is not None and _merge_of(there[1]) == merge:
            return there[0].etag
        wait_for_removals(bucket, patience=patience)
        found = _read(bucket)
        if found is not None and found[1]["state"] != "idle":
            continue
        choosing = _encode({"state": "choosing"} | ({} if merge is None else {"merge": merge}))
        before = None if found is None else found[0].etag
        if (etag := bucket.put(keys.REMOVING, choosing, if_absent=found is None, if_match=before)) is not None:
            return etag


def wait_for_removals(bucket: Bucket, *, patience: float = PATIENCE, stalled: Stalled | None = None) -> None:
    """Wait until each removal that began before this call is done. See `Store.wait_for_removals`.

    One that is logged is completed. One that chooses for longer than `patience` seconds is ended, so that it removes
    nothing. `stalled`: None: that of a merge is not ended. Raises: StoreError.
    """
    first: str | None = None
    until = time.monotonic() + patience
    while True:
        found = _read(bucket)
        if found is not None and found[1]["state"] == "doing":
            _finish(bucket, *found)
            continue
        if found is None or found[1]["state"] == "idle" or first not in {None, found[0].etag}:
            return
        first = found[0].etag
        if time.monotonic() >= until and _end_choice(bucket, found, stalled):
            return
        time.sleep(_STEP)


def _end_choice(bucket: Bucket, found: tuple[Fetched, dict[str, Any]], stalled: Stalled | None) -> bool:
    """End a choice, so that nothing of it is removed. Returns: False if its process was faster, and has gone on."""
    merge = _merge_of(found[1])
    if stalled is not None:
        stalled(merge)
    elif merge is not None:
        msg = f"{bucket.where}: a merge has not ended its commit, and nothing is removed before that: try again later"
        raise StoreError(msg)
    return bucket.put(keys.REMOVING, _encode({"state": "idle"}), if_match=found[0].etag) is not None


def _merge_of(said: Mapping[str, Any]) -> str | None:
    """Return the generation of the merge that chooses; None: nothing chooses, or it is not a merge."""
    merge = said.get("merge")
    return None if merge is None else str(merge)


def finish_removals(bucket: Bucket, stalled: Stalled) -> list[str]:
    """Complete an interrupted removal or return. Returns: a line for each stream. Raises: StoreError."""
    found = _read(bucket)
    if found is None or found[1]["state"] == "idle":
        return []
    if found[1]["state"] == "choosing":  # nothing was removed; another process that is alive must choose anew
        try:
            _end_choice(bucket, found, stalled)
        except BucketError:
            raise
        except StoreError as error:  # a daemon starts all the same
            log.error("the commit of a merge cannot be completed: %s", error)  # noqa: TRY400 - a line for a person
        return []
    what = "return from the trash" if found[1]["what"] == "back" else "removal"
    return [f"{file}: its {what} was interrupted and is complete now" for file in _finish(bucket, *found)]


def being_removed(bucket: Bucket) -> set[PurePosixPath]:
    """Return the streams whose removal, or return, has begun. Raises: StoreError."""
    found = _read(bucket)
    if found is None or found[1]["state"] != "doing":
        return set()
    return {PurePosixPath(row["file"]) for row in found[1]["streams"]}


# --- what is chosen -----------------------------------------------------------------------------------------------


def rows_of(bucket: Bucket, files: Iterable[PurePosixPath], trash: str | None) -> list[dict[str, Any]]:
    """Return the log's rows for streams, those that are stored. A stream that is locked stays, and so do its bases: it
    is logged. Raises: StoreError.
    """
    rows = []
    has_locks: bool | None = None
    for file in dict.fromkeys(files):
        found = manifests.read(bucket, file)
        if found is not None and found.data is not None:
            has_locks = bucket.object_lock() is not None if has_locks is None else has_locks
            until = manifests.locked_until(bucket, file, found.data) if has_locks else None
            if until is not None:
                log.info("%s: stays: locked until %s", file, lock_end(until))
                break  # what comes behind it may be what it builds on
            rows.append({"file": str(file), "etag": found.etag, "data": found.data, "trash": trash})
    return rows


def remove(
    bucket: Bucket,
    choose: Callable[[], Iterable[PurePosixPath]],
    committing: Callable[[], set[PurePosixPath]],
    *,
    trash: str | None = None,
) -> list[PurePosixPath]:
    """Remove what `choose` returns. See `Store.remove`. `committing`: the streams whose commit is under way: they stay.

    Raises: StoreError, and what `choose` raises.
    """
    with turn(bucket) as mine:
        chosen = list(choose())
        busy = committing() if chosen else set()
        return mine.do("remove", rows_of(bucket, (file for file in chosen if file not in busy), trash))


def bring_back(bucket: Bucket, choose: Callable[[], Iterable[TrashedStream]]) -> list[PurePosixPath]:
    """Store again what `choose` returns. See `Store.bring_back`."""
    with turn(bucket) as mine:
        entries = {(each.stream.folder, each.stream.file): each for each in trashed(bucket)}
        rows = []
        for stream in choose():
            entry = entries.get((stream.folder, stream.file))
            if entry is None or bucket.head(entry.data) is None:
                continue
            there = manifests.read(bucket, stream.file)
            if there is None or there.data is None:
                before = None if there is None else there.etag
                rows.append({"file": str(stream.file), "entry": entry.key, "data": entry.data, "before": before})
        return mine.do("back", rows)


def empty_trash(
    bucket: Bucket, old: Callable[[str], bool], stays: Callable[[TrashedStream, float], None] | None
) -> list[str]:
    """Delete folders of the trash. See `Store.empty_trash`."""
    with turn(bucket) as mine:
        entries: list[BucketTrashEntry] = []
        kept: set[str] = set()  # bytes that another entry has
        for each in trashed(bucket):
            if old(each.stream.folder):
                entries.append(each)
            else:
                kept.add(each.data)
        stay = _locked(bucket, entries, stays)
        rows = []
        for each in entries:
            if each.key in stay:
                continue
            try:
                is_stored = _is_stored(bucket, each)
            except ManifestError as error:
                log.warning("%s: stays in the trash: %s", each.stream.file, error)
                stay.add(each.key)
                continue
            data = None if is_stored or each.data in kept else each.data
            rows.append({"file": str(each.stream.file), "entry": each.key, "data": data})
        mine.do("empty", rows)
        left = {each.stream.folder for each in entries if each.key in stay}
        return [name for name in dict.fromkeys(each.stream.folder for each in entries) if name not in left]


def _is_stored(bucket: Bucket, entry: BucketTrashEntry) -> bool:
    """Whether the stream of an entry is stored. A process that was stalled as it moved it into the trash writes the
    entry late, when the stream may have come back. Raises: ManifestError.
    """
    there = manifests.read(bucket, entry.stream.file)
    return there is not None and there.data == entry.data


def _locked(
    bucket: Bucket, entries: list[BucketTrashEntry], stays: Callable[[TrashedStream, float], None] | None
) -> set[str]:
    """Return the keys of the entries whose bytes are locked. Each is told."""
    found = set()
    if entries and bucket.object_lock() is not None:
        for each in entries:
            until = bucket.locked_until(each.data)
            if until is not None:
                found.add(each.key)
                if stays is not None:
                    stays(each.stream, until)
    return found


# --- the steps ----------------------------------------------------------------------------------------------------


def _finish(bucket: Bucket, found: Fetched, said: Mapping[str, Any]) -> list[PurePosixPath]:
    done = _perform(bucket, said)
    bucket.put(keys.REMOVING, _encode({"state": "idle"}), if_match=found.etag)
    return done


def _perform(bucket: Bucket, said: Mapping[str, Any]) -> list[PurePosixPath]:
    step = {"remove": take_away, "back": _return, "empty": _empty}[said["what"]]
    done = [PurePosixPath(row["file"]) for row in said["streams"] if step(bucket, row)]
    if said["what"] != "empty":
        # All of them: another process may have done some of it, and died before it has noted them.
        stream_index.note(bucket, [PurePosixPath(row["file"]) for row in said["streams"]])
    return done


def take_away(bucket: Bucket, row: Mapping[str, Any]) -> bool:
    """Remove one stream. May be repeated. Returns: whether it is removed, by this call or an earlier one."""
    file, data = PurePosixPath(row["file"]), str(row["data"])
    there = manifests.read(bucket, file)
    if there is not None and there.data is not None and there.etag == row["etag"]:
        if row["trash"] is not None:
            _put_entry(bucket, file, str(row["trash"]), there)
        if bucket.put(manifests.key_of(file), manifests.tombstone_bytes(there), if_match=there.etag) is None:
            there = manifests.read(bucket, file)
        else:
            there = None
    if there is not None and (there.data == data or data not in there.removed):
        return False  # another stream is stored there by now, or this one came back
    if row["trash"] is None and manifests.delete_bytes(bucket, data):
        versions.purge_older(bucket, manifests.key_of(file))
    return True


def _put_entry(bucket: Bucket, file: PurePosixPath, folder: str, there: ManifestObject) -> None:
    assert there.data is not None  # noqa: S101 - for mypy: the caller has looked
    size = there.content.get("stored_bytes", 0)
    said = {"format": _FORMAT, "file": str(file), "size": size, "manifest": there.content, "data": there.data}
    name = hashlib.sha256(there.data.encode()).hexdigest()
    bucket.put(f"{keys.TRASH}{folder}/{name}", json.dumps(said).encode())


def _return(bucket: Bucket, row: Mapping[str, Any]) -> bool:
    file = PurePosixPath(row["file"])
    entry = _entry(bucket, str(row["entry"]))
    there = manifests.read(bucket, file)
    if entry is not None and (None if there is None else there.etag) == row["before"]:
        content = manifests.stream_bytes(entry.content, entry.data, there)
        bucket.put(manifests.key_of(file), content, if_absent=there is None, if_match=row["before"])
        there = manifests.read(bucket, file)
    if there is None or there.data != row["data"]:
        return False
    bucket.delete(str(row["entry"]))
    return True


def _empty(bucket: Bucket, row: Mapping[str, Any]) -> bool:
    if row["data"] is not None:  # otherwise something else needs them
        manifests.delete_bytes(bucket, str(row["data"]))
    bucket.delete(str(row["entry"]))
    return True


# --- the trash ----------------------------------------------------------------------------------------------------


def trashed(bucket: Bucket) -> Iterator[BucketTrashEntry]:
    """Yield the streams in the trash, in order of their folders. Raises: StoreError."""
    for each in bucket.entries(keys.TRASH):
        if (found := _entry(bucket, each.key)) is not None:
            yield found


def _entry(bucket: Bucket, key: str) -> BucketTrashEntry | None:
    found = bucket.get(key)
    if found is None:
        return None
    try:
        said = json.loads(found.data)
        folder = key.removeprefix(keys.TRASH).partition("/")[0]
        stream = TrashedStream(folder, PurePosixPath(said["file"]), int(said["size"]))
        return BucketTrashEntry(key, stream, dict(said["manifest"]), str(said["data"]))
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{bucket.where}/{key}: is not an entry of the trash: {error}") from None


# --- the log ------------------------------------------------------------------------------------------------------


def _encode(said: Mapping[str, Any]) -> bytes:
    return json.dumps({"format": _FORMAT, "mark": keys.unique(), **said}, indent=1).encode() + b"\n"


def _read(bucket: Bucket) -> tuple[Fetched, dict[str, Any]] | None:
    """Return the log, and what it says. Raises: StoreError if this version does not understand it."""
    found = bucket.get(keys.REMOVING)
    if found is None:
        return None
    try:
        said = json.loads(found.data)
        if said["format"] == _FORMAT and said["state"] in {"idle", "choosing", "doing"}:
            return found, said
        why = f"it has format {said['format']!r} and state {said['state']!r}"
    except (ValueError, KeyError, TypeError) as error:
        why = f"{type(error).__name__}: {error}"
    msg = f"{bucket.where}/{keys.REMOVING}: is not in the form that this version of fullsendd writes: {why}"
    raise StoreError(msg)
