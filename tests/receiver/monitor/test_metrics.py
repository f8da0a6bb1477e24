"""The receiver's metrics: all of them, and how many there may be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from tests.promtool import complaints
from tests.receiver.metrics_sample import BARE, HOME, NOW, OVERVIEW, sample_counters

from fullsend_protocol.format.metrics_text import parse_samples
from fullsend_receiver.access.config import ReceiverSettings
from fullsend_receiver.arrival.counters import Counters
from fullsend_receiver.monitor.metrics import DATASETS_DEFAULT, OTHERS, render
from fullsend_receiver.monitor.overview import Alarm, DatasetOverview, Overview, SenderOverview

GOLDEN = Path(__file__).with_name("golden_metrics.prom")


def values(overview: Overview, name: str, datasets_max: int = DATASETS_DEFAULT) -> dict[tuple[str, ...], float]:
    """Return the values of a metric, by the values of its labels."""
    samples = parse_samples(render(overview, sample_counters(), datasets_max=datasets_max))
    return {
        tuple(value for _name, value in each.labels): each.value for each in samples if each.name == f"fullsend_{name}"
    }


def with_datasets(*senders: tuple[str, list[str]]) -> Overview:
    return replace(
        OVERVIEW,
        senders=tuple(
            SenderOverview(
                name=name,
                enrolled=True,
                datasets=tuple(replace(HOME, sender=name, dataset=dataset) for dataset in datasets),
            )
            for name, datasets in senders
        ),
    )


def test_the_golden_page() -> None:
    text = render(OVERVIEW, sample_counters())
    assert text == GOLDEN.read_text(encoding="utf-8")
    assert not complaints(text)


def test_an_empty_store_has_its_metrics_too() -> None:
    text = render(replace(OVERVIEW, senders=(), alarms=(), full_at=None), Counters())
    assert not complaints(text)
    names = {each.name for each in parse_samples(text)}
    assert {"fullsend_metrics_timestamp_seconds", "fullsend_alarms", "fullsend_push_failures_total"} <= names
    assert not names & {"fullsend_alarm", "fullsend_raw_bytes", "fullsend_store_full_timestamp_seconds"}


def test_what_is_unknown_of_a_dataset_has_no_value() -> None:
    for name in ("last_seen_timestamp_seconds", "expected_interval_seconds", "drill_last_ok"):
        assert [labels[0] for labels in values(OVERVIEW, name)] == ["alpha"]
    assert values(OVERVIEW, "streams")["beta", BARE.dataset, "full"] == 0


def test_a_time_in_the_future_is_not_when_it_was_last_seen() -> None:
    ahead = replace(HOME, received=NOW + 9000, unchanged=None, age=None)
    overview = replace(OVERVIEW, senders=(SenderOverview(name="alpha", enrolled=True, datasets=(ahead,)),))
    assert values(overview, "last_seen_timestamp_seconds") == {}
    assert values(overview, "last_receipt_timestamp_seconds") == {("alpha", HOME.dataset): NOW + 9000}


def test_the_default_is_that_of_the_settings() -> None:
    assert ReceiverSettings.model_fields["metrics_datasets"].default == DATASETS_DEFAULT


def test_datasets_above_the_bound_are_summed_up() -> None:
    early = replace(HOME, dataset="tank/c", received=NOW - 500, unchanged=None, age=500.0, oldest_check=5.0)
    overview = with_datasets(("alpha", ["tank/a", "tank/b"]))
    alpha = overview.senders[0]
    overview = replace(overview, senders=(replace(alpha, datasets=(early, *alpha.datasets)),))
    assert values(overview, "raw_bytes", 1) == {("alpha", "tank/a"): 5000, ("alpha", OTHERS): 10_000}
    assert values(overview, "streams", 0) == {("alpha", OTHERS, "full"): 6, ("alpha", OTHERS, "other"): 9}
    assert values(overview, "last_seen_timestamp_seconds", 0) == {("alpha", OTHERS): min(NOW - 500, NOW - 3600)}
    assert values(overview, "oldest_verified_timestamp_seconds", 0) == {("alpha", OTHERS): 5.0}
    assert values(overview, "datasets_left_out", 1) == {("alpha",): 2}
    assert values(overview, "datasets", 1) == {("alpha",): 3}
    assert not complaints(render(overview, sample_counters(), datasets_max=1))


def test_a_sender_with_many_takes_no_places_from_the_others() -> None:
    overview = with_datasets(("many", [f"tank/{n}" for n in range(50)]), ("some", ["a", "b"]), ("one", ["a"]))
    assert values(overview, "datasets_left_out", 10) == {("many",): 43, ("some",): 0, ("one",): 0}
    assert values(overview, "datasets_left_out", 4) == {("many",): 48, ("some",): 1, ("one",): 0}


@given(st.lists(st.integers(0, 30), max_size=8), st.integers(0, 60))
def test_there_are_never_more_and_never_fewer_than_may_be(counts: list[int], most: int) -> None:
    overview = with_datasets(*((f"s{n}", [f"tank/{m}" for m in range(count)]) for n, count in enumerate(counts)))
    own = [labels for labels in values(overview, "raw_bytes", most) if labels[1] != OTHERS]
    assert len(own) == min(most, sum(counts))
    assert sum(values(overview, "datasets_left_out", most).values()) == sum(counts) - len(own)
    assert sum(values(overview, "raw_bytes", most).values()) == 5000 * sum(counts)


@given(st.lists(st.text(), unique=True, max_size=10))
def test_datasets_of_any_name_are_told_apart(names: list[str]) -> None:
    overview = with_datasets(("alpha", names))
    assert {dataset for _sender, dataset in values(overview, "raw_bytes")} == set(names)


def test_alarms_are_bounded_and_the_worst_come_first() -> None:
    late = [Alarm(code="late", level="warning", text="late", sender="alpha", dataset=f"tank/{n}") for n in range(5)]
    worst = Alarm(code="gone", level="critical", text="gone", sender="alpha")
    overview = replace(OVERVIEW, alarms=(worst, *late))
    assert values(overview, "alarm", 2) == {
        ("gone", "critical", "alpha", ""): 1,
        ("late", "warning", "alpha", "tank/0"): 1,
    }
    assert values(overview, "alarms", 2) == {("warning",): 5, ("critical",): 1}
    assert values(overview, "alarms_left_out", 2) == {(): 4}


def test_the_last_stream_is_no_report_that_nothing_changed() -> None:
    assert values(OVERVIEW, "last_receipt_stored_bytes") == {("alpha", HOME.dataset): 50}
    never = DatasetOverview(sender="alpha", dataset="tank")
    only = replace(OVERVIEW, senders=(SenderOverview(name="alpha", enrolled=True, datasets=(never,)),))
    assert not values(only, "last_receipt_stored_bytes")
