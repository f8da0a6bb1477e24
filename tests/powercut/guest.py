"""In the virtual machine: mount the disk, serve the store on it, and see what has become of all that was promised.

    guest.py BOOT make|go-on|end        make: the disk is empty; end: this was the last round

What `cuts.py` is to know goes into /share/report.json, once: violations, figures, an invitation for a new sender, and
the seconds that the boot, the daemon's start and the audit took. Then the daemon serves until the power goes; with
`end` it is stopped, and the machine ends in good order.

The environment may have FULLSEND_POWERCUT_BREAK: see broken/sitecustomize.py.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import Any, Final

from tests.powercut.audit import PRUNED, audit

from fullsend_receiver.cli import main as fullsendd

_DISK: Final = "/dev/vda"
_MOUNT: Final = Path("/srv")
_STORE: Final = _MOUNT / "store"
_CONFIG: Final = _MOUNT / "receiver.toml"
_SHARE: Final = Path("/share")
_BROKEN: Final = Path(__file__).parent / "broken"
#: By which of these is pruned changes from boot to boot: with a trash, or without.
_PRUNED_BY: Final = (_MOUNT / "prune.toml", _MOUNT / "prune-into-trash.toml")
#: The daemon has no policy: the prunes of commands are what goes on all the time.
_POLICY: Final = f"""
[retention."*/**/{PRUNED}"]
last = 0
minimum-count = 0
minimum-age = "0s"
"""
PORT: Final = 7433
_PATIENCE: Final = 180

#: How the file system may be mounted: as it is by default, and with less care than that. `commit=300`: what nobody
#: syncs is not written for five minutes. Without auto_da_alloc ext4 does not write what a program forgot to sync before
#: a rename.
_OPTIONS: Final = (
    "data=ordered",
    "data=ordered,noauto_da_alloc,commit=300",
    "data=writeback,noauto_da_alloc",
    "data=writeback,noauto_da_alloc,commit=300",
)


class DaemonError(Exception):
    """The daemon does not start, or a command fails that reads the store: that is no way to keep a promise either."""


def main() -> None:
    number, what = int(sys.argv[1]), sys.argv[2]
    report: dict[str, Any] = {"violations": [], "stored": [], "pruned": [], "kept": {}, "figures": {}, "seconds": []}
    try:
        uptimes = [0.0, _uptime()]
        options = _OPTIONS[number % len(_OPTIONS)]
        report["options"] = options
        _mount(options, make=what == "make")
        daemon = _serve()
        uptimes.append(_uptime())
        report |= _look(f"s{number:03}", verify_all=what == "end")
        if what == "make":
            _keep_bytecode()
        pruning = _prune_on_and_on(_PRUNED_BY[number % 2])
        uptimes.append(_uptime())
        report["seconds"] = [later - earlier for earlier, later in itertools.pairwise(uptimes)]
    except DaemonError as error:
        report["violations"] = [str(error)]
    except Exception:  # noqa: BLE001 - whatever it is, it is to be known outside
        report["failure"] = traceback.format_exc()
    new = _SHARE / "report.new"
    new.write_text(json.dumps(report), encoding="utf-8")
    new.rename(_SHARE / "report.json")
    if not report["seconds"]:
        sys.exit(1)
    if what == "end":
        os.kill(pruning, signal.SIGTERM)
        os.waitpid(pruning, 0)
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(_PATIENCE)
        _run("umount", str(_MOUNT))
        _check_file_system()
        sys.exit(daemon.returncode)
    sys.exit(f"the daemon has ended: {daemon.wait()}")


def _mount(options: str, *, make: bool) -> None:
    if make:
        # All is written now, not by the kernel later on; a small journal is checkpointed often.
        _run("mkfs.ext4", "-q", "-N", "65536", "-J", "size=16", "-E", "lazy_itable_init=0,lazy_journal_init=0", _DISK)
    # The journal is replayed by a mount. That the file system is whole then is what all else rests on: where it is not,
    # the kernel, qemu or tests/powercut/disk.py is to blame, not fullsendd.
    _run("mount", "-t", "ext4", "-o", options, _DISK, str(_MOUNT))
    _run("umount", str(_MOUNT))
    _check_file_system()
    _run("mount", "-t", "ext4", "-o", options, _DISK, str(_MOUNT))
    if make:
        _fullsendd("init", "--store", str(_STORE), "--listen", f"0.0.0.0:{PORT}", "--advertise", f"127.0.0.1:{PORT}")
        with _CONFIG.open("a", encoding="utf-8") as file:
            # An emulated processor takes its time.
            file.write('min-free = "64M"\nidentify-within = "60s"\nsilence = "120s"\n')
        text = _CONFIG.read_text(encoding="utf-8")
        for config, undelete_within in zip(_PRUNED_BY, ("0s", "1d"), strict=True):
            config.write_text(f'{text}undelete-within = "{undelete_within}"\n{_POLICY}', encoding="utf-8")
        os.sync()


def _check_file_system() -> None:
    _run("e2fsck", "-fn", _DISK)


def _serve() -> subprocess.Popen[bytes]:
    """Start the daemon, and wait until it is ready. What it says goes out of the machine at once, with what we say."""
    env = dict(os.environ)
    if env.get("FULLSEND_POWERCUT_BREAK"):
        env["PYTHONPATH"] = f"{_BROKEN}:{env['PYTHONPATH']}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        ready.bind("\0fullsend-powercut")
        daemon = subprocess.Popen(
            [sys.executable, "-m", "fullsend_receiver", "--config", str(_CONFIG), "serve"],
            stdin=subprocess.DEVNULL,
            env=env | {"NOTIFY_SOCKET": "@fullsend-powercut"},
        )
        _import()  # it takes a while, and so does the daemon's start
        ready.settimeout(1)
        until = time.monotonic() + _PATIENCE
        while daemon.poll() is None and time.monotonic() < until:
            with contextlib.suppress(TimeoutError):
                if b"READY=1" in ready.recv(4096):
                    return daemon
        msg = f"the daemon does not start: exit code {daemon.poll()}"
        raise DaemonError(msg)


def _look(sender: str, *, verify_all: bool) -> dict[str, Any]:
    """Audit the store, let fullsend verify what is new (all of a sender that has something new), invite `sender`."""
    book = json.loads((_SHARE / "book.json").read_text(encoding="utf-8"))
    listed = [json.loads(line) for line in _fullsendd("list", "--json").splitlines()]
    findings = audit(_STORE, book, listed)
    new = [book["streams"][number] for number in findings.stored]
    senders = {stream["source"]["sender"] for stream in new if verify_all or not stream["proven"]}
    verified = 0
    for name in sorted(senders):
        try:
            verified += len(_fullsendd("verify", "--json", name).splitlines())
        except DaemonError as error:
            findings.violations.append(str(error))
    findings.figures["streams verified"] = verified
    if findings.violations:
        paths = sorted(path for path in _STORE.rglob("*") if path.is_file())
        findings.violations += [f"    {path.stat().st_size:>12} {path.relative_to(_STORE)}" for path in paths]
    return {
        "violations": findings.violations,
        "stored": findings.stored,
        "pruned": findings.pruned,
        "kept": findings.kept,
        "figures": dict(findings.figures),
        "invitation": _fullsendd("invite", sender).strip(),
    }


def _prune_on_and_on(config: Path) -> int:
    """Prune in a process of its own, again and again, until SIGTERM, or until the power goes. Returns: its number."""
    child = os.fork()
    if child:
        return child
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_signal: stopping.set())
    try:
        while not stopping.is_set():
            _fullsendd("prune", "--yes-more", "--json", config=config)
    except BaseException as error:  # noqa: BLE001 - it is to be seen in what the machine has said
        print(f"the prune did what it must not: {error!r}", file=sys.stderr, flush=True)
    os._exit(0)


def _keep_bytecode() -> None:
    """For the next boots: to compile all modules takes an emulated processor longer than all else.

    The daemon may compile one at this moment. Python renames a whole file to its name, so what tar reads is whole; that
    a folder changed meanwhile is exit 1 of GNU tar.
    """
    command = ("tar", "-C", "/tmp/project", "--exclude=*.pyc.*", "-cf", str(_SHARE / "project.new"), ".")
    _run(*command, good=(0, 1))
    (_SHARE / "project.new").rename(_SHARE / "project.tar")


def _import() -> None:
    """Import now what `fullsendd` imports for its commands."""
    for name in (
        *("catalogue.streams", "cli.results", "access.setup", "access.senders", "maintenance.scrub"),
        *("cli.pruning", "maintenance.prune", "maintenance.clock"),
    ):
        importlib.import_module(f"fullsend_receiver.{name}")


def _fullsendd(*arguments: str, config: Path = _CONFIG) -> str:
    """Run a command, in a process of its own that has all imported already: an emulated processor takes seconds."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            code = 70
            try:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                code = fullsendd.main(["--config", str(config), *arguments])
            finally:
                sys.stderr.flush()
                os._exit(code)
        _pid, status = os.waitpid(child, 0)
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read().decode())
    if status:
        msg = f"fullsendd {' '.join(arguments)}: wait status {status}: {said[0][-2000:]} {said[1][-2000:]}"
        raise DaemonError(msg)
    return said[0]


def _uptime() -> float:
    return float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])


def _run(*command: str, good: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_PATIENCE)
    if done.returncode not in good:
        msg = f"{' '.join(command)}: exit {done.returncode}: {done.stdout[-2000:]} {done.stderr[-2000:]}"
        raise RuntimeError(msg)
    return done.stdout


if __name__ == "__main__":
    main()
