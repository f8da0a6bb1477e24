"""The three descriptors that every program takes for granted."""

from __future__ import annotations

import os
import sys


def occupy_standard_descriptors() -> None:
    """Open /dev/null where the caller has closed 0, 1 or 2.

    The next file or socket would get that number, and be written to as if it were stderr; uvloop aborts over it.
    Python has no `sys.stderr` then, and prints what is meant for it on stdout.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - as long as the process lives
