"""The metrics of a ZFS host over a few nights: one dataset at a time, and a night on which the receiver is away."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.fakezfs import FakeZfs
from tests.programs import Receiver, Sender, good
from tests.promtool import complaints

from fullsend_protocol.format.metrics_text import parse_samples


@pytest.fixture
def path(tmp_path: Path, sender: Sender) -> Path:
    """The file, which the sender's configuration names; and its `zfs`, with two datasets."""
    fake = FakeZfs.make(tmp_path / "zfs")
    for name in ("tank/a", "tank/b"):
        fake.create(name)
    path, config = tmp_path / "prom" / "fullsend.prom", sender.folder / "sender.toml"
    first = f'zfs-command = "{fake.program}"\nmetrics-file = "{path}"\nretry-for = "0s"\n'
    config.write_text(f'{first}{config.read_text()}[[push]]\ndatasets = ["tank/*"]\n')
    return path


def values(path: Path, name: str) -> dict[str, float]:
    """Return the values of a metric by dataset."""
    samples = [each for each in parse_samples(path.read_text(encoding="utf-8")) if each.name == f"fullsend_{name}"]
    return {dict(each.labels).get("dataset", ""): each.value for each in samples}


def test_the_file_knows_all_datasets_whatever_one_run_pushes(receiver: Receiver, sender: Sender, path: Path) -> None:
    good(sender.fullsend("push", "tank/a"))
    first = values(path, "push_last_success_timestamp_seconds")
    assert first.keys() == {"tank/a"}
    good(sender.fullsend("push", "-n"))
    assert values(path, "push_last_success_timestamp_seconds") == first, "a rehearsal is no push"
    good(sender.fullsend("push"))
    both = values(path, "push_last_success_timestamp_seconds")
    assert both.keys() == {"tank/a", "tank/b"}
    assert both["tank/a"] > first["tank/a"], "unchanged"
    assert values(path, "push_last_raw_bytes").keys() == {"tank/a", "tank/b"}
    assert receiver.stop() == 0
    assert sender.fullsend("push", "tank/b").returncode == 75
    assert values(path, "push_last_exit_code") == {"tank/a": 0, "tank/b": 75}
    assert values(path, "push_last_success_timestamp_seconds") == both
    assert values(path, "run_last_exit_code") == {"": 75}
    assert not complaints(path.read_text(encoding="utf-8"))
    receiver.start()
