"""The newest metrics, in memory and in a file."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.promtool import complaints
from tests.receiver.metrics_sample import NOW, OVERVIEW, sample_counters

from fullsend_protocol.shared.errors import FullsendError
from fullsend_receiver.daemon.metrics_page import MetricsPage

if TYPE_CHECKING:
    from pathlib import Path


def test_the_page_is_in_memory_and_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "fullsend.prom"
    page = MetricsPage(sample_counters, str(path), 10)
    assert page.text is None
    page.publish(OVERVIEW)
    assert page.text == path.read_bytes()
    assert not complaints(path.read_text(encoding="utf-8"))
    page.publish(replace(OVERVIEW, at=NOW + 60))
    assert b"fullsend_metrics_timestamp_seconds 1790000060.0\n" in path.read_bytes()
    assert os.listdir(tmp_path) == [path.name]


def test_another_user_can_read_the_file(tmp_path: Path) -> None:
    path = tmp_path / "fullsend.prom"
    before = os.umask(0o077)
    try:
        MetricsPage(sample_counters, str(path), 10).publish(OVERVIEW)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_file_that_cannot_be_written_is_an_error_that_leads_on(tmp_path: Path) -> None:
    path = tmp_path / "collector" / "fullsend.prom"
    page = MetricsPage(sample_counters, str(path), 10)
    with pytest.raises(FullsendError, match=rf"^{path}: cannot be written: No such file or directory: see docs/mon"):
        page.publish(OVERVIEW)
    assert page.text is not None, "over HTTP they are there all the same"
    path.parent.mkdir()
    page.publish(OVERVIEW)
    assert path.read_bytes() == page.text


def test_new_settings_count_from_the_next_time_on(tmp_path: Path) -> None:
    page = MetricsPage(sample_counters, None, 10)
    page.publish(OVERVIEW)
    assert os.listdir(tmp_path) == []
    page.change(str(tmp_path / "b.prom"), 0)
    page.publish(OVERVIEW)
    text = (tmp_path / "b.prom").read_text(encoding="utf-8")
    assert 'fullsend_datasets_left_out{sender="alpha"} 1' in text
