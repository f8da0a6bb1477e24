from __future__ import annotations

from fullsend_sender.zfs.inventory import Snapshot, parse, parse_snapshots

LISTING = """\
tank	filesystem	11	1	1790000000	0	98304	-	off	-
tank/a b	filesystem	12	5	1790000005	4096	200	-	aes-256-gcm	unavailable
tank/a b@2	snapshot	22	9	1790000009	0	100	3	aes-256-gcm	-
tank/a b@1	snapshot	21	7	1790000007	0	100	0	aes-256-gcm	-
tank/disk	volume	13	6	1790000006	8192	300	-	aes-256-gcm	available
tank/a b#one	bookmark	21	7	1790000007	-	-	-	-	-
elsewhere@1	snapshot	99	7	1790000007	0	100	0	off	-
"""


def test_one_listing() -> None:
    datasets = parse(LISTING)
    assert list(datasets) == ["tank", "tank/a b", "tank/disk"]
    tank, home, disk = datasets.values()
    assert (tank.type, disk.type, tank.pool, home.pool) == ("filesystem", "volume", "tank", "tank")
    assert (tank.encrypted, home.encrypted, disk.encrypted) == (False, True, True)
    assert (home.key_loaded, disk.key_loaded) == (False, True)
    assert (home.written, home.referenced, home.guid) == (4096, 200, "12")
    # Oldest first, whatever the listing's order.
    assert home.snapshots == [Snapshot("1", "21", 7, 1790000007, 0, 0), Snapshot("2", "22", 9, 1790000009, 3, 0)]
    assert home.bookmarks == [Snapshot("one", "21", 7, 1790000007, 0, 0)]
    assert home.has("1")
    assert not home.has("3")
    assert tank.snapshots == []


def test_nothing() -> None:
    assert parse("") == {}


def test_snapshots_alone() -> None:
    line = LISTING.splitlines()[2]
    assert parse_snapshots(line + "\n") == {"tank/a b@2": Snapshot("2", "22", 9, 1790000009, 3, 0)}


def test_what_was_written_and_is_not_known_is_not_nothing() -> None:
    """`zfs list` shows a dash where the kernel could not read it."""
    home = parse(LISTING.replace("4096\t200", "-\t200").replace("0\t100\t3", "-\t100\t3"))["tank/a b"]
    assert home.written is None
    assert [each.written for each in home.snapshots] == [0, None]
