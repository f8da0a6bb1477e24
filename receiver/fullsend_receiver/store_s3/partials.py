"""The arriving streams of a store in a bucket: list them, discard them, and complete what a dead process had begun."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import nullcontext, suppress
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final, TypeVar

from fullsend_receiver.events.emit import emit
from fullsend_receiver.events.records import SetAside
from fullsend_receiver.store.errors import PartialDamaged
from fullsend_receiver.store_s3 import journals, keys, manifests

if TYPE_CHECKING:
    from fullsend_receiver.store.api import Claim
    from fullsend_receiver.store.journal import Standing, UploadProgress
    from fullsend_receiver.store.opened import Opened
    from fullsend_receiver.store_s3.bucket import Bucket, BucketObject
    from fullsend_receiver.store_s3.journals import BucketJournal, OpenUpload

log = logging.getLogger("fullsendd")

_T = TypeVar("_T")


def _nowhere(_key: str) -> bool:
    """Say of each upload that nobody is known to have it open."""
    return False


class BucketUploadInfo:
    """The state of an upload that was listed: an `UploadInfo`. It reads what it is asked for, once.

    Each property also raises FileNotFoundError if the upload has ended since, or another one has begun in its place.
    """

    def __init__(
        self,
        bucket: Bucket,
        key: str,
        generations: Mapping[str | None, list[BucketObject]],
        is_open: Callable[[str], bool],
    ) -> None:
        """`generations`: as `listed` returns them, with the first object; `is_open`: whether a process of this host has
        an upload open, by its key.
        """
        self.key: Final = key
        self._bucket = bucket
        self._generations = generations
        self._first = generations[None][0]
        self._is_open = is_open

    @cached_property
    def open(self) -> OpenUpload:
        """The content of its first object."""
        found = journals.read_open(self._bucket, self.key)
        if found is None or found.etag != self._first.etag:
            raise FileNotFoundError(self._first.key)
        return found

    @cached_property
    def _written(self) -> list[BucketObject]:
        """The objects of its journal. None is missing because the upload ends: its first object goes before them, and
        was read after they were listed.
        """
        opened = self.open
        return journals.written(opened, self._generations.get(opened.generation, ()))

    @property
    def opened(self) -> Opened | None:
        """What was offered. See `UploadInfo`."""
        return self.open.opened

    @property
    def last(self) -> float:
        """The time of the last object of the journal, by the object store's clock."""
        return (self._written or [self._first])[-1].modified

    @cached_property
    def journal(self) -> UploadProgress:
        """How far it is. Reads the newest objects of the journal."""
        return journals.progress(self._bucket, self._written)

    @property
    def committing(self) -> PurePosixPath | None:
        """The file that is being put in place, None: its commit has not begun. Reads the newest object alone."""
        return journals.committing(self._bucket, self._written)

    @property
    def places(self) -> tuple[Standing | None, Standing | None]:
        """The places at which it resumes. Reads the whole journal: an object for each batch."""
        found = _whole(self._bucket, self.open)
        if found is None:
            raise FileNotFoundError(self._first.key)
        return found.places

    @property
    def arriving(self) -> bool:
        """Whether a process of this host has it open."""
        return self._is_open(self.key)

    def has_ended(self) -> bool:
        """Whether it has ended by now, so that an error shows no damage. Raises: BucketError."""
        there = self._bucket.head(self._first.key)
        return there is None or there.etag != self._first.etag


def listed(bucket: Bucket) -> dict[str, dict[str | None, list[BucketObject]]]:
    """Return the objects of all arriving streams, by their keys and generations; generation None: the first object."""
    found: dict[str, dict[str | None, list[BucketObject]]] = defaultdict(lambda: defaultdict(list))
    for each in bucket.entries(keys.PARTIAL):
        key, generation = keys.partial_of(each.key)
        found[key][generation].append(each)
    return found


def survey(
    bucket: Bucket,
    look: Callable[[BucketUploadInfo], _T],
    is_open: Callable[[str], bool] = _nowhere,
    *,
    sets_aside: Claim | None = None,
) -> Iterator[tuple[str, _T]]:
    """Yield the key and the result of `look` for each upload. See `Store.uploads`. `is_open`: see `BucketUploadInfo`.

    Raises: BucketError.
    """
    for key, generations in listed(bucket).items():
        if None not in generations:
            continue
        info = BucketUploadInfo(bucket, key, generations, is_open)
        try:
            found = look(info)
        except FileNotFoundError:
            continue
        except PartialDamaged as error:
            with nullcontext(True) if sets_aside is None else sets_aside(key) as is_mine:
                if is_mine and not info.has_ended():
                    opened = None
                    with suppress(PartialDamaged, FileNotFoundError):
                        opened = info.open
                    _damaged(bucket, key, opened, str(error), sets_aside=sets_aside is not None)
            continue
        yield key, found


def examined(bucket: Bucket, key: str, *, sets_aside: bool) -> BucketJournal | None:
    """Read a journal; None: there is none, or it is damaged, which is logged. Raises: BucketError."""
    opened: OpenUpload | None = None
    while True:
        before = opened
        try:
            opened = journals.read_open(bucket, key)
            return None if opened is None else _whole(bucket, opened)
        except PartialDamaged as error:
            # It may have ended while it was read, and another one may have begun: then it is read once more.
            if opened is not None and opened != before:
                continue
            _damaged(bucket, key, opened, str(error), sets_aside=sets_aside)
            return None


def _whole(bucket: Bucket, opened: OpenUpload) -> BucketJournal | None:
    """Read a whole journal, and check that it can be used. Returns: None: it is being discarded.

    Raises: PartialDamaged, BucketError.
    """
    found = journals.read(bucket, opened)
    if found is not None:
        journals.summary(found)
        _places = found.places
        if not found.modified and (first := bucket.head(keys.open_key(opened.key))) is not None:
            found.modified = first.modified  # nothing was written to it since it was begun
    return found


def _damaged(bucket: Bucket, key: str, opened: OpenUpload | None, why: str, *, sets_aside: bool) -> None:
    """Log that an upload is damaged, and set it aside if `sets_aside`. `opened`: None: it cannot be read."""
    if not sets_aside:
        log.error("partial %s: %s; the daemon will set it aside", key, why)
    elif opened is not None:
        set_aside(bucket, opened, why)
    else:  # the rest of it is swept at the next start
        bucket.delete(keys.open_key(key))
        _report(key, why)


def committing(bucket: Bucket) -> set[PurePosixPath]:
    """Return the streams whose commit has begun and is not complete. Raises: StoreError."""
    said = survey(bucket, lambda upload: upload.committing)
    return {file for _key, file in said if file is not None}


def set_aside(bucket: Bucket, opened: OpenUpload, why: str) -> PartialDamaged:
    """End an upload that the object store has lost something of. Nobody can read its parts, so nothing is kept.

    Returns: the error for its owner.
    """
    discard(bucket, opened)
    return _report(opened.key, why)


def _report(key: str, why: str) -> PartialDamaged:
    text = f"partial {key}: {why}; check the object store; its stream starts over"
    emit(SetAside(text=text, partial=key, why=why), logging.ERROR)
    return PartialDamaged(text)


def discard(bucket: Bucket, opened: OpenUpload) -> None:
    """Discard an upload, with its bytes. Its first object goes first: from then on nothing of it is resumed, and no
    process acknowledges anything more of it.
    """
    bucket.delete(keys.open_key(opened.key))
    sweep(bucket, opened.key, opened.generation, opened.data)


def sweep(bucket: Bucket, key: str, generation: str, data: str | None = None) -> None:
    """Delete a journal whose first object is gone, its segments, and the bytes that it names, unless their commit may
    have begun. `data`: the key of the bytes, as the first object had it. A process that was killed before it wrote to
    the journal may have begun a multipart upload under it.
    """
    prefix = keys.journal_prefix(key, generation)
    names: list[str] = []
    segments: list[str] = []
    for each in bucket.entries(prefix):
        (segments if keys.is_segment(each.key) else names).append(each.key)
    named = _uncommitted(bucket, names)
    if (begun := named or data) is not None:
        abort_others(bucket, begun, set())  # a commit begins when there is none
    if named is not None:
        manifests.delete_bytes(bucket, named)
        names.reverse()
    abort_others(bucket, prefix, set())
    for name in segments:
        bucket.delete(name)
    # What names the bytes goes last, or else what tells that their commit had begun.
    for name in names:
        bucket.delete(name)


def _uncommitted(bucket: Bucket, names: list[str]) -> str | None:
    """Return the key of the bytes that a journal names; None: a stored stream may have them, or the journal does not
    tell. `names`: of its objects, in order. Its first object, `open`, is gone.

    Another process may delete the journal meanwhile, as `clean_up` does: the line of the commit last. So the newest
    object is read first. If the one with that line is gone by then, so are all others, and nothing names the bytes. If
    the oldest were read first, it could be there, and that line be gone after it.
    """
    for name in reversed(names):
        try:
            lines = journals.lines_of(bucket, name)
            if any("stored" in line for line in lines):
                return None
            # Nothing is written behind the line of a commit, so the newest object tells whether there is one.
            first = lines if name == names[0] else journals.lines_of(bucket, names[0])
            return next((str(line["data"]) for line in first if "data" in line), None)
        except FileNotFoundError:
            continue
        except PartialDamaged:  # it may be that line
            return None
    return None


def abort_others(bucket: Bucket, prefix: str, uploads: Container[str]) -> None:
    """Abort the multipart uploads of a stream's bytes, or of its segments, except these: dead processes have begun
    them.
    """
    for each in list(bucket.unfinished(prefix)):
        if each.upload not in uploads:
            bucket.abort(each.key, each.upload)


def clean_up(bucket: Bucket, opened: OpenUpload, objects: int | None) -> None:
    """Delete the journal of a stream that is stored. The line of the commit goes last: its bytes stay.

    `objects`: of the journal, which are not listed, because a push lists nothing. None: something may be left of
    segments, too, which nothing else names: it is listed, and goes behind the journal.
    """
    bucket.delete(keys.open_key(opened.key))
    generation = opened.generation
    if objects is None:
        named = [each.key for each in bucket.entries(keys.journal_prefix(opened.key, generation))]
    else:
        named = [keys.journal_key(opened.key, generation, number) for number in range(1, objects + 1)]
    for name in named:
        bucket.delete(name)
