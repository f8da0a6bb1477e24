from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from fullsend_receiver.store_s3.open_uploads import OpenUploads

if TYPE_CHECKING:
    from pathlib import Path

#: A process that has an upload open until its stdin ends.
_OTHER = """
import sys
from pathlib import Path
from fullsend_receiver.store_s3.open_uploads import OpenUploads
uploads = OpenUploads(Path(sys.argv[1]))
uploads.add("key")
print("open", flush=True)
sys.stdin.read()
"""


def test_upload_is_open_until_it_is_closed_as_often_as_it_was_opened(tmp_path: Path) -> None:
    uploads = OpenUploads(tmp_path / "arriving")
    assert not uploads.has("key")
    uploads.add("key")
    uploads.add("key")
    assert uploads.has("key")
    assert not uploads.has("other")
    uploads.discard("key")
    assert uploads.has("key")
    uploads.discard("key")
    assert not uploads.has("key")
    assert list((tmp_path / "arriving").iterdir()) == []


def test_upload_of_another_process_is_open_until_that_dies(tmp_path: Path) -> None:
    uploads = OpenUploads(tmp_path / "arriving")
    with subprocess.Popen(
        [sys.executable, "-c", _OTHER, tmp_path / "arriving"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        assert uploads.has("key")
        uploads.add("key")  # taken over
        other.kill()
        other.wait()
        uploads.discard("key")
    assert not uploads.has("key")


def test_file_that_a_killed_process_has_left_is_no_open_upload(tmp_path: Path) -> None:
    (tmp_path / "key").touch()
    uploads = OpenUploads(tmp_path)
    assert not uploads.has("key")
    uploads.add("key")
    assert uploads.has("key")
