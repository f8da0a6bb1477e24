from __future__ import annotations

import json
import signal
import socket
import threading
from pathlib import Path

import pytest
from tests.receiver.running import Receiver, serving

from fullsend_protocol.shared.errors import ErrorCode, PeerError
from fullsend_receiver.access.config import load
from fullsend_receiver.access.hook_settings import HookSettings
from fullsend_receiver.cli import asking, hook_running
from fullsend_receiver.cli.hook_running import follow
from fullsend_receiver.events.records import StoreAway
from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store.local import LocalStore, open_store


def store_of(receiver: Receiver) -> LocalStore:
    settings = load(receiver.config)
    assert isinstance(settings.store, Path)
    return open_store(settings.store, settings.store_id)


def test_a_daemon_that_runs_answers_and_one_that_was_killed_does_not(tmp_path: Path) -> None:
    with serving(tmp_path / "receiver") as receiver:
        store = store_of(receiver)
        assert hook_running._answers(store)
        receiver.stop(signal.SIGKILL)
        assert not hook_running._answers(store)


@pytest.mark.parametrize(
    ("what", "error", "lives"),
    [
        ("ask", PeerError(ErrorCode.STORE, "its disk fails"), True),
        ("connect", StoreError("uid 7 is at the other end of the store's socket"), False),
    ],
)
def test_whatever_the_daemon_says_the_hooks_run_on(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, what: str, error: Exception, *, lives: bool
) -> None:
    def fail(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr(asking, "connect", lambda _store: socket.socket())
    monkeypatch.setattr(asking, what, fail)
    assert hook_running._answers(store) is lives


def test_what_the_journal_cannot_have_reaches_the_hook(tmp_path: Path) -> None:
    file = tmp_path / "said"
    settings = HookSettings(on_failure=("sh", "-c", f'cat >"{file}"'))
    event = StoreAway(text="the store is away", state="away", why="unmounted")
    assert hook_running._tell(event, 1.5, settings, threading.Event())
    said = json.loads(file.read_text())
    assert (said["event"], said["id"], said["time"]) == ("store-away", "direct-1", "1970-01-01T00:00:01Z")
    assert hook_running._tell(event, 1.5, HookSettings(), threading.Event())  # no hook, no error


def test_a_hook_that_fails_then_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    event = StoreAway(text="the store is away", state="away", why="unmounted")
    assert not hook_running._tell(event, 1.5, HookSettings(on_failure=("false",)), threading.Event())
    assert "on-failure: `false` has failed: exit code 1" in caplog.text


def test_a_bug_in_one_thread_ends_the_process_with_an_error(
    store: LocalStore, caplog: pytest.LogCaptureFixture
) -> None:
    def settings() -> HookSettings:
        raise ZeroDivisionError

    assert not follow(store, settings, lambda: False)
    assert "a bug in fullsendd" in caplog.text
