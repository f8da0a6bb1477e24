"""The units of systemd/, started by a real systemd, with all their restrictions.

`tests/zfs/run` boots a guest of its own for these, with systemd as the first process: they put a user, units and
/opt/fullsend on it, the way that docs/install.md says. They build on one another, in order.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pathlib
import pwd
import re
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.data.load import STREAMS, stream
from tests.zfs import pools

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROJECT: Final = pathlib.Path(__file__).resolve().parents[2]
OPT: Final = pathlib.Path("/opt/fullsend")
UNITS: Final = pathlib.Path("/etc/systemd/system")
#: A name that has to be quoted in a drop-in, every bit of it.
STORE: Final = pathlib.Path('/srv/back ups/100% "mine"')
PORT: Final = 7433
EXPOSURE_MAX: Final = 1.5
#: Seconds until something is taken for hung. The processor is an emulated one.
PATIENCE: Final = 300
NAMES: Final = (
    "fullsendd.service",
    "fullsendd.socket",
    "fullsend-push.service",
    "fullsend-push.timer",
    "fullsend-drill.service",
    "fullsend-drill.timer",
    "fullsendd-hooks.service",
    "fullsend-failed@.service",
)


def run(*command: str, stdin: bytes = b"", check: bool = True) -> subprocess.CompletedProcess[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        command, input=stdin, capture_output=True, check=False, timeout=PATIENCE, env=environment, cwd="/"
    )
    if check and done.returncode:
        said = (done.stdout + done.stderr).decode(errors="replace")
        raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{said}\n{journal()}")
    return done


def out(*command: str, stdin: bytes = b"") -> str:
    return run(*command, stdin=stdin).stdout.decode()


def journal() -> str:
    """The last that the units said."""
    units = [word for name in NAMES for word in ("-u", name)]
    return run("journalctl", "--no-pager", "-n", "60", *units, check=False).stdout.decode(errors="replace")


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def shown(unit: str, name: str) -> str:
    """A property of a unit."""
    return out("systemctl", "show", "--value", "-p", name, unit).strip()


def wait_for(what: str, found: Callable[[], bool]) -> None:
    """There is no event to wait for that systemd would give us without D-Bus."""
    give_up = time.monotonic() + PATIENCE
    while not found():
        assert time.monotonic() < give_up, f"never seen: {what}\n{journal()}"
        time.sleep(0.2)


def drop_in(unit: str, name: str, text: str) -> None:
    folder = UNITS / f"{unit}.d"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.conf").write_text(text, encoding="utf-8")
    run("systemctl", "daemon-reload")


def main_pid(unit: str = "fullsendd.service") -> int:
    return int(shown(unit, "MainPID"))


def push(name: str) -> dict[str, Any]:
    [pushed] = rows(out("fullsend", "push", "--stdin", "--json", stdin=stream(name)))
    return pushed


@functools.cache
def install() -> None:
    """As docs/install.md says for a virtual environment, but for pip: the packages are there already."""
    assert pathlib.Path("/proc/1/comm").read_text(encoding="ascii") == "systemd\n", "run this with tests/zfs/run"
    run("python3", "-m", "venv", "--without-pip", str(OPT))
    [packages] = OPT.glob("lib/python3.*/site-packages")
    shutil.copytree(PROJECT / "wheels", packages, dirs_exist_ok=True)
    for wing in ("protocol", "receiver", "sender"):
        shutil.copytree(PROJECT / wing, packages, dirs_exist_ok=True)
    for command, module in (("fullsend", "fullsend_sender.cli.main"), ("fullsendd", "fullsend_receiver.cli.main")):
        script = OPT / "bin" / command
        text = f"#!{OPT}/bin/python3\nimport sys\nfrom {module} import main\nsys.exit(main())\n"
        script.write_text(text, encoding="ascii")
        script.chmod(0o755)
        (pathlib.Path("/usr/local/bin") / command).symlink_to(script)
    for name in NAMES:
        shutil.copy(PROJECT / "systemd" / name, UNITS)
    pathlib.Path("/etc/sysusers.d").mkdir(exist_ok=True)
    shutil.copy(PROJECT / "systemd" / "fullsend.sysusers", "/etc/sysusers.d/fullsend.conf")
    run("systemd-sysusers")
    os.umask(0o077)  # as hardened hosts have it for root
    run("fullsendd", "init", "--user", "fullsend", "--store", str(STORE), "--advertise", f"127.0.0.1:{PORT}")
    os.umask(0o022)
    run("systemctl", "daemon-reload")


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    install()


@functools.cache
def pair() -> None:
    run("fullsend", "join", out("fullsendd", "invite", "alpha").strip())


@pytest.fixture
def serving() -> Iterator[None]:
    """The daemon by itself, as fullsendd.service starts it; stopped afterwards, and it ended well."""
    run("systemctl", "start", "fullsendd.service")
    pair()
    yield
    run("systemctl", "stop", "fullsendd.service")
    assert shown("fullsendd.service", "Result") == "success", journal()
    assert "Traceback" not in journal()


def test_systemd_takes_the_units_as_they_are() -> None:
    done = run("systemd-analyze", "verify", "--man=no", *(str(UNITS / name) for name in NAMES))
    assert done.stderr.decode() == ""
    assert shown("fullsendd.service", "NeedDaemonReload") == "no"
    assert str(UNITS / "fullsendd.service.d" / "store.conf") in shown("fullsendd.service", "DropInPaths")


def test_the_daemon_is_exposed_to_little() -> None:
    said = out("systemd-analyze", "security", "--no-pager", "--offline=true", "fullsendd.service")
    found = re.search(r"Overall exposure level for fullsendd.service: ([0-9.]+)", said)
    assert found is not None
    print(found[0])
    assert float(found[1]) <= EXPOSURE_MAX, said


def test_a_push_arrives_at_the_daemon_under_its_restrictions(serving: None) -> None:
    user = pwd.getpwnam("fullsend")
    status = dict(
        line.split(":\t", 1)
        for line in pathlib.Path(f"/proc/{main_pid()}/status").read_text(encoding="utf-8").splitlines()
        if ":\t" in line
    )
    assert shown("fullsendd.service", "ActiveState") == "active"
    assert status["Uid"].split() == [str(user.pw_uid)] * 4
    assert status["Gid"].split() == [str(user.pw_gid)] * 4
    assert status["Groups"].split() in ([], [str(user.pw_gid)])
    assert {int(status[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")

    pushed = push("long")
    assert pushed["sha256"] == STREAMS["long"]["sha256"]
    [listed] = rows(out("fullsend", "list", "--json"))
    assert listed["restorable"]
    file = STORE / listed["file"]
    assert file.stat().st_uid == user.pw_uid
    assert run("fullsend", "cat", "tank/long@s1").stdout == stream("long")
    run("fullsend", "verify")
    run("fullsend", "check")
    # Its sandbox hides /proc/sys, where commands read which boot this is.
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip().replace("-", "")
    noted = STORE / ".state" / "clock.json"
    wait_for("the note of the clock", noted.exists)
    assert json.loads(noted.read_bytes())["boot_id"] == boot
    # Commands ask the daemon, across its mounts and its user namespace: what cannot be asked is named on stderr.
    assert (STORE / ".state" / "socket").is_socket()
    beside = run("fullsendd", "list", "--json")
    assert (rows(beside.stdout.decode())[0]["file"], beside.stderr) == (listed["file"], b"")

    pid = main_pid()
    run("systemctl", "restart", "fullsendd.service")
    assert main_pid() != pid
    assert rows(out("fullsend", "list", "--json"))[0]["file"] == listed["file"]
    push("full")


def test_reload_reads_the_configuration_again(serving: None) -> None:
    configuration = pathlib.Path("/etc/fullsend/receiver.toml")
    before = configuration.read_text(encoding="utf-8")
    pid = main_pid()
    try:
        configuration.write_text(f'quota = "5T"\n{before}', encoding="utf-8")
        run("systemctl", "reload", "fullsendd.service")
        wait_for("the quota", lambda: "receiver.toml is read again: new values of quota" in journal())
        configuration.write_text(f"quota = \n{before}", encoding="utf-8")
        run("systemctl", "reload", "fullsendd.service")
        wait_for("the error", lambda: "stay as they were: " in shown("fullsendd.service", "StatusText"))
    finally:
        configuration.write_text(before, encoding="utf-8")
    run("systemctl", "reload", "fullsendd.service")
    wait_for("no error", lambda: "stay as they were" not in shown("fullsendd.service", "StatusText"))
    assert (shown("fullsendd.service", "ActiveState"), main_pid()) == ("active", pid)


def test_what_it_cannot_reach(serving: None) -> None:
    """From inside its mounts, as its user: the store can be written to, and nothing else of what others have."""
    inside = ["nsenter", "--mount", f"--target={main_pid()}", "sh", "-c"]

    def writes(folder: str) -> bool:
        probe = f'touch "$0/probe" && rm "$0/probe"'  # noqa: F541 - $0 is the shell's
        return run(*inside, probe, folder, check=False).returncode == 0

    # As root, whom no mode stops: what stops it is how the file systems are mounted.
    assert writes(str(STORE))
    assert not any(writes(folder) for folder in ("/", "/etc/fullsend", "/srv", str(STORE.parent), "/var/lib", "/opt"))
    pathlib.Path("/root/secret").write_text("of root", encoding="ascii")
    assert run(*inside, "cat /root/secret", check=False).returncode
    assert run(*inside, "ls /dev/zfs", check=False).returncode


def test_a_daemon_that_hangs_is_started_anew() -> None:
    drop_in("fullsendd.service", "quick", "[Service]\nWatchdogSec=4\nTimeoutAbortSec=2\nRestartSec=1\n")
    try:
        run("systemctl", "start", "fullsendd.service")
        pid, fed = main_pid(), shown("fullsendd.service", "WatchdogTimestampMonotonic")
        wait_for("a sign of life", lambda: shown("fullsendd.service", "WatchdogTimestampMonotonic") != fed)
        assert shown("fullsendd.service", "NRestarts") == "0"
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 19)  # SIGSTOP
        wait_for("a restart", lambda: shown("fullsendd.service", "NRestarts") == "1")
        wait_for("it being back", lambda: shown("fullsendd.service", "ActiveState") == "active")
        assert main_pid() not in {0, pid}
        assert rows(out("fullsend", "list", "--json"))
    finally:
        (UNITS / "fullsendd.service.d" / "quick.conf").unlink()
        run("systemctl", "daemon-reload")
        run("systemctl", "stop", "fullsendd.service")
        run("systemctl", "reset-failed", check=False)


def test_a_connection_starts_it_where_systemd_has_the_port() -> None:
    run("systemctl", "start", "fullsendd.socket")
    try:
        assert shown("fullsendd.service", "ActiveState") == "inactive"
        # Here the daemon takes longer to start than a sender waits for an answer; elsewhere this one gets it.
        run("fullsend", "check", check=False)
        wait_for("its start", lambda: shown("fullsendd.service", "ActiveState") == "active")
        assert rows(out("fullsend", "list", "--json"))
        assert f"listening on [::]:{PORT}" in shown("fullsendd.service", "StatusText")
        push("incr")
        run("systemctl", "restart", "fullsendd.service")
        run("fullsend", "check")
    finally:
        run("systemctl", "stop", "fullsendd.socket", "fullsendd.service")


def test_without_a_configuration_neither_is_started_and_neither_fails() -> None:
    folder = pathlib.Path("/etc/fullsend")
    hidden = folder.rename("/etc/fullsend.hidden")
    try:
        for unit in ("fullsendd.service", "fullsend-push.service"):
            run("systemctl", "start", unit)
            assert shown(unit, "ActiveState") == "inactive"
            assert shown(unit, "ConditionResult") == "no"
    finally:
        hidden.rename(folder)


def test_the_sender_has_what_it_needs_and_no_more(serving: None, pool: pools.Pool) -> None:
    script = pathlib.Path("/usr/local/bin/look-around")
    script.write_text(
        """#!/bin/sh
set -eux
fullsend check
touch /run/fullsend/lock
if touch /etc/fullsend/probe || head -c 1 /dev/mem; then exit 1; fi
""",
        encoding="utf-8",
    )
    script.chmod(0o755)
    drop_in("fullsend-push.service", "test", "[Service]\nExecStart=\nExecStart=look-around\n")
    try:
        run("systemctl", "start", "fullsend-push.service")
        assert shown("fullsend-push.service", "Result") == "success"
        assert pathlib.Path("/run/fullsend/lock").exists()  # for the next run
    finally:
        (UNITS / "fullsend-push.service.d" / "test.conf").unlink()
        run("systemctl", "daemon-reload")


def test_the_nightly_push_pushes_what_is_configured(serving: None, pool: pools.Pool) -> None:
    """The units as they are, and `fullsend push` as it is."""
    source = pool.create("nightly")
    pools.fill(pool.path(source))
    configuration = pathlib.Path("/etc/fullsend/sender.toml")
    before = configuration.read_text(encoding="utf-8")
    configuration.write_text(f'{before}\n[[push]]\ndatasets = ["{source}"]\n', encoding="utf-8")

    def night() -> list[str]:
        run("systemctl", "start", "fullsend-push.service")
        assert shown("fullsend-push.service", "Result") == "success"
        listed = rows(out("fullsend", "list", source, "--json"))
        assert all(entry["restorable"] for entry in listed)
        return [entry["kind"] for entry in listed]

    try:
        assert night() == ["full"]
        assert night() == ["full"]  # nothing had changed
        pools.change(pool.path(source))
        assert night() == ["full", "incremental"]
    finally:
        configuration.write_text(before, encoding="utf-8")


def test_the_weekly_drill_mounts_and_compares(serving: None, pool: pools.Pool) -> None:
    """The unit as it is: what it is not allowed to do it would say instead of comparing files."""
    source = pool.create("weekly")
    place = pool.create("drill", "-o", "canmount=off", "-o", "mountpoint=none")
    pools.fill(pool.path(source), size=50_000)
    run("fullsend", "push", source)
    configuration = pathlib.Path("/etc/fullsend/sender.toml")
    before = configuration.read_text(encoding="utf-8")
    # Other tests have pushed from elsewhere, and not all of that can be restored.
    drop_in("fullsend-drill.service", "test", f"[Service]\nExecStart=\nExecStart=fullsend drill -v {source}\n")
    configuration.write_text(f'drill-into = "{place}"\n{before}', encoding="utf-8")
    try:
        run("systemctl", "start", "fullsend-drill.service", check=False)
        assert shown("fullsend-drill.service", "Result") == "success", journal()
        assert "files and folders are the same as in" in journal()
        assert {name for name in pool.names("filesystem") if name.startswith(place)} == {place}
        assert shown("fullsend-drill.service", "Type") == "oneshot"
    finally:
        configuration.write_text(before, encoding="utf-8")
        (UNITS / "fullsend-drill.service.d" / "test.conf").unlink()
        run("systemctl", "daemon-reload")


def test_a_failed_push_is_a_failed_unit() -> None:
    drop_in("fullsend-push.service", "test", "[Service]\nExecStart=\nExecStart=fullsend list\n")
    try:
        assert run("systemctl", "start", "fullsend-push.service", check=False).returncode
        assert shown("fullsend-push.service", "Result") == "exit-code"
        assert shown("fullsend-push.service", "ExecMainStatus") == "75"
    finally:
        (UNITS / "fullsend-push.service.d" / "test.conf").unlink()
        run("systemctl", "daemon-reload")
        run("systemctl", "reset-failed")


def test_a_hook_hears_what_arrives(serving: None, pool: pools.Pool) -> None:
    """Outside the daemon's sandbox: it writes where the daemon could not."""
    source = pool.create("heard")
    pools.fill(pool.path(source))
    configuration, heard = pathlib.Path("/etc/fullsend/receiver.toml"), pathlib.Path("/var/tmp/fullsend-heard")
    before = configuration.read_text(encoding="utf-8")
    hook = json.dumps(["sh", "-c", f"cat >>{heard}"])
    configuration.write_text(f"{before}\n[hooks]\non-success = {hook}\n", encoding="utf-8")
    try:
        run("systemctl", "start", "fullsendd-hooks.service")
        wait_for("its place in the journal", (STORE / ".state" / "hooks.on-success.json").exists)
        run("fullsend", "push", source)
        wait_for("the hook", lambda: heard.exists() and heard.read_text(encoding="utf-8").endswith("\n"))
        [event] = rows(heard.read_text(encoding="utf-8"))
        assert (event["event"], event["sender"], event["dataset"]) == ("received", "alpha", source)
        run("systemctl", "stop", "fullsendd-hooks.service")
        assert shown("fullsendd-hooks.service", "Result") == "success", journal()
    finally:
        configuration.write_text(before, encoding="utf-8")


def test_each_failed_push_is_told_once(pool: pools.Pool) -> None:
    """By itself where it can, else by the unit that systemd starts. No daemon runs here."""
    source = pool.create("alone")
    configuration, told = pathlib.Path("/etc/fullsend/sender.toml"), pathlib.Path("/run/fullsend/told")
    before = configuration.read_text(encoding="utf-8")
    hook = json.dumps(["sh", "-c", f"cat >>{told}"])
    tables = f'[[push]]\ndatasets = ["{source}"]\n[hooks]\non-failure = {hook}\n'
    configuration.write_text(f"{before}\n{tables}", encoding="utf-8")
    teller = "fullsend-failed@fullsend-push.service.service"

    def fail() -> list[dict[str, Any]]:
        since = shown(teller, "InactiveEnterTimestampMonotonic")
        assert run("systemctl", "start", "fullsend-push.service", check=False).returncode
        wait_for("the end of the unit for failures", lambda: shown(teller, "InactiveEnterTimestampMonotonic") != since)
        assert shown(teller, "Result") == "success", journal()
        return rows(told.read_text(encoding="utf-8"))

    try:
        [by_itself] = fail()
        assert by_itself["event"] == "push-failed"
        drop_in("fullsend-push.service", "test", "[Service]\nExecStart=\nExecStart=sh -c 'kill -9 $$$$'\n")
        [_first, by_unit] = fail()
        assert by_unit["event"] == "unit-failed"
    finally:
        configuration.write_text(before, encoding="utf-8")
        (UNITS / "fullsend-push.service.d" / "test.conf").unlink(missing_ok=True)
        run("systemctl", "daemon-reload")
        run("systemctl", "reset-failed")


def test_the_timer_runs_the_push() -> None:
    run("systemctl", "start", "fullsend-push.timer")
    try:
        assert shown("fullsend-push.timer", "Unit") == "fullsend-push.service"
        assert shown("fullsend-push.timer", "NextElapseUSecRealtime")
        assert shown("fullsend-push.timer", "Persistent") == "yes"
    finally:
        run("systemctl", "stop", "fullsend-push.timer")
