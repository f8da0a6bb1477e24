"""The file with a sender's metrics: each run knows its own datasets, and the file keeps the others."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest
from tests.promtool import complaints
from tests.sender.metrics_sample import NAS, NOW, pushed, run, write_sample

from fullsend_protocol.format.metrics_text import parse_samples
from fullsend_protocol.shared.errors import FullsendError, Interrupted, OutputFailed, Unreachable, UsageError
from fullsend_protocol.shared.exit_codes import Exit
from fullsend_sender.host.config import ReceiverTable, SenderSettings
from fullsend_sender.monitor import metrics
from fullsend_sender.monitor.metrics import RunMetrics, recorded
from fullsend_sender.push.job import PushSummary

GOLDEN = Path(__file__).with_name("golden_metrics.prom")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fullsend.prom"


def values(path: Path, name: str) -> dict[str, float]:
    """Return the values of a metric by dataset, or by receiver."""
    samples = parse_samples(path.read_text(encoding="utf-8"))
    return {each.labels[-1][1]: each.value for each in samples if each.name == f"fullsend_{name}"}


def write(path: Path, made: RunMetrics, *, retired: list[str] | None = None) -> None:
    made.write(str(path), receivers=[NAS], retired=retired or [])


def test_the_golden_file(path: Path) -> None:
    write_sample(path)
    text = path.read_text(encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")
    assert not complaints(text)


def test_another_user_can_read_it_and_no_other_file_is_left(path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_sample(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644
    assert os.listdir(path.parent) == [path.name]


def test_a_run_of_one_dataset_keeps_the_others(path: Path) -> None:
    write_sample(path)
    later = run(NOW + 90_000)
    later.tried(NAS, "tank/other", Exit.OK)
    write(path, later)
    assert values(path, "push_last_success_timestamp_seconds") == {
        "tank/data": NOW,
        "tank/still": NOW,
        "tank/other": NOW + 90_000,
    }
    assert values(path, "push_last_exit_code") == {"tank/data": 3, "tank/still": 0, "tank/other": 0}
    assert values(path, "push_last_raw_bytes").keys() == {"tank/data"}


def test_a_success_keeps_when_it_last_failed(path: Path) -> None:
    write_sample(path)
    later = run(NOW + 90_000)
    later.tried(NAS, "tank/data", Exit.OK)
    write(path, later)
    assert values(path, "push_last_failure_timestamp_seconds") == {"tank/data": NOW + 86400}
    assert values(path, "push_last_exit_code")["tank/data"] == 0


def test_what_was_not_tried_has_failed(path: Path) -> None:
    away = run()
    summary = PushSummary(chosen={"tank/a", "tank/b"}, current={"tank/a"}, failures=[("1 more", Unreachable("away"))])
    away.pushed(NAS, summary)
    write(path, away)
    assert values(path, "push_last_exit_code") == {"tank/a": 0, "tank/b": 75}


def test_what_is_stored_and_fails_afterwards_has_failed(path: Path) -> None:
    made = run()
    made.pushed(NAS, PushSummary(chosen={"tank/a"}, current={"tank/a"}, failures=[("tank/a", FullsendError("x"))]))
    write(path, made)
    assert values(path, "push_last_exit_code") == {"tank/a": 1}
    assert values(path, "push_last_success_timestamp_seconds") == {}


def test_a_pool_that_is_away_fails_all_that_was_pushed_from_it(path: Path) -> None:
    """Only its name is known then; `tank/a` is another receiver's, too, and `tankard` another pool."""
    before = run()
    for dataset in ("tank", "tank/a", "tankard"):
        before.tried(NAS, dataset, Exit.OK)
    before.tried("other", "tank/a", Exit.OK)
    before.write(str(path), receivers=[NAS, "other"], retired=[])
    gone = run(NOW + 1)
    gone.pushed(NAS, PushSummary(failures=[("tank", FullsendError("the pool is not imported"))]))
    gone.write(str(path), receivers=[NAS, "other"], retired=[])
    found = {
        (dict(each.labels)["receiver"], dict(each.labels)["dataset"]): each.value
        for each in parse_samples(path.read_text(encoding="utf-8"))
        if each.name == "fullsend_push_last_exit_code"
    }
    assert found == {
        (NAS, "tank"): 1,
        (NAS, "tank/a"): 1,
        (NAS, "tankard"): 0,
        ("other", "tank/a"): 0,
    }


def test_names_that_are_no_datasets_are_not_metrics(path: Path) -> None:
    made = run()
    failures = [(name, FullsendError("x")) for name in ("what is unchanged", "3 more", "tank/*", "tank/a, tank/b")]
    made.pushed(NAS, PushSummary(failures=failures))
    write(path, made)
    assert values(path, "push_last_exit_code") == {}


def test_what_is_retired_or_whose_receiver_is_gone_goes(path: Path) -> None:
    write_sample(path)
    write(path, run(NOW + 90_000), retired=["tank/st*"])
    assert values(path, "push_last_success_timestamp_seconds").keys() == {"tank/data"}
    run(NOW + 90_000).write(str(path), receivers=["other"], retired=[])
    assert [each.name for each in parse_samples(path.read_text(encoding="utf-8"))] == ["fullsend_build_info"]


def test_the_number_of_datasets_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "DATASETS_MAX", 2)
    for number in range(4):
        made = run(NOW + number)
        made.tried(NAS, f"tank/{number}", Exit.OK)
        made.sent(NAS, pushed(f"tank/{number}"))
        write(path, made)
    assert values(path, "push_last_success_timestamp_seconds").keys() == {"tank/2", "tank/3"}
    assert values(path, "push_last_raw_bytes").keys() == {"tank/2", "tank/3"}


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"fullsend_push_last_exit_code{", b"\x00" * 100, b"other_metric 1\n"]
)
def test_a_file_that_is_another_one_is_made_anew(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    write_sample(path)
    assert path.read_text(encoding="utf-8") == GOLDEN.read_text(encoding="utf-8")


def test_runs_that_end_at_the_same_moment_lose_nothing(path: Path) -> None:
    def one(number: int) -> None:
        made = run()
        made.tried(NAS, f"tank/{number}", Exit.OK)
        write(path, made)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(values(path, "push_last_exit_code")) == 20


# --- how a run ends -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unreachable("away"), 75),
        (OutputFailed("stdout"), 1),
        (Interrupted("SIGTERM"), 130),
        (asyncio.CancelledError(), 130),
        (KeyboardInterrupt(), 130),
        (ValueError("a bug"), 1),
    ],
)
def test_a_run_that_is_ended_by_an_error_has_its_code(path: Path, error: BaseException, code: int) -> None:
    def fails() -> None:
        with recorded(_settings(path), "push") as made, made.part(NAS):
            raise error

    with pytest.raises(type(error)):
        fails()
    assert values(path, "run_last_exit_code") == {NAS: code}
    assert values(path, "run_last_success_timestamp_seconds") == {}


def test_an_error_outside_of_any_part_counts_for_the_receivers_that_were_meant(path: Path) -> None:
    """Such as a table [[push]] that was lost: the last success must not stay."""
    with recorded(_settings(path), "push") as made, made.part(NAS):
        pass
    assert values(path, "run_last_exit_code") == {NAS: 0}

    def fails(*meant: str) -> None:
        with recorded(_settings(path), "push") as made:
            made.meant = frozenset(meant)
            raise UsageError("nothing to push")

    with pytest.raises(UsageError):
        fails()
    assert values(path, "run_last_exit_code") == {NAS: 0}
    with pytest.raises(UsageError):
        fails(NAS)
    assert values(path, "run_last_exit_code") == {NAS: 2}


def test_a_receiver_whose_part_has_ended_keeps_its_result(path: Path) -> None:
    def fails() -> None:
        with recorded(_settings(path), "push") as made:
            with made.part(NAS):
                pass
            raise UsageError("the next receiver is not configured")

    with pytest.raises(UsageError):
        fails()
    assert values(path, "run_last_exit_code") == {NAS: 0}


def test_a_run_that_does_not_count_writes_nothing(path: Path) -> None:
    with recorded(_settings(path), "push", when=False) as made, made.part(NAS):
        pass
    with recorded(SenderSettings(), "push") as made, made.part(NAS):
        pass
    assert not path.exists()


def test_a_file_that_cannot_be_written_fails_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_bytes(b"")
    path = tmp_path / "file" / "fullsend.prom"
    with recorded(_settings(path), "push") as made, made.part(NAS) as codes:
        codes.append(Exit.REFUSED)
    assert f"{path}: the metrics cannot be written: " in caplog.text


def _settings(path: Path) -> SenderSettings:
    receiver = ReceiverTable(address="nas.example:7433", fingerprint="0" * 64, sender="alpha")
    return SenderSettings(metrics_file=str(path), receivers={NAS: receiver})
