"""What `fullsendd check` says of the copies in another store."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.receiver.running import Receiver

if TYPE_CHECKING:
    from pathlib import Path, PurePosixPath


@pytest.fixture
def copied(filled: tuple[Receiver, PurePosixPath, PurePosixPath], tmp_path: Path) -> tuple[Receiver, Receiver]:
    """A store, and the other one into which [copy] has it copied."""
    receiver, other = filled[0], Receiver(tmp_path / "other")
    other.init()
    with receiver.config.open("a", encoding="utf-8") as file:
        file.write(f'[copy]\nto = "{other.config}"\n')
    return receiver, other


def said(receiver: Receiver) -> tuple[int, list[str]]:
    done = receiver.fullsendd("check")
    return done.returncode, [
        line for line in done.stdout.splitlines() if line.startswith(("ok       copies", "problem  copies"))
    ]


def test_copies_that_never_ran_are_no_problem_yet(copied: tuple[Receiver, Receiver]) -> None:
    receiver, other = copied
    line = f"ok       copies in {other.store}: no copy of all that is wanted was complete yet"
    assert said(receiver) == (0, [line])
    rows = [json.loads(each) for each in receiver.fullsendd("check", "--json").stdout.splitlines()]
    assert f"{rows[-1]['result']:7}  {rows[-1]['text']}" == line


def test_complete_copy_is_good_and_one_that_failed_is_a_problem(copied: tuple[Receiver, Receiver]) -> None:
    receiver, other = copied
    assert receiver.fullsendd("copy").returncode == 0
    code, (line,) = said(receiver)
    assert code == 0
    assert line.startswith(f"ok       copies in {other.store}: all that was stored at ")
    other.store.rename(other.store.with_name("unmounted"))
    assert receiver.fullsendd("copy").returncode == 1
    code, (away, line) = said(receiver)
    assert code == 1
    assert away.startswith(f"problem  copies: {other.store}: {other.store}: no store here")
    assert line.startswith(f"problem  copies in {other.store}: all that was stored at ")
    assert "the last run has failed" in line


def test_file_that_is_missing_is_a_problem(copied: tuple[Receiver, Receiver]) -> None:
    receiver, other = copied
    other.config.unlink()
    code, (line,) = said(receiver)
    assert code == 1
    assert line.startswith(f"problem  copies: {other.config}: no such file")


def test_without_the_table_nothing_is_said(receiver: Receiver) -> None:
    assert said(receiver) == (0, [])
