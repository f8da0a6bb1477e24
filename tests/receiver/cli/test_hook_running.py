from __future__ import annotations

import contextlib
import errno
import json
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from tests.receiver.running import Receiver, serving

from fullsend_hooks.commands import never_stops
from fullsend_protocol.shared.errors import ErrorCode, PeerError
from fullsend_receiver.access.config import load
from fullsend_receiver.access.hook_settings import HookSettings
from fullsend_receiver.cli import asking, hook_running
from fullsend_receiver.cli.hook_running import HooksRunning, follow
from fullsend_receiver.events.records import StoreAway
from fullsend_receiver.monitor.outage import Outage
from fullsend_receiver.store.errors import StoreError, StoreMissing
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
    assert hook_running._tell(event, 1.5, settings, never_stops)
    said = json.loads(file.read_text())
    assert (said["event"], said["id"], said["time"]) == ("store-away", "direct-1", "1970-01-01T00:00:01Z")
    assert hook_running._tell(event, 1.5, HookSettings(), never_stops)  # no hook, no error


def test_a_hook_that_fails_then_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    event = StoreAway(text="the store is away", state="away", why="unmounted")
    assert not hook_running._tell(event, 1.5, HookSettings(on_failure=("false",)), never_stops)
    assert "on-failure: `false` has failed: exit code 1" in caplog.text


def test_a_bug_in_one_thread_ends_the_process_with_an_error(
    store: LocalStore, caplog: pytest.LogCaptureFixture
) -> None:
    def settings() -> HookSettings:
        raise ZeroDivisionError

    assert not follow(lambda: contextlib.nullcontext(store), settings, lambda: False)
    assert "a bug in fullsendd" in caplog.text


class Opening:
    """Opens a store after some errors, and closes it."""

    def __init__(self, store: LocalStore, *errors: Exception) -> None:
        self._store = store
        self._errors = list(errors)
        self.tries = 0
        self.opened = threading.Event()
        self.closed = False

    def __call__(self) -> AbstractContextManager[LocalStore]:
        return self._open()

    @contextlib.contextmanager
    def _open(self) -> Iterator[LocalStore]:
        self.tries += 1
        if self._errors:
            raise self._errors.pop(0)
        self.opened.set()
        yield self._store
        self.closed = True


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pauses, and without patience."""
    monkeypatch.setattr(hook_running, "EVERY", 0.01)
    monkeypatch.setattr(hook_running, "PATIENCE", 0.0)
    monkeypatch.setattr(Outage, "look_for_hang", lambda _outage: None)  # each disk would seem to hang


def test_a_store_that_is_away_at_the_start_is_told_and_waited_for(
    store: LocalStore, tmp_path: Path, hurried: None, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "said"
    settings = HookSettings(on_failure=("sh", "-c", f'cat >>"{file}"'))
    away = StoreMissing("/srv/store: no store here")
    opening = Opening(store, away, away, OSError(errno.EROFS, "Read-only file system"))

    def told_both() -> bool:
        return opening.opened.is_set() and file.read_text().count("\n") == 2

    assert follow(opening, lambda: settings, told_both)
    gone, back = (json.loads(line) for line in file.read_text().splitlines())
    assert (gone["event"], gone["why"]) == ("store-away", "/srv/store: no store here")
    assert back["event"] == "store-back"
    assert (opening.tries, opening.closed) == (4, True)
    assert caplog.text.count("the hooks wait for the store: /srv/store: no store here") == 1
    assert "the hooks wait for the store: the store's disk is mounted read-only" in caplog.text


def test_the_wait_for_a_store_can_be_stopped(store: LocalStore) -> None:
    opening = Opening(store, StoreMissing("away"))
    assert follow(opening, HookSettings, lambda: opening.tries == 1)
    assert not opening.opened.is_set()


def test_another_process_is_not_waited_for(store: LocalStore, hurried: None) -> None:
    opening = Opening(store, HooksRunning("another one runs"))
    with pytest.raises(HooksRunning):
        follow(opening, HookSettings, lambda: False)
    assert opening.tries == 1
