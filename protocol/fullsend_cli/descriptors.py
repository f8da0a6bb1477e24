"""The three standard descriptors, which every program expects to be open."""

from __future__ import annotations

import os
import sys


def occupy_standard_descriptors() -> None:
    """Open /dev/null where the caller has closed 0, 1 or 2.

    Otherwise the next file or socket would get that number, and the program would write to it as if it were stderr;
    uvloop aborts then. Python would set `sys.stderr` to None, and print its messages to stdout.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - as long as the process lives
