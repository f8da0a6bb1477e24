"""`fullsendd status`: what it prints of an answer, real daemons, and each exit code."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from tests.clocked import Clock
from tests.receiver.command import damage
from tests.receiver.helpers import SENDER, long_stream, manifest_path, store_stream
from tests.receiver.running import Receiver, wait_until

from fullsend_protocol.shared.exit_codes import Exit, NagiosState
from fullsend_protocol.shared.units import format_size, format_time
from fullsend_protocol.wire.local import DueStreams, ScrubProgress
from fullsend_protocol.wire.messages import BeingRead
from fullsend_receiver.cli import asking
from fullsend_receiver.cli.status import lines
from fullsend_receiver.store.api import DiskSpace
from fullsend_receiver.store.local import LocalStore

READS = "reads alpha/tank/@now.zst: 1.0 MiB of 3.0 MiB"
BUSY = "arriving streams need the disk, so it waits"
READING = BeingRead(file="alpha/tank/@now.zst", read_bytes=1 << 20, stored_bytes=3 << 20)
DUE = DueStreams(streams=5, stored_bytes=9 << 20, due_streams=2, due_bytes=4 << 20, next_due=None)


def progress(**said: Any) -> ScrubProgress:
    given: dict[str, Any] = {
        "program": "fullsendd 9",
        "now": "2026-11-24T00:00:00Z",
        "every": 30 * 86400,
        "limit": 0,
        "due": DUE,
        "reading": None,
        "asked_by": None,
        "rate": None,
        "stopped": False,
        "resumes": None,
        "busy": False,
    }
    return ScrubProgress(**given | said)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, ["scrub    left to check: 2 of 5 streams, 4.0 MiB"]),
        (
            {"reading": READING},
            [
                f"scrub    {READS}",
                "scrub    left to check: 2 of 5 streams, 4.0 MiB",
            ],
        ),
        (
            {"reading": READING, "rate": 1 << 20, "busy": True},
            [
                f"scrub    {READS}, 1.0 MiB a second, until about 2026-11-24T00:00:02Z; {BUSY}",
                "scrub    left to check: 2 of 5 streams, 4.0 MiB, until about 2026-11-24T00:00:04Z",
            ],
        ),
        (
            {"reading": READING, "asked_by": "alpha", "rate": 1},
            [
                "check    alpha waits for alpha/tank/@now.zst: 1.0 MiB of 3.0 MiB",
                "scrub    left to check: 2 of 5 streams, 4.0 MiB, until about 2027-01-11T13:05:04Z",
            ],
        ),
        (
            {"rate": 1 << 30, "limit": 1 << 20},
            ["scrub    left to check: 2 of 5 streams, 4.0 MiB, until about 2026-11-24T00:00:04Z"],
        ),
        ({"due": None}, ["scrub    what is due is not known yet: the daemon has just started"]),
        ({"every": 0}, ["scrub    is off (scrub-every = 0): only what arrived in several segments is read"]),
        (
            {"stopped": True},
            ["scrub    has stopped, because many streams are damaged: `fullsendd check` says more"],
        ),
        (
            {"resumes": "2026-11-24T00:01:00Z"},
            [
                "scrub    left to check: 2 of 5 streams, 4.0 MiB",
                "scrub    waits until 2026-11-24T00:01:00Z, because of a read error: `fullsendd check` says more",
            ],
        ),
        (
            {"due": DUE.model_copy(update={"due_streams": 0, "next_due": "2026-11-25T00:00:00Z"})},
            ["scrub    left to check: 0 of 5 streams; the next one is due at 2026-11-25T00:00:00Z"],
        ),
        ({"due": DUE.model_copy(update={"due_streams": 0})}, ["scrub    left to check: 0 of 5 streams"]),
    ],
)
def test_what_is_printed(said: dict[str, Any], expected: list[str]) -> None:
    assert list(lines(progress(**said))) == expected


def test_a_name_writes_nothing_to_the_terminal() -> None:
    (line, _left) = lines(progress(reading=READING.model_copy(update={"file": "a\x1b"})))
    assert r"a\x1b" in line


def store_old(store: LocalStore, snapshot: str, chunks: int) -> str:
    """Store a stream that was received long ago."""
    raw = long_stream(chunks, name=f"tank/data@{snapshot}", guid=int.from_bytes(snapshot.encode()))
    file = store_stream(store, SENDER, raw)
    path = manifest_path(store, file)
    at = format_time(time.time() - 40 * 86400)
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"received": at, "created": at}), encoding="utf-8")
    return str(file)


def test_a_running_check_is_shown_until_it_has_ended(receiver: Receiver) -> None:
    """At a byte a second the daemon has read one chunk, and waits."""
    file = store_old(LocalStore(receiver.store), "large", 4)
    text = receiver.config.read_text(encoding="utf-8").replace("scrub-every = 0", 'scrub-every = "30d"')
    receiver.config.write_text(text, encoding="utf-8")
    receiver.set(scrub_rate=1, expect_every="never")
    assert receiver.fullsendd("clock", "--accept").returncode == 0  # nothing has come for 40 days
    receiver.start()
    try:
        found: dict[str, Any] = {}

        def reads() -> bool:
            done = receiver.fullsendd("status", "--json")
            assert done.returncode == NagiosState.OK, done.stdout
            found.update(json.loads(done.stdout))
            return bool((found["scrub"]["reading"] or {}).get("read_bytes"))

        wait_until(reads, "a chunk that was read")
        scrub, size = found["scrub"], (receiver.store / file).stat().st_size
        assert (found["store"], scrub["every"], scrub["limit"]) == (str(receiver.store), 30 * 86400, 1)
        assert scrub["reading"] == {"file": file, "read_bytes": scrub["reading"]["read_bytes"], "stored_bytes": size}
        left = {"streams": 1, "stored_bytes": size, "due_streams": 1, "next_due": None}
        assert scrub["due"] == left | {"due_bytes": size - scrub["reading"]["read_bytes"]}
        assert 0 < scrub["reading"]["read_bytes"] < size
        done = receiver.fullsendd("status")
        *_rest, daemon, reading, left_line = done.stdout.splitlines()
        assert daemon == f"daemon   {found['daemon']} serves {receiver.store}"
        assert reading.startswith(f"scrub    reads {file}: {format_size(scrub['reading']['read_bytes'])} of ")
        assert left_line.startswith("scrub    left to check: 1 of 1 stream, ")
    finally:
        assert receiver.stop() == 0
    receiver.check_log()
    # The daemon has recorded its place when it stopped.
    done = receiver.fullsendd("status")
    assert done.returncode == NagiosState.CRITICAL
    *_rest, none, place = done.stdout.splitlines()
    assert none == f"daemon   no daemon runs that commands can ask (store {receiver.store})"
    assert place.startswith(f"scrub    {file}: {format_size(scrub['reading']['read_bytes'])} of ")


# --- states and exit codes


def status(receiver: Receiver, *arguments: str) -> tuple[int, list[str]]:
    """Return the exit code, and the lines."""
    done = receiver.fullsendd("status", *arguments)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def alarms(receiver: Receiver) -> list[tuple[str, str, str | None]]:
    """Return code, level and dataset of each alarm."""
    done = receiver.fullsendd("status", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == NagiosState[found["state"]]
    return [(each["code"], each["level"], each["dataset"]) for each in found["alarms"]]


@pytest.fixture
def served(filled: tuple[Receiver, PurePosixPath, PurePosixPath]) -> Iterator[Receiver]:
    """A receiver that serves a full and its increment."""
    receiver = filled[0]
    receiver.set(warn_at="100%")
    receiver.start()
    yield receiver
    if receiver.process is not None:
        assert receiver.stop() == 0
    receiver.check_log()


@pytest.fixture
def clock(tmp_path: Path) -> Iterator[Clock]:
    """The clock of the commands."""
    clock = Clock(tmp_path / "clock")
    clock.set(time.time())
    with clock.here():
        yield clock


def test_where_all_is_well_it_is_ok(served: Receiver) -> None:
    code, found = status(served)
    assert code == NagiosState.OK
    assert found[0].startswith("OK: 1 dataset of 1 sender, the oldest came 0:00:0")
    assert "alpha/tank/plain" in found[2]


def test_a_sender_that_stops_is_critical_where_a_person_says_when(served: Receiver, clock: Clock) -> None:
    clock.set(time.time() + 27 * 3600)
    assert status(served)[0] == NagiosState.OK  # two streams tell no rhythm
    code, found = status(served, "--max-age", "26h")
    assert code == NagiosState.CRITICAL
    assert found[0].startswith("CRITICAL: alpha/tank/plain: last came 1d 03:00:0")
    assert status(served, "--max-age", "28h")[0] == NagiosState.OK
    served.set(expect_every="26h")
    assert alarms(served) == [("late", "critical", "tank/plain")]
    with served.config.open("a", encoding="utf-8") as file:
        file.write('[expect."alpha/**"]\nevery = "never"\n')
    assert status(served)[0] == NagiosState.OK
    assert status(served, "--max-age", "26h")[0] == NagiosState.OK


def test_a_clock_that_jumps_is_critical_and_makes_nothing_late(served: Receiver, clock: Clock) -> None:
    served.set(expect_every="26h")
    served.wait_log("listening")
    wait_until((served.store / ".state/clock.json").exists, "the daemon's note of the clock")
    clock.set(time.time() + 365 * 86400)
    assert alarms(served) == [("clock", "critical", None)]
    clock.set(time.time() - 2 * 365 * 86400)
    assert set(alarms(served)) == {("clock", "critical", None), ("clock", "warning", "tank/plain")}


def test_the_clock_of_a_sender_that_is_ahead_warns(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath],
) -> None:
    receiver, _full, incr = filled
    path = manifest_path(LocalStore(receiver.store), incr)
    changed = json.loads(path.read_bytes()) | {"created": format_time(time.time() + 30 * 86400)}
    path.write_text(json.dumps(changed), encoding="utf-8")
    assert alarms(receiver) == [("clock", "warning", "tank/plain")]


def test_damage_is_critical(filled: tuple[Receiver, PurePosixPath, PurePosixPath]) -> None:
    receiver, _full, incr = filled
    damage(receiver, incr, -100)
    assert receiver.fullsendd("verify").returncode == Exit.FAILED
    receiver.start()
    try:
        code, found = status(receiver)
    finally:
        receiver.stop()
    assert code == NagiosState.CRITICAL
    assert found[0].startswith("CRITICAL: alpha/tank/plain: 1 stream damaged, 1 of 2 streams cannot be restored")


def test_a_disk_that_fills_warns_and_one_that_is_full_is_critical(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = filled[0]
    served.set(warn_days=14, warn_at="100%")
    size, used, day = 100 << 30, 50 << 30, date.today().toordinal()  # noqa: DTZ011 - local time
    days = [[day - back, used - back * (5 << 30), size] for back in range(9, 0, -1)]
    (served.store / ".state/sizes.json").write_text(json.dumps({"format": 1, "disk": days}), encoding="utf-8")
    monkeypatch.setattr(LocalStore, "space", lambda _store: DiskSpace(size - used, size))
    assert alarms(served) == [("low-space", "warning", None)]
    monkeypatch.setattr(LocalStore, "space", lambda _store: DiskSpace(0, size))
    assert alarms(served) == [("refusing", "critical", None)]


def test_without_a_daemon_nothing_can_be_received(filled: tuple[Receiver, PurePosixPath, PurePosixPath]) -> None:
    receiver = filled[0]
    code, found = status(receiver)
    assert code == NagiosState.CRITICAL
    assert found[0] == f"CRITICAL: no daemon runs that commands can ask (store {receiver.store})"
    assert "alpha/tank/plain" in found[2]
    done = receiver.fullsendd("status", "--json")
    said = json.loads(done.stdout)
    assert (done.returncode, said["state"], said["daemon"], said["scrub"]) == (2, "CRITICAL", None, None)


def test_a_daemon_that_does_not_answer_is_named(served: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "VERSION", 7)
    done = served.fullsendd("status")
    assert done.returncode == NagiosState.CRITICAL
    assert done.stdout.startswith("CRITICAL: the daemon does not answer: it is fullsendd")


def test_an_empty_store_is_unknown(receiver: Receiver) -> None:
    receiver.start()
    try:
        code, found = status(receiver)
    finally:
        receiver.stop()
    assert (code, found[0]) == (NagiosState.UNKNOWN, "UNKNOWN: nothing is stored")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["alpha/tank/none"], "alpha/tank/none: nothing of that name is stored (see `fullsendd list`)"),
        (["beta"], "beta: nothing of that name is stored"),
        (["--max-age", "soon"], "'soon' is not a duration"),
    ],
)
def test_what_cannot_be_answered_is_unknown(served: Receiver, arguments: list[str], says: str) -> None:
    code, found = status(served, *arguments)
    assert code == NagiosState.UNKNOWN
    assert found[0].startswith(f"UNKNOWN: {says}")
    done = served.fullsendd("status", "--json", *arguments)
    assert json.loads(done.stdout)["state"] == "UNKNOWN"


def test_a_store_that_is_away_is_unknown(receiver: Receiver) -> None:
    receiver.store.rename(receiver.folder / "away")
    code, found = status(receiver)
    assert code == NagiosState.UNKNOWN
    assert found[0].startswith(f"UNKNOWN: {receiver.store}: ")


def test_settings_that_are_wrong_are_unknown(receiver: Receiver) -> None:
    receiver.set(expect_every="often")
    code, found = status(receiver)
    assert code == NagiosState.UNKNOWN
    assert "expect-every: 'often' is neither" in found[0]


# --- the daemon


def test_the_daemon_logs_an_alarm_once_over_its_restarts(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath],
) -> None:
    receiver, _full, incr = filled
    (receiver.store / incr).unlink()
    receiver.set(warn_at="100%")
    receiver.start()
    receiver.wait_log("damage: alpha/tank/plain")
    wait_until((receiver.store / ".state/alarms.json").exists, "the alarms")
    assert receiver.stop() == 0
    assert (receiver.store / ".state/history.alpha.zst").exists()
    (since,) = [each["since"] for each in json.loads(receiver.fullsendd("status", "--json").stdout)["alarms"]]
    assert since is not None
    # What is noted last of a look is there when the next daemon has made its own.
    (receiver.store / ".state/sizes.json").unlink()
    receiver.start()
    wait_until((receiver.store / ".state/sizes.json").exists, "the next look")
    assert receiver.stop() == 0
    assert receiver.log.count("damage: alpha/tank/plain") == 1
    receiver.check_log()
