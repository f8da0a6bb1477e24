from __future__ import annotations

from fullsend_protocol.exits import Exit


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
