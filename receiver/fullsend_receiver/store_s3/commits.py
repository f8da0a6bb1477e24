"""Makes a sealed upload a stored stream: its manifest is put in place on a condition, and that is the commit.

Each step may be repeated, by any process: the journal has what a commit needs. The streams that were merged into it are
removed behind it. A damaged stream of the same name gives way in the same step by which the new one is stored.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final, Self

from fullsend_receiver.store import journal
from fullsend_receiver.store.journal import make_line
from fullsend_receiver.store_s3 import keys, manifests, partials, removals, stream_index
from fullsend_receiver.store_s3.journals import UploadLost

if TYPE_CHECKING:
    from types import TracebackType

    from fullsend_protocol.format.manifest import Manifest
    from fullsend_receiver.store.api import Replaced, Supersedes
    from fullsend_receiver.store_s3.bucket import Bucket
    from fullsend_receiver.store_s3.journals import OpenUpload
    from fullsend_receiver.store_s3.manifests import ManifestObject

#: How often a commit is tried if other processes remove what stands under its name meanwhile.
_ATTEMPTS: Final = 100


@dataclass(frozen=True, slots=True)
class PreparedCommit:
    """A commit that may begin. `lines`: of the journal; `commit`: for `complete`; `turn`: of a merge. Inside its
    context nothing that it supersedes is removed by others, and also behind it if an error leaves it incomplete.
    """

    lines: list[bytes]
    commit: dict[str, Any]
    turn: removals.Turn | None
    waiting: contextlib.ExitStack

    def __enter__(self) -> Self:
        """Do nothing: the context began when it was prepared."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let others remove, unless the commit may have begun. UploadLost: its line was refused."""
        if self.turn is not None and error is not None and not isinstance(error, UploadLost):
            self.turn.keep()
        self.waiting.__exit__(kind, error, trace)


def prepare(
    bucket: Bucket,
    opened: OpenUpload,
    file: PurePosixPath,
    manifest: Manifest,
    *,
    replaces: Replaced | None,
    supersedes: Supersedes | None,
) -> PreparedCommit | None:
    """Prepare a commit. See `Upload.commit`. Returns: None if another stream has this name. Raises: StoreError, and
    what `supersedes` raises.
    """
    with contextlib.ExitStack() as stack:
        rows: list[dict[str, Any]] = []
        turn: removals.Turn | None = None
        if supersedes is not None:
            turn = stack.enter_context(removals.turn(bucket, merge=opened.generation))
            rows = removals.rows_of(bucket, supersedes.choose(), supersedes.trash)
        there = manifests.read(bucket, file)
        if not _may_take(there, replaces):
            return None
        commit = {
            "file": str(file),
            "data": opened.data,
            "manifest": json.loads(manifest.to_json()),
            "supersedes": rows,
            "replaces": None,
        }
        if there is not None and there.data is not None and replaces is not None:
            commit["replaces"] = {"etag": there.etag, "why": replaces.why, "aside": keys.unique(), "at": time.time()}
        lines = [journal.commit_line(file), make_line({"stored": commit})]
        return PreparedCommit(lines, commit, turn, stack.pop_all())
    raise AssertionError  # for mypy: a stack may pass over errors


def _may_take(there: ManifestObject | None, replaces: Replaced | None) -> bool:
    if there is None or there.data is None:
        return True
    return replaces is not None and there.stamp == replaces.stamp


def complete(
    bucket: Bucket, opened: OpenUpload, commit: dict[str, Any], objects: int | None, *, held: bool = False
) -> bool:
    """Do what a commit's line says. May be repeated. `objects`: see `partials.clean_up`; `held`: this
    process has the turn to remove.

    Returns: whether the stream is stored, by this call or an earlier one; otherwise another one has its name, and this
    one is discarded. Raises: StoreError.
    """
    if commit["supersedes"] and not held:
        with removals.turn(bucket, merge=opened.generation) as turn:
            try:
                return complete(bucket, opened, commit, objects, held=True)
            except BaseException:
                turn.keep()
                raise
    file, data = PurePosixPath(commit["file"]), str(commit["data"])
    if not _store(bucket, file, data, commit):
        manifests.delete_bytes(bucket, data)
        partials.clean_up(bucket, opened, objects)
        return False
    stream_index.note(bucket, [file])  # before the others go: a reader finds either these or this one
    for row in commit["supersedes"]:
        removals.take_away(bucket, row)
    stream_index.note(bucket, [PurePosixPath(row["file"]) for row in commit["supersedes"]])
    partials.clean_up(bucket, opened, objects)
    return True


def _store(bucket: Bucket, file: PurePosixPath, data: str, commit: dict[str, Any]) -> bool:
    replaces = commit["replaces"]
    for _attempt in range(_ATTEMPTS):
        there = manifests.read(bucket, file)
        if there is not None and (there.data == data or data in there.removed):
            return True  # it was stored, and perhaps removed since
        if there is not None and there.data is not None:
            if replaces is None or there.etag != replaces["etag"]:
                return False
            _set_aside(bucket, file, there, replaces)
        content = manifests.stream_bytes(commit["manifest"], data, there)
        etag = None if there is None else there.etag
        if bucket.put(manifests.key_of(file), content, if_absent=there is None, if_match=etag) is not None:
            return True
    return False


# --- damaged streams that were replaced ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AsideEntry:
    """A damaged stream that was replaced. `content`: its manifest; `data`: key of its bytes; `at`: seconds since the
    epoch.
    """

    name: str
    file: PurePosixPath
    content: dict[str, Any]
    data: str
    at: float
    why: str


def _set_aside(bucket: Bucket, file: PurePosixPath, there: ManifestObject, replaces: dict[str, Any]) -> None:
    said = {
        "file": str(file),
        "manifest": there.content,
        "data": there.data,
        "at": replaces["at"],
        "why": replaces["why"],
    }
    bucket.put(keys.ASIDE + str(replaces["aside"]), json.dumps(said).encode())


def set_aside(bucket: Bucket) -> Iterator[AsideEntry]:
    """Yield what was set aside and really gave way. Raises: BucketError."""
    for each in bucket.entries(keys.ASIDE):
        if (found := read_aside(bucket, each.key.removeprefix(keys.ASIDE))) is not None:
            there = manifests.read(bucket, found.file)
            if there is None or there.data != found.data:  # otherwise its commit was not completed
                yield found


def read_aside(bucket: Bucket, name: str) -> AsideEntry | None:
    """Return an entry by its name; None: there is none. Raises: BucketError."""
    found = bucket.get(keys.ASIDE + name)
    if found is None:
        return None
    said = json.loads(found.data)
    return AsideEntry(
        name, PurePosixPath(said["file"]), said["manifest"], said["data"], float(said["at"]), str(said["why"])
    )


def discard_aside(bucket: Bucket, entry: AsideEntry) -> float | None:
    """Delete what was set aside, with its bytes. Returns: until when it is locked, and stays; None: it is deleted."""
    until = bucket.locked_until(entry.data) if bucket.object_lock() is not None else None
    if until is not None:
        return until
    manifests.delete_bytes(bucket, entry.data)
    bucket.delete(keys.ASIDE + entry.name)
    return None
