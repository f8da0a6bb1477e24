"""`fullsendd show`: all that is known of one stream."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fullsend_protocol.shared.exit_codes import Exit
from fullsend_receiver.cli.configuration import open_store

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.running import Commands


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the parser of the command."""
    sub = commands.add_parser("show", help="show all that is known of one stream")
    sub.add_argument("stream", metavar="SENDER/STREAM")
    form = sub.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="the manifest and what follows from it")
    form.add_argument("--commands", action="store_true", help="the shell lines that restore it without fullsend")
    sub.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Show the stream. Returns: the exit code. Raises: FullsendError."""
    from fullsend_receiver.catalogue.pins import pins_in_force
    from fullsend_receiver.cli.restore_commands import restore_commands
    from fullsend_receiver.cli.results import check_facts, pin_facts, print_lines, print_stream
    from fullsend_receiver.cli.selection import find

    _settings, store = open_store(options)
    catalogue, stored = find(store, options.stream)
    if options.commands:
        print_lines(restore_commands(catalogue, stored))
        return Exit.OK
    entry = catalogue.entry(stored).model_dump(mode="json", by_alias=True)
    pins = {str(file): pin for file, pin in pins_in_force(store.documents, time.time()).items()}
    facts = stored.manifest.model_dump(mode="json", by_alias=True) | entry | pin_facts(pins, str(stored.file))
    print_stream(facts | check_facts(catalogue, stored), as_json=options.json)
    return Exit.OK
