"""A night in which each of many datasets has a small increment: `fullsend push -r tank`, in its steady state.

`zfs` is a shell script here, as cheap as one can be: it prints what was made before, and writes down each command. Its
own cost is measured too: the commands of the night, started one after the other by a program that does nothing else.
The difference is what fullsend adds, at both ends, TLS and the commit at the receiver included.
"""

from __future__ import annotations

import collections
import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.fullsend_hosts import FULLSEND, Receiver, Sender
from bench.measure import BenchError, Run, Service, transfer
from bench.report import Budget
from tests.receiver.helpers import plant
from tests.streams import SUBSTREAM, begin, data_object, end, file_system, package, tree, write

from fullsend_protocol.stream.records import Feature
from fullsend_receiver.store.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.report import Results

DATASETS: Final = 1000
#: Milliseconds that fullsend may add to zfs's own commands, for each dataset.
_BUDGET: Final = 15.0
#: Bytes of the payload of an increment.
_SIZE: Final = 64 << 10
#: fullsend's own snapshots and bookmarks that are there before: as many as stay, so that a push destroys one of each.
_KEPT: Final = 2
_FIRST: Final = 1_790_000_000
_DAY: Final = 86_400

#: $1: the command. `cat` is the one program that it starts, and it takes this script's process.
_PROGRAM: Final = """#!/bin/sh
cd {folder} || exit 1
echo "${{0##*/}} $*" >>commands
case $0-$1 in
*zpool-list) echo "tank\tONLINE" ;;
*zpool-*) ;;
*-list) case $* in *bookmark*) exec cat listing ;; *) exec cat new ;; esac ;;
*-snapshot) shift; PYTHONPATH={path} exec {python} -m bench.increments "$@" ;;
*-hold) echo "$2" >tag ;;
*-holds) read -r tag <tag; shift 2; for name; do case $name in *@{prefix}*) echo "$name\t$tag\t-" ;; esac; done ;;
*-get) form=$6; shift 7; for name; do case $form in
    property,value) echo "compression	zstd" ;;
    name,property) echo "$name	compression" ;;
    *) echo "$name	compression	zstd" ;;
  esac; done ;;
*-version) echo zfs-2.4.4-bench ;;
*-send) case $* in *-nP*) echo "size\t{size}" ;; *) shift $(($# - 1)); exec cat "streams/${{1##*/}}" ;; esac ;;
esac
"""


def many(results: Results, folder: Path, say: Callable[[str], None], *, datasets: int) -> None:
    """Push an increment of each of so many datasets, once in each of the first three repetitions."""
    over = []
    for number in range(min(3, results.repetitions)):
        host = NightHost(folder / f"increments-{number}", datasets)
        with host.receiver.service() as daemon:
            host.pair()
            run, counted = host.push(daemon)
            own = host.own_cost()
        name = f"push of an increment of each of {datasets:,} datasets"
        results.add("increments", name, datasets * _SIZE, run)
        over.append(1000 * run.seconds / datasets - own)
        say(
            f"{name}: {run.seconds:.2f} s, {over[-1] + own:.1f} ms a dataset, of which zfs's own commands {own:.1f};"
            f" CPU ms a dataset: {1000 * run.zfs_host.cpu / datasets:.1f} and {1000 * run.storage.cpu / datasets:.1f};"
            f" {counted}"
        )
    text = f"a night of {datasets:,} increments: milliseconds a dataset beside zfs's own commands"
    results.budgets.append(Budget(text, _BUDGET, over, " ms", at_least=False))
    results.notes.append(f"the last night of increments: {counted}")


class NightHost:
    """A ZFS host with so many datasets, each with what pushes have left, and one snapshot stored."""

    def __init__(self, folder: Path, datasets: int) -> None:
        folder.mkdir()
        self._folder = folder
        self._names = ["tank", *(f"tank/user-{number:05}" for number in range(1, datasets))]
        self.receiver = Receiver(folder / "receiver")

    def pair(self) -> Sender:
        """Enrol, make the fake, and store what was pushed. The daemon must run. Returns: the paired host."""
        sender, folder = self._folder / "sender", self._folder / "zfs-host"
        paired = Sender(sender, self.receiver, "alpha")
        config = sender / "sender.toml"
        text = config.read_text(encoding="utf-8")
        config.write_text(f'zfs-command = "{folder / "zfs"}"\n{text}', encoding="utf-8")
        receiver = next(line for line in text.splitlines() if "fingerprint" in line).split('"')[1][:8]
        (folder / "streams").mkdir(parents=True)
        words = {
            "folder": shlex.quote(str(folder)),
            "path": shlex.quote(str(Path(__file__).resolve().parents[1])),
            "python": shlex.quote(sys.executable),
            "prefix": f"fullsend-{receiver}",
            "size": _SIZE,
        }
        for program in ("zfs", "zpool"):
            path = folder / program
            path.write_text(_PROGRAM.format(**words), encoding="utf-8")
            path.chmod(0o755)
        (folder / "listing").write_text("".join(self._listing(receiver)), encoding="utf-8")
        guids = {name: [_guid(place, _KEPT - 1), place] for place, name in enumerate(self._names)}
        (folder / "guids").write_text(json.dumps(guids), encoding="utf-8")
        store = LocalStore(self._folder / "receiver" / "store")
        for place, name in enumerate(self._names):
            snapshot = _snapshot(receiver, _KEPT - 1)
            plant(store, snapshot, _guid(place, _KEPT - 1), sender="alpha", dataset=name, flags="Lep")
        return paired

    def push(self, daemon: Service, *options: str) -> tuple[Run, str]:
        """Push, and check that all was pushed. `options`: of the command line. Returns: the measurements, and what was
        counted. Raises: BenchError.
        """
        config = self._folder / "sender" / "sender.toml"
        log = self._folder / "receiver" / "log"
        before = log.read_text(encoding="utf-8").count(": connected, ")
        command: list[str | Path] = [FULLSEND, "--config", config, "push", "-r", "--json", *options, "tank"]
        run, output = transfer(command, daemon)
        kinds = collections.Counter(json.loads(line)["kind"] for line in output.splitlines())
        if kinds != {"incremental": len(self._names)}:
            msg = f"a push of {len(self._names)} increments pushed {dict(kinds)}"
            raise BenchError(msg)
        connections = log.read_text(encoding="utf-8").count(": connected, ") - before
        verbs = collections.Counter(_verb(line) for line in self._commands())
        said = ", ".join(f"{verb} {count:,}" for verb, count in sorted(verbs.items()))
        return run, f"{connections:,} connections; commands: {said}"

    def own_cost(self) -> float:
        """Run the night's commands once more, by themselves. Returns: milliseconds for each dataset."""
        program = self._folder / "zfs-host" / "zfs"
        lines = [line.split() for line in self._commands() if line.startswith("zfs ")]
        nothing = os.open(os.devnull, os.O_RDWR)
        began = time.monotonic()
        for _name, *arguments in lines:
            to_null = [(os.POSIX_SPAWN_DUP2, nothing, 1)]
            pid = os.posix_spawn(program, [str(program), *arguments], os.environ, file_actions=to_null)
            os.waitpid(pid, 0)
        seconds = time.monotonic() - began
        os.close(nothing)
        return 1000 * seconds / len(self._names)

    def _commands(self) -> list[str]:
        return (self._folder / "zfs-host" / "commands").read_text(encoding="utf-8").splitlines()

    def _listing(self, receiver: str) -> list[str]:
        """The output of `zfs list` (zfs.COLUMNS), in its order."""
        lines = []
        for place, name in enumerate(self._names):
            lines.append(f"{name}\tfilesystem\t{7 * 10**18 + place}\t{place + 10}\t{_FIRST}\t65536\t98304\t-\toff\t-\n")
            for mark in "@#":
                for number in range(_KEPT):
                    guid = _guid(place, number)
                    short = _snapshot(receiver, number) if mark == "@" else f"fullsend-{receiver}-{guid:016x}"
                    columns = [f"{name}{mark}{short}", "snapshot" if mark == "@" else "bookmark", guid]
                    columns += [10_000 + number * len(self._names) + place, _FIRST + number * _DAY]
                    lines.append("\t".join(map(str, columns)) + ("\t4096\t98304\t0" if mark == "@" else "\t-\t-\t-"))
                    lines[-1] += "\toff\t-\n"
        return lines


def _verb(line: str) -> str:
    words = line.split()
    return " ".join([*words[:2], "-nP"] if "-nP" in words else words[:2])


def _guid(place: int, number: int) -> int:
    return 9 * 10**18 + place * 1000 + number


def _snapshot(receiver: str, number: int) -> str:
    return f"fullsend-{receiver}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(_FIRST + number * _DAY))}"


def _take(names: Sequence[str]) -> None:
    """Do what `zfs snapshot` does, in the fake's folder: write the streams of these snapshots, and their listing."""
    guids: dict[str, Any] = json.loads(Path("guids").read_text(encoding="utf-8"))
    now, payload, lines = int(time.time()), os.urandom(_SIZE), []
    features = (Feature.LARGE_BLOCKS, Feature.EMBED_DATA, Feature.SA_SPILL)
    for name in names:
        dataset, _, snapshot = name.partition("@")
        base, place = guids[dataset]
        guid = base + 1
        records = [data_object(2, bytes(168), block_size=1 << 17), write(2, 0, payload)]
        inner = begin(name, guid, base, features=features, header_type=SUBSTREAM, created=now)
        nvlist = tree(snapshot, file_system(dataset, {snapshot: guid}), not_recursive=True)
        stream = package(inner + b"".join(records) + end(guid), name=name, nvlist=nvlist)
        Path("streams", name.rpartition("/")[2]).write_bytes(stream)
        lines.append(f"{name}\tsnapshot\t{guid}\t{10**6 + place}\t{now}\t0\t98304\t0\toff\t-\n")
    Path("new").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    _take(sys.argv[1:])
