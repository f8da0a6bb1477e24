from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import shutil
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests import streams
from tests.receiver.helpers import (
    SENDER,
    check_listed,
    everything,
    long_stream,
    manifest_path,
    plant,
    push_of,
    read_manifest,
    remove,
    small_stream,
    store_stream,
)

from fullsend_protocol.format.manifest import MergedInput
from fullsend_protocol.format.names import HASH_SUFFIX
from fullsend_protocol.shared.units import format_time, parse_time
from fullsend_receiver.access.policies import Policy
from fullsend_receiver.catalogue.pins import pin
from fullsend_receiver.catalogue.rows import Summary
from fullsend_receiver.catalogue.scrub_results import Scrubbed, ScrubLog
from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.maintenance import prune as pruning
from fullsend_receiver.maintenance.plans import MergeRules, PruneRules
from fullsend_receiver.maintenance.prune import ChainHeld, Judged, NothingGoes, Pruner, beyond, newest_reception
from fullsend_receiver.maintenance.prune_records import DatasetRecord, read_history, read_record
from fullsend_receiver.maintenance.retention import Action, Decision
from fullsend_receiver.maintenance.trash import expire_trash, trashed_at
from fullsend_receiver.store import removals
from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store.local import LocalStore
from fullsend_receiver.store.opened import open_offer, partial_key

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.receiver.crash import Crasher

DAY: Final = 86400.0
NOW: Final = parse_time("2026-11-27T03:30:00Z") or 0.0
#: Keeps the three newest days, and what is younger than two.
POLICY: Final = Policy(daily=3)


def night(
    store: LocalStore, age: int, base_age: int | None = None, *, dataset: str = "tank/data", **changes: Any
) -> PurePosixPath:
    """Plant the stream of the night so many days ago, on that of another one."""
    offset = 1000 * (1 + sum(map(ord, dataset)))
    fields: dict[str, Any] = {
        "received": format_time(NOW - age * DAY - 3600),
        "sequence": 1000 - age,
        "dataset": dataset,
    } | changes
    return plant(store, f"n{age}", offset + age, None if base_age is None else offset + base_age, **fields)


def chain(store: LocalStore, first: int, last: int = 0, **changes: Any) -> list[PurePosixPath]:
    """Plant a full and an increment for each night after it. Returns: the files, the full first."""
    ages = range(first, last - 1, -1)
    return [night(store, age, None if age == first else age + 1, **changes) for age in ages]


def fulls(store: LocalStore, first: int, last: int = 0, **changes: Any) -> list[PurePosixPath]:
    return [night(store, age, **changes) for age in range(first, last - 1, -1)]


def rules(policy: Policy | None = POLICY, **more: Any) -> PruneRules:
    return PruneRules(lambda _sender, _dataset: policy, **more)


def prune(
    store: LocalStore,
    policy: Policy | None = POLICY,
    *,
    dataset: str | None = None,
    dry_run: bool = False,
    yes_more: bool = True,
    now: float = NOW,
    **more: Any,
) -> list[Any]:
    return list(Pruner(store, rules(policy, **more), now).prune(SENDER, dataset, dry_run=dry_run, yes_more=yes_more))


def dropped(events: Iterable[Any]) -> list[str]:
    return [event.decision.stream.path for event in events if isinstance(event, Judged) and event.dropped]


def reasons(events: Iterable[Any]) -> dict[str, str]:
    return {event.decision.stream.path: event.decision.reason for event in events if isinstance(event, Judged)}


def listed(store: LocalStore) -> list[str]:
    return [stored.summary.path for stored in read_catalogue(store).streams]


def check_restorable(store: LocalStore) -> None:
    """All that is stored can be restored, and nothing else lies there."""
    catalogue = read_catalogue(store)
    assert catalogue.problems == []
    assert all(map(catalogue.restorable, catalogue.streams))


def names(files: Iterable[PurePosixPath]) -> list[str]:
    return sorted(map(str, files))


# --- what goes --------------------------------------------------------------------------------------------------


def test_what_no_rule_keeps_goes_and_all_of_it_is_said(store: LocalStore) -> None:
    files = fulls(store, 6)
    events = prune(store)
    assert names(PurePosixPath(each) for each in dropped(events)) == names(files[:4])
    assert listed(store) == list(map(str, files[4:]))
    said = reasons(events)
    assert said[str(files[0])] == "drop: no rule"
    assert said[str(files[6])] == "keep daily 2026-11-27"
    assert len(said) == 7
    history = read_history(store.documents)
    assert names(PurePosixPath(each.file) for each in history) == names(files[:4])
    assert {(each.reason, each.trash, each.stored_bytes) for each in history} == {("drop: no rule", None, 7)}
    record = read_record(store.documents, SENDER)
    assert (record.at, record.dropped, record.freed) == (format_time(NOW), 4, 28)
    assert not list(store.root.glob(f"**/*n6*{HASH_SUFFIX}"))


def test_second_prune_changes_nothing(store: LocalStore) -> None:
    fulls(store, 6)
    chain(store, 5, dataset="tank/other")
    prune(store)
    before = {path: data for path, data in everything(store.root).items() if not path.startswith(".state/")}
    assert dropped(prune(store, yes_more=False)) == []
    assert {path: data for path, data in everything(store.root).items() if not path.startswith(".state/")} == before


def test_dry_run_says_the_same_and_changes_nothing(store: LocalStore) -> None:
    fulls(store, 6)
    chain(store, 5, dataset="tank/other")
    before = everything(store.root)
    would = prune(store, dry_run=True)
    assert everything(store.root) == before
    assert would == prune(store)


def test_without_a_policy_nothing_goes(store: LocalStore) -> None:
    files = fulls(store, 6)
    events = prune(store, None)
    assert set(reasons(events).values()) == {"keep: no policy matches"}
    assert listed(store) == list(map(str, files))


def test_chain_is_kept_for_its_end_and_the_prune_says_why(store: LocalStore) -> None:
    files = chain(store, 9)
    events = prune(store)
    assert listed(store) == list(map(str, files))
    (held,) = [event for event in events if isinstance(event, ChainHeld)]
    assert held.chain.reason == (
        "tank/data: chain of 10 streams since 2026-11-18: nothing can go before a new full, or a merge"
    )
    assert reasons(events)[str(files[0])].startswith("keep: base of tank/data@n")


def test_chain_goes_when_a_new_full_has_taken_its_place(store: LocalStore) -> None:
    old = chain(store, 12, 6)
    new = chain(store, 5)
    events = prune(store)
    assert dropped(events) == list(map(str, old))
    assert listed(store) == list(map(str, new))
    check_restorable(store)


def test_only_the_named_dataset_is_pruned(store: LocalStore) -> None:
    mine, other = fulls(store, 6), fulls(store, 6, dataset="tank/other")
    events = prune(store, dataset="tank/other")
    assert listed(store) == list(map(str, mine + other[4:]))
    assert {event.decision.stream.dataset for event in events} == {"tank/other"}
    record = read_record(store.documents, SENDER)
    assert (record.at, set(record.datasets)) == (None, {"tank/other"})


def test_dataset_that_shares_a_chain_with_the_named_one_stays(store: LocalStore) -> None:
    """It was renamed: its increments build on streams under the old name."""
    old = [night(store, 9), night(store, 8, 9)]
    guid = read_catalogue(store).streams[-1].summary.guid
    new = [plant(store, "renamed", 5, int(guid), dataset="tank/new", received=format_time(NOW - 7 * DAY), sequence=993)]
    assert dropped(prune(store, Policy(last=0, minimum_count=0), dataset="tank/data")) == []
    assert listed(store) == list(map(str, old + new))


def test_small_batches_end_as_one(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "_BATCH", 1)
    monkeypatch.setattr(pruning, "_BATCHES", 1000)
    old = chain(store, 20, 6)
    new = chain(store, 5)
    seen: list[list[str]] = []

    def between() -> None:
        seen.append(listed(store))
        check_restorable(store)

    pruner = Pruner(store, rules(), NOW, between)
    assert len(dropped(pruner.prune(SENDER, yes_more=True))) == len(old)
    assert listed(store) == list(map(str, new))
    assert len(seen) > len(old)


def test_prune_that_is_ended_between_two_batches_records_what_it_did(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "_BATCH", 2)
    monkeypatch.setattr(pruning, "_BATCHES", 1000)
    old = chain(store, 12, 6)
    new = chain(store, 5)
    calls = iter(range(100))

    def between() -> None:
        if next(calls) == 3:
            raise StoreError("the daemon stops")

    with pytest.raises(StoreError, match="the daemon stops"):
        list(Pruner(store, rules(), NOW, between).prune(SENDER, yes_more=True))
    assert len(listed(store)) == len(old) + len(new) - 4
    check_restorable(store)
    assert len(read_history(store.documents)) == 4
    record = read_record(store.documents, SENDER)
    assert record.at is None
    assert record.freed_ever > 0
    # What was allowed stays allowed.
    assert len(dropped(prune(store, yes_more=False))) == len(old) - 4
    after = read_record(store.documents, SENDER)
    assert after.freed_ever == after.freed + record.freed_ever
    assert after.freed_ever == sum(each.stored_bytes for each in read_history(store.documents))


def test_records_of_many_datasets_are_linear_in_their_number(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets, early = 40, 4
    monkeypatch.setattr(pruning, "_EARLY", early)
    for number in range(datasets):
        for place, age in enumerate((40, 2, 1, 0)):
            received = format_time(NOW - age * DAY - 3600)
            plant(
                store,
                f"n{age}",
                10 * number + place + 1,
                dataset=f"tank/{number}",
                received=received,
                sequence=place + 1,
            )
    written: list[int] = []
    monkeypatch.setattr(
        pruning, "write_record", lambda _documents, _sender, record: written.append(len(record.datasets))
    )
    assert len(dropped(prune(store))) == datasets
    assert written[:2] == [1, 2]
    assert written[-1] == datasets
    assert sum(written) <= (early + 1) * datasets  # not half of the square of it


def test_genuine_streams_are_pruned_and_the_rest_is_whole(store: LocalStore) -> None:
    for name in ("full", "incr"):
        store_stream(store, SENDER, streams.named(name).read())
    raws = [long_stream(1, tail=1, name=f"tank/many@s{number}", guid=100 + number) for number in range(5)]
    files = [store_stream(store, SENDER, raw) for raw in raws]
    before = check_listed(store)
    later = NOW + 400 * DAY
    policy = Policy(last=2, minimum_count=1, minimum_age=0)
    events = prune(store, policy, now=later)
    assert dropped(events) == list(map(str, files[1:3]))  # the first of the day stays
    assert check_listed(store) == [each for each in before if each not in dropped(events)]
    assert dropped(prune(store, policy, now=later, yes_more=False)) == []


# --- what is needed now ------------------------------------------------------------------------------------------


def leave_partial(store: LocalStore, base_guid: int) -> str:
    push = push_of(long_stream(1)).model_copy(update={"base_guid": str(base_guid), "guid": "99"})
    upload = store.begin(key := partial_key(SENDER, push), open_offer(SENDER, push))
    upload.close(keep=True)
    return key


def test_base_of_a_partial_stays_with_its_bases_and_goes_with_the_partial(store: LocalStore) -> None:
    old = chain(store, 12, 6)
    chain(store, 5)
    guid = read_catalogue(store).at(old[3])
    assert guid is not None
    key = leave_partial(store, int(guid.summary.guid))
    events = prune(store)
    assert dropped(events) == list(map(str, old[4:]))
    assert reasons(events)[str(old[3])] == "keep: leased by the partial of tank/data@now"
    check_restorable(store)
    store.discard(key)
    assert dropped(prune(store)) == list(map(str, old[:4]))


def test_partial_of_another_sender_leases_nothing(store: LocalStore) -> None:
    old = fulls(store, 6)
    push = push_of(long_stream(1)).model_copy(update={"base_guid": read_catalogue(store).streams[0].summary.guid})
    store.begin(partial_key("beta", push), open_offer("beta", push)).close(keep=True)
    assert str(old[0]) in dropped(prune(store))


def test_chain_that_is_being_read_stays_to_its_end(store: LocalStore) -> None:
    old = chain(store, 12, 6)
    chain(store, 5)
    hold = store.hold()
    hold.add(old[2])
    events = prune(store)
    assert dropped(events) == []
    assert reasons(events)[str(old[-1])].startswith("keep: leased by a reader of @n10")
    hold.close()
    for path in store.reading.iterdir():
        os.utime(path, (0, 0))
    assert dropped(prune(store)) == list(map(str, old))


def test_pin_holds_its_stream_and_bases_until_it_ends(store: LocalStore) -> None:
    old = chain(store, 12, 6)
    chain(store, 5)
    pin(store.documents, [old[1]], now=NOW, until=NOW + DAY, note="before the upgrade")
    events = prune(store)
    assert dropped(events) == list(map(str, old[2:]))
    assert reasons(events)[str(old[1])] == "keep: pinned until 2026-11-28T03:30:00Z (before the upgrade)"
    assert dropped(prune(store, now=NOW + 2 * DAY)) == list(map(str, old[:2]))


def test_pins_that_cannot_be_read_stop_the_prune(store: LocalStore) -> None:
    files = fulls(store, 6)
    (store.state / "pins.json").write_text("{", encoding="ascii")
    with pytest.raises(StoreError, match=r"pins\.json: cannot be read, so nothing is deleted"):
        prune(store)
    assert listed(store) == list(map(str, files))


def while_choosing(monkeypatch: pytest.MonkeyPatch, what: Any) -> None:
    """Do something between the plan and the removal, once."""
    real = LocalStore.remove
    done: list[bool] = []

    def remove(self: LocalStore, choose: Any, *, trash: str | None = None) -> list[PurePosixPath]:
        def choosing() -> Any:
            if not done:
                done.append(True)
                what()
            return choose()

        return real(self, choosing, trash=trash)

    monkeypatch.setattr(LocalStore, "remove", remove)


def test_increment_that_arrives_amid_the_prune_keeps_its_base(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = chain(store, 12, 6)
    chain(store, 5)
    new: list[PurePosixPath] = []

    def arrive() -> None:
        guid = read_catalogue(store).at(old[3])
        assert guid is not None
        new.append(
            plant(store, "new", 7, int(guid.summary.guid), received=format_time(NOW), sequence=2000, dataset="tank/new")
        )

    while_choosing(monkeypatch, arrive)
    assert dropped(prune(store)) == list(map(str, old[4:]))
    assert {*map(str, [*old[:4], *new])} < set(listed(store))
    check_restorable(store)


def test_pin_that_is_set_amid_the_prune_holds(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    old = fulls(store, 6)
    pins: list[PurePosixPath] = [old[1]]

    def set_pin() -> None:
        (store.state / "pins.json").write_text(
            json.dumps({"format": 1, "pins": [{"file": str(each), "at": "x"} for each in pins]}), encoding="ascii"
        )

    while_choosing(monkeypatch, set_pin)
    events = prune(store)
    assert str(old[1]) in listed(store)
    assert reasons(events)[str(old[1])] == "keep: pinned"


def test_stream_that_is_removed_by_hand_amid_the_prune_costs_nothing(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = fulls(store, 6)
    while_choosing(monkeypatch, lambda: remove(store, old[0]))
    events = prune(store)
    assert names(map(PurePosixPath, dropped(events))) == names(old[1:4])


def test_dataset_that_cannot_be_read_amid_the_prune_stays(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    old = fulls(store, 6)
    while_choosing(monkeypatch, lambda: manifest_path(store, old[5]).write_bytes(b"{"))
    assert dropped(prune(store)) == []


# --- what cannot be read ------------------------------------------------------------------------------------------


def stopped(events: Iterable[Any]) -> dict[str, str]:
    return {event.dataset: event.why for event in events if isinstance(event, NothingGoes)}


def test_manifest_that_cannot_be_read_stops_its_dataset_by_name(store: LocalStore) -> None:
    mine, other = fulls(store, 6), fulls(store, 6, dataset="tank/other")
    manifest_path(store, mine[0]).write_bytes(b"{")
    events = prune(store)
    assert set(stopped(events)) == {"tank/data"}
    assert stopped(events)["tank/data"].startswith(f"not all of it can be read: {mine[0]}.json: cannot be read")
    assert dropped(events) == list(map(str, other[:4]))
    assert read_record(store.documents, SENDER).datasets["tank/data"].trouble == stopped(events)["tank/data"]


def test_base_that_an_unreadable_stream_of_another_dataset_names_stays(store: LocalStore) -> None:
    old = chain(store, 12, 6)
    chain(store, 5)
    guid = read_catalogue(store).at(old[3])
    assert guid is not None
    lost = plant(store, "lost", 7, int(guid.summary.guid), dataset="tank/new")
    manifest_path(store, lost).unlink()
    assert dropped(prune(store)) == list(map(str, old[4:]))


def test_link_and_folder_that_cannot_be_read_stop_their_sender(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is behind them may build on any of its streams."""
    fulls(store, 6)
    plant(store, "s", 1, dataset="tank/locked")
    real = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        events = prune(store)
    assert dropped(events) == []
    assert (
        stopped(events)["tank/data"]
        == "not all of it can be read: alpha/tank/locked: cannot be read: Permission denied"
    )
    (store.root / SENDER / "elsewhere").symlink_to(store.root / SENDER / "tank")
    assert "is a symbolic link" in stopped(prune(store))["tank/data"]


def not_read(store: LocalStore, file: PurePosixPath) -> None:
    """Have a check note that it could not read a stream: its disk gives no bytes of it."""
    at, received = format_time(NOW - DAY), read_manifest(store, file).received
    ScrubLog(store).add(Scrubbed(str(file), received, at, (), None, unreadable="chunk 3 cannot be read"))


def found_whole(store: LocalStore, file: PurePosixPath) -> None:
    ScrubLog(store).add(Scrubbed(str(file), read_manifest(store, file).received, format_time(NOW), (), None))


def test_stream_that_a_check_could_not_read_stops_its_dataset(store: LocalStore) -> None:
    """It counts as whole. If its disk never reads it again, only the chain before it can be restored."""
    old, new = chain(store, 12, 6), chain(store, 5)
    other = fulls(store, 6, dataset="tank/other")
    not_read(store, new[0])
    events = prune(store)
    assert dropped(events) == list(map(str, other[:4]))
    assert stopped(events) == {
        "tank/data": f"{new[0]} could not be read at 2026-11-26T03:30:00Z: chunk 3 cannot be read: look at its disk,"
        " then `fullsendd verify alpha/tank/data`"
    }
    found_whole(store, new[0])
    assert dropped(prune(store)) == list(map(str, old))


def test_stream_that_could_not_be_read_and_is_missing_now_counts_as_damaged(store: LocalStore) -> None:
    """So a person who removes it ends what it has stopped."""
    files = fulls(store, 6)
    not_read(store, files[0])
    assert dropped(prune(store)) == []
    (store.root / files[0]).unlink()
    events = prune(store)
    assert stopped(events) == {}
    assert names(map(PurePosixPath, dropped(events))) == names(files[:4])


def test_inputs_of_a_merge_stay_while_its_result_could_not_be_read(store: LocalStore) -> None:
    """They came back from the trash, because of it."""
    inputs = chain(store, 12, 11)
    merged = [
        MergedInput(
            file=str(each.file),
            dataset=each.summary.dataset,
            snapshot=each.summary.snapshot,
            guid=each.summary.guid,
            base_guid=each.summary.base_guid,
            sha256="11" * 32,
        )
        for each in read_catalogue(store).streams
    ]
    result = night(store, 11, proven_by="merge", merged=merged)
    for age in range(10, -1, -1):
        night(store, age, age + 1)
    merging = MergeRules(warn_at=1.0)
    not_read(store, result)
    assert dropped(prune(store, dry_run=True, merging=merging)) == []
    found_whole(store, result)
    assert names(map(PurePosixPath, dropped(prune(store, merging=merging)))) == names(inputs)


# --- prune-at-most ------------------------------------------------------------------------------------------------


def test_policy_that_would_give_up_much_drops_nothing_unless_that_is_wanted(store: LocalStore) -> None:
    files = fulls(store, 19)
    events = prune(store, yes_more=False)
    assert dropped(events) == []
    why = stopped(events)["tank/data"]
    assert why == (
        "the policy gives up 17 of 20 snapshots, 119 B of 140 B, which is more than prune-at-most (20%): look at"
        " `fullsendd prune --dry-run alpha/tank/data`, then `fullsendd prune --yes-more alpha/tank/data`"
    )
    assert listed(store) == list(map(str, files))
    record = read_record(store.documents, SENDER)
    assert record.datasets["tank/data"].trouble == why
    assert len(dropped(prune(store))) == 17
    assert read_record(store.documents, SENDER).datasets["tank/data"].trouble is None


def test_night_after_night_nothing_is_asked(store: LocalStore) -> None:
    """Each night gives up one snapshot; whole chains go when a full has taken their place, without a question."""
    gone = 0
    for now_age in range(60, -1, -1):
        night(store, now_age, None if now_age % 20 == 0 else now_age + 1)
        events = prune(store, yes_more=False, now=NOW - now_age * DAY)
        assert stopped(events) == {}
        gone += len(dropped(events))
        check_restorable(store)
    assert gone == 40
    assert len(listed(store)) == 21


def test_as_many_as_have_arrived_may_go(store: LocalStore) -> None:
    """Pushed each hour, pruned each day: 24 come, and 23 go."""
    policy = Policy(hourly=24, daily=3, minimum_age=0)
    for hour in range(24 * 6):
        now = NOW + hour * 3600
        plant(store, f"h{hour}", hour + 1, received=format_time(now), sequence=hour + 1)
        if hour % 24 == 23:
            assert stopped(prune(store, policy, yes_more=False, now=now)) == {}
    assert len(listed(store)) == 24 + 2


def decision(guid: int, *, drop: bool, size: int = 10, sequence: int | None = None) -> Decision:
    row = {"path": f"p{guid}", "guid": str(guid), "stored_bytes": size, "sequence": sequence}
    fields: dict[str, Any] = dict.fromkeys(Summary._fields, "") | row
    rule: Any = "none" if drop else "daily"
    return Decision(Summary(**fields), Action.DROP if drop else Action.KEEP, rule, "")


@pytest.mark.parametrize(
    ("gone", "total", "sizes", "asked"),
    [
        (3, 4, (10, 10), False),  # so few may always go
        (4, 20, (10, 10), False),
        (4, 19, (10, 10), True),
        (4, 100, (100, 1), True),  # much of its bytes
        (4, 100, (1, 10), False),
    ],
)
def test_more_than_the_share_is_asked_for(gone: int, total: int, sizes: tuple[int, int], asked: bool) -> None:
    decisions = [decision(each, drop=each < gone, size=sizes[each >= gone]) for each in range(total)]
    assert (beyond(decisions, None, 0.2) is not None) is asked
    assert beyond(decisions, DatasetRecord(given_up=[str(each) for each in range(gone)]), 0.2) is None
    assert beyond(decisions, None, 1.0) is None


def test_snapshot_is_given_up_with_the_last_of_its_streams(store: LocalStore) -> None:
    """One of its streams stays for itself, another one only because others build on it."""
    chain(store, 9)
    guid = next(each.summary.guid for each in read_catalogue(store).streams if each.summary.snapshot == "n8")
    plant(store, "n8", int(guid), dataset="tank/data", flags="L", received=format_time(NOW - 8 * DAY), sequence=992)
    pin(store.documents, [PurePosixPath(f"{SENDER}/tank/data/@n8.{int(guid):016x}.full.L.zfs.zst")], now=NOW)
    prune(store)
    given_up = read_record(store.documents, SENDER).datasets["tank/data"].given_up
    assert guid not in given_up
    assert len(given_up) == 6


# --- the trash ----------------------------------------------------------------------------------------------------


def test_what_is_dropped_waits_in_the_trash_as_long_as_wanted(store: LocalStore) -> None:
    files = fulls(store, 6)
    assert len(dropped(prune(store, undelete_within=7 * DAY))) == 4
    kept = list(store.trashed())
    assert names(each.file for each in kept) == names(files[:4])
    (folder,) = {each.folder for each in kept}
    assert trashed_at(folder) == NOW
    assert {each.trash for each in read_history(store.documents)} == {folder}
    assert expire_trash(store, 7 * DAY, NOW + 6.9 * DAY) == []
    assert expire_trash(store, 7 * DAY, NOW + 7 * DAY) == [folder]
    assert list(store.trashed()) == []


def test_trash_goes_at_once_where_none_is_wanted_any_more(store: LocalStore) -> None:
    fulls(store, 6)
    prune(store, undelete_within=7 * DAY)
    assert len(expire_trash(store, 0.0, NOW - DAY)) == 1


# --- any history --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_of_any_store_what_is_kept_is_restorable_after_each_batch(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(pruning, "_BATCH", chance.randint(1, 4))
    monkeypatch.setattr(pruning, "_BATCHES", 1000)
    guids: list[int] = []
    for number in range(40):
        base = chance.choice(guids[-6:]) if guids and chance.random() < 0.8 else None
        guids.append(number + 1)
        dataset = chance.choice(["tank/a", "tank/b"])
        received = format_time(NOW - (40 - number) * DAY)
        plant(store, f"s{number}", number + 1, base, dataset=dataset, received=received, sequence=number + 1)
    for stored in read_catalogue(store).streams:
        if chance.random() < 0.05:
            pin(store.documents, [stored.file], now=NOW)
    policy = Policy(last=chance.randint(0, 3), daily=chance.randint(0, 5), weekly=chance.randint(0, 3))
    would = dropped(prune(store, policy, dry_run=True))
    first = len(listed(store))

    def between() -> None:
        check_restorable(store)

    done = dropped(Pruner(store, rules(policy), NOW, between).prune(SENDER, yes_more=True))
    assert done == would
    assert len(listed(store)) == first - len(done)
    check_restorable(store)
    assert dropped(prune(store, policy)) == []


@pytest.mark.parametrize("odd", ["yesterday", "9999-99-99T00:00:00Z", "", "~"])
def test_reception_that_is_no_time_hides_no_other(store: LocalStore, odd: str) -> None:
    """Otherwise one odd manifest would switch off the comparison of the clock with the receptions."""
    plant(store, "s1", 1, received=format_time(NOW - 3600))
    plant(store, "odd", 2, received=odd)
    plant(store, "s3", 3, received=format_time(NOW - 1800), sender="beta")
    assert newest_reception(Pruner(store, rules(), NOW).catalogues) == NOW - 1800


def test_newest_reception_is_that_of_any_sender(store: LocalStore) -> None:
    assert newest_reception(Pruner(store, rules(), NOW).catalogues) == 0.0
    fulls(store, 3)
    plant(store, "s", 1, sender="beta", received="2026-11-27T03:00:00Z")
    plant(store, "t", 2, sender="beta", received="@99999999999999")
    assert newest_reception(Pruner(store, rules(), NOW).catalogues) == NOW - 1800


def test_record_and_history_that_cannot_be_written_cost_nothing_else(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fulls(store, 6)

    def fail(*_arguments: Any, **_named: Any) -> Any:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("fullsend_receiver.store.documents.LocalDocuments.put", fail)
        patch.setattr("fullsend_receiver.store.documents.LocalDocuments.append", fail)
        assert len(dropped(prune(store))) == 4
    assert "the history of prunes cannot be written" in caplog.text
    assert "what its prune has done cannot be recorded" in caplog.text
    with contextlib.suppress(StoreError):
        check_restorable(store)


# --- kill -9 ------------------------------------------------------------------------------------------------------


def replaced_chains(store: LocalStore) -> list[str]:
    """Store two datasets, each a chain of three that a new full has replaced. Returns: what is new."""
    store.recover()
    for number, dataset in enumerate(("tank/one", "tank/two")):
        for snapshot, base in ((1, None), (2, 1), (3, 2), (4, None), (5, 4)):
            store_stream(store, SENDER, small_stream(dataset, snapshot, base, offset=100 * number))
    return [file for file in check_listed(store) if "@s4." in file or "@s5." in file]


def test_what_a_killed_prune_had_begun_is_done_before_the_next_one_looks(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = chain(store, 20, 15), chain(store, 5)

    def killed(_paths: list[Path]) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(removals, "_unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            prune(store)
    assert listed(store) == list(map(str, old + new))
    assert set(reasons(prune(store))) == set(map(str, new))
    assert listed(store) == list(map(str, new))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("undelete_within", ["0", "86400"])
def test_kill_at_any_step_of_a_prune_leaves_a_consistent_store(
    store: LocalStore, swift_path: Path, crasher: Crasher, undelete_within: str
) -> None:
    kept = replaced_chains(store)
    whole = check_listed(store)
    now = str(NOW + 1e9)
    calls = set()
    for at in itertools.count(1):
        left = LocalStore(swift_path / str(at))
        shutil.copytree(store.root, left.root)
        outcome = crasher.run("prune", left.root, now, undelete_within, at=at)
        calls.add(outcome.call)
        check_restorable(left)  # also before the next start

        left.recover()
        check_restorable(left)
        there = check_listed(left)
        assert set(kept) <= set(there)
        assert set(outcome.told).isdisjoint(there)
        if undelete_within != "0":
            assert sorted([*there, *(str(each.file) for each in left.trashed())]) == sorted(whole)

        assert not crasher.run("prune", left.root, now, undelete_within).killed
        assert check_listed(left) == kept
        if undelete_within != "0":
            assert sorted([*kept, *(str(each.file) for each in left.trashed())]) == sorted(whole)
        shutil.rmtree(left.root)
        if not outcome.killed:
            break
    assert {"fsync", "write", "replace"} <= calls
