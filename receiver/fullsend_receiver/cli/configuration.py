"""Opens the store of a command."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from fullsend_receiver.access.config import ReceiverSettings
    from fullsend_receiver.store.local import LocalStore


def open_store(options: argparse.Namespace) -> tuple[ReceiverSettings, LocalStore]:
    """Read the configuration, open the store, and become its owner. Raises: UsageError, StoreError."""
    from fullsend_receiver.access import config, identity
    from fullsend_receiver.store import local

    settings = config.load(config.config_file(options.config))
    opened = local.open_store(settings.store, settings.store_id)
    identity.become_owner(opened)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    return settings, opened
