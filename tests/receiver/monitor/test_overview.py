from __future__ import annotations

from dataclasses import replace

from fullsend_receiver.monitor.overview import Alarm, DatasetOverview, Overview, ScrubOverview, SenderOverview

DATASET = DatasetOverview(sender="alpha", dataset="tank/home")
OVERVIEW = Overview(at=0.0, program="fullsendd 9", store="/s", free=1, size=2, min_free=0, scrub=ScrubOverview(every=0))


def test_a_dataset_was_seen_when_it_last_came_or_was_reported_as_unchanged() -> None:
    assert DATASET.seen is None
    assert replace(DATASET, received=5.0).seen == 5
    assert replace(DATASET, received=5.0, unchanged=7.0).seen == 7
    assert replace(DATASET, unchanged=7.0).seen == 7


def test_a_sender_was_seen_when_any_of_its_datasets_was() -> None:
    seen = [replace(DATASET, received=5.0), replace(DATASET, dataset="tank/new"), replace(DATASET, unchanged=8.0)]
    assert SenderOverview(name="alpha", enrolled=True, datasets=tuple(seen)).seen == 8
    assert SenderOverview(name="alpha", enrolled=True, datasets=(DATASET,)).seen is None


def test_the_worst_alarm_makes_the_level() -> None:
    late = Alarm(code="late", level="warning", text="it is late")
    damage = Alarm(code="damage", level="critical", text="it is damaged")
    assert OVERVIEW.level is None
    assert replace(OVERVIEW, alarms=(late,)).level == "warning"
    assert replace(OVERVIEW, alarms=(late, damage)).level == "critical"


def test_an_alarm_keeps_its_key_while_its_text_changes() -> None:
    late = Alarm(code="late", level="warning", text="since 1 h", sender="alpha", dataset="tank/home")
    assert late.key == ("late", "alpha", "tank/home")
    assert replace(late, level="critical", text="since 2 h", since=4.0).key == late.key
    assert Alarm(code="late", level="warning", text="of all").key == ("late", "", "")
