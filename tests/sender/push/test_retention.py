from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.sender.peer import partial_entry

from fullsend_sender.push import naming, retention
from fullsend_sender.zfs.inventory import Dataset, Snapshot

NAS, OTHER = "aaaaaaaa", "bbbbbbbb"
NOTHING = retention.Needed()


def dataset(snapshots: list[Snapshot], bookmarks: list[Snapshot]) -> Dataset:
    return Dataset("tank/a", "filesystem", "1", 0, 0, False, False, snapshots, bookmarks)


def own(receiver: str, number: int) -> Snapshot:
    return Snapshot(naming.snapshot_name(receiver, 1_790_000_000 + number), str(100 + number), number, 0, 0, 0)


def mark(receiver: str, number: int) -> Snapshot:
    return Snapshot(naming.bookmark_name(receiver, str(100 + number)), str(100 + number), number, 0, 0, 0)


def test_the_newest_stay() -> None:
    snapshots = [own(NAS, number) for number in range(5)]
    assert retention.outdated_snapshots(dataset(snapshots, []), NAS, 2, NOTHING) == snapshots[:3]
    assert retention.outdated_snapshots(dataset(snapshots, []), NAS, 9, NOTHING) == []
    assert retention.outdated_snapshots(dataset(snapshots, []), OTHER, 1, NOTHING) == []


def test_the_last_common_base_of_anybody_stays() -> None:
    # The last three pushes failed, so the base is older than what is kept; and another receiver was sent one of ours.
    snapshots = [own(NAS, number) for number in range(5)]
    marks = [mark(NAS, 0), mark(OTHER, 1), mark(NAS, 2)]
    assert retention.outdated_snapshots(dataset(snapshots, marks), NAS, 2, NOTHING) == [snapshots[0]]


def test_bookmarks() -> None:
    marks = [mark(NAS, 0), mark(NAS, 1), mark(OTHER, 2), mark(NAS, 3), Snapshot("mine", "9", 4, 0, 0, 0)]
    assert retention.outdated_bookmarks(dataset([], marks), NAS, NOTHING) == [marks[0]]
    assert retention.outdated_bookmarks(dataset([], marks), OTHER, NOTHING) == []


def test_what_has_arrived_in_part_can_be_resumed() -> None:
    snapshots, marks = [own(NAS, n) for n in range(5)], [mark(NAS, n) for n in (0, 1, 3, 4)]
    needed = retention.Needed([partial_entry(dataset="tank/renamed", guid="102", base_guid="100")])
    assert retention.outdated_snapshots(dataset(snapshots, []), NAS, 1, needed) == [snapshots[1], snapshots[3]]
    assert retention.outdated_bookmarks(dataset([], marks), NAS, needed) == [marks[1]]
    # A package: all that are there, of its top and below.
    for top, kept in (("tank", True), ("tank/a", True), ("tank/a/b", False), ("tan", False)):
        needed = retention.Needed([partial_entry(dataset=top, guid=None, base_guid=None)])
        assert (retention.outdated_snapshots(dataset(snapshots, []), NAS, 1, needed) == []) == kept


@given(
    st.lists(st.tuples(st.sampled_from([NAS, OTHER, "mine"]), st.booleans()), max_size=12),
    st.integers(min_value=1, max_value=4),
)
def test_nobody_elses_is_ever_touched(what: list[tuple[str, bool]], count: int) -> None:
    snapshots = [
        own(whose, n) if whose != "mine" else Snapshot(f"m{n}", str(n), n, 0, 0, 0) for n, (whose, _) in enumerate(what)
    ]
    marks = [mark(whose, n) for n, (whose, marked) in enumerate(what) if marked and whose != "mine"]
    found = dataset(snapshots, marks)
    outdated = retention.outdated_snapshots(found, NAS, count, NOTHING)
    assert all(naming.snapshot_receiver(each.name) == NAS for each in outdated)
    assert snapshots[-1:] == [] or snapshots[-1] not in outdated
    for whose in (NAS, OTHER):
        theirs = [each for each in marks if whose in each.name]
        assert not theirs or theirs[-1].guid not in {each.guid for each in outdated}
