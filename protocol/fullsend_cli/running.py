"""A command from its words to its exit code: one rule for both programs.

How an error is told is each program's own. Which exit code it has is not: it stands on the error's class.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol, TypeVar

from fullsend_cli.descriptors import occupy_standard_descriptors
from fullsend_cli.output import flush_output
from fullsend_protocol.shared.errors import FullsendError, OutputFailed
from fullsend_protocol.shared.exit_codes import Exit

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    _P = TypeVar("_P", bound=argparse.ArgumentParser)

    #: What a command adds itself to. argparse has no public name for it.
    Commands = argparse._SubParsersAction[_P]  # noqa: SLF001


class Complain(Protocol):
    """Says on stderr, in one line, what a command ended with."""

    def __call__(self, error: Exception | KeyboardInterrupt, /) -> None: ...


def run(
    make_parser: Callable[[], argparse.ArgumentParser],
    arguments: Sequence[str] | None,
    begin: Callable[[argparse.Namespace], Complain],
) -> int:
    """Run a command line (without the program's name; None: that of the process). Returns: the exit code.

    The parser gives `run`, the command, which takes the parsed words and returns its exit code; and, where it gives
    `troubled`, that is the exit code of what nobody foresaw. `begin` prepares what every command needs, and returns
    what tells of errors.
    """
    occupy_standard_descriptors()
    try:
        options = make_parser().parse_args(arguments)
    except SystemExit as end:  # argparse has said what there is to say
        return end.code if isinstance(end.code, int) else Exit.USAGE
    complain = begin(options)
    troubled: int = getattr(options, "troubled", None) or Exit.FAILED
    try:
        code: int = options.run(options)
        flush_output()
    except BrokenPipeError:  # the reader of stdout has enough: nothing to say, but no success either
        code = troubled
    except OutputFailed as error:
        complain(error)
        code = troubled
    except FullsendError as error:
        complain(error)
        code = error.exit_code
    except KeyboardInterrupt as error:  # outside of a running loop
        complain(error)
        code = Exit.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - a person gets one line, whatever happens
        complain(error)
        code = troubled
    try:
        flush_output()
    except (OSError, OutputFailed):
        # At its end the interpreter would try once more, complain, and exit with a code of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return code
