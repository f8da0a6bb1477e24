"""Exit codes of both programs (docs/operations.md). An unknown code is a failure."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """What a run's exit code says to cron, to a script, to a person."""

    OK = 0  # all done
    FAILED = 1  # something failed; each failure is named on stderr, the others are done
    USAGE = 2  # usage or configuration
    REFUSED = 3  # refused by the receiver: identity, quota, space
    RUNNING = 4  # the same job is still running
    UNREACHABLE = 75  # the receiver could not be reached or went away; what arrived is kept, run again (EX_TEMPFAIL)
    INTERRUPTED = 130  # SIGINT
