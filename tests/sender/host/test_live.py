"""Files for `fullsend top`: those of processes that run, and of processes that were killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fullsend_protocol.shared.errors import UsageError
from fullsend_protocol.shared.stages import TransferCount
from fullsend_protocol.wire.live import LiveTransfer
from fullsend_sender.host.live import LiveFile, read_live

LIVE = LiveTransfer.of("7.1", "push", "nas", "tank/a@now", TransferCount(0.0, 9), 1.0)

#: Writes a file, says so, and waits to be killed.
WRITER = """
import sys
from fullsend_protocol.wire.live import LiveTransfer
from fullsend_sender.host.live import LiveFile
file = LiveFile(sys.argv[1])
file.write(LiveTransfer.model_validate_json(sys.argv[2]))
print("written", flush=True)
sys.stdin.read()
"""


def test_a_file_is_read_while_its_process_has_it(tmp_path: Path) -> None:
    folder = str(tmp_path / "run")
    assert list(read_live(folder)) == []
    first, second = LiveFile(folder), LiveFile(folder)
    first.write(LIVE)
    second.write(LIVE.model_copy(update={"id": "2"}))
    first.write(LIVE.model_copy(update={"raw_bytes": 5}))
    assert sorted((each.id, each.raw_bytes) for each in read_live(folder)) == [("2", 0), ("7.1", 5)]
    assert len(os.listdir(folder)) == 2
    first.close()
    first.close()
    first.write(LIVE)  # by a thread that is late
    assert [each.id for each in read_live(folder)] == ["2"]
    second.close()
    assert os.listdir(folder) == []


def test_other_users_cannot_read_it(tmp_path: Path) -> None:
    file = LiveFile(str(tmp_path / "run"))
    file.write(LIVE)
    (written,) = (tmp_path / "run").iterdir()
    assert written.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700
    file.close()


def test_the_file_of_a_process_that_was_killed_is_removed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path), LIVE.model_dump_json()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        assert list(read_live(str(tmp_path))) == [LIVE]
        process.kill()
    assert len(os.listdir(tmp_path)) == 1
    assert list(read_live(str(tmp_path))) == []
    assert os.listdir(tmp_path) == []


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, real = LiveFile(str(tmp_path)), os.open
    file.write(LIVE)
    replaced: list[str] = []

    def opened(path: str, flags: int, mode: int = 0o777) -> int:
        descriptor = real(path, flags, mode)
        if not flags & os.O_CREAT and not replaced:
            replaced.append(path)
            file.write(LIVE.model_copy(update={"raw_bytes": 5}))
        return descriptor

    monkeypatch.setattr(os, "open", opened)
    assert [each.raw_bytes for each in read_live(str(tmp_path))] == [5]
    assert replaced
    file.close()


def test_a_file_that_was_never_finished_is_removed_later(tmp_path: Path) -> None:
    (tmp_path / "1.live.new").write_text("")
    assert list(read_live(str(tmp_path))) == []
    assert os.listdir(tmp_path) == ["1.live.new"]  # it may be made at this moment
    os.utime(tmp_path / "1.live.new", (0, 0))
    assert list(read_live(str(tmp_path))) == []
    assert os.listdir(tmp_path) == []


def test_what_is_no_such_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "nas.lock").write_text("x")
    (tmp_path / "1.live").symlink_to("/etc/passwd")
    assert list(read_live(str(tmp_path))) == []
    assert len(os.listdir(tmp_path)) == 2


def test_a_file_with_something_else_is_passed_over(tmp_path: Path) -> None:
    file = LiveFile(str(tmp_path))
    file.write(LIVE)
    (written,) = tmp_path.iterdir()
    written.write_text("{}")  # the inode, and its lock, stay
    assert list(read_live(str(tmp_path))) == []
    file.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    with pytest.raises(UsageError, match="belongs to another user"):
        LiveFile(str(folder)).write(LIVE)
    with pytest.raises(UsageError, match="belongs to another user"):
        list(read_live(str(folder)))
