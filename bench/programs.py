"""The programs of the peers: found, or installed by apt as root, or named."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from bench.measure import BenchError

#: Debian's package by program.
_PACKAGES: Final = {
    "mbuffer": "mbuffer",
    "nc": "netcat-openbsd",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "openssl": "openssl",
    "zstd": "zstd",
    "cat": "coreutils",
    "bash": "bash",
}


def need() -> None:
    """Make sure that all programs are there, and are the right ones. Raises: BenchError, naming the missing ones."""
    lacking = sorted({package for program, package in _PACKAGES.items() if not find(program)})
    if lacking and os.geteuid() == 0 and shutil.which("apt-get"):
        # An ssh server's package starts it, and at every boot from then on. A benchmark must not open a port for that;
        # where nothing starts services (a container, CI), it is only a file.
        if "openssh-server" in lacking and Path("/run/systemd/system").exists():
            msg = (
                "this machine lacks sshd. Its package would also start an ssh server, so please decide yourself:"
                " apt-get install openssh-server (the benchmark runs its own, on a private port)"
            )
            raise BenchError(msg)
        for argv in (
            ["apt-get", "update", "-q"],
            ["apt-get", "install", "-q", "-y", "--no-install-recommends", *lacking],
        ):
            environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment, check=True)
        lacking = sorted({package for program, package in _PACKAGES.items() if not find(program)})
    if lacking:
        msg = f"this machine lacks: {' '.join(lacking)} (Debian's names); please install them"
        raise BenchError(msg)
    if "OpenBSD netcat" not in says(["nc", "-h"]):
        msg = "nc is not OpenBSD's netcat (Debian: netcat-openbsd), whose options are meant here"
        raise BenchError(msg)


def find(program: str) -> str:
    """Return the path of a program, "" if it is missing. sshd must be started by its full path."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    return shutil.which(program, path=path) or ""


def versions() -> dict[str, str]:
    """Return the versions that the programs print."""
    return {
        "zstd": says(["zstd", "-V"]).partition(" v")[2].partition(",")[0],
        "ssh": says(["ssh", "-V"]).partition(",")[0],
        "nc": says(["nc", "-h"]).partition("\n")[0],
        "mbuffer": says(["mbuffer", "-V"]).partition("\n")[0].removeprefix("mbuffer version "),
    }


def says(argv: list[str]) -> str:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return (done.stdout + done.stderr).decode(errors="replace").strip()
