"""Plans of one part: the facts that are gathered for them. What a plan decides is in test_retention.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.receiver.helpers import (
    SENDER,
    commit_stream,
    ingest_stream,
    manifest_path,
    plant,
    read_manifest,
    small_stream,
)

from fullsend_receiver.access.config import ReceiverSettings
from fullsend_receiver.access.policies import Policy, Retention
from fullsend_receiver.catalogue.scrub_results import Scrubbed, ScrubLog
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.maintenance import plans as plans_module
from fullsend_receiver.maintenance.leases import arriving_leases
from fullsend_receiver.maintenance.plans import NOT_ASKED, MergeRules, PruneRules, SenderPlans, rules_of
from fullsend_receiver.maintenance.prune_records import DatasetRecord, PruneRecord, write_record
from fullsend_receiver.store.api import DiskSpace
from fullsend_receiver.store.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path, PurePosixPath

NOW = 1_800_000_000.0


def plans(store: LocalStore, dataset: str | None = None, merging: MergeRules | None = None) -> SenderPlans:
    policy = Policy(minimum_count=0, minimum_age=0)
    return SenderPlans(
        Catalogues(store), PruneRules(lambda _sender, _dataset: policy, merging=merging), NOW, SENDER, dataset
    )


def test_rules_are_those_of_the_settings(tmp_path: Path) -> None:
    settings = ReceiverSettings(store=tmp_path, store_id="")
    assert rules_of(settings) is None
    settings = settings.model_copy(update={"retention": Retention(daily=7)})
    found = rules_of(settings)
    assert found is not None
    assert found.merging == MergeRules()
    assert found.undelete_merged == 7 * 86400.0
    off = rules_of(settings.model_copy(update={"merge": "off"}))
    assert off is not None
    assert off.merging is None
    other = rules_of(settings.model_copy(update={"merge": "prove-first", "rebase_after": 0.5}))
    assert other is not None
    assert other.merging == MergeRules(mode="prove-first", rebase_after=0.5)


@pytest.mark.parametrize(("free", "wanted"), [(16, False), (15, False), (14, True), (0, True)])
def test_the_disk_is_wanted_from_warn_at_on(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, free: int, wanted: bool
) -> None:
    monkeypatch.setattr(LocalStore, "space", lambda _self: DiskSpace(free, 100))
    assert MergeRules(warn_at=0.85).is_disk_wanted(store) is wanted


def test_parts_are_datasets_that_build_on_one_another(store: LocalStore) -> None:
    plant(store, "a", 1)
    plant(store, "b", 2, 1, dataset="tank/renamed")
    plant(store, "c", 3, dataset="tank/alone")
    assert sorted(map(sorted, plans(store).parts())) == [["tank/alone"], ["tank/data", "tank/renamed"]]
    assert plans(store, "tank/alone").parts() == [{"tank/alone"}]


def test_what_was_not_asked_for_and_what_cannot_be_read_is_stopped(store: LocalStore) -> None:
    plant(store, "a", 1)
    plant(store, "b", 2, 1, dataset="tank/renamed")
    asked = plans(store, "tank/data")
    part = asked.current().holdings.around(datasets={"tank/data", "tank/renamed"})
    assert asked.stopped(asked.current().holdings, part, {"tank/data", "tank/renamed"}) == {"tank/renamed": NOT_ASKED}
    manifest_path(store, plant(store, "c", 3)).write_bytes(b"{")
    every = plans(store)
    part = every.current().holdings.around(datasets={"tank/data"})
    stopped = every.stopped(every.current().holdings, part, {"tank/data", "tank/renamed"})
    assert list(stopped) == ["tank/data"]
    assert stopped["tank/data"].startswith("not all of it can be read: ")


def not_read(store: LocalStore, file: PurePosixPath) -> None:
    ScrubLog(store).add(
        Scrubbed(str(file), read_manifest(store, file).received, "2026-11-25T00:00:00Z", (), None, unreadable="EIO")
    )


def test_what_builds_on_a_stream_that_could_not_be_read_is_stopped_and_its_bases_are_not(store: LocalStore) -> None:
    plant(store, "a", 1)
    middle = plant(store, "b", 2, 1, dataset="tank/renamed")
    plant(store, "c", 3, 2, dataset="tank/again")
    last = plant(store, "d", 4, 3, dataset="tank/again")
    names = {"tank/data", "tank/renamed", "tank/again"}
    for file in (last, middle):
        not_read(store, file)
    every = plans(store)
    now = every.current()
    why = f"{middle} could not be read at 2026-11-25T00:00:00Z: EIO: look at its disk, then"
    stopped = every.stopped(now.holdings, now.holdings.around(datasets=names), names)
    assert stopped.keys() == {"tank/renamed", "tank/again"}
    assert stopped["tank/renamed"] == f"{why} `fullsendd verify alpha/tank/renamed`"
    asked = plans(store, "tank/renamed")
    stopped = asked.stopped(now.holdings, now.holdings.around(datasets=names), names)
    assert stopped.pop("tank/renamed").startswith(why)
    assert stopped == {"tank/data": NOT_ASKED, "tank/again": NOT_ASKED}


def test_what_the_last_prune_left_alone_is_in_trouble(store: LocalStore) -> None:
    record = PruneRecord(datasets={"tank/data": DatasetRecord(trouble="too much"), "tank/other": DatasetRecord()})
    write_record(store.documents, SENDER, record)
    assert plans(store).troubled({"tank/data", "tank/other", "tank/new"}) == {"tank/data": "too much"}


def test_merges_are_planned_where_the_rules_have_them(store: LocalStore) -> None:
    for number in range(1, 7):
        plant(store, f"s{number}", number, number - 1 or None, sequence=number)
    for merging, count in ((None, 0), (MergeRules(rebase_after=0.0), 1)):
        every = plans(store, None, merging)
        now = every.current()
        found = every.plan(now, now.holdings.around(datasets={"tank/data"}), {})
        assert len(found.merges) == count


def test_push_that_commits_between_the_looks_at_the_journals_and_the_streams_keeps_its_base(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit needs the store's lock for one rename: the rest goes on while a prune chooses a batch."""
    for number in range(1, 5):
        plant(store, f"s{number}", number, sequence=number)
    raw = small_stream("tank/data", 9, 1)
    arriving = ingest_stream(store, SENDER, raw)
    looks: list[str] = []

    def then_commit(real: Callable[..., Any]) -> Callable[..., Any]:
        def look(*arguments: Any) -> Any:
            found = real(*arguments)
            looks.append(real.__name__)
            if len(looks) == 1:
                commit_stream(store, SENDER, arriving, raw)
            return found

        return look

    every = plans(store)
    monkeypatch.setattr(plans_module, "arriving_leases", then_commit(arriving_leases))
    monkeypatch.setattr(every._catalogues, "current", then_commit(every._catalogues.current))
    now = every.current()
    found = every.plan(now, now.holdings.around(datasets={"tank/data"}), {})
    assert sorted(looks) == ["arriving_leases", "current"]
    assert [each.stream.snapshot for each in found.drops] == ["s3", "s2"]
