"""Cut the power of a receiver again and again, amid pushes, and see each time whether its promises hold.

    cuts.py SHARE [--rounds N] [--seed N] [--at MOMENT] [--break HOW] [--keep FOLDER]

One round: the virtual machine boots with the disk that the last cut has left; the daemon starts; all promises are
audited (guest.py); new streams are pushed (load.py); at some moment the power goes: disk.py forgets what was not
flushed, and qemu gets SIGKILL. After the last round the machine boots once more, and is stopped in good order.

`tests/powercut/run` prepares SHARE and calls this. Exit codes: 0 all promises were kept; 1 one was not, or something
else went wrong. With --break it is the other way round: 0 means that the broken promise was found.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.powercut import guest
from tests.powercut.disk import Disk
from tests.powercut.load import Book, Load
from tests.programs import free_port

_HERE: Final = Path(__file__).parent
_VM: Final = _HERE.parent / "zfs" / "vm" / "run"
_DISK_SIZE: Final = 16 << 30  # sparse
#: What a disk that turns takes for a flush.
_FLUSH_SECONDS: Final = 0.01
#: Seconds from the start of qemu to the report; most of it is the emulated processor's.
_BOOT: Final = 600
#: How many receipts are waited for, at most, and how long, before the moment may come; and how long for that.
_RECEIPTS: Final = 20
_LOAD: Final = 20.0
_MOMENT: Final = 10.0

#: What the power waits for, so that no kind of moment is rare: `now`; a request to the disk, before it is done or when
#: it is done and not yet answered (`of much`: with at least so many bytes unflushed, as when a batch of a large stream
#: is synced); a promise that has just been heard. `start`: not amid pushes, but while the machine and the daemon start
#: after the cut before.
_MUCH: Final = 1 << 20
_MOMENTS: Final = (
    "now",
    "write",
    "written, of much",
    "flush",
    "flush, of much",
    "flushed",
    "ack",
    "receipt",
    "start",
)

#: A start after a cut makes at least so many writes to the disk (seen: 20 to 54).
_START_WRITES: Final = 20

#: In the log of a daemon: a bug, whatever else there was. (Also that a disk has lost what was synced: ours has not.)
_NEVER: Final = re.compile(
    r"Traceback|a bug|lost what|never retrieved|never awaited|Exception ignored|was destroyed"
    r"|must not:"
)
#: After more cuts than this something must have been pruned.
_PRUNES_SEEN: Final = 20
#: Figures that grow from audit to audit: their sum means nothing.
_EVERY_TIME: Final = ("receipts held", "enrolments held")


class RoundError(Exception):
    """The rounds cannot continue: something is wrong, with the receiver or with this test."""


class PromiseError(RoundError):
    """What this test was made to find: a promise that was not kept."""


class Power:
    """Switches the machine off: now, or at the n-th event of a kind. Every thread may tell of an event."""

    def __init__(self) -> None:
        self.gone = threading.Event()
        self.disk: Disk | None = None
        self.pid = 0
        # Never held while the disk is asked for something: it tells of its events with a lock of its own held.
        self._lock = threading.Lock()
        self._moment = ""
        self._left = 0

    def on(self) -> None:
        self.pid = 0
        self.gone.clear()

    def arm(self, moment: str, count: int) -> None:
        with self._lock:
            self._moment, self._left = moment, count

    def event(self, what: str) -> None:
        with self._lock:
            hit = what == self._moment and self._left == 1
            self._left -= what == self._moment
        if hit:
            self.cut()

    def cut(self) -> None:
        assert self.disk is not None
        self.arm("", 0)
        self.disk.freeze()
        if self.pid:
            with contextlib.suppress(ProcessLookupError):  # somebody else was as quick
                os.kill(self.pid, signal.SIGKILL)
        self.gone.set()


@dataclass
class Machine:
    """A running virtual machine."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def wait(self) -> int:
        return self.process.wait(_BOOT)


class Rounds:
    """All rounds over one disk."""

    def __init__(self, share: Path, work: Path, seed: int, how_broken: str, moments: Sequence[str]) -> None:
        self.totals: Counter[str] = Counter()
        self.book = Book()
        self._share = share
        self._work = work
        self._chance = random.Random(seed)
        self._broken = how_broken
        self._moments = moments
        self._power = Power()
        self._boots = 0
        self._writes = 0  # since the machine was switched on
        self._start_writes = 0  # of those, before the daemon was there and was looked at
        self._log = work / "no machine"

    def run(self, rounds: int) -> None:
        """Raises: RoundError."""
        with Disk(
            self._work / "disk.img",
            _DISK_SIZE,
            self._work / "disk.socket",
            self._at_request,
            flush_seconds=_FLUSH_SECONDS,
        ) as disk:
            self._power.disk = disk
            # Each kind of moment in turn, in an order of its own for each run.
            moments = list(self._moments)
            self._chance.shuffle(moments)
            for number in range(1, rounds + 1):
                moment = moments[number % len(moments)]
                self._round(number, "make" if number == 1 else "go-on", moment)
            with self._machine("end") as machine:
                report = self._report(machine)
                assert report is not None
                self._audit(report, f"after {rounds} rounds")
                if machine.wait():
                    msg = f"the daemon, or the machine, did not end well: {machine.log.read_text(errors='replace')}"
                    raise RoundError(msg)

    def _at_request(self, what: str) -> None:
        self._writes += what == "written"
        self._power.event(what)
        assert self._power.disk is not None
        if self._power.disk.unflushed_bytes >= _MUCH:
            self._power.event(f"{what}, of much")

    def _round(self, number: int, what: str, moment: str) -> None:
        if moment == "start" and what != "make":
            # From the first write on, which is the mount's.
            writes = self._chance.randint(1, _START_WRITES)
            self._power.arm("written", writes)
            with self._machine(what) as machine:
                report = self._report(machine)
                if report is not None:
                    # It made fewer writes than that, and is there.
                    self._audit(report, f"round {number}")
                    self._load(number, machine, report, "now")
                    return
            self._settle(number, f"amid the start, after {writes} writes")
            self.totals["of them amid a start"] += 1
        with self._machine(what) as machine:
            report = self._report(machine)
            assert report is not None
            self._audit(report, f"round {number}")
            self._load(number, machine, report, moment)

    def _load(self, number: int, machine: Machine, report: dict[str, Any], moment: str) -> None:
        power = self._power
        load = Load(self.book, machine.port, self._chance.getrandbits(32), power.event, power.gone)
        name, secret = _opened(report["invitation"])
        began = time.monotonic()
        acks, receipts = self.book.acks, self.book.receipts
        load.start(name, secret, self._work)
        # Mostly when all is under way, sometimes so early that the sender has hardly joined. By receipts, not by time:
        # one emulated processor is ten times slower than another.
        goal = receipts + self._chance.choice((0, 1, 1, 1, 1)) * self._chance.randint(1, _RECEIPTS)
        while self.book.receipts < goal and time.monotonic() < began + _LOAD:
            power.gone.wait(0.05)
        power.gone.wait(self._chance.uniform(0, 2))
        if moment not in {"now", "start"}:
            # What is rare is not waited for so often.
            rare = moment in {"ack", "receipt"} or moment.endswith("of much")
            power.arm(moment, self._chance.randint(1, 3 if rare else 8))
            power.gone.wait(_MOMENT)
        under_way = load.under_way
        power.cut()
        load.wait()
        seconds = time.monotonic() - began
        machine.wait()
        acks, receipts = self.book.acks - acks, self.book.receipts - receipts
        self._settle(
            number,
            f"{seconds:.1f} s into the pushes, at {moment!r} ({under_way}), after {acks} acknowledgements and"
            f" {receipts} receipts",
        )
        if load.faults:
            raise RoundError("\n".join(load.faults) + self._daemon_log())
        if _NEVER.search(self._daemon_log()):
            raise RoundError(f"round {number}: what the daemon must never say{self._daemon_log()}")

    def _settle(self, number: int, when: str) -> None:
        assert self._power.disk is not None
        left = self._power.disk.settle(self._chance)
        self.totals["power cuts"] += 1
        self.totals["of them with unflushed writes"] += left.unflushed > 0
        self.totals["writes lost"] += left.lost
        self.totals["writes torn"] += left.torn
        say(f"round {number}: cut {when}; of {left.unflushed} unflushed writes {left.lost} were lost, {left.torn} torn")

    # --- the machine

    @contextlib.contextmanager
    def _machine(self, what: str) -> Iterator[Machine]:
        self._boots += 1
        self._power.on()
        self._writes = 0
        (self._share / "report.json").unlink(missing_ok=True)
        (self._share / "book.json").write_text(json.dumps(self.book.as_json()), encoding="utf-8")
        pidfile = self._work / "qemu.pid"
        pidfile.unlink(missing_ok=True)
        port = free_port()
        env = os.environ | {
            "FULLSEND_ZFSVM_DISK": f"nbd+unix:///?socket={self._work / 'disk.socket'}",
            "FULLSEND_ZFSVM_FORWARD": f"{port}:{guest.PORT}",
            "FULLSEND_ZFSVM_PIDFILE": str(pidfile),
        }
        log = self._log = self._work / f"machine-{self._boots}.log"
        script = [str(self._share), str(_HERE / "inside"), str(self._boots), what, self._broken]
        with log.open("wb") as file:
            process = subprocess.Popen([str(_VM), *script], stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=env)
        machine = Machine(process, port, log)
        try:
            while not (pidfile.exists() and pidfile.read_text(encoding="ascii").strip()):
                if process.poll() is not None:
                    msg = f"the machine did not start: {log.read_text(errors='replace')}"
                    raise RoundError(msg)
                time.sleep(0.02)
            self._power.pid = int(pidfile.read_text(encoding="ascii"))
            yield machine
        finally:
            if process.poll() is None:
                self._power.cut()
                process.terminate()  # where qemu has not yet said which process it is
            machine.wait()

    def _report(self, machine: Machine) -> dict[str, Any] | None:
        """Wait until the guest has started and looked around. None: the power went before."""
        file = self._share / "report.json"
        until = time.monotonic() + _BOOT
        while not file.exists():
            if self._power.gone.is_set():
                machine.wait()
                return None
            if machine.process.poll() is not None or time.monotonic() > until:
                msg = f"the guest has said nothing: {machine.log.read_text(errors='replace')}"
                raise RoundError(msg)
            time.sleep(0.05)
        self._power.arm("", 0)
        if self._power.gone.is_set():
            machine.wait()
            return None
        self._start_writes = self._writes
        report: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return report

    def _audit(self, report: dict[str, Any], when: str) -> None:
        """Take note of what the guest has found. Raises: RoundError."""
        if "failure" in report:
            raise RoundError(f"{when}: the guest has failed ({report}):\n{report['failure']}{self._daemon_log()}")
        for number in report["stored"]:
            self.book.entries[number].stored = True
            self.book.entries[number].proven = True
        for number in report["pruned"]:
            self.book.entries[number].pruned = True
        for number, offset in report["kept"].items():
            # It has survived: from now on it must.
            self.book.entries[int(number)].acked = offset
        figures = report["figures"]
        self.totals.update({what: count for what, count in figures.items() if what not in _EVERY_TIME})
        self.totals["audits"] += 1
        times = " + ".join(f"{seconds:.0f}" for seconds in report["seconds"])
        seen = _listed(figures) or "nothing yet"
        say(f"{when}: up in {times} s, {self._start_writes} writes, with {report['options']}: {seen}")
        if report["violations"]:
            lines = "\n".join(report["violations"])
            raise PromiseError(f"{when}: promises that were not kept:\n{lines}{self._daemon_log()}")

    def _daemon_log(self) -> str:
        return f"\nthe daemon, and what the machine said:\n{self._log.read_text(errors='replace')}"


def _opened(invitation: str) -> tuple[str, str]:
    """The sender's name and the secret in an invitation."""
    body = invitation.removeprefix("fullsend1-").rpartition("-")[0]
    fields = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return str(fields[0]), str(fields[4])


def _listed(figures: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in figures.items() if count)


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("share", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--at", choices=_MOMENTS, help="cut at this kind of moment alone")
    parser.add_argument("--break", dest="broken", choices=("sync", "data", "folders"), default="")
    options = parser.parse_args()
    began = time.monotonic()
    # What a run does depends on more than its seed: how quick the machine is, and what happens at once.
    say(f"{options.rounds} rounds, seed {options.seed}" + (f", broken: {options.broken}" if options.broken else ""))
    found: RoundError | None = None
    with tempfile.TemporaryDirectory(prefix="fullsend-powercut-") as work:
        rounds = Rounds(
            options.share, Path(work), options.seed, options.broken, [options.at] if options.at else _MOMENTS
        )
        try:
            rounds.run(options.rounds)
        except RoundError as error:
            found = error
    heard = {"acknowledgements": rounds.book.acks, "receipts": rounds.book.receipts, "resumed": rounds.book.resumed}
    totals = Counter(heard) + rounds.totals
    cuts = totals.pop("power cuts", 0)
    say(f"{cuts} power cuts in {time.monotonic() - began:.0f} s: {_listed(totals)}")
    if found:
        print(found, file=sys.stderr)
    if not found and not options.broken and cuts > _PRUNES_SEEN and not totals["streams pruned"]:
        found = RoundError("nothing was pruned amid these cuts")
        print(found, file=sys.stderr)
    if options.broken:
        seen = isinstance(found, PromiseError)
        say("the broken promise was found" if seen else "NOT FOUND: this test is blind")
        return 0 if seen else 1
    say("FAILED" if found else "all promises were kept")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
