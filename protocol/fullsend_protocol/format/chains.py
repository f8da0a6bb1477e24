"""Which stored streams build on which, and what follows from that. No I/O; both programs ask it.

A stream builds on a snapshot, which it names by GUID alone, never by name, folder or time: a dataset may have been
renamed, and after a rollback chains branch. Three rules say whether it can be received on a stream that brings that
snapshot: both are of one sender, both are of one class, and large blocks may come in a chain but not go again.

A sender's clock decides nothing here. A host that wakes up in 2021 sends increments that are older than their full by
its clock, and newer by every other measure (sanoid issue 815). The receiver numbers what it commits: `sequence`. Its
own clock (`received`) orders only what has no number: streams that an older fullsendd has stored, and manifests that
were rebuilt. All of these are older than what has one.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

    from fullsend_protocol.stream.facts import StreamClass

#: What keeps a stream from being restored: it is damaged itself, its base is not stored, it is a base of itself.
Hindrance = Literal["damaged", "no base", "circle"]


class Built(Protocol):
    """The snapshot that a stream brings last, and the one that it builds on; None: a full."""

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


_B = TypeVar("_B", bound=Built)
_R = TypeVar("_R", bound=Received)
_S = TypeVar("_S", bound=Linked)


def reception(stream: Received) -> tuple[int, str]:
    """Return what orders streams of one sender by reception."""
    return stream.sequence or 0, stream.received


def ends(streams: Iterable[_R]) -> list[_R]:
    """Return the ends of the chains of one dataset, in the order of reception: the last one is its newest state.

    `streams`: all of the dataset, or those of them that count. An end is a snapshot on which none of them builds. A
    snapshot that is stored several times (as a full and as an increment, raw and plain) is one end, and counts as of
    when it came first; returned is the stream that came first.
    """
    return _ends(sorted(streams, key=reception))


def can_follow(base: Linked, stream_class: StreamClass | None, flags: str | None) -> bool:
    """Whether a stream of this class and these flags can be received on `base`; None: not known, any may do.

    A chain is of one class, and ZFS refuses to go back from large blocks (-L) to streams without them.
    """
    if stream_class is not None and stream_class != base.stream_class:
        return False
    return flags is None or "L" in flags or "L" not in base.flags


class Forest(Generic[_S]):
    """The streams of one sender, linked by GUID. Neither it nor what it returns changes."""

    def __init__(
        self, streams: Iterable[_S], *, order: Callable[[_S], Any], key: Callable[[_S], Hashable] = id
    ) -> None:
        """`order`: what orders them by reception, later ones higher; where it is equal they stay as they come. `key`:
        what tells one stream from another.
        """
        self._order = order
        self._key = key
        #: By dataset, then by `order`: so of several bases the same one is taken whoever has read them.
        self.streams = sorted(streams, key=lambda each: (each.dataset, order(each)))
        self._by_guid: _Groups[_S] = _Groups()
        self._by_base: _Groups[_S] = _Groups()
        for each in self.streams:
            self._by_guid.add(each.guid, each)
            if each.base_guid is not None:
                self._by_base.add(each.base_guid, each)
        self._by_dataset: dict[str, list[_S]] | None = None  # None: nobody has asked yet

    def of_guid(self, guid: str) -> Sequence[_S]:
        """Return the streams that bring this snapshot last, of whatever dataset."""
        return self._by_guid.get(guid)

    def of_dataset(self, dataset: str) -> Sequence[_S]:
        """Return the streams of a dataset, in order."""
        return self._datasets().get(dataset, ())

    @property
    def datasets(self) -> list[str]:
        """The names of all datasets, in order."""
        return list(self._datasets())

    def in_order(self) -> list[_S]:
        """Return all streams by dataset and order, but none before its base.

        A base may have come after what builds on it (an orphan that was kept), and times are to the second. Few stores
        have such streams, and the way along all chains takes as long as all else here.
        """
        if self._bases_come_first():
            return self.streams
        places = self._places()
        return sorted(
            self.streams, key=lambda each: places.get(self._key(each)) or (each.dataset, self._order(each), 0)
        )

    # --- restoring: what can be received on what -------------------------------------------------------------

    def bases(self, stream: _S) -> Sequence[_S]:
        """Return what a stream can be received on. Packages last: they bring other datasets, too."""
        if stream.base_guid is None:
            return ()
        stream_class, flags = stream.stream_class, stream.flags
        fitting = [base for base in self._by_guid.get(stream.base_guid) if can_follow(base, stream_class, flags)]
        return sorted(fitting, key=_is_package) if len(fitting) > 1 else fitting

    def dependents(self, stream: _S) -> list[_S]:
        """Return the streams that build on this one, directly or not; never itself."""
        found = {self._key(stream): stream}
        todo = [stream]
        while todo:
            for each in self._followers(todo.pop()):
                if self._key(each) not in found:
                    found[self._key(each)] = each
                    todo.append(each)
        return list(found.values())[1:]

    def lineage(self, stream: _S) -> set[str]:
        """Return the GUIDs that a stream builds on, directly or not."""
        found: dict[Hashable, _S] = {}
        todo = [stream]
        while todo:
            for base in self.bases(todo.pop()):
                if self._key(base) not in found:
                    found[self._key(base)] = base
                    todo.append(base)
        return {each.guid for each in found.values()}

    def ways(self, whole: Callable[[_S], bool]) -> Iterator[tuple[_S, _S | None]]:
        """Yield all restorable streams, each with the one to restore before it, None for a full: bases before what
        builds on them, and of several bases the one with the shortest chain.

        `whole`: whether a stream itself is there and not damaged. Forward from the fulls, breadth first, so a circle of
        GUIDs, which only forged streams can make, is never entered.
        """
        seen: set[Hashable] = set()
        fulls = [each for each in self.streams if each.base_guid is None]
        fulls.sort(key=_is_package)  # where there is a choice, no stream that brings other datasets, too
        todo: deque[tuple[_S, _S | None]] = deque((each, None) for each in fulls)
        while todo:
            here, base = todo.popleft()
            if self._key(here) in seen:
                continue
            seen.add(self._key(here))
            if whole(here):
                yield here, base
                todo += [(each, here) for each in self._followers(here) if self._key(each) not in seen]

    def chain(self, stream: _S, whole: Callable[[_S], bool], after: str | None = None) -> list[_S] | None:
        """Return the shortest chain of whole streams that ends with this one, in the order of restoring; None: there is
        none. Asks `whole` of this stream and its bases only.

        `after`: the GUID of the snapshot to begin after, where that is restored already; None: with a full.
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
        """Return the first stream on the way back to a full that hinders, and how; None: `whole` shows nothing."""
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

    # --- states: which is the newest, and under which name it goes on ------------------------------------------

    def ends(self, dataset: str) -> list[_S]:
        """Return the ends of a dataset's chains, as the function `ends` does, by this forest's order."""
        return _ends(self.of_dataset(dataset))

    def taken_up_by(self, state: _S) -> list[str]:
        """Return the other datasets of which a stream builds on this state, without one between: the dataset was
        renamed, or cloned, or this is what it was copied from. In the order of what came last of each.
        """
        last: dict[str, Any] = {}
        for each in self._by_base.get(state.guid):
            if each.dataset != state.dataset:
                order = self._order(each)
                last[each.dataset] = max(order, last.get(each.dataset, order))
        return sorted(last, key=lambda name: (last[name], name))

    def existed_before(self, dataset: str, state: _S) -> bool:
        """Whether a dataset was there before this state came: a stream of it came no later, and does not build on it.
        A replica existed before; what has the dataset's new name did not.
        """
        after = self._after(state.guid)
        return any(
            each.guid not in after and not self._order(each) > self._order(state) for each in self.of_dataset(dataset)
        )

    def goes_on_as(self, state: _S) -> _S | None:
        """Return the newest end of another dataset's chain that leads through this state, as after a rename, or
        several; None: there is none. Of several datasets it is the one of which a stream came last.
        """
        found, here, seen = None, state, {state.dataset}
        while names := [name for name in self.taken_up_by(here) if name not in seen]:
            after = self._after(here.guid)
            last = [each for each in self.ends(names[-1]) if each.guid in after]
            if not last:
                break
            found = here = last[-1]
            seen.add(here.dataset)
        return found

    # --- what they share ---------------------------------------------------------------------------------------

    def _followers(self, base: _S) -> list[_S]:
        """Return the streams that can be received on this one."""
        return [each for each in self._by_base.get(base.guid) if can_follow(base, each.stream_class, each.flags)]

    def _after(self, guid: str) -> set[str]:
        """Return the GUIDs of the snapshots that came after one, in whatever class."""
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
        """Whether within each dataset every stream stands behind its base, and no two stand at one place."""
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
        """Return where each stream stands, by key: not before its base, and of one moment behind it."""
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


def _is_package(stream: Linked) -> bool:
    return stream.kind == "package"
