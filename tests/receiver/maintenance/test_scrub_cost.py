"""A real scrub is compared with this in tests/receiver/store_s3/test_costs.py."""

from __future__ import annotations

from fullsend_receiver.maintenance.scrub_cost import scrubbed
from fullsend_receiver.store.api import RequestCost


def test_scrub_reads_what_a_restore_reads_and_the_tables_once_more() -> None:
    read = RequestCost(gets=100, received=1000)
    found = scrubbed(read, 10)
    assert found.gets > read.gets
    assert 1000 < found.received < 3000
    assert found.puts == found.sent == 0
