"""Which stored streams build on which, and what follows from that. No I/O; both programs use it.

A stream builds on a snapshot. It names the snapshot by GUID alone, never by name, folder or time: a dataset may have
been renamed, and after a rollback chains branch. A stream with that snapshot can be its base if four rules hold. Both
are of one sender; both are of one class; a stream without large blocks does not follow one with them; a raw stream
follows only the IV set that it was made from (records.ivset_guids), as far as both tell theirs.

A sender's clock decides nothing here. A host whose clock says 2021 sends increments that are older than their full by
that clock alone (sanoid issue 815). The receiver numbers what it commits: `sequence`. Its own clock (`received`) orders
only streams without a number: streams that an older fullsendd has stored, and those with a rebuilt manifest. All of
these count as older than those with a number.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

    from fullsend_protocol.stream.facts import StreamClass

#: Why a stream cannot be restored: it is damaged itself, its base is not stored, or it is a base of itself.
Hindrance = Literal["damaged", "no base", "circle"]


class Built(Protocol):
    """A stream's last snapshot, and the snapshot that it builds on; None: a full."""

    @property
    def guid(self) -> str: ...
    @property
    def base_guid(self) -> str | None: ...


class Received(Built, Protocol):
    """What orders stored streams by reception: see manifest.Manifest."""

    @property
    def received(self) -> str: ...
    @property
    def sequence(self) -> int | None: ...


class Linked(Built, Protocol):
    """What links a stored stream to others: see manifest.Manifest."""

    @property
    def dataset(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def stream_class(self) -> StreamClass: ...
    @property
    def flags(self) -> str: ...
    @property
    def ivset_guid(self) -> str | None: ...
    @property
    def base_ivset_guid(self) -> str | None: ...


_B = TypeVar("_B", bound=Built)
_R = TypeVar("_R", bound=Received)
_S = TypeVar("_S", bound=Linked)


def reception(stream: Received) -> tuple[int, str]:
    """Return the sort key that orders streams of one sender by reception."""
    return stream.sequence or 0, stream.received


def ends(streams: Iterable[_R]) -> list[_R]:
    """Return the ends of the chains of one dataset, in the order of reception: the last one is its newest state.

    `streams`: those of the dataset that count. An end is a snapshot on which none of them builds. A snapshot may be
    stored several times (as a full and as an increment, raw and plain): it is one end, and the first received stream
    stands for it.
    """
    return _ends(sorted(streams, key=reception))


def can_follow(
    base: Linked, stream_class: StreamClass | None, flags: str | None, base_ivset_guid: str | None = None
) -> bool:
    """Whether a stream of this class and these flags, made from this IV set, can be received on `base`; None: unknown,
    any class, flags or IV set.

    A chain is of one class, and ZFS refuses a stream without large blocks (-L) after one with them. It refuses a raw
    stream on a copy of its base that is encrypted with other keys, although the copy has the same GUID.
    """
    if stream_class is not None and stream_class != base.stream_class:
        return False
    if base_ivset_guid is not None and base.ivset_guid not in {None, base_ivset_guid}:
        return False
    return flags is None or "L" in flags or "L" not in base.flags


class Forest(Generic[_S]):
    """The streams of one sender, linked by GUID. It does not change, nor may the caller change what it returns."""

    def __init__(
        self, streams: Iterable[_S], *, order: Callable[[_S], Any], key: Callable[[_S], Hashable] = id
    ) -> None:
        """`order`: the sort key of a stream by reception; streams with the same key stay in the given order. `key`: the
        identity of a stream.
        """
        self._order = order
        self._key = key
        #: By dataset, then by `order`: so the choice among several bases does not depend on the order of reading.
        self.streams = sorted(streams, key=lambda each: (each.dataset, order(each)))
        self._by_guid: _Groups[_S] = _Groups()
        self._by_base: _Groups[_S] = _Groups()
        for each in self.streams:
            self._by_guid.add(each.guid, each)
            if each.base_guid is not None:
                self._by_base.add(each.base_guid, each)
        self._by_dataset: dict[str, list[_S]] | None = None  # None: not needed yet

    def of_guid(self, guid: str) -> Sequence[_S]:
        """Return the streams whose last snapshot has this GUID, of any dataset."""
        return self._by_guid.get(guid)

    def built_on(self, guid: str) -> Sequence[_S]:
        """Return the streams that build on the snapshot with this GUID, of any dataset, class and flags."""
        return self._by_base.get(guid)

    def of_dataset(self, dataset: str) -> Sequence[_S]:
        """Return the streams of a dataset, in order."""
        return self._datasets().get(dataset, ())

    @property
    def datasets(self) -> list[str]:
        """The names of all datasets, in order."""
        return list(self._datasets())

    def in_order(self) -> list[_S]:
        """Return all streams by dataset and order, but none before its base.

        A base may have been received after a stream that builds on it (an orphan that was kept). Times are to the
        second. Few stores have such streams, and following all chains takes as long as everything else here.
        """
        if self._bases_come_first():
            return self.streams
        places = self._places()
        return sorted(
            self.streams, key=lambda each: places.get(self._key(each)) or (each.dataset, self._order(each), 0)
        )

    # --- restoring: what can be received on what -------------------------------------------------------------

    def bases(self, stream: _S) -> Sequence[_S]:
        """Return the streams that a stream can be received on: first those of its own dataset. Packages last: they
        contain other datasets, too.
        """
        if stream.base_guid is None:
            return ()
        fitting = [base for base in self._by_guid.get(stream.base_guid) if _follows(stream, base)]
        if len(fitting) > 1:
            fitting.sort(key=lambda base: (_is_package(base), base.dataset != stream.dataset))
        return fitting

    def dependents(self, stream: _S) -> list[_S]:
        """Return the streams that build on this one, directly or indirectly, without itself."""
        found = {self._key(stream): stream}
        todo = [stream]
        while todo:
            for each in self._followers(todo.pop()):
                if self._key(each) not in found:
                    found[self._key(each)] = each
                    todo.append(each)
        return list(found.values())[1:]

    def lineage(self, stream: _S) -> set[str]:
        """Return the GUIDs that a stream builds on, directly or indirectly."""
        found: dict[Hashable, _S] = {}
        todo = [stream]
        while todo:
            for base in self.bases(todo.pop()):
                if self._key(base) not in found:
                    found[self._key(base)] = base
                    todo.append(base)
        return {each.guid for each in found.values()}

    def ways(self, whole: Callable[[_S], bool]) -> Iterator[tuple[_S, _S | None]]:
        """Yield all restorable streams, each with the one to restore before it, None for a full. Bases come before the
        streams on them. Of several bases it is the one with the shortest chain.

        `whole`: whether a stream itself is present and undamaged. The search goes from the fulls forward, breadth
        first. So it never enters a circle of GUIDs, which only forged streams can make.
        """
        seen: set[Hashable] = set()
        fulls = [each for each in self.streams if each.base_guid is None]
        fulls.sort(key=_is_package)  # prefer streams without other datasets
        todo: deque[tuple[_S, _S | None]] = deque((each, None) for each in fulls)
        while todo:
            here, base = todo.popleft()
            if self._key(here) in seen:
                continue
            seen.add(self._key(here))
            if whole(here):
                yield here, base
                todo += [(each, here) for each in self._followers(here) if self._key(each) not in seen]

    def restorable_since(self, whole: Callable[[_S], bool]) -> dict[Hashable, Any]:
        """Return the `order` of the reception with which each restorable stream became restorable, by its `key`: that
        of the stream itself, or of a later received base.

        `whole`: as in `ways`. So a stream received later changes none of these; it only adds some.
        """
        found: dict[Hashable, Any] = {}
        todo = [(self._order(each), place, each) for place, each in enumerate(self.streams) if each.base_guid is None]
        heapq.heapify(todo)
        place = len(self.streams)
        while todo:
            since, _, here = heapq.heappop(todo)
            if self._key(here) in found or not whole(here):
                continue
            found[self._key(here)] = since
            for each in self._followers(here):
                if self._key(each) not in found:
                    place += 1
                    heapq.heappush(todo, (max(since, self._order(each)), place, each))
        return found

    def chain(self, stream: _S, whole: Callable[[_S], bool], after: str | None = None) -> list[_S] | None:
        """Return the shortest chain of whole streams that ends with this one, in the order of restoring; None: there is
        none. Calls `whole` for this stream and its bases only.

        `after`: the GUID of a snapshot that is already restored, from which to begin; None: begin with a full.
        """
        follows: dict[Hashable, _S | None] = {self._key(stream): None}
        todo = deque([stream])
        while todo:
            here = todo.popleft()
            if here.guid == after:
                return self._along(follows, follows[self._key(here)])
            if not whole(here):
                continue
            if here.base_guid == after:  # both None: a full
                return self._along(follows, here)
            for base in self.bases(here):
                if self._key(base) not in follows:
                    follows[self._key(base)] = here
                    todo.append(base)
        return None

    def obstacle(self, stream: _S, whole: Callable[[_S], bool]) -> tuple[_S, Hindrance] | None:
        """Return the first hindrance on the way back to a full, with its stream; None: `whole` shows none."""
        seen: set[Hashable] = set()
        here = stream
        while self._key(here) not in seen:
            seen.add(self._key(here))
            if not whole(here):
                return here, "damaged"
            if here.base_guid is None:
                return None
            bases = self.bases(here)
            if not bases:
                return here, "no base"
            here = bases[0]
        return here, "circle"

    # --- states: which is the newest, and under which name it continues ----------------------------------------

    def ends(self, dataset: str) -> list[_S]:
        """Return the ends of a dataset's chains, as the function `ends` does, by this forest's order."""
        return _ends(self.of_dataset(dataset))

    def continued_by(self, state: _S) -> list[str]:
        """Return the other datasets with a stream directly on this state: the dataset was renamed, or cloned, or this
        is what it was copied from. In the order of their last received streams.
        """
        last: dict[str, Any] = {}
        for each in self._by_base.get(state.guid):
            if each.dataset != state.dataset:
                order = self._order(each)
                last[each.dataset] = max(order, last.get(each.dataset, order))
        return sorted(last, key=lambda name: (last[name], name))

    def existed_before(self, dataset: str, state: _S) -> bool:
        """Whether a dataset existed before this state was received: it has a stream that was not received later, and
        does not build on the state. A replica existed before; the dataset's new name after a rename did not.
        """
        after = self._after(state.guid)
        return any(
            each.guid not in after and not self._order(each) > self._order(state) for each in self.of_dataset(dataset)
        )

    def continues_as(self, state: _S, is_copy: Callable[[_S, str], bool] = lambda _state, _dataset: False) -> _S | None:
        """Return the newest end of another dataset's chain that passes through this state, as after one or several
        renames; None: there is none. Of several datasets it is the one with the last received stream.

        `is_copy`: whether the dataset of this name, which has a stream on this state, is known to be a copy.
        """
        found, here, seen = None, state, {state.dataset}
        while names := [name for name in self.continued_by(here) if name not in seen and not is_copy(here, name)]:
            after = self._after(here.guid)
            last = [each for each in self.ends(names[-1]) if each.guid in after]
            if not last:
                break
            found = here = last[-1]
            seen.add(here.dataset)
        return found

    # --- shared ------------------------------------------------------------------------------------------------

    def _followers(self, base: _S) -> list[_S]:
        """Return the streams that can be received on this one."""
        return [each for each in self._by_base.get(base.guid) if _follows(each, base)]

    def _after(self, guid: str) -> set[str]:
        """Return the GUIDs of the snapshots that build on this one, in any class."""
        found: set[str] = set()
        todo = [guid]
        while todo:
            new = {each.guid for each in self._by_base.get(todo.pop())} - found
            found |= new
            todo += new
        return found

    def _along(self, follows: dict[Hashable, _S | None], here: _S | None) -> list[_S]:
        chain = []
        while here is not None:
            chain.append(here)
            here = follows[self._key(here)]
        return chain

    def _datasets(self) -> dict[str, list[_S]]:
        if self._by_dataset is None:
            self._by_dataset = {}
            for each in self.streams:
                self._by_dataset.setdefault(each.dataset, []).append(each)
        return self._by_dataset

    def _bases_come_first(self) -> bool:
        """Whether within each dataset every stream stands behind its base, and no two have the same order."""
        seen: set[str] = set()  # of this dataset
        dataset, before = None, None
        for each in self.streams:
            order, base_guid = self._order(each), each.base_guid
            if each.dataset != dataset:
                dataset = each.dataset
                seen = set()
            elif order == before:
                return False
            before = order
            if base_guid is not None and base_guid not in seen:
                mine = (base.dataset == dataset for base in self._by_guid.get(base_guid))
                if any(mine):
                    return False
            seen.add(each.guid)
        return True

    def _places(self) -> dict[Hashable, tuple[str, Any, int]]:
        """Return the sort key of each stream, by its `key`: none before its base, and with the same order behind it."""
        places: dict[Hashable, tuple[str, Any, int]] = {}
        todo: list[tuple[_S, Any, int]] = [(each, None, 0) for each in self.streams if not self.bases(each)]
        while todo:
            here, after, depth = todo.pop()
            mine = self._order(here)
            came = mine if after is None else max(after, mine)
            places[self._key(here)] = (here.dataset, came, depth)
            todo += [(each, came, depth + 1) for each in self._followers(here) if self._key(each) not in places]
        return places


class _Groups(Generic[_S]):
    """The streams of each GUID: usually one, for which a list would take 90 bytes more."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found: dict[str, _S | list[_S]] = {}

    def add(self, guid: str, stream: _S) -> None:
        found = self._found.setdefault(guid, stream)
        if isinstance(found, list):
            found.append(stream)
        elif found is not stream:
            self._found[guid] = [found, stream]

    def get(self, guid: str) -> Sequence[_S]:
        found = self._found.get(guid)
        return () if found is None else found if isinstance(found, list) else (found,)


def _ends(streams: Sequence[_B]) -> list[_B]:
    """Return the ends among these, which are in order."""
    bases = {each.base_guid for each in streams}
    first: dict[str, _B] = {}
    for each in streams:
        if each.guid not in bases:
            first.setdefault(each.guid, each)
    return list(first.values())


def _follows(stream: Linked, base: Linked) -> bool:
    """Whether a stream on the snapshot of `base` can be received on it."""
    return can_follow(base, stream.stream_class, stream.flags, stream.base_ivset_guid)


def _is_package(stream: Linked) -> bool:
    return stream.kind == "package"
