from __future__ import annotations

from pathlib import Path

import pytest

from fullsend_cli.documents import write_document
from fullsend_protocol.shared.errors import OutputFailed, UsageError


def replace(path: str, data: bytes) -> None:
    Path(path).write_bytes(data)


def refuse(path: str, data: bytes) -> None:
    pytest.fail(f"{path} is replaced")


def test_a_new_file_and_an_old_one(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    write_document(str(file), "käse\udcff", replace)
    assert file.read_bytes() == "käse\\udcff".encode()
    write_document(str(file), "new", replace)
    assert file.read_text(encoding="utf-8") == "new"


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_document(str(tmp_path / "link"), "x", replace)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text(encoding="utf-8") == "x"


@pytest.mark.parametrize(
    ("target", "why"), [("/dev/null", "is not a file"), ("/tmp", "is not a file"), ("/missing/x", "no such folder")]
)
def test_what_is_not_a_file_is_not_replaced(target: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        write_document(target, "x", refuse)


def test_a_file_that_cannot_be_written_is_named_with_the_reason(tmp_path: Path) -> None:
    def fail(_path: str, _data: bytes) -> None:
        raise PermissionError(13, "Permission denied")

    with pytest.raises(OutputFailed, match=f"^{tmp_path}/page.html cannot be written: Permission denied$"):
        write_document(f"{tmp_path}/page.html", "x", fail)


def test_stdout(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    write_document("-", "Grüße", refuse)
    assert capfdbinary.readouterr().out == "Grüße".encode()


def test_a_closed_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    with pytest.raises(OutputFailed, match="stdout is closed"):
        write_document("-", "x", refuse)
