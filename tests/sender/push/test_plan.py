from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.sender.peer import partial_entry

from fullsend_protocol.format.manifest import PartialEntry
from fullsend_protocol.wire.messages import Base, DamagedEntry
from fullsend_sender.host.options import FullAfter, SendOptions
from fullsend_sender.push.plan import (
    CannotSend,
    NothingToSend,
    PlannedSend,
    StoredBases,
    decide_package,
    find_begun,
    find_begun_package,
    find_repair,
    options_of,
)
from fullsend_sender.push.plan import decide as decide_at
from fullsend_sender.zfs.inventory import Dataset, Snapshot

PLAIN = SendOptions()
NONE = StoredBases([])


def point(name: str, guid: int, txg: int) -> Snapshot:
    return Snapshot(name, str(guid), txg, 1_789_000_000 + txg, 0, 4096)


MONDAY, TUESDAY, WEDNESDAY = point("mon", 101, 1), point("tue", 102, 2), point("wed", 103, 3)
TUESDAY_MARK = TUESDAY._replace(name="tue-mark")


def dataset(**changed: Any) -> Dataset:
    found = Dataset("tank/a", "filesystem", "7", 4096, 9999, False, False, [MONDAY, TUESDAY, WEDNESDAY], [TUESDAY_MARK])
    return replace(found, **changed)


def base(guid: int, flags: str = "Lep", **changed: Any) -> Base:
    said = {
        "dataset": "tank/a",
        "streams": 1,
        "base_guid": None,
        "age": 0,
        "full_bytes": 1000,
        "increment_bytes": 0,
    }
    return Base.model_validate({**said, "guid": str(guid), "flags": flags, **changed})


def decide(
    of: Dataset, how: SendOptions, stored: StoredBases, *, now: float = 1_789_000_100.0, **how_else: Any
) -> NothingToSend | PlannedSend:
    """As of a minute and a half after the snapshots here."""
    return decide_at(of, how, stored, now=now, **how_else)


def sent(decided: object) -> PlannedSend:
    assert isinstance(decided, PlannedSend)
    return decided


def test_the_first_push_is_a_full_without_a_word() -> None:
    send = sent(decide(dataset(), PLAIN, StoredBases([])))
    assert (send.snapshot, send.base, send.reason) == (None, None, "")
    assert send.arguments("new") == ("-L", "-p", "tank/a@new")


def test_the_newest_stored_one_is_the_base() -> None:
    send = sent(decide(dataset(), PLAIN, StoredBases([base(101), base(102)])))
    assert send.arguments("new") == ("-L", "-p", "-i", "tank/a@tue", "tank/a@new")
    bookmark_only = dataset(snapshots=[MONDAY, WEDNESDAY])
    send = sent(decide(bookmark_only, PLAIN, StoredBases([base(101), base(102)])))
    assert send.arguments("new")[-2:] == ("tank/a#tue-mark", "tank/a@new")


def test_a_base_is_known_by_its_guid_alone() -> None:
    send = sent(decide(dataset(name="tank/renamed"), PLAIN, StoredBases([base(102)])))
    assert send.base == TUESDAY
    again = dataset(snapshots=[point("tue", 902, 2)], bookmarks=[])
    send = sent(decide(again, PLAIN, StoredBases([base(102)])))
    assert send.base is None
    assert "destroyed and created again" in send.reason
    assert not send.routine


def test_a_raw_dataset_builds_on_what_is_stored_under_its_own_name() -> None:
    """A copy with another key has the GUIDs of the original: the newest that both have may be stored of that alone."""
    secret = dataset(encrypted=True)
    original = base(103, "w", dataset="tank/original")
    send = sent(decide(secret, PLAIN, StoredBases([base(101, "w"), base(102, "w"), original])))
    assert send.base == TUESDAY
    assert sent(decide(secret, PLAIN, StoredBases([base(101, "w"), original]))).base == MONDAY
    # After a rename, and of a clone, nothing is stored under its name that it has.
    assert sent(decide(secret, PLAIN, StoredBases([base(999, "w"), original]))).base == WEDNESDAY
    # Plain ones have no keys.
    plain = StoredBases([base(101), base(103, dataset="tank/original")])
    assert sent(decide(dataset(), PLAIN, plain)).base == WEDNESDAY


def test_a_chain_of_raw_streams_is_that_of_its_own_dataset() -> None:
    mine = [base(101, "w", streams=5), base(102, "w", base_guid="101", streams=6)]
    theirs = base(101, "w", dataset="tank/original")
    assert StoredBases([theirs, *mine]).chain(mine[1]) == mine[::-1]
    assert StoredBases([theirs, mine[1]]).chain(mine[1]) == [mine[1], theirs]


def test_nothing_new() -> None:
    same = decide(dataset(written=0), PLAIN, StoredBases([base(103)]))
    assert isinstance(same, NothingToSend)
    assert same.snapshot == WEDNESDAY
    assert isinstance(decide(dataset(written=0), PLAIN, StoredBases([base(102)])), PlannedSend)  # not stored yet
    empty = dataset(written=0, snapshots=[MONDAY, TUESDAY, WEDNESDAY._replace(written=0)])
    same = decide(empty, PLAIN, StoredBases([base(102)]))  # the newest is another receiver's, and brings nothing
    assert isinstance(same, NothingToSend)
    assert same.snapshot == TUESDAY
    assert isinstance(decide(dataset(), PLAIN, StoredBases([base(103)])), PlannedSend)
    assert isinstance(decide(dataset(written=None), PLAIN, StoredBases([base(103)])), PlannedSend)  # nobody can tell
    unread = dataset(written=0, snapshots=[MONDAY, TUESDAY, WEDNESDAY._replace(written=None)])
    assert isinstance(decide(unread, PLAIN, StoredBases([base(102)])), PlannedSend)
    assert isinstance(decide(dataset(written=0), PLAIN, StoredBases([base(103)]), full=True), PlannedSend)


def test_a_snapshot_that_is_named() -> None:
    stored = StoredBases([base(101), base(103)])
    send = sent(decide(dataset(written=0), PLAIN, stored, snapshot="tue"))
    assert send.snapshot == TUESDAY
    assert send.base == MONDAY  # never one that is younger
    assert isinstance(decide(dataset(), PLAIN, stored, snapshot="mon"), NothingToSend)
    # That it is stored does not say that nothing has been written since.
    for name, written, still in (("mon", 0, False), ("wed", 4096, False), ("wed", 0, True)):
        same = decide(dataset(written=written), PLAIN, stored, snapshot=name)
        assert isinstance(same, NothingToSend)
        assert same.still is still
    with pytest.raises(CannotSend, match="tank/a@thu: there is no such snapshot"):
        decide(dataset(), PLAIN, stored, snapshot="thu")


def test_a_named_snapshot_that_is_stored_of_another_dataset() -> None:
    """The dataset was renamed, or is a replica: nothing could be restored by the name that was pushed."""
    elsewhere = StoredBases([base(101, dataset="tank/old"), base(102, dataset="tank/old")])
    send = sent(decide(dataset(), PLAIN, elsewhere, snapshot="tue"))
    assert (send.snapshot, send.base, send.reason) == (TUESDAY, MONDAY, "")
    send = sent(decide(dataset(), PLAIN, elsewhere, snapshot="mon"))
    assert (send.base, send.reason) == (None, "@mon is stored only as one of tank/old, and nothing that is older")
    assert isinstance(decide(dataset(), PLAIN, StoredBases([base(101)]), snapshot="mon"), NothingToSend)


@pytest.mark.parametrize(
    ("about", "how", "options"),
    [
        ({}, PLAIN, "-L -p"),
        ({}, SendOptions(compressed=True), "-L -c -p"),
        ({}, SendOptions(embedded=True, compressed=True), "-L -e -c -p"),
        ({}, SendOptions(raw=True), "-L -p -w"),
        ({}, SendOptions(decrypt=True), "-L -p"),
        ({"encrypted": True}, PLAIN, "-L -p -w"),
        ({"encrypted": True, "key_loaded": True}, SendOptions(decrypt=True, compressed=True), "-L -c"),
    ],
)
def test_options(about: dict[str, Any], how: SendOptions, options: str) -> None:
    assert sent(decide(dataset(**about), how, StoredBases([]))).options == tuple(options.split())


def test_decrypted_without_key() -> None:
    with pytest.raises(CannotSend, match="its key is not loaded"):
        decide(dataset(encrypted=True), SendOptions(decrypt=True), StoredBases([]))


def test_a_chain_is_of_one_class() -> None:
    stored = StoredBases([base(102, "Lewp"), base(101, "ep")])
    assert sent(decide(dataset(encrypted=True), PLAIN, stored)).base == TUESDAY
    assert sent(decide(dataset(), PLAIN, stored)).base == MONDAY
    send = sent(decide(dataset(), PLAIN, StoredBases([base(102, "Lewp")])))
    assert send.reason == "what is stored of it is raw, and it is sent plain now"
    redacted = StoredBases([base(102, "Lepr01234567")])
    assert "redacted" in sent(decide(dataset(), PLAIN, redacted)).reason


def test_a_chain_that_has_grown_too_long_ends() -> None:
    """Where in the last third of the limit: see test_full_after.py."""
    stored = StoredBases([base(101), base(102, base_guid="101", streams=30, age=5 * 86400)])
    send = sent(decide(dataset(), SendOptions(full_after=FullAfter(streams=30)), stored))
    assert (send.base, send.routine) == (None, True)
    assert send.reason == "its chain has 30 streams, and its full is 5d 00:00:00 old: full-after says streams 30"
    assert sent(decide(dataset(), SendOptions(full_after=FullAfter(streams=46)), stored)).base == TUESDAY
    # The chain's growth is what came with its last stream, and the new part of its age is what came since.
    grown = base(102, base_guid="101", streams=30, age=500 * 86400, increment_bytes=10_000)
    for before, why in ((5_000, True), (9_999, False)):
        stored = StoredBases([base(101, base_guid="100", streams=29, increment_bytes=before), grown])
        send = sent(decide(dataset(), SendOptions(full_after=FullAfter(increments=1.0)), stored))
        assert (send.base is None) is why
    for since, why in ((31 * 86400, True), (7200, False)):
        now = TUESDAY.created + since
        send = sent(decide(dataset(), SendOptions(full_after=FullAfter(age=90 * 86400.0)), stored, now=now))
        assert (send.base is None) is why


def test_a_full_that_was_requested_tells_what_it_ends() -> None:
    stored = StoredBases([base(101), base(102, base_guid="101", streams=91, age=90 * 86400)])
    send = sent(decide(dataset(), PLAIN, stored, full=True))
    assert (send.base, send.routine) == (None, True)
    assert send.reason == "--full is given; its chain has 91 streams, and its full is 90d 00:00:00 old"
    assert sent(decide(dataset(), PLAIN, NONE, full=True)).reason == ""


def test_of_two_chains_the_shorter_and_of_two_fulls_the_younger() -> None:
    stored = StoredBases([base(102, streams=9), base(102, streams=2, age=7), base(102, streams=2, age=5)])
    found = stored.get("102", "plain")
    assert found is not None
    assert (found.streams, found.age) == (2, 5)


def test_a_chain_is_followed_as_far_as_it_is_known() -> None:
    full, middle, last = base(101), base(102, base_guid="101", streams=2), base(103, base_guid="102", streams=3)
    assert StoredBases([last, full, middle]).chain(last) == [last, middle, full]
    assert StoredBases([last, middle]).chain(last) == [last, middle]  # it begins with a package
    around = base(101, base_guid="103", streams=4)  # which only a receiver that lies says
    assert StoredBases([around, middle, last]).chain(last) == [last, middle, around]


def test_whether_a_dataset_goes_on_from_a_snapshot() -> None:
    stored = StoredBases([base(101), base(102, base_guid="101"), base(103, base_guid="102", dataset="tank/b")])
    assert stored.continues("tank/a", "101")
    assert not stored.continues("tank/a", "102")
    assert stored.continues("tank/b", "102")
    assert not stored.continues("tank/c", "101")


def test_packages() -> None:
    tree = [dataset(), dataset(name="tank/a/b")]
    assert decide_package(tree, PLAIN).arguments("x") == ("-R", "-L", "tank/a@x")
    assert decide_package(tree, PLAIN, snapshot="mon").snapshot == MONDAY
    vault = dataset(name="tank/a/vault", encrypted=True)
    assert decide_package([*tree, vault], SendOptions(compressed=True)).options == ("-R", "-L", "-c", "-w")
    with pytest.raises(CannotSend, match="tank/a/vault: is encrypted, and a package"):
        decide_package([*tree, vault], SendOptions(decrypt=True))


def test_a_full_instead() -> None:
    send = sent(decide(dataset(), PLAIN, StoredBases([base(102)]))).full("the base is gone")
    assert (send.base, send.arguments("x")) == (None, ("-L", "-p", "tank/a@x"))
    assert send.reason == "the base is gone"


# --- what was begun before -------------------------------------------------------------------------------------


def begun(**changed: Any) -> PartialEntry:
    said = {"dataset": "tank/a", "snapshot": "wed", "guid": "103", "flags": "Lep"}
    return partial_entry(**{**said, **changed})


def test_a_stream_that_was_begun_is_found() -> None:
    full, increment = begun(), begun(base_guid="102")
    found = find_begun(dataset(), PLAIN, NONE, [full])
    assert found is not None
    send, partial = found
    assert (send.snapshot, send.base, partial) == (WEDNESDAY, None, full)
    found = find_begun(dataset(), PLAIN, NONE, [increment])
    assert found is not None
    assert found[0].arguments("wed") == ("-L", "-p", "-i", "tank/a@tue", "tank/a@wed")
    bookmark_only = dataset(snapshots=[MONDAY, WEDNESDAY])
    found = find_begun(bookmark_only, PLAIN, NONE, [increment])
    assert found is not None
    assert found[0].arguments("wed")[-2:] == ("tank/a#tue-mark", "tank/a@wed")


def test_of_several_the_newest() -> None:
    entries = [begun(snapshot="mon", guid="101"), begun(), begun(snapshot="tue", guid="102")]
    found = find_begun(dataset(), PLAIN, NONE, entries)
    assert found is not None
    assert found[1].snapshot == "wed"
    found = find_begun(dataset(), PLAIN, NONE, entries, snapshot="tue")
    assert found is not None
    assert found[1].snapshot == "tue"
    assert find_begun(dataset(), PLAIN, NONE, entries, snapshot="thu") is None


@pytest.mark.parametrize(
    "other",
    [
        {"dataset": "tank/b"},
        {"snapshot": "renamed"},
        {"guid": "999"},
        {"guid": None},
        {"guid": "102", "snapshot": "tue-mark"},
        {"base_guid": "999"},
        {"flags": "Lewp"},
        {"flags": "Lepr01234567"},
    ],
    ids=str,
)
def test_what_is_another_stream_is_not_resumed(other: dict[str, Any]) -> None:
    assert find_begun(dataset(), PLAIN, NONE, [begun(**other)]) is None
    found = find_begun(dataset(), PLAIN, NONE, [begun(**other), begun()])
    assert found is not None
    assert found[1] == begun()


def test_what_is_stored_by_now_needs_no_finishing() -> None:
    entries = [begun(), begun(snapshot="tue", guid="102")]
    stored = StoredBases([base(103)])
    found = find_begun(dataset(), PLAIN, stored, entries)
    assert found is not None
    assert found[1].snapshot == "tue"
    for other in ({"flags": "Lewp"}, {"dataset": "tank/original"}):
        found = find_begun(dataset(), PLAIN, StoredBases([base(103, **other)]), entries)
        assert found == find_begun(dataset(), PLAIN, NONE, entries)


def test_an_own_snapshot_that_is_older_than_what_is_stored_is_not_finished() -> None:
    own = point("fullsend-0123abcd-20261123T063000Z", 104, 2)
    tank, partial = dataset(snapshots=[MONDAY, own, WEDNESDAY]), begun(snapshot=own.name, guid="104", base_guid="101")
    for stored, found in ((NONE, True), (StoredBases([base(101)]), True), (StoredBases([base(103)]), False)):
        assert (find_begun(tank, PLAIN, stored, [partial]) is not None) is found
    stored = StoredBases([base(103)])
    assert find_begun(tank, PLAIN, stored, [partial], snapshot=own.name) is not None
    # What the user has named to push is finished, however old it is.
    assert find_begun(tank, PLAIN, stored, [begun(snapshot="mon", guid="101")]) is not None


def test_a_bookmark_cannot_be_sent() -> None:
    only_mark = dataset(snapshots=[MONDAY, WEDNESDAY])
    assert find_begun(only_mark, PLAIN, NONE, [begun(snapshot="tue-mark", guid="102")]) is None


def test_the_class_is_what_this_host_means_to_send() -> None:
    """Whatever the receiver says: what is encrypted does not go out plain, since it is to be raw."""
    vault = dataset(encrypted=True, key_loaded=True)
    assert find_begun(vault, PLAIN, NONE, [begun(flags="Lep")]) is None
    found = find_begun(vault, PLAIN, NONE, [begun(flags="Lep"), begun(flags="Lewp")])
    assert found is not None
    assert (found[1].flags, found[0].options) == ("Lewp", ("-L", "-p", "-w"))
    assert find_begun(vault, SendOptions(decrypt=True), NONE, [begun(flags="Lewp")]) is None
    with pytest.raises(CannotSend, match="its key is not loaded"):
        find_begun(dataset(encrypted=True), SendOptions(decrypt=True), NONE, [begun()])


def test_a_package_that_was_begun() -> None:
    tree = [dataset(), dataset(name="tank/a/b")]
    package = begun(guid=None, flags=None)
    send = find_begun_package(tree, PLAIN, [package])
    assert send is not None
    assert send.arguments("wed") == ("-R", "-L", "tank/a@wed")
    assert find_begun_package(tree, PLAIN, [begun(), begun(guid=None, flags=None, snapshot="gone")]) is None
    assert find_begun_package(tree, PLAIN, [begun(guid=None, flags=None, dataset="tank/a/b")]) is None
    lacking = [dataset(), dataset(name="tank/a/b", snapshots=[MONDAY])]
    assert find_begun_package(lacking, PLAIN, [package]) is None


# --- what is damaged at the receiver ----------------------------------------------------------------------------


def damaged(guid: int, base_guid: int | None, flags: str = "Lp", **changed: Any) -> DamagedEntry:
    said = {"dataset": "tank/a", "snapshot": {101: "mon", 102: "tue", 103: "wed"}[guid], "raw_bytes": 100}
    said |= {"guid": str(guid), "base_guid": None if base_guid is None else str(base_guid), "flags": flags}
    return DamagedEntry.model_validate({**said, "why": "damaged (chunk 0)", **changed})


def repair(stored: StoredBases, about: Dataset | None = None, how: SendOptions = PLAIN) -> PlannedSend | None:
    found = find_repair(about or dataset(), how, stored)
    return None if found is None else found[0]


def test_a_damaged_stream_is_sent_again_with_its_own_options() -> None:
    send = repair(StoredBases([base(101, "Lp")], [damaged(102, 101, "Lecp")]))
    assert send is not None
    assert send.arguments("tue") == ("-L", "-e", "-c", "-p", "-i", "tank/a@mon", "tank/a@tue")
    assert (send.snapshot, send.again) == (TUESDAY, True)
    assert send.repair == "the receiver's copy of @tue is damaged (chunk 0)"
    full = repair(StoredBases([], [damaged(101, None)]))
    assert full is not None
    assert full.arguments("mon") == ("-L", "-p", "tank/a@mon")


def test_the_oldest_comes_first_and_none_before_its_base() -> None:
    both = [damaged(103, 102), damaged(102, 101)]
    first = repair(StoredBases([base(101, "Lp")], both))
    assert first is not None
    assert first.snapshot == TUESDAY
    second = repair(StoredBases([base(101, "Lp"), base(102, "Lp")], both))  # the first is mended
    assert second is not None
    assert (second.snapshot, second.base) == (WEDNESDAY, TUESDAY)
    assert repair(StoredBases([], both)) is None
    tried = {each.identity for each in both[1:]}
    assert find_repair(dataset(), PLAIN, StoredBases([base(101, "Lp")], both), tried) is None


def test_a_bookmark_serves_as_base_but_not_as_the_snapshot_itself() -> None:
    about = dataset(snapshots=[MONDAY, WEDNESDAY])
    send = repair(StoredBases([base(102, "Lp")], [damaged(103, 102)]), about)
    assert send is not None
    assert send.arguments("wed")[-2:] == ("tank/a#tue-mark", "tank/a@wed")
    assert repair(StoredBases([base(101, "Lp")], [damaged(102, 101)]), about) is None


@pytest.mark.parametrize(
    "entry",
    [
        damaged(102, 101, snapshot="renamed"),  # it would be another stream
        damaged(102, 999),
        damaged(102, 101, dataset="tank/b"),
        damaged(102, 101, flags="Lcwp"),  # it is sent plain here, and the receiver must not change that
    ],
    ids=["renamed", "no base", "another dataset", "raw"],
)
def test_what_cannot_be_made_again_is_not_sent(entry: DamagedEntry) -> None:
    assert repair(StoredBases([base(101, "Lp"), base(999, "Lp")], [entry])) is None


def test_what_another_stream_restores_needs_no_repair() -> None:
    assert repair(StoredBases([base(101, "Lp"), base(102, "Lcp")], [damaged(102, 101)])) is None


def test_a_damaged_raw_stream_is_not_restored_by_another_datasets() -> None:
    secret = dataset(encrypted=True)
    entries = [damaged(102, None, "w")]
    assert repair(StoredBases([base(102, "w")], entries), secret) is None
    copy = base(102, "w", dataset="tank/copy")
    send = repair(StoredBases([copy], entries), secret)
    assert send is not None
    assert (send.snapshot, send.again) == (TUESDAY, True)


def test_increments_that_are_larger_than_a_full_are_not_sent_again() -> None:
    def entries(size: int) -> list[DamagedEntry]:
        return [damaged(102, 101, raw_bytes=size), damaged(103, 102, raw_bytes=size)]

    # The full has 1000 raw bytes, and the dataset holds 9999.
    assert repair(StoredBases([base(101, "Lp")], entries(4999))) is not None
    assert repair(StoredBases([base(101, "Lp")], entries(5000))) is None
    assert repair(StoredBases([base(101, "Lp", full_bytes=20_000)], entries(5000))) is not None
    full = [damaged(101, None, raw_bytes=99_999), damaged(102, 101, raw_bytes=50_000)]
    assert repair(StoredBases([], full)) is not None


def test_why_a_full_is_sent_and_what_is_passed_over() -> None:
    about = dataset(snapshots=[WEDNESDAY], bookmarks=[])
    send = sent(decide(about, PLAIN, StoredBases([], [damaged(101, None), damaged(102, 101)])))
    assert send.base is None
    assert send.repair == "the receiver's copy of @mon is damaged (chunk 0), and 1 other"
    assert send.reason == f"{send.repair}, and this host cannot send it again"
    send = sent(decide(dataset(), PLAIN, StoredBases([base(101, "Lp")], [damaged(102, 101)])))
    assert (send.base, send.repair) == (MONDAY, "the receiver's copy of @tue is damaged (chunk 0)")
    assert sent(decide(dataset(), PLAIN, StoredBases([base(103, "Lp")], [damaged(102, 101)]))).repair == ""


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        ("", "-L"),
        ("Lecp", "-L -e -c -p"),
        ("Lcwp", "-L -p -w"),
        ("Lr0123abcd", "-L"),  # the digits are no letters
    ],
)
def test_flags_show_with_which_options_a_stream_was_made(flags: str, options: str) -> None:
    assert " ".join(options_of(flags)) == options
