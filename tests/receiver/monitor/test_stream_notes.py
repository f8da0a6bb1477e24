from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tests.receiver.helpers import SENDER, plant, remove

from fullsend_protocol.shared.units import parse_time
from fullsend_receiver.catalogue.scrub_results import Scrubbed
from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.monitor.stream_notes import stream_notes

if TYPE_CHECKING:
    from fullsend_receiver.store.local import LocalStore

AT = "2026-11-02T03:00:00Z"


def test_each_stream_has_a_note_in_order_of_reception(store: LocalStore) -> None:
    full = plant(store, "a", 1, received="2026-11-01T02:00:00Z", sequence=1)
    merged = plant(store, "b", 2, 1, received="2026-11-02T02:00:00Z", sequence=2, proven_by="merge")
    notes = stream_notes(read_catalogue(store))
    assert list(notes) == [(SENDER, "tank/data")]
    one, other = notes[SENDER, "tank/data"]
    assert (one.file, one.snapshot, one.kind, one.base_guid) == (str(full), "a", "full", None)
    assert (one.merged, one.restorable, one.damaged, one.checked) == (False, True, False, None)
    assert one.received == parse_time("2026-11-01T02:00:00Z")
    assert (other.file, other.kind, other.base_guid, other.merged) == (str(merged), "incremental", one.guid, True)


def test_a_damaged_stream_and_what_builds_on_it(store: LocalStore) -> None:
    full = plant(store, "a", 1, sequence=1)
    plant(store, "b", 2, 1, sequence=2)
    (store.root / full).unlink()
    one, other = stream_notes(read_catalogue(store))[SENDER, "tank/data"]
    assert (one.damaged, one.restorable) == (True, False)
    assert (other.damaged, other.restorable) == (False, False)


def test_a_check_that_found_it_whole_is_noted(store: LocalStore) -> None:
    plant(store, "a", 1)
    catalogue = read_catalogue(store)
    about = catalogue.streams[0].summary
    whole = Scrubbed(file=about.path, received=about.received, at=AT, damage=(), sha256=None, whole_since=AT)
    catalogue.scrubbed.add(whole)
    assert stream_notes(catalogue)[SENDER, "tank/data"][0].checked == parse_time(AT)
    catalogue.scrubbed.add(replace(whole, damage=("it is damaged",), whole_since=None))
    assert stream_notes(catalogue)[SENDER, "tank/data"][0].checked is None


def test_a_time_that_cannot_be_read_is_no_time(store: LocalStore) -> None:
    plant(store, "a", 1, received="soon")
    assert stream_notes(read_catalogue(store))[SENDER, "tank/data"][0].received < 0


def test_nothing_is_stored(store: LocalStore) -> None:
    file = plant(store, "a", 1)
    remove(store, file)
    assert stream_notes(read_catalogue(store)) == {}
