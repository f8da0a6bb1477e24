from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from fullsend_protocol.shared.errors import ErrorCode, FullsendError
from fullsend_receiver.store import errors
from fullsend_receiver.store.errors import (
    ManifestError,
    PartialDamaged,
    StoreError,
    StoreFull,
    StoreMissing,
    StoreReadOnly,
    disk_error,
    folder_error,
)
from fullsend_receiver.store_s3.bucket import BucketBusy, BucketUnusable
from fullsend_receiver.store_s3.faults import as_disk_errors


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StoreError("it is missing"), ErrorCode.STORE),
        (StoreFull("no room for a name"), ErrorCode.SPACE),
        (PartialDamaged("the disk has lost a batch"), ErrorCode.PARTIAL),
        (ManifestError("alpha/tank/@s.json", "cannot be read"), ErrorCode.STORE),
    ],
)
def test_each_is_a_store_error_with_the_code_that_a_sender_gets(error: FullsendError, code: ErrorCode) -> None:
    assert isinstance(error, StoreError)
    assert error.code == code


def test_a_manifest_error_has_its_path_and_its_reason_apart() -> None:
    error = ManifestError("alpha/tank/@s.json", "cannot be read: it is empty")
    assert (error.path, error.what) == ("alpha/tank/@s.json", "cannot be read: it is empty")
    assert str(error) == "alpha/tank/@s.json: cannot be read: it is empty"


@pytest.mark.parametrize(
    ("number", "kind", "says"),
    [
        (errno.ENOSPC, StoreFull, "the store is full (No space left on device): free space on the receiver"),
        (errno.EDQUOT, StoreFull, "the store is full (Disk quota exceeded): free space on the receiver"),
        (errno.EFBIG, StoreFull, "the store is full (File too large): free space on the receiver"),
        (errno.EROFS, StoreReadOnly, "the store's disk is mounted read-only: see the kernel's log, and remount it"),
        (
            errno.EIO,
            StoreError,
            "the store's disk fails (Input/output error, /x): see the kernel's log on the receiver",
        ),
        (errno.ESTALE, StoreMissing, "the store's disk is gone (Stale file handle, /x): connect and mount it again"),
        (errno.EMFILE, StoreError, "the store cannot be used (Too many open files, /x)"),
    ],
)
def test_an_error_of_the_disk_is_one_line_with_what_to_do(number: int, kind: type[StoreError], says: str) -> None:
    error = disk_error(OSError(number, os.strerror(number), "/x"))
    assert type(error) is kind
    assert str(error) == says
    assert "[Errno" not in str(disk_error(OSError(number, os.strerror(number))))


def test_an_error_of_an_object_store_says_itself_what_it_means() -> None:
    with pytest.raises(BucketUnusable) as raised, as_disk_errors():
        raise BucketBusy("s3://b: GetObject is refused (503 SlowDown): try again later")
    assert disk_error(raised.value) is raised.value
    assert raised.value.code is ErrorCode.LIMIT


def test_a_missing_permission_names_the_user() -> None:
    said = str(disk_error(PermissionError(errno.EACCES, "Permission denied", "/x")))
    assert said.startswith(f"the store refuses uid {os.geteuid()} (Permission denied, /x): ")


def test_an_error_without_a_text_has_its_name() -> None:
    assert str(disk_error(OSError())) == "the store cannot be used (OSError)"


def test_a_folder_that_this_process_alone_cannot_write_to_is_told_with_the_setting_of_the_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = OSError(errno.EROFS, "Read-only file system", str(tmp_path / "serving"))
    assert str(folder_error(error, tmp_path)) == str(disk_error(error))
    monkeypatch.setattr(errors, "is_read_only_here", lambda _folder: True)
    found = folder_error(error, tmp_path)
    assert type(found) is StoreReadOnly
    assert "the store's disk is mounted read-only: for this process alone" in str(found)
    assert f"ReadWritePaths={tmp_path} by `systemctl edit fullsendd`" in str(found)
    full = OSError(errno.ENOSPC, "No space left on device")
    assert type(folder_error(full, tmp_path)) is StoreFull
