"""A result that is a document: to a file, which is replaced as a whole, or to stdout."""

from __future__ import annotations

import os
import sys
from stat import S_ISREG
from typing import TYPE_CHECKING, Final

from fullsend_cli.output import writing_output
from fullsend_protocol.shared.errors import OutputFailed, UsageError, reason

if TYPE_CHECKING:
    from collections.abc import Callable

_STDOUT: Final = "-"


def write_document(target: str, text: str, replace: Callable[[str, bytes], object]) -> None:
    """Write a document as UTF-8. `target`: a file, or "-": stdout; `replace`: replaces a file as a whole, and gets its
    path, in which links are followed; it may raise OSError.

    Raises: UsageError if the target is not a file: root must not replace /dev/null; OutputFailed, BrokenPipeError.
    """
    data = text.encode("utf-8", "backslashreplace")
    if target == _STDOUT:
        _write_stdout(data)
        return
    path = os.path.realpath(target)
    try:
        is_file = S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        is_file = os.path.isdir(os.path.dirname(path))
        if not is_file:
            msg = f"{os.path.dirname(path)}: no such folder, so {target} cannot be written there"
            raise UsageError(msg) from None
    if not is_file:
        msg = f"{target}: is not a file, and is not replaced: name a file, or - for stdout"
        raise UsageError(msg)
    try:
        replace(path, data)
    except OSError as error:
        msg = f"{target} cannot be written: {reason(error)}"
        raise OutputFailed(msg) from None


def _write_stdout(data: bytes) -> None:
    if sys.stdout is None:
        msg = "stdout is closed, so there is no place for the result: redirect it to a file, or to /dev/null"
        raise OutputFailed(msg)
    with writing_output():
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
