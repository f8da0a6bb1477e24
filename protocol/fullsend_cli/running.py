"""Run a command, from its command line to its exit code, by one rule for both programs.

Each program prints errors in its own way. The exit code of an error is an attribute of its class.
"""

from __future__ import annotations

import atexit
import gc
import os
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from fullsend_cli.descriptors import occupy_standard_descriptors
from fullsend_cli.output import flush_output
from fullsend_protocol.shared.errors import FullsendError, OutputFailed
from fullsend_protocol.shared.exit_codes import Exit

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    _P = TypeVar("_P", bound=argparse.ArgumentParser)

    #: What a command adds its parser to. argparse has no public name for it.
    Commands = argparse._SubParsersAction[_P]  # noqa: SLF001

#: New objects between two searches for cycles. Imports and large listings make hundred thousands of objects and no
#: cycles; Python's own number, 700, costs a tenth of a command's start.
_ALLOCATED: Final = 20_000


class Complain(Protocol):
    """Prints on stderr, in one line, the error that ended a command."""

    def __call__(self, error: Exception | KeyboardInterrupt, /) -> None: ...


def run(
    make_parser: Callable[[], argparse.ArgumentParser],
    arguments: Sequence[str] | None,
    begin: Callable[[argparse.Namespace], Complain],
) -> int:
    """Run a command line (without the program's name; None: that of the process). Returns: the exit code.

    The parser sets `run`: the command, which takes the parsed options and returns its exit code. It may set `troubled`:
    the exit code for unexpected errors. `begin` prepares what every command needs, and returns the function that prints
    errors.
    """
    occupy_standard_descriptors()
    gc.set_threshold(_ALLOCATED, *gc.get_threshold()[1:])
    # The interpreter ends with a search of all objects for cycles, a tenth of a command's start. The memory ends with
    # the process anyway.
    atexit.register(gc.freeze)
    try:
        options = make_parser().parse_args(arguments)
    except SystemExit as end:  # argparse has printed its message
        return end.code if isinstance(end.code, int) else Exit.USAGE
    complain = begin(options)
    troubled: int = getattr(options, "troubled", None) or Exit.FAILED
    try:
        code: int = options.run(options)
        flush_output()
    except BrokenPipeError:  # the reader of stdout has closed it: no message, but no success either
        code = troubled
    except OutputFailed as error:
        complain(error)
        code = troubled
    except FullsendError as error:
        complain(error)
        code = error.exit_code
    except KeyboardInterrupt as error:  # outside of an event loop
        complain(error)
        code = Exit.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - a person gets one line, whatever the error
        complain(error)
        code = troubled
    try:
        flush_output()
    except (OSError, OutputFailed):
        # Otherwise the interpreter would try once more at exit, complain, and exit with another code.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return code
