"""`fullsendd serve`: the daemon."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from fullsend_protocol.shared.exit_codes import Exit
from fullsend_receiver.cli.configuration import open_store

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from fullsend_cli.running import Commands


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the parser of the command."""
    commands.add_parser("serve", help="run the daemon").set_defaults(run=run)


def _command(file: Path, *arguments: str) -> list[str]:
    """Return a command of this program, with this Python and this configuration."""
    return [sys.executable, "-m", "fullsend_receiver", "--config", str(file), *arguments]


def run(options: argparse.Namespace) -> int:
    """Serve until a signal comes. Returns: the exit code. Raises: FullsendError, OSError."""
    import asyncio
    from functools import partial

    import uvloop

    from fullsend_cli.memory import keep_blocks, keep_objects
    from fullsend_protocol.shared.limits import MIB
    from fullsend_receiver.access import config
    from fullsend_receiver.daemon import log
    from fullsend_receiver.daemon.server import Daemon
    from fullsend_receiver.store.event_recorder import recording

    file = config.config_file(options.config).absolute()
    settings, store = open_store(options)
    # Blocks of usual chunks (a little over 4 MiB) are kept; `trim` gives back what a daemon keeps beyond its streams.
    keep_blocks(8 * MIB, 64 * MIB)
    log.set_up(options.log_format or settings.log_format, verbose=options.verbose)
    os.umask(0o027)
    keep_objects()
    with recording(store), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        daemon = Daemon(
            settings,
            store,
            reread=partial(config.load, file),
            merge_command=_command(file, "prune", "--merge-only"),
            hash_command=_command(file, "merge", "--sha256"),
            file_command=_command(file),
            copy_command=_command(file, "copy", "--quiet"),
        )
        runner.run(daemon.run())
    return Exit.OK
