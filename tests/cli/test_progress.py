from __future__ import annotations

import io
import threading
import time

import pytest

from fullsend_cli import progress as module
from fullsend_cli.progress import CLEAR, LiveLine, Progress, When, short_label, showing
from fullsend_protocol.shared.stages import StageWaits

GIB = 1 << 30
MIB = 1 << 20
NOON = 1_795_417_089.0


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def test_everything_there_is_to_say_fits_into_80_columns() -> None:
    progress = Progress(100.0, size=200 * GIB)
    for second in range(1, 64):
        progress.add(200 * MIB, 83 * MIB)
        progress.fields(100.0 + second, NOON)
    line = progress.line(163.0, NOON, 80)
    end = time.strftime("%H:%M:%S", time.gmtime(NOON + (200 * GIB - 63 * 200 * MIB) / (200 * MIB)))
    assert line == f"12.3 GiB 0:01:03 [200 MiB/s] [200 MiB/s avg] 2.41x 6% ETA 0:16:01 ({end})"
    assert len(line) < 80


def test_a_receiver_that_is_away_is_said_instead_of_the_rate() -> None:
    progress = Progress(0.0)
    progress.add(MIB, MIB)
    progress.waiting = True
    assert progress.fields(1.0, NOON)[2:4] == ["[receiver away]", "[1.0 MiB/s avg]"]
    progress.waiting = False
    assert progress.fields(1.0, NOON)[2] == "[1.0 MiB/s]"


def test_what_is_not_sent_again_counts_as_done() -> None:
    progress = Progress(0.0, size=4 * MIB)
    progress.add(2 * MIB, 0)
    assert progress.fields(1.0, NOON)[4].startswith("50%")
    assert not any(field.endswith("x") for field in progress.fields(1.0, NOON))  # no ratio of nothing


def test_a_narrow_terminal_gets_whole_fields_only() -> None:
    progress = Progress(0.0)
    progress.add(MIB, MIB)
    assert progress.line(1.0, NOON, 30) == "1.0 MiB 0:00:01 [1.0 MiB/s]"
    assert progress.line(1.0, NOON, 27) == "1.0 MiB 0:00:01"
    assert progress.line(1.0, NOON, 3) == ""


def test_nothing_yet() -> None:
    assert Progress(5.0).line(5.0, NOON, 80) == "0 B 0:00:00 [0 B/s] [0 B/s avg]"


def test_current_rate_is_that_of_the_last_seconds() -> None:
    progress = Progress(0.0)
    progress.add(100 * MIB, 100 * MIB)
    progress.fields(10.0, NOON)
    for second in range(11, 21):
        progress.add(MIB, MIB)
        fields = progress.fields(float(second), NOON)
    assert fields[2:4] == ["[1.0 MiB/s]", "[5.5 MiB/s avg]"]


def test_an_estimate_that_was_too_low_ends_in_neither_more_than_all_nor_a_negative_time() -> None:
    progress = Progress(0.0, size=MIB)
    progress.add(2 * MIB, MIB)
    assert progress.fields(1.0, NOON)[4:] == ["2.00x", "99%"]


def test_it_is_all_there_only_when_the_receipt_has_come() -> None:
    progress = Progress(0.0, size=100)
    progress.add(100, 50)
    assert "99%" in progress.line(1.0, 0.0, 200)
    progress.done = True
    assert "100%" in progress.line(1.0, 0.0, 200)


def test_the_stage_that_limits_is_named_where_a_person_wants_more() -> None:
    clock = [0.0]
    waits = StageWaits("source", "wire", lambda: clock[0])
    progress = Progress(0.0, waits=waits)
    assert not any("limit" in field for field in progress.fields(0.0, NOON))
    progress.names_limit = True
    assert progress.fields(1.0, NOON)[4] == "[limit: unknown]"
    waits.head(None)
    clock[0] = 4.0
    assert progress.fields(4.0, NOON)[4] == "[limit: wire]"


def test_what_was_there_before_takes_no_time() -> None:
    progress = Progress(0.0, size=100 * MIB)
    progress.skip(50 * MIB)
    progress.add(10 * MIB, 5 * MIB)
    fields = progress.fields(10.0, NOON)
    assert fields[3] == "[1.0 MiB/s avg]"
    assert fields[-1].startswith("ETA 0:00:40")


def test_several_transfers_share_a_line() -> None:
    shared, clock = Progress(0.0), [0.0]
    parts = [
        Progress(0.0, size, waits=StageWaits(stage, clock=lambda: clock[0]), within=shared)
        for size, stage in ((10, "source"), (None, "wire"), (20, "source"))
    ]
    clock[0] = 2.0
    parts[0].add(1, 1)
    parts[1].skip(2)
    parts[2].waiting = True
    assert (shared.raw, shared.wire, shared.before, shared.size, shared.waiting) == (3, 1, 2, 30, True)
    assert shared.waited() == {"source": 4.0, "wire": 2.0}


def test_streams_are_counted_as_streams() -> None:
    progress = Progress(0.0, size=4, label="alpha", noun="stream")
    progress.add(1, 0)
    assert progress.line(2.0, NOON, 80).startswith("alpha 1 stream 0:00:02 [0.5/s] [0.5/s avg] 25% ETA 0:00:06")


def test_a_label_is_safe_and_short() -> None:
    assert short_label("tank/\x1b@x") == "tank/\\x1b@x"
    assert short_label("tank/" + "x" * 50 + "@monday") == "…" + "x" * 16 + "@monday"


class Terminal(io.StringIO):
    def isatty(self) -> bool:  # type: ignore[explicit-override]
        return True


def test_work_that_blocks_is_shown_by_a_thread_and_makes_room_for_results(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = threading.Event()
    progress, terminal = Progress(time.monotonic(), label="tank"), Terminal()
    monkeypatch.setattr(module, "REDRAW", 0.001)
    draw = LiveLine.draw

    def noted(self: LiveLine, progress: Progress, *, end: str = "") -> None:
        draw(self, progress, end=end)
        drawn.set()

    monkeypatch.setattr(LiveLine, "draw", noted)
    with showing(progress, terminal) as line:
        assert drawn.wait(60)
        with line.aside():
            assert terminal.getvalue().endswith(CLEAR)
            terminal.write("a result\n")
        drawn.clear()
        assert drawn.wait(60)
    assert "tank 0 B" in terminal.getvalue()
    assert f"{CLEAR}a result\n{CLEAR}" in terminal.getvalue()
    assert terminal.getvalue().endswith(CLEAR)
    assert not any(thread.name == "progress" for thread in threading.enumerate())


@pytest.mark.parametrize("when", ["never", "auto"])
def test_in_a_pipe_there_is_no_thread_and_no_line(when: When) -> None:
    stream = io.StringIO() if when == "auto" else Terminal()
    with showing(Progress(0.0), stream, when) as line, line.aside():
        assert not any(thread.name == "progress" for thread in threading.enumerate())
    assert stream.getvalue() == ""


def test_a_terminal_that_is_lost_is_not_a_failure_of_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REDRAW", 0.001)
    terminal = Terminal()
    with showing(Progress(0.0), terminal) as line:
        terminal.close()
        with pytest.raises(ValueError, match="closed"):
            line.clear()
    assert not any(thread.name == "progress" for thread in threading.enumerate())
