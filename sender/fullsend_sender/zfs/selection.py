"""Selects datasets: names and patterns, with the datasets below them and the excluded ones.

In a pattern `*` stands for any part of one component and `**` for anything; `?` for one character. A pattern that
excludes a dataset excludes all below it. What a drill has made is selected only by its full name: it is soon destroyed.
So is the place below which drills restore; all else that is below it is selected as it is elsewhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

_WILD: Final = re.compile(r"\*\*|\*|\?")
#: A scratch dataset of a drill begins so; a mark of 16 hex digits follows (drill.scratch).
SCRATCH_PREFIX: Final = "fullsend-drill-"
_SCRATCH: Final = re.compile(rf"{SCRATCH_PREFIX}[0-9a-f]{{16}}")
_MEANING: Final = {"**": ".*", "*": "[^/]*", "?": "[^/]"}


@dataclass(frozen=True, slots=True)
class Selection:
    """A request for datasets. `patterns`: their names or patterns; `recursive`: and all below them; `drill_place`: the
    dataset below which drills restore, None: there is none.
    """

    patterns: tuple[str, ...]
    recursive: bool = False
    exclude: tuple[str, ...] = ()
    drill_place: str | None = None

    @property
    def roots(self) -> tuple[str, ...]:
        """The datasets to list, in order to find all that may be selected; "": every pool."""
        return tuple(dict.fromkeys(_literal(pattern) for pattern in self.patterns))

    @property
    def deep(self) -> bool:
        """Whether the datasets below the roots must be listed too."""
        return self.recursive or any(map(is_pattern, self.patterns))

    def choose(self, names: Iterable[str]) -> list[str]:
        """Return the selected names, in their order."""
        excluded = [_compile(pattern) for pattern in self.exclude]
        wanted = [_compile(pattern) for pattern in self.patterns]
        return [
            name
            for name in names
            if any(pattern.fullmatch(each) for pattern in wanted for each in self._reach(name))
            and not any(pattern.fullmatch(each) for pattern in excluded for each in lineage(name))
            and (name in self.patterns or not self._is_of_drills(name))
        ]

    def means_pool(self, pool: str) -> bool:
        """Whether any dataset of a pool could be selected, whatever it contains."""
        if any(_compile(pattern).fullmatch(pool) for pattern in self.exclude):
            return False
        return any(_compile(_pool_pattern(pattern)).fullmatch(pool) for pattern in self.patterns)

    def missing(self, names: Sequence[str]) -> list[str]:
        """Return the patterns that match no name."""
        return [pattern for pattern in self.patterns if not any(map(_compile(pattern).fullmatch, names))]

    def ruled_out(self, names: Collection[str]) -> list[str]:
        """Return those of these names that it gives in full, and excludes."""
        named = [pattern for pattern in self.patterns if pattern in names]
        left = self.choose(named)
        return [name for name in named if name not in left]

    def idle_exclusions(self, names: Iterable[str]) -> list[str]:
        """Return the names, not the patterns, in `exclude` that take none of these names away. Such a name may be
        misspelt. Without `deep` there is not one: nothing is selected but what is named.
        """
        plain = [name for name in self.exclude if not is_pattern(name)]
        if not plain or not self.deep:
            return []
        otherwise = replace(self, exclude=(), drill_place=None).choose(names)
        reached = {each for name in otherwise for each in lineage(name)}
        return [name for name in plain if name not in reached]

    def _reach(self, name: str) -> list[str]:
        return lineage(name) if self.recursive else [name]

    def _is_of_drills(self, name: str) -> bool:
        return name == self.drill_place or any(map(_SCRATCH.fullmatch, name.split("/")))


def check_pattern(text: str) -> str:
    """Return a name or pattern of datasets as it is. Raises: ValueError, if it can match no dataset because of its
    form.
    """
    if not text or "@" in text or "#" in text or text.startswith("/") or text.endswith("/"):
        raise ValueError(f"{text!r} is not a name or pattern of datasets, such as tank/home or tank/vm/*")
    return text


def pool_of(name: str) -> str:
    """Return the pool of a dataset, or the first component of a pattern."""
    return name.partition("/")[0]


def is_pattern(name: str) -> bool:
    """Whether a name is a pattern: no dataset's name has `*` or `?`."""
    return bool(_WILD.search(name))


def fits(name: str, pattern: str) -> bool:
    """Whether a dataset's name matches a pattern."""
    return bool(_compile(pattern).fullmatch(name))


def lineage(name: str) -> list[str]:
    """Return a dataset's name and those of all its parents."""
    parts = name.split("/")
    return ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]


def _literal(pattern: str) -> str:
    """Return the components before the first one with a wildcard."""
    if not is_pattern(pattern):
        return pattern
    parts = pattern.split("/")
    first = next(number for number, part in enumerate(parts) if is_pattern(part))
    return "/".join(parts[:first])


def _pool_pattern(pattern: str) -> str:
    """Return a pattern for the names of pools in which `pattern` may select something."""
    first, deep, _rest = pool_of(pattern).partition("**")
    return f"{first}*" if deep else first


def _compile(pattern: str) -> re.Pattern[str]:
    pieces, place = [], 0
    for wild in _WILD.finditer(pattern):
        pieces += [re.escape(pattern[place : wild.start()]), _MEANING[wild[0]]]
        place = wild.end()
    return re.compile("".join([*pieces, re.escape(pattern[place:])]), re.DOTALL)
