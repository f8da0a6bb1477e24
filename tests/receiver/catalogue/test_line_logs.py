from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.receiver.buckets import MemoryBucket

from fullsend_receiver.catalogue.line_logs import DocumentLog, FileLog
from fullsend_receiver.store_s3.documents import BucketDocuments

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["file", "document"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "file":
        return FileLog(tmp_path / "log")
    return DocumentLog(BucketDocuments(MemoryBucket()), "log")


def content(log: Any) -> bytes:
    with log.open() as file:
        return bytes(file.read())


def test_lines_are_appended_and_read(log: Any) -> None:
    assert content(log) == b""
    before = log.signature()
    size, added, _signature = log.append(b"one\n", durable=True)
    assert (size, added) == (0, b"one\n")
    assert log.signature() != before
    size, added, _signature = log.append(b"two\nthree\n", durable=False)
    assert (size, added) == (4, b"two\nthree\n")
    assert content(log) == b"one\ntwo\nthree\n"
    assert log.signature() == log.signature()


def test_all_lines_are_replaced(log: Any) -> None:
    log.append(b"one\n", durable=True)
    content(log)
    log.replace(b"two\n")
    assert content(log) == b"two\n"


def test_signature_of_a_file_is_known_after_a_change(tmp_path: Path) -> None:
    log = FileLog(tmp_path / "log")
    assert log.append(b"one\n", durable=True)[2] == log.signature()


def test_line_that_was_not_written_to_its_end_gets_one(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"on")
    log = FileLog(tmp_path / "log")
    assert log.append(b"two\n", durable=True)[:2] == (2, b"\ntwo\n")


def test_file_that_never_exists_is_empty() -> None:
    log = FileLog(None)
    assert log.signature() is None
    assert content(log) == b""


def test_lines_of_another_process_are_not_replaced() -> None:
    documents = BucketDocuments(MemoryBucket())
    mine, other = DocumentLog(documents, "log"), DocumentLog(documents, "log")
    mine.append(b"one\n", durable=True)
    content(mine)
    other.append(b"two\n", durable=True)
    mine.replace(b"")
    assert content(mine) == b"one\ntwo\n"
