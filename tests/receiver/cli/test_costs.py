from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.receiver.buckets import MemoryBucket

from fullsend_receiver.cli.costs import print_costs
from fullsend_receiver.cli.results import CheckResults
from fullsend_receiver.store_s3.blob import READ_AHEAD
from fullsend_receiver.store_s3.part_sizes import PartSizes
from fullsend_receiver.store_s3.stores import BucketStore

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from fullsend_receiver.store.local import LocalStore


def test_costs_of_a_tib_are_a_line_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = BucketStore(MemoryBucket(), tmp_path)
    print_costs(store, CheckResults())
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" (")[0] for line in lines[:3]] == [
        "ok       a TiB pushed",
        "ok       a TiB restored",
        "ok       a TiB checked by the scrub",
    ]
    assert "1.0 TiB sent" in lines[0]
    assert "1.0 TiB received" in lines[1]
    assert "default retention" in lines[3]
    print_costs(store, CheckResults(as_json=True))
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row.get("cost") for row in rows] == ["push", "restore", "scrub", None]
    assert f"{rows[0]['puts']:,} PUT" in lines[0]
    assert 1 << 40 < rows[0]["sent"] < 1.02 * (1 << 40)
    assert (1 << 40) / READ_AHEAD < rows[1]["gets"] < 1.02 * (1 << 40) / READ_AHEAD


def test_streams_are_so_small_that_their_costs_can_be_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_costs(BucketStore(MemoryBucket(), tmp_path, sizes=PartSizes(direct=1000)), CheckResults())
    # 1,000 parts of a batch, 32 MiB, are less than 32 GiB.
    assert "a TiB pushed (64 streams of 16.0 GiB" in capsys.readouterr().out


def test_disk_has_no_price(store: LocalStore, capsys: pytest.CaptureFixture[str]) -> None:
    print_costs(store, CheckResults())
    assert capsys.readouterr().out == ""
