"""What systemd/ and the code must agree on. `make test-deb` and `make test-zfs` start the units for real."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from fullsend_protocol.shared.exit_codes import Exit
from fullsend_receiver.access import config, setup
from fullsend_receiver.cli import hook_running

SYSTEMD: Final = Path(__file__).resolve().parents[2] / "systemd"
SERVICE: Final = "fullsendd.service"
HOOKS: Final = "fullsendd-hooks.service"
PUSH: Final = "fullsend-push.service"
FAILED: Final = "fullsend-failed@.service"
DRILL: Final = ("fullsend-drill.service", "fullsend-drill.timer")
NAMES: Final = (SERVICE, "fullsendd.socket", HOOKS, PUSH, "fullsend-push.timer", FAILED, *DRILL)


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


def test_hooks_run_as_the_stores_owner_and_outside_of_the_daemons_sandbox() -> None:
    said = settings(HOOKS)
    assert said["User"] == said["Group"] == [setup._SERVICE_USER]
    assert not said.keys() & {"NoNewPrivileges", "ProtectSystem", "PrivateNetwork", "SystemCallFilter", "PrivateTmp"}
    assert said["RestartPreventExitStatus"] == [str(int(Exit.USAGE))]
    # It says that the daemon does not run, or that the store's disk does not come.
    assert not said.keys() & {"Requires", "BindsTo", "PartOf", "RequiresMountsFor"}


def test_hooks_may_end_before_systemd_kills() -> None:
    assert float(settings(HOOKS)["TimeoutStopSec"][0]) > hook_running._END_WITHIN


def test_a_push_that_cannot_say_that_it_failed_has_a_unit_that_does() -> None:
    assert settings(PUSH)["OnFailure"] == [FAILED.replace("@", "@%n")]
    # The mark that the push leaves is where the other one looks for it.
    for key in ("RuntimeDirectory", "RuntimeDirectoryPreserve"):
        assert settings(PUSH)[key] == settings(FAILED)[key]


def test_all_units_are_packaged_and_tried_there() -> None:
    there = {path.name for path in SYSTEMD.iterdir() if path.suffix in {".service", ".socket", ".timer"}}
    assert there == set(NAMES)
    build = (SYSTEMD / "package" / "build").read_text(encoding="utf-8")
    inside = (Path(__file__).parent / "inside").read_text(encoding="utf-8")
    for name in NAMES:
        assert name in build
        assert name in inside


def test_the_package_knows_all_units_that_run_or_can_be_enabled() -> None:
    """What `apt` upgrades is restarted, and what it removes is stopped and disabled."""

    def named(script: str) -> set[str]:
        text = (SYSTEMD / "package" / script).read_text(encoding="utf-8")
        return {name for name in NAMES if re.search(rf'[\s"]{re.escape(name)}[\s";]', text)}

    enabled = {name for name in NAMES if "[Install]" in (SYSTEMD / name).read_text(encoding="ascii")}
    assert named("postinst") == named("postrm") == enabled
    assert named("prerm") == set(NAMES) - {FAILED}


def test_a_drill_may_take_days_and_may_mount_where_nobody_sees_it() -> None:
    said = settings("fullsend-drill.service")
    assert said["Type"] == ["oneshot"]
    assert said["TimeoutStartSec"] == ["infinity"]
    assert said["ConditionPathExists"] == ["/etc/fullsend/sender.toml"]
    assert said["ExecStart"] == ["fullsend drill"]
    assert said["OnFailure"] == [FAILED.replace("@", "@%n")]
    # Where it has its lock, and mounts: drill/mounts.py.
    assert said["RuntimeDirectory"] == ["fullsend"]
    assert said["RestrictNamespaces"] == ["mnt"]
    assert "@mount" in said["SystemCallFilter"][0].split()
    assert "CAP_SYS_ADMIN" in said["CapabilityBoundingSet"][0].split()
    assert settings("fullsend-drill.timer")["Persistent"] == ["true"]


def test_a_push_may_take_a_week() -> None:
    assert settings("fullsend-push.service")["Type"] == ["oneshot"]
    assert settings("fullsend-push.service")["TimeoutStartSec"] == ["infinity"]
    assert settings("fullsend-push.timer")["Persistent"] == ["true"]


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".service")])
def test_commands_are_found_in_both_places(name: str) -> None:
    """systemd looks for a name without a path in /usr/local/bin and in /usr/bin."""
    [command] = settings(name)["ExecStart"]
    assert not command.startswith("/")
