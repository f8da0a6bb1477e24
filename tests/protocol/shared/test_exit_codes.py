from __future__ import annotations

import pytest

from fullsend_protocol.shared.exit_codes import MEANING, Exit, worst


def test_exit_codes_are_those_that_scripts_rely_on() -> None:
    assert {code.name: int(code) for code in Exit} == {
        "OK": 0,
        "FAILED": 1,
        "USAGE": 2,
        "REFUSED": 3,
        "RUNNING": 4,
        "UNREACHABLE": 75,
        "INTERRUPTED": 130,
    }


def test_every_exit_code_is_explained() -> None:
    assert MEANING.keys() == set(Exit)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([], Exit.OK),
        ([Exit.REFUSED], Exit.REFUSED),
        ([Exit.UNREACHABLE, Exit.UNREACHABLE], Exit.UNREACHABLE),
        ([Exit.UNREACHABLE, Exit.REFUSED], Exit.FAILED),
    ],
)
def test_where_several_things_went_wrong(codes: list[Exit], expected: Exit) -> None:
    assert worst(codes) is expected
