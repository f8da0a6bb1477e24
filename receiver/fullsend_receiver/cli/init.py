"""`fullsendd init`: make a store, its key and certificate, and receiver.toml."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fullsend_protocol.shared.exit_codes import Exit

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.running import Commands


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the parser of the command."""
    sub = commands.add_parser("init", help="make a store, its key and certificate, and receiver.toml")
    sub.add_argument("--store", type=Path, default=Path("/var/lib/fullsend"), metavar="DIR")
    sub.add_argument("--listen", default=":7433", metavar="HOST:PORT", help="default: port 7433 on all addresses")
    sub.add_argument("--advertise", metavar="HOST:PORT", help="the address in invitations; default: this host's name")
    sub.add_argument(
        "--user", metavar="NAME", help="the user that is to own the store; default: the user who runs this"
    )
    sub.add_argument("--adopt", action="store_true", help="take over an existing store")
    sub.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Make the store. Returns: the exit code. Raises: as setup.init."""
    from fullsend_receiver.access import config, setup
    from fullsend_receiver.cli.results import print_made

    plan = setup.InitOptions(
        config=config.config_file(options.config),
        store=options.store,
        listen=options.listen,
        advertise=options.advertise,
        user=options.user,
        adopt=options.adopt,
    )
    fingerprint = setup.init(plan)
    print_made(plan.store.absolute(), plan.config, fingerprint)
    return Exit.OK
