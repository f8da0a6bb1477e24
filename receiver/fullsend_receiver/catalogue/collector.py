"""The cyclic garbage collector, while many objects are made."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collector_off() -> Iterator[None]:
    """Keep the cyclic garbage collector from visiting 100,000 rows again and again while they are created, which takes
    longer than everything else. Nothing here refers to itself.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
