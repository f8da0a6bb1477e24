from __future__ import annotations

import contextlib
import itertools
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.sender.peer import status

from fullsend_protocol.format.manifest import StreamEntry
from fullsend_protocol.shared.errors import UsageError
from fullsend_protocol.stream.records import Feature
from fullsend_protocol.stream.resume_token import ResumeToken
from fullsend_sender.restore.chains import Library, NotRestorable


def entry(name: str, guid: int, base: int | None = None, **about: Any) -> StreamEntry:
    dataset, _, snapshot = name.partition("@")
    said: dict[str, Any] = {
        "sender": "alpha",
        "dataset": dataset,
        "snapshot": snapshot,
        "guid": str(guid),
        "kind": "full" if base is None else "incremental",
        "dataset_type": "filesystem",
        "flags": "Lep",
        "base": None,
        "base_guid": None if base is None else str(base),
        "created": f"2026-11-{guid % 28 + 1:02}T02:00:00Z",
        "received": "2026-11-24T02:00:00Z",
        "raw_bytes": 1000,
        "stored_bytes": 500,
        "sha256": "5c" * 32,
        "file": f"alpha/{dataset}/@{snapshot}.{guid:016x}{'' if base is None else f'.from-{base:016x}'}.zfs.zst",
        "verified": None,
        "damaged": None,
        "restorable": True,
        "lost_spill_count": 0,
        "sequence": guid,
    }
    return StreamEntry.model_validate(said | about)


def guids(chain: list[StreamEntry] | None) -> list[int] | None:
    return None if chain is None else [int(each.guid) for each in chain]


def test_a_chain_goes_by_guid_alone() -> None:
    last = entry("tank/new@c", 3, 2)
    library = Library([entry("tank/old@a", 1), entry("tank/old@b", 2, 1), last, entry("tank/new@x", 9)])
    assert guids(library.chain(last)) == [1, 2, 3]
    assert guids(library.chain(last, "2")) == [3]
    assert guids(library.chain(last, "3")) == []
    assert library.chain(last, "9") is None


def test_a_copy_with_another_key_is_restored_by_its_own_chain() -> None:
    """It has the GUIDs of the original. A receiver of before tells no IV sets: then the own dataset comes first."""
    told: dict[str, dict[str, Any]] = {
        "tank/home@b": {"ivset_guid": "12"},
        "tank/home@c": {"ivset_guid": "13", "base_ivset_guid": "12"},
        "vault/copy@b": {"ivset_guid": "22"},
        "vault/copy@c": {"ivset_guid": "23", "base_ivset_guid": "22"},
    }
    for ivsets in (told, {name: dict[str, Any]() for name in told}):
        chains = [
            [
                entry(f"{name}@b", 2, flags="w", **ivsets[f"{name}@b"]),
                entry(f"{name}@c", 3, 2, flags="w", **ivsets[f"{name}@c"]),
            ]
            for name in ("tank/home", "vault/copy")
        ]
        for streams in itertools.permutations(itertools.chain(*chains)):
            library = Library(streams)
            assert [library.chain(chain[-1]) for chain in chains] == chains
    lost = Library(
        [entry("tank/home@b", 2, flags="w", ivset_guid="12"), chains[1][1].model_copy(update=told["vault/copy@c"])]
    )
    assert lost.chain(lost.find("vault/copy@c")) is None


def test_a_clock_that_was_ahead_once_makes_nothing_the_newest_for_ever() -> None:
    ahead = entry("a@a", 1, created="2036-01-01T00:00:00Z", received="2026-11-01T00:00:00Z")
    library = Library([entry("a@b", 2, 1, created="2026-11-02T00:00:00Z"), ahead])
    assert library.find("a").snapshot == "b"


def test_an_older_state_that_came_once_more_is_a_question() -> None:
    """A rollback, and `push --full`: what had been rolled back was taken for the newest."""
    chain = [entry("a@a", 1, sequence=1), entry("a@b", 2, 1, sequence=2)]
    again = entry("a@a", 1, sequence=3, file="again.zfs.zst", received="2026-11-25T02:00:00Z")
    with pytest.raises(UsageError, match=r"after it a@a once more.*again\.zfs\.zst"):
        Library([*chain, again]).find("a")
    # A base that came late, or replaced a damaged one, is not; nor is what has been built on since.
    assert Library([chain[1], again]).find("a") == chain[1]
    assert Library([*chain, again, entry("a@c", 3, 2, sequence=4)]).find("a").snapshot == "c"
    assert Library([*chain, again, entry("a@b", 2, sequence=4, file="b.zfs.zst")]).find("a").snapshot == "b"


def test_a_replica_does_not_take_the_place_of_what_it_builds_on() -> None:
    """A tree came back without the source, with exit 0, since the replica was pushed after each replication."""
    source = [entry("tank/home@1", 1, sequence=1), entry("tank/home@2", 2, 1, sequence=3)]
    replica = [entry("tank/copy@1", 11, 1, sequence=2), entry("tank/copy@2", 12, 2, sequence=4)]
    library = Library([*source, *replica])
    tree = library.tree("tank", None, lambda _name: True)
    assert (tree.chosen, tree.left_out, tree.refused) == ([replica[-1], source[-1]], [], [])
    # By itself it is a question all the same: it may have been given that name before, and again.
    with pytest.raises(UsageError, match="continues as tank/copy"):
        library.find("tank/home")
    # Where the other one came only then, it was renamed.
    tree = Library([*source, replica[-1]]).tree("tank", None, lambda _name: True)
    assert (tree.chosen, [name for name, _why in tree.left_out]) == ([replica[-1]], ["tank/home"])


def test_a_dataset_that_still_existed_was_not_renamed_to_a_copy_of_it() -> None:
    """A tree came back without the original, with exit 0, once a test restore of it was pushed."""
    source = [entry("tank/home@1", 1, sequence=1), entry("tank/home@2", 2, 1, sequence=2)]
    copy = entry("tank/copy@3", 13, 2, sequence=3)
    before, after = "2026-11-23T02:00:00Z", "2026-11-25T02:00:00Z"

    def library(*more: StreamEntry, unchanged: str, guid: str = "2") -> Library:
        about = status("tank/home", guid=guid, snapshot="2", unchanged=unchanged, streams=2)
        return Library([*source, copy, *more], {"tank/home": about})

    for name in (None, "3"):
        tree = library(unchanged=after).tree("tank", name, everything)
        assert (tree.chosen, tree.left_out, tree.refused) == ([copy, source[-1]], [], [])
    assert library(unchanged=after).find("tank/home") == source[-1]
    # What was reported before the copy came, or of another state, shows nothing.
    for there in (library(unchanged=before), library(unchanged=after, guid="1")):
        tree = there.tree("tank", None, everything)
        assert (tree.chosen, [name for name, _why in tree.left_out]) == ([copy], ["tank/home"])
    with pytest.raises(UsageError, match="continues as tank/copy"):
        library(unchanged=before).find("tank/home")
    # It may have been renamed after that, and be left out for that reason.
    renamed = entry("tank/new@4", 14, 2, sequence=4, received="2026-11-26T02:00:00Z")
    tree = library(renamed, unchanged=after).tree("tank", None, everything)
    assert (tree.chosen, tree.left_out) == ([copy, renamed], [("tank/home", "continues as tank/new")])


def test_a_dataset_that_went_on_by_itself_was_not_renamed_to_a_copy_of_it() -> None:
    """As of a snapshot from before it went on."""
    home = [entry("tank/home@1", 1), entry("tank/home@3", 4, 1)]
    copy, top = entry("tank/copy@2", 2, 1), entry("tank@2", 3)
    tree = Library([*home, copy, top]).tree("tank", "2", everything)
    assert (tree.chosen, tree.left_out) == ([top, copy, home[0]], [])


def test_the_shortest_of_several_and_packages_last() -> None:
    second = entry("a@b", 2, 1)
    library = Library([entry("a@a", 1), second, entry("a@b", 2, file="x.zfs.zst"), entry("a@c", 3, 2)])
    assert guids(library.chain(library.find("a@c"))) == [2, 3]
    assert library.find("a@b").base_guid is None
    package = entry("a@a", 1, kind="package", file="p.zfs.zst")
    library = Library([package, entry("a@a", 1), second])
    chain = library.chain(second)
    assert chain is not None
    assert chain[0].kind == "full"
    assert library.find("a@a").kind == "full"
    assert library.find("p.zfs.zst") == package


@pytest.mark.parametrize(("base", "flags", "possible"), [
    ("Lep", "Lep", True), ("ep", "Lep", True), ("Lep", "ep", False), ("Lewp", "Lep", False), ("Le", "Lecp", True),
    ("Lewp", "Lewp", True), ("Lr00000001", "Lep", False),
])  # fmt: skip
def test_what_may_follow_on_what(base: str, flags: str, possible: bool) -> None:
    last = entry("a@b", 2, 1, flags=flags)
    assert (Library([entry("a@a", 1, flags=base), last]).chain(last) is not None) == possible


def test_what_is_damaged_is_gone_around_or_named() -> None:
    damaged = entry("a@b", 2, 1, damaged="chunk 3 is not what it was", restorable=False)
    last = entry("a@c", 3, 2, restorable=False)
    library = Library([entry("a@a", 1), damaged, last])
    assert library.chain(last) is None
    assert damaged.file in library.obstacle(last)
    assert "chunk 3" in library.obstacle(last)
    assert guids(library.chain(last, "2")) == [3]  # what is restored already need not be whole here
    library = Library([entry("a@a", 1), damaged, entry("a@b", 2), entry("a@c", 3, 2)])
    assert guids(library.chain(library.find("a@c"))) == [2, 3]
    alone = entry("a@c", 3, 2, restorable=False)
    assert "guid:2, the base of a@c, is not stored" in Library([alone]).obstacle(alone)
    gone = entry("a@a", 1, restorable=False)
    assert "a file of its chain is missing" in Library([gone]).obstacle(gone)


def test_what_a_target_with_a_token_may_have_a_part_of() -> None:
    raw = entry("a@b", 2, 1, flags="Lecwp")
    plain = entry("a@b", 2, 1, flags="Lecp")
    others = [
        entry("a@b", 2, flags=""),
        entry("a@b", 2, 1, flags="Lep"),
        entry("a@b", 2, 1, flags="Lecp", damaged="a bit"),
        entry("a@b", 2, 1, flags="Lecp", kind="package"),
        entry("a@b", 2, 1, flags="Lrecececec"),
        entry("a@c", 3, 1, flags="Lecp"),
    ]
    library = Library([*others, raw, plain])
    features = 1 << Feature.LARGE_BLOCKS | 1 << Feature.EMBED_DATA | 1 << Feature.COMPRESSED
    token = ResumeToken("a@b", 2, 1, 5, 0, features)
    assert library.begun(token) == [plain]
    assert library.begun(replace(token, features=features | 1 << Feature.RAW)) == [raw]
    assert library.begun(replace(token, base_guid=None, features=0)) == [others[0]]
    assert library.begun(replace(token, guid=9)) == []


def test_a_circle_ends() -> None:
    one, two = entry("a@a", 1, 2), entry("a@b", 2, 1)
    library = Library([one, two])
    assert library.chain(one) is None
    assert library.obstacle(one)


def test_names() -> None:
    library = Library([entry("a@a", 1), entry("a@b", 2, 1), entry("c@same", 3), entry("c@same", 4)])
    assert library.find("a").guid == "2"
    assert library.find("guid:1").snapshot == "a"
    assert library.find(entry("c@same", 4).file).guid == "4"
    assert library.find(entry("c@same", 4).file.rpartition("/")[2]).guid == "4"
    with pytest.raises(UsageError, match="c@same: 2 streams fit; name one by its file: alpha/c/@same"):
        library.find("c@same")
    for missing in ("b", "a@c", "guid:7", "@x.0000000000000001.zfs.zst"):
        with pytest.raises(NotRestorable, match="no such stream is stored"):
            library.find(missing)


def test_the_newest_is_not_silently_an_older_one() -> None:
    last = entry("a@b", 2, 1, damaged="a bit", restorable=False)
    assert Library([entry("a@a", 1), last]).find("a") == last


@pytest.mark.parametrize(("listed", "way"), [
    ([], ""),
    ([entry("a@a", 1)], ", or name a state, such as a@a"),
    ([entry("a@a", 1), entry("a@c", 3, 2)], ", or name a state, such as a@a"),  # the unlisted one is its base
])  # fmt: skip
def test_an_older_state_is_not_the_newest_because_the_receiver_lists_no_other(
    listed: list[StreamEntry], way: str
) -> None:
    """A stream whose manifest cannot be read is stored, and not listed."""
    library = Library(listed, {"a": status("a", streams=len(listed) + 1)})
    with pytest.raises(UsageError) as caught:
        library.find("a")
    assert str(caught.value) == (
        "a: it is not certain which state is the newest, because 1 manifest or folder is missing or unreadable at the"
        f" receiver (`fullsendd verify` there mends or names each): run the same command again after that{way}"
    )
    if listed:
        assert library.find("a@a") == listed[0]
        assert Library(listed, {"a": status("a", streams=len(listed))}).find("a") == listed[-1]
        # One that came between the two answers.
        assert Library(listed, {"a": status("a", streams=0)}).find("a") == listed[-1]


def everything(_name: str) -> bool:
    return True


def tree_of(library: Library, *arguments: Any) -> tuple[list[StreamEntry], list[tuple[str, str]], list[Any]]:
    tree = library.tree(*arguments)
    return tree.chosen, tree.left_out, tree.refused


def test_trees() -> None:
    library = Library([
        entry("t@1", 1), entry("t@2", 2, 1),
        entry("t/a@1", 11), entry("t/a/b@2", 12),
        entry("t/gone@1", 13), entry("t/new@2", 14, 13), entry("tt@1", 15),
    ])  # fmt: skip
    chosen, left_out, refused = tree_of(library, "t", None, everything)
    assert [each.dataset for each in chosen] == ["t", "t/a", "t/a/b", "t/new"]
    assert (left_out, refused) == ([("t/gone", "continues as t/new")], [])
    assert chosen[0].guid == "2"
    chosen, left_out, refused = tree_of(library, "t", "1", lambda name: name != "t/a")
    assert [(each.dataset, each.guid) for each in chosen] == [("t", "1"), ("t/gone", "13")]
    assert (left_out, refused) == ([], [])
    with pytest.raises(NotRestorable, match="t@9: nothing of it"):
        library.tree("t", "9", everything)
    with pytest.raises(NotRestorable, match="x: nothing of it"):
        library.tree("x", None, everything)
    # A package brings all that is below, and nothing can be received where it will be.
    library = Library([
        entry("t@1", 1), entry("t/a@1", 11), entry("t/a/b@1", 12), entry("tt@1", 15),
        entry("t/a@2", 21, kind="package"),
    ])  # fmt: skip
    chosen, left_out, _refused = tree_of(library, "t", None, everything)
    assert [each.guid for each in chosen] == ["1", "21"]
    assert left_out == [("t/a/b", "comes as it was in the package t/a@2")]
    # What has been stored by itself since then comes as it was, too: with exit 0 nobody would see that.
    library = Library([entry("t/a@2", 21, kind="package"), entry("t/a/b@3", 22), entry("t/a/c@2", 23)])
    chosen, left_out, refused = tree_of(library, "t", None, everything)
    assert ([each.guid for each in chosen], [name for name, _why in left_out]) == (["21"], ["t/a/c"])
    ((name, why),) = refused
    assert (name, "its own state @3 is newer" in str(why)) == ("t/a/b", True)


def test_a_dataset_that_the_package_above_it_has_not_got_is_restored_after_it() -> None:
    """It was left out, with exit 0, because the package "has" it: it was destroyed before the package was made."""
    package = entry("t@2", 21, kind="package")
    entries = [entry("t/a@1", 1), entry("t/old@1", 2), entry("t/old/deep@1", 3), entry("t/on@3", 22), package]
    library = Library(entries)
    contents: dict[str, frozenset[str] | None] = {package.file: frozenset({"t", "t/a", "t/on"})}
    chosen, left_out, refused = tree_of(library, "t", None, everything, contents)
    assert [each.dataset for each in chosen] == ["t", "t/old", "t/old/deep"]
    assert left_out == [("t/a", "comes as it was in the package t@2")]
    ((name, why),) = refused
    assert (name, "its own state @3 is newer" in str(why)) == ("t/on", True)
    # Where nobody knows what it has, none of it may be missing with exit 0.
    chosen, left_out, refused = tree_of(library, "t", None, everything, {package.file: None})
    assert ([each.dataset for each in chosen], left_out) == (["t"], [])
    assert [name for name, _why in refused] == ["t/a", "t/old", "t/old/deep", "t/on"]
    assert str(refused[1][1]) == (
        "may be in the package t@2, of which it cannot be found out what it contains: if it is missing when that is"
        " restored, restore it by itself (`fullsend restore t/old@1 --into`)"
    )


def test_only_a_package_that_is_restored_brings_anything() -> None:
    """A package below another one that brings the same top dataset is not restored, and brings nothing."""
    outer, inner = entry("t@2", 21, kind="package"), entry("t/a@1", 11, kind="package")
    library = Library([outer, inner, entry("t/a/b@1", 12), entry("t/a/c@1", 13)])
    contents = {outer.file: {"t", "t/a", "t/a/c"}, inner.file: {"t/a", "t/a/b"}}
    chosen, left_out, _refused = tree_of(library, "t", None, everything, contents)
    assert [each.guid for each in chosen] == ["21", "12"]
    assert [name for name, _why in left_out] == ["t/a", "t/a/c"]
    # One that the other does not bring is restored behind it.
    contents[outer.file] = {"t"}
    chosen, left_out, _refused = tree_of(library, "t", None, everything, contents)
    assert [each.guid for each in chosen] == ["21", "11", "13"]
    assert left_out == [("t/a/b", "comes as it was in the package t/a@1")]


def test_a_tree_refuses_what_the_receiver_cannot_list() -> None:
    entries = [entry("t/a@1", 1), entry("t/b@1", 2), entry("t/b@2", 3, 2), entry("t/old@1", 4), entry("t/new@2", 5, 4)]
    counts = {"t/a": 1, "t/b": 3, "t/gone": 1, "t/new": 1, "t/old": 2, "tt": 1}
    library = Library(entries, {name: status(name, streams=count) for name, count in counts.items()})
    chosen, left_out, refused = tree_of(library, "t", None, everything)
    assert [each.dataset for each in chosen] == ["t/a", "t/new"]
    assert (left_out, [name for name, _error in refused]) == ([], ["t/b", "t/gone", "t/old"])
    # What has the named snapshot is as it was then, whatever is not listed. The others may have had it.
    chosen, _left_out, refused = tree_of(library, "t", "2", everything)
    assert [(each.dataset, each.snapshot) for each in chosen] == [("t/a", "1"), ("t/b", "2"), ("t/new", "2")]
    assert [name for name, _error in refused] == ["t/gone", "t/old"]
    chosen, _left_out, refused = tree_of(library, "t", None, lambda name: name == "t/a")
    assert ([each.dataset for each in chosen], refused) == (["t/a"], [])


@pytest.mark.slow
def test_large_libraries_take_no_time_that_grows_with_their_square() -> None:
    """A thousand datasets with fifty streams each: a quadratic walk takes minutes, and a test has one."""
    entries = [
        entry(f"t/{number}@{night}", number * 100 + night + 1, number * 100 + night if night else None)
        for number in range(1000)
        for night in range(50)
    ]
    library = Library(entries)
    chosen, _left_out, _refused = tree_of(library, "t", None, everything)
    assert len(chosen) == 1000
    assert all(guids(library.chain(each)) for each in chosen)


# --- which state is the newest ------------------------------------------------------------------------------------


def test_a_clock_that_was_behind_for_two_nights_makes_nothing_old_the_newest() -> None:
    """sanoid issue 815: the host wakes up in 2021, and its increments look older than their full."""
    behind = {"created": "2021-01-01T02:00:00Z"}
    nights = [entry("a@1", 1), entry("a@2", 2, 1, **behind), entry("a@3", 3, 2, **behind)]
    assert Library(reversed(nights)).find("a") == nights[2]
    # Streams that an older fullsendd stored have no number: the receiver's clock orders them, and then the chain.
    old = [each.model_copy(update={"sequence": None}) for each in nights]
    assert Library(old).find("a") == old[2]


def test_after_a_rollback_the_end_that_came_last_is_the_newest_and_the_other_is_named() -> None:
    rolled_back, newest = entry("a@3", 3, 2), entry("a@4", 4, 1)
    library = Library([entry("a@1", 1), entry("a@2", 2, 1), rolled_back, newest])
    assert library.find("a") == newest
    assert library.other_ends(newest) == [rolled_back]
    assert library.other_ends(rolled_back) == [newest]


def test_a_chain_that_a_new_full_has_ended_is_no_branch() -> None:
    newest = entry("a@4", 4, 3)
    library = Library([entry("a@1", 1), entry("a@2", 2, 1), entry("a@3", 3), newest])
    assert library.find("a") == newest
    assert library.other_ends(newest) == []


@pytest.mark.parametrize("base", [None, 1])
def test_what_came_last_and_was_not_taken_last_is_a_question(base: int | None) -> None:
    """An older snapshot was pushed by name, or a clock was wrong: no answer may depend on which."""
    library = Library([entry("a@1", 1), entry("a@3", 3, 1), entry("a@2", 4, base, created="2026-11-01T00:00:00Z")])
    with pytest.raises(UsageError) as caught:
        library.find("a")
    said = str(caught.value)
    assert "a: it is not certain which state is the newest" in said
    assert "a@2, taken 2026-11-01T00:00:00Z, received" in said
    assert "a@3, taken 2026-11-04T02:00:00Z, received" in said
    assert library.find("a@3").guid == "3"
    chosen, _left_out, refused = tree_of(library, "a", None, everything)
    assert (chosen, [name for name, _error in refused]) == ([], ["a"])


def test_one_snapshot_in_two_classes_is_one_state() -> None:
    library = Library(
        [entry("a@1", 1), entry("a@1", 1, flags="Lewp", file="w.zfs.zst", sequence=2), entry("a@2", 3, 1)]
    )
    assert library.find("a").snapshot == "2"
    assert library.other_ends(library.find("a")) == []


def test_the_old_name_of_a_dataset_does_not_give_its_old_state() -> None:
    library = Library([
        entry("tank/home@1", 1), entry("tank/home@2", 2, 1), entry("new/home@3", 3, 2), entry("new/home@4", 4, 3),
        entry("last/home@5", 5, 4),
    ])  # fmt: skip
    with pytest.raises(UsageError) as caught:
        library.find("tank/home")
    assert str(caught.value) == (
        "tank/home was renamed, and continues as last/home, up to @5: restore that (`fullsend restore last/home --into"
        " tank/home`), or name the state before (`fullsend restore tank/home@2`)"
    )
    assert library.find("last/home").guid == "5"
    assert library.find("tank/home@2").guid == "2"
    chosen, left_out, refused = tree_of(library, "tank", None, everything)
    assert (chosen, left_out, [name for name, _error in refused]) == ([], [], ["tank/home"])
    # A new dataset of the old name is what its name says.
    library = Library([entry("t/a@1", 1), entry("t/b@2", 2, 1), entry("t/a@3", 3)])
    assert library.find("t/a").guid == "3"


def test_a_tree_as_of_a_snapshot_goes_by_the_order_of_reception() -> None:
    behind: dict[str, Any] = {"created": "2021-01-01T00:00:00Z"}
    library = Library([
        entry("t/quiet@sun", 1), entry("t@mon", 2), entry("t/a@mon", 3, None, **behind),
        entry("t/quiet@tue", 4, 1, **behind), entry("t@tue", 5, 2), entry("t/late@tue", 6),
        entry("t/b@mon", 7, created="2026-11-03T02:00:00Z"),  # a push that was tried again the night after
    ])  # fmt: skip
    chosen, _left_out, refused = tree_of(library, "t", "mon", everything)
    assert [(each.dataset, each.snapshot) for each in chosen] == [
        ("t", "mon"), ("t/a", "mon"), ("t/b", "mon"), ("t/quiet", "sun"),
    ]  # fmt: skip
    assert refused == []


def test_a_dataset_of_which_nothing_so_old_is_stored_is_named() -> None:
    """What it had at that snapshot was merged into a later full: it was missing with exit 0, and without a word."""
    library = Library([
        entry("t@mon", 1), entry("t/vm@thu", 2), entry("t/gone@mon", 3), entry("t/new@tue", 4, 3), entry("t@tue", 5, 1),
    ])  # fmt: skip
    tree = library.tree("t", "mon", everything)
    assert [each.dataset for each in tree.chosen] == ["t", "t/gone"]
    assert (tree.left_out, tree.refused, tree.doubtful) == ([], [], [])
    # What t/new is now was t/gone then.
    note = (
        "has nothing stored that was received before @mon, and is left out: it is younger, or what it had then was"
        " merged or pruned since"
    )
    assert tree.notes == [("t/vm", note)]
    # A package that brings it leaves nothing to say.
    package = entry("t@sun", 6, kind="package")
    library = Library([package, entry("t/vm@thu", 7), entry("t/late@thu", 8)])
    tree = library.tree("t", "sun", everything, {package.file: {"t", "t/vm"}})
    assert ([each.dataset for each in tree.chosen], [name for name, _note in tree.notes]) == (["t"], ["t/late"])


@pytest.mark.parametrize(("base", "notes", "doubts"), [(1, 0, 1), (None, 1, 0)])
def test_an_older_state_whose_successors_may_be_gone_is_named(base: int | None, notes: int, doubts: int) -> None:
    """A policy has kept what was received weeks before that snapshot, and what came after it."""
    entries = [entry("t/a@sun", 1), entry("t@mon", 2), entry("t/a@tue", 3, base), entry("t/same@sun", 0)]
    tree = Library(entries).tree("t", "mon", everything)
    assert [(each.dataset, each.snapshot) for each in tree.chosen] == [("t", "mon"), ("t/a", "sun"), ("t/same", "sun")]
    assert (len(tree.notes), len(tree.doubtful)) == (notes, doubts)
    said = (
        "has no @mon, and comes as of @sun, received 2026-11-24T02:00:00Z. It may have had a later state then: what"
        " came next,"
    )
    if doubts:  # only that stream's manifest says whether it was merged
        assert tree.doubtful == [("t/a", f"{said} up to @tue, was merged since", entries[2])]
    else:
        assert tree.notes == [("t/a", f"{said} @tue, does not build on that")]


def test_a_state_that_the_clock_says_is_younger_than_the_snapshot_is_taken_and_said() -> None:
    library = Library([entry("t/quiet@sun", 10), entry("t@mon", 11, created="2026-11-01T00:00:00Z")])
    tree = library.tree("t", "mon", everything)
    assert [(each.dataset, each.snapshot) for each in tree.chosen] == [("t", "mon"), ("t/quiet", "sun")]
    ((name, note),) = tree.notes
    assert name == "t/quiet"
    assert "has no @mon, and comes as of @sun" in note


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[StreamEntry], str]:
    """Nights of one dataset: increments on any state that was the newest once (a rollback), new fulls, other classes,
    renames; a clock that says anything. Returns: what is stored, and the GUID that was pushed last under its last name.
    """
    entries: list[StreamEntry] = []
    name, current = "a", 0
    for guid in range(1, draw(st.integers(1, 9)) + 1):
        what = draw(st.sampled_from(["next", "next", "next", "full", "rollback", "rename"]))
        if what == "rename" and current:
            name = f"{name}x"
        if what == "rollback" and current:
            states = [int(each.guid) for each in entries if each.dataset == name]
            current = draw(st.sampled_from(states)) if states else current
        base = None if what == "full" or not current else current
        year = draw(st.integers(2020, 2036))
        entries.append(entry(f"{name}@{guid}", guid, base, created=f"{year}-01-01T00:00:00Z"))
        current = guid
    return entries, name


@given(histories(), st.randoms())
def test_the_newest_is_what_was_pushed_last_or_a_question(
    history: tuple[list[StreamEntry], str], order: random.Random
) -> None:
    entries, name = history
    order.shuffle(entries)
    last = max((each for each in entries if each.dataset == name), key=lambda each: each.sequence or 0)
    with contextlib.suppress(UsageError):
        assert Library(entries).find(name).guid == last.guid
    # Without what the sender's clock says there is no question, and the same answer.
    same = [each.model_copy(update={"created": "2026-01-01T00:00:00Z"}) for each in entries]
    assert Library(same).find(name).guid == last.guid


@given(st.lists(st.tuples(st.integers(1, 8), st.none() | st.integers(1, 8), st.booleans()), max_size=12), st.data())
def test_every_chain_can_be_received(streams: list[tuple[int, int | None, bool]], data: st.DataObject) -> None:
    entries = [
        entry(f"a@{guid}", guid, base, file=f"{number}.zfs.zst", damaged="x" if damaged else None)
        for number, (guid, base, damaged) in enumerate(streams)
    ]
    library = Library(entries)
    after = data.draw(st.none() | st.integers(1, 8).map(str))
    for each in entries:
        chain = library.chain(each, after)
        if chain:
            assert chain[-1].guid == each.guid
            assert chain[0].base_guid == after
            assert all(one.guid == other.base_guid for one, other in itertools.pairwise(chain))
            assert not any(one.damaged for one in chain)
        elif chain is None:
            library.obstacle(each)
