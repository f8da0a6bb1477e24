from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.receiver.helpers import SENDER
from tests.receiver.histories import stream

from fullsend_protocol.shared.units import format_time
from fullsend_receiver.maintenance import merge_records
from fullsend_receiver.maintenance.merge_records import (
    MergeRecord,
    MergeRun,
    note_merge,
    note_merge_run,
    note_proof,
    note_refusal,
    read_merge_run,
    read_merges,
)

if TYPE_CHECKING:
    from fullsend_receiver.store.local import LocalStore

NOW = 1_800_000_000.0


def test_without_a_document_nothing_is_known(store: LocalStore) -> None:
    assert read_merges(store.documents, SENDER) == MergeRecord()


def test_refusals_and_rate_are_kept(store: LocalStore) -> None:
    one, two = stream(1), stream(2, 1)
    note_refusal(store.documents, SENDER, (one, two), "redacted")
    note_merge(store.documents, SENDER, 1_000_000_000, 2.0)
    found = read_merges(store.documents, SENDER)
    assert found.reasons() == {(one.path, two.path): "redacted"}
    assert found.raw_rate == 5e8
    assert read_merges(store.documents, "beta") == MergeRecord()


def test_what_another_version_refused_does_not_count(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(merge_records, "PROGRAM", "fullsendd 0.0")
        note_refusal(store.documents, SENDER, (stream(1), stream(2, 1)), "redacted")
    assert len(read_merges(store.documents, SENDER).refused) == 1
    assert read_merges(store.documents, SENDER).reasons() == {}


def test_what_merges_have_made_adds_up(store: LocalStore) -> None:
    for raw_bytes in (5, 7):
        note_merge(store.documents, SENDER, raw_bytes, 0.0)
    assert read_merges(store.documents, SENDER).raw_bytes_ever == 12
    assert read_merges(store.documents, SENDER).raw_rate == 7000.0


def test_only_the_newest_refusals_are_kept(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge_records, "_REFUSED_MAX", 2)
    for number in range(3):
        note_refusal(store.documents, SENDER, (stream(number), stream(number + 1, number)), str(number))
    assert [each.why for each in read_merges(store.documents, SENDER).refused] == ["1", "2"]


def test_a_document_that_cannot_be_read_is_made_anew(store: LocalStore) -> None:
    store.documents.put(f"merged.{SENDER}.json", b"{", if_match=None)
    assert read_merges(store.documents, SENDER) == MergeRecord()
    note_merge(store.documents, SENDER, 1, 1.0)
    assert read_merges(store.documents, SENDER).raw_rate == 1.0


def test_the_end_of_a_run_is_noted_and_those_that_came_to_it_are_counted(store: LocalStore) -> None:
    assert read_merge_run(store.documents) == MergeRun()
    note_merge_run(store.documents, None, NOW)
    assert read_merge_run(store.documents) == MergeRun(at=format_time(NOW), ends=1)
    note_merge_run(store.documents, "killed", NOW + 1)
    assert read_merge_run(store.documents) == MergeRun(at=format_time(NOW + 1), why="killed", ends=1)
    note_merge_run(store.documents, None, NOW + 2)
    assert read_merge_run(store.documents) == MergeRun(at=format_time(NOW + 2), ends=2)


def test_a_note_of_a_run_that_cannot_be_read_is_made_anew(store: LocalStore) -> None:
    store.documents.put("merge.json", b"{", if_match=None)
    assert read_merge_run(store.documents) == MergeRun()
    note_merge_run(store.documents, "killed", NOW)
    assert read_merge_run(store.documents).why == "killed"


def test_proofs_are_kept_by_file_and_time_of_reception(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    note = note_proof
    note(store.documents, SENDER, "a", received="2026-01-01T00:00:00Z", how="stream", now=0.0)
    note(store.documents, SENDER, "b", received="2026-01-02T00:00:00Z", how="state", now=1.0)
    note(store.documents, SENDER, "a", received="2026-01-03T00:00:00Z", how="stream", now=2.0)
    note_merge(store.documents, SENDER, 1_000_000_000, 2.0)
    found = read_merges(store.documents, SENDER)
    assert found.proofs() == {
        ("b", "2026-01-02T00:00:00Z"): "1970-01-01T00:00:01Z",
        ("a", "2026-01-03T00:00:00Z"): "1970-01-01T00:00:02Z",
    }
    assert [each.how for each in found.proven] == ["state", "stream"]
    monkeypatch.setattr(merge_records, "_PROVEN_MAX", 2)
    note(store.documents, SENDER, "c", received="2026-01-04T00:00:00Z", how="stream", now=3.0)
    assert [file for file, _received in read_merges(store.documents, SENDER).proofs()] == ["a", "c"]
