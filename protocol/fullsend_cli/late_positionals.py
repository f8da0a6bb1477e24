"""A parser that takes positional arguments behind options, too: `ls STREAM -l PATH`.

argparse fills a positional of any number with what stands before the next option, and then refuses what follows it. Its
own `parse_intermixed_args` does not work below subcommands, and loses `--`.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Of `set_defaults`: the name of the positional that late ones are added to.
LATE: Final = "late_positionals"


class LateParser(argparse.ArgumentParser):
    """An argument parser. A command that has set the default LATE takes late positionals."""

    def parse_known_args(  # type: ignore[override, explicit-override]  # of three overloads; typing.override is younger than Python 3.11
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[Any, list[str]]:
        """Parse, as argparse does. Returns: the namespace, and what is unknown."""
        found, unknown = super().parse_known_args(args, namespace)
        name = self.get_default(LATE)
        if not name or not unknown or args is None:
            return found, unknown
        # Behind `--` there are no options, whatever they look like.
        behind = list(args)[list(args).index("--") + 1 :] if "--" in args else []
        behind = behind if behind and unknown[-len(behind) :] == behind else []
        before = unknown[: len(unknown) - len(behind)]
        if behind and before[-1:] == ["--"]:
            before.pop()
        if any(each.startswith("-") and each != "-" for each in before):
            return found, unknown
        setattr(found, name, [*getattr(found, name), *before, *behind])
        return found, []
