from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from tests.sender.peer import status
from tests.sender.restore.test_chains import entry

from fullsend_protocol.format.manifest import StreamEntry
from fullsend_protocol.shared.errors import UsageError
from fullsend_sender.drill.choose import Broken, Chooser, TooLargeError
from fullsend_sender.restore.chains import Library, NotRestorable

A = [entry("tank/a@1", 1), entry("tank/a@2", 2, 1), entry("tank/a@3", 3, 2)]
B = [entry("tank/b@1", 11), entry("tank/b@2", 12, 11)]


def chooser(entries: Sequence[StreamEntry], seed: int = 1, **about: Any) -> Chooser:
    said: dict[str, Any] = {"into": "tank/drill", "room": 1 << 30, "newest": False} | about
    return Chooser(entries, Library(entries), random=random.Random(seed), **said)


def test_each_dataset_has_its_turn() -> None:
    last = {"tank/a": "2026-11-01T00:00:00Z", "tank/b": "2026-10-01T00:00:00Z"}
    assert chooser([*A, *B]).choose(None, last).entry.dataset == "tank/b"
    last["tank/b"] = "2026-11-08T00:00:00Z"
    assert chooser([*A, *B]).choose(None, last).entry.dataset == "tank/a"
    # What never had one is first.
    assert chooser([*A, *B]).choose(None, {"tank/a": "2001-01-01T00:00:00Z"}).entry.dataset == "tank/b"
    # Without any, the chance decides.
    assert {chooser([*A, *B], seed).choose(None, {}).entry.dataset for seed in range(20)} == {"tank/a", "tank/b"}


def test_any_snapshot_may_be_chosen_and_a_seed_makes_it_the_same() -> None:
    found = [chooser(A, seed).choose("tank/a", {}).name for seed in range(30)]
    assert set(found) == {"tank/a@1", "tank/a@2", "tank/a@3"}
    assert found == [chooser(A, seed).choose("tank/a", {}).name for seed in range(30)]
    newest = chooser(A, newest=True).choose("tank/a", {})
    assert (newest.name, len(newest.chain), newest.raw_bytes) == ("tank/a@3", 3, 3000)
    assert chooser(A).choose("tank/a@2", {}).name == "tank/a@2"
    assert chooser(A).choose("guid:3", {}).name == "tank/a@3"


def test_an_older_state_is_not_drilled_as_the_newest() -> None:
    library = Library([*A, *B], {"tank/a": status("tank/a", streams=4)})
    drills = Chooser([*A, *B], library, "tank/drill", 1 << 30, newest=True, random=random.Random(1))
    assert drills.choose(None, {"tank/b": "2026-11-01T00:00:00Z"}).name == "tank/b@2"
    (note,) = drills.notes
    assert "tank/a: it is not certain which state is the newest" in note
    with pytest.raises(UsageError, match="tank/a: it is not certain"):
        drills.choose("tank/a", {})


def test_what_is_still_here_comes_up_more_often() -> None:
    """Only of that contents can be compared; and the others must be restored, too."""
    many = [entry("tank/a@0", 100), *(entry(f"tank/a@{number}", 100 + number, 99 + number) for number in range(1, 50))]
    here = {"149"}
    found = [chooser(many, seed, here=here).choose("tank/a", {}).entry.guid in here for seed in range(100)]
    assert 25 < sum(found) < 75
    assert sum(chooser(many, seed).choose("tank/a", {}).entry.guid in here for seed in range(100)) < 25


def test_what_cannot_be_restored_is_a_failed_drill() -> None:
    """A drill that passed it over would say that all is well."""
    broken = [each.model_copy(update={"damaged": "it is"}) for each in A]
    with pytest.raises(Broken, match="none of its 3 stored streams") as caught:
        chooser([*broken, *B]).choose(None, {"tank/b": "2026-10-01T00:00:00Z"})
    assert caught.value.entry == broken[-1]
    # Of some others can be restored.
    some = [A[0], *broken[1:]]
    assert {chooser(some, seed).choose(None, {}).name for seed in range(9)} == {"tank/a@1"}
    with pytest.raises(Broken, match="tank/a@3 cannot be restored"):
        chooser(some, newest=True).choose(None, {})


def test_what_does_not_fit_is_passed_over_with_a_word() -> None:
    large = [entry("tank/a@1", 1, raw_bytes=5000)]
    found = chooser([*large, *B], room=2000)
    assert found.choose(None, {"tank/b": "2026-10-01T00:00:00Z"}).entry.dataset == "tank/b"
    (note,) = found.notes
    assert note.startswith("tank/a@1 needs up to 4.9 KiB, and tank/drill has room for 2.0 KiB")
    with pytest.raises(TooLargeError):
        chooser(large, room=2000).choose("tank/a", {})
    with pytest.raises(UsageError, match="none of the stored datasets"):
        chooser(large, room=2000).choose(None, {})
    # A shorter chain of the same may fit.
    assert {chooser(A, seed, room=1500).choose(None, {}).name for seed in range(9)} == {"tank/a@1"}


def test_a_package_is_no_drill() -> None:
    package = [entry("tank@1", 21, kind="package")]
    found = chooser([*package, *B])
    assert found.choose(None, {"tank/b": "2026-10-01T00:00:00Z"}).entry.dataset == "tank/b"
    assert "only as a package" in found.notes[0]
    with pytest.raises(UsageError, match="package"):
        chooser(package).choose("tank@1", {})
    below = [*package, entry("tank@2", 22, 21)]
    with pytest.raises(NotRestorable):
        chooser(below).choose("tank", {})


def test_the_scratch_place_is_no_drill() -> None:
    """It may have been pushed with all that is around it."""
    with pytest.raises(UsageError, match="nothing is stored"):
        chooser([entry("tank/drill@1", 1), entry("tank/drill/x@1", 2)]).choose(None, {})
    with pytest.raises(NotRestorable, match="no such stream"):
        chooser(A).choose("tank/typo", {})
