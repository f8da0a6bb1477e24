"""Opens the store of a command, and the options that several commands take."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.progress import When
    from fullsend_receiver.access.config import ReceiverSettings
    from fullsend_receiver.store.api import Store


def open_store(options: argparse.Namespace) -> tuple[ReceiverSettings, Store]:
    """Read the configuration, open the store, and become its owner. Raises: UsageError, StoreError."""
    from fullsend_receiver.access import config, identity, opening

    settings = config.load(config.config_file(options.config))
    opened = opening.open_store(settings)
    identity.become_owner(opened)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    return settings, opened


def add_quiet(sub: argparse.ArgumentParser) -> None:
    """Add the option that leaves the progress line out."""
    sub.add_argument("-q", "--quiet", action="store_true", help="no progress line on a terminal")


def shown(options: argparse.Namespace) -> When:
    """Return when there is a progress line."""
    return "never" if options.quiet else "auto"
