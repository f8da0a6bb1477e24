"""What a push sums up."""

from __future__ import annotations

from fullsend_protocol.shared.errors import FullsendError
from fullsend_sender.host.options import SendOptions
from fullsend_sender.push import naming
from fullsend_sender.push.job import PushItem, PushPlan, PushSummary
from fullsend_sender.push.plan import PlannedSend
from fullsend_sender.zfs.inventory import Dataset, Snapshot


def test_summary() -> None:
    summary = PushSummary(pushed=1, stored=2, unchanged=3, failures=[("a", FullsendError("x"))])
    assert summary.line("nas") == "nas: 1 pushed, 2 stored before, 3 unchanged, 1 FAILED"
    assert PushSummary().line("nas") == "nas: nothing to do"


def test_no_two_new_snapshots_have_one_name() -> None:
    now = 1_790_000_000.25
    names = [naming.snapshot_name("5c5c5c5c", now + seconds) for seconds in range(3)]
    for count in range(3):
        taken = [Snapshot(name, "1", 1, 0, 0, 0) for name in names[:count]]
        dataset = Dataset("tank/a", "filesystem", "1", 0, 0, False, False, taken, [])
        plan = PushPlan(items=[PushItem(PlannedSend(dataset, None, None, "@", ()), SendOptions(), (dataset,))])
        assert plan.new_name("5c5c5c5c", now) == (names[count], count and count - 0.25)
