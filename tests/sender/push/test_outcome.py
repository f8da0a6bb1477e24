from __future__ import annotations

import json

from tests.sender.command import RAW
from tests.sender.peer import receipt_of

from fullsend_protocol.shared.errors import FullsendError, Unreachable
from fullsend_protocol.shared.exit_codes import Exit
from fullsend_sender.push.job import PushSummary
from fullsend_sender.push.outcome import RunOutcome
from fullsend_sender.transfer.send import Pushed


def test_a_run_that_is_done_says_what_became_of_each_dataset() -> None:
    outcome = RunOutcome()
    outcome.add_pushed("nas", Pushed(receipt_of(RAW), 500, 1.5))
    outcome.add_summary("nas", PushSummary(pushed=1, unchanged=1, still=["tank/vm"]))
    facts = outcome.facts(Exit.OK, 65.25)
    assert (facts["event"], facts["level"], facts["exit_code"], facts["seconds"]) == ("push-finished", "info", 0, 65.25)
    assert facts["text"] == "push: nas: 1 pushed, 1 unchanged; 0:01:05"
    pushed, unchanged = facts["results"]
    assert (pushed["dataset"], pushed["result"], pushed["wire_bytes"]) == ("tank/data", "pushed", 500)
    assert unchanged == {"receiver": "nas", "dataset": "tank/vm", "result": "unchanged"}
    json.dumps(facts)


def test_a_run_that_failed_names_what_failed() -> None:
    outcome = RunOutcome()
    failures = [(f"tank/{name}", FullsendError(f"why {name}\x1b[2J")) for name in "abcde"]
    outcome.add_summary("nas", PushSummary(failures=list(failures)))
    outcome.add_failure("other", "", Unreachable("no route"))
    facts = outcome.facts(Exit.FAILED, 1)
    assert (facts["event"], facts["level"], facts["exit_code"]) == ("push-failed", "error", 1)
    assert facts["text"].startswith(r"push has failed (exit code 1): nas: 5 FAILED; nas: tank/a: why a\x1b[2J; ")
    assert facts["text"].endswith("; and 3 more; 0:00:01")
    assert [each["dataset"] for each in facts["results"]] == [*(f"tank/{name}" for name in "abcde"), ""]
    assert facts["results"][-1] == {
        "receiver": "other",
        "dataset": "",
        "result": "failed",
        "error": "no route",
        "exit_code": 75,
    }


def test_a_run_that_failed_before_it_began() -> None:
    outcome = RunOutcome()
    outcome.add_failure("", "", FullsendError("why"))
    assert outcome.facts(Exit.FAILED, 0)["text"] == "push has failed (exit code 1): why; 0:00:00"
    assert RunOutcome().facts(Exit.OK, 0)["text"] == "push: nothing was done; 0:00:00"
