"""`fullsendd status`: what it prints of an answer, and a real daemon amid a check."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from tests.receiver.command import fails
from tests.receiver.helpers import SENDER, long_stream, manifest_path, store_stream
from tests.receiver.running import Receiver, wait_until

from fullsend_protocol.shared.exit_codes import Exit
from fullsend_protocol.shared.units import format_size, format_time
from fullsend_protocol.wire.local import DueStreams, ScrubProgress
from fullsend_protocol.wire.messages import BeingRead
from fullsend_receiver.cli import asking
from fullsend_receiver.cli.status import lines
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
    received = format_time(time.time() - 40 * 86400)
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"received": received}), encoding="utf-8")
    return str(file)


def test_a_running_check_is_shown_until_it_has_ended(receiver: Receiver) -> None:
    """At a byte a second the daemon has read one chunk, and waits."""
    file = store_old(LocalStore(receiver.store), "large", 4)
    text = receiver.config.read_text(encoding="utf-8").replace("scrub-every = 0", 'scrub-every = "30d"')
    receiver.config.write_text(text, encoding="utf-8")
    receiver.set(scrub_rate=1)
    receiver.start()
    try:
        found: dict[str, Any] = {}

        def reads() -> bool:
            done = receiver.fullsendd("status", "--json")
            assert done.returncode == Exit.OK, done.stderr
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
        daemon, reading, left_line = done.stdout.splitlines()
        assert daemon == f"daemon   {found['daemon']} serves {receiver.store}"
        assert reading.startswith(f"scrub    reads {file}: {format_size(scrub['reading']['read_bytes'])} of ")
        assert left_line.startswith("scrub    left to check: 1 of 1 stream, ")
    finally:
        assert receiver.stop() == 0
    receiver.check_log()
    # The daemon has recorded its place when it stopped.
    done = receiver.fullsendd("status")
    assert done.returncode == Exit.FAILED
    none, place = done.stdout.splitlines()
    assert none == f"daemon   none runs that commands can ask (store {receiver.store})"
    assert place.startswith(f"scrub    {file}: {format_size(scrub['reading']['read_bytes'])} of ")


def test_without_a_daemon_it_says_so(receiver: Receiver) -> None:
    done = receiver.fullsendd("status")
    assert (done.returncode, done.stderr) == (Exit.FAILED, "")
    assert done.stdout == f"daemon   none runs that commands can ask (store {receiver.store})\n"
    done = receiver.fullsendd("status", "--json")
    assert done.returncode == Exit.FAILED
    assert json.loads(done.stdout) == {"daemon": None, "store": str(receiver.store), "scrub": None}


def test_a_daemon_that_does_not_answer_is_named(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    receiver.start()
    try:
        monkeypatch.setattr(asking, "VERSION", 7)
        fails(receiver.fullsendd("status"), Exit.UNREACHABLE, "the daemon does not answer: it is fullsendd")
    finally:
        receiver.stop()
