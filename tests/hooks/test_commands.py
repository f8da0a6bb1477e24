from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
from pathlib import Path

import pytest
from tests.receiver.running import wait_until

from fullsend_hooks import commands
from fullsend_hooks.commands import HookError, HookStopped, run_hook, variables

FACTS = {"version": 1, "event": "late", "hook": "on-late", "text": "tank/home is late", "sender": "alpha"}
LONG = 120.0


def hook(folder: Path, body: str) -> list[str]:
    """A hook in Python. Its first argument is a folder for what it leaves."""
    script = folder / "hook.py"
    script.write_text(f"import json, os, signal, subprocess, sys, time\nfrom pathlib import Path\n{body}")
    return [sys.executable, str(script), str(folder)]


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def test_a_hook_reads_the_facts_and_has_them_in_its_environment(tmp_path: Path) -> None:
    body = "Path(sys.argv[1], 'seen').write_text(json.dumps([json.load(sys.stdin), dict(os.environ)]))"
    odd = "a \"quoted\" 'name', \\ a new\nline, and ✓"
    run_hook(hook(tmp_path, body), FACTS | {"text": odd, "many": ["x"]}, time_limit=LONG)
    said, environment = json.loads((tmp_path / "seen").read_text())
    assert said == FACTS | {"text": odd, "many": ["x"]}
    assert environment["FULLSEND_EVENT"] == "late"
    assert environment["FULLSEND_EVENT_SENDER"] == "alpha"
    assert "\n" not in environment["FULLSEND_EVENT_TEXT"]
    assert "FULLSEND_EVENT_MANY" not in environment


def test_variables_take_what_the_environment_cannot_hold() -> None:
    found = variables({"event": "x", "text": "nul \x00, esc \x1b, half \udc80", "long": "y" * 200_000, "ok": True})
    assert found["FULLSEND_EVENT_TEXT"] == r"nul \x00, esc \x1b, half \udc80"
    assert len(found["FULLSEND_EVENT_LONG"]) < 5000
    assert found["FULLSEND_EVENT_OK"] == "1"


def test_a_hook_that_does_not_read_a_long_text_delays_nobody(tmp_path: Path) -> None:
    run_hook(["true"], FACTS | {"text": "x" * (1 << 20)}, time_limit=LONG)


def test_a_hook_that_fails_says_how(tmp_path: Path) -> None:
    with pytest.raises(HookError, match=r"has failed: exit code 3"):
        run_hook(["sh", "-c", "exit 3"], FACTS, time_limit=LONG)
    with pytest.raises(HookError, match=r"has failed: signal 9"):
        run_hook(["sh", "-c", "kill -9 $$"], FACTS, time_limit=LONG)
    with pytest.raises(HookError, match="cannot be started: No such file"):
        run_hook([str(tmp_path / "none")], FACTS, time_limit=LONG)
    with pytest.raises(HookError, match="cannot be started: embedded null byte"):
        run_hook(["a\0b"], FACTS, time_limit=LONG)


@pytest.mark.slow
def test_a_hook_that_hangs_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    body = (
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '1000'])\n"
        "Path(sys.argv[1], 'pids').write_text(f'{os.getpid()} {child.pid}')\n"
        "time.sleep(1000)\n"
    )
    with pytest.raises(HookError, match=r"has run for 2 s and was killed \(time-limit\)"):
        run_hook(hook(tmp_path, body), FACTS, time_limit=2)
    for pid in map(int, (tmp_path / "pids").read_text().split()):
        wait_until(lambda pid=pid: gone(pid), f"{pid} is gone")  # type: ignore[misc]


def test_a_hook_that_may_not_be_killed_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sudo` as a hook belongs to root."""
    kill, groups = os.killpg, []

    def refuse(group: int, _signal: int) -> None:
        groups.append(group)
        raise PermissionError

    monkeypatch.setattr(os, "killpg", refuse)
    monkeypatch.setattr(commands, "_GRACE", 0.1)
    try:
        with pytest.raises(HookError, match=r"has run for 0\.1 s and cannot be killed"):
            run_hook(hook(tmp_path, f"time.sleep({LONG})"), FACTS, time_limit=0.1)
    finally:
        kill(groups[0], signal.SIGKILL)
    (reaper,) = [each for each in threading.enumerate() if each.name == "reap"]
    reaper.join()
    assert not Path(f"/proc/{groups[0]}").exists()


def test_a_child_that_keeps_stdout_open_is_not_waited_for(tmp_path: Path) -> None:
    """It stays: it may be what delivers a mail."""
    body = (
        "child = subprocess.Popen(['sleep', '1000'])\n"  # with this stdout and stderr
        "Path(sys.argv[1], 'pid').write_text(str(child.pid))\n"
    )
    run_hook(hook(tmp_path, body), FACTS, time_limit=LONG)
    pid = int((tmp_path / "pid").read_text())
    assert not gone(pid)
    os.kill(pid, signal.SIGKILL)


def test_a_hook_ends_when_the_program_stops(tmp_path: Path) -> None:
    stop = threading.Event()
    body = "Path(sys.argv[1], 'begun').touch()\ntime.sleep(1000)"

    def end() -> None:
        wait_until((tmp_path / "begun").exists, "it has begun")
        stop.set()

    thread = threading.Thread(target=end)
    thread.start()
    with pytest.raises(HookStopped):
        run_hook(hook(tmp_path, body), FACTS, time_limit=LONG, stopping=stop.is_set)
    thread.join()


def test_what_a_hook_prints_is_no_result(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run_hook(["echo", "hello"], FACTS, time_limit=LONG)
    assert capfd.readouterr() == ("", "hello\n")


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    gc.collect()  # other tests leave clients in cycles, which are closed whenever the collector runs
    before = len(os.listdir("/proc/self/fd"))
    run_hook(["true"], FACTS, time_limit=LONG)
    with pytest.raises(HookError):
        run_hook(["false"], FACTS, time_limit=LONG)
    assert len(os.listdir("/proc/self/fd")) == before
