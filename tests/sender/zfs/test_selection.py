from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullsend_sender.zfs.selection import Selection, check_pattern, fits, is_pattern

NAMES = ["tank", "tank/home", "tank/home/a", "tank/home/a/cache", "tank/home.bak", "tank/vm", "tank/vm/1", "pool2/vm/1"]


@pytest.mark.parametrize(
    ("selection", "chosen", "roots", "deep"),
    [
        (Selection(("tank/home",)), ["tank/home"], ("tank/home",), False),
        (
            Selection(("tank/home",), recursive=True),
            ["tank/home", "tank/home/a", "tank/home/a/cache"],
            ("tank/home",),
            True,
        ),
        (
            Selection(("tank/home",), recursive=True, exclude=("tank/*/a",)),
            ["tank/home"],
            ("tank/home",),
            True,
        ),
        (
            Selection(("tank",), recursive=True, exclude=("**/cache", "tank/vm")),
            NAMES[:3] + NAMES[4:5],
            ("tank",),
            True,
        ),
        (Selection(("tank/vm/*",)), ["tank/vm/1"], ("tank/vm",), True),
        (Selection(("*/vm/?",)), ["tank/vm/1", "pool2/vm/1"], ("",), True),
        (Selection(("tank/h*",)), ["tank/home", "tank/home.bak"], ("tank",), True),
        (Selection(("tank/**",)), NAMES[1:7], ("tank",), True),
        (Selection(("nowhere",)), [], ("nowhere",), False),
    ],
)
def test_what_is_meant(selection: Selection, chosen: list[str], roots: tuple[str, ...], deep: bool) -> None:
    assert selection.choose(NAMES) == chosen
    assert selection.roots == roots
    assert selection.deep is deep
    assert selection.missing(NAMES) == ([] if chosen else list(selection.patterns))


@given(st.text("ab.*?[]()\\+^$|/", max_size=12), st.text("ab./", max_size=12))
def test_patterns_are_no_regular_expressions(pattern: str, name: str) -> None:
    if not is_pattern(pattern):
        assert fits(name, pattern) is (name == pattern)
    assert fits(name, "**")
    assert fits(name, "*") is ("/" not in name)


def test_a_name_that_is_excluded_as_well() -> None:
    both = Selection(("tank/home", "tank/vm/*", "pool2", "nowhere"), exclude=("tank/h*", "tank/vm", "nowhere"))
    assert both.ruled_out(NAMES) == ["tank/home"]
    assert Selection(("tank/home/a",), exclude=("tank",)).ruled_out(NAMES) == ["tank/home/a"]
    assert Selection(("tank", "tank/vm"), recursive=True, exclude=("tank/home",)).ruled_out(NAMES) == []
    assert Selection(("tank", "tank/vm"), drill_place="tank").ruled_out(NAMES) == []


@pytest.mark.parametrize(
    ("selection", "idle"),
    [
        (
            Selection(("tank",), recursive=True, exclude=("tank/vm", "tank/vm/1", "tank/vmm", "pool2")),
            ["tank/vmm", "pool2"],
        ),
        (Selection(("tank",), recursive=True, exclude=("tank/v?", "tank/w?")), []),
        (Selection(("tank/vm/*",), exclude=("tank/vm", "tank/home")), ["tank/home"]),
        (Selection(("tank/v*",), exclude=("tank/vm",), drill_place="tank/vm"), []),
        (Selection(("tank/home", "tank/vm"), exclude=("tank/homes",)), []),
    ],
)
def test_a_name_that_is_excluded_for_nothing(selection: Selection, idle: list[str]) -> None:
    assert selection.idle_exclusions(NAMES) == idle


@pytest.mark.parametrize("wrong", ["", "/tank", "tank/", "tank@now", "tank#mark", "/"])
def test_what_can_be_no_dataset(wrong: str) -> None:
    with pytest.raises(ValueError, match="is not a name or pattern of datasets, such as tank/home"):
        check_pattern(wrong)
    assert check_pattern("tank/*/cache") == "tank/*/cache"


def test_the_place_of_drills_is_chosen_only_by_its_name() -> None:
    """Not so what is below it: drills may restore into a dataset that has others."""
    below = [name for name in NAMES if name.startswith("tank/")]
    assert Selection(("tank*/**", "tank"), drill_place="tank").choose(NAMES[:-1]) == NAMES[:-1]
    assert Selection(("**",), drill_place="tank").choose(NAMES[:-1]) == below
    assert Selection(("**",), drill_place="tank").means_pool("tank")


def test_what_a_drill_has_made_is_chosen_only_by_its_name() -> None:
    """Also in a place that no configuration names: `fullsend drill --into`."""
    scratch = "ext/here/fullsend-drill-0123456789abcdef"
    names = ["ext", "ext/here", scratch, f"{scratch}/restored", "ext/here/fullsend-drill-mine"]
    mine = [names[0], names[1], names[4]]
    assert Selection(("ext",), recursive=True).choose(names) == mine
    assert Selection(("**",)).choose(names) == mine
    assert Selection((f"{scratch}/restored",)).choose(names) == [f"{scratch}/restored"]
