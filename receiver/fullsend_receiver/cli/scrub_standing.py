"""How the checks of stored streams stand, for `check`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fullsend_protocol.shared.units import format_size, format_time, parse_time, plural, printable
from fullsend_receiver.maintenance import checkpoints
from fullsend_receiver.maintenance.schedule import Survey, survey

if TYPE_CHECKING:
    from fullsend_receiver.catalogue.streams import Catalogue
    from fullsend_receiver.cli.results import CheckResults
    from fullsend_receiver.store.api import Store

_DAY = 86400


def print_standing(catalogue: Catalogue, every: float, out: CheckResults, *, now: float | None = None) -> bool:
    """Print how many streams were checked, what is being read, and what stops the scrub. `every`: seconds after which a
    stream is checked again, 0: never; `now`: seconds since the epoch, None: by this host's clock.

    Returns: whether there is no problem. Raises: OSError.
    """
    results = ((stored.summary, catalogue.checked(stored)) for stored in catalogue.streams)
    standing = survey(results, now=time.time() if now is None else now, every=every)
    if not every:
        of = plural(standing.streams, "stream")
        out.good(f"scrub-every is 0: {standing.checked} of {of} were ever checked")
    elif standing.oldest is not None:
        _print_progress(standing, out)
        _print_place(catalogue.store, out)
    disk = catalogue.store.disk if standing.unreadable or standing.stopped else ""
    for file, why in standing.named_unreadable:
        out.problem(printable(f"{file}: could not be checked: {why} (disk {disk}); it is tried again later"))
    if standing.stopped and every:
        out.problem(
            printable(
                f"the scrub has stopped: {standing.unasked} streams are damaged, such as {standing.named_damaged[0]}:"
                f" check the memory and the cables of this host and the disk {disk}, then run `fullsendd verify`: the"
                " scrub resumes after it"
            )
        )
    return not (standing.unreadable or (standing.stopped and every))


def _print_progress(standing: Survey, out: CheckResults) -> None:
    streams, days = plural(standing.streams, "stream"), f"{standing.every / _DAY:g} days"
    text = f"scrub: {standing.current} of {streams} checked or received within {days}, {standing.checked} ever checked"
    oldest = format_time(standing.oldest or 0.0)
    if standing.behind:
        out.warning(f"{text}; it is behind: the oldest check, or reception, was at {oldest}")
    else:
        out.good(f"{text}; the oldest check, or reception, was at {oldest}")


def _print_place(store: Store, out: CheckResults) -> None:
    """Print what the daemon is reading, if that takes long."""
    found = checkpoints.read(store)
    if found is None:
        return
    done = found.reading.stored_bytes
    seconds = (parse_time(found.at) or 0.0) - (parse_time(found.begun) or 0.0)
    rate = f", {format_size(done / seconds)} a second" if seconds > 0 else ""
    read = f"{format_size(done)} of {format_size(found.stored_bytes)}"
    out.good(printable(f"scrub: {read} of {found.file} read as of {found.at}{rate}"))
