from __future__ import annotations

import functools
import itertools
import random
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullsend_protocol.format.chains import Forest, can_follow, ends, reception
from fullsend_protocol.stream.facts import class_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fullsend_protocol.stream.facts import StreamClass


@dataclass(frozen=True)
class Stored:
    guid: str
    base_guid: str | None = None
    sequence: int | None = None
    received: str = "2026-11-23T06:30:00Z"
    dataset: str = "a"
    kind: str = "full"
    stream_class: StreamClass = "plain"
    flags: str = ""
    file: str = ""
    whole: bool = True
    ivset_guid: str | None = None
    base_ivset_guid: str | None = None


def forest_of(*streams: Stored) -> Forest[Stored]:
    return Forest(streams, order=reception)


whole = attrgetter("whole")


# --- the order of reception ---------------------------------------------------------------------------------------


def test_what_has_a_number_is_newer_than_what_has_none() -> None:
    without = Stored("1", received="2036-01-01T00:00:00Z")
    assert reception(without) < reception(Stored("2", sequence=1))
    assert reception(Stored("3", sequence=9)) < reception(Stored("4", sequence=10, received="2021-01-01T00:00:00Z"))


def test_a_snapshot_that_came_again_counts_as_of_when_it_came_first() -> None:
    first, again = Stored("1", sequence=1), Stored("1", sequence=9)
    other = Stored("2", sequence=5)
    assert ends([again, other, first]) == [first, other]


def test_nothing_and_a_circle_have_no_end() -> None:
    assert ends([]) == []
    assert ends([Stored("1", "2"), Stored("2", "1")]) == []


@given(st.lists(st.tuples(st.integers(1, 9), st.none() | st.integers(1, 9)), max_size=12))
def test_no_end_has_anything_built_on_it(streams: list[tuple[int, int | None]]) -> None:
    stored = [
        Stored(str(guid), None if base is None else str(base), number) for number, (guid, base) in enumerate(streams)
    ]
    found = ends(stored)
    assert len({each.guid for each in found}) == len(found)
    assert not {each.guid for each in found} & {each.base_guid for each in stored}
    assert found == sorted(found, key=reception)


# --- what may follow on what ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "stream_class", "flags", "may"),
    [
        ("", "plain", "", True),
        ("", "plain", "L", True),
        ("L", "plain", "", False),
        ("Lec", "plain", "Lp", True),
        ("", "raw", "w", False),
        ("", None, None, True),
        ("L", None, None, True),
        ("L", "raw", None, False),
        ("L", None, "", False),
    ],
)
def test_a_chain_is_of_one_class_and_keeps_large_blocks(
    base: str, stream_class: StreamClass | None, flags: str | None, may: bool
) -> None:
    assert can_follow(Stored("1", flags=base), stream_class, flags) == may


@pytest.mark.parametrize(
    ("ivset_guid", "made_from", "may"),
    [("11", "11", True), ("11", "12", False), (None, "12", True), ("11", None, True), (None, None, True)],
)
def test_a_raw_stream_follows_only_the_keys_that_it_was_made_from(
    ivset_guid: str | None, made_from: str | None, *, may: bool
) -> None:
    assert can_follow(raw("1", ivset_guid=ivset_guid), "raw", "w", made_from) == may


def raw(guid: str, base_guid: str | None = None, **about: Any) -> Stored:
    return Stored(guid, base_guid, stream_class="raw", flags="w", **about)


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_a_copy_with_another_key_has_the_same_snapshots_and_a_chain_of_its_own(names: str) -> None:
    """Received unencrypted into an encrypted dataset: the GUIDs are the same, the IV sets are not."""
    one = [
        raw("1", dataset=names[0], sequence=1, ivset_guid="11"),
        raw("2", "1", dataset=names[0], sequence=2, ivset_guid="12", base_ivset_guid="11"),
        raw("3", "2", dataset=names[0], sequence=4, ivset_guid="13", base_ivset_guid="12"),
    ]
    other = [
        raw("2", dataset=names[1], sequence=3, ivset_guid="22"),
        raw("3", "2", dataset=names[1], sequence=5, ivset_guid="23", base_ivset_guid="22"),
    ]
    for mixed in itertools.permutations([*one, *other]):
        forest = forest_of(*mixed)
        assert (forest.bases(one[2]), forest.bases(other[1])) == ([one[1]], [other[0]])
        assert (forest.chain(one[2], whole), forest.chain(other[1], whole)) == (one, other)
        assert {here: base for here, base in forest.ways(whole) if base} == {
            one[1]: one[0],
            one[2]: one[1],
            other[1]: other[0],
        }
        assert forest.dependents(one[0]) == [one[1], one[2]]
        assert forest.dependents(other[0]) == [other[1]]
        assert forest.chain(one[2], lambda each: each is not one[1]) is None
        assert forest.lineage(other[1]) == {"2"}


def test_a_raw_stream_that_is_made_from_other_keys_than_all_that_is_stored_has_no_base() -> None:
    full, odd = raw("1", ivset_guid="11"), raw("2", "1", ivset_guid="22", base_ivset_guid="21")
    forest = forest_of(full, odd)
    assert forest.chain(odd, whole) is None
    assert forest.obstacle(odd, whole) == (odd, "no base")
    assert list(forest.ways(whole)) == [(full, None)]


def test_of_several_bases_those_of_the_own_dataset_come_first() -> None:
    """Which of them has the right keys is not known of streams that an older fullsendd has stored."""
    theirs, mine = raw("1", dataset="a", sequence=1), raw("1", dataset="b", sequence=2)
    package = Stored("1", dataset="b", kind="package", stream_class="raw", flags="w", sequence=3)
    last = raw("2", "1", dataset="b", sequence=4)
    forest = forest_of(theirs, mine, package, last)
    assert forest.bases(last) == [mine, theirs, package]
    assert forest.chain(last, whole) == [mine, last]
    assert forest.chain(last, lambda each: each is not mine) == [theirs, last]


def test_where_there_is_a_choice_no_package_is_taken() -> None:
    package = Stored("1", kind="package", sequence=1)
    full, last = Stored("1", flags="e", sequence=2), Stored("2", "1", sequence=3)
    forest = forest_of(package, full, last)
    assert forest.bases(last) == [full, package]
    assert forest.chain(last, whole) == [full, last]
    assert [(here, base) for here, base in forest.ways(whole) if base] == [(last, full)]
    assert forest.chain(last, lambda each: each is not full) == [package, last]


def test_a_clone_builds_on_its_origin_by_guid_alone() -> None:
    """`zfs send -i tank/a@1 tank/clone@2`: its base is a snapshot of another dataset, and has to be stored."""
    origin, clone = Stored("1", dataset="tank/a"), Stored("2", "1", dataset="tank/clone")
    assert forest_of(origin, clone).chain(clone, whole) == [origin, clone]
    assert forest_of(clone).chain(clone, whole) is None
    assert forest_of(clone).obstacle(clone, whole) == (clone, "no base")


def test_what_hinders_is_the_first_on_the_way_back() -> None:
    full = Stored("1", whole=False)
    middle, last = Stored("2", "1"), Stored("3", "2")
    forest = forest_of(full, middle, last)
    assert forest.obstacle(last, whole) == (full, "damaged")
    assert forest.obstacle(last, lambda each: each is not last and each is not full) == (last, "damaged")
    assert forest.obstacle(last, lambda _each: True) is None
    one, two = Stored("1", "2"), Stored("2", "1")
    assert forest_of(one, two).obstacle(one, whole) == (one, "circle")


def test_a_snapshot_that_is_stored_twice_leads_back_by_both_ways() -> None:
    """As a full and as an increment: all before it is behind what builds on it, whichever came first."""
    first, middle, full, last = Stored("1"), Stored("2", "1"), Stored("2", flags="e"), Stored("3", "2")
    for mixed in itertools.permutations([first, middle, full, last]):
        assert forest_of(*mixed).lineage(last) == {"1", "2"}


# --- under which name it continues ------------------------------------------------------------------------------------


def test_a_dataset_continues_under_its_last_name() -> None:
    first = Stored("1", dataset="a", sequence=1)
    second = Stored("2", "1", dataset="b", sequence=2)
    third, last = Stored("3", "2", dataset="c", sequence=3), Stored("4", "3", dataset="c", sequence=4)
    forest = forest_of(first, second, third, last)
    assert forest.continues_as(first) == last
    assert forest.continues_as(second) == last
    assert forest.continues_as(last) is None
    assert forest.continued_by(first) == ["b"]
    assert not forest.existed_before("b", first)


def test_a_replica_existed_before_and_a_new_name_did_not() -> None:
    source = [Stored("1", sequence=1), Stored("2", "1", sequence=3)]
    replica = [Stored("11", "1", dataset="copy", sequence=2), Stored("12", "2", dataset="copy", sequence=4)]
    new = Stored("3", "2", dataset="new", sequence=5)
    forest = forest_of(*source, *replica, new)
    assert forest.continued_by(source[-1]) == ["copy", "new"]
    assert forest.existed_before("copy", source[-1])
    assert not forest.existed_before("new", source[-1])
    assert not forest.existed_before("none", source[-1])


def test_a_copy_is_no_new_name() -> None:
    first, copy = Stored("1", dataset="a", sequence=1), Stored("11", "1", dataset="copy", sequence=4)
    second, last = Stored("2", "1", dataset="b", sequence=2), Stored("3", "2", dataset="c", sequence=3)
    forest = forest_of(first, copy, second, last)
    assert forest.continues_as(first) == copy
    assert forest.continues_as(first, lambda state, name: (state, name) == (first, "copy")) == last
    assert forest.continues_as(first, lambda state, _name: state == second) == copy
    assert forest_of(first, second, last).continues_as(first, lambda state, _name: state == second) == second
    assert forest.continues_as(first, lambda _state, _name: True) is None


def test_two_datasets_that_take_each_other_up_end() -> None:
    one, two = Stored("1", "2", dataset="a"), Stored("2", "1", dataset="b")
    assert forest_of(one, two).continues_as(one) == two


# --- against the plainest reading of the rules ------------------------------------------------------------------------


@st.composite
def forests(draw: st.DrawFn) -> list[Stored]:
    """Streams of a few datasets that build on one another anyhow: circles and orphans, damage, classes, packages."""
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(1, 7),
                st.none() | st.integers(1, 7),
                st.sampled_from("abc"),
                st.sampled_from(["", "", "L", "w", "Lw", "r0a1b2c3d"]),
                st.sampled_from(["full", "full", "full", "package"]),
                st.integers(0, 9) | st.none(),
                st.booleans() | st.just(True),
            ),
            max_size=14,
        )
    )
    return [
        Stored(
            str(guid),
            None if base is None else str(base),
            sequence,
            dataset=dataset,
            kind=kind,
            stream_class=class_of(flags),
            flags=flags,
            file=f"{number}",
            whole=is_whole,
        )
        for number, (guid, base, dataset, flags, kind, sequence, is_whole) in enumerate(rows)
    ]


class Model:
    """The same, without an index and without a search that ends early."""

    def __init__(self, streams: Sequence[Stored]) -> None:
        self.streams = streams

    def fits(self, base: Stored, stream: Stored) -> bool:
        return (
            base.guid == stream.base_guid
            and base.stream_class == stream.stream_class
            and not ("L" in base.flags and "L" not in stream.flags)
        )

    def closure(self, pairs: Iterable[tuple[Stored, Stored]]) -> set[tuple[Stored, Stored]]:
        """Return all pairs that some path joins."""
        found = set(pairs)
        while more := {(a, d) for a, b in found for c, d in found if b == c} - found:
            found |= more
        return found

    @functools.cached_property
    def below(self) -> set[tuple[Stored, Stored]]:
        """Base and what builds on it, directly or not."""
        return self.closure((base, each) for base in self.streams for each in self.streams if self.fits(base, each))

    def lengths(self, after: str | None) -> dict[Stored, int]:
        """Return how many streams the shortest chain has that begins after this snapshot (None: with a full)."""
        found = {each: 0 for each in self.streams if each.guid == after}
        while True:
            more = dict(found)
            for each in self.streams:
                if each.whole:
                    ways = [found[base] + 1 for base in self.streams if base in found and self.fits(base, each)]
                    ways += [1] if each.base_guid == after else []
                    ways += [found[each]] if each in found else []
                    if ways:
                        more[each] = min(ways)
            if more == found:
                return found
            found = more

    def after(self, guid: str) -> set[str]:
        """Return the GUIDs that some path of GUIDs leads to, from this one."""
        found: set[str] = set()
        while more := {each.guid for each in self.streams if each.base_guid in {guid, *found}} - found:
            found |= more
        return found


@given(forests(), st.randoms())
def test_a_stream_is_restorable_since_the_reception_that_completed_its_chain(
    streams: list[Stored], shuffler: random.Random
) -> None:
    received = sorted(streams, key=reception)
    expected: dict[str, object] = {}
    for count in range(len(received)):
        if count + 1 < len(received) and reception(received[count]) == reception(received[count + 1]):
            continue  # received at the same time
        for here, _base in Forest(received[: count + 1], order=reception, key=attrgetter("file")).ways(whole):
            expected.setdefault(here.file, reception(received[count]))
    mixed = streams[:]
    shuffler.shuffle(mixed)
    assert Forest(mixed, order=reception, key=attrgetter("file")).restorable_since(whole) == expected


@given(forests(), st.none() | st.integers(1, 7).map(str), st.randoms())
def test_chains_are_as_the_rules_say(streams: list[Stored], after: str | None, shuffler: random.Random) -> None:
    model = Model(streams)
    mixed = streams[:]
    shuffler.shuffle(mixed)
    forest = Forest(mixed, order=reception, key=attrgetter("file"))
    lengths, ways = model.lengths(None), list(forest.ways(whole))
    assert {here.file for here, _base in ways} == {each.file for each in lengths}
    assert len(ways) == len(lengths)
    come: set[str] = set()
    for here, base in ways:
        assert (base is None) == (here.base_guid is None)
        assert base is None or (base.file in come and model.fits(base, here) and lengths[base] + 1 == lengths[here])
        come.add(here.file)
    begun = model.lengths(after)
    for each in streams:
        assert set(forest.bases(each)) == {base for base in streams if model.fits(base, each)}
        below = {other for base, other in model.below if base == each and other != each}
        found = forest.dependents(each)
        assert (set(found), len(found)) == (below, len(below))
        assert forest.lineage(each) == {base.guid for base, other in model.below if other == each}
        chain = forest.chain(each, whole, after)
        assert (chain is None) == (each not in begun)
        if chain is None:
            continue
        assert len(chain) == begun[each]
        assert all(one.whole for one in chain)
        assert all(model.fits(one, other) for one, other in itertools.pairwise(chain))
        assert not chain or (chain[0].base_guid, chain[-1]) == (after, each)
    for each in streams:
        obstacle = forest.obstacle(each, whole)
        if obstacle is None:
            assert each in lengths
            continue
        here, how = obstacle
        assert here == each or (here, each) in model.below
        if how == "damaged":
            assert not here.whole
        elif how == "no base":
            assert not any(model.fits(base, here) for base in streams)
        else:
            assert (here, here) in model.below


@given(forests(), st.randoms())
def test_states_are_as_the_rules_say(streams: list[Stored], shuffler: random.Random) -> None:
    model = Model(streams)
    mixed = streams[:]
    shuffler.shuffle(mixed)
    forest = Forest(mixed, order=reception, key=attrgetter("file"))
    assert forest.datasets == sorted({each.dataset for each in streams})
    for dataset in "abc":
        mine = [each for each in streams if each.dataset == dataset]
        assert sorted(forest.of_dataset(dataset), key=attrgetter("file")) == sorted(mine, key=attrgetter("file"))
        assert [each.guid for each in forest.ends(dataset)] == [each.guid for each in ends(forest.of_dataset(dataset))]
        for state in streams:
            late = model.after(state.guid)
            before = [each for each in mine if each.guid not in late and reception(each) <= reception(state)]
            assert forest.existed_before(dataset, state) == bool(before)
    for state in streams:
        others = {each.dataset for each in streams if each.base_guid == state.guid} - {state.dataset}
        names = forest.continued_by(state)
        assert (set(names), len(names)) == (others, len(others))
        there = forest.continues_as(state)
        if there is not None:
            assert there.dataset != state.dataset
            assert there.guid in model.after(state.guid)
            assert not any(each.base_guid == there.guid for each in streams if each.dataset == there.dataset)
        elif others:
            # Every continuation is a circle: none of its ends comes after.
            last = [each for each in forest.ends(names[-1]) if each.guid in model.after(state.guid)]
            assert not last


@given(forests(), st.randoms())
def test_no_stream_stands_before_its_base(streams: list[Stored], shuffler: random.Random) -> None:
    # Chains without a circle: no base has a higher GUID.
    streams = [each for each in streams if each.base_guid is None or int(each.base_guid) < int(each.guid)]
    mixed = streams[:]
    shuffler.shuffle(mixed)
    forest = Forest(mixed, order=reception, key=attrgetter("file"))
    found = forest.in_order()
    assert sorted(each.file for each in found) == sorted(each.file for each in streams)
    assert [each.dataset for each in found] == sorted(each.dataset for each in streams)
    for place, each in enumerate(found):
        bases = [base for base in forest.bases(each) if base.dataset == each.dataset]
        assert not bases or any(base in found[:place] for base in bases)
