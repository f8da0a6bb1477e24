"""`fullsendd top`: the transfers that are under way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fullsend_receiver.cli.configuration import open_store

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.running import Commands
    from fullsend_cli.top import LiveLook
    from fullsend_receiver.store.api import Store


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the parser of the command."""
    sub = commands.add_parser("top", help="show the transfers that are under way, each second; q ends it")
    sub.add_argument("--once", action="store_true", help="print them once, as without a terminal")
    sub.add_argument("--json", action="store_true", help="one JSON object each second, on one line")
    sub.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Show them. Returns: the exit code, FAILED if no daemon answers. Raises: UsageError, StoreError, OutputFailed."""
    from fullsend_cli.top import run_top

    _settings, store = open_store(options)
    return run_top(lambda: _look(store), peer="sender", once=options.once, as_json=options.json)


def _look(store: Store) -> LiveLook:
    from fullsend_cli.top import LiveLook
    from fullsend_protocol.shared.errors import FullsendError, reason
    from fullsend_protocol.wire.local import Transfers, TransfersWanted
    from fullsend_receiver.cli import asking

    title, facts = f"fullsendd top: {store.where}", {"store": store.where}
    try:
        connection = asking.connect(store)
        if connection is None:
            return LiveLook(title, facts, trouble="no daemon runs that this user can ask")
        with connection:
            found = [each for page in asking.pages(connection, TransfersWanted(), Transfers) for each in page.transfers]
    except (FullsendError, OSError) as error:
        return LiveLook(title, facts, trouble=f"the daemon does not answer: {reason(error)}")
    return LiveLook(title, facts, found)
