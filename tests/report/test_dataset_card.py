from __future__ import annotations

from dataclasses import replace
from datetime import UTC

import pytest
from tests.markup import Element, read
from tests.report_facts import DAY, NOW, chain_of, dataset, empty, home, vm, young

from fullsend_report import chain, dataset_card
from fullsend_report.facts import DatasetFacts, RestoreSpeed, RhythmSource

GIB = 1 << 30
NBSP = "\u00a0"


def card(facts: DatasetFacts, *, unfolded: bool = False, drawn: bool = True) -> Element:
    markup = dataset_card.render(facts, anchor="d0-0", unfolded=unfolded, drawn=drawn, now=NOW, zone=UTC)
    return read(markup).children[0]


def figures(facts: DatasetFacts) -> dict[str, str]:
    return {term: said.replace(NBSP, " ") for term, said in card(facts).definitions().items()}


def test_the_figures_are_those_of_the_dataset() -> None:
    said = figures(home())
    assert said["Newest state"] == "@auto-2026-11-28: taken 2026-11-28 01:55, received 2026-11-28 02:00"
    assert said["Last seen"] == "7 h ago, 2026-11-28 02:00"
    assert said["Expected"] == "every 24 h (learnt from its rhythm)"
    assert said["Stored"] == "27 streams, 1 full: 42 GiB of 82.3 GiB raw"
    assert said["Compressed"] == "1.96 : 1"
    assert said["To restore the newest"] == "27 streams, 42 GiB stored, 82.3 GiB raw"
    assert said["Oldest check"] == "21 days ago; 2 streams never read since arrival"
    assert said["Last restore drill"] == "2026-11-22 04:10: @auto-2026-11-20 was equal, in 9 min"
    assert said["Next prune"].startswith("merges away 3 streams (120 MiB); ")
    assert "Damage" not in said


def test_the_time_to_restore_is_that_of_a_measured_speed() -> None:
    measured = dataset(
        "a", chain_of([1]), chain_raw_bytes=60 * 3600 * 1000, speed=RestoreSpeed(rate=1000, source="a drill")
    )
    assert figures(measured)["Time to restore the newest"] == "about 2 days, at 1000 B a second (a drill)"


@pytest.mark.parametrize("speed", [None, RestoreSpeed(rate=0, source="a drill that restored nothing")])
def test_without_a_measured_speed_there_is_no_time(speed: RestoreSpeed | None) -> None:
    assert figures(replace(home(), speed=speed))["Time to restore the newest"] == "not measured"


def test_what_cannot_be_restored_takes_no_time() -> None:
    lost = replace(empty(), speed=RestoreSpeed(rate=1e8, source="a drill"))
    assert figures(lost)["Time to restore the newest"] == "nothing can be restored"


def test_damage_is_said() -> None:
    assert figures(vm())["Damage"] == "1 stream damaged, 10 streams not restorable"


def test_what_is_not_known_is_called_unknown() -> None:
    said = figures(young())
    assert said["Expected"] == "not known, late after 35 days (too little has come)"
    assert said["Oldest check"] == "unknown"
    assert said["Last restore drill"] == "none is known"


@pytest.mark.parametrize(
    ("source", "every", "limit", "said"),
    [
        ("unknown", None, None, "not known"),
        ("unknown", 7 * DAY, 7 * DAY, "not known, late after 7 days"),
        ("configured", None, None, "never"),
        ("configured", 2 * DAY, 2 * DAY, "every 2 days"),
        ("learnt", DAY, 1.5 * DAY, "every 24 h"),
    ],
)
def test_what_is_expected_depends_on_what_is_known(
    source: RhythmSource, every: float | None, limit: float | None, said: str
) -> None:
    facts = replace(home(), source=source, every=every, limit=limit, expected="why")
    assert figures(facts)["Expected"] == f"{said} (why)"


def test_a_dataset_of_which_nothing_is_stored() -> None:
    said = figures(empty())
    assert said["Newest state"] == "nothing of it can be restored"
    assert said["Last seen"] == "never"
    assert said["Compressed"] == "unknown"
    assert "To restore the newest" not in said
    assert "Nothing arrived in these weeks" in card(empty()).whole_text


def test_the_line_has_name_age_size_and_state() -> None:
    line = card(vm()).every("summary")[0]
    assert line.whole_text.replace(NBSP, " ") == "tank/vm/mail 7 h ago 42.1 GiB critical"
    assert line.every("svg", "strip")


def test_a_card_is_folded_unless_it_is_wanted_open() -> None:
    assert "open" not in card(home()).attributes
    assert "open" in card(home(), unfolded=True).attributes


def test_without_drawings_the_figures_stay() -> None:
    plain = card(home(), drawn=False)
    assert not plain.every("svg")
    assert plain.definitions() == card(home()).definitions()
    assert "too many datasets" in plain.whole_text


def test_streams_that_are_not_drawn_are_counted() -> None:
    many = dataset("a", chain_of(range(chain.DRAWN + 4)), every=DAY)
    assert "4 older streams not drawn" in card(many).whole_text
