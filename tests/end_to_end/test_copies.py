"""The daemon copies from its store into another one on its schedule, and tells how that stands."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests import streams
from tests.receiver.helpers import SENDER, store_stream
from tests.receiver.running import Receiver, wait_until

from fullsend_protocol.format.metrics_text import parse_samples
from fullsend_protocol.shared.units import format_time, parse_time
from fullsend_receiver.maintenance.copy_records import CopyRecord, change_record, read_record
from fullsend_receiver.store.local import LocalStore
from fullsend_receiver.store.marker import read_id

if TYPE_CHECKING:
    from pathlib import Path


class Copies:
    """A store whose daemon copies it into another one each hour."""

    def __init__(self, folder: Path) -> None:
        self.receiver = Receiver(folder / "here")
        self.receiver.init()
        self.other = Receiver(folder / "there")
        self.other.init()
        self.id = read_id(self.other.store)
        self.store = LocalStore(self.receiver.store)
        self.numbers = 0
        self.metrics = folder / "fullsendd.prom"
        self.configure()

    def configure(self, **more: str) -> None:
        """Write the table [copy] anew."""
        text = self.receiver.config.read_text(encoding="utf-8").partition("metrics-file")[0]
        table = {"to": str(self.other.config), "every": "1h", **more}
        lines = [f'metrics-file = "{self.metrics}"', "[copy]", *(f'{key} = "{value}"' for key, value in table.items())]
        self.receiver.config.write_text(text + "\n".join(lines) + "\n", encoding="utf-8")

    def push(self) -> str:
        self.numbers += 1
        raw = streams.substream(
            streams.object_(self.numbers), name=f"tank/data@s{self.numbers}", guid=100 + self.numbers
        )
        return str(store_stream(self.store, SENDER, raw))

    def record(self) -> CopyRecord:
        return read_record(self.store.documents, self.id)

    def pass_time(self, hours: float) -> None:
        """Have all that is noted lie farther back, and the daemon look at it."""

        def change(record: CopyRecord) -> CopyRecord:
            found = {name: parse_time(getattr(record, name) or "") for name in ("since", "complete", "began", "ended")}
            return record.model_copy(
                update={name: format_time(at - hours * 3600) for name, at in found.items() if at is not None}
            )

        change_record(self.store.documents, self.id, change)
        self.configure(bwlimit=f"{100 + self.numbers + round(hours)}G")
        self.receiver.send_signal(signal.SIGHUP)

    def wait(self, what: str, **wanted: object) -> CopyRecord:
        """Wait until this is noted of a run that began since time was passed, and has ended."""

        def holds() -> bool:
            found = self.record()
            fresh = found.ended is not None and (parse_time(found.began or "") or 0.0) > time.time() - 1800
            return fresh and all(getattr(found, name) == value for name, value in wanted.items())

        wait_until(holds, f"{what}: {self.record()}\n{self.receiver.log}")
        return self.record()

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.receiver.fullsendd("status", "--json").stdout)
        return found

    def alarms(self) -> list[tuple[str, str]]:
        return [(each["code"], each["level"]) for each in self.status()["alarms"]]


@pytest.fixture
def copies(tmp_path: Path) -> Copies:
    return Copies(tmp_path)


@pytest.mark.slow
def test_the_daemon_copies_on_its_schedule_and_says_when_it_cannot(copies: Copies) -> None:
    first = copies.push()
    receiver, other = copies.receiver, copies.other
    receiver.start()
    with contextlib.closing(contextlib.ExitStack()) as stack:
        stack.callback(receiver.stop)
        found = copies.wait("the first copy", ok=True, streams=1)
        assert found.complete == found.began
        assert other.listed() == receiver.listed()
        assert (other.store / first).read_bytes() == (receiver.store / first).read_bytes()
        receiver.wait_log(f"copy: {first}: copied")

        second = copies.push()
        copies.pass_time(2)
        copies.wait("the copy of an hour later", ok=True, streams=1)
        receiver.wait_log(f"copy: {second}: copied")
        said = copies.status()["copy"]
        assert (said["to"], said["ok"], said["late"], said["left"]) == (str(other.store), True, False, 0)
        assert copies.alarms() == []

        # The other store is away: that is a failure, which is tried again and shown.
        copies.push()
        away = other.store.with_name("unplugged")
        other.store.rename(away)
        copies.pass_time(2)
        failed = copies.wait("the failure", ok=False)
        assert "no store here" in (failed.why or "")
        assert copies.alarms() == [("copy", "warning")]
        copies.pass_time(80)
        copies.wait("the next failure", ok=False, tries=2)
        assert copies.alarms() == [("copy", "critical")]
        assert "no copy in" in copies.status()["why"]

        away.rename(other.store)
        copies.pass_time(1)
        copies.wait("the copy afterwards", ok=True, tries=0)
        assert other.listed() == receiver.listed()
        assert copies.alarms() == []
    assert other.fullsendd("verify").returncode == 0
    receiver.check_log()
    lines = "".join(
        path.read_text(encoding="utf-8") for path in sorted((copies.store.state / "events").glob("*.jsonl"))
    )
    kept = [json.loads(line) for line in lines.splitlines()]
    told = [each["event"] for each in kept if str(each["event"]).startswith("copy-")]
    assert told == ["copy-finished", "copy-finished", "copy-failed", "copy-failed", "copy-finished"]


def test_metrics_have_the_age_of_the_last_complete_copy(copies: Copies) -> None:
    copies.push()
    assert copies.receiver.fullsendd("copy").returncode == 0
    copies.receiver.start()
    wait_until(copies.metrics.exists, "the metrics")
    assert copies.receiver.stop() == 0
    values = {each.name: each.value for each in parse_samples(copies.metrics.read_text(encoding="utf-8"))}
    assert values["fullsend_copy_last_complete_timestamp_seconds"] == parse_time(copies.record().complete or "")
    assert (values["fullsend_copy_last_ok"], values["fullsend_copy_left_streams"]) == (1, 0)
    assert values["fullsend_copied_bytes_total"] > 0


def test_stop_of_the_daemon_ends_the_copy_and_the_next_one_resumes_it(copies: Copies) -> None:
    file = copies.push()
    copies.configure(bwlimit="1")  # so it lasts
    copies.receiver.start()
    wait_until(lambda: copies.record().began is not None, "the copy begins")
    assert copies.receiver.stop() == 0
    found = copies.record()
    assert (found.has_ended, found.ok, found.complete) == (True, False, None)
    copies.configure()
    assert copies.receiver.fullsendd("copy").returncode == 0
    assert (copies.other.store / file).exists()
    assert copies.record().complete is not None
