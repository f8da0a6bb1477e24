"""The report in a real browser: what it looks like, whether all can read it and reach it, and what the console says.

Screenshots are left in the folder that FULLSEND_SCREENSHOTS names, for people to look at.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from tests.browser.chromium import Browser, Tab, browser
from tests.report_facts import chain_of, dataset, home, report, well

from fullsend_report import page
from fullsend_report.facts import HostFacts

pytestmark = pytest.mark.browser

TELEPHONE: Final = 360
DESKTOP: Final = 1280
WIDTHS: Final = (TELEPHONE, DESKTOP)
SCHEMES: Final = ("light", "dark")
_TAB: Final = 9
_ENTER: Final = 13
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_LARGE_HOSTS: Final = 64


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture
def tab(running: Browser) -> Tab:
    return running.open_tab()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    each = dataset("tank/some/dataset", chain_of(range(60)), days=home().days)
    hosts = tuple(HostFacts(name=f"host{number}", datasets=(each,) * 16) for number in range(_LARGE_HOSTS))
    long = "tank/" + "a" * 250
    found = {
        "alarms": report(),
        "well": well(),
        "empty": report(hosts=(), alarms=()),
        "large": report(hosts=hosts, alarms=()),
        "long": report(hosts=(HostFacts(name="h" * 63, datasets=(dataset(long, chain_of(range(3))),)),), title=long),
    }
    paths = {}
    for name, facts in found.items():
        paths[name] = folder / f"{name}.html"
        paths[name].write_text(page.render(facts), encoding="utf-8")
    return paths


def _unfold(tab: Tab) -> None:
    tab.run("document.querySelectorAll('details').forEach(each => each.open = true)")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["alarms", "well", "empty", "long"])
def test_all_can_read_it(tab: Tab, pages: dict[str, Path], name: str, width: int, scheme: str) -> None:
    tab.show(pages[name], width, scheme=scheme)
    _leave(f"{name}-{width}-{scheme}", tab)
    _unfold(tab)
    assert tab.axe() == []
    assert tab.complaints == []


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["alarms", "well", "empty", "long", "large"])
def test_nothing_is_wider_than_the_window(tab: Tab, pages: dict[str, Path], name: str, width: int) -> None:
    tab.show(pages[name], width)
    if name != "large":
        _unfold(tab)
    assert tab.run("document.documentElement.scrollWidth") == width
    wider = tab.run(
        "[...document.querySelectorAll('body *')]"
        ".filter(each => !each.closest('svg, .skip') && each.getBoundingClientRect().right > innerWidth + 1)"
        ".map(each => each.outerHTML.slice(0, 120))"
    )
    assert wider == []
    assert tab.complaints == []


def test_schemes_differ(tab: Tab, pages: dict[str, Path]) -> None:
    colours = []
    for scheme in SCHEMES:
        tab.show(pages["alarms"], DESKTOP, scheme=scheme)
        colours.append(tab.run("getComputedStyle(document.body).backgroundColor"))
    assert len(set(colours)) == len(SCHEMES)


def test_the_style_sheet_is_not_refused(tab: Tab, pages: dict[str, Path]) -> None:
    tab.show(pages["well"], DESKTOP)
    assert tab.run("getComputedStyle(document.querySelector('.verdict')).display") == "flex"


def test_the_policy_refuses_a_script(tab: Tab, pages: dict[str, Path], tmp_path: Path) -> None:
    """The console of these tests shows what is refused: without that, an empty one would prove nothing."""
    altered = tmp_path / "altered.html"
    text = pages["well"].read_text(encoding="utf-8")
    altered.write_text(text.replace("</main>", "<script>document.title = 'changed'</script></main>"), encoding="utf-8")
    tab.show(altered, DESKTOP)
    assert tab.run("document.title") == "Backups in /srv/backups"
    assert any("Content Security Policy" in each for each in tab.complaints)


def test_axe_sees_what_cannot_be_read(tab: Tab, pages: dict[str, Path]) -> None:
    """The same for axe-core: it must find a fault where there is one."""
    tab.show(pages["well"], DESKTOP)
    tab.run("document.querySelector('h1').attributeStyleMap.set('color', '#e8e8e8')")
    assert any(each.startswith("color-contrast") for each in tab.axe())


def test_all_that_can_be_used_is_reached_by_the_keyboard(tab: Tab, pages: dict[str, Path]) -> None:
    tab.show(pages["alarms"], DESKTOP)
    usable = "a[href], summary"
    count = tab.run(f"[...document.querySelectorAll('{usable}')].filter(each => each.checkVisibility()).length")
    where = (
        f"(() => {{const all = [...document.querySelectorAll('{usable}')], here = document.activeElement;"
        "return [all.indexOf(here), getComputedStyle(here).outlineStyle]})()"
    )
    reached = []
    for _ in range(count):
        tab.press("Tab", _TAB)
        reached.append(tab.run(where))
    numbers = [number for number, _outline in reached]
    assert -1 not in numbers
    assert numbers == sorted(set(numbers))
    assert {outline for _number, outline in reached} == {"solid"}


def test_a_dataset_unfolds_by_the_keyboard(tab: Tab, pages: dict[str, Path]) -> None:
    tab.show(pages["alarms"], DESKTOP)
    folded = "document.querySelector('#d0-0')"
    assert tab.run(f"{folded}.open") is False
    assert tab.run(f"{folded}.querySelector('.cal').checkVisibility()") is False
    tab.run(f"{folded}.querySelector('summary').focus()")
    tab.press("Enter", _ENTER)
    assert tab.run(f"{folded}.open") is True
    assert tab.run(f"{folded}.querySelector('.cal').checkVisibility()") is True


def test_a_link_of_an_alarm_leads_to_its_dataset(tab: Tab, pages: dict[str, Path]) -> None:
    tab.show(pages["alarms"], TELEPHONE)
    tab.run("document.querySelector('.alarms a').click()")
    assert tab.run("location.hash") == "#d0-1"
    top = tab.run("document.querySelector('#d0-1').getBoundingClientRect().top")
    assert abs(top) < 2


def test_the_drawings_are_as_wide_as_their_place(tab: Tab, pages: dict[str, Path]) -> None:
    tab.show(pages["alarms"], TELEPHONE)
    widths = tab.run(
        "[...document.querySelectorAll('.ds[open] .panels svg')].map(each => each.getBoundingClientRect().width)"
    )
    assert len(widths) > 8
    assert all(200 < each <= TELEPHONE for each in widths)


def test_a_page_of_a_thousand_datasets_can_be_used(tab: Tab, pages: dict[str, Path]) -> None:
    tab.show(pages["large"], TELEPHONE)
    assert tab.run("document.querySelectorAll('.ds').length") == _LARGE_HOSTS * 16
    assert tab.run("document.querySelectorAll('.host[open]').length") == 0
    # What is seen at first is the summary, and a line for each host.
    assert tab.run("document.documentElement.scrollHeight") < 12_000
    tab.run("document.querySelector('#h63 > summary').click()")
    assert tab.run("document.querySelector('#d63-15').checkVisibility()") is True
    assert tab.complaints == []


def test_it_prints_unfolded(tab: Tab, pages: dict[str, Path]) -> None:
    tab.show(pages["alarms"], DESKTOP)
    folded = "document.querySelector('#d0-0 .facts').checkVisibility()"
    assert tab.run(folded) is False
    tab.ask("Emulation.setEmulatedMedia", media="print")
    assert tab.run(folded) is True
    assert tab.run("getComputedStyle(document.querySelector('.skip')).display") == "none"
    assert tab.ask("Page.printToPDF", printBackground=False)["data"]


def _leave(name: str, tab: Tab) -> None:
    shot = tab.screenshot()
    assert shot.startswith(_PNG)
    folder = os.environ.get("FULLSEND_SCREENSHOTS")
    if folder:
        (Path(folder) / f"{name}.png").write_bytes(shot)
