from __future__ import annotations

import json
from pathlib import Path

import pytest

from fullsend_protocol.shared.errors import UsageError
from fullsend_protocol.shared.settings import parse_settings
from fullsend_sender.host.config import RunHooks, SenderSettings
from fullsend_sender.host.hooks import leave_mark, run_own_hook, take_mark

FACTS = {"event": "push-failed", "level": "error", "text": "why", "results": []}


def test_a_hook_is_run_with_the_facts(tmp_path: Path) -> None:
    file = tmp_path / "said"
    hooks = RunHooks(on_failure=("sh", "-c", f'cat >"{file}"'))
    assert run_own_hook(hooks, "on-failure", FACTS)
    said = json.loads(file.read_text())
    assert said.keys() == {"version", "time", "program", *FACTS, "id", "hook", "host"}
    assert (said["version"], said["hook"], said["text"]) == (1, "on-failure", "why")
    assert said["program"].startswith("fullsend ")


def test_without_a_hook_nothing_is_run() -> None:
    assert not run_own_hook(RunHooks(on_success=("true",)), "on-failure", FACTS)


def test_a_hook_that_fails_or_hangs_is_said_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    assert not run_own_hook(RunHooks(on_failure=("false",)), "on-failure", FACTS)
    assert not run_own_hook(RunHooks(on_success=("sleep", "1000"), time_limit=0.1), "on-success", FACTS)
    failed, hung = caplog.messages
    assert failed == "on-failure: `false` has failed: exit code 1; this does not change the exit code"
    assert "on-success: `sleep 1000` has run for 0.1 s and was killed" in hung


def test_the_mark_of_a_run_is_taken_once_by_the_unit_for_its_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("INVOCATION_ID", "ab12")
    leave_mark()
    monkeypatch.setenv("INVOCATION_ID", "cd34")  # that of the other unit
    monkeypatch.setenv("MONITOR_INVOCATION_ID", "ef56")
    assert not take_mark()
    monkeypatch.setenv("MONITOR_INVOCATION_ID", "ab12")
    assert take_mark()
    assert not take_mark()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("variable", ["RUNTIME_DIRECTORY", "INVOCATION_ID"])
def test_outside_of_systemd_there_is_no_mark(variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("INVOCATION_ID", "../x")
    leave_mark()
    monkeypatch.setenv("INVOCATION_ID", "ab12")
    monkeypatch.delenv(variable)
    leave_mark()
    monkeypatch.delenv("MONITOR_INVOCATION_ID", raising=False)
    assert not take_mark()
    assert list(tmp_path.iterdir()) == []


def test_the_table_of_the_configuration() -> None:
    text = '[hooks]\non-success = "notify \'a b\'"\non-failure = ["x"]\ntime-limit = "5m"\n'
    hooks = parse_settings(SenderSettings, text, "sender.toml").hooks
    assert hooks == RunHooks(on_success=("notify", "a b"), on_failure=("x",), time_limit=300)
    with pytest.raises(UsageError, match=r"unknown key 'hooks.on-late'"):
        parse_settings(SenderSettings, '[hooks]\non-late = "x"\n', "sender.toml")
