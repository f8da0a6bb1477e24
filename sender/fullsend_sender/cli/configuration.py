"""Reads the settings of a command: its options, the environment, the file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from fullsend_sender.host.config import SenderSettings
    from fullsend_sender.host.identity import Identity
    from fullsend_sender.host.options import Endpoint


def read_settings(args: argparse.Namespace) -> SenderSettings:
    """Read the configuration, and configure the log. Raises: UsageError."""
    from fullsend_sender.host import config
    from fullsend_sender.host.log import configure

    settings = config.load(args.config, os.environ, vars(args))
    configure(settings.log_format, verbose=args.verbose)
    return settings


def read_all(args: argparse.Namespace) -> tuple[SenderSettings, Endpoint, Identity]:
    """Read the configuration, and choose the receiver. Raises: UsageError."""
    from fullsend_sender.host.identity import Identity

    settings = read_settings(args)
    return settings, settings.endpoint(), Identity.beside(args.config)
