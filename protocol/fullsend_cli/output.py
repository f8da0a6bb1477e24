"""Results on stdout: what cannot be written is an error that names stdout.

Python passes over `print` in silence where stdout is closed, and says "No space left on device" of /dev/full, which
reads as if a pool or a store were full.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from fullsend_protocol.shared.errors import OutputFailed

if TYPE_CHECKING:
    from collections.abc import Iterator


def write_line(text: str, *, flush: bool = False) -> None:
    """Write a line to stdout. `flush`: now, and not when the buffer is full.

    Raises: OutputFailed; BrokenPipeError, which means that the reader has enough and needs no message.
    """
    if sys.stdout is None:
        msg = "stdout is closed, so there is no place for the result: redirect it to a file, or to /dev/null"
        raise OutputFailed(msg)
    with writing_output():
        sys.stdout.write(f"{text}\n")
        if flush:
            sys.stdout.flush()


def flush_output() -> None:
    """Write out what the buffer of stdout holds. Raises: as write_line; nothing where stdout is closed."""
    if sys.stdout is not None:
        with writing_output():
            sys.stdout.flush()


@contextlib.contextmanager
def writing_output() -> Iterator[None]:
    """What fails inside is a write to stdout. Raises: as write_line."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        msg = f"stdout cannot be written: {error.strerror or type(error).__name__}"
        raise OutputFailed(msg) from None
