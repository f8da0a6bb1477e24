"""`fullsend report`; what the page says is in tests/sender/monitor/test_report.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sender.command import AWAY, Fullsend

if TYPE_CHECKING:
    from pathlib import Path


async def test_without_a_receiver_nothing_is_replaced(fullsend: Fullsend, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("old", encoding="utf-8")
    ended = await fullsend(AWAY, "report", "--html", str(page))
    assert (ended.code, ended.out) == (75, b"")
    assert page.read_text(encoding="utf-8") == "old"


async def test_a_file_must_be_named(fullsend: Fullsend) -> None:
    ended = await fullsend(AWAY, "report")
    assert ended.code == 2
    assert "--html" in ended.err
