"""The streams of a store that has an index: what has changed is read, and everything only if it must be.

The manifests are the truth. The index tells which of them have changed; at intervals, and before anything is removed,
everything is looked at (`distrust`), because another program may have changed something.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Final

from fullsend_protocol.shared.units import plural
from fullsend_receiver.catalogue.collector import collector_off
from fullsend_receiver.catalogue.index_rows import IndexedRows, decode_rows, encode_rows
from fullsend_receiver.catalogue.problems import Problem, unreadable_manifest
from fullsend_receiver.catalogue.rows import COPIED, NAME, STORED_BYTES, Row, Shelf, Summary, contains
from fullsend_receiver.store.api import IndexState, ObjectInfo, Stamp, Store
from fullsend_receiver.store.errors import ManifestError, StoreError

log = logging.getLogger("fullsendd")

#: After so many changes a reader keeps its rows in the index. A process that starts reads a manifest for each change.
KEEP_AFTER: Final = 128
#: Numbers of a stamp that a row has: of the manifest, and of the object of the bytes.
_STAMP: Final = 2


class ObjectSearch:
    """A `Search` of the objects of a store."""

    def __init__(self, store: Store, sender: str) -> None:
        """Reads nothing before `run`."""
        assert store.index is not None  # noqa: S101 - for mypy: this store has one
        self.sure = False
        self._store = store
        self._index = store.index
        self._sender = sender
        self._rows = IndexedRows()
        self._problems: dict[str, Problem] = {}  # by file
        self._state: IndexState | None = None  # None: nothing was read yet
        self._through = 0  # the last change that the rows contain
        self._distrusted = False
        self._unkept = False  # the index lacks what a look at everything has found

    def run(self) -> bool:
        """See `Search.run`."""
        self.sure = False
        state = self._index.look(self._sender, self._state)
        with collector_off():
            changed = self._read(state)
        self._through = state.last
        self._state = state
        if self._unkept or len(state.changes) >= KEEP_AFTER:
            self._keep(state)
        self.sure = True
        return changed

    def _read(self, state: IndexState) -> bool:
        """Make the rows those of this state. Returns: whether the streams differ."""
        before, problems = self._rows.shelves, dict(self._problems)
        has_base = self._has_base(state)
        if self._distrusted or not has_base:
            self._look_everywhere(state, compare=has_base)
        else:
            changed = {file for number, file in state.changes if number > self._through}
            changed |= {PurePosixPath(each) for each in self._rows.doubts}
            if changed:
                self._take(self._store.objects(self._sender, only=sorted(changed)))
        return self._rows.shelves != before or self._problems != problems

    def _has_base(self, state: IndexState) -> bool:
        """Whether the rows, or those that are kept, contain all that came before the changes of this state."""
        known = self._state
        if known is not None and known.mark == state.mark and state.through <= self._through <= state.last:
            return True
        data = self._index.rows(state)
        rows = None if data is None else decode_rows(data)
        if rows is None:
            return False
        self._rows, self._problems, self._through = rows, {}, state.through
        return True

    def _look_everywhere(self, state: IndexState, *, compare: bool) -> None:
        """Look at all keys. `state`: from before; `compare`: the rows should be right, but for its changes."""
        known = {f"{path}/{row[NAME]}": row for path, shelf in self._rows.shelves.items() for row in shelf}
        gone = self._rows.gone

        def stamp(file: PurePosixPath, first: int) -> Stamp | None:
            row = known.get(str(file))
            if row is not None and row[0] == first:
                return tuple(row[:_STAMP])
            return (first, 0) if contains(gone, first) else None

        found = list(self._store.objects(self._sender, known=stamp))
        if compare:
            self._compare(known, found)
        before, self._rows, self._problems = self._rows, IndexedRows(), {}
        self._take(found, known)
        self._through = state.last
        # Of a sender that has never had a stream there is no index.
        is_new = self._rows != before if compare else state.tag is not None or bool(found)
        self._unkept = self._unkept or is_new
        self._distrusted = False

    def _compare(self, known: dict[str, Row], found: list[ObjectInfo]) -> None:
        """Log whether the rows, with the changes that the index has, were not those of the streams that were found."""
        there = {str(info.file): info.stamp for info in found if info.size is not None}
        wrong = {file for file, stamp in there.items() if file not in known or tuple(known[file][:_STAMP]) != stamp}
        wrong |= known.keys() - there.keys()
        wrong -= self._rows.doubts
        now = self._index.look(self._sender)
        wrong -= {str(file) for number, file in now.changes if number > self._through}
        if wrong and now.through <= self._through:
            log.warning(
                "%s: the index of its streams in %s was wrong about %s, and is made again: another program, or a "
                "fullsendd without this index, has changed something",
                *self._named,
                plural(len(wrong), "stream"),
            )

    @property
    def _named(self) -> tuple[str, str]:
        return self._sender, self._store.where

    def _take(self, infos: Iterable[ObjectInfo], known: dict[str, Row] | None = None) -> None:
        """Take what was found into the rows. `known`: the rows of those that were not read again."""
        folders: dict[str, list[ObjectInfo]] = {}
        for info in infos:
            folders.setdefault(str(info.file.parent), []).append(info)
        shelves = dict(self._rows.shelves)
        for path, found in folders.items():
            before = shelves.get(path)
            former = [] if before is None else list(before)
            rows = {row[NAME]: row for row in former}
            lacking = set() if before is None else set(before.lacking or ())
            for info in found:
                name, file = info.file.name, str(info.file)
                self._problems.pop(file, None)
                self._rows.doubts.discard(file)
                lacking.discard(name)
                rows.pop(name, None)
                if isinstance(info.manifest, ManifestError):
                    self._problems[file] = unreadable_manifest(info.manifest)
                    self._rows.doubts.add(file)
                elif info.size is None:
                    self._rows.note_gone(info.stamp)
                    if not info.stamp:  # a removal leaves something in place of the manifest
                        self._rows.doubts.add(file)
                else:
                    row = rows[name] = _row(info, known)
                    if info.size != row[STORED_BYTES]:
                        lacking.add(name)
            ordered = [rows[name] for name in sorted(rows)]
            if before is None or frozenset(lacking) != before.lacking or ordered != former:
                shelves[path] = Shelf.of(path, ordered, frozenset(lacking))
            if not ordered:
                del shelves[path]
        self._rows.shelves = shelves

    def _keep(self, state: IndexState) -> None:
        try:
            kept = self._index.keep(state, encode_rows(self._rows))
        except StoreError as error:  # who asks wants the streams; the next question tries again
            log.warning("%s: the index of its streams in %s cannot be written: %s", *self._named, error)
            return
        if kept is not None:
            self._state, self._unkept = kept, False

    @property
    def summaries(self) -> list[Summary]:
        """See `Search.summaries`."""
        return [summary for shelf in self._rows.shelves.values() for summary in shelf.summaries()]

    @property
    def shelves(self) -> list[Shelf]:
        """See `Search.shelves`."""
        return list(self._rows.shelves.values())

    @property
    def lacking(self) -> frozenset[str]:
        """Files of streams that are missing, or of another length than in their manifests, as they were last seen."""
        return frozenset(f"{shelf.path}/{name}" for shelf in self.shelves for name in shelf.lacking or ())

    @property
    def problems(self) -> list[Problem]:
        """See `Search.problems`."""
        return list(self._problems.values())

    @property
    def orphans(self) -> list[str]:
        """See `Search.orphans`: bytes without a manifest have no name here."""
        return []

    def batches(self) -> Iterator[list[str]]:
        """See `Search.batches`: one list of keys has them all."""
        yield [self._sender]

    def distrust(self, paths: Iterable[str] | None = None) -> None:
        """See `Search.distrust`: which folders does not matter."""
        del paths
        self._distrusted = True


def _row(info: ObjectInfo, known: dict[str, Row] | None) -> Row:
    if info.manifest is None and known is not None:
        return known[str(info.file)]
    stamp = [*info.stamp, *[0] * NAME][:NAME]
    return [*stamp, info.file.name, *(getattr(info.manifest, each) for each in COPIED)]
