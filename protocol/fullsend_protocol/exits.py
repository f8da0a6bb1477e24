"""Exit codes of both programs (docs/operations.md). An unknown code is a failure."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class Exit(IntEnum):
    """What a run's exit code says to cron, to a script, to a person."""

    OK = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    RUNNING = 4
    UNREACHABLE = 75  # EX_TEMPFAIL of sysexits.h
    INTERRUPTED = 130  # as shells have it for SIGINT


#: What each of them means, for people.
MEANING: Final = {
    Exit.OK: "all done",
    Exit.FAILED: "something failed; each failure is named on stderr, the others are done",
    Exit.USAGE: "usage or configuration",
    Exit.REFUSED: "refused by the receiver: identity, quota, space",
    Exit.RUNNING: "the same job is still running",
    Exit.UNREACHABLE: "the receiver could not be reached or went away; what arrived is kept, run again",
    Exit.INTERRUPTED: "interrupted",
}
