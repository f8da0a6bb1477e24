"""What a command goes by."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from fullsend_protocol.shared.errors import UsageError
from fullsend_sender.cli.configuration import read_all, read_settings
from fullsend_sender.cli.main import make_parser
from fullsend_sender.host.identity import Identity
from fullsend_sender.host.log import log

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "sender.toml"
    table = '[receivers.{}]\naddress = "host:1"\nfingerprint = "{}"\nsender = "alpha"\n'
    tables = [table.format(name, digit * 64) for name, digit in (("nas", "0"), ("attic", "1"))]
    path.write_text(f'level = 5\nreceiver = "nas"\n{"".join(tables)}', encoding="utf-8")
    return str(path)


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    before = log.handlers[:], log.propagate, log.level
    yield
    log.handlers[:], log.propagate = before[:2]
    log.setLevel(before[2])


def test_words_come_before_the_environment_and_the_environment_before_the_file(
    config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--config", config, "push"]
    assert read_settings(make_parser().parse_args(words)).level == 5
    monkeypatch.setenv("FULLSEND_LEVEL", "7")
    assert read_settings(make_parser().parse_args(words)).level == 7
    assert read_settings(make_parser().parse_args([*words, "--level", "9"])).level == 9


def test_the_log_is_as_it_is_configured(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    read_settings(make_parser().parse_args(["--config", config, "-v", "--log-format", "json", "push"]))
    assert log.level == logging.INFO
    log.info("said")
    assert '"message": "said"' in capsys.readouterr().err


def test_the_receiver_and_who_this_host_is(config: str) -> None:
    settings, endpoint, identity = read_all(make_parser().parse_args(["--config", config, "list"]))
    assert (settings.level, endpoint.name, endpoint.fingerprint) == (5, "nas", "0" * 64)
    assert identity == Identity.beside(config)
    _, endpoint, _ = read_all(make_parser().parse_args(["--config", config, "list", "--receiver", "attic"]))
    assert endpoint.name == "attic"
    with pytest.raises(UsageError, match="no receiver 'cellar' is configured"):
        read_all(make_parser().parse_args(["--config", config, "list", "--receiver", "cellar"]))
