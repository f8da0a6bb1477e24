from __future__ import annotations

from tests.sender.push.test_plan import base, dataset, point

from fullsend_protocol.shared.errors import FullsendError
from fullsend_sender.push.gone import is_retired, renamed, why
from fullsend_sender.zfs.pools import Pools


def test_a_dataset_that_continues_in_the_store_was_renamed() -> None:
    """Also where its old snapshots and bookmarks are gone at home."""
    stored = [base(1, dataset="tank/old"), base(2, dataset="tank/new", base_guid="1"), base(3, dataset="tank/gone")]
    assert renamed(stored, {}) == {"tank/old": "tank/new"}


def test_a_dataset_of_which_a_clone_took_the_chain_is_another_one() -> None:
    """`zfs promote` gives its snapshots to the clone; what it was begins a new chain, and may be gone."""
    stored = [
        base(1, dataset="tank/a", age=900),
        base(2, dataset="tank/clone", base_guid="1", age=900, streams=2),
        base(3, dataset="tank/a", age=100),
    ]
    assert renamed(stored, {}) == {}


def test_what_has_streams_from_before_is_no_new_name() -> None:
    replica = [
        base(1, dataset="tank/a", age=900),
        base(11, dataset="tank/copy", base_guid="1", age=900, streams=2),
        base(2, dataset="tank/a", base_guid="1", age=900, streams=2),
        base(12, dataset="tank/copy", base_guid="2", age=900, streams=3),
    ]
    assert renamed(replica, {}) == {}
    # What was renamed then is told from it; a new full of that is no stream from before.
    new = [base(3, dataset="tank/new", base_guid="2", age=900, streams=3), base(4, dataset="tank/new", age=100)]
    assert renamed([*replica, *new], {}) == {"tank/a": "tank/new"}
    assert renamed([*replica[:1], base(2, dataset="tank/new", base_guid="1", age=900), *new[1:]], {}) == {
        "tank/a": "tank/new"
    }


def test_a_dataset_whose_snapshot_is_here_was_renamed() -> None:
    here = {
        "new/a": dataset(name="new/a", snapshots=[point("x", 1, 1)], bookmarks=[]),
        "new/b": dataset(name="new/b", snapshots=[], bookmarks=[point("mark", 2, 1)]),
        "tank/c": dataset(name="tank/c", snapshots=[point("x", 3, 1)], bookmarks=[]),
    }
    stored = [
        base(1, dataset="tank/a"),
        base(2, dataset="tank/b"),
        base(3, dataset="tank/c"),
        base(4, dataset="tank/d"),
    ]
    assert renamed(stored, here) == {"tank/a": "new/a", "tank/b": "new/b"}


def test_what_is_said() -> None:
    assert "no pool ext is imported" in why("ext/a", Pools({"tank": "ONLINE"}))
    no_zpool = Pools({"tank": ""}, FullsendError("zpool cannot be asked"))
    assert "no pool ext is imported, or it is suspended" in why("ext/a", no_zpool)
    assert "destroyed or renamed" in why("tank/a", Pools({"tank": "ONLINE"}))
    assert is_retired("tank/old/a", ["ext/*", "tank/old/**"])
    assert not is_retired("tank/old", ["tank/old/**"])
