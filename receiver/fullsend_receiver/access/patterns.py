"""Patterns of datasets in receiver.toml: tables that are named SENDER/PATTERN, such as [retention."alpha/tank/vm/**"].

In a pattern `*` stands for any part of one component, `**` for anything, `?` for one character, as in the sender's
configuration. As there, where several patterns match, the later one counts.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_WILD: Final = re.compile(r"\*\*|\*|\?")
_MEANING: Final = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
_SENDER: Final = re.compile(r"[a-z0-9*?][a-z0-9*?-]{0,62}")
#: Patterns that stay compiled: more than any receiver.toml has.
_COMPILED: Final = 1000


def check_pattern(name: str, table: str) -> None:
    """Check that a table is named SENDER/PATTERN. `table`: the table that it is in. Raises: ValueError."""
    sender, _, pattern = name.partition("/")
    if not _SENDER.fullmatch(sender) or not pattern or pattern.startswith("/") or "@" in name:
        msg = f'{name!r} is not SENDER/PATTERN: write a table such as [{table}."alpha/tank/**"]'
        raise ValueError(msg)


def matches(name: str, sender: str, dataset: str) -> bool:
    """Whether SENDER/PATTERN means a dataset of a sender."""
    return _compile(name).fullmatch(f"{sender}/{dataset}") is not None


@lru_cache(_COMPILED)
def _compile(pattern: str) -> re.Pattern[str]:
    pieces, place = [], 0
    for wild in _WILD.finditer(pattern):
        pieces += [re.escape(pattern[place : wild.start()]), _MEANING[wild[0]]]
        place = wild.end()
    return re.compile("".join([*pieces, re.escape(pattern[place:])]), re.DOTALL)
