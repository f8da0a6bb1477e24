"""The lines of `check` that say what requests a store will be asked."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.units import format_size
from fullsend_receiver.arrival.receive import BATCH_BYTES
from fullsend_receiver.maintenance.scrub_cost import scrub_cost
from fullsend_receiver.store.seekable import file_size, reads

if TYPE_CHECKING:
    from fullsend_receiver.cli.results import CheckResults
    from fullsend_receiver.store.api import RequestCost, Store

_TIB: Final = 1 << 40
#: What is counted is a TiB, in so many streams. Of larger ones some bytes are sent twice (docs/operations.md).
_STREAMS: Final = 16


def print_costs(store: Store, out: CheckResults) -> None:
    """Print what a TiB costs that does not compress: its push at full speed, a restore, a check. Nothing for a store
    whose requests cost nothing.
    """
    chunk, streams = limits.CHUNK_MIN, _STREAMS
    while True:
        try:
            push = store.push_cost(_TIB // streams // chunk, chunk, BATCH_BYTES // chunk)
            break
        except ValueError:  # larger ones cannot be told
            streams *= 2
    chunks = [chunk] * (_TIB // streams // chunk)
    read, check = store.read_cost(file_size(chunks), reads(chunks)), scrub_cost(store, chunks)
    if push is None or read is None or check is None:
        return
    pushed, restored, checked = (each.times(streams) for each in (push, read, check))
    how = f"{streams} streams of {format_size(_TIB // streams)}"
    speed = f", {format_size(BATCH_BYTES)} a second or more"
    for name, words, cost in (
        ("push", f"pushed ({how}{speed})", pushed),
        ("restore", f"restored ({how})", restored),
        ("scrub", f"checked by the scrub ({how})", checked),
    ):
        out.good(f"a TiB {words}: {_line(cost)}", cost=name, **asdict(cost))
    said = f"{pushed.working:,} objects with {format_size(pushed.working_bytes)} of it are deleted when it is stored"
    out.good(f"of a TiB pushed, {said}; a default retention locks them, too")


def _line(cost: RequestCost) -> str:
    counts = {"PUT": cost.puts, "GET": cost.gets, "LIST": cost.lists, "DELETE": cost.deletes}
    said = [f"{count:,} {name}" for name, count in counts.items() if count]
    said += [f"{format_size(size)} {way}" for size, way in ((cost.sent, "sent"), (cost.received, "received")) if size]
    return ", ".join(said)
