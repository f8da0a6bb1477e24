from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.receiver.helpers import SENDER, plant

from fullsend_protocol.shared.units import format_time
from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.maintenance import prune_records
from fullsend_receiver.maintenance.merge_records import note_merge_run
from fullsend_receiver.maintenance.prune_records import (
    OVERDUE,
    DatasetRecord,
    PruneRecord,
    read_history,
    read_record,
    read_try,
    summary,
    troubles,
    write_history,
    write_record,
    write_try,
)

if TYPE_CHECKING:
    from fullsend_receiver.store.local import LocalStore

NOW = 1_800_000_000.0


def test_record_is_read_as_it_was_written(store: LocalStore) -> None:
    assert read_record(store.documents, SENDER) == PruneRecord()
    record = PruneRecord(at="2026", dropped=1, freed=2, datasets={"tank": DatasetRecord(sequence=3, given_up=["4"])})
    write_record(store.documents, SENDER, record)
    assert read_record(store.documents, SENDER) == record
    assert read_record(store.documents, "beta") == PruneRecord()


@pytest.mark.parametrize("content", ["", "{", '{"format": 2}'])
def test_record_that_cannot_be_read_is_made_anew(store: LocalStore, content: str) -> None:
    (store.state / f"pruned.{SENDER}.json").write_text(content, encoding="ascii")
    assert read_record(store.documents, SENDER) == PruneRecord()


def test_history_keeps_the_newer_half(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prune_records, "_HISTORY_MAX", 2000)
    plant(store, "s1", 1)
    (stored,) = read_catalogue(store).streams
    for number in range(20):
        write_history(store.documents, [(stored.summary, f"reason {number}")], now=NOW, trash=None)
        assert (store.state / "prune.jsonl").stat().st_size <= 2000
    history = read_history(store.documents)
    assert history[-1].reason == "reason 19"
    assert 3 <= len(history) < 20
    with (store.state / "prune.jsonl").open("a", encoding="ascii") as file:
        file.write("torn")
    write_history(store.documents, [(stored.summary, "after")], now=NOW, trash="t")
    assert read_history(store.documents)[-1].trash == "t"


def test_what_keeps_prunes_from_their_work_is_said(store: LocalStore) -> None:
    plant(store, "s1", 1)
    plant(store, "s2", 2, sender="beta")
    found = {"now": NOW, "since": NOW - OVERDUE - 1}
    (line,) = troubles(store, None, **found)
    assert line.startswith(
        "prune: has not run yet: does the daemon run, and with the present receiver.toml (`systemctl "
    )
    assert troubles(store, None, now=NOW, since=NOW - 100) == []
    assert summary(store) is None
    last = format_time(NOW - 100)
    datasets = {"tank/a": DatasetRecord(trouble="too much"), "tank/b": DatasetRecord()}
    write_record(store.documents, SENDER, PruneRecord(at=last, dropped=2, freed=2048, datasets=datasets))
    assert troubles(store, None, **found) == ["prune: alpha/tank/a: nothing goes: too much"]
    assert troubles(store, "beta", now=NOW, since=NOW) == []
    assert summary(store) == f"last prune {last}: 2 streams dropped, 2.0 KiB"
    assert troubles(store, SENDER, now=NOW + 2 * OVERDUE, since=0)[0].startswith(f"prune: has not run since {last}")
    write_try(store.documents, NOW, "the clock")
    assert troubles(store, SENDER, **found)[0] == f"prune: did not run at {format_time(NOW)}: the clock"
    said = read_try(store.documents)
    assert said is not None
    assert said.refused == "the clock"


def test_merges_that_have_not_come_to_their_end_are_said_for_some_days(store: LocalStore) -> None:
    """To the receiver's people alone: the reason may name another sender's streams."""
    plant(store, "s1", 1)
    note_merge_run(store.documents, "its process was killed by signal 9", NOW - 100)
    said = f"merge: the run at {format_time(NOW - 100)} has not come to its end: its process was killed by signal 9"
    assert troubles(store, None, now=NOW, since=NOW) == [said]
    assert troubles(store, SENDER, now=NOW, since=NOW) == []
    # Nothing is merged any more.
    assert troubles(store, None, now=NOW + OVERDUE, since=NOW + OVERDUE) == []


def test_sender_whose_first_streams_came_since_the_last_prune_has_nothing_to_complain_of(store: LocalStore) -> None:
    plant(store, "s1", 1)
    long_ago = NOW - 10 * OVERDUE
    write_try(store.documents, NOW - 100, None)
    assert troubles(store, SENDER, now=NOW, since=long_ago) == []
    write_try(store.documents, NOW - 100, "the clock")
    assert len(troubles(store, SENDER, now=NOW, since=long_ago)) == 2
    write_try(store.documents, NOW - 2 * OVERDUE, None)
    assert len(troubles(store, SENDER, now=NOW, since=long_ago)) == 1


def test_refused_prune_is_no_trouble_once_all_was_pruned(store: LocalStore) -> None:
    """With `prune-at = "never"`, or a daemon that does not run, nothing else would ever end it."""
    plant(store, "s1", 1)
    plant(store, "s2", 2, sender="beta")
    write_try(store.documents, NOW - 100, "the clock")
    write_record(store.documents, SENDER, PruneRecord(at=format_time(NOW - 50)))
    write_record(store.documents, "beta", PruneRecord(at=format_time(NOW - 200)))
    refused = f"prune: did not run at {format_time(NOW - 100)}: the clock"
    assert troubles(store, SENDER, now=NOW, since=0) == []
    assert troubles(store, "beta", now=NOW, since=0) == [refused]
    assert troubles(store, None, now=NOW, since=0) == [refused]
    write_record(store.documents, "beta", PruneRecord(at=format_time(NOW - 50)))
    assert troubles(store, None, now=NOW, since=0) == []


def test_why_a_prune_failed_is_told_to_its_own_sender_alone(store: LocalStore) -> None:
    """Each sender was told the name of the first one whose prune had failed, and its error."""
    plant(store, "s1", 1)
    plant(store, "s2", 2, sender="beta")
    write_try(store.documents, NOW, "beta: rot", {"beta": "rot"})
    found = {"now": NOW, "since": NOW}
    said = f"prune: did not run at {format_time(NOW)}: "
    assert troubles(store, SENDER, **found) == []
    assert troubles(store, "beta", **found) == [f"{said}rot"]
    assert troubles(store, None, **found) == [f"{said}beta: rot"]
    # As an earlier fullsendd has written it.
    (store.state / "prune.json").write_text('{"format": 1, "at": "then", "refused": "the clock"}', encoding="ascii")
    assert troubles(store, SENDER, **found) == ["prune: did not run at then: the clock"]
