"""The output of `prune`; what it looks like in the program is in test_prune.py."""

from __future__ import annotations

from typing import Any

import pytest

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


def test_dataset_of_which_nothing_goes_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    pruned = Pruned(as_json=False, dry_run=True)
    pruned.add(NothingGoes("alpha", "tank\x1b", "why"))
    assert pruned.failed
    assert capsys.readouterr().err == "fullsendd: alpha/tank\\x1b: nothing goes: why\n"
