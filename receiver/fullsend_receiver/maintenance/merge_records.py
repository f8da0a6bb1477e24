"""What merges have left to know.

Of a sender's streams it is in the document merged.SENDER.json:

    {"format": 1, "refused": [{"inputs": [FILE, FILE], "program", "why"}, ...], "raw_rate": raw bytes a second,
     "raw_bytes_ever", "failed": [a line, ...], "proven": [{"file", "received", "at", "how": "stream" | "state"}, ...]}

Of all senders there is merge.json, {"format": 1, "at", "why"}: how the last run beside the daemon has ended.

A merge that is not possible is not tried again every night; another version of this program tries it once more.
What its ZFS host has proven (`fullsend prove`) is noted for each file, as of its time of reception: what is stored
under that name later is not proven by it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Literal

from pydantic import Field, ValidationError

from fullsend_protocol.format.manifest import DiskModel
from fullsend_protocol.shared.units import format_time
from fullsend_receiver.catalogue.rows import Summary
from fullsend_receiver.maintenance.packing import PROGRAM
from fullsend_receiver.store.api import Documents, update

log: Final = logging.getLogger("fullsendd")

_RUN: Final = "merge.json"
#: Refusals that are kept of one sender, the newest: a stream that cannot be merged is rare.
_REFUSED_MAX: Final = 1000
#: Seconds of a merge that took less than the clock tells.
_SECONDS_LEAST: Final = 0.001
#: Failures that are kept of one run.
_FAILED_MAX: Final = 20
#: Proofs that are kept of one sender, the newest: some 150 bytes each, written anew with each proof.
_PROVEN_MAX: Final = 4000

#: What was compared: the stream itself, or the state that its chain restores.
How = Literal["stream", "state"]


class Refusal(DiskModel):
    """Two streams that cannot be merged: their files, and the program that refused."""

    inputs: list[str]
    program: str
    why: str


class HostProof(DiskModel):
    """A stored stream that has the bytes that its ZFS host sends. `received`: of the stream; `at`: when that was found,
    by the receiver's clock.
    """

    file: str
    received: str
    at: str
    how: How


class MergeRun(DiskModel):
    """The last run of merges beside the daemon. `at`: when it ended; `why`: why it has not come to its end, None: it
    has, or there was none; `ends`: how many have come to their end.
    """

    format: Literal[1] = 1
    at: str = ""
    why: str | None = None
    ends: int = 0


class MergeRecord(DiskModel):
    """The document of one sender. `raw_rate`: of its last merge, None: there was none; `raw_bytes_ever`: of all streams
    that its merges have made; `failed`: a line for each merge
    that has failed in the last run; `proven`: the oldest first.
    """

    format: Literal[1] = 1
    refused: list[Refusal] = Field(default_factory=list)
    raw_rate: float | None = None
    raw_bytes_ever: int = 0
    failed: list[str] = Field(default_factory=list)
    proven: list[HostProof] = Field(default_factory=list)

    def proofs(self) -> dict[tuple[str, str], str]:
        """Return when each stream was proven, by its file and its time of reception."""
        return {(each.file, each.received): each.at for each in self.proven}

    def reasons(self) -> dict[tuple[str, str], str]:
        """Return what this version has refused, by the files of both streams."""
        return {
            (each.inputs[0], each.inputs[1]): each.why
            for each in self.refused
            if each.program == PROGRAM and len(each.inputs) == 2  # noqa: PLR2004 - a stream, and the one on it
        }


def read_merges(documents: Documents, sender: str) -> MergeRecord:
    """Return the document of a sender; an empty one if it is missing, or cannot be read. Raises: OSError."""
    found = documents.get(_document(sender))
    return _parse(sender, None if found is None else found.data)


def note_refusal(documents: Documents, sender: str, pair: tuple[Summary, Summary], why: str) -> None:
    """Record that two streams cannot be merged. Raises: OSError."""
    new = Refusal(inputs=[each.path for each in pair], program=PROGRAM, why=why)
    _change(documents, sender, lambda found: {"refused": [*found.refused, new][-_REFUSED_MAX:]})


def note_merge(documents: Documents, sender: str, raw_bytes: int, seconds: float) -> None:
    """Record how much a merge has made, and how long it took. Raises: OSError."""
    rate = raw_bytes / max(seconds, _SECONDS_LEAST)
    _change(documents, sender, lambda found: {"raw_rate": rate, "raw_bytes_ever": found.raw_bytes_ever + raw_bytes})


def note_failures(documents: Documents, sender: str, failed: list[str]) -> None:
    """Record which merges have failed in a run, none after a run without a failure. Raises: OSError."""
    _change(documents, sender, lambda _found: {"failed": failed[:_FAILED_MAX]})


def read_merge_run(documents: Documents) -> MergeRun:
    """Return what is noted of the last run; an empty note if it is missing, or cannot be read. Raises: OSError."""
    found = documents.get(_RUN)
    return _run(None if found is None else found.data)


def _run(data: bytes | None) -> MergeRun:
    try:
        return MergeRun() if data is None else MergeRun.model_validate_json(data)
    except ValidationError:
        log.warning(".state/%s: cannot be read, and is made anew", _RUN)
        return MergeRun()


def note_merge_run(documents: Documents, why: str | None, now: float) -> None:
    """Note how a run has ended. `why`: see `MergeRun`; `now`: seconds since the epoch. Raises: OSError."""

    def ended(before: bytes | None) -> bytes:
        ends = _run(before).ends + (why is None)
        return MergeRun(at=format_time(now), why=why, ends=ends).model_dump_json().encode() + b"\n"

    update(documents, _RUN, ended)


def note_proof(documents: Documents, sender: str, file: str, *, received: str, how: How, now: float) -> None:
    """Record that a stored stream has the bytes that its ZFS host sends. `received`: of the stream; `now`: seconds
    since the epoch. Raises: OSError.
    """
    new = HostProof(file=file, received=received, at=format_time(now), how=how)

    def change(found: MergeRecord) -> dict[str, object]:
        others = [each for each in found.proven if each.file != file]
        return {"proven": [*others, new][-_PROVEN_MAX:]}

    _change(documents, sender, change)


def _change(documents: Documents, sender: str, change: Callable[[MergeRecord], dict[str, object]]) -> None:
    def changed(data: bytes | None) -> bytes:
        found = _parse(sender, data)
        return found.model_copy(update=change(found)).model_dump_json(indent=1).encode() + b"\n"

    update(documents, _document(sender), changed)


def _parse(sender: str, data: bytes | None) -> MergeRecord:
    try:
        return MergeRecord() if data is None else MergeRecord.model_validate_json(data)
    except ValidationError:
        log.warning(".state/%s: cannot be read, and is made anew", _document(sender))
        return MergeRecord()


def _document(sender: str) -> str:
    return f"merged.{sender}.json"
