from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from tests.receiver.helpers import SENDER, manifest_path, plant

from fullsend_protocol.wire.messages import UnchangedDataset
from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.catalogue.unchanged import last_seen, note

if TYPE_CHECKING:
    from pathlib import Path

    from fullsend_receiver.store.local import LocalStore


def seen(dataset: str, guid: int) -> UnchangedDataset:
    return UnchangedDataset(dataset=dataset, snapshot="now", guid=str(guid))


def file_of(store: LocalStore) -> Path:
    return store.state / f"unchanged.{SENDER}.json"


def age(store: LocalStore) -> None:
    """Make all that is written down a year older."""
    text = file_of(store).read_text(encoding="utf-8")
    file_of(store).write_text(re.sub(r'"at": "\d{4}', '"at": "2001', text), encoding="utf-8")


def test_nothing_is_seen_before_anything_was_said(store: LocalStore) -> None:
    assert last_seen(store, SENDER) == {}


def test_what_is_said_later_stands_beside_what_was_said_before(store: LocalStore) -> None:
    for number, dataset in enumerate(("tank/a", "tank/b", "tank/c"), 1):
        plant(store, "s1", number, dataset=dataset)
    note(read_catalogue(store, SENDER), SENDER, [seen("tank/a", 1), seen("tank/b", 2)])
    age(store)
    note(read_catalogue(store, SENDER), SENDER, [seen("tank/b", 2), seen("tank/c", 3)])
    found = last_seen(store, SENDER)
    assert set(found) == {("tank/a", "1"), ("tank/b", "2"), ("tank/c", "3")}
    assert found["tank/a", "1"].startswith("2001-")
    assert not found["tank/b", "2"].startswith("2001-")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found["tank/c", "3"])


def test_only_what_is_stored_counts(store: LocalStore) -> None:
    """Nor can a sender that makes names up fill the disk with them."""
    file = plant(store, "s1", 1, dataset="tank/a")
    plant(store, "s1", 5, dataset="tank/b")
    plant(store, "s1", 6, sender="beta", dataset="tank/c")
    note(
        read_catalogue(store, SENDER),
        SENDER,
        [seen("tank/a", 1), seen("tank/b", 4), seen("tank/c", 6), seen("tank/nope", 1)],
    )
    assert set(last_seen(store, SENDER)) == {("tank/a", "1")}
    manifest_path(store, file).unlink()
    note(read_catalogue(store, SENDER), SENDER, [seen("tank/b", 5)])
    assert set(last_seen(store, SENDER)) == {("tank/b", "5")}


def test_senders_do_not_see_one_another(store: LocalStore) -> None:
    plant(store, "s1", 1, dataset="tank/a")
    note(read_catalogue(store, SENDER), SENDER, [seen("tank/a", 1)])
    assert last_seen(store, "beta") == {}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"null",
        b'{"tank/a": 5}',
        b'{"tank/a": {"guid": "1"}}',
        b'{"tank/a": {"guid": 1, "at": "2026-01-01T00:00:00Z"}}',
    ],
)
def test_file_that_says_nothing_makes_a_backup_look_older_and_no_more(store: LocalStore, content: bytes) -> None:
    plant(store, "s1", 1, dataset="tank/a")
    file_of(store).write_bytes(content)
    assert last_seen(store, SENDER) == {}
    note(read_catalogue(store, SENDER), SENDER, [seen("tank/a", 1)])
    assert set(last_seen(store, SENDER)) == {("tank/a", "1")}


def test_what_was_said_while_our_clock_was_ahead_says_nothing(store: LocalStore) -> None:
    """It stood above all that came since, for as long as the clock had been ahead."""
    plant(store, "s1", 1, dataset="tank/a")
    note(read_catalogue(store, SENDER), SENDER, [seen("tank/a", 1)])
    text = file_of(store).read_text(encoding="utf-8")
    file_of(store).write_text(re.sub(r'"at": "\d{4}', '"at": "2996', text), encoding="utf-8")
    assert last_seen(store, SENDER) == {}


def test_file_is_json_for_anybody_and_nothing_is_left_beside_it(store: LocalStore) -> None:
    plant(store, "s1", 1, dataset="tank/größe")
    note(read_catalogue(store, SENDER), SENDER, [seen("tank/größe", 1)])
    said = json.loads(file_of(store).read_bytes())
    assert said == {"tank/größe": {"guid": "1", "at": last_seen(store, SENDER)["tank/größe", "1"]}}
    assert not list(store.state.glob("*.tmp"))
