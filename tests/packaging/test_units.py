"""What systemd/ and the code must agree on. `make test-deb` and `make test-zfs` start the units for real."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from fullsend_receiver.access import config, setup

SYSTEMD: Final = Path(__file__).resolve().parents[2] / "systemd"
SERVICE: Final = "fullsendd.service"
NAMES: Final = (SERVICE, "fullsendd.socket", "fullsend-push.service", "fullsend-push.timer")


def settings(name: str) -> dict[str, list[str]]:
    """What a unit says, in order, by the setting's name."""
    found: dict[str, list[str]] = {}
    for line in (SYSTEMD / name).read_text(encoding="ascii").splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_the_unit_opens_the_default_store_and_no_other_folder() -> None:
    assert settings(SERVICE)["ReadWritePaths"] == [f"-{config.DEFAULT_STORE}"]


def test_the_unit_runs_as_the_user_that_init_takes_for_granted() -> None:
    assert settings(SERVICE)["User"] == settings(SERVICE)["Group"] == [setup._SERVICE_USER]
    assert f"u {setup._SERVICE_USER} " in (SYSTEMD / "fullsend.sysusers").read_text(encoding="ascii")


def test_what_the_drop_in_shows_again_is_what_the_unit_hides() -> None:
    said = settings(SERVICE)
    hidden = {line.partition("=")[0] for line in setup._HIDDEN}
    assert hidden == {name for name in ("ProtectHome", "PrivateTmp") if said.get(name) == ["yes"]}


def test_the_daemon_is_told_which_boot_this_is() -> None:
    """`ProcSubset=pid` hides /proc/sys, where a command reads it."""
    assert settings(SERVICE)["ProcSubset"] == ["pid"]
    assert settings(SERVICE)["Environment"] == ["FULLSENDD_BOOT_ID=%b"]


def test_streams_may_end_before_systemd_kills() -> None:
    grace = config.ReceiverSettings.model_fields["shutdown_grace"].default
    assert float(settings(SERVICE)["TimeoutStopSec"][0]) > 2 * grace


def test_the_socket_has_the_default_port() -> None:
    assert settings("fullsendd.socket")["ListenStream"] == [str(config.DEFAULT_PORT)]


def test_the_units_wait_for_the_files_that_the_programs_read() -> None:
    assert settings(SERVICE)["ConditionPathExists"] == [str(config.DEFAULT_FILE)]
    assert settings("fullsend-push.service")["ConditionPathExists"] == ["/etc/fullsend/sender.toml"]


def test_a_push_may_take_a_week() -> None:
    assert settings("fullsend-push.service")["Type"] == ["oneshot"]
    assert settings("fullsend-push.service")["TimeoutStartSec"] == ["infinity"]
    assert settings("fullsend-push.timer")["Persistent"] == ["true"]


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".service")])
def test_commands_are_found_in_both_places(name: str) -> None:
    """systemd looks for a name without a path in /usr/local/bin and in /usr/bin."""
    [command] = settings(name)["ExecStart"]
    assert not command.startswith("/")
