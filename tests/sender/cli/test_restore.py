"""`fullsend restore`: its words. What it does is in tests/sender/test_restore.py."""

from __future__ import annotations

import pytest
from tests.programs import free_port
from tests.sender.command import Fullsend, here

from fullsend_sender.cli.main import make_parser
from fullsend_sender.host.options import Endpoint


def test_nothing_is_asked_for_that_was_not_said() -> None:
    args = make_parser().parse_args(["restore", "tank/a"])
    assert (args.into, args.recursive, args.exclude, args.rollback, args.mountable) == (None, False, [], False, False)
    assert (args.no_quotas, args.unencrypted, args.dry_run, args.json) == (False, False, False, False)


def test_without_a_dataset_it_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    ended = here(capsys, "restore")
    assert ended.code == 2
    assert "the following arguments are required: DATASET[@SNAPSHOT]" in ended.line


@pytest.mark.parametrize("arguments", [[], ["-n"]])
async def test_a_receiver_that_is_away(fullsend: Fullsend, arguments: list[str]) -> None:
    away = Endpoint("nas", "127.0.0.1", free_port(), "00" * 32)
    ended = await fullsend(away, "restore", "tank/a", "--into", "pool/a", "--retry-for", "0s", *arguments)
    assert (ended.code, ended.out) == (75, b"")
    assert "cannot connect" in ended.line
