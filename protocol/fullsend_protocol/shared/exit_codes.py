"""The exit codes of both programs (docs/operations.md).

    0    all done
    1    something failed: the stream is at fault or was cut, something is damaged, not found, or a bug
    2    usage or configuration; a STREAM that fits several, a DATASET of which nothing is stored
    3    refused: identity (this sender is not enrolled, or the receiver is not the paired one), invitation,
         protocol version, quota, space, and a store that is missing or cannot be written
    4    another process is sending the same stream
    75   the receiver could not be reached, was lost, stops, or has no room for another connection: run again
    130  interrupted, by SIGINT or SIGTERM: the user, or the system for the user, wanted it

An unknown code is a failure. Each error class has its exit code (`exit_code`).
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable


class Exit(IntEnum):
    """The result of a run, for cron, scripts and people."""

    OK = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    RUNNING = 4
    UNREACHABLE = 75  # EX_TEMPFAIL of sysexits.h
    INTERRUPTED = 130  # as shells report SIGINT


class NagiosState(IntEnum):
    """The exit codes of Nagios plugins (nagios-plugins.org, guidelines): those of `status` of both programs."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


#: The meaning of each, for people.
MEANING: Final = {
    Exit.OK: "all done",
    Exit.FAILED: "something failed; each failure is named on stderr, the others are done",
    Exit.USAGE: "usage or configuration",
    Exit.REFUSED: "refused by the receiver: identity, quota, space",
    Exit.RUNNING: "the same job is still running",
    Exit.UNREACHABLE: "the receiver could not be reached or was lost; what arrived is kept, run again",
    Exit.INTERRUPTED: "interrupted",
}


def worst(codes: Iterable[Exit]) -> Exit:
    """Return the exit code of a run with these codes of its parts: the one code that all have, else FAILED."""
    found = set(codes)
    return found.pop() if len(found) == 1 else Exit.FAILED if found else Exit.OK
