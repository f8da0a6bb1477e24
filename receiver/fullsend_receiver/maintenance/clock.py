"""Whether this host's clock can be trusted with deleting: the document clock.json.

    {"format": 1, "wall", "boottime", "boot_id", "known_until", "synchronised_in", "unsynchronised_for"}

The daemon notes its clock at intervals, as long as it agrees with the note before: the wall clock, and the clock that
counts since the boot and that nobody sets. A prune refuses if the wall clock differs from what both let expect by more
than `JUMP`, or is behind the last note or behind the newest reception. Without a note, as in a copy of a store, the
newest reception stands for it. `fullsendd clock --accept` takes the clock as it
is: then receptions up to `known_until` may be in the future.

After a start the daily prune waits until a time server has set the clock. A host that has none gets its prunes when it
has run for `SYNC_WAIT` without one.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol

from pydantic import Field, ValidationError

from fullsend_protocol.format.manifest import DiskModel
from fullsend_protocol.shared.units import format_time
from fullsend_receiver.maintenance.time_sync import is_synchronised
from fullsend_receiver.store.api import Documents

if TYPE_CHECKING:
    from collections.abc import Callable

_DOCUMENT: Final = "clock.json"
#: Seconds by which a clock may jump ahead: a machine that was off for a week.
JUMP: Final = 7 * 86400.0
#: Seconds by which a clock may be set back: an hour that a dual boot or a bad battery costs, and NTP corrects.
BEHIND: Final = 3600.0
#: Seconds between two notes of the daemon.
NOTE_EVERY: Final = 600.0
#: Seconds for which a host runs, over all its starts, before its daily prunes wait for no time server any more.
SYNC_WAIT: Final = 86400.0
_ACCEPT: Final = "if it is right now: `fullsendd clock --accept`"


@dataclass(frozen=True, slots=True)
class Reading:
    """A look at the clocks. `wall`: seconds since the epoch; `boottime`: seconds since the boot `boot_id`;
    `synchronised`: whether a time server has set the wall clock, None: nobody says.
    """

    wall: float
    boottime: float
    boot_id: str
    synchronised: bool | None = None


class Clock(Protocol):
    """The clocks of this host, or a test's."""

    def read(self) -> Reading:
        """Look at all of them."""


class SystemClock:
    """The clocks of this host."""

    def read(self) -> Reading:
        """Look at them. See `Clock`."""
        boottime = time.clock_gettime(time.CLOCK_BOOTTIME)
        return Reading(time.time(), boottime, _find_boot_id(), is_synchronised())


class ClockNote(DiskModel):
    """The last note. `known_until`: receptions up to this moment do not count as the future's; `synchronised_in`: the
    last boot in which a time server had set the clock, or a person had accepted it; `unsynchronised_for`: seconds for
    which this host has run since a time server did, None: not known.
    """

    format: Literal[1] = 1
    wall: float = Field(allow_inf_nan=False)
    boottime: float = Field(allow_inf_nan=False)
    boot_id: str
    known_until: float = Field(default=0.0, allow_inf_nan=False)
    synchronised_in: str = ""
    unsynchronised_for: float | None = Field(default=None, allow_inf_nan=False)


def read_note(documents: Documents) -> ClockNote | None:
    """Return the last note; None: it is missing, or cannot be read. Raises: OSError."""
    found = documents.get(_DOCUMENT)
    try:
        return None if found is None else ClockNote.model_validate_json(found.data)
    except ValidationError:
        return None


def note(documents: Documents, clock: Clock, newest: Callable[[], float]) -> str | None:
    """Note the clock, if it agrees with the last note. Returns: otherwise what is wrong. Blocks.

    `newest`: looks for the newest reception, in seconds since the epoch, 0: none. Without a note that stands for it:
    where the clock does not agree with it, it is noted instead. Otherwise the next stream would come by a clock that
    nobody trusts, and agree with it. Raises: OSError, and what `newest` raises.
    """
    last = read_note(documents)
    found = newest() if last is None else 0.0  # before the clock: what comes meanwhile is not from the future
    now = clock.read()
    wrong = objection(documents, now, found) if last is None else _differs(last, now)
    if wrong is None:
        _write(documents, now, last, last.known_until if last else 0.0)
    elif last is None and found <= now.wall:  # one from the future tells no time
        _put(documents, ClockNote(wall=found, boottime=0.0, boot_id=""))
    return wrong


def accept(documents: Documents, now: Reading, newest: float) -> None:
    """Note the clock as it is. `newest`: the newest reception, in seconds since the epoch. Blocks. Raises: OSError."""
    last = read_note(documents)
    _write(documents, now, last, max(newest, last.known_until if last else 0.0), accepted=True)


def objection(documents: Documents, now: Reading, newest: float) -> str | None:
    """Return why nothing may be deleted by this clock; None: it may. Blocks. Raises: OSError.

    `newest`: the newest reception of a stream in the store, in seconds since the epoch; 0: nothing is stored.
    """
    last = read_note(documents)
    if last is not None and (wrong := _differs(last, now)):
        return wrong
    shown = format_time(now.wall)
    if newest > now.wall and newest > (last.known_until if last else 0.0):
        return f"the clock says {shown}, and a stream was received at {format_time(newest)}: set the clock; {_ACCEPT}"
    if last is None and now.wall - newest > JUMP and newest:
        return (
            f"the clock says {shown}, the newest stream was received at {format_time(newest)}, and no daemon has noted"
            f" the clock since: {_ACCEPT}"
        )
    return None


def objection_now(documents: Documents, clock: Clock, newest: Callable[[], float]) -> str | None:
    """Return the same for the clock as it is after a look at the store: a stream that came during that is not from the
    future.

    `newest`: looks for the newest reception. Blocks. Raises: OSError, and what `newest` raises.
    """
    found = newest()
    return objection(documents, clock.read(), found)


def likely(documents: Documents, now: Reading) -> float:
    """Return what the wall clock should say, in seconds since the epoch: what it says, if it agrees with the last note;
    else what follows from the note and the clock that nobody sets. Blocks. Raises: OSError.
    """
    last = read_note(documents)
    return now.wall if last is None or _differs(last, now) is None else _expected(last, now)


def _expected(last: ClockNote, now: Reading) -> float:
    same_boot = _is_same_boot(last, now)
    return last.wall + now.boottime - (last.boottime if same_boot else 0.0)


def _is_same_boot(last: ClockNote, now: Reading) -> bool:
    return bool(last.boot_id) and last.boot_id == now.boot_id and now.boottime >= last.boottime


def waits_for(documents: Documents, now: Reading) -> str | None:
    """Return why a daily prune waits for a time server; None: it does not. Blocks. Raises: OSError."""
    if now.synchronised is not False:
        return None
    last = read_note(documents)
    if (last is not None and now.boot_id and last.synchronised_in == now.boot_id) or _alone(last, now) >= SYNC_WAIT:
        return None
    return f"no time server has set the clock since this host's start, and it says {format_time(now.wall)}"


def _alone(last: ClockNote | None, now: Reading) -> float:
    """Return for how many seconds this host has run since a time server has set its clock, as far as that is known."""
    if last is None or last.unsynchronised_for is None:
        return now.boottime
    same_boot = last.boot_id == now.boot_id and now.boottime >= last.boottime
    return last.unsynchronised_for + now.boottime - (last.boottime if same_boot else 0.0)


def _find_boot_id() -> str:
    """Return the id of this boot, 32 hexadecimal digits; empty: not known, so each look may be that of another boot."""
    try:
        found = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:  # fullsendd.service hides it, and passes it; other systems than Linux have none
        found = os.environ.get("FULLSENDD_BOOT_ID", "")
    return found.strip().replace("-", "")


def _differs(last: ClockNote, now: Reading) -> str | None:
    shown, noted = format_time(now.wall), format_time(last.wall)
    same_boot = _is_same_boot(last, now)
    expected = _expected(last, now) if same_boot else last.wall
    if now.wall - expected > JUMP:
        how = "has jumped ahead" if same_boot else "has jumped ahead, or this host was off for so long"
        return f"the clock says {shown}, and the last known time is {noted}: it {how}: {_ACCEPT}"
    if expected - now.wall > BEHIND:
        return f"the clock says {shown}, and the last known time is {noted}: it was set back; {_ACCEPT}"
    return None


def _write(
    documents: Documents, now: Reading, last: ClockNote | None, known_until: float, *, accepted: bool = False
) -> None:
    said = ClockNote(
        wall=now.wall,
        boottime=now.boottime,
        boot_id=now.boot_id,
        known_until=known_until,
        synchronised_in=now.boot_id if now.synchronised or accepted else last.synchronised_in if last else "",
        unsynchronised_for=0.0 if now.synchronised else _alone(last, now),
    )
    _put(documents, said)


def _put(documents: Documents, said: ClockNote) -> None:
    found = documents.get(_DOCUMENT)
    # Another process that notes the clock at this moment notes the same.
    documents.put(_DOCUMENT, said.model_dump_json(indent=1).encode() + b"\n", if_match=found.tag if found else None)
