from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from tests.receiver.helpers import make_store
from tests.receiver.running import wait_until

from fullsend_hooks.commands import HookError, HookStopped
from fullsend_receiver.access.hook_settings import HookSettings
from fullsend_receiver.monitor.hook_follower import HookFollower
from fullsend_receiver.store.api import Document
from fullsend_receiver.store.event_journal import EventJournal, EventPlace
from fullsend_receiver.store.event_recorder import recording
from fullsend_receiver.store.local import LocalStore, open_store
from fullsend_receiver.store.marker import read_id

DOCUMENT: Final = "hooks.on-late.json"


def late(number: int) -> bytes:
    said = {"version": 1, "event": "alarm-raised", "code": "late", "text": f"late {number}", "number": number}
    return json.dumps(said).encode() + b"\n"


def other() -> bytes:
    return b'{"version": 1, "event": "received", "text": "x"}\n'


@dataclass
class Hook:
    """A hook that notes what it is run for. `fails`: whether it fails for an event, by its number."""

    seen: list[Mapping[str, Any]] = field(default_factory=list)
    fails: Callable[[int], bool] = lambda _number: False
    then: Callable[[], None] = lambda: None

    def __call__(self, command: tuple[str, ...], facts: Mapping[str, object], **_options: object) -> None:
        self.seen.append(facts)
        self.then()
        if self.fails(int(str(facts["number"]))):
            raise HookError("exit code 1")

    @property
    def numbers(self) -> list[int]:
        return [each["number"] for each in self.seen]


@dataclass
class Following:
    """A follower of `on-late`. `again` makes a new one, as a new process does."""

    store: LocalStore
    hook: Hook = field(default_factory=Hook)
    settings: HookSettings = field(default_factory=lambda: HookSettings(on_late=("late",), retry_for=0))
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.again()

    def again(self) -> None:
        self.follower = HookFollower(
            "on-late", self.store, lambda: self.settings, self.stop, run=self.hook, pause=0.001
        )

    def steps(self) -> list[int]:
        """Take all events that wait. Returns: for which the hook has been run so far."""
        while self.follower.step():
            pass
        return self.hook.numbers


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """An empty store that knows its id."""
    root = make_store(tmp_path).root
    return open_store(root, read_id(root))


@pytest.fixture
def following(store: LocalStore) -> Following:
    found = Following(store)
    assert found.steps() == []
    return found


def test_the_hook_is_run_for_its_events_in_order(following: Following) -> None:
    following.store.events.append([late(0), other(), late(1)])
    assert following.steps() == [0, 1]
    assert following.steps() == [0, 1]
    first = following.hook.seen[0]
    assert (first["hook"], first["event"], first["text"]) == ("on-late", "alarm-raised", "late 0")
    assert first["id"] != following.hook.seen[1]["id"]
    assert first["host"]


def test_a_new_hook_begins_at_the_end_of_the_journal(store: LocalStore) -> None:
    store.events.append([late(0)])
    following = Following(store)
    assert following.steps() == []
    following.again()
    store.events.append([late(1)])
    following.again()  # its first place is durable
    assert following.steps() == [1]


def test_a_new_process_repeats_nothing_that_is_recorded(following: Following) -> None:
    following.store.events.append([late(0), late(1)])
    following.steps()
    following.again()
    following.store.events.append([late(2)])
    assert following.steps() == [0, 1, 2]


def test_a_hook_that_is_taken_out_and_put_back_begins_at_the_end(following: Following) -> None:
    present = following.settings
    following.settings = HookSettings()
    following.store.events.append([late(0)])
    following.steps()
    following.settings = present
    following.steps()
    following.store.events.append([late(1)])
    assert following.steps() == [1]


def test_a_hook_is_run_again_until_it_succeeds(following: Following) -> None:
    following.settings = HookSettings(on_late=("late",), retry_for=1e6)
    following.hook.fails = lambda _number: len(following.hook.seen) < 4
    following.store.events.append([late(0), late(1)])
    assert following.steps() == [0, 0, 0, 0, 1]


def test_an_event_that_always_fails_is_given_up_and_said_so(
    following: Following, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    following.hook.fails = lambda number: number == 0
    following.store.events.append([late(0), late(1)])
    with recording(following.store):
        assert following.steps() == [0, 1]
    assert "on-late: given up after 1 try: exit code 1; it was for: late 0" in caplog.text
    assert "on-late: succeeds again" in caplog.text
    events = [said for _place, said in following.store.events.read(EventPlace(0, 0)).events]
    said = [each for each in events if each["event"] == "hook-failed"]
    assert [(each["failed_hook"], each["tries"]) for each in said] == [("on-late", 1)]
    assert said[0]["of"] == following.hook.seen[0]["id"]
    following.again()
    assert following.steps() == [0, 1]


def test_while_a_hook_fails_for_all_each_event_has_one_try(following: Following) -> None:
    clock = iter(range(1000))
    following.hook.fails = lambda _number: True
    following.store.events.append([late(0)])
    following.steps()
    assert following.follower._failing
    following.settings = HookSettings(on_late=("late",), retry_for=1e9)
    following.store.events.append([late(1), late(2)])
    assert following.steps() == [0, 1, 2]
    following.hook.fails = lambda number: number == 4 and next(clock) < 2  # it works again: tries are as before
    following.store.events.append([late(3), late(4)])
    assert following.steps() == [0, 1, 2, 3, 4, 4, 4]


def test_a_command_that_a_person_corrects_is_used_at_the_next_try(following: Following) -> None:
    following.settings = HookSettings(on_late=("late",), retry_for=1e9)
    seen: list[object] = []

    def run(command: tuple[str, ...], facts: Mapping[str, object], **_options: object) -> None:
        seen.append(command)
        if command == ("late",):
            following.settings = HookSettings(on_late=("right",), retry_for=1e9)
            raise HookError("no such command")

    following.store.events.append([late(0)])
    HookFollower("on-late", following.store, lambda: following.settings, following.stop, run=run, pause=0.001).step()
    assert seen == [("late",), ("right",)]


def test_a_stop_between_two_tries_leaves_the_event_for_the_next_process(following: Following) -> None:
    following.settings = HookSettings(on_late=("late",), retry_for=1e9)
    following.hook.fails = lambda _number: True
    following.hook.then = following.stop.set
    following.store.events.append([late(0)])
    assert not following.follower.step()
    following.stop.clear()
    following.hook.fails, following.hook.then = lambda _number: False, lambda: None
    following.again()
    assert following.steps() == [0, 0]


def test_a_hook_that_is_stopped_is_run_again(following: Following) -> None:
    def stopped() -> None:
        raise HookStopped("the program stops")

    following.hook.then = stopped
    following.store.events.append([late(0)])
    assert not following.follower.step()
    following.hook.then = lambda: None
    following.again()
    assert following.steps() == [0, 0]


def test_events_that_were_deleted_unread_are_said_to_be_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    following = Following(Small(make_store(tmp_path)))  # type: ignore[arg-type]
    following.steps()
    following.store.events.append([late(0)])
    following.steps()
    for number in range(1, 100):
        following.store.events.append([late(number)])
    assert following.steps()[-1] == 99
    assert "on-late: events are lost" in caplog.text


def test_rotation_is_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    following = Following(Small(make_store(tmp_path)))  # type: ignore[arg-type]
    following.steps()
    for number in range(50):
        following.store.events.append([late(number), other()])
        following.steps()
        if number % 7 == 0:
            following.again()
    assert following.hook.numbers == list(range(50))
    assert not caplog.text


class Small:
    """A store with small segments."""

    def __init__(self, store: LocalStore) -> None:
        self.events = EventJournal(store.event_folder, segment_max=500, kept=3)
        self.documents = store.documents
        self.check_mounted = store.check_mounted


class FullDocuments:
    """Documents on a disk that is full."""

    full = False

    def __init__(self, store: LocalStore) -> None:
        self._documents = store.documents

    def get(self, name: str) -> Document | None:
        return self._documents.get(name)

    def put(self, name: str, data: bytes, *, if_match: str | None) -> bool:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._documents.put(name, data, if_match=if_match)


def test_on_a_full_disk_hooks_are_run_and_a_later_process_repeats_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = Small(make_store(tmp_path))
    documents = FullDocuments(make_store(tmp_path, "other"))
    small.documents = documents  # type: ignore[assignment]
    following = Following(small)  # type: ignore[arg-type]
    following.steps()
    documents.full = True
    small.events.append([late(0), late(1)])
    assert following.steps() == [0, 1]
    assert following.steps() == [0, 1]
    assert caplog.text.count("its place in the event journal cannot be recorded") == 1
    following.again()
    assert following.steps() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    "said", ["{torn", '{"segment": 1, "offset": -1}', '{"segment": -1, "offset": 0}', '{"segment": 1e999, "offset": 0}']
)
def test_a_place_that_cannot_be_read_is_said_and_begins_at_the_end(
    following: Following, caplog: pytest.LogCaptureFixture, said: str
) -> None:
    following.store.events.append([late(0)])
    (following.store.state / DOCUMENT).write_text(said, encoding="ascii")
    following.again()
    assert following.steps() == []
    assert "its place is lost" in caplog.text


def test_a_store_that_is_away_is_said_once_and_followed_when_it_is_back(
    following: Following, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fullsend_receiver.monitor.hook_follower.LOOK_EVERY", 0.001)
    away = following.store.marker.rename(following.store.root / "away")
    thread = threading.Thread(target=following.follower.follow)
    thread.start()
    try:
        wait_until(lambda: "cannot read the event journal" in caplog.text, "it says so")
        away.rename(following.store.marker)
        following.store.events.append([late(0)])
        wait_until(lambda: following.hook.numbers == [0], "the hook is run")
    finally:
        following.stop.set()
        thread.join()
    assert caplog.text.count("cannot read the event journal") == 1


# --- a process that is killed -------------------------------------------------------------------------------------

_PROCESS: Final = """
import sys, threading
from pathlib import Path
from fullsend_receiver.access.hook_settings import HookSettings
from fullsend_receiver.monitor.hook_follower import HookFollower
from fullsend_receiver.store.local import open_store
store = open_store(Path(sys.argv[1]), sys.argv[2])
settings = HookSettings(on_late=tuple(sys.argv[3:]))
HookFollower("on-late", store, lambda: settings, threading.Event()).follow()
"""


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    found: list[subprocess.Popen[bytes]] = []
    yield found
    for process in found:
        process.kill()
        process.wait()


def test_kill_9_between_the_run_and_the_place_runs_the_hook_again(
    store: LocalStore, tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    done = tmp_path / "done"
    # The hook does its work, and kills the process that has started it before that can record anything.
    once = f'cat >>"{done}"; if [ ! -e "{done}.once" ]; then touch "{done}.once"; kill -9 $PPID; fi'

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", _PROCESS, str(store.root), store.store_id, "sh", "-c", once]
        processes.append(subprocess.Popen(command))
        return processes[-1]

    def numbers() -> list[int]:
        return [json.loads(line)["number"] for line in done.read_text().splitlines()] if done.exists() else []

    first = start()
    wait_until((store.state / DOCUMENT).exists, "its first place is recorded")
    store.events.append([late(0), late(1)])
    assert first.wait() == -signal.SIGKILL
    assert numbers() == [0]
    start()
    wait_until(lambda: len(numbers()) == 3, "all events are taken")
    assert numbers() == [0, 0, 1]
    os.kill(processes[-1].pid, 0)  # it still follows
