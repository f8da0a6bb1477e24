"""`fullsendd invite`: a single-use invitation for a ZFS host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fullsend_protocol.shared.exit_codes import Exit
from fullsend_receiver.cli.configuration import open_store

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.running import Commands


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the parser of the command."""
    sub = commands.add_parser("invite", help="print a single-use invitation for a ZFS host")
    sub.add_argument("sender", metavar="SENDER")
    sub.add_argument("--expires", default="1h", metavar="DURATION", help="default: 1h")
    sub.add_argument("--replace", action="store_true", help="give a known sender's name and backups to a new host")
    sub.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Invite. Returns: the exit code. Raises: UsageError, StoreError."""
    from fullsend_protocol.shared.units import parse_duration
    from fullsend_protocol.wire.invitation import Invitation
    from fullsend_receiver.access import identity, senders, setup
    from fullsend_receiver.cli.results import print_lines

    settings, store = open_store(options)
    (host, port), *others = setup.advertised(settings.listen, settings.advertise)
    secret = senders.invite(store, options.sender, parse_duration(options.expires), replace_existing=options.replace)
    line = Invitation(options.sender, host, port, identity.fingerprint(store), secret, tuple(others)).encode()
    print_lines([line])
    return Exit.OK
