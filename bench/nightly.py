"""A night without changes: `fullsend push -r tank` over many datasets with many snapshots.

`zfs` is a shell script here that prints a listing made before: what is measured is what fullsend adds to zfs's own
time. It writes down each command, so that "one `zfs list`, no process per dataset" is checked in each run.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from bench.fullsend_hosts import FULLSEND, Receiver, Sender
from bench.measure import BenchError, Run, Service, transfer
from bench.report import Budget
from tests.receiver.helpers import plant

from fullsend_receiver.store.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.report import Results

_DATASETS: Final = 1000
_SNAPSHOTS: Final = 50
_BUDGET: Final = 0.5
#: The time of the first snapshot, and the interval to the next: seconds since the epoch.
_FIRST: Final = 1_790_000_000
_SNAPSHOT_EVERY: Final = 86_400


def nothing_new(results: Results, folder: Path, say: Callable[[str], None]) -> None:
    """Push one dataset, and a thousand, when everything is stored already."""
    for key, datasets in (("night-1", 1), ("night", _DATASETS)):
        host = _Host(folder / key, datasets)
        say(f"storing {datasets * _SNAPSHOTS} streams")
        with host.receiver.service() as daemon:
            host.pair()
            for _ in range(results.repetitions):
                run = host.push(daemon)
                name = f"push with nothing new, {datasets:,} dataset{'s' * (datasets > 1)} of {_SNAPSHOTS} snapshots"
                results.add(key, name, 0, run)
                say(f"{name}: {run.seconds:.2f} s")
        seconds = [run.seconds for run in results.rows[key].runs]
        bound = _BUDGET if datasets == 1 else None
        results.budgets.append(Budget(results.rows[key].name, bound, seconds, " s", at_least=False))


class _Host:
    """A ZFS host with so many datasets, each with its snapshots, all of them stored."""

    def __init__(self, folder: Path, datasets: int) -> None:
        folder.mkdir()
        self._folder = folder
        self._names = ["tank", *(f"tank/home/user-{number:04}" for number in range(1, datasets))]
        self.receiver = Receiver(folder / "receiver")
        self._commands = folder / "commands"
        (folder / "listing").write_text("".join(self._listing()), encoding="utf-8")
        for program in ("zfs", "zpool"):
            path = folder / program
            path.write_text(
                f'#!/bin/sh\necho {program} "$1" >>{shlex.quote(str(self._commands))}\n'
                f"case $1 in list) exec cat {shlex.quote(str(folder / 'listing'))} ;; esac\n",
                encoding="utf-8",
            )
            path.chmod(0o755)

    def pair(self) -> None:
        """Enrol, and store everything. The daemon must run."""
        Sender(self._folder / "sender", self.receiver, "alpha")
        config = self._folder / "sender" / "sender.toml"
        config.write_text(
            f'zfs-command = "{self._folder / "zfs"}"\n{config.read_text(encoding="utf-8")}', encoding="utf-8"
        )
        store = LocalStore(self._folder / "receiver" / "store")
        for place, name in enumerate(self._names):
            for number in range(_SNAPSHOTS):
                base = None if number == 0 else _guid(place, number - 1)
                plant(store, f"night-{number}", _guid(place, number), base, sender="alpha", dataset=name, flags="Lep")

    def push(self, daemon: Service) -> Run:
        """Push, and check that nothing was done without need. Raises: BenchError."""
        self._commands.write_text("", encoding="utf-8")
        config = self._folder / "sender" / "sender.toml"
        run, output = transfer([FULLSEND, "--config", config, "push", "-r", "--json", "tank"], daemon)
        ran = self._commands.read_text(encoding="utf-8").splitlines()
        if output or ran != ["zpool list", "zpool sync", "zfs list"]:
            msg = f"a push with nothing new ran {ran[:10]} and printed {output[:200]!r}"
            raise BenchError(msg)
        return run

    def _listing(self) -> list[str]:
        """The output of `zfs list` (zfs.COLUMNS), in its order."""
        lines = []
        for place, name in enumerate(self._names):
            lines.append(f"{name}\tfilesystem\t{7 * 10**18 + place}\t{place + 10}\t{_FIRST}\t0\t98304\t-\toff\t-\n")
            for number in range(_SNAPSHOTS):
                created = _FIRST + number * _SNAPSHOT_EVERY
                txg = 10_000 + number * len(self._names) + place
                columns = [f"{name}@night-{number}", "snapshot", _guid(place, number), txg, created, 4096, 98304]
                lines.append("\t".join(map(str, columns)) + "\t0\toff\t-\n")
        return lines


def _guid(place: int, number: int) -> int:
    return 9 * 10**18 + place * 1000 + number
