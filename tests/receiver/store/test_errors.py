from __future__ import annotations

import pytest

from fullsend_protocol.shared.errors import ErrorCode, FullsendError
from fullsend_receiver.store.errors import ManifestError, PartialDamaged, StoreError, StoreFull


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
