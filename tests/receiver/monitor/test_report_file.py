from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from datetime import time as time_of_day
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.receiver.helpers import SENDER, plant

from fullsend_receiver.access.config import ReceiverSettings
from fullsend_receiver.access.policies import Retention
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.monitor.overview import DatasetOverview, Overview, ScrubOverview, SenderOverview
from fullsend_receiver.monitor.report_file import ReportWriter, next_page
from fullsend_receiver.monitor.survey import DaemonSource

if TYPE_CHECKING:
    from pathlib import Path

    from fullsend_receiver.store.local import LocalStore

HOUR: Final = 3600.0
NOW: Final = 1_795_000_000.0


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The local time of Berlin, where a day may have 23 or 25 hours."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


class Made:
    """A writer, and what it has."""

    def __init__(self, store: LocalStore, path: Path | None, **settings: Any) -> None:
        self.settings = ReceiverSettings(store=store.root, store_id="x", report_file=path, **settings)
        self.writer = ReportWriter(store, lambda: self.settings, DaemonSource(Catalogues(store)))

    def note(self, at: float) -> None:
        self.writer.note(overview(at))


def overview(at: float) -> Overview:
    about = DatasetOverview(sender=SENDER, dataset="tank/data", streams=1)
    return Overview(
        at=at,
        program="fullsendd 0",
        store="/srv/backups",
        free=1,
        size=2,
        min_free=0,
        senders=(SenderOverview(name=SENDER, enrolled=True, datasets=(about,)),),
        scrub=ScrubOverview(every=0),
    )


def test_the_page_is_written_at_once_and_then_when_it_is_due(store: LocalStore, tmp_path: Path) -> None:
    plant(store, "now", 1)
    path = tmp_path / "index.html"
    made = Made(store, path)
    made.note(NOW)
    first = path.read_text(encoding="utf-8")
    assert "tank/data" in first
    assert "@now: full" in first
    path.unlink()
    made.note(NOW + HOUR - 1)
    assert not path.exists()
    made.note(NOW + HOUR)
    assert path.exists()


def test_nothing_is_written_without_a_file(store: LocalStore, tmp_path: Path) -> None:
    made = Made(store, None)
    before = sorted(tmp_path.rglob("*"))
    made.note(NOW)
    assert sorted(tmp_path.rglob("*")) == before


def test_others_may_read_the_page(store: LocalStore, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        Made(store, tmp_path / "index.html").note(NOW)
    finally:
        os.umask(before)
    assert (tmp_path / "index.html").stat().st_mode & 0o777 == 0o644


def test_a_page_that_cannot_be_written_is_tried_again(store: LocalStore, tmp_path: Path) -> None:
    path = tmp_path / "missing" / "index.html"
    made = Made(store, path)
    with pytest.raises(FileNotFoundError):
        made.note(NOW)
    path.parent.mkdir()
    made.note(NOW + 60)
    assert path.exists()


def test_a_sender_that_cannot_be_read_keeps_no_page_from_being_written(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the last page stays, on which all is well."""
    plant(store, "now", 1)
    plant(store, "now", 1, sender="beta")
    real = Catalogues.current

    def current(self: Catalogues, sender: str, *, asked: int | None = None) -> Any:
        if sender == SENDER:
            raise OSError(5, "Input/output error")
        return real(self, sender, asked=asked)

    monkeypatch.setattr(Catalogues, "current", current)
    made = Made(store, tmp_path / "a.html", retention=Retention(daily=7))
    made.note(NOW)
    said = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "Next prune: it cannot be planned for alpha: Input/output error." in said


def test_pins_that_cannot_be_read_keep_no_page_from_being_written(store: LocalStore, tmp_path: Path) -> None:
    plant(store, "now", 1)
    (store.state / "pins.json").write_text("{", encoding="ascii")
    Made(store, tmp_path / "a.html", retention=Retention(daily=7)).note(NOW)
    assert "so nothing is deleted" in (tmp_path / "a.html").read_text(encoding="utf-8")


def test_other_settings_count_at_once(store: LocalStore, tmp_path: Path) -> None:
    made = Made(store, tmp_path / "a.html")
    made.note(NOW)
    made.settings = made.settings.model_copy(update={"report_file": tmp_path / "b.html"})
    made.note(NOW + 60)
    assert (tmp_path / "b.html").exists()


def test_a_clock_that_was_set_back_does_not_stop_the_page(store: LocalStore, tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    made = Made(store, path)
    made.note(NOW)
    path.unlink()
    made.note(NOW - 1000 * HOUR)
    assert path.exists()


def test_the_page_says_when_the_next_one_is_due(store: LocalStore, tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    Made(store, path).note(NOW)
    due = datetime.fromtimestamp(NOW + HOUR).strftime("%Y-%m-%d %H:%M")  # noqa: DTZ006 - as the page
    assert f"The next page is due at {due}" in path.read_text(encoding="utf-8")


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(
    ("now", "at", "due"),
    [
        ("2026-11-28 05:59", "06:00", "2026-11-28 06:00"),
        ("2026-11-28 06:00", "06:00", "2026-11-29 06:00"),
        ("2026-10-24 06:00", "06:00", "2026-10-25 06:00"),  # a day of 25 hours
        ("2026-03-28 06:00", "06:00", "2026-03-29 06:00"),  # one of 23
    ],
)
def test_a_daily_page_is_due_at_its_local_time(now: str, at: str, due: str) -> None:
    begin, end = (datetime.fromisoformat(each).timestamp() for each in (now, due))
    assert next_page(begin, time_of_day.fromisoformat(at), HOUR) == end


def test_a_page_each_so_many_seconds() -> None:
    assert next_page(NOW, None, HOUR) == NOW + HOUR


def test_a_daily_page_is_not_written_each_hour(store: LocalStore, tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    here = datetime.fromtimestamp(NOW)  # noqa: DTZ006 - local time is meant
    made = Made(store, path, report_at=here.time().replace(second=0, microsecond=0))
    made.note(NOW)
    path.unlink()
    made.note(NOW + 2 * HOUR)
    assert not path.exists()
    made.note(NOW + 26 * HOUR)
    assert path.exists()


def test_an_overview_is_not_changed(store: LocalStore, tmp_path: Path) -> None:
    found = overview(NOW)
    Made(store, tmp_path / "a.html").writer.note(found)
    assert found == replace(overview(NOW))
