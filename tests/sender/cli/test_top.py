"""`fullsend top` without a terminal. With one, beside real pushes: tests/end_to_end/test_top.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.sender.command import here

from fullsend_protocol.shared.stages import TransferCount
from fullsend_protocol.wire.live import LiveTransfer
from fullsend_sender.cli.top import look
from fullsend_sender.host import live
from fullsend_sender.host.live import LiveFile

LIVE = LiveTransfer.of("7.1", "push", "nas", "tank/a@now", TransferCount(0.0, 9), 1.0)


def test_the_oldest_comes_first(tmp_path: Path) -> None:
    files = [LiveFile(str(tmp_path)) for _ in range(3)]
    for seconds, file in enumerate(files):
        file.write(LIVE.model_copy(update={"seconds": float(seconds)}))
    assert [each.seconds for each in look(str(tmp_path)).transfers] == [2.0, 1.0, 0.0]
    for file in files:
        file.close()


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_folder: str) -> None:
        raise PermissionError(13, "Permission denied", "/run/x")

    monkeypatch.setattr(live, "private_folder", fails)
    found = look(str(tmp_path))
    assert found.transfers == ()
    assert found.trouble.startswith("what is under way cannot be read: ")


def test_it_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(live, "default_folder", lambda: str(tmp_path))
    file = LiveFile()
    file.write(LIVE)
    ended = here(capsys, "top")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[-1].split()[:3] == [b"push", b"nas", b"tank/a@now"]
    file.close()
    assert b"no transfer is under way" in here(capsys, "top", "--once").out
