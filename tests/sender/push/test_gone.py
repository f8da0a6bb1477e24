from __future__ import annotations

from tests.sender.push.test_plan import base, dataset, point

from fullsend_protocol.shared.errors import FullsendError
from fullsend_sender.push.gone import is_retired, renamed, why
from fullsend_sender.push.naming import bookmark_name, bookmark_receiver
from fullsend_sender.zfs.inventory import Dataset, Snapshot
from fullsend_sender.zfs.pools import Pools

OURS = "70d2c0df"


def test_a_dataset_that_continues_in_the_store_was_renamed() -> None:
    """Also where its old snapshots and bookmarks are gone at home."""
    stored = [base(1, dataset="tank/old"), base(2, dataset="tank/new", base_guid="1"), base(3, dataset="tank/gone")]
    assert renamed(stored, {}, OURS, ()) == {"tank/old": "tank/new"}


def test_a_dataset_of_which_a_clone_took_the_chain_is_another_one() -> None:
    """`zfs promote` gives its snapshots to the clone; what it was begins a new chain, and may be gone."""
    stored = [
        base(1, dataset="tank/a", age=900),
        base(2, dataset="tank/clone", base_guid="1", age=900, streams=2),
        base(3, dataset="tank/a", age=100),
    ]
    assert renamed(stored, {}, OURS, ()) == {}


def test_what_has_streams_from_before_is_no_new_name() -> None:
    replica = [
        base(1, dataset="tank/a", age=900),
        base(11, dataset="tank/copy", base_guid="1", age=900, streams=2),
        base(2, dataset="tank/a", base_guid="1", age=900, streams=2),
        base(12, dataset="tank/copy", base_guid="2", age=900, streams=3),
    ]
    assert renamed(replica, {}, OURS, ()) == {}
    # What was renamed then is told from it; a new full of that is no stream from before.
    new = [base(3, dataset="tank/new", base_guid="2", age=900, streams=3), base(4, dataset="tank/new", age=100)]
    assert renamed([*replica, *new], {}, OURS, ()) == {"tank/a": "tank/new"}
    assert renamed([*replica[:1], base(2, dataset="tank/new", base_guid="1", age=900), *new[1:]], {}, OURS, ()) == {
        "tank/a": "tank/new"
    }


def mark(guid: int, receiver: str = OURS) -> Snapshot:
    return point(bookmark_name(receiver, str(guid)), guid, guid)


def here(**found: list[Snapshot]) -> dict[str, Dataset]:
    """Datasets, each with these snapshots, and those that have a bookmark's name as bookmarks."""
    made = {}
    for key, points in found.items():
        name = key.replace("_", "/")
        marks = [each for each in points if bookmark_receiver(each.name, each.guid)]
        made[name] = dataset(name=name, snapshots=[each for each in points if each not in marks], bookmarks=marks)
    return made


def test_a_dataset_whose_bookmark_is_here_was_renamed() -> None:
    """Also where its pool has another name now."""
    found = here(new_a=[point("x", 1, 1), mark(1)], new_b=[mark(2)], tank_c=[point("x", 3, 1)])
    stored = [base(guid, dataset=f"tank/{name}") for name, guid in {"a": 1, "b": 2, "c": 3, "d": 4}.items()]
    assert renamed(stored, found, OURS, ()) == {"tank/a": "new/a", "tank/b": "new/b"}


def test_a_replica_that_is_not_pushed_is_no_new_name_of_what_is_gone() -> None:
    """It has the same snapshots, and no bookmark: no replication copies these."""
    stored = [base(1, dataset="tank/a"), base(2, dataset="tank/b")]
    replica = here(backup_a=[point("x", 1, 1)], tank_copy_b=[point("x", 2, 1)], tank_other=[mark(9)])
    assert renamed(stored, replica, OURS, ()) == {}
    # What was pushed to another receiver has that one's bookmarks.
    assert renamed(stored, here(backup_a=[point("x", 1, 1), mark(1, "0" * 8)]), OURS, ()) == {}
    # The bookmark wins over what only has the snapshot, in any order.
    for names in (("backup_a", "new_a"), ("new_a", "backup_a")):
        found = here(**{name: [point("x", 1, 1), *([mark(1)] if name == "new_a" else [])] for name in names})
        assert renamed(stored, found, OURS, ["backup", "new"]) == {"tank/a": "new/a"}


def test_where_there_are_no_bookmarks_snapshots_tell_what_was_renamed() -> None:
    stored = [base(1, dataset="tank/a")]
    assert renamed(stored, here(new_a=[point("x", 1, 1)]), OURS, ["new"]) == {"tank/a": "new/a"}
    # zfs allow without `bookmark`, for example: nothing in the pool has any.
    assert renamed(stored, here(tank_new=[point("x", 1, 1)]), OURS, ()) == {"tank/a": "tank/new"}


def test_what_is_said() -> None:
    assert "no pool ext is imported" in why("ext/a", Pools({"tank": "ONLINE"}))
    no_zpool = Pools({"tank": ""}, FullsendError("zpool cannot be asked"))
    assert "no pool ext is imported, or it is suspended" in why("ext/a", no_zpool)
    assert "destroyed or renamed" in why("tank/a", Pools({"tank": "ONLINE"}))
    assert is_retired("tank/old/a", ["ext/*", "tank/old/**"])
    assert not is_retired("tank/old", ["tank/old/**"])
