"""Results on stdout. A failed write is an error that names stdout.

Where stdout is closed, Python's `print` silently does nothing. For /dev/full Python reports "No space left on device",
which reads as if a pool or a store were full.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Generic, TypeVar

from fullsend_protocol.shared.errors import OutputFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ResultT = TypeVar("ResultT")


class ResultOutput(Generic[ResultT]):
    """Prints results while work goes on. A result that cannot be printed stops no work: `check` tells it at the end."""

    def __init__(self, show: Callable[[ResultT], None]) -> None:
        """`show`: prints one; it may raise OutputFailed or BrokenPipeError."""
        self._show = show
        self._failed: OutputFailed | BrokenPipeError | None = None

    def __call__(self, result: ResultT) -> None:
        """Print a result."""
        try:
            self._show(result)
        except (OutputFailed, BrokenPipeError) as error:
            self._failed = self._failed or error

    def check(self) -> None:
        """Raise the first failure: OutputFailed or BrokenPipeError."""
        if self._failed is not None:
            raise self._failed


def write_line(text: str, *, flush: bool = False) -> None:
    """Write a line to stdout. `flush`: write it out now, not when the buffer is full.

    Raises: OutputFailed; BrokenPipeError, if the reader has closed the pipe: that needs no message.
    """
    if sys.stdout is None:
        msg = "stdout is closed, so there is no place for the result: redirect it to a file, or to /dev/null"
        raise OutputFailed(msg)
    with writing_output():
        sys.stdout.write(f"{text}\n")
        if flush:
            sys.stdout.flush()


def flush_output() -> None:
    """Write out the buffer of stdout. Raises: as write_line; nothing if stdout is closed."""
    if sys.stdout is not None:
        with writing_output():
            sys.stdout.flush()


@contextlib.contextmanager
def writing_output() -> Iterator[None]:
    """Convert an OSError of a write to stdout inside. Raises: as write_line."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        msg = f"stdout cannot be written: {error.strerror or type(error).__name__}"
        raise OutputFailed(msg) from None
