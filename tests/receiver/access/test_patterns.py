from __future__ import annotations

import pytest

from fullsend_receiver.access.patterns import check_pattern, matches


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("alpha/tank/vm", True),
        ("alpha/tank/*", True),
        ("alpha/**", True),
        ("*/tank/v?", True),
        ("**", True),
        ("alpha/*", False),  # of one component
        ("alpha/tank", False),
        ("beta/**", False),
        ("alpha/tank.vm", False),  # a dot is a dot
    ],
)
def test_a_pattern_means_whole_names(pattern: str, *, expected: bool) -> None:
    assert matches(pattern, "alpha", "tank/vm") is expected


@pytest.mark.parametrize("name", ["tank", "alpha/", "alpha//tank", "Alpha/tank", "alpha/tank@now", "/tank"])
def test_a_table_is_named_by_sender_and_pattern(name: str) -> None:
    with pytest.raises(ValueError, match=r'is not SENDER/PATTERN: write a table such as \[expect\."alpha/tank/\*\*"\]'):
        check_pattern(name, "expect")


def test_a_good_name_is_fine() -> None:
    check_pattern("alpha-*/tank/**", "expect")
