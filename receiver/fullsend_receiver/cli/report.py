"""`fullsendd report`: the state of all backups as one HTML page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fullsend_protocol.shared.exit_codes import Exit

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.running import Commands


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the parser of the command."""
    sub = commands.add_parser("report", help="write the state of all backups as one HTML page")
    sub.add_argument("--html", required=True, metavar="FILE", help="is replaced as a whole; -: stdout")
    sub.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the page. Returns: the exit code. Raises: UsageError, StoreError, OSError, OutputFailed."""
    from pathlib import Path

    from fullsend_cli.documents import write_document
    from fullsend_receiver.access import config, identity, opening
    from fullsend_receiver.cli.inventory import read_inventory
    from fullsend_receiver.maintenance.plans import rules_of
    from fullsend_receiver.monitor.alarm_log import read_alarms
    from fullsend_receiver.monitor.next_prune import plan_next_prune
    from fullsend_receiver.monitor.report_page import report_facts
    from fullsend_receiver.monitor.stream_notes import stream_notes
    from fullsend_receiver.monitor.survey import take_overview
    from fullsend_receiver.store.durable import replace_file
    from fullsend_report.page import render

    file = config.config_file(options.config)
    settings, written = config.load(file), file.stat().st_mtime
    store = opening.open_store(settings)
    with identity.acting_as_owner(store):  # the page is the caller's: its owner may write in its store alone
        catalogue = read_inventory(store)
        overview = take_overview(store, settings, catalogue, rules_since=written, before=read_alarms(store.documents))
        prune = plan_next_prune(store, rules_of(settings), overview.at)
        page = render(report_facts(overview, stream_notes(catalogue), prune))
    write_document(options.html, page, lambda path, data: replace_file(Path(path), data, 0o644, durable=False))
    return Exit.OK
