from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

from fullsend_protocol.shared.errors import ErrorCode
from fullsend_receiver.store.errors import StoreFull
from fullsend_receiver.store_s3 import faults


@pytest.mark.parametrize(
    ("status", "code", "advice"),
    [
        (503, "SlowDown", "try again later"),
        (503, "", "try again later"),
        (429, "TooManyRequests", "the object store is overloaded: try again later"),
        (400, "ExpiredToken", "renew them"),
        (400, "AuthorizationHeaderMalformed", "the region is wrong"),
        (403, "RequestTimeTooSkewed", "set this host's clock"),
        (404, "NoSuchBucket", "create it"),
        (404, "404", "the proxy before it"),
        (404, "", "the proxy before it"),
        (404, "NoSuchThing", "see the log of the object store"),
        (403, "", "credentials are refused"),
        (418, "Teapot", "see the log of the object store"),
        (403, "QuotaExceeded", "raise its quota"),
        (507, "XMinioStorageFull", "the object store is full: give it room"),
    ],
)
def test_refusal_is_one_line_with_what_to_do(status: int, code: str, advice: str) -> None:
    error = faults.refused("s3://b/key", "PutObject", status, code)
    passing = status in {429, 503} or (status, code) in {(404, "404"), (404, "")}  # a sender retries these
    full = status == 507 or code == "QuotaExceeded"
    assert error.code is (ErrorCode.LIMIT if passing else ErrorCode.SPACE if full else ErrorCode.STORE)
    assert isinstance(error, StoreFull) == full
    assert str(error).startswith(f"s3://b/key: PutObject is refused ({status} {code}): ")
    assert advice in str(error)
    assert "\n" not in str(error)


def test_reason_of_a_missing_answer_is_one_printable_line() -> None:
    error = faults.unreachable("s3://b", "GetObject", "no route\x1b[2J\nand more")
    assert error.code is ErrorCode.LIMIT
    assert str(error).startswith("s3://b: GetObject has no answer (no route")
    assert "\x1b" not in str(error)
    assert "\n" not in str(error)


def test_what_this_host_lacks_is_named() -> None:
    assert "AWS_ACCESS_KEY_ID" in str(faults.no_credentials("s3://b"))


def test_missing_library_is_installed_by_the_pip_of_this_installation_if_it_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    without = str(faults.no_library())
    assert "this installation has no pip: " in without
    assert "`" not in without
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pip").touch()
    assert f"needs boto3: install it with `{tmp_path}/bin/pip install '{faults.LIBRARY}'`" in str(faults.no_library())
    pyproject = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))
    assert pyproject["project"]["optional-dependencies"]["s3"] == [faults.LIBRARY]
