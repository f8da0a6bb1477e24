"""How the copies in another store stand, of what is noted and what receiver.toml wants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from fullsend_protocol.shared.units import format_time
from fullsend_receiver.access.copy_settings import CopySettings
from fullsend_receiver.maintenance.copy_records import change_record, note_wanted
from fullsend_receiver.monitor.alarms import Moment
from fullsend_receiver.monitor.copies import find_copies
from fullsend_receiver.monitor.overview import CopyOverview

if TYPE_CHECKING:
    from pathlib import Path

    from fullsend_receiver.store.local import LocalStore

ID: Final = "0f"
HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
NOW: Final = 1_795_478_400.0  # 2026-11-24T00:00:00Z


@pytest.fixture
def settings(tmp_path: Path) -> CopySettings:
    file = tmp_path / "offsite.toml"
    file.write_text(f'store = "s3://offsite/zfs"\nstore-id = "{ID}"\n', encoding="utf-8")
    return CopySettings(to=file)


def note(store: LocalStore, **said: Any) -> None:
    times = {name: format_time(value) if isinstance(value, float) else value for name, value in said.items()}
    change_record(store.documents, ID, lambda record: record.model_copy(update=times))


def find(store: LocalStore, settings: CopySettings | None, now: float = NOW) -> CopyOverview:
    found = find_copies(store, settings, Moment(now, now))
    assert found is not None
    return found


def test_without_the_table_there_is_nothing(store: LocalStore) -> None:
    assert find_copies(store, None, Moment(NOW, NOW)) is None


def test_nothing_is_known_before_the_daemon_has_looked(store: LocalStore, settings: CopySettings) -> None:
    found = find(store, settings)
    assert (found.to, found.since, found.complete, found.age, found.ok) == ("s3://offsite/zfs", None, None, None, None)
    assert (found.runs, found.is_late) == (False, False)


def test_age_counts_from_the_last_complete_copy(store: LocalStore, settings: CopySettings) -> None:
    note_wanted(store.documents, ID, settings.scope, NOW - 9 * DAY)
    assert find(store, settings).age == 9 * DAY
    note(store, complete=NOW - 26 * HOUR, began=NOW - HOUR, ended=NOW - HOUR / 2, ok=False, left=2, why=None, older=1)
    found = find(store, settings)
    assert (found.age, found.limit, found.is_late) == (26 * HOUR, 3 * DAY, False)
    assert (found.ok, found.left, found.older, found.runs) == (False, 2, 1, False)
    assert find(store, settings, NOW + 2 * DAY).is_late


def test_run_that_has_not_ended(store: LocalStore, settings: CopySettings) -> None:
    note(store, since=NOW - DAY, complete=NOW - DAY, began=NOW - HOUR, ended=None, ok=True, host="nas")
    found = find(store, settings)
    assert (found.runs, found.ok, found.host) == (True, True, "nas")


def test_copy_that_lies_in_the_future_tells_no_age(store: LocalStore, settings: CopySettings) -> None:
    note(store, since=NOW, complete=NOW + 30 * DAY)
    found = find(store, settings)
    assert (found.age, found.is_late) == (None, True)


def test_copy_of_less_than_is_wanted_is_none(store: LocalStore, settings: CopySettings) -> None:
    note(store, since=NOW - DAY, what=["alpha"], complete=NOW - HOUR)
    assert find(store, settings).complete is None
    narrow = settings.model_copy(update={"what": ("alpha/tank/home",)})
    assert find(store, narrow).complete == NOW - HOUR


def test_no_alarm_is_wanted(store: LocalStore, settings: CopySettings) -> None:
    note(store, since=NOW - 99 * DAY, complete=NOW - 98 * DAY)
    assert not find(store, settings.model_copy(update={"alarm_after": 0.0})).is_late


def test_file_of_the_other_store_that_cannot_be_read_is_a_fault(store: LocalStore, settings: CopySettings) -> None:
    settings.to.unlink()
    found = find(store, settings)
    assert found.to == str(settings.to)
    assert "no such file" in (found.fault or "")
