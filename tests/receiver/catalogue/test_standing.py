from __future__ import annotations

from typing import TYPE_CHECKING

from tests.receiver.helpers import SENDER, plant
from tests.receiver.histories import stream

from fullsend_receiver.catalogue.problems import Problem, ProblemKind
from fullsend_receiver.catalogue.standing import lost_spills, newest_state, problem_datasets
from fullsend_receiver.catalogue.streams import read_catalogue

if TYPE_CHECKING:
    from fullsend_receiver.store.local import LocalStore

FULL, NEXT = stream(1), stream(2, 1)


def test_the_end_of_the_chain_is_the_newest_state() -> None:
    assert newest_state([NEXT, FULL], {}) == (NEXT, None)
    assert newest_state([], {}) == (None, None)


def test_a_report_of_the_newest_state_is_returned_with_it() -> None:
    said = {(NEXT.dataset, NEXT.guid): "2026-11-20T00:00:00Z"}
    assert newest_state([FULL, NEXT], said) == (NEXT, "2026-11-20T00:00:00Z")


def test_a_report_after_an_older_snapshot_was_pushed_counts() -> None:
    other = stream(9, None)
    said = {(FULL.dataset, FULL.guid): "2027-01-01T00:00:00Z"}
    assert newest_state([FULL, other], said) == (FULL, "2027-01-01T00:00:00Z")


def test_a_chain_loses_what_each_of_its_streams_loses(store: LocalStore) -> None:
    lost = [{"snapshot": "tank/data@a", "object": 1}]
    full = plant(store, "a", 1, lost_spills=lost)
    plant(store, "b", 2, 1, lost_spills=lost)
    orphan = plant(store, "d", 4, 3)
    found = lost_spills(read_catalogue(store, SENDER))
    assert sorted(found.values()) == [1, 2]
    assert str(full) in found
    assert str(orphan) not in found


def test_a_problem_is_of_the_dataset_of_its_folder(store: LocalStore) -> None:
    file = plant(store, "a", 1)
    beside = Problem(ProblemKind.NO_MANIFEST, f"{file.parent}/@x.zst", "has no manifest")
    alone = Problem(ProblemKind.FOLDER, f"{SENDER}/tank/other", "cannot be read")
    streams = read_catalogue(store, SENDER).streams
    assert list(problem_datasets([beside, alone], streams)) == [("tank/data", beside), ("tank/other", alone)]
