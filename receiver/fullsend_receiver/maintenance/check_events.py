"""The events of a check, for the daemon and for `fullsendd verify`."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from fullsend_receiver.events.emit import emit
from fullsend_receiver.events.records import DamageFound, DamageGone, NotChecked
from fullsend_receiver.maintenance.verify import Checked


@dataclass(slots=True)
class CheckCounts:
    """What some checks have found."""

    streams: int = 0
    damaged: int = 0
    unreadable: int = 0

    def add(self, found: Checked) -> None:
        """Count one."""
        self.streams += 1
        self.damaged += bool(found.result.damage)
        self.unreadable += found.result.unreadable is not None


def report_check(found: Checked, disk: str) -> None:
    """Say what a check has found, if it is more than that the stream is whole. `disk`: the name of the store's disk."""
    subject, result = found.subject, found.result
    file = str(subject.file)
    about = {"sender": subject.file.parts[0], "dataset": subject.dataset, "snapshot": subject.snapshot, "file": file}
    if result.unreadable is not None:
        text = f"{file}: not checked: {result.unreadable} (disk {disk}); it is tried again later"
        emit(NotChecked(text=text, why=result.unreadable, **about), logging.ERROR)
    if result.damage:
        why = result.damage[0]
        emit(DamageFound(text=f"{file}: damaged: {why}", why=why, **about), logging.ERROR)
    if found.healed:
        emit(DamageGone(text=f"{file}: was damaged, and is whole", how="checked", **about), logging.WARNING)
