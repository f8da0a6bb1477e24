from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.markup import Element, read
from tests.report_facts import NOW, alarm, chain_of, dataset, empty, home, report, stream, vm, well, young

from fullsend_report import page
from fullsend_report.facts import DatasetFacts, HostFacts, ReportFacts
from fullsend_report.style import POLICY

HOSTILE = """<script>alert(1)</script>"'&amp;</title><!--\u202e\x1b[31m"""


def shown(facts: ReportFacts) -> Element:
    return read(page.render(facts).removeprefix("<!DOCTYPE html>"))


def verdict(facts: ReportFacts) -> str:
    return shown(facts).every("section", "verdict")[0].whole_text


def one(each: DatasetFacts, **changed: object) -> ReportFacts:
    return report(hosts=(HostFacts(name="alpha", datasets=(each,)),), alarms=(), **changed)


def test_the_page_is_self_contained() -> None:
    markup = page.render(report())
    assert markup.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert POLICY in markup
    assert not re.search(r"<script|<link|<img|<iframe|src=|url\(|https?:| style=| on[a-z]+=", markup)
    hrefs = re.findall(r'href="([^"]*)"', markup)
    assert all(each.startswith("#") for each in hrefs)


def test_links_lead_to_what_they_name() -> None:
    root = shown(report())
    ids = [each.attributes["id"] for each in root.walk() if "id" in each.attributes]
    assert len(ids) == len(set(ids))
    links = {each.whole_text: each.attributes["href"][1:] for each in root.every("a")}
    assert set(links.values()) <= set(ids)
    target = next(each for each in root.walk() if each.attributes.get("id") == links["alpha/tank/vm/mail"])
    assert target.every("span", "name")[0].text == "tank/vm/mail"
    assert "open" in target.attributes


def test_alarms_come_first_with_what_to_do() -> None:
    facts = report()
    assert verdict(facts).startswith("Something is wrong: 2 critical alarms, 2 warnings")
    rows = [each.whole_text for each in shown(facts).every("ul", "alarms")[0].every("li")]
    assert len(rows) == 4
    assert rows[0].startswith("critical alpha/tank/vm/mail @auto-2026-11-18 is damaged")
    assert rows[0].endswith("since 2026-11-23 02:00, 5 days ago")
    assert rows[3].startswith("warning the store the disk is full")
    assert page.render(facts).index('class="alarms"') < page.render(facts).index('class="tiles"')


def test_warnings_alone() -> None:
    assert verdict(report(alarms=(alarm("warning", "low-space", "x"),))).startswith("Look at this: 1 warning")


def test_all_is_well() -> None:
    assert verdict(well()).startswith("All is well There is no alarm: everything came in time")
    assert not shown(well()).every("ul", "alarms")


def test_all_is_not_called_well_where_the_rhythm_is_not_known() -> None:
    assert verdict(one(young())) == (
        "All is well, as far as is known There is no alarm. Of all datasets it is not known how often they should come,"
        " so nobody would soon notice if they stopped."
    )
    both = report(hosts=(HostFacts(name="alpha", datasets=(young(), home())),), alarms=())
    assert "Of 1 dataset it is not known" in verdict(both)


def test_what_nobody_waits_for_is_known() -> None:
    assert verdict(one(replace(home(), every=None, limit=None, source="configured"))).startswith("All is well There")


@pytest.mark.parametrize("troubled", [vm(), replace(home(), late=True), replace(home(), broken=1)])
def test_trouble_without_an_alarm_is_not_called_well(troubled: DatasetFacts) -> None:
    assert verdict(one(troubled)).startswith("Look at this There is no alarm, and yet")


def test_an_empty_store_is_not_called_well() -> None:
    assert verdict(report(hosts=(), alarms=())) == "Nothing is stored No dataset has ever arrived here."


def test_a_page_says_when_it_was_made_and_when_it_is_out_of_date() -> None:
    header = shown(report()).every("header")[0].whole_text
    assert "As of 2026-11-28 09:00 UTC, fullsendd 0.1.0." in header
    assert "The next page is due at 2026-11-29 09:00" in header
    assert "next page" not in shown(well()).every("header")[0].whole_text


def test_the_sums_are_those_of_the_datasets() -> None:
    facts = report()
    datasets = [each for host in facts.hosts for each in host.datasets]
    tiles = shown(facts).every("dl", "tiles")[0].definitions()
    assert tiles["Datasets"].startswith(f"{len(datasets)} ")
    assert tiles["Streams"].startswith(f"{sum(each.stream_count for each in datasets)} ")
    assert tiles["Free room"].replace("\u00a0", " ") == "610 GiB of 3.5 TiB"
    assert tiles["Oldest check"].startswith("21 days ago 12 never read")


def test_the_room_is_shown_if_it_is_known() -> None:
    room = shown(report()).every("section", "room")[0].whole_text.replace("\u00a0", " ")
    assert room == (
        "Room 83% of 3.5 TiB used, 610 GiB free, 100 GiB are kept free. Full on 2026-12-22 at the rate of late."
    )
    assert not shown(report(room=None)).every("section", "room")
    assert "Free room" not in shown(report(room=None)).every("dl", "tiles")[0].definitions()


def test_few_datasets_are_open_and_of_many_those_with_alarms() -> None:
    assert all("open" in each.attributes for each in shown(well()).every("details", "ds"))
    root = shown(report())
    opened = [each.every("span", "name")[0].text for each in root.every("details", "ds") if "open" in each.attributes]
    assert opened == ["tank/vm/mail", "rpool/ROOT/debian", "tank/archive", "tank/lost"]


def test_hosts_without_alarms_are_folded_where_there_are_many() -> None:
    hosts = tuple(HostFacts(name=f"h{number}", level="warning" if number == 7 else None) for number in range(20))
    opened = [
        each.attributes["id"]
        for each in shown(report(hosts=hosts)).every("details", "host")
        if "open" in each.attributes
    ]
    assert opened == ["h7"]


def test_a_host_has_its_quota_and_its_notes() -> None:
    hosts = shown(report()).every("details", "host")
    assert "322 GiB of its quota of 500 GiB used" in hosts[0].whole_text.replace("\u00a0", " ")
    assert "it may not connect any more" in hosts[2].whole_text


def test_names_cannot_change_the_page() -> None:
    each = replace(
        home(),
        name=HOSTILE,
        snapshot=HOSTILE,
        drill=HOSTILE,
        prune=HOSTILE,
        expected=HOSTILE,
        level="critical",
        streams=(stream(1, 1, snapshot=HOSTILE),),
    )
    hosts = (HostFacts(name=HOSTILE, datasets=(each,), notes=(HOSTILE,), level="critical"),)
    facts = report(
        hosts=hosts,
        alarms=(alarm("critical", "late", HOSTILE, of=(HOSTILE, HOSTILE)),),
        title=HOSTILE,
        program=HOSTILE,
        scrub=HOSTILE,
        notes=(HOSTILE,),
    )
    harmless = report(
        hosts=(
            HostFacts(
                name="a", datasets=(replace(each, name="a", streams=(stream(1, 1),)),), notes=("a",), level="critical"
            ),
        ),
        alarms=(alarm("critical", "late", "a", of=("a", "a")),),
        scrub="a",
        notes=("a",),
    )
    assert [each.tag for each in shown(facts).walk()] == [each.tag for each in shown(harmless).walk()]
    assert "<script" not in page.render(facts)
    assert page.render(facts).isascii() or "\u202e" not in page.render(facts)


@given(name=st.text(st.characters(), max_size=60))
def test_any_name_is_shown_as_text(name: str) -> None:
    root = shown(one(dataset(name, (stream(1, 1, snapshot=name),))))
    assert len(root.every("details", "ds")) == 1
    assert len([each for each in root.walk() if each.tag == "script"]) == 0
    page.render(one(dataset(name))).encode()


def test_more_datasets_than_can_be_drawn_keep_their_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "DRAWN_MAX", 2)
    names = ("a", "b", "c", "d")
    datasets = tuple(replace(home(), name=name, level="critical" if name == "d" else None) for name in names)
    cards = shown(report(hosts=(HostFacts(name="alpha", datasets=datasets),))).every("details", "ds")
    assert [bool(each.every("svg", "chain")) for each in cards] == [True, False, False, True]
    assert all("Time to restore the newest" in each.definitions() for each in cards)


def test_alarms_that_are_not_listed_are_counted() -> None:
    many = tuple(alarm("warning", "late", f"number {number}") for number in range(page.ALARMS_MAX + 5))
    rows = shown(report(alarms=many)).every("ul", "alarms")[0].every("li")
    assert len(rows) == page.ALARMS_MAX + 1
    assert rows[-1].whole_text == "5 more are not listed here."
    assert verdict(report(alarms=many)).startswith(f"Look at this: {page.ALARMS_MAX + 5} warnings")


def test_a_thousand_datasets_of_sixty_four_hosts_take_ten_kibibytes_each() -> None:
    each = dataset("tank/some/dataset", chain_of(range(60)), days=home().days)
    hosts = tuple(HostFacts(name=f"host{number}", datasets=(each,) * 16) for number in range(64))
    markup = page.render(report(hosts=hosts, alarms=()))
    assert len(markup.encode()) / (64 * 16) < 10 * 1024


def test_a_dataset_with_any_names_takes_eighty_kibibytes_at_most() -> None:
    worst = [stream(number, 1, base=number - 1, damaged=True, snapshot="\u202e" * 255) for number in range(300)]
    each = replace(vm(), streams=tuple(worst), name="x" * 255)
    alone, none = (len(page.render(one(each)).encode()), len(page.render(report(hosts=(), alarms=())).encode()))
    assert alone - none < 80 * 1024


def test_an_empty_dataset_is_shown() -> None:
    assert "nothing of it can be restored" in shown(one(empty())).whole_text


def test_times_are_in_the_zone_of_the_facts() -> None:
    assert "2026-11-28 09:00 UTC" in shown(report(at=NOW, zone=UTC)).whole_text
