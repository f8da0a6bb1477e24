from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.receiver.helpers import SENDER, manifest_path, plant

from fullsend_protocol.shared.units import parse_time
from fullsend_protocol.wire.messages import Drilled, DrillEntry
from fullsend_receiver.catalogue.holdings import Holdings
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.monitor.drills import drill_entries, note_drill, read_drills
from fullsend_receiver.monitor.overview import Drill
from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store.local import LocalStore


def holdings(store: LocalStore) -> Holdings:
    return Catalogues(store).current(SENDER)


def drilled(dataset: str, *, ok: bool = True, **about: Any) -> Drilled:
    said: dict[str, Any] = {
        "snapshot": "s1",
        "guid": "1",
        "compared": "files",
        "text": "fine",
        "milliseconds": 1500,
        "raw_bytes": 624,
        "files": 3,
    }
    return Drilled(dataset=dataset, ok=ok, **(said | about))


def file_of(store: LocalStore) -> Path:
    return store.state / f"drills.{SENDER}.json"


def age(store: LocalStore, year: str = "2001") -> None:
    """Make all that is written down a year older, or of another year."""
    text = file_of(store).read_text(encoding="utf-8")
    file_of(store).write_text(re.sub(r'(: )"\d{4}-', rf'\1"{year}-', text), encoding="utf-8")


def test_nothing_is_known_before_anything_was_said(store: LocalStore) -> None:
    assert read_drills(store, SENDER) == {}
    assert drill_entries(store, SENDER) == []


def test_the_last_drill_is_kept_and_the_last_success(store: LocalStore) -> None:
    for number, dataset in enumerate(("tank/b", "tank/a"), 1):
        plant(store, "s1", number, dataset=dataset)
        note_drill(holdings(store), SENDER, drilled(dataset))
    one, two = drill_entries(store, SENDER)
    assert (one.dataset, two.dataset) == ("tank/a", "tank/b")
    assert one == DrillEntry(**drilled("tank/a").model_dump(exclude={"type"}), at=one.at, succeeded=one.at)
    age(store)
    note_drill(holdings(store), SENDER, drilled("tank/a", ok=False, text="3 files differ", snapshot="s2", files=0))
    found = read_drills(store, SENDER)
    assert found["tank/a"] == Drill(
        at=found["tank/a"].at,
        snapshot="s2",
        ok=False,
        compared="files",
        text="3 files differ",
        seconds=1.5,
        raw_bytes=624,
        succeeded=parse_time(one.at.replace(one.at[:4], "2001", 1)),
    )
    assert found["tank/a"].at > (found["tank/a"].succeeded or 0)
    assert found["tank/b"].at == found["tank/b"].succeeded
    # One that was never ok.
    plant(store, "s1", 3, dataset="tank/c")
    note_drill(holdings(store), SENDER, drilled("tank/c", ok=False))
    assert read_drills(store, SENDER)["tank/c"].succeeded is None


def test_only_what_is_stored_counts(store: LocalStore) -> None:
    """Nor can a sender that makes names up fill the disk with them."""
    file = plant(store, "s1", 1, dataset="tank/a")
    plant(store, "s1", 2, dataset="tank/b")
    plant(store, "s1", 3, sender="beta", dataset="tank/c")
    for name in ("tank/a", "tank/c", "tank/nope"):
        note_drill(holdings(store), SENDER, drilled(name))
    assert set(read_drills(store, SENDER)) == {"tank/a"}
    assert read_drills(store, "beta") == {}
    manifest_path(store, file).unlink()
    note_drill(holdings(store), SENDER, drilled("tank/b"))
    assert set(read_drills(store, SENDER)) == {"tank/b"}


def test_a_success_of_a_clock_that_was_ahead_is_none(store: LocalStore) -> None:
    plant(store, "s1", 1, dataset="tank/a")
    note_drill(holdings(store), SENDER, drilled("tank/a"))
    age(store, "2996")
    assert read_drills(store, SENDER)["tank/a"].succeeded is None
    note_drill(holdings(store), SENDER, drilled("tank/a"))
    assert read_drills(store, SENDER)["tank/a"].succeeded is not None


@pytest.mark.parametrize("content", [b"", b'{"tank/a": 5}', b'{"tank/a": {"guid": "1"}}'])
def test_file_that_says_nothing_makes_a_drill_look_older_and_no_more(store: LocalStore, content: bytes) -> None:
    plant(store, "s1", 1, dataset="tank/a")
    file_of(store).write_bytes(content)
    assert read_drills(store, SENDER) == {}
    note_drill(holdings(store), SENDER, drilled("tank/a"))
    assert set(read_drills(store, SENDER)) == {"tank/a"}


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[]", b"null"])
def test_a_spoilt_file_is_a_fault_until_the_next_drill(store: LocalStore, content: bytes) -> None:
    plant(store, "s1", 1, dataset="tank/a")
    file_of(store).write_bytes(content)
    with pytest.raises(StoreError, match="is spoilt"):
        read_drills(store, SENDER)
    assert drill_entries(store, SENDER) == []  # a drill asks for them first
    note_drill(holdings(store), SENDER, drilled("tank/a"))
    assert set(read_drills(store, SENDER)) == {"tank/a"}


def test_a_later_version_may_add_keys(store: LocalStore) -> None:
    plant(store, "s1", 1, dataset="tank/a")
    note_drill(holdings(store), SENDER, drilled("tank/a"))
    said = json.loads(file_of(store).read_bytes())
    said["tank/a"]["new"] = 1
    file_of(store).write_text(json.dumps(said), encoding="utf-8")
    assert set(read_drills(store, SENDER)) == {"tank/a"}
