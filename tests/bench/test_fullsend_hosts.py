from __future__ import annotations

import pytest
from bench.fullsend_hosts import offers_auto

HEAD = "usage: fullsend push [--progress {auto,always,never}]\n\noptions:\n  --json\n"
TAIL = "  --progress {auto,always,never}\n                        auto: if stderr is a terminal\n"


@pytest.mark.parametrize(
    ("level", "offered"),
    [
        ("  --level N             zstd level, -7 to 22; default 3\n", False),
        ("  --level N             zstd level, -7 to 22, or auto; default auto\n", True),
        ("  --level LEVEL         zstd level, -7 to 22,\n                        or auto: the fastest\n", True),
        ("  --level {auto,N}      zstd level\n", True),
        ("  --level N             automatic levels do not exist\n", False),
        ("", False),
    ],
)
def test_auto_is_offered_where_the_help_of_level_names_it(level: str, offered: bool) -> None:
    assert offers_auto(HEAD + level + TAIL) is offered
    assert offers_auto(HEAD + TAIL + level) is offered
