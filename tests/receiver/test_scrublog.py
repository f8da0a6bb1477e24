from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fullsend_receiver.scrublog import Scrubbed, ScrubLog
from fullsend_receiver.store import Store

NOW = "2026-11-23T06:30:00Z"


def _result(file: str = "alpha/tank/@a", *damage: str, received: str = NOW, at: str = NOW) -> Scrubbed:
    return Scrubbed(file, received, at, damage, None if damage else "5c" * 32)


def _path(store: Store) -> Path:
    return store.state / "scrub.jsonl"


def test_nothing_is_known_at_first(store: Store) -> None:
    assert ScrubLog(store).get("alpha/tank/@a", NOW) is None
    assert not _path(store).exists()


def test_what_is_added_is_there_for_all(store: Store) -> None:
    log = ScrubLog(store)
    whole, damaged = _result("a"), _result("b", "chunk 0", "chunk 1")
    for result in (whole, damaged):
        log.add(result)
    for each in (log, ScrubLog(store)):
        assert (each.get("a", NOW), each.get("b", NOW)) == (whole, damaged)


def test_the_last_result_counts(store: Store) -> None:
    log = ScrubLog(store)
    log.add(_result("a", "chunk 0"))
    log.add(_result("a", at="2026-11-24T00:00:00Z"))
    found = ScrubLog(store).get("a", NOW)
    assert found is not None
    assert (found.damage, found.at) == ((), "2026-11-24T00:00:00Z")


def test_a_file_that_was_removed_and_pushed_again_is_another(store: Store) -> None:
    ScrubLog(store).add(_result("a", "chunk 0"))
    assert ScrubLog(store).get("a", "2026-11-25T00:00:00Z") is None


@pytest.mark.parametrize("torn", [b"", b"{", b'{"file": "b", "rece', b"[1]", b'{"file": 5}', b"\xff\n\n"])
def test_a_line_that_is_not_whole_takes_no_other_with_it(store: Store, torn: bytes) -> None:
    ScrubLog(store).add(_result("a"))
    with _path(store).open("ab") as file:
        file.write(torn)
    ScrubLog(store).add(_result("c"))
    log = ScrubLog(store)
    assert log.get("a", NOW) == _result("a")
    assert log.get("b", NOW) is None
    assert log.get("c", NOW) == _result("c")


def test_the_log_is_written_anew_when_it_has_grown_and_loses_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fullsend_receiver.scrublog._SLACK", 5)
    log, other = ScrubLog(store), ScrubLog(store)
    other.add(_result("of another process"))
    for number in range(30):
        log.add(_result("a", at=f"2026-11-23T06:30:{number:02}Z"))
    assert len(_path(store).read_bytes().splitlines()) < 10
    fresh = ScrubLog(store)
    assert fresh.get("of another process", NOW) is not None
    found = fresh.get("a", NOW)
    assert found is not None
    assert found.at == "2026-11-23T06:30:29Z"


_ADD = """
import sys
from pathlib import Path
from fullsend_receiver.scrublog import Scrubbed, ScrubLog
from fullsend_receiver.store import Store
log = ScrubLog(Store(Path(sys.argv[1])))
for number in range(100):
    log.add(Scrubbed(f"{sys.argv[2]}/{number}", "then", "now", ("x" * 5000,), None))
"""


def test_two_that_add_at_once_lose_nothing(store: Store) -> None:
    adding = [subprocess.Popen([sys.executable, "-c", _ADD, store.root, name]) for name in ("a", "b")]
    assert [process.wait(60) for process in adding] == [0, 0]
    log = ScrubLog(store)
    assert all(log.get(f"{name}/{number}", "then") for name in ("a", "b") for number in range(100))
