from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests import streams
from tests.receiver.helpers import SENDER, push_of

from fullsend_receiver.arrival.overruns import OverrunRecord, find, forget, note

if TYPE_CHECKING:
    from fullsend_receiver.store.local import LocalStore

PUSH = push_of(streams.substream(streams.object_(1)))


def test_how_far_a_stream_came_is_found_for_the_next_one_of_its_kind(store: LocalStore) -> None:
    assert find(store, SENDER, PUSH) is None
    note(store, SENDER, PUSH, OverrunRecord(7, 5))
    note(store, SENDER, PUSH, OverrunRecord(8, 6))
    later = PUSH.model_copy(update={"snapshot": "later", "guid": "77", "size_estimate": 4})
    assert find(store, SENDER, later) == OverrunRecord(8, 6)
    assert find(store, "beta", PUSH) is None
    for other in ({"dataset": "tank"}, {"base_guid": "4"}, {"flags": "w"}, {"guid": None, "flags": None}):
        assert find(store, SENDER, PUSH.model_copy(update=other)) is None


def test_what_is_stored_by_now_is_forgotten(store: LocalStore) -> None:
    forget(store, SENDER, PUSH)
    file = store.state / f"crossed.{SENDER}.json"
    assert not file.exists()
    other = PUSH.model_copy(update={"dataset": "tank/other"})
    note(store, SENDER, PUSH, OverrunRecord(7, 5))
    note(store, SENDER, other, OverrunRecord(1, 1))
    forget(store, SENDER, PUSH)
    assert find(store, SENDER, PUSH) is None
    assert find(store, SENDER, other) == OverrunRecord(1, 1)
    assert [entry["dataset"] for entry in json.loads(file.read_bytes())] == ["tank/other"]


def test_there_is_an_end_to_what_one_sender_can_have_written_down(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fullsend_receiver.arrival.overruns._MOST", 3)
    names = [f"tank/{number}" for number in range(5)]
    for name in names:
        note(store, SENDER, PUSH.model_copy(update={"dataset": name}), OverrunRecord(1, 1))
    found = [name for name in names if find(store, SENDER, PUSH.model_copy(update={"dataset": name}))]
    assert found == names[2:]


@pytest.mark.parametrize("text", ["", "{", "{}", "[1, {}, null]", '[{"dataset": "tank/data", "raw_bytes": "1"}]'])
def test_a_file_that_says_nothing_counts_for_nothing(store: LocalStore, text: str) -> None:
    (store.state / f"crossed.{SENDER}.json").write_text(text, encoding="utf-8")
    assert find(store, SENDER, PUSH) is None
    note(store, SENDER, PUSH, OverrunRecord(2, 1))
    assert find(store, SENDER, PUSH) == OverrunRecord(2, 1)


def test_an_entry_with_more_in_it_is_read(store: LocalStore) -> None:
    note(store, SENDER, PUSH, OverrunRecord(2, 1))
    file = store.state / f"crossed.{SENDER}.json"
    (entry,) = json.loads(file.read_bytes())
    file.write_text(json.dumps([{**entry, "later": "version"}]), encoding="utf-8")
    assert find(store, SENDER, PUSH) == OverrunRecord(2, 1)
