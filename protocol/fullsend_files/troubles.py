"""What is made only when it is asked for, and what could not be made as it was."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from typing import Final

from fullsend_protocol.dataset.entry import shown

#: Troubles that are named one by one; the others are counted.
_NAMED_MAX: Final = 20


@dataclass(slots=True)
class Troubles:
    """What could not be given back as it was, path by path. `lines`: the first ones, safe for a terminal; `count`: all.
    `left_out`: devices and the like that nobody asked for; `setuid`: files whose setuid or setgid bit was left out.
    """

    lines: list[str] = field(default_factory=list)
    count: int = 0
    left_out: int = 0
    setuid: int = 0

    def add(self, path: bytes, why: str) -> None:
        """Note one."""
        self.count += 1
        if len(self.lines) < _NAMED_MAX:
            self.lines.append(f"{shown(path)}: {why}")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is made only when it is asked for. `special`: devices, fifos and sockets; `setuid`: setuid and setgid bits;
    `owner`: user and group.
    """

    special: bool = False
    setuid: bool = False
    owner: bool = False


def permissions(mode: int, wishes: Wishes, troubles: Troubles) -> int:
    """Return the permission bits that a file of this mode gets."""
    bits = stat.S_IMODE(mode)
    if bits & (stat.S_ISUID | stat.S_ISGID) and not wishes.setuid:
        troubles.setuid += 1
        bits &= ~(stat.S_ISUID | stat.S_ISGID)
    return bits
