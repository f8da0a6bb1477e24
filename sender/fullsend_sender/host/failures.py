"""Makes every exception of one dataset a failure of that dataset, whatever its class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared.errors import FullsendError

if TYPE_CHECKING:
    import logging

#: Characters of an exception's text that go into one line.
_SHOWN: Final = 500


class UnexpectedError(FullsendError):
    """An exception that no caller expects, such as a ValueError. `__cause__` is that exception."""


def as_failure(error: Exception) -> FullsendError:
    """Return an exception as the failure of one dataset, in one line. A FullsendError is returned unchanged."""
    if isinstance(error, FullsendError):
        return error
    text = " ".join(str(error).split())[:_SHOWN]
    unforeseen = UnexpectedError(f"{type(error).__name__}: {text} (--debug shows more)")
    unforeseen.__cause__ = error
    return unforeseen


def log_failure(log: logging.Logger, name: str, error: FullsendError, *, debug: bool) -> None:
    """Log a failure to stderr. `debug`: with its traceback."""
    log.error("%s: %s", name, error, exc_info=error if debug else None)
