from __future__ import annotations

from fullsend_protocol.format.lost_spills import restoring_loses, warnings
from fullsend_protocol.format.manifest import LostSpill
from fullsend_protocol.shared import limits


def test_each_snapshot_has_one_line_with_its_objects_and_the_way_out() -> None:
    spills = [
        LostSpill(snapshot="tank/a@mon", object=17),
        LostSpill(snapshot="tank/a@mon", object=410),
        LostSpill(snapshot="tank/a/b@mon", object=5),
    ]
    first, second = warnings(spills)
    assert first.startswith("tank/a@mon: `zfs receive` loses 2 spill blocks of it, with exit 0 (openzfs issue 18239)")
    assert "object 17, 410 loses" in first
    assert "send tank/a without -e" in first
    assert second.startswith("tank/a/b@mon: `zfs receive` loses 1 spill block of it")
    assert list(warnings([])) == []


def test_the_most_that_are_counted_are_that_many_or_more() -> None:
    assert "16 spill blocks or more" in restoring_loses(limits.EMBEDDED_SPILLS_MAX)
    assert "or more" not in restoring_loses(limits.EMBEDDED_SPILLS_MAX - 1)
