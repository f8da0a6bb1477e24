"""Against what systemd does: a datagram socket, environment variables, descriptors from 3 on."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from fullsend_receiver.daemon import systemd


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A service manager's end of the notification socket."""
    with contextlib.ExitStack() as stack:
        if request.param == "path":
            address = str(Path(stack.enter_context(TemporaryDirectory()), "notify"))
        else:
            address = f"@fullsend-{secrets.token_hex(8)}"
        sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        sock.bind(address.replace("@", "\0", 1))
        sock.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        yield sock


def test_states_arrive_as_one_datagram(manager: socket.socket) -> None:
    systemd.notify("READY=1", "STATUS=listening")
    assert manager.recv(4096) == b"READY=1\nSTATUS=listening"


def test_without_a_manager_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    systemd.notify("READY=1")


def test_a_manager_that_has_gone_is_no_reason_to_stop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    systemd.notify("READY=1")


@pytest.mark.parametrize(
    ("environment", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_it_must_be(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], interval: float | None
) -> None:
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert systemd.watchdog_interval() == interval


_TAKE = """
import os, sys
os.environ["LISTEN_PID"] = sys.argv[1] if len(sys.argv) > 1 else str(os.getpid())
os.environ["LISTEN_FDS"] = "1"
from fullsend_receiver.daemon import systemd
sockets = systemd.listen_sockets()
assert "LISTEN_FDS" not in os.environ or not sockets
print([(sock.getsockname(), sock.getblocking(), os.get_inheritable(sock.fileno())) for sock in sockets])
"""


def test_a_passed_socket_is_taken_from_descriptor_3() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        done = subprocess.run(
            ["bash", "-c", f'exec 3<&{listening.fileno()}; exec "$0" -c "$1"', sys.executable, _TAKE],
            pass_fds=[listening.fileno()],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == f"[({listening.getsockname()}, False, False)]\n"


def test_a_socket_that_was_passed_to_somebody_else_is_not_taken() -> None:
    done = subprocess.run([sys.executable, "-c", _TAKE, "1"], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_without_activation_there_are_no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LISTEN_PID", raising=False)
    assert systemd.listen_sockets() == []
