"""`fullsendd check`."""

from __future__ import annotations

import json
from pathlib import PurePosixPath

from tests.receiver.running import Receiver


def test_check_says_what_it_looked_at(filled: tuple[Receiver, PurePosixPath, PurePosixPath]) -> None:
    done = filled[0].fullsendd("check")
    assert done.returncode == 0, done.stderr
    assert "warning  advertised 127.0.0.1:1: no daemon answers" in done.stdout
    assert all(line.startswith(("ok ", "warning  advertised")) for line in done.stdout.splitlines())
    assert "2 streams" in done.stdout
    rows = [json.loads(line) for line in filled[0].fullsendd("check", "--json").stdout.splitlines()]
    said = [f"{row['result']:7}  {row['text']}" for row in rows]
    assert said == done.stdout.splitlines()


def test_check_sees_a_disk_that_is_nearly_full(receiver: Receiver) -> None:
    receiver.set(connections=5)
    text = receiver.config.read_text(encoding="utf-8").replace("min-free = 0", 'min-free = "9000T"')
    receiver.config.write_text(text, encoding="utf-8")
    done = receiver.fullsendd("check")
    assert done.returncode == 1
    assert "pushes are refused" in done.stdout
