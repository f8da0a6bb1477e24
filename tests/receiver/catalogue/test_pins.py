from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest

from fullsend_protocol.shared.errors import UsageError
from fullsend_receiver.catalogue import pins
from fullsend_receiver.catalogue.pins import pin, pins_in_force, read_pins, unpin
from fullsend_receiver.store.errors import StoreError

if TYPE_CHECKING:
    from fullsend_receiver.store.local import LocalStore

ONE, OTHER = PurePosixPath("alpha/tank/@one.zfs.zst"), PurePosixPath("alpha/tank/@other.zfs.zst")
NOW = 1_800_000_000.0


def content(store: LocalStore) -> Any:
    return json.loads((store.state / "pins.json").read_bytes())


def test_pin_lasts_until_its_end(store: LocalStore) -> None:
    documents = store.documents
    assert read_pins(documents) == {}
    pin(documents, [ONE], now=NOW, until=NOW + 100, note="why")
    pin(documents, [OTHER], now=NOW)
    assert set(pins_in_force(documents, NOW + 99)) == {ONE, OTHER}
    assert set(pins_in_force(documents, NOW + 100)) == {OTHER}
    assert read_pins(documents)[ONE].note == "why"


def test_pin_of_a_pinned_stream_takes_its_place_and_ended_ones_go(store: LocalStore) -> None:
    documents = store.documents
    pin(documents, [ONE], now=NOW, until=NOW + 100)
    pin(documents, [ONE], now=NOW, until=NOW + 50, note="sooner")
    assert [each["note"] for each in content(store)["pins"]] == ["sooner"]
    pin(documents, [OTHER], now=NOW + 60)
    assert [each["file"] for each in content(store)["pins"]] == [str(OTHER)]


def test_unpin_removes_one_pin(store: LocalStore) -> None:
    documents = store.documents
    pin(documents, [ONE, OTHER], now=NOW)
    assert unpin(documents, ONE)
    assert not unpin(documents, ONE)
    assert set(read_pins(documents)) == {OTHER}


def test_keys_that_are_not_known_are_kept(store: LocalStore) -> None:
    row = {"file": str(ONE), "at": "2026-11-27T00:00:00Z", "later": 1}
    (store.state / "pins.json").write_text(json.dumps({"format": 1, "pins": [row], "more": 2}), encoding="ascii")
    pin(store.documents, [OTHER], now=NOW)
    said = content(store)
    assert said["more"] == 2
    assert said["pins"][0]["later"] == 1


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 2, "pins": []}', '{"format": 1, "pins": [{}]}'])
def test_document_that_cannot_be_read_is_an_error_and_stays(store: LocalStore, text: str) -> None:
    (store.state / "pins.json").write_text(text, encoding="ascii")
    with pytest.raises(StoreError, match="so nothing is deleted"):
        read_pins(store.documents)
    with pytest.raises(StoreError, match="so nothing is deleted"):
        pin(store.documents, [ONE], now=NOW)
    assert (store.state / "pins.json").read_text(encoding="ascii") == text


def test_end_that_cannot_be_read_never_comes(store: LocalStore) -> None:
    row = {"file": str(ONE), "at": "x", "until": "some day"}
    (store.state / "pins.json").write_text(json.dumps({"format": 1, "pins": [row]}), encoding="ascii")
    assert set(pins_in_force(store.documents, 1e12)) == {ONE}


def test_pins_and_notes_have_a_limit(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="the note has 1001 characters"):
        pin(store.documents, [ONE], now=NOW, note="x" * 1001)
    monkeypatch.setattr(pins, "PINS_MAX", 1)
    pin(store.documents, [ONE], now=NOW)
    pin(store.documents, [ONE], now=NOW)
    with pytest.raises(UsageError, match="1 streams are pinned"):
        pin(store.documents, [OTHER], now=NOW)
