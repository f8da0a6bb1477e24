"""The output of `prune`; what it looks like in the program is in test_prune.py."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fullsend_protocol.shared.units import parse_time
from fullsend_receiver.catalogue.rows import Summary
from fullsend_receiver.cli.pruning import Pruned
from fullsend_receiver.maintenance.prune import Judged, NothingGoes
from fullsend_receiver.maintenance.retention import Action, Decision

FIELDS: dict[str, Any] = dict.fromkeys(Summary._fields, "x") | {"stored_bytes": 7}
DROP = Decision(Summary(**FIELDS), Action.DROP, "none", "drop: no rule")


def test_stream_that_could_not_go_yet_goes_next_time(capsys: pytest.CaptureFixture[str]) -> None:
    pruned = Pruned(as_json=False, dry_run=False)
    pruned.add(Judged(DROP, dropped=False))
    pruned.add(Judged(DROP, dropped=True))
    pruned.sum_up()
    said = capsys.readouterr()
    assert said.out.splitlines()[0].startswith("drop: no rule, next time ")
    assert said.err == "2 streams, 1 dropped, 7 B freed\n"
    assert not pruned.failed


def test_locked_stream_is_no_failure_and_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    kept = Decision(Summary(**FIELDS), Action.KEEP, "lock", "keep: locked until 2026-12-24T00:00:00Z")
    for as_json in (False, True):
        pruned = Pruned(as_json=as_json, dry_run=False)
        pruned.add(Judged(kept, dropped=False, locked=parse_time("2026-12-24T00:00:00Z")))
        pruned.sum_up()
        assert not pruned.failed
    said = capsys.readouterr()
    line, row = said.out.splitlines()
    assert line.startswith("keep: locked until 2026-12-24T00:00:00Z ")
    assert json.loads(row)["locked_until"] == "2026-12-24T00:00:00Z"
    total = "1 stream of 7 B cannot go yet: locked, the last until 2026-12-24T00:00:00Z"
    assert said.err.splitlines()[:2] == ["1 stream, 0 dropped, 0 B freed", total]


def test_dataset_of_which_nothing_goes_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    pruned = Pruned(as_json=False, dry_run=True)
    pruned.add(NothingGoes("alpha", "tank\x1b", "why"))
    assert pruned.failed
    assert capsys.readouterr().err == "fullsendd: alpha/tank\\x1b: nothing goes: why\n"
