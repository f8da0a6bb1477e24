"""How the copies in another store stand, in words: for `status`, the report and the alarms. Pure: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterator

from fullsend_protocol.shared.units import format_duration, format_size, format_time, plural, printable
from fullsend_receiver.monitor.overview import CopyOverview


def copy_line(copy: CopyOverview) -> str:
    """Return the line about the copies, for a person."""
    return printable(f"{copy.to}: {'; '.join(_parts(copy))}")


def _parts(copy: CopyOverview) -> Iterator[str]:
    if copy.fault is not None:
        yield copy.fault
        return
    if copy.complete is None:
        yield "no copy of all that is wanted was complete yet"
    else:
        ago = "" if copy.age is None else f", {format_duration(copy.age)} ago"
        yield f"all that was stored at {format_time(copy.complete)}{ago}, is there"
    if copy.runs:
        where = f" on {copy.host}" if copy.host else ""
        yield f"a run that began at {format_time(copy.began or 0.0)}{where} has not ended: it runs, or was killed"
    if copy.ok is not None:
        yield last_run(copy)
    if copy.older:
        yield f"{plural(copy.older, 'older stream')} not copied (`fullsendd copy --all` copies what was pruned there)"


def last_run(copy: CopyOverview) -> str:
    """Return what the last run that has ended has done."""
    done = f"{plural(copy.streams, 'stream')}, {format_size(copy.stored_bytes)} copied"
    if copy.why is not None:
        return f"the last run has failed: {copy.why} ({done})"
    if copy.left:
        such = "".join(f", such as {file}: {why}" for file, why in copy.named[:1])
        return f"the last run has left {plural(copy.left, 'stream')} behind{such} ({done})"
    return f"the last run: {done}"
