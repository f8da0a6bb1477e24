from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from bench.main import arguments

ROOT = Path(__file__).parent.parent.parent


def test_what_takes_long_runs_only_where_it_is_asked_for() -> None:
    assert not {"long", "prune", "bucket", "bucket-many", "bucket-parts", "bucket-list"} & {*arguments([]).only}
    assert "pinned" in arguments([]).only
    assert "long" in arguments(["--long"]).only


def test_one_part_can_run_alone() -> None:
    assert arguments(["--only", "pinned"]).only == ["pinned"]
    assert arguments(["--only", "pinned", "--long"]).only == ["pinned", "long"]


def test_a_part_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments(["--only", "nothing"])
    assert "nothing" in capsys.readouterr().err


def test_a_long_stream_is_made_meanwhile_and_begins_as_a_stream() -> None:
    program = [sys.executable, str(ROOT / "bench" / "long_stream.py"), str(1 << 20)]
    raw = subprocess.run(program, stdout=subprocess.PIPE, check=True).stdout
    assert raw[8:16] == (0x2F5BACBAC).to_bytes(8, "little")
    assert len(raw) > 1 << 20
