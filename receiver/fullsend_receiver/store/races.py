"""The wait of a process that has lost a race for an object: long enough that the same ones do not meet again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

#: The longest wait after the first loss, and after many: seconds. It doubles with each.
_FIRST: Final = 0.02
_MOST: Final = 1.0


def pause(
    lost: int,
    sleep: Callable[[float], None] = time.sleep,
    jitter: Callable[[float, float], float] = random.uniform,  # noqa: S311 - no secret
) -> None:
    """Wait before the next try. `lost`: the tries before it, 1 or more. Blocks."""
    sleep(jitter(0.0, min(_MOST, _FIRST * 2 ** (lost - 1))))
