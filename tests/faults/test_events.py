"""What happens in a store is in its event journal: of the daemon, of commands, and where its disk is full."""

from __future__ import annotations

import contextlib
import errno
import json
import signal
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from tests import streams
from tests.receiver.command import damage
from tests.receiver.faulty import FaultyDisk
from tests.receiver.peer import chunks, control, finish, offer
from tests.receiver.running import Receiver, serving, wait_until

from fullsend_receiver.store.event_journal import EventJournal, EventPlace

RAW = streams.substream()


def events(receiver: Receiver) -> list[dict[str, Any]]:
    """All events so far."""
    found: list[dict[str, Any]] = []
    journal, place = EventJournal(receiver.store / ".state" / "events"), EventPlace(0, 0)
    while (read := journal.read(place)).end != place:
        found += [said for _place, said in read.events]
        place = read.end
    return found


def wait_event(receiver: Receiver, name: str) -> None:
    wait_until(lambda: name in [each["event"] for each in events(receiver)], f"the event {name}")


def names(found: list[dict[str, Any]]) -> list[str]:
    """The names of events; without alarms, which come at their own times."""
    return [each["event"] for each in found if not each["event"].startswith("alarm-")]


def test_a_stores_life_is_in_its_journal_in_order(tmp_path: Path) -> None:
    with serving(tmp_path / "receiver", "alpha") as receiver:
        with receiver.peer() as peer:
            receipt = peer.give(RAW)
            peer.say("unchanged", datasets=[{"dataset": "tank/data", "snapshot": "x", "guid": receipt["guid"]}])
            peer.hear("noted")
            peer.say("unchanged", datasets=[{"dataset": "tank/data", "snapshot": "x", "guid": "5"}])  # is not stored
            peer.hear("noted")
        with receiver.peer() as peer:
            peer.push(offer(snapshot="other"))
            for chunk in chunks([RAW]):
                peer.write(chunk.encode())
            peer.write(control(finish(RAW)))
            peer.refusal()
        wait_event(receiver, "push-failed")
        file = PurePosixPath(receipt["file"])
        damage(receiver, file, 100)
        assert receiver.fullsendd("verify").returncode == 1
        damage(receiver, file, 100)
        assert receiver.fullsendd("verify").returncode == 0
        assert receiver.fullsendd("revoke", "alpha").returncode == 0
        receiver.send_signal(signal.SIGHUP)
        wait_event(receiver, "settings-read")
    found = events(receiver)
    assert names(found) == [
        *("started", "sender-joined", "received", "unchanged", "push-failed"),
        *("damaged", "verify-finished", "whole-again", "verify-finished", "sender-revoked", "settings-read", "stopped"),
    ]
    by_name = {each["event"]: each for each in found}
    assert by_name["received"]["file"] == str(file)
    assert by_name["received"]["raw_bytes"] == len(RAW)
    assert by_name["push-failed"]["code"] == "stream"
    assert (by_name["damaged"]["dataset"], by_name["damaged"]["level"]) == ("tank/data", "error")
    assert by_name["verify-finished"]["damaged"] == 0


def test_the_json_log_has_the_same_fields_and_the_text_log_the_text(tmp_path: Path) -> None:
    with serving(tmp_path / "receiver", "alpha", log_format="json") as receiver:
        with receiver.peer() as peer:
            peer.give(RAW)
        wait_event(receiver, "received")
        lines = [json.loads(line) for line in receiver.log.splitlines()]
        said = {each["event"]: each for each in lines if "event" in each}
        for event in events(receiver):
            if event["event"] in {"started", "sender-joined", "received"}:
                assert said[event["event"]] == {"message": event.pop("text"), **event}
        assert any("event" not in each for each in lines)


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[tuple[Receiver, FaultyDisk]]:
    receiver = Receiver(tmp_path / "receiver")
    receiver.init()
    disk = FaultyDisk(tmp_path / "faults")
    receiver.start(program=disk.program, env=disk.env)
    receiver.enrol("alpha")
    yield receiver, disk
    if receiver.process is not None:
        receiver.stop(signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["full", "stuck"])
def test_a_disk_that_takes_no_event_stops_no_push(faulty: tuple[Receiver, FaultyDisk], how: str) -> None:
    receiver, disk = faulty
    wait_event(receiver, "sender-joined")
    fault = disk.failing("write", ".jsonl", errno.ENOSPC) if how == "full" else disk.blocked("fdatasync", ".jsonl")
    with contextlib.ExitStack() as faults:
        faults.enter_context(fault)
        with receiver.peer() as peer:
            peer.give(RAW)
        with receiver.peer() as peer:  # the daemon answers
            peer.say("list", dataset=None)
            assert [each["snapshot"] for each in peer.hear("entries")["entries"]] == ["now"]
        if how == "full":
            receiver.wait_log("events cannot be written to the event journal, and wait")
            assert "received" not in names(events(receiver))
    wait_event(receiver, "received")
    assert receiver.stop() == 0
    assert names(events(receiver))[-2:] == ["received", "stopped"]
    receiver.check_log()
